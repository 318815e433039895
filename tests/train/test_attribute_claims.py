"""The table of claims: what is planted gets a yes, nothing gets none, and what cannot succeed is not decided."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hcnn_core import translate
from tests.train.test_attribute_translations import planted
from tests.train.test_explore import study_of
from train.attributes import claims as claims_of
from train.attributes import hubs
from train.attributes import study as studies
from train.attributes.claims import claims
from train.attributes.contraction import Gain, PairDistances
from train.attributes.meaning import Finding
from train.attributes.organisation import Comparison
from train.attributes.study import Exactness, Layers, Organisation
from train.data import Dataset
from train.networks.hierarchical import hierarchy
from train.verification.covariance import axes


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "SAMPLES", 199)


def found(**parts: Any) -> dict[str, tuple[float, str]]:
    """The smallest p and the verdict of each claim about what was measured."""
    nothing = {"exactness": [], "agreements": {}, "findings": [], "organisation": [], "layers": []}
    study: Any = SimpleNamespace(**nothing | parts, settings=SimpleNamespace(seed=0))
    return {c.claim: (c.smallest_p, c.verdict) for c in claims(study)}


def verdicts(**parts: Any) -> list[str]:
    """The verdicts alone."""
    return [verdict for _, verdict in found(**parts).values()]


def test_which_translations_are_exact_is_measured_image_by_image(
    few_images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "EXAMINED", 3)
    monkeypatch.setattr(studies, "EXAMINED_AT_ONCE", 2)
    arrays, labels = planted(np.random.default_rng(0), 200)
    study = dataclasses.replace(study_of(few_images, arrays, labels, arrays), dataset=few_images)
    rows = {(e.j, e.axis): e for e in study._exactness()}
    subject = study.model.subject(few_images.test_images[[0, 10, 20]])
    for j in (3, 4):
        x = subject.activations[j]
        tail, table = subject.tail(j, "evaluation"), hierarchy(subject.network)
        logits = np.asarray(tail(x))
        for axis in (a for a in axes(table, j) if (j, a.name) in rows):
            row = rows.pop((j, axis.name))
            assert (row.length, row.multiple, row.images) == (axis.length, axis.exact, 3)
            changes, classes = [], [0]
            for shift in range(1, axis.length):
                moved = np.asarray(tail(translate(x, shift, axis.position, boundary="periodic")))
                change = np.abs(moved - logits).max(axis=1) / np.abs(logits).max(axis=1)
                if shift % axis.exact:
                    changes.append(change)
                    classes.append(int((moved.argmax(axis=1) != logits.argmax(axis=1)).sum()))
                else:
                    assert change.max() < 1e-12
            if not changes:
                assert np.isnan([row.change, row.low, row.high]).all()
            else:
                of_image = np.max(changes, axis=0)
                expected = [np.median(of_image), of_image.min(), of_image.max()]
                assert [row.change, row.low, row.high] == pytest.approx(expected, rel=1e-6)
                assert row.low < row.change < row.high
            assert row.classes == max(classes)
            assert math.isnan(row.error) or row.error <= row.bound
    assert not rows


def exactness(error: float) -> Exactness:
    return Exactness(3, "v_j", 8, 2, 100, error, 1e-12, 0.5, 0.2, 0.9, 37)


def test_claims_of_exact_translations() -> None:
    assert verdicts(exactness=[exactness(1e-15), exactness(math.nan)]) == ["yes"]
    assert verdicts(exactness=[exactness(1e-15), exactness(1e-9)]) == ["no"]
    assert verdicts(exactness=[exactness(math.nan)]) == []  # at zero boundaries there are none
    study: Any = SimpleNamespace(exactness=[exactness(1e-15)], agreements={}, findings=[], organisation=[], layers=[])
    (claim,) = claims(study)
    assert "1.0e-15 of the largest logit of 10 images" in claim.result  # not of the image's own
    assert claim.result.endswith("change an image's logits by 0.2 to 0.9 of its largest")


@pytest.mark.parametrize(
    ("rise", "exact", "natural", "expected"),
    [
        (0.15, 0.2, 0.3, ["yes", "yes", "yes", "yes"]),
        (0.0, 0.0, 0.0, ["not shown"] * 4),
        (-0.1, -0.2, -0.2, ["no, less often", "not shown", "no, less often", "no, less often"]),
    ],
)
def test_claims_of_classes(few_images: Dataset, rise: float, exact: float, natural: float, expected: list[str]) -> None:
    """Classes stay with a probability that depends on depth, on whether a translation is exact, and on the order."""
    rng = np.random.default_rng(0)
    arrays, labels = planted(rng, 400)
    study = study_of(few_images, arrays, labels, arrays)
    study.exactness = [Exactness(j, "v_{j-1}", 8, 2, 9, 0, 1, 1, 1, 1, 0) for j in range(3, 8)]
    for place, (j, measured) in enumerate(study.agreements["trained"].items()):
        for kind, more in (("trained", natural), ("random order", 0.0)):
            share = 0.4 + rise * (place - 2) + more
            probability = np.full(measured.same.shape, share)
            probability[:, ::2] += exact
            same = rng.random(probability.shape) < probability
            images = rng.integers(5000, size=same.shape)
            study.agreements[kind][j] = dataclasses.replace(measured, same=same, found=images)
        study.unsmoothed["trained"][j] = study.agreements["trained"][j]
    lines = [line for line in claims(study)[1:] if "untrained" not in line.claim]
    assert [line.verdict for line in lines] == expected
    assert [line.smallest_p for line in lines] == pytest.approx([math.nan, 2 / 120, math.nan, math.nan], nan_ok=True)
    short = {kind: {j: a for j, a in of.items() if j < 6} for kind, of in study.agreements.items()}
    study.agreements = short  # three depths cannot rise significantly
    assert claims(study)[3].verdict == "cannot be decided"


@pytest.mark.parametrize(("width", "expected"), [(0.015, "yes"), (0.025, "not shown")])
def test_a_rise_needs_ends_whose_intervals_are_apart(
    width: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five shares in perfect order, the last of which lies 0.04 above the first."""
    monkeypatch.setattr(claims_of, "apart", lambda study, j: [])
    agreements = {
        j: SimpleNamespace(
            mean=lambda taus, share=0.5 + 0.01 * j: share,
            mean_interval=lambda taus, rng, share=0.5 + 0.01 * j: (share - width, share + width),
        )
        for j in range(3, 8)
    }
    study: Any = SimpleNamespace(agreements={"trained": agreements}, settings=SimpleNamespace(seed=0))
    found = claims_of._Rise.of(study)
    assert (found.statistic, found.verdict) == (pytest.approx(1), expected)


