"""Derivatives of functions that only rearrange elements."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from autodiff._rules.table import along, axes_of, blank, composite, negated, rule
from autodiff.tape import defvjp, primitive
from hcnn_core.backend import Array, moveaxis


def reshape_vjp(ans: Array, a: Array, shape: Any = None, order: Any = "C") -> Any:
    if order not in ("C", "F"):
        raise TypeError(f"numpy.reshape and ravel on traced values take the order 'C' or 'F', not {order!r}")
    before = np.shape(a)
    return lambda g: np.reshape(g, before, order=order)


def transpose_vjp(ans: Array, a: Array, axes: Any = None) -> Any:
    if axes is None:
        return lambda g: np.transpose(g)
    order = axes_of(tuple(axes), len(axes))
    return lambda g: np.transpose(g, [order.index(i) for i in range(len(order))])


def roll_vjp(ans: Array, a: Array, shift: Any, axis: Any = None) -> Any:
    return lambda g: np.roll(g, negated(shift), axis)


rule(np.reshape, reshape_vjp)
rule(np.ravel, lambda ans, a, order="C": reshape_vjp(ans, a, None, order))
rule(np.squeeze, lambda ans, a, axis=None: reshape_vjp(ans, a))
rule(np.expand_dims, lambda ans, a, axis: reshape_vjp(ans, a))
rule(np.transpose, transpose_vjp)
rule(np.moveaxis, lambda ans, a, source, destination: lambda g: moveaxis(g, destination, source))
rule(np.swapaxes, lambda ans, a, axis1, axis2: lambda g: np.swapaxes(g, axis1, axis2))
rule(np.broadcast_to, lambda ans, array, shape: lambda g: g)
rule(np.flip, lambda ans, m, axis=None: lambda g: np.flip(g, axis))
composite(np.fliplr)(lambda m: np.flip(m, 1))
composite(np.flipud)(lambda m: np.flip(m, 0))
composite(np.matrix_transpose)(lambda x: np.swapaxes(x, -1, -2))
rule(np.roll, roll_vjp)
rule(np.tril, lambda ans, m, k=0: lambda g: np.tril(g, k))
rule(np.triu, lambda ans, m, k=0: lambda g: np.triu(g, k))


def astype(x: Array, dtype: Any, copy: bool = True) -> Array:
    return x.astype(dtype)


rule(np.ndarray.astype, lambda ans, x, dtype, copy=True: lambda g: g, fun=astype)
composite(np.astype)(lambda x, dtype, copy=True, device=None: x.astype(dtype))
composite(np.copy)(lambda a, order="K": a)


@composite(np.rot90)
def rot90(m: Array, k: int = 1, axes: Any = (0, 1)) -> Array:
    np.rot90(blank(m), k, axes)
    first, second = axes_of(tuple(axes), np.ndim(m))
    for _ in range(k % 4):
        m = np.flip(np.swapaxes(m, first, second), first)
    return m


@composite(np.tile)
def tile(A: Array, reps: Any) -> Array:
    reps = tuple(map(operator.index, reps)) if np.iterable(reps) else (operator.index(reps),)
    ndim = max(len(reps), np.ndim(A))
    reps = (1,) * (ndim - len(reps)) + reps
    shape = (1,) * (ndim - np.ndim(A)) + np.shape(A)
    pairs = list(zip(reps, shape, strict=True))
    A = np.reshape(A, [n for size in shape for n in (1, size)])
    return np.reshape(np.broadcast_to(A, [n for pair in pairs for n in pair]), [r * n for r, n in pairs])


@composite(np.repeat)
def repeat(a: Array, repeats: Any, axis: int | None = None) -> Array:
    a, axis = along(a, axis)
    shape = np.shape(a)
    if np.ndim(repeats) > 0:
        return np.take(a, np.repeat(np.arange(shape[axis]), repeats).tolist(), axis=axis)
    repeats = operator.index(repeats)
    a = np.broadcast_to(np.expand_dims(a, axis + 1), (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
    return np.reshape(a, (*shape[:axis], shape[axis] * repeats, *shape[axis + 1 :]))


@composite(np.pad)
def pad(array: Array, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Array:
    widths = np.broadcast_to(pad_width, (np.ndim(array), 2)).tolist()
    if mode == "constant":
        return _pad_constant(array, widths, constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise TypeError(
            f"numpy.pad on traced values has no mode {mode!r}: use constant, edge, reflect, symmetric, wrap"
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
