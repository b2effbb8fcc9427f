"""A particle with a void: it separates, keeps its mass, never gains energy, and looks as microscopes see it."""

import numpy as np
import pytest

from chemomech.mechanics.box import Box
from chemomech.mechanics.coherent_plate import softest_angle
from chemomech.mechanics.stiffness import FEPO4, LIFEPO4, OLIVINE, plane_stress
from chemomech.mechanics.voxel import VoxelBody
from chemomech.phasefield.cahn_hilliard import CahnHilliard, Transport
from chemomech.phasefield.coherency import Coherency, Eigenstrain
from chemomech.phasefield.free_energy import RegularSolution
from chemomech.phasefield.node_grid import node_grid
from chemomech.phasefield.projection import project
from chemomech.phasefield.void import VoidSimulation

OPEN = (False, False, False)
LAW = RegularSolution(113.08 / 25.7)
EXPANSION = Eigenstrain(np.array([[0.05], [0.0346], [-0.02]]))


def particle(size_nm, h, void_nm=None, radius_nm=40.0, kappa_b=100.0, tolerance=3e-3):
    cells = [round(length / h) for length in size_nm]
    solid = np.ones(cells, bool)
    if void_nm is not None:
        x, y, z = ((np.arange(n) + 0.5) * h - c for n, c in zip(cells, void_nm, strict=True))
        solid = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 > radius_nm**2
    spacing = np.full(3, h)
    grid = node_grid(solid, spacing, Box(solid.shape, (False, False, False)))
    gradient = 13.4 / 0.0257 * np.array([1.0, kappa_b, 1.0])
    equations = CahnHilliard(grid, Transport(LAW, gradient, np.array([1.0, 1e5, 1.0])))
    coherency = Coherency(grid, VoxelBody(solid, spacing, OLIVINE), EXPANSION, 13.76 * 0.0257)
    return VoidSimulation(equations, coherency, site_density_nm3=13.76, kT_eV=0.0257, tolerance=tolerance), solid


def start_of(sim):
    return 0.5 + 0.05 * np.random.default_rng(0).uniform(-1, 1, sim.grid.box.nodes)


def run(sim, until, start=None):
    now, record, elastic = sim.begin(start_of(sim) if start is None else start)
    records = [record]
    while now.time_s < until:
        now, record, elastic = sim.advance(now, until)
        records.append(record)
    return now, records, elastic


@pytest.fixture(scope="module")
def separated():
    """Deng's particle (SI, Fig. S8a) at 10 nm, coarse but the same shape, from a tilted boundary."""
    sim, solid = particle((500, 100, 130), 10.0, (250, 50, 65))
    x, z = np.arange(51)[:, None, None] - 25, np.arange(14) - 6.5
    start = np.broadcast_to(0.5 + 0.45 * np.tanh((x + 0.4 * z) / 2), sim.grid.box.nodes)
    return sim, solid, *run(sim, 3e5, start)


def test_two_phases(separated):
    sim, _, now, _, _ = separated
    poor, rich = LAW.binodal()
    inside = now.compositions[0][sim.grid.exists]
    assert inside.min() == pytest.approx(poor, abs=0.02)
    assert inside.max() == pytest.approx(rich, abs=0.02)


def test_conservation_and_descent(separated):
    _, _, _, records, _ = separated
    energies = np.array([record.energy_aJ for record in records])
    assert np.diff(energies).max() <= 2e-10 * np.abs(energies).min()
    drift = [abs(record.mean_composition / records[0].mean_composition - 1) for record in records]
    assert max(drift) < 1e-12
    assert all(record.lowest > 0 and record.highest < 1 for record in records)


def test_b_is_uniform(separated):
    """Interfaces perpendicular to b would cost far more; kappa_b and D_b forbid them anyway."""
    sim, solid, now, _, _ = separated
    x = np.where(solid, sim.grid.cell_means(now.compositions[0]), np.nan)
    assert np.nanmax(np.nanmax(x, axis=1) - np.nanmin(x, axis=1)) < 0.1


def seen_along_b(sim, solid, now, elastic):
    means = sim.grid.cell_means(now.compositions[0])
    return project(solid, sim.grid.spacing_nm, means, elastic, EXPANSION, OLIVINE, sim.grid.box)


def test_the_microscope_sees_little_strain(separated):
    """Deng SI, Fig. S8: coherency strain averaged along b below 0.6 %, residual strain near zero."""
    sim, solid, now, _, elastic = separated
    seen = seen_along_b(sim, solid, now, elastic)
    assert np.nanmax(np.abs(seen.coherency[..., :2])) < 0.006
    assert np.nanmax(np.abs(seen.coherency[..., 2])) / 2 < 0.006
    assert np.sqrt(np.nanmean(seen.residual**2)) < 0.001
    assert np.nanmax(np.abs(seen.total)) > 0.04


def energy_of_a_plane(sim, angle):
    """Free energy of two phases on both sides of a plane through the middle, its normal at an angle from a."""
    poor, rich = LAW.binodal()
    n, h = sim.grid.box.nodes, sim.grid.spacing_nm[0]
    x, z = (np.arange(n[0]) - (n[0] - 1) / 2)[:, None, None] * h, (np.arange(n[2]) - (n[2] - 1) / 2) * h
    along = np.cos(np.radians(angle)) * x + np.sin(np.radians(angle)) * z
    profile = 0.5 + (rich - poor) / 2 * np.tanh(along / 12)  # interfaces are 24 nm wide
    return sim.begin(np.broadcast_to(profile, n))[1].energy_aJ