def finding(p: float, smallest: float = 0.001) -> Finding:
    return Finding(3, "v_j", 1, "x", 0.5, math.nan, math.nan, math.nan, 2, p, smallest)


def test_claims_of_meaning() -> None:
    for ps, expected in (([0.01, 0.5], "yes"), ([0.2, math.nan], "not shown"), ([math.nan], "cannot be decided")):
        assert list(found(findings=[finding(p) for p in ps]).values()) == [(0.001, expected)]


def order(p: float, smallest: float) -> Organisation:
    own = Comparison(1, 0, 1, p, smallest)
    return Organisation(3, "v_j", "seriation", own, own)


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        ([(0.001, 0.001)] + [(0.9, 0.001)] * 9, "yes"),
        ([(0.04, 0.001)] * 10, "not shown"),  # each is below 0.05, but there are ten
        ([(0.04, 0.001)] + [(0.3, 0.3)] * 9, "yes"),  # the others cannot succeed and are not counted
        ([(0.33, 0.33)], "cannot be decided"),
    ],
)
def test_claims_of_order(tests: list[tuple[float, float]], expected: str) -> None:
    assert verdicts(organisation=[order(*test) for test in tests]) == [expected]


@pytest.mark.parametrize(
    ("ratio", "apart", "gain", "expected"),
    [
        (0.7, 1.1, (0.8, 0.9), ["yes", "yes", "yes"]),
        (1.0, 1.0, (2.0, 0.9), ["cannot be decided", "not shown", "not shown"]),
        (1.3, 0.9, (2.0, 1.1), ["no", "no", "no, less"]),
    ],
)
def test_claims_of_distances(ratio: float, apart: float, gain: tuple[float, float], expected: list[str]) -> None:
    """The distances of 500 pairs change by a factor that is random, with a median of `ratio`."""
    rng = np.random.default_rng(0)

    def distances(factor: float) -> Any:
        first = rng.gamma(9, size=(500, 1))
        second = first * ratio * np.exp(0.3 * rng.standard_normal((500, 1)))
        return np.concatenate([first, second * factor], axis=1)

    pairs = PairDistances(distances(1.0), distances(apart))
    layers = Layers(pairs, pairs, [Gain(1, *gain, True)], [], [], [])
    assert verdicts(layers=[layers]) == expected


def test_nothing_measured_is_nothing_claimed() -> None:
    assert found() == {}
