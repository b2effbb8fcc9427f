"""Implicit steps of the composition: the solver against dense algebra, closed forms, and a published benchmark."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from checks import convergence_rates
from chemomech.errors import ConvergenceError
from chemomech.mechanics.box import Box
from chemomech.phasefield.cahn_hilliard import CahnHilliard, Transport
from chemomech.phasefield.free_energy import RegularSolution
from chemomech.phasefield.node_grid import node_grid
from chemomech.phasefield.void import VoidSimulation
from chemomech.units import EV_PER_AJ
from phasefield.test_node_grid import assembled

OPEN = (False, False, False)
LAW = RegularSolution(4.4)
SPONGE = np.random.default_rng(5).random((7, 6, 9)) < 0.7


def simulation(grid, transport, tolerance=1e-3, **options):
    """Energies in kT nm^3."""
    return VoidSimulation(
        CahnHilliard(grid, transport), None, site_density_nm3=EV_PER_AJ, kT_eV=1.0, tolerance=tolerance, **options
    )


def run(sim, composition, until):
    now, record, _ = sim.begin(composition)
    records = [record]
    while now.time_s < until:
        now, record, _ = sim.advance(now, until)
        records.append(record)
    return now, records


@pytest.mark.parametrize("anisotropy", [(1.0, 1.0), (100.0, 1e5)])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_a_step_equals_a_dense_solution(anisotropy, length):
    """One Newton step from a state near enough that the next is below rounding, on a random sponge."""
    spacing = np.array([2.0, 1.5, 3.0])
    grid = node_grid(SPONGE, spacing, Box(SPONGE.shape, OPEN))
    gradient, diffusivity = np.array([50.0, 50 * anisotropy[0], 50.0]), np.array([1.0, anisotropy[1], 1.0])
    equations = CahnHilliard(grid, Transport(LAW, gradient, diffusivity))
    exists = grid.exists[grid.box.owned].ravel()
    before = grid.of_nodes(0.9 + 0.001 * np.random.default_rng(6).standard_normal(grid.box.nodes))
    equations.set_mobility(before)
    composition, potential = before.copy(), grid.field()
    equations.solve(1 / length, before / length, composition, potential, 1e-12)
    mass = grid.mass[grid.box.owned].ravel()[exists]
    mobile = LAW.mobility(before)
    flow = np.zeros((exists.size, exists.size))
    nodes = np.arange(exists.size).reshape(grid.box.nodes)
    pairs = assembled(SPONGE, spacing, diffusivity)
    relative = mobile[grid.box.owned].ravel()
    i, j = np.nonzero(np.triu(pairs, 1))
    g = pairs[i, j] * (relative[i] + relative[j]) / 2
    for place, value in (((i, j), g), ((j, i), g), ((i, i), -g), ((j, j), -g)):
        np.add.at(flow, place, value)
    flow = flow[np.ix_(exists, exists)]
    bending = assembled(SPONGE, spacing, gradient)[np.ix_(exists, exists)]
    assert nodes.size == exists.size
    x0 = before[grid.box.owned].ravel()[exists]
    x = x0.copy()
    for _ in range(6):
        mu = LAW.potential(x) + bending @ x / mass
        slope = np.diag(LAW.curvature(x)) + bending / mass[:, None]
        x -= np.linalg.solve(np.diag(mass) / length + flow @ slope, mass * (x - x0) / length + flow @ mu)
    np.testing.assert_allclose(composition[grid.box.owned].ravel()[exists], x, atol=1e-9)


@pytest.mark.parametrize("length", [1e-2, 1.0, 1e2, 1e4])
def test_iterations_hardly_depend_on_step_and_anisotropy(length):
    """From noise: the explicit limit is some 2e-3 s here, so that steps reach 5e6 times that."""
    grid = node_grid(np.ones((24, 16, 20), bool), np.full(3, 2.5), Box((24, 16, 20), OPEN))
    taken = []
    for stiff, fast in ((1, 1), (100, 1), (1, 1e5), (100, 1e5)):
        transport = Transport(LAW, 521 * np.array([1.0, stiff, 1.0]), np.array([1.0, fast, 1.0]))
        equations = CahnHilliard(grid, transport)
        before = grid.of_nodes(0.95 + 0.02 * np.random.default_rng(7).uniform(-1, 1, grid.box.nodes))
        equations.set_mobility(before)
        taken.append(equations.solve(1 / length, before / length, before.copy(), grid.field(), 1e-8))
    assert max(taken) <= 14


def test_it_says_when_it_does_not_converge(monkeypatch):
    monkeypatch.setattr("chemomech.phasefield.cahn_hilliard._MOST_ITERATIONS", 2)
    grid = node_grid(np.ones((8, 2, 8), bool), np.ones(3), Box((8, 2, 8), OPEN))
    equations = CahnHilliard(grid, Transport(LAW, np.full(3, 10.0), np.ones(3)))
    before = grid.of_nodes(0.8 + 0.1 * np.random.default_rng(8).uniform(-1, 1, grid.box.nodes))
    equations.set_mobility(before)
    with pytest.raises(ConvergenceError, match=r"implicit step .* 2 iterations"):
        equations.solve(1.0, before, before.copy(), grid.field(), 1e-10)


@pytest.mark.parametrize("spacing", [(1, 1, 4), (4, 1, 1), (1, 4, 1), (2, 1, 3)])
def test_iterations_with_long_voxels(spacing):
    grid = node_grid(np.ones((24, 8, 24), bool), np.array(spacing, dtype=float), Box((24, 8, 24), OPEN))
    equations = CahnHilliard(grid, Transport(LAW, np.full(3, 100.0), np.ones(3)))
    before = grid.of_nodes(0.95 + 0.02 * np.random.default_rng(7).uniform(-1, 1, grid.box.nodes))
    equations.set_mobility(before)
    assert equations.solve(1e-2, before * 1e-2, before.copy(), grid.field(), 1e-8) <= 14


def interface(h):
    """A relaxed interface in a bar of 160 nm: profile and energy per area above the two phases', kT nm."""
    n = round(160 / h)
    grid = node_grid(np.ones((n, 1, 1), bool), np.array([h, 1.0, 1.0]), Box((n, 1, 1), OPEN))
    poor, rich = LAW.binodal()
    x = np.arange(n + 1) * h - 80
    start = np.broadcast_to((0.5 + (rich - poor) / 2 * np.tanh(x / 15))[:, None, None], grid.box.nodes)
    sim = simulation(grid, Transport(LAW, np.full(3, 521.0), np.ones(3)), 1e-3)
    now, records = run(sim, start, 1e7)
    level = LAW.energy(np.array(poor))
    return x, now.compositions[0][grid.box.owned][:, 0, 0], records[-1].chemical_aJ - level * grid.volume


