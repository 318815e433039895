"""The pointwise nonlinearity rho of the paper: exponential linear units (arXiv:1511.07289; section 2 of 1703.04140)."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from hcnn_core._engines import planner
from hcnn_core._tuning import current
from hcnn_core.backend import array_namespace, in_memory_order, library_of, require_real
from hcnn_core.typing import AnyArray, Array

__all__ = ["elu", "elu_vjp"]


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
    xp = array_namespace(x) if bias is None else array_namespace(x, bias)
    c = require_real(xp, "x", x)
    if bias is not None:
        bias = _like(xp, "bias", bias, c)
    return planner.elementwise(xp, math.prod(c.shape)).elu(xp, c, bias)


def elu_vjp(g: Array, ans: AnyArray, /) -> AnyArray:
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
    y = require_real(xp, "ans", ans)
    g = _like(xp, "g", g, y)
    return planner.elementwise(xp, math.prod(y.shape)).elu_vjp(xp, g, y)


def total(x: Array, y: Array) -> Array:
    """Sum of two arrays, by several threads where both are large NumPy arrays of one shape and dtype.

    Parameters
    ----------
    x, y : array
        Of one array library and of shapes that broadcast.

    Returns
    -------
    array
        ``x + y``, bit for bit; where it is large, in the memory layout of `x`.
    """
    if library_of(x) == library_of(y) == "cupy" and x.shape == y.shape:
        return in_memory_order(operator.add, x, y)
    if not type(x) is type(y) is np.ndarray or x.size < current().elementwise_elements:
        return x + y
    if (x.shape, x.dtype) != (y.shape, y.dtype) or not x.dtype.isnative:
        return x + y
    return planner.add(x, y)


def _like(xp: Any, name: str, array: Array, x: Array) -> Array:
    """An argument converted to the dtype of x and broadcast to its shape."""
    array = xp.astype(require_real(xp, name, array), x.dtype, copy=False)
    try:
        return xp.broadcast_to(array, x.shape)
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}, which does not broadcast to {x.shape}") from None
