"""Least squares whose Jacobian is an arrow: parameters shared by all particles, and those of each particle alone.

Gauss-Newton steps in a trust region (Levenberg and Marquardt). The parameters of a particle touch its own data only,
are eliminated particle by particle (Schur complement), and leave a small dense system for the shared ones.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from scipy import linalg

from chemomech.arrays import Bool, Float
from chemomech.errors import ConvergenceError
from chemomech.progress import progress_in_time
from chemomech.tasks import Unfinished

log = logging.getLogger(__name__)

MOST_ITERATIONS = 40
CONVERGED = "expected decrease below tolerance"
#: A search ends where half the objective is expected to fall by less than this for each particle, and by no more by the
#: shared parameters: 1/2 is one parameter at one standard error.
LEAST_DECREASE = 0.3
#: By how much half the objective may jump in a last step that promises less, for each particle: time steps change with
#: the parameters.
JUMP = 1.0
STALLED = "no step lowers the objective"
_FIRST_DAMPING = 0.03
#: Share of the expected decrease that a step must reach to be taken.
_LEAST_GAIN = 1e-3
#: Parts of the step without damping that are tried after so many refused ones, or at last: beyond some point a reaction
#: may go another way altogether, and damping, which keeps parameters from moving together, may lead there even sooner.
_PARTS, _STUBBORN = (0.3, 0.1), 2
#: Share above which the quadratic model is good enough to be kept.
GOOD_GAIN = 0.5
#: Accepted steps by which the time left is judged.
_OUTLOOK = 4
_SECONDS_A_MINUTE = 60


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


class Objective(Protocol):
    """Half a sum of squares."""

    @property
    def n_shared(self) -> int:
        """Number of shared parameters."""

    def objective(self, parameters: Parameters, below: float = np.inf) -> float:
        """Half the sum; infinite where it is not `below`, or cannot be evaluated."""

    def system(self, parameters: Parameters) -> tuple[float, list[Arrow]]:
        """Half the sum and the Gauss-Newton systems of all particles, or ConvergenceError."""

    def turned(self, parameters: Parameters, arrows: Sequence[Arrow]) -> tuple[float, list[Arrow]]:
        """Half the sum and the given systems with their gradients replaced by those here, or ConvergenceError."""


def solve_arrow(arrows: Sequence[Arrow], damping: float, free: Bool) -> tuple[Float, list[Float], Float]:
    """Step that minimises the damped quadratic model, and the Schur complement of the global parameters.

    Local parameters are damped by their diagonal of the Gauss-Newton matrix H, global ones by that of what elimination
    leaves of it: their own diagonal in H counts what the local ones can do as well, and would hold them back.

    Parameters
    ----------
    free : (n,) global parameters that may move.
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
    shared = np.zeros(n)
    if free.any():
        moving = (schur + damping * np.diag(np.diag(schur)))[np.ix_(free, free)]
        shared[free] = -linalg.solve(moving, right[free], assume_a="pos")
    return shared, [-towards_r - towards_g @ shared for towards_g, towards_r in eliminated], schur


def marginal(arrows: Sequence[Arrow]) -> Float:
    """Schur complement (n, n) of the shared parameters."""
    return solve_arrow(arrows, 0.0, np.zeros(len(arrows[0].gradient_g), dtype=bool))[2]


def reduced_gradient(arrows: Sequence[Arrow]) -> Float:
    """Slope (n,) along the shared parameters, the local ones at the minimum of the quadratic model."""
    parts = [
        arrow.gradient_g - arrow.gram_gl @ linalg.solve(arrow.gram_ll, arrow.gradient_l, assume_a="pos")
        for arrow in arrows
    ]
    return np.asarray(np.sum(parts, axis=0))


