"""Dislocation density and size from one Bragg peak, by its restricted moments (the variance method).

The Fourier coefficients of a peak broadened by dislocations and by size begin as
A(L) = exp(rho* L^2 ln(|L|/R) - |L|/epsilon_F) (Wilkens 1970; Groma 1998), so its tails follow

    I(q) = s / (2 pi^2 q^2) + rho* / (4 pi^2 |q|^3)
         + (3 s / 4 pi^4) (l + rho*/4) / q^4 + (3 rho* / 4 pi^4) l / |q|^5 + ...

with s = 1/epsilon_F, l = rho* ln(|q|/q1) and the area 1. The first two terms are those of Borbely & Groma (2001); the
others are the Fourier transforms of |L|^3 ln|L| and L^4 ln^2|L|, the next terms of the same exponential, and are why
the method can start close to the peak. Integrated, they are the restricted moments of Deng SI, eq. 4.3 and 4.4:

    M2(q)     = s q / pi^2 + (rho*/2 pi^2) ln(q/q0) - ...
    M4(q)/q^2 = s q / (3 pi^2) + rho*/(4 pi^2) + 3 l^2 / (4 pi^4 q^2) + ...

The coefficient of the last term is that of the transform; checked against numerical transforms of Wilkens' function.

Each moment is fitted for itself, together with the background under the peak and its whole area, whose truncated tails
are part of the model: M0 and M_k up to q_min and the steps of M_k from there to q_max are the data, weighted by the
noise of the intensities they are sums of. M2 and M4 take the level of their curve from different theory (ln(q/q0) or
ln^2(q/q1)), so that their agreement tests whether the expansion holds. Units: q in 1/nm, rho* in 1/nm^2, lengths nm.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from chemomech.arrays import Float, require_shape
from chemomech.errors import InputError

Order = Literal[2, 4]

#: Fewer points do not show tails and background.
MIN_POINTS = 64
#: The peak needs this many of its half widths at half maximum on either side.
MIN_HALF_WIDTHS = 5.0
#: What Borbely & Groma (2001) and Deng (SI, IV) take as the error of the method.
TOLERANCE = 0.15

_STEPS = 80
_STARTS = 14
_UNKNOWNS = 5
#: The next term of the expansion is taken as this times the square of the relative size of the last one kept; on
#: profiles of Wilkens' function with R sqrt(rho*) from 0.8 to 7 the error stays within a factor of two of it.
_NEXT_TERM = {2: 1.5, 4: 3.0}
#: A rise of the tail by so many standard errors, and by this part of the maximum, is another peak.
_RISE, _RISE_PART = 8.0, 0.02
#: Fourier coefficients of the instrument below this are not divided by.
_INSTRUMENT = 0.3
#: The fit starts so many widths 1/L0 of that division away from the centre.
_CLEAR = 1.0
_PI2 = np.pi**2


@dataclass(frozen=True)
class MomentFit:
    """One restricted moment and what was fitted to it.

    Attributes
    ----------
    order : 2 or 4.
    q_min, q_max : the range of the fit, 1/nm.
    density_per_nm2, density_error : rho* and its standard error, which holds the noise, the joint background, size and
        area, and the part of the expansion left out.
    truncation_error : that last part alone.
    inverse_size_per_nm, inverse_size_error : 1/epsilon_F.
    background : intensity under the peak at its centre; area : of the whole peak, truncated tails included.
    logarithm_per_nm2 : rho* ln(q_min/q1).
    chi2 : per degree of freedom, against the scatter of neighbouring points.
    """

    order: Order
    q_min: float
    q_max: float
    density_per_nm2: float
    density_error: float
    truncation_error: float
    inverse_size_per_nm: float
    inverse_size_error: float
    background: float
    area: float
    logarithm_per_nm2: float
    chi2: float

    @property
    def size_nm(self) -> float:
        """Mean column length epsilon_F; inf when its inverse is not two standard errors above zero."""
        shown = self.inverse_size_per_nm > 2 * self.inverse_size_error
        return 1 / self.inverse_size_per_nm if shown else float("inf")

    def __call__(self, q_per_nm: npt.ArrayLike) -> Float:
        """The fitted M2 (1/nm^2) or M4 (1/nm^4) at q > 0."""
        q = np.asarray(q_per_nm, dtype=np.float64)
        return _moment(
            self.order, q, self.inverse_size_per_nm, self.density_per_nm2, self.logarithm_per_nm2, self.q_min
        )


@dataclass(frozen=True)
class PeakAnalysis:
    """One peak, prepared and analysed.

    Attributes
    ----------
    q_per_nm, measured : (n,) about the peak's centre, as given.
    intensity : (n,) with the instrument taken out.
    background : (n,) fitted under the peak.
    shift_per_nm : centre of the peak in the q that was given.
    integral_breadth_per_nm : area over maximum, without background.
    M2, M4 : the two fits.
    """

    q_per_nm: Float
    measured: Float
    intensity: Float
    background: Float
    shift_per_nm: float
    integral_breadth_per_nm: float
    M2: MomentFit
    M4: MomentFit

    @property
    def density_per_nm2(self) -> float:
        """rho* from both moments; they see the same photons, so neither counts more than the other."""
        return (self.M2.density_per_nm2 + self.M4.density_per_nm2) / 2

    @property
    def density_error(self) -> float:
        """Its standard error: the larger of the two, and half their difference."""
        half = (self.M2.density_per_nm2 - self.M4.density_per_nm2) / 2
        return float(np.hypot(max(self.M2.density_error, self.M4.density_error), half))

    @property
    def consistent(self) -> bool:
        """The moments agree within 15 % or two standard errors of their difference, taken as independent."""
        difference = abs(self.M2.density_per_nm2 - self.M4.density_per_nm2)
        allowed = 2 * np.hypot(self.M2.density_error, self.M4.density_error)
        return bool(difference <= max(TOLERANCE * self.density_per_nm2, allowed))

    def moment(self, order: Order) -> tuple[Float, Float]:
        """q > 0 and the measured restricted moment M_k(q) of the area 1, the fitted background taken out."""
        fit = self.M2 if order == 2 else self.M4
        q, moment = restricted_moment(self.q_per_nm, self.intensity - self.background, order)
        return q, moment / fit.area


@dataclass(frozen=True)
class WilliamsonHall:
    """The straight line beta = 1/size + 2 strain g, for comparison only: it knows no anisotropy.

    Attributes
    ----------
    size_nm : inf when the intercept is not positive.
    strain : from the slope.
    intercept_per_nm : of the line.
    """

    size_nm: float
    strain: float
    intercept_per_nm: float


def analyse_peak(
    q_per_nm: npt.ArrayLike,
    intensity: npt.ArrayLike,
    *,
    instrument: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> PeakAnalysis:
    """Effective dislocation density rho* and size of one peak, by M2 and by M4.

    The noise is white from point to point with a variance proportional to the intensity, and the factor (1 for raw
    counts) is taken from the scatter of neighbouring points, so counts may have been scaled. The fit reaches to the
    end of the shorter side; it starts where the noise and the part of the expansion left out are smallest together.
    Centre, slope of the background and range are found from the peak itself; the slope cancels in even moments.

    Parameters
    ----------
    q_per_nm : (n,) increasing, q = 2 (sin theta - sin theta_0) / wavelength.
    intensity : (n,) >= 0, the background still under the peak; any unit.
    instrument : q_per_nm and intensity of a standard without broadening of its own, such as LaB6, near this peak.

    Raises
    ------
    InputError : fewer than 64 points, shapes that differ, q that does not increase, intensity negative or not finite,
        a peak at the edge of its range, a second peak, no tail above the noise.

    >>> peak = analyse_peak(q, counts)
    >>> peak.M2.density_per_nm2, peak.M2.density_error
    """
    q, y = _checked(q_per_nm, intensity, "")
    noise = _noise_factor(q, y)
    centre, half_width = _centre(q, y)
    q = q - centre
    reach = min(-q[0], q[-1])
    if reach < MIN_HALF_WIDTHS * half_width:
        side = "left" if -q[0] < q[-1] else "right"
        raise InputError(
            f"the peak is at the edge of its range: {reach:.3g} 1/nm on its {side}, and with a half width of "
            f"{half_width:.3g} 1/nm it needs {MIN_HALF_WIDTHS * half_width:.3g}"
        )
    slope = _slope(q, y, reach)
    _refuse_neighbour(q, y - slope * q, noise, half_width, reach)
    measured, smooth = y, 0.0
    if instrument is not None:
        y, smooth = _without_instrument(q, y, *_checked(*instrument, "instrument: "))
    m2, m4 = (_best_fit(q, y, order, slope, noise, half_width, reach, smooth) for order in (2, 4))
    background = m2.background + slope * q
    breadth = m2.area / float((y - background).max())
    return PeakAnalysis(q, measured, y, background, centre, breadth, m2, m4)


def restricted_moment(q_per_nm: Float, intensity: Float, order: int) -> tuple[Float, Float]:
    """q > 0 and the integral of r^order I(r) from -q to q (Deng SI, eq. 4.2, not yet divided by the area).

    Parameters
    ----------
    q_per_nm : (n,) increasing about the centre of the peak; intensity : (n,) without background.

    >>> q = np.linspace(-1, 1, 201)
    >>> restricted_moment(q, np.ones(201), 2)[1][-1].round(3).item()
    0.677
    """
    reach = min(-q_per_nm[0], q_per_nm[-1])
    near = np.argsort(np.abs(q_per_nm), kind="stable")
    near = near[np.abs(q_per_nm[near]) <= reach]
    q = np.abs(q_per_nm[near])
    moment = np.cumsum(np.gradient(q_per_nm)[near] * q_per_nm[near] ** order * intensity[near])
    return q[q > 0], moment[q > 0]


def williamson_hall(g_per_nm: npt.ArrayLike, integral_breadth_per_nm: npt.ArrayLike) -> WilliamsonHall:
    """Least-squares line through integral breadths (Williamson & Hall 1953, in reciprocal space).

    Parameters
    ----------
    g_per_nm, integral_breadth_per_nm : (n,), at least two different g.

    Raises
    ------
    InputError : fewer than two different g.

    >>> round(williamson_hall([2, 4], [0.012, 0.014]).size_nm)
    100
    """
    g, breadth = np.asarray(g_per_nm, dtype=np.float64), np.asarray(integral_breadth_per_nm, dtype=np.float64)
    if len(np.unique(g)) < 2:
        raise InputError("a Williamson-Hall line needs peaks at two different g")
    slope, intercept = np.polyfit(g, breadth, 1)
    return WilliamsonHall(float(1 / intercept) if intercept > 0 else float("inf"), float(slope / 2), float(intercept))


def _checked(q_per_nm: npt.ArrayLike, intensity: npt.ArrayLike, what: str) -> tuple[Float, Float]:
    q, y = np.asarray(q_per_nm, dtype=np.float64), np.asarray(intensity, dtype=np.float64)
    require_shape(q, f"{what}q_per_nm", (None,))
    require_shape(y, f"{what}intensity", q.shape)
    if len(q) < MIN_POINTS:
        raise InputError(f"{what}{len(q)} points do not show the tails of a peak; at least {MIN_POINTS} are needed")
    if not (np.isfinite(q).all() and np.isfinite(y).all()):
        raise InputError(f"{what}q and intensity must be finite, {np.sum(~(np.isfinite(q) & np.isfinite(y)))} are not")
    falls = np.flatnonzero(np.diff(q) <= 0)
    if len(falls):
        raise InputError(f"{what}q_per_nm must increase, and does not from point {falls[0]} to {falls[0] + 1}")
    if y.min() < 0:
        raise InputError(
            f"{what}intensity is negative at {np.sum(y < 0)} points, first at {np.argmax(y < 0)}; "
            "give it as measured, with the background"
        )
    if np.ptp(y) == 0:
        raise InputError(f"{what}intensity is {y[0]:g} everywhere: there is no peak")
    return q, y


def _centre(q: Float, y: Float) -> tuple[float, float]:
    """Centroid of what stands above a tenth of the maximum, and the half width at half maximum."""
    ends = max(4, len(y) // 20)
    floor = float(np.median(np.concatenate([y[:ends], y[-ends:]])))
    top = int(np.argmax(y))
    height = y - floor

    def stretch(part: float) -> slice:
        low = height < part * height[top]
        left, right = np.flatnonzero(low[:top]), np.flatnonzero(low[top:])
        if not len(left) or not len(right):
            raise InputError("the peak is at the edge of its range: its maximum does not fall off on both sides")
        return slice(int(left[-1]), int(top + right[0]) + 1)

    high, half = stretch(0.1), stretch(0.5)
    weight = np.gradient(q)[high] * height[high]
    return float(np.sum(weight * q[high]) / np.sum(weight)), float(np.ptp(q[half]) / 2)


def _noise_factor(q: Float, y: Float) -> float:
    """Variance over intensity, from third differences outside the peak's middle; 1 for raw counts."""
    centre, half_width = _centre(q, y)
    outside = np.abs(q - centre) > 2 * half_width
    difference = np.convolve(y, [1, -3, 3, -1], mode="valid")
    mean = np.convolve(y, np.full(4, 0.25), mode="valid")
    whole = np.convolve(outside, np.ones(4), mode="valid") == 4
    if not whole.any():
        raise InputError("the peak is at the edge of its range: nothing is left beside it to judge the noise by")
    # The floor stands for rounding, where there is no noise.
    return float(max(np.sum(difference[whole] ** 2) / (20 * np.sum(mean[whole]) + 1e-300), 1e-12 * y.max()))


