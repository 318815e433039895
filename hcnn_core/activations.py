"""Pointwise functions: the exponential linear units that are rho in the paper, and rectified linear units.

Exponential linear units are those of arXiv:1511.07289; section 2 of arXiv:1703.04140 takes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core._engines.dispatch import engine
from hcnn_core._tuning import current
from hcnn_core.backend import array_namespace, require_broadcast, require_real
from hcnn_core.typing import AnyArray, Array

__all__ = ["elu", "elu_vjp", "relu", "relu_vjp"]


def elu(x: AnyArray, /, *, bias: Array | None = None) -> AnyArray:
    """Exponential linear unit of c = x + bias: c where c > 0, exp(c) - 1 elsewhere.

    Parameters
    ----------
    x : array
        float32 or float64, any shape.
    bias : array, optional
        Added to x first. It is converted to the dtype of x, and its shape broadcasts to that of x.

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
    Section 2 of arXiv:1703.04140 prints the two cases swapped. Alpha, the limit of -ELU at minus infinity, is 1.
    """
    xp, x, bias = _with_bias(x, bias)
    return engine("elementwise", x).elu(xp, x, bias)


def elu_vjp(g: Array, ans: AnyArray, /) -> AnyArray:
    """Return the cotangent of x in ``ans = elu(x)``: g where ans > 0, g * (1 + ans) elsewhere.

    The shape of g broadcasts to that of `ans`, else ValueError; the result is as `ans`. All else as in `elu`.
    """
    xp, g, ans = _with_cotangent(g, ans)
    return engine("elementwise", ans).elu_vjp(xp, g, ans)


def relu(x: AnyArray, /, *, bias: Array | None = None) -> AnyArray:
    """Return the rectified linear unit of c = x + bias, c where c > 0, 0 elsewhere: all else as in `elu`."""
    xp, x, bias = _with_bias(x, bias)
    return engine("elementwise", x).relu(xp, x, bias)


def relu_vjp(g: Array, ans: AnyArray, /) -> AnyArray:
    """Return the cotangent of x in ``ans = relu(x)``: g where ans > 0, 0 elsewhere, and so where x = 0, as in PyTorch.

    All else as in `elu_vjp`.
    """
    xp, g, ans = _with_cotangent(g, ans)
    return engine("elementwise", ans).relu_vjp(xp, g, ans)


def total(x: Array, y: Array) -> Array:
    """Return ``x + y``, bit for bit; by several threads, in the memory layout of x, where both are large and alike."""
    few = type(x) is np.ndarray and x.size < current().elementwise_elements
    if few or type(x) is not type(y) or x.shape != y.shape:
        return x + y
    return engine("elementwise", x).add(x, y)


def _with_bias(x: Array, bias: Array | None) -> Any:
    """Return the namespace of x, x, and the bias broadcast to it."""
    xp = array_namespace(x) if bias is None else array_namespace(x, bias)
    x = require_real(xp, "x", x)
    return xp, x, None if bias is None else _like(xp, "bias", bias, x)


def _with_cotangent(g: Array, ans: Array) -> Any:
    """Return the namespace of both, the cotangent broadcast to the result, and the result."""
    xp = array_namespace(g, ans)
    ans = require_real(xp, "ans", ans)
    return xp, _like(xp, "g", g, ans), ans


def _like(xp: Any, name: str, array: Array, x: Array) -> Array:
    """Return an argument converted to the dtype of x and broadcast to its shape."""
    array = xp.astype(require_real(xp, name, array), x.dtype, copy=False)
    return require_broadcast(xp, name, array, x.shape)
