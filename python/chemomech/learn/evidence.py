"""The most probable laws with the parameters of the particles integrated out, and how large those are to be expected.

The most probable values of all parameters together are biased where each particle brings hundreds of its own (Neyman &
Scott 1948): a law under which the data determine ln k and the initial fields sharply leaves them little room, and looks
no worse for it. Laplace's approximation of the integral over the local parameters adds what is missing to half the
objective, the volume half ln det H_ll of each particle (Tierney & Kadane 1986). Here its slope stands for it, evaluated
anew until that no longer moves the laws; adjoints bring it at the price of a few Gauss-Newton systems. The sizes of the
priors are those under which the local parameters found, with their uncertainty, are most likely (MacKay 1992).
"""

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from scipy import linalg

from chemomech.arrays import Float, Int
from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import Arrow, Minimum, Parameters, reduced_gradient
from chemomech.learn.profile import Pull, Separable, evaluated, minimise_profile
from chemomech.learn.random_field import field_modes, log_prior_of_length
from chemomech.learn.reaction_model import INITIAL_KEEP, LOG_K_KEEP, ParticleModel, Problem
from chemomech.tasks import Unfinished, successes

log = logging.getLogger(__name__)

UNSETTLED = "the laws had not settled"
UNKNOWN = "derivatives at the last place cannot be had"
#: Distance of the shared parameters, in standard deviations of what one particle says, that asks for no other round (a
#: Gauss-Newton step without a bend leaves a sixth of it), and how many rounds there may be.
_SETTLED, _MOST_ROUNDS = 1.0, 6
#: How far, in the same measure, the first model of the volume may carry the shared parameters.
_LONGEST = 4.0
#: Longest slope of a particle's volume, in standard deviations of what a particle says, that is believed of a cheaper
#: problem: on cells on which it has not been followed before a reaction can stand at a cliff.
_CREDIBLE = 20.0
#: Least bend of the first model of the volume, in units of the objective's; of a later one, in those of the one before.
_FIRST_BEND, _LEAST_BEND = 0.2, 0.02
#: Correlation lengths tried, pixels, of which fields of the shortest make up all others: of ln k (the shortest
#: correlates neighbours by 0.14, as good as none), and of the initial fields, with all those tried of first frames.
LOG_K_LENGTHS_PX = (0.5, 0.7, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0)
INITIAL_LENGTHS_PX = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0, 6.0)
#: And regularisations of ln k, and sizes of the initial fields.
_RHOS, _SIZES = np.geomspace(1e-3, 1.0, 13), np.geomspace(0.25, 4.0, 13)
#: Evidence, ln of probabilities, for which a length is changed: less is not worth other rounds.
_LIKELIER = 5.0
#: What the regularisation of ln k and the size of the initial fields may become.
_RHO_RANGE, _SIZE_RANGE = (1e-4, 10.0), (0.1, 10.0)


class Integrable(Separable, Protocol):
    """An objective of which the volume's slopes are known."""

    def volume_gradient(self, index: int, parameters: Parameters) -> tuple[Arrow, Float, Float]:
        """The system of one particle, and the gradient of half ln det gram_ll, shared and local; in one thread.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """


P = TypeVar("P", bound=Integrable)


