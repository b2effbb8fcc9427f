"""Voxel elasticity: the operator beside this machine's limits, whole solutions beside assembled algebraic multigrid.

The load is that of an oblique phase boundary, with and without 30 % of voids (random spheres). Peers solve the same
linear system to the same relative residual with the rigid motions as near null space: pyamg's smoothed aggregation on
the assembled matrix, and PETSc's CG with GAMG where petsc4py is installed. The energies of all are compared first.
Peak memory is that of a process of its own, less that of one that only imports.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from chemomech import _core
from chemomech.mechanics.stiffness import OLIVINE
from chemomech.mechanics.voxel import VoxelBody
from harness import finish, median_seconds

CONSTANTS = [*np.diag(OLIVINE), OLIVINE[0, 1], OLIVINE[0, 2], OLIVINE[1, 2]]
RTOL = 1e-8
MiB = 2**20


def particle(n: int, voids: bool) -> tuple[np.ndarray, np.ndarray]:
    """Solid (n, n, n) and eigenstrain (n, n, n, 6); spheres of n / 8 to n / 5 cells across."""
    x = np.indices((n, n, n), dtype=np.float32) + 0.5
    solid = np.ones((n, n, n), bool)
    random = np.random.default_rng(0)
    while voids and solid.mean() > 0.7:
        centre, radius = random.uniform(0, n, 3), random.uniform(n / 16, n / 10)
        solid &= sum((axis - c) ** 2 for axis, c in zip(x, centre, strict=True)) > radius**2
    composition = (1 + np.tanh((x[0] - n / 2 - 0.25 * (x[2] - n / 2)) / (n / 10))) / 2
    return solid, np.array([0.05, 0.0346, -0.02, 0, 0, 0]) * (composition - 1)[..., None]


def operator_rate(n: int) -> float:
    """Unknowns a second of the operator in double precision on a full cube."""
    nodes = (3, n + 1, n + 1, n + 1)
    body = _core.VoxelBody(CONSTANTS, np.ones(3), np.ones((n, n, n), np.float32), np.ones(nodes, np.uint8))
    x, y = np.random.default_rng(0).standard_normal(nodes), np.empty(nodes)
    return float(np.prod(nodes) / median_seconds(lambda: body.multiply(x, y), at_least=15))


def fma_rate() -> float:
    """Multiply-adds a second of one core, counted as two operations: a product of matrices in cache."""
    a = np.ones((512, 512))
    return float(2 * 512**3 / median_seconds(lambda: a @ a, at_least=15))


def assembled(solid: np.ndarray) -> tuple[sp.csr_array, np.ndarray, np.ndarray]:
    """The matrix of the unknowns that exist, by node; their rigid motions; where they are in (nodes, 3)."""
    n = solid.shape[0]
    unit = np.zeros((3, 2, 2, 2))
    one = _core.VoxelBody(CONSTANTS, np.ones(3), np.ones((1, 1, 1), np.float32), np.ones(unit.shape, np.uint8))
    element = np.empty((24, 24))
    for i in range(24):
        unit[:] = 0
        unit.flat[i] = 1
        image = np.empty_like(unit)
        one.multiply(unit, image)
        element[i] = image.ravel()
    number = np.arange((n + 1) ** 3, dtype=np.int32).reshape((n + 1,) * 3)
    cells = np.argwhere(solid)
    corners = np.stack([number[tuple((cells + corner).T)] for corner in np.ndindex(2, 2, 2)], axis=1)
    present = np.unique(corners)
    place = np.full(number.size, -1, np.int32)
    place[present] = np.arange(len(present), dtype=np.int32)
    unknowns = (3 * place[corners][:, None, :] + np.arange(3, dtype=np.int32)[:, None]).reshape(len(cells), 24)
    rows, columns = np.repeat(unknowns, 24, axis=1).ravel(), np.tile(unknowns, (1, 24)).ravel()
    matrix = sp.csr_array((np.tile(element.ravel(), len(cells)), (rows, columns)), shape=(3 * len(present),) * 2)
    points = np.stack(np.unravel_index(present, number.shape), axis=-1) - n / 2
    motions = np.zeros((len(present), 3, 6))
    motions[:, range(3), range(3)] = 1
    for axis in range(3):
        motions[:, :, 3 + axis] = np.cross(np.eye(3)[axis], points)
    return matrix, motions.reshape(-1, 6), present


def solve_pyamg(matrix: sp.csr_array, motions: np.ndarray, loads: np.ndarray) -> tuple[np.ndarray, int]:
    from pyamg import smoothed_aggregation_solver

    hierarchy = smoothed_aggregation_solver(matrix.tobsr((3, 3)), B=motions, max_coarse=500, coarse_solver="pinv")
    residuals: list[float] = []
    solution = hierarchy.solve(loads, tol=RTOL, accel="cg", residuals=residuals, maxiter=500)
    return solution, len(residuals) - 1


def solve_gamg(matrix: sp.csr_array, motions: np.ndarray, loads: np.ndarray) -> tuple[np.ndarray, int]:
    from petsc4py import PETSc

    own = PETSc.Mat().createAIJ(matrix.shape, bsize=3, csr=(matrix.indptr, matrix.indices, matrix.data))
    orthonormal = np.linalg.qr(motions)[0]
    vectors = [PETSc.Vec().createWithArray(np.ascontiguousarray(column), bsize=3) for column in orthonormal.T]
    space = PETSc.NullSpace().create(vectors=vectors)
    own.setNearNullSpace(space)
    own.setNullSpace(space)
    solver = PETSc.KSP().create()
    solver.setOperators(own)
    solver.setType("cg")
    solver.getPC().setType("gamg")
    solver.setTolerances(rtol=RTOL, max_it=500)
    solution = own.createVecLeft()
    solver.solve(PETSc.Vec().createWithArray(loads), solution)
    return solution.getArray().copy(), solver.getIterationNumber()


def measure(who: str, n: int, voids: bool) -> dict[str, float]:
    """Setup and solution: seconds, iterations, the energy of the elements, peak memory beyond that of the imports."""
    solid, eigenstrain = particle(n, voids)
    matrix = motions = loads = None
    if who != "ours":
        matrix, motions, present = assembled(solid)
        stress = np.moveaxis(np.where(solid[..., None], eigenstrain, 0) @ OLIVINE, -1, 0)
        field = _core.voxel_stress_loads(np.ascontiguousarray(stress), np.ones(3))
        loads = np.ascontiguousarray(field.reshape(3, -1)[:, present].T).ravel()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if who == "ours":
        times = []
        for _ in range(3):  # a second or less each: other tenants of the machine would show
            start = time.perf_counter()
            state = VoxelBody(solid, np.ones(3), OLIVINE).equilibrium(eigenstrain, rtol=RTOL)
            times.append(time.perf_counter() - start)
        seconds, iterations, energy = float(np.median(times)), state.iterations, state.functional_aJ
    else:
        start = time.perf_counter()
        solution, iterations = (solve_pyamg if who == "pyamg" else solve_gamg)(matrix, motions, loads)
        seconds = time.perf_counter() - start
        own = eigenstrain[solid]
        energy = (np.einsum("ci,ij,cj->", own, OLIVINE, own) - loads @ solution) / 2
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = matrix.data.nbytes + matrix.indices.nbytes if who != "ours" else 0
    return {
        "seconds": seconds,
        "iterations": iterations,
        "energy": float(energy),
        "memory_MiB": (1024 * (after - before) + held) / MiB,
    }


def in_a_process(who: str, n: int, voids: bool) -> dict[str, float] | None:
    command = [sys.executable, __file__, "--measure", who, "--cells", str(n), *(["--voids"] if voids else [])]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    if run.returncode:
        if "No module named" in run.stderr:
            return None
        raise SystemExit(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 65^3 nodes; ends within 45 s")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--voids", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.cells, arguments.voids)))
        return 0

    results: dict[str, float] = {}
    with threadpool_limits(1):
        flops = fma_rate()
        print(f"one core: {flops / 1e9:.0f} GFlop/s in a product of matrices")
        for n in (32, 64, 128):
            rate = operator_rate(n)
            # 24 transforms up and down, 45 products, sums: about 210 operations a cell, of three unknowns.
            share, traffic = 70 * rate / flops, 16 * rate / 1e9  # x read and y written
            print(f"operator, {n + 1}^3 nodes: {rate:.2e} DoF/s, {share:.2f} of that, {traffic:.1f} GB/s")
    results["operator_dof_per_s_core"], results["fma_fraction"] = rate, 70 * rate / flops

    print(f"\n{'nodes':>7}{'void':>6}  {'':8}{'seconds':>9}{'DoF/s':>10}{'iterations':>12}{'MiB':>8}{'ours is':>9}")
    sizes = (32, 64) if arguments.quick else (32, 64, 128)
    for n in sizes:
        for voids in (False, True):
            ours = in_a_process("ours", n, voids)
            for who in ("ours", "pyamg", "gamg"):
                if who == "pyamg" and n > (32 if arguments.quick else 64):
                    continue  # minutes, and gigabytes of matrix
                run = ours if who == "ours" else in_a_process(who, n, voids)
                if run is None:
                    continue
                if not abs(run["energy"] / ours["energy"] - 1) < 1e-5:
                    print(f"{who} finds another energy: {run['energy']} and {ours['energy']}", file=sys.stderr)
                    return 1
                times = run["seconds"] / ours["seconds"]
                if who != "ours":
                    results[f"x_{'petsc_gamg' if who == 'gamg' else who}"] = times
                if who == "gamg":
                    results["memory_over_gamg"] = ours["memory_MiB"] / run["memory_MiB"]
                row = f"{n + 1:6}^3{'30 %' if voids else 'none':>6}  {who:8}{run['seconds']:9.2f}"
                row += f"{3 * (n + 1) ** 3 / run['seconds']:10.1e}{run['iterations']:12.0f}{run['memory_MiB']:8.0f}"
                print(row + (f"{times:8.1f}x" if who != "ours" else ""), flush=True)
    finish("voxel_elasticity", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
