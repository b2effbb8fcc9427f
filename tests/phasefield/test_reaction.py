"""The reaction of a particle: against an independent integrator, its orders, its conservation, its derivatives."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from chemomech.errors import ConvergenceError, InputError
from chemomech.phasefield.reaction import HeldPotential, MeanRate, ReactionLaw, cell_mesh, react

#: Two phases, and an exchange current that is larger on the lithium-poor side.
LAW = ReactionLaw(np.array([0.0, -3.8, 0.2]), np.array([1.5, -0.6, -0.5]))
GRADIENT_NM2 = 500.0
TIME = np.array([0.0, 0.1, 0.25, 0.5])
RATE = MeanRate(np.array([0.0, 0.5]), np.array([1.2, 1.6]))


def ellipse(ny=5, nx=7):
    y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    return x**2 + y**2 < 1.1


@pytest.fixture(scope="module")
def particle():
    mesh = cell_mesh(ellipse(), 50.0, GRADIENT_NM2)
    random = np.random.default_rng(3)
    log_k = 0.4 * random.standard_normal(int(mesh.mask.sum()))
    y, x = mesh.position_px.T
    initial = 0.12 + 0.05 * np.sin(x + 0.3) * np.cos(0.8 * y)
    return mesh, log_k, initial


def run(particle, law=LAW, time=TIME, rate=RATE, **options):
    mesh, log_k, initial = particle
    return react(mesh, law, log_k, initial, time, rate, gradient_nm2=GRADIENT_NM2, **options)


def rates(c, mean_rate, mesh, log_k, law):
    """dc/dt written down once more: the potential by bisection, no compiled code."""
    mu = law.chemical_potential(c) + GRADIENT_NM2 / mesh.cell_nm**2 * (mesh.stiffness @ c)
    w = np.exp(log_k)[mesh.pixel] * law.exchange_current(c)

    def rate(potential):
        e = mu + potential
        return w * (np.exp(-law.alpha * e) - np.exp((1 - law.alpha) * e))

    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rate(middle).mean() > mean_rate else (low, middle)
    return rate(middle)


@pytest.mark.parametrize("alpha", [0.5, 0.35])
def test_agrees_with_scipy(particle, alpha):
    """Method of lines by SciPy's BDF at 1e-10, its Jacobian by differences; ours asked for 1e-8 a step."""
    mesh, log_k, initial = particle
    law = ReactionLaw(LAW.mu, LAW.log_j0, alpha)
    reference = solve_ivp(
        lambda t, c: rates(c, np.interp(t, RATE.time_h, RATE.rate_per_h), mesh, log_k, law),
        (0, TIME[-1]), initial, method="BDF", rtol=1e-10, atol=1e-10, t_eval=TIME,
    )  # fmt: skip
    assert reference.success
    average = np.zeros((len(log_k), mesh.n_cells))
    average[mesh.pixel, np.arange(mesh.n_cells)] = 1 / mesh.refinement**2
    ours = run(particle, law, tolerance=1e-10).frames()
    assert ours.max() - ours.min() > 0.6  # phases separate
    np.testing.assert_allclose(ours, (average @ reference.y).T, atol=1e-6)


def test_prescribed_rate_is_kept(particle):
    """The mean follows the integral of the rate: exactly for BDF where the rate is constant, whatever the tolerance."""
    rate = MeanRate(np.array([0.0]), np.array([1.4]))
    trajectory = run(particle, rate=rate, tolerance=1e-3)
    mean = trajectory.states.mean(axis=1)
    np.testing.assert_allclose(mean, mean[0] + 1.4 * trajectory.time, rtol=0, atol=1e-10)


def test_error_follows_the_tolerance(particle):
    """At order q the steps' number grows as tolerance^(-1/(q+1)), each errs by it: the error falls as its q/(q+1).

    Most steps are of order 5. Single decades vary by a factor of two, as steps fall differently on the fronts.
    """
    tolerances = 10.0 ** -np.arange(4, 11)
    reference = run(particle, tolerance=1e-12).frames()
    errors = [np.abs(run(particle, tolerance=t).frames() - reference).max() for t in tolerances]
    assert np.polyfit(np.log(tolerances), np.log(errors), 1)[0] == pytest.approx(5 / 6, abs=0.1)
    assert errors[-2] < 1e-6


def test_high_orders_are_used(particle):
    orders = run(particle, tolerance=1e-8).orders
    assert orders.max() == 5
    assert orders[0] == 1


