"""Constants keep the values that they had when they were used, and those of other libraries count by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

import autodiff as ad
from autodiff import _constants as constants
from autodiff import grad, tape, vjp
from autodiff._constants import plain_array
from tests.core.oracle import noise

LARGE = constants.COPIED // 8 + 5


class Labelled:
    """An array of a library of its own, whose operations go by labels: the last comes first."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.dtype, self.shape = self.values.dtype, self.values.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.values, dtype)

    def __mul__(self, other: Any) -> Labelled:
        return Labelled(self.values[::-1] * getattr(other, "_value", other))

    def sum(self) -> Labelled:
        return Labelled(self.values.sum())


def convolved(x: Any) -> Any:
    """Three convolutions by one array that is changed between them; the gradient of their sum is 0 + 1 + 2."""
    w, total = np.zeros(3), 0.0
    for i in range(3):
        w[:] = (0, i, 0)
        total = total + np.sum(ad.convolve(x, w, 0, boundary="periodic"))
    return total


def test_a_filter_that_is_changed_after_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.array_equal(grad(convolved)(np.ones(5)), np.full(5, 3.0))
    monkeypatch.setattr(tape, "kept", lambda x, watched: x)  # as it was: the last filter counts three times
    assert np.array_equal(grad(convolved)(np.ones(5)), np.full(5, 6.0))


def indexed(x: Any, n: int) -> Any:
    index = np.arange(n)
    y = np.sum(x[index] * np.arange(1.0, n + 1))
    index[:] = 0
    return y


def masked(x: Any, n: int) -> Any:
    mask = np.arange(n) % 2 == 0
    y = np.sum(np.where(mask, x, 0) * np.arange(1.0, n + 1))
    mask[:] = False
    return y


def chosen(x: Any, n: int) -> Any:
    where = np.arange(n) % 2 == 0
    y = np.sum(x * np.arange(1.0, n + 1), where=where)
    where[:] = True
    return y


def multiplied(x: Any, n: int) -> Any:
    factor = np.arange(1.0, n + 1)
    y = np.sum(x * factor)
    factor *= 2
    return y


def listed(x: Any, n: int) -> Any:
    factor = list(range(1, n + 1))
    y = np.sum(x * factor)
    factor[:] = [0] * n
    return y


def nested(x: Any, n: int) -> Any:
    index = [list(range(n))]
    y = np.sum(x[tuple(index)] * np.arange(1.0, n + 1))
    index[0][:] = [0] * n
    return y


@pytest.mark.parametrize("expression", [indexed, masked, chosen, multiplied, listed, nested])
def test_constants_that_are_changed_after_they_were_used(expression: Callable[[Any, int], Any]) -> None:
    half = expression in (masked, chosen)
    expected = np.arange(1.0, 6) * (np.arange(5) % 2 == 0 if half else 1)
    assert np.array_equal(grad(lambda x: expression(x, 5))(np.ones(5)), expected)


@pytest.mark.parametrize("expression", [multiplied, indexed, masked])
def test_large_constants_that_are_changed_are_refused(expression: Callable[[Any, int], Any]) -> None:
    n = 8 * LARGE if expression is masked else LARGE
    with pytest.raises(ValueError, match=r"an array of shape .* was changed after \w+ had used it.*x\.copy\(\)"):
        grad(lambda x: expression(x, n))(np.ones(n))


@pytest.mark.parametrize("n", [3, LARGE])
def test_an_argument_that_is_changed_before_the_way_back_is_refused(n: int) -> None:
    x = np.ones(n)
    _, pullback = vjp(lambda x: np.sum(x**3), x)
    assert np.array_equal(pullback(1.0)[0], np.full(n, 3.0))
    x[1] = 9
    with pytest.raises(ValueError, match="was changed after the function had used it"):
        pullback(1.0)


def test_a_view_that_cannot_be_written_to_is_watched_where_its_memory_can() -> None:
    windows, memory = np.arange(1.0, LARGE), bytearray(8 * LARGE)
    for view, change in (
        (sliding_window_view(windows, 3), lambda: windows.fill(0)),
        (np.frombuffer(memory, float), lambda: memory.__setitem__(3, 1)),
    ):
        view.flags.writeable = False
        _, pullback = vjp(lambda x, view=view: np.sum(view * x), np.float64(1))
        change()
        with pytest.raises(ValueError, match="was changed after multiply had used it"):
            pullback(1.0)


def test_what_nobody_changes_is_neither_copied_nor_refused() -> None:
    factor = np.arange(float(LARGE))
    factor.flags.writeable = False
    assert np.array_equal(grad(lambda x: np.sum(x * factor))(np.ones(LARGE)), factor)
    watched: list[Any] = []
    assert constants.kept(factor, watched) is factor and not watched


ARRAYS = st.tuples(
    st.sampled_from(["float32", "float64", "int8", "bool", "complex64", "float16"]),
    st.lists(st.integers(1, 30), min_size=1, max_size=3),
    st.sampled_from(["C", "F", "strided", "reversed", "broadcast"]),
    st.integers(0, 99),
)


