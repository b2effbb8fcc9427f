"""The page of `kinetics`: the laws with their bands, local rate constants, and every frame beside its model."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chemomech.arrays import Float
from chemomech.learn.arrow import CONVERGED
from chemomech.learn.kinetics import KineticsResult, ParticleKinetics
from chemomech.learn.kinetics_validation import CrossValidation
from chemomech.observe.video import MINUTES_AN_HOUR, HalfCycle
from chemomech.phasefield.reaction_theory import autocatalytic_rate, coupled_ion_electron_transfer, uniformity
from chemomech.progress import progress
from chemomech.report import tables
from chemomech.report.page import Gallery, Picture, render
from chemomech.report.sheet import COMPOSITION, MAGNITUDE, SIGNED, Limits, Sheet, box_of, show, symmetric_limits
from chemomech.report.style import FAINT, INK, STYLE, new_axes, shortened
from chemomech.report.tables import Table

#: Colour-blind-safe (Okabe & Ito 2008).
_LAW, _REFERENCE = "#0072B2", "#D55E00"
#: Of the largest exchange current learned, how far up it is shown.
_MOST_SHOWN = 3.0
#: Width of the range of compositions at which j0 may be largest, beyond which the videos do not say where it is.
_UNKNOWN_PEAK = 0.5
#: Particles whose frames the page shows; the map of ln k shows all.
_MOST_IN_FULL = 12
_MOST_FRAMES = 8
# Inches.
_MARGIN, _HEAD, _TITLE, _FOOT, _GAP, _BAR = 0.1, 0.34, 0.22, 0.55, 0.06, 0.09
_WIDEST, _TALLEST, _LABEL = 1.05, 1.05, 0.62
_MAP_WIDTH, _MAP_HEIGHT, _MAP_COLUMNS = 2.1, 1.5, 4


def write_report(folder: Path, result: KineticsResult, *, inputs: Sequence[Path]) -> None:
    """Write report.html, which needs no other file, into an existing folder.

    Parameters
    ----------
    inputs : the files read, for name, size and fingerprint.

    >>> write_report(Path("out"), result, inputs=[Path("video.h5")])
    """
    middle = len(result.composition) // 2
    log_j0, half_width = float(result.log_j0[middle]), float(result.log_j0_half_width[middle])
    shown = list(result.particles)[:_MOST_IN_FULL]
    n_films = sum(len(result.particles[name].particle.half_cycles) for name in shown)
    with progress("figures", 7 + bool(result.cross_validation) + n_films) as advance:
        gallery = Gallery(advance)
        page = render(
            "kinetics.html.j2",
            result=result,
            n_pixels=sum(len(each.log_k) for each in result.particles.values()),
            n_films=sum(len(each.particle.half_cycles) for each in result.particles.values()),
            peak=result.composition[int(result.log_j0.argmax())],
            converged=CONVERGED,
            peaks=_where_it_may_be_largest(result),
            j0_half=math.exp(log_j0),
            j0_half_band=(math.exp(log_j0 - half_width), math.exp(log_j0 + half_width)),
            j0_figure=gallery.add_axes(plot_exchange_current(result), "j0", "Exchange current against composition."),
            mu_figure=gallery.add_axes(
                plot_chemical_potential(result), "mu", "Homogeneous chemical potential against composition."
            ),
            k_figure=gallery.add(plot_log_k(result), "log_k", "Maps of ln k of every particle."),
            k_deviation_figure=gallery.add(
                plot_log_k_deviation(result), "log_k_deviation", "Maps of the standard deviation of ln k."
            ),
            s_figure=gallery.add_axes(
                plot_autocatalytic_rate(result), "autocatalysis", "Autocatalytic rate against composition."
            ),
            uniformity_figure=gallery.add_axes(
                plot_uniformity(result), "uniformity", "Uniformity coefficient of data and model."
            ),
            validation_figure=gallery.add_axes(
                plot_validation(result.cross_validation), "validation", "Errors of half-cycles left out."
            )
            if result.cross_validation
            else None,
            error_figure=gallery.add_axes(plot_errors(result), "errors", "Histogram of model less data."),
            films=[film for name in shown for film in _films(gallery, result, name)],
            n_hidden=len(result.particles) - len(shown),
            particle_table=particle_table(result),
            provenance=[assumption_table(result), tables.input_table(inputs), tables.version_table()],
        )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _where_it_may_be_largest(result: KineticsResult) -> tuple[float, float] | None:
    """Where the band of j0 reaches the highest of its lower edges, from and to; None if these are far apart."""
    low, high = result.log_j0 - result.log_j0_half_width, result.log_j0 + result.log_j0_half_width
    possible = result.composition[high >= low.max()]
    lowest, highest = float(possible[0]), float(possible[-1])
    return (lowest, highest) if highest - lowest < _UNKNOWN_PEAK else None


@rc_context(STYLE)
def plot_exchange_current(result: KineticsResult, ax: Axes | None = None) -> Axes:
    """j0(c) with its 99 % band, beside sqrt(c (1 - c)) and ion-electron transfer of the same largest value."""
    ax = ax or new_axes(4.6, 3.3)
    c, log_j0, half = result.composition, result.log_j0, result.log_j0_half_width
    ax.fill_between(c, np.exp(log_j0 - half), np.exp(log_j0 + half), color=_LAW, alpha=0.22, linewidth=0)
    ax.plot(c, np.exp(log_j0), color=_LAW, label="learned, 99 % band")
    ax.plot(
        c,
        2 * np.exp(log_j0.max()) * np.sqrt(c * (1 - c)),
        color=_REFERENCE,
        linestyle="--",
        linewidth=1,
        label=r"$\propto\sqrt{c(1-c)}$",
    )
    theory = coupled_ion_electron_transfer(c)
    ax.plot(c, np.exp(log_j0.max()) * theory / theory.max(), color=INK, linestyle=":", linewidth=1, label="CIET")
    if result.log_j0_bootstrap is not None:
        for sign in (-1, 1):
            label = "bootstrap" if sign > 0 else None
            edge = np.exp(log_j0 + sign * result.log_j0_bootstrap)
            ax.plot(c, edge, color=_LAW, linewidth=0.6, alpha=0.7, label=label)
    ax.set_ylabel("Exchange current $j_0$ (h⁻¹)")
    # A few particles drawn anew say nothing of the ends, and their band would leave no room for the law.
    widest = half if result.log_j0_bootstrap is None else np.maximum(half, result.log_j0_bootstrap)
    ax.set_ylim(0, min(1.05 * np.exp(log_j0 + widest).max(), _MOST_SHOWN * np.exp(log_j0.max())))
    return _finish(ax)


@rc_context(STYLE)
def plot_chemical_potential(result: KineticsResult, ax: Axes | None = None) -> Axes:
    """mu_h(c) less its mean with its 99 % band, beside the regular solution closest to it."""
    ax = ax or new_axes(4.6, 3.3)
    c, mu, half = result.composition, result.mu_kT, result.mu_half_width
    ideal = np.log(c / (1 - c))
    slope, offset = np.polyfit(1 - 2 * c, mu - ideal, 1)
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.fill_between(c, mu - half, mu + half, color=_LAW, alpha=0.22, linewidth=0)
    ax.plot(c, mu, color=_LAW, label="learned, 99 % band")
    ax.plot(
        c,
        ideal + slope * (1 - 2 * c) + offset,
        color=_REFERENCE,
        linestyle="--",
        linewidth=1,
        label=rf"regular solution, $\Omega$ = {slope:.2f} $kT$",
    )
    ax.set_ylabel(r"Chemical potential $\mu_h$ less its mean ($kT$)")
    return _finish(ax)


@rc_context(STYLE)
def plot_autocatalytic_rate(result: KineticsResult, ax: Axes | None = None) -> Axes:
    """s = dR/dc at the mean rates of charge and discharge; domains grow where it is positive."""
    ax = ax or new_axes(4.6, 3.3)
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    for mode, colour in (("discharge", _LAW), ("charge", _REFERENCE)):
        rates = [
            np.ptp(half.li_fraction.mean(axis=1)) / np.ptp(half.time_h) * (1 if mode == "discharge" else -1)
            for each in result.particles.values()
            for half in each.particle.half_cycles
            if half.mode == mode
        ]
        if rates:
            rate = float(np.mean(rates))
            s = autocatalytic_rate(result.law, result.composition, rate)
            ax.plot(result.composition, s, color=colour, label=f"{mode}, {tables.signed(rate, 2)} h⁻¹")
    ax.set_ylabel("Autocatalytic rate $s$ (h⁻¹)")
    return _finish(ax)


@rc_context(STYLE)
def plot_uniformity(result: KineticsResult, ax: Axes | None = None) -> Axes:
    """Uniformity coefficient of all frames: data less noise (dots) and model (lines), against the mean composition."""
    ax = ax or new_axes(4.6, 3.3)
    labelled: set[str] = set()
    for each in result.particles.values():
        for half in each.particle.half_cycles:
            colour = _LAW if half.mode == "discharge" else _REFERENCE
            label = None if half.mode in labelled else half.mode
            labelled.add(half.mode)
            model = each.model[half.name]
            ax.plot(half.li_fraction.mean(axis=1), uniformity(half.li_fraction, result.noise), ".", color=colour, ms=4)
            ax.plot(model.mean(axis=1), uniformity(model), color=colour, linewidth=0.8, alpha=0.7, label=label)
    ax.set_ylabel("Uniformity coefficient")
    ax.set_ylim(top=1.05)
    _finish(ax)
    ax.set_xlabel("Mean Li fraction of a frame")
    return ax


@rc_context(STYLE)
def plot_validation(found: CrossValidation, ax: Axes | None = None) -> Axes:
    """Errors of half-cycles left out and of those fitted against rho_2, and the one chosen."""
    ax = ax or new_axes(4.6, 3.3)
    ax.errorbar(found.rho, found.error, found.standard_error, color=_LAW, marker="o", ms=3, label="left out")
    ax.plot(found.rho, found.training, color=_REFERENCE, marker="o", ms=3, linewidth=1, label="fitted")
    ax.axvline(found.chosen, color=FAINT, linewidth=0.8, linestyle="--", label="chosen")
    ax.set_xscale("log")
    ax.set_xlabel(r"Regularisation $\rho_2$")
    ax.set_ylabel("Mean squared error over noise²")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return ax


@rc_context(STYLE)
def plot_errors(result: KineticsResult, ax: Axes | None = None) -> Axes:
    """Distribution of model less data over all pixels and frames, beside that of the noise alone."""
    ax = ax or new_axes(4.6, 3.3)
    errors = np.concatenate([each.errors for each in result.particles.values()])
    reach = 4.5 * max(result.noise, result.rmse)
    ax.hist(errors, bins=60, range=(-reach, reach), density=True, color=_LAW, alpha=0.45, label="model less data")
    x = np.linspace(-reach, reach, 301)
    normal = np.exp(-((x / result.noise) ** 2) / 2) / (result.noise * np.sqrt(2 * np.pi))
    ax.plot(x, normal, color=INK, linewidth=1.1, label=f"noise of {result.noise:.3g}")
    ax.set_xlabel("Error of the Li fraction")
    ax.set_ylabel("Density")
    ax.legend(loc="upper right")
    return ax


def plot_log_k(result: KineticsResult) -> Figure:
    """ln k of every particle on one scale."""
    maps = {name: each.log_k for name, each in result.particles.items()}
    limits = symmetric_limits(np.concatenate(list(maps.values())))
    return _plot_maps(result, maps, SIGNED, limits, r"Local rate constant, $\ln k$")


def plot_log_k_deviation(result: KineticsResult) -> Figure:
    """The standard deviation of ln k of every particle on one scale."""
    maps = {name: each.log_k_deviation for name, each in result.particles.items()}
    limits = (0.0, symmetric_limits(np.concatenate(list(maps.values())))[1])
    return _plot_maps(result, maps, MAGNITUDE, limits, r"Standard deviation of $\ln k$")


@rc_context(STYLE)
def _plot_maps(result: KineticsResult, maps: dict[str, Float], colours: str, limits: Limits, label: str) -> Figure:
    """One map (n_pixels,) of every particle, four in a row above their colour bar."""
    n_columns = min(len(maps), _MAP_COLUMNS)
    n_rows = -(-len(maps) // n_columns)
    pitch = _TITLE + _MAP_HEIGHT + 0.28
    sheet = Sheet(2 * _MARGIN + n_columns * (_MAP_WIDTH + 0.15), _MARGIN + n_rows * pitch + _FOOT)
    for i, (name, values) in enumerate(maps.items()):
        particle = result.particles[name].particle
        left = _MARGIN + (i % n_columns) * (_MAP_WIDTH + 0.15)
        top = _MARGIN + _TITLE + (i // n_columns) * pitch
        rows, columns = box_of(particle.mask)
        ax = sheet.axes(left, top, _MAP_WIDTH, _MAP_HEIGHT)
        ax.set_anchor("SW")
        image = show(ax, particle.to_map(values)[rows, columns], colours, limits)
        sheet.text(left, top - 0.19, shortened(name, 20), math=False)
        ny, nx = particle.mask[rows, columns].shape
        per_nm = min(_MAP_WIDTH / nx, _MAP_HEIGHT / ny) / particle.pixel_size_nm
        sheet.scale_bar(left, top + _MAP_HEIGHT + 0.06, per_nm, 0.6 * _MAP_WIDTH)
    cax = sheet.axes(_MARGIN, sheet.height - 0.5, 2 * _MAP_WIDTH if n_columns > 2 else 0.8 * _MAP_WIDTH, _BAR)
    sheet.colour_bar(cax, image, np.concatenate(list(maps.values())), orientation="horizontal")
    cax.set_xlabel(label, labelpad=1, fontsize=8.5)
    return sheet.figure


@rc_context(STYLE)
def plot_film(result: KineticsResult, name: str, half: HalfCycle) -> Figure:
    """Frames of one half-cycle: data above, model in the middle, model less data below."""
    each = result.particles[name]
    particle = each.particle
    frames = np.unique(np.linspace(0, len(half.time_h) - 1, _MOST_FRAMES).round().astype(int))
    rows, columns = box_of(particle.mask)
    ny, nx = particle.mask[rows, columns].shape
    scale = min(_WIDEST / nx, _TALLEST / ny)
    width, height = max(nx * scale, 0.45), max(ny * scale, 0.3)
    lefts = _MARGIN + _LABEL + (width + _GAP) * np.arange(len(frames))
    tops = _HEAD + _TITLE + (height + _GAP) * np.arange(3)
    sheet = Sheet(lefts[-1] + width + _MARGIN, tops[-1] + height + _FOOT)
    error = each.model[half.name] - half.li_fraction
    limits: Limits = (-4 * result.noise, 4 * result.noise)
    for top, label in zip(tops, ("data", "model", "error"), strict=True):
        sheet.text(_MARGIN, top + height / 2 - 0.08, label)
    for left, i in zip(lefts, frames, strict=True):
        sheet.text(left, _HEAD, f"{half.time_h[i] * MINUTES_AN_HOUR:.3g} min")
        for top, values in zip(tops[:2], (half.li_fraction[i], each.model[half.name][i]), strict=True):
            composition = show(
                sheet.axes(left, top, width, height), particle.to_map(values)[rows, columns], COMPOSITION, (0, 1)
            )
        signed = show(
            sheet.axes(left, tops[2], width, height), particle.to_map(error[i])[rows, columns], SIGNED, limits
        )
    rmse = float(np.sqrt(np.mean(error**2)))
    sheet.text(_MARGIN, 0.08, shortened(f"{name}, half-cycle {half.name}", 40), size=10, bold=True, math=False)
    sheet.text(lefts[min(2, len(lefts) - 1)], 0.1, f"{half.mode}, RMSE {rmse:.4f}")
    below = tops[-1] + height + 0.1
    per_nm = min(width / nx, height / ny) / particle.pixel_size_nm
    sheet.scale_bar(_MARGIN, below, per_nm, 0.6 * width)
    span = lefts[-1] + width - lefts[0]
    for left, image, values, label in (
        (lefts[0] + 0.3, composition, half.li_fraction, "Li fraction $c$"),
        (lefts[0] + 0.55 * span, signed, error, "Model less data"),
    ):
        cax = sheet.axes(left, below, 0.35 * span, _BAR)
        sheet.colour_bar(cax, image, values, orientation="horizontal")
        cax.set_xlabel(label, labelpad=1, fontsize=8.5)
    return sheet.figure


def assumption_table(result: KineticsResult) -> Table:
    """What the laws depend on and the videos do not say."""
    video = result.video
    rows = [
        ["kappa / (c_s kT)", f"{video.gradient_nm2:.4g} nm²"],
        ["Standard deviation of a pixel's noise", f"{video.noise:.4g}"],
        ["Symmetry factor alpha", f"{video.alpha:.3g}"],
        ["Elastic energy of coherency", "off" if video.coherency is None else "on"],
        ["Edge of the particles", "no flux" if video.boundary == "no_flux" else "composition of the frames"],
        ["Binodal that mu_h is held to", "none" if video.binodal is None else f"{video.binodal:.4g}"],
        ["Orders of the series of mu_h and ln j0", f"{len(result.law.mu) - 1} and {len(result.law.log_j0) - 1}"],
    ]
    return Table("Assumed, not learned; the bands know nothing of errors in these.", ["What", "Value"], rows)


def particle_table(result: KineticsResult) -> Table:
    """Pixels, misfits and local rate constants of every particle."""
    rows = [_row(name, each) for name, each in result.particles.items()]
    head = ["Particle", "Pixels", "Half-cycles", "RMSE", "Mean ln k", "Spread of ln k", "Uncertainty of ln k"]
    if result.cross_validation:
        head.append("Correlation between half-cycles")
        between = result.cross_validation.consistency
        for row, name in zip(rows, result.particles, strict=True):
            row.append(tables.signed(between[name], 2) if name in between else "")
    if any(each.external_correlation is not None for each in result.particles.values()):
        head.append("Correlation of k with external map")
        for row, each in zip(rows, result.particles.values(), strict=True):
            row.append("" if each.external_correlation is None else tables.signed(each.external_correlation, 2))
    about = "Particles. Spread: standard deviation over the pixels; uncertainty: standard deviation of a pixel."
    return Table(about, head, rows, 1)


def _row(name: str, each: ParticleKinetics) -> list[str]:
    halves = each.particle.half_cycles
    return [
        shortened(name, 30),
        str(len(each.log_k)),
        str(len(halves)),
        f"{each.rmse:.4f}",
        tables.signed(float(each.log_k.mean()), 2),
        f"{each.log_k.std():.2f}",
        f"{np.sqrt(np.mean(each.log_k_deviation**2)):.2f}",
    ]


def _films(gallery: Gallery, result: KineticsResult, name: str) -> list[tuple[str, Picture]]:
    films = []
    for half in result.particles[name].particle.half_cycles:
        alt = f"Frames of particle {name}, half-cycle {half.name}: data, model, error."
        picture = gallery.add(plot_film(result, name, half), f"film_{name}_{half.name}", alt)
        films.append((f"{name}, half-cycle {half.name}: {half.mode}", picture))
    return films


def _finish(ax: Axes) -> Axes:
    ax.set_xlim(0, 1)
    ax.set_xlabel("Li fraction $c$")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return ax
