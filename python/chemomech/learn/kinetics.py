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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial import legendre
from scipy import linalg, stats
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from chemomech._core import Trajectory, build_info
from chemomech.arrays import Float, Int
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
#: Standard deviation, of logit c in a cell, to which the initial field of a film follows that of its first piece.
_JOIN_ERROR = 0.3
#: Relative decrease that ends this search: it only has to lead into the valley.
_PIECE_DECREASE = 2e-2
#: RMS error of the composition that a time step may make: far below the noise of a pixel.
_TOLERANCE = 1e-4
#: Parameters that make the reaction harder to follow than this are no candidates.
_MOST_STEPS = 2000
#: A trajectory of the mean is refused when its misfit would come by chance less often than this.
_CONTRADICTED = 0.01
#: Exchange currents, in mean rates, from which the search starts.
_START_CURRENTS = (1.0, 3.0, 10.0, 30.0)
#: Regular-solution parameter to start from where no binodal is given, kT.
_START_OMEGA = 4.0
_MOST_ITERATIONS = 40
CONVERGED = "expected decrease below tolerance"
#: An expected decrease of half the objective below this ends the search: 1/2 is one parameter at one standard error.
_LEAST_DECREASE = 1.0
_FIRST_DAMPING, _MOST_DAMPING = 0.03, 1e8
#: rho_2 of the search, and what it may become.
_START_RHO = 0.02
_RHO_RANGE = (1e-4, 10.0)
#: Change of ln rho_2 that does not ask for another search.
_SETTLED_RHO = 0.3
#: Relative decreases that end the search on coarse cells, and on fine ones.
_COARSE_DECREASE, _SEARCH_DECREASE = 1e-2, 1e-3
#: Coarse cells along a pixel.
_COARSE = 2
#: Ratio of misfit to noise worth a warning.
_SUSPICIOUS_MISFIT = 1.1
#: Half-width of a 99 % interval of a normal distribution, in standard deviations.
NORMAL_99 = 2.5758293035489004
#: Where the laws are reported; the ends are too close to 0 and 1 to be seen through the noise.
COMPOSITION = np.linspace(0.05, 0.95, 37)
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

    def columns(self, film: int) -> Int:
        """Places of Z and of the z of one film among the parameters of the particle."""
        begin = sum(self.sizes[: 1 + film])
        return np.concatenate([np.arange(self.sizes[0]), begin + np.arange(self.sizes[1 + film])])


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
        return int(self.mu_modes.shape[1]) + self.n_log_j0

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


def law_basis(binodal: float | None, alpha: float) -> LawBasis:
    """Legendre series of mu_h and ln j0.

    With a binodal d, mu_h(d) = mu_h(1 - d) = mean of mu_h between them (common tangent): two linear conditions, met by
    the regular solution to start from.
    """
    n = MU_ORDER + 1
    free = np.eye(n)[:, 1:]  # L_0 only shifts the potential
    start = np.zeros(n)
    if binodal is None:
        start[1] = -_START_OMEGA
        return LawBasis(start, free, LOG_J0_ORDER + 1, alpha)
    start[1] = -np.log(1 / binodal - 1) / (1 - 2 * binodal)
    span = np.array([2 * binodal - 1, 1 - 2 * binodal])
    ends = legendre.legvander(span, MU_ORDER)
    area = [np.diff(legendre.legval(span, legendre.legint(row)))[0] / (span[1] - span[0]) for row in np.eye(n)]
    conditions = np.array([ends[0] - ends[1], area - ends[0]])[:, 1:]
    return LawBasis(start, free @ linalg.null_space(conditions), LOG_J0_ORDER + 1, alpha)


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


