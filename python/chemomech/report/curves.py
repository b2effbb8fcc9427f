"""The learned law as curves, and the numbers that say how far to trust it.

Every function draws on the axes it is given, or on those of a new figure, and returns them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.learn.dislocation_density import DislocationResult, frobenius_norm
from chemomech.learn.eigenstrain import EigenstrainResult
from chemomech.report.style import AXIS_COLOUR, AXIS_SHADE, FAINT, INK, STYLE, figure_of, new_axes, shortened
from chemomech.units import SQUARE_UM


@dataclass(frozen=True)
class ModelStyle:
    """How a model is named and drawn: its line, the opacity of its band, its colours along a and c."""

    name: str
    line: Mapping[str, Any]
    band: float
    colour: Mapping[str, str]


#: M1 is drawn solid below, M0 in dashes and M2 in dots on top of it.
MODEL_STYLE = {
    "M0": ModelStyle(
        "M0, direct regression", {"linestyle": (0, (4, 2.5)), "linewidth": 1.1, "zorder": 3}, 0.14, AXIS_SHADE
    ),
    "M1": ModelStyle("M1, elastic equilibrium", {"linestyle": "-", "linewidth": 1.9, "zorder": 2}, 0.28, AXIS_COLOUR),
    "M2": ModelStyle(
        "M2, with dislocations", {"linestyle": (0, (1, 1.6)), "linewidth": 1.6, "zorder": 4}, 0.0, AXIS_SHADE
    ),
}
#: A figure names no more particles than this.
_MOST_NAMES = 12


@rc_context(STYLE)
def plot_law(result: EigenstrainResult, ax: Axes | None = None) -> Axes:
    """Eigenstrain f(X) along a and c in %, with point-wise 95 % bands (Deng, fig. 2g)."""
    ax = ax or new_axes(5.2, 3.9)
    composition = np.linspace(0, 1, 201)
    for model, law in result.laws.items():
        _bands(ax, composition, law(composition), law.band(composition), model)
    _finish_law(ax, result, r"Eigenstrain $f$ (%)")
    return ax


@rc_context(STYLE)
def plot_expansion(result: EigenstrainResult, ax: Axes | None = None) -> Axes:
    """Chemical expansion coefficient df/dX along a and c in %, with point-wise 95 % bands (Deng, fig. 2h)."""
    ax = ax or new_axes(5.2, 3.9)
    composition = np.linspace(0, 1, 201)
    for model, law in result.laws.items():
        _bands(ax, composition, law.derivative(composition), law.derivative_band(composition), model)
    _finish_law(ax, result, r"Chemical expansion coefficient d$f$/d$X$ (%)")
    return ax


@rc_context(STYLE)
def plot_regression(result: EigenstrainResult, axis: Literal["a", "c"], ax: Axes | None = None) -> Axes:
    """Measured strain in % against composition, pixels per bin, with the laws on it (Deng, fig. 2d-f).

    Parameters
    ----------
    axis : the crystal axis whose strain is shown.
    """
    ax = ax or new_axes(5.2, 3.9)
    particles = [particle.maps for particle in result.particles.values()]
    channel = "ac".index(axis)
    composition = np.concatenate([maps.composition[maps.mask] for maps in particles])
    strain = 100 * np.concatenate([maps.distortion[maps.mask][:, channel] for maps in particles])
    _, _, _, density = ax.hist2d(
        composition,
        strain,
        bins=(90, 70),
        range=(_reach(composition), _reach(strain)),
        cmin=1,
        norm=LogNorm(),
        cmap="Greys",
    )
    bar = figure_of(ax).colorbar(density, ax=ax, aspect=30, pad=0.02)
    bar.set_label("Pixels per bin")
    bar.outline.set_visible(False)
    curve = np.linspace(0, 1, 201)
    for model, law in result.laws.items():
        values = 100 * law(curve)[:, channel]
        style = MODEL_STYLE[model]
        ax.plot(curve, values, color=style.colour[axis], label=style.name, **style.line)
    ax.set_xlabel("Composition $X$ (Li per formula unit)")
    ax.set_ylabel(rf"Measured strain $\varepsilon_{{{axis}{axis}}}$ (%)")
    ax.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), columnspacing=1.6)
    return ax


@rc_context(STYLE)
def plot_order_selection(result: EigenstrainResult, ax: Axes | None = None) -> Axes:
    """Root-mean-square misfit against the Legendre order, on fitted and on held-out particles (Deng SI, fig. S7).

    Raises
    ------
    InputError : the order was given, so that none was selected.
    """
    if not result.order_selection:
        raise InputError(f"order {result.order} was given: there is no order selection to plot")
    ax = ax or new_axes(5.2, 3.4)
    orders = [score.order for score in result.order_selection]
    test = [score.test for score in result.order_selection]
    ax.axvline(result.order, color=FAINT, linewidth=6, alpha=0.22, solid_capstyle="butt", zorder=0)
    ax.plot(
        orders, [s.train for s in result.order_selection], "o--", color=FAINT, markerfacecolor="white", label="Fitted"
    )
    ax.plot(orders, test, "o-", color=INK, label="Held out")
    ax.annotate(
        f"order {result.order} {'given' if result.order_given else 'chosen'}",
        (result.order, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
    )
    ax.margins(x=0.12, y=0.16)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("Legendre order $N$")
    ax.set_ylabel("RMS displacement misfit (nm)" if result.main == "M1" else "RMS strain misfit (noise std. dev.)")
    ax.legend(loc="best")
    return ax


@rc_context(STYLE)
def plot_model_errors(result: EigenstrainResult, ax: Axes | None = None) -> Axes:
    """Mean Frobenius norm of the residual strain by model, in 1e-3 (Deng, fig. 3e)."""
    ax = ax or new_axes(5.2, 0.9 + 0.55 * len(result.model_error))
    models = list(result.model_error)
    errors = [1e3 * error for error in result.model_error.values()]
    ax.barh(range(len(models)), errors, height=0.6, color=[FAINT if model == "M0" else INK for model in models])
    for row, (model, error) in enumerate(zip(models, errors, strict=True)):
        note = f"{error:.2f}"
        if model != "M0" and "M0" in result.model_error:
            note += f"  ({relative_to_M0(result, model)})"
        ax.annotate(note, (error, row), xytext=(5, 0), textcoords="offset points", va="center")
    ax.invert_yaxis()
    ax.set_yticks(range(len(models)), [MODEL_STYLE[model].name.replace(", ", "\n") for model in models])
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.42)
    ax.set_xlim(left=0)
    ax.set_xlabel("Mean residual strain (10$^{-3}$)")
    return ax


@rc_context(STYLE)
def plot_incompatibility(result: EigenstrainResult, ax: Axes | None = None) -> Axes:
    """RMS incompatibility of the residual strain against mean composition, 1/um^2 (Deng, fig. 3d).

    Short grey lines are what white noise of the estimated size gives; particles whose RMS is NaN are left out.
    """
    ax = ax or new_axes(5.2, 3.9)
    shown = {name: p for name, p in result.particles.items() if np.isfinite(p.rms_incompatibility_per_nm2)}
    composition = np.array([particle.maps.mean_composition for particle in shown.values()])
    rms = SQUARE_UM * np.array([particle.rms_incompatibility_per_nm2 for particle in shown.values()])
    expected = SQUARE_UM * np.array([noise_incompatibility(result, name) for name in shown])
    held_out = np.array([particle.held_out for particle in shown.values()], dtype=bool)
    ax.plot(composition, expected, "_", color=FAINT, markersize=16, markeredgewidth=1.6, label="Noise alone")
    for chosen, face, label in ((~held_out, INK, "Fitted particle"), (held_out, "white", "Held-out particle")):
        if chosen.any():
            ax.plot(composition[chosen], rms[chosen], "o", color=INK, markerfacecolor=face, markersize=5.5, label=label)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.3 * max(rms.max(), expected.max()) if rms.size else 1)
    ax.set_xlabel(r"Mean composition $\bar X$ (Li per formula unit)")
    ax.set_ylabel("RMS incompatibility (µm$^{-2}$)")
    ax.legend(loc="lower right" if composition.sum() < 0.5 * len(composition) else "lower left")
    _name_points(ax, list(shown), composition, rms)
    return ax


@rc_context(STYLE)
def plot_candidates(result: EigenstrainResult, ax: Axes | None = None) -> Axes:
    """Misfit of pixels that no density was fitted to, by kind of dislocation (Deng SI, fig. S6).

    Raises
    ------
    InputError : model M2 was not fitted.
    """
    found = fitted_dislocations(result)
    ax = ax or new_axes(5.2, 0.9 + 0.55 * len(found.candidates))
    for row, candidate in enumerate(found.candidates):
        chosen = candidate.burgers == found.burgers
        ax.barh(row, candidate.held_out_misfit, height=0.6, color=INK if chosen else FAINT)
        note = f"{candidate.held_out_misfit:.2f}"
        if candidate.burgers:
            note += rf"  (mean $|\rho|$ {SQUARE_UM * candidate.mean_abs_density_per_nm2:.0f} µm$^{{-2}}$)"
        ax.annotate(note, (candidate.held_out_misfit, row), xytext=(5, 0), textcoords="offset points", va="center")
    ax.axvline(1, color=FAINT, linewidth=0.8, linestyle="--", zorder=0)
    ax.invert_yaxis()
    ax.set_yticks(
        range(len(found.candidates)), [f"b = {each.burgers}" if each.burgers else "none" for each in found.candidates]
    )
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.5)
    ax.set_xlabel("RMS misfit of held-out pixels (noise std. dev.)")
    return ax


@rc_context(STYLE)
def plot_error_against_uncertainty(result: EigenstrainResult, ax: Axes | None = None) -> Axes:
    """Residual strain of M1 and M2 against the uncertainty that came with the maps (Deng SI, fig. S10).

    Means over pixels of like uncertainty. The dashed line is what noise of that size leaves: its mean norm.

    Raises
    ------
    InputError : model M2 was not fitted.
    """
    found = fitted_dislocations(result)
    ax = ax or new_axes(5.2, 3.4)
    deviation: list[Float] = []
    residual: dict[str, list[Float]] = {"M1": [], "M2": []}
    for name, particle in result.particles.items():
        given, mask = particle.maps.uncertainty, particle.maps.mask
        deviations = [given.get(channel, np.full(mask.shape, result.noise[channel])) for channel in ("aa", "cc", "ac")]
        deviation.append(frobenius_norm(np.stack(deviations, axis=-1))[mask])
        residual["M1"].append(frobenius_norm(particle.residual_strain)[mask])
        residual["M2"].append(frobenius_norm(found.particles[name].residual_strain)[mask])
    size = np.concatenate(deviation)
    edges = np.unique(np.quantile(size, np.linspace(0, 1, 11)))
    place = np.clip(np.searchsorted(edges, size, side="right") - 1, 0, max(len(edges) - 2, 0))
    count = np.bincount(place)
    middle = np.bincount(place, size) / count
    for model, marker, colour in (("M1", "s", FAINT), ("M2", "o", INK)):
        mean = np.bincount(place, np.concatenate(residual[model])) / count
        ax.plot(1e3 * middle, 1e3 * mean, marker + "-", color=colour, label=MODEL_STYLE[model].name)
    # The mean of the norm of three normal numbers is sqrt(8 / 3 pi) = 0.92 of their root mean square.
    ax.plot(1e3 * middle, 0.92e3 * middle, "--", color=FAINT, linewidth=0.9, label="noise alone")
    ax.set_ylim(bottom=0)
    ax.margins(x=0.1)
    ax.set_xlabel("Uncertainty of the strain tensor (10$^{-3}$)")
    ax.set_ylabel("Residual strain (10$^{-3}$)")
    ax.legend()
    return ax


def fitted_dislocations(result: EigenstrainResult) -> DislocationResult:
    """Those of model M2.

    Raises
    ------
    InputError : it was not fitted.
    """
    if result.dislocations is None:
        raise InputError("model M2 was not fitted: there are no dislocations to plot")
    return result.dislocations


def noise_incompatibility(result: EigenstrainResult, name: str) -> float:
    """RMS incompatibility, 1/nm^2, of pure white noise of the estimated size on one particle's pixels.

    The second differences of aa and cc have weights 1, -2, 1; the mixed one of 2 ac four weights of 1/4.
    """
    noise, pixel = result.noise, result.particles[name].maps.pixel_size_nm
    return float(np.sqrt(6 * noise["aa"] ** 2 + 6 * noise["cc"] ** 2 + noise["ac"] ** 2 / 4) / pixel**2)


def relative_to_M0(result: EigenstrainResult, model: str) -> str:
    """How far the model error lies from that of M0, in words."""
    change = 100 * (result.model_error[model] / result.model_error["M0"] - 1)
    return f"{abs(change):.1f} % {'below' if change <= 0 else 'above'} M0"


def _bands(ax: Axes, composition: Float, values: Float, band: Float, model: str) -> None:
    """Curves (n, 2) with their half-widths, shown in %."""
    style = MODEL_STYLE[model]
    for (axis, colour), value, half in zip(style.colour.items(), 100 * values.T, 100 * band.T, strict=True):
        ax.fill_between(composition, value - half, value + half, color=AXIS_COLOUR[axis], alpha=style.band, linewidth=0)
        ax.plot(composition, value, color=colour, **style.line)


def _finish_law(ax: Axes, result: EigenstrainResult, label: str) -> None:
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_xlim(0, 1)
    ax.margins(y=0.1)
    ax.set_xlabel("Composition $X$ (Li per formula unit)")
    ax.set_ylabel(label)
    styles = [MODEL_STYLE[model] for model in result.laws]
    models = [Line2D([], [], color=INK, label=style.name, **style.line) for style in styles]
    axes = [Line2D([], [], color=colour, linewidth=5, label=f"along {axis}") for axis, colour in AXIS_COLOUR.items()]
    ax.legend(handles=[*axes, *models], ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), columnspacing=1.6)


def _reach(values: Float) -> tuple[float, float]:
    """Limits that hold all but a few stray pixels."""
    low, high = np.percentile(values, [0.1, 99.9])
    margin = max(0.04 * (high - low), 1e-9)
    return float(low - margin), float(high + margin)


def _name_points(ax: Axes, names: list[str], x: Float, y: Float) -> None:
    """Name the highest points where nothing is covered, beside the point or on a short leader; else leave it out."""
    points = ax.transData.transform(np.column_stack([x, y])) * 72 / figure_of(ax).dpi
    taken = [(px - 4, py - 4, px + 4, py + 4) for px, py in points]
    for i in np.argsort(-y)[:_MOST_NAMES]:
        text = shortened(names[i], 16)
        width, height = 5.4 * len(text) + 2, 10.0
        near = [(7.0, -5.0), (-7 - width, -5.0), (-width / 2, 6.0), (-width / 2, -16.0)]
        far = [(dx - width / 2, dy) for dy in (18.0, -28.0, 30.0, -40.0) for dx in (0.0, 14.0, -14.0, 28.0, -28.0)]
        for dx, dy in near + far:
            left, bottom = points[i] + (dx, dy)
            right, top = left + width, bottom + height
            if not any(left < e and right > w and bottom < n and top > s for w, s, e, n in taken):
                leader = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkB": 4, "shrinkA": 0}
                ax.annotate(
                    text,
                    (x[i], y[i]),
                    xytext=(dx + width / 2, dy + height / 2),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    parse_math=False,
                    arrowprops=leader if (dx, dy) in far else None,
                )
                taken.append((left, bottom, right, top))
                break
