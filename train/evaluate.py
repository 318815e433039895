"""Evaluate a network on test images: `python -m hcnn evaluate NETWORK`."""

from train.commands.process import begin, raise_on_interrupt

begin("train.evaluate", __name__)

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from train import cifar
from train.commands.command_line import Parser, run_command
from train.config import Config
from train.runs.shipped import list_networks

HELP = {
    "dataset": "another set whose test images to take: cifar10, cifar100, sample, a file FILE.npz, a folder DIR, or "
    "MODULE:FUNCTION [the one that it was trained on]",
    "data_dir": "folder that holds, or will hold, the data set [as when it was trained]",
    "batch_size": "images at a time [as when it was trained]",
}
"""Of the flags that mean something else than when a network is trained."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = _parser()

    def act(options: argparse.Namespace) -> int:
        debug = ["--debug"] if options.debug else []
        return cifar.main(["--evaluate", options.network, *parser.given(options, "network"), *debug])

    return run_command(parser, arguments, act, "a smaller --batch-size may do")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m train.evaluate",
        description="Accuracy, loss, calibration and confusion of a network on test images, by default those of the "
        "set it was trained on; then its accuracy by the mean of several views of each, which takes six times as long.",
        epilog="Exit status: 0; 1 it failed; 2 the command line is wrong.",
    )
    ships = ", ".join(list_networks()) or "none"
    parser.add_argument("network", metavar="NETWORK", help=f"one that ships ({ships}), a run's folder or a checkpoint")
    for field in dataclasses.fields(Config):
        if field.name in cifar.WITH_EVALUATE:
            cifar.add_flag(parser, field).help = HELP.get(field.name, field.metadata["help"])
    return parser


if __name__ == "__main__":
    raise_on_interrupt()
    sys.exit(main())
