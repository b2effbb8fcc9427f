"""Elastic equilibrium of voxel bodies: the operator against an assembled matrix, closed forms, the iteration."""

from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp

from checks import convergence_rates
from chemomech import _core
from chemomech.errors import ConvergenceError, InputError
from chemomech.mechanics.box import Box
from chemomech.mechanics.stiffness import FEPO4, LIFEPO4, OLIVINE
from chemomech.mechanics.voxel import VoxelBody, depth_average, equilibrium, void_surface


def isotropic(young, poisson):
    lame, shear = young * poisson / ((1 + poisson) * (1 - 2 * poisson)), young / (2 * (1 + poisson))
    stiffness = np.diag([2 * shear] * 3 + [shear] * 3)
    stiffness[:3, :3] += lame
    return stiffness


SPACING = (1.0, 0.7, 2.0)
CORNERS = np.array(list(product((0, 1), repeat=3)))
ISOTROPIC = isotropic(100.0, 0.3)
GAUSS = [(0.5 - 0.5 / 3**0.5), (0.5 + 0.5 / 3**0.5)]


def strain_of_corners(point, spacing):
    """B (6, 24) of a brick at a point of the unit cube; unknowns corner by corner."""
    matrix = np.zeros((6, 24))
    for n, corner in enumerate(CORNERS):
        shape = np.where(corner, point, 1 - np.asarray(point))
        a, b, c = (np.prod(np.delete(shape, axis)) * (2 * corner[axis] - 1) / spacing[axis] for axis in range(3))
        matrix[:, 3 * n : 3 * n + 3] = [[a, 0, 0], [0, b, 0], [0, 0, c], [0, c, b], [c, 0, a], [b, a, 0]]
    return matrix


def assembled(solid, spacing, stiffnesses, shares=None):
    """The stiffness matrix by Gauss quadrature, unknowns (nodes..., 3)."""
    nodes = np.arange(np.prod(np.add(solid.shape, 1))).reshape(np.add(solid.shape, 1))
    strains = [strain_of_corners(point, spacing) for point in product(GAUSS, repeat=3)]
    elements = [sum(b.T @ c @ b for b in strains) * np.prod(spacing) / 8 for c in stiffnesses]
    rows, columns, values = [], [], []
    for cell in np.argwhere(solid):
        unknowns = (3 * nodes[tuple((cell + CORNERS).T)][:, None] + np.arange(3)).ravel()
        share = [1.0] if shares is None else [1 - shares[tuple(cell)], shares[tuple(cell)]]
        rows.append(np.repeat(unknowns, 24))
        columns.append(np.tile(unknowns, 24))
        values.append(sum(w * element for w, element in zip(share, elements, strict=True)).ravel())
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sp.csr_array(sp.coo_array(entries, shape=(3 * nodes.size,) * 2))


def multiplied(body, displacement):
    """K u of the body's own operator, (nodes..., 3)."""
    box = body._box
    x, y = box.vector(np.float64), box.vector(np.float64)
    x[:, *box.owned] = np.moveaxis(displacement, -1, 0)
    body._multigrid.multiply(x, y)
    return np.moveaxis(y[:, *box.owned], 0, -1)


def random_solid(shape, share=0.6, seed=0):
    return np.random.default_rng(seed).random(shape) < share


def spheres(n, share, radius, seed=0):
    """A cube with spherical voids at random places that take this share of it."""
    random, x = np.random.default_rng(seed), np.arange(n) + 0.5
    solid = np.ones((n, n, n), dtype=bool)
    while 1 - solid.mean() < share:
        dx, dy, dz = (x - c for c in random.random(3) * n)
        solid &= (dx**2)[:, None, None] + (dy**2)[:, None] + dz**2 > radius**2
    return solid


def centres(shape, spacing):
    """Coordinates (3, nx, ny, nz) of the centres of voxels, from the middle of the grid."""
    return np.array(
        np.meshgrid(*((np.arange(n) + 0.5 - n / 2) * h for n, h in zip(shape, spacing, strict=True)), indexing="ij")
    )


def phase_boundary(solid, spacing=(1, 1, 1)):
    """Eigenstrain of a tilted diffuse boundary across a body."""
    x, _, z = centres(solid.shape, spacing) / (np.array(solid.shape) * spacing)[:, None, None, None]
    lithium = (1 + np.tanh(10 * (x - 0.25 * z))) / 2
    return (lithium - 1)[..., None] * np.array([0.05, 0.0346, -0.02, 0, 0, 0])


