"""What can videos tell? Searches from many places, and samples of the posterior beside its linearisation.

Two small particles, a discharge and a charge each, are filmed through noise of 0.07 (Zhao et al. 2023) and of 0.3, and
learned. Searches begun three standard deviations away must end where the first did. Hamiltonian Monte Carlo (needs the
extra `sampling`) draws from the posterior of all parameters: its mean should be the laws found, which have the others
integrated out approximately, and its spread the linearised one. Distances are in linearised standard deviations.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from numpy.linalg import cholesky
from threadpoolctl import threadpool_limits

from chemomech.io.video import read_video
from chemomech.learn.kinetics_search import KineticsSearch
from chemomech.learn.kinetics_validation import restart
from chemomech.learn.posterior import sample_posterior
from chemomech.tasks import in_threads
from harness import finish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from videos import LAW, write_video

SHAPES = [(6, 8), (7, 7)]
NOISES = (0.07, 0.3)
LIKELY = (-0.49, 1.49)
SPREAD, STARTS, DRAWS = 3.0, 4, 150
COMPOSITION = np.linspace(0.1, 0.9, 33)
#: Within which the searches must end, root mean square over the parameters.
SAME_PLACE = 0.5


def clip(frames: h5py.Dataset) -> None:
    frames[...] = np.clip(frames[...], *LIKELY)


def study(noise: float, draws: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.h5"
        write_video(path, SHAPES, noise)
        with h5py.File(path, "r+") as file:  # readers refuse what no composition can be
            file.visititems(lambda name, data: clip(data) if name.endswith("li_fraction") else None)
        video = read_video(path)
    search = KineticsSearch(video, in_threads, None)
    problem, found, volume = search.laws(*search.beginning(), None)
    basis, n = search.basis, problem.n_shared
    root = cholesky(found.schur).T  # takes a change of the parameters to standard deviations

    def distance(shared):
        return float(np.sqrt(np.mean((root @ (shared - found.parameters.shared)) ** 2)))

    ends = [distance(end.parameters.shared) for end in restart(problem, volume, found, SPREAD, STARTS)]
    mu, log_j0 = basis.mu_design(COMPOSITION), basis.log_j0_design(COMPOSITION)
    log_j0 = log_j0 - log_j0.mean(axis=0)  # the shape: the size goes with the mean of ln k
    law = basis.law(found.parameters.shared)
    mu_error = law.chemical_potential(COMPOSITION) - LAW.chemical_potential(COMPOSITION)
    j0_error = np.log(law.exchange_current(COMPOSITION) / LAW.exchange_current(COMPOSITION))
    covariance = np.linalg.inv(found.schur)
    row = {
        "farthest_end": max(ends),
        "error_mu_kT": float(mu_error.std()),
        "error_log_j0": float(j0_error.std()),
        "deviation_mu_kT": float(np.sqrt(np.mean(np.einsum("ij,jk,ik->i", mu, covariance, mu)))),
        "deviation_log_j0": float(np.sqrt(np.mean(np.einsum("ij,jk,ik->i", log_j0, covariance, log_j0)))),
    }
    if draws:
        start = time.perf_counter()
        samples = sample_posterior(problem, found, draws=draws)
        shared = samples.shared.reshape(-1, n)
        row |= {
            "sampled_deviation_mu_kT": float(np.sqrt(np.mean((shared @ mu.T).var(axis=0)))),
            "sampled_deviation_log_j0": float(np.sqrt(np.mean((shared @ log_j0.T).var(axis=0)))),
            "sampled_mean": distance(shared.mean(axis=0)),
            "r_hat": samples.r_hat,
            "effective": samples.effective,
            "divergences": samples.divergences,
            "sampling_s": time.perf_counter() - start,
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="searches only, no samples")
    arguments = parser.parse_args()
    with threadpool_limits(1, user_api="blas"):
        results = {f"noise_{noise}": study(noise, 0 if arguments.quick else DRAWS) for noise in NOISES}
    print(f"{'':26}" + "".join(f"{name:>14}" for name in results))
    for key in next(iter(results.values())):
        print(f"{key:26}" + "".join(f"{row[key]:14.3g}" for row in results.values()))
    finish("kinetic_identifiability", results)
    if results["noise_0.07"]["farthest_end"] > SAME_PLACE:
        sys.exit("wrong: searches from other places end elsewhere")


if __name__ == "__main__":
    main()
