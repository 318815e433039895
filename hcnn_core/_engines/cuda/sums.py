"""Sums and means over axes by a CUDA kernel, in the order of memory and in double precision."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._tuning import current
from hcnn_core.backend import Array, dtype_name, empty, memory_order

MOST_ELEMENTS = 1 << 30
"""Elements of an array that the kernel counts in 32 bits."""

TERMS = 16
"""Terms of each thread before they are shared out among more blocks, whose parts are added up afterwards."""


def supports(x: Array, axes: Sequence[int]) -> bool:
    """Whether the kernel can add up an array of this size and dtype."""
    return dtype_name(x.dtype) in cuda.TILING and 0 < x.size <= MOST_ELEMENTS and any(x.shape[a] > 1 for a in axes)


def summed(xp: Any, x: Array, axes: Sequence[int], *, mean: bool = False) -> Array:
    """Sum or mean of x over some axes, in the memory order of x.

    Along axes of stride 0, as a cotangent that was broadcast has them, one number is read and multiplied.
    """
    order = memory_order(x)
    count = math.prod(x.shape[a] for a in axes)
    x = x[tuple(slice(0, 1) if a in axes and n > 1 and not x.strides[a] else slice(n) for a, n in enumerate(x.shape))]
    repeated = count // math.prod(x.shape[a] for a in axes)
    remaining = [a for a in order if a not in axes]
    rows = xp.ascontiguousarray(xp.permute_dims(x, order))
    *earlier, last = _passes([(a in axes, x.shape[a]) for a in order])
    for sides in earlier:
        rows = add_terms(xp, rows, sides)
    rows = add_terms(xp, rows, last, repeated / (count if mean else 1))
    back = tuple(sorted(range(len(remaining)), key=remaining.__getitem__))
    return xp.permute_dims(xp.reshape(rows, tuple(x.shape[a] for a in remaining)), back)


def _passes(axes: Iterable[tuple[bool, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the sides of each sum, from axes (whether it is summed, its length): the longest run of axes first."""
    runs = [(of, math.prod(n for _, n in run)) for of, run in itertools.groupby(axes, key=operator.itemgetter(0))]
    lengths = [n for _, n in runs]
    for at in sorted((k for k, (of, _) in enumerate(runs) if of), key=lambda k: -lengths[k]):
        yield math.prod(lengths[:at]), lengths[at], math.prod(lengths[at + 1 :])
        lengths[at] = 1


def add_terms(xp: Any, x: Array, sides: tuple[int, int, int], factor: float = 1.0) -> Array:
    """Return the sum of x (outer, terms, inner) over its terms, times a factor: (outer, inner), flat."""
    outer, terms, inner = sides
    threads = current().device_threads
    across = 1 << (min(inner, cuda.LANES if terms >= 2 * TERMS else threads) - 1).bit_length()
    blocks, groups = outer * -(-inner // across), threads // across
    parts = max(1, min(-(-current().device_blocks // blocks), terms // (groups * TERMS)))
    out = empty(xp, (parts * outer * inner,), x)
    numbers = (*map(np.int32, (outer, terms, inner, across)), np.float64(factor if parts == 1 else 1))
    cuda.launch("add_terms", dtype_name(x.dtype), {"ADDERS": threads}, (blocks, parts), threads, (x, out, *numbers))
    return out if parts == 1 else add_terms(xp, out, (1, parts, outer * inner), factor)
