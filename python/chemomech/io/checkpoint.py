"""Checkpoints of a simulation: whole or absent, checked when read, the one before kept, for any number of ranks."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.errors import InputError
from chemomech.io.blocks import Block, is_whole, remove, write_blocks
from chemomech.mechanics.box import Box

log = logging.getLogger(__name__)

_KEPT = 2
_STATE, _CELLS, _CORNERS = "state", "cells", "corners"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint holds of one box.

    Attributes
    ----------
    state : what JSON can hold; numbers come back to the last bit.
    cells, corners : arrays (nx, ny, nz, ...) of the cells and (nx + 1, ny + 1, nz + 1, ...) of their corners.
    """

    state: Mapping[str, Any]
    cells: Mapping[str, npt.NDArray[Any]]
    corners: Mapping[str, npt.NDArray[Any]]


def write_checkpoint(folder: Path, step: int, box: Box, checkpoint: Checkpoint) -> None:
    """Write checkpoint-<step>.h5 into a folder and remove all but the newest two; all boxes call together.

    Raises
    ------
    InputError : it cannot be written, as on a full disk; those before stay.
    """

    def head(file: h5py.File) -> None:
        file[_STATE] = json.dumps(checkpoint.state)

    blocks = {f"{_CELLS}/{name}": Block.of_cells(box, values) for name, values in checkpoint.cells.items()}
    blocks |= {f"{_CORNERS}/{name}": Block.of_corners(box, values) for name, values in checkpoint.corners.items()}
    write_blocks(folder / f"checkpoint-{step:09d}.h5", box, blocks, head, sealed=True)
    if box.leads:
        for old in checkpoints(folder)[_KEPT:]:
            remove(old)


def read_checkpoint(folder: Path, box: Box) -> Checkpoint:
    """What the newest checkpoint that is whole holds of a box; all boxes call together.

    Raises
    ------
    InputError : there is none, or it is one of another grid.
    """
    nx, ny, nz = box.whole.cells
    for path in box.from_first(checkpoints(folder)):
        if not is_whole(path, box):
            log.warning("warning: %s is damaged; going back to the one before", path)
            continue
        with h5py.File(path, "r") as file:
            cells, corners = (
                {name: _part(path, dataset, shape, window) for name, dataset in file.get(group, {}).items()}
                for group, shape, window in (
                    (_CELLS, (nx, ny, nz), box.window),
                    (_CORNERS, (nx + 1, ny + 1, nz + 1), box.corner_window),
                )
            )
            return Checkpoint(json.loads(file[_STATE].asstr()[()]), cells, corners)
    raise InputError(f"{folder}: holds no checkpoint that is whole; begin anew in another folder")


def _part(
    path: Path, dataset: h5py.Dataset, shape: tuple[int, int, int], window: tuple[slice, ...]
) -> npt.NDArray[Any]:
    if dataset.shape[:3] != shape:
        found = " x ".join(map(str, dataset.shape[:3]))
        raise InputError(f"{path}: is of another grid: {found} for {' x '.join(map(str, shape))}")
    return np.asarray(dataset[window])


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files of a folder, newest first."""
    return sorted(folder.glob("checkpoint-*.h5"), reverse=True)
