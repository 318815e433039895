"""Properties of images, and tests of what translations have to do with them: planted effects, and none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from train.attributes import meaning
from train.attributes.meaning import CHANGES, Finding, found_images_differ, like_translations, properties, strongest


@pytest.fixture(autouse=True)
def few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meaning, "PERMUTATIONS", 199)


def wave(rows: int, columns: int) -> Any:
    """A grey image (1, 32, 32, 3) of a plane wave with so many cycles down and to the right."""
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


def test_changes_change_what_they_say() -> None:
    images = np.random.default_rng(0).integers(60, 180, (3, 32, 32, 3)).astype(np.uint8)
    before = properties(images)
    after = {name: properties(change(images)) for name, change in CHANGES.items()}
    assert np.allclose(after["brighter by 16 levels"]["brightness"] - before["brightness"], 16 / 255, atol=1e-6)
    assert np.allclose(after["contrast times 1.25"]["contrast"] / before["contrast"], 1.25, atol=0.01)
    assert (after["blurred, 0.7 pixels"]["spatial frequency"] < before["spatial frequency"]).all()
    for name in ("mirrored left to right", "mirrored top to bottom", "moved right by 2 pixels"):
        assert np.allclose(after[name]["brightness"], before["brightness"], atol=0.02)
    assert np.array_equal(CHANGES["moved right by 2 pixels"](images)[:, :, 2:], images[:, :, :-2])
    assert np.array_equal(CHANGES["moved down by 2 pixels"](images)[:, 2:], images[:, :-2])
    grey = np.full((1, 4, 4, 3), 100, np.uint8)
    assert np.array_equal(CHANGES["hue turned by 30 degrees"](grey), grey)
    red = np.tile(np.asarray([200, 100, 100], np.uint8), (1, 4, 4, 1))
    turned = CHANGES["hue turned by 30 degrees"](red)[0, 0, 0]  # towards yellow
    assert turned[0] > turned[1] > 100 > turned[2]
    bars = wave(0, 4)
    edges = properties(CHANGES["turned by 15 degrees"](bars))["orientation: vertical edges over horizontal"]
    assert edges[0] == pytest.approx(np.cos(np.deg2rad(30)), abs=0.05)
    assert all(change(images).dtype == np.uint8 and change(images).shape == images.shape for change in CHANGES.values())


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


@pytest.mark.parametrize("queries", [3, 4, 5, 6])
def test_p_values_of_few_queries_are_no_smaller_than_signs_allow(queries: int) -> None:
    """All differences are of one sign: of 2^Q signs, two make the mean as large."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = {"planted": np.concatenate([rng.random(50), rng.random(50) + 2])}
        found = np.stack([rng.integers(50, size=queries), rng.integers(50, 100, size=queries)], axis=1)
        (finding,) = found_images_differ({(3, "v_j"): found}, values, rng)
        expected = 2 / 2**queries
        assert abs(finding.p - expected) <= 5 * np.sqrt(expected / 200) + 1 / 200


def test_corrected_p_values_of_nothing_are_uniform_at_the_least() -> None:
    """Of experiments in which there is nothing, about one in ten finds something at p <= 0.1, however many tests."""
    rng, found_something = np.random.default_rng(0), 0
    for _ in range(60):
        values = {str(i): rng.standard_normal(500) for i in range(5)}
        findings = found_images_differ({(3, "v_j"): rng.integers(500, size=(60, 5))}, values, rng)
        found_something += min(f.p for f in findings) <= 0.1
    assert found_something <= 14  # 60 draws at 0.1: more than 13 have a probability below 0.01


def test_a_change_that_is_a_translation_comes_out() -> None:
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((40, 8, 5))
    changed = {
        "translation": np.roll(arrays, 3, axis=1),
        "nothing": arrays + rng.standard_normal(arrays.shape),
        "none at all": arrays,
        "constant": arrays + 3,
        "translation and constant": np.roll(arrays, 3, axis=1) + 3,
    }
    findings = like_translations({(4, "v_{j-1}"): arrays}, {(4, "v_{j-1}"): changed}, rng)
    assert len(findings) == 35
    (best,) = strongest([f for f in findings if "constant" not in f.name])
    assert (best.tau, best.name, best.p) == (3, "translation", 1 / 200)
    assert best.effect == pytest.approx(1)
    assert all(f.p > 0.05 for f in findings if f.tau != 3 or "translation" not in f.name)
    assert all(f.effect == 0 for f in findings if f.name == "none at all")
    for f in findings:  # against its definition
        a, b = (changed[f.name] - arrays).ravel(), (np.roll(arrays, f.tau, axis=1) - arrays).ravel()
        expected = np.corrcoef(a, b)[0, 1] if a.std() > 1e-9 else 0.0
        assert f.effect == pytest.approx(expected, abs=1e-3 if f.name == "constant" else 1e-9)


def test_axes_without_another_order_say_nothing() -> None:
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((10, 2, 5))
    changed = {"translation": np.roll(arrays, 1, axis=1)}
    (finding,) = like_translations({(4, "v_{j-1}"): arrays}, {(4, "v_{j-1}"): changed}, rng)
    assert finding.effect == pytest.approx(1) and finding.score == 0 and finding.p == 1
    assert like_translations({}, {}, rng) == [] == found_images_differ({}, {}, rng)


def test_strongest_of_each_question_depth_and_axis() -> None:
    def finding(question: str, j: int, score: float, effect: float = 0.5) -> Finding:
        return Finding(question, j, "v_j", 1, "x", effect, score, 0.5)

    found, changed = "found images", "changed images"
    best = strongest(
        [
            finding(found, 3, 1),
            finding(found, 3, -2),
            finding(changed, 3, -2),
            finding(changed, 3, 0.5),
            finding(changed, 3, 9, effect=-0.1),
        ]
    )
    assert [(f.question, f.j, f.score) for f in best] == [(found, 3, -2), (changed, 3, 0.5)]
