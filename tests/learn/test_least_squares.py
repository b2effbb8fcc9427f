"""Corrected least squares on problems small enough to know the answer."""

import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.learn.law import EigenstrainLaw
from chemomech.learn.least_squares import (
    bootstrap_covariance,
    build_design,
    choose_order,
    fit,
    plain_covariance,
    propagated_covariance,
)
from chemomech.learn.observation import DirectRegression

TRUTH = np.array([[0.0245, -0.0012], [-0.0098, 0.0007]])


class Regression(DirectRegression):
    """Pixel-wise regression (model M0) of given strains, all with the same noise."""

    def __init__(self, strain, noise=0.002):
        self.data = {"strain": strain}
        self._weight = 1 / noise**2


def design(seed, n=2000, x_noise=0.04, strain_noise=0.002, order=4, low=0.0, high=1.0):
    random = np.random.default_rng(seed)
    composition = random.choice([low, high], n, p=[0.4, 0.6]) * 0.8 + random.uniform(0, 0.2, n) * (high - low) + 0.0
    strain = np.zeros((n, 3))
    strain[:, :2] = EigenstrainLaw(TRUTH, np.zeros((4, 4)))(composition)
    strain += strain_noise * random.standard_normal((n, 3))
    noisy = composition + x_noise * random.standard_normal(n)
    deviation = np.full((n, 4), strain_noise)
    return build_design(Regression(strain, strain_noise), "strain", noisy, np.full(n, x_noise), deviation, order)


def test_noise_in_the_composition_does_not_flatten_the_law():
    """Over 40 sets of 4000 pixels the mean estimate is within 3 of its standard errors of the truth.

    Without the correction it is not: attenuation is of the order of noise over spread of X, squared.
    """
    fits, naive = [], []
    for seed in range(40):
        designs = [design(2 * seed), design(2 * seed + 1)]
        fits.append(fit(designs, 2).coefficients.ravel())
        own = [used.fitted.restricted(2) for used in designs]
        naive.append(np.linalg.solve(sum(each.gram for each in own), sum(each.moment for each in own)))
    error = np.std(fits, axis=0, ddof=1) / np.sqrt(len(fits))
    assert np.all(np.abs(np.mean(fits, axis=0) - TRUTH.ravel()) < 3 * error)
    assert np.abs(np.mean(naive, axis=0) - TRUTH.ravel())[0] > 6 * error[0]


def test_standard_errors_are_those_of_repetition():
    """200 repetitions know a standard deviation to 5 %; 15 % is three times that.

    Plain least squares takes the noise in X for noise in the strain only, and is too narrow.
    """
    fits, propagated = [], []
    for seed in range(200):
        designs = [design(seed, n=1000, x_noise=0.05)]
        solution = fit(designs, 1)
        fits.append(solution.coefficients.ravel())
        propagated.append(np.sqrt(np.diag(propagated_covariance(designs, solution))))
    np.testing.assert_allclose(np.mean(propagated, axis=0), np.std(fits, axis=0, ddof=1), rtol=0.15)


def test_without_composition_noise_plain_and_propagated_agree():
    """Then the noise is white in the strain, and both are sigma^2 (A^T A)^-1; sigma is known to 1 % from 6000 data."""
    designs = [design(0, x_noise=0.0)]
    solution = fit(designs, 2)
    np.testing.assert_allclose(
        plain_covariance(designs, 2), propagated_covariance(designs, solution), rtol=0.05, atol=1e-12
    )


def test_bootstrap_sees_the_spread_between_particles():
    """Ten particles, each strained by its own extra slope: the spread of the mean is theirs over sqrt(10).

    The bootstrap is widened by Student's factor 2.26 / 1.96 and, for n - 1, by sqrt(10 / 9); a sample of ten knows a
    standard deviation to 24 %, so within a factor of two.
    """
    random = np.random.default_rng(3)
    slopes = 1e-3 * random.standard_normal(10)
    designs = []
    for seed, slope in enumerate(slopes):
        one = design(seed, x_noise=0.0, order=1)
        shift = slope * one.strain_columns[:, 0, 0]
        strain = one.strain + np.column_stack([shift, 0 * shift, 0 * shift])
        composition = one.basis[:, 0] / 2 + 1
        deviation = np.full((len(shift), 4), 0.002)
        designs.append(build_design(Regression(strain), "strain", composition, 0 * shift, deviation, 1))
    found = np.sqrt(bootstrap_covariance(designs, 1)[0, 0])
    assert 0.5 < found / (np.std(slopes, ddof=1) / np.sqrt(10) * 2.26 / 1.96) < 2
    assert np.sqrt(propagated_covariance(designs, fit(designs, 1))[0, 0]) < found / 3


def test_bootstrap_needs_three_particles():
    assert bootstrap_covariance([design(0), design(1)], 1) is None


def test_the_order_of_the_data_is_chosen():
    designs = [design(seed) for seed in range(5)]
    order, scores = choose_order(designs, [], range(1, 5))
    assert order == 2
    assert [score.order for score in scores] == [1, 2, 3, 4]
    assert scores[0].test > scores[1].test
    assert choose_order(designs[:3], designs[3:], range(1, 5))[0] == 2


def test_losses_are_those_of_the_residual():
    one = design(0, x_noise=0.0)
    p = fit([one], 3).coefficients
    residual = one.strain - one.total_strain(p)
    assert one.fitted.loss(p) == pytest.approx(np.mean((residual / 0.002) ** 2), rel=1e-9)


@pytest.mark.parametrize("low", [1.0, 0.97])
def test_one_composition_determines_no_law(low):
    """Noise alone spreads the measured composition; the correction sees through it."""
    random = np.random.default_rng(0)
    composition = low + 0.04 * random.standard_normal(3000)
    deviation = np.full((3000, 4), 0.002)
    alone = build_design(
        Regression(0.002 * random.standard_normal((3000, 3))), "strain", composition, np.full(3000, 0.04), deviation, 2
    )
    with pytest.raises(InputError, match="not identifiable at order 1"):
        fit([alone], 1)
    with pytest.raises(InputError, match="not identifiable"):
        choose_order([alone, alone], [], range(1, 3))


def test_two_compositions_determine_a_line_only():
    random = np.random.default_rng(0)
    composition = random.choice([0.0, 1.0], 500)
    strain = np.column_stack([-0.05 * (1 - composition), 0.02 * (1 - composition), 0 * composition])
    two = build_design(Regression(strain), "strain", composition, np.zeros(500), np.full((500, 4), 0.002), 2)
    np.testing.assert_allclose(fit([two], 1).coefficients, [[0.025], [-0.01]], rtol=1e-12)
    with pytest.raises(InputError, match="order 2"):
        fit([two], 2)
