"""The compiled kernels against independent constructions in NumPy, SciPy and scikit-fem."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chemomech import _core
from chemomech.mechanics.mesh import pixel_mesh

# Full, not isotropic: every one of the six constants counts.
STIFFNESS = np.array([[150.0, 40.0, 7.0], [40.0, 130.0, -5.0], [7.0, -5.0, 45.0]])

# Three-point rule of degree 2, exact for products of the linear gradients of quadratic shape functions.
QUADRATURE = np.full((3, 3), 1 / 6) + np.eye(3) / 2


def shape_gradients(points, barycentric, order):
    """Gradients (order, 2) of the shape functions of a straight triangle at one point."""
    jacobian = np.column_stack([points[1] - points[0], points[2] - points[0]])
    grad = np.array([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]]) @ np.linalg.inv(jacobian)
    if order == 3:
        return grad
    quadratic = [(4 * barycentric[i] - 1) * grad[i] for i in range(3)]
    edges = [4 * (barycentric[i] * grad[j] + barycentric[j] * grad[i]) for i, j in ((0, 1), (1, 2), (2, 0))]
    return np.array(quadratic + edges)


def strain_matrix(gradients):
    """B (3, 2 n): engineering strain xx, yy, xy of interleaved displacements."""
    b = np.zeros((3, 2 * len(gradients)))
    b[0, 0::2] = gradients[:, 0]
    b[1, 1::2] = gradients[:, 1]
    b[2, 0::2] = gradients[:, 1]
    b[2, 1::2] = gradients[:, 0]
    return b


def area(points):
    (ax, ay), (bx, by) = points[1] - points[0], points[2] - points[0]
    return 0.5 * (ax * by - ay * bx)


def by_quadrature(points, order):
    result = np.zeros((2 * order, 2 * order))
    for barycentric in QUADRATURE:
        b = strain_matrix(shape_gradients(points, barycentric, order))
        result += area(points) / 3 * b.T @ STIFFNESS @ b
    return result


def matrix(nodes, triangles, stiffness=STIFFNESS):
    pattern = _core.Pattern(triangles, len(nodes))
    values = _core.assemble_stiffness(pattern, nodes, stiffness)
    return sparse.bsr_matrix((values, pattern.indices, pattern.indptr), shape=(2 * len(nodes),) * 2)


def distorted_mesh(ny=9, nx=11, seed=0, mask=None):
    """A pixel mesh whose vertices are moved at random by up to 0.2 pixels, midsides following."""
    mesh = pixel_mesh(np.ones((ny, nx), dtype=bool) if mask is None else mask, 1.0)
    coarse = mesh.vertex_mesh
    nodes = mesh.nodes.copy()
    nodes[coarse.vertices] += np.random.default_rng(seed).uniform(-0.2, 0.2, coarse.nodes.shape)
    nodes[coarse.midsides] = nodes[coarse.vertices][coarse.parents].mean(axis=1)
    return mesh, nodes


corners = hnp.arrays(float, (3, 2), elements=st.floats(-10, 10)).filter(lambda p: area(p) > 0.1)


@settings(max_examples=100, deadline=None)
@given(corners, st.sampled_from([3, 6]))
def test_element_matrix_equals_quadrature(points, order):
    """Both are exact up to rounding, which needle triangles amplify by their aspect ratio (at most 20^2 / 0.1)."""
    midsides = 0.5 * (points + np.roll(points, -1, axis=0))
    nodes = np.concatenate([points, midsides])[:order]
    ours = matrix(nodes, np.arange(order, dtype=np.int32)[None]).toarray()
    expected = by_quadrature(points, order)
    np.testing.assert_allclose(ours, expected, atol=1e-11 * np.abs(expected).max())


def test_matrix_equals_scikit_fem():
    """Same space, same form, another program; entries agree to rounding of sums of a few terms."""
    skfem = pytest.importorskip("skfem")
    mesh, nodes = distorted_mesh()
    coarse = mesh.vertex_mesh
    basis = skfem.Basis(
        skfem.MeshTri(nodes[coarse.vertices].T.copy(), coarse.triangles.T.astype(np.int64).copy()),
        skfem.ElementVector(skfem.ElementTriP2()),
        intorder=2,
    )

    def strain(w):
        return np.stack([w.grad[0, 0], w.grad[1, 1], w.grad[0, 1] + w.grad[1, 0]])

    @skfem.BilinearForm
    def energy(u, v, _):
        return np.einsum("i...,ij,j...->...", strain(v), STIFFNESS, strain(u))

    expected = energy.assemble(basis).tocsr()
    # Match unknowns by place and component.
    component = np.zeros(basis.N, dtype=int)
    component[np.concatenate([basis.nodal_dofs[1], basis.facet_dofs[1]])] = 1
    theirs = np.lexsort([component, *np.round(basis.doflocs, 9)])
    ours = np.lexsort([np.tile([0, 1], len(nodes)), *np.round(np.repeat(nodes, 2, axis=0).T, 9)])
    difference = expected[theirs][:, theirs] - matrix(nodes, mesh.triangles).tocsr()[ours][:, ours]
    assert np.abs(difference).max() < 1e-13 * np.abs(expected).max()


@pytest.mark.parametrize("order", [3, 6])
def test_matrix_is_symmetric_to_the_bit_and_blind_to_rigid_motion(order):
    mesh, nodes = distorted_mesh()
    triangles, points = (mesh.triangles, nodes)
    if order == 3:
        triangles, points = mesh.vertex_mesh.triangles, nodes[mesh.vertices]
    k = matrix(points, triangles)
    assert (k != k.T).nnz == 0
    rigid = np.zeros((len(points), 2, 3))
    rigid[:, 0, 0] = rigid[:, 1, 1] = 1
    rigid[:, :, 2] = points @ [[0, 1], [-1, 0]]
    forces = k @ rigid.reshape(-1, 3)
    # Row sums cancel up to rounding of entries of size |K| |u|.
    assert np.abs(forces).max() < 1e-12 * np.abs(k).max() * np.abs(rigid).max()


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.booleans()).filter(np.any))
def test_each_piece_has_three_rigid_modes_and_no_hinge(mask):
    """Eigenvalues of one pixel start near 1e-2 of the largest; zero ones are below 1e-12 of it."""
    mesh = pixel_mesh(mask, 1.0)
    eigenvalues = np.linalg.eigvalsh(matrix(mesh.nodes, mesh.triangles).toarray())
    assert np.count_nonzero(eigenvalues < 1e-10 * eigenvalues[-1]) == 3 * (mesh.component.max() + 1)


def test_patch_test():
    """A linear displacement makes one constant stress everywhere: K u balances its loads node by node."""
    mesh, nodes = distorted_mesh()
    gradient = np.array([[0.01, -0.02], [0.03, 0.005]])
    u = nodes @ gradient.T
    strain = np.array([gradient[0, 0], gradient[1, 1], gradient[0, 1] + gradient[1, 0]])
    stress = np.tile((STIFFNESS @ strain)[:, None], (mesh.n_cells, 1, 1))
    pattern = _core.Pattern(mesh.triangles, len(nodes))
    loads = _core.stress_loads(pattern, nodes, mesh.cells, stress)
    np.testing.assert_allclose(
        (matrix(nodes, mesh.triangles) @ u.ravel()).reshape(-1, 2), loads[..., 0], atol=1e-12 * np.abs(stress).max()
    )
    inner = np.setdiff1d(np.arange(len(nodes)), mesh.boundary)
    assert np.abs(loads[inner]).max() < 1e-13 * np.abs(stress).max() * 10  # sums of up to 8 edges of length 1
    distortion = _core.cell_distortions(pattern, nodes, mesh.cells, mesh.n_cells, u[..., None])
    np.testing.assert_allclose(distortion[..., 0], np.tile(gradient.ravel(), (mesh.n_cells, 1)), atol=1e-14)


@pytest.mark.parametrize("order", [3, 6])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_loads_are_the_transpose_of_distortions(order, k):
    """stress : area mean strain = loads . displacement, the transpose identity, to rounding of the sums."""
    rng = np.random.default_rng(k)
    mesh, nodes = distorted_mesh(seed=k)
    triangles = mesh.triangles
    if order == 3:
        triangles, nodes = mesh.vertex_mesh.triangles, nodes[mesh.vertices]
    cells = rng.permutation(mesh.n_cells).astype(np.int32)[mesh.cells]
    stress = rng.standard_normal((mesh.n_cells, 3, k))
    u = rng.standard_normal((len(nodes), 2, k))
    pattern = _core.Pattern(triangles, len(nodes))
    loads = _core.stress_loads(pattern, nodes, cells, stress)
    d = _core.cell_distortions(pattern, nodes, cells, mesh.n_cells, u)
    a, b, c = (nodes[triangles[:, i]] for i in range(3))
    twice = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    areas = np.bincount(cells, weights=twice / 2)
    strain = np.stack([d[:, 0], d[:, 3], d[:, 1] + d[:, 2]], axis=1)
    left = np.einsum("c,cik,cik->k", areas, stress, strain)
    right = np.einsum("nik,nik->k", loads, u)
    scale = np.einsum("nik,nik->k", np.abs(loads), np.abs(u))
    assert np.all(np.abs(left - right) < 1e-13 * scale)


def test_the_pattern_is_the_node_graph_without_opposite_midsides():
    mesh, nodes = distorted_mesh(mask=np.random.default_rng(3).random((20, 20)) < 0.6)
    pattern = _core.Pattern(mesh.triangles, len(nodes))
    pairs = set()
    for triangle in mesh.triangles.tolist():
        opposite = {(i, 3 + (i + 1) % 3) for i in range(3)}
        pairs |= {
            (triangle[i], triangle[j])
            for i in range(6)
            for j in range(6)
            if (i, j) not in opposite and (j, i) not in opposite
        }
    rows = np.repeat(np.arange(len(nodes)), np.diff(pattern.indptr))
    assert list(zip(rows.tolist(), pattern.indices.tolist(), strict=True)) == sorted(pairs)


THREADS = """
import numpy as np, sys
from chemomech import _core
from chemomech.mechanics.mesh import pixel_mesh
rng = np.random.default_rng(1)
mesh = pixel_mesh(rng.random((150, 150)) < 0.9, 1.0)
triangles = mesh.triangles[rng.permutation(len(mesh.triangles))] if sys.argv[1] == "shuffled" else mesh.triangles
pattern = _core.Pattern(triangles, len(mesh.nodes))
values = _core.assemble_stiffness(pattern, mesh.nodes, np.diag([3.0, 2.0, 1.0]) + 0.1)
x = rng.standard_normal((len(mesh.nodes), 2, 3))
cells = np.arange(len(triangles), dtype=np.int32) // 2
loads = _core.stress_loads(pattern, mesh.nodes, cells, rng.standard_normal((mesh.n_cells, 3, 2)))
d = _core.cell_distortions(pattern, mesh.nodes, cells, mesh.n_cells, x)
k = _core.BlockMatrix(pattern.indptr, pattern.indices, values, len(mesh.nodes))
y = k.multiply(x)
s = _core.dot(x.reshape(-1, 3), y.reshape(-1, 3))
import hashlib
print([hashlib.sha256(a.tobytes()).hexdigest() for a in (pattern.indices, values, loads, d, y, s)])
"""


@pytest.mark.parametrize("order", ["natural", "shuffled"])
def test_results_do_not_depend_on_the_number_of_threads(order):
    """Shuffled triangles put nearly every triangle on the border of chunks."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", THREADS, order],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(digests) == 1