def test_laplacian_is_of_sixth_order():
    """A cosine with no flux at the edges: halving the cells divides the error by 64."""
    errors = []
    for refinement in (2, 4, 8):
        mesh = cell_mesh(np.ones((2, 6), dtype=bool), 50.0, GRADIENT_NM2, refinement)
        k = np.pi * 2 / 6
        field = np.cos(k * (mesh.position_px[:, 1] + 0.5))
        errors.append(np.abs(mesh.stiffness @ field * refinement**2 - k**2 * field).max())
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 6, atol=0.1)


def test_uniform_particle_stays_uniform(particle):
    """Nothing but the mean rate is left: no gradient, no potential differences; one phase, so that rounding decays."""
    mesh, log_k, initial = particle
    even = react(
        mesh,
        ReactionLaw(np.zeros(2), LAW.log_j0),
        0 * log_k,
        np.full_like(initial, 0.2),
        TIME,
        RATE,
        gradient_nm2=GRADIENT_NM2,
        tolerance=1e-8,  # of which Newton's method leaves a hundredth
    ).states
    assert np.ptp(even, axis=1).max() < 1e-9


def perturbations(particle, seed=1):
    """A direction in all parameters: mu, ln j0, ln k, initial composition, mean rate."""
    mesh, log_k, _ = particle
    random = np.random.default_rng(seed)
    sizes = (len(LAW.mu), len(LAW.log_j0), len(log_k), mesh.n_cells, len(RATE.time_h))
    return [size * random.standard_normal(n) for size, n in zip((1, 1, 1, 0.02, 0.1), sizes, strict=True)]


def along(trajectory, direction):
    """Derivative of the frames (n_t, n_pixels) along a direction."""
    mu, log_j0, *others = direction
    columns = trajectory.sensitivities(*(each[:, None].copy() for each in others), tolerance=1e-11)
    return columns @ np.concatenate([mu, log_j0, [1.0, 1.0, 1.0]])


def test_sensitivities_pass_the_taylor_test(particle):
    """The remainder of first order falls with the square of the step: slope 2."""
    mesh, log_k, initial = particle
    mu, log_j0, field, start, knots = direction = perturbations(particle)
    centre = run(particle, tolerance=1e-11, derivatives=True)
    slope, frames = along(centre, direction), centre.frames()
    steps = np.array([1e-3, 5e-4, 2.5e-4])
    remainders = []
    for h in steps:
        law = ReactionLaw(LAW.mu + h * mu, LAW.log_j0 + h * log_j0)
        rate = MeanRate(RATE.time_h, RATE.rate_per_h + h * knots)
        moved = run((mesh, log_k + h * field, initial + h * start), law, rate=rate, tolerance=1e-11).frames()
        remainders.append(np.linalg.norm(moved - frames - h * slope))
    rates_found = np.log2(np.divide(remainders[:-1], remainders[1:]))
    np.testing.assert_allclose(rates_found, 2, atol=0.05)


@pytest.fixture(scope="module")
def large_particle():
    """More cells than a sweep takes at a time, in rows of a length that is no multiple of a register's."""
    mesh = cell_mesh(np.ones((9, 13), dtype=bool), 50.0, GRADIENT_NM2)
    assert mesh.n_cells > 1024
    y, x = mesh.position_px.T
    return mesh, 0.3 * np.sin(np.arange(117.0)), 0.12 + 0.05 * np.sin(x + 0.3) * np.cos(0.8 * y)


@pytest.mark.parametrize("given", ["particle", "large_particle"])
def test_adjoint_equals_forward(given, request):
    """The recurrence backwards: the same number to rounding."""
    particle = request.getfixturevalue(given)
    direction = perturbations(particle, seed=2)
    trajectory = run(particle, tolerance=1e-6, derivatives=True)
    weights = np.random.default_rng(5).standard_normal(trajectory.frames().shape)
    forward = np.sum(weights * along(trajectory, direction))
    backward = sum(g @ d for g, d in zip(trajectory.adjoint(weights), direction, strict=True))
    assert backward == pytest.approx(forward, rel=1e-8)


def second_derivative(trajectory, weights, one, other):
    """Of sum(weights * frames) along two directions, of which the first leaves the laws alone."""
    columns = [each[:, None].copy() for each in one[2:]]
    repeated = np.repeat(weights[..., None], len(columns), axis=2)
    *gradients, _ = trajectory.adjoint_of_sensitivities(repeated, *columns, tolerance=1e-12)
    return sum(gradient @ each for gradient, each in zip(gradients, other, strict=True))


