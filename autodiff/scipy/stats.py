"""scipy.stats, with the densities and distribution functions of common laws for traced values too.

Distribution functions and their inverses are differentiated by everything but the shape parameters of `t`, `gamma`,
`chi2` and `beta`, and the number in `poisson`, which have no closed form; those are refused. What a law has besides is
SciPy's own.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats

from autodiff._rules.special import log_gamma_density
from autodiff._rules.table import as_floats
from autodiff.tape import defvjp, getval, primitive
from hcnn_core.backend import Array

__all__ = ["beta", "chi2", "dirichlet", "expon", "gamma", "multivariate_normal", "norm", "poisson", "t"]

ROUNDING = {"f": 1e3, "d": 1e6}
"""So many eps of a covariance's largest eigenvalue count as an eigenvalue of 0; the numbers are SciPy's."""

INSIDE = 0.5
"""A number inside every support, in place of those that are not."""


class Law:
    """A distribution of scipy.stats: what is not written here for traced values is SciPy's."""

    def __init__(self, name: str) -> None:
        self._name, self._law = name, getattr(scipy.stats, name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._law, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._law(*args, **kwargs)

    def __reduce__(self) -> str:
        """Copy and pickle by name, like a function."""
        return self._name


class Continuous(Law, ABC):
    """A law with a location and a scale, by what it is at location 0 and scale 1."""

    support: tuple[float, float] = (-math.inf, math.inf)

    @abstractmethod
    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        """The logarithm of the density."""

    @abstractmethod
    def _cdf(self, x: Array, *shapes: Any) -> Array:
        """The distribution function."""

    @abstractmethod
    def _sf(self, x: Array, *shapes: Any) -> Array:
        """The survival function, 1 minus the distribution function."""

    @abstractmethod
    def _ppf(self, q: Array, *shapes: Any) -> Array:
        """The inverse of the distribution function."""

    @abstractmethod
    def _isf(self, q: Array, *shapes: Any) -> Array:
        """The inverse of the survival function."""

    def _logcdf(self, x: Array, *shapes: Any) -> Array:
        return _log_share(self._cdf(x, *shapes), self._sf(x, *shapes))

    def _logsf(self, x: Array, *shapes: Any) -> Array:
        return _log_share(self._sf(x, *shapes), self._cdf(x, *shapes))

    def _factors(self, x: Array, scale: Any, *shapes: Any) -> tuple[list[tuple[Array, Any]], Array]:
        """What the density has as factors that may be 0 where x, at location 0, is an end of the support.

        They are bases and exponents; each base is divided by the scale. The other result is the logarithm of the rest.
        """
        return [], x

    def _standard(self, x: Array, loc: Any, scale: Any) -> tuple[Array, Array, Array]:
        """The argument at location 0 and scale 1, inside the support; where it is outside; where above."""
        low, high = self.support
        x = (as_floats(x) - loc) / scale
        outside = (x < low) | (x > high)  # NaN is not outside, and stays
        return (x if self.support == (-math.inf, math.inf) else np.where(outside, INSIDE, x)), outside, x > high

    def logpdf(self, x: Array, *parameters: Any, **named: Any) -> Array:
        """Return the logarithm of the density, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *parameters, **named : array_like
            The parameters of the law, then location and scale if wanted: ``gamma.logpdf(x, 2.0, scale=3.0)``.

        Returns
        -------
        array
            Minus infinity outside the support; NaN where a shape or the scale is not positive.
        """
        shapes, loc, scale = self._split(parameters, named)
        at, outside, _ = self._standard(x, loc, scale)
        return np.where(outside, -np.inf, self._logpdf(at, *shapes) - np.log(scale))

    def pdf(self, x: Array, *parameters: Any, **named: Any) -> Array:
        """Return the density, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *parameters, **named : array_like
            As in `logpdf`.

        Returns
        -------
        array
            Zero outside the support.
        """
        shapes, loc, scale = self._split(parameters, named)
        at, outside, _ = self._standard(x, loc, scale)
        factors, rest = self._factors(as_floats(x) - loc, scale, *shapes)
        vanishing = functools.reduce(np.logical_or, ((base == 0) & (power > 0) for base, power in factors), False)
        if not np.any(vanishing):
            return np.where(outside, 0.0, np.exp(self._logpdf(at, *shapes)) / scale)
        # there the logarithm has no derivative, though the density has
        edge = np.exp(np.where(vanishing, rest, 0.0)) / scale
        unit = getval(scale)  # what is near 1 overflows in no power
        for base, power in factors:
            edge = edge * np.power(np.where(vanishing, base / unit, 1.0), power) * np.power(scale / unit, -power)
        inner = np.exp(self._logpdf(np.where(vanishing, INSIDE, at), *shapes)) / scale
        return np.where(vanishing, edge, np.where(outside, 0.0, inner))

    def cdf(self, x: Array, *parameters: Any, **named: Any) -> Array:
        """Return the distribution function, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *parameters, **named : array_like
            As in `logpdf`.

        Returns
        -------
        array
            From 0 to 1.
        """
        shapes, loc, scale = self._split(parameters, named)
        at, outside, above = self._standard(x, loc, scale)
        return np.where(outside, np.where(above, 1.0, 0.0), self._cdf(at, *shapes))

    def logcdf(self, x: Array, *parameters: Any, **named: Any) -> Array:
        """Return the logarithm of the distribution function, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *parameters, **named : array_like
            As in `logpdf`.

        Returns
        -------
        array
            At most 0.
        """
        shapes, loc, scale = self._split(parameters, named)
        at, outside, above = self._standard(x, loc, scale)
        return np.where(outside, np.where(above, 0.0, -np.inf), self._logcdf(at, *shapes))

    def sf(self, x: Array, *parameters: Any, **named: Any) -> Array:
        """Return the survival function, 1 minus the distribution function, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *parameters, **named : array_like
            As in `logpdf`.

        Returns
        -------
        array
            From 0 to 1; right far above too, where the distribution function is 1.
        """
        shapes, loc, scale = self._split(parameters, named)
        at, outside, above = self._standard(x, loc, scale)
        return np.where(outside, np.where(above, 0.0, 1.0), self._sf(at, *shapes))

    def logsf(self, x: Array, *parameters: Any, **named: Any) -> Array:
        """Return the logarithm of the survival function, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *parameters, **named : array_like
            As in `logpdf`.

        Returns
        -------
        array
            At most 0.
        """
        shapes, loc, scale = self._split(parameters, named)
        at, outside, above = self._standard(x, loc, scale)
        return np.where(outside, np.where(above, -np.inf, 0.0), self._logsf(at, *shapes))

    def ppf(self, q: Array, *parameters: Any, **named: Any) -> Array:
        """Return the inverse of the distribution function, as SciPy's method.

        Parameters
        ----------
        q : array
            Probabilities, from 0 to 1.
        *parameters, **named : array_like
            As in `logpdf`.

        Returns
        -------
        array
            The numbers, not a number for other probabilities.
        """
        shapes, loc, scale = self._split(parameters, named)
        q = as_floats(q)
        q = q * np.where((q >= 0) & (q <= 1), np.ones_like(q), np.nan)
        return self._ppf(q, *shapes) * scale + loc

    def isf(self, q: Array, *parameters: Any, **named: Any) -> Array:
        """Return the inverse of the survival function, as SciPy's method.

        Parameters
        ----------
        q : array
            Probabilities, from 0 to 1.
        *parameters, **named : array_like
            As in `logpdf`.

        Returns
        -------
        array
            The numbers, not a number for other probabilities.
        """
        shapes, loc, scale = self._split(parameters, named)
        q = as_floats(q)
        q = q * np.where((q >= 0) & (q <= 1), np.ones_like(q), np.nan)
        return self._isf(q, *shapes) * scale + loc

    def _split(self, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], Any, Any]:
        """The shape parameters, location and scale, by position or name; all but the location positive, or NaN."""
        names = [*(self._law.shapes.split(", ") if self._law.shapes else []), "loc", "scale"]
        found = dict(zip(names, given, strict=False))
        wanted = set(names[:-2]) - set(found) - set(named)
        if len(given) > len(names) or wanted or not set(named) <= set(names) - set(found):
            raise TypeError(
                f"{self._law.name} takes {', '.join(names)}, the last two if wanted, and got {len(given)} by position"
                + (f", {', '.join(named)} by name" if named else "")
            )
        *shapes, loc, scale = (as_floats(({"loc": 0, "scale": 1} | found | named)[name]) for name in names)
        parameters = (*shapes, scale)
        valid = functools.reduce(np.logical_and, (np.greater(p, 0) for p in parameters))
        if not np.all(valid):  # a product, so that the gradient is NaN too
            parameters = tuple(p * np.where(valid, np.ones_like(p), np.nan) for p in parameters)
        return parameters[:-1], loc, parameters[-1]


