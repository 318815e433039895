"""Where arrays lie in memory, for compiled kernels; those made here begin at a line of the cache.

A vector is as long as a line; one that crosses two takes twice as long to load, and longer to store. NumPy's own arrays
begin anywhere.

Memory that arrays leave is kept, up to a limit, for those to come. What goes back to the system is cleared when it is
next touched, page by page, which may take longer than a convolution; and whether an allocator keeps it depends on all
else that the process has allocated. HCNN_KEEP_MIB says how much to keep.
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

from hcnn_core._engines.taps import Integers
from hcnn_core.backend import Array

LINE = 64
"""Bytes."""

SMALL = 1 << 12
"""Bytes of an array for which it makes no difference."""

LARGE = 1 << 16
"""Bytes from which on an array's memory is kept; of smaller pieces allocators keep enough."""

KEEP = 256
"""MiB that are kept, unless the environment says otherwise."""


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """As `numpy.empty`."""
    return _placed(np.empty, shape, np.dtype(dtype))


def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """As `numpy.zeros`."""
    return _placed(np.zeros, shape, np.dtype(dtype))


def _placed(make: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return make(shape, dtype)
    if size >= LARGE and size <= (store := _store()).limit:
        return store.lend(make, size, shape, dtype)
    room = make(size + LINE, np.uint8)
    return np.ndarray(shape, dtype, room, -addressof(c_char.from_buffer(room)) % LINE)  # room.ctypes.data takes longer


class _Lent(weakref.ref[Array]):
    """Of an array, and where it lies; all its views hold the array."""

    __slots__ = ("room",)
    room: Any


class Store:
    """Memory that arrays have left.

    No method waits for another, since arrays may go at any time, in the midst of one too: whoever finds the lock taken
    has new memory made, or lets the old go.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.kept = limit, 0  # bytes
        self.rooms: dict[int, list[Any]] = {}  # by size; the one that last came back is the last
        self.lent: dict[int, _Lent] = {}
        self.lock = threading.Lock()

    def lend(self, make: Any, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array, of `size` bytes, where one about as large has been, or where `make` finds memory."""
        step = 1 << size.bit_length() - 4
        size = -(-size // step) * step
        room = self._take(size + LINE)
        if room is None:
            try:
                memory = make(size + LINE, np.uint8)
            except MemoryError:
                self._clear()
                memory = make(size + LINE, np.uint8)
            # no array: views of an array in it would hold the memory, and not that array
            room = (c_char * (size + LINE)).from_buffer(memory)
        elif make is np.zeros:
            memset(room, 0, size + LINE)
        array = np.ndarray(shape, dtype, room, -addressof(room) % LINE)
        lent = _Lent(array, self._back)
        lent.room = room
        self.lent[id(lent)] = lent
        return array

    def _take(self, size: int) -> Any:
        if size not in self.rooms or not self.lock.acquire(blocking=False):
            return None
        try:
            return self._out(size, -1) if size in self.rooms else None
        finally:
            self.lock.release()

    def _back(self, lent: Any) -> None:
        del self.lent[id(lent)]
        if not self.lock.acquire(blocking=False):
            return
        try:
            size = len(lent.room)
            self.rooms[size] = [*self.rooms.pop(size, []), lent.room]
            self.kept += size
            while self.kept > self.limit:
                self._out(next(iter(self.rooms)), 0)
        finally:
            self.lock.release()

    def _out(self, size: int, which: int) -> Any:
        room = self.rooms[size].pop(which)
        self.kept -= size
        if not self.rooms[size]:
            del self.rooms[size]
        return room

    def _clear(self) -> None:
        if self.lock.acquire(blocking=False):
            self.rooms, self.kept = {}, 0
            self.lock.release()


@lru_cache(maxsize=1)
def _store() -> Store:
    given = os.environ.get("HCNN_KEEP_MIB", str(KEEP))
    if not given.isdecimal():
        raise ValueError(f"HCNN_KEEP_MIB is {given!r}; set it to how many MiB of freed memory to keep, 0 for none")
    return Store(int(given) << 20)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_store.cache_clear)


def offsets(shape: Sequence[int], strides: Sequence[int]) -> Integers:
    """Bytes from the first to each element of an array of these axes."""
    along = np.ix_(*(np.arange(n) * step for n, step in zip(shape, strides, strict=True)))
    return np.asarray(sum(along, np.zeros((1,) * len(along), np.int64))).reshape(-1)


def is_one_run(array: Array, begin: int, end: int | None = None) -> bool:
    """Whether some neighbouring axes lie in memory like one; the last ones, without gaps."""
    expected = array.itemsize if end is None else None
    for n, step in reversed(list(zip(array.shape[begin:end], array.strides[begin:end], strict=True))):
        if n > 1:
            if expected is not None and step != expected:
                return False
            expected = step * n
    return True
