"""Derivatives of sums, products, extrema and statistics."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from autodiff._rules.table import (
    along,
    as_array,
    axes_of,
    composite,
    constant,
    kept,
    nonzero,
    real_dtype,
    reduced,
    rule,
)
from autodiff.functional import vjp
from autodiff.pytree import tree_map
from autodiff.tape import Primitive, defvjp, getval, primitive, sum_over
from hcnn_core.backend import Array, moveaxis


def _count(x: Array, axis: Any) -> int:
    """Count the elements reduced to each element of the result."""
    shape = np.shape(x)
    return math.prod(shape[i] for i in reduced(shape, axis))


def _in_single(statistic: Callable[..., Any]) -> Callable[..., Any]:
    """Compute a statistic of half precision in single precision: half precision counts only to 65,504."""
    signature = inspect.signature(statistic)

    @functools.wraps(statistic)
    def computed(a: Array, *args: Any, **kwargs: Any) -> Any:
        half = getattr(a, "dtype", None) == np.float16
        if not half or signature.bind(a, *args, **kwargs).arguments.get("dtype") is not None:
            return statistic(a, *args, **kwargs)
        return tree_map(lambda result: result.astype(np.float16), statistic(a.astype(np.float32), *args, **kwargs))

    return computed


def sum_vjp(ans: Array, a: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    shape = np.shape(a)
    return lambda g: np.broadcast_to(np.reshape(g, kept(shape, axis)), shape)


def mean_vjp(ans: Array, a: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    shape, count = np.shape(a), _count(a, axis)
    return lambda g: np.broadcast_to(np.reshape(g / count, kept(shape, axis)), shape)


def prod_vjp(ans: Array, a: Array, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    shape = np.shape(a)
    axes = reduced(shape, axis)
    rest = [i for i in range(len(shape)) if i not in axes]

    def product(a: Array) -> Array:  # by halves, so that zeros are factors like any other
        a = np.reshape(np.transpose(a, (*axes, *rest)), (_count(a, axis), *(shape[i] for i in rest)))
        while (half := len(a) // 2) > 0:
            a = np.concatenate([a[:half] * a[half : 2 * half], a[2 * half :]])
        return np.sum(a, axis=0)

    return lambda g: vjp(product, a)[1](np.reshape(g, [shape[i] for i in rest]))[0]


def extremum_vjp(ans: Array, a: Array, axis: Any = None, keepdims: bool = False) -> Any:
    """Equal extrema share the gradient; where the answer is NaN, so is the gradient."""
    shape = kept(np.shape(a), axis)

    def pullback(g: Array) -> Array:
        extremum = np.reshape(getval(ans), shape)
        chosen = a == extremum
        ties = sum_over(chosen.astype(np.result_type(g.dtype, np.float32)), reduced(np.shape(a), axis))
        ties = np.reshape(ties, shape)
        return np.where(chosen, np.reshape(g, shape) / nonzero(ties), np.where(np.isnan(extremum), extremum, 0))

    return pullback


def cumsum_vjp(ans: Array, a: Array, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
    shape, along = np.shape(a), 0 if axis is None else axis
    return lambda g: np.reshape(np.flip(np.cumsum(np.flip(g, along), axis=along), along), shape)


def _reduction(function: Any, maker: Callable[..., Any]) -> Primitive:
    """Return a reduction of all elements as a primitive; the options where= and initial= are written in terms of it."""
    reduction = primitive(function)
    defvjp(reduction, maker)
    return reduction


_sum, _mean, _prod = _reduction(np.sum, sum_vjp), _reduction(np.mean, mean_vjp), _reduction(np.prod, prod_vjp)
_max, _min = _reduction(np.max, extremum_vjp), _reduction(np.min, extremum_vjp)
rule(np.cumsum, cumsum_vjp)


@composite(np.cumprod)
def cumprod(a: Array, axis: Any = None, dtype: Any = None, out: None = None) -> Array:
    a, place = along(a if dtype is None else a.astype(dtype), axis)
    a, step = moveaxis(a, place, 0), 1
    while step < len(a):  # products of 2, 4, 8, .. elements, so that zeros are factors like any other
        a, step = np.concatenate([a[:step], a[step:] * a[:-step]]), 2 * step
    return moveaxis(a, 0, place)


composite(np.cumulative_sum)(inspect.unwrap(np.cumulative_sum))  # NumPy's own, of np.add.accumulate


@composite(np.add.accumulate)
def accumulate(array: Array, axis: Any = 0, dtype: Any = None, out: None = None) -> Array:
    if len(axes := axes_of(axis, np.ndim(array))) != 1:
        raise ValueError(f"numpy.add.accumulate takes one axis, and axis is {axis}")
    return np.cumsum(array, axes[0], dtype)


@composite(np.sum)
def sum(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Array:
    result = _sum(a if where is None else np.where(_mask(where, a), a, 0), axis=axis, dtype=dtype, keepdims=keepdims)
    return result if initial is None else result + _of_dtype(initial, result)


@composite(np.prod)
def prod(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    keepdims: bool = False,
    initial: Any = None,
    where: Any = None,
) -> Array:
    a = a if dtype is None else a.astype(dtype)
    result = _prod(a if where is None else np.where(_mask(where, a), a, 1), axis=axis, keepdims=keepdims)
    return result if initial is None else result * _of_dtype(initial, result)


@composite(np.mean)
@_in_single
def mean(
    a: Array, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False, *, where: Any = None
) -> Array:
    if where is None:
        return _mean(a, axis=axis, dtype=dtype, keepdims=keepdims)
    total = sum(a, axis, dtype, None, keepdims, where=where)
    return total / _counted(a, where, axis, keepdims, real_dtype(total))


def _extremum(name: str, reduction: Primitive, of_two: Any) -> Callable[..., Array]:
    def extremum(
        a: Array, axis: Any = None, out: None = None, keepdims: bool = False, initial: Any = None, where: Any = None
    ) -> Array:
        initial = _of_dtype(initial, a)
        result = reduction(_chosen(name, a, initial, where), axis=axis, keepdims=keepdims)
        return result if initial is None else of_two(result, initial)

    return extremum


def _present(extremum: Callable[..., Array], fill: float) -> Callable[..., Array]:
    """Return an extremum that passes over NaN, but where there is nothing else."""

    def of_present(a: Array, axis: Any = None, out: None = None, keepdims: bool = False) -> Array:
        missing = np.isnan(a) & ~np.all(np.isnan(a), axis=axis, keepdims=True)
        return extremum(np.where(missing, fill, a), axis, keepdims=keepdims)

    return of_present


max = composite(np.max, np.amax)(_extremum("max", _max, np.maximum))
min = composite(np.min, np.amin)(_extremum("min", _min, np.minimum))
composite(np.nanmax)(_present(max, -np.inf))
composite(np.nanmin)(_present(min, np.inf))


def _of_dtype(initial: Any, like: Array) -> Any:
    """Return the initial value, which does not promote a reduction."""
    return initial.astype(like.dtype) if hasattr(initial, "dtype") else initial


def _chosen(name: str, a: Array, initial: Any, where: Any) -> Array:
    """Return the elements an extremum is taken over, with the initial value in place of the others."""
    if where is None:
        return a
    if initial is None:
        raise ValueError(f"numpy.{name} with where= needs initial=, the value where nothing is chosen")
    return np.where(_mask(where, a), a, initial)


def _mask(where: Any, a: Array) -> Array:
    """Booleans that broadcast to the shape of a; TypeError or ValueError, as NumPy's, for others."""
    where = as_array(getval(where), a)
    if where.dtype != bool:
        raise TypeError(f"where has dtype {where.dtype}; give booleans")
    return np.broadcast_to(where, np.shape(a))


