"""All that is compiled, in one file: Numba keeps what it compiled until this file changes, whatever it imports.

First the innermost loops of matrix products, written as LLVM vectors so that their sums stay in registers, which
compilers do only if told so: the micro-kernels of a BLAS, except that rows of an operand lie wherever a table of
offsets says. Taps of a convolution are rows of one array, read where they lie. Addresses, strides and offsets are in
bytes. Then products with taps, transforms, patches and ELU made of them.
"""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy import empty

Array = np.ndarray[Any, Any]

_features = llvmlite.binding.get_host_cpu_features()
VECTOR_BYTES = 64 if _features.get("avx512f") else 32 if _features.get("avx2") else 16
_registers = 16 if "avx" in _features and not _features.get("avx512f") else 32

# of a tile of sums: its rows, and its columns in vectors; they, a row's vectors and a factor fill the registers
TALL, WIDE_OF_TALL = (8, 3) if _registers == 32 else (4, 3)
FEW, WIDE_OF_FEW = (2, 8) if _registers == 32 else (2, 4)
WIDE_OF_ONE = 8
# of a tile of inner products, rows of either operand
DEEP, LESS_DEEP = (6, 3) if _registers == 32 else (3, 2)
BROAD, LESS_BROAD = 4, 3

HALF = 1 << 15
"""Elements between two matrices, held in cache."""

_int32, _int64 = ir.IntType(32), ir.IntType(64)


class _Vectors:
    """Vectors of one dtype in a function under construction."""

    def __init__(self, builder: Any, number: Any, lanes: int) -> None:
        self.builder = builder
        self.size = number.bitwidth // 8
        self.lanes = lanes
        self.scalar = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.scalar, self.lanes)
        name = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        self.fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.type, [self.type] * 3), name)

    def pointer(self, address: Any, type_: Any) -> Any:
        return self.builder.inttoptr(address, type_.as_pointer())

    def at(self, address: Any, vector: int) -> Any:
        return self.pointer(self.builder.add(address, _int64(vector * self.lanes * self.size)), self.type)

    def load(self, address: Any, vector: int = 0) -> Any:
        return self.builder.load(self.at(address, vector), align=self.size)

    def constant(self, number: float) -> Any:
        return ir.Constant(self.type, [ir.Constant(self.scalar, float(number))] * self.lanes)

    def repeat(self, address: Any) -> Any:
        """One number in all lanes."""
        undefined = ir.Constant(self.type, ir.Undefined)
        number = self.builder.load(self.pointer(address, self.scalar))
        first = self.builder.insert_element(undefined, number, _int32(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_int32, self.lanes), None))

    def sums(self, count: int) -> list[Any]:
        """Variables that begin at zero; none outlives its registers."""
        variables = [cgutils.alloca_once(self.builder, self.type) for _ in range(count)]
        for variable in variables:
            self.builder.store(ir.Constant(self.type, None), variable)
        return variables

    def accumulate(self, variable: Any, a: Any, b: Any) -> None:
        self.builder.store(self.builder.call(self.fma, [a, b, self.builder.load(variable)]), variable)

    def total(self, variable: Any) -> Any:
        """Sum of all lanes, by halves."""
        builder, vector, lanes = self.builder, self.builder.load(variable), self.lanes
        while lanes > 1:
            lanes //= 2
            halves = [
                builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_int32, lanes), list(half)))
                for half in (range(lanes), range(lanes, 2 * lanes))
            ]
            vector = builder.fadd(*halves)
        return builder.extract_element(vector, _int32(0))


def _offset(builder: Any, table: Any, index: Any) -> Any:
    return builder.load(
        builder.inttoptr(builder.add(table, builder.mul(index, _int64(8))), _int64.as_pointer()), align=8
    )