MATRICES = {np.float64: _core.BlockMatrix, np.float32: _core.BlockMatrix32}


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 8, 20])
@pytest.mark.parametrize("block", [(1, 1), (2, 2), (2, 3), (3, 2), (3, 3)])
def test_block_matrices_equal_scipy(block, k, dtype):
    """Sums of two dozen products, some in another order: 100 roundings of the largest entry."""
    rng = np.random.default_rng(k)
    shape = (300, 200) if block[0] != block[1] else (300, 300)
    graph = sparse.random_array(shape, density=0.03, rng=rng, format="csr")
    values = rng.standard_normal((graph.nnz, *block)).astype(dtype)
    full = sparse.bsr_array((values.astype(float), graph.indices, graph.indptr), shape=np.multiply(shape, block))
    held = MATRICES[dtype](graph.indptr.astype(np.int32), graph.indices.astype(np.int32), values, shape[1])
    x = rng.standard_normal((shape[1], block[1], k)).astype(dtype)
    b, direction = rng.standard_normal((2, shape[0], block[0], k)).astype(dtype)
    product = (full @ x.reshape(-1, k).astype(float)).reshape(b.shape)
    close = {"rtol": 0, "atol": 100 * np.finfo(dtype).eps * np.abs(product).max()}
    np.testing.assert_allclose(held.multiply(x), product, **close)
    np.testing.assert_allclose(held.add_product(b, -1.0, x), b - product, **close)
    added = b.copy()
    assert held.add_product(added, 1.0, x, out=added) is added
    np.testing.assert_allclose(added, b + product, **close)
    if shape[0] == shape[1]:
        inverse = rng.standard_normal((shape[0], *block)).astype(dtype)
        close["atol"] *= 10  # the diagonal's inverse mixes three residuals of a few times the product
        out, step = np.full_like(x, np.nan), direction.copy()
        held.smooth(inverse, b, x, step, 0.3, 0.7, out)
        expected = 0.3 * direction + 0.7 * np.einsum("nij,njk->nik", inverse, b - product)
        np.testing.assert_allclose(step, expected, **close)
        np.testing.assert_allclose(out, x + expected, **close)
        step[...] = np.nan
        held.smooth(inverse, b, None, step, 0.0, 0.7, out)
        np.testing.assert_allclose(step, 0.7 * np.einsum("nij,njk->nik", inverse, b), **close)
        np.testing.assert_array_equal(out, step)


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("k", [1, 3, 12])
def test_sums_over_columns_equal_numpy(k, dtype):
    """Long enough for several chunks; 5000 products round to about the square root of that many roundings."""
    rng = np.random.default_rng(k)
    y, x = rng.standard_normal((5000, k)), rng.standard_normal((5000, k)).astype(dtype)
    a, b = rng.standard_normal((2, k))
    np.testing.assert_allclose(_core.dot(y, x), (y * x).sum(axis=0), atol=1e-12 * 5000**0.5, rtol=1e-12)
    combined = y.copy()
    _core.combine(a, x, b, combined)
    np.testing.assert_allclose(combined, a * x + b * y, atol=1e-14)


