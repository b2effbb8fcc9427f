"""Rank 0 runs the program, the other ranks wait for what it wants done.

Tasks are handed out by cost, the most expensive first. Rank 0 works too, on the cheapest left, and hands out two ahead
to everyone before each of its own, so that nobody waits for it; no thread is needed for that. Results go back by
number: which rank had a task makes no difference.

A failure on one rank ends all of them, with one message. What still computes then is not waited for.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NoReturn

from mpi4py import MPI

from chemomech.progress import progress
from chemomech.tasks import Item, Result, Value, attempt

#: Tasks that a rank has or is sent while it still works on one.
_AHEAD = 2
#: Seconds between looks for a message; MPI's own waiting would take a core.
_PAUSE = 5e-4
#: MPI's probe moves on what has arrived since the last one, and the next probe sees it: with one look in every pause of
#: rank 0 a rank with two tasks ahead ran out of them.
_LOOKS = 2
#: Seconds that ranks are given to end, or to fail like the others, before they are stopped.
_PATIENCE = 3.0
#: What mpiexec needs to pass on the last words of a rank, in seconds: an abort ends it, and what it holds is lost.
_FORWARDING = 0.5
_ORDER, _ANSWER, _FAILED = 1, 2, 3


class RankError(RuntimeError):
    """An error on another rank; the message names both."""


class Ranks:
    """All processes of MPI.COMM_WORLD, as `Tasks` and for what they do together.

    Attributes
    ----------
    rank, size : of this process, and how many there are.
    """

    def __init__(self) -> None:
        self._comm = MPI.COMM_WORLD
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        self._launcher = os.getppid()
        self._values: list[Any] = [None, None]  # of `on`, which rank 0 has sent
        self._oldest = 0

    def run(self, program: Callable[[], int]) -> int:
        """On rank 0 the exit code of a program; the same on the others, which do as it tells them until it ends.

        >>> sys.exit(Ranks().run(main))
        """
        if self.rank > 0:
            return self._serve()
        code = 2
        try:
            code = program()
        finally:
            self._end(code)
        return code

    def __call__(
        self,
        description: str,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        cost: Callable[[Item], float],
    ) -> list[Result | Exception]:
        """See `chemomech.tasks.Tasks`; on rank 0.

        Raises
        ------
        RankError : a task failed of what is none of `tasks.EXPECTED`, or a rank was told to end.
        """
        # Everyone has the items, so that a task is a number, which is sent without waiting for its receiver.
        self._order("work")
        self._comm.bcast((function, items), root=0)
        return self._hand_out(description, function, items, cost)

    def on(
        self,
        description: str,
        function: Callable[[Value, Item], Result],
        value: Value,
        items: Sequence[Item],
        cost: Callable[[Item], float],
    ) -> Generator[Result | Exception, None, None]:
        """See `chemomech.tasks.TasksOn`; on rank 0. Ranks hold the last two values they were sent."""
        if all(value is not held for held in self._values):
            self._values[self._oldest] = value
            self._order("value", self._oldest)
            self._comm.bcast(value, root=0)
            self._oldest = 1 - self._oldest
        self._order("work on value", next(i for i, held in enumerate(self._values) if held is value))
        self._comm.bcast((function, items), root=0)
        yield from self._hand_out(description, partial(function, value), items, cost)

    def _hand_out(
        self,
        description: str,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        cost: Callable[[Item], float],
    ) -> list[Result | Exception]:
        """Results in the order of the items, which all ranks have."""
        results: dict[int, Result | Exception] = {}
        left = sorted(range(len(items)), key=lambda number: (cost(items[number]), -number))
        load = dict.fromkeys(range(1, self.size), 0)
        with progress(description, len(items)) as advance:
            while len(results) < len(items):
                while message := self._look(_ANSWER):
                    rank, number, result, failure = message
                    if failure:
                        raise RankError(failure)
                    results[number] = result
                    load[rank] -= 1
                    advance()
                for _ in range(_AHEAD):
                    for rank in sorted(load, key=lambda rank: load[rank]):
                        if left and load[rank] < _AHEAD:
                            self._tell(rank, "task", left.pop())
                            load[rank] += 1
                if left:
                    cheapest = left.pop(0)
                    results[cheapest] = attempt(function, items[cheapest])
                    advance()
                else:
                    time.sleep(_PAUSE)
        self._order("rest")
        return [results[number] for number in range(len(items))]

    def together(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call function(comm, *arguments), picklable, on all ranks; on rank 0, whose result it returns.

        An error that all ranks raise is raised; one that some do not ends them all, for they would wait for ever.
        """
        self._order("together")
        self._comm.bcast((function, arguments), root=0)
        result: Result = self._join(function, arguments)
        return result

    def _order(self, what: str, about: Any = None) -> None:
        for rank in range(1, self.size):
            self._tell(rank, what, about)

    def _tell(self, rank: int, what: str, about: Any) -> None:
        self._comm.send((what, about), dest=rank, tag=_ORDER)

    def _look(self, tag: int) -> Any:
        """A message that has arrived, or None."""
        for _ in range(_LOOKS):
            if self._comm.iprobe(tag=tag):
                return self._comm.recv(tag=tag)
        return None

    def _await(self, tag: int, seconds: float) -> Any:
        """The next message, or None after so long."""
        end = time.monotonic() + seconds
        while (message := self._look(tag)) is None and time.monotonic() < end:
            if os.getppid() != self._launcher:
                os._exit(1)  # nobody is left to end this process
            time.sleep(_PAUSE)
        return message

    def _end(self, code: int) -> None:
        self._order("end", code)
        waiting = self.size - 1
        end = time.monotonic() + _PATIENCE
        while waiting and time.monotonic() < end:
            message = self._await(_ANSWER, end - time.monotonic())
            waiting -= message == "ended"
        if waiting:
            self._stop(code)

    def _serve(self) -> int:
        """Do what rank 0 says until it ends; its exit code."""
        function: Callable[[Any], Any] = repr
        items: Sequence[Any] = ()
        sending: list[MPI.Request] = []
        try:
            while True:
                what, about = self._await(_ORDER, float("inf"))
                if what == "work":
                    function, items = self._comm.bcast(None, root=0)
                elif what == "value":
                    self._values[about] = None  # not three at a time
                    self._values[about] = self._comm.bcast(None, root=0)
                elif what == "work on value":
                    function, items = self._comm.bcast(None, root=0)
                    function = partial(function, self._values[about])
                elif what == "task":
                    answer = (self.rank, about, attempt(function, items[about]), None)
                    sending = [each for each in sending if not each.Test()]
                    sending.append(self._comm.isend(answer, dest=0, tag=_ANSWER))
                elif what == "rest":
                    MPI.Request.waitall(sending)
                    function, items, sending = repr, (), []
                elif what == "together":
                    self._join(*self._comm.bcast(None, root=0))
                else:
                    self._comm.send("ended", dest=0, tag=_ANSWER)
                    return int(about)
        except BaseException as error:
            failure = self._describe(error)
            code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 2
            self._comm.isend((self.rank, None, None, failure), dest=0, tag=_ANSWER)
            while message := self._await(_ORDER, _PATIENCE):
                if message[0] == "end":
                    self._comm.send("ended", dest=0, tag=_ANSWER)
                    return int(message[1])
            # Rank 0 is busy and will not hear of it in time.
            print(f"chemomech: {failure}", file=sys.stderr)
            self._stop(code)

    def _join(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        try:
            return function(self._comm, *arguments)
        except BaseException as error:
            others = [rank for rank in range(self.size) if rank != self.rank]
            for rank in others:
                self._comm.isend(self.rank, dest=rank, tag=_FAILED)
            end = time.monotonic() + _PATIENCE
            failed = [self._await(_FAILED, end - time.monotonic()) for _ in others]
            if None not in failed:
                if self.rank == 0:
                    raise
                return None
            code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 2
            if self.rank < min((rank for rank in failed if rank is not None), default=self.size):
                print(f"chemomech: {self._describe(error)}", file=sys.stderr)
                self._stop(code)
            time.sleep(2 * _PATIENCE)  # a rank before this one speaks for both
            self._stop(code)

    def _describe(self, error: BaseException) -> str:
        if isinstance(error, SystemExit):
            return f"interrupted: rank {self.rank} was told to end; no file was left half-written"
        text = " ".join(str(error).split())
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"rank {self.rank}: {type(error).__name__}: {text} ({at.filename}:{at.lineno})"

    def _stop(self, code: int) -> NoReturn:
        sys.stderr.flush()
        time.sleep(_FORWARDING)
        self._comm.Abort(code)
        raise AssertionError("not reached")
