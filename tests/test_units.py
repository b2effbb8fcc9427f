"""Units at the edge."""

import math

import pytest

from chemomech.errors import InputError
from chemomech.units import to_internal


@pytest.mark.parametrize(
    ("unit", "quantity", "factor"),
    [
        ("nm", "length", 1.0),
        ("angstrom", "length", 0.1),
        ("pm", "length", 1e-3),
        ("um", "length", 1e3),
        ("rad", "angle", 1.0),
        ("mrad", "angle", 1e-3),
        ("deg", "angle", math.pi / 180),
        ("1", "fraction", 1.0),
        ("%", "fraction", 0.01),
    ],
)
def test_every_unit_has_its_size(unit, quantity, factor):
    assert to_internal(unit, quantity=quantity, where="maps.h5") == pytest.approx(factor, rel=1e-15)


def test_an_unknown_unit_is_refused_with_its_place():
    with pytest.raises(InputError, match=r"maps.h5: /a has units 'inch'; a length is stored in one of nm"):
        to_internal("inch", quantity="length", where="maps.h5: /a")