def _slope(q: Float, y: Float, reach: float) -> float:
    """Of the background, from the outer fifth of either side."""
    right, left = ((sign * q > 0.8 * reach) & (sign * q <= reach) for sign in (1, -1))
    return float((y[right].mean() - y[left].mean()) / (q[right].mean() - q[left].mean()))


def _refuse_neighbour(q: Float, y: Float, noise: float, half_width: float, reach: float) -> None:
    """A tail that rises again holds another peak."""
    width = max(half_width / 2, 4 * float(np.median(np.diff(q))))
    for sign in (1, -1):
        there = (sign * q > 2 * half_width) & (sign * q <= reach)
        bins = ((sign * q[there] - 2 * half_width) / width).astype(np.intp)
        count = np.bincount(bins)
        mean = np.bincount(bins, y[there])[count > 2] / count[count > 2]
        error = np.sqrt(noise * np.maximum(mean, noise) / count[count > 2])
        lowest = np.minimum.accumulate(mean)
        rise = mean - lowest - np.maximum(_RISE * error, _RISE_PART * y.max())
        if (rise > 0).any():
            place = sign * (2 * half_width + (np.flatnonzero(count > 2)[np.argmax(rise)] + 0.5) * width)
            raise InputError(
                f"the tail rises again near {place:+.3g} 1/nm from the centre: another peak overlaps this one; "
                "cut the range before it, on both sides alike, or leave this peak out"
            )


