"""Non-negative least squares of every pixel, beside scipy's loop and the memory of this machine.

The data are spectra of two-phase particles with noise and an empty surrounding, so that every set of references occurs.
Bytes are counted as STREAM counts them: a triad a = b + s c moves 3 numbers, a fit reads its data once and writes its
coefficients once. In truth every store fetches its line first, which makes a triad a third slower than reading alone;
in brackets stands the fraction with that fetch counted on both sides. The triad is compiled by Numba and runs between
the fits on as many threads; times are those of whole calls of `nnls`, references prepared and results allocated.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numba
import numpy as np
from scipy.optimize import nnls as scipy_nnls

from chemomech import _core
from chemomech.observe.spectra import nnls
from harness import finish

THREADS = _core.build_info()["threads"]
TRIAD = 1 << 24  # numbers of each array: 134 MB, as long a run as a fit


@numba.njit(nogil=True)
def triad_part(a, b, c, first, last):
    for i in range(first, last):
        a[i] = b[i] + 3.0 * c[i]


class Triad:
    """Threads that stay, so that the triad pays nothing for them."""

    def __init__(self):
        self.a, self.b, self.c = np.ones((3, TRIAD))
        self.pool = ThreadPoolExecutor(THREADS)
        self.cuts = [TRIAD * i // THREADS for i in range(THREADS + 1)]
        self()

    def __call__(self):
        list(self.pool.map(lambda i: triad_part(self.a, self.b, self.c, *self.cuts[i : i + 2]), range(THREADS)))


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def side_by_side(first, second, rounds):
    """Times of two functions called in turn: lower quartiles, which other users of the machine move alike."""
    times = np.array([(seconds(first), seconds(second)) for _ in range(rounds)])
    return np.quantile(times, 0.25, axis=0)


def peak_kB():
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def spectra(m, k):
    """k peaks at different places on a common slope: a condition number of about 5, as iron's L edge has."""
    energy = np.linspace(0, 1, m)[:, None]
    return 0.1 + np.exp(-(((energy - np.linspace(0.25, 0.75, k)) / 0.25) ** 2)) + 0.05 * energy * np.arange(k)


