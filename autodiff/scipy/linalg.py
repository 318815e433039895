"""scipy.linalg, with triangular, banded and Sylvester equations and matrix square roots for traced values too."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from autodiff._rules.products import swap
from autodiff._rules.table import as_array
from autodiff.tape import defvjp, defvjp_argnums, primitive
from hcnn_core.backend import Array

__all__ = ["solve_banded", "solve_sylvester", "solve_triangular", "sqrtm"]


def solve_triangular(
    a: Array,
    b: Array,
    trans: int | str = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Array:
    """Return the solution of a triangular system of equations, as `scipy.linalg.solve_triangular`.

    The triangle that is not read has the gradient 0. Nothing is overwritten.
    """
    a, b = as_array(a, b), as_array(b, a)
    if trans in (1, "T", 2, "C"):
        a, lower = swap(np.conj(a) if trans in (2, "C") else a), not lower
    return _triangular(a, b, lower, unit_diagonal, check_finite)


@primitive
def _triangular(a: Array, b: Array, lower: bool, unit_diagonal: bool, check_finite: bool) -> Array:
    return scipy.linalg.solve_triangular(a, b, lower=lower, unit_diagonal=unit_diagonal, check_finite=check_finite)


def _triangular_vjp(argnums: tuple[int, ...], ans: Array, args: Any, kwargs: Any) -> Any:
    a, b, lower, unit_diagonal, check_finite = args

    def pullback(g: Array) -> list[Array]:
        column = _triangular(swap(a), g, not lower, unit_diagonal, check_finite)
        product = np.outer(column, ans) if np.ndim(b) == 1 else column @ swap(ans)
        triangle = (np.tril if lower else np.triu)(product, 0 if not unit_diagonal else -1 if lower else 1)
        return [column if argnum else -triangle for argnum in argnums]

    return pullback


defvjp_argnums(_triangular, _triangular_vjp)


def solve_banded(
    l_and_u: tuple[int, int],
    ab: Array,
    b: Array,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Array:
    """Return the solution of a banded system of equations, as `scipy.linalg.solve_banded`.

    What is in no matrix has the gradient 0. Nothing is overwritten.
    """
    return _banded(as_array(ab, b), as_array(b, ab), tuple(l_and_u), check_finite)


@primitive
def _banded(ab: Array, b: Array, l_and_u: tuple[int, int], check_finite: bool) -> Array:
    return scipy.linalg.solve_banded(l_and_u, ab, b, check_finite=check_finite)


def _banded_vjp(argnums: tuple[int, ...], ans: Array, args: Any, kwargs: Any) -> Any:
    ab, b, (lower, upper), check_finite = args
    n = np.shape(ab)[1]
    offsets = range(-upper, lower + 1)  # row minus column, of each diagonal

    def pullback(g: Array) -> list[Array]:
        transposed = np.stack([np.roll(ab[upper + d], d) for d in reversed(offsets)])
        column = _banded(transposed, g, (upper, lower), check_finite)
        return [column if argnum else -np.stack([diagonal(column, d) for d in offsets]) for argnum in argnums]

    def diagonal(column: Array, d: int) -> Array:
        """Return the gradient of a diagonal but for its sign, with zeros where it ends."""
        products = np.roll(column, -d, 0) * ans
        inside = (np.arange(n) + d >= 0) & (np.arange(n) + d < n)
        return np.where(inside, products if np.ndim(b) == 1 else np.sum(products, axis=1), 0)

    return pullback


defvjp_argnums(_banded, _banded_vjp)


@primitive
def _sylvester(a: Array, b: Array, q: Array) -> Array:
    return scipy.linalg.solve_sylvester(a, b, q)


def _sylvester_vjp(argnums: tuple[int, ...], ans: Array, args: Any, kwargs: Any) -> Any:
    a, b, _ = args

    def pullback(g: Array) -> list[Array]:
        s = _sylvester(swap(a), swap(b), g)
        cotangents = {0: lambda: -s @ swap(ans), 1: lambda: -swap(ans) @ s, 2: lambda: s}
        return [cotangents[argnum]() for argnum in argnums]

    return pullback


defvjp_argnums(_sylvester, _sylvester_vjp)


def solve_sylvester(a: Array, b: Array, q: Array) -> Array:
    """Return the solution x of a x + x b = q, as `scipy.linalg.solve_sylvester`."""
    return _sylvester(a, b, q)


_sqrtm = primitive(lambda a: scipy.linalg.sqrtm(a))
defvjp(_sqrtm, lambda ans, a: lambda g: _sylvester(swap(ans), swap(ans), g))


def sqrtm(a: Array) -> Array:
    """Return the matrix whose square is `a`, as `scipy.linalg.sqrtm`.

    The principal root of a matrix without eigenvalues on the negative real axis or at zero.
    """
    return _sqrtm(a)


def __getattr__(name: str) -> Any:
    return getattr(scipy.linalg, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(scipy.linalg)})
