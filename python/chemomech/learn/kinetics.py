"""Learn free energy, exchange current and local rate constants from videos of reacting particles (Zhao et al. 2023).

The most probable parameters (maximum a posteriori) of

    sum over frames ((model - data) / noise)^2 + rho_2 / noise^2 sum Z^2 + sum z^2:

global ones, shared by all particles: mu_h = ln(c / (1 - c)) + Legendre series, held to the binodal where one is given,
and ln j0 = Legendre series, neither regularised; of each particle: ln k = an offset and the modes of a Gaussian field
correlated over a pixel (coefficients Z); of each half-cycle: its initial field. The reaction is unstable, so a noisy
first frame is no initial condition: logit c0 is a Gaussian field z whose size and correlation length are the most
likely ones given all first frames, and the first frame is data like the others. The mean rate is that of the smoothest
trajectory of the mean composition that the frames do not contradict.

Gauss-Newton steps in a trust region (Levenberg and Marquardt). The Jacobian is an arrow: the parameters of a particle
touch its own frames only, are eliminated particle by particle, and leave a small dense system for the global ones.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre
from scipy import linalg, stats
from scipy.special import expit, logit

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.learn.random_field import covariance_spectra, field_modes, most_likely_field
from chemomech.observe.video import FilmedParticle, HalfCycle, ReactionVideo
from chemomech.phasefield.reaction import CellMesh, MeanRate, ReactionLaw, cell_mesh, react

log = logging.getLogger(__name__)

#: Highest Legendre orders of mu_h and ln j0.
MU_ORDER, LOG_J0_ORDER = 5, 4
#: Correlation length of ln k, pixels (Zhao: what is finer than a pixel cannot be seen), and the variance kept.
_LOG_K_LENGTH_PX, _LOG_K_KEEP = 1.0, 0.95
_INITIAL_KEEP = 0.98
#: Standard deviation of the mean of logit c0, which the first frame knows far better.
_INITIAL_OFFSET = 1.0
#: Where the mean composition of a first frame may lie: its noise can carry it to the ends.
_START_RANGE = (0.005, 0.995)
#: Frames of the pieces that the search for a starting point fits one by one.
_PIECE = 3
_PIECE_KEEP = 0.9
#: Relative decrease that ends this search: it only has to lead into the valley.
_PIECE_DECREASE = 5e-3
#: RMS error of the composition that a time step may make: far below the noise of a pixel.
_TOLERANCE = 1e-4
#: Parameters that make the reaction harder to follow than this are no candidates.
_MOST_STEPS = 1500
#: A trajectory of the mean is refused when its misfit would come by chance less often than this.
_CONTRADICTED = 0.01
#: Exchange currents, in mean rates, from which the search starts.
_START_CURRENTS = (1.0, 3.0, 10.0, 30.0)
#: Regular-solution parameter to start from where no binodal is given, kT.
_START_OMEGA = 4.0
_MOST_ITERATIONS = 40
#: An expected decrease of the objective below this, in units of which 1 is one standard error, ends the search.
_LEAST_DECREASE = 0.02
_FIRST_DAMPING, _MOST_DAMPING = 0.03, 1e8
#: Share of the expected decrease that a step must reach to be taken.
_LEAST_GAIN = 1e-3


@dataclass(frozen=True, eq=False)
class Film:
    """One half-cycle as the fit sees it.

    Attributes
    ----------
    half_cycle : the frames.
    rate : mean rate.
    initial_logit : mean of logit c0.
    initial_modes : (n_cells, m); c0 = expit(initial_logit + initial_modes @ z), z standard normal.
    """

    half_cycle: HalfCycle
    rate: MeanRate
    initial_logit: float
    initial_modes: Float

    def initial(self, z: Float) -> Float:
        """Initial composition (n_cells,)."""
        return np.asarray(expit(self.initial_logit + self.initial_modes @ z))


@dataclass(frozen=True, eq=False)
class ParticleModel:
    """One particle as the fit sees it.

    Attributes
    ----------
    log_k_modes : (n_pixels, m), the offset first; ln k = log_k_modes @ Z.
    """

    particle: FilmedParticle
    mesh: CellMesh
    log_k_modes: Float
    films: tuple[Film, ...]

    @property
    def sizes(self) -> list[int]:
        """Numbers of parameters: Z, then z of each film."""
        return [self.log_k_modes.shape[1], *(film.initial_modes.shape[1] for film in self.films)]

    def split(self, local: Float) -> list[Float]:
        """Z and the z of each film from all parameters of the particle."""
        return np.split(local, np.cumsum(self.sizes)[:-1])


@dataclass(frozen=True, eq=False)
class LawBasis:
    """The laws as affine functions of the global parameters: mu = start + mu_modes @ first ones, ln j0 the rest.

    Attributes
    ----------
    mu_start : (N + 1,), mu_modes : (N + 1, a).
    n_log_j0 : number of Legendre coefficients of ln j0.
    """

    mu_start: Float
    mu_modes: Float
    n_log_j0: int
    alpha: float

    @property
    def size(self) -> int:
        """Number of global parameters."""
        return self.mu_modes.shape[1] + self.n_log_j0

    def law(self, shared: Float) -> ReactionLaw:
        """The laws of global parameters (size,)."""
        n = self.mu_modes.shape[1]
        return ReactionLaw(self.mu_start + self.mu_modes @ shared[:n], shared[n:].copy(), self.alpha)

    def mu_design(self, c: Float) -> Float:
        """Derivative (len(c), size) of mu_h(c) less its mean over c, which no frame depends on."""
        values = legendre.legvander(2 * c - 1, len(self.mu_start) - 1) @ self.mu_modes
        return np.hstack([values - values.mean(axis=0), np.zeros((len(c), self.n_log_j0))])

    def log_j0_design(self, c: Float) -> Float:
        """Derivative (len(c), size) of ln j0(c)."""
        values = legendre.legvander(2 * c - 1, self.n_log_j0 - 1)
        return np.hstack([np.zeros((len(c), self.mu_modes.shape[1])), values])


@dataclass(frozen=True, eq=False)
class Parameters:
    """All unknowns.

    Attributes
    ----------
    shared : (n,), global ones.
    local : of each particle, Z and then the z of each half-cycle.
    """

    shared: Float
    local: tuple[Float, ...]


@dataclass(frozen=True, eq=False)
class Arrow:
    """Gauss-Newton system of one particle: gram and gradient of half the objective, global (g) and local (l) parts."""

    gram_gg: Float
    gram_gl: Float
    gram_ll: Float
    gradient_g: Float
    gradient_l: Float


def law_basis(binodal: float | None, alpha: float, mu_order: int = MU_ORDER, log_j0_order: int = LOG_J0_ORDER) -> LawBasis:
    """Legendre series of mu_h and ln j0.

    With a binodal d, mu_h(d) = mu_h(1 - d) = mean of mu_h between them (common tangent): two linear conditions, met by
    the regular solution to start from.
    """
    free = np.eye(mu_order + 1)[:, 1:]  # L_0 only shifts the potential
    start = np.zeros(mu_order + 1)
    if binodal is None:
        start[1] = -_START_OMEGA
        return LawBasis(start, free, log_j0_order + 1, alpha)
    start[1] = -np.log(1 / binodal - 1) / (1 - 2 * binodal)
    ends = legendre.legvander(np.array([2 * binodal - 1, 1 - 2 * binodal]), mu_order)
    area = np.array(
        [np.diff(legendre.legval([2 * binodal - 1, 1 - 2 * binodal], legendre.legint(row)))[0] for row in np.eye(mu_order + 1)]
    ) / (2 - 4 * binodal)
    conditions = np.array([ends[0] - ends[1], area - ends[0]])[:, 1:]
    return LawBasis(start, free @ linalg.null_space(conditions), log_j0_order + 1, alpha)


def smoothest_rate(time_h: Float, mean: Float, error: float) -> tuple[float, MeanRate]:
    """Initial mean and mean rate, linear between frames, of the smoothest trajectory that the frames do not contradict.

    A constant rate where it will do; otherwise the largest weight on the squared slopes of the rate at which the misfit
    is still likely.

    Parameters
    ----------
    mean : (n,) mean composition of the frames; `error` its standard error.
    """
    n, step = len(time_h), np.diff(time_h)
    slope, start = np.polyfit(time_h - time_h[0], mean, 1)
    misfit = float(np.sum((start + slope * (time_h - time_h[0]) - mean) ** 2)) / error**2
    allowed = stats.chi2.isf(_CONTRADICTED, max(n - 2, 1))
    rate = np.full(n, slope)
    trapezium = np.zeros((n, n))
    for i in range(1, n):
        trapezium[i] = trapezium[i - 1]
        trapezium[i, i - 1 : i + 1] += step[i - 1] / 2
    design = np.column_stack([np.ones(n), trapezium]) / error
    bends = np.column_stack([np.zeros(n - 1), np.diff(np.eye(n), axis=0)]) / np.sqrt(step)[:, None]
    weight = (time_h[-1] - time_h[0]) ** 3 / error**2
    while misfit > allowed and weight > 1e-12 * (time_h[-1] - time_h[0]) ** 3:
        system = np.vstack([design, np.sqrt(weight) * bends])
        found = np.linalg.lstsq(system, np.append(mean / error, np.zeros(n - 1)), rcond=None)[0]
        misfit = float(np.sum((design @ found - mean / error) ** 2))
        start, rate = found[0], found[1:]
        weight /= 3
    return float(start), MeanRate(np.ascontiguousarray(time_h), np.ascontiguousarray(rate))


def build_models(video: ReactionVideo) -> list[ParticleModel]:
    """Meshes, modes and mean rates of all particles."""
    return _build(video, pieces=False)


def _build(video: ReactionVideo, pieces: bool) -> list[ParticleModel]:
    """As `build_models`; with `pieces` every few frames of a half-cycle are a film of their own.

    The size and correlation length of the initial fields are common to all first frames. Pieces, which start anywhere,
    have their own.
    """
    meshes = [cell_mesh(each.mask, each.pixel_size_nm, video.gradient_nm2) for each in video.particles.values()]
    spectra = [covariance_spectra(mesh.pixel_position_px) for mesh in meshes]
    halves = [
        [piece for half in each.half_cycles for piece in (_cut(half) if pieces else [half])]
        for each in video.particles.values()
    ]
    pairs = [(half, each) for own, each in zip(halves, spectra, strict=True) for half in own]
    common = most_likely_field([half.li_fraction[0] for half, _ in pairs], [each for _, each in pairs], video.noise)
    models = []
    for particle, mesh, own, spectrum in zip(video.particles.values(), meshes, halves, spectra, strict=True):
        position = mesh.pixel_position_px
        error = video.noise / np.sqrt(len(position))
        films = []
        for half in own:
            deviation, length = (
                most_likely_field([half.li_fraction[0]], [spectrum], video.noise) if pieces else common
            )
            start, rate = smoothest_rate(half.time_h, half.li_fraction.mean(axis=1), error)
            start = float(np.clip(start, *_START_RANGE))
            modes = field_modes(position, length, _PIECE_KEEP if pieces else _INITIAL_KEEP).at(mesh.position_px)
            columns = np.column_stack(
                [np.full(mesh.n_cells, _INITIAL_OFFSET), deviation / (start * (1 - start)) * modes]
            )
            films.append(Film(half, rate, float(logit(start)), columns))
        log_k_modes = field_modes(position, _LOG_K_LENGTH_PX, _LOG_K_KEEP).pixels
        columns = np.column_stack([np.ones(len(position)), log_k_modes])
        models.append(ParticleModel(particle, mesh, columns, tuple(films)))
    return models


def _cut(half: HalfCycle) -> list[HalfCycle]:
    """Pieces of a few frames; each begins with the last frame of the one before."""
    n = len(half.time_h)
    begins = range(0, n - 1, _PIECE - 1)
    return [
        replace(half, time_h=half.time_h[i : i + _PIECE], li_fraction=half.li_fraction[i : i + _PIECE]) for i in begins
    ]


@dataclass(frozen=True, eq=False)
class Problem:
    """The objective over some of the half-cycles.

    Attributes
    ----------
    models : the particles.
    basis : the laws.
    gradient_nm2, noise : of the video.
    rho : regularisation of ln k, variance of the noise over that of the coefficients Z.
    used : for each particle, which of its films are data.
    """

    models: Sequence[ParticleModel]
    basis: LawBasis
    gradient_nm2: float
    noise: float
    rho: float
    used: Sequence[Sequence[bool]]

    def prior(self, model: ParticleModel) -> Float:
        """Weight (n_local,) of the squared parameters of a particle."""
        weights = [np.full(model.sizes[0], self.rho / self.noise**2)]
        return np.concatenate([*weights, *(np.ones(size) for size in model.sizes[1:])])

    def frames(self, index: int, film: int, parameters: Parameters) -> Float:
        """The model of one film, (n_t, n_pixels)."""
        model = self.models[index]
        parts = model.split(parameters.local[index])
        return self._react(model, model.films[film], parameters.shared, parts[0], parts[1 + film], False).frames()

    def objective(self, parameters: Parameters, below: float = np.inf) -> float:
        """Half the objective; infinite where it is not `below`, or the reaction cannot be followed."""
        total = 0.0
        for index, model in enumerate(self.models):
            local = parameters.local[index]
            total += float(self.prior(model) @ local**2) / 2
            for film, used in enumerate(self.used[index]):
                if not used:
                    continue
                if total > below:
                    return np.inf
                try:
                    misfit = self.frames(index, film, parameters) - model.films[film].half_cycle.li_fraction
                except ConvergenceError:
                    return np.inf
                total += float(np.sum(misfit**2)) / (2 * self.noise**2)
        return total

    def system(self, parameters: Parameters) -> tuple[float, list[Arrow]]:
        """Half the objective and the Gauss-Newton systems of all particles.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """
        parts = [self.arrow(index, parameters) for index in range(len(self.models))]
        return sum(value for value, _ in parts), [arrow for _, arrow in parts]

    def arrow(self, index: int, parameters: Parameters) -> tuple[float, Arrow]:
        """Half the objective of one particle and its Gauss-Newton system."""
        model, n = self.models[index], self.basis.size
        local = parameters.local[index]
        prior = self.prior(model)
        parts, sizes = model.split(local), model.sizes
        arrow = Arrow(np.zeros((n, n)), np.zeros((n, len(local))), np.diag(prior), np.zeros(n), prior * local)
        total = float(prior @ local**2) / 2
        begin = sizes[0]
        for k, (film, used) in enumerate(zip(model.films, self.used[index], strict=True)):
            own = np.r_[0 : sizes[0], begin : begin + sizes[1 + k]]
            begin += sizes[1 + k]
            if not used:
                continue
            trajectory = self._react(model, film, parameters.shared, parts[0], parts[1 + k], True)
            misfit = (trajectory.frames() - film.half_cycle.li_fraction).ravel() / self.noise
            c0 = trajectory.states[0]
            along_c0 = np.ascontiguousarray((c0 * (1 - c0))[:, None] * film.initial_modes)
            raw = trajectory.sensitivities(model.log_k_modes, along_c0).reshape(misfit.size, -1) / self.noise
            n_mu = len(self.basis.mu_start)
            shared = np.hstack([raw[:, :n_mu] @ self.basis.mu_modes, raw[:, n_mu : n_mu + self.basis.n_log_j0]])
            inner = raw[:, n_mu + self.basis.n_log_j0 :]
            arrow.gram_gg[...] += shared.T @ shared
            arrow.gram_gl[:, own] += shared.T @ inner
            arrow.gram_ll[np.ix_(own, own)] += inner.T @ inner
            arrow.gradient_g[...] += shared.T @ misfit
            arrow.gradient_l[own] += inner.T @ misfit
            total += float(misfit @ misfit) / 2
        return total, arrow

    def _react(self, model, film, shared, z_k, z_0, derivatives):  # type: ignore[no-untyped-def]
        return react(
            model.mesh,
            self.basis.law(shared),
            model.log_k_modes @ z_k,
            film.initial(z_0),
            film.half_cycle.time_h,
            film.rate,
            gradient_nm2=self.gradient_nm2,
            tolerance=_TOLERANCE,
            most_steps=_MOST_STEPS,
            derivatives=derivatives,
        )


def solve_arrow(arrows: Sequence[Arrow], damping: float, fixed: bool) -> tuple[Float, list[Float], Float]:
    """Step that minimises the damped quadratic model, and the Schur complement of the global parameters.

    (H + damping diag H) step = -gradient; with `fixed` the global parameters stay.
    """
    n = len(arrows[0].gradient_g)
    schur, right = np.zeros((n, n)), np.zeros(n)
    eliminated = []
    for arrow in arrows:
        damped = arrow.gram_ll + damping * np.diag(np.diag(arrow.gram_ll))
        factor = linalg.cho_factor(damped, lower=True)
        towards_g, towards_r = linalg.cho_solve(factor, arrow.gram_gl.T), linalg.cho_solve(factor, arrow.gradient_l)
        schur += arrow.gram_gg + damping * np.diag(np.diag(arrow.gram_gg)) - arrow.gram_gl @ towards_g
        right += arrow.gradient_g - arrow.gram_gl @ towards_r
        eliminated.append((towards_g, towards_r))
    shared = np.zeros(n) if fixed else -linalg.solve(schur, right, assume_a="pos")
    return shared, [-towards_r - towards_g @ shared for towards_g, towards_r in eliminated], schur


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search ended.

    Attributes
    ----------
    objective : half the objective.
    reason : why it ended.
    iterations : Gauss-Newton steps taken.
    schur : (n, n), inverse covariance of the global parameters with the local ones marginalised.
    """

    parameters: Parameters
    objective: float
    reason: str
    iterations: int
    schur: Float


