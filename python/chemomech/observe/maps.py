"""The aligned maps of one particle, checked once and in internal units."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from chemomech.arrays import Bool, Float, require_finite, require_shape
from chemomech.errors import InputError

#: Lattice parameters a and c of LiFePO4 to which strains are relative when a file does not say otherwise.
LIFEPO4_NM = (1.033, 0.469)
#: The measured channels, in the order of the last axis of `distortion`.
CHANNELS = ("aa", "cc", "ac", "rotation")


@dataclass(frozen=True, eq=False)
class CorrelativeMaps:
    """Composition and lattice distortion of one particle on one pixel grid.

    Axis 0 is y (crystal c, rows grow with +c), axis 1 is x (crystal a).

    Attributes
    ----------
    name : the particle's name.
    pixel_size_nm : edge of a square pixel, nm.
    mask : (ny, nx) bool, the particle.
    composition : (ny, nx) lithium fraction X; noise may carry it outside 0..1 and must be left there.
    distortion : (ny, nx, 4), small strains eps_aa, eps_cc, 2 eps_ac relative to LiFePO4 and the
        counter-clockwise lattice rotation (rad).
    reference_nm : lattice parameters a and c of the reference crystal, LiFePO4, nm.
    uncertainty : standard deviation per pixel (ny, nx) of any of "composition", "aa", "cc", "ac", "rotation";
        a channel without one gets a single value, estimated from the maps of all particles without one.
    source : where the maps came from, for messages and reports.

    Raises
    ------
    InputError : shapes differ, the mask is empty, a map is not finite inside it, the pixel size is not positive.
    """

    name: str
    pixel_size_nm: float
    mask: Bool
    composition: Float
    distortion: Float
    reference_nm: tuple[float, float] = LIFEPO4_NM
    uncertainty: Mapping[str, Float] = field(default_factory=lambda: MappingProxyType({}))
    source: str = "memory"

    def __post_init__(self) -> None:
        where = f"{self.source}: particle {self.name}"
        if not (np.isfinite(self.pixel_size_nm) and self.pixel_size_nm > 0):
            raise InputError(f"{where}: pixel_size_nm must be positive, got {self.pixel_size_nm}")
        if self.name in ("", ".", "..") or "/" in self.name:
            raise InputError(f"{self.source}: particle name {self.name!r} cannot be a group of an HDF5 file")
        require_shape(self.mask, f"{where}: mask", (None, None))
        if self.mask.dtype != bool:
            raise InputError(f"{where}: mask must be bool, got {self.mask.dtype}")
        if not self.mask.any():
            raise InputError(f"{where}: mask is empty; a particle needs at least one pixel")
        require_shape(self.composition, f"{where}: composition", self.mask.shape)
        require_shape(self.distortion, f"{where}: distortion", (*self.mask.shape, 4))
        require_finite(self.composition, self.mask, f"{where}: composition")
        for channel, name in enumerate(CHANNELS):
            require_finite(self.distortion[..., channel], self.mask, f"{where}: {name}")
        self._require_plausible(where)
        for name, deviation in self.uncertainty.items():
            if name not in ("composition", *CHANNELS):
                raise InputError(f"{where}: no channel {name!r} to give an uncertainty for")
            require_shape(deviation, f"{where}: uncertainty of {name}", self.mask.shape)
            require_finite(deviation, self.mask, f"{where}: uncertainty of {name}")
            if (deviation[self.mask] <= 0).any():
                raise InputError(f"{where}: the uncertainty of {name} must be positive inside the mask")

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process; a read-only mapping cannot be sent as it is."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return _from_fields, (values | {"uncertainty": dict(self.uncertainty)},)

    def _require_plausible(self, where: str) -> None:
        """Values no crystal has come from a wrong unit or a rogue pixel, which would pull the law away unnoticed."""
        limits = {"composition": (self.composition, (-1.0, 2.0))}
        limits |= {name: (self.distortion[..., i], (-0.2, 0.2)) for i, name in enumerate(CHANNELS[:3])}
        limits |= {"rotation": (self.distortion[..., 3], (-1.0, 1.0))}
        for name, (values, (low, high)) in limits.items():
            inside = np.where(self.mask, values, 0.0)
            beyond = (inside < low) | (inside > high)
            if beyond.any():
                row, column = np.argwhere(beyond)[0]
                raise InputError(
                    f"{where}: {name} is {values[row, column]:.3g} at row {row}, column {column}, outside "
                    f"{low:g}..{high:g} as at {beyond.sum()} pixels; check its units, or mask the pixels out"
                )

    @property
    def mean_composition(self) -> float:
        """Mean lithium fraction of the particle."""
        return float(self.composition[self.mask].mean())

    def to_map(self, values: Float) -> Float:
        """Spread pixel values (n_pixels, ...) over the grid (ny, nx, ...), NaN outside the mask."""
        grid = np.full((*self.mask.shape, *values.shape[1:]), np.nan)
        grid[self.mask] = values
        return grid


def _from_fields(values: dict[str, Any]) -> CorrelativeMaps:
    return CorrelativeMaps(**values)
