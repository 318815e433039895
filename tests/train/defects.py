"""Networks whose layers have a defect, which checks must notice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from train.networks import hierarchical
from train.networks.hierarchical import FactoredLayer, HierarchicalLayer, Kinds, NonlinearLayer
from train.networks.layer import Signal
from train.networks.network import Network


def with_layers(defect: type) -> Callable[..., Network]:
    """What builds networks whose layers inherit from a defect first."""
    kinds = (type(kind.__name__, (defect, kind), {}) for kind in (HierarchicalLayer, FactoredLayer, NonlinearLayer))
    return functools.partial(hierarchical.build, kinds=Kinds(*kinds, reduces=False))


def make_layers(monkeypatch: pytest.MonkeyPatch, made: Callable[..., Any]) -> None:
    """Let every layer without factors in between be a function of x, w, bias, axes, and options of `convolve`."""

    def made_by(self: HierarchicalLayer, filters: Any, x: Any) -> Signal:
        return Signal(made(x, filters["w"], filters["bias"], self._axes, **self._options))

    monkeypatch.setattr(HierarchicalLayer, "made_by", made_by)
