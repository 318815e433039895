"""Pooling against sliding windows: values, cotangents, equal maxima, layouts, and what is refused."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import autodiff
from hcnn_core import max_pool, mean_pool, mean_pool_vjp
from hcnn_core.testing import assert_adjoint
from tests.core.oracle import LAYOUTS, SEEDS, NDArray, eps, lay_out, noise, poisoned_memory, threads, wide, windows


def max_pool_vjp(g: NDArray, x: NDArray, *args: Any, **options: Any) -> Any:
    return autodiff.vjp(lambda x: autodiff.max_pool(x, *args, **options), x)[1](g)[0]


@dataclass(frozen=True)
class Pooling:
    """An array and its windows. Its values are small integers, of which many are equal."""

    x: NDArray
    axes: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def options(self) -> dict[str, Any]:
        return {"axes": self.axes, "kernel_size": self.kernel_size, "stride": self.stride, "padding": self.padding}

    def windows(self, array: NDArray, fill: float) -> NDArray:
        return windows(wide(array), self.axes, self.kernel_size, self.stride, self.padding, fill)

    @functools.cached_property
    def samples(self) -> NDArray:
        """The number of the sample that each tap reads, and -1 outside."""
        return self.windows(np.arange(self.x.size).reshape(self.x.shape), -1).astype(int)

    def transposed(self, shares: NDArray) -> NDArray:
        """What every tap of every window gives to its sample, added up."""
        found = np.zeros(self.x.size)
        inside = self.samples >= 0
        np.add.at(found, self.samples[inside], shares[inside])
        return found.reshape(self.x.shape)


@st.composite
def poolings(draw: st.DrawFn) -> Pooling:
    ndim = draw(st.integers(1, 4))
    axes = tuple(draw(st.permutations(range(ndim)))[: draw(st.integers(1, min(ndim, 3)))])
    size = tuple(draw(st.integers(1, 4)) for _ in axes)
    padding = tuple(draw(st.integers(0, n // 2)) for n in size)
    shape = [draw(st.integers(0, 3)) for _ in range(ndim)]
    for axis, n, pad in zip(axes, size, padding, strict=True):
        shape[axis] = draw(st.integers(max(1, n - 2 * pad), 7))
    x = np.rint(2 * noise(draw(SEEDS), tuple(shape), draw(st.sampled_from(["float32", "float64"]))))
    stride = tuple(draw(st.integers(1, 4)) for _ in axes)
    return Pooling(lay_out(x, draw(st.sampled_from(LAYOUTS)), 0), axes, size, stride, padding)


@given(poolings())
def test_pooling_is_its_definition(case: Pooling) -> None:
    """Maxima, sums of integers, and their cotangents exactly; means to one rounding for each axis."""
    x, kept = case.x, case.x.copy()
    x.flags.writeable = False
    with poisoned_memory():
        largest, mean = max_pool(x, **case.options), mean_pool(x, **case.options)
    assert largest.dtype == mean.dtype == x.dtype and not np.shares_memory(largest, x)
    expected = case.windows(x, -np.inf)
    assert np.array_equal(largest, expected.max(-1, initial=-np.inf))
    count = np.maximum((case.samples >= 0).sum(-1), 1)
    exact = case.windows(x, 0).sum(-1) / count
    bound = 4 * len(case.axes) * eps(x.dtype)
    assert mean.shape == exact.shape and (np.abs(mean - exact) <= bound * np.abs(x).max(initial=0)).all()

    g = np.rint(3 * noise(1, largest.shape, str(x.dtype)))
    g.flags.writeable = False
    first = np.arange(expected.shape[-1]) == expected.argmax(-1)[..., None]
    with poisoned_memory():
        of_max, of_mean = max_pool_vjp(g, x, **case.options), mean_pool_vjp(g, x, **case.options)
    assert of_max.dtype == of_mean.dtype == x.dtype
    assert np.array_equal(of_max, case.transposed(np.where(first, g[..., None], 0)))
    shares = np.broadcast_to((g / count)[..., None], expected.shape)
    size = np.abs(case.transposed(np.abs(shares))).max(initial=0)
    assert (np.abs(of_mean - case.transposed(shares)) <= (bound + 16 * eps(x.dtype)) * size).all()
    assert np.array_equal(x, kept)


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_the_dot_test_of_means(dtype: str) -> None:
    where: dict[str, Any] = {"axes": (1, 2), "kernel_size": (3, 2), "stride": (2, 3)}
    x = noise(0, (2, 9, 8, 3), dtype)

    def padding_counted(g: NDArray) -> NDArray:
        return mean_pool_vjp(g, (2, 11, 8, 3), **where)[:, 1:-1]

    def pool(x: NDArray) -> NDArray:
        return mean_pool(x, **where, padding=(1, 0))

    assert_adjoint(pool, lambda g: mean_pool_vjp(g, x, **where, padding=(1, 0)), x)
    with pytest.raises(AssertionError):
        assert_adjoint(pool, padding_counted, x)


def test_results_keep_the_order_of_axes_in_memory_and_do_not_depend_on_threads() -> None:
    x = noise(0, (16, 9, 8, 20), "float32").transpose(3, 1, 2, 0)  # filters lie farthest apart, images side by side
    options: dict[str, Any] = {"axes": (1, 2), "kernel_size": 3, "stride": 2, "padding": 1}
    g = noise(1, (20, 5, 4, 16), "float32")
    results = []
    for count in (1, 3):
        with threads(count):
            forward = [max_pool(x, **options), mean_pool(x, **options)]
            back = [max_pool_vjp(g, x, **options), mean_pool_vjp(g, x, **options)]
            results.append(forward + back)
    assert all(map(np.array_equal, *results))
    assert all(np.argsort(y.strides).tolist() == [0, 2, 1, 3] for y in results[0][:2])


def test_windows_of_more_taps_than_a_byte_counts() -> None:
    x = np.zeros((2, 700))
    x[0, 300] = x[1, 655] = 1
    found = max_pool_vjp(np.array([[1.0, 2.0], [3.0, 4.0]]), x, 1, 350)
    assert np.argwhere(found).tolist() == [[0, 300], [0, 350], [1, 0], [1, 655]]


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_cotangents_of_padded_windows_reach_samples(value: float) -> None:
    """Padding is no sample, so it takes none of a cotangent, even where no sample is larger than it."""
    assert np.array_equal(max_pool_vjp(np.ones(2), np.full(2, value), 0, 2, stride=2, padding=1), [1, 1])
    assert np.array_equal(max_pool_vjp(np.ones(1), np.full(2, value), 0, 2), [1, 0])


def test_not_a_number_stays() -> None:
    x = np.array([1.0, np.nan, 2.0, 3.0])
    assert np.isnan(max_pool(x, 0, 2)).tolist() == [True, False]
    assert max_pool(np.full(4, -np.inf), 0, 2).tolist() == [-np.inf, -np.inf]
