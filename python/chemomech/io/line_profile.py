"""Peaks of a powder in (schema line-profile-peaks/1, HDF5), dislocations out (result.json)."""

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.io.hdf5 import dataset, existing, number, open_hdf5, text
from chemomech.learn.dislocation_systems import DislocationSystems
from chemomech.learn.line_profile import LineProfileResult, Peak, Phase, Powder, Triple
from chemomech.mechanics.slip_systems import SlipSystem
from chemomech.observe.line_profile import MomentFit

SCHEMA = "line-profile-peaks/1"
RESULT_SCHEMA = "chemomech-line-profile/1"
_PER_M2 = 1e18


def read_peaks(path: str | Path) -> Powder:
    """Peaks, phases, standard and slip systems of a line-profile-peaks/1 file.

    Root attributes `wavelength_nm`, `cell_nm` (3,), optional `stiffness_GPa` (6, 6); in place of the last two, for a
    powder of several phases, `/phases/<name>` with the same attributes and `weight`. `/peaks/<h k l>` holds `intensity`
    and `q_per_nm` or `two_theta_deg`, with attribute `g_per_nm` and optional `contrast_factor` and `burgers_nm`;
    optional `/instrument/<h k l>` alike; optional `/systems/<label>` with attributes `burgers`, `plane`, `line`.

    Raises
    ------
    InputError : the file cannot be read, has another schema, or is incomplete or unusable.

    >>> powder = read_peaks("peaks.h5")
    """
    path = existing(path)
    with open_hdf5(path) as file:
        found = file.attrs.get("schema")
        if found is not None and text(found) != SCHEMA:
            raise InputError(f"{path}: schema is {text(found)!r}, expected {SCHEMA!r}")
        wavelength = _positive(file, "wavelength_nm", path)
        peaks = {name: _peak(group, name, wavelength, path) for name, group in _groups(file, "peaks", path).items()}
        if not peaks:
            raise InputError(f"{path}: /peaks is missing or empty; it holds one group per peak, named like '1 0 1'")
        phases = {name: _phase(group, path, "weight") for name, group in _groups(file, "phases", path).items()}
        standard = [_peak(group, name, wavelength, path) for name, group in _groups(file, "instrument", path).items()]
        systems = [_system(group, name, path) for name, group in _groups(file, "systems", path).items()]
        peaks = dict(sorted(peaks.items(), key=lambda item: item[1].g_per_nm))
        return Powder(peaks, phases or {"powder": _phase(file, path)}, standard, systems or None)


