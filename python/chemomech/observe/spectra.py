"""From spectra to composition: every pixel of an X-ray stack as a non-negative sum of reference spectra.

The optical density of a pixel is the sum over its compounds of thickness times the compound's spectrum (Beer-Lambert),
so the coefficients of `observe.nnls` are thicknesses and their shares the composition (Yu et al. 2018, "Chemical phase
quantification"; Zhao et al. 2023, Methods).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from chemomech.arrays import Bool, Float, require_shape
from chemomech.errors import InputError
from chemomech.observe.nnls import Problem, nnls, prepare, solve

__all__ = [
    "POST_EDGE_EV",
    "References",
    "SpectralFit",
    "Stack",
    "bootstrap_composition_error",
    "fit_spectra",
    "nnls",
    "polar_angle",
    "post_edge_normalise",
]

Background = Literal["constant", "linear"] | None

#: Window of `post_edge_normalise` for iron: between the L2 line (723 eV) and the end of most scans. With the spectra of
#: Yu et al. it gives their polar angles; any window within 725 to 755 eV does to 0.3 degrees.
POST_EDGE_EV = (730.0, 750.0)

#: Bytes of a stack that are read from a file at once.
_CHUNK = 1 << 28
#: A pixel is negative when its mean is below this part of its mean magnitude, and matters when it has at least
#: `_MATERIAL` of the magnitude of the strong ones; more than `_NEGATIVE` of such pixels are refused.
_MOSTLY, _MATERIAL, _NEGATIVE = -0.5, 0.1, 0.05
_SAMPLE = 1 << 16
#: Beyond this condition number noise of 1e-6 decides the composition: the references are one and the same.
_PROPORTIONAL = 1e6


class Stack(Protocol):
    """What `fit_spectra` reads: an array, a memory map or an HDF5 dataset of shape (m, ny, nx)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class References:
    """Reference spectra on energies of their own.

    Attributes
    ----------
    energy_eV : (n,) increasing.
    spectra : name -> (n,) optical density per unit of thickness; the unit of the coefficients follows from it.

    Raises
    ------
    InputError : no spectrum, a spectrum of another length or not finite, energies that do not increase.

    >>> references = References([700, 710, 720], {"LiFePO4": [0, 2, 1], "FePO4": [0, 1, 3]})
    >>> references.at([705, 715])
    array([[1. , 0.5],
           [1.5, 2. ]])
    """

    energy_eV: Float
    spectra: Mapping[str, Float]

    def __post_init__(self) -> None:
        energy = _energies(self.energy_eV, "energies of the references")
        if not self.spectra:
            raise InputError("references hold no spectrum; give at least one")
        spectra = {name: np.asarray(values, dtype=np.float64) for name, values in self.spectra.items()}
        for name, values in spectra.items():
            require_shape(values, f"reference {name}", (len(energy),))
            if not np.isfinite(values).all():
                raise InputError(f"reference {name} is not finite at {np.sum(~np.isfinite(values))} energies")
        object.__setattr__(self, "energy_eV", energy)
        object.__setattr__(self, "spectra", spectra)

    @property
    def names(self) -> tuple[str, ...]:
        """The order of the columns of `at` and of the coefficients."""
        return tuple(self.spectra)

    def at(self, energy_eV: npt.ArrayLike) -> Float:
        """Spectra (m, k) at other energies, by linear interpolation.

        Parameters
        ----------
        energy_eV : (m,) increasing, within the references.

        Raises
        ------
        InputError : energies outside, repeated or not increasing.
        """
        energy = _energies(energy_eV, "energies")
        first, last = self.energy_eV[[0, -1]]
        outside = energy[(energy < first) | (energy > last)]
        if len(outside):
            listed = ", ".join(f"{value:g}" for value in outside[:4]) + (", ..." if len(outside) > 4 else "")
            raise InputError(
                f"{len(outside)} of {len(energy)} energies lie outside the references "
                f"({first:g} to {last:g} eV): {listed}"
            )
        return np.column_stack([np.interp(energy, self.energy_eV, values) for values in self.spectra.values()])


