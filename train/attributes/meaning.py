"""What translations of attributes have to do with known properties of images (the end of section 5.3).

Two questions. Do the images that translations lead to differ in a property from those that no translation leads to? And
does changing a property of an image change its arrays as a translation does? Many pairs of translation and property
are tried, so p-values are corrected for their number by the largest statistic of each permutation (Westfall and Young,
1993, single step).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.attributes.decisions import LEVEL, Tested
from train.attributes.hubs import FEWEST, Rows, effective_number, interval, weighted_means

PERMUTATIONS = 1999


@dataclass(frozen=True)
class Finding(Tested):
    """One translation and one property."""

    question: str  # which of the two questions
    j: int  # depth
    axis: str  # axis of the translation
    tau: int  # samples
    name: str  # the property, or the change
    # Found images: mean difference in standard deviations of the property. Changed images: correlation, from -1 to 1,
    # of the array's change with that of the translation.
    effect: float
    low: float  # 95 % interval of the effect; NaN for changed images, and where few images are found
    high: float
    images: float  # effective number of found images, the smaller with and without the translation; NaN if changed
    # The effect less its mean under permutation, in standard deviations. Of found images either sign counts; a change
    # is like a translation if the score is positive.
    score: float
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


def _levels(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.rint(np.clip(images, 0, 255)), np.uint8)


def _contrast(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return _levels(mean + 1.25 * (images - mean))


def _hue(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Colours turned by 30 degrees about the grey axis."""
    c, s, third = math.cos(math.pi / 6), math.sin(math.pi / 6), math.sqrt(1 / 3)
    cross = third * np.asarray([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    turn = c * np.eye(3) + s * cross + (1 - c) / 3 * np.ones((3, 3))
    return _levels(np.asarray(images @ turn.T))


def _turn(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from scipy.ndimage import rotate

    return _levels(rotate(images.astype(np.float32), 15, (2, 1), reshape=False, order=1, mode="reflect"))


def _blur(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from scipy.ndimage import gaussian_filter

    return _levels(gaussian_filter(images.astype(np.float32), 0.7, axes=(1, 2)))


def _moved(axis: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Two pixels further along an axis; the first ones are repeated."""

    def move(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sources = np.maximum(np.arange(images.shape[axis]) - 2, 0)
        return np.asarray(np.take(images, sources, axis=axis))

    return move


CHANGES: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "brighter by 16 levels": lambda images: _levels(images + 16.0),
    "contrast times 1.25": _contrast,
    "hue turned by 30 degrees": _hue,
    "turned by 15 degrees": _turn,
    "blurred, 0.7 pixels": _blur,
    "mirrored left to right": lambda images: images[:, :, ::-1],
    "mirrored top to bottom": lambda images: images[:, ::-1],
    "moved right by 2 pixels": _moved(2),
    "moved down by 2 pixels": _moved(1),
}
"""Changes of known properties: functions of images (N, H, W, 3), uint8."""


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
            "found images",
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


def like_translations(
    arrays: Mapping[tuple[int, str], np.ndarray[Any, Any]],
    changed: Mapping[tuple[int, str], Mapping[str, np.ndarray[Any, Any]]],
    rng: np.random.Generator,
) -> list[Finding]:
    """Test whether changing images changes their arrays as a circular translation does.

    The effect is the correlation, over all images and entries, of the array's change with the change that translating
    the array makes, whose mean is 0. The permutations put the axis into another order, in which the translation is then
    taken: what is no more than chance is as large in any order. The test is one-sided, since the opposite of a
    translation's change is not that of another translation.
    """
    tests, effects, drawn, smallest = [], [], [], []
    for (j, axis), before in arrays.items():
        length = before.shape[1]
        before = before.astype(np.float64)
        gram = np.einsum("nvm,nwm->vw", before, before)
        orders = np.stack([np.arange(length), *(rng.permutation(length) for _ in range(PERMUTATIONS))])
        for name, after in changed[j, axis].items():
            difference = after - before
            cross = np.einsum("nvm,nwm->vw", difference, before)
            size = ((difference - difference.mean()) ** 2).sum()
            size = max(
                float(size), 1e-24 * float((difference**2).sum())
            )  # a constant differs from its mean by rounding
            for tau in range(1, length):
                # where the translation takes each sample from, in the natural order and in the others
                sources = np.empty_like(orders)
                np.put_along_axis(sources, orders, np.roll(orders, tau, axis=1), axis=1)
                places = np.arange(length), sources
                inner = cross[places].sum(axis=1) - np.trace(cross)
                squared = 2 * (np.trace(gram) - gram[places].sum(axis=1))
                correlations = inner / np.sqrt(np.maximum(size * squared, 1e-300))
                tests.append((j, axis, tau, name))
                effects.append(correlations[0])
                drawn.append(correlations[1:])
                smallest.append(_smallest_p_of_orders(length, tau))
    if not tests:
        return []
    null = np.stack(drawn)
    mean, spread = null.mean(axis=1), null.std(axis=1)
    spread[spread < 1e-9] = np.inf  # two or three samples have no other order
    decided = np.asarray(smallest) <= LEVEL
    highest = ((null - mean[:, None]) / spread[:, None])[decided].max(axis=0, initial=-np.inf)
    scores = (np.asarray(effects) - mean) / spread
    return [
        Finding(
            "changed images",
            *test,
            float(effect),
            *(math.nan, math.nan, math.nan),
            float(score),
            _corrected(score, highest) if decides else math.nan,
            least,
        )
        for test, effect, score, decides, least in zip(tests, effects, scores, decided, smallest, strict=True)
    ]


def _smallest_p_of_orders(length: int, tau: int) -> float:
    """Smallest corrected p of a change that is the translation by tau itself.

    The translation is g cycles of L samples. In L^g g! orders it is the same translation; and in as many, for each of
    the phi(L) translations of as many cycles, that one becomes it.
    """
    cycles = math.gcd(length, tau)
    samples = length // cycles
    alike = sum(math.gcd(samples, k) == 1 for k in range(1, samples + 1))
    same = alike * samples**cycles * math.factorial(cycles) / math.factorial(length)
    return max(same, 1 / (1 + PERMUTATIONS))


def strongest(findings: Iterable[Finding]) -> list[Finding]:
    """Return, of each question, depth and axis, the finding with the largest score; one that is decided if any is."""
    best: dict[tuple[str, int, str], Finding] = {}
    for finding in findings:
        key = finding.question, finding.j, finding.axis
        if key not in best or _strength(finding) > _strength(best[key]):
            best[key] = finding
    return list(best.values())


def _strength(finding: Finding) -> tuple[bool, float]:
    if finding.question == "found images":
        return finding.decided, abs(finding.score)
    # a change against a translation is not like it
    return finding.decided, finding.score if finding.effect > 0 else -math.inf


def _corrected(score: float, highest: np.ndarray[Any, Any]) -> float:
    """Return the part of the permutations, and the natural order itself, whose largest score is as large."""
    slack = 1e-12 * abs(score)  # sums of other signs, or in another order, round differently
    return float((1 + np.count_nonzero(highest >= score - slack)) / (1 + len(highest)))
