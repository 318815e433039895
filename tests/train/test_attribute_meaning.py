"""Properties of images, and tests of what translations have to do with them: planted effects, and none."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from train.attributes import hubs, meaning
from train.attributes.decisions import LEVEL
from train.attributes.hubs import FEWEST
from train.attributes.meaning import Finding, found_images_differ, properties, strongest


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meaning, "PERMUTATIONS", 199)
    monkeypatch.setattr(hubs, "SAMPLES", 199)


def wave(rows: int, columns: int) -> Any:
    """A grey image (1, 32, 32, 3) of a plane wave with these cycles down and to the right."""
    i, j = np.mgrid[:32, :32]
    grey = 127.5 + 100 * np.cos(2 * np.pi * (rows * i + columns * j) / 32)
    return np.repeat(np.rint(grey)[None, :, :, None], 3, axis=3).astype(np.uint8)


def test_properties_of_waves() -> None:
    images = np.concatenate([wave(0, 4), wave(4, 0), wave(3, -3), wave(3, 3), wave(0, 8)])
    found = properties(images)
    assert np.allclose(found["brightness"], 0.5, atol=0.01)
    assert np.allclose(found["contrast"], 100 / 255 / np.sqrt(2), atol=0.01)
    assert np.allclose(found["spatial frequency"], [4, 4, np.hypot(3, 3), np.hypot(3, 3), 8], atol=0.01)
    assert np.allclose(found["orientation: vertical edges over horizontal"][:2], [1, -1])
    # lines of equal phase of the wave (3, -3) fall from left to right
    assert np.allclose(found["orientation: falling diagonals over rising"][2:4], [1, -1], atol=0.1)
    assert np.allclose(found["hue: red over green"], 0) and np.allclose(found["hue: yellow over blue"], 0)


def test_properties_of_colours() -> None:
    colours = np.asarray([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
    found = properties(np.tile(colours[:, None, None], (1, 8, 8, 1)))
    assert found["hue: red over green"].tolist() == [1, -1, 0, 0]
    assert found["hue: yellow over blue"].tolist() == [0.5, 0.5, -1, 1]
    assert found["contrast"].tolist() == pytest.approx([0, 0, 0, 0])


def test_a_planted_difference_of_found_images_comes_out() -> None:
    rng = np.random.default_rng(0)
    values = {"planted": rng.standard_normal(1000), "nothing": rng.standard_normal(1000)}
    found = rng.integers(1000, size=(300, 4))
    bright = np.flatnonzero(values["planted"] > 0.5)
    found[:, 2] = rng.choice(bright, 300)
    findings = found_images_differ({(3, "v_j"): found}, values, rng)
    assert len(findings) == 6
    (best,) = strongest(findings)
    assert (best.tau, best.name, best.p) == (2, "planted", 1 / 200)
    difference = values["planted"][found[:, 2]] - values["planted"][found[:, 0]]
    assert best.effect == pytest.approx(difference.mean() / values["planted"].std())
    assert all(f.p > 0.05 for f in findings if (f.tau, f.name) != (2, "planted"))


def found_by_hubs(rng: np.random.Generator, many: int, among: Any) -> Any:
    """Found images, if only a few images are found at all (without a translation, and with it)."""
    return np.stack([rng.choice(rng.choice(a, many, replace=False), 200) for a in among], axis=1)


def p_of_query_signs(found: Any, values: Any, rng: np.random.Generator) -> float:
    """The test that takes queries for independent: it exchanges the two images of each query."""
    differences = values[found[:, 1]] - values[found[:, 0]]
    means = rng.choice([-1.0, 1.0], (199, len(differences))) @ differences / len(differences)
    return float((1 + (np.abs(means) >= abs(differences.mean())).sum()) / 200)


@pytest.mark.parametrize("many", [10, 50])
def test_hubs_alone_are_no_difference(many: int) -> None:
    """Nothing is planted, but 200 queries find few images. Signs of queries find a difference far too often."""
    rng, runs = np.random.default_rng(0), 100
    decided, found_something, by_signs, covered = 0, 0, 0, 0
    for _ in range(runs):
        values = rng.standard_normal(1000)
        found = found_by_hubs(rng, many, [1000, 1000])
        (finding,) = found_images_differ({(3, "v_j"): found}, {"nothing": values}, rng)
        assert finding.images <= many and finding.decided == (finding.images >= FEWEST)
        decided += finding.decided
        found_something += finding.significant
        by_signs += p_of_query_signs(found, values, rng) <= LEVEL
        covered += finding.low <= 0 <= finding.high
    assert decided >= 90
    assert found_something <= 11  # 100 draws at 0.05: more than 11 have a probability below 0.005
    assert by_signs >= 25  # which this control must notice
    assert covered >= 0.87 * decided  # simulated, 93 % at ten hubs; 87 % are 2.4 deviations below


def test_a_planted_difference_of_hubs_comes_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    found = found_by_hubs(rng, 20, [1000, np.flatnonzero(values > 0.8)])
    (finding,) = found_images_differ({(3, "v_j"): found}, {"planted": values}, rng)
    assert finding.significant and 0 < finding.low < finding.effect < finding.high


def test_few_found_images_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1000)
    found = found_by_hubs(rng, 3, [1000, np.flatnonzero(values > 1.5)])
    (finding,) = found_images_differ({(3, "v_j"): found}, {"planted": values}, rng)
    assert finding.images <= 3 and finding.smallest_p == 1 / 200
    assert not finding.decided and not finding.significant and np.isnan([finding.p, finding.low, finding.high]).all()
    (nothing,) = found_images_differ({(3, "v_j"): found[:, [0, 0]]}, {"planted": values}, rng)
    assert (nothing.effect, nothing.score, nothing.smallest_p, nothing.decided) == (0, 0, 1, False)


def test_undecided_tests_cost_the_others_nothing() -> None:
    """A difference of 2.5 standard deviations, beside sixty tests of three images each."""
    rng = np.random.default_rng(0)
    own = found_by_hubs(rng, 40, [1000, 1000])
    counts = np.bincount(own[:, 1], minlength=1000) - np.bincount(own[:, 0], minlength=1000)
    along = counts / np.linalg.norm(counts)
    noise = rng.standard_normal(1000)
    values = {"planted": noise + (2.5 - noise @ along) * along}
    few = {(4, "v_j"): found_by_hubs(rng, 3, [1000] * 61)}
    (alone,) = found_images_differ({(3, "v_j"): own}, values, rng)
    together = found_images_differ({(3, "v_j"): own} | few, values, rng)
    assert [f.decided for f in together] == [True] + [False] * 60
    assert alone.score == pytest.approx(2.5, abs=0.2) and alone.p < 0.04  # of a normal distribution 0.012
    assert together[0].p < 0.04


@pytest.mark.parametrize("counts", [[1, -1, 0, 0], [2, -1, -1, 0, 0], [1, 1, -1, -1, 0], [0, 0, 0]])
def test_smallest_p_of_counts_is_that_of_all_permutations(counts: list[int]) -> None:
    """With the property that fits the counts best, which is the counts themselves."""
    c = np.asarray(counts)
    sums = np.asarray([c @ order for order in itertools.permutations(counts)])
    expected = float((np.abs(sums) >= c @ c).mean())
    assert meaning._smallest_p(c) == pytest.approx(expected)


def test_corrected_p_values_of_nothing_are_uniform_at_the_least() -> None:
    """Of experiments in which there is nothing, about one in ten finds something at p <= 0.1, however many tests."""
    rng, found_something = np.random.default_rng(0), 0
    for _ in range(60):
        values = {str(i): rng.standard_normal(500) for i in range(5)}
        findings = found_images_differ({(3, "v_j"): rng.integers(500, size=(60, 5))}, values, rng)
        found_something += min(f.p for f in findings) <= 0.1
    assert found_something <= 14  # 60 draws at 0.1: more than 13 have a probability below 0.01


def test_strongest_of_each_depth_and_axis() -> None:
    def finding(j: int, score: float, p: float = 0.5) -> Finding:
        return Finding(j, "v_j", 1, "x", 0.5, math.nan, math.nan, math.nan, score, p, 0.01)

    best = strongest([finding(3, 1), finding(3, -2), finding(3, 7, p=math.nan), finding(4, 0.5, p=math.nan)])
    assert [(f.j, f.score) for f in best] == [(3, -2), (4, 0.5)]  # one that is not decided, where none is
    assert found_images_differ({}, {}, np.random.default_rng(0)) == []
