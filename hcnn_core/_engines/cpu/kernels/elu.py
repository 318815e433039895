"""The exponential linear unit and its cotangent, and that of the rectified linear unit."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, Vectors, address


@intrinsic(prefer_literal=True)
def elu_of(typing: Any, like: Any, vectors: Any, out: Any, x: Any, bias: Any) -> Any:
    """Write the ELU of one vector of x plus a bias; of one number if `vectors` is 0."""
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
    """Write g times the derivative of the ELU whose result is `ans`, and return the sum of the products.

    `count` counts vectors; numbers if `vectors` is 0.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    signature = like.dtype(like, vectors, *(types.int64,) * 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, ans, g, count = arguments[2:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth if vectors.literal_value else 1)
        (total,) = v.sums(1)
        with cgutils.for_range(builder, count) as loop:
            at = builder.mul(loop.index, INT64(v.lanes * v.size))
            product = v.elu_vjp(v.load(builder.add(ans, at)), v.load(builder.add(g, at)))
            builder.store(product, v.at(builder.add(out, at), 0), align=v.size)
            builder.store(builder.fadd(builder.load(total), product), total)
        return v.total(total)

    return signature, generate


@compiled()
def elu_line(like: NDArray, out: int, x: int, n: int, bias: Any) -> None:
    """Write the ELU of a line of n elements of x plus a bias; out may be x."""
    lanes, size = VECTOR_BYTES // like.itemsize, like.itemsize
    whole = n - n % lanes
    for i in range(0, whole, lanes):
        elu_of(like, 1, out + i * size, x + i * size, bias)
    for i in range(whole, n):
        elu_of(like, 0, out + i * size, x + i * size, bias)


@compiled()
def elu(out: NDArray, x: NDArray, bias: NDArray) -> None:
    """Write the ELU of x (rows, length) + bias (rows,). Arrays may have any strides."""
    one_by_one = x.strides[1] != x.itemsize or out.strides[1] != x.itemsize
    for row in range(x.shape[0]):
        to, source = address(out[row]), address(x[row])
        if not one_by_one:
            elu_line(x, to, source, x.shape[1], bias[row])
        for i in range(x.shape[1] if one_by_one else 0):
            elu_of(x, 0, to + i * out.strides[1], source + i * x.strides[1], bias[row])


@compiled()
def elu_vjp_line(like: NDArray, out: int, ans: int, g: int, n: int) -> Any:
    """Write g where a line of n elements of ans is positive, g * (1 + ans) elsewhere; return the sum. out may be g."""
    size, count = like.itemsize, n * like.itemsize // VECTOR_BYTES
    at = count * VECTOR_BYTES
    rest: Any = elu_vjp_of(like, 0, out + at, ans + at, g + at, n - at // size)
    return elu_vjp_of(like, 1, out, ans, g, count) + rest


@compiled()
def elu_vjp(out: NDArray, ans: NDArray, g: NDArray) -> None:
    """Write g where ans is positive, g * (1 + ans) elsewhere. Arrays may have any strides; g may be of either dtype."""
    zero, one = ans.dtype.type(0), ans.dtype.type(1)
    for i in range(ans.shape[0]):
        a = ans[i]
        out[i] = g[i] * ((zero if a > zero else a) + one)


@compiled()
def relu_vjp(out: NDArray, ans: NDArray, g: NDArray) -> None:
    """Write g where ans is positive, 0 elsewhere. Arrays may have any strides; g may be of either dtype."""
    zero = ans.dtype.type(0)
    for i in range(ans.shape[0]):
        out[i] = g[i] if ans[i] > zero else zero
