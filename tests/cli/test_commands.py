"""The command line as a user meets it: one line and exit code 2 on bad input, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from chemomech.cli.main import run
from chemomech.io.correlative import write_stack
from chemomech.learn.twins import Noise, add_noise, make_particle

TWINS = Path(__file__).parents[3] / "shared" / "reference" / "twins"


@pytest.fixture(scope="module")
def small_stack(tmp_path_factory):
    path = tmp_path_factory.mktemp("maps") / "maps.h5"
    particles = [add_noise(make_particle(f"P{i}", length_nm=1500, seed=i), Noise(), seed=i) for i in range(3)]
    write_stack(path, particles)
    return path


def call(capsys, *arguments):
    """Exit code and standard error of one command."""
    with pytest.raises(SystemExit) as end:
        run([str(argument) for argument in arguments])
    return end.value.code, capsys.readouterr().err


def test_learn_leaves_what_it_promises(small_stack, tmp_path, capsys):
    code, _ = call(capsys, "learn", small_stack, "-o", tmp_path / "out")
    assert code == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"result.json", "result.h5", "report.html", "figures"}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert set(result["laws"]) == {"M0", "M1"}


def test_options_reach_the_result(small_stack, tmp_path, capsys):
    options = ["--order", "1", "--test", "P2", "--boundary", "dirichlet", "--misfit", "displacement", "--models", "M1"]
    code, _ = call(capsys, "learn", small_stack, "-o", tmp_path, *options)
    assert code == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["order"], result["boundary"], result["misfit"]) == (1, "dirichlet", "displacement")
    assert list(result["laws"]) == ["M1"]
    assert result["particles"]["P2"]["held_out"]


@pytest.mark.skipif(not TWINS.exists(), reason="reference data of another origin is not beside the project")
def test_the_reference_twin_gives_its_law(tmp_path, capsys):
    """Within 2 % along a and 5 % along c of df/dX, order 2, and the truth within 3 standard errors."""
    code, _ = call(capsys, "learn", TWINS / "coherent.h5", "-o", tmp_path)
    assert code == 0
    result = json.loads((tmp_path / "result.json").read_text())
    truth = np.array(json.loads((TWINS / "coherent.truth.json").read_text())["law"]).reshape(2, 2)
    assert result["order"] == 2
    for axis, true, allowed in zip("ac", truth, (0.02, 0.05), strict=True):
        learned, error = (np.array(result["laws"]["M1"][axis][key]) for key in ("legendre", "std"))
        # d L1/dX = 2 and d L2/dX = 6 (2X - 1) are orthogonal on 0..1 with mean squares 4 and 12.
        mean_square = np.array([4, 12])
        assert np.sqrt(mean_square @ (learned - true) ** 2 / (mean_square @ true**2)) < allowed
        assert np.all(np.abs(learned - true) < 3 * error)


def constant_composition(group):
    random = np.random.default_rng(0)
    group["composition"][...] = 0.97 + 0.04 * random.standard_normal(group["composition"].shape)


def hole(group):
    group["composition"][group["mask"][...]] = np.nan


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (constant_composition, "not identifiable"),
        (hole, "composition is not finite"),
        (lambda group: group.attrs.__setitem__("pixel_size_nm", 0.0), "pixel_size_nm must be positive"),
        (lambda group: group.__delitem__("gamma"), "/gamma is missing"),
        (lambda group: group["mask"].write_direct(np.zeros(group["mask"].shape, bool)), "mask is empty"),
    ],
)
def test_bad_maps_end_in_one_line(small_stack, tmp_path, capsys, edit, message):
    path = tmp_path / "maps.h5"
    path.write_bytes(small_stack.read_bytes())
    with h5py.File(path, "r+") as file:
        for group in file["particles"].values():
            edit(group)
    code, err = call(capsys, "learn", path, "-o", tmp_path / "out")
    assert code == 2
    assert message in err
    assert err.startswith("chemomech: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learn"], "MAPS.h5"),
        (["learn", "nothing.h5", "-o", "out"], "nothing.h5: no such file"),
        (["learn", "{stack}", "-o", "{stack}"], "is a file; the output needs a folder"),
        (["learn", "{stack}", "-o", "/proc/out"], "/proc/out: cannot be written"),
        (["learn", "{stack}", "-o", "out", "--order", "two"], "--order must be auto or a positive integer, got 'two'"),
        (["learn", "{stack}", "-o", "out", "--test", "P9"], "test particle 'P9' is not among P0, P1, P2"),
        (["learn", "{stack}", "-o", "out", "--models", "M9"], "models must be among M0, M1, M2, got M9"),
        (["learn", "{stack}", "-o", "out", "--boundary", "stiff"], "--boundary"),
        (["lern"], "lern"),
        (["--frob"], "--frob"),
    ],
)
def test_bad_arguments_end_in_one_line(small_stack, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, err = call(capsys, *(argument.format(stack=small_stack) for argument in arguments))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback():
    with pytest.raises(Exception, match="no such file"):
        run(["learn", "nothing.h5", "-o", "out", "--debug"])


def test_the_script_prints_no_traceback_and_no_progress_off_a_terminal(small_stack, tmp_path):
    """As a real process: silent on standard output, and on standard error only log lines."""
    command = [sys.executable, "-m", "chemomech", "learn", str(small_stack), "-o", str(tmp_path), "--order", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
    assert done.stdout == ""
    assert all(line.startswith("chemomech: ") for line in done.stderr.splitlines())
    bad = subprocess.run([*command[:4], "nothing.h5", "-o", "x"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "chemomech: nothing.h5: no such file\n"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_nothing(small_stack, tmp_path, sent, code):
    """Stopped as soon as it has begun to write: no folder, no temporary file."""
    command = [sys.executable, "-m", "chemomech", "learn", str(small_stack), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not list(tmp_path.glob("out/.writing-*")):
        assert process.poll() is None, "it ended before it began to write"
        time.sleep(0.02)
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_what_is_there(capsys):
    with pytest.raises(SystemExit) as end:
        run(["doctor"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for word in ("chemomech", "SIMD", "OpenMP threads", "numpy", "mpi4py", "petsc4py"):
        assert word in out


def test_demo_runs_the_whole_pipeline(tmp_path, capsys):
    """Its own data come back within the limits that hold for real ones."""
    code, _ = call(capsys, "demo", "-o", tmp_path)
    assert code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"maps.h5", "result.json", "result.h5", "report.html", "figures"}
    assert json.loads((tmp_path / "result.json").read_text())["order"] == 2
