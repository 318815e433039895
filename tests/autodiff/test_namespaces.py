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
import scipy.linalg
import scipy.signal
import scipy.special
import scipy.stats

import autodiff.numpy as np
import autodiff.scipy.linalg as linalg
import autodiff.scipy.signal as signal
import autodiff.scipy.special as special
import autodiff.scipy.stats as stats
from autodiff import check_grads, grad, jacobian, vjp
from autodiff.tape import Traced

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
    "mean, keyword": lambda np, x: np.mean(a=[x[0], x[1]], axis=0),
    "max": lambda np, x: np.max([x[0], 3 * x[1], x[2]]),
    "sum, nested": lambda np, x: np.sum([[x[0], 1.0], [x[1], x[2]]], axis=0),
    "dot": lambda np, x: np.dot([x[0], x[1]], (x[2], x[0])),
    "exp": lambda np, x: np.exp([x[0], x[1]]),
    "maximum": lambda np, x: np.maximum(x, [1.0, x[0], 0.2]),
    "average": lambda np, x: np.average(x, weights=[x[0], 2.0, x[1]]),
    "where": lambda np, x: np.where([True, False], [x[0], x[1]], 0.0),
    "norm": lambda np, x: np.linalg.norm([x[0], x[1]]),
    "solve": lambda np, x: np.linalg.solve([[x[0], 0.0], [1.0, x[1]]], [1.0, x[2]]),
    "multi_dot": lambda np, x: np.linalg.multi_dot([[[x[0], x[1]]], [[x[1]], [x[2]]]]),
    "rfft": lambda np, x: np.fft.rfft([x[0], x[1], 2.0]),
    "concatenate": lambda np, x: np.concatenate([x, [x[0], x[1]]]),
    "stack": lambda np, x: np.stack([[x[0], x[1]], (x[2], 1.0)], axis=1),
    "stack of traced": lambda np, x: np.stack([x[0], x[1]]),
    "block": lambda np, x: np.block([[x[0], x[1]], [x[1], 2.0]]),
    "select": lambda np, x: np.select([numpy.array([True, False]), numpy.array([True, True])], [[x[0], x[1]], x[:2]]),
    "einsum": lambda np, x: np.einsum("i,i->", [x[0], x[1]], x[1:]),
    "interp": lambda np, x: np.interp([x[0], x[1]], [-5.0, 5.0], [x[1], x[2]]),
    "shape": lambda np, x: x * len(np.shape([x[0], x[1]])),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_traced_values(name: str) -> None:
    x = numpy.array([0.7, 1.3, -0.4])
    value, _ = vjp(lambda x: LISTS[name](np, x), x)
    numpy.testing.assert_allclose(value, LISTS[name](numpy, x), rtol=1e-14)
    check_grads(lambda x: LISTS[name](np, x))(x)


def test_arrays_of_plain_values_are_laid_out_as_numpys() -> None:
    masked = numpy.ma.array([1.0, 2.0], mask=[0, 1])
    assert np.asfortranarray(X).flags.f_contiguous
    assert np.ascontiguousarray(X.T).flags.c_contiguous
    assert np.asanyarray(masked) is masked


def test_a_list_takes_part_in_nested_derivatives() -> None:
    assert grad(grad(lambda x: np.sum(np.array([x, x**3, 1.0]))))(2.0) == 12


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
        (stats.norm.logpdf, scipy.stats.norm.logpdf),
        (stats.norm.logsf, scipy.stats.norm.logsf),
        (lambda x: stats.t.pdf(x, 3), lambda x: scipy.stats.t.pdf(x, 3)),
        (lambda x: stats.gamma.logpdf(0.5, x), lambda x: scipy.stats.gamma.logpdf(0.5, x)),
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


