"""Derivatives of functions that pick elements: indexing, sorting, diagonals, differences."""

from __future__ import annotations

import operator
from types import EllipsisType
from typing import Any

import numpy as np

from autodiff._rules.table import Shape, along, as_array, axes_of, composite, constant, rule
from autodiff.tape import WIDE, defvjp, getval, primitive
from hcnn_core.backend import Array, array_namespace, moveaxis


@primitive
def scatter(g: Array, index: Any, shape: Shape) -> Array:
    """Zeros of a shape, with g added at an index: the transpose of x[index]."""
    out = np.zeros_like(g, shape=shape)
    parts = index if type(index) is tuple else (index,)
    if all(isinstance(i, int | np.integer | slice | EllipsisType | None) for i in parts):
        out[index] = g
        return out
    xp = array_namespace(g)
    wide = WIDE.get(g.dtype.name) if xp is np else None
    if wide is not None:  # an index may repeat, so that rounding errors would add up
        return scatter(g.astype(wide), index, shape).astype(g.dtype)
    add = xp.add
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
def take(a: Array, indices: Any, axis: int | None = None, out: None = None) -> Array:
    if not hasattr(indices, "__array_function__"):
        indices = np.add(indices, 0).tolist()  # booleans are the numbers 0 and 1, and no mask
    elif indices.dtype == bool:
        indices = indices.astype(int)
    a, axis = along(a, axis)
    return a[(*(slice(None),) * axis, indices)]


@composite(np.compress)
def compress(condition: Any, a: Array, axis: int | None = None, out: None = None) -> Array:
    return take(a, np.flatnonzero(getval(condition)).tolist(), axis)


@composite(np.take_along_axis)
def take_along_axis(arr: Array, indices: Array, axis: int | None = -1) -> Array:
    if axis is None:
        arr, axis = np.ravel(arr), 0
    indices, shape = getval(indices), np.shape(arr)
    (axis,) = axes_of(axis, len(shape))
    if np.ndim(indices) != len(shape) or indices.dtype.kind not in "iu":
        raise ValueError(
            f"numpy.take_along_axis takes an array of integers with {len(shape)} axes, as arr has, as indices"
        )
    index = [
        indices if i == axis else constant(np.arange(n).reshape((-1,) + (1,) * (len(shape) - 1 - i)), arr)
        for i, n in enumerate(shape)
    ]
    return arr[tuple(index)]


@composite(np.sort)
def sort(a: Array, axis: int | None = -1, kind: Any = None, order: None = None, *, stable: Any = None) -> Array:
    a, axis = (np.ravel(a), 0) if axis is None else (a, axis)
    return take_along_axis(a, np.argsort(getval(a), axis=axis), axis)


@composite(np.partition)
def partition(a: Array, kth: Any, axis: int | None = -1, kind: str = "introselect", order: None = None) -> Array:
    a, axis = (np.ravel(a), 0) if axis is None else (a, axis)
    return take_along_axis(a, np.argpartition(getval(a), kth, axis=axis), axis)


# Diagonals and differences


@composite(np.diagonal)
def diagonal(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    a, offset = moveaxis(a, (axis1, axis2), (-2, -1)), operator.index(offset)
    rows, columns = np.shape(a)[-2:]
    first = [i for i in range(rows) if 0 <= i + offset < columns]
    return a[..., first, [i + offset for i in first]]


@composite(np.trace)
def trace(a: Array, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: None = None) -> Array:
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@composite(np.diag)
def diag(v: Array, k: int = 0) -> Array:
    if np.ndim(v) == 2:
        return diagonal(v, k)
    if np.ndim(v) != 1:
        raise ValueError(f"numpy.diag takes an array with 1 or 2 axes, not {np.ndim(v)}")
    along, k = np.arange(len(v)), operator.index(k)
    size = len(v) + abs(k)
    return scatter(v, ((along + max(-k, 0)).tolist(), (along + max(k, 0)).tolist()), (size, size))


@composite(np.diff)
def diff(a: Array, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Array:
    if n == 0:
        return a
    if n < 0:
        raise ValueError(f"numpy.diff takes differences of order 0 or more, not {n}")
    (axis,) = axes_of(axis, np.ndim(a))
    ends = [x if x is None else as_array(x, a) for x in (prepend, append)]
    column = tuple(1 if i == axis else m for i, m in enumerate(np.shape(a)))
    before, after = ([] if x is None else [np.broadcast_to(x, column) if np.ndim(x) == 0 else x] for x in ends)
    a = np.concatenate([*before, a, *after], axis) if before or after else a
    for _ in range(n):
        a = a[_along(axis, 1, None)] - a[_along(axis, None, -1)]
    return a


@composite(np.gradient)
def gradient(f: Array, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    axes = axes_of(axis, np.ndim(f))
    steps = varargs or (1.0,)
    steps = steps * len(axes) if len(steps) == 1 else steps
    if len(steps) != len(axes) or any(np.ndim(step) for step in steps):
        raise TypeError(f"numpy.gradient on traced values takes one number as the spacing, or {len(axes)}, one an axis")
    if edge_order not in (1, 2):
        raise ValueError(f"numpy.gradient takes the edge_order 1 or 2, not {edge_order}")
    results = []
    for i, h in zip(axes, steps, strict=True):
        if np.shape(f)[i] <= edge_order:
            raise ValueError(f"numpy.gradient of order {edge_order} needs {edge_order + 1} elements along axis {i}")
        weights = (-1.0, 1.0) if edge_order == 1 else (-1.5, 2.0, -0.5)
        first = sum(c * f[_along(i, k, k + 1)] for k, c in enumerate(weights)) / h
        middle = (f[_along(i, 2, None)] - f[_along(i, None, -2)]) / (2.0 * h)
        last = sum(-c * f[_along(i, -k - 1, -k or None)] for k, c in enumerate(weights)) / h
        results.append(np.concatenate([first, middle, last], i).astype(np.result_type(f, 0.0)))  # whatever the step's
    return results[0] if len(results) == 1 else tuple(results)


def _along(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    """Return the index of a slice along one axis."""
    return (*(slice(None),) * axis, slice(start, stop))
