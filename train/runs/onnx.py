"""Hierarchical networks as ONNX files of ordinary convolutions, see `train.runs.dense`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from train.data import Targets
from train.data.augmentation import LEAST
from train.extras import install_command
from train.networks.layer import Weights
from train.networks.network import Network
from train.runs.checkpoint import Checkpoint, CheckpointError
from train.runs.dense import Dense, dense_head, dense_layers, require_dense
from train.runs.training import restore
from train.storage.files import write_atomically

__all__ = ["write_onnx"]

OPSET = 20
"""Of ONNX; the first with GELU."""


ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {"elu": ("Elu", {}), "gelu": ("Gelu", {"approximate": "tanh"})}
"""Operators of ONNX, by the names of the setting `activation`."""


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
    require_dense(checkpoint, ACTIVATIONS, "ONNX")
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError as error:
        raise CheckpointError(f"onnx is not installed: {install_command('onnx')}") from error
    network, parameters, moments = restore(source, checkpoint, checkpoint.config, np)
    graph = _Graph()
    axes = len(checkpoint.image_size)
    lengths = ("rows", "columns", "slices")[:axes] if axes > 1 else ("samples",)
    x = graph.add("Sub", "images", graph.constant(np.asarray(checkpoint.channel_mean, np.float32)))
    x = graph.add("Div", x, graph.constant(np.asarray(checkpoint.channel_std, np.float32)))
    if checkpoint.config.standardize == "sample":
        x = _by_sample(graph, x, axes)
    x = graph.add("Transpose", x, perm=[0, axes + 1, *range(1, axes + 1)])
    _logits(graph, network, network.merged(parameters, moments), x, checkpoint.targets)
    inputs = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *lengths, checkpoint.channels])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", network.classes])
    made = helper.make_graph(graph.nodes, "hcnn", [inputs], [logits], graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hcnn")
    model.ir_version = 9  # of that opset
    names = {"class_names": json.dumps(checkpoint.class_names), "targets": checkpoint.targets.kind}
    helper.set_model_props(model, {**names, "values": checkpoint.values})
    onnx.checker.check_model(model)
    write_atomically(target, model.SerializeToString())


def _by_sample(graph: _Graph, x: str, axes: int) -> str:
    """Add what `standardise` does by "sample", channels last, and return its name."""
    space, one = graph.constant(np.arange(1, 1 + axes, dtype=np.int64)), graph.constant(np.float32(1))
    mean = graph.add("ReduceMean", x, space)
    centred = graph.add("Sub", x, mean)
    deviation = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", centred, centred), space))
    rounding = graph.constant(np.float32(LEAST * np.finfo(np.float32).eps))
    least = graph.add("Mul", graph.add("Add", graph.add("Abs", mean), one), rounding)
    varies, none = graph.add("Greater", deviation, least), graph.constant(np.float32(0))
    made: str = graph.add("Where", varies, graph.add("Div", centred, deviation), none)
    return made


def _convolved(graph: _Graph, y: str, dense: Dense) -> str:
    """Add a correlation of y, and return the name of what it makes."""
    axes, (before, after) = len(dense.stride), dense.pads
    pads: dict[str, Any] = {"pads": [before] * axes + [after] * axes}
    if dense.periodic:
        around = np.array([0, 0, *(before,) * axes, 0, 0, *(after,) * axes], np.int64)
        y, pads = graph.add("Pad", y, graph.constant(around), mode="wrap"), {}
    filters = [graph.constant(array) for array in (dense.weight, dense.bias) if array is not None]
    made: str = graph.add("Conv", y, *filters, strides=dense.stride, group=dense.groups, **pads)
    return made


def _logits(graph: _Graph, network: Network, merged: dict[str, Weights], x: str, targets: Targets) -> None:
    """Add the layers, from standardised images, channels first, to the output "logits"."""
    axes, made = len(network.image_shape) - 1, [x]
    for layer in dense_layers(network, merged):
        y = made[-1]
        if layer.dense.parts > 1:
            parts = graph.add("Split", y, axis=1, num_outputs=layer.dense.parts, outputs=layer.dense.parts)
            y = graph.add("Mean" if layer.reduction == "mean" else "Sum", *parts)
        if layer.blur:
            y = _convolved(graph, y, layer.blur)
        kind, options = ACTIVATIONS[network.config.activation]
        for dense in [layer.copies, layer.dense] if layer.copies else [layer.dense]:
            y = graph.add(kind, _convolved(graph, y, dense), **options)
        if layer.skip:
            y = graph.add("Add", y, _convolved(graph, made[-layer.back], layer.skip))
        made.append(y)
    head = dense_head(network, merged, targets)
    along = graph.constant(np.arange(2, 2 + axes, dtype=np.int64))
    whole = graph.add("ReduceSum" if head.sums else "ReduceMean", made[-1], along, keepdims=0)
    graph.add("Gemm", whole, graph.constant(head.matrix), graph.constant(head.offset), name="logits")
