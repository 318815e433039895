"""The layers of common convolutional networks, of which the baselines of Table 1 are made.

Arrays are (N, u1, u2, channels), later (N, units). Filters w are (channels, s, s, filters) and are convolved, so
PyTorch's, which are correlated, are these with both space axes reversed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodiff import convolve, marginal, max_pool, mean_pool, relu
from autodiff.primitives import rectified_and_moments
from hcnn_core.backend import Array
from train.networks.layer import DEFAULT_CALL, IMAGES, Call, Layer, Signal, Weights, times
from train.networks.skips import added_to
from train.settings import ConfigError

SPACE_AXES = (1, 2)


class Plain(Layer):
    """A layer of a `Table`."""

    def __init__(self, name: str, reads: Sequence[str], inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        self.name, self.reads, self.inputs, self.outputs = name, tuple(reads), inputs, outputs


class Convolution(Plain):
    """Filters summed over channels, with or without a bias; zeros beyond the ends, or only where filters see no end."""

    def __init__(
        self,
        name: str,
        reads: str,
        inputs: tuple[int, ...],
        filters: int,
        taps: int,
        *,
        stride: int = 1,
        bias: bool = False,
        valid: bool = False,
        dtype: str = "float32",
    ) -> None:
        self.crop = taps // 2 if valid else 0
        lengths = (-(-(n - 2 * self.crop) // stride) for n in inputs[:2])
        super().__init__(name, (reads,), inputs, (*lengths, filters))
        self.taps, self.stride, self.bias, self.dtype = taps, stride, bias, dtype
        self.support, self.steps = times((taps, taps)), times((stride, stride))
        coefficients = taps**2 * inputs[-1] * filters
        self.trainable = coefficients + bias * filters
        self.multiply_adds = coefficients * math.prod(self.outputs[:2])

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw normal filters with the variance 2 / terms (arXiv:1502.01852, Eq. (10)); biases are 0."""
        shape = self.inputs[-1], self.taps, self.taps, self.outputs[-1]
        w = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[:3]))
        bias = {"bias": np.zeros(shape[-1], self.dtype)} if self.bias else {}
        return {"w": w.astype(self.dtype), **bias}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        stride = 1 if self.crop else self.stride
        y = convolve(inputs[0], weights["w"], SPACE_AXES, sum_axes=3, boundary="zero", stride=stride)
        if self.crop:
            y = y[:, self.crop : -self.crop : self.stride, self.crop : -self.crop : self.stride]
        return added_to(y, weights["bias"]) if self.bias else y


class Flatten(Plain):
    """Maps as units, all of which the next dense layer reads: so the network takes images of one size."""

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...]) -> None:
        super().__init__(name, (reads,), inputs, (math.prod(inputs),))

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        return np.reshape(inputs[0], (inputs[0].shape[0], -1))


