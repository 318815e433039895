"""The samples that a run was trained on, compared with those of its data set now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from train.config import Config, ConfigError
from train.data import INFO, Dataset, Samples, split_validation, train_subset
from train.data.description import Description, labels_checksum, samples_of
from train.data.labels import TEST
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.run import DATA
from train.runs.shipped import FOLDER
from train.storage.files import read_text

Say = Callable[[str], None]


def split(
    dataset: Dataset, config: Config, *, older: bool = False
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return which samples are trained on and which are held out; copies stay together, but in `older` runs."""
    held_out = None if dataset.samples is None else dataset.samples.held_out
    if held_out is not None and config.validation_size not in (-1, count := int(held_out.sum())):
        raise ConfigError(f"--validation-size: {dataset.name} says which {count} samples are held out; leave it out")
    try:
        total = len(dataset.train_labels)
        hashes = samples_of(dataset).hashes[:total] if config.held_out(total) and not older else None
        return split_validation(dataset, config.held_out(total), config.seed, hashes)
    except ValueError as error:
        raise ConfigError(f"--validation-size: {error}") from error


def description_in(run: Path) -> Description | None:
    """Return the description in a run's folder, if it can be read."""
    try:
        return Description.read(read_text(run / DATA))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def description_of(path: Path, checkpoint: Checkpoint) -> Description | None:
    """Return the description beside a checkpoint, if its digest is the checkpoint's."""
    description = description_in(path.parent)
    return description if description is not None and description.digest == checkpoint.data else None


def have_other_samples(run: Path, other: Path) -> bool:
    """Return whether the descriptions in two runs' folders are of different samples; False where one has none."""
    one, two = description_in(run), description_in(other)
    return one is not None and two is not None and not one.is_of(two)


def own_samples(
    path: Path, checkpoint: Checkpoint, config: Config, dataset: Dataset, say: Say, use: str = "train"
) -> Dataset:
    """Return a run's samples in its parts, and say how many are gone and new; CheckpointError if they are others.

    To "train", all must be there; to "test", some of the test samples. For `use` "another", any data set will do: if it
    lacks samples of the run, a line says how many of its test samples the run was trained on.
    """
    description = description_of(path, checkpoint)
    where = ("data_dir", "data-dir") if config.dataset in INFO else ("dataset", "dataset")
    other = f"{path} was trained on other images than {getattr(config, where[0])} holds; name theirs with --{where[1]}"
    if description is None:
        return _undescribed(path, checkpoint, dataset, say, use, other)
    (index, new), tests = description.places(dataset), description.parts == TEST
    missing = [description.names[k] for k in np.flatnonzero(index < 0)]
    lost, count = int((index[tests] < 0).sum()), int(tests.sum())
    if missing and use == "another":
        total = len(dataset.test_labels)
        seen = description.seen(samples_of(dataset).hashes[-total:])
        say(f"{path} was trained on {seen:,} of the {total:,} test images of {dataset.name}")
        known, own = samples_of(dataset).hashes, description.hashes
        if other_labels := int((np.isin(known, own[index < 0]) & ~np.isin(known, own[index >= 0])).sum()):
            say(f"{other_labels:,} samples of {dataset.name} have other labels than in {path.parent}")
        return dataset
    if (missing and use == "train") or lost == count:
        gone = f"{len(missing):,} of its {len(index):,} samples are gone or changed, such as {missing[0]}"
        raise CheckpointError(f"{other}: {gone}")
    if lost:
        say(f"{lost:,} of the {count:,} test images of {path.parent} are gone or changed")
    if new:
        say(f"{new:,} samples of {dataset.name} are new since {path.parent} began, and left out")
    return description.arranged(dataset, index)


def _undescribed(path: Path, checkpoint: Checkpoint, dataset: Dataset, say: Say, use: str, other: str) -> Dataset:
    """Return a run's samples without a description, by its digest, or for an older run by the checksum of labels."""
    config, size = checkpoint.config, checkpoint.config.train_size
    part = train_subset(dataset, size) if use != "another" and 0 < size < len(dataset.train_labels) else dataset
    parts = split(part, config, older=True)
    described = Description.of(part, parts[1], checkpoint.channel_mean, checkpoint.channel_std)
    digest = described.as_in(checkpoint.data).digest
    targets = (checkpoint.targets.taught(part.train_labels[index], config.dtype) for index in parts)
    older = use == "test" and not checkpoint.data and checkpoint.labels is not None
    if (use == "train" and checkpoint.data not in ("", digest)) or (
        older and labels_checksum(targets) != checkpoint.labels
    ):
        raise CheckpointError(other)
    if path.parent == FOLDER and dataset.name == config.dataset == checkpoint.config.dataset:
        say(f"{path.stem} was trained on {config.dataset.upper().replace('CIFAR', 'CIFAR-')}'s training images")
    elif use != "train" and digest != checkpoint.data:
        say(f"whether {path} was trained on some of the test images cannot be checked: it has no {DATA}")
    if not np.array_equal(parts[1], split(part, config)[1]):  # copies are on both sides, and stay there
        samples = samples_of(part)
        held_out = np.isin(np.arange(len(samples.names)), parts[1])
        part = dataclasses.replace(part, samples=Samples(samples.names, samples.hashes, held_out))
    return part
