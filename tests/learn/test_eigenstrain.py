"""The main job: the law comes back from maps, with errors that can be believed."""

from dataclasses import replace

import numpy as np
import pytest

from chemomech.errors import ConvergenceError, InputError
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.law import EigenstrainLaw
from chemomech.learn.twins import TWIN_LAW, Noise, add_noise, expansion_error, make_particle

#: Another law than the one everything was tuned with: concave along a, convex along c.
OTHER_LAW = EigenstrainLaw(np.array([[0.021, 0.0025], [-0.012, -0.0018]]), np.zeros((4, 4)))


@pytest.fixture(scope="module")
def clean():
    return [make_particle(f"P{i}", OTHER_LAW, length_nm=3000, seed=i) for i in range(4)]


@pytest.fixture(scope="module")
def noisy(clean):
    return [add_noise(maps, Noise(), seed=i) for i, maps in enumerate(clean)]


@pytest.mark.parametrize("misfit", ["strain", "displacement"])
@pytest.mark.parametrize("boundary", ["free", "dirichlet"])
def test_the_law_comes_back_from_clean_maps(clean, boundary, misfit):
    """What is left is resolution: boundaries are 2.6 pixels wide and the mean of f(X) over a pixel is not f(mean X).

    With f'' = 0.06 and a variance of 0.015 inside boundary pixels that is 4e-4 of strain there, 1 % of the slope. A
    held edge takes its displacement from strains of the edge pixels, where they vary most: 3 %.
    """
    law = learn_eigenstrain(clean, order=2, models=("M1",), boundary=boundary, misfit=misfit).laws["M1"]
    allowed = 0.015 if boundary == "free" else 0.03
    assert expansion_error(law, OTHER_LAW)[0] < allowed
    assert expansion_error(law, OTHER_LAW)[1] < 2 * allowed


def test_the_law_comes_back_from_noisy_maps(noisy):
    """The limits that users were promised: 2 % along a, 5 % along c, at the right order."""
    result = learn_eigenstrain(noisy)
    assert result.order == 2
    along_a, along_c = expansion_error(result.laws["M1"], OTHER_LAW)
    assert along_a < 0.02
    assert along_c < 0.05
    assert result.uncertainty["M1"].used == "propagated"
    assert result.uncertainty["M1"].unexplained_ratio == pytest.approx(1, abs=0.1)
    assert result.model_error["M1"] < result.model_error["M0"]
    assert not result.warnings


def test_physics_beats_regression(clean):
    """Without noise model M1 explains the strain almost wholly; M0 leaves the coherency strain (Deng, Fig. 3e)."""
    error = learn_eigenstrain(clean, order=2).model_error
    assert error["M1"] < 0.1 * error["M0"]


def failing(names):
    """Tasks in which these particles fail."""

    def tasks(description, function, items, cost):
        error = ConvergenceError("elastic equilibrium", iterations=200, residual=0.1, tolerance=1e-7)
        return [error if item[0].name in names else function(item) for item in items]

    return tasks


def test_a_particle_that_fails_is_left_out_and_named(clean):
    """The others give what they would have given without it."""
    result = learn_eigenstrain(clean, order=1, test=("P1",), tasks=failing(["P1", "P2"]))
    assert list(result.particles) == ["P0", "P3"]
    assert "particle P1 was skipped" in result.warnings[0]
    assert "particle P2 was skipped" in result.warnings[1]
    others = learn_eigenstrain([clean[0], clean[3]], order=1)
    np.testing.assert_array_equal(result.laws["M1"].coefficients, others.laws["M1"].coefficients)


def test_the_error_is_raised_when_no_particle_is_left(clean):
    with pytest.raises(ConvergenceError):
        learn_eigenstrain(clean, order=1, test=("P1",), tasks=failing(["P0", "P2", "P3"]))


def coverage(n_sets, particles, law, **options):
    """Share of point-wise 95 % bands of df/dX that hold the truth, over sets and compositions, along a and c."""
    x = np.linspace(0, 1, 11)
    inside = []
    for seed in range(n_sets):
        maps = [add_noise(each, Noise(), seed=1000 * seed + i) for i, each in enumerate(particles)]
        learned = learn_eigenstrain(maps, order=2, models=("M1",), **options).laws["M1"]
        inside.append(np.abs(learned.derivative(x) - law.derivative(x)) <= learned.derivative_band(x))
    return np.mean(inside, axis=(0, 1))


@pytest.mark.slow
def test_bands_hold_the_truth_as_often_as_they_promise():
    """100 sets of three particles with domains six pixels wide (at three the discretisation costs 5 % of the bands).

    Two independent coefficients a set and axis: 200 trials at 95 % have a standard deviation of 1.5 %, so 90 to 99 %
    is three of them below, and the discretisation may cost one.
    """
    small = [make_particle(f"P{i}", OTHER_LAW, length_nm=1800, pixel_size_nm=25, seed=i) for i in range(3)]
    along_a, along_c = coverage(100, small, OTHER_LAW)
    assert 0.90 <= along_a <= 0.995
    assert 0.90 <= along_c <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("misfit", ["strain", "displacement"])
def test_bands_hold_the_truth_on_full_particles(misfit):
    """As above on 200 sets of five particles of the usual size, with both misfits."""
    particles = [make_particle(f"P{i}", seed=i) for i in range(5)]
    along_a, along_c = coverage(200, particles, TWIN_LAW, misfit=misfit)
    assert 0.90 <= along_a <= 0.995
    assert 0.90 <= along_c <= 0.995


