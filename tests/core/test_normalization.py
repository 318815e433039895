"""Both normalisations and their adjoints against definitions in the longest floats, in every layout, far from zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autodiff
from autodiff import vjp
from hcnn_core import (
    Shard,
    batch_normalize,
    marginal,
    merge_factors,
    normalize_elu,
    normalize_elu_vjp,
    normalize_filters,
)
from hcnn_core._engines import devices
from hcnn_core._engines.cpu.normalization import lines_of
from hcnn_core._engines.generic.normalization import pooled
from hcnn_core._tuning import Tuning
from hcnn_core.testing import assert_translation_covariant
from tests.core.oracle import NDArray, eps, noise, poisoned_memory, threads

REAL = ("float32", "float64")
EPSILON = 1e-3
LAYER = (3, 4, 1, 2, 0)
"""Axes of what a layer's filters make, from the slowest to the fastest in memory."""


def in_order(array: NDArray, order: tuple[int, ...] | None) -> NDArray:
    """The same values, the axes in memory in this order; None for that of the shape."""
    if order is None:
        return np.array(array)
    return np.array(array.transpose(order), order="C").transpose(np.argsort(order))


def longest(array: NDArray) -> NDArray:
    """In the longest floats there are: a mean of 1000 costs double precision three of its digits."""
    return np.asarray(array, np.longdouble)


def definition(
    y: NDArray, shift: NDArray, scale: NDArray, bias: NDArray, *, rectified: bool = True
) -> tuple[NDArray, NDArray, NDArray]:
    z = longest(y) + shift
    everywhere = tuple(range(z.ndim - 1))
    mean, variance = z.mean(everywhere), z.var(everywhere)
    c = (z - mean) / np.sqrt(variance + EPSILON) * scale + bias
    return np.where(c > 0, c, np.expm1(np.minimum(c, 0))) if rectified else c, mean, variance


def cotangents(
    gs: list[NDArray], y: NDArray, shift: NDArray, scale: NDArray, bias: NDArray, *, rectified: bool = True
) -> list[NDArray]:
    """By the chain rule, mean and variance being functions of y like any other."""
    g, g_mean, g_variance = map(longest, gs)
    z = longest(y) + shift
    everywhere, count = tuple(range(z.ndim - 1)), z.size // z.shape[-1]
    centred = z - z.mean(everywhere)
    inverse = 1 / np.sqrt(centred.var(everywhere) + EPSILON)
    c = centred * inverse * scale + bias
    of_c = g * np.where(c > 0, 1, np.exp(np.minimum(c, 0))) if rectified else g
    of_inverse = (of_c * centred * scale).sum(everywhere)
    of_variance = g_variance - of_inverse * inverse**3 / 2
    of_centred = of_c * scale * inverse + 2 * centred * of_variance / count
    of_z = of_centred - of_centred.mean(everywhere) + g_mean / count
    of_shift = of_z
    for axis, n in enumerate((1,) * (z.ndim - np.ndim(shift)) + np.shape(shift)):
        of_shift = of_shift.sum(axis, keepdims=True) if n == 1 else of_shift
    return [of_z, of_shift.reshape(np.shape(shift)), (of_c * centred * inverse).sum(everywhere), of_c.sum(everywhere)]


def operands(shape: tuple[int, ...], along: tuple[int, ...], dtype: str, layout: Any, mean: float) -> list[NDArray]:
    k = shape[-1]
    y = in_order(noise(0, shape, dtype) + np.asarray(mean, dtype), layout)
    return [y, noise(1, along, dtype), 1 + noise(2, (k,), dtype) ** 2, noise(3, (k,), dtype)]


SHAPES = [((48, 8, 8, 2, 16), (2, 16)), ((40, 7, 9, 3, 10), ()), ((30, 48, 48, 1, 3), (3,)), ((6, 5, 4, 3), (5, 1, 1))]


def assert_near(found: Any, expected: Any, dtype: str, factor: float) -> None:
    for actual, exact in zip(found, expected, strict=True):
        assert actual.dtype == dtype and actual.shape == exact.shape
        scale = max(1.0, float(np.abs(exact).max()))
        assert float(np.abs(actual - exact).max()) <= factor * eps(dtype) * scale


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("axis", [0, 2, -2])
def test_a_marginal_is_that_of_what_is_normalised(dtype: str, axis: int) -> None:
    given = operands((3, 4, 2, 5, 4), (4,), dtype, LAYER, 0.0)
    whole, *moments = normalize_elu(*given, epsilon=EPSILON)
    (total, *found), pullback = vjp(lambda *a: autodiff.normalize_elu_marginal(*a, axis, epsilon=EPSILON), *given)
    assert np.array_equal(total, marginal(whole, axis)) and all(map(np.array_equal, found, moments))
    g, none = noise(4, total.shape, dtype), np.zeros(4, dtype)
    repeated = np.broadcast_to(np.expand_dims(g, axis), whole.shape)
    expected = vjp(lambda *a: autodiff.normalize_elu(*a, epsilon=EPSILON), *given)[1]((repeated, none, none))
    assert all(map(np.array_equal, pullback((g, none, none)), expected))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("in_memory", ["by shape", "as a layer"])
