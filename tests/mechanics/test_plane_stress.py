"""Equilibrium: manufactured solutions, patch test, rigid modes, transposes."""

import numpy as np
import pytest
from hypothesis import given, settings

from checks import assert_adjoint, convergence_rates, masks, platelet
from chemomech.mechanics.mesh import Mesh, pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress, RigidModes
from chemomech.mechanics.stiffness import OLIVINE, plane_stress

STIFFNESS = plane_stress(OLIVINE)
SIZE_NM = 100.0


def quadrature():
    """Points (barycentric) and weights of a triangle rule from a 5 x 5 Gauss rule: exact to degree 8."""
    nodes, weights = np.polynomial.legendre.leggauss(5)
    nodes, weights = (nodes + 1) / 2, weights / 2
    r, s = np.meshgrid(nodes, nodes, indexing="ij")
    points = np.stack([1 - r, r * (1 - s), r * s], axis=-1).reshape(-1, 3)
    return points, (2 * np.outer(weights * nodes, weights)).ravel()


def shape_functions(mesh, barycentric):
    """Values (6,) and gradients (m, 6, 2) of the quadratic shape functions at one point of every triangle."""
    corners = mesh.nodes[mesh.triangles[:, :3]]
    jacobian = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=2)
    slopes = np.array([[-1.0, -1], [1, 0], [0, 1]]) @ np.linalg.inv(jacobian)
    edges = ((0, 1), (1, 2), (2, 0))
    values = [b * (2 * b - 1) for b in barycentric] + [4 * barycentric[i] * barycentric[j] for i, j in edges]
    gradients = [(4 * barycentric[i] - 1) * slopes[:, i] for i in range(3)]
    gradients += [4 * (barycentric[i] * slopes[:, j] + barycentric[j] * slopes[:, i]) for i, j in edges]
    places = np.einsum("i,mij->mj", barycentric, corners)
    return np.array(values), np.stack(gradients, axis=1), places


def manufactured(places):
    """A displacement (m, 2) and its gradient (m, 2, 2), smooth and without symmetry."""
    x, y = (places / SIZE_NM).T
    u = np.stack([np.sin(2 * x + 0.3) * np.cos(1.5 * y), np.exp(0.5 * x) * np.sin(2 * y - 0.4)], axis=1)
    gradient = np.empty((len(x), 2, 2))
    gradient[:, 0, 0] = 2 * np.cos(2 * x + 0.3) * np.cos(1.5 * y)
    gradient[:, 0, 1] = -1.5 * np.sin(2 * x + 0.3) * np.sin(1.5 * y)
    gradient[:, 1, 0] = 0.5 * np.exp(0.5 * x) * np.sin(2 * y - 0.4)
    gradient[:, 1, 1] = 2 * np.exp(0.5 * x) * np.cos(2 * y - 0.4)
    return u, gradient / SIZE_NM


def strain(gradient):
    return np.stack([gradient[:, 0, 0], gradient[:, 1, 1], gradient[:, 0, 1] + gradient[:, 1, 0]], axis=1)


