"""Boxes of a grid with a halo of one node, on which the compiled kernels of voxels and phase fields work."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from chemomech import _core
from chemomech.arrays import Float

Single = npt.NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True)
class Box:
    """A box of cells with a halo around its nodes.

    Attributes
    ----------
    cells : number of cells along each axis.
    periodic : axes along which the last cell is the first one's neighbour.
    """

    cells: tuple[int, int, int]
    periodic: tuple[bool, bool, bool]

    @property
    def nodes(self) -> tuple[int, ...]:
        """Owned nodes along each axis."""
        return tuple(n if periodic else n + 1 for n, periodic in zip(self.cells, self.periodic, strict=True))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a component of a vector, halo and padding included."""
        nx, ny, nz = self.nodes
        return nx + 2, ny + 2, -(-(nz + 2) // _core.row_padding) * _core.row_padding

    @property
    def owned(self) -> tuple[slice, slice, slice]:
        nx, ny, nz = self.nodes
        return slice(1, nx + 1), slice(1, ny + 1), slice(1, nz + 1)

    def vector(self, dtype: type[Real]) -> npt.NDArray[Real]:
        return np.zeros((3, *self.shape), dtype)

    def fill_halo(self, values: npt.NDArray[Real]) -> None:
        """Copy periodic images into the halo of (..., X, Y, Z)."""
        for axis, (n, periodic) in enumerate(zip(self.nodes, self.periodic, strict=True)):
            if periodic:
                along = np.moveaxis(values, axis - 3, 0)
                along[0], along[n + 1] = along[n], along[1]

    def weights(self, of_cells: Float | Single, dtype: type[Real]) -> npt.NDArray[Real]:
        """Cell weights (m, nx, ny, nz) where the operator reads them."""
        padded = np.zeros((len(of_cells), *self.shape), dtype)
        padded[:, *(slice(1, n + 1) for n in self.cells)] = of_cells
        for axis, (n, periodic) in enumerate(zip(self.cells, self.periodic, strict=True)):
            if periodic:
                along = np.moveaxis(padded, axis + 1, 0)
                along[0] = along[n]
        return padded
