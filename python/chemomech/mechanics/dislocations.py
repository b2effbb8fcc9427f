"""Elastic fields of straight dislocations in an anisotropic crystal, and of a density of them on pixels.

Image frame: x is crystal a (axis 1 of a map), y is crystal c (axis 0, rows grow with +y), so the line, x cross y, runs
along -b. A distortion is du_i/dx_j. Sign: along a counter-clockwise circuit around the line the displacement grows by
the Burgers vector, so the curl of the distortion is the Burgers density (Kroener):

    d beta_yy/dx - d beta_yx/dy = rho b_c        d beta_xy/dx - d beta_xx/dy = rho b_a

The line is infinitely long in an infinite crystal, as in Deng SI, eq. 6.4: plane strain where b is a twofold axis. The
faces of a thin plate and the edge of a particle are not in it; a model of the particle takes their tractions off.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.fft

from chemomech import _core
from chemomech.arrays import Float, require_shape
from chemomech.errors import ConvergenceError, InputError
from chemomech.mechanics.stiffness import VOIGT

#: Rows: x = a, y = c and the line direction x cross y = -b, in crystal axes.
IMAGE_FRAME = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
IMAGE_FRAME.flags.writeable = False

# The Voigt index of a pair of axes, and the engineering strains as sums of du_i/dx_j, j = x, y (row by row).
_STRAIN_OF_DISTORTION = np.zeros((6, 6))
_STRAIN_OF_DISTORTION[[0, 5, 5, 1, 4, 3], range(6)] = 1


@dataclass(frozen=True, eq=False)
class StraightDislocation:
    """A straight dislocation in an infinite anisotropic crystal (Stroh; as in cpp/dislocation/sextic.hpp).

    Points (n, 2) and fields are in the axes of `frame`. Every method sums over parallel lines at `lines_nm` (m, 2) with
    `signs` (m,), which may be any weights; without them one line runs through the origin.

    Attributes
    ----------
    stiffness_GPa : (6, 6) Voigt, engineering shears, crystal axes; positive definite, of any symmetry.
    burgers_nm : (3,) Cartesian, crystal axes.
    frame : (3, 3), rows x, y and the line: a right-handed orthonormal triad in crystal axes.

    Raises
    ------
    InputError : a wrong shape, a stiffness that is not symmetric and positive definite, a zero Burgers vector, a frame
        that is not a rotation.

    >>> line = StraightDislocation(OLIVINE, np.array([0.0, 0.0, 0.474]))  # [001](100)[010]
    >>> line.distortion(np.array([[10.0, 0.0]])).shape
    (1, 3, 2)
    """

    stiffness_GPa: Float
    burgers_nm: Float
    frame: Float = field(default_factory=lambda: IMAGE_FRAME)

    def __post_init__(self) -> None:
        require_positive_definite(self.stiffness_GPa)
        require_shape(self.burgers_nm, "burgers_nm", (3,))
        require_shape(self.frame, "frame", (3, 3))
        if not (np.isfinite(self.burgers_nm).all() and np.any(self.burgers_nm)):
            raise InputError(f"burgers_nm must be finite and not zero, got {self.burgers_nm}")
        if not (np.allclose(self.frame @ self.frame.T, np.eye(3), atol=1e-12) and np.linalg.det(self.frame) > 0):
            raise InputError("the rows of frame must be orthonormal and right-handed")

    @property
    def burgers_in_frame_nm(self) -> Float:
        """Burgers vector (3,) along x, y and the line, nm."""
        return np.asarray(self.frame @ self.burgers_nm)

    @property
    def energy_factor_GPa(self) -> float:
        """K: the energy per length is K b^2 / (4 pi) ln(R / r0) (Foreman 1955); K b^2 = b L b (Barnett & Lothe)."""
        b = self.burgers_in_frame_nm
        return float(-b @ self._sextic[3][3:, :3] @ b / (b @ b))

    def distortion(
        self, points_nm: Float, *, lines_nm: Float | None = None, signs: Float | None = None, core_nm: float = 0.0
    ) -> Float:
        """du_i/dx_j at points (n, 2): (n, 3, 2).

        The field of a line is multiplied by r^2 / (r^2 + core_nm^2), r the distance from it: the share of the Burgers
        vector inside r. So the field is continuous and zero on the line; nearer than a few `core_nm` it is a
        regularisation, not a solution of equilibrium. With `core_nm` = 0 it is exact, and NaN on the line.

        Raises
        ------
        InputError : a wrong shape, or a negative `core_nm`.
        """
        return self._distort(3, points_nm, lines_nm, signs, core_nm)

    def plane_distortion(
        self, points_nm: Float, *, lines_nm: Float | None = None, signs: Float | None = None, core_nm: float = 0.0
    ) -> Float:
        """The part of `distortion` in the plane of the image: (n, 2, 2)."""
        return self._distort(2, points_nm, lines_nm, signs, core_nm)

    def stress(
        self, points_nm: Float, *, lines_nm: Float | None = None, signs: Float | None = None, core_nm: float = 0.0
    ) -> Float:
        """Stress (n, 6) at points (n, 2), GPa: Voigt order xx, yy, zz, yz, xz, xy of the frame, z the line.

        Softened by `core_nm` like `distortion`, and with the same errors.
        """
        distortion = self._distort(3, points_nm, lines_nm, signs, core_nm).reshape(-1, 6)
        return np.asarray(distortion @ (self._stiffness_in_frame @ _STRAIN_OF_DISTORTION).T)

    def displacement(self, points_nm: Float, *, lines_nm: Float | None = None, signs: Float | None = None) -> Float:
        """Displacement (n, 3) at points (n, 2), nm, up to a constant.

        It jumps by the Burgers vector across the half-plane that runs from each line along -x: the side of positive y,
        with the cut itself, minus the other. (Ting 1996, section 7.5, with the integral over the angle as a Fourier
        series.)

        Raises
        ------
        InputError : a wrong shape.
        ConvergenceError : the crystal is so anisotropic that 16384 terms do not give twelve digits.
        """
        points, lines, signs = _arguments(points_nm, lines_nm, signs)
        radial = 2 * np.pi * self._sextic[0]
        return _core.displace_lines(radial, self.burgers_in_frame_nm, self._angular_series, points, lines, signs)

    @cached_property
    def _stiffness_in_frame(self) -> Float:
        return rotate_stiffness(self.stiffness_GPa, self.frame)

    @cached_property
    def _sextic(self) -> tuple[Float, Float, Float, Float]:
        solution = _core.solve_sextic(self._stiffness_in_frame, self.burgers_in_frame_nm)
        barnett_lothe = solution[3]
        if not np.allclose(barnett_lothe @ barnett_lothe, -np.eye(6), rtol=0, atol=1e-6):
            raise InputError(
                "stiffness_GPa is so close to singular that the field of a dislocation is lost in rounding"
            )
        return solution

    def _distort(
        self, components: int, points_nm: Float, lines_nm: Float | None, signs: Float | None, core_nm: float
    ) -> Float:
        points, lines, signs = _arguments(points_nm, lines_nm, signs)
        if not core_nm >= 0:
            raise InputError(f"core_nm must not be negative, got {core_nm}")
        radial, hoop, denominator, _ = self._sextic
        return _core.distort_lines(radial[:components], hoop[:components], denominator, points, lines, signs, core_nm)

    @cached_property
    def _angular_series(self) -> Float:
        """(K, 3, 2): 2 pi (u - b phi / 2 pi) on the unit circle, cos and sin of 2k phi, k = 1..K."""
        n = 64
        while n <= 2**15:
            angle = np.linspace(0, np.pi, n, endpoint=False)
            around = np.column_stack([-np.sin(angle), np.cos(angle)])
            slope = 2 * np.pi * np.einsum("nij,nj->ni", self.distortion(_circle(angle)), around)
            terms = np.fft.rfft(slope, axis=0)[1:-1] / (n / 2)
            size = np.abs(terms).max(axis=1)
            if size[-len(size) // 4 :].max() <= 1e-13 * np.linalg.norm(self.burgers_nm):
                kept = 1 + np.flatnonzero(size > 1e-17 * np.linalg.norm(self.burgers_nm)).max(initial=-1)
                k = np.arange(1, kept + 1)[:, None]
                return np.ascontiguousarray(np.stack([terms[:kept].imag, terms[:kept].real], -1) / (2 * k[..., None]))
            n *= 2
        raise ConvergenceError(
            "the Fourier series of the displacement", iterations=n // 2, residual=float(size[-1]), tolerance=1e-13
        )


class DensityField:
    """Elastic distortion of a map of dislocation density: a convolution, and its exact transpose.

    The distortion of a pixel is the mean over that pixel of the field of density spread evenly over every pixel, itself
    included (Deng SI, eq. 6.4, with the core integrated, not sampled). Around the map the crystal goes on without
    dislocations; nothing wraps around. The kernel is computed and transformed once, here; it keeps 64 bytes a pixel.

    Parameters
    ----------
    dislocation : one line of the density, in the image frame.
    shape : (ny, nx) of the maps.
    pixel_size_nm : edge of a square pixel.

    Raises
    ------
    InputError : the shape is not two positive integers, or the pixel size is not positive.

    >>> field = DensityField(StraightDislocation(OLIVINE, np.array([0.0, 0.0, 0.474])), (64, 64), 10.0)
    >>> field.distortion(np.zeros((64, 64))).shape
    (64, 64, 2, 2)
    """

    def __init__(self, dislocation: StraightDislocation, shape: tuple[int, int], pixel_size_nm: float) -> None:
        if len(shape) != 2 or min(shape) < 1:
            raise InputError(f"shape must be two positive integers, got {shape}")
        if not (np.isfinite(pixel_size_nm) and pixel_size_nm > 0):
            raise InputError(f"pixel_size_nm must be positive, got {pixel_size_nm}")
        self.dislocation = dislocation
        self.shape = shape
        self.pixel_size_nm = pixel_size_nm
        self._padded = tuple(scipy.fft.next_fast_len(2 * n - 1, real=True) for n in shape)
        self._workers = _core.build_info()["threads"]
        ny, nx = shape
        half = pixel_size_nm * _pixel_kernel(dislocation, shape)
        # The field is odd, and the transform of an odd kernel is imaginary: half the numbers.
        self._spectrum = np.empty((4, self._padded[0], self._padded[1] // 2 + 1))
        kernel = np.zeros(self._padded)
        for component in range(4):
            kernel[:ny, np.arange(1 - nx, nx)] = half[..., component]
            kernel[np.arange(0, -ny, -1)[:, None], np.arange(nx - 1, -nx, -1)] = -half[..., component]
            self._spectrum[component] = scipy.fft.rfft2(kernel, workers=self._workers).imag

    def distortion(self, density_per_nm2: Float) -> Float:
        """Mean du_i/dx_j (ny, nx, 2, 2) of every pixel, from a density (ny, nx) in lines per nm^2 with a sign.

        Outside a particle the density is 0. The result is C-contiguous: `.reshape(ny, nx, 4)` is a view.

        Raises
        ------
        InputError : another shape, or a value that is not finite.
        """
        self._require(density_per_nm2, "density_per_nm2", self.shape)
        spectrum = 1j * self._transform(density_per_nm2)
        out = np.empty((*self.shape, 4))
        for component, kernel in enumerate(self._spectrum):
            out[..., component] = self._back(kernel * spectrum)
        return out.reshape(*self.shape, 2, 2)

    def adjoint(self, values: Float) -> Float:
        """The transpose D^T of `distortion`, (ny, nx) from (ny, nx, 2, 2): sum(values * D rho) = sum(D^T values * rho).

        Raises
        ------
        InputError : another shape, or a value that is not finite.
        """
        self._require(values, "values", (*self.shape, 2, 2))
        parts = values.reshape(*self.shape, 4)
        total = self._spectrum[0] * self._transform(parts[..., 0])
        for component in range(1, 4):
            total += self._spectrum[component] * self._transform(parts[..., component])
        return self._back(-1j * total)

    def normal_inverse(self, weights: Float, floor: float) -> Callable[[Float], Float]:
        """(D^T W D + floor)^-1 of maps (ny, nx) as if the padded map were periodic: a preconditioner.

        Parameters
        ----------
        weights : (4, 4) of the squares of the components xx, xy, yx, yy; symmetric, not negative.
        floor : above 0; it makes the inverse exist.
        """
        symbol = np.einsum("iyx,ij,jyx->yx", self._spectrum, weights, self._spectrum) + floor

        def invert(values: Float) -> Float:
            return self._back(self._transform(values) / symbol)

        return invert

    def _require(self, values: Float, name: str, shape: tuple[int, ...]) -> None:
        require_shape(values, name, shape)
        if not np.isfinite(values).all():  # one NaN would be everywhere after the transform
            raise InputError(f"{name} must be finite; outside a particle it is 0")

    # Rows that are all padding are not transformed.
    def _transform(self, values: Float) -> npt.NDArray[np.complex128]:
        half = scipy.fft.rfft(values, self._padded[1], axis=1, workers=self._workers)
        return np.asarray(scipy.fft.fft(half, self._padded[0], axis=0, workers=self._workers))

    def _back(self, spectrum: npt.NDArray[np.complex128]) -> Float:
        rows = scipy.fft.ifft(spectrum, axis=0, workers=self._workers, overwrite_x=True)[: self.shape[0]]
        return np.asarray(scipy.fft.irfft(rows, self._padded[1], axis=1, workers=self._workers)[:, : self.shape[1]])


def rotate_stiffness(stiffness_GPa: Float, frame: Float) -> Float:
    """Voigt stiffness (6, 6) in the axes that are the rows of `frame` (3, 3)."""
    tensor = stiffness_GPa[VOIGT[:, :, None, None], VOIGT]
    for _ in range(4):  # each turn rotates the first index and moves it to the end
        tensor = np.tensordot(tensor, frame, axes=(0, 1))
    first, second = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])
    return np.ascontiguousarray(tensor[first[:, None], second[:, None], first, second])


def require_positive_definite(stiffness_GPa: Float) -> None:
    """Raise InputError unless `stiffness_GPa` is a (6, 6) symmetric positive definite matrix of finite numbers."""
    require_shape(stiffness_GPa, "stiffness_GPa", (6, 6))
    if not np.isfinite(stiffness_GPa).all():
        raise InputError("stiffness_GPa must be finite")
    asymmetry = np.abs(stiffness_GPa - stiffness_GPa.T)
    if asymmetry.max() > 1e-8 * np.abs(stiffness_GPa).max():
        i, j = np.unravel_index(asymmetry.argmax(), (6, 6))
        given = f"C{i + 1}{j + 1} = {stiffness_GPa[i, j]:g} but C{j + 1}{i + 1} = {stiffness_GPa[j, i]:g}"
        raise InputError(f"stiffness_GPa must be symmetric, got {given}")
    least = np.linalg.eigvalsh(stiffness_GPa).min()
    if least <= 0:
        raise InputError(f"stiffness_GPa must be positive definite; its least eigenvalue is {least:g} GPa")


def _arguments(points_nm: Float, lines_nm: Float | None, signs: Float | None) -> tuple[Float, Float, Float]:
    points = np.ascontiguousarray(points_nm, dtype=float)
    lines = np.zeros((1, 2)) if lines_nm is None else np.ascontiguousarray(lines_nm, dtype=float)
    require_shape(points, "points_nm", (None, 2))
    require_shape(lines, "lines_nm", (None, 2))
    weights = np.ones(len(lines)) if signs is None else np.ascontiguousarray(signs, dtype=float)
    require_shape(weights, "signs", (len(lines),))
    return points, lines, weights


def _circle(angle: Float) -> Float:
    return np.column_stack([np.cos(angle), np.sin(angle)])


# Averages over two pixels. The mean over one pixel of the field of density spread over another, d pixels away, is the
# field at d + t weighted by the overlap of the pixels: a hat, (1 - |t_x|)(1 - |t_y|) on |t| <= 1. Pixels are of unit
# size here; the field scales as 1/r, hence the kernel as the pixel size.

#: Where an average over the hat is checked, it agrees with a finer one to this fraction.
_KERNEL_TOLERANCE = 1e-11

_Rule = tuple[Float, Float]  # nodes, weights


def _pixel_kernel(dislocation: StraightDislocation, shape: tuple[int, int]) -> Float:
    """(ny, 2 nx - 1, 4) by offsets 0 <= dy < ny, |dx| < nx; the other half follows from the sign."""
    ny, nx = shape
    y, x = np.mgrid[0:ny, 1 - nx : nx]
    offsets = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    reach = np.abs(offsets).max(axis=1)
    order = _order_beside_core(dislocation)
    quarters = _quarters_rule(order)
    radius = _radius_of_far_rule(dislocation, quarters)
    far, near = reach > radius, reach <= 2
    middle = ~far & ~near
    kernel = np.empty((len(offsets), 4))
    kernel[far] = _averages(dislocation, offsets[far], _hat_rule())
    kernel[middle] = _averages(dislocation, offsets[middle], quarters)
    kernel[near] = _core_kernel(dislocation, order)[tuple((offsets[near].astype(int) + 2).T[::-1])]
    return kernel.reshape(*x.shape, 4)


def _averages(dislocation: StraightDislocation, offsets: Float, rule: _Rule) -> Float:
    nodes, weights = rule
    shifts = np.stack(np.meshgrid(nodes, nodes), -1).reshape(
        -1, 2
    )  # the rules are even, so a shift is its own negative
    signs = np.outer(weights, weights).ravel()
    return dislocation.plane_distortion(offsets, lines_nm=shifts, signs=signs).reshape(-1, 4)


def _hat_rule() -> _Rule:
    """Gauss's rule of four nodes for the weight 1 - |t| on [-1, 1], exact to degree 7."""
    # From the even moments 1, 1/6, 1/15, 1/28.
    middle = -(1 / 28 - 1 / 90) / (1 / 15 - 1 / 36)  # its polynomial is t^4 + middle t^2 + last
    last = -1 / 15 - middle / 6
    squares = -middle / 2 + np.sqrt(middle**2 / 4 - last) * np.array([1, -1])
    weights = np.linalg.solve([[1, 1], squares], [1 / 2, 1 / 12])
    return np.append(np.sqrt(squares), -np.sqrt(squares)), np.append(weights, weights)