def build_models(video: ReactionVideo, *, pieces: bool = False, coarse: bool = False) -> list[ParticleModel]:
    """Meshes, modes and mean rates of all particles.

    With `pieces` every few frames of a half-cycle are a film of their own; `coarse` cells are half a pixel.

    The size and correlation length of the initial fields are common to all first frames. Pieces, which start anywhere,
    have their own.
    """
    refinement = _COARSE if coarse else None
    meshes = [
        cell_mesh(each.mask, each.pixel_size_nm, video.gradient_nm2, refinement) for each in video.particles.values()
    ]
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
            deviation, length = most_likely_field([half.li_fraction[0]], [spectrum], video.noise) if pieces else common
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
        return self._react(index, film, parameters, derivatives=False).frames()

    def objective(self, parameters: Parameters, below: float = np.inf) -> float:
        """Half the objective; infinite where it is not `below`, or the reaction cannot be followed."""
        total = self._prior_sum(parameters)
        with ThreadPoolExecutor(build_info()["threads"]) as pool:
            for misfit in [pool.submit(self._misfit, *film, parameters) for film in self._films()]:
                try:
                    total += float(np.sum(misfit.result() ** 2)) / 2
                except ConvergenceError:
                    total = np.inf
                if total > below:
                    pool.shutdown(cancel_futures=True)
                    return np.inf
        return total

    def system(self, parameters: Parameters) -> tuple[float, list[Arrow]]:
        """Half the objective and the Gauss-Newton systems of all particles.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """
        n, total = self.basis.size, self._prior_sum(parameters)
        arrows = []
        for model, local in zip(self.models, parameters.local, strict=True):
            prior = self.prior(model)
            arrows.append(
                Arrow(np.zeros((n, n)), np.zeros((n, len(local))), np.diag(prior), np.zeros(n), prior * local)
            )
        films = self._films()
        with ThreadPoolExecutor(build_info()["threads"]) as pool:
            for (index, film), (misfit, gram, slope) in zip(
                films, pool.map(lambda at: self._normal_equations(at[0], at[1], parameters), films), strict=True
            ):
                own, arrow = self.models[index].columns(film), arrows[index]
                arrow.gram_gg[...] += gram[:n, :n]
                arrow.gram_gl[:, own] += gram[:n, n:]
                arrow.gram_ll[np.ix_(own, own)] += gram[n:, n:]
                arrow.gradient_g[...] += slope[:n]
                arrow.gradient_l[own] += slope[n:]
                total += misfit / 2
        return total, arrows

    def _films(self) -> list[tuple[int, int]]:
        return [(index, film) for index, used in enumerate(self.used) for film, taken in enumerate(used) if taken]

    def _prior_sum(self, parameters: Parameters) -> float:
        pairs = zip(self.models, parameters.local, strict=True)
        return sum(float(self.prior(model) @ local**2) / 2 for model, local in pairs)

    def _misfit(self, index: int, film: int, parameters: Parameters) -> Float:
        data = self.models[index].films[film].half_cycle.li_fraction
        return (self.frames(index, film, parameters) - data) / self.noise

    def _normal_equations(self, index: int, film: int, parameters: Parameters) -> tuple[float, Float, Float]:
        """Squared misfit, J^T J and J^T misfit; global parameters first, then those of `ParticleModel.columns`."""
        model, n_mu = self.models[index], len(self.basis.mu_start)
        trajectory = self._react(index, film, parameters, derivatives=True)
        half = model.films[film]
        misfit = (trajectory.frames() - half.half_cycle.li_fraction).ravel() / self.noise
        c0 = trajectory.states[0]
        along_c0 = np.ascontiguousarray((c0 * (1 - c0))[:, None] * half.initial_modes)
        raw = trajectory.sensitivities(model.log_k_modes, along_c0, threads=False).reshape(misfit.size, -1)
        jacobian = np.hstack([raw[:, :n_mu] @ self.basis.mu_modes, raw[:, n_mu:]]) / self.noise
        return float(misfit @ misfit), jacobian.T @ jacobian, jacobian.T @ misfit

    def _react(self, index: int, film: int, parameters: Parameters, *, derivatives: bool) -> Trajectory:
        model = self.models[index]
        parts = model.split(parameters.local[index])
        half = model.films[film]
        return react(
            model.mesh,
            self.basis.law(parameters.shared),
            model.log_k_modes @ parts[0],
            half.initial(parts[1 + film]),
            half.half_cycle.time_h,
            half.rate,
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
        schur += arrow.gram_gg - arrow.gram_gl @ towards_g
        right += arrow.gradient_g - arrow.gram_gl @ towards_r
        eliminated.append((towards_g, towards_r))
    damped_schur = schur + damping * np.diag(np.diag(schur))
    shared = np.zeros(n) if fixed else -linalg.solve(damped_schur, right, assume_a="pos")
    return shared, [-towards_r - towards_g @ shared for towards_g, towards_r in eliminated], schur


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search ended.

    Attributes
    ----------
    objective : half the objective.
    reason : why it ended.
    iterations : Gauss-Newton steps taken.
    arrows : the Gauss-Newton systems there.
    schur : (n, n), inverse covariance of the global parameters with the local ones marginalised.
    """

    parameters: Parameters
    objective: float
    reason: str
    iterations: int
    arrows: list[Arrow]
    schur: Float


def minimise(
    problem: Problem,
    start: Parameters,
    *,
    fixed: bool = False,
    least_decrease: float = 0.0,
    what: str = "",
) -> Minimum:
    """Gauss-Newton with Marquardt's damping, raised and lowered by the gain (Nielsen 1999).

    Parameters
    ----------
    fixed : keep the global parameters.
    least_decrease : expected relative decrease below which the search ends, where that is sooner.
    what : what is fitted, to log every iteration under this name; silent without.
    """
    parameters, damping, growth = start, _FIRST_DAMPING, 2.0
    reason, iteration = "iteration limit", 0
    value, arrows = problem.system(parameters)
    while iteration < _MOST_ITERATIONS:
        shared, local, _ = solve_arrow(arrows, damping, fixed)
        expected = _expected_decrease(arrows, shared, local)
        if expected < max(_LEAST_DECREASE, least_decrease * value):
            reason = CONVERGED
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
            if what:
                log.info("%s, step %d: misfit %.4g, expected decrease %.2g", what, iteration, 2 * value, expected)
        else:
            damping *= growth
            growth *= 4
            if damping > _MOST_DAMPING:
                reason = "no step lowers the objective"
                break
    _, _, schur = solve_arrow(arrows, 0.0, fixed)
    return Minimum(parameters, value, reason, iteration, arrows, schur)


def _expected_decrease(arrows: Sequence[Arrow], shared: Float, local: Sequence[Float]) -> float:
    total = 0.0
    for arrow, own in zip(arrows, local, strict=True):
        slope = arrow.gradient_g @ shared + arrow.gradient_l @ own
        bend = shared @ arrow.gram_gg @ shared + 2 * shared @ arrow.gram_gl @ own + own @ arrow.gram_ll @ own
        total -= float(slope + bend / 2)
    return total


@dataclass(frozen=True, eq=False)
class ParticleKinetics:
    """One particle as learned.

    Attributes
    ----------
    log_k : (n_pixels,) ln of the local rate constant; its mean over the area of all particles is zero.
    model : by half-cycle, the frames (n_t, n_pixels) of the learned model.
    """

    particle: FilmedParticle
    log_k: Float
    model: dict[str, Float]


@dataclass(frozen=True, eq=False)
class KineticsResult:
    """What the videos say, and how surely.

    Attributes
    ----------
    law : the laws; ln k has mean zero over the area of all particles.
    composition : (n,) at which the following are given.
    mu_kT, mu_half_width : (n,) mu_h less its mean, and the half-width of its point-wise 99 % band.
    log_j0, log_j0_half_width : (n,) ln of j0 in 1/h, and the half-width of its point-wise 99 % band.
    rmse, noise : of model less data over all frames; standard deviation of the noise.
    rho : regularisation of ln k.
    reason, iterations : why the search ended, and after how many steps.
    particles : by name.
    warnings : what a careful reader should look at first.
    """

    law: ReactionLaw
    composition: Float
    mu_kT: Float
    mu_half_width: Float
    log_j0: Float
    log_j0_half_width: Float
    rmse: float
    noise: float
    rho: float
    reason: str
    iterations: int
    particles: dict[str, ParticleKinetics]
    warnings: list[str]


def learn_kinetics(video: ReactionVideo) -> KineticsResult:
    """Learn mu_h(c), j0(c) and ln k(x, y) from videos.

    The bands are those of the linearised posterior: the inverse Gauss-Newton matrix, ln k and the initial fields
    marginalised, widened by the misfit where that is larger than the noise.

    Raises
    ------
    ConvergenceError : no starting point was found at which the reaction can be followed.

    >>> result = learn_kinetics(read_video("video.h5"))
    >>> result.law.exchange_current(np.array([0.5]))
    array([12.7])
    """
    # Films are shared out among threads; those of the linear algebra would be in their way.
    with threadpool_limits(1, user_api="blas"):
        return _learn(video)


def _learn(video: ReactionVideo) -> KineticsResult:
    basis = law_basis(video.binodal, video.alpha)

    def problem(models: Sequence[ParticleModel], rho: float) -> Problem:
        every = [[True] * len(model.films) for model in models]
        return Problem(models, basis, video.gradient_nm2, video.noise, rho, every)

    # Half a pixel leads into the valley; only cells fine enough for the interface give laws without bias.
    pieces = problem(build_models(video, pieces=True, coarse=True), _START_RHO)
    rough = minimise(pieces, starting_parameters(pieces), least_decrease=_PIECE_DECREASE, what="pieces of films")
    whole = problem(build_models(video, coarse=True), _START_RHO)
    start = _joined(pieces, whole, rough.parameters)
    found = minimise(whole, start, least_decrease=_COARSE_DECREASE, what="whole films, coarse cells")
    whole = problem(build_models(video), most_likely_rho(whole, found))
    found = minimise(whole, found.parameters, least_decrease=_SEARCH_DECREASE, what="whole films")
    rho = most_likely_rho(whole, found)
    if abs(np.log(rho / whole.rho)) > _SETTLED_RHO:
        whole = replace(whole, rho=rho)
        found = minimise(whole, found.parameters, least_decrease=_SEARCH_DECREASE, what="settled rho_2")
    return _result(video, whole, found)


def _joined(pieces: Problem, whole: Problem, parameters: Parameters) -> Parameters:
    """Parameters of whole films from those of their pieces: the initial field is that of the first piece."""
    local = []
    for cut, model, given in zip(pieces.models, whole.models, parameters.local, strict=True):
        parts = cut.split(given)
        joined = [parts[0]]
        for film in model.films:
            first = next(
                i
                for i, piece in enumerate(cut.films)
                if piece.half_cycle.time_h[0] == film.half_cycle.time_h[0]
                and piece.half_cycle.name == film.half_cycle.name
            )
            field = cut.films[first].initial_logit + cut.films[first].initial_modes @ parts[1 + first]
            modes = film.initial_modes / _JOIN_ERROR
            system = np.eye(modes.shape[1]) + modes.T @ modes
            joined.append(linalg.solve(system, modes.T @ (field - film.initial_logit) / _JOIN_ERROR, assume_a="pos"))
        local.append(np.concatenate(joined))
    return Parameters(parameters.shared, tuple(local))


def most_likely_rho(problem: Problem, found: Minimum) -> float:
    """The regularisation under which the coefficients Z found, with their uncertainty, are most likely.

    MacKay's (1992) fixed point of the evidence: the variance of Z is sum Z^2 over the number of coefficients that the
    data determine. It uses the half-cycles of all particles at once and costs nothing beside the fit.
    """
    shared_covariance = np.linalg.inv(found.schur)
    determined, square = 0.0, 0.0
    for model, arrow, local in zip(problem.models, found.arrows, found.parameters.local, strict=True):
        m = model.sizes[0]
        solved = np.linalg.inv(arrow.gram_ll)
        towards = solved[:m] @ arrow.gram_gl.T
        uncertain = np.trace(solved[:m, :m]) + np.einsum("ij,jk,ik->", towards, shared_covariance, towards)
        determined += m - problem.rho / problem.noise**2 * float(uncertain)
        square += float(local[:m] @ local[:m])
    return float(np.clip(problem.noise**2 * max(determined, 1.0) / square, *_RHO_RANGE))


def _result(video: ReactionVideo, problem: Problem, found: Minimum) -> KineticsResult:
    basis, parameters = problem.basis, found.parameters
    log_k = [
        model.log_k_modes @ model.split(local)[0] for model, local in zip(problem.models, parameters.local, strict=True)
    ]
    areas = [model.particle.pixel_size_nm**2 for model in problem.models]
    total = sum(area * len(own) for area, own in zip(areas, log_k, strict=True))
    mean_log_k = sum(area * float(own.sum()) for area, own in zip(areas, log_k, strict=True)) / total
    law = basis.law(parameters.shared)
    shifted = law.log_j0.copy()
    shifted[0] += mean_log_k
    law = replace(law, log_j0=shifted)
    particles, squares = {}, []
    for index, (model, own) in enumerate(zip(problem.models, log_k, strict=True)):
        frames = {}
        for film, each in enumerate(model.films):
            frames[each.half_cycle.name] = problem.frames(index, film, parameters)
            squares.append((frames[each.half_cycle.name] - each.half_cycle.li_fraction).ravel() ** 2)
        particles[model.particle.name] = ParticleKinetics(model.particle, own - mean_log_k, frames)
    rmse = float(np.sqrt(np.concatenate(squares).mean()))
    widening = NORMAL_99 * max(rmse / video.noise, 1.0)
    c = COMPOSITION
    mu = law.chemical_potential(c)
    # ln j0 counts from the mean of ln k, which the Z of all particles move.
    along_local = []
    for model, area in zip(problem.models, areas, strict=True):
        along = np.zeros(sum(model.sizes))
        along[: model.sizes[0]] = model.log_k_modes.sum(axis=0) * area / total
        along_local.append(along)
    return KineticsResult(
        law=law,
        composition=c,
        mu_kT=mu - mu.mean(),
        mu_half_width=widening * _deviation(found, basis.mu_design(c), [np.zeros_like(a) for a in along_local]),
        log_j0=np.log(law.exchange_current(c)),
        log_j0_half_width=widening * _deviation(found, basis.log_j0_design(c), along_local),
        rmse=rmse,
        noise=video.noise,
        rho=problem.rho,
        reason=found.reason,
        iterations=found.iterations,
        particles=particles,
        warnings=[*_warnings(rmse, video.noise, found), *video.skipped],
    )


def _warnings(rmse: float, noise: float, found: Minimum) -> list[str]:
    notes = []
    if rmse > _SUSPICIOUS_MISFIT * noise:
        notes.append(
            f"the model misses the frames by {rmse:.3f} RMS, more than the noise of {noise:.3f}: something in the "
            "videos is not in the model, and the bands, which are widened by the ratio, may still be too narrow"
        )
    if found.reason != CONVERGED:
        notes.append(f"the search ended before its tolerance: {found.reason} after {found.iterations} iterations")
    return notes


def _deviation(found: Minimum, along_shared: Float, along_local: Sequence[Float]) -> Float:
    """Posterior standard deviation (n,) of along_shared @ shared + sum of along_local @ local."""
    remaining, variance = along_shared.copy(), 0.0
    for arrow, along in zip(found.arrows, along_local, strict=True):
        solved = linalg.solve(arrow.gram_ll, along, assume_a="pos")
        variance += float(along @ solved)
        remaining -= arrow.gram_gl @ solved
    return np.asarray(
        np.sqrt(variance + np.einsum("ij,ji->i", remaining, linalg.solve(found.schur, remaining.T, assume_a="pos")))
    )


def _initial_fields(problem: Problem, log_k_from: Sequence[Float]) -> tuple[Float, ...]:
    """Local parameters: Z from those given, z from the first frames."""
    local = []
    for model, given in zip(problem.models, log_k_from, strict=True):
        initial = [_initial_from_first_frame(film, model, problem.noise) for film in model.films]
        local.append(np.concatenate([given[: model.sizes[0]], *initial]))
    return tuple(local)


def starting_parameters(problem: Problem) -> Parameters:
    """Uniform k, the initial fields of the first frames, and the constant exchange current that fits best."""
    local = _initial_fields(problem, [np.zeros(model.sizes[0]) for model in problem.models])
    mean_rate = np.mean([np.abs(film.rate.rate_per_h).mean() for model in problem.models for film in model.films])
    best = None
    for factor in _START_CURRENTS:
        shared = np.zeros(problem.basis.size)
        shared[problem.basis.mu_modes.shape[1]] = np.log(factor * mean_rate)
        parameters = Parameters(shared, local)
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
