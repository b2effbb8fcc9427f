"""Local parameters integrated out, where the integral is known; and bands that hold the truth."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from chemomech.errors import ConvergenceError
from chemomech.io.video import read_video
from chemomech.learn import evidence
from chemomech.learn.arrow import CONVERGED, Arrow, Minimum, Parameters, minimise
from chemomech.learn.evidence import (
    likelier_initial_length,
    marginal_mode,
    most_likely_log_k_length,
    most_likely_sizes,
    volume_slopes,
)
from chemomech.learn.kinetics import learn_kinetics
from chemomech.learn.kinetics_validation import restart
from chemomech.learn.law_basis import law_basis
from chemomech.learn.profile import moved
from chemomech.learn.random_field import field_modes
from chemomech.learn.reaction_model import INITIAL_KEEP, Lengths, Problem, build_models
from chemomech.tasks import Unfinished, in_threads, in_turn
from videos import BINODAL, write_video


class HiddenAmplitude:
    """y = exp(s) l + noise with standard normal l of every sample: what is s?"""

    n_shared = 1
    tasks = staticmethod(in_turn)

    def __init__(self, groups, noise):
        self.groups, self.noise = groups, noise

    def alone(self, index):
        own = copy.copy(self)
        own.groups = [self.groups[index]]
        return own

    def cost(self, index):
        return len(self.groups[index])

    def system(self, parameters):
        total, arrows = 0.0, []
        size = np.exp(parameters.shared[0]) / self.noise
        for y, own in zip(self.groups, parameters.local, strict=True):
            misfit, along = size * own - y / self.noise, size * own
            total += (misfit @ misfit + own @ own) / 2
            arrows.append(
                Arrow(
                    np.array([[along @ along]]),
                    size * along[None],
                    (size**2 + 1) * np.eye(len(y)),
                    np.array([along @ misfit]),
                    size * misfit + own,
                )
            )
        return total, arrows

    def objective(self, parameters, below=np.inf):
        return self.system(parameters)[0]

    def turned(self, parameters, arrows):
        total, here = self.system(parameters)
        return total, [
            replace(a, gradient_g=b.gradient_g, gradient_l=b.gradient_l) for a, b in zip(arrows, here, strict=True)
        ]

    def volume_gradient(self, index, parameters):
        """Of half n ln(1 + size), size = (exp(s) / noise)^2."""
        arrow, n = self.system(parameters)[1][index], len(self.groups[index])
        size = (np.exp(parameters.shared[0]) / self.noise) ** 2
        return arrow, np.array([n * size / (1 + size)]), np.zeros(n)


def test_amplitude_of_hidden_variables_is_found():
    """With the hidden variables integrated out y is normal of variance exp(2 s) + noise^2, so the most probable s is
    known; the joint mode lies at infinite s. Rounds end where 0.5 of a standard deviation are left, and a search before
    its last step where 0.8 are.
    """
    random = np.random.default_rng(0)
    groups = [0.5 * random.standard_normal(n) + 0.3 * random.standard_normal(n) for n in (150, 250)]
    problem = HiddenAmplitude(groups, 0.3)
    start = Parameters(np.array([0.0]), tuple(np.zeros(len(y)) for y in groups))
    held = minimise(problem, start, free=np.array([False]))
    _, found, _ = marginal_mode(problem, held)
    variance = np.mean(np.concatenate(groups) ** 2)
    expected = np.log(variance - 0.3**2) / 2
    deviation = variance / (variance - 0.3**2) / np.sqrt(2 * 400)
    assert found.reason == CONVERGED
    assert found.parameters.shared[0] == pytest.approx(expected, abs=0.75 * deviation)
    for own, there in zip(found.arrows, problem.system(found.parameters)[1], strict=True):
        np.testing.assert_array_equal(own.gram_gl, there.gram_gl)
        np.testing.assert_allclose(own.gradient_l, there.gradient_l, rtol=1e-9, atol=1e-9)


class Bent(HiddenAmplitude):
    """y = exp(s) (l + l^2 / 4), of which the volume has slopes in l too."""

    def system(self, parameters):
        arrows, size = [], np.exp(parameters.shared[0]) / self.noise
        for y, own in zip(self.groups, parameters.local, strict=True):
            misfit, along = size * (own + own**2 / 4) - y / self.noise, size * (own + own**2 / 4)
            bent = size * (1 + own / 2)
            gram = np.diag(bent**2 + 1)
            arrows.append(
                Arrow(
                    np.array([[along @ along]]),
                    (bent * along)[None],
                    gram,
                    np.array([along @ misfit]),
                    bent * misfit + own,
                )
            )
        return 0.0, arrows

    def volume_gradient(self, index, parameters):
        arrow, own = self.system(parameters)[1][index], parameters.local[index]
        square = (np.exp(parameters.shared[0]) / self.noise * (1 + own / 2)) ** 2
        return arrow, np.array([np.sum(square / (1 + square))]), square / (1 + square) / (2 + own)


def test_slopes_of_the_volume_follow_the_local_parameters():
    """Differences of half ln det at the places where `moved` takes the local ones to; their error falls with h^2."""
    random = np.random.default_rng(0)
    local = tuple(0.5 * random.standard_normal(n) for n in (5, 7))
    problem = Bent([np.zeros(len(own)) for own in local], 0.3)
    start = Parameters(np.array([0.2]), local)
    arrows = [replace(arrow, gradient_l=0 * arrow.gradient_l) for arrow in problem.system(start)[1]]
    found = Minimum(start, 0.0, CONVERGED, 0, arrows, np.eye(1))

    def volume(h):
        arrows = problem.system(moved(found, np.array([h])))[1]
        return np.array([np.linalg.slogdet(arrow.gram_ll)[1] / 2 for arrow in arrows])

    expected = (volume(1e-4) - volume(-1e-4)) / 2e-4
    slopes = np.array(list(volume_slopes(problem, start, range(2))))
    np.testing.assert_allclose(slopes[:, 0], expected, rtol=1e-6)


def test_slopes_of_a_cheaper_problem_are_those_of_its_own_systems():
    """The problems differ in their noise, and so do their systems and the volumes; one that cannot be followed
    leaves the slopes to the problem itself.
    """
    random = np.random.default_rng(0)
    groups = [random.standard_normal(n) for n in (5, 7)]
    problem, cheaper = HiddenAmplitude(groups, 0.3), Bent(groups, 0.5)
    start = Parameters(np.array([0.0]), tuple(np.zeros(len(y)) for y in groups))
    held = minimise(problem, start, free=np.array([False]))
    _, found, volume = marginal_mode(problem, held, cheaper=lambda _: cheaper)
    own = list(volume_slopes(cheaper, found.parameters, range(2)))
    np.testing.assert_array_equal(volume.slopes, own)

    class Lost(Bent):
        def volume_gradient(self, index, parameters):
            if index == 0:
                raise ConvergenceError("the reaction", iterations=1, residual=1.0, tolerance=0.1)
            return super().volume_gradient(index, parameters)

    (plain,) = volume_slopes(problem, found.parameters, [0])
    slopes = evidence.credible_slopes(problem, Lost(groups, 0.5), found, "", None)
    np.testing.assert_array_equal(slopes, [plain, own[1]])


@pytest.mark.parametrize(("size", "off"), [(1.0, 0.0), (0.0, 0.0), (2.0, 0.0), (1.0, 0.3)])
def test_rounds_begin_with_the_volume_that_is_foreseen(size, off):
    """No slopes are asked for where the search begins; those of the next rounds are true, and the end is the same but
    for the half of a deviation at which rounds end, also where wrong slopes or slopes of another place are foreseen.
    """
    random = np.random.default_rng(0)
    groups = [0.5 * random.standard_normal(n) + 0.3 * random.standard_normal(n) for n in (150, 250)]
    asked = []

    class Watched(HiddenAmplitude):
        def volume_gradient(self, index, parameters):
            asked.append(float(parameters.shared[0]))
            return super().volume_gradient(index, parameters)

    problem = Watched(groups, 0.3)
    start = Parameters(np.array([-0.2]), tuple(np.zeros(len(y)) for y in groups))
    held = minimise(problem, start, free=np.array([False]))
    _, plain, volume = marginal_mode(problem, held)
    assert asked[0] == -0.2
    asked.clear()
    wrong = replace(volume, slopes=size * volume.slopes, centre=volume.centre + off)
    _, found, _ = marginal_mode(problem, held, foreseen=wrong)
    assert -0.2 not in asked
    assert found.reason == CONVERGED
    assert found.parameters.shared[0] == pytest.approx(plain.parameters.shared[0], abs=0.75 * found.schur[0, 0] ** -0.5)


def test_slopes_at_a_cliff_are_those_of_the_problem():
    """Of three particles, whose slopes are measured by what one of them says on the average, one stands at 1.5 times
    the length that is believed and one at 0.7 times.
    """
    random = np.random.default_rng(0)
    groups = [random.standard_normal(n) for n in (5, 6, 7)]
    problem = HiddenAmplitude(groups, 0.3)
    start = Parameters(np.array([0.0]), tuple(random.standard_normal(len(y)) for y in groups))
    found = minimise(problem, start, free=np.array([False]))
    believed = 20.0 * np.sqrt(found.schur[0, 0] / 3)
    told = np.array([0.7, 0.1, -1.5]) * believed

    class Told(HiddenAmplitude):
        def volume_gradient(self, index, parameters):
            return self.system(parameters)[1][index], told[[index]], np.zeros(len(self.groups[index]))

    slopes = evidence.credible_slopes(problem, Told(groups, 0.3), found, "", None)
    (own,) = volume_slopes(problem, found.parameters, [2])
    np.testing.assert_allclose(slopes[:, 0], [told[0], told[1], own[0]], rtol=1e-12)


def test_rounds_see_what_a_search_has_left(monkeypatch):
    """A search that stops before it has moved leaves the laws unsettled, however well the volume's model foresees."""
    random = np.random.default_rng(0)
    problem = HiddenAmplitude([0.5 * random.standard_normal(n) for n in (150, 250)], 0.3)
    start = Parameters(np.array([-1.5]), tuple(np.zeros(len(y)) for y in problem.groups))
    held = minimise(problem, start, free=np.array([False]))

    monkeypatch.setattr(evidence, "minimise_profile", lambda problem, found, volume, **_: found)
    assert marginal_mode(problem, held)[1].reason == evidence.UNSETTLED