def inside(displacement):
    return displacement[np.isfinite(displacement)]


@pytest.mark.parametrize("shape", [(7, 4, 9), (1, 1, 1), (3, 19, 5), (2, 3, 34)])
def test_operator_equals_the_assembled_matrix(shape):
    """To rounding: sums of at most 8 bricks of 24 terms each."""
    solid = random_solid(shape) | (np.indices(shape).sum(axis=0) == 0)
    body = VoxelBody(solid, SPACING, OLIVINE)
    vector = np.random.default_rng(1).standard_normal((*np.add(shape, 1), 3))
    expected = (assembled(solid, SPACING, [OLIVINE]) @ vector.ravel()).reshape(vector.shape)
    np.testing.assert_allclose(multiplied(body, vector), expected, rtol=0, atol=1e-14 * np.abs(expected).max())


def test_a_mixture_of_two_stiffnesses_equals_the_assembled_matrix():
    solid, share = random_solid((6, 5, 4)), np.random.default_rng(2).random((6, 5, 4))
    body = VoxelBody(solid, SPACING, np.array([FEPO4, LIFEPO4]), share=share)
    vector = np.random.default_rng(1).standard_normal((7, 6, 5, 3))
    expected = (assembled(solid, SPACING, [FEPO4, LIFEPO4], share) @ vector.ravel()).reshape(vector.shape)
    np.testing.assert_allclose(multiplied(body, vector), expected, rtol=0, atol=1e-14 * np.abs(expected).max())
    body.mix(np.ones(solid.shape))
    expected = (assembled(solid, SPACING, [LIFEPO4]) @ vector.ravel()).reshape(vector.shape)
    np.testing.assert_allclose(multiplied(body, vector), expected, rtol=0, atol=1e-14 * np.abs(expected).max())


def test_operator_is_symmetric():
    """y . K x = x . K y to rounding of the sums."""
    body = VoxelBody(random_solid((20, 13, 17)), SPACING, OLIVINE)
    x, y = np.random.default_rng(0).standard_normal((2, 21, 14, 18, 3))
    kx, ky = multiplied(body, x), multiplied(body, y)
    assert abs(np.vdot(y, kx) - np.vdot(x, ky)) < 1e-14 * np.linalg.norm(y) * np.linalg.norm(kx)


def test_rigid_motions_store_no_energy():
    """K u of translations and rotations is rounding of entries as large as K times the displacement."""
    solid = random_solid((20, 13, 17))
    body = VoxelBody(solid, SPACING, OLIVINE)
    points = np.moveaxis(np.indices(np.add(solid.shape, 1)), 0, -1) * np.array(SPACING)
    largest = (
        1
        / _core.VoxelOperator(body._constants, body.spacing_nm, body._multigrid.weights)
        .inverse_diagonal()[:, *body._box.owned]
        .max()
    )
    for axis in range(3):
        for motion in (np.broadcast_to(np.eye(3)[axis], points.shape), np.cross(np.eye(3)[axis], points)):
            assert np.abs(multiplied(body, motion)).max() < 1e-13 * np.abs(motion).max() * largest * 24


@pytest.mark.parametrize("nz", [24, 29])  # rows of 32 with their halo: two entries to spare, and none
def test_cycle_is_symmetric_and_positive(nz):
    """As conjugate gradients need it: to single precision, amplified by the sums over the levels."""
    solid = spheres(29, 0.3, 4)[:24, :24, :nz]
    body = VoxelBody(solid, (1, 1, 1), OLIVINE)
    multigrid, random = body._multigrid, np.random.default_rng(0)
    eigenstrains = random.standard_normal((3, *solid.shape, 6))
    loads, answers = [], []
    for eigenstrain in eigenstrains:
        load = body._box.vector(np.float64)
        cells = (body.stiffness_GPa, multigrid.weights, body.spacing_nm)
        _core.eigenstrain_loads(*cells, eigenstrain, load)
        load /= np.linalg.norm(load)
        multigrid._levels[0].load[:] = load
        loads.append(load)
        answers.append(multigrid._cycle().astype(float))
    energies = np.einsum("acijk,bcijk->ab", loads, answers)
    np.testing.assert_allclose(energies, energies.T, rtol=0, atol=1e-5 * np.abs(energies).max())
    assert np.linalg.eigvalsh((energies + energies.T) / 2).min() > 0


