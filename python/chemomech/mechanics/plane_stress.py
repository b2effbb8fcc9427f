"""Equilibrium of a thin body on a triangle mesh: one factorisation, then any number of loads.

The weak form of div C (grad d - eps0) = 0 (Deng SI, eqs. 2.5, 2.9) is K d = D eps0, with
K = sum of B^T C B and D = sum of B^T C over the elements; an eigenstrain is constant in a cell.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy.sparse as sp

from chemomech import _core
from chemomech.arrays import Float, Int, require_shape
from chemomech.mechanics.mesh import Mesh
from chemomech.mechanics.multigrid import Multigrid
from chemomech.sparse import factorise

#: Above this many nodes (4 a pixel) iterating takes less time than factorising. One thread, the whole of learning a law
#: (12 to 40 right-hand sides): direct 0.18, 0.41, 1.0, 5.5 s and multigrid 0.24, 0.30, 0.58, 2.1 s at 2500, 5000, 1e4
#: and 4e4 pixels.
_DIRECT_NODES = 20_000
#: Relative residual at which the iteration stops. The learned law and its errors then differ from the exact solution's
#: by 2e-8 of themselves, and the strain by 1e-9 (1e4 and 4e4 pixels, order 2, with and without noise; 1e-6 leaves 7e-7
#: in the law, 1e-5 leaves 4e-6).
_RTOL = 1e-7


class PlaneStress:
    """A thin elastic body, traction-free or held at its boundary.

    The map from loads to displacements is symmetric. For a traction-free body it is the pseudo-inverse:
    the rigid modes of every component are taken out of loads and displacements.

    Parameters
    ----------
    mesh : the body; mesh.component tells its connected pieces.
    stiffness_GPa : (3, 3) plane stress, from `stiffness.plane_stress`.
    held : no nodes (traction-free), or "boundary" for all boundary nodes, whose displacement is prescribed.
    solver : "direct" (sparse factorisation) or "multigrid"; None chooses by size.
    """

    def __init__(
        self,
        mesh: Mesh,
        stiffness_GPa: Float,
        *,
        held: Literal["boundary"] | None = None,
        solver: Literal["direct", "multigrid"] | None = None,
    ) -> None:
        require_shape(stiffness_GPa, "stiffness_GPa", (3, 3))
        self.mesh = mesh
        self.stiffness_GPa = stiffness_GPa
        n_nodes = len(mesh.nodes)
        self.held = mesh.boundary if held else np.empty(0, dtype=np.int32)
        self._free = np.delete(np.arange(n_nodes, dtype=np.int32), self.held)
        self._pattern = _core.Pattern(mesh.triangles, n_nodes)
        matrix = _stiffness_matrix(self._pattern, mesh.nodes, stiffness_GPa)
        inside = _block_rows_and_columns(matrix, self._free, self._free)
        self._from_held = _block_rows_and_columns(matrix, self._free, self.held).tocsr()
        self._rigid = None if held else RigidModes(mesh.nodes, mesh.node_component)
        if solver is None:
            solver = "direct" if n_nodes <= _DIRECT_NODES else "multigrid"
        self._invert: Callable[[Float], Float] = (
            _Factor(inside, self._rigid) if solver == "direct" else _Iteration(inside, mesh, stiffness_GPa, self._free)
        )

    def displacement(self, loads: Float) -> Float:
        """Displacement (n_nodes, 2, k) in nm under nodal loads (n_nodes, 2, k) in GPa nm; zero at held nodes."""
        require_shape(loads, "loads", (len(self.mesh.nodes), 2, None))
        if self._rigid:
            return self._rigid.remove(self._invert(self._rigid.remove(loads)))
        solution = np.zeros_like(loads)
        solution[self._free] = self._invert(loads[self._free])
        return solution

    def lift(self, held_displacement: Float) -> Float:
        """Displacement (n_nodes, 2, k) of a stress-free body whose held nodes are moved by (n_held, 2, k) nm."""
        loads = np.zeros((len(self.mesh.nodes), 2, held_displacement.shape[2]))
        loads[self._free] = -_times(self._from_held, held_displacement)
        solution = self.displacement(loads)
        solution[self.held] = held_displacement
        return solution

    def lift_transpose(self, vectors: Float) -> Float:
        """Transpose of `lift`: (n_nodes, 2, k) to (n_held, 2, k)."""
        response = self.displacement(vectors)[self._free]
        return np.asarray(vectors[self.held] - _times(self._from_held.T, response))

    def eigenstrain_loads(self, eigenstrain: Float) -> Float:
        """Loads (n_nodes, 2, k) of stress-free strains (n_cells, 3, k), components aa, cc, 2 ac."""
        require_shape(eigenstrain, "eigenstrain", (self.mesh.n_cells, 3, None))
        return self._stress_loads(np.einsum("ij,cjk->cik", self.stiffness_GPa, eigenstrain))

    def eigenstrain_loads_transpose(self, displacement: Float) -> Float:
        """Transpose of `eigenstrain_loads`: (n_nodes, 2, k) to (n_cells, 3, k)."""
        areas = self.mesh.cell_areas[:, None, None]
        return np.asarray(np.einsum("ij,cjk->cik", self.stiffness_GPa, self.strain(displacement)) * areas)

    def strain(self, displacement: Float) -> Float:
        """Mean strain of each cell (n_cells, 3, k) of a displacement (n_nodes, 2, k)."""
        return self.distortion(displacement)[:, :3]

    def distortion(self, displacement: Float) -> Float:
        """Mean strain and counter-clockwise rotation (n_cells, 4, k) of a displacement (n_nodes, 2, k): aa, cc, 2 ac,
        rotation (rad)."""
        mesh = self.mesh
        gradient = _core.cell_distortions(self._pattern, mesh.nodes, mesh.cells, mesh.n_cells, displacement)
        shear, turn = gradient[:, 2] + gradient[:, 1], (gradient[:, 2] - gradient[:, 1]) / 2
        return np.stack([gradient[:, 0], gradient[:, 3], shear, turn], axis=1)

    def strain_transpose(self, vectors: Float) -> Float:
        """Transpose of `strain`: (n_cells, 3, k) to (n_nodes, 2, k)."""
        return self._stress_loads(vectors / self.mesh.cell_areas[:, None, None])

    def distortion_transpose(self, vectors: Float) -> Float:
        """Transpose of `distortion`: (n_cells, 4, k) to (n_nodes, 2, k)."""
        shear = np.zeros_like(vectors[:, :3])
        shear[:, 2] = vectors[:, 3] / 2
        # The rotation (dv/dx - du/dy) / 2 is half the shear dv/dx + du/dy with the sign of u turned round.
        turn = self.strain_transpose(shear) * np.array([-1.0, 1.0])[:, None]
        return np.asarray(self.strain_transpose(vectors[:, :3]) + turn)

    def _stress_loads(self, stress: Float) -> Float:
        mesh = self.mesh
        stress = np.ascontiguousarray(stress)
        return _core.stress_loads(self._pattern, mesh.nodes, mesh.cells, stress)


class RigidModes:
    """Two translations and a rotation of every connected component, orthonormal over its points.

    Parameters
    ----------
    points : (n, 2), nm.
    component : (n,) the piece each point belongs to.

    Attributes
    ----------
    modes : (n, 2, 3), the modes of the component a point belongs to; 0 for the rotation of a single point.
    """

    def __init__(self, points: Float, component: Int) -> None:
        over_points = sp.csr_array((np.ones(len(component)), (component, np.arange(len(component)))))
        centre = (over_points @ points) / over_points.sum(axis=1)[:, None]
        x, y = (points - centre[component]).T
        zero, one = np.zeros_like(x), np.ones_like(x)
        modes = np.stack([[one, zero, -y], [zero, one, x]]).transpose(2, 0, 1)
        norm = np.sqrt(over_points @ (modes**2).sum(axis=1))[component][:, None]
        self.modes = np.divide(modes, norm, out=np.zeros_like(modes), where=norm > 0)
        self._component = component
        columns = np.repeat(3 * component[:, None] + np.arange(3), 2, axis=0)
        pointers = np.arange(0, 6 * len(component) + 1, 3)
        self._basis = sp.csr_array((self.modes.ravel(), columns.ravel(), pointers))

    def remove(self, vectors: Float) -> Float:
        """Vectors (n, 2, k) less their rigid part."""
        flat = vectors.reshape(-1, vectors.shape[2])
        return np.asarray(flat - self._basis @ (self._basis.T @ flat)).reshape(vectors.shape)

    def pins(self) -> Int:
        """Unknowns (3 per component) that hold a body without stressing it.

        Both displacements of one extreme node, and of another node the one that turns fastest about the first.
        """
        pins = []
        for component in range(self._basis.shape[1] // 3):
            nodes = np.flatnonzero(self._component == component)
            turn = self.modes[nodes, :, 2]
            first = int(np.argmax((turn**2).sum(axis=1)))
            second, direction = divmod(int(np.argmax(np.abs(turn - turn[first]))), 2)
            pins += [2 * nodes[first], 2 * nodes[first] + 1, 2 * nodes[second] + direction]
        return np.array(pins)


class _Factor:
    """Sparse factorisation; a traction-free body is pinned, which balanced loads do not feel."""

    def __init__(self, matrix: sp.bsr_array, rigid: RigidModes | None) -> None:
        kept = np.arange(matrix.shape[0])
        if rigid:
            kept = np.delete(kept, rigid.pins())
        self._kept = kept
        self._solve = factorise(matrix.tocsr()[kept][:, kept])

    def __call__(self, loads: Float) -> Float:
        flat = loads.reshape(-1, loads.shape[2])
        solution = np.zeros_like(flat)
        solution[self._kept] = self._solve(flat[self._kept])
        return solution.reshape(loads.shape)


class _Iteration:
    """Multigrid-preconditioned conjugate gradients on the free nodes."""

    def __init__(self, matrix: sp.bsr_array, mesh: Mesh, stiffness_GPa: Float, free: Int) -> None:
        coarse = mesh.vertex_mesh
        pattern = _core.Pattern(coarse.triangles, len(coarse.nodes))
        coarse_matrix = _stiffness_matrix(pattern, coarse.nodes, stiffness_GPa)
        free_vertices = np.flatnonzero(np.isin(coarse.vertices, free))
        modes = RigidModes(mesh.nodes, mesh.node_component).modes[coarse.vertices[free_vertices]].reshape(-1, 3)
        self._multigrid = Multigrid(
            matrix,
            _block_rows_and_columns(coarse_matrix, free_vertices, free_vertices),
            _vertices_to_nodes(mesh)[free][:, free_vertices],
            modes,
        )

    def __call__(self, loads: Float) -> Float:
        return self._multigrid.solve(loads, _RTOL)


def _vertices_to_nodes(mesh: Mesh) -> sp.csr_array:
    """Linear interpolation (n_nodes, n_vertices): a midside is the mean of its edge's ends."""
    coarse = mesh.vertex_mesh
    rows = np.concatenate([coarse.vertices, np.repeat(coarse.midsides, 2)])
    columns = np.concatenate([np.arange(len(coarse.vertices)), coarse.parents.ravel()])
    values = np.concatenate([np.ones(len(coarse.vertices)), np.full(2 * len(coarse.midsides), 0.5)])
    return sp.csr_array((values, (rows, columns)), shape=(len(mesh.nodes), len(coarse.vertices)))