@intrinsic(prefer_literal=True)
def combine(
    typing: Any, like: Any, rows: Any, vectors: Any, out: Any, out_stride: Any, x: Any, table: Any, count: Any,
    matrix: Any, matrix_stride: Any,
) -> Any:  # fmt: skip
    """Write sum over k < count of matrix[k, r] * x[table[k] + i] to out[r, i], r < rows, i < vectors * lanes.

    `like` is any array of the dtype of all; `vectors` is 0 for a single column.
    """
    if not isinstance(rows, types.IntegerLiteral) or not isinstance(vectors, types.IntegerLiteral):
        return None
    signature = types.void(like, rows, vectors, *(types.int64,) * 7)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, table, count, matrix, matrix_stride = arguments[3:]
        width = max(1, vectors.literal_value)
        v = _Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth if vectors.literal_value else 1)
        sums = [v.sums(width) for _ in range(rows.literal_value)]
        with cgutils.for_range(builder, count) as loop:
            source = builder.add(x, _offset(builder, table, loop.index))
            terms = [v.load(source, i) for i in range(width)]
            factors = builder.add(matrix, builder.mul(loop.index, matrix_stride))
            for r, row in enumerate(sums):
                factor = v.repeat(builder.add(factors, _int64(r * v.size)))
                for variable, term in zip(row, terms, strict=True):
                    v.accumulate(variable, factor, term)
        for r, row in enumerate(sums):
            target = builder.add(out, builder.mul(_int64(r), out_stride))
            for i, variable in enumerate(row):
                builder.store(builder.load(variable), v.at(target, i), align=v.size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def inner_products(
    typing: Any, like: Any, deep: Any, broad: Any, total: Any, total_stride: Any, x: Any, table: Any,
    y: Any, y_stride: Any, count: Any,
) -> Any:  # fmt: skip
    """Add sum over i < count * lanes of x[table[k] + i] * y[r, i] to total[k, r], k < deep, r < broad."""
    if not isinstance(deep, types.IntegerLiteral) or not isinstance(broad, types.IntegerLiteral):
        return None
    signature = types.void(like, deep, broad, *(types.int64,) * 7)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, total_stride, x, table, y, y_stride, count = arguments[3:]
        v = _Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        sums = [v.sums(broad.literal_value) for _ in range(deep.literal_value)]
        rows = [builder.add(x, _offset(builder, table, _int64(k))) for k in range(deep.literal_value)]
        columns = [builder.add(y, builder.mul(_int64(r), y_stride)) for r in range(broad.literal_value)]
        with cgutils.for_range(builder, count) as loop:
            position = builder.mul(loop.index, _int64(VECTOR_BYTES))
            factors = [v.load(builder.add(column, position)) for column in columns]
            for row, source in zip(sums, rows, strict=True):
                term = v.load(builder.add(source, position))
                for variable, factor in zip(row, factors, strict=True):
                    v.accumulate(variable, term, factor)
        for k, row in enumerate(sums):
            target = builder.add(total, builder.mul(_int64(k), total_stride))
            for r, variable in enumerate(row):
                place = v.pointer(builder.add(target, _int64(r * v.size)), v.scalar)
                builder.store(builder.fadd(builder.load(place), v.total(variable)), place)
        return context.get_dummy_value()

    return signature, generate


# F(4, 3) of Winograd: 4 results of 3 taps by 6 products (arXiv:1509.09308), y = RESULTS [(FACTORS w) * (SAMPLES x)]
SAMPLES = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
FACTORS = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6,) * 3,
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)
RESULTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
MAPS = (SAMPLES, RESULTS, tuple(zip(*RESULTS, strict=True)))
OF_SAMPLES, OF_RESULTS, OF_COTANGENTS = range(3)


