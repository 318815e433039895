"""Batch normalisation per value of the last axis, and its adjoint, by compiled kernels in two passes each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, is_contiguous, offsets
from hcnn_core._engines.cpu.elementwise import relu_vjp
from hcnn_core._engines.cpu.kernels import normalization as kernels
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.generic import normalization as generic
from hcnn_core._engines.generic.elementwise import marginal
from hcnn_core._engines.generic.normalization import Adjoints, Results
from hcnn_core._threads import parallel_for
from hcnn_core._tuning import current
from hcnn_core.shards import Shard


class Lines(NamedTuple):
    """How large arrays lie in memory: in lines of adjacent elements, with one shift and one last index."""

    order: tuple[int, ...]
    """Axes from the farthest apart to the nearest."""
    cut: int
    """How many of these, the first ones, index lines."""
    length: int
    """Elements of a line."""
    indices: NDArray
    """The index along the last axis of each line."""

    def addresses(self, array: NDArray) -> NDArray:
        array = array.transpose(self.order)
        return array.ctypes.data + offsets(array.shape[: self.cut], array.strides[: self.cut])

    def shifts(self, shift: NDArray | None, shape: tuple[int, ...]) -> NDArray:
        """Return the shift of each line, in double precision."""
        shift = np.zeros(()) if shift is None else shift
        shift = np.broadcast_to(shift, shape).transpose(self.order)
        first = shift[(slice(None),) * self.cut + (0,) * (shift.ndim - self.cut)]
        return np.asarray(first, np.float64).reshape(-1)

    @property
    def blocks(self) -> int:
        return len(self.indices) * self.per_line

    @property
    def per_line(self) -> int:
        return -(-self.length // kernels.BLOCK)

    def sum_by_index(self, values: NDArray, count: int) -> NDArray:
        return np.asarray(np.bincount(self.indices, values, count))


def lines_of(shift: NDArray | None, y: NDArray, *others: NDArray) -> Lines | None:
    """Return the lines that kernels work on in arrays of one shape; None where the lines are too short."""
    order = tuple(sorted(range(y.ndim), key=lambda axis: -abs(y.strides[axis])))
    lengths = () if shift is None else shift.shape[::-1]
    varying = [y.ndim - 1, *(y.ndim - 1 - a for a, n in enumerate(lengths) if n > 1)]
    cut = 1 + max(order.index(axis) for axis in varying)
    arrays = [a.transpose(order) for a in (y, *others)]
    cut = next(c for c in range(cut, y.ndim + 1) if all(is_contiguous(a, c) for a in arrays))
    length = math.prod(arrays[0].shape[cut:])
    if length < current().normalized_elements:
        return None
    outer = arrays[0].shape[:cut]
    along = [1] * cut
    along[order.index(y.ndim - 1)] = y.shape[-1]
    index = np.broadcast_to(np.arange(y.shape[-1]).reshape(along), outer).reshape(-1)
    return Lines(order, cut, length, index)


def _like(lines: Lines, y: NDArray) -> NDArray:
    """Return an array for results, whose axes lie in y's order."""
    out = empty(tuple(y.shape[a] for a in lines.order), y.dtype)
    return out.transpose(np.argsort(lines.order))


def forward(
    xp: Any, y: NDArray, shift: NDArray | None, scale: NDArray, bias: NDArray, epsilon: float, shard: Shard | None,
    rho: str, skipping: NDArray | None = None, axis: int | None = None, parts: NDArray | None = None,
) -> Results:  # fmt: skip
    """As the generic one."""
    lines = lines_of(shift, y)
    if lines is None:
        return generic.forward(xp, y, shift, scale, bias, epsilon, shard, rho, skipping, axis)
    rows = scale.size
    addresses, out = lines.addresses(y), _like(lines, y)
    elements = current().additions_per_read * y.size
    sums = np.empty((lines.blocks, 2))
    parallel_for(
        lambda first, last: kernels.moments(y, sums, first, last, lines.length, addresses), lines.blocks, elements
    )
    count = y.size // rows
    lengths = np.full(lines.per_line, kernels.BLOCK)
    lengths[-1] = lines.length - (lines.per_line - 1) * kernels.BLOCK
    lengths = np.tile(lengths, lines.indices.size)
    blocks = lines._replace(indices=np.repeat(lines.indices, lines.per_line))
    shifts = lines.shifts(shift, y.shape)
    means = sums[:, 0] + np.repeat(shifts, lines.per_line)
    mean = blocks.sum_by_index(means * lengths, rows) / count
    # Chan's formula: squared deviations within blocks, and of the blocks' means
    squares = sums[:, 1] + lengths * (means - mean[blocks.indices]) ** 2
    variance = blocks.sum_by_index(squares, rows) / count
    if shard is not None:
        mean, variance = generic.pooled(shard, mean, variance)
    numbers, _ = _numbers(lines, y, shifts, scale, bias, mean, 1 / np.sqrt(variance + epsilon))
    to = lines.addresses(out)
    parallel_for(
        lambda first, last: kernels.normalize(y, first, last, lines.length, to, addresses, numbers, rho == "elu"),
        lines.blocks,
        elements,
    )
    out = np.asarray(generic.rectified(np, out, skipping)) if rho == "relu" else out
    total = out if axis is None else marginal(np, out, (axis,), "sum")
    return total, mean.astype(y.dtype), variance.astype(y.dtype), np.stack([mean, variance])


