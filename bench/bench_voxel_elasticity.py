"""Elastic equilibrium of voxel bodies, beside PETSc's CG + GAMG and pyamg's smoothed aggregation.

The operator is timed on one thread against the machine's fused multiply-adds and memory. Solutions are of cubes with a
tilted phase boundary, solid and with 30 % of it taken by spherical voids, to a relative residual of 1e-8, setup
included, every one in a process of its own. Peers get the assembled matrix, the rigid motions and the same load; the
time and the passing memory of their assembly are not counted, the matrix itself is. Answers are compared first.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before anything loads OpenMP

import argparse
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np

from chemomech import _core
from chemomech.mechanics.box import Box
from chemomech.mechanics.stiffness import OLIVINE
from chemomech.mechanics.voxel import VoxelBody
from harness import finish, median_seconds

CONSTANTS = np.array([[*np.diag(OLIVINE), OLIVINE[0, 1], OLIVINE[0, 2], OLIVINE[1, 2]]])
RTOL = 1e-8


def cube(nodes: int, voids: bool) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and eigenstrain of a cube of so many nodes along an edge."""
    n = nodes - 1
    x = (np.arange(n) + 0.5) / n
    solid, random = np.ones((n, n, n), dtype=bool), np.random.default_rng(0)
    while voids and solid.mean() > 0.7:
        dx, dy, dz = (x - c for c in random.random(3))
        solid &= (dx**2)[:, None, None] + (dy**2)[:, None] + dz**2 > 0.1**2
    lithium = (1 + np.tanh(10 * (x[:, None, None] - 0.5 - 0.25 * (x - 0.5)))) / 2
    lithium = np.broadcast_to(lithium, solid.shape)
    return solid, (lithium - 1)[..., None] * np.array([0.05, 0.0346, -0.02, 0, 0, 0])


def assembled(solid: np.ndarray, eigenstrain: np.ndarray):
    """The matrix in blocks of 3 over the nodes that exist, load, rigid motions and the load's part of the energy."""
    import scipy.sparse as sparse

    box = Box((1, 1, 1), (False, False, False))
    brick = _core.VoxelOperator(CONSTANTS, np.ones(3), box.weights(np.ones((1, 1, 1, 1)), np.float64))
    x, y, element = box.vector(np.float64), box.vector(np.float64), np.zeros((8, 8, 3, 3))
    corners = np.array(list(product((0, 1), repeat=3)))
    for (b, corner), j in product(enumerate(corners), range(3)):
        x[:] = 0
        x[j, *(corner + 1)] = 1
        brick.multiply(x, y)
        element[:, b, :, j] = y[:, *box.owned].reshape(3, 8).T
    body = VoxelBody(solid, (1, 1, 1), OLIVINE)
    load = body._box.vector(np.float64)
    cells = (body.stiffness_GPa, body._multigrid.weights, body.spacing_nm)
    work = _core.eigenstrain_loads(*cells, np.ascontiguousarray(eigenstrain), load)
    exists = body._rigid.node_piece > 0
    load = np.moveaxis(load[:, *body._box.owned], 0, -1)[exists]
    number = np.cumsum(exists).reshape(exists.shape) - 1
    at = np.argwhere(solid)
    nodes = np.stack([number[tuple((at + corner).T)] for corner in corners], axis=1)
    matrix = None
    for a in range(8):  # one row of blocks of every brick at a time, which bounds the memory of the assembly
        rows = np.repeat(nodes[:, a], 8)
        part = sparse.coo_array(
            (
                np.broadcast_to(element[a], (len(at), 8, 3, 3)).ravel(),
                (
                    np.broadcast_to(3 * rows[:, None, None] + np.arange(3)[:, None], (rows.size, 3, 3)).ravel(),
                    np.broadcast_to(3 * nodes.reshape(-1, 1, 1) + np.arange(3), (rows.size, 3, 3)).ravel(),
                ),
            ),
            shape=(3 * len(load),) * 2,
        ).tocsr()
        matrix = part if matrix is None else matrix + part
    points = np.argwhere(exists) - np.array(exists.shape) / 2
    motions = np.concatenate(
        [np.tile(np.eye(3), (len(points), 1))] + [np.cross(axis, points).reshape(-1, 1) for axis in np.eye(3)], axis=1
    )
    return matrix.tobsr((3, 3)), load.ravel(), motions, work


