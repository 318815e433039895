"""Whether images that translations of attributes lead to differ in known properties (the end of section 5.3).

Many pairs of translation and property are tried, so p-values are corrected for their number by the largest statistic of
each permutation (Westfall and Young, 1993, single step).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.attributes.decisions import LEVEL, Tested
from train.attributes.hubs import FEWEST, Rows, effective_number, interval, weighted_means

PERMUTATIONS = 1999


@dataclass(frozen=True)
class Finding(Tested):
    """One translation and one property of the images found."""

    j: int  # depth
    axis: str  # axis of the translation
    tau: int  # samples
    name: str  # the property
    effect: float  # mean difference in standard deviations of the property
    low: float  # 95 % interval of the effect; NaN where few images are found
    high: float
    images: float  # effective number of found images, the smaller with and without the translation
    score: float  # the effect less its mean under permutation, in standard deviations
    # Probability that the largest score of all tests is as large if there is nothing, from permutations; NaN where
    # nothing can be decided, which is then not one of all tests.
    p: float
    smallest_p: float  # the smallest p that there can be


def properties(images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Return properties of images."""
    parts: dict[str, list[np.ndarray[Any, Any]]] = {}
    for begin in range(0, len(images), 1000):
        for name, values in _properties(images[begin : begin + 1000] / 255.0).items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _properties(rgb: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    centred = luma - luma.mean(axis=(1, 2), keepdims=True)
    down, right = np.gradient(luma, axis=(1, 2))
    tensor = {name: (a * b).sum(axis=(1, 2)) for name, a, b in (("xx", right, right), ("yy", down, down))}
    mixed, edges = (right * down).sum(axis=(1, 2)), tensor["xx"] + tensor["yy"] + 1e-12
    rows, columns = (np.fft.fftfreq(n) * n for n in luma.shape[1:])
    radius = np.hypot(rows[:, None], columns[None, :])
    power = np.abs(np.fft.fft2(centred)) ** 2
    return {
        "brightness": luma.mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "hue: red over green": (red - green).mean(axis=(1, 2)),
        "hue: yellow over blue": ((red + green) / 2 - blue).mean(axis=(1, 2)),
        "orientation: vertical edges over horizontal": (tensor["xx"] - tensor["yy"]) / edges,
        "orientation: falling diagonals over rising": -2 * mixed / edges,
        "spatial frequency": (power * radius).sum(axis=(1, 2)) / (power.sum(axis=(1, 2)) + 1e-12),
    }


def standardised(values: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return properties of images as columns (M, P) of mean 0 and deviation 1, or of 0, and which vary (P,)."""
    table = np.stack(list(values.values()), axis=1).astype(np.float64)
    deviations = table.std(axis=0)
    varies = deviations > 1e-12 * np.abs(table).max(axis=0)
    return (table - table.mean(axis=0)) / np.where(varies, deviations, 1) * varies, varies


def found_images_differ(
    nearest: Mapping[tuple[int, str], np.ndarray[Any, Any]],
    values: Mapping[str, np.ndarray[Any, Any]],
    rng: np.random.Generator,
) -> list[Finding]:
    """Test whether images found by a translation differ from those found without one.

    The permutations give the images of the whole set each other's properties. What each query finds stays, so an image
    that many queries find counts as one image, and the properties of an image stay together. Intervals give weights to
    queries and to images (`train.attributes.hubs.weighted_means`).
    """
    from scipy.sparse import csr_array

    names = list(values)
    tests = [(j, axis, tau) for (j, axis), indices in nearest.items() for tau in range(1, indices.shape[1])]
    if not tests or not names:
        return []
    table, varies = standardised(values)
    many = len(table)
    # how much more often the translation finds each image than no translation does, (tests, M)
    counts = np.stack([_counts(nearest[j, axis], tau, many) for j, axis, tau in tests])
    queries = np.asarray([len(nearest[j, axis]) for j, axis, _ in tests])[:, None]
    sizes = [min(effective_number(nearest[j, axis][:, t]) for t in (0, tau)) for j, axis, tau in tests]
    smallest = np.outer([_smallest_p(row) for row in counts], varies) + ~varies  # (tests, P)
    decided = (smallest <= LEVEL) & (np.asarray(sizes) >= FEWEST)[:, None]
    # of the sum of counts times properties, which has mean 0
    spread = np.sqrt((counts**2).sum(axis=1) * many / (many - 1))[:, None]
    spread[spread == 0] = np.inf
    effects = counts @ table / queries
    scores = effects * queries / spread
    highest = np.zeros(PERMUTATIONS)
    if decided.any():
        ever = np.flatnonzero(counts.any(axis=0))
        sparse = csr_array(counts[:, ever])
        for index in range(PERMUTATIONS):
            drawn = sparse @ table[rng.permutation(many)[: len(ever)]] / spread
            highest[index] = np.abs(drawn[decided]).max()
    low, high = _intervals(nearest, table, rng)
    return [
        Finding(
            *test,
            name,
            float(effects[row, column]),
            *((float(low[row, column]), float(high[row, column])) if sizes[row] >= FEWEST else (math.nan, math.nan)),
            sizes[row],
            float(scores[row, column]),
            _corrected(abs(scores[row, column]), highest) if decided[row, column] else math.nan,
            float(smallest[row, column]),
        )
        for row, test in enumerate(tests)
        for column, name in enumerate(names)
    ]


def _counts(indices: np.ndarray[Any, Any], tau: int, many: int) -> np.ndarray[Any, Any]:
    """Count how much more often each image is found at tau than at 0."""
    after, before = (np.bincount(indices[:, t], minlength=many) for t in (tau, 0))
    return np.asarray(after - before)


def _smallest_p(counts: np.ndarray[Any, Any]) -> float:
    """Smallest p that permutations of images can give: the part of them that leave these counts, or negate them."""
    present, times = np.unique(counts, return_counts=True)
    symmetric = np.array_equal(present, -present[::-1]) and np.array_equal(times, times[::-1])
    logarithm = sum(math.lgamma(n + 1) for n in times) - math.lgamma(len(counts) + 1)
    return float(min(1.0, max((1 + symmetric) * math.exp(logarithm), 1 / (1 + PERMUTATIONS))))


def _intervals(
    nearest: Mapping[tuple[int, str], np.ndarray[Any, Any]], table: np.ndarray[Any, Any], rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Low and high ends (2, tests, P) of the intervals of the effects."""
    ends = []
    for indices in nearest.values():
        rows = np.arange(len(indices))
        means = np.stack(weighted_means([Rows(rows, i, table[i]) for i in indices.T], rng), axis=1)
        ends.append(interval(means[:, 1:] - means[:, :1]))
    return np.concatenate(ends, axis=1)


def strongest(findings: Iterable[Finding]) -> list[Finding]:
    """Return for each depth and axis the finding with the largest score; a decided one if there is any."""
    best: dict[tuple[int, str], Finding] = {}
    for finding in sorted(findings, key=lambda f: (f.decided, abs(f.score))):
        best[finding.j, finding.axis] = finding
    return sorted(best.values(), key=lambda f: (f.j, f.axis))


def _corrected(score: float, highest: np.ndarray[Any, Any]) -> float:
    """Return the part of the permutations, and the natural order itself, whose largest score is as large."""
    slack = 1e-12 * abs(score)  # sums in another order round differently
    return float((1 + np.count_nonzero(highest >= score - slack)) / (1 + len(highest)))
