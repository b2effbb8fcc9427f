"""Reading and writing correlative-stack/1."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from checks import platelet, random_maps
from chemomech.errors import InputError
from chemomech.io.correlative import read_stack, write_stack

TWINS = Path(__file__).parents[3] / "shared" / "reference" / "twins"


@pytest.fixture
def stack(tmp_path):
    path = tmp_path / "maps.h5"
    write_stack(path, [random_maps(platelet())])
    return path


def change(path, edit):
    with h5py.File(path, "r+") as file:
        edit(file, file["particles/P"])


def test_what_is_written_is_read(stack):
    (maps,) = read_stack(stack)
    original = random_maps(platelet())
    np.testing.assert_array_equal(maps.mask, original.mask)
    np.testing.assert_array_equal(maps.composition, original.composition)
    np.testing.assert_allclose(maps.distortion, original.distortion, atol=1e-15)
    assert maps.reference_nm == pytest.approx(original.reference_nm)


def test_uncertainties_and_attributes_are_written(tmp_path):
    original = random_maps(platelet(), uncertainty=True)
    write_stack(tmp_path / "maps.h5", [original], {"P": {"registration_score": 0.9}})
    (maps,) = read_stack(tmp_path / "maps.h5")
    assert set(maps.uncertainty) == set(original.uncertainty)
    for name, values in original.uncertainty.items():
        np.testing.assert_allclose(maps.uncertainty[name], values, rtol=1e-14)
    with h5py.File(tmp_path / "maps.h5") as file:
        assert file["particles/P"].attrs["registration_score"] == 0.9


def test_units_are_converted_at_the_reader(stack):
    def edit(file, group):
        for name, factor, units in (("a", 0.1, "nm"), ("gamma", 1e3, "mrad"), ("composition", 100, "%")):
            group[name][...] *= factor
            group[name].attrs["units"] = units

    (before,) = read_stack(stack)
    change(stack, edit)
    (after,) = read_stack(stack)
    np.testing.assert_allclose(after.distortion, before.distortion, atol=1e-15)
    np.testing.assert_allclose(after.composition, before.composition, rtol=1e-15)


def test_standard_deviations_are_read_in_their_units(stack):
    def edit(file, group):
        for name, value, units in (("composition_std", 4.0, "%"), ("a_std", 0.02066, "angstrom")):
            group.create_dataset(name, data=np.full(group["mask"].shape, value)).attrs["units"] = units

    change(stack, edit)
    (maps,) = read_stack(stack)
    assert set(maps.uncertainty) == {"composition", "aa"}
    np.testing.assert_allclose(maps.uncertainty["composition"], 0.04)
    np.testing.assert_allclose(maps.uncertainty["aa"], 0.002)


def nothing(name):
    return lambda file, group: group.__delitem__(name)


def set_attribute(name, value):
    return lambda file, group: group.attrs.__setitem__(name, value)


def replaced(name, data):
    def edit(file, group):
        units = group[name].attrs.get("units")
        del group[name]
        group[name] = data
        if units is not None:
            group[name].attrs["units"] = units

    return edit


def spoiled(value):
    def edit(file, group):
        group["a"][np.unravel_index(group["mask"][...].argmax(), group["mask"].shape)] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda file, group: file.attrs.__setitem__("schema", "reaction-video/1"),
            "schema is 'reaction-video/1', expected",
        ),
        (lambda file, group: file.attrs.__delitem__("schema"), "schema is missing, expected 'correlative-stack/1'"),
        (lambda file, group: file.__delitem__("particles"), "/particles is missing or empty"),
        (nothing("theta"), "/particles/P/theta is missing"),
        (nothing("mask"), "/particles/P/mask is missing"),
        (replaced("c", np.ones((3, 4))), r"c has shape \(3, 4\), but mask has \(24, 40\)"),
        (replaced("c", np.ones((24, 40), int)), "c must hold floating-point numbers, got int64"),
        (replaced("mask", np.full((24, 40), 7)), "mask must be boolean"),
        (replaced("mask", np.zeros((24, 40), bool)), "mask is empty"),
        (spoiled(np.nan), "aa is not finite at 1 of"),
        (spoiled(np.inf), "aa is not finite at 1 of"),
        (set_attribute("pixel_size_nm", 0.0), "pixel_size_nm must be positive, got 0"),
        (set_attribute("pixel_size_nm", "wide"), "pixel_size_nm must be a number, got 'wide'"),
        (set_attribute("a_ref_angstrom", -1.0), "a_reference_nm must be positive"),
        (lambda file, group: group.attrs.__delitem__("c_ref_angstrom"), "has no attribute c_ref_angstrom"),
        (
            lambda file, group: group["a"].attrs.__setitem__("units", "furlong"),
            "units 'furlong'; a length is stored in",
        ),
        (lambda file, group: group["a"].attrs.__delitem__("units"), "/a has no units attribute"),
    ],
)
def test_unusable_files_are_refused_with_file_and_dataset(stack, edit, message):
    change(stack, edit)
    with pytest.raises(InputError, match=message) as refusal:
        read_stack(stack)
    assert str(stack) in str(refusal.value)


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_truncated_file_is_refused(stack, length):
    stack.write_bytes(stack.read_bytes()[:length])
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_stack(stack)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_stack(tmp_path / "maps.h5")


@pytest.mark.skipif(not TWINS.exists(), reason="reference data of another origin is not beside the project")
def test_the_twins_are_read():
    particles = read_stack(TWINS / "coherent.h5")
    assert [maps.name for maps in particles] == ["P1", "P2", "P3", "P4", "P5"]
    assert particles[0].mask.sum() == 1956