def _log_share(share: Array, rest: Array) -> Array:
    """The logarithm of a number that makes 1 with the rest, in its last digits too where it is close to 1."""
    most = share > 0.5
    return np.where(most, np.log1p(-np.where(most, rest, 0.0)), np.log(np.where(most, 1.0, share)))


class Normal(Continuous):
    """The normal law."""

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        return -np.square(x) / 2 - math.log(2 * math.pi) / 2

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return sp.ndtr(x)

    def _sf(self, x: Array, *shapes: Any) -> Array:
        return sp.ndtr(-x)

    def _logcdf(self, x: Array, *shapes: Any) -> Array:
        return sp.log_ndtr(x)

    def _logsf(self, x: Array, *shapes: Any) -> Array:
        return sp.log_ndtr(-x)

    def _ppf(self, q: Array, *shapes: Any) -> Array:
        return sp.ndtri(q)

    def _isf(self, q: Array, *shapes: Any) -> Array:
        return -sp.ndtri(q)


class StudentT(Continuous):
    """Student's t with df degrees of freedom."""

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        (df,) = shapes
        square, normal = np.square(x), np.isinf(df)
        finite = np.where(normal, 1.0, df)
        power = np.where(normal, square / 2, (finite + 1) / 2 * np.log1p(square / finite))
        return _log_gamma_step(df / 2) - math.log(2 * math.pi) / 2 - power

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return _stdtr(*shapes, x)

    def _sf(self, x: Array, *shapes: Any) -> Array:
        return _stdtr(*shapes, -x)

    def _ppf(self, q: Array, *shapes: Any) -> Array:
        return _stdtrit(*shapes, q)

    def _isf(self, q: Array, *shapes: Any) -> Array:
        return -_stdtrit(*shapes, q)


