"""Derivatives of NumPy functions: the handlers of the tape.

Three kinds of handlers: a primitive, with ``maker(ans, *args)`` for each argument, which returns the function from the
cotangent g of the answer to that of the argument; a composite, a function of primitives, differentiated through them;
and plain functions, piecewise constant, whose answers are not traced. The tape undoes broadcasting and promotion: the
cotangent of an argument may have the shape and dtype of the answer.
"""

from __future__ import annotations

import inspect
import math
import operator
import string
from collections.abc import Callable, Iterable, Sequence
from types import EllipsisType
from typing import Any

import numpy as np

from autodiff.functional import vjp
from autodiff.pytree import tree_map
from autodiff.tape import HANDLERS, Primitive, defvjp, defvjp_argnums, getval, primitive
from hcnn_core import products
from hcnn_core.backend import Array, array_namespace, joined

__all__ = ["composite", "plain", "rule"]

Shape = tuple[int, ...]


def rule(function: Any, *makers: Callable[..., Any] | None, fun: Callable[..., Any] | None = None) -> Primitive:
    """Make a NumPy function (computed by `fun`, if given) a primitive with these derivatives."""
    made = primitive(fun or function)
    defvjp(made, *makers)
    maker = next(maker for maker in makers if maker)
    _register(function, made, list(inspect.signature(maker).parameters)[1:])
    return made


