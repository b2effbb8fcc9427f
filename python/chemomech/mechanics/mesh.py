"""Meshes of quadratic triangles on the pixels of a particle.

A pixel is two straight-sided 6-node triangles. Their common diagonal alternates like a checkerboard, so the mesh has no
preferred direction, and its midside is the centre of the pixel: the finite element solution is known where the image
was measured. Axis 0 of an image is y, axis 1 is x, the origin is the centre of the image.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Mesh", "VertexMesh", "pixel_mesh"]


@dataclass(frozen=True, eq=False)
class VertexMesh:
    """The 3-node triangles inside the 6-node ones: the coarse space of a p-multigrid.

    Attributes
    ----------
    nodes : (n_vertices, 2) float64, x and y, nm.
    triangles : (m, 3) int32, vertices renumbered, counter-clockwise.
    vertices : (n_vertices,) int32, the node of the quadratic mesh each vertex is.
    midsides : (n_midsides,) int32, the other nodes of the quadratic mesh.
    parents : (n_midsides, 2) int32, the (renumbered) vertices at the ends of each midside's edge.
    """

    nodes: NDArray[np.float64]
    triangles: NDArray[np.int32]
    vertices: NDArray[np.int32]
    midsides: NDArray[np.int32]
    parents: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Mesh:
    """6-node triangles grouped into cells (pixels).

    Attributes
    ----------
    nodes : (n, 2) float64, x and y, nm.
    triangles : (m, 6) int32, vertices 0, 1, 2 counter-clockwise, then the midsides of (0, 1), (1, 2), (2, 0).
    cells : (m,) int32, the cell of each triangle.
    n_cells : number of cells.
    component : (n_cells,) int32, the connected piece each cell belongs to, from 0.
    centres : (n_cells,) int32, the node at the centre of each cell.
    """

    nodes: NDArray[np.float64]
    triangles: NDArray[np.int32]
    cells: NDArray[np.int32]
    n_cells: int
    component: NDArray[np.int32]
    centres: NDArray[np.int32]

    @cached_property
    def vertices(self) -> NDArray[np.int32]:
        """(n_vertices,) int32, the nodes that are vertices of triangles, ascending."""
        is_vertex = np.zeros(len(self.nodes), dtype=bool)
        is_vertex[self.triangles[:, :3]] = True
        return np.flatnonzero(is_vertex).astype(np.int32)

    @cached_property
    def boundary(self) -> NDArray[np.int32]:
        """(n_boundary,) int32, the nodes of edges that belong to one triangle only, ascending."""
        times = np.bincount(self.triangles[:, 3:].ravel(), minlength=len(self.nodes))
        on_boundary = times == 1
        for edge in range(3):
            outer = self.triangles[times[self.triangles[:, 3 + edge]] == 1]
            on_boundary[outer[:, edge]] = True
            on_boundary[outer[:, (edge + 1) % 3]] = True
        return np.flatnonzero(on_boundary).astype(np.int32)

    @cached_property
    def node_component(self) -> NDArray[np.int32]:
        """(n,) int32, the connected piece each node belongs to."""
        piece = np.empty(len(self.nodes), dtype=np.int32)
        piece[self.triangles] = self.component[self.cells][:, None]
        return piece

    @cached_property
    def cell_areas(self) -> NDArray[np.float64]:
        """(n_cells,) float64, nm^2."""
        a, b, c = (self.nodes[self.triangles[:, vertex]] for vertex in range(3))
        twice = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        areas = np.bincount(self.cells, weights=0.5 * twice, minlength=self.n_cells)
        return np.asarray(areas, dtype=np.float64)

    @cached_property
    def vertex_mesh(self) -> VertexMesh:
        """The mesh of 3-node triangles on the same vertices."""
        vertices = self.vertices
        number = np.full(len(self.nodes), -1, dtype=np.int32)
        number[vertices] = np.arange(len(vertices), dtype=np.int32)
        corners = number[self.triangles[:, :3]]
        ends = np.full((len(self.nodes), 2), -1, dtype=np.int32)
        for edge in range(3):
            ends[self.triangles[:, 3 + edge]] = corners[:, [edge, (edge + 1) % 3]]
        midsides = np.flatnonzero(ends[:, 0] >= 0).astype(np.int32)
        return VertexMesh(self.nodes[vertices], corners, vertices, midsides, ends[midsides])


def pixel_mesh(mask: NDArray[np.bool_], pixel_size_nm: float) -> Mesh:
    """Mesh of the pixels of a mask, two triangles a pixel.

    Cells are the pixels of the mask in row-major order, ``np.flatnonzero(mask)``. Pixels that touch at a corner only do
    not share its node, which would be a hinge; connected pieces are therefore those of 4-neighbours.

    Parameters
    ----------
    mask : (ny, nx) bool, the pixels of the particle.
    pixel_size_nm : side of a pixel, nm.

    Raises
    ------
    ValueError : the mask has another rank or is empty, or the pixel size is not positive.

    >>> mesh = pixel_mesh(np.ones((2, 3), dtype=bool), 10.0)
    >>> mesh.nodes.shape, mesh.triangles.shape, float(mesh.cell_areas.sum())
    ((35, 2), (12, 6), 600.0)
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 2:
        raise ValueError(f"mask must have shape (ny, nx), got {mask.shape}")
    if not mask.any():
        raise ValueError(f"mask of shape {mask.shape} has no pixel")
    if not (np.isfinite(pixel_size_nm) and pixel_size_nm > 0):
        raise ValueError(f"pixel_size_nm must be positive, got {pixel_size_nm}")
    ny, nx = mask.shape
    if (2 * ny + 1) * (2 * nx + 1) > np.iinfo(np.int32).max:
        raise ValueError(f"mask of shape {mask.shape} is too large for 32-bit node numbers")

    # Nodes lie on a grid of half pixels: corners at even-even places, centres at odd-odd ones.
    used = np.zeros((2 * ny + 1, 2 * nx + 1), dtype=bool)
    for dy in range(3):
        for dx in range(3):
            used[dy : dy + 2 * ny : 2, dx : dx + 2 * nx : 2] |= mask
    number = np.cumsum(used, dtype=np.int32).reshape(used.shape) - np.int32(1)
    half_y, half_x = np.nonzero(used)
    nodes = 0.5 * pixel_size_nm * np.column_stack([half_x - float(nx), half_y - float(ny)])

    row, column = np.nonzero(mask)
    n_cells = len(row)
    # Corners and midsides counter-clockwise from the one with the smallest x and y.
    places = [(0, 0), (0, 2), (2, 2), (2, 0), (0, 1), (1, 2), (2, 1), (1, 0), (1, 1)]
    local = np.empty((n_cells, 9), dtype=np.int32)
    for at, (dy, dx) in enumerate(places):
        local[:, at] = number[2 * row + dy, 2 * column + dx]
    nodes = _part_hinges(mask, local, nodes)

    triangles = np.empty((n_cells, 2, 6), dtype=np.int32)
    odd = (row + column) % 2 == 1
    triangles[~odd] = local[~odd][:, [[0, 1, 2, 4, 5, 8], [0, 2, 3, 8, 6, 7]]]
    triangles[odd] = local[odd][:, [[0, 1, 3, 4, 8, 7], [1, 2, 3, 5, 6, 8]]]
    labels, _ = ndimage.label(mask)
    return Mesh(
        nodes=nodes,
        triangles=triangles.reshape(-1, 6),
        cells=np.repeat(np.arange(n_cells, dtype=np.int32), 2),
        n_cells=n_cells,
        component=(labels[mask] - 1).astype(np.int32),
        centres=local[:, 8].copy(),
    )


def _part_hinges(mask: NDArray[np.bool_], local: NDArray[np.int32], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give one of two pixels that touch at a corner only a node of its own there; changes ``local``."""
    upper_left, upper_right = mask[:-1, :-1], mask[:-1, 1:]
    lower_left, lower_right = mask[1:, :-1], mask[1:, 1:]
    cell = np.cumsum(mask).reshape(mask.shape) - 1
    falling = upper_left & lower_right & ~upper_right & ~lower_left
    rising = upper_right & lower_left & ~upper_left & ~lower_right
    for hinge, lower, corner in ((falling, cell[1:, 1:], 0), (rising, cell[1:, :-1], 1)):
        cells = lower[hinge]
        shared = nodes[local[cells, corner]]
        local[cells, corner] = len(nodes) + np.arange(len(cells), dtype=np.int32)
        nodes = np.concatenate([nodes, shared])
    return nodes