def test_patch():
    """A uniform eigenstrain is compatible: any free body takes it without stress, at its mean strain."""
    strain = np.array([0.01, -0.02, 0.005, 0.004, -0.003, 0.002])
    solid = spheres(16, 0.3, 3)
    state = equilibrium(solid, SPACING, OLIVINE, np.broadcast_to(strain, (16, 16, 16, 6)), rtol=1e-12)
    # A residual of 1e-12 of the load, amplified by the condition number of a body 16 voxels wide (1e3).
    assert np.abs(state.elastic_strain[solid]).max() < 1e-9 * np.abs(strain).max()
    assert state.elastic_energy_aJ == pytest.approx(0, abs=1e-15)


def test_equals_a_direct_solution():
    """On a body with voids, islands and hinges; strains and energies do not depend on zero-energy motions."""
    solid = random_solid((6, 5, 5), 0.7)
    eigenstrain = 0.01 * np.random.default_rng(3).standard_normal((6, 5, 5, 6))
    eigenstrain[~solid] = np.nan
    state = equilibrium(solid, SPACING, OLIVINE, eigenstrain, rtol=1e-11)
    matrix = assembled(solid, SPACING, [OLIVINE])
    nodes = np.arange(np.prod(np.add(solid.shape, 1))).reshape(np.add(solid.shape, 1))
    mean_strain = sum(strain_of_corners(p, SPACING) for p in product(GAUSS, repeat=3)) / 8
    load = np.zeros(matrix.shape[0])
    volume = np.prod(SPACING)
    work = 0.0
    for cell in np.argwhere(solid):
        unknowns = (3 * nodes[tuple((cell + CORNERS).T)][:, None] + np.arange(3)).ravel()
        load[unknowns] += volume * mean_strain.T @ OLIVINE @ eigenstrain[tuple(cell)]
        work += volume * eigenstrain[tuple(cell)] @ OLIVINE @ eigenstrain[tuple(cell)]
    u = np.linalg.pinv(matrix.toarray(), rcond=1e-10, hermitian=True) @ load
    assert state.minimum_aJ == pytest.approx(work / 2 - u @ load / 2, rel=1e-12)
    energy = 0.0
    for cell in np.argwhere(solid):
        unknowns = (3 * nodes[tuple((cell + CORNERS).T)][:, None] + np.arange(3)).ravel()
        elastic = mean_strain @ u[unknowns] - eigenstrain[tuple(cell)]
        # The error of a strain is that of the residual times the condition number, as in the patch test.
        np.testing.assert_allclose(state.elastic_strain[tuple(cell)], elastic, atol=1e-9)
        np.testing.assert_allclose(state.stress_GPa[tuple(cell)], OLIVINE @ elastic, atol=1e-7)
        energy += volume * elastic @ OLIVINE @ elastic / 2
    assert state.elastic_energy_aJ == pytest.approx(energy, rel=1e-8)
    assert np.isnan(state.elastic_strain[~solid]).all()
    assert np.isnan(state.stress_GPa[~solid]).all()


def test_derivative_of_the_minimum_is_minus_the_stress():
    """Envelope theorem; a central difference of a quadratic function is exact."""
    solid = spheres(10, 0.2, 2)
    body = VoxelBody(solid, SPACING, OLIVINE)
    eigenstrain = phase_boundary(solid, SPACING)
    change = 1e-2 * np.random.default_rng(0).standard_normal(eigenstrain.shape)
    above, below = (body.equilibrium(eigenstrain + sign * change, rtol=1e-10).minimum_aJ for sign in (1, -1))
    stress = body.equilibrium(eigenstrain, rtol=1e-10).stress_GPa[solid]
    expected = -np.prod(SPACING) * np.vdot(stress, change[solid])
    assert (above - below) / 2 == pytest.approx(expected, rel=1e-7)