def test_the_boundary_lies_where_a_plane_would_store_least(separated):
    """In this slender particle that is across it: a tilt relaxes less energy than its longer boundary costs."""
    sim, solid, now, _, elastic = separated
    seen = seen_along_b(sim, solid, now, elastic)
    angles = np.array([0.0, 3.0, 6.0, 12.0, 20.0, 30.0])
    least = angles[np.argmin([energy_of_a_plane(sim, angle) for angle in angles])]
    assert seen.boundary_angle == pytest.approx(least, abs=3)


@pytest.mark.slow
def test_the_boundary_of_a_wide_plate_is_that_of_a_coherent_plate():
    """Where the boundary is long, elasticity decides: the normal of the plane without misfit, within 3 degrees."""
    sim, solid = particle((800, 20, 800), 10.0)
    x, z = np.arange(81)[:, None, None] - 40, np.arange(81) - 40
    now, record, elastic = sim.begin(
        np.broadcast_to(0.5 + 0.48 * np.tanh((0.94 * x + 0.34 * z) / 1.0), sim.grid.box.nodes)
    )
    while record.step < 4 or record.motion > 0.05:
        now, record, elastic = sim.advance(now, 3e7)
    seen = seen_along_b(sim, solid, now, elastic)
    expected = softest_angle(plane_stress(OLIVINE), np.array([0.05, -0.02, 0.0]))
    assert seen.boundary_angle == pytest.approx(expected, abs=3)


def test_projection_of_a_uniform_depth_is_plane_stress():
    """A plate thin along b in a profile along a: nothing is left unexplained."""
    _, solid = particle((96, 4, 96), 4.0)
    along = (np.arange(24) + 0.5)[:, None, None] / 24
    x = np.broadcast_to(0.5 + 0.4 * np.tanh(6 * (along - 0.5)), solid.shape)
    elastic = VoxelBody(solid, np.full(3, 4.0), OLIVINE).equilibrium(EXPANSION(x), rtol=1e-10)
    seen = project(solid, np.full(3, 4.0), x, elastic, EXPANSION, OLIVINE, Box(solid.shape, OPEN))
    # Bricks of one voxel lock a little in bending, triangles of second order do not: a few per cent of the strain.
    assert np.nanmax(np.abs(seen.residual)) < 0.1 * np.nanmax(np.abs(seen.coherency))
    assert seen.boundary_angle == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("angle", [0.0, 20.0, 45.0, 70.0, 90.0])
def test_boundary_angle_of_planes(angle):
    _, solid = particle((200, 10, 200), 5.0)
    x, _, z = np.indices(solid.shape)
    along = np.cos(np.radians(angle)) * (x - 19.5) + np.sin(np.radians(angle)) * (z - 19.5)
    elastic = VoxelBody(solid, np.full(3, 5.0), OLIVINE).equilibrium(np.zeros((*solid.shape, 6)))
    seen = project(
        solid, np.full(3, 5.0), 0.5 + 0.4 * np.tanh(along / 3), elastic, EXPANSION, OLIVINE, Box(solid.shape, OPEN)
    )
    assert seen.boundary_angle == pytest.approx(angle, abs=1.5)


def test_steps_do_not_depend_on_where_they_pause():
    """An end that cuts steps short leaves the same physics: to some tolerances of a step."""
    sim, _ = particle((60, 20, 40), 5.0, tolerance=1e-3)
    once, _, _ = run(sim, 2000.0)
    now, _, _ = sim.begin(start_of(sim))
    for end in (10.0, 137.0, 900.0, 2000.0):
        while now.time_s < end:
            now, _, _ = sim.advance(now, end)
    assert now.time_s == once.time_s == 2000.0
    assert np.abs(now.compositions[0] - once.compositions[0]).max() < 0.02


def test_mass_stays_with_a_mixed_stiffness():
    """Composition-dependent stiffness: the mass stays, too."""
    sim, solid = particle((60, 20, 40), 5.0, tolerance=1e-3)
    body = VoxelBody(solid, np.full(3, 5.0), np.stack([FEPO4, LIFEPO4]), share=np.zeros(solid.shape))
    sim.coherency = Coherency(sim.grid, body, EXPANSION, 13.76 * 0.0257)
    _, records, _ = run(sim, 500.0)
    assert abs(records[-1].mean_composition / records[0].mean_composition - 1) < 1e-12


@pytest.mark.slow
def test_morphology_does_not_depend_on_kappa_b():
    """Deng SI: with isotropic kappa the result is the same; a hundredth of the composition here, at 5 nm."""
    ends = []
    for stiff in (1.0, 100.0):
        sim, _ = particle((200, 100, 130), 5.0, (100, 50, 65), kappa_b=stiff)
        now, _, _ = run(sim, 3e5)
        ends.append(sim.grid.cell_means(now.compositions[0]).mean(axis=1))
    assert np.abs(ends[0] - ends[1]).mean() < 0.02
