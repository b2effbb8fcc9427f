"""Result files."""

import json

import h5py
import numpy as np
import pytest

from checks import platelet, random_maps, two_phase_composition
from chemomech.errors import InputError
from chemomech.io.eigenstrain import read_law, write_result
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.observe.maps import CorrelativeMaps


@pytest.fixture(scope="module")
def result():
    maps = random_maps(platelet())
    maps.composition[...] = two_phase_composition(maps.mask)
    maps.distortion[..., 0] -= 0.05 * (1 - maps.composition)
    thin = np.zeros_like(maps.mask)
    thin[3:5] = True
    strip = CorrelativeMaps("strip", 50.0, thin, maps.composition, maps.distortion)
    return learn_eigenstrain([maps, strip], order=2)


def test_result_json_follows_its_schema(result, tmp_path):
    write_result(tmp_path, result)
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["schema"] == "chemomech-eigenstrain/1"
    assert found["order"] == 2
    assert found["gauge"] == "zero at X=1"
    for model in ("M0", "M1"):
        for axis, row in zip("ac", result.laws[model].coefficients, strict=True):
            assert found["laws"][model][axis]["legendre"] == row.tolist()
            errors = result.laws[model].standard_error["ac".index(axis)]
            assert found["laws"][model][axis]["std"] == errors.tolist()
        assert found["model_error"][model] > 0
    assert set(found["particles"]["P"]) >= {"mean_composition", "rms_incompatibility_per_nm2"}


def test_dislocations_are_written(tmp_path):
    """The block of result.json that programs read, and the maps."""
    maps = random_maps(platelet(16, 26))
    maps.composition[...] = two_phase_composition(maps.mask)
    result = learn_eigenstrain([maps], order=1, models=("M1", "M2"))
    write_result(tmp_path, result)
    found = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)["dislocations"]
    assert found["mean_abs_density_per_um2"] == pytest.approx(1e6 * result.dislocations.mean_abs_density_per_nm2)
    assert [candidate["burgers"] for candidate in found["candidates"]] == [None, "[001]", "[100]"]
    with h5py.File(tmp_path / "result.h5") as file:
        group = file["particles/P"]
        np.testing.assert_array_equal(
            group["dislocation_density"][...], result.dislocations.particles["P"].density_per_nm2
        )
        assert group["burgers_density"].attrs["units"] == "1/nm"


def test_a_number_that_does_not_exist_is_null(result, tmp_path):
    """A strip two pixels wide has no incompatibility; NaN is not JSON."""
    write_result(tmp_path, result)
    found = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert found["particles"]["strip"]["rms_incompatibility_per_nm2"] is None


def test_the_law_and_the_maps_are_read_back(result, tmp_path):
    write_result(tmp_path, result)
    law = read_law(tmp_path / "result.h5")
    np.testing.assert_array_equal(law.coefficients, result.laws["M1"].coefficients)
    np.testing.assert_array_equal(law.covariance, result.laws["M1"].covariance)
    with h5py.File(tmp_path / "result.h5") as file:
        stored = file["particles/P/residual_strain"]
        np.testing.assert_array_equal(stored[...], result.particles["P"].residual_strain)
        assert stored.attrs["units"] == "1"


def test_another_file_holds_no_law(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_law(tmp_path / "nothing.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["schema"] = "correlative-stack/1"
    with pytest.raises(InputError, match="no law M1"):
        read_law(tmp_path / "other.h5")
