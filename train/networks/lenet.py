"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998).

Section II.B there: convolutions by 5 x 5 taps where they see no border, averages of 2 x 2 samples with a coefficient
and a bias for each map, and dense layers, with a sigmoid after each. What differs: the last layer is dense, where the
paper has distances from fixed drawings of digits; images may have several channels, and sides larger than 32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autodiff import convolve, getval, marginal
from hcnn_core.backend import Array, DeviceTables
from hcnn_core.shards import Shard
from train.config import Config, ConfigError
from train.networks.network import Moments, Parameters, aligned

__all__ = ["CONNECTIONS", "LeNet", "LeNetLayer", "squash"]

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


@dataclass(frozen=True)
class LeNetLayer:
    """One row of the table."""

    j: int  # its number, from 1
    name: str  # C for convolutions, S for averages, F for dense layers, with the paper's number; or "output"
    inputs: tuple[int, ...]  # lengths of the axes of an image: u1, u2, maps; of dense layers units alone
    outputs: tuple[int, ...]
    connections: int  # pairs of maps, or units, of which the second sees the first

    @property
    def factors(self) -> int:
        """Q of Eq. (8) of arXiv:1703.04140: 0, since no filter is factored."""
        return 0

    @property
    def trained(self) -> int:
        """Trainable numbers, biases included, as the paper counts them."""
        taps = TAPS**2 if self.name.startswith("C") else 1
        return taps * self.connections + self.outputs[-1]

    parameters = trained
    """What is counted of a network is what is trained."""

    @property
    def multiply_adds(self) -> int:
        """Products per image."""
        taps = TAPS**2 if self.name.startswith("C") else 1
        return taps * self.connections * math.prod(self.outputs[:-1])


def squash(x: Array) -> Array:
    """Return the paper's sigmoid, 1.7159 tanh(2 x / 3) (appendix A)."""
    return 1.7159 * np.tanh(x * (2 / 3))


