"""Learning kinetics: the pieces against plain linear algebra and differences, the whole against a known particle."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import linalg

from chemomech.errors import ConvergenceError, InputError
from chemomech.io.video import read_video
from chemomech.learn import kinetics_search, reaction_model, vanishing_cells
from chemomech.learn.arrow import (
    CONVERGED,
    Arrow,
    Minimum,
    Parameters,
    deviation,
    marginal,
    minimise,
    promised_by_shared,
    solve_arrow,
    time_left,
)
from chemomech.learn.kinetics import NORMAL_99, KineticsSettings, _reported, _result, learn_kinetics
from chemomech.learn.kinetics_search import KineticsSearch
from chemomech.learn.kinetics_validation import CrossValidation, bootstrap, cross_validate
from chemomech.learn.law_basis import law_basis
from chemomech.learn.profile import Pull
from chemomech.learn.random_field import covariance_spectra, field_modes, most_likely_field
from chemomech.learn.reaction_model import (
    Lengths,
    Problem,
    build_models,
    smoothest_rate,
    starting_parameters,
    with_modes_of,
)
from chemomech.learn.vanishing_cells import LastStep, left_by_cells
from chemomech.mechanics.stiffness import OLIVINE
from chemomech.observe.video import Coherency
from chemomech.phasefield.planar_coherency import OLIVINE_MISFIT
from chemomech.phasefield.reaction import react
from chemomech.tasks import Unfinished, in_threads
from videos import BINODAL, LAW, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "video.h5"
    write_video(path, [(6, 8), (7, 7)], noise=0.04)
    return read_video(path)


@pytest.fixture(scope="module")
def problem(video):
    models = build_models(video)
    basis = law_basis(video.binodal, video.alpha)
    return Problem(models, basis, video.gradient_nm2, video.noise, 0.02, 1.0, [[True, True]] * 2)


def test_every_law_of_the_basis_meets_the_binodal():
    """Equal potentials at both ends and equal areas, for any parameters (Gibbs's common tangent)."""
    basis = law_basis(BINODAL, 0.5)
    assert basis.mu_modes.shape[1] == 3  # five orders less two conditions
    for shared in (np.zeros(basis.size), np.random.default_rng(0).standard_normal(basis.size)):
        law = basis.law(shared)
        nodes, weights = np.polynomial.legendre.leggauss(400)
        c = 0.5 + (0.5 - BINODAL) * nodes
        poor, rich = law.chemical_potential(np.array([BINODAL, 1 - BINODAL]))
        assert rich == pytest.approx(poor, abs=1e-10)
        assert weights @ law.chemical_potential(c) / 2 == pytest.approx(poor, abs=1e-6)


def test_constant_rate_is_recognised():
    """Means with noise of the size told: a straight line in 99 of 100 cases, so surely in most of 50."""
    random = np.random.default_rng(0)
    time = np.linspace(0, 1, 8)
    straight = [
        np.ptp(smoothest_rate(time, 0.1 + 0.8 * time + 0.005 * random.standard_normal(8), 0.005)[1].rate_per_h) == 0
        for _ in range(50)
    ]
    assert sum(straight) >= 46


def test_changing_rate_is_followed():
    """A rate that doubles half-way: the trajectory stays within four standard errors of the means."""
    time = np.linspace(0, 1, 9)
    mean = 0.1 + 0.5 * time + 0.5 * np.maximum(time - 0.5, 0)
    start, rate, modes = smoothest_rate(time, mean, 0.003)
    assert np.abs(start + rate.change(time[0], time) - mean).max() < 0.012
    assert rate.rate_per_h[0] < 0.65 < 0.85 < rate.rate_per_h[-1]
    assert modes.shape == (9, 9)
    assert np.abs(modes @ np.linalg.solve(modes, rate.rate_per_h) - rate.rate_per_h).max() < 1e-9


def test_modes_keep_the_variance_and_continue_smoothly():
    position = np.argwhere(np.ones((7, 9), dtype=bool)).astype(float)
    modes = field_modes(position, 2.0, 0.95)
    variance = (modes.pixels**2).sum(axis=1)
    assert variance.mean() == pytest.approx(modes.variance_kept)
    assert 0.95 <= modes.variance_kept < 0.99
    np.testing.assert_allclose(modes.at(position), modes.pixels, atol=1e-10)


def test_size_and_length_of_a_hidden_field_are_found():
    """Ten fields of 0.05 under noise of 0.07; the grid's neighbours are factors of 1.2 and 1.5 away."""
    random = np.random.default_rng(0)
    position = np.argwhere(np.ones((14, 16), dtype=bool)).astype(float)
    modes = field_modes(position, 2.0, 0.999).pixels
    fields = [0.05 * modes @ random.standard_normal(modes.shape[1]) for _ in range(10)]
    noisy = [field + 0.07 * random.standard_normal(len(field)) for field in fields]
    deviation, length = most_likely_field(noisy, [covariance_spectra(position)] * 10, 0.07)
    assert 0.04 < deviation < 0.065
    assert length in (1.5, 2.0, 3.0)
    noise = [0.07 * random.standard_normal(len(position)) for _ in range(10)]
    assert most_likely_field(noise, [covariance_spectra(position)] * 10, 0.07)[1] in (1.5, 2.0, 3.0)  # by the prior


class Valley:
    """Rosenbrock's: half the sum of (10 (y - x^2))^2 and (1 - x)^2, x shared, y local; `systems` may be taken."""

    n_shared = 1

    def __init__(self, systems=1000):
        self.left = systems

    def residual(self, parameters):
        x, y = parameters.shared[0], parameters.local[0][0]
        return 100 * np.array([10 * (y - x**2), 1 - x]), 100 * np.array([[-20 * x, 10], [-1, 0]])

    def objective(self, parameters, below=np.inf):
        return float(np.sum(self.residual(parameters)[0] ** 2) / 2)

    def system(self, parameters):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        residual, jacobian = self.residual(parameters)
        gram, slope = jacobian.T @ jacobian, jacobian.T @ residual
        return self.objective(parameters), [Arrow(gram[:1, :1], gram[:1, 1:], gram[1:, 1:], slope[:1], slope[1:])]

    def turned(self, parameters, arrows):
        residual, jacobian = self.residual(parameters)
        slope = jacobian.T @ residual
        return self.objective(parameters), [replace(arrows[0], gradient_g=slope[:1], gradient_l=slope[1:])]


@pytest.mark.parametrize("systems", [1, 3, 5])
def test_an_interrupted_search_goes_on_to_the_same_minimum(systems, tmp_path):
    """To the bit, chord steps and damping included; under other work nothing is found again."""
    start = Parameters(np.array([-1.2]), (np.array([1.0]),))
    whole = minimise(Valley(), start)
    assert whole.reason == CONVERGED
    assert whole.parameters.shared[0] == pytest.approx(1, abs=0.05)  # a hundredth is one standard error
    kept = Unfinished(tmp_path, "work")
    with pytest.raises(KeyboardInterrupt):
        minimise(Valley(systems), start, unfinished=kept, what="valley")
    assert Unfinished(tmp_path, "other work").find("valley") is None
    resumed = minimise(Valley(), start, unfinished=kept, what="valley")
    assert resumed.parameters.shared.tobytes() == whole.parameters.shared.tobytes()
    assert resumed.schur.tobytes() == whole.schur.tobytes()
    assert (resumed.objective, resumed.iterations, resumed.reason) == (whole.objective, whole.iterations, CONVERGED)
    minimise(Valley(0), start, unfinished=kept, what="valley")  # one that has ended evaluates nothing more


class Jump(Valley):
    """The valley, but systems after the first say a sum that is higher, or fail where that is infinite."""

    def __init__(self, jump):
        super().__init__()
        self.jump, self.calls = jump, 0

    def system(self, parameters):
        self.calls += 1
        value, arrows = super().system(parameters)
        if self.calls == 1:
            return value, arrows
        if np.isinf(self.jump):
            raise ConvergenceError("a reaction", iterations=1, residual=1.0, tolerance=0.1)
        return value + self.jump, arrows


class Ridge(Valley):
    """A narrow ridge along y = x to the minimum at 1, with cliffs on both sides."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def residual(self, parameters):
        x, y = parameters.shared[0], parameters.local[0][0]
        return np.array([300 * (y - x), 30 * (x - 1)]), np.array([[-300, 300], [30, 0]])

    def objective(self, parameters, below=np.inf):
        away = abs(parameters.local[0][0] - parameters.shared[0])
        return super().objective(parameters) if away < self.width else np.inf


@pytest.mark.parametrize("width", [3e-3, 1e-3])
def test_a_search_does_not_fall_off_a_ridge(width):
    """Damping makes x and y change by unlike parts, and every damped step ends beyond the cliff."""
    found = minimise(Ridge(width), Parameters(np.array([0.0]), (np.array([0.0]),)))
    assert found.reason == CONVERGED
    assert found.parameters.shared[0] == pytest.approx(1, abs=0.05)  # a thirtieth is one standard error


@pytest.mark.parametrize(("jump", "taken"), [(0.0, True), (0.9, True), (1.5, False), (np.inf, False)])
def test_a_last_step_is_taken_where_the_objective_hardly_jumps(jump, taken):
    """One that would lower half the sum by less than 1: the objective may be rough by as much."""
    x = 0.9925  # half the sum is 0.28 above the least
    found = minimise(Jump(jump), Parameters(np.array([x]), (np.array([x**2]),)))
    assert found.reason == CONVERGED
    assert (found.parameters.shared[0] != x) == taken


def test_time_left():
    """Where what must reach zero has fallen by 3 in 30 s, the 2 left take 20; where it has not, nothing is known."""
    assert time_left([(0.0, 5.0), (20.0, 6.0), (30.0, 2.0)]) == pytest.approx(20)
    assert time_left([(0.0, 5.0), (20.0, 6.0)]) is None


def test_arrow_solution_is_that_of_the_dense_system(problem):
    """Elimination particle by particle changes nothing but the cost."""
    value, arrows = problem.system(starting_parameters(problem))
    assert value > 0
    shared, local, schur = solve_arrow(arrows, 0.0, np.ones(problem.basis.size, dtype=bool))
    n = len(shared)
    gram = linalg.block_diag(sum(a.gram_gg for a in arrows), *(a.gram_ll for a in arrows))
    begin = n
    for arrow in arrows:
        gram[:n, begin : begin + len(arrow.gradient_l)] = arrow.gram_gl
        gram[begin : begin + len(arrow.gradient_l), :n] = arrow.gram_gl.T
        begin += len(arrow.gradient_l)
    right = np.concatenate([sum(a.gradient_g for a in arrows), *(a.gradient_l for a in arrows)])
    np.testing.assert_allclose(np.concatenate([shared, *local]), np.linalg.solve(gram, -right), rtol=1e-6, atol=1e-9)
    covariance = np.linalg.inv(gram)
    np.testing.assert_allclose(np.linalg.inv(schur), covariance[:n, :n], rtol=1e-6)
    found = Minimum(starting_parameters(problem), value, CONVERGED, 0, arrows, schur)
    random = np.random.default_rng(0)
    along = [random.standard_normal((7, len(own))) for own in (shared, *local)]
    along[2] = along[2][0]  # the same for all
    whole = np.column_stack([np.broadcast_to(own, (7, own.shape[-1])) for own in along])
    dense = np.sqrt(np.einsum("ij,jk,ik->i", whole, covariance, whole))
    np.testing.assert_allclose(deviation(found, along[0], along[1:]), dense, rtol=1e-6)


def test_gradient_is_that_of_the_objective(problem):
    """Central differences; derivatives are those at fixed steps, and their growth in time errs more than what grows."""
    problem = replace(problem, tolerance=1e-7)
    start = starting_parameters(problem)
    _, arrows = problem.system(start)
    random = np.random.default_rng(0)
    shared = 0.1 * random.standard_normal(len(start.shared))
    local = [0.1 * random.standard_normal(len(each)) for each in start.local]
    slope = sum(a.gradient_g @ shared + a.gradient_l @ own for a, own in zip(arrows, local, strict=True))

    def at(h):
        moved = tuple(a + h * b for a, b in zip(start.local, local, strict=True))
        return problem.objective(Parameters(start.shared + h * shared, moved))

    assert (at(0.01) - at(-0.01)) / 0.02 == pytest.approx(slope, rel=0.01)


def test_gradients_with_stress_and_held_edges(video):
    """Both ways agree there as well; the mean is still the one prescribed."""
    source = Coherency(OLIVINE_MISFIT, OLIVINE, 0.0567)
    stressed = replace(video, boundary="dirichlet_data", coherency=source)
    models = build_models(stressed, largest_cell=1.25)
    problem = Problem(
        models, law_basis(video.binodal, 0.5), video.gradient_nm2, video.noise, 0.02, 1.0, [[True, True]] * 2
    )
    start = starting_parameters(problem)
    value, arrows = problem.system(start)
    _, turned = problem.turned(start, arrows)
    assert value != pytest.approx(problem_without(problem).objective(start), rel=1e-3)
    for one, other in zip(arrows, turned, strict=True):
        difference = np.linalg.norm(other.gradient_l - one.gradient_l)
        assert difference < 5e-3 * np.linalg.norm(one.gradient_l)
    film = models[0].films[0]
    mean = problem.frames(0, 0, start).mean(axis=1)
    change = film.rate(models[0].split(start.local[0])[1]).change(film.half_cycle.time_h[0], film.half_cycle.time_h)
    np.testing.assert_allclose(mean - mean[0], change, atol=1e-6)


def problem_without(problem):
    return replace(problem, models=[replace(model, coherency=None) for model in problem.models])


def test_other_modes_hold_the_same_fields(problem, video):
    """Shorter ones make up longer ones, to the share of the variance that they leave out; rates stay as they are."""
    short = build_models(video, Lengths(0.5, 1.0))
    start = starting_parameters(problem)
    random = np.random.default_rng(0)
    given = Parameters(start.shared, tuple(0.3 * random.standard_normal(len(own)) for own in start.local))
    moved = with_modes_of(short, problem.models, given)
    assert max(np.abs(own).max() for own in moved.local) < 10  # the offset is next to a sum of modes
    for model, other, one, two in zip(problem.models, short, given.local, moved.local, strict=True):
        log_k = model.log_k_modes @ model.split(one)[0]
        assert np.std(other.log_k_modes @ other.split(two)[0] - log_k) < 0.1 * np.std(log_k)
        for film, new, a, b in zip(model.films, other.films, model.split(one)[1:], other.split(two)[1:], strict=True):
            n, m = film.initial_modes.shape[1], new.initial_modes.shape[1]
            field = film.initial_modes @ a[:n]
            assert np.std(new.initial_modes @ b[:m] - field) < 0.1 * np.std(field)
            np.testing.assert_array_equal(a[n:], b[m:])


def test_bootstrap_of_equal_particles_is_nothing(problem):
    """At a minimum shared by all particles no draw moves it; with slopes that cancel only in the sum, draws do."""
    arrows = [
        Arrow(np.eye(2), np.zeros((2, 3)), np.eye(3), sign * np.array([1.0, 0.0]), np.zeros(3)) for sign in (1, -1)
    ]
    drawn = bootstrap(arrows)
    # Two draws of +-1 over the sum of two unit matrices: 0, +1 or -1, of variance 1/2.
    assert drawn[:, 0].std() == pytest.approx(np.sqrt(0.5), rel=0.1)
    assert np.abs(drawn[:, 1]).max() == 0
    still = [replace(arrow, gradient_g=np.zeros(2)) for arrow in arrows]
    assert np.abs(bootstrap(still)).max() == 0


def test_one_standard_error_rule():
    """The strongest regularisation whose error is within one standard error of the best one's."""
    found = CrossValidation(
        np.array([0.01, 0.1, 1.0, 10.0]),
        np.array([1.2, 1.0, 1.04, 1.3]),
        np.array([0.1, 0.0, 0.05, 0.05]),
        np.ones(4),
        {},
    )
    assert found.chosen == 1.0


def test_validation_sees_too_much_regularisation(video, problem):
    """Maps of ln k that are held near a constant fit worse what they see, and foresee the other half-cycle worse: by a
    third here. Below 0.03 the folds of so small a set do not tell rho_2 apart.
    """
    coarse = replace(problem, models=build_models(video, largest_cell=1.25))
    start = starting_parameters(coarse)
    held = np.zeros(coarse.n_shared, dtype=bool)
    found = minimise(coarse, start, free=held, least_decrease=0.05)
    validation = cross_validate(coarse, found, rhos=(0.03, 1.0))
    assert validation.error[1] > 1.1 * validation.error[0]
    assert validation.training[1] > 1.5 * validation.training[0]
    assert set(validation.consistency) == {"P1", "P2"}


def test_a_minimum_under_other_priors_is_what_the_problem_says_there(problem):
    """To rounding, without an evaluation."""
    start, random = starting_parameters(problem), np.random.default_rng(5)
    start = Parameters(start.shared, tuple(own + 0.1 * random.standard_normal(len(own)) for own in start.local))
    value, arrows = problem.system(start)
    found = Minimum(start, value, CONVERGED, 0, arrows, marginal(arrows))
    other, again = problem.with_priors(found, rho=0.3, initial_size=2.0)
    expected, systems = other.system(start)
    assert again.objective == pytest.approx(expected, rel=1e-12)
    for one, two in zip(again.arrows, systems, strict=True):
        np.testing.assert_allclose(one.gram_ll, two.gram_ll, rtol=1e-10, atol=1e-6)
        np.testing.assert_allclose(one.gradient_l, two.gradient_l, rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(again.schur, marginal(systems), rtol=1e-6)


def test_adjoint_gradients_are_those_of_the_sensitivities(problem):
    """Two ways to the same number, to what their linear systems are solved to: 1e-4 and 1e-5 of a step's."""
    start = starting_parameters(problem)
    value, arrows = problem.system(start)
    again, turned = problem.turned(start, arrows)
    assert again == pytest.approx(value, rel=1e-12)
    for one, other in zip(arrows, turned, strict=True):
        for name in ("gradient_g", "gradient_l"):
            expected = getattr(one, name)
            assert np.linalg.norm(getattr(other, name) - expected) < 5e-3 * np.linalg.norm(expected)


def test_a_step_that_is_tried_and_taken_is_followed_once(problem, monkeypatch):
    """And its derivatives are what a problem that keeps nothing says, to the bit."""
    start = starting_parameters(problem)
    own = Parameters(start.shared, start.local[1:])
    forgetful = replace(problem.alone(1), reactions=None)
    expected, systems = forgetful.system(own)
    gradients = forgetful.turned(own, systems)[1]

    times, films = [], len(problem.models[1].films)
    monkeypatch.setattr(reaction_model, "react", lambda *given, **options: times.append(0) or react(*given, **options))
    alone = problem.alone(1)
    assert alone.objective(own) == pytest.approx(expected, rel=1e-12)
    (system,), (turned,) = alone.system(own)[1], alone.turned(own, systems)[1]
    assert len(times) == films
    np.testing.assert_array_equal(system.gram_ll, systems[0].gram_ll)
    np.testing.assert_array_equal(turned.gradient_l, gradients[0].gradient_l)
    refused = Parameters(own.shared, (own.local[0] + 0.01,))
    assert alone.objective(refused) == forgetful.objective(refused)
    assert alone.objective(Parameters(own.shared, own.local)) == forgetful.objective(own)
    assert len(times) == 5 * films


def test_volume_gradients_are_those_of_differences(problem):
    """Half ln det of the systems a step of +-h along all parameters away, whose error falls with h^2, extrapolated.

    Tolerances are such that time steps, which change with the parameters, and linear systems leave less.
    """
    exact = replace(problem, tolerance=1e-10)
    start, random = starting_parameters(exact), np.random.default_rng(4)
    shared = 0.1 * random.standard_normal(exact.n_shared)
    local = [0.3 * random.standard_normal(len(own)) for own in start.local]

    def volume(h):
        moved = Parameters(start.shared + h * shared, tuple(a + h * b for a, b in zip(start.local, local, strict=True)))
        halves = []
        for index, model in enumerate(exact.models):
            gram = np.diag(exact.prior(model))
            for film in range(len(model.films)):
                trajectory = exact._react(index, film, moved, derivatives=True)
                bases, own = exact._own_bases((index, film), trajectory), model.columns(film)
                columns = trajectory.sensitivities(*bases, tolerance=1e-10)[:, :, -len(own) :].reshape(-1, len(own))
                gram[np.ix_(own, own)] += columns.T @ columns / exact.noise**2
            halves.append(np.linalg.slogdet(gram)[1] / 2)
        return np.array(halves)

    slopes, systems = np.zeros(len(local)), exact.system(start)[1]
    for index, along in enumerate(local):
        arrow, along_laws, own = exact.volume_gradient(index, start)
        np.testing.assert_allclose(arrow.gram_ll, systems[index].gram_ll, rtol=1e-12)
        slopes[index] = along_laws @ shared + own @ along
    near, far = ((volume(h) - volume(-h)) / (2 * h) for h in (0.0025, 0.005))
    np.testing.assert_allclose(slopes, (4 * near - far) / 3, rtol=2e-3)


def test_samples_without_a_sampler_are_refused_at_once(video, monkeypatch):
    monkeypatch.setattr("chemomech.learn.posterior.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"nutpie is missing; pip install 'chemomech\[sampling\]' brings it"):
        learn_kinetics(video, KineticsSettings(posterior_samples=10))


def test_shared_parameters_promise_what_a_quadratic_keeps(problem):
    """Of one Gauss-Newton system, all that freeing the shared parameters lowers its quadratic model by."""
    _, arrows = problem.system(starting_parameters(problem))
    free = np.ones(problem.n_shared, dtype=bool)

    def lowest(free):
        shared, local, _ = solve_arrow(arrows, 0.0, free)
        return sum(a.gradient_g @ shared + a.gradient_l @ own for a, own in zip(arrows, local, strict=True)) / 2

    held = np.zeros_like(free)
    assert promised_by_shared(arrows, free) == pytest.approx(lowest(held) - lowest(free), rel=1e-9)
    assert promised_by_shared(arrows, held) == 0


def test_a_few_of_many_particles(video, monkeypatch):
    """Those of most half-cycles, as many as are asked for, evenly from all; none where there are hardly more."""
    monkeypatch.setattr(kinetics_search, "_FEW", 2)
    one, other = video.particles.values()
    many = {f"P{i}": replace(one if i % 2 else other, name=f"P{i}") for i in range(8)}
    many["P3"] = replace(many["P3"], half_cycles=many["P3"].half_cycles[:1])
    few = kinetics_search.a_few(replace(video, particles=many))
    assert list(few.particles) == ["P0", "P4"]
    assert kinetics_search.a_few(replace(video, particles={name: many[name] for name in list(many)[:4]})) is None
    short = {name: replace(each, half_cycles=each.half_cycles[:1]) for name, each in many.items()}
    assert list(kinetics_search.a_few(replace(video, particles=short | {"P5": many["P5"]})).particles) == ["P0", "P5"]
    charge = {name: replace(each, half_cycles=each.half_cycles[1:]) for name, each in many.items() if name != "P3"}
    mixed = {name: (charge if name in ("P1", "P5", "P7") else short)[name] for name in charge}
    modes = {
        each.half_cycles[0].mode for each in kinetics_search.a_few(replace(video, particles=mixed)).particles.values()
    }
    assert modes == {"charge", "discharge"}


@pytest.mark.slow
@pytest.mark.parametrize(("few", "shapes"), [(4, [(8, 11), (9, 9)]), (1, [(8, 11), (9, 9), (10, 8)])])
def test_learns_a_known_law(few, shapes, tmp_path, monkeypatch, caplog):
    """Two particles of about 75 pixels at a noise of 0.04, or three that begin under the laws of one: what is learned
    is wrong by no more than its bands say.

    A 99 % band holds the truth nearly everywhere; errors along c are correlated, hence the margin.
    """
    monkeypatch.setattr(kinetics_search, "_FEW", few)
    path = tmp_path / "video.h5"
    truth = write_video(path, shapes, noise=0.04)
    with caplog.at_level("INFO"):
        result = learn_kinetics(read_video(path))
    assert ("a few particles" in caplog.text) == (few == 1)
    assert result.rmse == pytest.approx(0.04, rel=0.1)
    c = result.composition
    middle = (c > 0.1) & (c < 0.9)
    mean_log_k = np.concatenate(list(truth.values())).mean()
    j0_error = result.log_j0 - np.log(LAW.exchange_current(c)) - mean_log_k
    mu_error = result.mu_kT - LAW.chemical_potential(c)
    mu_error -= mu_error.mean()
    assert np.mean(np.abs(j0_error) < result.log_j0_half_width) > 0.8
    assert np.mean(np.abs(mu_error) < result.mu_half_width) > 0.8
    assert np.std(mu_error[middle]) < 0.2
    assert c[result.log_j0.argmax()] < 0.5
    off = []
    for name, log_k in truth.items():
        learned = result.particles[name]
        assert np.corrcoef(learned.log_k, log_k)[0, 1] > 0.9
        off.append((learned.log_k - log_k + mean_log_k) / learned.log_k_deviation)
    assert 0.6 < np.sqrt(np.mean(np.concatenate(off) ** 2)) < 1.6


def test_deviations_are_those_of_the_whole_matrix_and_of_what_was_moved(video, problem):
    """Posterior: the inverse of all of it, along what is reported; to a condition of 1e6 times rounding, 2e-10."""
    random, start = np.random.default_rng(6), starting_parameters(problem)
    value, arrows = problem.system(start)
    found = Minimum(start, value, CONVERGED, 0, arrows, marginal(arrows))
    sizes = [problem.n_shared, *map(len, start.local)]
    at = np.concatenate([start.shared, *start.local])

    def reported(vector):
        shared, *local = np.split(vector, np.cumsum(sizes)[:-1])
        said = _reported(problem, Parameters(shared, tuple(local)))
        return np.concatenate([said.mu_kT, said.log_j0, *said.log_k])

    before = at + 0.05 * random.standard_normal(len(at))
    shared, *local = np.split(before, np.cumsum(sizes)[:-1])
    n, none = problem.n_shared, np.zeros((problem.n_shared, problem.n_shared))
    last = LastStep(problem, Parameters(shared, tuple(local)), found, Pull(start.shared, np.zeros((2, n)), none))
    result = _result(video, last, None, None)

    whole = np.zeros((len(at), len(at)))
    for arrow, end in zip(arrows, np.cumsum(sizes)[1:], strict=True):
        own = slice(end - len(arrow.gram_ll), end)
        whole[:n, :n] += arrow.gram_gg
        whole[:n, own], whole[own, :n], whole[own, own] = arrow.gram_gl, arrow.gram_gl.T, arrow.gram_ll
    design = np.array([reported(at + unit) - reported(at) for unit in np.eye(len(at))]).T
    variance = max(result.rmse / video.noise, 1) ** 2 * np.einsum("ij,ji->i", design, linalg.solve(whole, design.T))
    expected = np.sqrt(variance + (reported(before) - reported(at)) ** 2 / 3)
    said = [result.mu_half_width / NORMAL_99, result.log_j0_half_width / NORMAL_99]
    said += [each.log_k_deviation for each in result.particles.values()]
    np.testing.assert_allclose(np.concatenate(said), expected, rtol=1e-9)
    assert sum(each.log_k.sum() for each in result.particles.values()) == pytest.approx(0, abs=1e-10)


def test_slopes_are_extrapolated_to_vanishing_cells():
    """Of slopes g + C h^2 the first is found, for any ratio of the sizes; a particle that has gone elsewhere, or has no
    smaller cells, changes nothing."""
    random = np.random.default_rng(0)
    ratios, size = [1.5, 4 / 3, 2.0, 1.0, 1.5], 0.6
    limits, effects = random.standard_normal((2, 5, 3))
    effects[3], effects[4] = 0, 1e3

    def minimum(sizes):
        arrows = [
            Arrow(np.eye(3), np.zeros((3, 1)), np.eye(1), limit + effect * each**2, np.zeros(1))
            for limit, effect, each in zip(limits, effects, sizes, strict=True)
        ]
        return Minimum(Parameters(np.zeros(3), (np.zeros(1),) * 5), 0.0, CONVERGED, 0, arrows, marginal(arrows))

    found, there = minimum([size] * 5), minimum([size / ratio for ratio in ratios])
    left, out = left_by_cells(found, there, ratios)
    slopes = np.array([arrow.gradient_g for arrow in there.arrows]) + left
    np.testing.assert_allclose(slopes[:4], limits[:4], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(slopes[4], found.arrows[4].gradient_g, rtol=1e-12)
    assert out == [4]


def test_laws_stay_where_smaller_cells_cannot_be_followed(problem, monkeypatch):
    def refuse(*_, **__):
        raise ConvergenceError("particles", iterations=1, residual=1.0, tolerance=0.1)

    monkeypatch.setattr(vanishing_cells, "settle", refuse)
    start = starting_parameters(problem)
    _, arrows = problem.system(start)
    found = Minimum(start, 1.0, CONVERGED, 0, arrows, marginal(arrows))
    volume = Pull(start.shared, np.zeros((2, problem.n_shared)), found.schur)
    last = vanishing_cells.on_vanishing_cells(problem, problem, found, volume)
    assert (last.problem, last.searched, last.found, last.pull) == (problem, start, found, volume)
    assert "smaller cells" in last.notes[0]


def test_initial_fields_of_another_length(video, monkeypatch):
    """Where another length is likelier the laws are searched again under it, and move by less than deviations of a
    particle; where that breaks off what was found before stands.
    """
    search = KineticsSearch(video, in_threads, None)
    beginning = search.beginning()
    plain, before, _ = search.laws(*beginning, None)
    monkeypatch.setattr(kinetics_search, "likelier_initial_length", lambda *_, stand_for: 3.0)
    problem, found, _ = search.laws(*beginning, None)
    assert problem.models[0].lengths == replace(plain.models[0].lengths, initial_px=3.0)
    change = found.parameters.shared - before.parameters.shared
    assert 0 < np.sqrt(change @ found.schur @ change / len(problem.models)) < 3

    def breaks_off(*_, stand_for):
        raise ConvergenceError("particle 0", iterations=1, residual=1.0, tolerance=0.1)

    monkeypatch.setattr(kinetics_search, "likelier_initial_length", breaks_off)
    problem, found, _ = search.laws(*beginning, None)
    assert problem.models[0].lengths == plain.models[0].lengths
    np.testing.assert_array_equal(found.parameters.shared, before.parameters.shared)


def test_a_search_that_breaks_off_says_so(video, monkeypatch):
    def breaks_off(*_):
        raise ConvergenceError("particle 0", iterations=1, residual=1.0, tolerance=0.1)

    monkeypatch.setattr(KineticsSearch, "laws", breaks_off)
    monkeypatch.setattr(KineticsSearch, "beginning", lambda _: ())
    with pytest.raises(InputError, match="the search for laws broke off; too few pixels"):
        learn_kinetics(video)
