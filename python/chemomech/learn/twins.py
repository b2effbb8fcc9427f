"""Synthetic twins of the experiment: particles whose law is known, made with an independent forward model.

The equilibrium is solved by finite differences on a grid finer than the pixels and read at the scan points, so that
what the finite-element inversion recovers is not an echo of its own discretisation (Deng SI, section II).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from chemomech.arrays import Bool, Float
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.law import EigenstrainLaw
from chemomech.mechanics.finite_difference import free_distortion
from chemomech.mechanics.stiffness import OLIVINE, plane_stress
from chemomech.observe.maps import CorrelativeMaps
from chemomech.progress import progress

#: A law close to Vegard's, with the magnitudes of LiFePO4 (Deng, Fig. 2g): 4.9 % along a, -2 % along c.
TWIN_LAW = EigenstrainLaw(np.array([[0.0245, -0.0012], [-0.0098, 0.0007]]), np.zeros((4, 4)))
#: Odd, so that a scan point is the centre of a cell.
_CELLS_PER_PIXEL = 3
_BOUNDARY_WIDTH_NM = 130.0


@dataclass(frozen=True)
class Noise:
    """Standard deviations of the white noise of a measurement: lithium fraction, strain, rotation (rad)."""

    composition: float = 0.04
    strain: float = 0.002
    rotation: float = 0.002


def make_particle(
    name: str, law: EigenstrainLaw = TWIN_LAW, *, length_nm: float = 4000.0, pixel_size_nm: float = 50.0, seed: int = 0
) -> CorrelativeMaps:
    """Noise-free maps of a diamond-shaped platelet with a random arrangement of the two phases.

    Parameters
    ----------
    law : the eigenstrain law that strains it.
    length_nm : long diagonal, along a; the short one is half as long (Deng SI, 1.1).
    pixel_size_nm : nm.
    seed : of the phase arrangement and a variation of shape.
    """
    random = np.random.default_rng(seed)
    mask = _diamond(length_nm / pixel_size_nm * random.uniform(0.9, 1.1), random.uniform(0.46, 0.54))
    fine_mask = np.kron(mask, np.ones((_CELLS_PER_PIXEL, _CELLS_PER_PIXEL), dtype=bool))
    cell_nm = pixel_size_nm / _CELLS_PER_PIXEL
    fine_composition = _two_phases(fine_mask, cell_nm, length_nm, random)
    fine_distortion = free_distortion(fine_mask, cell_nm, plane_stress(OLIVINE), law(fine_composition))
    return CorrelativeMaps(
        name=name,
        pixel_size_nm=pixel_size_nm,
        mask=mask,
        composition=np.where(mask, _scan_points(fine_composition), np.nan),
        distortion=_scan_points(fine_distortion),
        source="synthetic",
    )


def add_noise(maps: CorrelativeMaps, noise: Noise, seed: int) -> CorrelativeMaps:
    """The same particle as a noisy microscope sees it; the composition is not clipped."""
    random = np.random.default_rng(seed)
    deviation = np.array([noise.strain, noise.strain, 2 * noise.strain, noise.rotation])
    return replace(
        maps,
        composition=maps.composition + noise.composition * random.standard_normal(maps.composition.shape),
        distortion=maps.distortion + deviation * random.standard_normal(maps.distortion.shape),
    )


def make_experiment(n_particles: int = 5, *, noise: Noise | None = None, seed: int = 0) -> list[CorrelativeMaps]:
    """Several particles under `TWIN_LAW`, named P1, P2, ..., with the default or the given noise."""
    noise = noise or Noise()
    particles = []
    with progress("synthetic particles", n_particles) as advance:
        for i in range(n_particles):
            clean = make_particle(f"P{i + 1}", seed=seed + i)
            particles.append(add_noise(clean, noise, seed=seed + i))
            advance()
    return particles


@dataclass(frozen=True, eq=False)
class NoiseRobustness:
    """Error of the learned law against the noise of the data (Deng SI, Fig. S5a-c).

    Attributes
    ----------
    levels : (n,) noise relative to the span of each map: 1 in composition, 5 % in strain and rotation.
    errors : (n, 2) relative root-mean-square error of df/dX over 0..1 along a and c.
    """

    levels: Float
    errors: Float


def noise_robustness(
    levels: Sequence[float] = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1), n_particles: int = 5
) -> NoiseRobustness:
    """Learn `TWIN_LAW` back (order 2) from twins with more and more noise in composition, strain and rotation."""
    clean = [make_particle(f"P{i + 1}", seed=i) for i in range(n_particles)]
    errors = []
    with progress("noise levels", len(levels)) as advance:
        for level in levels:
            noise = Noise(composition=level, strain=0.05 * level, rotation=0.05 * level)
            noisy = [add_noise(maps, noise, seed=i) for i, maps in enumerate(clean)]
            learned = learn_eigenstrain(noisy, order=2, models=("M1",)).laws["M1"]
            errors.append(expansion_error(learned, TWIN_LAW))
            advance()
    return NoiseRobustness(np.array(levels), np.array(errors))


def expansion_error(learned: EigenstrainLaw, truth: EigenstrainLaw) -> Float:
    """Relative root-mean-square error (2,) of df/dX over 0..1 along a and c."""
    nodes, weights = np.polynomial.legendre.leggauss(max(learned.order, truth.order))
    composition = (nodes + 1) / 2
    difference = learned.derivative(composition) - truth.derivative(composition)
    return np.asarray(np.sqrt(weights @ difference**2 / (weights @ truth.derivative(composition) ** 2)))


def _diamond(length_pixels: float, aspect: float) -> Bool:
    half_x, half_y = length_pixels / 2, length_pixels * aspect / 2
    y, x = np.mgrid[-np.ceil(half_y) : np.ceil(half_y) + 1, -np.ceil(half_x) : np.ceil(half_x) + 1]
    inside = np.abs(x) / half_x + np.abs(y) / half_y <= 1
    return np.asarray(ndimage.binary_opening(inside, np.ones((2, 2))))


def _two_phases(mask: Bool, cell_nm: float, length_nm: float, random: np.random.Generator) -> Float:
    """Lithium fraction between 0.02 and 0.98: domains of a smooth random field, boundaries 130 nm wide (10-90 %)."""
    field = ndimage.gaussian_filter(random.standard_normal(mask.shape), length_nm / cell_nm / 12)
    field -= np.quantile(field[mask], random.uniform(0.25, 0.75))
    distance = ndimage.distance_transform_edt(field > 0) - ndimage.distance_transform_edt(field <= 0)
    # The 10-90 % width of (1 + tanh(s / w)) / 2 is 2.197 w.
    profile = np.tanh(ndimage.gaussian_filter(distance, 1.0) * cell_nm / (_BOUNDARY_WIDTH_NM / 2.197))
    return np.asarray(0.5 + 0.48 * profile)


def _scan_points(fine: Float) -> Float:
    """Values at the scan points: an electron probe is much narrower than its step."""
    return fine[_CELLS_PER_PIXEL // 2 :: _CELLS_PER_PIXEL, _CELLS_PER_PIXEL // 2 :: _CELLS_PER_PIXEL]
