"""Model M2: densities come back, the law is not worse for them, and nobody finds dislocations where there are none."""

from dataclasses import replace

import numpy as np
import pytest

from checks import assert_adjoint, platelet, random_maps
from chemomech.learn.dislocation_density import (
    DensityModel,
    DislocatedEquilibrium,
    MeasuredBody,
    burgers_vector,
    frobenius_norm,
)
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.law import EigenstrainLaw
from chemomech.learn.twins import Noise, add_noise, expansion_error, make_particle
from chemomech.mechanics.dislocated_body import CHANNELS_OF_DISTORTION
from chemomech.mechanics.dislocations import StraightDislocation
from chemomech.mechanics.mesh import pixel_mesh
from chemomech.mechanics.plane_stress import PlaneStress
from chemomech.mechanics.stiffness import OLIVINE, plane_stress

MASK = platelet(10, 16)
N = int(MASK.sum())
LAW = EigenstrainLaw(np.array([[0.021, 0.0025], [-0.012, -0.0018]]), np.zeros((4, 4)))
#: Every pixel of random maps has its own noise of strain and rotation.
DEVIATION = np.random.default_rng(5).uniform(0.001, 0.003, (N, 4))


def measured(mask=MASK):
    return MeasuredBody(random_maps(mask), DEVIATION, OLIVINE)


def with_lines(maps, label, n_lines, seed):
    """The same particle with dislocations in ten crowds, each of one sign, and their density.

    An independent route to the field: every line by itself at every scan point, none averaged over pixels.
    """
    random = np.random.default_rng(seed)
    ny, nx = maps.mask.shape
    points = maps.pixel_size_nm * (np.argwhere(maps.mask)[:, ::-1] - np.array([nx - 1, ny - 1]) / 2)
    crowd = random.integers(10, size=n_lines)
    lines = points[random.choice(len(points), 10)][crowd] + 80 * random.standard_normal((n_lines, 2))
    inside = np.linalg.norm(lines[:, None] - points, axis=2).min(axis=1) < maps.pixel_size_nm / 2
    lines, signs = lines[inside], np.where(crowd[inside] % 2, 1.0, -1.0)
    line = StraightDislocation(OLIVINE, burgers_vector(label, maps))
    beta = line.plane_distortion(points, lines_nm=lines, signs=signs, core_nm=5.0).reshape(-1, 4)
    channels = beta @ CHANNELS_OF_DISTORTION.T
    body = PlaneStress(pixel_mesh(maps.mask, maps.pixel_size_nm), plane_stress(OLIVINE))
    relaxed = body.displacement(body.eigenstrain_loads(channels[:, :3, None]))
    channels -= body.distortion(relaxed)[..., 0]
    density = len(lines) / (maps.mask.sum() * maps.pixel_size_nm**2)
    return replace(maps, distortion=maps.distortion + np.nan_to_num(maps.to_map(channels))), density


def test_transposes():
    """From eigenstrain, from the measured channels and from densities to the data that are fitted."""
    maps = random_maps(MASK)
    model = DislocatedEquilibrium(maps, DEVIATION, OLIVINE, burgers_vector("[001]", maps), 1e-4)
    random = np.random.default_rng(0)
    own = measured()
    vectors = model.weigh("distortion", own.centre(random.standard_normal((N, 4, 2)), own.weights))
    assert_adjoint(
        lambda e: model.respond(e)["distortion"],
        lambda v: model.transpose("distortion", v)[0],
        random.standard_normal((N, 3, 2)),
        vectors,
    )
    assert_adjoint(
        lambda channels: own.centre(channels, own.weights),
        lambda v: model.transpose("distortion", v)[1],
        random.standard_normal((N, 4, 2)),
        vectors,
    )
    density = DensityModel(own, burgers_vector("[001]", maps))
    assert_adjoint(density.distortion, density.transpose, random.standard_normal((N, 2)), vectors)


def test_densities_are_a_noise_with_their_covariance():
    """Weighing with the densities eliminated is (W^-1 + s^2 G G^T)^-1, here as a dense matrix (Woodbury).

    Rotations count up to a constant of each piece, so both are compared on channels that are centred. Conjugate
    gradients stop at 1e-3 of the residual.
    """
    own = measured()
    burgers, s = burgers_vector("[001]", own.maps), 2e-4
    model = DislocatedEquilibrium(own.maps, DEVIATION, OLIVINE, burgers, s)
    G = DensityModel(own, burgers).distortion(np.eye(N)).reshape(4 * N, N)
    W = np.diag(own.weights.ravel())
    dense = W - W @ G @ np.linalg.solve(G.T @ W @ G + np.eye(N) / s**2, G.T @ W)
    vectors = own.centre(np.random.default_rng(1).standard_normal((N, 4, 2)), own.weights)
    expected = (dense @ vectors.reshape(4 * N, 2)).reshape(vectors.shape)
    found = model.weigh("distortion", vectors)
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.fixture(scope="module")
def experiment():
    """Three small particles of [001] dislocations, with noise, and the true density of lines."""
    clean = [make_particle(f"P{i}", LAW, length_nm=2500, seed=i) for i in range(3)]
    pairs = [with_lines(maps, "[001]", 400, seed) for seed, maps in enumerate(clean)]
    density = np.average([d for _, d in pairs], weights=[maps.mask.sum() for maps, _ in pairs])
    return [add_noise(maps, Noise(), seed) for seed, (maps, _) in enumerate(pairs)], density


