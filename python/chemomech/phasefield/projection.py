"""What a microscope sees of a particle along b, and what its analysis in the plane makes of it.

Maps have axis 0 along c and axis 1 along a, like measured ones; strain components are aa, cc and 2 ac.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from chemomech.arrays import Bool, Float
from chemomech.mechanics.box import Box
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import IN_PLANE, plane_stress
from chemomech.mechanics.voxel import Equilibrium, depth_average
from chemomech.phasefield.coherency import Eigenstrain


@dataclass(frozen=True, eq=False)
class Projection:
    """Means along b (nz, nx, ...), NaN where the beam meets no solid.

    Attributes
    ----------
    composition : lithium fraction.
    total : strain relative to LiFePO4, (nz, nx, 3).
    coherency : elastic strain.
    residual : total strain less the eigenstrain of the mean composition and less the elastic strain of a plate of that
        composition in plane stress. It is what an analysis in the plane (models M0, M1) leaves unexplained.
    spacing_nm : (2,) edges of a pixel along a and c.
    """

    composition: Float
    total: Float
    coherency: Float
    residual: Float
    spacing_nm: Float

    @property
    def boundary_angle(self) -> float:
        """Angle in degrees, 0 to 90, from a to the normal of the phase boundaries; NaN in a uniform particle.

        The axis along which the squared gradients of the composition add up to most, mirrored into one quadrant: the
        two equivalent orientations count as one. Pixels beside an edge are left out: a boundary meets it at an angle of
        its own.
        """
        x = self.composition
        if min(x.shape) < 2:
            return float("nan")
        along_c, along_a = np.gradient(x)
        a, c = along_a / self.spacing_nm[0], along_c / self.spacing_nm[1]
        inside = np.isfinite(a) & np.isfinite(c) & _away_from_edges(np.isfinite(x))
        if not inside.any():
            return float("nan")
        a, c = a[inside], c[inside]
        mixed = np.abs(a * c).sum()
        values, axes = np.linalg.eigh([[(a**2).sum(), mixed], [mixed, (c**2).sum()]])
        if values[1] <= 0:
            return float("nan")
        return float(np.degrees(np.arctan2(abs(axes[1, 1]), abs(axes[0, 1]))))


def _away_from_edges(mask: Bool) -> Bool:
    """Pixels further from an edge than a sixth of the particle's width there."""
    distance = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.asarray(distance > distance.max() / 3)


def project(
    solid: Bool,
    spacing_nm: Float,
    composition: Float,
    elastic: Equilibrium,
    eigenstrain: Eigenstrain,
    stiffness_GPa: Float,
    box: Box,
) -> Projection:
    """Look at a relaxed particle along b.

    Parameters
    ----------
    solid : (nx, ny, nz).
    composition : (nx, ny, nz), of the voxels.
    elastic : its equilibrium.
    stiffness_GPa : (6, 6), for the analysis in the plane.
    box : the grid, or a part of it that is not cut along b; all boxes call together.
    """
    mean = as_map(depth_average(composition, solid), box)
    total = as_map(depth_average((elastic.elastic_strain + eigenstrain(composition))[..., IN_PLANE], solid), box)
    coherency = as_map(depth_average(elastic.elastic_strain[..., IN_PLANE], solid), box)
    spacing = np.array([spacing_nm[0], spacing_nm[2]])
    residual = np.full_like(total, np.nan)
    if box.leads:
        mask = np.isfinite(mean)
        stress_free = eigenstrain(mean[mask])[:, IN_PLANE]
        residual[mask] = total[mask] - _planar_strain(mask, spacing, stress_free, plane_stress(stiffness_GPa))
    residual = box.from_first(residual)
    return Projection(mean, total, coherency, residual, spacing)


def as_map(columns: Float, box: Box) -> Float:
    """What every box has for its columns along b (nx, nz, ...), as a map (nz, nx, ...) of the whole."""
    nx, _, nz = box.whole.cells
    whole = np.full((nx, nz, *columns.shape[2:]), np.nan)
    for (x, _, z), part in box.gather((box.window, columns)):
        whole[x, z] = part
    return whole.swapaxes(0, 1)


def _planar_strain(mask: Bool, spacing_nm: Float, stress_free: Float, stiffness: Float) -> Float:
    """Total strain (n_pixels, 3) of a plate in plane stress."""
    mesh = pixel_mesh(mask, 1.0)
    body = PlaneStress(replace(mesh, nodes=mesh.nodes * spacing_nm), stiffness)
    return body.strain(body.displacement(body.eigenstrain_loads(stress_free[..., None])))[..., 0]
