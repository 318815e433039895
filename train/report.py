"""Write the report of a run anew: `python -m hcnn report RUN`."""

import argparse

from train.commands.command_line import Parser, command, given_path, say
from train.commands.flags import add_network, given_settings
from train.config import MOST
from train.data import Images, load
from train.evaluate import network_for_use, require_same_kind
from train.extras import require_installed
from train.runs import checkpoint as checkpoints
from train.runs.fit import on_device
from train.runs.run import Run, RunError
from train.runs.samples import own_samples, split
from train.runs.session import classified, locked, require_named, write_report


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
    path, checkpoint, xp, config, network, parameters, moments = network_for_use(run.path, given_settings(options))
    require_named(config.dataset, options.dataset is not None, f"report {run.path}")
    test, state, shown, trained = run.test_record(), checkpoint.state, None, None
    tested = test and (test["epoch"], 0) == (state.epoch, state.step)
    if (tested or config.held_out(MOST)) and checkpoint.task.softmax:
        dataset = load(config.dataset, checkpoint.reading(config), config.data_dir)
        require_same_kind(path, checkpoint, config.dataset, dataset.info)
        checkpoints.require_fits(path, checkpoint, dataset)
        dataset = own_samples(path, checkpoint, config, dataset, say, "test")
        index, held_out = split(dataset, config)
        if tested:
            part, images, labels = "test", dataset.test_images, dataset.test_labels
        else:  # none of fewer than ten
            part, images, labels = "held-out", dataset.train_images[held_out], dataset.train_labels[held_out]
        statistics = checkpoint.channel_mean, checkpoint.channel_std, config.dtype
        if tested or len(held_out):
            data = Images(on_device(xp, images), xp.asarray(labels), *statistics, by=config.standardize)
            shown = classified(part, network, parameters, moments, data)
        trained = Images(dataset.train_images[index], dataset.train_labels[index], *statistics, by=config.standardize)
    with locked(run):
        say(write_report(run, network, checkpoint.class_names, parameters, shown, trained, checkpoint.task))
