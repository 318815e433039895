"""Whether an attribute is organised: whether the order of its values says something about them.

E. Oyallon, "Organising Deep Networks", after R. Coifman: an axis is organised if neighbours are alike. Everything is
compared with the same values in random order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

ORDERS = 999


@dataclass(frozen=True)
class Comparison:
    """A value for the natural order, and for random ones."""

    value: float  # for the natural order
    mean: float  # of the random orders
    deviation: float
    p: float  # part of all orders, the natural one included, that are at least as organised
    smallest_p: float  # the smallest p that there can be: some orders are equally organised whatever the values are

    @classmethod
    def of(cls, value: float, random: np.ndarray[Any, Any], *, alike: int, length: int) -> Comparison:
        """Return the comparison of a value with those of random orders, of which `alike` equal the natural one."""
        slack = 1e-12 * abs(value)  # sums in another order round differently
        as_organised = np.count_nonzero(random >= value - slack)
        p = (1 + as_organised) / (1 + len(random))
        smallest = max(1 / (1 + len(random)), min(1.0, alike / math.factorial(length)))
        return cls(value, float(random.mean()), float(random.std()), float(p), smallest)


def neighbour_correlation(filters: np.ndarray[Any, Any], circular: bool, rng: np.random.Generator) -> Comparison:
    """Compare the mean correlation of neighbouring filters with that of filters in random order."""
    correlations = _correlations(filters)
    natural = np.arange(len(filters))

    def mean(order: np.ndarray[Any, Any]) -> float:
        after = np.roll(order, -1) if circular else order[1:]
        return float(correlations[order[: len(after)], after].mean())

    random = np.asarray([mean(rng.permutation(natural)) for _ in range(ORDERS)])
    return Comparison.of(mean(natural), random, alike=_turns(len(filters), circular), length=len(filters))


def _turns(length: int, circular: bool) -> int:
    """Orders with the same neighbours: both directions, in a circle from any sample."""
    return 2 * length if circular else 2


def _correlations(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Correlations of each row with each; 0 for a constant row."""
    deviations = rows.std(axis=1, dtype=np.float64, keepdims=True)
    rows = np.where(deviations > 1e-12 * np.abs(rows).max(axis=1, keepdims=True), rows, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(rows))


def spectral_order(similarity: np.ndarray[Any, Any], circular: bool) -> np.ndarray[Any, Any]:
    """Return the order that spectral seriation finds (Atkins, Boman and Hendrickson, 1998)."""
    laplacian = np.diag(similarity.sum(axis=1)) - similarity
    _, vectors = np.linalg.eigh(laplacian)
    key = vectors[:, 1]
    if circular and len(similarity) > 2:
        key = np.arctan2(vectors[:, 2], vectors[:, 1])
    return np.argsort(key, kind="stable")


def similarity_of_orders(orders: np.ndarray[Any, Any], circular: bool) -> np.ndarray[Any, Any]:
    """Return how alike orders are to the natural one."""
    length = orders.shape[1]
    first, second = np.triu_indices(length, 1)
    best = np.zeros(len(orders))
    for turn in range(length if circular else 1):
        turned = np.roll(orders, turn, axis=1)
        for start in range(length if circular else 1):  # the natural order may begin anywhere, too
            values = (turned - start) % length
            signs = np.sign(values[:, second] - values[:, first])
            best = np.maximum(best, np.abs(signs.mean(axis=1)))
    return best


def seriation(samples: np.ndarray[Any, Any], circular: bool, rng: np.random.Generator) -> Comparison:
    """Compare the order that seriation finds with the natural order."""
    length = samples.shape[1]
    correlations = _correlations(samples.T.astype(np.float64))
    order = spectral_order((1 + correlations) / 2, circular)
    random = np.stack([rng.permutation(length) for _ in range(ORDERS)])
    alike = similarity_of_orders(np.concatenate([order[None], random]), circular)
    return Comparison.of(float(alike[0]), alike[1:], alike=_turns(length, circular), length=length)