def write_result(folder: Path, result: LineProfileResult) -> None:
    """Write result.json into an existing folder; densities in 1/m^2 and 1/um^2, lengths in nm."""
    summary = {
        "schema": RESULT_SCHEMA,
        "peaks": {name: _peak_summary(result, name) for name in result.peaks},
        "williamson_hall": None
        if result.williamson_hall is None
        else {"size_nm": _number(result.williamson_hall.size_nm), "strain": result.williamson_hall.strain},
        **(_systems_summary(result.systems) if result.systems else {"systems": {}, "explained": None}),
        "warnings": result.warnings,
    }
    (folder / "result.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _peak_summary(result: LineProfileResult, name: str) -> dict[str, Any]:
    analysis = result.peaks[name]
    fits: dict[str, MomentFit] = {"M2": analysis.M2, "M4": analysis.M4}
    summary: dict[str, Any] = {
        "rho_star_m2": {key: fit.density_per_nm2 * _PER_M2 for key, fit in fits.items()},
        "rho_star_std_m2": {key: fit.density_error * _PER_M2 for key, fit in fits.items()},
        "consistent": analysis.consistent,
        "size_nm": _number(analysis.M2.size_nm),
        "integral_breadth_per_nm": analysis.integral_breadth_per_nm,
        "range_per_nm": {key: [fit.q_min, fit.q_max] for key, fit in fits.items()},
        "chi2": {key: fit.chi2 for key, fit in fits.items()},
    }
    if name in result.single_contrast_per_m2:
        summary["density_single_contrast_per_m2"] = dict(
            zip(("M2", "M4"), result.single_contrast_per_m2[name], strict=True)
        )
    return summary


def _systems_summary(systems: DislocationSystems) -> dict[str, Any]:
    mean = systems.samples_per_um2.mean(axis=0).tolist()
    low, median, high = np.percentile(systems.samples_per_um2, [5, 50, 95], axis=0).tolist()
    rows = enumerate(zip(systems.labels, systems.density_per_um2.tolist(), systems.std_per_um2.tolist(), strict=True))
    return {
        "systems": {
            label: {
                "density_per_um2": density,
                "std": std,
                "mean_per_um2": mean[i],
                "quantiles_per_um2": {"5": low[i], "50": median[i], "95": high[i]},
                "energy_nJ_per_m": float(systems.energy_nJ_per_m[i]),
            }
            for i, (label, density, std) in rows
        },
        "explained": systems.explained,
        "tolerance": systems.tolerance,
        "sparsest_sets": [
            {
                "density_per_um2": dict(zip(each.labels, each.density_per_um2.tolist(), strict=True)),
                "largest_deviation": each.deviation,
                "energy_kJ_per_m3": each.energy_kJ_per_m3,
            }
            for each in systems.sets
        ],
    }


def _peak(group: h5py.Group, name: str, wavelength: float, path: Path) -> Peak:
    hkl = _indices(name)
    if hkl is None:
        raise InputError(f"{path}: {group.name}: a peak is named by three integers such as '1 0 1', not all zero")
    g = _positive(group, "g_per_nm", path)
    if "q_per_nm" in group or "two_theta_deg" not in group:
        q = _column(group, "q_per_nm", path)
    else:
        q = 2 * np.sin(np.radians(_column(group, "two_theta_deg", path)) / 2) / wavelength - g
    extra = {key: _positive(group, key, path) for key in ("contrast_factor", "burgers_nm") if key in group.attrs}
    if len(extra) == 1:
        raise InputError(
            f"{path}: {group.name} has {next(iter(extra))}; it needs contrast_factor and burgers_nm, or neither"
        )
    return Peak(hkl, g, q, _column(group, "intensity", path), **extra)


def _phase(group: h5py.Group, path: Path, *more: str) -> Phase:
    a, b, c = _vector(group, "cell_nm", (3,), path).tolist()
    if min(a, b, c) <= 0:
        raise InputError(f"{path}: {group.name}: cell_nm must be three positive lengths, got {a:g} {b:g} {c:g}")
    stiffness = _vector(group, "stiffness_GPa", (6, 6), path) if "stiffness_GPa" in group.attrs else None
    return Phase((a, b, c), stiffness, *(number(group, key, path) for key in more))


def _system(group: h5py.Group, name: str, path: Path) -> SlipSystem:
    def triple(key: str) -> Triple:
        u, v, w = _vector(group, key, (3,), path).tolist()
        if not any((u, v, w)):
            raise InputError(f"{path}: {group.name}: {key} must not be 0 0 0")
        return u, v, w

    return SlipSystem(name, triple("burgers"), triple("plane"), triple("line"))


def _groups(file: h5py.File, key: str, path: Path) -> dict[str, h5py.Group]:
    group = file.get(key, {})
    for name in group:
        if not isinstance(group.get(name), h5py.Group):
            raise InputError(f"{path}: /{key}/{name} must be a group")
    return {name: group[name] for name in group}


def _column(group: h5py.Group, key: str, path: Path) -> Float:
    values = dataset(group, key, path)[...]
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: {group.name}/{key} must be one column of numbers, got shape {values.shape}")
    return np.asarray(values, dtype=np.float64)


def _vector(group: h5py.Group, key: str, shape: tuple[int, ...], path: Path) -> Float:
    value = group.attrs.get(key)
    if value is None:
        raise InputError(f"{path}: {group.name} has no attribute {key}")
    values = np.asarray(value)
    if values.shape != shape or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise InputError(
            f"{path}: {group.name}: {key} must be {' x '.join(map(str, shape))} numbers, got {text(value)!r}"
        )
    return values.astype(np.float64)


def _positive(group: h5py.Group, key: str, path: Path) -> float:
    value = number(group, key, path)
    if not 0 < value < math.inf:
        raise InputError(f"{path}: {group.name}: {key} must be positive, got {value:g}")
    return value


def _indices(name: str) -> tuple[int, int, int] | None:
    try:
        h, k, l = (int(word) for word in name.split())  # noqa: E741
    except ValueError:
        return None
    return (h, k, l) if (h, k, l) != (0, 0, 0) else None


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
