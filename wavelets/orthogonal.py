"""Orthogonal wavelet transforms: convolutions with stride 2, and their adjoints."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence

import numpy as np

from autodiff import convolve, convolve_vjp_x, getval
from hcnn_core.backend import Array, array_namespace, constant, require_floating
from hcnn_core.typing import Axes, NumpyArray

__all__ = ["daubechies_filter", "dwt", "idwt"]


@functools.lru_cache(maxsize=16, typed=True)  # or 2.0 would pass once 2 has been asked for
def daubechies_filter(moments: int) -> NumpyArray[np.float64]:
    """Return Daubechies' low-pass filter of least support for a number of vanishing moments.

    I. Daubechies, Orthonormal bases of compactly supported wavelets, 1988, section 4.

    Parameters
    ----------
    moments : int
        How many moments of the wavelet vanish, 1 (Haar) to 10.

    Returns
    -------
    numpy.ndarray, shape (2 * moments,)
        Of sum sqrt(2) and norm 1, orthogonal to its translations by even numbers. Read-only.

    Raises
    ------
    ValueError
        If the number is out of range.
    """
    if not 1 <= moments <= 10:
        raise ValueError(f"moments is {moments}; Daubechies' filters are made for 1 to 10")
    # abs(h)^2 = (2 - s)^p P(s), s = (1 - cos w): each root in s gives two roots in z, of which the inner is kept
    series = [math.comb(moments - 1 + k, k) / 2**k for k in range(moments)]
    roots = np.roots(series[::-1]) if moments > 1 else np.empty(0)
    c = 1 - roots  # cos w = (z + 1 / z) / 2
    z = c + np.sqrt(c * c - 1 + 0j)
    z = np.where(np.abs(z) < 1, z, 1 / np.where(z == 0, 1, z))
    taps = np.real(np.poly(np.concatenate([-np.ones(moments), z])))
    taps *= math.sqrt(2) / taps.sum()
    taps.flags.writeable = False
    return taps


def dwt(x: Array, levels: int, axes: Axes = (-2, -1), *, moments: int = 2) -> list[Array]:
    """Return the coefficients of an orthonormal wavelet basis, at periodic boundaries.

    Parameters
    ----------
    x : array
        Real or complex, NumPy's, CuPy's or traced.
    levels : int
        How often the axes are halved; 2^levels divides their lengths.
    axes : int or sequence of int, optional
        The axes to transform.
    moments : int, optional
        Vanishing moments, see `daubechies_filter`; 1 is the Haar basis.

    Returns
    -------
    list of array
        The low-pass coefficients, with the axes of x shortened by 2^levels; then wavelet coefficients from the coarsest
        level to the finest, with a last axis of 2^d - 1 kinds of wavelets, for d axes. Kind k is high-pass along the
        axes that have a one in k + 1 in binary, the first axis the most significant digit; along the others low-pass.

    Raises
    ------
    TypeError
        If x is not of a floating dtype, or `levels` is no integer.
    ValueError
        If an axis cannot be halved so often, or the axes or moments are out of range.
    """
    where, levels = _axes(x, axes), operator.index(levels)  # the power of a NumPy integer may be 0
    lengths = tuple(getval(x).shape[a] for a in where)
    if levels < 0 or any(n % 2**levels or not n for n in lengths):
        raise ValueError(f"levels is {levels} and the axes have lengths {lengths}: 2^levels must divide each of them")
    w = _filters(x, moments, len(where))
    details = []
    for _ in range(levels):
        y = convolve(x, w, where, boundary="periodic", stride=2)
        x = y[..., 0]
        details.append(y[..., 1:])
    return [x, *details[::-1]]


def idwt(coefficients: Sequence[Array], axes: Axes = (-2, -1), *, moments: int = 2) -> Array:
    """Return the array whose wavelet coefficients are given. It is the inverse and the adjoint of `dwt`.

    Axes and moments are those of `dwt`.

    Raises
    ------
    TypeError
        If the coefficients are not of a floating dtype.
    ValueError
        If a level does not have the shape that follows from the one before.
    """
    x, *details = coefficients
    where = _axes(x, axes)
    w = _filters(x, moments, len(where))
    for detail in details:
        expected = (*np.shape(x), 2 ** len(where) - 1)
        if tuple(np.shape(detail)) != expected:
            raise ValueError(f"coefficients of a level have shape {tuple(np.shape(detail))}; expected {expected}")
        shape = tuple(2 * n if a in where else n for a, n in enumerate(np.shape(x)))
        y = np.concatenate([np.expand_dims(x, x.ndim), detail], axis=-1)
        x = convolve_vjp_x(y, shape, w, where, boundary="periodic", stride=2)
    return x


def _axes(x: Array, axes: Axes) -> tuple[int, ...]:
    """Return the axes counted from the first, since results have one more."""
    named = (axes,) if isinstance(axes, int | np.integer) else tuple(axes)
    ndim = np.ndim(getval(x))
    require_floating(array_namespace(getval(x)), "x", getval(x))
    if not named or any(not -ndim <= a < ndim for a in named):
        raise ValueError(f"axes is {named}; the array has {ndim} axes: name one or more")
    return tuple(int(a) % ndim for a in named)


def _filters(x: Array, moments: int, count: int) -> Array:
    """Products of low-pass and high-pass filters along `count` axes, (taps, ..., 2^count), the low-pass one first."""
    low = daubechies_filter(moments)
    pair = (low, low[::-1] * (-1) ** np.arange(len(low)))
    products = [functools.reduce(np.multiply.outer, choice) for choice in itertools.product(pair, repeat=count)]
    like = getval(x)
    xp = array_namespace(like)
    real = "float32" if str(like.dtype) in ("float32", "complex64") else "float64"
    return constant(xp, np.stack(products, axis=-1).astype(real), getattr(like, "device", "cpu"))
