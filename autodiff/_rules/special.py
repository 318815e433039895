"""Derivatives of the ufuncs of scipy.special, loaded when the first of them meets a traced value.

The formulas are those of the NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov, chapters 5 to 10.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special as sp

from autodiff._rules.elementwise import square_of_sech
from autodiff._rules.table import plain, register, rule
from autodiff.tape import defvjp, getval, primitive
from hcnn_core.backend import Array, library_of

SQRT_PI = math.sqrt(math.pi)


def second(function: Any, maker: Callable[..., Any], *, argnum: int = 1) -> None:
    """Make a function with a derivative by one of its arguments alone; for the others it is refused."""
    entry = primitive(function)
    defvjp(entry, maker, argnums=(argnum,))
    register(function, entry, [])


@primitive
def polygamma(n: Any, x: Array) -> Array:
    if library_of(x) not in ("numpy", "builtins"):
        raise TypeError(f"polygamma, the derivative of digamma, takes NumPy arrays, not {library_of(x)}'s")
    if np.iscomplexobj(x):
        raise TypeError("polygamma, the derivative of digamma, takes real numbers, not complex ones")
    return sp.polygamma(n, x)


defvjp(polygamma, lambda ans, n, x: lambda g: g * polygamma(n + 1.0, x), argnums=(1,))

# Error functions and the normal distribution


@primitive
def density_over_ndtr(x: Array) -> Array:
    """Return the derivative of log_ndtr, right far below zero too."""
    return math.sqrt(2 / math.pi) / sp.erfcx(-x / math.sqrt(2))


def limit(x: Array) -> int:
    """Where a short series in 1 / x^2 begins to be closer than a difference of almost equal numbers."""
    return 10 if x.dtype == np.float32 else 50


def tail_limit(x: Array) -> int:
    """Where the series `TAIL` begins to be closer."""
    return 5 if x.dtype == np.float32 else 7


TAIL = tuple(math.prod(range(1, 2 * k, 2)) / 2**k for k in range(1, 21))
"""Coefficients of the powers of 1 / x^2 in the asymptotic series of the derivatives of erfcx and dawsn."""


def polynomial(z: Array, coefficients: tuple[float, ...]) -> Any:
    """Return a polynomial of z without a constant term, from its coefficients."""
    total: Any = 0
    for coefficient in reversed(coefficients):
        total = (total + coefficient) * z
    return total


def excess(ans: Array, x: Array) -> Any:
    """Return the sum of x and density_over_ndtr(x), which nearly cancel far below zero."""
    far = x < -limit(x)
    t = np.where(far, -x, 1)
    return np.where(far, (1 + polynomial(np.square(1 / t), (-2, 10, -74, 706, -8162))) / t, x + ans)


def expanded(slope: Array, x: Array, far: Array, scale: float, *, sign: int) -> Any:
    """Return the slope, or for large x the series that erfcx and dawsn share but for signs and scale."""
    z = sign * np.square(1 / np.where(far, x, 1))
    return np.where(far, scale * polynomial(z, TAIL), slope)


def erfcx_slope(ans: Array, x: Array) -> Any:
    slope = 2 * x * ans - 2 / SQRT_PI
    return slope if np.iscomplexobj(x) else expanded(slope, x, x > tail_limit(x), 2 / SQRT_PI, sign=-1)


def dawsn_slope(ans: Array, x: Array) -> Any:
    slope = 1 - 2 * x * ans
    return slope if np.iscomplexobj(x) else expanded(slope, x, np.abs(x) > tail_limit(x), -1, sign=1)


defvjp(density_over_ndtr, lambda ans, x: lambda g: -g * ans * excess(ans, x))

rule(sp.erf, lambda ans, x: lambda g: g * (2 / SQRT_PI * np.exp(-np.square(x))))
rule(sp.erfc, lambda ans, x: lambda g: g * (-2 / SQRT_PI * np.exp(-np.square(x))))
rule(sp.erfcx, lambda ans, x: lambda g: g * erfcx_slope(ans, x))
rule(sp.erfinv, lambda ans, x: lambda g: g * (SQRT_PI / 2 * np.exp(np.square(ans))))
rule(sp.erfcinv, lambda ans, x: lambda g: g * (-SQRT_PI / 2 * np.exp(np.square(ans))))
rule(sp.dawsn, lambda ans, x: lambda g: g * dawsn_slope(ans, x))
rule(sp.ndtr, lambda ans, x: lambda g: g * (np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)))
rule(sp.ndtri, lambda ans, x: lambda g: g * (math.sqrt(2 * math.pi) * np.exp(np.square(ans) / 2)))
rule(sp.log_ndtr, lambda ans, x: lambda g: g * density_over_ndtr(x))

# Logistic functions, entropies, elementary functions


def share(x: Array, y: Array) -> Array:
    """Divide, with 0 / 0 = 0, as x log(y) is 0 for every y where x is."""
    return x / np.where((x == 0) & (y == 0), 1, y)


def log_quotient(x: Array, y: Array) -> Array:
    """Return the logarithm of x / y, in its last digits too where they are close, and where the quotient overflows."""
    x, y = x * 1.0, y * 1.0
    close = (x < 2 * y) & (y < 2 * x)
    (near, other), (above, below) = ([np.where(where, a, 1) for a in (x, y)] for where in (close, ~close))
    return np.where(close, np.log1p((near - other) / other), 2 * np.log(np.sqrt(above) / np.sqrt(below)))


@primitive
def one_less_quotient(x: Array, y: Array) -> Array:
    """Return the difference 1 - x / y, in its last digits too where they are close; 1 for 0 / 0."""
    nothing = (x == 0) & (y == 0)
    return np.where(nothing, 1, (y * 1.0 - x) / np.where(nothing, 1, y))


defvjp(one_less_quotient, lambda ans, x, y: lambda g: -g / y, lambda ans, x, y: lambda g: g * (x / y / y))


rule(sp.expit, lambda ans, x: lambda g: g * (square_of_sech(x / 2) / 4))
rule(sp.logit, lambda ans, x: lambda g: g / (x * (1 - x)))
rule(sp.log_expit, lambda ans, x: lambda g: g * sp.expit(-x))
rule(sp.entr, lambda ans, x: lambda g: g * (-np.log(x) - 1))
rule(
    sp.rel_entr, lambda ans, x, y: lambda g: g * (log_quotient(x, y) + 1), lambda ans, x, y: lambda g: -g * share(x, y)
)
rule(
    sp.kl_div,
    lambda ans, x, y: lambda g: g * log_quotient(x, y),
    lambda ans, x, y: lambda g: g * one_less_quotient(x, y),
)
rule(sp.xlogy, lambda ans, x, y: lambda g: g * np.log(y * 1.0), lambda ans, x, y: lambda g: g * share(x, y))
rule(sp.xlog1py, lambda ans, x, y: lambda g: g * np.log1p(y * 1.0), lambda ans, x, y: lambda g: g * share(x, y + 1.0))
rule(sp.expm1, lambda ans, x: lambda g: g * np.exp(x))
rule(sp.log1p, lambda ans, x: lambda g: g / (x + 1))
rule(sp.exp2, lambda ans, x: lambda g: g * (math.log(2) * ans))
rule(sp.exp10, lambda ans, x: lambda g: g * (math.log(10) * ans))
rule(sp.cbrt, lambda ans, x: lambda g: g / (3 * np.square(ans)))
rule(sp.cosm1, lambda ans, x: lambda g: -g * np.sin(x))
rule(sp.exp1, lambda ans, x: lambda g: -g * np.exp(-x) / x)
rule(sp.expi, lambda ans, x: lambda g: g * np.exp(x) / x)

# Gamma and beta functions


def rgamma_slope(ans: Array, x: Array) -> Array:
    """By reflection below 1/2 (DLMF 5.5.3), where psi has poles at which 1 / gamma has none."""
    left = np.real(x) < 0.5
    nearest = np.where(left, np.rint(np.real(getval(x))), 0)
    angle, mirrored = math.pi * (np.where(left, x, 0) - nearest), np.where(left, 1 - x, 1)
    sine, cosine = np.sin(angle), np.cos(angle)
    reflected = (1 - 2 * (nearest % 2)) * sp.gamma(mirrored) * (cosine - sine * sp.psi(mirrored) / math.pi)
    return np.where(left, reflected, -ans * sp.psi(np.where(left, 1, x)))


def psi_difference(a: Array, b: Array) -> Array:
    """Return the difference psi(a) - psi(a + b); two calls would leave no digits where b is small beside a.

    For positive numbers it is made of differences of the terms of DLMF 5.5.2, up to psi(a + 10), and of 5.11.2.
    """
    if np.all(getval(a) > 0) and np.all(getval(b) > 0):
        return _psi_difference(a, b)
    positive = (a > 0) & (b > 0)
    series = _psi_difference(np.where(positive, a, 1), np.where(positive, b, 1))
    return np.where(positive, series, sp.psi(np.where(positive, 1, a)) - sp.psi(np.where(positive, 1, a + b)))


STEPS = 10
"""Steps of the recurrence."""

SERIES = [float(b) / k for k, b in enumerate(sp.bernoulli(16)) if k > 0 and k % 2 == 0]
"""Coefficients of psi's series in 1 / x^2, from the first power on."""


