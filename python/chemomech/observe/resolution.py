"""How sharp the maps are: Fourier ring correlation, width of phase boundaries, distribution of composition."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.special import erf
from skimage.measure import find_contours

from chemomech.arrays import Bool, Float, require_finite, require_shape
from chemomech.errors import InputError

_MIN_RING = 4
#: Deng et al. 2022, Fig. 2d-f.
_FP_BELOW, _LFP_ABOVE = 0.15, 0.85
#: 10-90 % of an error function, in its standard deviations: 2 sqrt(2) erfinv(0.8).
_WIDTH_PER_SIGMA = 2.5631031310892007
_MIN_PROFILES = 3
_TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class RingCorrelation:
    """Correlation of two images of one object, ring by ring in Fourier space.

    Attributes
    ----------
    frequency_per_nm : (n,) centres of the rings.
    correlation : (n,).
    pixels : (n,) Fourier pixels in each ring.
    """

    frequency_per_nm: Float
    correlation: Float
    pixels: Float

    @property
    def half_bit(self) -> Float:
        """Half-bit threshold (n,): information for half a bit a pixel (van Heel & Schatz 2005, eq. 17)."""
        root = np.sqrt(self.pixels)
        return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))

    def resolution_nm(self, criterion: str = "half-bit") -> float:
        """Full period (nm) at which the correlation first falls below the criterion, "half-bit" or "0.5".

        NaN when it never does: the images are sharper than their pixels can tell.

        Raises
        ------
        InputError : another criterion, or a correlation below it from the first ring on.
        """
        if criterion not in ("half-bit", "0.5"):
            raise InputError(f"criterion must be 'half-bit' or '0.5', got {criterion!r}")
        above = self.correlation - (self.half_bit if criterion == "half-bit" else 0.5)
        below = np.flatnonzero(above < 0)
        if below.size == 0:
            return float("nan")
        ring = below[0]
        if ring == 0:
            raise InputError(
                f"the two images do not show the same object: their correlation is {self.correlation[0]:.2f} already "
                f"at a period of {1 / self.frequency_per_nm[0]:.0f} nm; align them first"
            )
        crossing = np.interp(0.0, -above[ring - 1 : ring + 1], self.frequency_per_nm[ring - 1 : ring + 1])
        return float(1 / crossing)


def fourier_ring_correlation(first: Float, second: Float, pixel_size_nm: float) -> RingCorrelation:
    """Fourier ring correlation of two images of one object with independent noise.

    FRC(f) = sum F1 conj(F2) / sqrt(sum |F1|^2 sum |F2|^2) over the ring |k| = f (Saxton & Baumeister 1982; van
    Heel & Schatz 2005). A Hann window keeps the borders of the image out of the spectrum. Rings are one Fourier pixel
    of the shorter side wide and end at the Nyquist frequency.

    Parameters
    ----------
    first, second : (ny, nx), aligned to each other.
    pixel_size_nm : nm.

    Raises
    ------
    InputError : shapes differ, fewer than 16 pixels on a side, a pixel that is not finite, an image without contrast.

    >>> fourier_ring_correlation(first, second, 5.0).resolution_nm("half-bit")
    """
    require_shape(first, "first", (None, None))
    require_shape(second, "second", first.shape)
    if min(first.shape) < 16:
        raise InputError(f"a ring correlation needs at least 16 x 16 pixels, got {first.shape}")
    spectra = []
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in first.shape))
    for name, image in (("first", first), ("second", second)):
        if not np.isfinite(image).all():
            raise InputError(f"{name} is not finite at {(~np.isfinite(image)).sum()} pixels; crop it or fill them")
        if np.ptp(image) == 0:
            raise InputError(f"{name} has no contrast: every pixel is {image.flat[0]:.3g}")
        spectra.append(np.fft.fft2(window * (image - np.average(image, weights=window))))
    along_y, along_x = (np.fft.fftfreq(n, pixel_size_nm) for n in first.shape)
    frequency = np.hypot(along_y[:, None], along_x)
    step = 1 / (min(first.shape) * pixel_size_nm)
    ring = np.rint(frequency / step).astype(np.intp).ravel()
    last = min(first.shape) // 2

    def summed(power: Float) -> Float:
        return np.asarray(np.bincount(ring, weights=power.ravel(), minlength=last + 1)[1 : last + 1], dtype=np.float64)

    pixels = summed(np.ones(first.shape))
    powers = [summed(np.abs(spectrum) ** 2) for spectrum in spectra]
    cross = summed((spectra[0] * spectra[1].conj()).real)
    centre = summed(frequency) / pixels
    filled = pixels >= _MIN_RING
    correlation = cross / np.sqrt(np.maximum(powers[0] * powers[1], _TINY))
    return RingCorrelation(centre[filled], correlation[filled], pixels[filled])


@dataclass(frozen=True)
class InterfaceProfiles:
    """Profiles of a map across a phase boundary.

    Attributes
    ----------
    distance_nm : (n,) along the normal, negative on the side of the lower composition.
    values : (k, n) the map along each profile.
    centre_nm : (k, 2) where each profile crosses the boundary, (x, y) about the image centre.
    width_nm : (k,) width from 10 to 90 % of each profile's error-function fit.
    direct_width_nm : (k,) distance between the 10 and the 90 % crossings of the profile itself.
    """

    distance_nm: Float
    values: Float
    centre_nm: Float
    width_nm: Float
    direct_width_nm: Float

    @property
    def mean_width_nm(self) -> float:
        """Mean of the fitted widths."""
        return float(self.width_nm.mean())

    @property
    def std_width_nm(self) -> float:
        """Standard deviation of the fitted widths from profile to profile (Deng report 123 +- 39 nm)."""
        return float(self.width_nm.std(ddof=1))


def interface_profiles(
    values: Float, composition: Float, mask: Bool, pixel_size_nm: float, *, half_length_nm: float
) -> InterfaceProfiles:
    """Profiles of a map normal to the contour X = 0.5, one a pixel along it, and the widths of the boundary.

    Contour and normals come from the composition smoothed by one and two pixels, so that noise does not make them
    wander; the profiles are taken from the map as it is. Each is fitted by low + (high - low) (1 + erf(z)) / 2 with
    z = (s - s0) / (sqrt(2) sigma); its width is 2.563 sigma (Deng et al. 2022, Fig. 2b-c; Deng SI, Fig. S12). Profiles
    that leave the particle, and those whose fit finds no step inside them, are left out.

    Parameters
    ----------
    values : (ny, nx), the map to profile: the composition again, or a lattice parameter.
    composition : (ny, nx) lithium fraction X.
    mask : (ny, nx) bool.
    pixel_size_nm : nm.
    half_length_nm : reach of a profile on either side; two or three times the expected width.

    Raises
    ------
    InputError : shapes differ, a value inside the mask is not finite, or fewer than three profiles fit.

    >>> profiles = interface_profiles(a, composition, mask, 49.5, half_length_nm=300)
    >>> profiles.mean_width_nm, profiles.std_width_nm
    """
    require_shape(mask, "mask", (None, None))
    for name, array in (("values", values), ("composition", composition)):
        require_shape(array, name, mask.shape)
        require_finite(array, mask, name)
    if not mask.any():
        raise InputError("mask is empty; an interface needs a particle")
    nearest = ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True)
    filled, filled_values = (array[tuple(nearest)] for array in (composition, values))
    contours = find_contours(ndimage.gaussian_filter(filled, 1.0), 0.5, mask=mask)  # type: ignore[no-untyped-call]
    points = np.concatenate([np.empty((0, 2)), *(_spaced(contour) for contour in contours)])
    slope = [ndimage.map_coordinates(ndimage.gaussian_filter(filled, 2.0, order=o), points.T) for o in ((1, 0), (0, 1))]
    normal = np.stack(slope, axis=1) / np.maximum(np.hypot(*slope), _TINY)[:, None]
    n_half = int(np.ceil(2 * half_length_nm / pixel_size_nm))
    distance = np.linspace(-half_length_nm, half_length_nm, 2 * n_half + 1)
    places = points[:, :, None] + normal[:, :, None] * (distance / pixel_size_nm)
    within = ndimage.map_coordinates(mask.astype(float), np.moveaxis(places, 1, 0), order=0, cval=0.0).all(axis=1)
    profiles = ndimage.map_coordinates(filled_values, np.moveaxis(places[within], 1, 0), order=3, mode="nearest")
    sigma = np.array([_error_function_width(distance, profile) for profile in profiles])
    direct = np.array([_direct_width(distance, profile) for profile in profiles])
    good = np.isfinite(sigma) & np.isfinite(direct)
    if good.sum() < _MIN_PROFILES:
        raise InputError(
            f"{good.sum()} of {len(points)} profiles across X = 0.5 stay inside the particle over "
            f"+-{half_length_nm:g} nm and show a step, at least {_MIN_PROFILES} are needed; is there a phase boundary, "
            "is half_length_nm too long?"
        )
    centre = (points[within][good] - (np.array(mask.shape) - 1) / 2)[:, ::-1] * pixel_size_nm
    return InterfaceProfiles(distance, profiles[good], centre, _WIDTH_PER_SIGMA * sigma[good], direct[good])


def _spaced(contour: Float) -> Float:
    """Points one pixel apart along a contour (n, 2)."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(contour, axis=0), axis=1))])
    at = np.arange(0.5, along[-1], 1.0)
    return np.column_stack([np.interp(at, along, coordinate) for coordinate in contour.T])


