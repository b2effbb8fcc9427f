"""Conjugate gradients with a geometric multigrid cycle, for bodies of bricks.

No matrix is stored anywhere. A coarse cell is a brick whose stiffness is the solid fraction of its children times
theirs: a full one is then exactly the Galerkin coarsening of its children (the trilinear spaces are nested), a partly
empty one stores the same energy of a uniform strain (Flaig & Arbenz 2011). Cells that are longer along some axes are
first coarsened along the others. The smoother is Lottes's (2023) Chebyshev polynomial of the fourth kind, which needs
an upper bound of the spectrum only, and the element gives one. The cycle works in single precision, in half the memory
traffic; the conjugate gradients around it, in double, hardly notice.

Vectors live on boxes with a halo, see cpp/voxel/operator.hpp.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from chemomech import _core
from chemomech.arrays import Bool, Float, Int32
from chemomech.errors import ConvergenceError
from chemomech.sparse import factorise

Single = npt.NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64, np.int32)
Sum = TypeVar("Sum", int, float, Float, npt.NDArray[np.intp])

#: Degree of the smoother before and after the correction, on the grid of the voxels, the next and all below it. A step
#: on the first costs most; the lower grids, where a body with voids is a foam of fractions, are nearly solved. At 64^3
#: voxels, solid and with 30 % voids, these take 10 and 15 iterations; 3 throughout takes 8 and 26, and 1.5 times the
#: time with voids; 3, 10, 20 takes 7 and 14, and the same time.
_DEGREES = (2, 10, 20)
#: Cells at most this much longer than the shortest edge are coarsened along it.
_LONGER = 1.5
#: Unknowns of a level that is solved by its dense pseudo-inverse.
_MAX_DENSE = 300
#: Eigenvalues below this fraction of the largest are those of rigid motions, which rounding moved off 0. Solid
#: fractions on the coarsest level reach 1e-6.
_RIGID = 1e-12
_MAX_ITERATIONS = 300
#: Nodes of a thin part that is solved directly. Packed spheres leave parts of up to 2700 at 64^3 and 1600 at 128^3.
_LARGEST_PART = 3000
#: What is added to the diagonal of the thin parts, as a share of it.
_HANGING = 1e-6
#: Of a sum of a few terms in double precision.
_ROUNDING = 1e-15


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
        """Of all boxes of the grid."""
        return value

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

    def landing(self, load: Single) -> Single:
        """Where the restriction from the grid above is written."""
        return load

    def arrive(self, landing: Single, load: Single) -> None:
        """Make the load whole after a restriction."""

    def depart(self, solution: Single, landing: Single) -> Single:
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


class _Level:
    """One grid in single precision: its operator, what fixes nodes, and room for the vectors of a cycle."""

    def __init__(
        self, box: Box, spacing: Float, constants: Float, of_cells: Single, held: Bool | None, degree: int
    ) -> None:
        self.box, self.spacing, self.of_cells, self.held, self.degree = box, spacing, of_cells, held, degree
        self.fixed = _fixed_entries(box, held)
        self.operator = _core.VoxelOperator32(constants, spacing, box.weights(of_cells, np.float32))
        self.inverse_diagonal = self.operator.inverse_diagonal()
        self.inverse_diagonal.reshape(-1)[self.fixed] = 0.0
        self.load, self.solution, self.spare, self.direction = (box.vector(np.float32) for _ in range(4))
        self.landing = box.landing(self.load)

    def smooth(self, bound: float, *, from_zero: bool = False) -> None:
        """Chebyshev polynomial of the fourth kind (Lottes 2023); `bound` is that of the scaled operator's spectrum."""
        for step in range(1, self.degree + 1):
            start = None if from_zero and step == 1 else self.solution
            if start is not None:
                self.box.fill_halo(start)
            alpha = (2 * step - 3) / (2 * step + 1) if step > 1 else 0.0
            beta = (8 * step - 4) / ((2 * step + 1) * bound)
            self.operator.smooth(self.inverse_diagonal, self.load, start, self.direction, alpha, beta, self.spare)
            self.solution, self.spare = self.spare, self.solution

    def residual(self) -> Single:
        self.box.fill_halo(self.solution)
        self.operator.residual(self.load, self.solution, self.direction)
        self.direction.reshape(-1)[self.fixed] = 0.0
        self.box.fill_halo(self.direction)
        return self.direction


