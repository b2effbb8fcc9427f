"""Arrays of a grid in HDF5: one file, or one for each box of the grid behind a file of virtual data sets.

HDF5 as pip installs it cannot write one file from many processes. Each box writes its own, into a folder NAME.parts,
and the first one writes NAME, which any reader of HDF5 opens as if all were in it.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.io.files import atomic_path
from chemomech.mechanics.box import Box

#: Bytes before the content of a sealed file: what HDF5 leaves to its user begins the file, in 512 bytes or more.
_SEAL = 512
#: Of the folder with the files of the boxes, beside the file that joins them.
_PARTS_SUFFIX = ".parts"
#: Dataset with the names of the boxes' files, and the SHA-256 of each.
_PARTS = "parts"


@dataclass(frozen=True, eq=False)
class Block:
    """What one box has of an array of the grid.

    Attributes
    ----------
    values : (nx, ny, nz, ...), its own.
    start : their place in the whole, along every axis.
    shape : of the whole.
    """

    values: npt.NDArray[Any]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of_cells(cls, box: Box, values: npt.NDArray[Any]) -> "Block":
        """Of values (nx, ny, nz, ...) of the cells."""
        return cls._placed(box, values, box.whole.cells)

    @classmethod
    def of_corners(cls, box: Box, values: npt.NDArray[Any]) -> "Block":
        """Of values (nx + 1, ny + 1, nz + 1, ...) of the corners of the cells."""
        nx, ny, nz = box.whole.cells
        # Each once: the last of a box are the next one's first.
        ends = (w.stop == total for w, total in zip(box.window, box.whole.cells, strict=True))
        own = tuple(slice(n + at_the_end) for n, at_the_end in zip(box.cells, ends, strict=True))
        return cls._placed(box, values[own], (nx + 1, ny + 1, nz + 1))

    @classmethod
    def _placed(cls, box: Box, values: npt.NDArray[Any], shape: tuple[int, ...]) -> "Block":
        beyond = values.shape[3:]
        return cls(values, (*box.start, *(0 for _ in beyond)), (*shape, *beyond))

    def c_first(self) -> "Block":
        """The same with axes c, b, a."""
        values = np.ascontiguousarray(np.swapaxes(self.values, 0, 2))
        start, shape = ((c, b, a, *beyond) for a, b, c, *beyond in (self.start, self.shape))
        return Block(values, start, shape)


def write_blocks(
    path: Path,
    box: Box,
    blocks: Mapping[str, Block],
    head: Callable[[h5py.File], None],
    *,
    sealed: bool = False,
    **storage: Any,
) -> None:
    """Write what all boxes have of some arrays, by name in the file; all boxes call together.

    Parameters
    ----------
    head : writes the rest of the file.
    sealed : begin the file with a checksum, for `is_whole`.
    storage : how h5py stores the arrays.

    Raises
    ------
    InputError : it cannot be written, as on a full disk; what stood there stays.
    """
    folder, own = _folder(path), f"{box.number + 1}-of-{box.n_boxes}.h5"

    def write(file: h5py.File) -> None:
        for name, block in blocks.items():
            file.create_dataset(name, data=block.values, **storage)

    if box.n_boxes == 1:
        _replace(path, _image(sealed, head, write))
        shutil.rmtree(folder, ignore_errors=True)
        return
    content = _image(False, write)
    _replace(folder / own, content)
    places = {name: (block.start, block.values.shape) for name, block in blocks.items()}
    everyone = box.gather((own, hashlib.sha256(content).hexdigest(), places))

    def join(file: h5py.File) -> None:
        file[_PARTS] = json.dumps({part: digest for part, digest, _ in everyone})
        for name, block in blocks.items():
            layout = h5py.VirtualLayout(block.shape, block.values.dtype)
            for part, _, at in everyone:
                start, shape = at[name]
                where = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
                layout[where] = h5py.VirtualSource(f"{folder.name}/{part}", name, shape)
            file.create_virtual_dataset(name, layout)

    if box.leads:
        _replace(path, _image(sealed, head, join))
        names = {part for part, _, _ in everyone}
        for stray in folder.glob("*.h5"):  # of a run on another number of ranks
            if stray.name not in names:
                stray.unlink(missing_ok=True)
    box.wait()  # none may write there again before that


def is_whole(path: Path, box: Box) -> bool:
    """Whether a sealed file, and those of the boxes that wrote it, are as they were written; asked on all boxes."""
    parts: list[tuple[str, str]] | None = None
    if box.leads and path.is_file():
        with path.open("rb") as file:
            seal = file.read(_SEAL)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if seal.startswith(_seal(found)):
            with h5py.File(path, "r") as content:
                parts = list(json.loads(content[_PARTS].asstr()[()]).items()) if _PARTS in content else []
    parts = box.from_first(parts)
    if parts is None:
        return False
    own = parts[box.number :: box.n_boxes]
    return all(box.gather(all(_digest(_folder(path) / name) == digest for name, digest in own)))


def remove(path: Path) -> None:
    """Remove a file and those of the boxes that wrote it."""
    path.unlink(missing_ok=True)
    shutil.rmtree(_folder(path), ignore_errors=True)


def remove_unfinished(folder: Path, pattern: str) -> None:
    """Remove what a run that was killed had not finished of the files of a pattern; those that are joined stay."""
    for parts in folder.glob(f"{pattern}{_PARTS_SUFFIX}"):
        if not parts.with_suffix("").exists():
            shutil.rmtree(parts, ignore_errors=True)
    for temporary in (*folder.glob(f".{pattern}.*"), *folder.glob(f"{pattern}{_PARTS_SUFFIX}/.*")):
        shutil.rmtree(temporary, ignore_errors=True)


def _folder(path: Path) -> Path:
    return path.with_name(path.name + _PARTS_SUFFIX)


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(digest: str) -> bytes:
    return b"chemomech blocks 1\n" + digest.encode() + b"\n"


def _image(sealed: bool, *writers: Callable[[h5py.File], None]) -> memoryview:
    """A file made in memory: HDF5 cannot give up a file when the disk is full, it takes the process down."""
    image = io.BytesIO()
    with h5py.File(image, "w", **({"userblock_size": _SEAL} if sealed else {})) as file:
        for write in writers:
            write(file)
    content = image.getbuffer()
    if sealed:
        seal = _seal(hashlib.sha256(content[_SEAL:]).hexdigest())
        content[: len(seal)] = seal
    return content


def _replace(path: Path, content: memoryview) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
