"""Elastic equilibrium of a body of voxels under an eigenstrain.

Every voxel that exists is a trilinear brick; one that does not is absent, not soft, and nodes without a brick drop out.
The displacement minimises the elastic energy 1/2 int (eps - eps0) : C : (eps - eps0) (Deng SI, eq. 3.4), which is
K u = f with K = int B^T C B and f = int B^T C eps0. The crystal axes a, b, c are those of the grid.

A free body keeps its shape under the rigid motions of each of its pieces; they store no energy, do no work against an
eigenstrain, and are taken out of the displacement. Voxels that share no more than an edge or a corner are joined by a
hinge there, which turns without energy too: energy, strain and stress stay unique, the displacement is one of many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from chemomech import _core
from chemomech.arrays import Bool, Float, Int32, require_shape
from chemomech.errors import InputError
from chemomech.mechanics.box import Box
from chemomech.mechanics.voxel_multigrid import Multigrid


@dataclass(frozen=True)
class Equilibrium:
    """A body of voxels in elastic equilibrium.

    Attributes
    ----------
    elastic_energy_aJ : of elastic_strain, 1 aJ = 1 GPa nm^3. The strain of a brick also varies inside it, by what a
        constant eigenstrain and a trilinear displacement fail to match; without that the energy converges sooner.
    minimum_aJ : the least value of the discrete energy, that variation included. Its derivative with respect to an
        eigenstrain is exactly minus the stress times the volume of a voxel, so a descent in composition follows it.
    displacement_nm : (nx+1, ny+1, nz+1, 3), without rigid motion; NaN where there is no voxel.
    elastic_strain : (nx, ny, nz, 6) mean strain of a voxel less its eigenstrain, Voigt order aa, bb, cc, bc, ac, ab
        with engineering shears; NaN where there is no voxel.
    stress_GPa : (nx, ny, nz, 6), likewise.
    iterations : of the conjugate gradients.
    """

    elastic_energy_aJ: float
    minimum_aJ: float
    displacement_nm: Float
    elastic_strain: Float
    stress_GPa: Float
    iterations: int


class VoxelBody:
    """An elastic body of voxels, set up once for many eigenstrains.

    Parameters
    ----------
    solid : (nx, ny, nz) which voxels exist, axes a, b, c.
    spacing_nm : (3,) edges of a voxel.
    stiffness_GPa : (6, 6) Voigt with engineering shears, orthorhombic; or (2, 6, 6) of two materials that are mixed.
    share : (nx, ny, nz) of the second material in each voxel, 0 to 1, where there are two.
    held : (nx+1, ny+1, nz+1, 3) which displacements are 0; none by default, a free body.
    periodic : axes along which the body repeats itself, with a mean strain of 0.
    box : of a body that many processes share, this one's part (`parallel.grid`). All arrays then are of its cells and
        their corners, energies and iterations those of the whole, and all processes call together.

    Attributes
    ----------
    pieces : (nx, ny, nz) int32, the number of the piece a voxel belongs to, from 1; 0 where there is none. Voxels that
        touch in a face, an edge or a corner are of one piece.
    n_pieces : how many there are.

    Raises
    ------
    InputError : a shape that does not fit, no voxel, a spacing that is not positive, a stiffness that is not symmetric,
        positive definite and orthorhombic, a share outside 0 to 1.
    """

    def __init__(
        self,
        solid: Bool,
        spacing_nm: Sequence[float] | Float,
        stiffness_GPa: Float,
        *,
        share: Float | None = None,
        held: Bool | None = None,
        periodic: tuple[bool, bool, bool] = (False, False, False),
        box: Box | None = None,
    ) -> None:
        solid = np.asarray(solid)
        require_shape(solid, "solid", (None, None, None))
        if solid.dtype != bool:
            raise InputError(f"solid must be an array of bool, got {solid.dtype}")
        nx, ny, nz = solid.shape
        self._box = box = Box((nx, ny, nz), periodic) if box is None else box
        require_shape(solid, "solid", box.cells)
        if not box.sum(int(solid.sum())):
            raise InputError(f"solid of shape {box.whole.cells} has no voxel; a body needs one or more")
        spacing = np.asarray(spacing_nm, dtype=float)
        require_shape(spacing, "spacing_nm", (3,))
        if not (np.isfinite(spacing).all() and spacing.min() > 0):
            raise InputError(f"spacing_nm must be three positive lengths, got {spacing.tolist()}")
        materials = np.asarray(stiffness_GPa, dtype=float)
        if materials.ndim == 2:
            materials = materials[None]
        if materials.shape not in ((1, 6, 6), (2, 6, 6)):
            raise InputError(f"stiffness_GPa must have shape (6, 6) or (2, 6, 6), got {np.shape(stiffness_GPa)}")
        self.solid, self.spacing_nm, self.stiffness_GPa, self.periodic = solid, spacing, materials, box.periodic
        self._constants = np.array([_orthorhombic_constants(material) for material in materials])
        self._held = None
        if held is not None:
            require_shape(held, "held", (nx + 1, ny + 1, nz + 1, 3))
            self._held = _at_owned(np.asarray(held, dtype=bool), box)
        self.pieces, self.n_pieces = box.label(solid, np.ones((3, 3, 3)))
        self._rigid = _RigidMotions(box, self.pieces, self.n_pieces, spacing, self._held)
        self.mix(share)

    def count_hinges(self) -> int:
        """How many more pieces there would be if voxels that share no face were not joined; all boxes call together."""
        return self._box.label(self.solid, None)[1] - self.n_pieces

    def mix(self, share: Float | None) -> None:
        """Give every voxel a new share (nx, ny, nz) of the second material; None where there is one material."""
        weights = self.solid[None].astype(float)
        if (share is None) != (len(self.stiffness_GPa) == 1):
            raise InputError("share goes with two stiffnesses: give both or neither")
        if share is not None:
            require_shape(share, "share", self.solid.shape)
            inside = share[self.solid]
            if inside.size and not (inside.min() >= 0 and inside.max() <= 1):
                raise InputError(f"share must lie between 0 and 1, got {inside.min():g} to {inside.max():g}")
            second = np.where(self.solid, share, 0.0)
            weights = np.stack([weights[0] - second, second])
        self._multigrid = Multigrid(self._box, self.spacing_nm, self._constants, weights, self._held)

    def equilibrium(self, eigenstrain: Float, *, rtol: float = 1e-8, start: Float | None = None) -> Equilibrium:
        """Equilibrium under a stress-free strain (nx, ny, nz, 6), Voigt with engineering shears.

        Parameters
        ----------
        rtol : residual force over the force of the eigenstrain, both as root sums of squares over nodes.
        start : (nx+1, ny+1, nz+1, 3) nm, a displacement near the answer, as of the step before; NaN counts as 0.

        Raises
        ------
        InputError : a shape that does not fit, an eigenstrain that is not finite in a voxel, an rtol outside (0, 1).
        ConvergenceError : `rtol` is not reached.
        """
        eigenstrain = np.ascontiguousarray(eigenstrain, dtype=float)
        require_shape(eigenstrain, "eigenstrain", (*self.solid.shape, 6))
        bad = self.solid & ~np.isfinite(eigenstrain).all(axis=-1)
        if bad.any():
            i, j, k = np.argwhere(bad)[0].tolist()
            raise InputError(f"eigenstrain is not finite in {bad.sum()} voxels, first at ({i}, {j}, {k})")
        if not 0 < rtol < 1:
            raise InputError(f"rtol must lie between 0 and 1, got {rtol}")
        multigrid, box = self._multigrid, self._box
        solution = box.vector(np.float64)
        load, work = self._loads(eigenstrain)
        if start is not None:
            self._read(start, solution)
        iterations, residual = multigrid.solve(load, solution, rtol, work)
        minimum = work / 2 - box.sum(float(np.vdot(solution, load + residual))) / 2
        self._rigid.remove(solution[:, *box.owned])
        box.fill_halo(solution)
        cells = (self.stiffness_GPa, multigrid.weights, self.spacing_nm)
        energy, strain, stress = _core.elastic_fields(*cells, eigenstrain, solution)
        return Equilibrium(box.sum(energy), minimum, self._write(solution), strain, stress, iterations)

    def _loads(self, eigenstrain: Float) -> tuple[Float, float]:
        """Loads of an eigenstrain, and its work on itself: each cell gives to all its corners, whoever owns them."""
        box = self._box
        corners = Box(box.cells, (False, False, False))
        of_corners, weights = corners.vector(np.float64), self._multigrid.weights
        if corners.shape != box.shape or any(box.shared):
            weights = corners.weights(weights[:, *(slice(1, n + 1) for n in box.cells)], np.float64)
        cells = (self.stiffness_GPa, weights, self.spacing_nm)
        work = _core.eigenstrain_loads(*cells, eigenstrain, of_corners)
        load = box.vector(np.float64)
        inside = tuple(slice(min(n, m)) for n, m in zip(box.shape, corners.shape, strict=True))
        load[:, *inside] = of_corners[:, *inside]
        box.add_halo(load)
        return load, box.sum(work)

    def _read(self, displacement: Float, vector: Float) -> None:
        nx, ny, nz = self.solid.shape
        require_shape(displacement, "start", (nx + 1, ny + 1, nz + 1, 3))
        owned = displacement[tuple(slice(n) for n in self._box.nodes)]
        vector[:, *self._box.owned] = np.nan_to_num(np.moveaxis(owned, -1, 0))
        if self._held is not None:
            vector[:, *self._box.owned][self._held] = 0.0

    def _write(self, vector: Float) -> Float:
        nx, ny, nz = self.solid.shape
        corners = slice(1, nx + 2), slice(1, ny + 2), slice(1, nz + 2)
        displacement = np.empty((nx + 1, ny + 1, nz + 1, 3))
        np.copyto(displacement, np.moveaxis(vector[:, *corners], 0, -1))
        displacement[self._box.weights(self._rigid.node_piece[None], np.int32)[0, *corners] == 0] = np.nan
        return displacement


def equilibrium(
    solid: Bool, spacing_nm: Sequence[float] | Float, stiffness_GPa: Float, eigenstrain: Float, rtol: float = 1e-8
) -> Equilibrium:
    """Equilibrium of a free body of voxels under an eigenstrain.

    Parameters
    ----------
    solid : (nx, ny, nz) bool, which voxels exist, axes a, b, c.
    spacing_nm : (3,) edges of a voxel.
    stiffness_GPa : (6, 6) Voigt with engineering shears, orthorhombic.
    eigenstrain : (nx, ny, nz, 6) stress-free strain of each voxel, order aa, bb, cc, bc, ac, ab, engineering shears.
    rtol : residual force over the force of the eigenstrain.

    Raises
    ------
    InputError : see `VoxelBody` and its method `equilibrium`.
    ConvergenceError : `rtol` is not reached.

    >>> strain = np.zeros((4, 4, 4, 6))
    >>> strain[2:, ..., 0] = 0.05
    >>> round(equilibrium(np.ones((4, 4, 4), bool), (1, 1, 1), OLIVINE, strain).elastic_energy_aJ, 4)
    """
    return VoxelBody(solid, spacing_nm, stiffness_GPa).equilibrium(eigenstrain, rtol=rtol)


def depth_average(field: Float, solid: Bool, axis: int = 1) -> Float:
    """Mean over the voxels along an axis, b by default, of a field (nx, ny, nz, ...); NaN where there is none.

    What a projection shows of a strain or a composition (Deng SI, Fig. S8).
    """
    shape = solid.shape + (1,) * (field.ndim - 3)
    total = np.where(solid.reshape(shape), field, 0.0).sum(axis=axis)
    count = solid.sum(axis=axis).reshape(total.shape[:2] + (1,) * (field.ndim - 3))
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def void_surface(solid: Bool, box: Box) -> Bool:
    """Voxels (nx, ny, nz) of a box that share a face with a void: an absent voxel that the outside does not reach."""
    absent, n_absent = box.label(~solid, None)
    reached = np.zeros(n_absent + 1, dtype=np.intp)
    for axis in range(3):
        along = np.moveaxis(absent, axis, 0)
        ends = [(box.start[axis] == 0, along[0]), (box.window[axis].stop == box.whole.cells[axis], along[-1])]
        for at_the_end, labels in ends:
            if at_the_end and not box.periodic[axis]:
                reached[labels.ravel()] = 1
    void = (absent > 0) & (box.sum(reached) == 0)[absent]
    around = ndimage.binary_dilation(box.weights(void[None], np.float32)[0] > 0)
    return np.asarray(solid & around[tuple(slice(1, n + 1) for n in solid.shape)])


class _RigidMotions:
    """The translations and rotations that each piece of a body is free to make.

    Attributes
    ----------
    node_piece : (nodes...) int32, the piece a node belongs to, from 1; 0 where there is no voxel.
    """

    def __init__(self, box: Box, pieces: Int32, n_pieces: int, spacing: Float, held: Bool | None) -> None:
        padded = box.weights(pieces[None], np.int32)[0]
        around = [
            padded[tuple(slice(c, c + n) for c, n in zip(corner, box.nodes, strict=True))]
            for corner in product((0, 1), repeat=3)
        ]
        self._box = box
        self.node_piece = np.maximum.reduce(around)
        turns = [not (box.periodic[axis - 1] or box.periodic[axis - 2]) for axis in range(3)]
        allowed = np.flatnonzero([True, True, True, *turns])
        places = [(start + np.arange(n)) * h for start, n, h in zip(box.start, box.nodes, spacing, strict=True)]
        where = [place for place in enumerate(ndimage.find_objects(self.node_piece)) if place[1]]
        count = np.zeros((n_pieces, 4))
        for number, at in where:
            nodes = self.node_piece[at] == number + 1
            along = [place[part] for place, part in zip(places, at, strict=True)]
            sums = (nodes.sum(axis=axes) @ x for axes, x in zip(((1, 2), (0, 2), (0, 1)), along, strict=True))
            count[number] = [nodes.sum(), *sums]
        count = box.sum(count)
        centre = count[:, 1:] / count[:, :1]
        gram, of_held = np.zeros((n_pieces, 6, 6)), np.zeros((n_pieces, 6, 6))
        self._pieces = []
        for number, at in where:
            nodes = self.node_piece[at] == number + 1
            along = [place[part] - c for place, part, c in zip(places, at, centre[number], strict=True)]
            gram[number] = _gram(nodes, along)
            if held is not None:
                motions = _motions_of_held(held[:, *at] & nodes, along)
                of_held[number] = motions.T @ motions
            self._pieces.append((number, at, nodes, along))
        gram, of_held = box.sum(gram), box.sum(of_held)
        self._inverse = np.empty((n_pieces, 6, 6))
        for number in range(n_pieces):
            free = np.eye(6)[:, allowed]
            free = free @ _null_space(free.T @ of_held[number] @ free)
            self._inverse[number] = free @ np.linalg.pinv(free.T @ gram[number] @ free, hermitian=True) @ free.T

    def remove(self, vectors: Float) -> None:
        """Take the rigid part out of (3, nodes...), piece by piece, in place."""
        sums = np.zeros((len(self._inverse), 6))
        for number, where, nodes, (x, y, z) in self._pieces:
            u = np.where(nodes, vectors[:, *where], 0.0)
            sums_x, sums_y, sums_z = u.sum(axis=(2, 3)), u.sum(axis=(1, 3)), u.sum(axis=(1, 2))
            first = np.stack([sums_x @ x, sums_y @ y, sums_z @ z])  # [axis, component]
            turns = [first[b, c] - first[c, b] for b, c in ((1, 2), (2, 0), (0, 1))]
            sums[number] = [*sums_x.sum(axis=1), *turns]
        motions = np.einsum("nij,nj->ni", self._inverse, self._box.sum(sums))
        for number, where, nodes, (x, y, z) in self._pieces:
            part = vectors[:, *where]
            tx, ty, tz, rx, ry, rz = motions[number]
            x, y, z = x[:, None, None], y[:, None], z
            part[0] -= nodes * (tx + ry * z - rz * y)
            part[1] -= nodes * (ty + rz * x - rx * z)
            part[2] -= nodes * (tz + rx * y - ry * x)


def _gram(nodes: Bool, coordinates: list[Float]) -> Float:
    """Scalar products (6, 6) of three translations and three rotations over the nodes of a piece."""
    x, y, z = coordinates
    first = np.array([nodes.sum(axis=(1, 2)) @ x, nodes.sum(axis=(0, 2)) @ y, nodes.sum(axis=(0, 1)) @ z])
    second = np.diag([nodes.sum(axis=(1, 2)) @ x**2, nodes.sum(axis=(0, 2)) @ y**2, nodes.sum(axis=(0, 1)) @ z**2])
    second[0, 1] = second[1, 0] = x @ nodes.sum(axis=2) @ y
    second[0, 2] = second[2, 0] = x @ nodes.sum(axis=1) @ z
    second[1, 2] = second[2, 1] = y @ nodes.sum(axis=0) @ z
    gram = np.zeros((6, 6))
    gram[:3, :3] = nodes.sum() * np.eye(3)
    gram[3:, :3] = np.cross(np.eye(3), first)  # row a: sum of e_a x r
    gram[:3, 3:] = gram[3:, :3].T
    gram[3:, 3:] = np.trace(second) * np.eye(3) - second
    return gram


def _motions_of_held(held: Bool, coordinates: list[Float]) -> Float:
    """What each rigid motion does to the held displacements of a piece: (n_held, 6)."""
    component, *at = np.nonzero(held)
    points = np.stack([x[i] for x, i in zip(coordinates, at, strict=True)], axis=-1)
    rotations = np.cross(np.eye(3)[:, None], points[None])  # (rotation, point, component)
    return np.hstack([np.eye(3)[component], rotations[:, np.arange(len(component)), component].T])


def _null_space(matrix: Float) -> Float:
    """Orthonormal basis (6, n) of what a symmetric matrix (6, 6) without negative eigenvalues maps to 0."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors[:, eigenvalues <= 1e-12 * max(eigenvalues[-1], 1e-300)])


