"""Draw the learning curve of a run: `python -m hcnn plot RUN`."""

import argparse
from collections.abc import Sequence

from train.commands.command_line import Parser, given_path, run_command, say
from train.runs.run import Run
from train.runs.session import draw


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return run_command(_parser(), arguments, _act, "draw another run")


def _act(options: argparse.Namespace) -> int:
    run = Run(options.run)
    draw(run)
    say(str(run.picture_path))
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m train.plot", description="Draw the learning curve of a run, from its metrics.")
    parser.add_argument("run", type=given_path, metavar="RUN", help="folder of a run")
    return parser