_stdtr = primitive(sp.stdtr)
_stdtrit = primitive(lambda df, q: np.where(q == 0, -np.inf, sp.stdtrit(df, q)))  # SciPy's of 0 is infinity
_STEP = [(2.0 ** (1 - k) - 2) * b / (k * (k - 1)) for k, b in enumerate(sp.bernoulli(14)) if k > 0 and k % 2 == 0]


def _log_gamma_step(z: Array) -> Array:
    """The logarithm of gamma(z + 1/2) / gamma(z) / sqrt(z), by DLMF 5.11.8 where the difference would lose digits."""
    far = np.greater(z, 10)
    near, inverse = np.where(far, 1.0, z), 1 / np.where(far, z, 10.0)
    square, series = np.square(inverse), 0.0
    for coefficient in reversed(_STEP):
        series = series * square + coefficient
    return np.where(far, series * inverse, sp.gammaln(near + 0.5) - sp.gammaln(near) - np.log(near) / 2)


class Gamma(Continuous):
    """The gamma law of shape a."""

    support = (0.0, math.inf)

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        (a,) = shapes
        return log_gamma_density(a, x)

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return sp.gammainc(*shapes, x)

    def _sf(self, x: Array, *shapes: Any) -> Array:
        return sp.gammaincc(*shapes, x)

    def _ppf(self, q: Array, *shapes: Any) -> Array:
        return sp.gammaincinv(*shapes, q)

    def _isf(self, q: Array, *shapes: Any) -> Array:
        return sp.gammainccinv(*shapes, q)

    def _factors(self, x: Array, scale: Any, *shapes: Any) -> tuple[list[tuple[Array, Any]], Array]:
        (a,) = shapes
        return [(x, a - 1)], -x / scale - sp.gammaln(a)


