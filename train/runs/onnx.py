"""Hierarchical networks as ordinary convolutions, with attributes laid out as channels, and as ONNX files of them.

Along attributes a filter is a block-Toeplitz matrix: its row for one value of an output's attributes holds the taps at
the values of the input's that they meet. Space stays convolved.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hcnn_core import convolve
from train.extras import install_command
from train.networks.hierarchical import Head, HierarchicalLayer, hierarchy, low_pass
from train.networks.layer import Weights
from train.networks.network import Network
from train.networks.registry import MERGED_FILTERS, architecture_of
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.training import restore
from train.storage.files import write_atomically

__all__ = ["Dense", "dense_filters", "dense_head", "write_onnx"]

OPSET = 20
"""Of ONNX; the first with GELU."""


ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {"elu": ("Elu", {}), "gelu": ("Gelu", {"approximate": "tanh"})}
"""Operators of ONNX, by the names of the setting `activation`."""


class Dense(NamedTuple):
    """A layer as a correlation of channels along space."""

    weight: NDArray[np.float32]  # (outputs, inputs, *taps)
    bias: NDArray[np.float32]  # (outputs,)
    stride: tuple[int, ...]
    pads: tuple[int, int]  # samples before and after each axis of space
    periodic: bool  # whether they are those of the other end, or zeros
    parts: int  # of the input's channels, of which the mean or sum (Eq. 6) is taken first; 1: none


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


def skip_matrix(layer: HierarchicalLayer, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return what a layer adds of an earlier x, whose attributes have these lengths, as (outputs, channels)."""
    assert layer.skip is not None
    axes, made = len(layer.space), layer.outputs[len(layer.space) :]
    count = math.prod(shape)
    kept = layer.skip(np.reshape(np.eye(count, dtype=np.float32), (count, *(1,) * axes, *shape)))
    return _f32(np.broadcast_to(kept, (count, *(1,) * axes, *made)).reshape(count, -1).T)


def dense_head(head: Head, weights: Weights, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the logits as a matrix (channels, classes) of sums or means over space, and what is added."""
    axes = len(head.inputs) - len(shape)
    units = np.eye(math.prod(shape), dtype=np.float32)

    def made(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(head.apply(weights, np.reshape(x, (len(x), *(1,) * axes, *shape))))

    offset = made(np.zeros((1, len(units)), np.float32))
    return _f32(made(units) - offset), _f32(offset[0])


def _f32(array: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(array, np.float32)


class _Graph:
    """Nodes and constants of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any) -> str:
        """Add an array, and return its name."""
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind: str, *inputs: str, name: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add a node, and return the name of its output, or of several."""
        from onnx import helper

        made = [name or f"y{len(self.nodes)}" + (f"_{k}" if outputs > 1 else "") for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, **attributes))
        return made[0] if outputs == 1 else made


def write_onnx(target: Path, source: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's network as ONNX, from images in the units of the data, channels last, to logits.

    The batch is free, and so are the lengths of space.
    """
    architecture, config = architecture_of(checkpoint.config), checkpoint.config
    if MERGED_FILTERS in architecture.lacks or config.scattering or config.nonlinear_factors:
        what = "a network on scattering" if config.scattering else "a (+) network"
        what = architecture.title if MERGED_FILTERS in architecture.lacks else what
        raise CheckpointError(f"{what} has no filters that ONNX's convolutions take: export .h5")
    if config.activation not in ACTIVATIONS:
        raise CheckpointError(f"ONNX's operator for activation {config.activation!r} is not known here: export .h5")
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise CheckpointError(f"onnx is not installed: {install_command('onnx')}") from error
    network, parameters, moments = restore(source, checkpoint, config, np)
    graph = _Graph()
    axes = len(checkpoint.image_size)
    names = ("rows", "columns", "slices")[:axes] if axes > 1 else ("samples",)
    x = graph.add("Sub", "images", graph.constant(_f32(checkpoint.channel_mean)))
    x = graph.add("Div", x, graph.constant(_f32(checkpoint.channel_std)))
    x = graph.add("Transpose", x, perm=[0, axes + 1, *range(1, axes + 1)])
    _logits(graph, network, network.merged(parameters, moments), x)
    inputs = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *names, checkpoint.channels])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", network.classes])
    made = helper.make_graph(graph.nodes, "hcnn", [inputs], [logits], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hcnn")
    model.ir_version = 9  # of that opset
    helper.set_model_props(model, {"class_names": json.dumps(checkpoint.class_names), "values": checkpoint.values})
    onnx.checker.check_model(model)
    write_atomically(target, model.SerializeToString())


def _convolved(graph: _Graph, y: str, dense: Dense, **options: Any) -> str:
    """Add a correlation of y, and return the name of what it makes."""
    axes, (before, after) = len(dense.stride), dense.pads
    pads: dict[str, Any] = {"pads": [before] * axes + [after] * axes}
    if dense.periodic:
        around = np.array([0, 0, *(before,) * axes, 0, 0, *(after,) * axes], np.int64)
        y, pads = graph.add("Pad", y, graph.constant(around), mode="wrap"), {}
    filters = graph.constant(dense.weight), graph.constant(dense.bias)
    made: str = graph.add("Conv", y, *filters, strides=dense.stride, **pads, **options)
    return made


def _logits(graph: _Graph, network: Network, merged: dict[str, Weights], x: str) -> None:
    """Add the layers, from standardised images, channels first, to the output "logits"."""
    table = hierarchy(network)
    axes, made, shapes = len(network.image_shape) - 1, [x], [network.image_shape]
    for layer in table:
        dense, y = dense_filters(layer, merged[layer.name], shapes[-1]), made[-1]
        if dense.parts > 1:
            parts = graph.add("Split", y, axis=1, num_outputs=dense.parts, outputs=dense.parts)
            y = graph.add("Mean" if layer.reduction == "mean" else "Sum", *parts)
        if layer.blurs:
            count = dense.weight.shape[1]
            taps = _f32(np.broadcast_to(low_pass(axes), (count, 1, *(3,) * axes)))
            none = np.zeros(count, np.float32)
            y = _convolved(graph, y, Dense(taps, none, (1,) * axes, (1, 1), dense.periodic, 1), group=count)
        y = _convolved(graph, y, dense)
        kind, options = ACTIVATIONS[network.config.activation]
        y = graph.add(kind, y, **options)
        if layer.skip is not None:
            back = layer.skip.back
            matrix = skip_matrix(layer, shapes[-back][axes:])
            of = graph.constant(np.reshape(matrix, (*matrix.shape, *(1,) * axes)))
            y = graph.add("Add", y, graph.add("Conv", made[-back], of, strides=layer.skip.space))
        made.append(y)
        shapes.append(layer.outputs)
    head = network.table[-1]
    assert isinstance(head, Head)
    matrix, offset = dense_head(head, merged.get(head.name, {}), shapes[-1][axes:])
    along = graph.constant(np.arange(2, 2 + axes, dtype=np.int64))
    whole = graph.add("ReduceSum" if head.kind == "sum" else "ReduceMean", made[-1], along, keepdims=0)
    graph.add("Gemm", whole, graph.constant(matrix), graph.constant(offset), name="logits")
