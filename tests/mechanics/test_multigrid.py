"""The iterative solver against the direct one, on bodies that are awkward for aggregation."""

import numpy as np
import pytest

import chemomech.mechanics.multigrid as multigrid
from chemomech.errors import ConvergenceError
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import _RTOL, PlaneStress
from chemomech.mechanics.stiffness import OLIVINE, plane_stress

STIFFNESS = plane_stress(OLIVINE)


def square_with_holes():
    mask = np.ones((40, 50), dtype=bool)
    mask[5:12, 5:30] = mask[20:35, 20:22] = mask[25, 40] = False
    return mask


def necks():
    """Three blocks joined by a neck one pixel wide, and by one that is forty pixels long."""
    mask = np.zeros((30, 100), dtype=bool)
    mask[:, :20] = mask[:, 24:50] = mask[:, 90:] = True
    mask[10, 20:24] = mask[20, 50:90] = True
    return mask


def islands():
    """Several components, among them a lone pixel, a hinge of two pixels and a ragged crumb."""
    mask = np.zeros((60, 60), dtype=bool)
    mask[:25, :40] = mask[30:, 10:] = True
    mask[27, 2] = mask[27, 50] = mask[28, 51] = True
    mask[5:20, 45:58] = np.random.default_rng(0).random((15, 13)) < 0.7
    return mask


def random_loads(body, k, seed=0):
    eigenstrain = np.random.default_rng(seed).standard_normal((body.mesh.n_cells, 3, k))
    return body.eigenstrain_loads(eigenstrain)


@pytest.fixture
def counted(monkeypatch):
    """Number of cycles run so far."""
    counts = [0]
    cycle = multigrid.Multigrid._cycle

    def counting(self, vectors, depth=0):
        counts[0] += depth == 0
        return cycle(self, vectors, depth)

    monkeypatch.setattr(multigrid.Multigrid, "_cycle", counting)
    return counts


@pytest.mark.parametrize("held", [None, "boundary"])
@pytest.mark.parametrize("shape", [square_with_holes, necks, islands])
def test_multigrid_equals_direct(shape, held):
    """In the strain, which is what is compared with the image.

    The relative residual is `_RTOL`; the error of the strain is larger by up to the square root of the condition
    number after preconditioning (about ten) and of the ratio of smooth to rough loads (about ten on these bodies).
    """
    mesh = pixel_mesh(shape(), 7.0)
    direct, iterated = (PlaneStress(mesh, STIFFNESS, held=held, solver=s) for s in ("direct", "multigrid"))
    loads = random_loads(direct, 6)
    expected, found = (body.strain(body.displacement(loads)) for body in (direct, iterated))
    error = np.linalg.norm(found - expected, axis=(0, 1)) / np.linalg.norm(expected, axis=(0, 1))
    assert error.max() < 100 * _RTOL


def test_a_mesh_smaller_than_the_coarsest_level():
    """Two pixels: the linear triangles are solved at once. The residual is all there is to the error here."""
    mesh = pixel_mesh(np.ones((1, 2), dtype=bool), 7.0)
    direct, iterated = (PlaneStress(mesh, STIFFNESS, solver=s) for s in ("direct", "multigrid"))
    loads = random_loads(direct, 1)
    np.testing.assert_allclose(
        iterated.displacement(loads), direct.displacement(loads), atol=10 * _RTOL * np.abs(loads).max()
    )


@pytest.mark.parametrize("held", [None, "boundary"])
def test_iterations_hardly_grow_with_size(counted, held):
    """16 times the pixels; smoothed aggregation adds a level, whose inexact solution costs an iteration or two."""
    iterations = []
    for n in (32, 64, 128):
        y, x = np.mgrid[:n, :n] / n
        body = PlaneStress(pixel_mesh(np.ones((n, n), dtype=bool), 5.0), STIFFNESS, held=held, solver="multigrid")
        eigenstrain = np.stack([np.sin(9 * x * y), x**2 - y, np.cos(5 * x)], axis=-1).reshape(-1, 3, 1)
        before = counted[0]
        body.displacement(body.eigenstrain_loads(eigenstrain))
        iterations.append(counted[0] - before)
    assert max(iterations) <= 1.3 * min(iterations)


def test_refusal_carries_iterations_and_residual(monkeypatch):
    monkeypatch.setattr(multigrid, "_MAX_ITERATIONS", 3)
    body = PlaneStress(pixel_mesh(square_with_holes(), 5.0), STIFFNESS, solver="multigrid")
    with pytest.raises(ConvergenceError) as caught:
        body.displacement(random_loads(body, 1))
    assert caught.value.iterations == 3
    assert _RTOL < caught.value.residual < 0.1  # three cycles that each divide it by more than two


@pytest.mark.parametrize("held", [None, "boundary"])
def test_preconditioner_is_symmetric_and_positive(held):
    """x . M y = y . M x to single precision, amplified by the sums over the levels; x . M x > 0."""
    body = PlaneStress(pixel_mesh(islands(), 5.0), STIFFNESS, held=held, solver="multigrid")
    solver = body._invert._multigrid
    loads = random_loads(body, 4)[body._free].astype(np.float32)
    vectors = [np.empty((4, *level.inverse_diagonal.shape[:2], 4), dtype=np.float32) for level in solver._levels]
    vectors[0][0] = loads
    answers = solver._cycle(vectors).reshape(-1, 4).astype(float)
    energies = loads.reshape(-1, 4).astype(float).T @ answers
    np.testing.assert_allclose(energies, energies.T, rtol=0, atol=1e-5 * np.abs(energies).max())
    assert np.linalg.eigvalsh(energies).min() > 0


def test_columns_do_not_see_each_other():
    """A column alone, beside a zero one, beside one 1e30 times larger, in another batch: the same to the tolerance."""
    body = PlaneStress(pixel_mesh(square_with_holes(), 5.0), STIFFNESS, solver="multigrid")
    alone = random_loads(body, 1)
    other = random_loads(body, 1, seed=1)
    columns = np.concatenate([alone, 0 * alone, 1e30 * other, other, 1e-30 * alone, alone], axis=2)
    found = body.displacement(columns)
    assert np.isfinite(found).all()
    assert not found[..., 1].any()
    expected = body.displacement(alone)[..., 0]
    for column in (found[..., 0], 1e30 * found[..., 4], found[..., 5]):
        np.testing.assert_allclose(column, expected, atol=100 * _RTOL * np.abs(expected).max())
