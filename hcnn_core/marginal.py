"""Marginals: sums over attributes, which are invariant to translations along them (Eqs. 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hcnn_core._backend import Array, array_namespace, compiled_kernels, require_floating
from hcnn_core._geometry import normalize_axes, require_choice, shape_of
from hcnn_core._memory import empty, is_one_run, offsets
from hcnn_core._parallel import MEMORY, parallel_for

RUN = 32
"""Contiguous results from which adding terms run by run beats NumPy's own sum over outer axes."""

MAX_TERMS = 64

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
    kernels = compiled_kernels(xp) if x.size else None
    if kernels:
        kept = sorted((a for a in range(x.ndim) if a not in axes), key=lambda a: -abs(x.strides[a]))
        count = math.prod(x.shape[a] for a in axes)
        if count <= MAX_TERMS and _end_in_runs(x, kept):
            return _run_by_run(kernels, x, axes, kept, 1 if reduction == "sum" else count)
    return xp.sum(x, axis=axes) if reduction == "sum" else xp.mean(x, axis=axes)


def _end_in_runs(x: np.ndarray[Any, Any], kept: list[int]) -> bool:
    """Whether memory is contiguous, for long enough, along the last of some axes that is longer than one."""
    return any(x.strides[a] == x.itemsize and x.shape[a] >= RUN for a in [a for a in kept if x.shape[a] > 1][-1:])


def _run_by_run(
    kernels: Any, x: np.ndarray[Any, Any], axes: tuple[int, ...], kept: list[int], divisor: int
) -> np.ndarray[Any, Any]:
    """Sums over some axes, divided; threads take different parts of those kept. Memory keeps x's order."""
    count = len(axes)
    total: np.ndarray[Any, Any] = empty(tuple(x.shape[a] for a in kept), x.dtype)
    x, out = x.transpose(*axes, *kept).view(x.real.dtype), total.view(x.real.dtype)
    cut = next(k for k in range(count, x.ndim) if is_one_run(x, k))
    terms = offsets(x.shape[:count], x.strides[:count])
    exact = divisor & (divisor - 1) == 0  # then so is the product with its inverse
    factors = np.full((terms.size, 1), 1 / divisor if exact else 1, x.dtype)

    def work(first: int, last: int) -> None:
        part, results = x[(slice(None),) * count + (slice(first, last),)], out[first:last]
        rows = part.ctypes.data + offsets(part.shape[count:cut], part.strides[count:cut])
        kernels.sum_runs(results.reshape(rows.size, -1), rows, terms, factors)
        if not exact:
            np.divide(results, divisor, out=results)

    parallel_for(work, len(out), MEMORY * x.size)
    return total.transpose(np.argsort(kept))


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