def manufactured(n):
    """Errors of a free cube of n^3 voxels under a compatible eigenstrain, whose displacement is known: L2, energy."""
    h = 1 / n
    waves = np.array([2.0, 1.5, 1.0])
    amplitude = np.array([0.01, -0.02, 0.015])

    def displacement(points):
        return amplitude * np.sin(points @ waves)[..., None]

    def strain(points):
        gradient = np.cos(points @ waves)[..., None, None] * np.multiply.outer(amplitude, waves)
        i, j = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]
        return (gradient[..., i, j] + gradient[..., j, i]) * [0.5, 0.5, 0.5, 1, 1, 1]

    low = np.moveaxis(np.indices((n, n, n)), 0, -1) * h
    state = equilibrium(np.ones((n, n, n), dtype=bool), (h, h, h), OLIVINE, strain(low + h / 2))
    nodes = np.moveaxis(np.indices((n + 1, n + 1, n + 1)), 0, -1) * h
    exact = displacement(nodes)
    # The exact displacement up to a rigid motion, fitted over the nodes.
    motions = [np.broadcast_to(axis, exact.shape) for axis in np.eye(3)] + [np.cross(axis, nodes) for axis in np.eye(3)]
    basis = np.stack([motion.ravel() for motion in motions], axis=1)
    error = state.displacement_nm - exact
    error -= (basis @ np.linalg.lstsq(basis, error.ravel(), rcond=None)[0]).reshape(exact.shape)
    i, j, k = np.indices((n, n, n))[..., None] + CORNERS.T[:, None, None, None]
    corners = state.displacement_nm[i, j, k].reshape(n, n, n, 24)
    energy = 0.0
    for point in product(GAUSS, repeat=3):
        difference = corners @ strain_of_corners(point, (h, h, h)).T - strain(low + h * np.array(point))
        energy += np.einsum("...i,ij,...j", difference, OLIVINE, difference).sum() * h**3 / 8
    return np.sqrt((error**2).sum() * h**3), np.sqrt(energy)


def test_convergence_on_a_smooth_problem():
    """Trilinear elements: order 2 in the displacement, 1 in the energy norm (Cea, Aubin-Nitsche)."""
    errors = np.array([manufactured(n) for n in (8, 16, 32)])
    assert convergence_rates(errors[:, 0])[-1] == pytest.approx(2, abs=0.25)  # from above: 2.4, 2.2, 2.1
    assert convergence_rates(errors[:, 1])[-1] == pytest.approx(1, abs=0.05)


def layered_sphere(stiffness, radii, misfits):
    """Energy of concentric layers, free inside and outside: u = A r + B / r^2 in each (Lame), e its dilatation.

    Radii from the cavity, or 0, outwards. Also the hoop stress at the inner surface.
    """
    bulk, shear = stiffness[:3, :3].mean(), stiffness[5, 5]
    n = len(misfits)
    rows, right = np.zeros((2 * n, 2 * n)), np.zeros(2 * n)

    def traction(layer, r):
        row = np.zeros(2 * n)
        row[2 * layer : 2 * layer + 2] = 3 * bulk, -4 * shear / r**3
        return row, 3 * bulk * misfits[layer]

    if radii[0] > 0:
        rows[0], right[0] = traction(0, radii[0])
    else:
        rows[0, 1] = 1.0
    rows[1], right[1] = traction(n - 1, radii[-1])
    for layer, r in enumerate(radii[1:-1]):
        (low, low_load), (high, high_load) = traction(layer, r), traction(layer + 1, r)
        rows[2 * layer + 2], right[2 * layer + 2] = low - high, low_load - high_load
        rows[2 * layer + 3, 2 * layer : 2 * layer + 4] = r, 1 / r**2, -r, -1 / r**2
    a, b = np.linalg.solve(rows, right).reshape(n, 2).T
    volumes = 4 / 3 * np.pi * np.diff(np.array(radii) ** 3)
    energy = -4.5 * bulk * np.sum(misfits * (a - misfits) * volumes)
    return energy, 3 * bulk * (a[0] - misfits[0]) + (2 * shear * b[0] / radii[0] ** 3 if radii[0] > 0 else 0)


def voxel_sphere(n, radii, misfits):
    """The same of voxels: a body and its equilibrium, edges 2 / n times the outer radius."""
    h = 2 * radii[-1] / n
    radius = np.linalg.norm(centres((n, n, n), (h, h, h)), axis=0)
    solid = (radius > radii[0]) & (radius < radii[-1])
    eigenstrain = np.zeros((n, n, n, 6))
    eigenstrain[..., :3] = np.array([*misfits, 0.0])[np.digitize(radius, radii[1:])][..., None]
    body = VoxelBody(solid, (h, h, h), ISOTROPIC)
    return body, body.equilibrium(eigenstrain)


