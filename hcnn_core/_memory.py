"""Arrays that begin at a line of the cache, for what compiled kernels read and write.

A vector is as long as a line; one that crosses two takes twice as long to load, and longer to store. NumPy's own arrays
begin anywhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core._backend import Array

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
    begin = -room.ctypes.data % LINE
    return room[begin : begin + size].view(dtype).reshape(shape)
