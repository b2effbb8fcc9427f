"""Elastic fields of straight dislocations in an anisotropic crystal, and of a density of them on pixels.

Image frame: x is crystal a (axis 1 of a map), y is crystal c (axis 0, rows grow with +y), so the line, x cross y, runs
along -b. distortion[i, j] = du_i/dx_j. Sign: along a counter-clockwise circuit around the line the displacement grows
by +burgers, so the curl of the distortion is the Burgers density (Kroener):

    d beta_yy/dx - d beta_yx/dy = rho b_c        d beta_xy/dx - d beta_xx/dy = rho b_a

The line is infinitely long in an infinite crystal, as in Deng SI, eq. 6.4 (plane strain where b is a twofold axis). The
faces of a thin plate and the edge of a particle are not in it: a solution of the plate's equilibrium must take their
tractions off.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.fft

from chemomech import _core
from chemomech.arrays import Float, require_shape
from chemomech.errors import InputError

#: Rows: x = a, y = c and the line direction x cross y = -b, in crystal axes.
IMAGE_FRAME = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
IMAGE_FRAME.flags.writeable = False

_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


@dataclass(frozen=True, eq=False)
class StraightDislocation:
    """A straight dislocation in an infinite anisotropic crystal.

    Attributes
    ----------
    stiffness_GPa : (6, 6) Voigt, engineering shears, crystal axes.
    burgers_nm : (3,) Cartesian, crystal axes.
    frame : (3, 3) rows x, y and the line, a right-handed orthonormal triad in crystal axes; points and fields are
        given in it.

    Raises
    ------
    InputError : a shape is wrong, the stiffness is not symmetric and positive definite, the Burgers vector is zero, the
        frame is not a rotation.
    """

    stiffness_GPa: Float
    burgers_nm: Float
    frame: Float = field(default_factory=lambda: IMAGE_FRAME)

    def __post_init__(self) -> None:
        require_shape(self.stiffness_GPa, "stiffness_GPa", (6, 6))
        require_shape(self.burgers_nm, "burgers_nm", (3,))
        require_shape(self.frame, "frame", (3, 3))

    @cached_property
    def _rational(self) -> tuple[Float, Float]:
        c = self.stiffness_GPa[_VOIGT[:, :, None, None], _VOIGT]
        c = np.einsum("ai,bj,ck,dl,ijkl->abcd", *[self.frame] * 4, c)
        q, r, t = c[:, 0, :, 0], c[:, 0, :, 1], c[:, 1, :, 1]
        scale = np.trace(self.stiffness_GPa) / 6
        q, r, t = q / scale, r / scale, t / scale
        ti = np.linalg.inv(t)
        n = np.block([[-ti @ r.T, ti], [r @ ti @ r.T - q, -r @ ti]])
        j = n
        for _ in range(60):
            j = (j - np.linalg.inv(j)) / 2
        d = np.poly(-n)
        a = [j @ np.append(self.frame @ self.burgers_nm, [0, 0, 0])]
        for k in range(1, 6):
            a.append(d[k] * a[0] - n @ a[-1])
        a = np.array(a)
        b = a @ n.T
        return np.stack([a[:, :3].T, b[:, :3].T], 1) / (-2 * np.pi), d

    def distortion(self, points_nm: Float) -> Float:
        """du_i/dx_j at (n, 2) points: (n, 3, 2)."""
        numerators, d = self._rational
        x, y = points_nm.T
        top = np.array([x ** (5 - k) * y**k for k in range(6)])
        bottom = np.array([x ** (6 - k) * y**k for k in range(7)])
        return np.moveaxis(np.tensordot(numerators, top, (2, 0)) / (d @ bottom), -1, 0)


class DensityField:
    """Elastic distortion of a map of dislocation density: a convolution, and its exact adjoint.

    The distortion of a pixel is the mean over that pixel of the field of density spread evenly over every other pixel
    and itself (Deng SI, eq. 6.4, with the core integrated, not sampled). The map is surrounded by crystal without
    dislocations; nothing wraps around. The kernel is transformed once, here.

    Parameters
    ----------
    dislocation : one line of the density, in the image frame.
    shape : (ny, nx) of the maps.
    pixel_size_nm : edge of a square pixel.

    Raises
    ------
    InputError : the shape is not two positive integers, or the pixel size is not positive.

    >>> field = DensityField(StraightDislocation(OLIVINE, np.array([0, 0, 0.474])), (64, 64), 10.0)
    >>> field.distortion(np.zeros((64, 64))).shape
    (64, 64, 2, 2)
    """

    def __init__(self, dislocation: StraightDislocation, shape: tuple[int, int], pixel_size_nm: float) -> None:
        self.dislocation = dislocation
        self.shape = shape
        self.pixel_size_nm = pixel_size_nm
        self._padded = tuple(scipy.fft.next_fast_len(2 * n - 1, real=True) for n in shape)
        kernel = np.zeros((4, *self._padded))
        near = pixel_size_nm * _unit_kernel(dislocation, shape)
        ny, nx = shape
        rows, columns = np.arange(1 - ny, ny)[:, None], np.arange(1 - nx, nx)
        kernel[:, rows, columns] = near
        # An odd kernel has an imaginary transform.
        self._spectrum = np.ascontiguousarray(scipy.fft.rfft2(kernel).imag)

    def distortion(self, density_per_nm2: Float) -> Float:
        """Mean distortion (ny, nx, 2, 2) of every pixel, du_i/dx_j, from a signed density (ny, nx) in lines per nm^2.

        Raises
        ------
        InputError : another shape.
        """
        require_shape(density_per_nm2, "density_per_nm2", self.shape)
        spectrum = self._transform(density_per_nm2) * 1j
        out = np.empty((*self.shape, 4))
        for component, kernel in enumerate(self._spectrum):
            out[..., component] = self._invert(kernel * spectrum)
        return out.reshape(*self.shape, 2, 2)

    def adjoint(self, values: Float) -> Float:
        """The transpose of `distortion`: (ny, nx) from (ny, nx, 2, 2); sum(f * D rho) = sum(D^T f * rho).

        Raises
        ------
        InputError : another shape.
        """
        require_shape(values, "values", (*self.shape, 2, 2))
        parts = np.moveaxis(values.reshape(*self.shape, 4), -1, 0)
        total = sum(kernel * self._transform(part) for kernel, part in zip(self._spectrum, parts, strict=True))
        return self._invert(-1j * total)

    def _transform(self, values: Float) -> np.ndarray:
        half = scipy.fft.rfft(values, self._padded[1], axis=1)
        return scipy.fft.fft(half, self._padded[0], axis=0)

    def _invert(self, spectrum: np.ndarray) -> Float:
        rows = scipy.fft.ifft(spectrum, axis=0)[: self.shape[0]]
        return scipy.fft.irfft(rows, self._padded[1], axis=1)[:, : self.shape[1]]


def _unit_kernel(dislocation: StraightDislocation, shape: tuple[int, int]) -> Float:
    """(4, 2 ny - 1, 2 nx - 1): mean over a unit pixel of the field of unit density on a unit pixel, by offset."""
    ny, nx = shape
    y, x = np.mgrid[1 - ny : ny, 1 - nx : nx]
    points = np.column_stack([x.ravel(), y.ravel()]).astype(float)

    def averaged(at: Float, nodes: Float, weights: Float) -> Float:
        total = np.zeros((len(at), 2, 2))
        for tx, wx in zip(nodes, weights, strict=True):
            for ty, wy in zip(nodes, weights, strict=True):
                total += wx * wy * dislocation.distortion(at + [tx, ty])[:, :2]
        return total.reshape(-1, 4)

    # Two pixels overlap as a hat function. Gauss's rule for that weight, exact to degree 7, where the field is smooth.
    alpha = -(1 / 28 - 1 / 90) / (1 / 15 - 1 / 36)
    squares = np.roots([1, alpha, -1 / 15 - alpha / 6]).real
    weights = np.linalg.solve([[1, 1], squares], [1 / 2, 1 / 12])
    nodes = np.sqrt(squares)
    kernel = np.empty((len(points), 4))
    reach = np.abs(points).max(axis=1)
    kernel[reach > 8] = averaged(points[reach > 8], np.append(nodes, -nodes), np.append(weights, weights))
    # Between, the four quarters of the hat, each by a product rule.
    t, w = np.polynomial.legendre.leggauss(12)
    t, w = (t + 1) / 2, w / 2
    middle = (reach > 2) & (reach <= 8)
    kernel[middle] = averaged(points[middle], np.append(t, -t), np.append(w * (1 - t), w * (1 - t)))
    near = reach <= 2
    kernel[near] = _near_kernel(dislocation)[tuple((points[near].astype(int) + 2).T[::-1])]
    return np.moveaxis(kernel.reshape(*x.shape, 4), -1, 0)


def _near_kernel(dislocation: StraightDislocation) -> Float:
    """(5, 5, 4) by offset (y, x): unit cells by Gauss, those at the core in polar form, where 1/r integrates out."""
    t, w = np.polynomial.legendre.leggauss(48)
    t, w = (t + 1) / 2, w / 2
    kernel = np.zeros((5, 5, 4))
    grid_x, grid_y = np.meshgrid(t, t)
    weight = np.outer(w, w)
    for i in range(-3, 3):
        for j in range(-3, 3):  # the cell [j, j + 1] x [i, i + 1]
            if i in (-1, 0) and j in (-1, 0):
                sy, sx = 2 * i + 1, 2 * j + 1
                x = np.concatenate([np.ones_like(t), t])
                y = np.concatenate([t, np.ones_like(t)])
                beta = dislocation.distortion(np.column_stack([sx * x, sy * y]))[:, :2].reshape(-1, 4)
                ww = np.concatenate([w, w])
                m = {(a, b): (ww * (sx * x) ** a * (sy * y) ** b / (a + b + 1)) @ beta for a in (0, 1) for b in (0, 1)}
            else:
                x, y = (j + grid_x).ravel(), (i + grid_y).ravel()
                beta = dislocation.distortion(np.column_stack([x, y]))[:, :2].reshape(-1, 4)
                ww = weight.ravel()
                m = {(a, b): (ww * x**a * y**b) @ beta for a in (0, 1) for b in (0, 1)}
            # hat(s - d) = 1 - |s - d| on the cells beside the offset d.
            for dy in (i, i + 1):
                for dx in (j, j + 1):
                    if abs(dy) > 2 or abs(dx) > 2:
                        continue
                    ax, bx = (1 - dx + 0, 1) if dx == j + 1 else (1 + dx, -1)
                    ay, by = (1 - dy + 0, 1) if dy == i + 1 else (1 + dy, -1)
                    kernel[dy + 2, dx + 2] += (
                        ax * ay * m[0, 0] + bx * ay * m[1, 0] + ax * by * m[0, 1] + bx * by * m[1, 1]
                    )
    return kernel