class Dense(Plain):
    """Units that are linear maps of all units before them."""

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], units: int, dtype: str) -> None:
        if len(inputs) != 1:
            raise ValueError(
                f"layer {name} is dense and reads maps {times(inputs)}: put flatten() or whole() before it"
            )
        super().__init__(name, (reads,), inputs, (units,))
        self.dtype = dtype
        self.multiply_adds = inputs[-1] * units
        self.trainable = self.multiply_adds + units

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Draw normal weights with the variance 1 / terms; biases are 0."""
        shape = self.inputs[-1], self.outputs[-1]
        w = rng.standard_normal(shape) / math.sqrt(shape[0])
        return {"w": w.astype(self.dtype), "bias": np.zeros(shape[1], self.dtype)}

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        return inputs[0] @ weights["w"] + weights["bias"]


class Normalization(Plain):
    """Batch normalisation of each channel (arXiv:1502.03167), with a learned scale and bias, and its ReLU.

    If it reads a second output, that is added before the ReLU, as by `Sum`.
    """

    def __init__(self, name: str, reads: Sequence[str], inputs: tuple[int, ...], epsilon: float, dtype: str) -> None:
        super().__init__(name, reads, inputs, inputs)
        self.support = "ReLU" if len(reads) == 1 else "sum, ReLU"
        self.epsilon, self.dtype = epsilon, dtype
        self.trainable = 2 * inputs[-1]

    def initialize(self, rng: np.random.Generator) -> Weights:
        """Return scales 1 and biases 0."""
        channels = self.inputs[-1]
        return {"scale": np.ones(channels, self.dtype), "bias": np.zeros(channels, self.dtype)}

    def moments(self) -> Weights:
        channels = self.inputs[-1]
        return {"output_mean": np.zeros(channels, self.dtype), "output_variance": np.ones(channels, self.dtype)}

    def __call__(
        self, weights: Weights, inputs: Sequence[Signal], moments: Weights | None = None, call: Call = DEFAULT_CALL
    ) -> tuple[Signal, Weights]:
        (x, _), scale, bias = inputs[0], weights["scale"], weights["bias"]
        skipping = [_fitted(other.x, x.shape) for other in inputs[1:]]
        if moments is None:
            options: Any = {"epsilon": self.epsilon} | ({} if call.shard is None else {"shard": call.shard})
            y, mean, variance, _ = rectified_and_moments(x, scale, bias, *skipping, **options)
            return Signal(y), {"output_mean": mean, "output_variance": variance}
        slope = scale / np.sqrt(moments["output_variance"] + self.epsilon)
        y = x * slope + (bias - moments["output_mean"] * slope)
        return Signal(relu(added_to(y, skipping[0]) if skipping else y)), moments


class Nonlinear(Plain):
    """A nonlinearity of `NONLINEARITIES`; some make fewer channels."""

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], kind: str) -> None:
        self.kind, (self.support, pieces, self.function) = kind, NONLINEARITIES[kind]
        super().__init__(name, (reads,), inputs, (*inputs[:-1], inputs[-1] // pieces))

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        y: Array = self.function(inputs[0])
        return y


def _maxout(x: Array) -> Array:
    """Return the larger of each channel of the first half and its fellow of the second (arXiv:1302.4389)."""
    half = x.shape[-1] // 2
    return np.maximum(x[..., :half], x[..., half:])


NONLINEARITIES: dict[str, tuple[str, int, Callable[[Array], Array]]] = {
    "relu": ("ReLU", 1, relu),
    "maxout": ("max of 2", 2, _maxout),
}
"""By name: what the description calls it, how many channels become one, the function."""


class Dropout(Plain):
    """In training each value is 0 with probability `rate`, and else divided by 1 - rate (arXiv:1207.0580)."""

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], rate: float) -> None:
        super().__init__(name, (reads,), inputs, inputs)
        self.rate, self.support = rate, f"{rate:g} left out"

    def noise(self) -> tuple[int, ...]:
        return self.inputs

    def __call__(
        self, weights: Weights, inputs: Sequence[Signal], moments: Weights | None = None, call: Call = DEFAULT_CALL
    ) -> tuple[Signal, Weights]:
        x = inputs[0].x
        if call.noise is None:
            return Signal(x), {}
        drawn = call.noise[(slice(None), *map(slice, x.shape[1:]))]  # smaller images take a part of the numbers
        return Signal(x * (drawn >= self.rate) * (1 / (1 - self.rate))), {}


class Pool(Plain):
    """The maximum or the mean of windows; samples beyond the ends do not count."""

    def __init__(
        self, name: str, reads: str, inputs: tuple[int, ...], kind: str, taps: int, stride: int, padding: int = 0
    ) -> None:
        lengths = ((n + 2 * padding - taps) // stride + 1 for n in inputs[:2])
        super().__init__(name, (reads,), inputs, (*lengths, inputs[-1]))
        self.pool: Callable[..., Array] = max_pool if kind == "max" else mean_pool
        self.taps, self.padding = taps, padding
        self.stride, self.support, self.steps = stride, f"{times((taps, taps))} {kind}", times((stride, stride))

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        return self.pool(inputs[0], SPACE_AXES, self.taps, stride=self.stride, padding=self.padding)


class Whole(Plain):
    """The mean of each map, which is global average pooling (arXiv:1312.4400), or its maximum."""

    def __init__(self, name: str, reads: str, inputs: tuple[int, ...], kind: str) -> None:
        super().__init__(name, (reads,), inputs, inputs[-1:])
        self.support = kind

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        if self.support == "mean":
            return marginal(inputs[0], SPACE_AXES, reduction="mean")
        return np.max(inputs[0], axis=SPACE_AXES)


class Sum(Plain):
    """An output plus an earlier one (arXiv:1512.03385), which is subsampled alike, with zeros as new maps."""

    support = "sum"

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        total: Array = added_to(inputs[0], _fitted(inputs[1], inputs[0].shape))
        return total


def _fitted(skipping: Array, shape: tuple[int, ...]) -> Array:
    """Return an earlier output in the shape of a later one."""
    rows, columns = -(-skipping.shape[1] // shape[1]), -(-skipping.shape[2] // shape[2])
    if (rows, columns) != (1, 1):
        skipping = skipping[:, ::rows, ::columns, :]
    if missing := shape[3] - skipping.shape[3]:
        skipping = np.pad(skipping, ((0, 0), (0, 0), (0, 0), (0, missing)))
    return skipping


class Table:
    """A table in the making: each method adds a layer that reads the one before."""

    def __init__(self, image_shape: tuple[int, int, int], dtype: str, epsilon: float = 1e-5) -> None:
        self.layers: list[Layer] = []
        self.notes: list[str] = []
        self.dtype, self.epsilon = dtype, epsilon
        self.name: str = IMAGES
        self.shape: tuple[int, ...] = image_shape
        self._counts: dict[str, int] = {}

    def _add(self, layer: Layer) -> None:
        if min(layer.outputs) < 1:
            raise ConfigError(
                f"{layer.label} makes {times(layer.outputs)} of {times(layer.inputs)}: these images are too small"
            )
        self.layers.append(layer)
        self.name, self.shape = layer.name, layer.outputs

    def _named(self, kind: str) -> str:
        """Return a name that no layer has: conv01, conv02 and so on."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind}{self._counts[kind]:02d}"

    def convolve(self, filters: int, taps: int = 3, **options: Any) -> None:
        """Add filters, with options of `Convolution`."""
        name = self._named("conv")
        self._add(Convolution(name, self.name, self.shape, filters, taps, dtype=self.dtype, **options))

    def normalize(self, *skipping: str) -> None:
        """Add batch normalisation with a ReLU, which may add the output of an earlier layer between them."""
        self._add(Normalization(self._named("norm"), (self.name, *skipping), self.shape, self.epsilon, self.dtype))

    def apply(self, kind: str) -> None:
        """Add a nonlinearity of `NONLINEARITIES`."""
        self._add(Nonlinear(self._named(kind), self.name, self.shape, kind))

    def dropout(self, rate: float) -> None:
        """Add dropout, unless the rate is 0."""
        if rate:
            self._add(Dropout(self._named("dropout"), self.name, self.shape, rate))

    def pool(self, kind: str, taps: int, stride: int, padding: int = 0) -> None:
        """Add pooling by "max" or "mean"."""
        self._add(Pool(self._named("pool"), self.name, self.shape, kind, taps, stride, padding))

    def whole(self, kind: str) -> None:
        """Add the "mean" or the "max" of each map."""
        self._add(Whole(self._named(kind), self.name, self.shape, kind))

    def go_back_to(self, layer: tuple[str, tuple[int, ...]]) -> None:
        """Let the next layer read an earlier one, given by its name and the lengths of its axes."""
        self.name, self.shape = layer

    def sum_with(self, name: str) -> None:
        """Add the output of an earlier layer."""
        self._add(Sum(self._named("sum"), (self.name, name), self.shape, self.shape))

    def flatten(self) -> None:
        """Make units of maps, all positions of them."""
        self._add(Flatten(self._named("flat"), self.name, self.shape))

    def dense(self, units: int) -> None:
        """Add a dense layer."""
        self._add(Dense(self._named("dense"), self.name, self.shape, units, self.dtype))

    def ended(self) -> list[Layer]:
        """Return the layers; the last one with weights is what tells classes apart."""
        next(layer for layer in reversed(self.layers) if layer.trainable).tells_classes = True
        return self.layers
