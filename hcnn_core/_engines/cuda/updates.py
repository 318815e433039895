"""Weighted sums of many arrays by one CUDA kernel, whose one argument holds all their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.sums import MOST_ELEMENTS
from hcnn_core._engines.generic.updates import weighted_sums as one_by_one
from hcnn_core._tuning import MOST_TERMS, current
from hcnn_core.backend import Array, address_of, dtype_name, empty

MOST_SUMS = 32
"""Most sums of a launch. Their addresses are one argument, which may have 4 KiB."""


def weighted_sums(xp: Any, sums: Sequence[Sequence[Any]], out: Sequence[Array] | None, where: Any) -> list[Array]:
    """Return a sum of (array, weight, rate, scalar) for each result."""
    in_pieces = out is not None and not all(result.flags.c_contiguous for result in out)
    if in_pieces or any(terms[0].array.size > MOST_ELEMENTS for terms in sums):  # which the kernel counts in 32 bits
        return one_by_one(xp, sums, out, where)
    dtype = dtype_name(sums[0][0].array.dtype)
    threads, most = current().device_threads, current().device_update_blocks
    results: list[Array] = []
    for first in range(0, len(sums), MOST_SUMS):
        some = sums[first : first + MOST_SUMS]
        arrays = [[xp.ascontiguousarray(term.array) for term in terms] for terms in some]  # each with an axis
        written = (
            out[first : first + MOST_SUMS]
            if out
            else [empty(xp, terms[0].array.shape, terms[0].array) for terms in some]
        )
        table = np.zeros((), layout_of(dtype))
        for entry, terms, taken, result in zip(table["sums"], some, arrays, written, strict=False):
            entry["out"], entry["count"], entry["terms"] = address_of(result), result.size, len(terms)
            for place, term, array in zip(entry["term"], terms, taken, strict=False):
                scalar = 0 if term.scalar is None else address_of(term.scalar)
                place["array"], place["scalar"] = address_of(array), scalar
                place["weight"], place["rate"] = term.weight, term.rate
        table["where"] = 0 if where is True else address_of(where)
        largest = max(result.size for result in written)
        sizes = {"SUMS": MOST_SUMS, "TERMS": MOST_TERMS, "BYTES": table.dtype.itemsize, "SUM_THREADS": threads}
        blocks = max(1, min(most, -(-largest // threads)))
        cuda.launch("weigh", dtype, sizes, (blocks, len(some)), threads, (table[()],))
        results += written
    return results


@lru_cache(maxsize=2)
def layout_of(dtype: str) -> np.dtype[Any]:
    """Return the argument of `weigh`, as C lays it out."""
    real = np.dtype(dtype)
    term = np.dtype([("array", "u8"), ("scalar", "u8"), ("weight", real), ("rate", real)], align=True)
    entry = np.dtype([("term", term, MOST_TERMS), ("out", "u8"), ("count", "i4"), ("terms", "i4")], align=True)
    return np.dtype([("sums", entry, MOST_SUMS), ("where", "u8")], align=True)
