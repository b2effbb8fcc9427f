"""Read and write aligned correlative maps (schema correlative-stack/1, HDF5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.io.files import atomic_path
from chemomech.observe.maps import CHANNELS, CorrelativeMaps
from chemomech.observe.strain import lattice_distortion
from chemomech.units import to_internal

SCHEMA = "correlative-stack/1"
_QUANTITY = {"composition": "fraction", "a": "length", "c": "length", "gamma": "angle", "theta": "angle"}
_CHANNELS = ("composition", *CHANNELS)
_ANGSTROM_NM = 0.1


def read_stack(path: str | Path) -> list[CorrelativeMaps]:
    """Particles of a correlative-stack/1 file.

    Beside the maps a particle may hold their standard deviations `composition_std`, `a_std`, `c_std`, `gamma_std`,
    `theta_std`, in the same units.

    Raises
    ------
    InputError : the file cannot be read, has another schema, or a particle is incomplete or unusable.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        with h5py.File(path) as file:
            schema = file.attrs.get("schema")
            if schema != SCHEMA:
                raise InputError(f"{path}: schema is {_text(schema)}, expected {SCHEMA!r}")
            group = file.get("particles")
            if not isinstance(group, h5py.Group) or not len(group):
                raise InputError(f"{path}: /particles is missing or empty; it holds one group per particle")
            return [_read_particle(group[name], name, path) for name in group]
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file ({error})") from error


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
            a_reference, c_reference = maps.reference_angstrom
            group.attrs.update(pixel_size_nm=maps.pixel_size_nm, a_ref_angstrom=a_reference, c_ref_angstrom=c_reference)
            group.attrs.update((attributes or {}).get(maps.name, {}))
            aa, cc, shear, rotation = np.moveaxis(maps.distortion, -1, 0)
            fields = {
                "composition": (maps.composition, "1"),
                "a": (a_reference * (1 + aa), "angstrom"),
                "c": (c_reference * (1 + cc), "angstrom"),
                "gamma": (shear, "rad"),
                "theta": (rotation, "rad"),
            }
            scale = {"composition": 1.0, "a": a_reference, "c": c_reference, "gamma": 1.0, "theta": 1.0}
            for (name, (_, units)), channel in zip(list(fields.items()), _CHANNELS, strict=True):
                if channel in maps.uncertainty:
                    fields[f"{name}_std"] = (scale[name] * maps.uncertainty[channel], units)
            for name, (values, units) in fields.items():
                group.create_dataset(name, data=values).attrs["units"] = units
            group.create_dataset("mask", data=maps.mask)


def _read_particle(group: h5py.Group, name: str, path: Path) -> CorrelativeMaps:
    where = f"{path}: /particles/{name}"
    mask = _dataset(group, "mask", where)
    if mask.dtype != bool and not np.isin(mask, (0, 1)).all():
        raise InputError(f"{where}/mask must be boolean, got {mask.dtype} values other than 0 and 1")
    mask = mask.astype(bool)
    pixel_size, a_reference, c_reference = (
        _attribute(group, key, where) for key in ("pixel_size_nm", "a_ref_angstrom", "c_ref_angstrom")
    )
    fields, deviations = {}, {}
    for key, quantity in _QUANTITY.items():
        fields[key] = _map(group, key, quantity, mask, where)
        if f"{key}_std" in group:
            deviations[key] = _map(group, f"{key}_std", quantity, mask, where)
    a_nm, c_nm = a_reference * _ANGSTROM_NM, c_reference * _ANGSTROM_NM
    try:
        distortion = lattice_distortion(
            fields["a"], fields["c"], fields["gamma"], fields["theta"], a_reference_nm=a_nm, c_reference_nm=c_nm
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    scale = {"composition": 1.0, "a": 1 / a_nm, "c": 1 / c_nm, "gamma": 1.0, "theta": 1.0}
    channel = dict(zip(scale, _CHANNELS, strict=True))
    return CorrelativeMaps(
        name=name,
        pixel_size_nm=pixel_size,
        mask=mask,
        composition=fields["composition"],
        distortion=distortion,
        reference_angstrom=(a_reference, c_reference),
        uncertainty={channel[key]: scale[key] * values for key, values in deviations.items()},
        source=str(path),
    )


def _map(group: h5py.Group, key: str, quantity: str, mask: np.ndarray, where: str) -> Float:
    values = _dataset(group, key, where)
    if values.shape != mask.shape:
        raise InputError(
            f"{where}/{key} has shape {values.shape}, but mask has {mask.shape}; "
            "every map of a particle must share one grid"
        )
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"{where}/{key} must hold floating-point numbers, got {values.dtype}")
    units = group[key].attrs.get("units")
    if units is None:
        raise InputError(f"{where}/{key} has no units attribute")
    scale = to_internal(_text(units).strip("'"), quantity=quantity, where=f"{where}/{key}")
    return np.asarray(values, dtype=np.float64) * scale


def _dataset(group: h5py.Group, key: str, where: str) -> np.ndarray:
    if not isinstance(group, h5py.Group) or not isinstance(group.get(key), h5py.Dataset):
        raise InputError(f"{where}/{key} is missing; a particle holds {', '.join(_QUANTITY)} and mask")
    return np.asarray(group[key][...])


def _attribute(group: h5py.Group, key: str, where: str) -> float:
    value = group.attrs.get(key)
    if value is None:
        raise InputError(f"{where} has no attribute {key}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: attribute {key} must be a number, got {value!r}") from None


def _text(value: object) -> str:
    return repr(value.decode() if isinstance(value, bytes) else value)
