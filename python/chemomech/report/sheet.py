"""A figure whose parts are placed to the inch, from its top left corner: maps line up whatever their labels are."""

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Text

from chemomech.arrays import Bool, Float
from chemomech.report.style import INK

#: Perceptually ordered and safe for colour-blind readers. Diverging maps are white at zero.
COMPOSITION, MAGNITUDE, STRAIN, SIGNED = "viridis", "magma_r", "RdBu_r", "PuOr_r"
_OUTSIDE = "#eceef0"
_NICE = np.array([1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10])
Limits = tuple[float, float]


class Sheet:
    """A figure of `width` by `height` inches; all positions are inches from its left and top edges."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes of the given size."""
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def text(
        self, left: float, top: float, text: str, *, size: float = 8.5, bold: bool = False, math: bool = True
    ) -> Text:
        """Text whose top left corner is given; `math` is off for text that others chose."""
        return self.figure.text(
            left / self.width,
            1 - top / self.height,
            text,
            fontsize=size,
            fontweight="bold" if bold else "normal",
            va="top",
            parse_math=math,
        )

    def line(self, left: float, top: float, along: float, down: float, *, linewidth: float) -> None:
        """A straight line from (left, top)."""
        across = np.array([left, left + along]) / self.width
        upwards = 1 - np.array([top, top + down]) / self.height
        self.figure.add_artist(Line2D(across, upwards, color=INK, linewidth=linewidth, solid_capstyle="butt"))

    def scale_bar(self, left: float, top: float, inches_per_nm: float, widest: float, *, note: str = "") -> None:
        """A bar of a round length no longer than `widest` inches, with the length and a note under it."""
        length, label = nice_length(widest / inches_per_nm)
        self.line(left, top, length * inches_per_nm, 0, linewidth=2.5)
        self.text(left, top + 0.05, label + note, size=8)

    def colour_bar(
        self, cax: Axes, image: AxesImage, field: Float, *, orientation: Literal["vertical", "horizontal"]
    ) -> None:
        """A colour bar with its ends and middle marked, pointed where values of `field` go beyond it."""
        low, high = image.get_clim()
        below, above = (bool(beyond.any()) for beyond in (field < low, field > high))
        extend: Literal["both", "min", "max", "neither"]
        extend = "both" if below and above else "min" if below else "max" if above else "neither"
        bar = self.figure.colorbar(image, cax=cax, orientation=orientation, extend=extend, extendfrac=0.06)
        middle = (low + high) / 2
        labels = [f"{value:+.6g}" if low < 0 and value else f"{value:.6g}" for value in (low, middle, high)]
        bar.set_ticks([low, middle, high], labels=[label.replace("-", "\N{MINUS SIGN}") for label in labels])
        cax.tick_params(length=2, pad=2, labelsize=8)
        for spine in cax.spines.values():
            spine.set_linewidth(0.4)


def show(ax: Axes, field: Float, colours: str, limits: Limits) -> AxesImage:
    """A map (ny, nx) with axis 0 upwards and square pixels; NaN is light grey."""
    ax.set_facecolor(_OUTSIDE)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax.imshow(field, cmap=colours, vmin=limits[0], vmax=limits[1], origin="lower", interpolation="nearest")


def box_of(mask: Bool, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the pixels of a mask and a margin of so many pixels, where there are as many."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    y, x = (slice(max(int(each[0]) - margin, 0), int(each[-1]) + 1 + margin) for each in (rows, columns))
    return y, x


def symmetric_limits(field: Float) -> Limits:
    """Round limits about zero that hold all but one in a hundred of the finite values."""
    sizes = np.abs(field[np.isfinite(field)])
    limit = nice_above(float(np.percentile(sizes, 99))) if sizes.any() else 1.0
    return -limit, limit


def nice_above(value: float) -> float:
    """The next round number above a positive value."""
    decade = 10.0 ** np.floor(np.log10(value))
    return float(_NICE[np.searchsorted(_NICE, value / decade * (1 - 1e-9))] * decade)


def nice_length(longest_nm: float) -> tuple[float, str]:
    """The longest of 1, 2, 5 times a power of ten that is not longer, in nm and as a label."""
    decade = 10.0 ** np.floor(np.log10(longest_nm))
    length = float(max(factor for factor in (1, 2, 5) if factor * decade <= longest_nm * (1 + 1e-9)) * decade)
    return length, f"{length / 1e3:g} µm" if length >= 1e3 else f"{length:g} nm"
