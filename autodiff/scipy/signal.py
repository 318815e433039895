"""scipy.signal, with convolutions for traced values too."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal

from autodiff._rules.table import as_array, axes_of
from autodiff.primitives import convolve as _convolve
from hcnn_core.backend import Array

__all__ = ["convolve", "fftconvolve"]


def convolve(
    in1: Array,
    in2: Array,
    mode: str = "full",
    method: str = "auto",
    *,
    axes: tuple[Sequence[int], Sequence[int]] | None = None,
    dot_axes: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> Array:
    """Return a convolution with zeros beyond the ends, as `scipy.signal.convolve` and as HIPS autograd's.

    Parameters
    ----------
    in1, in2 : array
        The arrays; without `axes`, of as many axes as each other.
    mode : {"full", "same", "valid"}
        Which part is returned: where the two meet, as long as `in1`, or where the shorter lies inside the longer.
    method : {"auto", "direct", "fft"}
        As in `hcnn_core.convolve`.
    axes : pair of sequences of int, optional
        The axes of each that are convolved, 1 to 6, in the same order; all by default.
    dot_axes : pair of sequences of int
        Axes of each that are multiplied and summed.

    Returns
    -------
    array
        The other axes of `in1`, those of `in2`, then the convolved ones.

    Raises
    ------
    ValueError
        If the mode is another, or for ``"valid"`` neither is longer along every axis.
    """
    ndims = np.ndim(in1), np.ndim(in2)
    if axes is None:
        if ndims[0] != ndims[1]:
            raise ValueError(f"in1 and in2 have {ndims[0]} and {ndims[1]} axes; without axes= they have as many")
        axes = (range(ndims[0]), range(ndims[1]))
    along, other = (axes_of(tuple(a), n) for a, n in zip(axes, ndims, strict=True))
    summed, summed_2 = (axes_of(tuple(a), n) for a, n in zip(dot_axes, ndims, strict=True))
    free = [i for i in range(ndims[1]) if i not in other and i not in summed_2]
    w = np.transpose(in2, (*summed_2, *other, *free))
    lengths, sizes = [np.shape(in1)[i] for i in along], [np.shape(in2)[i] for i in other]
    parts: tuple[Any, ...] = _parts(mode, lengths, sizes)
    widths = [(0, 0)] * ndims[0]
    for i, s in zip(along, sizes, strict=True):
        widths[i] = (s // 2, s - 1 - s // 2)
    full = _convolve(np.pad(in1, widths), w, along, boundary="zero", sum_axes=summed, method=method)
    remaining = [i for i in range(ndims[0]) if i not in summed]
    order = [remaining.index(i) for i in remaining if i not in along]
    order += list(range(len(remaining), len(remaining) + len(free))) + [remaining.index(i) for i in along]
    result = np.transpose(full, order)
    return result[(..., *parts)]


def fftconvolve(in1: Array, in2: Array, mode: str = "full", axes: int | Sequence[int] | None = None) -> Array:
    """Return a convolution by FFT with zeros beyond the ends, as `scipy.signal.fftconvolve`.

    Raises
    ------
    ValueError
        If the numbers of axes differ, the other axes do not broadcast, the mode is another, or for ``"valid"`` neither
        array is longer along every axis.
    """
    in1, in2 = as_array(in1, in2), as_array(in2, in1)
    if np.ndim(in1) != np.ndim(in2):
        raise ValueError(f"in1 and in2 have {np.ndim(in1)} and {np.ndim(in2)} axes; they have as many as each other")
    if np.size(in1) == 0 or np.size(in2) == 0:
        raise ValueError(f"in1 and in2 have shapes {np.shape(in1)} and {np.shape(in2)}; there is nothing to convolve")
    along = axes_of(axes if axes is None or isinstance(axes, int) else tuple(axes), np.ndim(in1))
    if len(set(along)) < len(along):
        raise ValueError(f"axes is {axes}, which names an axis twice")
    lengths, sizes = ([np.shape(x)[i] for i in along] for x in (in1, in2))
    parts = dict(zip(along, _parts(mode, lengths, sizes), strict=True))
    if not along:
        return in1 * in2
    points = [scipy.fft.next_fast_len(n + s - 1) for n, s in zip(lengths, sizes, strict=True)]
    library: Any = np.fft
    forward, inverse = library.rfftn, library.irfftn
    if np.iscomplexobj(in1) or np.iscomplexobj(in2):
        forward, inverse = library.fftn, library.ifftn
    full = inverse(forward(in1, points, along) * forward(in2, points, along), points, along)
    if mode == "same":  # as long as in1 along the other axes too
        for i, (n, m) in enumerate(zip(np.shape(in1), np.shape(full), strict=True)):
            parts.setdefault(i, slice((m - n) // 2, (m - n) // 2 + n))
    return full[tuple(parts.get(i, slice(None)) for i in range(np.ndim(full)))]


def _parts(mode: str, lengths: list[int], sizes: list[int]) -> tuple[slice, ...]:
    """Return the part of a full convolution along each axis."""
    if 0 in (*lengths, *sizes):
        raise ValueError(f"in1 and in2 have lengths {lengths} and {sizes}; there is nothing to convolve")
    if mode == "valid" and not (all(map(operator.ge, lengths, sizes)) or all(map(operator.le, lengths, sizes))):
        raise ValueError(
            f"mode is 'valid'; neither of the lengths {lengths} and {sizes} is the larger along every axis"
        )
    return tuple(_part(mode, n, s) for n, s in zip(lengths, sizes, strict=True))


def _part(mode: str, n: int, s: int) -> slice:
    """Return the part of a full convolution of n by s numbers."""
    starts = {"full": (0, n + s - 1), "same": ((s - 1) // 2, n), "valid": (min(n, s) - 1, abs(n - s) + 1)}
    if mode not in starts:
        raise ValueError(f"mode is {mode!r}; choose 'full', 'same' or 'valid'")
    start, length = starts[mode]
    return slice(start, start + length)


def __getattr__(name: str) -> Any:
    return getattr(scipy.signal, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(scipy.signal)})
