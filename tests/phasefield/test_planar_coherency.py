"""Coherency between pixels: its spectrum, its place in the reaction, and its derivatives."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.integrate import solve_ivp

from chemomech.mechanics.stiffness import OLIVINE, plane_stress
from chemomech.phasefield.planar_coherency import OLIVINE_MISFIT, coherency_modes
from chemomech.phasefield.reaction import HeldEdge, HeldPotential, MeanRate, ReactionLaw, cell_mesh, react

#: c_s kT at 13.76 per nm^3 and 25.7 meV.
ENERGY_GPA = 13.76 * 0.0257 * 0.1602177
LAW = ReactionLaw(np.array([0.0, -3.8, 0.2]), np.array([1.5, -0.6, -0.5]))
GRADIENT_NM2 = 500.0
TIME = np.array([0.0, 0.1, 0.25, 0.5])
MASK = np.hypot(*np.mgrid[-1:1:5j, -1:1:7j]) < 1.05


def modes(mask=MASK):
    return coherency_modes(mask, 50.0, OLIVINE_MISFIT, OLIVINE, ENERGY_GPA)


def test_laminate():
    """Layers across a long plate: sigma_cc alone remains, with Young's modulus of that direction.

    Away from the ends layers share eps_cc, the mean of their misfits, and are free along a: mu_el c_s =
    E_c misfit_c^2 (c - mean c), E_c = C_cc - C_ac^2 / C_aa (classical laminate theory; five layers do not bend).
    """
    c = np.tile(np.array([0.0, 1.0, 0.0, 1.0, 0.0]), (41, 1))
    v = modes(np.ones(c.shape, dtype=bool))
    mu = (v @ (v.T @ c.ravel())).reshape(c.shape)[20]
    plate = plane_stress(OLIVINE)
    young = plate[1, 1] - plate[0, 1] ** 2 / plate[0, 0]
    expected = young * OLIVINE_MISFIT[1] ** 2 / ENERGY_GPA * (c[20] - c[20].mean())
    np.testing.assert_allclose(mu, expected, atol=0.01)


def test_uniform_composition_has_no_energy():
    """A free body swells; nothing is stiffer than a clamped pixel."""
    v = modes()
    assert np.abs(v.T @ np.ones(len(v))).max() < 1e-9 * np.abs(v).sum(axis=0).max()
    clamped = OLIVINE_MISFIT @ plane_stress(OLIVINE) @ OLIVINE_MISFIT / ENERGY_GPA
    assert np.linalg.norm(v, 2) ** 2 < clamped


@pytest.fixture(scope="module")
def setting():
    """A particle with stress whose edge is held, and a potential that drives lithium in."""
    mesh = cell_mesh(MASK, 50.0, GRADIENT_NM2, held_edge=True)
    n = int(MASK.sum())
    random = np.random.default_rng(2)
    edge = HeldEdge(np.array([0.0, 0.5]), np.vstack([np.full(n, 0.15), 0.3 + 0.2 * random.random(n)]))
    y, x = mesh.position_px.T
    initial = 0.14 + 0.03 * np.sin(x) * np.cos(y)
    return mesh, 0.4 * random.standard_normal(n), initial, edge, modes()


POTENTIAL = HeldPotential(np.array([0.0, 0.5]), np.array([-0.5, -1.2]))
RATE = MeanRate(np.array([0.0, 0.5]), np.array([1.0, 1.4]))


def run(setting, control, law=LAW, log_k=None, initial=None, **options):
    mesh, field, start, edge, stress = setting
    return react(
        mesh, law, field if log_k is None else log_k, start if initial is None else initial, TIME, control,
        gradient_nm2=GRADIENT_NM2, edge=edge, coherency=stress, **options,
    )  # fmt: skip


def test_agrees_with_scipy(setting):
    """Stress, edge and potential written down once more, cell by cell, for SciPy's BDF at 1e-10."""
    mesh, log_k, initial, edge, stress = setting
    n_pixels = len(log_k)
    average = np.zeros((n_pixels, mesh.n_cells))
    average[mesh.pixel, np.arange(mesh.n_cells)] = 1 / mesh.refinement**2
    elastic = average.T @ (stress @ stress.T) @ average * mesh.refinement**2
    k = np.exp(log_k)[mesh.pixel]

    def rates(t, c):
        held = edge.composition[0] + t / 0.5 * (edge.composition[1] - edge.composition[0])
        gradient = GRADIENT_NM2 / mesh.cell_nm**2 * (mesh.stiffness @ c + mesh.edge @ held)
        e = LAW.chemical_potential(c) + gradient + elastic @ c + np.interp(t, [0, 0.5], [-0.5, -1.2])
        return -2 * k * LAW.exchange_current(c) * np.sinh(e / 2)

    reference = solve_ivp(rates, (0, 0.5), initial, method="BDF", rtol=1e-10, atol=1e-10, t_eval=TIME)
    ours = run(setting, POTENTIAL, tolerance=1e-10).frames()
    assert ours[-1].mean() > 0.4  # it does react
    np.testing.assert_allclose(ours, (average @ reference.y).T, atol=1e-6)


