"""Every derivative of a NumPy function: finite differences, float32, an array library that is not NumPy, ties."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib.mixins import NDArrayOperatorsMixin

from autodiff import check_grads, getval, grad, tree_leaves, tree_map, value_and_grad, vjp
from autodiff.tape import HANDLERS, Primitive, Traced
from hcnn_core.backend import array_namespace, get_namespace, to_numpy

EPS = float(np.finfo(np.float64).eps)
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


MASK = np.array([[True, False, True, True], [False, False, True, False], [True, True, True, False]])
X, Y, POSITIVE, UNIT = normal(3, 4), normal(3, 4), between(0.5, 2, 3, 4), between(-0.8, 0.8, 3, 4)
Z, Z2 = cplx(3, 4), cplx(3, 4)
T3 = normal(2, 3, 4)

CASES = [
    *(Case(f, f, (X,)) for f in (np.negative, np.positive, np.exp, np.expm1, np.exp2, np.square, np.sin, np.cos)),
    *(Case(f, f, (X,)) for f in (np.arctan, np.sinh, np.cosh, np.tanh, np.arcsinh, np.conjugate, np.real, np.imag)),
    *(Case(f, f, (POSITIVE,)) for f in (np.log, np.log1p, np.log2, np.log10, np.sqrt, np.cbrt, np.reciprocal)),
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
    Case(np.pad, lambda a: np.pad(a, ((1, 2), (0, 3))), (X,)),
    Case(np.pad, lambda a: np.pad(a, 1, constant_values=2.5), (X,)),
    *(Case(np.pad, lambda a, mode=mode: np.pad(a, (2, 1), mode), (X,)) for mode in ("edge", "reflect", "symmetric")),
    Case(np.pad, lambda a: np.pad(a, ((7, 2), (0, 0)), mode="wrap"), (Z,)),
    Case(np.full_like, lambda a, v: np.full_like(a, v), (X, np.asarray(1.5))),
    # indexing and joining
    Case(operator.getitem, lambda x: x[1], (X,)),
    Case(operator.getitem, lambda x: x[..., ::-2, None], (T3,)),
    Case(operator.getitem, lambda x: x[0, 1], (Z,)),
    Case(operator.getitem, lambda x: x[[2, 0, 2, 2]], (X,)),
    Case(operator.getitem, lambda x: x[[[0, 1], [1, 1]], :, [0, -1]], (cplx(2, 3, 4),)),
    Case(operator.getitem, lambda x: x[getval(x) > 0], (spaced(3, 4),)),
    Case(np.take, lambda a: np.take(a, [3, 3, 0], axis=-1), (T3,)),
    Case(np.take, lambda a: np.take(a, [[3, 3], [11, 0]]), (X,)),
    Case(np.take, lambda a: np.take(a, 1, 0), (X,)),
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
            ((3,), (3, 2)),
            ((2, 3), (3,)),
            ((2, 3), (3, 4)),
            ((5, 2, 3), (3, 4)),
            ((5, 2, 3), (3,)),
            ((2, 3), (5, 3, 4)),
            ((3,), (5, 3, 4)),
            ((5, 2, 3), (5, 3, 4)),
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
            ("ij,jk", (3, 4), (4, 2)),
            ("ba", (3, 4)),
            ("ij->", (3, 4)),
            ("ij->j", (3, 4)),
            ("ij,j->i", (3, 4), (4,)),
            ("ij,k->i", (3, 4), (2,)),
            ("ii", (3, 3)),
            ("ii->i", (3, 3)),
            ("iij,jj->i", (3, 3, 2), (2, 2)),
            ("iii,i->", (3, 3, 3), (3,)),
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
]  # fmt: skip
for _case in CASES:
    for _arg in _case.args:
        _arg.flags.writeable = False

IDS = [f"{case.function.__name__}-{i}" for i, case in enumerate(CASES)]
every_case = pytest.mark.parametrize("case", CASES, ids=IDS)

PLAIN = {
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal, np.logical_and, np.logical_or),
    *(np.logical_xor, np.logical_not, np.isfinite, np.isinf, np.isnan, np.signbit, np.floor, np.ceil, np.rint),
    *(np.trunc, np.round, np.around, np.floor_divide, np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero),
    *(np.searchsorted, np.all, np.any, np.allclose, np.isclose, np.array_equal, np.zeros_like, np.ones_like),
    *(np.empty_like, np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj, np.isrealobj, np.sign),
}
TWO_ARGUMENTS = {np.floor_divide, np.searchsorted, np.allclose, np.isclose, np.array_equal}


def cotangent(out: Any) -> Any:
    """A cotangent of an output, in its dtype and namespace, the same for every library."""
    rng = np.random.default_rng(1)

    def draw(leaf: Any) -> Any:
        g = rng.standard_normal(leaf.shape) + 1j * rng.standard_normal(leaf.shape)
        g = (g if leaf.dtype.kind == "c" else g.real).astype(leaf.dtype)
        return array_namespace(leaf).asarray(g)

    return tree_map(draw, out)


def derivatives(call: Callable[..., Any], args: tuple[Any, ...]) -> tuple[list[Any], list[Any], list[Any]]:
    """Values, cotangents, and cotangents of the map to cotangents, at one random cotangent each."""
    out, pull = vjp(call, *args)
    w = cotangent(out)
    first = pull(w)
    second = vjp(lambda *a: vjp(call, *a[:-1])[1](a[-1]), *args, w)[1](cotangent(first))
    return tree_leaves(out), tree_leaves(first), tree_leaves(second)


@every_case
def test_derivatives_of_two_orders_against_central_differences(case: Case) -> None:
    check_grads(case.call, order=2)(*case.args)


@every_case
def test_tracing_leaves_values_alone(case: Case) -> None:
    traced, plain = tree_leaves(vjp(case.call, *case.args)[0]), tree_leaves(case.call(*case.args))
    assert len(traced) == len(plain)
    for a, b in zip(traced, plain, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=64 * EPS, atol=64 * EPS * np.linalg.norm(b))


@every_case
def test_single_precision_stays_single(case: Case) -> None:
    args = tuple(arg.astype(np.complex64 if arg.dtype.kind == "c" else np.float32) for arg in case.args)
    out, pull = vjp(case.call, *args)
    gradients = pull(cotangent(out))
    exact = vjp(case.call, *case.args)[1](cotangent(out))
    for arg, g, reference in zip(args, gradients, exact, strict=True):
        assert g.dtype == arg.dtype
        assert g.shape == arg.shape
        error, size = np.linalg.norm(g - reference), np.linalg.norm(reference)
        assert error <= np.sqrt(np.finfo(np.float32).eps) * max(size, 1.0)  # half of the digits survive any of them


class DeviceArray(NDArrayOperatorsMixin):
    """Stands in for an array of another device: NumPy's protocols, no conversion, no mixing with NumPy arrays."""

    def __init__(self, data: Any) -> None:
        self.data = np.asarray(data)

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)
    base = property(lambda self: self.data.base)
    real = property(lambda self: DeviceArray(self.data.real))
    imag = property(lambda self: DeviceArray(self.data.imag))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Traced) for x in inputs):
            return NotImplemented
        assert method == "__call__"
        return on_device(ufunc(*off_device(inputs), **off_device(kwargs)))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if any(issubclass(kind, Traced) for kind in types):
            return NotImplemented
        return on_device(func(*off_device(args), **off_device(kwargs)))

    def __array_namespace__(self) -> Any:
        def add_at(out: Any, index: Any, g: Any) -> None:
            assert out.dtype.kind == "f", "CuPy adds real numbers only"
            np.add.at(out.data, off_device(index), g.data)

        return SimpleNamespace(asarray=DeviceArray, add=SimpleNamespace(at=add_at))

    def astype(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.data.astype(dtype))

    def copy(self) -> DeviceArray:
        return DeviceArray(self.data.copy())

    def __len__(self) -> int:
        return len(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(self.data[off_device(index)])

    def __setitem__(self, index: Any, value: DeviceArray) -> None:
        self.data[off_device(index)] = off_device(value)


def off_device(x: Any) -> Any:
    """The NumPy arrays in a DeviceArray or a nest of them, which must not hold NumPy arrays of its own."""
    if isinstance(x, list | tuple):
        return type(x)(map(off_device, x))
    if isinstance(x, dict):
        return {key: off_device(value) for key, value in x.items()}
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array among arrays of another device")
    return x.data if isinstance(x, DeviceArray) else x


def on_device(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return type(x)(map(on_device, x))
    return DeviceArray(x) if isinstance(x, np.ndarray | np.floating | np.complexfloating) else x


@every_case
def test_another_array_library(case: Case) -> None:
    expected = derivatives(case.call, case.args)
    for a, b in zip(derivatives(case.call, tuple(map(DeviceArray, case.args))), expected, strict=True):
        for on, off in zip(a, b, strict=True):
            assert type(on) is DeviceArray
            assert on.dtype == off.dtype
            np.testing.assert_array_equal(on.data, off)


def test_numbers_as_cotangents_in_another_array_library() -> None:
    (g,) = vjp(lambda x: x[0, 1], DeviceArray(X))[1](2.0)
    assert type(g) is DeviceArray
    assert np.array_equal(g.data, 2.0 * (np.arange(12) == 1).reshape(3, 4))
    value, g = value_and_grad(np.sum)(DeviceArray(X))
    assert type(value) is type(g) is DeviceArray
    check_grads(np.tanh)(DeviceArray(X))


@pytest.mark.gpu
def test_cupy() -> None:
    cupy = get_namespace("cupy")
    for name, case in zip(IDS, CASES, strict=True):
        expected = derivatives(case.call, case.args)
        for a, b in zip(derivatives(case.call, tuple(map(cupy.asarray, case.args))), expected, strict=True):
            for on, off in zip(a, b, strict=True):
                assert isinstance(on, cupy.ndarray), name
                assert on.dtype == off.dtype, name
                tolerance = np.sqrt(EPS) * np.linalg.norm(off)  # other libraries round otherwise, here and there
                np.testing.assert_allclose(to_numpy(on), off, rtol=0, atol=tolerance, err_msg=name)


def test_the_stand_in_refuses_what_another_library_refuses() -> None:
    x = DeviceArray(X)
    with pytest.raises(TypeError, match="implicit conversion"):
        np.asarray(x)
    with pytest.raises(TypeError, match="NumPy array among"):
        x * X
    with pytest.raises(TypeError, match="NumPy array among"):
        np.concatenate([x, X])


def test_every_rule_is_in_the_table() -> None:
    assert {case.function for case in CASES} | PLAIN == set(HANDLERS) - {np.may_share_memory}


def test_the_table_reaches_the_rule_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in CASES:
        called: list[Any] = []
        handler = HANDLERS[case.function]
        with monkeypatch.context() as patch:
            patch.setitem(HANDLERS, case.function, lambda *a, h=handler, c=called, **k: (c.append(1), h(*a, **k))[1])
            vjp(case.call, *case.args)
        assert called, case.function


@pytest.mark.parametrize("function", sorted(PLAIN, key=lambda f: f.__name__), ids=lambda f: f.__name__)
def test_piecewise_constant_functions_are_plain(function: Any) -> None:
    x = spaced(6)
    args = [x] if function not in {*TWO_ARGUMENTS, *(f for f in PLAIN if getattr(f, "nin", 1) == 2)} else [x, x[::-1]]
    expected, seen = function(*args), []

    def loss(*traced: Any) -> Any:
        seen.append(function(*traced))
        return np.sum(traced[0])

    assert np.array_equal(grad(loss)(*args), np.ones(6))
    assert not any(isinstance(leaf, Traced) for leaf in tree_leaves(seen[0]))
    assert type(seen[0]) is type(expected)
    if function is not np.empty_like:
        np.testing.assert_equal(seen[0], expected)


def test_rounding_has_zero_gradient() -> None:
    x = spaced(6)
    for function in (np.floor, np.ceil, np.rint, np.trunc, np.sign, np.round):
        assert np.array_equal(grad(lambda a, f=function: np.sum(f(a) * a))(x), function(x))


def test_integers_from_a_traced_value_are_plain() -> None:
    seen: list[Any] = []
    grad(lambda x: (seen.append(x.astype(int)), x.sum())[1])(X)
    assert np.array_equal(seen[0], X.astype(int))
    assert type(seen[0]) is np.ndarray


def test_casting() -> None:
    x = normal(3).astype(np.float32)
    g = grad(lambda x: np.sum(x.astype(np.float64) ** 2))(x)
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, 2 * x, rtol=4 * np.finfo(np.float32).eps)
    g = grad(lambda x: np.sum(np.abs(x.astype(np.complex128)) ** 2))(x)
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, 2 * x, rtol=4 * np.finfo(np.float32).eps)
    np.testing.assert_array_equal(grad(lambda x: np.sum(np.full_like(x, 3.0) * x))(x), np.full(3, 3, np.float32))