def _error_function_width(distance: Float, profile: Float) -> float:
    """Standard deviation (nm) of the error function fitted to a profile; NaN when there is no step in it."""
    reach = distance[-1]

    def residual(parameters: Float) -> Float:
        low, high, centre, sigma = parameters
        return np.asarray(low + (high - low) * (1 + erf((distance - centre) / (np.sqrt(2) * sigma))) / 2 - profile)

    quarter = len(distance) // 4
    start = (profile[:quarter].mean(), profile[-quarter:].mean(), 0.0, reach / 5)
    found = least_squares(residual, start, x_scale=(*[max(np.ptp(profile), _TINY)] * 2, reach, reach))
    centre, sigma = found.x[2:]
    return float(abs(sigma)) if found.success and abs(centre) < reach / 2 and abs(sigma) < reach else float("nan")


def _direct_width(distance: Float, profile: Float) -> float:
    """Distance (nm) between the 10 and 90 % crossings next to the middle one; NaN without them.

    0 and 100 % are the means of the outer quarters.
    """
    quarter = len(distance) // 4
    low, high = profile[:quarter].mean(), profile[-quarter:].mean()
    share = (profile - low) / (high - low) if high != low else np.zeros_like(profile)
    crossings = [np.flatnonzero(np.diff(np.sign(share - level))) for level in (0.1, 0.5, 0.9)]
    if any(found.size == 0 for found in crossings):
        return float("nan")
    middle = crossings[1][np.argmin(np.abs(distance[crossings[1]]))]
    before, after = crossings[0][crossings[0] <= middle], crossings[2][crossings[2] >= middle]
    if before.size == 0 or after.size == 0:
        return float("nan")
    ends = []
    for at, level in ((before[-1], 0.1), (after[0], 0.9)):
        fraction = (level - share[at]) / (share[at + 1] - share[at])
        ends.append(distance[at] + fraction * (distance[at + 1] - distance[at]))
    return float(ends[1] - ends[0])


