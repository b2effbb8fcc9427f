"""From X-ray spectra and lattice maps of one particle to aligned maps (Deng SI, section 1.2).

Spectra give the composition on the X-ray grid; its correlation with the lattice parameter a, together with the
particle's outline, gives the affine transform to the STEM grid; there both become one set of correlative maps.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from chemomech.arrays import Bool, Float
from chemomech.errors import InputError
from chemomech.observe.alignment import Alignment, align_stack
from chemomech.observe.diffraction import LatticeMaps
from chemomech.observe.maps import LIFEPO4_NM, CorrelativeMaps
from chemomech.observe.noise import white_noise
from chemomech.observe.registration import Image, Registration, coverage, register
from chemomech.observe.spectra import References, SpectralFit, fit_spectra

#: Share of the particle's pixels that the X-ray image may leave without a composition.
_MOST_MISSING = 0.02
#: Noise of an optical density below this is not measurable; it keeps the weights of synthetic images finite.
_LEAST_DENSITY_NOISE = 1e-6
#: A smaller drift (pixels) is left in: interpolation would blur the boundary by more, and where the contrast between
#: the phases turns over with the energy, a drift of up to 0.2 pixel is measured that is not there (edges of one pixel).
_STILL = 0.25


@dataclass(frozen=True, eq=False)
class RawParticle:
    """What two microscopes saw of one particle.

    Attributes
    ----------
    name : the particle's name.
    energy_eV : (m,); optical_density : (m, ny, nx), on the X-ray grid.
    xray_pixel_size_nm : nm.
    lattice : strain and rotation on the STEM grid.
    reference_nm : lattice parameters a and c of LiFePO4 that the strains are relative to, nm.
    source : where they came from, for messages.
    """

    name: str
    energy_eV: Float
    optical_density: Float
    xray_pixel_size_nm: float
    lattice: LatticeMaps
    reference_nm: tuple[float, float] = LIFEPO4_NM
    source: str = "memory"


@dataclass(frozen=True, eq=False)
class ComposedParticle:
    """Aligned maps, and the two steps that led to them.

    Attributes
    ----------
    raw : what it was made of.
    maps : on the STEM grid, with the uncertainty of the composition.
    alignment : drift between the images of the energy stack; taken out only when it exceeds a quarter of a pixel.
    fit : composition and its quality on the X-ray grid.
    registration : from the X-ray to the STEM grid.
    """

    raw: RawParticle
    maps: CorrelativeMaps
    alignment: Alignment
    fit: SpectralFit
    registration: Registration

    @property
    def drift_removed(self) -> bool:
        """The images were shifted onto each other before the fit."""
        return _drifts(self.alignment)


def compose_particle(raw: RawParticle, references: References) -> ComposedParticle:
    """Aligned maps of one particle.

    Raises
    ------
    InputError : the spectra do not fit the references, the images do not match, or the X-ray image leaves more than
        2 % of the particle without a composition.
    """
    try:
        alignment = _align(raw)
        still = replace(raw, optical_density=alignment.images) if _drifts(alignment) else raw
        weights = 1 / _density_noise(still) ** 2
        fit = fit_spectra(still.optical_density, raw.energy_eV, references, weights=weights, absolute_weights=True)
        thickness = fit.coefficients.sum(axis=0)
        moving = Image(fit.composition, raw.xray_pixel_size_nm, coverage(thickness))
        lattice = raw.lattice
        fixed = Image(np.where(lattice.mask, lattice.distortion[..., 0], np.nan), lattice.pixel_size_nm, lattice.mask)
        registration = register(moving, fixed)
        if registration.score < 0:
            raise InputError(
                f"X falls where the lattice parameter a grows (correlation {registration.score:.2f}), but lithium "
                "widens the lattice: the reference spectra are exchanged, or an axis is turned round"
            )
        unclipped = _unclipped(fit, still, references, weights, moving.particle)
        composition, deviation = registration.resample(unclipped, fit.composition_error)
        composition, deviation = _completed(composition, deviation, lattice)
    except InputError as error:
        raise InputError(f"{raw.source}: particle {raw.name}: {error}") from error
    maps = CorrelativeMaps(
        name=raw.name,
        pixel_size_nm=lattice.pixel_size_nm,
        mask=lattice.mask,
        composition=composition,
        distortion=lattice.distortion,
        reference_nm=raw.reference_nm,
        uncertainty={**lattice.uncertainty, "composition": deviation},
        source=raw.source,
    )
    return ComposedParticle(raw, maps, alignment, fit, registration)


def _align(raw: RawParticle) -> Alignment:
    """Drift of the stack; pixels that were not measured stay unknown but do not hinder the others."""
    images = raw.optical_density.astype(np.float64)
    unknown = ~np.isfinite(images)
    for image, holes in zip(images, unknown, strict=True):
        if holes.all():
            raise InputError("an image of the energy stack has no finite pixel; leave its energy out")
        if holes.any():
            nearest = ndimage.distance_transform_edt(holes, return_distances=False, return_indices=True)
            image[:] = image[tuple(nearest)]
    alignment = align_stack(images)
    for image, holes, drift in zip(alignment.images, unknown, alignment.drift, strict=True):
        if holes.any():
            image[ndimage.shift(holes.astype(np.float64), -drift[::-1], order=1) > 0] = np.nan
    return alignment


def _drifts(alignment: Alignment) -> bool:
    return bool(np.abs(alignment.drift).max() > _STILL)


def _density_noise(raw: RawParticle) -> Float:
    """Noise (m,) of the images inside the particle, from the images themselves.

    A pixel's own residual has as many degrees of freedom as energies less references, often three: errors from it
    would scatter by half their size, and weights made of them would prefer the pixels that fit too well.
    """
    mean = raw.optical_density.mean(axis=0, dtype=np.float64)
    if np.nanmedian(mean) < 0 and np.nanmax(mean) < -np.nanmin(mean):
        raise InputError("the optical density is negative: it is ln(incident / transmitted), so its sign is wrong")
    inside = coverage(mean) >= 0.5
    noise = [
        white_noise([image.astype(np.float64)], [inside], f"the optical density at {energy:g} eV")
        for image, energy in zip(raw.optical_density, raw.energy_eV, strict=True)
    ]
    return np.maximum(noise, _LEAST_DENSITY_NOISE)


def _unclipped(fit: SpectralFit, raw: RawParticle, references: References, weights: Float, inside: Bool) -> Float:
    """X inside the particle by least squares without bounds.

    Non-negative coefficients cut the noise off at X = 0 and 1, and clipped noise steepens the law that is learned from
    it. Where so little is in the beam that X is anything, the bounded fit stays.
    """
    root = np.sqrt(weights)
    inverse = np.linalg.pinv(root[:, None] * references.at(raw.energy_eV)) * root
    coefficients = np.tensordot(inverse, raw.optical_density, axes=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = coefficients[references.names.index("LiFePO4")] / coefficients.sum(axis=0)
    return np.where(inside & (np.abs(share - 0.5) < 1), share, fit.composition)


def _completed(composition: Float, deviation: Float, lattice: LatticeMaps) -> tuple[Float, Float]:
    """Pixels at the edge that the X-ray image does not reach take the value of their nearest neighbour.

    Taking them out of the mask would change the body whose equilibrium is solved; the doubled deviation says that
    they are a guess.
    """
    missing = lattice.mask & ~np.isfinite(composition)
    share = missing.sum() / lattice.mask.sum()
    if share > _MOST_MISSING:
        raise InputError(
            f"the X-ray image leaves {100 * share:.0f} % of the particle without a composition, at most "
            f"{100 * _MOST_MISSING:.0f} % can be filled in; check the registration and the field of view"
        )
    nearest = tuple(
        ndimage.distance_transform_edt(~np.isfinite(composition), return_distances=False, return_indices=True)
    )
    return (
        np.where(missing, composition[nearest], composition),
        np.where(missing, 2 * deviation[nearest], deviation),
    )
