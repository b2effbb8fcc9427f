"""Videos of the lithium fraction of reacting particles, checked once."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from chemomech.arrays import Bool, Float, require_finite, require_shape
from chemomech.errors import InputError

Mode = Literal["charge", "discharge"]
Boundary = Literal["no_flux", "dirichlet_data"]

#: What noise can make of a lithium fraction between 0 and 1.
_PLAUSIBLE = (-0.5, 1.5)
#: A mean lithium fraction that changes by fewer standard errors than this from the first to the last frame does not
#: tell a rate from zero.
_LEAST_CHANGE = 5.0
SECONDS_AN_HOUR, MINUTES_AN_HOUR = 3600.0, 60.0


@dataclass(frozen=True, eq=False)
class HalfCycle:
    """The frames of one charge or discharge of a particle.

    Attributes
    ----------
    name : its name in the file.
    mode : "charge" takes lithium out, "discharge" puts it in.
    time_h : (n_t,), h.
    li_fraction : (n_t, n_pixels), lithium fraction of the pixels inside the mask, noise included.
    """

    name: str
    mode: Mode
    time_h: Float
    li_fraction: Float


@dataclass(frozen=True, eq=False)
class FilmedParticle:
    """A particle and its half-cycles.

    Attributes
    ----------
    mask : (ny, nx) bool, one connected piece (pixels that share an edge).
    pixel_size_nm : edge of a square pixel, nm.
    external : (n_pixels,) of a map from another instrument (carbon of Auger spectroscopy); None without.
    """

    name: str
    mask: Bool
    pixel_size_nm: float
    half_cycles: tuple[HalfCycle, ...]
    external: Float | None = None

    def to_map(self, values: Float) -> Float:
        """Spread pixel values (..., n_pixels) over the grid (..., ny, nx), NaN outside the mask."""
        grid = np.full((*values.shape[:-1], *self.mask.shape), np.nan)
        grid[..., self.mask] = values
        return grid


@dataclass(frozen=True, eq=False)
class Coherency:
    """What the elastic energy of a particle follows from.

    Attributes
    ----------
    misfit : (3,) stress-free strain from c = 0 to c = 1: aa, cc, 2 ac.
    stiffness_GPa : (6, 6) Voigt, crystal axes.
    energy_density_GPa : c_s kT.
    """

    misfit: Float
    stiffness_GPa: Float
    energy_density_GPa: float


@dataclass(frozen=True, eq=False)
class ReactionVideo:
    """Videos of particles of one material.

    Attributes
    ----------
    gradient_nm2 : kappa / (c_s kT), the coefficient of -laplacian c in mu / kT, nm^2.
    alpha : symmetry factor of the reaction.
    noise : standard deviation of the lithium fraction of a pixel.
    boundary : at the edge of a particle no flux, or the composition of the frames.
    coherency : None where mechanics is off.
    binodal : lithium fraction of the lithium-poor phase at equilibrium, that of the rich one being 1 - binodal; None
        where it is not known.
    particles : by name.
    skipped : what was left out, and why.
    """

    gradient_nm2: float
    alpha: float
    noise: float
    boundary: Boundary
    coherency: Coherency | None
    binodal: float | None
    particles: dict[str, FilmedParticle]
    skipped: list[str] = field(default_factory=list)

    @property
    def n_pixels(self) -> int:
        """Pixels of all particles."""
        return sum(int(particle.mask.sum()) for particle in self.particles.values())


def check_mode(mode: str, where: str) -> Mode:
    """The mode of a half-cycle, or InputError."""
    for known in get_args(Mode):
        if mode == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"{where}: mode must be charge or discharge, got {mode!r}")


def check_mask(mask: Bool, where: str) -> None:
    """Raise InputError unless the mask is one connected piece of two pixels or more."""
    require_shape(mask, where, (None, None))
    if mask.sum() < 2:
        raise InputError(f"{where} has {mask.sum()} pixels; a particle needs at least 2")
    pieces = ndimage.label(mask)[1]
    if pieces != 1:
        raise InputError(
            f"{where} has {pieces} pieces that share no pixel edge; a particle must be connected, "
            "keep the largest piece or give each its own group"
        )


def half_cycle(
    name: str, mode: str, time_s: Float, li_fraction: Float, mask: Bool, noise: float, where: str
) -> HalfCycle:
    """A half-cycle from its frames (n_t, ny, nx), checked.

    Raises
    ------
    InputError : fewer than two frames, times that do not increase, a lithium fraction that is not finite or not
        plausible inside the mask, or a mean that does not change.
    """
    mode = check_mode(mode, where)
    require_shape(time_s, f"{where}/time_s", (None,))
    n = len(time_s)
    require_shape(li_fraction, f"{where}/li_fraction", (n, *mask.shape))
    if n == 0:
        raise InputError(f"{where} is empty; a half-cycle needs at least 2 frames")
    if n == 1:
        raise InputError(f"{where} has a single frame; a half-cycle needs at least 2")
    if not np.isfinite(time_s).all():
        raise InputError(f"{where}/time_s is not finite at frame {np.flatnonzero(~np.isfinite(time_s))[0]}")
    back = np.flatnonzero(np.diff(time_s) <= 0)
    if back.size:
        i = int(back[0])
        raise InputError(
            f"{where}/time_s must increase, but frame {i + 1} at {time_s[i + 1]:g} s follows one at {time_s[i]:g} s"
        )
    low, high = _PLAUSIBLE
    for i, frame in enumerate(li_fraction):
        require_finite(frame, mask, f"{where}/li_fraction, frame {i}")
        beyond = mask & ((frame < low) | (frame > high))
        if beyond.any():
            row, column = np.argwhere(beyond)[0]
            raise InputError(
                f"{where}/li_fraction is {frame[row, column]:.3g} in frame {i} at row {row}, column {column}, outside "
                f"{low:g}..{high:g}; check its units, or mask the pixel out"
            )
    inside = np.ascontiguousarray(li_fraction[:, mask])
    change = inside[-1].mean() - inside[0].mean()
    if abs(change) < _LEAST_CHANGE * noise * np.sqrt(2 / mask.sum()):
        raise InputError(
            f"{where}: the mean lithium fraction changes by {change:.2g} from the first to the last frame, a rate of "
            f"zero to within the noise (noise_sigma = {noise:g}); kinetics need a reaction"
        )
    if (change > 0) != (mode == "discharge"):
        raise InputError(
            f"{where}: mode is {mode}, but the mean lithium fraction goes from {inside[0].mean():.3g} to "
            f"{inside[-1].mean():.3g}; discharge puts lithium in, charge takes it out"
        )
    return HalfCycle(name, mode, np.asarray(time_s, dtype=np.float64) / SECONDS_AN_HOUR, inside)
