"""All that is compiled, in one file: Numba keeps what it compiled until this file changes, whatever it imports.

First the innermost loops of matrix products, written as LLVM vectors so that their sums stay in registers, which
compilers do only if told so: the micro-kernels of a BLAS, except that rows of an operand lie wherever a table of
offsets says. Taps of a convolution are rows of one array, read where they lie. Addresses, strides and offsets are in
bytes. Then products with taps, transforms, patches and ELU made of them.
"""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy import empty
from numpy.polynomial import Chebyshev, Polynomial

Array = np.ndarray[Any, Any]

_features = llvmlite.binding.get_host_cpu_features()
VECTOR_BYTES = 64 if _features.get("avx512f") else 32 if _features.get("avx2") else 16
_registers = 16 if "avx" in _features and not _features.get("avx512f") else 32

# of a tile of sums: its rows, and its columns in vectors; they, a row's vectors and a factor fill the registers
TALL, WIDE_OF_TALL = (8, 3) if _registers == 32 else (4, 3)
FEW, WIDE_OF_FEW = (2, 8) if _registers == 32 else (2, 4)
WIDE_OF_ONE = 8
NEAR, WIDE_OF_NEAR = (4, 4) if _registers == 32 else (4, 2)
NONE_OF_TALL, NONE_OF_FEW, NONE_OF_ONE = ((0,) * wide for wide in (WIDE_OF_TALL, WIDE_OF_FEW, WIDE_OF_ONE))
# of a tile of inner products, rows of either operand
DEEP, LESS_DEEP = (6, 3) if _registers == 32 else (3, 2)
BROAD, LESS_BROAD = 4, 3

SET, ELU, ADD, SPREAD = range(4)
"""What becomes of sums: they are written, or their ELU is, or they are added to what is there, or to rows anywhere."""

BLOCK = 24
"""Lines of fewer vectors than this fill tiles together, so many lines at a time: a multiple of what tiles are wide."""

ORIGIN = np.zeros(1, np.int64)
"""Where a line begins that is the only one."""

RUN = 1 << 12
"""Products summed in the dtype of the arrays; many more in single precision would lose digits."""

HALF = 1 << 17
"""Elements of the rows that a transform reads and of those between its steps, held in cache."""

ROWS = 4
"""Rows of samples of a layer of two factors whose cotangents are summed at once, from the nearest cache."""

BAND = 1 << 12
"""Rows of a copy that are written column by column, while they stay in cache."""

_int32, _int64 = ir.IntType(32), ir.IntType(64)


