"""Draw the learning curve of a run: `python -m hcnn plot RUN`."""

import argparse

from train.commands.command_line import Parser, command, given_path, say
from train.runs.plot import draw
from train.runs.run import Run


def _arguments(parser: Parser) -> None:
    parser.add_argument("run", type=given_path, metavar="RUN", help="folder of a run")


@command(_arguments, "draw another run")
def main(options: argparse.Namespace) -> None:
    """Draw the learning curve of a run, from its metrics."""
    run = Run(options.run)
    draw(run)
    say(str(run.picture_path))
