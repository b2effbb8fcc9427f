"""The map from an eigenstrain to what the microscope shows, and its transpose."""

import numpy as np
import pytest

from checks import assert_adjoint, platelet, random_maps
from chemomech.learn.observation import DirectRegression, Equilibrium
from chemomech.mechanics.stiffness import OLIVINE, plane_stress

STIFFNESS = plane_stress(OLIVINE)
MASK = platelet()
N = int(MASK.sum())


def observation(maps, boundary, model="M1"):
    deviation = np.full((N, 4), 0.002)
    if model == "M0":
        return DirectRegression(maps, deviation)
    return Equilibrium(maps, deviation, STIFFNESS, boundary, ("strain", "displacement"))


@pytest.mark.parametrize("boundary", ["free", "dirichlet"])
@pytest.mark.parametrize("view", ["strain", "displacement"])
@pytest.mark.parametrize("uncertain", [False, True], ids=["equal weights", "weighted"])
def test_transposes(boundary, view, uncertain):
    """Both linear maps, eigenstrain to prediction and channels to data, against their transposes."""
    maps = random_maps(MASK, uncertainty=uncertain)
    n_channels = 3 if view == "strain" else 2
    random = np.random.default_rng(0)
    vectors = random.standard_normal((N, n_channels, 1))
    seen = observation(maps, boundary)
    assert_adjoint(
        lambda e: seen.respond(e)[view],
        lambda v: seen.transpose(view, v)[0],
        random.standard_normal((N, 3, 1)),
        vectors,
    )

    def data(channels):
        changed = random_maps(MASK, uncertainty=uncertain)
        changed.distortion[MASK] = channels[..., 0]
        return observation(changed, boundary).data[view][..., None]

    assert_adjoint(data, lambda v: seen.transpose(view, v)[1], random.standard_normal((N, 4, 1)), vectors)


def test_direct_regression_is_the_identity():
    seen = observation(random_maps(MASK), "free", "M0")
    eigenstrain = np.random.default_rng(0).standard_normal((N, 3, 2))
    np.testing.assert_array_equal(seen.respond(eigenstrain)["strain"], eigenstrain)
    np.testing.assert_array_equal(seen.transpose("strain", eigenstrain)[1][:, :3], eigenstrain)


@pytest.mark.parametrize("boundary", ["free", "dirichlet"])
def test_exact_maps_leave_no_misfit(boundary):
    """Data made by the model itself are explained by the eigenstrain that made them (an inverse crime, on purpose).

    The held edge is extrapolated from integrated strains, which is only accurate to second order in the pixel: there
    the data must be explained to a few per cent of the strain.
    """
    eigenstrain = np.zeros((N, 3, 1))
    y, x = (axis[MASK] for axis in np.indices(MASK.shape))
    eigenstrain[:, 0, 0], eigenstrain[:, 1, 0] = 0.02 * np.sin(x / 8), -0.01 * np.cos(y / 6)
    maps = random_maps(MASK)
    free = observation(maps, "free")
    body = free._body
    u = body.displacement(body.eigenstrain_loads(eigenstrain))
    strain = body.strain(u)[..., 0]
    from chemomech import _core

    mesh = body.mesh
    gradient = _core.cell_distortions(body._pattern, mesh.nodes, mesh.cells, mesh.n_cells, u)[..., 0]
    maps.distortion[MASK] = np.column_stack([strain, (gradient[:, 2] - gradient[:, 1]) / 2])
    seen = observation(maps, boundary)
    predicted = seen.respond(eigenstrain)
    tolerance = 1e-12 if boundary == "free" else 0.05 * np.abs(strain).max()
    assert np.sqrt(np.mean((predicted["strain"][..., 0] - seen.data["strain"]) ** 2)) < tolerance
    size = np.sqrt(np.mean(free.respond(eigenstrain)["displacement"] ** 2))
    misfit = np.sqrt(np.mean((predicted["displacement"][..., 0] - seen.data["displacement"]) ** 2))
    assert misfit < 0.03 * size
