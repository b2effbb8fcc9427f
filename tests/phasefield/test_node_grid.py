"""Nodes of a body of voxels: volumes, surfaces, and the transposed pair between nodes and voxels."""

from itertools import product

import numpy as np
import pytest

from chemomech import _core
from chemomech.mechanics.box import Box
from chemomech.phasefield.node_grid import node_grid

SPACING = np.array([1.0, 0.7, 2.0])
OPEN = (False, False, False)
SOLID = np.random.default_rng(1).random((6, 5, 7)) < 0.6


def assembled(solid, spacing, axis_weights=(1.0, 1.0, 1.0)):
    """Edges of every voxel, one by one: a quarter of its cross-section over its length."""
    nodes = np.arange(np.prod(np.add(solid.shape, 1))).reshape(np.add(solid.shape, 1))
    matrix = np.zeros((nodes.size, nodes.size))
    for cell in np.argwhere(solid):
        for axis, (p, q) in product(range(3), product((0, 1), repeat=2)):
            low = list(cell + np.insert([p, q], axis, 0))
            high = list(cell + np.insert([p, q], axis, 1))
            i, j = nodes[tuple(low)], nodes[tuple(high)]
            g = axis_weights[axis] * np.prod(spacing) / (4 * spacing[axis] ** 2)
            matrix[[i, j, i, j], [i, j, j, i]] += [g, g, -g, -g]
    return matrix


@pytest.mark.parametrize("periodic", [OPEN, (True, False, True)])
def test_volume_is_that_of_the_voxels(periodic):
    grid = node_grid(SOLID, SPACING, Box(SOLID.shape, periodic))
    assert grid.volume == pytest.approx(SOLID.sum() * SPACING.prod(), rel=1e-14)


def test_surface_is_that_of_the_faces():
    grid = node_grid(SOLID, SPACING, Box(SOLID.shape, OPEN))
    padded = np.pad(SOLID, 1).astype(int)
    area = sum(np.abs(np.diff(padded, axis=a)).sum() * SPACING.prod() / SPACING[a] for a in range(3))
    assert grid.surface.sum() == pytest.approx(area, rel=1e-14)


def test_spread_equals_the_assembled_matrix():
    grid = node_grid(SOLID, SPACING, Box(SOLID.shape, OPEN))
    field = grid.of_nodes(np.random.default_rng(2).standard_normal(grid.box.nodes))
    out = grid.field()
    _core.spread(grid.edges, field, out)
    expected = assembled(SOLID, SPACING) @ field[grid.box.owned].ravel()
    np.testing.assert_allclose(out[grid.box.owned].ravel(), expected, atol=1e-13)


def test_spread_of_a_constant_is_exactly_nothing():
    grid = node_grid(SOLID, SPACING, Box(SOLID.shape, OPEN))
    out = grid.field(1.0)
    _core.spread(grid.edges, grid.field(0.3), out)
    assert not out[grid.box.owned].any()


def test_a_periodic_body_may_be_shifted():
    """Around a periodic box the same nodes exchange the same amounts wherever it begins."""
    values = np.random.default_rng(3).standard_normal((6, 6, 7))
    results = []
    for shift in (0, 2):
        grid = node_grid(np.roll(SOLID, shift, axis=(0, 2)), SPACING, Box(SOLID.shape, (True, False, True)))
        field, out = grid.of_nodes(np.roll(values, shift, axis=(0, 2))), grid.field()
        _core.spread(grid.edges, field, out)
        results.append(np.roll(out[grid.box.owned], -shift, axis=(0, 2)))
    np.testing.assert_allclose(results[1], results[0], atol=1e-13)


@pytest.mark.parametrize("periodic", [OPEN, (True, False, True)])
def test_gather_is_the_transpose_of_cell_means(periodic):
    grid, random = node_grid(SOLID, SPACING, Box(SOLID.shape, periodic)), np.random.default_rng(4)
    nodes, cells = random.standard_normal(grid.box.nodes), random.standard_normal(SOLID.shape)
    there = (grid.cell_means(grid.of_nodes(nodes)) * cells).sum()
    back = (grid.gather(cells)[grid.box.owned] * nodes).sum()
    assert there == pytest.approx(back, rel=1e-13)


def test_mean_of_a_linear_field_is_that_in_the_middle():
    grid = node_grid(SOLID, SPACING, Box(SOLID.shape, OPEN))
    x, y, z = (np.arange(n) * h for n, h in zip(grid.box.nodes, SPACING, strict=True))
    field = grid.of_nodes(2 * x[:, None, None] - y[:, None] + 3 * z)
    middle = [(np.arange(n) + 0.5) * h for n, h in zip(SOLID.shape, SPACING, strict=True)]
    expected = 2 * middle[0][:, None, None] - middle[1][:, None] + 3 * middle[2]
    np.testing.assert_allclose(grid.cell_means(field), expected, atol=1e-13)
