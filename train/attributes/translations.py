"""Images that translations of attributes lead to (section 5.3 of arXiv:1703.04140), and how often the class stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core import translate
from hcnn_core.backend import Array, array_namespace
from hcnn_core.typing import Boundary
from train.attributes.features import smooth
from train.attributes.hubs import CONFIDENCE, FEWEST, Rows, effective_number, interval, weighted_means
from train.attributes.nearest import distances_of_random_pairs, nearest


@dataclass(frozen=True)
class Search:
    """Search for the nearest images of translated arrays."""

    width: int  # samples that smoothing averages
    boundary: Boundary  # how arrays are extended and translated
    quantile: float  # part of the random pairs whose distances count as small
    xp: Any = np  # namespace that searches

    def smoothed(self, arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return smoothed arrays."""
        return np.asarray(smooth(arrays, self.width, self.boundary))

    def nearest(
        self,
        smoothed: np.ndarray[Any, Any],
        database: np.ndarray[Any, Any],
        count: int = 1,
        places: np.ndarray[Any, Any] | None = None,
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return distances and indices (queries, translations, count) of what is nearest to each translated array.

        Arrays of the database are smoothed already; a query is not compared with its own, at `places`.
        """
        moved = translated(smoothed, self.boundary)
        many, steps = moved.shape[:2]
        exclude = None if places is None else np.repeat(places, steps)
        queries, flat = (self.xp.asarray(a) for a in (moved.reshape(many * steps, -1), database))
        distances, indices = nearest(queries, flat, min(count, len(flat)), exclude=exclude)
        return distances.reshape(many, steps, -1), indices.reshape(many, steps, -1)


@dataclass(frozen=True)
class Matches:
    """The nearest images of translated arrays, at one depth."""

    j: int  # depth
    queries: np.ndarray[Any, Any]  # indices of the images whose arrays are translated
    arrays: np.ndarray[Any, Any]  # their smoothed arrays
    found_arrays: np.ndarray[Any, Any]  # those of the nearest images: per query and translation
    indices: np.ndarray[Any, Any]  # The k nearest images of the database, per query and translation tau = 0 .. n-1.
    distances: np.ndarray[Any, Any]  # their distances
    random: np.ndarray[Any, Any]  # distances of pairs of images drawn at random
    threshold: float  # distances up to this one count as small


def translated(arrays: Array, boundary: Boundary) -> Array:
    """Return arrays translated along their first axis by every tau."""
    xp = array_namespace(arrays)
    return xp.stack([translate(arrays, tau, 1, boundary=boundary) for tau in range(arrays.shape[1])], axis=1)


def match(
    j: int,
    arrays: np.ndarray[Any, Any],
    queries: np.ndarray[Any, Any],
    database: np.ndarray[Any, Any],
    search: Search,
    *,
    count: int,
    rng: np.random.Generator,
) -> Matches:
    """Find the nearest images of translated arrays: the x^tau of section 5.3."""
    searched, smoothed = search.smoothed(database), search.smoothed(arrays)
    flat = searched.reshape(len(searched), -1)
    distances, indices = search.nearest(smoothed, flat, count)
    random = distances_of_random_pairs(flat, rng)
    threshold = float(np.quantile(random, search.quantile))
    return Matches(j, queries, smoothed, searched[indices[..., 0]], indices, distances, random, threshold)


def sharing_no_sample(steps: int, width: int, boundary: Boundary) -> list[int]:
    """Return the translations by at least `width`, after which smoothed samples share no sample with those before.

    Smoothing over `width` samples makes an array like itself translated by less; around a circle, from both sides.
    """
    return list(range(width, steps - width + 1 if boundary == "periodic" else steps))


@dataclass(frozen=True)
class Agreement:
    """Agreement of the class of an image with that of the image nearest to its translated array."""

    j: int  # depth
    # Whether the class is the same, per query and translation tau = 0 .. n-1. Without a translation this says whether
    # the nearest neighbour classifies the image right.
    same: np.ndarray[Any, Any]
    close: np.ndarray[Any, Any]  # whether the distance is small
    found: np.ndarray[Any, Any]  # the nearest images

    @property
    def share(self) -> np.ndarray[Any, Any]:
        """Probability that the class is the same, for each tau."""
        return np.asarray(self.same.mean(axis=0))

    @property
    def interval(self) -> np.ndarray[Any, Any]:
        """Low and high ends (2, n) of the 95 % bootstrap interval of `share`.

        The number of agreements among resampled queries is binomial, so no sample has to be drawn.
        """
        from scipy.stats import binom

        many = len(self.same)
        ends = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
        return np.stack([binom.ppf(end, many, self.share) / many for end in ends])

    @property
    def moved(self) -> float:
        """Mean of `share` over all translations but tau = 0; NaN if there is none."""
        return self.mean(range(1, self.same.shape[1]))

    def mean(self, taus: Sequence[int]) -> float:
        """Return the mean of `share` over some translations; NaN if there is none."""
        return float(self.same[:, list(taus)].mean()) if len(taus) else float("nan")

    def rows(self, taus: Sequence[int]) -> Rows:
        """Return whether the class is the same, query by query and translation by translation."""
        return Rows.of(self.found[:, list(taus)], self.same[:, list(taus)])

    def mean_interval(self, taus: Sequence[int], rng: np.random.Generator) -> tuple[float, float]:
        """Return the 95 % interval of `mean` over queries and images found."""
        if not len(taus):
            return float("nan"), float("nan")
        low, high = interval(*weighted_means([self.rows(taus)], rng))
        return float(low), float(high)


@dataclass(frozen=True)
class Contrast:
    """Difference between how often some translations keep the class and how often others do."""

    first: float  # share of the first ones
    second: float  # share of the others
    low: float  # 95 % interval of the difference, over queries and images found
    high: float
    images: float  # effective number of images found, the smallest of any of these translations together

    @property
    def difference(self) -> float:
        """The first share less the second."""
        return self.first - self.second

    @property
    def decided(self) -> bool:
        """Whether enough images are found for the interval to say something."""
        return not math.isnan(self.low) and self.images >= FEWEST


Translations = tuple[Agreement, Sequence[int]]
"""The measurement at a depth, and some of its translations."""


def contrast(
    pairs: Sequence[tuple[Translations, Translations]], rng: np.random.Generator
) -> tuple[list[Contrast], Contrast]:
    """Compare two sets of translations of the same queries, pair by pair, and in the mean of all pairs."""
    tables = [a.rows(taus) for pair in pairs for a, taus in pair]
    means = np.stack(weighted_means(tables, rng))
    differences = means[::2] - means[1::2]  # (pairs, samples)
    shares = [float(table.values.mean()) for table in tables]
    sizes = [effective_number(table.images) for table in tables]
    contrasts = [
        _contrast(shares[i], shares[i + 1], differences[i // 2], sizes[i : i + 2]) for i in range(0, len(tables), 2)
    ]
    mean = _contrast(float(np.mean(shares[::2])), float(np.mean(shares[1::2])), differences.mean(axis=0), sizes)
    return contrasts, mean


def _contrast(first: float, second: float, differences: np.ndarray[Any, Any], sizes: Sequence[float]) -> Contrast:
    low, high = interval(differences)
    return Contrast(first, second, float(low), float(high), min(sizes))


def agreement(
    j: int,
    arrays: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    database: np.ndarray[Any, Any],
    database_labels: np.ndarray[Any, Any],
    search: Search,
    *,
    places: np.ndarray[Any, Any] | None,
    rng: np.random.Generator,
) -> Agreement:
    """Measure how often translations keep the class, as section 5.3 claims for deep layers."""
    searched, smoothed = search.smoothed(database), search.smoothed(arrays)
    flat = searched.reshape(len(searched), -1)
    distances, images = (a[..., 0] for a in search.nearest(smoothed, flat, places=places))
    threshold = np.quantile(distances_of_random_pairs(flat, rng), search.quantile)
    return Agreement(j, database_labels[images] == labels[:, None], distances <= threshold, images)


def agreement_in_shuffled_order(
    j: int,
    arrays: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    database: np.ndarray[Any, Any],
    database_labels: np.ndarray[Any, Any],
    search: Search,
    *,
    orders: int,
    places: np.ndarray[Any, Any] | None,
    rng: np.random.Generator,
) -> Agreement:
    """Measure `agreement` along the axis in random orders, a control in which translations have no meaning."""
    parts = []
    for part in np.array_split(np.arange(len(arrays)), min(orders, len(arrays))):
        order = rng.permutation(arrays.shape[1])
        parts.append(
            agreement(
                j,
                np.ascontiguousarray(arrays[part][:, order]),
                labels[part],
                np.ascontiguousarray(database[:, order]),
                database_labels,
                search,
                places=None if places is None else places[part],
                rng=rng,
            )
        )
    return Agreement(j, *(np.concatenate([getattr(p, name) for p in parts]) for name in ("same", "close", "found")))


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Return whether values rise with depth."""
    from scipy.stats import kendalltau, permutation_test

    if len(values) < 2:
        return float("nan"), float("nan")
    tau = kendalltau(range(len(values)), values)
    if len(set(values)) == len(values) or not np.isfinite(tau.statistic):
        return float(tau.statistic), float(tau.pvalue)

    earlier, later = np.triu_indices(len(values), 1)

    def rises(v: np.ndarray[Any, Any], axis: int) -> Any:  # tau without its denominator, which all orders share
        return np.sign(v[..., later] - v[..., earlier]).sum(axis=axis)

    rng = np.random.default_rng(0)
    permuted = permutation_test((values,), rises, permutation_type="pairings", vectorized=True, rng=rng)
    return float(tau.statistic), float(permuted.pvalue)
