"""Samples of the posterior of all parameters by Hamiltonian Monte Carlo (nutpie's NUTS, extra `[sampling]`)."""

import logging
import math
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy import linalg

from chemomech.arrays import Float
from chemomech.errors import ConvergenceError, InputError
from chemomech.learn.arrow import Minimum, Parameters
from chemomech.learn.reaction_model import Problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PosteriorSamples:
    """Global parameters drawn from the posterior, and arviz's diagnostics of them.

    Attributes
    ----------
    shared : (chains, draws, n).
    r_hat : largest potential scale reduction; 1.01 is good (Vehtari et al. 2021).
    effective : smallest bulk effective sample size.
    divergences : number of divergent transitions.
    """

    shared: Float
    r_hat: float
    effective: float
    divergences: int


class Whitened:
    """Coordinates y in which the linearised posterior about the minimum is standard normal.

    x_shared = minimum + S^-T/2 y_shared, x_local = minimum - H_ll^-1 H_lg (x_shared - minimum) + H_ll^-T/2 y_local,
    with the Schur complement S: the sampler needs neither a mass matrix nor long trajectories.
    """

    def __init__(self, found: Minimum) -> None:
        self._centre = found.parameters
        self._root = linalg.cholesky(found.schur, lower=True)
        self._roots = [linalg.cholesky(arrow.gram_ll, lower=True) for arrow in found.arrows]
        self._towards = [
            linalg.cho_solve((root, True), arrow.gram_gl.T)
            for root, arrow in zip(self._roots, found.arrows, strict=True)
        ]
        sizes = [len(self._root), *(len(root) for root in self._roots)]
        self._ends = np.cumsum(sizes)
        self.size = int(self._ends[-1])

    def parameters(self, y: Float) -> Parameters:
        """The parameters at y (size,)."""
        parts = np.split(y, self._ends[:-1])
        change = linalg.solve_triangular(self._root, parts[0], lower=True, trans="T")
        local = [
            centre - towards @ change + linalg.solve_triangular(root, own, lower=True, trans="T")
            for centre, towards, root, own in zip(
                self._centre.local, self._towards, self._roots, parts[1:], strict=True
            )
        ]
        return Parameters(self._centre.shared + change, tuple(local))

    def gradient(self, shared: Float, local: list[Float]) -> Float:
        """The transposed: from gradients with respect to the parameters to that with respect to y."""
        total = shared - sum(towards.T @ own for towards, own in zip(self._towards, local, strict=True))
        return np.concatenate(
            [
                linalg.solve_triangular(self._root, total, lower=True),
                *(linalg.solve_triangular(root, own, lower=True) for root, own in zip(self._roots, local, strict=True)),
            ]
        )


def require_sampler() -> None:
    """Raise InputError where nutpie or arviz is not installed."""
    for name in ("nutpie", "arviz"):
        if find_spec(name) is None:
            raise InputError(f"{name} is missing; pip install 'chemomech[sampling]' brings it")


def sample_posterior(
    problem: Problem, found: Minimum, *, draws: int, tune: int = 100, chains: int = 2, seed: int = 0
) -> PosteriorSamples:
    """NUTS from the minimum, gradients by adjoints.

    Raises
    ------
    InputError : nutpie or arviz is not installed.
    """
    require_sampler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # arviz announces its next version
        import arviz
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    whitened = Whitened(found)

    def log_density(y: Float) -> tuple[float, Float]:
        try:
            value, arrows = problem.turned(whitened.parameters(y), found.arrows)
        except ConvergenceError:
            return -math.inf, np.zeros_like(y)
        local = [arrow.gradient_l for arrow in arrows]
        shared = np.sum([arrow.gradient_g for arrow in arrows], axis=0)
        return found.objective - value, -whitened.gradient(shared, local)

    def expand(y: Float, **_: object) -> dict[str, Float]:
        return {"shared": whitened.parameters(y).shared}

    model = from_pyfunc(
        whitened.size,
        lambda: log_density,
        lambda *_: expand,
        [np.dtype(np.float64)],
        [(problem.n_shared,)],
        ["shared"],
        make_initial_point_fn=lambda _: np.zeros(whitened.size),
    )
    log.info("posterior of %d parameters: %d chains of %d and %d draws", whitened.size, chains, tune, draws)
    trace = nutpie.sample(
        model, draws=draws, tune=tune, chains=chains, cores=1, seed=seed, progress_bar=False, save_warmup=False
    )
    summary = arviz.summary(trace, var_names=["shared"], kind="diagnostics")
    return PosteriorSamples(
        shared=np.asarray(trace.posterior["shared"]),
        r_hat=float(summary["r_hat"].max()),
        effective=float(summary["ess_bulk"].min()),
        divergences=int(trace.sample_stats["diverging"].sum()),
    )
