"""Do the 99 % bands of the learned laws hold the truth, and how wide are they for it?

Films with three known laws are made on finer cells than learning uses and learned back: an exchange current of coupled
ion-electron transfer, which no Legendre series of the fit meets; a chemical potential that is skewed, with an exchange
current that is larger for more lithium; a chemical potential of orders beyond those of the fit, with sqrt(c (1 - c)).
With --twins FILE also those of a reaction-video/1 file beside which its .truth.json lies. Compared on 0.1 <= c <= 0.9
are the share of compositions at which the bands hold the truth, their RMS half-width and the RMS error.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from numpy.polynomial import legendre

from chemomech.io.video import read_video
from chemomech.learn.kinetics import COMPOSITION, learn_kinetics
from chemomech.learn.law_basis import common_tangent
from chemomech.phasefield.reaction import ReactionLaw
from chemomech.phasefield.reaction_theory import coupled_ion_electron_transfer
from harness import finish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from videos import write_video

SHAPES = [(9, 12), (8, 13), (10, 10), (9, 11)]
NOISE = 0.04
MIDDLE = (COMPOSITION > 0.0999) & (COMPOSITION < 0.9001)
LEAST_COVERAGE = 0.95


def potential(binodal, coefficients):
    """Legendre coefficients of mu_h closest to those given and the regular solution that have the binodal."""
    start, modes = common_tangent(binodal, len(coefficients) - 1)
    return start + modes @ (modes.T @ coefficients)


def log_series(current, largest):
    """Legendre coefficients of ln j0, of order 8, scaled to a largest value (1/h)."""
    c = 0.5 + 0.48 * np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    coefficients = legendre.legfit(2 * c - 1, np.log(current(c)), 8)
    coefficients[0] += np.log(largest) - legendre.legval(np.linspace(-0.9, 0.9, 91), coefficients).max()
    return coefficients


LAWS = {
    "ion-electron transfer": (potential(0.0185, np.zeros(6)), log_series(coupled_ion_electron_transfer, 12), 0.0185),
    "skewed": (potential(0.0185, np.array([0, 0, 0.5, 0.25, -0.3, -0.1])), np.array([2, 0.5, -0.6]), 0.0185),
    "higher orders": (
        potential(0.012, np.array([0, 0, -0.3, 0.5, 0.25, -0.2, 0.15, 0.15])),
        log_series(lambda c: np.sqrt(c * (1 - c)) * np.exp(-0.6 * c), 10),
        0.012,
    ),
}


def study(path, log_j0, mu, log_k):
    """Coverage, widths and errors of one fit."""
    start = time.perf_counter()
    result = learn_kinetics(read_video(path))
    seconds = time.perf_counter() - start
    # The scale of j0 counts from the mean of ln k.
    log_j0_error = (result.log_j0 - log_j0 - log_k.mean())[MIDDLE]
    mu_error = result.mu_kT - mu
    mu_error = (mu_error - mu_error.mean())[MIDDLE]
    mu_half, log_j0_half = result.mu_half_width[MIDDLE], result.log_j0_half_width[MIDDLE]
    shape = np.exp(result.log_j0 - result.log_j0.max()) - np.exp(log_j0 - log_j0.max())

    def rms(x):
        return float(np.sqrt(np.mean(x**2)))

    return {
        "coverage_mu": float(np.mean(np.abs(mu_error) < mu_half)),
        "coverage_log_j0": float(np.mean(np.abs(log_j0_error) < log_j0_half)),
        "half_width_mu_kT": rms(mu_half),
        "half_width_log_j0": rms(log_j0_half),
        "error_mu_kT": rms(mu_error),
        "error_log_j0": rms(log_j0_error),
        "error_j0_over_max": rms(shape[MIDDLE]),
        "rmse": result.rmse,
        "noise": result.noise,
        "seconds": seconds,
    }


def twins(path):
    """The study of a file with its truth beside it."""
    truth = json.loads(path.with_suffix(".truth.json").read_text())
    with h5py.File(path) as file:
        log_k = [np.array(each["lnk"])[file[f"particles/{each['name']}/mask"][...] > 0] for each in truth["particles"]]
    log_j0, mu = (np.interp(COMPOSITION, truth["c"], values) for values in (np.log(truth["j0"]), truth["mu_h"]))
    return study(path, log_j0, mu, np.concatenate(log_k))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one law")
    parser.add_argument("--twins", type=Path, metavar="FILE", help="a reaction-video/1 file with its truth beside it")
    arguments = parser.parse_args()
    results = {}
    print(f"{'':22}{'held mu, ln j0':>16}{'99 % half-width':>17}{'RMS error':>15}{'j0 / max':>10}{'seconds':>9}")

    def report(name, row):
        results[name] = row
        print(
            f"{name:22}{row['coverage_mu']:8.2f}{row['coverage_log_j0']:8.2f}{row['half_width_mu_kT']:9.3f}"
            f"{row['half_width_log_j0']:8.3f}{row['error_mu_kT']:8.3f}{row['error_log_j0']:7.3f}"
            f"{row['error_j0_over_max']:10.3f}{row['seconds']:9.0f}",
            flush=True,
        )

    for name, (mu, log_j0, binodal) in list(LAWS.items())[: 1 if arguments.quick else None]:
        law = ReactionLaw(mu, log_j0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.h5"
            log_k = write_video(path, SHAPES, NOISE, spread=0.5, seed=3, law=law, binodal=binodal)
            truth = np.log(law.exchange_current(COMPOSITION)), law.chemical_potential(COMPOSITION)
            report(name, study(path, *truth, np.concatenate(list(log_k.values()))))
    if arguments.twins:
        report("twins", twins(arguments.twins))
    finish("kinetic_bands", results)
    held = np.mean([[row["coverage_mu"], row["coverage_log_j0"]] for row in results.values()])
    if held < LEAST_COVERAGE:
        sys.exit(f"wrong: the 99 % bands hold the truth at {held:.2f} of the compositions")


if __name__ == "__main__":
    main()