def test_out_is_overwritten_whatever_it_held():
    mesh, nodes = distorted_mesh()
    pattern = _core.Pattern(mesh.triangles, len(nodes))
    out = np.full((pattern.n_blocks, 2, 2), np.nan)
    assert _core.assemble_stiffness(pattern, nodes, STIFFNESS, out=out) is out
    np.testing.assert_array_equal(out, matrix(nodes, mesh.triangles).data)


def test_an_empty_mesh_assembles_to_nothing():
    triangles = np.empty((0, 6), dtype=np.int32)
    pattern = _core.Pattern(triangles, 2)
    assert _core.assemble_stiffness(pattern, np.zeros((2, 2)), STIFFNESS).shape == (0, 2, 2)
    assert pattern.indptr.tolist() == [0, 0, 0]


def arguments():
    mesh, nodes = distorted_mesh(2, 2)
    return {"nodes": nodes, "triangles": mesh.triangles, "stiffness": STIFFNESS}


def broken(name, change):
    values = {key: value.copy() for key, value in arguments().items()}
    values[name] = change(values[name])
    return values


def with_entry(array, at, value):
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("nodes", lambda a: a.astype(np.float32), TypeError, "nodes must have dtype float64, got float32"),
        ("nodes", lambda a: a[:-1], ValueError, r"nodes must have shape \(25, 2\), got \(24, 2\)"),
        ("nodes", lambda a: np.asfortranarray(a), ValueError, "nodes must be C-contiguous"),
        ("triangles", lambda a: a.astype(np.int64), TypeError, "triangles must have dtype int32, got int64"),
        ("triangles", lambda a: with_entry(a, (3, 4), 25), ValueError, r"\[0, 25\), but row 3 has 25"),
        ("triangles", lambda a: with_entry(a, (3, 4), -1), ValueError, r"\[0, 25\), but row 3 has -1"),
        ("triangles", lambda a: with_entry(a, 5, a[5, [0, 2, 1, 5, 4, 3]]), ValueError, "triangle 5 has no positive"),
        ("nodes", lambda a: a * np.nan, ValueError, "triangle 0 has no positive area"),
        ("stiffness", lambda a: a[:2], ValueError, r"stiffness must have shape \(3, 3\), got \(2, 3\)"),
    ],
)
def test_refusals(name, change, error, message):
    values = broken(name, change)
    with pytest.raises(error, match=message):
        _core.assemble_stiffness(_core.Pattern(values.pop("triangles"), 25), **values)