def _quarters_rule(order: int) -> _Rule:
    """Gauss's rule on each side of the hat's ridge."""
    t, w = _unit_gauss(order)
    return np.append(t, -t), np.append(w * (1 - t), w * (1 - t))


def _unit_gauss(order: int) -> _Rule:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return (nodes + 1) / 2, weights / 2


def _order_beside_core(dislocation: StraightDislocation) -> int:
    """The order at which the integrals nearest to the core have converged; the more anisotropic, the higher."""
    coarse = _core_kernel(dislocation, 16)
    for order in (32, 64, 128, 256):
        fine = _core_kernel(dislocation, order)
        change = float(np.abs(fine - coarse).max() / np.abs(fine).max())
        if change <= _KERNEL_TOLERANCE:
            return order
        coarse = fine
    raise ConvergenceError("the mean field of a pixel", iterations=order, residual=change, tolerance=_KERNEL_TOLERANCE)


def _radius_of_far_rule(dislocation: StraightDislocation, quarters: _Rule) -> float:
    """The distance beyond which four nodes an axis do."""
    angle = np.linspace(0, np.pi, 256, endpoint=False)
    for radius in (8.0, 16.0, 32.0, 64.0):
        ring = radius * _circle(angle)
        exact = _averages(dislocation, ring, quarters)
        if np.abs(_averages(dislocation, ring, _hat_rule()) - exact).max() <= _KERNEL_TOLERANCE * np.abs(exact).max():
            return radius
    return np.inf


