"""Moving pictures of `kinetics`: the frames of a particle beside those of the learned model."""

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from PIL import Image

from chemomech.learn.kinetics import KineticsResult, ParticleKinetics
from chemomech.observe.video import MINUTES_AN_HOUR
from chemomech.report.sheet import COMPOSITION, Sheet, box_of, show
from chemomech.report.style import STYLE, png, shortened

_FRAME_MS = 400
_DPI = 110
# Inches.
_LARGEST, _LEAST_WIDTH, _MARGIN, _GAP, _HEAD, _FOOT, _BAR = 2.4, 1.2, 0.12, 0.15, 0.6, 0.55, 0.09


def write_videos(folder: Path, result: KineticsResult) -> None:
    """Write videos/<particle>.gif, data on the left and model on the right, all half-cycles one after the other."""
    target = folder / "videos"
    target.mkdir()
    for name, learned in result.particles.items():
        first, *others = _pictures(name, learned)
        # Slashes in a particle's name would be folders.
        path = target / f"{name.replace('/', '_')}.gif"
        first.save(path, save_all=True, append_images=others, duration=_FRAME_MS, loop=0)


@rc_context(STYLE)
def _pictures(name: str, learned: ParticleKinetics) -> list[Image.Image]:
    """The frames of all half-cycles in turn; the figure is drawn once, and its maps and the moment are replaced."""
    particle = learned.particle
    box = box_of(particle.mask)
    ny, nx = particle.mask[box].shape
    per_pixel = _LARGEST / max(nx, ny)
    width, height = max(nx * per_pixel, _LEAST_WIDTH), ny * per_pixel
    left, right, below = _MARGIN, _MARGIN + width + _GAP, _HEAD + height + 0.08
    sheet = Sheet(right + width + _MARGIN, _HEAD + height + _FOOT)
    empty = np.full((ny, nx), np.nan)
    data, model = (show(sheet.axes(x, _HEAD, width, height), empty, COMPOSITION, (0, 1)) for x in (left, right))
    sheet.text(left, 0.06, shortened(name, 30), bold=True, math=False)
    moment = sheet.text(left, 0.22, "")
    sheet.text(left, 0.4, "data")
    sheet.text(right, 0.4, "model")
    sheet.scale_bar(left, below, per_pixel / particle.pixel_size_nm, 0.6 * width)
    values = np.concatenate([half.li_fraction.ravel() for half in particle.half_cycles])
    cax = sheet.axes(right, below, width, _BAR)
    sheet.colour_bar(cax, model, values, orientation="horizontal")
    cax.set_xlabel("Li fraction $c$", labelpad=1, fontsize=8.5)
    pictures = []
    for half in particle.half_cycles:
        for i, time_h in enumerate(half.time_h):
            minutes = f"{time_h * MINUTES_AN_HOUR:.1f} min"
            moment.set_text(f"half-cycle {shortened(half.name, 12)}, {half.mode}, {minutes}")
            for image, frames in ((data, half.li_fraction), (model, learned.model[half.name])):
                image.set_data(particle.to_map(frames[i])[box])
            pictures.append(Image.open(BytesIO(png(sheet.figure, _DPI))).convert("RGB"))
    return pictures
