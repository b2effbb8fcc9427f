"""Incompatibility of strain maps."""

import numpy as np
import pytest

from checks import platelet
from chemomech.mechanics.compatibility import burgers_density, incompatibility
from chemomech.mechanics.dislocated_body import CHANNELS_OF_DISTORTION
from chemomech.mechanics.dislocations import DensityField, StraightDislocation
from chemomech.mechanics.stiffness import OLIVINE


def test_the_strain_of_a_displacement_is_compatible():
    """Central differences of a cubic displacement's strain (quadratic) are exact: only rounding is left."""
    h = 2.0
    y, x = h * np.indices((12, 15))
    # u = 3 x^3 - x^2 y + y^3, v = x y^2 - 2 x^3
    du_dx, du_dy = 9 * x**2 - 2 * x * y, -(x**2) + 3 * y**2
    dv_dx, dv_dy = y**2 - 6 * x**2, 2 * x * y
    strain = np.stack([du_dx, dv_dy, du_dy + dv_dx], axis=-1)
    mask = np.ones((12, 15), dtype=bool)
    field = incompatibility(strain, mask, h)
    assert np.nanmax(np.abs(field)) < 1e-12 * np.abs(strain).max() / h**2


def test_each_term_has_its_sign_and_factor():
    """r = d2 eps_aa/dc2 + d2 eps_cc/da2 - d2 (2 eps_ac)/(da dc) on polynomials with known second derivatives."""
    h = 0.5
    y, x = h * np.indices((5, 5))
    strain = np.stack([3 * y**2, 5 * x**2, 7 * x * y], axis=-1)
    assert incompatibility(strain, np.ones((5, 5), bool), h)[2, 2] == pytest.approx(6 + 10 - 7)


def test_it_is_defined_where_all_neighbours_are():
    mask = platelet()
    defined = np.isfinite(incompatibility(np.zeros((*mask.shape, 3)), mask, 1.0))
    padded = np.pad(mask, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    np.testing.assert_array_equal(defined, windows.all(axis=(2, 3)))


def test_the_burgers_density_of_a_displacement_vanishes():
    """Central differences of a cubic displacement's gradient (quadratic) are exact: only rounding is left."""
    h = 2.0
    y, x = h * np.indices((12, 15))
    # u = 3 x^3 - x^2 y + y^3, v = x y^2 - 2 x^3
    du_dx, du_dy = 9 * x**2 - 2 * x * y, -(x**2) + 3 * y**2
    dv_dx, dv_dy = y**2 - 6 * x**2, 2 * x * y
    distortion = np.stack([du_dx, dv_dy, du_dy + dv_dx, (dv_dx - du_dy) / 2], axis=-1)
    field = burgers_density(distortion, np.ones((12, 15), dtype=bool), h)
    assert np.nanmax(np.abs(field)) < 1e-12 * np.abs(distortion).max() / h


@pytest.mark.parametrize(("burgers", "component"), [((0.0, 0.0, 0.469), 1), ((1.033, 0.0, 0.0), 0)])
def test_the_burgers_density_counts_dislocations(burgers, component):
    """Summed over an area it is the Burgers vector inside (Stokes), here of 1.5 lines; none of the other kind.

    Central differences summed over a box are the circuit integral along two rows of pixels, by the midpoint rule, whose
    error is of the order (1 / 12 pixels)^2.
    """
    h, shape = 20.0, (41, 41)
    density = np.zeros(shape)
    density[20, 20] = 1.5 / h**2
    field = DensityField(StraightDislocation(OLIVINE, np.array(burgers)), shape, h)
    beta = field.distortion(density).reshape(*shape, 4)
    channels = np.einsum("ij,yxj->yxi", CHANNELS_OF_DISTORTION, beta)
    found = np.nansum(burgers_density(channels, np.ones(shape, bool), h)[8:-8, 8:-8], axis=(0, 1)) * h**2
    size = np.linalg.norm(burgers)
    assert found[component] == pytest.approx(1.5 * size, rel=0.01)
    assert abs(found[1 - component]) < 0.01 * size
