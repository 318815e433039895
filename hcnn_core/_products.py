"""Matrix products as the engines use them: batched, written in place where the namespace can, columns in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._backend import Array, array_namespace, library_of
from hcnn_core._parallel import parallel_for

PART = 1 << 18
"""Elements of an intermediate result held at a time, so that it stays in cache for the product that reads it."""


def matmul(a: Array, b: Array, otherwise: Callable[[Array, Array], Array] | None = None) -> Array:
    """``a @ b``: small matrices of CuPy's by a kernel, others by the library, or by the function given for them."""
    if library_of(a) == "cupy":
        from hcnn_core import _cuda_products

        if _cuda_products.suits(a, b):
            return _cuda_products.multiply(array_namespace(a, b), a, b)
    return otherwise(a, b) if otherwise else array_namespace(a, b).matmul(a, b)


def product(xp: Any, a: Array, b: Array, out: Array | None = None) -> Array:
    """Batched matrix product; an outer product is an elementwise one, which is faster for many tiny matrices."""
    function = xp.multiply if a.shape[-1] == 1 else xp.matmul
    if out is None:
        return function(a, b)
    if xp is np or xp.__name__ == "cupy":
        return function(a, b, out=out)
    out[...] = function(a, b)
    return out


def by_columns(xp: Any, work: Callable[[slice], None], count: int, rows: int) -> None:
    """Call `work` on parts of range(count), shared among threads, whose `rows` make up about PART elements."""
    if xp is not np:
        work(slice(0, count))
        return
    size = max(64, PART // rows)

    def each(first: int, last: int) -> None:
        for begin in range(first, last, size):
            work(slice(begin, min(last, begin + size)))

    parallel_for(each, count, count * rows, threaded=True)
