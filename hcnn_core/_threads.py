"""Work shared among threads.

NumPy and compiled kernels release the interpreter lock inside their loops, so threads of Python's share their work: as
many as there are processors, or as HCNN_NUM_THREADS, or else OMP_NUM_THREADS, says. NumPy's matrix products have
threads of their own, and the two together fight over the processors. Work that calls them is shared only where
HCNN_NUM_THREADS asks for it; many small products gain more from one thread each, so who sets it sets
OPENBLAS_NUM_THREADS=1 as well, both before NumPy is imported. The command lines of `train` do.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from ctypes import PyDLL
from functools import lru_cache, partial
from queue import SimpleQueue

from hcnn_core._tuning import current

_inside = threading.local()


@lru_cache(maxsize=1)
def worker_count() -> int:
    """Threads to use for work that has none of its own."""
    return asked_for() or _number("OMP_NUM_THREADS") or processors()


@lru_cache(maxsize=1)
def asked_for() -> int | None:
    """The environment's HCNN_NUM_THREADS; None where it says nothing."""
    if "HCNN_NUM_THREADS" in os.environ and not _number("HCNN_NUM_THREADS"):
        given = os.environ["HCNN_NUM_THREADS"]
        raise ValueError(f"HCNN_NUM_THREADS is {given!r}; set it to a number of threads, 1 or more")
    return _number("HCNN_NUM_THREADS")


def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _number(variable: str) -> int | None:
    """A number of threads in the environment; None for anything else."""
    given = os.environ.get(variable, "")
    return int(given) if given.isdecimal() and int(given) else None


class Crew:
    """Threads that wait for work: with less ceremony, and awake sooner, than those of concurrent.futures."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.size = 0
        self.lock = threading.RLock()  # a signal's handler may ask for work too

    def grow(self, size: int) -> None:
        """Have so many threads or more."""
        if self.size < size:
            with self.lock:
                while self.size < size:
                    threading.Thread(target=self._serve, name=f"hcnn_{self.size + 1}", daemon=True).start()
                    self.size += 1

    def _serve(self) -> None:
        while True:
            self.tasks.get()()


@lru_cache(maxsize=1)
def _crew() -> Crew:
    return Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.cache_clear)  # a child has none of its parent's threads


MEMORY = 4
"""Of those, what takes as long as an element that comes from memory."""

PRODUCTS = 14
"""Multiply-adds of compiled products that take as long as one of those elements."""

STEP = 16
"""Where work has many items, parts begin at multiples of so many: single-precision numbers in a line of the cache."""


_processor: Callable[[], int] | None = (
    getattr(PyDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
)
"""Says which processor a thread is on, where threads can be moved."""


def keep_apart(taken: set[int]) -> None:
    """Leave a processor that another part of the work has, and note which one this part has.

    Linux may wake a thread on the processor of the one that wakes it, while another is idle, and leave it there: two
    parts then take turns, call after call.
    """
    if _processor is None:
        return
    if _processor() in taken:
        with suppress(OSError):  # not allowed here
            allowed = os.sched_getaffinity(0)
            if others := allowed - taken:
                os.sched_setaffinity(0, others)  # which moves this thread
                os.sched_setaffinity(0, allowed)
    taken.add(_processor())


def threads_for(elements: int | None = None) -> int:
    """Threads that work on so many elements should have: one inside a part of other work, or where there are few."""
    if elements is not None and elements <= current().serial_elements:
        return 1
    alone = getattr(_inside, "worker", False) or sys.is_finalizing()  # when other threads have ended
    return 1 if alone else worker_count()


def parallel_for(
    work: Callable[[int, int], None], count: int, elements: int | None = None, *, threaded: bool = False
) -> None:
    """Call `work(begin, end)` on contiguous parts of range(count), one part per thread.

    The parts depend on the number of threads and the shapes alone, never on timing, so results repeat bit for bit.
    It runs serially from inside such a part, and where all the work touches few `elements`. Work that is `threaded`
    calls matrix products, which have threads of their own unless the environment says otherwise.
    """
    workers = 1 if threaded and asked_for() is None else min(threads_for(elements), count)
    if workers <= 1:
        if count:
            work(0, count)
        return

    step = STEP if count >= 16 * STEP * workers else 1

    done: SimpleQueue[None] = SimpleQueue()
    errors: dict[int, BaseException] = {}
    taken: set[int] = set()

    def part(index: int) -> None:
        begin, end = (i * (count // step) // workers * step for i in (index, index + 1))
        _inside.worker = True
        try:
            if index:
                keep_apart(taken)
            work(begin, count if index == workers - 1 else end)
        except BaseException as error:
            errors[index] = error
        finally:
            _inside.worker = False
            done.put(None)

    crew = _crew()
    crew.grow(workers - 1)
    keep_apart(taken)
    # in the caller's context, where numpy.errstate keeps what to do about invalid values
    for index in range(1, workers):
        crew.tasks.put(partial(copy_context().run, part, index))
    part(0)
    # every part is awaited before an error of one is raised, since all of them write to the caller's arrays
    for _ in range(workers):
        done.get()
    if errors:
        try:
            raise errors[min(errors)]
        finally:
            errors.clear()  # an error holds this frame, and with it the caller's arrays
