"""The table of derivatives: three ways to enter a NumPy function, and what the rules share.

A rule is one of three: a primitive, with ``maker(ans, *args)`` for each argument, which returns the function from the
cotangent g of the answer to that of the argument; a composite, a function of primitives, differentiated through them;
and a plain function, piecewise constant, whose answers are not traced. The tape undoes broadcasting and promotion: the
cotangent of an argument may have the shape and dtype of the answer.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from autodiff.pytree import tree_map
from autodiff.tape import HANDLERS, Primitive, defvjp, getval, primitive
from hcnn_core.backend import Array, array_namespace

Shape = tuple[int, ...]


def rule(function: Any, *makers: Callable[..., Any] | None, fun: Callable[..., Any] | None = None) -> Primitive:
    """Make a NumPy function (computed by `fun`, if given) a primitive with these derivatives."""
    handler = primitive(fun or function)
    defvjp(handler, *makers)
    maker = next(maker for maker in makers if maker)
    register(function, handler, list(inspect.signature(maker).parameters)[1:])
    return handler


def composite(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let the decorated function stand in for these NumPy functions."""

    def enter(handler: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            register(function, handler, list(inspect.signature(handler).parameters))
        return handler

    return enter


def plain(function: Any) -> None:
    """Evaluate the function on the arrays alone, with no gradient."""

    def untraced(*args: Any, **kwargs: Any) -> Any:
        return function(*tree_map(getval, args), **tree_map(getval, kwargs))

    HANDLERS[function] = untraced


def register(function: Any, handler: Any, keywords: list[str]) -> None:
    """Make the handler stand in for the function, with the keywords it knows."""
    HANDLERS[function] = handler
    handler.keywords = tuple(keywords)


def axes_of(axis: Any, ndim: int) -> Shape:
    """Return the axes as a tuple of numbers from 0 up; None means all."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(operator.index(a) for a in (axis if isinstance(axis, tuple | list) else (axis,)))
    for a in axes:
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim)
    return tuple(a % ndim for a in axes)


def along(a: Array, axis: Any) -> tuple[Array, int]:
    """Return an array and the axis of it that a function works along: flat for None, as NumPy's without axes are."""
    if axis is None or np.ndim(a) == 0:
        a, axis = np.ravel(a), 0 if axis is None else axis
    return a, axes_of(axis, np.ndim(a))[0]


def reduced(shape: Shape, axis: Any) -> Shape:
    """Return the axes of a reduction, as `axes_of`; there NumPy takes a number for an array of one axis."""
    return () if shape == () and axis in (0, -1) else axes_of(axis, len(shape))


def kept(shape: Shape, axis: Any) -> Shape:
    """Return the shape of a reduction that keeps its axes, with length 1."""
    axes = reduced(shape, axis)
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def negated(shift: Any) -> Any:
    """Shifts the other way, as Python's integers: unsigned ones have no negative."""
    return [-int(s) for s in shift] if np.ndim(shift) else -int(shift)


def nonzero(x: Array) -> Array:
    """Return the norms x, with 1 for 0, where a norm has the subgradient 0."""
    return np.where(x == 0, 1, x)


def over_norm(g: Array, norm: Array) -> Array:
    """Divide by norms, where those of 0 have derivatives 0 of any order, as hypot's."""
    return np.where(norm == 0, 0, g / nonzero(norm))


def constant(values: Any, like: Any) -> Array:
    """Plain values as an array of the library of `like`."""
    return array_namespace(getval(like)).asarray(np.asarray(values))


def blank(x: Array) -> Array:
    """Zeros of x's shape and dtype that take no memory: a call on them raises NumPy's own errors."""
    return np.broadcast_to(np.zeros((), x.dtype), np.shape(x))


def as_array(x: Any, like: Any) -> Array:
    """Return an argument as NumPy's functions take it: numbers and lists become arrays, of their own dtype."""
    return x if hasattr(x, "__array_function__") else HANDLERS[np.array](x, like=like)


def as_floats(x: Any) -> Any:
    """Make lists arrays, and integers float64: NumPy's functions of small integers have half precision."""
    if isinstance(x, list | tuple) or getattr(getattr(x, "dtype", None), "kind", "f") in "biu":
        return np.multiply(x, 1.0)
    return x


def real_dtype(x: Array) -> Any:
    """Return the dtype of the real part of x."""
    return np.finfo(x.dtype).dtype