def test_interface_against_the_closed_form():
    """kappa/2 X'^2 = h(X) - h(phase): energy int sqrt(2 kappa dh) dX (Cahn & Hilliard 1958), at second order in h."""
    poor, rich = LAW.binodal()
    level = LAW.energy(np.array(poor))

    def rise(x):
        return max(float(LAW.energy(np.array(x)) - level), 0.0)

    expected = quad(lambda x: np.sqrt(2 * 521 * rise(x)), poor, rich)[0]
    profile = solve_ivp(lambda _, x: np.sqrt(2 * rise(x[0]) / 521), (0, 60), [0.5], rtol=1e-9, dense_output=True)
    energies, misses = [], []
    for h in (4.0, 2.0, 1.0):
        x, composition, energy = interface(h)
        energies.append(abs(energy / expected - 1))
        middle = np.interp(0.5, composition, x)
        right = (x > middle) & (x < middle + 50)
        misses.append(np.abs(composition[right] - profile.sol(x[right] - middle)[0]).max())
    for errors in (energies, misses):
        assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.4)
        assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.4)
    assert energies[-1] < 1e-3


def test_spinodal_growth_rate():
    """s = -D X (1 - X) k^2 (h'' + kappa k^2) of linear theory, with the k^2 of the grid."""
    n, h, mode = 32, 2.0, 1
    grid = node_grid(np.ones((n, 1, 1), bool), np.array([h, 1.0, 1.0]), Box((n, 1, 1), (True, False, False)))
    sim = simulation(grid, Transport(LAW, np.full(3, 200.0), np.ones(3)), 1e-8)
    k = 2 * np.pi * mode / (n * h)
    k_squared = (2 - 2 * np.cos(k * h)) / h**2
    rate = -0.25 * k_squared * (LAW.curvature(np.array(0.5)) + 200 * k_squared)
    wave = np.cos(k * h * np.arange(n))[:, None, None]
    now, _ = run(sim, np.broadcast_to(0.5 + 1e-4 * wave, grid.box.nodes), 3 / rate)
    amplitude = 2 * np.mean((now.compositions[0][grid.box.owned] - 0.5) * wave)
    assert np.log(amplitude / 1e-4) / 3 == pytest.approx(1, abs=0.002)