def _numbers(
    lines: Lines, y: NDArray, shifts: NDArray, scale: NDArray, bias: NDArray, mean: NDArray, inverse: NDArray
) -> tuple[NDArray, NDArray]:
    """Center, slope and bias of each line, and the rounding error of the center, for which the bias makes up."""
    exact = mean[lines.indices] - shifts
    center = exact.astype(y.dtype)
    left = exact - center
    slope = (scale * inverse)[lines.indices]
    return np.stack([center, slope, bias[lines.indices] - slope * left], axis=1).astype(y.dtype), left


def vjp(
    xp: Any, g: NDArray, g_mean: NDArray, g_variance: NDArray, y: NDArray, shift: NDArray | None, scale: NDArray,
    bias: NDArray, memory: tuple[NDArray, NDArray | None], epsilon: float, shard: Shard | None, rho: str,
) -> Adjoints:  # fmt: skip
    """As the generic one."""
    moments, ans = memory
    g = g if ans is None else np.asarray(relu_vjp(np, g, ans))
    lines = lines_of(shift, y, g)
    if lines is None:
        return generic.vjp(xp, g, g_mean, g_variance, y, shift, scale, bias, (moments, None), epsilon, shard, rho)
    rows, n = scale.size, lines.length
    mean, variance, scale = (np.asarray(a, np.float64) for a in (*moments, scale))
    inverse = 1 / np.sqrt(variance + epsilon)
    x, of = lines.addresses(y), lines.addresses(g)
    elements = current().additions_per_read * y.size
    numbers, left = _numbers(lines, y, lines.shifts(shift, y.shape), scale, bias, mean, inverse)
    totals = np.empty((lines.blocks, 3))
    parallel_for(
        lambda first, last: kernels.cotangents(y, totals, first, last, n, x, of, numbers, rho == "elu"),
        lines.blocks,
        elements,
    )
    sums, products, deviations = totals.reshape(-1, lines.per_line, 3).sum(axis=1).T  # (blocks, 3) -> (3, lines)
    products, deviations = products - left * sums, deviations - left * n
    of_bias, of_scale = lines.sum_by_index(sums, rows), inverse * lines.sum_by_index(products, rows)
    count = y.size // rows
    slope = scale * inverse
    every_bias, every_scale = of_bias, of_scale
    if shard is not None:
        every_bias, every_scale, g_mean, g_variance = shard.share * shard.sum(of_bias, of_scale, g_mean, g_variance)
    constant = ((g_mean - slope * every_bias) / count)[lines.indices]
    tilt = ((2 * g_variance - slope * inverse * every_scale) / count)[lines.indices]
    numbers = np.column_stack([numbers, constant - tilt * left, tilt]).astype(y.dtype)
    out = _like(lines, y)
    to = lines.addresses(out)
    parallel_for(
        lambda first, last: kernels.adjoint(y, first, last, n, to, x, of, numbers, rho == "elu"), lines.blocks, elements
    )
    if shift is None:
        return out, None, of_scale.astype(y.dtype), of_bias.astype(y.dtype), g
    # the cotangent of a line's shift is the sum of those of its elements
    of_shifts = slope[lines.indices] * sums + n * constant + tilt * deviations
    shape = tuple(y.shape[a] if i < lines.cut else 1 for i, a in enumerate(lines.order))
    of_shift = generic.summed_to(np, of_shifts.reshape(shape).transpose(np.argsort(lines.order)), shift.shape)
    return out, of_shift.astype(y.dtype), of_scale.astype(y.dtype), of_bias.astype(y.dtype), g