def test_unexplained_strain_widens_the_errors(noisy):
    """Strain that no composition explains, correlated over a few pixels, must not pass for knowledge."""
    from scipy import ndimage

    random = np.random.default_rng(0)
    strained = []
    for maps in noisy:
        extra = ndimage.gaussian_filter(random.standard_normal((*maps.mask.shape, 4)), (2, 2, 0))
        strained.append(replace(maps, distortion=maps.distortion + 0.006 * extra / extra.std()))
    result = learn_eigenstrain(strained, order=2)
    assert result.uncertainty["M1"].used == "particle bootstrap"
    assert result.uncertainty["M1"].unexplained_ratio > 3
    assert "leaves out" in result.warnings[0]
    used, noise = (
        np.sqrt(np.diag(result.uncertainty["M1"].estimates[name])) for name in ("particle bootstrap", "propagated")
    )
    assert used.mean() > noise.mean()
    few = learn_eigenstrain(strained[:2], order=2).uncertainty["M1"]
    assert few.used == "propagated"
    assert few.widening > 3


def test_a_wrong_lattice_reference_is_noticed(noisy):
    """a_ref off by 0.2 % shifts every strain along a."""
    shift = np.array([0.002, 0, 0, 0])
    shifted = [replace(maps, distortion=maps.distortion + shift) for maps in noisy]
    assert any("a_ref_angstrom" in warning for warning in learn_eigenstrain(shifted, order=2).warnings)


def test_extrapolation_is_named(noisy):
    """Half a particle, all of it rich in lithium."""
    half = [replace(maps, mask=maps.mask & (maps.composition > 0.4)) for maps in noisy]
    (warning,) = (w for w in learn_eigenstrain(half, order=1).warnings if "extrapolated" in w)
    assert "to 1.00" in warning or "to 0.9" in warning


def test_uncertainty_maps_replace_the_estimate(noisy):
    """Pixels marked as bad no longer matter."""
    spoiled = []
    for maps in noisy:
        deviation = {
            name: np.full(maps.mask.shape, 0.002 * factor) for name, factor in (("aa", 1), ("cc", 1), ("ac", 2))
        }
        bad = np.zeros(maps.mask.shape, dtype=bool)
        bad[::4, ::4] = True
        distortion = maps.distortion.copy()
        distortion[bad, :2] += 0.03
        for name in ("aa", "cc"):
            deviation[name][bad] = 1.0
        spoiled.append(replace(maps, distortion=distortion, uncertainty=deviation))
    law = learn_eigenstrain(spoiled, order=2, models=("M1",)).laws["M1"]
    assert expansion_error(law, OTHER_LAW)[0] < 0.02


def test_one_particles_uncertainty_is_its_own(noisy):
    """The others keep the noise of their own maps: a law that trusts them as before."""
    doubtful = {name: np.full(noisy[0].mask.shape, 0.1) for name in ("aa", "cc", "ac")}
    result = learn_eigenstrain([replace(noisy[0], uncertainty=doubtful), *noisy[1:]], order=2, models=("M1",))
    assert result.noise["aa"] == pytest.approx(0.002, rel=0.1)
    without = learn_eigenstrain(noisy[1:], order=2, models=("M1",))
    np.testing.assert_allclose(result.laws["M1"].coefficients, without.laws["M1"].coefficients, rtol=0.01, atol=2e-6)


def test_held_out_particles_take_no_part(noisy):
    result = learn_eigenstrain(noisy, test=("P3",), models=("M1",))
    assert result.particles["P3"].held_out
    assert result.order == 2
    without = learn_eigenstrain(noisy[:3], order=2, models=("M1",))
    np.testing.assert_allclose(result.laws["M1"].coefficients, without.laws["M1"].coefficients, rtol=0.02, atol=2e-5)


def test_the_order_of_the_particles_does_not_matter(noisy):
    forward = learn_eigenstrain(noisy, order=2, models=("M1",)).laws["M1"].coefficients
    backward = learn_eigenstrain(noisy[::-1], order=2, models=("M1",)).laws["M1"].coefficients
    np.testing.assert_allclose(forward, backward, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, "order must be auto or an integer from 1 to 12, got 0"),
        ({"order": "two"}, "order must be auto"),
        ({"order": 10**6}, "order must be auto or an integer from 1 to 12"),
        ({"test": ("P9",)}, "test particle 'P9' is not among P0, P1, P2, P3"),
        ({"test": ("P0", "P1", "P2", "P3")}, "every particle is a test particle"),
        ({"models": ("M0", "M2")}, "model M2 starts from the law of M1"),
        ({"models": ("M1", "M2"), "boundary": "dirichlet"}, "takes edges to be free"),
        ({"models": ("M7",)}, "models must be among M0, M1, M2, got M7"),
        ({"boundary": "Dirichlet"}, "boundary must be free or dirichlet, got 'Dirichlet'"),
        ({"misfit": "stress"}, "misfit must be strain or displacement, got 'stress'"),
        ({"order": 2.0}, "order must be auto or an integer from 1 to 12, got 2.0"),
    ],
)
def test_refusals(noisy, options, message):
    with pytest.raises(InputError, match=message):
        learn_eigenstrain(noisy, **options)


def test_one_particle_needs_a_given_order(noisy):
    with pytest.raises(InputError, match="second particle"):
        learn_eigenstrain(noisy[:1])
    assert learn_eigenstrain(noisy[:1], order=2).order == 2


def test_names_must_differ(noisy):
    with pytest.raises(InputError, match="names must differ"):
        learn_eigenstrain([noisy[0], noisy[0]])


def test_one_phase_only_is_refused(noisy):
    random = np.random.default_rng(0)
    single = [replace(maps, composition=0.97 + 0.04 * random.standard_normal(maps.mask.shape)) for maps in noisy]
    with pytest.raises(InputError, match="not identifiable"):
        learn_eigenstrain(single)
