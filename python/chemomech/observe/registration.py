"""Affine registration of two microscopes' images of one particle, and resampling from one grid to the other.

What determines the six parameters. The inside of a particle shows one thing in both images (composition and
lattice parameter, optical density and dark field), but often no more than one phase boundary, and a straight
boundary fixes only the translation across it and the rotation: sliding along it, and every scale, are left open.
The particle's outline fixes those, but not a turn by 180 degrees, and for a round particle no turn at all. So
both are fitted at once, as two channels of one weighted least-squares problem:

    inside   fixed(p)    = offset_1 + gain_1 moving(q)    + noise_1   pixels more than 4 from the outline
    outline  coverage(p) = offset_2 + gain_2 coverage'(q) + noise_2   pixels within 4 of the outline
    p = M q + t

With offsets, gains and noise variances unknown, the maximum-likelihood transform minimises

    F(M, t) = sum over channels of (n/2) ln(1 - r^2),

r being a channel's correlation: it maximises the correlations (Deng SI, section 1.2, maximises that of the
inside), each with the weight its own residual noise gives it. Every blur of the resolution pyramid, 8 pixels
down to the pixel itself, is minimised by a trust region with the exact gradient and the Gauss-Newton Hessian
(variable projection: Golub & Pereyra 1973; Kaufman 1975); the last Hessian is the inverse covariance.

Conventions: each image is centred on its own centre. Coordinates are (x, y) in nm, x along axis 1, y along axis 0
growing with the rows; p = M q + t maps the moving image (X-ray) to the fixed one (STEM).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import minimize
from skimage.filters import threshold_otsu

from chemomech.arrays import Bool, Float, require_shape
from chemomech.errors import InputError
from chemomech.observe.noise import white_noise

#: Pixels of the fixed image between the outline and what counts as the inside.
_EDGE_PIXELS = 4
_MIN_PIXELS = 25
#: Blur of both images, in pixels of the fixed one, from coarse to fine. In the end the fixed image is left as it is
#: (its noise is white then) and the finer moving one gets a pixel's footprint.
_PYRAMID = (8.0, 4.0, 2.0, 1.0, 0.0)
_FOOTPRINT = 0.4
_TURNS_DEG = (-30, -15, 0, 15, 30)
_CANDIDATES = 3
#: Of the log-likelihood by nm at the rim; with an uncertainty of 1 to 10 nm the step left over is below 0.01 nm.
_GRADIENT_TOLERANCE = 1e-4
_ITERATIONS = 60
#: Instruments disagree by a few per cent in magnification and a few degrees in shear; beyond this it is no match.
_SCALES = (0.8, 1.25)
_SHEAR_DEG = 10.0
_ROTATION_DEG = 45.0
_MIN_OVERLAP = 0.7
_MIN_CORRELATION = 0.5
#: Below this share of signal in the variance inside, a particle counts as one phase: its outline registers it.
_MIN_SIGNAL = 0.3
#: A mirror image must explain the data better than this (log-likelihood a pixel), or the particle is just symmetric.
_MIRROR_MARGIN = 0.05
_OUTLIER_SIGMAS = 6.0
#: Pixels beside an outline within which its blur is measured.
_NEAR_EDGE = 8
#: Stands in for the power of a constant image, whose gain is then 0.
_TINY = float(np.finfo(float).tiny)
#: Share of the pixels around a point that must be known to resample there.
_MIN_KNOWN = 0.1
#: Points resampled at once, which bounds memory.
_BLOCK = 20_000


@dataclass(frozen=True)
class Image:
    """One microscope's view of a particle.

    Attributes
    ----------
    values : (ny, nx), any unit; NaN where unknown.
    pixel_size_nm : edge of a square pixel, nm.
    coverage : (ny, nx) in 0..1, the share of each pixel that the particle covers: a mask, or `coverage` of a
        thickness map. None when the outline is unknown; then the values alone must determine the transform.

    Raises
    ------
    InputError : shapes differ, nothing is finite, the coverage is empty or leaves 0..1, the pixel size is not positive.
    """

    values: Float
    pixel_size_nm: float
    coverage: Float | Bool | None = None

    def __post_init__(self) -> None:
        require_shape(self.values, "values of an image", (None, None))
        if not (np.isfinite(self.pixel_size_nm) and self.pixel_size_nm > 0):
            raise InputError(f"pixel_size_nm of an image must be positive, got {self.pixel_size_nm}")
        if self.coverage is not None:
            require_shape(self.coverage, "coverage of an image", self.values.shape)
            low, high = float(np.min(self.coverage)), float(np.max(self.coverage))
            if not (low >= 0 and high <= 1):
                raise InputError(f"coverage of an image must lie in 0..1 everywhere, found {low:.3g}..{high:.3g}")
        if not self.known.any():
            raise InputError("an image has no finite value inside its particle; check its mask or thickness")

    @property
    def particle(self) -> Bool:
        """(ny, nx) bool: at least half covered."""
        return (
            np.ones(self.values.shape, dtype=bool)
            if self.coverage is None
            else np.asarray(self.coverage, dtype=np.float64) >= 0.5
        )

    @property
    def known(self) -> Bool:
        """(ny, nx) bool: part of the particle and finite."""
        return self.particle & np.isfinite(self.values)

    @cached_property
    def axes_nm(self) -> tuple[Float, Float]:
        """Positions of rows (ny,) and columns (nx,) about the image centre, nm."""
        rows, columns = ((np.arange(n) - (n - 1) / 2) * self.pixel_size_nm for n in self.values.shape)
        return rows, columns

    def positions(self, pixels: Bool) -> Float:
        """Positions (n, 2) of the chosen pixels (ny, nx) as (x, y) about the image centre, nm."""
        row, column = np.nonzero(pixels)
        return np.column_stack([self.axes_nm[1][column], self.axes_nm[0][row]])


def coverage(thickness: Float) -> Float:
    """Share of each pixel that a particle covers, from a map proportional to its thickness.

    The thickness is divided by the local one a little further inside, so that the half level follows the
    outline also where the particle is thin. Only the largest object counts.

    Parameters
    ----------
    thickness : (ny, nx), any unit, zero on average beside the particle; NaN counts as beside it.

    Returns
    -------
    (ny, nx) : 0 outside to 1 inside.

    Raises
    ------
    InputError : nothing stands out from the background.

    >>> coverage(np.pad(np.full((8, 8), 3.0), 4)).sum()
    64.0
    """
    require_shape(thickness, "thickness", (None, None))
    thickness = np.nan_to_num(thickness)
    threshold = threshold_otsu(thickness) if np.ptp(thickness) > 0 else np.inf  # type: ignore[no-untyped-call]
    thick = thickness > threshold
    labels, n_objects = ndimage.label(thick)
    if n_objects == 0 or thick.all():
        raise InputError(f"no particle in the thickness map: {thick.mean():.0%} of its pixels exceed the background")
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    particle = ndimage.binary_fill_holes(labels == largest)
    depth = ndimage.distance_transform_edt(particle)
    # The local thickness is taken beyond the edge's blur, but near enough to follow the thickness.
    margin = 0.03 * np.sqrt(particle.sum())
    for _ in range(2):
        margin = min(max(margin, 2.0), 0.5 * depth.max())
        plateau = ndimage.gaussian_filter(_extended(thickness, depth > margin), margin)
        near = (ndimage.distance_transform_edt(~particle) <= 2 * margin) & (plateau > 0)
        covered = np.where(near, np.clip(thickness / np.where(near, plateau, 1), 0, 1), 0.0)
        margin = 2.5 * _edge_width(Image(thickness, 1.0, covered))
    return covered


@dataclass(frozen=True)
class Registration:
    """The affine map p = M q + t from the moving to the fixed image, (x, y) in nm about the two image centres.

    Attributes
    ----------
    matrix : (2, 2) M; translation_nm : (2,) t.
    covariance : (6, 6) of (M_xx, M_xy, M_yx, M_yy, t_x, t_y), from the Gauss-Newton Hessian and the residuals at the
        optimum, less what the moving image's own noise adds to the Hessian. It counts noise that is white from pixel
        to pixel: on synthetic particles the errors are 1 to 1.5 times as large (2 to 3 times when the X-ray edge is
        blurred over more than a STEM pixel), and a mask that is too wide or too narrow is not in it.
    score : correlation of the two images inside the particle; 1 is perfect.
    overlap : intersection over union of the two outlines; NaN when one is unknown.
    moving, fixed : the images.
    """

    matrix: Float
    translation_nm: Float
    covariance: Float
    score: float
    overlap: float
    moving: Image
    fixed: Image

    def to_moving(self, points_nm: Float) -> Float:
        """Positions (n, 2) in the moving image of points (n, 2) of the fixed one, nm."""
        return np.asarray(np.linalg.solve(self.matrix, (points_nm - self.translation_nm).T).T)

    def resample(self, values: Float, deviation: Float) -> tuple[Float, Float]:
        """A map of the moving grid on the fixed one, with the standard deviation that its noise leaves.

        An electron probe is much narrower than its step, so the value at the scan point is wanted, not the mean
        over a pixel: a quadratic is fitted to the moving pixels around every point, weighted by a Gaussian and the
        inverse variance, and its centre value is taken. That averages noise like a mean over the footprint
        but keeps the slopes and curvatures of a phase boundary (local regression, Fan & Gijbels 1996).
        Neighbouring results share pixels: their errors are correlated over about one pixel.

        Parameters
        ----------
        values, deviation : (ny, nx) on the moving grid, the map and its standard deviation; NaN where unknown.

        Returns
        -------
        values, deviation : (ny', nx') on the fixed grid, NaN outside its particle and where no moving pixel is near.

        Raises
        ------
        InputError : another shape than the moving image, or a deviation that is not positive where values are known.

        >>> composition, sigma = registration.resample(composition_xray, sigma_xray)
        """
        for name, array in (("values", values), ("deviation", deviation)):
            require_shape(array, f"{name} to resample", self.moving.values.shape)
        known = np.isfinite(values)
        if not (deviation[known] > 0).all():
            worst = np.min(deviation[known])
            raise InputError(f"deviation must be positive wherever values are known; its smallest is {worst:.3g}")
        centre = (np.array(values.shape[::-1]) - 1) / 2
        pixels = self.to_moving(self.fixed.positions(self.fixed.particle)) / self.moving.pixel_size_nm + centre
        width = max(_FOOTPRINT * self.fixed.pixel_size_nm / self.moving.pixel_size_nm, 0.7)
        smooth, spread = _local_quadratic(values, np.where(known, deviation, np.nan), pixels, width)
        grids = np.full((2, *self.fixed.values.shape), np.nan)
        grids[:, self.fixed.particle] = smooth, spread
        return grids[0], grids[1]


def register(moving: Image, fixed: Image) -> Registration:
    """Affine map of one image to another that maximises the correlation of their insides and outlines.

    Parameters
    ----------
    moving : composition (or optical density) with the coverage of its thickness map.
    fixed : lattice parameter (or dark field) with its mask.

    Raises
    ------
    InputError : the images do not overlap; a mirror image fits better; scale, shear or rotation are beyond what
        two instruments can differ by; the correlation is too low; the images leave a parameter undetermined.

    >>> found = register(Image(composition, 20.0, coverage(thickness)), Image(a, 49.5, mask))
    >>> found.matrix, found.translation_nm
    """
    outlined = moving.coverage is not None and fixed.coverage is not None
    candidates = [*_starts(moving, fixed, handed=1)]
    reflections = [*_starts(moving, fixed, handed=-1)]
    for blur in _PYRAMID:
        problem = _Problem(moving, fixed, outlined, blur)
        candidates = problem.minima(candidates)[:_CANDIDATES]
        # A true mirror image wins on every scale.
        ceiling = problem.misfit(candidates[0])
        reflections = [found for found in problem.minima(reflections)[:1] if problem.misfit(found) < ceiling]
    best = candidates[0]
    _require_plausible(problem, best, reflections)
    score = problem.correlations(best)[0]
    overlap = _overlap(best, moving, fixed) if outlined else float("nan")
    _require_match(problem, fixed, score, overlap)
    covariance = _covariance(problem, best, fixed.pixel_size_nm)
    return Registration(best[:4].reshape(2, 2), best[4:], covariance, score, overlap, moving, fixed)


class _Channel:
    """Pixels of the fixed image that a linear function of the moving one shall explain; a smooth function of (M, t)."""

    def __init__(
        self,
        moving: Float,
        moving_axes_nm: tuple[Float, Float],
        points_nm: Float,
        data: Float,
        *,
        independent: float,
        gradient_noise: float,
    ) -> None:
        self._spline = RectBivariateSpline(*moving_axes_nm, moving)
        self._limits = np.array([[axis[0], axis[-1]] for axis in reversed(moving_axes_nm)])
        self._points = points_nm
        self._data = data - data.mean()
        self._total = float(self._data @ self._data)
        self.n_pixels = independent * len(data)
        self._gradient_noise = gradient_noise

    def sample(self, parameters: Float) -> tuple[Float, Float]:
        """Moving image (n,) at the points, and its derivative (n, 6) by the parameters; constant beyond its border."""
        inverse, position = self._positions(parameters)
        x, y = held = np.clip(position.T, self._limits[:, :1], self._limits[:, 1:])
        gradient = np.stack([self._spline.ev(y, x, dy=1), self._spline.ev(y, x, dx=1)], axis=1)
        gradient = np.where(position == held.T, gradient, 0)
        return self._spline.ev(y, x), _parameter_slope(gradient, inverse, position)

    def evaluate(self, parameters: Float) -> tuple[float, Float, Float]:
        """(n/2) ln(1 - r^2), its gradient (6,) and Gauss-Newton Hessian (6, 6)."""
        values, slope = self.sample(parameters)
        gain, residual, left = self._fit(values)
        values, slope = values - values.mean(), slope - slope.mean(axis=0)
        # The part of the slope that a change of gain cannot make up for (Kaufman).
        slope_left = slope - np.outer(values, values @ slope) / max(values @ values, _TINY)
        misfit = self.n_pixels / 2 * float(np.log(left / max(self._total, _TINY)))
        weight = self.n_pixels / left
        return misfit, -weight * gain * (slope.T @ residual), weight * gain**2 * (slope_left.T @ slope_left)

    def noise_information(self, parameters: Float) -> Float:
        """What the noise of the moving image adds to the Hessian (6, 6) on average: structure that is not there."""
        gain, _, left = self._fit(self.sample(parameters)[0])
        inverse, position = self._positions(parameters)
        slopes = [_parameter_slope(np.broadcast_to(axis, position.shape), inverse, position) for axis in np.eye(2)]
        structure = np.sum([slope.T @ slope for slope in slopes], axis=0)
        return np.asarray(self._gradient_noise * self.n_pixels * gain**2 / left * structure)

    def _positions(self, parameters: Float) -> tuple[Float, Float]:
        """M^-1 and the points' positions q (n, 2) in the moving image, nm."""
        inverse = np.asarray(np.linalg.inv(parameters[:4].reshape(2, 2)), dtype=np.float64)
        return inverse, (self._points - parameters[4:]) @ inverse.T

    def _fit(self, values: Float) -> tuple[float, Float, float]:
        """Gain, residual (n,) and squared residual of the best linear function of the moving image."""
        values = values - values.mean()
        gain = float(values @ self._data) / max(float(values @ values), _TINY)
        residual = self._data - gain * values
        # A floor far below any noise keeps the logarithm finite on synthetic images.
        return gain, residual, max(float(residual @ residual) + 1e-9 * self._total, _TINY)

    def correlation(self, parameters: Float) -> float:
        """Correlation r of the two images on this channel's pixels; 0 where one is constant."""
        values = self.sample(parameters)[0]
        values = values - values.mean()
        return float(values @ self._data) / max(float(np.sqrt(values @ values * self._total)), _TINY)


