"""The numbers of the page, as text: each table is a head and rows of cells."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import scipy
from markupsafe import Markup

from chemomech import __version__
from chemomech.learn.dislocation_density import DislocationResult
from chemomech.learn.eigenstrain import EigenstrainResult
from chemomech.units import SQUARE_UM

#: What the noise of each channel is called, its unit, and the factor to that unit.
_NOISE = {
    "composition": ("composition X", "Li per formula unit", 1.0),
    "aa": (Markup("ε<sub>aa</sub>"), "10⁻³", 1e3),
    "cc": (Markup("ε<sub>cc</sub>"), "10⁻³", 1e3),
    "ac": (Markup("2 ε<sub>ac</sub>"), "10⁻³", 1e3),
    "rotation": ("lattice rotation", "mrad", 1e3),
}


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    caption : what it shows.
    head : names of the columns, with units.
    rows : cells; columns from `numbers_from` on are numbers and stand right-aligned.
    numbers_from : index of the first column of numbers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int = 1


def signed(value: float, decimals: int) -> str:
    """A number with its sign."""
    rounded = round(value, decimals) + 0.0  # no negative zero
    return f"{rounded:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def with_half_width(value: float, half_width: float) -> str:
    """`value` and its 95 % half-width, both to two digits of the half-width, at most five decimals.

    >>> with_half_width(4.9036, 0.0213)
    '+4.904 ± 0.021'
    """
    decimals = int(np.clip(1 - np.floor(np.log10(half_width)), 0, 5)) if half_width > 0 else 5
    return f"{signed(value, decimals)} ± {half_width:.{decimals}f}"


def law_table(result: EigenstrainResult) -> Table:
    """f(0) and df/dX at 0, 1/2 and 1 of every model, with 95 % half-widths."""
    points = (0.0, 0.5, 1.0)
    rows = []
    for model in sorted(result.laws, reverse=True):
        law = result.laws[model]
        for i, axis in enumerate("ac"):
            cells = [with_half_width(100 * law(0.0)[i], 100 * law.band(0.0)[i])]
            cells += [with_half_width(100 * law.derivative(x)[i], 100 * law.derivative_band(x)[i]) for x in points]
            rows.append([model, axis, *cells])
    head = ["Model", "Axis", "f(0) (%)", *(f"df/dX at X = {x:g} (%)" for x in points)]
    return Table("The law in numbers, with 95 % half-widths. f(1) = 0 by definition.", head, rows, 2)


def coefficient_table(result: EigenstrainResult) -> Table:
    """Legendre coefficients and standard errors of every model."""
    models = sorted(result.laws, reverse=True)
    rows = []
    for i, axis in enumerate("ac"):
        for n in range(result.order):
            cells = []
            for model in models:
                law = result.laws[model]
                cells += [signed(1e3 * law.coefficients[i, n], 4), f"{1e3 * law.standard_error[i, n]:.4f}"]
            rows.append([axis, str(n + 1), *cells])
    head = ["Axis", "n", *(text for model in models for text in (f"{model} (10⁻³)", "standard error (10⁻³)"))]
    return Table(
        "Coefficients p of f(X) = Σ pₙ [Lₙ(2X \N{MINUS SIGN} 1) \N{MINUS SIGN} Lₙ(1)], n = 1…N.", head, rows, 2
    )


def covariance_table(result: EigenstrainResult, model: str) -> Table:
    """Standard errors of one model's coefficients by every method."""
    uncertainty = result.uncertainty[model]
    errors = {method: 1e3 * np.sqrt(np.diag(covariance)) for method, covariance in uncertainty.estimates.items()}
    rows = [
        [axis, str(n + 1), *(f"{error[i * result.order + n]:.4f}" for error in errors.values())]
        for i, axis in enumerate("ac")
        for n in range(result.order)
    ]
    widened = f", widened by a factor {uncertainty.widening:.2f} in variance" if uncertainty.widening != 1 else ""
    caption = f"{model}: standard errors by method. Used: {uncertainty.used}{widened}. {_sentence(uncertainty.reason)}"
    return Table(caption, ["Axis", "n", *(f"{method} (10⁻³)" for method in errors)], rows, 2)


def noise_table(result: EigenstrainResult) -> Table:
    """Standard deviation of the noise of every channel."""
    rows = []
    for name, value in result.noise.items():
        label, unit, factor = _NOISE[name]
        rows.append([label, unit, f"{factor * value:#.3g}".rstrip(".")])
    return Table(
        "Noise of a pixel, one standard deviation (given with the maps, or estimated from them).",
        ["Quantity", "Unit", "Noise"],
        rows,
        2,
    )


def particle_table(result: EigenstrainResult) -> Table:
    """One row a particle."""
    rows = [
        [
            name,
            "held out" if particle.held_out else "fitted",
            f"{particle.maps.mask.sum()}",
            f"{particle.maps.pixel_size_nm:.4g}",
            f"{particle.maps.mean_composition:.3f}",
            incompatibility(particle.rms_incompatibility_per_nm2),
        ]
        for name, particle in result.particles.items()
    ]
    head = ["Particle", "Role", "Pixels", "Pixel size (nm)", "Mean X", "RMS incompatibility (µm⁻²)"]
    return Table("Particles.", head, rows, 2)


def dislocation_table(found: DislocationResult) -> Table:
    """Mean densities of one row a particle."""
    rows = [
        [
            name,
            f"{SQUARE_UM * own.mean_abs_density_per_nm2:.0f}",
            f"{SQUARE_UM * own.mean_abs_of_noise_per_nm2:.0f}",
            f"{SQUARE_UM * own.density_deviation_per_nm2:.0f}",
        ]
        for name, own in found.particles.items()
    ]
    caption = (
        "Dislocation density of model M2, without its sign. Noise: mean size of the density that noise of the maps "
        "alone would give. Prior: standard deviation of a pixel's density, chosen on held-out pixels."
    )
    return Table(caption, ["Particle", "Mean density (µm⁻²)", "Of noise alone (µm⁻²)", "Prior (µm⁻²)"], rows)


def incompatibility(per_nm2: float) -> str:
    """An RMS incompatibility in 1/um^2, a dash where there is none."""
    return f"{SQUARE_UM * per_nm2:#.3g}".rstrip(".") if np.isfinite(per_nm2) else "\N{EN DASH}"


def input_table(inputs: Sequence[Path]) -> Table:
    """Name, size and fingerprint of the files read."""
    rows = []
    for path in inputs:
        with path.open("rb") as file:
            fingerprint = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        rows.append([path.name, fingerprint, f"{path.stat().st_size / 1e6:.3f}"])
    return Table("Input files.", ["File", "SHA-256, first 12 digits", "Size (MB)"], rows, 2)


def option_table(options: Mapping[str, str]) -> Table:
    """The options of the run."""
    return Table("Options.", ["Option", "Value"], list(options.items()), 2)


def version_table() -> Table:
    """The software this page was made with, and when."""
    rows = [
        ("chemomech", __version__),
        ("NumPy", np.__version__),
        ("SciPy", scipy.__version__),
        ("Python", platform.python_version()),
        ("Written (UTC)", f"{datetime.now(UTC):%Y-%m-%d %H:%M}"),
    ]
    return Table("Software.", ["Name", "Version"], rows, 2)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
