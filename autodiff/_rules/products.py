"""Derivatives of products of arrays: matmul, dot, einsum and their kin."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodiff._rules.table import Shape, as_array, axes_of, composite, rule
from autodiff.tape import defvjp, defvjp_argnums, primitive
from hcnn_core import matmul as recorded_matmul
from hcnn_core.backend import Array, library_of, moveaxis


def swap(x: Array) -> Array:
    """Return the matrices x, transposed."""
    return np.swapaxes(x, -1, -2)


def matmul_vjp_a(ans: Array, a: Array, b: Array) -> Any:
    row, column, shared = a.ndim == 1, b.ndim == 1, a.ndim <= 2 < b.ndim

    def pullback(g: Array) -> Array:  # (..., n, m) times (..., m, k) -> (..., n, k)
        g = _as_matrices(g, row, column)
        matrices = np.expand_dims(b, -1) if column else b
        if shared:
            axes = (*range(b.ndim - 2), -1)
            return np.tensordot(g, matrices, (axes, axes))
        return matmul(g, swap(matrices))

    return pullback


def matmul_vjp_b(ans: Array, a: Array, b: Array) -> Any:
    row, column, shared = a.ndim == 1, b.ndim == 1, b.ndim <= 2 < a.ndim

    def pullback(g: Array) -> Array:  # (..., k, n) times (..., n, m) -> (..., k, m)
        g = _as_matrices(g, row, column)
        matrices = np.expand_dims(a, 0) if row else a
        if shared:
            axes = tuple(range(a.ndim - 1))
            product = np.tensordot(matrices, g, (axes, axes))
        else:
            product = matmul(swap(matrices), g)
        return np.squeeze(product, -1) if column else product

    return pullback


def _as_matrices(g: Array, row: bool, column: bool) -> Array:
    """Return the cotangent of a product, with the axes of length 1 that vectors lack."""
    g = np.expand_dims(g, -1) if column else g
    return np.expand_dims(g, -2) if row else g


def _matmul(a: Array, b: Array) -> Any:
    return recorded_matmul(a, b) if library_of(a) == "cupy" else np.matmul(a, b)


matmul = rule(np.matmul, matmul_vjp_a, matmul_vjp_b, fun=_matmul)


@composite(np.tensordot)
def tensordot(a: Array, b: Array, axes: Any = 2) -> Array:
    a, b = as_array(a, b), as_array(b, a)
    ndim_a, ndim_b = np.ndim(a), np.ndim(b)
    if not np.iterable(axes):
        axes = (tuple(range(ndim_a - axes, ndim_a)), tuple(range(axes)))
    over_a, over_b = axes_of(axes[0], ndim_a), axes_of(axes[1], ndim_b)
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
    a, b = as_array(a, b), as_array(b, a)
    ndim_a, ndim_b = np.ndim(a), np.ndim(b)
    if ndim_a == 0 or ndim_b == 0:
        return a * b
    return a @ b if ndim_b <= 2 else tensordot(a, b, (-1, -2))


@composite(np.inner)
def inner(a: Array, b: Array) -> Array:
    a, b = as_array(a, b), as_array(b, a)
    return a * b if np.ndim(a) == 0 or np.ndim(b) == 0 else tensordot(a, b, (-1, -1))


@composite(np.vdot)
def vdot(a: Array, b: Array) -> Array:
    a, b = as_array(a, b), as_array(b, a)
    return np.ravel(np.conj(a)) @ np.ravel(b)


@composite(np.outer)
def outer(a: Array, b: Array, out: None = None) -> Array:
    a, b = as_array(a, b), as_array(b, a)
    return np.expand_dims(np.ravel(a), 1) * np.ravel(b)


@composite(np.kron)
def kron(a: Array, b: Array) -> Array:
    a, b = as_array(a, b), as_array(b, a)
    ndim = max(np.ndim(a), np.ndim(b))
    shapes = [(1,) * (ndim - np.ndim(x)) + np.shape(x) for x in (a, b)]
    left, right = (
        [m for pair in zip(*pairs, strict=True) for m in pair]
        for pairs in ((shapes[0], [1] * ndim), ([1] * ndim, shapes[1]))
    )
    return np.reshape(np.reshape(a, left) * np.reshape(b, right), [m * n for m, n in zip(*shapes, strict=True)])


@composite(np.cross)
def cross(a: Array, b: Array, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Array:
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis, axis, axis)
    a, b = as_array(a, b), as_array(b, a)
    a, b = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if np.shape(a)[-1] != 3 or np.shape(b)[-1] != 3:
        raise ValueError(
            f"numpy.cross on traced values takes vectors of length 3, not {np.shape(a)[-1]} and {np.shape(b)[-1]}"
        )
    product = [a[..., i] * b[..., j] - a[..., j] * b[..., i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return np.stack(product, axisc)


@composite(np.convolve)
def convolve(a: Array, v: Array, mode: Any = "full") -> Array:
    a, v = (np.atleast_1d(as_array(x, y)) for x, y in ((a, v), (v, a)))
    long, short = sorted((len(a), len(v)), reverse=True)
    probe = len(np.convolve(np.zeros(3), np.zeros(2), mode))  # NumPy knows modes by name and by number
    start, length = {4: (0, long + short - 1), 3: ((short - 1) // 2, long), 2: (short - 1, long - short + 1)}[probe]
    return _convolve(a, v)[start : start + length]


_convolve = primitive(np.convolve)
defvjp(_convolve, lambda ans, a, v: lambda g: _valid(g, v), lambda ans, a, v: lambda g: _valid(g, a))


def _valid(g: Array, v: Array) -> Array:
    """Return the correlation of g with v, where v lies inside g."""
    return np.convolve(g, np.flip(v))[len(v) - 1 : len(g)]


@composite(np.einsum)
def einsum(subscripts: str, *operands: Array, optimize: Any = False) -> Array:
    if not isinstance(subscripts, str):  # operands and lists of integers by turns
        subscripts, operands = _lettered((subscripts, *operands))
    terms, output = _einsum_terms(subscripts, [np.ndim(x) for x in operands], optimize=bool(optimize))
    arrays = []
    for i, x in enumerate(operands):
        for label in {c for c in terms[i] if terms[i].count(c) > 1}:
            while (first := terms[i].find(label)) != (second := terms[i].rfind(label)):
                if np.shape(x)[first] != np.shape(x)[second]:
                    raise ValueError(f"numpy.einsum of shape {np.shape(x)} repeats {label!r} along unequal axes")
                x = np.diagonal(x, 0, first, second)
                terms[i] = terms[i][:first] + terms[i][first + 1 : second] + terms[i][second + 1 :] + label
        arrays.append(x)
    return _einsum(",".join(terms) + "->" + output, *arrays, optimize=optimize)


def _lettered(args: Sequence[Any]) -> tuple[str, tuple[Array, ...]]:
    """Subscripts as a string, and the operands, of einsum's other calling convention."""
    operands, lists = args[0::2], args[1::2]
    if len(args) % 2:  # the last list is the output's
        operands, lists = args[:-1:2], (*args[1::2], args[-1])
    letters = string.ascii_uppercase + string.ascii_lowercase  # in the order of the output's axes
    terms = ["".join("..." if label is Ellipsis else letters[label] for label in term) for term in lists]
    output = "->" + terms.pop() if len(args) % 2 else ""
    return ",".join(terms) + output, tuple(operands)


def _einsum_terms(subscripts: str, ndims: Sequence[int], *, optimize: bool) -> tuple[list[str], str]:
    """Return the labels of each operand and of the output, with letters for the axes under an ellipsis."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"numpy.einsum has {len(ndims)} operands for the {len(terms)} terms of {subscripts!r}")
    counts = [n - len(term) + 3 for term, n in zip(terms, ndims, strict=True) if "..." in term]
    longest = max(counts, default=0)
    if arrow and longest and "..." not in output and not optimize:  # with optimize NumPy sums over them
        raise ValueError(f"{subscripts!r} has axes under '...' that its output lacks; write '...' there too")
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
    """Return the product of the cotangent and all operands but the i-th, in the labels of the i-th."""
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
