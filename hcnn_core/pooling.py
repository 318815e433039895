"""Maxima and means of windows, as the pooling layers of convolutional networks take them.

Windows of several axes are pooled one axis after the other.
"""

from __future__ import annotations

from typing import Any

from hcnn_core._engines.dispatch import engine
from hcnn_core._problem import Window, shape_of
from hcnn_core._problem import make_windows as make_windows
from hcnn_core.backend import array_namespace, require_floating, require_real
from hcnn_core.typing import AnyArray, Array, Axes, Shape

__all__ = ["max_pool", "mean_pool", "mean_pool_vjp"]


def max_pool(x: AnyArray, axes: Axes, kernel_size: Axes, *, stride: Axes | None = None, padding: Axes = 0) -> AnyArray:
    """Maximum of each window.

    Parameters
    ----------
    x : array
        float32 or float64, any shape.
    axes : int or sequence of int
        The axes that windows extend along.
    kernel_size : int or sequence of int
        Lengths of windows, one for all axes or one per axis.
    stride : int or sequence of int, optional
        Distance between windows; by default their length.
    padding : int or sequence of int, optional
        How far the first window begins before x, and the last one may end behind it: at most half its length. Only
        samples of x are compared.

    Returns
    -------
    array
        x with ``(n + 2 * padding - kernel_size) // stride + 1`` windows in place of the n samples of an axis, in its
        dtype and memory layout.

    Raises
    ------
    TypeError
        If the dtype is integer or complex.
    ValueError
        If an axis is shorter than a window, or axes, kernel_size, stride and padding do not fit.

    Notes
    -----
    As PyTorch's ``max_pool2d``, with ``ceil_mode=False``.
    """
    xp = array_namespace(x)
    y: Any = require_real(xp, "x", x)
    for axis, window in reversed(make_windows(y.shape, axes, kernel_size, stride, padding)):
        y, _ = engine("pooling", y).maxima(xp, y, axis, window, with_taps=False)
    return y


def mean_pool(x: AnyArray, axes: Axes, kernel_size: Axes, *, stride: Axes | None = None, padding: Axes = 0) -> AnyArray:
    """Mean of the samples of x in each window, of real or complex x: all else as in `max_pool`.

    It is PyTorch's ``avg_pool2d`` with ``count_include_pad=False`` and ``ceil_mode=False``; its default is to count the
    padding. `marginal` takes the mean of whole axes.
    """
    xp = array_namespace(x)
    y: Any = require_floating(xp, "x", x)
    for axis, window in make_windows(y.shape, axes, kernel_size, stride, padding):
        y = engine("pooling", y).means(xp, y, axis, window)
    return y


def mean_pool_vjp(
    g: AnyArray, x: Array | Shape, axes: Axes, kernel_size: Axes, *, stride: Axes | None = None, padding: Axes = 0
) -> AnyArray:
    """Return the cotangent of x in ``mean_pool(x, axes, kernel_size)``: for each sample, its windows' parts of g.

    x is the argument or its shape. The result has the shape of x and the dtype of g. ValueError if g does not have the
    shape of the result. All else as in `mean_pool`.
    """
    xp = array_namespace(g)
    cotangent: Any = require_floating(xp, "g", g)
    shape = shape_of("x", x)
    pooled = make_windows(shape, axes, kernel_size, stride, padding)
    counts = {axis: window.out_length for axis, window in pooled}
    if cotangent.shape != (pooled_shape := tuple(counts.get(axis, n) for axis, n in enumerate(shape))):
        raise ValueError(f"g has shape {cotangent.shape}; the result has {pooled_shape}")
    for axis, window in reversed(pooled):
        cotangent = engine("pooling", cotangent).means_vjp(xp, cotangent, axis, window)
    return cotangent


def maxima_and_taps(x: Any, axis: int, window: Window, /) -> Any:
    """Return the maximum of each window along one axis, and the tap that reads it: the first, or one that reads NaN."""
    xp = array_namespace(x)
    return engine("pooling", x).maxima(xp, require_real(xp, "x", x), axis, window)


def picked_samples(x: Any, taps: Any, axis: int, window: Window, /) -> Any:
    """Return the sample that one tap of each window reads: the derivative of the maxima along x."""
    return engine("pooling", x).picked(array_namespace(x, taps), x, taps, axis, window)


def picked_samples_vjp(g: Any, taps: Any, axis: int, window: Window, /) -> Any:
    """Cotangent of x in ``picked_samples(x, taps, axis, window)``."""
    return engine("pooling", g).spread(array_namespace(g, taps), g, taps, axis, window)
