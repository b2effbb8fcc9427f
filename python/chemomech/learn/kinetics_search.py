"""From videos to the most probable laws: pieces of films, whole films, then all but the laws integrated out.

The reaction is unstable, and a whole film under wrong laws soon has nothing to do with its frames. Pieces of a few
frames are followed first, each from a field of its own; what they say leads whole films under held laws close to
their frames; there the correlation length of ln k is chosen. On finer cells the laws are set free, together with
everything else as long as they are far off, then in rounds with the rest integrated out. Where these have settled the
correlation length of the initial fields is chosen, and rounds go on if it is not the one that first frames say. Of many
particles a few go through all of this first; the others begin under their laws, whole films from their first frames.
What is left of the cells is taken from the laws in a last step.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from chemomech.arrays import Bool
from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import (
    Arrow,
    Minimum,
    Parameters,
    minimise,
)
from chemomech.learn.evidence import (
    INITIAL_LENGTHS_PX,
    LOG_K_LENGTHS_PX,
    likelier_initial_length,
    marginal_mode,
    most_likely_log_k_length,
    most_likely_sizes,
)
from chemomech.learn.law_basis import LawBasis, law_basis
from chemomech.learn.profile import ROUGH_DECREASE, Pull, minimise_profile, settle, together
from chemomech.learn.reaction_model import (
    Lengths,
    ParticleModel,
    Problem,
    build_models,
    first_guesses,
    joined,
    starting_parameters,
    with_modes_of,
)
from chemomech.learn.vanishing_cells import LastStep, on_vanishing_cells
from chemomech.observe.video import ReactionVideo
from chemomech.tasks import TasksOn, Unfinished

log = logging.getLogger(__name__)

#: Largest cells, in units of sqrt(kappa / (c_s kT)), of the first stages, and the error of their time steps.
_COARSE_CELL, _ROUGH_TOLERANCE = 1.25, 1e-4
#: Largest cells on which slopes of the volume are taken, which need them less than the misfit does.
_VOLUME_CELL = 0.8
#: Those of the last step.
_LAST_CELL = 0.4
#: So many particles say the laws well enough to start from, where there are more than twice as many.
_FEW = 4
#: By how much for each particle the laws may promise to lower half the objective where the rounds of `marginal_mode`
#: begin: far from the films slopes of the volume say nothing. But the minimum without the volume is far away as well:
#: from 80 above it the laws of four particles of 496 pixels go further astray on the way there.
_NEAR = 100.0
#: rho_2 to start from.
_START_RHO = 0.02
#: Legendre coefficients of ln j0 that pieces of films may change.
_PIECES_LOG_J0 = 3
#: How often a correlation length of ln k is chosen, each time after a fit under the one before.
_MOST_LENGTHS = 3


@dataclass(frozen=True, eq=False)
class KineticsSearch:
    """The stages of the search for the laws of a video.

    Attributes
    ----------
    video : the films.
    tasks : who evaluates them.
    unfinished : keeps every stage, step by step or particle by particle.
    prefix : what the names of the stages begin with.
    stand_for : how many particles each of the video stands for.
    """

    video: ReactionVideo
    tasks: TasksOn
    unfinished: Unfinished | None
    prefix: str = ""
    stand_for: float = 1.0

    @cached_property
    def basis(self) -> LawBasis:
        """The laws."""
        return law_basis(self.video.binodal, self.video.alpha)

    def beginning(self) -> tuple[Problem, Minimum, Pull | None]:
        """On coarse cells, under held laws: those that pieces of films say, or of many particles those of a few.

        Returns
        -------
        problem, found
        foreseen : the volume that is to be expected, where a few particles say it for all.

        Raises
        ------
        ConvergenceError : a reaction cannot be followed.
        """
        few = a_few(self.video)
        return (*self._under_laws_of_pieces(), None) if few is None else self._under_laws_of(few)

    def laws(
        self,
        coarse: Problem,
        found: Minimum,
        foreseen: Pull | None,
        rho: float | None,
    ) -> tuple[Problem, Minimum, Pull]:
        """As `marginal_mode`: on cells fine enough, from what was found on coarse ones.

        Parameters
        ----------
        rho : regularisation of ln k; None for the most likely.
        """

        def resized(problem: Problem, found: Minimum) -> tuple[Problem, Minimum]:
            likely, size = most_likely_sizes(problem, found)
            return problem.with_priors(found, rho=likely if rho is None else rho, initial_size=size)

        if rho is not None:
            coarse, found = coarse.with_priors(found, rho=rho, initial_size=coarse.initial_size)
        models = build_models(self.video, coarse.models[0].lengths)
        fine = self._problem(models, rho=coarse.rho, initial_size=coarse.initial_size)
        found = self._held(fine, found.parameters, "whole films, finer cells", found.arrows)
        n_particles, n_shared = len(fine.models), fine.n_shared
        nothing = Pull(found.parameters.shared, np.zeros((n_particles, n_shared)), np.zeros((n_shared, n_shared)))
        what, near = f"{self.prefix}laws and all else", _NEAR * n_particles
        found = minimise_profile(fine, found, nothing, least=near, what=what, unfinished=self.unfinished)
        settled = self._rounds(fine, found, "laws, the rest integrated out", resized, foreseen)
        if foreseen is not None:  # correlation lengths are those of a few
            return settled
        try:
            likelier = self._with_likelier_initial_fields(*settled[:2])
            if likelier is None:
                return settled
            return self._rounds(*likelier, "laws, likelier initial fields", resized, settled[2])
        except ConvergenceError as error:
            log.warning("%sinitial fields keep the length of first frames: %s", self.prefix, error)
            return settled

    def under_rho(self, problem: Problem, found: Minimum, rho: float) -> tuple[Problem, Minimum, Pull]:
        """As `laws`, from there."""
        problem, found = problem.with_priors(found, rho=rho, initial_size=problem.initial_size)
        return self._rounds(problem, found, "laws, priors chosen", None, None)

    def on_vanishing_cells(self, problem: Problem, found: Minimum, volume: Pull) -> LastStep:
        """As the function of that name, from the end of `laws`."""
        models = build_models(self.video, problem.models[0].lengths, largest_cell=_LAST_CELL)
        smaller = replace(problem, models=models)
        return on_vanishing_cells(problem, smaller, found, volume, unfinished=self.unfinished)

    def _with_likelier_initial_fields(self, problem: Problem, found: Minimum) -> tuple[Problem, Minimum] | None:
        """Under the same laws, initial fields of a likelier correlation length; None where there is none."""
        lengths = problem.models[0].lengths

        def with_fields(initial_px: float) -> tuple[Problem, Parameters]:
            models = build_models(self.video, replace(lengths, initial_px=initial_px))
            return replace(problem, models=models), with_modes_of(models, problem.models, found.parameters)

        length = likelier_initial_length(
            *with_fields(INITIAL_LENGTHS_PX[0]), lengths.initial_px, stand_for=self.stand_for
        )
        if length == lengths.initial_px:
            return None
        problem, start = with_fields(length)
        return problem, self._held(problem, start, "whole films, likelier initial fields")

    def _rounds(
        self,
        problem: Problem,
        found: Minimum,
        what: str,
        resized: Callable[[Problem, Minimum], tuple[Problem, Minimum]] | None,
        foreseen: Pull | None,
    ) -> tuple[Problem, Minimum, Pull]:
        """`marginal_mode` with slopes of the volume on cells of their own."""
        models = build_models(self.video, problem.models[0].lengths, largest_cell=_VOLUME_CELL)
        return marginal_mode(
            problem,
            found,
            cheaper=lambda problem: replace(problem, models=models),
            resized=resized,
            foreseen=foreseen,
            what=f"{self.prefix}{what}",
            unfinished=self.unfinished,
        )

    def _under_laws_of_pieces(self) -> tuple[Problem, Minimum]:
        """Whole films on coarse cells under the laws that their pieces say, fields of their most likely lengths."""
        pieces, coarse = self._rough(pieces=True), self._rough()
        # Pieces start from fields that their prior has smoothed, which a flatter mu_h would explain: it is held, and of
        # ln j0 no more is asked than a parabola.
        free, n_mu = self._no_law(), self.basis.mu_modes.shape[1]
        free[n_mu : n_mu + _PIECES_LOG_J0] = True
        start = starting_parameters(pieces)
        cut = minimise(
            pieces,
            start,
            free=free,
            least_decrease=ROUGH_DECREASE,
            what=f"{self.prefix}pieces of films",
            unfinished=self.unfinished,
        )
        found = self._whole(
            coarse,
            ("from pieces", lambda: joined(pieces, coarse, cut.parameters)),
            ("from first frames", lambda: starting_parameters(coarse)),
        )
        shortest = self._rough(replace(coarse.models[0].lengths, log_k_px=LOG_K_LENGTHS_PX[0]))
        for number in range(1, _MOST_LENGTHS + 1):
            lengths = coarse.models[0].lengths
            short = with_modes_of(shortest.models, coarse.models, found.parameters)
            other = self._rough(replace(lengths, log_k_px=most_likely_log_k_length(shortest, short)))
            if other.models[0].lengths == lengths:
                break
            start, coarse = with_modes_of(other.models, coarse.models, found.parameters), other
            found = self._held(coarse, start, f"whole films, laws held, length {number}")
        return coarse, found

    def _under_laws_of(self, few: ReactionVideo) -> tuple[Problem, Minimum, Pull]:
        """Whole films on coarse cells under laws, lengths and sizes that a few particles say when their laws settle."""
        stand_for = len(self.video.particles) / len(few.particles)
        search = replace(self, video=few, prefix="a few particles, ", stand_for=stand_for)
        known, found, volume = search.laws(*search.beginning(), None)
        laws, lengths = found.parameters.shared, known.models[0].lengths

        def rough(*, pieces: bool) -> Problem:
            return replace(self._rough(lengths, pieces=pieces), rho=known.rho, initial_size=known.initial_size)

        coarse = rough(pieces=False)

        def from_pieces() -> Parameters:
            pieces = rough(pieces=True)
            start = Parameters(laws, first_guesses(pieces))
            return joined(pieces, coarse, self._held(pieces, start, "pieces of films, laws held").parameters)

        # Under the right laws pieces say nothing that is worth their time.
        whole = self._whole(
            coarse,
            ("from first frames", lambda: Parameters(laws, first_guesses(coarse))),
            ("from pieces", from_pieces),
        )
        # Every parameter of a particle adds to the volume what those of the few do on the average.
        shares = np.array([len(own) for own in whole.parameters.local]) / sum(map(len, found.parameters.local))
        foreseen = Pull(volume.centre, np.outer(shares, volume.slopes.sum(axis=0)), shares.sum() * volume.bend)
        return coarse, whole, foreseen

    def _whole(self, coarse: Problem, *starts: tuple[str, Callable[[], Parameters]]) -> Minimum:
        """Whole films under held laws, from the first of the starts from which they can be followed."""
        (name, start), *others = starts
        try:
            return self._held(coarse, start(), f"whole films, laws held, {name}")
        except ConvergenceError as error:
            if not others:
                raise
            log.info("%swhole films cannot be followed %s: %s", self.prefix, name, error)
        return self._whole(coarse, *others)

    def _no_law(self) -> Bool:
        return np.zeros(self.basis.size, dtype=bool)

    def _problem(
        self, models: Sequence[ParticleModel], *, rho: float = _START_RHO, initial_size: float = 1.0
    ) -> Problem:
        every = [[True] * len(model.films) for model in models]
        return Problem(
            models=models,
            basis=self.basis,
            gradient_nm2=self.video.gradient_nm2,
            noise=self.video.noise,
            rho=rho,
            initial_size=initial_size,
            used=every,
            tasks=self.tasks,
        )

    def _rough(self, lengths: Lengths | None = None, *, pieces: bool = False) -> Problem:
        models = build_models(self.video, lengths, pieces=pieces, largest_cell=_COARSE_CELL)
        return replace(self._problem(models), tolerance=_ROUGH_TOLERANCE)

    def _held(self, problem: Problem, start: Parameters, what: str, arrows: Sequence[Arrow] | None = None) -> Minimum:
        """The minimum under the laws of the start."""
        what = f"{self.prefix}{what}"
        particles = settle(problem, start, arrows, least_decrease=ROUGH_DECREASE, what=what, unfinished=self.unfinished)
        found = together(start.shared, particles)
        log.info("%s: misfit %.4g after %d steps at most", what, 2 * found.objective, found.iterations)
        return found


def a_few(video: ReactionVideo) -> ReactionVideo | None:
    """Some of the particles where there are many: those of most half-cycles, of as many evenly from all, and modes."""
    particles = video.particles
    if len(particles) <= 2 * _FEW:
        return None
    numbers = {name: len(each.half_cycles) for name, each in particles.items()}
    least = sorted(numbers.values())[-_FEW]
    chosen = {name for name, number in numbers.items() if number > least}
    others = [name for name, number in numbers.items() if number == least]
    others.sort(key=lambda name: particles[name].half_cycles[0].mode)
    missing = _FEW - len(chosen)
    chosen |= {others[i * len(others) // missing] for i in range(missing)}
    return replace(video, particles={name: each for name, each in particles.items() if name in chosen})
