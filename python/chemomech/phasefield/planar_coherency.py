"""Elastic energy of coherency between the pixels of a thin particle, as a quadratic form of the composition.

The stress-free strain grows in proportion to the lithium fraction, eps0 = misfit c (Zhao et al. 2023, Chemomechanics),
and the particle is in equilibrium at every moment, so that the elastic part of the chemical potential

    mu_el = -sigma : (d eps0 / dc) / c_s,   sigma = C (eps(u) - misfit c),   div sigma = 0 without traction

is linear in c: one factorisation of the plate gives the matrix for all times. The matrix is symmetric, feels no uniform
composition, and lies between 0 and misfit C misfit / c_s.
"""

import numpy as np

from chemomech.arrays import Bool, Float, require_shape
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import plane_stress

#: In-plane misfit of LiFePO4 relative to FePO4: aa, cc, 2 ac.
OLIVINE_MISFIT = np.array([0.05, -0.02, 0.0])
#: Modes of less than this part of the stiffest are left out: below 1e-3 kT for the olivine.
_SOFTEST = 3e-4


def coherency_modes(
    mask: Bool, pixel_size_nm: float, misfit: Float, stiffness_GPa: Float, energy_density_GPa: float
) -> Float:
    """Matrix V (n_pixels, rank) with mu_el / kT = V V^T c for the mean compositions c of the pixels.

    Parameters
    ----------
    misfit : (3,) stress-free strain from c = 0 to c = 1: aa, cc, 2 ac.
    stiffness_GPa : (6, 6) Voigt, crystal axes; axis 0 of the mask is c, axis 1 is a.
    energy_density_GPa : c_s kT.

    Raises
    ------
    InputError : shapes that do not fit, or a stiffness that is not positive definite.
    """
    require_shape(misfit, "misfit", (3,))
    plate = plane_stress(stiffness_GPa)
    body = PlaneStress(pixel_mesh(mask, pixel_size_nm), plate, solver="direct")
    n = body.mesh.n_cells
    eigenstrain = misfit[None, :, None] * np.eye(n)[:, None, :]
    loads = body.eigenstrain_loads(eigenstrain)
    stress_of_strain = body.eigenstrain_loads_transpose(body.displacement(loads)) / pixel_size_nm**2
    relaxed = np.einsum("i,cik->ck", misfit, stress_of_strain)
    matrix = (misfit @ plate @ misfit * np.eye(n) - (relaxed + relaxed.T) / 2) / energy_density_GPa
    values, vectors = np.linalg.eigh(matrix)
    kept = values > _SOFTEST * values[-1]
    return np.ascontiguousarray(vectors[:, kept] * np.sqrt(values[kept]))
