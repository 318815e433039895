"""Products of small matrices by a CUDA kernel, which a CUDA graph can hold; CuPy refuses cuBLAS there."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._tuning import current
from hcnn_core.backend import Array, array_namespace, dtype_name, empty

SIDE = 32
"""Rows and columns of a block's sums."""

MOST_BLOCKS = (1 << 16) - 1
"""Most blocks of threads along a grid's second axis."""


Tables = tuple[Any, Any]
"""Where rows begin, and where columns do; two None for an operand that has strides."""


def supports(a: Array, b: Array) -> bool:
    """Whether the kernel can multiply, and should: real vectors or matrices of one dtype, not too large."""
    if not {a.ndim, b.ndim} <= {1, 2} or a.shape[-1] != b.shape[0] or a.dtype != b.dtype:
        return False
    if dtype_name(a.dtype) not in cuda.TILING or not a.size or not b.size:
        return False
    few = a.size * b.size // a.shape[-1] <= current().device_product_macs
    return bool(few and b.size // b.shape[0] <= SIDE * MOST_BLOCKS)


def matmul(a: Array, b: Array) -> Array:
    """Return ``a @ b``: by the kernel where it supports them, else by the library."""
    xp = array_namespace(a, b)
    return multiply(xp, a, b) if supports(a, b) else xp.matmul(a, b)


def multiply(xp: Any, a: Array, b: Array) -> Array:
    """Return ``a @ b`` by the kernel."""
    rows, columns = (a if a.ndim == 2 else a[None, :]), (b if b.ndim == 2 else b[:, None])
    out = empty(xp, (rows.shape[0], columns.shape[1]), a)
    multiply_into(rows, columns, out)
    return xp.reshape(out, (*a.shape[:-1], *b.shape[1:]))


def multiply_into(
    a: Array, b: Array, out: Array, *, reads: Tables = (None, None), writes: Tables = (None, None)
) -> None:
    """Write ``a @ b`` to `out`; with tables of where their rows and columns begin, b or `out` may lie in any order."""
    columns = reads[1]
    n, b_strides = (b.shape[1], b.strides) if columns is None else (columns.size, (0, 0))
    m, depth = a.shape
    steps = (np.int64(step // a.itemsize) for step in (*a.strides, *b_strides))
    cuda.launch(
        "multiply", dtype_name(a.dtype), {"SIDE": SIDE}, (-(-m // SIDE), -(-n // SIDE)), SIDE**2 // 4,
        (a, b, out, *reads, *writes, *map(np.int32, (m, n, depth)), *steps),
    )  # fmt: skip
