"""Checkpoints: to the last bit, the older one when the newer is damaged, nothing half-written."""

import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.io.checkpoint import Checkpoint, checkpoints, read_checkpoint, write_checkpoint
from chemomech.mechanics.box import Box

BOX = Box((3, 4, 5), (False, False, False))
FIELD = np.random.default_rng(0).standard_normal((4, 5, 6, 3))
SOLID = FIELD[:-1, :-1, :-1, 0] > 0


def write(folder, step, **state):
    write_checkpoint(folder, step, BOX, Checkpoint(state, {"solid": SOLID}, {"field": FIELD}))


def test_what_is_written_comes_back_to_the_last_bit(tmp_path):
    write(tmp_path, 3, time_s=0.1 + 0.2, names={"a": 1.5}, lengths=[1e-300, 3.0])
    back = read_checkpoint(tmp_path, BOX)
    assert back.state == {"time_s": 0.1 + 0.2, "names": {"a": 1.5}, "lengths": [1e-300, 3.0]}
    assert back.corners["field"].tobytes() == FIELD.tobytes()
    assert back.cells["solid"].dtype == bool
    np.testing.assert_array_equal(back.cells["solid"], SOLID)


def test_two_are_kept(tmp_path):
    for step in (1, 20, 300):
        write(tmp_path, step)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000000300.h5", "checkpoint-000000020.h5"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:2000] + b"\1\2" + b[2002:], lambda b: b"", lambda b: b[:30]]
)
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path, damage, caplog):
    for step in (1, 2):
        write(tmp_path, step, number=step)
    newest = checkpoints(tmp_path)[0]
    newest.write_bytes(damage(newest.read_bytes()))
    assert read_checkpoint(tmp_path, BOX).state["number"] == 1
    assert "damaged" in caplog.text


def test_none_is_said(tmp_path):
    with pytest.raises(InputError, match="no checkpoint that is whole"):
        read_checkpoint(tmp_path, BOX)


@pytest.mark.parametrize("cells", [(3, 4, 6), (3, 4, 4)])
def test_another_grid_is_said(tmp_path, cells):
    write(tmp_path, 1)
    with pytest.raises(InputError, match="another grid"):
        read_checkpoint(tmp_path, Box(cells, (False, False, False)))


def test_a_full_disk_leaves_those_before(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000001.h5"]