def composition_histogram(composition: Float, mask: Bool, n_bins: int = 40) -> tuple[Float, Float]:
    """Probability density of the pixels' composition (Deng SI, Fig. S12 a-c).

    Parameters
    ----------
    composition : (ny, nx) lithium fraction; noise may carry it beyond 0..1, and the bins reach as far.
    mask : (ny, nx) bool.
    n_bins : bins between the smallest and the largest composition (and at least 0..1).

    Returns
    -------
    density (n_bins,), integrating to 1; edges (n_bins + 1,).

    Raises
    ------
    InputError : an empty mask, or a value inside it that is not finite.
    """
    require_shape(mask, "mask", (None, None))
    require_shape(composition, "composition", mask.shape)
    require_finite(composition, mask, "composition")
    if not mask.any():
        raise InputError("mask is empty; a histogram needs at least one pixel")
    inside = composition[mask]
    span = (min(0.0, inside.min()), max(1.0, inside.max()))
    density, edges = np.histogram(inside, bins=n_bins, range=span, density=True)
    return density, edges


def phase_class(mean_composition: float) -> str:
    """ "FP", "LXFP" or "LFP": poor in lithium, phase-separated, rich (Deng et al. 2022, Fig. 2d-f).

    >>> phase_class(0.5)
    'LXFP'
    """
    if not np.isfinite(mean_composition):
        raise InputError(f"mean_composition must be finite, got {mean_composition}")
    if mean_composition <= _FP_BELOW:
        return "FP"
    return "LFP" if mean_composition >= _LFP_ABOVE else "LXFP"
