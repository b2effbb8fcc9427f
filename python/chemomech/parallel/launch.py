"""Whether this process is one of many, and what it then has to do."""

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from chemomech.errors import InputError

if TYPE_CHECKING:
    from chemomech.parallel.ranks import Ranks
    from chemomech.tasks import Tasks, TasksOn

#: Set for every process by MPICH, Intel MPI and MVAPICH; Open MPI; Slurm's srun.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_NUMBERS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


@cache
def ranks() -> "Ranks | None":
    """The processes that `mpiexec` has started together, or None for one alone, which needs no MPI.

    Raises
    ------
    InputError : there are several, and no mpi4py to join them.
    """
    if not any(name in os.environ for name in _SIZES):
        return None
    # Ranks share the cores of a machine already. This is heard where nothing has loaded OpenMP or a BLAS yet.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if all(os.environ.get(name, "1") == "1" for name in _SIZES):
        return None
    try:
        from chemomech.parallel.ranks import Ranks
    except ImportError as error:
        raise InputError(
            f"started as one of several processes, but mpi4py cannot be used ({error}): "
            "python -m pip install 'chemomech[mpi]'"
        ) from error
    found = Ranks()
    return found if found.size > 1 else None


def tasks() -> "Tasks":
    """Who does the tasks of this run: all ranks, or this process."""
    from chemomech.tasks import one_by_one

    return ranks() or one_by_one


def tasks_on() -> "TasksOn":
    """The same for tasks on a large value: all ranks, or the threads of this process."""
    from chemomech.tasks import in_threads

    found = ranks()
    return found.on if found else in_threads


def run(program: Callable[[], int]) -> int:
    """Run a program that returns its exit code: here, or on rank 0 while the others do what it asks for."""
    try:
        found = ranks()
    except InputError as error:
        if all(os.environ.get(name, "0") == "0" for name in _NUMBERS):
            print(f"chemomech: {error}", file=sys.stderr)
        return 2
    return found.run(program) if found else program()
