"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998).

Section II.B there: convolutions by 5 x 5 taps where they see no border, averages of 2 x 2 samples with a coefficient
and a bias for each map, and dense layers, with a sigmoid after each. What differs: the last layer is dense, where the
paper has distances from fixed drawings of digits; images may have several channels, and sides larger than 32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autodiff import convolve, getval, marginal
from hcnn_core.backend import Array, DeviceTables
from train.networks.architecture import ATTRIBUTES, MERGED_FILTERS, Architecture
from train.networks.layer import IMAGES, Layer, Weights
from train.networks.network import Network
from train.settings import ConfigError

__all__ = ["ARCHITECTURE", "CONNECTIONS", "build", "squash"]

SPACE = (1, 2)
TAPS = 5
"""Of a filter, along each space axis."""

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


_placed = DeviceTables()


def squash(x: Array) -> Array:
    """Return the paper's sigmoid, 1.7159 tanh(2 x / 3) (appendix A)."""
    return 1.7159 * np.tanh(x * (2 / 3))


class _LeNetLayer(Layer):
    """A layer with a bias for each map or unit."""

    copies = 6.0

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], outputs: tuple[int, ...], dtype: str) -> None:
        self.name, self.reads, self.inputs, self.outputs, self.dtype = name, (reads,), inputs, outputs, dtype

    @property
    def taps(self) -> int:
        """Coefficients of each connection."""
        return 1

    @property
    def connections(self) -> int:
        """Pairs of maps, or units, of which the second sees the first."""
        return self.inputs[-1] * self.outputs[-1]

    @property
    def trainable(self) -> int:  # type: ignore[override]
        """Trainable numbers, biases included, as the paper counts them."""
        return self.taps * self.connections + self.outputs[-1]

    @property
    def multiply_adds(self) -> int:  # type: ignore[override]
        """Products per image."""
        return self.taps * self.connections * math.prod(self.outputs[:-1])

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw normal weights with the variance 1 / inputs of a unit; biases are 0.

        This suits the sigmoid (LeCun, Bottou, Orr and Müller, Efficient BackProp, 1998, section 4.6). The paper's own
        weights, uniform within 2.4 / inputs, are so small that gradient descent without its second derivatives hardly
        begins.
        """
        bias = np.zeros(self.outputs[-1], self.dtype)
        return {"bias": bias, **self._draw(rng)}

    def _draw(self, rng: np.random.Generator) -> Weights:
        given, made = self.inputs[-1], self.outputs[-1]
        return {"w": (rng.standard_normal((given, made)) / math.sqrt(given)).astype(self.dtype)}


class Convolution(_LeNetLayer):
    """5 x 5 taps where they see no border, and the sigmoid: C1, C3, C5."""

    support = f"{TAPS}x{TAPS}"
    taps = TAPS**2

    @property
    def seen(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which maps (rows) each map (columns) sees."""
        return CONNECTIONS if self.name == "C3" else np.ones((self.inputs[-1], self.outputs[-1]), bool)

    @property
    def connections(self) -> int:
        """Those of Table I at C3."""
        return int(self.seen.sum())

    def _draw(self, rng: np.random.Generator) -> Weights:
        shape = self.inputs[-1], TAPS, TAPS, self.outputs[-1]
        seen = np.broadcast_to(self.seen[:, None, None, :], shape)
        drawn = rng.standard_normal(seen.shape) * seen
        return {"w": (drawn / np.sqrt(seen.sum(axis=(0, 1, 2)))).astype(self.dtype)}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        """Return maps (N, u1, u2, maps) or units (N, units)."""
        (x,) = inputs
        if self.name == "C1":
            _require_size(*x.shape[1:3])
        w = weights["w"] * self._mask(getval(x)) if self.name == "C3" else weights["w"]
        whole = convolve(x, w, SPACE, sum_axes=3, boundary="zero")
        return squash(whole[:, 2:-2, 2:-2] + weights["bias"])  # what saw a border goes

    def _mask(self, like: Array) -> Array:
        """Which maps are seen, as factors of filters, on the device of an array."""
        key = self.name, self.dtype
        found: Array = _placed.beside(like, key, lambda: self.seen[:, None, None].astype(self.dtype))
        return found


class Average(_LeNetLayer):
    """Averages of 2 x 2 samples by a coefficient for each map, and the sigmoid: S2, S4."""

    support = "2x2 mean"

    @property
    def connections(self) -> int:
        """Each map sees its own."""
        return self.outputs[-1]

    def _draw(self, rng: np.random.Generator) -> Weights:
        return {"scale": np.ones(self.outputs[-1], self.dtype)}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        """Return maps (N, u1, u2, maps) or units (N, units)."""
        (x,) = inputs
        n, rows, columns, maps = x.shape
        blocks = np.reshape(x, (n, rows // 2, 2, columns // 2, 2, maps))
        return squash(marginal(blocks, (2, 4), reduction="mean") * weights["scale"] + weights["bias"])


class Dense(_LeNetLayer):
    """Every unit sees every one, of maps their mean over positions: F6, with the sigmoid, and the output."""

    @property
    def tells_classes(self) -> bool:  # type: ignore[override]
        """The output does."""
        return self.name == "output"

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        """Return maps (N, u1, u2, maps) or units (N, units)."""
        (x,) = inputs
        x = marginal(x, SPACE, reduction="mean") if x.ndim == 4 else x
        x = x @ weights["w"] + weights["bias"]
        return squash(x) if self.name == "F6" else x


def build(config: Any, image_size: int | tuple[int, int] = 32, classes: int = 10, channels: int = 3) -> Network:
    """Return LeNet-5; ConfigError if images are smaller than 32 x 32, or a side is no multiple of 4."""
    rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
    _require_size(rows, columns)
    shape: tuple[int, ...] = (rows, columns, channels)
    table: list[_LeNetLayer] = []
    for name, maps in {"C1": 6, "S2": 6, "C3": 16, "S4": 16, "C5": 120, "F6": 84, "output": classes}.items():
        kind: type[_LeNetLayer] = {"C": Convolution, "S": Average}.get(name[0], Dense)
        made: tuple[int, ...] = (maps,)
        if kind is Convolution:
            made = (shape[0] - TAPS + 1, shape[1] - TAPS + 1, maps)
        elif kind is Average:
            made = (shape[0] // 2, shape[1] // 2, maps)
        else:
            shape = shape[-1:]  # the mean over positions, of which 32 x 32 pixels leave one
        table.append(kind(name, table[-1].name if table else IMAGES, shape, made, config.dtype))
        shape = made
    note = f"C3 sees {CONNECTIONS.sum()} of {CONNECTIONS.size} pairs of maps."
    return Network(config, table, (rows, columns, channels), classes, [note])


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
