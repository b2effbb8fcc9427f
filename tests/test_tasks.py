"""Work in threads that is broken off."""

import signal
import threading
import time
from contextlib import contextmanager

import pytest

from chemomech.tasks import in_threads


class Interrupted(Exception):
    pass


@contextmanager
def interrupted_after(seconds):
    def handler(number, frame):
        raise Interrupted

    former = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize("closed_early", [False, True])
def test_a_signal_waits_for_what_has_begun(closed_early):
    """While results are awaited, or while a generator that was closed waits for what it cannot break off: threads must
    not outlive it, as the interpreter would abort under them."""
    ended, long_one_begun = [], threading.Event()

    def work(_, seconds):
        if seconds:
            long_one_begun.set()
        time.sleep(seconds)
        ended.append(seconds)

    results = in_threads("work", work, None, [0.0, 1.0], float)
    next(results)
    assert long_one_begun.wait(10)
    with pytest.raises(Interrupted), interrupted_after(0.2):
        if closed_early:
            results.close()
        else:
            next(results)
    assert ended == [0.0, 1.0]