@pytest.mark.parametrize("n", [np.uint8(0), np.array([0, 1, 2], np.uint8), np.array([1, 0, 5], np.int8)])
def test_small_integers_beside_arguments_of_special_functions(n: Any) -> None:
    x = numpy.array([0.7, 1.5, 2.5])
    for function in (scipy.special.jv, scipy.special.yv, scipy.special.yn, scipy.special.iv, scipy.special.kv):
        check_grads(lambda x, f=function: f(n, x))(x)
    check_grads(lambda x: scipy.special.ive(n, x))(x)
    check_grads(lambda x: scipy.special.ive(n, x))(x + 0.3j)
    check_grads(lambda x: scipy.special.xlogy(x, n + numpy.uint8(1)))(x)
    check_grads(lambda x: scipy.special.xlog1py(x, n))(x)


@pytest.mark.parametrize("x", [-1e200, -1e8, -1e4, -40.0, -5.0, 0.0, 5.0, 40.0])
def test_the_logarithm_of_the_normal_law_far_from_the_mean(x: float) -> None:
    expected = math.sqrt(2 / math.pi) / scipy.special.erfcx(-x / math.sqrt(2))  # from x = 38 on, both are 0
    assert abs(grad(scipy.special.log_ndtr)(x) - expected) <= 4 * EPS * expected
    if x >= -1e4:
        numpy.testing.assert_allclose(grad(grad(stats.norm.logcdf))(x), -expected * (x + expected), rtol=1e-6)


def test_nothing_times_the_logarithm_of_nothing_has_a_derivative() -> None:
    assert grad(scipy.special.xlogy, 1)(0.0, 0.0) == grad(scipy.special.xlog1py, 1)(0.0, -1.0) == 0
    assert grad(scipy.special.rel_entr, 1)(0.0, 0.0) == 0
    assert grad(scipy.special.kl_div, 1)(0.0, 0.0) == 1
    assert grad(stats.poisson.pmf, 1)(0, 0.0) == grad(stats.gamma.pdf)(0.0, 1.0) == -1
    assert grad(stats.beta.logpdf)(0.0, 1.0, 1.0) == 0


def test_polygamma_of_complex_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match=r"polygamma, the derivative of digamma, takes real numbers"):
        grad(lambda z: np.real(scipy.special.psi(z)))(1 + 1j)


def test_rules_of_scipy_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys, autodiff; assert 'scipy.special' not in sys.modules\n"
        "import scipy.special as sp, math\n"
        "assert autodiff.grad(sp.erf)(0.0) == 2 / math.sqrt(math.pi)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_traced_values_come_from_lists_alone() -> None:
    seen: list[Any] = []
    grad(lambda x: (seen.append(np.array([1.0, numpy.sum(numpy.ones(2))])), np.sum(x))[1])(X)
    assert not isinstance(seen[0], Traced)


# scipy.stats, scipy.linalg and scipy.signal

AT = RNG.uniform(0.1, 0.9, 5)
SHAPES: dict[str, tuple[float, ...]] = {
    "norm": (),
    "expon": (),
    "t": (3.5,),
    "gamma": (2.3,),
    "chi2": (3.0,),
    "beta": (1.7, 2.4),
}


DENSITIES, SHARES = ("pdf", "logpdf"), ("cdf", "logcdf", "sf", "logsf")


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", [*DENSITIES, *SHARES, "ppf", "isf"])
def test_laws(name: str, method: str) -> None:
    ours, theirs = getattr(getattr(stats, name), method), getattr(getattr(scipy.stats, name), method)
    for location in ((), (0.05,), (0.05, 1.3)):
        value = vjp(lambda x, a=location: ours(x, *SHAPES[name], *a), AT)[0]
        numpy.testing.assert_allclose(value, theirs(AT, *SHAPES[name], *location), rtol=1e-13)
    check_grads(lambda x, loc, scale: ours(x, *SHAPES[name], loc=loc, scale=scale))(AT, numpy.float64(0.05), 1.2 + AT)
    if method in DENSITIES:
        check_grads(lambda x, *shapes: ours(x, *shapes))(AT, *(shape + AT for shape in SHAPES[name]))
    elif SHAPES[name]:
        with pytest.raises(TypeError, match=r"has no derivative for argument [01]"):
            grad(lambda shape: ours(0.5, shape, *SHAPES[name][1:]))(1.5)
    with numpy.errstate(divide="ignore"):
        outside = numpy.array([-1.0, 2.0, 0.0, 1.0])
        numpy.testing.assert_allclose(ours(outside, *SHAPES[name]), theirs(outside, *SHAPES[name]), rtol=1e-13)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", [*DENSITIES, *SHARES])
