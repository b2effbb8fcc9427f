"""X-ray energy stacks and spectra, in files made here after their public layouts."""

import json

import h5py
import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.io.xray import EnergyStack, read_energy_stack, read_spectrum

ENERGY = np.array([705.0, 708.5, 709.0, 720.0])  # as scanned: denser at the edge
INCIDENT = np.array([1000.0, 1100.0, 1200.0, 900.0])
Y_UM, X_UM = 1 + 0.05 * np.arange(3), -2 + 0.05 * np.arange(5)
BESIDE = np.zeros((3, 5), bool)
BESIDE[0, :2] = True


def density():
    """Optical density (energy, y, x); none beside the sample."""
    values = np.random.default_rng(1).uniform(0.1, 2, (4, 3, 5))
    values[:, BESIDE] = 0
    return values


def counts():
    return INCIDENT[:, None, None] * np.exp(-density())


def edited(path, edit):
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def without(name):
    return lambda file: file.__delitem__(name)


def replaced(name, value):
    def edit(file):
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = value
        file[name].attrs.update(attributes)

    return edit


def write_nxstxm(path, order=("energy", "sample_y", "sample_x"), *, declared=True):
    """A sample image stack after the NXstxm definition 1.1 (nexusformat/definitions); declared: with `axes`."""
    stored = [("energy", "sample_y", "sample_x").index(name) for name in order]
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry1")
        entry.attrs["NX_class"] = np.bytes_("NXentry")
        entry["definition"] = np.array([b"NXstxm"])
        group = entry.create_group("counter0")
        group.attrs["NX_class"] = np.bytes_("NXdata")
        group["data"] = counts().transpose(stored)
        for name, values, units in (("energy", ENERGY, "eV"), ("sample_y", Y_UM, "um"), ("sample_x", X_UM, "µm")):
            group[name] = values
            group[name].attrs["units"] = units
            if not declared:
                group[name].attrs["axis"] = order.index(name) + 1
        if declared:
            group.attrs["signal"] = "data"
            group.attrs["axes"] = np.array(order, dtype="S")
        group["stxm_scan_type"] = np.array([b"sample image stack"])
    return path


@pytest.fixture
def nxstxm(tmp_path):
    return write_nxstxm(tmp_path / "stack.nxs")


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("order", [("energy", "sample_y", "sample_x"), ("sample_x", "sample_y", "energy")])
@pytest.mark.parametrize("incident", [INCIDENT, BESIDE], ids=["values", "region"])
def test_nxstxm_counts_become_optical_density(tmp_path, order, declared, incident):
    """MANTiS writes (x, y, energy); files from before `axes` have `axis` attributes."""
    stack = read_energy_stack(write_nxstxm(tmp_path / "s.hdf5", order, declared=declared), incident=incident)
    np.testing.assert_allclose(stack.optical_density, density(), atol=1e-14)
    np.testing.assert_array_equal(stack.energy_eV, ENERGY)
    assert stack.pixel_size_nm == pytest.approx(50)


def test_nxstxm_without_declared_axes_is_as_defined(nxstxm):
    def edit(file):
        del file["entry1/counter0"].attrs["axes"]

    stack = read_energy_stack(edited(nxstxm, edit), incident=INCIDENT)
    np.testing.assert_allclose(stack.optical_density, density(), atol=1e-14)


def test_rows_and_columns_grow_with_the_stage_positions(nxstxm):
    def edit(file):
        for name in ("sample_y", "sample_x"):
            file[f"entry1/counter0/{name}"][...] = file[f"entry1/counter0/{name}"][()][::-1]

    stack = read_energy_stack(edited(nxstxm, edit), incident=INCIDENT)
    np.testing.assert_allclose(stack.optical_density, density()[:, ::-1, ::-1], atol=1e-14)


def test_energies_in_kev_become_ev(nxstxm):
    def edit(file):
        energy = file["entry1/counter0/energy"]
        energy[...] *= 1e-3
        energy.attrs["units"] = "keV"

    np.testing.assert_allclose(read_energy_stack(edited(nxstxm, edit), incident=INCIDENT).energy_eV, ENERGY, rtol=1e-15)


