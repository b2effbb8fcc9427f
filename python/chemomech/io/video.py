"""Read videos of reacting particles (schema reaction-video/1, HDF5)."""

import math
from pathlib import Path
from typing import Literal, TypeVar, get_args

import h5py
import numpy as np

from chemomech.arrays import Bool, Float, require_finite, require_shape
from chemomech.errors import InputError
from chemomech.io.hdf5 import dataset, existing, number, open_hdf5, particle_groups, text
from chemomech.mechanics.stiffness import OLIVINE, plane_stress
from chemomech.observe.video import (
    Boundary,
    Coherency,
    FilmedParticle,
    HalfCycle,
    ReactionVideo,
    check_mask,
    half_cycle,
)
from chemomech.phasefield.planar_coherency import OLIVINE_MISFIT
from chemomech.units import EV_PER_AJ

SCHEMA = "reaction-video/1"
#: Widths sqrt(kappa / (c_s kT)) of an interface in a pixel, beyond which it would be cut into hundreds of cells.
_MOST_INTERFACES_A_PIXEL = 10
Mechanics = Literal["off", "on"]
Choice = TypeVar("Choice", bound=str)


def read_video(path: str | Path, *, skip_bad: bool = False) -> ReactionVideo:
    """Particles and half-cycles of a reaction-video/1 file.

    Parameters
    ----------
    skip_bad : leave out the particles and half-cycles that cannot be used, and say so in `skipped`.

    Raises
    ------
    InputError : the file cannot be read, has another schema, or something in it is missing or unusable.

    >>> video = read_video("video.h5")
    """
    path = existing(path)
    skipped: list[str] = []
    with open_hdf5(path) as file:
        groups = particle_groups(file, SCHEMA, path)
        kT_eV, density = _positive(file, "kT_eV", path), _positive(file, "site_density_nm3", path)
        gradient_nm2 = _positive(file, "kappa_eV_per_nm", path) / (density * kT_eV)
        noise = _positive(file, "noise_sigma", path)
        alpha = number(file, "alpha", path)
        if not 0 < alpha < 1:
            raise InputError(f"{path}: /: alpha must lie between 0 and 1, got {alpha:g}")
        mechanics = _one_of(file, "mechanics", get_args(Mechanics), path)
        boundary = _one_of(file, "boundary", get_args(Boundary), path)
        coherency = _coherency(file, density * kT_eV / EV_PER_AJ, path) if mechanics == "on" else None
        binodal = number(file, "binodal", path) if "binodal" in file.attrs else None
        if binodal is not None and not 0 < binodal < 0.5:
            raise InputError(f"{path}: /: binodal must lie between 0 and 0.5, got {binodal:g}")
        particles: dict[str, FilmedParticle] = {}
        for name, group in groups.items():
            try:
                particle = _particle(name, group, noise, path, skipped if skip_bad else None)
                _check_interface(particle, gradient_nm2, f"{path}: {group.name}")
                particles[name] = particle
            except InputError as error:
                if not skip_bad:
                    raise
                skipped.append(str(error))
    if not particles:
        raise InputError(f"{path}: no particle can be used; first: {skipped[0]}")
    return ReactionVideo(gradient_nm2, alpha, noise, boundary, coherency, binodal, particles, skipped)


def _particle(name: str, group: h5py.Group, noise: float, path: Path, skipped: list[str] | None) -> FilmedParticle:
    """One particle; unusable half-cycles are noted in `skipped`, or refused where it is None."""
    mask = _mask(group, path)
    check_mask(mask, f"{path}: {group.name}/mask")
    pixel = _positive(group, "pixel_size_nm", path)
    parent = group.get("half_cycles")
    if not isinstance(parent, h5py.Group) or not len(parent):
        raise InputError(f"{path}: {group.name}/half_cycles is missing or empty; it holds one group per half-cycle")
    found: list[HalfCycle] = []
    for key in sorted(parent, key=lambda key: (len(key), key)):
        try:
            found.append(_half_cycle(key, parent, mask, noise, path))
        except InputError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
    if not found:
        raise InputError(f"{path}: {group.name}: no half-cycle can be used")
    external = None
    if "external_map" in group:
        values = _numbers(group, "external_map", path)
        where = f"{path}: {group.name}/external_map"
        require_shape(values, where, mask.shape)
        require_finite(values, mask, where)
        external = values[mask]
    return FilmedParticle(name, mask, pixel, tuple(found), external)