def _parameter_slope(gradient: Float, inverse: Float, position: Float) -> Float:
    """Derivative (n, 6) of an image by the parameters, from its gradient (n, 2) at q: dq = -M^-1 (dM q + dt)."""
    shift = -gradient @ inverse
    return np.concatenate([(shift[:, :, None] * position[:, None, :]).reshape(-1, 4), shift], axis=1)


class _Problem:
    """F(M, t) at one blur (pixels of the fixed image); parameters (6,) are M row by row, then t in nm."""

    def __init__(self, moving: Image, fixed: Image, outlined: bool, blur: float) -> None:
        #: (6,) turns the parameters into displacements of the particle's rim, nm.
        self.scale = np.array([_radius(fixed)] * 4 + [1.0] * 2)
        self._step = max(blur, 1.0) * fixed.pixel_size_nm
        self.inside = _inside(fixed)
        stride = max(1, int(blur // 2))
        thinned = np.zeros(fixed.values.shape, dtype=bool)
        thinned[stride // 2 :: stride, stride // 2 :: stride] = True

        def channel(
            moved: Float, seen: Float, pixels: Bool, moving_blur_nm: float, fixed_blur_nm: float, noise: float
        ) -> _Channel:
            blur_pixels = fixed_blur_nm / fixed.pixel_size_nm
            # White noise blurred by a Gaussian is worth one independent value on 4 pi width^2 pixels.
            independent = min(1.0, stride**2 / (4 * np.pi * max(blur_pixels, 0.1) ** 2))
            pixels = pixels & thinned
            return _Channel(
                ndimage.gaussian_filter(moved, moving_blur_nm / moving.pixel_size_nm),
                moving.axes_nm,
                fixed.positions(pixels),
                ndimage.gaussian_filter(seen, blur_pixels)[pixels],
                independent=independent,
                # Variance of the derivative of white noise behind a Gaussian filter.
                gradient_noise=(noise * moving.pixel_size_nm) ** 2 / (8 * np.pi * moving_blur_nm**4),
            )

        # The composition of the outermost pixels is the noisiest; it must not be what is continued outwards.
        depth_nm = ndimage.distance_transform_edt(moving.particle) * moving.pixel_size_nm
        deep = moving.known & (depth_nm > fixed.pixel_size_nm)
        source = _extended(moving.values, deep if deep.any() else moving.known)
        target = _extended(fixed.values, _trusted(fixed))
        noise = white_noise([moving.values], [deep], "the moving image")
        width, footprint = blur * fixed.pixel_size_nm, _FOOTPRINT * fixed.pixel_size_nm
        self._channels = [channel(source, target, self.inside, max(width, footprint), width, noise)]
        if outlined:
            # A blurred corner lies further inside than a sharp one: outlines are compared at the same sharpness.
            outlines = [np.asarray(image.coverage, dtype=np.float64) for image in (moving, fixed)]
            edges = [_edge_width(image) for image in (moving, fixed)]
            common = max(width, float(np.hypot(max(edges), footprint)))
            blurs = [float(np.sqrt(common**2 - min(edge, common) ** 2)) for edge in edges]
            band = _distance_to_outline(fixed.particle) <= _EDGE_PIXELS + 3 * blur
            self._channels.append(channel(outlines[0], outlines[1], band, blurs[0], blurs[1], 0.0))

    @property
    def n_pixels(self) -> float:
        return sum(channel.n_pixels for channel in self._channels)

    def evaluate(self, parameters: Float) -> tuple[float, Float, Float]:
        """F, its gradient (6,) and Gauss-Newton Hessian (6, 6)."""
        value, gradient, hessian = zip(*(channel.evaluate(parameters) for channel in self._channels), strict=True)
        return float(sum(value)), np.sum(gradient, axis=0), np.sum(hessian, axis=0)

    def information(self, parameters: Float) -> Float:
        """Inverse covariance (6, 6) at the optimum."""
        noise = np.sum([channel.noise_information(parameters) for channel in self._channels], axis=0)
        return np.asarray(self.evaluate(parameters)[2] - noise)

    def misfit(self, parameters: Float) -> float:
        return self.evaluate(parameters)[0]

    def correlations(self, parameters: Float) -> list[float]:
        return [channel.correlation(parameters) for channel in self._channels]

    def minima(self, starts: Iterable[Float]) -> list[Float]:
        """The distinct minima of F reached from the starts, deepest first."""
        distinct: list[Float] = []
        for found in sorted((self._minimised(start) for start in starts), key=self.misfit):
            if all(np.linalg.norm((found - other) * self.scale) > self._step / 2 for other in distinct):
                distinct.append(found)
        return distinct

    def _minimised(self, start: Float) -> Float:
        @lru_cache(maxsize=2)
        def evaluated(scaled: bytes) -> tuple[float, Float, Float]:
            # SciPy asks for the value and the Hessian at the same point one after the other.
            value, gradient, hessian = self.evaluate(np.frombuffer(scaled) / self.scale)
            # A ridge of (1 um)^-2 makes a direction that nothing determines harmless; noise determines 1 to 100 nm.
            return value, gradient / self.scale, hessian / np.outer(self.scale, self.scale) + 1e-6 * np.eye(6)

        found = minimize(
            lambda scaled: evaluated(scaled.tobytes())[:2],
            start * self.scale,
            jac=True,
            hess=lambda scaled: evaluated(scaled.tobytes())[2],
            method="trust-exact",
            options={
                "initial_trust_radius": self._step,
                "max_trust_radius": 4 * self._step,
                "gtol": _GRADIENT_TOLERANCE,
                "maxiter": _ITERATIONS,
            },
        )
        return np.asarray(found.x / self.scale)


def _starts(moving: Image, fixed: Image, handed: float) -> Iterator[Float]:
    """Transforms (6,) that bring the two centroids together: turns, and the one that equals the second moments.

    `handed` is 1, or -1 for mirror images.
    """
    (centre_moving, spread_moving), (centre_fixed, spread_fixed) = _moments(moving), _moments(fixed)
    angles = np.deg2rad(_TURNS_DEG)
    matrices = [np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) for t in angles]
    matrices.append(_root(spread_fixed) @ np.linalg.inv(_root(spread_moving)))
    flips = [np.eye(2)] if handed > 0 else [np.diag([1.0, -1.0]), np.diag([-1.0, 1.0])]
    for matrix in matrices:
        for flip in flips:
            linear = matrix @ flip
            yield np.concatenate([linear.ravel(), centre_fixed - linear @ centre_moving])


def _moments(image: Image) -> tuple[Float, Float]:
    """Centroid (2,) and second moments (2, 2) of a particle, nm; without an outline, of all that is not median."""
    if image.coverage is None:
        weight = np.nan_to_num(np.abs(image.values - np.nanmedian(image.values)))
    else:
        weight = np.asarray(image.coverage, dtype=np.float64)
    points = image.positions(np.ones(weight.shape, dtype=bool))
    weight = weight.ravel() / max(weight.sum(), _TINY)
    centre = weight @ points
    spread = (points - centre).T @ ((points - centre) * weight[:, None])
    return np.asarray(centre), np.asarray(spread) + image.pixel_size_nm**2 * np.eye(2)


def _root(symmetric: Float) -> Float:
    """The symmetric positive square root of a (2, 2) matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    return np.asarray(vectors * np.sqrt(values) @ vectors.T)


def _radius(image: Image) -> float:
    """Root-mean-square distance of the particle's pixels from the image centre, nm: turns entries of M into nm."""
    return float(np.sqrt(np.mean(np.sum(image.positions(image.particle) ** 2, axis=1)))) + image.pixel_size_nm


def _distance_to_outline(particle: Bool) -> Float:
    """Distance of every pixel to the particle's outline, in pixels; the border of the image is none."""
    if particle.all():
        return np.full(particle.shape, np.inf)
    inward, outward = ndimage.distance_transform_edt(particle), ndimage.distance_transform_edt(~particle)
    return np.asarray(np.maximum(inward, outward) - 0.5)


def _trusted(image: Image) -> Bool:
    """Known pixels less the outliers (diffraction patterns indexed wrongly)."""
    known = image.known
    departure = image.values - ndimage.median_filter(_extended(image.values, known), 3)
    spread = np.median(np.abs(departure[known])) / 0.6745
    # Of a map without noise the spread is zero, and nothing is an outlier.
    limit = _OUTLIER_SIGMAS * spread if spread > 0 else np.inf
    return np.asarray(known & (np.abs(np.where(known, departure, 0)) <= limit))


def _inside(fixed: Image) -> Bool:
    """Pixels of the fixed image whose values are compared."""
    inside = _trusted(fixed) & (_distance_to_outline(fixed.particle) > _EDGE_PIXELS - 0.5)
    if inside.sum() < _MIN_PIXELS:
        raise InputError(
            f"the fixed image has {inside.sum()} usable pixels more than {_EDGE_PIXELS} from the particle's outline; "
            f"at least {_MIN_PIXELS} are needed to register it"
        )
    return inside


def _extended(values: Float, known: Bool) -> Float:
    """A map with every unknown pixel replaced by the nearest known one."""
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])