def test_eshelby_sphere():
    """A dilating sphere in a concentric free one: E e^2 / (1 - nu) of the inclusion's volume, times 1 - (a/R)^3.

    Voxels shift its surface by parts of their size, which is of first order in the energy.
    """
    radii, misfits = (0.0, 0.5, 1.0), (0.01, 0.0)
    expected = layered_sphere(ISOTROPIC, radii, misfits)[0]
    assert expected == pytest.approx(100 * 0.01**2 / 0.7 * np.pi / 6 * (1 - 0.5**3), rel=1e-12)
    errors = [abs(voxel_sphere(n, radii, misfits)[1].elastic_energy_aJ / expected - 1) for n in (12, 24, 48)]
    assert convergence_rates(errors).min() > 0.9
    assert errors[-1] < 0.025


def test_spherical_cavity():
    """A hollow sphere whose outer shell dilates: energy, and the hoop stress at the cavity.

    At 48 voxels the surfaces are off by a few hundredths of the shell, either way; stresses are those half a voxel, a
    twentieth of the cavity's radius, below its surface, where they vary like 1 / r^3.
    """
    radii, misfits = (0.3, 0.6, 1.0), (0.0, 0.01)
    expected, hoop = layered_sphere(ISOTROPIC, radii, misfits)
    energies = [voxel_sphere(n, radii, misfits)[1].elastic_energy_aJ for n in (16, 32)]
    body, state = voxel_sphere(48, radii, misfits)
    assert abs(energies[0] / expected - 1) < 0.1
    assert abs(energies[1] / expected - 1) < 0.03
    assert state.elastic_energy_aJ == pytest.approx(expected, rel=0.01)
    trace = state.stress_GPa[void_surface(body.solid, body._box)][:, :3].sum(axis=1).mean()
    assert trace == pytest.approx(2 * hoop, rel=0.1)


def free_box(h, void=(60, 20, 30)):
    """The reference of a particle 120 x 40 x 60 nm with a void and a tilted boundary, voxels of h nm."""
    shape = (round(120 / h), round(40 / h), round(60 / h))
    x, y, z = centres(shape, (h, h, h)) + np.array([60, 20, 30])[:, None, None, None]
    solid = (x - void[0]) ** 2 + (y - void[1]) ** 2 + (z - void[2]) ** 2 > 14**2
    lithium = (1 + np.tanh((x - 60 - 0.25 * (z - 30)) / 12)) / 2
    return solid, (lithium - 1)[..., None] * np.array([0.05, 0.0346, -0.02, 0, 0, 0])


def test_free_box():
    """60.86 GPa nm^3 by curved elements of third order, known to 0.03 %."""
    errors = []
    for h in (4, 2, 1):
        solid, eigenstrain = free_box(h)
        errors.append(equilibrium(solid, (h, h, h), OLIVINE, eigenstrain).elastic_energy_aJ / 60.86 - 1)
    assert abs(errors[2]) < abs(errors[1]) < abs(errors[0])
    assert abs(errors[2]) < 0.01


def test_energy_is_what_the_strain_says():
    solid, eigenstrain = free_box(4)
    state = equilibrium(solid, (4, 4, 4), OLIVINE, eigenstrain)
    strain = state.elastic_strain[solid]
    np.testing.assert_allclose(state.stress_GPa[solid], strain @ OLIVINE, rtol=1e-12, atol=1e-14)
    assert state.elastic_energy_aJ == pytest.approx(32 * np.einsum("ci,ij,cj", strain, OLIVINE, strain), rel=1e-12)
    assert state.elastic_energy_aJ < state.minimum_aJ


def iterations(solid, spacing=(1, 1, 1)):
    return equilibrium(solid, spacing, OLIVINE, phase_boundary(solid, spacing)).iterations


def test_iterations_hardly_grow_with_size():
    full = [iterations(np.ones((n, n, n), dtype=bool)) for n in (16, 32, 48)]
    assert max(full) <= 1.3 * full[1]


def test_iterations_with_voids():
    """Spheres that take 30 %; walls of a voxel between them, islands and hinges come by themselves."""
    full = iterations(np.ones((32, 32, 32), dtype=bool))
    assert max(iterations(spheres(32, 0.3, radius)) for radius in (4, 8)) <= 2 * full


@pytest.mark.parametrize("spacing", [(1, 1, 2), (4, 1, 1), (1, 1, 4), (1, 2, 4), (1, 1.4, 1)])
def test_iterations_with_long_voxels(spacing):
    """Semi-coarsening: as many as with cubes, a quarter more where no level is made of cubes."""
    solid = np.ones((32, 32, 32), dtype=bool)
    assert iterations(solid, spacing) <= 1.4 * iterations(solid)


