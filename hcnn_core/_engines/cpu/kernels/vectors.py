"""SIMD vectors in LLVM, and the exponential linear unit of them."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial

WIDTHS = {"avx": 16, "avx2": 32, "avx512f": 64}
"""x86 instruction sets, each of which needs those before it, and the bytes of the kernels' vectors with each."""


def vector_bytes(host: Mapping[str, bool], name: str | None, features: str | None) -> int:
    """Bytes of a vector, by the processor's instructions and by NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, as Numba does.

    Features add instructions (+avx2) or take some away (-avx512f). Beside a name they are all that is known of it.
    """
    width = max((width for feature, width in WIDTHS.items() if host.get(feature)), default=16)
    if features is not None:
        width = width if name is None else 16
        for feature in features.split(","):
            if count := WIDTHS.get(feature[1:]):
                width = max(width, count) if feature[0] == "+" else min(width, max(16, count // 2))
    return width


_host = llvmlite.binding.get_host_cpu_features()

VECTOR_BYTES = vector_bytes(_host, config.CPU_NAME, config.CPU_FEATURES)
"""Bytes of a vector register."""

REGISTERS = 16 if "avx" in _host and VECTOR_BYTES < 64 else 32
"""Vector registers. 64-bit Arm has as many as AVX-512, and no feature named avx."""

INT32, INT64 = ir.IntType(32), ir.IntType(64)


class Vectors:
    """Instructions on vectors of one dtype, written to a function that is being built.

    Addresses are int64 values in bytes.
    """

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
        """Pointer to the vector with this number after an address."""
        return self.pointer(self.builder.add(address, INT64(vector * self.lanes * self.size)), self.type)

    def load(self, address: Any, vector: int = 0) -> Any:
        return self.builder.load(self.at(address, vector), align=self.size)

    def constant(self, number: float) -> Any:
        return ir.Constant(self.type, [ir.Constant(self.scalar, float(number))] * self.lanes)

    def repeat(self, address: Any) -> Any:
        """Return the number at an address in all lanes."""
        return self.spread(self.builder.load(self.pointer(address, self.scalar)))

    def spread(self, number: Any) -> Any:
        """One number in all lanes."""
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, number, INT32(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, self.lanes), None))

    def sums(self, count: int) -> list[Any]:
        """Variables that begin at zero; LLVM keeps them in registers."""
        variables = [cgutils.alloca_once(self.builder, self.type) for _ in range(count)]
        for variable in variables:
            self.builder.store(ir.Constant(self.type, None), variable)
        return variables

    def accumulate(self, variable: Any, a: Any, b: Any) -> None:
        self.builder.store(self.builder.call(self.fma, [a, b, self.builder.load(variable)]), variable)

    def first_lanes(self, count: Any) -> Any:
        """Mask of the first `count` lanes."""
        integers = ir.VectorType(INT32, self.lanes)
        undefined = ir.Constant(integers, ir.Undefined)
        first = self.builder.insert_element(undefined, self.builder.trunc(count, INT32), INT32(0))
        counts = self.builder.shuffle_vector(first, undefined, ir.Constant(integers, None))
        return self.builder.icmp_signed("<", ir.Constant(integers, list(range(self.lanes))), counts)

    def total(self, variable: Any) -> Any:
        """Sum of all lanes: one half is added to the other until one lane is left."""
        builder, vector, lanes = self.builder, self.builder.load(variable), self.lanes
        while lanes > 1:
            lanes //= 2
            halves = [
                builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(INT32, lanes), list(half)))
                for half in (range(lanes), range(lanes, 2 * lanes))
            ]
            vector = builder.fadd(*halves)
        return builder.extract_element(vector, INT32(0))

    def store_transposed(self, rows: list[Any], out: Any, out_stride: Any) -> None:
        """Write as many vectors as they have lanes, transposed."""
        builder, n = self.builder, self.lanes
        half = [[(n * (i % 2) + i // 2) + begin for i in range(n)] for begin in (0, n // 2)]
        masks = [ir.Constant(ir.VectorType(INT32, n), indices) for indices in half]
        for _ in range(n.bit_length() - 1):  # interleave rows i and i + n / 2
            rows = [builder.shuffle_vector(rows[i // 2], rows[i // 2 + n // 2], masks[i % 2]) for i in range(n)]
        for r, row in enumerate(rows):
            builder.store(row, self.at(builder.add(out, builder.mul(INT64(r), out_stride)), 0), align=self.size)

    def choose(self, operator: str, a: Any, b: Any, then: Any, otherwise: Any) -> Any:
        """`then` where an ordered comparison holds, `otherwise` where it does not or where a number is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(operator, a, b), then, otherwise)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self.fma, [a, b, c])

    def elu(self, c: Any) -> Any:
        """Exponential linear unit: c where c > 0, else exp(c) - 1 = 2^n exp(r) - 1 with c = n ln 2 + r."""
        builder, series = self.builder, EXP[self.size]
        m = self.choose("<", c, self.constant(series.least), self.constant(series.least), c)
        shifted = self.multiply_add(m, self.constant(LOG2_E), self.constant(series.round))
        n = builder.fsub(shifted, self.constant(series.round))  # to the nearest integer
        r = self.multiply_add(n, self.constant(-math.log(2)), m)  # an error of n ulps of ln 2: small, as 2^n is
        integers = ir.VectorType(ir.IntType(8 * self.size), self.lanes)
        digits = ir.Constant(integers, [series.digits] * self.lanes)
        one = builder.bitcast(self.constant(1), integers)
        exponent = builder.shl(builder.bitcast(shifted, integers), digits)  # n is in the last digits
        power = builder.bitcast(builder.add(exponent, one), self.type)
        p, *others = map(self.constant, series.factors[::-1])
        for factor in others:
            p = self.multiply_add(p, r, factor)
        p = self.multiply_add(builder.fmul(p, r), r, r)
        below = self.multiply_add(power, p, builder.fsub(power, self.constant(1)))
        return self.choose("<=", c, self.constant(0), below, c)

    def elu_vjp(self, ans: Any, g: Any) -> Any:
        """Cotangent of the argument of ``ans = elu(.)``: g where ans is positive, g (1 + ans) elsewhere."""
        zero = self.constant(0)
        return self.builder.fmul(g, self.builder.fadd(self.choose(">", ans, zero, zero, ans), self.constant(1)))


def _factors(degree: int) -> tuple[float, ...]:
    """Coefficients of a polynomial near (exp(r) - 1 - r) / r^2 for |r| <= ln 2 / 2: the Taylor series, economized."""
    taylor, domain = Polynomial([1 / math.factorial(k) for k in range(2, 22)]), [-math.log(2) / 2, math.log(2) / 2]
    return tuple(taylor.convert(kind=Chebyshev, domain=domain).cutdeg(degree).convert(kind=Polynomial).coef)


class _Exp(NamedTuple):
    """Constants of the exponential in one dtype."""

    factors: tuple[float, ...]
    """Coefficients of the polynomial, the constant first."""
    least: float
    """Arguments below this one give the same result, -1."""
    round: float
    """Added to a number and subtracted again, this rounds it to an integer."""
    digits: int
    """Digits of the significand that are stored."""


LOG2_E = 1.4426950408889634

EXP = {
    4: _Exp(_factors(4), -87, 1.5 * 2**23, 23),
    8: _Exp(_factors(10), -700, 1.5 * 2**52, 52),
}
"""By the bytes of a number."""


def _address(typing: Any, array: Any) -> Any:
    """Address of the first element of an array, an int64.

    `ctypes.data` is unsigned: with signed offsets it would make a float64.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(data, INT64)

    return types.int64(array), generate


address: Any = intrinsic(_address)  # typed, since Numba types intrinsics as functions that never return


def load_offset(builder: Any, table: Any, index: Any) -> Any:
    """Entry of a table of int64 at an address."""
    return builder.load(builder.inttoptr(builder.add(table, builder.mul(index, INT64(8))), INT64.as_pointer()), align=8)
