"""The page of `void`: what the microscope would see of the particle along b, and how it got there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from chemomech.arrays import Bool, Float
from chemomech.mechanics.box import Box
from chemomech.mechanics.coherent_plate import softest_angle
from chemomech.mechanics.stiffness import IN_PLANE, VOIGT, plane_stress
from chemomech.mechanics.voxel import Equilibrium, depth_average, void_surface
from chemomech.phasefield.coherency import Coherency, Eigenstrain
from chemomech.phasefield.projection import Projection, as_map, project
from chemomech.phasefield.void import StepRecord
from chemomech.progress import progress
from chemomech.report import tables
from chemomech.report.page import Gallery, render
from chemomech.report.sheet import COMPOSITION, SIGNED, STRAIN, Limits, Sheet, show, symmetric_limits
from chemomech.report.style import AXIS_COLOUR, STYLE, new_axes
from chemomech.report.tables import Table

# Inches.
_MARGIN, _HEAD, _TITLE, _GAP, _BAR, _FOOT, _LABEL = 0.1, 0.32, 0.2, 0.12, 0.09, 0.5, 1.1
_WIDEST, _TALLEST = 2.3, 2.3
_COMPONENTS = (r"$\varepsilon_{aa}$", r"$\varepsilon_{cc}$", r"$2\varepsilon_{ac}$")
#: Of Voigt's engineering shears to the components of a tensor.
_TENSOR = np.array([1, 1, 1, 0.5, 0.5, 0.5])
_CHEMICAL, _ELASTIC = AXIS_COLOUR["a"], AXIS_COLOUR["c"]


@dataclass(frozen=True, eq=False)
class Elasticity:
    """Strains and stresses of a particle.

    Attributes
    ----------
    projection : strains along b.
    largest_strain : coherency strain of a voxel, a component of the tensor.
    void_tension_GPa, void_pressure_GPa : largest principal stresses at voids' surfaces; None where there is no void.
    eigenstrain, stiffness_GPa : of the material; (6, 6).
    """

    projection: Projection
    largest_strain: float
    void_tension_GPa: float | None
    void_pressure_GPa: float | None
    eigenstrain: Eigenstrain
    stiffness_GPa: Float


@dataclass(frozen=True, eq=False)
class Particle:
    """A simulated particle at its last instant, as maps: axis 0 along c, axis 1 along a.

    Attributes
    ----------
    cells, spacing_nm : voxels along a, b and c, and their edges (3,).
    solid_share : of the voxels.
    mean_composition, middle_composition : (nz, nx) along b and in the middle plane, NaN where there is no solid.
    elasticity : None where there is none.
    """

    cells: tuple[int, int, int]
    spacing_nm: Float
    solid_share: float
    mean_composition: Float
    middle_composition: Float
    elasticity: Elasticity | None


def summarise(
    box: Box,
    solid: Bool,
    spacing_nm: Float,
    composition: Float,
    elastic: Equilibrium | None,
    coherency: Coherency | None,
) -> Particle:
    """What the report shows of a particle, maps and extremes of all boxes of its grid, which call together.

    Parameters
    ----------
    solid, composition : (nx, ny, nz), of the voxels of a box.
    elastic, coherency : its equilibrium and what made it, or None.
    """
    n_solid = box.sum(int(solid.sum()))
    mean = as_map(depth_average(composition, solid), box)
    middle = as_map(np.where(solid, composition, np.nan)[:, solid.shape[1] // 2], box)
    elasticity = None
    if elastic is not None and coherency is not None:
        eigenstrain, stiffness = coherency.eigenstrain, coherency.body.stiffness_GPa.mean(axis=0)
        seen = project(solid, spacing_nm, composition, elastic, eigenstrain, stiffness, box)
        largest = box.largest(float(np.abs(elastic.elastic_strain[solid] * _TENSOR).max(initial=0.0)))
        surface = void_surface(solid, box)
        tension = pressure = None
        if box.sum(int(surface.sum())):
            principal = principal_stresses(elastic.stress_GPa[surface])
            tension = box.largest(float(principal.max(initial=-np.inf)))
            pressure = box.largest(float(-principal.min(initial=np.inf)))
        elasticity = Elasticity(seen, largest, tension, pressure, eigenstrain, stiffness)
    share = n_solid / float(np.prod(box.whole.cells))
    return Particle(box.whole.cells, spacing_nm, share, mean, middle, elasticity)


def write_report(
    folder: Path,
    particle: Particle,
    records: Sequence[StepRecord],
    *,
    inputs: Sequence[Path],
    settings: Mapping[str, str],
    warnings: Sequence[str],
) -> None:
    """Write report.html, which needs no other file, into an existing folder."""
    last, elasticity = records[-1], particle.elasticity
    with progress("figures", 2 if elasticity is None else 3) as advance:
        gallery = Gallery(advance)
        page = render(
            "void.html.j2",
            last=last,
            n_steps=last.step,
            shape=particle.cells,
            spacing=particle.spacing_nm.tolist(),
            void_share=f"{100 * (1 - particle.solid_share):.3g}",
            warnings=list(warnings),
            composition_figure=gallery.add(plot_composition(particle), "composition", "Composition, averaged along b."),
            strain_figure=elasticity
            and gallery.add(plot_strains(elasticity.projection), "strain", "Strains, averaged along b."),
            history_figure=gallery.add_axes(plot_history(records), "history", "Free energies against time."),
            finding_table=finding_table(elasticity) if elasticity else None,
            run_table=run_table(records),
            provenance=[tables.input_table(inputs), tables.option_table(settings), tables.version_table()],
        )
    (folder / "report.html").write_text(page, encoding="utf-8")


@rc_context(STYLE)
def plot_composition(particle: Particle) -> Figure:
    """Composition averaged along b, and in the middle plane."""
    grid = _Grid(particle.mean_composition.shape, particle.spacing_nm[[0, 2]], rows=1, columns=2)
    pictures = (particle.mean_composition, "averaged along $b$"), (particle.middle_composition, "middle plane")
    for column, (field, title) in enumerate(pictures):
        image = grid.show(0, column, field, COMPOSITION, (0.0, 1.0))
        grid.title(column, title)
    grid.row_label(0, "Li fraction $X$")
    grid.scale()
    grid.bar(image, particle.mean_composition, 0)
    return grid.sheet.figure


@rc_context(STYLE)
def plot_strains(seen: Projection) -> Figure:
    """Total, coherency and residual strain, averaged along b, in percent."""
    grid = _Grid(seen.composition.shape, seen.spacing_nm, rows=3, columns=3)
    rows = (("Total", seen.total, STRAIN), ("Coherency", seen.coherency, STRAIN), ("Residual", seen.residual, SIGNED))
    limits = symmetric_limits(100 * seen.total)
    fine = symmetric_limits(100 * np.concatenate([seen.coherency.ravel(), seen.residual.ravel()]))
    for row, (name, field, colours) in enumerate(rows):
        grid.row_label(row, f"{name} (%)")
        for column in range(3):
            image = grid.show(row, column, 100 * field[..., column], colours, limits if row == 0 else fine)
            if row == 0:
                grid.title(column, _COMPONENTS[column])
        grid.bar(image, 100 * field, row)
    grid.scale()
    return grid.sheet.figure


@rc_context(STYLE)
def plot_history(records: Sequence[StepRecord], ax: Axes | None = None) -> Axes:
    """Free energy above its last value and elastic energy, against time."""
    ax = ax or new_axes(4.8, 3.2)
    time = np.array([record.time_s for record in records[1:]])
    energy = np.array([record.energy_aJ for record in records[1:]])
    elastic = np.array([record.elastic_aJ for record in records[1:]])
    ax.loglog(time[:-1], (energy - energy[-1])[:-1], color=_CHEMICAL, label="free energy, above its last value")
    if elastic.any():
        ax.loglog(time, elastic, color=_ELASTIC, label="elastic energy")
    ax.set_xlabel("Time (s)")
    ax.set_ylabel("Energy (aJ)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return ax


def finding_table(elasticity: Elasticity) -> Table:
    """Strains, stress at the voids, and the orientation of the phase boundaries."""
    seen = elasticity.projection

    def largest(field: Float) -> str:
        return f"{100 * np.nanmax(np.abs(field)):.3f} %"

    tensor = _TENSOR[IN_PLANE]
    misfit = elasticity.eigenstrain(np.array(0.0)) - elasticity.eigenstrain(np.array(1.0))
    thin = softest_angle(plane_stress(elasticity.stiffness_GPa), misfit[IN_PLANE])
    thick = softest_angle(elasticity.stiffness_GPa, misfit)
    rows = [
        ["Largest coherency strain, averaged along b", largest(seen.coherency * tensor)],
        ["Largest residual strain, averaged along b", largest(seen.residual * tensor)],
        ["Largest coherency strain of a voxel", f"{100 * elasticity.largest_strain:.3f} %"],
    ]
    if elasticity.void_tension_GPa is not None:
        rows.append(["Largest tension at a void's surface", f"{elasticity.void_tension_GPa:.3f} GPa"])
        rows.append(["Largest pressure at a void's surface", f"{elasticity.void_pressure_GPa:.3f} GPa"])
    spread = np.nanmax(seen.composition) - np.nanmin(seen.composition)
    if np.isfinite(seen.boundary_angle) and spread > 0.5:
        rows.append(["Normal of the phase boundaries, from a", f"{seen.boundary_angle:.1f}°"])
        rows.append(["The same of an infinite coherent plate, thin along b", f"{thin:.1f}°"])
        rows.append(["The same, thick along b", f"{thick:.1f}°"])
    return Table("Strains are tensor components.", ["Quantity", "Value"], rows)


def principal_stresses(stress: Float) -> Float:
    """(n, 3) ascending, of Voigt stresses (n, 6)."""
    return np.asarray(np.linalg.eigvalsh(stress[:, VOIGT]))


def run_table(records: Sequence[StepRecord]) -> Table:
    """What the steps took."""
    steps = records[1:]
    drift = max(abs(record.mean_composition / records[0].mean_composition - 1) for record in records)
    rise = float(np.diff([record.energy_aJ for record in records]).max(initial=0.0))
    rows = [
        ["Steps accepted", str(len(steps))],
        ["Steps tried and rejected", str(sum(record.n_rejected for record in steps))],
        ["Iterations for the composition, mean", _mean([record.newton_iterations for record in steps])],
        ["Iterations of the elastic equilibrium, mean", _mean([record.elastic_iterations for record in steps])],
        ["Largest relative change of the mass", f"{drift:.1e}"],
        ["Largest rise of the free energy over a step", f"{max(rise, 0.0):.1e} aJ"],
        ["Change of X in a crossing time at the last rate (0.01: at rest)", f"{records[-1].motion:.2g}"],
    ]
    return Table("The run.", ["Quantity", "Value"], rows)


def _mean(values: Sequence[int]) -> str:
    return f"{np.mean(values):.1f}" if values else "\N{EN DASH}"


class _Grid:
    """Maps of one shape in rows and columns, with a colour bar to the right of each row and one scale bar."""

    def __init__(self, shape: tuple[int, ...], spacing_nm: Float, *, rows: int, columns: int) -> None:
        ny, nx = shape
        self._per_nm = min(_WIDEST / (nx * spacing_nm[0]), _TALLEST / (ny * spacing_nm[1]))
        self._aspect = float(spacing_nm[1] / spacing_nm[0])
        self._width, self._height = nx * spacing_nm[0] * self._per_nm, ny * spacing_nm[1] * self._per_nm
        self._lefts = _MARGIN + _LABEL + (self._width + _GAP) * np.arange(columns)
        self._tops = _HEAD + (max(self._height, 0.55) + _GAP) * np.arange(rows)
        self._right = self._lefts[-1] + self._width
        self.sheet = Sheet(self._right + 0.75, self._tops[-1] + self._height + _FOOT)

    def show(self, row: int, column: int, field: Float, colours: str, limits: Limits) -> AxesImage:
        ax = self.sheet.axes(self._lefts[column], self._tops[row], self._width, self._height)
        image = show(ax, field, colours, limits)
        ax.set_aspect(self._aspect)
        return image

    def title(self, column: int, text: str) -> None:
        self.sheet.text(self._lefts[column], _HEAD - _TITLE, text)

    def row_label(self, row: int, text: str) -> None:
        self.sheet.text(_MARGIN, self._tops[row] + self._height / 2 - 0.08, text)

    def bar(self, image: AxesImage, field: Float, row: int) -> None:
        cax = self.sheet.axes(self._right + 0.12, self._tops[row], _BAR, max(self._height, 0.5))
        self.sheet.colour_bar(cax, image, field, orientation="vertical")

    def scale(self) -> None:
        top, note = self._tops[-1] + self._height + 0.12, r"   $a$ to the right, $c$ upwards"
        self.sheet.scale_bar(self._lefts[0], top, self._per_nm, 0.5 * self._width, note=note)
