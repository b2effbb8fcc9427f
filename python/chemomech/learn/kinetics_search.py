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
from chemomech.learn.arrow import (
    CONVERGED,
    LEAST_DECREASE,
    Minimum,
    Objective,
    Parameters,
    minimise,
    solve_arrow,
)
from chemomech.learn.evidence import (
    SETTLED,
    WithVolume,
    marginal_mode,
    most_likely_length,
    most_likely_sizes,
    without_bend,
)
from chemomech.learn.reaction_model import (
    START_LENGTH_PX,
    LawBasis,
    ParticleModel,
    Problem,
    build_models,
    first_guesses,
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
#: Largest cells, in units of sqrt(kappa / (c_s kT)), of the first stages, and the error of their time steps.
_COARSE_CELL, _ROUGH_TOLERANCE = 1.25, 3e-5
#: Largest cells on which slopes of the volume are taken, which need them less than the misfit does.
_VOLUME_CELL = 0.8
#: So many particles say the laws well enough to start from, where there are more than twice as many.
_FEW = 4
#: Where the rounds of these few may end, as of `marginal_mode`.
_FEW_SETTLED = 1.0
#: Where the search for laws and all else together ends that leads to where the rounds of `marginal_mode` begin, as of
#: `minimise`: far from the films slopes of the volume say nothing.
_NEAR = 10.0
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
    of : what the names of the stages begin with.
    """

    video: ReactionVideo
    tasks: TasksOn
    unfinished: Unfinished | None
    of: str = ""

    @cached_property
    def basis(self) -> LawBasis:
        """The laws."""
        return law_basis(self.video.binodal, self.video.alpha)

    def whole_films(self) -> tuple[Problem, Minimum]:
        """On coarse cells, under held laws: those that pieces of films say, or of many particles those of a few.

        Raises
        ------
        ConvergenceError : no starting point was found at which the reaction can be followed.
        """
        few = a_few(self.video)
        return self._under_laws_of_pieces() if few is None else self._under_laws_of(few)

    def _under_laws_of_pieces(self) -> tuple[Problem, Minimum]:
        """ln k of its most likely length."""
        coarse = self._rough(START_LENGTH_PX)
        found = self._joined(self._pieces_and_laws(), coarse)
        shortest = self._rough(_SHORTEST_PX)
        length = START_LENGTH_PX
        for number in range(1, _MOST_LENGTHS + 1):
            short = with_modes_of(shortest.models, coarse.models, found.parameters)
            before, length = length, most_likely_length(shortest, short)
            if length == before:
                break
            other = self._rough(length)
            start, coarse = with_modes_of(other.models, coarse.models, found.parameters), other
            found = self._held(coarse, start, f"whole films, laws held, length {number}")
        return coarse, found

    def _under_laws_of(self, few: ReactionVideo) -> tuple[Problem, Minimum]:
        """Laws and priors are those that the few particles say when searched to where their laws settle."""
        search = replace(self, video=few, of="a few particles, ")
        fine, found, _ = search.laws(*search.whole_films(), None, settled=_FEW_SETTLED)
        length = fine.models[0].log_k_length_px
        pieces = self._rough(length, pieces=True)
        start = Parameters(found.parameters.shared, first_guesses(pieces))
        coarse = replace(self._rough(length), rho=fine.rho, initial_size=fine.initial_size)
        return coarse, self._joined((pieces, self._held(pieces, start, "pieces of films, laws held")), coarse)

    def laws(
        self, coarse: Problem, found: Minimum, rho: float | None, *, settled: float = SETTLED
    ) -> tuple[Problem, Minimum, WithVolume]:
        """As `marginal_mode`: on cells fine enough, from what was found on coarse ones.

        Parameters
        ----------
        rho : regularisation of ln k; None for the most likely.
        """

        def resized(problem: Problem, found: Minimum) -> Problem:
            likely, size = most_likely_sizes(problem, found)
            return replace(problem, rho=likely if rho is None else rho, initial_size=size)

        length = coarse.models[0].log_k_length_px
        fine = self._problem(build_models(self.video, log_k_length_px=length))
        fine = replace(fine, rho=coarse.rho, initial_size=coarse.initial_size)
        found = self._held(fine, found.parameters, "whole films, finer cells")
        coarser = build_models(self.video, log_k_length_px=length, largest_cell=_VOLUME_CELL)
        return marginal_mode(
            fine,
            self._minimise(fine, found.parameters, "laws and all else", least=_NEAR),
            coarser=lambda problem: replace(problem, models=coarser),
            resized=resized,
            least_decrease=_DECREASE,
            settled=settled,
            what=f"{self.of}laws, the rest integrated out",
            unfinished=self.unfinished,
        )

    def to_the_end(self, problem: Problem, found: Minimum, volume: WithVolume) -> Minimum:
        """The minimum of misfit and model of the volume, to less than a standard deviation."""
        found = self._minimise(replace(volume, problem=problem), found.parameters, "laws, to the end")
        return without_bend(found, volume.bend)

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

    def _rough(self, length_px: float, *, pieces: bool = False, cell: float = _COARSE_CELL) -> Problem:
        models = build_models(self.video, log_k_length_px=length_px, pieces=pieces, largest_cell=cell)
        return replace(self._problem(models), tolerance=_ROUGH_TOLERANCE)

    def _held(self, problem: Problem, start: Parameters, what: str) -> Minimum:
        """The minimum under the laws of the start, where particles have nothing to do with each other: one by one."""
        what = f"{self.of}{what}"
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
            what=f"{self.of}{what}",
            unfinished=self.unfinished,
        )

    def _pieces_and_laws(self) -> tuple[Problem, Minimum]:
        """Pieces of films, and what they say of the laws.

        They start from fields that their prior has smoothed, which a flatter mu_h would explain: it is held, and of
        ln j0 no more is asked than a parabola.
        """
        pieces = self._rough(START_LENGTH_PX, pieces=True)
        free, n_mu = self._no_law, self.basis.mu_modes.shape[1]
        free[n_mu : n_mu + _PIECES_LOG_J0] = True
        start = starting_parameters(pieces)
        found = self._minimise(pieces, start, "pieces of films", free=free, least_decrease=_ROUGH_DECREASE)
        return pieces, found

    def _joined(self, cut: tuple[Problem, Minimum], whole: Problem) -> Minimum:
        """Whole films under the laws of their pieces."""
        pieces, found = cut
        held = "whole films, laws held"
        try:
            return self._held(whole, joined(pieces, whole, found.parameters), held)
        except ConvergenceError:  # what the pieces say cannot be followed through whole films
            return self._held(whole, starting_parameters(whole), f"{held}, from the first frames")


def a_few(video: ReactionVideo) -> ReactionVideo | None:
    """Some of the particles, those of most half-cycles, where there are many."""
    particles = video.particles
    if len(particles) <= 2 * _FEW:
        return None
    most = max(len(each.half_cycles) for each in particles.values())
    names = [name for name, each in particles.items() if len(each.half_cycles) == most]
    chosen = {names[i * len(names) // _FEW] for i in range(_FEW)}
    return replace(video, particles={name: each for name, each in particles.items() if name in chosen})
