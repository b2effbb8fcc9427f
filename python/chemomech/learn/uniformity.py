"""Learn the laws from the uniformity coefficients of the frames alone (Zhao et al. 2023, Methods).

Of every frame only the variance over the pixels is left, and with it goes what the frames say of the pattern of ln k
and of the initial field. From one pattern to another the coefficient of a particle of few domains differs by 0.02 to
0.09, in following frames alike; an asymmetry of j0 by a factor e changes it by 0.06. The laws that explain one pattern,
held, are therefore those of that pattern; and as the field is unstable the misfit has many minima. So nothing is held
and no minimum sought: all that is unknown is drawn, each time with new patterns and initial fields, and straight lines
through the coefficients of all draws are the model. Their scatter, with the noise of the frames, is the error of the
data, the covariance of all frames of a particle. Round by round the draws move to where the data want them (statistical
linearisation about the posterior, Garcia-Fernandez et al. 2015, IEEE Trans. Signal Process. 63, 5561).

Unknown are the laws and, of ln k, the standard deviation and the correlation length: a pattern finer than the true one
is smoothed by the interface and asks for other laws. The coefficient follows from the autocatalytic rate, in which the
size of j0, its slope and the slope of mu_h stand together: a weak prior on the coefficients of the laws says how far
they go along what the data leave open.

What is known of it: of 14 sets of six particles simulated under laws drawn from the prior (sites without neighbours,
400 draws) the asymmetry of j0 had the right sign in 12, and its error was 1.6 of the standard deviations given, root
mean square. Three times the draws changed little for four of them: the posterior is not normal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.learn.law_basis import LawBasis, law_basis
from chemomech.learn.random_field import field_modes
from chemomech.learn.reaction_model import ParticleModel, build_models
from chemomech.observe.video import ReactionVideo
from chemomech.phasefield.reaction import CellMesh, ReactionLaw, cell_mesh, react
from chemomech.phasefield.reaction_theory import uniformity
from chemomech.tasks import TasksOn, in_threads

#: Standard deviation of the coefficients about the regular solution and a constant exchange current.
_COEFFICIENT_DEVIATION = 1.0
#: ln j0 less ln of the mean rate: mean and standard deviation.
_LOG_CURRENT, _LOG_CURRENT_DEVIATION = 1.5, 1.5
#: Standard deviation and correlation length (pixels) expected of ln k, and the standard deviation of ln of both.
_LOG_K_DEVIATION, _LOG_K_LENGTH_PX, _PATTERN_DEVIATION = 0.5, 1.5, 0.5
_LOG_K_KEEP = 0.98
#: Largest cells, in units of sqrt(kappa / (c_s kT)): a variance asks less of them than frames do.
_LARGEST_CELL = 0.8
#: RMS error of the composition that a time step may make, far below the scatter of patterns; steps before a draw is
#: given up.
_TOLERANCE, _MOST_STEPS = 1e-3, 20_000
#: Far from the truth lines lead astray: the misfit assumed at first, halved in each round.
_FIRST_MISFIT = 8.0
#: Rounds of draws, each of twice as many as the one before; the fewest draws of one, for lines in a dozen parameters;
#: and the share of them that must be left.
_ROUNDS, _LEAST_DRAWS, _LEAST_KEPT = 5, 25, 0.5
#: Draws that must be left for each parameter of the lines.
_DRAWS_A_PARAMETER = 1.5
#: Compositions whose exchange currents the asymmetry compares.
_ASYMMETRY = np.array([0.25, 0.75])


@dataclass(frozen=True, eq=False)
class UniformityResult:
    """The laws that the uniformity coefficients say.

    Attributes
    ----------
    law : of the mean of the posterior.
    covariance : (n, n) of the coefficients of the law in `basis`.
    log_k_spread, log_k_length_px : standard deviation and correlation length of ln k.
    data, model, error : (m,) coefficients of all frames but the first ones, those of the mean law over patterns and
        initial fields, and the standard deviation of their difference: patterns, initial fields, noise.
    misfit : ratio of the squares of data less model to those expected; above one the covariance is widened by it.
    drift : largest change of a parameter in the last round, in its standard deviations: the error of few draws.
    """

    law: ReactionLaw
    basis: LawBasis
    covariance: Float
    log_k_spread: float
    log_k_length_px: float
    data: Float
    model: Float
    error: Float
    misfit: float
    drift: float

    @property
    def asymmetry(self) -> tuple[float, float]:
        """ln j0(0.25) - ln j0(0.75), positive where j0 is skewed to the poor side, and its standard deviation."""
        low, high = self.basis.log_j0_design(_ASYMMETRY)
        first, second = np.log(self.law.exchange_current(_ASYMMETRY))
        return float(first - second), float(np.sqrt((low - high) @ self.covariance @ (low - high)))


@dataclass(frozen=True, eq=False)
class Simulator:
    """Uniformity coefficients of all films under given laws.

    Attributes
    ----------
    meshes : of each model.
    population : the pixels are sites without neighbours.
    """

    models: Sequence[ParticleModel]
    meshes: Sequence[CellMesh]
    basis: LawBasis
    gradient_nm2: float
    population: bool

    def coefficients(self, draw: tuple[Float, int]) -> Float:
        """Coefficients (m,) of all frames but the first ones, with patterns and initial fields of their own.

        Parameters
        ----------
        draw : coefficients of the law, ln of standard deviation and of correlation length (pixels) of ln k; and the
            seed of patterns and initial fields.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """
        x, seed = draw
        random = np.random.default_rng(seed)
        law, size, length = self.basis.law(x[:-2]), np.exp(x[-2]), float(np.exp(x[-1]))
        found = []
        for model, mesh in zip(self.models, self.meshes, strict=True):
            modes = field_modes(model.mesh.pixel_position_px, length, _LOG_K_KEEP).pixels
            log_k = size * modes @ random.standard_normal(modes.shape[1])
            for film in model.films:
                z = np.concatenate([random.standard_normal(film.initial_modes.shape[1]), film.rate_guess])
                z[0] = 0.0  # the mean is that of the frames
                initial = film.initial(z)
                if self.population:
                    initial = np.bincount(model.mesh.pixel, initial) / model.mesh.refinement**2
                trajectory = react(
                    mesh,
                    law,
                    log_k,
                    initial,
                    film.half_cycle.time_h,
                    film.rate(z),
                    gradient_nm2=self.gradient_nm2,
                    edge=None if self.population else film.edge,
                    coherency=None if self.population else model.coherency,
                    tolerance=_TOLERANCE,
                    most_steps=_MOST_STEPS,
                )
                found.append(uniformity(trajectory.frames()[1:]))
        return np.concatenate(found)


def learn_from_uniformity(
    video: ReactionVideo, *, population: bool = False, draws: int = 400, seed: int = 0, tasks: TasksOn = in_threads
) -> UniformityResult:
    """Laws, and standard deviation and correlation length of ln k, from the uniformity coefficients of all frames.

    A few particles do not tell the asymmetry of j0; the standard deviation says so, and is itself about 1.5 times too
    small (see the module).

    Parameters
    ----------
    population : the pixels are sites without neighbours, coupled by the mean rate alone, without stress and held edges
        (Zhao's 0D model), faster and wrong where the interface is wider than a pixel; otherwise the field is followed
        on the particle's cells.
    draws : of everything unknown, in the last round, at least 25; in all rounds about twice as many.
    seed : of the draws.
    tasks : who follows the reactions; `parallel.launch.tasks_on` knows of many processes.

    Raises
    ------
    ConvergenceError : most reactions that were drawn cannot be followed.

    >>> learn_from_uniformity(read_video("video.h5")).asymmetry
    (0.7, 0.9)
    """
    basis, models = law_basis(video.binodal, video.alpha), build_models(video, largest_cell=_LARGEST_CELL)
    meshes, gradient_nm2 = [model.mesh for model in models], video.gradient_nm2
    if population:
        meshes = [cell_mesh(mesh.mask, mesh.cell_nm * mesh.refinement, gradient_nm2, 1) for mesh in meshes]
        gradient_nm2 = 0.0
    simulator = Simulator(models, meshes, basis, gradient_nm2, population)
    rate = np.mean([np.abs(film.rate_modes @ film.rate_guess).mean() for model in models for film in model.films])
    n_mu = basis.mu_modes.shape[1]
    centre, deviation = np.zeros(basis.size + 2), np.full(basis.size + 2, _COEFFICIENT_DEVIATION)
    centre[n_mu], deviation[n_mu] = np.log(rate) + _LOG_CURRENT, _LOG_CURRENT_DEVIATION
    centre[-2:], deviation[-2:] = np.log([_LOG_K_DEVIATION, _LOG_K_LENGTH_PX]), _PATTERN_DEVIATION
    prior = Gaussian(centre, np.diag(deviation**2))
    with threadpool_limits(1, user_api="blas"):
        return _learn(simulator, observe(models, video.noise), prior, draws, np.random.default_rng(seed), tasks)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution of the parameters: mean (n,) and covariance (n, n)."""

    mean: Float
    covariance: Float


@dataclass(frozen=True, eq=False)
class Observed:
    """Coefficients (m,) of all frames but the first ones, their standard errors from the noise, and each particle's."""

    data: Float
    noise: Float
    particles: Sequence[slice]


def observe(models: Sequence[ParticleModel], noise: float) -> Observed:
    """The frames of all particles; `noise` is the standard deviation of a pixel."""
    data: list[Float] = []
    error: list[Float] = []
    ends = [0]
    for model in models:
        for film in model.films:
            frames = film.half_cycle.li_fraction[1:]
            mean, variance = frames.mean(axis=1), np.maximum(frames.var(axis=1) - noise**2, 0)
            # Standard error of a variance seen through normal noise.
            wrong = np.sqrt((4 * variance + 2 * noise**2) * noise**2 / frames.shape[1])
            data.append(uniformity(frames, noise))
            error.append(wrong / (mean * (1 - mean)))
        ends.append(sum(len(each) for each in data))
    return Observed(np.concatenate(data), np.concatenate(error), [slice(*pair) for pair in pairwise(ends)])


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines through draws.

    Attributes
    ----------
    values : (m,) at the centre; `slopes` (m, n).
    covariance : for each particle, (m, m) of data less lines, and `scatter` the part of it that the draws make.
    per_slope : (n, n), times the scatter the covariance of slopes.
    """

    values: Float
    slopes: Float
    covariance: Sequence[Float]
    scatter: Sequence[Float]
    per_slope: Float


def fit_lines(x: Float, values: Float, observed: Observed, centre: Float) -> Lines:
    """Least squares through the coefficients `values` (k, m) at parameters x (k, n)."""
    (k, n), about = x.shape, x.mean(axis=0)
    design = np.column_stack([np.ones(k), x - about])
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ (design.T @ values)
    wrong = (values - design @ found) / np.sqrt(k - n - 1)
    scatter = [wrong[:, part].T @ wrong[:, part] for part in observed.particles]
    covariance = [
        own + np.diag(observed.noise[part] ** 2) for own, part in zip(scatter, observed.particles, strict=True)
    ]
    slopes = found[1:].T
    return Lines(found[0] + slopes @ (centre - about), slopes, covariance, scatter, inverse[1:, 1:])


def condition(lines: Lines, observed: Observed, prior: Gaussian, least: float = 1.0) -> tuple[Gaussian, float, Float]:
    """Posterior, misfit (not less than `least`) and residual (m,) at its mean.

    Draws that scatter have slopes even where there are none, whose squares would count as information: what is expected
    of them is taken off.
    """
    n = len(prior.mean)
    certain, gram, excess, pull = np.linalg.inv(prior.covariance), np.zeros((n, n)), 0.0, np.zeros(n)
    weights = [np.linalg.inv(each) for each in lines.covariance]
    residual = observed.data - lines.values
    for part, weight, scatter in zip(observed.particles, weights, lines.scatter, strict=True):
        gram += lines.slopes[part].T @ weight @ lines.slopes[part]
        pull += lines.slopes[part].T @ weight @ residual[part]
        excess += float(np.trace(weight @ scatter))
    root = linalg.cholesky(prior.covariance, lower=True)
    misfit = least
    for _ in range(2):  # the misfit is that of the posterior which it widens
        step = linalg.solve(gram / misfit + certain, pull / misfit, assume_a="pos")
        left = residual - lines.slopes @ step
        square = sum(
            float(left[part] @ weight @ left[part]) for part, weight in zip(observed.particles, weights, strict=True)
        )
        known = float(np.trace(linalg.solve(gram / misfit + certain, gram / misfit)))
        misfit = max(least, square / (len(residual) - known))
    information, turn = np.linalg.eigh(root.T @ (gram - excess * lines.per_slope) @ root)
    turned = root @ turn
    covariance = turned / (1 + np.maximum(information, 0.0) / misfit) @ turned.T
    return Gaussian(prior.mean + step, covariance), misfit, left


def _learn(
    simulator: Simulator,
    observed: Observed,
    prior: Gaussian,
    draws: int,
    random: np.random.Generator,
    tasks: TasksOn,
) -> UniformityResult:
    posterior, rounds = prior, []
    for index in range(_ROUNDS):
        before = posterior
        n = max(draws // 2 ** (_ROUNDS - 1 - index), _LEAST_DRAWS)
        rounds.append(_draw(simulator, posterior, n, random, f"round {index + 1} of {_ROUNDS}", tasks))
        # Not the first ones, which are far away.
        x, values = (np.concatenate(part) for part in zip(*rounds[len(rounds) // 2 :], strict=True))
        lines = fit_lines(x, values, observed, prior.mean)
        posterior, misfit, left = condition(lines, observed, prior, max(1.0, _FIRST_MISFIT / 2**index))
    return UniformityResult(
        law=simulator.basis.law(posterior.mean[:-2]),
        basis=simulator.basis,
        covariance=posterior.covariance[:-2, :-2],
        log_k_spread=float(np.exp(posterior.mean[-2])),
        log_k_length_px=float(np.exp(posterior.mean[-1])),
        data=observed.data,
        model=observed.data - left,
        error=np.sqrt(np.concatenate([np.diag(each) for each in lines.covariance])),
        misfit=misfit,
        drift=float(np.max(np.abs(posterior.mean - before.mean) / np.sqrt(np.diag(posterior.covariance)))),
    )


def _draw(
    simulator: Simulator, at: Gaussian, draws: int, random: np.random.Generator, what: str, tasks: TasksOn
) -> tuple[Float, Float]:
    """Parameters (k, n) drawn, without those whose reactions cannot be followed, and their coefficients (k, m)."""
    root = linalg.cholesky(at.covariance, lower=True)
    x = at.mean + random.standard_normal((draws, len(root))) @ root.T
    items = list(zip(x, random.integers(2**32, size=draws).tolist(), strict=True))
    kept, values = [], []
    for each, result in zip(x, tasks(what, Simulator.coefficients, simulator, items, lambda _: 1.0), strict=True):
        if not isinstance(result, Exception):
            kept.append(each)
            values.append(result)
        elif not isinstance(result, ConvergenceError):
            raise result
    if len(kept) < max(_LEAST_KEPT * draws, _DRAWS_A_PARAMETER * len(root)):
        lost = 1 - len(kept) / draws
        raise ConvergenceError(f"reactions of {what}", iterations=draws, residual=lost, tolerance=1 - _LEAST_KEPT)
    return np.array(kept), np.array(values)
