"""A run or a network once opened: evaluation, reports, verification, exploring and export ask this object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from train.config import Config, ConfigError
from train.data import FILE, INFO, UNNAMED, Dataset, DatasetInfo, Images, is_function, load, other_pixels, value_range
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.fit import namespace, on_device
from train.runs.report import classified, write_report
from train.runs.run import Run
from train.runs.samples import Say, own_samples, split
from train.runs.shipped import open_network
from train.runs.training import Result, evaluate, evaluate_views, restore


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network on a device, with the settings that it is used with."""

    path: Path  # of its checkpoint
    checkpoint: Checkpoint
    xp: Any
    config: Config
    network: Network
    parameters: Parameters
    moments: Moments

    @classmethod
    def open(cls, name_or_path: Path, settings: Mapping[str, Any], say: Say) -> Self:
        """Return a network by name or path (the latest of a run), with other settings than it was trained with."""
        path, checkpoint = open_latest(name_or_path, say)
        config = dataclasses.replace(checkpoint.config, **{"backend": "auto", **settings})  # it may come from elsewhere
        xp = namespace(config.backend)
        return cls(path, checkpoint, xp, config, *restore(path, checkpoint, config, xp))

    def data(self, action: str, say: Say, *, named: bool = False, use: str = "test") -> Dataset:
        """Return its data, from a set that the user may have `named`, with samples in the parts that they had.

        `own_samples` explains `use`; without it all samples are as in the set. CheckpointError for another kind of
        data.
        """
        path, checkpoint, name = self.path, self.checkpoint, self.config.dataset
        require_named(name, named, action)
        if name in INFO:
            require_same_kind(path, checkpoint, name, INFO[name])
        dataset = load(name, checkpoint.reading(self.config), self.config.data_dir)
        for note in dataset.notes:
            say(note)
        if checkpoint.range and (said := other_pixels(checkpoint.range, value_range(dataset.test_images))):
            say(f"{dataset.name}: {said}")
        require_same_kind(path, checkpoint, name, dataset.info)
        checkpoints.require_fits(path, checkpoint, dataset)
        return own_samples(path, checkpoint, self.config, dataset, say, use) if use else dataset

    def images(self, images: Any, labels: Any) -> Images:
        """Return samples for the network, with labels for its loss."""
        checkpoint, config, xp = self.checkpoint, self.config, self.xp
        arrays = on_device(xp, images), xp.asarray(checkpoint.targets.taught(labels, config.dtype))
        statistics = checkpoint.channel_mean, checkpoint.channel_std, config.dtype
        return Images(*arrays, *statistics, targets=checkpoint.targets, by=config.standardize)

    def evaluate(self, data: Images, result: Result | None = None) -> Result:
        """Return an evaluation on samples; given one, return it with the accuracy of several views too."""
        subject = self.network, self.parameters, self.moments, data
        return evaluate(*subject) if result is None else evaluate_views(*subject, result)

    def report(self, run: Run, dataset: Dataset | None, *, tested: bool) -> str:
        """Write report.html of its run, with an evaluation on test or held-out samples, and return its path."""
        shown = seen = None
        if dataset is not None:
            index, held_out = split(dataset, self.config)
            part, images, labels = "test", dataset.test_images, dataset.test_labels
            if not tested:  # none of fewer than ten
                part, images, labels = "held-out", dataset.train_images[held_out], dataset.train_labels[held_out]
            if len(labels):
                shown = classified(part, self.network, self.parameters, self.moments, self.images(images, labels))
            seen = self.images(dataset.train_images[index], dataset.train_labels[index])
        names, task = self.checkpoint.class_names, self.checkpoint.task
        return write_report(run, self.network, names, self.parameters, shown, seen, task)


def require_same_kind(path: Path, checkpoint: Checkpoint, name: str, data: DatasetInfo) -> None:
    """Refuse images of another shape, or of another number of classes, than a network was trained on."""
    trained = checkpoint.image_shape, len(checkpoint.class_names), checkpoint.targets.kind
    both = trained, (data.image_shape, data.classes, data.task)
    if both[0] != both[1]:
        kinds = [f"{count} {kind} of {'x'.join(map(str, shape))} images" for shape, count, kind in both]
        raise CheckpointError(
            f"{path} tells {kinds[0]} apart, {name} has {kinds[1]}; name the set it was trained on with --dataset"
        )


def require_named(dataset: str, named: bool, action: str) -> None:
    """Refuse to call a function that a file names, unless the user names it too, and images that nothing names."""
    if is_function(dataset) and not named:
        raise ConfigError(f"{action} would call {dataset}, which runs code that a file names: add --dataset {dataset}")
    if dataset == UNNAMED and not named:
        raise ConfigError(
            f"{action} needs images that a program gave: name them with --dataset {FILE} or MODULE:FUNCTION, or give "
            "them to train.resume"
        )


def open_latest(name_or_path: Path, say: Say) -> tuple[Path, Checkpoint]:
    """Return a network's checkpoint (the latest of a run); say which, and what is wrong with later ones."""
    path, checkpoint, notices = open_network(name_or_path)
    for notice in notices:
        say(f"{notice}; taking {path}")
    if name_or_path.is_dir():
        state = checkpoint.state
        step = f" and step {state.step} of the next" if state.step else ""
        say(f"{path}: after epoch {state.epoch} of {checkpoint.config.epochs}{step}")
    return path, checkpoint
