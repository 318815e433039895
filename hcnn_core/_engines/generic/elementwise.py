"""Pointwise functions and sums in any namespace. NumPy arrays are processed in blocks that stay in cache."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcnn_core._threads import parallel_for
from hcnn_core._tuning import current
from hcnn_core.backend import AnyArray, Array, in_memory_order, lasting_zeros, reduced

MANY = 2**16
"""Sums of this many terms or more are in double precision: NumPy adds row to row, and float32 stops at 2^24."""


def _zero(x: Array) -> Any:
    """Return a zero that broadcasts to an array; on a GPU it is made once."""
    return lasting_zeros(x[(slice(0, 1),) * x.ndim])


def elu(xp: Any, x: Array, bias: Array | None = None) -> Array:
    """ELU of x, or of x + bias; the bias has the dtype of x and broadcasts to it."""
    if xp is np:
        return by_blocks(elu_block, x, *(() if bias is None else (np.broadcast_to(bias, x.shape),)))

    def compute(x: Array, *bias: Array) -> Array:
        c = x + bias[0] if bias else x
        zero = _zero(c)
        return xp.maximum(c, zero) + xp.expm1(xp.minimum(c, zero))

    return in_memory_order(compute, x, *(() if bias is None else (xp.broadcast_to(bias, x.shape),)))


def elu_vjp(xp: Any, g: Array, ans: Array) -> Array:
    """Cotangent of the argument of ``ans = elu(.)``; g broadcasts to `ans`."""
    if xp is np:
        return by_blocks(_elu_vjp_block, ans, np.broadcast_to(g, ans.shape))
    return in_memory_order(
        lambda ans, g: (xp.minimum(ans, xp.zeros_like(ans)) + 1) * g, ans, xp.broadcast_to(g, ans.shape)
    )


def relu(xp: Any, x: Array, bias: Array | None = None) -> Array:
    """Return the larger of 0 and x, or x + bias; the bias has the dtype of x and broadcasts to it."""
    if xp is np:
        return by_blocks(_relu_block, x, *(() if bias is None else (np.broadcast_to(bias, x.shape),)))

    def compute(x: Array, *bias: Array) -> Array:
        c = x + bias[0] if bias else x
        return xp.maximum(c, _zero(c))

    return in_memory_order(compute, x, *(() if bias is None else (xp.broadcast_to(bias, x.shape),)))


def relu_vjp(xp: Any, g: Array, ans: Array) -> Array:
    """Cotangent of the argument of ``ans = relu(.)``; g broadcasts to `ans`."""
    return in_memory_order(lambda ans, g: xp.where(ans > 0, g, _zero(ans)), ans, xp.broadcast_to(g, ans.shape))


def marginal(xp: Any, x: AnyArray, axes: tuple[int, ...], reduction: str) -> AnyArray:
    """Sum or mean over some axes."""
    function = xp.sum if reduction == "sum" else xp.mean
    if xp is np and math.prod(x.shape[a] for a in axes) >= MANY:
        wide: Any = reduced(function, x, axes, dtype=np.result_type(x, np.float64))
        return wide.astype(x.dtype, copy=False)
    return reduced(function, x, axes)


def add(x: Array, y: Array) -> Array:
    """Sum of two arrays of one shape; NumPy's of one dtype are added by several threads."""
    if type(x) is np.ndarray and x.dtype == y.dtype and x.dtype.isnative:
        return by_blocks(lambda out, x, y: np.add(x, y, out=out), x, y)
    return x + y if type(x) is np.ndarray else in_memory_order(operator.add, x, y)


def elu_block(out: NDArray[Any], x: NDArray[Any], *bias: NDArray[Any]) -> None:
    if bias:
        x = np.add(x, bias[0], out=out)
    below = np.minimum(x, 0)
    np.expm1(below, out=below)
    np.maximum(x, 0, out=out)
    np.add(out, below, out=out)


def _elu_vjp_block(out: NDArray[Any], ans: NDArray[Any], g: NDArray[Any]) -> None:
    np.minimum(ans, 0, out=out)
    np.add(out, 1, out=out)
    np.multiply(out, g, out=out)


def _relu_block(out: NDArray[Any], x: NDArray[Any], *bias: NDArray[Any]) -> None:
    np.maximum(np.add(x, bias[0], out=out) if bias else x, 0, out=out)


def by_blocks(compute: Callable[..., object], x: AnyArray, *others: Array) -> AnyArray:
    """Fill a new array like x by `compute(out, x, *others)`, called on blocks that are contiguous in memory."""
    out: Any = np.empty_like(x, subok=False)
    size = current().elementwise_elements
    order = sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis]))
    arrays = [np.atleast_1d(array.transpose(order)) for array in (out, x, *others)]
    shape = arrays[0].shape
    cut = next(k for k in range(len(shape)) if math.prod(shape[k + 1 :]) <= size)  # the axis that is cut into blocks
    length = size // max(1, math.prod(shape[cut + 1 :]))
    blocks = -(-shape[cut] // length)

    def work(first: int, last: int) -> None:
        for flat in range(first, last):
            row, block = divmod(flat, blocks)
            inside = (*np.unravel_index(row, shape[:cut]), slice(block * length, (block + 1) * length))
            compute(*(array[inside] for array in arrays))

    parallel_for(work, math.prod(shape[:cut]) * blocks, current().additions_per_read * x.size)
    return out