def _core_kernel(dislocation: StraightDislocation, order: int) -> Float:
    """(5, 5, 4) by offset (dy, dx) in -2..2, from the moments 1, x, y, xy of the field over unit cells.

    In the four cells that touch the core 1/r is integrated along the radius by hand: with x = 1, y = t on one triangle
    of the cell (and the other way round on the second), the integral of beta x^a y^b is that of
    beta(1, t) t^b / (a + b + 1) over t.
    """
    t, w = _unit_gauss(order)
    triangles = np.concatenate([np.stack([np.ones_like(t), t], -1), np.stack([t, np.ones_like(t)], -1)])
    square = np.stack(np.meshgrid(t, t), -1).reshape(-1, 2)
    kernel = np.zeros((5, 5, 4))
    for i in range(-3, 3):
        for j in range(-3, 3):  # the cell [j, j + 1] x [i, i + 1]
            if i in (-1, 0) and j in (-1, 0):
                points = triangles * [2 * j + 1, 2 * i + 1]
                weights = np.append(w, w) / np.array([[1.0, 2.0], [2.0, 3.0]])[..., None]
            else:
                points = square + np.array([j, i])
                weights = np.broadcast_to(np.outer(w, w).ravel(), (2, 2, order * order))
            beta = dislocation.plane_distortion(points).reshape(-1, 4)
            powers = [np.ones(len(points)), points[:, 0]], [np.ones(len(points)), points[:, 1]]
            moments = np.array([[(weights[a, b] * powers[0][a] * powers[1][b]) @ beta for b in (0, 1)] for a in (0, 1)])
            # On this cell the hat at d is (1 - |x - dx|)(1 - |y - dy|) = (p + q x)(r + s y).
            for dy, (r, s) in ((i, (1 + i, -1)), (i + 1, (-i, 1))):
                for dx, (p, q) in ((j, (1 + j, -1)), (j + 1, (-j, 1))):
                    if abs(dx) <= 2 and abs(dy) <= 2:
                        kernel[dy + 2, dx + 2] += np.einsum("a,b,abc->c", [p, q], [r, s], moments)
    return kernel