class ChiSquared(Continuous):
    """The law of the sum of df squares of normal variables."""

    support = (0.0, math.inf)

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        (df,) = shapes
        return sp.xlogy(df / 2 - 1, x) - x / 2 - sp.gammaln(df / 2) - df / 2 * math.log(2)

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        (df,) = shapes
        return sp.gammainc(df / 2, x / 2)

    def _sf(self, x: Array, *shapes: Any) -> Array:
        (df,) = shapes
        return sp.gammaincc(df / 2, x / 2)

    def _ppf(self, q: Array, *shapes: Any) -> Array:
        (df,) = shapes
        return 2 * sp.gammaincinv(df / 2, q)

    def _isf(self, q: Array, *shapes: Any) -> Array:
        (df,) = shapes
        return 2 * sp.gammainccinv(df / 2, q)

    def _factors(self, x: Array, scale: Any, *shapes: Any) -> tuple[list[tuple[Array, Any]], Array]:
        (df,) = shapes
        return [(x, df / 2 - 1)], -x / scale / 2 - sp.gammaln(df / 2) - df / 2 * math.log(2)


class Exponential(Continuous):
    """The exponential law."""

    support = (0.0, math.inf)

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        return -x

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return -np.expm1(-x)

    def _sf(self, x: Array, *shapes: Any) -> Array:
        return np.exp(-x)

    def _logsf(self, x: Array, *shapes: Any) -> Array:
        return -x

    def _ppf(self, q: Array, *shapes: Any) -> Array:
        return -sp.log1p(-q)

    def _isf(self, q: Array, *shapes: Any) -> Array:
        return -sp.xlogy(1.0, q)


class Beta(Continuous):
    """The beta law of shapes a and b."""

    support = (0.0, 1.0)

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        a, b = shapes
        return sp.xlogy(a - 1, x) + sp.xlog1py(b - 1, -x) - sp.betaln(a, b)

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return sp.betainc(*shapes, x)

    def _sf(self, x: Array, *shapes: Any) -> Array:
        a, b = shapes
        return sp.betainc(b, a, 1 - x)

    def _ppf(self, q: Array, *shapes: Any) -> Array:
        return sp.betaincinv(*shapes, q)

    def _isf(self, q: Array, *shapes: Any) -> Array:
        a, b = shapes
        return 1 - sp.betaincinv(b, a, q)

    def _factors(self, x: Array, scale: Any, *shapes: Any) -> tuple[list[tuple[Array, Any]], Array]:
        a, b = shapes
        return [(x, a - 1), (scale - x, b - 1)], -sp.betaln(a, b)


