"""Products with the taps around every position, compiled: no tap is ever copied beside another.

One entry (a frequency, or one of the outer batch) is extended by its boundary once, each of the phases that a stride
leaves apart by itself; every tap of every channel then is a row of that array from some offset on, in runs as long as
the last axis and the batch. Sums over taps and channels stay in registers.
"""

# mypy: disable-error-code="call-arg,misc,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from hcnn_core._register_tiles import (
    BROAD,
    DEEP,
    FEW,
    LESS_BROAD,
    LESS_DEEP,
    TALL,
    VECTOR_BYTES,
    WIDE_OF_FEW,
    WIDE_OF_ONE,
    WIDE_OF_TALL,
    combine,
    inner_products,
)

Array = np.ndarray[Any, Any]

_options: dict[str, Any] = {"nogil": True, "cache": True}


@numba.njit(**_options)
def _extend(padded: Array, x: Array, lines: Array, runs: Array, inner: int) -> None:
    """Copy x (columns, source lines, elements) to padded (columns, lines, elements).

    `lines` holds (source line or -1, first run, end of runs), a run (to, source or -1, count) of the last axis, whose
    samples are `inner` elements each; -1 stands for zeros.
    """
    for column in range(padded.shape[0]):
        for line in range(padded.shape[1]):
            source, first, end = lines[line]
            for run in range(first, end):
                begin, size = runs[run, 0] * inner, runs[run, 2] * inner
                to = padded[column, line, begin : begin + size]
                if source < 0 or runs[run, 1] < 0:
                    to[:] = 0
                else:
                    taken = x[column, source, runs[run, 1] * inner : runs[run, 1] * inner + size]
                    for i in range(size):
                        to[i] = taken[i]


@numba.njit(inline="always", **_options)
def _strip(
    rows: int, wide: int, like: Array, out: int, out_stride: int, n: int, x: int, table: Array, matrix: int, step: int
) -> None:
    """Write `rows` rows of n sums, tile by tile; the last tile begins earlier and writes some sums again."""
    lanes = VECTOR_BYTES // like.itemsize
    tiled = n - n % (lanes * wide)
    for begin in range(0, tiled, lanes * wide):
        at = begin * like.itemsize
        combine(like, rows, wide, out + at, out_stride, x + at, table.ctypes.data, table.size, matrix, step)
    for begin in range(tiled, n, lanes):
        at = min(begin, n - lanes) * like.itemsize
        combine(like, rows, 1, out + at, out_stride, x + at, table.ctypes.data, table.size, matrix, step)


@numba.njit(**_options)
def combine_rows(like: Array, out: int, out_stride: int, n: int, x: int, table: Array, matrix: Array) -> None:
    """Write the products of matrix (K, rows) with rows of n elements of x, found by a table of K offsets."""
    rows, step = matrix.shape[1], matrix.strides[0]
    row = 0
    while row + TALL <= rows:
        factors = matrix.ctypes.data + row * like.itemsize
        _strip(TALL, WIDE_OF_TALL, like, out + row * out_stride, out_stride, n, x, table, factors, step)
        row += TALL
    while row + FEW <= rows:
        factors = matrix.ctypes.data + row * like.itemsize
        _strip(FEW, WIDE_OF_FEW, like, out + row * out_stride, out_stride, n, x, table, factors, step)
        row += FEW
    if row < rows:
        factors = matrix.ctypes.data + row * like.itemsize
        _strip(1, WIDE_OF_ONE, like, out + row * out_stride, out_stride, n, x, table, factors, step)


@numba.njit(**_options)
def apply(
    out: Array, first: int, n: int, x: Array, matrices: Array, table: Array, starts: Array, lines: Array, runs: Array,
    inner: int, padded: Array,
) -> None:  # fmt: skip
    """Write to out (entries, rows, positions), from `first` on, the products of matrices with the taps of x.

    Line by line of n positions: the taps of line l begin at starts[l] + table[k], k < K. x is (entries, columns, source
    lines, elements), `padded` room for one extended entry; matrices are (entries or 1, K, rows).
    """
    taken = padded.reshape(-1)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for line in range(starts.size):
            begin = first + line * n
            if n * x.itemsize >= VECTOR_BYTES:
                target, source = out[entry, 0, begin:].ctypes.data, taken[starts[line] :].ctypes.data
                combine_rows(x, target, out.strides[1], n, source, table, matrix)
                continue
            for row in range(out.shape[1]):
                for i in range(n):
                    total = x.dtype.type(0)
                    for k in range(table.size):
                        total += matrix[k, row] * taken[starts[line] + table[k] // x.itemsize + i]
                    out[entry, row, begin + i] = total


@numba.njit(inline="always", **_options)
def _products(
    deep: int, broad: int, total: Array, k: int, r: int, x: int, table: Array, y: int, y_stride: int, n: int
) -> None:
    """Add the inner products of `deep` rows of x with `broad` rows of y, n elements each, to total (K, rows)."""
    lanes = VECTOR_BYTES // total.itemsize
    to, offsets = total[k, r:].ctypes.data, table[k:].ctypes.data
    inner_products(total, deep, broad, to, total.strides[0], x, offsets, y + r * y_stride, y_stride, n // lanes)


@numba.njit(inline="always", **_options)
def _band(deep: int, total: Array, k: int, x: int, table: Array, y: int, y_stride: int, n: int) -> None:
    """Add the inner products of `deep` rows of x with all rows of y."""
    r = 0
    while r + BROAD <= total.shape[1]:
        _products(deep, BROAD, total, k, r, x, table, y, y_stride, n)
        r += BROAD
    while r + LESS_BROAD <= total.shape[1]:
        _products(deep, LESS_BROAD, total, k, r, x, table, y, y_stride, n)
        r += LESS_BROAD
    while r < total.shape[1]:
        _products(deep, 1, total, k, r, x, table, y, y_stride, n)
        r += 1


@numba.njit(**_options)
def correlate_rows(total: Array, x: int, table: Array, y: int, y_stride: int, n: int) -> None:
    """Add the inner products of rows of x, by a table, with rows of y to total (K, rows), whole vectors only."""
    k = 0
    while k + DEEP <= total.shape[0]:
        _band(DEEP, total, k, x, table, y, y_stride, n)
        k += DEEP
    while k + LESS_DEEP <= total.shape[0]:
        _band(LESS_DEEP, total, k, x, table, y, y_stride, n)
        k += LESS_DEEP
    while k < total.shape[0]:
        _band(1, total, k, x, table, y, y_stride, n)
        k += 1


@numba.njit(**_options)
def correlate(
    g: Array, first: int, n: int, x: Array, total: Array, table: Array, starts: Array, lines: Array, runs: Array,
    inner: int, padded: Array,
) -> None:  # fmt: skip
    """Add to total (entries, K, rows) the inner products of the taps of x with g (entries, rows, positions).

    The other arguments are those of `apply`.
    """
    whole = n - n % (VECTOR_BYTES // x.itemsize)
    taken = padded.reshape(-1)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        for line in range(starts.size):
            begin = first + line * n
            source = taken[starts[line] :].ctypes.data
            correlate_rows(total[entry], source, table, g[entry, 0, begin:].ctypes.data, g.strides[1], n)
            for i in range(whole, n):
                for k in range(table.size):
                    term = taken[starts[line] + table[k] // x.itemsize + i]
                    for r in range(g.shape[1]):
                        total[entry, k, r] += term * g[entry, r, begin + i]
