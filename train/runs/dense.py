"""Networks as steps that every framework has: convolutions, pooling, linear maps, with channels first.

Attributes are laid out as channels. Along them a filter is a block-Toeplitz matrix: its row for one value of an
output's attributes holds the taps at the values of the input's that they meet. Space stays convolved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hcnn_core import convolve
from train.networks import lenet, plain
from train.networks.hierarchical import FactoredLayer, Head, HierarchicalLayer, NonlinearLayer, low_pass
from train.networks.layer import IMAGES, Layer, Moments, Parameters, Weights
from train.networks.network import Network
from train.runs.checkpoint import Checkpoint, CheckpointError

Float = NDArray[np.float32]


class Convolve(NamedTuple):
    """A correlation of channels along space."""

    weight: Float  # (outputs, inputs / groups, *taps)
    bias: Float | None  # (outputs,)
    stride: tuple[int, ...]
    pads: tuple[int, int]  # samples before and after each axis of space
    periodic: bool = False  # whether they are those of the other end, or zeros
    groups: int = 1
    learned: bool = True


class Reduce(NamedTuple):
    """The mean or the sum of equal parts of the channels, Eq. (6)."""

    kind: str
    parts: int


class Scale(NamedTuple):
    """Each channel times a factor, plus an offset; both (C, 1, ..) for maps and (C,) for units."""

    factor: Float
    offset: Float


class Activation(NamedTuple):
    """A nonlinearity: elu, gelu, relu, maxout (the larger of each channel and its fellow of the other half), squash."""

    name: str


class Pool(NamedTuple):
    """The maximum or the mean of windows; samples beyond the ends do not count."""

    kind: str
    taps: tuple[int, ...]
    stride: tuple[int, ...]
    padding: int


class Whole(NamedTuple):
    """The mean, the sum or the maximum of each map."""

    kind: str


class Flatten(NamedTuple):
    """Maps as units, channels last."""


class Linear(NamedTuple):
    """A linear map of units."""

    matrix: Float  # (inputs, outputs)
    offset: Float  # (outputs,)


class Add(NamedTuple):
    """The sum of two arrays."""


Operation = Convolve | Reduce | Scale | Activation | Pool | Whole | Flatten | Linear | Add


class Step(NamedTuple):
    """One operation, and which outputs it reads: 0 for standardised images, k for those of step k, from 1."""

    operation: Operation
    reads: tuple[int, ...]


class _Steps(list[Step]):
    """Steps in the making."""

    def then(self, operation: Operation, *reads: int) -> int:
        """Add an operation on what other steps make, and return its number."""
        self.append(Step(operation, reads))
        return len(self)


def dense_steps(
    checkpoint: Checkpoint,
    network: Network,
    parameters: Parameters,
    moments: Moments,
    activations: Collection[str],
    form: str,
) -> list[Step]:
    """Return a network as steps, from standardised images, channels first, to logits, or numbers in their units.

    CheckpointError, in the name of a `form` such as ONNX, for a layer that is no such steps, or an activation that is
    none of `activations`.
    """
    steps = steps_of(network, parameters, moments, activations, form)
    if (targets := checkpoint.targets).mean is not None:
        steps.append(Step(Scale(_f32(targets.std), _f32(targets.mean)), (len(steps),)))
    return steps


def steps_of(
    network: Network,
    parameters: Parameters,
    moments: Moments,
    activations: Collection[str] = ("elu",),
    form: str = "NumPy",
) -> list[Step]:
    """Return a network as steps to its own outputs, as `dense_steps` does."""
    steps, merged = _Steps(), network.merged(parameters, moments)
    places, shapes = {IMAGES: 0}, {IMAGES: network.image_shape}
    for layer in network.table:
        write = LAYERS.get(type(layer))
        dense = isinstance(layer, HierarchicalLayer) and layer.connecting
        if write is None or dense:
            kind = "a layer with a dense connection" if dense else type(layer).__name__
            raise CheckpointError(
                f"{layer.label} is {kind}, which is none of the layers that {form} has here: export .h5"
            )
        if isinstance(layer, HierarchicalLayer) and network.config.activation not in activations:
            raise CheckpointError(
                f"{form}'s operator for activation {network.config.activation!r} is not known here: export .h5"
            )
        weights = {**moments.get(layer.name, {}), **merged.get(layer.name, {})}
        read = [(places[name], shapes[name]) for name in layer.reads]
        places[layer.name] = write(steps, layer, weights, read, network)
        shapes[layer.name] = layer.outputs
    return steps


def dense_filters(layer: HierarchicalLayer, merged: Weights) -> Convolve:
    """Return a layer as a correlation, from the responses of its filters to impulses."""
    axes, size = len(layer.space), layer.kernel_size[0]
    channels = layer.inputs[axes:]
    count, before, after = math.prod(channels), size - 1 - size // 2, size // 2
    impulses = np.zeros((count, *(2 * size - 1,) * axes, count), np.float32)
    centre: Any = (slice(None), *(size - 1,) * axes)
    impulses[centre] = np.eye(count)
    options: dict[str, Any] = {} if layer.attributes else {"sum_axes": 1 + axes}
    options |= {"boundary": ("zero",) * axes + layer.boundary[axes:], "stride": (1,) * axes + layer.stride[axes:]}
    x = np.reshape(impulses, (*impulses.shape[:-1], *channels))
    y = convolve(x, merged["w"], layer.space + layer.along, **options)
    # the impulse at c meets tap k of the correlation at u = c - k
    meets = slice(size - 1 - after, size - 1 + before + 1)
    y = np.flip(y[(slice(None), *(meets,) * axes)], tuple(range(1, 1 + axes)))
    weight = np.moveaxis(np.reshape(y, (*y.shape[: 1 + axes], -1)), (0, -1), (1, 0))
    lengths = layer.outputs[axes:]
    bias = np.broadcast_to(merged["bias"], lengths).reshape(-1)
    periodic = {"zero": False, "periodic": True}[layer.boundary[0]]
    return Convolve(_f32(weight), _f32(bias), layer.stride[:axes], (before, after), periodic)


def _nonlinear(layer: NonlinearLayer, merged: Weights) -> tuple[Convolve, Convolve]:
    """Return a (+) layer as two: h for each channel alone, whose Q copies stand side by side, and g at each place."""
    axes, h = len(layer.space), np.asarray(merged["h"])
    size, count, factors = layer.kernel_size[0], math.prod(layer.inputs[axes:]), h.shape[-1]
    taps = np.flip(np.moveaxis(h, -1, 0), tuple(range(1, 1 + axes)))
    weight, bias = np.tile(taps[:, None], (count, *(1,) * (1 + axes))), np.tile(merged["shift"], count)
    pads, periodic = (size - 1 - size // 2, size // 2), layer.boundary[0] == "periodic"
    copies = Convolve(_f32(weight), _f32(bias), layer.stride[:axes], pads, periodic, groups=count)
    _, along_attributes = layer.linear_maps(merged)
    places = np.eye(count * factors, dtype=np.float32)
    y = along_attributes(np.reshape(places, (len(places), *(1,) * axes, *layer.inputs[axes:], factors)))
    matrix = np.reshape(y, (len(places), -1)).T
    bias = np.broadcast_to(merged["bias"], layer.outputs[axes:]).reshape(-1)
    return copies, Convolve(_at_each_place(matrix, axes), _f32(bias), (1,) * axes, (0, 0))


def _skipping(layer: HierarchicalLayer, shape: tuple[int, ...]) -> Convolve:
    """Return a layer's skip, from an earlier x with attributes of these lengths, as a correlation by one tap."""
    assert layer.skip is not None
    axes, lengths = len(layer.space), layer.outputs[len(layer.space) :]
    count = math.prod(shape)
    skipped = layer.skip(np.reshape(np.eye(count, dtype=np.float32), (count, *(1,) * axes, *shape)))
    matrix = np.broadcast_to(skipped, (count, *(1,) * axes, *lengths)).reshape(count, -1).T
    return Convolve(_at_each_place(matrix, axes), None, layer.skip.space, (0, 0), learned=False)


