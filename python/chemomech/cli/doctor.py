"""`chemomech doctor`: what this installation is made of, what is missing, and how to get it."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from threadpoolctl import threadpool_info

from chemomech import __version__, _core

_REQUIRED = ("numpy", "scipy", "numba", "h5py", "matplotlib", "pyamg", "typer", "rich", "jinja2")
_MPI = ("mpi4py", "petsc4py")


def doctor() -> None:
    """Show versions, SIMD level, threads and what is missing."""
    build = _core.build_info()
    rows = [
        ("chemomech", __version__),
        ("python", f"{platform.python_version()} at {sys.executable}"),
        ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"),
        ("compiled core", f"{build['compiler']}, SIMD {build['simd']} (built: {', '.join(build['levels'])})"),
        ("OpenMP threads", f"{build['threads']} (set with OMP_NUM_THREADS)" if build["openmp"] else "built without"),
    ]
    pools = {(pool["internal_api"], pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"}
    rows += [("BLAS threads", f"{threads} ({library})") for library, threads in sorted(pools)]
    rows += [(name, _version(name) or "missing: python -m pip install chemomech") for name in _REQUIRED]
    rows += [
        (name, _version(name) or 'not installed (clusters only): python -m pip install "chemomech[mpi]"')
        for name in _MPI
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
