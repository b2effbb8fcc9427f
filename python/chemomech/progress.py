"""Progress with time left on a terminal, silence everywhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Of the whole process, so that a bar inside another is drawn below it.
_CONSOLE = Console(file=sys.stderr)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of `total` steps.

    >>> with progress("particles", 2) as advance:
    ...     for _ in range(2):
    ...         advance()
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_CONSOLE, transient=True, disable=not _CONSOLE.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)
