"""Affine maps of images, bilinear between pixels, in any namespace."""

from __future__ import annotations

from typing import Any

from hcnn_core.backend import Array, placement


def map_affinely(xp: Any, images: Array, matrices: Array) -> Array:
    """Images (N, H, W, C) under maps (N, 2, 2) about their centres, with zeros outside."""
    count, height, width, channels = images.shape
    where, dtype = placement(xp, images), images.dtype
    down = xp.astype(xp.arange(height, **where), dtype)[None, :, None] - (height - 1) / 2
    right = xp.astype(xp.arange(width, **where), dtype)[None, None, :] - (width - 1) / 2
    a, b, c, d = (matrices[:, k, m][:, None, None] for k in range(2) for m in range(2))
    wide = width + 2  # a border of zeros, beside which nothing else counts
    padded = xp.zeros((count, height + 2, wide, channels), dtype=dtype, **where)
    padded[:, 1:-1, 1:-1, :] = images
    rows, columns = a * down + b * right + (height + 1) / 2, c * down + d * right + (width + 1) / 2
    first_row, first_column = (xp.clip(xp.floor(n), -1, most) for n, most in ((rows, height + 1), (columns, width + 1)))
    images_begin = ((height + 2) * wide) * xp.arange(count, **where)[:, None, None]
    flat, mapped = xp.reshape(padded, (-1, channels)), xp.zeros_like(images)
    for row in (first_row, first_row + 1):
        for column in (first_column, first_column + 1):
            part = xp.maximum(1 - xp.abs(rows - row), 0.0) * xp.maximum(1 - xp.abs(columns - column), 0.0)
            place = xp.clip(row, 0, height + 1) * wide + xp.clip(column, 0, width + 1)
            source = images_begin + xp.astype(place, images_begin.dtype)
            taken = xp.reshape(xp.take(flat, xp.reshape(source, (-1,)), axis=0), images.shape)
            mapped = mapped + xp.astype(part, dtype)[..., None] * taken
    return mapped