def marginal_mode(
    problem: P,
    found: Minimum,
    *,
    cheaper: Callable[[P], Integrable] | None = None,
    resized: Callable[[P, Minimum], tuple[P, Minimum]] | None = None,
    foreseen: Pull | None = None,
    what: str = "",
    unfinished: Unfinished | None = None,
) -> tuple[P, Minimum, Pull]:
    """The most probable shared parameters with the local ones integrated out, the local ones most probable given them.

    In each round the slopes of the volume are evaluated, and the objective with a model of the volume added is
    minimised. The model's bend begins with a part of the objective's, so that steps stay short of what is not known,
    and learns from the slopes of round after round (BFGS); or the first round is that of a model foreseen. They begin
    near the films, but not at the minimum of the objective alone: the laws that it favours can be far away.

    Parameters
    ----------
    found : where to begin.
    cheaper : gives what slopes of the volume are taken of in place of a problem, at less cost; where it cannot be
        followed, particle by particle, they are those of the problem.
    resized : the problem with the priors that a minimum makes most likely, and the minimum under these; called before
        and after each search.
    foreseen : what the volume is expected to be.
    what, unfinished : as of `minimise`; rounds are kept under names of their own, if `what` is given.

    Returns
    -------
    problem : with its last priors.
    found : the last minimum, its systems those of the problem alone; its reason is UNSETTLED where the rounds ended
        before the slopes had settled.
    volume : the model of the volume there; where a foreseen one has ended the search at once its bend is that foreseen.

    Raises
    ------
    ConvergenceError : a reaction cannot be followed.
    """
    if not what:
        unfinished = None

    def slopes_at(found: Minimum, name: str) -> Float:
        return credible_slopes(problem, cheaper and cheaper(problem), found, f"{what}, {name}, slopes", unfinished)

    if resized:
        problem, found = resized(problem, found)
    if foreseen:
        change = foreseen.bend @ (found.parameters.shared - foreseen.centre) / len(found.arrows)
        volume = _first_model(found, foreseen.slopes + change, foreseen.bend)
    else:
        volume = _first_model(found, slopes_at(found, "start"), _FIRST_BEND * found.schur)
    for number in range(1, _MOST_ROUNDS + 1):
        round_of = f"{what}, round {number}" if what else ""
        # Half of the distance that is allowed, as a decrease along what the volume bends most.
        stiffest = float(linalg.eigvalsh(volume.bend, found.schur)[-1])
        least = len(found.arrows) * (_SETTLED / 2) ** 2 / 2 / (1 + stiffest)
        found = minimise_profile(problem, found, volume, least=least, what=round_of, unfinished=unfinished)
        slopes = slopes_at(found, f"round {number}")
        centre, slope = found.parameters.shared, slopes.sum(axis=0)
        if resized:
            problem, found = resized(problem, found)
        left = distance(found, slope + reduced_gradient(found.arrows))
        if left < _SETTLED or number == _MOST_ROUNDS:  # as matrices of other places say
            try:
                found = evaluated(problem, found)
                left = distance(found, slope + reduced_gradient(found.arrows))
            except ConvergenceError as error:
                log.info("%s: %s", round_of, error)
                found = replace(found, reason=UNKNOWN)
        if what:
            log.info("%s: laws off by about %.2g standard deviations of a particle", round_of, left)
        if number == 1 and foreseen:  # slopes of other particles: what these lack is no bend
            volume = _first_model(found, slopes, foreseen.bend)
        else:
            bend = _updated(volume.bend, centre - volume.centre, slope - volume.slopes.sum(axis=0))
            volume = Pull(centre, slopes, bend)
        if left < _SETTLED:
            return problem, found, volume
    return problem, replace(found, reason=UNSETTLED), volume


def _first_model(found: Minimum, slopes: Float, bend: Float) -> Pull:
    """Of the volume, bent more where it would carry the shared parameters too far."""
    more = max(distance(found, slopes.sum(axis=0)) / _LONGEST - 1 - _FIRST_BEND, 0)
    return Pull(found.parameters.shared, slopes, bend + more * found.schur)


def distance(found: Minimum, slope: Float) -> float:
    """Length of the Gauss-Newton step that a slope (n,) of the shared parameters asks for.

    In standard deviations of what one particle says: how far the step can be trusted does not depend on how many say
    where to go.
    """
    return float(np.sqrt(slope @ linalg.solve(found.schur, slope, assume_a="pos") / len(found.arrows)))


def credible_slopes(
    problem: Integrable,
    cheaper: Integrable | None,
    found: Minimum,
    name: str,
    unfinished: Unfinished | None,
) -> Float:
    """Slopes (particles, n) of the volume, of a cheaper problem but for particles that it cannot follow there.

    Raises
    ------
    ConvergenceError : the problem itself cannot follow one of them.
    """
    kept = unfinished.find(name) if unfinished else None
    if kept is not None:
        return np.asarray(kept)
    parameters, slopes = found.parameters, np.zeros((len(found.arrows), problem.n_shared))
    left = sorted(range(len(slopes)), key=problem.cost, reverse=True)  # the costliest first
    if cheaper:
        square = np.full(len(slopes), np.inf)
        for index, own in zip(left, volume_slopes(cheaper, parameters, left), strict=True):
            if isinstance(own, ConvergenceError):
                log.info("%s: particle %d: %s", name, index, own)
            elif isinstance(own, Exception):
                raise own
            else:
                slopes[index] = own
                square[index] = len(slopes) * own @ linalg.solve(found.schur, own, assume_a="pos")
        left = [index for index in left if square[index] > _CREDIBLE**2]
        if left:
            log.info("%s: of the problem itself for %d particles", name, len(left))
    for index, own in zip(left, successes(volume_slopes(problem, parameters, left)), strict=True):
        slopes[index] = own
    if unfinished:
        unfinished.keep(name, slopes)
    return slopes