def _psi_difference(a: Array, b: Array) -> Array:
    total: Any = 0.0
    for i in range(STEPS):
        total = total + b / (a + b + i) / (a + i)
    low, high = a + STEPS, a + b + STEPS
    step = b / high / low  # 1 / low - 1 / high
    u, v = np.square(1 / low), np.square(1 / high)
    power, quotient = 0.0, 0.0  # of a polynomial p, by Horner's rule: p(u), and (p(u) - p(v)) / (u - v)
    for coefficient in reversed(SERIES):
        power, quotient = coefficient + u * power, power + v * quotient
    quotient = power + v * quotient
    return -(total + np.log1p(b / low) + step / 2 + step * (1 / low + 1 / high) * quotient)


rule(sp.gammaln, lambda ans, x: lambda g: g * sp.psi(x))
rule(sp.loggamma, lambda ans, x: lambda g: g * sp.psi(x))
rule(sp.gamma, lambda ans, x: lambda g: g * ans * sp.psi(x))
rule(sp.rgamma, lambda ans, x: lambda g: g * rgamma_slope(ans, x))
rule(sp.psi, lambda ans, x: lambda g: g * polygamma(1, x))
rule(
    sp.beta,
    lambda ans, a, b: lambda g: g * ans * psi_difference(a, b),
    lambda ans, a, b: lambda g: g * ans * psi_difference(b, a),
)
rule(
    sp.betaln,
    lambda ans, a, b: lambda g: g * psi_difference(a, b),
    lambda ans, a, b: lambda g: g * psi_difference(b, a),
)


