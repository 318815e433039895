"""Pointwise functions and sums of NumPy arrays by compiled kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, is_contiguous, offsets
from hcnn_core._engines.cpu.kernels import elu as kernels
from hcnn_core._engines.cpu.kernels.gemm import sum_lines
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.generic import elementwise as generic
from hcnn_core._threads import MEMORY, parallel_for

MIN_ELEMENTS = 1 << 10
"""Elements that share a bias, from which on a call of the kernel is worth its overhead."""

MIN_RESULTS = 32
"""Contiguous results from which on adding whole lines is faster than NumPy's sum over outer axes."""

MAX_TERMS = 64
"""Terms up to which it is faster."""


def elu(xp: Any, x: NDArray, bias: NDArray | None = None) -> NDArray:
    """ELU of x, or of x plus a bias that broadcasts to it, in its dtype."""

    def compute(out: Any, x: Any, *bias: Any) -> None:
        varies = max((a + 1 for b in bias for a, n in enumerate(b.shape) if n > 1 and b.strides[a]), default=0)
        if math.prod(out.shape[varies:]) < MIN_ELEMENTS:
            generic.elu_block(out, x, *bias)
            return
        rows = (math.prod(out.shape[:varies]), -1)
        per_row = [b[(..., *(0,) * (out.ndim - varies))].reshape(-1) for b in bias] or [np.zeros(1, x.dtype)]
        kernels.elu(out.reshape(rows), x.reshape(rows), *per_row)

    result: NDArray = generic.by_blocks(compute, x, *(() if bias is None else (np.broadcast_to(bias, x.shape),)))
    return result


def elu_vjp(xp: Any, g: NDArray, ans: NDArray) -> NDArray:
    """Cotangent of the argument of ``ans = elu(.)``; g broadcasts to `ans`."""

    def compute(out: Any, ans: Any, g: Any) -> None:
        kernels.elu_vjp(out.reshape(-1), ans.reshape(-1), g.reshape(-1))

    result: NDArray = generic.by_blocks(compute, ans, np.broadcast_to(g, ans.shape))
    return result


def marginal(xp: Any, x: NDArray, axes: tuple[int, ...], reduction: str) -> NDArray:
    """Sum or mean over some axes."""
    kept = sorted((a for a in range(x.ndim) if a not in axes), key=lambda a: -abs(x.strides[a]))
    count = math.prod(x.shape[a] for a in axes)
    if x.size and count <= MAX_TERMS and _ends_in_lines(x, kept):
        return _line_by_line(x, axes, kept, 1 if reduction == "sum" else count)
    result: NDArray = generic.marginal(xp, x, axes, reduction)
    return result


def _ends_in_lines(x: NDArray, kept: list[int]) -> bool:
    """Whether the last axis longer than one is contiguous and long enough."""
    return any(
        x.strides[a] == x.itemsize and x.shape[a] >= MIN_RESULTS for a in [a for a in kept if x.shape[a] > 1][-1:]
    )


def _line_by_line(x: NDArray, axes: tuple[int, ...], kept: list[int], divisor: int) -> NDArray:
    """Sums over some axes, divided. Threads take parts of the kept axes. The result's memory keeps the order of x."""
    count = len(axes)
    total: NDArray = empty(tuple(x.shape[a] for a in kept), x.dtype)
    x, out = x.transpose(*axes, *kept).view(x.real.dtype), total.view(x.real.dtype)
    cut = next(k for k in range(count, x.ndim) if is_contiguous(x, k))
    terms = offsets(x.shape[:count], x.strides[:count])
    exact = divisor & (divisor - 1) == 0  # a power of two: its inverse is exact too
    factors = np.full((terms.size, 1), 1 / divisor if exact else 1, x.dtype)

    def work(first: int, last: int) -> None:
        part, results = x[(slice(None),) * count + (slice(first, last),)], out[first:last]
        rows = part.ctypes.data + offsets(part.shape[count:cut], part.strides[count:cut])
        sum_lines(results.reshape(rows.size, -1), rows, terms, factors)
        if not exact:
            np.divide(results, divisor, out=results)

    parallel_for(work, len(out), MEMORY * x.size)
    return total.transpose(np.argsort(kept))
