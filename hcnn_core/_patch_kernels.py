"""Patch products of one sample with two patch axes, compiled: the gathered patches never exist in memory.

A sample is extended by its boundary. For `gram`, to rows of length (n2 + s2 - 1) * inner: the patch entry for tap t is
then the row u1 + s1 - 1 - t1 from column (s2 - 1 - t2) * inner on, and taps count from that end, which reverses them.
"""

# mypy: disable-error-code="misc,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from hcnn_core._register_tiles import VECTOR_BYTES
from hcnn_core._tap_kernels import combine_rows, correlate_rows

Array = np.ndarray[Any, Any]

RUN = 1 << 14
"""Products summed in the dtype of the arrays; many more in single precision would lose digits."""

_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract"}}


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


@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def position_sums(x: Array, guess: Any, total: Array) -> None:
    """Add the sums of x (samples, n1, n2, inner) less a guess of its mean over samples and inner to total (n1, n2)."""
    for sample in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                for begin in range(0, x.shape[3], RUN):
                    run = x[sample, i, j, begin : begin + RUN]
                    part = run[0] - guess
                    for c in range(1, run.size):
                        part += run[c] - guess
                    total[i, j] += part


@numba.njit(**_options)
def gram(x: Array, y: Array, s1: int, s2: int, inner: int, symmetric: bool, total: Array) -> None:
    """Add sum over u of P_t(x)[u] P_t'(y)[u] to total (s1, s2, s1, s2), taps reversed; x and y come from `pad`.

    Rows a of x and b of y meet as taps t1 and t1 + b - a of every patch that holds both. If x is y, `symmetric`, each
    pair of rows is multiplied once and counted for both orders.
    """
    rows, n1, n = x.shape[0], x.shape[0] - s1 + 1, x.shape[1] - (s2 - 1) * inner
    whole = n - n % (VECTOR_BYTES // x.itemsize)
    windows = np.arange(s2) * inner
    for a in range(rows):
        first, last = a if symmetric else max(0, a - s1 + 1), min(rows, a + s1)
        table = np.empty((last - first) * s2, np.int64)
        for b in range(first, last):
            table[(b - first) * s2 : (b - first + 1) * s2] = (windows + b * y.shape[1]) * y.itemsize
        products = np.zeros((table.size, s2))  # of windows of rows b of y with those of row a of x
        for begin in range(0, whole, RUN):
            part = np.zeros(products.shape, x.dtype)
            end = min(whole, begin + RUN)
            correlate_rows(
                part, y[0, begin:].ctypes.data, table, x[a, begin:].ctypes.data, inner * x.itemsize, end - begin
            )
            products += part
        for b in range(first, last):
            for r2 in range(s2):
                for t2 in range(s2):
                    dot = products[(b - first) * s2 + r2, t2]
                    for i in range(whole, n):
                        dot += x[a, t2 * inner + i] * y[b, r2 * inner + i]
                    for t1 in range(max(0, a - n1 + 1, a - b), min(s1, a + 1, s1 + a - b)):
                        total[t1, t2, t1 + b - a, r2] += dot
                        if symmetric and a != b:
                            total[t1 + b - a, r2, t1, t2] += dot


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
    flat, width = y.reshape(n1, n2 * inner), x.shape[1]
    steps1, steps2 = 2 * s1 - 1, 2 * s2 - 1
    table = np.empty(steps1 * steps2, np.int64)
    for d1 in range(steps1):
        for d2 in range(steps2):
            table[d1 * steps2 + d2] = (d1 * width + d2 * inner) * x.itemsize
    for p1 in range(n1):
        low1, high1 = (0, s1) if periodic1 else (max(0, s1 // 2 - p1), min(s1, n1 + s1 // 2 - p1))
        p2 = 0
        while p2 < n2:
            low2, high2 = (0, s2) if periodic2 else (max(0, s2 // 2 - p2), min(s2, n2 + s2 // 2 - p2))
            end = n2 if periodic2 else p2 + 1
            while end < n2 and low2 == max(0, s2 // 2 - end) and high2 == min(s2, n2 + s2 // 2 - end):
                end += 1
            factors = np.zeros((steps1 * steps2, 1), x.dtype)
            constant = x.dtype.type(0)
            for t1 in range(low1, high1):
                for t2 in range(low2, high2):
                    constant += offset[t1, t2]
                    for r1 in range(s1):
                        for r2 in range(s2):
                            factors[(t1 - r1 + s1 - 1) * steps2 + t2 - r2 + s2 - 1, 0] += matrix[t1, t2, r1, r2]
            row, source = flat[p1, p2 * inner : end * inner], x[p1, p2 * inner :]
            if row.size * x.itemsize >= VECTOR_BYTES:
                combine_rows(x, row.ctypes.data, 0, row.size, source.ctypes.data, table, factors)
            else:
                row[:] = 0
                for k in range(table.size):
                    for i in range(row.size):
                        row[i] += factors[k, 0] * x[p1 + k // steps2, (p2 + k % steps2) * inner + i]
            for i in range(row.size):
                row[i] += constant
            p2 = end
