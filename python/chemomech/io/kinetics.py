"""Save learned kinetics: result.json for programs (schema chemomech-kinetics/1), result.h5 with maps and frames."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.io.hdf5 import existing
from chemomech.learn.kinetics import KineticsResult, KineticsSettings

SCHEMA = "chemomech-kinetics/1"


def write_result(folder: Path, result: KineticsResult) -> None:
    """Write result.json and result.h5 into an existing folder."""
    summary = json.dumps(_summary(result), indent=1, allow_nan=False)
    (folder / "result.json").write_text(summary + "\n", encoding="utf-8")
    with h5py.File(folder / "result.h5", "w") as file:
        file.attrs["schema"] = SCHEMA
        laws = file.create_group("laws")
        laws.attrs["alpha"] = result.law.alpha
        laws.create_dataset("mu_legendre", data=result.law.mu).attrs["units"] = "kT"
        laws.create_dataset("log_j0_legendre", data=result.law.log_j0).attrs["units"] = "ln(1/h)"
        for name, learned in result.particles.items():
            particle = learned.particle
            group = file.create_group(f"particles/{name}")
            group.attrs["pixel_size_nm"] = particle.pixel_size_nm
            group.create_dataset("mask", data=particle.mask)
            for key, values in (("log_k", learned.log_k), ("log_k_deviation", learned.log_k_deviation)):
                group.create_dataset(key, data=particle.to_map(values)).attrs["units"] = "1"
            for half in particle.half_cycles:
                own = group.create_group(f"half_cycles/{half.name}")
                own.attrs["mode"] = half.mode
                own.create_dataset("time_s", data=3600 * half.time_h).attrs["units"] = "s"
                frames = particle.to_map(learned.model[half.name])
                filmed = own.create_dataset("li_fraction", data=frames, compression="gzip", compression_opts=1)
                filmed.attrs["units"] = "1"


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
        "mu_h_bootstrap99_half_width": _list(result.mu_bootstrap),
        "log_j0_bootstrap99_half_width": _list(result.log_j0_bootstrap),
        "rmse": result.rmse,
        "noise_sigma": result.noise,
        "kappa_over_density_kT_nm2": result.video.gradient_nm2,
        "alpha": result.video.alpha,
        "binodal": result.video.binodal,
        "boundary": result.video.boundary,
        "mechanics": "off" if result.video.coherency is None else "on",
        "legendre": {"mu_h_kT": result.law.mu.tolist(), "log_j0": result.law.log_j0.tolist()},
        "rho_2": result.rho,
        "log_k_length_px": result.lengths.log_k_px,
        "initial_length_px": result.lengths.initial_px,
        "cross_validation": _validation(result),
        "posterior": _posterior(result),
        "termination": {"reason": result.reason, "iterations": result.iterations},
        "particles": {
            name: {
                "log_k_file": f"result.h5:/particles/{name}/log_k",
                "log_k_deviation_file": f"result.h5:/particles/{name}/log_k_deviation",
                "correlation_of_k_with_external_map": learned.external_correlation,
                "rmse": {
                    half.name: float(np.sqrt(np.mean((learned.model[half.name] - half.li_fraction) ** 2)))
                    for half in learned.particle.half_cycles
                },
            }
            for name, learned in result.particles.items()
        },
        "warnings": result.warnings,
    }


def _list(values: Float | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _validation(result: KineticsResult) -> dict[str, Any] | None:
    found = result.cross_validation
    if found is None:
        return None
    curves = {key: _list(getattr(found, key)) for key in ("rho", "error", "standard_error", "training")}
    return {**curves, "log_k_correlation_between_half_cycles": found.consistency}


def _posterior(result: KineticsResult) -> dict[str, Any] | None:
    found = result.posterior
    if found is None:
        return None
    return {"r_hat": found.r_hat, "effective_samples": found.effective, "divergences": found.divergences}


def read_settings(path: Path) -> KineticsSettings:
    """Settings from a TOML file with the keys of `KineticsSettings`.

    Raises
    ------
    InputError : not TOML, an unknown key, or a value that is not allowed.
    """
    try:
        content = tomllib.loads(existing(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    known = [field.name for field in fields(KineticsSettings)]
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InputError(f"{path}: {unknown[0]} is not known; keys are {', '.join(known)}")
    rho = content.get("rho_2", "evidence")
    number = isinstance(rho, int | float) and not isinstance(rho, bool)
    if not (0 < rho < float("inf") if number else rho in ("evidence", "k-fold")):
        raise InputError(f'{path}: rho_2 must be "evidence", "k-fold" or a positive number, got {rho!r}')
    samples = content.get("posterior_samples", 0)
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 0:
        raise InputError(f"{path}: posterior_samples must be a whole number, 0 or more, got {samples!r}")
    return KineticsSettings(rho_2=rho, posterior_samples=samples)