def test_nan_and_invalid_parameters_give_nan(name: str, method: str) -> None:
    ours, theirs = getattr(getattr(stats, name), method), getattr(getattr(scipy.stats, name), method)
    x = numpy.array([numpy.nan, -1.0, 0.5, 2.0])
    good = (*SHAPES[name], 0.05, 1.3)
    calls = [good]
    for i in range(len(good)):
        bad = [numpy.nan] if i == len(good) - 2 else [numpy.nan, 0.0, -1.0, numpy.array([1.0, -2.0, numpy.nan, 1.5])]
        calls += [(*good[:i], b, *good[i + 1 :]) for b in bad]
    for parameters in calls:
        expected = theirs(x, *parameters)
        value, pull = vjp(lambda x, p=parameters: ours(x, *p), x)
        numpy.testing.assert_allclose(value, expected, rtol=1e-13)
        numpy.testing.assert_array_equal(value, ours(x, *parameters))
        with numpy.errstate(invalid="ignore"):  # the logarithm of zero
            assert numpy.isfinite(pull(numpy.isfinite(value).astype(float))[0][numpy.isfinite(value)]).all()
    gradient = grad(lambda x, scale: numpy.sum(ours(x, *SHAPES[name], scale=scale)), 1)(x[2:], numpy.array([-1.0, 1.0]))
    assert numpy.isnan(gradient).tolist() == [True, False]


@pytest.mark.parametrize("name", ["gamma", "chi2", "beta"])
def test_a_sample_at_an_end_of_the_support_adds_nothing_to_the_gradient_in_parameters(name: str) -> None:
    """There the density is 0 whatever the shapes and the scale."""
    shapes = {"gamma": (2.5,), "chi2": (5.0,), "beta": (2.5, 3.5)}[name]
    inside = 0.1 + AT
    ends = [0.1, 2.1] if name == "beta" else [0.1]

    def total(x: Any) -> Any:
        return vjp(
            lambda *p: numpy.sum(getattr(stats, name).pdf(x, *p[:-1], 0.1, p[-1])), *map(numpy.float64, (*shapes, 2.0))
        )

    (value, pull), (expected, pull_inside) = total(numpy.array([*ends, *inside])), total(inside)
    assert value == expected
    numpy.testing.assert_allclose(pull(1.0), pull_inside(1.0), rtol=1e-14)


def test_a_gradient_in_the_shape_beside_a_sample_at_the_edge() -> None:
    """The value is mpmath's, of the samples 1 and 2: at 0 the density is 0 for every shape above 1."""
    found = grad(lambda a: numpy.sum(stats.gamma.pdf(numpy.array([0.0, 1.0, 2.0]), a)))(2.3)
    assert found == pytest.approx(-0.16260720851808336, rel=1e-14)


def test_slopes_of_densities_at_an_end_of_the_support() -> None:
    """One-sided, of x exp(-x / s) / s^2: 1 / s^2, then -2 / s^3; by the scale -2 / s^3."""
    pdf = lambda x, s: stats.gamma.pdf(x, 2.0, 0.0, s)  # noqa: E731
    assert grad(pdf)(0.0, 4.0) == 1 / 16
    assert grad(grad(pdf))(0.0, 4.0) == grad(grad(pdf), 1)(0.0, 4.0) == -1 / 32
    assert grad(stats.beta.pdf)(1.0, 2.0, 2.0) == pytest.approx(-6, rel=1e-14)
    assert grad(stats.gamma.pdf)(0.0, 2.0, scale=1e-150) == pytest.approx(1e300)
    with numpy.errstate(divide="ignore"):
        assert grad(stats.gamma.pdf)(0.0, 1.5) == math.inf


