"""Blocks of queries that share no image with one another: a cross-check of what translations find.

Two queries that find the same image are not independent, nor are two that a chain of such queries joins. Blocks of them
are, and under nothing each block's difference is as likely to have the other sign (A. Winkler et al., 2015, NeuroImage
123:253; I. Canay, J. Romano and A. Shaikh, 2017, Econometrica 85:1013).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from train.attributes.decisions import Tested, corrected
from train.attributes.meaning import standardised

FLIPS = 1999

LARGEST = 0.5
"""Share of the queries in one block above which nothing is concluded: its sign alone would make the sum."""


@dataclass(frozen=True)
class Blocks(Tested):
    """One translation, by blocks of queries."""

    j: int  # depth
    axis: str  # axis of the translation
    tau: int  # samples
    blocks: int  # blocks whose sign matters
    largest: float  # share of the queries in the largest block
    name: str  # the property with the largest score
    effect: float  # mean difference of this property, in its standard deviations
    # Probability that the largest score of all properties is as large if there is nothing, corrected for the number of
    # translations that can be decided; NaN of the others.
    p: float
    smallest_p: float  # the smallest p that there can be, before the second correction


def blocks_of(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the number of each query's block (Q,), from the images that it finds without and with a translation."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images, places = np.unique(np.concatenate([before, after]), return_inverse=True)
    first, second = np.split(places.ravel(), 2)
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(images),) * 2)
    return np.asarray(connected_components(links, directed=False)[1][first])


def blocks_differ(
    nearest: Mapping[tuple[int, str], np.ndarray[Any, Any]],
    values: Mapping[str, np.ndarray[Any, Any]],
    rng: np.random.Generator,
) -> list[Blocks]:
    """Test whether images found by a translation differ from those found without one, block by block.

    Takes what `train.attributes.meaning.found_images_differ` takes. Each translation has blocks of its own.
    """
    names = list(values)
    if not names:
        return []
    table, _ = standardised(values)
    measured = []
    for (j, axis), indices in nearest.items():
        for tau in range(1, indices.shape[1]):
            before, after = indices[:, 0], indices[:, tau]
            differences = table[after] - table[before]  # (Q, P)
            block = blocks_of(before, after)
            sums = np.zeros((block.max() + 1, len(names)))
            np.add.at(sums, block, differences)
            sums = sums[np.abs(sums).max(axis=1) > 1e-9]  # what a block finds twice has no sign
            best, p = _largest_score(sums, rng)
            smallest = max(2.0 ** (1 - len(sums)), 1 / (1 + FLIPS)) if len(sums) else 1.0
            share = float(np.bincount(block).max()) / len(block)
            effect = float(differences[:, best].mean())
            measured.append(((j, axis, tau, len(sums), share, names[best], effect), p, smallest))
    ps = corrected([p for _, p, _ in measured], [1.0 if row[4] > LARGEST else s for row, _, s in measured])
    return [Blocks(*row, p, s) for (row, _, s), p in zip(measured, ps, strict=True)]


def _largest_score(sums: np.ndarray[Any, Any], rng: np.random.Generator) -> tuple[int, float]:
    """Return the property with the largest sum over blocks (C, P), and the part of flips with one as large."""
    if not len(sums):
        return 0, 1.0
    unit = np.sqrt((sums**2).sum(axis=0))
    sums = sums / np.where(unit, unit, np.inf)
    scores = np.abs(sums.sum(axis=0))
    best = int(scores.argmax())
    many = len(sums) - 1  # the first block's sign changes no absolute value
    every = 2**many <= FLIPS
    if every:
        signs = 1.0 - 2.0 * (np.arange(2**many)[:, None] >> np.arange(many) & 1)
    else:
        signs = rng.choice([-1.0, 1.0], (FLIPS, many))
    highest = np.abs(sums[0] + signs @ sums[1:]).max(axis=1)
    as_large = np.count_nonzero(highest >= scores[best] * (1 - 1e-12))
    return best, float(as_large / len(signs) if every else (1 + as_large) / (1 + FLIPS))