def test_second_order_in_time(monkeypatch):
    """Equal steps, halved: the error falls four times, on a wave that grows into two phases."""
    monkeypatch.setattr("chemomech.phasefield.void._NEWTON", 1e-9)  # iterations to the end
    n, until = 24, 600.0
    grid = node_grid(np.ones((n, 1, 1), bool), np.array([4.0, 1.0, 1.0]), Box((n, 1, 1), OPEN))
    sim = simulation(grid, Transport(LAW, np.full(3, 521.0), np.ones(3)), 0.01)
    wave = np.cos(2 * np.pi * np.arange(n + 1) / n)[:, None, None]
    start = np.broadcast_to(0.5 + 0.05 * wave, grid.box.nodes)
    ends = []
    for n_steps in (20, 40, 80, 640):
        now = replace(sim.begin(start)[0], next_length_s=np.inf)
        for step in range(1, n_steps + 1):
            now, record, _ = sim.advance(now, until * step / n_steps)
            assert record.step == step
        ends.append(now.compositions[0][grid.exists])
    errors = [np.abs(end - ends[-1]).max() for end in ends[:-1]]
    assert np.abs(ends[-1] - start[grid.exists[grid.box.owned]]).max() > 0.1
    np.testing.assert_allclose(convergence_rates(errors), 2, atol=0.05)


def test_mass_energy_and_bounds_in_a_sponge():
    """Mass to 1e-12, an energy that never rises, 0 < X < 1, from violent noise to two phases."""
    grid = node_grid(np.random.default_rng(9).random((12, 8, 10)) < 0.75, np.full(3, 4.0), Box((12, 8, 10), OPEN))
    sim = simulation(grid, Transport(LAW, 521 * np.array([1.0, 100.0, 1.0]), np.array([1.0, 1e5, 1.0])), 5e-3)
    start = 0.5 + 0.49 * np.random.default_rng(10).uniform(-1, 1, grid.box.nodes)
    _, records = run(sim, start, 1e5)
    energies = np.array([record.energy_aJ for record in records])
    assert np.diff(energies).max() <= 2e-10 * np.abs(energies).max()
    assert max(abs(r.mean_composition / records[0].mean_composition - 1) for r in records) < 1e-12
    assert all(0 < r.lowest < r.highest < 1 for r in records)
    assert records[-1].highest - records[-1].lowest > 0.9


def test_exchange_fills_a_small_particle():
    """Fast inside, it follows dX/dt = A/V 2 j0 sinh((mu_res - mu(X)) / 2) / c: to the time stepping's tolerance."""
    solid = np.ones((3, 3, 3), bool)
    grid = node_grid(solid, np.ones(3), Box(solid.shape, OPEN))
    law = RegularSolution(1.0)
    transport = Transport(law, np.ones(3), np.full(3, 1e4), exchange_nm_per_s=0.05, reservoir_kT=1.0)
    _, records = run(simulation(grid, transport, 1e-6), np.full(grid.box.nodes, 0.2), 4.0)

    def fill(_, x):
        return 6 / 3 * 2 * 0.05 * np.sinh((1 - law.potential(x)) / 2)

    expected = solve_ivp(fill, (0, 4), [0.2], rtol=1e-10, atol=1e-12).y[0, -1]
    assert records[-1].mean_composition == pytest.approx(expected, abs=1e-4)
    assert expected > 0.5


