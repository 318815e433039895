"""Gabor functions fitted to filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core.backend import array_namespace
from hcnn_core.typing import NumpyArray

__all__ = ["fit_gabor"]

NARROWEST = 0.4
"""Samples: the least width of the window, below which a Gabor function is a single sample."""

RIDGE = 1e-9
"""Added to the squared norms of both waves, so that a wave of no energy does no harm."""


def fit_gabor(filter: NumpyArray[Any], *, starts: int = 2) -> tuple[NumpyArray[np.float64], float]:
    """Return the Gabor function nearest to a filter in least squares, and R^2.

    A Gabor function is a plane wave in a Gaussian window. Amplitude and phase follow linearly from the six other
    numbers: center, widths along and across the wave, angle and frequency. These are found by Levenberg-Marquardt, from
    the best of 24 starts at the filter's largest sample.

    Parameters
    ----------
    filter : numpy.ndarray, shape (n, n)
        Real and not 0, with n at least 3: a Gabor function has eight numbers.
    starts : int, optional
        How many of the 24 are refined, from 1; the best fit counts.

    Returns
    -------
    fit : numpy.ndarray, shape (n, n)
        Values of the Gabor function.
    r2 : float
        Part of the filter's energy that it explains, 1 at best.

    Raises
    ------
    TypeError
        If the filter is complex.
    ValueError
        If the filter is not square, smaller than (3, 3), is 0 or not finite, or `starts` is less than 1.
    """
    from scipy import optimize  # slow to import, and training does without

    array_namespace(filter)  # refuses masks
    if np.iscomplexobj(filter):
        raise TypeError("the filter is complex; give a real one, such as its real part")
    f = np.asarray(filter, np.float64)
    if f.ndim != 2 or not 3 <= f.shape[0] == f.shape[1] or not (np.isfinite(f).all() and f.any()):
        raise ValueError(
            f"filter has shape {f.shape}; "
            "give a square one of finite numbers that is not 0 everywhere, of 3 by 3 samples or more"
        )
    if starts < 1:
        raise ValueError(f"starts is {starts}; give at least 1")
    n, size = len(f), np.abs(f).max()
    f = f / size  # so that no square is too large or too small
    u, v = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 2, indexing="ij")

    def nearest(p: Any) -> Any:
        """Return the Gabor function of given center (0, 1), log widths (2, 3), angle (4) and frequency (5)."""
        along = (u - p[0]) * np.cos(p[4]) + (v - p[1]) * np.sin(p[4])
        across = (v - p[1]) * np.cos(p[4]) - (u - p[0]) * np.sin(p[4])
        width, height = np.exp(np.clip(p[2:4], np.log(NARROWEST), np.log(2 * n)))
        wave = np.exp(-((along / width) ** 2 + (across / height) ** 2) / 2 + 1j * p[5] * along)
        waves = np.stack([wave.real.ravel(), wave.imag.ravel()])
        amplitudes = np.linalg.solve(waves @ waves.T + RIDGE * np.eye(2), waves @ f.ravel())
        return (amplitudes @ waves).reshape(n, n)

    peak = np.array(np.unravel_index(np.argmax(np.abs(f)), f.shape)) - (n - 1) / 2
    widths = np.log([n / 5, n / 5])
    begun = [(*peak, *widths, angle, w) for angle in np.arange(8) * np.pi / 8 for w in (0.7, 1.4, 2.2)]
    begun = sorted(begun, key=lambda p: float(np.sum((nearest(p) - f) ** 2)))[:starts]
    fits = [optimize.least_squares(lambda p: (nearest(p) - f).ravel(), p, method="lm", max_nfev=250) for p in begun]
    fit = nearest(min(fits, key=lambda result: result.cost).x)
    return size * fit, float(1 - np.sum((fit - f) ** 2) / np.sum(f**2))
