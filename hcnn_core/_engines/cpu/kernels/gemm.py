"""Micro-kernels of matrix products whose terms lie where an offset table says (indirect GEMM).

Results are made in tiles that registers hold: some rows by some vectors.
"""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import Factors, InnerOperands, NDArray
from hcnn_core._engines.cpu.kernels.vectors import INT64, REGISTERS, VECTOR_BYTES, Vectors, address, load_offset

# Rows and vectors of a tile. Its sums, the vectors of one term and one factor fill the registers.
TILE_ROWS, TILE_VECTORS = (8, 3) if REGISTERS == 32 else (4, 3)

# The same where fewer rows are left.
FEW_ROWS, FEW_ROWS_VECTORS = (2, 8) if REGISTERS == 32 else (2, 4)

# The same where one row is left.
ONE_ROW_VECTORS = 8

# Tuples that the addresses of a tile's vectors are collected in.
NO_TILE, NO_FEW_ROWS, NO_ONE_ROW = ((0,) * count for count in (TILE_VECTORS, FEW_ROWS_VECTORS, ONE_ROW_VECTORS))

# Rows of x and of y in a tile of inner products, and the same where fewer are left.
INNER_X, FEW_INNER_X = (6, 3) if REGISTERS == 32 else (3, 2)
INNER_Y, FEW_INNER_Y = 4, 3

SET, ELU, ADD, SCATTER_ADD = range(4)
"""Modes of a product: write the sums; write their ELU; add them to the output; add them to rows that a table
lists."""

LINES_PER_BLOCK = 24
"""Lines that share tiles, where one line has fewer vectors than this. A multiple of the tiles' vectors, so that a block
of full lines leaves no tile unfilled."""

ORIGIN = np.zeros(1, np.int64)
"""The table of line starts for a single line."""

MAX_TERMS = 1 << 12
"""Terms that are summed in the arrays' dtype; longer sums continue in float64, since float32 would lose digits."""


