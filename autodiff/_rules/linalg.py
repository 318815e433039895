"""Derivatives of numpy.linalg: inverses, determinants, norms, decompositions.

A cotangent here is the conjugate of the gradient of the books (see autodiff.tape), so the rules of decompositions,
which are published for the gradient, stand between two conjugations. Sources: Giles, "Collected matrix derivative
results for forward and reverse mode algorithmic differentiation" (2008); Murray, arXiv:1602.07527 (Cholesky); Wan and
Zhang, arXiv:1909.02659 (complex SVD); Golub and Pereyra (1973) (pseudoinverse).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from autodiff._rules.products import swap
from autodiff._rules.table import (
    Shape,
    as_array,
    axes_of,
    composite,
    constant,
    kept,
    nonzero,
    over_norm,
    rule,
)
from autodiff.functional import vjp
from autodiff.tape import defvjp, defvjp_argnums, getval, primitive
from hcnn_core.backend import Array, moveaxis

RESULTS: dict[str, Any] = {
    name: type(getattr(np.linalg, name)(np.eye(1))) for name in ("eigh", "eig", "svd", "slogdet")
}
"""The named tuples that decompositions return."""


def adjoint(x: Array) -> Array:
    """Return the matrices x, transposed and conjugated."""
    return swap(np.conj(x)) if np.iscomplexobj(x) else swap(x)


def diagonals(x: Array) -> Array:
    """Square matrices with the vectors x on their diagonals."""
    return np.expand_dims(x, -1) * constant(np.eye(np.shape(x)[-1], dtype=x.dtype), x)


def _identity(x: Array) -> Array:
    """Return the identity of the size and dtype of the square matrices x."""
    return constant(np.eye(np.shape(x)[-1], dtype=x.dtype), x)


# Inverses and determinants


def solve_vjp(argnums: Shape, ans: Array, args: Any, kwargs: Any) -> Any:
    a, vector = args[0], np.ndim(args[1]) == 1

    def pullback(g: Array) -> Iterable[Array]:
        column = np.linalg.solve(swap(a), np.expand_dims(g, -1) if vector else g)
        row = np.expand_dims(ans, -2) if vector else swap(ans)
        rhs = np.squeeze(column, -1) if vector else column
        return [rhs if argnum else -column @ row for argnum in argnums]

    return pullback


_solve = primitive(np.linalg.solve)
defvjp_argnums(_solve, solve_vjp)
composite(np.linalg.solve)(lambda a, b: _solve(as_array(a, b), as_array(b, a)))
rule(np.linalg.inv, lambda ans, a: lambda g: -swap(ans) @ g @ swap(ans))


def det_vjp(ans: Array, a: Array) -> Any:
    return lambda g: np.expand_dims(g, (-2, -1)) * swap(_adjugate(ans, a))


rule(np.linalg.det, det_vjp)


def _adjugate(det: Array, a: Array) -> Array:
    """Return the adjugate, det(a) inv(a); of a singular matrix, the polynomial in the elements of a that it is."""
    return _singular_adjugate(a) if _near_singular(getval(a)) else np.expand_dims(det, (-2, -1)) * np.linalg.inv(a)


def _near_singular(a: Array) -> bool:
    """Whether a finite matrix has no inverse, or one that has lost half of its digits."""
    if a.size == 0 or not np.all(np.isfinite(a)):
        return False
    try:
        inverse = np.linalg.inv(a)
    except np.linalg.LinAlgError:
        return True
    condition = np.max(np.abs(a), axis=(-2, -1)) * np.max(np.abs(inverse), axis=(-2, -1))
    return not np.all(condition < np.finfo(a.dtype).eps ** -0.5)


@primitive
def _singular_adjugate(a: Array) -> Array:
    """From a = u s vh: det(u vh) v adj(s) uh, where adj(s) needs no division."""
    u, s, vh = np.linalg.svd(a)
    others = np.expand_dims(s, -2) * (1 - _identity(u).real) + _identity(u).real
    return np.expand_dims(np.linalg.det(u @ vh), (-2, -1)) * (
        (adjoint(vh) * np.expand_dims(np.prod(others, axis=-1), -2)) @ adjoint(u)
    )


defvjp(_singular_adjugate, lambda ans, a: lambda g: vjp(_cofactors, a)[1](g)[0])


def _cofactors(a: Array) -> Array:
    """Return the adjugate by its minors, for second derivatives at singular matrices: n^5 operations, n^4 numbers."""
    n = np.shape(a)[-1]
    if n == 1:
        return np.ones_like(a) + 0 * a
    rest = np.array([[j for j in range(n) if j != i] for i in range(n)])
    rows = rest[:, None, :, None] + np.zeros((n, n, n - 1, n - 1), int)
    columns = rest[None, :, None, :] + np.zeros((n, n, n - 1, n - 1), int)
    signs = constant((-1.0) ** np.add.outer(np.arange(n), np.arange(n)), a).astype(a.dtype)
    return swap(np.linalg.det(a[..., rows.tolist(), columns.tolist()]) * signs)


@composite(np.linalg.slogdet)
def slogdet(a: Array) -> Any:
    sign = _sign_of_det(a) if np.iscomplexobj(a) else np.linalg.slogdet(getval(a))[0]
    return RESULTS["slogdet"](sign, _log_of_det(a))


_log_of_det = primitive(lambda a: np.linalg.slogdet(a)[1])
_sign_of_det = primitive(lambda a: np.linalg.slogdet(a)[0])
defvjp(_log_of_det, lambda ans, a: lambda g: np.expand_dims(g, (-2, -1)) * swap(np.linalg.inv(a)))
defvjp(
    _sign_of_det,
    lambda ans, a: lambda g: np.expand_dims(-1j * np.real(1j * g * ans), (-2, -1)) * swap(np.linalg.inv(a)),
)


def pinv_vjp(ans: Array, a: Array, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    def pullback(g: Array) -> Array:
        g, p, ph = np.conj(g), ans, adjoint(ans)
        outside = (g - g @ a @ p, g - p @ a @ g)  # what the projections on the range and the kernel leave
        result = -ph @ g @ ph + adjoint(p @ ph @ outside[0]) + adjoint(outside[1] @ ph @ p)
        return np.conj(result)

    return pullback


@composite(np.linalg.pinv)
def pinv(a: Array, rcond: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Array:
    a, cutoff = hermitian_from(a, "L") if hermitian else a, rcond if rtol is None else rtol
    if cutoff is None:
        return _pinv(a, None)
    sizes = np.linalg.svd(getval(a), compute_uv=False)
    large = sizes > np.expand_dims(np.asarray(cutoff, like=sizes), -1) * np.max(sizes, axis=-1, keepdims=True)
    if np.all(large):
        return _pinv(a, cutoff)
    # what the cutoff removes is not in the inverse, but its directions move with a: the derivative is that of the SVD
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    inverse = np.where(large, 1 / np.where(large, s, 1), 0)
    return (swap(vh).conj() * np.expand_dims(inverse, -2)) @ swap(u).conj()


_pinv = primitive(lambda a, rcond: np.linalg.pinv(a) if rcond is None else np.linalg.pinv(a, rcond))
defvjp(_pinv, pinv_vjp)


# Decompositions


def hermitian_from(a: Array, triangle: str) -> Array:
    """Return the Hermitian matrix of the one triangle of a that LAPACK reads."""
    if triangle not in ("L", "U"):
        raise ValueError(f"UPLO is {triangle!r}; it is 'L' or 'U'")
    off = np.tril(a, -1) if triangle == "L" else np.triu(a, 1)
    diagonal = np.diagonal(a, 0, -2, -1)
    return off + adjoint(off) + diagonals(np.real(diagonal) if np.iscomplexobj(a) else diagonal)


def _differences(x: Array) -> Array:
    """Return x_j - x_i, with 1 on the diagonal; differences of equal values, where no derivative is, are NaN."""
    identity = constant(np.eye(np.shape(x)[-1], dtype=x.dtype), x)
    differences = np.expand_dims(x, -2) - np.expand_dims(x, -1) + identity
    return np.where(differences == 0, np.nan, differences)


def _off_diagonal(x: Array) -> Array:
    """Return the matrices x with zeros on their diagonals."""
    return x * (1 - _identity(x))


def cholesky_vjp(ans: Array, a: Array) -> Any:
    def pullback(g: Array) -> Array:
        lower, identity = ans, _identity(getval(ans))
        inner = np.tril(adjoint(lower) @ np.conj(g)) * (1 - identity / 2)
        inverse = np.linalg.inv(lower)
        result = adjoint(inverse) @ inner @ inverse
        return np.conj(result + adjoint(result)) / 2

    return pullback


_cholesky = primitive(np.linalg.cholesky)
defvjp(_cholesky, cholesky_vjp)


@composite(np.linalg.cholesky)
def cholesky(a: Array, /, *, upper: bool = False) -> Array:
    lower = _cholesky(hermitian_from(a, "U" if upper else "L"))
    return adjoint(lower) if upper else lower


def eigh_vjp(argnums: Shape, ans: Any, args: Any, kwargs: Any) -> Any:
    values, vectors = ans

    def pullback(g: dict[int, Array]) -> Iterable[Array]:
        inner = None
        if 1 in g:
            inner = _off_diagonal(adjoint(vectors) @ np.conj(g[1])) / _differences(values)
        if 0 in g:
            inner = diagonals(g[0]) if inner is None else inner + diagonals(g[0])
        result = vectors @ inner @ adjoint(vectors)
        return [np.conj(result + adjoint(result)) / 2]

    return pullback


_eigh = primitive(lambda a, triangle: tuple(np.linalg.eigh(a, triangle)))
defvjp_argnums(_eigh, eigh_vjp)


@composite(np.linalg.eigh)
def eigh(a: Array, UPLO: str = "L") -> Any:
    return RESULTS["eigh"](*_eigh(hermitian_from(a, UPLO.upper()), UPLO))


@composite(np.linalg.eigvalsh)
def eigvalsh(a: Array, UPLO: str = "L") -> Array:
    return eigh(a, UPLO)[0]


def eig_vjp(argnums: Shape, ans: Any, args: Any, kwargs: Any) -> Any:
    values, vectors = ans

    def pullback(g: dict[int, Array]) -> Iterable[Array]:
        inner = 0
        if 1 in g:
            along = adjoint(vectors) @ np.conj(g[1])
            lengths = np.real(np.diagonal(along, 0, -2, -1))  # vectors keep the length 1
            along = along - (adjoint(vectors) @ vectors) * np.expand_dims(lengths, -2)
            inner = _off_diagonal(along) / np.conj(_differences(values))
        if 0 in g:
            inner = inner + diagonals(np.conj(g[0]))
        return [np.conj(np.linalg.solve(adjoint(vectors), inner @ adjoint(vectors)))]

    return pullback


_eig = primitive(lambda a: tuple(np.linalg.eig(a)))
defvjp_argnums(_eig, eig_vjp)


@composite(np.linalg.eig)
def eig(a: Array) -> Any:
    return RESULTS["eig"](*_eig(a))


def svd_vjp(argnums: Shape, ans: Any, args: Any, kwargs: Any) -> Any:
    u, s, vh = ans

    def pullback(g: dict[int, Array]) -> Iterable[Array]:
        v, inner, result = adjoint(vh), 0, 0
        if 0 in g or 2 in g:
            gaps, row = _differences(np.square(s)), np.expand_dims(s, -2)
        if 0 in g:
            gu = np.conj(g[0])
            along = adjoint(u) @ gu
            inner = inner + _off_diagonal(along - adjoint(along)) / gaps * row
            result = result + ((gu - u @ along) / row) @ vh
            if np.iscomplexobj(along):
                inner = inner + diagonals(1j * np.imag(np.diagonal(along, 0, -2, -1)) / s)
        if 2 in g:
            gv = adjoint(np.conj(g[2]))
            along = vh @ gv
            inner = inner + np.expand_dims(s, -1) * (_off_diagonal(along - adjoint(along)) / gaps)
            result = result + (u / row) @ adjoint(gv - v @ along)
        if 1 in g:
            inner = inner + diagonals(g[1])
        return [np.conj(u @ inner @ vh + result)]

    return pullback


_svd = primitive(lambda a: tuple(np.linalg.svd(a, full_matrices=False)))
defvjp_argnums(_svd, svd_vjp)


@composite(np.linalg.svd)
def svd(a: Array, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    if hermitian:
        a = hermitian_from(a, "L")
    if not compute_uv:
        return _svd(a)[1]
    if full_matrices and np.shape(a)[-1] != np.shape(a)[-2]:
        raise TypeError(
            f"numpy.linalg.svd of traced matrices of {np.shape(a)[-2]} by {np.shape(a)[-1]} takes full_matrices=False: "
            "the vectors that fill up the larger basis have no derivative"
        )
    return RESULTS["svd"](*_svd(a))


# Norms


_norm = primitive(np.linalg.norm)


def norm_vjp(ans: Array, x: Array, ord: None, axis: Any, keepdims: bool) -> Any:
    shape = kept(np.shape(x), axis)
    return lambda g: np.reshape(over_norm(g, ans), shape) * np.conj(x)


defvjp(_norm, norm_vjp)


@composite(np.linalg.norm)
def norm(x: Array, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Array:
    axes = axes_of(axis, np.ndim(x))
    if ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2):
        return _norm(x, None, axis, keepdims)
    if len(axes) == 1 and not isinstance(ord, str):
        return _vector_norm(x, ord, axes[0], keepdims)
    if len(axes) != 2:
        raise ValueError(f"numpy.linalg.norm of order {ord!r} is that of vectors or matrices, not of {len(axes)} axes")
    result = _matrix_norm(moveaxis(x, axes, (-2, -1)), ord)
    return np.reshape(result, kept(np.shape(x), axes)) if keepdims else result


def _vector_norm(x: Array, ord: float, axis: int, keepdims: Any) -> Array:
    size = np.abs(x)
    if ord == math.inf:
        return np.max(size, axis=axis, keepdims=keepdims)
    if ord == -math.inf:
        return np.min(size, axis=axis, keepdims=keepdims)
    if ord == 0:
        return np.sum(getval(x) != 0, axis=axis, keepdims=keepdims, dtype=size.dtype)
    total = np.sum(nonzero(size) ** ord * (size != 0) if ord > 0 else size**ord, axis=axis, keepdims=keepdims)
    limit = 0 if ord > 0 else math.inf
    return np.where(total == 0, limit, nonzero(total) ** (1 / ord))  # the zero vector has the subgradient 0


def _matrix_norm(x: Array, ord: Any) -> Array:
    pick: Callable[..., Array] = np.min if not isinstance(ord, str) and ord < 0 else np.max
    if ord == "nuc":
        return np.sum(_svd(x)[1], axis=-1)
    if ord in (2, -2):
        return pick(_svd(x)[1], axis=-1)
    if ord in (1, -1):
        return pick(np.sum(np.abs(x), axis=-2), axis=-1)
    if ord in (math.inf, -math.inf):
        return pick(np.sum(np.abs(x), axis=-1), axis=-1)
    raise ValueError(
        f"numpy.linalg.norm of matrices takes the order 'fro', 'nuc', 1, 2, inf or their negatives, not {ord!r}"
    )
