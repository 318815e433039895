"""Steps of Muon for many weights by three CUDA kernels, whose one argument holds all their addresses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._tuning import current
from hcnn_core.backend import Array, address_of, array_namespace, dtype_name, empty, placement

SIDE = 32
"""Most columns, or rows if they are fewer, of a matrix whose polynomials find room in the shared memory of a block."""

MOST_MATRICES = 48
"""Most matrices of a launch. Their addresses are one argument, which may have 4 KiB."""

ARRAYS = "weight", "gradient", "velocity", "new_weight", "new_velocity"
"""Addresses of a matrix in that argument."""

ROWS = 256
"""Rows of a matrix whose products a block adds up, at least; there are at most `Tuning.device_update_blocks` blocks."""


class Weight(NamedTuple):
    """A weight and what its step takes, all in one dtype, and how many of its first axes are rows of its matrix."""

    weight: Array
    gradient: Array
    velocity: Array
    decay: float
    row_axes: int


def _sides(weight: Array, row_axes: int) -> tuple[int, int]:
    return math.prod(weight.shape[:row_axes]), math.prod(weight.shape[row_axes:])


def supports(weight: Array, row_axes: int) -> bool:
    """Whether the kernels take a weight: its matrix is small along one side."""
    return (
        0 < min(_sides(weight, row_axes)) <= SIDE and weight.size < 1 << 31 and dtype_name(weight.dtype) in cuda.TILING
    )


def muon(
    weights: Sequence[Weight], rate: Any, momentum: float, nesterov: bool, tiny: float
) -> list[tuple[Array, Array]]:
    """Each weight and velocity after a step; the rate is a number, or an array without axes."""
    results: list[tuple[Array, Array]] = []
    xp = array_namespace(weights[0].weight)
    for first in range(0, len(weights), MOST_MATRICES):
        results += _muon(xp, weights[first : first + MOST_MATRICES], rate, momentum, nesterov, tiny)
    return results


def _muon(
    xp: Any, weights: Sequence[Weight], rate: Any, momentum: float, nesterov: bool, tiny: float
) -> list[tuple[Array, Array]]:
    like = weights[0].weight
    dtype, threads = dtype_name(like.dtype), current().device_threads
    operands = [tuple(xp.ascontiguousarray(a) for a in weight[:3]) for weight in weights]
    results = [(empty(xp, w.weight.shape, like), empty(xp, w.weight.shape, like)) for w in weights]
    table = np.zeros((), layout_of(dtype))
    for entry, weight, arrays, outputs in zip(table["matrix"], weights, operands, results, strict=False):
        rows, columns = _sides(weight.weight, weight.row_axes)
        for name, array in zip(ARRAYS, (*arrays, *outputs), strict=True):
            entry[name] = address_of(array)
        sizes = (rows, columns, columns, 1) if rows >= columns else (columns, rows, 1, columns)
        entry["rows"], entry["columns"], entry["row_step"], entry["column_step"] = sizes
        entry["decay"] = weight.decay
    table["rate_at" if hasattr(rate, "shape") else "rate"] = address_of(rate) if hasattr(rate, "shape") else rate
    table["momentum"], table["nesterov"] = momentum, nesterov
    longest = max(max(_sides(weight.weight, weight.row_axes)) for weight in weights)
    blocks = min(-(-longest // ROWS), current().device_update_blocks)
    parts, polynomials = (
        xp.empty((len(weights), count, SIDE, SIDE), dtype=xp.float64, **placement(xp, like)) for count in (blocks, 1)
    )
    sizes_of_kernels = {
        "MATRICES": MOST_MATRICES, "BYTES": table.dtype.itemsize, "MUON_SIDE": SIDE, "MUON_THREADS": threads,
    }  # fmt: skip
    elements = max(weight.weight.size for weight in weights)
    numbers = np.int32(blocks), np.float64(tiny)
    for name, grid, arguments in (
        ("muon_grams", (blocks, len(weights)), (parts,)),
        ("muon_polynomials", (len(weights),), (parts, polynomials, *numbers)),
        ("muon_moves", (-(-elements // threads), len(weights)), (polynomials,)),
    ):
        cuda.launch(name, dtype, sizes_of_kernels, grid, threads, (table[()], *arguments))
    return results


@lru_cache(maxsize=2)
def layout_of(dtype: str) -> np.dtype[Any]:
    """Return the argument of the kernels, as C lays it out."""
    real = np.dtype(dtype)
    sizes = "rows", "columns", "row_step", "column_step"
    fields: list[Any] = [*((name, "u8") for name in ARRAYS), *((name, "i4") for name in sizes), ("decay", real)]
    matrix = np.dtype(fields, align=True)
    numbers: list[Any] = [("rate_at", "u8"), ("rate", real), ("momentum", real), ("nesterov", "i4")]
    return np.dtype([("matrix", matrix, MOST_MATRICES), *numbers], align=True)
