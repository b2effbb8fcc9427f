"""The field of dislocations in a free body."""

import numpy as np
import pytest

from checks import assert_adjoint, platelet
from chemomech.mechanics.compatibility import burgers_density
from chemomech.mechanics.dislocated_body import DislocatedBody
from chemomech.mechanics.dislocations import DensityField, StraightDislocation
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import OLIVINE, plane_stress

PIXEL_NM = 50.0
C_NM = 0.469


def dislocated(mask, stiffness_GPa=OLIVINE):
    body = PlaneStress(pixel_mesh(mask, PIXEL_NM), plane_stress(OLIVINE))
    line = StraightDislocation(stiffness_GPa, np.array([0.0, 0.0, C_NM]))
    return body, DislocatedBody(body, mask, DensityField(line, mask.shape, PIXEL_NM))


def disc(n):
    y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j]
    return x**2 + y**2 <= 1


def test_the_transpose():
    """The shape has a hole, a neck and a second part."""
    mask = platelet()
    _, both = dislocated(mask)
    random = np.random.default_rng(0)
    n = int(mask.sum())
    assert_adjoint(both.distortion, both.transpose, random.standard_normal((n, 3)), random.standard_normal((n, 4, 3)))


def test_the_mean_stress_of_each_piece_vanishes():
    """A body in equilibrium without traction has none, whatever is inside it (to rounding of the elastic solution)."""
    mask = platelet()
    body, both = dislocated(mask)
    random = np.random.default_rng(1)
    strain = both.distortion(1e-4 * random.standard_normal((int(mask.sum()), 1)))[:, :3, 0]
    stress = strain @ body.stiffness_GPa
    for piece in range(body.mesh.component.max() + 1):
        inside = body.mesh.component == piece
        assert np.abs(stress[inside].mean(axis=0)).max() < 1e-9 * np.abs(stress).max()


def test_the_curl_of_the_field_is_the_density():
    """A smooth density comes back from central differences up to their second-order error, 1 % at 20 pixels a period.

    What the body adds is compatible: it bends no circuit.
    """
    mask = disc(61)
    _, both = dislocated(mask)
    y, x = np.indices(mask.shape)
    density = 1e-4 * np.sin(2 * np.pi * x / 40) * np.cos(2 * np.pi * y / 40)
    grid = np.full((*mask.shape, 4), np.nan)
    grid[mask] = both.distortion(density[mask][:, None])[..., 0]
    along_a, along_c = np.moveaxis(burgers_density(grid, mask, PIXEL_NM), -1, 0)
    inner = np.isfinite(along_c) & (np.hypot(x - 30, y - 30) < 24)  # away from the stairs of the edge
    size = 1e-4 * C_NM
    assert np.abs(along_c - C_NM * density)[inner].max() < 0.02 * size
    assert np.abs(along_a[inner]).max() < 0.02 * size


def test_only_the_curl_matters():
    """The infinite crystal may have any stiffness: the body takes its stress off and keeps the incompatibility.

    Strains of two such fields differ by a discretisation error, of second order in the pixel.
    """
    errors = []
    for n in (21, 41, 81):
        mask = disc(n)
        y, x = np.mgrid[-1 : 1 : n * 1j, -1 : 1 : n * 1j][:, mask]
        density = (1e-4 * (20 / n) * np.exp(-10 * ((x - 0.2) ** 2 + y**2)))[:, None]
        softer = OLIVINE * (1 + 0.4 * np.add.outer(np.arange(6) == 0, np.arange(6) == 0))
        fields = [dislocated(mask, stiffness)[1].distortion(density)[:, :3] for stiffness in (OLIVINE, softer)]
        errors.append(np.sqrt(np.mean((fields[0] - fields[1]) ** 2) / np.mean(fields[0] ** 2)))
    assert errors[-1] < 0.02
    assert errors[0] / errors[-1] == pytest.approx(16, rel=0.6)
