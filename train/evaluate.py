"""Evaluate a network on test images: `python -m hcnn evaluate NETWORK`."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from train.commands.command_line import NETWORK, Parser, command, given_path, say
from train.commands.flags import add_network, given_settings
from train.config import Config
from train.data import INFO, DatasetInfo, Images, load, other_pixels, value_range
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.pages import Table
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.fit import namespace
from train.runs.samples import own_samples
from train.runs.session import calibration_lines, figures, opened, part_right, require_named, test_lines, untrained_size
from train.runs.shipped import card
from train.runs.training import Result, evaluate, evaluate_views, restore

WITH_NETWORK = ("backend", "batch_size", "data_dir", "dataset")
"""Settings that a network may be evaluated with."""


class InUse(NamedTuple):
    """A trained network on the device, with the settings that it is used with."""

    path: Path
    checkpoint: Checkpoint
    xp: Any
    config: Config
    network: Network
    parameters: Parameters
    moments: Moments


def _arguments(parser: Parser) -> None:
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    add_network(parser, WITH_NETWORK)


@command(_arguments, "a smaller --batch-size may do")
def main(options: argparse.Namespace) -> None:
    """Print accuracy, loss, calibration and confusion of a network on test images.

    Without --dataset they are those of the set it was trained on. Its accuracy by the mean of several views of each
    follows, which takes six times as long.
    """
    say_accuracy(options.network, given_settings(options), f"evaluate {options.network}")


def network_for_use(name_or_path: Path, settings: Mapping[str, Any]) -> InUse:
    """Return a network that a command names, of a run the latest, with other settings than it was trained with."""
    path, checkpoint = opened(name_or_path, say)
    config = dataclasses.replace(checkpoint.config, **{"backend": "auto", **settings})  # it may come from elsewhere
    xp = namespace(config.backend)
    return InUse(path, checkpoint, xp, config, *restore(path, checkpoint, config, xp))


def say_accuracy(name_or_path: Path, settings: Mapping[str, Any], action: str) -> None:
    """Print the accuracy, loss, calibration and confusion of a network on test images."""
    path, checkpoint, xp, config, network, parameters, moments = network_for_use(name_or_path, settings)
    require_named(config.dataset, "dataset" in settings, action)
    if config.dataset in INFO:
        require_same_kind(path, checkpoint, config.dataset, INFO[config.dataset])
    dataset = load(config.dataset, checkpoint.reading(config), config.data_dir)
    for note in dataset.notes:
        say(note)
    if checkpoint.range and (said := other_pixels(checkpoint.range, value_range(dataset.test_images))):
        say(f"{dataset.name}: {said}")
    require_same_kind(path, checkpoint, config.dataset, dataset.info)
    checkpoints.require_fits(path, checkpoint, dataset)
    dataset = own_samples(path, checkpoint, config, dataset, say, "another" if "dataset" in settings else "test")
    for line in untrained_size(config, checkpoint.image_size):
        say(line)
    test = Images(
        xp.asarray(dataset.test_images),
        xp.asarray(checkpoint.targets.taught(dataset.test_labels, config.dtype)),
        checkpoint.channel_mean,
        checkpoint.channel_std,
        config.dtype,
        targets=checkpoint.targets,
        by=config.standardize,
    )
    subject, said = (xp, network, parameters, moments, test), f", {len(dataset.test_labels):,} {dataset.units}"
    result = evaluate(*subject)
    labelled, task = (config, said, checkpoint.class_names), checkpoint.task
    say(next(test_lines(task, figures(result), *labelled)))  # before the views are begun, which take six times as long
    result = evaluate_views(*subject, result)
    _, *lines = test_lines(task, figures(result), *labelled)
    for line in (*lines, *calibration_lines(result, dataset.test_labels)):
        say(line)
    if not result.confusion.size:
        return
    if checkpoint.figures:
        say(f"recorded when it was trained: accuracy {100 * checkpoint.figures['test_accuracy']:.2f} %")
    say(_confusion(result, dataset.class_names))
    if text := card(path):
        say(f"\n{text.rstrip()}")


def require_same_kind(path: Path, checkpoint: checkpoints.Checkpoint, name: str, data: DatasetInfo) -> None:
    """Refuse images of another shape, or of another number of classes, than a network was trained on."""
    trained = checkpoint.image_shape, len(checkpoint.class_names), checkpoint.targets.kind
    both = trained, (data.image_shape, data.classes, data.task)
    if both[0] != both[1]:
        kinds = [f"{count} {kind} of {'x'.join(map(str, shape))} images" for shape, count, kind in both]
        raise CheckpointError(
            f"{path} tells {kinds[0]} apart, {name} has {kinds[1]}; name the set it was trained on with --dataset"
        )


def _confusion(result: Result, names: Sequence[str]) -> str:
    """Return the counts, a row for each true class, and the part of each class that was predicted right."""
    names = [" ".join(name.split()) for name in names]  # a line feed in one would forge a line
    least = max(len(str(int(result.confusion.max()))), 4)
    width = next(n for n in range(least, 1 << 20) if len({name[:n] for name in names}) == len({*names}))
    header, rows = ["", *(name[:width] for name in names), "right, 95 % interval"], []
    for k, (name, row) in enumerate(zip(names, result.confusion, strict=True)):
        rows.append([name, *(str(int(n)) for n in row), part_right(int(row[k]), int(row.sum()))])
    return f"rows: true class; columns: predicted\n{Table(header, rows).text()}"
