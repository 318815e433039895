"""Which class of network a configuration names."""

from __future__ import annotations

from train.config import Config
from train.networks.lenet import LeNet
from train.networks.network import Network

__all__ = ["Trainable", "build"]

Trainable = Network | LeNet
"""What can be trained, with the attributes and methods that both classes have."""


def build(config: Config, image_size: int | tuple[int, int] = 32, classes: int = 10, channels: int = 3) -> Trainable:
    """Return the network that a configuration describes."""
    kind = LeNet if config.architecture == "lenet" else Network
    return kind(config, image_size, classes, channels)
