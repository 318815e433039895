"""Networks as ordinary convolutions and as ONNX files, features of layers, and the reader that a page shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hcnn
from tests.train.runs import run_here
from train.classifier import Classifier
from train.config import Config, make_config
from train.data import standardise
from train.networks.hierarchical import hierarchy
from train.networks.registry import build
from train.runs import onnx as onnx_module
from train.runs.checkpoint import Checkpoint, CheckpointError, State
from train.runs.dense import dense_filters
from train.runs.onnx import write_onnx

PAGE = Path(__file__).resolve().parents[2] / "docs" / "train.md"
TINY: dict[str, Any] = {"width": 4, "factors": 4, "depth": 6, "attribute_kernel": (3, 5), "strided_layers": (2, 4)}


def network(size: tuple[int, ...], channels: int = 2, **changes: Any) -> Classifier:
    """A network with random weights and moments, of numbers of any size."""
    return randomised(make_config("hcnn", {**TINY, **changes}), size, channels)


def randomised(config: Config, size: tuple[int, ...], channels: int) -> Classifier:
    """The network of a configuration, every weight and moment random."""
    table, rng = build(config, size, 3, channels), np.random.default_rng(0)
    weights = table.initialize(rng)
    for arrays in weights.values():
        for name in {"bias", "scale"} & arrays.keys():
            arrays[name] = rng.standard_normal(arrays[name].shape).astype(np.float32)
    _, moments = table(weights, rng.standard_normal((4, *size, channels)).astype(np.float32))
    state = State(weights, {}, moments, dict(np.random.default_rng(0).bit_generator.state))
    mean, std = np.arange(channels) + 0.5, np.arange(channels) + 2.0
    checkpoint = Checkpoint(state, config, ("a", "b", "c"), (*size, channels), mean, std, values="float32")
    return Classifier(checkpoint, table, weights, moments)


KINDS = [
    ((20,), {}),
    ((20, 13), {}),
    ((8, 6, 7), {}),
    ((20, 12), {"boundary": "periodic"}),
    ((12,), {"boundary": "attributes", "reduction": "sum"}),
    ((8,), {"boundary": "periodic", "space_kernel": 9, "strided_layers": (1, 2)}),  # it goes around more than once
    ((12, 11), {"skip": "aligned", "depth": 7}),
    ((12, 11), {"skip": "previous", "depth": 7}),
    ((12, 11), {"skip": "aligned-mean", "depth": 7, "boundary": "attributes"}),
    ((12, 11), {"normalization": "both", "head": "dense"}),
    ((12,), {"head": "sum"}),
    ((12,), {"width": 8, "reduction": "sum"}),  # parts of several terms, Eq. (6)
    ((12, 11), {"width": 8, "boundary": "periodic"}),
    ((12, 11), {"blur": True}),
    ((8, 8), {"blur": True, "boundary": "periodic", "strided_layers": (1, 3)}),
    ((12, 11), {"activation": "gelu", "space_kernel": 4}),
    ((12,), {"standardize": "sample"}),
    ((12,), {"hypernetwork": 2, "depth": 7}),
    ((12,), {"nonlinear_factors": True, "boundary": "attributes", "space_kernel": 4}),
    ((12, 8), {"nonlinear_factors": True, "boundary": "periodic", "normalization": "both", "blur": True}),
    ((6, 7, 5), {"nonlinear_factors": True}),
]


BASELINES = [(name, (32, 32)) for name in ("resnet20", "all-cnn", "nin", "wrn-student", "fitnet", "lenet")]
BASELINES += [("resnet20", (20, 27)), ("lenet", (36, 40))]


@pytest.mark.parametrize(
    ("preset", "size", "changes"),
    [*(("hcnn", size, {**TINY, **changes}) for size, changes in KINDS), *((*baseline, {}) for baseline in BASELINES)],
)
def test_onnx_has_the_same_logits(preset: str, size: tuple[int, ...], changes: dict[str, Any], tmp_path: Path) -> None:
    """Of networks of every kind, and of pooling, normalisation, maxout, dense layers and skips of the baselines."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    channels = 2 if changes else 3
    one, rng = randomised(make_config(preset, changes), size, channels), np.random.default_rng(1)
    write_onnx(tmp_path / "net.onnx", tmp_path, one.checkpoint)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    for count in (1, 5):
        x = rng.standard_normal((count, *size, channels)).astype(np.float32)
        (found,) = session.run(None, {"images": x})
        expected = one(x)
        assert np.abs(found - expected).max() <= (1e-5 if changes else 2e-5) * np.abs(expected).max()
        assert np.abs(found - one(x[:, ::-1])).max() > 1e-3 * np.abs(expected).max()
    if changes and one.checkpoint.config.boundary != "periodic":
        larger = rng.standard_normal((2, *(n + 4 for n in size), channels)).astype(np.float32)
        statistics = one.checkpoint.channel_mean, one.checkpoint.channel_std
        standard = standardise(larger, *statistics, by=one.checkpoint.config.standardize)
        expected, _ = one.network(one._arrays[0], standard, one.moments)
        assert np.abs(session.run(None, {"images": larger})[0] - expected).max() <= 2e-5 * np.abs(expected).max()