def _edge_width(image: Image) -> float:
    """Standard deviation of the Gaussian that blurs a particle's edge, nm.

    Across an edge c = (1 + erf(s / sqrt(2) w)) / 2 the integral of c (1 - c) is w / sqrt(pi) and that of
    the gradient is 1. The pixel of a mask blurs like its footprint.
    """
    covered = np.asarray(image.coverage, dtype=np.float64)
    near = _distance_to_outline(image.particle) < _NEAR_EDGE
    length = ndimage.gaussian_gradient_magnitude(covered, 1.0)[near].sum()
    blur = np.sqrt(np.pi) * (covered * (1 - covered))[near].sum() / length if length > 0 else 0.0
    return float(max(blur, np.sqrt(1 / 12))) * image.pixel_size_nm


def _overlap(parameters: Float, moving: Image, fixed: Image) -> float:
    """Intersection over union of the two particles on the fixed grid."""
    everywhere = np.ones(fixed.values.shape, dtype=bool)
    points = np.linalg.solve(parameters[:4].reshape(2, 2), (fixed.positions(everywhere) - parameters[4:]).T)
    centre = (np.array(moving.values.shape) - 1) / 2
    pixels = points[::-1] / moving.pixel_size_nm + centre[:, None]
    covered = ndimage.map_coordinates(np.asarray(moving.coverage, dtype=np.float64), pixels, order=1)
    moved = covered.reshape(fixed.values.shape) >= 0.5
    return float((moved & fixed.particle).sum() / (moved | fixed.particle).sum())


