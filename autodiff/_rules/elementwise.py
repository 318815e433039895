"""Derivatives of functions of numbers, applied to each element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autodiff._rules.table import composite, nonzero, over_norm, rule
from autodiff.tape import defvjp, getval, primitive
from hcnn_core.backend import Array

# One argument

LOG2, LOG10, DEGREE = math.log(2), math.log(10), math.pi / 180


@primitive
def square_of_sech(x: Array) -> Array:
    """Return the derivative of tanh; as 1 - tanh(x)^2 it would have lost all digits at x = 20."""
    decay = np.exp(-2 * np.where(np.real(x) < 0, -x, x))
    return 4 * decay / np.square(1 + decay)


defvjp(square_of_sech, lambda ans, x: lambda g: -2 * g * ans * np.tanh(x))


@primitive
def one_less_square(x: Array) -> Array:
    """Return the difference 1 - x^2, in its last digits too where x is close to 1."""
    return (1 - x) * (1 + x)


defvjp(one_less_square, lambda ans, x: lambda g: -2 * g * x)


def root_of_one_and_square(x: Array) -> Array:
    """Return the square root of 1 + x^2, where the square of a large real number does not overflow."""
    return np.sqrt(1 + np.square(x)) if np.iscomplexobj(x) else np.hypot(1, x)


rule(np.negative, lambda ans, x: lambda g: -g)
rule(np.positive, lambda ans, x: lambda g: g)
rule(np.exp, lambda ans, x: lambda g: g * ans)
rule(np.expm1, lambda ans, x: lambda g: g * np.exp(x))
rule(np.exp2, lambda ans, x: lambda g: g * (LOG2 * ans))
rule(np.log, lambda ans, x: lambda g: g / x)
rule(np.log1p, lambda ans, x: lambda g: g / (x + 1))
rule(np.log2, lambda ans, x: lambda g: g / (LOG2 * x))
rule(np.log10, lambda ans, x: lambda g: g / (LOG10 * x))
rule(np.sqrt, lambda ans, x: lambda g: g / (2 * ans))
rule(np.square, lambda ans, x: lambda g: g * (2 * x))
rule(np.reciprocal, lambda ans, x: lambda g: -g * np.square(ans))
rule(np.sin, lambda ans, x: lambda g: g * np.cos(x))
rule(np.cos, lambda ans, x: lambda g: -g * np.sin(x))
rule(np.tan, lambda ans, x: lambda g: g * (1 + np.square(ans)))
rule(np.arcsin, lambda ans, x: lambda g: g / np.sqrt(one_less_square(x)))
rule(np.arccos, lambda ans, x: lambda g: -g / np.sqrt(one_less_square(x)))
rule(np.arctan, lambda ans, x: lambda g: g / (1 + np.square(x)))
rule(np.sinh, lambda ans, x: lambda g: g * np.cosh(x))
rule(np.cosh, lambda ans, x: lambda g: g * np.sinh(x))
rule(np.tanh, lambda ans, x: lambda g: g * square_of_sech(x))
rule(np.arcsinh, lambda ans, x: lambda g: g / root_of_one_and_square(x))
rule(np.arccosh, lambda ans, x: lambda g: g / (np.sqrt(x - 1) * np.sqrt(x + 1)))  # right in the complex plane too
rule(np.arctanh, lambda ans, x: lambda g: g / one_less_square(x))
rule(np.conjugate, lambda ans, x: lambda g: np.conj(g))
rule(np.real, lambda ans, val: lambda g: g)
rule(np.imag, lambda ans, val: lambda g: g * -1j)  # the other way round, a float64 makes a Python number
rule(np.deg2rad, lambda ans, x: lambda g: g * DEGREE)
rule(np.radians, lambda ans, x: lambda g: g * DEGREE)
rule(np.rad2deg, lambda ans, x: lambda g: g / DEGREE)
rule(np.degrees, lambda ans, x: lambda g: g / DEGREE)


@composite(np.nan_to_num)
def nan_to_num(x: Array, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Array:
    return np.where(np.isfinite(x), x, np.nan_to_num(getval(x), nan=nan, posinf=posinf, neginf=neginf))


rule(np.fabs, lambda ans, x: lambda g: g * np.sign(x))
rule(
    np.absolute,
    lambda ans, x: (lambda g: over_norm(g, ans) * np.conj(x)) if np.iscomplexobj(x) else (lambda g: g * np.sign(x)),
)


@composite(np.sign)
def sign(x: Array) -> Array:
    if np.iscomplexobj(x):
        raise TypeError("numpy.sign of complex traced values has no derivative here: write z / abs(z)")
    return np.sign(getval(x))


def sinc_vjp(ans: Array, x: Array) -> Any:
    """Return the quotient away from zero; near it, where that loses digits, the Taylor series."""
    near = np.abs(getval(x)) < 0.1
    series = [(-1) ** k * math.pi ** (2 * k) * 2 * k / math.factorial(2 * k + 1) for k in range(1, 9)]

    def pullback(g: Array) -> Array:
        far, small = np.where(near, 1, x), np.where(near, x, 0)
        square, slope = np.square(small), 0.0
        for coefficient in reversed(series):
            slope = slope * square + coefficient
        return g * np.where(near, slope * small, (np.cos(math.pi * far) - np.sinc(far)) / far)

    return pullback


rule(np.sinc, sinc_vjp)


@composite(np.angle)
def angle(z: Array, deg: bool = False) -> Array:
    radians = np.arctan2(np.imag(z), np.real(z))
    return np.rad2deg(radians) if deg else radians


@composite(np.real_if_close)
def real_if_close(a: Array, tol: float = 100) -> Array:
    return a if np.iscomplexobj(np.real_if_close(getval(a), tol)) else np.real(a)


# Two arguments


@primitive
def logistic(x: Array) -> Array:
    """Return the logistic function, 1 / (1 + exp(-x))."""
    decay = np.exp(-np.abs(x))
    return np.where(x < 0, decay, 1) / (1 + decay)


defvjp(logistic, lambda ans, x: lambda g: g * (square_of_sech(x / 2) / 4))


@primitive
def share_of_hypot(x: Array, y: Array) -> Array:
    """Return the derivative of hypot by x; 1 / hypot - x^2 / hypot^3 would lose all digits where x is large."""
    return x / nonzero(np.hypot(x, y))


defvjp(
    share_of_hypot,
    lambda ans, x, y: lambda g: g * np.square(share_of_hypot(y, x)) / nonzero(np.hypot(x, y)),
    lambda ans, x, y: lambda g: -g * ans * share_of_hypot(y, x) / nonzero(np.hypot(x, y)),
)

rule(np.add, lambda ans, x, y: lambda g: g, lambda ans, x, y: lambda g: g)
rule(np.subtract, lambda ans, x, y: lambda g: g, lambda ans, x, y: lambda g: -g)
rule(np.multiply, lambda ans, x, y: lambda g: g * y, lambda ans, x, y: lambda g: g * x)
rule(np.divide, lambda ans, x, y: lambda g: g / y, lambda ans, x, y: lambda g: -g * ans / y)
rule(np.ldexp, lambda ans, x1, x2: lambda g: np.ldexp(g, x2), None)
rule(np.remainder, lambda ans, x, y: lambda g: g, lambda ans, x, y: lambda g: -g * np.floor_divide(x, y))
rule(
    np.arctan2,
    lambda ans, x, y: lambda g: by_square_of_hypot(g, y, np.hypot(x, y)),
    lambda ans, x, y: lambda g: by_square_of_hypot(-g, x, np.hypot(x, y)),
)
rule(
    np.hypot, lambda ans, x, y: lambda g: g * share_of_hypot(x, y), lambda ans, x, y: lambda g: g * share_of_hypot(y, x)
)
rule(np.logaddexp, lambda ans, x, y: lambda g: g * logistic(x - y), lambda ans, x, y: lambda g: g * logistic(y - x))
rule(
    np.logaddexp2,
    lambda ans, x, y: lambda g: g * logistic(LOG2 * (x - y)),
    lambda ans, x, y: lambda g: g * logistic(LOG2 * (y - x)),
)


def by_square_of_hypot(g: Array, x: Array, hypot: Array) -> Array:
    """Divide g x by hypot^2 without the square: that of a large number overflows, and so does that of an integer."""
    return g / hypot * (x / hypot)


def power_vjp_x(ans: Array, x: Array, y: Any) -> Any:
    if not hasattr(y, "__array_function__"):  # a number, which promotes as such
        less = y - 1 if type(y) is int else y - 1.0  # an integer of few bits would wrap around
        return None if y == 0 else lambda g: g * (y * x**less)
    return lambda g: g * (y * x ** np.where((x == 0) & (y == 0), 1, y - 1.0))


def power_vjp_y(ans: Array, x: Array, y: Array) -> Any:
    # 0**y is flat in y > 0; the logarithm of small integers would have half precision, and a negative x none
    return lambda g: g * (ans * np.log(np.where(x == 0, 1, x).astype(ans.dtype)))


rule(np.power, power_vjp_x, power_vjp_y)


def extremum_vjp(ans: Array, x: Array, y: Array) -> Any:
    """Pass the gradient to x where x was chosen; a tie shares it, and where the answer is NaN, so is the gradient."""
    return lambda g: np.where(x == y, g / 2, np.where(x == ans, g, np.where(np.isnan(ans), getval(ans), 0)))


for _extremum in (np.maximum, np.minimum, np.fmax, np.fmin):
    rule(_extremum, extremum_vjp, lambda ans, x, y: extremum_vjp(ans, y, x))

_where = rule(
    np.where,
    None,
    lambda ans, condition, x, y: lambda g: np.where(condition, g, 0),
    lambda ans, condition, x, y: lambda g: np.where(condition, 0, g),
)


@composite(np.where)
def where(condition: Array, *choices: Array) -> Any:
    return _where(getval(condition), *choices) if choices else np.where(getval(condition))


@composite(np.clip)
def clip(
    a: Array, a_min: Any = None, a_max: Any = None, out: None = None, *, min: Any = None, max: Any = None
) -> Array:
    if (a_min is not None and min is not None) or (a_max is not None and max is not None):
        raise ValueError("numpy.clip takes a_min and a_max, or min and max")
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    a = a if low is None else np.maximum(a, low)
    return a if high is None else np.minimum(a, high)
