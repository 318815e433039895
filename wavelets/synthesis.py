"""Arrays with given moments, found by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import optimize

from autodiff import value_and_grad
from hcnn_core.backend import Array, to_numpy
from hcnn_core.typing import NumpyArray
from wavelets.filters import FilterBank
from wavelets.harmonics import harmonic_statistics

__all__ = ["lbfgs", "moment_distance"]


def moment_distance(
    x: Array, bank: FilterBank, *, harmonics: Sequence[int] = (0, 1, 2), lags: int = 1
) -> tuple[Callable[[Array], Any], int]:
    """Return the squared distance of an array's moments to those of a given one, as a function.

    Slide 15 of S. Mallat, Multiscale Sparse Models in Deep Convolutional Networks, with phase harmonics
    (arXiv:1911.10017).
    All moments are divided by the deviations of their rows in the given array, so covariances become correlations.

    Parameters
    ----------
    x : array, shape (*bank.shape)
        Whose moments are wanted.
    bank : FilterBank
        The filters.
    harmonics : sequence of int, optional
        As `harmonic_statistics` takes them.
    lags : int, optional
        As `harmonic_statistics` takes them.

    Returns
    -------
    distance : callable
        From an array of that shape, traced or not, to a scalar; it is 0 for x and for all its translations.
    count : int
        How many real numbers the moments are.

    Raises
    ------
    TypeError
        If x is not of dtype float32 or float64.
    ValueError
        As `harmonic_statistics`, or if x is not finite, or a row of its statistics is constant.
    """
    wanted = harmonic_statistics(x, bank, harmonics=harmonics, lags=lags)
    variance = to_numpy(wanted["covariance"]).diagonal().real
    if not np.isfinite(variance).all():
        raise ValueError("x is not finite everywhere, and has no moments")
    if not (variance > 0).all():
        raise ValueError(
            f"row {int(np.argmin(variance))} of the statistics of x is constant: x has no such frequencies"
        )
    deviation = np.sqrt(np.diagonal(wanted["covariance"]).real)
    scale = {"mean": deviation, "covariance": np.outer(deviation, deviation), "lagged": deviation**2}

    def distance(y: Array) -> Any:
        found = harmonic_statistics(y, bank, harmonics=harmonics, lags=lags)
        return sum(np.sum(np.abs((found[key] - wanted[key]) / scale[key]) ** 2) for key in wanted)

    rows, lagged = len(variance), wanted.get("lagged")
    # a mean and a lagged covariance are two real numbers, a Hermitian matrix of R rows is R^2
    return distance, rows**2 + 2 * rows + (0 if lagged is None else 2 * lagged.size)


def lbfgs(
    fun: Callable[[Any], Any], start: NumpyArray[Any], *, iterations: int, memory: int = 20
) -> tuple[NumpyArray[Any], float]:
    """Minimise a function of one array by L-BFGS, with gradients of the tape.

    Parameters
    ----------
    fun : callable
        From an array, traced or not, to a real scalar.
    start : numpy.ndarray
        Where to begin. The function gets arrays of its shape and dtype.
    iterations : int
        How many iterations to take at most.
    memory : int, optional
        How many past steps approximate the second derivatives.

    Returns
    -------
    x : numpy.ndarray
        Of the shape and dtype of `start`.
    value : float
        ``fun(x)``.

    Raises
    ------
    TypeError
        If `start` is not of dtype float32 or float64, or `fun` returns no real scalar.
    """
    if start.dtype not in (np.float32, np.float64):
        raise TypeError(f"start has dtype {start.dtype}; L-BFGS takes float32 or float64")
    gradient = value_and_grad(fun)

    def evaluate(v: Any) -> tuple[float, Any]:
        value, g = gradient(v.reshape(start.shape).astype(start.dtype))
        return float(value), g.astype(np.float64).ravel()  # what SciPy computes with

    options = {"maxiter": iterations, "maxcor": memory, "maxfun": 10 * iterations}
    found = optimize.minimize(evaluate, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape).astype(start.dtype), float(found.fun)