def _at_owned(values: Bool, box: Box) -> Bool:
    """Of the corners of cells (nx + 1, ny + 1, nz + 1, 3), what any cell says of the nodes owned here (3, nodes...)."""
    vector = box.vector(np.float32)
    vector[:, *(slice(1, n + 2) for n in box.cells)] = np.moveaxis(values, -1, 0)
    box.add_halo(vector)
    return np.asarray(vector[:, *box.owned] > 0)


def _orthorhombic_constants(stiffness: Float) -> Float:
    """C11 C22 C33 C44 C55 C66 C12 C13 C23."""
    if not (np.isfinite(stiffness).all() and np.allclose(stiffness, stiffness.T)):
        raise InputError("stiffness_GPa must be finite and symmetric")
    if np.linalg.eigvalsh(stiffness)[0] <= 0:
        raise InputError("stiffness_GPa must be positive definite")
    orthorhombic = np.kron(np.diag([1, 0]), np.ones((3, 3))) + np.kron(np.diag([0, 1]), np.eye(3)) > 0
    stray = np.abs(np.where(orthorhombic, 0.0, stiffness)).max()
    if stray > 1e-9 * np.abs(stiffness).max():
        raise InputError(
            "stiffness_GPa must be orthorhombic in the axes of the grid: nonzero only among the first three rows and "
            f"columns and on the diagonal, got {stray:.3g} GPa elsewhere"
        )
    rows, columns = [0, 1, 2, 3, 4, 5, 0, 0, 1], [0, 1, 2, 3, 4, 5, 1, 2, 2]
    return np.asarray(stiffness[rows, columns])
