"""Rectified wavelets and phase harmonics (S. Mallat, S. Zhang, G. Rochette, arXiv:1810.12136)."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from autodiff import defvjp, getval, primitive
from hcnn_core.backend import Array, moveaxis
from hcnn_core.typing import Axes
from wavelets.filters import FilterBank
from wavelets.transform import inverse_wavelet_transform, last_axes, plain, wavelet_transform

__all__ = ["from_rectified", "harmonic_statistics", "phase_harmonic", "rectified_transform", "rectifier_coefficient"]


def phase_harmonic(z: Array, k: int) -> Array:
    """Return [z]^k = abs(z) exp(i k phase(z)): the phase is multiplied by k, and the modulus is kept.

    Slide 11 of S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks.

    Parameters
    ----------
    z : array
        Complex, NumPy's, CuPy's or traced.
    k : int
        The harmonic; [z]^0 is abs(z), [z]^1 is z, and [z]^-k the conjugate of [z]^k.

    Returns
    -------
    array
        Complex, of the shape and dtype of z. It is 0 where z is 0, and so is its derivative there.

    Raises
    ------
    TypeError
        If z is not of complex dtype or k is no integer.
    """
    value = getval(z)
    if getattr(getattr(value, "dtype", None), "kind", None) != "c":
        got = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"z is of {got}; phase harmonics are of arrays of dtype complex64 or complex128")
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k is {k!r}; give an integer")
    return _harmonic(plain(z), int(k))


def _phase(z: Array) -> Array:
    """Return exp(i phase(z)), and 0 where z is 0."""
    r = np.abs(z)
    r = np.where(r == 0, np.ones_like(r), r)
    return np.real(z) / r + 1j * (np.imag(z) / r)  # a complex quotient overflows for subnormal numbers


def _power(u: Array, k: int) -> Array:
    """Return an integer power of numbers of modulus 1 or 0, by products: NumPy's complex power is slower."""
    if k == 0:
        return u * np.conj(u)  # 1, and 0 where u is 0
    base = u if k > 0 else np.conj(u)
    result = base
    for _ in range(abs(k) - 1):
        result = result * base
    return result


@primitive
def _harmonic(z: Array, k: int) -> Array:
    return z * _power(_phase(z), k - 1)


def _harmonic_vjp(ans: Array, z: Array, k: int) -> Any:
    def pullback(g: Array) -> Array:
        # along the phase dz moves [z]^k k times as far as along the modulus
        u = _phase(z)
        turned = g * _power(u, k)
        return (np.real(turned) + 1j * k * np.imag(turned)) * np.conj(u)

    return pullback


defvjp(_harmonic, _harmonic_vjp, None)


