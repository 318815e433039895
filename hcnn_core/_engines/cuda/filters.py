"""Normalised filters and their derivatives by one CUDA kernel each."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core.backend import Array, dtype_name, empty

THREADS = 128

MOST_TAPS, MOST_FILTERS = 16, 2048
"""A filter stays in registers, and a number for each of them in the memory that a block shares."""


def suits(h: Array) -> bool:
    """Whether the kernels take filters (Q, *kernel_size)."""
    few = 0 < h.shape[0] <= MOST_FILTERS and 0 < h.size <= MOST_TAPS * h.shape[0]
    return few and dtype_name(h.dtype) in cuda.TILING


def normalize(xp: Any, h: Array, mean: Array, covariance: Array, epsilon: float) -> tuple[Array, Array]:
    """Filters (..., Q) over the deviation of their responses, and the means of these."""
    filters, means = empty(xp, (*h.shape[1:], h.shape[0]), h), empty(xp, h.shape[:1], h)
    _launch(xp, "normalize", (h, mean, covariance), (filters, means), h, epsilon)
    return filters, means


def normalize_vjp(
    xp: Any, g_filters: Array, g_means: Array, h: Array, mean: Array, covariance: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Cotangents of h, mean and covariance."""
    found = empty(xp, h.shape, h), empty(xp, mean.shape, h), empty(xp, covariance.shape, h)
    _launch(xp, "normalize_back", (h, mean, covariance, g_filters, g_means), found, h, epsilon)
    return found


def _launch(xp: Any, name: str, given: tuple[Array, ...], results: tuple[Array, ...], h: Array, epsilon: float) -> None:
    dtype, count = dtype_name(h.dtype), h.shape[0]
    operands = (xp.ascontiguousarray(xp.astype(a, h.dtype, copy=False)) for a in given)
    sizes = {"FILTER_TAPS": h.size // count, "FILTER_THREADS": THREADS, "MOST_FILTERS": MOST_FILTERS}
    arguments = (*operands, *results, np.int32(count), np.float64(epsilon))
    cuda.launch(name, dtype, sizes, (1,), THREADS, arguments)
