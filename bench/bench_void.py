"""A coupled phase field: implicit steps a second, a relaxed particle with a void, and FiPy's implicit step beside ours.

The coupled step (composition and elastic equilibrium) is timed on a cube of 65^3 nodes while its phases coarsen, where
steps are thousands of times as long as an explicit scheme allows; a step counts once it is accepted, with what was
rejected on the way. FiPy solves the same implicit step of the composition alone, first order in time: both get the
same field, length and mobility, on one thread each, and the answers are compared first.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything loads OpenMP
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# FiPy takes PETSc where there is one, whose default tolerance leaves a tenth of the step to be found.
os.environ.setdefault("FIPY_SOLVERS", "scipy")

import argparse
import sys
import time
from importlib.util import find_spec

import numpy as np

from chemomech.mechanics.box import Box
from chemomech.mechanics.stiffness import OLIVINE
from chemomech.mechanics.voxel import VoxelBody
from chemomech.phasefield.cahn_hilliard import CahnHilliard, Transport
from chemomech.phasefield.coherency import Coherency, Eigenstrain
from chemomech.phasefield.free_energy import RegularSolution
from chemomech.phasefield.node_grid import node_grid
from chemomech.phasefield.void import Instant, VoidSimulation
from harness import finish

KT, SITES = 0.0257, 13.76
LAW = RegularSolution(0.11308 / KT)
KAPPA = 13.4 / KT
H, OPEN = 2.5, (False, False, False)
PARTS = ("composition", "elasticity", "the rest")


def particle(box: Box, h: float, void: tuple[float, float, float], anisotropic: bool) -> VoidSimulation:
    axes = zip(box.start, box.cells, void, strict=True)
    x, y, z = ((np.arange(start, start + n) + 0.5) * h - c for start, n, c in axes)
    solid = x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 > 40.0**2
    spacing = np.full(3, h)
    grid = node_grid(solid, spacing, box)
    stiff, fast = (100.0, 1e5) if anisotropic else (1.0, 1.0)
    transport = Transport(LAW, KAPPA * np.array([1, stiff, 1]), np.array([1, fast, 1]))
    eigenstrain = Eigenstrain(np.array([[0.05], [0.0346], [-0.02]]))
    coherency = Coherency(grid, VoxelBody(solid, spacing, OLIVINE, box=box), eigenstrain, SITES * KT)
    return VoidSimulation(CahnHilliard(grid, transport), coherency, site_density_nm3=SITES, kT_eV=KT, tolerance=2e-3)


class Stopwatch:
    """Seconds in a method, from now on."""

    def __init__(self, owner: object, name: str) -> None:
        self.seconds = 0.0
        inner = getattr(owner, name)

        def timed(*arguments: object, **options: object) -> object:
            start = time.perf_counter()
            try:
                return inner(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start

        setattr(owner, name, timed)


def explicit_limit_s(h: float) -> float:
    """Of forward differences in time for the isotropic equation: h^4 / (8 d^2 D X (1 - X) kappa), d = 3 dimensions."""
    return h**4 / (8 * 9 * 0.25 * KAPPA)


def coarsening(box: Box) -> tuple[VoidSimulation, Instant]:
    """A box of voxels of 2.5 nm, isotropic, in which phases coarsen at steps of a thousand times the explicit limit."""
    sim = particle(box, H, (80.0, 80.0, 80.0), anisotropic=False)
    x, z = ((start + np.arange(n)) * H for start, n in ((box.start[0], box.nodes[0]), (box.start[2], box.nodes[2])))
    start = 0.5 + 0.3 * np.cos(2 * np.pi * x / 80)[:, None, None] + 0.05 * np.cos(2 * np.pi * z / 40)
    now, _, _ = sim.begin(np.broadcast_to(start, box.nodes))
    while now.next_length_s < 1000 * explicit_limit_s(H):
        now, _, _ = sim.advance(now, np.inf)
    return sim, now


def coupled(budget_s: float) -> dict[str, float]:
    """Steps at 65^3 nodes while phases coarsen."""
    sim, now = coarsening(Box((64, 64, 64), OPEN))
    limit = explicit_limit_s(H)
    watches = [Stopwatch(sim.equations, "solve"), Stopwatch(sim.coherency, "relax")]
    records, begin = [], time.perf_counter()
    while time.perf_counter() - begin < budget_s:
        now, record, _ = sim.advance(now, np.inf)
        records.append(record)
    seconds = time.perf_counter() - begin
    rate = len(records) * 65**3 / seconds
    shares = [watch.seconds / seconds for watch in watches]
    times = np.median([record.length_s for record in records]) / limit
    print(
        f"65^3 nodes, coupled: {rate:.2e} node-steps/s, {len(records)} steps of {times:.0f} x the explicit limit, "
        f"{np.mean([r.newton_iterations for r in records]):.1f} iterations for the composition, "
        f"{np.mean([r.elastic_iterations for r in records]):.1f} for the displacement, "
        f"{sum(r.n_rejected for r in records)} rejected"
    )
    for part, share in zip(PARTS, [*shares, 1 - sum(shares)], strict=True):
        print(f"    {part:12}{100 * share:5.0f} %")
    return {"cell_steps_per_s": rate, "steps_over_explicit": times, "share_of_elasticity": shares[1]}


def relaxation(h: float) -> dict[str, float]:
    """The particle of Deng's Fig. S8a from a tilted boundary until nothing moves."""
    cells = (round(500 / h), round(100 / h), round(130 / h))
    sim = particle(Box(cells, OPEN), h, (250.0, 50.0, 65.0), anisotropic=True)
    x, z = np.arange(cells[0] + 1)[:, None, None] * h - 250, np.arange(cells[2] + 1) * h - 65
    start = np.broadcast_to(0.5 + 0.48 * np.tanh((x + 0.2 * z) / 8), sim.grid.box.nodes)
    begin = time.perf_counter()
    now, record, _ = sim.begin(start)
    while record.motion > 1e-2 or record.step < 3:
        now, record, _ = sim.advance(now, np.inf)
    seconds = time.perf_counter() - begin
    print(
        f"particle with a void, {cells[0]} x {cells[1]} x {cells[2]} voxels: relaxed at {now.time_s:.3g} s of its time "
        f"in {seconds:.0f} s and {now.step} steps, free energy {record.energy_aJ:.1f} aJ"
    )
    return {"relaxed_s": seconds, "relaxed_steps": now.step}