def stack(references, side):
    """(m, side, side) float64 of particles, each of two of the phases with a sharp boundary, and of nothing between."""
    m, k = references.shape
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    cell = 64
    particle = (y // cell * 7 + x // cell) % k
    inside = np.hypot(y % cell - cell / 2, x % cell - cell / 2) < 0.45 * cell
    share = np.clip((x % cell - cell / 2) / 8 + 0.5, 0, 1)
    maps = np.stack([inside * ((particle == i) * share + ((particle + 1) % k == i) * (1 - share)) for i in range(k)])
    noise = 0.05 * random.standard_normal((1 << 20) + 4099)
    data = np.empty((m, side, side))
    for row in range(side):  # temporaries of a large stack stay small
        start = random.integers(4099)
        data[:, row] = references @ maps[:, row] + noise[start : start + m * side].reshape(m, side)
    return data


def wrong(references, data, x, n=400):
    """Largest difference to scipy at n pixels, relative to the largest coefficient."""
    rows = np.random.default_rng(1).integers(0, data.shape[0], n)
    columns = np.random.default_rng(2).integers(0, data.shape[1], n)
    expected = np.array(
        [scipy_nnls(references, data[i, j].astype(float))[0] for i, j in zip(rows, columns, strict=True)]
    )
    return np.abs(x[rows, columns] - expected).max() / expected.max()


def scipy_seconds(references, data, n):
    """Per pixel, of a loop over n pixels."""
    pixels = np.ascontiguousarray(data.reshape(-1, data.shape[-1])[:n], dtype=float)

    def loop():
        for pixel in pixels:
            scipy_nnls(references, pixel)

    loop()
    return min(seconds(loop) for _ in range(5)) / n


def large_stack(side, m):
    """Seconds of fit_spectra on a stack, and peak memory over the stack's size, in a process of its own."""
    code = f"""
import sys, time
import numpy as np
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from bench_nnls import peak_kB, spectra, stack
from chemomech.observe.spectra import References, fit_spectra
energy = np.linspace(700.0, 720.0, {m})
columns = spectra({m}, 2)
references = References(energy, dict(LiFePO4=columns[:, 0], FePO4=columns[:, 1]))
fit_spectra(np.ones(({m}, 4, 4)), energy, references)
before = peak_kB()
data = stack(columns, {side})
start = time.perf_counter()
fit = fit_spectra(data, energy, references)
seconds = time.perf_counter() - start
peak = peak_kB() - before
print(seconds, peak * 1024 / data.nbytes)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(float(word) for word in run.stdout.split())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller stacks, fewer repetitions; ends within 45 s")
    quick = parser.parse_args().quick
    rounds = 9 if quick else 40
    size = 1 << (26 if quick else 29)  # bytes of a stack: beyond the caches; doubled for the rows that are checked

    start = time.perf_counter()
    nnls(np.ones((2, 1)), np.ones((1, 2)))
    print(f"first call {time.perf_counter() - start:.1f} s (compiled kernels are kept on disk); {THREADS} threads\n")
    triad = Triad()
    bandwidth, rows, worst = [], [], 0.0
    for m in (5, 60, 200):
        for k in (2, 3, 4):
            references = spectra(m, k)
            side = int(np.sqrt((2 * size if m == 60 else size) / (8 * m))) // 64 * 64
            measured = stack(references, side)
            for dtype in (np.float64, np.float32):
                energy_major = np.moveaxis(measured.astype(dtype, copy=False), 0, -1)
                for data in (energy_major, np.ascontiguousarray(energy_major)):
                    worst = max(worst, wrong(references, data, nnls(references, data)))
                    triad_s, fit_s = side_by_side(triad, partial(nnls, references, data), rounds)
                    written = 8 * k * side**2
                    strict = (data.nbytes + 2 * written) / (4 * 8 * TRIAD) * triad_s / fit_s
                    stream = (data.nbytes + written) / (3 * 8 * TRIAD) * triad_s / fit_s
                    bandwidth.append(3 * 8 * TRIAD / triad_s)
                    name = (np.dtype(dtype).name, m, k, data is energy_major)
                    rows.append((*name, side**2 / fit_s, strict, stream))

    print(f"same as scipy at 400 pixels of every stack: {worst:.1e} of the largest coefficient")
    if not worst < 1e-9:
        print("the coefficients differ from scipy's", file=sys.stderr)
        return 1
    print(f"triad: {np.median(bandwidth) / 1e9:.1f} GB/s\n")
    print(f"{'':10}{'m':>5}{'k':>3}   {'energy-major':^34}{'pixel-major':^34}")
    print(f"{'':18}   {2 * '{:>12}{:>12}{:>10}'.format('pixels/s', 'of triad', '')}")
    for left, right in sorted(zip(rows[::2], rows[1::2], strict=True), key=lambda pair: (pair[0][0] < "float64", pair)):
        cells = "".join(f"{r[4]:12.2e}{100 * r[6]:10.0f} % ({100 * r[5]:3.0f} %)  " for r in (left, right))
        print(f"{left[0]:10}{left[1]:5}{left[2]:3}   {cells}")

    def found(name, m, k, energy_major=True):
        return next(row for row in rows if row[:4] == (name, m, k, energy_major))

    n = 5_000 if quick else 50_000
    print(f"\n{'beside scipy':24}{'pixels/s':>12}{'scipy':>12}{'times':>8}")
    x_scipy = {}
    for m, k in ((5, 2), (60, 4)):
        data = np.moveaxis(stack(spectra(m, k), 256), 0, -1)
        theirs = 1 / scipy_seconds(spectra(m, k), data, n)
        ours = found("float64", m, k)[4]
        x_scipy[m, k] = ours / theirs
        print(f"{f'm = {m}, k = {k}':24}{ours:12.2e}{theirs:12.2e}{ours / theirs:8.0f}")

    side = 1024 if quick else 2048
    fit_seconds, fit_memory = large_stack(side, 60)
    print(
        f"\nfit_spectra on {side} x {side} x 60 float64, with errors and R factor: {fit_seconds:.2f} s, "
        f"peak {fit_memory:.2f} of the stack's own size"
    )
    finish(
        "nnls",
        {
            "stream_fraction_k2": found("float64", 60, 2)[6],
            "stream_fraction_k4": found("float64", 60, 4)[6],
            "stream_fraction_k2_pixel_major": found("float64", 60, 2, False)[6],
            "stream_fraction_k4_pixel_major": found("float64", 60, 4, False)[6],
            "fetch_counted_fraction_k2": found("float64", 60, 2)[5],
            "fetch_counted_fraction_k4": found("float64", 60, 4)[5],
            "x_scipy_k2_m5": x_scipy[5, 2],
            "x_scipy_k4_m60": x_scipy[60, 4],
            "fit_seconds": fit_seconds,
            "fit_memory_over_stack": fit_memory,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
