"""Nearest images of translated arrays: planted answers come out, and chance where there is nothing to find."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from train.attributes.translations import (
    Agreement,
    Search,
    agreement,
    agreement_in_shuffled_order,
    contrast,
    match,
    sharing_no_sample,
    translated,
    trend,
)

SEARCH = Search(width=2, boundary="periodic", quantile=0.05)
UNSMOOTHED = replace(SEARCH, width=1)
CLASSES, LENGTH, WIDTH = 4, 8, 6


def planted(rng: np.random.Generator, size: int) -> tuple[Any, Any]:
    """Arrays of classes that are closed under translation: one wave at every place; phases along v_j tell classes."""
    v = 2 * np.pi * np.arange(LENGTH) / LENGTH
    pattern_rng = np.random.default_rng(7)
    patterns = np.cos(v[None, :, None] + pattern_rng.uniform(0, 2 * np.pi, (CLASSES, 1, WIDTH)))
    labels, shifts = rng.integers(CLASSES, size=size), rng.integers(LENGTH, size=size)
    arrays = np.stack([np.roll(patterns[c], s, axis=0) for c, s in zip(labels, shifts, strict=True)])
    return (arrays + 0.01 * rng.standard_normal(arrays.shape)).astype(np.float32), labels


def test_translated_by_every_tau() -> None:
    arrays = np.arange(24.0).reshape(2, 3, 4)
    found = translated(arrays, "periodic")
    for tau in range(3):
        assert np.array_equal(found[:, tau], np.roll(arrays, tau, axis=1))
    assert np.array_equal(translated(arrays, "zero")[:, 2, :2], np.zeros((2, 2, 4)))


def test_matches_are_the_nearest_of_translated_smoothed_arrays() -> None:
    rng = np.random.default_rng(0)
    database = rng.standard_normal((60, 5, 3)).astype(np.float32)
    queries = np.asarray([7, 30])
    found = match(4, database[queries], queries, database, SEARCH, count=3, rng=np.random.default_rng(1))
    smoothed = (database + np.roll(database, -1, axis=1)) / 2
    assert np.allclose(found.arrays, smoothed[queries], atol=1e-6)
    for row in range(2):
        for tau in range(5):
            moved = np.roll(smoothed[queries[row]], tau, axis=0)
            distances = np.sqrt(((smoothed - moved).astype(float) ** 2).sum(axis=(1, 2)))
            order = np.argsort(distances, kind="stable")
            assert found.indices[row, tau].tolist() == order[:3].tolist()
            assert np.allclose(found.distances[row, tau], distances[order[:3]], atol=1e-5)
            assert np.allclose(found.found_arrays[row, tau], smoothed[order[0]], atol=1e-6)
    assert found.indices[:, 0, 0].tolist() == [7, 30] and found.distances[:, 0, 0].max() < 1e-6
    assert found.threshold == np.quantile(found.random, 0.05)


def test_classes_that_are_translations_of_one_another_agree() -> None:
    rng = np.random.default_rng(0)
    database, labels = planted(rng, 1200)
    own = np.arange(200)
    found = agreement(5, database[own], labels[own], database, labels, UNSMOOTHED, places=own, rng=rng)
    assert found.share.tolist() == [1.0] * LENGTH and found.moved == 1
    assert found.interval.tolist() == [[1.0] * LENGTH] * 2
    assert (found.found != own[:, None]).all()
    shuffled = agreement_in_shuffled_order(
        5, database[own], labels[own], database, labels, UNSMOOTHED, orders=8, places=own, rng=rng
    )
    assert shuffled.same.shape == found.same.shape
    assert shuffled.share[0] == 1  # no translation, no need of an order
    assert shuffled.mean_interval(range(1, LENGTH), rng)[1] < 0.9  # the order is what made translations keep the class


def test_arrays_without_classes_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    database = rng.standard_normal((1500, LENGTH, WIDTH)).astype(np.float32)
    labels = rng.integers(CLASSES, size=1500)
    own = np.arange(1000)
    found = agreement(5, database[own], labels[own], database, labels, SEARCH, places=own, rng=rng)
    deviation = (0.25 * 0.75 / 1000) ** 0.5
    assert np.abs(found.share - 0.25).max() < 4 * deviation


def test_intervals_are_those_of_a_bootstrap() -> None:
    rng = np.random.default_rng(0)
    same = rng.random((400, 3)) < (0.9, 0.5, 0.7)
    same[:, 2] = same[:, 1]  # dependent, as translations of one image are
    found = Agreement(3, same, same, np.zeros(same.shape, int))
    samples = rng.integers(400, size=(4000, 400))
    for tau in range(3):
        drawn = same[:, tau][samples].mean(axis=1)
        assert np.allclose(found.interval[:, tau], np.quantile(drawn, (0.025, 0.975)), atol=0.006)
    drawn = same[:, 1:].mean(axis=1)[samples].mean(axis=1)
    # one image is found always, whose weight changes nothing; noise of quantiles of 999
    assert np.allclose(found.mean_interval([1, 2], rng), np.quantile(drawn, (0.025, 0.975)), atol=0.01)
    assert found.moved == same[:, 1].mean()


def test_translations_that_share_no_sample() -> None:
    """Against the samples that each smoothed one is a mean of."""
    for steps, width in itertools.product(range(1, 9), range(1, 5)):
        for boundary, length in (("periodic", steps), ("zero", 99)):  # beyond the end no sample is met again
            means = [{(v + k) % length for k in range(width)} for v in range(steps)]
            expected = [
                tau
                for tau in range(1, steps)
                if not any(means[v] & {(s - tau) % length for s in means[v]} for v in range(steps))
            ]
            assert sharing_no_sample(steps, width, boundary) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("effect", [-0.2, 0, 0.2])
def test_contrast_of_translations(effect: float) -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for j in (3, 4):
        same = rng.random((400, 6)) < 0.4
        same[:, 2::2] = rng.random((400, 2)) < 0.4 + effect
        measured = Agreement(j, same, same, rng.integers(2000, size=same.shape))
        pairs.append(((measured, [2, 4]), (measured, [3, 5])))
    of_depth, mean = contrast(pairs, rng)
    for c, ((a, first), (_, second)) in zip(of_depth, pairs, strict=True):
        assert (c.first, c.second) == (a.same[:, first].mean(), a.same[:, second].mean())
        assert c.low < c.difference < c.high
    assert mean.difference == pytest.approx(np.mean([c.difference for c in of_depth]))
    assert mean.low < effect < mean.high and (mean.low > 0, mean.high < 0) == (effect > 0, effect < 0)
    assert mean.high - mean.low < min(c.high - c.low for c in of_depth)
    assert mean.decided


@pytest.mark.parametrize(("many", "decided"), [(3, False), (50, True)])
def test_contrast_of_few_images_decides_nothing(many: int, decided: bool) -> None:
    rng = np.random.default_rng(0)
    same = rng.random((400, 4)) < (0.2, 0.2, 0.8, 0.2)
    measured = Agreement(3, same, same, rng.integers(many, size=same.shape))
    _, mean = contrast([((measured, [2]), (measured, [3]))], rng)
    assert mean.decided == decided and mean.low > 0 and mean.images == pytest.approx(many, rel=0.2)


def test_contrast_of_what_finds_the_same_has_no_spread() -> None:
    """Both sides give a query and an image the same weight, whichever measurement they are of."""
    rng = np.random.default_rng(0)
    same, found = rng.random((50, 3)) < 0.5, rng.integers(30, size=(50, 3))
    one, other = (Agreement(3, same, same, found) for _ in range(2))
    _, mean = contrast([((one, [1, 2]), (other, [1, 2]))], rng)
    assert (mean.low, mean.high, mean.decided) == (0, 0, True)


def test_axis_of_one_sample_has_no_translation() -> None:
    found = Agreement(3, np.ones((4, 1), bool), np.ones((4, 1), bool), np.zeros((4, 1), int))
    rng = np.random.default_rng(0)
    assert np.isnan(found.moved) and np.isnan(found.mean_interval([], rng)).all()
    assert dataclasses.replace(found, j=4).share.tolist() == [1.0]


def test_trend() -> None:
    assert trend([1, 2, 3, 4, 5]) == pytest.approx((1.0, 2 / 120))
    assert trend([3, 2, 1])[0] == -1
    assert np.isnan(trend([1.0])).all()


@pytest.mark.parametrize("values", [[1, 1, 2, 2, 3], [1, 1, 2, 3, 4], [1, 1, 1, 3], [3, 3, 2, 1, 2, 1]])
def test_trend_of_equal_values(values: list[float]) -> None:
    """Against all orders of the values, twice the part on the smaller side."""
    n = len(values)
    rises = [
        sum(np.sign(order[b] - order[a]) for a in range(n) for b in range(a + 1, n))
        for order in itertools.permutations(values)
    ]
    found = rises[0]
    smaller = min(np.mean([r >= found for r in rises]), np.mean([r <= found for r in rises]))
    assert trend(values)[1] == pytest.approx(min(1, 2 * smaller))


def test_trend_of_many_equal_values() -> None:
    assert trend([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9])[1] == pytest.approx(2 / 10_000)
    assert np.isnan(trend([0.5] * 11)[1])
