"""Hierarchical networks as ordinary convolutions, with attributes laid out as channels.

Along attributes a filter is a block-Toeplitz matrix: its row for one value of an output's attributes holds the taps at
the values of the input's that they meet. Space stays convolved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hcnn_core import convolve
from train.data import Targets
from train.networks.hierarchical import Head, HierarchicalLayer, NonlinearLayer, hierarchy, low_pass
from train.networks.layer import Weights
from train.networks.network import Network
from train.networks.registry import MERGED_FILTERS, architecture_of
from train.runs.checkpoint import Checkpoint, CheckpointError

__all__ = ["Dense", "DenseHead", "DenseLayer", "dense_filters", "dense_head", "dense_layers", "require_dense"]


def require_dense(checkpoint: Checkpoint, activations: Any, form: str) -> None:
    """Raise CheckpointError unless a network is made of such convolutions, with an activation that `form` has."""
    architecture, config = architecture_of(checkpoint.config), checkpoint.config
    if MERGED_FILTERS in architecture.lacks or config.scattering:
        what = architecture.title if MERGED_FILTERS in architecture.lacks else "a network on scattering"
        raise CheckpointError(f"{what} has no filters that {form}'s convolutions take: export .h5")
    if config.activation not in activations:
        raise CheckpointError(f"{form}'s operator for activation {config.activation!r} is not known here: export .h5")


class Dense(NamedTuple):
    """A layer as a correlation of channels along space."""

    weight: NDArray[np.float32]  # (outputs, inputs, *taps)
    bias: NDArray[np.float32] | None  # (outputs,)
    stride: tuple[int, ...]
    pads: tuple[int, int]  # samples before and after each axis of space
    periodic: bool  # whether they are those of the other end, or zeros
    parts: int  # of the input's channels, of which the mean or sum (Eq. 6) is taken first; 1: none
    groups: int = 1


class DenseLayer(NamedTuple):
    """A layer: a mean or sum, a low-pass, a correlation, the activation, and what skips it, in this order.

    A (+) layer has another correlation before, of each channel with its Q filters in space, and an activation.
    """

    copies: Dense | None
    dense: Dense
    reduction: str  # of the input's parts: mean or sum
    blur: Dense | None
    skip: Dense | None  # of what was made `back` layers before
    back: int


class DenseHead(NamedTuple):
    """Logits of the means or sums of channels over space."""

    matrix: NDArray[np.float32]  # (channels, classes)
    offset: NDArray[np.float32]  # (classes,)
    sums: bool


def dense_filters(layer: HierarchicalLayer, merged: Weights, shape: tuple[int, ...]) -> Dense:
    """Return a layer as a correlation, by what its filters make of each input that is 1 at one place and 0 elsewhere.

    `shape` are the lengths of x_{j-1} without the batch, before the marginal of Eq. (6).
    """
    axes, size = len(layer.space), layer.kernel_size[0]
    channels = layer.inputs[axes:]
    count, before, after = math.prod(channels), size - 1 - size // 2, size // 2
    impulses = np.zeros((count, *(2 * size - 1,) * axes, count), np.float32)
    centre: Any = (slice(None), *(size - 1,) * axes)
    impulses[centre] = np.eye(count)
    options: dict[str, Any] = {
        "boundary": ("zero",) * axes + layer.boundary[axes:],
        "stride": (1,) * axes + layer.stride[axes:],
    }
    if not layer.attributes:
        options["sum_axes"] = 1 + axes
    x = np.reshape(impulses, (*impulses.shape[:-1], *channels))
    y = convolve(x, merged["w"], layer.space + layer.along, **options)
    # the impulse at c meets tap k of the correlation at u = c - k
    meets = slice(size - 1 - after, size - 1 + before + 1)
    y = np.flip(y[(slice(None), *(meets,) * axes)], tuple(range(1, 1 + axes)))
    weight = np.moveaxis(np.reshape(y, (*y.shape[: 1 + axes], -1)), (0, -1), (1, 0))
    made = layer.outputs[axes:]
    bias = np.broadcast_to(merged["bias"], made).reshape(-1)
    parts = shape[axes] if len(shape) == axes + 3 else 1
    periodic = {"zero": False, "periodic": True}[layer.boundary[0]]
    return Dense(_f32(weight), _f32(bias), layer.stride[:axes], (before, after), periodic, parts)


def _nonlinear(layer: NonlinearLayer, merged: Weights, shape: tuple[int, ...]) -> tuple[Dense, Dense]:
    """Return a (+) layer as two: h for each channel alone, whose Q copies stand side by side, and g at each place."""
    axes, h = len(layer.space), np.asarray(merged["h"])
    size, count, factors = layer.kernel_size[0], math.prod(layer.inputs[axes:]), h.shape[-1]
    taps = np.flip(np.moveaxis(h, -1, 0), tuple(range(1, 1 + axes)))
    weight, bias = np.tile(taps[:, None], (count, *(1,) * (1 + axes))), np.tile(merged["shift"], count)
    pads, periodic = (size - 1 - size // 2, size // 2), layer.boundary[0] == "periodic"
    copies = Dense(_f32(weight), _f32(bias), layer.stride[:axes], pads, periodic, 1, groups=count)
    _, along_attributes = layer.linear_maps(merged)
    places = np.eye(count * factors, dtype=np.float32)
    y = along_attributes(np.reshape(places, (len(places), *(1,) * axes, *layer.inputs[axes:], factors)))
    matrix = np.reshape(y, (len(places), -1)).T
    bias = np.broadcast_to(merged["bias"], layer.outputs[axes:]).reshape(-1)
    parts = shape[axes] if len(shape) == axes + 3 else 1
    of_g = Dense(_f32(matrix.reshape(*matrix.shape, *(1,) * axes)), _f32(bias), (1,) * axes, (0, 0), False, parts)
    return copies, of_g


def _skipping(layer: HierarchicalLayer, shape: tuple[int, ...]) -> Dense:
    """What a layer adds of an earlier x, whose attributes have these lengths, as a correlation of single samples."""
    assert layer.skip is not None
    axes, made = len(layer.space), layer.outputs[len(layer.space) :]
    count = math.prod(shape)
    kept = layer.skip(np.reshape(np.eye(count, dtype=np.float32), (count, *(1,) * axes, *shape)))
    matrix = np.broadcast_to(kept, (count, *(1,) * axes, *made)).reshape(count, -1).T
    return Dense(_f32(matrix.reshape(*matrix.shape, *(1,) * axes)), None, layer.skip.space, (0, 0), False, 1)


def _blurring(axes: int, channels: int, periodic: bool) -> Dense:
    """The setting `blur`, of each channel alone."""
    taps = _f32(np.broadcast_to(low_pass(axes), (channels, 1, *(3,) * axes)))
    return Dense(taps, None, (1,) * axes, (1, 1), periodic, 1, groups=channels)


def dense_layers(network: Network, merged: dict[str, Weights]) -> Iterator[DenseLayer]:
    """Yield the layers of a network whose weights are merged."""
    shapes = [network.image_shape]
    for layer in hierarchy(network):
        copies, weights = None, merged[layer.name]
        if isinstance(layer, NonlinearLayer):
            copies, dense = _nonlinear(layer, weights, shapes[-1])
        else:
            dense = dense_filters(layer, weights, shapes[-1])
        channels, periodic = math.prod(layer.inputs[len(layer.space) :]), layer.boundary[0] == "periodic"
        blur = _blurring(len(layer.space), channels, periodic) if layer.blurs else None
        back = layer.skip.back if layer.skip else 0
        skip = _skipping(layer, shapes[-back][len(layer.space) :]) if back else None
        yield DenseLayer(copies, dense, layer.reduction, blur, skip, back)
        shapes.append(layer.outputs)


def dense_head(network: Network, merged: dict[str, Weights], targets: Targets) -> DenseHead:
    """Return how logits, or numbers in units of the data, are made of the last layer's channels."""
    head = network.table[-1]
    assert isinstance(head, Head)
    axes, shape = len(network.image_shape) - 1, head.inputs[len(network.image_shape) - 1 :]
    units, weights = np.eye(math.prod(shape), dtype=np.float32), merged.get(head.name, {})

    def made(x: NDArray[Any]) -> NDArray[Any]:
        logits = np.asarray(head.apply(weights, np.reshape(x, (len(x), *(1,) * axes, *shape))))
        return np.asarray(targets.in_units(logits))

    offset = made(np.zeros((1, len(units)), np.float32))
    return DenseHead(_f32(made(units) - offset), _f32(offset[0]), head.kind == "sum")


def _f32(array: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)
