"""The page of `learn`, which a microscopist can put in front of a colleague: every figure and number inside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from chemomech.arrays import Float
from chemomech.learn.eigenstrain import EigenstrainResult
from chemomech.progress import progress
from chemomech.report import tables
from chemomech.report.curves import (
    fitted_dislocations,
    plot_candidates,
    plot_error_against_uncertainty,
    plot_expansion,
    plot_incompatibility,
    plot_law,
    plot_model_errors,
    plot_order_selection,
    plot_regression,
    relative_to_M0,
)
from chemomech.report.maps import plot_contact_sheet, plot_dislocations, plot_particle
from chemomech.report.page import Drawn, Gallery, Picture, drawn, render
from chemomech.tasks import Tasks, one_by_one
from chemomech.units import SQUARE_UM

#: Particles whose maps the page shows in full; when there are more, contact sheets show all of them.
_MOST_IN_FULL = 12
_PARTICLES_A_SHEET = 24
#: Particles whose maps stand open; the others wait behind a click.
_OPEN = 3


@dataclass(frozen=True)
class _Particle:
    """One particle's entry: its name, a line about it, its maps."""

    name: str
    caption: str
    picture: Picture


@dataclass(frozen=True)
class _Dislocations:
    """The section about model M2: the mean density in 1/um^2, figures, a table, and the maps of particles."""

    density: str
    figures: Sequence[Picture]
    table: tables.Table
    maps: Sequence[_Particle]


def write_report(
    folder: Path,
    result: EigenstrainResult,
    *,
    inputs: Sequence[Path],
    options: Mapping[str, str],
    extra_figures: Sequence[tuple[str, Figure]] = (),
    tasks: Tasks = one_by_one,
) -> None:
    """Write report.html, which needs no other file, and its figures as figures/*.png.

    Parameters
    ----------
    folder : an existing folder without a report.
    inputs : the files read, for name, size and fingerprint.
    options : the options of the run, as text.
    extra_figures : captions and figures to append.
    tasks : who draws the maps of the particles.

    >>> write_report(Path("out"), result, inputs=[Path("maps.h5")], options={"order": "auto"})
    """
    maps = _draw_maps(result, tasks)
    with progress("figures", 7 + len(extra_figures)) as advance:
        page = _page(Gallery(advance, folder / "figures"), result, maps, inputs, options, extra_figures)
    (folder / "report.html").write_text(page, encoding="utf-8")


#: What a task draws: a function of a result and the names of particles, and both.
_Drawing = tuple[Callable[..., Figure], EigenstrainResult, str | tuple[str, ...]]


_Maps = dict[tuple[str, str | tuple[str, ...]], Drawn]


def _draw_maps(result: EigenstrainResult, tasks: Tasks) -> _Maps:
    """Maps of the particles, by the name of the function that draws them and what it draws: most of the page's time."""
    names = list(result.particles)
    plots: list[tuple[Callable[..., Figure], str | tuple[str, ...]]] = []
    for name in names[:_MOST_IN_FULL]:
        plots.append((plot_particle, name))
        if result.dislocations:
            plots.append((plot_dislocations, name))
    plots += [(plot_contact_sheet, shown) for shown in _sheets(names)]
    items = [(plot, _only(result, shown), shown) for plot, shown in plots]
    pictures = tasks("maps of particles", _draw, items, lambda item: 6.0 if isinstance(item[2], str) else len(item[2]))
    found: _Maps = {}
    for (plot, shown), picture in zip(plots, pictures, strict=True):
        if isinstance(picture, Exception):
            raise picture
        found[plot.__name__, shown] = picture
    return found


def _draw(item: _Drawing) -> Drawn:
    plot, result, shown = item
    return drawn(plot(result, shown))


def _only(result: EigenstrainResult, shown: str | tuple[str, ...]) -> EigenstrainResult:
    """A result with few of its particles, which is little to send."""
    names = (shown,) if isinstance(shown, str) else shown
    found = result.dislocations
    if found:
        found = replace(found, particles={name: found.particles[name] for name in names})
    return replace(result, particles={name: result.particles[name] for name in names}, dislocations=found)