class _ThinParts:
    """The nodes of what is one voxel thin, which no coarse grid resolves and no smoother bends; solved directly.

    Walls, fins and chains of voxels that no solid block of 2 x 2 x 2 contains. With their neighbours held they are
    small sparse problems, factorised together; a random sponge, thin everywhere, is left to the smoother. A little of
    the diagonal is added, for what hangs on a hinge or nothing.
    """

    def __init__(self, level: _Level, constants: Float) -> None:
        box = level.box
        solid = box.weights(np.asarray(level.of_cells.any(axis=0))[None], np.float32)[0]
        thin = _nodes_around(_thin_cells(np.asarray(solid > 0), box), box)
        thin &= np.asarray((level.inverse_diagonal[:, *box.owned] > 0).any(axis=0))
        part, n_parts = box.label(thin, np.ones((3, 3, 3)))
        size = box.sum(np.bincount(part.ravel(), minlength=n_parts + 1))
        thin &= size[part] <= _LARGEST_PART
        n_thin = int(thin.sum())
        self.exist = box.sum(n_thin) > 0
        if not self.exist:
            return
        number = np.full((1, *box.shape), -1, dtype=np.int32)
        number[0][box.owned][thin] = box.count_before(n_thin) + np.arange(n_thin)
        box.fill_halo(number)
        nodes = np.argwhere(thin) + 1
        element = _element(constants.mean(axis=0), level.spacing)
        blocks = np.zeros((n_thin, 27, 3, 3))
        corners = list(product((0, 1), repeat=3))
        for corner, other in product(range(8), repeat=2):
            step = np.subtract(corners[other], corners[corner])
            i, j, k = (nodes - corners[corner]).T
            blocks[:, (step + 1) @ (9, 3, 1)] += solid[i, j, k, None, None] * element[:, corner, :, other]
        i, j, k = np.moveaxis(nodes[:, None] + np.array(list(product((-1, 0, 1), repeat=3))), -1, 0)
        columns = np.where(blocks.any(axis=(2, 3)), number[0, i, j, k], -1)
        places = np.arange(3 * np.prod(box.shape)).reshape(3, *box.shape)[:, *box.owned]
        entries = np.moveaxis(places[:, thin], 0, -1)
        free = level.inverse_diagonal.reshape(-1)[entries] > 0
        rows = (number[0][box.owned][thin], columns, blocks, entries, free)
        origin, (own, columns, blocks, entries, free) = box.send_home(box.home(part[thin]), rows)
        free = free.ravel()
        self._collector = box.collector(np.repeat(origin, 3)[free], entries.ravel()[free])
        linked = columns >= 0
        pointers = np.concatenate([[0], np.cumsum(linked.sum(axis=1))])
        shape = (3 * len(own),) * 2
        matrix = sp.csr_array(sp.bsr_array((blocks[linked], np.searchsorted(own, columns[linked]), pointers), shape))
        matrix = matrix + sp.diags_array(_HANGING * matrix.diagonal())
        self._solve = factorise(matrix[free][:, free])

    def correct(self, residual: Single, solution: Single) -> None:
        values = self._solve(self._collector.collect(residual).astype(float)[:, None])[:, 0]
        self._collector.add(values.astype(np.float32), solution)