def _updated(bend: Float, change: Float, turn: Float) -> Float:
    """The matrix that takes the change to the turn of the slope where that is uphill, hardly anywhere else (BFGS)."""
    along = bend @ change
    full = float(change @ along)
    if full <= 0:  # nothing has moved
        return bend
    short = float(change @ turn)
    if short < _LEAST_BEND * full:  # the volume bends down, and its model is next to flat
        short, turn = _LEAST_BEND * full, _LEAST_BEND * along
    return np.asarray(bend - np.outer(along, along) / full + np.outer(turn, turn) / short)


def volume_slopes(
    problem: Integrable, parameters: Parameters, particles: Sequence[int]
) -> Generator[Float | Exception, None, None]:
    """Yield the slope (n,) of half ln det H_ll of each particle along the shared parameters, the local ones following.

    With systems of the problem's own: directions that those of another leave open would count for too much. Where a
    particle cannot be followed it is the error.
    """
    evaluate = partial(_volume_slope, parameters=parameters)
    return problem.tasks("slopes of the volume", evaluate, problem, particles, problem.cost)


def _volume_slope(problem: Integrable, index: int, *, parameters: Parameters) -> Float:
    try:
        arrow, shared, local = problem.volume_gradient(index, parameters)
        return np.asarray(shared - arrow.gram_gl @ linalg.solve(arrow.gram_ll, local, assume_a="pos"))
    except np.linalg.LinAlgError as error:
        raise ConvergenceError(f"particle {index}", iterations=0, residual=1.0, tolerance=0.0) from error


def most_likely_log_k_length(problem: Problem, parameters: Parameters) -> float:
    """Correlation length of ln k, pixels, under which the frames are most likely.

    The laws are held. About the parameters the misfit is quadratic in ln k, the initial fields and rates eliminated;
    the integral over fields of each length and size is then known (Laplace). Fields are those of the modes that a fit
    uses: where frames show what these leave out a shorter length, with more of them, is the likelier one.

    Parameters
    ----------
    problem : with modes of ln k of the shortest length tried.

    Raises
    ------
    ConvergenceError : a reaction cannot be followed.
    """
    evidence = _evidence(problem, parameters, "ln k", LOG_K_LENGTHS_PX, _of_log_k, _RHOS / problem.noise**2)
    return max(evidence, key=evidence.__getitem__)


def likelier_initial_length(problem: Problem, parameters: Parameters, known: float, *, stand_for: float = 1.0) -> float:
    """Correlation length of the initial fields, pixels, under which the frames are most likely, or the known one.

    As for ln k, which is eliminated. That of ln k is seen by every frame; this one may not be, and has a prior. Where
    the reaction is unstable the fields grow, and later frames know them far better than the first one, noisy as it is.
    Under laws that are not yet right they make up for what these do wrong, and are too short.

    Parameters
    ----------
    problem : with initial fields of the shortest length tried.
    known : one of `INITIAL_LENGTHS_PX`, kept where another would not be much likelier.
    stand_for : how many particles each of these stands for: what a length is worth grows with them.

    Raises
    ------
    ConvergenceError : a reaction cannot be followed.
    """
    evidence = _evidence(problem, parameters, "initial fields", INITIAL_LENGTHS_PX, _of_initial_fields, _SIZES**-2)
    evidence = {length: stand_for * of_frames + log_prior_of_length(length) for length, of_frames in evidence.items()}
    best = max(evidence, key=evidence.__getitem__)
    return best if evidence[best] > evidence[known] + _LIKELIER else known


#: Places of the parameters of a field among those of a particle, and a function of a length that gives those (n, m)
#: that make up the modes of fields of that length.
_Family = tuple[Int, Callable[[float], Float]]


def _of_log_k(model: ParticleModel) -> _Family:
    def modes(length: float) -> Float:
        field = field_modes(model.mesh.pixel_position_px, length, LOG_K_KEEP).pixels
        return model.closest_log_k(np.column_stack([np.ones(len(field)), field]))

    return np.arange(model.sizes[0]), modes


