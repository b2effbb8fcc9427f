"""Elasticity of a phase field: its potential is the derivative of its energy, and it slows and turns separation."""

import numpy as np
import pytest

from chemomech.mechanics.box import Box
from chemomech.mechanics.coherent_plate import plate_energy
from chemomech.mechanics.stiffness import FEPO4, LIFEPO4, OLIVINE, plane_stress
from chemomech.mechanics.voxel import VoxelBody
from chemomech.phasefield.cahn_hilliard import CahnHilliard, Transport
from chemomech.phasefield.coherency import Coherency, Eigenstrain
from chemomech.phasefield.free_energy import RegularSolution
from chemomech.phasefield.node_grid import node_grid
from chemomech.phasefield.void import VoidSimulation
from chemomech.units import EV_PER_AJ

EXPANSION = Eigenstrain(np.array([[0.05, 0.01], [0.0346, 0.0], [-0.02, 0.004]]))
LINEAR = Eigenstrain(np.array([[0.05], [0.0346], [-0.02]]))
KT_PER_NM3 = 13.76 * 0.0257


def test_eigenstrain_and_its_derivative():
    x, h = np.linspace(0, 1, 7), 1e-6
    slope = (EXPANSION(x + h) - EXPANSION(x - h)) / (2 * h)
    np.testing.assert_allclose(EXPANSION.derivative(x), slope, atol=1e-9)
    assert not EXPANSION(np.array([1.0])).any()


def coherency(solid, stiffness, eigenstrain=EXPANSION, periodic=(False, False, False), spacing=(2.0, 1.5, 2.5)):
    grid = node_grid(solid, np.array(spacing), Box(solid.shape, periodic))
    share = np.zeros(solid.shape) if stiffness.ndim == 3 else None
    body = VoxelBody(solid, spacing, stiffness, share=share, periodic=periodic)
    return Coherency(grid, body, eigenstrain, KT_PER_NM3)


def test_potential_is_the_derivative_of_the_energy():
    """Taylor: what is left after the linear term falls with the square of the step, on a sponge."""
    solid = np.random.default_rng(0).random((7, 5, 6)) < 0.75
    elastic, random = coherency(solid, OLIVINE), np.random.default_rng(1)
    grid = elastic.grid
    x, d = (grid.of_nodes(random.uniform(low, high, grid.box.nodes)) for low, high in ((0.3, 0.7), (-1, 1)))
    here = elastic.relax(x, None, 1e-12)
    slope = grid.integral(here.potential_kT * d) * KT_PER_NM3 / EV_PER_AJ
    steps = np.array([1e-1, 1e-2, 1e-3])
    left = [
        abs(elastic.relax(x + h * d, None, 1e-12).elastic.minimum_aJ - here.elastic.minimum_aJ - h * slope)
        for h in steps
    ]
    np.testing.assert_allclose(np.diff(np.log10(left)), -2, atol=0.05)


def test_a_mixture_stiffens_the_potential():
    """With C(X) the potential gains 1/2 eps : C' : eps; of mean strains, which differs from the discrete derivative by
    the variation inside a voxel: less than 2 % here, and no longer than the grid is coarse."""
    solid = np.ones((12, 4, 8), bool)
    elastic = coherency(solid, np.stack([FEPO4, LIFEPO4]), LINEAR)
    grid = elastic.grid
    along = np.arange(13)[:, None, None] / 12
    x = grid.of_nodes(np.broadcast_to(0.5 + 0.3 * np.cos(np.pi * along), grid.box.nodes))
    d = grid.of_nodes(np.broadcast_to(np.cos(np.pi * along), grid.box.nodes))
    slope = grid.integral(elastic.relax(x, None, 1e-10).potential_kT * d) * KT_PER_NM3 / EV_PER_AJ
    h = 1e-3
    plus, minus = (elastic.relax(x + s * d, None, 1e-11).elastic.minimum_aJ for s in (h, -h))
    assert (plus - minus) / (2 * h) == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize(("axis", "normal"), [(0, (1.0, 0.0)), (2, (0.0, 1.0))])
def test_coherency_slows_the_growth_of_a_wave(axis, normal):
    """Cahn's shift (1961): h'' gains twice the energy of a coherent plate of unit misfit, in plane stress as the body
    is thin along b. 32 voxels a wave, whose strain is right to (k h)^2 / 12: 0.3 %.
    """
    n, thickness, h = 32, 0.5, 4.0
    shape, spacing = [1, 1, 1], [h, thickness, h]
    shape[axis] = n
    periodic = (True, False, True)
    solid = np.ones(shape, bool)
    elastic = coherency(solid, OLIVINE, LINEAR, periodic, spacing)
    grid, law, kappa = elastic.grid, RegularSolution(12.0), 400.0
    misfit = LINEAR.derivative(np.array(0.5))[[0, 2, 4]]
    shift = 2 * plate_energy(plane_stress(OLIVINE), misfit, np.array(normal)) * EV_PER_AJ / KT_PER_NM3
    k = 2 * np.pi / (n * h)
    k_squared = (2 - 2 * np.cos(k * h)) / h**2
    rate = -0.25 * k_squared * (law.curvature(np.array(0.5)) + kappa * k_squared + shift)
    without = rate + 0.25 * k_squared * shift
    assert 0 < rate < 0.97 * without
    wave = np.cos(2 * np.pi * np.arange(n) / n).reshape([-1 if i == axis else 1 for i in range(3)])
    sim = VoidSimulation(
        CahnHilliard(grid, Transport(law, np.full(3, kappa), np.ones(3))),
        elastic, site_density_nm3=13.76, kT_eV=0.0257, tolerance=3e-6,
    )  # fmt: skip
    now, _, _ = sim.begin(np.broadcast_to(0.5 + 1e-3 * wave, grid.box.nodes))
    until = 1 / rate
    while now.time_s < until:
        now, _, _ = sim.advance(now, until)
    amplitude = 2 * np.mean((now.compositions[0][grid.box.owned] - 0.5) * wave)
    assert np.log(amplitude / 1e-3) == pytest.approx(1, abs=0.01)
