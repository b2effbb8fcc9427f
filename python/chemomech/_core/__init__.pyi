from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

class BuildInfo(TypedDict):
    simd: str
    levels: list[str]
    compiler: str
    openmp: bool
    threads: int

def build_info() -> BuildInfo:
    """The SIMD level loaded, the levels built, the compiler, and the OpenMP threads."""

class Pattern:
    """Which nodes of a mesh of straight-sided triangles couple, and where each element's blocks go.

    Blocks of a vertex and the midside opposite to it are exactly zero and are left out.

    Parameters
    ----------
    triangles : (n_triangles, 6) or (n_triangles, 3) int32, C-contiguous; copied, so that it stays what was checked.
    n_nodes : number of nodes.

    Raises
    ------
    TypeError : triangles is not int32.
    ValueError : another shape, or a node number outside [0, n_nodes).
    OverflowError : more blocks than 32-bit indices can count.
    """

    def __init__(self, triangles: NDArray[np.int32], n_nodes: int) -> None: ...
    @property
    def n_nodes(self) -> int: ...
    @property
    def n_triangles(self) -> int: ...
    @property
    def nodes_per_triangle(self) -> int: ...
    @property
    def n_blocks(self) -> int: ...
    @property
    def indptr(self) -> NDArray[np.int32]:
        """(n_nodes + 1,), read-only."""
    @property
    def indices(self) -> NDArray[np.int32]:
        """(n_blocks,), ascending in a row, read-only."""

