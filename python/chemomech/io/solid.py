"""Three-dimensional arrays from files: segmented tomograms and compositions, axes a, b, c."""

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from chemomech.arrays import Bool, Float
from chemomech.errors import InputError


def read_solid(path: Path, dataset: str | None) -> Bool:
    """A segmented tomogram (nx, ny, nz): solid where it is not 0.

    Raises
    ------
    InputError : a file or dataset that cannot be read, or is not three-dimensional.
    """
    return np.asarray(read_volume(path, dataset) != 0)


def read_composition(path: Path, dataset: str | None, shape: tuple[int, ...]) -> Float:
    """Compositions of cells, of a given shape."""
    volume = read_volume(path, dataset).astype(float)
    if volume.shape != shape:
        raise InputError(f"{path}: the composition must have shape {shape}, one value a voxel, got {volume.shape}")
    return volume


def read_volume(path: Path, dataset: str | None) -> npt.NDArray[np.generic]:
    """A stack of images (TIFF), a dataset of an HDF5 file, or a NumPy array."""
    kind = path.suffix.lower()
    try:
        if kind == ".npy":
            volume = np.load(path, allow_pickle=False)
        elif kind in (".h5", ".hdf5"):
            with h5py.File(path, "r") as file:
                if dataset is None or not isinstance(file.get(dataset), h5py.Dataset):
                    raise InputError(f"{path}: name one of its datasets with the key dataset, got {dataset!r}")
                volume = file[dataset][...]
        elif kind in (".tif", ".tiff"):
            volume = _read_tiff(path)
        else:
            raise InputError(f"{path}: must be .npy, .h5, .hdf5, .tif or .tiff")
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if volume.ndim != 3:
        raise InputError(f"{path}: must have three axes (a, b, c), got shape {volume.shape}")
    return np.asarray(volume)


def _read_tiff(path: Path) -> npt.NDArray[np.generic]:
    try:
        import tifffile
    except ImportError as error:
        raise InputError(
            f'{path}: TIFF needs tifffile; install it with: pip install "chemomech[microscopy]"'
        ) from error
    try:
        return np.asarray(tifffile.imread(path))
    except tifffile.TiffFileError as error:
        raise InputError(f"{path}: is not a TIFF file ({error})") from error