@pytest.mark.parametrize(("shape", "along"), SHAPES)
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_results_and_cotangents_are_those_of_the_definition(
    shape: tuple[int, ...], along: tuple[int, ...], dtype: str, in_memory: str, mean: float
) -> None:
    """A large mean costs kernels no digits, the others those of z = y + s and of the mean: some 1000 eps of z."""
    layout = None if in_memory == "by shape" else LAYER if len(shape) == 5 else (2, 3, 1, 0)
    given = operands(shape, along, dtype, layout, mean)
    kept = [a.copy() for a in given]
    gs = [in_order(noise(4, shape, dtype), layout), noise(5, shape[-1:], dtype), noise(6, shape[-1:], dtype)]
    with poisoned_memory():
        ans, found_mean, variance = normalize_elu(*given, epsilon=EPSILON)
        (again, *_), pullback = vjp(lambda *a: autodiff.normalize_elu(*a, epsilon=EPSILON), *given)
        found = pullback(tuple(gs))
    assert np.array_equal(again, ans) and all(map(np.array_equal, given, kept))
    factor = 60 if lines_of(given[1], given[0]) else 60 * (1 + mean)
    # a sum of n doubles, one after another, is off by about the root of n roundings of what it has become
    summed = (given[0].size / shape[-1]) ** 0.5 * eps("float64") / eps(dtype)
    factor += (1 + mean) * summed
    expected = definition(*given)
    assert_near((ans, variance), (expected[0], expected[2]), dtype, factor)
    assert_near((found_mean,), (expected[1],), dtype, 20 + summed)
    # sums of cotangents grow with their number: so does what rounding leaves, as its root
    assert_near(found[:1], cotangents(gs, *given)[:1], dtype, factor)
    for actual, exact in zip(found[1:], cotangents(gs, *given)[1:], strict=True):
        assert np.abs(actual - exact).max() <= factor * eps(dtype) * np.sqrt(ans.size)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("in_memory", ["by shape", "as a layer"])
@pytest.mark.parametrize("shape", [(48, 8, 8, 2, 16), (6, 5, 4, 3)])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_without_the_elu_too(shape: tuple[int, ...], dtype: str, in_memory: str, mean: float) -> None:
    """By kernels, which find the values of the last axis far apart, and without; bounds are those of the test above."""
    layout = None if in_memory == "by shape" else LAYER if len(shape) == 5 else (3, 1, 2, 0)
    y, shift, scale, bias = operands(shape, (), dtype, layout, mean)
    shift = np.zeros_like(shift)
    kept = [a.copy() for a in (y, scale, bias)]
    gs = [in_order(noise(4, shape, dtype), layout), noise(5, shape[-1:], dtype), noise(6, shape[-1:], dtype)]
    with poisoned_memory():
        ans, found_mean, variance = batch_normalize(y, scale, bias, epsilon=EPSILON)
        (again, *_), pullback = vjp(lambda *a: autodiff.batch_normalize(*a, epsilon=EPSILON), y, scale, bias)
        found = pullback(tuple(gs))
    assert np.array_equal(again, ans) and all(map(np.array_equal, (y, scale, bias), kept))
    assert not np.shares_memory(ans, y) and not np.shares_memory(found[0], gs[0])
    compiled = lines_of(None, y) is not None and y.size >= Tuning().elementwise_elements
    assert compiled == (len(shape) == 5 and layout is not None)
    summed = (y.size / shape[-1]) ** 0.5 * eps("float64") / eps(dtype)
    factor = (60 if compiled else 60 * (1 + mean)) + (1 + mean) * summed
    expected = definition(y, shift, scale, bias, rectified=False)
    assert_near((ans, variance), (expected[0], expected[2]), dtype, factor)
    assert_near((found_mean,), (expected[1],), dtype, 20 + summed)
    of_y, _, *others = cotangents(gs, y, shift, scale, bias, rectified=False)
    assert_near(found[:1], [of_y], dtype, factor)
    for actual, exact in zip(found[1:], others, strict=True):
        assert np.abs(actual - exact).max() <= factor * eps(dtype) * np.sqrt(ans.size)
    with pytest.raises(AssertionError):  # with the ELU it is another function
        assert_near((normalize_elu(y, shift, scale, bias, epsilon=EPSILON)[0],), expected[:1], dtype, factor)


