"""Sums and means over axes by a CUDA kernel, in the order of memory and in double precision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._tuning import current
from hcnn_core.backend import Array, dtype_name, empty, memory_order

MOST = 1 << 30
"""Elements of an array that the kernel counts in 32 bits."""

TERMS = 16
"""Terms of each thread before they are shared out among more blocks, whose parts are added up afterwards."""


def suits(x: Array, axes: Sequence[int]) -> bool:
    """Whether the kernel can add up an array of this size and dtype."""
    return dtype_name(x.dtype) in cuda.TILING and 0 < x.size <= MOST and any(x.shape[a] > 1 for a in axes)


def summed(xp: Any, x: Array, axes: Sequence[int], *, mean: bool = False) -> Array:
    """Sum or mean of x over some axes, in the memory order of x.

    Along axes of stride 0, as a cotangent that was broadcast has them, one number is read and multiplied.
    """
    order = memory_order(x)
    count = math.prod(x.shape[a] for a in axes)
    read = tuple(
        slice(0, 1) if a in axes and x.shape[a] > 1 and not x.strides[a] else slice(None) for a in range(x.ndim)
    )
    x = x[read]
    repeated = count // math.prod(x.shape[a] for a in axes)
    lengths = [(a in axes, x.shape[a]) for a in order]
    kept = [a for a in order if a not in axes]
    shape = tuple(x.shape[a] for a in kept)
    rows = xp.ascontiguousarray(xp.permute_dims(x, order))
    runs = [[of, math.prod(n for _, n in run)] for of, run in itertools.groupby(lengths, key=lambda run: run[0])]
    factor = repeated / (count if mean else 1)
    while any(of for of, _ in runs):  # the longest run of axes first
        at = max((k for k, (of, _) in enumerate(runs) if of), key=lambda k: runs[k][1])
        last = sum(of for of, _ in runs) == 1
        sides = math.prod(n for _, n in runs[:at]), runs[at][1], math.prod(n for _, n in runs[at + 1 :])
        rows = add_terms(xp, rows, sides, factor if last else 1.0)
        runs[at] = [False, 1]
    back = tuple(sorted(range(len(kept)), key=kept.__getitem__))
    return xp.permute_dims(xp.reshape(rows, shape), back)


def add_terms(xp: Any, x: Array, sides: tuple[int, int, int], factor: float = 1.0) -> Array:
    """Return the sum of x (outer, terms, inner) over its terms, times a factor: (outer, inner), flat."""
    outer, terms, inner = sides
    threads = current().device_threads
    across = next(
        n for n in (1 << k for k in range(12)) if n >= min(inner, cuda.LANES if terms >= 2 * TERMS else threads)
    )
    blocks, groups = outer * -(-inner // across), threads // across
    parts = max(1, min(-(-current().device_blocks // blocks), terms // (groups * TERMS)))
    out = empty(xp, (parts * outer * inner,), x)
    numbers = (*map(np.int32, (outer, terms, inner, across)), np.float64(factor if parts == 1 else 1))
    cuda.launch("add_terms", dtype_name(x.dtype), {"ADDERS": threads}, (blocks, parts), threads, (x, out, *numbers))
    return out if parts == 1 else add_terms(xp, out, (1, parts, outer * inner), factor)
