"""Nodes of a body of voxels, where compositions live: their volumes, their edges, and their surfaces.

Linear elements with quadrature at the corners: a node has an eighth of every voxel around it, and two neighbours along
an axis exchange through a quarter of the cross-section of every voxel that they share. What is absent takes no part, so
that nothing flows through the surface of the solid.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chemomech.arrays import Bool, Float
from chemomech.mechanics.box import Box


@dataclass(frozen=True, eq=False)
class NodeGrid:
    """The nodes of a body, on a box with a halo (X, Y, Z).

    Attributes
    ----------
    box : the box.
    spacing_nm : (3,) edges of a voxel.
    mass : (X, Y, Z) volume of each node, nm^3; 0 where there is no voxel.
    edges : (3, X, Y, Z) cross-section over length of the edge from a node to the next along each axis, nm.
    surface : (X, Y, Z) area of the solid's surface that belongs to each node, nm^2.
    """

    box: Box
    spacing_nm: Float
    mass: Float
    edges: Float
    surface: Float

    @cached_property
    def exists(self) -> Bool:
        """(X, Y, Z), owned nodes with a volume."""
        exists = np.zeros(self.box.shape, dtype=bool)
        exists[self.box.owned] = self.mass[self.box.owned] > 0
        return exists

    @cached_property
    def volume(self) -> float:
        """nm^3."""
        return self.box.sum(float(self.mass[self.box.owned].sum()))

    def field(self, values: float = 0.0) -> Float:
        """A new field (X, Y, Z)."""
        return np.full(self.box.shape, values)

    def integral(self, values: Float) -> float:
        """Of a field over the body: values times nm^3."""
        return self.box.sum(float(np.einsum("ijk,ijk->", values[self.box.owned], self.mass[self.box.owned])))

    def extremes(self, field: Float) -> tuple[float, float]:
        """The lowest and the highest value of a field."""
        inside = field[self.exists]
        lowest, highest = float(inside.min(initial=np.inf)), float(inside.max(initial=-np.inf))
        return self.box.smallest(lowest), self.box.largest(highest)

    def amplitude(self, field: Float) -> float:
        """The largest absolute value of a field."""
        return self.box.largest(float(np.abs(field[self.exists]).max(initial=0.0)))

    def per_volume(self, amounts: Float) -> Float:
        """Amounts (X, Y, Z) of nodes over their volumes, 0 where there is no node."""
        return np.divide(amounts, self.mass, out=self.field(), where=self.exists)

    def of_nodes(self, values: Float) -> Float:
        """The field (X, Y, Z) of values at the nodes (nodes...)."""
        field = self.field()
        field[self.box.owned] = values
        self.box.fill_halo(field)
        return field

    def at_corners(self, field: Float) -> Float:
        """A field, halo filled, at the corners (nx + 1, ny + 1, nz + 1) of the cells."""
        return field[tuple(slice(1, n + 2) for n in self.box.cells)]

    def cell_means(self, field: Float) -> Float:
        """Means (nx, ny, nz) of a field, halo filled, over the corners of every cell."""
        nx, ny, nz = self.box.cells
        mean = field
        for axis, n in enumerate((nx, ny, nz)):
            along = np.moveaxis(mean, axis, 0)
            mean = np.moveaxis(along[1 : n + 1] + along[2 : n + 2], 0, axis)
        return np.ascontiguousarray(mean) / 8

    def gather(self, cells: Float) -> Float:
        """The transpose of `cell_means`: an eighth of what is given for each cell (nx, ny, nz), to its corners."""
        total = self.field()
        total[tuple(slice(1, n + 1) for n in self.box.cells)] = cells / 8
        for axis in range(3):
            along = np.moveaxis(total, axis, 0)
            along[1:] += along[:-1].copy()
        self.box.add_halo(total)
        self.box.fill_halo(total)
        return total


def node_grid(solid: Bool, spacing_nm: Float, box: Box) -> NodeGrid:
    """The nodes of the voxels `solid` (nx, ny, nz) of a box."""
    cells = box.weights(solid[None].astype(float), np.float64)[0]
    volume = float(np.prod(spacing_nm))
    edges, surface = [], np.zeros(box.shape)
    for axis, length in enumerate(spacing_nm):
        around = cells
        for other in {0, 1, 2} - {axis}:
            around = around + np.roll(around, 1, other)
        edges.append(around * volume / (4 * length**2))
        faces = np.abs(cells - np.roll(cells, 1, axis))  # between a voxel and the one before it
        for other in {0, 1, 2} - {axis}:
            faces = faces + np.roll(faces, 1, other)
        surface += faces * volume / (4 * length)
    mass = cells
    for axis in range(3):
        mass = mass + np.roll(mass, 1, axis)
    grid = NodeGrid(box, spacing_nm, mass * volume / 8, np.stack(edges), surface)
    for field in (grid.mass, grid.edges, grid.surface):
        box.fill_halo(field)
    return grid
