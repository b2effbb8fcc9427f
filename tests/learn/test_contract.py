"""Numbers that files and users rely on, checked by hand on results small enough to write down."""

from dataclasses import replace

import numpy as np
import pytest

from checks import platelet, two_phase_composition
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.law import EigenstrainLaw
from chemomech.learn.twins import Noise, add_noise, make_particle
from chemomech.mechanics.compatibility import incompatibility
from chemomech.observe.maps import CorrelativeMaps

LAW = EigenstrainLaw(np.array([[0.02, 0.001], [-0.01, 0.0]]), np.zeros((4, 4)))


@pytest.fixture(scope="module")
def noisy():
    return [add_noise(make_particle(f"P{i}", length_nm=1800, seed=i), Noise(), seed=i) for i in range(4)]


def freely_strained(residual):
    """Two-phase maps whose strain is the law's plus a given residual (aa, cc, 2 ac) in every pixel; no noise."""
    mask = platelet()
    composition = two_phase_composition(mask)
    distortion = np.zeros((*mask.shape, 4))
    distortion[..., :2] = LAW(composition)
    distortion[..., :3] += residual
    small = {name: np.full(mask.shape, 1e-5) for name in ("composition", "aa", "cc", "ac", "rotation")}
    return CorrelativeMaps("P", 50.0, mask, composition, distortion, uncertainty=small)


def test_model_error_is_the_mean_frobenius_norm():
    """A residual of shear alone: |[[0, s], [s, 0]]| = sqrt(2) |s| with s = eps_ac, half of what the maps hold.

    Its sign alternates from column to column, so that its mean over pixels is no norm, and its size doubles in half of
    the rows, so that the mean of norms is not their root mean square.
    """
    shape = platelet().shape
    size = np.where(np.arange(shape[0])[:, None] < shape[0] // 2, 0.001, 0.002) * np.ones(shape)
    residual = np.zeros((*shape, 3))
    residual[..., 2] = 2 * size * (-1.0) ** np.arange(shape[1])
    maps = freely_strained(residual)
    result = learn_eigenstrain([maps], order=2, models=("M0",))
    assert result.model_error["M0"] == pytest.approx(np.sqrt(2) * size[maps.mask].mean(), rel=1e-6)


def test_the_incompatibility_is_that_of_the_residual(noisy):
    result = learn_eigenstrain(noisy, order=2)
    particle = result.particles["P0"]
    field = incompatibility(particle.residual_strain, particle.maps.mask, particle.maps.pixel_size_nm)
    assert particle.rms_incompatibility_per_nm2 == pytest.approx(np.sqrt(np.nanmean(field**2)))


@pytest.mark.parametrize("boundary", ["free", "dirichlet"])
@pytest.mark.parametrize("misfit", ["strain", "displacement"])
def test_strains_add_up(noisy, boundary, misfit):
    """Measured = eigenstrain + coherency + residual in every pixel, coherency is small (Deng SI, eq. 5.1)."""
    exact = [replace(each, uncertainty={"composition": np.full(each.mask.shape, 1e-12)}) for each in noisy[:2]]
    result = learn_eigenstrain(exact, order=1, boundary=boundary, misfit=misfit)
    particle = result.particles["P0"]
    inside = particle.maps.mask
    total = particle.coherency_strain + particle.residual_strain
    total[..., :2] += result.laws["M1"](particle.maps.composition)
    np.testing.assert_allclose(total[inside], particle.maps.distortion[inside, :3], atol=1e-12)
    assert np.sqrt(np.mean(particle.coherency_strain[inside] ** 2)) < 0.006


def test_a_widened_covariance_is_the_propagated_one_times_the_ratio(noisy):
    random = np.random.default_rng(0)
    loud = [
        replace(
            maps,
            distortion=maps.distortion
            + 0.002
            * np.kron(random.standard_normal((9, 25, 4)), np.ones((4, 4, 1)))[
                : maps.mask.shape[0], : maps.mask.shape[1]
            ],
        )
        for maps in noisy[:2]
    ]
    result = learn_eigenstrain(loud, order=1, models=("M1",))
    uncertainty = result.uncertainty["M1"]
    assert uncertainty.unexplained_ratio > 1.25
    np.testing.assert_allclose(
        result.laws["M1"].covariance, uncertainty.unexplained_ratio * uncertainty.estimates["propagated"]
    )


def test_disagreeing_particles_are_noticed(noisy):
    """Each particle with a slope of its own along a (3 %), too little to show in the variance of the residual."""
    factors = (0.97, 1.03, 0.97, 1.03)
    own = [
        replace(maps, distortion=maps.distortion * np.array([factor, 1, 1, 1]))
        for maps, factor in zip(noisy, factors, strict=True)
    ]
    uncertainty = learn_eigenstrain(own, order=2, models=("M1",)).uncertainty["M1"]
    assert uncertainty.unexplained_ratio < 1.25
    assert uncertainty.used == "particle bootstrap"
    assert learn_eigenstrain(noisy, order=2, models=("M1",)).uncertainty["M1"].used == "propagated"


def test_a_pixels_own_composition_noise_is_used(noisy):
    """Half of the pixels much noisier than the other half: told so, the fit does not flatten."""
    random = np.random.default_rng(1)
    told, untold = [], []
    for maps in noisy:
        deviation = np.where(np.indices(maps.mask.shape)[1] % 2, 0.25, 0.01)
        composition = maps.composition + deviation * random.standard_normal(maps.mask.shape)
        total = np.sqrt(deviation**2 + 0.04**2)
        untold.append(replace(maps, composition=composition))
        told.append(replace(maps, composition=composition, uncertainty={"composition": total}))
    slopes = [learn_eigenstrain(maps, order=1).laws["M0"].coefficients[0, 0] for maps in (told, untold)]
    assert abs(slopes[0] / 0.0245 - 1) < 0.03
    assert abs(slopes[0] / slopes[1] - 1) > 0.005


def test_clipping_is_noticed(noisy):
    clipped = [replace(maps, composition=np.clip(maps.composition, 0, 1)) for maps in noisy]
    assert any("clipping" in warning for warning in learn_eigenstrain(clipped, order=1).warnings)
    assert not any("clipping" in warning for warning in learn_eigenstrain(noisy, order=1).warnings)


@pytest.mark.parametrize(
    "test", [pytest.param((), id="in turn"), pytest.param(("P3",), id="one held out", marks=pytest.mark.slow)]
)
def test_the_order_of_the_truth_is_chosen(test):
    """Laws of orders 1, 2 and 3 with clear terms, 8 experiments of four small particles each.

    A one-standard-error rule with four judges takes a neighbouring order now and then: of 60 experiments 50 (83 %) were
    right in turn and 49 with one held out. 17 of 24 is 1.6 standard deviations below that; pure chance would find 5.
    """
    hits = 0
    for truth in (1, 2, 3):
        coefficients = np.array([[0.0245, -0.003, 0.003], [-0.0098, 0.0015, -0.0015]])[:, :truth]
        law = EigenstrainLaw(coefficients, np.zeros((2 * truth, 2 * truth)))
        clean = [make_particle(f"P{i}", law, length_nm=2400, seed=i) for i in range(4)]
        for seed in range(8):
            maps = [add_noise(each, Noise(), seed=100 * seed + i) for i, each in enumerate(clean)]
            hits += learn_eigenstrain(maps, test=test, models=("M1",)).order == truth
    assert hits >= 17
