"""Which boundary and misfit learn the law best, and which standard errors tell the truth about it.

Many synthetic experiments with a known law are made by finite differences and learned back in four ways, with the
measurement's noise alone and with strain that composition does not explain (random plastic strain, correlated over two
pixels, whose elastic field has the size that dislocations leave in LiFePO4). Compared are the error of df/dX and the
share of point-wise 95 % bands that hold the truth. The defaults of `chemomech learn` rest on this table.
"""

import argparse
import sys
from dataclasses import replace
from itertools import product

import numpy as np
from scipy import ndimage

from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.law import EigenstrainLaw
from chemomech.learn.twins import TWIN_LAW, Noise, add_noise, expansion_error, make_particle
from chemomech.mechanics.finite_difference import free_distortion
from chemomech.mechanics.stiffness import OLIVINE, plane_stress
from chemomech.observe.maps import CorrelativeMaps
from harness import finish

COMPOSITION = np.linspace(0, 1, 21)
DISLOCATION_STRAIN = 0.004


def plastically_strained(maps: CorrelativeMaps, random: np.random.Generator) -> CorrelativeMaps:
    """The same particle with the elastic field of a random plastic strain added."""
    fine = np.kron(maps.mask, np.ones((2, 2), dtype=bool))
    plastic = ndimage.gaussian_filter(random.standard_normal((*fine.shape, 2)), (4, 4, 0))
    field = free_distortion(fine, maps.pixel_size_nm / 2, plane_stress(OLIVINE), plastic)
    field = field.reshape(maps.mask.shape[0], 2, maps.mask.shape[1], 2, 4).mean(axis=(1, 3))
    return replace(maps, distortion=maps.distortion + DISLOCATION_STRAIN * field / field[maps.mask][:, :3].std())


def study(particles: list[CorrelativeMaps], n_sets: int, dislocated: bool) -> list[dict[str, object]]:
    """One row per boundary and misfit."""
    ways = list(product(("free", "dirichlet"), ("strain", "displacement")))
    errors: dict[tuple[str, str], list] = {way: [] for way in ways}
    inside: dict[tuple[str, str], dict[str, list]] = {way: {} for way in ways}
    random = np.random.default_rng(0)
    for number in range(n_sets):
        made = [plastically_strained(maps, random) for maps in particles] if dislocated else particles
        made = [add_noise(maps, Noise(), seed=100 * number + i) for i, maps in enumerate(made)]
        for boundary, misfit in ways:
            result = learn_eigenstrain(made, order=2, models=("M1",), boundary=boundary, misfit=misfit)
            law, uncertainty = result.laws["M1"], result.uncertainty["M1"]
            errors[boundary, misfit].append(expansion_error(law, TWIN_LAW))
            miss = np.abs(law.derivative(COMPOSITION) - TWIN_LAW.derivative(COMPOSITION))
            for method, covariance in {**uncertainty.estimates, "used": uncertainty.covariance}.items():
                band = EigenstrainLaw(law.coefficients, covariance).derivative_band(COMPOSITION)
                inside[boundary, misfit].setdefault(method, []).append((miss <= band).mean())
    return [
        {
            "boundary": boundary,
            "misfit": misfit,
            "error_a": float(np.sqrt(np.mean(np.square(errors[boundary, misfit]), axis=0))[0]),
            "error_c": float(np.sqrt(np.mean(np.square(errors[boundary, misfit]), axis=0))[1]),
            "coverage": {method: float(np.mean(shares)) for method, shares in inside[boundary, misfit].items()},
        }
        for boundary, misfit in ways
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few small data sets, for a look within 45 s")
    quick = parser.parse_args().quick
    n_sets, length_nm, n_particles = (4, 1500, 3) if quick else (100, 4000, 5)
    particles = [make_particle(f"P{i}", length_nm=length_nm, seed=i) for i in range(n_particles)]
    results = {}
    for name, dislocated in (("noise", False), ("noise and unexplained strain", True)):
        rows = study(particles, n_sets, dislocated)
        results[name] = rows
        print(f"{name}: {n_sets} experiments of {n_particles} particles, order 2")
        print(f"{'boundary':10} {'misfit':13} {'error a':>8} {'error c':>8}   share of 95 % bands that hold the truth")
        for row in rows:
            shares = "  ".join(f"{method} {share:.2f}" for method, share in row["coverage"].items())
            errors = f"{100 * row['error_a']:7.2f}% {100 * row['error_c']:7.2f}%"
            print(f"{row['boundary']:10} {row['misfit']:13} {errors}   {shares}")
        print()
    best = results["noise"][0]
    if best["error_a"] > 0.05 or best["error_c"] > 0.12:
        sys.exit("wrong: the default does not bring the law back")
    finish("coverage", results)


if __name__ == "__main__":
    main()
