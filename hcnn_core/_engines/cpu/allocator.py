"""Arrays that begin at a cache line, and memory that is used again.

A vector is as long as a cache line. One that crosses two lines takes twice as long to load, and longer to store. The
arrays of NumPy begin anywhere.

The memory of freed arrays is kept for later arrays, up to a limit. The system clears memory that it gives out, page by
page when it is first touched, which may take longer than a convolution. Whether the C library's allocator keeps memory
depends on all else that the process has allocated. HCNN_KEEP_MIB says how much to keep.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Sequence
from ctypes import addressof, c_char, memset
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.taps import Integers
from hcnn_core._tuning import current
from hcnn_core.environment import value

CACHE_LINE = 64
"""Bytes of a cache line."""


def empty(shape: tuple[int, ...], dtype: Any) -> NDArray:
    """As `numpy.empty`."""
    return _placed(np.empty, shape, np.dtype(dtype))


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray:
    """As `numpy.zeros`."""
    return _placed(np.zeros, shape, np.dtype(dtype))


def _placed(make: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
    size, tuning = math.prod(shape) * dtype.itemsize, current()
    if size < tuning.aligned_bytes:
        return make(shape, dtype)
    if size >= tuning.kept_bytes and size <= (store := _store()).limit:
        return store.lend(make, size, shape, dtype)
    memory = make(size + CACHE_LINE, np.uint8)
    offset = -addressof(c_char.from_buffer(memory)) % CACHE_LINE  # memory.ctypes.data takes longer
    return np.ndarray(shape, dtype, memory, offset)


class _LentArray(weakref.ref[NDArray]):
    """A reference to an array, and its memory. Views hold the array, so it ends after them."""

    __slots__ = ("memory",)
    memory: Any


class Store:
    """The memory of freed arrays.

    No method waits for the lock, since an array may be freed at any time, also inside a method of the same thread.
    Where the lock is taken, new memory is made, or freed memory is not kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.kept = limit, 0  # bytes
        self.free: dict[int, list[Any]] = {}  # by size; the size that was freed last comes last
        self.lent: dict[int, _LentArray] = {}
        self.lock = threading.Lock()

    def lend(self, make: Any, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray:
        """Make an array of `size` bytes, in memory of a freed array of nearly that size or new memory from `make`."""
        step = 1 << size.bit_length() - 4
        size = -(-size // step) * step
        memory = self._take(size + CACHE_LINE)
        if memory is None:
            try:
                buffer = make(size + CACHE_LINE, np.uint8)
            except MemoryError:
                self._clear()
                buffer = make(size + CACHE_LINE, np.uint8)
            # not an array: views of an array made of one would hold that one, and `_LentArray` would end before them
            memory = (c_char * (size + CACHE_LINE)).from_buffer(buffer)
        elif make is np.zeros:
            memset(memory, 0, size + CACHE_LINE)
        array = np.ndarray(shape, dtype, memory, -addressof(memory) % CACHE_LINE)
        lent = _LentArray(array, self._back)
        lent.memory = memory
        self.lent[id(lent)] = lent
        return array

    def _take(self, size: int) -> Any:
        if size not in self.free or not self.lock.acquire(blocking=False):
            return None
        try:
            return self._out(size, -1) if size in self.free else None
        finally:
            self.lock.release()

    def _back(self, lent: Any) -> None:
        del self.lent[id(lent)]
        if not self.lock.acquire(blocking=False):
            return
        try:
            size = len(lent.memory)
            self.free[size] = [*self.free.pop(size, []), lent.memory]
            self.kept += size
            while self.kept > self.limit:
                self._out(next(iter(self.free)), 0)
        finally:
            self.lock.release()

    def _out(self, size: int, which: int) -> Any:
        memory = self.free[size].pop(which)
        self.kept -= size
        if not self.free[size]:
            del self.free[size]
        return memory

    def _clear(self) -> None:
        if self.lock.acquire(blocking=False):
            self.free, self.kept = {}, 0
            self.lock.release()


@lru_cache(maxsize=1)
def _store() -> Store:
    return Store(int(value("HCNN_KEEP_MIB")) << 20)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_store.cache_clear)


def offsets(shape: Sequence[int], strides: Sequence[int]) -> Integers:
    """Bytes from the first element to each element of an array with this shape and these strides."""
    along = np.ix_(*(np.arange(n) * step for n, step in zip(shape, strides, strict=True)))
    return np.asarray(sum(along, np.zeros((1,) * len(along), np.int64))).reshape(-1)


def is_contiguous(array: NDArray, begin: int, end: int | None = None) -> bool:
    """Whether axes [begin, end) lie in memory like one axis; to the last axis (no end), without gaps."""
    expected = array.itemsize if end is None else None
    for n, step in reversed(list(zip(array.shape[begin:end], array.strides[begin:end], strict=True))):
        if n > 1:
            if expected is not None and step != expected:
                return False
            expected = step * n
    return True
