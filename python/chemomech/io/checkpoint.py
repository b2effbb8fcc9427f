"""Checkpoints of a simulation: whole or absent, checked when read, the one before kept."""

import hashlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from chemomech.errors import InputError
from chemomech.io.files import atomic_path

log = logging.getLogger(__name__)

_MAGIC = b"chemomech checkpoint 1\n"
_KEPT = 2


def write_checkpoint(folder: Path, step: int, arrays: dict[str, Any]) -> None:
    """Write checkpoint-<step>.bin into a folder and remove all but the newest two.

    Parameters
    ----------
    arrays : what `read_checkpoint` shall return; arrays and numbers.

    Raises
    ------
    InputError : it cannot be written, as on a full disk; those before stay.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest().encode()
    with atomic_path(folder / f"checkpoint-{step:09d}.bin") as path, path.open("wb") as file:
        file.write(_MAGIC + digest + b"\n")
        file.write(content)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for old in checkpoints(folder)[_KEPT:]:
        old.unlink()


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest checkpoint that is whole.

    Raises
    ------
    InputError : there is none.
    """
    for path in checkpoints(folder):
        content = path.read_bytes()
        head = len(_MAGIC) + 65
        body = content[head:]
        if content.startswith(_MAGIC) and content[len(_MAGIC) : head - 1] == hashlib.sha256(body).hexdigest().encode():
            with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
                return dict(arrays)
        log.warning("warning: %s is damaged; going back to the one before", path)
    raise InputError(f"{folder}: holds no checkpoint to restart from")


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files of a folder, newest first."""
    return sorted(folder.glob("checkpoint-*.bin"), reverse=True)
