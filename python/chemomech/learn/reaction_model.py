"""Videos of reacting particles as a least-squares problem: what is unknown, what is expected of it, what it predicts.

Global parameters are those of the laws (`law_basis`), not regularised. Of each particle: ln k = an offset and the modes
of a Gaussian field (coefficients Z). Of each half-cycle: its initial field. The reaction is unstable, so a noisy first
frame is no initial condition: logit c0 is a Gaussian field z, and the first frame is data like the others. The mean
rate is unknown as well, constant where the frames do not contradict that: an error of half a percent, which is what the
means of the frames leave open, carries the reaction elsewhere.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Self

import numpy as np
from scipy import linalg, stats
from scipy.special import expit, logit

from chemomech._core import Trajectory
from chemomech.arrays import Float, Int
from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import Arrow, Minimum, Parameters, marginal
from chemomech.learn.law_basis import LawBasis
from chemomech.learn.random_field import Spectra, covariance_spectra, field_modes, most_likely_field, smoothed
from chemomech.observe.video import FilmedParticle, HalfCycle, ReactionVideo
from chemomech.phasefield.planar_coherency import coherency_modes
from chemomech.phasefield.reaction import (
    LARGEST_CELL,
    CellMesh,
    HeldEdge,
    MeanRate,
    cell_mesh,
    cells_along_a_pixel,
    react,
)
from chemomech.tasks import Result, TasksOn, in_threads, in_turn

#: Correlation length of ln k to start from, pixels.
_START_LENGTH_PX = 2.0
#: Share of the variance of ln k that its modes keep: what 0.95 leave out moves frames by more than their noise.
LOG_K_KEEP = 0.99
#: And of the initial fields: with 0.99 the laws of a few pixels run away.
INITIAL_KEEP = 0.98
#: Singular values of modes, beside the largest, below which the offset counts as one of the others.
_DEPENDENT = 1e-6
#: Standard deviation of the mean of logit c0, which the first frame knows far better.
_INITIAL_OFFSET = 1.0
#: Largest |ln(c / (1 - c))| of an initial field: beyond it 1 - c is lost to rounding.
_PUREST = 12.0
#: Where the mean composition of a first frame may lie: its noise can carry it to the ends.
_START_RANGE = (0.005, 0.995)
#: Frames of the pieces that the search for a starting point fits one by one.
_PIECE = 3
#: Domains that have formed, in ln(c / (1 - c)): standard deviation, correlation length (pixels), variance kept.
_DOMAIN_DEVIATION, _DOMAIN_LENGTH_PX, _DOMAIN_KEEP = 3.0, 2.0, 0.95
#: Standard deviation, of logit c in a cell, to which the initial field of a film follows that of its first piece.
_JOIN_ERROR = 0.3
#: Compositions of a first guess: noise and smoothing know no ends.
_GUESS_RANGE = (0.03, 0.97)
#: Error of the composition that a time step may make: frames of the truth then err by a tenth of what cells do. At 1e-4
#: derivatives are right to some per cent only, and a film under wrong laws can end elsewhere.
TOLERANCE = 3e-5
#: To which the linear systems of adjoints are solved: gradients are then right to a part in a thousand.
_ADJOINT_TOLERANCE = 1e-5
#: And those of second derivatives, which are then right to some parts in a thousand where k varies tenfold.
_VOLUME_TOLERANCE = 1e-5
#: Parameters that make the reaction harder to follow than this are no candidates: time steps at a tolerance, which grow
#: less than as its inverse root.
_MOST_STEPS, _MOST_STEPS_A_FRAME, _STEPS_TOLERANCE = 3000, 400, 3e-5
#: A trajectory of the mean is refused when its misfit would come by chance less often than this.
_CONTRADICTED = 0.01
#: Exchange currents, in mean rates, from which the search starts.
_START_CURRENTS = (1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class Lengths:
    """Correlation lengths, pixels, of ln k and of the initial fields."""

    log_k_px: float
    initial_px: float


@dataclass(frozen=True, eq=False)
class Film:
    """One half-cycle as the fit sees it.

    Attributes
    ----------
    half_cycle : the frames.
    knots_h : (n_knots,) times between which the mean rate is linear.
    rate_modes : (n_knots, r), 1/h; the mean rate at the knots is rate_modes @ the last r of z.
    rate_guess : (r,) those of the means of the frames alone.
    initial_logit : mean of logit c0.
    edge : compositions held at the edge; None without flux.
    initial_guess : (n_pixels,) most probable composition behind the first frame alone.
    initial_modes : (n_cells, m), the offset first; c0 = expit(initial_logit + initial_modes @ the first m of z).

    z, standard normal, are the parameters of the film.
    """

    half_cycle: HalfCycle
    knots_h: Float
    rate_modes: Float
    rate_guess: Float
    edge: HeldEdge | None
    initial_logit: float
    initial_modes: Float
    initial_guess: Float

    @property
    def size(self) -> int:
        """Number of parameters."""
        return int(self.initial_modes.shape[1] + self.rate_modes.shape[1])

    def initial(self, z: Float) -> Float:
        """Initial composition (n_cells,)."""
        own = z[: self.initial_modes.shape[1]]
        return np.asarray(expit(np.clip(self.initial_logit + self.initial_modes @ own, -_PUREST, _PUREST)))

    def rate(self, z: Float) -> MeanRate:
        """Mean rate."""
        return MeanRate(self.knots_h, self.rate_modes @ z[self.initial_modes.shape[1] :])


@dataclass(frozen=True, eq=False)
class ParticleModel:
    """One particle as the fit sees it.

    Attributes
    ----------
    log_k_modes : (n_pixels, m), the offset first; ln k = log_k_modes @ Z.
    lengths : those of the modes.
    coherency : (n_pixels, rank), as `react` takes it; None without elastic energy.
    """

    particle: FilmedParticle
    mesh: CellMesh
    log_k_modes: Float
    lengths: Lengths
    coherency: Float | None
    films: tuple[Film, ...]

    @property
    def sizes(self) -> list[int]:
        """Numbers of parameters: Z, then z of each film."""
        return [self.log_k_modes.shape[1], *(film.size for film in self.films)]

    def split(self, local: Float) -> list[Float]:
        """Z and the z of each film from all parameters of the particle."""
        return np.split(local, np.cumsum(self.sizes)[:-1])

    def columns(self, film: int) -> Int:
        """Places of Z and of the z of one film among the parameters of the particle."""
        begin = sum(self.sizes[: 1 + film])
        return np.concatenate([np.arange(self.sizes[0]), begin + np.arange(self.sizes[1 + film])])

    def closest_log_k(self, log_k: Float) -> Float:
        """The shortest Z of which the ln k come closest to given ones, (n_pixels,) or (n_pixels, n)."""
        return np.asarray(linalg.lstsq(self.log_k_modes, log_k, cond=_DEPENDENT)[0])

    def initial_columns(self, film: int) -> Int:
        """Places of the parameters of one film's initial field, without its offset."""
        begin = sum(self.sizes[: 1 + film])
        return begin + np.arange(1, self.films[film].initial_modes.shape[1])


