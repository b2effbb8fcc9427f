"""Save learned kinetics: result.json for programs (schema chemomech-kinetics/1), result.h5 with maps and frames."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chemomech.learn.kinetics import KineticsResult

SCHEMA = "chemomech-kinetics/1"


def write_result(folder: Path, result: KineticsResult) -> None:
    """Write result.json and result.h5 into an existing folder."""
    summary = json.dumps(_summary(result), indent=1, allow_nan=False)
    (folder / "result.json").write_text(summary + "\n", encoding="utf-8")
    with h5py.File(folder / "result.h5", "w") as file:
        file.attrs["schema"] = SCHEMA
        laws = file.create_group("laws")
        laws.attrs["alpha"] = result.law.alpha
        laws.create_dataset("mu_legendre", data=result.law.mu)
        laws.create_dataset("log_j0_legendre", data=result.law.log_j0)
        for name, learned in result.particles.items():
            particle = learned.particle
            group = file.create_group(f"particles/{name}")
            group.attrs["pixel_size_nm"] = particle.pixel_size_nm
            group.create_dataset("mask", data=particle.mask)
            group.create_dataset("log_k", data=particle.to_map(learned.log_k)).attrs["units"] = "1"
            for half in particle.half_cycles:
                own = group.create_group(f"half_cycles/{half.name}")
                own.attrs["mode"] = half.mode
                own.create_dataset("time_s", data=3600 * half.time_h)
                frames = particle.to_map(learned.model[half.name])
                own.create_dataset("li_fraction", data=frames, compression="gzip", compression_opts=1)


def _summary(result: KineticsResult) -> dict[str, Any]:
    mu, log_j0 = result.mu_kT, result.log_j0
    return {
        "schema": SCHEMA,
        "composition": result.composition.tolist(),
        "mu_h_kT": mu.tolist(),
        "mu_h_ci99": np.column_stack([mu - result.mu_half_width, mu + result.mu_half_width]).tolist(),
        "j0_per_h": np.exp(log_j0).tolist(),
        "j0_ci99": np.exp(
            np.column_stack([log_j0 - result.log_j0_half_width, log_j0 + result.log_j0_half_width])
        ).tolist(),
        "rmse": result.rmse,
        "noise_sigma": result.noise,
        "legendre": {"mu_h_kT": result.law.mu.tolist(), "log_j0": result.law.log_j0.tolist()},
        "rho_2": result.rho,
        "termination": {"reason": result.reason, "iterations": result.iterations},
        "particles": {
            name: {
                "log_k_file": f"result.h5:/particles/{name}/log_k",
                "rmse": {
                    half.name: float(np.sqrt(np.mean((learned.model[half.name] - half.li_fraction) ** 2)))
                    for half in learned.particle.half_cycles
                },
            }
            for name, learned in result.particles.items()
        },
        "warnings": result.warnings,
    }
