"""Gaussian random fields on the pixels of a particle, as sums of few modes (Karhunen and Loeve)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chemomech.arrays import Float

#: By correlation length.
Spectra = dict[float, tuple[Float, Float]]
#: Correlation lengths (pixels) and standard deviations tried for a field seen through noise.
_LENGTHS_PX = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_DEVIATIONS = tuple(np.geomspace(0.005, 0.5, 25).tolist())
#: What is expected of a length where samples say little: its median (pixels), and the deviation of its ln.
_MEDIAN_LENGTH_PX, _LENGTH_SPREAD = 2.0, 0.4


@dataclass(frozen=True, eq=False)
class FieldModes:
    """A field of unit variance: pixels @ z with independent standard normal z.

    Attributes
    ----------
    pixels : (n_pixels, m).
    eigenvectors : (n_pixels, m), orthonormal; `pixels` is this times the square roots of `eigenvalues` (m,).
    variance_kept : share of the variance that the modes hold.
    """

    pixels: Float
    eigenvectors: Float
    eigenvalues: Float
    variance_kept: float
    position_px: Float
    length_px: float

    def at(self, position_px: Float) -> Float:
        """The modes (n, m) at other points (n, 2), continued by their covariance (Nystroem)."""
        between = _covariance(position_px, self.position_px, self.length_px)
        return np.asarray(between @ (self.eigenvectors / np.sqrt(self.eigenvalues)))


def field_modes(position_px: Float, length_px: float, keep: float) -> FieldModes:
    """Modes of the covariance exp(-d^2 / (2 length^2)), the fewest that keep a share of the variance.

    Parameters
    ----------
    position_px : (n_pixels, 2).
    keep : share of the variance, 0..1.
    """
    values, vectors = np.linalg.eigh(_covariance(position_px, position_px, length_px))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    share = np.cumsum(values) / values.sum()
    m = int(np.searchsorted(share, keep)) + 1
    values, vectors = values[:m], np.ascontiguousarray(vectors[:, :m])
    return FieldModes(vectors * np.sqrt(values), vectors, values, float(share[m - 1]), position_px, length_px)


def covariance_spectra(position_px: Float) -> Spectra:
    """Eigenvalues and eigenvectors of the covariances that `most_likely_field` tries."""
    return {length: np.linalg.eigh(_covariance(position_px, position_px, length)) for length in _LENGTHS_PX}


def log_prior_of_length(length_px: float) -> float:
    """ln of the prior probability of a correlation length, but for a constant."""
    return float(-((np.log(length_px / _MEDIAN_LENGTH_PX) / _LENGTH_SPREAD) ** 2) / 2)


def most_likely_field(fields: Sequence[Float], spectra: Sequence[Spectra], noise: float) -> tuple[float, float]:
    """Standard deviation and correlation length (pixels) of random fields of which noisy samples are given.

    The most probable on a grid by the marginal likelihood of `fields` (n_pixels,), each less its mean, and a prior of
    the length; all share one answer.
    `spectra` are those of each field's pixels.
    """
    best, answer = -np.inf, (_DEVIATIONS[0], _LENGTHS_PX[0])
    for length in _LENGTHS_PX:
        powers = []
        for field, spectrum in zip(fields, spectra, strict=True):
            values, vectors = spectrum[length]
            powers.append((np.maximum(values, 0.0), (vectors.T @ (field - field.mean())) ** 2))
        for deviation in _DEVIATIONS:
            posterior = log_prior_of_length(length)
            for values, power in powers:
                variance = deviation**2 * values + noise**2
                posterior -= float(np.sum(np.log(variance) + power / variance)) / 2
            if posterior > best:
                best, answer = posterior, (deviation, length)
    return answer


def smoothed(field: Float, spectra: Spectra, noise: float) -> Float:
    """Most probable field (n_pixels,) behind a noisy one, of the size and correlation length most likely for it."""
    deviation, length = most_likely_field([field], [spectra], noise)
    values, vectors = spectra[length]
    power = deviation**2 * np.maximum(values, 0.0)
    mean = field.mean()
    return np.asarray(mean + vectors @ (power / (power + noise**2) * (vectors.T @ (field - mean))))


def _covariance(a_px: Float, b_px: Float, length_px: float) -> Float:
    square = ((a_px[:, None] - b_px[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-square / (2 * length_px**2)))
