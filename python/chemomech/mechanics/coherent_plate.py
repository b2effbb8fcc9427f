"""Elastic energy of a thin coherent plate of one phase in another, by the normal of its faces.

With the misfit eps, stress sigma = C : eps and the acoustic tensor G_ik = n_j C_ijkl n_l of the normal n, a plate that
may relax along n alone stores B(n) = 1/2 (eps : C : eps - (sigma n) . G^-1 (sigma n)) per volume (Khachaturyan 1983,
ch. 8). Phase boundaries lie where B is least.
"""

import numpy as np

from chemomech.arrays import Float, require_shape
from chemomech.mechanics.stiffness import VOIGT

_VOIGT = {3: np.array([[0, 2], [2, 1]]), 6: VOIGT}


def plate_energy(stiffness_GPa: Float, misfit: Float, normals: Float) -> Float:
    """B(n) in GPa.

    Parameters
    ----------
    stiffness_GPa : (6, 6) Voigt, or (3, 3) of a thin body in plane stress, order aa, cc, ac.
    misfit : (6,) or (3,) likewise, engineering shears.
    normals : (..., 3) or (..., 2) unit vectors.

    >>> plate_energy(np.eye(3), np.array([0.0, 0.1, 0.0]), np.array([[1.0, 0.0], [0.0, 1.0]])).tolist()
    [0.005000000000000001, 0.0]
    """
    size = len(stiffness_GPa)
    require_shape(stiffness_GPa, "stiffness_GPa", (size, size))
    require_shape(misfit, "misfit", (size,))
    voigt = _VOIGT[size]
    tensor = stiffness_GPa[voigt[:, :, None, None], voigt[None, None]]
    stress = stiffness_GPa @ misfit
    traction = np.einsum("ij,...j->...i", stress[voigt], normals)
    acoustic = np.einsum("...j,ijkl,...l->...ik", normals, tensor, normals)
    relaxed = np.einsum("...i,...i", traction, np.linalg.solve(acoustic, traction[..., None])[..., 0])
    return np.asarray((misfit @ stress - relaxed) / 2)


def softest_angle(stiffness_GPa: Float, misfit: Float) -> float:
    """Angle in degrees, 0 to 90, from a to the normal in the a-c plane whose plate stores least.

    Parameters
    ----------
    stiffness_GPa, misfit : as for `plate_energy`.
    """
    angles = np.linspace(0, np.pi / 2, 9001)
    normals = np.zeros((len(angles), 2 if len(stiffness_GPa) == 3 else 3))
    normals[:, 0], normals[:, -1] = np.cos(angles), np.sin(angles)
    return float(np.degrees(angles[plate_energy(stiffness_GPa, misfit, normals).argmin()]))