def smoothest_rate(time_h: Float, mean: Float, error: float) -> tuple[float, MeanRate, Float]:
    """Initial mean and mean rate, linear between frames, of the smoothest trajectory that the frames do not contradict.

    A constant rate where it will do; otherwise the largest weight on the squared slopes of the rate at which the misfit
    is still likely.

    Parameters
    ----------
    mean : (n,) mean composition of the frames; `error` its standard error.

    Returns
    -------
    start, rate
    modes : (n, r), a constant of about the size of the rate, and where that will not do the steps of a random walk of
        the slopes found; rates are expected to be the modes times standard normal numbers.
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
    modes = np.full((n, 1), abs(slope))
    while misfit > allowed and weight > 1e-12 * (time_h[-1] - time_h[0]) ** 3:
        walk = np.tri(n, n - 1, -1) * np.sqrt(step / weight)
        modes = np.column_stack([np.full(n, abs(slope)), walk])
        system = np.vstack([design, np.sqrt(weight) * bends])
        found = np.linalg.lstsq(system, np.append(mean / error, np.zeros(n - 1)), rcond=None)[0]
        misfit = float(np.sum((design @ found - mean / error) ** 2))
        start, rate = found[0], found[1:]
        weight /= 3
    return float(start), MeanRate(np.ascontiguousarray(time_h), np.ascontiguousarray(rate)), modes


def build_models(
    video: ReactionVideo,
    lengths: Lengths | None = None,
    *,
    pieces: bool = False,
    largest_cell: float = LARGEST_CELL,
) -> list[ParticleModel]:
    """Meshes, modes and mean rates of all particles.

    Correlation lengths are those to start from where they are not given, that of the initial fields what first frames
    alone say. With `pieces` every few frames of a half-cycle are a film of their own. Cells are no larger than
    `largest_cell` sqrt(kappa / (c_s kT)): at 1.25 frames err by 0.007 RMS, at 0.8 by 0.003, at 0.6 by 0.0013.

    The size and correlation length of the initial fields are common to all first frames; later pieces start from
    domains.
    """
    held = video.boundary == "dirichlet_data"
    meshes = []
    for each in video.particles.values():
        refinement = cells_along_a_pixel(each.pixel_size_nm, video.gradient_nm2, largest_cell)
        meshes.append(cell_mesh(each.mask, each.pixel_size_nm, video.gradient_nm2, refinement, held_edge=held))
    spectra, deviation, length = _first_fields(video)
    lengths = lengths or Lengths(_START_LENGTH_PX, length)
    models = []
    for particle, mesh, spectrum in zip(video.particles.values(), meshes, spectra, strict=True):
        position = mesh.pixel_position_px
        error = video.noise / np.sqrt(len(position))
        films = []
        first_modes = field_modes(position, lengths.initial_px, INITIAL_KEEP).at(mesh.position_px)
        later_modes = field_modes(position, _DOMAIN_LENGTH_PX, _DOMAIN_KEEP).at(mesh.position_px) if pieces else None
        offset = np.full(mesh.n_cells, _INITIAL_OFFSET)
        for half in particle.half_cycles:
            mean, rate, rate_modes = smoothest_rate(half.time_h, half.li_fraction.mean(axis=1), error)
            rate_guess = np.asarray(linalg.lstsq(rate_modes, rate.rate_per_h)[0])
            for part in _cut(half) if pieces else [half]:
                begin = part.time_h[0]
                start = float(np.clip(mean + rate.change(half.time_h[0], np.array([begin]))[0], *_START_RANGE))
                if later_modes is None or begin == half.time_h[0]:
                    columns = np.column_stack([offset, deviation / (start * (1 - start)) * first_modes])
                else:
                    columns = np.column_stack([offset, _DOMAIN_DEVIATION * later_modes])
                edge = None
                if held:
                    composition = np.array([smoothed(c, spectrum, video.noise) for c in part.li_fraction])
                    edge = HeldEdge(part.time_h, composition)
                guess = smoothed(part.li_fraction[0], spectrum, video.noise)
                films.append(Film(part, rate.time_h, rate_modes, rate_guess, edge, float(logit(start)), columns, guess))
        log_k_modes = field_modes(position, lengths.log_k_px, LOG_K_KEEP).pixels
        columns = np.column_stack([np.ones(len(position)), log_k_modes])
        coherency = None
        if video.coherency is not None:
            source = video.coherency
            coherency = coherency_modes(
                particle.mask, particle.pixel_size_nm, source.misfit, source.stiffness_GPa, source.energy_density_GPa
            )
        models.append(ParticleModel(particle, mesh, columns, lengths, coherency, tuple(films)))
    return models


@lru_cache(maxsize=1)  # every stage of a search asks for those of its video
def _first_fields(video: ReactionVideo) -> tuple[list[Spectra], float, float]:
    """Spectra of the particles; standard deviation and correlation length (pixels) of the fields of first frames."""
    spectra = [covariance_spectra(np.argwhere(each.mask).astype(np.float64)) for each in video.particles.values()]
    pairs = [
        (half.li_fraction[0], spectrum)
        for each, spectrum in zip(video.particles.values(), spectra, strict=True)
        for half in each.half_cycles
    ]
    fields, own = zip(*pairs, strict=True)
    return spectra, *most_likely_field(fields, own, video.noise)


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
    initial_size : expected size of the initial fields, in units of what their modes say.
    used : for each particle, which of its films are data.
    tasks : who evaluates the films; sums are taken in their order, so that it makes no difference.
    tolerance : error of the composition that a time step may make, as of `react`.
    reactions : by (index, film) the last parameters and their reaction, ready for the derivatives that are asked for
        when a step is accepted; None where they are not kept. With laws of another basis or another tolerance, or for
        another thread, they must be kept anew.
    """

    models: Sequence[ParticleModel]
    basis: LawBasis
    gradient_nm2: float
    noise: float
    rho: float
    initial_size: float
    used: Sequence[Sequence[bool]]
    tasks: TasksOn = in_threads
    tolerance: float = TOLERANCE
    reactions: dict[tuple[int, int], tuple[Parameters, Trajectory]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What another process is sent: there nobody else evaluates films for it."""
        return self.__dict__ | {"tasks": in_turn, "reactions": None}

    @property
    def n_shared(self) -> int:
        """Number of global parameters."""
        return self.basis.size

    def prior(self, model: ParticleModel) -> Float:
        """Weight (n_local,) of the squared parameters of a particle."""
        weights = np.ones(sum(model.sizes))
        weights[: model.sizes[0]] = self.rho / self.noise**2
        for film in range(len(model.films)):
            weights[model.initial_columns(film)] = self.initial_size**-2
        return weights

    def alone(self, index: int) -> Self:
        """The share of one particle, evaluated in one thread."""
        return replace(self, models=[self.models[index]], used=[self.used[index]], tasks=in_turn, reactions={})

    def cost(self, index: int) -> float:
        """Relative time of an evaluation of one particle."""
        return self.models[index].mesh.n_cells * sum(self.used[index])

    def with_priors(self, found: Minimum, *, rho: float, initial_size: float) -> tuple[Self, Minimum]:
        """The problem with other priors, and what was found there as it is under these."""
        problem, value, arrows = replace(self, rho=rho, initial_size=initial_size), found.objective, []
        for model, arrow, local in zip(self.models, found.arrows, found.parameters.local, strict=True):
            more = problem.prior(model) - self.prior(model)
            value += float(more @ local**2) / 2
            gram, gradient = arrow.gram_ll + np.diag(more), arrow.gradient_l + more * local
            arrows.append(replace(arrow, gram_ll=gram, gradient_l=gradient))
        return problem, replace(found, objective=value, arrows=arrows, schur=marginal(arrows))

    def frames(self, index: int, film: int, parameters: Parameters) -> Float:
        """The model of one film, (n_t, n_pixels)."""
        return self._react(index, film, parameters, derivatives=False).frames()

    def all_frames(self, parameters: Parameters) -> list[list[Float]]:
        """The models (n_t, n_pixels) of all films that are data, by particle.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """
        frames: list[list[Float]] = [[] for _ in self.models]
        for (index, _), found in self._of_films("frames", Problem._frames, parameters):
            frames[index].append(found)
        return frames

    def _frames(self, at: tuple[int, int], parameters: Parameters) -> Float:
        return self.frames(*at, parameters)

    def objective(self, parameters: Parameters, below: float = np.inf) -> float:
        """Half the objective; infinite where it is not `below`, or the reaction cannot be followed."""
        total = self._prior_sum(parameters)
        try:
            with closing(self._of_films("misfits", Problem._square, parameters)) as squares:
                for _, square in squares:
                    total += square / 2
                    if total > below:
                        return np.inf
        except ConvergenceError:
            return np.inf
        return total

    def system(self, parameters: Parameters) -> tuple[float, list[Arrow]]:
        """Half the objective and the Gauss-Newton systems of all particles.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """
        total = self._prior_sum(parameters)
        arrows = [self._without_films(index, parameters) for index in range(len(self.models))]
        for (index, film), (square, gram, slope) in self._of_films("systems", Problem._normal_equations, parameters):
            _add_film(arrows[index], self.models[index].columns(film), gram, slope)
            total += square / 2
        return total, arrows

    def _without_films(self, index: int, parameters: Parameters) -> Arrow:
        """The system of a particle that its prior makes alone."""
        n, local, prior = self.basis.size, parameters.local[index], self.prior(self.models[index])
        return Arrow(np.zeros((n, n)), np.zeros((n, len(local))), np.diag(prior), np.zeros(n), prior * local)

    def turned(self, parameters: Parameters, arrows: Sequence[Arrow]) -> tuple[float, list[Arrow]]:
        """Half the objective and the given systems with the gradients at these parameters, from adjoints.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """
        total = self._prior_sum(parameters)
        turned = [
            replace(arrow, gradient_g=np.zeros(self.basis.size), gradient_l=self.prior(model) * local)
            for arrow, model, local in zip(arrows, self.models, parameters.local, strict=True)
        ]
        for (index, film), (square, slope) in self._of_films("gradients", Problem._gradient, parameters):
            turned[index].gradient_g[...] += slope[: self.basis.size]
            turned[index].gradient_l[self.models[index].columns(film)] += slope[self.basis.size :]
            total += square / 2
        return total, turned

    def volume_gradient(self, index: int, parameters: Parameters) -> tuple[Arrow, Float, Float]:
        """The system of one particle, and the gradient of half ln det gram_ll, shared and local; in one thread.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        LinAlgError : linear systems cannot be solved.
        """
        model, arrow = self.models[index], self._without_films(index, parameters)
        films = [film for film, taken in enumerate(self.used[index]) if taken]
        linear = {film: self._linearised((index, film), parameters) for film in films}
        for film, (_, misfit, jacobian) in linear.items():
            _add_film(arrow, model.columns(film), jacobian.T @ jacobian, jacobian.T @ misfit)
        inverse = linalg.inv(arrow.gram_ll)
        shared, local = np.zeros(self.basis.size), np.zeros(sum(model.sizes))
        for film, (trajectory, _, jacobian) in linear.items():
            slope = self._volume_gradient((index, film), trajectory, jacobian, inverse)
            shared += slope[: self.basis.size]
            local[model.columns(film)] += slope[self.basis.size :]
        return arrow, shared, local

    def _of_films(
        self,
        description: str,
        evaluate: Callable[..., Result],
        parameters: Parameters,
    ) -> Generator[tuple[tuple[int, int], Result], None, None]:
        """Yield (index, film) and evaluate(problem, (index, film), parameters) of all films that are data.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """

        def cost(at: tuple[int, int]) -> float:
            return self.models[at[0]].mesh.n_cells

        films = [(index, film) for index, used in enumerate(self.used) for film, taken in enumerate(used) if taken]
        films.sort(key=cost, reverse=True)  # the costliest first; the sort is stable
        function = partial(evaluate, parameters=parameters)
        with closing(self.tasks(description, function, self, films, cost)) as all:
            for at, result in zip(films, all, strict=True):
                if isinstance(result, np.linalg.LinAlgError):
                    what = f"derivatives of film {at}"
                    raise ConvergenceError(what, iterations=0, residual=1.0, tolerance=self.tolerance) from result
                if isinstance(result, Exception):
                    raise result
                yield at, result

    def _square(self, at: tuple[int, int], parameters: Parameters) -> float:
        """Squared misfit."""
        return float(np.sum(self.misfit(*at, parameters) ** 2))

    def _gradient(self, at: tuple[int, int], parameters: Parameters) -> tuple[float, Float]:
        """Squared misfit and J^T misfit, in the order of `_normal_equations`."""
        index, film = at
        half = self.models[index].films[film].half_cycle
        trajectory = self._react(index, film, parameters, derivatives=True)
        misfit = (trajectory.frames() - half.li_fraction) / self.noise
        gradient = trajectory.adjoint(misfit / self.noise, tolerance=_ADJOINT_TOLERANCE)
        return float(np.sum(misfit**2)), self._along_parameters(at, trajectory.states[0], gradient)

    def _along_parameters(self, at: tuple[int, int], c0: Float, gradient: Sequence[Float]) -> Float:
        """With respect to the parameters, from a gradient as `Trajectory.adjoint` gives it."""
        index, film = at
        model, (mu, log_j0, log_k, initial, rate) = self.models[index], gradient
        half = model.films[film]
        parts = [
            self.basis.mu_modes.T @ mu,
            log_j0,
            model.log_k_modes.T @ log_k,
            half.initial_modes.T @ (c0 * (1 - c0) * initial),
            half.rate_modes.T @ rate,
        ]
        return np.concatenate(parts)

    def _prior_sum(self, parameters: Parameters) -> float:
        pairs = zip(self.models, parameters.local, strict=True)
        return sum(float(self.prior(model) @ local**2) / 2 for model, local in pairs)

    def misfit(self, index: int, film: int, parameters: Parameters) -> Float:
        """Model less data of one film over the noise, (n_t, n_pixels)."""
        data = self.models[index].films[film].half_cycle.li_fraction
        return (self.frames(index, film, parameters) - data) / self.noise

    def _normal_equations(self, at: tuple[int, int], parameters: Parameters) -> tuple[float, Float, Float]:
        """Squared misfit, J^T J and J^T misfit; global parameters first, then those of `ParticleModel.columns`."""
        _, misfit, jacobian = self._linearised(at, parameters)
        return float(misfit @ misfit), jacobian.T @ jacobian, jacobian.T @ misfit

    def _linearised(self, at: tuple[int, int], parameters: Parameters) -> tuple[Trajectory, Float, Float]:
        """The reaction, and of its frames misfit (n_t n_pixels,) and Jacobian J over the noise."""
        index, film = at
        model, n_mu = self.models[index], len(self.basis.mu_start)
        trajectory = self._react(index, film, parameters, derivatives=True)
        misfit = (trajectory.frames() - model.films[film].half_cycle.li_fraction).ravel() / self.noise
        raw = trajectory.sensitivities(*self._own_bases(at, trajectory), threads=False).reshape(misfit.size, -1)
        jacobian = np.hstack([raw[:, :n_mu] @ self.basis.mu_modes, raw[:, n_mu:]]) / self.noise
        return trajectory, misfit, jacobian

    def _own_bases(self, at: tuple[int, int], trajectory: Trajectory) -> tuple[Float, Float, Float]:
        """Directions of ln k, initial composition and mean rate along the parameters of `ParticleModel.columns`."""
        index, film = at
        half, c0 = self.models[index].films[film], trajectory.states[0]
        along_c0 = np.ascontiguousarray((c0 * (1 - c0))[:, None] * half.initial_modes)
        return self.models[index].log_k_modes, along_c0, half.rate_modes

    def _volume_gradient(self, at: tuple[int, int], trajectory: Trajectory, jacobian: Float, inverse: Float) -> Float:
        """Gradient of the particle's half ln det H_ll by way of the Jacobian J of this film's frames.

        That of sum(W * J_l) with W = J_l H_ll^-1 held.
        """
        index, film = at
        model = self.models[index]
        own, frames = model.columns(film), model.films[film].half_cycle.li_fraction.shape
        weights = jacobian[:, self.basis.size :] @ (inverse[np.ix_(own, own)] / self.noise)
        weights = weights.reshape(*frames, len(own))
        bases, c0 = self._own_bases(at, trajectory), trajectory.states[0]
        mu, log_j0, log_k, initial, rate, along_initial = trajectory.adjoint_of_sensitivities(
            weights, *bases, tolerance=_VOLUME_TOLERANCE
        )
        # The directions of c0 turn with it: d c0 (1 - c0) = (1 - 2 c0) dc0.
        initial += (1 - 2 * c0) * np.sum(along_initial * model.films[film].initial_modes, axis=1)
        return self._along_parameters(at, c0, (mu, log_j0, log_k, initial, rate))

    def _react(self, index: int, film: int, parameters: Parameters, *, derivatives: bool) -> Trajectory:
        if self.reactions is None:
            return self._follow(index, film, parameters, derivatives=derivatives)
        of, reaction = self.reactions.pop((index, film), (None, None))
        if reaction is None or of is not parameters:
            reaction = None  # the next one needs its memory
            reaction = self._follow(index, film, parameters, derivatives=True)
        self.reactions[index, film] = parameters, reaction
        return reaction

    def _follow(self, index: int, film: int, parameters: Parameters, *, derivatives: bool) -> Trajectory:
        model = self.models[index]
        parts = model.split(parameters.local[index])
        half = model.films[film]
        longest = min(_MOST_STEPS, _MOST_STEPS_A_FRAME * (len(half.half_cycle.time_h) - 1))
        return react(
            model.mesh,
            self.basis.law(parameters.shared),
            model.log_k_modes @ parts[0],
            half.initial(parts[1 + film]),
            half.half_cycle.time_h,
            half.rate(parts[1 + film]),
            gradient_nm2=self.gradient_nm2,
            edge=half.edge,
            coherency=model.coherency,
            tolerance=self.tolerance,
            most_steps=int(longest * np.sqrt(_STEPS_TOLERANCE / self.tolerance)),
            derivatives=derivatives,
        )


def _add_film(arrow: Arrow, own: Int, gram: Float, slope: Float) -> None:
    """Add the normal equations of a film whose local parameters are these of the particle's."""
    n = len(arrow.gradient_g)
    arrow.gram_gg[...] += gram[:n, :n]
    arrow.gram_gl[:, own] += gram[:n, n:]
    arrow.gram_ll[np.ix_(own, own)] += gram[n:, n:]
    arrow.gradient_g[...] += slope[:n]
    arrow.gradient_l[own] += slope[n:]


def with_modes_of(models: Sequence[ParticleModel], others: Sequence[ParticleModel], given: Parameters) -> Parameters:
    """Parameters of models with other modes on the same cells, those that come closest to the fields given."""
    local = []
    for model, other, own in zip(models, others, given.local, strict=True):
        log_k, *fields = other.split(own)
        parts = [model.closest_log_k(other.log_k_modes @ log_k)]
        for film, before, z in zip(model.films, other.films, fields, strict=True):
            n = before.initial_modes.shape[1]
            initial = z[:n]
            if model.lengths.initial_px != other.lengths.initial_px:
                initial = linalg.lstsq(film.initial_modes, before.initial_modes @ initial, cond=_DEPENDENT)[0]
            parts += [initial, z[n:]]
        local.append(np.concatenate(parts))
    return Parameters(given.shared, tuple(local))


def starting_parameters(problem: Problem) -> Parameters:
    """Uniform k, the initial fields of the first frames, and the constant exchange current that fits best."""
    local = first_guesses(problem)
    films = [film for model in problem.models for film in model.films]
    mean_rate = np.mean([np.abs(film.rate_modes @ film.rate_guess).mean() for film in films])
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


def first_guesses(problem: Problem) -> tuple[Float, ...]:
    """Local parameters of uniform k and the initial fields of the first frames."""
    return tuple(
        np.concatenate([np.zeros(model.sizes[0]), *(from_first_frame(film, model) for film in model.films)])
        for model in problem.models
    )


def from_first_frame(film: Film, model: ParticleModel) -> Float:
    """z that makes about the field of the first frame and the rate of the means of all."""
    field = logit(np.clip(film.initial_guess, *_GUESS_RANGE))[model.mesh.pixel]
    return _closest(film, field)


def _closest(film: Film, field: Float) -> Float:
    """Most probable z given logit c0 (n_cells,) with an error of its own; rates of the means of the frames."""
    modes = film.initial_modes / _JOIN_ERROR
    system = np.eye(modes.shape[1]) + modes.T @ modes
    initial = linalg.solve(system, modes.T @ (field - film.initial_logit) / _JOIN_ERROR, assume_a="pos")
    return np.concatenate([initial, film.rate_guess])


def joined(pieces: Problem, whole: Problem, parameters: Parameters) -> Parameters:
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
            field = logit(cut.films[first].initial(parts[1 + first]))
            joined.append(_closest(film, field))
        local.append(np.concatenate(joined))
    return Parameters(parameters.shared, tuple(local))
