"""`chemomech kinetics` from file to result, and what it says to files it cannot use."""

import json
import re
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from chemomech.cli.main import run
from videos import write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "video.h5"
    write_video(path, [(4, 5), (4, 4)], noise=0.05)
    return path


def call(capsys, *arguments):
    """Exit code and standard error of one command."""
    with pytest.raises(SystemExit) as end:
        run([str(argument) for argument in arguments])
    return end.value.code, capsys.readouterr().err


def start(video, folder):
    command = [sys.executable, "-m", "chemomech", "kinetics", video, "-o", folder]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def out(video, tmp_path_factory):
    """The folder that a run left."""
    folder = tmp_path_factory.mktemp("out")
    process = start(video, folder)
    assert "pieces of films, step 1:" in process.communicate(timeout=600)[1]
    assert process.returncode == 0
    return folder


def test_leaves_the_promised_files(out):
    result = json.loads((out / "result.json").read_text())
    assert result["schema"] == "chemomech-kinetics/1"
    n = len(result["composition"])
    assert len(result["mu_h_kT"]) == len(result["j0_per_h"]) == len(result["j0_ci99"]) == n
    assert all(low < j0 < high for (low, high), j0 in zip(result["j0_ci99"], result["j0_per_h"], strict=True))
    assert result["noise_sigma"] == 0.05
    assert 0.03 < result["rmse"] < 0.08
    maps = []
    for entry in result["particles"].values():
        name, key = entry["log_k_file"].split(":")
        with h5py.File(out / name) as file:
            maps.append(file[key][...])
            deviation = file[f"{key}_deviation"][...]
        np.testing.assert_array_equal(np.isfinite(deviation), np.isfinite(maps[-1]))
        assert np.nanmin(deviation) > 0
    values = np.concatenate([each[np.isfinite(each)] for each in maps])
    assert values.mean() == pytest.approx(0, abs=1e-9)
    assert sorted(path.name for path in (out / "videos").iterdir()) == ["P1.gif", "P2.gif"]
    page = (out / "report.html").read_text()
    assert "Exchange current" in page
    assert "Assumed, not learned" in page
    assert page.count("<img") >= 8


def test_a_stopped_run_goes_on_to_the_same_result(video, out, tmp_path):
    """Stopped after the second accepted step, the fourth and the sixth, it takes none of them again."""
    taken = 0
    for step, sent in ((2, signal.SIGINT), (4, signal.SIGTERM), (6, signal.SIGKILL)):
        process, steps = start(video, tmp_path), []
        for line in process.stderr:
            steps += [int(number) for number in re.findall(r"pieces of films, step (\d+):", line)]
            if steps and steps[-1] >= step:
                process.send_signal(sent)
                break
        assert steps[0] > taken
        taken = steps[-1]
        last_words = process.communicate(timeout=60)[1]
        if sent != signal.SIGKILL:
            assert process.returncode == 128 + sent
            assert f"kept in {tmp_path}/.unfinished: the same command goes on from there" in last_words
        assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".writing-")] == [".unfinished"]
    log = start(video, tmp_path).communicate(timeout=600)[1]
    assert "pieces of films, step 1:" not in log
    assert (tmp_path / "result.json").read_bytes() == (out / "result.json").read_bytes()
    assert not (tmp_path / ".unfinished").exists()


def test_bad_input_is_one_line(video, tmp_path, capsys):
    path = tmp_path / "bad.h5"
    path.write_bytes(video.read_bytes())
    with h5py.File(path, "a") as file:
        file["particles/P2/half_cycles/1/time_s"][2] = 0.0
    code, error = call(capsys, "kinetics", path, "-o", tmp_path / "out")
    assert code == 2
    assert error.count("\n") == 1
    assert f"{path}: /particles/P2/half_cycles/1/time_s must increase" in error
    assert not (tmp_path / "out").exists()


def test_says_what_is_left_out_and_what_looks_wrong(video, tmp_path, capsys):
    """One half-cycle whose times stand still is left out; those of the others are hours, not seconds."""
    path = tmp_path / "hours.h5"
    path.write_bytes(video.read_bytes())
    with h5py.File(path, "a") as file:
        for particle in ("P1", "P2"):
            for half in file[f"particles/{particle}/half_cycles"].values():
                half["time_s"][...] /= 3600
        file["particles/P2/half_cycles/1/time_s"][2] = 0.0
    code, _ = call(capsys, "kinetics", path, "-o", tmp_path / "out", "--skip-bad")
    assert code == 0
    warnings = "\n".join(json.loads((tmp_path / "out/result.json").read_text())["warnings"])
    assert f"left out: {path}: /particles/P2/half_cycles/1/time_s must increase" in warnings
    assert "is time_s in seconds?" in warnings


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rho_2 = -1.0", "rho_2 must be"),
        ('rho_2 = "best"', "rho_2 must be"),
        ("rho = 0.1", "rho is not known; keys are rho_2, posterior_samples"),
        ("posterior_samples = 1.5", "posterior_samples must be a whole number"),
        ("rho_2 = ", "is not TOML"),
    ],
)
def test_bad_settings_are_one_line(video, tmp_path, capsys, line, message):
    config = tmp_path / "config.toml"
    config.write_text(line)
    code, error = call(capsys, "kinetics", video, "-o", tmp_path / "out", "--config", config)
    assert code == 2
    assert error.count("\n") == 1
    assert f"{config}" in error
    assert message in error
