"""Moments of lines of elements, their normalisation with ELU or without, and its adjoint. Addresses are in bytes."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, Vectors

Body = Callable[[Vectors, Any, Any, list[Any]], tuple[Any, tuple[Any, ...]]]

BLOCK = 1 << 13
"""Elements of a block of a line: few enough to be summed in single precision, and to be read twice from cache."""

SUMS = 3
"""Most sums that a pass takes."""


def _sweep(body: Body, reads_g: bool) -> Any:
    """Make an intrinsic that calls `body(v, x, g, numbers)` along a line, stores its first result, sums the others."""

    @intrinsic(prefer_literal=True)
    def sweep(typing: Any, like: Any, vectors: Any, out: Any, x: Any, g: Any, numbers: Any, count: Any) -> Any:
        """Handle `count` vectors, or numbers where `vectors` is 0; return the sums."""
        if not isinstance(vectors, types.IntegerLiteral):
            return None
        signature = types.UniTuple(like.dtype, SUMS)(like, vectors, *(types.int64,) * 3, numbers, types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, x, g, numbers, count = arguments[2:]
            v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth if vectors.literal_value else 1)
            constants = [v.spread(number) for number in cgutils.unpack_tuple(builder, numbers)]
            sums = v.sums(SUMS)
            with cgutils.for_range(builder, count) as loop:
                at = builder.mul(loop.index, INT64(v.lanes * v.size))
                of_g = v.load(builder.add(g, at)) if reads_g else None
                value, terms = body(v, v.load(builder.add(x, at)), of_g, constants)
                if value is not None:
                    builder.store(value, v.at(builder.add(out, at), 0), align=v.size)
                for variable, term in zip(sums, terms, strict=False):
                    builder.store(builder.fadd(builder.load(variable), term), variable)
            return context.make_tuple(builder, signature.return_type, [v.total(variable) for variable in sums])

        return signature, generate

    return sweep


def _deviation(v: Vectors, x: Any, g: Any, numbers: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    d = v.builder.fsub(x, numbers[0])
    return None, (d, v.builder.fmul(d, d))


def _normal(v: Vectors, x: Any, g: Any, numbers: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    center, slope, bias = numbers[:3]
    return v.multiply_add(v.builder.fsub(x, center), slope, bias), ()


def _elu(v: Vectors, x: Any, g: Any, numbers: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    return v.elu(_normal(v, x, g, numbers)[0]), ()


def _cotangent(v: Vectors, x: Any, g: Any, numbers: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    d = v.builder.fsub(x, numbers[0])
    return None, (g, v.builder.fmul(g, d), d)


def _elu_cotangent(v: Vectors, x: Any, g: Any, numbers: list[Any]) -> tuple[Any, tuple[Any, ...]]:
    return _cotangent(v, x, v.elu_vjp(_elu(v, x, g, numbers)[0], g), numbers)


def _adjoint_of(cotangent: Body) -> Body:
    def adjoint(v: Vectors, x: Any, g: Any, numbers: list[Any]) -> tuple[Any, tuple[Any, ...]]:
        _, (of_c, _, d) = cotangent(v, x, g, numbers)
        slope, constant, tilt = numbers[1], numbers[3], numbers[4]
        return v.multiply_add(of_c, slope, v.multiply_add(d, tilt, constant)), ()

    return adjoint


_deviations = _sweep(_deviation, reads_g=False)
_normals, _elus = (_sweep(body, reads_g=False) for body in (_normal, _elu))
_cotangents, _elu_cotangents = (_sweep(body, reads_g=True) for body in (_cotangent, _elu_cotangent))
_adjoints, _elu_adjoints = (_sweep(_adjoint_of(body), reads_g=True) for body in (_cotangent, _elu_cotangent))


@compiled(inline="always")
def _place(block: int, n: int) -> tuple[int, int, int]:
    """Return the line of a block, and its first element and length there."""
    per_line = (n + BLOCK - 1) // BLOCK
    begin = block % per_line * BLOCK
    return block // per_line, begin, min(BLOCK, n - begin)


@compiled()
def moments(like: NDArray, sums: NDArray, first: int, last: int, n: int, x: NDArray) -> None:
    """Write each block's mean, and its sum of squared deviations from the mean, to `sums` (blocks, 2).

    `x` holds the addresses of lines of n elements. Deviations are taken from a first mean, so that squares lose no
    digits where the mean is large.
    """
    size, lanes, none = like.itemsize, VECTOR_BYTES // like.itemsize, like.dtype.type(0)
    for block in range(first, last):
        line, begin, count = _place(block, n)
        at, whole = x[line] + begin * size, count // lanes
        rest, left = at + whole * VECTOR_BYTES, count % lanes
        center = (
            _deviations(like, 1, 0, at, 0, (none,), whole)[0] + _deviations(like, 0, 0, rest, 0, (none,), left)[0]
        ) / like.dtype.type(count)
        a, b = _deviations(like, 1, 0, at, 0, (center,), whole), _deviations(like, 0, 0, rest, 0, (center,), left)
        off = (np.float64(a[0]) + np.float64(b[0])) / count
        sums[block, 0] = center + off
        sums[block, 1] = np.float64(a[1]) + np.float64(b[1]) - count * off * off


@compiled()
def normalize(
    like: NDArray, first: int, last: int, n: int, out: NDArray, x: NDArray, numbers: NDArray, rectified: bool
) -> None:
    """Write (x - center) * slope + bias, or its ELU; `numbers` (lines, 3) holds the three."""
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    for block in range(first, last):
        line, begin, count = _place(block, n)
        to, at, whole = out[line] + begin * size, x[line] + begin * size, count // lanes
        done, left = whole * VECTOR_BYTES, count % lanes
        factors = (numbers[line, 0], numbers[line, 1], numbers[line, 2])
        if rectified:
            _elus(like, 1, to, at, 0, factors, whole)
            _elus(like, 0, to + done, at + done, 0, factors, left)
        else:
            _normals(like, 1, to, at, 0, factors, whole)
            _normals(like, 0, to + done, at + done, 0, factors, left)


@compiled()
def cotangents(
    like: NDArray,
    sums: NDArray,
    first: int,
    last: int,
    n: int,
    x: NDArray,
    g: NDArray,
    numbers: NDArray,
    rectified: bool,
) -> None:
    """Write each block's sums of c's cotangent, of the same times x - center, and of x - center to (blocks, 3).

    c is (x - center) * slope + bias; g holds the addresses of cotangents of the result of `normalize`.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    for block in range(first, last):
        line, begin, count = _place(block, n)
        at, of, whole = x[line] + begin * size, g[line] + begin * size, count // lanes
        done, left = whole * VECTOR_BYTES, count % lanes
        factors = (numbers[line, 0], numbers[line, 1], numbers[line, 2])
        if rectified:
            a = _elu_cotangents(like, 1, 0, at, of, factors, whole)
            b = _elu_cotangents(like, 0, 0, at + done, of + done, factors, left)
        else:
            a = _cotangents(like, 1, 0, at, of, factors, whole)
            b = _cotangents(like, 0, 0, at + done, of + done, factors, left)
        for i in range(SUMS):
            sums[block, i] = np.float64(a[i]) + np.float64(b[i])


@compiled()
def adjoint(
    like: NDArray,
    first: int,
    last: int,
    n: int,
    out: NDArray,
    x: NDArray,
    g: NDArray,
    numbers: NDArray,
    rectified: bool,
) -> None:
    """Write slope times c's cotangent + constant + tilt * (x - center).

    `numbers` (lines, 5) holds center, slope, bias, constant and tilt.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    for block in range(first, last):
        line, begin, count = _place(block, n)
        to, at, of, whole = out[line] + begin * size, x[line] + begin * size, g[line] + begin * size, count // lanes
        done, left = whole * VECTOR_BYTES, count % lanes
        factors = (numbers[line, 0], numbers[line, 1], numbers[line, 2], numbers[line, 3], numbers[line, 4])
        if rectified:
            _elu_adjoints(like, 1, to, at, of, factors, whole)
            _elu_adjoints(like, 0, to + done, at + done, of + done, factors, left)
        else:
            _adjoints(like, 1, to, at, of, factors, whole)
            _adjoints(like, 0, to + done, at + done, of + done, factors, left)