def beta_density(a: Array, b: Array, x: Array) -> Array:
    return np.exp(sp.xlogy(a - 1.0, x) + sp.xlog1py(b - 1.0, -x) - sp.betaln(a * 1.0, b * 1.0))


STIRLING = [float(b) / (k * (k - 1)) for k, b in enumerate(sp.bernoulli(16)) if k > 0 and k % 2 == 0]
"""Coefficients of the series of gammaln in 1 / a, of every second power from the first on, DLMF 5.11.1."""


@primitive
def less_log1p(x: Array) -> Array:
    """Return the difference x - log(1 + x), by the series of log((1 + s) / (1 - s)) where x is small."""
    small = np.abs(x) < 0.25
    near, far = np.where(small, x, 0), np.where(small, 0, x)
    s = near / (2 + near)
    series = s * near - 2 * s * polynomial(np.square(s), tuple(1 / k for k in range(3, 25, 2)))
    return np.where(small, series, far - np.log1p(far))


defvjp(less_log1p, lambda ans, x: lambda g: g * (x / (1 + x)))


def gamma_density(a: Array, x: Array) -> Array:
    """Use Stirling's series around x = a for large a, where (a - 1) log(x) - x - gammaln(a) would lose digits."""
    large = (a > 20) & (x > 0)
    mean, at = np.where(large, a, 20.0), np.where(large, x, 20.0)
    inverse, step = 1 / mean, (at - mean) / mean
    rest = polynomial(np.square(inverse), tuple(STIRLING)) / inverse
    near = np.log(mean / (2 * math.pi)) / 2 - rest - np.log(at) - mean * less_log1p(step)
    a, x = np.where(large, 1.0, a), np.where(large, 1.0, x)
    return np.exp(np.where(large, near, sp.xlogy(a - 1, x) - x - sp.gammaln(a)))


second(sp.betainc, lambda ans, a, b, x: lambda g: g * beta_density(a, b, x), argnum=2)
second(sp.betaincinv, lambda ans, a, b, y: lambda g: g / beta_density(a, b, ans), argnum=2)
second(sp.gammainc, lambda ans, a, x: lambda g: g * gamma_density(a, x))
second(sp.gammaincc, lambda ans, a, x: lambda g: -g * gamma_density(a, x))
second(sp.gammaincinv, lambda ans, a, y: lambda g: g / gamma_density(a, ans))
second(sp.gammainccinv, lambda ans, a, y: lambda g: -g / gamma_density(a, ans))
plain(sp.gammasgn)