class Vectors:
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
        """The number at an address in all lanes."""
        return self.spread(self.builder.load(self.pointer(address, self.scalar)))

    def spread(self, number: Any) -> Any:
        """One number in all lanes."""
        undefined = ir.Constant(self.type, ir.Undefined)
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

    def first_lanes(self, count: Any) -> Any:
        """Whether a lane is one of so many first ones."""
        integers = ir.VectorType(_int32, self.lanes)
        undefined = ir.Constant(integers, ir.Undefined)
        first = self.builder.insert_element(undefined, self.builder.trunc(count, _int32), _int32(0))
        counts = self.builder.shuffle_vector(first, undefined, ir.Constant(integers, None))
        return self.builder.icmp_signed("<", ir.Constant(integers, list(range(self.lanes))), counts)

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

    def store_transposed(self, rows: list[Any], out: Any, out_stride: Any) -> None:
        """Write a square of vectors, transposed."""
        builder, n = self.builder, self.lanes
        half = [[(n * (i % 2) + i // 2) + begin for i in range(n)] for begin in (0, n // 2)]
        masks = [ir.Constant(ir.VectorType(_int32, n), indices) for indices in half]
        for _ in range(n.bit_length() - 1):  # rows i and i + n / 2 merged, as one merges cards
            rows = [builder.shuffle_vector(rows[i // 2], rows[i // 2 + n // 2], masks[i % 2]) for i in range(n)]
        for r, row in enumerate(rows):
            builder.store(row, self.at(builder.add(out, builder.mul(_int64(r), out_stride)), 0), align=self.size)

    def choose(self, operator: str, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
        """`then` where an ordered comparison holds, `otherwise` where it does not, nor with NaN."""
        return self.builder.select(self.builder.fcmp_ordered(operator, a, b), then, otherwise)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self.fma, [a, b, c])

    def elu(self, c: Any) -> Any:
        """Exponential linear unit: c, or where that is not positive exp(c) - 1 = 2^n exp(r) - 1, c = n ln 2 + r."""
        builder, series = self.builder, EXP[self.size]
        m = self.choose("<", c, self.constant(series.least), self.constant(series.least), c)
        shifted = self.multiply_add(m, self.constant(LOG2_E), self.constant(series.round))
        n = builder.fsub(shifted, self.constant(series.round))  # to the nearest integer
        r = self.multiply_add(n, self.constant(-math.log(2)), m)  # off by n ulps of ln 2 at most, where 2^n is small
        integers = ir.VectorType(ir.IntType(8 * self.size), self.lanes)
        digits = ir.Constant(integers, [series.digits] * self.lanes)
        one = builder.bitcast(self.constant(1), integers)
        exponent = builder.shl(builder.bitcast(shifted, integers), digits)  # n stands in the last digits
        power = builder.bitcast(builder.add(exponent, one), self.type)
        p, *others = map(self.constant, series.factors[::-1])
        for factor in others:
            p = self.multiply_add(p, r, factor)
        p = self.multiply_add(builder.fmul(p, r), r, r)
        found = self.multiply_add(power, p, builder.fsub(power, self.constant(1)))
        return self.choose("<=", c, self.constant(0), found, c)

    def elu_vjp(self, ans: Any, g: Any) -> Any:
        """Its cotangent: g where ans is positive, g (1 + ans) elsewhere."""
        zero = self.constant(0)
        return self.builder.fmul(g, self.builder.fadd(self.choose(">", ans, zero, zero, ans), self.constant(1)))


def _factors(degree: int) -> tuple[float, ...]:
    """Of a polynomial near (exp(r) - 1 - r) / r^2 where |r| <= ln 2 / 2: the Taylor series, economized."""
    taylor, domain = Polynomial([1 / math.factorial(k) for k in range(2, 22)]), [-math.log(2) / 2, math.log(2) / 2]
    return tuple(taylor.convert(kind=Chebyshev, domain=domain).cutdeg(degree).convert(kind=Polynomial).coef)


class _Exp(NamedTuple):
    """How the exponential is computed."""

    factors: tuple[float, ...]
    least: float
    round: float
    digits: int


LOG2_E = 1.4426950408889634
EXP = {
    4: _Exp(_factors(4), -87, 1.5 * 2**23, 23),
    8: _Exp(_factors(10), -700, 1.5 * 2**52, 52),
}


def _offset(builder: Any, table: Any, index: Any) -> Any:
    return builder.load(
        builder.inttoptr(builder.add(table, builder.mul(index, _int64(8))), _int64.as_pointer()), align=8
    )


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
            if where.type == _int64:
                return [builder.add(where, _int64(i * v.lanes * v.size)) for i in range(width)]
            return cgutils.unpack_tuple(builder, where)

        sums = [v.sums(width) for _ in range(rows.literal_value)]
        if how.literal_value == SPREAD:
            steps = [_offset(builder, out_stride, _int64(r)) for r in range(rows.literal_value)]
        else:
            steps = [builder.mul(_int64(r), out_stride) for r in range(rows.literal_value)]
        targets = [[builder.add(place, step) for place in places(out)] for step in steps]
        for r, (row_of_targets, row) in enumerate(zip(targets, sums, strict=True)):
            for target, variable in zip(row_of_targets, row, strict=True):
                if how.literal_value == ADD:
                    builder.store(v.load(target), variable)
                elif how.literal_value == ELU:
                    builder.store(v.repeat(builder.add(bias, _int64(r * v.size))), variable)
        sources = places(x)
        with cgutils.for_range(builder, count) as loop:
            offset = _offset(builder, table, loop.index)
            terms = [v.load(builder.add(source, offset)) for source in sources]
            factors = builder.add(matrix, builder.mul(loop.index, matrix_stride))
            for r, row in enumerate(sums):
                factor = v.repeat(builder.add(factors, _int64(r * v.size)))
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
def combine_neighbours(
    typing: Any, like: Any, rows: Any, vectors: Any, out: Any, out_stride: Any, x: Any, table: Any, matrix: Any,
    size: Any, others: Any,
) -> Any:  # fmt: skip
    """Write sum over k < size * others of matrix[k] * x[table[r * others + k] + i] to out[r, i], r < rows.

    As `combine`, for rows that read each other's terms, so that what is loaded serves all rows that read it. The size
    is rows - 1 or more.
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in (rows, vectors)):
        return None
    signature = types.void(like, rows, vectors, *(types.int64,) * 7)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, table, matrix, size, others = arguments[3:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        count, width = rows.literal_value, vectors.literal_value
        sums = [v.sums(width) for _ in range(count)]
        begins = [builder.mul(others, _int64(r)) for r in range(count)]  # where rows begin to read
        ends = [builder.add(builder.mul(others, size), begin) for begin in begins]
        bounds = [*begins, *ends]
        for section, (first, end) in enumerate(itertools.pairwise(bounds)):
            with cgutils.for_range(builder, end, start=first) as loop:
                source = builder.add(x, _offset(builder, table, loop.index))
                terms = [v.load(source, i) for i in range(width)]
                for r in range(max(0, section + 1 - count), min(section + 1, count)):
                    step = builder.mul(builder.sub(loop.index, begins[r]), _int64(v.size))
                    factor = v.repeat(builder.add(matrix, step))
                    for variable, term in zip(sums[r], terms, strict=True):
                        v.accumulate(variable, factor, term)
        for r, row in enumerate(sums):
            target = builder.add(out, builder.mul(_int64(r), out_stride))
            for i, variable in enumerate(row):
                builder.store(builder.load(variable), v.at(target, i), align=v.size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    """Ask for the line of the cache at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte, _int32, _int32, _int32])
        ask = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(ask, [builder.inttoptr(arguments[0], byte), _int32(0), _int32(3), _int32(1)])  # all levels, data
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def _settle(typing: Any) -> Any:
    """Wait until other threads would read what was written past the caches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


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
            sources.append(builder.add(x, builder.mul(_int64(r), x_stride)))
            targets.append(v.at(builder.add(total, builder.mul(_int64(r), total_stride)), 0))
            builder.store(builder.load(targets[r], align=v.size), variable)
        with cgutils.for_range(builder, count) as loop:
            term = v.load(builder.add(y, builder.mul(loop.index, y_stride)))
            at = builder.mul(loop.index, _int64(v.size))
            for variable, source in zip(sums, sources, strict=True):
                v.accumulate(variable, v.repeat(builder.add(source, at)), term)
        for variable, target in zip(sums, targets, strict=True):
            builder.store(builder.load(variable), target, align=v.size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def transpose_tile(typing: Any, like: Any, out: Any, out_stride: Any, x: Any, x_stride: Any, last: Any) -> Any:
    """Write a transposed square, a vector wide, to out; of rows of x beyond the last, that one is taken."""
    signature = types.void(like, *(types.int64,) * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, x_stride, last = arguments[1:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        n, rows = v.lanes, []
        for r in range(n):
            row = builder.select(builder.icmp_signed("<", _int64(r), last), _int64(r), last)
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
        places = [_offset(builder, columns, _int64(r)) for r in range(v.lanes)]
        v.store_transposed([v.load(builder.add(x, place)) for place in places], out, out_stride)
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
        targets = [builder.add(total, builder.mul(_int64(k), total_stride)) for k in range(deep.literal_value)]
        if by_lanes:
            for target, row in zip(targets, sums, strict=True):
                for r, variable in enumerate(row):
                    builder.store(v.load(target, r), variable)
        rows = [builder.add(x, _offset(builder, table, _int64(k))) for k in range(deep.literal_value)]
        columns = [builder.add(y, builder.mul(_int64(r), y_stride)) for r in range(broad.literal_value)]
        count, rest = builder.sdiv(n, _int64(v.lanes)), builder.srem(n, _int64(v.lanes))
        met, zero = v.first_lanes(builder.sub(_int64(v.lanes), rest)), v.constant(0)  # in whole vectors before the rest

        def add(sources: list[Any], others: list[Any], position: Any, take: Callable[[Any], Any]) -> None:
            factors = [take(v.load(builder.add(other, position))) for other in others]
            for row, source in zip(sums, sources, strict=True):
                term = take(v.load(builder.add(source, position)))
                for variable, factor in zip(row, factors, strict=True):
                    v.accumulate(variable, term, factor)

        with cgutils.for_range(builder, lines) as line:
            start = builder.mul(_offset(builder, starts, line.index), _int64(v.size))
            done = builder.mul(line.index, y_line)
            sources, others = [builder.add(row, start) for row in rows], [builder.add(c, done) for c in columns]
            with cgutils.for_range(builder, count) as loop:
                add(sources, others, builder.mul(loop.index, _int64(VECTOR_BYTES)), lambda vector: vector)
            with builder.if_then(cgutils.is_not_null(builder, rest), likely=False):
                last = builder.mul(builder.sub(n, _int64(v.lanes)), _int64(v.size))
                add(sources, others, last, lambda vector: builder.select(met, zero, vector))
        for target, row in zip(targets, sums, strict=True):
            for r, variable in enumerate(row):
                if by_lanes:
                    builder.store(builder.load(variable), v.at(target, r), align=v.size)
                    continue
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
FACTORS = np.array(
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    )
)
RESULTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
MAPS = (SAMPLES, RESULTS, tuple(zip(*SAMPLES, strict=True)), tuple(zip(*RESULTS, strict=True)))
OF_SAMPLES, OF_RESULTS, SAMPLES_TRANSPOSED, RESULTS_TRANSPOSED = range(4)


@intrinsic(prefer_literal=True)
def linear(typing: Any, like: Any, which: Any, how: Any, out: Any, places: Any, x: Any, table: Any, n: Any) -> Any:
    """Write a row of n bytes for each of a matrix of MAPS: the sum over j of entry j times row j of x.

    Row i begins at out + places[i], row j at x + table[j]. How: SET, or ADD to what is there, where rows may be the
    same.
    """
    if not isinstance(which, types.IntegerLiteral) or not isinstance(how, types.IntegerLiteral):
        return None
    signature = types.void(like, which, how, *(types.int64,) * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, places, x, table, n = arguments[3:]
        matrix = MAPS[which.literal_value]
        sources = [builder.add(x, _offset(builder, table, _int64(j))) for j in range(len(matrix[0]))]
        targets = [builder.add(out, _offset(builder, places, _int64(i))) for i in range(len(matrix))]

        def write(lanes: int) -> None:
            """In vectors, of which the last begins earlier; what they have in common is not added twice."""
            v = Vectors(builder, like.dtype, lanes)
            step, zero = _int64(lanes * v.size), v.constant(0)
            last, count = builder.sub(n, step), builder.sdiv(builder.add(n, builder.sub(step, _int64(1))), step)
            with cgutils.for_range(builder, count) as loop:
                here = builder.mul(loop.index, step)
                at = builder.select(builder.icmp_signed("<", here, last), here, last)
                terms = [v.load(builder.add(source, at)) for source in sources]
                done = v.first_lanes(builder.sdiv(builder.sub(here, at), _int64(v.size)))
                for row, target in zip(matrix, targets, strict=True):
                    total = None
                    for entry, term in zip(row, terms, strict=True):
                        if entry and total is None:
                            total = term if entry == 1 else builder.fmul(term, v.constant(entry))
                        elif entry:
                            total = builder.call(v.fma, [term, v.constant(entry), total])
                    place = builder.add(target, at)
                    if how.literal_value == ADD:
                        total = builder.fadd(v.load(place), builder.select(done, zero, total))
                    builder.store(total, v.at(place, 0), align=v.size)

        with builder.if_else(builder.icmp_signed("<", n, _int64(VECTOR_BYTES))) as (short, long):
            with short:
                write(1)
            with long:
                write(8 * VECTOR_BYTES // like.dtype.bitwidth)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def elu_of(typing: Any, like: Any, vectors: Any, out: Any, x: Any, bias: Any) -> Any:
    """Write the ELU of x + bias, a vector each or, if `vectors` is 0, a number."""
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    signature = types.void(like, vectors, types.int64, types.int64, like.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, x, bias = arguments[2:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth if vectors.literal_value else 1)
        builder.store(v.elu(builder.fadd(v.load(x), v.spread(bias))), v.at(out, 0), align=v.size)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def elu_vjp_of(typing: Any, like: Any, vectors: Any, out: Any, ans: Any, g: Any, count: Any) -> Any:
    """Write the cotangents g of ELUs that are `ans` multiplied by the derivative, and return the sum of these.

    `count` vectors or, if `vectors` is 0, numbers.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    signature = like.dtype(like, vectors, *(types.int64,) * 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, ans, g, count = arguments[2:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth if vectors.literal_value else 1)
        (total,) = v.sums(1)
        with cgutils.for_range(builder, count) as loop:
            at = builder.mul(loop.index, _int64(v.lanes * v.size))
            product = v.elu_vjp(v.load(builder.add(ans, at)), v.load(builder.add(g, at)))
            builder.store(product, v.at(builder.add(out, at), 0), align=v.size)
            builder.store(builder.fadd(builder.load(total), product), total)
        return v.total(total)

    return signature, generate


def _save(files: Any, key: Any, compiled: Any) -> None:
    """Keep what was compiled in a file named by its signature.

    Numba numbers files as they come: of two processes that first compile different signatures of a function at once,
    each would write its own to the number 1, and a third process run one's code on the other's arrays. It also lists a
    file before it is written, by a name that may be that of an older source's.
    """
    index = files._load_index()
    digest = hashlib.sha256(repr(key).encode()).digest()
    index[key] = files._data_name_pattern.format(number=int.from_bytes(digest[:8], "big"))
    files._save_data(index[key], compiled)
    files._save_index(index)


def on_disk(compiler: Any, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
    """One of Numba's compilers, which keeps what it compiled; where nothing can be written, each process compiles."""

    def decorate(function: Any) -> Any:
        try:
            return compiler(*arguments, **options, cache=True)(function)
        except RuntimeError:  # no folder for it
            return compiler(*arguments, **options)(function)

    return decorate


def compiled(**options: Any) -> Callable[[Any], Any]:
    """As `numba.njit`, for code kept on disk, without the interpreter lock.

    No references are counted: arrays outlive the call, and an atomic count waits for all stores before it.
    """

    def decorate(function: Any) -> Any:
        function = on_disk(numba.njit, **{"nogil": True, "_nrt": False, **options})(function)
        files = getattr(getattr(function, "_cache", None), "_cache_file", None)
        if files is not None:
            files.save = partial(_save, files)
        return function

    return decorate


@compiled()
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
def _some_lines(
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


@compiled()
def apply(
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """Write to out (entries, rows, positions), from `first` on, the products of matrices with the taps of x.

    Line by line of n positions: the taps of line l begin at starts[l] + table[k], k < K. x is (entries, columns, source
    lines, elements), `padded` room for one extended entry; matrices are (entries or 1, K, rows). With a bias (rows,),
    the ELU of their sum is written.
    """
    together = lines_at_once(x, n)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for line in range(0, starts.size, together):
            of_lines = starts[line : line + together]
            begin, count = first + line * n, of_lines.size
            _some_lines(
                x, out[entry, 0, begin:].ctypes.data, out.strides[1], n, padded.ctypes.data, of_lines, table, matrix
            )
            for row in range(bias.size):
                at = out[entry, row, begin:].ctypes.data
                elu_run(x, at, at, n * count, bias[row])


@compiled(inline="always")
def _neighbours(
    wide: int, like: Array, out: int, out_stride: int, begin: int, end: int, x: int, table: Array, factors: Array,
    size: int, others: int,
) -> None:  # fmt: skip
    """Write NEAR lines of sums from begin to end in tiles, of which the last begins earlier and writes some again."""
    lanes, offsets, matrix = VECTOR_BYTES // like.itemsize, table.ctypes.data, factors.ctypes.data
    for i in range(begin, end, wide * lanes):
        at = min(i, end - wide * lanes) * like.itemsize
        combine_neighbours(like, NEAR, wide, out + at, out_stride, x + at, offsets, matrix, size, others)


@compiled()
def apply_to_one(
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, order: Array, factors: Array, across: int, size: int,
) -> None:  # fmt: skip
    """As `apply` where there is one row, NEAR lines at a time, which read the same samples.

    Of `across` neighbouring lines, NEAR or more, each reads what the one before it reads, less the first of `size`
    lines of samples, and one more. The table has NEAR - 1 lines more than one of them reads, line by line: the `order`
    in which factors of a matrix are copied to `factors`.
    """
    others, step, lanes = table.size // (size + NEAR - 1), n * x.itemsize, VECTOR_BYTES // x.itemsize
    whole = n - n % (WIDE_OF_NEAR * lanes)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        for k in range(order.size):
            factors[k] = matrices[min(entry, matrices.shape[0] - 1), order[k], 0]
        for begin in range(0, starts.size, across):
            for i in range(begin, begin + across, NEAR):
                line = min(i, begin + across - NEAR)
                to, source = (
                    out[entry, 0, first + line * n :].ctypes.data,
                    padded.ctypes.data + starts[line] * x.itemsize,
                )
                _neighbours(WIDE_OF_NEAR, x, to, step, 0, whole, source, table, factors, size, others)
                _neighbours(2, x, to, step, whole, n, source, table, factors, size, others)


@compiled()
def apply_apart(
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, phases: Array, targets: Array, apart: int, room: Array,
) -> None:  # fmt: skip
    """As `apply`, where the `inner` positions of a sample lie in `out`, and the next sample's `apart` from them.

    For each of some phases (first tap, first line, samples of a line), and one more where these end: line l begins at
    first + targets[l]. Sums are made in `room` (rows, n or more).
    """
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for phase in range(phases.shape[0] - 1):
            (tap, begin, samples), (last_tap, end, _) = phases[phase], phases[phase + 1]
            if begin == end:
                continue
            size = samples * inner
            together = min(lines_at_once(x, size), room.shape[1] // size)
            for line in range(begin, end, together):
                of_lines = starts[line : min(line + together, end)]
                _some_lines(
                    x, room.ctypes.data, room.strides[0], size, padded.ctypes.data, of_lines, table[tap:last_tap],
                    matrix[tap:last_tap],
                )  # fmt: skip
                for row in range(room.shape[0]):
                    for k in range(of_lines.size):
                        for sample in range(samples):
                            to = out[entry, row, first + targets[line + k] + sample * apart :]
                            made = room[row, k * size + sample * inner :]
                            for i in range(inner):
                                to[i] = made[i]


@compiled(inline="always")
def _places_apart(places: Array, step: int) -> Any:
    """Note rows that lie one step after the other, and say where that is noted."""
    for k in range(places.size):
        places[k] = k * step
    return places.ctypes.data


@compiled(inline="always")
def _places_of_lines(places: Array, x: Array, six: Array, missing: Array) -> Any:
    """Likewise six lines of x, of which -1 is `missing`."""
    for k in range(six.size):
        places[k] = missing.ctypes.data if six[k] < 0 else x[six[k]].ctypes.data
    return places.ctypes.data


@compiled()
def _tiles_of_samples(tiles: Array, x: Array, six: Array, missing: Array, runs: Array, places: Array) -> None:
    """Write SAMPLES of six lines of x (columns, lines, elements) to tiles (6, columns, elements), extended.

    Line -1 is `missing`, of zeros. Runs (where to, from where in a line or -1, how many) count elements, -1 stands for
    zeros. `places` is room for where rows lie.
    """
    of_tiles = _places_apart(places[0], tiles.strides[0])
    for column in range(x.shape[0]):
        of_lines = _places_of_lines(places[1], x[column], six, missing)
        for begin, source, count in runs:
            if source < 0:
                tiles[:, column, begin : begin + count] = 0
            else:
                to, size = tiles[0, column, begin:].ctypes.data, count * x.itemsize
                linear(x, OF_SAMPLES, SET, to, of_tiles, source * x.itemsize, of_lines, size)


@compiled()
def _samples_of_tiles(x: Array, tiles: Array, six: Array, missing: Array, runs: Array, places: Array) -> None:
    """Transpose of `_tiles_of_samples`, added to x; what comes to `missing` is of no use."""
    of_tiles = _places_apart(places[0], tiles.strides[0])
    for column in range(x.shape[0]):
        of_lines = _places_of_lines(places[1], x[column], six, missing)
        for begin, source, count in runs:
            if source >= 0:
                taken, size = tiles[0, column, begin:].ctypes.data, count * x.itemsize
                linear(x, SAMPLES_TRANSPOSED, ADD, source * x.itemsize, of_lines, taken, of_tiles, size)


@compiled()
def _results_of_products(
    out: Array, first: int, n: int, products: Array, length: int, line: int, lines: int, each: int, places: Array,
    bias: Array,
) -> None:  # fmt: skip
    """Write RESULTS of products (6, rows, positions) to out (rows, lines, positions), or the ELU of that and a bias.

    The products are of so many lines of a length, from `line` on. A tile has `each` of them, which come to lie n apart,
    the first at `first`.
    """
    to_results, of_products = _places_apart(places[0], out.strides[1]), _places_apart(places[1], products.strides[0])
    done = 0
    while done < lines:
        tile, within = divmod(line + done, each)
        met = min(lines - done, each - within)  # all that lie one after the other
        for row in range(out.shape[0]):
            to = out[row, 4 * tile, first + within * n :].ctypes.data
            taken = products[0, row, done * length :].ctypes.data
            linear(out, OF_RESULTS, SET, to, to_results, taken, of_products, met * length * out.itemsize)
            for result in range(4 if bias.size else 0):
                at = to + places[0, result]
                elu_run(out, at, at, met * length, bias[row])
        done += met


@compiled()
def apply_tiled(
    out: Array, first: int, x: Array, six: Array, missing: Array, n: int, table: Array, starts: Array, runs: Array,
    places: Array, tiles: Array, products: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """Write to out (entries, rows, lines, positions) the products of matrices with the taps of x, 3 along lines.

    Each 4 lines, around which lie six (tiles, 6), by 6 products, of matrices (entries or 1, 6, K, rows). A product has
    the positions of a line, from `first` on, as `apply` has all; K counts the taps along the other axes. x is (entries,
    columns, lines, elements), `missing` a line of zeros; `tiles` (6, some tiles, columns, elements) and `products` (6,
    some rows, some positions) are room, `starts` those of as many tiles. With a bias (rows,), the ELU of their sum is
    written.
    """
    size, lanes, width = x.itemsize, VECTOR_BYTES // x.itemsize, products.shape[2]
    each = starts.size // tiles.shape[1]
    together, parts = max(1, min(lines_at_once(x, n), width // n)), -(-n // width)
    strips = -(-out.shape[1] // products.shape[1])
    for entry in range(x.shape[0]):
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for tile in range(0, six.shape[0], tiles.shape[1]):
            count = min(tiles.shape[1], six.shape[0] - tile)
            for k in range(count):
                _tiles_of_samples(tiles[:, k], x[entry], six[tile + k], missing, runs, places)
            for line in range(0, count * each, together):
                of_lines = starts[line : min(line + together, count * each)]
                for part in range(parts * strips):
                    c, strip = divmod(part, strips)
                    begin, end = _chunk(c, n, width, lanes)
                    row, last = strip * products.shape[1], min((strip + 1) * products.shape[1], out.shape[1])
                    for p in range(6):
                        to, source = products[p].ctypes.data, tiles[p].ctypes.data + begin * size
                        factors = matrix[p, :, row:last]
                        _some_lines(x, to, products.strides[1], end - begin, source, of_lines, table, factors)
                    _results_of_products(
                        out[entry, row:last, 4 * tile :], first + begin, n, products, end - begin, line, of_lines.size,
                        each, places, bias[row:last],
                    )  # fmt: skip


@compiled()
def factors_of_tiles(w: Array, out: Array) -> None:
    """Write FACTORS w for filters (entries, columns, groups, 3, rows) to out (entries, 6, columns * groups, rows)."""
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                taps = w[entry, column, group]
                for p in range(6):
                    target = out[entry, p, column * groups + group]
                    for row in range(rows):
                        target[row] = (
                            FACTORS[p, 0] * taps[0, row] + FACTORS[p, 1] * taps[1, row] + FACTORS[p, 2] * taps[2, row]
                        )


@compiled()
def factors_transpose(total: Array, w: Array) -> None:
    """Transpose of `factors_of_tiles`."""
    entries, columns, groups, _, rows = w.shape
    for entry in range(entries):
        for column in range(columns):
            for group in range(groups):
                for tap in range(3):
                    for row in range(rows):
                        s = 0.0
                        for p in range(6):
                            s += FACTORS[p, tap] * total[entry, p, column * groups + group, row]
                        w[entry, column, group, tap, row] = s


@compiled()
def adjoints_tiled(
    g: Array, first: int, x: Array, six: Array, missing: Array, n: int, table: Array, starts: Array, runs: Array,
    places: Array, tiles: Array, cotangents: Array, rows: Array, total: Array, sums: Array, matrices: Array, gx: Array,
    more: bool,
) -> None:  # fmt: skip
    """Cotangents of `apply_tiled` for those of its results, g: of matrices added to total, of x written to gx.

    g is (entries, rows, lines, positions), of which those from `first` on are read, `six` (tiles, 6). Total is
    (entries, 6, K, rows), gx (entries, columns, lines, elements), the matrices for it (entries or 1, 6, taps in K of a
    column, rows, columns); without entries either is left out. With `more`, what gx has is added. Both read the same
    tiles of g: `cotangents` is room for (6, rows, positions) of some positions, `rows` are their offsets, `sums` is
    room for more `tiles`, `missing` for two lines, the first of zeros.
    """
    size, lanes, width = g.itemsize, VECTOR_BYTES // g.itemsize, cotangents.shape[2]
    parts, of_results = -(-n // width), _places_apart(places[2], g.strides[2])
    of_cotangents = _places_apart(places[3], cotangents.strides[0])
    for entry in range(g.shape[0]):
        if gx.shape[0] and not more:
            gx[entry] = 0
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for tile in range(six.shape[0]):
            if total.shape[0]:
                _tiles_of_samples(tiles, x[entry], six[tile], missing[0], runs, places)
            if gx.shape[0]:
                sums[:] = 0
            for part in range(starts.size * parts):
                line, c = divmod(part, parts)
                begin, end = _chunk(c, n, width, lanes)
                count = end - begin
                for row in range(g.shape[1]):
                    source = g[entry, row, 4 * tile, first + line * n + begin :].ctypes.data
                    to = cotangents[0, row].ctypes.data
                    linear(g, RESULTS_TRANSPOSED, SET, to, of_cotangents, source, of_results, count * size)
                at = (starts[line] + begin) * size
                for p in range(6):
                    y = cotangents[p].ctypes.data
                    if total.shape[0]:
                        source = tiles[p].ctypes.data + at
                        correlate_rows(total[entry, p], source, table, y, cotangents.strides[1], 0, count, ORIGIN)
                    for tap in range(matrix.shape[1] if gx.shape[0] else 0):
                        to = sums[p].ctypes.data + at + table[tap]
                        add_rows(g, to, sums.strides[1], count, y, rows, matrix[p, tap])
            if gx.shape[0]:
                _samples_of_tiles(gx[entry], sums, six[tile], missing[1], runs, places)


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


@compiled()
def correlate(
    g: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, total: Array,
) -> None:  # fmt: skip
    """Add to total (entries, K, rows) the inner products of the taps of x with g (entries, rows, positions).

    The other arguments are those of `apply`.
    """
    lone = n if n < VECTOR_BYTES // x.itemsize else 0
    taken, step = padded.reshape(-1), max(1, RUN // n)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        for line in range(0, 0 if lone else starts.size, step):
            source, of_lines = padded.ctypes.data, starts[line : line + step]
            other = g[entry, 0, first + line * n :].ctypes.data
            correlate_rows(total[entry], source, table, other, g.strides[1], n * x.itemsize, n, of_lines)
        for line in range(starts.size if lone else 0):
            for i in range(n):
                for k in range(table.size):
                    term = taken[starts[line] + table[k] // x.itemsize + i]
                    for r in range(g.shape[1]):
                        total[entry, k, r] += term * g[entry, r, first + line * n + i]


@intrinsic
def _call(
    typing: Any, address: Any, x: Any, x_rows: Any, y: Any, y_rows: Any, n: Any, other: Any, other_rows: Any, sums: Any,
    sum_rows: Any,
) -> Any:  # fmt: skip
    """Call a codelet."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.VoidType(), [_int64] * 9)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 10), generate


@compiled()
def _run_part(
    like: Array, program: Any, first: int, last: int, source: int, target: int, half: Array, n: int, other: int,
    sums: int,
) -> None:  # fmt: skip
    """Take some steps of a program on rows of n elements.

    A program is steps (address of a codelet or 0, whether it reads the source, whether it writes the target, where its
    factors begin, how many rows they make, where its others begin); factors; offsets of rows read, and where those of
    each step begin; of rows written, and where those begin; of what codelets read besides, from `other` on, and where
    they add sums. What does not come from the source or go to the target is held in `half`.
    """
    steps, factors, reads, read_from, writes, written_to, others, sum_rows = program
    for s in range(first, last):
        x = source if steps[s, 1] else half.ctypes.data
        y = target if steps[s, 2] else half.ctypes.data
        table, to = reads[read_from[s] : read_from[s + 1]], writes[written_to[s] : written_to[s + 1]]
        if steps[s, 0]:
            begin, size = steps[s, 5] * others.itemsize, n * like.itemsize
            other_rows, rows = others.ctypes.data + begin, sum_rows.ctypes.data + begin
            _call(steps[s, 0], x, table.ctypes.data, y, to.ctypes.data, size, other, other_rows, sums, rows)
        else:
            begin, count = steps[s, 3], steps[s, 4]
            matrix = factors[begin : begin + table.size * count].reshape(table.size, count)
            step = to[1] - to[0] if count > 1 else 0
            combine_rows(like, y + to[0], step, n, x, table, matrix)


@compiled()
def _run(like: Array, program: Any, first: int, last: int, source: int, target: int, half: Array, n: int) -> None:
    """`_run_part` without ELU."""
    _run_part(like, program, first, last, source, target, half, n, 0, 0)


@compiled()
def _run_elu(
    like: Array, program: Any, source: int, target: int, half: Array, n: int, rows: Array, bias: Array, channel: int
) -> None:  # fmt: skip
    """Take all steps of a program; with a bias (rows, channels), to the ELU of the sum, in these rows."""
    other = bias.ctypes.data + channel * like.itemsize
    _run_part(like, program, 0, program[0].shape[0], source, target, half, n, other, 0)
    for row in range(0 if program[6].size else bias.shape[0]):
        elu_run(bias, target + rows[row], target + rows[row], n, bias[row, channel])


@compiled()
def _run_elu_vjp(
    like: Array, program: Any, g: int, g_rows: Array, ans: int, ans_rows: Array, target: int, half: Array, n: int,
    scaled: Array, sums: Array, channel: int,
) -> None:  # fmt: skip
    """Take all steps of a program on a cotangent; with sums (rows, channels), first take it back through an ELU.

    Of that `ans` is the result, and what comes is added to sums. Unless codelets do it on the way, `scaled` holds it.
    """
    source = g
    if sums.size and not program[6].size:
        source = scaled.ctypes.data
        for row in range(sums.shape[0]):
            to = scaled[row].ctypes.data
            sums[row, channel] += elu_vjp_run(scaled, to, ans + ans_rows[row], g + g_rows[row], n)
    last, into = program[0].shape[0], sums.ctypes.data + channel * sums.itemsize
    _run_part(like, program, 0, last, source, target, half, n, ans, into)


@compiled(inline="always")
def _chunk(c: int, n: int, size: int, lanes: int) -> tuple[int, int]:
    """Begin and end of part c of range(n), of two vectors or more; the last has a whole one, if there are so many."""
    begin, end = c * size, (c + 1) * size
    return max(0, min(begin, n - lanes)), n if end >= n else min(end, max(0, n - lanes))


@compiled()
def transform(
    like: Array, channels: int, n: int, lines: tuple[int, int, int], half: Array, program: Any,
    source: int, source_rows: Array, source_channel: int, target: int, target_rows: Array, target_channel: int,
    bias: Array, ans: int, ans_rows: Array, ans_channel: int, scaled: Array, sums: Array,
) -> None:  # fmt: skip
    """Map rows by a program, as many columns at a time as `half` has, so that what lies between steps stays in cache.

    Row r of channel c begins at source + source_rows[r] + c * source_channel. It may have several lines (how many, how
    many elements apart in the source, and in the target) of n columns. With a bias (rows, channels) the ELU of
    the sum is written. With sums (rows, channels), the source is multiplied by the derivative of an ELU whose result is
    at `ans` first, and added up there; see `_run_elu_vjp`.
    """
    size, block = like.itemsize, half.shape[1]
    blocks = -(-n // block)
    for channel in range(channels):
        for part in range(lines[0] * blocks):
            line, b = divmod(part, blocks)
            begin, end = _chunk(b, n, block, VECTOR_BYTES // size)
            m = end - begin
            taken = source + channel * source_channel + (line * lines[1] + begin) * size
            to = target + channel * target_channel + (line * lines[2] + begin) * size
            answers = ans + channel * ans_channel + begin * size
            if sums.size:
                _run_elu_vjp(like, program, taken, source_rows, answers, ans_rows, to, half, m, scaled, sums, channel)
            else:
                _run_elu(like, program, taken, to, half, m, target_rows, bias, channel)
    _settle()


@compiled()
def _turn(like: Array, turned: Array, n: int, y: int, y_step: int, rows: int) -> None:
    """Write rows of y, n elements each, to `turned` (n and some, rows and some), transposed."""
    lanes, size = VECTOR_BYTES // like.itemsize, like.itemsize
    for k in range(0, turned.shape[1], lanes):
        for i in range(0, n, lanes):
            to = turned.ctypes.data + i * turned.strides[0] + k * size
            transpose_tile(like, to, turned.strides[0], y + k * y_step + i * size, y_step, rows - 1 - k)


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
def _add_group(
    like: Array, width: int, spectrum: Array, block: Array, offsets: Array, matrices: Array, group: int
) -> None:  # fmt: skip
    """Write the products of a group's spectrum with its matrices to `block`, or add them to those of other groups."""
    row, terms = spectrum.strides[2], offsets[: matrices.shape[2]]
    for f in range(spectrum.shape[0]):
        x, y, matrix = spectrum[f].ctypes.data, block[f].ctypes.data, matrices[group, f]
        if group:
            add_rows(like, y, row, width, x, terms, matrix)
        else:
            combine_rows(like, y, row, width, x, terms, matrix)


@compiled()
def contract(
    like: Array, n: int, chunk: int, analysis: Any, steps_from: Array, synthesis: Any, half: Array,
    source: int, source_channel: int, target: int, target_rows: Array, target_channel: int,
    spectrum: Array, block: Array, offsets: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """Analyze, multiply by a matrix for each frequency, and synthesize, `chunk` of n positions at a time.

    A phase of a group of channels is analyzed at once, by the steps from steps_from[p] on, into `spectrum`
    (frequencies, entries of a phase, channels of a group, positions), and added to `block` (frequencies, planes, out,
    positions) by matrices (phases * groups, frequencies, entries * channels, planes * out). Rows of either lie one
    after the other; those of the next frequency need not.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    phases, row = steps_from.size - 1, spectrum.strides[2]
    groups = matrices.shape[0] // phases
    for c in range(-(-n // chunk)):
        begin, end = _chunk(c, n, chunk, lanes)
        m, width = end - begin, -(-(end - begin) // lanes) * lanes
        for p in range(phases):
            for group in range(groups):
                for channel in range(spectrum.shape[2]):
                    taken = source + (group * spectrum.shape[2] + channel) * source_channel + begin * size
                    to = spectrum.ctypes.data + channel * row
                    _run(like, analysis, steps_from[p], steps_from[p + 1], taken, to, half, m)
                _add_group(like, width, spectrum, block, offsets, matrices, p * groups + group)
        for channel in range(block.shape[2]):
            to = target + channel * target_channel + begin * size
            _run_elu(like, synthesis, block.ctypes.data + channel * row, to, half, m, target_rows, bias, channel)


@compiled()
def _pass_on(part: Array, total: Array) -> None:
    """Add a part to a total in double precision, and begin it anew."""
    source, target = part.reshape(-1), total.reshape(-1)
    for i in range(source.size):
        target[i] += source[i]
        source[i] = 0


@compiled()
def contract_adjoints(
    like: Array, n: int, chunk: int, back: Any, analysis: Any, analysis_back: Any, steps_from: Array, half: Array,
    g: int, g_rows: Array, g_channel: int, ans: int, ans_rows: Array, ans_channel: int, scaled: Array, sums: Array,
    source: int, source_channel: int, target: int, target_channel: int,
    spectrum: Array, block: Array, offsets: Array, turned: Array, matrices: Array, part: Array, totals: Array,
) -> None:  # fmt: skip
    """Cotangents of `contract`: of x to target, of filters added to totals.

    By matrices (phases * groups, frequencies, planes * out, entries * channels), to `part` (phases * groups,
    frequencies, entries * channels, planes * out and some); either may be empty. Totals, for more than RUN positions,
    are what parts are passed on to. `sums`, `ans` and g are as in `transform`.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    frequencies, row = block.shape[0], block.strides[2]
    rows = block.shape[1] * block.shape[2]
    phases = steps_from.size - 1
    groups = max(matrices.shape[0], part.shape[0]) // phases
    for c in range(-(-n // chunk)):
        begin, end = _chunk(c, n, chunk, lanes)
        m, width = end - begin, -(-(end - begin) // lanes) * lanes
        for channel in range(block.shape[2]):
            taken, answers = g + channel * g_channel + begin * size, ans + channel * ans_channel + begin * size
            to = block.ctypes.data + channel * row
            _run_elu_vjp(like, back, taken, g_rows, answers, ans_rows, to, half, m, scaled, sums, channel)
        for f in range(frequencies if part.size else 0):
            _turn(like, turned[f], m, block[f].ctypes.data, row, rows)
        for p in range(phases):
            first_back, last_back = steps_from[-1] - steps_from[p + 1], steps_from[-1] - steps_from[p]
            for group in range(groups):
                k, first = p * groups + group, group * spectrum.shape[2]
                if part.size:
                    for channel in range(spectrum.shape[2]):
                        taken = source + (first + channel) * source_channel + begin * size
                        to = spectrum.ctypes.data + channel * row
                        _run(like, analysis, steps_from[p], steps_from[p + 1], taken, to, half, m)
                    for f in range(frequencies):
                        add_outer_products(like, part[k, f], spectrum[f].ctypes.data, row, m, turned[f])
                if matrices.size:
                    for f in range(frequencies):
                        x, y = spectrum[f].ctypes.data, block[f].ctypes.data
                        combine_rows(like, x, row, width, y, offsets[:rows], matrices[k, f])
                    for channel in range(spectrum.shape[2]):
                        to = target + (first + channel) * target_channel + begin * size
                        taken = spectrum.ctypes.data + channel * row
                        _run(like, analysis_back, first_back, last_back, taken, to, half, m)
        if totals.size and ((c + 1) * chunk >= n or (c + 1) * chunk // RUN > c * chunk // RUN):
            _pass_on(part, totals)


@compiled(inline="always")
def _ask(like: Array, m: int, x: int, runs: Array) -> None:
    """Ask for what taps of m positions read; `runs` (runs, 2) are the first and last tap of some that overlap."""
    for run in range(runs.shape[0]):
        for at in range(x + runs[run, 0], x + runs[run, 1] + m * like.itemsize, 64):
            _prefetch(at)


@compiled()
def _expand(
    like: Array, m: int, x: int, rows: Array, table: Array, ahead: Array, h: Array, shift: Array, z: Array, kept: int,
    analysis: Any, begin_step: int, end_step: int, spectrum: Array, half: Array,
) -> None:  # fmt: skip
    """Write the spectra of the ELU of what filters h (taps, channels) make of m positions of some rows, plus shifts.

    z has room for (channels, rows, positions): if `kept`, for all, else for those that are analyzed before others are
    made. The next row of x is asked for by `ahead`, as rows are too short for a processor to foresee.
    """
    size, row = like.itemsize, spectrum.strides[2]
    for first in range(0, h.shape[1], TALL):
        last = min(first + TALL, h.shape[1])
        of_block, shifts, room = h[:, first:last], shift[first:last], z[kept * first :]
        for r in range(rows.size):
            if not first and r + 1 < rows.size:
                _ask(like, m, x + rows[r + 1] * size, ahead)
            elu_rows(like, room[0, r].ctypes.data, z.strides[0], m, x + rows[r] * size, table, of_block, shifts)
        for channel in range(first, last):
            source, to = room[channel - first].ctypes.data, spectrum.ctypes.data + channel * row
            _run(like, analysis, begin_step, end_step, source, to, half, m)


@compiled()
def factored(
    like: Array, begin_line: int, end_line: int, n: int, chunk: int,
    x: int, starts: Array, rows_from: Array, steps_from: Array, line_step: int, table: Array, ahead: Array, h: Array,
    shift: Array, z: Array,
    analysis: Any, synthesis: Any, half: Array, target: int, target_rows: Array, target_channel: int,
    spectrum: Array, block: Array, offsets: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """`contract` of channels that are made of x a group at a time: the ELU of filters h (groups, taps, channels).

    Rows of the extended x begin at `starts`, in elements; steps of the analysis from steps_from[p] on take those of
    phase p, from rows_from[p] on. Lines of x are `line_step` bytes apart, results of n positions a line follow each
    other. `ahead` is of `_ask`. Shifts are (groups, channels), z is room for (channels, rows of a phase, positions).
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    groups, row = h.shape[0], spectrum.strides[2]
    for line in range(begin_line, end_line):
        for c in range(-(-n // chunk)):
            begin, end = _chunk(c, n, chunk, lanes)
            m, width = end - begin, -(-(end - begin) // lanes) * lanes
            taken = x + line * line_step + begin * size
            for p in range(rows_from.size - 1):
                rows = starts[rows_from[p] : rows_from[p + 1]]
                for group in range(groups):
                    _expand(
                        like, m, taken, rows, table, ahead, h[group], shift[group], z, 0,
                        analysis, steps_from[p], steps_from[p + 1], spectrum, half,
                    )  # fmt: skip
                    _add_group(like, width, spectrum, block, offsets, matrices, p * groups + group)
            for channel in range(block.shape[2]):
                to = target + channel * target_channel + (line * n + begin) * size
                _run_elu(like, synthesis, block.ctypes.data + channel * row, to, half, m, target_rows, bias, channel)


@compiled()
def factored_adjoints(
    like: Array, begin_line: int, end_line: int, n: int, chunk: int,
    x: int, starts: Array, rows_from: Array, steps_from: Array, line_step: int, table: Array, ahead: Array, h: Array,
    h_transposed: Array, shift: Array, z: Array, gz: Array, of_channels: Array,
    back: Any, analysis: Any, analysis_back: Any, half: Array,
    g: int, g_rows: Array, g_channel: int, ans: int, ans_rows: Array, ans_channel: int, scaled: Array, sums: Array,
    spectrum: Array, block: Array, offsets: Array, turned: Array, matrices: Array, part: Array, totals: Array,
    gx: Array, gx_starts: Array, gh_part: Array, gh: Array, shift_sums: Array,
) -> None:  # fmt: skip
    """Cotangents of `factored`, whose z is made again: added to totals as in `contract_adjoints`, gx, gh, shift_sums.

    gx holds the lines of the extended x that these lines read, its rows from `gx_starts` on, gh (groups, taps,
    channels, lanes) sums by lanes; each total has an equal part. `h_transposed` is (groups, channels, taps); z and gz
    are room for (channels, rows of a phase, positions).
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    frequencies, row = block.shape[0], block.strides[2]
    out, groups, channels = block.shape[1] * block.shape[2], h.shape[0], z.shape[0]
    for line in range(begin_line, end_line):
        for c in range(-(-n // chunk)):
            begin, end = _chunk(c, n, chunk, lanes)
            m, width = end - begin, -(-(end - begin) // lanes) * lanes
            for channel in range(block.shape[2]):
                at = (line * n + begin) * size
                taken, answers = g + channel * g_channel + at, ans + channel * ans_channel + at
                to = block.ctypes.data + channel * row
                _run_elu_vjp(like, back, taken, g_rows, answers, ans_rows, to, half, m, scaled, sums, channel)
            for f in range(frequencies):
                _turn(like, turned[f], m, block[f].ctypes.data, row, out)
            taken = x + line * line_step + begin * size
            at, step = (line - begin_line) * (line_step // size) + begin, gz.strides[1]
            for p in range(rows_from.size - 1):
                rows = starts[rows_from[p] : rows_from[p + 1]]
                first_back, last_back = steps_from[-1] - steps_from[p + 1], steps_from[-1] - steps_from[p]
                for group in range(groups):
                    k = p * groups + group
                    _expand(
                        like, m, taken, rows, table, ahead, h[group], shift[group], z, 1,
                        analysis, steps_from[p], steps_from[p + 1], spectrum, half,
                    )  # fmt: skip
                    for f in range(frequencies):
                        a, b = spectrum[f].ctypes.data, block[f].ctypes.data
                        add_outer_products(like, part[k, f], a, row, m, turned[f])
                        combine_rows(like, a, row, width, b, offsets[:out], matrices[k, f])
                    for channel in range(channels):
                        source, to = spectrum.ctypes.data + channel * row, gz[channel].ctypes.data
                        _run(like, analysis_back, first_back, last_back, source, to, half, m)
                        if m < gz.shape[2]:
                            gz[channel, :, m:] = 0
                        answers, n_part = z[channel].ctypes.data, rows.size * gz.shape[2]
                        shift_sums[group, channel] += elu_vjp_run(like, to, answers, to, n_part)
                    for v in range(0, rows.size, ROWS):
                        cotangents, of_rows = gz[0, v].ctypes.data, rows[v : v + ROWS]
                        correlate_rows(gh_part[group], taken, table, cotangents, gz.strides[0], step, width, of_rows)
                        for i in range(of_rows.size):
                            to = gx.ctypes.data + (gx_starts[rows_from[p] + v + i] + at) * size
                            spread_rows(like, to, table, m, cotangents + i * step, of_channels, h_transposed[group])
            for group in range(groups):
                _pass_on(gh_part[group], gh[group])
        if totals.size and (line == end_line - 1 or (line + 1) * n // RUN > line * n // RUN):
            _pass_on(part, totals)


@compiled(_nrt=True)
def pad(
    x: Array, centre: Any, before1: int, before2: int, more1: int, more2: int, periodic1: bool, periodic2: bool
) -> Array:
    """Return x (n1, n2, inner) less its centre, with more1 and more2 samples more, some of them before."""
    n1, n2, inner = x.shape
    padded, lines, n = empty((n1 + more1, (n2 + more2) * inner), x.dtype), x.reshape(n1, n2 * inner), n2 * inner
    for i in range(n1 + more1):
        a, row = i - before1, padded[i]
        if not (periodic1 or 0 <= a < n1):
            row[:] = -centre
            continue
        line, own = lines[a % n1], row[before2 * inner : before2 * inner + n]
        for c in range(n):
            own[c] = line[c] - centre
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


@compiled(_nrt=True)
def gram(x: Array, y: Array, s1: int, s2: int, inner: int, symmetric: bool, products: Array) -> None:
    """Add the inner products of windows of rows of y with those of rows of x, both from `pad`, to products.

    That is (kinds of rows, distances, s2, s2): entry (k, d, r, t) is of window r of a row of y and window t of a row a
    of x, d rows from the first that meets it: a if x is y, `symmetric`, else a - s1 + 1 or row 0. Rows met by all taps
    are of one kind, others of one each.
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
        for begin in range(0, n - lanes + 1, RUN):
            part[:] = 0
            n_part = n - begin if n - begin < RUN + lanes else RUN
            source, other = y[first, begin:].ctypes.data, x[a, begin:].ctypes.data
            correlate_rows(part, source, of_rows, other, inner * x.itemsize, 0, n_part, ORIGIN)
            for k in range(part.shape[0]):
                for t in range(s2):
                    sums[k // s2, k % s2, t] += part[k, t]
        for k in range(part.shape[0] if lone else 0):
            for t in range(s2):
                for i in range(lone):
                    sums[k // s2, k % s2, t] += x[a, t * inner + i] * y[first + k // s2, k % s2 * inner + i]


@compiled()
def _add_gram(products: Array, rows: int, symmetric: bool, total: Array) -> None:
    """Add sum over u of P_t(x)[u] P_t'(y)[u], which `gram` made products of, to total (s1, s2, s1, s2), taps reversed.

    Rows a of x and b of y meet as taps t1 and t1 + b - a of every patch that holds both. If x is y each pair of rows
    was multiplied once and counts for both orders.
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
    x: Array, x_centre: Any, y: Array, y_centre: Any, symmetric: bool, before: Any, periodic: Any, sums: Array,
    total: Array,
) -> None:  # fmt: skip
    """Add `position_sums` of x (samples, n1, n2, inner) to sums, if there is room, and products of patches to total.

    That is (s1, s2, s1, s2), of patches of x with those of y; see `_add_gram`. Patches begin `before` their position;
    both lose their centres. If x is y, `symmetric`, it is worked on once.
    """
    s1, s2 = total.shape[:2]
    rows = x.shape[1] + s1 - 1
    products = np.zeros((min(rows, 2 * s1 - 1), s1 if symmetric else 2 * s1 - 1, s2, s2), np.float64)
    for sample in range(x.shape[0]):
        if sums.size:
            position_sums(x[sample : sample + 1], x_centre, sums)
        padded = pad(x[sample], x_centre, before[0], before[1], s1 - 1, s2 - 1, periodic[0], periodic[1])
        other = padded
        if not symmetric:
            other = pad(y[sample], y_centre, before[0], before[1], s1 - 1, s2 - 1, periodic[0], periodic[1])
        gram(padded, other, s1, s2, x.shape[3], symmetric, products)
    _add_gram(products, rows, symmetric, total)


@compiled()
def _taps_at(p: int, n: int, s: int, periodic: bool) -> tuple[int, int]:
    """The first and the end of the taps by which position p of an axis is read."""
    return (0, s) if periodic else (max(0, s // 2 - p), min(s, n + s // 2 - p))


@compiled(_nrt=True)
def _stretches(n: int, s: int, periodic: bool, step: int) -> tuple[Array, int]:
    """Where stretches of positions begin, and the last ends, of which as many in a row as a step are read alike."""
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
def _coefficients(taps1: tuple[int, int], taps2: tuple[int, int], matrix: Array, offset: Array, to: Array) -> Any:
    """Write what samples around a position that these taps read are multiplied by to `to`; return what is added."""
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
def spreads(x: Array, centre: Any, periodic: Any, matrix: Array, offset: Array, other: Array, y: Array) -> None:
    """Write sum over u and t of (offset_t + sum_t' matrix_tt' P_t'(x)[u]) at tap t of patch u to y, for every sample.

    x, which loses its centre, and y are (samples, n1, n2, inner); so is `other`, which is added unless it has none.

    A position p meets tap t of the patch around u = p + t - s // 2, if there is one, which reads x at p + t - t' for
    t': a correlation with 2 s - 1 taps along each axis, whose coefficients are others only near zero boundaries. Two
    lines of positions, which read most samples in common, are made at once.
    """
    (s1, s2), (_, n1, n2, inner) = offset.shape, x.shape
    steps1, steps2, width = 2 * s1 - 1, 2 * s2 - 1, (n2 + 2 * s2 - 2) * inner
    table = empty((steps1 + 1) * steps2, np.int64)
    for k in range(table.size):
        table[k] = (k // steps2 * width + k % steps2 * inner) * x.itemsize
    begins, stretches = _stretches(n2, s2, periodic[1], 1)
    ends, pairs = _stretches(n1, s1, periodic[0], 2)
    factors = np.zeros((pairs, stretches, steps1 + 1, steps2, 2), x.dtype)
    constants = empty((pairs, stretches, 2), x.dtype)
    for pair in range(pairs):
        for k in range(stretches):
            along = _taps_at(begins[k], n2, s2, periodic[1])
            for i in range(2):
                across = _taps_at(min(ends[pair] + i, n1 - 1), n1, s1, periodic[0])
                of_line = factors[pair, k, i : i + steps1, :, i]
                constants[pair, k, i] = _coefficients(across, along, matrix, offset, of_line)
    others, lines = other.reshape(-1, n2 * inner), y.reshape(-1, n2 * inner)
    for sample in range(x.shape[0]):
        padded = pad(x[sample], centre, s1 - 1, s2 - 1, 2 * s1 - 2, 2 * s2 - 2, periodic[0], periodic[1])
        pair = 0
        for p in range(0, n1, 2):
            rows, first = min(2, n1 - p), sample * n1 + p
            if p == ends[pair + 1]:
                pair += 1
            for k in range(stretches):
                begin, end = begins[k] * inner, begins[k + 1] * inner
                matrices = factors[pair, k].reshape(-1, 2)
                if rows == 1:
                    matrices = np.ascontiguousarray(matrices[: steps1 * steps2, :1])
                to, source = lines[first, begin:].ctypes.data, padded[p, begin:].ctypes.data
                combine_rows(x, to, lines.strides[0], end - begin, source, table[: matrices.shape[0]], matrices)
                for i in range(rows):
                    row, constant = lines[first + i, begin:end], constants[pair, k, i]
                    if other.size:
                        more = others[first + i, begin:end]
                        for c in range(row.size):  # the other, which is large, last: one rounding less of its size
                            row[c] = (row[c] + constant) + more[c]
                    else:
                        for c in range(row.size):
                            row[c] += constant


@compiled()
def elu_run(like: Array, out: int, x: int, n: int, bias: Any) -> None:
    """Write the ELU of n elements of x, plus a bias; out may be x."""
    lanes, size = VECTOR_BYTES // like.itemsize, like.itemsize
    whole = n - n % lanes
    for i in range(0, whole, lanes):
        elu_of(like, 1, out + i * size, x + i * size, bias)
    for i in range(whole, n):
        elu_of(like, 0, out + i * size, x + i * size, bias)


@compiled()
def elu(out: Array, x: Array, bias: Array) -> None:
    """Write the ELU of x (rows, length) + bias (rows,); arrays of any strides."""
    one_by_one = x.strides[1] != x.itemsize or out.strides[1] != x.itemsize
    for row in range(x.shape[0]):
        to, source = out[row].ctypes.data, x[row].ctypes.data
        if not one_by_one:
            elu_run(x, to, source, x.shape[1], bias[row])
        for i in range(x.shape[1] if one_by_one else 0):
            elu_of(x, 0, to + i * out.strides[1], source + i * x.strides[1], bias[row])


@compiled()
def elu_vjp_run(like: Array, out: int, ans: int, g: int, n: int) -> Any:
    """Write g where n elements of ans are positive, g * (1 + ans) elsewhere, and return the sum; out may be g."""
    size, count = like.itemsize, n * like.itemsize // VECTOR_BYTES
    at = count * VECTOR_BYTES
    rest: Any = elu_vjp_of(like, 0, out + at, ans + at, g + at, n - at // size)
    return elu_vjp_of(like, 1, out, ans, g, count) + rest


@compiled()
def elu_vjp(out: Array, ans: Array, g: Array) -> None:
    """Write g where ans is positive, g * (1 + ans) elsewhere; arrays of any strides, g of either dtype."""
    zero, one = ans.dtype.type(0), ans.dtype.type(1)
    for i in range(ans.shape[0]):
        a = ans[i]
        out[i] = g[i] * ((zero if a > zero else a) + one)


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
