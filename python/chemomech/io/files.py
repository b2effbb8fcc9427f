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


@contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error its files are moved into `folder`.

    An earlier result is replaced file by file, each in one step; files of other names are left alone.

    Raises
    ------
    InputError : `folder` cannot be written, before anything is computed.
    """
    with _refused(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; the output needs a folder")
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    try:
        with _refused(folder):
            yield temporary
            for file in sorted(temporary.rglob("*")):
                target = folder / file.relative_to(temporary)
                if file.is_dir():
                    target.mkdir(exist_ok=True)
                else:
                    _flush(file)
                    os.replace(file, target)
        missing = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for created in missing:  # nothing came of them
            if not any(created.iterdir()):
                created.rmdir()


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _flush(file: Path) -> None:
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())