def test_a_pixel_without_photons_is_nan(nxstxm):
    def edit(file):
        file["entry1/counter0/data"][2, 1, 4] = 0

    stack = read_energy_stack(edited(nxstxm, edit), incident=INCIDENT)
    np.testing.assert_array_equal(np.argwhere(np.isnan(stack.optical_density)), [[2, 1, 4]])


def test_one_of_several_detectors_is_chosen(nxstxm):
    def edit(file):
        file.copy("entry1/counter0", "entry1/counter1")
        file["entry1/counter1/data"][...] *= np.exp(-1)

    edited(nxstxm, edit)
    stack = read_energy_stack(nxstxm, incident=INCIDENT, dataset="/entry1/counter1")
    np.testing.assert_allclose(stack.optical_density, density() + 1, atol=1e-14)
    with pytest.raises(InputError, match="found /entry1/counter0, /entry1/counter1; choose one with dataset"):
        read_energy_stack(nxstxm, incident=INCIDENT)
    with pytest.raises(InputError, match="counter2 is not an NXdata group; found /entry1/counter0"):
        read_energy_stack(nxstxm, incident=INCIDENT, dataset="entry1/counter2")


def no_units(file):
    del file["entry1/counter0/sample_x"].attrs["units"]


def other_axes(file):
    file["entry1/counter0"].attrs["axes"] = ["energy", "zoneplate_z", "sample_x"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("entry1/counter0/data"), "/entry1/counter0/data is missing; its group holds energy"),
        (without("entry1/counter0/energy"), "/entry1/counter0/photon_energy is missing"),
        (replaced("entry1/counter0/data", np.ones((3, 5))), "numbers along 3 axes, got float64 of shape (3, 5)"),
        (
            replaced("entry1/counter0/data", np.ones((3, 3, 5))),
            "3 x 3 x 5 values along energy, y and x, but there are 4",
        ),
        (replaced("entry1/counter0/energy", [705, np.nan, 709, 720]), "energy must be finite, got 1 of 4"),
        (replaced("entry1/counter0/energy", ENERGY[::-1]), "energy must ascend, got 709 eV after 720 eV at entry 1"),
        (replaced("entry1/counter0/energy", [705.0, 708, 708, 720]), "got 708 eV after 708 eV at entry 2"),
        (replaced("entry1/counter0/sample_x", 2 * X_UM), "pixels must be square, got steps of 50 and 100 nm"),
        (replaced("entry1/counter0/sample_y", [1, 1.04, 1.1]), "positions must be evenly spaced"),
        (replaced("entry1/counter0/sample_y", np.ones(3)), "pixels must be square"),
        (no_units, "/entry1/counter0/sample_x has no units attribute"),
        (other_axes, "has axes energy, zoneplate_z, sample_x, expected energy, sample_y, sample_x"),
        (without("entry1/counter0"), "needs one NXdata group, found none"),
    ],
)
def test_what_an_nxstxm_file_lacks_is_named(nxstxm, edit, message):
    edited(nxstxm, edit)
    with pytest.raises(InputError) as error:
        read_energy_stack(nxstxm, incident=INCIDENT)
    assert message in str(error.value)
    assert str(nxstxm) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("incident", "message"),
    [
        (None, "/entry1/counter0/data holds intensities without the incident one; give incident"),
        (INCIDENT[:3], "incident must have shape (4), got (3,)"),
        (0 * INCIDENT, "incident intensity must be positive"),
        (BESIDE.T, "incident must have shape (3, 5), got (5, 3)"),
        (np.zeros_like(BESIDE), "incident marks no pixel"),
    ],
)
def test_an_incident_intensity_that_does_not_fit_is_refused(nxstxm, incident, message):
    with pytest.raises(InputError) as error:
        read_energy_stack(nxstxm, incident=incident)
    assert message in str(error.value)


