"""Equilibrium of one thin body on many ranks, when its matrix is too large for one machine.

Each rank assembles the rows of its own nodes, a band of the body, with the kernels of one machine, and PETSc solves:
directly with MUMPS where it was built with it, else by conjugate gradients with algebraic multigrid (GAMG) on the rigid
motions. Loads and displacements are of the whole body, on all ranks; they are small beside the matrix.
"""

from typing import Literal

import numpy as np
import scipy.sparse as sp
from mpi4py import MPI
from petsc4py import PETSc

from chemomech import _core
from chemomech.arrays import Float, Int, require_shape
from chemomech.errors import ConvergenceError
from chemomech.mechanics.mesh import Mesh
from chemomech.mechanics.plane_stress import RigidModes

_MAX_ITERATIONS = 500


class AssembledPlaneStress:
    """A thin elastic body, traction-free or held at its boundary; all ranks make it and call it together.

    Parameters
    ----------
    mesh : the body, the same on all ranks.
    stiffness_GPa : (3, 3) plane stress.
    held : no nodes (traction-free), or "boundary" for all boundary nodes.
    rtol : residual over load where the solution is iterative.
    comm : the ranks, all by default.
    """

    def __init__(
        self,
        mesh: Mesh,
        stiffness_GPa: Float,
        *,
        held: Literal["boundary"] | None = None,
        rtol: float = 1e-8,
        comm: MPI.Intracomm | None = None,
    ) -> None:
        require_shape(stiffness_GPa, "stiffness_GPa", (3, 3))
        self._comm = MPI.COMM_WORLD if comm is None else comm
        self._n_nodes = len(mesh.nodes)
        # Bands across the longer side touch along the shorter.
        self._order = np.argsort(mesh.nodes[:, int(np.argmax(np.ptp(mesh.nodes, axis=0)))], kind="stable")
        bounds = np.arange(self._comm.size + 1) * self._n_nodes // self._comm.size
        self._own = self._order[bounds[self._comm.rank] : bounds[self._comm.rank + 1]]
        self._rigid = None if held else RigidModes(mesh.nodes, mesh.node_component)
        matrix = self._assemble(mesh, stiffness_GPa)
        package = direct_package()
        fixed: Int = np.empty(0, dtype=np.intp)
        if held:
            fixed = (2 * mesh.boundary[:, None] + np.arange(2)).ravel()
        elif package and self._rigid:
            fixed = self._rigid.pins()
        place = np.argsort(self._order)
        self._fixed = 2 * place[fixed // 2] + fixed % 2
        matrix.zeroRowsColumns(self._fixed.astype(PETSc.IntType))
        self._solver = PETSc.KSP().create(self._comm)
        self._solver.setOperators(matrix)
        if package:
            self._solver.setType("preonly")
            self._solver.getPC().setType("cholesky")
            self._solver.getPC().setFactorSolverType(package)
        else:
            motions = RigidModes(mesh.nodes, mesh.node_component).modes[self._own].reshape(-1, 3)
            basis = [PETSc.Vec().createWithArray(column, comm=self._comm) for column in np.ascontiguousarray(motions.T)]
            matrix.setNearNullSpace(PETSc.NullSpace().create(vectors=basis, comm=self._comm))
            self._solver.setType("cg")
            self._solver.getPC().setType("gamg")
            self._solver.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
            self._solver.setTolerances(rtol=rtol, max_it=_MAX_ITERATIONS)
        self._rtol = rtol
        self._solver.setUp()

    def displacement(self, loads: Float) -> Float:
        """Displacement (n_nodes, 2, k) in nm under nodal loads (n_nodes, 2, k) in GPa nm; zero at held nodes.

        Raises
        ------
        ConvergenceError : the iteration does not reach its tolerance.
        """
        require_shape(loads, "loads", (self._n_nodes, 2, None))
        loads = self._rigid.remove(loads) if self._rigid else loads
        right = loads[self._order].reshape(2 * self._n_nodes, -1).copy()
        right[self._fixed] = 0.0
        ordered = np.empty_like(right)
        first, last = self._solver.getOperators()[0].getOwnershipRange()
        load, solution = self._solver.getOperators()[0].createVecs()
        sizes = np.array(self._comm.allgather(last - first))
        for column, values in zip(right.T, ordered.T, strict=True):
            load.setArray(column[first:last])
            self._solver.solve(load, solution)
            if self._solver.getConvergedReason() < 0:
                raise ConvergenceError(
                    "elastic equilibrium",
                    iterations=self._solver.getIterationNumber(),
                    residual=self._solver.getResidualNorm() / max(float(np.linalg.norm(column)), 1e-300),
                    tolerance=self._rtol,
                )
            whole = np.empty(2 * self._n_nodes)
            self._comm.Allgatherv(solution.getArray(), (whole, sizes))
            values[:] = whole
        moved = np.empty_like(loads)
        moved[self._order] = ordered.reshape(self._n_nodes, 2, -1)
        return self._rigid.remove(moved) if self._rigid else moved

    def _assemble(self, mesh: Mesh, stiffness_GPa: Float) -> PETSc.Mat:
        """The rows of this rank's nodes, in the order of the bands."""
        is_own = np.zeros(self._n_nodes, dtype=bool)
        is_own[self._own] = True
        nodes, triangles = np.unique(mesh.triangles[is_own[mesh.triangles].any(axis=1)], return_inverse=True)
        pattern = _core.Pattern(triangles.reshape(-1, 6).astype(np.int32), len(nodes))
        blocks = _core.assemble_stiffness(pattern, np.ascontiguousarray(mesh.nodes[nodes]), stiffness_GPa)
        columns = np.argsort(self._order)[nodes][pattern.indices]
        shape = (2 * len(nodes), 2 * self._n_nodes)
        rows = sp.csr_array(sp.bsr_array((blocks, columns, pattern.indptr), shape=shape))
        of_own = (2 * np.searchsorted(nodes, self._own)[:, None] + np.arange(2)).ravel()
        rows = rows[of_own]
        rows.sort_indices()
        size = (2 * len(self._own), 2 * self._n_nodes)
        matrix = PETSc.Mat().createAIJ(
            (size, size),
            bsize=2,
            csr=(rows.indptr.astype(PETSc.IntType), rows.indices.astype(PETSc.IntType), rows.data),
            comm=self._comm,
        )
        matrix.setOption(PETSc.Mat.Option.SPD, True)
        return matrix


def direct_package() -> str | None:
    """The parallel factorisation that PETSc was built with."""
    return "mumps" if PETSc.Sys.hasExternalPackage("mumps") else None
