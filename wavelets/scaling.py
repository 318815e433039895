"""How moments of wavelet coefficients grow with scale, and how past values act on later variances."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from hcnn_core.backend import Array, array_namespace, require_real, to_numpy
from hcnn_core.typing import NumpyArray
from wavelets.filters import FilterBank
from wavelets.transform import last_axes, wavelet_transform

__all__ = ["leverage", "scaling_exponents", "structure_functions"]


def structure_functions(x: Array, bank: FilterBank, orders: Sequence[float]) -> NumpyArray[np.float64]:
    """Return the mean of abs(x * psi_j)^q at each scale: S(j, q) = E abs(x * psi_j)^q.

    For a process with multifractal scaling S(j, q) ~ 2^(j zeta(q)): slide 20 of S. Mallat, Multiscale Sparse Models in
    Deep Convolutional Networks. The wavelets of `steerable_bank` and `morlet_bank` have spectra of one height at all
    scales, which this relation supposes.

    Parameters
    ----------
    x : array, shape ``(..., *bank.shape)``
        Real realisations, NumPy's or CuPy's, over whose values the mean is taken.
    bank : FilterBank
        The wavelets.
    orders : sequence of float
        The q, positive.

    Returns
    -------
    numpy.ndarray, shape (J, len(orders))
        S, the mean being over positions, orientations and realisations.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        If an order is not positive, or the last axes of x do not match the bank.
    """
    if not len(orders) or min(orders) <= 0:
        raise ValueError(f"orders is {tuple(orders)}; give positive numbers")
    moduli = np.abs(wavelet_transform(x, bank, last_axes(bank))[1]).astype(np.float64)  # powers need its range
    axes = (*range(moduli.ndim - 2), moduli.ndim - 1)
    moments = np.stack([to_numpy(np.mean(moduli**q, axis=axes)) for q in orders], axis=-1)
    return np.asarray(moments, np.float64)


def scaling_exponents(moments: NumpyArray[Any], first: int, last: int) -> NumpyArray[np.float64]:
    """Return the slopes zeta(q) of log2 S(j, q) over j = first .. last, by least squares.

    Parameters
    ----------
    moments : numpy.ndarray, shape (J, Q)
        S, as `structure_functions` returns it.
    first, last : int
        Scales of the fit, both included. At the finest scale the spectrum is cut off by the sampling, and scales beyond
        the integral scale of a process do not scale.

    Returns
    -------
    numpy.ndarray, shape (Q,)
        The exponents.

    Raises
    ------
    ValueError
        If there are fewer than two scales from `first` to `last`, or S is not positive there.
    """
    array_namespace(moments)  # refuses masks
    if not 0 <= first < last < moments.shape[0]:
        raise ValueError(f"scales {first} to {last} are no range of at least two among 0 to {moments.shape[0] - 1}")
    chosen = moments[first : last + 1]
    if not (chosen > 0).all():
        raise ValueError("a moment is not positive: x has no coefficients at one of the scales")
    return np.asarray(np.polyfit(np.arange(first, last + 1), np.log2(chosen), 1)[0])


def leverage(x: Array, lags: int) -> NumpyArray[np.float64]:
    """Return the leverage correlation L(tau) = E[x(t + tau)^2 x(t)] / E[x^2]^(3/2) for tau = -lags .. lags.

    Slide 20 of S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks. It is even in tau if x and
    x reversed in time have the same distribution, and 0 everywhere if x and -x have.

    Parameters
    ----------
    x : array, shape (..., n)
        Real realisations, NumPy's or CuPy's. The mean over t leaves out what lies beyond the ends.
    lags : int
        The largest lag, below n.

    Returns
    -------
    numpy.ndarray, shape (2 * lags + 1,)
        L, the lag 0 in the middle.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        If `lags` is negative or not below n.
    """
    x = require_real(array_namespace(x), "x", x).astype(np.float64)  # cubes need its range
    n, lags = x.shape[-1], operator.index(lags)
    if not 0 <= lags < n:
        raise ValueError(f"lags is {lags}; it must be from 0 to {n - 1}")
    power = x * x
    correlations = []
    for lag in range(-lags, lags + 1):
        later, earlier = slice(max(lag, 0), n + min(lag, 0)), slice(max(-lag, 0), n - max(lag, 0))
        correlations.append(float(np.mean(power[..., later] * x[..., earlier])))
    return np.asarray(correlations, np.float64) / np.float64(np.mean(power)) ** 1.5
