"""Elastic constants and plane stress."""

import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.mechanics.stiffness import FEPO4, LIFEPO4, OLIVINE, plane_stress


def test_mean_of_the_olivines_is_table_s1():
    """Deng SI, Table S1 (C11, C22, C33, C44, C55, C66, C12, C23; its C13 is lost in print), to its last digit."""
    printed = [157.4, 175.8, 154.0, 37.8, 49.05, 51.6, 51.2, 32.7]
    ours = [*np.diag(OLIVINE), OLIVINE[0, 1], OLIVINE[1, 2]]
    assert ours == pytest.approx(printed, abs=0.051)
    # C13 is the mean of 54.0 and 52.5 in Table S4.
    assert OLIVINE[0, 2] == pytest.approx(53.25)


def test_plane_stress_constants_of_the_reference_twins():
    """alpha, beta, gamma and C55 that an independent program used for the twins' mean stiffness, GPa."""
    alpha, beta, gamma, shear = 142.48850967007965, 43.726450511945394, 147.91757679180887, 49.05
    expected = [[alpha, beta, 0], [beta, gamma, 0], [0, 0, shear]]
    np.testing.assert_allclose(plane_stress(OLIVINE), expected, atol=0.05)


@pytest.mark.parametrize("stiffness", [FEPO4, LIFEPO4, OLIVINE])
def test_plane_stress_is_the_stiffness_with_a_free_thickness(stiffness):
    """Stretching a plate whose faces are free costs what relaxing eps_bb, eps_bc and eps_ab leaves of the energy."""
    random = np.random.default_rng(0)
    strain = random.standard_normal(3)
    relaxed = np.linalg.inv(np.linalg.inv(stiffness)[np.ix_([0, 2, 4], [0, 2, 4])])
    np.testing.assert_allclose(plane_stress(stiffness) @ strain, relaxed @ strain, rtol=1e-12)


def test_plane_stress_keeps_the_shear_stiffness():
    """sigma_ac = C55 (2 eps_ac): the factor of two that Deng SI, eq. 3.9 leaves out."""
    assert plane_stress(OLIVINE)[2, 2] == OLIVINE[4, 4]


@pytest.mark.parametrize(
    "stiffness", [np.eye(3), np.diag([1.0, 1, 1, 1, 1, -1]), np.triu(np.ones((6, 6)) + 6 * np.eye(6))]
)
def test_an_unphysical_stiffness_is_refused(stiffness):
    with pytest.raises(InputError, match="stiffness_GPa"):
        plane_stress(stiffness)
