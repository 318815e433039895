"""A native function where there is one that takes the arrays, else the generic one."""

from __future__ import annotations

import inspect
from typing import Any

import array_api_strict
import numpy as np
import pytest

from hcnn_core import explain
from hcnn_core._engines import devices
from hcnn_core._engines.devices import DEVICES, module_of
from hcnn_core._engines.dispatch import engine, native
from hcnn_core._tuning import current

pytest.importorskip("numba")

CALLED = {
    "elementwise": ["elu", "elu_vjp", "relu", "relu_vjp", "marginal", "add"],
    "filters": ["normalize", "normalize_vjp", "merge", "merge_vjp"],
    "matmul": ["matmul"],
    "normalization": ["forward", "vjp"],
    "patches": ["make"],
    "updates": ["weighted_sums"],
}
"""What public files call of each module that has a generic form."""


@pytest.mark.parametrize(
    ("room", "name"), [(device.name, name) for device in DEVICES for name in sorted(device.modules)]
)
def test_a_native_module_takes_the_calls_of_the_generic_one(room: str, name: str) -> None:
    found = module_of(room, name)
    for function in CALLED.get(name, []):
        here, there = (getattr(module, function) for module in (found, module_of("generic", name)))
        if inspect.isfunction(there):
            assert list(inspect.signature(here).parameters) == list(inspect.signature(there).parameters), function


@pytest.mark.parametrize("library", ["torch", "jaxlib"])
def test_tensors_on_the_cpu_are_planned_as_arrays_of_numpy(library: str) -> None:
    class Tensor:
        __module__ = library

        def __init__(self, array: Any) -> None:
            self.array = array
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    x, w = np.ones((4, 64), np.float32), np.ones((3, 5), np.float32)
    here, tensors, elsewhere = (
        explain(convert(x), convert(w), 1, boundary="zero")
        for convert in (np.asarray, Tensor, array_api_strict.asarray)
    )
    assert tensors == here != elsewhere  # in prices


def test_arrays_that_no_native_module_takes_go_the_generic_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def room(name: str, *arrays: Any) -> str:
        return engine(name, *arrays).__name__.split(".")[-2]

    few, many = np.zeros(3), np.zeros(current().elementwise_elements)
    assert room("elementwise", few) == "generic"
    assert room("elementwise", many) == "cpu"
    assert room("patches", many.reshape(4, 8, -1), (0, 1), 3, "zero") == "cpu"
    assert room("patches", many.reshape(4, 8, -1), (0, 1, 2), 3, "zero") == "generic"
    assert room("pooling", many) == "generic"
    assert native("pooling", many) is None
    assert native("loss", many) is None
    monkeypatch.setattr(devices, "has_compiled_kernels", lambda: False)
    assert room("elementwise", many) == "generic"
