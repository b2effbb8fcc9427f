"""Free energies: derivatives and the phases in equilibrium."""

import numpy as np
import pytest

from chemomech.phasefield.free_energy import RegularSolution

X = np.linspace(0.02, 0.98, 25)


@pytest.mark.parametrize("omega", [0.0, 2.0, 4.4])
def test_derivatives(omega):
    """Central differences, whose error is the third derivative (below 1e5 here) times h^2 / 6."""
    law, h = RegularSolution(omega), 1e-5
    slope = (law.energy(X + h) - law.energy(X - h)) / (2 * h)
    curvature = (law.potential(X + h) - law.potential(X - h)) / (2 * h)
    np.testing.assert_allclose(law.potential(X), slope, atol=1e-6)
    np.testing.assert_allclose(law.curvature(X), curvature, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("omega", [2.1, 3.0, 4.4, 10.0])
def test_binodal_is_the_common_tangent(omega):
    """By symmetry the tangent is level: no potential at the two compositions."""
    poor, rich = RegularSolution(omega).binodal()
    assert 0 < poor < 0.5 < rich < 1
    np.testing.assert_allclose(RegularSolution(omega).potential(np.array([poor, rich])), 0, atol=1e-9)
