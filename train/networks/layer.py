"""Layers: each owns its weights, its moments, its forward pass and its row of the description."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hcnn_core.backend import Array
from hcnn_core.shards import Shard

IMAGES = "images"
"""The name under which layers read the network's input."""

Size = int | tuple[int, ...]
"""Lengths of the axes of space; one number stands for rows and columns."""

Weights = dict[str, Array]
"""Arrays of one layer by name. Weight decay makes those with several axes smaller: filters, not biases and scales."""

Parameters = dict[str, Weights]
"""Weights of every layer that has some, by the layer's name."""

Moments = dict[str, Weights]
"""Moments by which layers normalise, by the layer's name, in the shapes of `Layer.moments`."""


State = Mapping[str, Array]
"""Outputs of layers by their names, from which a walk goes on."""


class Signal(NamedTuple):
    """A layer's output."""

    x: Any
    """An array, or None where only its sum is wanted."""
    reduced: Array | None = None
    """The sum of x over the first attribute (Eq. 6), where the table asks the layer to make it on the way."""


class Call(NamedTuple):
    """The options of one pass."""

    shard: Shard | None = None
    """The part of a batch that this process has, where others have the rest: moments are of the whole batch."""
    noise: Array | None = None
    """Random numbers of the shape that `Layer.noise` asks for, uniform from 0 to 1; in steps of training alone."""
    whole: bool = True
    """Whether a layer's output is wanted; if not, a layer that makes its marginal on the way may leave it out."""


DEFAULT_CALL = Call()


class Layer:
    """One row of a network's table.

    A subclass sets the attributes below, and defines what it needs of the methods. Everything else (training,
    evaluation, checkpoints, ranks, the description, the estimate of memory) asks a layer for nothing more.
    """

    name: str
    """Key of its weights and moments."""

    reads: tuple[str, ...]
    """Names of the layers whose outputs it takes; `IMAGES` for the network's input."""

    inputs: tuple[int, ...]
    """Lengths of the axes of its first input, without the batch, of the images that the network is made for."""

    outputs: tuple[int, ...]
    """Lengths of the axes of its output, without the batch."""

    support: str = ""
    """Its filters, for the description."""

    steps: str = ""
    """Its strides, for the description."""

    trainable: int = 0
    """Numbers in what `initialize` returns."""

    multiply_adds: int = 0
    """Products per image."""

    row_axes: ClassVar[Mapping[str, int]] = {}
    """By the name of a weight that is the matrix of a linear map, how many of its first axes are its rows; by default
    all but the last."""

    tells_classes: bool = False
    """Whether its weights are of no use to a network of other classes."""

    copies: float = 2.5
    """Numbers that a step keeps until the backward pass has used them, per number of the output."""

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"layer {self.name}"

    @property
    def counted(self) -> int:
        """Numbers that the description counts as parameters."""
        return self.trainable

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw initial weights on the host."""
        return {}

    def weights_in(self, parameters: Parameters) -> Weights:
        """Return the weights of this layer from those of all layers."""
        return parameters.get(self.name, {})

    def moments(self) -> Weights:
        """Return running moments before the first step, on the host; a layer that normalises nothing has none."""
        return {}

    def noise(self) -> tuple[int, ...]:
        """Return the shape of the random numbers that a step of training needs for an image; of none, ()."""
        return ()

    def retained(self, batch_size: int) -> float:
        """Return how many of its numbers a step keeps until the backward pass has used them."""
        return self.copies * math.prod(self.outputs) * batch_size

    def workspace(self, batch_size: int) -> int:
        """Return how many numbers it needs while it computes, beside what it retains."""
        return 0

    def __call__(
        self, weights: Weights, inputs: Sequence[Signal], moments: Weights | None = None, call: Call = DEFAULT_CALL
    ) -> tuple[Signal, Weights]:
        """Return the output, and the moments it was normalised by.

        Without `moments` they are the batch's own (training). Layers without moments and noise define `apply` alone.
        """
        return Signal(self.apply(weights, *(signal.x for signal in inputs))), {}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        """Return the output of a layer that depends on its inputs and its weights alone."""
        raise NotImplementedError(f"{type(self).__name__} defines neither apply nor __call__")

    def opened(self, weights: Weights, moments: Weights) -> Layer:
        """Return the layer at evaluation with these weights; what depends on them alone is computed now."""
        return self

    def merged(self, weights: Weights, moments: Weights) -> Weights:
        """Return the weights that this layer folds into at evaluation; `folded` takes them."""
        return weights

    def folded(self) -> Layer:
        """Return the layer whose weights are the result of `merged`."""
        return self


def times(lengths: Sequence[int]) -> str:
    """Return lengths as the description shows them."""
    return "x".join(map(str, lengths))
