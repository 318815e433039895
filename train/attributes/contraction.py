"""How layers contract distances, and keep classes apart while they do.

E. Oyallon, "Organising Deep Networks": a representation must contract space, ||Phi x - Phi x'|| <= ||x - x'||, and keep
classes at a distance, ||Phi x - Phi x'|| >= epsilon where their classes differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from autodiff import jvp, vjp
from hcnn_core.backend import Array, array_namespace, to_numpy
from train.attributes.features import Model
from train.attributes.hubs import CONFIDENCE
from train.attributes.nearest import distances_of_random_pairs, nearest

BATCH = 50
"""Pairs of images in one forward pass."""

SAMPLES = 999

PENALTIES = 10.0 ** np.arange(-6, 3)
"""Ridge penalties to try, relative to the mean variance of the features."""


@dataclass(frozen=True)
class PairDistances:
    """Distances between images of pairs, at every depth."""

    within: np.ndarray[Any, Any]  # Euclidean distances of x_0 to x_{J-1}, of pairs of one class and of two classes
    between: np.ndarray[Any, Any]

    @property
    def ratios(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Distances after each layer over those before it (P, J-1), within and between classes."""
        return self.within[:, 1:] / self.within[:, :-1], self.between[:, 1:] / self.between[:, :-1]

    @property
    def separation(self) -> np.ndarray[Any, Any]:
        """Mean distance between classes over that within them, at every depth (J,)."""
        return np.asarray(self.between.mean(axis=0) / self.within.mean(axis=0))

    def separation_samples(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return `separation` of resampled pairs (SAMPLES, J): a bootstrap over pairs."""
        means = []
        for distances in (self.between, self.within):
            many = len(distances)
            means.append(rng.multinomial(many, np.full(many, 1 / many), SAMPLES) @ distances)
        return np.asarray(means[0] / means[1] * (len(self.within) / len(self.between)))


def pair_distances(
    model: Model, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], pairs: int, rng: np.random.Generator,
    xp: Any = np,
) -> PairDistances:  # fmt: skip
    """Measure distances of pairs of images before and after each layer."""
    distances = []
    for same in (True, False):
        one, other = _pairs(labels, same, pairs, rng)
        parts = []
        for begin in range(0, pairs, BATCH):
            index = np.concatenate([one[begin : begin + BATCH], other[begin : begin + BATCH]])
            parts.append(np.stack([_halves_apart(x) for x in _activations(model, xp.asarray(images[index]))], axis=1))
        distances.append(np.concatenate(parts))
    return PairDistances(*distances)


def _activations(model: Model, images: Array) -> Iterator[Array]:
    yield model.start(images)
    for _, x in model.outputs(images):
        yield x


def _halves_apart(x: Array) -> np.ndarray[Any, Any]:
    """Distances between the first half of a batch and the second."""
    xp = array_namespace(x)
    half = x.shape[0] // 2
    difference = x[:half, ...] - x[half:, ...]
    squared = xp.sum(difference * difference, axis=tuple(range(1, x.ndim)))
    return np.asarray(np.sqrt(to_numpy(squared).astype(np.float64)))


def _pairs(labels: np.ndarray[Any, Any], same: bool, pairs: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Draw indices of different images of one class, or of two."""
    members = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    firsts = np.concatenate([m for m in members.values() if not same or len(m) > 1] or [np.empty(0, np.int64)])
    if not len(firsts) or (not same and len(members) < 2):
        raise ValueError(f"there is no pair of images of {'one class' if same else 'two classes'} among {len(labels)}")
    one = rng.choice(firsts, pairs)
    other = np.empty_like(one)
    for c, m in members.items():
        rows = np.flatnonzero(labels[one] == c)
        allowed = m if same else np.flatnonzero(labels != c)
        drawn = rng.choice(allowed, len(rows)) if len(rows) else one[rows]
        while same and (again := drawn == one[rows]).any():
            drawn[again] = rng.choice(allowed, int(again.sum()))
        other[rows] = drawn
    return one, other


def median_interval(values: np.ndarray[Any, Any], level: float = 1 - CONFIDENCE) -> np.ndarray[Any, Any]:
    """Return the ends (2, ...) of the interval of the median over the first axis, two of the sorted values.

    The number of values below the median of their distribution is binomial, whatever the distribution. NaN where the
    values are too few.
    """
    from scipy.stats import binom

    many = len(values)
    place = int(binom.ppf(level / 2, many, 0.5))
    if not place:
        return np.full((2, *values.shape[1:]), np.nan)
    return np.sort(values, axis=0)[[place - 1, many - place]]


@dataclass(frozen=True)
class Gain:
    """Bounds of how much a layer stretches distances."""

    j: int  # depth of its output
    # The norm of its linear map; of a (+) layer, the product of the norms of both; times what rho stretches at most,
    # ELU nothing. The layer's Lipschitz constant is at most this.
    upper: float
    local: float  # the largest norm of its derivative at some images: the Lipschitz constant is at least this
    converged: bool  # Whether both iterations ended before their limit. The norm of power iteration comes from below.


def operator_norm(
    forward: Callable[[Array], Array],
    adjoint: Callable[[Array], Array],
    start: Array,
    *,
    tolerance: float = 1e-3,
    limit: int = 200,
) -> tuple[float, bool]:
    """Return the largest singular value of a linear map by power iteration."""
    xp = array_namespace(start)
    x, norm, calm = start / xp.sqrt(xp.sum(start * start)), 0.0, 0
    for _ in range(limit):
        y = forward(x)
        now = math.sqrt(float(xp.sum(y * y)))
        if now == 0:
            return 0.0, True
        calm = calm + 1 if now - norm <= tolerance * now else 0
        norm = max(norm, now)
        if calm == 3:
            return norm, True
        x = adjoint(y)
        x = x / xp.sqrt(xp.sum(x * x))
    return norm, False


def gains(model: Model, images: Array, rng: np.random.Generator) -> Iterator[Gain]:
    """Yield bounds of the Lipschitz constant of each layer x_{j-1} -> x_j, in evaluation mode."""
    network = model.network
    folded = network.merged(model.parameters, model.moments)
    before = model.start(images)
    xp = array_namespace(before)

    def random(like: Array) -> Array:
        return xp.asarray(rng.standard_normal(like.shape), dtype=like.dtype)

    for layer, after in model.outputs(images):
        uppers, start = [], before[:1, ...]
        for stage in layer.linear_maps(folded[layer.name]):
            out, pull = vjp(stage, start)
            uppers.append(operator_norm(stage, _first(pull), random(start)))
            start = out
        locals_ = []
        for index in range(before.shape[0]):
            x = before[index : index + 1, ...]
            apply = model.layer(layer.j)
            _, pull = vjp(apply, x)
            locals_.append(operator_norm(_derivative(apply, x), _first(pull), random(x)))
        yield Gain(
            layer.j,
            math.prod(norm * layer.activation.slope for norm, _ in uppers),
            max(norm for norm, _ in locals_),
            all(converged for _, converged in uppers + locals_),
        )
        before = after


def _first(pull: Callable[[Array], tuple[Array, ...]]) -> Callable[[Array], Array]:
    return lambda y: pull(y)[0]


def _derivative(apply: Callable[[Array], Array], x: Array) -> Callable[[Array], Array]:
    return lambda v: jvp(apply, (x,), (v,))[1]


def probe(
    train: np.ndarray[Any, Any],
    train_labels: np.ndarray[Any, Any],
    test: np.ndarray[Any, Any],
    test_labels: np.ndarray[Any, Any],
) -> tuple[float, float]:
    """Classify by the nearest neighbour, and by a linear map fitted by ridge regression."""
    _, neighbours = nearest(test, train)
    by_neighbour = float((train_labels[neighbours[:, 0]] == test_labels).mean())
    classes = np.unique(train_labels)
    targets = np.where(train_labels[:, None] == classes, 1.0, -1.0)
    offset, mean = targets.mean(axis=0), train.mean(axis=0, dtype=np.float64)
    x = train - mean
    values, vectors = np.linalg.eigh(x.T @ x)
    rotated = x @ vectors
    products = rotated.T @ (targets - offset)
    best = (math.inf, np.zeros((x.shape[1], len(classes))))
    for penalty in PENALTIES * max(values.mean(), 1e-300):
        scale = 1 / (np.maximum(values, 0) + penalty)
        residual = targets - offset - rotated @ (scale[:, None] * products)
        leverage = 1 / len(x) + (rotated**2) @ scale
        error = float(((residual / (1 - np.minimum(leverage, 1 - 1e-9))[:, None]) ** 2).mean())
        if error < best[0]:
            best = error, vectors @ (scale[:, None] * products)
    predicted = classes[((test - mean) @ best[1] + offset).argmax(axis=1)]
    return by_neighbour, float((predicted == test_labels).mean())


def closest_classes(features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], rng: np.random.Generator) -> float:
    """Return the smallest distance between images of different classes, in mean distances of random pairs."""
    smallest = min(
        (float(nearest(features[labels == c], features[labels > c])[0].min()) for c in np.unique(labels)[:-1]),
        default=math.inf,
    )
    unit = float(distances_of_random_pairs(features, rng).mean())
    return smallest / unit if unit else math.nan
