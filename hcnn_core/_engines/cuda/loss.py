"""Cross-entropy and its gradient, and how many images are classified right, by one CUDA kernel each."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._tuning import current
from hcnn_core.backend import Array, dtype_name, empty


def cross_entropy(xp: Any, logits: Array, labels: Array, smoothing: float) -> tuple[Array, Array]:
    """Mean cross-entropy of logits (N, classes), and its gradient."""
    logits, labels = xp.ascontiguousarray(logits), xp.ascontiguousarray(xp.astype(labels, xp.int64, copy=False))
    loss, gradient = empty(xp, (), logits), empty(xp, logits.shape, logits)
    arguments = logits, labels, loss, gradient, *map(np.int32, logits.shape), np.float64(smoothing)
    threads = current().device_threads
    cuda.launch("cross_entropy", dtype_name(logits.dtype), {"LOSS_THREADS": threads}, (1,), threads, arguments)
    return loss, gradient


def count_right(xp: Any, logits: Array, labels: Array) -> Array:
    """How many images have the label of their largest logit, (N, classes)."""
    logits, labels = xp.ascontiguousarray(logits), xp.ascontiguousarray(xp.astype(labels, xp.int64, copy=False))
    right, threads = xp.empty((), dtype=xp.int64), current().device_threads
    arguments = logits, labels, right, *map(np.int32, logits.shape)
    cuda.launch("count_right", dtype_name(logits.dtype), {"LOSS_THREADS": threads}, (1,), threads, arguments)
    return right
