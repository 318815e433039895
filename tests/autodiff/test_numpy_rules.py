"""Every derivative of a NumPy function: finite differences, float32, an array library that is not NumPy, ties."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import scipy.special as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autodiff import (
    check_grads,
    defvjp,
    elementwise_grad,
    grad,
    hessian,
    primitive,
    tree_leaves,
    tree_map,
    value_and_grad,
    vjp,
)
from autodiff.tape import HANDLERS, Primitive, Traced
from hcnn_core.backend import array_namespace, get_namespace, to_numpy
from tests.autodiff.rule_cases import CASES, Case, X, cplx, normal, spaced
from tests.remote import NOT_IN_CUPY, Remote, put, take

importlib.import_module("autodiff._rules.special")  # whose rules else come in when the first is needed
EPS = float(np.finfo(np.float64).eps)

for _case in CASES:
    for _arg in _case.args:
        _arg.flags.writeable = False

IDS = [f"{getattr(case.function, '__name__', case.function)}-{i}" for i, case in enumerate(CASES)]
every_case = pytest.mark.parametrize("case", CASES, ids=IDS)

PLAIN = {
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal, np.logical_and, np.logical_or),
    *(np.logical_xor, np.logical_not, np.isfinite, np.isinf, np.isnan, np.signbit, np.floor, np.ceil, np.rint),
    *(np.trunc, np.round, np.around, np.floor_divide, np.argmax, np.argmin, np.argsort, np.nonzero, np.count_nonzero),
    *(np.searchsorted, np.all, np.any, np.allclose, np.isclose, np.array_equal, np.zeros_like, np.ones_like),
    *(np.isneginf, np.isposinf, np.iscomplex, np.isreal, np.isin, np.array_equiv, np.fix, np.nanargmax),
    *(np.nanargmin, np.argpartition, np.argwhere, np.lexsort, np.flatnonzero, np.digitize),
    *(np.tril_indices_from, np.triu_indices_from, np.diag_indices_from, np.array_repr, np.array_str, np.array2string),
    sp.gammasgn,
    *(np.empty_like, np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj, np.isrealobj, np.sign),
}
POLYGAMMA = {sp.gammaln, sp.loggamma, sp.gamma, sp.rgamma, sp.psi}  # in second derivatives
BY_RECURRENCE = {sp.j0, sp.j1, sp.y0, sp.y1, sp.i0, sp.i1, sp.k0, sp.k1, sp.i0e, sp.i1e}  # derivatives, on a GPU
IN_PLACE = {np.copyto, np.fill_diagonal, np.put, np.put_along_axis, np.place, np.putmask}
MATRICES = {np.tril_indices_from, np.triu_indices_from, np.diag_indices_from}
TWO_ARGUMENTS = {np.isin, np.array_equiv, np.floor_divide, np.searchsorted, np.allclose, np.isclose, np.array_equal}


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
def test_a_rule_one_percent_off_is_noticed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    skewed = primitive(lambda x: x)
    defvjp(skewed, lambda ans, x: lambda g: 1.01 * g)
    handler = HANDLERS[case.function]
    monkeypatch.setitem(HANDLERS, case.function, lambda *a, **k: tree_map(skewed, handler(*a, **k)))
    out, pull = vjp(case.call, *case.args)
    if not any(np.any(g) for g in pull(cotangent(out))):
        return  # x**0: nothing to be wrong about
    with pytest.raises(AssertionError, match="order 1"):
        check_grads(case.call, order=1)(*case.args)


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


@every_case
def test_another_array_library(case: Case) -> None:
    expected = derivatives(case.call, case.args)
    if case.function in POLYGAMMA:
        with pytest.raises(TypeError, match="polygamma, the derivative of digamma, takes NumPy arrays"):
            derivatives(case.call, put(case.args))
        return
    if case.function in NOT_IN_CUPY:
        with pytest.raises(TypeError, match="returned NotImplemented"):
            derivatives(case.call, put(case.args))
        return
    for a, b in zip(derivatives(case.call, put(case.args)), expected, strict=True):
        for on, off in zip(a, b, strict=True):
            assert type(on) is Remote
            assert on.dtype == off.dtype
            tolerance = 1e-13 * np.abs(off).max() if case.function in BY_RECURRENCE else 0
            np.testing.assert_allclose(take(on), off, rtol=0, atol=tolerance)


@pytest.mark.parametrize("function", [sp.j1, sp.i1, sp.i1e], ids=lambda f: f.__name__)
def test_bessel_functions_of_another_array_library_at_zero(function: Any) -> None:
    call = elementwise_grad(elementwise_grad(function))
    x = np.array([0.0, 0.5])
    np.testing.assert_allclose(take(elementwise_grad(function)(put(x))), elementwise_grad(function)(x), atol=1e-14)
    np.testing.assert_allclose(take(call(put(x))), call(x), atol=1e-14)


def test_numbers_as_cotangents_in_another_array_library() -> None:
    (g,) = vjp(lambda x: x[0, 1], put(X))[1](2.0)
    assert type(g) is Remote
    assert np.array_equal(take(g), 2.0 * (np.arange(12) == 1).reshape(3, 4))
    value, g = value_and_grad(np.sum)(put(X))
    assert type(value) is type(g) is Remote
    check_grads(np.tanh)(put(X))


@pytest.fixture
def whole_sorts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A context in which NumPy's `argpartition` sorts whole, as CuPy's does: other places of what lies on one side."""

    @contextmanager
    def context() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(np, "argpartition", lambda a, kth, axis=-1: np.argsort(a, axis=axis))
            yield

    return context


