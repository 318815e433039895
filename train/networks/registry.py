"""The architectures that there are. A new one is an entry here, and a module that defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.networks import hierarchical, lenet
from train.networks.architecture import ARCHITECTURES, ATTRIBUTES, MERGED_FILTERS, Architecture, ArchitectureSettings
from train.networks.baselines import BASELINES
from train.networks.layer import Size
from train.networks.network import Network
from train.networks.presets import UNITS
from train.settings import ConfigError

__all__ = ["ARCHITECTURES", "ATTRIBUTES", "MERGED_FILTERS", "PRESETS", "architecture_of", "build", "register"]

PRESETS: dict[str, Mapping[str, Any]] = {}
"""The changes of each preset from the defaults. `hcnn` and `hcnn-plus` are the paper's networks and its recipe."""


def register(name: str, architecture: Architecture) -> None:
    """Add an architecture and its presets, also while a program runs; ValueError where a name is taken."""
    taken = ({name} & ARCHITECTURES.keys()) | (architecture.presets.keys() & PRESETS.keys())
    if taken:
        raise ValueError(f"{', '.join(sorted(taken))}: there is an architecture or a preset of that name; take another")
    ARCHITECTURES[name] = architecture
    named = {} if name == ArchitectureSettings.architecture else {"architecture": name}
    PRESETS.update({preset: {**named, **changes} for preset, changes in architecture.presets.items()})


for _name, _architecture in {"hcnn": hierarchical.ARCHITECTURE, "lenet": lenet.ARCHITECTURE, **BASELINES}.items():
    register(_name, _architecture)


def architecture_of(config: ArchitectureSettings) -> Architecture:
    """Return the entry of a configuration's architecture."""
    return ARCHITECTURES[config.architecture]


def build(config: ArchitectureSettings, image_size: Size = 32, classes: int = 10, channels: int = 3) -> Network:
    """Return the network that a configuration describes; weights are drawn by `Network.initialize`.

    ConfigError if the architecture does not take such images, signals or volumes.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    architecture = architecture_of(config)
    if len(size) not in architecture.axes:
        raise ConfigError(
            f"{architecture.title} takes images, and these are {UNITS[len(size)]} of {'x'.join(map(str, size))}; take "
            "a hierarchical network, such as --preset signal or volume"
        )
    return architecture.build(config, size, classes, channels)