def test_the_first_triangle_without_area_is_named():
    """Among several chunks, whoever comes to one first."""
    mesh = pixel_mesh(np.ones((150, 150), dtype=bool), 1.0)
    triangles = mesh.triangles.copy()
    bad = np.array([44000, 31000, 30999, 17003])
    triangles[bad] = triangles[bad][:, [0, 2, 1, 5, 4, 3]]
    with pytest.raises(ValueError, match="triangle 17003 has no positive area"):
        matrix(mesh.nodes, triangles)


def test_what_was_checked_cannot_be_changed_afterwards():
    """The pattern and the matrix own their graphs, and leave the caller's arrays as they were."""
    mesh, nodes = distorted_mesh(2, 2)
    triangles = mesh.triangles.copy()
    pattern = _core.Pattern(triangles, len(nodes))
    k = matrix(nodes, mesh.triangles)
    indptr, indices = k.indptr.copy(), k.indices.copy()
    held = _core.BlockMatrix(indptr, indices, k.data, len(nodes))
    for mine in (triangles, indptr, indices):
        mine[...] = 1 << 30
    x = np.random.default_rng(0).standard_normal((len(nodes), 2, 1))
    np.testing.assert_array_equal(_core.assemble_stiffness(pattern, nodes, STIFFNESS), k.data)
    # Rows of at most 20 products, added in another order.
    np.testing.assert_allclose(held.multiply(x).ravel(), k @ x.ravel(), atol=1e-14 * np.abs(k).max() * 20)