@pytest.fixture(scope="module")
def learned(experiment):
    return learn_eigenstrain(experiment[0], order=2, models=("M1", "M2"))


def test_dislocations_are_found_in_number_and_kind(experiment, learned):
    """The limits promised: the right kind, the density within a factor 1.4, the error at least a quarter below M1."""
    found = learned.dislocations
    assert found.burgers == "[001]"
    assert 1 / 1.4 < found.mean_abs_density_per_nm2 / experiment[1] < 1.4
    assert learned.model_error["M2"] < 0.75 * learned.model_error["M1"]
    by_label = {candidate.burgers: candidate for candidate in found.candidates}
    assert by_label["[001]"].held_out_misfit < 0.7 * by_label[None].held_out_misfit
    # The other kind follows strains that it cannot foresee.
    assert by_label["[100]"].held_out_misfit > by_label[None].held_out_misfit


def test_the_law_is_not_worse_for_the_dislocations(learned):
    """Over 14 such experiments the error of M2 had a root mean square of 1.5 % along a and 1.8 % along c (M1: 1.5 and
    2.3 %); three times that is allowed. The residual comes near to noise."""
    assert np.all(expansion_error(learned.laws["M2"], LAW) < (0.045, 0.055))
    assert learned.uncertainty["M2"].unexplained_ratio < 0.6 * learned.uncertainty["M1"].unexplained_ratio


def test_maps_of_the_dislocations(experiment, learned):
    """What is left and what is explained add up to the residual under this law; the density agrees with the curl.

    The curl is noisy from pixel to pixel, and the density is regularised: correlation, not equality.
    """
    for maps in experiment[0]:
        own = learned.dislocations.particles[maps.name]
        curl = own.burgers_density_per_nm[..., 1]
        inside = np.isfinite(curl)
        assert np.corrcoef(curl[inside], own.density_per_nm2[inside])[0, 1] > 0.6
        assert own.mean_abs_of_noise_per_nm2 < 0.7 * own.mean_abs_density_per_nm2
        residual = frobenius_norm(own.residual_strain)[maps.mask].mean()
        assert residual < frobenius_norm(own.residual_strain + own.strain)[maps.mask].mean()


@pytest.mark.parametrize("told", [0.9, 1.0, 1.1])
def test_the_density_does_not_hang_on_the_noise(experiment, told):
    """With the true noise given, or 10 % off, the density is what the lines make it, within the factor promised."""
    sizes = {"composition": 0.04, "aa": 0.002, "cc": 0.002, "ac": 0.004, "rotation": 0.002}
    given = [
        replace(maps, uncertainty={name: np.full(maps.mask.shape, told * size) for name, size in sizes.items()})
        for maps in experiment[0]
    ]
    found = learn_eigenstrain(given, order=2, models=("M1", "M2")).dislocations
    assert found.burgers == "[001]"
    assert 1 / 1.4 < found.mean_abs_density_per_nm2 / experiment[1] < 1.4


def test_a_particle_that_is_held_out_has_no_say():
    """Spoiling it changes neither law nor bands nor candidates of the others, to the bit."""
    clean = [with_lines(make_particle(f"P{i}", LAW, length_nm=1500, seed=i), "[001]", 150, i)[0] for i in range(3)]
    *fitted, judge = [add_noise(maps, Noise(), seed) for seed, maps in enumerate(clean)]
    spoiled = replace(judge, distortion=judge.distortion * np.array([1, -1, 3, 0.2]))
    options = {"order": 2, "test": (judge.name,), "models": ("M1", "M2")}
    kept, other = (learn_eigenstrain([*fitted, last], **options) for last in (judge, spoiled))
    assert kept.dislocations.burgers == "[001]"
    for model in ("M1", "M2"):
        np.testing.assert_array_equal(kept.laws[model].coefficients, other.laws[model].coefficients)
        np.testing.assert_array_equal(kept.laws[model].covariance, other.laws[model].covariance)
    assert kept.dislocations.candidates == other.dislocations.candidates


def test_a_rotation_of_the_wrong_sign_is_reported(experiment):
    """No dislocation turns the lattice against its own strain: the misfit of M2 stays, and the reader is warned."""
    turned = replace(experiment[0][0], distortion=experiment[0][0].distortion * np.array([1, 1, 1, -1]))
    warnings = learn_eigenstrain([turned], order=1, models=("M1", "M2")).warnings
    assert any(warning.startswith("M2: the residual strain has") for warning in warnings)


def test_no_dislocations_are_found_where_there_are_none():
    """Coherent particles: no kind is chosen, no density is left, and the law is that of M1 within its error."""
    clean = [make_particle(f"P{i}", LAW, length_nm=2000, seed=i) for i in range(3)]
    noisy = [add_noise(maps, Noise(), seed=i) for i, maps in enumerate(clean)]
    result = learn_eigenstrain(noisy, order=2, models=("M1", "M2"))
    assert result.dislocations.burgers is None
    assert result.dislocations.mean_abs_density_per_nm2 < 1e-8
    difference = result.laws["M2"].coefficients - result.laws["M1"].coefficients
    assert np.all(np.abs(difference) < 2 * result.laws["M1"].standard_error)
