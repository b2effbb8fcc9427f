"""What `scaling.py` runs under mpiexec: measure.py WHAT [NODES]; rank 0 prints a line of JSON.

Ranks start each measurement together; the slowest counts, and of many repetitions the fastest, which on a machine that
others use too is the one they disturbed least.
"""

import json
import sys
import time

import numpy as np
from mpi4py import MPI

from chemomech import _core
from chemomech.mechanics.box import Box
from chemomech.mechanics.stiffness import OLIVINE
from chemomech.mechanics.voxel import VoxelBody
from chemomech.parallel import grid

COMM = MPI.COMM_WORLD
CONSTANTS = np.array([[*np.diag(OLIVINE), OLIVINE[0, 1], OLIVINE[0, 2], OLIVINE[1, 2]]])
RTOL = 1e-8


def fastest(function, budget_s=2.0, at_least=5):
    function()
    times = []
    while len(times) < at_least or sum(times) < budget_s:
        COMM.Barrier()
        start = time.perf_counter()
        function()
        times.append(COMM.allreduce(time.perf_counter() - start, MPI.MAX))
    return min(times)


def stream():
    """GB/s of a = b + c over all ranks, on arrays beyond the caches; the fetch before a write counts."""
    a, b, c = np.ones((3, 1 << 23))
    return {"GB_per_s": COMM.size * 4 * a.nbytes / fastest(lambda: np.add(b, c, out=a)) / 1e9}


def operator(nodes):
    """Seconds of K x in double and single precision, halos included and alone, of a body of so many nodes."""
    cells = tuple(n - 1 for n in nodes)
    part = grid.cut(cells)
    found = {"nodes": [int(n) for n in nodes], "own": list(part.nodes)}
    for name, real, kind in (
        ("double", np.float64, _core.VoxelOperator),
        ("single", np.float32, _core.VoxelOperator32),
    ):
        kernel = kind(CONSTANTS, np.ones(3), part.weights(np.ones((1, *part.cells)), real))
        x, y = part.vector(real), part.vector(real)
        x[:, *part.owned] = np.random.default_rng(0).random((3, *part.nodes))

        def multiply(kernel=kernel, x=x, y=y):
            part.fill_halo(x)
            kernel.multiply(x, y)

        found[name] = fastest(multiply)
        found[f"{name}_halo"] = fastest(lambda x=x: part.fill_halo(x), budget_s=0.5)
    found["dot"] = fastest(lambda: part.sum(float(np.vdot(x, y))), budget_s=0.5)
    return found


def boundary(part):
    """Eigenstrain of a tilted diffuse phase boundary in this rank's cells."""
    x, _, z = (
        (np.arange(window.start, window.stop) + 0.5) / n - 0.5
        for window, n in zip(part.window, part.whole.cells, strict=True)
    )
    lithium = (1 + np.tanh(10 * (x[:, None, None] - 0.25 * z))) / 2
    return np.broadcast_to(lithium - 1, part.cells)[..., None] * np.array([0.05, 0.0346, -0.02, 0, 0, 0])


def solve(nodes):
    """Seconds of a solution to 1e-8, setup included and alone, and its iterations."""
    cells = tuple(n - 1 for n in nodes)
    part = grid.cut(cells)
    eigenstrain = np.ascontiguousarray(boundary(part))
    state = None

    def set_up():
        return VoxelBody(np.ones(part.cells, dtype=bool), (1, 1, 1), OLIVINE, box=part)

    def run():
        nonlocal state
        state = set_up().equilibrium(eigenstrain, rtol=RTOL)

    return {
        "nodes": [int(n) for n in nodes],
        "own": list(part.nodes),
        "seconds": fastest(run, budget_s=4.0, at_least=3),
        "setup": fastest(set_up, budget_s=1.0, at_least=3),
        "iterations": state.iterations,
        "energy": state.minimum_aJ,
    }