def test_refusals_of_cells_and_graphs():
    mesh, nodes = distorted_mesh(2, 2)
    pattern = _core.Pattern(mesh.triangles, len(nodes))
    stress = np.zeros((mesh.n_cells - 1, 3, 1))
    with pytest.raises(ValueError, match=r"cells must be in \[0, 3\), but row 6 has 3"):
        _core.stress_loads(pattern, nodes, mesh.cells, stress)
    with pytest.raises(ValueError, match=r"cells must be in \[0, 3\)"):
        _core.cell_distortions(pattern, nodes, mesh.cells, 3, np.zeros((len(nodes), 2, 1)))
    k = matrix(nodes, mesh.triangles)
    x = np.zeros((len(nodes), 2, 1))
    indptr, indices, values = k.indptr.copy(), k.indices.copy(), k.data
    held = _core.BlockMatrix(indptr, indices, values, len(nodes))
    with pytest.raises(ValueError, match=r"x must have shape \(25, 2, any\), got \(24, 2, 1\)"):
        held.multiply(x[:-1])
    with pytest.raises(ValueError, match="indptr must ascend"):
        _core.BlockMatrix(indptr[::-1].copy(), indices, values, len(nodes))
    with pytest.raises(ValueError, match="indices must be in"):
        _core.BlockMatrix(indptr, indices + np.int32(1), values, len(nodes))
    with pytest.raises(ValueError, match="blocks must be 1 x 1, 2 x 2"):
        _core.BlockMatrix(indptr, indices, np.zeros((len(indices), 2, 1)), len(nodes))
    with pytest.raises(TypeError, match="values must have dtype float32, got float64"):
        _core.BlockMatrix32(indptr, indices, values, len(nodes))


