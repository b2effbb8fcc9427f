"""Lattice maps to strain, and strain with rotation to displacement."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pyamg import MultilevelSolver, ruge_stuben_solver
from scipy import ndimage

from chemomech.arrays import Bool, Float, Int, require_shape
from chemomech.errors import ConvergenceError, InputError
from chemomech.sparse import factorise

#: Above this many pixels an iteration needs less time and memory than the factor of the normal matrix.
_DIRECT_PIXELS = 100_000

#: d u_i / d x_j from the channels (eps_aa, eps_cc, 2 eps_ac, rotation); indices [i, j, channel].
_GRADIENT = np.array([[[1, 0, 0, 0], [0, 0, 0.5, -1]], [[0, 0, 0.5, 1], [0, 1, 0, 0]]])


def lattice_distortion(
    a_nm: Float, c_nm: Float, gamma: Float, theta: Float, *, a_reference_nm: float, c_reference_nm: float
) -> Float:
    """Small-strain distortion of a lattice relative to a reference crystal.

    eps_aa = a / a_reference - 1, eps_cc = c / c_reference - 1, 2 eps_ac = gamma, rotation = theta.

    Parameters
    ----------
    a_nm, c_nm : (ny, nx) lattice parameters, nm.
    gamma : (ny, nx) shear 2 eps_ac, rad.
    theta : (ny, nx) counter-clockwise rotation, rad.
    a_reference_nm, c_reference_nm : the reference crystal, nm.

    Returns
    -------
    (ny, nx, 4) : eps_aa, eps_cc, 2 eps_ac, rotation.

    Raises
    ------
    InputError : maps of different shapes, or a reference that is not positive.
    """
    for name, reference in (("a_reference_nm", a_reference_nm), ("c_reference_nm", c_reference_nm)):
        if not (np.isfinite(reference) and reference > 0):
            raise InputError(f"{name} must be positive, got {reference}")
    for name, values in (("c_nm", c_nm), ("gamma", gamma), ("theta", theta)):
        require_shape(values, name, a_nm.shape)
    return np.stack([a_nm / a_reference_nm - 1, c_nm / c_reference_nm - 1, gamma, theta], axis=-1)


class InverseGradient:
    """Displacement of a particle from its distortion, by least squares over neighbouring pixels.

    Between two neighbours the displacement changes by the mean of their gradients times the pixel size,
    with du/dx = eps_aa, du/dy = eps_ac - rotation, dv/dx = eps_ac + rotation, dv/dy = eps_cc (the
    definition of strain and rotation; Deng SI, section II calls the inversion an inverse gradient).
    All neighbour pairs inside the mask are fitted at once, each connected component on its own
    (its mean displacement is set to zero). The map from data to displacement is linear; `transpose`
    applies its transpose, with which measurement noise is propagated.

    Parameters
    ----------
    mask : (ny, nx) bool.
    pixel_size_nm : nm.
    deviation : (n_pixels, 4) standard deviation of each channel, or None for equal weights. A pair
        is weighted by the inverse variance of its mean gradient.
    """

    def __init__(self, mask: Bool, pixel_size_nm: float, deviation: Float | None = None) -> None:
        require_shape(mask, "mask", (None, None))
        self._n_pixels = int(mask.sum())
        if deviation is not None:
            require_shape(deviation, "deviation", (self._n_pixels, 4))
        number = np.full(mask.shape, -1)
        number[mask] = np.arange(self._n_pixels)
        neighbours = _pairs(number[:, :-1], number[:, 1:]), _pairs(number[:-1], number[1:])
        component = ndimage.label(mask)[0][mask] - 1
        self._integrate: list[list[sp.csr_array]] = []
        self._solve: list[Callable[[Float], Float]] = []
        for gradient in _GRADIENT:
            laplacian = sp.csr_array((self._n_pixels, self._n_pixels))
            integrate = []
            for pair, channels in zip(neighbours, gradient, strict=True):
                difference, mean = _difference_and_mean(pair, self._n_pixels)
                weight = np.ones(len(pair))
                if deviation is not None:
                    weight = 1 / (mean.multiply(mean) @ (deviation**2 @ channels**2))
                weighted = (difference.T * weight).tocsr()
                laplacian = laplacian + weighted @ difference
                integrate.append(weighted @ mean * pixel_size_nm)
            self._integrate.append(integrate)
            # With equal weights both components share one matrix, and so its factor.
            shared = deviation is None and self._solve
            self._solve.append(self._solve[0] if shared else _laplacian_solver(laplacian, component))

    def displacement(self, distortion: Float) -> Float:
        """Displacement (n_pixels, 2) in nm of a distortion (n_pixels, 4)."""
        require_shape(distortion, "distortion", (self._n_pixels, 4))
        gradient = np.einsum("ijc,pc->ijp", _GRADIENT, distortion)
        components = []
        for solve, (along_x, along_y), (slope_x, slope_y) in zip(self._solve, self._integrate, gradient, strict=True):
            components.append(solve((along_x @ slope_x + along_y @ slope_y)[:, None]))
        return np.concatenate(components, axis=1)

    def transpose(self, displacement: Float) -> Float:
        """Transpose of `displacement`: (n_pixels, 2, k) to (n_pixels, 4, k)."""
        require_shape(displacement, "displacement", (self._n_pixels, 2, None))
        gradient = [
            [step.T @ solve(displacement[:, i]) for step in self._integrate[i]] for i, solve in enumerate(self._solve)
        ]
        return np.asarray(np.einsum("ijc,ijpk->pck", _GRADIENT, np.array(gradient)))


def _pairs(first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Numbers (n, 2) of the pixels on both sides of every edge between two pixels of the mask."""
    inside = (first >= 0) & (second >= 0)
    return np.asarray(np.column_stack([first[inside], second[inside]]))


