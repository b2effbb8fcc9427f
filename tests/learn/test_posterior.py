"""Sampling the posterior: its coordinates, and its samples beside the linearised posterior."""

import numpy as np
import pytest

from chemomech.io.video import read_video
from chemomech.learn.arrow import minimise
from chemomech.learn.law_basis import law_basis
from chemomech.learn.posterior import Whitened, sample_posterior
from chemomech.learn.reaction_model import Problem, build_models, starting_parameters
from videos import write_video


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "video.h5"
    write_video(path, [(4, 5)], noise=0.03)
    video = read_video(path)
    models = build_models(video, largest_cell=1.25)
    problem = Problem(models, law_basis(video.binodal, 0.5), video.gradient_nm2, video.noise, 0.02, 1.0, [[True, True]])
    return problem, minimise(problem, starting_parameters(problem))


def test_whitened_coordinates(solved):
    """The Gauss-Newton matrix becomes the unit matrix, and the gradient map is the transposed."""
    _, found = solved
    whitened = Whitened(found)
    random = np.random.default_rng(0)
    centre = whitened.parameters(np.zeros(whitened.size))
    one, two = (random.standard_normal(whitened.size) for _ in range(2))

    def moved(y):
        at = whitened.parameters(y)
        return at.shared - centre.shared, [a - b for a, b in zip(at.local, centre.local, strict=True)]

    (g, local), (h, other) = moved(one), moved(two)
    product = 0.0
    for arrow, a, b in zip(found.arrows, local, other, strict=True):
        product += g @ arrow.gram_gg @ h + g @ arrow.gram_gl @ b + h @ arrow.gram_gl @ a + a @ arrow.gram_ll @ b
    assert product == pytest.approx(one @ two, rel=1e-6)  # mean rates are known a thousand times better than the rest
    shared, locals_ = random.standard_normal(len(g)), [random.standard_normal(len(a)) for a in local]
    left = shared @ g + sum(a @ b for a, b in zip(locals_, local, strict=True))
    assert whitened.gradient(shared, locals_) @ one == pytest.approx(left, rel=1e-9)


@pytest.mark.slow
def test_samples_spread_as_the_linearised_posterior(solved):
    """The posterior is nearly normal about its mode: spreads within a factor of 2."""
    pytest.importorskip("nutpie")
    pytest.importorskip("arviz")
    problem, found = solved
    samples = sample_posterior(problem, found, draws=60, tune=40)
    spread = samples.shared.reshape(-1, problem.n_shared).std(axis=0)
    expected = np.sqrt(np.diag(np.linalg.inv(found.schur)))
    assert samples.r_hat < 1.2
    assert ((spread > expected / 2) & (spread < 2 * expected)).all()
