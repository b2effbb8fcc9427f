"""The page of `line-profile`: every peak with its fits, and what they say about dislocation systems."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from chemomech.arrays import Float
from chemomech.learn.dislocation_systems import DislocationSystems
from chemomech.learn.line_profile import LineProfileResult
from chemomech.observe.line_profile import MomentFit, Order, PeakAnalysis
from chemomech.progress import progress
from chemomech.report import tables
from chemomech.report.page import Gallery, render
from chemomech.report.style import FAINT, INK, STYLE, new_axes
from chemomech.report.tables import Table
from chemomech.units import SQUARE_UM

#: Colour-blind-safe (Okabe & Ito 2008): one colour a moment.
MOMENT_COLOUR = {"M2": "#0072B2", "M4": "#D55E00"}
_FILL = "#009E73"
#: 1/nm^2 in 1/um^2, the unit of the page.
_COLUMNS = 3
_SETS_SHOWN = 20
_DASH, _RHO = "\N{EN DASH}", "\N{GREEK SMALL LETTER RHO}"
_ORDERS: tuple[Order, Order] = (2, 4)


def write_report(folder: Path, result: LineProfileResult, *, inputs: Sequence[Path]) -> None:
    """Write report.html, which needs no other file, into an existing folder.

    Parameters
    ----------
    inputs : the files read, for name, size and fingerprint.

    >>> write_report(Path("out"), result, inputs=[Path("peaks.h5")])
    """
    systems = result.systems
    with progress("figures", 3 + (result.williamson_hall is not None) + (systems is not None)) as advance:
        gallery = Gallery(advance)
        names = ", ".join(result.peaks)
        page = render(
            "line_profile.html.j2",
            result=result,
            systems=systems,
            warnings=result.warnings,
            n_peaks=len(result.peaks),
            ranked=[] if systems is None else _ranked(systems),
            peak_figure=gallery.add(plot_peaks(result), "peaks", f"Intensity of {names} on a logarithmic scale."),
            moment_figure=gallery.add(plot_moments(result), "moments", f"Restricted moments of {names} with fits."),
            density_figure=gallery.add_axes(
                plot_effective_densities(result), "densities", "Effective dislocation density of every peak."
            ),
            hall_figure=None
            if result.williamson_hall is None
            else gallery.add_axes(plot_williamson_hall(result), "williamson_hall", "Integral breadth against g."),
            violin_figure=None
            if systems is None
            else gallery.add_axes(plot_distributions(systems), "distributions", "Distribution of every density."),
            peak_table=peak_table(result),
            set_table=None if systems is None else set_table(systems),
            system_table=None if systems is None else system_table(systems),
            provenance=[tables.input_table(inputs), tables.version_table()],
        )
    (folder / "report.html").write_text(page, encoding="utf-8")


@rc_context(STYLE)
def plot_peaks(result: LineProfileResult) -> Figure:
    """Every peak as measured, and the background that was fitted under it."""
    figure, panels = _grid(len(result.peaks), _COLUMNS, 3.1, 2.3)
    for ax, (name, peak) in zip(panels, result.peaks.items(), strict=True):
        positive = np.where(peak.measured > 0, peak.measured, np.nan)
        ax.plot(peak.q_per_nm, positive, ".", markersize=2, color=INK, label="Intensity")
        ax.plot(peak.q_per_nm, peak.background, color=MOMENT_COLOUR["M4"], linewidth=1.2, label="Background")
        ax.set_yscale("log")
        ax.set_title(name)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlabel("$q$ (nm⁻¹)")
        ax.set_ylabel("Intensity (as given)")
    panels[0].legend(loc="upper right", markerscale=3, handlelength=1.2, borderaxespad=0)
    return figure


@rc_context(STYLE)
def plot_moments(result: LineProfileResult) -> Figure:
    """M2 and M4/q^2 of every peak, background taken out, with what was fitted; the range of the fit is shaded."""
    figure, panels = _grid(2 * len(result.peaks), 2, 4.6, 1.9)
    for row, (name, peak) in enumerate(result.peaks.items()):
        for ax, order in zip(panels[2 * row : 2 * row + 2], _ORDERS, strict=True):
            _plot_moment(ax, peak, order)
            ax.set_title(name)
    for ax in panels[-2:]:
        ax.set_xlabel("Upper limit $q$ (nm⁻¹)")
    return figure


@rc_context(STYLE)
def plot_effective_densities(result: LineProfileResult, ax: Axes | None = None) -> Axes:
    """rho* of every peak from M2 and M4 with standard errors, and what the systems add up to (Deng, Fig. 4)."""
    ax = ax or new_axes(5.2, 3.6)
    places = np.arange(len(result.peaks))
    for shift, key in ((-0.12, "M2"), (0.12, "M4")):
        fits: list[MomentFit] = [getattr(peak, key) for peak in result.peaks.values()]
        values = [SQUARE_UM * fit.density_per_nm2 for fit in fits]
        errors = [SQUARE_UM * fit.density_error for fit in fits]
        marker = {"M2": "o", "M4": "s"}[key]
        ax.errorbar(places + shift, values, errors, fmt=marker, color=MOMENT_COLOUR[key], capsize=3, label=key)
    if result.systems is not None:
        at = [list(result.peaks).index(name) for name in result.systems.peaks]
        ax.plot(at, SQUARE_UM * result.systems.fitted_per_nm2, "_", color=INK, markersize=20, label="Systems together")
    ax.set_xticks(places, list(result.peaks), rotation=45 if len(places) > 7 else 0)
    ax.set_ylim(bottom=0)
    ax.margins(x=0.1)
    ax.set_xlabel("Peak")
    ax.set_ylabel(r"Effective density $\rho^*$ (µm⁻²)")
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax


@rc_context(STYLE)
def plot_williamson_hall(result: LineProfileResult, ax: Axes | None = None) -> Axes:
    """Integral breadth against g with the straight line of size and strain."""
    ax = ax or new_axes(5.2, 3.6)
    assert result.williamson_hall is not None
    g = np.array([peak.g_per_nm for peak in result.powder.peaks.values()])
    breadth = np.array([peak.integral_breadth_per_nm for peak in result.peaks.values()])
    line = np.array([0, 1.08 * g.max()])
    hall = result.williamson_hall
    ax.plot(line, hall.intercept_per_nm + 2 * hall.strain * line, color=FAINT, linewidth=1.2)
    ax.plot(g, breadth, "o", color=INK)
    for i, name in enumerate(result.peaks):  # above and below in turn, as peaks of like g lie side by side
        ax.annotate(name, (g[i], breadth[i]), xytext=(0, (6, -14)[i % 2]), textcoords="offset points", ha="center")
    ax.set_xlim(0, line[1] * 1.06)
    ax.set_ylim(min(0.0, hall.intercept_per_nm), None)
    ax.margins(y=0.12)
    ax.set_xlabel("$g$ (nm⁻¹)")
    ax.set_ylabel("Integral breadth (nm⁻¹)")
    return ax


@rc_context(STYLE)
def plot_distributions(systems: DislocationSystems, ax: Axes | None = None) -> Axes:
    """Distribution of every density over all solutions inside the tolerance (Deng SI, Fig. S11)."""
    ax = ax or new_axes(10.6, 3.6)
    places = np.arange(len(systems.labels))
    parts = ax.violinplot(list(systems.samples_per_um2.T), places, widths=0.85, showextrema=False, points=150)
    for body in cast(Sequence[PolyCollection], parts["bodies"]):
        body.set(facecolor=_FILL, edgecolor="none", alpha=0.45)
    mean = systems.samples_per_um2.mean(axis=0)
    ax.hlines(mean, places - 0.25, places + 0.25, color=INK, linewidth=1.6, label="Mean")
    low, high = np.percentile(systems.samples_per_um2, [5, 95], axis=0)
    ax.vlines(places, low, high, color=INK, linewidth=0.9, label="5 to 95 %")
    ax.plot(places, systems.density_per_um2, "D", color=MOMENT_COLOUR["M4"], markersize=4, label="Least squares")
    ax.set_xticks(places, list(systems.labels))
    ax.set_ylim(bottom=-0.02 * max(high.max(), systems.density_per_um2.max()))
    ax.set_xlabel("Slip system")
    ax.set_ylabel("Density (µm⁻²)")
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax


def peak_table(result: LineProfileResult) -> Table:
    """One row a peak."""
    single = bool(result.single_contrast_per_m2)
    rows = []
    for name, peak in result.peaks.items():
        row = [name, f"{result.powder.peaks[name].g_per_nm:.3f}"]
        for fit in (peak.M2, peak.M4):
            row.append(_with_error(SQUARE_UM * fit.density_per_nm2, SQUARE_UM * fit.density_error))
        ratio = peak.M4.density_per_nm2 / peak.M2.density_per_nm2 if peak.M2.density_per_nm2 > 0 else np.nan
        row.append((f"{ratio:.2f}" if np.isfinite(ratio) else _DASH) + ("" if peak.consistent else " (!)"))
        row.append(f"{peak.M2.size_nm:.3g}" if np.isfinite(peak.M2.size_nm) else "not seen")
        row.append(f"{peak.M2.q_min:.3g} to {peak.M2.q_max:.3g}")
        row.append(f"{peak.M2.chi2:.2f}, {peak.M4.chi2:.2f}")
        if single:
            found = result.single_contrast_per_m2.get(name)
            row.append(_DASH if found is None else f"{1e-12 * found[0]:.3g}, {1e-12 * found[1]:.3g}")
        rows.append(row)
    head = [
        "Peak",
        "g (nm⁻¹)",
        f"{_RHO}* by M2 (µm⁻²)",
        f"{_RHO}* by M4 (µm⁻²)",
        "M4 / M2",
        "Size (nm)",
        "Range of M2 (nm⁻¹)",
        "χ² by M2, M4",
    ]
    caption = (
        "Peaks: effective dislocation density with standard error, column length, range of the fit, χ² per degree of "
        "freedom. “(!)” marks moments that disagree."
    )
    return Table(caption, [*head, *([f"{_RHO} by M2, M4 (µm⁻²)"] if single else [])], rows)


def set_table(systems: DislocationSystems) -> Table:
    """The sparsest sets, smallest deviation first within a size."""
    rows = [
        [
            " + ".join(each.labels),
            ", ".join(
                f"{label} {density:.0f}" for label, density in zip(each.labels, each.density_per_um2, strict=True)
            ),
            f"{each.density_per_um2.sum():.0f}",
            f"{100 * each.deviation:.1f}",
            f"{1e-3 * each.energy_kJ_per_m3:.1f}",
        ]
        for each in systems.sets[:_SETS_SHOWN]
    ]
    more = len(systems.sets) - len(rows)
    caption = (
        f"Sparsest sets with no peak off by more than {100 * systems.tolerance:.0f} %: all of the smallest size, then "
        "of the next." + (f" The next {more} are in result.json." if more > 0 else "")
    )
    head = ["Systems", "Densities (µm⁻²)", "Total (µm⁻²)", "Largest deviation (%)", f"Σ K b² {_RHO} (MJ m⁻³)"]
    return Table(caption, head, rows, 2)


def system_table(systems: DislocationSystems) -> Table:
    """One row a system."""
    low, median, high = np.percentile(systems.samples_per_um2, [5, 50, 95], axis=0)
    rows = [
        [
            label,
            f"{systems.energy_nJ_per_m[i]:.1f}",
            f"{systems.density_per_um2[i]:.0f}",
            f"{systems.samples_per_um2[:, i].mean():.0f} ± {systems.std_per_um2[i]:.0f}",
            f"{median[i]:.0f} ({low[i]:.0f} to {high[i]:.0f})",
            f"{100 * systems.added_alone[i]:.1f}",
            f"{100 * systems.added_refitted[i]:.1f}",
        ]
        for i, label in enumerate(systems.labels)
    ]
    head = [
        "System",
        "K b² (nJ m⁻¹)",
        "Least squares (µm⁻²)",
        "Mean ± std. dev. (µm⁻²)",
        "Median, 5 to 95 % (µm⁻²)",
        "+100 µm⁻²: deviation (%)",
        "the same, others refitted (%)",
    ]
    caption = (
        "Systems: energy, densities, and the largest deviation of a peak when 100 µm⁻² of a system are added to the "
        f"least-squares densities (where it is {100 * systems.deviation:.1f} %)."
    )
    return Table(caption, head, rows)


def _plot_moment(ax: Axes, peak: PeakAnalysis, order: Order) -> None:
    fit = peak.M2 if order == 2 else peak.M4
    colour = MOMENT_COLOUR[f"M{order}"]
    q, measured = peak.moment(order)
    power, unit = (0, 1e3) if order == 2 else (2, 1e4)
    inside = np.linspace(fit.q_min, fit.q_max, 200)
    ax.axvspan(fit.q_min, fit.q_max, color=FAINT, alpha=0.13, linewidth=0)
    ax.plot(q, unit * measured / q**power, color=INK, linewidth=2.4, alpha=0.45)
    ax.plot(inside, unit * fit(inside) / inside**power, color=colour, linewidth=1.3)
    shown = unit * measured[q > 0.3 * fit.q_min] / q[q > 0.3 * fit.q_min] ** power
    ax.set_ylim(*_reach(shown))
    ax.set_xlim(0, 1.02 * fit.q_max)
    ax.set_ylabel("$M_2$ (10⁻³ nm⁻²)" if order == 2 else "$M_4/q^2$ (10⁻⁴ nm⁻²)")


def _reach(values: Float) -> tuple[float, float]:
    low, high = min(0.0, float(values.min())), float(values.max())
    return low, high + 0.08 * (high - low)


def _grid(n: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """The first n axes of a grid."""
    rows = -(-n // columns)
    figure = Figure(figsize=(columns * width + 0.9, rows * height + 0.4), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(n)]


def _ranked(systems: DislocationSystems) -> list[tuple[str, str]]:
    """Systems of the least-squares solution with their densities, the densest first."""
    order = np.argsort(-systems.density_per_um2)
    return [
        (systems.labels[i], f"{systems.density_per_um2[i]:.0f}") for i in order if systems.density_per_um2[i] >= 0.5
    ]


def _with_error(value: float, error: float) -> str:
    """A value and its standard error, both to two digits of the error.

    >>> _with_error(401.7, 13.2)
    '402 ± 13'
    """
    decimals = int(np.clip(1 - np.floor(np.log10(error)), 0, 4)) if error > 0 else 4
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