class Poisson(Law):
    """The Poisson law of mean mu."""

    def logpmf(self, k: Any, mu: Array, loc: Any = 0) -> Array:
        """Return the logarithm of the probability of a number.

        Parameters
        ----------
        k : array_like
            The number.
        mu : array
            The mean.
        loc : array_like, optional
            What the number is counted from; without a gradient.

        Returns
        -------
        array
            Minus infinity where `k` is no number from `loc` up; NaN where `mu` is negative.
        """
        k = self._number(k, mu, loc)
        outside = (k < 0) | (k > np.floor(k))
        count = np.where(outside, 0, k)
        return np.where(outside, -np.inf, sp.xlogy(count, mu) - mu - sp.gammaln(count + 1.0))

    def pmf(self, k: Any, mu: Array, loc: Any = 0) -> Array:
        """Return the probability of a number.

        Parameters
        ----------
        k : array_like
            The number.
        mu : array
            The mean.
        loc : array_like, optional
            What the number is counted from; without a gradient.

        Returns
        -------
        array
            Zero where `k` is no number from `loc` up.
        """
        return np.exp(self.logpmf(k, mu, loc))

    def cdf(self, k: Any, mu: Array, loc: Any = 0) -> Array:
        """Return the probability of at most a number.

        Parameters
        ----------
        k : array_like
            The number.
        mu : array
            The mean.
        loc : array_like, optional
            What the number is counted from; without a gradient.

        Returns
        -------
        array
            Zero where `k` is below `loc`.
        """
        k = np.floor(self._number(k, mu, loc))
        return np.where(k < 0, 0.0, sp.gammaincc(np.where(k < 0, 0, k) + 1.0, mu))

    def sf(self, k: Any, mu: Array, loc: Any = 0) -> Array:
        """Return the probability of more than a number.

        Parameters
        ----------
        k : array_like
            The number.
        mu : array
            The mean.
        loc : array_like, optional
            What the number is counted from; without a gradient.

        Returns
        -------
        array
            One where `k` is below `loc`.
        """
        k = np.floor(self._number(k, mu, loc))
        return np.where(k < 0, 1.0, sp.gammainc(np.where(k < 0, 0, k) + 1.0, mu))

    def _number(self, k: Any, mu: Array, loc: Any) -> Array:
        """The number counted from loc, NaN where the mean is no mean."""
        return np.where(np.greater_equal(mu, 0), np.subtract(k, getval(loc)), np.nan)


class Dirichlet(Law):
    """The Dirichlet law."""

    def logpdf(self, x: Array, alpha: Array) -> Array:
        """Return the logarithm of the density.

        Parameters
        ----------
        x : array, shape (k,) or (k, n)
            Points of the simplex, one a column.
        alpha : array, shape (k,)
            The parameters, positive.

        Returns
        -------
        array, shape () or (n,)
            One number a point.

        Raises
        ------
        ValueError
            If a parameter is not positive, or a point is not on the simplex, or on its edge where the density is
            infinite.
        """
        x, alpha = as_floats(x), as_floats(alpha)
        exponents = np.reshape(alpha - 1, (-1,) + (1,) * (np.ndim(x) - 1))
        points = np.multiply(getval(x), 1.0)
        if np.any(np.less_equal(alpha, 0)):
            raise ValueError(f"the Dirichlet law takes positive parameters, not {getval(alpha)}")
        off = np.abs(np.sum(points, axis=0) - 1) > max(1e-9, len(points) * np.finfo(points.dtype).eps)
        if np.any(off) or np.any((points < 0) | (points == 0) & (exponents < 0)):
            raise ValueError(
                "the Dirichlet law takes points whose numbers sum to 1 and are not negative, nor 0 where the parameter "
                "is below 1"
            )
        return np.sum(sp.xlogy(exponents, x), axis=0) + sp.gammaln(np.sum(alpha)) - np.sum(sp.gammaln(alpha))

    def pdf(self, x: Array, alpha: Array) -> Array:
        """Return the density.

        Parameters
        ----------
        x : array, shape (k,) or (k, n)
            Points of the simplex, one a column.
        alpha : array, shape (k,)
            The parameters, positive.

        Returns
        -------
        array, shape () or (n,)
            One number a point.
        """
        return np.exp(self.logpdf(x, alpha))


