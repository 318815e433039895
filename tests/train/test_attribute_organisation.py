"""Measures of order: they see a planted order, and none where there is none."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from train.attributes import organisation
from train.attributes.organisation import (
    neighbour_correlation,
    seriation,
    similarity_of_orders,
    spectral_order,
)


@pytest.fixture(autouse=True)
def few_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organisation, "ORDERS", 199)


def organised(rng: np.random.Generator, length: int, samples: int = 300) -> Any:
    """Smooth periodic functions (S, n) with random phases."""
    v = 2 * np.pi * np.arange(length) / length
    waves = np.cos(v + rng.uniform(0, 2 * np.pi, (samples, 1)))
    return waves + 0.1 * rng.standard_normal(waves.shape)


@pytest.mark.parametrize("length", [8, 10, 16])
def test_a_planted_order_is_seen(length: int) -> None:
    rng = np.random.default_rng(0)
    samples = organised(rng, length)
    assert neighbour_correlation(samples.T, True, rng).p < 0.02
    found = seriation(samples, True, rng)
    assert (found.value, found.p) == (1, 1 / 200) and found.mean < 0.7


@pytest.mark.parametrize("length", [8, 16])
def test_values_in_random_order_are_not_organised(length: int) -> None:
    """About one in twenty is significant at 0.05."""
    rng = np.random.default_rng(0)
    p: dict[str, list[float]] = {"neighbours": [], "seriation": []}
    for _ in range(40):
        samples = organised(rng, length, 50)[:, rng.permutation(length)]
        p["neighbours"].append(neighbour_correlation(samples.T, True, rng).p)
        p["seriation"].append(seriation(samples, True, rng).p)
    for values in p.values():
        assert sum(value <= 0.05 for value in values) <= 7  # P(more) < 0.005 if uniform
        assert 0.3 < np.mean(values) < 0.8


def test_neighbours_of_a_line_and_of_a_circle() -> None:
    rng = np.random.default_rng(0)
    filters = rng.standard_normal((5, 30))
    c = np.corrcoef(filters)
    line = [c[i, i + 1] for i in range(4)]
    assert neighbour_correlation(filters, False, rng).value == pytest.approx(np.mean(line))
    assert neighbour_correlation(filters, True, rng).value == pytest.approx(np.mean([*line, c[4, 0]]))


@pytest.mark.parametrize("circular", [True, False])
def test_spectral_order_of_a_shuffled_line_or_circle(circular: bool) -> None:
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(12)
    apart = np.abs(shuffled[:, None] - shuffled)
    if circular:
        apart = np.minimum(apart, 12 - apart)
    order = shuffled[spectral_order(np.exp(-apart / 3), circular)]
    assert similarity_of_orders(order[None], circular)[0] == 1


def test_similarity_of_orders() -> None:
    natural = np.arange(6)
    turned = np.roll(natural, 2)
    assert similarity_of_orders(np.stack([natural, natural[::-1], turned, turned[::-1]]), True).tolist() == [1, 1, 1, 1]
    assert similarity_of_orders(np.stack([natural, natural[::-1]]), False).tolist() == [1, 1]
    assert similarity_of_orders(turned[None], False)[0] == pytest.approx(abs(15 - 2 * 8) / 15)
    assert similarity_of_orders(np.asarray([[0, 3, 1, 4, 2, 5]]), True)[0] < 1


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_filter_is_like_no_neighbour(value: float) -> None:
    rng = np.random.default_rng(0)
    filters = rng.standard_normal((5, 30))
    filters[3:] = value
    c = np.corrcoef(filters[:3])
    found = neighbour_correlation(filters, False, rng)
    assert found.value == pytest.approx((c[0, 1] + c[1, 2]) / 4) and found.p > 0.01


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6])
def test_smallest_p_is_that_of_all_orders(length: int) -> None:
    """The number of orders as organised as the best one, for values without symmetry."""
    rng = np.random.default_rng(0)
    orders = np.asarray(list(itertools.permutations(range(length))))
    correlations = np.corrcoef(rng.standard_normal((length, 20)))
    for circular in (False, True):
        after = np.roll(orders, -1, axis=1) if circular else orders[:, 1:]
        means = correlations[orders[:, : after.shape[1]], after].mean(axis=1)
        expected = (means >= means.max() - 1e-9).mean()
        found = neighbour_correlation(rng.standard_normal((length, 20)), circular, rng)
        assert found.smallest_p == pytest.approx(max(1 / 200, expected))
        alike = similarity_of_orders(orders, circular)
        found = seriation(rng.standard_normal((30, length)), circular, rng)
        assert found.smallest_p == pytest.approx(max(1 / 200, (alike == 1).mean()))


def test_a_planted_order_of_four_samples_cannot_be_decided() -> None:
    rng = np.random.default_rng(0)
    samples = organised(rng, 4)
    for found in (seriation(samples, True, rng), neighbour_correlation(samples.T, True, rng)):
        assert found.smallest_p == pytest.approx(1 / 3) and found.p > 0.25
    assert seriation(organised(rng, 8), True, rng).smallest_p == 1 / 200