def _difference_and_mean(pairs: npt.NDArray[np.intp], n_pixels: int) -> tuple[sp.csr_array, sp.csr_array]:
    rows, shape = np.arange(len(pairs)), (len(pairs), n_pixels)
    first, second = (sp.csr_array((np.ones(len(pairs)), (rows, end)), shape=shape) for end in pairs.T)
    return second - first, (first + second) / 2


def _laplacian_solver(laplacian: sp.csr_array, component: Int) -> Callable[[Float], Float]:
    """Solver for right-hand sides (n, k) that leaves a zero mean on every component."""
    size = np.bincount(component)
    average = sp.csr_array((1 / size[component], (component, np.arange(len(component)))))
    anchors = np.unique(component, return_index=True)[1]
    free = np.setdiff1d(np.arange(len(component)), anchors)
    grounded = laplacian[free][:, free]

    large = len(component) > _DIRECT_PIXELS
    invert = partial(_multigrid, ruge_stuben_solver(grounded)) if large else factorise(grounded)

    def centred(values: Float) -> Float:
        return np.asarray(values - (average @ values)[component])

    def solve(load: Float) -> Float:
        solution = np.zeros_like(load)
        solution[free] = invert(centred(load)[free])
        return centred(solution)

    return solve


def _multigrid(hierarchy: MultilevelSolver, load: Float) -> Float:
    """Conjugate gradients preconditioned by algebraic multigrid, one column after the other."""
    tolerance, solution = 1e-10, np.empty_like(load)
    for column, right_hand_side in enumerate(load.T):
        residuals: list[float] = []
        solution[:, column] = hierarchy.solve(right_hand_side, tol=tolerance, accel="cg", residuals=residuals)
        if residuals[-1] > tolerance * max(residuals[0], np.finfo(float).tiny):
            raise ConvergenceError(
                "the displacement",
                iterations=len(residuals) - 1,
                residual=residuals[-1] / residuals[0],
                tolerance=tolerance,
            )
    return solution
