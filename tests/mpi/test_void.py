"""`chemomech void` on many ranks is the run of one machine, ends with all of them, and goes on with any number."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from chemomech.io.checkpoint import checkpoints, read_checkpoint
from chemomech.io.void import read_log
from chemomech.mechanics.box import Box
from mpirun import finish, messages, needs_petsc, run, start

PROGRAM = Path(__file__).parent / "phase_field.py"
CONFIG = """schema = "chemomech-void/1"
[domain]
size_nm = [80, 20, 60]
spacing_nm = [5, 5, 5]
voids = [{ centre_nm = [40, 10, 30], radius_nm = 8 }]
[initial]
noise = 0.1
[time]
end_s = END
tolerance = 3e-3
[output]
first_frame_s = 1.0
frames_per_decade = 1
checkpoint_steps = 3
"""
pytestmark = needs_petsc


def void(n_ranks, folder, end_s, *options, text=CONFIG, begin=run):
    path = folder / "run.toml"
    path.write_text(text.replace("END", str(end_s)))
    return begin(n_ranks, "-m", "chemomech", "void", path, "-o", folder / "out", *options)


@pytest.mark.parametrize(("n_ranks", "whole_nodes"), [(1, 20_000), (2, 400), (3, 400), (4, 400), (4, 20_000)])
def test_every_step_is_that_of_one_machine(n_ranks, whole_nodes):
    """Small `whole_nodes` distribute the coarse grids as those of a large body are."""
    code, out, err = run(n_ranks, PROGRAM, "compare", whole_nodes, seconds=120)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 8
    for each in found:
        case = each["case"]
        assert each["newton"][0] == each["newton"][1], case
        assert np.abs(np.subtract(*each["elastic"])).max() <= 1, case
        assert max(each["composition"], each["stress"], each["map"]) < 1e-9, case
        assert each["energy"] < 1e-10, case
        assert case == "reservoir" or each["mass"] < 1e-12, case
        assert each["surface"], case
        assert len(each["cells"]) == n_ranks
        assert case != "one side" or n_ranks == 1 or min(each["cells"]) == 0


def test_restarts_on_other_numbers_of_ranks(tmp_path):
    """2, 3, then 1: the run of one machine, but for rounding, which separation into phases lets grow."""
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    assert void(1, tmp_path / "one", 1000)[0] == 0
    for n_ranks, end_s, options in ((2, 10, ()), (3, 100, ("--restart",)), (1, 1000, ("--restart",))):
        code, _, err = void(n_ranks, tmp_path / "many", end_s, *options)
        assert code == 0, err
        assert err.count("report:") == 1
        assert ("ranks of 1 threads" in err) == bool(options)
    one, many = (read_log(tmp_path / name / "out") for name in ("one", "many"))
    assert len(one) == len(many)
    assert max(abs(each.mean_composition / many[0].mean_composition - 1) for each in many) < 1e-12
    assert max(abs(a.energy_aJ / b.energy_aJ - 1) for a, b in zip(one, many, strict=True)) < 1e-5
    box = Box((16, 4, 12), (False, False, False))
    fields = [read_checkpoint(tmp_path / name / "out", box).corners["compositions_0"] for name in ("one", "many")]
    assert np.abs(np.subtract(*fields)).max() < 1e-3
    # Nothing is left of the ranks whose files were replaced.
    assert not list((tmp_path / "many" / "out").glob("checkpoint-*.parts"))


def test_a_damaged_part_gives_way_to_the_checkpoint_before(tmp_path):
    assert void(2, tmp_path, 1)[0] == 0
    newest, before = checkpoints(tmp_path / "out")
    part = newest.with_name(f"{newest.name}.parts") / "2-of-2.h5"
    part.write_bytes(part.read_bytes()[:-100] + bytes(100))
    code, _, err = void(3, tmp_path, 1, "--restart")
    assert code == 0, err
    assert f"{newest} is damaged" in err
    assert f"going on from step {int(before.stem[-9:])}" in err


def begun(folder, n_ranks):
    process = void(n_ranks, folder, 1e6, begin=start)
    while len(checkpoints(folder / "out")) < 2:
        time.sleep(0.02)
        assert process.poll() is None
    return process


@pytest.mark.parametrize("to", ["the launcher", "one rank", "all ranks", "the launcher and all ranks"])
def test_sigterm_leaves_a_checkpoint_and_ends_all(tmp_path, to):
    process = begun(tmp_path, 3)
    ranks = [each for each in psutil.Process(process.pid).children(recursive=True) if "void" in each.cmdline()]
    assert len(ranks) == 3
    if "the launcher" in to:  # which passes it on
        process.send_signal(signal.SIGTERM)
    for rank in ranks if "all ranks" in to else ranks[1:2] if to == "one rank" else []:
        rank.send_signal(signal.SIGTERM)
    code, _, err = finish(process, 20)
    assert code == 0
    assert "--restart" in err
    last = read_log(tmp_path / "out")[-1]
    kept = read_checkpoint(tmp_path / "out", Box((16, 4, 12), (False, False, False)))
    assert kept.state["step"] == last.step
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("noise", "nosie"), "initial.nosie is not known; did you mean noise?"),
        (("size_nm = [80, 20, 60]", 'shape = "file"\nfile = "none.npy"'), "none.npy: cannot be read"),
        (("[80, 20, 60]", "[10, 20, 10]"), "too small for 3 ranks: each needs"),
    ],
)
def test_bad_input_is_one_line(tmp_path, change, message):
    begin = time.monotonic()
    code, _, err = void(3, tmp_path, 10, text=CONFIG.replace(*change))
    assert code == 2
    assert time.monotonic() - begin < 10
    (line,) = messages(err)
    assert message in line


def test_an_error_on_one_rank_ends_all(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.replace("END", "10"))
    code, _, err = run(3, PROGRAM, "fail", path, tmp_path / "out", seconds=60)
    assert code == 2
    assert time.time() - (tmp_path / "out" / "failed").stat().st_mtime < 10
    assert [line for line in messages(err) if "a bug" in line] == messages(err)[-1:]


def test_a_folder_that_cannot_be_written(tmp_path):
    """Rank 0 alone writes the log: its error ends the others too."""
    (tmp_path / "out").write_text("a file")
    code, _, err = void(3, tmp_path, 10)
    assert code == 2
    assert len(messages(err)) == 1
    assert "out" in err


def test_no_rank_holds_the_grid(tmp_path):
    """Four ranks need a quarter each, and halos. What is allocated grows more than what is used: 47 of 150 MB."""
    paths = tmp_path / "small.toml", tmp_path / "large.toml"
    for path, size in zip(paths, ("[80, 20, 60]", "[480, 80, 480]"), strict=True):
        path.write_text(CONFIG.replace("[80, 20, 60]", size).replace("END", "1e-9"))

    def used(n_ranks, limit_MB):
        code, out, err = run(n_ranks, PROGRAM, "memory", *paths, tmp_path / f"{n_ranks}", limit_MB, seconds=120)
        assert code == 0, err
        return json.loads(out.splitlines()[-1])

    alone = used(1, 1e6)
    (needed,) = alone["grown_MB"]
    shared = used(4, 0.8 * needed)
    assert max(shared["grown_MB"]) < 0.4 * needed
    assert shared["energy"] == pytest.approx(alone["energy"], rel=1e-8)
