"""A thin body full of dislocations, free of traction at its edge."""

from collections.abc import Callable

import numpy as np

from chemomech.arrays import Bool, Float
from chemomech.mechanics.dislocations import DensityField
from chemomech.mechanics.plane_stress import PlaneStress

#: The channels aa, cc, 2 ac, rotation of the components xx, xy, yx, yy of a distortion.
CHANNELS_OF_DISTORTION = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 0], [0, -0.5, 0.5, 0]])


class DislocatedBody:
    """Lattice distortion of a body that holds dislocations of one kind, and its exact transpose.

    The field of the density in an infinite crystal has its curl; the compatible distortion that brings it into
    equilibrium, with traction-free edges, is the answer of the body to its strain taken off as an eigenstrain (Deng SI,
    eqs. 6.4-6.6). Only the curl matters: whatever else an infinite field holds, plane strain among it, is taken off
    with it.

    Parameters
    ----------
    body : traction-free, with a cell for each pixel of `mask`.
    mask : (ny, nx) bool.
    field : of the dislocations, on the same grid.
    """

    def __init__(self, body: PlaneStress, mask: Bool, field: DensityField) -> None:
        self._body = body
        self._mask = mask
        self._field = field

    def distortion(self, density_per_nm2: Float) -> Float:
        """Channels aa, cc, 2 ac, rotation (n_pixels, 4, k) of signed densities (n_pixels, k), lines per nm^2."""
        components = [self._field.distortion(self._map(column))[self._mask] for column in density_per_nm2.T]
        channels = np.einsum("ij,kpj->pik", CHANNELS_OF_DISTORTION, np.array(components).reshape(-1, self._n_pixels, 4))
        return np.asarray(channels - self._body.distortion(self._answer(channels[:, :3])))

    def transpose(self, channels: Float) -> Float:
        """Transpose of `distortion`: (n_pixels, 4, k) to (n_pixels, k)."""
        loads = self._body.distortion_transpose(channels)
        strain = self._body.eigenstrain_loads_transpose(self._body.displacement(loads))
        rest = channels.copy()
        rest[:, :3] -= strain
        components = np.einsum("ij,pik->kpj", CHANNELS_OF_DISTORTION, rest).reshape(-1, self._n_pixels, 2, 2)
        return np.stack([self._field.adjoint(self._map(values))[self._mask] for values in components], axis=-1)

    def normal_inverse(self, weights: Float, floor: float) -> Callable[[Float], Float]:
        """About (G^T W G + floor)^-1 of values (n_pixels, k), G the `distortion` as it is far from the edge.

        Parameters
        ----------
        weights : (4,) of the squared channels.
        floor : above 0.
        """
        invert = self._field.normal_inverse((CHANNELS_OF_DISTORTION.T * weights) @ CHANNELS_OF_DISTORTION, floor)
        return lambda values: np.stack([invert(self._map(column))[self._mask] for column in values.T], axis=-1)

    @property
    def _n_pixels(self) -> int:
        return self._body.mesh.n_cells

    def _answer(self, strain: Float) -> Float:
        return self._body.displacement(self._body.eigenstrain_loads(strain))

    def _map(self, values: Float) -> Float:
        grid = np.zeros((*self._mask.shape, *values.shape[1:]))
        grid[self._mask] = values
        return grid