def test_a_truncated_file_is_refused(nxstxm):
    nxstxm.write_bytes(nxstxm.read_bytes()[: nxstxm.stat().st_size // 2])
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_energy_stack(nxstxm, incident=INCIDENT)


@pytest.fixture
def mantis(tmp_path):
    """A stack as MANTiS 3.3 writes it (file_plugins/file_dataexch_hdf5.py): (x, y, energy), positions without units."""
    path = tmp_path / "mantis.hdf5"
    with h5py.File(path, "w") as file:
        file["implements"] = "information:exchange:spectromicroscopy"
        file["version"] = "1.0"
        file["exchange/data"] = counts().transpose(2, 1, 0)
        file["exchange/data"].attrs.update(signal=1, axes="x:y:energy")
        file["exchange/x"], file["exchange/y"], file["exchange/energy"] = X_UM, Y_UM, ENERGY
        file["exchange/energy"].attrs["units"] = "ev"
        group = file.create_group("spectromicroscopy/normalization")
        group["white_spectrum"] = np.interp([700, *ENERGY, 730], ENERGY, INCIDENT)
        group["white_spectrum_energy"] = [700, *ENERGY, 730]
        group["white_spectrum_energy"].attrs["units"] = "eV"
        file["spectromicroscopy/optical_density"] = density().transpose(2, 1, 0) + 0.25  # to be told from the counts
    return path


def test_mantis_stores_optical_density(mantis):
    stack = read_energy_stack(mantis)
    np.testing.assert_allclose(stack.optical_density, density() + 0.25, atol=1e-14)
    np.testing.assert_array_equal(stack.energy_eV, ENERGY)
    assert stack.pixel_size_nm == pytest.approx(50)


def test_mantis_counts_are_normalised_by_the_white_spectrum(mantis):
    stack = read_energy_stack(edited(mantis, without("spectromicroscopy/optical_density")))
    np.testing.assert_allclose(stack.optical_density, density(), atol=1e-14)


def test_an_incident_intensity_given_goes_before_the_one_in_the_file(mantis):
    stack = read_energy_stack(mantis, incident=2 * INCIDENT)
    np.testing.assert_allclose(stack.optical_density, density() + np.log(2), atol=1e-14)


NORMALIZATION = "spectromicroscopy/normalization"


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([without(NORMALIZATION)], "/exchange/data holds intensities without the incident one"),
        ([replaced(f"{NORMALIZATION}/white_spectrum", np.ones(3))], "has 6 energies, but white_spectrum 3 values"),
        ([replaced(f"{NORMALIZATION}/white_spectrum_energy", ENERGY[[0, 0, 1, 2, 3, 3]])], "must ascend"),
        (
            [
                replaced(f"{NORMALIZATION}/white_spectrum_energy", ENERGY[1:]),
                replaced(f"{NORMALIZATION}/white_spectrum", INCIDENT[1:]),
            ],
            "spans 708.5 to 720 eV, but the stack 705 to 720 eV",
        ),
        ([without("exchange/energy")], "/exchange/energy is missing; its group holds data, x, y"),
        ([replaced("exchange/data", np.ones((5, 3, 4, 2)))], "numbers along 3 axes"),
        ([replaced("exchange/data", np.full((5, 3, 4), b"1"))], "must hold numbers"),
    ],
)
def test_what_a_mantis_file_lacks_is_named(mantis, edits, message):
    for edit in [without("spectromicroscopy/optical_density"), *edits]:
        edited(mantis, edit)
    with pytest.raises(InputError) as error:
        read_energy_stack(mantis)
    assert message in str(error.value)


