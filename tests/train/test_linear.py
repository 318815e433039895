"""The linear classifier against the normal equations with a column per feature."""

from __future__ import annotations

import numpy as np
import pytest

from train.networks.linear import FLOOR, linear_accuracy


def data(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(3, size=count)
    return rng.standard_normal((count, 2, 3)) + 1.2 * np.eye(3)[labels][:, None], labels


def test_it_is_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    (x, labels), (test, wanted) = data(rng, 40), data(rng, 300)
    a, b = x.reshape(40, 6), test.reshape(300, 6)
    a, b = ((f - x.reshape(40, 6).mean(0)) / (x.reshape(40, 6).std(0) + FLOOR) for f in (a, b))
    scale = 0.5 * (a**2).sum() / 40
    w = np.linalg.solve(a.T @ a + scale * np.eye(6), a.T @ (np.eye(3)[labels] - 1 / 3))
    expected = ((b @ w).argmax(1) == wanted).mean()
    assert linear_accuracy(x, labels, test, wanted, ridge=0.5) == expected
    assert 0.6 < expected < 1
    assert linear_accuracy(x, rng.permutation(labels), test, wanted, ridge=0.5) < 0.6  # a negative control


def test_features_that_tell_nothing() -> None:
    y = np.array([0, 1, 1])
    assert linear_accuracy(np.ones((3, 2)), y, np.ones((3, 2)), y) == pytest.approx(1 / 3)  # all alike: the first class
    assert linear_accuracy(np.ones((1, 2)), y[:1], np.eye(2), y[:2]) == 0.5
