"""Read and write aligned correlative maps (schema correlative-stack/1, HDF5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.arrays import Bool, Float
from chemomech.errors import InputError
from chemomech.io.files import atomic_path
from chemomech.io.hdf5 import dataset, existing, number, open_hdf5, particle_groups, text
from chemomech.observe.diffraction import LatticeMaps
from chemomech.observe.maps import CHANNELS, CorrelativeMaps
from chemomech.observe.strain import lattice_distortion
from chemomech.units import to_internal

SCHEMA = "correlative-stack/1"
#: The lattice maps of a file in the order of `CHANNELS`, with what they measure.
_LATTICE = {"a": "length", "c": "length", "gamma": "angle", "theta": "angle"}
_ANGSTROM_NM = 0.1


def read_stack(path: str | Path) -> list[CorrelativeMaps]:
    """Particles of a correlative-stack/1 file.

    Beside the maps a particle may hold their standard deviations `composition_std`, `a_std`, `c_std`, `gamma_std`,
    `theta_std`, in the same units.

    Raises
    ------
    InputError : the file cannot be read, has another schema, or a particle is incomplete or unusable.
    """
    path = existing(path)
    particles = []
    with open_hdf5(path) as file:
        for name, group in particle_groups(file, SCHEMA, path).items():
            lattice, reference_nm = read_lattice(group, path)
            composition, deviation = _map_and_deviation(group, "composition", "fraction", lattice.mask, path)
            uncertainty = dict(lattice.uncertainty)
            if deviation is not None:
                uncertainty["composition"] = deviation
            particles.append(
                CorrelativeMaps(
                    name=name,
                    pixel_size_nm=lattice.pixel_size_nm,
                    mask=lattice.mask,
                    composition=composition,
                    distortion=lattice.distortion,
                    reference_nm=reference_nm,
                    uncertainty=uncertainty,
                    source=str(path),
                )
            )
    return particles


def read_lattice(group: h5py.Group, path: Path) -> tuple[LatticeMaps, tuple[float, float]]:
    """Lattice maps of one group, and the lattice parameters a and c (nm) that the strains are relative to.

    Raises
    ------
    InputError : something is missing or unusable.
    """
    mask = _mask(group, path)
    a_nm, c_nm = (_ANGSTROM_NM * number(group, key, path) for key in ("a_ref_angstrom", "c_ref_angstrom"))
    fields, deviations = {}, {}
    for key, quantity in _LATTICE.items():
        fields[key], deviations[key] = _map_and_deviation(group, key, quantity, mask, path)
    try:
        distortion = lattice_distortion(
            fields["a"], fields["c"], fields["gamma"], fields["theta"], a_reference_nm=a_nm, c_reference_nm=c_nm
        )
    except InputError as error:
        raise InputError(f"{path}: {group.name}: {error}") from error
    scale = (1 / a_nm, 1 / c_nm, 1.0, 1.0)
    measured = zip(CHANNELS, scale, deviations.values(), strict=True)
    lattice = LatticeMaps(
        pixel_size_nm=number(group, "pixel_size_nm", path),
        mask=mask,
        distortion=distortion,
        uncertainty={channel: factor * values for channel, factor, values in measured if values is not None},
        source=f"{path}: {group.name}",
    )
    return lattice, (a_nm, c_nm)


def write_stack(
    path: str | Path,
    particles: Sequence[CorrelativeMaps],
    attributes: Mapping[str, Mapping[str, npt.ArrayLike]] | None = None,
) -> None:
    """Write particles as correlative-stack/1; an interrupted write leaves an existing file whole.

    `attributes` are further attributes of a particle's group, by its name.
    """
    with atomic_path(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["schema"] = SCHEMA
        for maps in particles:
            group = file.create_group(f"particles/{maps.name}")
            a_reference, c_reference = (length / _ANGSTROM_NM for length in maps.reference_nm)
            group.attrs["pixel_size_nm"] = maps.pixel_size_nm
            group.attrs["a_ref_angstrom"], group.attrs["c_ref_angstrom"] = a_reference, c_reference
            group.attrs.update((attributes or {}).get(maps.name, {}))
            aa, cc, shear, rotation = np.moveaxis(maps.distortion, -1, 0)
            fields = (
                ("composition", "composition", maps.composition, 1.0, "1"),
                ("a", "aa", a_reference * (1 + aa), a_reference, "angstrom"),
                ("c", "cc", c_reference * (1 + cc), c_reference, "angstrom"),
                ("gamma", "ac", shear, 1.0, "rad"),
                ("theta", "rotation", rotation, 1.0, "rad"),
            )
            for key, channel, values, scale, units in fields:
                group.create_dataset(key, data=values).attrs["units"] = units
                if channel in maps.uncertainty:
                    deviation = scale * maps.uncertainty[channel]
                    group.create_dataset(f"{key}_std", data=deviation).attrs["units"] = units
            group.create_dataset("mask", data=maps.mask)


def _mask(group: h5py.Group, path: Path) -> Bool:
    mask = dataset(group, "mask", path)[...]
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise InputError(f"{path}: {group.name}/mask must be boolean, got {mask.dtype} values other than 0 and 1")
    return np.asarray(mask, dtype=bool)


def _map_and_deviation(
    group: h5py.Group, key: str, quantity: str, mask: Bool, path: Path
) -> tuple[Float, Float | None]:
    """A map and, where the file holds one, its standard deviation, both in internal units."""
    deviation = _map(group, f"{key}_std", quantity, mask, path) if f"{key}_std" in group else None
    return _map(group, key, quantity, mask, path), deviation


def _map(group: h5py.Group, key: str, quantity: str, mask: Bool, path: Path) -> Float:
    stored = dataset(group, key, path)
    where = f"{path}: {group.name}/{key}"
    if stored.shape != mask.shape:
        raise InputError(
            f"{where} has shape {stored.shape}, but mask has {mask.shape}; every map of a particle must share one grid"
        )
    if not np.issubdtype(stored.dtype, np.floating):
        raise InputError(f"{where} must hold floating-point numbers, got {stored.dtype}")
    if "units" not in stored.attrs:
        raise InputError(f"{where} has no units attribute")
    scale = to_internal(text(stored.attrs["units"]), quantity=quantity, where=where)
    return np.asarray(stored[...], dtype=np.float64) * scale
