"""The reaction of one particle through half a cycle: beside SciPy's BDF and CVODE, and the price of 100 sensitivities.

The particle is an ellipse of 276 pixels of 50 nm (150 with --quick), an exchange current that is larger on the
lithium-poor side and a rough k; it goes from 10 to 90 % lithium and separates into phases. The peers get the same right
side, in NumPy. SciPy gets the exact dense Jacobian (differences would cost it a right side for every cell); CVODE
iterates without a matrix (GMRES), a hundred times faster than with a dense one. Errors are against our own solution at
1e-10, which the peers' approach as their tolerances fall. Ours is given the loosest tolerance of which the error is no
larger than the peer's.

Without --quick also the whole fit of a set of the paper's size: 39 particles of 490 pixels, 62 half-cycles; with
--particles N only of N of them. Progress goes to standard error.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp
from sksundae.cvode import CVODE

from chemomech.io.video import read_video
from chemomech.learn.kinetics import learn_kinetics
from chemomech.phasefield.reaction import MeanRate, ReactionLaw, cell_mesh, react
from harness import finish, median_seconds

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from videos import write_video

LAW = ReactionLaw(np.array([0.0, -4.4]), np.array([2.2, -0.5, -0.6]))
GRADIENT_NM2 = 467.0
RATE = 1.6
TIME = np.linspace(0, 0.5, 7)
TOLERANCE = 1e-5
#: Ours, from loose to tight, for errors no larger than a peer's.
TOLERANCES = 10.0 ** -np.arange(3, 9, 0.25)
PEER_TOLERANCE = 1e-5


def make_particle(ny, nx):
    """The mesh, ln k and initial composition."""
    y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    mask = x**2 + y**2 < 1.02
    mesh = cell_mesh(mask, 50.0, GRADIENT_NM2, 3)
    row, column = np.argwhere(mask).T
    log_k = 0.5 * np.sin(0.9 * row) * np.cos(0.6 * column + 0.2 * row)
    y, x = mesh.position_px.T
    return mesh, log_k, 0.1 + 0.015 * np.sin(0.5 * x + 0.2 * y)


def right_side(mesh, log_k):
    """dc/dt and its Jacobian in NumPy."""
    gradient = GRADIENT_NM2 / mesh.cell_nm**2 * mesh.stiffness
    dense = gradient.toarray()
    k, n = np.exp(log_k)[mesh.pixel], mesh.n_cells

    def terms(c):
        c = np.clip(c, 1e-9, 1 - 1e-9)  # SciPy tries compositions that there are none of
        mu = LAW.chemical_potential(c) + gradient @ c
        w = k * LAW.exchange_current(c)
        a, b = np.sum(w * np.exp(-mu / 2)), np.sum(w * np.exp(mu / 2))
        z = (n * RATE + np.sqrt((n * RATE) ** 2 + 4 * a * b)) / (2 * a)
        forward, backward = w * z * np.exp(-mu / 2), w * np.exp(mu / 2) / z
        return forward - backward, (forward + backward) / 2

    def rate(t, c):
        return terms(c)[0]

    def jacobian(t, c):
        r, p = terms(c)
        c = np.clip(c, 1e-9, 1 - 1e-9)
        x = 2 * c - 1
        slope = 2 * np.polynomial.legendre.legval(x, np.polynomial.legendre.legder(LAW.log_j0))
        bend = 1 / (c * (1 - c)) + 2 * np.polynomial.legendre.legval(x, np.polynomial.legendre.legder(LAW.mu))
        fixed = -p[:, None] * dense
        fixed[np.diag_indices(n)] += r * slope - p * bend
        return fixed - np.outer(p / p.sum(), fixed.sum(axis=0))

    return rate, jacobian


def scipy_solve(mesh, rate, jacobian, initial, tolerance):
    """Pixel means (n_t, n_pixels) by SciPy's BDF."""
    done = solve_ivp(rate, (TIME[0], TIME[-1]), initial, method="BDF", jac=jacobian, rtol=tolerance, atol=tolerance,
                     t_eval=TIME)  # fmt: skip
    frames = np.zeros((len(TIME), int(mesh.mask.sum())))
    np.add.at(frames.T, mesh.pixel, done.y / mesh.refinement**2)
    return frames


def cvode_solve(mesh, rate, initial, tolerance):
    """Pixel means (n_t, n_pixels) by SUNDIALS's CVODE: BDF, Newton, GMRES."""

    def right(t, c, out):
        out[:] = rate(t, c)

    solver = CVODE(right, method="BDF", rtol=tolerance, atol=tolerance, linsolver="gmres", krylov_dim=20)
    done = solver.solve(TIME, initial)
    frames = np.zeros((len(TIME), int(mesh.mask.sum())))
    np.add.at(frames.T, mesh.pixel, done.y.T / mesh.refinement**2)
    return frames


