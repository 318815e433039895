"""The explorer's measurements of one network, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hcnn_core.backend import to_numpy
from train.attributes.contraction import Gain, PairDistances, closest_classes, gains, pair_distances, probe
from train.attributes.features import FIRST, V_AXES, Features, Model, boundary_of
from train.attributes.meaning import Finding, found_images_differ, properties
from train.attributes.organisation import Comparison, neighbour_correlation, seriation
from train.attributes.translations import Agreement, Matches, Search, agreement, agreement_in_shuffled_order, match
from train.data import Dataset, spread
from train.networks.hierarchical import hierarchy, name_of
from train.verification.covariance import Row, axes, invariance, largest

ANALYSES = ("figures", "agreement", "meaning", "contraction", "organisation")

BATCH = 100
"""Images in one forward pass."""

EXAMINED, EXAMINED_AT_ONCE = 100, 10
"""Test images on which exactness is measured, in double precision, and how many at once."""

ORDERS = 8
"""Random orders of an axis, each for a part of the queries."""

SAMPLES = 3000
"""Functions of an attribute on which its organisation is measured."""

SHORTEST = 4
"""Fewest samples of an axis whose organisation is measured: around a circle all orders of three are the same."""

PROBED, SEPARATED = 2000, 10_000
"""Test images classified by the nearest neighbour; training images searched for the closest of different classes."""


@dataclass(frozen=True)
class Settings:
    """Settings of a study."""

    images: tuple[int, ...]  # indices of the images whose arrays are translated on the page
    queries: str  # which images these are, and those that agreement is measured on
    depths: tuple[int, ...]  # from 3 to J-1
    axis: str = "v_{j-1}"  # as `train.attributes.features.invariant_array` takes them
    position: tuple[float, float] = (0.5, 0.5)
    width: int = 2  # samples that smoothing averages
    quantile: float = 0.05  # part of random pairs whose distances count as small
    nearest: int = 3  # images found for each translation
    agreement: int = 2000  # queries that agreement is measured on
    pairs: int = 500  # pairs of images that contraction is measured on, within classes and between them
    few: int = 300  # images whose x_j organisation is measured on
    seed: int = 0  # of everything that is drawn


@dataclass(frozen=True)
class Exactness:
    """Which translations of x_j leave x_J unchanged, and by how much others change it."""

    j: int  # depth
    axis: str  # its axis
    length: int  # samples
    multiple: int  # at a periodic boundary translations by multiples of this are exact
    images: int  # test images that it was measured on
    # largest change of a logit by those that are exact, and what rounding explains, relative to the largest logit of
    # the images measured at a time; NaN where none is
    error: float
    bound: float
    # largest change by the others, relative to the largest logit of the image: median and range over images; NaN where
    # none is
    change: float
    low: float
    high: float
    classes: int  # most images that one of them gives another class


@dataclass(frozen=True)
class Layers:
    """Distances and classes, layer by layer."""

    pairs: PairDistances  # of the network, and of the same one untrained
    untrained_pairs: PairDistances
    gains: list[Gain]  # bounds of Lipschitz constants
    # Accuracy by the nearest neighbour and by ridge regression, from each depth 0 .. J-1.
    probes: list[tuple[float, float]]
    untrained_probes: list[tuple[float, float]]
    separation: list[float]  # smallest distance between classes at each depth


@dataclass(frozen=True)
class Organisation:
    """One measure of order, for the network and for the untrained one."""

    j: int  # depth
    axis: str  # the attribute
    measure: str  # what is compared with random orders
    trained: Comparison  # with its p-value
    untrained: Comparison


@dataclass
class Study:
    """A network, its features and the measurements of them."""

    model: Model  # the network, and the same one before training
    untrained: Model
    features: Features  # their arrays
    untrained_features: Features
    dataset: Dataset  # the images
    settings: Settings  # what is looked at
    xp: Any = np  # namespace the networks compute with, and nearest images are searched with
    exactness: list[Exactness] = field(default_factory=list)  # of every depth and attribute
    matches: dict[int, Matches] = field(default_factory=dict)  # by depth
    # of "trained", "random order" and "untrained", by depth
    agreements: dict[str, dict[int, Agreement]] = field(default_factory=dict)
    # the same without smoothing, for "trained" and "untrained": a mean of two neighbours removes the frequency at which
    # exact and aliased translations by strides of two differ
    unsmoothed: dict[str, dict[int, Agreement]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)  # what translations have to do with properties
    layers: list[Layers] = field(default_factory=list)  # contraction and separation; empty until measured
    organisation: list[Organisation] = field(default_factory=list)  # measures of order

    def run(
        self, parts: tuple[str, ...], measure: Callable[[str, Callable[[], None]], None] = lambda name, act: act()
    ) -> None:
        """Measure exactness, then the given parts, each by a call of its name and what measures it."""
        measure("which translations are exact", lambda: self.exactness.extend(self._exactness()))
        for part in ANALYSES:
            if part in parts:
                measure(part, getattr(self, f"_{part}"))

    def images(self) -> np.ndarray[Any, Any]:
        """Return the images that queries index."""
        training: np.ndarray[Any, Any] = self.dataset.train_images
        return training if self.settings.queries == "train" else np.asarray(self.dataset.test_images)

    def labels(self) -> np.ndarray[Any, Any]:
        """Return the classes of `images`."""
        return self.dataset.train_labels if self.settings.queries == "train" else self.dataset.test_labels

    def _rng(self, *key: int) -> np.random.Generator:
        """Return a generator for a part, so that no part depends on which others are measured."""
        return np.random.default_rng([self.settings.seed, *key])

    def _exactness(self) -> Iterator[Exactness]:
        images = self.dataset.test_images
        chosen = spread(len(images), EXAMINED)
        rows: dict[tuple[int, str], list[Row]] = {}
        # by translation: the relative change of each image's logits, and whether its class changed
        others: dict[tuple[int, str], dict[int, list[np.ndarray[Any, Any]]]] = {}
        for begin in range(0, len(chosen), EXAMINED_AT_ONCE):
            subject = self.model.subject(self.xp.asarray(images[chosen[begin : begin + EXAMINED_AT_ONCE]]))
            for j, x in enumerate(subject.activations):
                for example in invariance(subject, "evaluation", j, x, V_AXES) if j >= FIRST else ():
                    row, where = example.row, (j, example.row.axis)
                    if row.must_hold and row.kind != "inside":
                        rows.setdefault(where, []).append(row)
                    elif not row.must_hold:
                        of_shift = others.setdefault(where, {}).setdefault(row.shift, [])
                        of_shift.append(_changes(example.result, example.expected))
        for j in self.model.depths:
            for axis in axes(hierarchy(self.model.network), j):
                if axis.name not in V_AXES:
                    continue
                exact = rows.get((j, axis.name), [])
                by_shift = [np.concatenate(parts, axis=1) for parts in others.get((j, axis.name), {}).values()]
                change = np.max([c[0] for c in by_shift], axis=0) if by_shift else np.full(1, np.nan)
                yield Exactness(
                    j,
                    axis.name,
                    axis.length,
                    axis.exact,
                    len(chosen),
                    largest(row.largest for row in exact),
                    largest(bound for row in exact for bound in row.bounds),
                    float(np.median(change)),
                    float(change.min()),
                    float(change.max()),
                    max((int(c[1].sum()) for c in by_shift), default=0),
                )

    def _search(self, width: int | None = None) -> Search:
        settings = self.settings
        return Search(width or settings.width, boundary_of(self.model), settings.quantile, self.xp)

    def _figures(self) -> None:
        settings, queries = self.settings, np.asarray(self.settings.images)
        for j in settings.depths:
            self.matches[j] = match(
                j,
                self.features.arrays(settings.queries, j)[queries],
                queries,
                self.features.arrays("train", j),
                self._search(),
                count=settings.nearest,
                rng=self._rng(1, j),
            )

    def _agreement(self) -> None:
        settings, labels = self.settings, self.labels()
        chosen = self._rng(2).permutation(len(labels))[: settings.agreement]
        places = chosen if settings.queries == "train" else None

        def measured(features: Features, search: Search, of: Callable[..., Agreement] = agreement, **more: Any) -> Any:
            return {
                j: of(
                    j,
                    features.arrays(settings.queries, j)[chosen],
                    labels[chosen],
                    features.arrays("train", j),
                    self.dataset.train_labels,
                    search,
                    places=places,
                    rng=self._rng(3, j),
                    **more,
                )
                for j in settings.depths
            }

        self.agreements = {
            "trained": measured(self.features, self._search()),
            "random order": measured(self.features, self._search(), agreement_in_shuffled_order, orders=ORDERS),
            "untrained": measured(self.untrained_features, self._search()),
        }
        self.unsmoothed = {
            "trained": measured(self.features, self._search(1)),
            "untrained": measured(self.untrained_features, self._search(1)),
        }

    def _meaning(self) -> None:
        settings = self.settings
        if "trained" not in self.agreements:
            self._agreement()
        nearest = {(j, settings.axis): a.found for j, a in self.agreements["trained"].items()}
        self.findings = found_images_differ(nearest, properties(self.dataset.train_images), self._rng(4))

    def _contraction(self) -> None:
        data, settings = self.dataset, self.settings
        pairs = [
            pair_distances(m, data.test_images, data.test_labels, settings.pairs, self._rng(7), self.xp)
            for m in (self.model, self.untrained)
        ]
        probes: list[list[tuple[float, float]]] = [[], []]
        separation = []
        probed = spread(len(data.test_labels), PROBED)
        compared = spread(len(data.train_labels), SEPARATED)
        for j in range(self.model.depths.stop):
            for features, accuracies in zip((self.features, self.untrained_features), probes, strict=True):
                train, test = features.means("train", j), features.means("test", j)
                accuracies.append(probe(train, data.train_labels, test[probed], data.test_labels[probed]))
            means = self.features.means("train", j)[compared]
            separation.append(closest_classes(means, data.train_labels[compared], self._rng(8)))
        bounds = list(gains(self.model, self.xp.asarray(data.test_images[:2]), self._rng(9)))
        self.layers = [Layers(pairs[0], pairs[1], bounds, probes[0], probes[1], separation)]

    def _organisation(self) -> None:
        drawn = self._rng(6).permutation(len(self.dataset.train_images))[: self.settings.few]
        images = self.dataset.train_images[np.sort(drawn)]
        models = (self.model, self.untrained)
        circular = boundary_of(self.model) == "periodic"
        last = self.model.depths.stop - 1
        for j in range(1, last):  # the last attribute is the class, whose order means nothing
            comparisons = (neighbour_correlation(_filters(m, j), circular, self._rng(10, j)) for m in models)
            self.organisation.append(Organisation(j, "v_j", "neighbouring filters", *comparisons))
        samples = [_samples(m, images, self.settings, self._rng(11), self.xp) for m in models]
        for j, axis in samples[0]:
            if samples[0][j, axis].shape[1] >= SHORTEST and not (j == last and axis == "v_j"):
                both = [s[j, axis] for s in samples]
                series = (seriation(s, circular, self._rng(13, j)) for s in both)
                self.organisation.append(Organisation(j, axis, "seriation", *series))


def _changes(logits: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the change of each image's logits (N, C), relative to the largest, and 1 where its class changes."""
    size = np.abs(expected).max(axis=1)
    change = np.abs(logits - expected).max(axis=1) / np.where(size, size, 1)
    return np.stack([change, logits.argmax(axis=1) != expected.argmax(axis=1)])