def test_parameters_by_name() -> None:
    assert stats.gamma.pdf(0.7, a=2.0) == stats.gamma.pdf(0.7, 2.0)
    assert stats.beta.cdf(0.7, 2.0, scale=2.0, b=3.0) == stats.beta.cdf(0.7, 2.0, 3.0, 0, 2.0)
    assert grad(lambda a: stats.gamma.pdf(0.7, a=a))(2.0) == grad(stats.gamma.pdf, 1)(0.7, 2.0)
    for given, named in (((), {}), ((), {"b": 2.0}), ((2.0,), {"a": 3.0}), ((2.0, 0, 1, 1), {})):
        with pytest.raises(TypeError, match="gamma takes a, loc, scale, the last two if wanted, and got"):
            stats.gamma.pdf(0.7, *given, **named)
        with pytest.raises(TypeError):
            scipy.stats.gamma.pdf(0.7, *given, **named)


@pytest.mark.parametrize("x", [1e-6, 30.0, 40.0, 700.0])
def test_shares_close_to_one_keep_their_digits(x: float) -> None:
    tail = math.exp(-x)
    assert stats.expon.logcdf(x) == pytest.approx(math.log1p(-tail) if x > 1 else math.log(-math.expm1(-x)), rel=1e-15)
    assert grad(stats.expon.cdf)(x) == pytest.approx(tail, rel=1e-15)
    assert grad(stats.expon.logcdf)(x) == pytest.approx(tail / -math.expm1(-x), rel=1e-14)
    assert stats.expon.logsf(x) == -x


@pytest.mark.parametrize("half", [1, 4, 10, 11, 30, 1000, 20000])
def test_students_law_of_any_degrees_of_freedom(half: int) -> None:
    x, df = numpy.array([0.0, 0.5, 3.0]), 2 * half
    ratio = half * math.comb(df, half) / 4**half / math.sqrt(df)  # gamma(half + 1/2) / gamma(half) / sqrt(pi df)
    expected = math.log(ratio) - (df + 1) / 2 * numpy.log1p(x**2 / df)
    numpy.testing.assert_allclose(stats.t.logpdf(x, df), expected, rtol=16 * EPS)
    numpy.testing.assert_allclose(vjp(lambda x: stats.t.pdf(x, df), x)[0], numpy.exp(expected), rtol=16 * EPS)
    if df < 100:
        check_grads(stats.t.logpdf, order=2)(x, numpy.float64(df))


@pytest.mark.parametrize("df", [1e9, 1e12, 1e15, 1e17, 1e300, numpy.inf])
def test_students_law_tends_to_the_normal_law(df: float) -> None:
    x = numpy.array([0.0, 0.5, 3.0])
    first = (x**4 - 2 * x**2 - 1) / 4  # the first term of the expansion in 1 / df
    value, pull = vjp(stats.t.logpdf, x, numpy.float64(df))
    numpy.testing.assert_allclose(value, scipy.stats.norm.logpdf(x) + first / df, rtol=8 * EPS)
    numpy.testing.assert_allclose(pull(numpy.ones(3))[1], -numpy.sum(first) / df / df, rtol=0, atol=1e-14 / df)
    numpy.testing.assert_allclose(stats.t.cdf(x, df), scipy.stats.t.cdf(x, df), rtol=1e-13)


def test_what_a_law_has_besides_is_scipys() -> None:
    assert stats.norm.median() == 0
    assert stats.describe is scipy.stats.describe
    numpy.testing.assert_allclose(stats.norm.sf(30.0), scipy.stats.norm.sf(30.0), rtol=1e-13)
    numpy.testing.assert_allclose(stats.norm.logsf(AT, 0.1, 2.0), scipy.stats.norm.logsf(AT, 0.1, 2.0), rtol=1e-13)
    check_grads(stats.norm.logsf)(AT)
    check_grads(stats.norm.sf)(AT)


def test_laws_are_called_and_copied_as_scipys() -> None:
    assert stats.gamma(2).mean() == 2
    assert pickle.loads(pickle.dumps(stats.norm)) is stats.norm
    assert copy.deepcopy(stats.dirichlet) is stats.dirichlet


