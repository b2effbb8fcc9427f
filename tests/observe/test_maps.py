"""The gate of the measured maps."""

from dataclasses import replace

import numpy as np
import pytest

from checks import platelet, random_maps
from chemomech.errors import InputError

GOOD = random_maps(platelet())
HOLE = np.where(np.arange(GOOD.mask.size).reshape(GOOD.mask.shape) == GOOD.mask.argmax(), np.nan, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_size_nm": 0.0}, "pixel_size_nm must be positive, got 0"),
        ({"pixel_size_nm": float("nan")}, "pixel_size_nm must be positive, got nan"),
        ({"mask": np.zeros_like(GOOD.mask)}, "mask is empty"),
        ({"composition": np.zeros((3, 4))}, r"composition must have shape \(24, 40\), got \(3, 4\)"),
        ({"distortion": np.zeros((24, 40, 3))}, r"distortion must have shape \(24, 40, 4\)"),
        ({"composition": HOLE}, "composition is not finite at 1 of .* pixels inside the mask, first at row"),
        ({"uncertainty": {"b": HOLE}}, "no channel 'b'"),
        ({"uncertainty": {"aa": np.zeros_like(HOLE)}}, "uncertainty of aa must be positive"),
    ],
)
def test_unusable_maps_are_refused_with_their_place(change, message):
    with pytest.raises(InputError, match=message) as refusal:
        replace(GOOD, **change)
    assert "memory: particle P" in str(refusal.value)


def test_values_outside_the_mask_do_not_matter():
    replace(GOOD, composition=np.where(GOOD.mask, GOOD.composition, np.nan))


def test_pixel_values_return_to_their_places():
    grid = GOOD.to_map(GOOD.composition[GOOD.mask])
    np.testing.assert_array_equal(grid[GOOD.mask], GOOD.composition[GOOD.mask])
    assert np.isnan(grid[~GOOD.mask]).all()