def memory_MB(key: str) -> float:
    """Of this process now (VmRSS) or at most (VmHWM). getrusage would begin with the peak of the parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def solve_ours(solid, eigenstrain):
    before = memory_MB("VmRSS")
    start = time.perf_counter()
    body = VoxelBody(solid, (1, 1, 1), OLIVINE)
    setup = time.perf_counter() - start
    state = body.equilibrium(eigenstrain, rtol=RTOL)
    seconds = time.perf_counter() - start
    return state.minimum_aJ, state.iterations, setup, seconds, memory_MB("VmHWM") - before


def solve_pyamg(solid, eigenstrain):
    from pyamg import smoothed_aggregation_solver

    before = memory_MB("VmRSS")
    matrix, load, motions, work = assembled(solid, eigenstrain)
    forget_peak()
    start = time.perf_counter()
    hierarchy = smoothed_aggregation_solver(matrix, B=motions, max_coarse=300)
    setup = time.perf_counter() - start
    residuals: list[float] = []
    u = hierarchy.solve(load, tol=RTOL, accel="cg", maxiter=300, residuals=residuals)
    seconds = time.perf_counter() - start
    return work / 2 - u @ load / 2, len(residuals) - 1, setup, seconds, memory_MB("VmHWM") - before


def solve_petsc(solid, eigenstrain):
    from petsc4py import PETSc

    before = memory_MB("VmRSS")
    matrix, load, motions, work = assembled(solid, eigenstrain)
    matrix = matrix.tocsr()  # GAMG takes no blocked format, but knows of the blocks
    graph = (indices.astype(PETSc.IntType) for indices in (matrix.indptr, matrix.indices))
    operator = PETSc.Mat().createAIJ(matrix.shape, bsize=3, csr=(*graph, matrix.data))
    del matrix
    operator.setOption(PETSc.Mat.Option.SPD, True)
    basis = [PETSc.Vec().createWithArray(np.ascontiguousarray(m)) for m in np.linalg.qr(motions)[0].T]
    null_space = PETSc.NullSpace().create(vectors=basis)
    operator.setNullSpace(null_space)
    operator.setNearNullSpace(null_space)
    right, u = PETSc.Vec().createWithArray(load), PETSc.Vec().createWithArray(np.zeros_like(load))
    del motions
    forget_peak()
    start = time.perf_counter()
    solver = PETSc.KSP().create()
    solver.setType("cg")
    solver.getPC().setType("gamg")
    solver.setTolerances(rtol=RTOL, max_it=300)
    solver.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    solver.setOperators(operator)
    solver.setUp()
    setup = time.perf_counter() - start
    solver.solve(right, u)
    seconds = time.perf_counter() - start
    return work / 2 - u.getArray() @ load / 2, solver.getIterationNumber(), setup, seconds, memory_MB("VmHWM") - before


SOLVERS = {"chemomech": solve_ours, "pyamg": solve_pyamg, "petsc": solve_petsc}


def in_a_process(solver: str, nodes: int, voids: bool, seconds: float) -> dict[str, float] | None:
    """What a solver of SOLVERS does in a process of its own; None when the time is up."""
    command = [sys.executable, __file__, "--solve", solver, str(nodes), str(int(voids))]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    names = ("energy", "iterations", "setup", "seconds", "memory")
    return dict(zip(names, json.loads(run.stdout.splitlines()[-1]), strict=True))


def multiply_adds_per_s() -> float:
    """Rate of fused multiply-adds of one core: a product of matrices by the BLAS."""
    a = np.random.default_rng(0).random((1500, 1500))
    return 1500**3 / median_seconds(lambda: a @ a, at_least=3, budget_s=0.3)


def triad_GB_per_s() -> float:
    """Bandwidth of a = b + c on arrays far larger than the caches: two reads, a write and the fetch before it."""
    a, b, c = np.ones((3, 1 << 24))
    return 4 * a.nbytes / median_seconds(lambda: np.add(b, c, out=a), at_least=5, budget_s=0.3) / 1e9


def operator_rates() -> dict[str, float]:
    rates = {}
    print("operator, one thread" + " " * 12 + "DoF/s    bytes/DoF least    GB/s")
    for nodes in (33, 65, 129):
        for name, real, kind in (
            ("double", np.float64, _core.VoxelOperator),
            ("single", np.float32, _core.VoxelOperator32),
        ):
            box = Box((nodes - 1,) * 3, (False, False, False))
            operator = kind(CONSTANTS, np.ones(3), box.weights(np.ones((1, *box.cells)), real))
            x, y = box.vector(real), box.vector(real)
            x[:, *box.owned] = np.random.default_rng(0).random((3, *box.nodes))
            rate = (
                3
                * nodes**3
                / median_seconds(lambda run=operator.multiply, x=x, y=y: run(x, y), at_least=9, budget_s=0.4)
            )
            least = (9 + 1) / 3 * x.itemsize  # x read, y fetched and written, the weight of a cell read
            print(f"  {nodes:4}^3 nodes, {name:10}{rate:14.2e}{least:14.1f}{rate * least / 1e9:14.1f}")
            rates[f"{name}_{nodes}"] = rate
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no more than 65^3 nodes; ends within 45 s")
    parser.add_argument("--solve", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.solve:
        solver, nodes, voids = arguments.solve
        warm = np.ones((4, 4, 4), dtype=bool), np.zeros((4, 4, 4, 6))
        VoxelBody(warm[0], (1, 1, 1), OLIVINE).equilibrium(warm[1])
        print(json.dumps(SOLVERS[solver](*cube(int(nodes), voids == "1"))))
        return 0

    fused, triad = multiply_adds_per_s(), triad_GB_per_s()
    rates = operator_rates()
    # 45 multiply-adds on a brick's amplitudes; the transforms that make and undo them are additions.
    rate = rates["double_129"]
    fraction = rate / 3 * 45 / fused
    print(
        f"\nat 129^3 the 45 multiply-adds of a brick are {100 * fraction:.0f} % of the {fused:.1e}/s of a matrix "
        f"product, traffic {100 * rate * 80 / 3 / 1e9 / triad:.0f} % of a triad's {triad:.0f} GB/s in this run\n"
    )

    peers = [peer for peer, module in (("pyamg", "pyamg"), ("petsc", "petsc4py")) if find_spec(module)]
    sizes = {"chemomech": (33, 65) if arguments.quick else (33, 65, 129), "pyamg": (33,), "petsc": (33, 65)}
    if arguments.quick:
        sizes["petsc"] = (33,)
    results: dict[str, dict] = {}
    print(
        f"{'':12}{'nodes':>8}{'voids':>7}{'iterations':>12}{'setup s':>10}{'total s':>10}{'DoF/s':>11}{'peak MB':>10}"
    )
    for solver in ("chemomech", *peers):
        for nodes, voids in product(sizes[solver], (False, True)):
            run = in_a_process(solver, nodes, voids, seconds=600)
            if run is None:
                print(f"{solver:12}{nodes:6}^3{'30 %' if voids else '0 %':>7}   not in ten minutes")
                continue
            results[f"{solver}_{nodes}_{int(voids)}"] = run
            print(
                f"{solver:12}{nodes:6}^3{'30 %' if voids else '0 %':>7}{run['iterations']:12.0f}{run['setup']:10.2f}"
                f"{run['seconds']:10.2f}{3 * nodes**3 / run['seconds']:11.2e}{run['memory']:10.0f}",
                flush=True,
            )
            ours = results[f"chemomech_{nodes}_{int(voids)}"]
            # The energy of a solution is off by the square of its residual; pyamg stops on a norm of its own.
            if abs(run["energy"] / ours["energy"] - 1) > 1e-6:
                print(f"energies differ: {run['energy']} and {ours['energy']}", file=sys.stderr)
                return 1

    figures = {
        "operator_dof_per_s_core": rate,
        "fma_fraction": fraction,
        "bandwidth_fraction": rate * 80 / 3 / 1e9 / triad,
        "single_precision_dof_per_s_core": rates["single_129"],
    }
    for peer in peers:
        nodes = max(sizes[peer])
        ours, theirs = results[f"chemomech_{nodes}_0"], results.get(f"{peer}_{nodes}_0")
        if theirs:
            figures["x_pyamg" if peer == "pyamg" else "x_petsc_gamg"] = theirs["seconds"] / ours["seconds"]
            if peer == "petsc":
                figures["memory_over_gamg"] = ours["memory"] / theirs["memory"]
    largest = max(sizes["chemomech"])
    figures["solve_dof_per_s"] = 3 * largest**3 / results[f"chemomech_{largest}_0"]["seconds"]
    finish("voxel_elasticity", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
