"""Start a program on several ranks; tests of it are skipped where there is no MPI."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

#: The one that belongs to this Python's MPI comes first.
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

needs_mpi = pytest.mark.skipif(
    not (MPIEXEC and find_spec("mpi4py")), reason="no MPI: python -m pip install mpich, then mpi4py"
)
needs_petsc = pytest.mark.skipif(
    not (MPIEXEC and find_spec("mpi4py") and find_spec("petsc4py")), reason="no PETSc: make mpi"
)


def start(n_ranks, *arguments, **options):
    """`python ARGUMENTS` on so many ranks, in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | options.pop("env", {})
    command = [MPIEXEC, "-n", str(n_ranks), sys.executable, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes, **options)


def finish(process, seconds):
    """(exit code, stdout, stderr); a job that takes longer is killed, and the test fails."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # The launcher's proxies leave its process group.
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
        process.communicate()
        pytest.fail(f"{' '.join(process.args)} did not end within {seconds} s")
    return process.returncode, out, err


def run(n_ranks, *arguments, seconds=60, **options):
    return finish(start(n_ranks, *arguments, **options), seconds)


def messages(err):
    """What the program said; a launcher adds words of its own when it stops ranks."""
    return [line for line in err.splitlines() if line.startswith("chemomech")]
