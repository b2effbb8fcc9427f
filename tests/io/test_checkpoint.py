"""Checkpoints: to the last bit, the older one when the newer is damaged, nothing half-written."""

import numpy as np
import pytest

from chemomech.errors import InputError
from chemomech.io.checkpoint import checkpoints, read_checkpoint, write_checkpoint

FIELD = np.random.default_rng(0).standard_normal((4, 5))


def test_what_is_written_comes_back_to_the_last_bit(tmp_path):
    write_checkpoint(tmp_path, 3, {"field": FIELD, "time_s": np.array(0.1 + 0.2)})
    back = read_checkpoint(tmp_path)
    assert back["field"].tobytes() == FIELD.tobytes()
    assert float(back["time_s"]) == 0.1 + 0.2


def test_two_are_kept(tmp_path):
    for step in (1, 20, 300):
        write_checkpoint(tmp_path, step, {"step": np.array(step)})
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-000000300.bin", "checkpoint-000000020.bin"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:200] + b"\0\0" + b[202:], lambda b: b"", lambda b: b[:30]]
)
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path, damage, caplog):
    for step in (1, 2):
        write_checkpoint(tmp_path, step, {"step": np.array(step), "field": FIELD})
    newest = checkpoints(tmp_path)[0]
    newest.write_bytes(damage(newest.read_bytes()))
    assert int(read_checkpoint(tmp_path)["step"]) == 1
    assert "damaged" in caplog.text


def test_none_is_said(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        read_checkpoint(tmp_path)


def test_a_full_disk_leaves_those_before(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, 1, {"step": np.array(1)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_checkpoint(tmp_path, 2, {"step": np.array(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000001.bin"]
