"""`chemomech contrast` on the command line."""

import json

import pytest

from chemomech.cli.main import run
from chemomech.mechanics.stiffness import LIFEPO4

CONSTANTS = "c11=138.9\nc22=198.0\nc33=173.0\nc44=36.8\nc55=50.6\nc66=47.6\nc12=72.8\nc13=52.5\nc23=45.8\n"
SYSTEM_D = {"--burgers": "0 0 1", "--plane": "1 0 0", "--line": "0 1 0"}


@pytest.fixture
def stiffness(tmp_path):
    path = tmp_path / "stiffness.toml"
    path.write_text(CONSTANTS)
    return path


def call(capsys, stiffness, *more, **change):
    """Exit code, standard output and standard error."""
    options = SYSTEM_D | {"--" + name: text for name, text in change.items()}
    arguments = ["contrast", "--cell", "10.45", "6.05", "4.74", "--stiffness", str(stiffness)]
    with pytest.raises(SystemExit) as end:
        run([*arguments, *(part for option in options.items() for part in option), *more])
    printed = capsys.readouterr()
    return end.value.code, printed.out, printed.err


def test_json_of_the_table(stiffness, capsys):
    """Deng SI, Tables S2 and S3, system D of LiFePO4."""
    code, out, err = call(capsys, stiffness, "--hkl", "1 0 1", "--hkl", "2  1 0", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["energy_factor_GPa"] == pytest.approx(72.18, abs=0.01)
    assert result["contrast"] == pytest.approx({"1 0 1": 0.4645, "2 1 0": 0.0430}, abs=1e-4)


def test_a_matrix_is_the_same_as_its_constants(stiffness, tmp_path, capsys):
    matrix = tmp_path / "matrix.toml"
    matrix.write_text(f"stiffness_GPa = {LIFEPO4.tolist()}\n")
    options = ("--hkl", "3 1 1", "--json")
    assert call(capsys, matrix, *options) == call(capsys, stiffness, *options)


def test_fractions_and_single_reflections(stiffness, capsys):
    """A mixed dislocation has different factors for 3 1 1 and 3 1 -1; the powder value is their mean."""
    system_e = {"burgers": "0 1/2 1/2", "line": "0 1 -1"}
    hkl = ("--hkl", "3 1 1", "--hkl", "3 1 -1", "--json")
    single = json.loads(call(capsys, stiffness, "--single", *hkl, **system_e)[1])["contrast"]
    powder = json.loads(call(capsys, stiffness, *hkl, **system_e)[1])["contrast"]
    assert powder["3 1 1"] == pytest.approx(powder["3 1 -1"], rel=1e-12)
    assert powder["3 1 1"] == pytest.approx((single["3 1 1"] + single["3 1 -1"]) / 2, rel=1e-12)
    assert abs(single["3 1 1"] - single["3 1 -1"]) > 0.01
    assert powder["3 1 1"] == pytest.approx(0.1637, abs=1e-4)


def test_a_table_for_people(stiffness, capsys):
    code, out, _ = call(capsys, stiffness, "--hkl", "1 0 1")
    assert code == 0
    assert "1 0 1" in out
    assert "0.4645" in out
    assert "72.175" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"burgers": "0 0"}, "--burgers must be three numbers such as \"1/2 1/2 0\", got '0 0'"),
        ({"burgers": "0 0 1/0"}, "--burgers must be three numbers"),
        ({"line": "1 1 0"}, "the line 1 1 0 does not lie in the plane 1 0 0"),
        ({"hkl": "0 0 0"}, "hkl must be finite and not 0 0 0"),
        ({"hkl": "x 0 1"}, "--hkl must be three numbers"),
    ],
)
def test_bad_arguments_end_in_one_line(stiffness, capsys, change, message):
    code, out, err = call(capsys, stiffness, *([] if "hkl" in change else ["--hkl", "1 0 1"]), **change)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("chemomech: ")
    assert err.count("\n") == 1


def test_a_missing_stiffness_ends_in_one_line(tmp_path, capsys):
    code, out, err = call(capsys, tmp_path / "nothing.toml", "--hkl", "1 0 1")
    assert (code, out) == (2, "")
    assert err.endswith("nothing.toml: no such file\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c11 = ", "not a TOML file"),
        ("c11 = 138.9", "c22, c33, c44, c55, c66, c12, c13, c23 missing"),
        ("stiffness_GPa = [[1, 2], [2, 1]]", "stiffness_GPa must have shape (6, 6), got (2, 2)"),
        ("stiffness_GPa = [[1, 2], [2]]", "six rows of six numbers"),
        (CONSTANTS.replace("138.9", "-138.9"), "must be positive definite; its least eigenvalue is"),
        (CONSTANTS.replace("138.9", "'x'"), "a constant one number"),
    ],
)
def test_bad_stiffness_ends_in_one_line(stiffness, capsys, text, message):
    stiffness.write_text(text)
    code, _, err = call(capsys, stiffness, "--hkl", "1 0 1")
    assert code == 2
    assert message in err
    assert err.startswith(f"chemomech: {stiffness}: ")
    assert err.count("\n") == 1
