"""Translations along axes: the group whose action the paper's layers are covariant to (section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hcnn_core._problem import BOUNDARIES, normalize_axes, normalize_choice, normalize_integers
from hcnn_core.backend import Array, array_namespace, on_host


def translate(
    x: Array,
    shift: int | Sequence[int],
    axes: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
) -> Array:
    """Translate along some axes: ``result[.., i, ..] = x[.., i - shift, ..]``.

    Parameters
    ----------
    x : array
        Any shape and dtype.
    shift : int or sequence of int
        Samples to move by, of either sign and any size; one for all axes or one per axis.
    axes : int or sequence of int
        The axes to translate along.
    boundary : {"periodic", "zero"} or sequence of them
        What enters at the end that was left: the other end, or zeros. One for all axes or one per axis.

    Returns
    -------
    array
        A new array of the shape and dtype of x. Its transpose is the translation by ``-shift``.

    Raises
    ------
    TypeError
        If a shift or an axis is not an integer.
    ValueError
        If axes are repeated or out of range, or the numbers of shifts, boundaries and axes differ.
    """
    xp = array_namespace(x)
    x = xp.asarray(on_host(x) if xp is np else x)
    axes = normalize_axes("axes", axes, x.ndim)
    boundaries = normalize_choice("boundary", boundary, len(axes), BOUNDARIES)
    shifts = normalize_integers("shift", shift, len(axes))
    result = xp.asarray(x, copy=True)
    for axis, s, bound in zip(axes, shifts, boundaries, strict=True):
        n = x.shape[axis]
        if bound == "periodic":
            result = xp.roll(result, s % max(n, 1), axis=axis)
        else:
            before = (slice(None),) * axis
            moved = xp.zeros_like(result)
            if abs(s) < n:
                to, source = slice(max(s, 0), n + min(s, 0)), slice(max(-s, 0), n - max(s, 0))
                moved[(*before, to, ...)] = result[(*before, source, ...)]
            result = moved
    return result
