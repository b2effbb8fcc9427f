"""Fields of straight dislocations beside atomman, and the convolution of a density map beside its bare transforms.

One thread each for the fields. The job is the strain in an image of 10,000 points with 100 lines: atomman has no sum
over lines, so its strain of one line is added a hundred times, in full, as it cannot leave out components; ours is the
in-plane distortion. One line alone, with every component, is timed too. Answers are compared first. The convolution and
the bare transforms of the same padded size use every thread.
"""

import argparse
import sys

import numpy as np
import scipy.fft
from threadpoolctl import threadpool_limits

from chemomech import _core
from chemomech.mechanics.dislocations import DensityField, StraightDislocation
from chemomech.mechanics.stiffness import LIFEPO4
from harness import finish, median_seconds

MIXED = np.array([0.0, 0.3, 0.4])  # edge and screw parts in the image frame, so that every component counts; nm


def make_atomman(line: StraightDislocation):
    """Its strain (n, 3, 3) summed over lines, as a function; None where it is not installed."""
    try:
        import atomman
    except ImportError:
        return None
    # atomman turns the crystal by rows that are axes, as our frame is; x, y and the line are then its m, n and xi.
    constants = atomman.ElasticConstants(Cij=line.stiffness_GPa)
    solution = atomman.defect.Stroh(constants, line.burgers_nm, transform=line.frame, m=[1, 0, 0], n=[0, 1, 0])

    def strain_of(points: np.ndarray, lines: np.ndarray, signs: np.ndarray) -> np.ndarray:
        total = np.zeros((len(points), 3, 3))
        for at, sign in zip(lines, signs, strict=True):
            total += sign * solution.strain(np.pad(points - at, ((0, 0), (0, 1))))
        return total

    return strain_of


def strain(distortion: np.ndarray) -> np.ndarray:
    """(n, 3, 3) of du_i/dx_j (n, 3, 2); nothing changes along the line."""
    gradient = np.pad(distortion, ((0, 0), (0, 0), (0, 1)))
    return (gradient + gradient.transpose(0, 2, 1)) / 2


def convolution_seconds(line: StraightDislocation, n: int) -> tuple[float, float, float, float]:
    """Making the kernel, density to distortion, the adjoint, and the bare transforms of the padded size: one forward
    and four backward."""
    setup = median_seconds(lambda: DensityField(line, (n, n), 10.0), at_least=1, budget_s=0)
    field = DensityField(line, (n, n), 10.0)
    random = np.random.default_rng(0)
    density, values = random.standard_normal((n, n)), random.standard_normal((n, n, 2, 2))
    workers = _core.build_info()["threads"]
    size = scipy.fft.next_fast_len(2 * n - 1, real=True)
    padded = np.zeros((size, size))
    padded[:n, :n] = density
    spectrum = scipy.fft.rfft2(padded)

    def bare() -> None:
        scipy.fft.rfft2(padded, workers=workers)
        for _ in range(4):
            scipy.fft.irfft2(spectrum, (size, size), workers=workers)

    forward = median_seconds(lambda: field.distortion(density))
    return setup, forward, median_seconds(lambda: field.adjoint(values)), median_seconds(bare)


def convolution_error(line: StraightDislocation) -> float:
    """Of the pixels of a small map that do not touch a core, against Gauss's rule over the overlap of two pixels."""
    n = 12
    density = np.zeros((n, n))
    density[3, 4], density[9, 8] = 1.0, -0.5
    measured = DensityField(line, (n, n), 1.0).distortion(density).reshape(-1, 2, 2)
    t, w = np.polynomial.legendre.leggauss(40)
    t, w = (t + 1) / 2, w / 2
    nodes, weights = np.append(t, -t), np.append(w * (1 - t), w * (1 - t))
    shifts = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    points = np.argwhere(density < np.inf)[:, ::-1].astype(float)
    exact, away = np.zeros((n * n, 2, 2)), np.ones(n * n, dtype=bool)
    for row, column in np.argwhere(density):
        core = np.array([column, row])
        signs = density[row, column] * np.outer(weights, weights).ravel()
        exact += line.plane_distortion(points, lines_nm=shifts + core, signs=signs)
        away &= np.abs(points - core).max(axis=1) > 1.5
    return float(np.abs(measured - exact)[away].max() / np.abs(exact[away]).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; ends within 45 s")
    quick = parser.parse_args().quick

    line = StraightDislocation(LIFEPO4, MIXED)
    random = np.random.default_rng(0)
    points, lines = random.uniform(-100, 100, (100_000, 2)), random.uniform(-100, 100, (100, 2))
    one = (points, np.zeros((1, 2)), np.ones(1))
    image = (points[:10_000], lines, random.choice([-1.0, 1.0], 100))
    peer = make_atomman(line)
    if peer is None:
        print("atomman is not installed (pip install atomman); x_atomman is left out\n")
    else:
        for at, cores, signs in (one, image):
            ours = strain(line.distortion(at, lines_nm=cores, signs=signs))
            difference = np.abs(peer(at, cores, signs) - ours).max() / np.abs(ours).max()
            print(f"{len(cores)} lines at {len(at)} points: same strain as atomman, {difference:.1e} of the largest")
            if not difference < 1e-10:
                print("the strains differ", file=sys.stderr)
                return 1
    error = convolution_error(line)
    print(f"pixel averages against quadrature: {error:.1e} of the largest\n")
    if not error < 1e-9:
        print("the convolution is wrong", file=sys.stderr)
        return 1

    results = {}
    with threadpool_limits(1):
        print(f"{'one thread':40}{'points':>8}{'lines':>7}{'pairs/s':>12}{'atomman / ours':>16}")
        for key, method, name, job in (
            ("x_atomman_one_line", line.distortion, "distortion, 6 components", one),
            ("x_atomman_6_components", line.distortion, "distortion, 6 components", image),
            ("x_atomman", line.plane_distortion, "distortion in the image, 4", image),
        ):
            at, cores, signs = job
            pairs = len(at) * len(cores)
            ours = median_seconds(
                lambda method=method, job=job: method(job[0], lines_nm=job[1], signs=job[2]), at_least=15
            )
            row = f"{name:40}{len(at):8}{len(cores):7}{pairs / ours:12.2e}"
            if peer is not None:
                theirs = median_seconds(lambda job=job: peer(*job), at_least=3 if quick else 10)
                results[key] = theirs / ours
                row += f"{theirs / ours:16.0f}\n{'  atomman, strain':40}{len(at):8}{len(cores):7}{pairs / theirs:12.2e}"
            print(row)
        results["pairs_per_s_core"] = pairs / ours

    print(f"\n{'pixels':>12}{'kernel, s':>12}{'distortion, ms':>16}{'adjoint, ms':>14}{'5 transforms':>14}{'ratio':>8}")
    for n in (128, 256, 512) if quick else (128, 256, 512, 1024):
        setup, forward, adjoint, bare = convolution_seconds(line, n)
        results["convolution_over_fft"] = forward / bare
        row = f"{f'{n} x {n}':>12}{setup:12.2f}{1e3 * forward:16.2f}{1e3 * adjoint:14.2f}{1e3 * bare:14.2f}"
        print(f"{row}{forward / bare:8.2f}")
    finish("dislocations", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
