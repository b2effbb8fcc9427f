"""Writing that is never seen half done."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chemomech.errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` when the block ends without an error."""
    with _refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush_folder(path.parent)


def writable(path: Path) -> None:
    """Raise InputError when a file cannot be written at `path`, before anything is computed for it."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; the output needs a file name")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    with _refused(path), tempfile.TemporaryFile(dir=parent):
        pass


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error what is in it is moved into `folder`.

    Files and folders of an earlier result are replaced as a whole, each in one step; other names are left alone.

    Raises
    ------
    InputError : `folder` cannot be written, before anything is computed.
    """
    with _refused(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; the output needs a folder")
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        working = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    fresh, former = working / "new", working / "old"
    try:
        with _refused(folder):
            fresh.mkdir()
            former.mkdir()
            yield fresh
            for file in fresh.rglob("*"):
                if file.is_file():
                    _flush(file)
            for entry in sorted(fresh.iterdir()):
                target = folder / entry.name
                if target.is_dir():
                    os.replace(target, former / entry.name)
                os.replace(entry, target)
        missing = []
    finally:
        shutil.rmtree(working, ignore_errors=True)
        for created in missing:  # nothing came of them
            if not any(created.iterdir()):
                created.rmdir()


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush(file: Path) -> None:
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())