def _check_interface(particle: FilmedParticle, gradient_nm2: float, where: str) -> None:
    """Refuse interfaces that no cells can resolve, or wider than the particle: a unit is wrong."""
    scale, pixel = math.sqrt(gradient_nm2), particle.pixel_size_nm
    longest = pixel * max(np.ptp(rows_or_columns) + 1 for rows_or_columns in np.nonzero(particle.mask))
    if pixel > _MOST_INTERFACES_A_PIXEL * scale or scale > longest:
        raise InputError(
            f"{where}: interfaces of sqrt(kappa_eV_per_nm / (site_density_nm3 kT_eV)) = {scale:.3g} nm do not fit "
            f"pixels of {pixel:g} nm and a particle of {longest:g} nm; check the units of all four"
        )


def _half_cycle(key: str, parent: h5py.Group, mask: Bool, noise: float, path: Path) -> HalfCycle:
    group = parent.get(key)
    if not isinstance(group, h5py.Group):
        raise InputError(f"{path}: {parent.name}/{key} must be a group, one per half-cycle")
    if "mode" not in group.attrs:
        raise InputError(f"{path}: {group.name} has no attribute mode")
    time_s, li_fraction = _numbers(group, "time_s", path), _numbers(group, "li_fraction", path)
    where = f"{path}: {group.name}"
    return half_cycle(key, text(group.attrs["mode"]), time_s, li_fraction, mask, noise, where)


def _mask(group: h5py.Group, path: Path) -> Bool:
    mask = dataset(group, "mask", path)[...]
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise InputError(f"{path}: {group.name}/mask must be boolean, got {mask.dtype} values other than 0 and 1")
    return np.asarray(mask, dtype=bool)


def _numbers(group: h5py.Group, key: str, path: Path) -> Float:
    values = dataset(group, key, path)[...]
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path}: {group.name}/{key} must hold numbers, got {values.dtype}")
    return np.asarray(values, dtype=np.float64)


def _positive(group: h5py.Group, key: str, path: Path) -> float:
    value = number(group, key, path)
    if not 0 < value < math.inf:
        raise InputError(f"{path}: {group.name}: {key} must be positive, got {value:g}")
    return value


def _one_of(group: h5py.Group, key: str, choices: tuple[Choice, ...], path: Path) -> Choice:
    if key not in group.attrs:
        raise InputError(f"{path}: {group.name} has no attribute {key}")
    found = text(group.attrs[key])
    for choice in choices:
        if found == choice:
            return choice
    raise InputError(f"{path}: {group.name}: {key} must be {' or '.join(choices)}, got {found!r}")


def _coherency(file: h5py.File, energy_density_GPa: float, path: Path) -> Coherency:
    """Misfit strain and stiffness of the file, or those of LiFePO4 in FePO4."""
    misfit = _matrix(file, "misfit_strain", (3,), OLIVINE_MISFIT, path)
    stiffness_GPa = _matrix(file, "stiffness_GPa", (6, 6), OLIVINE, path)
    try:
        plane_stress(stiffness_GPa)
    except InputError as error:
        raise InputError(f"{path}: /: {error}") from error
    return Coherency(misfit, stiffness_GPa, energy_density_GPa)


def _matrix(file: h5py.File, key: str, shape: tuple[int, ...], default: Float, path: Path) -> Float:
    if key not in file.attrs:
        return default
    values = np.asarray(file.attrs[key])
    wanted = f"{path}: /: {key} must hold {' x '.join(map(str, shape))} finite numbers"
    if values.dtype.kind not in "fiu":
        raise InputError(f"{wanted}, got {file.attrs[key]!r}")
    if values.shape != shape or not np.isfinite(values).all():
        raise InputError(f"{wanted}, got {values.shape}")
    return values.astype(np.float64)
