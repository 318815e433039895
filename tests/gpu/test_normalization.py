"""Normalised outputs and their derivative by CUDA kernels, on the processor, against the definition in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autodiff
from autodiff import vjp
from autodiff.primitives import (
    _batch_normalize_written_out,
    _normalize_elu_written_out,
    _rectified_written_out,
    rectified_and_moments,
)
from hcnn_core import batch_normalize_vjp, normalize_elu, normalize_elu_marginal, normalize_elu_vjp
from hcnn_core._tuning import tuned
from hcnn_core.normalization import batch_normalized_and_moments, normalized_and_moments
from hcnn_core.shards import Shard
from tests.core.oracle import C, eps, noise, norm, poisoned_memory, wide

pytestmark = pytest.mark.usefixtures("kernels_on_host")

KERNELS = ["row_sums", "channel_moments", "normalize_rows", "row_sums_back", "channel_sums_back", "normalize_rows_back"]

LAYOUTS = {
    "of a layer": ((7, 3, 2, 4, 5), (3, 4, 1, 2, 0), (4, 5)),
    "a shift for each value": ((7, 3, 2, 4, 5), (3, 4, 1, 2, 0), (5,)),
    "no axes before the last in memory": ((90, 3, 5), (2, 1, 0), (1, 1, 5)),
    "no positions inside": ((3, 4, 5), (0, 1, 2), (3, 4, 5)),
    "more positions than threads": ((3, 300, 2), (2, 0, 1), ()),
}
"""Shapes, the order of the axes in memory, and the shape of the shift."""

EPSILON = 0.1


def laid_out(seed: int, shape: tuple[int, ...], order: tuple[int, ...], dtype: str) -> Any:
    """Noise whose axes lie in an order in memory."""
    inner = noise(seed, tuple(shape[a] for a in order), dtype)
    return inner.transpose(np.argsort(order))


def case(layout: str, dtype: str, offset: float = 0) -> tuple[Any, ...]:
    shape, order, of_shift = LAYOUTS[layout]
    y = laid_out(0, shape, order, dtype) + np.asarray(offset, dtype)
    per_value = shape[-1:]
    return y, noise(1, of_shift, dtype), noise(2, per_value, dtype), noise(3, per_value, dtype)


def repeated_rows(layout: str, dtype: str) -> Any:
    """A cotangent that is the same along the first axis in memory, as that of a marginal."""
    shape, order, _ = LAYOUTS[layout]
    return np.broadcast_to(
        laid_out(7, tuple(1 if a == order[0] else n for a, n in enumerate(shape)), order, dtype), shape
    )


def bound(dtype: str, *arrays: Any) -> float:
    """Of rounding errors: deviations divided by a root of epsilon, times the scale and the cotangent."""
    return float(C * eps(dtype) * np.prod([1 + norm(np.asarray(a)) for a in arrays]) / EPSILON)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_and_cotangents(kernels_on_host: list[str], layout: str, dtype: str) -> None:
    """Several blocks to a row; with the cotangents of mean and variance, and that of a marginal, which repeats rows."""
    args = case(layout, dtype)
    y = args[0]
    exact, pullback = vjp(lambda *a: _normalize_elu_written_out(*a, epsilon=EPSILON), *map(wide, args))
    with tuned(device_threads=32, device_sum_positions=1), poisoned_memory():
        found = normalize_elu(*args, epsilon=EPSILON)
        moments = normalized_and_moments(*args, epsilon=EPSILON)[3]
    assert found[0].strides == y.strides
    for one, other in zip(found, exact, strict=True):
        assert np.abs(one - other).max() <= bound(dtype, y, args[2])
    assert np.abs(moments - np.stack(exact[1:])).max() <= bound("float64", y) + bound(dtype, y) * (dtype == "float32")
    g_full = laid_out(4, y.shape, LAYOUTS[layout][1], dtype)
    repeated = repeated_rows(layout, dtype)
    for g in (g_full, repeated, np.ascontiguousarray(g_full)):
        given = g, noise(5, y.shape[-1:], dtype), noise(6, y.shape[-1:], dtype)
        with tuned(device_threads=32, device_sum_positions=1), poisoned_memory():
            cotangents = normalize_elu_vjp(*given, *args, moments, epsilon=EPSILON)
        assert cotangents[0].strides == y.strides
        for one, other in zip(cotangents, pullback(tuple(map(wide, given))), strict=True):
            assert one.shape == other.shape and one.dtype == y.dtype
            assert np.abs(one - other).max() <= bound(dtype, y, args[2], g) * np.sqrt(y.size / max(1, one.size))
    of_shift = {"add_terms"} if layout in ("a shift for each value", "more positions than threads") else set()
    assert set(kernels_on_host) == {*KERNELS, *of_shift}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_elu_and_shift(kernels_on_host: list[str], dtype: str) -> None:
    y, _, scale, bias = case("of a layer", dtype)
    exact, pullback = vjp(lambda *a: _batch_normalize_written_out(*a, epsilon=EPSILON), *map(wide, (y, scale, bias)))
    with tuned(device_threads=32, device_sum_positions=1), poisoned_memory():
        *found, moments = batch_normalized_and_moments(y, scale, bias, epsilon=EPSILON)
        given = laid_out(4, y.shape, LAYOUTS["of a layer"][1], dtype), noise(5, (5,), dtype), noise(6, (5,), dtype)
        cotangents = batch_normalize_vjp(*given, y, scale, bias, moments, epsilon=EPSILON)
    assert set(kernels_on_host) == set(KERNELS)
    for one, other in zip((*found, *cotangents), (*exact, *pullback(tuple(map(wide, given)))), strict=True):
        assert one.shape == other.shape and one.dtype == dtype
        assert np.abs(one - other).max() <= bound(dtype, y, scale, given[0]) * np.sqrt(y.size / one.size)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("skips", [True, False])
def test_relu_of_results_and_what_skips_them(kernels_on_host: list[str], dtype: str, skips: bool) -> None:
    """What skips lies in another order; with cotangents of all results, and of a sample that is not a number."""
    y, _, scale, bias = case("of a layer", dtype)
    args = y, scale, bias, *((np.ascontiguousarray(laid_out(8, y.shape, LAYOUTS["of a layer"][1], dtype)),) * skips)
    given = noise(4, y.shape, dtype), noise(5, (5,), dtype), noise(6, (5,), dtype)
    exact, expected = vjp(lambda *a: _rectified_written_out(*a, epsilon=EPSILON), *map(wide, args))
    with tuned(device_threads=32, device_sum_positions=1), poisoned_memory():
        found, pullback = vjp(lambda *a: rectified_and_moments(*a, epsilon=EPSILON)[:3], *args)
        cotangents = pullback(given)
    assert set(kernels_on_host) == set(KERNELS) and (found[0] == 0).any()
    for one, other in zip((*found, *cotangents), (*exact, *expected(tuple(map(wide, given)))), strict=True):
        assert one.shape == other.shape and one.dtype == dtype
        assert np.abs(one - other).max() <= bound(dtype, y, scale, given[0]) * np.sqrt(y.size / one.size)
    y[0, 0, 0, 0, 1] = np.nan
    assert np.isnan(rectified_and_moments(*args, epsilon=EPSILON)[0][..., 1]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [32, 2])
def test_marginals(kernels_on_host: list[str], layout: str, threads: int) -> None:
    """Over each axis: across rows nothing else is written; along them, and across many, another kernel adds up."""
    args = case(layout, "float32")
    shape, order, _ = LAYOUTS[layout]
    whole = normalize_elu(*args, epsilon=EPSILON)
    across = order[: order.index(len(shape) - 1)]
    for axis in range(len(shape) - 1):
        kernels_on_host.clear()
        with tuned(device_threads=threads), poisoned_memory():
            found = normalize_elu_marginal(*args, axis, epsilon=EPSILON)
        terms = wide(whole[0])
        assert np.abs(found[0] - terms.sum(axis=axis)).max() <= bound("float32", args[2]) * shape[axis]
        assert all(np.abs(a - b).max() <= bound("float32", args[0]) for a, b in zip(found[1:], whole[1:], strict=True))
        fused = axis in across and shape[axis] <= threads
        assert ("add_terms" in kernels_on_host) == (not fused)
        if fused:
            kept = np.argsort([a for a in order if a != axis])
            assert tuple(np.argsort([-s for s in found[0].strides], kind="stable").argsort()) == tuple(kept)


def test_cotangents_of_a_marginal() -> None:
    args = case("of a layer", "float64")
    (total, *_), pullback = vjp(lambda *a: autodiff.normalize_elu_marginal(*a, axis=3, epsilon=EPSILON), *args)
    exact, expected = vjp(lambda *a: autodiff.marginal(_normalize_elu_written_out(*a, epsilon=EPSILON)[0], 3), *args)
    g = noise(4, total.shape, "float64")
    assert np.abs(total - exact).max() <= bound("float64", args[2])
    none = np.zeros(5)
    for one, other in zip(pullback((g, none, none)), expected(g), strict=True):
        assert np.abs(one - other).max() <= bound("float64", args[0], args[2], g) * 10


def test_a_repeated_cotangent_is_not_copied(monkeypatch: pytest.MonkeyPatch, kernels_on_host: list[str]) -> None:
    """Its rows are read where they lie."""
    args = case("of a layer", "float32")
    y = args[0]
    moments = normalized_and_moments(*args, epsilon=EPSILON)[3]
    g = repeated_rows("of a layer", "float32")
    copied = []
    contiguous = np.ascontiguousarray
    monkeypatch.setattr(np, "ascontiguousarray", lambda a, *of: copied.append(a.size) or contiguous(a, *of))
    zeros = np.zeros(5, np.float32)
    normalize_elu_vjp(g, zeros, zeros, *args, moments, epsilon=EPSILON)
    assert copied.count(y.size) == 1  # y, which lies in one piece


def test_a_large_mean_costs_no_digits_of_the_result() -> None:
    """Deviations are taken in double precision, of what y itself holds."""
    args = case("of a layer", "float32", offset=3000)
    exact = _normalize_elu_written_out(*map(wide, args), epsilon=EPSILON)
    found = normalize_elu(*args, epsilon=EPSILON)
    assert np.abs(found[0] - exact[0]).max() <= bound("float32", args[2])
    assert np.abs(found[2] / exact[2] - 1).max() <= 4 * eps("float32")


def test_equal_samples_have_no_variance() -> None:
    y = np.full((7, 300, 2), np.float32(0.1))
    ans, mean, variance = normalize_elu(y, np.zeros(2, "f"), np.ones(2, "f"), np.zeros(2, "f"), epsilon=EPSILON)
    assert np.array_equal(variance, np.zeros(2)) and np.array_equal(mean, y[0, 0]) and not ans.any()


def test_not_a_number_is_not_hidden() -> None:
    y, *others = case("of a layer", "float32")
    y[0, 0, 0, 0, 1] = np.nan
    ans, mean, variance = normalize_elu(y, *others, epsilon=EPSILON)
    assert [bool(np.isnan(a[..., k]).all()) for a in (ans, mean, variance) for k in (0, 1)] == [False, True] * 3


def test_what_no_kernel_takes(kernels_on_host: list[str]) -> None:
    """A shift that differs along a row, and more rows than a grid has blocks."""
    y, _, scale, bias = case("of a layer", "float64")
    shift = noise(1, (7, 1, 1, 1, 1), "float64")
    found = normalize_elu(y, shift, scale, bias, epsilon=EPSILON)
    exact = _normalize_elu_written_out(y, shift, scale, bias, epsilon=EPSILON)
    assert np.abs(found[0] - exact[0]).max() <= bound("float64", y, scale)
    normalize_elu(np.zeros((1 << 16, 1), "f"), *(np.zeros(1, "f"),) * 3, epsilon=EPSILON)
    assert not kernels_on_host


def test_shards_have_the_moments_and_cotangents_of_the_whole() -> None:
    """Two processes, one after the other: what they add up is first written down, then read."""
    y, shift, scale, bias = case("of a layer", "float64")
    cuts, g = (slice(0, 3), slice(3, 7)), laid_out(4, y.shape, LAYOUTS["of a layer"][1], "float64")
    shares = [(c.stop - c.start) / 7 for c in cuts]
    zeros = np.zeros(5)
    whole = normalized_and_moments(y, shift, scale, bias, epsilon=EPSILON)
    cotangents = normalize_elu_vjp(g, zeros + 1, zeros + 2, y, shift, scale, bias, whole[3], epsilon=EPSILON)

    def together(work: Any) -> list[Any]:
        """What each process finds, every sum over both."""
        said: list[Any] = []
        for c, share in zip(cuts, shares, strict=True):
            work(c, Shard(share, lambda a: (said.append(a), a)[1]))
        return [work(c, Shard(share, lambda a: said[0] + said[1])) for c, share in zip(cuts, shares, strict=True)]

    options: dict[str, Any] = {"epsilon": EPSILON}
    found = together(lambda c, s: normalized_and_moments(y[c], shift, scale, bias, shard=s, **options))
    assert np.abs(np.concatenate([f[0] for f in found]) - whole[0]).max() <= bound("float64", y, scale)
    half = zeros + 0.5  # the cotangents of mean and variance, in two parts
    back = together(
        lambda c, s: normalize_elu_vjp(g[c], half, 2 * half, y[c], shift, scale, bias, whole[3], shard=s, **options)
    )
    assert np.abs(np.concatenate([b[0] for b in back]) - cotangents[0]).max() <= bound("float64", y, scale, g)
    for i in (1, 2, 3):
        assert np.abs(back[0][i] + back[1][i] - cotangents[i]).max() <= bound("float64", y, scale, g) * y.size
