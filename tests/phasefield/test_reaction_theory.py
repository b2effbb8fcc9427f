"""Theory beside learned laws: limits that can be derived by hand."""

import numpy as np
import pytest

from chemomech.phasefield.reaction import ReactionLaw
from chemomech.phasefield.reaction_theory import autocatalytic_rate, coupled_ion_electron_transfer, uniformity

C = np.linspace(0.05, 0.95, 19)


def test_ion_electron_transfer_is_skewed_to_the_poor_side():
    """It vanishes at both ends, for want of ions and of sites, and is largest below one half (Zhao, Fig. 3)."""
    j0 = coupled_ion_electron_transfer(np.linspace(1e-6, 1 - 1e-6, 1001))
    assert j0[0] < 1e-3 * j0.max()
    assert j0[-1] < 1e-3 * j0.max()
    assert 0.2 < np.argmax(j0) / 1000 < 0.45


@pytest.mark.parametrize("alpha", [0.5, 0.3])
@pytest.mark.parametrize("rate", [1.5, -0.7])
def test_autocatalytic_rate_is_the_derivative_at_fixed_potential(alpha, rate):
    law = ReactionLaw(np.array([0.0, -4.0, 0.3]), np.array([1.0, -0.5, -0.4]), alpha)

    def reaction(c, potential):
        e = law.chemical_potential(c) + potential
        return law.exchange_current(c) * (np.exp(-alpha * e) - np.exp((1 - alpha) * e))

    low, high = np.full_like(C, -40.0), np.full_like(C, 40.0)
    for _ in range(100):
        middle = (low + high) / 2
        above = reaction(C, middle) > rate
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    h = 1e-5
    expected = (reaction(C + h, low) - reaction(C - h, low)) / (2 * h)
    np.testing.assert_allclose(autocatalytic_rate(law, C, rate), expected, rtol=1e-5, atol=1e-5)


def test_uniformity_of_known_frames():
    """Alike, half empty and half full, and noise on the first, which does not count."""
    random = np.random.default_rng(0)
    alike, apart = np.full(10_000, 0.3), np.repeat([0.0, 1.0], 5_000)
    frames = np.array([alike, apart, alike + 0.07 * random.standard_normal(10_000)])
    np.testing.assert_allclose(uniformity(frames)[:2], [1, 0], atol=1e-12)
    assert uniformity(frames, 0.07)[2] == pytest.approx(1, abs=2e-3)
