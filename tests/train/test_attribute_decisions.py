"""The correction of tests of which some cannot succeed: what is planted comes out, and nothing does by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from train.attributes.decisions import LEVEL, corrected


@pytest.mark.parametrize(
    ("p", "smallest", "expected"),
    [
        ([], [], []),
        ([0.01], [0.001], [0.01]),
        ([0.5], [0.2], [math.nan]),
        ([0.01, 0.01], [0.001, 0.2], [0.01, math.nan]),  # what cannot succeed is not counted
        ([0.01, 0.9], [0.001, 0.001], [0.02, 1.0]),
        ([0.04, 0.04], [0.04, 0.04], [math.nan, math.nan]),  # one alone could have succeeded, but there are two
        ([0.001, 0.04], [0.001, 0.04], [0.002, math.nan]),
    ],
)
def test_corrected(p: list[float], smallest: list[float], expected: list[float]) -> None:
    assert corrected(p, smallest) == pytest.approx(expected, nan_ok=True)


def test_nothing_is_found_by_chance() -> None:
    """Of families of 20 tests with from 4 to 512 equally likely results, one in twenty finds something at the most."""
    rng, found, uncorrected = np.random.default_rng(0), 0, 0
    for _ in range(400):
        results = 2 ** rng.integers(2, 10, 20)
        p = (1 + rng.integers(results)) / results
        found += min(q for q in corrected(list(p), list(1 / results)) if not math.isnan(q)) <= LEVEL
        uncorrected += min(p) <= LEVEL
    assert found <= 32  # 400 draws at 0.05: more than 32 have a probability below 0.005
    assert uncorrected > 100
