"""Derivatives where digits are easily lost: long sums, differences of almost equal numbers, mixed dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special as sp

import autodiff as ad
import hcnn_core
from autodiff import elementwise_grad, grad, hessian, vjp
from tests.core.oracle import eps, noise

DERIVATIVES: list[tuple[Any, tuple[float, ...], int, float, float]] = [
    # a function, where, by which argument, the first and the second derivative: by mpmath, of 170 digits
    (np.expm1, (-30.0,), 0, 9.357622968840175e-14, 9.357622968840175e-14),
    (np.tanh, (20.0,), 0, 1.6993417021166355e-17, -3.398683404233271e-17),
    (np.tanh, (-3.0,), 0, 0.00986603716544019, 0.019634494363042435),
    (sp.expit, (30.0,), 0, 9.357622968838423e-14, -9.357622968836672e-14),
    (sp.expit, (-40.0,), 0, 4.248354255291589e-18, 4.248354255291589e-18),
    (sp.log_expit, (30.0,), 0, 9.357622968839299e-14, -9.357622968838423e-14),
    (sp.log_expit, (-30.0,), 0, 0.9999999999999064, -9.357622968838423e-14),
    (np.arcsinh, (-1e20,), 0, 1e-20, 1e-40),
    (np.arcsinh, (1e200,), 0, 1e-200, 0.0),
    (np.arcsin, (0.9999999999999,), 0, 2235720.41126528, 1.1175127204304577e19),
    (np.arccos, (-0.9999999999999,), 0, -2235720.41126528, 1.1175127204304577e19),
    (np.arctanh, (0.9999999999999,), 0, 4998445757348.192, 4.996891997829929e25),
    (sp.rgamma, (0.0,), 0, 1.0, 1.1544313298030657),
    (sp.rgamma, (-1.0,), 0, -1.0, 0.8455686701969343),
    (sp.rgamma, (-2.0,), 0, 2.0, -3.6911373403938685),
    (sp.rgamma, (-2.0000001,), 0, 2.000000369113672, -3.6911361143516928),
    (sp.rgamma, (3.0,), 0, -0.46139216754923357, 0.22829843112744683),
    (sp.betaln, (1e10, 1.0), 0, -1e-10, 1e-20),
    (sp.betaln, (1e10, 1.0), 1, -23.603066594891988, 1.6449340667482264),
    (sp.betaln, (3.0, 1e-10), 0, -3.949340668405208e-11, 1.541138063132416e-11),
    (sp.betaln, (3.0, 1e-10), 1, -10000000001.5, 1e20),
    (sp.betaln, (1e5, 2.5), 0, -2.4999812502499965e-05, 2.499962500749986e-10),
    (sp.betaln, (1e5, 2.5), 1, -10.809788824129154, 0.490347756300231),
    (sp.beta, (40.0, 1e-8), 0, -0.025315102761298114, 0.0006408202508240707),
    (sp.kl_div, (3.0, 3.000000001), 0, -3.3333336085790143e-10, 0.3333333333333333),
    (sp.kl_div, (3.0, 3.000000001), 1, 3.3333336080234586e-10, 0.3333333331111111),
    (sp.kl_div, (1e-200, 1e200), 0, -921.0340371976183, 1e200),
    (sp.kl_div, (1e-200, 1e200), 1, 1.0, 0.0),
    (sp.kl_div, (5.0, 5.0), 0, 0.0, 0.2),
    (sp.kl_div, (5.0, 5.0), 1, 0.0, 0.2),
    (sp.rel_entr, (1e-200, 1e200), 0, -920.0340371976183, 1e200),
    (sp.gammainc, (1e10, 1e10 + 1e5), 1, 2.419691113903898e-06, -2.4196911139038978e-11),
    (sp.gammainc, (300.0, 250.0), 1, 0.0002522088535943722, 4.943293530449695e-05),
    (sp.i0e, (60.0,), 0, -0.00043191898458112284, 1.0844132678433691e-05),
    (sp.i0e, (1e8,), 0, -1.9947114094873313e-13, 2.9920671217111648e-21),
    (sp.i1e, (-1e8,), 0, -1.99471137956666e-13, -2.9920670469094864e-21),
    (np.logaddexp, (1e10, 1e10), 0, 0.5, 0.25),
    (np.logaddexp, (-1e16, 4 - 1e16), 0, 0.01798620996209156, 0.017662706213291118),
    (np.logaddexp2, (1e10, 1e10 + 4), 1, 0.9411764705882353, 0.038374930411623265),
    (np.hypot, (1e8, 1.0), 0, 1.0, 1e-24),
    (np.hypot, (1e8, 1.0), 1, 1e-08, 1e-08),
    (np.hypot, (-1e150, 0.001), 0, -1.0, 0.0),
    (np.hypot, (1e-200, 1e-190), 1, 1.0, 1e170),
    (sp.dawsn, (0.5,), 0, 0.5755636164979777, -1.4244363835020224),
    (sp.dawsn, (7.5,), 0, -0.00913717466945924, 0.0025059967526273653),
    (sp.dawsn, (1e5,), 0, -5.00000000075e-11, 1.0000000003e-15),
    (sp.erfcx, (0.5,), 0, -0.5126888229025867, 0.718691865483265),
    (sp.erfcx, (-2.0,), 0, -436.8919967270074, 1965.4497956879854),
    (sp.erfcx, (7.5,), 0, -0.009773771152362328, 0.0025408188403184336),
    (sp.erfcx, (1e5,), 0, -5.641895834631278e-11, 1.1283791667569989e-15),
]

BEFORE_THE_TAIL: list[tuple[Any, float, float, float]] = [
    # where erfcx and dawsn are still near the first term of their series, and no series is used: by mpmath too
    (sp.dawsn, 3.0, -0.06962618366334973, 0.06121504075898177),
    (sp.dawsn, -6.9, -0.010851659569168347, -0.0032526615372524288),
    (sp.erfcx, 3.0, -0.05437226000717287, 0.03176874231974267),
    (sp.erfcx, 6.9, -0.01149516542104348, 0.0032339638090882515),
]


@pytest.mark.parametrize(
    ("function", "args", "argnum", "first", "second"),
    DERIVATIVES,
    ids=[f"{case[0].__name__}-{i}" for i, case in enumerate(DERIVATIVES)],
)
def test_derivatives_in_the_tails(function: Any, args: Any, argnum: int, first: float, second: float) -> None:
    slope = grad(function, argnum)
    for found, exact in ((slope(*args), first), (grad(slope, argnum)(*args), second)):
        assert abs(found - exact) <= 100 * np.finfo(float).eps * abs(exact)


@pytest.mark.parametrize(("function", "x", "first", "second"), BEFORE_THE_TAIL)
def test_derivatives_before_the_tail(function: Any, x: float, first: float, second: float) -> None:
    """Two terms about 2 x^2 times as large as the first derivative cancel, and once more in the second."""
    slope = grad(function)
    assert abs(slope(x) - first) <= 8 * x**2 * np.finfo(float).eps * abs(first)
    assert abs(grad(slope)(x) - second) <= 8 * x**4 * np.finfo(float).eps * abs(second)


def test_numbers_of_both_signs_beside_each_other_in_beta_functions() -> None:
    """The series is for positive numbers; what is beside them keeps the difference of digammas."""
    a, b = np.array([2.0, -1.5, 2.0]), np.array([1e-9, 0.7, -0.3])
    found = vjp(sp.betaln, a, b)[1](np.ones(3))
    for g, c in zip(found, (a, b), strict=True):
        np.testing.assert_allclose(g[1:], (sp.psi(c) - sp.psi(a + b))[1:], rtol=1e-13)
    assert found[0][0] == pytest.approx(-1e-9 * sp.polygamma(1, 2), rel=1e-8)


def test_long_sums_over_what_was_broadcast() -> None:
    x, b = np.full((1 << 18, 4), 0.1, np.float32), np.zeros(4, np.float32)
    for call in (lambda b: np.sum(ad.elu(x, bias=b)) * 0.1, lambda b: np.sum(x + b) * 0.1):
        found = grad(call)(b)
        assert found.dtype == "float32" and np.abs(found / (0.1 * (1 << 18)) - 1).max() < 1e-6
    half = grad(lambda b: np.sum((np.ones((5000, 2), np.float16) + b).astype(np.float32)))(np.zeros(2, np.float16))
    assert half.dtype == "float16" and half.tolist() == [5000, 5000]


def test_long_sums_over_what_was_picked_again_and_again() -> None:
    for dtype, n in (("float32", 1 << 18), ("complex64", 1 << 18), ("float16", 5000)):
        g = np.full(n, 1 if dtype == "float16" else 0.1, dtype)
        (found,) = vjp(lambda a, n=n: a[np.zeros(n, int)], np.ones(1, dtype))[1](g)
        assert found.dtype == dtype and abs(found[0] / (n * complex(g[0])) - 1) < 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_a_class_that_is_ruled_out(smoothing: float) -> None:
    logits, labels = np.array([[0, -np.inf], [1.0, 2.0]]), np.array([0, 1])
    expected = hcnn_core.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert np.isfinite(expected) == (smoothing == 0)
    assert ad.cross_entropy(logits, labels, label_smoothing=smoothing) == pytest.approx(expected, rel=1e-12)
    if not smoothing:
        value, pull = vjp(lambda x: ad.cross_entropy(x, labels), logits)
        assert value == pytest.approx(expected, rel=1e-12)
        assert np.allclose(pull(1.0)[0], [[0, 0], [np.exp(-1) / (1 + np.exp(-1)) / 2, -1 / (1 + np.e) / 2]])
    assert ad.cross_entropy([[1.0, 2.0]], [0]) == pytest.approx(np.log1p(np.e))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tails_of_error_functions(dtype: str) -> None:
    """Against the first terms of their asymptotic series, and smooth where one formula takes over from the other."""
    x = np.array([200.0, 1e3, 1e4], dtype)
    bound = dict(rtol=max(20 * eps(dtype), 1e-8), atol=0)
    np.testing.assert_allclose(elementwise_grad(elementwise_grad(sp.log_ndtr))(-x), -1 + 1 / x**2 - 6 / x**4, rtol=1e-6)
    np.testing.assert_allclose(
        elementwise_grad(sp.erfcx)(x), -1 / (np.sqrt(np.pi) * x**2) * (1 - 1.5 / x**2 + 3.75 / x**4), **bound
    )
    np.testing.assert_allclose(elementwise_grad(sp.dawsn)(x), -1 / (2 * x**2) * (1 + 1.5 / x**2 + 3.75 / x**4), **bound)
    for edge in (10, 50):
        near = np.array([edge - 1e-3, edge + 1e-3])
        for function, sign in ((elementwise_grad(sp.log_ndtr), -1), (sp.erfcx, 1), (sp.dawsn, 1), (sp.dawsn, -1)):
            below, above = elementwise_grad(function)(sign * near)
            assert below == pytest.approx(above, rel=1e-3)


def test_infinities_and_rounded_quotients() -> None:
    assert grad(lambda a: np.logaddexp(a, 0.0))(np.inf) == grad(lambda a: np.logaddexp2(a, 0.0))(np.inf) == 1
    assert grad(lambda a: np.logaddexp(a, 0.0))(-np.inf) == 0


def test_gradients_of_mixed_dtypes_are_those_of_the_wider_one() -> None:
    x, h, shift = (noise(i, shape, "float32") for i, shape in enumerate([(2, 6, 6, 4), (3, 3, 5), (5,)]))
    g, bias = noise(3, (5, 3, 2), "float64"), noise(4, (2,), "float64")
    options: dict[str, Any] = {"boundary": "periodic"}

    def loss(x: Any, h: Any, shift: Any, g: Any, bias: Any) -> Any:
        return np.sum(ad.factored_layer(x, h, shift, g, bias, (1, 2), 3, **options) ** 2)

    found = grad(loss, (0, 1, 2, 3, 4))(x, h, shift, g, bias)
    expected = grad(loss, (0, 1, 2, 3, 4))(*(a.astype("float64") for a in (x, h, shift)), g, bias)
    for given, one, other in zip((x, h, shift, g, bias), found, expected, strict=True):
        assert one.dtype == given.dtype
        assert np.abs(one - other).max() <= 100 * eps(given.dtype) * np.abs(other).max()


def test_written_out_filters_check_as_the_library_does() -> None:
    h, mean, covariance = noise(0, (2, 3), "float32"), noise(1, (3,), "float32"), np.eye(3, dtype="float32")
    assert {a.dtype.name for a in ad.normalize_filters(h, mean, covariance, epsilon=np.float64(1e-5))} == {"float32"}
    with pytest.raises(ValueError, match=r"epsilon is -9\.0; it must be finite and at least 0"):
        ad.normalize_filters(h, mean, covariance, epsilon=-9.0)
    for filters in (0, 2):
        g, bias = noise(2, (2, 3, filters), "float32"), noise(3, (filters,), "float32")
        options: dict[str, Any] = {"lengths": 8, "stride": 1, "boundary": "zero", "epsilon": 1e-3}
        one, other = (f(h, g, mean, covariance, bias, **options) for f in (ad.merge_factors, hcnn_core.merge_factors))
        for a, b in zip(one, other, strict=True):
            assert a.shape == b.shape and np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"mean": np.ones((3, 1))}, ValueError),
        ({"covariance": np.ones((3, 1))}, ValueError),
        ({"h": np.ones((2, 3), int)}, TypeError),
        ({"g": np.ones((2, 3, 4), int)}, TypeError),
        ({"bias": np.zeros(1)}, ValueError),
        ({"bias": np.zeros((3, 1))}, ValueError),
        ({"lengths": (3, 4)}, ValueError),
        ({"boundary": "reflect"}, ValueError),
    ],
)
def test_filters_that_do_not_fit_are_refused_as_by_the_library(given: dict[str, Any], error: type[Exception]) -> None:
    arrays = {"h": np.ones((2, 3)), "g": np.ones((2, 3, 4)), "mean": np.ones(3), "covariance": np.eye(3)}
    arrays |= {"bias": np.zeros(4)}
    options = {"lengths": (3,), "stride": 1, "boundary": "zero", "epsilon": 0.1}
    arrays |= {name: value for name, value in given.items() if name in arrays}
    options |= {name: value for name, value in given.items() if name in options}
    messages = []
    for function in (ad.merge_factors, hcnn_core.merge_factors):
        with pytest.raises(error) as caught:
            function(*arrays.values(), **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] or error is TypeError  # the library names real dtypes alone
    with pytest.raises(TypeError, match=r"merge_factors\(\) missing"):
        ad.merge_factors(*arrays.values())
    if given.keys() <= {"h", "mean", "covariance"}:
        with pytest.raises(error):
            ad.normalize_filters(arrays["h"], arrays["mean"], arrays["covariance"], epsilon=0.1)


def test_transposed_by_an_integer_of_numpys() -> None:
    assert np.array_equal(grad(lambda x: np.sum(x.transpose(np.int64(0)) ** 2))(np.ones(3)), np.full(3, 2.0))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("statistic", [np.mean, np.var, np.std, np.average, np.nanmean])
def test_statistics_of_more_elements_than_half_precision_counts(statistic: Any) -> None:
    """70,000 is infinite in half precision."""
    for x in (noise(0, (70_000,), "float64").astype(np.float16), np.ones(70_000, np.float16)):
        wide = x.astype(np.float64)
        value, pullback = vjp(statistic, x)
        (found,), expected = pullback(np.ones_like(value)), grad(statistic)(wide)
        assert value.dtype == found.dtype == np.float16
        assert abs(value - statistic(wide)) <= np.finfo(np.float16).eps * max(1, abs(value))
        # gradients of 1e-5 are subnormal in half precision
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max() + np.finfo(np.float16).smallest_subnormal
    assert vjp(lambda x: np.mean(x, dtype=np.float64), x)[0].dtype == np.float64


@pytest.mark.parametrize("extremum", [np.max, np.min])
def test_more_ties_than_half_precision_counts_share_the_gradient(extremum: Any) -> None:
    found = grad(extremum)(np.ones(70_000, np.float16))
    assert np.allclose(found.astype(np.float64), 1 / 70_000, rtol=2e-3)


def test_second_derivatives_of_logaddexp_far_apart() -> None:
    found = hessian(lambda v: np.logaddexp(v[0], v[1]))(np.array([40.0, 0.0]))
    assert np.array_equal(found, found.T) and 4e-18 < found[1, 1] < 5e-18
    with np.errstate(invalid="ignore"):
        assert np.isnan(grad(lambda a: np.logaddexp(a, np.inf))(np.inf))


def test_einsum_sums_over_an_ellipsis_where_numpy_does() -> None:
    x, w = noise(0, (3, 3), "float64"), np.array([1.0, 2.0, 3.0])
    assert np.array_equal(grad(lambda x: np.sum(np.einsum("...i->i", x, optimize=True) * w))(x), np.tile(w, (3, 1)))