def test_overlapping_outputs_are_refused():
    """By a row is as wrong as whole; only the right-hand side of `add_product` may be overwritten, whole."""
    mesh, nodes = distorted_mesh(2, 2)
    k = matrix(nodes, mesh.triangles)
    held = _core.BlockMatrix(k.indptr, k.indices, k.data, len(nodes))
    room = np.zeros((26, 2, 1))
    x, shifted, b, step, inverse = room[:-1], room[1:], *np.zeros((2, 25, 2, 1)), np.zeros((25, 2, 2))
    for out in (x, shifted):
        with pytest.raises(ValueError, match="out must not share memory with x"):
            held.multiply(x, out=out)
        with pytest.raises(ValueError, match="out must not share memory with x"):
            held.add_product(b, 1.0, x, out=out)
        with pytest.raises(ValueError, match="out must not share memory with x"):
            held.smooth(inverse, b, x, step, 0.0, 1.0, out)
        with pytest.raises(ValueError, match="direction must not share memory with b"):
            held.smooth(inverse, x, None, out, 0.0, 1.0, step)
        with pytest.raises(ValueError, match="out must not share memory with direction"):
            held.smooth(inverse, b, None, x, 0.0, 1.0, out)
    with pytest.raises(ValueError, match="out must not share memory with another part of b"):
        held.add_product(x, 1.0, b, out=shifted)
    with pytest.raises(ValueError, match="out must not share memory with the matrix"):
        held.multiply(x, out=k.data.reshape(-1, 2, 1)[:25])
    with pytest.raises(ValueError, match="y must not share memory with another part of x"):
        _core.combine(np.ones(1), x.reshape(-1, 1), np.ones(1), shifted.reshape(-1, 1))


def test_an_unbuilt_simd_level_is_refused_in_one_line():
    result = subprocess.run(
        [sys.executable, "-c", "import chemomech._core"],
        env={**os.environ, "CHEMOMECH_SIMD": "v9"},
        capture_output=True,
        text=True,
    )
    assert result.stderr.strip().splitlines()[-1].startswith("ImportError: CHEMOMECH_SIMD=v9 is not built")


LESSER_PROCESSOR = """
import sys, types
sys.modules["chemomech._core._cpu"] = types.SimpleNamespace(
    native_features="avx2,avx512f", has_feature=lambda feature: feature in ("sse4.2", "avx2")
)
import chemomech._core
"""


def test_a_build_for_another_processor_is_refused_in_one_line():
    """The loader asks the processor before it loads code that would end in an illegal instruction."""
    if _core.build_info()["levels"] != ["native"]:
        pytest.skip("a portable build has a level for lesser processors")
    result = subprocess.run([sys.executable, "-c", LESSER_PROCESSOR], capture_output=True, text=True)
    assert "ImportError: chemomech was compiled for another processor: this one lacks avx512f" in result.stderr
