"""The configuration of `void`: what it makes of a domain and a law, and what it says of a mistake."""

import json

import h5py
import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.io.void_config import cells_of, eigenstrain_of, read_config, solid_of, stiffness_of
from chemomech.learn.law import EigenstrainLaw
from chemomech.mechanics.box import Box

BASE = """schema = "chemomech-void/1"
[domain]
size_nm = [40, 20, 30]
spacing_nm = [5, 5, 5]
[time]
end_s = 10
"""


def config(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read_config(path)


def whole(domain):
    return solid_of(domain, Box(cells_of(domain), domain.periodic))


def test_defaults_are_those_of_the_paper(tmp_path):
    material = config(tmp_path, BASE).material
    assert material.gradient_eV_nm2 == (13.4, 1340.0, 13.4)
    assert material.diffusivity_nm2_per_s == (1.0, 1e5, 1.0)  # 1e-14 and 1e-9 cm^2/s
    assert stiffness_of(material).shape == (6, 6)


def test_a_box_with_a_void(tmp_path):
    text = BASE.replace("[time]", "voids = [{ centre_nm = [20, 10, 15], radius_nm = 6 }]\n[time]")
    solid = whole(config(tmp_path, text).domain)
    assert solid.shape == (8, 4, 6)
    assert solid.size - solid.sum() == 8  # the voxels whose centres are within 6 nm


def test_spheres_and_a_platelet(tmp_path):
    text = BASE.replace("[domain]", '[domain]\nshape = "spheres"').replace(
        "[time]", "spheres = [{ centre_nm = [20, 10, 15], radius_nm = 10 }]\n[time]"
    )
    ball = whole(config(tmp_path, text).domain)
    assert ball.sum() * 125 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.1)
    text = BASE.replace("[domain]", '[domain]\nshape = "platelet"').replace("[5, 5, 5]", "[0.5, 5, 0.5]")
    plate = whole(config(tmp_path, text).domain)
    assert plate.mean() == pytest.approx(np.pi / 4, rel=0.01)


def test_a_tomogram_from_files(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    solid = np.random.default_rng(0).random((4, 5, 6)) < 0.5
    np.save(tmp_path / "t.npy", solid)
    tifffile.imwrite(tmp_path / "t.tif", solid.astype(np.uint8) * 255, photometric="minisblack")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["labels/solid"] = solid.astype(np.int16)
    for name, extra in (("t.npy", ""), ("t.tif", ""), ("t.h5", 'dataset = "labels/solid"\n')):
        text = BASE.replace("size_nm = [40, 20, 30]", f'shape = "file"\nfile = "{name}"\n{extra}')
        np.testing.assert_array_equal(whole(config(tmp_path, text).domain), solid)


def test_a_learned_law_goes_in(tmp_path):
    law = EigenstrainLaw(np.array([[0.025, 0.003], [-0.01, -0.001]]), np.zeros((4, 4)))
    laws = {"M1": {axis: {"legendre": law.coefficients[i].tolist()} for i, axis in enumerate("ac")}}
    (tmp_path / "result.json").write_text(json.dumps({"laws": laws}))
    material = config(tmp_path, BASE + '[material]\nexpansion_file = "result.json"\n').material
    x = np.linspace(0, 1, 9)
    np.testing.assert_allclose(eigenstrain_of(material)(x)[:, [0, 2]], law(x), atol=1e-15)
    np.testing.assert_allclose(eigenstrain_of(material)(x)[:, 1], 0.0346 * (x - 1), atol=1e-15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("spacing_nm", "spacing_um"), r"domain\.spacing_um is not known; did you mean spacing_nm"),
        (("end_s = 10", ""), r"time\.end_s is missing"),
        (("end_s = 10", "end_s = -1"), r"time\.end_s: .*greater than 0, got -1"),
        (("end_s = 10", 'end_s = "long"'), r"time\.end_s: .*number.*got 'long'"),
        (("[5, 5, 5]", "[5, 5]"), r"domain\.spacing_nm"),
        (("[5, 5, 5]", "[5, 5, 7]"), "no multiple of spacing_nm"),
        (("[time]", "[initial]\nmean = 1.2\n[time]"), r"initial\.mean: .*less than 1, got 1\.2"),
        (("[time]", "[materials]\n[time]"), "materials is not known; did you mean material"),
        (("[time]", "periodic = [false, true, false]\n[time]"), "periodic along b"),
        (("chemomech-void/1", "chemomech-void/9"), r"schema: .*'chemomech-void/1', got 'chemomech-void/9'"),
        (("[time]", "[time"), "not valid TOML"),
        (("size_nm = [40, 20, 30]", 'shape = "file"\nfile = "gone.npy"'), "gone.npy: cannot be read"),
        (("[time]", "voids = [{ centre_nm = [20, 10, 15], radius_nm = 60 }]\n[time]"), "no solid voxel"),
        (("[time]", '[material]\nexpansion_file = "run.toml"\n[time]'), "holds no law M1"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read = config(tmp_path, BASE.replace(*change))
        whole(read.domain)
        eigenstrain_of(read.material)
