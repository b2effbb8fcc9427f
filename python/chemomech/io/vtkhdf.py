"""Frames for ParaView: VTKHDF image data, one file an instant, and a list of them in time."""

import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from chemomech.arrays import Bool, Float
from chemomech.io.blocks import Block, write_blocks
from chemomech.io.files import atomic_path
from chemomech.mechanics.box import Box

_HIDDEN_CELL = 32  # vtkDataSetAttributes::HIDDENCELL


def write_frame(
    path: Path,
    box: Box,
    solid: Bool,
    spacing_nm: Float,
    point_data: Mapping[str, Float],
    cell_data: Mapping[str, Float],
) -> None:
    """Write one instant; all boxes of a grid call together.

    Parameters
    ----------
    solid : (nx, ny, nz) of the box; other cells are hidden.
    point_data, cell_data : fields (nx + 1, ny + 1, nz + 1, ...) and (nx, ny, nz, ...), stored in single precision.
    """
    nx, ny, nz = box.whole.cells

    def head(file: h5py.File) -> None:
        group = file.create_group("VTKHDF")
        group.attrs["Version"] = np.array([2, 1])
        group.attrs["Type"] = np.bytes_("ImageData")
        group.attrs["WholeExtent"] = np.array([0, nx, 0, ny, 0, nz])
        group.attrs["Origin"] = np.zeros(3)
        group.attrs["Spacing"] = np.asarray(spacing_nm, dtype=float)
        group.attrs["Direction"] = np.eye(3).ravel()

    hidden = np.where(solid, 0, _HIDDEN_CELL).astype(np.uint8)
    blocks = {"VTKHDF/CellData/vtkGhostType": Block.of_cells(box, hidden).c_first()}
    for place, fields, block in (
        ("PointData", point_data, Block.of_corners),
        ("CellData", cell_data, Block.of_cells),
    ):
        for name, field in fields.items():
            blocks[f"VTKHDF/{place}/{name}"] = block(box, np.nan_to_num(field).astype(np.float32)).c_first()
    write_blocks(path, box, blocks, head, compression="gzip", compression_opts=1, shuffle=True)


def write_series(path: Path, frames: Mapping[str, float]) -> None:
    """Write the list of frames (file names beside it) and their times in seconds."""
    files = [{"name": name, "time": time} for name, time in frames.items()]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"file-series-version": "1.0", "files": files}, indent=1) + "\n")
