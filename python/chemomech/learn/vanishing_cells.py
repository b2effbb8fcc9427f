"""Laws as on ever smaller cells: a last step, after a search on cells that only just resolve the interface.

The slopes of the misfit, every particle settled, err by about the square of the size of cells; those of two sizes say
by how much (Richardson). From four to six and to eight cells along a pixel the laws of three sets moved by 0.63 and
0.83, 0.64 and 0.84, 0.65 and 0.82 standard deviations, where squares foretell a ratio of 0.74.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import CONVERGED, Arrow, Minimum, Parameters, reduced_gradient
from chemomech.learn.evidence import credible_slopes, distance
from chemomech.learn.profile import Pull, evaluated, moved, settle, together
from chemomech.learn.reaction_model import Problem
from chemomech.tasks import Unfinished

log = logging.getLogger(__name__)

#: Expected decrease below which a particle has settled.
_SETTLED = 0.03
#: Farthest that the laws may move, in standard deviations of what one particle says, and that a single particle may
#: move its own.
_FARTHEST, _ELSEWHERE = 2.5, 5.0


@dataclass(frozen=True, eq=False)
class LastStep:
    """Where it has led.

    Attributes
    ----------
    problem : on smaller cells, or as it was where reactions cannot be followed on them.
    searched : parameters at the end of the search, on its cells.
    found : particles settled under the new laws.
    pull : what is added to the objective: the volume, and what still smaller cells would add.
    notes : what a careful reader should know.
    """

    problem: Problem
    searched: Parameters
    found: Minimum
    pull: Pull
    notes: list[str] = field(default_factory=list)


def on_vanishing_cells(
    problem: Problem,
    smaller: Problem,
    found: Minimum,
    volume: Pull,
    *,
    what: str = "smaller cells",
    unfinished: Unfinished | None = None,
) -> LastStep:
    """One Gauss-Newton step of the laws from the minimum on the cells of a problem.

    Slopes of the volume are taken on the cells of the search, where they are right to a tenth of a standard deviation.
    The bend of the volume's model has no part in it: first of all it keeps the steps of a search short.

    Parameters
    ----------
    smaller : the problem on smaller cells.
    volume : that of the search.
    what, unfinished : particles and slopes are kept under names that begin so.
    """

    def settled(parameters: Parameters, arrows: Sequence[Arrow], name: str) -> Minimum:
        name = f"{what}, {name}"
        particles = settle(smaller, parameters, arrows, least=_SETTLED, what=name, unfinished=unfinished)
        return together(parameters.shared, particles)

    shared, notes = found.parameters.shared, []
    try:
        there = settled(found.parameters, found.arrows, "same laws")
        slopes = credible_slopes(problem, None, found, f"{what}, slopes", unfinished)
        ratios = [
            before.mesh.cell_nm / after.mesh.cell_nm
            for before, after in zip(problem.models, smaller.models, strict=True)
        ]
        left, out = left_by_cells(found, there, ratios)
        if out:
            names = ", ".join(problem.models[index].particle.name for index in out)
            notes.append(f"smaller cells change too much to say what cells do to the laws: {names}")
        pull = Pull(shared, slopes + left, np.zeros_like(volume.bend))
        slope = reduced_gradient(pull.added_to(shared, there.arrows))
        step = -linalg.solve(there.schur, slope, assume_a="pos")
        far = distance(there, slope)
        log.info("%s: laws move by %.2g standard deviations of a particle", what, far)
        if far > _FARTHEST:
            step *= _FARTHEST / far
            notes.append(
                f"vanishing cells ask the laws to move by {far:.2g} standard deviations of what one particle says, and "
                f"they were moved by {_FARTHEST:g}: the bands may be too narrow"
            )
        last = settled(moved(there, step), there.arrows, "new laws")
        if last.reason != CONVERGED:
            notes.append(f"on smaller cells a particle had not settled: {last.reason}")
        last = evaluated(smaller, last)  # bands under the matrices of former cells and laws are a tenth narrower
    except (ConvergenceError, np.linalg.LinAlgError) as error:
        log.info("%s: %s", what, error)
        note = (
            "reactions could not be followed on smaller cells: the laws hold what cells do to them, and the bands know "
            "nothing of it"
        )
        return LastStep(problem, found.parameters, found, volume, [note])
    last = replace(last, reason=found.reason, iterations=found.iterations)
    return LastStep(smaller, found.parameters, last, pull, notes)


def left_by_cells(found: Minimum, there: Minimum, ratios: Sequence[float]) -> tuple[Float, list[int]]:
    """What vanishing cells would add to the slopes of the misfit on the smaller of two kinds.

    Parameters
    ----------
    found, there : the same laws, particles settled on the larger and on the smaller cells.
    ratios : of the larger size to the smaller; 1 where pixels are so fine that there are no smaller cells.

    Returns
    -------
    left : (particles, n).
    out : particles that have gone elsewhere and say nothing of cells; what they have changed is taken back.
    """
    left, out = np.zeros((len(ratios), len(found.schur))), []
    for index, (before, after, ratio) in enumerate(zip(found.arrows, there.arrows, ratios, strict=True)):
        change = reduced_gradient([after]) - reduced_gradient([before])
        if not len(left) * distance(found, change) < _ELSEWHERE:
            left[index] = -change
            out.append(index)
        elif ratio > 1:
            left[index] = change / (ratio**2 - 1)
    return left, out
