"""HDF5 as every reader here sees it: opened, checked and refused in the same words."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chemomech.errors import InputError


def existing(path: str | Path) -> Path:
    """The path, once something is there."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a file")
    return path


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The open file; what cannot be read of it, at once or later in the block, is refused in one line."""
    try:
        with h5py.File(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file ({error})") from error


def particle_groups(file: h5py.File, schema: str, path: Path) -> dict[str, h5py.Group]:
    """The groups of /particles in a file of the given schema.

    Raises
    ------
    InputError : another schema, or no particle.
    """
    found = file.attrs.get("schema")
    if found is None or text(found) != schema:
        told = "missing" if found is None else repr(text(found))
        raise InputError(f"{path}: schema is {told}, expected {schema!r}")
    group = file.get("particles")
    if not isinstance(group, h5py.Group) or not len(group):
        raise InputError(f"{path}: /particles is missing or empty; it holds one group per particle")
    particles = {name: group.get(name) for name in group}
    for name, particle in particles.items():
        if not isinstance(particle, h5py.Group):
            raise InputError(f"{path}: /particles/{name} must be a group, one per particle")
    return particles


def dataset(group: h5py.Group, key: str, path: Path) -> h5py.Dataset:
    """A dataset of a group, or a refusal that says what is there instead."""
    found = group.get(key)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{path}: {group.name}/{key} is missing; the group holds {', '.join(group) or 'nothing'}")
    return found


def number(group: h5py.Group, key: str, path: Path) -> float:
    """A numeric attribute of a group."""
    value = group.attrs.get(key)
    if value is None:
        raise InputError(f"{path}: {group.name} has no attribute {key}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{path}: {group.name}: {key} must be a number, got {text(value)!r}") from None


def text(value: Any) -> str:
    """Text of an attribute or a scalar dataset, whichever way the writer stored it."""
    if isinstance(value, h5py.Dataset):
        value = value[()]
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