class Multigrid:
    """Solver for the equilibrium of a body of bricks.

    Parameters
    ----------
    box : the cells.
    spacing : (3,) edges of a cell, nm.
    constants : (m, 9) C11 C22 C33 C44 C55 C66 C12 C13 C23 of one or two materials, GPa.
    of_cells : (m, nx, ny, nz) weight of each material in each cell, all 0 where there is none.
    held : (3, nodes...) displacements that are 0, or None.

    Attributes
    ----------
    weights : (m, X, Y, Z), of_cells with halo.
    """

    def __init__(self, box: Box, spacing: Float, constants: Float, of_cells: Float, held: Bool | None) -> None:
        self.box, self.weights = box, box.weights(of_cells, np.float64)
        self._operator = _core.VoxelOperator(constants, spacing, self.weights)
        self._fixed = _fixed_entries(box, held)
        self._bound = 0.0
        self._levels = [_Level(box, spacing, constants, of_cells.astype(np.float32), held, _DEGREES[0])]
        self._thin = _ThinParts(self._levels[0], constants)
        self._factors: list[tuple[int, int, int]] = []
        while True:
            level = self._levels[-1]
            self._bound = max(self._bound, _largest_eigenvalue(constants, level.spacing))
            factors = _coarsening(level)
            if factors is None:
                break
            self._factors.append(factors)
            degree = _DEGREES[min(len(self._levels), len(_DEGREES) - 1)]
            self._levels.append(_coarser(level, factors, constants, degree))
        inverse = self._levels[0].inverse_diagonal
        self._largest_diagonal = box.largest(1 / float(inverse[inverse > 0].min(initial=np.inf)))
        self._unknowns, self._coarsest = _pseudo_inverse(level, constants)

    def multiply(self, x: Float, out: Float) -> float:
        """out = K x; x . K x."""
        self.box.fill_halo(x)
        energy = self._operator.multiply(x, out)
        if len(self._fixed):
            out.reshape(-1)[self._fixed] = 0.0
            energy = _dot(x, out)
        return self.box.sum(energy)

    def _product(self, x: Float, y: Float | Single) -> float:
        """Scalar product over all boxes; one of the two has an empty halo."""
        return self.box.sum(_dot(x, y))

    def solve(self, load: Float, solution: Float, rtol: float, work: float) -> tuple[int, Float]:
        """Iterate on `solution` until the residual is `rtol` times the load; iterations and the residual.

        The load of an eigenstrain that does the work `work` = int eps0 : C : eps0 on itself has a square below work
        times the largest eigenvalue of K; far below that it, or a residual, is rounding.

        Raises
        ------
        ConvergenceError : it does not get there.
        """
        residual, direction, image = np.empty_like(load), np.zeros_like(load), np.zeros_like(load)
        load.reshape(-1)[self._fixed] = 0.0
        self.multiply(solution, image)
        np.subtract(load, image, out=residual)
        scale = np.sqrt(self._product(load, load))
        target = max(rtol * scale, _ROUNDING * np.sqrt(work * self._bound * self._largest_diagonal))
        energy = 0.0
        for iteration in range(_MAX_ITERATIONS + 1):
            error = np.sqrt(self._product(residual, residual))
            if error <= target:
                return iteration, residual
            if iteration == _MAX_ITERATIONS:
                break
            np.multiply(residual, 1 / error, out=self._levels[0].load, casting="same_kind")
            step = self._cycle()
            # Flexible: the single-precision cycle is not exactly the same symmetric map every time.
            energy_before, energy = energy, error * self._product(residual, step)
            _combine(error, step, energy / energy_before if energy_before else 0.0, direction)
            length = energy / self.multiply(direction, image)
            _combine(length, direction, 1.0, solution)
            _combine(-length, image, 1.0, residual)
        raise ConvergenceError(
            "elastic equilibrium", iterations=iteration, residual=float(error / scale), tolerance=rtol
        )

    def _cycle(self, depth: int = 0) -> Single:
        """V-cycle from zero for the load of a level."""
        level = self._levels[depth]
        if depth == len(self._factors):
            level.solution.reshape(-1)[self._unknowns] = self._coarsest @ level.load.reshape(-1)[self._unknowns]
            return level.solution
        below = self._levels[depth + 1]
        thin = depth == 0 and self._thin.exist
        if thin:
            level.solution.fill(0.0)
            self._thin.correct(level.load, level.solution)
        level.smooth(self._bound, from_zero=not thin)
        _core.restrict_to(self._factors[depth], level.residual(), below.landing)
        below.box.arrive(below.landing, below.load)
        error = below.box.depart(self._cycle(depth + 1), below.landing)
        _core.add_prolonged(self._factors[depth], error, level.solution)
        level.solution.reshape(-1)[level.fixed] = 0.0
        level.smooth(self._bound)
        if thin:
            self._thin.correct(level.residual(), level.solution)
        return level.solution


def _fixed_entries(box: Box, held: Bool | None) -> npt.NDArray[np.intp]:
    """Flat indices into a vector of what an operator writes and must be 0: held displacements, a halo along z."""
    fixed = np.zeros((3, *box.shape), dtype=bool)
    if held is not None:
        fixed[:, *box.owned] = held
    if box.shared[2]:
        fixed[..., 0] = fixed[..., box.nodes[2] + 1 :] = True
    return np.flatnonzero(fixed)


def _thin_cells(solid: Bool, box: Box) -> Bool:
    """Of cells (X, Y, Z) with halo, the owned that no solid block lies around, of two along every axis that has two."""
    opened = solid
    several = [axis for axis in range(3) if box.whole.cells[axis] > 1]
    for axis in several:
        along = np.moveaxis(opened, axis, 0)
        opened = np.moveaxis(along[:-1] & along[1:], 0, axis)
    for axis in several:
        ends = [(0, 0)] * 3
        ends[axis] = (0, 1)
        before = np.pad(opened, ends)
        ends[axis] = (1, 0)
        opened = before | np.pad(opened, ends)
    return np.asarray((solid & ~opened)[tuple(slice(1, n + 1) for n in box.cells)])


def _nodes_around(cells: Bool, box: Box) -> Bool:
    """Owned nodes (nodes...) of some owned cells, and of their like in other boxes."""
    padded = box.weights(cells[None], np.float32)[0] > 0
    corners = product((0, 1), repeat=3)
    around = [padded[tuple(slice(c, c + n) for c, n in zip(corner, box.nodes, strict=True))] for corner in corners]
    return np.asarray(np.logical_or.reduce(around))


