"""Affine maps of CuPy images by one CUDA kernel, a thread for each number of the result."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core.backend import Array, compile_cuda, dtype_name, empty

THREADS = 256

SOURCE = """
extern "C" __global__ void map_affinely(
    const real* images, const real* matrices, real* mapped, int height, int width, int channels, long long count
) {
    const long long place = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count) return;
    const int channel = place % channels, j = place / channels % width;
    const int i = place / ((long long)channels * width) % height;
    const long long n = place / ((long long)channels * width * height);
    const real middle_row = (real)(height - 1) / 2, middle_column = (real)(width - 1) / 2;
    const real* m = matrices + 4 * n;
    const real down = i - middle_row, right = j - middle_column;
    const real row = m[0] * down + m[1] * right + middle_row, column = m[2] * down + m[3] * right + middle_column;
    real sum = 0;
    if (row > -1 && row < height && column > -1 && column < width) {
        const int above = (int)floor(row), left = (int)floor(column);
        for (int y = max(above, 0); y < min(above + 2, height); ++y)
            for (int x = max(left, 0); x < min(left + 2, width); ++x)
                sum += (1 - fabs(row - y)) * (1 - fabs(column - x))
                    * images[((n * height + y) * width + x) * channels + channel];
    }
    mapped[place] = sum;
}
"""


def source(dtype: str) -> str:
    """Return the kernel's text for a dtype."""
    return f"using real = {'float' if dtype == 'float32' else 'double'};\n{SOURCE}"


@lru_cache(maxsize=2)
def _kernel(dtype: str) -> Any:
    return compile_cuda(source(dtype), "map_affinely", ("-std=c++17",))


def map_affinely(xp: Any, images: Array, matrices: Array) -> Array:
    """Images (N, H, W, C) under maps (N, 2, 2) about their centres, with zeros outside."""
    images, matrices = xp.ascontiguousarray(images), xp.ascontiguousarray(matrices)
    mapped = empty(xp, images.shape, images)
    if images.size:
        sizes = *map(np.int32, images.shape[1:]), np.int64(images.size)
        grid = (-(-images.size // THREADS),)
        _kernel(dtype_name(images.dtype))(grid, (THREADS,), (images, matrices, mapped, *sizes))
    return mapped
