"""Patch products of one sample with two patch axes, compiled: the gathered patches never exist in memory.

A sample is extended by its boundary. For `gram`, to rows of length (n2 + s2 - 1) * inner: the patch entry for tap t is
then the row u1 + s1 - 1 - t1 from column (s2 - 1 - t2) * inner on, and taps count from that end, which reverses them.
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
def pad(
    x: Array, centre: Any, before1: int, before2: int, more1: int, more2: int, periodic1: bool, periodic2: bool
) -> Array:
    """Return x (n1, n2, inner) less its centre, with more1 and more2 samples more, some of them before."""
    n1, n2, inner = x.shape
    padded = np.empty((n1 + more1, (n2 + more2) * inner), x.dtype)
    for i in range(n1 + more1):
        a = i - before1
        for j in range(n2 + more2):
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
def gram(x: Array, y: Array, s1: int, s2: int, inner: int, symmetric: bool, total: Array) -> None:
    """Add sum over u of P_t(x)[u] P_t'(y)[u] to total (s1, s2, s1, s2), taps reversed; x and y come from `pad`.

    If x is y, `symmetric`, each product is made once and counted for (t, t') and (t', t).
    """
    rows, n1, n2 = x.shape[0], x.shape[0] - s1 + 1, x.shape[1] // inner - s2 + 1
    for a in range(rows):
        for b in range(a if symmetric else max(0, a - s1 + 1), min(rows, a + s1)):
            for shift in range(0 if symmetric and a == b else 1 - s2, s2):
                first, last = max(0, -shift), min(s2, s2 - shift) - 1
                # windows of n2 columns that begin at t2 = first .. last share those from `last` to `first + n2`
                shared = max(0, first + n2 - last)
                core = _dot(
                    x[a, last * inner : (last + shared) * inner],
                    y[b, (last + shift) * inner : (last + shift + shared) * inner],
                )
                for t2 in range(first, last + 1):
                    dot = core
                    for c in range(t2, t2 + n2):
                        if not last <= c < last + shared:
                            begin, other = c * inner, (c + shift) * inner
                            dot += _dot(x[a, begin : begin + inner], y[b, other : other + inner])
                    r2 = t2 + shift
                    # rows a and b meet as taps t1 and t1 + b - a of every patch that holds both
                    for t1 in range(max(0, a - n1 + 1, a - b), min(s1, a + 1, s1 + a - b)):
                        total[t1, t2, t1 + b - a, r2] += dot
                        if symmetric and (a != b or shift != 0):
                            total[t1 + b - a, r2, t1, t2] += dot


@numba.njit(**_options)
def _add(row: Array, source: Array, first: int, step: int, factors: Array) -> None:
    """Add sum over k of factors[k] * source[first + k * step :] to a row, four terms at a time."""
    n, count = row.shape[0], factors.shape[0]
    for k in range(0, count - count % 4, 4):
        a, b = source[first + k * step :], source[first + (k + 1) * step :]
        c, d = source[first + (k + 2) * step :], source[first + (k + 3) * step :]
        p, q, r, s = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        for i in range(n):
            row[i] += p * a[i] + q * b[i] + r * c[i] + s * d[i]
    for k in range(count - count % 4, count):
        a, p = source[first + k * step :], factors[k]
        for i in range(n):
            row[i] += p * a[i]


@numba.njit(**_options)
def spread(
    x: Array, s1: int, s2: int, periodic1: bool, periodic2: bool, matrix: Array, offset: Array, y: Array
) -> None:
    """Write sum over u and t of (offset_t + sum_t' matrix_tt' P_t'(x)[u]) at tap t of patch u to y (n1, n2, inner).

    x is extended by one less than the patch on every side. A position p meets tap t of the patch around
    u = p + t - s // 2, if there is one, which reads x at p + t - t' for t': a correlation with 2 s - 1 taps along each
    axis, whose coefficients are others only near zero boundaries.
    """
    n1, n2, inner = y.shape
    flat = y.reshape(n1, n2 * inner)
    for p1 in range(n1):
        low1, high1 = (0, s1) if periodic1 else (max(0, s1 // 2 - p1), min(s1, n1 + s1 // 2 - p1))
        p2 = 0
        while p2 < n2:
            low2, high2 = (0, s2) if periodic2 else (max(0, s2 // 2 - p2), min(s2, n2 + s2 // 2 - p2))
            end = n2 if periodic2 else p2 + 1
            while end < n2 and low2 == max(0, s2 // 2 - end) and high2 == min(s2, n2 + s2 // 2 - end):
                end += 1
            factors = np.zeros((2 * s1 - 1, 2 * s2 - 1), x.dtype)
            constant = x.dtype.type(0)
            for t1 in range(low1, high1):
                for t2 in range(low2, high2):
                    constant += offset[t1, t2]
                    for r1 in range(s1):
                        for r2 in range(s2):
                            factors[t1 - r1 + s1 - 1, t2 - r2 + s2 - 1] += matrix[t1, t2, r1, r2]
            row = flat[p1, p2 * inner : end * inner]
            row[:] = constant
            for d1 in range(2 * s1 - 1):
                _add(row, x[p1 + d1], p2 * inner, inner, factors[d1])
            p2 = end
