"""Maps of particles: what was measured, what the law explains, and what is left."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chemomech.arrays import Float
from chemomech.learn.dislocation_density import CANDIDATES
from chemomech.learn.eigenstrain import EigenstrainResult
from chemomech.observe.maps import CorrelativeMaps
from chemomech.report.curves import fitted_dislocations
from chemomech.report.sheet import (
    COMPOSITION,
    MAGNITUDE,
    SIGNED,
    STRAIN,
    Limits,
    Sheet,
    box_of,
    nice_above,
    show,
    symmetric_limits,
)
from chemomech.report.style import INK, STYLE, shortened
from chemomech.units import SQUARE_UM

_COMPONENTS = ("aa", "cc", "ac")
# Inches.
_WIDEST, _TALLEST, _NARROWEST, _FLATTEST = 2.36, 2.6, 1.35, 0.7
_MARGIN, _HEAD, _TITLE, _FOOT, _GAP, _BAR, _BAR_SPACE = 0.1, 0.36, 0.25, 0.58, 0.14, 0.09, 0.72
_LONGEST_TITLE = 2.45
_CELL, _CELL_HEIGHT = 1.62, 0.85


@rc_context(STYLE)
def plot_particle(result: EigenstrainResult, name: str) -> Figure:
    """Composition, rotation and incompatibility; then the strains aa, cc, ac: total, coherency (with M1), residual.

    Strains are in %; shears are eps_ac, half of the 2 eps_ac that is stored. The thin line is X = 0.5. The strains of a
    column share one scale, whose colour bar is pointed where a map goes beyond it.
    """
    particle = result.particles[name]
    maps = particle.maps
    strains = {"Total": maps.distortion[..., :3]}
    if result.main == "M1":
        strains["Coherency"] = particle.coherency_strain
    strains["Residual"] = particle.residual_strain
    rotation = 1e3 * (maps.distortion[..., 3] - maps.distortion[maps.mask][:, 3].mean())
    incompatibility = SQUARE_UM * particle.incompatibility
    overview = [
        ("Composition $X$", maps.composition, COMPOSITION, (0.0, 1.0)),
        ("Lattice rotation less its mean (mrad)", rotation, SIGNED, symmetric_limits(rotation[maps.mask])),
        ("Incompatibility of residual (µm$^{-2}$)", incompatibility, SIGNED, symmetric_limits(incompatibility)),
    ]
    role = ", held out of the fit" if particle.held_out else ""
    mean = rf"mean $X$ = {maps.mean_composition:.2f}, {maps.mask.sum()} pixels of {maps.pixel_size_nm:.4g} nm{role}"
    return _figure(maps, overview, strains, mean)


@rc_context(STYLE)
def plot_dislocations(result: EigenstrainResult, name: str) -> Figure:
    """Dislocation densities by model M2 and by the curl of the measured distortion; then the residual strain of M1, the
    strain of the dislocations, and what is left (Deng, fig. 3c).

    Raises
    ------
    InputError : model M2 was not fitted.
    """
    found = fitted_dislocations(result)
    own, maps = found.particles[name], result.particles[name].maps
    a, c = CANDIDATES[found.burgers or "[001]"]
    length = a * maps.reference_nm[0] + c * maps.reference_nm[1]
    curl = SQUARE_UM * own.burgers_density_per_nm @ (a, c) / length
    density = SQUARE_UM * own.density_per_nm2
    limits = symmetric_limits(np.concatenate([curl[np.isfinite(curl)], density[maps.mask]]))
    overview = [
        ("Composition $X$", maps.composition, COMPOSITION, (0.0, 1.0)),
        (rf"Density of {found.burgers or '[001]'}, M2 (µm$^{{-2}}$)", density, SIGNED, limits),
        ("The same from the curl (µm$^{-2}$)", curl, SIGNED, limits),
    ]
    strains = {
        "Residual": result.particles[name].residual_strain,
        "Dislocation": own.strain,
        "Unexplained": own.residual_strain,
    }
    mean = rf"mean $|\rho|$ = {SQUARE_UM * own.mean_abs_density_per_nm2:.0f} µm$^{{-2}}$"
    return _figure(maps, overview, strains, mean, one_scale=True)


def _figure(
    maps: CorrelativeMaps,
    overview: Sequence[tuple[str, Float, str, Limits]],
    strains: Mapping[str, Float],
    heading: str,
    *,
    one_scale: bool = False,
) -> Figure:
    """A column of three maps with titles, colours and limits; then a column for each strain: aa, cc, ac.

    The strains of a column share one scale; with `one_scale`, those of all columns that of the first.
    """
    crop = box_of(maps.mask, 1)
    width, height = _panel_size(maps.mask[crop].shape)
    first = max(width + _BAR_SPACE, _LONGEST_TITLE)
    columns = _MARGIN + np.array([0, *(first + (width + _GAP) * np.arange(len(strains)))])
    rows = _HEAD + _TITLE + (height + _TITLE) * np.arange(3)
    sheet = Sheet(columns[-1] + width + _MARGIN, rows[-1] + height + _FOOT)
    for top, (title, field, colours, limits) in zip(rows, overview, strict=True):
        ax = sheet.axes(columns[0], top, width, height)
        image = show(ax, _inside(field, maps)[crop], colours, limits)
        ax.set_title(title, pad=4)
        cax = sheet.axes(columns[0] + width + 0.06, top, _BAR, height)
        sheet.colour_bar(cax, image, field[maps.mask], orientation="vertical")

    percent = {kind: 100 * strain * (1, 1, 0.5) for kind, strain in strains.items()}
    shared = symmetric_limits(next(iter(percent.values()))[maps.mask])
    for left, (kind, fields) in zip(columns[1:], percent.items(), strict=True):
        limits = shared if one_scale else symmetric_limits(fields[maps.mask])
        for i, top in enumerate(rows):
            ax = sheet.axes(left, top, width, height)
            image = show(ax, _inside(fields[..., i], maps)[crop], STRAIN, limits)
            _draw_boundary(ax, _inside(maps.composition, maps)[crop])
            ax.set_title(rf"{kind} $\varepsilon_{{{_COMPONENTS[i]}}}$", pad=4)
        cax = sheet.axes(left + 0.15 * width, rows[-1] + height + 0.09, 0.7 * width, _BAR)
        sheet.colour_bar(cax, image, fields[maps.mask], orientation="horizontal")
        cax.set_xlabel(f"{kind} strain (%)", labelpad=1, fontsize=8.5)

    ny, nx = maps.mask[crop].shape
    _draw_scale(sheet, columns[0], rows[-1] + height + 0.14, min(width / nx, height / ny) / maps.pixel_size_nm, width)
    sheet.text(_MARGIN, 0.1, shortened(maps.name, 24 if width > 2 else 14), size=11, bold=True, math=False)
    sheet.text(columns[1], 0.13, heading)
    return sheet.figure


@rc_context(STYLE)
def plot_contact_sheet(result: EigenstrainResult, names: Sequence[str]) -> Figure:
    """Composition and, below it, the Frobenius norm of the residual strain of many particles, on common scales."""
    n_columns = 6
    pitch = _TITLE + 2 * _CELL_HEIGHT + 0.12
    n_rows = -(-len(names) // n_columns)
    sheet = Sheet(2 * _MARGIN + n_columns * (_CELL + _GAP) - _GAP, _MARGIN + n_rows * pitch + _FOOT)
    residual = {name: 100 * np.sqrt(result.particles[name].residual_strain ** 2 @ (1, 1, 0.5)) for name in names}
    values = np.concatenate([norm[np.isfinite(norm)] for norm in residual.values()])
    largest = nice_above(float(np.percentile(values, 99))) if values.any() else 1.0
    compositions = np.concatenate([result.particles[name].maps.composition.ravel() for name in names])
    for i, name in enumerate(names):
        maps = result.particles[name].maps
        crop = box_of(maps.mask, 1)
        left = _MARGIN + (i % n_columns) * (_CELL + _GAP)
        top = _MARGIN + _TITLE + (i // n_columns) * pitch
        above, below = (sheet.axes(left, top + k * (_CELL_HEIGHT + 0.04), _CELL, _CELL_HEIGHT) for k in (0, 1))
        upper = show(above, _inside(maps.composition, maps)[crop], COMPOSITION, (0, 1))
        lower = show(below, residual[name][crop], MAGNITUDE, (0, largest))
        above.set_anchor("SW")
        below.set_anchor("NW")
        sheet.text(left, top - 0.17, shortened(name, 20), size=8, math=False)
    for left, image, field, label in (
        (_MARGIN, upper, compositions, "Composition $X$ (upper maps)"),
        (_MARGIN + 2 * (_CELL + _GAP), lower, values, "Norm of the residual strain (%, lower maps)"),
    ):
        cax = sheet.axes(left, sheet.height - _FOOT + 0.09, 1.5 * _CELL, _BAR)
        sheet.colour_bar(cax, image, field, orientation="horizontal")
        cax.set_xlabel(label, labelpad=1, fontsize=8.5)
    return sheet.figure


def _panel_size(shape: tuple[int, ...]) -> tuple[float, float]:
    """Width and height in inches for a map of `shape` pixels: the map fills it unless it is very long."""
    aspect = shape[0] / shape[1]
    width = float(np.clip(_TALLEST / aspect, _NARROWEST, _WIDEST))
    return width, float(np.clip(width * aspect, _FLATTEST, _TALLEST))


def _inside(field: Float, maps: CorrelativeMaps) -> Float:
    return np.where(maps.mask, field, np.nan)


def _draw_boundary(ax: Axes, composition: Float) -> None:
    """The line X = 0.5, where there is one."""
    if np.nanmin(composition) < 0.5 < np.nanmax(composition) and min(composition.shape) > 1:
        ax.contour(composition, levels=[0.5], colors=[INK], linewidths=0.6)


def _draw_scale(sheet: Sheet, left: float, top: float, inches_per_nm: float, width: float) -> None:
    """A scale bar and the directions of the crystal axes."""
    sheet.scale_bar(left, top, inches_per_nm, 0.45 * width)
    corner = left + width - 0.38
    sheet.line(corner, top + 0.3, 0.26, 0, linewidth=0.9)
    sheet.line(corner, top + 0.3, 0, -0.26, linewidth=0.9)
    sheet.text(corner + 0.29, top + 0.23, "$a$")
    sheet.text(corner - 0.1, top - 0.05, "$c$")
