"""Elastic constants of the olivines and their plane-stress reduction.

Voigt order aa, bb, cc, bc, ac, ab with engineering shears, in GPa.
"""

import numpy as np

from chemomech.arrays import Float, require_shape
from chemomech.errors import InputError

#: Voigt component of the tensor component ij, and the components in the a-c plane: aa, cc, ac.
VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
IN_PLANE = [0, 2, 4]


def orthorhombic(
    *, c11: float, c22: float, c33: float, c44: float, c55: float, c66: float, c12: float, c13: float, c23: float
) -> Float:
    """Voigt stiffness (6, 6) of an orthorhombic crystal from its nine constants, GPa."""
    stiffness = np.diag([c11, c22, c33, c44, c55, c66])
    stiffness[0, 1] = stiffness[1, 0] = c12
    stiffness[0, 2] = stiffness[2, 0] = c13
    stiffness[1, 2] = stiffness[2, 1] = c23
    return stiffness


#: FePO4 and LiFePO4, first principles (Maxisch & Ceder 2006; Deng SI, Table S4).
FEPO4 = orthorhombic(c11=175.9, c22=153.6, c33=135.0, c44=38.8, c55=47.5, c66=55.6, c12=29.6, c13=54.0, c23=19.6)
LIFEPO4 = orthorhombic(c11=138.9, c22=198.0, c33=173.0, c44=36.8, c55=50.6, c66=47.6, c12=72.8, c13=52.5, c23=45.8)
#: Their mean, which Deng SI, Table S1 uses at every composition.
OLIVINE = (FEPO4 + LIFEPO4) / 2


def plane_stress(stiffness_GPa: Float) -> Float:
    """Stiffness of a plate thin along b, for the strains (eps_aa, eps_cc, 2 eps_ac).

    The stresses along b vanish: with the in-plane components i, j and the others k, l (bb, bc, ab),
    C_ij - C_ik (C_kl)^-1 C_lj. For orthorhombic axes this is Deng SI, eq. 3.9, with
    sigma_ac = C55 (2 eps_ac); the factor 2 is missing there.

    Parameters
    ----------
    stiffness_GPa : (6, 6) Voigt, engineering shears, crystal axes.

    Returns
    -------
    (3, 3) GPa, in the order aa, cc, ac.

    Raises
    ------
    InputError : the stiffness is not a symmetric positive definite (6, 6) matrix.

    >>> plane_stress(OLIVINE).round(2).tolist()
    [[142.49, 43.73, 0.0], [43.73, 147.92, 0.0], [0.0, 0.0, 49.05]]
    """
    require_shape(stiffness_GPa, "stiffness_GPa", (6, 6))
    if not np.allclose(stiffness_GPa, stiffness_GPa.T) or np.linalg.eigvalsh(stiffness_GPa).min() <= 0:
        raise InputError("stiffness_GPa must be symmetric and positive definite")
    inside, outside = IN_PLANE, [1, 3, 5]
    coupling = stiffness_GPa[np.ix_(inside, outside)]
    relaxed = coupling @ np.linalg.solve(stiffness_GPa[np.ix_(outside, outside)], coupling.T)
    return np.asarray(stiffness_GPa[np.ix_(inside, inside)] - relaxed)
