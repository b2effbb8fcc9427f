"""Independent pieces of work: done one after the other or in threads here, on many processes by `parallel.ranks`.

A result depends on its item alone, and results come in the order of the items, so it makes no difference who did what.
"""

import hashlib
import io
import os
import pickle
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from chemomech import __version__
from chemomech._core import build_info
from chemomech.errors import ConvergenceError, InputError
from chemomech.progress import progress

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")

#: What an item may fail of while the others are none the worse; anything else is a bug and ends the job.
EXPECTED = (InputError, ConvergenceError, MemoryError, np.linalg.LinAlgError)


class Tasks(Protocol):
    def __call__(
        self,
        description: str,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        cost: Callable[[Item], float],
    ) -> list[Result | Exception]:
        """The function's result of each item, or the error of `EXPECTED` that it raised.

        Parameters
        ----------
        description : for the progress bar.
        function : picklable, as every item and result; `functools.partial` of a function of a module.
        cost : relative time an item takes, by which they are scheduled.
        """


def one_by_one(
    description: str, function: Callable[[Item], Result], items: Sequence[Item], cost: Callable[[Item], float]
) -> list[Result | Exception]:
    """`Tasks` in this process."""
    results = []
    with progress(description, len(items)) as advance:
        for item in items:
            results.append(attempt(function, item))
            advance()
    return results


class TasksOn(Protocol):
    """Tasks of many rounds on one large value, which other processes are sent once."""

    def __call__(
        self,
        description: str,
        function: Callable[[Value, Item], Result],
        value: Value,
        items: Sequence[Item],
        cost: Callable[[Item], float],
    ) -> Generator[Result | Exception, None, None]:
        """Yield what `Tasks` gives of function(value, item); closed early, what has not begun is left out."""


def in_threads(
    description: str,
    function: Callable[[Value, Item], Result],
    value: Value,
    items: Sequence[Item],
    cost: Callable[[Item], float],
) -> Generator[Result | Exception, None, None]:
    """`TasksOn` in this process, in the order of the items; the caller sees to the threads of the BLAS."""
    with ThreadPoolExecutor(build_info()["threads"]) as pool:
        futures = [pool.submit(function, value, item) for item in items]
        try:
            for future in futures:
                yield _or_error(future.result)
        finally:
            for future in futures:
                future.cancel()
            # Before the pool joins its threads: one whose join a signal breaks off counts as ended (bpo-45274), and
            # work that goes on in C++ when the interpreter ends would abort the process.
            wait(futures)


def in_turn(
    description: str,
    function: Callable[[Value, Item], Result],
    value: Value,
    items: Sequence[Item],
    cost: Callable[[Item], float],
) -> Generator[Result | Exception, None, None]:
    """`TasksOn` in this thread, for what is itself one of many tasks."""
    for item in items:
        yield _or_error(partial(function, value, item))


def successes(results: Generator[Result | Exception, None, None]) -> Generator[Result, None, None]:
    """The results of tasks; the first error that one gave is raised, and what has not begun is left out."""
    with closing(results):
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result


def attempt(function: Callable[[Item], Result], item: Item) -> Result | Exception:
    """The result, or the error of `EXPECTED` in its place."""
    with same_sums():
        return _or_error(partial(function, item))


def _or_error(call: Callable[[], Result]) -> Result | Exception:
    try:
        return call()
    except EXPECTED as error:
        return error


@contextmanager
def same_sums() -> Iterator[None]:
    """Within it the BLAS uses one thread, so that sums do not depend on how many there are; our own never do."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


def remembered(tasks: Tasks, folder: Path) -> Tasks:
    """Tasks that keep each result in a folder at once, and find there what a run before this one has left.

    A result is found again under the same program, function, options and item; on any number of processes.
    """

    def run(
        description: str, function: Callable[[Item], Result], items: Sequence[Item], cost: Callable[[Item], float]
    ) -> list[Result | Exception]:
        return tasks(description, _Remembered(function, folder), items, cost)

    return run


@dataclass(frozen=True)
class _Remembered(Generic[Item, Result]):
    function: Callable[[Item], Result]
    folder: Path

    def __call__(self, item: Item) -> Result:
        kept = Unfinished(self.folder, (self.function, item))
        result: Result | None = kept.find("result")
        if result is None:
            result = self.function(item)
            kept.keep("result", result)
        return result


class Unfinished:
    """Values by name that a job keeps in a folder, and finds there when it is started again with the same work.

    Parameters
    ----------
    work : picklable, all that the values depend on; other work, or another version of the program, has its own values.
    """

    def __init__(self, folder: Path, work: Any) -> None:
        self._folder = folder
        self._work = hashlib.sha256(pickle.dumps((__version__, work), protocol=5)).hexdigest()

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(f"{self._work} {name}".encode()).hexdigest()

    def find(self, name: str) -> Any:
        """The value last kept under a name, or None."""
        try:
            return _read(self._path(name))
        except (FileNotFoundError, EOFError, pickle.UnpicklingError):
            return None  # a power cut can leave a file that was never filled

    def keep(self, name: str, value: Any) -> None:
        """Replace the value of a name in one step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            pickle.dump(value, file, protocol=5)
        os.replace(file.name, self._path(name))


class _Unpickler(pickle.Unpickler):
    """Reads results and nothing that could do more than hold data, whoever has written to the folder."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy._core.numeric", "numpy._core.multiarray"):
            if name in ("dtype", "ndarray", "_frombuffer", "_reconstruct", "scalar"):
                return super().find_class(module, name)
        elif module.startswith("chemomech.") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a result")


def _read(path: Path) -> Any:
    return _Unpickler(io.BytesIO(path.read_bytes())).load()
