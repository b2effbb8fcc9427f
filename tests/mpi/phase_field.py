"""What the tests of phase fields on ranks run under mpiexec; prints lines of JSON.

phase_field.py compare WHOLE_NODES : every case beside one machine's run.
phase_field.py memory SMALL CONFIG OUT LIMIT_MB : runs of `chemomech void`; memory may not grow by more after the first.
phase_field.py fail CONFIG OUT : the same, with an error on the last rank at its third step.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
from mpi4py import MPI
from voxels import gathered, memory_MB, no_more_than, spheres

from chemomech.cli.void_run import VoidRun
from chemomech.mechanics.stiffness import FEPO4, LIFEPO4, OLIVINE
from chemomech.mechanics.voxel import VoxelBody, void_surface
from chemomech.parallel import grid
from chemomech.phasefield import void
from chemomech.phasefield.cahn_hilliard import CahnHilliard, Transport
from chemomech.phasefield.coherency import Coherency, Eigenstrain
from chemomech.phasefield.free_energy import RegularSolution
from chemomech.phasefield.node_grid import node_grid
from chemomech.phasefield.projection import as_map

COMM = MPI.COMM_WORLD
LAW = RegularSolution(4.4)
EXPANSION = Eigenstrain(np.array([[0.05], [0.0346], [-0.02]]))
N_STEPS, TOLERANCE = 6, 1e-2


def cases():
    """Solid, periodic axes, stiffness, exchange with a reservoir, wetting."""
    free, around = (False, False, False), (True, False, True)
    one_sided = np.zeros((40, 6, 20), dtype=bool)
    one_sided[2:12, :, 2:9] = True
    return {
        "voids": (spheres((28, 10, 36), 0.2, 3.0), free, OLIVINE, 0.0, 0.0),
        "uneven": (np.ones((37, 5, 22), dtype=bool), free, OLIVINE, 0.0, 0.0),
        "around": (spheres((24, 8, 16), 0.2, 3.0), around, OLIVINE, 0.0, 0.0),
        "reservoir": (spheres((24, 8, 20), 0.1, 3.0), free, OLIVINE, 1e-2, 0.1),
        "mixture": (np.ones((21, 4, 26), dtype=bool), free, np.array([FEPO4, LIFEPO4]), 0.0, 0.0),
        "one side": (one_sided, free, OLIVINE, 0.0, 0.0),  # the other ranks have no voxel
        "full rows": (np.ones((22, 3, 13), dtype=bool), free, OLIVINE, 0.0, 0.0),  # with their halo
        "composition alone": (spheres((28, 10, 36), 0.3, 3.0), free, None, 0.0, 0.0),
    }


def simulation(box, solid, stiffness, exchange, wetting):
    spacing = np.array([4.0, 5.0, 4.0])
    nodes = node_grid(solid, spacing, box)
    transport = Transport(LAW, 521 * np.array([1.0, 100, 1]), np.array([1.0, 1e5, 1]), exchange, 0.3)
    coherency = None
    if stiffness is not None:
        share = np.zeros(solid.shape) if stiffness.ndim == 3 else None
        body = VoxelBody(solid, spacing, stiffness, share=share, box=box)
        coherency = Coherency(nodes, body, EXPANSION, 13.76 * 0.0257)
    return void.VoidSimulation(
        CahnHilliard(nodes, transport),
        coherency,
        site_density_nm3=13.76,
        kT_eV=0.0257,
        tolerance=TOLERANCE,
        wetting_kT_per_nm2=wetting,
    )


def steps(sim, start):
    now, record, elastic = sim.begin(start)
    records = [record]
    while now.step < N_STEPS:
        now, record, elastic = sim.advance(now, 1e9)
        records.append(record)
    return now, records, elastic


def compare(case):
    solid, periodic, *laws = cases()[case]
    part = grid.cut(solid.shape, periodic, uncut=(1,))
    nodes = tuple(n if wraps else n + 1 for n, wraps in zip(solid.shape, periodic, strict=True))
    x, z = np.arange(nodes[0]) - nodes[0] / 2, np.arange(nodes[2]) - nodes[2] / 2
    start = np.broadcast_to((0.5 + 0.4 * np.tanh((x[:, None] + 0.3 * z) / 3))[:, None], nodes)
    sim = simulation(part, solid[part.window], *laws)
    now, records, elastic = steps(sim, start[part.node_window])
    means = gathered(part, sim.grid.cell_means(now.compositions[0]))
    stress = elastic and gathered(part, elastic.stress_GPa)
    surface = gathered(part, void_surface(solid[part.window], part))
    mean_map = as_map(sim.grid.cell_means(now.compositions[0]).mean(axis=1), part)
    cells = COMM.gather(int(solid[part.window].sum()))
    if COMM.rank:
        return
    whole = simulation(part.whole, solid, *laws)
    one, alone, relaxed = steps(whole, start)
    expected = whole.grid.cell_means(one.compositions[0])

    def error(ours, theirs, of):
        return float(np.abs(ours - theirs)[of].max() / np.abs(theirs[of]).max())

    def largest(name):
        return max(abs(getattr(a, name) / getattr(b, name) - 1) for a, b in zip(records, alone, strict=True))

    print(
        json.dumps(
            {
                "case": case,
                "cells": cells,
                "newton": [[r.newton_iterations for r in each] for each in (records, alone)],
                "elastic": [[r.elastic_iterations for r in each] for each in (records, alone)],
                "composition": error(means, expected, solid),
                "stress": error(stress, relaxed.stress_GPa, solid) if elastic else 0.0,
                "energy": largest("energy_aJ"),
                "mass": max(abs(r.mean_composition / records[0].mean_composition - 1) for r in records),
                "map": float(np.abs(mean_map - expected.mean(axis=1).T).max()),
                "surface": bool((surface == void_surface(solid, part.whole)).all()),
            }
        )
    )


def run_in_limited_memory(small, config, out, limit_MB):
    """Peak growth of this rank's memory by a run, in MB."""

    def run_of(path, out):
        run = VoidRun(path, out, restart=False, box_of=partial(grid.cut, uncut=(1,)))
        run.to_the_end()
        return run

    run_of(small, out / "small")  # what libraries take once
    before = memory_MB("VmRSS")
    no_more_than(limit_MB)
    try:
        run = run_of(config, out / "large")
    except MemoryError:
        COMM.Abort(1)  # the others would wait for this rank
    grown = COMM.gather(memory_MB("VmHWM") - before)
    if COMM.rank == 0:
        print(json.dumps({"grown_MB": grown, "energy": run.records[-1].energy_aJ}))


def fail_on_the_last_rank(config, out):
    from chemomech.cli.main import run

    advance = void.VoidSimulation.advance

    def failing(self, now, until_s):
        if now.step == 2 and COMM.rank == COMM.size - 1:
            (out / "failed").touch()
            raise KeyError("a bug")
        return advance(self, now, until_s)

    void.VoidSimulation.advance = failing
    run(["void", str(config), "-o", str(out)])


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "memory":
        run_in_limited_memory(*map(Path, given[:3]), float(given[3]))
    elif what == "fail":
        fail_on_the_last_rank(Path(given[0]), Path(given[1]))
    else:
        grid._WHOLE_NODES = int(given[0])
        void._ELASTIC = 1e-9  # the cycle of the elastic solution, in single precision, depends on the order of sums
        for name in cases():
            compare(name)