@intrinsic(prefer_literal=True)
def linear(typing: Any, like: Any, which: Any, out: Any, out_step: Any, x: Any, x_step: Any) -> Any:
    """Write a vector for each row of a matrix of MAPS: the sum over j of entry j times that at x + j * x_step."""
    if not isinstance(which, types.IntegerLiteral):
        return None
    signature = types.void(like, which, *(types.int64,) * 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_step, x, x_step = arguments[2:]
        v = _Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        matrix = MAPS[which.literal_value]
        terms = [v.load(builder.add(x, builder.mul(_int64(j), x_step))) for j in range(len(matrix[0]))]
        for i, row in enumerate(matrix):
            total = None
            for entry, term in zip(row, terms, strict=True):
                if entry and total is None:
                    total = term if entry == 1 else builder.fmul(term, v.constant(entry))
                elif entry:
                    total = builder.call(v.fma, [term, v.constant(entry), total])
            builder.store(total, v.at(builder.add(out, builder.mul(_int64(i), out_step)), 0), align=v.size)
        return context.get_dummy_value()

    return signature, generate


_options: dict[str, Any] = {"nogil": True, "cache": True}
_contracted: dict[str, Any] = {**_options, "fastmath": {"contract"}}
_reordered: dict[str, Any] = {**_options, "fastmath": {"contract", "reassoc"}}


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
    if n < lanes:
        for i in range(n):
            at = i * like.itemsize
            combine(like, rows, 0, out + at, out_stride, x + at, table.ctypes.data, table.size, matrix, step)
        return
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
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """Write to out (entries, rows, positions), from `first` on, the products of matrices with the taps of x.

    Line by line of n positions: the taps of line l begin at starts[l] + table[k], k < K. x is (entries, columns, source
    lines, elements), `padded` room for one extended entry; matrices are (entries or 1, K, rows). With a bias (rows,),
    the ELU of their sum is written.
    """
    taken = padded.reshape(-1)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for line in range(starts.size):
            begin = first + line * n
            target, source = out[entry, 0, begin:].ctypes.data, taken[starts[line] :].ctypes.data
            combine_rows(x, target, out.strides[1], n, source, table, matrix)
            for row in range(bias.size):
                _elu_in_place(out[entry, row, begin : begin + n], bias[row])


@numba.njit(inline="always", **_options)
def _map_tiles(
    which: int, like: Array, count: int, inner: int, out: int, out_tile: int, out_step: int, x: int, x_tile: int,
    x_step: int,
) -> None:  # fmt: skip
    """Apply one of MAPS to `count` tiles, `inner` elements at once; tiles and rows of either side are so far apart."""
    lanes = VECTOR_BYTES // like.itemsize
    for tile in range(count):
        for i in range(0, inner, lanes):
            at = min(i, inner - lanes) * like.itemsize
            linear(like, which, out + tile * out_tile + at, out_step, x + tile * x_tile + at, x_step)


@numba.njit(**_options)
def _tiles_of_samples(tiles: Array, padded: Array, inner: int) -> None:
    """Write SAMPLES of 6 samples each, 4 apart, of padded (columns, lines, elements) to tiles (6, .., lines, n)."""
    step = inner * padded.itemsize
    count = padded.shape[2] // (4 * inner) - 1
    for column in range(padded.shape[0]):
        for line in range(padded.shape[1]):
            source, to = padded[column, line].ctypes.data, tiles[0, column, line].ctypes.data
            _map_tiles(OF_SAMPLES, padded, count, inner, to, step, tiles.strides[0], source, 4 * step, step)
            tiles[:, column, line, count * inner :] = 0


@numba.njit(**_options)
def apply_tiled(
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """As `apply` for 3 taps along the last axis, 4 positions of it by 6 products.

    Matrices are (entries or 1, 6, K, rows); tables count lines, since taps along the last axis are no rows any more.
    """
    step, lanes = inner * x.itemsize, VECTOR_BYTES // x.itemsize
    run = n // 4
    tiles = empty((6, *padded.shape[:2], -(-run // lanes) * lanes), x.dtype)
    products = empty((6, out.shape[1], tiles.shape[3]), x.dtype)
    offsets = table * tiles.strides[2]
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        _tiles_of_samples(tiles, padded, inner)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for line in range(starts.size):
            for p in range(6):
                source = tiles[p].ctypes.data + starts[line] * tiles.strides[2]
                combine_rows(
                    x, products[p].ctypes.data, products.strides[1], tiles.shape[3], source, offsets, matrix[p]
                )
            begin = first + line * n
            for row in range(out.shape[1]):
                to, source = out[entry, row, begin:].ctypes.data, products[0, row].ctypes.data
                _map_tiles(OF_RESULTS, x, run // inner, inner, to, 4 * step, step, source, step, products.strides[0])
            for row in range(bias.size):
                _elu_in_place(out[entry, row, begin : begin + n], bias[row])


@numba.njit(**_options)
def factors_of_tiles(w: Array, out: Array) -> None:
    """Write FACTORS w for filters (entries, columns, groups, 3, rows) to out (entries, 6, columns * groups, rows)."""
    factors = np.array(FACTORS)
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                taps = w[entry, column, group]
                for p in range(6):
                    target = out[entry, p, column * groups + group]
                    for row in range(rows):
                        target[row] = (
                            factors[p, 0] * taps[0, row] + factors[p, 1] * taps[1, row] + factors[p, 2] * taps[2, row]
                        )


@numba.njit(**_options)
def factors_transpose(total: Array, w: Array) -> None:
    """Transpose of `factors_of_tiles`."""
    factors = np.array(FACTORS)
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                for tap in range(3):
                    for row in range(rows):
                        s = 0.0
                        for p in range(6):
                            s += factors[p, tap] * total[entry, p, column * groups + group, row]
                        w[entry, column, group, tap, row] = s


@numba.njit(**_options)
def correlate_tiled(
    g: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, total: Array,
) -> None:  # fmt: skip
    """As `correlate`, to total (entries, 6, K, rows); see `apply_tiled`."""
    step, lanes = inner * x.itemsize, VECTOR_BYTES // x.itemsize
    run = n // 4
    tiles = empty((6, *padded.shape[:2], -(-run // lanes) * lanes), x.dtype)
    cotangents = np.zeros((6, g.shape[1], tiles.shape[3]), x.dtype)
    offsets = table * tiles.strides[2]
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        _tiles_of_samples(tiles, padded, inner)
        for line in range(starts.size):
            begin = first + line * n
            for row in range(g.shape[1]):
                source, to = g[entry, row, begin:].ctypes.data, cotangents[0, row].ctypes.data
                _map_tiles(
                    OF_COTANGENTS, x, run // inner, inner, to, step, cotangents.strides[0], source, 4 * step, step
                )
            for p in range(6):
                source = tiles[p].ctypes.data + starts[line] * tiles.strides[2]
                correlate_rows(
                    total[entry, p], source, offsets, cotangents[p].ctypes.data, cotangents.strides[1], tiles.shape[3]
                )


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
    g: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, total: Array,
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


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """An address as `numba.carray` takes it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(**_options)
def transform(
    like: Array, channels: int, n: int,
    source: int, source_rows: Array, source_channel: int, target: int, target_row: int, target_channel: int,
    first: Array, first_from: Array, first_to: Array, first_step: int,
    second: Array, second_from: Array, second_to: Array, second_step: int,
    half_rows: int, bias: Array, ans: int, ans_row: int, ans_channel: int, sums: Array,
) -> None:  # fmt: skip
    """Multiply rows by two matrices in turn, a block of columns at a time, so that what lies between stays in cache.

    Each matrix (K, rows) serves several groups of rows: `.._from` (groups, K) says which it reads, `.._to` (groups,)
    and `.._step` where it writes. Row r of channel c begins at source + source_rows[r] + c * source_channel.

    With a bias (rows, channels) the ELU of the sum is written. With sums (rows, channels), the source is multiplied by
    the derivative of an ELU whose result is at `ans` first, and added up there.
    """
    size = like.itemsize
    block = max(VECTOR_BYTES // size, HALF // (half_rows + sums.shape[0]))
    blocks = -(-n // block)
    half = empty((half_rows, -(-n // blocks)), like.dtype)
    scaled = empty((sums.shape[0], half.shape[1]), like.dtype)
    first_tables, second_tables = empty(first_from.shape, np.int64), empty(second_from.shape, np.int64)
    first_starts, second_starts = empty(first_to.size, np.int64), empty(second_to.size, np.int64)
    for group in range(first_to.size):
        first_starts[group] = first_to[group] * half.strides[0]
        for k in range(first_from.shape[1]):
            row = first_from[group, k]
            first_tables[group, k] = row * scaled.strides[0] if sums.size else source_rows[row]
    for group in range(second_to.size):
        second_starts[group] = second_to[group] * target_row
        for k in range(second_from.shape[1]):
            second_tables[group, k] = second_from[group, k] * half.strides[0]
    for channel in range(channels):
        for b in range(blocks):
            begin, end = b * n // blocks, (b + 1) * n // blocks
            m, taken = end - begin, source + channel * source_channel + begin * size
            if sums.size:
                for row in range(sums.shape[0]):
                    g = numba.carray(_pointer(taken + source_rows[row]), m, like.dtype)
                    y = numba.carray(
                        _pointer(ans + row * ans_row + channel * ans_channel + begin * size), m, like.dtype
                    )
                    sums[row, channel] += _elu_vjp_sum(scaled[row, :m], y, g)
                taken = scaled.ctypes.data
            to, between = target + channel * target_channel + begin * size, half.ctypes.data
            for group in range(first_to.size):
                place = between + first_starts[group]
                combine_rows(like, place, first_step * half.strides[0], m, taken, first_tables[group], first)
            for group in range(second_to.size):
                place = to + second_starts[group]
                combine_rows(like, place, second_step * target_row, m, between, second_tables[group], second)
            if bias.size:
                for group in range(second_to.size):
                    for j in range(second.shape[1]):
                        row = second_to[group] + j * second_step
                        y = numba.carray(_pointer(to + row * target_row), m, like.dtype)
                        _elu_in_place(y, bias[row, channel])


@intrinsic
def _call(typing: Any, address: Any, x: Any, x_rows: Any, y: Any, y_rows: Any, n: Any) -> Any:
    """Call a codelet."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.VoidType(), [_int64] * 5)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 6), generate


@numba.njit(**_options)
def run_codelets(
    like: Array, channels: int, n: int,
    source: int, source_rows: Array, source_channel: int, target: int, target_row: int, target_channel: int,
    codelets: Array, reads: Array, read_from: Array, writes: Array, written_to: Array, half_rows: int,
    bias: Array, ans: int, ans_row: int, ans_channel: int, sums: Array,
) -> None:  # fmt: skip
    """As `transform`, by one codelet after the other.

    Codelets (steps, 3) are an address, and whether it reads the source and writes the target; what it does not, it has
    from and leaves to rows in between. Step s reads rows reads[read_from[s] : read_from[s + 1]], and writes alike.
    """
    size = like.itemsize
    block = max(2 * VECTOR_BYTES // size, HALF // (half_rows + source_rows.size))
    blocks = -(-n // block)
    half = empty((half_rows + sums.shape[0], -(-n // blocks)), like.dtype)
    scaled = half[half_rows:]
    from_rows, to_rows = empty(reads.size, np.int64), empty(writes.size, np.int64)
    for step in range(codelets.shape[0]):
        for k in range(read_from[step], read_from[step + 1]):
            row = reads[k]
            if not codelets[step, 1]:
                from_rows[k] = row * half.strides[0]
            else:
                from_rows[k] = row * scaled.strides[0] if sums.size else source_rows[row]
        for k in range(written_to[step], written_to[step + 1]):
            to_rows[k] = writes[k] * (target_row if codelets[step, 2] else half.strides[0])
    for channel in range(channels):
        for b in range(blocks):
            begin, end = b * n // blocks, (b + 1) * n // blocks
            m, taken = end - begin, source + channel * source_channel + begin * size
            if sums.size:
                for row in range(sums.shape[0]):
                    g = numba.carray(_pointer(taken + source_rows[row]), m, like.dtype)
                    y = numba.carray(
                        _pointer(ans + row * ans_row + channel * ans_channel + begin * size), m, like.dtype
                    )
                    sums[row, channel] += _elu_vjp_sum(scaled[row, :m], y, g)
                taken = scaled.ctypes.data
            to = target + channel * target_channel + begin * size
            for step in range(codelets.shape[0]):
                _call(
                    codelets[step, 0],
                    taken if codelets[step, 1] else half.ctypes.data,
                    from_rows[read_from[step] :].ctypes.data,
                    to if codelets[step, 2] else half.ctypes.data,
                    to_rows[written_to[step] :].ctypes.data,
                    m * size,
                )
            for row in range(bias.shape[0]):
                y = numba.carray(_pointer(to + row * target_row), m, like.dtype)
                _elu_in_place(y, bias[row, channel])


RUN = 1 << 12
"""Products summed in the dtype of the arrays; many more in single precision would lose digits."""


@numba.njit(**_options)
def pad(
    x: Array, centre: Any, before1: int, before2: int, more1: int, more2: int, periodic1: bool, periodic2: bool
) -> Array:
    """Return x (n1, n2, inner) less its centre, with more1 and more2 samples more, some of them before."""
    n1, n2, inner = x.shape
    padded = empty((n1 + more1, (n2 + more2) * inner), x.dtype)
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


@numba.njit(**_reordered)
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
    for a in range(rows):
        first, last = a if symmetric else max(0, a - s1 + 1), min(rows, a + s1)
        table = empty((last - first) * s2, np.int64)
        for row in range(table.size):
            table[row] = ((first + row // s2) * y.shape[1] + row % s2 * inner) * y.itemsize
        products = np.zeros((table.size, s2), np.float64)  # of windows of rows b of y with those of row a of x
        part = empty((table.size, s2), x.dtype)
        for begin in range(0, whole, RUN):
            part[:] = 0
            n_part = min(whole - begin, RUN)
            source, other = y[0, begin:].ctypes.data, x[a, begin:].ctypes.data
            correlate_rows(part, source, table, other, inner * x.itemsize, n_part)
            for row in range(table.size):
                for t2 in range(s2):
                    products[row, t2] += part[row, t2]
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
    table = empty(steps1 * steps2, np.int64)
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


f4, f8, i4, i8 = np.float32, np.float64, np.int32, np.int64

ROUND_4, ROUND_8 = f4(1.5 * 2**23), f8(1.5 * 2**52)
LOG2_E_4, LOG2_E_8 = f4(1.4426950408889634), f8(1.4426950408889634)
# ln 2 in two parts, the first with so few digits that its products with n are exact
LN2_HIGH_4, LN2_LOW_4 = f4(0.693359375), f4(-2.12194440054690583e-4)
LN2_HIGH_8, LN2_LOW_8 = f8(6.93147180369123816490e-01), f8(1.90821492927058770002e-10)


@numba.njit(**_contracted)
def _elu_4(c: Any) -> Any:
    m = max(min(c, f4(0)), f4(-87))
    n = (m * LOG2_E_4 + ROUND_4) - ROUND_4
    r = (m - n * LN2_HIGH_4) - n * LN2_LOW_4
    power = i4((i4(n) + i4(127)) << i4(23)).view(f4)
    p = f4(1 / 5040) * r + f4(1 / 720)
    p = ((p * r + f4(1 / 120)) * r + f4(1 / 24)) * r + f4(1 / 6)
    p = (p * r + f4(0.5)) * r * r + r
    return power * p + (power - f4(1)) if c <= f4(0) else c


@numba.njit(**_contracted)
def _elu_8(c: Any) -> Any:
    m = max(min(c, 0.0), -700.0)
    n = (m * LOG2_E_8 + ROUND_8) - ROUND_8
    r = (m - n * LN2_HIGH_8) - n * LN2_LOW_8
    power = i8((i8(n) + i8(1023)) << i8(52)).view(f8)
    p = (1 / 87178291200) * r + 1 / 6227020800
    p = ((p * r + 1 / 479001600) * r + 1 / 39916800) * r + 1 / 3628800
    p = ((p * r + 1 / 362880) * r + 1 / 40320) * r + 1 / 5040
    p = ((p * r + 1 / 720) * r + 1 / 120) * r + 1 / 24
    p = ((p * r + 1 / 6) * r + 0.5) * r * r + r
    return power * p + (power - 1.0) if c <= 0.0 else c


def _elu(c: Any) -> Any:
    """Exponential linear unit of a number; compiled, by the series for its dtype."""
    return c if c > 0 else np.expm1(c)


@overload(_elu)
def _elu_of_its_type(c):  # type: ignore[no-untyped-def]
    kernel = _elu_4 if c == types.float32 else _elu_8
    return lambda c: kernel(c)


@numba.njit(**_contracted)
def elu(out: Array, x: Array, bias: Array) -> None:
    """Write the ELU of x (rows, length) + bias (rows,)."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[row, i] = _elu(x[row, i] + bias[row])


@numba.njit(**_contracted)
def _elu_in_place(x: Array, bias: Any) -> None:
    for i in range(x.size):
        x[i] = _elu(x[i] + bias)


@numba.njit(**_contracted)
def elu_vjp(out: Array, ans: Array, g: Array) -> None:
    """Its cotangent: g where ans > 0, g * (1 + ans) elsewhere, of either dtype."""
    zero, one = ans.dtype.type(0), ans.dtype.type(1)
    for i in range(ans.shape[0]):
        a = ans[i]
        out[i] = g[i] * ((zero if a > zero else a) + one)


@numba.njit(**_reordered)
def _elu_vjp_sum(out: Array, ans: Array, g: Array) -> float:
    """Write the cotangent of x in ans = elu(x), and return its sum."""
    elu_vjp(out, ans, g)
    total = out[0]
    for i in range(1, out.size):
        total += out[i]
    return total
