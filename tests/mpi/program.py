"""What the tests of ranks run under mpiexec: program.py CASE [FOLDER]; ends like a command."""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from chemomech.cli.main import run
from chemomech.errors import ConvergenceError
from chemomech.parallel import launch
from chemomech.tasks import remembered


def solve(item, rank_of_bug=None, seconds=0.0):
    number, matrix = item
    if number == 3:
        raise ConvergenceError("item 3", iterations=7, residual=0.5, tolerance=1e-8)
    if rank_of_bug is not None and launch.ranks() and launch.ranks().rank == rank_of_bug:
        raise KeyError("a bug")
    time.sleep(seconds)
    return np.linalg.inv(matrix) @ matrix.sum(axis=0)


def items():
    random = np.random.default_rng(0)
    return [(i, random.random((50 + 10 * (i % 5),) * 2)) for i in range(24)]


def size(item):
    return len(item[1]) ** 3


def share(folder):
    """Results in order, whoever made them, and the error of item 3 in its place."""
    results = launch.tasks()("numbers", solve, items(), size)
    assert isinstance(results[3], ConvergenceError)
    assert (results[3].iterations, results[3].residual) == (7, 0.5)
    np.save(folder / "results.npy", np.concatenate([result for i, result in enumerate(results) if i != 3]))


def times(value, item):
    return value[0] * item


def share_values(folder):
    """Tasks on a value are done on the value given, also after another and between others."""
    on = launch.tasks_on()
    first, second = np.arange(3.0), np.arange(3.0) + 5
    for value in (first, first, second, first):
        results = list(on("products", times, value, range(20), float))
        assert results == [value[0] * item for item in range(20)]
        assert launch.tasks()("numbers", abs, range(-5, 0), float) == [5, 4, 3, 2, 1]


def count(item, folder):
    time.sleep(0.2)
    (folder / f"{item}.{time.time_ns()}").touch()
    return item**2


def resume(folder):
    """What was done before the run was killed is not done again."""
    done = folder / "done"
    done.mkdir(exist_ok=True)
    tasks = remembered(launch.tasks(), folder / "kept")
    assert tasks("squares", partial(count, folder=done), range(12), float) == [i**2 for i in range(12)]


def bug_in_a_task(folder):
    launch.tasks()("numbers", partial(solve, rank_of_bug=1, seconds=0.01), items(), size)


def bug_while_others_work(folder):
    """Rank 0 is deep in a task of a minute when rank 1 fails."""
    launch.tasks()("numbers", partial(solve, rank_of_bug=1, seconds=60.0), items(), size)


def bug_on_rank_0(folder):
    raise KeyError("a bug")


def wait(folder):
    (folder / "ready").touch()
    launch.tasks()("numbers", partial(solve, seconds=60.0), items(), size)


def add(comm, value):
    return comm.allreduce(value * comm.Get_rank())


def fail(comm, ranks):
    if comm.Get_rank() in ranks:
        raise ConvergenceError("the sum", iterations=3, residual=0.1, tolerance=1e-8)
    comm.Barrier()


def together(folder):
    n = launch.ranks().size
    assert launch.ranks().together(add, 2) == n * (n - 1)


def all_fail_together(folder):
    launch.ranks().together(fail, range(100))


def one_fails_together(folder):
    launch.ranks().together(fail, [1])


def some_fail_together(folder):
    launch.ranks().together(fail, [1, 2])


if __name__ == "__main__":
    import chemomech.cli.main as command

    case, folder = sys.argv[1:]
    command.app = lambda *_, **__: globals()[case](Path(folder))
    run([])
