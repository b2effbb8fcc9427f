"""Pixel meshes: geometry, topology, and the absence of hinges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from chemomech.mechanics.mesh import pixel_mesh

masks = hnp.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.booleans()).filter(np.any)


def euler_characteristic(mesh):
    """Vertices - edges + triangles; edges are the midsides."""
    return len(mesh.vertices) - (len(mesh.nodes) - len(mesh.vertices)) + len(mesh.triangles)


def n_holes(mask):
    """Holes of the 4-connected particle: 8-connected pieces of its complement, but for the outside."""
    outside = np.pad(~mask, 1, constant_values=True)
    return ndimage.label(outside, structure=np.ones((3, 3)))[1] - 1


@settings(max_examples=150, deadline=None)
@given(masks)
def test_mesh_has_the_topology_of_the_mask(mask):
    """chi = pieces - holes for a surface with boundary; holds only when corner contacts are not hinges."""
    mesh = pixel_mesh(mask, 3.0)
    labels, n_pieces = ndimage.label(mask)
    assert euler_characteristic(mesh) == n_pieces - n_holes(mask)
    np.testing.assert_array_equal(mesh.component, labels[mask] - 1)
    np.testing.assert_array_equal(np.unique(mesh.triangles), np.arange(len(mesh.nodes)))
    np.testing.assert_allclose(mesh.cell_areas, 9.0, rtol=1e-14)  # coordinates are exact halves of 3


@settings(max_examples=50, deadline=None)
@given(masks)
def test_midsides_and_centres_lie_where_they_should(mask):
    mesh = pixel_mesh(mask, 2.0)
    points = mesh.nodes[mesh.triangles]
    for edge in range(3):
        np.testing.assert_array_equal(points[:, 3 + edge], 0.5 * (points[:, edge] + points[:, (edge + 1) % 3]))
    row, column = np.nonzero(mask)
    expected = 2.0 * np.column_stack([column + 0.5 - mask.shape[1] / 2, row + 0.5 - mask.shape[0] / 2])
    np.testing.assert_array_equal(mesh.nodes[mesh.centres], expected)
    np.testing.assert_array_equal(np.bincount(mesh.cells), 2)


@settings(max_examples=50, deadline=None)
@given(masks)
def test_boundary_is_the_outline_of_the_mask(mask):
    """A pixel side is on the outline when one of its two pixels is absent; its midside belongs to no other side."""
    mesh = pixel_mesh(mask, 1.0)
    padded = np.pad(mask, 1)
    sides = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    midsides = np.setdiff1d(mesh.boundary, mesh.vertices)
    assert len(midsides) == sides
    # Without hinges the outline is a set of closed curves: as many corners as sides.
    assert len(mesh.boundary) == 2 * sides


@settings(max_examples=50, deadline=None)
@given(masks)
def test_vertex_mesh_interpolates_linear_fields_exactly(mask):
    mesh = pixel_mesh(mask, 2.0)
    coarse = mesh.vertex_mesh
    np.testing.assert_array_equal(coarse.vertices[coarse.triangles], mesh.triangles[:, :3])
    np.testing.assert_array_equal(np.sort(np.r_[coarse.vertices, coarse.midsides]), np.arange(len(mesh.nodes)))
    np.testing.assert_array_equal(mesh.nodes[coarse.midsides], coarse.nodes[coarse.parents].mean(axis=1))


def test_diagonal_neighbours_share_no_node():
    mesh = pixel_mesh(np.eye(2, dtype=bool), 1.0)
    assert len(mesh.nodes) == 18
    assert not np.intersect1d(mesh.triangles[mesh.cells == 0], mesh.triangles[mesh.cells == 1]).size


def test_diagonals_alternate():
    """Mirrored in x an even number of pixels, the mesh is another; in a checkerboard both diagonals occur equally."""
    mesh = pixel_mesh(np.ones((4, 4), dtype=bool), 1.0)
    vertex_degree = np.bincount(mesh.triangles[:, :3].ravel(), minlength=len(mesh.nodes))[mesh.vertices]
    inner = np.setdiff1d(mesh.vertices, mesh.boundary)
    degrees = vertex_degree[np.isin(mesh.vertices, inner)]
    assert sorted(set(degrees.tolist())) == [4, 8]


@pytest.mark.parametrize(
    ("mask", "size", "message"),
    [
        (np.zeros((3, 3), dtype=bool), 1.0, "has no pixel"),
        (np.ones(3, dtype=bool), 1.0, r"must have shape \(ny, nx\)"),
        (np.ones((2, 2), dtype=bool), 0.0, "must be positive"),
        (np.ones((2, 2), dtype=bool), float("nan"), "must be positive"),
    ],
)
def test_refusals(mask, size, message):
    with pytest.raises(ValueError, match=message):
        pixel_mesh(mask, size)
