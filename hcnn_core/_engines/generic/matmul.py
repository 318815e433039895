"""Matrix products for the engines: batched, into a given array where the namespace can, in blocks of columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._threads import parallel_for
from hcnn_core._tuning import current
from hcnn_core.backend import Array, array_namespace

Matmul = Callable[[Array, Array], Array]


def matmul(a: Array, b: Array) -> Array:
    """Return ``a @ b`` by the library of the arrays."""
    return array_namespace(a, b).matmul(a, b)


def product(xp: Any, a: Array, b: Array, out: Array | None = None) -> Array:
    """Batched matrix product. Outer products are computed elementwise, which is faster for many tiny matrices."""
    function = xp.multiply if a.shape[-1] == 1 else xp.matmul
    if out is None:
        return function(a, b)
    if hasattr(xp, "ufunc"):  # NumPy's and CuPy's write into an array
        return function(a, b, out=out)
    out[...] = function(a, b)
    return out


def by_columns(xp: Any, work: Callable[[slice], None], count: int, rows: int) -> None:
    """Call `work` on blocks of range(count), on several threads. A block's `rows` intermediate rows fit the cache."""
    size = max(64, current().product_elements // rows) if xp is np else max(count, 1)
    by_slices(xp, work, count, size, count * rows, threaded=True)


def by_slices(xp: Any, work: Callable[[slice], None], count: int, size: int, elements: int, *, threaded: bool) -> None:
    """Call `work` on blocks of at most `size` of range(count), NumPy's on several threads, see `parallel_for`."""

    def each(first: int, last: int) -> None:
        for begin in range(first, last, size):
            work(slice(begin, min(last, begin + size)))

    if xp is np:
        parallel_for(each, count, elements, threaded=threaded)
    else:
        each(0, count)
