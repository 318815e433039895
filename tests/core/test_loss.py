"""The loss: against SciPy, at extremes, and with labels that are none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from hcnn_core import cross_entropy, log_softmax
from hcnn_core.loss import cross_entropy_and_gradient, targets
from tests.core.oracle import LAYOUTS, SEEDS, C, NDArray, eps, lay_out, noise, wide

REAL = ("float32", "float64")


@st.composite
def logits(draw: st.DrawFn, **options: Any) -> NDArray:
    shape = draw(array_shapes(max_side=12, **options))
    seed, scale = draw(SEEDS), draw(st.sampled_from([1e-3, 1, 1e4]))
    x = noise(seed, shape, draw(st.sampled_from(REAL)))
    return lay_out(x * x.dtype.type(scale), draw(st.sampled_from(LAYOUTS)), seed)


@given(logits(min_dims=1, max_dims=3))
def test_log_softmax_is_scipys(x: NDArray) -> None:
    kept = x.copy()
    y = log_softmax(x)
    expected = scipy.special.log_softmax(wide(x), axis=-1)
    assert y.dtype == x.dtype and y.shape == x.shape and np.isfinite(y).all()
    # one subtraction, then a logarithm of at most log(classes) < 3, each rounded
    assert (np.abs(y - expected) <= C * eps(x.dtype) * (np.abs(expected) + 1)).all()
    assert np.array_equal(x, kept) and not np.shares_memory(y, x)


@given(logits(min_dims=2, max_dims=2), st.sampled_from([0, 1e-3, 0.02, 0.1, 0.9]), SEEDS)
def test_cross_entropy_is_the_mean_log_likelihood(x: NDArray, smoothing: float, seed: int) -> None:
    count, classes = x.shape
    labels = np.random.default_rng(seed).integers(classes, size=count)
    log_p = scipy.special.log_softmax(wide(x), axis=-1)
    terms = [(1 - smoothing) * -log_p[i, k] + smoothing * -log_p[i].mean() for i, k in enumerate(labels)]
    loss = cross_entropy(x, labels, label_smoothing=smoothing)
    assert loss.dtype == x.dtype and loss.shape == ()
    assert abs(loss - np.mean(terms)) <= C * eps(x.dtype) * (np.abs(log_p).sum() / count + 1)


def test_extreme_logits() -> None:
    for dtype in REAL:
        x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype)
        assert log_softmax(x)[0].tolist() == [0, -2e4, -1e4]
        assert np.abs(log_softmax(x)[1] + math.log(3)).max() <= 4 * eps(dtype)
        assert cross_entropy(x[:1], [0]) == 0 and cross_entropy(x[:1], [1]) == 2e4
    with np.errstate(over="ignore"):
        naive = np.log(np.exp(np.array([1e4])))
    assert not np.isfinite(naive).all()


def test_loss_of_a_uniform_guess_is_the_entropy() -> None:
    labels = np.arange(10) % 7
    for smoothing in (0.0, 0.3):
        loss = cross_entropy(np.zeros((10, 7)), labels, label_smoothing=smoothing)
        assert abs(loss - math.log(7)) < 1e-15 * 8


@given(st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.99]), st.sampled_from(REAL), SEEDS)
def test_targets_are_distributions(classes: int, smoothing: float, dtype: str, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(classes, size=5)
    target = targets(np.zeros((5, classes), dtype), labels, smoothing)
    assert target.dtype == dtype and target.shape == (5, classes)
    assert (target >= 0).all() and (np.abs(target.sum(1, dtype=np.float64) - 1) <= C * eps(dtype)).all()
    assert (target[np.arange(5), labels] >= target.max(1)).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64, np.uint64, list])
def test_labels_of_any_integer_kind(kind: Any) -> None:
    x = noise(0, (3, 4), "float32")
    labels = [2, 0, 3]
    given_labels = labels if kind is list else np.array(labels, kind)
    assert cross_entropy(x, given_labels) == cross_entropy(x, np.array(labels))
    assert abs(cross_entropy(x.tolist(), labels) - cross_entropy(wide(x), labels)) < 1e-15


@pytest.mark.parametrize("smoothing", [np.float64(0.1), np.float32(0.1), 0])
def test_smoothing_does_not_change_the_dtype(smoothing: Any) -> None:
    assert cross_entropy(np.zeros((2, 3), np.float32), [0, 1], label_smoothing=smoothing).dtype == np.float32


def test_nan_propagates() -> None:
    x = np.zeros((3, 4))
    x[1, 2] = np.nan
    assert np.isnan(log_softmax(x)).sum() == 4
    assert np.isnan(cross_entropy(x, [0, 1, 2]))


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_masked_costs_nothing_where_it_is_not_the_label() -> None:
    x = np.array([[0.0, -np.inf]])
    assert cross_entropy(x, [0]) == 0
    assert cross_entropy(x, [1]) == np.inf == cross_entropy(x, [0], label_smoothing=0.1)
    loss, gradient = cross_entropy_and_gradient(x, np.array([0]))
    assert loss == 0 and gradient.tolist() == [[0, 0]]
