"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998).

Section II.B there: convolutions by 5 x 5 taps where they see no border, averages of 2 x 2 samples with a coefficient
and a bias for each map, and dense layers, with a sigmoid after each. What differs: the last layer is dense, where the
paper has distances from fixed drawings of digits; images may have several channels, and sides larger than 32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autodiff import getval, marginal
from hcnn_core.backend import Array, DeviceTables
from train.networks import plain
from train.networks.architecture import ATTRIBUTES, MERGED_FILTERS, Architecture
from train.networks.layer import IMAGES, Layer, Weights
from train.networks.network import Network
from train.settings import ConfigError, RunSettings

SPACE_AXES = (1, 2)
TAPS = 5
"""Taps of a filter along each space axis."""

SMALLEST, MULTIPLE = 32, 4
"""Sides of images are at least so long, and multiples of this, so that blocks of 2 x 2 samples fill every map."""

CONNECTIONS = np.array(
    [
        [mark == "X" for mark in row]
        for row in (
            "X...XXX..XXXX.XX",
            "XX...XXX..XXXX.X",
            "XXX...XXX..X.XXX",
            ".XXX..XXXX..X.XX",
            "..XXX..XXXX.XX.X",
            "...XXX..XXXX.XXX",
        )
    ]
)
"""Table I: which maps of S2 (rows) each map of C3 (columns) sees, (6, 16)."""


_masks = DeviceTables()


def squash(x: Array) -> Array:
    """Return the paper's sigmoid, 1.7159 tanh(2 x / 3) (appendix A)."""
    return 1.7159 * np.tanh(x * (2 / 3))


class SquashedConvolution(plain.Convolution):
    """5 x 5 taps where they see no border, and the sigmoid: C1, C3, C5."""

    copies = 6.0

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], maps: int, dtype: str) -> None:
        super().__init__(name, reads, inputs, maps, TAPS, bias=True, valid=True, dtype=dtype)
        self.seen = CONNECTIONS if name == "C3" else np.ones((inputs[-1], maps), bool)
        coefficients = TAPS**2 * int(self.seen.sum())
        self.trainable, self.multiply_adds = coefficients + maps, coefficients * math.prod(self.outputs[:-1])
        self.steps = ""

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw normal weights with the variance 1 / inputs of a unit; biases are 0.

        This suits the sigmoid (LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.6). The paper's own
        weights, uniform within 2.4 / inputs, are so small that gradient descent without its second derivatives hardly
        begins.
        """
        shape = self.inputs[-1], TAPS, TAPS, self.outputs[-1]
        seen = np.broadcast_to(self.seen[:, None, None, :], shape)
        w = rng.standard_normal(shape) * seen / np.sqrt(seen.sum(axis=(0, 1, 2)))
        return {"bias": np.zeros(shape[-1], self.dtype), "w": w.astype(self.dtype)}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        if self.name == "C1":
            _require_size(*inputs[0].shape[1:3])
        if self.name == "C3":
            # factors 0 and 1 of filters for the maps that they see
            mask = _masks.beside(getval(inputs[0]), self.dtype, lambda: self.seen[:, None, None].astype(self.dtype))
            weights = {**weights, "w": weights["w"] * mask}
        return squash(super().apply(weights, *inputs))


class Average(plain.Plain):
    """Averages of 2 x 2 samples by a coefficient and a bias for each map, and the sigmoid: S2, S4."""

    support, copies = "2x2 mean", 6.0

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], maps: int, dtype: str) -> None:
        super().__init__(name, (reads,), inputs, (inputs[0] // 2, inputs[1] // 2, maps))
        self.trainable, self.multiply_adds, self.dtype = 2 * maps, math.prod(self.outputs), dtype

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Return coefficients 1 and biases 0."""
        maps = self.outputs[-1]
        return {"bias": np.zeros(maps, self.dtype), "scale": np.ones(maps, self.dtype)}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        (x,) = inputs
        n, rows, columns, maps = x.shape
        blocks = np.reshape(x, (n, rows // 2, 2, columns // 2, 2, maps))
        return squash(marginal(blocks, (2, 4), reduction="mean") * weights["scale"] + weights["bias"])


class Dense(plain.Dense):
    """A dense layer on units, or on the means of maps: F6, with the sigmoid, and the output."""

    copies = 6.0

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], units: int, dtype: str) -> None:
        super().__init__(name, reads, inputs[-1:], units, dtype)  # the mean over positions, of which 32 x 32 leave one
        self.tells_classes = name == "output"

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        x = marginal(inputs[0], SPACE_AXES, reduction="mean") if inputs[0].ndim == 4 else inputs[0]
        x = super().apply(weights, x)
        return x if self.tells_classes else squash(x)


def build(config: RunSettings, size: tuple[int, int], classes: int = 10, channels: int = 3) -> Network:
    """Return LeNet-5; ConfigError if images are smaller than 32 x 32, or a side is no multiple of 4."""
    _require_size(*size)
    table: list[Layer] = []
    for name, maps in {"C1": 6, "S2": 6, "C3": 16, "S4": 16, "C5": 120, "F6": 84, "output": classes}.items():
        kind: type[Any] = {"C": SquashedConvolution, "S": Average}.get(name[0], Dense)
        reads, inputs = (table[-1].name, table[-1].outputs) if table else (IMAGES, (*size, channels))
        table.append(kind(name, reads, inputs, maps, config.dtype))
    note = f"C3 sees {CONNECTIONS.sum()} of {CONNECTIONS.size} pairs of maps."
    return Network(config, table, (*size, channels), classes, [note])


def _require_size(rows: int, columns: int) -> None:
    if any(side < SMALLEST or side % MULTIPLE for side in (rows, columns)):
        raise ConfigError(
            f"images are {rows}x{columns}; LeNet-5 takes sides of at least {SMALLEST} pixels that are multiples of "
            f"{MULTIPLE}"
        )


ARCHITECTURE = Architecture(
    title="LeNet-5",
    build=build,
    presets={"lenet": {"epochs": 30, "schedule": "one-cycle", "learning_rate": 0.03, "shift": 2}},
    lacks=frozenset({ATTRIBUTES, MERGED_FILTERS}),
)
"""61,150 trainable numbers on CIFAR-10. The preset's learning rate was the best of three on held-out images of the
sample (benchmarks/results/lenet/results.md); nothing else was varied."""
