"""Read X-ray energy stacks (NXstxm, MANTiS, HyperSpy, TIFF with a JSON sidecar) and reference spectra (CSV)."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from chemomech.arrays import Bool, Float, require_shape
from chemomech.errors import InputError
from chemomech.io.hdf5 import existing, open_hdf5, text
from chemomech.io.microscopes import (
    read_array,
    read_sidecar,
    read_signals,
    read_tiff,
    sidecar_number,
    sidecar_numbers,
    unit_scale,
)

#: Stage positions may miss a regular grid of square pixels by this part of a pixel.
_GRID_TOLERANCE = 0.1


@dataclass(frozen=True)
class EnergyStack:
    """Images of one field of view at several photon energies.

    Attributes
    ----------
    energy_eV : (m,) strictly ascending, eV.
    optical_density : (m, ny, nx), ln(I0 / I); NaN where no photon was counted. The readers load it; an h5py dataset,
        which is read slice by slice, serves as well.
    pixel_size_nm : edge of a square pixel, nm.
    source : where the stack came from, for messages and reports.

    Raises
    ------
    InputError : shapes differ, energies are not finite and ascending, the pixel size is not positive.
    """

    energy_eV: Float
    optical_density: Float | h5py.Dataset
    pixel_size_nm: float
    source: str = "memory"

    def __post_init__(self) -> None:
        require_shape(self.energy_eV, f"{self.source}: energy_eV", (None,))
        _require_ascending(self.energy_eV, f"{self.source}: energy")
        require_shape(self.optical_density, f"{self.source}: optical_density", (len(self.energy_eV), None, None))
        if not (np.isfinite(self.pixel_size_nm) and self.pixel_size_nm > 0):
            raise InputError(f"{self.source}: pixel_size_nm must be positive, got {self.pixel_size_nm}")


def read_energy_stack(
    path: str | Path, *, incident: Float | Bool | None = None, dataset: str | None = None
) -> EnergyStack:
    """Energy stack of a file, as optical density ln(I0 / I).

    **NXstxm** (NeXus): the NXdata group of the entry whose `definition` is NXstxm, with data, energy (or
    photon_energy), sample_x and sample_y; the order of the axes is that of the group's `axes`, or of the older `axis`
    attributes, or (energy, sample_y, sample_x) as defined. The data are counts, so `incident` is needed.

    **MANTiS** (Data Exchange): /exchange/{data (x, y, energy), energy, x, y} holds counts. The optical density that
    MANTiS stored with them is taken when there is one; otherwise /spectromicroscopy/normalization/white_spectrum,
    interpolated linearly, is I0; otherwise `incident`. MANTiS writes x and y without units and shows them in um, which
    is what they are taken for here; an energy without units is in eV.

    **TIFF**: one page per energy, described by a JSON file of the same name beside it,

        {"pixel_size_nm": 20, "energy_eV": [706.2, 708.1, 710.4], "quantity": "optical_density"}

    where quantity may also be "transmission" (I / I0) or "intensity", the latter with "incident": [I0, ...] or with
    `incident` here.

    **HyperSpy and whatever else rosettasciio reads**: the one signal with an axis in eV or keV and two in a length.
    Its values are optical densities when the metadata's `Signal.quantity` says so, otherwise counts.

    NXstxm and MANTiS give stage positions: rows are returned growing with +y and columns with +x.

    Parameters
    ----------
    path : the file.
    incident : I0 for files with counts: (m,) at the energies of the stack, or (ny, nx) bool, pixels beside the sample,
        whose mean at every energy is taken (in the orientation of the returned stack).
    dataset : path of the NXdata group in an NXstxm file with several detectors or entries.

    Raises
    ------
    InputError : the file is missing, broken, or not of one of these layouts; counts without an incident intensity;
        energies that do not ascend, pixels that are not square.

    >>> read_energy_stack("P1.hdf5").optical_density.shape  # doctest: +SKIP
    (40, 128, 128)
    """
    path = existing(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(path, incident)
    if path.is_file() and h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            if "exchange" in file:
                return _read_exchange(file, path, incident)
            entries = _nxstxm_entries(file)
            if entries:
                return _read_nxstxm(entries, path, incident, dataset)
    return _read_hyperspy(path, incident)


def read_spectrum(path: str | Path) -> tuple[Float, dict[str, Float]]:
    """Spectra of a text file: energy in eV in the first column, one spectrum in each of the others.

    Columns are separated by commas, semicolons, tabs or blanks. What follows a # is ignored; a first line without a
    number names the columns, which are otherwise called "column 2" and so on.

    Returns
    -------
    energy_eV : (m,) strictly ascending.
    spectra : name to values (m,).

    Raises
    ------
    InputError : a row with other columns than the first, something that is not a finite number, or an energy that does
        not ascend, with the number of the line.

    >>> Path("reference.csv").write_text("energy_eV, LiFePO4\\n706.0, 0.1\\n707.0, 0.4\\n")  # doctest: +SKIP
    >>> read_spectrum("reference.csv")[1]["LiFePO4"]  # doctest: +SKIP
    array([0.1, 0.4])
    """
    path = existing(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable text file ({error})") from error
    rows = [(number, _fields(line)) for number, line in enumerate(lines, 1) if line.partition("#")[0].strip()]
    header: list[str] | None = None
    if rows and not any(_is_number(field) for field in rows[0][1]):
        header = rows.pop(0)[1]
        if "kev" in header[0].lower():
            raise InputError(f"{path}: column {header[0]!r} is in keV; the energy must be in eV")
    if not rows:
        raise InputError(f"{path}: holds no numbers; it needs an energy in eV and at least one spectrum a line")
    width = len(header if header is not None else rows[0][1])
    if width < 2:
        raise InputError(f"{path}: needs an energy and at least one spectrum a line, got {width} column")
    names = header[1:] if header is not None else [f"column {number}" for number in range(2, width + 1)]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: column names must differ, got {', '.join(names)}")
    table = np.empty((len(rows), width))
    for values, (number, fields) in zip(table, rows, strict=True):
        if len(fields) != width:
            raise InputError(f"{path}: line {number} has {len(fields)} columns, expected {width}")
        for column, field in enumerate(fields):
            if not _is_number(field) or not np.isfinite(float(field)):
                raise InputError(f"{path}: line {number}, column {column + 1}: {field!r} is not a finite number")
            values[column] = float(field)
    energy = table[:, 0]
    for (number, _), before, after in zip(rows[1:], energy[:-1], energy[1:], strict=True):
        if after <= before:
            raise InputError(f"{path}: line {number}: energy {after:g} eV must be larger than the {before:g} eV before")
    return energy.copy(), {name: values.copy() for name, values in zip(names, table.T[1:], strict=True)}


def _fields(line: str) -> list[str]:
    content = line.partition("#")[0].strip()
    separator = next((mark for mark in ";,\t" if mark in content), None)
    return [field.strip().strip('"') for field in content.split(separator)]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _nxstxm_entries(file: h5py.File) -> list[h5py.Group]:
    return [
        group
        for group in file.values()
        if isinstance(group, h5py.Group) and "definition" in group and text(group["definition"]).strip() == "NXstxm"
    ]


def _read_nxstxm(
    entries: list[h5py.Group], path: Path, incident: Float | Bool | None, dataset: str | None
) -> EnergyStack:
    found = {
        group.name: group
        for entry in entries
        for group in entry.values()
        if isinstance(group, h5py.Group) and text(group.attrs.get("NX_class", "")) == "NXdata"
    }
    if dataset is not None:
        if f"/{dataset.strip('/')}" not in found:
            raise InputError(f"{path}: {dataset} is not an NXdata group; found {', '.join(found) or 'none'}")
        found = {dataset: found[f"/{dataset.strip('/')}"]}
    if len(found) != 1:
        raise InputError(f"{path}: needs one NXdata group, found {', '.join(found) or 'none'}; choose one with dataset")
    (group,) = found.values()
    names = ("energy" if "energy" in group else "photon_energy", "sample_y", "sample_x")
    energy = _calibrated(group, names[0], path, quantity="energy", assumed=None)
    y, x = (_calibrated(group, name, path, quantity="length", assumed=None) for name in names[1:])
    signal = text(group.attrs.get("signal", "data"))
    data = read_array(group, signal, path, rank=3).transpose(_nxstxm_order(group, names, path))
    return _stack_of_counts(data, energy, y, x, incident, path, f"{path}: {group.name}/{signal}")


def _nxstxm_order(group: h5py.Group, names: tuple[str, ...], path: Path) -> list[int]:
    """Axes of the stored data in the order energy, y, x."""
    if "axes" in group.attrs:
        stored = [text(name) for name in np.atleast_1d(group.attrs["axes"])]
        if sorted(stored) != sorted(names):
            raise InputError(f"{path}: {group.name} has axes {', '.join(stored)}, expected {', '.join(names)}")
        return [stored.index(name) for name in names]
    if all("axis" in group[name].attrs for name in names):
        order = [int(group[name].attrs["axis"]) - 1 for name in names]
        if sorted(order) != [0, 1, 2]:
            raise InputError(f"{path}: {group.name} has axis attributes {[n + 1 for n in order]}, expected 1, 2 and 3")
        return order
    return [0, 1, 2]


def _read_exchange(file: h5py.File, path: Path, incident: Float | Bool | None) -> EnergyStack:
    group = file["exchange"]
    energy = _calibrated(group, "energy", path, quantity="energy", assumed="eV")
    x, y = (_calibrated(group, name, path, quantity="length", assumed="um") for name in "xy")
    stored = file.get("spectromicroscopy/optical_density")
    if isinstance(stored, h5py.Dataset) and incident is None:
        density = read_array(file["spectromicroscopy"], "optical_density", path, rank=3).transpose(2, 1, 0)
        density, size = _oriented(density, energy, y, x, f"{path}: {stored.name}")
        return EnergyStack(energy, density, size, source=str(path))
    normalization = file.get("spectromicroscopy/normalization")
    if isinstance(normalization, h5py.Group) and incident is None:
        incident = _white_spectrum(normalization, energy, path)
    data = read_array(group, "data", path, rank=3).transpose(2, 1, 0)
    return _stack_of_counts(data, energy, y, x, incident, path, f"{path}: /exchange/data")


def _white_spectrum(group: h5py.Group, energy: Float, path: Path) -> Float:
    """Incident intensity at the energies of the stack."""
    white = read_array(group, "white_spectrum", path, rank=1)
    at = _calibrated(group, "white_spectrum_energy", path, quantity="energy", assumed="eV")
    where = f"{path}: {group.name}/white_spectrum_energy"
    if len(at) != len(white):
        raise InputError(f"{where} has {len(at)} energies, but white_spectrum {len(white)} values")
    _require_ascending(at, where)
    if energy.min() < at[0] or energy.max() > at[-1]:
        raise InputError(
            f"{where} spans {at[0]:g} to {at[-1]:g} eV, but the stack {energy.min():g} to {energy.max():g} eV"
        )
    return np.asarray(np.interp(energy, at, white))


def _calibrated(group: h5py.Group, key: str, path: Path, *, quantity: str, assumed: str | None) -> Float:
    """Coordinates along one axis in nm or eV; `assumed` is the unit of a dataset that names none."""
    values = read_array(group, key, path, rank=1)
    unit = group[key].attrs.get("units", assumed)
    return values * unit_scale(unit, quantity=quantity, where=f"{path}: {group.name}/{key}")


def _read_tiff(path: Path, incident: Float | Bool | None) -> EnergyStack:
    entries = read_sidecar(path, required={"pixel_size_nm", "energy_eV", "quantity"}, optional={"incident"})
    sidecar = path.with_suffix(".json")
    quantity, energy = entries["quantity"], sidecar_numbers(entries, "energy_eV", path)
    if quantity not in ("optical_density", "transmission", "intensity"):
        raise InputError(f"{sidecar}: quantity must be optical_density, transmission or intensity, got {quantity!r}")
    if "incident" in entries:
        if quantity != "intensity" or incident is not None:
            raise InputError(f"{sidecar}: incident belongs to the quantity intensity, and is given once")
        incident = sidecar_numbers(entries, "incident", path)
    pages = read_tiff(path)
    if len(energy) != len(pages):
        raise InputError(f"{sidecar}: energy_eV has {len(energy)} values, but {path.name} has {len(pages)} pages")
    if quantity != "intensity":
        _refuse_incident(incident, path, quantity)
    if quantity == "transmission":
        incident = np.ones(len(pages))
    density = pages if quantity == "optical_density" else _optical_density(pages, incident, str(path))
    return EnergyStack(energy, density, sidecar_number(entries, "pixel_size_nm", path), source=str(path))


def _read_hyperspy(path: Path, incident: Float | Bool | None) -> EnergyStack:
    stacks, found = [], []
    for signal in read_signals(path):
        found.append(f"{signal.title or 'untitled'} with axes in {', '.join(a.units or 'pixels' for a in signal.axes)}")
        energies = [number for number, axis in enumerate(signal.axes) if axis.units.lower() in ("ev", "kev")]
        if signal.data.ndim == 3 and len(energies) == 1:
            stacks.append((signal, energies[0]))
    if len(stacks) != 1:
        raise InputError(
            f"{path}: needs one signal with three axes, one of them in eV or keV, found {'; '.join(found) or 'none'}"
        )
    ((signal, first),) = stacks
    if signal.data.dtype.kind not in "iufb":
        raise InputError(f"{path}: {signal.title} must hold real numbers, got {signal.data.dtype}")
    order = [first, *(number for number in range(3) if number != first)]
    axes = [signal.axes[number] for number in order]
    energy, y, x = (
        axis.values * unit_scale(axis.units, quantity=quantity, where=f"{path}: axis {axis.name}")
        for axis, quantity in zip(axes, ("energy", "length", "length"), strict=True)
    )
    data = np.asarray(signal.data, dtype=np.float64).transpose(order)
    size = _pixel_size(y, x, f"{path}: {signal.title}")
    if signal.quantity.lower().replace("_", " ").startswith("optical density"):
        _refuse_incident(incident, path, "optical_density")
        return EnergyStack(energy, data, size, source=str(path))
    return EnergyStack(energy, _optical_density(data, incident, str(path)), size, source=str(path))


def _stack_of_counts(
    counts: Float, energy: Float, y: Float, x: Float, incident: Float | Bool | None, path: Path, where: str
) -> EnergyStack:
    """Stack of counts (energy, y, x) at stage positions y, x in nm."""
    counts, size = _oriented(counts, energy, y, x, where)
    return EnergyStack(energy, _optical_density(counts, incident, where), size, source=str(path))


def _oriented(data: Float, energy: Float, y: Float, x: Float, where: str) -> tuple[Float, float]:
    """Data (energy, y, x) with rows growing with y and columns with x, and the pixel size."""
    if data.shape != (len(energy), len(y), len(x)):
        raise InputError(
            f"{where} has {' x '.join(map(str, data.shape))} values along energy, y and x, "
            f"but there are {len(energy)} energies, {len(y)} y and {len(x)} x"
        )
    size = _pixel_size(y, x, where)
    data = data[:, :: -1 if y[-1] < y[0] else 1, :: -1 if x[-1] < x[0] else 1]
    return np.ascontiguousarray(data), size


def _pixel_size(y: Float, x: Float, where: str) -> float:
    """Edge (nm) of the square pixels of a regular grid of positions, of which at least one direction has two."""
    steps = [(values[-1] - values[0]) / (len(values) - 1) for values in (y, x) if len(values) > 1]
    size = abs(steps[0]) if steps else 0.0
    if not (np.isfinite(steps).all() and size > 0 and np.isclose(np.abs(steps), size, rtol=1e-2).all()):
        raise InputError(f"{where}: pixels must be square, got steps of {' and '.join(f'{s:g}' for s in steps)} nm")
    for values in (y, x):
        regular = np.linspace(values[0], values[-1], len(values))
        if not np.abs(values - regular).max() < _GRID_TOLERANCE * size:
            raise InputError(f"{where}: positions must be evenly spaced to {_GRID_TOLERANCE:g} of {size:g} nm")
    return float(size)


def _optical_density(intensity: Float, incident: Float | Bool | None, where: str) -> Float:
    """ln(I0 / I) of intensities (m, ny, nx); NaN where I is not positive."""
    if incident is None:
        raise InputError(
            f"{where} holds intensities without the incident one; give incident, (m,) values or a (ny, nx) bool map of "
            "pixels beside the sample"
        )
    if incident.dtype == bool:
        require_shape(incident, f"{where}: incident", intensity.shape[1:])
        if not incident.any():
            raise InputError(f"{where}: incident marks no pixel; it needs some beside the sample")
        beam = np.asarray(intensity[:, incident].mean(axis=1))
    else:
        beam = np.asarray(incident, dtype=np.float64)
    require_shape(beam, f"{where}: incident", intensity.shape[:1])
    if not (np.isfinite(beam) & (beam > 0)).all():
        raise InputError(f"{where}: the incident intensity must be positive at every energy")
    return np.asarray(np.log(beam[:, None, None] / np.where(intensity > 0, intensity, np.nan)))


def _refuse_incident(incident: Float | Bool | None, path: Path, quantity: str) -> None:
    if incident is not None:
        raise InputError(f"{path}: holds {quantity}, which needs no incident intensity; leave it out")


def _require_ascending(energy: Float, where: str) -> None:
    if not len(energy) or not np.isfinite(energy).all():
        raise InputError(
            f"{where} must be finite, got {np.count_nonzero(~np.isfinite(energy))} of {len(energy)} that are not"
        )
    wrong = np.flatnonzero(np.diff(energy) <= 0)
    if len(wrong):
        before, after = energy[wrong[0] : wrong[0] + 2]
        raise InputError(f"{where} must ascend, got {after:g} eV after {before:g} eV at entry {wrong[0] + 1}")
