"""Derivatives of numpy.fft. The matrix of a transform of n points is symmetric, so each is its own transpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodiff._rules.table import axes_of, composite, constant, real_dtype
from autodiff.tape import Primitive, defvjp, primitive
from hcnn_core.backend import Array

INVERSE = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}
"""The normalisation with which a transform of the other direction undoes one up to the sign of the exponent."""


def _symmetric(function: Any) -> Primitive:
    """Return a transform of the whole axis, which is its own transpose."""
    transform = primitive(lambda x, axis, norm: function(x, axis=axis, norm=norm))
    defvjp(transform, lambda ans, x, axis, norm: lambda g: transform(g, axis, norm))
    return transform


_fft, _ifft = _symmetric(np.fft.fft), _symmetric(np.fft.ifft)
_rfft = primitive(lambda x, axis, norm: np.fft.rfft(x, axis=axis, norm=norm))
_irfft = primitive(lambda x, n, axis, norm: np.fft.irfft(x, n, axis=axis, norm=norm))


def _multiplicity(n: int, axis: int, like: Array) -> Array:
    """How many of n frequencies each of the n // 2 + 1 stored ones stands for: 2, or 1 where it is real."""
    counts = np.full(n // 2 + 1, 2.0)
    counts[0] = 1
    if n % 2 == 0:
        counts[-1] = 1
    shape = [-1 if i == axis else 1 for i in range(np.ndim(like))]
    return constant(counts.reshape(shape).astype(real_dtype(like)), like)


def rfft_vjp(ans: Array, x: Array, axis: int, norm: str | None) -> Any:
    n = np.shape(x)[axis]
    return lambda g: _irfft(np.conj(g) / _multiplicity(n, axis, g), n, axis, INVERSE[norm])


def irfft_vjp(ans: Array, x: Array, n: int, axis: int, norm: str | None) -> Any:
    return lambda g: np.conj(_rfft(g, axis, INVERSE[norm])) * _multiplicity(n, axis, g)


defvjp(_rfft, rfft_vjp)
defvjp(_irfft, irfft_vjp)


def _resized(a: Array, n: int, axis: int) -> Array:
    """Return the array with n elements along an axis, cut or followed by zeros."""
    length = np.shape(a)[axis]
    if n < 1:
        raise ValueError(f"a transform of {n} points: it takes 1 or more")
    if n <= length:
        return a if n == length else a[(*(slice(None),) * axis, slice(0, n))]
    return np.pad(a, [(0, n - length if i == axis else 0) for i in range(np.ndim(a))])


def _along_one(transform: Primitive) -> Callable[..., Array]:
    def along(a: Array, n: int | None = None, axis: int = -1, norm: str | None = None, out: None = None) -> Array:
        (axis,) = axes_of(axis, np.ndim(a))
        return transform(_resized(a, np.shape(a)[axis] if n is None else n, axis), axis, norm)

    return along


fft, ifft, rfft = map(_along_one, (_fft, _ifft, _rfft))


def irfft(a: Array, n: int | None = None, axis: int = -1, norm: str | None = None, out: None = None) -> Array:
    (axis,) = axes_of(axis, np.ndim(a))
    n = 2 * (np.shape(a)[axis] - 1) if n is None else n
    return _irfft(_resized(a, n // 2 + 1, axis), n, axis, norm)


def _grid(a: Array, s: Sequence[int | None] | None, axes: Sequence[int] | None, halved: bool = False) -> Any:
    """Return the lengths of a transform along several axes and the axes; `halved` says that the last is half stored."""
    if axes is None:
        axes = range(-len(s), 0) if s is not None else range(np.ndim(a))
    where = tuple(axes_of(axis, np.ndim(a))[0] for axis in axes)
    lengths = [np.shape(a)[axis] for axis in where]
    if halved:
        lengths[-1] = 2 * (lengths[-1] - 1)
    if s is not None:
        if len(s) != len(where):
            raise ValueError(f"a transform along {len(where)} axes takes as many lengths, not {len(s)}")
        points = [np.shape(a)[axis] if n == -1 else n for n, axis in zip(s, where, strict=True)]
        lengths = [length if n is None else n for n, length in zip(points, lengths, strict=True)]
    return lengths, where


def _along_axes(
    one: Callable[..., Array], a: Array, lengths: Sequence[int], axes: Sequence[int], norm: str | None
) -> Array:
    for n, axis in zip(reversed(lengths), reversed(axes), strict=True):
        a = one(a, n, axis, norm)
    return a


def _several(one: Callable[..., Array]) -> Callable[..., Array]:
    def transform(a: Array, s: Any = None, axes: Any = None, norm: str | None = None, out: None = None) -> Array:
        lengths, where = _grid(a, s, axes)
        return _along_axes(one, a, lengths, where, norm)

    return transform


fftn, ifftn = _several(fft), _several(ifft)


def rfftn(a: Array, s: Any = None, axes: Any = None, norm: str | None = None, out: None = None) -> Array:
    lengths, where = _grid(a, s, axes)
    return _along_axes(fft, rfft(a, lengths[-1], where[-1], norm), lengths[:-1], where[:-1], norm)


def irfftn(a: Array, s: Any = None, axes: Any = None, norm: str | None = None, out: None = None) -> Array:
    lengths, where = _grid(a, s, axes, halved=True)
    for n, axis in zip(lengths[:-1], where[:-1], strict=True):
        a = ifft(a, n, axis, norm)
    return irfft(a, lengths[-1], where[-1], norm)


def _planar(several: Callable[..., Array]) -> Callable[..., Array]:
    def transform(a: Array, s: Any = None, axes: Any = (-2, -1), norm: str | None = None, out: None = None) -> Array:
        return several(a, s, axes, norm)

    return transform


def _shift(direction: int) -> Callable[..., Array]:
    def shifted(x: Array, axes: Any = None) -> Array:
        where = axes_of(axes, np.ndim(x))
        lengths = [np.shape(x)[axis] for axis in where]
        return np.roll(x, tuple(n // 2 if direction > 0 else -(n // 2) for n in lengths), where)

    return shifted


_TRANSFORMS: dict[str, Callable[..., Array]] = {
    **{"fft": fft, "ifft": ifft, "rfft": rfft, "irfft": irfft},
    **{"fftn": fftn, "ifftn": ifftn, "rfftn": rfftn, "irfftn": irfftn},
    **{"fft2": _planar(fftn), "ifft2": _planar(ifftn), "rfft2": _planar(rfftn), "irfft2": _planar(irfftn)},
    **{"fftshift": _shift(1), "ifftshift": _shift(-1)},
}
for _name, _handler in _TRANSFORMS.items():
    composite(getattr(np.fft, _name))(_handler)
