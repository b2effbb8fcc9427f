"""`chemomech doctor`: what this installation is made of, what is missing, and how to get it."""

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from threadpoolctl import threadpool_info

from chemomech import __version__
from chemomech.parallel.installed import describe

_OPTIONAL = {
    "rosettasciio": "microscope formats",
    "tifffile": "TIFF stacks",
    "mpi4py": "clusters",
    "petsc4py": "clusters",
}


def doctor() -> None:
    """Show versions, SIMD level, threads and what is missing."""
    rows = [
        ("chemomech", __version__),
        ("python", f"{platform.python_version()} at {sys.executable}"),
        ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"),
        *_core_rows(),
    ]
    pools = {(pool["internal_api"], pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"}
    rows += [("BLAS threads", f"{threads} ({library})") for library, threads in sorted(pools)]
    rows += [(name, _version(name) or f"missing: python -m pip install {name}") for name in _required()]
    rows += describe().items()
    rows += [
        (name, _version(name) or f"not installed (for {purpose} only): python -m pip install {name}")
        for name, purpose in _OPTIONAL.items()
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _core_rows() -> list[tuple[str, str]]:
    try:
        from chemomech import _core
    except ImportError as error:
        return [("compiled core", str(error))]
    build = _core.build_info()
    threads = f"{build['threads']} (set with OMP_NUM_THREADS)" if build["openmp"] else "built without"
    simd = f"{build['compiler']}, SIMD {build['simd']} (built: {', '.join(build['levels'])})"
    return [("compiled core", simd), ("OpenMP threads", threads)]


def _required() -> list[str]:
    """Names of the packages that the installed chemomech asks for, extras left out."""
    lines = [line for line in requires("chemomech") or [] if "extra ==" not in line]
    return [re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in lines]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