def test_points_of_one_number_each() -> None:
    x = numpy.array([1.0, 2.0, 3.0])
    for arguments in ((), (None, 2.0), ([1.0], [[2.0]])):
        value, pull = vjp(lambda x, a=arguments: stats.multivariate_normal.logpdf(x, *a), x)
        numpy.testing.assert_allclose(value, scipy.stats.multivariate_normal.logpdf(x, *arguments), rtol=1e-12)
        mean, variance = (0 if not arguments or arguments[0] is None else 1), (2 if arguments else 1)
        numpy.testing.assert_allclose(pull(numpy.ones(3))[0], (mean - x) / variance)


def test_laws_of_numbers_and_vectors() -> None:
    k = numpy.array([0, 1, 4, -1])
    invalid = numpy.array([numpy.nan, 0, 0, -1, -1, 1.5]), numpy.array([2, -1, numpy.nan, -1, 2, 2])
    with numpy.errstate(divide="ignore"):
        for method in ("pmf", "logpmf", "cdf", "sf"):
            ours, theirs = getattr(stats.poisson, method), getattr(scipy.stats.poisson, method)
            numpy.testing.assert_allclose(ours(k, 1.5, loc=1), theirs(k, 1.5, loc=1), rtol=1e-13)
            numpy.testing.assert_allclose(ours(*invalid), theirs(*invalid), rtol=1e-13)
            value, pull = vjp(lambda mu, f=ours: f(invalid[0], mu), invalid[1])
            numpy.testing.assert_array_equal(numpy.isnan(pull(numpy.ones(6))[0]), numpy.isnan(value))
            numpy.testing.assert_allclose(vjp(lambda mu, f=ours: f(k, mu), AT[:4])[0], theirs(k, AT[:4]), rtol=1e-13)
            check_grads(lambda mu, f=ours: f(k[:3], mu))(AT[:3])
    a = RNG.standard_normal((3, 3))
    cov, mean, points = a @ a.T + numpy.eye(3), RNG.standard_normal(3), RNG.standard_normal((2, 4, 3))
    for method in ("pdf", "logpdf"):
        ours, theirs = getattr(stats.multivariate_normal, method), getattr(scipy.stats.multivariate_normal, method)
        numpy.testing.assert_allclose(ours(points, mean, cov), theirs(points, mean, cov), rtol=1e-12)
        numpy.testing.assert_allclose(ours(points[0, 0], mean, 2.0), theirs(points[0, 0], mean, 2.0), rtol=1e-12)
        check_grads(lambda x, m, c, f=ours: f(x, m, c))(points, mean, cov)
    assert (
        abs(stats.multivariate_normal.entropy(mean, cov) - scipy.stats.multivariate_normal.entropy(mean, cov)) < 1e-12
    )
    check_grads(lambda c: stats.multivariate_normal.entropy(mean, c))(cov)
    alpha, x = numpy.array([1.5, 2.5, 0.7]), numpy.array([0.2, 0.5, 0.3])
    for method in ("logpdf", "pdf"):
        ours, theirs = getattr(stats.dirichlet, method), getattr(scipy.stats.dirichlet, method)
        numpy.testing.assert_allclose(ours(x, alpha), theirs(x, alpha), rtol=1e-13)
        numpy.testing.assert_allclose(
            ours(numpy.stack([x, x], 1), alpha), theirs(numpy.stack([x, x], 1), alpha), rtol=1e-13
        )
        check_grads(lambda x, alpha, f=ours: f(np.append(x, 1 - np.sum(x)), alpha))(x[:2], alpha)
    numpy.testing.assert_allclose(grad(stats.dirichlet.logpdf)(x, alpha), (alpha - 1) / x, rtol=1e-13)
    numpy.testing.assert_allclose(stats.dirichlet.pdf(x.astype(np.float32), alpha), ours(x, alpha), rtol=1e-6)


