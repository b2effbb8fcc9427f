"""Local parameters integrated out, where the integral is known; and bands that hold the truth."""

from dataclasses import replace

import numpy as np
import pytest

from chemomech.io.video import read_video
from chemomech.learn.arrow import CONVERGED, Arrow, Minimum, Parameters, minimise
from chemomech.learn.evidence import marginal_mode, most_likely_sizes
from chemomech.learn.kinetics import learn_kinetics
from chemomech.learn.reaction_model import Problem, build_models, law_basis
from videos import BINODAL, write_video


class HiddenAmplitude:
    """y = exp(s) l + noise with standard normal l of every sample: what is s?"""

    n_shared = 1

    def __init__(self, groups, noise):
        self.groups, self.noise = groups, noise

    def system(self, parameters):
        total, arrows = 0.0, []
        size = np.exp(parameters.shared[0]) / self.noise
        for y, own in zip(self.groups, parameters.local, strict=True):
            misfit, along = size * own - y / self.noise, size * own
            total += (misfit @ misfit + own @ own) / 2
            arrows.append(
                Arrow(
                    np.array([[along @ along]]),
                    size * along[None],
                    (size**2 + 1) * np.eye(len(y)),
                    np.array([along @ misfit]),
                    size * misfit + own,
                )
            )
        return total, arrows

    def objective(self, parameters, below=np.inf):
        return self.system(parameters)[0]

    def turned(self, parameters, arrows):
        total, here = self.system(parameters)
        return total, [
            replace(a, gradient_g=b.gradient_g, gradient_l=b.gradient_l) for a, b in zip(arrows, here, strict=True)
        ]


def test_amplitude_of_hidden_variables_is_found():
    """With the hidden variables integrated out y is normal of variance exp(2 s) + noise^2, so the most probable s is
    known; the joint mode lies at infinite s. Rounds end where half a standard deviation is left.
    """
    random = np.random.default_rng(0)
    groups = [0.5 * random.standard_normal(n) + 0.3 * random.standard_normal(n) for n in (150, 250)]
    problem = HiddenAmplitude(groups, 0.3)
    start = Parameters(np.array([0.0]), tuple(np.zeros(len(y)) for y in groups))
    held = minimise(problem, start, free=np.array([False]))
    _, found, slopes = marginal_mode(problem, held)
    variance = np.mean(np.concatenate(groups) ** 2)
    expected = np.log(variance - 0.3**2) / 2
    deviation = variance / (variance - 0.3**2) / np.sqrt(2 * 400)
    assert found.reason == CONVERGED
    assert found.parameters.shared[0] == pytest.approx(expected, abs=0.75 * deviation)
    size = np.exp(2 * found.parameters.shared[0]) / 0.3**2  # half n ln(1 + size), differences one-sided
    assert slopes[:, 0] == pytest.approx([n * size / (1 + size) for n in (150, 250)], rel=0.05)


def test_sizes_of_priors_are_those_of_known_coefficients(tmp_path):
    """Coefficients of standard deviations 0.5 (Z) and 2 (initial fields) that the data know exactly: rho_2 is
    noise^2 / 0.25, the size 2. Samples of about 40 numbers leave a quarter open.
    """
    write_video(tmp_path / "video.h5", [(6, 8), (7, 7)], noise=0.04)
    video = read_video(tmp_path / "video.h5")
    basis = law_basis(video.binodal, video.alpha)
    models = build_models(video, log_k_length_px=1.0, largest_cell=1.25)
    problem = Problem(models, basis, video.gradient_nm2, video.noise, 0.02, 1.0, [[True, True]] * 2)
    random = np.random.default_rng(0)
    local, arrows = [], []
    for model in models:
        x = 2.0 * random.standard_normal(sum(model.sizes))
        x[: model.sizes[0]] /= 4
        n, m = basis.size, len(x)
        local.append(x)
        arrows.append(Arrow(1e9 * np.eye(n), np.zeros((n, m)), 1e9 * np.eye(m), np.zeros(n), np.zeros(m)))
    found = Minimum(Parameters(np.zeros(basis.size), tuple(local)), 0.0, "", 0, arrows, 1e9 * np.eye(basis.size))
    rho, size = most_likely_sizes(problem, found)
    assert rho == pytest.approx(problem.noise**2 / 0.25, rel=0.3)
    assert size == pytest.approx(2, rel=0.3)


@pytest.mark.slow
def test_bands_hold_another_law(tmp_path):
    """A chemical potential that is no regular solution and an exchange current that is larger for more lithium: the
    99 % bands hold both on 0.1 <= c <= 0.9, and are no wider than 0.4 (RMS half-width), about three times the error.
    """
    law = law_basis(BINODAL, 0.5).law(np.array([0.2, -0.55, -0.12, 2.0, 0.5, -0.6]))
    path = tmp_path / "video.h5"
    log_k = write_video(path, [(9, 12), (8, 13), (10, 10)], noise=0.04, law=law)
    result = learn_kinetics(read_video(path))
    c = result.composition
    middle = (c > 0.0999) & (c < 0.9001)
    log_j0_error = result.log_j0 - np.log(law.exchange_current(c)) - np.concatenate(list(log_k.values())).mean()
    mu_error = result.mu_kT - law.chemical_potential(c)
    mu_error -= mu_error.mean()
    for error, half in ((log_j0_error, result.log_j0_half_width), (mu_error, result.mu_half_width)):
        assert np.mean(np.abs(error) < half, where=middle) > 0.95
        assert np.sqrt(np.mean(half**2, where=middle)) < 0.4
