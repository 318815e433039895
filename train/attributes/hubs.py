"""Intervals of means over queries and the images that they find, where many queries find the same images.

Some images are found by many queries (hubs; M. Radovanovic, A. Nanopoulos and M. Ivanovic, 2010, JMLR 11:2487). The
rows of a table of queries and what they find are then not independent, however many queries there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95

FEWEST = 9
"""Effective number of found images below which nothing is concluded, since intervals are then too short.

Ten images that 200 queries find at random have about 9.6.
"""

SAMPLES = 999


def effective_number(images: np.ndarray[Any, Any]) -> float:
    """Return (sum N)^2 / sum N^2, where N is how often each image is found: as many found equally often do the same."""
    counts = np.unique(images, return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum())


class Rows(NamedTuple):
    """Values, each of a query and the image that it found."""

    queries: np.ndarray[Any, Any]  # (R,) indices
    images: np.ndarray[Any, Any]  # (R,) indices
    values: np.ndarray[Any, Any]  # (R,) or, of several properties, (R, P)

    @classmethod
    def of(cls, images: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> Rows:
        """Return the rows of found images and values that are both (Q, T)."""
        queries = np.repeat(np.arange(len(images)), images.shape[1])
        return cls(queries, images.ravel(), values.ravel().astype(np.float64))


def weighted_means(tables: Sequence[Rows], rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    """Return weighted means of each table, (SAMPLES,) or (SAMPLES, P), whose spread is at least that of the mean.

    Each query and each image draws a weight of mean 1 and variance 1 (Poisson), and a row has the product of the two
    (A. Owen and D. Eckles, 2012, AoAS 6:895). This needs no independence of rows; where none share a query or an image,
    the spread is sqrt(3) times that of the mean. All tables share the weights, so differences of their means can be
    taken sample by sample. A mean is NaN if all its weights are 0.
    """
    everything, places = np.unique(np.concatenate([t.images for t in tables]), return_inverse=True)
    of_table = np.split(places.ravel(), np.cumsum([len(t.images) for t in tables])[:-1])
    queries = 1 + max(int(t.queries.max()) for t in tables)
    means: list[list[Any]] = [[] for _ in tables]
    for _ in range(SAMPLES):
        of_query, of_image = rng.poisson(1.0, queries), rng.poisson(1.0, len(everything))
        for samples, table, place in zip(means, tables, of_table, strict=True):
            weights = of_query[table.queries] * of_image[place]
            samples.append(weights @ table.values / (weights.sum() or np.nan))
    return [np.asarray(samples) for samples in means]


def interval(means: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the low and high ends (2, ...) of the 95 % interval of a mean, from its samples (SAMPLES, ...)."""
    return np.asarray(np.nanquantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0))
