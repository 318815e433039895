"""Training on arrays: in a run's folder for commands and `train.fit`, in memory for estimators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import get_namespace
from train.config import Config, ConfigError, in_pixels
from train.data import Dataset, DatasetInfo, Images, MappedImages, Targets, channel_statistics
from train.data.dataset import balanced_weights, require_varying
from train.networks.layer import times
from train.networks.presets import BY_AXES, MADE_FOR, UNITS
from train.networks.registry import architecture_of, build
from train.ranks.ranks import Ranks
from train.recipes.augmentations import AUGMENTATIONS
from train.recipes.schedules import image_size
from train.recipes.tasks import learned
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.run import Run, TrainingError
from train.runs.teacher import Teacher
from train.runs.training import Trainer


@dataclass(frozen=True)
class Arrays:
    """Arrays that a network is trained on and tried on."""

    images: Any  # (N, u1, .., channels), of NumPy or MappedImages
    labels: NDArray[Any]  # of each, as `Dataset` has them
    names: tuple[str, ...]  # of classes, labels or numbers
    trained: Any  # indices of training samples, or a slice
    held_out: Any | None  # those of held-out samples
    statistics: tuple[NDArray[np.float64], NDArray[np.float64]]  # that standardise images
    targets: Targets
    counts: NDArray[np.float64] | None = None  # weights of training samples, 1 in the mean


def prepared(dataset: Dataset, index: Any, held_out: Any, counts: NDArray[np.float64] | None = None) -> Arrays:
    """Return arrays of training samples, with their weights, and of held-out samples.

    DataError if a channel of the training samples is the same everywhere, or too large to be squared.
    """
    statistics = channel_statistics(dataset.train_images[index])
    require_varying(dataset.name, *statistics)
    targets = Targets.of(dataset.task, dataset.train_labels[index], counts)
    weights = None if counts is None or not np.ptp(counts) else counts / counts.mean()
    parts = dataset.class_names, index, held_out if len(held_out) else None
    return Arrays(dataset.train_images, dataset.train_labels, *parts, statistics, targets, weights)


class Memory(Run):
    """A run kept in memory, not in a folder: its last state, and its best."""

    resumable = False

    def __init__(self) -> None:
        super().__init__(Path("memory"), writes=False)
        self.last: Checkpoint | None = None
        self.best: Checkpoint | None = None

    def save(self, checkpoint: Checkpoint, versions: dict[str, str], *, best: bool) -> Path:
        """Keep a state."""
        self.last, self.best = checkpoint, checkpoint if best else self.best
        return self.path


def namespace(backend: str, precision: str = "float32") -> Any:
    """Return the array namespace of a backend; TrainingError where it cannot be used, ConfigError in a precision."""
    try:
        xp = get_namespace(backend)
    except RuntimeError as error:
        raise TrainingError(f"--backend cupy cannot be used: {error}; --backend numpy needs no GPU") from error
    if precision != "float32" and xp is np:
        raise ConfigError(f"precision is {precision!r}, which is for --backend cupy; NumPy's is 'float32'")
    return xp


def on_device(xp: Any, images: Any) -> Any:
    """Images on the device, unless they stay in their files."""
    return images if isinstance(images, MappedImages) else xp.asarray(images)


def trainer_on(
    xp: Any,
    config: Config,
    data: Arrays,
    keep: Run,
    versions: dict[str, str],
    ranks: Ranks | None = None,
    teacher: tuple[Any, Checkpoint] | None = None,
) -> Trainer:
    """Return the trainer of a network on arrays, on the device of a namespace; a teacher is a path and a checkpoint."""

    def images(rows: Any, counts: NDArray[np.float64] | None = None) -> Images:
        labels = xp.asarray(data.targets.taught(data.labels[rows], config.dtype))
        weights = None if counts is None else xp.asarray(counts, dtype=getattr(xp, config.dtype))
        pixels = on_device(xp, data.images[rows])
        return Images(pixels, labels, *data.statistics, config.dtype, weights, data.targets, config.standardize)

    counts = data.counts
    if config.class_weights == "balanced":
        labels = data.labels[data.trained]
        counts = balanced_weights(labels, len(data.names))[labels] * (1.0 if counts is None else counts)
    train = images(data.trained, counts)
    outputs = len(data.names) + learned(config, data.targets.kind).beside
    network = build(config, data.images.shape[1:-1], outputs, data.images.shape[-1])
    other = teacher and Teacher.of(xp, *teacher, config, train)
    if other and config.attention_transfer and not other.shared(network):
        raise CheckpointError(
            f"--attention-transfer compares layers of one size, and --teacher {config.teacher} shares none with "
            "this network; leave it out"
        )
    held_out = None if data.held_out is None else images(data.held_out)
    return Trainer(xp, config, network, train, held_out, keep, versions, data.names, ranks, other)


def require_suitable(config: Config, info: DatasetInfo) -> None:
    """Refuse shifts that move images out of sight, and images that the network cannot be trained on."""
    extent, channels = info.image_shape[:-1], info.image_shape[-1]
    if (axes := MADE_FOR.get(config.preset, len(extent))) != len(extent):
        raise ConfigError(
            f"preset is {config.preset!r}, for {UNITS[axes]}; these data are {UNITS[len(extent)]}: take "
            f"{BY_AXES[len(extent)]!r}"
        )
    whole = build(config, extent, info.classes, channels)
    for part in AUGMENTATIONS.values():
        part.check(config, info)
    sizes = {extent, *(image_size(config, epoch, extent) for epoch in range(config.epochs))}
    for size in sorted(sizes):
        table = build(config, size, info.classes, channels).table  # refuses a size that it does not take
        if unfit := [a for a, b in zip(table, whole.table, strict=True) if a.trainable != b.trainable]:
            raise ConfigError(
                f"image_{'sizes' if config.image_sizes else 'shares'}: {unfit[0].label} has {unfit[0].trainable:,} "
                f"weights for images of {times(size)}, others for {times(extent)}; train it on images of one size"
            )
        architecture_of(config).refuse(config, size, info.classes, channels)


def size_notes(preset: Config, config: Config, dataset: Dataset) -> Iterator[str]:
    """Yield lines about the sizes of training images, and about settings of a preset in pixels."""
    extent = dataset.image_shape[:-1]
    if scaled := [name for name in in_pixels() if getattr(config, name) != getattr(preset, name)]:
        values = ", ".join(f"{name} {getattr(config, name)} ({getattr(preset, name)} in the preset)" for name in scaled)
        flags = " or ".join(f"--{name}" for name in scaled)
        yield f"{values}: pixels, scaled from images of {preset.made_for} to {min(extent)}; {flags} sets another"
    sizes = [image_size(config, epoch, extent) for epoch in range(config.epochs)]
    if any(size != extent for size in sizes):
        yield f"training images in equal parts of the epochs: {', '.join(map(times, dict.fromkeys(sizes)))}"
    yield from untrained_size(config, extent)


def untrained_size(config: Config, extent: tuple[int, ...]) -> Iterator[str]:
    """Yield a line where evaluation takes images of another size than the last epochs."""
    if (last := image_size(config, config.epochs - 1, extent)) != extent:
        yield (
            f"the last epochs train on images of {times(last)}, and images of {times(extent)} are evaluated: accuracy "
            f"may be much lower; let the last of --image-sizes be {min(extent)}, or the last of --image-shares 1"
        )
