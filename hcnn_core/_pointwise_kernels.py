"""ELU of contiguous rows, compiled: one pass over memory, the exponential included.

exp(m) = 2^n exp(r) with n = round(m / ln 2), so |r| <= ln(2) / 2, and expm1(m) = 2^n expm1(r) + (2^n - 1), whose two
terms never cancel for m <= 0. expm1(r) is its Taylor series up to what an eps still sees.
"""

# mypy: disable-error-code="misc,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = np.ndarray[Any, Any]
f4, f8, i4, i8 = np.float32, np.float64, np.int32, np.int64

# nothing may be reordered: adding and subtracting ROUND rounds to an integer
_options: dict[str, Any] = {"nogil": True, "cache": True, "fastmath": {"contract"}}

ROUND_4, ROUND_8 = f4(1.5 * 2**23), f8(1.5 * 2**52)
LOG2_E_4, LOG2_E_8 = f4(1.4426950408889634), f8(1.4426950408889634)
# ln 2 in two parts, the first with so few digits that its products with n are exact
LN2_HIGH_4, LN2_LOW_4 = f4(0.693359375), f4(-2.12194440054690583e-4)
LN2_HIGH_8, LN2_LOW_8 = f8(6.93147180369123816490e-01), f8(1.90821492927058770002e-10)


@numba.njit(**_options)
def elu_4(out: Array, x: Array, bias: Array) -> None:
    """ELU of x (rows, length) + bias (rows,), float32."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            c = x[row, i] + bias[row]
            m = max(min(c, f4(0)), f4(-87))
            n = (m * LOG2_E_4 + ROUND_4) - ROUND_4
            r = (m - n * LN2_HIGH_4) - n * LN2_LOW_4
            power = i4((i4(n) + i4(127)) << i4(23)).view(f4)
            p = f4(1 / 5040) * r + f4(1 / 720)
            p = ((p * r + f4(1 / 120)) * r + f4(1 / 24)) * r + f4(1 / 6)
            p = (p * r + f4(0.5)) * r * r + r
            out[row, i] = power * p + (power - f4(1)) if c <= f4(0) else c


@numba.njit(**_options)
def elu_8(out: Array, x: Array, bias: Array) -> None:
    """ELU of x (rows, length) + bias (rows,), float64."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            c = x[row, i] + bias[row]
            m = max(min(c, 0.0), -700.0)
            n = (m * LOG2_E_8 + ROUND_8) - ROUND_8
            r = (m - n * LN2_HIGH_8) - n * LN2_LOW_8
            power = i8((i8(n) + i8(1023)) << i8(52)).view(f8)
            p = (1 / 87178291200) * r + 1 / 6227020800
            p = ((p * r + 1 / 479001600) * r + 1 / 39916800) * r + 1 / 3628800
            p = ((p * r + 1 / 362880) * r + 1 / 40320) * r + 1 / 5040
            p = ((p * r + 1 / 720) * r + 1 / 120) * r + 1 / 24
            p = ((p * r + 1 / 6) * r + 0.5) * r * r + r
            out[row, i] = power * p + (power - 1.0) if c <= 0.0 else c


@numba.njit(**_options)
def elu_vjp(out: Array, ans: Array, g: Array) -> None:
    """Its cotangent: g where ans > 0, g * (1 + ans) elsewhere, of either dtype."""
    zero, one = ans.dtype.type(0), ans.dtype.type(1)
    for i in range(ans.shape[0]):
        a = ans[i]
        out[i] = g[i] * ((zero if a > zero else a) + one)


elu = {"float32": elu_4, "float64": elu_8}
"""The kernel of each dtype."""
