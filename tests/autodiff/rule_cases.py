"""Functions that call one NumPy function each, and arguments at which they are smooth: a row or more for every rule."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special as sp

from autodiff import getval

RNG = np.random.default_rng(20170)


class Case(NamedTuple):
    """A function that calls one NumPy function, and arguments at which it is smooth."""

    function: Any
    call: Callable[..., Any]
    args: tuple[Any, ...]


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape)


def cplx(*shape: int) -> np.ndarray[Any, Any]:
    return normal(*shape) + 1j * normal(*shape)


def between(low: float, high: float, *shape: int) -> np.ndarray[Any, Any]:
    return RNG.uniform(low, high, shape)


def spaced(*shape: int) -> np.ndarray[Any, Any]:
    """Numbers no two of which are near each other, none of them near zero or an integer."""
    return RNG.permutation(np.arange(1, np.prod(shape) + 1)).reshape(shape) * 0.37 - 1.5


def well_conditioned(*shape: int) -> np.ndarray[Any, Any]:
    return normal(*shape) + 4 * np.eye(shape[-1])


def chosen(a: Any) -> Any:
    """Where some elements of each row are, as a mask of the library of a."""
    return np.cos(np.real(getval(a))) > -0.5


def symmetric(n: int) -> np.ndarray[Any, Any]:
    a = normal(n, n)
    return a + a.T


def positive(*shape: int | Any) -> np.ndarray[Any, Any]:
    """Hermitian positive definite matrices, drawn with `cplx` where that is given last."""
    draw = shape[-1] if callable(shape[-1]) else normal
    lengths = shape[:-1] if callable(shape[-1]) else shape
    a = draw(*lengths, lengths[-1])
    return a @ np.conj(np.swapaxes(a, -1, -2)) + np.eye(lengths[-1])


def spectral(f: Any, values: Any, vectors: Any) -> Any:
    """A function of a Hermitian matrix, which does not depend on the phases of its eigenvectors."""
    return (vectors * np.expand_dims(f(values), -2)) @ np.conj(np.swapaxes(vectors, -1, -2))


def rescaled(u: Any, s: Any, vh: Any) -> Any:
    """Singular vectors put together with other values; their phases cancel."""
    return (u * np.expand_dims(s**3, -2)) @ vh


MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, True, False]])
X, Y, POSITIVE, UNIT = normal(3, 4), normal(3, 4), between(0.5, 2, 3, 4), between(-0.8, 0.8, 3, 4)
Z, Z2 = cplx(3, 4), cplx(3, 4)
T3 = normal(2, 3, 4)

CASES = [
    *(Case(f, f, (X,)) for f in (np.negative, np.positive, np.exp, np.expm1, np.exp2, np.square, np.sin, np.cos)),
    *(Case(f, f, (X,)) for f in (np.arctan, np.sinh, np.cosh, np.tanh, np.arcsinh, np.conjugate, np.real, np.imag)),
    *(Case(f, f, (POSITIVE,)) for f in (np.log, np.log1p, np.log2, np.log10, np.sqrt, np.reciprocal)),
    *(Case(f, f, (UNIT,)) for f in (np.tan, np.arcsin, np.arccos, np.arctanh)),
    *(Case(f, f, (spaced(3, 4),)) for f in (np.absolute, np.fabs)),
    Case(np.arccosh, np.arccosh, (POSITIVE + 1,)),
    *(Case(f, f, (Z,)) for f in (np.negative, np.positive, np.exp, np.expm1, np.exp2, np.log, np.log1p, np.log2)),
    *(Case(f, f, (Z,)) for f in (np.log10, np.sqrt, np.square, np.reciprocal, np.sin, np.cos, np.tan, np.arcsin)),
    *(Case(f, f, (Z,)) for f in (np.arccos, np.arctan, np.sinh, np.cosh, np.tanh, np.arcsinh, np.arccosh, np.arctanh)),
    *(Case(f, f, (Z,)) for f in (np.conjugate, np.real, np.imag, np.absolute)),
    # two arguments
    *(Case(f, f, (X, Y)) for f in (np.add, np.subtract, np.multiply, np.maximum, np.minimum, np.fmax, np.fmin)),
    *(Case(f, f, (X, Y)) for f in (np.arctan2, np.hypot, np.logaddexp)),
    *(Case(f, f, (Z, Z2)) for f in (np.add, np.subtract, np.multiply, np.divide, np.power)),
    *(Case(f, f, (X, Z)) for f in (np.add, np.subtract, np.multiply, np.divide)),
    *(Case(f, f, (T3, X[1])) for f in (np.add, np.subtract, np.multiply, np.maximum, np.arctan2, np.logaddexp)),
    *(Case(f, f, (X[:, :1], normal(1, 4))) for f in (np.add, np.multiply, np.minimum, np.hypot)),
    Case(np.divide, np.divide, (X, POSITIVE)),
    Case(np.divide, lambda y: 2 / y, (POSITIVE,)),
    Case(np.remainder, np.remainder, (spaced(3, 4), POSITIVE + 0.06)),
    Case(np.power, np.power, (POSITIVE, X)),
    Case(np.power, lambda x: x**3, (X,)),
    Case(np.power, lambda x: x**2.5, (POSITIVE,)),
    Case(np.power, lambda x: x ** np.float64(-1.5), (POSITIVE,)),
    Case(np.power, lambda x: x**0, (X,)),
    Case(np.power, lambda x: x**1 + x**2, (np.array([0.0, 1.5]),)),
    Case(np.power, lambda x: 2.5**x, (X,)),
    Case(np.where, lambda x, y: np.where(x > 0, x, y), (spaced(3, 4), Y)),
    Case(np.where, lambda x, y: np.where(x > 0, x, y), (spaced(3, 4), normal(4))),
    Case(np.clip, lambda x: np.clip(x, -1, 1), (spaced(3, 4),)),
    Case(np.clip, lambda x, low: x.clip(low, None), (spaced(3, 4), normal(4))),
    Case(np.clip, lambda x: np.clip(x, min=0, max=None), (spaced(3, 4),)),
    # reductions
    *(Case(f, f, (a,)) for f in (np.sum, np.mean, np.prod, np.cumsum) for a in (T3, cplx(2, 3))),
    *(Case(f, lambda a, f=f: f(a, axis=1), (T3,)) for f in (np.sum, np.mean, np.prod, np.max, np.min, np.cumsum)),
    *(Case(np.cumprod, lambda a, axis=axis: np.cumprod(a, axis), (X * MASK,)) for axis in (None, -1)),
    *(
        Case(f, lambda a, f=f, axis=axis: f(np.where(chosen(a), a, np.nan), axis=axis, keepdims=True), (spaced(3, 4),))
        for f in (np.nansum, np.nanmean, np.nanmax, np.nanmin)
        for axis in (None, 1)
    ),
    *(Case(np.compress, lambda a, axis=axis: np.compress([1, 0, 1], a, axis), (X,)) for axis in (None, 0)),
    *(Case(np.add.accumulate, f, (T3,)) for f in (np.add.accumulate, lambda a: np.add.accumulate(a, -1))),
    Case(np.cumulative_sum, lambda a: np.cumulative_sum(a, axis=1), (cplx(2, 3),)),
    *(
        Case(np.cumulative_sum, lambda a: np.cumulative_sum(a, include_initial=True), (a,))
        for a in (X[0], np.array(0.5))
    ),
    *(Case(f, lambda a, f=f: f(a, axis=(0, -1)), (T3,)) for f in (np.sum, np.mean, np.prod, np.amax, np.amin, np.var)),
    *(Case(f, lambda a, f=f: f(a, axis=-2, keepdims=True), (T3,)) for f in (np.sum, np.mean, np.prod, np.max, np.std)),
    *(Case(f, f, (spaced(3, 4),)) for f in (np.max, np.min, np.amax, np.amin, np.var, np.std)),
    Case(np.sum, lambda a: np.sum(a, axis=()), (X,)),
    Case(np.prod, lambda a: np.prod(a, axis=1), (X * MASK,)),
    Case(np.prod, lambda a: np.prod(a, axis=0), (normal(0, 3),)),
    Case(np.var, lambda a: np.var(a, axis=0, ddof=1), (Z,)),
    Case(np.std, lambda a: np.std(a, 1, ddof=1, keepdims=True), (Z,)),
    *(Case(np.linalg.norm, np.linalg.norm, (a,)) for a in (X, Z, T3)),
    Case(np.linalg.norm, lambda x: np.linalg.norm(x, axis=-1, keepdims=True), (T3,)),
    Case(np.linalg.norm, lambda x: np.linalg.norm(x, "fro", axis=(0, 2)), (cplx(2, 3, 4),)),
    Case(np.linalg.norm, lambda x: np.linalg.norm(x, 2, axis=0), (X,)),
    # shapes
    Case(np.reshape, lambda a: np.reshape(a, (4, -1)), (T3,)),
    Case(np.reshape, lambda a: a.reshape(6, 4, order="F"), (T3,)),
    Case(np.ravel, np.ravel, (Z,)),
    Case(np.ravel, lambda a: np.ravel(a, order="F"), (T3,)),
    Case(np.squeeze, np.squeeze, (normal(1, 3, 1),)),
    Case(np.squeeze, lambda a: a.squeeze(0), (normal(1, 3, 1),)),
    Case(np.expand_dims, lambda a: np.expand_dims(a, (0, -1)), (X,)),
    Case(np.transpose, np.transpose, (T3,)),
    Case(np.transpose, lambda a: np.permute_dims(a, (-1, 0, 1)), (T3,)),
    Case(np.transpose, lambda a: a.transpose(1, 2, 0) + a.T.transpose((1, 0, 2)), (normal(3, 3, 3),)),
    Case(np.moveaxis, lambda a: np.moveaxis(a, (0, 1), (-1, 0)), (T3,)),
    Case(np.swapaxes, lambda a: np.swapaxes(a, 0, -1), (T3,)),
    Case(np.broadcast_to, lambda a: np.broadcast_to(a, (2, 3, 4)), (normal(3, 1),)),
    Case(np.flip, np.flip, (T3,)),
    Case(np.flip, lambda a: np.flip(a, (0, 2)), (T3,)),
    Case(np.roll, lambda a: np.roll(a, 5), (X,)),
    Case(np.roll, lambda a: np.roll(a, (1, -2), axis=(0, 1)), (X,)),
    Case(np.tril, lambda a: np.tril(a, 1), (T3,)),
    Case(np.triu, lambda a: np.triu(a, -1), (X,)),
    Case(np.ndarray.astype, lambda a: a.astype(a.dtype), (X,)),
    Case(np.copy, np.copy, (X,)),
    Case(np.tile, lambda a: np.tile(a, 2), (X,)),
    Case(np.tile, lambda a: np.tile(a, (2, 1, 3)), (X,)),
    Case(np.repeat, lambda a: np.repeat(a, 3), (X,)),
    Case(np.repeat, lambda a: np.repeat(a, 2, axis=-1), (T3,)),
    Case(np.repeat, lambda a: np.repeat(a, [2, 0, 3], axis=0), (X,)),
    Case(np.repeat, lambda a: np.repeat(np.sum(a), [3], axis=0), (X,)),
    Case(np.repeat, lambda a: np.repeat(np.sum(a), 2, axis=-1), (X,)),
    Case(np.pad, lambda a: np.pad(a, ((1, 2), (0, 3))), (X,)),
    Case(np.pad, lambda a: np.pad(a, 1, constant_values=2.5), (X,)),
    *(Case(np.pad, lambda a, mode=mode: np.pad(a, (2, 1), mode), (X,)) for mode in ("edge", "reflect", "symmetric")),
    Case(np.pad, lambda a: np.pad(a, ((7, 2), (0, 0)), mode="wrap"), (Z,)),
    Case(np.full_like, lambda a, v: np.full_like(a, v), (X, np.asarray(1.5))),
    # indexing and joining
    Case(operator.getitem, lambda x: x[..., ::-2, None], (T3,)),
    Case(operator.getitem, lambda x: x[[2, 0, 2, 2]], (X,)),
    Case(operator.getitem, lambda x: x[[[0, 1], [1, 1]], :, [0, -1]], (cplx(2, 3, 4),)),
    Case(operator.getitem, lambda x: x[getval(x) > 0], (spaced(3, 4),)),
    Case(np.take, lambda a: np.take(a, [3, 3, 0], axis=-1), (T3,)),
    Case(np.take, lambda a: np.take(a, [[3, 3], [11, 0]]), (X,)),
    Case(np.take, lambda a: np.take(a, 1, 0), (X,)),
    Case(np.take, lambda a: np.take(np.sum(a), [0, 0], axis=-1), (X,)),
    Case(np.diagonal, np.diagonal, (X,)),
    Case(np.diagonal, lambda a: np.diagonal(a, -1, 2, 0), (T3,)),
    Case(np.trace, lambda a: np.trace(a, 1), (T3,)),
    Case(np.trace, np.trace, (T3,)),
    Case(np.concatenate, lambda a, b: np.concat([a, b, 2 * a]), (X, Y)),
    Case(np.concatenate, lambda a, b: np.concatenate((a, b), axis=-1), (X, Z)),
    Case(np.concatenate, lambda a, b: np.concatenate((a, b), axis=None), (X, T3)),
    Case(np.stack, lambda a, b: np.stack([a, b, a], axis=-1), (X, Y)),
    Case(np.vstack, lambda a, b: np.vstack([a, b]), (X, normal(4))),
    Case(np.hstack, lambda a, b: np.hstack([a, b]), (X, normal(3, 1))),
    Case(np.hstack, lambda a, b: np.hstack([a, b]), (normal(3), np.asarray(0.5))),
    Case(np.split, lambda a: np.split(a, 2, axis=-1), (T3,)),
    Case(np.split, lambda a: np.split(a, [1, 1, 5]), (normal(7),)),
    Case(np.split, lambda a: np.split(a, np.int64(3)), (X,)),
    Case(np.concatenate, lambda a, b: np.concatenate((a, b)), (X, T3[0, :1])),
    Case(np.stack, lambda a, b: np.stack((a, b)), (X, Y)),
    Case(operator.getitem, lambda x: x[np.int64(1), ..., np.int32(-1)], (T3,)),
    Case(np.tile, lambda a: np.tile(a, np.array([1, 2])), (X,)),
    # linear algebra
    *(
        Case(np.matmul, np.matmul, (normal(*a), normal(*b)))
        for a, b in [
            ((3,), (3,)),
            ((2, 3), (3, 4)),
            ((3,), (5, 3, 4)),
            ((6, 1, 2, 3), (5, 3, 4)),
        ]
    ),
    Case(np.matmul, np.matmul, (Z, normal(2, 4, 3))),
    *(
        Case(np.dot, np.dot, (normal(*a), normal(*b)))
        for a, b in [((), (3,)), ((3,), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3,)), ((2, 3), (5, 3, 4)), ((3, 2), ())]
    ),
    Case(np.inner, np.inner, (X, T3)),
    Case(np.inner, np.inner, (X, np.asarray(2.0))),
    Case(np.vdot, np.vdot, (Z, Z2)),
    Case(np.vdot, np.vdot, (X, Z2)),
    Case(np.outer, np.outer, (X, normal(2))),
    Case(np.tensordot, np.tensordot, (T3, normal(3, 4, 5))),
    Case(np.tensordot, lambda a, b: np.tensordot(a, b, axes=([0, -1], [1, 0])), (T3, normal(4, 2, 5))),
    Case(np.tensordot, lambda a, b: np.tensordot(a, b, axes=0), (X, normal(2))),
    *(
        Case(np.einsum, lambda *x, s=s, **k: np.einsum(s, *x, **k), tuple(normal(*shape) for shape in shapes))
        for s, *shapes in [
            ("ij,jk->ik", (3, 4), (4, 2)),
            ("iij,jj->i", (3, 3, 2), (2, 2)),
            ("...ij,...jk", (5, 2, 3), (3, 4)),
            ("...i,i...->...", (2, 1, 3), (3, 1, 4)),
            ("i...->...", (3, 2, 4)),
            ("ij,ij->i", (3, 1), (3, 4)),
            ("ij,kj->ik", (3, 4), (2, 1)),
            (" a b , b c , c d -> a d ", (2, 3), (3, 4), (4, 2)),
        ]
    ),
    Case(np.einsum, lambda x: np.einsum("ij,kj,ik", x, x, x[:, :3], optimize=True), (X,)),
    Case(np.einsum, lambda x, z: np.einsum("ij,kj->ik", x, z), (X, Z)),
    *(Case(f, f, (well_conditioned(*shape),)) for f in (np.linalg.inv, np.linalg.det) for shape in ((3, 3), (2, 3, 3))),
    Case(np.linalg.inv, np.linalg.inv, (well_conditioned(3, 3) + 1j * normal(3, 3),)),
    *(
        Case(np.linalg.solve, np.linalg.solve, (well_conditioned(*a), normal(*b)))
        for a, b in [((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (3,)), ((2, 3, 3), (3, 2)), ((3, 3), (2, 3, 2))]
    ),
    # elementwise, what HIPS autograd has besides
    *(Case(f, f, (X,)) for f in (np.deg2rad, np.rad2deg, np.radians, np.degrees, np.nan_to_num)),
    Case(np.sinc, np.sinc, (spaced(3, 4),)),
    Case(np.sinc, np.sinc, (np.array([0.0, 0.03, -0.07, 0.0999, -0.1001, 1e-9, 2.0]),)),
    Case(np.angle, np.angle, (Z,)),
    Case(np.angle, lambda z: np.angle(z, deg=True), (Z,)),
    Case(np.real_if_close, np.real_if_close, (Z,)),
    Case(np.real_if_close, np.real_if_close, (X,)),
    Case(np.ldexp, lambda x: np.ldexp(x, 3), (X,)),
    Case(np.logaddexp2, np.logaddexp2, (X, Y)),
    Case(np.power, lambda x: x ** [1, 2, 3, 0], (POSITIVE,)),
    Case(np.multiply, lambda x: [1.0, 2.0, 3.0, 4.0] * x + np.multiply(x, (4, 3, 2, 1)), (X,)),
    Case(np.array, lambda x: x * [x[0, 0], 2.0, x[1, 1], x[0, 2]], (X,)),
    Case(np.array, lambda x: np.array([[x[0, 0], 1.0], [x[1, 1] ** 2, 2]], like=x), (X,)),
    Case(np.array, lambda x, y: np.array([x, y], like=x), (X, Y)),
    Case(np.array, lambda x: np.array(x, ndmin=3, like=x), (X,)),
    *(
        Case(f, lambda x, f=f: f([x[0], x[1]], like=x), (X,))
        for f in (np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray)
    ),
    # reductions
    *(
        Case(f, lambda a, f=f: f(a, where=a > 1, initial=1.7), (spaced(3, 4),))
        for f in (np.sum, np.prod, np.max, np.min)
    ),
    *(Case(f, lambda a, f=f: f(a, 1, initial=0.7), (spaced(3, 4),)) for f in (np.sum, np.prod, np.amax, np.amin)),
    *(
        Case(f, lambda a, f=f: f(a, 1, where=chosen(a), keepdims=True), (spaced(3, 4),))
        for f in (np.sum, np.mean, np.var, np.prod)
    ),
    *(Case(f, lambda a, f=f: f(a, where=chosen(a)), (cplx(3, 4),)) for f in (np.sum, np.mean, np.var, np.std)),
    *(Case(f, f, (spaced(3, 4),)) for f in (np.ptp, np.median)),
    *(Case(f, lambda a, f=f: f(a, axis=0), (spaced(2, 3, 4),)) for f in (np.ptp, np.median)),
    Case(np.ptp, lambda a: np.ptp(a, -1, keepdims=True), (spaced(3, 4),)),
    Case(np.median, lambda a: np.median(a, (0, 2), keepdims=True), (spaced(2, 3, 4),)),
    Case(np.median, lambda a: np.median(a, -1), (spaced(3, 5),)),
    Case(np.quantile, lambda a: np.quantile(a, 0.3, axis=1), (spaced(3, 4),)),
    Case(
        np.quantile, lambda a: np.quantile(a, [[0.0, 1.0], [0.5, 0.9]], axis=(0, 2), keepdims=True), (spaced(2, 3, 4),)
    ),
    Case(np.quantile, lambda a: np.quantile(a, 0.5), (normal(1),)),
    Case(np.average, np.average, (X,)),
    Case(np.average, lambda a: np.average(a, 1, weights=[1, 2, 3, 4]), (X,)),
    Case(np.average, lambda a, w: np.average(a, weights=w, returned=True), (X, POSITIVE)),
    Case(np.average, lambda a, w: np.average(a, (2, 0), weights=w, keepdims=True), (T3, between(1, 2, 4, 2))),
    Case(np.average, lambda w: np.average(X.tolist(), 0, w), (POSITIVE,)),
    # shapes
    *(Case(f, f, (X,)) for f in (np.fliplr, np.flipud, np.matrix_transpose)),
    Case(np.rollaxis, lambda a: np.rollaxis(a, 2), (T3,)),
    Case(np.rollaxis, lambda a: np.rollaxis(a, 0, 2), (T3,)),
    Case(np.rollaxis, lambda a: np.rollaxis(a, -1, -2), (T3,)),
    *(Case(np.rot90, lambda a, k=k: np.rot90(a, k), (X,)) for k in (-1, 0, 1, 2, 3)),
    Case(np.rot90, lambda a: np.rot90(a, axes=(2, 0)), (T3,)),
    Case(np.matrix_transpose, lambda a: a.mT, (T3,)),
    # indexing
    Case(np.take_along_axis, lambda a: np.take_along_axis(a, np.argsort(a, 1), 1), (spaced(2, 3, 4),)),
    Case(np.sort, np.sort, (spaced(3, 4),)),
    Case(np.sort, lambda a: np.sort(a, axis=0, kind="stable"), (spaced(2, 3, 4),)),
    Case(np.sort, lambda a: np.sort(a, axis=None), (spaced(3, 4),)),
    Case(np.partition, lambda a: np.partition(a, 2), (spaced(3, 4),)),
    Case(np.partition, lambda a: np.partition(a, (1, 3), axis=None), (spaced(3, 4),)),
    Case(np.diag, np.diag, (X,)),
    Case(np.diag, lambda a: np.diag(a, -1), (X,)),
    Case(np.diag, lambda a: np.diag(a, 2), (normal(3),)),
    Case(np.diag, lambda a: np.diag(a, -1), (cplx(3),)),
    Case(np.diff, np.diff, (X,)),
    Case(np.diff, lambda a: np.diff(a, 2, axis=0, prepend=0), (T3,)),
    Case(np.diff, lambda a, b: np.diff(a, append=b), (X, normal(3, 2))),
    Case(np.gradient, np.gradient, (normal(4, 5),)),
    Case(np.gradient, lambda a: np.gradient(a, 0.5, axis=-1, edge_order=2), (T3,)),
    Case(np.gradient, lambda a: np.gradient(a, 2, 0.1), (X,)),
    Case(np.gradient, np.gradient, (cplx(2),)),
    Case(np.trace, lambda a: np.trace(a, dtype=np.complex128), (X,)),
    # joining
    Case(np.append, np.append, (X, normal(2))),
    Case(np.append, lambda a: np.append(a, [[1, 2, 3, 4.0]], axis=0), (X,)),
    Case(np.concatenate, lambda a: np.concatenate([a, [1.0, 2.0]], dtype=np.complex128), (normal(3),)),
    Case(np.column_stack, lambda a, b: np.column_stack([a, b]), (X, normal(3))),
    Case(np.dstack, lambda a, b: np.dstack([a, b]), (X, X)),
    Case(np.dstack, lambda a, b: np.dstack((a, b)), (normal(3), T3[:1, :, 1])),
    Case(np.hstack, lambda a: np.hstack([a, a], dtype=np.complex128, casting="safe"), (X,)),
    Case(np.vstack, lambda a: np.vstack([a, [1.0, 2.0, 3.0, 4.0]]), (X,)),
    *(
        Case(f, f, (normal(*shape),))
        for f in (np.atleast_1d, np.atleast_2d, np.atleast_3d)
        for shape in ((), (3,), (2, 3))
    ),
    Case(np.atleast_2d, lambda a, b: np.atleast_2d(a, b), (normal(3), X)),
    Case(np.broadcast_arrays, lambda a, b: np.broadcast_arrays(a, b), (X, normal(4))),
    Case(np.array_split, lambda a: np.array_split(a, 3, axis=1), (X,)),
    Case(np.array_split, lambda a: np.array_split(a, [1, 2]), (X,)),
    Case(np.hsplit, lambda a: np.hsplit(a, 2), (X,)),
    Case(np.hsplit, lambda a: np.hsplit(a, 2), (normal(4),)),
    Case(np.vsplit, lambda a: np.vsplit(a, [1]), (X,)),
    Case(np.dsplit, lambda a: np.dsplit(a, 2), (T3,)),
    Case(np.linspace, lambda a, b: np.linspace(a, b, 5), (X, Y)),
    Case(np.linspace, lambda a: np.linspace(a, 2, 4, endpoint=False, retstep=True), (X,)),
    Case(np.linspace, lambda a: np.linspace(0, a, axis=-1), (normal(2),)),
    # products
    Case(np.kron, np.kron, (X, normal(2, 3))),
    Case(np.kron, np.kron, (normal(2), T3)),
    Case(np.cross, np.cross, (normal(4, 3), normal(3))),
    Case(np.cross, lambda a, b: np.cross(a, b, axisa=0, axisc=0), (normal(3, 4), normal(4, 3))),
    *(
        Case(np.convolve, lambda a, v, mode=mode: np.convolve(a, v, mode), (normal(m), normal(n)))
        for mode in ("full", "same", "valid")
        for m, n in ((5, 3), (3, 6), (4, 4))
    ),
    Case(np.dot, lambda a: np.dot(a, 2.0) + np.dot(3, a), (X,)),
    Case(np.dot, lambda a: np.dot(a, [1.0, 2.0, 3.0, 4.0]), (X,)),
    Case(np.inner, lambda a: np.inner(a, 2.0), (X,)),
    Case(np.outer, lambda a: np.outer([1.0, 2.0], a), (X,)),
    Case(np.einsum, lambda a, b: np.einsum(a, [0, 1], b, [1, 2], [2, 0]), (X, normal(4, 2))),
    Case(np.einsum, lambda a: np.einsum(a, [..., 1, 1]), (normal(2, 3, 3),)),
    # linear algebra
    Case(np.linalg.det, np.linalg.det, (normal(3, 2) @ normal(2, 3),)),
    Case(np.linalg.det, np.linalg.det, (np.stack([np.diag([2.0, 0.0, 3.0]), well_conditioned(3, 3)]),)),
    *(
        Case(np.linalg.slogdet, lambda a: (lambda sign, log: (sign * log, log))(*np.linalg.slogdet(a)), (a,))
        for a in (well_conditioned(3, 3), well_conditioned(2, 3, 3), well_conditioned(2, 3, 3) + 1j * normal(3, 3))
    ),
    *(Case(np.linalg.pinv, np.linalg.pinv, (a,)) for a in (normal(4, 3), normal(2, 3, 4), cplx(3, 2), cplx(2, 3))),
    *(Case(np.linalg.cholesky, np.linalg.cholesky, (a,)) for a in (positive(3), positive(2, 3), positive(3, cplx))),
    Case(np.linalg.cholesky, lambda a: np.linalg.cholesky(a, upper=True), (positive(3),)),
    *(
        Case(np.linalg.eigh, lambda a, side=side: np.linalg.eigh(a, side), (a,))
        for side in "LU"
        for a in (normal(4, 4), normal(2, 3, 3))
    ),
    Case(np.linalg.eigh, lambda a: spectral(np.sin, *np.linalg.eigh(a)), (cplx(3, 3),)),
    Case(np.linalg.eigvalsh, np.linalg.eigvalsh, (cplx(3, 3),)),
    *(
        Case(np.linalg.eig, lambda a: np.abs(np.linalg.eig(a)[1]), (a,))
        for a in (symmetric(3), normal(2, 4, 4), cplx(3, 3))
    ),
    *(
        Case(np.linalg.svd, lambda a: np.linalg.svd(a, full_matrices=False), (a,))
        for a in (normal(4, 3), normal(2, 3, 4))
    ),
    Case(np.linalg.svd, np.linalg.svd, (normal(3, 3),)),
    *(Case(np.linalg.svd, lambda a: np.linalg.svd(a, compute_uv=False), (a,)) for a in (X, cplx(4, 2))),
    *(
        Case(np.linalg.svd, lambda a: rescaled(*np.linalg.svd(a, full_matrices=False)), (a,))
        for a in (cplx(4, 3), cplx(3, 4))
    ),
    *(Case(np.linalg.norm, lambda x, p=p: np.linalg.norm(x, p, axis=1), (spaced(3, 4),)) for p in (1, 3, 2.5, -1.5)),
    *(Case(np.linalg.norm, lambda x, p=p: np.linalg.norm(x, p, 0, keepdims=True), (Z,)) for p in (np.inf, -np.inf, 3)),
    *(Case(np.linalg.norm, lambda x, p=p: np.linalg.norm(x, p), (X,)) for p in ("nuc", 2, -2, 1, -1, np.inf, -np.inf)),
    Case(np.linalg.norm, lambda x: np.linalg.norm(x, "nuc", axis=(0, 2), keepdims=True), (T3,)),
    Case(np.linalg.solve, lambda a: np.linalg.solve(a, [1.0, 2.0, 3.0]), (well_conditioned(3, 3),)),
    # special functions
    *(Case(f, f, (X,)) for f in (sp.erf, sp.erfc, sp.erfcx, sp.dawsn, sp.ndtr, sp.log_ndtr, sp.expit, sp.log_expit)),
    *(Case(f, f, (X,)) for f in (sp.expm1, sp.exp2, sp.exp10, sp.cosm1, sp.j0, sp.j1, sp.i0, sp.i1)),
    *(Case(f, f, (spaced(3, 4),)) for f in (sp.i0e, sp.i1e, sp.cbrt)),
    *(Case(f, f, (POSITIVE,)) for f in (sp.log1p, sp.exp1, sp.expi, sp.entr, sp.y0, sp.y1, sp.k0, sp.k1)),
    *(Case(f, f, (POSITIVE + 1,)) for f in (sp.gammaln, sp.loggamma, sp.gamma, sp.rgamma, sp.psi)),
    *(Case(f, f, (between(0.2, 0.8, 3, 4),)) for f in (sp.erfinv, sp.ndtri, sp.logit)),
    Case(sp.erfcinv, sp.erfcinv, (between(0.5, 1.5, 3, 4),)),
    *(Case(f, f, (POSITIVE, POSITIVE[::-1] + 1)) for f in (sp.rel_entr, sp.kl_div, sp.xlogy, sp.xlog1py)),
    *(Case(f, f, (POSITIVE + 1, POSITIVE[1] + 2)) for f in (sp.beta, sp.betaln)),
    Case(sp.betainc, lambda x: sp.betainc(1.5, 2.5, x), (between(0.2, 0.8, 3, 4),)),
    Case(sp.betaincinv, lambda y: sp.betaincinv(1.5, 2.5, y), (between(0.2, 0.8, 3, 4),)),
    *(Case(f, lambda x, f=f: f(1.5, x), (POSITIVE,)) for f in (sp.gammainc, sp.gammaincc)),
    *(Case(f, lambda y, f=f: f(1.5, y), (between(0.2, 0.8, 3, 4),)) for f in (sp.gammaincinv, sp.gammainccinv)),
    *(Case(f, lambda x, f=f: f(2, x), (POSITIVE + 1,)) for f in (sp.jv, sp.jn, sp.yv, sp.yn, sp.iv, sp.kv, sp.ive)),
    # Fourier transforms
    *(
        Case(f, lambda x, f=f, n=n, norm=norm: f(x, n, norm=norm), (x,))
        for f, x in (
            (np.fft.fft, X),
            (np.fft.fft, Z),
            (np.fft.ifft, Z),
            (np.fft.rfft, X),
        )
        for n, norm in ((None, None), (3, "ortho"), (7, "forward"))
    ),
    *(
        Case(np.fft.irfft, lambda x, n=n, norm=norm: np.fft.irfft(x, n, norm=norm), (x,))
        for x in (X, Z)
        for n, norm in ((None, None), (7, "ortho"), (4, "forward"), (1, None))
    ),
    *(Case(f, lambda x, f=f: f(x, axis=0), (Z,)) for f in (np.fft.fft, np.fft.ifft, np.fft.irfft)),
    *(Case(f, f, (cplx(2, 3, 4),)) for f in (np.fft.fft2, np.fft.ifft2, np.fft.irfft2, np.fft.fftn, np.fft.irfftn)),
    *(Case(f, f, (T3,)) for f in (np.fft.rfft2, np.fft.rfftn, np.fft.ifftn, np.fft.fftshift, np.fft.ifftshift)),
    *(
        Case(f, lambda x, f=f: f(x, s=(5, 3), axes=(2, 0), norm="ortho"), (x,))
        for f, x in ((np.fft.fftn, T3), (np.fft.ifft2, T3), (np.fft.rfftn, T3), (np.fft.irfftn, cplx(2, 3, 4)))
    ),
    Case(np.fft.fftshift, lambda x: np.fft.fftshift(x, axes=1), (X,)),
    Case(np.fft.ifftshift, lambda x: np.fft.ifftshift(x, (0, -1)), (T3,)),
    Case(np.astype, lambda x: np.astype(x, np.float64), (X,)),
]
