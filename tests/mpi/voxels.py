"""What the tests of voxels on ranks run under mpiexec; prints lines of JSON.

voxels.py compare WHOLE_NODES : every case beside one machine's solution.
voxels.py memory N LIMIT_MB : a solution on N^3 voxels, in no more memory.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from chemomech.mechanics.stiffness import FEPO4, LIFEPO4, OLIVINE
from chemomech.mechanics.voxel import VoxelBody
from chemomech.parallel import grid

COMM = MPI.COMM_WORLD
FREE = (False, False, False)


def spheres(shape, share, radius):
    """A box with spherical voids at random places that take this share of it."""
    random, solid = np.random.default_rng(0), np.ones(shape, dtype=bool)
    x, y, z = (np.arange(n) + 0.5 for n in shape)
    while 1 - solid.mean() < share:
        dx, dy, dz = (axis - c for axis, c in zip((x, y, z), random.random(3) * shape, strict=True))
        solid &= (dx**2)[:, None, None] + (dy**2)[:, None] + dz**2 > radius**2
    return solid


def phase_boundary(shape):
    """Eigenstrain and composition of a tilted diffuse boundary."""
    x, _, z = (
        (np.arange(n) + 0.5 - n / 2)[tuple(slice(None) if i == j else None for j in range(3))] / n
        for i, n in enumerate(shape)
    )
    lithium = np.broadcast_to((1 + np.tanh(10 * (x - 0.25 * z))) / 2, shape)
    return (lithium - 1)[..., None] * np.array([0.05, 0.0346, -0.02, 0, 0, 0]), lithium


def cases():
    """Solid, spacing, stiffness, share, held nodes, periodic axes."""
    uneven = (37, 22, 19)
    islands = np.zeros((40, 24, 20), dtype=bool)
    islands[2:12, 2:12, 2:12] = islands[14:17, 15:20, 4:9] = islands[1:5, 20:23, 15:18] = True
    held = np.zeros((*np.add(uneven, 1), 3), dtype=bool)
    held[0], held[:, -1, :, 1] = True, True
    around = np.ones((24, 16, 12), dtype=bool)
    around[5:12, 3:9, 2:6] = False
    full, voids = np.ones(uneven, dtype=bool), spheres((28, 28, 28), 0.3, 4.0)
    return {
        "uneven": (full, (1, 1, 1), OLIVINE, False, None, FREE),
        "voids": (voids, (1, 1, 1), OLIVINE, False, None, FREE),
        "sheets": (spheres((20, 20, 20), 0.55, 3.0), (1, 0.7, 1.3), OLIVINE, False, None, FREE),
        # All of it lies in the half that is the first rank's, or the first two's.
        "islands": (islands, (1, 1, 1), OLIVINE, False, None, FREE),
        "mixture": (full, (1, 1, 1), np.array([FEPO4, LIFEPO4]), True, None, FREE),
        "held": (full, (1, 1, 1), OLIVINE, False, held, FREE),
        "periodic": (around, (1, 1, 1), OLIVINE, False, None, (True, False, True)),
        "flat": (np.ones((60, 50, 1), dtype=bool), (1, 1, 1), OLIVINE, False, None, FREE),
        # Rows that are full with their halo: of the whole grid, and of the last of two parts.
        "full rows": (np.ones((22, 3, 13), dtype=bool), (1, 1, 1), OLIVINE, False, None, FREE),
        "full last rows": (np.ones((3, 6, 29), dtype=bool), (1, 1, 1), OLIVINE, False, None, FREE),
        "stretched": (np.ones((24, 20, 36), dtype=bool), (4, 1, 2), OLIVINE, False, None, FREE),
    }


def gathered(part, values):
    """On rank 0 the array of the whole grid, of the cells of all."""
    everyone = COMM.gather((part.window, values))
    if COMM.rank:
        return None
    whole = np.empty((*part.whole.cells, *values.shape[3:]), values.dtype)
    for window, own in everyone:
        whole[window] = own
    return whole


def compare(case):
    solid, spacing, stiffness, two, held, periodic = cases()[case]
    eigenstrain, lithium = phase_boundary(solid.shape)
    part = grid.cut(solid.shape, periodic)
    own = part.window
    corners = tuple(slice(s.start, s.stop + 1) for s in own)
    body = VoxelBody(
        solid[own],
        spacing,
        stiffness,
        share=lithium[own] if two else None,
        held=None if held is None else held[corners],
        box=part,
    )
    state = body.equilibrium(eigenstrain[own], rtol=1e-12)
    again = body.equilibrium(0.9 * eigenstrain[own], start=state.displacement_nm)
    strain, moved = gathered(part, state.elastic_strain), gathered(part, state.displacement_nm[:-1, :-1, :-1])
    stress, pieces = gathered(part, state.stress_GPa), gathered(part, body.pieces)
    cells, hinges = COMM.gather(int(solid[own].sum())), body.count_hinges()
    loose = body.equilibrium(eigenstrain[own]).iterations
    if COMM.rank:
        return
    alone = VoxelBody(solid, spacing, stiffness, share=lithium if two else None, held=held, periodic=periodic)
    one = alone.equilibrium(eigenstrain, rtol=1e-12)
    warm = alone.equilibrium(0.9 * eigenstrain, start=one.displacement_nm)

    def error(ours, theirs):
        inside = np.isfinite(theirs)
        assert (np.isfinite(ours) == inside).all()
        return float(np.abs(ours[inside] - theirs[inside]).max() / np.abs(theirs[inside]).max())

    print(
        json.dumps(
            {
                "case": case,
                "cells": cells,
                "iterations": [loose, alone.equilibrium(eigenstrain).iterations],
                "warm_iterations": [again.iterations, warm.iterations],
                "strain": error(strain, one.elastic_strain),
                "displacement": error(moved, one.displacement_nm[:-1, :-1, :-1]),
                "stress": error(stress, one.stress_GPa),
                "energy": abs(state.elastic_energy_aJ / one.elastic_energy_aJ - 1),
                "minimum": abs(state.minimum_aJ / one.minimum_aJ - 1),
                "pieces": bool((pieces == alone.pieces).all()),
                "n_pieces": [body.n_pieces, alone.n_pieces, hinges, alone.count_hinges()],
            }
        )
    )


def memory_MB(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def no_more_than(limit_MB):
    """From now on this rank may allocate no more."""
    data = int((memory_MB("VmData") + limit_MB) * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))


def solve_in_limited_memory(n, limit_MB):
    """Peak growth of this rank's memory by a solution on n^3 voxels, in MB; it may not allocate more than the limit."""
    part = grid.cut((n, n, n))
    small = grid.cut((16, 16, 16))
    VoxelBody(np.ones(small.cells, dtype=bool), (1, 1, 1), OLIVINE, box=small)
    before = memory_MB("VmRSS")
    no_more_than(limit_MB)
    x, _, z = ((np.arange(window.start, window.stop) + 0.5) / n - 0.5 for window in part.window)
    lithium = (1 + np.tanh(10 * (x[:, None, None] - 0.25 * z))) / 2
    eigenstrain = np.broadcast_to(lithium - 1, part.cells)[..., None] * np.array([0.05, 0.0346, -0.02, 0, 0, 0])
    state = VoxelBody(np.ones(part.cells, dtype=bool), (1, 1, 1), OLIVINE, box=part).equilibrium(eigenstrain)
    grown = COMM.gather(memory_MB("VmHWM") - before)
    if COMM.rank == 0:
        print(json.dumps({"grown_MB": grown, "iterations": state.iterations, "energy": state.elastic_energy_aJ}))


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        solve_in_limited_memory(int(sys.argv[2]), float(sys.argv[3]))
        sys.exit()
    grid._WHOLE_NODES = int(sys.argv[2])
    for name in cases():
        compare(name)