@intrinsic(prefer_literal=True)
def gemm_tile(
    typing: Any, how: Any, rows: Any, vectors: Any, out: Any, out_stride: Any, x: Any, factors: Any
) -> Any:  # fmt: skip
    """Micro-kernel: out[r, i] from sum over k of matrix[k, r] * x[offsets[k] + i], r < rows, i < vectors * lanes.

    `how` is SET, ELU (of the sum and bias[r]), ADD, or SCATTER_ADD, where `out_stride` is the address of a table of
    row offsets and rows may overlap. `vectors` is 0 for a single column. `out` and `x` are the address of adjacent
    vectors, or a tuple with the address of each vector.
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in (how, rows, vectors)):
        return None
    out, x = (place if isinstance(place, types.UniTuple) else types.int64 for place in (out, x))
    signature = types.void(how, rows, vectors, out, types.int64, x, factors)
    dtype = factors.types[0].dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, factors = arguments[3:]
        _, table, count, matrix, matrix_stride, bias = cgutils.unpack_tuple(builder, factors)
        width = max(1, vectors.literal_value)
        v = Vectors(builder, dtype, 8 * VECTOR_BYTES // dtype.bitwidth if vectors.literal_value else 1)

        def places(where: Any) -> list[Any]:
            if where.type == INT64:
                return [builder.add(where, INT64(i * v.lanes * v.size)) for i in range(width)]
            return cgutils.unpack_tuple(builder, where)

        sums = [v.sums(width) for _ in range(rows.literal_value)]
        if how.literal_value == SCATTER_ADD:
            steps = [load_offset(builder, out_stride, INT64(r)) for r in range(rows.literal_value)]
        else:
            steps = [builder.mul(INT64(r), out_stride) for r in range(rows.literal_value)]
        targets = [[builder.add(place, step) for place in places(out)] for step in steps]
        _begin_sums(builder, v, how.literal_value, sums, targets, bias)
        sources = places(x)
        with cgutils.for_range(builder, count) as loop:
            offset = load_offset(builder, table, loop.index)
            terms = [v.load(builder.add(source, offset)) for source in sources]
            of_term = builder.add(matrix, builder.mul(loop.index, matrix_stride))
            for r, row in enumerate(sums):
                factor = v.repeat(builder.add(of_term, INT64(r * v.size)))
                for variable, term in zip(row, terms, strict=True):
                    v.accumulate(variable, factor, term)
        for row_of_targets, row in zip(targets, sums, strict=True):
            for target, variable in zip(row_of_targets, row, strict=True):
                total = builder.load(variable)
                if how.literal_value == ELU:
                    total = v.elu(total)
                elif how.literal_value == SCATTER_ADD:  # only now: the row before may have written the same elements
                    total = builder.fadd(total, v.load(target))
                builder.store(total, v.at(target, 0), align=v.size)
        return context.get_dummy_value()

    return signature, generate


def _begin_sums(builder: Any, v: Vectors, how: int, sums: Any, targets: Any, bias: Any) -> None:
    """Write the initial sums: the present values, or the bias of each row."""
    for r, row in enumerate(sums):
        for target, variable in zip(targets[r], row, strict=True):
            if how == ADD:
                builder.store(v.load(target), variable)
            elif how == ELU:
                builder.store(v.repeat(builder.add(bias, INT64(r * v.size))), variable)


@intrinsic(prefer_literal=True)
def outer_products(
    typing: Any, like: Any, rows: Any, total: Any, total_stride: Any, x: Any, x_stride: Any, y: Any, y_stride: Any,
    count: Any,
) -> Any:  # fmt: skip
    """Micro-kernel: add sum over i < count of x[r, i] * y[i, :lanes] to total[r, :lanes], r < rows."""
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
    typing: Any, x_rows: Any, y_rows: Any, like: Any, total: Any, total_stride: Any, offsets: Any, y: Any, operands: Any
) -> Any:
    """Micro-kernel: add to total[k, r] the inner product of row k of x with row r of y, k < x_rows, r < y_rows.

    That is sum over l < lines, i < n of x[starts[l] + offsets[k] + i] * y[r, l, i]. `like` is the array of totals;
    where it has a third axis, that of lanes, the lanes are not summed.
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in (x_rows, y_rows)):
        return None
    signature = types.void(x_rows, y_rows, like, *(types.int64,) * 4, operands)
    by_lanes = like.ndim == 3

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, total_stride, offsets, y, operands = arguments[3:]
        x, y_step, y_line, n, starts, lines = cgutils.unpack_tuple(builder, operands)
        x_count, y_count = x_rows.literal_value, y_rows.literal_value
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        sums = [v.sums(y_count) for _ in range(x_count)]
        targets = [builder.add(total, builder.mul(INT64(k), total_stride)) for k in range(x_count)]
        if by_lanes:
            for target, row in zip(targets, sums, strict=True):
                for r, variable in enumerate(row):
                    builder.store(v.load(target, r), variable)
        rows = [builder.add(x, load_offset(builder, offsets, INT64(k))) for k in range(x_count)]
        columns = [builder.add(y, builder.mul(INT64(r), y_step)) for r in range(y_count)]
        count, rest = builder.sdiv(n, INT64(v.lanes)), builder.srem(n, INT64(v.lanes))
        # the last vector begins earlier: these lanes of it were summed with the one before
        done, zero = v.first_lanes(builder.sub(INT64(v.lanes), rest)), v.constant(0)

        def add(sources: list[Any], others: list[Any], position: Any, take: Callable[[Any], Any]) -> None:
            factors = [take(v.load(builder.add(other, position))) for other in others]
            for row, source in zip(sums, sources, strict=True):
                term = take(v.load(builder.add(source, position)))
                for variable, factor in zip(row, factors, strict=True):
                    v.accumulate(variable, term, factor)

        with cgutils.for_range(builder, lines) as line:
            start = builder.mul(load_offset(builder, starts, line.index), INT64(v.size))
            begin = builder.mul(line.index, y_line)
            sources, others = [builder.add(row, start) for row in rows], [builder.add(c, begin) for c in columns]
            with cgutils.for_range(builder, count) as loop:
                add(sources, others, builder.mul(loop.index, INT64(VECTOR_BYTES)), lambda vector: vector)
            with builder.if_then(cgutils.is_not_null(builder, rest), likely=False):
                last = builder.mul(builder.sub(n, INT64(v.lanes)), INT64(v.size))
                add(sources, others, last, lambda vector: builder.select(done, zero, vector))
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
def _full_tiles(
    how: int, rows: int, vectors: int, out: int, out_stride: int, begin: int, n: int, x: int, factors: Factors
) -> int:
    """Make `rows` rows of results in as many full tiles as fit between columns begin and n; return where they end."""
    size, lanes = factors.like.itemsize, VECTOR_BYTES // factors.like.itemsize
    end = n - (n - begin) % (lanes * vectors)
    for i in range(begin, end, lanes * vectors):
        gemm_tile(how, rows, vectors, out + i * size, out_stride, x + i * size, factors)
    return end


