"""Moments of spatial patches, and their adjoints."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import empty

from hcnn_core._engines.cpu.kernels.gemm import MAX_TERMS, ORIGIN, correlate_rows, gemm_rows
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES, address


@compiled(_nrt=True)
def pad(
    x: NDArray, centre: Any, before1: int, before2: int, more1: int, more2: int, periodic1: bool, periodic2: bool
) -> NDArray:
    """Return x (n1, n2, inner) minus its centre, extended by more1 and more2 samples, before1 and before2 in front."""
    n1, n2, inner = x.shape
    padded, lines, n = empty((n1 + more1, (n2 + more2) * inner), x.dtype), x.reshape(n1, n2 * inner), n2 * inner
    for i in range(n1 + more1):
        a, row = i - before1, padded[i]
        if not (periodic1 or 0 <= a < n1):
            row[:] = -centre
            continue
        line, samples = lines[a % n1], row[before2 * inner : before2 * inner + n]
        for c in range(n):
            samples[c] = line[c] - centre
        for j in range(more2):
            column = j if j < before2 else j + n2
            to = row[column * inner : (column + 1) * inner]
            if periodic2:
                begin = (column - before2) % n2 * inner
                for c in range(inner):
                    to[c] = line[begin + c] - centre
            else:
                to[:] = -centre
    return padded


@compiled(fastmath={"contract", "reassoc"})
def position_sums(x: NDArray, guess: Any, total: NDArray) -> None:
    """Add the sums of x (samples, n1, n2, inner) minus `guess` over samples and inner to total (n1, n2) float64.

    The guess is near the mean, so that sums stay small and lose few digits.
    """
    for sample in range(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                for begin in range(0, x.shape[3], MAX_TERMS):
                    line = x[sample, i, j, begin : begin + MAX_TERMS]
                    part = line[0] - guess
                    for c in range(1, line.size):
                        part += line[c] - guess
                    total[i, j] += part


@compiled(_nrt=True)
def gram(x: NDArray, y: NDArray, s1: int, s2: int, inner: int, symmetric: bool, products: NDArray) -> None:
    """Add the inner products of windows of rows of y with windows of rows of x, both from `pad`, to products.

    products is (kinds of rows, distances, s2, s2). Entry (k, d, r, t) is for window r of a row of y and window t of row
    a of x. d counts rows of y from the first that shares a patch with row a: from a itself if x is y (`symmetric`),
    else from max(0, a - s1 + 1). Rows that all taps read are of one kind; each row near an end is of its own kind.
    """
    rows, n, more = x.shape[0], x.shape[1] - (s2 - 1) * inner, x.shape[0] - products.shape[0]
    lanes = VECTOR_BYTES // x.itemsize
    lone = n if n < lanes else 0
    table, parts = empty(products.shape[1] * s2, np.int64), empty((products.shape[1] * s2, s2), x.dtype)
    for k in range(table.size):
        table[k] = (k // s2 * y.shape[1] + k % s2 * inner) * y.itemsize
    for a in range(rows):
        first, last = a if symmetric else max(0, a - s1 + 1), min(rows, a + s1)
        of_rows, part = table[: (last - first) * s2], parts[: (last - first) * s2]
        sums = products[max(min(a, s1 - 1), a - more)]
        for begin in range(0, n - lanes + 1, MAX_TERMS):
            part[:] = 0
            n_part = n - begin if n - begin < MAX_TERMS + lanes else MAX_TERMS
            source, other = address(y[first, begin:]), address(x[a, begin:])
            correlate_rows(part, source, of_rows, other, inner * x.itemsize, 0, n_part, ORIGIN)
            for k in range(part.shape[0]):
                for t in range(s2):
                    sums[k // s2, k % s2, t] += part[k, t]
        for k in range(part.shape[0] if lone else 0):
            for t in range(s2):
                for i in range(lone):
                    sums[k // s2, k % s2, t] += x[a, t * inner + i] * y[first + k // s2, k % s2 * inner + i]


@compiled()
def _add_gram(products: NDArray, rows: int, symmetric: bool, total: NDArray) -> None:
    """Add sum over u of P_t(x)[u] P_t'(y)[u], from the products of `gram`, to total (s1, s2, s1, s2), taps reversed.

    Rows a of x and b of y are taps t1 and t1 + b - a of every patch that holds both. If x is y, each pair of rows was
    multiplied once and counts for both orders.
    """
    s1, s2 = total.shape[:2]
    n1 = rows - s1 + 1
    for k in range(products.shape[0]):
        a = k if k < s1 else k + rows - products.shape[0]
        first, last = a if symmetric else max(0, a - s1 + 1), min(rows, a + s1)
        for b in range(first, last):
            for r2 in range(s2):
                for t2 in range(s2):
                    dot = products[k, b - first, r2, t2]
                    for t1 in range(max(0, a - n1 + 1, a - b), min(s1, a + 1, s1 + a - b)):
                        total[t1, t2, t1 + b - a, r2] += dot
                        if symmetric and a != b:
                            total[t1 + b - a, r2, t1, t2] += dot


@compiled(_nrt=True)
def grams(
    x: NDArray, x_centre: Any, y: NDArray, y_centre: Any, symmetric: bool, before: Any, periodic: Any, total: NDArray
) -> None:
    """Add products of the patches of x and y (samples, n1, n2, inner), both minus their centres, to total.

    total is (s1, s2, s1, s2): patches of x by patches of y; see `_add_gram`. Patches begin `before` samples before
    their position. If x is y (`symmetric`), it is padded once.
    """
    s1, s2 = total.shape[:2]
    rows = x.shape[1] + s1 - 1
    products = np.zeros((min(rows, 2 * s1 - 1), s1 if symmetric else 2 * s1 - 1, s2, s2), np.float64)
    for sample in range(x.shape[0]):
        padded = pad(x[sample], x_centre, before[0], before[1], s1 - 1, s2 - 1, periodic[0], periodic[1])
        other = padded
        if not symmetric:
            other = pad(y[sample], y_centre, before[0], before[1], s1 - 1, s2 - 1, periodic[0], periodic[1])
        gram(padded, other, s1, s2, x.shape[3], symmetric, products)
    _add_gram(products, rows, symmetric, total)


@compiled()
def _taps_at(p: int, n: int, s: int, periodic: bool) -> tuple[int, int]:
    """First and end of the taps that read position p of an axis."""
    return (0, s) if periodic else (max(0, s // 2 - p), min(s, n + s // 2 - p))


@compiled(_nrt=True)
def _segments(n: int, s: int, periodic: bool, step: int) -> tuple[NDArray, int]:
    """Cut an axis, at multiples of `step`, into segments of positions that the same taps read: bounds, and how many."""
    begins, count = empty(n + 1, np.int64), 0
    for p in range(0, n, step):
        unlike = p == 0
        for i in range(p, min(p + step, n)):
            unlike |= _taps_at(i, n, s, periodic) != _taps_at(max(i - step, 0), n, s, periodic)
        if unlike:
            begins[count] = p
            count += 1
    begins[count] = n
    return begins, count


@compiled()
def _coefficients(taps1: tuple[int, int], taps2: tuple[int, int], matrix: NDArray, offset: NDArray, to: NDArray) -> Any:
    """Write the factors of the samples around a position that these taps read to `to`; return the constant to add."""
    s1, s2 = offset.shape
    to[:] = 0
    constant = offset.dtype.type(0)
    for t1 in range(*taps1):
        for t2 in range(*taps2):
            constant += offset[t1, t2]
            for r1 in range(s1):
                for r2 in range(s2):
                    to[t1 - r1 + s1 - 1, t2 - r2 + s2 - 1] += matrix[t1, t2, r1, r2]
    return constant


@compiled(_nrt=True)
def spreads(
    x: NDArray, centre: Any, periodic: Any, matrix: NDArray, offset: NDArray, addend: NDArray, y: NDArray
) -> None:
    """Write sum over u and t of (offset_t + sum_t' matrix_tt' P_t'(x)[u]) at tap t of patch u to y, for every sample.

    x, minus its centre, and y are (samples, n1, n2, inner). `addend` has the same shape and is added, unless empty.

    Position p is tap t of the patch around u = p + t - s // 2, whose tap t' reads x at p + t - t'. So this is a
    correlation with 2 s - 1 taps along each axis; its coefficients differ only near zero boundaries. Two lines of
    positions are made at once, since they read most samples in common.
    """
    (s1, s2), (_, n1, n2, inner) = offset.shape, x.shape
    steps1, steps2, width = 2 * s1 - 1, 2 * s2 - 1, (n2 + 2 * s2 - 2) * inner
    table = empty((steps1 + 1) * steps2, np.int64)
    for k in range(table.size):
        table[k] = (k // steps2 * width + k % steps2 * inner) * x.itemsize
    begins, segments = _segments(n2, s2, periodic[1], 1)
    ends, pairs = _segments(n1, s1, periodic[0], 2)
    factors = np.zeros((pairs, segments, steps1 + 1, steps2, 2), x.dtype)
    constants = empty((pairs, segments, 2), x.dtype)
    for pair in range(pairs):
        for k in range(segments):
            along = _taps_at(begins[k], n2, s2, periodic[1])
            for i in range(2):
                across = _taps_at(min(ends[pair] + i, n1 - 1), n1, s1, periodic[0])
                of_line = factors[pair, k, i : i + steps1, :, i]
                constants[pair, k, i] = _coefficients(across, along, matrix, offset, of_line)
    others, lines = addend.reshape(-1, n2 * inner), y.reshape(-1, n2 * inner)
    for sample in range(x.shape[0]):
        padded = pad(x[sample], centre, s1 - 1, s2 - 1, 2 * s1 - 2, 2 * s2 - 2, periodic[0], periodic[1])
        pair = 0
        for p in range(0, n1, 2):
            rows, first = min(2, n1 - p), sample * n1 + p
            if p == ends[pair + 1]:
                pair += 1
            for k in range(segments):
                begin, end = begins[k] * inner, begins[k + 1] * inner
                matrices = factors[pair, k].reshape(-1, 2)
                if rows == 1:
                    matrices = np.ascontiguousarray(matrices[: steps1 * steps2, :1])
                to, source = address(lines[first, begin:]), address(padded[p, begin:])
                gemm_rows(to, lines.strides[0], end - begin, source, table[: matrices.shape[0]], matrices)
                for i in range(rows):
                    row, constant = lines[first + i, begin:end], constants[pair, k, i]
                    if addend.size:
                        more = others[first + i, begin:end]
                        for c in range(row.size):  # the addend is large: added last, it is rounded once
                            row[c] = (row[c] + constant) + more[c]
                    else:
                        for c in range(row.size):
                            row[c] += constant
