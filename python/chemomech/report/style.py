"""The look all figures share: ink, type sizes, the colours of the two crystal axes, and figures without pyplot."""

import io
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Colour-blind-safe colours (Okabe & Ito 2008) of the crystal axes a and c.
AXIS_COLOUR = {"a": "#0072B2", "c": "#D55E00"}
#: Darker shades for the direct regression, whose dashes lie on top and stay visible where the laws agree.
AXIS_SHADE = {"a": "#002f4d", "c": "#5e2900"}

INK = "#22262b"
FAINT = "#7b8189"
DPI = 160

#: The rc parameters, typed loosely because matplotlib types its keys differently from version to version.
STYLE: Any = {
    "text.usetex": False,
    "text.color": INK,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "white",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": "standard",
}


def new_axes(width: float, height: float) -> Axes:
    """The only axes of a new figure; `width` and `height` in inches."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def figure_of(ax: Axes) -> Figure:
    """The whole figure that axes stand in."""
    figure = ax.figure.figure
    assert isinstance(figure, Figure)
    return figure


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def shortened(name: str, length: int) -> str:
    """A particle's name on one line of at most `length` characters."""
    line = " ".join(name.split())
    return line if len(line) <= length else line[: length - 1] + "…"
