"""Search over the shared parameters, every particle at the minimum of its own under each of them.

With the shared parameters held, particles have nothing to do with each other. Each settles on its own, with matrices of
its own for as long as they foresee what steps do: a film that is hard to follow holds up its particle, not all others.
What is left is a sum of few parameters whose gradient and Gauss-Newton matrix elimination gives (variable projection,
Golub & Pereyra 1973).
"""

import logging
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self

import numpy as np
from scipy import linalg

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import (
    CONVERGED,
    GOOD_GAIN,
    JUMP,
    LEAST_DECREASE,
    MOST_ITERATIONS,
    STALLED,
    Arrow,
    Minimum,
    Objective,
    Outlook,
    Parameters,
    expected_decrease,
    marginal,
    minimise,
    reduced_gradient,
)
from chemomech.tasks import TasksOn, Unfinished, successes

log = logging.getLogger(__name__)

#: Parts of a step that are tried, until one lowers the sum.
_PARTS = (1.0, 0.3, 0.1, 0.03)
#: Relative decrease that a particle may still promise where a search begins, or that has only to lead into the valley.
ROUGH_DECREASE = 5e-3
#: Share of the mean expected decrease of a step, or of that at which a search ends, that a particle may still promise
#: after it.
_SETTLED = 0.1
#: Share of the expected decrease that a step must reach to be taken.
_LEAST_GAIN = 1e-3
#: Expected decrease, that of a standard deviation, below which a search ends where steps do not halve it: what is left
#: depends on where in their valleys particles have come to rest.
_RESTLESS = 0.5


class Separable(Objective, Protocol):
    """An objective that is the sum of those of particles."""

    @property
    def tasks(self) -> TasksOn:
        """Who evaluates particles."""

    def alone(self, index: int) -> Self:
        """The share of one particle, evaluated in one thread."""

    def cost(self, index: int) -> float:
        """Relative time of an evaluation of one particle."""