def test_kernels_and_what_stands_for_them_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands((48, 8, 8, 2, 16), (2, 16), "float64", LAYER, 3.0)
    assert lines_of(given[1], given[0]) is not None
    assert lines_of(given[1], np.ascontiguousarray(given[0])) is None  # v_j lies last
    g = [noise(4, given[0].shape, "float64"), np.zeros(16), np.zeros(16)]
    fast = normalize_elu(*given, epsilon=EPSILON)
    back = normalize_elu_vjp(*g, *given, np.stack(fast[1:]), epsilon=EPSILON)
    monkeypatch.setattr(devices, "has_compiled_kernels", lambda: False)
    slow = normalize_elu(*given, epsilon=EPSILON)
    assert_near(fast, slow, "float64", 20)
    expected = normalize_elu_vjp(*g, *given, np.stack(slow[1:]), epsilon=EPSILON)
    for actual, exact in zip(back, expected, strict=True):
        assert np.abs(actual - exact).max() <= 1e-12 * np.sqrt(given[0].size)


def test_a_broadcast_cotangent_and_memory_of_the_result() -> None:
    """As the marginal's adjoint gives it: one number for all v_{j-2}."""
    given = operands((32, 8, 8, 4, 16), (4, 16), "float32", LAYER, 0.0)
    y = given[0]
    ans, mean, variance = normalize_elu(*given, epsilon=EPSILON)
    assert ans.strides == y.strides and not np.shares_memory(ans, y)
    narrow = in_order(noise(7, (32, 8, 8, 1, 16), "float32"), LAYER)
    moments, zero = np.stack([mean, variance]), np.zeros(16, "float32")
    found = normalize_elu_vjp(np.broadcast_to(narrow, y.shape), zero, zero, *given, moments, epsilon=EPSILON)
    copied = in_order(np.broadcast_to(narrow, y.shape).copy(), LAYER)
    expected = normalize_elu_vjp(copied, zero, zero, *given, moments, epsilon=EPSILON)
    assert all(map(np.array_equal, found, expected))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    given = operands((48, 16, 16, 4, 16), (4, 16), "float32", LAYER, 1.0)
    g = [in_order(noise(4, given[0].shape, "float32"), LAYER), np.ones(16, "float32"), np.ones(16, "float32")]
    results = []
    for count in (1, 3):
        with threads(count):
            found = normalize_elu(*given, epsilon=EPSILON)
            results.append([*found, *normalize_elu_vjp(*g, *given, np.stack(found[1:]), epsilon=EPSILON)])
    assert all(map(np.array_equal, *results))


@pytest.mark.parametrize("layout", [None, LAYER])
def test_it_is_covariant_to_translations_and_of_what_varies_with_position_is_not(layout: Any) -> None:
    """Proposition 3.1 asks of every operator that it treats all positions alike: so do statistics per v_j."""
    y, _, scale, bias = operands((12, 8, 8, 4, 16), (), "float64", layout, 0.5)

    def per_value(y: NDArray) -> NDArray:
        return normalize_elu(y, np.zeros(()), scale, bias, epsilon=EPSILON)[0]

    def per_position(y: NDArray) -> NDArray:
        return normalize_elu(y, np.arange(4.0)[:, None], scale, bias, epsilon=EPSILON)[0]

    for axis, shift in ((1, 3), (2, 1), (3, 2)):
        assert_translation_covariant(per_value, y, axis, shift=shift, stages=4)
    with pytest.raises(AssertionError):
        assert_translation_covariant(per_position, y, 3, shift=2, stages=4)


@pytest.mark.parametrize("shape", [(5, 3), (40_000, 3)])
def test_an_epsilon_of_numpy_changes_no_dtype(shape: tuple[int, ...]) -> None:
    y, shift, scale, bias = operands(shape, (), "float32", None, 0.0)
    for found in normalize_elu(y, shift, scale, bias, epsilon=np.float64(0.1)):
        assert found.dtype == np.float32
    moments = np.eye(3, dtype=np.float32)
    for found in normalize_filters(moments, bias, moments, epsilon=np.float64(0.1)):
        assert found.dtype == np.float32
    g = moments[:, :, None]
    options: Any = {"lengths": (5,), "stride": 1, "boundary": "zero", "epsilon": np.float64(0.1)}
    for found in merge_factors(moments, g, bias, moments, bias[:1], **options):
        assert found.dtype == np.float32


Y, K = np.ones((2, 3, 4)), np.ones(4)


def test_moments_of_shards_are_not_negative() -> None:
    """Constant channels far from zero, in two shards of which one is seen: sums over both are made by hand."""
    mean = 1e7 + 1e3 * noise(0, (4,), "float64")

    def all_reduce(rows: Any) -> Any:
        return rows / 3 + rows * (2 / 3)

    found, variance = pooled(Shard(1.0, all_reduce), mean, np.zeros(4))
    assert np.allclose(found, mean, rtol=1e-15) and (variance >= 0).all()
    own = np.array([1.0, 2.0, 3.0, 4.0])
    _, variance = pooled(Shard(0.5, lambda rows: rows + np.stack([rows[0] * 3, rows[1] * 9, rows[2]])), own, own)
    assert np.allclose(variance, own + own**2)  # means m and 3 m: their variance is m^2