class MultivariateNormal(Law):
    """The normal law of vectors."""

    def logpdf(self, x: Array, mean: Any = 0.0, cov: Any = 1.0, allow_singular: bool = False) -> Array:
        """Return the logarithm of the density.

        Parameters
        ----------
        x : array, shape (..., k)
            Points; where mean and covariance are numbers, a vector is k points of one number each.
        mean : array_like, shape (k,), optional
            The mean, zero by default.
        cov : array_like, shape (k, k)
            The covariance, symmetric; a number or a vector stands for a diagonal.
        allow_singular : bool
            Whether the covariance may be singular. The density is that on its range, and 0 beside it; the derivative by
            the covariance is along matrices of the same range.

        Returns
        -------
        array, shape (...)
            One number a point.

        Raises
        ------
        ValueError
            If the covariance is not positive definite, or with `allow_singular` not positive semidefinite.
        """
        deviation: Array = np.atleast_1d(as_floats(x) - (0.0 if mean is None else as_floats(mean)))
        if np.ndim(x) == 1 < np.size(x) and np.size(mean) == np.size(cov) == 1:
            deviation = np.expand_dims(deviation, -1)  # points of one number each
        k = np.shape(deviation)[-1]
        beside: Any = False
        if allow_singular:
            deviation, cov, beside = self._on_range(deviation, cov if np.ndim(cov) == 2 else cov * np.eye(k))
            k = np.shape(deviation)[-1]
        else:
            cov = self._matrix(cov, k)
        points = np.shape(deviation)[:-1]
        columns = np.reshape(deviation, (math.prod(points), k)).T
        form = np.reshape(np.sum(columns * np.linalg.solve(cov, columns), axis=0), points)
        log_density = -(form + np.linalg.slogdet(cov)[1] + k * math.log(2 * math.pi)) / 2
        return np.where(beside, -np.inf, log_density) if np.any(beside) else log_density

    def pdf(self, x: Array, mean: Any = 0.0, cov: Any = 1.0, allow_singular: bool = False) -> Array:
        """Return the density.

        Parameters
        ----------
        x : array, shape (..., k)
            Points.
        mean : array_like, shape (k,)
            The mean.
        cov : array_like
            As in `logpdf`.
        allow_singular : bool
            As in `logpdf`.

        Returns
        -------
        array, shape (...)
            One number a point.
        """
        return np.exp(self.logpdf(x, mean, cov, allow_singular))

    def entropy(self, mean: Any = 0.0, cov: Any = 1.0) -> Array:
        """Return the differential entropy, in nats.

        Parameters
        ----------
        mean : array_like, shape (k,)
            The mean, which does not matter.
        cov : array_like
            As in `logpdf`.

        Returns
        -------
        array
            0-dimensional.
        """
        cov = self._matrix(cov, max(np.size(mean), np.shape(cov)[-1] if np.ndim(cov) else 1))
        return (np.linalg.slogdet(cov)[1] + np.shape(cov)[-1] * math.log(2 * math.pi * math.e)) / 2

    def _on_range(self, deviation: Array, cov: Array) -> tuple[Array, Array, Array]:
        """Deviations and covariance in a basis of the covariance's range; which points are beside it."""
        values, vectors = np.linalg.eigh(getval(cov))
        bound = ROUNDING[values.dtype.char] * np.finfo(values.dtype).eps * np.max(np.abs(values))
        if not np.min(values) >= -bound:
            raise ValueError(
                f"the covariance is not positive semidefinite: its least eigenvalue is {float(values[0]):.3g}"
            )
        null = int(np.sum(values <= bound))
        across, along = vectors[:, :null], vectors[:, null:]
        beside = np.sqrt(np.sum(np.square(getval(deviation) @ across), axis=-1)) >= 1e3 * bound
        return deviation @ along, along.T @ cov @ along, beside

    def _matrix(self, cov: Any, k: int) -> Array:
        cov = cov if np.ndim(cov) == 2 else cov * np.eye(k)
        least = np.min(np.linalg.eigvalsh(getval(cov)))
        if not least > 0:
            raise ValueError(
                f"the covariance is not positive definite: its least eigenvalue is {float(least):.3g}; "
                "with allow_singular=True it may be 0"
            )
        return cov


beta = Beta("beta")
chi2 = ChiSquared("chi2")
dirichlet = Dirichlet("dirichlet")
expon = Exponential("expon")
gamma = Gamma("gamma")
multivariate_normal = MultivariateNormal("multivariate_normal")
norm = Normal("norm")
poisson = Poisson("poisson")
t = StudentT("t")
defvjp(_stdtr, lambda ans, df, x: lambda g: g * t.pdf(x, df), argnums=(1,))
defvjp(_stdtrit, lambda ans, df, q: lambda g: g / t.pdf(ans, df), argnums=(1,))


def __getattr__(name: str) -> Any:
    return getattr(scipy.stats, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(scipy.stats)})
