"""A matrix assembled by bands on many ranks has the solution of one machine."""

from pathlib import Path

import pytest

from mpirun import needs_petsc, run

PROGRAM = Path(__file__).parent / "plates.py"
pytestmark = needs_petsc


@pytest.mark.parametrize(("n_ranks", "solver"), [(1, "petsc"), (1, "gamg"), (2, "gamg"), (3, "gamg"), (4, "gamg")])
@pytest.mark.parametrize("held", ["free", "held"])
def test_displacement_is_that_of_one_machine(n_ranks, solver, held):
    """A residual of 1e-11 is an error of 1e-9 at most here; PETSc's own factorisation stands for MUMPS."""
    code, out, err = run(n_ranks, PROGRAM, held, solver)
    assert code == 0, err
    assert float(out) < 1e-9
