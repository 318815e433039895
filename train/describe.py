"""Print a network as a table: `python -m hcnn describe --preset hcnn`."""

import argparse
from typing import Any

from train.commands.command_line import command, say
from train.commands.flags import add_settings, config_of
from train.config import Config, ConfigError
from train.data import INFO, Dataset, is_function, load_dataset
from train.networks.presets import MADE_FOR
from train.networks.registry import build


@command(add_settings, "describe a smaller network")
def main(options: argparse.Namespace) -> None:
    """Print a network as a table: axes, support, strides, coefficients, products and memory of each layer, totals."""
    say(described(*config_of(options)))


def described(config: Config, data: Dataset | None = None) -> str:
    """Return a network's layers as a table: axes, support, strides, coefficients, products and memory of each."""
    if is_function(config.dataset):
        raise ConfigError(
            f"a description calls no function, and dataset is {config.dataset!r}; give a file of such images"
        )
    options: dict[str, Any] = {"axes": MADE_FOR.get(config.preset, 0), "task": config.task}
    info = INFO.get(config.dataset) or (data or load_dataset(config.dataset, config.data_dir, **options)).info
    return build(config, info.image_shape[:-1], info.classes, info.image_shape[-1]).describe()
