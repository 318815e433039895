"""Marginals: sums over axes, and what they are invariant to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hcnn_core import marginal, marginal_vjp
from hcnn_core.marginals import REDUCTIONS
from tests.core.oracle import DTYPES, LAYOUTS, SEEDS, C, NDArray, eps, lay_out, noise, norm, wide


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray, tuple[int, ...]]:
    shape = draw(array_shapes(min_dims=1, max_dims=5, max_side=5))
    axes = draw(st.permutations(range(len(shape))))[: draw(st.integers(0, len(shape)))]
    seed = draw(SEEDS)
    x = lay_out(noise(seed, shape, draw(st.sampled_from(DTYPES))), draw(st.sampled_from(LAYOUTS)), seed)
    return x, tuple(a - draw(st.sampled_from([0, len(shape)])) for a in axes)


@given(cases(), st.sampled_from(REDUCTIONS))
def test_marginal_sums_or_averages(case: tuple[NDArray, tuple[int, ...]], reduction: str) -> None:
    x, axes = case
    kept = x.copy()
    y = marginal(x, axes, reduction=reduction)
    count = math.prod(x.shape[a] for a in axes)
    expected = wide(x).sum(axis=axes) / (count if reduction == "mean" else 1)
    # a sum of n numbers is off by at most n eps of the sum of their moduli; 20 are more than these roundings add up to
    bound = C * eps(x.dtype) * np.abs(wide(x)).sum(axis=axes) / (count if reduction == "mean" else 1)
    assert y.dtype == x.dtype and np.shape(y) == expected.shape
    assert (np.abs(y - expected) <= bound).all()
    assert np.array_equal(x, kept) and not np.shares_memory(y, x)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [(0,), (1, 2), (2, 0), (3,), (0, 1, 2, 3)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_long_runs(layout: str, axes: tuple[int, ...], dtype: str, reduction: str) -> None:
    x = lay_out(noise(0, (3, 5, 4, 40), dtype), layout)
    expected = getattr(wide(x), reduction)(axis=axes)
    scale = getattr(np.abs(wide(x)), reduction)(axis=axes)
    assert (np.abs(marginal(x, axes, reduction=reduction) - expected) <= C * eps(dtype) * scale).all()


CUTS = [np.s_[:], np.s_[..., None], np.s_[..., None, :], np.s_[:, :, ::2], np.s_[..., 3:36], np.s_[..., :1]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", CUTS)
def test_runs_beside_gaps_and_axes_of_length_one(cut: Any, dtype: str) -> None:
    x = noise(0, (3, 2, 5, 4, 40), dtype)[cut]
    for axes in (0, (0, 1), (0, 3)):
        expected, scale = wide(x).mean(axes), np.abs(wide(x)).mean(axes)
        y = marginal(x, axes, reduction="mean")
        assert y.shape == expected.shape and (np.abs(y - expected) <= C * eps(dtype) * scale).all()


@given(cases(), st.sampled_from(REDUCTIONS), SEEDS)
def test_dot_test(case: tuple[NDArray, tuple[int, ...]], reduction: str, seed: int) -> None:
    x, axes = case
    y = marginal(x, axes, reduction=reduction)
    g = noise(seed, np.shape(y), str(x.dtype))
    g_x = marginal_vjp(g, x, axes, reduction=reduction)
    assert g_x.shape == x.shape and g_x.dtype == x.dtype
    assert np.array_equal(g_x, marginal_vjp(g, x.shape, axes, reduction=reduction))
    bound = 2 * C * eps(x.dtype) * norm(g_x) * norm(x)
    assert abs(np.sum(wide(g) * y) - np.sum(wide(g_x) * x)) <= bound


def test_axes_of_length_zero() -> None:
    x = np.ones((3, 0), np.float32)
    assert marginal(x, 1).tolist() == [0, 0, 0]
    assert marginal(x, 0).shape == (0,)
    assert marginal_vjp(np.ones(3, np.float32), x, 1, reduction="mean").shape == (3, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(200_000, 2), (400, 2, 500)])
def test_many_rows_keep_their_digits(shape: tuple[int, ...], dtype: str) -> None:
    """Added row to row in single precision, the first would be off by 4e-4."""
    x = 100 + np.abs(noise(0, shape, dtype)).astype(dtype)
    axes = tuple(a for a, n in enumerate(shape) if n > 2)
    for found, expected in (
        (marginal(x, axes), wide(x).sum(axis=axes)),
        (marginal(x, axes, reduction="mean"), wide(x).mean(axis=axes)),
    ):
        assert found.dtype == dtype and np.abs(found - expected).max() <= eps(dtype) * np.abs(expected).max()
