"""The reaction of one particle through half a cycle: beside SciPy's BDF, and the price of a hundred sensitivities.

The particle is an ellipse of 276 pixels of 50 nm (60 with --quick), an exchange current that is larger on the
lithium-poor side and a rough k; it goes from 10 to 90 % lithium and separates into phases. The peers get the same right
side, in NumPy, and the exact dense Jacobian (differences would cost SciPy a right side for every cell). Errors
are against our own solution at 1e-10, which SciPy's approaches as its tolerance falls (1e-5 RMS at 1e-7).
"""

import argparse
import sys
import time

import numpy as np
from scipy.integrate import solve_ivp

from chemomech.phasefield.reaction import MeanRate, ReactionLaw, cell_mesh, react
from harness import finish, median_seconds

LAW = ReactionLaw(np.array([0.0, -4.4]), np.array([2.2, -0.5, -0.6]))
GRADIENT_NM2 = 467.0
RATE = 1.6
TIME = np.linspace(0, 0.5, 7)
#: Where both make errors of 1e-3.
TOLERANCE = 1e-5


def make_particle(ny, nx):
    """The mesh, ln k and initial composition."""
    y, x = np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j]
    mask = x**2 + y**2 < 1.02
    mesh = cell_mesh(mask, 50.0, GRADIENT_NM2)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller particle; ends within 45 s")
    quick = parser.parse_args().quick

    mesh, log_k, initial = make_particle(8, 12) if quick else make_particle(16, 24)
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

    rate, jacobian = right_side(mesh, log_k)
    peer_tolerance = 1e-5
    start = time.perf_counter()
    theirs = scipy_solve(mesh, rate, jacobian, initial, peer_tolerance)
    peer_seconds = time.perf_counter() - start
    peer_error = float(np.sqrt(np.mean((theirs - reference) ** 2)))
    if not peer_error < 5e-3:
        print("SciPy finds another solution", file=sys.stderr)
        return 1

    forward = median_seconds(ours)
    basis = np.random.default_rng(0).standard_normal((len(log_k), 100 - len(LAW.mu) - len(LAW.log_j0)))
    none = np.zeros((mesh.n_cells, 0))
    both = median_seconds(lambda: ours(derivatives=True).sensitivities(basis, none))
    results = {
        "cells": mesh.n_cells,
        "steps": trajectory.n_steps,
        "forward_s": forward,
        "error": error,
        "scipy_error": peer_error,
        "x_scipy_bdf": peer_seconds / forward,
        "sensitivities_100_over_forward": (both - forward) / forward,
    }
    print(f"\n{'':44}{'seconds':>10}{'error':>10}{'x ours':>10}")
    print(f"{'forward':44}{forward:10.4f}{error:10.1e}{1:10.1f}")
    print(f"{f'SciPy BDF, exact Jacobian, rtol {peer_tolerance:g}':44}{peer_seconds:10.2f}{peer_error:10.1e}"
          f"{peer_seconds / forward:10.0f}")  # fmt: skip
    print(f"{'forward and 100 sensitivities':44}{both:10.4f}{'':10}{both / forward:10.1f}")
    finish("kinetics", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
