"""Every rule at every precision: values and dtypes are NumPy's, and gradients do not depend on an integer's bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import scipy.special

from autodiff import getval, grad, hessian, tree_leaves, tree_map, vjp
from autodiff.scipy.special import polygamma
from autodiff.tape import HANDLERS, Trace
from tests.autodiff.rule_cases import CASES, Case

Arrays = Sequence[Any]
PRECISIONS = {"f": ("float16", "float32", "float64"), "c": ("complex64", "complex128")}
EXTREMES = {"int8": [127, -128, 100, -3, 1], "uint8": [255, 200, 0, 1, 3]}

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::numpy.exceptions.ComplexWarning")


class Call(Exception):
    """A call of one of NumPy's functions: the function, its arguments and its keywords."""


class Slot:
    """Stands for the i-th array of a case, and raises the first call that it takes part in."""

    def __init__(self, i: int, array: Any) -> None:
        self.i, self.shape, self.ndim, self.dtype = i, array.shape, array.ndim, array.dtype

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        raise Call(ufunc if method == "__call__" else getattr(ufunc, method), args, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise Call(function, args, kwargs)


def filled(tree: Any, arrays: Arrays) -> Any:
    return tree_map(lambda leaf: arrays[leaf.i] if isinstance(leaf, Slot) else leaf, tree)


def with_dtypes(case: Case) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The case's function with each dtype that an answer may be asked for; nothing where it takes none."""
    if "dtype" not in getattr(HANDLERS.get(case.function), "keywords", ()):
        return
    try:
        case.call(*itertools.starmap(Slot, enumerate(case.args)))
    except Call as call:
        function, args, kwargs = call.args
        for dtype in ("bool", "int8", "uint8", "int64", *PRECISIONS["f"], *PRECISIONS["c"]):
            options = {**kwargs, "dtype": dtype}
            yield dtype, lambda *v, o=options: function(*filled(args, v), **filled(o, v))
    except (TypeError, AttributeError):
        return  # it calls a method, or works on the array before


def answers(call: Callable[..., Any], args: Arrays) -> Any:
    """What a call returns, as plain arrays, or the error that it raises."""
    try:
        return [np.asarray(getval(leaf)) for leaf in tree_leaves(call(*args))]
    except Exception as error:
        return error


def traced_answers(call: Callable[..., Any], args: Arrays) -> Any:
    with Trace() as trace:
        return answers(call, [trace.start(arg) if arg.dtype.kind in "fc" else arg for arg in args])


def difference(call: Callable[..., Any], args: Arrays) -> str | None:
    """How traced values differ from NumPy's. A refusal is none: nothing is lost in silence."""
    expected, values = answers(call, args), traced_answers(call, args)
    if isinstance(values, TypeError | ValueError):
        return None
    if isinstance(expected, Exception) or isinstance(values, Exception):
        return f"{expected!r} {values!r}"
    for a, b in zip(expected, values, strict=True):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"{a.dtype}{a.shape} {b.dtype}{b.shape}"
        coarse = max((np.finfo(x.dtype).eps for x in (*args, a) if x.dtype.kind in "fc"), default=0)
        if a.dtype.kind not in "fc":
            coarse = 0
        scale = np.max(np.abs(a[np.isfinite(a)]), initial=1)
        if not np.allclose(a, b, rtol=64 * coarse, atol=64 * coarse * scale, equal_nan=True):
            return f"{a} {b}"
    return None


def mixed(case: Case) -> Iterator[list[Any]]:
    """The arrays of a case in all precisions, and one of them as integers."""
    for dtypes in itertools.product(*(PRECISIONS[arg.dtype.kind] for arg in case.args)):
        yield [arg.astype(dtype) for arg, dtype in zip(case.args, dtypes, strict=True)]
    for i, precision in itertools.product(range(len(case.args)), ("float16", "float32")):
        for dtype in ("int8", "bool") if len(case.args) > 1 else ():
            arrays = [arg if arg.dtype.kind == "c" else arg.astype(precision) for arg in case.args]
            arrays[i] = np.abs(np.round(3 * arrays[i].real)).astype(dtype)
            yield arrays


def differences_of_mixed(cases: Sequence[Case]) -> list[Any]:
    return [
        (case.function, [arg.dtype.name for arg in args], report)
        for case in cases
        for args in mixed(case)
        if (report := difference(case.call, args))
    ]


def test_mixed_precision_is_numpys() -> None:
    assert not differences_of_mixed(CASES)


def test_every_dtype_that_is_asked_for_is_numpys() -> None:
    calls = [(case, dtype, call) for case in CASES for dtype, call in with_dtypes(case)]
    assert len({case.function for case, *_ in calls}) >= 16
    reports = [
        (case.function, dtype, precision, report)
        for case, dtype, call in calls
        for precision in ("float16", "float64")
        if (report := difference(call, [x.astype(precision) if x.dtype.kind == "f" else x for x in case.args]))
    ]
    assert not reports


def test_whole_numbers_between_two_ends() -> None:
    expected = [-4, -2, 0, 2, 4, 6, 8, 10]
    assert np.linspace(-4.0, 10.0, 8, dtype=int).tolist() == expected
    for call in (
        lambda x: np.linspace(x, 10.0, 8, dtype=int),
        lambda x: np.linspace(x, 10.0, 8, True, False, np.int8),
        lambda x: np.linspace(-4.0, x + 14, 8, dtype=">i4"),
    ):
        assert traced_answers(call, [np.asarray(-4.0)])[0].tolist() == expected
    assert grad(lambda x: np.sum(np.linspace(x, 10.0, 8, dtype=int) * x))(-4.0) == 24


def gradients(call: Callable[..., Any], args: Arrays, constant: int) -> Any:
    """Values, and the gradients of the sum of all, by all arguments but one."""
    others = [i for i in range(len(args)) if i != constant]

    def of_others(*values: Any) -> Any:
        chosen = dict(zip(others, values, strict=True))
        return call(*(chosen.get(i, arg) for i, arg in enumerate(args)))

    value, pull = vjp(of_others, *(args[i] for i in others))
    return tree_leaves(value), pull(tree_map(np.ones_like, value))


def companions(arg: Any) -> Iterator[Any]:
    """Integers of few bits in the place of an argument: those near it, the extreme ones, and each alone."""
    for dtype, extremes in EXTREMES.items():
        yield np.abs(np.round(3 * arg.real)).astype(dtype)
        yield np.resize(np.array(extremes, dtype), arg.shape)
        yield from np.array(extremes, dtype)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if len(case.args) > 1],
    ids=lambda case: getattr(case.function, "__name__", "function"),
)
def test_gradients_beside_integers_of_few_bits_do_not_wrap_around(case: Case) -> None:
    for i, arg in enumerate(case.args):
        for integers in companions(arg):
            wide = np.multiply(integers, 1.0)
            exact, given = ([*case.args[:i], x, *case.args[i + 1 :]] for x in (wide, integers))
            expected = answers(case.call, exact)
            if isinstance(expected, Exception) or difference(lambda *v: case.call(*v), given) is not None:
                continue  # no matrix, or no mask, is made of such numbers
            if any(
                a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=True)
                for a, b in zip(expected, answers(case.call, given), strict=True)
            ):
                continue  # NumPy itself wraps around
            try:
                _, of_integers = gradients(case.call, given, i)
            except (TypeError, np.linalg.LinAlgError):
                continue
            for g, h in zip(gradients(case.call, exact, i)[1], of_integers, strict=True):
                scale = np.max(np.abs(g[np.isfinite(g)]), initial=0)
                np.testing.assert_allclose(h, g, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("y", [np.int8(-128), np.int16(-300), np.uint8(0), np.uint8(1), np.int8(2), np.bool_(True)])
def test_powers_of_integers_of_few_bits(y: Any) -> None:
    for x in (1.1, 0.9, -1.5):
        slope = float(y) * x ** (float(y) - 1)
        assert grad(lambda x: x**y)(x) == pytest.approx(slope, rel=1e-13)
        assert grad(lambda x: np.power(x, np.array(y)))(x) == pytest.approx(slope, rel=1e-13)
        curvature = float(y) * (float(y) - 1) * x ** (float(y) - 2)
        assert grad(grad(lambda x: x**y))(x) == pytest.approx(curvature, rel=1e-13)


@pytest.mark.parametrize(
    "call",
    [
        lambda x, n: np.diag(x, n(2)),
        lambda x, n: np.diag(x, n(200)),
        lambda x, n: np.trace(np.outer(x, x), n(1)),
        lambda x, n: np.diagonal(np.outer(x, x), n(1)),
        lambda x, n: np.tile(x, n(200)),
        lambda x, n: np.tile(x, (n(100), n(3))),
        lambda x, n: np.repeat(x, n(200)),
        lambda x, n: np.linspace(x, 1.0, n(3)),
        lambda x, n: np.linspace(x, 1.0, n(0)),
        lambda x, n: np.gradient(x, n(200)),
        lambda x, n: np.roll(x, n(1)),
        lambda x, n: np.var(x, ddof=n(1)),
    ],
)
def test_options_that_are_integers_of_few_bits(call: Any) -> None:
    x = np.random.default_rng(0).standard_normal(5)
    expected, pull = vjp(lambda x: call(x, int), x)
    value, pull_of_few = vjp(lambda x: call(x, np.uint8), x)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(pull_of_few(np.ones_like(value))[0], pull(np.ones_like(value))[0])


@pytest.mark.parametrize("order", [None, 2])
def test_second_derivatives_of_norms_at_zero(order: Any) -> None:
    zero = np.zeros(3)
    assert not hessian(lambda x: np.linalg.norm(x, order))(zero).any()
    assert not hessian(lambda x: np.hypot(x[0], x[1]))(zero).any()
    assert not hessian(lambda x: np.sum(np.abs(x + 1j * x[::-1])))(zero).any()
    assert not hessian(lambda x: np.sum(np.linalg.norm(np.outer(x, x), order, axis=1)))(zero).any()
    x = np.array([1.0, 2.0, 2.0])
    np.testing.assert_allclose(hessian(np.linalg.norm)(x), (np.eye(3) - np.outer(x, x) / 9) / 3, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("statistic", [np.var, np.std])
@pytest.mark.parametrize("ddof", [1, 2, 3, 2.5])
def test_a_variance_of_no_more_elements_than_ddof_is_numpys(statistic: Any, ddof: float) -> None:
    """Infinite, or NaN where all elements are equal; never negative."""
    x = np.array([[1.0, 2.0], [3.0, 3.0]])
    for options in ({"axis": 1}, {"axis": 1, "where": np.array([[True, True], [False, True]])}, {"axis": 0}):
        (found,) = traced_answers(lambda x, o=options: statistic(x, ddof=ddof, **o), [x])
        np.testing.assert_array_equal(found, statistic(x, ddof=ddof, **options))


def test_the_derivative_of_an_order_of_few_bits_has_the_next_order() -> None:
    assert grad(lambda x: polygamma(np.int8(127), x))(3.0) == pytest.approx(
        scipy.special.polygamma(128, 3.0), rel=1e-12
    )


def test_averages_of_many_numbers_of_half_precision() -> None:
    """Sums of halves end at 65,504, where NumPy's average is NaN."""
    x = np.full(70_000, 3, np.float16)
    value, pull = vjp(lambda x: np.average(x, weights=np.ones_like(x)), x)
    assert value == 3 and value.dtype == np.float16
    np.testing.assert_allclose(pull(np.float16(1))[0], 1 / 70_000, rtol=0.01)
