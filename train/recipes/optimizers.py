"""Optimisers: the state each keeps, and how it changes arrays by their gradients (section 4.2, and others)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from autodiff import tree_map
from hcnn_core.backend import Array
from hcnn_core.updates import adamw_update, muon_update_all, sgd_update_all
from train.settings import ConfigError, RunSettings, Section, setting

Tree = dict[str, dict[str, Array]]
OptimizerState = dict[str, list[Array]]
"""An optimiser's state: arrays for each weight, by name."""


class DecaySettings(RunSettings):
    """Settings of optimisers that make weights smaller."""

    weight_decay: float = setting(
        2e-4, "added to the gradient, or to the direction made of it, per unit of filter coefficient", low=0.0
    )
    decay_scales: bool = setting(False, "weight decay of scales too: of normalised outputs, and of the logits")


class MomentumSettings(DecaySettings):
    """Settings of optimisers with momentum."""

    momentum: float = setting(
        0.9, "part kept of the last update; of the running gradients, where running squares are kept", low=0.0, high=1.0
    )


class NesterovSettings(MomentumSettings):
    """Settings of optimisers that can look ahead."""

    nesterov: bool = setting(False, "Nesterov's momentum")


class SquareSettings(MomentumSettings):
    """Settings of optimisers that keep running squares."""

    square_decay: float = setting(0.999, "part kept of the running squares of gradients", low=0.0, high=0.99999)


class Parameter(NamedTuple):
    """An array that is trained."""

    array: Array
    kind: Literal["filter", "scale", "bias"] = "bias"  # weight decay acts on filters, and on scales where that is set
    row_axes: int | None = None  # how many of its first axes are rows where it is taken for a matrix; None: all but one


class Progress(NamedTuple):
    """The rate and number of a step; on a GPU arrays without axes, since a recorded step reads them anew."""

    rate: float | Array  # learning rate
    step: float | Array  # the number of this step, from 1


Update = Callable[
    [Any, Progress, Sequence[Parameter], Sequence[Array], OptimizerState], tuple[Sequence[Array], OptimizerState]
]


class Optimizer(NamedTuple):
    """An optimiser: its state and its update of weights by gradients."""

    keeps: tuple[str, ...]
    """Names of its state's arrays, each in the shape of a weight; zeros before the first step."""
    update: Update
    """Weights and state after a step, from settings, progress, weights, gradients and state; none is changed."""
    sections: tuple[type[Section], ...] = ()
    """Its settings beside those of every run."""
    check: Callable[[Any], None] = lambda settings: None
    """Raises ConfigError where its settings contradict each other."""
    direction: Callable[..., Array] = lambda *arrays: -arrays[0]
    """The direction in which a weight moves, downhill, from the optimiser's state alone; its length means nothing."""


def initial_state(settings: OptimizerSettings, weights: Tree) -> dict[str, Tree]:
    """Return an optimiser's state before the first step, on the host: a tree like the weights for each name."""
    return {name: tree_map(np.zeros_like, weights) for name in OPTIMIZERS[settings.optimizer].keeps}


def direction(settings: OptimizerSettings, state: Mapping[str, Tree]) -> Tree:
    """Return the optimiser's direction, downhill: a tree like the weights, whose lengths mean nothing."""
    kind = OPTIMIZERS[settings.optimizer]
    tree: Tree = tree_map(kind.direction, *(state[name] for name in kind.keeps))
    return tree


def updated(
    settings: OptimizerSettings,
    progress: Progress,
    parameters: Mapping[str, Mapping[str, Parameter]],
    gradients: Tree,
    state: Mapping[str, Tree],
) -> tuple[Tree, dict[str, Tree]]:
    """Return weights and the optimiser's state after a step, as trees by layer and name."""
    places = [(layer, name) for layer, arrays in parameters.items() for name in arrays]

    def tree(arrays: Iterable[Array]) -> Tree:
        result: Tree = {}
        for (layer, name), array in zip(places, arrays, strict=True):
            result.setdefault(layer, {})[name] = array
        return result

    moved, memory = OPTIMIZERS[settings.optimizer].update(
        settings,
        progress,
        [parameters[layer][name] for layer, name in places],
        [gradients[layer][name] for layer, name in places],
        {kind: [arrays[layer][name] for layer, name in places] for kind, arrays in state.items()},
    )
    return tree(moved), {kind: tree(arrays) for kind, arrays in memory.items()}


def _decays(settings: DecaySettings, parameters: Sequence[Parameter]) -> list[float]:
    decaying = ("filter", "scale") if settings.decay_scales else ("filter",)
    return [float(settings.weight_decay) if p.kind in decaying else 0.0 for p in parameters]


def _momentum(update_all: Callable[..., Any], **options: Callable[[Parameter], Any]) -> Update:
    """Make an update of all weights at once with velocities; `options` give an option of each weight."""

    def update(
        settings: NesterovSettings,
        progress: Progress,
        parameters: Sequence[Parameter],
        gradients: Sequence[Array],
        state: OptimizerState,
    ) -> tuple[Sequence[Array], OptimizerState]:
        moved, velocities = update_all(
            [p.array for p in parameters],
            gradients,
            state["velocity"],
            rate=progress.rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decays=_decays(settings, parameters),
            **{option: [of(p) for p in parameters] for option, of in options.items()},
        )
        return moved, {"velocity": velocities}

    return update


def _adamw(
    settings: SquareSettings,
    progress: Progress,
    parameters: Sequence[Parameter],
    gradients: Sequence[Array],
    state: OptimizerState,
) -> tuple[Sequence[Array], OptimizerState]:
    """Take a step by running means of gradients and their squares; weights decay apart from them."""
    decays = _decays(settings, parameters)
    steps = [
        adamw_update(
            p.array,
            *arrays,
            rate=progress.rate,
            step=progress.step,
            betas=(settings.momentum, settings.square_decay),
            epsilon=EPSILON,
            weight_decay=decay,
        )
        for p, decay, *arrays in zip(parameters, decays, gradients, state["mean"], state["square"], strict=True)
    ]
    moved, means, squares = zip(*steps, strict=True)
    return moved, {"mean": list(means), "square": list(squares)}


def running_means(*names: str) -> Callable[[OptimizerSettings], None]:
    """Return a check that these settings, the parts that running means keep, are less than 1."""

    def check(settings: OptimizerSettings) -> None:
        for name in names:
            if vars(settings)[name] == 1:
                raise ConfigError(f"{name} is 1; an optimizer with running means takes less than 1")

    return check


EPSILON = 1e-8
"""Added to the roots of running squares."""

VELOCITY = MomentumSettings, NesterovSettings, DecaySettings

OPTIMIZERS: dict[str, Optimizer] = {
    # Momentum as the authors' framework has it: the velocity moves the weights and holds the learning rate.
    "sgd": Optimizer(("velocity",), _momentum(sgd_update_all), VELOCITY, direction=lambda velocity: velocity),
    # Momentum made semi-orthogonal. Every array is the matrix of a linear map.
    "muon": Optimizer(("velocity",), _momentum(muon_update_all, row_axes=lambda p: p.row_axes), VELOCITY),
    "adamw": Optimizer(
        ("mean", "square"),
        _adamw,
        (MomentumSettings, SquareSettings, DecaySettings),
        running_means("momentum", "square_decay"),
        lambda mean, square: -mean / (np.sqrt(square) + EPSILON),
    ),
}


class OptimizerSettings(RunSettings):
    """How weights follow from gradients."""

    optimizer: str = setting("sgd", "how weights follow from gradients", choices=OPTIMIZERS.keys())
