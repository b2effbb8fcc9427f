"""What the readers of microscope files share: opening, units as instruments spell them, sidecars, optional packages."""

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.io.hdf5 import text
from chemomech.units import to_internal

#: Spellings met in instrument files: the unit `chemomech.units` knows, and the multiple of it.
_SPELLING = {"nanometer": ("nm", 1.0), "a": ("angstrom", 1.0), "Å": ("angstrom", 1.0), "ang": ("angstrom", 1.0)}
_SPELLING |= dict.fromkeys(("µm", "μm", "micron", "microns", "micrometer"), ("um", 1.0))
_SPELLING |= {"mm": ("um", 1e3), "m": ("um", 1e6), "radians": ("rad", 1.0), "degrees": ("deg", 1.0)}
_ENERGY_EV = {"ev": 1.0, "kev": 1e3}


@dataclass(frozen=True)
class Axis:
    """One axis of a signal: its name, its unit as written, and the coordinate of every pixel along it."""

    name: str
    units: str
    values: Float


@dataclass(frozen=True)
class Signal:
    """A signal as rosettasciio hands it out: data, one axis per dimension, title, and what the values are."""

    data: np.ndarray
    axes: tuple[Axis, ...]
    title: str
    quantity: str


def unit_scale(unit: object, *, quantity: str, where: str) -> float:
    """Factor from a unit as instruments write it to nm, rad or eV.

    Parameters
    ----------
    unit : text or bytes of the file, or None when it names none.
    quantity : "length", "angle" or "energy".
    where : file and dataset, for the message.

    Raises
    ------
    InputError : no unit, or one that is not known for the quantity.

    >>> unit_scale("keV", quantity="energy", where="scan.nxs")
    1000.0
    """
    if unit is None:
        raise InputError(f"{where} has no units attribute; a {quantity} without one cannot be used")
    name = text(unit).strip()
    if quantity == "energy":
        if name.lower() not in _ENERGY_EV:
            raise InputError(f"{where} has units {name!r}; an energy is stored in eV or keV")
        return _ENERGY_EV[name.lower()]
    known, multiple = _SPELLING.get(name, _SPELLING.get(name.lower(), (name, 1.0)))
    return multiple * to_internal(known, quantity=quantity, where=where)


def read_array(group: h5py.Group, key: str, path: Path, *, rank: int) -> Float:
    """A numeric dataset of the given rank as float64.

    Raises
    ------
    InputError : missing, another rank, or not numbers.
    """
    found, where = group.get(key), f"{path}: {group.name.rstrip('/')}/{key}"
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{where} is missing; its group holds {', '.join(group) or 'nothing'}")
    if found.ndim != rank or found.dtype.kind not in "iufb":
        raise InputError(f"{where} must hold numbers along {rank} axes, got {found.dtype} of shape {found.shape}")
    return np.asarray(found[()], dtype=np.float64)


def read_sidecar(path: Path, *, required: set[str], optional: set[str]) -> dict[str, Any]:
    """The JSON file of the same name beside an image file, with no other keys than the named ones.

    Raises
    ------
    InputError : no such file, not a JSON object, a required key missing or an unknown one present.
    """
    sidecar = path.with_suffix(".json")
    if not sidecar.exists():
        raise InputError(f"{path}: {sidecar.name} is missing beside it; it holds {', '.join(sorted(required))}")
    try:
        entries = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{sidecar}: not a JSON file ({error})") from error
    if not isinstance(entries, dict):
        raise InputError(f"{sidecar}: must hold one object, got {type(entries).__name__}")
    for key in sorted(required - entries.keys()):
        raise InputError(f"{sidecar}: {key} is missing; found {', '.join(sorted(entries)) or 'nothing'}")
    for key in sorted(entries.keys() - required - optional):
        raise InputError(f"{sidecar}: {key} is not a known key; known are {', '.join(sorted(required | optional))}")
    return entries


def sidecar_number(entries: dict[str, Any], key: str, path: Path) -> float:
    """A number of a sidecar."""
    value = entries[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{path.with_suffix('.json')}: {key} must be a number, got {value!r}")
    return float(value)


def sidecar_numbers(entries: dict[str, Any], key: str, path: Path) -> Float:
    """A list of numbers of a sidecar."""
    value = entries[key]
    if not isinstance(value, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise InputError(f"{path.with_suffix('.json')}: {key} must be a list of numbers, got {value!r}")
    return np.array(value, dtype=np.float64)


def read_tiff(path: Path) -> Float:
    """Pages of a TIFF file as (n, ny, nx); needs the package tifffile.

    Raises
    ------
    InputError : not readable, or the pages are not grey images of one size.
    """
    tifffile = _optional("tifffile", path)
    try:
        pages = tifffile.imread(path)
    except Exception as error:  # tifffile raises what its many decoders raise; all of it means a broken file
        raise InputError(f"{path}: not a readable TIFF file ({_one_line(error)})") from error
    pages = pages[None] if pages.ndim == 2 else pages
    if pages.ndim != 3 or pages.dtype.kind not in "iufb":
        raise InputError(f"{path}: must hold grey pages of one size, got {pages.dtype} of shape {pages.shape}")
    return np.asarray(pages, dtype=np.float64)


def read_signals(path: Path) -> list[Signal]:
    """Signals of a HyperSpy file, or of any other format rosettasciio reads for the file's extension.

    Raises
    ------
    InputError : rosettasciio is not installed, knows no such extension, or cannot read the file.
    """
    rsciio = _optional("rsciio", path, install="rosettasciio")
    extension = path.suffix[1:].lower()
    plugins = [plugin for plugin in rsciio.IO_PLUGINS if extension in map(str.lower, plugin["file_extensions"])]
    if not plugins:
        raise InputError(f"{path}: no reader for {path.suffix or 'a file without extension'}")
    refusals = []
    for plugin in plugins:  # several formats share an extension; each plugin refuses the others' files in its own way
        try:
            found = importlib.import_module(plugin["api"]).file_reader(str(path))
            return [_signal(entry) for entry in found]
        except Exception as error:
            refusals.append(f"{plugin['name']}: {_one_line(error)}")
    raise InputError(f"{path}: rosettasciio cannot read it ({'; '.join(refusals)})")


def _signal(entry: dict[str, Any]) -> Signal:
    metadata = entry.get("metadata", {})
    return Signal(
        data=np.asarray(entry["data"]),
        axes=tuple(_axis(axis) for axis in entry["axes"]),
        title=str(metadata.get("General", {}).get("title", "")),
        quantity=str(metadata.get("Signal", {}).get("quantity", "")),
    )


def _axis(entry: dict[str, Any]) -> Axis:
    """An axis is stored as its values, or as offset, scale and size."""
    values = entry["axis"] if "axis" in entry else entry["offset"] + entry["scale"] * np.arange(entry["size"])
    return Axis(
        name=str(entry.get("name", "")), units=str(entry.get("units", "")), values=np.array(values, dtype=np.float64)
    )


def _optional(module: str, path: Path, *, install: str | None = None) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = install or module
        raise InputError(f"{path}: reading it needs the package {package}; pip install {package}") from error


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
