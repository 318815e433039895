"""Copies of arrays with their axes in another order, by square tiles that are transposed in registers.

NumPy copies one element at a time, from cache lines that lie far apart. If they are a power of two apart, they evict
each other, and each line is read many times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, offsets
from hcnn_core._engines.cpu.kernels import transpose as kernels
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.taps import Integers
from hcnn_core._threads import parallel_for, worker_count
from hcnn_core._tuning import current


def contiguous(x: NDArray) -> NDArray:
    """As `numpy.ascontiguousarray`, for float32 and float64."""
    if x.flags.c_contiguous:
        return x
    places = (
        _places(x.shape, x.strides, x.itemsize, current().transpose_columns)
        if x.size >= current().transpose_elements
        else None
    )
    if places is None:
        return np.ascontiguousarray(x)
    order, rows, step, to, source, columns = places
    out, elements = empty(x.shape, x.dtype), 2 * current().additions_per_read * x.size
    flat, memory = out.reshape(-1), x.transpose(order).reshape(-1)
    if to.size >= 2 * worker_count():
        parallel_for(
            lambda a, b: kernels.reorder(flat, memory, 0, rows, step, to[a:b], source[a:b], columns), to.size, elements
        )
    else:
        parallel_for(lambda a, b: kernels.reorder(flat, memory, a, b - a, step, to, source, columns), rows, elements)
    return out


@lru_cache(maxsize=64)
def _places(
    shape: Sequence[int], strides: Sequence[int], size: int, least_columns: int
) -> tuple[tuple[int, ...], int, int, Integers, Integers, Integers] | None:
    """Return the order of axes in memory, slowest first, and the last five arguments of `kernels.reorder`.

    None unless the array has no gaps in memory, and square tiles can be transposed.
    """
    axes = [a for a, n in enumerate(shape) if n > 1]
    by_speed = sorted(axes, key=lambda a: strides[a])
    steps = [size * math.prod(shape[b] for b in by_speed[:i]) for i in range(len(axes))]
    if not axes or [strides[a] for a in by_speed] != steps or by_speed[0] == axes[-1] or shape[by_speed[0]] < 4:
        return None
    fastest, last = by_speed[0], len(axes)
    target = {a: size * math.prod(shape[a + 1 :]) for a in axes}
    while axes[last - 1] != fastest and math.prod(shape[a] for a in axes[last:]) < least_columns:
        last -= 1
    others = [a for a in axes[:last] if a != fastest]

    def places(axes: list[int], strides: Sequence[int] | dict[int, int]) -> Integers:
        return offsets([shape[a] for a in axes], [strides[a] for a in axes])

    return (
        tuple(sorted(range(len(shape)), key=lambda a: -strides[a])),
        shape[fastest],
        target[fastest],
        places(others, target),
        places(others, strides),
        places(axes[last:], strides),
    )
