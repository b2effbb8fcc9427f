"""The page of `compose`: drift, composition, registration and resolution of every particle."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from skimage.measure import find_contours

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.observe.composition import ComposedParticle
from chemomech.observe.resolution import composition_histogram, interface_profiles, phase_class
from chemomech.progress import progress
from chemomech.report import tables
from chemomech.report.page import Gallery, render
from chemomech.report.sheet import COMPOSITION, MAGNITUDE, STRAIN, show
from chemomech.report.style import INK, STYLE, new_axes, shortened
from chemomech.report.tables import Table

#: Yu et al. (2018) accept pixels whose R factor is below this.
_ACCEPTED_R = 0.15
_REACH_NM = 300.0
_TRANSFORM = [Markup(f"M<sub>{pair}</sub>") for pair in ("xx", "xy", "yx", "yy")]
_TRANSFORM += [Markup(f"t<sub>{axis}</sub> (nm)") for axis in "xy"]


def write_report(path: Path, particles: Sequence[ComposedParticle], *, inputs: Sequence[Path]) -> None:
    """Write the page, one HTML file that needs no other.

    >>> write_report(Path("maps.html"), composed, inputs=[Path("raw.h5")])
    """
    with progress("figures", 2 + len(particles)) as advance:
        gallery = Gallery(advance)
        page = render(
            "composition.html.j2",
            n_particles=len(particles),
            warnings=[*doubts(particles)],
            drift_figure=gallery.add_axes(plot_drift(particles), "drift", "Drift of every image in nanometres."),
            histogram_figure=gallery.add_axes(
                plot_histogram(particles), "histogram", "Probability density of the composition of all pixels."
            ),
            particles=[
                (
                    each.maps.name,
                    gallery.add(
                        plot_alignment(each), each.maps.name, f"Maps, overlays and correlation of {each.maps.name}."
                    ),
                )
                for each in particles
            ],
            tables=[_registration_table(particles), _particle_table(particles)],
            provenance=[tables.input_table(inputs), tables.version_table()],
        )
    path.write_text(page, encoding="utf-8")


@rc_context(STYLE)
def plot_drift(particles: Sequence[ComposedParticle]) -> Axes:
    """Length of the drift of every image against its photon energy, one line a particle."""
    ax = new_axes(4.6, 2.9)
    for each in particles:
        drift = np.hypot(*each.alignment.drift.T) * each.raw.xray_pixel_size_nm
        ax.plot(each.raw.energy_eV, drift, "o-", markersize=3, linewidth=0.9, label=shortened(each.maps.name, 12))
    ax.set_xlabel("Photon energy (eV)")
    ax.set_ylabel("Drift from the first image (nm)")
    ax.set_ylim(bottom=0)
    if len(particles) <= 8:
        ax.legend(ncols=2)
    return ax


@rc_context(STYLE)
def plot_histogram(particles: Sequence[ComposedParticle]) -> Axes:
    """Probability density of the composition of all pixels (Deng SI, Fig. S12 a-c)."""
    inside = np.concatenate([each.maps.composition[each.maps.mask] for each in particles])[None]
    density, edges = composition_histogram(inside, np.ones(inside.shape, dtype=np.bool_))
    ax = new_axes(4.6, 2.9)
    ax.stairs(density, edges, fill=True, color="#0072B2", alpha=0.6)
    ax.set_xlabel("Composition $X$")
    ax.set_ylabel("Probability density")
    return ax


@rc_context(STYLE)
def plot_alignment(particle: ComposedParticle) -> Figure:
    """Composition and R factor as X-rays saw them; X = 0.5 on the lattice parameter before and after; correlation."""
    found, maps, fit = particle.registration, particle.maps, particle.fit
    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    axes = figure.subplots(2, 3)
    material = found.moving.particle
    largest = float(np.nanpercentile(fit.r_factor[material], 99))
    for ax, field, colours, limits, title in (
        (axes[0, 0], fit.composition, COMPOSITION, (0.0, 1.0), "X-ray composition $X$"),
        (axes[1, 0], fit.r_factor, MAGNITUDE, (0.0, largest), "R factor of the fit"),
    ):
        image = show(ax, np.where(material, field, np.nan), colours, limits)
        ax.set_title(title)
        figure.colorbar(image, ax=ax, shrink=0.8, extend="max" if colours == MAGNITUDE else "both")

    strain = 100 * np.where(maps.mask, maps.distortion[..., 0], np.nan)
    size = np.nanpercentile(np.abs(strain), 99)
    y, x = found.fixed.axes_nm
    step = maps.pixel_size_nm / 2
    filled = np.where(material, fit.composition, np.nan)
    centre, pixel = (np.array(filled.shape[::-1]) - 1) / 2, particle.raw.xray_pixel_size_nm
    lines = [(line[:, ::-1] - centre) * pixel for line in find_contours(filled, 0.5)]  # type: ignore[no-untyped-call]
    outline = [(line[:, ::-1] - centre) * pixel for line in find_contours(material.astype(float), 0.5)]  # type: ignore[no-untyped-call]
    for ax, title, moved in ((axes[0, 1], "before", False), (axes[1, 1], "after", True)):
        image = show(ax, strain, STRAIN, (-size, size))
        image.set_extent((x[0] - step, x[-1] + step, y[0] - step, y[-1] + step))
        for line, width in [(line, 1.0) for line in lines if len(line) > 8] + [(line, 0.6) for line in outline]:
            at = line @ found.matrix.T + found.translation_nm if moved else line
            ax.plot(*at.T, color=INK, linewidth=width)
        ax.set_title(rf"$\varepsilon_{{aa}}$ (%), {title} registration")
        figure.colorbar(image, ax=ax, shrink=0.8)
    length = 500.0
    axes[1, 1].plot([x[0], x[0] + length], [y[0], y[0]], color=INK, linewidth=2.5, solid_capstyle="butt")
    axes[1, 1].annotate("500 nm", (x[0] + length, y[0]), xytext=(4, -3), textcoords="offset points", fontsize=8)

    deviation = np.where(maps.mask, maps.uncertainty["composition"], np.nan)
    image = show(axes[0, 2], deviation, MAGNITUDE, (0.0, float(np.nanpercentile(deviation, 99))))
    axes[0, 2].set_title("Standard deviation of $X$, aligned")
    figure.colorbar(image, ax=axes[0, 2], shrink=0.8, extend="max")
    ax = axes[1, 2]
    ax.hexbin(maps.composition[maps.mask], strain[maps.mask], gridsize=50, mincnt=1, bins="log", cmap="Greys")
    ax.set_xlabel("Composition $X$")
    ax.set_ylabel(r"$\varepsilon_{aa}$ (%)")
    ax.set_title(f"Correlation {found.score:.3f}")
    return figure


def _registration_table(particles: Sequence[ComposedParticle]) -> Table:
    rows = []
    for each in particles:
        found = each.registration
        error = np.sqrt(np.diag(found.covariance))
        rows.append(
            [
                each.maps.name,
                *(
                    f"{tables.signed(value, 4)} ± {sigma:.4f}"
                    for value, sigma in zip(found.matrix.ravel(), error[:4], strict=True)
                ),
                *(
                    f"{tables.signed(value, 1)} ± {sigma:.1f}"
                    for value, sigma in zip(found.translation_nm, error[4:], strict=True)
                ),
                f"{found.score:.3f}",
                f"{found.overlap:.3f}",
            ]
        )
    head = ["Particle", *_TRANSFORM, "Correlation", "Overlap"]
    return Table("Affine transforms p = M q + t from X-ray to STEM, with standard errors.", head, rows)


def _particle_table(particles: Sequence[ComposedParticle]) -> Table:
    rows = []
    for each in particles:
        r = each.fit.r_factor[each.registration.moving.particle]
        rows.append(
            [
                each.maps.name,
                f"{each.maps.mean_composition:.3f}",
                phase_class(each.maps.mean_composition),
                f"{np.nanmedian(each.maps.uncertainty['composition'][each.maps.mask]):.4f}",
                f"{np.nanmedian(r):.2g}",
                f"{np.nanmean(r > _ACCEPTED_R):.1%}",
                _width(each, each.maps.composition),
                _width(each, each.maps.distortion[..., 0]),
            ]
        )
    head = ["Particle", "Mean X", "Class", "Median std of X", "Median R factor", "R above 0.15"]
    head += ["Boundary of X (nm)", "Boundary of a (nm)"]
    caption = (
        "Composition, quality of its fit, and 10-90 % width of the phase boundary: mean and spread over its length."
    )
    return Table(caption, head, rows)


def _width(particle: ComposedParticle, values: Float) -> str:
    maps = particle.maps
    try:
        found = interface_profiles(
            values,
            maps.composition,
            maps.mask,
            maps.pixel_size_nm,
            half_length_nm=max(_REACH_NM, 4 * maps.pixel_size_nm),
        )
    except InputError:  # a particle of one phase has no boundary
        return "none"
    return f"{found.mean_width_nm:.0f} ± {found.std_width_nm:.0f}"


def doubts(particles: Sequence[ComposedParticle]) -> list[str]:
    """What a careful reader of the maps should know first."""
    warnings = []
    for each in particles:
        name, r = each.maps.name, each.fit.r_factor[each.registration.moving.particle]
        if each.drift_removed:
            drift = np.hypot(*each.alignment.drift.T).max() * each.raw.xray_pixel_size_nm
            warnings.append(f"{name}: images drift by up to {drift:.0f} nm; they were shifted onto each other.")
        if np.nanmean(r > _ACCEPTED_R) > 0.1:
            warnings.append(
                f"{name}: the R factor exceeds {_ACCEPTED_R} at {np.nanmean(r > _ACCEPTED_R):.0%} of the pixels; "
                "the references do not describe its spectra."
            )
    return warnings
