"""Work shared among threads, where HCNN_NUM_THREADS asks for it.

NumPy releases the interpreter lock inside its loops and matrix products. Many small products gain more from one
thread each than from a threaded BLAS, but the two together fight over the processors: who sets HCNN_NUM_THREADS sets
OPENBLAS_NUM_THREADS=1 as well, both before NumPy is imported. The command lines of `train` do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import lru_cache

_inside = threading.local()


@lru_cache(maxsize=1)
def worker_count() -> int:
    """Threads to use: the environment's HCNN_NUM_THREADS, or 1."""
    asked = os.environ.get("HCNN_NUM_THREADS", "1")
    if not asked.isdecimal() or int(asked) < 1:
        raise ValueError(f"HCNN_NUM_THREADS is {asked!r}; set it to a number of threads, 1 or more")
    return int(asked)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(worker_count(), thread_name_prefix="hcnn")


SERIAL = 1 << 16
"""Elements of work for which waking threads, some 50 microseconds each, does not pay."""


def parallel_for(work: Callable[[int, int], None], count: int, elements: int | None = None) -> None:
    """Call `work(begin, end)` on contiguous parts of range(count), one part per thread.

    The parts depend on the number of threads and the shapes alone, never on timing, so results repeat bit for bit.
    It runs serially from inside such a part, and where all the work touches few `elements`.
    """
    workers = 1 if elements is not None and elements <= SERIAL else min(worker_count(), count)
    if workers <= 1 or getattr(_inside, "worker", False):
        if count:
            work(0, count)
        return

    def part(index: int) -> None:
        _inside.worker = True
        work(index * count // workers, (index + 1) * count // workers)

    # every part is awaited before an error of one is raised, since all of them write to the caller's arrays
    # in the caller's context, where numpy.errstate keeps what to do about invalid values
    parts = [_pool().submit(copy_context().run, part, index) for index in range(workers)]
    wait(parts)
    for done in parts:
        done.result()