def changed(control, change):
    """The control with its values changed at the knots."""
    if isinstance(control, MeanRate):
        return MeanRate(control.time_h, control.rate_per_h + change)
    return HeldPotential(control.time_h, control.potential_kT + change)


@pytest.mark.parametrize("control", [POTENTIAL, RATE], ids=["potential", "rate"])
def test_derivatives_with_stress_and_edge(setting, control):
    """Taylor slope 2, and the adjoint equal to the forward derivative."""
    mesh, log_k, initial, _, _ = setting
    random = np.random.default_rng(0)
    mu, log_j0 = random.standard_normal(3), random.standard_normal(3)
    field, start = random.standard_normal(len(log_k)), 0.01 * random.standard_normal(mesh.n_cells)
    knots = random.standard_normal(len(control.time_h))
    centre = run(setting, control, tolerance=1e-11, derivatives=True)
    frames = centre.frames()
    columns = centre.sensitivities(*(a[:, None].copy() for a in (field, start, knots)), tolerance=1e-11)
    slope = columns @ np.concatenate([mu, log_j0, [1.0, 1.0, 1.0]])
    remainders = []
    for h in (1e-3, 5e-4, 2.5e-4):
        law = ReactionLaw(LAW.mu + h * mu, LAW.log_j0 + h * log_j0)
        moved = run(
            setting, changed(control, h * knots), law, log_k + h * field, initial + h * start, tolerance=1e-11
        ).frames()
        remainders.append(np.linalg.norm(moved - frames - h * slope))
    np.testing.assert_allclose(np.log2(np.divide(remainders[:-1], remainders[1:])), 2, atol=0.05)
    weights = random.standard_normal(frames.shape)
    backward = sum(g @ d for g, d in zip(centre.adjoint(weights), (mu, log_j0, field, start, knots), strict=True))
    assert backward == pytest.approx(np.sum(weights * slope), rel=1e-8)


@pytest.mark.parametrize("control", [POTENTIAL, RATE], ids=["potential", "rate"])
def test_second_derivatives_with_stress_and_edge(setting, control):
    """Symmetric to rounding."""
    trajectory = run(setting, control, tolerance=1e-6, derivatives=True)
    random = np.random.default_rng(0)
    sizes = (len(setting[1]), setting[0].n_cells, len(control.time_h))
    one, other = ([random.standard_normal(n) for n in sizes] for _ in range(2))
    weights = np.repeat(random.standard_normal(trajectory.frames().shape)[..., None], 3, axis=2)

    def along(columns, direction):
        columns = [each[:, None].copy() for each in columns]
        _, _, *gradients, _ = trajectory.adjoint_of_sensitivities(weights, *columns, tolerance=1e-12)
        return sum(g @ d for g, d in zip(gradients, direction, strict=True))

    assert along(one, other) == pytest.approx(along(other, one), rel=1e-8)


def test_stress_of_many_cells():
    """The adjoint equal to the forward derivative where a sweep takes a part of the cells at a time."""
    mask = np.ones((9, 13), dtype=bool)
    mesh = cell_mesh(mask, 50.0, GRADIENT_NM2)
    assert mesh.n_cells > 1024
    random = np.random.default_rng(1)
    log_k, start = 0.4 * random.standard_normal(117), 0.01 * random.standard_normal(mesh.n_cells)
    initial = 0.14 + 0.03 * np.sin(mesh.position_px[:, 0])
    trajectory = run((mesh, log_k, initial, None, modes(mask)), RATE, tolerance=1e-6, derivatives=True)
    field = random.standard_normal(117)
    columns = trajectory.sensitivities(field[:, None], start[:, None], np.zeros((2, 0)), tolerance=1e-11)
    weights = random.standard_normal(trajectory.frames().shape)
    _, _, along_k, along_start, _ = trajectory.adjoint(weights)
    forward = np.sum(weights * columns[..., -2:].sum(axis=-1))
    assert along_k @ field + along_start @ start == pytest.approx(forward, rel=1e-8)


def test_held_edge_is_of_second_order():
    """A field that is zero at the edge but bends there: halving the cells divides the error by 4 (Aubin-Nitsche)."""
    errors = []
    for refinement in (8, 16, 32):
        mesh = cell_mesh(np.ones((2, 2), dtype=bool), 1.0, 1.0, refinement, held_edge=True)
        y, x = (mesh.position_px.T + 0.5) / 2
        field = x * (1 - x) * np.sin(np.pi * y)
        load = (2 + np.pi**2 * x * (1 - x)) * np.sin(np.pi * y) / (2 * refinement) ** 2
        errors.append(np.abs(sp.linalg.spsolve(mesh.stiffness.tocsc(), load) - field).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.15)


def test_uniform_composition_at_its_edge_stays():
    """What the edge adds cancels what it takes away."""
    mesh = cell_mesh(MASK, 50.0, GRADIENT_NM2, held_edge=True)
    np.testing.assert_allclose(mesh.stiffness.sum(axis=1) + mesh.edge.sum(axis=1), 0, atol=1e-12)
