"""The independent forward model."""

import numpy as np
import pytest

from checks import convergence_rates
from chemomech.errors import InputError
from chemomech.mechanics.finite_difference import free_distortion
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import OLIVINE, plane_stress

STIFFNESS = plane_stress(OLIVINE)


def square_and_field(n):
    """A square with a smooth eigenstrain sampled at cell centres, on n x n cells of one fixed size."""
    y, x = (np.indices((n, n)) + 0.5) / n
    field = np.cos(3 * x + 1) * np.sin(2 * y) + 0.5 * np.tanh((x + y - 1) / 0.2)
    return np.ones((n, n), dtype=bool), np.stack([0.02 * field, -0.01 * field], axis=-1)


def coarsen(field, n):
    step = field.shape[0] // n
    return field.reshape(n, step, n, step, -1).mean(axis=(1, 3))


def test_a_uniform_eigenstrain_is_the_strain():
    mask = np.ones((6, 8), dtype=bool)
    mask[:2, :4] = False
    distortion = free_distortion(mask, 10.0, STIFFNESS, np.tile([0.02, -0.01], (6, 8, 1)))
    np.testing.assert_allclose(distortion[mask], np.tile([0.02, -0.01, 0, 0], (mask.sum(), 1)), atol=1e-14)


def test_it_agrees_with_finite_elements_at_second_order():
    """Strains averaged to 8 x 8 blocks approach those of quadratic elements on 128 cells like h^2."""
    reference_mask, eigenstrain = square_and_field(128)
    body = PlaneStress(pixel_mesh(reference_mask, 1 / 128), STIFFNESS)
    load = np.concatenate([eigenstrain.reshape(-1, 2), np.zeros((128**2, 1))], axis=1)[..., None]
    strain = body.strain(body.displacement(body.eigenstrain_loads(load)))[..., 0].reshape(128, 128, 3)
    errors = []
    for n in (16, 32, 64):
        mask, eigenstrain = square_and_field(n)
        ours = free_distortion(mask, 1 / n, STIFFNESS, eigenstrain)[..., :3]
        errors.append(np.sqrt(np.mean((coarsen(ours, 8) - coarsen(strain, 8)) ** 2)))
    assert convergence_rates(errors) == pytest.approx(2, abs=0.3)
    assert errors[-1] < 2e-3 * 0.02


def test_the_rotation_is_that_of_the_finite_elements():
    """Up to the mean rotation, which a free body does not fix; the edge is averaged from one side only."""
    mask, eigenstrain = square_and_field(64)
    ours = free_distortion(mask, 1 / 64, STIFFNESS, eigenstrain)[..., 3]
    mesh = pixel_mesh(mask, 1 / 64)
    body = PlaneStress(mesh, STIFFNESS)
    load = np.concatenate([eigenstrain.reshape(-1, 2), np.zeros((64**2, 1))], axis=1)[..., None]
    u = body.displacement(body.eigenstrain_loads(load))[..., 0]
    number = mesh.centres.reshape(64, 64)
    dv_dx = (u[number[1:-1, 2:], 1] - u[number[1:-1, :-2], 1]) * 32
    du_dy = (u[number[2:, 1:-1], 0] - u[number[:-2, 1:-1], 0]) * 32
    theirs = (dv_dx - du_dy) / 2
    difference = ours[1:-1, 1:-1] - theirs
    assert np.std(difference) < 0.01 * np.std(theirs)


@pytest.mark.parametrize(
    "mask",
    [np.ones((1, 5), bool), np.array([[1, 1, 0], [1, 1, 1]], bool), np.kron(np.eye(2), np.ones((2, 2))).astype(bool)],
    ids=["strip", "tip", "two pieces"],
)
def test_masks_it_cannot_hold_together_are_refused(mask):
    with pytest.raises(InputError, match="2 x 2"):
        free_distortion(mask, 1.0, STIFFNESS, np.zeros((*mask.shape, 2)))
