"""Write the report of a run anew: `python -m hcnn report RUN`."""

import argparse

from train.commands.command_line import Parser, command, given_path, say
from train.commands.flags import add_network, given_settings
from train.config import MAX_INT
from train.extras import require_installed
from train.runs.run import Run, RunError
from train.runs.session import locked
from train.runs.trained import Trained


def _arguments(parser: Parser) -> None:
    parser.add_argument("run", type=given_path, metavar="RUN", help="folder of a run")
    add_network(parser, ("backend", "data_dir", "dataset"))


@command(_arguments, "report on another machine")
def main(options: argparse.Namespace) -> None:
    """Write the report.html of a run anew; the test images are shown only if the run has read them."""
    require_installed()
    run = Run(options.run)
    if not run.path.is_dir():
        raise RunError(f"{run.path} holds no run: it is no directory")
    trained = Trained.open(run.path, given_settings(options), say)
    test, state, dataset = run.test_record(), trained.checkpoint.state, None
    tested = test is not None and (test["epoch"], 0) == (state.epoch, state.step)
    if (tested or trained.config.held_out(MAX_INT)) and trained.checkpoint.task.softmax:
        dataset = trained.data(f"report {run.path}", say, named=options.dataset is not None)
    with locked(run):
        say(trained.report(run, dataset, tested=tested))