class Interrupted(HiddenAmplitude):
    """Fails after so many systems."""

    def __init__(self, groups, noise, systems):
        super().__init__(groups, noise)
        self.left = [systems]  # shared with what is alone

    def system(self, parameters):
        self.left[0] -= 1
        if self.left[0] < 0:
            raise KeyboardInterrupt
        return super().system(parameters)


def test_interrupted_rounds_go_on_to_the_same_laws(tmp_path):
    """To the bit, wherever it was killed: between rounds or within a search."""
    random = np.random.default_rng(1)
    groups = [0.6 * random.standard_normal(n) for n in (80, 60)]
    start = Parameters(np.array([0.0]), tuple(np.zeros(len(y)) for y in groups))
    problem = HiddenAmplitude(groups, 0.3)
    held = minimise(problem, start, free=np.array([False]))
    _, whole, volume = marginal_mode(problem, held, what="rounds")
    for systems in (1, 3, 5, 7):
        kept = Unfinished(tmp_path, f"killed after {systems}")
        with pytest.raises(KeyboardInterrupt):
            marginal_mode(Interrupted(groups, 0.3, systems), held, what="rounds", unfinished=kept)
        _, resumed, again = marginal_mode(problem, held, what="rounds", unfinished=kept)
        assert resumed.parameters.shared.tobytes() == whole.parameters.shared.tobytes()
        assert again.slopes.tobytes() == volume.slopes.tobytes()