class LeNet:
    """LeNet-5 on arrays of any backend, traced or not, with the methods that training asks of `Network`."""

    def __init__(
        self, config: Config, image_size: int | tuple[int, int] = 32, classes: int = 10, channels: int = 3
    ) -> None:
        rows, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        _require_size(rows, columns)
        self.config, self.classes, self.image_shape = config, classes, (rows, columns, channels)
        shape: tuple[int, ...] = self.image_shape
        self.table: list[LeNetLayer] = []
        for name, maps in {"C1": 6, "S2": 6, "C3": 16, "S4": 16, "C5": 120, "F6": 84, "output": classes}.items():
            made: tuple[int, ...] = (maps,)
            seen = shape[-1] * maps
            if name.startswith("C"):
                made = (shape[0] - TAPS + 1, shape[1] - TAPS + 1, maps)
            elif name.startswith("S"):
                made, seen = (shape[0] // 2, shape[1] // 2, maps), maps
            else:
                shape = shape[-1:]  # the mean over positions, of which 32 x 32 pixels leave one
            if name == "C3":
                seen = int(CONNECTIONS.sum())
            self.table.append(LeNetLayer(len(self.table) + 1, name, shape, made, seen))
            shape = made

    def on_shard(self, shard: Shard) -> LeNet:
        """Return the network for one part of a batch: itself, since images do not depend on each other."""
        return self

    def initialize(self, rng: np.random.Generator) -> Parameters:
        """Draw initial weights on the host.

        They are normal with the variance 1 / inputs of a unit, which suits this sigmoid (LeCun, Bottou, Orr and Müller,
        Efficient BackProp, 1998, section 4.6). The paper's own, uniform within 2.4 / inputs, are so small that gradient
        descent without its second derivatives hardly begins. Scales are 1, biases 0.
        """
        dtype = self.config.dtype
        parameters: Parameters = {}
        for layer in self.table:
            given, made = layer.inputs[-1], layer.outputs[-1]
            weights: dict[str, Array] = {"bias": np.zeros(made, dtype)}
            if layer.name.startswith("S"):
                weights["scale"] = np.ones(made, dtype)
            elif layer.name.startswith("C"):
                seen = np.broadcast_to(self._seen(layer)[:, None, None, :], (given, TAPS, TAPS, made))
                drawn = rng.standard_normal(seen.shape) * seen
                weights["w"] = (drawn / np.sqrt(seen.sum(axis=(0, 1, 2)))).astype(dtype)
            else:
                weights["w"] = (rng.standard_normal((given, made)) / math.sqrt(given)).astype(dtype)
            parameters[layer.name] = weights
        return parameters

    def initial_moments(self) -> Moments:
        """Return no running moments, since nothing is normalised."""
        return {}

    def trace(
        self, parameters: Parameters, x: Array, moments: Moments | None = None
    ) -> Iterator[tuple[LeNetLayer, Array, dict[str, Array]]]:
        """Yield each layer with its output."""
        _require_size(*x.shape[1:3])
        for layer in self.table:
            weights = parameters[layer.name]
            if layer.name.startswith("C"):
                w = weights["w"] * self._mask(layer, getval(x)) if layer.name == "C3" else weights["w"]
                whole = convolve(x, w, SPACE, sum_axes=3, boundary="zero")
                x = squash(whole[:, 2:-2, 2:-2] + weights["bias"])  # what saw a border goes
            elif layer.name.startswith("S"):
                n, rows, columns, maps = x.shape
                blocks = np.reshape(x, (n, rows // 2, 2, columns // 2, 2, maps))
                x = squash(marginal(blocks, (2, 4), reduction="mean") * weights["scale"] + weights["bias"])
            else:
                x = marginal(x, SPACE, reduction="mean") if x.ndim == 4 else x
                x = x @ weights["w"] + weights["bias"]
                x = squash(x) if layer.name == "F6" else x
            yield layer, x, {}

    def __call__(self, parameters: Parameters, x: Array, moments: Moments | None = None) -> tuple[Array, Moments]:
        """Return the logits (N, C) of standardised images (N, u1, u2, channels), and no moments."""
        *_, (_, logits, _) = self.trace(parameters, x)
        return logits, {}

    def logits(self, parameters: Parameters, x: Array) -> Array:
        """Return what the last layer made, which are the logits."""
        return x

    def describe(self) -> str:
        """Return the table as text: axes, support, trainable numbers, GMAC and memory per layer, totals."""
        size = np.dtype(self.config.dtype).itemsize * self.config.batch_size / 2**20
        support = {"C": f"{TAPS}x{TAPS}", "S": "2x2 mean"}
        rows = [("layer", "input", "support", "output", "parameters", "GMAC", "MiB/batch")]
        for la in self.table:
            axes = ["x".join(map(str, lengths)) for lengths in (la.inputs, la.outputs)]
            figures = f"{la.trained:,}", f"{la.multiply_adds / 1e9:.5f}", f"{math.prod(la.outputs) * size:.2f}"
            rows.append((la.name, axes[0], support.get(la.name[0], ""), axes[1], *figures))
        trained, products = (sum(getattr(la, key) for la in self.table) for key in ("trained", "multiply_adds"))
        memory = sum(math.prod(la.outputs) for la in self.table) * size
        rows.append(("all", "", "", "", f"{trained:,}", f"{products / 1e9:.5f}", f"{memory:.2f}"))
        return "\n".join(
            [
                *aligned(rows),
                "",
                f"Trainable numbers, with biases: {trained:,}; C3 sees {CONNECTIONS.sum()} of {CONNECTIONS.size} pairs "
                "of maps.",
                "GMAC: 10^9 multiply-adds per image. MiB: outputs of one batch.",
            ]
        )

    def _seen(self, layer: LeNetLayer) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which maps (rows) each map of a convolution (columns) sees."""
        return CONNECTIONS if layer.name == "C3" else np.ones((layer.inputs[-1], layer.outputs[-1]), bool)

    def _mask(self, layer: LeNetLayer, like: Array) -> Array:
        """The same as factors of filters, on the device of an array."""
        dtype = self.config.dtype
        found: Array = _placed.beside(like, (layer.name, dtype), lambda: self._seen(layer)[:, None, None].astype(dtype))
        return found


def _require_size(rows: int, columns: int) -> None:
    if any(side < SMALLEST or side % MULTIPLE for side in (rows, columns)):
        raise ConfigError(
            f"images are {rows}x{columns}; LeNet-5 takes sides of at least {SMALLEST} pixels that are multiples of "
            f"{MULTIPLE}"
        )