def step(nodes):
    """Seconds of a coupled step of a phase field, of which elasticity, and its iterations; mean of some steps."""
    from bench_void import Stopwatch, coarsening

    part = grid.cut(tuple(n - 1 for n in nodes), uncut=(1,))
    sim, now = coarsening(part)
    elastic, seconds, records = Stopwatch(sim.coherency, "relax"), [], []
    for _ in range(6):
        # Twice, of which the faster counts: a step does not change the instant it begins from.
        times = []
        for _ in range(2):
            COMM.Barrier()
            start = time.perf_counter()
            after, record, _ = sim.advance(now, np.inf)
            times.append(COMM.allreduce(time.perf_counter() - start, MPI.MAX))
        now = after
        seconds.append(min(times))
        records.append(record)
    return {
        "nodes": [int(n) for n in nodes],
        "seconds": float(np.mean(seconds)),
        "elasticity": elastic.seconds / 12,
        "newton": float(np.mean([record.newton_iterations for record in records])),
        "iterations": float(np.mean([record.elastic_iterations for record in records])),
        "energy": records[-1].energy_aJ,
    }


def gamg(nodes):
    """PETSc's own assembled conjugate gradients with GAMG and the rigid motions; the assembly is not counted."""
    from petsc4py import PETSc

    from bench_voxel_elasticity import assembled  # of the whole body on every rank, which then takes its rows

    one = Box(tuple(n - 1 for n in nodes), (False, False, False))
    alone = grid.Part(one.cells, one.periodic, one, tuple((0, n) for n in one.nodes), MPI.COMM_SELF)
    matrix, load, motions, work = assembled(np.ones(one.cells, dtype=bool), boundary(alone))
    matrix = matrix.tocsr()
    bounds = 3 * (np.arange(COMM.size + 1) * (len(load) // 3) // COMM.size)
    first, last = bounds[COMM.rank], bounds[COMM.rank + 1]
    rows, size = matrix[first:last], (last - first, len(load))
    graph = (indices.astype(PETSc.IntType) for indices in (rows.indptr, rows.indices))
    system = PETSc.Mat().createAIJ((size, size), bsize=3, csr=(*graph, rows.data), comm=COMM)
    system.setOption(PETSc.Mat.Option.SPD, True)
    basis = [PETSc.Vec().createWithArray(m[first:last].copy(), comm=COMM) for m in np.linalg.qr(motions)[0].T]
    null_space = PETSc.NullSpace().create(vectors=basis, comm=COMM)
    system.setNullSpace(null_space)
    system.setNearNullSpace(null_space)
    right, u = PETSc.Vec().createWithArray(load[first:last].copy(), comm=COMM), system.createVecRight()
    COMM.Barrier()
    start = time.perf_counter()
    solver = PETSc.KSP().create(COMM)
    solver.setType("cg")
    solver.getPC().setType("gamg")
    solver.setTolerances(rtol=RTOL, max_it=300)
    solver.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    solver.setOperators(system)
    solver.solve(right, u)
    seconds = COMM.allreduce(time.perf_counter() - start, MPI.MAX)
    energy = work / 2 - u.dot(right) / 2
    return {"nodes": nodes, "seconds": seconds, "iterations": solver.getIterationNumber(), "energy": energy}


def messages():
    """Seconds of a halo exchange between two ranks by bytes a rank sends, and of a sum over all ranks."""
    exchange = {}
    for n in (2, 16, 48, 96):
        part = grid.cut((2 * n, max(n, 8), max(n, 8)))
        x = part.vector(np.float32)
        exchange[12 * part.nodes[1] * part.nodes[2]] = fastest(lambda part=part, x=x: part.fill_halo(x), 0.5, 50)
    return {"exchange": exchange, "sum": fastest(lambda: COMM.allreduce(1.0), 0.3, 200)}


if __name__ == "__main__":
    what, *nodes = sys.argv[1:]
    arguments = [tuple(int(n) for n in nodes)] if nodes else []
    found = globals()[what](*arguments)
    if COMM.rank == 0:
        print(json.dumps(found))
