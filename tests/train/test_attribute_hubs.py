"""How few images queries find, and intervals of means over queries and images that are crossed."""

from __future__ import annotations

import numpy as np
import pytest

from train.attributes import hubs
from train.attributes.hubs import Rows, effective_number, interval, weighted_means


@pytest.mark.parametrize(("counts", "expected"), [([4, 4, 4], 3), ([12], 1), ([1] * 12, 12), ([6, 3, 3], 144 / 54)])
def test_effective_number(counts: list[int], expected: float) -> None:
    assert effective_number(np.repeat(np.arange(len(counts)), counts)) == pytest.approx(expected)


def test_weighted_means_of_independent_rows_spread_by_the_root_of_three() -> None:
    """Of rows that share neither query nor image, products of weights have variance 3: the spread is sqrt(3) times."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 1))
    (means,) = weighted_means([Rows.of(np.arange(400)[:, None], values)], rng)
    assert means.std() == pytest.approx(np.sqrt(3 / 400) * values.std(), rel=0.15)
    assert means.mean() == pytest.approx(values.mean(), abs=4 * np.sqrt(3 / 400 / 999))


def test_intervals_hold_the_mean_where_queries_share_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values belong to 30 images; intervals of queries alone are too short."""
    monkeypatch.setattr(hubs, "SAMPLES", 199)
    rng, covered, by_queries, runs = np.random.default_rng(0), 0, 0, 60
    for _ in range(runs):
        of_image = rng.standard_normal(30)
        found = rng.integers(30, size=(200, 1))
        (means,) = weighted_means([Rows.of(found, of_image[found])], rng)
        low, high = interval(means)
        covered += low <= 0 <= high
        values = of_image[found[:, 0]]
        by_queries += abs(values.mean()) <= 1.96 * values.std() / np.sqrt(200)
    assert covered >= 53  # 60 at 0.95: fewer have a probability below 0.01
    assert by_queries <= 45


def test_tables_share_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(hubs, "SAMPLES", 20)
    found, values = rng.integers(30, size=(50, 2)), rng.standard_normal((50, 2))
    first, second = weighted_means([Rows.of(found, values), Rows.of(found, values + 3)], rng)
    assert np.allclose(second - first, 3)
