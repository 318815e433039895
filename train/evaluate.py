"""Evaluate a network on test images: `python -m hcnn evaluate NETWORK`."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.commands.command_line import NETWORK, Parser, command, given_path, say
from train.commands.flags import add_network, given_settings
from train.pages import Table
from train.runs.fit import untrained_size
from train.runs.scores import calibration_lines, figures, part_right, test_lines
from train.runs.shipped import card
from train.runs.trained import Trained
from train.runs.training import Result

EVALUATION_SETTINGS = ("backend", "batch_size", "data_dir", "dataset")
"""Settings that a network may be evaluated with."""


def _arguments(parser: Parser) -> None:
    parser.add_argument("network", type=given_path, metavar="NETWORK", help=NETWORK)
    add_network(parser, EVALUATION_SETTINGS)


@command(_arguments, "a smaller --batch-size may do")
def main(options: argparse.Namespace) -> None:
    """Print accuracy, loss, calibration and confusion of a network on test images.

    Without --dataset they are those of the set it was trained on. Its accuracy by the mean of several views of each
    follows, which takes six times as long.
    """
    say_accuracy(options.network, given_settings(options), f"evaluate {options.network}")


def say_accuracy(name_or_path: Path, settings: Mapping[str, Any], action: str) -> None:
    """Print the accuracy, loss, calibration and confusion of a network on test images."""
    trained, named = Trained.open(name_or_path, settings, say), "dataset" in settings
    dataset = trained.data(action, say, named=named, use="another" if named else "test")
    checkpoint, task = trained.checkpoint, trained.checkpoint.task
    for line in untrained_size(trained.config, checkpoint.image_size):
        say(line)
    test, count = trained.images(dataset.test_images, dataset.test_labels), len(dataset.test_labels)
    result = trained.evaluate(test)
    labelled = trained.config, f", {count:,} {dataset.units}", checkpoint.class_names
    say(next(test_lines(task, figures(result), *labelled)))  # before the views are begun, which take six times as long
    result = trained.evaluate(test, result)
    _, *lines = test_lines(task, figures(result), *labelled)
    for line in (*lines, *calibration_lines(result, dataset.test_labels)):
        say(line)
    if not result.confusion.size:
        return
    if checkpoint.figures:
        say(f"recorded when it was trained: accuracy {100 * checkpoint.figures['test_accuracy']:.2f} %")
    say(_confusion(result, dataset.class_names))
    if text := card(trained.path):
        say(f"\n{text.rstrip()}")


def _confusion(result: Result, names: Sequence[str]) -> str:
    """Return a table of counts, a row for each true class, with the part of each class that is right."""
    names = [" ".join(name.split()) for name in names]  # a line feed in one would forge a line
    least = max(len(str(int(result.confusion.max()))), 4)
    width = next(n for n in range(least, 1 << 20) if len({name[:n] for name in names}) == len({*names}))
    header, rows = ["", *(name[:width] for name in names), "right, 95 % interval"], []
    for k, (name, row) in enumerate(zip(names, result.confusion, strict=True)):
        rows.append([name, *(str(int(n)) for n in row), part_right(int(row[k]), int(row.sum()))])
    return f"rows: true class; columns: predicted\n{Table(header, rows).text()}"
