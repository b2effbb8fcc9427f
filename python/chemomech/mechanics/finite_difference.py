"""Traction-free plane stress by finite differences on a staggered grid.

An independent forward model: data made with it and inverted with finite elements share no discretisation error
(Deng SI, section II). Displacement u lives on the faces between cells along x, v on those along y; normal strains
at cell centres, shear at the corners between four faces. Minimising the discrete energy gives second order and
free edges without further thought: a corner on the edge carries no shear stress and drops out.
"""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy import ndimage

from chemomech.arrays import Bool, Float, require_shape
from chemomech.errors import InputError
from chemomech.sparse import factorise

Index = npt.NDArray[np.intp]


def free_distortion(mask: Bool, cell_size_nm: float, stiffness_GPa: Float, eigenstrain: Float) -> Float:
    """Distortion of a free body with an eigenstrain, without rigid rotation on average.

    Parameters
    ----------
    mask : (ny, nx) bool, one connected body in which every cell belongs to a full block of 2 x 2 cells.
    cell_size_nm : nm.
    stiffness_GPa : (3, 3) plane stress without coupling between normal strains and shear.
    eigenstrain : (ny, nx, 2) along a (x) and c (y).

    Returns
    -------
    (ny, nx, 4) : eps_aa, eps_cc, 2 eps_ac and rotation at cell centres; NaN outside the mask.

    Raises
    ------
    InputError : a mask with a strip one cell wide or in several pieces.
    """
    require_shape(stiffness_GPa, "stiffness_GPa", (3, 3))
    require_shape(eigenstrain, "eigenstrain", (*mask.shape, 2))
    if (ndimage.binary_opening(mask, np.ones((2, 2))) != mask).any() or ndimage.label(mask)[1] != 1:
        raise InputError("mask must be one body in which every cell belongs to a full block of 2 x 2 cells")

    inside = np.pad(mask, 1)
    u_number = _numbered(inside[1:-1, :-1] | inside[1:-1, 1:], start=0)
    v_number = _numbered(inside[:-1, 1:-1] | inside[1:, 1:-1], start=u_number.max() + 1)
    n_unknowns = int(v_number.max()) + 1

    aa = _difference(u_number[:, 1:][mask], u_number[:, :-1][mask], cell_size_nm, n_unknowns)
    cc = _difference(v_number[1:][mask], v_number[:-1][mask], cell_size_nm, n_unknowns)
    # Corners between 4 cells carry shear on their full area, those with one cell missing on three quarters.
    cells_around = inside[:-1, :-1].astype(int) + inside[1:, :-1] + inside[:-1, 1:] + inside[1:, 1:]
    corner = cells_around >= 3
    u_above, u_below = np.pad(u_number, ((0, 1), (0, 0)))[corner], np.pad(u_number, ((1, 0), (0, 0)))[corner]
    v_right, v_left = np.pad(v_number, ((0, 0), (0, 1)))[corner], np.pad(v_number, ((0, 0), (1, 0)))[corner]
    du_dy = _difference(u_above, u_below, cell_size_nm, n_unknowns)
    dv_dx = _difference(v_right, v_left, cell_size_nm, n_unknowns)

    (c11, c12, _), (_, c22, _), (_, _, c33) = stiffness_GPa
    stress_aa, stress_cc = c11 * aa + c12 * cc, c12 * aa + c22 * cc
    shear = du_dy + dv_dx
    shear_stress = sp.diags_array(c33 * cells_around[corner] / 4) @ shear
    matrix = aa.T @ stress_aa + cc.T @ stress_cc + shear.T @ shear_stress
    load = stress_aa.T @ eigenstrain[mask][:, 0] + stress_cc.T @ eigenstrain[mask][:, 1]

    displacement = np.zeros(n_unknowns)
    free = np.setdiff1d(np.arange(n_unknowns), _pins(u_number, v_number))
    displacement[free] = factorise(matrix.tocsr()[free][:, free])(load[free, None])[:, 0]

    distortion = np.full((*mask.shape, 4), np.nan)
    distortion[mask, 0], distortion[mask, 1] = aa @ displacement, cc @ displacement
    turn = (dv_dx - du_dy) @ displacement / 2
    distortion[..., 2] = _corners_to_cells(shear @ displacement, corner, mask, missing=0.0)
    distortion[..., 3] = _corners_to_cells(turn - turn.mean(), corner, mask, missing=np.nan)
    return distortion


def _numbered(active: Bool, start: int) -> Index:
    number = np.full(active.shape, -1)
    number[active] = start + np.arange(active.sum())
    return number


def _difference(plus: Index, minus: Index, length: float, n_unknowns: int) -> sp.csr_array:
    """Rows (value at `plus` - value at `minus`) / length."""
    row = np.arange(len(plus))
    values = np.repeat([1 / length, -1 / length], len(plus))
    places = (np.concatenate([row, row]), np.concatenate([plus, minus]))
    return sp.csr_array((values, places), shape=(len(plus), n_unknowns))


def _pins(u_number: Index, v_number: Index) -> Index:
    """One u, and one v at either end along x: enough to hold a body and no more."""
    columns = np.flatnonzero((v_number >= 0).any(axis=0))
    first, last = (v_number[:, column].max() for column in columns[[0, -1]])
    return np.array([u_number.max(), first, last])


def _corners_to_cells(values: Float, corner: Bool, mask: Bool, missing: float) -> Float:
    """Mean over the four corners of each cell, of those there are when `missing` is NaN."""
    grid = np.full(corner.shape, missing)
    grid[corner] = values
    around = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[:-1, 1:], grid[1:, 1:]])[:, mask]
    cells = np.full(mask.shape, np.nan)
    cells[mask] = np.nanmean(around, axis=0)
    return cells
