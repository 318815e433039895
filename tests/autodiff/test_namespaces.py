"""autodiff.numpy and autodiff.scipy: SciPy's and NumPy's values, derivatives, and what is theirs unchanged."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from typing import Any

import numpy
import pytest
import scipy.signal
import scipy.special

import autodiff.numpy as np
import autodiff.scipy.signal as signal
import autodiff.scipy.special as special
from autodiff import check_grads, grad, jacobian, vjp

RNG = numpy.random.default_rng(3)
X = RNG.standard_normal((3, 4))
EPS = float(numpy.finfo(float).eps)


def test_numpy_is_numpys() -> None:
    assert np.float32 is numpy.float32 and np.frompyfunc is numpy.frompyfunc and np.pi == numpy.pi
    assert np.linalg.LinAlgError is numpy.linalg.LinAlgError
    assert np.sin is np.sin and np.sin.__name__ == "sin" and np.sin.__doc__ == numpy.sin.__doc__
    assert np.add.reduce([1, 2]) == 3 and np.add.nin == 2 and pickle.loads(pickle.dumps(np.mean)) is np.mean
    assert copy.deepcopy(np.exp)(0.0) == 1 and repr(np.exp) == repr(numpy.exp)
    assert {"cos", "linalg"} < set(dir(np)) and "inv" in dir(np.linalg)
    with pytest.raises(AttributeError):
        _ = np.no_such_function


def test_arrays_of_traced_values() -> None:
    for call in (
        lambda x: np.array([[x[0, 0], 1.0], [x[1, 1], x[0, 2] ** 2]]),
        lambda x: np.array([x, 2 * x]),
        lambda x: np.asarray((x[0], numpy.ones(4))),
        lambda x: np.array(x),
        lambda x: np.array([x[0, 0], 2], dtype=np.float32),
        lambda x: np.full((2, 3), x[0, 0]),
        lambda x: np.full((2, 3), x[0, 0], np.complex128),
    ):
        value, pull = vjp(call, X)
        numpy.testing.assert_array_equal(value, call(X))
        assert value.dtype == call(X).dtype
        assert pull(numpy.ones_like(value))[0].shape == X.shape
    check_grads(lambda x: np.array([[x[0, 0], 1.0], [x[1, 1], x[0, 2] ** 2]]))(X)
    assert type(np.array([1.0, 2.0])) is type(np.full(2, 1.0)) is numpy.ndarray
    assert numpy.array_equal(
        jacobian(lambda x: np.array([x[1], x[0] * x[1]]))(numpy.array([2.0, 3.0])), [[0, 1], [3, 2]]
    )


LISTS: dict[str, Any] = {
    "mean": lambda np, x: np.mean([x[0], x[1] ** 2, 1.0]),
    "max": lambda np, x: np.max([x[0], 3 * x[1], x[2]]),
    "sum, nested": lambda np, x: np.sum([[x[0], 1.0], [x[1], x[2]]], axis=0),
    "dot": lambda np, x: np.dot([x[0], x[1]], (x[2], x[0])),
    "maximum": lambda np, x: np.maximum(x, [1.0, x[0], 0.2]),
    "where": lambda np, x: np.where([True, False], [x[0], x[1]], 0.0),
    "solve": lambda np, x: np.linalg.solve([[x[0], 0.0], [1.0, x[1]]], [1.0, x[2]]),
    "rfft": lambda np, x: np.fft.rfft([x[0], x[1], 2.0]),
    "stack": lambda np, x: np.stack([[x[0], x[1]], (x[2], 1.0)], axis=1),
    "einsum": lambda np, x: np.einsum("i,i->", [x[0], x[1]], x[1:]),
    "shape": lambda np, x: x * len(np.shape([x[0], x[1]])),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_traced_values(name: str) -> None:
    x = numpy.array([0.7, 1.3, -0.4])
    value, _ = vjp(lambda x: LISTS[name](np, x), x)
    numpy.testing.assert_allclose(value, LISTS[name](numpy, x), rtol=1e-14)
    check_grads(lambda x: LISTS[name](np, x))(x)


@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1)])
def test_special_functions_of_several_elements(axis: Any) -> None:
    weights = RNG.uniform(0.5, 2, X.shape)
    for ours, theirs in (
        (special.logsumexp, scipy.special.logsumexp),
        (special.softmax, scipy.special.softmax),
        (special.log_softmax, scipy.special.log_softmax),
        (
            lambda x, axis: special.logsumexp(x, axis, weights, True),
            lambda x, axis: scipy.special.logsumexp(x, axis, weights, True),
        ),
    ):
        numpy.testing.assert_allclose(
            vjp(lambda x, f=ours: f(x, axis), X)[0], theirs(X, axis), rtol=16 * EPS, atol=16 * EPS
        )
        numpy.testing.assert_allclose(ours(X, axis), theirs(X, axis), rtol=16 * EPS, atol=16 * EPS)
        check_grads(lambda x, f=ours: f(x, axis))(X)


@pytest.mark.parametrize("integers", [[1, 2, 3], numpy.array([1, 2, 3], numpy.int8)])
def test_lists_and_small_integers_are_taken_in_double_precision(integers: Any) -> None:
    exact = numpy.array(integers, float)
    for ours, theirs in (
        (special.logsumexp, scipy.special.logsumexp),
        (special.log_softmax, scipy.special.log_softmax),
        (lambda x: special.multigammaln(x, 2), lambda x: scipy.special.multigammaln(x, 2)),
    ):
        value = ours(integers)
        assert value.dtype == float
        numpy.testing.assert_allclose(value, theirs(exact), rtol=1e-12)


def test_logsumexp_of_what_overflows() -> None:
    x = numpy.array([1000.0, 1000.0])
    assert special.logsumexp(x) == scipy.special.logsumexp(x)
    assert numpy.array_equal(grad(special.logsumexp)(x), [0.5, 0.5])
    assert special.logsumexp(numpy.array([1.0, 2.0]), b=[1, -1], return_sign=True)[1] == -1
    large = numpy.array([1e8, 1e8, -numpy.inf], numpy.float32)
    numpy.testing.assert_array_equal(special.log_softmax(large), scipy.special.log_softmax(large))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (numpy.array([1.0, 1.5], "float32"), numpy.array([-1, 1], "int32")),
        (numpy.array([1.0, 1.5], "float32"), numpy.array([-1.0, 1.0])),
        (numpy.array([1.0, 1.5], "float32"), [-1, 1]),
        (numpy.array([1 + 2j, 0.5 - 1j]), None),
        (numpy.array([900 + 2j, 901 - 1j]), numpy.array([2.0, -1.0])),
        (numpy.array([1.0, 1.5], "float32"), numpy.array([1j, -1.0])),
    ],
)
def test_logsumexp_of_mixed_kinds(a: Any, b: Any) -> None:
    for keepdims in (False, True):
        found, right = (f(a, b=b, keepdims=keepdims) for f in (special.logsumexp, scipy.special.logsumexp))
        assert found.dtype == right.dtype and found.shape == right.shape
        numpy.testing.assert_allclose(numpy.exp(found - right), 1, rtol=1e-13)  # up to whole turns
        found, right = (
            f(a, b=b, keepdims=keepdims, return_sign=True) for f in (special.logsumexp, scipy.special.logsumexp)
        )
        for one, other in zip(found, right, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape
            numpy.testing.assert_allclose(one, other, rtol=1e-13)
    if a.dtype != numpy.float32:
        check_grads(lambda a: special.logsumexp(a, b=b))(a)
        check_grads(lambda a: special.logsumexp(a, b=b, return_sign=True)[1])(a)


@pytest.mark.parametrize(("shape", "axis"), [((0,), None), ((0, 3), 0), ((3, 0), 1), ((3, 0), 0), ((2, 0, 3), 1)])
def test_logsumexp_of_nothing(shape: tuple[int, ...], axis: Any) -> None:
    a = numpy.zeros(shape)
    for options in ({}, {"keepdims": True}, {"return_sign": True}):
        value, pull = vjp(lambda a, o=options: special.logsumexp(a, axis, **o), a)
        numpy.testing.assert_array_equal(value, scipy.special.logsumexp(a, axis, **options))
    assert pull((numpy.ones_like(value[0]), numpy.ones_like(value[1])))[0].shape == shape


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    "x", [[numpy.inf, 1.0], [-numpy.inf, 1.0], [-numpy.inf, -numpy.inf], [numpy.nan, 1.0], [1e3, 0]]
)
def test_shares_of_infinite_exponents_are_scipys(x: Any) -> None:
    for ours, theirs in (
        (special.softmax, scipy.special.softmax),
        (special.log_softmax, scipy.special.log_softmax),
        (special.logsumexp, scipy.special.logsumexp),
    ):
        numpy.testing.assert_array_equal(ours(numpy.array(x)), theirs(numpy.array(x)))


@pytest.mark.parametrize("unused", [1000.0, 5.0, numpy.nan, numpy.inf])
@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
def test_logsumexp_leaves_out_what_has_the_factor_zero(unused: float, dtype: Any) -> None:
    x, b = numpy.array([unused, 0.0, 1.0], dtype), numpy.array([0, 2, 3], dtype)
    value, pull = vjp(lambda x: special.logsumexp(x, b=b), x)
    assert value == special.logsumexp(x, b=b)
    assert value.dtype == dtype
    numpy.testing.assert_allclose(value, scipy.special.logsumexp(x, b=b), rtol=4 * numpy.finfo(dtype).eps)
    expected = numpy.append(0, scipy.special.softmax(x[1:] + numpy.log(b[1:])))
    numpy.testing.assert_allclose(pull(dtype(1))[0], expected, rtol=4 * numpy.finfo(dtype).eps)
    if unused == 5:
        check_grads(lambda x, b: special.logsumexp(x, b=b))(x.astype(float), b.astype(float))


def test_polygamma_and_multigammaln() -> None:
    x = RNG.uniform(3, 5, 6)
    numpy.testing.assert_allclose(vjp(lambda x: special.polygamma(1, x), x)[0], scipy.special.polygamma(1, x))
    numpy.testing.assert_allclose(
        special.multigammaln(x, 3), [scipy.special.multigammaln(a, 3) for a in x], rtol=16 * EPS
    )
    check_grads(lambda x: special.polygamma(1, x))(x)
    check_grads(lambda x: special.multigammaln(x, 3))(x)
    assert numpy.isnan(special.multigammaln(numpy.nan, 3))
    with pytest.raises(ValueError, match=r"dimension 3 takes a larger than 1\.0, not 0\.2"):
        special.multigammaln(numpy.array([0.2, 2.0]), 3)


def test_ufuncs_of_scipy_work_as_they_are() -> None:
    assert special.erf is scipy.special.erf
    with pytest.raises(TypeError, match="has no derivative for argument 0"):
        grad(lambda n: scipy.special.jv(n, 1.5))(2.0)
    with pytest.raises(TypeError, match="sici has no derivative here"):
        grad(lambda x: scipy.special.sici(x)[0])(2.0)


@pytest.mark.parametrize("x", [-1e200, -1e8, -1e4, -40.0, -5.0, 0.0, 5.0, 40.0])
def test_the_logarithm_of_the_normal_law_far_from_the_mean(x: float) -> None:
    expected = math.sqrt(2 / math.pi) / scipy.special.erfcx(-x / math.sqrt(2))  # from x = 38 on, both are 0
    assert abs(grad(scipy.special.log_ndtr)(x) - expected) <= 4 * EPS * expected
    if x >= -1e4:
        numpy.testing.assert_allclose(grad(grad(scipy.special.log_ndtr))(x), -expected * (x + expected), rtol=1e-6)


def test_nothing_times_the_logarithm_of_nothing_has_a_derivative() -> None:
    assert grad(scipy.special.xlogy, 1)(0.0, 0.0) == grad(scipy.special.xlog1py, 1)(0.0, -1.0) == 0
    assert grad(scipy.special.rel_entr, 1)(0.0, 0.0) == 0
    assert grad(scipy.special.kl_div, 1)(0.0, 0.0) == 1


def test_rules_of_scipy_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys, autodiff; assert 'scipy.special' not in sys.modules\n"
        "import scipy.special as sp, math\n"
        "assert autodiff.grad(sp.erf)(0.0) == 2 / math.sqrt(math.pi)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# scipy.signal


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("shapes", [((6,), (3,)), ((6,), (4,)), ((3,), (5,)), ((5, 6), (2, 3)), ((4, 5, 3), (4, 2, 3))])
def test_convolution_of_signals(mode: str, shapes: Any) -> None:
    a, b = (RNG.standard_normal(shape) for shape in shapes)
    value = vjp(lambda a, b: signal.convolve(a, b, mode), a, b)[0]
    numpy.testing.assert_allclose(value, scipy.signal.convolve(a, b, mode, method="direct"), rtol=0, atol=1e-13)
    check_grads(lambda a, b: signal.convolve(a, b, mode))(a, b)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        (((6,), (3,)), None),
        (((3,), (5,)), 0),
        (((5, 6), (2, 3)), None),
        (((5, 6), (5, 3)), 1),
        (((5, 6), (1, 3)), [1]),
        (((1, 6), (4, 3)), (-1,)),
    ],
)
def test_convolution_by_fft(mode: str, shapes: Any, axes: Any) -> None:
    a, b = (RNG.standard_normal(shape) for shape in shapes)
    for x in (a, a + 1j * a[::-1]):
        value = vjp(lambda a, b: signal.fftconvolve(a, b, mode, axes), x, b)[0]
        numpy.testing.assert_allclose(value, scipy.signal.fftconvolve(x, b, mode, axes), rtol=0, atol=1e-13)
    check_grads(lambda a, b: signal.fftconvolve(a, b, mode, axes))(a, b)


def test_convolution_along_some_axes() -> None:
    a, b = RNG.standard_normal((2, 5, 6, 3)), RNG.standard_normal((4, 3, 2, 3))
    found = signal.convolve(a, b, "valid", axes=([1, 2], [2, 3]), dot_axes=([3], [1]))
    assert found.shape == (2, 4, 4, 4)
    expected = sum(scipy.signal.convolve(a[1, :, :, c], b[3, c], "valid") for c in range(3))
    numpy.testing.assert_allclose(found[1, 3], expected, rtol=0, atol=1e-13)
    check_grads(lambda a, b: signal.convolve(a, b, axes=([1, 2], [2, 3]), dot_axes=([3], [1])))(a, b)
    for convolve in (signal.convolve, lambda a, *b: vjp(lambda a: signal.convolve(a, *b), a), scipy.signal.convolve):
        with pytest.raises(ValueError, match=r"\bvalid"):
            convolve(numpy.ones((3, 5)), numpy.ones((5, 3)), "valid")


def test_arrays_written_in_brackets() -> None:
    x = X[0]
    for call in (
        lambda x: np.r_[x, 1.0, x[0], 2:5],
        lambda x: np.c_[x, x**2],
        lambda x: np.c_[X.T, x],
        lambda x: np.r_[np.outer(x, x), X],
        lambda x: np.c_[x[0], 1.0],
        lambda x: np.c_[X[None], np.outer(x[:3], x)[None]],
    ):
        value = vjp(call, x)[0]
        numpy.testing.assert_array_equal(value, call(x))
        check_grads(call)(x)
    assert np.r_["0,2", x, x].shape == (2, 4)
    with pytest.raises(TypeError, match="takes no directive"):
        grad(lambda x: np.sum(np.r_["0,2", x, x]))(x)
