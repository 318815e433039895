"""Labelled images, the information a network needs of them, and parts of a training set: its first N images, a share.

Signals and volumes are images of one and three axes of space.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import refuse_notes
from train.data.targets import AUTO, LABEL_KINDS, Targets

IMAGE_SHAPE = (32, 32, 3)
"""Shape of CIFAR's images."""

DTYPES = ("uint8", "int16", "uint16", "float32", "float64")
"""Dtypes of images; uint8 are pixels."""

MOST_AXES = 3
"""Most axes of space: one for signals, two for images, three for volumes."""

UNITS = {1: "signals", 2: "images", 3: "volumes"}
"""Names of data with one, two and three axes of space."""

LARGEST_IMAGE = 2**15
"""Pixels along a side."""

MOST_COLOURS = 4
"""Up to this many channels, arrays (N, H, W, C) are taken for images."""


class DataError(ValueError):
    """The data are missing, damaged or invalid; one line says which, and what would do."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The shape, classes and dtype of a data set, which a network needs."""

    image_shape: tuple[int, ...]  # lengths of the axes of space of an image, and channels
    classes: int  # how many classes there are
    nbytes: int  # memory that the images take from now on until training begins
    task: str = "classes"  # or labels, or numbers, and then `classes` is how many of them there are
    values: str = "uint8"  # dtype of the images


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Names and hashes that identify samples, those of the training set first."""

    names: tuple[str, ...]  # paths of files, or places in arrays
    hashes: NDArray[np.uint64]  # the first eight bytes of the SHA-256 of each one's file, or of its values
    held_out: NDArray[np.bool_] | None = None  # which are held out, where folders or tables say so


class HowRead(str):
    """A note of a `Dataset` on how it is read, where nothing is lost."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, a training set and a test set, in host memory.

    Parameters
    ----------
    name : str
        Name of the data set, such as ``"cifar10"``.
    class_names : tuple of str
        One name per class; labels index it. Or one for each yes/no label or number.
    train_images, test_images : ndarray, shape (N, H, W, C), signals (N, T, C) or volumes (N, D, H, W, C)
        uint8, int16, uint16, float32 or float64, or `MappedImages`; channels are the last axis. All have the same
        shape, dtype and unit.
    train_labels, test_labels : ndarray of int64, shape (N,)
        Classes in ``0 .. len(class_names) - 1``. Or bool (N, L), yes/no labels; or float64 (N, T), numbers.
    notes : tuple of str, optional
        Lines about it, such as the files that cannot be read.
    samples : Samples, optional
        Names, hashes and parts of samples from files; others are known by their values.
    task : {"auto", "classes", "labels", "numbers"}, optional
        What is learned; by default the dtype of the labels decides.

    Raises
    ------
    DataError
        If a shape, a dtype, a count or a label is not as above.
    """

    name: str
    class_names: tuple[str, ...]
    train_images: Any
    train_labels: NDArray[np.int64]
    test_images: Any
    test_labels: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    samples: Samples | None = dataclasses.field(default_factory=lambda: None)  # numpydoc takes None for an attribute
    task: str = AUTO

    def __post_init__(self) -> None:
        """Hold every array to its contract."""
        names, dtype = self.class_names, getattr(self.train_labels, "dtype", None)
        if self.task == AUTO:
            object.__setattr__(self, "task", next((kind for kind, of in LABEL_KINDS.items() if dtype == of), "classes"))
        if self.task not in LABEL_KINDS:
            raise DataError(f"{self.name}: task is {self.task!r}; choose {', '.join(LABEL_KINDS)}")
        few = self.task != "classes"
        if not are_class_names(names) or len(names) < 2 - few:
            many = "different strings, one for each" if few else "two or more different strings, one for each class"
            raise DataError(f"{self.name}: class_names is {names!r}; expected {many}")
        self._check("train", self.train_images, self.train_labels)
        self._check("test", self.test_images, self.test_labels)
        one, other = ((_times(a.shape[1:]), str(a.dtype)) for a in (self.train_images, self.test_images))
        for of_one, of_other in zip(one, other, strict=True):
            if of_one != of_other:
                raise DataError(f"{self.name}: training images are {of_one}, test images {of_other}; bring them to one")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Lengths of the axes of space, rows and columns of an image, and channels."""
        return tuple(self.train_images.shape[1:])

    @property
    def units(self) -> str:
        """The name of its samples: signals, images or volumes."""
        return UNITS[len(self.image_shape) - 1]

    @property
    def info(self) -> DatasetInfo:
        """Its shape, classes and dtype; training copies the training images once."""
        images = self.train_images
        return DatasetInfo(self.image_shape, len(self.class_names), images.nbytes, self.task, str(images.dtype))

    def _check(self, part: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
        """Raise DataError unless images and labels are a pair as documented."""
        for kind, array in (("images", images), ("labels", labels)):
            if not hasattr(array, "dtype") or not hasattr(array, "shape"):
                raise DataError(
                    f"{self.name}: {part}_{kind} is a {type(array).__name__}; expected an array, as "
                    f"np.asarray({kind}, np.{'uint8' if kind == 'images' else 'int64'})"
                )
            try:
                refuse_notes(array)
            except TypeError as error:
                raise DataError(f"{self.name}: {part}_{kind}: {error}") from error
        _check_images(f"{self.name}: {part}_images", images)
        name, count, names = f"{self.name}: {part}_labels", len(images), len(self.class_names)
        dtype, shape = LABEL_KINDS[self.task], (count,) if self.task == "classes" else (count, names)
        if labels.dtype != dtype or labels.shape != shape:
            each = "a label per image" if self.task == "classes" else "a column for each of class_names"
            raise DataError(f"{name} is {describe_array(labels)}; expected {dtype} of shape {shape}, {each}")
        _check_finite(name, labels)
        if self.task == "classes" and count and not 0 <= labels.min() <= labels.max() < names:
            raise DataError(f"{name} lie in {labels.min()}..{labels.max()}; expected 0..{names - 1}")


def _check_images(name: str, images: NDArray[Any]) -> None:
    if images.dtype not in DTYPES or images.ndim not in range(3, MOST_AXES + 3) or 0 in images.shape[1:]:
        raise DataError(
            f"{name} is {describe_array(images)}; expected {' or '.join(DTYPES)} of shape (N, H, W, C) with channels "
            "C, such as (N, 32, 32, 3), or signals (N, T, C), or volumes (N, D, H, W, C)"
        )
    if isinstance(images, np.ndarray):  # others were looked at when their file was written
        _check_finite(name, images)
    if not len(images) or max(images.shape[1:-1]) > LARGEST_IMAGE:
        raise DataError(
            f"{name} has shape {images.shape}; expected at least one image, of at most {LARGEST_IMAGE} pixels a side"
        )


def _check_finite(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        place = tuple(map(int, np.argwhere(~finite)[0]))
        raise DataError(f"{name} has {array[place]} at {place}; give finite numbers")


def are_class_names(names: Sequence[Any]) -> bool:
    """Return whether these can name classes."""
    return 0 < len(set(names)) == len(names) and all(isinstance(name, str) and name for name in names)


def require_varying(name: str, mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
    """Raise DataError if a channel cannot be standardised: its values are the same everywhere, or too large."""
    if not np.isfinite(std).all():
        place = int(np.isfinite(std).argmin())
        raise DataError(
            f"channel {place} of the training images of {name} has values so large that their squares overflow; make "
            "its unit larger, and see whether they stand for what is missing"
        )
    if not std.all():
        raise DataError(
            f"channel {int(std.argmin())} of the training images of {name} is {mean[std.argmin()]:g} everywhere; "
            "leave it out"
        )


def require_varying_numbers(dataset: Dataset, targets: Targets) -> None:
    """Raise DataError if a number to predict is the same for all training samples, or too large."""
    if targets.std is None:
        return
    if not (finite := np.isfinite(targets.std)).all():
        name = dataset.class_names[int(finite.argmin())]
        raise DataError(f"{name} has values so large that their squares overflow; make its unit larger")
    if not targets.std.all():
        name, value = dataset.class_names[int(targets.std.argmin())], targets.mean[targets.std.argmin()]
        raise DataError(f"{name} is {value:g} for all training samples of {dataset.name}; leave it out")


UNEVEN = 10
"""From this ratio of training images between two classes on, a line says so."""


def balanced_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return the weight of an image of each class: classes weigh alike, and images 1 in the mean."""
    counts = np.bincount(labels, minlength=classes)
    return np.divide(len(labels), np.count_nonzero(counts) * counts, out=np.zeros(classes), where=counts > 0)


def class_notes(dataset: Dataset, index: NDArray[np.int64], weights: str = "none") -> list[str]:
    """Return notes on the classes of the training images that are kept, and of the test images."""
    if dataset.task != "classes":
        labels, why = dataset.train_labels[index], "is the same for all training samples: nothing can be learned of it"
        same = np.flatnonzero((labels == labels[:1]).all(axis=0))
        return [f"the label {dataset.class_names[k]} {why}" for k in same]
    names, counts = dataset.class_names, np.bincount(dataset.train_labels[index], minlength=len(dataset.class_names))
    said = []
    if missing := [name for name, count in zip(names, counts, strict=True) if not count]:
        said.append(f"no training image is of class {', '.join(missing)}: nothing can be learned of that")
    least, most = (int(chosen(np.where(counts > 0, counts, counts.max()))) for chosen in (np.argmin, np.argmax))
    if weights == "none" and counts[most] >= UNEVEN * counts[least]:
        said.append(
            f"class {names[most]} has {counts[most]:,} training images, {names[least]} {counts[least]:,}: "
            "--class-weights balanced lets classes count alike"
        )
    if len(classes := np.unique(dataset.test_labels)) == 1:
        said.append(f"all test images are of class {names[classes[0]]}: accuracy says nothing of the others")
    return said


def describe_array(array: NDArray[Any]) -> str:
    """Return dtype and shape in words."""
    return f"{array.dtype} of shape {array.shape}"


def _times(lengths: tuple[int, ...]) -> str:
    return "x".join(map(str, lengths))


def train_subset(dataset: Dataset, size: int) -> Dataset:
    """Return the data set with only its first training images; the test set stays whole, and a part held out."""
    held_out = laid_down(dataset)
    available, count = int((~held_out).sum()), len(held_out)
    if not 1 <= size <= available:
        said = f"train size is {size}; {dataset.name} has {available} training images"
        raise ValueError(f"{said}, choose 1 to {available}")
    train = np.flatnonzero(held_out | (np.cumsum(~held_out) <= size))
    return subset(dataset, train, np.arange(count, count + len(dataset.test_labels)))


def laid_down(dataset: Dataset) -> NDArray[np.bool_]:
    """Return which training samples the data set itself holds out, whatever the settings, (N,)."""
    samples, count = dataset.samples, len(dataset.train_labels)
    return np.zeros(count, bool) if samples is None or samples.held_out is None else samples.held_out[:count]


def subset(dataset: Dataset, train: NDArray[np.int64], test: NDArray[np.int64]) -> Dataset:
    """Return a part of a data set, by places among its training samples followed by its test samples."""
    both, samples, fields = np.concatenate([train, test]), dataset.samples, {}
    for part, index in (("train", train), ("test", test)):
        for kind in ("images", "labels"):
            one, other = (getattr(dataset, f"{of}_{kind}") for of in ("train", "test"))
            for source, places in ((one, index), (other, index - len(one))):
                if len(places) and 0 <= places.min() <= places.max() < len(source):  # nothing is copied where all are
                    same = np.array_equal(places, np.arange(len(source)))
                    fields[f"{part}_{kind}"] = source if same else source[places]
                    break
            else:
                whole = one.joined(other) if hasattr(one, "joined") else np.concatenate([one, other])
                fields[f"{part}_{kind}"] = whole[index]
    if samples is not None:
        held_out = None if samples.held_out is None else samples.held_out[both]
        fields["samples"] = Samples(tuple(samples.names[k] for k in both), samples.hashes[both], held_out)
    return dataclasses.replace(dataset, **fields)


def split_validation(
    dataset: Dataset, count: int, seed: int, hashes: NDArray[np.integer[Any]] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices of the training images to train on, and of those held out.

    The data set's own held-out part is taken, or else `count` images, from each class its share, to one image: files by
    the smallest hashes with `seed`, others by its permutation. Samples of equal `hashes` are on one side, so that the
    count may be a few off.
    """
    labels, samples = dataset.train_labels, dataset.samples
    if samples is not None and samples.held_out is not None:
        return np.flatnonzero(~laid_down(dataset)), np.flatnonzero(laid_down(dataset))
    if dataset.task != "classes":
        labels = np.zeros(len(labels), np.int64)
    if not 0 <= count < len(labels):
        raise ValueError(
            f"validation count is {count}; {dataset.name} has {len(labels)} training images, "
            f"hold out 0 to {len(labels) - 1}"
        )
    quotas, remainders = np.divmod(count * np.bincount(labels), len(labels))
    quotas[np.argsort(-remainders, kind="stable")[: count - quotas.sum()]] += 1  # largest remainders first
    rng = np.random.default_rng(seed)
    ranks = None if samples is None else _hashed(samples.hashes[: len(labels)], seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label, quota in enumerate(quotas):
        rows = np.flatnonzero(labels == label)
        order = rng.permutation(rows) if ranks is None else rows[np.argsort(ranks[rows], kind="stable")]
        if hashes is not None:  # copies stand beside the first of them
            _, first, copies = np.unique(hashes[order], return_index=True, return_inverse=True)
            order = order[np.argsort(first[copies], kind="stable")]
            group = np.sort(first[copies])
            if 0 < quota < len(order) and group[quota - 1] == group[quota]:
                begin, end = np.searchsorted(group, group[quota]), np.searchsorted(group, group[quota], "right")
                quota = end if end < len(order) else begin
        held_out[order[:quota]] = True
    if hashes is not None:  # copies in two classes
        held_out &= ~np.isin(hashes, hashes[~held_out])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _hashed(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Hashes with a seed: each the first eight bytes of the SHA-256 of both."""
    contents = (f"{seed} {value}".encode() for value in hashes.tolist())
    return np.array([int.from_bytes(hashlib.sha256(c).digest()[:8], "big") for c in contents], np.uint64)


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Return indices spread evenly over a set, which may be in order of its classes."""
    taken = min(count, wanted)
    return np.arange(taken, dtype=np.int64) * count // max(taken, 1)
