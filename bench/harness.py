"""What every benchmark shares: the machine's description, median times, the last line of JSON."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chemomech import _core


def machine() -> dict[str, Any]:
    """Processor, cores, compiler, SIMD level and the commit that is measured."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": _commit(),
        **_core.build_info(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str:
    """The short hash, with + when tracked files differ from it; unknown outside a checkout."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    return run.stdout.strip() if run.returncode == 0 else "unknown"


def median_seconds(function: Callable[[], object], *, at_least: int = 3, budget_s: float = 1.0) -> float:
    """Median time of one call: one call to warm up, then `at_least` calls and more until `budget_s` is spent."""
    function()
    times: list[float] = []
    while len(times) < at_least or sum(times) < budget_s:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def finish(bench: str, results: dict[str, Any]) -> None:
    """Print the line that checks read; it must be the last one."""
    print(json.dumps({"bench": bench, "machine": machine(), "results": results}))
