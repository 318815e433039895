"""scipy.special, with the functions that are no ufuncs for traced values too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special

from autodiff._rules.special import polygamma as _polygamma
from autodiff._rules.table import as_floats
from autodiff.tape import getval
from hcnn_core.backend import Array

__all__ = ["log_softmax", "logsumexp", "multigammaln", "polygamma", "softmax"]


def logsumexp(a: Array, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False) -> Any:
    """Return the logarithm of a sum of exponentials, as `scipy.special.logsumexp`.

    Of real or complex exponents; the gradient takes a real sign for a constant.
    """
    b = np.asarray(b, like=getval(a)) if isinstance(b, list | tuple) else b
    a = as_floats(a)
    if b is not None and hasattr(a, "dtype"):
        a = a.astype(np.result_type(getval(a), getval(b)))  # or its exponentials had the digits of the narrower one
    along: Any = {"axis": axis, "keepdims": keepdims}
    over = np.broadcast_shapes(np.shape(a), np.shape(b))
    if 0 in over and 0 not in np.shape(np.sum(np.broadcast_to(0.0, over), axis=axis)):  # sums of nothing
        nothing = np.sum(a if b is None else a * b, **along) - np.inf
        return (nothing, np.sign(getval(nothing))) if return_sign else nothing
    unused = False if b is None else getval(b) == 0
    real = np.real(getval(a))
    top = np.max(real if b is None else np.where(unused, -np.inf, real), axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    exponents = a - top
    if b is None:
        terms = np.exp(exponents)
    else:
        high = math.floor(math.log(np.finfo(exponents.dtype).max))  # its exponential times 0 is 0, not NaN
        terms = b * np.exp(np.where(unused & ~(np.real(getval(exponents)) < high), high, exponents))
    total = np.sum(terms, **along)
    shift = top if keepdims else np.reshape(top, np.shape(total))
    with np.errstate(divide="ignore"):  # a sum of 0
        logarithm = np.log(np.abs(total) if return_sign else total) + shift
    if not return_sign:
        return logarithm
    size = np.abs(getval(total))
    is_complex = size.dtype != total.dtype
    return logarithm, total / np.where(size == 0, 1, np.abs(total)) if is_complex else np.sign(getval(total))


def log_softmax(x: Array, axis: Any = None) -> Array:
    """Return the logarithm of `softmax`, as `scipy.special.log_softmax`.

    Of real numbers.
    """
    x = as_floats(x)
    top = np.max(getval(x), axis=axis, keepdims=True)
    x = x - np.where(np.isfinite(top), top, np.zeros_like(top))  # or the result would have none of its digits
    return x - logsumexp(x, axis, keepdims=True)


def softmax(x: Array, axis: Any = None) -> Array:
    """Return exponentials divided by their sum, as `scipy.special.softmax`.

    Of real numbers; NaN, as SciPy's, where the largest is infinite.
    """
    x = as_floats(x)
    exponentials = np.exp(x - np.max(getval(x), axis=axis, keepdims=True))
    return exponentials / np.sum(exponentials, axis=axis, keepdims=True)


def polygamma(n: Any, x: Array) -> Array:
    """Return a derivative of the digamma function, as `scipy.special.polygamma`.

    Differentiable by `x`, which is real.
    """
    return _polygamma(n, x)


def multigammaln(a: Array, d: int) -> Array:
    """Return the logarithm of the multivariate gamma function, as `scipy.special.multigammaln`.

    Raises
    ------
    ValueError
        If `a` is not larger than (d - 1) / 2.
    """
    a = as_floats(a)
    if np.any(a <= (d - 1) / 2):
        raise ValueError(f"multigammaln of dimension {d} takes a larger than {(d - 1) / 2}, not {np.min(getval(a))}")
    shifts = (scipy.special.gammaln(a - j / 2) for j in range(d))
    return d * (d - 1) / 4 * math.log(math.pi) + sum(shifts)  # DLMF 35.3.4


def __getattr__(name: str) -> Any:
    return getattr(scipy.special, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(scipy.special)})