def beside_fipy(n: int) -> dict[str, float]:
    """One implicit step of the composition alone on n^3 points, of 100 times the explicit limit."""
    from fipy import CellVariable, DiffusionTerm, Grid3D, ImplicitSourceTerm, TransientTerm

    length = 100 * explicit_limit_s(H)
    x = np.arange(n) * H
    wave = np.cos(2 * np.pi * x / ((n - 1) * H))
    start = 0.5 + 0.2 * wave[:, None, None] * wave[:, None] * wave
    # Points of FiPy are centres of cells, ours are nodes with half a cell at the edges: both have no flux outside.
    grid = node_grid(np.ones((n - 1,) * 3, bool), np.full(3, H), Box((n - 1,) * 3, OPEN))
    solver = CahnHilliard(grid, Transport(LAW, np.full(3, KAPPA), np.ones(3)))
    before = grid.of_nodes(start)

    def ours() -> np.ndarray:
        solver.set_mobility(before)
        x, y = before.copy(), grid.field()
        solver.solve(1 / length, before / length, x, y, 1e-7)
        return x[grid.box.owned]

    mesh = Grid3D(dx=H, dy=H, dz=H, nx=n, ny=n, nz=n)
    flat = start.transpose(2, 1, 0).ravel()

    def fipy() -> np.ndarray:
        c = CellVariable(mesh=mesh, value=flat, hasOld=True)
        mu = CellVariable(mesh=mesh, value=0.0)
        mobility = CellVariable(mesh=mesh, value=flat * (1 - flat))
        slope, rest = CellVariable(mesh=mesh), CellVariable(mesh=mesh)
        first = TransientTerm(var=c) == DiffusionTerm(coeff=mobility.faceValue, var=mu)
        second = ImplicitSourceTerm(coeff=1.0, var=mu) == (
            ImplicitSourceTerm(coeff=slope, var=c) + rest - DiffusionTerm(coeff=KAPPA, var=c)
        )
        equations = first & second
        for _ in range(8):
            value = c.value.copy()
            slope.setValue(LAW.curvature(value))
            rest.setValue(LAW.potential(value) - LAW.curvature(value) * value)
            equations.sweep(dt=length)
            if np.abs(c.value - value).max() < 1e-6:
                break
        return c.value.reshape(n, n, n).transpose(2, 1, 0)

    begin = time.perf_counter()
    theirs = fipy()
    their_seconds = time.perf_counter() - begin
    mine = ours()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        ours()
        times.append(time.perf_counter() - begin)
    seconds = float(np.median(times))
    inner = np.s_[2:-2, 2:-2, 2:-2]
    moved, off = np.abs(mine - start)[inner].max(), np.abs(mine - theirs)[inner].max()
    print(
        f"implicit step of the composition on {n}^3 points: {seconds:.3f} s, FiPy {their_seconds:.1f} s; "
        f"they differ by {off:.1e} where the step moves {moved:.1e}"
    )
    if off > 0.1 * moved:
        print("the two steps differ", file=sys.stderr)
        sys.exit(1)
    return {"x_fipy": their_seconds / seconds, "ours_step_s": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ends within 45 s")
    quick = parser.parse_args().quick
    figures = coupled(6.0 if quick else 30.0)
    figures |= relaxation(5.0 if quick else 2.5)
    if find_spec("fipy"):
        figures |= beside_fipy(12 if quick else 24)
    finish("void", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
