"""Three-dimensional arrays from files: segmented tomograms and compositions, axes a, b, c."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.mechanics.box import Box


@contextmanager
def open_volume(path: Path, dataset: str | None) -> Iterator["Volume"]:
    """A stack of images (TIFF), a dataset of an HDF5 file, or a NumPy array, of which parts can be read.

    >>> with open_volume(path, None) as volume:
    ...     solid = volume[box.window] != 0

    Raises
    ------
    InputError : a file or dataset that cannot be read, or is not three-dimensional.
    """
    kind = path.suffix.lower()
    volume: Volume
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


def read_composition(path: Path, dataset: str | None, box: Box) -> Float:
    """Compositions of the cells of a box."""
    with open_volume(path, dataset) as volume:
        if tuple(volume.shape) != box.whole.cells:
            raise InputError(
                f"{path}: the composition must have shape {box.whole.cells}, one value a voxel, got {volume.shape}"
            )
        return np.asarray(volume[box.window], dtype=float)


class Volume(Protocol):
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


def _require_three_axes(path: Path, volume: Volume) -> None:
    if len(volume.shape) != 3:
        raise InputError(f"{path}: must have three axes (a, b, c), got shape {volume.shape}")
