"""The law as a value, and polynomials that noise does not bias."""

import numpy as np
import pytest
from scipy.special import eval_legendre

from chemomech.errors import InputError
from chemomech.learn.law import EigenstrainLaw, shifted_legendre, shifted_legendre_derivative

X = np.linspace(-0.1, 1.1, 13)


def test_the_basis_is_legendre_less_its_value_at_one():
    expected = np.stack([eval_legendre(n, 2 * X - 1) - 1 for n in range(1, 5)], axis=-1)
    np.testing.assert_allclose(shifted_legendre(X, 4), expected, atol=1e-13)


def test_slopes_are_derivatives():
    """Central differences err by h^2 / 6 times a third derivative below 2000: 4e-8 at h = 1e-5, and rounding 1e-10."""
    h = 1e-5
    expected = (shifted_legendre(X + h, 5, 0.01) - shifted_legendre(X - h, 5, 0.01)) / (2 * h)
    np.testing.assert_allclose(shifted_legendre_derivative(X, 5, 0.01), expected, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_noise_leaves_the_mean_of_the_basis_alone(order):
    """Gauss-Hermite quadrature over the noise is exact for polynomials: equality to rounding."""
    deviation = 0.1
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    noisy = shifted_legendre(X[:, None] + deviation * nodes, order, deviation**2)
    mean = np.einsum("q,xqn->xn", weights / weights.sum(), noisy)
    np.testing.assert_allclose(mean, shifted_legendre(X, order), atol=1e-12)


def test_the_variance_may_differ_from_pixel_to_pixel():
    variance = np.linspace(0, 0.02, len(X))
    pixelwise = [shifted_legendre(x, 4, v) for x, v in zip(X, variance, strict=True)]
    np.testing.assert_allclose(shifted_legendre(X, 4, variance), pixelwise)


def test_the_law_vanishes_at_lithium_iron_phosphate():
    law = EigenstrainLaw(np.array([[0.02, 0.01, 0.003], [-0.01, 0.0, 0.001]]), np.eye(6))
    np.testing.assert_allclose(law(1.0), 0, atol=1e-16)
    np.testing.assert_allclose(law.band(1.0), 0, atol=1e-16)


def test_bands_are_those_of_random_laws():
    """20000 draws know a standard deviation to 0.5 %; 3 % is six times that."""
    random = np.random.default_rng(0)
    root = random.standard_normal((4, 4)) * 1e-3
    law = EigenstrainLaw(np.array([[0.02, 0.001], [-0.01, 0.002]]), root @ root.T)
    draws = law.coefficients.ravel() + random.standard_normal((20000, 4)) @ root.T
    x = np.array([0.0, 0.3, 0.9])
    values = np.stack([EigenstrainLaw(p.reshape(2, 2), law.covariance).derivative(x) for p in draws])
    np.testing.assert_allclose(law.derivative_band(x), 1.96 * values.std(axis=0), rtol=0.03)


def test_shapes_are_checked():
    with pytest.raises(InputError, match=r"covariance must have shape \(4, 4\), got \(2, 2\)"):
        EigenstrainLaw(np.zeros((2, 2)), np.eye(2))
