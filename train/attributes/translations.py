"""Images that translations of attributes lead to (section 5.3 of arXiv:1703.04140), and how often the class stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core import translate
from hcnn_core.backend import Array, array_namespace
from hcnn_core.typing import Boundary
from train.attributes.features import smooth
from train.attributes.nearest import distances_of_random_pairs, nearest, rank

__all__ = ["Agreement", "Matches", "Search", "agreement", "agreement_in_shuffled_order", "match", "translated", "trend"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Search:
    """How the nearest images of translated arrays are found.

    Parameters
    ----------
    width : int
        Samples that smoothing averages.
    boundary : {"periodic", "zero"}
        How arrays are extended and translated.
    quantile : float
        Part of the random pairs whose distances count as small.
    xp : module, optional
        Namespace that searches.
    """

    width: int
    boundary: Boundary
    quantile: float
    xp: Any = np

    def smoothed(self, arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return smoothed arrays.

        Parameters
        ----------
        arrays : ndarray, shape (N, n, m)
            As `train.attributes.features.invariant_array` returns.

        Returns
        -------
        ndarray, shape (N, n, m)
            Of the same dtype.
        """
        return np.asarray(smooth(arrays, self.width, self.boundary))


@dataclass(frozen=True)
class Matches:
    """The nearest images of translated arrays, at one depth.

    Parameters
    ----------
    j : int
        Depth.
    queries : ndarray of int, shape (Q,)
        Indices of the images whose arrays are translated.
    arrays : ndarray, shape (Q, n, m)
        Their smoothed arrays.
    found_arrays : ndarray, shape (Q, n, n, m)
        Those of the nearest images: per query and translation.
    indices : ndarray of int64, shape (Q, n, k)
        The k nearest images of the database, per query and translation tau = 0 .. n-1.
    distances : ndarray of float64, shape (Q, n, k)
        Their distances.
    rank : ndarray of int64, shape (Q, n), or None
        Which place the query itself has among all images; None if it is not among them.
    random : ndarray of float64, shape (P,)
        Distances of pairs of images drawn at random.
    threshold : float
        Distances up to this one count as small.
    """

    j: int
    queries: np.ndarray[Any, Any]
    arrays: np.ndarray[Any, Any]
    found_arrays: np.ndarray[Any, Any]
    indices: np.ndarray[Any, Any]
    distances: np.ndarray[Any, Any]
    rank: np.ndarray[Any, Any] | None
    random: np.ndarray[Any, Any]
    threshold: float


def translated(arrays: Array, boundary: Boundary) -> Array:
    """Return arrays translated along their first axis by every tau.

    Parameters
    ----------
    arrays : array, shape (N, n, m)
        As `train.attributes.features.invariant_array` returns.
    boundary : {"periodic", "zero"}
        What enters: samples from the other end, or zeros.

    Returns
    -------
    array, shape (N, n, n, m)
        The second axis is tau = 0 .. n-1.
    """
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
    among: bool,
    rng: np.random.Generator,
) -> Matches:
    """Find the nearest images of translated arrays: the x^tau of section 5.3.

    Parameters
    ----------
    j : int
        Depth of the arrays.
    arrays : ndarray, shape (Q, n, m)
        Of the images whose arrays are translated, before smoothing.
    queries : ndarray of int, shape (Q,)
        Indices of these images.
    database : ndarray, shape (M, n, m)
        Arrays that are searched, before smoothing.
    search : Search
        How.
    count : int
        k, how many images are found for each.
    among : bool
        Whether the queries are indices of the database, so that an image may be found itself.
    rng : numpy.random.Generator
        Source of the random pairs.

    Returns
    -------
    Matches
        What was found.
    """
    searched, smoothed = search.smoothed(database), search.smoothed(arrays)
    moved = translated(smoothed, search.boundary)
    many, steps = moved.shape[:2]
    flat, flat_moved = searched.reshape(len(searched), -1), moved.reshape(many * steps, -1)
    distances, indices = nearest(search.xp.asarray(flat_moved), search.xp.asarray(flat), min(count, len(flat)))
    random = distances_of_random_pairs(flat, rng)
    return Matches(
        j,
        queries,
        smoothed,
        searched[indices[:, 0]].reshape(moved.shape),
        indices.reshape(many, steps, -1),
        distances.reshape(many, steps, -1),
        rank(flat_moved, flat, np.repeat(queries, steps)).reshape(many, steps) if among else None,
        random,
        float(np.quantile(random, search.quantile)),
    )


