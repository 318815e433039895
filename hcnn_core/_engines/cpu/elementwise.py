"""Pointwise functions of NumPy arrays by compiled kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.kernels import elu as kernels
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.generic import elementwise as generic
from hcnn_core._tuning import current

marginal = generic.marginal
"""Sums wait for memory: adding whole lines on several threads saved less than 1.5 % of a step."""
relu, add = generic.relu, generic.add
"""NumPy's own loops are vectors already."""


def elu(xp: Any, x: NDArray, bias: NDArray | None = None) -> NDArray:
    """ELU of x, or of x plus a bias that broadcasts to it, in its dtype."""
    least = current().biased_elements

    def compute(out: Any, x: Any, *bias: Any) -> None:
        varies = max((a + 1 for b in bias for a, n in enumerate(b.shape) if n > 1 and b.strides[a]), default=0)
        if math.prod(out.shape[varies:]) < least:
            generic.elu_block(out, x, *bias)
            return
        rows = (math.prod(out.shape[:varies]), -1)
        per_row = [b[(..., *(0,) * (out.ndim - varies))].reshape(-1) for b in bias] or [np.zeros(1, x.dtype)]
        kernels.elu(out.reshape(rows), x.reshape(rows), *per_row)

    return generic.by_blocks(compute, x, *(() if bias is None else (np.broadcast_to(bias, x.shape),)))


def _cotangents(kernel: Callable[..., None]) -> Callable[..., Any]:
    """Return the function of a kernel that takes blocks of a result and of its cotangent."""

    def vjp(xp: Any, g: NDArray, ans: NDArray) -> Any:
        def compute(out: Any, ans: Any, g: Any) -> None:
            kernel(out.reshape(-1), ans.reshape(-1), g.reshape(-1))

        return generic.by_blocks(compute, ans, np.broadcast_to(g, ans.shape))

    return vjp


elu_vjp, relu_vjp = _cotangents(kernels.elu_vjp), _cotangents(kernels.relu_vjp)
"""Cotangents of the arguments of ``ans = elu(.)`` and ``ans = relu(.)``; g broadcasts to `ans`."""
