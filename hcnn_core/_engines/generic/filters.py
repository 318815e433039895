"""Normalised filters, merged factors and their derivatives, in any namespace."""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import Any

import numpy as np

from hcnn_core._problem import Problem
from hcnn_core.backend import Array, DeviceTables, dtype_name


def normalize(xp: Any, h: Array, mean: Array, covariance: Array, epsilon: float) -> tuple[Array, Array]:
    """Divide filters (..., Q) by the standard deviation of their responses; return also the mean responses (Q,)."""
    taps = xp.reshape(h, (h.shape[0], -1))  # (Q, T)
    normal = taps / _deviation(xp, taps, covariance, epsilon)[:, None]
    # (Q, T) -> (*kernel_size, Q); (Q, T) @ (T,)
    return xp.reshape(normal.T, (*h.shape[1:], h.shape[0])), xp.matmul(normal, mean)


def normalize_vjp(
    xp: Any, g_filters: Array, g_means: Array, h: Array, mean: Array, covariance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Cotangents of h, mean and covariance."""
    taps = xp.reshape(h, (h.shape[0], -1))  # (Q, T)
    sigma = _deviation(xp, taps, covariance, epsilon)
    # (*kernel_size, Q) -> (Q, T)
    of_normal = xp.permute_dims(xp.reshape(g_filters, (-1, h.shape[0])), (1, 0)) + g_means[:, None] * mean
    variance = xp.sum(xp.matmul(taps, covariance) * taps, axis=1)
    of_variance = xp.sum(of_normal * taps, axis=1) / (-2 * sigma**3)
    of_variance = xp.where(variance < 0, xp.zeros_like(variance), of_variance)
    of_taps = of_normal / sigma[:, None] + of_variance[:, None] * xp.matmul(taps, covariance + covariance.T)
    of_covariance = xp.matmul((of_variance[:, None] * taps).T, taps)  # (T, Q) @ (Q, T)
    return xp.reshape(of_taps, h.shape), xp.matmul((taps / sigma[:, None]).T, g_means), of_covariance


def merge(
    xp: Any, h: Array, g: Array, mean: Array, covariance: Array, bias: Array, problem: Problem, epsilon: float
) -> tuple[Array, Array]:
    """Merge filters (*kernel_size of h, *kernel_size of g, K), with the offset (places, K) of `merge_factors`."""
    normal, means = normalize(xp, h, mean, covariance, epsilon)
    taps = math.prod(g.shape[1:-1])
    flat = xp.reshape(g, (g.shape[0], taps * g.shape[-1]))  # (Q, taps K)
    w = xp.matmul(xp.reshape(normal, (-1, h.shape[0])), flat)  # (T, Q) @ (Q, taps K)
    # (places, taps) @ (taps, K)
    shift = xp.matmul(reach(problem, h).T, xp.reshape(xp.matmul(means, flat), (taps, g.shape[-1])))
    return xp.reshape(w, (*h.shape[1:], *g.shape[1:])), bias - shift


def merge_vjp(
    xp: Any, g_w: Array, g_offset: Array, h: Array, g: Array, mean: Array, covariance: Array, problem: Problem,
    epsilon: float,
) -> tuple[Array, Array, Array, Array, Array]:  # fmt: skip
    """Cotangents of h, g, mean, covariance and bias."""
    normal, means = normalize(xp, h, mean, covariance, epsilon)
    flat = xp.reshape(g, (g.shape[0], math.prod(g.shape[1:])))  # (Q, taps K)
    of_w = xp.reshape(g_w, (mean.size, math.prod(g.shape[1:])))  # (T, taps K)
    of_responses = xp.reshape(xp.matmul(reach(problem, h), -g_offset), (-1,))  # (taps, places) @ (places, K)
    by_taps = xp.reshape(normal, (-1, h.shape[0]))  # (T, Q)
    of_flat = xp.matmul(by_taps.T, of_w) + means[:, None] * of_responses  # (Q, T) @ (T, taps K)
    of_filters = xp.reshape(xp.matmul(of_w, flat.T), normal.shape)  # (T, taps K) @ (taps K, Q)
    cotangents = normalize_vjp(xp, of_filters, xp.matmul(flat, of_responses), h, mean, covariance, epsilon)
    return cotangents[0], xp.reshape(of_flat, g.shape), *cotangents[1:], xp.sum(g_offset, axis=0)


_placed = DeviceTables()


def reach(problem: Problem, like: Array) -> Array:
    """1 where tap t of the result at place p reads a sample, 0 where it reads a zero: (taps, places).

    Along periodic axes every tap reads a sample.
    """
    dtype = dtype_name(like.dtype)
    return _placed.beside(like, (problem, dtype), lambda: _reach_on_host(problem).astype(dtype))


@lru_cache(maxsize=256)
def _reach_on_host(problem: Problem) -> np.ndarray[Any, Any]:
    from hcnn_core._engines.taps import extended  # late, because importing hcnn_core loads this module
    from hcnn_core._engines.transform import tap_positions

    axes = zip(problem.lengths, problem.kernel_size, problem.stride, problem.boundary, strict=True)
    along = (
        extended(np.arange(0, n, r) - tap_positions(size)[:, None], n, boundary == "periodic") >= 0
        for n, size, r, boundary in axes
    )
    return reduce(np.kron, along)


def _deviation(xp: Any, taps: Array, covariance: Array, epsilon: float) -> Array:
    variance = xp.sum(xp.matmul(taps, covariance) * taps, axis=1)
    # rounding may make a variance negative
    return xp.sqrt(xp.where(variance < 0, xp.zeros_like(variance), variance) + epsilon)
