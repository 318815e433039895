"""Maxima and means of windows along one axis, and their transposes, in any namespace. A window is a `Window`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._problem import Window
from hcnn_core._threads import parallel_for
from hcnn_core._tuning import current
from hcnn_core.backend import Array, DeviceTables, memory_order, placement

MOST_BYTE_TAPS = 256
_counts = DeviceTables()


def maxima(xp: Any, x: Array, axis: int, window: Window, with_taps: bool = True) -> tuple[Array, Array | None]:
    """Return the largest sample of each window, and the tap that reads it: the first one, where several are equal."""
    (x,), axis, back = _in_memory_order(xp, axis, x)
    y = _filled(xp, x, axis, window.out_length, x.dtype, -float("inf"))
    kind = xp.uint8 if window.size <= MOST_BYTE_TAPS else xp.int32
    taps = _filled(xp, x, axis, window.out_length, kind, 0) if with_taps else None

    def compute(x: Array, y: Array, *taps: Array) -> None:
        for tap, to, source in reversed([*window.places(axis)]):
            sample, held = x[source], y[to]
            for first in taps:  # "not smaller", so that windows of -inf or NaN end at a sample and not at padding
                first[to] = xp.where(sample < held, first[to], xp.full_like(first[to], tap))
            y[to] = xp.maximum(sample, held)

    _by_parts(xp, compute, axis, x, y, *(() if taps is None else (taps,)))
    return xp.permute_dims(y, back), None if taps is None else xp.permute_dims(taps, back)


def picked(xp: Any, x: Array, taps: Array, axis: int, window: Window) -> Array:
    """Return the sample that one tap of each window reads: linear in x."""
    (x, taps), axis, back = _in_memory_order(xp, axis, x, taps)
    y = _filled(xp, x, axis, window.out_length, x.dtype, 0)

    def compute(x: Array, taps: Array, y: Array) -> None:
        for tap, to, source in window.places(axis):
            y[to] = xp.where(taps[to] == tap, x[source], y[to])

    _by_parts(xp, compute, axis, x, taps, y)
    return xp.permute_dims(y, back)


def spread(xp: Any, g: Array, taps: Array | None, axis: int, window: Window) -> Array:
    """Return the transpose of `picked`; without taps, g goes to all samples of a window."""
    arrays, axis, back = _in_memory_order(xp, axis, g, *(() if taps is None else (taps,)))
    x = _filled(xp, arrays[0], axis, window.length, g.dtype, 0)

    def compute(x: Array, g: Array, *taps: Array) -> None:
        for tap, to, source in window.places(axis):
            share = g[to]
            for chosen in taps:
                share = xp.where(chosen[to] == tap, share, xp.zeros_like(share))
            x[source] = x[source] + share

    _by_parts(xp, compute, axis, x, *arrays)
    return xp.permute_dims(x, back)


def means(xp: Any, x: Array, axis: int, window: Window) -> Array:
    """Return the mean of each window's samples."""
    (x,), axis, back = _in_memory_order(xp, axis, x)
    y = _filled(xp, x, axis, window.out_length, x.dtype, 0)

    def compute(x: Array, y: Array) -> None:
        for _, to, source in window.places(axis):
            y[to] = y[to] + x[source]

    _by_parts(xp, compute, axis, x, y)
    return xp.permute_dims(y / _counted(xp, y, axis, window), back)


def means_vjp(xp: Any, g: Array, axis: int, window: Window) -> Array:
    """Return the transpose of `means`."""
    (g,), axis, back = _in_memory_order(xp, axis, g)
    return xp.permute_dims(spread(xp, g / _counted(xp, g, axis, window), None, axis, window), back)


def _counted(xp: Any, y: Array, axis: int, window: Window) -> Any:
    """How many samples each window of a result has: a number, or an array that broadcasts to it."""
    if not window.padding:
        return window.size
    real = np.finfo(str(y.dtype).rpartition(".")[2]).dtype

    def table() -> Any:
        counts = np.zeros(window.out_length, real)
        for _, to, _ in window.places(0):
            counts[to] += 1
        return counts

    shape = (-1, *(1,) * (y.ndim - 1 - axis))
    return xp.reshape(_counts.beside(y, (window, real.name), table), shape)


def _in_memory_order(xp: Any, axis: int, *arrays: Array) -> tuple[list[Array], int, tuple[int, ...]]:
    """Return the arrays with their axes in the memory order of the first, the place of an axis there, and the way back.

    Results are made in C order of these, so they have the memory order of the arguments.
    """
    order = memory_order(arrays[0])
    return [xp.permute_dims(a, order) for a in arrays], order.index(axis), tuple(np.argsort(order).tolist())


def _filled(xp: Any, like: Array, axis: int, length: int, dtype: Any, value: float) -> Array:
    """Return a constant array of the shape of another, but for the length of one axis."""
    shape = (*like.shape[:axis], length, *like.shape[axis + 1 :])
    return xp.full(shape, value, dtype=dtype, **placement(xp, like))


def _by_parts(xp: Any, compute: Callable[..., None], axis: int, *arrays: Array) -> None:
    """Call `compute` on the arrays; those of NumPy in parts, on several threads, cut along another axis."""
    cut = int(axis == 0)
    if xp is not np or arrays[0].ndim <= cut:
        return compute(*arrays)

    def work(first: int, last: int) -> None:
        compute(*(array[(slice(None),) * cut + (slice(first, last),)] for array in arrays))

    elements = max(array.size for array in arrays)
    parallel_for(work, arrays[0].shape[cut], current().additions_per_read * elements)
