"""Training steps by CUDA kernels can be recorded: after the first no table is sent, no product left to cuBLAS."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from autodiff import _constants, tree_leaves
from hcnn_core.backend import _device, record
from train.config import make_config
from train.data import Images
from train.data import augmentation as augmentation_module
from train.networks.registry import build
from train.runs.step import gradient_step, initial_arrays


def refused(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("this sends a table to the device, or is cuBLAS")


@pytest.mark.parametrize(
    "settings", [{}, {"boundary": "periodic", "optimizer": "muon"}, {"nonlinear_factors": True, "average_decay": 0.9}]
)
def test_a_second_step_sends_no_table(
    kernels_on_host: list[str], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    small = {"width": 4, "factors": 4, "depth": 6, "strided_layers": (4,), "shift": 2}
    config = make_config("sample", {**small, **settings})
    network = build(config, image_size=8)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (20, 8, 8, 3), np.uint8), rng.integers(0, 10, 20)
    images = Images(pixels, labels, np.full(3, 120.0), np.full(3, 60.0), config.dtype)
    arrays = initial_arrays(network, network.initialize(rng))
    numbers = {
        name: np.asarray(0.1, config.dtype)
        for name in ("rate", "step", "moments_kept", "moments_taken", "average_kept")
    }
    inputs = {"index": np.arange(5), "rows": np.tile(np.arange(8), (5, 1)), "columns": np.tile(np.arange(8), (5, 1))}
    step = gradient_step(config, network, images)
    first = step(arrays, {**inputs, **numbers})

    monkeypatch.setattr(_constants, "_fingerprint", lambda x: b"")  # of NumPy's arrays alone
    for module in (_device, augmentation_module):
        monkeypatch.setattr(module, "constant", refused)
    for name in ("matmul", "dot", "tensordot", "einsum", "concatenate", "stack"):
        monkeypatch.setattr(np, name, refused)
    kernels_on_host.clear()
    second = step(arrays, {**inputs, **numbers})
    assert {"multiply", "merge", "normalize"} & set(kernels_on_host)
    for one, other in zip(tree_leaves(second), tree_leaves(first), strict=True):
        assert np.array_equal(one, other)


class Recorder:
    """What `record` asks of CuPy, whose pool grows in the calls before the last of these."""

    def __init__(self, calls: int) -> None:
        self.calls, self.taken, self.size, self.recorded = calls, 0, 0, list[int]()
        self.cuda = self.fft = self.config = self

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None: ...

    def total_bytes(self) -> int:
        return self.size

    def begin_capture(self) -> None:
        self.recorded.append(self.taken)

    def work(self) -> int:
        self.taken += 1
        self.size += self.taken < self.calls
        return self.taken


@pytest.mark.parametrize(("calls", "before"), [(2, 2), (3, 3), (4, 4), (9, 4)])
def test_a_function_is_rehearsed_until_it_takes_no_more_memory(
    monkeypatch: pytest.MonkeyPatch, calls: int, before: int
) -> None:
    """Its second call may divide the pool's blocks otherwise than its first: a step of a network with dropout did."""
    recorder = Recorder(calls)
    monkeypatch.setitem(sys.modules, "cupy", recorder)
    _, result = record(recorder.work)
    assert recorder.recorded == [before] and result == before + 1
