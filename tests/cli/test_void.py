"""`chemomech void` as a process: what it leaves, killed and restarted, and what it refuses."""

import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from chemomech.io.checkpoint import checkpoints, read_checkpoint
from chemomech.io.void import read_log
from chemomech.mechanics.box import Box

CONFIG = """schema = "chemomech-void/1"
[domain]
size_nm = [80, 20, 60]
spacing_nm = [5, 5, 5]
voids = [{ centre_nm = [40, 10, 30], radius_nm = 8 }]
[initial]
noise = 0.1
[time]
end_s = 3000
tolerance = 3e-3
[output]
first_frame_s = 1.0
frames_per_decade = 2
checkpoint_steps = 3
"""
BOX = Box((16, 4, 12), (False, False, False))
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def void(folder, *options, text=CONFIG):
    path = folder / "run.toml"
    path.write_text(text)
    return [sys.executable, "-m", "chemomech", "void", str(path), "-o", str(folder / "out"), *options]


def ended(folder, *options, text=CONFIG):
    return subprocess.run(
        void(folder, *options, text=text), env=ONE_THREAD, capture_output=True, text=True, timeout=120
    )


def the_end(folder):
    """Everything a run says: the state to the last bit, the log, the frames."""
    out = folder / "out"
    kept = read_checkpoint(out, BOX)
    state = [
        dict(kept.state),
        *({name: a.tobytes() for name, a in part.items()} for part in (kept.cells, kept.corners)),
    ]
    frames = {}
    for path in sorted((out / "frames").glob("*.vtkhdf")):
        with h5py.File(path) as file:
            fields = [*file["VTKHDF/PointData"].values(), *file["VTKHDF/CellData"].values()]
            frames[path.name] = [(field.name, field[...].tobytes()) for field in fields]
    return state, (out / "log.csv").read_text(), frames


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run = ended(folder)
    assert run.returncode == 0, run.stderr
    return folder


def test_what_it_leaves(uninterrupted):
    out = uninterrupted / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {"frames", "log.csv", "report.html", *(path.name for path in checkpoints(out))}
    records = read_log(out)
    assert records[-1].time_s == 3000
    assert [record.step for record in records] == list(range(len(records)))
    frames = sorted((out / "frames").glob("*.vtkhdf"))
    assert len(frames) == 9  # the start, and 1 to 3162 s twice a decade up to the end
    assert "phase boundaries" in (out / "report.html").read_text()


def killed_and_restarted(folder, n_kills, whole_s, random):
    """Kills at random times until so many hit a running process; the last restart runs to the end."""
    kills, options = 0, ()
    while kills < n_kills:
        process = subprocess.Popen(void(folder, *options), env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
        try:
            process.wait(random.uniform(0.3, 1.0) * whole_s)
            assert process.returncode == 0, process.stderr.read()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        options = ("--restart",) if (folder / "out").is_dir() else ()
        if process.returncode == 0:  # it came to its end before the kill: begin once more
            for path in checkpoints(folder / "out"):
                path.unlink()
            options = ()
    run = ended(folder, *options)
    assert run.returncode == 0, run.stderr


def whole_time(folder):
    start = time.perf_counter()
    assert ended(folder).returncode == 0
    return time.perf_counter() - start


@pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills(uninterrupted, tmp_path, n_kills):
    (tmp_path / "timed").mkdir()
    seconds = whole_time(tmp_path / "timed")
    (tmp_path / "killed").mkdir()
    killed_and_restarted(tmp_path / "killed", n_kills, seconds, np.random.default_rng(n_kills))
    assert the_end(tmp_path / "killed") == the_end(uninterrupted)


def test_sigterm_leaves_a_checkpoint(uninterrupted, tmp_path):
    process = subprocess.Popen(void(tmp_path), env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    while len(checkpoints(tmp_path / "out")) < 2:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "--restart" in said
    step = read_checkpoint(tmp_path / "out", BOX).state["step"]
    assert read_log(tmp_path / "out")[-1].step == step
    assert ended(tmp_path, "--restart").returncode == 0
    assert the_end(tmp_path) == the_end(uninterrupted)


def test_a_run_is_not_overwritten(uninterrupted):
    run = ended(uninterrupted)
    assert run.returncode == 2
    assert "--restart" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("radius_nm = 8", "radius_nm = 8 }, { centre_nm = [40, 10, 30], radius_nm = 33"), "2 pieces"),
        (("[80, 20, 60]", "[80, 20, 60]\nspacing_um = 1"), "spacing_um is not known; did you mean spacing_nm"),
        (("noise = 0.1", "noise = 0.5\nmean = 0.3"), "outside 0 < X < 1"),
        (("radius_nm = 8", "radius_nm = 800"), "no solid voxel"),
    ],
)
def test_bad_input_is_one_line(tmp_path, change, message):
    run = ended(tmp_path, text=CONFIG.replace(*change))
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_coarse_grid_is_warned_of(tmp_path):
    run = ended(tmp_path, text=CONFIG.replace("[5, 5, 5]", "[10, 5, 10]").replace("3000", "1e-6"))
    assert run.returncode == 0
    assert "24.2 nm wide along a and c, where a voxel of 10 nm is too coarse" in run.stderr


def test_another_configuration_cannot_go_on(uninterrupted):
    run = ended(uninterrupted, "--restart", text=CONFIG.replace("noise = 0.1", "noise = 0.2"))
    assert run.returncode == 2
    assert "another configuration" in run.stderr
