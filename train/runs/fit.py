"""What trains a network on arrays: in a run's folder for commands and `train.fit`, in memory for estimators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcnn_core.backend import get_namespace
from train.config import Config, ConfigError
from train.data import Images, MappedImages, Targets, balanced_weights
from train.networks.registry import build
from train.ranks.ranks import Ranks
from train.recipes.tasks import learned
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.run import Run
from train.runs.teacher import Teacher
from train.runs.training import Trainer, TrainingError


@dataclass(frozen=True)
class Arrays:
    """What a network learns from, and is tried on."""

    images: Any  # (N, u1, .., channels), of NumPy or MappedImages
    labels: NDArray[Any]  # of each, as `Dataset` has them
    names: tuple[str, ...]  # of classes, labels or numbers
    trained: Any  # which of them it is trained on: indices, or a slice
    held_out: Any | None  # which it is tried on
    statistics: tuple[NDArray[np.float64], NDArray[np.float64]]  # that standardise images
    targets: Targets
    counts: NDArray[np.float64] | None = None  # what each counts that it is trained on, 1 in the mean


class Memory(Run):
    """A run that no folder keeps, but memory: its last state, and its best."""

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
    """Return what trains a network on arrays, on the device of a namespace; a teacher has a path and a checkpoint."""

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