def promised_by_shared(arrows: Sequence[Arrow], free: Bool) -> float:
    """By how much the shared parameters that are free, the local ones following, promise to lower half the sum."""
    shared, _, schur = solve_arrow(arrows, 0.0, free)
    return float(shared @ schur @ shared) / 2


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where a search ended.

    Attributes
    ----------
    objective : half the objective.
    reason : why it ended.
    iterations : Gauss-Newton steps taken.
    arrows : the Gauss-Newton systems, gradients those there.
    schur : (n, n), inverse covariance of the global parameters with the local ones marginalised.
    age : steps for which the matrices of the arrows have been kept.
    """

    parameters: Parameters
    objective: float
    reason: str
    iterations: int
    arrows: list[Arrow]
    schur: Float
    age: int = 0


@dataclass(frozen=True, eq=False)
class Iterate:
    """A search after an accepted step: all that the next steps depend on.

    Attributes
    ----------
    value : half the objective.
    age : steps for which the matrices of the arrows have been kept.
    reason : why the search ended; empty while it goes on.
    """

    parameters: Parameters
    value: float
    arrows: list[Arrow]
    damping: float
    iteration: int
    age: int
    reason: str = ""


def minimise(
    problem: Objective,
    start: Parameters,
    *,
    arrows: Sequence[Arrow] | None = None,
    free: Bool | None = None,
    least_decrease: float = 0.0,
    least: float = LEAST_DECREASE,
    own_matrices: bool = True,
    what: str = "",
    unfinished: Unfinished | None = None,
) -> Minimum:
    """Gauss-Newton with Marquardt's damping, raised and lowered by the gain (Nielsen 1999).

    Where a step did what its quadratic model said, the next ones keep the matrices and take new gradients only, which
    cost a tenth (the chord method). Where damped steps are refused, parts of the undamped one are tried.

    Parameters
    ----------
    arrows : matrices to begin with; None to evaluate them.
    free : (n,) global parameters that may move; None for all.
    least_decrease : expected relative decrease below which the search ends, where that is sooner.
    least : expected decrease of half the sum below which it ends; `LEAST_DECREASE` is enough for each particle.
    own_matrices : whether the matrices at the end are those there; otherwise they are evaluated only where steps ask
        for it, and a last step that promises less than `least` is not taken.
    what : what is fitted, to log every iteration under this name; silent without.
    unfinished : keeps every accepted iterate under the name `what`; the search goes on from one that it has.
    """
    free = np.ones(problem.n_shared, dtype=bool) if free is None else free
    kept = unfinished.find(what) if unfinished else None
    if kept:
        at = kept
    elif arrows is None:
        at = Iterate(start, *problem.system(start), _FIRST_DAMPING, 0, 0)
    else:
        at = Iterate(start, *problem.turned(start, arrows), _FIRST_DAMPING, 0, 1)
    if not at.reason:
        with Outlook(what) as outlook:
            at = _search(problem, at, free, least_decrease, least, own_matrices, outlook, unfinished)
    return Minimum(at.parameters, at.value, at.reason, at.iteration, at.arrows, marginal(at.arrows), at.age)


def _search(
    problem: Objective,
    at: Iterate,
    free: Bool,
    least_decrease: float,
    least: float,
    own_matrices: bool,
    outlook: "Outlook",
    unfinished: Unfinished | None,
) -> Iterate:
    """The last iterate."""
    parameters, value, arrows, damping, iteration, age = (
        at.parameters, at.value, at.arrows, at.damping, at.iteration, at.age,
    )  # fmt: skip
    refusals, reason = 0, "iteration limit"

    def keep(reason: str = "") -> Iterate:
        at = Iterate(parameters, value, arrows, damping, iteration, age, reason)
        if unfinished:
            unfinished.keep(outlook.what, at)
        return at

    while iteration < MOST_ITERATIONS:
        shared, local, schur = solve_arrow(arrows, damping, free)
        whole = Parameters(shared, tuple(local))
        expected, of_shared = expected_decrease(arrows, whole), float(shared @ schur @ shared) / 2
        # A decrease that only damping after refused steps has made small says nothing of a minimum.
        relative = 0.0 if refusals else least_decrease * value
        most_of_shared = max(least, relative)
        end = max(LEAST_DECREASE * len(arrows), most_of_shared)
        small = expected < end and of_shared < most_of_shared
        if small and not refusals and promised_by_shared(arrows, free) > most_of_shared:
            damping /= 5  # what refused steps have left of it hides what the shared parameters promise
            continue
        if small and not refusals and not own_matrices:
            reason = CONVERGED
            break
        steps = [] if small else [whole]
        if refusals == _STUBBORN or (refusals and small):
            shared, local, _ = solve_arrow(arrows, 0.0, free)
            steps += [_scaled(part, Parameters(shared, tuple(local))) for part in _PARTS]
        gain = -np.inf
        for step in steps:
            trial, expected = _sum(parameters, step), expected_decrease(arrows, step)
            gain = (value - problem.objective(trial, below=value)) / expected
            if gain > _LEAST_GAIN:
                break
        if gain > _LEAST_GAIN:
            try:
                if gain > GOOD_GAIN:
                    value, arrows = problem.turned(trial, arrows)
                    age += 1
                else:
                    value, arrows = problem.system(trial)
                    age = 0
            except ConvergenceError:
                gain = -np.inf
        if gain > _LEAST_GAIN:
            iteration += 1
            parameters = trial
            if step is whole:
                damping *= max(1 / 5, 1 - (2 * gain - 1) ** 3) if gain < 1 else 1 / 5
            else:
                damping = _FIRST_DAMPING
            refusals = 0
            keep()
            length = float(np.linalg.norm(np.concatenate([step.shared, *step.local])))
            how = f"step {length:.2g}, gradient {_gradient_norm(arrows, free):.2g}"
            outlook.show(iteration, value, how, expected, end)
        elif age > 0:
            value, arrows = _evaluated(problem, parameters) or (value, arrows)
            age = 0
        elif small:
            reason = STALLED if refusals else CONVERGED
            if not refusals:
                # What the last step promises may be less than the objective jumps by, as time steps change.
                trial = _sum(parameters, whole)
                last = _evaluated(problem, trial)
                if last and last[0] < value + (JUMP * len(arrows) if expected < JUMP * len(arrows) else 0.0):
                    parameters, (value, arrows), age = trial, last, 0
            break
        else:
            refusals += 1
            damping *= 2.0**refusals
    if age > 0 and own_matrices:
        value, arrows = _evaluated(problem, parameters) or (value, arrows)
    return keep(reason)


def _evaluated(problem: Objective, parameters: Parameters) -> tuple[float, list[Arrow]] | None:
    """None where derivatives cannot be had, which steps that only needed the objective or its gradient may come to."""
    try:
        return problem.system(parameters)
    except ConvergenceError:
        return None


class Outlook:
    """Shows where a search stands, and when it may end if the expected decrease goes on falling as it did.

    Parameters
    ----------
    what : what is fitted; silent without.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._bar = progress_in_time(what) if what else None
        self._past: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        self._advance = self._bar.__enter__() if self._bar else None
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar:
            self._bar.__exit__(*error)

    def show(self, iteration: int, value: float, how: str, expected: float, least: float) -> None:
        """After an accepted step that was expected to lower half the objective; the search ends below `least`."""
        if self._advance is None:
            return
        now = time.monotonic()
        self._past.append((now, float(np.log(max(expected / least, 1.0)))))
        text = f"misfit {2 * value:.4g}, {how}"
        left = time_left(self._past[-_OUTLOOK:])
        when = "time left unknown" if left is None else f"about {max(round(left / _SECONDS_A_MINUTE), 1)} min left"
        log.info(
            "%s, step %d: %s, expected decrease %.2g (ends below %.2g), %s",
            self.what, iteration, text, expected, least, when,
        )  # fmt: skip
        first = self._past[0][1]
        self._advance(1 - self._past[-1][1] / first if 0 < self._past[-1][1] < first else 0.0, text)