def _sheets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The names on each contact sheet; none where all particles are shown in full."""
    if len(names) <= _MOST_IN_FULL:
        return []
    return [tuple(names[start : start + _PARTICLES_A_SHEET]) for start in range(0, len(names), _PARTICLES_A_SHEET)]


def _page(
    gallery: Gallery,
    result: EigenstrainResult,
    maps: _Maps,
    inputs: Sequence[Path],
    options: Mapping[str, str],
    extra_figures: Sequence[tuple[str, Figure]],
) -> str:
    model = result.main
    law = result.laws[model]
    names = list(result.particles)
    return render(
        "eigenstrain.html.j2",
        result=result,
        model=model,
        expansion=_expansion(result, model),
        swelling=_along(law(0.0), law.band(0.0)),
        with_dislocations=_expansion(result, "M2") if "M2" in result.laws else None,
        n_pixels=sum(int(particle.maps.mask.sum()) for particle in result.particles.values()),
        n_particles=len(names),
        held_out=[name for name, particle in result.particles.items() if particle.held_out],
        comparison=relative_to_M0(result, "M1") if {"M0", "M1"} <= set(result.laws) else "",
        law_figures=[
            gallery.add_axes(
                plot_law(result), "law", "Eigenstrain along a and c against composition, with 95 % bands."
            ),
            gallery.add_axes(
                plot_expansion(result),
                "expansion",
                "Chemical expansion coefficient along a and c against composition, with 95 % bands.",
            ),
        ],
        regression_figures=[
            gallery.add_axes(
                plot_regression(result, axis),
                f"regression_{axis}",
                f"Density of pixels by composition and measured strain along {axis}, with the laws on it.",
            )
            for axis in ("a", "c")
        ],
        order_figure=_order_figure(gallery, result),
        error_figure=gallery.add_axes(
            plot_model_errors(result),
            "model_errors",
            "Mean residual strain: "
            + ", ".join(f"{name} {1e3 * error:.2f}e-3" for name, error in result.model_error.items()),
        ),
        incompatibility_figure=gallery.add_axes(
            plot_incompatibility(result),
            "incompatibility",
            "RMS incompatibility of the residual strain of each particle against its mean composition.",
        ),
        dislocations=_dislocations(gallery, result, maps) if result.dislocations else None,
        particles=[_particle(gallery, result, name, maps) for name in names[:_MOST_IN_FULL]],
        n_open=_OPEN,
        contact_sheets=_contact_sheets(gallery, names, maps),
        extra_figures=[
            (caption, gallery.add(figure, f"extra_{i}", caption))
            for i, (caption, figure) in enumerate(extra_figures, 1)
        ],
        law_table=tables.law_table(result),
        coefficient_table=tables.coefficient_table(result),
        covariance_tables=[tables.covariance_table(result, name) for name in sorted(result.uncertainty, reverse=True)],
        noise_table=tables.noise_table(result),
        particle_table=tables.particle_table(result),
        provenance=[tables.input_table(inputs), tables.option_table(options), tables.version_table()],
    )


def _dislocations(gallery: Gallery, result: EigenstrainResult, drawings: _Maps) -> _Dislocations:
    found = fitted_dislocations(result)
    figures = [
        gallery.add_axes(
            plot_candidates(result),
            "candidates",
            "Misfit of held-out pixels: "
            + ", ".join(f"{each.burgers or 'none'} {each.held_out_misfit:.2f}" for each in found.candidates),
        )
    ]
    if any({"aa", "cc", "ac"} & set(particle.maps.uncertainty) for particle in result.particles.values()):
        alt = "Mean residual strain of models M1 and M2 against the uncertainty of the measured strain."
        figures.append(gallery.add_axes(plot_error_against_uncertainty(result), "error_against_uncertainty", alt))
    maps = []
    for name in list(result.particles)[:_MOST_IN_FULL]:
        own = found.particles[name]
        caption = f"mean density {_density(own.mean_abs_density_per_nm2, own.mean_abs_of_noise_per_nm2)}"
        alt = f"Maps of particle {name}: dislocation density, its curl, and residual, dislocation, unexplained strain."
        picture = gallery.keep(drawings["plot_dislocations", name], f"dislocations_{name}", alt)
        maps.append(_Particle(name, caption, picture))
    density = _density(found.mean_abs_density_per_nm2, found.mean_abs_of_noise_per_nm2)
    return _Dislocations(density, figures, tables.dislocation_table(found), maps)


def _density(per_nm2: float, of_noise: float) -> str:
    return f"{SQUARE_UM * per_nm2:.0f} µm⁻² (noise alone: {SQUARE_UM * of_noise:.0f})"


def _order_figure(gallery: Gallery, result: EigenstrainResult) -> Picture | None:
    if not result.order_selection:
        return None
    alt = f"Root-mean-square misfit against Legendre order; order {result.order} was chosen."
    return gallery.add_axes(plot_order_selection(result), "order_selection", alt)


def _particle(
    gallery: Gallery,
    result: EigenstrainResult,
    name: str,
    maps: _Maps,
) -> _Particle:
    particle = result.particles[name]
    caption = f"mean X {particle.maps.mean_composition:.2f}, {particle.maps.mask.sum()} pixels"
    if np.isfinite(particle.rms_incompatibility_per_nm2):
        caption += f", RMS incompatibility {tables.incompatibility(particle.rms_incompatibility_per_nm2)} µm⁻²"
    if particle.held_out:
        caption += ", held out of the fit"
    alt = f"Maps of particle {name}: composition, rotation, incompatibility, and strains aa, cc and ac."
    return _Particle(name, caption, gallery.keep(maps["plot_particle", name], f"particle_{name}", alt))


def _contact_sheets(gallery: Gallery, names: Sequence[str], maps: _Maps) -> list[Picture]:
    pictures, start = [], 0
    for shown in _sheets(names):
        alt = f"Composition and residual strain of particles {start + 1} to {start + len(shown)}."
        pictures.append(gallery.keep(maps["plot_contact_sheet", shown], f"particles_from_{start + 1}", alt))
        start += len(shown)
    return pictures


def _expansion(result: EigenstrainResult, model: str) -> list[str]:
    law = result.laws[model]
    return _along(law.derivative(0.5), law.derivative_band(0.5))


def _along(values: Float, half_widths: Float) -> list[str]:
    """Numbers in % with their half-widths, along a and c."""
    return [tables.with_half_width(100 * v, 100 * half) for v, half in zip(values, half_widths, strict=True)]
