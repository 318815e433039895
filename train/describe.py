"""Print a network as a table: `python -m hcnn describe --preset hcnn`."""

import argparse

from train.commands.command_line import command, say
from train.commands.flags import add_settings, config_of
from train.config import Config, ConfigError
from train.data import INFO, Dataset, is_function, load
from train.networks.registry import build


@command(add_settings, "describe a smaller network")
def main(options: argparse.Namespace) -> None:
    """Print a network as a table: axes, support, strides, coefficients, products and memory of each layer, totals."""
    say(network_table(*config_of(options)))


def network_table(config: Config, data: Dataset | None = None) -> str:
    """Return a network's layers as a table: axes, support, strides, coefficients, products and memory of each."""
    if is_function(config.dataset):
        raise ConfigError(
            f"a description calls no function, and dataset is {config.dataset!r}; give a file of such images"
        )
    info = INFO.get(config.dataset) or (data or load(config.dataset, config.reading, config.data_dir)).info
    return build(config, info.image_shape[:-1], info.classes, info.image_shape[-1]).describe()
