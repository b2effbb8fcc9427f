"""Three-dimensional arrays from files, a part at a time: segmented tomograms, compositions; axes a, b, c."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.errors import InputError
from chemomech.mechanics.box import Box


def volume_shape(path: Path, dataset: str | None) -> tuple[int, int, int]:
    """Of a stack of images (TIFF), a dataset of an HDF5 file, or a NumPy array.

    Raises
    ------
    InputError : a file or dataset that cannot be read, or is not three-dimensional.
    """
    with _opened(path, dataset) as volume:
        nx, ny, nz = volume.shape
        return nx, ny, nz


def read_volume(path: Path, dataset: str | None, box: Box) -> npt.NDArray[Any]:
    """What a volume has for the cells of a box (nx, ny, nz).

    Raises
    ------
    InputError : as of `volume_shape`, or it is not of the box's grid.
    """
    with _opened(path, dataset) as volume:
        if tuple(volume.shape) != box.whole.cells:
            raise InputError(f"{path}: must have shape {box.whole.cells}, one value a voxel, got {volume.shape}")
        return np.asarray(volume[box.window])


@contextmanager
def _opened(path: Path, dataset: str | None) -> Iterator["_Volume"]:
    kind = path.suffix.lower()
    volume: _Volume
    try:
        if kind == ".npy":
            volume = np.load(path, mmap_mode="r", allow_pickle=False)
            _require_three_axes(path, volume)
            yield volume
        elif kind in (".h5", ".hdf5"):
            with h5py.File(path, "r") as file:
                if dataset is None or not isinstance(file.get(dataset), h5py.Dataset):
                    raise InputError(f"{path}: name one of its datasets with the key dataset, got {dataset!r}")
                _require_three_axes(path, file[dataset])
                yield file[dataset]
        elif kind in (".tif", ".tiff"):
            with _tiff(path) as volume:
                _require_three_axes(path, volume)
                yield volume
        else:
            raise InputError(f"{path}: must be .npy, .h5, .hdf5, .tif or .tiff")
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


class _Volume(Protocol):
    """What can be read in parts."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, window: tuple[slice, ...]) -> npt.NDArray[Any]: ...


class _Images:
    """A stack of images, of which only those that are asked for are decoded."""

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self.shape = tuple(stack.series[0].shape)

    def __getitem__(self, window: tuple[slice, ...]) -> npt.NDArray[Any]:
        planes, *inside = window
        if len(self._stack.pages) != self.shape[0]:  # all images in one page, as ImageJ stores a large stack
            return np.asarray(self._stack.asarray()[window])
        images = self._stack.asarray(key=planes)
        return np.asarray(images.reshape(-1, *self.shape[1:])[:, *inside])


@contextmanager
def _tiff(path: Path) -> Iterator[_Images]:
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f'{path}: TIFF needs tifffile; install it with: pip install "chemomech[microscopy]"'
        ) from error
    try:
        with tifffile.TiffFile(path) as stack:
            yield _Images(stack)
    except tifffile.TiffFileError as error:
        raise InputError(f"{path}: is not a TIFF file ({error})") from error


def _require_three_axes(path: Path, volume: _Volume) -> None:
    if len(volume.shape) != 3:
        raise InputError(f"{path}: must have three axes (a, b, c), got shape {volume.shape}")
