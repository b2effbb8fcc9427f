"""Progress with time left on a terminal, silence elsewhere; and the places where a long job lets itself be ended."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Of the whole process, so that a bar inside another is drawn below it.
_CONSOLE = Console(file=sys.stderr)
_signals: list[int] = []


def end_on_signal(number: int, frame: FrameType | None) -> None:
    """Signal handler: end the process with 128 + number, clearing away what is being written.

    Python drops an exception that a signal raises inside a destructor or a callback; the next step of any progress
    bar raises it again.
    """
    _signals.append(number)
    raise SystemExit(128 + number)


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

        def advance() -> None:
            bar.advance(task)
            if _signals:
                raise SystemExit(128 + _signals[0])

        yield advance


@contextmanager
def progress_in_time(description: str) -> Iterator[Callable[[float, str], None]]:
    """Yield a function to call with the share of the work done and a line on where it stands.

    >>> with progress_in_time("phase field") as show:
    ...     show(0.5, "t = 10 s")
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=_CONSOLE, transient=True, disable=not _CONSOLE.is_terminal) as bar:
        task = bar.add_task(description, total=1.0, text="")

        def show(share: float, text: str) -> None:
            bar.update(task, completed=share, text=text)

        yield show
