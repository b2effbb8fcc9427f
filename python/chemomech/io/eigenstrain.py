"""Save a learned law: result.json for programs (schema chemomech-eigenstrain/1), result.h5 with the maps."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.io.hdf5 import dataset, existing, open_hdf5, text
from chemomech.learn.dislocation_density import DislocationResult
from chemomech.learn.eigenstrain import EigenstrainResult, Uncertainty
from chemomech.learn.law import EigenstrainLaw
from chemomech.units import SQUARE_UM

SCHEMA = "chemomech-eigenstrain/1"


def write_result(folder: Path, result: EigenstrainResult) -> None:
    """Write result.json and result.h5 into an existing folder."""
    summary = json.dumps(_summary(result), indent=1, allow_nan=False)
    (folder / "result.json").write_text(summary + "\n", encoding="utf-8")
    with h5py.File(folder / "result.h5", "w") as file:
        file.attrs["schema"] = SCHEMA
        for model, law in result.laws.items():
            group = file.create_group(f"laws/{model}")
            group.create_dataset("legendre", data=law.coefficients)
            group.create_dataset("covariance", data=law.covariance)
        for name, particle in result.particles.items():
            group = file.create_group(f"particles/{name}")
            group.attrs["pixel_size_nm"] = particle.maps.pixel_size_nm
            group.create_dataset("mask", data=particle.maps.mask)
            maps = {
                "composition": (particle.maps.composition, "1"),
                "strain": (particle.maps.distortion[..., :3], "1"),
                "coherency_strain": (particle.coherency_strain, "1"),
                "residual_strain": (particle.residual_strain, "1"),
                "incompatibility": (particle.incompatibility, "1/nm^2"),
            }
            if result.dislocations:
                own = result.dislocations.particles[name]
                maps |= {
                    "dislocation_density": (own.density_per_nm2, "1/nm^2"),
                    "dislocation_strain": (own.strain, "1"),
                    "residual_strain_M2": (own.residual_strain, "1"),
                    "burgers_density": (own.burgers_density_per_nm, "1/nm"),
                }
            for key, (values, units) in maps.items():
                written = group.create_dataset(key, data=values, compression="gzip", compression_opts=1)
                written.attrs["units"] = units
                if values.ndim == 3:
                    written.attrs["components"] = ["a", "c"] if key == "burgers_density" else ["aa", "cc", "2 ac"]


def read_law(path: str | Path, model: str = "M1") -> EigenstrainLaw:
    """The law of one model from a result.h5.

    Raises
    ------
    InputError : not such a file, or the model is not in it.

    >>> law = read_law("out/result.h5")
    """
    path = existing(path)
    with open_hdf5(path) as file:
        if text(file.attrs.get("schema", "")) != SCHEMA or f"laws/{model}" not in file:
            raise InputError(f"{path}: no law {model} of schema {SCHEMA!r} in this file")
        group = file[f"laws/{model}"]
        return EigenstrainLaw(*(dataset(group, key, path)[...] for key in ("legendre", "covariance")))


def _summary(result: EigenstrainResult) -> dict[str, Any]:
    summary = {
        "schema": SCHEMA,
        "order": result.order,
        "gauge": "zero at X=1",
        "boundary": result.boundary,
        "misfit": result.misfit,
        "laws": {model: _law(law) for model, law in result.laws.items()},
        "uncertainty": {model: _uncertainty(each) for model, each in result.uncertainty.items()},
        "model_error": result.model_error,
        "order_selection": [vars(score) for score in result.order_selection],
        "noise": result.noise,
        "particles": {
            name: {
                "mean_composition": particle.maps.mean_composition,
                "pixels": int(particle.maps.mask.sum()),
                "rms_incompatibility_per_nm2": _number(particle.rms_incompatibility_per_nm2),
                "held_out": particle.held_out,
            }
            for name, particle in result.particles.items()
        },
        "warnings": result.warnings,
    }
    if result.dislocations:
        summary["dislocations"] = _dislocations(result.dislocations)
    return summary


def _law(law: EigenstrainLaw) -> dict[str, dict[str, list[float]]]:
    rows = zip("ac", law.coefficients, law.standard_error, strict=True)
    return {axis: {"legendre": values.tolist(), "std": errors.tolist()} for axis, values, errors in rows}


def _uncertainty(uncertainty: Uncertainty) -> dict[str, Any]:
    def errors(covariance: Float) -> dict[str, list[float]]:
        a, c = np.sqrt(np.diag(covariance)).reshape(2, -1).tolist()
        return {"a": a, "c": c}

    return {
        "used": uncertainty.used,
        "reason": uncertainty.reason,
        "widening": uncertainty.widening,
        "unexplained_ratio": uncertainty.unexplained_ratio,
        "std": {method: errors(covariance) for method, covariance in uncertainty.estimates.items()},
    }


def _dislocations(found: DislocationResult) -> dict[str, Any]:
    return {
        "burgers": found.burgers,
        "mean_abs_density_per_um2": SQUARE_UM * found.mean_abs_density_per_nm2,
        "candidates": [
            {
                "burgers": candidate.burgers,
                "held_out_misfit": candidate.held_out_misfit,
                "model_error": candidate.model_error,
                "mean_abs_density_per_um2": SQUARE_UM * candidate.mean_abs_density_per_nm2,
            }
            for candidate in found.candidates
        ],
        "particles": {
            name: {
                "mean_abs_density_per_um2": SQUARE_UM * own.mean_abs_density_per_nm2,
                "mean_abs_of_noise_per_um2": SQUARE_UM * own.mean_abs_of_noise_per_nm2,
                "density_deviation_per_um2": SQUARE_UM * own.density_deviation_per_nm2,
            }
            for name, own in found.particles.items()
        },
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
