"""Where arrays lie in memory, for compiled kernels; those made here begin at a line of the cache.

A vector is as long as a line; one that crosses two takes twice as long to load, and longer to store. NumPy's own arrays
begin anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import addressof, c_char
from typing import Any

import numpy as np

from hcnn_core._backend import Array
from hcnn_core._taps import Integers

LINE = 64
"""Bytes."""

SMALL = 1 << 12
"""Bytes of an array for which it makes no difference."""


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
    room = make(size + LINE, np.uint8)
    address = addressof(c_char.from_buffer(room))  # room.ctypes.data takes several times as long
    return np.ndarray(shape, dtype, room, -address % LINE)


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
