"""From videos to the most probable laws: pieces of films, whole films, then all but the laws integrated out.

The reaction is unstable, and a whole film under wrong laws soon has nothing to do with its frames. Pieces of a few
frames are followed first, each from a field of its own; what they say leads whole films under held laws close to
their frames; there the correlation length of ln k is chosen, and the laws are set free.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from chemomech.arrays import Bool
from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import CONVERGED, LEAST_DECREASE, Minimum, Objective, Parameters, minimise, solve_arrow
from chemomech.learn.evidence import (
    WithVolume,
    marginal_mode,
    most_likely_length,
    most_likely_sizes,
    without_bend,
)
from chemomech.learn.reaction_model import (
    FinelySeen,
    LawBasis,
    ParticleModel,
    Problem,
    build_models,
    joined,
    law_basis,
    starting_parameters,
    with_modes_of,
)
from chemomech.observe.video import ReactionVideo
from chemomech.tasks import TasksOn, Unfinished, in_turn, successes

log = logging.getLogger(__name__)

#: Relative decreases that end a search: one that only has to lead into the valley, and one in it.
_ROUGH_DECREASE, _DECREASE = 5e-3, 3e-4
#: Largest cells, in units of sqrt(kappa / (c_s kT)), and the error of a time step: of the first stages, and of the
#: frames that the last one compares.
_COARSE_CELL, _ROUGH_TOLERANCE = 1.25, 3e-5
_FINE_CELL, _FINE_TOLERANCE = 0.4, 3e-6
#: Where that stage ends, as of `minimise`: its matrices are of coarser cells, and promise less than steps bring.
_FINE_LEAST = 0.1
#: By how much fine cells may raise half the objective, ln of the odds against them: searches that begin at the minimum
#: of coarser ones leave about 20 even where fine ones are right.
_DISBELIEF = 30.0
#: rho_2 to start from.
_START_RHO = 0.02
#: Legendre coefficients of ln j0 that pieces of films may change.
_PIECES_LOG_J0 = 3
#: Correlation length of ln k, pixels, that makes up all longer ones (Zhao: what is finer than a pixel cannot be seen),
#: and how often one is chosen, each time after a fit under the one before.
_SHORTEST_PX, _MOST_LENGTHS = 1.0, 3


def _particle_under_laws(problem: Problem, index: int, parameters: Parameters) -> Minimum:
    """The minimum of one particle's share, the laws held."""
    own = replace(problem, models=[problem.models[index]], used=[problem.used[index]], tasks=in_turn)
    start = Parameters(parameters.shared, (parameters.local[index],))
    return minimise(own, start, free=np.zeros(problem.n_shared, dtype=bool), least_decrease=_ROUGH_DECREASE)


