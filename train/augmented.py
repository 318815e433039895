"""Draw images as training sees them: `python -m hcnn augmented --preset hcnn-best`."""

import argparse
import os
from pathlib import Path

import numpy as np

from train.commands.command_line import Parser, at_least, command, new_file, say
from train.commands.flags import add_settings, config_of
from train.config import ConfigError, resolved
from train.data import Images, channel_statistics
from train.extras import require_installed
from train.runs.augmented import augmented
from train.runs.fit import require_suitable
from train.runs.run import RunError
from train.runs.session import Session
from train.runs.trained import require_named
from train.storage.files import write_atomically


def _arguments(parser: Parser) -> None:
    parser.add_argument("--count", type=at_least(1), default=16, metavar="N", help="images to draw [16]")
    parser.add_argument(
        "--out", type=new_file, default=Path("augmented.png"), metavar="FILE", help="new PNG file [augmented.png]"
    )
    add_settings(parser)


@command(_arguments, "draw fewer images")
def main(options: argparse.Namespace) -> None:
    """Draw images as training sees them in its first epoch."""
    require_installed()
    (config, loaded), target = config_of(options, calls=options.dataset is not None), options.out
    if os.path.lexists(target):
        raise RunError(f"{target} is there already; name a new file with --out")
    require_named(config.dataset, options.dataset is not None, f"--config {options.config}")
    dataset = Session(dataset=loaded).load(np, config)
    config = resolved(config, dataset.image_shape[:-1], dataset.task, dataset.name)
    require_suitable(config, dataset.info)
    statistics, by = channel_statistics(dataset.train_images), config.standardize
    data = Images(dataset.train_images, dataset.train_labels, *statistics, config.dtype, by=by)
    if (picture := augmented(config, data, options.count)) is None:
        raise ConfigError(f"only images of bytes are drawn, which {config.dataset} does not hold")
    write_atomically(target, picture)
    say(str(target))