def test_islands_keep_their_place():
    """Two blocks apart and one that hangs on an edge: stress and displacement of each as if it were alone."""
    solid = np.zeros((12, 6, 6), dtype=bool)
    solid[:5, :, :] = solid[7:, :3, :3] = True
    eigenstrain = phase_boundary(solid)
    body = VoxelBody(solid, (1, 1, 1), OLIVINE)
    assert (body.n_pieces, body.count_hinges()) == (2, 0)
    state = body.equilibrium(eigenstrain, rtol=1e-11)
    for number in (1, 2):
        alone = body.pieces == number
        expected = equilibrium(alone, (1, 1, 1), OLIVINE, eigenstrain, rtol=1e-11)
        np.testing.assert_allclose(state.stress_GPa[alone], expected.stress_GPa[alone], atol=1e-8)
        nodes = np.isfinite(expected.displacement_nm)
        np.testing.assert_allclose(state.displacement_nm[nodes], expected.displacement_nm[nodes], atol=1e-9)
    for motion in (inside(state.displacement_nm[:6]), inside(state.displacement_nm[7:])):
        np.testing.assert_allclose(motion.reshape(-1, 3).mean(axis=0), 0, atol=1e-12)


def test_hinges_are_counted_and_do_no_harm():
    solid = np.zeros((6, 6, 3), dtype=bool)
    solid[:3, :3] = solid[3:, 3:] = True  # they share an edge
    body = VoxelBody(solid, (1, 1, 1), OLIVINE)
    assert (body.n_pieces, body.count_hinges()) == (1, 1)
    eigenstrain = phase_boundary(solid)
    state = body.equilibrium(eigenstrain, rtol=1e-11)
    load = multiplied(body, np.nan_to_num(state.displacement_nm))
    turn = np.cross(np.eye(3)[2], np.moveaxis(np.indices((7, 7, 4)), 0, -1) - 3.0)
    turn[:, :3] = turn[:3] = 0.0  # one block turns about the shared edge
    assert abs(np.vdot(turn, load)) < 1e-11 * np.linalg.norm(turn) * np.linalg.norm(load)
    assert state.iterations < 30


def test_periodic_laminate():
    """Eigenstrain of one coordinate in a body without ends: only strains normal to the layers relax, the mean is 0.

    s_aa = C11 (e_aa - e0_aa) - C12 e0_bb - C13 e0_cc is the same everywhere; the elements hold the solution exactly.
    """
    layers = np.random.default_rng(0).standard_normal((16, 3))
    for axis in range(3):
        a, b, c = axis, (axis + 1) % 3, (axis + 2) % 3
        eigenstrain = np.zeros((16, 16, 16, 6))
        np.moveaxis(eigenstrain, axis, 0)[..., :3] = layers[:, None, None]
        body = VoxelBody(np.ones((16, 16, 16), dtype=bool), SPACING, OLIVINE, periodic=(True, True, True))
        state = body.equilibrium(eigenstrain, rtol=1e-11)
        e0 = layers.T
        coupled = (OLIVINE[a, b] * e0[b] + OLIVINE[a, c] * e0[c]) / OLIVINE[a, a] + e0[a]
        elastic = np.moveaxis(state.elastic_strain, axis, 0)
        for component, expected in ((a, coupled - coupled.mean() - e0[a]), (b, -e0[b])):
            np.testing.assert_allclose(elastic[..., component] - expected[:, None, None], 0, atol=1e-9)


@pytest.mark.parametrize("periodic", [(True, True, True), (True, False, False), (False, True, True)])
def test_a_periodic_body_may_be_shifted(periodic):
    """Voids and pieces that wrap around; what is at the end is next to the beginning."""
    solid = spheres(16, 0.3, 4)
    eigenstrain = 0.01 * np.random.default_rng(1).standard_normal((16, 16, 16, 6))
    shift = tuple(5 if wraps else 0 for wraps in periodic)
    states = []
    for by in ((0, 0, 0), shift):
        body = VoxelBody(np.roll(solid, by, (0, 1, 2)), SPACING, OLIVINE, periodic=periodic)
        states.append(body.equilibrium(np.roll(eigenstrain, by, (0, 1, 2)), rtol=1e-11))
    shifted = np.roll(states[0].stress_GPa, shift, (0, 1, 2))
    np.testing.assert_allclose(states[1].stress_GPa, shifted, atol=1e-8)
    for axis, wraps in enumerate(periodic):
        if wraps:
            along = np.moveaxis(states[0].displacement_nm, axis, 0)
            np.testing.assert_array_equal(along[0], along[-1])