def _coarsening(level: _Level) -> tuple[int, int, int] | None:
    """Factors along the axes, or None for the coarsest level."""
    box = level.box.whole
    if 3 * np.prod(box.nodes) <= _MAX_DENSE:
        return None
    can = [n % 2 == 0 and n > 2 if wraps else n > 1 for n, wraps in zip(box.cells, box.periodic, strict=True)]
    if not any(can):
        return None
    shortest = level.spacing[can].min()
    nx, ny, nz = (2 if c and h <= _LONGER * shortest else 1 for c, h in zip(can, level.spacing, strict=True))
    return nx, ny, nz


def _coarser(level: _Level, factors: tuple[int, int, int], constants: Float, degree: int) -> _Level:
    box = level.box.coarser(factors)
    cells = [-(-n // factor) for n, factor in zip(level.box.cells, factors, strict=True)]
    of_cells = np.zeros((len(level.of_cells), *cells), dtype=np.float32)
    for offset in product(*(range(factor) for factor in factors)):
        children = level.of_cells[:, *(slice(o, None, f) for o, f in zip(offset, factors, strict=True))]
        of_cells[:, *(slice(n) for n in children.shape[1:])] += children
    of_cells /= np.prod(factors)
    held = None
    if level.held is not None:
        # A coarse node is held like the fine node at its place, or like the last one when it lies outside.
        nearest = (
            np.minimum(np.arange(-(-n // f) + m - n) * f, m - 1)
            for n, f, m in zip(level.box.cells, factors, level.box.nodes, strict=True)
        )
        held = box.complete(level.held[np.ix_(np.arange(3), *nearest)], of_cells=False)
    return _Level(box, level.spacing * factors, constants, box.complete(of_cells, of_cells=True), held, degree)


def _element(material: Float, spacing: Float) -> Float:
    """Stiffness (3, 8, 3, 8) of a brick, of component and corner."""
    box = Box((1, 1, 1), (False, False, False))
    weights = box.weights(np.ones((1, 1, 1, 1)), np.float64)
    return _dense(_core.VoxelOperator(material[None], spacing, weights), box).reshape(3, 8, 3, 8)


def _largest_eigenvalue(constants: Float, spacing: Float) -> float:
    """Of the diagonally scaled operator: the largest of an element is a bound for any body of them."""
    largest = 0.0
    for material in constants:
        matrix = _element(material, spacing).reshape(24, 24)
        scaling = 1 / np.sqrt(np.diag(matrix))
        largest = max(largest, float(np.linalg.eigvalsh(scaling[:, None] * matrix * scaling)[-1]))
    return largest


def _dense(operator: _core.VoxelOperator, box: Box) -> Float:
    """The operator as a matrix over the owned nodes."""
    n = 3 * int(np.prod(box.nodes))
    x, y = box.vector(np.float64), box.vector(np.float64)
    matrix = np.empty((n, n))
    for column, entry in enumerate(np.ndindex(3, *box.nodes)):
        at = (entry[0], entry[1] + 1, entry[2] + 1, entry[3] + 1)
        x[at] = 1.0
        box.fill_halo(x)
        operator.multiply(x, y)
        matrix[column] = y[:, *box.owned].ravel()
        x[at] = 0.0
    return matrix


def _pseudo_inverse(level: _Level, constants: Float) -> tuple[npt.NDArray[np.intp], Single]:
    """Flat indices of the unknowns of the coarsest level, and the inverse of its matrix without rigid motions."""
    box = level.box
    unknown = (level.inverse_diagonal[:, *box.owned] > 0).ravel()
    operator = _core.VoxelOperator(constants, level.spacing, box.weights(level.of_cells, np.float64))
    matrix = _dense(operator, box)[np.ix_(unknown, unknown)]
    eigenvalues, modes = np.linalg.eigh(matrix)
    stiff = eigenvalues > _RIGID * eigenvalues[-1]
    inverse = (modes[:, stiff] / eigenvalues[stiff]) @ modes[:, stiff].T
    places = np.arange(3 * np.prod(box.shape)).reshape(3, *box.shape)[:, *box.owned]
    return places.ravel()[unknown], inverse.astype(np.float32)


def _combine(a: float, x: Float | Single, b: float, y: Float) -> None:
    """y <- a x + b y. In columns, which vectorises; a row of a vector is a multiple of eight numbers."""
    _core.combine(np.full(8, a), x.reshape(-1, 8), np.full(8, b), y.reshape(-1, 8))


def _dot(x: Float, y: Float | Single) -> float:
    return float(_core.dot(x.reshape(-1, 8), y.reshape(-1, 8)).sum())