def test_searches_from_elsewhere_end_at_the_same_place():
    """Three standard deviations away; the valley is not quadratic, and a search ends within one of its bottom."""
    random = np.random.default_rng(2)
    groups = [0.5 * random.standard_normal(n) + 0.3 * random.standard_normal(n) for n in (150, 250)]
    problem = HiddenAmplitude(groups, 0.3)
    held = minimise(
        problem, Parameters(np.array([-0.5]), tuple(np.zeros(len(y)) for y in groups)), free=np.array([False])
    )
    _, found, volume = marginal_mode(problem, held)
    ends = [end.parameters.shared[0] for end in restart(problem, volume, found, 3.0, 4)]
    assert np.ptp(ends) < 1 / np.sqrt(found.schur[0, 0])


class Seen:
    """Fields of a particle seen through noise: data `seen` (n,) are `jacobian` (n, n_local) @ its parameters."""

    noise = 0.1
    tasks = staticmethod(in_threads)

    def __init__(self, model, jacobian, seen):
        self.models, self.jacobian, self.seen = [model], jacobian, seen

    def prior(self, model):
        return np.full(sum(model.sizes), 2.0)

    def system(self, parameters):
        local, prior = parameters.local[0], self.prior(self.models[0])
        gram = np.diag(prior) + self.jacobian.T @ self.jacobian / self.noise**2
        slope = prior * local + self.jacobian.T @ (self.jacobian @ local - self.seen) / self.noise**2
        return 0.0, [Arrow(np.eye(1), np.zeros((1, len(local))), gram, np.zeros(1), slope)]


