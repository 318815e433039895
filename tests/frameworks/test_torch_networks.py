"""Trained networks as modules of PyTorch: the same logits, by ordinary convolutions, which train further."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import hcnn  # noqa: E402
from tests.train.test_onnx import BASELINES, KINDS, network, randomised  # noqa: E402
from train.config import make_config  # noqa: E402
from train.data import load_dataset  # noqa: E402
from train.runs.checkpoint import CheckpointError  # noqa: E402


def channels_first(x: np.ndarray[Any, Any]) -> Any:
    return torch.from_numpy(np.moveaxis(x, -1, 1).astype(np.float32))


@pytest.mark.parametrize(("size", "changes"), KINDS)
def test_a_module_has_the_same_logits(size: tuple[int, ...], changes: dict[str, Any]) -> None:
    one, rng = network(size, **changes), np.random.default_rng(1)
    module = one.to_torch()
    convolutions = [part for part in module.modules() if isinstance(part, torch.nn.modules.conv._ConvNd)]
    assert {type(part).__name__ for part in convolutions} == {f"Conv{len(size)}d"}
    x = rng.standard_normal((5, *size, 2)).astype(np.float32)
    expected, found = one(x), module(channels_first(x)).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(module(channels_first(x[:, ::-1].copy())).detach().numpy() - expected).max() > 1e-3


@pytest.mark.parametrize(("preset", "size"), BASELINES)
def test_baselines_have_the_same_logits(preset: str, size: tuple[int, ...]) -> None:
    one = randomised(make_config(preset), size, 3)
    x = np.random.default_rng(1).standard_normal((2, *size, 3)).astype(np.float32)
    expected, found = one(x), one.to_torch().eval()(channels_first(x)).detach().numpy()
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_a_network_that_ships_is_exported_and_trained_further() -> None:
    one = hcnn.load("hcnn-fast")
    images = load_dataset("sample").test_images[:8]
    x, expected = channels_first(images), one(images)
    module = one.to_torch()
    assert np.abs(module(x).detach().numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))
    state = {name: array.clone() for name, array in module.state_dict().items()}
    labels = torch.arange(8) % 10
    before = torch.nn.functional.cross_entropy(module(x), labels)
    before.backward()
    torch.optim.SGD(module.parameters(), 1e-4).step()
    assert torch.nn.functional.cross_entropy(module(x), labels) < before
    module.load_state_dict(state)
    assert np.abs(module(x).detach().numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_cannot_be_a_module_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match="scattering is ScatteringLayer, which is none of the layers that PyTorch has here"
    ):
        network((16, 16), scattering=1).to_torch()