def _blurring(axes: int, channels: int, periodic: bool) -> Convolve:
    """Return the low-pass of the setting `blur`, for each channel alone."""
    taps = _f32(np.broadcast_to(low_pass(axes), (channels, 1, *(3,) * axes)))
    return Convolve(taps, None, (1,) * axes, (1, 1), periodic, groups=channels, learned=False)


Read = list[tuple[int, tuple[int, ...]]]
"""A layer's input: the number of the step that makes it, and the lengths of its axes, channels last."""


def _hierarchical(steps: _Steps, layer: HierarchicalLayer, weights: Weights, read: Read, network: Network) -> int:
    """Add the marginal of Eq. (6), a low-pass, filters, the activation, and the skip, in this order."""
    (x, shape), axes = read[0], len(layer.space)
    y, channels, periodic = x, math.prod(layer.inputs[axes:]), layer.boundary[0] == "periodic"
    if len(shape) == axes + 3 and shape[axes] > 1:
        y = steps.then(Reduce(layer.reduction, shape[axes]), y)
    if layer.blurs:
        y = steps.then(_blurring(axes, channels, periodic), y)
    filters = _nonlinear(layer, weights) if isinstance(layer, NonlinearLayer) else (dense_filters(layer, weights),)
    for convolution in filters:
        y = steps.then(Activation(network.config.activation), steps.then(convolution, y))
    if layer.skip and layer.skip.back:
        earlier, lengths = read[-1]
        y = steps.then(Add(), y, steps.then(_skipping(layer, lengths[axes:]), earlier))
    return y


