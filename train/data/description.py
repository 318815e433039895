"""The description of a data set: kind and classes, and each sample's name, part, label and hash of its contents."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import Array, to_numpy
from train.data.dataset import Dataset, Samples, subset
from train.data.labels import HELD_OUT, TEST, TRAIN

FORMAT = 2
"""The format of descriptions with labels; those of earlier versions have neither labels nor a number."""

BLOCK = 1000
"""Images whose values are hashed at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Description:
    """The samples of a run, the training set's first; as `text` it is a file of JSON, a line for each sample."""

    about: dict[str, Any]  # kind, classes, shape and dtype of the images, statistics of the training part, counts
    names: tuple[str, ...]  # paths of files, or places in arrays
    parts: NDArray[np.str_]  # "train", "held out" or "test"
    hashes: NDArray[np.uint64]  # the first eight bytes of the SHA-256 of each one's file, or of its values
    labels: NDArray[Any] | None = None  # (N,) places in the classes, or (N, L); None in a description without them

    @classmethod
    def of(cls, dataset: Dataset, held_out: NDArray[np.int64], mean: Any, std: Any) -> Description:
        """Describe a data set of which some training samples are held out."""
        samples, images = samples_of(dataset), dataset.train_images
        parts = np.full(len(samples.names), TEST, f"<U{len(HELD_OUT)}")
        parts[: len(images)], parts[held_out] = TRAIN, HELD_OUT
        about: dict[str, Any] = {"kind": dataset.task, "classes": dataset.class_names, "shape": dataset.image_shape}
        about |= {"values": str(images.dtype), "mean": np.asarray(mean).tolist(), "std": np.asarray(std).tolist()}
        about |= {part: int((parts == part).sum()) for part in (TRAIN, HELD_OUT, TEST)}
        return cls(about, samples.names, parts, samples.hashes, _labels_of(dataset))

    def as_in(self, digest: str) -> Description:
        """Return the description without labels if that has the digest, as in earlier versions; else as it is."""
        plain = dataclasses.replace(self, labels=None)
        return plain if plain.digest == digest else self

    @functools.cached_property
    def text(self) -> str:
        """The description as JSON."""
        hashes = [f"{value:016x}" for value in self.hashes.tolist()]
        columns = [self.names, self.parts.tolist(), hashes, *(() if self.labels is None else [self.labels.tolist()])]
        lines = ",\n".join(json.dumps(row) for row in zip(*columns, strict=True))
        about = self.about if self.labels is None else {"format": FORMAT, **self.about}
        return f'{json.dumps(about)[:-1]}, "samples": [\n{lines}\n]}}\n'

    @property
    def digest(self) -> str:
        """The SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def read(cls, text: str) -> Description:
        """Return the description that a text holds."""
        about = json.loads(text)
        known = about.pop("format", None) == FORMAT
        names, parts, hashes, *labels = zip(*about.pop("samples"), strict=True)
        values = np.array([int(value, 16) for value in hashes], np.uint64)
        return cls(about, names, np.array(parts), values, np.array(labels[0]) if known else None)

    def seen(self, hashes: NDArray[np.uint64]) -> int:
        """Count the samples with these hashes in the part that was trained on."""
        return int(np.isin(hashes, self.hashes[self.parts == TRAIN]).sum())

    def places(self, dataset: Dataset) -> tuple[NDArray[np.int64], int]:
        """Return the places of these samples in a data set, -1 if missing, and the number of its other samples.

        A sample is known by its contents and its label, and where there are copies by its name.
        """
        samples = samples_of(dataset)
        ours = _keys(self.hashes, self.labels, self.about["classes"])
        labels = None if self.labels is None else _labels_of(dataset)
        theirs = _keys(samples.hashes, labels, dataset.class_names)
        if (samples.names, theirs) == (self.names, ours):
            return np.arange(len(ours)), 0  # as they were, so that no array is copied
        there: dict[Any, dict[str, int]] = {}
        for place, (name, key) in enumerate(zip(samples.names, theirs, strict=True)):
            there.setdefault(key, {})[name] = place
        index = np.full(len(ours), -1)
        for k, (name, key) in enumerate(zip(self.names, ours, strict=True)):
            if copies := there.get(key):
                index[k] = copies.pop(name if name in copies else next(iter(copies)))
        return index, sum(map(len, there.values()))

    def is_of(self, other: Description) -> bool:
        """Return whether both have the same test samples and, if of one size, the same samples in all, in any order."""
        known = self.labels is not None and other.labels is not None
        one, two = (_keys(of.hashes, of.labels if known else None, of.about["classes"]) for of in (self, other))
        tests = [itertools.compress(keys, of.parts == TEST) for keys, of in ((one, self), (two, other))]
        return Counter(tests[0]) == Counter(tests[1]) and (len(one) != len(two) or Counter(one) == Counter(two))

    def arranged(self, dataset: Dataset, index: NDArray[np.int64]) -> Dataset:
        """Return these samples of a data set, by their places in it, in their parts; missing ones are left out."""
        train, test = (np.flatnonzero((index >= 0) & ((self.parts == TEST) == of_test)) for of_test in (False, True))
        both = np.concatenate([train, test])
        samples = Samples(tuple(self.names[k] for k in both), self.hashes[both], self.parts[both] == HELD_OUT)
        return dataclasses.replace(subset(dataset, index[train], index[test]), samples=samples)


def _labels_of(dataset: Dataset) -> NDArray[Any]:
    return np.concatenate([dataset.train_labels, dataset.test_labels])


def _keys(hashes: NDArray[np.uint64], labels: NDArray[Any] | None, classes: Sequence[str]) -> list[Any]:
    """Return keys that identify samples: the hash of each and, where known, its class or its numbers."""
    if labels is None:
        return hashes.tolist()
    told = [classes[k] for k in labels.tolist()] if labels.ndim == 1 else map(tuple, labels.tolist())
    return list(zip(hashes.tolist(), told, strict=True))


def labels_checksum(parts: Iterable[Array]) -> int:
    """Return a CRC-32 of the labels of some parts, as they are taught."""
    whole = map(to_numpy, parts)
    return zlib.crc32(b"".join((a.astype(np.int64) if a.ndim == 1 else a).tobytes() for a in whole))


def samples_of(dataset: Dataset) -> Samples:
    """Return names and hashes of a data set's samples; for arrays, their places and the hashes of their values."""
    if dataset.samples is not None:
        return dataset.samples
    names, hashes = [], []
    for part, images in ((TRAIN, dataset.train_images), (TEST, dataset.test_images)):
        names += [f"{part} {place}" for place in range(len(images))]
        for begin in range(0, len(images), BLOCK):
            block = np.ascontiguousarray(images[begin : begin + BLOCK])
            hashes += [int.from_bytes(hashlib.sha256(image).digest()[:8], "big") for image in block]
    return Samples(tuple(names), np.array(hashes, np.uint64))