@pytest.fixture(scope="module")
def round_particle(tmp_path_factory):
    """The model of a particle of 177 pixels and two films, fields correlated over one pixel."""
    path = tmp_path_factory.mktemp("round") / "video.h5"
    write_video(path, [(15, 15)], noise=0.04)
    (model,) = build_models(read_video(path), Lengths(1.0, 1.0), largest_cell=1.25)
    return model


def jacobians(model):
    """Of a map of ln k, and of the initial field of each film."""
    modes = field_modes(model.mesh.pixel_position_px, 1.0, INITIAL_KEEP).pixels
    result = [np.zeros((len(modes), sum(model.sizes))) for _ in range(3)]
    result[0][:, : model.sizes[0]] = model.log_k_modes
    for film in range(2):
        result[1 + film][:, model.initial_columns(film)] = modes
    return result


@pytest.mark.parametrize("family", [evidence._of_log_k, evidence._of_initial_fields])
def test_evidence_of_lengths_is_that_of_gaussian_fields(family, round_particle):
    """Of a linear problem Laplace's integral is exact: the density of the data with the field, over that without it,
    the other parameters integrated out; wherever the misfit is expanded. Both films hold ln k and a field of their own.
    """
    model, random = round_particle, np.random.default_rng(0)
    log_k, *fields = jacobians(model)
    jacobian = np.vstack([log_k + field for field in fields])
    seen = 0.5 * jacobian @ random.standard_normal(jacobian.shape[1])
    seen += Seen.noise * random.standard_normal(len(seen))
    problem = Seen(model, jacobian, seen)
    start = Parameters(np.zeros(1), (0.1 * random.standard_normal(jacobian.shape[1]),))
    lengths, weights = (1.0, 2.0, 4.0), np.array([0.3, 4.0])
    found = evidence._particle_evidence(problem, 0, problem.system(start)[1], start.local, lengths, family, weights)
    own, modes = family(model)
    rest = np.setdiff1d(np.arange(jacobian.shape[1]), own)
    without = jacobian[:, rest] @ jacobian[:, rest].T / 2 + Seen.noise**2 * np.eye(len(seen))
    for i, length in enumerate(lengths):
        field = jacobian[:, own] @ modes(length)
        for j, weight in enumerate(weights):
            with_field = stats.multivariate_normal.logpdf(seen, cov=without + field @ field.T / weight)
            exact = with_field - stats.multivariate_normal.logpdf(seen, cov=without)
            assert found[i, j] == pytest.approx(exact, abs=1e-6)  # of hundreds


def seen_fields(model, length, keep):
    """A map of ln k and the initial fields of two films, of this length, and parameters beside the right ones."""
    random = np.random.default_rng(0)
    modes = field_modes(model.mesh.pixel_position_px, length, keep).pixels
    seen = (0.5 * modes @ random.standard_normal((modes.shape[1], 3))).T.ravel()
    seen += Seen.noise * random.standard_normal(len(seen))
    start = Parameters(np.zeros(1), (0.1 * random.standard_normal(sum(model.sizes)),))
    return Seen(model, np.vstack(jacobians(model)), seen), start


