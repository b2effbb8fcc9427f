"""Lattice maps to strain, strain and rotation to displacement."""

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from checks import assert_adjoint, convergence_rates, masks, platelet
from chemomech.errors import InputError
from chemomech.observe import strain as strain_module
from chemomech.observe.strain import InverseGradient, lattice_distortion


def by_pieces(mask, field):
    """A per-pixel field less its mean on every connected component."""
    labels = ndimage.label(mask)[0][mask] - 1
    count = np.bincount(labels)
    mean = np.column_stack([np.bincount(labels, weights=column) / count for column in field.T])
    return field - mean[labels]


def quadratic_field(mask, h):
    """Displacement (n, 2) quadratic in place and its distortion (n, 4) at pixel centres."""
    y, x = (h * axis[mask] for axis in np.indices(mask.shape))
    u, v = 0.01 * x - 0.002 * x * y + 0.003 * y**2, 0.004 * x**2 + 0.02 * y + 0.001 * x * y
    du_dx, du_dy, dv_dx, dv_dy = 0.01 - 0.002 * y, -0.002 * x + 0.006 * y, 0.008 * x + 0.001 * y, 0.02 + 0.001 * x
    return np.column_stack([u, v]), np.column_stack([du_dx, dv_dy, du_dy + dv_dx, (dv_dx - du_dy) / 2])


def test_lattice_distortion_is_relative_to_the_reference():
    a, c = np.full((2, 3), 1.02), np.full((2, 3), 0.99)
    distortion = lattice_distortion(a, c, 0 * a + 0.01, 0 * a - 0.02, a_reference_nm=1.0, c_reference_nm=1.0)
    np.testing.assert_allclose(distortion[0, 0], [0.02, -0.01, 0.01, -0.02], rtol=1e-13)


def test_a_reference_must_be_positive():
    with pytest.raises(InputError, match="a_reference_nm must be positive, got 0"):
        lattice_distortion(*np.ones((4, 2, 2)), a_reference_nm=0.0, c_reference_nm=1.0)


@settings(max_examples=50, deadline=None)
@given(masks)
def test_a_quadratic_displacement_comes_back_exactly(mask):
    """The mean of two gradients is the difference quotient of a quadratic: no error but rounding, on any topology."""
    displacement, distortion = quadratic_field(mask, 2.0)
    found = InverseGradient(mask, 2.0).displacement(distortion)
    np.testing.assert_allclose(found, by_pieces(mask, displacement), atol=1e-12)


def test_a_smooth_displacement_converges_at_second_order():
    errors = []
    for n in (16, 32, 64):
        mask = np.ones((n, n), dtype=bool)
        y, x = ((axis[mask] + 0.5) / n for axis in np.indices(mask.shape))
        u, du_dx, du_dy = (
            np.sin(3 * x) * np.cos(2 * y),
            3 * np.cos(3 * x) * np.cos(2 * y),
            -2 * np.sin(3 * x) * np.sin(2 * y),
        )
        distortion = np.column_stack([du_dx, 0 * x, du_dy, -du_dy / 2])
        found = InverseGradient(mask, 1 / n).displacement(distortion)[:, 0]
        errors.append(np.sqrt(np.mean((found - u + u.mean()) ** 2)))
    assert convergence_rates(errors) == pytest.approx(2, abs=0.1)


def test_uncertain_pixels_count_less():
    """A pixel with a wild strain and an honest uncertainty leaves the displacement alone."""
    mask = platelet()
    displacement, distortion = quadratic_field(mask, 1.0)
    deviation = np.ones_like(distortion)
    wild = len(distortion) // 2
    distortion[wild] += 1.0
    deviation[wild] = 1e4
    found = InverseGradient(mask, 1.0, deviation).displacement(distortion)
    trusting = InverseGradient(mask, 1.0).displacement(distortion)
    expected = by_pieces(mask, displacement)
    others = np.delete(np.arange(len(distortion)), wild)
    assert np.abs(found - expected)[others].max() < 1e-6
    assert np.abs(trusting - expected)[others].max() > 0.1


@pytest.mark.parametrize("weighted", [False, True])
def test_transpose(weighted):
    mask = platelet()
    n = int(mask.sum())
    random = np.random.default_rng(0)
    integral = InverseGradient(mask, 50.0, random.uniform(0.5, 2, (n, 4)) if weighted else None)
    assert_adjoint(
        lambda d: integral.displacement(d[..., 0])[..., None],
        integral.transpose,
        random.standard_normal((n, 4, 1)),
        random.standard_normal((n, 2, 1)),
    )


def test_large_maps_are_integrated_by_iteration_to_the_same_answer(monkeypatch):
    """The iteration stops at 1e-10 of the load; the condition number of 40 x 24 pixels costs three digits of it."""
    mask = platelet()
    distortion = np.random.default_rng(0).standard_normal((int(mask.sum()), 4))
    direct = InverseGradient(mask, 1.0).displacement(distortion)
    monkeypatch.setattr(strain_module, "_DIRECT_PIXELS", 0)
    np.testing.assert_allclose(InverseGradient(mask, 1.0).displacement(distortion), direct, atol=1e-7)
