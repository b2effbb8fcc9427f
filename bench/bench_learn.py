"""Learning the law from one particle of 5e3 to 1e6 pixels: time, peak memory, and how they grow.

Every size runs in a process of its own, so that the peak memory is that size's. The maps are made with a known law by
the same elastic solver, with the noise of a measurement: not a test of the method (tests/learn has those), but enough
to see that the law comes back at every size.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict

import numpy as np

import chemomech.learn.observation as observation
import chemomech.mechanics.multigrid as multigrid
import chemomech.mechanics.plane_stress as equilibrium
from chemomech import _core
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.twins import TWIN_LAW, Noise, add_noise, expansion_error
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import OLIVINE, plane_stress
from chemomech.observe.maps import CorrelativeMaps
from harness import finish, median_seconds

SIZES = [5_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
#: Noise leaves an error of 0.7 % at 1e4 pixels, less in larger particles.
LARGEST_ERROR = 0.02
GiB = 2**30


def particle(n_pixels: int) -> CorrelativeMaps:
    """An elliptic platelet, 4000 nm long, with wavy phase boundaries and measurement noise."""
    half = np.sqrt(2 * n_pixels / np.pi)
    y, x = np.mgrid[-np.ceil(half / 2) : np.ceil(half / 2) + 1, -np.ceil(half) : np.ceil(half) + 1] / half
    mask = x**2 + (2 * y) ** 2 <= 1
    composition = 0.5 + 0.48 * np.tanh(4 * np.sin(4.5 * x + 2 * np.sin(3.5 * y)) * np.cos(5.5 * y - 1.5 * x))
    pixel_size_nm = 2000.0 / half
    mesh = pixel_mesh(mask, pixel_size_nm)
    body = PlaneStress(mesh, plane_stress(OLIVINE))
    eigenstrain = np.zeros((mesh.n_cells, 3, 1))
    eigenstrain[:, :2, 0] = TWIN_LAW(composition[mask])
    distortion = np.zeros((*mask.shape, 4))
    distortion[mask] = body.distortion(body.displacement(body.eigenstrain_loads(eigenstrain)))[..., 0]
    clean = CorrelativeMaps("P1", pixel_size_nm, mask, composition, distortion, source="bench")
    return add_noise(clean, Noise(), seed=0)


def watch(owner: object, name: str, phase: str, seconds: dict[str, float]) -> None:
    """Add the time spent in a function to that of its phase."""
    function = getattr(owner, name)

    def timed(*arguments, **options):
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[phase] += time.perf_counter() - start

    setattr(owner, name, timed)


def measure(n_pixels: int) -> None:
    """One size, in this process: prints a line of JSON."""
    start = peak_memory()
    maps = particle(n_pixels)
    phases: dict[str, float] = defaultdict(float)
    watch(observation, "pixel_mesh", "mesh, assembly", phases)
    watch(equilibrium, "_stiffness_matrix", "mesh, assembly", phases)
    watch(equilibrium._Factor, "__init__", "setup", phases)
    watch(multigrid.Multigrid, "__init__", "setup", phases)
    watch(PlaneStress, "displacement", "solves", phases)
    times = []
    while len(times) < 3 and sum(times) < 3:
        begin = time.perf_counter()
        result = learn_eigenstrain([maps], order=2)
        times.append(time.perf_counter() - begin)
    print(
        json.dumps(
            {
                "pixels": int(maps.mask.sum()),
                "iterative": 4 * maps.mask.sum() > equilibrium._DIRECT_NODES,
                "seconds": statistics.median(times),
                "phases": {name: spent / len(times) for name, spent in phases.items()},
                "peak": peak_memory() / GiB,
                "own": (peak_memory() - start) / GiB,
                "error": float(expansion_error(result.laws["M1"], TWIN_LAW).max()),
            },
            default=bool,
        )
    )


def peak_memory() -> int:
    """Bytes resident at most so far (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def smoother_and_triad_GB_per_s(n_pixels: int) -> tuple[float, float]:
    """Least traffic of a smoothing step on four columns over its time, beside y = a x + b y, both with all threads."""
    mesh = pixel_mesh(np.ones((n_pixels // 400, 400), dtype=bool), 5.0)
    n = len(mesh.nodes)
    pattern = _core.Pattern(mesh.triangles, n)
    values = _core.assemble_stiffness(pattern, mesh.nodes, plane_stress(OLIVINE)).astype(np.float32)
    matrix = _core.BlockMatrix32(pattern.indptr, pattern.indices, values, n)
    inverse = np.ones((n, 2, 2), dtype=np.float32)
    load, solution, direction, out = np.ones((4, n, 2, 4), dtype=np.float32)
    step = median_seconds(
        lambda: matrix.smooth(inverse, load, solution, direction, 0.3, 0.0, out), at_least=9, budget_s=0.5
    )
    # The blocks and their columns, three vectors read, two written, each store fetching its line (one is read anyway).
    traffic = values.nbytes + pattern.indices.nbytes + pattern.indptr.nbytes + inverse.nbytes + 6 * load.nbytes
    x, y = np.ones((2, 1 << 22, 4))
    triad = median_seconds(lambda: _core.combine(np.ones(4), x, np.zeros(4), y), at_least=9, budget_s=0.5)
    return traffic / step / 1e9, 3 * x.nbytes / triad / 1e9


def exponent(pixels: list[int], values: list[float]) -> float:
    """Slope of log(value) against log(pixels)."""
    return float(np.polyfit(np.log(pixels), np.log(values), 1)[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 1e5 pixels; ends within 45 s")
    parser.add_argument("--pixels", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pixels:
        measure(arguments.pixels)
        return 0

    runs = []
    print(f"{'pixels':>9}{'seconds':>9}{'mesh, assembly':>16}{'setup':>8}{'solves':>8}{'peak GiB':>10}{'error':>9}")
    for size in [n for n in SIZES if n <= 100_000 or not arguments.quick]:
        command = [sys.executable, __file__, "--pixels", str(size)]
        run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        runs.append(run)
        phases = run["phases"]
        print(
            f"{run['pixels']:9}{run['seconds']:9.2f}{phases['mesh, assembly']:16.2f}{phases['setup']:8.2f}"
            f"{phases['solves']:8.2f}{run['peak']:10.2f}{100 * run['error']:8.2f}%",
            flush=True,
        )
    wrong = [run for run in runs if not run["error"] < LARGEST_ERROR]
    if wrong:
        print(f"the law does not come back from {wrong[0]['pixels']} pixels", file=sys.stderr)
        return 1

    iterative = [run for run in runs if run["iterative"]]
    exponents = {
        (key, name): exponent([run["pixels"] for run in chosen], [run[key] for run in chosen])
        for key in ("seconds", "own")
        for name, chosen in (("all", runs), ("iterative", iterative))
    }
    print(f"\ntime grows as pixels^{exponents['seconds', 'all']:.2f}", end="")
    print(f" (^{exponents['seconds', 'iterative']:.2f} where it iterates),", end=" ")
    print(f"memory beyond the interpreter's as pixels^{exponents['own', 'all']:.2f}")
    smoother, triad = smoother_and_triad_GB_per_s(300_000)
    share = runs[-1]["phases"]["solves"] / runs[-1]["seconds"]
    print(
        f"the largest spends {100 * share:.0f} % of its time in solves; their smoother moves {smoother:.1f} GB/s, "
        f"{100 * smoother / triad:.0f} % of a triad's {triad:.1f} GB/s in this run"
    )
    finish(
        "learn",
        {
            "pixels": [run["pixels"] for run in runs],
            "seconds": [run["seconds"] for run in runs],
            "peak_GiB": [run["peak"] for run in runs],
            "time_exponent": exponents["seconds", "all"],
            "time_exponent_iterative": exponents["seconds", "iterative"],
            "memory_exponent": exponents["own", "all"],
            "memory_exponent_iterative": exponents["own", "iterative"],
            "smoother_over_triad": smoother / triad,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
