"""Marginals: sums over attributes, which are invariant to translations along them (Eqs. 6 and 7)."""

from __future__ import annotations

from collections.abc import Sequence

from hcnn_core._backend import Array, array_namespace, require_floating
from hcnn_core._geometry import normalize_axes, normalize_choice

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
    (reduction,) = normalize_choice("reduction", reduction, 1, REDUCTIONS)
    return xp.sum(x, axis=axes) if reduction == "sum" else xp.mean(x, axis=axes)


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
    """
    xp = array_namespace(g)
    shape = tuple(getattr(x, "shape", x))
    axes = normalize_axes("axes", axes, len(shape))
    if reduction == "mean":
        count = 1
        for a in axes:
            count *= shape[a]
        g = g / count
    g = xp.reshape(g, tuple(1 if a in axes else n for a, n in enumerate(shape)))
    return xp.broadcast_to(g, shape)
