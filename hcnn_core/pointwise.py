"""The pointwise nonlinearity rho of the paper: exponential linear units (arXiv:1511.07289; section 2 of 1703.04140)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._backend import Array, array_namespace, require_real
from hcnn_core._parallel import parallel_for

BLOCK = 1 << 16
"""Elements handled at a time, so that the steps of one block find it in cache."""


def elu(x: Array, bias: Array | None = None, /) -> Array:
    """Exponential linear unit of c = x + bias: c where c > 0, exp(c) - 1 elsewhere.

    Parameters
    ----------
    x : array
        float32 or float64, any shape.
    bias : array, optional
        Added first; its shape broadcasts to x's.

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
        bias = xp.astype(require_real(xp, "bias", bias), x.dtype, copy=False)
        try:
            bias = xp.broadcast_to(bias, x.shape)
        except ValueError:
            raise ValueError(f"bias has shape {bias.shape}, which does not broadcast to x's {x.shape}") from None

    def compute(out: Array, x: Array, *bias: Array) -> None:
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
        Shape and memory layout of `ans`.

    Raises
    ------
    TypeError
        If a dtype is integer or complex.
    """
    xp = array_namespace(g, ans)
    g, ans = require_real(xp, "g", g), require_real(xp, "ans", ans)

    def compute(out: Array, ans: Array, g: Array) -> None:
        np.minimum(ans, 0, out=out)
        np.add(out, 1, out=out)
        np.multiply(out, g, out=out)

    if xp is np:
        return _blockwise(compute, ans, np.broadcast_to(g.astype(ans.dtype, copy=False), ans.shape))
    return (xp.minimum(ans, xp.zeros_like(ans)) + 1) * g


def _blockwise(compute: Callable[..., None], x: Array, *others: Array) -> Array:
    """Fill an array like x by `compute(out, x, *others)` on blocks that are contiguous in memory."""
    out: np.ndarray[Any, Any] = np.empty_like(x, subok=False)
    order = sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis]))
    arrays = [array.transpose(order) for array in (out, x, *others)]
    shape = arrays[0].shape
    lead = next((k for k in range(len(shape)) if math.prod(shape[k:]) <= BLOCK), len(shape))

    def work(first: int, last: int) -> None:
        for flat in range(first, last):
            index = np.unravel_index(flat, shape[:lead])
            compute(*(array[(*index, ...)] for array in arrays))

    parallel_for(work, math.prod(shape[:lead]))
    return out
