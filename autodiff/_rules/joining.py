"""Derivatives of functions that join arrays or take them apart."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from autodiff._rules.table import Shape, as_array, axes_of, composite, constant
from autodiff.tape import Traced, defvjp_argnums, primitive
from hcnn_core.backend import Array, joined, moveaxis


@primitive
def _concatenate(axis: int, *arrays: Array) -> Array:
    return joined(arrays, axis)


def concatenate_vjp(argnums: Shape, ans: Array, args: Any, kwargs: Any) -> Any:
    axis, ends = axes_of(args[0], np.ndim(ans))[0], np.cumsum([np.shape(array)[args[0]] for array in args[1:]]).tolist()
    slices = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
    return lambda g: (g[(*(slice(None),) * axis, slices[argnum - 1])] for argnum in argnums)


defvjp_argnums(_concatenate, concatenate_vjp)


@primitive
def _stack(*arrays: Array) -> Array:
    return joined([array[None] for array in arrays], 0)


defvjp_argnums(_stack, lambda argnums, ans, args, kwargs: lambda g: (g[argnum] for argnum in argnums))


@composite(np.array, np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray)
def array(
    object: Any,
    dtype: Any = None,
    order: Any = None,
    *,
    copy: bool | None = None,
    subok: bool = False,
    ndmin: int = 0,
    like: Any = None,
) -> Any:
    """Return an array of a traced value, or of lists of them and of numbers, nested to any depth; beside `like`."""
    beside = next((leaf for leaf in _leaves([object]) if type(leaf) is Traced), None)
    if beside is not None:
        object = _nested(object, beside)
    else:
        object = np.asarray(object) if like is None else constant(object, like)
    if dtype is not None and np.dtype(dtype) != object.dtype:
        object = object.astype(dtype)
    return (
        np.reshape(object, (1,) * (ndmin - np.ndim(object)) + np.shape(object)) if ndmin > np.ndim(object) else object
    )


def _leaves(nest: Any) -> Iterable[Any]:
    """Yield the leaves of nested lists and tuples, in order."""
    for part in nest:
        if isinstance(part, list | tuple):
            yield from _leaves(part)
        else:
            yield part


def _nested(nest: Any, beside: Any) -> Array:
    """Return a nest of lists of arrays and numbers as one array."""
    if not any(hasattr(leaf, "__array_function__") for leaf in _leaves([nest])):
        return constant(nest, beside)
    if not isinstance(nest, list | tuple):
        return nest
    parts = [_nested(part, beside) for part in nest]
    shapes = {np.shape(part) for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"parts of shapes {sorted(shapes)} do not make one array")
    return _stack(*parts)


def _arrays(parts: Sequence[Any]) -> list[Array]:
    """Return the parts as arrays; numbers and lists become arrays beside the others."""
    beside = next((part for part in parts if hasattr(part, "__array_function__")), None)
    return [as_array(part, beside) for part in parts]


@composite(np.concatenate)
def concatenate(
    arrays: Sequence[Array], axis: int | None = 0, out: None = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Array:
    parts = _arrays(arrays)
    joint = _concatenate(0, *map(np.ravel, parts)) if axis is None else _concatenate(axis, *parts)
    if dtype is None:
        return joint
    np.empty(0, joint.dtype).astype(dtype, casting=casting)  # or NumPy's error
    return joint.astype(dtype)


@composite(np.stack)
def stack(
    arrays: Sequence[Array], axis: int = 0, out: None = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Array:
    parts = [np.expand_dims(array, axis) for array in _arrays(arrays)]
    return concatenate(parts, axis, dtype=dtype, casting=casting)


@composite(np.append)
def append(arr: Array, values: Array, axis: int | None = None) -> Array:
    return concatenate([arr, values], axis)


@composite(np.atleast_1d)
def atleast_1d(*arys: Array) -> Any:
    return _each(arys, lambda a: np.reshape(a, (1,)) if np.ndim(a) == 0 else a)


@composite(np.atleast_2d)
def atleast_2d(*arys: Array) -> Any:
    return _each(arys, lambda a: np.reshape(a, (1, -1)) if np.ndim(a) < 2 else a)


@composite(np.atleast_3d)
def atleast_3d(*arys: Array) -> Any:
    return _each(
        arys, lambda a: np.reshape(a, (1, -1, 1)) if np.ndim(a) < 2 else a[:, :, None] if np.ndim(a) == 2 else a
    )


def _each(arrays: Sequence[Any], function: Any) -> Any:
    """Return the function of one array, or the tuple of its results for several."""
    results = tuple(map(function, _arrays(arrays)))
    return results[0] if len(results) == 1 else results


@composite(np.column_stack)
def column_stack(tup: Sequence[Array]) -> Array:
    return concatenate([array if np.ndim(array) > 1 else np.reshape(array, (-1, 1)) for array in _arrays(tup)], 1)


@composite(np.broadcast_arrays)
def broadcast_arrays(*args: Array, subok: bool = False) -> tuple[Array, ...]:
    shape = np.broadcast_shapes(*map(np.shape, args))
    return tuple(np.broadcast_to(array, shape) for array in args)


_DIVIDING = np.array_split, np.split, np.hsplit, np.vsplit, np.dsplit
for _function in (np.vstack, np.hstack, np.dstack, np.rollaxis, *_DIVIDING):
    composite(_function)(inspect.unwrap(_function))  # NumPy's own, of functions that have derivatives


@composite(np.linspace)
def linspace(
    start: Array,
    stop: Array,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
    *,
    device: None = None,
) -> Any:
    beside = start if hasattr(start, "__array_function__") else stop
    start, stop = (as_array(x, beside) if isinstance(x, list | tuple) else x for x in (start, stop))
    num = operator.index(num)
    parts = num - 1 if endpoint else num
    shape = np.broadcast_shapes(np.shape(start), np.shape(stop))
    steps = np.reshape(np.linspace(0, 1, num, endpoint), (-1,) + (1,) * len(shape))
    shares = constant(steps.astype(np.result_type(start, stop)), beside)
    points = moveaxis(start * (1 - shares) + stop * shares, 0, axis)
    if dtype is not None:
        points = points.astype(dtype)
    return (points, (stop - start) / (parts or np.nan)) if retstep else points