def _without_instrument(q: Float, y: Float, q_standard: Float, standard: Float) -> tuple[Float, float]:
    """Intensity at q with the instrument divided out in Fourier space (Stokes 1948), and the width it is smoothed by.

    The quotient is tapered by exp(-(L/L0)^4), L0 where the standard has fallen to 0.3, and the width is 1/L0. This
    leaves moments up to the third as they are and adds -24/(2 pi L0)^4 to the fourth; steeper tapers ring into the
    tails. Noise is nowhere amplified more than threefold; that, and the noise of the standard, shows in chi-squared and
    so widens the errors.
    """
    step = float(np.median(np.diff(q)))
    n = 2 ** int(np.ceil(np.log2(2 * np.ptp(q) / step)))
    grid = q[0] + step * np.arange(int(np.ptp(q) / step) + 1)

    def line(x: Float, values: Float) -> Float:
        ends = max(4, len(x) // 20)
        (x0, x1), (y0, y1) = ((float(v[:ends].mean()), float(v[-ends:].mean())) for v in (x, values))
        return np.asarray(y0 + (x - x0) * (y1 - y0) / (x1 - x0))

    centre, half_width = _centre(q_standard, standard)
    if half_width < step:
        return y, 0.0
    offset = step * (np.arange(n) - n // 2)
    kernel = np.interp(offset + centre, q_standard, standard - line(q_standard, standard), left=0, right=0)
    response = np.fft.rfft(np.fft.ifftshift(kernel)) / kernel.sum()
    below = np.flatnonzero(np.abs(response) < _INSTRUMENT)
    limit = max(int(below[0]) if len(below) else len(response), 1)
    taper = np.exp(-((np.arange(len(response)) / limit) ** 4))
    background = line(grid, np.interp(grid, q, y))
    measured = np.interp(grid, q, y) - background
    quotient = np.fft.rfft(measured, n) * np.where(taper > 1e-12, taper, 0) / np.where(taper > 1e-12, response, 1)
    pure = np.fft.irfft(quotient, n)[: len(grid)] + background
    return np.interp(q, grid, pure), n * step / limit


def _best_fit(
    q: Float, y: Float, order: Order, slope: float, noise: float, half_width: float, reach: float, smooth: float
) -> MomentFit:
    first = max(1.5 * half_width, _CLEAR * smooth)
    starts = np.geomspace(first, max(first, reach / 2), _STARTS)
    fits = [_fit(q, y, order, start, reach, slope, noise, smooth) for start in starts]
    best = min((fit for fit in fits if fit is not None), key=lambda fit: fit.density_error, default=None)
    if best is None:
        raise InputError("the tails of the peak have too few points, or stand too little above the noise, for a fit")
    return best


def _fit(
    q: Float, y: Float, order: Order, q_min: float, q_max: float, slope: float, noise: float, smooth: float
) -> MomentFit | None:
    """Weighted least squares of M_k from q_min to q_max; None where the tail holds too few points."""
    distance, width = np.abs(q), np.gradient(q)
    flat = y - slope * q
    core, tail = distance < q_min, (distance >= q_min) & (distance <= q_max)
    # Steps are no shorter than what the division by the instrument smoothed over, so their noise is independent.
    steps = int(min(_STEPS, tail.sum() // 4, (q_max - q_min) / smooth if smooth else _STEPS))
    if steps < 2 * _UNKNOWNS:
        return None
    index = np.minimum(((distance[tail] - q_min) / (q_max - q_min) * steps).astype(np.intp), steps - 1)
    power = width[tail] * distance[tail] ** order
    floor = float(np.median(y[distance > 0.8 * q_max]))
    variance = noise * np.maximum(y, max(floor, noise))

    def summed(values: Float) -> Float:
        return np.asarray(np.bincount(index, values, minlength=steps), dtype=np.float64)

    data, flat_steps = summed(power * flat[tail]), summed(power)
    sigma = np.sqrt(summed(power**2 * variance[tail]))
    moments = np.array([width[core], width[core] * distance[core] ** order])
    core_data, core_flat = moments @ flat[core], moments.sum(axis=1)
    whiten = np.linalg.inv(np.linalg.cholesky((moments * variance[core]) @ moments.T))
    edge = float(width[core].sum() / 2)  # where the sums over points end

    kernel = -24 * (smooth / (2 * np.pi)) ** 4 if order == 4 else 0.0
    area = core_data[0] - floor * core_flat[0]
    height = (core_data[1] - floor * core_flat[1]) / area
    guess = 0.3 * (2 * _PI2 * height / q_min**2 if order == 2 else 4 * _PI2 * height / q_min**4)
    if not (area > 0 and guess > 0):
        return None
    scale = np.array([area, area, 1 / q_min * q_min**2, q_min**2, q_min**2])

    def residual(unknown: Float) -> Float:
        whole, background, s, rho, log = unknown * scale
        model = whole * summed(power * _tail(distance[tail], s, rho, log, q_min)) + background * flat_steps
        level = _moment(order, edge, s, rho, log, q_min) + kernel
        inside = np.array([1 - _beyond(edge, s, rho, log, q_min), level])
        return np.concatenate([(data - model) / sigma, whiten @ (core_data - whole * inside - background * core_flat)])

    start = np.array([1, 0.9 * floor / area, 0.05, guess, 2 * guess])
    # M4 holds the square of the logarithm: of its two roots the one is meant that grows with q.
    bounds = ([0, -np.inf, 0, 0, -np.inf if order == 2 else 0], np.inf)
    solution = least_squares(residual, start, bounds=bounds, x_scale=[1, abs(start[1]) + 1e-9, 0.1, guess, guess])
    if np.linalg.matrix_rank(solution.jac) < _UNKNOWNS:
        return None
    chi2 = 2 * solution.cost / (steps + 2 - _UNKNOWNS)
    errors = scale * np.sqrt(np.diag(np.linalg.inv(solution.jac.T @ solution.jac)) * max(chi2, 1))
    whole, background, s, rho, log = (float(value) for value in solution.x * scale)
    last = 3 * max(abs(log), rho) / (_PI2 * q_min**2)
    truncation = _NEXT_TERM[order] * last**2 * rho
    return MomentFit(
        order=order,
        q_min=q_min,
        q_max=q_max,
        density_per_nm2=rho,
        density_error=float(np.hypot(errors[3], truncation)),
        truncation_error=truncation,
        inverse_size_per_nm=s,
        inverse_size_error=float(errors[2]),
        background=background,
        area=whole,
        logarithm_per_nm2=log,
        chi2=float(chi2),
    )


def _tail(q: Float, s: float, rho: float, log: float, unit: float) -> Float:
    """I(q) for the area 1; `log` = rho ln(unit/q1)."""
    l = rho * np.log(q / unit) + log  # noqa: E741 - the name of the module's formulas
    return np.asarray(
        s / (2 * _PI2 * q**2)
        + rho / (4 * _PI2 * q**3)
        + 3 / (4 * _PI2**2) * (s * (l + rho / 4) / q**4 + rho * l / q**5)
    )


def _beyond(q: float, s: float, rho: float, log: float, unit: float) -> float:
    """The part of the area outside -q..q: twice the integral of `_tail`."""
    l = rho * np.log(q / unit) + log  # noqa: E741
    fourth, fifth = (l + rho / 4) / 3 + rho / 9, l / 4 + rho / 16
    return float(
        s / (_PI2 * q) + rho / (4 * _PI2 * q**2) + 3 / (2 * _PI2**2) * (s * fourth / q**3 + rho * fifth / q**4)
    )


def _moment(order: Order, q: Float | float, s: float, rho: float, log: float, unit: float) -> Float:
    """M2 or M4 of the area 1: the integral of r^k times `_tail`, and the level that the exponential gives it.

    The level of M2 is (rho/2 pi^2) (ln(q/q1) + 7/12): M2 = (rho/2 pi^2) (ln(2 pi q R) + gamma - 3/2), and
    ln(1/q1) = ln(2 pi R) + gamma - 25/12, from the digamma function at 3 and at 5.
    """
    l = rho * np.log(q / unit) + log  # noqa: E741
    if order == 2:
        corrections = s * (l + 5 / 4 * rho) / q + rho * (l + rho / 2) / (2 * q**2)
        return np.asarray((l + 7 / 12 * rho) / (2 * _PI2) + s * q / _PI2 - 3 / (2 * _PI2**2) * corrections)
    corrections = s * q * (l - 3 / 4 * rho) + l**2 / 2
    return np.asarray(s * q**3 / (3 * _PI2) + rho * q**2 / (4 * _PI2) + 3 / (2 * _PI2**2) * corrections)
