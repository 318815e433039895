"""Correlations: convolutions whose filters are not flipped, as in SciPy's pair `correlate` and `convolve`."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, Unpack, overload

from hcnn_core._problem import OPTIONS, Problem, make_problem, shape_of, takes
from hcnn_core.backend import Array as EngineArray
from hcnn_core.backend import placement
from hcnn_core.convolution import derivative, forward, operands
from hcnn_core.typing import Array, Axes, ConvolveOptions, NumpyArray, Scalar, Shape

__all__ = ["correlate", "correlate_vjp_w", "correlate_vjp_x"]


@overload
def correlate(
    x: NumpyArray[Scalar], w: NumpyArray[Scalar], /, axes: Axes | None = None, **options: Unpack[ConvolveOptions]
) -> NumpyArray[Scalar]: ...
@overload
def correlate(x: Array, w: Array, /, axes: Axes | None = None, **options: Unpack[ConvolveOptions]) -> Array: ...
@takes(OPTIONS)  # type: ignore[misc]
def correlate(x: Array, w: Array, /, axes: Axes | None, *unnamed: object, **options: Unpack[ConvolveOptions]) -> Array:
    r"""Correlate along some axes, contract others, and append new attribute axes.

    .. math:: y[.., i, .., k] = \sum_{c, t} x[.., c, .., stride \cdot i + t - \lfloor s/2 \rfloor, ..]\, w[c, t, k]

    This is what deep-learning frameworks call a convolution: `convolve` with the filters flipped along the convolved
    axes. Arguments, result and errors are those of `convolve`.

    Notes
    -----
    For one real filter, ascending `axes` and stride 1 this is ``scipy.ndimage.correlate(x, w, mode=MODE, axes=axes)``
    with the mode of the table in `convolve`, for every kernel size. SciPy conjugates complex filters; this function
    does not.

    A filter of even length is computed as one of the next odd length, with a zero as its first tap after the flip. That
    costs one more tap, and where x holds NaN or infinity, that tap spreads NaN by one more sample.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(4.0)
    >>> correlate(x, np.array([1.0, 0.0, 0.0]), 0, boundary="periodic")
    array([3., 0., 1., 2.])
    """
    xp, x, w = operands("x", x, "w", w)
    problem = make_problem(x.shape, w.shape, axes, *unnamed, **options)
    return forward(xp, _as_convolution(problem), x, _flip(xp, w, problem))


@overload
def correlate_vjp_x(
    g: NumpyArray[Scalar], x: Array | Shape, w: NumpyArray[Scalar], /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> NumpyArray[Scalar]: ...
@overload
def correlate_vjp_x(
    g: Array, x: Array | Shape, w: Array, /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> Array: ...
@takes(OPTIONS)
def correlate_vjp_x(g: Array, x: Array | Shape, w: Array, /, axes: Axes, **options: Unpack[ConvolveOptions]) -> Array:
    """Return the cotangent of x in ``correlate(x, w, axes, ...)``: as `convolve_vjp_x` of `convolve`."""
    xp, g, w = operands("g", g, "w", w)
    problem = make_problem(shape_of("x", x), w.shape, axes, **options)
    return derivative(xp, "x", _as_convolution(problem), g, _flip(xp, w, problem))


@overload
def correlate_vjp_w(
    g: NumpyArray[Scalar], x: NumpyArray[Scalar], w: Array | Shape, /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> NumpyArray[Scalar]: ...
@overload
def correlate_vjp_w(
    g: Array, x: Array, w: Array | Shape, /, axes: Axes, **options: Unpack[ConvolveOptions]
) -> Array: ...
@takes(OPTIONS)
def correlate_vjp_w(g: Array, x: Array, w: Array | Shape, /, axes: Axes, **options: Unpack[ConvolveOptions]) -> Array:
    """Return the cotangent of w in ``correlate(x, w, axes, ...)``: as `convolve_vjp_w` of `convolve`."""
    xp, g, x = operands("g", g, "x", x)
    problem = make_problem(x.shape, shape_of("w", w), axes, **options)
    flipped = derivative(xp, "w", _as_convolution(problem), g, x)
    backwards = xp.flip(flipped, axis=tuple(problem.kernel_axes))
    return backwards[tuple(slice(0, n) for n in problem.w_shape)]  # without what the appended zero got


@lru_cache(maxsize=1024)
def _as_convolution(problem: Problem) -> Problem:
    """Return the convolution with flipped filters of odd lengths, whose centre a flip does not move."""
    first, last = problem.kernel_axes.start, problem.kernel_axes.stop
    odd = (size | 1 for size in problem.kernel_size)
    return replace(problem, w_shape=(*problem.w_shape[:first], *odd, *problem.w_shape[last:]))


def _flip(xp: Any, w: EngineArray, problem: Problem) -> EngineArray:
    """Append a zero to filters of even length, then flip them.

    `convolve` and `correlate` both put the filter's centre at tap s // 2. A flip moves tap s // 2 to s - 1 - s // 2,
    which is the same tap for odd s only. The zero makes an even s odd and leaves s // 2 as it is.
    """
    shape = _as_convolution(problem).w_shape
    if shape != w.shape:
        padded = xp.zeros(shape, dtype=w.dtype, **placement(xp, w))
        padded[tuple(slice(0, n) for n in w.shape)] = w
        w = padded
    return xp.flip(w, axis=tuple(problem.kernel_axes))