def _head(steps: _Steps, layer: Head, weights: Weights, read: Read, network: Network) -> int:
    """Add a linear map of the mean or the sum of each channel."""
    axes = len(network.image_shape) - 1
    shape = layer.inputs[axes:]
    units = np.eye(math.prod(shape), dtype=np.float32)
    x = np.concatenate([np.zeros((1, len(units)), np.float32), units])
    offset, *rows = np.asarray(layer.apply(weights, np.reshape(x, (len(x), *(1,) * axes, *shape))))
    whole = steps.then(Whole("sum" if layer.kind == "sum" else "mean"), read[0][0])
    return steps.then(Linear(_f32(np.stack(rows) - offset), _f32(offset)), whole)


def _convolution(steps: _Steps, layer: plain.Convolution, weights: Weights, read: Read, network: Network) -> int:
    """Add filters, which see no end where they are cropped."""
    w, before = np.asarray(weights["w"]), layer.taps - 1 - layer.taps // 2
    taps = np.flip(np.moveaxis(w, -1, 0), (2, 3))
    bias = _f32(weights["bias"]) if layer.bias else None
    pads = before - layer.crop, layer.taps // 2 - layer.crop
    if min(pads) < 0:
        raise CheckpointError(f"{layer.label} has filters of even length that see no end, which is not known here")
    return steps.then(Convolve(_f32(taps), bias, (layer.stride,) * 2, pads), read[0][0])


def _normalization(steps: _Steps, layer: plain.Normalization, weights: Weights, read: Read, network: Network) -> int:
    slope = np.asarray(weights["scale"]) / np.sqrt(np.asarray(weights["output_variance"]) + layer.epsilon)
    offset = np.asarray(weights["bias"]) - np.asarray(weights["output_mean"]) * slope
    y = steps.then(_scale(slope, offset, read[0][1]), read[0][0])
    return steps.then(
        Activation("relu"), _sum(steps, layer, weights, [(y, read[0][1]), read[1]], network) if read[1:] else y
    )