def test_held_displacements():
    """A block on a rigid floor and a roller, against a direct solution without the held unknowns."""
    solid = random_solid((5, 5, 4), 0.8)
    held = np.zeros((6, 6, 5, 3), dtype=bool)
    held[:, :, 0] = True
    held[0, ..., 0] = True
    eigenstrain = 0.01 * np.random.default_rng(3).standard_normal((5, 5, 4, 6))
    free = VoxelBody(solid, SPACING, OLIVINE)
    load = free._box.vector(np.float64)
    cells = (free.stiffness_GPa, free._multigrid.weights, free.spacing_nm)
    _core.eigenstrain_loads(*cells, eigenstrain, load)
    keep = ~held.ravel()
    matrix = assembled(solid, SPACING, [OLIVINE]).toarray()[np.ix_(keep, keep)]
    expected = np.zeros(held.size)
    right = np.moveaxis(load[:, *free._box.owned], 0, -1).ravel()[keep]
    expected[keep] = np.linalg.pinv(matrix, rcond=1e-10, hermitian=True) @ right
    state = VoxelBody(solid, SPACING, OLIVINE, held=held).equilibrium(eigenstrain, rtol=1e-11)
    assert not np.nan_to_num(state.displacement_nm)[held].any()
    difference = np.nan_to_num(state.displacement_nm) - expected.reshape(held.shape)
    # Pieces that hang on hinges may turn; strains do not notice.
    change = multiplied(free, difference)[~held]
    assert np.abs(change).max() < 1e-9 * np.abs(load).max()


def test_warm_start():
    """From the answer nothing is left to do; from the answer to nearly the same question, less than from nothing."""
    solid = spheres(24, 0.2, 4)
    body, eigenstrain = VoxelBody(solid, (1, 1, 1), OLIVINE), phase_boundary(solid)
    first = body.equilibrium(eigenstrain, rtol=1e-9)
    assert body.equilibrium(eigenstrain, start=first.displacement_nm).iterations == 0
    later = body.equilibrium(1.001 * eigenstrain, start=first.displacement_nm)
    assert later.iterations < 0.7 * first.iterations
    assert later.minimum_aJ == pytest.approx(1.001**2 * first.minimum_aJ, rel=1e-10)


def test_nothing_to_do():
    solid = np.ones((4, 4, 4), dtype=bool)
    state = equilibrium(solid, (1, 1, 1), OLIVINE, np.zeros((4, 4, 4, 6)))
    assert (state.iterations, state.elastic_energy_aJ) == (0, 0.0)
    assert not state.displacement_nm.any()


def test_depth_average():
    solid = np.array([[[True], [True]], [[False], [True]], [[False], [False]]])
    field = np.arange(6.0).reshape(3, 2, 1)
    np.testing.assert_array_equal(depth_average(field, solid), [[0.5], [3.0], [np.nan]])
    np.testing.assert_array_equal(
        depth_average(np.stack([field, -field], -1), solid)[..., 1], [[-0.5], [-3.0], [np.nan]]
    )


def test_a_body_that_does_not_converge(monkeypatch):
    monkeypatch.setattr("chemomech.mechanics.voxel_multigrid._MAX_ITERATIONS", 3)
    solid = spheres(16, 0.3, 3)
    with pytest.raises(ConvergenceError) as caught:
        equilibrium(solid, (1, 1, 1), OLIVINE, phase_boundary(solid))
    assert caught.value.iterations == 3
    assert 1e-8 < caught.value.residual < 1


