"""Optimisers: each is an initial state, and an update of weights and state by gradients (section 4.2, and others)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from autodiff import tree_map
from hcnn_core.backend import Array
from hcnn_core.updates import adamw_update, muon_update_all, sgd_update_all
from train.settings import ConfigError, Section, setting

__all__ = ["DECAYED", "OPTIMIZERS", "Optimizer", "Progress"]

Tree = dict[str, dict[str, Array]]
OptimizerState = dict[str, Tree]
"""What an optimiser keeps of each weight: trees in the structure of the weights, by name."""

DECAYED = ("w", "h", "g")
"""Weights that decay: filter coefficients, not biases and not the scale of the logits."""


@dataclass(frozen=True)
class MomentumSettings(Section):
    """Settings of optimisers with momentum."""

    momentum: float = setting(0.9, "part of the last update kept (adamw: of the running gradients)", low=0.0, high=1.0)


@dataclass(frozen=True)
class NesterovSettings(Section):
    """Settings of optimisers that can look ahead."""

    nesterov: bool = setting(False, "Nesterov's momentum")


@dataclass(frozen=True)
class SquareSettings(Section):
    """Settings of optimisers that keep running squares."""

    square_decay: float = setting(
        0.999, "part of the running squares of gradients kept at each step of adamw", low=0.0, high=0.99999
    )


@dataclass(frozen=True)
class DecaySettings(Section):
    """Settings of optimisers that make weights smaller."""

    weight_decay: float = setting(
        2e-4, "added to the gradient (muon, adamw: the direction) per unit of filter coefficient", low=0.0
    )


class Progress(NamedTuple):
    """Where a step stands; on a GPU arrays without axes, since a recorded step reads them anew."""

    rate: float | Array  # learning rate
    step: float | Array  # the number of this step, from 1


Update = Callable[[Any, Progress, Tree, OptimizerState, Tree], tuple[Tree, OptimizerState]]


class Optimizer(NamedTuple):
    """A pair of pure functions."""

    init: Callable[[Tree], OptimizerState]
    """The state before the first step, on the host."""
    update: Update
    """Weights and state after a step, from settings, progress, gradients, state and weights; none is changed."""
    sections: tuple[type[Section], ...] = ()
    """What settings it takes beside those of every run."""
    check: Callable[[Any], None] = lambda settings: None
    """Raises ConfigError where its settings contradict each other."""


def _zeros(*names: str) -> Callable[[Tree], OptimizerState]:
    return lambda weights: {name: tree_map(np.zeros_like, weights) for name in names}


def _decay(settings: Any, name: str) -> float:
    return float(settings.weight_decay) if name in DECAYED else 0.0


def _momentum(update_all: Callable[..., Any], **options: Callable[[str], Any]) -> Update:
    """Make a step of all arrays at once, which keeps velocities; options are of each array, by its name."""

    def update(
        settings: Any, progress: Progress, gradients: Tree, state: OptimizerState, weights: Tree
    ) -> tuple[Tree, OptimizerState]:
        places = [(layer, name) for layer, arrays in weights.items() for name in arrays]
        moved, velocities = update_all(
            *([tree[layer][name] for layer, name in places] for tree in (weights, gradients, state["velocity"])),
            rate=progress.rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decays=[_decay(settings, name) for _, name in places],
            **{option: [of(name) for _, name in places] for option, of in options.items()},
        )
        return _tree(places, moved), {"velocity": _tree(places, velocities)}

    return update


def _adamw(
    settings: Any, progress: Progress, gradients: Tree, state: OptimizerState, weights: Tree
) -> tuple[Tree, OptimizerState]:
    """Steps by running means of gradients and their squares; weights decay apart from them."""
    places = [(layer, name) for layer, arrays in weights.items() for name in arrays]
    found = [
        adamw_update(
            *(tree[layer][name] for tree in (weights, gradients, state["mean"], state["square"])),
            rate=progress.rate,
            step=progress.step,
            betas=(settings.momentum, settings.square_decay),
            weight_decay=_decay(settings, name),
        )
        for layer, name in places
    ]
    moved, means, squares = (_tree(places, [arrays[k] for arrays in found]) for k in range(3))
    return moved, {"mean": means, "square": squares}


def _tree(places: list[tuple[str, str]], arrays: Any) -> Tree:
    """Arrays in the structure of the weights."""
    found: Tree = {}
    for (layer, name), array in zip(places, arrays, strict=True):
        found.setdefault(layer, {})[name] = array
    return found


def _check_means(settings: Any) -> None:
    if settings.momentum == 1:
        raise ConfigError(f"momentum is 1; optimizer {settings.optimizer} takes less than 1")


VELOCITY = MomentumSettings, NesterovSettings, DecaySettings

OPTIMIZERS: dict[str, Optimizer] = {
    # Momentum as the authors' framework has it: the velocity moves the weights and holds the learning rate.
    "sgd": Optimizer(_zeros("velocity"), _momentum(sgd_update_all), VELOCITY),
    # Momentum made semi-orthogonal. Every array is the matrix of a linear map: h leads from the taps of a patch to the
    # factors, w and g from everything before the last axis to the filters.
    "muon": Optimizer(
        _zeros("velocity"), _momentum(muon_update_all, row_axes=lambda name: 1 if name == "h" else None), VELOCITY
    ),
    "adamw": Optimizer(
        _zeros("mean", "square"), _adamw, (MomentumSettings, SquareSettings, DecaySettings), _check_means
    ),
}