def _pool(steps: _Steps, layer: plain.Pool, weights: Weights, read: Read, network: Network) -> int:
    kind = layer.support.rpartition(" ")[2]
    return steps.then(Pool(kind, (layer.taps,) * 2, (layer.stride,) * 2, layer.padding), read[0][0])


def _sum(steps: _Steps, layer: plain.Plain, weights: Weights, read: Read, network: Network) -> int:
    """Add an output to an earlier one, subsampled, with zeros as new maps."""
    (x, shape), (skipping, earlier) = read
    if shape != earlier:
        stride = tuple(-(-n // m) for n, m in zip(earlier[:2], shape[:2], strict=True))
        taps = _at_each_place(np.eye(shape[2], earlier[2]), 2)
        skipping = steps.then(Convolve(taps, None, stride, (0, 0), learned=False), skipping)
    return steps.then(Add(), x, skipping)


def _dense(steps: _Steps, layer: plain.Dense, weights: Weights, read: Read, network: Network) -> int:
    return steps.then(Linear(_f32(weights["w"]), _f32(weights["bias"])), read[0][0])


def _squashed(steps: _Steps, layer: lenet.SquashedConvolution, weights: Weights, read: Read, network: Network) -> int:
    weights = {**weights, "w": np.asarray(weights["w"]) * layer.seen[:, None, None]}
    return steps.then(Activation("squash"), _convolution(steps, layer, weights, read, network))


def _average(steps: _Steps, layer: lenet.Average, weights: Weights, read: Read, network: Network) -> int:
    means = steps.then(Pool("mean", (2, 2), (2, 2), 0), read[0][0])
    scale = _scale(np.asarray(weights["scale"]), np.asarray(weights["bias"]), layer.outputs)
    return steps.then(Activation("squash"), steps.then(scale, means))


def _unit(steps: _Steps, layer: lenet.Dense, weights: Weights, read: Read, network: Network) -> int:
    x, shape = read[0]
    y = _dense(steps, layer, weights, [(steps.then(Whole("mean"), x) if len(shape) > 1 else x, layer.inputs)], network)
    return y if layer.tells_classes else steps.then(Activation("squash"), y)


def _simple(operation: Callable[[Any], Operation]) -> Any:
    """Return the function that adds one operation, which depends on the layer alone."""
    return lambda steps, layer, weights, read, network: steps.then(operation(layer), read[0][0])


LAYERS: dict[type[Layer], Callable[..., int]] = {
    HierarchicalLayer: _hierarchical,
    FactoredLayer: _hierarchical,
    NonlinearLayer: _hierarchical,
    Head: _head,
    plain.Convolution: _convolution,
    plain.Normalization: _normalization,
    plain.Nonlinear: _simple(lambda layer: Activation(layer.kind)),
    plain.Dropout: lambda steps, layer, weights, read, network: read[0][0],
    plain.Pool: _pool,
    plain.Whole: _simple(lambda layer: Whole(layer.support)),
    plain.Flatten: _simple(lambda layer: Flatten()),
    plain.Dense: _dense,
    plain.Sum: _sum,
    lenet.SquashedConvolution: _squashed,
    lenet.Average: _average,
    lenet.Dense: _unit,
}
"""Functions that add the steps of a layer, by its exact class: a subclass may compute something else."""


def _scale(factor: NDArray[Any], offset: NDArray[Any], shape: tuple[int, ...]) -> Scale:
    """Return factors and offsets of each channel of an array with these lengths, channels last."""
    along = (-1, *(1,) * (len(shape) - 1))
    return Scale(_f32(factor.reshape(along)), _f32(offset.reshape(along)))


def _at_each_place(matrix: NDArray[Any], axes: int) -> Float:
    """Return a matrix as filters of one tap."""
    return _f32(matrix.reshape(*matrix.shape, *(1,) * axes))


def _f32(array: Any) -> Float:
    return np.ascontiguousarray(array, np.float32)
