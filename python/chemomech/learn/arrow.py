"""Least squares whose Jacobian is an arrow: parameters shared by all particles, and those of each particle alone.

Gauss-Newton steps in a trust region (Levenberg and Marquardt). The parameters of a particle touch its own data only,
are eliminated particle by particle (Schur complement), and leave a small dense system for the shared ones.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import linalg

from chemomech.arrays import Bool, Float
from chemomech.errors import ConvergenceError

log = logging.getLogger(__name__)

_MOST_ITERATIONS = 40
CONVERGED = "expected decrease below tolerance"
#: An expected decrease of half the objective below this ends the search: 1/2 is one parameter at one standard error.
_LEAST_DECREASE = 1.0
STALLED = "no step lowers the objective"
_FIRST_DAMPING, _FIRST_GROWTH = 0.03, 2.0
#: Share of the expected decrease that a step must reach to be taken.
_LEAST_GAIN = 1e-3
#: Share above which the quadratic model is good enough to be kept, and for how many steps.
_GOOD_GAIN, _MOST_AGE = 0.5, 3


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
    problem: Objective,
    start: Parameters,
    *,
    free: Bool | None = None,
    least_decrease: float = 0.0,
    what: str = "",
) -> Minimum:
    """Gauss-Newton with Marquardt's damping, raised and lowered by the gain (Nielsen 1999).

    Where a step did what its quadratic model said, the next ones keep the matrices and take new gradients only, which
    cost a tenth (the chord method).

    Parameters
    ----------
    free : (n,) global parameters that may move; None for all.
    least_decrease : expected relative decrease below which the search ends, where that is sooner.
    what : what is fitted, to log every iteration under this name; silent without.
    """
    free = np.ones(problem.n_shared, dtype=bool) if free is None else free
    parameters, damping, growth = start, _FIRST_DAMPING, _FIRST_GROWTH
    reason, iteration, age = "iteration limit", 0, 0
    value, arrows = problem.system(parameters)
    while iteration < _MOST_ITERATIONS:
        shared, local, _ = solve_arrow(arrows, damping, free)
        expected = _expected_decrease(arrows, shared, local)
        trial = Parameters(
            parameters.shared + shared, tuple(a + b for a, b in zip(parameters.local, local, strict=True))
        )
        small = expected < max(_LEAST_DECREASE, least_decrease * value)
        gain = -np.inf if small else (value - problem.objective(trial, below=value)) / expected
        if gain > _LEAST_GAIN:
            try:
                if gain > _GOOD_GAIN and age < _MOST_AGE:
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
            damping *= max(1 / 5, 1 - (2 * gain - 1) ** 3) if gain < 1 else 1 / 5
            growth = _FIRST_GROWTH
            if what:
                log.info("%s, step %d: misfit %.4g, expected decrease %.2g", what, iteration, 2 * value, expected)
        elif age > 0:
            value, arrows = problem.system(parameters)
            age = 0
        elif small:
            # A small decrease that only damping after refused steps has made so says nothing of a minimum.
            reason = CONVERGED if growth == _FIRST_GROWTH else STALLED
            break
        else:
            damping *= growth
            growth *= 2
    if age > 0:
        value, arrows = problem.system(parameters)
    _, _, schur = solve_arrow(arrows, 0.0, free)
    return Minimum(parameters, value, reason, iteration, arrows, schur)


def _expected_decrease(arrows: Sequence[Arrow], shared: Float, local: Sequence[Float]) -> float:
    total = 0.0
    for arrow, own in zip(arrows, local, strict=True):
        slope = arrow.gradient_g @ shared + arrow.gradient_l @ own
        bend = shared @ arrow.gram_gg @ shared + 2 * shared @ arrow.gram_gl @ own + own @ arrow.gram_ll @ own
        total -= float(slope + bend / 2)
    return total


def deviation(found: Minimum, along_shared: Float, along_local: Sequence[Float]) -> Float:
    """Posterior standard deviation (n,) of along_shared @ shared + sum of along_local @ local."""
    remaining, variance = along_shared.copy(), 0.0
    for arrow, along in zip(found.arrows, along_local, strict=True):
        solved = linalg.solve(arrow.gram_ll, along, assume_a="pos")
        variance += float(along @ solved)
        remaining -= arrow.gram_gl @ solved
    return np.asarray(
        np.sqrt(variance + np.einsum("ij,ji->i", remaining, linalg.solve(found.schur, remaining.T, assume_a="pos")))
    )
