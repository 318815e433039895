"""Cross-entropy and its gradient by a CUDA kernel."""

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
