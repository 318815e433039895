"""Innermost loops of matrix products, written as LLVM vectors so that their sums stay in registers.

Compilers keep a block of sums in registers only if told so: these are the micro-kernels of a BLAS, except that rows of
an operand lie wherever a table of offsets says. Taps of a convolution are rows of one array, read where they lie.
Addresses, offsets and strides are in bytes.
"""

# mypy: disable-error-code="misc,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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

_int32, _int64 = ir.IntType(32), ir.IntType(64)


class _Vectors:
    """Vectors of one dtype in a function under construction."""

    def __init__(self, builder: Any, number: Any) -> None:
        self.builder = builder
        self.size = number.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.size
        self.scalar = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.scalar, self.lanes)
        name = f"llvm.fma.v{self.lanes}f{8 * self.size}"
        self.fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(self.type, [self.type] * 3), name)

    def pointer(self, address: Any, type_: Any) -> Any:
        return self.builder.inttoptr(address, type_.as_pointer())

    def at(self, address: Any, vector: int) -> Any:
        return self.pointer(self.builder.add(address, _int64(vector * VECTOR_BYTES)), self.type)

    def load(self, address: Any, vector: int = 0) -> Any:
        return self.builder.load(self.at(address, vector), align=self.size)

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

    `like` is any array of the dtype of all.
    """
    if not isinstance(rows, types.IntegerLiteral) or not isinstance(vectors, types.IntegerLiteral):
        return None
    signature = types.void(like, rows, vectors, *(types.int64,) * 7)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, table, count, matrix, matrix_stride = arguments[3:]
        v = _Vectors(builder, like.dtype)
        sums = [v.sums(vectors.literal_value) for _ in range(rows.literal_value)]
        with cgutils.for_range(builder, count) as loop:
            source = builder.add(x, _offset(builder, table, loop.index))
            terms = [v.load(source, i) for i in range(vectors.literal_value)]
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
        v = _Vectors(builder, like.dtype)
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
