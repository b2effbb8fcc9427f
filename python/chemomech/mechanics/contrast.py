"""Contrast factors of dislocations in X-ray line profiles, and their energy factors, in orthogonal cells."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np

from chemomech.arrays import Float, require_shape
from chemomech.errors import ConvergenceError, InputError
from chemomech.mechanics.dislocations import StraightDislocation

Indices = Sequence[float]


def contrast_factor(
    cell: Sequence[float],
    stiffness_GPa: Float,
    *,
    burgers: Indices,
    plane: Indices,
    line: Indices,
    hkl: Indices,
    powder: bool = True,
) -> float:
    """Dislocation contrast factor of one reflection.

    C = (1/pi) * integral over phi of (tau_i tau_j beta_ij)^2, with beta = (2 pi r / b) du/dx and tau the direction of g
    (Martinez-Garcia, Leoni & Scardi 2009; Borbely et al. 2003; Deng SI, Table S2).

    Parameters
    ----------
    cell : (3,) lattice parameters a, b, c of an orthogonal cell; only their ratios matter.
    stiffness_GPa : (6, 6) Voigt, engineering shears, crystal axes; positive definite.
    burgers, line : (3,) direction indices uvw; fractions are allowed, the length does not matter.
    plane : (3,) indices of the glide plane, which holds the line.
    hkl : (3,) integer indices of the reflection.
    powder : mean over the sign-equivalent reflections (+-h, +-k, +-l), or this reflection alone.

    Raises
    ------
    InputError : an index or length that cannot be used, a line outside the plane, a stiffness that is not symmetric and
        positive definite.

    >>> round(contrast_factor((10.45, 6.05, 4.74), LIFEPO4, burgers=(0, 0, 1), plane=(1, 0, 0), line=(0, 1, 0),
    ...                       hkl=(1, 0, 1)), 4)
    0.4645
    """
    lengths = _cell(cell)
    reflection = _reflection(hkl)
    signs = np.array(list(product((1, -1), repeat=3)) if powder else [(1, 1, 1)])
    dislocation = _dislocation(lengths, stiffness_GPa, burgers, plane, line)
    g = signs * reflection / lengths @ dislocation.frame.T
    tau = g / np.linalg.norm(g, axis=1, keepdims=True)
    pairs = (tau[:, :, None] * tau[:, None, :2]).reshape(-1, 6)
    return float(np.mean(np.einsum("ni,ij,nj->n", pairs, _mean_products(dislocation), pairs)))


def energy_factor(
    cell: Sequence[float], stiffness_GPa: Float, *, burgers: Indices, plane: Indices, line: Indices
) -> float:
    """Energy factor K of a straight dislocation, GPa: its energy per length is K b^2 / (4 pi) ln(R / r0).

    In an isotropic crystal K is mu for a screw and mu / (1 - nu) for an edge (Foreman 1955; Deng SI, Table S3).
    Parameters and errors are those of `contrast_factor`.

    >>> round(energy_factor((10.45, 6.05, 4.74), LIFEPO4, burgers=(0, 0, 1), plane=(1, 0, 0), line=(0, 1, 0)), 2)
    72.18
    """
    return _dislocation(_cell(cell), stiffness_GPa, burgers, plane, line).energy_factor_GPa


def _dislocation(
    lengths: Float, stiffness_GPa: Float, burgers: Indices, plane: Indices, line: Indices
) -> StraightDislocation:
    """In the frame of Martinez-Garcia et al.: z along the line, y normal to the glide plane."""
    b, n, t = _indices(burgers, "burgers"), _indices(plane, "plane"), _indices(line, "line")
    if n @ t != 0:
        raise InputError(f"the line {_text(line)} does not lie in the plane {_text(plane)}; hu + kv + lw must be 0")
    z, y = (np.array(v, dtype=float) for v in (t * lengths, n / lengths))
    z, y = z / np.linalg.norm(z), y / np.linalg.norm(y)
    x = np.cross(y, z)
    return StraightDislocation(np.asarray(stiffness_GPa, dtype=float), b.astype(float) * lengths, np.array([x, y, z]))


def _mean_products(dislocation: StraightDislocation) -> Float:
    """(6, 6): (1/pi) * integral over phi of beta_m beta_n, m = ij row by row. The trapezoid rule, which for a smooth
    periodic function converges geometrically, with twice the nodes until nothing changes."""
    scale = 2 * np.pi / np.linalg.norm(dislocation.burgers_nm)
    coarse = np.zeros((6, 6))
    nodes = 32
    while nodes <= 2**17:
        angle = np.pi / nodes * np.arange(nodes)  # the products have the period pi
        beta = scale * dislocation.distortion(np.column_stack([np.cos(angle), np.sin(angle)])).reshape(-1, 6)
        fine = 2 / nodes * beta.T @ beta
        change = np.abs(fine - coarse).max() / np.abs(fine).max()
        if change < 1e-13:
            return np.asarray(fine)
        coarse, nodes = fine, 2 * nodes
    raise ConvergenceError("the contrast integral", iterations=nodes // 2, residual=float(change), tolerance=1e-13)


def _cell(cell: Sequence[float]) -> Float:
    lengths = np.asarray(cell, dtype=float)
    require_shape(lengths, "cell", (3,))
    if not (np.isfinite(lengths).all() and lengths.min() > 0):
        raise InputError(f"cell must be three positive lengths, got {_text(cell)}")
    return lengths


def _indices(values: Indices, name: str) -> Float:
    """Exact fractions, (3,) of dtype object, so that right angles are right."""
    if len(values) != 3:
        raise InputError(f"{name} must have three indices, got {_text(values)}")
    if not np.isfinite(np.asarray(values, dtype=float)).all() or not any(values):
        raise InputError(f"{name} must be finite and not 0 0 0, got {_text(values)}")
    exact = [Fraction(float(value)).limit_denominator(12) for value in values]
    if any(abs(float(near) - float(value)) > 1e-9 for near, value in zip(exact, values, strict=True)):
        raise InputError(f"{name} must have integers or simple fractions (up to twelfths), got {_text(values)}")
    return np.array(exact, dtype=object)


def _reflection(hkl: Indices) -> Float:
    exact = _indices(hkl, "hkl")
    if any(index.denominator != 1 for index in exact):
        raise InputError(f"hkl must be integers, got {_text(hkl)}")
    return exact.astype(float)


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{float(value):g}" for value in values)
