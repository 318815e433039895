"""A trained network that teaches another by its outputs for the same images (arXiv:1503.02531).

Section 5.2 of arXiv:1703.04140 compares with two such students, the WRN student and FitNet.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from hcnn_core.backend import Array
from train.config import Config
from train.data import UNNAMED, Dataset, Images, train_subset
from train.data.description import Description, samples_of
from train.data.labels import HELD_OUT
from train.networks.layer import Moments, Parameters, times
from train.networks.network import Network
from train.networks.registry import MERGED_FILTERS, architecture_of, build
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.samples import description_of, split


def is_taught(config: Config) -> bool:
    """Whether a teacher has a part in the loss."""
    return bool(config.teacher) and (config.teacher_share > 0 or config.attention_transfer > 0)


class Teacher:
    """A trained network in evaluation mode, which takes images as its pupil has standardised them."""

    def __init__(self, network: Network, parameters: Parameters, moments: Moments, scale: Array, offset: Array) -> None:
        self.network, self.parameters, self.moments = network, parameters, moments
        self.scale, self.offset = scale, offset  # from the other's standardised images to its own, (channels,)

    @classmethod
    def of(cls, xp: Any, path: Path, checkpoint: Checkpoint, config: Config, images: Images) -> Teacher:
        """Return the network of a checkpoint as the teacher of a pupil with this configuration and these images."""
        mean, std, state = checkpoint.channel_mean, checkpoint.channel_std, checkpoint.state
        change = (images.std / std, (images.mean - mean) / std) if config.standardize == "channel" else (1.0, 0.0)
        arrays = state.evaluated, state.moments, *change
        parameters, moments, scale, offset = tree_map(lambda a: np.asarray(a, config.dtype), arrays)
        network = network_of(checkpoint, config)
        checkpoints.require_same_arrays(path, parameters, network.initialize(np.random.default_rng(0)), "parameters")
        checkpoints.require_same_arrays(path, moments, network.initial_moments(), "moments")
        if MERGED_FILTERS not in architecture_of(checkpoint.config).lacks:
            network, parameters, moments = network.folded(), network.merged(parameters, moments), {}
        return cls(network, *tree_map(xp.asarray, (parameters, moments, scale, offset)))

    def shared(self, pupil: Network) -> list[tuple[str, str]]:
        """Return the last layers of both at each size of space that both have, the pupil's first.

        Layers before the pupil's first weights are left out: they would not change.
        """
        stages, names = self.network.stages, {la.name for la in dropwhile(lambda la: not la.trainable, pupil.table)}
        return [(name, stages[size]) for size, name in pupil.stages.items() if size in stages and name in names]

    def __call__(self, x: Array, at: Collection[str] = ()) -> tuple[Array, list[Array]]:
        """Return the logits (N, classes) of images (N, u1, .., channels) as standardised here, and attention maps."""
        logits, _, maps = self.network.with_maps(self.parameters, x * self.scale + self.offset, self.moments, at=at)
        return logits, maps


def network_of(checkpoint: Checkpoint, config: Config) -> Network:
    """Return a teacher's network in the dtype of its pupil."""
    settings = replace(checkpoint.config, dtype=config.dtype)
    return build(settings, checkpoint.image_size, checkpoint.outputs, checkpoint.channels)


def require_same_task(path: Path, teacher: Checkpoint, dataset: Dataset, config: Config) -> None:
    """Raise CheckpointError unless a teacher takes such images and tells the same classes apart."""
    if (by := teacher.config.standardize) != config.standardize:
        raise CheckpointError(
            f"--teacher {path} takes images that are standardised by {by}, here it is by {config.standardize}; give "
            f"--standardize {by}"
        )
    if not (task := teacher.task).softmax:
        what = f"{task.name} by the loss {task.loss!r}" if task.ranks else task.name
        raise CheckpointError(f"--teacher {path} predicts {what}; name a network of classes with probabilities")
    teachers, data = (f"{len(a.class_names)} classes of {times(a.image_shape)} images" for a in (teacher, dataset))
    if teachers != data:
        raise CheckpointError(
            f"--teacher {path} tells {teachers} apart, {dataset.name} has {data}; name a network of these"
        )
    checkpoints.require_fits(path, teacher, dataset)


def require_unseen(
    flag: str, path: Path, other: Checkpoint, whole: Dataset, dataset: Dataset, config: Config
) -> list[str]:
    """Raise CheckpointError if another network was trained on images that this run holds out, or on its test images.

    This run's scores on them would then not hold for new images. Returns a line where that cannot be checked: for a
    network without a description, its part of `whole`, the images of all sizes of training sets, is known only where
    its images have the same name.
    """
    recipe, held_out = other.config, split(dataset, config)[1]
    if (description := description_of(path, other)) is not None:
        samples, count = samples_of(dataset), len(dataset.train_labels)
        for place, hashes in ((HELD_OUT, samples.hashes[held_out]), ("for the test", samples.hashes[count:])):
            if seen := description.seen(hashes):
                raise CheckpointError(_seen(flag, path, description, recipe, seen, len(hashes), place))
        return []
    if {recipe.dataset, config.dataset} == {"cifar10", "sample"} and len(held_out):
        raise CheckpointError(
            f"{flag} {path} was trained on {recipe.dataset}, which shares images with {config.dataset}, so it may have "
            "seen some that are held out here; take --validation-size 0"
        )
    if os.path.realpath(recipe.dataset) == os.path.realpath(config.dataset) != os.path.realpath(UNNAMED):
        size = recipe.train_size
        part = train_subset(whole, size) if 0 < size < len(whole.train_labels) else whole
        known = Description.of(part, split(part, recipe, older=True)[1], 0, 1)
        if seen := known.seen(samples_of(dataset).hashes[held_out]):
            raise CheckpointError(_seen(flag, path, known, recipe, seen, len(held_out), HELD_OUT))
    return [f"{flag} {path} has no description of its images: whether it saw test images cannot be checked"]


def _seen(flag: str, path: Path, known: Description, recipe: Config, seen: int, count: int, place: str) -> str:
    """Say that another network has seen images."""
    count_held, size = known.about[HELD_OUT], f" --train-size {recipe.train_size}" if recipe.train_size else ""
    same = f"--seed {recipe.seed} --validation-size {count_held}{size}, as it has, or " if count_held else ""
    if known.seen(known.hashes[known.parts == HELD_OUT]):  # copies: its own split would be refused too
        same = ""
    cure = f"{same}--validation-size 0" if place == HELD_OUT else "another network"
    return (
        f"{flag} {path} was trained on {seen:,} of the {count:,} images that are {place} here, so they would not tell "
        f"how well new images are classified; take {cure}"
    )
