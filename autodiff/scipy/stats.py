"""scipy.stats, with the densities and distribution functions of common laws for traced values too.

Distribution functions are differentiated by everything but the shape parameters of `t`, `gamma`, `chi2` and `beta`, and
the number in `poisson`, which have no closed form; those are refused. What a law has besides is SciPy's own.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import scipy.special as sp
import scipy.stats

from autodiff._rules.table import as_floats
from autodiff.tape import defvjp, getval, primitive
from hcnn_core.backend import Array

__all__ = ["beta", "chi2", "dirichlet", "expon", "gamma", "multivariate_normal", "norm", "poisson", "t"]


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
    """A law with a location and a scale, by its logarithmic density and its distribution function at scale 1."""

    support: tuple[float, float] = (-math.inf, math.inf)

    @abstractmethod
    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        """The logarithm of the density."""

    @abstractmethod
    def _cdf(self, x: Array, *shapes: Any) -> Array:
        """The distribution function."""

    def _standard(self, x: Array, shapes: tuple[Any, ...], loc: Any, scale: Any) -> tuple[Array, Array, Array]:
        """The argument at location 0 and scale 1, inside the support; where it is outside; where above."""
        low, high = self.support
        x = (as_floats(x) - loc) / scale
        outside, middle = (x < low) | (x > high), 0.5 if high < math.inf else 1.0  # NaN is not outside, and stays
        return (x if self.support == (-math.inf, math.inf) else np.where(outside, middle, x)), outside, x > high

    def logpdf(self, x: Array, *shapes: Any, loc: Any = 0, scale: Any = 1) -> Array:
        """Return the logarithm of the density, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *shapes : array_like
            The parameters of the law, then location and scale where they are not given by name.
        loc, scale : array_like
            Location and scale.

        Returns
        -------
        array
            Minus infinity outside the support; NaN where a shape or the scale is not positive.
        """
        shapes, loc, scale = self._split(shapes, loc, scale)
        at, outside, _ = self._standard(x, shapes, loc, scale)
        return np.where(outside, -np.inf, self._logpdf(at, *shapes) - np.log(scale))

    def pdf(self, x: Array, *shapes: Any, loc: Any = 0, scale: Any = 1) -> Array:
        """Return the density, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *shapes : array_like
            As in `logpdf`.
        loc, scale : array_like
            Location and scale.

        Returns
        -------
        array
            Zero outside the support.
        """
        shapes, loc, scale = self._split(shapes, loc, scale)
        at, outside, _ = self._standard(x, shapes, loc, scale)
        return np.where(outside, 0.0, np.exp(self._logpdf(at, *shapes)) / scale)

    def cdf(self, x: Array, *shapes: Any, loc: Any = 0, scale: Any = 1) -> Array:
        """Return the distribution function, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *shapes : array_like
            As in `logpdf`.
        loc, scale : array_like
            Location and scale.

        Returns
        -------
        array
            From 0 to 1.
        """
        shapes, loc, scale = self._split(shapes, loc, scale)
        at, outside, above = self._standard(x, shapes, loc, scale)
        return np.where(outside, np.where(above, 1.0, 0.0), self._cdf(at, *shapes))

    def logcdf(self, x: Array, *shapes: Any, loc: Any = 0, scale: Any = 1) -> Array:
        """Return the logarithm of the distribution function, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *shapes : array_like
            As in `logpdf`.
        loc, scale : array_like
            Location and scale.

        Returns
        -------
        array
            At most 0.
        """
        return np.log(self.cdf(x, *shapes, loc=loc, scale=scale))

    def _split(self, given: tuple[Any, ...], loc: Any, scale: Any) -> tuple[tuple[Any, ...], Any, Any]:
        """The shape parameters, location and scale, by position or name; all but the location positive, or NaN."""
        count = self._law.numargs
        shapes, rest = given[:count], given[count:]
        if len(shapes) < count or len(rest) > 2:
            raise TypeError(f"{self._law.name} takes {count} parameters, then loc and scale, not {len(given)}")
        loc, scale = map(as_floats, (*rest, *(loc, scale)[len(rest) :]))
        parameters = (*map(as_floats, shapes), scale)
        valid = functools.reduce(np.logical_and, (np.greater(p, 0) for p in parameters))
        if not np.all(valid):  # a product, so that the gradient is NaN too
            parameters = tuple(p * np.where(valid, np.ones_like(p), np.nan) for p in parameters)
        return parameters[:-1], loc, parameters[-1]


class Normal(Continuous):
    """The normal law."""

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        return -np.square(x) / 2 - math.log(2 * math.pi) / 2

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return sp.ndtr(x)

    def logcdf(self, x: Array, *shapes: Any, loc: Any = 0, scale: Any = 1) -> Array:
        """Return the logarithm of the distribution function, as SciPy's method.

        Parameters
        ----------
        x : array
            Where.
        *shapes : array_like
            Location and scale, by position.
        loc, scale : array_like
            Location and scale, by name.

        Returns
        -------
        array
            Right far below the mean too.
        """
        _, loc, scale = self._split(shapes, loc, scale)
        return sp.log_ndtr((as_floats(x) - loc) / scale)

    def sf(self, x: Array, loc: Any = 0, scale: Any = 1) -> Array:
        """Return the survival function, 1 minus the distribution function.

        Parameters
        ----------
        x : array
            Where.
        loc, scale : array_like
            Location and scale.

        Returns
        -------
        array
            Right far above the mean too.
        """
        _, loc, scale = self._split((), loc, scale)
        return sp.ndtr((loc - as_floats(x)) / scale)

    def logsf(self, x: Array, loc: Any = 0, scale: Any = 1) -> Array:
        """Return the logarithm of the survival function.

        Parameters
        ----------
        x : array
            Where.
        loc, scale : array_like
            Location and scale.

        Returns
        -------
        array
            Right far above the mean too.
        """
        _, loc, scale = self._split((), loc, scale)
        return sp.log_ndtr((loc - as_floats(x)) / scale)


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


_stdtr = primitive(sp.stdtr)
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
        return sp.xlogy(a - 1, x) - x - sp.gammaln(a)

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return sp.gammainc(*shapes, x)


class ChiSquared(Continuous):
    """The law of the sum of df squares of normal variables."""

    support = (0.0, math.inf)

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        (df,) = shapes
        return sp.xlogy(df / 2 - 1, x) - x / 2 - sp.gammaln(df / 2) - df / 2 * math.log(2)

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        (df,) = shapes
        return sp.gammainc(df / 2, x / 2)


class Exponential(Continuous):
    """The exponential law."""

    support = (0.0, math.inf)

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        return -x

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return -np.expm1(-x)


class Beta(Continuous):
    """The beta law of shapes a and b."""

    support = (0.0, 1.0)

    def _logpdf(self, x: Array, *shapes: Any) -> Array:
        a, b = shapes
        return sp.xlogy(a - 1, x) + sp.xlog1py(b - 1, -x) - sp.betaln(a, b)

    def _cdf(self, x: Array, *shapes: Any) -> Array:
        return sp.betainc(*shapes, x)


class Poisson(Law):
    """The Poisson law of mean mu."""

    def logpmf(self, k: Any, mu: Array) -> Array:
        """Return the logarithm of the probability of a number.

        Parameters
        ----------
        k : array_like of int
            The number.
        mu : array
            The mean.

        Returns
        -------
        array
            Minus infinity where `k` is no number from 0 up; NaN where `mu` is negative.
        """
        k = self._number(k, mu)
        outside = (k < 0) | (k > np.floor(k))
        count = np.where(outside, 0, k)
        return np.where(outside, -np.inf, sp.xlogy(count, mu) - mu - sp.gammaln(count + 1.0))

    def pmf(self, k: Any, mu: Array) -> Array:
        """Return the probability of a number.

        Parameters
        ----------
        k : array_like of int
            The number.
        mu : array
            The mean.

        Returns
        -------
        array
            Zero where `k` is no number from 0 up.
        """
        return np.exp(self.logpmf(k, mu))

    def cdf(self, k: Any, mu: Array) -> Array:
        """Return the probability of at most a number.

        Parameters
        ----------
        k : array_like
            The number.
        mu : array
            The mean.

        Returns
        -------
        array
            Zero where `k` is below 0.
        """
        k = np.floor(self._number(k, mu))
        return np.where(k < 0, 0.0, sp.gammaincc(np.where(k < 0, 0, k) + 1.0, mu))

    def _number(self, k: Any, mu: Array) -> Array:
        """The number, NaN where the mean is no mean."""
        return np.where(np.greater_equal(mu, 0), k, np.nan)


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
    """The normal law of vectors, of regular covariance."""

    def logpdf(self, x: Array, mean: Any = 0.0, cov: Any = 1.0) -> Array:
        """Return the logarithm of the density.

        Parameters
        ----------
        x : array, shape (..., k)
            Points; where mean and covariance are numbers, a vector is k points of one number each.
        mean : array_like, shape (k,), optional
            The mean, zero by default.
        cov : array_like, shape (k, k)
            The covariance, symmetric and regular; a number or a vector stands for a diagonal.

        Returns
        -------
        array, shape (...)
            One number a point.

        Raises
        ------
        ValueError
            If the covariance is not positive definite.
        """
        deviation = np.atleast_1d(as_floats(x) - (0.0 if mean is None else as_floats(mean)))
        if np.ndim(x) == 1 < np.size(x) and np.size(mean) == np.size(cov) == 1:
            deviation = np.expand_dims(deviation, -1)  # points of one number each
        k = np.shape(deviation)[-1]
        cov = self._matrix(cov, k)
        columns = np.reshape(deviation, (-1, k)).T
        form = np.reshape(np.sum(columns * np.linalg.solve(cov, columns), axis=0), np.shape(deviation)[:-1])
        return -(form + np.linalg.slogdet(cov)[1] + k * math.log(2 * math.pi)) / 2

    def pdf(self, x: Array, mean: Any = 0.0, cov: Any = 1.0) -> Array:
        """Return the density.

        Parameters
        ----------
        x : array, shape (..., k)
            Points.
        mean : array_like, shape (k,)
            The mean.
        cov : array_like
            As in `logpdf`.

        Returns
        -------
        array, shape (...)
            One number a point.
        """
        return np.exp(self.logpdf(x, mean, cov))

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

    def _matrix(self, cov: Any, k: int) -> Array:
        cov = cov if np.ndim(cov) == 2 else cov * np.eye(k)
        least = np.min(np.linalg.eigvalsh(getval(cov)))
        if not least > 0:
            raise ValueError(f"the covariance is not positive definite: its least eigenvalue is {float(least):.3g}")
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


def __getattr__(name: str) -> Any:
    return getattr(scipy.stats, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(scipy.stats)})