CUBE = np.ones((3, 3, 3), dtype=bool)
ZERO = np.zeros((3, 3, 3, 6))
MONOCLINIC = OLIVINE + 5 * (np.outer(np.eye(6)[0], np.eye(6)[4]) + np.outer(np.eye(6)[4], np.eye(6)[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((CUBE & False, (1, 1, 1), OLIVINE, ZERO), "no voxel"),
        ((CUBE.astype(int), (1, 1, 1), OLIVINE, ZERO), "array of bool"),
        ((CUBE[0], (1, 1, 1), OLIVINE, ZERO), "solid must have shape"),
        ((CUBE, (1, 1), OLIVINE, ZERO), "spacing_nm must have shape"),
        ((CUBE, (1, 0, 1), OLIVINE, ZERO), "three positive lengths"),
        ((CUBE, (1, np.nan, 1), OLIVINE, ZERO), "three positive lengths"),
        ((CUBE, (1, 1, 1), OLIVINE[:3, :3], ZERO), "stiffness_GPa must have shape"),
        ((CUBE, (1, 1, 1), -OLIVINE, ZERO), "positive definite"),
        ((CUBE, (1, 1, 1), np.triu(OLIVINE), ZERO), "symmetric"),
        ((CUBE, (1, 1, 1), MONOCLINIC, ZERO), "orthorhombic"),
        ((CUBE, (1, 1, 1), np.array([OLIVINE, OLIVINE]), ZERO), "two stiffnesses"),
        ((CUBE, (1, 1, 1), OLIVINE, ZERO[..., :3]), "eigenstrain must have shape"),
        ((CUBE, (1, 1, 1), OLIVINE, ZERO + np.nan), "eigenstrain is not finite in 27 voxels"),
        ((CUBE, (1, 1, 1), OLIVINE, ZERO, 0.0), "rtol"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        equilibrium(*arguments)


def test_bad_options():
    pair = np.array([FEPO4, LIFEPO4])
    with pytest.raises(InputError, match="between 0 and 1"):
        VoxelBody(CUBE, (1, 1, 1), pair, share=np.full((3, 3, 3), 1.5))
    with pytest.raises(InputError, match="share must have shape"):
        VoxelBody(CUBE, (1, 1, 1), pair, share=np.zeros((3, 3)))
    with pytest.raises(InputError, match="held must have shape"):
        VoxelBody(CUBE, (1, 1, 1), OLIVINE, held=np.zeros((3, 3, 3, 3), dtype=bool))
    with pytest.raises(InputError, match="start must have shape"):
        VoxelBody(CUBE, (1, 1, 1), OLIVINE).equilibrium(ZERO, start=np.zeros((3, 3, 3, 3)))


def test_kernels_refuse_what_would_crash_them():
    box = Box((3, 3, 3), (False, False, False))
    weights, vector = box.weights(np.ones((1, 3, 3, 3)), np.float64), box.vector(np.float64)
    constants, spacing = np.ones((1, 9)), np.ones(3)
    operator = _core.VoxelOperator(constants, spacing, weights)
    with pytest.raises(ValueError, match="must not share memory"):
        operator.multiply(vector, vector)
    with pytest.raises(ValueError, match="x must have shape"):
        operator.multiply(np.zeros((3, 5, 6, 16)), vector)
    with pytest.raises(TypeError, match="dtype float64"):
        operator.multiply(vector.astype(np.float32), vector)
    with pytest.raises(ValueError, match="rows of a multiple"):
        _core.VoxelOperator(constants, spacing, weights[..., :8].copy())
    with pytest.raises(ValueError, match="constants must have shape"):
        _core.VoxelOperator(np.ones((3, 9)), spacing, weights)
    coarse = np.zeros((3, 3, 6, 16), dtype=np.float32)
    with pytest.raises(ValueError, match="does not cover"):
        _core.restrict_to((2, 1, 1), vector.astype(np.float32), coarse)
    with pytest.raises(ValueError, match="no room"):
        _core.elastic_fields(OLIVINE[None], weights, spacing, np.zeros((3, 3, 15, 6)), vector)


@pytest.mark.parametrize("nz", range(9, 32))  # rows of vectors are padded: some are full, with a node less or more
def test_prolongation_is_the_transpose_of_restriction(nz):
    """On odd and even numbers of cells; a sum of products in single precision."""
    random = np.random.default_rng(0)
    for factors in ((2, 2, 2), (1, 2, 1), (2, 1, 2)):
        fine_box = Box((7, 6, nz), (False, False, False))
        coarse_box = Box(tuple(-(-n // f) for n, f in zip(fine_box.cells, factors, strict=True)), (False,) * 3)
        fine, coarse = fine_box.vector(np.float32), coarse_box.vector(np.float32)
        fine[:, *fine_box.owned] = random.standard_normal((3, *fine_box.nodes))
        coarse[:, *coarse_box.owned] = random.standard_normal((3, *coarse_box.nodes))
        down, up = np.zeros_like(coarse), np.zeros_like(fine)
        _core.restrict_to(factors, fine, down)
        _core.add_prolonged(factors, coarse, up)
        left = np.vdot(down[:, *coarse_box.owned], coarse[:, *coarse_box.owned])
        right = np.vdot(up[:, *fine_box.owned], fine[:, *fine_box.owned])
        assert left == pytest.approx(right, abs=1e-5 * float(np.linalg.norm(fine) * np.linalg.norm(up)))