@compiled(inline="always")
def _remainder(
    how: int, rows: int, out: int, out_stride: int, begin: int, n: int, x: int, factors: Factors
) -> None:  # fmt: skip
    """Make the columns that tiles left. The last vector begins earlier and writes some results again.

    Results that are added must not be added twice: they are made column by column.
    """
    size, lanes = factors.like.itemsize, VECTOR_BYTES // factors.like.itemsize
    end = n if how < ADD and n >= lanes else n - n % lanes
    for i in range(begin, end, lanes):
        at = min(i, n - lanes) * size
        gemm_tile(how, rows, 1, out + at, out_stride, x + at, factors)
    for i in range(end, n):
        gemm_tile(how, rows, 0, out + i * size, out_stride, x + i * size, factors)


@compiled(inline="always")
def _few_rows(
    how: int, rows: int, vectors: int, out: int, out_stride: int, n: int, x: int, factors: Factors
) -> None:  # fmt: skip
    """Make a few rows of n results in tiles of several vectors: a single sum would wait for each multiply-add."""
    done = _full_tiles(how, rows, vectors, out, out_stride, 0, n, x, factors)
    done = _full_tiles(how, rows, 4, out, out_stride, done, n, x, factors)
    done = _full_tiles(how, rows, 2, out, out_stride, done, n, x, factors)
    _remainder(how, rows, out, out_stride, done, n, x, factors)


@compiled(inline="always")
def _target(how: int, out: int, out_stride: int, row: int) -> tuple[int, int]:
    """Return the `out` and `out_stride` of `gemm_tile` from some row on."""
    return (out, out_stride + row * 8) if how == SCATTER_ADD else (out + row * out_stride, out_stride)


@compiled(inline="always")
def _factors(table: NDArray, matrix: NDArray, row: int, bias: int) -> Factors:
    """Factors of the rows of results from some row on."""
    at = row * matrix.itemsize
    return Factors(matrix, address(table), table.size, address(matrix) + at, matrix.strides[0], bias + at)


@compiled(inline="always")
def _gemm(how: int, out: int, out_stride: int, n: int, x: int, table: NDArray, matrix: NDArray, bias: int) -> None:
    """Make all rows of n results: tiles of many rows first, then of few."""
    rows, row = matrix.shape[1], 0
    while row + TILE_ROWS <= rows:
        (to, stride), factors = _target(how, out, out_stride, row), _factors(table, matrix, row, bias)
        done = _full_tiles(how, TILE_ROWS, TILE_VECTORS, to, stride, 0, n, x, factors)
        _remainder(how, TILE_ROWS, to, stride, done, n, x, factors)
        row += TILE_ROWS
    while row + FEW_ROWS <= rows:
        (to, stride), factors = _target(how, out, out_stride, row), _factors(table, matrix, row, bias)
        _few_rows(how, FEW_ROWS, FEW_ROWS_VECTORS, to, stride, n, x, factors)
        row += FEW_ROWS
    if row < rows:
        (to, stride), factors = _target(how, out, out_stride, row), _factors(table, matrix, row, bias)
        _few_rows(how, 1, ONE_ROW_VECTORS, to, stride, n, x, factors)


@compiled()
def gemm_rows(out: int, out_stride: int, n: int, x: int, table: NDArray, matrix: NDArray) -> None:
    """Write matrix (K, rows) transposed @ rows of x (K, n), which begin `table` (K,) bytes from x, to out (rows, n)."""
    _gemm(SET, out, out_stride, n, x, table, matrix, 0)


