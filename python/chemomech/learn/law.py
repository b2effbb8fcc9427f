"""The composition-eigenstrain law as a value: evaluate it, differentiate it, ask for its bands."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

from chemomech.arrays import Float, require_shape

#: Half-width of a 95 % interval of a normal distribution, in standard deviations.
NORMAL_95 = 1.959963984540054


def shifted_legendre(composition: Float, order: int, variance: Float | float = 0.0) -> Float:
    """Basis L_n(2X - 1) - L_n(1), n = 1..order, which vanishes at X = 1.

    When X carries Gaussian noise of a known variance s^2, a polynomial of the noisy value is biased: its mean is
    exp(s^2/2 d^2/dX^2) of the polynomial. Applying the inverse operator, a finite sum, gives polynomials of the noisy
    value whose mean is the true L_n (the Hermite argument of errors-in-variables regression; Fuller 1987, ch. 3).

    Parameters
    ----------
    composition : (...,) lithium fraction.
    order : highest Legendre order.
    variance : noise variance of the composition, broadcast against it.

    Returns
    -------
    (..., order)

    >>> shifted_legendre(np.array([0.0, 1.0]), 2).tolist()
    [[-2.0, 0.0], [0.0, 0.0]]
    """
    return np.stack([_unbiased(np.eye(order + 1)[n], composition, variance) - 1 for n in range(1, order + 1)], axis=-1)


def shifted_legendre_derivative(composition: Float, order: int, variance: Float | float = 0.0, times: int = 1) -> Float:
    """Derivative d^times/dX^times of `shifted_legendre`, (..., order)."""
    series = [legendre.legder(np.eye(order + 1)[n], times, scl=2) for n in range(1, order + 1)]
    return np.stack([_unbiased(each, composition, variance) for each in series], axis=-1)


def _unbiased(coefficients: Float, composition: Float, variance: Float | float) -> Float:
    """exp(-variance/2 d^2/dX^2) applied to a Legendre series in 2X - 1."""
    total = legendre.legval(2 * composition - 1, coefficients)
    factor: Float | float = 1.0
    for k in range(1, (len(coefficients) - 1) // 2 + 1):
        factor = factor * (-variance / (2 * k))
        total = total + factor * legendre.legval(2 * composition - 1, legendre.legder(coefficients, 2 * k, scl=2))
    return np.asarray(total)


@dataclass(frozen=True, eq=False)
class EigenstrainLaw:
    """Stress-free strain of a crystal along a and c as a function of its composition.

    f_i(X) = sum_n p_ni (L_n(2X - 1) - L_n(1)), i = a, c (Deng, eq. 2, with the gauge f(1) = 0).

    Attributes
    ----------
    coefficients : (2, order), rows a and c.
    covariance : (2 order, 2 order) of the coefficients, all of a first.

    >>> EigenstrainLaw(np.array([[0.025], [-0.01]]), np.zeros((2, 2)))(0.0).tolist()
    [-0.05, 0.02]
    """

    coefficients: Float
    covariance: Float

    def __post_init__(self) -> None:
        require_shape(self.coefficients, "coefficients", (2, None))
        require_shape(self.covariance, "covariance", (2 * self.order, 2 * self.order))

    @property
    def order(self) -> int:
        """Highest Legendre order."""
        return int(self.coefficients.shape[1])

    @property
    def standard_error(self) -> Float:
        """(2, order), standard errors of the coefficients."""
        return np.sqrt(np.diag(self.covariance)).reshape(2, -1)

    def __call__(self, composition: Float | float) -> Float:
        """Eigenstrain (..., 2) along a and c."""
        return shifted_legendre(np.asarray(composition), self.order) @ self.coefficients.T

    def derivative(self, composition: Float | float) -> Float:
        """Chemical expansion coefficient df/dX (..., 2)."""
        return shifted_legendre_derivative(np.asarray(composition), self.order) @ self.coefficients.T

    def band(self, composition: Float | float) -> Float:
        """Half-width (..., 2) of the point-wise 95 % band of the eigenstrain."""
        return self._band(shifted_legendre(np.asarray(composition), self.order))

    def derivative_band(self, composition: Float | float) -> Float:
        """Half-width (..., 2) of the point-wise 95 % band of df/dX."""
        return self._band(shifted_legendre_derivative(np.asarray(composition), self.order))

    def _band(self, basis: Float) -> Float:
        n = self.order
        blocks = np.stack([self.covariance[:n, :n], self.covariance[n:, n:]])
        return np.asarray(NORMAL_95 * np.sqrt(np.einsum("...m,imn,...n->...i", basis, blocks, basis)))