def _counted(a: Array, where: Any, axis: Any, keepdims: Any, dtype: Any) -> Array:
    """Count the chosen elements."""
    return np.sum(_mask(where, a), axis=axis, keepdims=keepdims, dtype=dtype)


@composite(np.var)
@_in_single
def var(
    a: Array,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    ddof: float = 0,
    keepdims: bool = False,
    *,
    where: Any = None,
) -> Array:
    deviation = a - mean(a, axis, dtype, keepdims=True, where=where)
    squared = np.real(deviation * np.conj(deviation)) if np.iscomplexobj(a) else np.square(deviation)
    total = sum(squared, axis, dtype, keepdims=keepdims, where=where)
    if where is None:
        count = _count(a, axis) - ddof
        return total / (count if count > 0 else 0)
    return total / np.maximum(_counted(a, where, axis, keepdims, real_dtype(total)) - ddof, 0)


@composite(np.std)
@_in_single
@functools.wraps(var)
def std(*args: Any, **kwargs: Any) -> Array:
    return _root(var(*args, **kwargs))


def _root(variance: Array) -> Array:
    """Return the square root, where equal elements have the subgradient 0."""
    return np.where(variance == 0, 0, np.sqrt(nonzero(variance)))


@composite(np.ptp)
def ptp(a: Array, axis: Any = None, out: None = None, keepdims: bool = False) -> Array:
    return max(a, axis, keepdims=keepdims) - min(a, axis, keepdims=keepdims)


