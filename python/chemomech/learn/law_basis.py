"""What the laws may be: mu_h = ln(c / (1 - c)) + Legendre series, held to the binodal where one is given, and ln j0 =
Legendre series."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre
from scipy import linalg

from chemomech.arrays import Float
from chemomech.phasefield.reaction import ReactionLaw

#: Highest Legendre orders of mu_h and ln j0.
MU_ORDER, LOG_J0_ORDER = 5, 4
#: Regular-solution parameter to start from where no binodal is given, kT.
_START_OMEGA = 4.0


@dataclass(frozen=True, eq=False)
class LawBasis:
    """The laws as affine functions of the global parameters: mu = start + mu_modes @ first ones, ln j0 the rest.

    Attributes
    ----------
    mu_start : (N + 1,), mu_modes : (N + 1, a).
    n_log_j0 : number of Legendre coefficients of ln j0.
    """

    mu_start: Float
    mu_modes: Float
    n_log_j0: int
    alpha: float

    @property
    def size(self) -> int:
        """Number of global parameters."""
        return int(self.mu_modes.shape[1]) + self.n_log_j0

    def law(self, shared: Float) -> ReactionLaw:
        """The laws of global parameters (size,)."""
        n = self.mu_modes.shape[1]
        return ReactionLaw(self.mu_start + self.mu_modes @ shared[:n], shared[n:].copy(), self.alpha)

    def mu_design(self, c: Float) -> Float:
        """Derivative (len(c), size) of mu_h(c) less its mean over c, which no frame depends on."""
        values = legendre.legvander(2 * c - 1, len(self.mu_start) - 1) @ self.mu_modes
        return np.hstack([values - values.mean(axis=0), np.zeros((len(c), self.n_log_j0))])

    def log_j0_design(self, c: Float) -> Float:
        """Derivative (len(c), size) of ln j0(c)."""
        values = legendre.legvander(2 * c - 1, self.n_log_j0 - 1)
        return np.hstack([np.zeros((len(c), self.mu_modes.shape[1])), values])


def law_basis(binodal: float | None, alpha: float) -> LawBasis:
    """Legendre series of mu_h and ln j0.

    mu_h is held to the binodal where one is given (`common_tangent`).
    """
    if binodal is not None:
        start, modes = common_tangent(binodal, MU_ORDER)
    else:
        start, modes = np.zeros(MU_ORDER + 1), np.eye(MU_ORDER + 1)[:, 1:]  # L_0 only shifts the potential
        start[1] = -_START_OMEGA
    return LawBasis(start, modes, LOG_J0_ORDER + 1, alpha)


def common_tangent(binodal: float, order: int) -> tuple[Float, Float]:
    """Legendre coefficients of mu_h that have a binodal d: start (order + 1,) + modes (order + 1, order - 2) @ any.

    mu_h(d) = mu_h(1 - d) = mean of mu_h between them: two linear conditions, met by the regular solution to start from.
    """
    start = np.zeros(order + 1)
    start[1] = -np.log(1 / binodal - 1) / (1 - 2 * binodal)
    span = np.array([2 * binodal - 1, 1 - 2 * binodal])
    ends = legendre.legvander(span, order)
    area = [np.diff(legendre.legval(span, legendre.legint(row)))[0] / (span[1] - span[0]) for row in np.eye(order + 1)]
    conditions = np.array([ends[0] - ends[1], area - ends[0]])[:, 1:]
    free = np.eye(order + 1)[:, 1:]  # L_0 only shifts the potential
    return start, free @ linalg.null_space(conditions)