def test_wetting_pulls_lithium_to_the_surface():
    """In equilibrium kappa dX/dn = -gamma' at the surface; weak wetting of a bar in one phase, by linear theory."""
    n, h, law, kappa = 80, 0.5, RegularSolution(1.0), 10.0
    grid = node_grid(np.ones((n, 1, 1), bool), np.array([h, 1.0, 1.0]), Box((n, 1, 1), (False, False, False)))
    # The sides of the bar wet as well, evenly: that shifts the potential everywhere and changes nothing.
    sim = simulation(grid, Transport(law, np.full(3, kappa), np.ones(3)), 1e-5, wetting_kT_per_nm2=-1e-3 * EV_PER_AJ)
    now, _ = run(sim, np.full(grid.box.nodes, 0.5), 3e4)
    profile = now.compositions[0][grid.box.owned][:, 0, 0]
    decay = np.sqrt(law.curvature(np.array(0.5)) / kappa)
    difference = profile[0] - profile[n // 2]
    assert difference == pytest.approx(1e-3 / (kappa * decay), rel=0.02)


@dataclass(frozen=True)
class Quartic:
    """PFHub's first benchmark (Jokisaari et al. 2017): 5 (c - 0.3)^2 (0.7 - c)^2, constant mobility."""

    lowest = -np.inf
    highest = np.inf

    def energy(self, c):
        return 5 * (c - 0.3) ** 2 * (0.7 - c) ** 2

    def potential(self, c):
        return 10 * (c - 0.3) * (0.7 - c) * (1 - 2 * c)

    def curvature(self, c):
        return 10 * ((0.7 - c) * (1 - 2 * c) - (c - 0.3) * (1 - 2 * c) - 2 * (c - 0.3) * (0.7 - c))

    def mobility(self, c):
        return np.ones_like(c)


def spinodal_benchmark(periodic, h, tolerance, times):
    """Free energies at `times` of the 200 x 200 square."""
    n = round(200 / h)
    grid = node_grid(np.ones((n, 1, n), bool), np.array([h, 1.0, h]), Box((n, 1, n), (periodic, False, periodic)))
    sim = simulation(grid, Transport(Quartic(), np.full(3, 2.0), np.full(3, 5.0)), tolerance)
    x, y = np.arange(grid.box.nodes[0])[:, None] * h, np.arange(grid.box.nodes[2]) * h
    c = 0.5 + 0.01 * (
        np.cos(0.105 * x) * np.cos(0.11 * y)
        + (np.cos(0.13 * x) * np.cos(0.087 * y)) ** 2
        + np.cos(0.025 * x - 0.15 * y) * np.cos(0.07 * x - 0.02 * y)
    )
    now, record, _ = sim.begin(np.repeat(c[:, None], 2, axis=1))
    energies = [record.chemical_aJ]
    for time in times:
        while now.time_s < time:
            now, record, _ = sim.advance(now, time)
        energies.append(record.chemical_aJ)
    return energies


def test_spinodal_benchmark_periodic():
    """Published: 318.86 at t = 1, 295.7 to 297.8 at 10, 135 to 141 at 100 (a grid of 2 here; 0.2 % at t = 10)."""
    _, one, ten, hundred = spinodal_benchmark(True, 2.0, 1e-3, (1, 10, 100))
    assert one == pytest.approx(318.86, abs=0.05)
    assert 295.1 < ten < 298.4
    assert 135 < hundred < 141


def test_spinodal_benchmark_without_flux():
    """Published: 319.1 at t = 0, 318.84 at t = 1."""
    start, one = spinodal_benchmark(False, 2.0, 1e-3, (1,))
    assert start == pytest.approx(319.1, abs=0.1)
    assert one == pytest.approx(318.84, abs=0.02)
