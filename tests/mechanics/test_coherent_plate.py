"""The coherent plate: closed forms of an isotropic body, and planes of no misfit."""

import numpy as np
import pytest

from chemomech.mechanics.coherent_plate import plate_energy, softest_angle
from chemomech.mechanics.stiffness import OLIVINE, plane_stress


def test_isotropic_dilatation():
    """B = 2 mu (1 + nu) / (1 - nu) eps^2 for any normal (Cahn 1961: E eps^2 / (1 - nu))."""
    young, poisson = 120.0, 0.27
    lame, shear = young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))
    stiffness = np.diag([2 * shear] * 3 + [shear] * 3)
    stiffness[:3, :3] += lame
    normals = np.random.default_rng(0).standard_normal((5, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    energy = plate_energy(stiffness, 0.01 * np.array([1.0, 1, 1, 0, 0, 0]), normals)
    np.testing.assert_allclose(energy, young * 0.01**2 / (1 - poisson), rtol=1e-12)


def test_a_plane_without_misfit_stores_nothing():
    """In the plane, a cos^2 + c sin^2 = 0 has a solution when a and c differ in sign."""
    misfit = np.array([0.05, -0.02, 0.0])
    stiffness = plane_stress(OLIVINE)
    angle = softest_angle(stiffness, misfit)
    assert angle == pytest.approx(np.degrees(np.arctan(np.sqrt(0.02 / 0.05))), abs=0.01)
    normal = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    assert plate_energy(stiffness, misfit, normal) < 1e-6 * plate_energy(stiffness, misfit, np.array([0.0, 1.0]))


def test_no_normal_relaxes_more_than_all_the_energy():
    normals = np.random.default_rng(1).standard_normal((50, 3))
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    misfit = np.array([0.05, 0.0346, -0.02, 0.01, 0.002, -0.003])
    energy = plate_energy(OLIVINE, misfit, normals)
    assert (energy >= 0).all()
    assert (energy <= misfit @ OLIVINE @ misfit / 2).all()