@dataclass(frozen=True)
class SpectralFit:
    """Maps of a fitted stack; NaN outside the mask and where a datum is not finite.

    Attributes
    ----------
    names : (k,) of the references.
    coefficients : (k, ny, nx) >= 0, thickness in the unit of the references.
    background : (0, 1 or 2, ny, nx) constant, and slope over half the energy range, in optical density.
    composition : (ny, nx) share of the compound asked for in the sum of the coefficients; NaN without material.
    composition_error : (ny, nx) its standard error (see `fit_spectra`).
    r_factor : (ny, nx) sum of squared residuals over sum of squared data, both weighted.
    negative_fraction : share of the pixels with material whose optical density is mostly negative.
    """

    names: tuple[str, ...]
    coefficients: Float
    background: Float
    composition: Float
    composition_error: Float
    r_factor: Float
    negative_fraction: float


def fit_spectra(
    stack: Stack,
    energy_eV: npt.ArrayLike,
    references: References,
    mask: Bool | None = None,
    weights: npt.ArrayLike | None = None,
    background: Background = None,
    *,
    of: str = "LiFePO4",
    absolute_weights: bool = False,
) -> SpectralFit:
    """Composition of every pixel by non-negative least squares on the references.

    The R factor is that of linear combination fits of absorption spectra (Ravel & Newville 2005; Yu et al. 2018 accept
    pixels below 0.15).

    The standard error is propagated through the fit, Var X = g^T C g with g the gradient of X = x_i / sum x and
    C = s^2 (A_S^T W A_S)^-1 the covariance of the references in use, the background taken out; s^2 is the pixel's
    residual per degree of freedom. A composition of exactly 0 or 1 sits on a bound, where that would be no error at
    all; there every reference counts as in use, which gives the error just inside the bound. With so many references
    in use that no degree of freedom is left the error is NaN.

    Parameters
    ----------
    stack : (m, ny, nx) optical density; an array or memory map of any memory order is read where it lies, an HDF5
        dataset in slabs of rows. Float64, float32 or any real type.
    energy_eV : (m,) increasing.
    references : the compounds.
    mask : (ny, nx) bool, the pixels wanted; None: all.
    weights : (m,) of the squared residuals, such as 1 / variance of the photon noise; None: equal. An energy of weight
        0 is not read.
    background : "constant" or "linear" in energy, of either sign.
    of : the reference whose share is the composition.
    absolute_weights : the weights are 1 / variance in optical density, so s^2 is 1 and not taken from residuals.

    Raises
    ------
    InputError : shapes that do not fit, energies as in `References.at`, fewer energies than unknowns, references that
        are proportional at these energies, optical density that is mostly negative at more than 5 % of the material.

    >>> references = References([700, 705, 710], {"LiFePO4": [0, 2, 1], "FePO4": [0, 1, 3]})
    >>> fit = fit_spectra(np.array([0.0, 1.75, 1.5])[:, None, None], [700, 705, 710], references)
    >>> fit.composition
    array([[0.75]])
    """
    plan = _Plan.of(stack, energy_eV, references, mask, weights, background, of)
    problem = plan.problem(plan.weights)
    ny, nx = plan.mask.shape
    maps: list[Float] = []
    sums: list[Float] = []
    for rows, slab in _slabs(stack):
        step = max(1, ny * nx // _SAMPLE)
        sample = np.asarray(slab[:, ::step], dtype=np.float64)[:, plan.mask[rows][::step]]
        sums.append(np.array([sample.mean(axis=0), np.abs(sample).mean(axis=0)]))
        solution = solve(problem, np.moveaxis(slab, 0, -1))
        parts = (solution.coefficients, solution.free, solution.residual, solution.total)
        if slab.shape[1] == ny:
            maps = list(parts)
        else:
            maps = maps or [np.empty((*part.shape[:-2], ny, nx)) for part in parts]
            for whole, part in zip(maps, parts, strict=True):
                whole[..., rows, :] = part
    negative = _negative_fraction(np.hstack(sums)) if background is None else 0.0
    if negative > _NEGATIVE:
        raise InputError(
            f"the optical density is mostly negative at {100 * negative:.0f} % of the pixels with signal, "
            f"{100 * _NEGATIVE:.0f} % are allowed; is it -ln(I/I0), and I0 right?"
        )
    coefficients, free, residual, total = maps
    if not plan.mask.all():
        for values in maps:
            values[..., ~plan.mask] = np.nan
    sum_of_coefficients = coefficients.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        composition = coefficients[plan.index] / sum_of_coefficients
        r_factor = residual / total
    error = np.empty_like(composition)
    for row in range(0, ny, 64):  # few temporary maps
        some = slice(row, row + 64)
        error[some] = _composition_error(
            problem, plan.index, coefficients[:, some], composition[some], None if absolute_weights else residual[some]
        )
    return SpectralFit(references.names, coefficients, free, composition, error, r_factor, negative)


def bootstrap_composition_error(
    stack: Stack,
    energy_eV: npt.ArrayLike,
    references: References,
    mask: Bool | None = None,
    weights: npt.ArrayLike | None = None,
    background: Background = None,
    *,
    of: str = "LiFePO4",
    samples: int = 100,
    seed: int = 0,
) -> Float:
    """Standard error (ny, nx) of the composition by resampling the energies (Zhao et al. 2023, Methods).

    Every sample draws as many energies as there are, with replacement, fits all pixels with them, and the error is the
    standard deviation of the composition over the samples. It includes what propagation cannot: references that do not
    describe the sample. Draws with fewer different energies than unknowns, or at which the references are proportional,
    are drawn again; with few energies the error is therefore rather coarse.

    Parameters
    ----------
    stack, energy_eV, references, mask, weights, background, of : as for `fit_spectra`.
    samples : number of draws; the error's own relative error is 1 / sqrt(2 samples).

    Raises
    ------
    InputError : as `fit_spectra`; fewer than 2 samples; energies that leave no draw.
    """
    if samples < 2:
        raise InputError(f"a bootstrap needs at least 2 samples, got {samples}")
    plan = _Plan.of(stack, energy_eV, references, mask, weights, background, of)
    random = np.random.default_rng(seed)
    problems: list[Problem] = []
    # With as many energies as unknowns every draw that can be used is the same one.
    for _ in range(100 * samples if np.count_nonzero(plan.weights) > plan.unknowns else 0):
        counts = np.bincount(random.integers(0, len(plan.weights), len(plan.weights)), minlength=len(plan.weights))
        drawn = plan.weights * counts
        if np.count_nonzero(drawn) >= plan.unknowns:
            problem = plan.problem(drawn)
            if problem.condition < _PROPORTIONAL:
                problems.append(problem)
        if len(problems) == samples:
            break
    else:
        raise InputError(
            f"{np.count_nonzero(plan.weights)} energies are too few to resample with {plan.unknowns} unknowns a pixel; "
            "use the propagated error"
        )
    error = np.empty(plan.mask.shape)
    for rows, slab in _slabs(stack):
        count, mean, squares = np.zeros((3, *slab.shape[1:]))
        for problem in problems:
            x = solve(problem, np.moveaxis(slab, 0, -1), detail=False).coefficients
            with np.errstate(invalid="ignore"):
                value = x[plan.index] / x.sum(axis=0)
            known = np.isfinite(value)  # a draw may leave a faint pixel without material
            count += known
            step = np.where(known, value - mean, 0)
            mean += step / np.maximum(count, 1)
            squares += step * np.where(known, value - mean, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            error[rows] = np.where(count > 1, np.sqrt(squares / (count - 1)), np.nan)
    error[~plan.mask] = np.nan
    return error


def post_edge_normalise(
    energy_eV: npt.ArrayLike, spectrum: npt.ArrayLike, window_eV: tuple[float, float] = POST_EDGE_EV
) -> Float:
    """Spectrum (n,) divided by its mean (integral over width) in a window after the edge.

    There the absorption depends on the number of atoms only, not on their oxidation state: spectra divided by it are
    per atom and can be compared.

    Parameters
    ----------
    energy_eV : (n,) increasing; spectrum : (n,) with the background before the edge removed.
    window_eV : first and last energy.

    Raises
    ------
    InputError : shapes that differ, a window outside the energies, or a mean there that is not positive.

    >>> post_edge_normalise([700, 710, 730, 750], [0, 9, 3, 1])
    array([0. , 4.5, 1.5, 0.5])
    """
    energy = _energies(energy_eV, "energies")
    values = np.asarray(spectrum, dtype=np.float64)
    require_shape(values, "spectrum", (len(energy),))
    first, last = window_eV
    if not energy[0] <= first < last <= energy[-1]:
        raise InputError(
            f"the window {first:g} to {last:g} eV is not within the energies {energy[0]:g} to {energy[-1]:g} eV"
        )
    grid = np.unique([first, last, *energy[(energy > first) & (energy < last)]])
    mean = np.trapezoid(np.interp(grid, energy, values), grid) / (last - first)
    if not mean > 0:
        raise InputError(f"the spectrum has a mean of {mean:.3g} from {first:g} to {last:g} eV; it must be positive")
    return np.asarray(values / mean)


def polar_angle(first: npt.ArrayLike, second: npt.ArrayLike) -> Float:
    """Angle in degrees of the point (first, second), a measure of composition that thickness does not change.

    Parameters
    ----------
    first, second : optical densities of one shape at 708.2 and 710.2 eV, where iron(II) and iron(III) absorb most; Yu
        et al. (2018, Fig. 2) find 27.5 degrees for Li0.93FePO4 and 65.0 for Li0.02FePO4.

    >>> polar_angle(1.0, 1.0)
    array(45.)
    """
    return np.asarray(np.degrees(np.arctan2(second, first)))


@dataclass(frozen=True)
class _Plan:
    """Checked input of a fit."""

    columns: Float  # (m, k)
    free: Float  # (m, f)
    weights: Float  # (m,)
    mask: Bool  # (ny, nx)
    index: int  # of the compound asked for

    @property
    def unknowns(self) -> int:
        return int(self.columns.shape[1] + self.free.shape[1])

    def problem(self, weights: Float) -> Problem:
        return prepare(self.columns, weights=weights, free=self.free)

    @classmethod
    def of(
        cls,
        stack: Stack,
        energy_eV: npt.ArrayLike,
        references: References,
        mask: Bool | None,
        weights: npt.ArrayLike | None,
        background: Background,
        of: str,
    ) -> "_Plan":
        energy = np.asarray(energy_eV, dtype=np.float64)
        columns = references.at(energy)
        if len(stack.shape) != 3 or stack.shape[0] != len(energy):
            raise InputError(
                f"stack has shape {tuple(stack.shape)}, but there are {len(energy)} energies; "
                f"it must have shape ({len(energy)}, ny, nx)"
            )
        if of not in references.spectra:
            raise InputError(f"there is no reference {of!r}; the references are {', '.join(references.names)}")
        if mask is None:
            mask = np.ones(tuple(stack.shape[1:]), dtype=np.bool_)
        require_shape(mask, "mask", tuple(stack.shape[1:]))
        weight = np.ones(len(energy)) if weights is None else np.asarray(weights, dtype=np.float64)
        require_shape(weight, "weights", (len(energy),))
        x = 2 * (energy - energy.mean()) / max(energy[-1] - energy[0], 1e-300)
        powers = {None: 0, "constant": 1, "linear": 2}
        if background not in powers:
            raise InputError(f"background must be None, 'constant' or 'linear', got {background!r}")
        free = np.vander(x, powers[background], increasing=True)
        plan = cls(columns, free, weight, mask.astype(np.bool_), references.names.index(of))
        used = np.count_nonzero(weight)
        if used < plan.unknowns:
            raise InputError(
                f"{used} energies cannot determine {plan.unknowns} unknowns a pixel "
                f"({columns.shape[1]} references, {free.shape[1]} of the background)"
            )
        problem = plan.problem(weight)
        if len(problem.columns) < columns.shape[1]:
            missing = [name for i, name in enumerate(references.names) if i not in problem.columns]
            raise InputError(f"reference {missing[0]} is 0 at every energy of the stack")
        if not problem.condition < _PROPORTIONAL:
            raise InputError(
                f"the references {', '.join(references.names)} cannot be told apart at the {used} energies of the "
                f"stack{' beside the background' if background else ''}; leave one out or measure more energies"
            )
        return plan


def _energies(values: npt.ArrayLike, name: str) -> Float:
    """Energies (n,) that are finite and increase, or InputError with the numbers that do not."""
    energy = np.asarray(values, dtype=np.float64)
    require_shape(energy, name, (None,))
    if not len(energy):
        raise InputError(f"{name} are empty")
    if not np.isfinite(energy).all():
        raise InputError(f"{name} are not finite at {np.sum(~np.isfinite(energy))} places")
    wrong = np.flatnonzero(np.diff(energy) <= 0)
    if len(wrong):
        i = wrong[0]
        what = "repeats" if energy[i + 1] == energy[i] else f"follows {energy[i]:g}"
        raise InputError(f"{name} must increase, but number {i + 1} (from 0), {energy[i + 1]:g} eV, {what}")
    return energy


def _slabs(stack: Stack) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Rows and their part (m, rows, nx) of a stack: all at once from memory or a memory map, else read in turn."""
    if isinstance(stack, np.ndarray):
        yield slice(0, stack.shape[1]), np.asarray(stack)
        return
    m, ny, nx = stack.shape
    # Whole storage chunks: each is decompressed once.
    chunks = getattr(stack, "chunks", None)
    unit = chunks[1] if chunks else 1
    step = max(1, _CHUNK // max(1, 8 * m * nx * unit)) * unit
    for start in range(0, ny, step):
        yield slice(start, min(ny, start + step)), np.asarray(stack[:, start : start + step])


def _negative_fraction(sums: Float) -> float:
    """Share of pixels with material that are mostly negative, from mean and mean magnitude (2, n)."""
    mean, magnitude = sums[:, np.isfinite(sums[0])]
    if not len(mean):
        return 0.0
    material = magnitude > _MATERIAL * np.quantile(magnitude, 0.95)
    return float(np.mean(mean[material] < _MOSTLY * magnitude[material])) if material.any() else 0.0


def _composition_error(
    problem: Problem, index: int, coefficients: Float, composition: Float, residual: Float | None
) -> Float:
    """Standard error of the composition (see `fit_spectra`); `residual` None: the weights are 1 / variance."""
    k = problem.n_references
    columns = problem.unit * problem.scale
    target = np.arange(k) == index
    bits = np.zeros(composition.shape, np.int64)
    for i in range(k):
        bits |= (coefficients[i] > 0).astype(np.int64) << i
    known = np.isfinite(composition)
    error = np.full(composition.shape, np.nan)
    for subset in np.unique(bits[known]):
        here = known & (bits == subset)
        positive = (subset >> np.arange(k) & 1).astype(np.bool_)
        on_bound = not positive[index] or positive.sum() == 1
        used = np.ones(k, np.bool_) if on_bound else positive
        covariance = np.linalg.pinv(columns[:, used])
        covariance = covariance @ covariance.T
        share = target[used]
        own, both, whole = covariance[share, share].sum(), covariance[share].sum(), covariance.sum()
        x = composition[here]
        variance = (own - 2 * x * both + x**2 * whole) / coefficients[:, here].sum(axis=0) ** 2
        if residual is not None:
            freedom = len(problem.rows) - problem.n_free - int(positive.sum())
            variance *= residual[here] / freedom if freedom else np.nan
        error[here] = np.sqrt(np.maximum(variance, 0))
    return error
