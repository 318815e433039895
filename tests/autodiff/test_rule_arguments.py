"""Arguments that few calls give: each value and dtype is NumPy's own, and where it matters the derivative too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autodiff import check_grads, elu, grad, vjp
from autodiff import numpy as anp
from autodiff._rules import linalg

X = np.random.default_rng(0).standard_normal((4, 3))
CUBE = np.random.default_rng(1).standard_normal((2, 3, 4))
SMALL = X.astype(np.float32)
EXACT = np.arange(1, 13, dtype=np.float32).reshape(4, 3) / 4  # sums and products of these are exact

CALLS: dict[str, tuple[Callable[..., Any], np.ndarray[Any, Any]]] = {
    "full_like, dtype": (lambda x: np.full_like(x, 2, dtype=np.float32) * x.astype(np.float32), X),
    "array, dtype": (lambda x: anp.array([x, 2 * x], dtype=np.float32), X),
    "pinv, rtol": (lambda x: np.linalg.pinv(x, rtol=0.5), X),
    "pinv, rcond": (lambda x: np.linalg.pinv(x, 0.5), X),
    "pinv, nothing cut": (lambda x: np.linalg.pinv(x, 1e-3), X),
    "pinv, complex": (lambda x: np.linalg.pinv((1 + 2j) * x, 0.5).real, X),
    "mean, float32, where": (lambda x: np.mean(x, dtype=np.float32, where=X > 0), X),
    "std, float32": (lambda x: np.std(x, axis=0, dtype=np.float32), X),
    "var, float32, where": (lambda x: np.var(x, dtype=np.float32, where=X > 0), X),
    "norm, order 1": (lambda x: np.linalg.norm(x, 1, axis=0), X),
    "norm, order 0": (lambda x: np.linalg.norm(x, 0, axis=0) * x, np.where(X > 0, X, 0)),
    "row by matrices": (lambda x: x @ CUBE, X[0].copy()),
    "matrices by column": (lambda x: CUBE @ x, X[:, 0].copy()),
    "inner, vectors by number": (lambda x: np.inner(x, 3.0), X),
    "inner, number by vectors": (lambda x: np.inner(3.0, x), X),
    "mean, where": (lambda x: np.mean(x, axis=0, where=X > -0.5), X),
    "mean in float32, where": (lambda x: np.mean(x, where=X > 0), SMALL),
    "rollaxis forward": (lambda x: np.rollaxis(x, 2, 1), CUBE),
    "rollaxis back": (lambda x: np.rollaxis(x, 0, 2), CUBE),
    "rollaxis to its place": (lambda x: np.rollaxis(x, 1, 1), CUBE),
    "rollaxis to the end": (lambda x: np.rollaxis(x, 1, 3), CUBE),
    "roll by unsigned": (lambda x: np.roll(x, np.uint8(1), 0), X),
    "roll along two axes": (lambda x: np.roll(x, np.array([1, 2], np.uint8), (0, 1)), X),
    "astype": (lambda x: x.astype(np.float32, copy=False), X),
    "einsum, many labels": (lambda x: np.einsum(x, [0, 26]), X),
    "take, list of booleans": (lambda x: np.take(x, [True, False, True], 0), X),
    "take, booleans": (lambda x: np.take(x, X[0] > 0, 1), X),
    "nan_to_num in place": (lambda x: np.nan_to_num(1 * x, copy=False, nan=2.0, posinf=3.0), X),
    "take, tuple": (lambda x: np.take(x, (1, 5)), X),
    "diff of order 0": (lambda x: np.diff(x, 0, prepend=0.0), X),
    "linspace from a list": (lambda x: np.linspace([0.0, 1.0, 2.0], x, 3), X),
    "tensordot, NumPy's integer": (lambda x: np.tensordot(x, X.T, np.int64(1)), X),
    "convolve, mode by number": (lambda x: np.convolve(x, [1.0, 2.0], 1), X[:, 0].copy()),
    "sum, initial of float64": (lambda x: np.sum(x, 0, initial=np.float64(1)), EXACT),
    "prod, initial of float64": (lambda x: np.prod(x, 0, initial=np.float64(2)), EXACT),
    "max, initial of float64": (lambda x: np.max(x, 0, initial=np.float64(0.1)), SMALL),
    "min, where": (lambda x: np.min(x, 0, initial=np.float64(0.1), where=X > 0), SMALL),
    "quantile of float32, list": (lambda x: np.quantile(x, [0.3, 0.6], axis=0), SMALL),
    "average, complex": (lambda x: np.average(1j * x, 0, X**2, returned=True)[1] * x[0], X),
    "gradient of float32": (lambda x: np.gradient(x, np.float64(0.5), axis=0), SMALL),
    "linspace of integers": (lambda x: np.linspace(x, 1, 4, dtype=int) * x, X),
    "prod of complex dtype": (lambda x: np.prod(x, 0, dtype=complex), X),
    "array, rows and lists": (lambda x: anp.array([x[0], [1, 2, 3], [x[1, 0], 2.0, x[0, 2]]]), X),
}


NOT_DIFFERENTIATED = {"full_like, dtype", "array, dtype", "astype"}  # float32 is too coarse
NOT_DIFFERENTIATED |= {name for name in CALLS if "float32" in name}
NOT_DIFFERENTIATED |= {"linspace of integers"}  # steps
NOT_DIFFERENTIATED |= {"norm, order 0"}  # steps off zero


@pytest.mark.parametrize("name", CALLS)
def test_values_and_dtypes_are_those_of_numpy(name: str) -> None:
    call, x = CALLS[name]
    expected = np.array([x, 2 * x], np.float32) if name == "array, dtype" else call(x)
    found, _ = vjp(call, x)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("name", [k for k, (_, x) in CALLS.items() if x.dtype == float and k not in NOT_DIFFERENTIATED])
def test_derivatives(name: str) -> None:
    call, x = CALLS[name]
    check_grads(call)(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.einsum("ii", x),
        lambda x: np.einsum("...i->i", x),
        lambda x: np.diff(x, -1),
        lambda x: np.concatenate([x, x], dtype=int),
        lambda x: np.stack([x, x], dtype=int),
        lambda x: np.take_along_axis(x, np.array([0, 1]), 0),
        lambda x: np.rot90(x, axes=(0, 0)),
        lambda x: np.rot90(x, axes=(1, -1)),
        lambda x: np.clip(x, 0.0, 1.0, min=2.0),
        lambda x: np.clip(x, 0.0, 1.0, max=2.0),
        lambda x: np.linspace(x, 1.0, -1),
        lambda x: np.linspace(x, 1.0, 2.0),
        lambda x: np.convolve(x[0], x[0], "half"),
        lambda x: np.quantile(1j * x, 0.5),
        lambda x: np.vstack([x, x], dtype=np.float32, casting="safe"),
        lambda x: np.add.accumulate(x, None),
        lambda x: np.cumulative_sum(x),
    ],
)
def test_what_numpy_refuses_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        call(X)
    with pytest.raises(error.type):
        vjp(call, X)


def test_reductions_of_a_number_along_its_axis() -> None:
    x = np.float64(2.0)
    running = np.cumsum, np.cumulative_sum, np.cumprod
    for function in (np.sum, np.prod, np.max, np.min, np.ptp, np.nansum, np.nanmax, np.nanmin, *running):
        for axis in (0, -1):
            value, pull = vjp(lambda x, f=function, axis=axis: f(x, axis=axis), x)
            assert np.array_equal(value, function(x, axis=axis))
            assert pull(np.ones_like(value))[0] == (function is not np.ptp)
    assert np.isnan(vjp(np.nanmax, np.full(2, np.nan))[0]) and vjp(np.nanmin, np.array([np.nan, 3.0]))[0] == 3


@pytest.mark.filterwarnings("ignore:invalid value")
def test_determinants_of_nan_and_of_nothing() -> None:
    assert np.isnan(grad(np.linalg.det)(np.array([[np.nan, 1.0], [2.0, 3.0]]))).any()
    assert grad(np.linalg.det)(np.empty((0, 0))).shape == (0, 0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("call", "arrays"),
    [
        *(
            (call, ([1, 2, np.inf], [-np.inf, 1, 2, 3], [-np.inf, 5, np.inf], [1, np.inf, np.inf], [np.inf]))
            for call in (
                np.median,
                lambda x: np.quantile(x, [0.0, 0.25, 0.5, 0.75, 0.9, 1.0]),
            )
        ),
        (lambda x: np.linalg.norm(x, -1), ([], [np.inf, np.inf], [0, 1])),
    ],
)
def test_infinite_values_are_those_of_numpy(call: Any, arrays: Any) -> None:
    for x in (np.array(a, float) for a in arrays):
        np.testing.assert_array_equal(vjp(call, x)[0], call(x))


def test_the_median_beside_infinity_has_a_gradient() -> None:
    assert grad(np.median)(np.array([np.inf, 2.0, 1.0])).tolist() == [0, 1, 0]


def test_weights_without_a_sum_are_refused_as_in_numpy() -> None:
    for call in (np.average, lambda *a, **k: vjp(lambda x: np.average(x, **k), *a)):
        with pytest.raises(ZeroDivisionError):
            call(X, axis=0, weights=np.array([1.0, -1.0, 2.0, -2.0]))


def test_determinants_of_matrices_of_moderate_condition_need_no_svd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inverse serves until half of the digits are lost, and not from there on."""

    def refused(*_: Any) -> Any:
        raise AssertionError("the singular way")

    good, bad = np.diag([1.0, 1e-6]), np.diag([1.0, 1e-9])
    monkeypatch.setattr(linalg, "_singular_adjugate", refused)
    np.testing.assert_allclose(vjp(np.linalg.det, good)[1](np.ones(()))[0], np.diag([1e-6, 1.0]), rtol=1e-12)
    with pytest.raises(AssertionError, match="singular way"):
        vjp(np.linalg.det, bad)[1](np.ones(()))


def test_the_second_derivative_of_elu_at_0_is_that_of_its_line() -> None:
    """Where those from the left and from the right differ, 1 and 0."""
    second = grad(lambda x: np.sum(grad(lambda y: np.sum(elu(y)))(x)))(np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(second, [np.exp(-1), 0, 0], rtol=1e-15)
