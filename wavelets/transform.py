"""The wavelet transform, and its inverse for tight banks, by FFT."""

from __future__ import annotations

from typing import Any

import numpy as np

from autodiff import getval
from hcnn_core.backend import Array, array_namespace, dtype_name, library_of, moveaxis
from hcnn_core.typing import Axes
from wavelets._fourier import fftn, ifftn
from wavelets.filters import FilterBank

__all__ = ["inverse_wavelet_transform", "wavelet_transform"]


def wavelet_transform(x: Array, bank: FilterBank, axes: Axes = (-2, -1)) -> tuple[Array, Array]:
    """Convolve an array with the filters of a bank at periodic boundaries, without subsampling.

    Slide 8 of S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks: W x = (x * phi_J, x * psi_lambda).

    Parameters
    ----------
    x : array
        Real, NumPy's, CuPy's or traced.
    bank : FilterBank
        Its `shape` is the lengths of the axes.
    axes : int or sequence of int, optional
        The axes to filter, as many as the filters have.

    Returns
    -------
    low : array, shape of x
        x * phi_J.
    high : array, shape ``(*x.shape, J, L)``
        x * psi_(j, l), complex.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        If the axes are not as many as the filters', are repeated or out of range, or have other lengths.
    """
    where = filtered_axes(x, bank, axes, bank.shape)
    bank, last = bank.like(x), last_axes(bank)
    spectrum = fftn(moveaxis(x, where, last), last)  # (..., *shape)
    low = np.real(ifftn(spectrum * bank.phi, last))
    rest = spectrum.shape[: -len(where)]
    high = ifftn(np.reshape(spectrum, (*rest, 1, 1, *bank.shape)) * bank.psi, last)  # (..., J, L, *shape)
    return moveaxis(low, last, where), moveaxis(high, last, where)


def inverse_wavelet_transform(low: Array, high: Array, bank: FilterBank, axes: Axes = (-2, -1)) -> Array:
    """Return the real array whose wavelet transform is given, for a bank with a Littlewood-Paley sum of 1.

    It is the adjoint of `wavelet_transform`: what `autodiff.vjp` makes of `low` and `high.conj()`. If the sum A is 1 it
    is the inverse on what `wavelet_transform` returns, and elsewhere the nearest array in the sense of least squares.
    If A is not 1, frequencies come back times A. `low` and `high` are as
    returned by it; the axes are those of `low`.

    Raises
    ------
    TypeError
        If `low` is not of dtype float32 or float64.
    ValueError
        If the shapes and axes do not match.
    """
    where = filtered_axes(low, bank, axes, bank.shape, "low")
    expected = (*low.shape, bank.scales, bank.angles)
    if tuple(high.shape) != expected:
        raise ValueError(f"high has shape {tuple(high.shape)}; low and the bank want {expected}")
    bank, last = bank.like(low), last_axes(bank)
    spectrum = fftn(moveaxis(high, where, last), last) * bank.psi
    spectrum = np.sum(spectrum, axis=(-len(where) - 2, -len(where) - 1))
    spectrum = spectrum + fftn(moveaxis(low, where, last), last) * bank.phi
    return moveaxis(np.real(ifftn(spectrum, last)), last, where)


def plain(x: Any) -> Any:
    """Return an array without its subclass, whose ``*`` may be another product, unless traced; TypeError for a mask."""
    return np.asarray(x) if array_namespace(getval(x)) is np and getval(x) is x else x


def last_axes(bank: FilterBank) -> tuple[int, ...]:
    """Return the last axes of an array, as many as the filters have."""
    return tuple(range(-len(bank.shape), 0))


def filtered_axes(
    x: Array, bank: FilterBank, axes: Axes, shape: tuple[int, ...], name: str = "x", *, spare: int = 0
) -> tuple[int, ...]:
    """Return the axes as numbers from 0, after checks against the lengths that they must have, or spare more."""
    value = getval(x)
    known = library_of(value) in ("numpy", "cupy") and hasattr(value, "dtype")
    if not known or dtype_name(value.dtype) not in ("float32", "float64"):
        got = f"dtype {value.dtype}" if known else f"type {type(value).__name__}"
        raise TypeError(f"{name} has {got}; this function takes NumPy and CuPy arrays of dtype float32 or float64")
    named = (axes,) if isinstance(axes, int | np.integer) else tuple(axes)
    if len(named) != len(shape):
        raise ValueError(f"axes is {named}; this bank filters {len(shape)}, of lengths {bank.shape}")
    if any(not -value.ndim <= a < value.ndim for a in named) or len({a % value.ndim for a in named}) < len(named):
        raise ValueError(f"axes is {named}; give different axes of an array that has {value.ndim}")
    where = tuple(int(a) % value.ndim for a in named)
    lengths = tuple(value.shape[a] for a in where)
    if not all(n <= length <= n + spare for length, n in zip(lengths, shape, strict=True)):
        more = f", each up to {spare} more," if spare else ""
        raise ValueError(f"axes {named} of {name} have lengths {lengths}; expected {tuple(shape)}{more} with this bank")
    return where
