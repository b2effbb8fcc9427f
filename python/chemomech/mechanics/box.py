"""Boxes of a grid with a halo of one node, on which the compiled kernels of voxels and phase fields work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from chemomech import _core
from chemomech.arrays import Bool, Float, Int32

Single = npt.NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64, np.int32)
Anything = TypeVar("Anything")
Sum = TypeVar("Sum", int, float, Float, npt.NDArray[np.intp])


@dataclass(frozen=True)
class Box:
    """A box of cells with a halo around its nodes: the whole grid, or a part of it (`parallel.grid`).

    What a solver asks beyond its own nodes, it asks the box: to fill the halo, to sum over all boxes, to coarsen.

    Attributes
    ----------
    cells : number of cells along each axis.
    periodic : axes along which the last cell is the first one's neighbour.
    """

    cells: tuple[int, int, int]
    periodic: tuple[bool, bool, bool]

    @property
    def whole(self) -> "Box":
        """The grid that this is a part of."""
        return self

    @property
    def start(self) -> tuple[int, int, int]:
        """Place of the first cell and node in the whole grid."""
        return 0, 0, 0

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """Of the cells in an array of the whole grid."""
        x, y, z = (slice(start, start + n) for start, n in zip(self.start, self.cells, strict=True))
        return x, y, z

    @property
    def node_window(self) -> tuple[slice, slice, slice]:
        """Of the owned nodes in an array of those of the whole grid."""
        x, y, z = (slice(start, start + n) for start, n in zip(self.start, self.nodes, strict=True))
        return x, y, z

    @property
    def corner_window(self) -> tuple[slice, slice, slice]:
        """Of the corners of the cells in an array of those of the whole grid; neighbours share some."""
        x, y, z = (slice(start, start + n + 1) for start, n in zip(self.start, self.cells, strict=True))
        return x, y, z

    @property
    def number(self) -> int:
        """Of this box among all boxes of the grid, from 0."""
        return 0

    @property
    def n_boxes(self) -> int:
        """How many boxes the grid is cut into."""
        return 1

    @property
    def leads(self) -> bool:
        """Whether this is the first box, which does what is to be done once."""
        return self.number == 0

    @property
    def shared(self) -> tuple[bool, bool, bool]:
        """Axes along which the halo repeats nodes that are owned."""
        return self.periodic

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

    def add_halo(self, values: npt.NDArray[Real]) -> None:
        """Transpose of `fill_halo`: add the halo of (..., X, Y, Z) to the nodes it repeats, and empty it."""
        for axis, (n, periodic) in reversed(list(enumerate(zip(self.nodes, self.periodic, strict=True)))):
            if periodic:
                along = np.moveaxis(values, axis - 3, 0)
                along[n] += along[0]
                along[1] += along[n + 1]
                along[0] = along[n + 1] = 0

    def weights(self, of_cells: npt.NDArray[Any], dtype: type[Real]) -> npt.NDArray[Real]:
        """Cell weights (m, nx, ny, nz) where the operator reads them, with halo; or anything of cells or nodes."""
        padded = np.zeros((len(of_cells), *self.shape), dtype)
        padded[:, *(slice(1, n + 1) for n in of_cells.shape[1:])] = of_cells
        self.fill_halo(padded)
        return padded

    def sum(self, values: Sum) -> Sum:
        """Over all boxes of the grid."""
        return values

    def largest(self, value: float) -> float:
        """Of all boxes of the grid; what is no number counts as infinite."""
        return math.inf if math.isnan(value) else value

    def smallest(self, value: float) -> float:
        """Of all boxes of the grid; what is no number counts as infinite."""
        return -self.largest(-value)

    def gather(self, value: Anything) -> list[Anything]:
        """What each box of the grid has, in order."""
        return [value]

    def from_first(self, value: Anything) -> Anything:
        """What the first box of the grid has."""
        return value

    def wait(self) -> None:
        """Go on when all boxes of the grid have come here."""

    def label(self, values: Bool, neighbours: Float | None) -> tuple[Int32, int]:
        """Number the connected pieces of some cells or nodes from 1 in order of their first; 0 elsewhere.

        Parameters
        ----------
        values : (nx, ny, nz).
        neighbours : (3, 3, 3) which ones touch; None for those across a face.

        Returns
        -------
        labels and the number of pieces.
        """
        margin = [(0, int(wraps)) for wraps in self.periodic]
        labels, n_labels = ndimage.label(np.pad(values, margin, mode="wrap"), neighbours)
        if not any(self.periodic):
            return labels, n_labels
        # The margin repeats the first ones: there two labels are one piece.
        inside = labels[tuple(slice(n) for n in values.shape)]
        images = np.pad(inside, margin, mode="wrap")
        both = (labels > 0) & (images > 0)
        number = joined(np.stack([labels[both], images[both]], axis=1), n_labels)
        n_pieces = int(number.max())
        order = np.zeros(n_pieces + 1, dtype=np.int32)
        order[1 + np.argsort(first_places(number[inside], n_pieces))] = np.arange(1, n_pieces + 1)
        return order[number[inside]], n_pieces

    def coarser(self, factors: tuple[int, int, int]) -> "Box":
        """The box whose cells join so many along each axis."""
        nx, ny, nz = (-(-n // factor) for n, factor in zip(self.cells, factors, strict=True))
        return Box((nx, ny, nz), self.periodic)

    # What follows lets a coarse grid be solved by every rank alone; a whole grid has nothing to do for it.
    def complete(self, values: npt.NDArray[Any], of_cells: bool) -> npt.NDArray[Any]:
        """Values (m, ...) of this box's cells or nodes, from those of the part that made them."""
        return values

    def landing(self, load: npt.NDArray[Real]) -> npt.NDArray[Real]:
        """Where the restriction from the grid above is written."""
        return load

    def arrive(self, landing: npt.NDArray[Real], load: npt.NDArray[Real]) -> None:
        """Make the load whole after a restriction."""

    def depart(self, solution: npt.NDArray[Real], landing: npt.NDArray[Real]) -> npt.NDArray[Real]:
        """The solution with its halo, as the prolongation to the grid above reads it."""
        self.fill_halo(solution)
        return solution

    # What follows brings thin parts to one rank each, where they are solved.
    def count_before(self, n: int) -> int:
        """Sum of n over the ranks before this one."""
        return 0

    def home(self, part: Int32) -> npt.NDArray[np.intp]:
        """The rank that solves each of some parts, by number."""
        return np.zeros(len(part), dtype=np.intp)

    def send_home(
        self, home: npt.NDArray[np.intp], rows: Sequence[npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[np.intp], list[npt.NDArray[Any]]]:
        """Arrays whose rows are sent to their homes: where each row came from, and the rows, by rank of origin."""
        return np.zeros(len(home), dtype=np.intp), list(rows)

    def collector(self, origin: npt.NDArray[np.intp], entries: npt.NDArray[np.intp]) -> "Collector":
        """Between vectors of all ranks and those of their entries that are solved here."""
        return Collector(entries)


class Collector:
    """Some entries of a vector, by flat index."""

    def __init__(self, entries: npt.NDArray[np.intp]) -> None:
        self._entries = entries

    def collect(self, vector: Single) -> Single:
        return vector.reshape(-1)[self._entries]

    def add(self, values: Single, vector: Single) -> None:
        vector.reshape(-1)[self._entries] += values


def first_places(labels: Int32, n: int) -> npt.NDArray[np.intp]:
    """Where each of the labels 1..n comes first, in C order; all of them do come."""
    first = np.zeros(n + 1, dtype=np.intp)
    first[labels.ravel()[::-1]] = np.arange(labels.size)[::-1]  # of several values for one place the last is kept
    return first[1:]


def joined(links: npt.NDArray[Any], n: int) -> Int32:
    """Number (n + 1,) of the component of each of 1..n under links (m, 2) between them; that of 0 is 0."""
    graph = sp.coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n + 1, n + 1))
    number = connected_components(graph, directed=False)[1]
    return np.asarray((number - number[0]) % (number.max() + 1), dtype=np.int32)
