"""The distance of an array from given moments, whose descent is synthesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hcnn_core.backend import Array, to_numpy
from wavelets.filters import FilterBank
from wavelets.harmonics import harmonic_statistics

__all__ = ["moment_distance"]


def moment_distance(
    x: Array, bank: FilterBank, *, harmonics: Sequence[int] = (0, 1, 2), lags: int = 1, first: int = 0
) -> tuple[Callable[[Array], Any], int]:
    """Return the squared distance of an array's moments to those of a given one, as a function.

    Slide 15 of S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, with phase harmonics
    (arXiv:1911.10017).
    All moments are divided by the deviations of their rows in the given array, so covariances become correlations.

    Parameters
    ----------
    x : array, shape ``bank.shape``
        The array with the wanted moments.
    bank : FilterBank
        The filters.
    harmonics : sequence of int, optional
        As `harmonic_statistics` takes them.
    lags : int, optional
        As `harmonic_statistics` takes them.
    first : int, optional
        The finest scale whose moments are taken, from 0 to J-1.

    Returns
    -------
    distance : callable
        From an array of that shape, traced or not, to a scalar; it is 0 for x and for all its translations.
    count : int
        How many real numbers the moments are. The low-pass row and moduli, harmonic 0, are real; all else counts as
        complex, though covariances of harmonic 1 are real for filters that are real in Fourier space.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        As `harmonic_statistics`, or if x is not finite, a row of its statistics is constant, or there is no scale
        `first`.
    """
    if not 0 <= first < bank.scales:
        raise ValueError(f"first is {first}; this bank has scales 0 to {bank.scales - 1}")

    def moments(x: Array) -> dict[str, Array]:
        statistics = harmonic_statistics(x, bank, harmonics=harmonics, lags=lags)
        if not first:
            return statistics
        begin = 1 + first * (statistics["mean"].shape[0] - 1) // bank.scales
        statistics = {key: _without(a, begin) for key, a in statistics.items()}
        return statistics | {"covariance": _without(statistics["covariance"].T, begin).T}

    wanted = moments(x)
    variance = to_numpy(wanted["covariance"]).diagonal().real
    if not np.isfinite(variance).all():
        raise ValueError("x is not finite everywhere, and has no moments")
    noise = 10 * np.finfo(x.dtype).eps  # of the transform, in units of x
    if not (variance > noise**2 * np.mean(to_numpy(x).astype(np.float64) ** 2)).all():
        if row := int(np.argmin(variance)):  # of harmonic_statistics, which has the scales before `first` too
            row += first * (len(variance) - 1) // (bank.scales - first)
        raise ValueError(f"row {row} of the statistics of x is constant: x has no such frequencies")
    deviation = np.sqrt(np.diagonal(wanted["covariance"]).real)
    scale = {"mean": deviation, "covariance": np.outer(deviation, deviation), "lagged": deviation**2}

    def distance(y: Array) -> Any:
        statistics = moments(y)
        return sum(np.sum(np.abs((statistics[key] - wanted[key]) / scale[key]) ** 2) for key in wanted)

    rows = len(variance)
    of_moduli = (rows - 1) // len(harmonics) * sum(k == 0 for k in harmonics)
    real, each = 1 + of_moduli, 2 * rows - (1 + of_moduli)  # a mean, or a lagged covariance, of every row
    shifts = wanted["lagged"].size // rows if "lagged" in wanted else 0
    # the covariance is a Hermitian matrix, and a symmetric one of the real rows
    return distance, rows**2 - real * (real - 1) // 2 + each * (1 + shifts)


def _without(a: Array, begin: int) -> Array:
    """Return an array without the rows of fine scales, which follow the low-pass row along the last axis."""
    return np.concatenate([a[..., :1], a[..., begin:]], axis=-1)
