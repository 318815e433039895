"""CUDA graphs: work that is recorded once and launched again."""

from __future__ import annotations

import contextlib
import gc
import time
import traceback
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from hcnn_core.backend._device import keeping

Result = TypeVar("Result")

SPARE = 0.25
"""Spare memory of a recorded function, as a fraction of what the call before the recording took.

CuPy's pool keeps free blocks in sets, whose order depends on addresses, so a second call may divide them differently.
"""

REHEARSALS = 4
"""Most calls of the function before it is recorded: until one of them takes no more memory from the device."""


def record(work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
    """Record what a function launches as a CUDA graph; return a function that launches it again, and the results.

    Every launch reads its operands from the same memory and writes to the same memory, its results included. The graph
    owns the memory that the function allocates, so that nothing else overwrites it, and tables of the plans it uses.
    Other arrays that the function takes from caches must stay in them. The function is called before it is recorded,
    which compiles kernels and fills the memory pool: neither may happen while recording. The memory goes back to the
    device when first the results and then the returned function are dropped, because CuPy's pools do not free their
    blocks by themselves.
    """
    import cupy

    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    tables: list[Any] = []
    cupy.fft.config.get_plan_cache().set_size(-1)  # a plan that is dropped frees the memory that the graph works in
    cupy.cuda.get_current_stream().synchronize()
    cupy.get_default_memory_pool().free_all_blocks()  # the graph needs as much memory as is free in this pool
    try:
        with stream, cupy.cuda.using_allocator(pool.malloc):
            work()
            pool.malloc(int(SPARE * pool.total_bytes()))  # freed at once, and kept by the pool
            for _ in range(REHEARSALS - 1):
                before = pool.total_bytes()
                work()
                if pool.total_bytes() == before:
                    break
            stream.synchronize()
            stream.begin_capture()
            try:
                with keeping(tables):
                    results = work()
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    stream.end_capture()
                raise
            graph = stream.end_capture()
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # frames hold arrays
        gc.collect()
        pool.free_all_blocks()
        raise

    def launch() -> None:
        cupy.cuda.get_current_stream().synchronize()
        graph.launch(stream)
        stream.synchronize()

    def free() -> None:
        tables.clear()
        pool.free_all_blocks()

    weakref.finalize(launch, free).atexit = False
    return launch, results


def is_recording(cupy: Any) -> bool:
    """Whether CuPy's current stream records a graph, so that nothing may wait for the device; False for NumPy."""
    return cupy.__name__ == "cupy" and bool(cupy.cuda.get_current_stream().is_capturing())


def seconds_of(xp: Any, work: Callable[[], object], repeats: int) -> float:
    """Time of one of several calls."""
    before = time.perf_counter()
    for _ in range(repeats):
        work()
    return max((time.perf_counter() - before) / repeats, 1e-9)


def seconds_on_device(cupy: Any, work: Callable[[], object], repeats: int) -> float:
    """Time of one of several calls on a GPU, between two events, since launches return before they are done."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    end.synchronize()
    return max(float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3 / repeats, 1e-9)


def card_of(cupy: Any) -> str:
    """Name of CuPy's current device; nothing for NumPy."""
    if cupy.__name__ != "cupy":
        return ""
    return str(cupy.cuda.runtime.getDeviceProperties(cupy.cuda.get_device_id())["name"].decode())
