"""Micro-kernels of matrix products: an operand's rows lie wherever an offset table says."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.vectors import INT64, REGISTERS, VECTOR_BYTES, Array, Vectors, load_offset

# of a tile of sums: its rows, and its columns in vectors; they, a row's vectors and a factor fill the registers
TALL, WIDE_OF_TALL = (8, 3) if REGISTERS == 32 else (4, 3)


FEW, WIDE_OF_FEW = (2, 8) if REGISTERS == 32 else (2, 4)


WIDE_OF_ONE = 8


NONE_OF_TALL, NONE_OF_FEW, NONE_OF_ONE = ((0,) * wide for wide in (WIDE_OF_TALL, WIDE_OF_FEW, WIDE_OF_ONE))


# of a tile of inner products, rows of either operand
DEEP, LESS_DEEP = (6, 3) if REGISTERS == 32 else (3, 2)


BROAD, LESS_BROAD = 4, 3


SET, ELU, ADD, SPREAD = range(4)
"""What becomes of sums: they are written, or their ELU is, or they are added to what is there, or to rows anywhere."""


BLOCK = 24
"""Lines of fewer vectors than this fill tiles together, so many lines at a time: a multiple of what tiles are wide."""


ORIGIN = np.zeros(1, np.int64)
"""Where a line begins that is the only one."""


RUN = 1 << 12
"""Products summed in the dtype of the arrays; many more in single precision would lose digits."""


@intrinsic(prefer_literal=True)
def combine(
    typing: Any, like: Any, rows: Any, vectors: Any, how: Any, out: Any, out_stride: Any, x: Any, table: Any,
    count: Any, matrix: Any, matrix_stride: Any, bias: Any,
) -> Any:  # fmt: skip
    """Write sum over k < count of matrix[k, r] * x[table[k] + i] to out[r, i], r < rows, i < vectors * lanes.

    `like` is any array of the dtype of all; `vectors` is 0 for a single column. How: SET; ELU, of the sum and bias[r];
    ADD, to what is there; SPREAD, likewise, row after row, to where a table at `out_stride` says: they may overlap.
    x and out are where vectors lie side by side, or a tuple of where each does.
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in (rows, vectors, how)):
        return None
    out, x = (place if isinstance(place, types.UniTuple) else types.int64 for place in (out, x))
    signature = types.void(like, rows, vectors, how, out, types.int64, x, *(types.int64,) * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, table, count, matrix, matrix_stride, bias = arguments[4:]
        width = max(1, vectors.literal_value)
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth if vectors.literal_value else 1)

        def places(where: Any) -> list[Any]:
            if where.type == INT64:
                return [builder.add(where, INT64(i * v.lanes * v.size)) for i in range(width)]
            return cgutils.unpack_tuple(builder, where)

        sums = [v.sums(width) for _ in range(rows.literal_value)]
        if how.literal_value == SPREAD:
            steps = [load_offset(builder, out_stride, INT64(r)) for r in range(rows.literal_value)]
        else:
            steps = [builder.mul(INT64(r), out_stride) for r in range(rows.literal_value)]
        targets = [[builder.add(place, step) for place in places(out)] for step in steps]
        for r, (row_of_targets, row) in enumerate(zip(targets, sums, strict=True)):
            for target, variable in zip(row_of_targets, row, strict=True):
                if how.literal_value == ADD:
                    builder.store(v.load(target), variable)
                elif how.literal_value == ELU:
                    builder.store(v.repeat(builder.add(bias, INT64(r * v.size))), variable)
        sources = places(x)
        with cgutils.for_range(builder, count) as loop:
            offset = load_offset(builder, table, loop.index)
            terms = [v.load(builder.add(source, offset)) for source in sources]
            factors = builder.add(matrix, builder.mul(loop.index, matrix_stride))
            for r, row in enumerate(sums):
                factor = v.repeat(builder.add(factors, INT64(r * v.size)))
                for variable, term in zip(row, terms, strict=True):
                    v.accumulate(variable, factor, term)
        for row_of_targets, row in zip(targets, sums, strict=True):
            for target, variable in zip(row_of_targets, row, strict=True):
                total = builder.load(variable)
                if how.literal_value == ELU:
                    total = v.elu(total)
                elif how.literal_value == SPREAD:
                    total = builder.fadd(total, v.load(target))
                builder.store(total, v.at(target, 0), align=v.size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def outer_products(
    typing: Any, like: Any, rows: Any, total: Any, total_stride: Any, x: Any, x_stride: Any, y: Any, y_stride: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Add sum over i < count of x[r, i] * y[i, :lanes] to total[r, :lanes], r < rows."""
    if not isinstance(rows, types.IntegerLiteral):
        return None
    signature = types.void(like, rows, *(types.int64,) * 7)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, total_stride, x, x_stride, y, y_stride, count = arguments[2:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        sums, sources, targets = v.sums(rows.literal_value), [], []
        for r, variable in enumerate(sums):
            sources.append(builder.add(x, builder.mul(INT64(r), x_stride)))
            targets.append(v.at(builder.add(total, builder.mul(INT64(r), total_stride)), 0))
            builder.store(builder.load(targets[r], align=v.size), variable)
        with cgutils.for_range(builder, count) as loop:
            term = v.load(builder.add(y, builder.mul(loop.index, y_stride)))
            at = builder.mul(loop.index, INT64(v.size))
            for variable, source in zip(sums, sources, strict=True):
                v.accumulate(variable, v.repeat(builder.add(source, at)), term)
        for variable, target in zip(sums, targets, strict=True):
            builder.store(builder.load(variable), target, align=v.size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def inner_products(
    typing: Any, like: Any, deep: Any, broad: Any, total: Any, total_stride: Any, x: Any, table: Any, y: Any,
    y_stride: Any, y_line: Any, n: Any, starts: Any, lines: Any,
) -> Any:  # fmt: skip
    """Add sum over l < lines, i < n of x[starts[l] + table[k] + i] * y[r, l, i] to total[k, r], k < deep, r < broad.

    n is a vector or more, `starts` counts elements. `like` is the total: where it has a third axis, of lanes, lanes are
    left unsummed.
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in (deep, broad)):
        return None
    signature, by_lanes = types.void(like, deep, broad, *(types.int64,) * 10), like.ndim == 3

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, total_stride, x, table, y, y_stride, y_line, n, starts, lines = arguments[3:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        sums = [v.sums(broad.literal_value) for _ in range(deep.literal_value)]
        targets = [builder.add(total, builder.mul(INT64(k), total_stride)) for k in range(deep.literal_value)]
        if by_lanes:
            for target, row in zip(targets, sums, strict=True):
                for r, variable in enumerate(row):
                    builder.store(v.load(target, r), variable)
        rows = [builder.add(x, load_offset(builder, table, INT64(k))) for k in range(deep.literal_value)]
        columns = [builder.add(y, builder.mul(INT64(r), y_stride)) for r in range(broad.literal_value)]
        count, rest = builder.sdiv(n, INT64(v.lanes)), builder.srem(n, INT64(v.lanes))
        met, zero = v.first_lanes(builder.sub(INT64(v.lanes), rest)), v.constant(0)  # in whole vectors before the rest

        def add(sources: list[Any], others: list[Any], position: Any, take: Callable[[Any], Any]) -> None:
            factors = [take(v.load(builder.add(other, position))) for other in others]
            for row, source in zip(sums, sources, strict=True):
                term = take(v.load(builder.add(source, position)))
                for variable, factor in zip(row, factors, strict=True):
                    v.accumulate(variable, term, factor)

        with cgutils.for_range(builder, lines) as line:
            start = builder.mul(load_offset(builder, starts, line.index), INT64(v.size))
            done = builder.mul(line.index, y_line)
            sources, others = [builder.add(row, start) for row in rows], [builder.add(c, done) for c in columns]
            with cgutils.for_range(builder, count) as loop:
                add(sources, others, builder.mul(loop.index, INT64(VECTOR_BYTES)), lambda vector: vector)
            with builder.if_then(cgutils.is_not_null(builder, rest), likely=False):
                last = builder.mul(builder.sub(n, INT64(v.lanes)), INT64(v.size))
                add(sources, others, last, lambda vector: builder.select(met, zero, vector))
        for target, row in zip(targets, sums, strict=True):
            for r, variable in enumerate(row):
                if by_lanes:
                    builder.store(builder.load(variable), v.at(target, r), align=v.size)
                    continue
                place = v.pointer(builder.add(target, INT64(r * v.size)), v.scalar)
                builder.store(builder.fadd(builder.load(place), v.total(variable)), place)
        return context.get_dummy_value()

    return signature, generate


@compiled(inline="always")
def _tiles(
    how: int, rows: int, wide: int, like: Array, out: int, out_stride: int, begin: int, n: int, x: int, table: Array,
    matrix: int, step: int, bias: int,
) -> int:  # fmt: skip
    """Write `rows` rows of sums in tiles as long as fit between begin and n; return where the last ends."""
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    end = n - (n - begin) % (lanes * wide)
    for i in range(begin, end, lanes * wide):
        at = i * size
        combine(like, rows, wide, how, out + at, out_stride, x + at, table.ctypes.data, table.size, matrix, step, bias)
    return end


@compiled(inline="always")
def _rest(
    how: int, rows: int, like: Array, out: int, out_stride: int, begin: int, n: int, x: int, table: Array, matrix: int,
    step: int, bias: int,
) -> None:  # fmt: skip
    """The sums that tiles left, in vectors, of which the last begins earlier and writes some sums again.

    Those that are added are not added twice, but one by one.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    end = n if how < ADD and n >= lanes else n - n % lanes
    for i in range(begin, end, lanes):
        at = min(i, n - lanes) * size
        combine(like, rows, 1, how, out + at, out_stride, x + at, table.ctypes.data, table.size, matrix, step, bias)
    for i in range(end, n):
        at = i * size
        combine(like, rows, 0, how, out + at, out_stride, x + at, table.ctypes.data, table.size, matrix, step, bias)


@compiled(inline="always")
def _slender(
    how: int, rows: int, wide: int, like: Array, out: int, out_stride: int, n: int, x: int, table: Array, matrix: int,
    step: int, bias: int,
) -> None:  # fmt: skip
    """Write a few rows of n sums. A single vector of them would wait for each sum before the next is added to it."""
    done = _tiles(how, rows, wide, like, out, out_stride, 0, n, x, table, matrix, step, bias)
    done = _tiles(how, rows, 4, like, out, out_stride, done, n, x, table, matrix, step, bias)
    done = _tiles(how, rows, 2, like, out, out_stride, done, n, x, table, matrix, step, bias)
    _rest(how, rows, like, out, out_stride, done, n, x, table, matrix, step, bias)


@compiled(inline="always")
def _from_row(how: int, out: int, out_stride: int, row: int) -> tuple[int, int]:
    """What `combine` is given to write from some row on."""
    return (out, out_stride + row * 8) if how == SPREAD else (out + row * out_stride, out_stride)


@compiled(inline="always")
def _strips(
    how: int, like: Array, out: int, out_stride: int, n: int, x: int, table: Array, matrix: Array, bias: int
) -> None:
    """Strips of as many rows as registers hold, then of fewer."""
    rows, row, size, step = matrix.shape[1], 0, like.itemsize, matrix.strides[0]
    while row + TALL <= rows:
        to, there = _from_row(how, out, out_stride, row)
        factors, start = matrix.ctypes.data + row * size, bias + row * size
        done = _tiles(how, TALL, WIDE_OF_TALL, like, to, there, 0, n, x, table, factors, step, start)
        _rest(how, TALL, like, to, there, done, n, x, table, factors, step, start)
        row += TALL
    while row + FEW <= rows:
        to, there = _from_row(how, out, out_stride, row)
        factors, start = matrix.ctypes.data + row * size, bias + row * size
        _slender(how, FEW, WIDE_OF_FEW, like, to, there, n, x, table, factors, step, start)
        row += FEW
    if row < rows:
        to, there = _from_row(how, out, out_stride, row)
        factors, start = matrix.ctypes.data + row * size, bias + row * size
        _slender(how, 1, WIDE_OF_ONE, like, to, there, n, x, table, factors, step, start)


@compiled()
def combine_rows(like: Array, out: int, out_stride: int, n: int, x: int, table: Array, matrix: Array) -> None:
    """Write the products of matrix (K, rows) with rows of n elements of x, found by a table of K offsets."""
    _strips(SET, like, out, out_stride, n, x, table, matrix, 0)


@compiled()
def add_rows(like: Array, out: int, out_stride: int, n: int, x: int, table: Array, matrix: Array) -> None:
    """As `combine_rows`, added to what is there."""
    _strips(ADD, like, out, out_stride, n, x, table, matrix, 0)


@compiled()
def spread_rows(like: Array, out: int, places: Array, n: int, x: int, table: Array, matrix: Array) -> None:
    """As `add_rows`, to rows that lie `places` from out on, and may overlap."""
    _strips(SPREAD, like, out, places.ctypes.data, n, x, table, matrix, 0)


@compiled()
def elu_rows(like: Array, out: int, out_stride: int, n: int, x: int, table: Array, matrix: Array, bias: Array) -> None:
    """As `combine_rows`, the ELU of the sum of that and a bias (rows,)."""
    _strips(ELU, like, out, out_stride, n, x, table, matrix, bias.ctypes.data)


@compiled()
def sum_runs(out: Array, rows: Array, terms: Array, factors: Array) -> None:
    """Write to row r of out the sum of what lies `terms` from rows[r] on, as often as factors (terms, 1) say."""
    for r in range(rows.size):
        combine_rows(out, out[r].ctypes.data, 0, out.shape[1], rows[r], terms, factors)


@compiled(inline="always")
def _across(
    rows: int, wide: int, like: Array, out: int, out_stride: int, out_line: int, n: int, x: int, starts: Array,
    table: Array, matrix: int, step: int, none: tuple[int, ...],
) -> None:  # fmt: skip
    """Write `rows` rows of sums of all lines; vectors that would leave a tile of one line unfilled share one.

    The last of a line begins earlier and writes some sums again, as does the last of all until its tile is filled.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    sources, targets, met = none, none, 0
    for line in range(starts.size):
        source, target = x + starts[line] * size, out + line * out_line
        done = _tiles(SET, rows, wide, like, target, out_stride, 0, n, source, table, matrix, step, 0)
        for i in range(done, n, lanes):
            at = min(i, n - lanes) * size
            sources, targets = sources[1:] + (source + at,), targets[1:] + (target + at,)  # noqa: RUF005
            met += 1
            if met == wide:
                combine(
                    like, rows, wide, SET, targets, out_stride, sources, table.ctypes.data, table.size, matrix, step, 0
                )
                met = 0
    if met:
        for _ in range(met, wide):
            sources, targets = sources[1:] + sources[-1:], targets[1:] + targets[-1:]
        combine(like, rows, wide, SET, targets, out_stride, sources, table.ctypes.data, table.size, matrix, step, 0)


@compiled()
def combine_lines(
    like: Array, out: int, out_stride: int, out_line: int, n: int, x: int, starts: Array, table: Array, matrix: Array
) -> None:
    """As `combine_rows` for lines of n, a vector or more, which begin at `starts` elements in x."""
    rows, row, size, step = matrix.shape[1], 0, like.itemsize, matrix.strides[0]
    while row + TALL <= rows:
        to, factors = out + row * out_stride, matrix.ctypes.data + row * size
        _across(TALL, WIDE_OF_TALL, like, to, out_stride, out_line, n, x, starts, table, factors, step, NONE_OF_TALL)
        row += TALL
    while row + FEW <= rows:
        to, factors = out + row * out_stride, matrix.ctypes.data + row * size
        _across(FEW, WIDE_OF_FEW, like, to, out_stride, out_line, n, x, starts, table, factors, step, NONE_OF_FEW)
        row += FEW
    if row < rows:
        to, factors = out + row * out_stride, matrix.ctypes.data + row * size
        _across(1, WIDE_OF_ONE, like, to, out_stride, out_line, n, x, starts, table, factors, step, NONE_OF_ONE)


@compiled(inline="always")
def combine_some_lines(
    like: Array, out: int, out_stride: int, n: int, x: int, starts: Array, table: Array, matrix: Array
) -> None:  # fmt: skip
    """Write the products of a matrix with lines of n, one after the other."""
    if starts.size > 1:
        combine_lines(like, out, out_stride, n * like.itemsize, n, x, starts, table, matrix)
    else:
        combine_rows(like, out, out_stride, n, x + starts[0] * like.itemsize, table, matrix)


@compiled(inline="always")
def lines_at_once(like: Array, n: int) -> int:
    """How many lines of n are worked on together."""
    lanes = VECTOR_BYTES // like.itemsize
    return BLOCK if lanes <= n < BLOCK * lanes else 1


@compiled(inline="always")
def _products(
    deep: int, broad: int, total: Array, k: int, r: int, x: int, table: Array, y: int, y_stride: int, y_line: int,
    n: int, starts: Array,
) -> None:  # fmt: skip
    """Add the inner products of `deep` rows of x with `broad` rows of y, lines of n each, to total (K, rows)."""
    to, offsets, others = total[k, r:].ctypes.data, table[k:].ctypes.data, y + r * y_stride
    lines = starts.ctypes.data
    step = total.strides[0]
    inner_products(total, deep, broad, to, step, x, offsets, others, y_stride, y_line, n, lines, starts.size)


@compiled(inline="always")
def _band(
    deep: int, total: Array, k: int, x: int, table: Array, y: int, y_stride: int, y_line: int, n: int, starts: Array
) -> None:
    """Add the inner products of `deep` rows of x with all rows of y."""
    r = 0
    while r + BROAD <= total.shape[1]:
        _products(deep, BROAD, total, k, r, x, table, y, y_stride, y_line, n, starts)
        r += BROAD
    while r + LESS_BROAD <= total.shape[1]:
        _products(deep, LESS_BROAD, total, k, r, x, table, y, y_stride, y_line, n, starts)
        r += LESS_BROAD
    while r < total.shape[1]:
        _products(deep, 1, total, k, r, x, table, y, y_stride, y_line, n, starts)
        r += 1


@compiled()
def correlate_rows(
    total: Array, x: int, table: Array, y: int, y_stride: int, y_line: int, n: int, starts: Array
) -> None:
    """Add the inner products of rows of x, by a table, with rows of y to total (K, rows), or (K, rows, lanes).

    Rows are lines of n, a vector or more, which begin at `starts` elements in x, and `y_line` bytes apart in y.
    """
    k = 0
    while k + DEEP <= total.shape[0]:
        _band(DEEP, total, k, x, table, y, y_stride, y_line, n, starts)
        k += DEEP
    while k + LESS_DEEP <= total.shape[0]:
        _band(LESS_DEEP, total, k, x, table, y, y_stride, y_line, n, starts)
        k += LESS_DEEP
    while k < total.shape[0]:
        _band(1, total, k, x, table, y, y_stride, y_line, n, starts)
        k += 1


@compiled(inline="always")
def block_bounds(c: int, n: int, size: int, lanes: int) -> tuple[int, int]:
    """Begin and end of part c of range(n), of two vectors or more; the last has a whole one, if there are so many."""
    begin, end = c * size, (c + 1) * size
    return max(0, min(begin, n - lanes)), n if end >= n else min(end, max(0, n - lanes))


@compiled()
def add_outer_products(like: Array, total: Array, x: int, x_step: int, n: int, turned: Array) -> None:
    """Add the inner products of rows of x, n elements each, with columns of `turned` to total (rows of x, columns).

    What it is multiplied by has been transposed, so that sums need not cross lanes.
    """
    lanes, size = VECTOR_BYTES // like.itemsize, like.itemsize
    rows, columns = total.shape
    for k in range(0, columns, lanes):
        row, source = 0, turned.ctypes.data + k * size
        while row < rows:
            to, terms = total[row, k:].ctypes.data, x + row * x_step
            if row + 16 <= rows:
                outer_products(like, 16, to, total.strides[0], terms, x_step, source, turned.strides[0], n)
                row += 16
            elif row + 4 <= rows:
                outer_products(like, 4, to, total.strides[0], terms, x_step, source, turned.strides[0], n)
                row += 4
            else:
                outer_products(like, 1, to, total.strides[0], terms, x_step, source, turned.strides[0], n)
                row += 1


@compiled()
def add_and_clear(part: Array, total: Array) -> None:
    """Add a part to a total in double precision, and begin it anew."""
    source, target = part.reshape(-1), total.reshape(-1)
    for i in range(source.size):
        target[i] += source[i]
        source[i] = 0
