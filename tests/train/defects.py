"""Networks whose layers have a defect, which checks must notice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from train.networks import hierarchical
from train.networks.hierarchical import HierarchicalLayer
from train.networks.layer import Layer, Signal
from train.networks.network import Network


def with_layers(defect: type) -> Callable[..., Network]:
    """What builds networks whose layers inherit from a defect first."""

    def defective(layer: Layer) -> Layer:
        kind: Any = type(layer)
        if not isinstance(layer, HierarchicalLayer):
            return layer
        values = {f.name: getattr(layer, f.name) for f in dataclasses.fields(layer)} | {"reduces": False}
        made: Layer = type(kind.__name__, (defect, kind), {})(**values)
        return made

    def build(*arguments: Any, **options: Any) -> Network:
        network = hierarchical.build(*arguments, **options)
        network.table = tuple(map(defective, network.table))
        return network

    return build


def make_layers(monkeypatch: pytest.MonkeyPatch, made: Callable[..., Any]) -> None:
    """Let every layer without factors in between be a function of x, w, bias, axes, and options of `convolve`."""

    def made_by(self: HierarchicalLayer, filters: Any, x: Any) -> Signal:
        return Signal(made(x, filters["w"], filters["bias"], self._axes, **self._options))

    monkeypatch.setattr(HierarchicalLayer, "made_by", made_by)
