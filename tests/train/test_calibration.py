"""A temperature undoes overconfidence, on images that did not choose it; calibration is measured by its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from train.runs.calibration import calibration_error, tempered_loss


def drawn(count: int, classes: int = 10) -> tuple[Any, Any]:
    """Logits, and labels drawn with the probabilities that they say."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((count, classes))
    return logits, np.asarray([rng.choice(classes, p=p) for p in softmax(logits, axis=1)])


def loss(logits: Any, labels: Any) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_a_temperature_undoes_a_factor(factor: float) -> None:
    logits, labels = drawn(4000)
    best = loss(logits, labels)
    found = tempered_loss((factor * logits).astype(np.float32), labels)
    order = np.argsort(labels, kind="stable")
    halves = [(factor * logits[part], labels[part]) for part in (order[::2], order[1::2])]
    own = [
        minimize_scalar(lambda t, h=h: loss(h[0] / t, h[1]), bounds=(0.02, 50), method="bounded").fun for h in halves
    ]
    assert np.mean(own) < found < best + 0.002  # one number, fitted on 2,000 images
    assert found <= loss(factor * logits, labels) + 0.002


def test_each_half_is_measured_by_the_other_ones_temperature() -> None:
    """Of two halves with different temperatures, each is worse off with the other's than as it is."""
    logits, labels = drawn(2000)
    logits, labels = logits[order := np.argsort(labels, kind="stable")], labels[order]
    scaled = np.where(np.arange(2000)[:, None] % 2, 4.0, 0.25) * logits
    assert tempered_loss(scaled, labels) > loss(scaled, labels) > loss(logits, labels)


def test_halves_have_every_class_in_whatever_order_they_come() -> None:
    logits, labels = drawn(2000, 2)
    logits += [[2.0, 0.0]]  # so that one class wants another temperature than the other
    sorted_, alternating = (places := np.stack([np.flatnonzero(labels == k)[:900] for k in (0, 1)])), places.T
    assert set(labels[alternating.ravel()[::2]]) == {0}
    found = [tempered_loss(logits[order.ravel()], labels[order.ravel()]) for order in (sorted_, alternating)]
    assert found[0] == found[1]


def test_calibration_error_is_its_definition() -> None:
    logits, labels = drawn(300)
    confidence, right = softmax(3 * logits, axis=1).max(axis=1), logits.argmax(axis=1) == labels
    expected = 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & ((confidence < (k + 1) / 15) | (k == 14))
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert np.isclose(calibration_error(3 * logits, labels), expected)
    assert calibration_error(3 * logits, labels) > 2 * calibration_error(logits, labels)
    sure = np.eye(10)[labels] * 1000
    assert calibration_error(sure, labels) == 0 and calibration_error(sure, (labels + 1) % 10) == 1