@pytest.mark.parametrize(
    ("law", "arguments", "message"),
    [
        ("multivariate_normal", ([0, 0], [0, 0], [[-1, 0], [0, -1]]), "least eigenvalue is -1"),
        ("multivariate_normal", ([0, 0], [0, 0], [[1, 2], [2, 1]]), "least eigenvalue is -1"),
        ("multivariate_normal", ([0, 0], [0, 0], [[1, 0], [0, numpy.nan]]), "not positive definite"),
        ("dirichlet", ([0.5, 0.9], [1, 2]), "sum to 1"),
        ("dirichlet", ([-0.5, 1.5], [1, 2]), "not negative"),
        ("dirichlet", ([0, 1], [0.5, 2]), "nor 0"),
        ("dirichlet", ([0.5, 0.5], [0, 2]), r"positive parameters, not \[0\. 2\.\]"),
    ],
)
def test_what_the_laws_of_vectors_refuse(law: str, arguments: Any, message: str) -> None:
    arrays = [numpy.array(a, float) for a in arguments]
    for method in ("pdf", "logpdf"):
        ours = getattr(getattr(stats, law), method)
        for call in (ours, lambda *a, f=ours: vjp(f, *a)):
            with pytest.raises(ValueError, match=message) as error:
                call(*arrays)
            assert "\n" not in str(error.value)
        with pytest.raises(ValueError):
            getattr(getattr(scipy.stats, law), method)(*arrays)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_normal_laws_of_singular_covariance(rank: int) -> None:
    """Values against SciPy's; derivatives against those of a regular law of `rank` numbers, in a basis of the range."""
    basis = numpy.linalg.qr(RNG.standard_normal((3, 3)))[0]
    a = RNG.standard_normal((rank, rank))
    inner = a @ a.T + numpy.eye(rank)
    cov, mean = basis[:, :rank] @ inner @ basis[:, :rank].T, RNG.standard_normal(3)
    points = mean + RNG.standard_normal((4, rank)) @ basis[:, :rank].T
    beside = points + basis[:, -1]
    for x in (points, beside):
        expected = scipy.stats.multivariate_normal.logpdf(x, mean, cov, allow_singular=True)
        numpy.testing.assert_allclose(stats.multivariate_normal.logpdf(x, mean, cov, True), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="not positive semidefinite: its least eigenvalue is -"):
        stats.multivariate_normal.logpdf(points, mean, cov - 100 * numpy.eye(3), allow_singular=True)
    if rank == 0:
        return
    value, pull = vjp(lambda x, m, c: stats.multivariate_normal.pdf(x, m, c, allow_singular=True), points, mean, cov)
    flat, pull_flat = vjp(
        lambda x, m, c: stats.multivariate_normal.pdf(x, m, c),
        *(points @ basis[:, :rank], mean @ basis[:, :rank], inner),
    )
    numpy.testing.assert_allclose(value, flat, rtol=1e-12)
    w = RNG.standard_normal(4)
    for g, h in zip(pull(w), pull_flat(w), strict=True):
        expected = h @ basis[:, :rank].T
        expected = basis[:, :rank] @ expected if g.shape == cov.shape else expected
        numpy.testing.assert_allclose(g, expected, rtol=1e-9, atol=1e-12)


def test_nan_passes_the_laws_of_vectors() -> None:
    for law, *arrays in (
        ("multivariate_normal", [[numpy.nan, 0], [0, 1]], [0, 0], [[2, 1], [1, 2]]),
        ("dirichlet", [numpy.nan, 0.5], [1, 2]),
        ("dirichlet", [0.5, 0.5], [numpy.nan, 2]),
    ):
        arguments = [numpy.array(a, float) for a in arrays]
        expected = getattr(scipy.stats, law).logpdf(*arguments)
        numpy.testing.assert_allclose(getattr(stats, law).logpdf(*arguments), expected, rtol=1e-13)


@pytest.mark.parametrize("trans", [0, 1, 2, "T"])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("unit_diagonal", [False, True])
def test_triangular_systems(trans: Any, lower: bool, unit_diagonal: bool) -> None:
    a = RNG.standard_normal((4, 4)) + 3 * numpy.eye(4)
    for b in (RNG.standard_normal(4), RNG.standard_normal((4, 2))):
        for matrix in (a, a + 1j * RNG.standard_normal((4, 4))):
            ours = lambda a, b: linalg.solve_triangular(a, b, trans, lower, unit_diagonal)  # noqa: E731
            expected = scipy.linalg.solve_triangular(matrix, b, trans, lower, unit_diagonal)
            numpy.testing.assert_allclose(vjp(ours, matrix, b)[0], expected, rtol=1e-12)
            check_grads(ours)(matrix, b)