def test_partitions_of_a_library_that_sorts_whole(whole_sorts: Any) -> None:
    x = np.random.default_rng(0).permutation(np.arange(1e4))
    sorting, own = (derivatives(call, (x,))[:2] for call in (np.sort, lambda a: np.partition(a, 2000)))
    with whole_sorts():
        found = derivatives(lambda a: np.partition(a, 2000), (x,))[:2]
    for (same,), (one,), (other,) in zip(found, sorting, own, strict=True):
        assert np.array_equal(same, one) and not np.array_equal(same, other)


@pytest.mark.gpu
def test_cupy(whole_sorts: Any) -> None:
    cupy = get_namespace("cupy")
    for name, case in zip(IDS, CASES, strict=True):
        stacks = [np.shape(arg)[:-2] for arg in case.args]  # CuPy's solve broadcasts vectors, not stacks of matrices
        unequal = case.function is np.linalg.solve and np.ndim(case.args[-1]) > 1 and stacks[0] != stacks[-1]
        if case.function in POLYGAMMA | NOT_IN_CUPY or unequal:
            continue
        with whole_sorts():
            expected = derivatives(case.call, case.args)
        for a, b in zip(derivatives(case.call, tuple(map(cupy.asarray, case.args))), expected, strict=True):
            for on, off in zip(a, b, strict=True):
                assert isinstance(on, cupy.ndarray), name
                assert on.dtype == off.dtype, name
                tolerance = np.sqrt(EPS) * np.linalg.norm(off)  # other libraries round otherwise, here and there
                np.testing.assert_allclose(to_numpy(on), off, rtol=0, atol=tolerance, err_msg=name)


def test_every_rule_is_in_the_table() -> None:
    assert {case.function for case in CASES} | PLAIN | IN_PLACE == set(HANDLERS) - {np.may_share_memory}


def test_the_table_reaches_the_rule_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in CASES:
        called: list[Any] = []
        handler = HANDLERS[case.function]
        with monkeypatch.context() as patch:
            patch.setitem(HANDLERS, case.function, lambda *a, h=handler, c=called, **k: (c.append(1), h(*a, **k))[1])
            vjp(case.call, *case.args)
        assert called, case.function


@pytest.mark.filterwarnings("ignore:numpy.fix is deprecated:DeprecationWarning")  # from NumPy 2.5 on
@pytest.mark.parametrize("function", sorted(PLAIN, key=lambda f: f.__name__), ids=lambda f: f.__name__)
def test_piecewise_constant_functions_are_plain(function: Any) -> None:
    x = np.diag(spaced(6)) if function in MATRICES else spaced(6)
    args = [x] if function not in {*TWO_ARGUMENTS, *(f for f in PLAIN if getattr(f, "nin", 1) == 2)} else [x, x[::-1]]
    args = [x, 2] if function is np.argpartition else [x, np.sort(x)] if function is np.digitize else args
    expected, seen = function(*args), []

    def loss(*traced: Any) -> Any:
        seen.append(function(*traced))
        return np.sum(traced[0])

    assert np.array_equal(grad(loss)(*args), np.ones_like(x))
    assert not any(isinstance(leaf, Traced) for leaf in tree_leaves(seen[0]))
    assert type(seen[0]) is type(expected)
    if type(expected) is str:
        assert seen[0] == f"Traced({expected})"
    elif function is not np.empty_like:
        np.testing.assert_equal(seen[0], expected)


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


def test_powers_with_the_exponent_zero_have_second_derivatives() -> None:
    check_grads(np.power)(np.array([2.0, 3.0, 0.5]), np.array([0.0, 2.0, 1.0]))
    assert hessian(lambda z: np.power(z[0], z[1]))(np.array([2.0, 0.0]))[0].tolist() == [0, 0.5]


INTEGERS = [np.int8(100), np.array([200, 0, 3], np.uint8), np.array([100_000, -70_000, 2], np.int32)]


@pytest.mark.parametrize("n", INTEGERS)
def test_integers_beside_floats_lose_no_digits(n: Any) -> None:
    x = np.array([0.3, -0.4, 0.7])
    check_grads(lambda x: np.arctan2(x, n))(x)
    check_grads(lambda x: np.arctan2(n, x))(x)
    check_grads(lambda x: np.maximum(n, 1) ** x)(x)


def test_complex_powers_of_negative_numbers() -> None:
    for base in (-2, -2.5, np.array([-3, 2, -1], np.int8), np.array([-2.0, 0.0, 3.0])):
        check_grads(lambda z, base=base: base**z)(2 + cplx(3))


def test_the_angle_of_large_and_small_numbers() -> None:
    for size in (1e-200, 1e200):
        np.testing.assert_allclose(grad(np.arctan2, (0, 1))(size, size), (0.5 / size, -0.5 / size), rtol=4 * EPS)


def test_the_imaginary_part_of_one_number() -> None:
    assert grad(lambda z: 2 * z.imag)(1 + 2j) == -2j
    np.testing.assert_allclose(grad(np.angle)(1 + 2j), -0.4 - 0.2j, rtol=4 * EPS)


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


def test_rules_are_primitives_that_know_their_name() -> None:
    assert isinstance(HANDLERS[np.cumsum], Primitive)
    assert repr(HANDLERS[np.cumsum]) == "<differentiable cumsum(a, axis=None, dtype=None, out=None)>"
