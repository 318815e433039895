"""Normalised filters and their derivatives, in any namespace."""

from __future__ import annotations

from typing import Any

from hcnn_core.backend import Array


def normalize(xp: Any, h: Array, mean: Array, covariance: Array, epsilon: float) -> tuple[Array, Array]:
    """Filters (..., Q) over the deviation of their responses, and the means of these."""
    taps = xp.reshape(h, (h.shape[0], -1))  # (Q, T)
    normal = taps / _deviation(xp, taps, covariance, epsilon)[:, None]
    return xp.reshape(normal.T, (*h.shape[1:], h.shape[0])), xp.matmul(normal, mean)


def normalize_vjp(
    xp: Any, g_filters: Array, g_means: Array, h: Array, mean: Array, covariance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Cotangents of h, mean and covariance."""
    taps = xp.reshape(h, (h.shape[0], -1))  # (Q, T)
    sigma = _deviation(xp, taps, covariance, epsilon)
    of_normal = xp.permute_dims(xp.reshape(g_filters, (-1, h.shape[0])), (1, 0)) + g_means[:, None] * mean
    variance = xp.sum(xp.matmul(taps, covariance) * taps, axis=1)
    of_variance = xp.sum(of_normal * taps, axis=1) / (-2 * sigma**3)
    of_variance = xp.where(variance < 0, xp.zeros_like(variance), of_variance)
    of_taps = of_normal / sigma[:, None] + of_variance[:, None] * xp.matmul(taps, covariance + covariance.T)
    of_covariance = xp.matmul((of_variance[:, None] * taps).T, taps)
    return xp.reshape(of_taps, h.shape), xp.matmul((taps / sigma[:, None]).T, g_means), of_covariance


def _deviation(xp: Any, taps: Array, covariance: Array, epsilon: float) -> Array:
    variance = xp.sum(xp.matmul(taps, covariance) * taps, axis=1)
    # rounding may leave less than nothing
    return xp.sqrt(xp.where(variance < 0, xp.zeros_like(variance), variance) + epsilon)