@pytest.fixture
def hyperspy(tmp_path):
    """Write a spectrum image (y, x, energy) as HyperSpy does, its energies not evenly spaced."""
    hspy = pytest.importorskip("rsciio.hspy")

    def write(values, quantity="", energy_units="eV"):
        path = tmp_path / "stack.hspy"
        common = {"is_binned": False, "navigate": True}
        axes = [
            {"name": name, "units": "um", "scale": 0.05, "offset": 0.0, "size": size, "_type": "UniformDataAxis"}
            | common
            for name, size in (("y", 3), ("x", 5))
        ]
        axes.append({"name": "E", "units": energy_units, "axis": ENERGY, "_type": "DataAxis"} | common)
        axes[2]["navigate"] = False
        signal = {
            "data": np.moveaxis(values, 0, -1).copy(),
            "axes": axes,
            "metadata": {"General": {"title": "XAS"}, "Signal": {"signal_type": "", "quantity": quantity}},
            "original_metadata": {},
            "attributes": {"_lazy": False, "ragged": False},
            "package_info": {"package": "hyperspy", "package_version": "2.0"},
            "tmp_parameters": {},
            "learning_results": {},
            "models": {},
        }
        hspy.file_writer(str(path), signal)
        return path

    return write


@pytest.mark.parametrize(
    ("values", "quantity", "incident"),
    [(counts(), "Intensity (counts)", BESIDE), (density(), "Optical density", None)],
)
def test_a_hyperspy_signal_is_a_stack(hyperspy, values, quantity, incident):
    stack = read_energy_stack(hyperspy(values, quantity), incident=incident)
    np.testing.assert_allclose(stack.optical_density, density(), atol=1e-14)
    np.testing.assert_array_equal(stack.energy_eV, ENERGY)
    assert stack.pixel_size_nm == pytest.approx(50)


def test_a_hyperspy_signal_without_an_energy_axis_is_refused(hyperspy):
    with pytest.raises(InputError, match="one of them in eV or keV, found XAS with axes in um, um, s"):
        read_energy_stack(hyperspy(counts(), energy_units="s"), incident=BESIDE)


def test_an_unknown_format_is_refused(tmp_path):
    pytest.importorskip("rsciio")
    path = tmp_path / "stack.xyz"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"no reader for \.xyz"):
        read_energy_stack(path)


@pytest.fixture
def tiff(tmp_path):
    """Write pages and their sidecar; changes of the sidecar by keyword, None takes a key away."""
    tifffile = pytest.importorskip("tifffile")

    def write(values, **entries):
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, values, photometric="minisblack")
        given = {"pixel_size_nm": 20, "energy_eV": ENERGY.tolist()} | entries
        path.with_suffix(".json").write_text(json.dumps({key: v for key, v in given.items() if v is not None}))
        return path

    return write


@pytest.mark.parametrize(
    ("values", "entries"),
    [
        (density(), {"quantity": "optical_density"}),
        (np.exp(-density()), {"quantity": "transmission"}),
        (counts(), {"quantity": "intensity", "incident": INCIDENT.tolist()}),
    ],
)
def test_tiff_pages_are_what_the_sidecar_says(tiff, values, entries):
    stack = read_energy_stack(tiff(values, **entries))
    np.testing.assert_allclose(stack.optical_density, density(), atol=1e-14)
    np.testing.assert_array_equal(stack.energy_eV, ENERGY)
    assert stack.pixel_size_nm == 20


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"quantity": None}, "quantity is missing; found energy_eV, pixel_size_nm"),
        ({"quantity": "absorbance"}, "transmission or intensity, got 'absorbance'"),
        ({"energy_ev": []}, "energy_ev is not a known key; known are energy_eV, incident"),
        ({"energy_eV": ENERGY[:3].tolist()}, "energy_eV has 3 values, but stack.tif has 4 pages"),
        ({"energy_eV": "ENERGY"}, "energy_eV must be a list of numbers, got 'ENERGY'"),
        ({"energy_eV": [705, 708, float("nan"), 720]}, "energy must be finite"),
        ({"pixel_size_nm": True}, "pixel_size_nm must be a number, got True"),
        ({"incident": [1, 1, 1, 1]}, "incident belongs to the quantity intensity"),
        ({"quantity": "intensity"}, "holds intensities without the incident one"),
    ],
)
def test_what_is_wrong_in_a_sidecar_is_named(tiff, entries, message):
    path = tiff(density(), **({"quantity": "optical_density"} | entries))
    with pytest.raises(InputError) as error:
        read_energy_stack(path)
    assert message in str(error.value)