@pytest.mark.parametrize("function", [np.maximum, np.minimum, np.fmax, np.fmin])
def test_a_tie_shares_its_gradient(function: Any) -> None:
    x, y = np.array([1.0, 2.0]), np.array([1.0, 2.0])
    gx, gy = grad(lambda x, y: np.sum(function(x, y)), (0, 1))(x, y)
    assert np.array_equal(gx, [0.5, 0.5])
    assert np.array_equal(gy, [0.5, 0.5])


@pytest.mark.parametrize("function", [np.max, np.min])
def test_equal_extrema_share_the_gradient(function: Any) -> None:
    x = np.array([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]])
    assert np.array_equal(grad(function)(x), np.full((2, 3), 1 / 6))
    assert np.array_equal(grad(lambda x: np.sum(function(x, axis=1)))(x), np.full((2, 3), 1 / 3))


def test_norms_at_zero() -> None:
    for function in (np.abs, np.fabs):
        assert np.array_equal(grad(lambda x, f=function: np.sum(f(x)))(np.zeros(2)), np.zeros(2))
    assert np.array_equal(grad(lambda x: np.sum(np.abs(x)))(np.zeros(2, complex)), np.zeros(2))
    assert np.array_equal(grad(np.linalg.norm)(np.zeros(2)), np.zeros(2))
    assert grad(np.hypot)(0.0, 0.0) == 0


