"""Translations along axes, which the paper's layers are covariant to (section 3), affine maps, and boundaries.

The boundaries "reflect", "nearest" and "mirror" no engine knows: signals are laid on circles. Along an axis of n
samples a circle holds the signal, then what follows its last sample, then what precedes its first. A periodic operation
on the circle reads there what the same operation reads of the extended signal, so its first results are the wanted
ones. `extend` lays a signal on its circles; `fold` is the transpose. "reflect" repeats after 2n samples and "mirror"
after 2n - 2, and a circle as long as that holds all of the extension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, Unpack

import numpy as np

from hcnn_core._engines.dispatch import engine
from hcnn_core._problem import (
    BOUNDARIES,
    EXTENSIONS,
    Extension,
    Problem,
    normalize_axes,
    normalize_choice,
    normalize_integers,
    require_options,
    takes,
)
from hcnn_core.backend import Array, array_namespace, memory_order, on_host, permute_dims, placement, require_real
from hcnn_core.typing import AnyArray, Axes, TranslateOptions

__all__ = ["map_affinely", "translate", "translate_vjp"]


class Circle(NamedTuple):
    """An axis of a signal of n > 0 samples, and how many others its circle holds after its end and before its start."""

    axis: int
    n: int
    before: int
    after: int
    boundary: Extension

    @property
    def length(self) -> int:
        return self.n + self.before + self.after

    @property
    def edges(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """After the end and before the start: where it lies on the circle, and the samples that are flipped there."""
        end = self.n + self.after
        after, before = slice(self.n, end), slice(end, self.length)
        if self.boundary == "nearest":
            return (after, slice(self.n - 1, self.n)), (before, slice(0, 1))
        skip = int(self.boundary == "mirror")  # the sample at the edge, which "reflect" repeats
        return (after, slice(self.n - skip - self.after, self.n - skip)), (before, slice(skip, skip + self.before))


@takes(["boundary"])
def translate(x: AnyArray, shift: Axes, axes: Axes, **options: Unpack[TranslateOptions]) -> AnyArray:
    """Translate along some axes: ``result[.., i, ..] = x[.., i - shift, ..]``.

    Parameters
    ----------
    x : array
        Any shape and dtype.
    shift : int or sequence of int
        Number of samples to move by, positive or negative, of any size; one for all axes or one per axis.
    axes : int or sequence of int
        The axes to translate along.
    boundary : {"periodic", "zero", "reflect", "nearest", "mirror"} or sequence of them
        What fills the samples that become free: those that leave at the other end, zeros, or as `convolve` extends x.
        One for all axes or one per axis.

    Returns
    -------
    array
        A new array of the shape and dtype of x.

    Raises
    ------
    TypeError
        If a shift or an axis is not an integer.
    ValueError
        If axes are repeated or out of range, or the numbers of shifts, boundaries and axes differ.

    See Also
    --------
    translate_vjp : The transpose.

    Examples
    --------
    >>> import numpy as np
    >>> translate(np.array([1, 2, 3, 4]), 2, 0, boundary="reflect")
    array([2, 1, 1, 2])
    """
    xp, result, along = _arguments(x, shift, axes, options)
    for axis, s, boundary in along:
        result = _translated(xp, result, axis, s, boundary)
    return result


@takes(["boundary"])
def translate_vjp(g: AnyArray, shift: Axes, axes: Axes, **options: Unpack[TranslateOptions]) -> AnyArray:
    """Return the cotangent of x in ``translate(x, shift, axes, ...)``: a new array of the shape and dtype of g.

    At a periodic or zero boundary it is the translation by ``-shift``. At the others a sample of x that stands in
    several places of the result gets the sum of their cotangents. All else as in `translate`.
    """
    xp, result, along = _arguments(g, shift, axes, options)
    for axis, s, boundary in along:
        result = _translated_back(xp, result, axis, s, boundary)
    return result


def _arguments(
    x: Any, shift: Axes, axes: Axes, options: TranslateOptions
) -> tuple[Any, Any, list[tuple[int, int, Extension]]]:
    """Return the namespace, a copy of the array, and what is done along its axes."""
    require_options(options, ["boundary"])
    xp = array_namespace(x)
    x = xp.asarray(on_host(x) if xp is np else x, copy=True)
    axes = normalize_axes("axes", axes, x.ndim)
    boundaries = normalize_choice("boundary", options.get("boundary"), len(axes), EXTENSIONS)
    shifts = normalize_integers("shift", shift, len(axes))
    return xp, x, [along for along in zip(axes, shifts, boundaries, strict=True) if x.shape[along[0]]]


def _translated(xp: Any, x: Array, axis: int, s: int, boundary: Extension) -> Array:
    """Return an array moved by s samples along an axis that is not empty."""
    n = x.shape[axis]
    if boundary == "periodic":
        return xp.roll(x, s % n, axis=axis)
    if boundary == "zero":
        moved = xp.zeros_like(x)
        if abs(s) < n:
            before = (slice(None),) * axis
            to, source = slice(max(s, 0), n + min(s, 0)), slice(max(-s, 0), n - max(s, 0))
            moved[(*before, to, ...)] = x[(*before, source, ...)]
        return moved
    s, circle = _circle(axis, n, s, boundary)
    return cropped(xp, xp.roll(extend(xp, x, [circle]), s, axis=axis), x.shape)


def _translated_back(xp: Any, g: Array, axis: int, s: int, boundary: Extension) -> Array:
    """Transpose of `_translated`."""
    if boundary in ("periodic", "zero"):
        return _translated(xp, g, axis, -s, boundary)
    s, circle = _circle(axis, g.shape[axis], s, boundary)
    lengths = [*g.shape[:axis], circle.length, *g.shape[axis + 1 :]]
    return fold(xp, xp.roll(beginning_with(xp, xp.zeros, lengths, g), -s, axis=axis), [circle])


def _circle(axis: int, n: int, s: int, boundary: Extension) -> tuple[int, Circle]:
    """Return the shortest shift that does the same, and the circle on which it is a rotation."""
    if whole := period(boundary, n):
        half = whole // 2
        s = (s + half) % whole - half
    else:
        s = max(-n, min(s, n))
    return s, Circle(axis, n, max(s, 0), max(-s, 0), boundary)


def period(boundary: Extension, n: int) -> int | None:
    """After how many samples the extension of n > 0 samples repeats; None if it does not."""
    if boundary == "nearest":
        return 1 if n == 1 else None
    return 2 * n if boundary == "reflect" else max(2 * n - 2, 1)


@lru_cache(maxsize=1024)
def circles(problem: Problem) -> tuple[Circle, ...]:
    """Return the circles of a problem's axes that the engines cannot extend."""
    along = zip(problem.axes, problem.lengths, problem.kernel_size, problem.stride, problem.boundary, strict=True)
    circles = []
    for (axis, n, size, stride, boundary), method in zip(along, problem.method, strict=True):
        if boundary not in BOUNDARIES:
            before, after = (size - 1) // 2, size // 2
            length = -(-(n + before + after) // stride)
            if method != "direct":
                from scipy.fft import next_fast_len  # takes long to import

                length = next_fast_len(length)
            length *= stride
            if whole := period(boundary, n):
                length = min(length, whole)
                before = min(before, length - n)
            circles.append(Circle(axis, n, before, length - n - before, boundary))
    return tuple(circles)


@lru_cache(maxsize=1024)
def on_circles(problem: Problem) -> Problem:
    """Return the problem of the extended signal, which is periodic along the circles."""
    lengths = list(problem.x_shape)
    for circle in circles(problem):
        lengths[circle.axis] = circle.length
    known = tuple(b if b in BOUNDARIES else "periodic" for b in problem.boundary)
    return replace(problem, x_shape=tuple(lengths), boundary=known)


def extend(xp: Any, x: Array, circles: Sequence[Circle]) -> Array:
    """Lay a signal on its circles, in new memory."""
    region, lengths = [slice(0, n) for n in x.shape], list(x.shape)
    for circle in circles:
        lengths[circle.axis] = circle.length
    result = beginning_with(xp, xp.empty, lengths, x)
    for circle in circles:
        for target, source in circle.edges:
            result[_with(region, circle, target)] = xp.flip(result[_with(region, circle, source)], axis=circle.axis)
        region[circle.axis] = slice(None)
    return result


def fold(xp: Any, g: Array, circles: Sequence[Circle]) -> Array:
    """Transpose of `extend`: each sample's cotangent, and those of its repetitions. It works in the memory of g."""
    region, lengths = [slice(None)] * g.ndim, list(g.shape)
    for circle in reversed(circles):
        for target, source in circle.edges:
            share = xp.flip(g[_with(region, circle, target)], axis=circle.axis)
            if circle.boundary == "nearest":
                share = xp.sum(share, axis=circle.axis, keepdims=True, dtype=g.dtype)
            g[_with(region, circle, source)] += share
        region[circle.axis], lengths[circle.axis] = slice(0, circle.n), circle.n
    return cropped(xp, g, lengths)


def beginning_with(xp: Any, make: Callable[..., Any], shape: Sequence[int], x: Array) -> Array:
    """Make an array, by xp.empty or xp.zeros, that begins with x along all axes, in the memory order of x."""
    order = memory_order(x)
    result = make(tuple(shape[axis] for axis in order), dtype=x.dtype, **placement(xp, x))
    result[tuple(slice(0, x.shape[axis]) for axis in order)] = permute_dims(xp, x, order)
    return permute_dims(xp, result, tuple(sorted(range(x.ndim), key=order.__getitem__)))


def cropped(xp: Any, y: Array, shape: Sequence[int]) -> Array:
    """Transpose of `beginning_with` with zeros: the beginning of all axes, in new memory, so that y is freed."""
    return xp.asarray(y[tuple(slice(0, n) for n in shape)], copy=True)


def _with(region: list[slice], circle: Circle, part: slice) -> tuple[slice, ...]:
    """Return a region, restricted to a part of one circle."""
    return (*region[: circle.axis], part, *region[circle.axis + 1 :])


def map_affinely(images: Array, matrices: Array, /) -> Array:
    """Return images under affine maps about their centres, bilinear between pixels, with zeros outside.

    The pixel at p is the value at ``c + matrices[n] (p - c)`` of image n, where c is its centre.

    Parameters
    ----------
    images : array, shape (N, H, W, C)
        float32 or float64.
    matrices : array, shape (N, 2, 2)
        Of the same dtype and library, rows and columns in the order of the images' axes.

    Returns
    -------
    array, shape (N, H, W, C)
        Of the same dtype.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    TypeError
        If the arrays are of different libraries or dtypes, or not float32 or float64.

    Notes
    -----
    As ``scipy.ndimage.affine_transform`` with order 1 and mode "grid-constant".
    """
    xp = array_namespace(images, matrices)
    images, matrices = require_real(xp, "images", images), require_real(xp, "matrices", matrices)
    if images.dtype != matrices.dtype:
        raise TypeError(f"images have dtype {images.dtype}, matrices {matrices.dtype}; give both one dtype")
    if images.ndim != 4 or matrices.shape != (images.shape[0], 2, 2):
        raise ValueError(
            f"images have shape {images.shape}, matrices {matrices.shape}; give (N, H, W, C) and (N, 2, 2)"
        )
    return engine("affine", images).map_affinely(xp, images, matrices)
