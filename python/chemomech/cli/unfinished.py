"""What a command keeps of its work in case that it does not come to its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from chemomech.errors import ConvergenceError, InputError


@contextmanager
def until_finished(folder: Path, *, through_signals: bool) -> Iterator[None]:
    """Remove a folder when the work is done, or when doing it again would fail again."""
    try:
        yield
    except (InputError, ConvergenceError):
        rmtree(folder, ignore_errors=True)
        raise
    except SystemExit:
        if not through_signals:
            rmtree(folder, ignore_errors=True)
        raise
    rmtree(folder, ignore_errors=True)
