"""Translations along axes, which the paper's layers are covariant to (section 3)."""

from __future__ import annotations

import numpy as np

from hcnn_core._problem import BOUNDARIES, normalize_axes, normalize_choice, normalize_integers
from hcnn_core.backend import array_namespace, on_host
from hcnn_core.typing import AnyArray, Axes, Boundaries


def translate(
    x: AnyArray,
    shift: Axes,
    axes: Axes,
    *,
    boundary: Boundaries,
) -> AnyArray:
    """Translate along some axes: ``result[.., i, ..] = x[.., i - shift, ..]``.

    Parameters
    ----------
    x : array
        Any shape and dtype.
    shift : int or sequence of int
        Number of samples to move by, positive or negative, of any size; one for all axes or one per axis.
    axes : int or sequence of int
        The axes to translate along.
    boundary : {"periodic", "zero"} or sequence of them
        What fills the samples that become free: those that leave at the other end, or zeros. One for all axes or one
        per axis.

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
