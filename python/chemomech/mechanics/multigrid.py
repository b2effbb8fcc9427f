"""Conjugate gradients with a p- and algebraic multigrid cycle, for meshes too large to factorise.

The finest level holds the quadratic triangles, the second the linear triangles on the same vertices
(the spaces are nested, so its matrix is the Galerkin one), the others smoothed aggregates with the
rigid modes as near-null space (Vanek, Mandel & Brezina 1996; aggregation by pyamg). Chebyshev
smoothing of the block-diagonally scaled matrix keeps the cycle symmetric and, unlike Gauss-Seidel,
serves all right-hand sides in one pass over the matrix. The cycle works in single precision, which
halves what it moves through memory; the conjugate gradients around it, in double, hardly notice.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pyamg import smoothed_aggregation_solver

from chemomech import _core
from chemomech.arrays import Float
from chemomech.errors import ConvergenceError

Single = npt.NDArray[np.float32]

#: Smoothing steps before and after the correction, and the upper part of the spectrum they damp: on the quadratic
#: triangles, where a step costs most and a third saves no iteration, and on the levels below.
_FINEST, _BELOW = (2, 0.2), (4, 0.08)
#: Right-hand sides at a time: enough that reading the matrix counts little, few enough for memory.
_BATCH = 4
_MAX_ITERATIONS = 200
#: Eigenvalues below this fraction of a level's largest are those of rigid motions, which rounding moved off 0.
_RIGID = 1e-11


@dataclass(frozen=True)
class _Level:
    """One level: its matrix in blocks of 2 (displacements) or 3 (rigid modes of an aggregate), and the way up.

    Attributes
    ----------
    inverse_diagonal : (n, size, size), of the diagonal blocks.
    steps, smoothed_fraction : of the smoother.
    largest_eigenvalue : of the scaled matrix.
    prolongation, restriction : from the level below, and its transpose; in blocks, or 1 x 1 for all displacements.
    """

    matrix: _core.BlockMatrix32
    inverse_diagonal: Single
    steps: int
    smoothed_fraction: float
    largest_eigenvalue: float
    prolongation: _core.BlockMatrix32
    restriction: _core.BlockMatrix32
    block_of_prolongation: tuple[int, int]

    def smooth(
        self, load: Single, solution: Single, spare: Single, direction: Single, *, from_zero: bool = False
    ) -> tuple[Single, Single]:
        """Chebyshev iteration for the scaled matrix; the smoothed solution and the spare, which swap places."""
        upper = 1.1 * self.largest_eigenvalue
        lower = self.smoothed_fraction * upper
        centre, radius = (upper + lower) / 2, (upper - lower) / 2
        rho, alpha, beta = radius / centre, 0.0, 1 / centre
        for step in range(self.steps):
            start = None if from_zero and step == 0 else solution
            self.matrix.smooth(self.inverse_diagonal, load, start, direction, alpha, beta, spare)
            solution, spare = spare, solution
            following = 1 / (2 * centre / radius - rho)
            rho, alpha, beta = following, following * rho, 2 * following / radius
        return solution, spare

    def restrict(self, residual: Single, below: Single) -> None:
        """Write the restricted residual into `below`."""
        rows, columns = self.block_of_prolongation
        self.restriction.multiply(_in_blocks(residual, rows), out=_in_blocks(below, columns))

    def correct(self, solution: Single, error: Single) -> None:
        """Add the prolonged error to the solution, in place."""
        rows, columns = self.block_of_prolongation
        self.prolongation.add_product(
            _in_blocks(solution, rows), 1.0, _in_blocks(error, columns), out=_in_blocks(solution, rows)
        )


class Multigrid:
    """Solver for plane elasticity on quadratic triangles.

    Parameters
    ----------
    matrix : (2 n, 2 n) block CSR stiffness of the quadratic triangles, GPa.
    coarse_matrix : (2 m, 2 m) that of the linear ones.
    prolongation : (n, m) values at nodes from values at vertices.
    coarse_modes : (2 m, 3) rigid modes at the vertices.
    """

    def __init__(
        self, matrix: sp.bsr_array, coarse_matrix: sp.bsr_array, prolongation: sp.csr_array, coarse_modes: Float
    ) -> None:
        self._matrix = _core.BlockMatrix(matrix.indptr, matrix.indices, matrix.data, len(matrix.indptr) - 1)
        hierarchy = smoothed_aggregation_solver(
            sp.bsr_matrix(coarse_matrix),
            B=coarse_modes,
            strength=("symmetric", {"theta": 0.0}),
            improve_candidates=None,
            max_coarse=300,
            keep=False,
        )
        *finer, last = hierarchy.levels
        self._levels = [_level(matrix, prolongation, *_FINEST)]
        self._levels += [_level(sp.bsr_array(level.A), sp.bsr_array(level.P), *_BELOW) for level in finer]
        # Dense, but too small for the threads of a BLAS.
        self._coarsest_shape = (last.A.shape[0] // last.A.blocksize[0], last.A.blocksize[0])
        self._coarsest = _single(sp.bsr_array(_pseudo_inverse(last.A.toarray()), blocksize=last.A.blocksize))

    def solve(self, loads: Float, rtol: float) -> Float:
        """Displacements (n, 2, k) for balanced loads (n, 2, k), up to rigid motions of a free body.

        Raises
        ------
        ConvergenceError : a column's residual stays above `rtol` times its load.
        """
        n, _, k = loads.shape
        solution = np.empty_like(loads)
        for start in range(0, k, _BATCH):
            columns = slice(start, min(start + _BATCH, k))
            solution[..., columns] = self._solve(loads[..., columns].reshape(2 * n, -1), rtol).reshape(n, 2, -1)
        return solution

    def _solve(self, loads: Float, rtol: float) -> Float:
        """Conjugate gradients for loads (2 n, k). Columns are scaled to norm 1, which keeps them in single range."""
        k = loads.shape[1]
        scale = np.sqrt(_core.dot(np.ascontiguousarray(loads), np.ascontiguousarray(loads)))
        scale[scale == 0] = 1.0
        residual = loads / scale
        solution, direction, image = np.zeros_like(residual), np.zeros_like(residual), np.empty_like(residual)
        vectors = [np.empty((4, *level.inverse_diagonal.shape[:2], k), dtype=np.float32) for level in self._levels]
        one, energy = np.ones(k), np.zeros(k)
        for iteration in range(_MAX_ITERATIONS + 1):
            error = float(np.sqrt(_core.dot(residual, residual)).max())
            if error <= rtol:
                solution *= scale
                return solution
            if iteration == _MAX_ITERATIONS:
                break
            vectors[0][0] = residual.reshape(-1, 2, k)
            step = self._cycle(vectors).reshape(-1, k)
            energy_before, energy = energy, _core.dot(residual, step)
            _core.combine(one, step, _ratio(energy, energy_before), direction)
            self._matrix.multiply(direction.reshape(-1, 2, k), out=image.reshape(-1, 2, k))
            length = _ratio(energy, _core.dot(direction, image))
            _core.combine(length, direction, one, solution)
            _core.combine(-length, image, one, residual)
        raise ConvergenceError("elastic equilibrium", iterations=_MAX_ITERATIONS, residual=error, tolerance=rtol)

    def _cycle(self, vectors: list[Single], depth: int = 0) -> Single:
        """V-cycle from zero for a level's load, the first of its vectors (4, n, size, k); the others are room."""
        level, (load, solution, spare, direction) = self._levels[depth], vectors[depth]
        solution, spare = level.smooth(load, solution, spare, direction, from_zero=True)
        residual = level.matrix.add_product(load, -1.0, solution, out=direction)
        if depth + 1 < len(self._levels):
            level.restrict(residual, vectors[depth + 1][0])
            error = self._cycle(vectors, depth + 1)
        else:
            below = np.empty((*self._coarsest_shape, load.shape[2]), dtype=np.float32)
            level.restrict(residual, below)
            error = self._coarsest.multiply(below)
        level.correct(solution, error)
        return level.smooth(load, solution, spare, direction)[0]