@given(ARRAYS)
def test_fingerprints_see_every_change(drawn: Any) -> None:
    dtype, shape, order, seed = drawn
    rng = np.random.default_rng(seed)
    shape = (*shape, 1200)
    whole = np.asarray(rng.integers(0, 2 if dtype == "bool" else 100, (*shape[:-1], 2 * shape[-1])), dtype)
    x = {
        "C": whole,
        "F": np.asfortranarray(whole),
        "strided": whole[..., ::2],
        "reversed": whole[::-1, ..., ::-1],
        "broadcast": np.broadcast_to(whole[:1], whole.shape),
    }[order]
    before = constants._fingerprint(x)
    assert constants._fingerprint(x) == before
    place = tuple(int(rng.integers(n)) for n in (1 if order == "broadcast" else x.shape[0], *x.shape[1:]))
    held = whole[:1] if order == "broadcast" else x
    held[place] = not held[place] if dtype == "bool" else held[place] + 1
    assert constants._fingerprint(x) != before
    if order != "broadcast" and x.shape[0] > 1 and not np.array_equal(x[0], x[1]):
        before = constants._fingerprint(x)
        x[[0, 1]] = x[[1, 0]]
        assert constants._fingerprint(x) != before


def test_arrays_of_other_libraries_are_taken_by_position() -> None:
    a, x = Labelled([1.0, 2.0]), np.ones(2)
    for f in (
        lambda x: np.sum(x * a),
        lambda x: np.dot(x, a),
        lambda x: np.einsum("i,i->", x, a),
        lambda x: np.sum(np.stack([x, a]) * [[1.0], [0.0]] * np.array([1.0, 2.0])),
    ):
        found = grad(f)(x)
        assert type(found) is np.ndarray and np.array_equal(found, [1.0, 2.0])
    found = grad(lambda x: np.sum(x**2))(Labelled([1.0, 2.0]))
    assert type(found) is np.ndarray and np.array_equal(found, [2.0, 4.0])


def test_results_of_other_libraries_lose_no_gradient_in_silence() -> None:
    a = Labelled([1.0, 2.0])
    for function in (grad(lambda x: (a * x).sum()), lambda x: vjp(lambda x: a * x, x)):
        with pytest.raises(TypeError, match=r"the function returned .*Labelled, through which no gradient flows"):
            function(np.ones(2))


def test_containers_of_pandas_xarray_and_dask() -> None:
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    a, b = pandas.Series([1.0, 2.0], index=[0, 1]), pandas.Series([10.0, 20.0], index=[1, 0])
    found = grad(lambda x: (x * a).sum() + (x * b).sum())(np.ones(2))
    assert type(found) is np.ndarray and np.array_equal(found, [11.0, 22.0])
    assert np.array_equal(grad(lambda x: (x * xarray.DataArray([1.0, 2.0])).sum())(np.ones(2)), [1.0, 2.0])
    with pytest.raises(TypeError, match=r"traced value|through which no gradient flows"):
        grad(lambda x: (xarray.DataArray([1.0, 2.0]) * x).sum())(np.ones(2))


def test_sparse_matrices_are_refused_by_name() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"scipy\.sparse has no derivative here: pass x\.toarray\(\)"):
        grad(lambda x: np.sum(x @ sparse.eye_array(2)))(np.ones(2))


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["*", "+", "-", "where", "max"]), st.sampled_from(["array", "list", "labelled"])),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 99),
)
def test_expressions_with_constants_that_change(steps: list[tuple[str, str]], seed: int) -> None:
    """The gradient is that of the same expression with fresh constants, whatever happens to them afterwards."""

    def evaluate(x: Any, change: bool) -> Any:
        for number, (operation, kind) in enumerate(steps):
            values = noise(seed + number, (4,), "float64")
            constant: Any = {"array": values, "list": values.tolist(), "labelled": Labelled(values)}[kind]
            if not change:
                constant = values.copy()
            if operation == "*":
                x = x * constant
            elif operation == "+":
                x = np.sin(x + constant)
            elif operation == "-":
                x = (x - constant) ** 2
            elif operation == "where":
                x = np.where(values > 0, x, constant) * x
            else:
                x = np.maximum(x, constant)
            if change:
                values[:] = -7.0
                if kind == "list":
                    constant[:] = [-7.0] * 4
        return np.sum(x)

    x = noise(seed, (4,), "float64")
    assert np.array_equal(grad(lambda x: evaluate(x, True))(x), grad(lambda x: evaluate(x, False))(x))


def test_arrays_of_cupy_are_left_where_they_are() -> None:
    """They have an `__array__`, which raises, and no `__array_namespace__`."""

    class OnDevice:
        def __array__(self) -> Any:
            raise TypeError("implicit conversion")

    OnDevice.__module__ = "cupy"
    x = OnDevice()
    assert plain_array(x) is x
    OnDevice.__module__ = "someone"
    with pytest.raises(TypeError, match="implicit"):
        plain_array(x)
