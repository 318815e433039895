"""Work shared among threads.

NumPy and compiled kernels release the interpreter lock inside their loops, so Python threads can share work. Their
number is HCNN_NUM_THREADS, or else OMP_NUM_THREADS, or else the number of processors.

NumPy's matrix products start threads of their own, and both kinds together would compete for the processors. Work that
calls matrix products is therefore shared only where HCNN_NUM_THREADS is set. Many small products are faster with one
thread each: set OPENBLAS_NUM_THREADS=1 as well, both before NumPy is imported. The command lines of `train` do so.
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
from hcnn_core.environment import value

_inside = threading.local()


@lru_cache(maxsize=1)
def worker_count() -> int:
    """Return the number of threads for work that starts none itself."""
    openmp = os.environ.get("OMP_NUM_THREADS", "")  # OpenMP's own forms are more than numbers
    return asked_for() or (int(openmp) if openmp.isdecimal() else 0) or processors()


@lru_cache(maxsize=1)
def asked_for() -> int | None:
    """HCNN_NUM_THREADS from the environment, or None where it is not set."""
    return int(value("HCNN_NUM_THREADS") or 0) or None


def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Threads that wait for work. They start a task sooner than those of concurrent.futures."""

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.size = 0
        self.lock = threading.RLock()  # reentrant, because a signal handler may call grow as well

    def grow(self, size: int) -> None:
        """Start threads until there are `size`, or as many as the system allows (RLIMIT_NPROC)."""
        if self.size < size:
            with self.lock, suppress(RuntimeError):
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
    os.register_at_fork(after_in_child=_crew.cache_clear)  # a forked child has none of the parent's threads


STEP = 16
"""Parts of large work begin at multiples of this many items: the float32 numbers of one cache line."""


_processor: Callable[[], int] | None = (
    getattr(PyDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
)
"""Function that returns the processor of the calling thread; None where threads cannot be moved."""


def keep_apart(taken: set[int]) -> None:
    """Move this thread off the processors in `taken`, then add its processor to them.

    Linux may wake a thread on the processor of the thread that wakes it, although another processor is idle, and leave
    it there. Two parts then take turns on one processor, in every call.
    """
    if _processor is None:
        return
    if _processor() in taken:
        with suppress(OSError):  # a container may forbid it
            allowed = os.sched_getaffinity(0)
            if others := allowed - taken:
                os.sched_setaffinity(0, others)  # this moves the thread
                os.sched_setaffinity(0, allowed)
    taken.add(_processor())


def threads_for(elements: int | None = None) -> int:
    """Count the threads for work on this many elements: one if they are few, or inside a part of other work."""
    if elements is not None and elements <= current().serial_elements:
        return 1
    alone = getattr(_inside, "worker", False) or sys.is_finalizing()  # at interpreter exit the other threads have ended
    return 1 if alone else worker_count()


def parallel_for(
    work: Callable[[int, int], None], count: int, elements: int | None = None, *, threaded: bool = False
) -> None:
    """Call `work(begin, end)` on contiguous parts of range(count), one part per thread.

    The parts depend only on the number of threads and the shapes, never on timing, so results are reproducible bit for
    bit. The call is serial inside a part of other work, and where the work touches few `elements`. Set `threaded` for
    work that calls matrix products, which start threads themselves unless the environment forbids it.
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
    # Parts run in a copy of the caller's context, because numpy.errstate is kept there.
    for index in range(1, workers):
        run: Callable[[], None] = partial(copy_context().run, part, index)
        crew.tasks.put(run) if crew.size else run()
    part(0)
    # All parts must end before an error is raised, because all of them write to the caller's arrays.
    for _ in range(workers):
        done.get()
    if errors:
        try:
            raise errors[min(errors)]
        finally:
            errors.clear()  # a kept error would keep this frame, and with it the caller's arrays