def errors(cells, held):
    """L2 and energy errors of the solution under the exact loads, on a square with a quarter cut out."""
    mask = np.ones((cells, cells), dtype=bool)
    mask[: cells // 2, : cells // 2] = False
    mesh = pixel_mesh(mask, SIZE_NM / cells)
    body = PlaneStress(mesh, STIFFNESS, held=held)
    areas = 0.5 * SIZE_NM**2 / cells**2
    loads = np.zeros((len(mesh.nodes), 2, 1))
    for barycentric, weight in zip(*quadrature(), strict=True):
        _, gradients, places = shape_functions(mesh, barycentric)
        s = strain(manufactured(places)[1]) @ STIFFNESS
        stress = np.stack([s[:, [0, 2]], s[:, [2, 1]]], axis=1)
        np.add.at(loads[..., 0], mesh.triangles, areas * weight * np.einsum("mij,mnj->mni", stress, gradients))
    solution = body.displacement(loads)
    exact_at_nodes = manufactured(mesh.nodes)[0][..., None]
    if held:
        # Loads of a function that vanishes on the boundary, plus the boundary values.
        lifted = body.lift(exact_at_nodes[body.held])
        solution = solution + lifted
    else:
        solution = solution + exact_at_nodes - RigidModes(mesh.nodes, mesh.node_component).remove(exact_at_nodes)
    l2 = energy = 0.0
    local = solution[mesh.triangles][..., 0]
    for barycentric, weight in zip(*quadrature(), strict=True):
        values, gradients, places = shape_functions(mesh, barycentric)
        u, gradient = manufactured(places)
        l2 += areas * weight * ((np.einsum("n,mni->mi", values, local) - u) ** 2).sum()
        difference = strain(np.einsum("mni,mnj->mij", local, gradients) - gradient)
        energy += areas * weight * np.einsum("mi,ij,mj->", difference, STIFFNESS, difference)
    return np.sqrt(l2), np.sqrt(energy)


@pytest.mark.parametrize("held", [None, "boundary"], ids=["free", "held"])
def test_quadratic_elements_converge_at_their_rates(held):
    """Halving h divides the L2 error by 8 and the energy error by 4 (Cea, Aubin-Nitsche).

    Loads are those of the exact stress, so the free solution is its projection and the re-entrant corner has no
    singularity to slow convergence down. Rates between 16 and 64 cells, within the 0.1 left to higher orders.
    """
    l2, energy = zip(*(errors(cells, held) for cells in (16, 32, 64)), strict=True)
    assert convergence_rates(l2) == pytest.approx(3, abs=0.1)
    assert convergence_rates(energy) == pytest.approx(2, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(masks)
def test_patch_test_on_any_topology(mask):
    """A linear displacement on the boundary is the solution everywhere; 1e-11 of it is rounding of the factor."""
    mesh = pixel_mesh(mask, 10.0)
    body = PlaneStress(mesh, STIFFNESS, held="boundary")
    linear = np.einsum("ij,nj->ni", [[0.01, -0.03], [0.02, 0.04]], mesh.nodes)[..., None]
    np.testing.assert_allclose(body.lift(linear[body.held]), linear, atol=1e-11 * max(np.abs(linear).max(), 1))


@settings(max_examples=30, deadline=None)
@given(masks)
def test_uniform_eigenstrain_strains_a_free_body_without_stress(mask):
    """Total strain equals the eigenstrain in every cell of every piece, whatever its shape."""
    mesh = pixel_mesh(mask, 10.0)
    body = PlaneStress(mesh, STIFFNESS)
    eigenstrain = np.tile(np.array([0.02, -0.01, 0.005])[:, None], (mesh.n_cells, 1, 1))
    solution = body.displacement(body.eigenstrain_loads(eigenstrain))
    np.testing.assert_allclose(body.strain(solution), eigenstrain, atol=1e-12)


def test_rigid_modes_are_removed():
    """Neither loads nor displacements of a free body hold a rigid part; 1e-12 relative to their size."""
    mesh = pixel_mesh(platelet(), 50.0)
    body = PlaneStress(mesh, STIFFNESS)
    modes = RigidModes(mesh.nodes, mesh.node_component)
    loads = np.random.default_rng(0).standard_normal((len(mesh.nodes), 2, 2))
    solution = body.displacement(loads)
    rigid_part = solution - modes.remove(solution)
    assert np.abs(rigid_part).max() < 1e-12 * np.abs(solution).max()
    rigid_load = loads - modes.remove(loads)
    assert np.abs(body.displacement(rigid_load)).max() < 1e-12 * np.abs(solution).max()


def test_equilibrium_is_invariant_under_rotation_by_a_right_angle():
    """Turning the particle, its crystal and its eigenstrain together turns the answer with them.

    Only the checkerboard of diagonals may differ, which changes the discrete solution at the size of its own error.
    """
    mask = platelet(21, 31)
    random = np.random.default_rng(1)
    smooth = random.standard_normal(4)
    y, x = np.indices(mask.shape)
    field = np.cos(smooth[0] * x / 31 + smooth[1]) * np.sin(smooth[2] * y / 21 + smooth[3])
    eigenstrain = np.stack([field, 0.3 * field, 0 * field], axis=-1)

    def total(mask, stiffness, eigenstrain):
        body = PlaneStress(pixel_mesh(mask, 1.0), stiffness)
        return body.strain(body.displacement(body.eigenstrain_loads(eigenstrain[mask][..., None])))[..., 0]

    upright = np.full((*mask.shape, 3), np.nan)
    upright[mask] = total(mask, STIFFNESS, eigenstrain)
    turned_mask, swap = np.rot90(mask), [1, 0, 2]
    turned = np.full((*turned_mask.shape, 3), np.nan)
    turned[turned_mask] = total(turned_mask, STIFFNESS[np.ix_(swap, swap)], np.rot90(eigenstrain)[..., swap])
    expected = np.rot90(upright)[..., swap] * [1, 1, -1]
    np.testing.assert_allclose(turned[turned_mask], expected[turned_mask], atol=0.02 * np.nanmax(np.abs(upright)))


@pytest.mark.parametrize("held", [None, "boundary"], ids=["free", "held"])
def test_transposes(held):
    """Propagation of noise and gradients both stand on these."""
    mesh = pixel_mesh(platelet(), 50.0)
    body = PlaneStress(mesh, STIFFNESS, held=held)
    random = np.random.default_rng(0)
    nodal, cell = (random.standard_normal(shape) for shape in ((len(mesh.nodes), 2, 1), (mesh.n_cells, 3, 1)))
    other = random.standard_normal(nodal.shape)
    assert_adjoint(body.displacement, body.displacement, nodal, other)
    assert_adjoint(body.eigenstrain_loads, body.eigenstrain_loads_transpose, cell, nodal)
    assert_adjoint(body.strain, body.strain_transpose, nodal, cell)
    if held:
        assert_adjoint(body.lift, body.lift_transpose, nodal[body.held], other)


def test_another_mesh_generator_may_replace_the_pixels():
    """The solver reads node coordinates only: a sheared mesh of four triangles passes the uniform-strain test."""
    corners = np.array([[0.0, 0], [3, 0.5], [4, 3], [1, 2], [2, 1.4]])
    triangles = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    nodes, number, six = list(corners), {}, []
    for triangle in triangles:
        middle = []
        for i in range(3):
            edge = tuple(sorted((triangle[i], triangle[(i + 1) % 3])))
            if edge not in number:
                number[edge] = len(nodes)
                nodes.append(corners[list(edge)].mean(axis=0))
            middle.append(number[edge])
        six.append([*triangle, *middle])
    mesh = Mesh(
        nodes=np.array(nodes),
        triangles=np.array(six, dtype=np.int32),
        cells=np.arange(4, dtype=np.int32),
        n_cells=4,
        component=np.zeros(4, dtype=np.int32),
        centres=np.full(4, 4, dtype=np.int32),
    )
    body = PlaneStress(mesh, STIFFNESS)
    eigenstrain = np.tile(np.array([0.02, -0.01, 0.005])[:, None], (4, 1, 1))
    solution = body.displacement(body.eigenstrain_loads(eigenstrain))
    np.testing.assert_allclose(body.strain(solution), eigenstrain, atol=1e-14)
