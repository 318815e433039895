"""The pointwise nonlinearity rho of the paper: exponential linear units (arXiv:1511.07289; section 2 of 1703.04140)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._backend import Array, array_namespace, compiled_kernels, require_real
from hcnn_core._parallel import MEMORY, parallel_for

BLOCK = 1 << 16
"""Elements handled at a time, so that the steps of one block find it in cache."""


RUN = 1 << 10
"""Elements with one bias that are worth a call of the compiled kernel."""


def elu(x: Array, bias: Array | None = None, /) -> Array:
    """Exponential linear unit of c = x + bias: c where c > 0, exp(c) - 1 elsewhere.

    Parameters
    ----------
    x : array
        float32 or float64, any shape.
    bias : array, optional
        Added first, in x's dtype; its shape broadcasts to x's.

    Returns
    -------
    array
        The shape, dtype and memory layout of x.

    Raises
    ------
    TypeError
        If a dtype is integer or complex.
    ValueError
        If the bias does not broadcast to x.

    Notes
    -----
    Section 2 of arXiv:1703.04140 prints the two cases swapped.
    """
    xp = array_namespace(x) if bias is None else array_namespace(x, bias)
    x = require_real(xp, "x", x)
    if bias is not None:
        bias = _like(xp, "bias", bias, x)

    kernels = compiled_kernels(xp) if x.size >= BLOCK else None

    def compute(out: Array, x: Array, *bias: Array) -> None:
        varies = max((a + 1 for b in bias for a, n in enumerate(b.shape) if n > 1 and b.strides[a]), default=0)
        if kernels and math.prod(out.shape[varies:]) >= RUN:
            rows = (math.prod(out.shape[:varies]), -1)
            per_row = [b[(..., *(0,) * (out.ndim - varies))].reshape(-1) for b in bias] or [np.zeros(1, x.dtype)]
            kernels.elu(out.reshape(rows), x.reshape(rows), *per_row)
            return
        if bias:
            x = np.add(x, bias[0], out=out)
        below = np.minimum(x, 0)
        np.expm1(below, out=below)
        np.maximum(x, 0, out=out)
        np.add(out, below, out=out)

    if xp is np:
        return _blockwise(compute, x, *(() if bias is None else (bias,)))
    c = x if bias is None else x + bias
    zero = xp.zeros_like(c)
    return xp.maximum(c, zero) + xp.expm1(xp.minimum(c, zero))


def elu_vjp(g: Array, ans: Array, /) -> Array:
    """Cotangent of x in ``ans = elu(x)``: g where ans > 0, g * (1 + ans) elsewhere.

    Parameters
    ----------
    g : array
        Cotangent of the result; its shape broadcasts to that of `ans`.
    ans : array
        The result of `elu`, float32 or float64.

    Returns
    -------
    array
        Shape, dtype and memory layout of `ans`.

    Raises
    ------
    TypeError
        If a dtype is integer or complex.
    ValueError
        If g does not broadcast to `ans`.
    """
    xp = array_namespace(g, ans)
    ans = require_real(xp, "ans", ans)
    g = _like(xp, "g", g, ans)

    kernels = compiled_kernels(xp) if ans.size >= BLOCK else None

    def compute(out: Array, ans: Array, g: Array) -> None:
        if kernels:
            kernels.elu_vjp(out.reshape(-1), ans.reshape(-1), g.reshape(-1))
            return
        np.minimum(ans, 0, out=out)
        np.add(out, 1, out=out)
        np.multiply(out, g, out=out)

    if xp is np:
        return _blockwise(compute, ans, g)
    return (xp.minimum(ans, xp.zeros_like(ans)) + 1) * g


def total(x: Array, y: Array) -> Array:
    """Sum of two arrays; large ones of NumPy's, of one shape and dtype, are shared among threads.

    Parameters
    ----------
    x, y : array
        Of one array library and of shapes that broadcast.

    Returns
    -------
    array
        ``x + y``, bit for bit; where it is large, in the memory layout of `x`.
    """
    if not type(x) is type(y) is np.ndarray or x.size < BLOCK:
        return x + y
    if (x.shape, x.dtype) != (y.shape, y.dtype) or not x.dtype.isnative:
        return x + y
    return _blockwise(lambda out, x, y: np.add(x, y, out=out), x, y)


def _like(xp: Any, name: str, array: Array, x: Array) -> Array:
    """An argument in the dtype and, broadcast, the shape of x."""
    array = xp.astype(require_real(xp, name, array), x.dtype, copy=False)
    try:
        return xp.broadcast_to(array, x.shape)
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}, which does not broadcast to {x.shape}") from None


def _blockwise(compute: Callable[..., None], x: Array, *others: Array) -> Array:
    """Fill an array like x by `compute(out, x, *others)` on blocks that are contiguous in memory."""
    out: np.ndarray[Any, Any] = np.empty_like(x, subok=False)
    order = sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis]))
    arrays = [np.atleast_1d(array.transpose(order)) for array in (out, x, *others)]
    shape = arrays[0].shape
    cut = next(k for k in range(len(shape)) if math.prod(shape[k + 1 :]) <= BLOCK)  # the axis that blocks divide
    length = BLOCK // max(1, math.prod(shape[cut + 1 :]))
    blocks = -(-shape[cut] // length)

    def work(first: int, last: int) -> None:
        for flat in range(first, last):
            row, block = divmod(flat, blocks)
            part = (*np.unravel_index(row, shape[:cut]), slice(block * length, (block + 1) * length))
            compute(*(array[part] for array in arrays))

    parallel_for(work, math.prod(shape[:cut]) * blocks, MEMORY * x.size)
    return out