@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_second_derivatives_are_symmetric(particle, alpha):
    """Which direction is the column and which the gradient's makes no difference, to rounding: steps are the same."""
    trajectory = run(particle, replace(LAW, alpha=alpha), tolerance=1e-5, derivatives=True)
    nothing = [np.zeros(len(LAW.mu)), np.zeros(len(LAW.log_j0))]
    one, other = ([*nothing, *perturbations(particle, seed)[2:]] for seed in (1, 2))
    weights = np.random.default_rng(3).standard_normal(trajectory.frames().shape)
    expected = second_derivative(trajectory, weights, one, other)
    assert second_derivative(trajectory, weights, other, one) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_gradients_of_sensitivities_are_those_of_differences(particle, alpha):
    """Sensitivities a step of +-h along all parameters away; the error falls with h^2, extrapolated."""
    mesh, log_k, initial = particle
    mu, log_j0, field, start, knots = direction = perturbations(particle, seed=2)
    columns = [each[:, None].copy() for each in perturbations(particle, seed=1)[2:]]
    weights = np.random.default_rng(3).standard_normal((len(TIME), len(log_k)))

    def total(h):
        law = ReactionLaw(LAW.mu + h * mu, LAW.log_j0 + h * log_j0, alpha)
        rate = MeanRate(RATE.time_h, RATE.rate_per_h + h * knots)
        moved = (mesh, log_k + h * field, initial + h * start)
        there = run(moved, law, rate=rate, tolerance=1e-10, derivatives=True)
        return np.sum(weights[..., None] * there.sensitivities(*columns, tolerance=1e-12)[..., -len(columns) :])

    trajectory = run(particle, replace(LAW, alpha=alpha), tolerance=1e-10, derivatives=True)
    found = second_derivative(trajectory, weights, [mu, log_j0, *(c[:, 0] for c in columns)], direction)
    near, far = ((total(h) - total(-h)) / (2 * h) for h in (5e-4, 1e-3))
    assert found == pytest.approx((4 * near - far) / 3, rel=1e-4)


def test_gradients_of_sensitivities_along_their_initial_basis(particle):
    """Sensitivities are linear in the initial basis: its own gradient gives them back."""
    mesh, log_k, _ = particle
    trajectory = run(particle, tolerance=1e-5, derivatives=True)
    random = np.random.default_rng(1)
    start = random.standard_normal((mesh.n_cells, 20))
    none = np.zeros((len(log_k), 0)), np.zeros((len(RATE.time_h), 0))
    weights = random.standard_normal((len(TIME), len(log_k), 20))
    *_, along_start = trajectory.adjoint_of_sensitivities(weights, none[0], start, none[1], tolerance=1e-12)
    columns = trajectory.sensitivities(none[0], start, none[1], tolerance=1e-12)[..., -20:]
    expected = np.sum(weights * columns, axis=(0, 1))
    np.testing.assert_allclose(np.sum(along_start * start, axis=0), expected, rtol=1e-8)


def test_no_gradient_of_a_prescribed_mean(particle):
    """Weights that are the same for all pixels ask for the mean, which only its start and the rate change."""
    trajectory = run(particle, tolerance=1e-6, derivatives=True)
    weights = np.zeros_like(trajectory.frames())
    weights[-1] = 1.0
    mu, log_j0, log_k, initial, rate = trajectory.adjoint(weights)
    n = len(particle[1])
    assert max(np.abs(each).max() for each in (mu, log_j0, log_k)) < 1e-8
    np.testing.assert_allclose(initial, n / len(initial), rtol=1e-8)
    np.testing.assert_allclose(rate, n * (TIME[-1] - TIME[0]) / 2, rtol=1e-3)  # trapezia, steps at their ends


def test_sensitivities_of_many_columns_are_those_of_each(particle):
    """Chunks of columns do not see each other, nor do threads."""
    mesh, log_k, _ = particle
    trajectory = run(particle, tolerance=1e-5, derivatives=True)
    basis = np.random.default_rng(0).standard_normal((len(log_k), 70))
    none = np.zeros((mesh.n_cells, 0)), np.zeros((len(RATE.time_h), 0))
    together = trajectory.sensitivities(basis, *none)
    np.testing.assert_array_equal(together, trajectory.sensitivities(basis, *none, threads=False))
    n_laws = len(LAW.mu) + len(LAW.log_j0)
    for column in (0, 40, 69):
        alone = trajectory.sensitivities(basis[:, column : column + 1].copy(), *none)
        np.testing.assert_allclose(together[..., n_laws + column], alone[..., -1], rtol=1e-12, atol=1e-14)