def _of_initial_fields(model: ParticleModel) -> _Family:
    films, position = range(len(model.films)), model.mesh.pixel_position_px
    own = field_modes(position, model.lengths.initial_px, INITIAL_KEEP)

    def modes(length: float) -> Float:
        field = field_modes(position, length, INITIAL_KEEP).pixels
        one = own.eigenvectors.T @ field / np.sqrt(own.eigenvalues)[:, None]
        return np.asarray(linalg.block_diag(*[one for _ in films]))

    return np.concatenate([model.initial_columns(film) for film in films]), modes


def _evidence(
    problem: Problem,
    parameters: Parameters,
    name: str,
    lengths: Sequence[float],
    family: Callable[[ParticleModel], _Family],
    weights: Float,
) -> dict[float, float]:
    """What the frames say of lengths of a family of fields, ln of probabilities, with the best weight for squares."""
    evaluate = partial(
        _particle_evidence,
        arrows=problem.system(parameters)[1],
        local=parameters.local,
        lengths=lengths,
        family=family,
        weights=weights,
    )
    particles = range(len(problem.models))
    sizes = [sum(model.sizes) for model in problem.models]
    results = problem.tasks(f"correlation lengths of {name}", evaluate, problem, particles, sizes.__getitem__)
    best = np.sum(list(successes(results)), axis=0).max(axis=1)
    log.info(
        "evidence of correlation lengths of %s: %s",
        name,
        ", ".join(f"{a:g} px {b - best.max():.1f}" for a, b in zip(lengths, best, strict=True)),
    )
    return dict(zip(lengths, best.tolist(), strict=True))


def _particle_evidence(
    problem: Problem,
    index: int,
    arrows: Sequence[Arrow],
    local: Sequence[Float],
    lengths: Sequence[float],
    family: Callable[[ParticleModel], _Family],
    weights: Float,
) -> Float:
    """What one particle says of lengths and weights (lengths, weights), ln of probabilities."""
    model, arrow = problem.models[index], arrows[index]
    own, modes = family(model)
    rest = np.setdiff1d(np.arange(sum(model.sizes)), own)
    values, prior = local[index][own], problem.prior(model)[own]
    across = arrow.gram_ll[np.ix_(rest, own)]
    towards = linalg.solve(arrow.gram_ll[np.ix_(rest, rest)], across, assume_a="pos")
    gram = arrow.gram_ll[np.ix_(own, own)] - np.diag(prior) - across.T @ towards
    slope = arrow.gradient_l[own] - prior * values - towards.T @ arrow.gradient_l[rest]
    pull = gram @ values - slope
    evidence = np.zeros((len(lengths), len(weights)))
    for i, length in enumerate(lengths):
        change = modes(length)
        curvature, vectors = linalg.eigh(change.T @ gram @ change)
        curvature = np.maximum(curvature, 0)[:, None]  # what the frames do not see is rounding
        square = (vectors.T @ (change.T @ pull))[:, None] ** 2
        evidence[i] = np.sum(square / (curvature + weights) - np.log1p(curvature / weights), axis=0) / 2
    return evidence


def most_likely_sizes(problem: Problem, found: Minimum) -> tuple[float, float]:
    """Regularisation rho of ln k, and size of the initial fields in units of what their modes say.

    MacKay's fixed point: the variance of a coefficient is the sum of squares of those found over the number of them
    that the data determine. It uses the half-cycles of all particles at once and costs nothing beside the fit.
    """
    shared = linalg.inv(found.schur)
    determined, squares = np.zeros(2), np.zeros(2)
    for model, arrow, local in zip(problem.models, found.arrows, found.parameters.local, strict=True):
        solved = linalg.inv(arrow.gram_ll)
        towards = solved @ arrow.gram_gl.T
        variance = np.diag(solved) + np.einsum("ij,jk,ik->i", towards, shared, towards)
        known = 1 - problem.prior(model) * variance
        initial = np.concatenate([model.initial_columns(film) for film in range(len(model.films))])
        for i, columns in enumerate((np.arange(model.sizes[0]), initial)):
            determined[i] += known[columns].sum()
            squares[i] += local[columns] @ local[columns]
    variances = squares / np.maximum(determined, 1.0)
    rho, size = problem.noise**2 / variances[0], np.sqrt(variances[1])
    return float(np.clip(rho, *_RHO_RANGE)), float(np.clip(size, *_SIZE_RANGE))