@pytest.mark.parametrize("length", [1.25, 2.0, 3.0])
def test_correlation_length_of_log_k_is_found(length, round_particle):
    """Within a step of the grid of lengths, of a field whole but for a thousandth of its variance."""
    found = most_likely_log_k_length(*seen_fields(round_particle, length, 0.999))
    assert found == pytest.approx(length, rel=0.25)


@pytest.mark.parametrize("length", [1.25, 2.0, 3.0])
def test_correlation_length_of_initial_fields_is_found(length, round_particle):
    """Within a step of the grid, of fields of the modes that the prior holds; of whole ones 3 px are read as 2, as a
    length must be short to have modes as fine as those that the prior leaves out.
    """
    seen, start = seen_fields(round_particle, length, INITIAL_KEEP)
    assert likelier_initial_length(seen, start, 6.0) == pytest.approx(length, rel=0.25)


@pytest.mark.parametrize(("gain", "stand_for", "chosen"), [(4.0, 1.0, 1.5), (6.5, 1.0, 2.0), (0.6, 10.0, 2.0)])
def test_a_length_is_changed_for_one_that_is_worth_it(gain, stand_for, chosen, monkeypatch):
    """Worth e^5, all that the particles stand for counted; the prior gives 2 px e^0.26 more than 1.5."""
    known = dict.fromkeys(evidence.INITIAL_LENGTHS_PX, 0.0) | {2.0: gain}
    monkeypatch.setattr(evidence, "_evidence", lambda *_: known)
    assert likelier_initial_length(None, None, 1.5, stand_for=stand_for) == chosen


def test_sizes_of_priors_are_those_of_known_coefficients(tmp_path):
    """Coefficients of standard deviations 0.5 (Z) and 2 (initial fields) that the data know exactly: rho_2 is
    noise^2 / 0.25, the size 2. Samples of about 40 numbers leave a quarter open.
    """
    write_video(tmp_path / "video.h5", [(6, 8), (7, 7)], noise=0.04)
    video = read_video(tmp_path / "video.h5")
    basis = law_basis(video.binodal, video.alpha)
    models = build_models(video, Lengths(1.0, 2.0), largest_cell=1.25)
    problem = Problem(models, basis, video.gradient_nm2, video.noise, 0.02, 1.0, [[True, True]] * 2)
    random = np.random.default_rng(0)
    local, arrows = [], []
    for model in models:
        x = 2.0 * random.standard_normal(sum(model.sizes))
        x[: model.sizes[0]] /= 4
        n, m = basis.size, len(x)
        local.append(x)
        arrows.append(Arrow(1e9 * np.eye(n), np.zeros((n, m)), 1e9 * np.eye(m), np.zeros(n), np.zeros(m)))
    found = Minimum(Parameters(np.zeros(basis.size), tuple(local)), 0.0, "", 0, arrows, 1e9 * np.eye(basis.size))
    rho, size = most_likely_sizes(problem, found)
    assert rho == pytest.approx(problem.noise**2 / 0.25, rel=0.3)
    assert size == pytest.approx(2, rel=0.3)


@pytest.mark.slow
def test_bands_hold_another_law(tmp_path):
    """A chemical potential that is no regular solution and an exchange current that is larger for more lithium: the
    99 % bands hold both on 0.1 <= c <= 0.9, and are no wider than 0.4 (RMS half-width), about three times the error.
    """
    law = law_basis(BINODAL, 0.5).law(np.array([0.2, -0.55, -0.12, 2.0, 0.5, -0.6]))
    path = tmp_path / "video.h5"
    log_k = write_video(path, [(9, 12), (8, 13), (10, 10)], noise=0.04, law=law)
    result = learn_kinetics(read_video(path))
    c = result.composition
    middle = (c > 0.0999) & (c < 0.9001)
    log_j0_error = result.log_j0 - np.log(law.exchange_current(c)) - np.concatenate(list(log_k.values())).mean()
    mu_error = result.mu_kT - law.chemical_potential(c)
    mu_error -= mu_error.mean()
    for error, half in ((log_j0_error, result.log_j0_half_width), (mu_error, result.mu_half_width)):
        assert np.mean(np.abs(error) < half, where=middle) > 0.95
        assert np.sqrt(np.mean(half**2, where=middle)) < 0.4
