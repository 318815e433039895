"""Batch normalisation per value of the last axis, with ELU, ReLU or none, and its derivative, by CUDA kernels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.implicit import PART_SIZE
from hcnn_core._engines.cuda.sums import summed
from hcnn_core._engines.generic.normalization import Adjoints, Results, pooled, stretched
from hcnn_core._engines.taps import Integers
from hcnn_core._tuning import current
from hcnn_core.backend import Array, DeviceTables, dtype_name, empty, memory_order, placement
from hcnn_core.shards import Shard

MOST_ROWS, MOST_POSITIONS = (1 << 16) - 1, 1 << 30
"""Most blocks of threads along a grid's second axis, and positions that 32 bits count with a step beyond them."""


class _Rows(NamedTuple):
    """An array as rows of positions, in its order in memory: axes before the last one's values, these, and the rest."""

    order: tuple[int, ...]
    inner: tuple[int, ...]
    """The axes along which a row's positions lie."""
    channels: int
    rows: int
    positions: int


def _rows_of(y: Array) -> _Rows:
    order = memory_order(y)
    place = order.index(y.ndim - 1) + 1
    positions = math.prod(y.shape[a] for a in order[place:])
    return _Rows(order, order[place:], y.shape[-1], math.prod(y.shape) // positions, positions)


def supports(y: Array, shift: Array | None) -> bool:
    """Whether the kernels can normalise y + shift: a row of positions has one mean and one shift."""
    rows, shape = _rows_of(y), () if shift is None else shift.shape
    last = y.ndim - len(shape)
    constant = all(a < last or shape[a - last] == 1 or y.shape[a] == 1 for a in rows.inner)
    return constant and rows.rows <= MOST_ROWS and rows.positions <= MOST_POSITIONS


def forward(
    xp: Any, y: Array, shift: Array | None, scale: Array, bias: Array, epsilon: float, shard: Shard | None,
    rho: str, skipping: Array | None = None, axis: int | None = None, parts: Array | None = None,
) -> Results:  # fmt: skip
    """As the generic one. With a sum over an axis across rows, only the sum is written.

    `parts` are parts of y's moments, where `Implicit.forward` has made them.
    """
    rows = _rows_of(y)
    terms, apart, axes = _marginal_of(rows, y, axis)
    arranged, added = _arranged(xp, y, rows), _shift_of_rows(xp, shift, y, rows)
    parts, length = _parts_of(xp, arranged, rows, parts)
    moments = xp.empty((2, rows.channels), dtype=xp.float64, **placement(xp, y))
    mean, variance = empty(xp, bias.shape, y), empty(xp, bias.shape, y)
    ans = empty(xp, tuple(y.shape[a] for a in axes), y)
    counts = rows.channels, rows.positions, rows.rows, parts.shape[1], length
    _launch("channel_moments", y, (rows.channels,), (added, parts, mean, variance, moments), *counts)
    if shard is not None:
        moments = xp.stack(pooled(shard, moments[0, :], moments[1, :]))
        mean, variance = (xp.astype(moments[i, :], y.dtype) for i in range(2))
    added_to_ans = None if skipping is None else _arranged(xp, skipping, rows)
    arguments = arranged, added, moments, *(xp.ascontiguousarray(a) for a in (scale, bias)), added_to_ans, ans
    grid = _blocks(rows.positions, ELEMENTS), rows.rows // terms
    numbers = rows.channels, rows.positions, terms, apart, epsilon
    _launch("normalize_rows", y, grid, arguments, *numbers, rho=rho)
    ans = xp.permute_dims(ans, _inverse(axes))
    return summed(xp, ans, (axis,)) if axis is not None and axis in axes else ans, mean, variance, moments


def _parts_of(xp: Any, arranged: Array, rows: _Rows, partials: Array | None) -> tuple[Array, int]:
    """Parts of each row's moments (rows, parts, 2), and the positions of each: of y, or from `partials`."""
    length = current().device_threads * current().device_sum_positions
    if partials is not None and partials.shape == (rows.rows, -(-rows.positions // PART_SIZE), 2):
        joined = xp.empty((rows.rows, 1, 2), dtype=xp.float64, **placement(xp, arranged))
        _launch("join_parts", arranged, (rows.rows,), (partials, joined), partials.shape[1], rows.positions, PART_SIZE)
        return joined, rows.positions
    parts = xp.empty((rows.rows, -(-rows.positions // length), 2), dtype=xp.float64, **placement(xp, arranged))
    _launch("row_sums", arranged, (parts.shape[1], rows.rows), (arranged, parts), rows.positions, length)
    return parts, length


def vjp(
    xp: Any, g: Array, g_mean: Array, g_variance: Array, y: Array, shift: Array | None, scale: Array, bias: Array,
    memory: tuple[Array, Array | None], epsilon: float, shard: Shard | None, rho: str,
) -> Adjoints:  # fmt: skip
    """As the generic one."""
    (moments, ans), rows = memory, _rows_of(y)
    arranged, added = _arranged(xp, y, rows), _shift_of_rows(xp, shift, y, rows)
    moments = xp.ascontiguousarray(xp.astype(moments, xp.float64, copy=False))
    scale, bias, g_mean, g_variance = (xp.ascontiguousarray(a) for a in (scale, bias, g_mean, g_variance))
    of_ans, places = _cotangent(xp, g, rows)
    blocks = _blocks(rows.positions, current().device_sum_positions)
    parts = xp.empty((rows.rows, blocks, 3), dtype=xp.float64, **placement(xp, y))
    of_bias, of_scale = empty(xp, bias.shape, y), empty(xp, bias.shape, y)
    operands = arranged, added, moments, scale, bias
    numbers = rows.channels, rows.positions, epsilon
    answers = None if ans is None else _arranged(xp, ans, rows)
    of_argument = None if ans is None else empty(xp, arranged.shape, y)
    both = answers, of_argument, parts
    _launch("row_sums_back", y, (blocks, rows.rows), (of_ans, places, *operands, *both), *numbers, rho=rho)
    if of_argument is not None:
        of_ans, places, rho = of_argument, None, ""
    _launch("channel_sums_back", y, (rows.channels,), (parts, of_bias, of_scale), rows.channels, rows.rows, blocks)
    every_bias, every_scale = of_bias, of_scale  # those of the whole batch
    if shard is not None:
        every = xp.astype(shard.share * shard.sum(of_bias, of_scale, g_mean, g_variance), y.dtype)
        every_bias, every_scale, g_mean, g_variance = (every[i, :] for i in range(4))
    of_y, of_rows = empty(xp, arranged.shape, y), None if shift is None else empty(xp, (rows.rows,), y)
    arguments = of_ans, places, g_mean, g_variance, *operands, every_bias, every_scale, parts, of_y, of_rows
    grid, count = (_blocks(rows.positions, ELEMENTS), rows.rows), rows.rows // rows.channels * rows.positions
    counts = rows.channels, rows.positions, blocks, float(count), epsilon
    _launch("normalize_rows_back", y, grid, arguments, *counts, rho=rho)
    back, of_shift = _inverse(rows.order), None
    if shift is not None:
        one_each = tuple(1 if a in rows.inner else y.shape[a] for a in rows.order)
        every = xp.permute_dims(xp.reshape(of_rows, one_each), back)
        axes = stretched(every.shape, shift.shape)
        of_shift = xp.reshape(summed(xp, every, axes) if axes else every, shift.shape)
    of_skipping = None if of_argument is None else xp.permute_dims(of_argument, back)
    return xp.permute_dims(of_y, back), of_shift, of_scale, of_bias, of_skipping


def _marginal_of(rows: _Rows, y: Array, axis: int | None) -> tuple[int, int, tuple[int, ...]]:
    """How many rows are added up, how far apart they lie, and the axes that are left, in their order in memory.

    One row, where the axis lies along rows, or is None.
    """
    outer = rows.order[: len(rows.order) - len(rows.inner)]
    if axis is None or axis not in outer[:-1] or y.shape[axis] > current().device_threads:
        return 1, 1, rows.order
    after = outer[outer.index(axis) + 1 :]
    return y.shape[axis], math.prod(y.shape[a] for a in after), tuple(a for a in rows.order if a != axis)


ELEMENTS = 4
"""Numbers that a thread normalises, one after the other."""


def _blocks(positions: int, each: int) -> int:
    """Blocks that share out a row, with `each` positions for each thread."""
    return -(-positions // (current().device_threads * each))


def _arranged(xp: Any, y: Array, rows: _Rows) -> Array:
    """Return the array in its order in memory, in one piece."""
    return xp.ascontiguousarray(xp.permute_dims(y, rows.order))


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the permutation that undoes an order of axes, or of those that are left."""
    return tuple(int(a) for a in np.argsort(order))


def _shift_of_rows(xp: Any, shift: Array | None, y: Array, rows: _Rows) -> Array | None:
    """Return the shift of each row."""
    if shift is None:
        return None
    every = xp.reshape(shift, (*(1,) * (y.ndim - shift.ndim), *shift.shape))
    every = xp.permute_dims(every, rows.order)
    shape = tuple(1 if a in rows.inner else y.shape[a] for a in rows.order)
    return xp.ascontiguousarray(xp.broadcast_to(every, shape))


_placed = DeviceTables()


def _cotangent(xp: Any, g: Array, rows: _Rows) -> tuple[Array, Array | None]:
    """Rows of a cotangent, and which of them belongs to each row of y, unless they lie in its order.

    The cotangent of a marginal repeats its rows, by a stride of 0.
    """
    ordered = xp.permute_dims(g, rows.order)
    outer, step = ordered.ndim - len(rows.inner), g.itemsize * rows.positions
    shape = ordered.shape[:outer]
    strides = tuple(s if n > 1 else 0 for n, s in zip(shape, ordered.strides, strict=False))
    in_pieces = not ordered[(0,) * outer].flags.c_contiguous or any(s < 0 or s % step for s in strides)
    if in_pieces or ordered.flags.c_contiguous:
        return xp.ascontiguousarray(ordered), None

    def places() -> Any:
        offsets: Integers = np.zeros(1, np.int64)
        for n, s in zip(shape, strides, strict=True):
            offsets = np.add.outer(offsets, np.arange(n) * (s // step)).reshape(-1)
        return offsets.astype(np.int32)

    return ordered, _placed.beside(g, (shape, strides, step), places)


def _launch(
    name: str, y: Array, grid: tuple[int, ...], arrays: tuple[Any, ...], *numbers: float, rho: str = "elu"
) -> None:
    """Run a kernel on arrays and numbers; floats are in double precision."""
    threads = current().device_threads
    arguments = (*arrays, *(np.float64(n) if isinstance(n, float) else np.int32(n) for n in numbers))
    sizes = {"NORM_THREADS": threads, "RHO": ("", "elu", "relu").index(rho)}
    cuda.launch(name, dtype_name(y.dtype), sizes, grid, threads, arguments)
