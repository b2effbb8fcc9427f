"""Allen-Cahn reaction of a particle at a prescribed mean rate or potential, pixel by pixel.

    dc/dt = k(x, y) j0(c) [exp(-alpha e) - exp((1 - alpha) e)],   e = mu + potential,
    mu = mu_h(c) - kappa laplacian(c) / (c_s kT) + mu_el

(Zhao et al. 2023, eq. 1 and 2; energies in kT). Where the mean rate is prescribed the potential gives it: for
alpha = 1/2 in closed form, otherwise by one scalar Newton iteration. Through the edge of the particle either the
gradient of c is zero, or c is held there. The elastic term mu_el is that of `phasefield.planar_coherency`.

Pixels are cut into square cells fine enough for the interface between the phases, and compositions are averaged back
over pixels as the detector does. The Laplacian is of sixth order: along rows and columns it is
-(L + L^2 / 12 + L^3 / 90) / h^2 with L the negative second differences of the cells inside, reflected at the edge.
Cells of the size of a sharp moving front hold it back, far less so at sixth order than at second. Time stepping and
derivatives are those of cpp/kinetics/trajectory.hpp.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.polynomial import legendre

from chemomech import _core
from chemomech.arrays import Bool, Float, Int32, require_shape
from chemomech.errors import ConvergenceError, InputError

#: Largest cell in units of sqrt(kappa / (c_s kT)), the scale of the interface.
LARGEST_CELL = 0.6
_LEAST_REFINEMENT = 2


@dataclass(frozen=True, eq=False)
class ReactionLaw:
    """What a material does at a composition.

    mu_h(c) = ln(c / (1 - c)) + sum_n mu[n] L_n(2c - 1) in kT, and ln j0(c) = sum_n log_j0[n] L_n(2c - 1), j0 in 1/h.

    Attributes
    ----------
    mu, log_j0 : (N + 1,), (M + 1,) coefficients of L_0, L_1, ...
    alpha : symmetry factor.

    >>> ReactionLaw(np.array([0.0, -4.0]), np.zeros(1)).chemical_potential(np.array([0.5])).tolist()
    [0.0]
    """

    mu: Float
    log_j0: Float
    alpha: float = 0.5

    def chemical_potential(self, c: Float) -> Float:
        """Homogeneous chemical potential mu_h, kT."""
        return np.asarray(np.log(c / (1 - c)) + legendre.legval(2 * c - 1, self.mu))

    def exchange_current(self, c: Float) -> Float:
        """Exchange current j0, 1/h."""
        return np.asarray(np.exp(legendre.legval(2 * c - 1, self.log_j0)))


@dataclass(frozen=True, eq=False)
class MeanRate:
    """Mean rate of a particle, linear between knots.

    Attributes
    ----------
    time_h : (n,), increasing.
    rate_per_h : (n,).
    """

    time_h: Float
    rate_per_h: Float

    def change(self, start_h: float, time_h: Float) -> Float:
        """Change of the mean composition from `start_h` to each time inside the knots."""
        moments = np.union1d(np.append(time_h, start_h), self.time_h)
        rate = np.interp(moments, self.time_h, self.rate_per_h)
        total = np.concatenate([[0.0], np.cumsum(np.diff(moments) * (rate[1:] + rate[:-1]) / 2)])
        return np.asarray(np.interp(time_h, moments, total) - np.interp(start_h, moments, total))


@dataclass(frozen=True, eq=False)
class HeldPotential:
    """Potential of a particle, linear between knots: that of the electrons less that of lithium ions, e / kT times.

    Attributes
    ----------
    time_h : (n,), increasing.
    potential_kT : (n,).
    """

    time_h: Float
    potential_kT: Float


@dataclass(frozen=True, eq=False)
class HeldEdge:
    """Compositions at the edge of a particle, linear between knots.

    Attributes
    ----------
    time_h : (n,), increasing.
    composition : (n, n_pixels); an edge has that of its pixel, pixels inside are not read.
    """

    time_h: Float
    composition: Float


@dataclass(frozen=True, eq=False)
class CellMesh:
    """A particle's pixels cut into `refinement`^2 square cells each.

    Cells are numbered along the shorter side of the image, which keeps the band of the matrices narrow.

    Attributes
    ----------
    mask : (ny, nx) bool.
    cell_nm : edge of a cell.
    pixel : (n_cells,) pixel of a cell, in the order of mask.
    stiffness : (n_cells, n_cells) sparse, -h^2 laplacian without flux through the edge, or of zero at a held edge.
    edge : (n_cells, n_pixels) sparse, what compositions held at the edges of the pixels add to it; None without flux.
    position_px : (n_cells, 2) row and column of the centre in pixels, the centre of a pixel at whole numbers.
    """

    mask: Bool
    refinement: int
    cell_nm: float
    pixel: Int32
    stiffness: sp.csr_array
    edge: sp.csr_array | None
    position_px: Float

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.pixel)

    @cached_property
    def pixel_position_px(self) -> Float:
        """(n_pixels, 2) row and column of the pixels."""
        return np.argwhere(self.mask).astype(np.float64)


def cells_along_a_pixel(pixel_size_nm: float, gradient_nm2: float, largest: float) -> int:
    """Fewest that are no longer than `largest` sqrt(kappa / (c_s kT)), two at least."""
    return max(_LEAST_REFINEMENT, int(np.ceil(pixel_size_nm / (largest * np.sqrt(gradient_nm2)))))


def cell_mesh(
    mask: Bool, pixel_size_nm: float, gradient_nm2: float, refinement: int | None = None, *, held_edge: bool = False
) -> CellMesh:
    """Cut the pixels of a mask into cells; by default half a pixel or as small as the interface asks for.

    Parameters
    ----------
    gradient_nm2 : kappa / (c_s kT).
    refinement : cells along the edge of a pixel.
    held_edge : compositions are held at the edge, at second order; otherwise no flux crosses it.
    """
    require_shape(mask, "mask", (None, None))
    if refinement is None:
        refinement = cells_along_a_pixel(pixel_size_nm, gradient_nm2, LARGEST_CELL)
    fine = mask.repeat(refinement, 0).repeat(refinement, 1)
    numbers = np.full(mask.shape, -1, dtype=np.int32)
    numbers[mask] = np.arange(mask.sum(), dtype=np.int32)
    cells = np.argwhere(fine) if mask.shape[0] > mask.shape[1] else np.argwhere(fine.T)[:, ::-1]
    row, column = cells.T
    index = np.full((fine.shape[0] + 2, fine.shape[1] + 2), -1, dtype=np.int32)
    index[row + 1, column + 1] = np.arange(len(cells), dtype=np.int32)
    n = len(cells)
    pixel = numbers[row // refinement, column // refinement]
    stiffness, held = sp.csr_array((n, n)), sp.csr_array((n, n))
    for dy, dx in ((1, 0), (0, 1)):
        following = index[row + 1 + dy, column + 1 + dx]
        first = np.flatnonzero(following >= 0)
        second = following[first]
        ones = np.ones(len(first))
        both = (np.concatenate([first, second]), np.concatenate([second, first]))
        coupled = sp.csr_array((np.concatenate([ones, ones]), both), shape=(n, n))
        neighbours = coupled.sum(axis=1)
        differences = sp.diags_array(neighbours) - coupled
        # Half a cell beyond the last centre: reflected there, c less the held composition changes its sign.
        beyond = sp.diags_array(2.0 * (2 - neighbours) * held_edge)
        differences = sp.csr_array(differences + beyond)
        twice = differences @ differences
        stiffness = stiffness + differences + twice / 12 + twice @ differences / 90
        held = held - beyond - differences @ beyond / 12 - twice @ beyond / 90
    over_pixels = sp.csr_array((np.ones(n), (np.arange(n), pixel)), shape=(n, int(mask.sum())))
    return CellMesh(
        mask=mask,
        refinement=refinement,
        cell_nm=pixel_size_nm / refinement,
        pixel=pixel,
        stiffness=stiffness,
        edge=sp.csr_array(held @ over_pixels) if held_edge else None,
        position_px=(cells + 0.5) / refinement - 0.5,
    )


def react(
    mesh: CellMesh,
    law: ReactionLaw,
    log_k: Float,
    initial: Float,
    time_h: Float,
    control: MeanRate | HeldPotential,
    *,
    gradient_nm2: float,
    edge: HeldEdge | None = None,
    coherency: Float | None = None,
    tolerance: float = 1e-5,
    most_steps: int = 100_000,
    derivatives: bool = False,
) -> _core.Trajectory:
    """Composition of a particle from `time_h[0]` on; `frames()` of the result are the pixel means at `time_h`.

    Parameters
    ----------
    log_k : (n_pixels,) ln of the local rate constant.
    initial : (n_cells,) composition at the first time, inside (0, 1).
    time_h : (n_t,) increasing.
    control : what is prescribed.
    gradient_nm2 : kappa / (c_s kT).
    edge : compositions at the edge, of a mesh that holds them.
    coherency : (n_pixels, rank), from `coherency_modes`; None without elastic energy.
    tolerance : local error of the composition that a time step may make: RMS, or 30 times that in a single cell.
    most_steps : time steps tried before giving up.
    derivatives : keep the matrices of the steps, which `sensitivities` and the adjoints of the result need.

    Raises
    ------
    InputError : shapes that do not fit, or an initial composition outside (0, 1).
    ConvergenceError : the time step became too small, or there were too many.
    """
    require_shape(log_k, "log_k", (int(mesh.mask.sum()),))
    require_shape(initial, "initial", (mesh.n_cells,))
    if not ((initial > 0) & (initial < 1)).all():
        raise InputError(f"initial must lie inside (0, 1), got {initial.min():.3g}..{initial.max():.3g}")
    stiffness, scale = mesh.stiffness, gradient_nm2 / mesh.cell_nm**2
    edge_time, edge_mu = np.zeros(0), np.zeros((0, mesh.n_cells))
    if (edge is None) != (mesh.edge is None):
        raise InputError(
            "compositions are held at the edge by a mesh with held_edge and an edge to react, or by neither"
        )
    if edge is not None and mesh.edge is not None:
        require_shape(edge.composition, "edge.composition", (len(edge.time_h), len(log_k)))
        edge_time, edge_mu = edge.time_h, scale * (mesh.edge @ edge.composition.T).T
    # Cells share the mean and the stress of their pixel.
    modes = np.zeros((len(log_k), 0)) if coherency is None else coherency / mesh.refinement
    trajectory = _core.integrate_reaction(
        mesh.pixel,
        len(log_k),
        stiffness.indptr.astype(np.int32),
        stiffness.indices.astype(np.int32),
        scale * stiffness.data,
        law.mu,
        law.log_j0,
        np.ascontiguousarray(log_k),
        law.alpha,
        control.time_h,
        control.rate_per_h if isinstance(control, MeanRate) else control.potential_kT,
        isinstance(control, MeanRate),
        edge_time,
        np.ascontiguousarray(edge_mu),
        np.ascontiguousarray(modes),
        np.ascontiguousarray(initial),
        np.ascontiguousarray(time_h),
        tolerance,
        most_steps,
        derivatives,
    )
    if trajectory.time[-1] < time_h[-1]:
        raise ConvergenceError(
            f"the reaction from {time_h[0]:g} to {time_h[-1]:g} h",
            iterations=trajectory.n_steps,
            residual=float((time_h[-1] - trajectory.time[-1]) / (time_h[-1] - time_h[0])),
            tolerance=tolerance,
        )
    return trajectory
