"""From spectra and lattice maps to aligned maps: the whole of `compose`, on data of another origin and on its own."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage

from chemomech.cli.main import run
from chemomech.errors import InputError
from chemomech.io.correlative import read_stack
from chemomech.io.raw import read_raw
from chemomech.learn.eigenstrain import learn_eigenstrain
from chemomech.learn.law import EigenstrainLaw
from chemomech.learn.twins import expansion_error, make_particle
from chemomech.observe.composition import compose_particle

TWINS = Path(__file__).parents[3] / "shared" / "reference" / "twins"
needs_twins = pytest.mark.skipif(
    not TWINS.exists(), reason="reference data of another origin is not beside the project"
)


def write_raw(path, seed=0, drift=0.0, noise=0.01, exchanged=False):
    """One synthetic particle on two grids that coincide but for the pixel size, under made-up spectra.

    `drift`: pixels by which every image lies further along x than the one before; `noise`: of the optical density;
    `exchanged`: the file calls each reference by the name of the other.
    """
    maps = make_particle("P1", length_nm=3000, seed=seed)
    random = np.random.default_rng(seed)
    energy = np.array([700.0, 706.0, 708.0, 710.0, 712.0])
    spectra = {"LiFePO4": np.array([0.1, 0.7, 2.4, 1.4, 0.9]), "FePO4": np.array([0.1, 0.3, 1.2, 3.2, 1.4])}
    inside = np.kron(maps.mask, np.ones((2, 2), dtype=bool))
    x = np.kron(np.where(maps.mask, maps.composition, 0), np.ones((2, 2)))
    density = inside * (x * spectra["LiFePO4"][:, None, None] + (1 - x) * spectra["FePO4"][:, None, None]) * 0.5
    density = np.pad(density, ((0, 0), (8, 8), (8, 8)))
    density = np.stack([ndimage.shift(image, (0, i * drift), order=3) for i, image in enumerate(density)])
    density += noise * random.standard_normal(density.shape)
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = "correlative-raw/1"
        file["reference/energy_eV"] = energy
        names = list(spectra)[::-1] if exchanged else list(spectra)
        for name, values in zip(names, spectra.values(), strict=True):
            file[f"reference/{name}"] = values
        xray, stem = file.create_group("particles/P1/xray"), file.create_group("particles/P1/stem")
        xray.attrs["pixel_size_nm"] = maps.pixel_size_nm / 2
        xray["energy_eV"], xray["optical_density"] = energy, density.astype(np.float32)
        stem.attrs.update(pixel_size_nm=maps.pixel_size_nm, a_ref_angstrom=10.33, c_ref_angstrom=4.69)
        aa, cc, shear, rotation = np.moveaxis(maps.distortion, -1, 0)
        for name, values, units in (
            ("a", 10.33 * (1 + aa), "angstrom"),
            ("c", 4.69 * (1 + cc), "angstrom"),
            ("gamma", shear, "rad"),
            ("theta", rotation, "rad"),
        ):
            stem[name] = values
            stem[name].attrs["units"] = units
        stem["mask"] = maps.mask
    return maps


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        run([str(argument) for argument in arguments])
    return end.value.code


def test_compose_aligns_what_was_made(tmp_path):
    """Grids that coincide: the transform is the identity to a fraction of a pixel, the composition the one put in.

    5 pixels of 25 nm at noise 0.01 in optical density 1 to 2: a composition error below 0.01; steps of X between
    pixels at the boundary (0.3) times a registration error of a tenth of a pixel add 0.03 there.
    """
    maps = write_raw(tmp_path / "raw.h5")
    assert call("compose", tmp_path / "raw.h5", "-o", tmp_path / "maps.h5") == 0
    (found,) = read_stack(tmp_path / "maps.h5")
    assert set(found.uncertainty) == {"composition"}
    inner = ndimage.distance_transform_edt(np.pad(maps.mask, 1))[1:-1, 1:-1] > 4
    assert np.sqrt(np.mean((found.composition - maps.composition)[inner] ** 2)) < 0.04
    with h5py.File(tmp_path / "maps.h5") as file:
        attributes = file["particles/P1"].attrs
        np.testing.assert_allclose(attributes["registration_matrix"], np.eye(2), atol=0.02)
        np.testing.assert_allclose(attributes["registration_translation_nm"], 0, atol=25)
        assert attributes["registration_score"] > 0.9


@needs_twins
def test_the_reference_twins_are_composed_and_give_their_law(tmp_path):
    """RMSE 0.02 four pixels from the edge, the transform to 0.01 and 20 nm, the law to 6 % (a) and 12 % (c)."""
    assert call("compose", TWINS / "raw.h5", "-o", tmp_path / "maps.h5") == 0
    particles = read_stack(tmp_path / "maps.h5")
    truth = {each["name"]: each for each in json.loads((TWINS / "raw.truth.json").read_text())["particles"]}
    with h5py.File(tmp_path / "maps.h5") as file, h5py.File(TWINS / "coherent_clean.h5") as clean:
        for maps in particles:
            attributes, true = file[f"particles/{maps.name}"].attrs, truth[maps.name]
            np.testing.assert_allclose(attributes["registration_matrix"], true["xray_to_stem_matrix"], atol=0.01)
            np.testing.assert_allclose(attributes["registration_translation_nm"], true["translation_nm"], atol=20)
            inner = ndimage.distance_transform_edt(np.pad(maps.mask, 1))[1:-1, 1:-1] > 4
            error = (maps.composition - clean[f"particles/{maps.name}/composition"][...])[inner]
            assert np.sqrt(np.mean(error**2)) < 0.02
    law = json.loads((TWINS / "coherent.truth.json").read_text())["law"]
    learned = learn_eigenstrain(particles).laws["M1"]
    along_a, along_c = expansion_error(learned, EigenstrainLaw(np.reshape(law, (2, 2)), np.zeros((4, 4))))
    assert along_a < 0.06
    assert along_c < 0.12


def test_noise_is_not_cut_off_at_the_ends(tmp_path):
    """The mean composition of pixels of one phase is the one put in, though noise carries single pixels beyond 0 and 1.

    At noise 0.05 a pixel of X = 0.02 scatters by 0.03; cut off at 0 its mean would be 0.007 higher. Over a
    hundred pixels the standard error is 0.0015.
    """
    maps = write_raw(tmp_path / "raw.h5", noise=0.05)
    references, (particle,) = read_raw(tmp_path / "raw.h5")
    composed = compose_particle(particle, references)
    fit = composed.fit.composition
    inner = ndimage.binary_erosion(maps.mask, iterations=3)
    for phase in (maps.composition < 0.03, maps.composition > 0.97):
        pure = ndimage.binary_erosion(phase) & inner
        assert pure.sum() > 100
        assert composed.maps.composition[pure].mean() == pytest.approx(maps.composition[pure].mean(), abs=0.004)
    assert np.nanmin(fit) == 0
    assert composed.maps.composition[maps.mask].min() < 0


def test_exchanged_references_are_refused(tmp_path):
    """X would fall where the lattice widens."""
    write_raw(tmp_path / "raw.h5", exchanged=True)
    references, (particle,) = read_raw(tmp_path / "raw.h5")
    with pytest.raises(InputError, match="the reference spectra are exchanged"):
        compose_particle(particle, references)


def without(name):
    return lambda file: file.__delitem__(name)


def energies(values):
    def edit(file):
        file["particles/P1/xray/energy_eV"][...] = values

    return edit


def negative(file):
    file["particles/P1/xray/optical_density"][...] *= -1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("reference"), "/reference is missing"),
        (without("reference/FePO4"), "FePO4 is missing"),
        (without("particles/P1/xray"), "/particles/P1/xray is missing"),
        (without("particles/P1/stem/gamma"), "gamma is missing"),
        (energies([700, 706, 708, 710, 740]), "outside the references"),
        (energies([700, 706, 706, 710, 712]), "706"),
        (energies([712, 710, 708, 706, 700]), "increas"),
        (negative, "particle P1"),
    ],
)
def test_unusable_raw_data_end_in_one_line(tmp_path, capsys, edit, message):
    write_raw(tmp_path / "raw.h5")
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        edit(file)
    assert call("compose", tmp_path / "raw.h5", "-o", tmp_path / "maps.h5") == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "maps.h5").exists()


def test_aligned_maps_are_not_raw_data(tmp_path):
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file.attrs["schema"] = "correlative-stack/1"
    with pytest.raises(InputError, match="schema is 'correlative-stack/1', expected 'correlative-raw/1'"):
        read_raw(tmp_path / "maps.h5")


def test_a_drifting_stack_is_aligned_first(tmp_path):
    """Images that run away by 1.7 pixels each: without alignment the composition error at the outline would be of
    order 1; with it the noise and 0.05 pixel of drift left at a boundary of 0.3 a pixel remain."""
    maps = write_raw(tmp_path / "raw.h5", drift=1.7)
    references, (raw,) = read_raw(tmp_path / "raw.h5")
    composed = compose_particle(raw, references)
    assert composed.drift_removed
    np.testing.assert_allclose(composed.alignment.drift[:, 0], 1.7 * np.arange(5), atol=0.2)
    inside = ndimage.binary_erosion(maps.mask, iterations=4)
    assert np.sqrt(np.mean((composed.maps.composition - maps.composition)[inside] ** 2)) < 0.04


def test_a_still_stack_is_left_as_it_is(tmp_path):
    """Interpolation would correlate its noise."""
    write_raw(tmp_path / "raw.h5")
    references, (raw,) = read_raw(tmp_path / "raw.h5")
    assert not compose_particle(raw, references).drift_removed


def test_compose_leaves_maps_and_a_page(tmp_path):
    write_raw(tmp_path / "raw.h5")
    assert call("compose", tmp_path / "raw.h5", "-o", tmp_path / "out" / "maps.h5") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"maps.h5", "maps.html"}
    page = (tmp_path / "out" / "maps.html").read_text(encoding="utf-8")
    assert "P1" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_maps_may_not_take_the_name_of_the_page(tmp_path, capsys):
    write_raw(tmp_path / "raw.h5")
    assert call("compose", tmp_path / "raw.h5", "-o", tmp_path / "maps.html") == 2
    assert "another ending" in capsys.readouterr().err
    assert not (tmp_path / "maps.html").exists()