@dataclass(frozen=True, eq=False)
class KineticsSearch:
    """The stages of the search for the laws of a video.

    Attributes
    ----------
    video : the films.
    tasks : who evaluates them.
    unfinished : keeps every stage, step by step.
    """

    video: ReactionVideo
    tasks: TasksOn
    unfinished: Unfinished | None

    @cached_property
    def basis(self) -> LawBasis:
        """The laws."""
        return law_basis(self.video.binodal, self.video.alpha)

    def whole_films(self) -> tuple[Problem, Minimum]:
        """On coarse cells, under the laws that pieces of films say, ln k of its most likely length.

        Raises
        ------
        ConvergenceError : no starting point was found at which the reaction can be followed.
        """
        coarse = self._rough(build_models(self.video, largest_cell=_COARSE_CELL))
        held = "whole films, laws held"
        try:
            found = self._held(coarse, self._from_pieces(coarse), held)
        except ConvergenceError:  # what the pieces say cannot be followed through whole films
            found = self._held(coarse, starting_parameters(coarse), f"{held}, from the first frames")
        shortest = build_models(self.video, log_k_length_px=_SHORTEST_PX, largest_cell=_COARSE_CELL)
        length = coarse.models[0].log_k_length_px
        for number in range(1, _MOST_LENGTHS + 1):
            short = with_modes_of(shortest, coarse.models, found.parameters)
            before, length = length, most_likely_length(replace(coarse, models=shortest), short)
            if length == before:
                break
            models = build_models(self.video, log_k_length_px=length, largest_cell=_COARSE_CELL)
            start, coarse = with_modes_of(models, coarse.models, found.parameters), replace(coarse, models=models)
            found = self._held(coarse, start, f"{held}, length {number}")
        return coarse, found

    def laws(self, coarse: Problem, found: Minimum, rho: float | None) -> tuple[Problem, Minimum, WithVolume]:
        """As `marginal_mode`: on cells fine enough, from what was found on coarse ones.

        Parameters
        ----------
        rho : regularisation of ln k; None for the most likely.
        """

        def resized(problem: Problem, found: Minimum) -> Problem:
            likely, size = most_likely_sizes(problem, found)
            return replace(problem, rho=likely if rho is None else rho, initial_size=size)

        length = coarse.models[0].log_k_length_px
        whole = self._problem(build_models(self.video, log_k_length_px=length))
        found = self._held(whole, found.parameters, "whole films, finer cells")
        return marginal_mode(
            whole,
            found,
            resized=resized,
            least_decrease=_DECREASE,
            what="laws, the rest integrated out",
            unfinished=self.unfinished,
        )

    def to_the_end(self, problem: Problem, found: Minimum, volume: WithVolume) -> tuple[Problem, Minimum, list[str]]:
        """The minimum of misfit and model of the volume, to less than a standard deviation, as fine cells see it.

        Fine cells are believed unless the films speak clearly against them: synthetic ones may have been made on
        coarser cells themselves.

        Returns
        -------
        problem : on fine cells, or the one given where these are not believed or the reaction cannot be followed there.
        found : the minimum.
        notes : what a reader should know of it.
        """
        found = self._minimise(replace(volume, problem=problem), found.parameters, "laws, to the end")
        models = build_models(self.video, log_k_length_px=problem.models[0].log_k_length_px, largest_cell=_FINE_CELL)
        fine, notes = replace(problem, models=models, tolerance=_FINE_TOLERANCE), []
        seen = replace(volume, problem=FinelySeen(fine, problem))
        try:
            finely = self._minimise(seen, found.parameters, "laws, on fine cells", least=_FINE_LEAST)
        except ConvergenceError as error:
            notes.append(f"the laws are those of coarser cells than is safe: on fine ones {error}")
        else:
            if finely.objective < found.objective + _DISBELIEF:
                problem, found = fine, finely
            else:
                log.info("fine cells leave more of the frames unexplained, and are not followed")
        return problem, without_bend(found, volume.bend), notes

    @property
    def _no_law(self) -> Bool:
        return np.zeros(self.basis.size, dtype=bool)

    def _problem(self, models: Sequence[ParticleModel]) -> Problem:
        every = [[True] * len(model.films) for model in models]
        return Problem(
            models=models,
            basis=self.basis,
            gradient_nm2=self.video.gradient_nm2,
            noise=self.video.noise,
            rho=_START_RHO,
            initial_size=1.0,
            used=every,
            tasks=self.tasks,
        )

    def _rough(self, models: Sequence[ParticleModel]) -> Problem:
        return replace(self._problem(models), tolerance=_ROUGH_TOLERANCE)

    def _held(self, problem: Problem, start: Parameters, what: str) -> Minimum:
        """The minimum under the laws of the start, where particles have nothing to do with each other: one by one."""
        found: Minimum | None = self.unfinished.find(what) if self.unfinished else None
        if found is not None:
            return found
        evaluate, indices = partial(_particle_under_laws, parameters=start), range(len(problem.models))
        cells = [model.mesh.n_cells for model in problem.models]
        minima = list(successes(self.tasks(what, evaluate, problem, indices, cells.__getitem__)))
        arrows = [each.arrows[0] for each in minima]
        found = Minimum(
            parameters=Parameters(start.shared, tuple(each.parameters.local[0] for each in minima)),
            objective=sum(each.objective for each in minima),
            reason=next((each.reason for each in minima if each.reason != CONVERGED), CONVERGED),
            iterations=max(each.iterations for each in minima),
            arrows=arrows,
            schur=solve_arrow(arrows, 0.0, self._no_law)[2],
        )
        log.info("%s: misfit %.4g after %d steps at most", what, 2 * found.objective, found.iterations)
        if self.unfinished:
            self.unfinished.keep(what, found)
        return found

    def _minimise(
        self,
        problem: Objective,
        start: Parameters,
        what: str,
        *,
        free: Bool | None = None,
        least_decrease: float = 0.0,
        least: float = LEAST_DECREASE,
    ) -> Minimum:
        return minimise(
            problem,
            start,
            free=free,
            least_decrease=least_decrease,
            least=least,
            what=what,
            unfinished=self.unfinished,
        )

    def _from_pieces(self, whole: Problem) -> Parameters:
        """Parameters of whole films from pieces of them.

        Pieces start from fields that their prior has smoothed, which a flatter mu_h would explain: it is held, and of
        ln j0 no more is asked than a parabola.
        """
        pieces = self._rough(build_models(self.video, pieces=True, largest_cell=_COARSE_CELL))
        free, n_mu = self._no_law, self.basis.mu_modes.shape[1]
        free[n_mu : n_mu + _PIECES_LOG_J0] = True
        found = self._minimise(
            pieces, starting_parameters(pieces), "pieces of films", free=free, least_decrease=_ROUGH_DECREASE
        )
        return joined(pieces, whole, found.parameters)