@compiled()
def add_gemm_rows(out: int, out_stride: int, n: int, x: int, table: NDArray, matrix: NDArray) -> None:
    """As `gemm_rows`, added to the output."""
    _gemm(ADD, out, out_stride, n, x, table, matrix, 0)


@compiled()
def scatter_add_rows(out: int, places: NDArray, n: int, x: int, table: NDArray, matrix: NDArray) -> None:
    """As `add_gemm_rows`, to rows that begin `places` (rows,) bytes from out and may overlap."""
    _gemm(SCATTER_ADD, out, address(places), n, x, table, matrix, 0)


@compiled()
def gemm_elu_rows(
    out: int, out_stride: int, n: int, x: int, table: NDArray, matrix: NDArray, bias: NDArray
) -> None:  # fmt: skip
    """As `gemm_rows`, but write the ELU of the product plus a bias (rows,)."""
    _gemm(ELU, out, out_stride, n, x, table, matrix, address(bias))


@compiled(inline="always")
def _gemm_lines(
    rows: int, vectors: int, out: int, out_stride: int, out_line: int, n: int, x: int, starts: NDArray,
    factors: Factors, none: tuple[int, ...],
) -> None:  # fmt: skip
    """Make `rows` rows of results of all lines. Vectors that do not fill a tile of one line share one with other lines.

    The last vector of a line begins earlier and writes some results again. The last tile repeats its last vector until
    it is full.
    """
    size, lanes = factors.like.itemsize, VECTOR_BYTES // factors.like.itemsize
    sources, targets, collected = none, none, 0
    for line in range(starts.size):
        source, target = x + starts[line] * size, out + line * out_line
        done = _full_tiles(SET, rows, vectors, target, out_stride, 0, n, source, factors)
        for i in range(done, n, lanes):
            at = min(i, n - lanes) * size
            sources, targets = sources[1:] + (source + at,), targets[1:] + (target + at,)  # noqa: RUF005
            collected += 1
            if collected == vectors:
                gemm_tile(SET, rows, vectors, targets, out_stride, sources, factors)
                collected = 0
    if collected:
        for _ in range(collected, vectors):
            sources, targets = sources[1:] + sources[-1:], targets[1:] + targets[-1:]
        gemm_tile(SET, rows, vectors, targets, out_stride, sources, factors)


@compiled()
def gemm_lines(
    out: int, out_stride: int, out_line: int, n: int, x: int, starts: NDArray, table: NDArray,
    matrix: NDArray,
) -> None:  # fmt: skip
    """As `gemm_rows` for lines of n positions, at least a vector, that begin `starts` elements from x."""
    rows, row = matrix.shape[1], 0
    while row + TILE_ROWS <= rows:
        to, factors = out + row * out_stride, _factors(table, matrix, row, 0)
        _gemm_lines(TILE_ROWS, TILE_VECTORS, to, out_stride, out_line, n, x, starts, factors, NO_TILE)
        row += TILE_ROWS
    while row + FEW_ROWS <= rows:
        to, factors = out + row * out_stride, _factors(table, matrix, row, 0)
        _gemm_lines(FEW_ROWS, FEW_ROWS_VECTORS, to, out_stride, out_line, n, x, starts, factors, NO_FEW_ROWS)
        row += FEW_ROWS
    if row < rows:
        to, factors = out + row * out_stride, _factors(table, matrix, row, 0)
        _gemm_lines(1, ONE_ROW_VECTORS, to, out_stride, out_line, n, x, starts, factors, NO_ONE_ROW)


@compiled(inline="always")
def gemm_block(
    out: int, out_stride: int, n: int, x: int, starts: NDArray, table: NDArray, matrix: NDArray
) -> None:  # fmt: skip
    """As `gemm_lines`, for a single line too; results of one line follow those of the one before."""
    if starts.size > 1:
        gemm_lines(out, out_stride, n * matrix.itemsize, n, x, starts, table, matrix)
    else:
        gemm_rows(out, out_stride, n, x + starts[0] * matrix.itemsize, table, matrix)


