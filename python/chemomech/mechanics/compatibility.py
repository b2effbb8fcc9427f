"""What no displacement field can explain: incompatibility of a strain, Burgers density of a distortion."""

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


def burgers_density(distortion: Float, mask: Bool, pixel_size_nm: float) -> Float:
    """Burgers vector per area of the lines that cross the image, by central differences (Nye 1953; Kroener).

    The curl of the lattice distortion beta_ij = du_i/dx_j: d beta_xy/dx - d beta_xx/dy along a, and
    d beta_yy/dx - d beta_yx/dy along c. It asks for no elasticity and no law: an eigenstrain that a lattice carries
    without stress has none.

    Parameters
    ----------
    distortion : (ny, nx, 4) with channels aa, cc, 2 ac, rotation; axis 0 is y = c, axis 1 is x = a.
    mask : (ny, nx) bool.
    pixel_size_nm : nm.

    Returns
    -------
    (ny, nx, 2) along a and c in 1/nm; NaN where one of the four neighbours lies outside the mask.

    >>> y, x = np.mgrid[0:5, 0:5].astype(float)
    >>> burgers_density(np.stack([0 * x, x, 0 * x, 0 * x], -1), np.ones((5, 5), bool), 1.0)[2, 2].tolist()
    [0.0, 1.0]
    """
    require_shape(distortion, "distortion", (None, None, 4))
    require_shape(mask, "mask", distortion.shape[:2])
    field = np.pad(np.where(mask[..., None], distortion, np.nan), ((1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    aa, cc, shear, turn = np.moveaxis(field, -1, 0)
    xy, yx = shear / 2 - turn, shear / 2 + turn

    def slope_x(values: Float) -> Float:
        return np.asarray(values[1:-1, 2:] - values[1:-1, :-2]) / (2 * pixel_size_nm)

    def slope_y(values: Float) -> Float:
        return np.asarray(values[2:, 1:-1] - values[:-2, 1:-1]) / (2 * pixel_size_nm)

    return np.stack([slope_x(xy) - slope_y(aa), slope_x(cc) - slope_y(yx)], axis=-1)
