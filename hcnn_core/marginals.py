"""Marginals: sums over attributes, which are invariant to translations along them (Eqs. 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hcnn_core._engines import planner
from hcnn_core._problem import normalize_axes, require_choice, shape_of
from hcnn_core.backend import Array, array_namespace, require_floating

__all__ = ["marginal", "marginal_vjp"]

REDUCTIONS = ("sum", "mean")


def marginal(x: Array, axes: int | Sequence[int], *, reduction: str = "sum") -> Array:
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
        If axes are repeated or out of range, or the reduction is neither word.
    """
    xp = array_namespace(x)
    x = require_floating(xp, "x", x)
    axes = normalize_axes("axes", axes, x.ndim)
    require_choice("reduction", reduction, REDUCTIONS)
    return planner.elementwise(xp).marginal(xp, x, axes, reduction)


def marginal_vjp(g: Array, x: Array | Sequence[int], axes: int | Sequence[int], *, reduction: str = "sum") -> Array:
    """Cotangent of x in ``marginal(x, axes)``: g spread evenly over the axes that were removed.

    Parameters
    ----------
    g : array
        Cotangent of the result.
    x : array or sequence of int
        The argument or its shape.
    axes : int or sequence of int
        Axes that were removed.
    reduction : {"sum", "mean"}, optional
        As in `marginal`.

    Returns
    -------
    array
        Read-only view in the shape of x.

    Raises
    ------
    TypeError
        If g is of an integer dtype.
    ValueError
        If g has not the shape of the result, or axes and reduction do not fit.
    """
    xp = array_namespace(g)
    g = require_floating(xp, "g", g)
    shape = shape_of("x", x)
    axes = normalize_axes("axes", axes, len(shape))
    require_choice("reduction", reduction, REDUCTIONS)
    kept = tuple(n for a, n in enumerate(shape) if a not in axes)
    if g.shape != kept:
        raise ValueError(f"g has shape {g.shape}; the marginal has {kept}")
    if reduction == "mean":
        g = g / max(1, math.prod(shape[a] for a in axes))
    g = xp.reshape(g, tuple(1 if a in axes else n for a, n in enumerate(shape)))
    return xp.broadcast_to(g, shape)
