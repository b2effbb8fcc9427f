"""What a command keeps of its work in case that it does not come to its end."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from chemomech.errors import ConvergenceError, InputError

log = logging.getLogger(__name__)


@contextmanager
def until_finished(folder: Path) -> Iterator[None]:
    """Remove a folder when the work is done, or when doing it again would fail again.

    A run that is told to end (SystemExit) keeps it and says so; one that meets a bug keeps it too.
    """
    if folder.exists():
        log.info("%s: going on from what an earlier run with the same input has left there, if it is of one", folder)
    try:
        yield
    except (InputError, ConvergenceError):
        rmtree(folder, ignore_errors=True)
        raise
    except SystemExit:
        if folder.exists():
            log.warning("what is done so far is kept in %s: the same command goes on from there", folder)
        raise
    rmtree(folder, ignore_errors=True)