def rectifier_coefficient(k: int) -> float:
    """Return the Fourier coefficient of max(cos(alpha), 0) over the phase alpha.

    It is the gamma(k) of the theorem of slide 11: over the phase alpha, max(Re(exp(i alpha) z), 0) has the Fourier
    coefficients gamma(k) [z]^k.

    Parameters
    ----------
    k : int
        The harmonic.

    Returns
    -------
    float
        1/pi, 1/4, 1/(3 pi), 0, -1/(15 pi), ... for abs(k) = 0, 1, 2, 3, 4, ...
    """
    k = abs(operator.index(k))
    if k == 1:
        return 1 / 4
    return 0.0 if k % 2 else -((-1) ** (k // 2)) / (math.pi * (k * k - 1))


def rectified_transform(x: Array, bank: FilterBank, axes: Axes = (-2, -1), *, phases: int = 4) -> tuple[Array, Array]:
    """Return the rectified wavelet coefficients of slide 10: rho(x * Re(exp(i alpha) psi)), rho(a) = max(a, 0).

    All but `phases` and `high` is as in `wavelet_transform`; ValueError if `phases` is below 1.

    Parameters
    ----------
    phases : int, optional
        A: alpha = 2 pi a / A, a = 0 .. A-1. If it is even and at least 4, `from_rectified` inverts the transform.

    Returns
    -------
    low : array, shape of x
        x * phi_J.
    high : array, shape ``(*x.shape, J, L, A)``
        Rectified coefficients, not negative.
    """
    if phases < 1:
        raise ValueError(f"phases is {phases}; it must be at least 1")
    low, high = wavelet_transform(x, bank, axes)
    turns = _turns(phases, high)
    return low, np.maximum(np.real(np.expand_dims(high, high.ndim) * turns), 0)


def from_rectified(low: Array, high: Array, bank: FilterBank, axes: Axes = (-2, -1)) -> Array:
    """Return the array whose rectified wavelet coefficients are given. It is linear in them.

    Coefficients of opposite phases give rho(a) - rho(-a) = a. (Slide 10 prints a plus sign, with which the left-hand
    side is abs(a).) Arguments, result and errors are those of `inverse_wavelet_transform`, but `low` and `high` are as
    `rectified_transform` returns them; ValueError if the number of phases is not even or below 4.
    """
    phases = high.shape[-1]
    if phases % 2 or phases < 4:
        raise ValueError(f"high has {phases} phases; the inverse needs an even number, at least 4")
    wavelets = np.sum(high * np.conj(_turns(phases, high)), axis=-1) * (4 / phases)
    return inverse_wavelet_transform(low, wavelets, bank, axes)


def harmonic_statistics(
    x: Array, bank: FilterBank, *, harmonics: Sequence[int] = (0, 1, 2), lags: int = 1
) -> dict[str, Array]:
    """Return means and covariances of the phase harmonics of wavelet coefficients.

    With the Fourier transform over phases these are the moments of rectified coefficients of slide 14. The wavelet
    coefficients x * psi alone are not correlated across scales; their harmonics are.

    Parameters
    ----------
    x : array, shape ``bank.shape``
        Real, NumPy's, CuPy's or traced.
    bank : FilterBank
        The filters.
    harmonics : sequence of int, optional
        The k of [x * psi]^k.
    lags : int, optional
        Covariances of each row with itself are taken at lags of 1 .. `lags` times 2^j samples along each axis, and for
        two axes along both diagonals.

    Returns
    -------
    dict of array
        "mean" (R,): of each row, complex. The rows are x * phi, then [x * psi_(j, l)]^k for all j, l, k, in this order.
        "covariance" (R, R): of all rows, complex and Hermitian.
        "lagged" (lags, D, R), if there are lags: the mean of row(u) conj(row(u - lag)), less the row's mean. The
        directions are (1,), or (0, 1), (1, 0), (1, 1) and (1, -1). The low-pass row has the lags of the largest scale.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        If its shape is not that of the bank, there are no harmonics, or `lags` is negative.
    """
    if not len(harmonics):
        raise ValueError("harmonics is empty; give the k of [x * psi]^k, such as (0, 1, 2)")
    if lags < 0:
        raise ValueError(f"lags is {lags}; it must be at least 0")
    if tuple(np.shape(x)) != bank.shape:
        raise ValueError(f"x has shape {tuple(np.shape(x))}; this bank is for {bank.shape}")
    space = last_axes(bank)
    low, high = wavelet_transform(x, bank, space)
    high = moveaxis(high, (-2, -1), (0, 1))  # (J, L, *shape)
    maps = np.stack([phase_harmonic(high, k) for k in harmonics], axis=2)
    rows = np.concatenate([np.expand_dims(low, 0) + 0j, np.reshape(maps, (-1, *bank.shape))])
    mean = np.mean(rows, axis=space)
    rows = rows - np.reshape(mean, (-1, *(1,) * len(space)))
    count = math.prod(bank.shape)
    flat = np.reshape(rows, (rows.shape[0], -1))
    statistics: dict[str, Array] = {"mean": mean, "covariance": flat @ np.conj(flat).T / count}
    directions = [(1,)] if len(space) == 1 else [(0, 1), (1, 0), (1, 1), (1, -1)]
    per_scale = (rows.shape[0] - 1) // bank.scales
    lagged = []
    for lag, direction in itertools.product(range(1, lags + 1), directions):
        of_rows = []
        for j in range(-1, bank.scales):  # -1: the low-pass row, which is as smooth as the largest scale
            part = rows[1 + j * per_scale :][:per_scale] if j >= 0 else rows[:1]
            step = lag * 2 ** (j if j >= 0 else bank.scales - 1)
            moved = np.roll(part, tuple(step * d for d in direction), axis=space)
            of_rows.append(np.mean(part * np.conj(moved), axis=space))
        lagged.append(np.concatenate(of_rows))
    if lagged:
        statistics["lagged"] = np.reshape(np.stack(lagged), (lags, len(directions), -1))
    return statistics


def _turns(phases: int, like: Array) -> Array:
    """Return the numbers exp(2 pi i a / A), in the precision and library of an array."""
    turns = np.exp(2j * math.pi * np.arange(phases) / phases)
    value: Any = getval(like)
    return np.asarray(turns, like=value, dtype=np.result_type(value.dtype, np.complex64))
