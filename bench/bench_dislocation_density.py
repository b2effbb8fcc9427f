"""Learning with dislocations (models M1 and M2) from one particle of 2e3 to 1e5 pixels: time and peak memory.

Every size runs in a process of its own, so that the peak memory is that size's. The particle is that of bench_learn at
50 nm a pixel, with dislocations of [001] in a tenth of its pixels. What comes back is checked first: the kind, and the
mean density within the factor 1.4 that users were promised.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np

from bench_learn import GiB, exponent, particle, peak_memory
from chemomech.learn.dislocation_density import DensityModel, MeasuredBody, burgers_vector
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.mechanics.stiffness import OLIVINE
from chemomech.observe.maps import CorrelativeMaps
from harness import finish

SIZES = [2_000, 5_450, 20_000, 100_000]
_QUICK = 5_450
#: Those of microscopy; smaller pixels would see less of a dislocation than of their noise.
_PIXEL_NM = 50.0
_LINES_PER_PIXEL = 2.0


def dislocated(n_pixels: int) -> tuple[CorrelativeMaps, float]:
    """The particle and its mean density, lines per nm^2."""
    maps = replace(particle(n_pixels), pixel_size_nm=_PIXEL_NM)
    random = np.random.default_rng(1)
    n = int(maps.mask.sum())
    occupied = random.random(n) < 0.1
    density = _LINES_PER_PIXEL * occupied * random.standard_normal(n) / maps.pixel_size_nm**2
    measured = MeasuredBody(maps, np.full((n, 4), 0.002), OLIVINE)
    field = DensityModel(measured, burgers_vector("[001]", maps)).distortion(density[:, None])
    return replace(maps, distortion=maps.distortion + np.nan_to_num(maps.to_map(field[..., 0]))), np.abs(density).mean()


def measure(n_pixels: int) -> None:
    """One size: a line of JSON."""
    maps, density = dislocated(n_pixels)
    start = time.perf_counter()
    found = learn_eigenstrain([maps], order=2, models=("M1", "M2")).dislocations
    seconds = time.perf_counter() - start
    ratio = found.mean_abs_density_per_nm2 / density
    run = {"pixels": int(maps.mask.sum()), "seconds": seconds, "peak": peak_memory() / GiB}
    print(json.dumps(run | {"burgers": found.burgers, "ratio": ratio}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"up to {_QUICK} pixels; ends within 45 s")
    parser.add_argument("--pixels", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pixels:
        measure(arguments.pixels)
        return 0

    runs = []
    print(f"{'pixels':>9}{'seconds':>9}{'peak GiB':>10}{'Burgers':>9}{'density / truth':>17}")
    for size in [n for n in SIZES if n <= _QUICK or not arguments.quick]:
        command = [sys.executable, __file__, "--pixels", str(size)]
        run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        runs.append(run)
        row = f"{run['pixels']:9}{run['seconds']:9.1f}{run['peak']:10.2f}{run['burgers']!s:>9}{run['ratio']:17.2f}"
        print(row, flush=True)
        if run["burgers"] != "[001]" or not 1 / 1.4 < run["ratio"] < 1.4:
            print("the dislocations do not come back", file=sys.stderr)
            return 1
    pixels, seconds = ([run[key] for run in runs] for key in ("pixels", "seconds"))
    print(f"\ntime grows as pixels^{exponent(pixels, seconds):.2f}")
    peaks = [run["peak"] for run in runs]
    finish("dislocation_density", {"pixels": pixels, "seconds": seconds, "peak_GiB": peaks})
    return 0


if __name__ == "__main__":
    sys.exit(main())
