"""Frames for ParaView: VTKHDF image data, one file an instant, and a list of them in time."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.arrays import Bool, Float
from chemomech.io.files import atomic_path

Scalar = TypeVar("Scalar", np.float32, np.uint8)

_HIDDEN_CELL = 32  # vtkDataSetAttributes::HIDDENCELL


def write_frame(
    path: Path,
    solid: Bool,
    spacing_nm: Float,
    point_data: Mapping[str, Float],
    cell_data: Mapping[str, Float],
) -> None:
    """Write one instant.

    Parameters
    ----------
    solid : (nx, ny, nz); other cells are hidden.
    point_data, cell_data : fields (nx + 1, ny + 1, nz + 1, ...) and (nx, ny, nz, ...), stored in single precision.
    """
    nx, ny, nz = solid.shape
    # Made in memory: HDF5 cannot give up a file when the disk is full, it takes the process down.
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        group = file.create_group("VTKHDF")
        group.attrs["Version"] = np.array([2, 1])
        group.attrs["Type"] = np.bytes_("ImageData")
        group.attrs["WholeExtent"] = np.array([0, nx, 0, ny, 0, nz])
        group.attrs["Origin"] = np.zeros(3)
        group.attrs["Spacing"] = np.asarray(spacing_nm, dtype=float)
        group.attrs["Direction"] = np.eye(3).ravel()
        hidden = np.where(solid, 0, _HIDDEN_CELL).astype(np.uint8)
        cells = group.create_group("CellData")
        cells.create_dataset("vtkGhostType", data=_z_first(hidden), compression="gzip", compression_opts=1)
        for place, fields in ((group.create_group("PointData"), point_data), (cells, cell_data)):
            for name, field in fields.items():
                values = _z_first(np.nan_to_num(field).astype(np.float32))
                place.create_dataset(name, data=values, compression="gzip", compression_opts=1, shuffle=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def write_series(path: Path, frames: Mapping[str, float]) -> None:
    """Write the list of frames (file names beside it) and their times in seconds."""
    files = [{"name": name, "time": time} for name, time in frames.items()]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"file-series-version": "1.0", "files": files}, indent=1) + "\n")


def _z_first(field: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    return np.ascontiguousarray(np.swapaxes(field, 0, 2))
