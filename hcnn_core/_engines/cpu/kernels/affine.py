"""Affine maps of images, bilinear between pixels."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import math

from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import NDArray


@compiled()
def map_affinely(images: NDArray, matrices: NDArray, mapped: NDArray) -> None:
    """Write images (N, H, W, C) under maps (N, 4) about their centres, with zeros outside."""
    count, height, width, channels = images.shape
    one = matrices.dtype.type(1)
    middle_row, middle_column = one * (height - 1) / 2, one * (width - 1) / 2
    for n in range(count):
        image, a, b, c, d = images[n], matrices[n, 0], matrices[n, 1], matrices[n, 2], matrices[n, 3]
        for i in range(height):
            for j in range(width):
                down, right, pixel = i - middle_row, j - middle_column, mapped[n, i, j]
                row, column = a * down + b * right + middle_row, c * down + d * right + middle_column
                pixel[:] = 0
                if not (-1 < row < height and -1 < column < width):
                    continue
                above, left = math.floor(row), math.floor(column)
                for k in range(max(above, 0), min(above + 2, height)):
                    for m in range(max(left, 0), min(left + 2, width)):
                        part = (1 - abs(row - k)) * (1 - abs(column - m))
                        for channel in range(channels):
                            pixel[channel] += part * image[k, m, channel]