@dataclass(frozen=True, eq=False)
class Pull:
    """What is added to an objective, quadratic in the shared parameters.

    Attributes
    ----------
    centre : (n,) shared parameters about which it is known.
    slopes : (particles, n), what each particle contributes to the slope there.
    bend : (n, n) second derivatives of the sum.
    """

    centre: Float
    slopes: Float
    bend: Float

    def value(self, shared: Float) -> float:
        """The sum; zero at the centre."""
        change = shared - self.centre
        return float(self.slopes.sum(axis=0) @ change + change @ self.bend @ change / 2)

    def added_to(self, shared: Float, arrows: Sequence[Arrow]) -> list[Arrow]:
        """Systems with the slopes added to the gradients; the bend is left out."""
        turn = self.bend @ (shared - self.centre) / len(arrows)
        return [
            replace(arrow, gradient_g=arrow.gradient_g + own + turn)
            for arrow, own in zip(arrows, self.slopes, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Settled:
    """One particle at its own minimum.

    Attributes
    ----------
    arrow : gradients are those there, the matrices those of a place on the way there.
    iterations : steps taken.
    age : steps for which the matrices have been kept.
    """

    local: Float
    objective: float
    arrow: Arrow
    reason: str
    iterations: int
    age: int


def settle(
    problem: Separable,
    parameters: Parameters,
    arrows: Sequence[Arrow] | None = None,
    foreseen: Sequence[float] | None = None,
    *,
    surprise: float = np.inf,
    below: float = np.inf,
    least: float = LEAST_DECREASE,
    least_decrease: float = 0.0,
    what: str = "particles, laws held",
    unfinished: Unfinished | None = None,
) -> list[Settled]:
    """Every particle at the minimum of its own, the shared parameters held.

    Parameters
    ----------
    arrows : matrices to begin with; None to evaluate them.
    foreseen, surprise : of each particle half the sum that is expected, and by how much it may be missed until the
        matrices are evaluated anew at the minimum.
    below : given up where half the sum is no smaller.
    least, least_decrease : expected decrease, and relative one, below which a particle has settled; `LEAST_DECREASE` is
        enough.
    what, unfinished : each particle is kept under the name `what`.

    Raises
    ------
    ConvergenceError : a particle cannot be evaluated, or the sum is not below what was asked for.
    """
    order = sorted(range(len(parameters.local)), key=problem.cost, reverse=True)
    evaluate = partial(
        _settle,
        shared=parameters.shared,
        surprise=surprise,
        least=least,
        least_decrease=least_decrease,
        name=what,
        unfinished=unfinished,
    )
    items = [
        (index, parameters.local[index], arrows[index] if arrows else None, foreseen[index] if foreseen else 0.0)
        for index in order
    ]
    found, total = {}, 0.0
    with closing(successes(problem.tasks(what, evaluate, problem, items, lambda item: problem.cost(item[0])))) as all:
        for index, own in zip(order, all, strict=True):
            found[index] = own
            total += own.objective
            if total >= below:
                raise ConvergenceError(what, iterations=own.iterations, residual=total, tolerance=below)
    return [found[index] for index in range(len(order))]


def _settle(
    problem: Separable,
    item: tuple[int, Float, Arrow | None, float],
    *,
    shared: Float,
    surprise: float,
    least: float,
    least_decrease: float,
    name: str,
    unfinished: Unfinished | None,
) -> Settled:
    index, local, arrow, foreseen = item
    name = f"{name}, particle {index}"
    found: Settled | None = unfinished.find(name) if unfinished else None
    if found is None:
        own = problem.alone(index)
        try:
            at = minimise(
                own,
                Parameters(shared, (local,)),
                arrows=[arrow] if arrow else None,
                free=np.zeros(len(shared), dtype=bool),
                least=least,
                least_decrease=least_decrease,
                own_matrices=False,
            )
        except np.linalg.LinAlgError as error:
            raise ConvergenceError(name, iterations=0, residual=1.0, tolerance=least) from error
        if at.age > 0 and abs(at.objective - foreseen) > surprise:
            with suppress(ConvergenceError):  # derivatives may not be had where gradients can
                at = evaluated(own, at)
        found = Settled(at.parameters.local[0], at.objective, at.arrows[0], at.reason, at.iterations, at.age)
        if unfinished:
            unfinished.keep(name, found)
    return found


def together(shared: Float, particles: Sequence[Settled]) -> Minimum:
    """All particles as one minimum under held shared parameters."""
    arrows = [each.arrow for each in particles]
    return Minimum(
        parameters=Parameters(shared, tuple(each.local for each in particles)),
        objective=sum(each.objective for each in particles),
        reason=next((each.reason for each in particles if each.reason != CONVERGED), CONVERGED),
        iterations=max(each.iterations for each in particles),
        arrows=arrows,
        schur=marginal(arrows),
        age=max(each.age for each in particles),
    )


@dataclass(frozen=True, eq=False)
class _Profile:
    """A search after an accepted step: all that the next steps depend on.

    Attributes
    ----------
    promised : expected decrease of the last step.
    rough : whether particles may promise as much as where a search begins.
    reason : why the search ended; empty while it goes on.
    """

    shared: Float
    particles: list[Settled]
    iterations: int = 0
    promised: float = np.inf
    rough: bool = True
    reason: str = ""


def minimise_profile(
    problem: Separable,
    found: Minimum,
    pull: Pull,
    *,
    least: float,
    what: str = "",
    unfinished: Unfinished | None = None,
) -> Minimum:
    """The minimum of an objective and what is added to it.

    The search ends where little is expected, or less than a standard deviation that steps do not lessen; or, the
    matrices evaluated anew, after a step that promised less than what the objective jumps by as time steps change, and
    did no good.

    Parameters
    ----------
    found : where to begin, and matrices to begin with.
    least : expected decrease of half the sum below which the search ends.
    what : what is fitted, to log every iteration under this name; silent without.
    unfinished : keeps every accepted iterate under the name `what`; the search goes on from one that it has.

    Returns
    -------
    Its objective and its systems are those of the problem alone, the matrices those of places on the way.

    Raises
    ------
    ConvergenceError : a particle cannot be evaluated at the start.
    """
    at: _Profile | None = unfinished.find(what) if unfinished else None
    if at is None:
        begin = f"{what}, start"
        particles = settle(
            problem, found.parameters, found.arrows, least_decrease=ROUGH_DECREASE, what=begin, unfinished=unfinished
        )
        at = _Profile(found.parameters.shared, particles)
    if not at.reason:
        with Outlook(what) as outlook:
            while not at.reason:
                at = _step(problem, at, pull, least, outlook)
                if unfinished:
                    unfinished.keep(what, at)
    return replace(together(at.shared, at.particles), reason=at.reason, iterations=at.iterations)


def _step(problem: Separable, at: _Profile, pull: Pull, least: float, outlook: Outlook) -> _Profile:
    """After a step, or with the reason why there is none."""
    if at.iterations == MOST_ITERATIONS:
        return replace(at, reason="iteration limit")
    found = _line_search(problem, at, pull, least, outlook, forgiving=False)
    if found is None:
        try:
            arrows = evaluated(problem, together(at.shared, at.particles)).arrows
        except ConvergenceError as error:  # derivatives may not be had where gradients can
            log.info("no matrices to go on with: %s", error)
        else:
            own = [replace(each, arrow=arrow, age=0) for each, arrow in zip(at.particles, arrows, strict=True)]
            at = replace(at, particles=own)
            found = _line_search(problem, at, pull, least, outlook, forgiving=True)
    return found or replace(at, reason=STALLED)


def _line_search(
    problem: Separable, at: _Profile, pull: Pull, least: float, outlook: Outlook, *, forgiving: bool
) -> _Profile | None:
    """After a step, as it is where none is asked for, or None where none lowers the sum.

    Parameters
    ----------
    forgiving : the whole step is taken, as the last one, where it was expected to lower the sum by less than what that
        jumps by and raises it by no more.
    """
    now = together(at.shared, at.particles)
    n, jump = len(now.arrows), JUMP * len(now.arrows)
    slope = reduced_gradient(pull.added_to(at.shared, now.arrows))
    full = -linalg.solve(now.schur + pull.bend, slope, assume_a="pos")
    promised = float(-slope @ full) / 2
    if promised < least:
        if not at.rough:
            return replace(at, reason=CONVERGED)
        particles = settle(problem, now.parameters, now.arrows, least=_SETTLED * least / n)
        return replace(at, particles=particles, rough=False)
    if promised < _RESTLESS and promised > at.promised / 2:
        return replace(at, reason=CONVERGED)
    value = now.objective + pull.value(at.shared)
    for part in _PARTS:
        step = part * full
        trial = moved(now, step)
        foreseen = [
            each.objective - expected_decrease([each.arrow], Parameters(step, (local - each.local,)))
            for each, local in zip(at.particles, trial.local, strict=True)
        ]
        expected = value - sum(foreseen) - pull.value(trial.shared)
        small = expected < jump
        allowed = jump if small and forgiving else 0.0
        try:
            particles = settle(
                problem,
                trial,
                now.arrows,
                foreseen,
                surprise=max((1 - GOOD_GAIN) * expected / n, JUMP),
                below=value - _LEAST_GAIN * expected + allowed - pull.value(trial.shared),
                least=_SETTLED * expected / n,
            )
        except ConvergenceError as error:
            log.debug("part %g, expected %.3g: %s", part, expected, error)
            if small:
                break
            continue
        decrease = value - sum(each.objective for each in particles) - pull.value(trial.shared)
        reason = "" if decrease > _LEAST_GAIN * expected else CONVERGED
        how = f"step {part:g} of that foreseen, decrease {decrease:.3g}"
        outlook.show(at.iterations + 1, value - decrease, how, promised, least)
        return _Profile(trial.shared, particles, at.iterations + 1, promised, rough=False, reason=reason)
    return None


def evaluated(problem: Objective, found: Minimum) -> Minimum:
    """With the objective and the systems evaluated there, where matrices are those of another place.

    Raises
    ------
    ConvergenceError : they cannot be.
    """
    if found.age == 0:
        return found
    value, arrows = problem.system(found.parameters)
    return replace(found, objective=value, arrows=arrows, schur=marginal(arrows), age=0)


def moved(found: Minimum, step: Float) -> Parameters:
    """Shared parameters a step away, the local ones at the minimum of the quadratic model there."""
    local = [
        own - linalg.solve(arrow.gram_ll, arrow.gradient_l + arrow.gram_gl.T @ step, assume_a="pos")
        for own, arrow in zip(found.parameters.local, found.arrows, strict=True)
    ]
    return Parameters(found.parameters.shared + step, tuple(local))
