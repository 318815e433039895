"""Blocks of queries that share no image: planted differences come out, and none where there is none."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.train.test_attribute_meaning import found_by_hubs, p_of_query_signs
from train.attributes import blocks
from train.attributes.blocks import Blocks, blocks_differ, blocks_of
from train.attributes.decisions import LEVEL


@pytest.fixture(autouse=True)
def few_flips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "FLIPS", 199)


def of(found: Any, values: dict[str, Any], rng: np.random.Generator) -> Blocks:
    """The one test of the images that queries find without a translation and with it."""
    (only,) = blocks_differ({(3, "v_j"): found}, values, rng)
    return only


def in_groups(rng: np.random.Generator, groups: int, each: int = 10, bright: Any = None) -> Any:
    """Queries of a group find the same image, with a translation a bright one; groups share none."""
    everything = np.arange(1000)
    after = rng.choice(everything if bright is None else np.flatnonzero(bright), groups, replace=False)
    before = rng.choice(np.setdiff1d(everything, after) if bright is None else np.flatnonzero(~bright), groups, False)
    return np.stack([before, after], axis=1).repeat(each, axis=0)


def test_blocks_are_those_that_chains_of_images_join() -> None:
    before, after = np.asarray([1, 2, 7, 5, 9, 4]), np.asarray([2, 3, 8, 5, 7, 6])
    found = blocks_of(before, after)
    assert found.tolist() == [found[0], found[0], found[2], found[3], found[2], found[5]]
    assert len({found[0], found[2], found[3], found[5]}) == 4
    rng = np.random.default_rng(0)
    for size in (20, 60, 200):
        before, after = rng.integers(size, size=(2, 40))
        found, expected = blocks_of(before, after), np.arange(40)
        for _, a, b in itertools.product(range(40), range(40), range(40)):
            if {before[a], after[a]} & {before[b], after[b]}:
                expected[a] = expected[b] = min(expected[a], expected[b])
        assert np.array_equal(found[:, None] == found, expected[:, None] == expected)


@pytest.mark.parametrize("groups", [2, 5, 6, 7])
def test_few_blocks_are_flipped_in_every_way(groups: int) -> None:
    rng = np.random.default_rng(groups)
    found, values = in_groups(rng, groups, 3), rng.standard_normal(1000)
    standard = (values - values.mean()) / values.std()
    sums = 3 * (standard[found[::3, 1]] - standard[found[::3, 0]])
    every = [abs(np.dot(signs, sums)) for signs in itertools.product([-1, 1], repeat=groups)]
    measured = of(found, {"x": values}, rng)
    assert (measured.blocks, measured.largest, measured.smallest_p) == (groups, 1 / groups, 2.0 ** (1 - groups))
    assert measured.decided == (groups > 5)
    assert measured.effect == pytest.approx((standard[found[:, 1]] - standard[found[:, 0]]).mean())
    if measured.decided:
        assert measured.p == np.mean(np.asarray(every) >= abs(sums.sum()) - 1e-9)


@pytest.mark.parametrize("groups", [6, 20])
def test_a_planted_difference_comes_out(groups: int) -> None:
    rng = np.random.default_rng(0)
    values = {"planted": rng.standard_normal(1000), "nothing": rng.standard_normal(1000)}
    found = in_groups(rng, groups, bright=values["planted"] > 1)
    measured = of(found, values, rng)
    assert measured.significant and measured.name == "planted" and measured.effect > 1
    assert measured.p == (1 / 32 if groups == 6 else 1 / 200)


def test_nothing_in_groups_of_queries_is_none() -> None:
    """Nothing is planted, but each image is found by ten queries; signs of queries find a difference too often."""
    rng, runs = np.random.default_rng(0), 100
    significant = by_signs = 0
    for _ in range(runs):
        found, values = in_groups(rng, 20), rng.standard_normal(1000)
        measured = of(found, {"a": values, "b": rng.standard_normal(1000)}, rng)
        assert measured.decided
        significant += measured.significant
        by_signs += p_of_query_signs(found, values, rng) <= LEVEL
    assert significant <= 11  # 100 draws at 0.05: more than 11 have a probability below 0.005
    assert by_signs >= 25  # which this control must notice


@pytest.mark.parametrize("many", [3, 10, 50, 1000])
def test_hubs_join_queries_to_one_block_which_decides_nothing(many: int) -> None:
    rng, significant, decided = np.random.default_rng(0), 0, 0
    for _ in range(40):
        values = rng.standard_normal(3000)
        bright = np.flatnonzero(values > 0) if many < 1000 else np.arange(3000)  # planted, and yet not decided
        found = found_by_hubs(rng, many, [3000, bright])
        measured = of(found, {"x": values}, rng)
        decided += measured.decided
        significant += measured.significant
        assert (measured.largest > 0.5) == (many < 1000)
    assert decided == (0 if many < 1000 else 40)
    assert significant <= 6  # 40 draws at 0.05: more than 6 have a probability below 0.005


@pytest.mark.parametrize(("each", "decided"), [(30, True), (31, False)])
def test_a_block_of_most_queries_decides_nothing(each: int, decided: bool) -> None:
    """However many small blocks there are beside it."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    found = in_groups(rng, 11, 3, values > 1)
    found = np.concatenate([found[:30], found[30:31].repeat(each, axis=0)])
    measured = of(found, {"planted": values}, rng)
    assert measured.blocks == 11 and measured.largest == each / (30 + each)
    assert (measured.decided, measured.significant) == (decided, decided)


def test_what_is_found_twice_has_no_sign() -> None:
    rng = np.random.default_rng(0)
    found = np.repeat(np.arange(50)[:, None], 2, axis=1)
    measured = of(found, {"x": rng.standard_normal(60)}, rng)
    assert (measured.blocks, measured.effect, measured.smallest_p, measured.decided) == (0, 0, 1, False)
    constant = of(in_groups(rng, 20), {"x": np.ones(1000)}, rng)
    assert not constant.decided
    assert blocks_differ({}, {"x": np.ones(3)}, rng) == [] == blocks_differ({(3, "v_j"): found}, {}, rng)


def test_translations_that_decide_nothing_cost_the_others_nothing() -> None:
    rng = np.random.default_rng(0)
    values = {"planted": rng.standard_normal(1000)}
    good = in_groups(rng, 6, bright=values["planted"] > 1)
    hubs = found_by_hubs(rng, 3, [1000] * 40, len(good))
    several = blocks_differ({(3, "v_j"): good, (4, "v_j"): hubs}, values, rng)
    assert [b.decided for b in several] == [True] + [False] * 39
    assert several[0].p == 1 / 32
    twice = blocks_differ({(3, "v_j"): good, (4, "v_j"): good}, values, rng)
    assert [b.decided for b in twice] == [False, False]  # 2/32 is above the level