def _level(matrix: sp.bsr_array, prolongation: sp.bsr_array | sp.csr_array, steps: int, fraction: float) -> _Level:
    n = len(matrix.indptr) - 1
    rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(matrix.indptr))
    diagonal = matrix.data[rows == matrix.indices]
    single, inverse = _single(matrix), _pseudo_inverse(diagonal).astype(np.float32)
    restriction = prolongation.T.asformat(prolongation.format)
    block = prolongation.blocksize if prolongation.format == "bsr" else (1, 1)
    return _Level(
        matrix=single,
        inverse_diagonal=inverse,
        steps=steps,
        smoothed_fraction=fraction,
        largest_eigenvalue=_largest_eigenvalue(single, inverse),
        prolongation=_single(prolongation),
        restriction=_single(restriction),
        block_of_prolongation=block,
    )


def _pseudo_inverse(matrices: Float) -> Float:
    """Of symmetric matrices (..., n, n), without their rigid modes.

    A free component that is one aggregate has a block of rounding errors on the diagonal, a lonely node no rotation.
    """
    eigenvalues, modes = np.linalg.eigh(matrices)
    stiff = eigenvalues > _RIGID * eigenvalues.max()
    inverse = np.divide(1.0, eigenvalues, out=np.zeros_like(eigenvalues), where=stiff)
    return np.asarray((modes * inverse[..., None, :]) @ modes.swapaxes(-1, -2))


def _single(matrix: sp.bsr_array | sp.csr_array) -> _core.BlockMatrix32:
    rows, columns = matrix.blocksize if matrix.format == "bsr" else (1, 1)
    values = matrix.data.reshape(-1, rows, columns).astype(np.float32, order="C")
    indptr, indices = (graph.astype(np.int32, copy=False) for graph in (matrix.indptr, matrix.indices))
    return _core.BlockMatrix32(indptr, indices, values, matrix.shape[1] // columns)


def _largest_eigenvalue(matrix: _core.BlockMatrix32, inverse_diagonal: Single) -> float:
    """Of the scaled matrix, by the power method; an underestimate of a few per cent, which the smoother allows for."""
    shape = (*inverse_diagonal.shape[:2], 1)
    vector = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    zero, scaled, spare = np.zeros((3, *shape), dtype=np.float32)
    eigenvalue = 1.0
    for _ in range(15):
        # One Jacobi step for a zero load with beta = -1 is the scaled matrix times the vector.
        matrix.smooth(inverse_diagonal, zero, vector, scaled, 0.0, -1.0, spare)
        eigenvalue = float(np.linalg.norm(scaled))
        np.divide(scaled, np.float32(eigenvalue), out=vector)
    return eigenvalue


def _in_blocks(vectors: Single, size: int) -> Single:
    """(n, components, k) as (n, size, components k / size): blocks of 1 take components for columns."""
    return vectors.reshape(len(vectors), size, -1)


def _ratio(numerator: Float, denominator: Float) -> Float:
    """Quotient by column, 0 where a column has already converged to nothing."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
