"""White noise estimated from a map."""

import numpy as np
import pytest

from checks import two_phase_composition
from chemomech.errors import InputError
from chemomech.observe.noise import white_noise


def test_it_finds_the_noise_beneath_two_phases():
    """1.8 % standard error at 7000 windows (measured); phase boundaries add at most a per cent: 5 % covers both."""
    mask = np.ones((80, 100), dtype=bool)
    random = np.random.default_rng(0)
    field = two_phase_composition(mask) + 0.04 * random.standard_normal(mask.shape)
    assert white_noise([field], [mask], "composition") == pytest.approx(0.04, rel=0.05)


def test_a_bilinear_map_has_no_noise():
    y, x = np.indices((20, 20)).astype(float)
    assert white_noise([3 + 2 * x - y + x * y], [np.ones((20, 20), bool)], "a") < 1e-12


def test_the_outside_of_the_mask_does_not_count():
    random = np.random.default_rng(0)
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:35, 5:35] = True
    field = np.where(mask, random.standard_normal(mask.shape), 1e6)
    assert white_noise([field], [mask], "a") == pytest.approx(1, rel=0.15)


def test_too_small_a_particle_is_refused():
    with pytest.raises(InputError, match="noise of aa cannot be estimated: only 0 windows"):
        white_noise([np.zeros((2, 50))], [np.ones((2, 50), bool)], "aa")
