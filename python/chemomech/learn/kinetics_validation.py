"""How far what videos say can be believed: validation over half-cycles, resampled particles, other starting points."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import linalg

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError
from chemomech.learn.arrow import Arrow, Minimum, Parameters, marginal, minimise, reduced_gradient
from chemomech.learn.profile import Pull, Separable, minimise_profile, moved
from chemomech.learn.reaction_model import Problem, from_first_frame
from chemomech.tasks import Unfinished, successes

log = logging.getLogger(__name__)

#: rho_2 tried, from weak to strong.
RHO_GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_FOLD_DECREASE = 1e-3
#: Expected decrease of half the objective that ends a search from elsewhere: a quarter of a standard deviation.
_RESTART_LEAST = 0.03


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Errors of half-cycles left out, against the regularisation of ln k.

    Attributes
    ----------
    rho : (n,) regularisations, rising.
    error : (n,) mean over folds of the squared error of the frames left out, in units of the noise's.
    standard_error : (n,) of that mean, over the folds' differences to the best regularisation; zero there.
    training : (n,) the same of the frames fitted.
    log_k : by particle, the maps (n, n_folds, n_pixels) fitted without one half-cycle each.
    """

    rho: Float
    error: Float
    standard_error: Float
    training: Float
    log_k: dict[str, Float]

    @property
    def chosen(self) -> float:
        """The strongest regularisation within one standard error of the best (Breiman et al. 1984)."""
        best = int(self.error.argmin())
        return float(self.rho[np.flatnonzero(self.error <= self.error[best] + self.standard_error).max()])

    @property
    def consistency(self) -> dict[str, float]:
        """By particle, mean correlation between the maps of ln k of different half-cycles at the chosen rho_2."""
        at = int(np.flatnonzero(self.rho == self.chosen)[0])
        found = {}
        for name, maps in self.log_k.items():
            between = np.corrcoef(maps[at])
            found[name] = float(between[np.triu_indices(len(between), 1)].mean())
        return found


def cross_validate(
    problem: Problem, found: Minimum, rhos: Sequence[float] = RHO_GRID, unfinished: Unfinished | None = None
) -> CrossValidation:
    """Leave out each half-cycle of each particle in turn and fit ln k to the others, the laws held
    as found (the second of Zhao's ways, Methods, Cross-validation); some particle has two half-cycles.

    Folds err by very different amounts, but much the same at neighbouring rho_2: the standard error is that of their
    differences to the best one.
    """
    folds = [
        (index, film)
        for index, model in enumerate(problem.models)
        for film in range(len(model.films))
        if len(model.films) > 1
    ]
    left_out, training = np.zeros((len(rhos), len(folds))), np.zeros((len(rhos), len(folds)))
    log_k = {
        model.particle.name: np.zeros((len(rhos), len(model.films), len(model.log_k_modes)))
        for model in problem.models
        if len(model.films) > 1
    }
    fit = partial(_fold, parameters=found.parameters, rhos=rhos, unfinished=unfinished)
    fitted = problem.tasks("folds", fit, problem, folds, lambda fold: problem.models[fold[0]].mesh.n_cells)
    for j, ((index, film), fold) in enumerate(zip(folds, successes(fitted), strict=True)):
        name = problem.models[index].particle.name
        left_out[:, j], training[:, j], log_k[name][:, film] = fold
        log.info("left out %s, half-cycle %s", name, problem.models[index].films[film].half_cycle.name)
    error = left_out.mean(axis=1)
    difference = left_out - left_out[int(error.argmin())]
    return CrossValidation(
        rho=np.array(rhos),
        error=error,
        standard_error=difference.std(axis=1, ddof=min(1, len(folds) - 1)) / np.sqrt(len(folds)),
        training=training.mean(axis=1),
        log_k=log_k,
    )


def _fold(
    problem: Problem,
    fold: tuple[int, int],
    *,
    parameters: Parameters,
    rhos: Sequence[float],
    unfinished: Unfinished | None,
) -> tuple[Float, Float, Float]:
    """Squared errors of the half-cycle left out and of the others (n,), and maps of ln k (n, n_pixels)."""
    kept = unfinished.find(f"fold {fold}") if unfinished else None
    if kept:
        return kept  # type: ignore[no-any-return]
    index, film = fold
    model = problem.models[index]
    used = [each != film for each in range(len(model.films))]
    held = np.zeros(problem.n_shared, dtype=bool)
    fitted = Parameters(parameters.shared, (parameters.local[index],))
    left_out, training, log_k = np.zeros(len(rhos)), np.zeros(len(rhos)), np.zeros((len(rhos), len(model.log_k_modes)))
    for i, rho in enumerate(rhos):
        own = replace(problem.alone(index), rho=rho, used=[used])
        fitted = minimise(own, fitted, free=held, least_decrease=_FOLD_DECREASE).parameters
        log_k[i] = model.log_k_modes @ model.split(fitted.local[0])[0]
        # Its own parameters were left to their prior alone; those found with all films would know its later frames.
        local, untouched = fitted.local[0].copy(), model.columns(film)[model.sizes[0] :]
        local[untouched] = from_first_frame(model.films[film], model)
        foreseen = Parameters(parameters.shared, (local,))
        squares = [float(np.mean(own.misfit(0, each, foreseen) ** 2)) for each in range(len(model.films))]
        left_out[i] = squares[film]
        training[i] = np.mean([square for square, taken in zip(squares, used, strict=True) if taken])
    if unfinished:
        unfinished.keep(f"fold {fold}", (left_out, training, log_k))
    return left_out, training, log_k


def bootstrap(arrows: Sequence[Arrow], draws: int = 1000, seed: int = 0) -> Float:
    """Changes (draws, n) of the global parameters when particles are drawn anew with replacement.

    One Gauss-Newton step from the minimum each, the local parameters eliminated: with the Schur complement S_i and the
    reduced gradient g_i of a particle and its number of draws w_i, -(sum w_i S_i)^-1 sum w_i g_i (Davison & Hinkley
    1997, section 2.7). Few particles are too few: with one the changes are zero.
    """
    schur, gradient = ([of([arrow]) for arrow in arrows] for of in (marginal, reduced_gradient))
    n = len(arrows)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)
    systems = np.einsum("bi,ijk->bjk", weights, np.array(schur))
    return np.asarray(-np.linalg.solve(systems, (weights @ np.array(gradient))[..., None])[..., 0])


def restart(
    problem: Separable, volume: Pull, found: Minimum, spread: float, starts: int, seed: int = 0
) -> list[Minimum]:
    """Searches from global parameters moved away from a minimum, the others following: do they end at the same place?

    The search is that of `minimise_profile`. Places at which a reaction cannot be followed are left out.

    Parameters
    ----------
    spread : size of the move, in posterior standard deviations of each.
    """
    random = np.random.default_rng(seed)
    root = linalg.cholesky(found.schur, lower=True)
    minima = []
    for _ in range(starts):
        move = linalg.solve_triangular(root, random.standard_normal(len(root)), lower=True, trans="T")
        with suppress(ConvergenceError):
            start = replace(found, parameters=moved(found, spread * move))
            minima.append(minimise_profile(problem, start, volume, least=_RESTART_LEAST))
    return minima