def test_triangular_systems_of_what_is_not_finite() -> None:
    a = numpy.array([[1.0, numpy.nan], [0.0, numpy.inf]])
    with pytest.raises(ValueError, match="infs or NaNs"):
        vjp(linalg.solve_triangular, a, numpy.ones(2))
    found = vjp(lambda a: linalg.solve_triangular(a, numpy.ones(2), check_finite=False), a)[0]
    numpy.testing.assert_array_equal(found, scipy.linalg.solve_triangular(a, numpy.ones(2), check_finite=False))


@pytest.mark.parametrize("bands", [(1, 1), (2, 1), (0, 2), (1, 0), (0, 0), (4, 3)])
def test_banded_systems(bands: tuple[int, int]) -> None:
    ab = RNG.standard_normal((sum(bands) + 1, 5))
    ab[bands[1]] += 5
    for b in (RNG.standard_normal(5), RNG.standard_normal((5, 2))):
        for diagonals in (ab, ab + 0.3j * RNG.standard_normal(ab.shape)):
            ours = lambda ab, b: linalg.solve_banded(bands, ab, b)  # noqa: E731
            numpy.testing.assert_allclose(
                vjp(ours, diagonals, b)[0], scipy.linalg.solve_banded(bands, diagonals, b), rtol=1e-12
            )
            check_grads(ours)(diagonals, b)


def test_square_roots_and_sylvester_equations() -> None:
    a, b, q = (RNG.standard_normal(shape) for shape in ((3, 3), (2, 2), (3, 2)))
    a, b = a @ a.T + numpy.eye(3), b @ b.T + numpy.eye(2)
    numpy.testing.assert_allclose(vjp(linalg.sqrtm, a)[0], scipy.linalg.sqrtm(a), rtol=1e-13)
    check_grads(linalg.sqrtm)(a)
    numpy.testing.assert_allclose(vjp(linalg.solve_sylvester, a, b, q)[0], scipy.linalg.solve_sylvester(a, b, q))
    check_grads(linalg.solve_sylvester)(a, b, q)
    assert linalg.expm is scipy.linalg.expm


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


def test_what_fftconvolve_refuses() -> None:
    for a, b, mode, message in (
        (X, X[0], "full", "have 2 and 1 axes"),
        (X, X, "half", "mode is 'half'; choose"),
        (X[:, :2], X[:2], "valid", "neither of the lengths"),
        (X, X[:0], "full", "nothing to convolve"),
    ):
        with pytest.raises(ValueError, match=message):
            signal.fftconvolve(a, b, mode)
    with pytest.raises(ValueError, match="names an axis twice"):
        signal.fftconvolve(X, X, axes=(1, -1))
    with pytest.raises(ValueError, match="nothing to convolve"):
        signal.convolve(X[0, :0], X[0])


def test_convolution_along_some_axes() -> None:
    a, b = RNG.standard_normal((2, 5, 6, 3)), RNG.standard_normal((4, 3, 2, 3))
    found = signal.convolve(a, b, "valid", axes=([1, 2], [2, 3]), dot_axes=([3], [1]))
    assert found.shape == (2, 4, 4, 4)
    expected = sum(scipy.signal.convolve(a[1, :, :, c], b[3, c], "valid") for c in range(3))
    numpy.testing.assert_allclose(found[1, 3], expected, rtol=0, atol=1e-13)
    check_grads(lambda a, b: signal.convolve(a, b, axes=([1, 2], [2, 3]), dot_axes=([3], [1])))(a, b)
    with pytest.raises(ValueError, match="mode is 'half'; choose"):
        signal.convolve(a, a, "half")
    with pytest.raises(ValueError, match="4 and 3 axes; without axes="):
        signal.convolve(a, a[0])
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
