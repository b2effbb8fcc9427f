"""Moving pictures of `kinetics`: the frames of a particle beside those of the learned model."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from chemomech.arrays import Float
from chemomech.learn.kinetics import KineticsResult
from chemomech.report.sheet import COMPOSITION

_FRAME_MS = 400
#: Pixels of the picture along the longer side of a particle's map.
_SIZE = 240
_OUTSIDE = (236, 238, 240)


def write_videos(folder: Path, result: KineticsResult) -> None:
    """Write videos/<particle>.gif, data on the left and model on the right, all half-cycles one after the other."""
    target = folder / "videos"
    target.mkdir()
    for name, learned in result.particles.items():
        pictures = []
        for half in learned.particle.half_cycles:
            data, model = (learned.particle.to_map(each) for each in (half.li_fraction, learned.model[half.name]))
            gap = np.full((*data.shape[:2], 1), np.nan)
            pictures += [_picture(frame) for frame in np.concatenate([data, gap, model], axis=2)]
        # Slashes in a particle's name would be folders.
        path = target / f"{name.replace('/', '_')}.gif"
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=_FRAME_MS, loop=0)


def _picture(frame: Float) -> Image.Image:
    """One frame (ny, nx), axis 0 upwards, NaN light grey."""
    colours = colormaps[COMPOSITION](np.clip(frame, 0, 1), bytes=True)[..., :3]
    colours[np.isnan(frame)] = _OUTSIDE
    scale = max(1, 2 * _SIZE // max(frame.shape))
    return Image.fromarray(np.ascontiguousarray(colours[::-1].repeat(scale, 0).repeat(scale, 1)))
