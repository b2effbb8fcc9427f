"""Learning from the uniformity coefficient alone: the estimator where it is exact, and what is left of known laws."""

import numpy as np
import pytest

from chemomech.io.video import read_video
from chemomech.learn.uniformity import Gaussian, Observed, condition, fit_lines, learn_from_uniformity
from chemomech.phasefield.reaction import ReactionLaw
from videos import LAW, write_video

#: Exchange currents skewed by a factor e between c = 0.25 and 0.75.
POOR_SIDE, RICH_SIDE = (ReactionLaw(LAW.mu, np.array([1.2, slope, -0.6])) for slope in (-1.0, 1.0))


def asymmetry(law):
    low, high = np.log(law.exchange_current(np.array([0.25, 0.75])))
    return low - high


def linear_problem(n_draws, slopes, scatter, data):
    """Draws of two standard normal parameters, two coefficients of one particle that are straight lines of them."""
    random = np.random.default_rng(0)
    x = random.standard_normal((n_draws, 2))
    observed = Observed(data, np.array([0.1, 0.2]), [slice(0, 2)])
    values = 0.5 + x @ slopes.T + random.standard_normal((n_draws, 2)) @ np.linalg.cholesky(scatter).T
    return fit_lines(x, values, observed, np.zeros(2)), observed


def test_lines_condition_as_normal_distributions_do():
    """Kalman's formula. With 40 000 draws lines are right to 0.05 / 200 = 3e-4, times the weights of ten."""
    slopes, scatter = np.array([[0.3, -0.1], [0.2, 0.2]]), np.array([[0.04, 0.01], [0.01, 0.02]])
    data = np.array([0.8, 0.3])
    lines, observed = linear_problem(40_000, slopes, scatter, data)
    posterior, misfit, left = condition(lines, observed, Gaussian(np.zeros(2), np.eye(2)))
    gain = slopes.T @ np.linalg.inv(slopes @ slopes.T + scatter + np.diag(observed.noise**2))
    assert misfit == 1
    np.testing.assert_allclose(posterior.mean, gain @ (data - 0.5), atol=0.01)
    np.testing.assert_allclose(posterior.covariance, np.eye(2) - gain @ slopes, atol=0.01)
    np.testing.assert_allclose(left, data - 0.5 - slopes @ posterior.mean, atol=0.01)


def test_scatter_is_not_information():
    """200 coefficients that the parameter does not move: the slopes of 200 draws alone would halve its variance, and
    their squares are right to sqrt(2 / 200).
    """
    random = np.random.default_rng(1)
    x = random.standard_normal((200, 1))
    observed = Observed(np.zeros(200), np.zeros(200), [slice(i, i + 1) for i in range(200)])
    lines = fit_lines(x, random.standard_normal((200, 200)), observed, np.zeros(1))
    posterior = condition(lines, observed, Gaussian(np.zeros(1), np.eye(1)))[0]
    assert posterior.covariance[0, 0] == pytest.approx(1, abs=0.2)


def test_a_misfit_widens():
    """Data eight times as far away as they should be; one point is left over from the one that fits."""
    slopes, scatter = np.array([[0.01, 0.0], [0.0, 0.01]]), 0.01 * np.eye(2)
    observed = Observed(np.array([1.3, -0.3]), np.array([0.0, 0.0]), [slice(0, 2)])
    x = np.random.default_rng(0).standard_normal((4000, 2))
    wrong = 0.1 * np.random.default_rng(1).standard_normal((4000, 2))
    lines = fit_lines(x, 0.5 + x @ slopes.T + wrong, observed, np.zeros(2))
    assert scatter[0, 0] == pytest.approx(lines.scatter[0][0, 0], rel=0.1)
    misfit = condition(lines, observed, Gaussian(np.zeros(2), np.eye(2)))[1]
    assert misfit == pytest.approx(64, rel=0.1)


def test_few_particles_say_little_and_the_error_says_so(tmp_path):
    """Sites without neighbours, two particles: the truth within three standard deviations, of which one is more than a
    half of the prior's, sqrt(1 + 0.875^2) = 1.33.
    """
    path = tmp_path / "video.h5"
    write_video(path, [(6, 8), (7, 7)], noise=0.04)
    result = learn_from_uniformity(read_video(path), population=True, draws=100)
    value, deviation = result.asymmetry
    assert 0.66 < deviation < 1.5
    assert value == pytest.approx(asymmetry(LAW), abs=3 * deviation)
    assert len(result.data) == len(result.model) == len(result.error) == 2 * 2 * 5


def test_the_same_seed_gives_the_same_laws(tmp_path):
    path = tmp_path / "video.h5"
    write_video(path, [(4, 5)], noise=0.04)
    video = read_video(path)
    first, second = (learn_from_uniformity(video, population=True, draws=30, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.law.log_j0, second.law.log_j0)


@pytest.mark.slow
@pytest.mark.parametrize(("law", "seed"), [(POOR_SIDE, 12), (RICH_SIDE, 13)])
def test_asymmetry_has_the_right_sign_without_images(tmp_path, law, seed):
    """Either way, from eight particles with neighbours (Zhao et al. 2023, supplementary figure 14).

    The deviation is about 0.7: of other sets of eight, one in six or so would have the wrong sign.
    """
    path = tmp_path / "video.h5"
    write_video(path, [(6, 8), (7, 7)] * 4, noise=0.04, law=law, seed=seed)
    value, deviation = learn_from_uniformity(read_video(path)).asymmetry
    assert value * asymmetry(law) > 0
    assert value == pytest.approx(asymmetry(law), abs=2.5 * deviation)