def paper_size(n_particles):
    """Seconds and memory of the whole fit of a set of the paper's size, or of some of its particles."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.h5"
        write_video(path, [(24, 26) if i % 2 else (20, 31) for i in range(39)], noise=0.07, half_cycles=62)
        video = read_video(path)
    # Every so many-th, so that those with one half-cycle have their share.
    chosen = [list(video.particles)[i * 39 // n_particles] for i in range(n_particles)]
    video = replace(video, particles={name: video.particles[name] for name in chosen})
    halves = [half for each in video.particles.values() for half in each.half_cycles]
    n_values = sum(half.li_fraction.size for half in halves)
    start = time.perf_counter()
    result = learn_kinetics(video)
    seconds = time.perf_counter() - start
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{n_particles} particles, {len(halves)} half-cycles, {video.n_pixels / n_particles:.0f} pixels each, "
          f"{n_values} values: {seconds:.0f} s, {gib:.1f} GiB, RMSE {result.rmse:.4f} at a noise of {result.noise}, "
          f"{result.reason}")  # fmt: skip
    return {
        "paper_particles": n_particles,
        "paper_size_s": seconds,
        "paper_size_gib": gib,
        "paper_size_rmse": result.rmse,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller particle; ends within 45 s")
    parser.add_argument("--particles", type=int, default=39, metavar="N", help="of the fit, 39 in the paper")
    arguments = parser.parse_args()
    quick = arguments.quick
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    mesh, log_k, initial = make_particle(12, 18) if quick else make_particle(16, 24)
    mean_rate = MeanRate(np.array([0.0]), np.array([RATE]))

    def ours(tolerance=TOLERANCE, derivatives=False):
        return react(
            mesh, LAW, log_k, initial, TIME, mean_rate,
            gradient_nm2=GRADIENT_NM2, tolerance=tolerance, derivatives=derivatives,
        )  # fmt: skip

    reference = ours(1e-10).frames()
    trajectory = ours()
    error = float(np.sqrt(np.mean((trajectory.frames() - reference) ** 2)))
    drift = float(np.abs(trajectory.states.mean(axis=1) - initial.mean() - RATE * trajectory.time).max())
    print(f"{mesh.mask.sum()} pixels, {mesh.n_cells} cells, {trajectory.n_steps} steps, error {error:.1e} RMS, "
          f"mean off by {drift:.1e}")  # fmt: skip
    if not (error < 5e-3 and drift < 1e-10):
        print("the reaction is wrong", file=sys.stderr)
        return 1

    def rms(frames):
        return float(np.sqrt(np.mean((frames - reference) ** 2)))

    def ours_no_worse(error):
        """Seconds and error at the loosest tolerance that errs no more."""
        tolerance = next(each for each in TOLERANCES if rms(ours(each).frames()) <= error)
        return median_seconds(lambda: ours(tolerance)), rms(ours(tolerance).frames())

    rate, jacobian = right_side(mesh, log_k)
    start = time.perf_counter()
    theirs = scipy_solve(mesh, rate, jacobian, initial, PEER_TOLERANCE)
    scipy_seconds, scipy_error = time.perf_counter() - start, rms(theirs)
    cvode_error = rms(cvode_solve(mesh, rate, initial, PEER_TOLERANCE))
    if not max(scipy_error, cvode_error) < 5e-3:
        print("a peer finds another solution", file=sys.stderr)
        return 1
    cvode_seconds = median_seconds(lambda: cvode_solve(mesh, rate, initial, PEER_TOLERANCE))
    beside_scipy, beside_scipy_error = ours_no_worse(scipy_error)
    beside_cvode, beside_cvode_error = ours_no_worse(cvode_error)

    forward = median_seconds(ours)
    basis = np.random.default_rng(0).standard_normal((len(log_k), 100 - len(LAW.mu) - len(LAW.log_j0)))
    none = np.zeros((mesh.n_cells, 0)), np.zeros((1, 0))
    both = median_seconds(lambda: ours(derivatives=True).sensitivities(basis, *none))
    results = {
        "cells": mesh.n_cells,
        "steps": trajectory.n_steps,
        "forward_s": forward,
        "error": error,
        "scipy_error": scipy_error,
        "cvode_error": cvode_error,
        "x_scipy_bdf": scipy_seconds / beside_scipy,
        "x_cvode": cvode_seconds / beside_cvode,
        "sensitivities_100_over_forward": (both - forward) / forward,
    }
    print(f"\n{'':44}{'seconds':>10}{'error':>10}{'x ours':>10}")
    for name, seconds, wrong, own, own_error in (
        (f"SciPy BDF, exact Jacobian, rtol {PEER_TOLERANCE:g}", scipy_seconds, scipy_error, beside_scipy,
         beside_scipy_error),
        (f"CVODE, GMRES, rtol {PEER_TOLERANCE:g}", cvode_seconds, cvode_error, beside_cvode, beside_cvode_error),
    ):  # fmt: skip
        print(f"{name:44}{seconds:10.3f}{wrong:10.1e}{seconds / own:10.1f}")
        print(f"{'  ours, no less accurate':44}{own:10.4f}{own_error:10.1e}")
    print(f"{'forward':44}{forward:10.4f}{error:10.1e}{1:10.1f}")
    print(f"{'forward and 100 sensitivities':44}{both:10.4f}{'':10}{both / forward:10.1f}")
    if not quick:
        results |= paper_size(arguments.particles)
    finish("kinetics", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