@composite(np.average)
def average(a: Array, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False) -> Any:
    if weights is None:
        result = mean(a, axis, keepdims=keepdims)
        return (result, np.full_like(getval(result), _count(a, axis))) if returned else result
    a, weights = as_array(a, weights), as_array(weights, a)
    shape = np.shape(a)
    if np.shape(weights) != shape:
        axes = axes_of(axis, len(shape))
        if axis is None or np.shape(weights) != tuple(shape[i] for i in axes):
            raise ValueError(
                f"numpy.average takes weights of the shape of a, {shape}, or of its shape along axis, "
                f"not {np.shape(weights)}"
            )
        weights = np.transpose(weights, sorted(range(len(axes)), key=axes.__getitem__))
        weights = np.reshape(weights, [n if i in axes else 1 for i, n in enumerate(shape)])
    dtype = np.result_type(a.dtype, weights.dtype, *[float] * (a.dtype.kind in "biu"))
    wide = np.promote_types(dtype, np.float32)  # half precision counts to 65,504
    scale = sum(np.broadcast_to(weights, shape), axis, wide, keepdims=keepdims)
    if np.any(scale == 0):
        raise ZeroDivisionError("numpy.average takes weights whose sum is not zero")
    result = (sum(a.astype(wide) * weights, axis, keepdims=keepdims) / scale).astype(dtype)
    return (result, scale.astype(dtype)) if returned else result


# Order statistics


@composite(np.median)
def median(
    a: Array, axis: Any = None, out: None = None, overwrite_input: bool = False, keepdims: bool = False
) -> Array:
    def middle(ordered: Array) -> Array:
        count = np.shape(ordered)[-1]
        return mean(ordered[..., (count - 1) // 2 : count // 2 + 1], -1)

    return _of_sorted(a, axis, keepdims, middle)


@composite(np.quantile)
def quantile(
    a: Array,
    q: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
) -> Array:
    if method != "linear":
        raise TypeError(f"numpy.quantile on traced values takes the method 'linear', not {method!r}")

    if np.iscomplexobj(a):
        raise TypeError("numpy.quantile takes real numbers, not complex ones")

    def between(ordered: Array) -> Array:
        last = np.shape(ordered)[-1] - 1
        positions = np.asarray(q) * last
        if not np.all((positions >= 0) & (positions <= last)):
            raise ValueError("quantiles lie from 0 to 1")
        lower = np.floor(positions).astype(int)
        low, high = ordered[..., lower.tolist()], ordered[..., np.minimum(lower + 1, last).tolist()]
        if positions.dtype.kind in "iu":
            return low
        dtype = np.result_type(a.dtype, q if type(q) in (int, float) else positions.dtype)
        share = constant((positions - lower).astype(dtype), a)
        step = high - low  # NaN between infinities, and its product with 0 beside one, as NumPy's
        return np.where(share < 0.5, low + step * share, high - step * (1 - share))

    return _of_sorted(a, axis, keepdims, between)


def _of_sorted(a: Array, axis: Any, keepdims: bool, pick: Callable[[Array], Array]) -> Array:
    """Return the elements picked from sorted ones, along axes that come first; NaN where an element is NaN."""
    ordered = _sorted(a, axis)
    rest = np.shape(ordered)[:-1]
    result = pick(ordered)
    picked = np.shape(result)[len(rest) :]
    last = getval(ordered[..., -1])  # NaN is sorted to the end; it makes the answer and the gradient NaN
    result = result * np.reshape(np.where(np.isnan(last), last, 1), (*rest, *(1,) * len(picked)))
    result = moveaxis(result, range(len(rest), np.ndim(result)), range(len(picked)))
    return np.reshape(result, (*picked, *kept(np.shape(a), axis))) if keepdims else result


def _sorted(a: Array, axis: Any) -> Array:
    """Return the elements along the axes as one last axis, in order."""
    shape, axes, count = np.shape(a), axes_of(axis, np.ndim(a)), _count(a, axis)
    rest = tuple(shape[i] for i in range(len(shape)) if i not in axes)
    if count == 0:
        raise ValueError("the quantiles of no elements are not defined")
    return np.sort(np.reshape(moveaxis(a, axes, range(-len(axes), 0)), (*rest, count)), axis=-1)


@composite(np.nansum)
def nansum(a: Array, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Array:
    return sum(np.where(np.isnan(a), 0, a), axis, dtype, keepdims=keepdims)


@composite(np.nanmean)
@_in_single
def nanmean(a: Array, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False) -> Array:
    missing = np.isnan(a)
    return mean(np.where(missing, 0, a), axis, dtype, keepdims=keepdims, where=np.logical_not(missing))
