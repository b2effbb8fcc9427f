"""What the tests of assembled matrices run under mpiexec: plates.py HELD SOLVER; prints the error."""

import sys

import numpy as np
from mpi4py import MPI

from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import OLIVINE, plane_stress
from chemomech.parallel import plane_stress as parallel

held, solver = sys.argv[1:]
if solver != "gamg":
    parallel.direct_package = lambda: solver
held = "boundary" if held == "held" else None
mask = np.ones((40, 70), dtype=bool)
mask[10:22, 15:30] = mask[:, 50:53] = False  # a hole, and two pieces
mesh = pixel_mesh(mask, 50.0)
stiffness = plane_stress(OLIVINE)
one = PlaneStress(mesh, stiffness, held=held, solver="direct")
loads = one.eigenstrain_loads(np.random.default_rng(0).standard_normal((mesh.n_cells, 3, 2)))
found = parallel.AssembledPlaneStress(mesh, stiffness, held=held, rtol=1e-11).displacement(loads)
expected = one.displacement(loads)
errors = MPI.COMM_WORLD.gather(float(np.abs(found - expected).max() / np.abs(expected).max()))
if errors:
    print(max(errors))
