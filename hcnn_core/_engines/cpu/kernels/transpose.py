"""Transposes of arrays through registers."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, Vectors, address, load_offset

ROWS_PER_BLOCK = 1 << 12
"""Rows of the copy that are written column by column: as many as stay in cache until all columns are written."""


@intrinsic(prefer_literal=True)
def transpose_tile(typing: Any, like: Any, out: Any, out_stride: Any, x: Any, x_stride: Any, last: Any) -> Any:
    """Write the transpose of a square tile, a vector wide, to out. Rows of x beyond `last` repeat that row."""
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
def transpose_square(typing: Any, like: Any, divisor: Any, out: Any, out_stride: Any, x: Any, columns: Any) -> Any:
    """Write element i of the vector at x + columns[j] to out[i, j]. Vectors have lanes / divisor elements; 1 if 0."""
    signature = types.void(like, divisor, *(types.int64,) * 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, columns = arguments[2:]
        lanes = 8 * VECTOR_BYTES // like.dtype.bitwidth
        v = Vectors(builder, like.dtype, max(1, lanes // divisor.literal_value) if divisor.literal_value else 1)
        places = [load_offset(builder, columns, INT64(r)) for r in range(v.lanes)]
        v.store_transposed([v.load(builder.add(x, place)) for place in places], out, out_stride)
        return context.get_dummy_value()

    return signature, generate


@compiled(inline="always")
def _copy_transposed(divisor: int, like: NDArray, out: int, step: int, x: int, columns: NDArray, rows: int) -> None:
    """Write out[i * step + j] = x[i + columns[j]] for some rows i; step and columns in bytes.

    Square tiles, of a vector divided by `divisor`, are transposed in registers. The rest is copied one by one.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize // divisor
    n, table = columns.size, address(columns)
    whole_rows, whole = rows - rows % lanes, n - n % lanes
    for i in range(0, whole_rows, lanes):
        for j in range(0, whole, lanes):
            transpose_square(like, divisor, out + i * step + j * size, step, x + i * size, table + j * columns.itemsize)
    for i in range(whole_rows, rows):
        for j in range(whole):
            transpose_square(like, 0, out + i * step + j * size, step, x + i * size, table + j * columns.itemsize)
    for begin in range(0, rows, ROWS_PER_BLOCK):
        for j in range(whole, n):
            for i in range(begin, min(rows, begin + ROWS_PER_BLOCK)):
                transpose_square(like, 0, out + i * step + j * size, step, x + i * size, table + j * columns.itemsize)


def _reordering(divisor: int) -> Any:
    """Compile `reorder` for square tiles of a vector divided by `divisor`."""

    def reorder(
        out: NDArray, x: NDArray, first: int, rows: int, step: int, to: NDArray, source: NDArray, columns: NDArray
    ) -> None:
        for k in range(to.size):
            begin, end = address(x) + source[k] + first * x.itemsize, address(out) + to[k] + first * step
            _copy_transposed(divisor, x, end, step, begin, columns, rows)

    reorder.__name__ = reorder.__qualname__ = f"reorder_{divisor}"
    return compiled()(reorder)


_REORDER = {divisor: _reordering(divisor) for divisor in (1, 2, 4)}


def reorder(
    out: NDArray, x: NDArray, first: int, rows: int, step: int, to: NDArray, source: NDArray, columns: NDArray
) -> None:
    """Write out[to[k] + i * step + j] = x[source[k] + i + columns[j]] for all k and j, and rows [first, first + rows).

    Both arrays are flat. step, to, source and columns count bytes.
    """
    filled = rows * x.itemsize
    divisor = 1 if filled >= VECTOR_BYTES else 2 if 2 * filled >= VECTOR_BYTES else 4
    _REORDER[divisor](out, x, first, rows, step, to, source, columns)
