"""Conjugate gradients with a geometric multigrid cycle, for bodies of bricks.

No matrix is stored anywhere. A coarse cell is a brick whose stiffness is the solid fraction of its children times
theirs: a full one is then exactly the Galerkin coarsening of its children (the trilinear spaces are nested), a partly
empty one stores the same energy of a uniform strain (Flaig & Arbenz 2011). Cells that are longer along some axes are
first coarsened along the others. The smoother is Lottes's (2023) Chebyshev polynomial of the fourth kind, which needs
an upper bound of the spectrum only, and the element gives one. The cycle works in single precision, in half the memory
traffic; the conjugate gradients around it, in double, hardly notice.

Vectors live on boxes with a halo, see cpp/voxel/operator.hpp.
"""

from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from chemomech import _core
from chemomech.arrays import Bool, Float
from chemomech.errors import ConvergenceError
from chemomech.mechanics.box import Box, Single
from chemomech.sparse import factorise

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
