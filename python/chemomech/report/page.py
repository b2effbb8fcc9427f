"""What all pages share: one HTML file that needs no other, its figures embedded, one look."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chemomech import __version__
from chemomech.report.style import figure_of, png

#: CSS pixels per inch of a figure.
_SCREEN = 105


@dataclass(frozen=True)
class Picture:
    """A figure as the page embeds it: data URI, text for those who cannot see it, size in CSS pixels."""

    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Drawn:
    """A figure as a PNG file, and its size in inches."""

    png: bytes
    width: float
    height: float


def drawn(figure: Figure) -> Drawn:
    width, height = figure.get_size_inches()
    return Drawn(png(figure), float(width), float(height))


class Gallery:
    """Draws each figure once, for the page and, where a folder is given, as the same PNG file there."""

    def __init__(self, advance: Callable[[], None], folder: Path | None = None) -> None:
        self._folder = folder
        self._advance = advance
        if folder is not None:
            folder.mkdir()
        self._used: set[str] = set()

    def add(self, figure: Figure, stem: str, alt: str) -> Picture:
        picture = self.keep(drawn(figure), stem, alt)
        self._advance()
        return picture

    def keep(self, figure: Drawn, stem: str, alt: str) -> Picture:
        """The same for a figure that was drawn elsewhere."""
        if self._folder is not None:
            (self._folder / f"{self._free(stem)}.png").write_bytes(figure.png)
        source = "data:image/png;base64," + base64.b64encode(figure.png).decode()
        return Picture(source, alt, round(figure.width * _SCREEN), round(figure.height * _SCREEN))

    def add_axes(self, ax: Axes, stem: str, alt: str) -> Picture:
        return self.add(figure_of(ax), stem, alt)

    def _free(self, stem: str) -> str:
        """A file name from arbitrary text that differs from those before it, on any file system."""
        plain = re.sub(r"[^A-Za-z0-9-]+", "_", stem).strip("_")[:60]
        name, count = plain, 1
        while name.lower() in self._used:
            count += 1
            name = f"{plain}_{count}"
        self._used.add(name.lower())
        return name


def render(template: str, **values: Any) -> str:
    """The page of a template of this folder that extends page.html.j2."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)