def _require_plausible(problem: _Problem, best: Float, reflections: list[Float]) -> None:
    """Refuse a transform that no pair of instruments makes."""
    matrix = best[:4].reshape(2, 2)
    for reflection in reflections:
        gain = (problem.misfit(best) - problem.misfit(reflection)) / problem.n_pixels
        if np.linalg.det(reflection[:4].reshape(2, 2)) < 0 and gain > _MIRROR_MARGIN:
            first, second = problem.correlations(best)[0], problem.correlations(reflection)[0]
            raise InputError(
                f"the images fit better with an axis flipped (correlation {second:.2f} against {first:.2f} without, "
                f"log-likelihood {gain:.2f} a pixel higher); flip one of them before registering"
            )
    scales = np.linalg.svd(matrix, compute_uv=False)
    x_axis, y_axis = matrix.T
    rotation = np.rad2deg(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    shear = np.rad2deg(np.arcsin(x_axis @ y_axis / np.linalg.norm(x_axis) / np.linalg.norm(y_axis)))
    shape = f"scales {scales[1]:.3f} and {scales[0]:.3f}, shear {shear:.1f} deg, rotation {rotation:.1f} deg"
    flipped = np.linalg.det(matrix) <= 0
    if flipped:
        shape += ", an axis flipped"
    scaled = scales.min() < _SCALES[0] or scales.max() > _SCALES[1]
    if flipped or scaled or abs(shear) > _SHEAR_DEG or abs(rotation) > _ROTATION_DEG:
        raise InputError(
            f"no plausible registration: {shape}; scales of {_SCALES[0]} to {_SCALES[1]}, shear up to {_SHEAR_DEG:.0f} "
            f"deg and rotation up to {_ROTATION_DEG:.0f} deg are accepted: check the pixel sizes, and turn or crop the "
            "images to show the same particle"
        )


def _require_match(problem: _Problem, fixed: Image, score: float, overlap: float) -> None:
    """Refuse a transform that the images do not support."""
    outlined = np.isfinite(overlap)
    if outlined and overlap < _MIN_OVERLAP:
        raise InputError(
            f"the registered particles overlap by {overlap:.0%} (intersection over union, at least {_MIN_OVERLAP:.0%} "
            "needed); check that both images show the same, whole particle"
        )
    # Noise keeps the correlation below this; a particle of one phase has nothing to correlate inside.
    inside = problem.inside
    signal = 1 - white_noise([fixed.values], [inside], "the fixed image") ** 2 / max(
        fixed.values[inside].var(), np.finfo(float).tiny
    )
    needed = _MIN_CORRELATION * np.sqrt(max(signal, _MIN_SIGNAL))
    if abs(score) < needed and not (outlined and signal < _MIN_SIGNAL):
        raise InputError(
            f"the registered images correlate by {score:.2f} inside the particle, at least {needed:.2f} is needed "
            f"(noise alone would allow {np.sqrt(max(signal, 0)):.2f}); check that both show the same particle"
        )


def _covariance(problem: _Problem, best: Float, pixel_size_nm: float) -> Float:
    """Covariance (6, 6) of the parameters; refuses what the images leave open."""
    scaling = np.outer(problem.scale, problem.scale)
    information = problem.information(best) / scaling
    weakest = float(np.linalg.eigvalsh(information)[0])
    if weakest * pixel_size_nm**2 < 1:
        spread = 1 / np.sqrt(weakest) if weakest > 0 else np.inf
        raise InputError(
            f"the images leave the registration open by +-{spread:.0f} nm at the particle's rim, more than a pixel of "
            f"{pixel_size_nm:g} nm; give both outlines, or a pair of images with more contrast inside"
        )
    return np.asarray(np.linalg.inv(information) / scaling)


def _local_quadratic(values: Float, deviation: Float, pixels: Float, width: float) -> tuple[Float, Float]:
    """Value and standard deviation (n,) of a quadratic fitted around each of `pixels` (n, 2), (column, row).

    Gaussian weight of `width` pixels. Slopes and curvatures have a prior as wide as the map's own spread: nothing
    inside the particle, but at its rim, where pixels lie on one side only, it turns the fit into a local mean.
    """
    results = [
        _local_quadratic_block(values, deviation, block, width)
        for block in np.array_split(pixels, max(1, len(pixels) // _BLOCK))
    ]
    smooth, spread = zip(*results, strict=True)
    return np.concatenate(smooth), np.concatenate(spread)


def _local_quadratic_block(values: Float, deviation: Float, pixels: Float, width: float) -> tuple[Float, Float]:
    reach = int(np.ceil(3 * width))
    offset_y, offset_x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, 1, -1)
    # A point far beside the image finds no pixel at all.
    nearest = np.clip(np.rint(pixels), -2 * reach, np.array(values.shape[::-1]) + 2 * reach).astype(np.intp)
    column, row = nearest[:, :1] + offset_x, nearest[:, 1:] + offset_y
    inside = (column >= 0) & (column < values.shape[1]) & (row >= 0) & (row < values.shape[0])
    column, row = np.where(inside, column, 0), np.where(inside, row, 0)
    value, sigma = values[row, column], deviation[row, column]
    known = inside & np.isfinite(value) & np.isfinite(sigma)
    value, sigma = np.where(known, value, 0), np.where(known, sigma, 1)
    x, y = (column - pixels[:, :1]) / width, (row - pixels[:, 1:]) / width
    near = np.where(known, np.exp(-(x**2 + y**2) / 2), 0)
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    weighted = basis * (near / sigma**2)[..., None]
    variance = np.nanvar(values)
    prior = np.diag([0.0, *[1 / variance] * 5]) if variance > 0 else np.zeros((6, 6))
    enough = near.sum(axis=1) > _MIN_KNOWN * 2 * np.pi * width**2
    normal = np.swapaxes(weighted, 1, 2) @ basis + prior
    normal[~enough] = np.eye(6)
    first = np.zeros((len(pixels), 6, 1))
    first[:, 0] = 1
    kernel = (weighted @ np.linalg.solve(normal, first))[..., 0]
    smooth, spread = (kernel * value).sum(axis=1), np.sqrt(((kernel * sigma) ** 2).sum(axis=1))
    smooth[~enough] = spread[~enough] = np.nan
    return smooth, spread
