"""Marginals: sums over attributes, which are invariant to translations along them (Eqs. 6 and 7)."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, overload

from hcnn_core._engines.dispatch import engine, native
from hcnn_core._problem import normalize_axes, require_choice, shape_of
from hcnn_core.backend import array_namespace, in_memory_order, require_floating
from hcnn_core.typing import Array, Axes, NumpyArray, Scalar, Shape

__all__ = ["marginal", "marginal_vjp"]

Reduction: TypeAlias = Literal["sum", "mean"]
REDUCTIONS = ("sum", "mean")


@overload
def marginal(x: NumpyArray[Scalar], axes: Axes, *, reduction: Reduction = "sum") -> NumpyArray[Scalar]: ...
@overload
def marginal(x: Array, axes: Axes, *, reduction: Reduction = "sum") -> Array: ...
def marginal(x: Array, axes: Axes, *, reduction: Reduction = "sum") -> Array:
    """Sum, or average, over some axes.

    Parameters
    ----------
    x : array
        float32, float64, complex64 or complex128, any shape.
    axes : int or sequence of int
        Axes to remove.
    reduction : {"sum", "mean"}, optional
        The paper sums (Eqs. 6 and 7); its authors' code averages.

    Returns
    -------
    array
        x without `axes`.

    Raises
    ------
    TypeError
        If x is of an integer dtype.
    ValueError
        If axes are repeated or out of range, or the reduction is neither "sum" nor "mean".
    """
    xp = array_namespace(x)
    x = require_floating(xp, "x", x)
    axes = normalize_axes("axes", axes, x.ndim)
    require_choice("reduction", reduction, REDUCTIONS)
    if sums := native("sums", x, axes):
        return sums.summed(xp, x, axes, mean=reduction == "mean")
    return engine("elementwise", x).marginal(xp, x, axes, reduction)


@overload
def marginal_vjp(
    g: NumpyArray[Scalar], x: Array | Shape, axes: Axes, *, reduction: Reduction = "sum"
) -> NumpyArray[Scalar]: ...
@overload
def marginal_vjp(g: Array, x: Array | Shape, axes: Axes, *, reduction: Reduction = "sum") -> Array: ...
def marginal_vjp(g: Array, x: Array | Shape, axes: Axes, *, reduction: Reduction = "sum") -> Array:
    """Return the cotangent of x in ``marginal(x, axes)``: g repeated along the axes, divided by their size for a mean.

    x is the argument or its shape, which the result has: a read-only view. ValueError if g does not have the shape of
    the marginal. All else as in `marginal`.
    """
    xp = array_namespace(g)
    g = require_floating(xp, "g", g)
    shape = shape_of("x", x)
    axes = normalize_axes("axes", axes, len(shape))
    require_choice("reduction", reduction, REDUCTIONS)
    reduced = tuple(n for a, n in enumerate(shape) if a not in axes)
    if g.shape != reduced:
        raise ValueError(f"g has shape {g.shape}; the marginal has {reduced}")
    if reduction == "mean":
        count = max(1, math.prod(shape[a] for a in axes))
        g = in_memory_order(lambda g: g / count, g)
    g = xp.reshape(g, tuple(1 if a in axes else n for a, n in enumerate(shape)))
    return xp.broadcast_to(g, shape)