def test_optical_density_needs_no_incident_intensity(tiff):
    with pytest.raises(InputError, match="holds optical_density, which needs no incident intensity"):
        read_energy_stack(tiff(density(), quantity="optical_density"), incident=INCIDENT)


def test_colour_pages_and_broken_sidecars_are_refused(tiff):
    path = tiff(np.ones((4, 3, 5, 2)), quantity="optical_density")
    with pytest.raises(InputError, match="grey pages of one size"):
        read_energy_stack(path)
    for content, message in (("{", "not a JSON file"), ("[1]", "must hold one object, got list")):
        path.with_suffix(".json").write_text(content)
        with pytest.raises(InputError, match=message):
            read_energy_stack(path)


@pytest.mark.parametrize(
    "content",
    [
        "energy_eV, LiFePO4, FePO4\n706.0, 0.1, 0.3\n707.5, 0.4, 0.2\n",
        "# beamline 5.3.2\nenergy_eV;LiFePO4;FePO4\n\n706.0;0.1;0.3  # pre-edge\n707.5;0.4;0.2",
        "energy_eV LiFePO4 FePO4\r\n  7.06e2   0.1 0.3\r\n  707.5  0.4 0.2\r\n",
        'energy_eV\t"LiFePO4"\tFePO4\n706\t.1\t.3\n707.5\t.4\t.2\n',
    ],
    ids=["commas", "semicolons", "blanks", "tabs"],
)
def test_spectra_are_read_from_any_separator(tmp_path, content):
    path = tmp_path / "reference.csv"
    path.write_text(content, encoding="utf-8-sig")
    energy, spectra = read_spectrum(path)
    np.testing.assert_array_equal(energy, [706.0, 707.5])
    assert list(spectra) == ["LiFePO4", "FePO4"]
    np.testing.assert_array_equal(spectra["LiFePO4"], [0.1, 0.4])
    np.testing.assert_array_equal(spectra["FePO4"], [0.3, 0.2])


def test_spectra_without_a_header_are_numbered(tmp_path):
    path = tmp_path / "reference.txt"
    path.write_text("706 0.1 0.3\n707 0.4 0.2\n")
    assert list(read_spectrum(path)[1]) == ["column 2", "column 3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no numbers"),
        ("energy, a\n", "holds no numbers"),
        ("706\n707\n", "needs an energy and at least one spectrum a line, got 1 column"),
        ("E,a\n706,1\n\n706,2\n", "line 4: energy 706 eV must be larger than the 706 eV before"),
        ("706,1\n705,2\n", "line 2: energy 705 eV must be larger than the 706 eV before"),
        ("706,1\nnan,2\n", "line 2, column 1: 'nan' is not a finite number"),
        ("706,1\n707,x\n", "line 2, column 2: 'x' is not a finite number"),
        ("706;0,1\n", "line 1, column 2: '0,1' is not a finite number"),
        ("706,1\n707,1,2\n", "line 2 has 3 columns, expected 2"),
        ("energy,a,a\n706,1,2\n", "column names must differ, got a, a"),
        ("energy (keV),a\n7.1,1\n", "column 'energy (keV)' is in keV"),
    ],
)
def test_what_is_wrong_in_a_spectrum_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "reference.csv"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_spectrum(path)
    assert message in str(error.value)


def test_binary_content_is_not_a_spectrum(tmp_path):
    path = tmp_path / "reference.csv"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="not a readable text file"):
        read_spectrum(path)


def test_a_stack_may_stay_in_its_file(nxstxm):
    """An h5py dataset is sliced by whoever needs a frame."""
    with h5py.File(nxstxm) as file:
        stack = EnergyStack(ENERGY, file["entry1/counter0/data"], 50.0)
        np.testing.assert_array_equal(stack.optical_density[2], counts()[2])
    with pytest.raises(InputError, match="optical_density must have shape"):
        EnergyStack(ENERGY, density()[:2], 50.0)
