"""Incompatibility of a strain map: what no displacement field can explain."""

import numpy as np

from chemomech.arrays import Bool, Float, require_shape


def incompatibility(strain: Float, mask: Bool, pixel_size_nm: float) -> Float:
    """r = d2 eps_aa/dc2 + d2 eps_cc/da2 - 2 d2 eps_ac/(da dc), by central differences.

    (Deng SI, eq. 5.2, whose print repeats one term.) It vanishes for the strain of any displacement;
    dislocations leave it non-zero (Kroener).

    Parameters
    ----------
    strain : (ny, nx, 3) with components aa, cc and 2 ac; axis 0 is c, axis 1 is a.
    mask : (ny, nx) bool.
    pixel_size_nm : nm.

    Returns
    -------
    (ny, nx) in 1/nm^2; NaN where one of the eight neighbours lies outside the mask.

    >>> y, x = np.mgrid[0:5, 0:5].astype(float)
    >>> incompatibility(np.stack([x * y, y, x], -1), np.ones((5, 5), bool), 1.0)[2, 2]
    0.0
    """
    require_shape(strain, "strain", (None, None, 3))
    require_shape(mask, "mask", strain.shape[:2])
    field = np.pad(np.where(mask[..., None], strain, np.nan), ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    aa, cc, shear = np.moveaxis(field, -1, 0)
    along_c = aa[2:, 1:-1] - 2 * aa[1:-1, 1:-1] + aa[:-2, 1:-1]
    along_a = cc[1:-1, 2:] - 2 * cc[1:-1, 1:-1] + cc[1:-1, :-2]
    mixed = (shear[2:, 2:] - shear[2:, :-2] - shear[:-2, 2:] + shear[:-2, :-2]) / 4
    return np.asarray((along_c + along_a - mixed) / pixel_size_nm**2)
