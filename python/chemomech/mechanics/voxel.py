"""Elastic equilibrium of a body of voxels: what an eigenstrain does to a particle with voids.

Trilinear hexahedra on a regular grid, aligned with the crystal; removed cells are absent, not soft. The matrix is never
formed (cpp/voxel). Conjugate gradients in double precision are preconditioned by a geometric multigrid cycle in single
(voxels are multigrid's natural grid, as for bone: Flaig & Arbenz 2011). Coarse operators are the Galerkin ones, given
by the moments of the solid in each coarse cell; an axis is coarsened while its cells are among the shortest; Chebyshev
polynomials smooth. A free body floats: its rigid motions carry no strain, so loads do no work on them, and they are
taken out of the displacement of every connected piece at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from chemomech import _core
from chemomech.arrays import Bool, Float, require_shape
from chemomech.errors import ConvergenceError, InputError
from chemomech.mechanics.dislocations import require_positive_definite

Single = npt.NDArray[np.float32]

#: Smoothing steps before and after the correction; they damp the spectrum from this share of its upper end.
_STEPS, _SMOOTHED = 3, 0.1
#: An axis is coarsened when its cells are at most this much longer than the shortest.
_COMPARABLE = 1.5
#: Displacements of the coarsest grid, which is solved by a dense inverse.
_COARSEST = 700
_MAX_ITERATIONS = 500
#: Eigenvalues of the coarsest matrix below this fraction of the largest are those of rigid motions.
_RIGID = 1e-6
#: Steps of the power method for the largest eigenvalue of a coarse matrix, and the factor on what it finds.
_POWERS, _ROOM = 12, 1.1


@dataclass(frozen=True, eq=False)
class VoxelState:
    """Elastic equilibrium of a body of voxels.

    Attributes
    ----------
    displacement_nm : (nx + 1, ny + 1, nz + 1, 3); NaN at nodes without an element.
    elastic_strain : (nx, ny, nz, 6) mean strain less eigenstrain of each cell, Voigt order aa, bb, cc, bc, ac, ab with
        engineering shears; NaN where there is no element.
    stress_GPa : (nx, ny, nz, 6), of that strain.
    elastic_energy_aJ : half of stress times elastic strain, summed over the cells, aJ = GPa nm^3.
    functional_aJ : the energy that the finite elements minimise. It counts the variation of strain inside a cell too,
        which an eigenstrain constant there cannot follow: both converge at second order, this one from above, with an
        error several times larger.
    iterations : of the conjugate gradients.
    """

    displacement_nm: Float
    elastic_strain: Float
    stress_GPa: Float
    elastic_energy_aJ: float
    functional_aJ: float
    iterations: int


def equilibrium(
    solid: Bool, spacing_nm: Float, stiffness_GPa: Float, eigenstrain: Float, rtol: float = 1e-8
) -> VoxelState:
    """Equilibrium of a body free of traction, void surfaces included.

    Parameters
    ----------
    solid : (nx, ny, nz) bool along a, b, c.
    spacing_nm : (3,) edges of a cell.
    stiffness_GPa : (6, 6) Voigt, orthorhombic in these axes.
    eigenstrain : (nx, ny, nz, 6) stress-free strain of each cell, engineering shears; not read where there is no solid.
    rtol : relative residual.

    Raises
    ------
    InputError : a wrong shape, no solid cell, a stiffness that is not orthorhombic, an eigenstrain that is not finite.
    ConvergenceError : conjugate gradients stopped short of `rtol`.

    >>> solid = np.ones((4, 4, 4), dtype=bool)
    >>> free = equilibrium(solid, np.ones(3), OLIVINE, np.full((4, 4, 4, 6), 0.01))
    >>> abs(round(free.elastic_energy_aJ, 9))  # a uniform eigenstrain is stress-free
    0.0
    """
    return VoxelBody(solid, spacing_nm, stiffness_GPa).equilibrium(eigenstrain, rtol=rtol)


class VoxelBody:
    """A body of voxels, set up once for any number of eigenstrains.

    Parameters
    ----------
    solid, spacing_nm, stiffness_GPa : as for `equilibrium`.
    held : (nx + 1, ny + 1, nz + 1, 3) bool, displacements that stay zero; none by default.

    Attributes
    ----------
    pieces : number of pieces that touch nowhere, not even in a corner.
    """

    def __init__(self, solid: Bool, spacing_nm: Float, stiffness_GPa: Float, *, held: Bool | None = None) -> None:
        self.spacing_nm = _checked_spacing(spacing_nm)
        self._constants = _orthorhombic_constants(stiffness_GPa)
        require_shape(solid, "solid", (None, None, None))
        if solid.dtype != bool:
            raise InputError(f"solid must be bool, got {solid.dtype}")
        if not solid.any():
            raise InputError("solid holds no cell: there is no body")
        self.solid = solid
        self.stiffness_GPa = stiffness_GPa
        nodes = tuple(n + 1 for n in solid.shape)
        if held is not None:
            require_shape(held, "held", (*nodes, 3))
        free = np.ones((3, *nodes), dtype=np.uint8) if held is None else _planes(~held).astype(np.uint8)
        self._levels = _hierarchy(solid.astype(np.float32), self.spacing_nm, self._constants, free)
        self._body = _core.VoxelBody(self._constants, self.spacing_nm, solid.astype(np.float32), free)
        self._free = held is None or not held.any()
        self._last: Float | None = None

    @property
    def pieces(self) -> int:
        return int(self._pieces[1])

    def equilibrium(self, eigenstrain: Float, *, rtol: float = 1e-8) -> VoxelState:
        """Equilibrium under an eigenstrain (nx, ny, nz, 6); it starts from the one found before.

        Raises
        ------
        InputError, ConvergenceError : as for `equilibrium`.
        """
        require_shape(eigenstrain, "eigenstrain", (*self.solid.shape, 6))
        if not np.isfinite(eigenstrain[self.solid]).all():
            raise InputError("eigenstrain must be finite in every solid cell")
        if not 0 < rtol < 1:
            raise InputError(f"rtol must be between 0 and 1, got {rtol}")
        own = np.where(self.solid, np.moveaxis(eigenstrain, -1, 0), 0.0)
        stress = self._stress(own)
        loads = _core.voxel_stress_loads(stress, self.spacing_nm)
        loads[self._body.inverse_diagonal == 0] = 0
        displacement, iterations = self._solve(loads, rtol)
        elastic = _core.voxel_strain(displacement, self.spacing_nm) - own
        elastic[:, ~self.solid] = 0
        elastic_stress = self._stress(elastic)
        volume = float(np.prod(self.spacing_nm))
        return VoxelState(
            displacement_nm=np.where(self._present, self._settled(displacement), np.nan).transpose(1, 2, 3, 0).copy(),
            elastic_strain=self._cells(elastic),
            stress_GPa=self._cells(elastic_stress),
            elastic_energy_aJ=float(volume * np.vdot(elastic_stress, elastic) / 2),
            functional_aJ=float(volume * np.vdot(own, stress) - np.vdot(loads, displacement)) / 2,
            iterations=iterations,
        )

    def _stress(self, strain: Float) -> Float:
        return np.ascontiguousarray(np.tensordot(self.stiffness_GPa, strain, axes=1))

    def _cells(self, values: Float) -> Float:
        return np.where(self.solid, values, np.nan).transpose(1, 2, 3, 0).copy()

    def _solve(self, loads: Float, rtol: float) -> tuple[Float, int]:
        """Displacement (3, nodes) by conjugate gradients, from the last one where that is nearer than zero."""
        flat = (-1, 1)
        size = _norm(loads)
        solution = np.zeros_like(loads)
        residual = loads.copy()
        if self._last is not None:
            self._body.residual(loads, self._last, residual)
            if _norm(residual) < size:
                solution[...] = self._last
            else:
                residual[...] = loads
        direction, image = np.zeros_like(loads), np.empty_like(loads)
        one, previous = np.ones(1), 1.0
        for iterations in range(_MAX_ITERATIONS + 1):
            reached = _norm(residual)
            if reached <= rtol * size:
                self._last = solution
                return solution, iterations
            conditioned = self._cycle(residual)
            product = float(_core.dot(residual.reshape(flat), conditioned.reshape(flat))[0])
            _core.combine(one, conditioned.reshape(flat), np.full(1, product / previous), direction.reshape(flat))
            self._body.multiply(direction, image)
            step = product / float(_core.dot(direction.reshape(flat), image.reshape(flat))[0])
            _core.combine(np.full(1, step), direction.reshape(flat), one, solution.reshape(flat))
            _core.combine(np.full(1, -step), image.reshape(flat), one, residual.reshape(flat))
            previous = product
        raise ConvergenceError(
            "the voxel displacement", iterations=_MAX_ITERATIONS, residual=reached / size, tolerance=rtol
        )

    def _cycle(self, residual: Float) -> Single:
        """One V-cycle from zero, in single precision."""
        finest = self._levels[0]
        finest.load[...] = residual
        for upper, lower in zip(self._levels[:-1], self._levels[1:], strict=True):
            upper.smooth(from_zero=True)
            upper.body.residual(upper.load, upper.solution, upper.spare)
            _core.voxel_restrict(upper.spare, upper.doubled, lower.load)
        self._levels[-1].solve()
        for upper, lower in zip(self._levels[-2::-1], self._levels[:0:-1], strict=True):
            _core.voxel_add_interpolation(lower.solution, upper.doubled, upper.solution)
            upper.solution[upper.absent] = 0
            upper.smooth()
        return finest.solution

    @cached_property
    def _present(self) -> Bool:
        """(nodes) whether an element touches them."""
        touched = np.zeros(tuple(n + 1 for n in self.solid.shape), dtype=bool)
        for corner in np.ndindex(2, 2, 2):
            touched[tuple(slice(c, c + n) for c, n in zip(corner, self.solid.shape, strict=True))] |= self.solid
        return touched

    @cached_property
    def _pieces(self) -> tuple[npt.NDArray[np.int32], int]:
        """Piece of every cell, from 1; cells that share a node belong together, as it moves with both."""
        label, count = ndimage.label(self.solid, structure=np.ones((3, 3, 3)))
        return label, count

    def _settled(self, displacement: Float) -> Float:
        """The displacement (3, nodes) without the rigid motion of each piece; unchanged where nodes are held."""
        if not self._free:
            return displacement
        label, count = self._pieces
        piece = np.zeros(self._present.shape, dtype=np.int32)
        for corner in np.ndindex(2, 2, 2):
            part = piece[tuple(slice(c, c + n) for c, n in zip(corner, label.shape, strict=True))]
            np.maximum(part, label, out=part)
        settled = displacement.copy()
        for number in range(1, count + 1):
            own = piece == number
            points = np.argwhere(own) * self.spacing_nm
            points -= points.mean(axis=0)
            moved = settled[:, own].T
            moved -= moved.mean(axis=0)
            # The rotation w of least squares: (sum |x|^2 - x x^T) w = sum x cross u.
            inertia = (points**2).sum() * np.eye(3) - points.T @ points
            spin = np.linalg.solve(inertia, np.cross(points, moved).sum(axis=0))
            settled[:, own] = (moved - np.cross(spin, points)).T
        return settled


class _Level:
    """One grid of the cycle: its body, the way its cells are joined into those below, and vectors to work with."""

    def __init__(self, cells: Single, spacing: Float, constants: list[float], free: npt.NDArray[np.uint8]) -> None:
        self.cells = cells
        self.spacing = spacing
        self.free = free
        finest = cells.ndim == 3
        self.body = (_core.VoxelBody32 if finest else _core.PorousBody32)(constants, spacing, cells, free)
        self.absent = self.body.inverse_diagonal == 0
        self.load: Single = np.zeros(free.shape, dtype=np.float32)
        self.solution, self.spare, self._direction = (np.zeros_like(self.load) for _ in range(3))
        self._upper = largest_eigenvalue(constants, spacing) if finest else self._estimated_eigenvalue()
        self.inverse: Float | None = None

    @property
    def doubled(self) -> tuple[bool, ...]:
        """Axes along which cells are joined in pairs: those of the shortest cells, and of comparable ones."""
        several = [n > 2 for n in self.free.shape[1:]]
        shortest = min(h for h, many in zip(self.spacing, several, strict=True) if many)
        return tuple(bool(many and h <= _COMPARABLE * shortest) for h, many in zip(self.spacing, several, strict=True))

    def _estimated_eigenvalue(self) -> float:
        """Of the scaled matrix, from below by the power method; the smoother leaves room above."""
        vector = np.random.default_rng(0).standard_normal(self.absent.shape).astype(np.float32)
        vector[self.absent] = 0
        diagonal = 1 / np.where(self.absent, 1, self.body.inverse_diagonal)
        value = 0.0
        for _ in range(_POWERS):
            self.body.multiply(vector, self.spare)
            value = float(np.vdot(vector, self.spare) / np.vdot(vector, diagonal * vector))
            vector = self.body.inverse_diagonal * self.spare
            vector /= np.abs(vector).max()
        return _ROOM * value

    def smooth(self, *, from_zero: bool = False) -> None:
        """Chebyshev iteration on the upper part of the spectrum of the scaled matrix (Saad 2003, algorithm 12.1)."""
        upper, lower = self._upper, _SMOOTHED * self._upper
        centre, half = (upper + lower) / 2, (upper - lower) / 2
        if from_zero:
            self.body.smooth_from_zero(self.load, self.solution, self._direction, 1 / centre)
        else:
            self.body.smooth(self.load, self.solution, self._direction, 0.0, 1 / centre, self.spare)
        ratio = half / centre
        for _ in range(_STEPS - 1):
            next_ratio = 1 / (2 * centre / half - ratio)
            self.body.smooth(
                self.load, self.solution, self._direction, next_ratio * ratio, 2 * next_ratio / half, self.spare
            )
            ratio = next_ratio

    def solve(self) -> None:
        """By the dense pseudo-inverse, made at the first call."""
        if self.inverse is None:
            self.inverse = _pseudo_inverse(self._multiplied, self.absent)
        moving = ~self.absent
        self.solution[...] = 0
        self.solution[moving] = self.inverse @ self.load[moving].astype(float)

    def _multiplied(self, x: Single) -> Single:
        self.body.multiply(x, self.spare)
        return self.spare


def largest_eigenvalue(constants: list[float], spacing: Float) -> float:
    """A bound for the matrix scaled by its diagonal: the largest over any one element, which no sum exceeds."""
    shape = (3, 2, 2, 2)
    body = _core.VoxelBody(constants, spacing, np.ones((1, 1, 1), np.float32), np.ones(shape, np.uint8))
    matrix = np.empty((24, 24))
    for row, unit in zip(matrix, np.eye(24), strict=True):
        image = np.empty(shape)
        body.multiply(unit.reshape(shape), image)
        row[:] = image.ravel()
    scale = np.sqrt(body.inverse_diagonal.ravel())
    return float(np.linalg.eigvalsh(scale[:, None] * matrix * scale)[-1])


def _hierarchy(cells: Single, spacing: Float, constants: list[float], free: npt.NDArray[np.uint8]) -> list[_Level]:
    levels = [_Level(cells, spacing, constants, free)]
    while levels[-1].free.size > _COARSEST:
        fine = levels[-1]
        cells = _core.voxel_coarsen(fine.cells, fine.doubled)
        steps = [2 if doubled else 1 for doubled in fine.doubled]
        # A node of the coarse grid lies on one of the fine grid, or beyond it.
        ends = [(n * step + 1) - m for n, step, m in zip(cells.shape[1:], steps, fine.free.shape[1:], strict=True)]
        free = np.pad(fine.free, [(0, 0), *((0, end) for end in ends)], constant_values=1)
        free = free[:, :: steps[0], :: steps[1], :: steps[2]].copy()
        levels.append(_Level(cells, fine.spacing * steps, constants, free))
    return levels


def _pseudo_inverse(multiply: Callable[[Single], Single], absent: Bool) -> Float:
    moving = np.flatnonzero(~absent.ravel())
    matrix = np.empty((len(moving), len(moving)))
    for row, i in zip(matrix, moving, strict=True):
        unit = np.zeros(absent.shape, dtype=np.float32)
        unit.flat[i] = 1
        row[:] = multiply(unit).ravel()[moving]
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > _RIGID * values[-1]
    return np.asarray((vectors[:, kept] / values[kept]) @ vectors[:, kept].T)


def _norm(vector: Float) -> float:
    return float(np.sqrt(_core.dot(vector.reshape(-1, 1), vector.reshape(-1, 1))[0]))


def _planes(values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(nx, ny, nz, 3) to (3, nx, ny, nz)."""
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def _checked_spacing(spacing_nm: Float) -> Float:
    spacing = np.asarray(spacing_nm, dtype=float)
    require_shape(spacing, "spacing_nm", (3,))
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"spacing_nm must be positive, got {spacing}")
    return spacing


def _orthorhombic_constants(stiffness_GPa: Float) -> list[float]:
    """c11, c22, c33, c44, c55, c66, c12, c13, c23."""
    require_positive_definite(stiffness_GPa)
    allowed = np.eye(6, dtype=bool)
    allowed[:3, :3] = True
    other = np.abs(np.where(allowed, 0, stiffness_GPa))
    if other.max() > 1e-8 * np.abs(stiffness_GPa).max():
        i, j = np.unravel_index(other.argmax(), (6, 6))
        raise InputError(
            f"stiffness_GPa must be orthorhombic in the axes of the grid, got C{i + 1}{j + 1} = {stiffness_GPa[i, j]:g}"
        )
    pairs = [*((i, i) for i in range(6)), (0, 1), (0, 2), (1, 2)]
    return [float(stiffness_GPa[pair]) for pair in pairs]
