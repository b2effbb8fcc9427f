"""From X-ray spectra and lattice maps of one particle to aligned maps (Deng SI, section 1.2).

Spectra give the composition on the X-ray grid; its correlation with the lattice parameter a, together with the
particle's outline, gives the affine transform to the STEM grid; there both become one set of correlative maps.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from chemomech.arrays import Float
from chemomech.errors import InputError
from chemomech.observe.diffraction import LatticeMaps
from chemomech.observe.maps import LIFEPO4_NM, CorrelativeMaps
from chemomech.observe.noise import white_noise
from chemomech.observe.registration import Image, Registration, coverage, register
from chemomech.observe.spectra import References, SpectralFit, fit_spectra

#: Share of the particle's pixels that the X-ray image may leave without a composition.
_MOST_MISSING = 0.02
#: Noise of an optical density below this is not measurable; it keeps the weights of synthetic images finite.
_LEAST_DENSITY_NOISE = 1e-6


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
    """

    name: str
    energy_eV: Float
    optical_density: Float
    xray_pixel_size_nm: float
    lattice: LatticeMaps
    reference_nm: tuple[float, float] = LIFEPO4_NM


@dataclass(frozen=True, eq=False)
class ComposedParticle:
    """Aligned maps, and the two steps that led to them.

    Attributes
    ----------
    maps : on the STEM grid, with the uncertainty of the composition.
    fit : composition and its quality on the X-ray grid.
    registration : from the X-ray to the STEM grid.
    """

    maps: CorrelativeMaps
    fit: SpectralFit
    registration: Registration


def compose_particle(raw: RawParticle, references: References) -> ComposedParticle:
    """Aligned maps of one particle.

    Raises
    ------
    InputError : the spectra do not fit the references, the images do not match, or the X-ray image leaves more than
        2 % of the particle without a composition.
    """
    try:
        weights = 1 / _density_noise(raw) ** 2
        fit = fit_spectra(raw.optical_density, raw.energy_eV, references, weights=weights, absolute_weights=True)
        thickness = fit.coefficients.sum(axis=0)
        moving = Image(fit.composition, raw.xray_pixel_size_nm, coverage(thickness))
        lattice = raw.lattice
        fixed = Image(np.where(lattice.mask, lattice.distortion[..., 0], np.nan), lattice.pixel_size_nm, lattice.mask)
        registration = register(moving, fixed)
        composition, deviation = registration.resample(fit.composition, fit.composition_error)
        composition, deviation = _completed(composition, deviation, lattice)
    except InputError as error:
        raise InputError(f"{raw.lattice.source}: particle {raw.name}: {error}") from error
    maps = CorrelativeMaps(
        name=raw.name,
        pixel_size_nm=lattice.pixel_size_nm,
        mask=lattice.mask,
        composition=composition,
        distortion=lattice.distortion,
        reference_nm=raw.reference_nm,
        uncertainty={**lattice.uncertainty, "composition": deviation},
        source=lattice.source,
    )
    return ComposedParticle(maps, fit, registration)


def _density_noise(raw: RawParticle) -> Float:
    """Noise (m,) of the images inside the particle, from the images themselves.

    A pixel's own residual has as many degrees of freedom as energies less references, often three: errors from it
    would scatter by half their size, and weights made of them would prefer the pixels that fit too well.
    """
    inside = coverage(raw.optical_density.mean(axis=0, dtype=np.float64)) >= 0.5
    noise = [
        white_noise([image.astype(np.float64)], [inside], f"the optical density at {energy:g} eV")
        for image, energy in zip(raw.optical_density, raw.energy_eV, strict=True)
    ]
    return np.maximum(noise, _LEAST_DENSITY_NOISE)


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