def minimise(
    problem: Problem,
    start: Parameters,
    *,
    fixed: bool = False,
    least_decrease: float = 0.0,
    report: Callable[[int, float, float], None] | None = None
) -> Minimum:
    """Gauss-Newton with Marquardt's damping, raised and lowered by the gain (Nielsen 1999).

    Parameters
    ----------
    fixed : keep the global parameters.
    least_decrease : expected relative decrease below which the search ends, where that is sooner.
    report : called after each iteration with its number, the objective and the expected decrease.
    """
    parameters, damping, growth = start, _FIRST_DAMPING, 2.0
    reason, iteration = "iteration limit", 0
    value, arrows = problem.system(parameters)
    while iteration < _MOST_ITERATIONS:
        shared, local, _ = solve_arrow(arrows, damping, fixed)
        expected = _expected_decrease(arrows, shared, local)
        if expected < max(_LEAST_DECREASE, least_decrease * value):
            reason = "expected decrease below tolerance"
            break
        trial = Parameters(
            parameters.shared + shared, tuple(a + b for a, b in zip(parameters.local, local, strict=True))
        )
        gain = (value - problem.objective(trial, below=value)) / expected
        if gain > _LEAST_GAIN:
            try:
                reached, trial_arrows = problem.system(trial)
            except ConvergenceError:
                gain = -np.inf
        if gain > _LEAST_GAIN:
            iteration += 1
            parameters = trial
            damping *= max(1 / 5, 1 - (2 * gain - 1) ** 3) if gain < 1 else 1 / 5
            growth = 2.0
            value, arrows = reached, trial_arrows
            if report is not None:
                report(iteration, value, expected)
        else:
            damping *= growth
            growth *= 4
            if damping > _MOST_DAMPING:
                reason = "no step lowers the objective"
                break
    _, _, schur = solve_arrow(arrows, 0.0, fixed)
    return Minimum(parameters, value, reason, iteration, schur)


