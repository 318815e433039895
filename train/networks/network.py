"""A network: a table of layers, and the walk through it."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hcnn_core.backend import Array
from hcnn_core.shards import Shard
from train.networks.layer import IMAGES, Call, Layer, Moments, Parameters, Signal, State, Weights, times
from train.pages import Table
from train.settings import RunSettings


class Network:
    """Layers on arrays of any backend, traced or not; their weights are arguments."""

    def __init__(
        self,
        config: RunSettings,
        table: Sequence[Layer],
        image_shape: tuple[int, ...],
        classes: int,
        notes: Sequence[str] = (),
        fallbacks: Sequence[str] = (),
    ) -> None:
        self.config: Any = config  # a train.config.Config, which this package may not import
        self.table, self.classes, self.notes = tuple(table), classes, tuple(notes)
        self.image_shape = image_shape
        """Lengths of the axes of space of the images it is made for, and channels."""
        self.fallbacks = tuple(fallbacks)
        """Sentences about what it computes more slowly than is possible."""
        self._shard: Shard | None = None
        self._noise: Weights = {}
        names = {IMAGES}
        self._last_reader: dict[str, str] = {}
        for layer in self.table:
            if layer.name in names or not names >= set(layer.reads):
                raise ValueError(f"layer {layer.name} reads {layer.reads}; above it are {', '.join(sorted(names))}")
            names.add(layer.name)
            self._last_reader |= dict.fromkeys(layer.reads, layer.name)

    def __getitem__(self, name: str) -> Layer:
        """Return the layer of a name."""
        return next(layer for layer in self.table if layer.name == name)

    def in_step(self, shard: Shard | None, noise: Weights) -> Network:
        """Return the network for a step of training: moments are those of a whole batch, `noise` what was drawn."""
        network = copy.copy(self)
        network._shard, network._noise = shard, noise
        return network

    def noise(self, rng: np.random.Generator, count: int) -> Weights:
        """Draw the random numbers of a step on `count` images, uniform from 0 to 1, by layer, on the host."""
        shapes = {layer.name: layer.noise() for layer in self.table}
        return {name: rng.random((count, *shape), np.float32) for name, shape in shapes.items() if shape}

    def initialize(self, rng: np.random.Generator) -> Parameters:
        """Draw initial weights on the host."""
        drawn = {layer.name: layer.initialize(rng) for layer in self.table}
        return {name: weights for name, weights in drawn.items() if weights}

    def initial_moments(self) -> Moments:
        """Return the running moments before the first step, on the host."""
        return {layer.name: moments for layer in self.table if (moments := layer.moments())}

    def trace(
        self,
        parameters: Parameters,
        x: Array | State,
        moments: Moments | None = None,
        *,
        whole: Collection[str] | None = None,
    ) -> Iterator[tuple[Layer, Array, Weights]]:
        """Yield each layer, its output, and the moments it was normalised by.

        `x` is standardised images (N, u1, .., channels), or a state: outputs of layers by name. The walk then begins
        after the last of these, and a layer that reads another output fails with a KeyError. `moments` are for
        evaluation; without them the batch's own are used (training). An output is kept as long as a later layer reads
        it. If `whole` names layers, other layers of which only the marginal is read yield None.
        """
        outputs: State = x if isinstance(x, Mapping) else {IMAGES: x}
        state = {name: Signal(array) for name, array in outputs.items()}
        names = [layer.name for layer in self.table]
        begin = max((names.index(name) + 1 for name in state if name != IMAGES), default=0)
        for layer in self.table[begin:]:
            signal, used = layer(
                layer.weights_in(parameters),
                [state[name] for name in layer.reads],
                moments.get(layer.name) if moments is not None else None,
                Call(self._shard, self._noise.get(layer.name), whole is None or layer.name in whole),
            )
            for name in layer.reads:
                if self._last_reader[name] == layer.name:
                    state.pop(name, None)
            state[layer.name] = signal
            yield layer, signal.x, used

    def output(self, name: str, parameters: Parameters, x: Array | State, moments: Moments) -> Array:
        """Return the named layer's output for standardised images or a state, in evaluation mode."""
        return next(y for layer, y, _ in self.trace(parameters, x, moments) if layer.name == name)

    def __call__(
        self, parameters: Parameters, x: Array | State, moments: Moments | None = None
    ) -> tuple[Array, Moments]:
        """Return the logits (N, C) of standardised images or of a state, and the moments used, by layer."""
        return self.with_maps(parameters, x, moments)[:2]

    def with_maps(
        self, parameters: Parameters, x: Array | State, moments: Moments | None = None, *, at: Collection[str] = ()
    ) -> tuple[Array, Moments, list[Array]]:
        """Return logits, moments, and the attention maps (N, u1, ..) of the layers that `at` names, in its order.

        A map is the sum of squares over all that is not space, equation (1) of arXiv:1612.03928.
        """
        used: Moments = {}
        maps: dict[str, Array] = {}
        y: Any = x
        for layer, y, statistics in self.trace(parameters, x, moments, whole=at):
            if statistics:
                used[layer.name] = statistics
            if layer.name in at:
                maps[layer.name] = np.sum(np.square(y), axis=tuple(range(len(self.image_shape), y.ndim)))
        return y, used, [maps[name] for name in at]

    @property
    def stages(self) -> dict[tuple[int, ...], str]:
        """The last layer at each size of space that has several places."""
        axes = len(self.image_shape) - 1
        layers = {layer.outputs[:axes]: layer.name for layer in self.table if len(layer.outputs) > axes}
        return {size: name for size, name in layers.items() if math.prod(size) > 1}

    def opened(self, parameters: Parameters, moments: Moments) -> Network:
        """Return the network for evaluation with these weights, its filters merged once; calls take them too."""
        network = copy.copy(self)
        network.table = tuple(la.opened(la.weights_in(parameters), moments.get(la.name, {})) for la in self.table)
        return network

    def merged(self, parameters: Parameters, moments: Moments) -> Parameters:
        """Return the weights that the layers fold into at evaluation, see `Layer.merged`."""
        filters = {la.name: la.merged(la.weights_in(parameters), moments.get(la.name, {})) for la in self.table}
        return {name: weights for name, weights in filters.items() if weights}

    def folded(self) -> Network:
        """Return the network for the result of `merged`: the same walk, with nothing left to normalise."""
        network = copy.copy(self)
        network.table = tuple(layer.folded() for layer in self.table)
        return network

    def apply_merged(self, merged: Parameters, x: Array) -> Array:
        """Return the logits (N, C) by merged weights, from `merged` or in its shapes."""
        return self.folded()(merged, x)[0]

    def describe(self) -> str:
        """Return the table as text: axes, support, stride, parameters, GMAC and memory per layer, totals."""
        size = np.dtype(self.config.dtype).itemsize * self.config.batch_size / 2**20
        outputs = sum(math.prod(la.outputs) for la in self.table) * size
        digits, digits_of_memory = 4 if self.multiply_adds > 1e7 else 6, 1 if outputs > 10 else 3
        header = "layer", "input", "support", "stride", "output", "parameters", "GMAC", "MiB/batch"
        rows = []
        for la in self.table:
            products = f"{la.multiply_adds / 1e9:.{digits}f}" if la.multiply_adds else ""
            memory = f"{math.prod(la.outputs) * size:.{digits_of_memory}f}"
            counted = f"{la.counted:,}" if la.counted else ""
            axes = times(la.inputs), la.support, la.steps, times(la.outputs)
            title = la.label.removeprefix("layer ") if la.label.startswith("layer ") else la.name
            rows.append((title, *axes, counted, products, memory))
        totals = f"{self.counted:,}", f"{self.multiply_adds / 1e9:.{digits}f}", f"{outputs:.{digits_of_memory}f}"
        rows.append(("all", "", "", "", "", *totals))
        lines = [
            Table(header, rows).text(),
            "",
            *self.notes,
            *self.fallbacks,
            f"Trainable numbers, with biases, scales and the head: {self.trainable:,}.",
            "GMAC: 10^9 multiply-adds per image, were the filters applied tap by tap. MiB: outputs of one batch.",
        ]
        return "\n".join(lines)

    @property
    def counted(self) -> int:
        """Numbers that count as its parameters: coefficients of the merged filters, where filters are merged."""
        return sum(layer.counted for layer in self.table)

    @property
    def multiply_adds(self) -> int:
        """Products per image."""
        return sum(layer.multiply_adds for layer in self.table)

    @property
    def trainable(self) -> int:
        """Numbers in what `initialize` returns, without making it."""
        return sum(layer.trainable for layer in self.table)
