"""Read what two microscopes saw of each particle (schema correlative-raw/1, HDF5)."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.io.correlative import read_lattice
from chemomech.io.hdf5 import dataset, existing, number, open_hdf5, particle_groups
from chemomech.observe.composition import RawParticle
from chemomech.observe.spectra import References

SCHEMA = "correlative-raw/1"


def read_raw(path: str | Path) -> tuple[References, Sequence[RawParticle]]:
    """Reference spectra and the particles of a correlative-raw/1 file.

    Raises
    ------
    InputError : the file cannot be read, has another schema, or is incomplete or unusable.
    """
    path = existing(path)
    with open_hdf5(path) as file:
        groups = particle_groups(file, SCHEMA, path)
        references = _references(_group(file, "reference", path), path)
        return references, [_particle(group, name, path) for name, group in groups.items()]


def _references(group: h5py.Group, path: Path) -> References:
    spectra = {name: _numbers(group, name, 1, path) for name in ("LiFePO4", "FePO4")}
    try:
        return References(_numbers(group, "energy_eV", 1, path), spectra)
    except InputError as error:
        raise InputError(f"{path}: {group.name}: {error}") from error


def _particle(group: h5py.Group, name: str, path: Path) -> RawParticle:
    xray = _group(group, "xray", path)
    lattice, reference_nm = read_lattice(_group(group, "stem", path), path)
    energy_eV, density = _numbers(xray, "energy_eV", 1, path), _numbers(xray, "optical_density", 3, path)
    if len(energy_eV) != len(density):
        raise InputError(f"{path}: {xray.name} has {len(energy_eV)} energies for {len(density)} images")
    return RawParticle(
        name=name,
        energy_eV=energy_eV.astype(np.float64),
        optical_density=density,
        xray_pixel_size_nm=number(xray, "pixel_size_nm", path),
        lattice=lattice,
        reference_nm=reference_nm,
        source=str(path),
    )


def _group(parent: h5py.Group, key: str, path: Path) -> h5py.Group:
    found = parent.get(key)
    if not isinstance(found, h5py.Group):
        raise InputError(f"{path}: {parent.name.rstrip('/')}/{key} is missing; it must be a group")
    return found


def _numbers(group: h5py.Group, key: str, rank: int, path: Path) -> Float:
    """A dataset of floating-point numbers in its own precision."""
    values = dataset(group, key, path)[...]
    if values.ndim != rank or not np.issubdtype(values.dtype, np.floating):
        raise InputError(
            f"{path}: {group.name}/{key} must be floating-point with {rank} axes, "
            f"got {values.dtype} of shape {values.shape}"
        )
    return np.asarray(values)
