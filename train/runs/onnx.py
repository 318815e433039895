"""Networks as ONNX files, see `train.runs.dense`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from train.data.augmentation import LEAST_DEVIATION
from train.extras import require_installed
from train.runs import dense
from train.runs.checkpoint import Checkpoint
from train.runs.training import restore
from train.storage.files import write_atomically

OPSET = 20
"""Version of ONNX's operators; the first with GELU."""


ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "elu": ("Elu", {}),
    "gelu": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}
"""Operators of ONNX, by the names of the setting `activation`."""


class _Graph:
    """Nodes and constants of an ONNX graph."""

    def __init__(self, axes: int) -> None:
        self.axes = axes  # of space
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

        names = [name or f"y{len(self.nodes)}" + (f"_{k}" if outputs > 1 else "") for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names


def write_onnx(target: Path, source: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's network as ONNX, from images in the units of the data, channels last, to logits.

    The batch is free, and so are the lengths of space.
    """
    require_installed("onnx", extra="onnx")
    import onnx
    from onnx import TensorProto, helper

    network, parameters, moments = restore(source, checkpoint, checkpoint.config, np)
    steps = dense.dense_steps(checkpoint, network, parameters, moments, ACTIVATIONS, "ONNX")
    axes = len(checkpoint.image_size)
    graph = _Graph(axes)
    lengths = ("rows", "columns", "slices")[:axes] if axes > 1 else ("samples",)
    x = graph.add("Sub", "images", graph.constant(np.asarray(checkpoint.channel_mean, np.float32)))
    x = graph.add("Div", x, graph.constant(np.asarray(checkpoint.channel_std, np.float32)))
    if checkpoint.config.standardize == "sample":
        x = _by_sample(graph, x, axes)
    x = graph.add("Transpose", x, perm=[0, axes + 1, *range(1, axes + 1)])
    names = [x, *(f"step{k}" for k in range(1, len(steps))), "logits"]
    for name, (operation, reads) in zip(names[1:], steps, strict=True):
        _written(graph, operation, tuple(names[k] for k in reads), name)
    inputs = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *lengths, checkpoint.channels])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", network.classes])
    onnx_graph = helper.make_graph(graph.nodes, "hcnn", [inputs], [logits], graph.constants)
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="hcnn")
    model.ir_version = 9  # of that opset
    properties = {"class_names": json.dumps(checkpoint.class_names), "targets": checkpoint.targets.kind}
    helper.set_model_props(model, {**properties, "values": checkpoint.values})
    onnx.checker.check_model(model)
    write_atomically(target, model.SerializeToString())


def _by_sample(graph: _Graph, x: str, axes: int) -> str:
    """Add what `standardise` does by "sample", channels last, and return its name."""
    space, one = graph.constant(np.arange(1, 1 + axes, dtype=np.int64)), graph.constant(np.float32(1))
    mean = graph.add("ReduceMean", x, space)
    centred = graph.add("Sub", x, mean)
    deviation = graph.add("Sqrt", graph.add("ReduceMean", graph.add("Mul", centred, centred), space))
    rounding = graph.constant(np.float32(LEAST_DEVIATION * np.finfo(np.float32).eps))
    least = graph.add("Mul", graph.add("Add", graph.add("Abs", mean), one), rounding)
    varies, none = graph.add("Greater", deviation, least), graph.constant(np.float32(0))
    result: str = graph.add("Where", varies, graph.add("Div", centred, deviation), none)
    return result


def _written(graph: _Graph, operation: dense.Operation, x: tuple[str, ...], name: str) -> None:
    """Add one step under a name."""
    match operation:
        case dense.Convolve():
            _convolve(graph, operation, x[0], name)
        case dense.Reduce(kind, count):
            parts = graph.add("Split", x[0], axis=1, num_outputs=count, outputs=count)
            graph.add("Mean" if kind == "mean" else "Sum", *parts, name=name)
        case dense.Scale(factor, offset):
            graph.add("Add", graph.add("Mul", *x, graph.constant(factor)), graph.constant(offset), name=name)
        case dense.Activation("squash"):
            inner = graph.add("Tanh", graph.add("Mul", *x, graph.constant(np.float32(2 / 3))))
            graph.add("Mul", inner, graph.constant(np.float32(1.7159)), name=name)
        case dense.Activation("maxout"):
            graph.add("Max", *graph.add("Split", *x, axis=1, num_outputs=2, outputs=2), name=name)
        case dense.Activation(kind):
            operator, options = ACTIVATIONS[kind]
            graph.add(operator, *x, name=name, **options)
        case dense.Pool(kind, taps, stride, padding):
            window: dict[str, Any] = {"kernel_shape": taps, "strides": stride, "pads": [padding] * (2 * len(taps))}
            graph.add("MaxPool" if kind == "max" else "AveragePool", *x, name=name, **window)  # padding does not count
        case dense.Whole(kind):
            along = graph.constant(np.arange(2, 2 + graph.axes, dtype=np.int64))
            graph.add(f"Reduce{kind.capitalize()}", *x, along, keepdims=0, name=name)
        case dense.Flatten():
            last = graph.add("Transpose", *x, perm=[0, *range(2, 2 + graph.axes), 1])
            graph.add("Flatten", last, name=name)
        case dense.Linear(matrix, offset):
            graph.add("Gemm", *x, graph.constant(matrix), graph.constant(offset), name=name)
        case dense.Add():
            graph.add("Add", *x, name=name)


def _convolve(graph: _Graph, filters: dense.Convolve, x: str, name: str) -> None:
    """Add a correlation."""
    axes, (before, after) = graph.axes, filters.pads
    pads: dict[str, Any] = {"pads": [before] * axes + [after] * axes}
    if filters.periodic:
        around = np.array([0, 0, *(before,) * axes, 0, 0, *(after,) * axes], np.int64)
        x, pads = graph.add("Pad", x, graph.constant(around), mode="wrap"), {}
    arrays = [graph.constant(array) for array in (filters.weight, filters.bias) if array is not None]
    graph.add("Conv", x, *arrays, name=name, strides=filters.stride, group=filters.groups, **pads)
