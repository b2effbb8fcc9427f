"""Direct solution of symmetric positive definite sparse systems."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from chemomech.arrays import Float


def factorise(matrix: sp.csr_array) -> Callable[[Float], Float]:
    """Factor a symmetric positive definite matrix once; the returned function solves for (n, k) right-hand sides.

    SuperLU without pivoting, ordered by minimum degree on the symmetric pattern: half the fill and time of its
    defaults, which are meant for unsymmetric matrices. A matrix without rows is allowed.
    """
    if matrix.shape[0] == 0:
        return np.copy
    factor = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def solve(loads: Float) -> Float:
        return np.asarray(factor.solve(np.ascontiguousarray(loads)))

    return solve