def _filters(model: Model, j: int) -> np.ndarray[Any, Any]:
    """Return the merged filters of layer j, a row for each v_j; g of a (+) layer."""
    folded = model.network.merged(model.parameters, model.moments)[name_of(j)]
    w = to_numpy(folded["g" if "g" in folded else "w"]).astype(np.float64)
    return w.reshape(-1, w.shape[-1]).T


def _samples(
    model: Model, images: np.ndarray[Any, Any], settings: Settings, rng: np.random.Generator, xp: Any
) -> dict[tuple[int, str], np.ndarray[Any, Any]]:
    """Functions (S, n) of each attribute: x_j at one position of space and random values of the other axes."""
    parts: dict[int, list[np.ndarray[Any, Any]]] = {}
    for begin in range(0, len(images), BATCH):
        for layer, x in model.outputs(xp.asarray(images[begin : begin + BATCH])):
            if layer.j in settings.depths:
                row, column = (int(p * n) for p, n in zip(settings.position, x.shape[1:3], strict=True))
                parts.setdefault(layer.j, []).append(to_numpy(x[:, row, column, :, :, :]))
    samples = {}
    for j, arrays in parts.items():
        x = np.concatenate(arrays)  # (N, v_{j-2}, v_{j-1}, v_j)
        for place, axis in enumerate(("v_{j-2}", "v_{j-1}", "v_j"), 1):
            functions = np.moveaxis(x, place, -1).reshape(-1, x.shape[place])
            samples[j, axis] = functions[rng.permutation(len(functions))[:SAMPLES]]
    return samples