@dataclass(frozen=True)
class Agreement:
    """How often the nearest image of a translated array has the class of the image.

    Parameters
    ----------
    j : int
        Depth.
    same : ndarray of bool, shape (Q, n)
        Whether the class is the same, per query and translation tau = 0 .. n-1. Without a translation this says whether
        the nearest neighbour classifies the image right.
    close : ndarray of bool, shape (Q, n)
        Whether the distance is small.
    found : ndarray of int64, shape (Q, n)
        The nearest images.
    """

    j: int
    same: np.ndarray[Any, Any]
    close: np.ndarray[Any, Any]
    found: np.ndarray[Any, Any]

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
    def share_of_close(self) -> np.ndarray[Any, Any]:
        """The same of the queries with a small distance alone; NaN where there is none."""
        counts = self.close.sum(axis=0)
        return np.where(counts, (self.same & self.close).sum(axis=0) / np.maximum(counts, 1), np.nan)

    @property
    def moved(self) -> float:
        """Mean of `share` over all translations but tau = 0; NaN if there is none."""
        return float(self.same[:, 1:].mean()) if self.same.shape[1] > 1 else float("nan")

    def moved_interval(self, rng: np.random.Generator, samples: int = 2000) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of `moved`.

        Parameters
        ----------
        rng : numpy.random.Generator
            Draws the queries of each sample.
        samples : int, optional
            How many are drawn.

        Returns
        -------
        tuple of float
            Low and high end.
        """
        if self.same.shape[1] < 2:
            return float("nan"), float("nan")
        of_query = self.same[:, 1:].mean(axis=1)
        many = len(of_query)
        means = rng.multinomial(many, np.full(many, 1 / many), samples) @ of_query / many
        low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
        return float(low), float(high)


def agreement(
    j: int,
    arrays: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    database: np.ndarray[Any, Any],
    database_labels: np.ndarray[Any, Any],
    search: Search,
    *,
    own: np.ndarray[Any, Any] | None,
    rng: np.random.Generator,
) -> Agreement:
    """Measure how often translations keep the class, as section 5.3 claims for deep layers.

    Parameters
    ----------
    j : int
        Depth of the arrays.
    arrays : ndarray, shape (Q, n, m)
        Of the queries, before smoothing.
    labels : ndarray of int, shape (Q,)
        Their classes.
    database : ndarray, shape (M, n, m)
        Arrays that are searched, before smoothing.
    database_labels : ndarray of int, shape (M,)
        Their classes.
    search : Search
        How.
    own : ndarray of int, shape (Q,), or None
        Where the queries are in the database; an image is not found for itself.
    rng : numpy.random.Generator
        Source of the random pairs.

    Returns
    -------
    Agreement
        One share for each translation.
    """
    searched, smoothed = search.smoothed(database), search.smoothed(arrays)
    moved = translated(smoothed, search.boundary)
    many, steps = moved.shape[:2]
    flat = searched.reshape(len(searched), -1)
    exclude = None if own is None else np.repeat(own, steps)
    asarray = search.xp.asarray
    distances, indices = nearest(asarray(moved.reshape(many * steps, -1)), asarray(flat), exclude=exclude)
    threshold = np.quantile(distances_of_random_pairs(flat, rng), search.quantile)
    found = indices.reshape(many, steps)
    return Agreement(j, database_labels[found] == labels[:, None], distances.reshape(many, steps) <= threshold, found)


def agreement_in_shuffled_order(
    j: int,
    arrays: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    database: np.ndarray[Any, Any],
    database_labels: np.ndarray[Any, Any],
    search: Search,
    *,
    orders: int,
    own: np.ndarray[Any, Any] | None,
    rng: np.random.Generator,
) -> Agreement:
    """Measure the same of arrays whose first axis is in random order: a translation of what has no order.

    Parameters
    ----------
    j, arrays, labels, database, database_labels, search
        As `agreement` takes them.
    orders : int
        How many orders are drawn; each is that of an equal part of the queries, and of the database with it.
    own : ndarray of int, shape (Q,), or None
        As `agreement` takes it.
    rng : numpy.random.Generator
        Source of the orders and of the random pairs.

    Returns
    -------
    Agreement
        Of all queries.
    """
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
                own=None if own is None else own[part],
                rng=rng,
            )
        )
    return Agreement(j, *(np.concatenate([getattr(p, name) for p in parts]) for name in ("same", "close", "found")))


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Return whether values rise with depth.

    Parameters
    ----------
    values : sequence of float
        One per depth.

    Returns
    -------
    tuple of float
        Kendall's tau of values and depths, and its p-value (two-sided); NaN for fewer than two values. The p-value is
        exact where all values differ or there are at most seven; else it is that of 9,999 permutations.
    """
    from scipy.stats import kendalltau, permutation_test

    if len(values) < 2:
        return float("nan"), float("nan")
    found = kendalltau(range(len(values)), values)
    if len(set(values)) == len(values) or not np.isfinite(found.statistic):
        return float(found.statistic), float(found.pvalue)

    earlier, later = np.triu_indices(len(values), 1)

    def rises(v: np.ndarray[Any, Any], axis: int) -> Any:  # tau without its denominator, which all orders share
        return np.sign(v[..., later] - v[..., earlier]).sum(axis=axis)

    rng = np.random.default_rng(0)
    permuted = permutation_test((values,), rises, permutation_type="pairings", vectorized=True, rng=rng)
    return float(found.statistic), float(permuted.pvalue)