def test_potential_constant_does_not_matter(particle):
    """The galvanostat takes up L_0 of mu: no frame depends on it."""
    trajectory = run(particle, derivatives=True)
    nothing = [np.zeros((n, 0)) for n in (len(particle[1]), particle[0].n_cells, len(RATE.time_h))]
    assert np.abs(trajectory.sensitivities(*nothing)[..., 0]).max() < 1e-10


def test_sensitivities_that_have_died_out(particle):
    """Long after a film has relaxed at a held potential its columns are smaller than squares of single precision."""
    mesh, log_k, _ = particle
    law = ReactionLaw(np.array([0.0, 1.0]), np.array([7.0]))
    held = HeldPotential(np.array([0.0]), np.array([0.5]))
    trajectory = react(
        mesh, law, log_k, np.full(mesh.n_cells, 0.4), TIME, held,
        gradient_nm2=GRADIENT_NM2, tolerance=1e-6, derivatives=True,
    )  # fmt: skip
    start = np.random.default_rng(0).standard_normal((mesh.n_cells, 3))
    columns = trajectory.sensitivities(np.zeros((len(log_k), 0)), start, np.zeros((1, 0)))
    assert np.abs(columns[-1, :, -3:]).max() < 1e-12


def test_single_precision_reaches_the_tolerance_it_is_used_for(large_particle):
    """Columns to 1e-4 and their gradients to 1e-5, beside those to 1e-11 and 1e-12; errors of steps add up, to less
    than a hundredth. What the rate fixes stays what it is to the rounding of a state, which no step adds to.
    """
    mesh, log_k, _ = large_particle
    trajectory = run(large_particle, tolerance=1e-5, derivatives=True)
    random = np.random.default_rng(1)
    bases = (random.standard_normal((len(log_k), 20)), random.standard_normal((mesh.n_cells, 9)), np.ones((2, 1)))
    found, exact = (trajectory.sensitivities(*bases, tolerance=tolerance)[..., 1:] for tolerance in (1e-4, 1e-11))
    assert (np.linalg.norm(found - exact, axis=(0, 1)) < 0.01 * np.linalg.norm(exact, axis=(0, 1))).all()
    columns = found[-1, :, 5:25]  # along ln k
    assert (np.abs(columns.mean(axis=0)) < 2e-6 * np.sqrt(np.mean(columns**2, axis=0))).all()
    weights = random.standard_normal((len(TIME), len(log_k), 30))
    gradients = (
        trajectory.adjoint_of_sensitivities(weights, *bases, tolerance=tolerance) for tolerance in (1e-5, 1e-12)
    )
    for single, double in zip(*gradients, strict=True):
        assert np.linalg.norm(single - double) < 0.01 * np.linalg.norm(double)


def test_what_is_too_large_for_single_precision_is_solved_in_double(particle):
    """Columns are linear in their basis, whatever its size."""
    mesh, log_k, _ = particle
    trajectory = run(particle, tolerance=1e-5, derivatives=True)
    nothing, start = np.zeros((len(log_k), 0)), np.random.default_rng(1).standard_normal((mesh.n_cells, 3))
    one, large = (trajectory.sensitivities(nothing, size * start, np.zeros((2, 0)))[..., -3:] for size in (1.0, 1e25))
    np.testing.assert_allclose(large / 1e25, one, atol=1e-3 * np.abs(one).max())


def test_refuses_what_it_cannot_integrate(particle):
    mesh, log_k, initial = particle
    with pytest.raises(InputError, match=r"initial must lie inside \(0, 1\)"):
        run((mesh, log_k, initial - 0.2))
    with pytest.raises(ConvergenceError):  # more lithium than there are sites
        run(particle, rate=MeanRate(np.array([0.0]), np.array([3.0])))
    with pytest.raises(ValueError, match="without derivatives"):
        run(particle).adjoint(np.zeros((4, len(log_k))))


def test_mean_rate_integrates_between_knots():
    """Trapezia are exact for a rate linear between knots."""
    rate = MeanRate(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 0.0]))
    np.testing.assert_allclose(rate.change(0.0, np.array([0.0, 0.5, 1.0, 2.0])), [0, 0.75, 2.0, 3.5])
