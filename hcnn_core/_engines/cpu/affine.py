"""Affine maps of NumPy images by a compiled kernel, images shared among threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core._engines.cpu.kernels import affine as kernels
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._threads import parallel_for


def map_affinely(xp: Any, images: NDArray, matrices: NDArray) -> NDArray:
    """Images (N, H, W, C) under maps (N, 2, 2) about their centres, with zeros outside."""
    given, maps = np.ascontiguousarray(images), np.ascontiguousarray(matrices).reshape(-1, 4)
    mapped = np.empty_like(given)

    def some(first: int, last: int) -> None:
        kernels.map_affinely(given[first:last], maps[first:last], mapped[first:last])

    parallel_for(some, given.shape[0], given.size)
    return mapped