def _stiffness_matrix(pattern: _core.Pattern, nodes: Float, stiffness_GPa: Float) -> sp.bsr_array:
    values = _core.assemble_stiffness(pattern, nodes, stiffness_GPa)
    return sp.bsr_array((values, pattern.indices, pattern.indptr), shape=(2 * len(nodes), 2 * len(nodes)))


def _block_rows_and_columns(matrix: sp.bsr_array, rows: Int, columns: Int) -> sp.bsr_array:
    """The 2 x 2 blocks between two sets of nodes."""
    n_nodes = matrix.shape[0] // 2
    if len(rows) == n_nodes and len(columns) == n_nodes:
        return matrix
    position = sp.csr_array(
        (np.arange(1, len(matrix.indices) + 1), matrix.indices, matrix.indptr), shape=(n_nodes, n_nodes)
    )[rows][:, columns]
    shape = (2 * len(rows), 2 * len(columns))
    return sp.bsr_array((matrix.data[position.data - 1], position.indices, position.indptr), shape=shape)


def _times(matrix: sp.csr_array, vectors: Float) -> Float:
    """A matrix on the unknowns times (n, 2, k) vectors."""
    k = vectors.shape[2]
    return np.asarray(matrix @ vectors.reshape(-1, k)).reshape(-1, 2, k)
