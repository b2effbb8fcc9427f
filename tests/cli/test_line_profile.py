"""`chemomech line-profile` from file to result, and what it says to files it cannot use."""

import json
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest

from chemomech.cli.main import run
from chemomech.io.line_profile import read_peaks
from chemomech.learn.dislocation_systems import geometric_factor
from chemomech.learn.line_profile import KNOWN, Peak, Phase, factors
from chemomech.mechanics.slip_systems import candidates
from profiles import SIMULATED, counted, simulated_peak, wilkens_peak

CELL, STIFFNESS = KNOWN["LiFePO4"]
REFLECTIONS = [(1, 0, 1), (2, 1, 0), (1, 1, 1), (3, 0, 1), (3, 1, 1)]
#: Deng SI, Table 1, LiFePO4.
PRINTED = {"D": 192, "H": 247, "I": 692, "J": 45}


def effective_densities():
    peaks = [Peak(hkl, float(np.linalg.norm(np.divide(hkl, CELL))), None, None) for hkl in REFLECTIONS]
    systems = candidates(CELL, STIFFNESS)
    density = np.array([PRINTED.get(system.label, 0) for system in systems])
    return peaks, 1e-6 * factors(Phase(CELL), systems, peaks) @ density


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Five peaks of 1e6 counts and 300 nm columns."""
    path = tmp_path_factory.mktemp("peaks") / "peaks.h5"
    q = np.linspace(-0.6, 0.6, 1601)
    with h5py.File(path, "w") as file:
        file.attrs["wavelength_nm"] = 0.0729
        file.attrs["cell_nm"] = CELL
        for seed, (peak, density) in enumerate(zip(*effective_densities(), strict=True)):
            group = file.create_group("peaks/" + " ".join(map(str, peak.hkl)))
            group["q_per_nm"] = q
            group["intensity"] = counted(wilkens_peak(q, density, 80, 300), q, top=1e6, background=40, seed=seed)
            group.attrs["g_per_nm"] = peak.g_per_nm
    return path


def call(capsys, *arguments):
    """Exit code and standard error of one command."""
    with pytest.raises(SystemExit) as end:
        run([str(argument) for argument in arguments])
    return end.value.code, capsys.readouterr().err


@pytest.fixture
def copy(measured, tmp_path):
    path = tmp_path / "peaks.h5"
    path.write_bytes(measured.read_bytes())
    return path


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.sources, self.text = [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.sources += [value for key, value in attributes if tag == "img" and key == "src"]

    def handle_data(self, data):
        self.text += data


def test_densities_systems_and_a_page(measured, tmp_path, capsys):
    """rho* of every peak within 10 % (its error is 3 to 5 %), size within 10 %, and densities that explain them."""
    code, _ = call(capsys, "line-profile", measured, "-o", tmp_path)
    assert code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "report.html"}
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["schema"] == "chemomech-line-profile/1"
    for peak, density in zip(*effective_densities(), strict=True):
        found = result["peaks"][" ".join(map(str, peak.hkl))]
        for moment in ("M2", "M4"):
            assert found["rho_star_m2"][moment] == pytest.approx(1e18 * density, rel=0.1)
        assert found["size_nm"] == pytest.approx(300, rel=0.1)
        assert "density_single_contrast_per_m2" not in found
    assert sorted(result["systems"]) == list("ABCDEFGHIJKLMNO")
    assert result["explained"] > 0.95
    assert {"D", "H", "I"} in [set(each["density_per_um2"]) for each in result["sparsest_sets"]]
    page = Page(tmp_path / "report.html")
    assert len(page.sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for words in ("Restricted moments", "Slip systems", "1 0 1", "peaks.h5"):
        assert words in page.text


@pytest.mark.skipif(not SIMULATED.exists(), reason="reference data of another origin is not beside the project")
def test_a_contrast_factor_gives_the_density_itself(tmp_path, capsys):
    """Two orders of a simulated aluminium-like crystal of 5e13 1/m^2, within 15 %; no systems without its stiffness."""
    path = tmp_path / "peaks.h5"
    with h5py.File(path, "w") as file:
        file.attrs["wavelength_nm"] = 0.0729
        file.attrs["cell_nm"] = (0.4046, 0.4046, 0.4046)
        for order in (4, 5):
            q, intensity, _ = simulated_peak(SIMULATED / "screw_circle.dat", order)
            group = file.create_group(f"peaks/{2 * order} 0 0")
            group["q_per_nm"], group["intensity"] = q, intensity
            group.attrs.update(g_per_nm=2 * order / 0.4046, contrast_factor=0.25, burgers_nm=0.4046 / np.sqrt(2))
    code, _ = call(capsys, "line-profile", path, "-o", tmp_path / "out")
    assert code == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    for peak in result["peaks"].values():
        assert list(peak["density_single_contrast_per_m2"].values()) == pytest.approx([5e13, 5e13], rel=0.15)
    assert (result["systems"], result["explained"]) == ({}, None)
    assert any("no stiffness_GPa is given" in warning for warning in result["warnings"])


def test_angles_read_as_q(copy):
    with h5py.File(copy, "r+") as file:
        for group in file["peaks"].values():
            sine = 0.0729 / 2 * (group["q_per_nm"][...] + group.attrs["g_per_nm"])
            group["two_theta_deg"] = np.degrees(2 * np.arcsin(sine))
            group.move("q_per_nm", "former")
        for peak, group in zip(read_peaks(copy).peaks.values(), read_peaks(copy).peaks, strict=True):
            assert peak.q_per_nm == pytest.approx(file["peaks"][group]["former"][...], abs=1e-12)


def test_phases_and_standards_are_read(copy, tmp_path, capsys):
    with h5py.File(copy, "r+") as file:
        del file.attrs["cell_nm"]
        for name, (cell, stiffness) in KNOWN.items():
            group = file.create_group(f"phases/{name}")
            group.attrs.update(cell_nm=cell, stiffness_GPa=stiffness, weight=0.5)
        q = file["peaks/1 0 1/q_per_nm"][...]
        for name, g in (("1 1 0", 3.4), ("1 0 0", 2.4)):
            group = file.create_group(f"instrument/{name}")
            group["q_per_nm"], group["intensity"] = q, 1e6 * np.exp(-((q / 0.003) ** 2) / 2) + 20
            group.attrs["g_per_nm"] = g
    powder = read_peaks(copy)
    assert [phase.weight for phase in powder.phases.values()] == [0.5, 0.5]
    assert [peak.g_per_nm for peak in powder.standard] == [2.4, 3.4]
    code, _ = call(capsys, "line-profile", copy, "-o", tmp_path / "out")
    assert code == 0


def replaced(name, values):
    def edit(file):
        group = file["peaks/1 0 1"]
        changed = values(group[name][...])
        del group[name]
        group[name] = changed

    return edit


def renamed(file):
    file.move("peaks/1 0 1", "peaks/1 0 x")


def system(**vectors):
    return lambda file: file.create_group("systems/Z").attrs.update(vectors)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda file: file.attrs.__delitem__("wavelength_nm"), "has no attribute wavelength_nm"),
        (lambda file: file.attrs.__delitem__("cell_nm"), "has no attribute cell_nm"),
        (lambda file: file.attrs.__setitem__("cell_nm", [1.0, 2.0]), "cell_nm must be 3 numbers"),
        (lambda file: file.attrs.__setitem__("stiffness_GPa", np.eye(3)), "stiffness_GPa must be 6 x 6 numbers"),
        (lambda file: file.attrs.__setitem__("stiffness_GPa", -np.eye(6)), "positive definite"),
        (lambda file: file.attrs.__setitem__("schema", "other/1"), "schema is 'other/1'"),
        (lambda file: file.__delitem__("peaks"), "/peaks is missing or empty"),
        (lambda file: file["peaks/1 0 1"].attrs.__delitem__("g_per_nm"), "/peaks/1 0 1 has no attribute g_per_nm"),
        (lambda file: file["peaks/1 0 1"].__delitem__("q_per_nm"), "/peaks/1 0 1/q_per_nm is missing"),
        (lambda file: file["peaks/1 0 1"].attrs.__setitem__("burgers_nm", 0.4), "needs contrast_factor and burgers_nm"),
        (renamed, "/peaks/1 0 x: a peak is named by three integers"),
        (replaced("q_per_nm", lambda q: q[::-1]), "/peaks/1 0 1: q_per_nm must increase"),
        (replaced("intensity", lambda y: y - 60), "/peaks/1 0 1: intensity is negative"),
        (replaced("intensity", lambda y: y[:50]), "/peaks/1 0 1: intensity must have shape (1601)"),
        (replaced("intensity", lambda y: np.roll(y, 790)), "/peaks/1 0 1: the peak is at the edge of its range"),
        (system(burgers=(0, 0, 1), plane=(1, 0, 0)), "/systems/Z has no attribute line"),
        (system(burgers=(0, 0, 1), plane=(1, 0, 0), line=(0, 0, 0)), "/systems/Z: line must not be 0 0 0"),
        (system(burgers=(0, 0, 1), plane=(1, 0, 0), line="[010]"), "/systems/Z: line must be 3 numbers"),
        (system(burgers=(0, 0, 1), plane=(1, 0, 0), line=(1, 0, 0)), "/systems/Z: the line 1 0 0 does not lie"),
    ],
)
def test_bad_files_end_in_one_line(copy, tmp_path, capsys, edit, message):
    with h5py.File(copy, "r+") as file:
        edit(file)
    code, err = call(capsys, "line-profile", copy, "-o", tmp_path / "out")
    assert code == 2
    assert message in err
    assert err.startswith(f"chemomech: {copy}: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_geometric_factor_joins_both(tmp_path):
    """Lambda of system D at 101 from Deng SI, Table S2 (C = 0.4645) and the cell."""
    peaks, _ = effective_densities()
    systems = [system for system in candidates(CELL, STIFFNESS) if system.label == "D"]
    expected = geometric_factor(np.hypot(1 / 1.045, 1 / 0.474), 0.474, 0.4645)
    assert factors(Phase(CELL), systems, peaks[:1])[0, 0] == pytest.approx(expected, rel=1e-3)
