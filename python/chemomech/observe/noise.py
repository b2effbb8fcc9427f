"""White noise of a map, from the map itself."""

from collections.abc import Sequence

import numpy as np

from chemomech.arrays import Bool, Float
from chemomech.errors import InputError

_MINIMUM_WINDOWS = 25


def white_noise(maps: Sequence[Float], masks: Sequence[Bool], name: str) -> float:
    """Standard deviation of the pixel noise shared by several maps of one channel.

    The mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]] / 6 removes any field that is linear along rows or
    columns and leaves white noise its standard deviation (Immerkaer 1996). The median absolute deviation
    over all windows that lie inside a particle keeps the few windows on phase boundaries from counting.

    Parameters
    ----------
    maps : arrays (ny, nx); masks : bool arrays of the same shapes.
    name : the channel, for the message.

    Raises
    ------
    InputError : fewer than 25 windows of 3 x 3 pixels fit inside the masks.
    """
    responses = []
    for values, mask in zip(maps, masks, strict=True):
        if min(mask.shape) < 3:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(np.where(mask, values, np.nan), (3, 3))
        second = windows @ np.array([1.0, -2.0, 1.0])
        response = second @ np.array([1.0, -2.0, 1.0]) / 6
        responses.append(response[np.isfinite(response)])
    pooled = np.concatenate(responses) if responses else np.empty(0)
    if pooled.size < _MINIMUM_WINDOWS:
        raise InputError(
            f"the noise of {name} cannot be estimated: only {pooled.size} windows of 3 x 3 pixels fit inside the "
            f"particles, {_MINIMUM_WINDOWS} are needed; larger particles or a given standard deviation would do"
        )
    normal_quartile = 0.6744897501960817
    return float(np.median(np.abs(pooled)) / normal_quartile)