@compiled(inline="always")
def lines_at_once(like: NDArray, n: int) -> int:
    """How many lines of n positions are multiplied together."""
    lanes = VECTOR_BYTES // like.itemsize
    return LINES_PER_BLOCK if lanes <= n < LINES_PER_BLOCK * lanes else 1


@compiled(inline="always")
def _correlate_tile(
    x_rows: int, y_rows: int, total: NDArray, k: int, r: int, offsets: int, y: int, operands: InnerOperands
) -> None:  # fmt: skip
    """Add the inner products of `x_rows` rows of x with `y_rows` rows of y to total from [k, r] on."""
    to, others = address(total[k, r:]), y + r * operands.y_step
    inner_products(x_rows, y_rows, total, to, total.strides[0], offsets + k * 8, others, operands)


@compiled(inline="always")
def _correlate_rows(
    x_rows: int, total: NDArray, k: int, offsets: int, y: int, operands: InnerOperands
) -> None:  # fmt: skip
    """Add the inner products of `x_rows` rows of x, from row k on, with all rows of y."""
    r = 0
    while r + INNER_Y <= total.shape[1]:
        _correlate_tile(x_rows, INNER_Y, total, k, r, offsets, y, operands)
        r += INNER_Y
    while r + FEW_INNER_Y <= total.shape[1]:
        _correlate_tile(x_rows, FEW_INNER_Y, total, k, r, offsets, y, operands)
        r += FEW_INNER_Y
    while r < total.shape[1]:
        _correlate_tile(x_rows, 1, total, k, r, offsets, y, operands)
        r += 1


@compiled()
def correlate_rows(
    total: NDArray, x: int, table: NDArray, y: int, y_step: int, y_line: int, n: int, starts: NDArray
) -> None:
    """Add the inner products of rows of x, by an offset table (K,), with rows of y to total (K, rows).

    Rows consist of lines of n elements, at least a vector. They begin `starts` elements from x, and in y `y_line` bytes
    apart. A total (K, rows, lanes) takes the sums of each lane.
    """
    operands, offsets = InnerOperands(x, y_step, y_line, n, address(starts), starts.size), address(table)
    k = 0
    while k + INNER_X <= total.shape[0]:
        _correlate_rows(INNER_X, total, k, offsets, y, operands)
        k += INNER_X
    while k + FEW_INNER_X <= total.shape[0]:
        _correlate_rows(FEW_INNER_X, total, k, offsets, y, operands)
        k += FEW_INNER_X
    while k < total.shape[0]:
        _correlate_rows(1, total, k, offsets, y, operands)
        k += 1


@compiled(inline="always")
def block_bounds(index: int, n: int, size: int, lanes: int) -> tuple[int, int]:
    """Begin and end of a block of range(n), of `size`, at least two vectors.

    The last block has a whole vector if n has: the block before it ends earlier where need be.
    """
    begin, end = index * size, (index + 1) * size
    return max(0, min(begin, n - lanes)), n if end >= n else min(end, max(0, n - lanes))


@compiled()
def add_outer_products(total: NDArray, x: int, x_step: int, n: int, y: NDArray) -> None:
    """Add x @ y to total (rows, columns), for x (rows, n), rows `x_step` bytes apart, and y (n, columns)."""
    lanes, size = VECTOR_BYTES // total.itemsize, total.itemsize
    rows, columns = total.shape
    for k in range(0, columns, lanes):
        row, source = 0, address(y) + k * size
        while row < rows:
            to, terms = address(total[row, k:]), x + row * x_step
            if row + 16 <= rows:
                outer_products(total, 16, to, total.strides[0], terms, x_step, source, y.strides[0], n)
                row += 16
            elif row + 4 <= rows:
                outer_products(total, 4, to, total.strides[0], terms, x_step, source, y.strides[0], n)
                row += 4
            else:
                outer_products(total, 1, to, total.strides[0], terms, x_step, source, y.strides[0], n)
                row += 1


@compiled()
def add_and_clear(part: NDArray, total: NDArray) -> None:
    """Add `part` to a total in float64, and set it to zero."""
    source, target = part.reshape(-1), total.reshape(-1)
    for i in range(source.size):
        target[i] += source[i]
        source[i] = 0
