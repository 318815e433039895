"""ELU, ReLU and their adjoints: values, precision, layouts, broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hcnn_core import elu, elu_vjp, relu, relu_vjp
from hcnn_core._engines.generic import elementwise
from hcnn_core._tuning import Tuning, tuned
from hcnn_core.activations import total
from hcnn_core.backend import in_memory_order
from tests.core.oracle import LAYOUTS, SEEDS, NDArray, eps, lay_out, noise, wide

REAL = ("float32", "float64")


def definition(c: NDArray) -> NDArray:
    """Element by element: c where c > 0, e^c - 1 elsewhere."""
    return np.array([v if v > 0 else np.expm1(v) for v in wide(c).ravel()]).reshape(c.shape)


@st.composite
def operands(draw: st.DrawFn) -> tuple[NDArray, NDArray]:
    """An array, and one that broadcasts to it, of perhaps another dtype."""
    shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    seed = draw(SEEDS)
    x = lay_out(4 * noise(seed, shape, draw(st.sampled_from(REAL))), draw(st.sampled_from(LAYOUTS)), seed)
    small = tuple(n if draw(st.booleans()) else 1 for n in shape)[draw(st.integers(0, len(shape))) :]
    return x, lay_out(noise(seed + 1, small, draw(st.sampled_from(REAL))), draw(st.sampled_from(LAYOUTS)), seed)


def in_memory_like(a: NDArray, b: NDArray) -> bool:
    """Whether the axes of both lie in the same order."""
    strides = (np.empty_like(array).strides for array in (a, b))
    return all(s == r for n, s, r in zip(a.shape, *strides, strict=True) if n > 1) or a.size == 0


@given(operands(), st.sampled_from([1, 3, 1 << 16]), st.sampled_from([1, 1 << 10]))
def test_elu_is_its_definition(case: tuple[NDArray, NDArray], block: int, least: int) -> None:
    x, bias = case
    kept = x.copy(), bias.copy()
    with tuned(elementwise_elements=block, biased_elements=least):
        plain, biased = elu(x), elu(x, bias=bias)
    for y, c in ((plain, x), (biased, x + bias.astype(x.dtype))):
        assert isinstance(y, np.ndarray) and y.dtype == x.dtype and y.shape == x.shape
        assert y.flags.writeable and not np.shares_memory(y, x) and in_memory_like(y, x)
        # c is rounded as x + bias is; of expm1 within 2 units in the last place, relative even near 0
        expected = definition(c)
        assert (np.abs(y - expected) <= 2 * eps(x.dtype) * np.abs(expected)).all()
    assert np.array_equal(x, kept[0]) and np.array_equal(bias, kept[1])


@given(operands(), st.sampled_from([1, 3, 1 << 16]))
def test_cotangent_is_g_above_zero_and_g_times_one_plus_answer_below(case: tuple[NDArray, NDArray], block: int) -> None:
    ans, g = elu(case[0]), case[1]
    kept = ans.copy(), g.copy()
    with tuned(elementwise_elements=block):
        g_x = elu_vjp(g, ans)
    assert g_x.dtype == ans.dtype and g_x.shape == ans.shape and in_memory_like(g_x, ans)
    assert not np.shares_memory(g_x, ans) and not np.shares_memory(g_x, g)
    slope = np.where(wide(ans) > 0, 1, 1 + wide(ans))
    expected = wide(g.astype(ans.dtype)) * slope
    assert (np.abs(g_x - expected) <= 2 * eps(ans.dtype) * np.abs(wide(g))).all()
    assert np.array_equal(ans, kept[0]) and np.array_equal(g, kept[1])


def test_cotangent_is_the_derivative() -> None:
    x = np.linspace(-4, 4, 41) + 0.01  # 0.01 is the sample nearest the kink
    h = 1e-5
    difference = (elu(x + h) - elu(x - h)) / (2 * h)
    # a central difference is off by h^2 / 6 of the third derivative, at most 1, and by eps / h of the values
    assert np.abs(elu_vjp(np.ones(41), elu(x)) - difference).max() < h**2 + 4 * 4 * eps("float64") / h


@pytest.mark.parametrize("dtype", REAL)
def test_precision_near_zero_and_far_below(dtype: str) -> None:
    """e^c - 1, computed as it reads, loses every digit of small c."""
    small = -np.logspace(-30, -1, 50).astype(dtype)
    assert (np.abs(elu(small) / np.expm1(wide(small)) - 1) <= 2 * eps(dtype)).all()
    assert np.abs((np.exp(small) - 1) / np.expm1(wide(small)) - 1).max() == 1
    assert np.array_equal(elu(np.array([-50, -1e4, -3e38], dtype)), np.full(3, -1, dtype))
    assert np.array_equal(elu_vjp(np.ones(3, dtype), np.full(3, -1, dtype)), np.zeros(3, dtype))


@pytest.mark.parametrize("dtype", REAL)
def test_special_values(dtype: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], dtype)
    assert np.array_equal(elu(x), np.array([np.nan, np.inf, -1, 0, 0], dtype), equal_nan=True)
    g = elu_vjp(np.ones(5, dtype), elu(x))
    assert np.array_equal(g, np.array([np.nan, 1, 0, 1, 1], dtype), equal_nan=True)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((200_000,), "C"), ((3, 70_000), "sliced"), ((70_000, 3), "F"), ((2, 1, 90_000, 1), "shuffled"), ((40,) * 3, "C")],
)
def test_arrays_larger_than_a_block(shape: tuple[int, ...], layout: str) -> None:
    x, bias = lay_out(noise(0, shape, "float32"), layout), noise(1, shape[-1:], "float32")
    c = x + bias
    y = elu(x, bias=bias)
    expected = np.where(c > 0, c, np.expm1(np.minimum(c, 0, dtype=np.float64)))
    assert (np.abs(y - expected) <= 2 * eps("float32") * np.abs(expected)).all()  # two roundings of the last digit
    assert np.array_equal(elu_vjp(x, y), x * (np.minimum(y, 0) + 1))


@given(operands(), st.sampled_from([1, 3, 1 << 16]))
def test_relu_and_its_cotangent_are_their_definitions(case: tuple[NDArray, NDArray], block: int) -> None:
    """Element by element, and exactly."""
    x, bias = case
    kept = x.copy(), bias.copy()
    with tuned(elementwise_elements=block):
        plain, biased = relu(x), relu(x, bias=bias)
        g_x = relu_vjp(bias, plain)
    for y, c in ((plain, x), (biased, x + bias.astype(x.dtype))):
        assert isinstance(y, np.ndarray) and y.dtype == x.dtype and not np.shares_memory(y, x) and in_memory_like(y, x)
        assert np.array_equal(y, np.array([max(v, 0) for v in c.ravel()]).reshape(c.shape))
    assert g_x.dtype == x.dtype and in_memory_like(g_x, x) and not np.shares_memory(g_x, bias)
    g = np.broadcast_to(bias.astype(x.dtype), x.shape)
    expected = [v if c > 0 else 0 for v, c in zip(g.ravel(), x.ravel(), strict=True)]
    assert np.array_equal(g_x, np.array(expected).reshape(x.shape))
    assert np.array_equal(x, kept[0]) and np.array_equal(bias, kept[1])


@pytest.mark.parametrize("dtype", REAL)
def test_special_values_of_relu(dtype: str) -> None:
    """NaN stays; an infinite cotangent of an element that is off is 0, and so is that of 0."""
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30], dtype)
    y = relu(x)
    assert np.array_equal(y, np.array([np.nan, np.inf, 0, 0, 0, 1e-30], dtype), equal_nan=True)
    for g in (np.inf, -np.inf, np.nan, -0.0):
        found = relu_vjp(np.full(6, g, dtype), y)
        expected = np.where(y > 0, np.array(g, dtype), np.array(0, dtype))
        assert found.tobytes() == expected.tobytes(), "bit for bit, the signs of zeros too"
    assert found.tolist().count(0) == 6 and np.signbit(found).tolist() == [False, True, False, False, False, True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exponentials_of_every_size(dtype: str) -> None:
    """The compiled kernel, against the longest floats there are; NaN, infinities and zeros among its arguments."""
    rng = np.random.default_rng(0)
    odd = [0.0, -0.0, np.nan, np.inf, -np.inf, -1e-40, -88, -104, -710, -750, -1e30, np.finfo(dtype).max]
    many = Tuning().elementwise_elements
    x = np.concatenate([-(10.0 ** rng.uniform(-12, 3, many)), -np.log(2) * (np.arange(200) / 2), odd]).astype(dtype)
    with np.errstate(invalid="ignore"):
        y = elu(x)
    wide = x.astype(np.longdouble)
    expected = np.where(wide > 0, wide, np.expm1(np.minimum(wide, 0)))
    assert np.array_equal(np.isnan(y), np.isnan(x))
    finite = np.isfinite(x)
    assert (np.abs(y[finite] - expected[finite]) <= 2 * eps(dtype) * np.abs(expected[finite])).all()
    assert y[np.isposinf(x)] == np.inf and y[np.isneginf(x)] == -1
    g = np.ones_like(x)
    assert np.array_equal(elu_vjp(g, y), np.minimum(y, 0) + 1, equal_nan=True)


def test_scalars_and_lists() -> None:
    assert elu(1.5) == 1.5 and elu(-1.0).shape == ()
    assert elu([1.0, -1.0], bias=1.0).tolist() == [2.0, 0.0]
    assert elu(np.float32(2)).dtype == np.float32


@pytest.mark.parametrize("shape", [(3, 70000), (70000,), (2, 5)])
def test_total_is_the_sum_whatever_the_layout(shape: tuple[int, ...]) -> None:
    x, y = noise(1, shape, "float32"), noise(2, shape, "float32")
    terms = [x, np.asfortranarray(x), x[..., ::-1], np.broadcast_to(x[..., :1], shape), np.float32(2), x.astype(float)]
    for a in terms:
        for b in (y, y[..., ::-1], np.float32(3)):
            result = total(a, b)
            np.testing.assert_array_equal(result, a + b, strict=True)
            assert not any(np.shares_memory(result, c) for c in (a, b))


@pytest.mark.parametrize(("other", "ordered"), [((2, 3, 4), True), ((4,), False)])
def test_on_a_gpu_total_is_taken_in_memory_order_where_the_shapes_are_equal(
    other: tuple[int, ...], ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays of a class of one's own stand for those of CuPy."""

    class Array(np.ndarray): ...

    calls = []

    def watched(function: Any, *arrays: Any) -> Any:
        calls.append(function)
        return in_memory_order(function, *arrays)

    monkeypatch.setattr(elementwise, "in_memory_order", watched)
    x, y = np.asfortranarray(noise(1, (2, 3, 4), "float32")).view(Array), noise(2, other, "float32").view(Array)
    np.testing.assert_array_equal(total(x, y), x + y, strict=True)
    assert bool(calls) == ordered
