"""Transposes of arrays through registers."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, Array, Vectors, load_offset

BAND = 1 << 12
"""Rows of a copy that are written column by column, while they stay in cache."""


@intrinsic(prefer_literal=True)
def transpose_tile(typing: Any, like: Any, out: Any, out_stride: Any, x: Any, x_stride: Any, last: Any) -> Any:
    """Write a transposed square, a vector wide, to out; of rows of x beyond the last, that one is taken."""
    signature = types.void(like, *(types.int64,) * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, x_stride, last = arguments[1:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        n, rows = v.lanes, []
        for r in range(n):
            row = builder.select(builder.icmp_signed("<", INT64(r), last), INT64(r), last)
            rows.append(v.load(builder.add(x, builder.mul(row, x_stride))))
        v.store_transposed(rows, out, out_stride)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def transpose_square(typing: Any, like: Any, part: Any, out: Any, out_stride: Any, x: Any, columns: Any) -> Any:
    """Write to row i of out the elements i of the vectors at x + columns[j] bytes, a part of a whole one; 0 is one."""
    signature = types.void(like, part, *(types.int64,) * 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, columns = arguments[2:]
        lanes = 8 * VECTOR_BYTES // like.dtype.bitwidth
        v = Vectors(builder, like.dtype, max(1, lanes // part.literal_value) if part.literal_value else 1)
        places = [load_offset(builder, columns, INT64(r)) for r in range(v.lanes)]
        v.store_transposed([v.load(builder.add(x, place)) for place in places], out, out_stride)
        return context.get_dummy_value()

    return signature, generate


@compiled(inline="always")
def _in_squares(part: int, like: Array, out: int, step: int, x: int, columns: Array, rows: int) -> None:
    """Write element j of rows of out, `step` bytes apart, from x + columns[j] bytes, where the rows' lie side by side.

    What squares of a part of a vector hold is transposed in registers, the rest is copied one by one.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize // part
    n, table = columns.size, columns.ctypes.data
    whole_rows, whole = rows - rows % lanes, n - n % lanes
    for i in range(0, whole_rows, lanes):
        for j in range(0, whole, lanes):
            transpose_square(like, part, out + i * step + j * size, step, x + i * size, table + j * columns.itemsize)
    for i in range(whole_rows, rows):
        for j in range(whole):
            transpose_square(like, 0, out + i * step + j * size, step, x + i * size, table + j * columns.itemsize)
    for begin in range(0, rows, BAND):
        for j in range(whole, n):
            for i in range(begin, min(rows, begin + BAND)):
                transpose_square(like, 0, out + i * step + j * size, step, x + i * size, table + j * columns.itemsize)


@compiled()
def reorder(out: Array, x: Array, first: int, rows: int, step: int, to: Array, source: Array, columns: Array) -> None:
    """Write out[to + i * step + j] = x[source + i + columns[j]] for pairs of `to` and `source`, and some rows i.

    Both arrays are flat, and places counted in bytes.
    """
    lanes = VECTOR_BYTES // x.itemsize
    for k in range(to.size):
        begin, end = x.ctypes.data + source[k] + first * x.itemsize, out.ctypes.data + to[k] + first * step
        if rows >= lanes:
            _in_squares(1, x, end, step, begin, columns, rows)
        elif 2 * rows >= lanes:
            _in_squares(2, x, end, step, begin, columns, rows)
        else:
            _in_squares(4, x, end, step, begin, columns, rows)
