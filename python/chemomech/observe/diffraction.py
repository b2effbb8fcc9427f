"""Lattice maps of a 4D-STEM scan, and how they follow from the Bragg disks of every pixel.

The frame is that of every map: x along axis 1 (crystal a), y along axis 0 (crystal c), in real and in reciprocal space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from chemomech.arrays import Bool, Float, Int, require_finite, require_shape
from chemomech.errors import InputError
from chemomech.observe.maps import CHANNELS
from chemomech.observe.strain import lattice_distortion
from chemomech.progress import progress

#: A disk counts when it lies within this distance of a lattice point, in units of the lattice.
_INDEX_TOLERANCE = 0.25
#: Largest index in the first of the two fits; a guess 10 % off still gives these their right index.
_INNER_INDEX = 2
#: Partitions into two halves for the uncertainty; both halves are used.
_PARTITIONS = 16
#: An origin and two vectors take three disks, and so does each half.
_FEWEST_DISKS = 6
#: Pixels worked on together, so that a large scan fits into memory.
_BLOCK = 8192
#: det / product of the diagonal of a normal matrix below which its disks are called collinear (rounding gives 1e-16).
_COLLINEAR = 1e-9
#: A half is left out when its determinant is below this part of the full one; 1/8 is what a typical half has.
_WEAK_HALF = 1 / 64


@dataclass(frozen=True)
class LatticeMaps:
    """Lattice distortion of one scan, before it is joined with a composition map.

    Attributes
    ----------
    pixel_size_nm : edge of a square pixel, nm.
    mask : (ny, nx) bool, the pixels with a lattice.
    distortion : (ny, nx, 4), small strains eps_aa, eps_cc, 2 eps_ac and the counter-clockwise rotation (rad),
        relative to the reference named at the reader.
    uncertainty : standard deviation per pixel (ny, nx) of any of "aa", "cc", "ac", "rotation".
    source : where the maps came from, for messages and reports.

    Raises
    ------
    InputError : shapes differ, the mask is empty, a map is not finite inside it, the pixel size is not positive.
    """

    pixel_size_nm: float
    mask: Bool
    distortion: Float
    uncertainty: Mapping[str, Float] = field(default_factory=lambda: MappingProxyType({}))
    source: str = "memory"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.pixel_size_nm) and self.pixel_size_nm > 0):
            raise InputError(f"{self.source}: pixel_size_nm must be positive, got {self.pixel_size_nm}")
        require_shape(self.mask, f"{self.source}: mask", (None, None))
        if not self.mask.any():
            raise InputError(f"{self.source}: mask is empty; lattice maps need at least one pixel")
        require_shape(self.distortion, f"{self.source}: distortion", (*self.mask.shape, 4))
        for channel, name in enumerate(CHANNELS):
            require_finite(self.distortion[..., channel], self.mask, f"{self.source}: {name}")
        for name, deviation in self.uncertainty.items():
            where = f"{self.source}: uncertainty of {name}"
            if name not in CHANNELS:
                raise InputError(f"{where} has no channel; the channels are {', '.join(CHANNELS)}")
            require_shape(deviation, where, self.mask.shape)
            require_finite(deviation, self.mask, where)
            if (deviation[self.mask] <= 0).any():
                raise InputError(f"{where} must be positive inside the mask")

    def relative_to(self, region: Bool) -> "LatticeMaps":
        """The same maps with the median lattice of `region` as the reference.

        Lengths are divided, a / a_region - 1 = (1 + eps) / (1 + eps_region) - 1; shear and rotation are subtracted.

        Parameters
        ----------
        region : (ny, nx) bool, pixels of the reference crystal; those outside the mask are ignored.

        Raises
        ------
        InputError : another shape, or no pixel inside the mask.
        """
        require_shape(region, f"{self.source}: region", self.mask.shape)
        inside = region.astype(bool) & self.mask
        if not inside.any():
            raise InputError(f"{self.source}: region holds none of the {self.mask.sum()} pixels of the mask")
        reference = np.median(self.distortion[inside], axis=0)
        stretch = 1 + np.array([reference[0], reference[1], 0, 0])
        scaled = {name: values / stretch[CHANNELS.index(name)] for name, values in self.uncertainty.items()}
        return replace(self, distortion=(self.distortion - reference) / stretch, uncertainty=scaled)


@dataclass(frozen=True)
class DiskLattice:
    """Lattice of every pixel from its Bragg disks; NaN where the disks do not determine one.

    Attributes
    ----------
    a_nm, c_nm : (ny, nx) lattice parameters, nm.
    gamma, theta : (ny, nx) shear 2 eps_ac and counter-clockwise rotation of the lattice against x and y, rad.
    deviation : (ny, nx, 4) standard deviations of a_nm, c_nm, gamma, theta.
    n_disks : (ny, nx) number of disks in the fit.
    """

    a_nm: Float
    c_nm: Float
    gamma: Float
    theta: Float
    deviation: Float
    n_disks: Int

    def maps(
        self, pixel_size_nm: float, *, a_reference_nm: float, c_reference_nm: float, source: str = "memory"
    ) -> LatticeMaps:
        """Distortion relative to a reference crystal (nm), with its uncertainty, at every pixel that has a lattice."""
        distortion = lattice_distortion(
            self.a_nm, self.c_nm, self.gamma, self.theta, a_reference_nm=a_reference_nm, c_reference_nm=c_reference_nm
        )
        deviation = self.deviation / [a_reference_nm, c_reference_nm, 1, 1]
        return LatticeMaps(
            pixel_size_nm=pixel_size_nm,
            mask=np.isfinite(self.a_nm),
            distortion=distortion,
            uncertainty=dict(zip(CHANNELS, np.moveaxis(deviation, -1, 0), strict=True)),
            source=source,
        )


def pad_disks(disks: Sequence[Sequence[Float]]) -> tuple[Float, Float]:
    """Lists of disks as the padded arrays that `lattice_from_disks` takes.

    Parameters
    ----------
    disks : ny rows of nx arrays (n, 3), the columns qx and qy (1/nm) and intensity; n may differ and may be 0.

    Returns
    -------
    position_per_nm : (ny, nx, n_max, 2), NaN where a pixel has fewer disks.
    intensity : (ny, nx, n_max), 0 there.

    Raises
    ------
    InputError : rows of different lengths, or disks without three columns.

    >>> pad_disks([[np.ones((2, 3)), np.ones((1, 3))]])[1]
    array([[[1., 1.],
            [1., 0.]]])
    """
    if len({len(row) for row in disks}) != 1 or not len(disks[0]):
        raise InputError(f"disks must have rows of one length, got lengths {[len(row) for row in disks]}")
    pixels = [np.asarray(pixel, dtype=np.float64) for row in disks for pixel in row]
    for number, pixel in enumerate(pixels):
        row, column = divmod(number, len(disks[0]))
        require_shape(pixel, f"disks of row {row}, column {column}", (None, 3))
    count = np.array([len(pixel) for pixel in pixels])
    filled = np.arange(count.max()) < count[:, None]
    table = np.full((*filled.shape, 3), [np.nan, np.nan, 0.0])
    table[filled] = np.concatenate(pixels)
    table = table.reshape(len(disks), -1, *table.shape[1:])
    return table[..., :2], table[..., 2]


def lattice_from_disks(position_per_nm: Float, intensity: Float, guess_per_nm: Float) -> DiskLattice:
    """Lattice parameters of every pixel from the positions of its Bragg disks.

    A disk gets the indices (h, l) of the nearest lattice point, first near the centre with the guess, then everywhere
    with the lattice fitted there, so that a few per cent of strain do not mislabel the outer disks. The least squares

        minimise over q0, a*, c* the sum of I |q - q0 - h a* - l c*|^2

    weight a disk by its intensity, as the variance of a position goes with one over the counts. The origin q0 is free
    because the beam wanders on the detector while it scans. The real lattice is the inverse transpose of (a*, c*); with
    the angles of its vectors against the axes, phi_a from x and phi_c from y, gamma = phi_a - phi_c and
    theta = (phi_a + phi_c) / 2, which for small gradients are du/dy + dv/dx and (dv/dx - du/dy) / 2.

    The uncertainty is that of Deng et al. (SI, Fig. S10): the fit is repeated on a random half of the disks, and the
    root mean square of half minus whole is taken over the halves. From half to whole: the estimate from a half has
    twice the variance V of the whole one, and their covariance is V, so that the difference has the variance
    2V + V - 2V = V and needs no scaling. (For odd n, k of n disks give V (n - k) / k, which is divided out: the
    delete-d jackknife, Shao & Wu 1989.) A random half seldom pins the lattice as well as the best half would, which
    makes the figure too large by about 3.5/n: 14 % for 25 disks, 5 % for 77, and a rough bound for fewer than 15.

    Parameters
    ----------
    position_per_nm : (ny, nx, n, 2) calibrated disk positions qx, qy, 1/nm; NaN where a pixel has fewer disks.
        qx is along axis 1 and qy along axis 0 of the scan; py4DSTEM calls the first array axis x, so swap its two.
    intensity : (ny, nx, n) of the disks; a disk with 0 is ignored.
    guess_per_nm : (2, 2) reciprocal vectors a*, c* in its rows, components x, y. It must be good to 10 %.

    Returns
    -------
    DiskLattice : NaN at pixels whose disks, or whose halves, do not determine a lattice.

    Raises
    ------
    InputError : shapes, negative intensities, or a guess whose a* is not within 45 degrees of x and c* of y.

    >>> h, l = np.mgrid[-2:3, -2:3]
    >>> disks = np.stack([h / 1.033, l / 0.469], axis=-1).reshape(1, 1, 25, 2)
    >>> lattice_from_disks(disks, np.ones((1, 1, 25)), np.diag([1.0, 2.1])).a_nm.round(6)
    array([[1.033]])
    """
    require_shape(position_per_nm, "position_per_nm", (None, None, None, 2))
    require_shape(intensity, "intensity", position_per_nm.shape[:3])
    require_shape(guess_per_nm, "guess_per_nm", (2, 2))
    if position_per_nm.shape[2] < _FEWEST_DISKS:
        raise InputError(
            f"position_per_nm has {position_per_nm.shape[2]} disks a pixel; the two halves of the uncertainty need "
            f"{_FEWEST_DISKS} between them"
        )
    if not (intensity >= 0).all():
        raise InputError("intensity must not be negative or NaN; give 0 to a disk that shall not count")
    (a_x, a_y), (c_x, c_y) = guess_per_nm
    if not (a_x > abs(a_y) and c_y > abs(c_x)):
        raise InputError(
            f"guess_per_nm must have a* within 45 degrees of x and c* of y, got a* = ({a_x:g}, {a_y:g}) and "
            f"c* = ({c_x:g}, {c_y:g}); turn the positions into the axes of the map"
        )
    ny, nx, n, _ = position_per_nm.shape
    positions, weights = position_per_nm.reshape(-1, n, 2), intensity.reshape(-1, n)
    random = np.random.default_rng(0)
    fits = []
    blocks = range(0, len(positions), _BLOCK)
    with progress("lattice fits", len(blocks)) as advance:
        for start in blocks:
            block = slice(start, start + _BLOCK)
            fits.append(_fit_block(positions[block], weights[block], guess_per_nm, random))
            advance()
    parameters, deviation, count = (np.concatenate(parts) for parts in zip(*fits, strict=True))
    a_nm, c_nm, gamma, theta = parameters.T.reshape(4, ny, nx)
    return DiskLattice(a_nm, c_nm, gamma, theta, deviation.reshape(ny, nx, 4), count.reshape(ny, nx))


def _fit_block(
    position: Float, intensity: Float, guess: Float, random: np.random.Generator
) -> tuple[Float, Float, Int]:
    """Parameters (p, 4), their deviations (p, 4) and the number of disks (p,) of p pixels."""
    present = np.isfinite(position).all(axis=-1) & (intensity > 0)
    position = np.where(present[..., None], position, 0)
    vectors = np.broadcast_to(np.vstack([np.zeros(2), guess]), (len(position), 3, 2)).copy()
    for reach in (_INNER_INDEX, np.inf):
        fractional = (position - vectors[:, :1]) @ np.linalg.inv(vectors[:, 1:])
        index = np.round(fractional)
        near = np.abs(fractional - index).max(axis=-1) < _INDEX_TOLERANCE
        used = present & near & (np.abs(index).max(axis=-1) <= reach)
        design = np.concatenate([np.ones_like(index[..., :1]), index], axis=-1)
        fitted, determinant = _least_squares(design, np.where(used, intensity, 0), position)
        solved = determinant > 0
        vectors[solved] = fitted[solved]
    count = used.sum(axis=-1)
    whole = _parameters(vectors)
    square, accepted = np.zeros_like(whole), np.zeros(len(whole))
    kept = count // 2
    for _ in range(_PARTITIONS):
        lot = np.where(used, random.random(used.shape), np.inf)
        last = np.take_along_axis(np.sort(lot, axis=-1), np.maximum(kept - 1, 0)[:, None], axis=-1)
        first = used & (lot <= last)
        for half, size in ((first, kept), (used & ~first, count - kept)):
            fitted, half_determinant = _least_squares(design, np.where(half, intensity, 0), position)
            good = solved & (half_determinant > _WEAK_HALF * determinant)
            difference = _parameters(fitted[good]) - whole[good]
            square[good] += difference**2 * (size / np.maximum(count - size, 1))[good, None]
            accepted[good] += 1
    determined = accepted > 0
    whole[~determined] = np.nan
    deviation = np.sqrt(square / np.where(determined, accepted, np.nan)[:, None])
    return whole, deviation, count


def _least_squares(design: Float, weight: Float, position: Float) -> tuple[Float, Float]:
    """Weighted fits (p, 3, 2) of position by design, and the determinants (p,) of their normal matrices.

    Where the disks are collinear the determinant is 0 and the fit means nothing.
    """
    weighted = design.swapaxes(1, 2) * weight[:, None]
    normal = weighted @ design
    determinant = np.linalg.det(normal)
    collinear = determinant <= _COLLINEAR * np.diagonal(normal, axis1=1, axis2=2).prod(axis=-1)
    normal[collinear] = np.eye(3)
    return np.asarray(np.linalg.solve(normal, weighted @ position)), np.where(collinear, 0.0, determinant)


def _parameters(vectors: Float) -> Float:
    """a, c, gamma, theta (p, 4) of origin, a* and c* (p, 3, 2)."""
    real = np.linalg.inv(vectors[:, 1:]).swapaxes(1, 2)
    (a_x, a_y), (c_x, c_y) = np.moveaxis(real, 0, -1)
    from_x, from_y = np.arctan2(a_y, a_x), np.arctan2(-c_x, c_y)
    lengths = np.hypot(a_x, a_y), np.hypot(c_x, c_y)
    return np.stack([*lengths, from_x - from_y, (from_x + from_y) / 2], axis=-1)