def test_powers_at_zero() -> None:
    assert grad(lambda x: x**2)(0.0) == 0
    assert grad(lambda x: x**1)(0.0) == 1
    assert grad(lambda x: x**0)(0.0) == 0
    assert grad(lambda x, y: x**y, (0, 1))(0.0, 2.0) == (0, 0)
    np.testing.assert_array_equal(grad(lambda x: np.sum(x ** np.arange(3)))(np.zeros(3)), [0, 1, 0])


def test_prod_of_zeros() -> None:
    np.testing.assert_array_equal(grad(np.prod)(np.array([0.0, 2.0, 3.0])), [6, 0, 0])
    np.testing.assert_array_equal(grad(np.prod)(np.array([0.0, 0.0, 3.0])), [0, 0, 0])


def test_complex_gradient_is_dx_minus_i_dy() -> None:
    z = cplx(3)
    np.testing.assert_allclose(grad(lambda z: np.sum(np.abs(z) ** 2))(z), 2 * np.conj(z), rtol=8 * EPS)
    np.testing.assert_array_equal(grad(lambda z: np.sum(z.real))(z), np.ones(3))
    np.testing.assert_array_equal(grad(lambda z: np.sum(z.imag))(z), np.full(3, -1j))


def test_repeated_indices_add_up() -> None:
    g = grad(lambda x: np.sum(x[[0, 2, 0, 0]] * np.arange(1.0, 5.0)))(np.zeros(3))
    assert np.array_equal(g, [1 + 3 + 4, 0, 2])