def time_left(past: Sequence[tuple[float, float]]) -> float | None:
    """Seconds until a quantity that falls reaches zero at its mean rate so far; None where it does not fall.

    Parameters
    ----------
    past : (seconds, quantity), the newest last.

    >>> time_left([(0.0, 6.0), (10.0, 4.0)])
    20.0
    """
    (begin, high), (now, low) = past[0], past[-1]
    return low * (now - begin) / (high - low) if high > low else None


def _gradient_norm(arrows: Sequence[Arrow], free: Bool) -> float:
    """Of half the objective, over the parameters that may move, each in its standard error with the others held."""
    gradient = np.sum([arrow.gradient_g for arrow in arrows], axis=0)[free]
    curvature = np.sum([np.diag(arrow.gram_gg) for arrow in arrows], axis=0)[free]
    parts = [gradient / np.sqrt(curvature), *(arrow.gradient_l / np.sqrt(np.diag(arrow.gram_ll)) for arrow in arrows)]
    return float(np.linalg.norm(np.concatenate(parts)))


def _scaled(part: float, step: Parameters) -> Parameters:
    return Parameters(part * step.shared, tuple(part * own for own in step.local))


def _sum(parameters: Parameters, step: Parameters) -> Parameters:
    local = tuple(a + b for a, b in zip(parameters.local, step.local, strict=True))
    return Parameters(parameters.shared + step.shared, local)


def expected_decrease(arrows: Sequence[Arrow], step: Parameters) -> float:
    total, shared = 0.0, step.shared
    for arrow, own in zip(arrows, step.local, strict=True):
        slope = arrow.gradient_g @ shared + arrow.gradient_l @ own
        bend = shared @ arrow.gram_gg @ shared + 2 * shared @ arrow.gram_gl @ own + own @ arrow.gram_ll @ own
        total -= float(slope + bend / 2)
    return total


def deviation(found: Minimum, along_shared: Float, along_local: Sequence[Float]) -> Float:
    """Posterior standard deviation (n,) of along_shared @ shared + sum of along_local @ local.

    Parameters
    ----------
    along_shared : (n, n_shared).
    along_local : for each particle (n, n_local), or (n_local,) where it is the same for all n.
    """
    remaining, variance = along_shared.copy(), np.zeros(len(along_shared))
    for arrow, along in zip(found.arrows, along_local, strict=True):
        rows = np.atleast_2d(along)
        solved = linalg.solve(arrow.gram_ll, rows.T, assume_a="pos")
        variance += np.einsum("ij,ji->i", rows, solved)
        remaining -= (arrow.gram_gl @ solved).T
    return np.asarray(
        np.sqrt(variance + np.einsum("ij,ji->i", remaining, linalg.solve(found.schur, remaining.T, assume_a="pos")))
    )