def _expected_decrease(arrows: Sequence[Arrow], shared: Float, local: Sequence[Float]) -> float:
    total = 0.0
    for arrow, own in zip(arrows, local, strict=True):
        slope = arrow.gradient_g @ shared + arrow.gradient_l @ own
        bend = shared @ arrow.gram_gg @ shared + 2 * shared @ arrow.gram_gl @ own + own @ arrow.gram_ll @ own
        total -= float(slope + bend / 2)
    return total


def starting_parameters(problem: Problem) -> Parameters:
    """Uniform k, the initial fields of the first frames, and the constant exchange current that fits best."""
    local = []
    for model in problem.models:
        parts = [np.zeros(model.sizes[0])]
        for film in model.films:
            parts.append(_initial_from_first_frame(film, model, problem.noise))
        local.append(np.concatenate(parts))
    mean_rate = np.mean([np.abs(film.rate.rate_per_h).mean() for model in problem.models for film in model.films])
    best = None
    for factor in _START_CURRENTS:
        shared = np.zeros(problem.basis.size)
        shared[problem.basis.mu_modes.shape[1]] = np.log(factor * mean_rate)
        parameters = Parameters(shared, tuple(local))
        value = problem.objective(parameters)
        if best is None or value < best[0]:
            best = (value, parameters)
    assert best is not None
    return best[1]


def _initial_from_first_frame(film: Film, model: ParticleModel, noise: float) -> Float:
    """Most probable z given the first frame alone, linearised about the mean."""
    mean = expit(film.initial_logit)
    average = np.zeros((len(model.log_k_modes), film.initial_modes.shape[1]))
    np.add.at(average, model.mesh.pixel, film.initial_modes / model.mesh.refinement**2)
    design = mean * (1 - mean) * average / noise
    misfit = (film.half_cycle.li_fraction[0] - mean) / noise
    return np.asarray(np.linalg.solve(np.eye(design.shape[1]) + design.T @ design, design.T @ misfit))