def test_iterating_and_unpacking() -> None:
    check_grads(lambda x: sum(row * i for i, row in enumerate(x)))(X)
    check_grads(lambda x: np.multiply(*x))(normal(2))
    assert grad(lambda x: x[len(x) - 1])(np.zeros(3)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod])
@pytest.mark.parametrize("other", [2.0, np.float32(2), np.float64(2), np.array([2.0, 1.5]), np.array(2.0)])
def test_operators_with_plain_values_on_either_side(op: Any, other: Any) -> None:
    x = np.array([2.3, 0.7])
    for traced, plain in [(lambda x: op(x, other), op(x, other)), (lambda x: op(other, x), op(other, x))]:
        value, pull = vjp(traced, x)
        np.testing.assert_array_equal(value, plain)
        assert pull(np.ones(2))[0].dtype == np.float64
        check_grads(traced)(x)


def test_comparisons_are_plain_arrays() -> None:
    def loss(x: Any) -> Any:
        for result in (x > 0, x <= 0, x >= X, x == X, x != 0, np.less(X, x), np.isfinite(x), x // 2):
            assert isinstance(result, np.ndarray | np.bool)
        return x.sum() if (x == X).all() and x.sum() == X.sum() else x.sum() * 2

    assert np.array_equal(grad(loss)(X), np.ones_like(X))


# Linear maps: <w, f(x)> == <vjp(w), x> without finite differences, for any shape


def assert_adjoint(fun: Callable[..., Any], *args: Any) -> None:
    """The dot test, in each argument of a multilinear function."""
    out, pull = vjp(fun, *args)
    w = np.random.default_rng(2).standard_normal(out.shape)
    expected = np.sum(w * out)
    tolerance = 8 * EPS * max(out.size, *(arg.size for arg in args)) * (np.sum(abs(w)) * np.max(abs(out), initial=1))
    for arg, g in zip(args, pull(w), strict=True):
        assert g.shape == arg.shape
        assert abs(np.sum(g * arg) - expected) <= tolerance


def integers(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Small integers, so that products and sums are exact."""
    return np.random.default_rng(3).integers(-4, 5, shape).astype(float)


@given(hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_side=4, max_dims=3))
def test_matmul_of_any_shapes(shapes: hnp.BroadcastableShapes) -> None:
    assert_adjoint(np.matmul, *map(integers, shapes.input_shapes))


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_side=4, max_dims=4))
def test_products_of_any_shapes(shapes: hnp.BroadcastableShapes) -> None:
    assert_adjoint(np.multiply, *map(integers, shapes.input_shapes))


@given(st.data())
def test_indexing_by_anything(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=4))
    index = data.draw(
        st.one_of(
            hnp.basic_indices(shape, allow_newaxis=True),
            hnp.integer_array_indices(shape),
            hnp.arrays(bool, shape),
        )
    )
    assert_adjoint(lambda x: x[index], integers(shape))


@given(st.data())
def test_einsum_of_any_subscripts(data: st.DataObject) -> None:
    lengths = {"i": 2, "j": 3, "k": 1}
    terms = data.draw(st.lists(st.text("ijk", min_size=1, max_size=4), min_size=1, max_size=3))
    labels = sorted(set("".join(terms)))
    output = "".join(data.draw(st.lists(st.sampled_from(labels), unique=True)))
    arrow = data.draw(st.sampled_from(["->" + output, ""]))
    arrays = [integers(tuple(lengths[c] for c in term)) for term in terms]
    subscripts = ",".join(terms) + arrow
    value = vjp(lambda *a: np.einsum(subscripts, *a), *arrays)[0]
    np.testing.assert_array_equal(value, np.einsum(subscripts, *arrays))
    assert_adjoint(lambda *a: np.einsum(subscripts, *a), *arrays)


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (np.median, r"numpy\.median has no derivative here.*autodiff\.primitive.*defvjp"),
        (np.linalg.svd, r"numpy\.linalg\.svd has no derivative here"),
        (np.add.reduce, r"numpy\.add\.reduce has no derivative here"),
        (lambda x: np.multiply.outer(x, x), r"numpy\.multiply\.outer has no derivative here"),
        (np.spacing, r"numpy\.spacing has no derivative here"),
        (lambda x: np.frompyfunc(abs, 1, 1)(x), r"has no derivative here"),
        (lambda x: np.sum(x, where=X > 0), r"numpy\.sum on traced values does not take where; it takes axis, dtype"),
        (lambda x: np.exp(x, where=X > 0), r"numpy\.exp on traced values does not take where"),
        (lambda x: np.var(x, mean=X), r"numpy\.var on traced values does not take mean"),
        (lambda x: np.sum(a=x), r"sum got a traced value as keyword 'a': pass it by position"),
        (lambda x: np.sign(x + 1j), r"numpy\.sign of complex traced values"),
        (lambda x: np.linalg.norm(x, 2), r"2-norm of vectors or 'fro' of matrices, not ord=2"),
        (lambda x: np.pad(x, 1, mode="mean"), r"no mode 'mean': use constant, edge"),
        (lambda x: np.einsum(x, [0, 1]), r"subscripts as one string"),
        (lambda x: x.reshape(2, 6, order="A"), r"the order 'C' or 'F', not 'A'"),
        (lambda x: x.ravel("K"), r"the order 'C' or 'F', not 'K'"),
    ],
)
def test_what_has_no_rule_says_so(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message) as error:
        vjp(call, X)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: np.tensordot(x, x, 1), r"shapes \(3, 4\) and \(3, 4\) over axes"),
        (lambda x: np.split(x, 2), r"an axis of length 3 into 2 equal parts"),
        (lambda x: np.einsum("ij,jk", x), r"1 operands for the 2 terms of 'ij,jk'"),
        (lambda x: np.take(x, [0], axis=2), r"axis 2 is out of bounds"),
        (lambda x: np.repeat(x, 2, axis=-3), r"axis -3 is out of bounds"),
        (lambda x: np.split(x, 1, axis=2), r"axis 2 is out of bounds"),
    ],
)
def test_what_does_not_fit_says_so(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        vjp(call, X)
    assert "\n" not in str(error.value)


def test_rules_are_primitives_that_know_their_name() -> None:
    assert isinstance(HANDLERS[np.sum], Primitive)
    assert repr(HANDLERS[np.sum]) == "<primitive sum>"
