"""Normalised filters, merged factors and their derivatives by CUDA kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.generic.filters import reach
from hcnn_core._problem import Problem
from hcnn_core._tuning import current
from hcnn_core.backend import Array, dtype_name, empty

MOST_TAPS, MOST_FILTERS = 16, 2048
"""The taps of a filter stay in registers. A number for each filter stays in the shared memory of a block of threads."""


def supports(h: Array, g: Array | None = None) -> bool:
    """Whether the kernels take filters (Q, *kernel_size), and factors g (Q, *kernel_size, K)."""
    few = 0 < h.shape[0] <= MOST_FILTERS and 0 < h.size <= MOST_TAPS * h.shape[0]
    if not few or dtype_name(h.dtype) not in cuda.TILING:
        return False
    return g is None or (
        0 < g.size < 1 << 31 and _shared_bytes(h, math.prod(g.shape[1:-1])) <= cuda.device_limits().shared
    )


def normalize(xp: Any, h: Array, mean: Array, covariance: Array, epsilon: float) -> tuple[Array, Array]:
    """Divide filters (..., Q) by the standard deviation of their responses; return also the mean responses (Q,)."""
    filters, means = empty(xp, (*h.shape[1:], h.shape[0]), h), empty(xp, h.shape[:1], h)
    _launch(xp, "normalize", h, (h, mean, covariance), (filters, means), (), epsilon)
    return filters, means


def normalize_vjp(
    xp: Any, g_filters: Array, g_means: Array, h: Array, mean: Array, covariance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return the cotangents of h, mean and covariance."""
    results = empty(xp, h.shape, h), empty(xp, mean.shape, h), empty(xp, covariance.shape, h)
    _launch(xp, "normalize_back", h, (h, mean, covariance, g_filters, g_means), results, (1, 0), epsilon)
    return results


def merge(
    xp: Any, h: Array, g: Array, mean: Array, covariance: Array, bias: Array, problem: Problem, epsilon: float
) -> tuple[Array, Array]:
    """Merge filters (*kernel_size of h, *kernel_size of g, K), with the offset (places, K) of `merge_factors`."""
    table, kernels = reach(problem, h), g.shape[-1]
    across, places = table.shape
    w, offset = empty(xp, (across, mean.size, kernels), h), empty(xp, (places, kernels), h)
    numbers, shared = (across, kernels, places), _shared_bytes(h, across)
    _launch(xp, "merge", h, (h, g, mean, covariance, bias, table), (w, offset), numbers, epsilon, kernels, shared)
    # (taps, T, K) -> (*kernel_size of h, *kernel_size of g, K), a view: the taps of g stay first in memory, as in the
    # plan of the convolution with w
    first = g.ndim - 2
    axes = (*range(first, first + h.ndim - 1), *range(first), -1)
    return xp.permute_dims(xp.reshape(w, (*g.shape[1:-1], *h.shape[1:], kernels)), axes), offset


def merge_vjp(
    xp: Any, g_w: Array, g_offset: Array, h: Array, g: Array, mean: Array, covariance: Array, problem: Problem,
    epsilon: float,
) -> tuple[Array, Array, Array, Array, Array]:  # fmt: skip
    """Cotangents of h, g, mean, covariance and bias."""
    table, kernels = reach(problem, h), g.shape[-1]
    across, places = table.shape
    of_g, of_bias = empty(xp, g.shape, h), empty(xp, (kernels,), h)
    parts = empty(xp, (kernels, mean.size + 1, h.shape[0]), h)
    first = h.ndim - 1
    # (*kernel_size of h, *kernel_size of g, K) -> (*kernel_size of g, *kernel_size of h, K)
    by_taps = xp.permute_dims(g_w, (*range(first, g_w.ndim - 1), *range(first), g_w.ndim - 1))
    arrays = (h, g, mean, covariance, table, by_taps, g_offset)
    numbers, shared = (across, kernels, places), _shared_bytes(h, across)
    _launch(xp, "merge_back", h, arrays, (of_g, of_bias, parts), numbers, epsilon, kernels, shared)
    every = kernels, (mean.size + 1) * h.shape[0]  # parts, and how far apart they are
    of_h, of_mean, of_covariance = (empty(xp, a.shape, h) for a in (h, mean, covariance))
    summed, results = (h, mean, covariance, parts, parts[0, -1, :]), (of_h, of_mean, of_covariance)
    _launch(xp, "normalize_back", h, summed, results, every, epsilon)
    return of_h, of_g, of_mean, of_covariance, of_bias


def _shared_bytes(h: Array, across: int) -> int:
    """Bytes of shared memory for the filters and cotangents of a block of threads of `merge` or `merge_back`."""
    return int((h.size // h.shape[0] + 1) * (h.shape[0] + across) * h.itemsize)


def _launch(
    xp: Any, name: str, h: Array, arrays: tuple[Array, ...], results: tuple[Array, ...], numbers: tuple[int, ...],
    epsilon: float, blocks: int = 1, shared: int = 0,
) -> None:  # fmt: skip
    dtype, count, threads = dtype_name(h.dtype), h.shape[0], current().device_filter_threads
    operands = (xp.ascontiguousarray(xp.astype(a, h.dtype, copy=False)) for a in arrays)
    sizes = {"FILTER_TAPS": h.size // count, "FILTER_THREADS": threads, "MOST_FILTERS": MOST_FILTERS}
    arguments = (*operands, *results, *map(np.int32, (count, *numbers)), np.float64(epsilon))
    cuda.launch(name, dtype, sizes, (blocks,), threads, arguments, shared)
