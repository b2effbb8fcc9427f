"""Nothing half-written is ever seen."""

import os

import pytest

from chemomech.errors import InputError
from chemomech.io.files import atomic_path, output_folder


def test_a_folder_appears_whole(tmp_path):
    with output_folder(tmp_path / "new" / "out") as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "a.png").write_bytes(b"png")
        (folder / "result.json").write_text("{}")
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == ["new/out/figures/a.png", "new/out/result.json"]


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "new" / "out") as folder:
        (folder / "result.json").write_text("{")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_an_earlier_result_whole(tmp_path):
    (tmp_path / "result.json").write_text("old")
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path) as folder:
        (folder / "result.json").write_text("half")
        raise ZeroDivisionError
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"result.json": "old", "mine.txt": "keep"}
    with output_folder(tmp_path) as folder:
        (folder / "result.json").write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"result.json": "new", "mine.txt": "keep"}


def test_figures_of_an_earlier_result_do_not_linger(tmp_path):
    for name in ("a.png", "b.png"):
        with output_folder(tmp_path / "out") as folder:
            (folder / "figures").mkdir()
            (folder / "figures" / name).write_bytes(b"png")
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == ["b.png"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["figures"]


def test_a_written_file_is_readable_like_any_other(tmp_path):
    with atomic_path(tmp_path / "maps.h5") as temporary:
        temporary.write_text("x")
    (tmp_path / "other").write_text("x")
    assert (tmp_path / "maps.h5").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_is_replaced_in_one_step(tmp_path):
    target = tmp_path / "maps.h5"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("maps.h5", "new")]


def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file"), output_folder(folder):
            pytest.fail("the work has begun")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"), output_folder(tmp_path / "out"):
        pytest.fail("the work has begun")
