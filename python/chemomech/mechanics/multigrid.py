"""Conjugate gradients with a p- and algebraic multigrid cycle, for meshes too large to factorise.

The finest level holds the quadratic triangles, the second the linear triangles on the same vertices
(the spaces are nested, so its matrix is the Galerkin one), the others smoothed aggregates with the
rigid modes as near-null space (Vanek, Mandel & Brezina 1996; aggregation by pyamg). Chebyshev
smoothing of the block-diagonally scaled matrix keeps the cycle symmetric and, unlike Gauss-Seidel,
serves all right-hand sides in one pass over the matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from pyamg import smoothed_aggregation_solver

from chemomech import _core
from chemomech.arrays import Float, Int32
from chemomech.errors import ConvergenceError

_SMOOTHING_STEPS = 3
#: The smoother damps the upper part of the spectrum, from 1/8 of its end on.
_SMOOTHED_FRACTION = 0.125
_MAX_ITERATIONS = 200


@dataclass(frozen=True)
class _Level:
    """One level: its matrix in blocks of 2 (displacements) or 3 (rigid modes of an aggregate), and the way up."""

    matrix: sp.bsr_array
    inverse_diagonal: sp.bsr_array
    largest_eigenvalue: float
    prolongation: sp.csr_array

    def residual(self, load: Float, solution: Float) -> Float:
        if self.matrix.blocksize != (2, 2):
            return np.asarray(load - self.matrix @ solution)
        return _core.residual(*self._blocks, _pairs(load), _pairs(solution)).reshape(load.shape)

    def smooth(self, load: Float, solution: Float | None) -> Float:
        """Chebyshev iteration for the scaled matrix, started from `solution` (None is zero)."""
        upper = 1.1 * self.largest_eigenvalue
        lower = _SMOOTHED_FRACTION * upper
        centre, radius = (upper + lower) / 2, (upper - lower) / 2
        rho, alpha, beta = radius / centre, 0.0, 1 / centre
        direction = np.zeros_like(load)
        for _ in range(_SMOOTHING_STEPS):
            if solution is None:
                direction = beta * (self.inverse_diagonal @ load)
                solution = direction.copy()
            else:
                solution = self._step(load, solution, direction, alpha, beta)
            following = 1 / (2 * centre / radius - rho)
            rho, alpha, beta = following, following * rho, 2 * following / radius
        return np.asarray(solution)

    def _step(self, load: Float, solution: Float, direction: Float, alpha: float, beta: float) -> Float:
        if self.matrix.blocksize != (2, 2):
            direction *= alpha
            direction += beta * (self.inverse_diagonal @ self.residual(load, solution))
            return np.asarray(solution + direction)
        vectors = (_pairs(load), _pairs(solution), _pairs(direction))
        return _core.smooth(*self._blocks, self.inverse_diagonal.data, *vectors, alpha, beta).reshape(load.shape)

    @property
    def _blocks(self) -> tuple[Int32, Int32, Float]:
        return self.matrix.indptr, self.matrix.indices, self.matrix.data


def _pairs(vectors: Float) -> Float:
    """(2 n, k) as (n, 2, k), without a copy."""
    return vectors.reshape(-1, 2, vectors.shape[-1])


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
        strength = ("symmetric", {"theta": 0.0})
        hierarchy = smoothed_aggregation_solver(
            sp.bsr_matrix(coarse_matrix), B=coarse_modes, strength=strength, max_coarse=300, keep=False
        )
        matrices = [matrix, *(sp.bsr_array(level.A) for level in hierarchy.levels[:-1])]
        two_components = sp.kron(prolongation, sp.eye_array(2), format="csr")
        prolongations = [two_components, *(sp.csr_array(level.P) for level in hierarchy.levels[:-1])]
        self._levels = [_level(*pair) for pair in zip(matrices, prolongations, strict=True)]
        self._coarsest = np.linalg.pinv(hierarchy.levels[-1].A.toarray(), hermitian=True)

    def solve(self, loads: Float, project: Callable[[Float], Float], rtol: float) -> Float:
        """Displacements (n, 2, k) for balanced loads (n, 2, k).

        `project` removes rigid modes (the identity when there are none).

        Raises
        ------
        ConvergenceError : a column's residual stays above `rtol` times its load.
        """
        shape = loads.shape
        matrix = self._levels[0].matrix
        solution = np.zeros_like(loads)
        residual = loads.copy()
        scale = np.linalg.norm(loads, axis=(0, 1))
        scale[scale == 0] = 1.0
        direction, energy = np.zeros_like(loads), np.ones(shape[-1])
        for iteration in range(_MAX_ITERATIONS + 1):
            error = float((np.linalg.norm(residual, axis=(0, 1)) / scale).max())
            if error <= rtol:
                return solution
            if iteration == _MAX_ITERATIONS:
                break
            step = project(self._cycle(0, residual.reshape(-1, shape[-1])).reshape(shape))
            energy_before, energy = energy, np.einsum("nik,nik->k", residual, step)
            direction *= _ratio(energy, energy_before) if iteration else 0.0
            direction += step
            image = _core.block_multiply(matrix.indptr, matrix.indices, matrix.data, direction)
            length = _ratio(energy, np.einsum("nik,nik->k", direction, image))
            solution += length * direction
            image *= length
            residual -= image
        raise ConvergenceError("elastic equilibrium", iterations=_MAX_ITERATIONS, residual=error, tolerance=rtol)

    def _cycle(self, depth: int, load: Float) -> Float:
        if depth == len(self._levels):
            return self._coarsest @ load
        level = self._levels[depth]
        solution = level.smooth(load, None)
        below = level.prolongation.T @ level.residual(load, solution)
        solution += level.prolongation @ self._cycle(depth + 1, below)
        return level.smooth(load, solution)


def _level(matrix: sp.bsr_array, prolongation: sp.csr_array) -> _Level:
    size, n_rows = matrix.blocksize[0], len(matrix.indptr) - 1
    rows = np.repeat(np.arange(n_rows), np.diff(matrix.indptr))
    inverse = np.linalg.inv(matrix.data[rows == matrix.indices])
    diagonal = sp.bsr_array((inverse, np.arange(n_rows), np.arange(n_rows + 1)), blocksize=(size, size))
    return _Level(matrix, diagonal, _largest_eigenvalue(matrix, diagonal), prolongation)


def _largest_eigenvalue(matrix: sp.bsr_array, inverse_diagonal: sp.bsr_array) -> float:
    """Of the scaled matrix, by the power method; an underestimate of a few per cent, which the smoother allows for."""
    vector = np.random.default_rng(0).standard_normal((matrix.shape[0], 1))
    eigenvalue = 1.0
    for _ in range(15):
        vector = inverse_diagonal @ (matrix @ vector)
        eigenvalue = float(np.linalg.norm(vector))
        vector /= eigenvalue
    return eigenvalue


def _ratio(numerator: Float, denominator: Float) -> Float:
    """Quotient by column, 0 where a column has already converged to nothing."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