def assemble_stiffness(
    pattern: Pattern,
    nodes: NDArray[np.float64],
    stiffness: NDArray[np.float64],
    out: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Stiffness matrix of plane elasticity: the (n_blocks, 2, 2) values of its block CSR form, GPa.

    ``scipy.sparse.bsr_matrix((values, pattern.indices, pattern.indptr))`` is the matrix; it is symmetric to the bit.

    Parameters
    ----------
    nodes : (n_nodes, 2), nm.
    stiffness : (3, 3) symmetric, plane stress, Voigt order xx, yy, xy with engineering shear, GPa.
    out : (n_blocks, 2, 2), overwritten and returned; saves the pages of a new array.

    Raises
    ------
    ValueError : a shape that does not fit, or a triangle without positive area (named).
    """

def stress_loads(
    pattern: Pattern,
    nodes: NDArray[np.float64],
    cells: NDArray[np.int32],
    stress: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Nodal loads (n_nodes, 2, k) of k stresses constant in a cell: the integral of B^T sigma, GPa nm.

    Parameters
    ----------
    cells : (n_triangles,) int32, the cell of each triangle.
    stress : (n_cells, 3, k), xx, yy, xy, GPa.
    """

def cell_distortions(
    pattern: Pattern,
    nodes: NDArray[np.float64],
    cells: NDArray[np.int32],
    n_cells: int,
    displacement: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean distortion (n_cells, 4, k) of each cell: du/dx, du/dy, dv/dx, dv/dy; NaN in a cell without triangles.

    Parameters
    ----------
    displacement : (n_nodes, 2, k), nm.
    """

class BlockMatrix:
    """A block CSR matrix K times vectors (n, size of a block, k) of k columns.

    ``values`` is kept, not copied; ``indptr`` and ``indices`` are copied and checked here, once. No output may share
    memory with an input, but where that is said.

    Parameters
    ----------
    indptr : (n_rows + 1,).
    indices : (n_blocks,) columns of the blocks.
    values : (n_blocks, r, c), blocks of 1 x 1, 2 x 2, 2 x 3, 3 x 2 or 3 x 3.
    n_columns : number of block columns.

    Raises
    ------
    TypeError : a wrong dtype.
    ValueError : a shape that does not fit, or a graph that is none.
    """

    def __init__(
        self, indptr: NDArray[np.int32], indices: NDArray[np.int32], values: NDArray[np.float64], n_columns: int
    ) -> None: ...
    def multiply(self, x: NDArray[np.float64], out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """K x, (n_rows, r, k), of x (n_columns, c, k)."""
    def add_product(
        self, b: NDArray[np.float64], sign: float, x: NDArray[np.float64], out: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """b + sign K x, (n_rows, r, k); ``out`` may be ``b``."""
    def smooth(
        self,
        inverse_diagonal: NDArray[np.float64],
        b: NDArray[np.float64],
        x: NDArray[np.float64] | None,
        direction: NDArray[np.float64],
        alpha: float,
        beta: float,
        out: NDArray[np.float64],
    ) -> None:
        """One step of a Chebyshev or (alpha = 0) damped block Jacobi smoother in one pass over K.

        direction <- alpha direction + beta D^-1 (b - K x), in place; out = x + direction.

        Parameters
        ----------
        inverse_diagonal : (n_rows, r, r), D^-1.
        b, x, direction, out : (n_rows, r, k). x may be None, which is zero; then alpha is not used.
        """

class BlockMatrix32:
    """`BlockMatrix` in single precision, for preconditioners."""

    def __init__(
        self, indptr: NDArray[np.int32], indices: NDArray[np.int32], values: NDArray[np.float32], n_columns: int
    ) -> None: ...
    def multiply(self, x: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]: ...
    def add_product(
        self, b: NDArray[np.float32], sign: float, x: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]: ...
    def smooth(
        self,
        inverse_diagonal: NDArray[np.float32],
        b: NDArray[np.float32],
        x: NDArray[np.float32] | None,
        direction: NDArray[np.float32],
        alpha: float,
        beta: float,
        out: NDArray[np.float32],
    ) -> None: ...

def combine(
    a: NDArray[np.float64],
    x: NDArray[np.float64] | NDArray[np.float32],
    b: NDArray[np.float64],
    y: NDArray[np.float64],
) -> None:
    """y <- a x + b y, in place and column by column, for x, y (n, k) and a, b (k,)."""

def dot(x: NDArray[np.float64], y: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums (k,) over rows of x y, both (n, k); the same to the bit for any number of threads."""

def solve_sextic(
    stiffness: NDArray[np.float64], burgers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Displacement gradient of a straight dislocation along axis 3, and Barnett and Lothe's matrix.

    r du_i/dr = radial[i] and du_i/dphi = sum_k hoop[i, k] x^(6-k) y^k / sum_k denominator[k] x^(6-k) y^k.

    Parameters
    ----------
    stiffness : (6, 6) Voigt, engineering shears, positive definite, in the frame of the line, GPa.
    burgers : (3,) in that frame, nm.

    Returns
    -------
    radial (3,) nm, hoop (3, 7) nm, denominator (7,), and [[S, H], [-L, S^T]] (6, 6) with L in GPa.
    """

def distort_lines(
    radial: NDArray[np.float64],
    hoop: NDArray[np.float64],
    denominator: NDArray[np.float64],
    points: NDArray[np.float64],
    lines: NDArray[np.float64],
    signs: NDArray[np.float64],
    core: float,
) -> NDArray[np.float64]:
    """du_i/dx_j (n, c, 2) at points (n, 2), summed over lines (m, 2) with signs (m,).

    Each line's field is multiplied by r^2 / (r^2 + core^2).

    Parameters
    ----------
    radial, hoop, denominator : (c,), (c, 7) and (7,) of `solve_sextic`; the first two components of u, or all three.
    """

def displace_lines(
    radial: NDArray[np.float64],
    burgers: NDArray[np.float64],
    series: NDArray[np.float64],
    points: NDArray[np.float64],
    lines: NDArray[np.float64],
    signs: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Displacement (n, 3) at points (n, 2), summed over lines (m, 2) with signs (m,).

    2 pi u = radial ln r + burgers phi + sum_k series[k, :, 0] cos 2(k+1)phi + series[k, :, 1] sin 2(k+1)phi,
    phi in (-pi, pi].

    Parameters
    ----------
    radial, burgers : (3,) nm.
    series : (K, 3, 2) nm.
    """

class VoxelBody:
    """Elasticity of a box of voxels without a matrix; displacements are (3, nx + 1, ny + 1, nz + 1).

    Parameters
    ----------
    constants : c11, c22, c33, c44, c55, c66, c12, c13, c23, GPa, in the axes of the grid.
    spacing : edges of a cell, nm.
    weight : (nx, ny, nz) 1 where there is a cell, 0 where not.
    free : (3, nx + 1, ny + 1, nz + 1) 0 where a displacement is held.

    Attributes
    ----------
    inverse_diagonal : of the matrix; 0 where a displacement is held or has no element.
    """

    inverse_diagonal: NDArray[np.float64]
    def __init__(
        self,
        constants: Sequence[float],
        spacing: Sequence[float] | NDArray[np.float64],
        weight: NDArray[np.float32],
        free: NDArray[np.uint8],
    ) -> None: ...
    def multiply(self, x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """out = K x, 0 where nothing moves; x must be 0 there."""

    def residual(self, b: NDArray[np.float64], x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """out = b - K x, with the same rule."""

    def smooth(
        self,
        b: NDArray[np.float64],
        x: NDArray[np.float64],
        direction: NDArray[np.float64],
        alpha: float,
        beta: float,
        spare: NDArray[np.float64],
    ) -> None:
        """direction <- alpha direction + beta D^-1 (b - K x), x <- x + direction; `spare` is overwritten."""

    def smooth_from_zero(
        self, b: NDArray[np.float64], x: NDArray[np.float64], direction: NDArray[np.float64], beta: float
    ) -> None:
        """x = direction = beta D^-1 b, the first step from x = 0."""

class VoxelBody32:
    """`VoxelBody` in single precision."""

    inverse_diagonal: NDArray[np.float32]
    def __init__(
        self,
        constants: Sequence[float],
        spacing: Sequence[float] | NDArray[np.float64],
        weight: NDArray[np.float32],
        free: NDArray[np.uint8],
    ) -> None: ...
    def multiply(self, x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
    def residual(self, b: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
    def smooth(
        self,
        b: NDArray[np.float32],
        x: NDArray[np.float32],
        direction: NDArray[np.float32],
        alpha: float,
        beta: float,
        spare: NDArray[np.float32],
    ) -> None: ...
    def smooth_from_zero(
        self, b: NDArray[np.float32], x: NDArray[np.float32], direction: NDArray[np.float32], beta: float
    ) -> None: ...

class PorousBody32:
    """`VoxelBody32` of cells that are partly solid: `moment` (27, nx, ny, nz) from `voxel_coarsen`."""

    inverse_diagonal: NDArray[np.float32]
    def __init__(
        self,
        constants: Sequence[float],
        spacing: Sequence[float] | NDArray[np.float64],
        moment: NDArray[np.float32],
        free: NDArray[np.uint8],
    ) -> None: ...
    def multiply(self, x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
    def residual(self, b: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
    def smooth(
        self,
        b: NDArray[np.float32],
        x: NDArray[np.float32],
        direction: NDArray[np.float32],
        alpha: float,
        beta: float,
        spare: NDArray[np.float32],
    ) -> None: ...
    def smooth_from_zero(
        self, b: NDArray[np.float32], x: NDArray[np.float32], direction: NDArray[np.float32], beta: float
    ) -> None: ...

def voxel_stress_loads(stress: NDArray[np.float64], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loads (3, nx + 1, ny + 1, nz + 1) of mean stresses (6, nx, ny, nz), Voigt order."""

def voxel_strain(displacement: NDArray[np.float64], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean strains (6, nx, ny, nz), engineering shears, of displacements (3, nx + 1, ny + 1, nz + 1)."""

def voxel_coarsen(fine: NDArray[np.float32], doubled: Sequence[bool]) -> NDArray[np.float32]:
    """Moments (27, ...) of the solid in cells twice as long along the `doubled` axes.

    Means over a cell, 9 px + 3 py + pz, of xi^px eta^py zeta^pz over its solid part, -1 <= xi, eta, zeta <= 1.

    Parameters
    ----------
    fine : voxels (nx, ny, nz) of weight 1 or 0, or moments (27, nx, ny, nz).
    """

def voxel_add_interpolation(coarse: NDArray[np.float32], doubled: Sequence[bool], fine: NDArray[np.float32]) -> None:
    """fine += trilinear interpolation of displacements on a grid coarser by 2 along the `doubled` axes."""

def voxel_restrict(fine: NDArray[np.float32], doubled: Sequence[bool], coarse: NDArray[np.float32]) -> None:
    """coarse = transpose of the interpolation, applied to `fine`."""

class Trajectory:
    """A reaction as `integrate_reaction` computed it."""

    @property
    def n_steps(self) -> int: ...
    @property
    def n_evaluations(self) -> int: ...
    @property
    def n_factorisations(self) -> int: ...
    @property
    def n_rejected(self) -> int: ...
    @property
    def orders(self) -> NDArray[np.int32]:
        """(n_steps,), of the backward differentiation formula."""
    @property
    def time(self) -> NDArray[np.float64]:
        """(n_steps + 1,), h."""
    @property
    def potential(self) -> NDArray[np.float64]:
        """(n_steps + 1,), kT."""
    @property
    def states(self) -> NDArray[np.float64]:
        """(n_steps + 1, n_cells)."""
    def frames(self) -> NDArray[np.float64]:
        """(n_frames, n_pixels), pixel means; fewer frames than asked for where the steps became too small."""
    def sensitivities(
        self, log_k_basis: NDArray[np.float64], initial_basis: NDArray[np.float64], threads: bool = True
    ) -> NDArray[np.float64]:
        """Derivatives of the frames (n_frames, n_pixels, N + M + a + b) at fixed steps.

        With respect to the coefficients of mu (N) and ln j0 (M), then along the columns of log_k_basis (n_pixels, a)
        and initial_basis (n_cells, b). With `threads` they share the columns.
        """
    def adjoint(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Gradients of sum(weights * frames), weights (n_frames, n_pixels).

        With respect to mu (N,), ln j0 (M,), ln k (n_pixels,) and the initial composition (n_cells,).
        """

def integrate_reaction(
    pixel: NDArray[np.int32],
    n_pixels: int,
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    values: NDArray[np.float64],
    mu: NDArray[np.float64],
    log_j0: NDArray[np.float64],
    log_k: NDArray[np.float64],
    alpha: float,
    rate_time: NDArray[np.float64],
    rate: NDArray[np.float64],
    initial: NDArray[np.float64],
    frame_time: NDArray[np.float64],
    tolerance: float,
    most_steps: int,
    derivatives: bool,
) -> Trajectory:
    """Reaction of one particle by variable-step, variable-order BDF; see `chemomech.phasefield.reaction.react`.

    Parameters
    ----------
    pixel : (n_cells,), the pixel of each cell.
    indptr, indices, values : symmetric CSR matrix of -kappa laplacian / (c_s kT); its bandwidth sets the cost.
    mu, log_j0 : Legendre coefficients; log_k : (n_pixels,).
    rate_time, rate : knots of the mean rate, h and 1/h.
    """
