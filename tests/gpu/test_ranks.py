"""Ranks on GPUs, without one: steps by CUDA kernels compiled for the processor, and sums by a stand-in for NCCL."""

from __future__ import annotations

import ctypes
import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.train.test_distributed import Problem, difference
from tests.train.threads import on_ranks
from train.ranks.ranks import Ranks
from train.recipes.metrics import METRICS

STEPS = 3


@pytest.mark.parametrize("normalization", ["factors", "both"])
def test_ranks_take_the_steps_of_one_by_cuda_kernels(kernels_on_host: list[str], normalization: str) -> None:
    problem = Problem(normalization=normalization, dtype="float32")
    expected = problem.run(Ranks(), STEPS)[0]
    kernels_on_host.clear()
    found = on_ranks(2, lambda ranks: problem.run(ranks, STEPS)[0], in_turn=True)
    assert {"gram", "spread"} <= set(kernels_on_host)
    assert difference(found[0], expected) <= problem.bound(STEPS)


class Nccl:
    """What CuPy has of NCCL, for ranks that are threads."""

    NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 7, 8, 0
    available = True

    def __init__(self, size: int) -> None:
        self.barrier, self.board = threading.Barrier(size), [None] * size

    def get_unique_id(self) -> tuple[int, ...]:
        return (1, 2, 3)

    def NcclCommunicator(self, size: int, identifier: Any, rank: int) -> Any:
        assert identifier == (1, 2, 3) and size == len(self.board)

        def all_reduce(source: int, target: int, count: int, kind: int, operation: int, stream: int) -> None:
            number = {self.NCCL_FLOAT32: ctypes.c_float, self.NCCL_FLOAT64: ctypes.c_double}[kind]
            assert operation == self.NCCL_SUM and stream == 42
            given, taken = (np.ctypeslib.as_array((number * count).from_address(a)) for a in (source, target))
            self.board[rank] = given
            self.barrier.wait(60)
            taken[:] = sum(self.board)
            self.barrier.wait(60)

        return SimpleNamespace(allReduce=all_reduce)


def stand_in(nccl: Any, devices: int) -> Any:
    """A module that is what `backend` uses of CuPy."""
    used = threading.local()

    def device(index: int) -> Any:
        return SimpleNamespace(use=lambda: setattr(used, "index", index), pci_bus_id=f"0000:{index:02x}:00.0")

    cuda = SimpleNamespace(
        Device=device,
        nccl=nccl,
        runtime=SimpleNamespace(getDeviceCount=lambda: devices),
        get_current_stream=lambda: SimpleNamespace(ptr=42),
    )
    return SimpleNamespace(cuda=cuda, ascontiguousarray=np.ascontiguousarray, empty_like=np.empty_like)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nccl_sums_where_every_rank_has_a_device(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nccl = Nccl(2)
    module = stand_in(nccl, devices=2)
    for name, value in {"cupy": module, "cupy.cuda": module.cuda, "cupy.cuda.nccl": nccl}.items():
        monkeypatch.setitem(sys.modules, name, value)
    array = np.arange(12, dtype=dtype).reshape(3, 4)

    def work(ranks: Ranks) -> Any:
        ranks.use_devices(module)
        before = len(ranks.comm.messages)
        total = ranks.all_reduce(((1 + ranks.rank) * array).T)
        assert len(ranks.comm.messages) == before and ranks._on_device
        return total

    for found in on_ranks(2, work):
        assert found.dtype == dtype and np.array_equal(found, 3 * array.T)


@pytest.mark.parametrize(("devices", "available"), [(1, True), (2, False)])
def test_ranks_that_share_a_device_sum_by_mpi(devices: int, available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    nccl = Nccl(2)
    nccl.available = available
    module = stand_in(nccl, devices)
    for name, value in {"cupy": module, "cupy.cuda": module.cuda, "cupy.cuda.nccl": nccl}.items():
        monkeypatch.setitem(sys.modules, name, value)

    def work(ranks: Ranks) -> Any:
        ranks.use_devices(module)
        assert ranks._on_device is None
        return ranks.all_reduce(np.ones(3))

    assert np.array_equal(on_ranks(2, work)[1], np.full(3, 2.0))


def test_a_rank_that_waits_for_nccl_is_watched() -> None:
    """NCCL sums while the host goes on, so a rank without partners waits where it reads the sum."""
    ranks, waiting = Ranks(), []

    class Number(float):
        def __float__(self) -> float:
            waiting.append(ranks.waiting)
            return 0.0

    class Total(np.ndarray[Any, Any]):
        def __getitem__(self, index: Any) -> Any:
            return Number() if isinstance(index, int) and index == -1 else super().__getitem__(index)

    ranks.all_reduce = lambda array: array.view(Total)
    ranks.sum_step({"w": np.ones(3)}, np.asarray(1.0), {"accuracy": np.asarray(2)}, 0.5, METRICS)
    assert waiting == [True] and not ranks.waiting
