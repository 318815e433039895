"""Which class of network a configuration names."""

from __future__ import annotations

from train.config import Config
from train.lenet import LeNet
from train.network import Network

__all__ = ["Trainable", "build"]

Trainable = Network | LeNet
"""What can be trained, with the attributes and methods that both classes have."""


def build(config: Config, image_size: int | tuple[int, int] = 32, classes: int = 10, channels: int = 3) -> Trainable:
    """Return the network that a configuration describes.

    Parameters
    ----------
    config : Config
        Its architecture, and what belongs to that.
    image_size : int or tuple of int, optional
        Rows and columns of an image; one number stands for both.
    classes, channels : int, optional
        Of the data set.

    Returns
    -------
    Network or LeNet
        Its layers; weights are drawn by `initialize`.

    Raises
    ------
    ConfigError
        If the architecture does not take such images.
    """
    kind = LeNet if config.architecture == "lenet" else Network
    return kind(config, image_size, classes, channels)
