"""An entry of the registry: a kind of network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hcnn_core.backend import Array
from train.networks.layer import Parameters
from train.networks.network import Network
from train.settings import RunSettings, Section, setting

__all__ = ["ATTRIBUTES", "MERGED_FILTERS", "Architecture"]

ATTRIBUTES, MERGED_FILTERS = "attributes", "merged filters"


@dataclass(frozen=True)
class Architecture:
    """An entry of the registry."""

    title: str  # how messages call such a network
    build: Callable[[Any, Any, int, int], Network]  # of settings, lengths of the axes of space, classes, channels
    presets: Mapping[str, Mapping[str, Any]]  # what each changes
    sections: tuple[type[Section], ...] = ()  # dataclasses of the settings it takes beside those of every run
    lacks: frozenset[str] = frozenset()  # of ATTRIBUTES and MERGED_FILTERS
    axes: tuple[int, ...] = (2,)  # of space that its data may have
    of_dataset: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    # ^ defaults that differ on a data set
    check: Callable[[Any], None] = lambda config: None  # raises ConfigError where settings contradict each other
    begin: Callable[[Network, Parameters, Array], None] = lambda network, weights, images: None
    # ^ changes weights as they are drawn, before the first step, by some training images; all on the host
    refuse: Callable[[Any, Any, int, int], None] = lambda config, size, classes, channels: None
    # ^ the same where training on such images makes no sense; arguments as of `build`


ARCHITECTURES: dict[str, Architecture] = {}
"""Every kind of network, by its name in the setting `architecture`."""


class ArchitectureSettings(RunSettings):
    """The setting that chooses the kind of network."""

    architecture: str = setting("hcnn", "kind of network, which has settings of its own", choices=ARCHITECTURES.keys())
