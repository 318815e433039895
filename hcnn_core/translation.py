"""Translations along axes, which the paper's layers are covariant to (section 3), and their transposes."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from hcnn_core._extension import Circle, beginning_with, cropped, extend, fold, period
from hcnn_core._problem import (
    EXTENSIONS,
    Extension,
    normalize_axes,
    normalize_choice,
    normalize_integers,
    require_options,
    takes,
)
from hcnn_core.backend import Array, array_namespace, on_host
from hcnn_core.typing import AnyArray, Axes, TranslateOptions

__all__ = ["translate", "translate_vjp"]


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
    """The namespace, a copy of the array, and what is done along its axes."""
    require_options(options, ["boundary"])
    xp = array_namespace(x)
    x = xp.asarray(on_host(x) if xp is np else x, copy=True)
    axes = normalize_axes("axes", axes, x.ndim)
    boundaries = normalize_choice("boundary", options.get("boundary"), len(axes), EXTENSIONS)
    shifts = normalize_integers("shift", shift, len(axes))
    return xp, x, [along for along in zip(axes, shifts, boundaries, strict=True) if x.shape[along[0]]]


def _translated(xp: Any, x: Array, axis: int, s: int, boundary: Extension) -> Array:
    """An array moved by s samples along an axis that is not empty."""
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
    """The shortest shift that does the same, and the circle on which it is a rotation."""
    if whole := period(boundary, n):
        half = whole // 2
        s = (s + half) % whole - half
    else:
        s = max(-n, min(s, n))
    return s, Circle(axis, n, max(s, 0), max(-s, 0), boundary)