def test_a_dense_filter_is_block_toeplitz() -> None:
    """Moving the output's attribute by one moves what it meets by the stride, without reaching beyond the ends."""
    one = network((9,), boundary="attributes", width=8)
    layer = hierarchy(one.network)[3]
    dense = dense_filters(layer, one.merged[layer.name])
    weight = dense.weight.reshape(*layer.outputs[1:], *layer.inputs[1:], 3)
    assert dense.stride == layer.stride[:1]
    for axis in (0, 1):
        moved = np.roll(weight, (1, 2), (axis, 3 + axis))
        np.testing.assert_allclose(moved, weight, atol=1e-7)
        assert np.abs(np.roll(weight, (1, 1), (axis, 3 + axis)) - weight).max() > 0.01


def test_what_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scattered = network((16, 16), scattering=1)
    with pytest.raises(CheckpointError, match="scattering is ScatteringLayer, which is none of the layers that ONNX"):
        write_onnx(tmp_path / "net.onnx", tmp_path, scattered.checkpoint)
    with pytest.raises(
        CheckpointError, match="layer 3 is a layer with a dense connection, which is none of the layers"
    ):
        write_onnx(tmp_path / "net.onnx", tmp_path, network((12,), skip="dense").checkpoint)
    other = network((12,))
    monkeypatch.delitem(onnx_module.ACTIVATIONS, "elu")
    with pytest.raises(CheckpointError, match=r"ONNX's operator for activation 'elu' is not known here: export \.h5"):
        write_onnx(tmp_path / "net.onnx", tmp_path, other.checkpoint)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match="onnx is not installed: pip install"):  # before filters are merged
        write_onnx(tmp_path / "net.onnx", tmp_path, other.checkpoint)
    run_here(("export", "hcnn-fast", tmp_path / "net.txt"), None).one_line(2, ".safetensors (filters) and .onnx")


def test_the_command_exports_a_network_that_ships(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    file = tmp_path / "fast.onnx"
    assert str(file) in run_here(("export", "hcnn-fast", file), None).success()
    assert file.stat().st_size < 4 * 2**20
    images = hcnn.train.load_dataset("sample").test_images[:8]
    session = runtime.InferenceSession(str(file))
    expected = hcnn.load("hcnn-fast")(images)
    (found,) = session.run(None, {"images": images.astype(np.float32)})
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    names = session.get_modelmeta().custom_metadata_map["class_names"]
    assert "airplane" in names


@pytest.mark.parametrize("size", [(20,), (12, 10), (6, 6, 5)])
def test_features_are_what_layers_make(size: tuple[int, ...]) -> None:
    one, rng = network(size), np.random.default_rng(2)
    x = rng.standard_normal((5, *size, 2)).astype(np.float32)
    count = len(size)
    u = tuple(f"u{k + 1}" for k in range(count))
    assert one.axes(1) == ("n", *u, "v1") and one.axes(5) == ("n", *u, "v3", "v4", "v5")
    assert one.axes("head") == ("n", "channels")
    whole = one.features(x, 4)
    assert whole.shape[1:] == hierarchy(one.network)[3].outputs
    np.testing.assert_allclose(one.features(x, 4, "space"), whole.mean(tuple(range(1, 1 + count))), atol=1e-6)
    np.testing.assert_allclose(one.features(x, 4, "attributes"), whole.mean((-3, -2, -1)), atol=1e-6)
    np.testing.assert_allclose(one.features(x[1], "layer04"), whole[1], atol=1e-5)
    np.testing.assert_allclose(one.features(x, "head"), one(x), atol=1e-6)
    with pytest.raises(KeyError, match="no layer is called 'layer09'; there are layer01, layer02"):
        one.features(x, 9)
    with pytest.raises(ValueError, match="reduce is 'time'; choose 'attributes', 'space' or None"):
        one.features(x, 4, "time")  # type: ignore[arg-type]


def test_the_reader_of_the_page_reads_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    run_here(("export", "hcnn-fast", "hcnn-fast.safetensors"), None).success()
    (code,) = re.findall(r"^```python reader\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert code.count("\n") <= 20
    found: dict[str, Any] = {}
    exec(code, found)
    merged = hcnn.load("hcnn-fast").merged
    expected = {f"{layer}.{name}": array for layer, arrays in merged.items() for name, array in arrays.items()}
    tensors = found["tensors"]
    assert tensors.keys() == expected.keys() | {"data.channel_mean", "data.channel_std"}
    assert all(np.array_equal(tensors[name], np.atleast_1d(array)) for name, array in expected.items())