def composite(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let the decorated function stand in for these NumPy functions."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            _register(function, handler, list(inspect.signature(handler).parameters))
        return handler

    return register


def plain(function: Any) -> None:
    """Evaluate the function on the arrays alone, with no gradient."""

    def untraced(*args: Any, **kwargs: Any) -> Any:
        return function(*tree_map(getval, args), **tree_map(getval, kwargs))

    HANDLERS[function] = untraced


def _register(function: Any, handler: Any, keywords: list[str]) -> None:
    """Make the handler stand in for the function, with the keywords it knows."""
    HANDLERS[function] = handler
    handler.keywords = tuple(keywords)


# Elementwise, one argument

LOG2, LOG10 = math.log(2), math.log(10)

rule(np.negative, lambda ans, x: lambda g: -g)
rule(np.positive, lambda ans, x: lambda g: g)
rule(np.exp, lambda ans, x: lambda g: g * ans)
rule(np.expm1, lambda ans, x: lambda g: g * (ans + 1))
rule(np.exp2, lambda ans, x: lambda g: g * (LOG2 * ans))
rule(np.log, lambda ans, x: lambda g: g / x)
rule(np.log1p, lambda ans, x: lambda g: g / (x + 1))
rule(np.log2, lambda ans, x: lambda g: g / (LOG2 * x))
rule(np.log10, lambda ans, x: lambda g: g / (LOG10 * x))
rule(np.sqrt, lambda ans, x: lambda g: g / (2 * ans))
rule(np.cbrt, lambda ans, x: lambda g: g / (3 * np.square(ans)))
rule(np.square, lambda ans, x: lambda g: g * (2 * x))
rule(np.reciprocal, lambda ans, x: lambda g: -g * np.square(ans))
rule(np.sin, lambda ans, x: lambda g: g * np.cos(x))
rule(np.cos, lambda ans, x: lambda g: -g * np.sin(x))
rule(np.tan, lambda ans, x: lambda g: g * (1 + np.square(ans)))
rule(np.arcsin, lambda ans, x: lambda g: g / np.sqrt(1 - np.square(x)))
rule(np.arccos, lambda ans, x: lambda g: -g / np.sqrt(1 - np.square(x)))
rule(np.arctan, lambda ans, x: lambda g: g / (1 + np.square(x)))
rule(np.sinh, lambda ans, x: lambda g: g * np.cosh(x))
rule(np.cosh, lambda ans, x: lambda g: g * np.sinh(x))
rule(np.tanh, lambda ans, x: lambda g: g * (1 - np.square(ans)))
rule(np.arcsinh, lambda ans, x: lambda g: g / np.sqrt(1 + np.square(x)))
rule(np.arccosh, lambda ans, x: lambda g: g / (np.sqrt(x - 1) * np.sqrt(x + 1)))  # right in the complex plane too
rule(np.arctanh, lambda ans, x: lambda g: g / (1 - np.square(x)))
rule(np.conjugate, lambda ans, x: lambda g: np.conj(g))
rule(np.real, lambda ans, val: lambda g: g)
rule(np.imag, lambda ans, val: lambda g: -1j * g)
rule(np.fabs, lambda ans, x: lambda g: g * np.sign(x))
rule(
    np.absolute,
    lambda ans, x: (lambda g: g / _nonzero(ans) * np.conj(x)) if np.iscomplexobj(x) else (lambda g: g * np.sign(x)),
)


def _nonzero(x: Array) -> Array:
    """The norms x, with 1 for 0, where a norm has the subgradient 0."""
    return np.where(x == 0, 1, x)


@composite(np.sign)
def sign(x: Array) -> Array:
    if np.iscomplexobj(x):
        raise TypeError("numpy.sign of complex traced values has no derivative here: write z / abs(z)")
    return np.sign(getval(x))


# Elementwise, two arguments

rule(np.add, lambda ans, x, y: lambda g: g, lambda ans, x, y: lambda g: g)
rule(np.subtract, lambda ans, x, y: lambda g: g, lambda ans, x, y: lambda g: -g)
rule(np.multiply, lambda ans, x, y: lambda g: g * y, lambda ans, x, y: lambda g: g * x)
rule(np.divide, lambda ans, x, y: lambda g: g / y, lambda ans, x, y: lambda g: -g * ans / y)
rule(np.remainder, lambda ans, x, y: lambda g: g, lambda ans, x, y: lambda g: -g * np.floor_divide(x, y))
rule(
    np.arctan2,
    lambda ans, x, y: lambda g: g * y / (np.square(x) + np.square(y)),
    lambda ans, x, y: lambda g: -g * x / (np.square(x) + np.square(y)),
)
rule(
    np.hypot,
    lambda ans, x, y: lambda g: g / _nonzero(ans) * x,
    lambda ans, x, y: lambda g: g / _nonzero(ans) * y,
)
rule(
    np.logaddexp,
    lambda ans, x, y: lambda g: g * np.exp(x - ans),
    lambda ans, x, y: lambda g: g * np.exp(y - ans),
)


def power_vjp_x(ans: Array, x: Array, y: Array) -> Any:
    if not hasattr(y, "__array_function__"):  # a number, which promotes as such
        return None if y == 0 else lambda g: g * (y * x ** (y - 1))
    return lambda g: g * (y * x ** np.where(y == 0, 1, y - 1))


def power_vjp_y(ans: Array, x: Array, y: Array) -> Any:
    return lambda g: g * (ans * np.log(np.where(x == 0, 1, x)))  # 0**y is flat in y > 0


rule(np.power, power_vjp_x, power_vjp_y)


def extremum_vjp(ans: Array, x: Array, y: Array) -> Any:
    """The gradient goes to x where x was chosen; a tie shares it."""
    return lambda g: np.where(x == y, g / 2, np.where(x == ans, g, 0))


for _extremum in (np.maximum, np.minimum, np.fmax, np.fmin):
    rule(_extremum, extremum_vjp, lambda ans, x, y: extremum_vjp(ans, y, x))

_where = rule(
    np.where,
    None,
    lambda ans, condition, x, y: lambda g: np.where(condition, g, 0),
    lambda ans, condition, x, y: lambda g: np.where(condition, 0, g),
)


@composite(np.where)
def where(condition: Array, *choices: Array) -> Any:
    return _where(getval(condition), *choices) if choices else np.where(getval(condition))


@composite(np.clip)
def clip(
    a: Array, a_min: Any = None, a_max: Any = None, out: None = None, *, min: Any = None, max: Any = None
) -> Array:
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    a = a if low is None else np.maximum(a, low)
    return a if high is None else np.minimum(a, high)


# Reductions


def _axes(axis: Any, ndim: int) -> Shape:
    """The axes as a tuple of numbers from 0 up."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(operator.index(a) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    for a in axes:
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim)
    return tuple(a % ndim for a in axes)


def _kept(shape: Shape, axis: Any) -> Shape:
    """The shape of a reduction that keeps its axes, with length 1."""
    axes = _axes(axis, len(shape))
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def _count(x: Array, axis: Any) -> int:
    """How many elements each element of a reduction stands for."""
    shape = np.shape(x)
    return math.prod(shape[i] for i in _axes(axis, len(shape)))


def sum_vjp(ans: Array, a: Array, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Any:
    shape = np.shape(a)
    return lambda g: np.broadcast_to(np.reshape(g, _kept(shape, axis)), shape)


def mean_vjp(
    ans: Array, a: Array, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False
) -> Any:
    shape, count = np.shape(a), _count(a, axis)
    return lambda g: np.broadcast_to(np.reshape(g / count, _kept(shape, axis)), shape)


def prod_vjp(
    ans: Array, a: Array, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False
) -> Any:
    shape = np.shape(a)
    axes = _axes(axis, len(shape))
    rest = [i for i in range(len(shape)) if i not in axes]

    def product(a: Array) -> Array:  # by halves, so that zeros are factors like any other
        a = np.reshape(np.transpose(a, (*axes, *rest)), (_count(a, axis), *(shape[i] for i in rest)))
        while (half := len(a) // 2) > 0:
            a = np.concatenate([a[:half] * a[half : 2 * half], a[2 * half :]])
        return np.sum(a, axis=0)

    return lambda g: vjp(product, a)[1](np.reshape(g, [shape[i] for i in rest]))[0]


def max_vjp(ans: Array, a: Array, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
    kept = _kept(np.shape(a), axis)

    def pullback(g: Array) -> Array:
        chosen = a == np.reshape(ans, kept)
        ties = np.sum(chosen, axis=axis, keepdims=True, dtype=g.dtype)
        return np.where(chosen, np.reshape(g, kept) / ties, 0)

    return pullback


def cumsum_vjp(ans: Array, a: Array, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
    shape, along = np.shape(a), 0 if axis is None else axis
    return lambda g: np.reshape(np.flip(np.cumsum(np.flip(g, along), axis=along), along), shape)


rule(np.sum, sum_vjp)
rule(np.mean, mean_vjp)
rule(np.prod, prod_vjp)
rule(np.max, max_vjp)
rule(np.amax, max_vjp)
rule(np.min, max_vjp)
rule(np.amin, max_vjp)
rule(np.cumsum, cumsum_vjp)


@composite(np.var)
def var(
    a: Array, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False
) -> Array:
    deviation = a - np.mean(a, axis=axis, dtype=dtype, keepdims=True)
    squared = np.real(deviation * np.conj(deviation)) if np.iscomplexobj(a) else np.square(deviation)
    return np.sum(squared, axis=axis, keepdims=keepdims) / max(_count(a, axis) - ddof, 0)


@composite(np.std)
def std(
    a: Array, axis: Any = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False
) -> Array:
    return np.sqrt(var(a, axis, dtype, out, ddof, keepdims))


_norm = primitive(np.linalg.norm)


def norm_vjp(ans: Array, x: Array, ord: None, axis: Any, keepdims: bool) -> Any:
    kept = _kept(np.shape(x), axis)
    return lambda g: np.reshape(g / _nonzero(ans), kept) * np.conj(x)


defvjp(_norm, norm_vjp)


@composite(np.linalg.norm)
def norm(x: Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    axes = _axes(axis, np.ndim(x))
    if not (ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2)):
        raise TypeError(
            f"numpy.linalg.norm on traced values is the 2-norm of vectors or 'fro' of matrices, not ord={ord}"
        )
    return _norm(x, None, axis, keepdims)


# Shapes


def reshape_vjp(ans: Array, a: Array, shape: Any = None, order: Any = "C") -> Any:
    if order not in ("C", "F"):
        raise TypeError(f"numpy.reshape and ravel on traced values take the order 'C' or 'F', not {order!r}")
    before = np.shape(a)
    return lambda g: np.reshape(g, before, order)


def transpose_vjp(ans: Array, a: Array, axes: Any = None) -> Any:
    if axes is None:
        return lambda g: np.transpose(g)
    order = _axes(tuple(axes), len(axes))
    return lambda g: np.transpose(g, [order.index(i) for i in range(len(order))])


def roll_vjp(ans: Array, a: Array, shift: Any, axis: Any = None) -> Any:
    back = tuple(-s for s in shift) if isinstance(shift, tuple | list) else -shift
    return lambda g: np.roll(g, back, axis)


rule(np.reshape, reshape_vjp)
rule(np.ravel, lambda ans, a, order="C": reshape_vjp(ans, a, None, order))
rule(np.squeeze, lambda ans, a, axis=None: reshape_vjp(ans, a))
rule(np.expand_dims, lambda ans, a, axis: reshape_vjp(ans, a))
rule(np.transpose, transpose_vjp)
rule(np.moveaxis, lambda ans, a, source, destination: lambda g: np.moveaxis(g, destination, source))
rule(np.swapaxes, lambda ans, a, axis1, axis2: lambda g: np.swapaxes(g, axis1, axis2))
rule(np.broadcast_to, lambda ans, array, shape: lambda g: g)
rule(np.flip, lambda ans, m, axis=None: lambda g: np.flip(g, axis))
rule(np.roll, roll_vjp)
rule(np.tril, lambda ans, m, k=0: lambda g: np.tril(g, k))
rule(np.triu, lambda ans, m, k=0: lambda g: np.triu(g, k))


def astype(x: Array, dtype: Any) -> Array:
    return x.astype(dtype)


rule(np.ndarray.astype, lambda ans, x, dtype: lambda g: g, fun=astype)
composite(np.copy)(lambda a, order="K": a)


@composite(np.tile)
def tile(A: Array, reps: Any) -> Array:
    reps = tuple(reps) if np.iterable(reps) else (reps,)
    ndim = max(len(reps), np.ndim(A))
    reps = (1,) * (ndim - len(reps)) + reps
    shape = (1,) * (ndim - np.ndim(A)) + np.shape(A)
    pairs = list(zip(reps, shape, strict=True))
    A = np.reshape(A, [n for size in shape for n in (1, size)])
    return np.reshape(np.broadcast_to(A, [n for pair in pairs for n in pair]), [r * n for r, n in pairs])


@composite(np.repeat)
def repeat(a: Array, repeats: Any, axis: int | None = None) -> Array:
    if axis is None:
        a, axis = np.ravel(a), 0
    shape = np.shape(a)
    (axis,) = _axes(axis, len(shape))
    if np.ndim(repeats) > 0:
        return np.take(a, np.repeat(np.arange(shape[axis]), repeats).tolist(), axis=axis)
    a = np.broadcast_to(np.expand_dims(a, axis + 1), (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
    return np.reshape(a, (*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))


@composite(np.pad)
def pad(array: Array, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Array:
    widths = np.broadcast_to(pad_width, (np.ndim(array), 2)).tolist()
    if mode == "constant":
        return _pad_constant(array, widths, constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise TypeError(
            f"numpy.pad on traced values has no mode {mode!r}: use constant, edge, reflect, symmetric or wrap"
        )
    for axis, width in enumerate(widths):
        if width != [0, 0]:
            array = np.take(array, np.pad(np.arange(np.shape(array)[axis]), width, mode=mode).tolist(), axis=axis)  # type: ignore[call-overload]
    return array


@primitive
def _pad_constant(array: Array, widths: Any, constant_values: Any) -> Array:
    return np.pad(array, widths, constant_values=constant_values)


def pad_constant_vjp(ans: Array, array: Array, widths: Any, constant_values: Any) -> Any:
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, np.shape(array), strict=True))
    return lambda g: g[inside]


defvjp(_pad_constant, pad_constant_vjp)


# Indexing and joining


@primitive
def scatter(g: Array, index: Any, shape: Shape) -> Array:
    """Zeros of a shape, with g added at an index: the transpose of x[index]."""
    out = np.zeros_like(g, shape=shape)
    parts = index if type(index) is tuple else (index,)
    if all(isinstance(i, int | np.integer | slice | EllipsisType | None) for i in parts):
        out[index] = g
        return out
    add = array_namespace(g).add  # an index may repeat
    if np.iscomplexobj(g):  # CuPy adds real numbers only
        add.at(out.real, index, g.real)
        add.at(out.imag, index, g.imag)
    else:
        add.at(out, index, g)
    return out


def getitem_vjp(ans: Array, x: Array, index: Any) -> Any:
    shape = np.shape(x)
    return lambda g: scatter(g, index, shape)


rule(operator.getitem, getitem_vjp)
defvjp(scatter, lambda ans, g, index, shape: lambda h: h[index])


@composite(np.take)
def take(a: Array, indices: Any, axis: int | None = None) -> Array:
    if axis is None:
        return np.ravel(a)[indices]
    return a[(*(slice(None),) * _axes(axis, np.ndim(a))[0], indices)]


@composite(np.diagonal)
def diagonal(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    a = np.moveaxis(a, (axis1, axis2), (-2, -1))
    rows, columns = np.shape(a)[-2:]
    first = [i for i in range(rows) if 0 <= i + offset < columns]
    return a[..., first, [i + offset for i in first]]


@composite(np.trace)
def trace(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1)


@primitive
def _concatenate(axis: int, *arrays: Array) -> Array:
    return joined(arrays, axis)


def concatenate_vjp(argnums: Shape, ans: Array, args: Any, kwargs: Any) -> Any:
    axis, ends = _axes(args[0], np.ndim(ans))[0], np.cumsum([np.shape(array)[args[0]] for array in args[1:]]).tolist()
    slices = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
    return lambda g: (g[(*(slice(None),) * axis, slices[argnum - 1])] for argnum in argnums)


defvjp_argnums(_concatenate, concatenate_vjp)


@composite(np.concatenate)
def concatenate(arrays: Sequence[Array], axis: int | None = 0) -> Array:
    return _concatenate(0, *map(np.ravel, arrays)) if axis is None else _concatenate(axis, *arrays)


@composite(np.stack)
def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    return _concatenate(axis, *(np.expand_dims(array, axis) for array in arrays))


@composite(np.vstack)
def vstack(tup: Sequence[Array]) -> Array:
    return _concatenate(0, *(array if np.ndim(array) > 1 else np.reshape(array, (1, -1)) for array in tup))


@composite(np.hstack)
def hstack(tup: Sequence[Array]) -> Array:
    arrays = [array if np.ndim(array) > 0 else np.reshape(array, (1,)) for array in tup]
    return _concatenate(0 if np.ndim(arrays[0]) == 1 else 1, *arrays)


@composite(np.split)
def split(ary: Array, indices_or_sections: Any, axis: int = 0) -> list[Array]:
    (axis,) = _axes(axis, np.ndim(ary))
    n = np.shape(ary)[axis]
    if np.ndim(indices_or_sections) == 0:
        if n % indices_or_sections:
            raise ValueError(f"numpy.split cannot divide an axis of length {n} into {indices_or_sections} equal parts")
        step = n // indices_or_sections
        bounds = list(range(step, n, step)) if step else []
    else:
        bounds = list(indices_or_sections)
    pairs = zip([None, *bounds], [*bounds, None], strict=True)
    return [ary[(*(slice(None),) * axis, slice(start, stop))] for start, stop in pairs]


# Linear algebra


def _swap(x: Array) -> Array:
    """The matrices x, transposed."""
    return np.swapaxes(x, -1, -2)


def matmul_vjp_a(ans: Array, a: Array, b: Array) -> Any:
    row, column, shared = np.ndim(a) == 1, np.ndim(b) == 1, np.ndim(a) <= 2 < np.ndim(b)

    def pullback(g: Array) -> Array:  # (..., n, m) times (..., m, k) -> (..., n, k)
        g = _as_matrices(g, row, column)
        matrices = np.expand_dims(b, -1) if column else b
        if shared:
            axes = (*range(np.ndim(b) - 2), -1)
            return np.tensordot(g, matrices, (axes, axes))
        return matmul(g, _swap(matrices))

    return pullback


def matmul_vjp_b(ans: Array, a: Array, b: Array) -> Any:
    row, column, shared = np.ndim(a) == 1, np.ndim(b) == 1, np.ndim(b) <= 2 < np.ndim(a)

    def pullback(g: Array) -> Array:  # (..., k, n) times (..., n, m) -> (..., k, m)
        g = _as_matrices(g, row, column)
        matrices = np.expand_dims(a, 0) if row else a
        if shared:
            axes = tuple(range(np.ndim(a) - 1))
            product = np.tensordot(matrices, g, (axes, axes))
        else:
            product = matmul(_swap(matrices), g)
        return np.squeeze(product, -1) if column else product

    return pullback


def _as_matrices(g: Array, row: bool, column: bool) -> Array:
    """The cotangent of a product, with the axes of length 1 that vectors lack."""
    g = np.expand_dims(g, -1) if column else g
    return np.expand_dims(g, -2) if row else g


matmul = rule(np.matmul, matmul_vjp_a, matmul_vjp_b, fun=products.matmul)


@composite(np.tensordot)
def tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    ndim_a, ndim_b = np.ndim(a), np.ndim(b)
    if isinstance(axes, int):
        axes = (tuple(range(ndim_a - axes, ndim_a)), tuple(range(axes)))
    over_a, over_b = _axes(axes[0], ndim_a), _axes(axes[1], ndim_b)
    free_a, free_b = ([i for i in range(n) if i not in over] for n, over in ((ndim_a, over_a), (ndim_b, over_b)))
    lengths = [np.shape(a)[i] for i in over_a]
    if lengths != [np.shape(b)[i] for i in over_b]:
        raise ValueError(f"numpy.tensordot of shapes {np.shape(a)} and {np.shape(b)} over axes {axes}: lengths differ")
    shape_a, shape_b = [np.shape(a)[i] for i in free_a], [np.shape(b)[i] for i in free_b]
    rows = np.reshape(np.transpose(a, (*free_a, *over_a)), (math.prod(shape_a), math.prod(lengths)))
    columns = np.reshape(np.transpose(b, (*over_b, *free_b)), (math.prod(lengths), math.prod(shape_b)))
    return np.reshape(rows @ columns, (*shape_a, *shape_b))


@composite(np.dot)
def dot(a: Array, b: Array, out: None = None) -> Array:
    ndim_a, ndim_b = np.ndim(a), np.ndim(b)
    if ndim_a == 0 or ndim_b == 0:
        return a * b
    return a @ b if ndim_b <= 2 else tensordot(a, b, (-1, -2))


@composite(np.inner)
def inner(a: Array, b: Array) -> Array:
    return a * b if np.ndim(a) == 0 or np.ndim(b) == 0 else tensordot(a, b, (-1, -1))


@composite(np.vdot)
def vdot(a: Array, b: Array) -> Array:
    return np.ravel(np.conj(a)) @ np.ravel(b)


@composite(np.outer)
def outer(a: Array, b: Array, out: None = None) -> Array:
    return np.expand_dims(np.ravel(a), 1) * np.ravel(b)


@composite(np.einsum)
def einsum(subscripts: str, *operands: Array, optimize: Any = False) -> Array:
    if not isinstance(subscripts, str):
        raise TypeError("numpy.einsum on traced values takes its subscripts as one string")
    terms, output = _einsum_terms(subscripts, [np.ndim(x) for x in operands])
    arrays = []
    for i, x in enumerate(operands):
        for label in {c for c in terms[i] if terms[i].count(c) > 1}:
            while (first := terms[i].find(label)) != (second := terms[i].rfind(label)):
                x = np.diagonal(x, 0, first, second)
                terms[i] = terms[i][:first] + terms[i][first + 1 : second] + terms[i][second + 1 :] + label
        arrays.append(x)
    return _einsum(",".join(terms) + "->" + output, *arrays, optimize=optimize)


def _einsum_terms(subscripts: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the output, with letters for the axes under an ellipsis."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"numpy.einsum has {len(ndims)} operands for the {len(terms)} terms of {subscripts!r}")
    counts = [n - len(term) + 3 for term, n in zip(terms, ndims, strict=True) if "..." in term]
    longest = max(counts, default=0)
    free = [c for c in string.ascii_letters if c not in subscripts]
    spare = "".join(free[:longest])
    labels = left.replace(".", "").replace(",", "")
    if not arrow:
        output = "..." + "".join(sorted(c for c in set(labels) if labels.count(c) == 1))
    named = [term.replace("...", spare[longest - (n - len(term) + 3) :]) for term, n in zip(terms, ndims, strict=True)]
    return named, output.replace("...", spare)


_einsum = primitive(np.einsum)


def einsum_vjp(argnums: Shape, ans: Array, args: Any, kwargs: Any) -> Any:
    left, _, output = args[0].partition("->")
    terms = left.split(",")
    pullbacks = [_einsum_pullback(i - 1, terms, output, args[1:], kwargs) for i in argnums]
    return lambda g: (pullback(g) for pullback in pullbacks)


def _einsum_pullback(i: int, terms: list[str], output: str, arrays: Any, kwargs: Any) -> Callable[[Array], Array]:
    """The product of the cotangent and all operands but the i-th, in the labels of the i-th."""
    others, other_terms = [*arrays[:i], *arrays[i + 1 :]], [*terms[:i], *terms[i + 1 :]]
    shape, known = np.shape(arrays[i]), output + "".join(other_terms)
    target = "".join(c for c in terms[i] if c in known)
    formula = ",".join([output, *other_terms]) + "->" + target
    summed = tuple(axis for axis, c in enumerate(terms[i]) if c not in known)

    def pullback(g: Array) -> Array:
        product = np.expand_dims(np.einsum(formula, g, *others, **kwargs), summed)
        return np.broadcast_to(product, np.broadcast_shapes(np.shape(product), shape))

    return pullback


defvjp_argnums(_einsum, einsum_vjp)


def solve_vjp(argnums: Shape, ans: Array, args: Any, kwargs: Any) -> Any:
    a, vector = args[0], np.ndim(args[1]) == 1

    def pullback(g: Array) -> Iterable[Array]:
        column = np.linalg.solve(_swap(a), np.expand_dims(g, -1) if vector else g)
        row = np.expand_dims(ans, -2) if vector else _swap(ans)
        rhs = np.squeeze(column, -1) if vector else column
        return [rhs if argnum else -column @ row for argnum in argnums]

    return pullback


def det_vjp(ans: Array, a: Array) -> Any:
    return lambda g: np.expand_dims(g * ans, (-2, -1)) * _swap(np.linalg.inv(a))


rule(np.linalg.inv, lambda ans, a: lambda g: -_swap(ans) @ g @ _swap(ans))
rule(np.linalg.det, det_vjp)
_solve = primitive(np.linalg.solve)
defvjp_argnums(_solve, solve_vjp)
_register(np.linalg.solve, _solve, ["a", "b"])


# Made from constants, and constant


@composite(np.full_like)
def full_like(a: Array, fill_value: Array, dtype: Any = None) -> Array:
    like = np.zeros_like(a, dtype=dtype)
    return (like + fill_value).astype(like.dtype)


for _function in (
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
    *(np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.isfinite, np.isinf, np.isnan, np.signbit),
    *(np.floor, np.ceil, np.rint, np.trunc, np.round, np.around, np.floor_divide),
    *(np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero, np.searchsorted, np.all, np.any),
    *(np.allclose, np.isclose, np.array_equal, np.zeros_like, np.ones_like, np.empty_like),
    *(np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj, np.isrealobj, np.may_share_memory),
):
    plain(_function)
