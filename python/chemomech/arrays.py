"""The gate for arrays: shapes and finiteness are checked once, with a message that shows them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chemomech.errors import InputError

Float = npt.NDArray[np.float64]
#: Indices as the compiled core takes them, and as NumPy makes them.
Int32 = npt.NDArray[np.int32]
Int = Int32 | npt.NDArray[np.intp]
Bool = npt.NDArray[np.bool_]


def require_shape(array: npt.NDArray[Any], name: str, shape: Sequence[int | None]) -> None:
    """Raise InputError unless `array` has `shape`; None stands for any length.

    >>> require_shape(np.zeros((3, 2)), "points", (None, 2))
    """
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(f"{name} must have shape ({wanted}), got {array.shape}")


def require_finite(values: Float, mask: Bool, name: str) -> None:
    """Raise InputError when a map is not finite somewhere inside its mask."""
    bad = mask & ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"{name} is not finite at {bad.sum()} of {mask.sum()} pixels inside the mask, "
            f"first at row {row}, column {column}; give a value there or take the pixel out of the mask"
        )
