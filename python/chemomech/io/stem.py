"""Read lattice maps of 4D-STEM scans: py4DSTEM strain maps, HyperSpy signals and TIFF pages with a JSON sidecar."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from chemomech.arrays import Bool, Float
from chemomech.errors import InputError
from chemomech.io.hdf5 import existing, open_hdf5, text
from chemomech.io.microscopes import (
    read_array,
    read_sidecar,
    read_signals,
    read_tiff,
    sidecar_number,
    unit_scale,
)
from chemomech.observe.diffraction import LatticeMaps
from chemomech.observe.strain import lattice_distortion

#: Pages that make a lattice map, by their names in a sidecar; a fourth set would need its sign convention here.
_PAGES = {
    "lattice": ("a", "c", "gamma", "theta"),
    "strain": ("eps_aa", "eps_cc", "gamma", "theta"),
    "pyxem": ("e11", "e22", "e12", "theta"),
}
_QUANTITY = {"a": "length", "c": "length", "gamma": "angle", "theta": "angle"}


def read_stem(
    path: str | Path,
    *,
    reference_nm: tuple[float, float] | None = None,
    region: Bool | None = None,
    dataset: str | None = None,
) -> LatticeMaps:
    """Lattice maps of a scan.

    **py4DSTEM** (0.14, EMD 1.0 in HDF5). A `StrainMap` is an array group whose slices e_xx, e_yy, e_xy, theta and mask
    (exx, eyy, exy in its first releases) are found by name; the pixel size is `R_pixel_size` of the calibration in the
    file's root. py4DSTEM counts x along the first array axis (our y, crystal c) and y along the second (our x, crystal
    a), so with its displacement (U, V) ours is u = V, v = U. It fits g' = B g to the reciprocal vectors; since
    B = F^-T = 1 - (grad U)^T to first order, its

        e_xx = 1 - B_xx = dU/dX = dv/dy                      -> eps_cc
        e_yy = 1 - B_yy = dV/dY = du/dx                      -> eps_aa
        e_xy = -(B_xy + B_yx) / 2 = (dU/dY + dV/dX) / 2      -> gamma = 2 e_xy
        theta = (B_xy - B_yx) / 2 = (dU/dY - dV/dX) / 2
              = (dv/dx - du/dy) / 2                          -> theta, with the same sign

    e_xy is the tensor shear. The exchange of the axes mirrors the plane, and so turns py4DSTEM's clockwise theta into a
    counter-clockwise one. Its angle between scan and detector has to be calibrated there, and `get_strain` called with
    `coordinate_rotation=0`: the file does not tell.

    **TIFF, HyperSpy and whatever else rosettasciio reads**: a stack (n, ny, nx) whose pages are named by a JSON file of
    the same name beside it,

        {"channels": ["a", "c", "gamma", "theta"], "pixel_size_nm": 12.5,
         "units": {"a": "angstrom", "c": "angstrom", "gamma": "rad", "theta": "deg"}}

    in any order, optionally with a page "mask"; without it a pixel that is NaN on any page is outside. "units" names
    the unit of every length and angle, `pixel_size_nm` may be left to the axes of a signal that has them in a
    length. "eps_aa" and "eps_cc" in place of "a" and "c" are strains. "e11", "e22", "e12", "theta" (rad) are the maps
    of pyxem's `get_strain_maps`: it counts as we do, but its e12 is that of the reciprocal lattice, gamma = -2 e12.

    Parameters
    ----------
    path : the file.
    reference_nm : a and c of LiFePO4 in nm, for files with lattice parameters.
    region : (ny, nx) bool, pixels of LiFePO4, whose median lattice becomes the reference in place of the file's own.
        The lattice rotation has no other natural zero.
    dataset : path of the strain map inside an HDF5 file that holds several.

    Raises
    ------
    InputError : the file is missing, broken, or not of one of these layouts; no reference where one is needed.

    >>> read_stem("P1.h5", region=lithiated).distortion.shape  # doctest: +SKIP
    (47, 96, 4)
    """
    path = existing(path)
    if reference_nm is not None and region is not None:
        raise InputError(f"{path}: give reference_nm or region, not both; each of them sets the reference")
    if path.suffix.lower() in (".tif", ".tiff"):
        maps = _read_pages(path, read_tiff(path), None, reference_nm, region)
    elif _is_py4dstem(path):
        if reference_nm is not None:
            raise InputError(f"{path}: holds strains, which reference_nm cannot change; give region, or neither")
        maps = _read_py4dstem(path, dataset)
    else:
        maps = _read_hyperspy(path, reference_nm, region)
    return maps if region is None else maps.relative_to(region)


def _is_py4dstem(path: Path) -> bool:
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return "emd_group_type" in file.attrs or any(
            "emd_group_type" in group.attrs for group in file.values() if isinstance(group, h5py.Group)
        )


def _read_py4dstem(path: Path, dataset: str | None) -> LatticeMaps:
    with open_hdf5(path) as file:
        found = _strain_maps(file)
        if dataset is not None and dataset.strip("/") not in found:
            raise InputError(f"{path}: {dataset} is not a strain map; found {', '.join(found) or 'none'}")
        if dataset is None and len(found) != 1:
            raise InputError(
                f"{path}: needs one array with slices e_xx, e_yy, e_xy, theta and mask, "
                f"found {', '.join(found) or 'none'}" + ("; choose one with dataset" if found else "")
            )
        name = dataset.strip("/") if dataset is not None else next(iter(found))
        labels = found[name]
        data = read_array(file[name], "data", path, rank=3)
        if len(data) != len(labels):
            raise InputError(f"{path}: /{name}/data has {len(data)} slices, but {len(labels)} labels")
        slices = dict(zip(labels, data, strict=True))
        mask = slices["mask"] > 0.5
        distortion = np.stack([slices["eyy"], slices["exx"], 2 * slices["exy"], slices["theta"]], axis=-1)
        distortion[~mask] = np.nan
        pixel_size = _py4dstem_pixel_size(file, name.split("/")[0], path)
    return LatticeMaps(pixel_size_nm=pixel_size, mask=mask, distortion=distortion, source=str(path))


def _strain_maps(file: h5py.File) -> dict[str, list[str]]:
    """Paths of the strain maps of a file, with the labels of their slices, underscores left out."""
    found = {}

    def visit(name: str, group: Any) -> None:
        if not isinstance(group, h5py.Group) or text(group.attrs.get("emd_group_type", "")) != "array":
            return
        for dim in group.values():
            if isinstance(dim, h5py.Dataset) and text(dim.attrs.get("name", "")) == "_labels_":
                labels = [text(label).replace("_", "") for label in dim[()]]
                if {"exx", "eyy", "exy", "theta", "mask"} <= set(labels):
                    found[name] = labels

    file.visititems(visit)
    return found


def _py4dstem_pixel_size(file: h5py.File, root: str, path: Path) -> float:
    where = f"/{root}/metadatabundle/calibration"
    calibration = file.get(where)
    if not isinstance(calibration, h5py.Group) or "R_pixel_size" not in calibration:
        raise InputError(f"{path}: {where}/R_pixel_size is missing; calibrate the scan in py4DSTEM and save it again")
    units = text(calibration["R_pixel_units"]) if "R_pixel_units" in calibration else None
    scale = unit_scale(units, quantity="length", where=f"{path}: {where}/R_pixel_size")
    return scale * float(read_array(calibration, "R_pixel_size", path, rank=0))


def _read_hyperspy(path: Path, reference_nm: tuple[float, float] | None, region: Bool | None) -> LatticeMaps:
    stacks = [signal for signal in read_signals(path) if signal.data.ndim == 3]
    if len(stacks) != 1:
        raise InputError(f"{path}: needs one signal of shape (n, ny, nx), found {len(stacks)} signals with three axes")
    (signal,) = stacks
    if signal.data.dtype.kind not in "iufb":
        raise InputError(f"{path}: must hold real numbers, got {signal.data.dtype}")
    sizes = []
    for axis in signal.axes[1:]:
        if len(axis.values) > 1 and axis.units not in ("", "<undefined>"):
            where = f"{path}: axis {axis.name}"
            sizes.append(abs(axis.values[1] - axis.values[0]) * unit_scale(axis.units, quantity="length", where=where))
    if sizes and not np.allclose(sizes, sizes[0], rtol=1e-3):
        raise InputError(f"{path}: pixels must be square, got {' by '.join(f'{size:g}' for size in sizes)} nm")
    data = np.asarray(signal.data, dtype=np.float64)
    return _read_pages(path, data, float(sizes[0]) if sizes else None, reference_nm, region)


def _read_pages(
    path: Path,
    pages: Float,
    pixel_size_nm: float | None,
    reference_nm: tuple[float, float] | None,
    region: Bool | None,
) -> LatticeMaps:
    """Maps of pages (n, ny, nx) named by the sidecar; the sidecar's pixel size goes before that of the axes."""
    entries = read_sidecar(path, required={"channels"}, optional={"units", "pixel_size_nm"})
    sidecar = path.with_suffix(".json")
    channels, units = entries["channels"], entries.get("units", {})
    if not isinstance(channels, list) or len(channels) != len(pages):
        raise InputError(f"{sidecar}: channels must name the {len(pages)} pages of {path.name}, got {channels!r}")
    if not isinstance(units, dict):
        raise InputError(f"{sidecar}: units must be an object such as {{'a': 'angstrom'}}, got {units!r}")
    named = sorted(str(name) for name in channels if name != "mask")
    kind = next((kind for kind, names in _PAGES.items() if named == sorted(names)), None)
    if kind is None:
        choices = " or ".join(", ".join(names) for names in _PAGES.values())
        raise InputError(f"{sidecar}: channels must be {choices}, each with or without mask, got {channels!r}")
    if "pixel_size_nm" in entries:
        pixel_size_nm = sidecar_number(entries, "pixel_size_nm", path)
    if pixel_size_nm is None:
        raise InputError(f"{sidecar}: pixel_size_nm is missing, and {path.name} does not tell it either")
    fields = dict(zip(channels, pages, strict=True))
    mask = np.asarray(fields["mask"] > 0.5 if "mask" in fields else np.isfinite(pages).all(axis=0))
    if kind == "pyxem":
        stretch_a, stretch_c, shear, rotation = fields["e11"], fields["e22"], -2 * fields["e12"], fields["theta"]
        distortion = np.stack([stretch_a, stretch_c, shear, rotation], axis=-1)
    else:
        for name in (name for name in _PAGES[kind] if name in _QUANTITY):
            fields[name] = fields[name] * unit_scale(
                units.get(name), quantity=_QUANTITY[name], where=f"{sidecar}: units of {name}"
            )
    if kind == "strain":
        distortion = np.stack([fields[name] for name in _PAGES[kind]], axis=-1)
    if kind == "lattice":
        if reference_nm is None and region is None:
            raise InputError(f"{path}: holds lattice parameters; give reference_nm (a, c) of LiFePO4, or region")
        a_nm, c_nm = (1.0, 1.0) if reference_nm is None else reference_nm  # region will replace what 1 nm stands for
        maps = (fields[name] for name in _PAGES[kind])
        distortion = lattice_distortion(*maps, a_reference_nm=a_nm, c_reference_nm=c_nm)
    elif reference_nm is not None:
        raise InputError(f"{path}: holds strains, which reference_nm cannot change; give region, or neither")
    distortion[~mask] = np.nan
    return LatticeMaps(pixel_size_nm=pixel_size_nm, mask=mask, distortion=distortion, source=str(path))
