"""A voxel grid cut into boxes, one a rank; a solver written against `Box` then works on all of them.

PETSc's star forests do the exchange. They take our arrays as they are, in single and double precision: a DMDA would
copy every vector of the cycle to a double-precision one and back. Boxes begin at multiples of a power of 2, so that
each coarse box is made of the rank's own fine cells. The grid on which that ends, or that is small enough, every rank
solves whole: to exchange its halos would take longer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from petsc4py import PETSc
from scipy import ndimage

from chemomech import _core
from chemomech.arrays import Bool, Float, Int, Int32
from chemomech.errors import InputError
from chemomech.mechanics.box import Anything, Box, Collector, Real, Single, Sum, first_places, joined

#: Nodes of a grid that every rank solves whole. At 2e4 that takes as long as the messages of a distributed one.
_WHOLE_NODES = 20_000
#: What a level costs relative to the finest, a node: the smoother's degree makes it more on those below (10, 20 to 2).
_COST = (6.0, 21.0, 41.0)
#: A grid with fewer has no coarser one.
_LEAST_UNKNOWNS = 1000
_TYPES = {"f": MPI.FLOAT, "d": MPI.DOUBLE, "i": MPI.INT32_T}


@dataclass(frozen=True)
class Part(Box):
    """The box of one rank.

    Attributes
    ----------
    grid : the whole.
    bounds : along each axis, where the nodes of each box begin, and where those of the last end.
    comm : the ranks, in C order of their boxes.
    """

    grid: Box
    bounds: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    comm: MPI.Intracomm

    @property
    def whole(self) -> Box:
        return self.grid

    @property
    def shared(self) -> tuple[bool, bool, bool]:
        x, y, z = (len(b) > 2 or wraps for b, wraps in zip(self.bounds, self.periodic, strict=True))
        return x, y, z

    @property
    def start(self) -> tuple[int, int, int]:
        x, y, z = (b[i] for b, i in zip(self.bounds, self._place(self.comm.rank), strict=True))
        return x, y, z

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(b[i + 1] - b[i] for b, i in zip(self.bounds, self._place(self.comm.rank), strict=True))

    @property
    def number(self) -> int:
        return int(self.comm.rank)

    @property
    def n_boxes(self) -> int:
        return int(self.comm.size)

    def fill_halo(self, values: npt.NDArray[Real]) -> None:
        forest, unit = self._halo(values), _TYPES[values.dtype.char]
        forest.bcastBegin(unit, values, values, MPI.REPLACE)
        forest.bcastEnd(unit, values, values, MPI.REPLACE)

    def add_halo(self, values: npt.NDArray[Real]) -> None:
        forest, unit = self._halo(values), _TYPES[values.dtype.char]
        inside = np.zeros_like(values)
        inside[..., *self.owned] = values[..., *self.owned]
        forest.reduceBegin(unit, values, inside, MPI.SUM)
        forest.reduceEnd(unit, values, inside, MPI.SUM)
        values[...] = inside

    def sum(self, values: Sum) -> Sum:
        if not isinstance(values, np.ndarray):
            return self.comm.allreduce(values)  # type: ignore[no-any-return]
        total = np.empty_like(values)
        self.comm.Allreduce(np.ascontiguousarray(values), total)
        return total

    def largest(self, value: float) -> float:
        # A maximum may lose what is no number.
        return float(self.comm.allreduce(np.inf if np.isnan(value) else value, MPI.MAX))

    def gather(self, value: Anything) -> list[Anything]:
        return list(self.comm.allgather(value))

    def from_first(self, value: Anything) -> Anything:
        return self.comm.bcast(value)  # type: ignore[no-any-return]

    def wait(self) -> None:
        self.comm.Barrier()

    def label(self, values: Bool, neighbours: Float | None) -> tuple[Int32, int]:
        own, n_own = ndimage.label(values, neighbours)
        before = self.count_before(n_own)
        padded = self.weights(np.where(own > 0, own + before, 0)[None], np.int32)[0]
        # What touches in the box with its halo is one piece, here and there.
        seen, _ = ndimage.label(padded > 0, neighbours)
        place = np.array(np.unravel_index(first_places(own, n_own), own.shape))
        halo = np.nonzero(self._repeated() & (padded > 0))
        of_own = np.stack([seen[tuple(place + 1)], before + np.arange(1, n_own + 1)], axis=1)
        pairs = np.unique(np.concatenate([of_own, np.stack([seen[halo], padded[halo]], axis=1)]), axis=0)
        links = np.stack([pairs[:-1, 1], pairs[1:, 1]], axis=1)[pairs[:-1, 0] == pairs[1:, 0]]
        first = np.ravel_multi_index(tuple(place + np.array(self.start)[:, None]), np.add(self.grid.cells, 1))
        links, first = (np.concatenate(self.comm.allgather(part)) for part in (links, first))
        number = joined(links, len(first))
        earliest = np.full(number.max(initial=0) + 1, np.iinfo(np.int64).max)
        np.minimum.at(earliest, number[1:], first)
        order = np.zeros(len(earliest), dtype=np.int32)
        order[1 + np.argsort(earliest[1:])] = np.arange(1, len(earliest))
        return order[number[np.where(own > 0, own + before, 0)]], len(earliest) - 1

    def coarser(self, factors: tuple[int, int, int]) -> Box:
        grid = self.grid.coarser(factors)
        x, y, z = (
            (*(begin // factor for begin in b[:-1]), n)
            for b, factor, n in zip(self.bounds, factors, grid.nodes, strict=True)
        )
        part = _part(grid, (x, y, z), self.comm)
        even = all(begin % 2 == 0 for b in part.bounds for begin in b[:-1])
        if even and np.prod(grid.nodes) > _WHOLE_NODES:
            return part
        return Gathered(grid.cells, grid.periodic, part)

    def count_before(self, n: int) -> int:
        return self.comm.exscan(n) or 0

    def home(self, part: Int32) -> npt.NDArray[np.intp]:
        """The first rank that holds any of it."""
        here = np.unique(part)
        held_by = self.comm.allgather(here)
        parts = np.concatenate(held_by)
        ranks = np.repeat(np.arange(self.comm.size), [len(each) for each in held_by])
        found, first = np.unique(parts, return_index=True)
        return np.asarray(ranks[first][np.searchsorted(found, part)])

    def send_home(
        self, home: npt.NDArray[np.intp], rows: Sequence[npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[np.intp], list[npt.NDArray[Any]]]:
        arrived = self.comm.alltoall([[row[home == rank] for row in rows] for rank in range(self.comm.size)])
        origin = np.repeat(np.arange(self.comm.size), [len(rows[0]) for rows in arrived])
        return origin, [np.concatenate(parts) for parts in zip(*arrived, strict=True)]

    def collector(self, origin: npt.NDArray[np.intp], entries: npt.NDArray[np.intp]) -> Collector:
        return _ForestCollector(_forest(self.comm, 3 * int(np.prod(self.shape)), None, origin, entries), len(entries))

    def forest_to(self, at: Int, shape: Sequence[int], nodes: Int, components: int) -> PETSc.SF:
        """From the owners of nodes (n, 3) of the grid to places `at` (n, 3) of an array (components, shape) here."""
        nodes = nodes % np.array(self.grid.nodes)
        owner = np.stack([np.searchsorted(b, x, "right") - 1 for b, x in zip(self.bounds, nodes.T, strict=True)])
        begin, width = (
            np.stack([of_parts[i] for of_parts, i in zip(parts, owner, strict=True)])
            for parts in ([np.array(b) for b in self.bounds], [np.diff(b) for b in self.bounds])
        )
        nx, ny, nz = width[0] + 2, width[1] + 2, _row_length(width[2])
        i, j, k = nodes.T - begin + 1
        remote, volumes = (i * ny + j) * nz + k, nx * ny * nz
        local, volume = np.ravel_multi_index(tuple(at.T), tuple(shape)), int(np.prod(shape))
        rank = np.ravel_multi_index(tuple(owner), [len(b) - 1 for b in self.bounds])
        step = np.arange(components)[:, None]
        places = ((step * volume + local).ravel(), np.tile(rank, components), (step * volumes + remote).ravel())
        return _forest(self.comm, components * int(np.prod(self.shape)), *places)

    def _place(self, rank: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(rank, [len(b) - 1 for b in self.bounds]))

    def _halo(self, values: npt.NDArray[Any]) -> PETSc.SF:
        """Fills the halo of (..., X, Y, Z); made once for each number of components."""
        components = values.size // int(np.prod(self.shape))
        if components not in self._halos:
            at = np.argwhere(self._repeated())
            self._halos[components] = self.forest_to(at, self.shape, at - 1 + self.start, components)
        return self._halos[components]

    @cached_property
    def _halos(self) -> dict[int, PETSc.SF]:
        return {}

    def _repeated(self) -> Bool:
        """Where the halo stands for a node that some rank owns."""
        inside = []
        axes = (self.shape, self.start, self.nodes, self.grid.nodes, self.periodic)
        for length, start, n, total, wraps in zip(*axes, strict=True):
            place = start + np.arange(length) - 1
            inside.append((np.arange(length) < n + 2) & (wraps | (place >= 0) & (place < total)))
        exists = inside[0][:, None, None] & inside[1][:, None] & inside[2]
        exists[self.owned] = False
        return exists


@dataclass(frozen=True)
class Gathered(Box):
    """A coarse grid that every rank has whole, and the part of it by which it is joined to the finer one."""

    part: Part

    def complete(self, values: npt.NDArray[Any], of_cells: bool) -> npt.NDArray[Any]:
        padded = self.part.weights(values, np.float32)
        whole = np.zeros((len(values), *self.shape), np.float32)
        self._gather(padded, whole)
        return whole[:, *(slice(1, n + 1) for n in (self.cells if of_cells else self.nodes))].astype(values.dtype)

    def landing(self, load: npt.NDArray[Real]) -> npt.NDArray[Real]:
        return np.zeros((len(load), *self.part.shape), load.dtype)

    def arrive(self, landing: npt.NDArray[Real], load: npt.NDArray[Real]) -> None:
        self._gather(landing, load)

    def depart(self, solution: npt.NDArray[Real], landing: npt.NDArray[Real]) -> npt.NDArray[Real]:
        self.fill_halo(solution)
        nx, ny, nz = (n + 2 for n in self.part.nodes)
        x, y, z = self.part.start
        landing[:, :nx, :ny, :nz] = solution[:, x : x + nx, y : y + ny, z : z + nz]
        return landing

    def _gather(self, of_part: npt.NDArray[Real], whole: npt.NDArray[Real]) -> None:
        components, unit = len(whole), _TYPES[whole.dtype.char]
        if components not in self._forests:
            at = np.argwhere(np.ones(self.nodes, dtype=bool)) + 1
            self._forests[components] = self.part.forest_to(at, self.shape, at - 1, components)
        self._forests[components].bcastBegin(unit, of_part, whole, MPI.REPLACE)
        self._forests[components].bcastEnd(unit, of_part, whole, MPI.REPLACE)

    @cached_property
    def _forests(self) -> dict[int, PETSc.SF]:
        return {}


class _ForestCollector(Collector):
    """Entries of the vectors of all ranks."""

    def __init__(self, forest: PETSc.SF, n: int) -> None:
        self._forest, self._n = forest, n

    def collect(self, vector: Single) -> Single:
        values = np.empty(self._n, np.float32)
        self._forest.bcastBegin(MPI.FLOAT, vector, values, MPI.REPLACE)
        self._forest.bcastEnd(MPI.FLOAT, vector, values, MPI.REPLACE)
        return values

    def add(self, values: Single, vector: Single) -> None:
        self._forest.reduceBegin(MPI.FLOAT, values, vector, MPI.SUM)
        self._forest.reduceEnd(MPI.FLOAT, values, vector, MPI.SUM)


def cut(
    cells: tuple[int, int, int],
    periodic: tuple[bool, bool, bool] = (False, False, False),
    comm: MPI.Intracomm | None = None,
    uncut: Sequence[int] = (),
) -> Part:
    """This rank's part of a grid, cut so that the slowest rank of a solution is as fast as can be.

    Parameters
    ----------
    cells : of the whole grid.
    comm : the ranks, all by default.
    uncut : axes along which every part is as long as the grid.

    Raises
    ------
    InputError : the grid is too small for so many ranks.

    >>> part = cut((128, 64, 64))
    >>> body = VoxelBody(solid[part.window], (1, 1, 1), OLIVINE, box=part)
    """
    comm = MPI.COMM_WORLD if comm is None else comm
    grid = Box(cells, periodic)
    best: tuple[float, tuple[tuple[int, ...], ...]] | None = None
    for counts in _products_of_three(comm.size):
        if any(counts[axis] > 1 for axis in uncut):
            continue
        for power in range(1, 8):
            along = [_bounds(n, parts, 2**power) for n, parts in zip(grid.nodes, counts, strict=True)]
            if not all(along):
                break
            cost = _solution_cost(grid, along, power)
            if best is None or cost < best[0]:
                best = cost, tuple(along)
    if best is None or 3 * np.prod(grid.nodes) < _LEAST_UNKNOWNS:
        raise InputError(
            f"a grid of {' x '.join(map(str, cells))} voxels is too small for {comm.size} ranks: each needs two nodes "
            "along every axis that is cut, and 50,000 in all to be worth its messages"
        )
    x, y, z = best[1]
    return _part(grid, (x, y, z), comm)


def _part(grid: Box, bounds: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], comm: MPI.Intracomm) -> Part:
    place = np.unravel_index(comm.rank, [len(b) - 1 for b in bounds])
    # The last nodes of a grid that does not wrap have no cell behind them.
    x, y, z = (
        b[i + 1] - b[i] - int(i == len(b) - 2 and not wraps)
        for b, i, wraps in zip(bounds, place, grid.periodic, strict=True)
    )
    return Part((x, y, z), grid.periodic, grid, bounds, comm)


def _bounds(n: int, parts: int, step: int) -> tuple[int, ...]:
    """Where parts of nearly n / parts nodes begin, at multiples of a step, and n; empty if one had less than two."""
    begins = [round(i * n / parts / step) * step for i in range(parts)]
    bounds = (*begins, n)
    return bounds if np.diff(bounds).min() >= 2 else ()


def _solution_cost(grid: Box, bounds: Sequence[tuple[int, ...]], power: int) -> float:
    """Work of the slowest rank in a cycle, in smoothing steps of a node; nodes of halos and padding take as long."""
    widths = [int(max(np.diff(b))) for b in bounds]
    widths[2] = _row_length(widths[2])
    halo = sum(2 * np.prod(widths) / w for w, b in zip(widths, bounds, strict=True) if len(b) > 2)
    total = 0.0
    for level in range(20):
        nodes = np.prod(grid.nodes) / 8**level
        alone = level > 0 and (level >= power or nodes <= _WHOLE_NODES)
        total += _COST[min(level, 2)] * (nodes if alone else np.prod(widths) / 8**level + halo / 4**level)
    return total


def _row_length(nodes: Any) -> Any:
    """Of a vector, halo and padding included."""
    return -(-(nodes + 2) // _core.row_padding) * _core.row_padding


def _products_of_three(n: int) -> Iterator[tuple[int, int, int]]:
    """Factors of n, those of the slowest axis first: its halos lie together in memory."""
    for x in (d for d in range(n, 0, -1) if n % d == 0):
        for y in (d for d in range(n // x, 0, -1) if n // x % d == 0):
            yield x, y, n // x // y


def _forest(comm: MPI.Intracomm, n_roots: int, local: Int | None, rank: Int, index: Int) -> PETSc.SF:
    """Leaves here, by place in an array, and the rank and place there of the root of each."""
    forest = PETSc.SF().create(comm)
    remote = np.stack([rank, index], axis=1).astype(PETSc.IntType)
    forest.setGraph(n_roots, None if local is None else local.astype(PETSc.IntType), remote)
    return forest