# Bessel functions, by their argument and not by their order, of which 1.0 is taken as integers may be unsigned


def _of_order_two(function: Any, one: Any, zero: Any, over_x: int, minus: int) -> Any:
    """Return a Bessel function of order 2: SciPy's, or its recurrence, which is 0 at x = 0, since CuPy has none."""

    def value(x: Any) -> Any:
        if library_of(getval(x)) in ("numpy", "builtins"):
            return function(2, x)
        at_zero = x == 0
        return np.where(at_zero, np.zeros_like(x), over_x * 2 * one(x) / np.where(at_zero, 1, x) + minus * zero(x))

    return value


_j2, _y2 = _of_order_two(sp.jv, sp.j1, sp.j0, 1, -1), _of_order_two(sp.yv, sp.y1, sp.y0, 1, -1)
_i2, _k2 = _of_order_two(sp.iv, sp.i1, sp.i0, -1, 1), _of_order_two(sp.kv, sp.k1, sp.k0, 1, 1)
_i2e = _of_order_two(sp.ive, sp.i1e, sp.i0e, -1, 1)


def scaled_slope(n: int, x: Array, slope: Array) -> Array:
    """Return the derivative of exp(-abs(x)) I_n(x), for large x by the series of its three terms, DLMF 10.40.1."""
    far = np.abs(x) > 50
    size = np.where(far, np.abs(x), 50.0)
    total: Any = 0.0
    for coefficient in reversed(_scaled_slope_series(n)):
        total = (total + coefficient) / size
    total = total / np.sqrt(2 * math.pi * size)
    return np.where(far, total if n % 2 else np.sign(x) * total, slope)


def _scaled_slope_series(n: int) -> list[float]:
    """Return the coefficients of 1 / x, 1 / x^2, ... in (f(n - 1) + f(n + 1)) / 2 - f(n), where f are those of I_n."""

    def terms(order: int) -> Any:
        ratios = (((2 * k - 1) ** 2 - 4 * order**2) / (8 * k) for k in range(1, 15))
        return itertools.accumulate(ratios, operator.mul)

    return [(low + high) / 2 - middle for low, middle, high in zip(*map(terms, (n - 1, n, n + 1)), strict=True)]


rule(sp.j0, lambda ans, x: lambda g: -g * sp.j1(x))
rule(sp.y0, lambda ans, x: lambda g: -g * sp.y1(x))
rule(sp.i0, lambda ans, x: lambda g: g * sp.i1(x))
rule(sp.k0, lambda ans, x: lambda g: -g * sp.k1(x))
rule(sp.i0e, lambda ans, x: lambda g: g * scaled_slope(0, x, sp.i1e(x) - np.sign(x) * ans))
rule(sp.j1, lambda ans, x: lambda g: g * (sp.j0(x) - _j2(x)) / 2)
rule(sp.y1, lambda ans, x: lambda g: g * (sp.y0(x) - _y2(x)) / 2)
rule(sp.i1, lambda ans, x: lambda g: g * (sp.i0(x) + _i2(x)) / 2)
rule(sp.k1, lambda ans, x: lambda g: -g * (sp.k0(x) + _k2(x)) / 2)
rule(sp.i1e, lambda ans, x: lambda g: g * scaled_slope(1, x, (sp.i0e(x) + _i2e(x)) / 2 - np.sign(x) * ans))
second(sp.jv, lambda ans, n, x: lambda g: g * (sp.jv(n - 1.0, x) - sp.jv(n + 1.0, x)) / 2)
second(sp.yv, lambda ans, n, x: lambda g: g * (sp.yv(n - 1.0, x) - sp.yv(n + 1.0, x)) / 2)
second(sp.yn, lambda ans, n, x: lambda g: g * (sp.yv(n - 1.0, x) - sp.yv(n + 1.0, x)) / 2)
second(sp.iv, lambda ans, n, x: lambda g: g * (sp.iv(n - 1.0, x) + sp.iv(n + 1.0, x)) / 2)
second(sp.kv, lambda ans, n, x: lambda g: -g * (sp.kv(n - 1.0, x) + sp.kv(n + 1.0, x)) / 2)
second(
    sp.ive,  # the factor exp(-abs(Re x)) depends on the real part alone
    lambda ans, n, x: (
        lambda g: g * (sp.ive(n - 1.0, x) + sp.ive(n + 1.0, x)) / 2 - np.sign(np.real(x)) * np.real(g * ans)
    ),
)
