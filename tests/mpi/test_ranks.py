"""Many processes do what one does, to the bit, and end together."""

import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from chemomech.io.correlative import write_stack
from chemomech.learn.twins import Noise, add_noise, make_particle
from mpirun import finish, messages, needs_mpi, run, start
from videos import write_video

PROGRAM = Path(__file__).parent / "program.py"
pytestmark = needs_mpi


def program(n_ranks, case, folder, seconds=60):
    return run(n_ranks, PROGRAM, case, folder, seconds=seconds)


def test_results_do_not_depend_on_the_number_of_ranks(tmp_path):
    results = []
    for n in (1, 2, 3, 4):
        code, _, err = program(n, "share", tmp_path)
        assert code == 0, err
        results.append((tmp_path / "results.npy").read_bytes())
    assert len(set(results)) == 1


def test_tasks_on_a_value(tmp_path):
    for n in (1, 2, 3):
        code, _, err = program(n, "share_values", tmp_path)
        assert code == 0, err


def require_same_files(one, other, datasets):
    """The same result.json, and datasets of result.h5."""
    assert (one / "result.json").read_bytes() == (other / "result.json").read_bytes()
    with h5py.File(one / "result.h5") as a, h5py.File(other / "result.h5") as b:
        for name in datasets:
            np.testing.assert_array_equal(a[f"particles/P2/{name}"], b[f"particles/P2/{name}"])


def test_learning_gives_the_same_file_to_the_bit(tmp_path):
    particles = [add_noise(make_particle(f"P{i}", length_nm=900 + 200 * i, seed=i), Noise(), seed=i) for i in range(3)]
    write_stack(tmp_path / "maps.h5", particles)
    for n in (1, 2, 3, 4):
        arguments = ("learn", tmp_path / "maps.h5", "--models", "M0,M1,M2", "-o", tmp_path / f"{n}")
        code, _, err = run(n, "-m", "chemomech", *arguments)
        assert code == 0, err
        assert err.count("report:") == 1
        require_same_files(tmp_path / "1", tmp_path / f"{n}", ("residual_strain", "dislocation_density"))


def test_kinetics_give_the_same_files_to_the_bit(tmp_path):
    """Whoever evaluated the films: threads of one process, two ranks, or two that were killed and three who go on."""
    write_video(tmp_path / "video.h5", [(4, 5), (4, 4)], noise=0.05)
    arguments = ("-m", "chemomech", "kinetics", tmp_path / "video.h5", "-o")
    process = start(2, *arguments, tmp_path / "3")
    while not list((tmp_path / "3").glob(".unfinished/*")):
        time.sleep(0.01)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, 10)
    time.sleep(1.0)  # the launcher's other half takes a moment to end the ranks
    for n in (1, 2, 3):
        code, _, err = run(n, *arguments, tmp_path / f"{n}", seconds=600)  # a shared machine may stand still
        assert code == 0, err
        assert err.count("report:") == 1
        assert ("pieces of films, step 1:" in err) == (n < 3)
        require_same_files(tmp_path / "1", tmp_path / f"{n}", ("log_k", "half_cycles/1/li_fraction"))


def test_a_killed_run_is_resumed(tmp_path):
    """On another number of ranks; at most what was under way is done twice."""
    process = start(2, PROGRAM, "resume", tmp_path)
    while not (tmp_path / "done").exists() or len(list((tmp_path / "done").iterdir())) < 5:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, 10)
    time.sleep(1.0)  # the launcher's other half takes a moment to end the ranks
    before = {name.name for name in (tmp_path / "done").iterdir()}
    kept = len([file for file in (tmp_path / "kept").iterdir() if not file.name.startswith("tmp")])
    assert 5 - 2 <= kept <= len(before) < 12
    code, _, err = program(3, "resume", tmp_path)
    assert code == 0, err
    after = {name.name for name in (tmp_path / "done").iterdir()} - before
    assert len(after) == 12 - kept


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
@pytest.mark.parametrize("case", ["bug_in_a_task", "bug_while_others_work", "bug_on_rank_0"])
def test_a_bug_on_one_rank_ends_all(n_ranks, case, tmp_path):
    start = time.monotonic()
    code, _, err = program(n_ranks, case, tmp_path, seconds=30)
    assert code == 2
    (message,) = messages(err)
    assert "KeyError" in message
    # Ten seconds are promised; starting four Pythons on two cores takes some of them.
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_a_missing_file_is_one_message(n_ranks, tmp_path):
    code, _, err = run(n_ranks, "-m", "chemomech", "learn", tmp_path / "no.h5", "-o", tmp_path / "out", seconds=30)
    assert code == 2
    (message,) = messages(err)
    assert "no.h5" in message


def test_a_bad_option_is_one_message(tmp_path):
    code, _, err = run(3, "-m", "chemomech", "learn", "--order", "two", "maps.h5", "-o", tmp_path / "out", seconds=30)
    assert code == 2
    assert len(messages(err)) == 1


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_signal_ends_all(n_ranks, tmp_path):
    """As when a queue's time is up: SIGTERM reaches every rank, deep in a task."""
    process = start(n_ranks, PROGRAM, "wait", tmp_path)
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process, 10)
    assert code != 0
    assert len(messages(err)) <= 1


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_ranks_work_and_fail_together(n_ranks, tmp_path):
    code, _, err = program(n_ranks, "together", tmp_path)
    assert code == 0, err
    for case in ("all_fail_together", "one_fails_together", "some_fail_together"):
        begun = time.monotonic()
        code, _, err = program(n_ranks, case, tmp_path, seconds=30)
        assert code == 2
        (message,) = messages(err)
        assert "the sum did not reach" in message
        assert time.monotonic() - begun < 15
