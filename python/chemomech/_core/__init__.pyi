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

#: Rows of the vectors below are padded to a multiple of this.
row_padding: int

class VoxelOperator:
    """The stiffness K of a body of trilinear bricks, without a matrix.

    Vectors are (3, X, Y, Z), component by component, on a box with a halo: owned nodes are 1 .. nodes along each axis,
    X and Y are two more, Z is padded to a multiple of ``row_padding``. The halo of an x is the caller's to fill (zeros,
    a periodic image, a neighbour's nodes); along z that of a result is of no use. No output may share memory with an
    input, but where that is said.

    Parameters
    ----------
    constants : (1, 9) or (2, 9) C11 C22 C33 C44 C55 C66 C12 C13 C23 of each material, GPa, axes of the grid.
    spacing : (3,) edges of a brick, nm.
    weights : (materials, X, Y, Z) of the cell between nodes (i, j, k) and (i + 1, j + 1, k + 1): its stiffness is the
        weighted sum of the materials'; 0 where there is no cell. Kept, not copied.

    Raises
    ------
    TypeError : a wrong dtype.
    ValueError : a shape that does not fit.
    """

    def __init__(
        self, constants: NDArray[np.float64], spacing: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None: ...
    def inverse_diagonal(self) -> NDArray[np.float64]:
        """(3, X, Y, Z); 0 at nodes without a cell and in the halo."""
    def multiply(self, x: NDArray[np.float64], out: NDArray[np.float64]) -> float:
        """out = K x; x . K x, where the halo of x along z is 0, the same to the bit for any number of threads."""
    def residual(self, b: NDArray[np.float64], x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """out = b - K x; ``out`` may be ``b``."""
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
        """direction <- alpha direction + beta D^-1 (b - K x), in place; out = x + direction.

        x may be None, which is zero; then alpha is not used.
        """

class VoxelOperator32:
    """`VoxelOperator` in single precision, for preconditioners."""

    def __init__(
        self, constants: NDArray[np.float64], spacing: NDArray[np.float64], weights: NDArray[np.float32]
    ) -> None: ...
    def inverse_diagonal(self) -> NDArray[np.float32]: ...
    def multiply(self, x: NDArray[np.float32], out: NDArray[np.float32]) -> float: ...
    def residual(self, b: NDArray[np.float32], x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
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

def restrict_to(
    factors: tuple[int, int, int],
    fine: NDArray[np.float32] | NDArray[np.float64],
    coarse: NDArray[np.float32] | NDArray[np.float64],
) -> None:
    """coarse = P^T fine, P trilinear interpolation between boxes as of `VoxelOperator`; factors 1 or 2 along each axis.

    Owned node P of the coarse box is node 2 P - 1 of the fine one along an axis of factor 2; the fine halo is filled.
    """

def add_prolonged(
    factors: tuple[int, int, int],
    coarse: NDArray[np.float32] | NDArray[np.float64],
    fine: NDArray[np.float32] | NDArray[np.float64],
) -> None:
    """fine += P coarse, see `restrict_to`."""

def eigenstrain_loads(
    stiffness: NDArray[np.float64],
    weights: NDArray[np.float64],
    spacing: NDArray[np.float64],
    eigenstrain: NDArray[np.float64],
    out: NDArray[np.float64],
) -> float:
    """Loads of an eigenstrain, the integral of B^T C eps0 in GPa nm^2, at all corners of the cells in ``out``.

    Parameters
    ----------
    stiffness : (materials, 6, 6) Voigt, engineering shears, orthorhombic, GPa.
    weights : as of `VoxelOperator`.
    eigenstrain : (nx, ny, nz, 6), engineering shears; not read where there is no cell.
    out : (3, X, Y, Z) with X >= nx + 3 and so on; all corners are overwritten.

    Returns
    -------
    the integral of eps0 : C eps0, GPa nm^3.
    """

def elastic_fields(
    stiffness: NDArray[np.float64],
    weights: NDArray[np.float64],
    spacing: NDArray[np.float64],
    eigenstrain: NDArray[np.float64],
    u: NDArray[np.float64],
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Elastic energy, elastic strain and stress of a displacement u (3, X, Y, Z), halo filled, see `eigenstrain_loads`.

    X >= nx + 2 and so on: the last corners may lie in the halo.

    Returns
    -------
    half the integral of strain : stress, GPa nm^3; mean strain of each cell less the eigenstrain (nx, ny, nz, 6);
    stress (nx, ny, nz, 6), GPa; NaN where there is no cell.
    """

class Trajectory:
    """A reaction as `integrate_reaction` computed it."""

    @property
    def n_steps(self) -> int: ...
    @property
    def n_evaluations(self) -> int: ...
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
        self,
        log_k_basis: NDArray[np.float64],
        initial_basis: NDArray[np.float64],
        control_basis: NDArray[np.float64],
        tolerance: float = 1e-4,
        threads: bool = True,
    ) -> NDArray[np.float64]:
        """Derivatives of the frames (n_frames, n_pixels, N + M + a + b + d) at fixed steps.

        The linear systems of a step are solved to `tolerance` of their right sides. With respect to the coefficients of
        mu (N) and ln j0 (M), then along the columns of log_k_basis (n_pixels, a), initial_basis (n_cells, b) and
        control_basis (n_knots, d). With `threads` they share the columns. At tolerances of 1e-5 and more numbers are of
        single precision where the recurrence of the steps lets that do. LinAlgError where the systems cannot be solved.
        """
    def adjoint(
        self, weights: NDArray[np.float64], tolerance: float = 1e-12
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Gradients of sum(weights * frames), weights (n_frames, n_pixels).

        With respect to mu (N,), ln j0 (M,), ln k (n_pixels,), the initial composition (n_cells,) and the control
        (n_knots,). LinAlgError where a linear system cannot be solved.
        """
    def adjoint_of_sensitivities(
        self,
        weights: NDArray[np.float64],
        log_k_basis: NDArray[np.float64],
        initial_basis: NDArray[np.float64],
        control_basis: NDArray[np.float64],
        tolerance: float = 1e-6,
    ) -> tuple[
        NDArray[np.float64],
        NDArray[np.float64],
        NDArray[np.float64],
        NDArray[np.float64],
        NDArray[np.float64],
        NDArray[np.float64],
    ]:
        """Gradients of sum(weights * sensitivities), weights (n_frames, n_pixels, a + b + d), at fixed steps.

        Of the sensitivities along the bases, not those along mu and ln j0. With respect to what `adjoint` says, bases
        held, and to initial_basis (n_cells, b). Precision and errors as of `sensitivities`; what a step changes enters
        divided by the step, hence the tighter tolerance.
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
    control_time: NDArray[np.float64],
    control: NDArray[np.float64],
    galvanostatic: bool,
    edge_time: NDArray[np.float64],
    edge: NDArray[np.float64],
    coherency: NDArray[np.float64],
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
    control_time, control : knots of the mean rate (h and 1/h), or of the potential (kT) where not `galvanostatic`.
    edge_time, edge : (n_knots,), (n_knots, n_cells) chemical potential from compositions held at the edge, kT.
    coherency : (n_pixels, rank); cells of the same size couple through coherency coherency^T between pixels' sums.
    """

class ConservationSystem:
    """One implicit step of Cahn and Hilliard's equation, linearised, on a box as of `VoxelOperator`.

    rate m x + (K_M + e) y = r_0 and m y - (h + K_k) x = r_1, with K sums over edges. Vectors are (2, X, Y, Z): x, then
    y.

    Parameters
    ----------
    mass, curvature, exchange : (X, Y, Z) m, h and e.
    mobility, gradient : (3, X, Y, Z) of the edge from a node to the next along each axis.

    All are kept, not copied: what is written into them later counts.
    """

    def __init__(
        self,
        mass: NDArray[np.float64],
        mobility: NDArray[np.float64],
        gradient: NDArray[np.float64],
        curvature: NDArray[np.float64],
        exchange: NDArray[np.float64],
    ) -> None: ...
    def factorise(self, rate: float) -> None:
        """Factorise every line along the second axis; comes before `smooth` whenever a coefficient has changed."""
    def smooth(self, right: NDArray[np.float64], parity: int, solution: NDArray[np.float64]) -> None:
        """Solve for the lines whose first and third index add up to an even (0) or odd (1) number, in place."""
    def residual(self, right: NDArray[np.float64], solution: NDArray[np.float64], out: NDArray[np.float64]) -> None:
        """out = right - A solution, of owned nodes."""

def spread(edges: NDArray[np.float64], u: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """out = K u at owned nodes, (K u)_i = sum of g_ij (u_i - u_j); edges (3, X, Y, Z), u and out (X, Y, Z)."""
