"""What of MPI and PETSc is installed, and whether both mean the same MPI."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import which

_INSTALL = "python -m pip install mpich, then 'chemomech[mpi]' (README, Clusters)"


def describe() -> dict[str, str]:
    """Rows for `chemomech doctor`.

    Another process looks: a library that does not fit its interpreter may end it without an error to catch.
    """
    command = [sys.executable, "-m", "chemomech.parallel.installed"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return {"MPI": "does not answer within a minute: does mpiexec -n 2 python -m mpi4py --version?"}
    if run.returncode:
        last = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
        return {"MPI": f"broken ({last}): reinstall mpi4py and petsc4py for one MPI"}
    found: dict[str, str] = json.loads(run.stdout.splitlines()[-1])
    return found


def _look() -> dict[str, str]:
    try:
        from mpi4py import MPI
    except ImportError as error:
        return {"MPI": f"none ({error}); for many processes: {_INSTALL}"}
    name = MPI.Get_library_version().split("\n")[0].split(",")[0].replace("\0", "")
    launcher = which("mpiexec", path=str(Path(sys.executable).parent)) or which("mpiexec")
    rows = {"MPI": f"{' '.join(name.split())}, launcher {launcher or 'not found: mpiexec is not on the PATH'}"}
    try:
        from petsc4py import PETSc
    except ImportError as error:
        return rows | {"PETSc": f"none ({error}); for grids larger than a machine: {_INSTALL}"}
    mumps = "with" if PETSc.Sys.hasExternalPackage("mumps") else "without"
    bits = 8 * PETSc.IntType().itemsize
    rows["PETSc"] = f"{'.'.join(map(str, PETSc.Sys.getVersion()))}, {bits}-bit indices, {mumps} MUMPS"
    libraries = sorted(_mpi_libraries())
    same = MPI.Comm.Compare(PETSc.COMM_WORLD.tompi4py(), MPI.COMM_WORLD) in (MPI.IDENT, MPI.CONGRUENT)
    if len(libraries) > 1 or not same:
        rows["PETSc"] += f"; its MPI is not mpi4py's ({', '.join(libraries)}): reinstall both with the same mpicc"
    else:
        rows["PETSc"] += "; its MPI is mpi4py's"
    return rows


def _mpi_libraries() -> set[str]:
    """MPI libraries that this process has loaded, where the system tells."""
    maps = Path("/proc/self/maps")
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if "/" in line} if maps.exists() else set()
    return {path for path in paths if Path(path).name.startswith(("libmpi.so", "libmpich", "libmpi_abi"))}


if __name__ == "__main__":
    print(json.dumps(_look()))
