"""The nearest arrays of a large set by Euclidean distance: blocked matrix products, then exact distances of candidates.

Products are in the arrays' own precision, so their distances are wrong by rounding. Every array whose distance may be
among the smallest, given a bound of that rounding, is a candidate. Candidates are compared in double precision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core.backend import Array, array_namespace, to_numpy

QUERIES = 256
"""Queries in a block: their distances to 50,000 arrays take 50 MB."""

GROUP = 64
"""Arrays in a group: only groups whose smallest distance is small enough are looked at."""


def nearest(
    queries: Array, database: Array, count: int = 1, *, exclude: np.ndarray[Any, Any] | None = None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find the nearest arrays."""
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1]:
        raise ValueError(f"queries {tuple(queries.shape)} and database {tuple(database.shape)}; give (Q, D) and (M, D)")
    size, width = database.shape
    if not 0 < count <= size - (exclude is not None):
        raise ValueError(f"{count} nearest of {size} arrays are asked for, one left out: {exclude is not None}")
    xp = array_namespace(queries, database)
    top = float(np.max([float(xp.max(xp.abs(array))) for array in (queries, database) if array.size] or 0))
    if not np.isfinite(top):
        raise ValueError("arrays to be compared are not finite; train with a lower learning rate")
    if top and not 1e-12 <= top <= 1e12:  # squares might overflow or vanish
        exponent = math.frexp(top)[1]
        queries, database = (xp.ldexp(array, -exponent) for array in (queries, database))
        distances, indices = nearest(queries, database, count, exclude=exclude)
        return np.ldexp(distances, exponent), indices
    host, host_queries = to_numpy(database), to_numpy(queries)
    centre = xp.mean(database, axis=0)  # distances stay, and are less wrong the smaller the arrays are
    padding = -size % GROUP
    centred = xp.concat([database - centre, xp.zeros((padding, width), dtype=database.dtype)])
    norms = xp.sum(centred * centred, axis=1)
    largest = float(xp.max(norms)) ** 0.5
    norms[size:] = xp.inf
    distances, indices = np.empty((len(queries), count)), np.empty((len(queries), count), np.int64)
    for begin in range(0, len(queries), QUERIES):
        block = queries[begin : begin + QUERIES, :] - centre
        query_norms = xp.sum(block * block, axis=1)
        squared = block @ centred.T
        squared *= -2
        squared += norms
        if exclude is not None:
            left_out = exclude[begin : begin + QUERIES]
            rows = np.flatnonzero(left_out >= 0)
            squared[xp.asarray(rows), xp.asarray(left_out[rows])] = xp.inf
        grouped = xp.reshape(squared, (block.shape[0], -1, GROUP))
        minima = to_numpy(xp.min(grouped, axis=2)).astype(np.float64)
        # at least `count` arrays are within the count-th smallest minimum
        bound = (
            np.partition(minima, count - 1)[:, count - 1] if minima.shape[1] >= count else np.full(len(block), np.inf)
        )
        rounding = (width + 8) * float(xp.finfo(queries.dtype).eps) * (np.sqrt(to_numpy(query_norms)) + largest) ** 2
        for row, limit in enumerate(bound + 2 * rounding):
            groups = np.flatnonzero(minima[row] <= limit)
            near = to_numpy(grouped[row, xp.asarray(groups), :]) <= limit
            candidates = (groups[:, None] * GROUP + np.arange(GROUP))[near]
            candidates = candidates[candidates < size]
            if exclude is not None:
                candidates = candidates[candidates != exclude[begin + row]]
            exact = _distances(host_queries[begin + row], host[candidates])
            best = np.lexsort((candidates, exact))[:count]
            distances[begin + row], indices[begin + row] = exact[best], candidates[best]
    return distances, indices


def distances_of_random_pairs(
    database: np.ndarray[Any, Any], rng: np.random.Generator, pairs: int = 10_000
) -> np.ndarray[Any, Any]:
    """Return the distances of pairs of different arrays drawn at random."""
    first = rng.integers(len(database), size=pairs)
    second = (first + rng.integers(1, len(database), size=pairs)) % len(database)
    return _distances(database[first], database[second])


def _distances(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Euclidean distances along the last axis, in double precision."""
    difference = one.astype(np.float64) - other.astype(np.float64)
    return np.asarray(np.sqrt(np.einsum("...d,...d->...", difference, difference)))
