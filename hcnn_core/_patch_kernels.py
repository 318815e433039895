"""Patch products of one sample with two patch axes, compiled: the gathered patches never exist in memory.

A sample is padded by its boundary to rows of length (n2 + s2 - 1) * inner. The patch entry for tap t is then the row
u1 + s1 - 1 - t1 from column (s2 - 1 - t2) * inner on, and taps below count from that end, which reverses their order.
"""

# mypy: disable-error-code="misc,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]

RUN = 4096
"""Products summed in single precision, if that is the arrays'; many more would lose digits."""

# sums may be reordered so that they vectorise; NaN and infinity keep their meaning
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract"}}


@numba.njit(**_options)
def pad(x: Array, centre: Any, s1: int, s2: int, periodic1: bool, periodic2: bool) -> Array:
    """Return x (n1, n2, inner) less its centre, extended to (n1 + s1 - 1, (n2 + s2 - 1) * inner)."""
    n1, n2, inner = x.shape
    before1, before2 = s1 - 1 - s1 // 2, s2 - 1 - s2 // 2
    padded = np.empty((n1 + s1 - 1, (n2 + s2 - 1) * inner), x.dtype)
    for i in range(n1 + s1 - 1):
        a = i - before1
        for j in range(n2 + s2 - 1):
            b = j - before2
            inside = (periodic1 or 0 <= a < n1) and (periodic2 or 0 <= b < n2)
            row = padded[i, j * inner : (j + 1) * inner]
            if inside:
                source = x[a % n1, b % n2]
                for c in range(inner):
                    row[c] = source[c] - centre
            else:
                row[:] = -centre
    return padded


@numba.njit(**_options)
def fold(padded: Array, x: Array, s1: int, s2: int, periodic1: bool, periodic2: bool) -> None:
    """Transpose of the extension in `pad`, written to x."""
    n1, n2, inner = x.shape
    before1, before2 = s1 - 1 - s1 // 2, s2 - 1 - s2 // 2
    x[:] = 0
    for i in range(n1 + s1 - 1):
        a = i - before1
        for j in range(n2 + s2 - 1):
            b = j - before2
            if (periodic1 or 0 <= a < n1) and (periodic2 or 0 <= b < n2):
                target = x[a % n1, b % n2]
                source = padded[i, j * inner : (j + 1) * inner]
                for c in range(inner):
                    target[c] += source[c]


@numba.njit(**_options)
def _run_dot(a: Array, b: Array) -> Any:
    total = a[0] * b[0]
    for c in range(1, a.shape[0]):
        total += a[c] * b[c]
    return total


@numba.njit(**_options)
def _dot(a: Array, b: Array) -> float:
    """Sum of products, runs of it in the dtype of the arrays and their sums in double precision."""
    total = 0.0
    for begin in range(0, a.shape[0], RUN):
        total += _run_dot(a[begin : begin + RUN], b[begin : begin + RUN])
    return total


@numba.njit(**_options)
def gram(x: Array, y: Array, s1: int, s2: int, inner: int, total: Array) -> None:
    """Add sum over u of P_t(x)[u] P_t'(y)[u] to total (s1, s2, s1, s2), taps reversed; x and y come from `pad`."""
    n1 = x.shape[0] - s1 + 1
    length = x.shape[1] - (s2 - 1) * inner
    for a in range(x.shape[0]):
        for b in range(max(0, a - s1 + 1), min(x.shape[0], a + s1)):
            for t2 in range(s2):
                for r2 in range(s2):
                    dot = _dot(x[a, t2 * inner : t2 * inner + length], y[b, r2 * inner : r2 * inner + length])
                    # rows a and b meet as taps t1 and t1 + b - a of every patch that holds both
                    for t1 in range(max(0, a - n1 + 1, a - b), min(s1, a + 1, s1 + a - b)):
                        total[t1, t2, t1 + b - a, r2] += dot


@numba.njit(**_options)
def spread(x: Array, s1: int, s2: int, inner: int, matrix: Array, offset: Array) -> Array:
    """Padded sum over u and t of (offset_t + sum_t' matrix_tt' P_t'(x)[u]) at tap t of patch u; taps reversed."""
    n1 = x.shape[0] - s1 + 1
    length = x.shape[1] - (s2 - 1) * inner
    result = np.zeros_like(x)
    row = np.empty(length, x.dtype)
    for u in range(n1):
        for t1 in range(s1):
            for t2 in range(s2):
                row[:] = offset[t1, t2]
                for r1 in range(s1):
                    for r2 in range(s2):
                        factor = matrix[t1, t2, r1, r2]
                        source = x[u + r1, r2 * inner : r2 * inner + length]
                        for c in range(length):
                            row[c] += factor * source[c]
                target = result[u + t1, t2 * inner : t2 * inner + length]
                for c in range(length):
                    target[c] += row[c]
    return result
