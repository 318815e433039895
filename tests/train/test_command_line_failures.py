"""The command line when memory, numbers or the backend fail."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hcnn_core.backend import _namespaces
from tests.train.commands import Command, needs_proc
from tests.train.runs import (
    SMALL,
    Outcome,
    checkpoints,
    contents,
    edited,
    finish,
    in_step,
    in_steps,
    is_at,
    metrics,
    saved_state,
    start,
)
from train.config import make_config
from train.data import INFO
from train.networks.network import Network
from train.runs import memory as _memory
from train.runs import session
from train.runs.fit import namespace
from train.runs.session import Session
from train.runs.training import Trainer, TrainingError

DATA = INFO["sample"]

# Memory


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(session, "available_bytes", lambda xp: size)


@pytest.mark.parametrize("preset", ["hcnn", "hcnn-plus"])
def test_too_large_a_batch_is_refused_with_the_largest_that_fits(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    size = 3 * 2**30
    free(monkeypatch, size)
    arguments = ("--preset", preset, "--dataset", "sample", "--batch-size", 5000, "--out", tmp_path / "run")
    line = command(*arguments).one_line(1, "a batch of 5000 needs about", "3.0 GiB are free", "would fit")
    fits = int(re.findall(r"--batch-size (\d+) would fit", line)[0])
    config = make_config(preset, {"dataset": "sample"})
    assert 1 <= fits < 5000
    largest = _memory.batch_that_fits(config, DATA, size)
    assert _memory.required_bytes(config, DATA, largest) <= size < _memory.required_bytes(config, DATA, largest + 1)
    assert fits == largest - largest // 8  # as free memory varies from one process to the next
    assert list(tmp_path.iterdir()) == []


def test_the_batch_that_fits_is_accepted(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("sample", {"width": 4, "factors": 4, "depth": 5, "strided_layers": (3, 4)})
    free(monkeypatch, _memory.required_bytes(config, DATA, 5))
    line = command(*SMALL, "--out", tmp_path / "run").one_line(1, "--batch-size 5 would fit")
    assert "a batch of 8 " in line
    command(*SMALL, "--epochs", 1, "--batch-size", 5, "--out", tmp_path / "run").success()


def test_ranks_of_one_host_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("sample", {"batch_size": 16})
    free(monkeypatch, _memory.required_bytes(config, DATA, 8))
    ranks: Any = types.SimpleNamespace(size=2, local_size=1)
    Session(ranks)._require_memory(np, config, DATA)
    ranks.local_size = 2
    with pytest.raises(TrainingError, match="a batch of 16 needs"):
        Session(ranks)._require_memory(np, config, DATA)


def test_a_network_of_which_no_image_fits(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**30)
    for flags in (("--width", 10**6), ("--factors", 10**9)):
        outcome = command(*SMALL, *flags, "--out", tmp_path / "run")
        outcome.one_line(1, "not even one image fits", "--width", "--factors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "advice"), [(8, "--batch-size 4 would fit"), (1, "not even one image fits")])
def test_memory_that_runs_out_in_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, advice: str
) -> None:
    """The estimate was wrong: half the batch then; the epochs that are complete stay."""

    def fail(trainer: Trainer) -> None:
        if trainer.state.epoch == 1:
            raise MemoryError("Unable to allocate 3 GiB")

    in_steps(monkeypatch, fail)
    arguments = (*SMALL, "--train-size", 16, "--batch-size", size, "--out", tmp_path / "run")
    command(*arguments).one_line(1, f"not enough memory for a batch of {size}", advice)
    assert "epoch0001-step000000.h5" in checkpoints(tmp_path / "run")


@pytest.mark.parametrize(
    "flags",
    [
        ("--width", 10**6),
        ("--factors", 10**10),
        ("--space-kernel", 20_000),
        ("--attribute-kernel", 10**6, 10**6),
        ("--batch-size", 10**9),
        ("--attribute-stride", 1, "--width", 3000),
    ],
    ids=str,
)
def test_what_no_memory_holds_is_refused_before_any_work(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[object, ...]
) -> None:
    free(monkeypatch, 2**40)
    monkeypatch.setattr(session, "load", None)
    command(*SMALL, *flags, "--out", tmp_path / "run").one_line(1, "needs about", "GiB", "are free")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_claims_a_large_network_is_refused_before_one_is_made(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.h5"
    shutil.copy(trained / "best.h5", path)
    with edited(path) as file:
        file.attrs["config"] = json.dumps(json.loads(file.attrs["config"]) | {"width": 10**8})
    monkeypatch.setattr(Network, "initialize", None)
    command("--evaluate", path).one_line(1, "not enough memory", "weights need", "GiB are free")


def test_memory_of_a_container(tmp_path: Path) -> None:
    def group(limit: str, used: int, cached: int) -> int | None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 1\n")
        return _memory._control_group(tmp_path)

    assert group("1000", 700, 99) == 1000 - 700 + 100
    assert group("1000", 1200, 99) == 0
    assert group("max", 700, 99) is None
    assert _memory._control_group(tmp_path / "absent") is None
    (tmp_path / "memory.max").write_text("much")
    assert _memory._control_group(tmp_path) is None


LIMITED = """
import resource, sys
from train import cifar
from train.runs.memory import available_bytes
import numpy as np

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 800 * 2**20, resource.RLIM_INFINITY))
assert available_bytes(np) < 800 * 2**20
sys.exit(cifar.main())
"""


@needs_proc
@pytest.mark.slow
def test_address_space_that_is_limited(tmp_path: Path) -> None:
    """As by `ulimit -v`: refused before anything is made, and the batch that is said to fit does."""

    def train(size: str) -> Outcome:
        arguments = ("--preset", "sample", "--validation-size", 0, "--train-size", size, "--epochs", 1, "--no-test")
        environment = {"HCNN_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
        flags = (*arguments, "--backend", "numpy", "--batch-size", size, "--out", tmp_path / "run")
        return finish(start("-c", LIMITED, *flags, env=environment))

    line = train("2000").one_line(1, "a batch of 2000 needs about", "--batch-size", "would fit")
    assert not (tmp_path / "run").exists()
    (size,) = re.findall(r"--batch-size (\d+)", line)
    assert 1 <= int(size) < 100
    assert f"on {size} images" in train(size).success()


# What is not finite


def spoil(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int, layer: str, name: str) -> None:
    """Make a weight NaN at the end of one step, counted from 1."""

    def act(trainer: Trainer) -> None:
        if is_at(trainer, epoch, step):
            weights = trainer.state.parameters[layer]
            weights[name] = weights[name] * np.float32("nan")

    in_steps(monkeypatch, act)


@pytest.mark.parametrize(
    ("layer", "name", "first"),
    [
        ("layer01", "w", "layer 1"),
        ("layer02", "w", "layer 2"),
        ("layer03", "h", "layer 3"),
        ("layer04", "g", "layer 4"),
        ("head", "scale", "the logits"),
    ],
)
def test_loss_that_is_not_finite(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch, layer: str, name: str, first: str
) -> None:
    spoil(monkeypatch, 2, 3, layer, name)
    command(*SMALL, "--out", path).one_line(
        1, "the loss is nan at epoch 2, step 4", f"first not finite: {first};", str(path / "epoch0001-step000000.h5")
    )
    assert [line["epoch"] for line in metrics(path)] == [1]
    assert checkpoints(path) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]
    assert all(
        np.isfinite(value).all()
        for value in saved_state(path / "epoch0001-step000000.h5").values()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    )


def test_weights_spoilt_by_the_last_step_of_an_epoch_are_not_saved(
    command: Command, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 2, 4, "layer03", "h")
    command(*SMALL, "--out", path).one_line(
        1, "layer03/h is not finite at epoch 2, step 4", str(path / "epoch0001-step000000.h5")
    )
    assert checkpoints(path) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]


def test_weights_spoilt_by_the_step_that_a_signal_interrupts_are_not_saved(
    command: Command, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 2, 2, "layer04", "bias")
    in_step(monkeypatch, 2, 2, lambda: signal.raise_signal(signal.SIGTERM))
    command(*SMALL, "--out", path).one_line(1, "layer04/bias is not finite at epoch 2, step 2")
    assert checkpoints(path) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]


def test_too_high_a_learning_rate_in_a_process_of_its_own(tmp_path: Path) -> None:
    """One line on standard error: what NumPy has to say of overflow does not come before it."""
    process = start("-m", "train.cifar", *SMALL, "--learning-rate", "1e30", "--out", tmp_path / "run")
    finish(process).one_line(1, "the loss is", "at epoch 1, step", "first not finite: layer", "lower --learning-rate")


# Backends


def fake_cupy(
    monkeypatch: pytest.MonkeyPatch, *, driver: int = 13000, devices: int = 1, error: Exception | None = None
) -> None:
    """A CuPy that finds less than it needs."""

    def version() -> int:
        if not driver:
            raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver\nversion is insufficient")
        return driver

    def zeros(n: int) -> Any:
        if error:
            raise error

    runtime = types.SimpleNamespace(
        driverGetVersion=version, runtimeGetVersion=lambda: 13020, getDeviceCount=lambda: devices
    )
    cupy = types.SimpleNamespace(
        cuda=types.SimpleNamespace(runtime=runtime), zeros=zeros, arange=zeros, __name__="cupy"
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]]] = {
    "wheel": (lambda patch: patch.setitem(sys.modules, "cupy", None), ("not installed", "cupy-cuda12x")),
    "driver": (lambda patch: fake_cupy(patch, driver=0), ("driver", "cudaErrorInsufficientDriver", "install")),
    "newer driver": (
        lambda patch: fake_cupy(patch, driver=12040),
        ("supports CUDA 12", "needs CUDA 13", "extra cuda12"),
    ),
    "device": (lambda patch: fake_cupy(patch, devices=0), ("no CUDA device", "GPU")),
    "kernel": (
        lambda patch: fake_cupy(patch, error=RuntimeError("cudaErrorNoKernelImageForDevice")),
        ("cannot use the CUDA device", "NoKernelImage"),
    ),
    "free device": (
        lambda patch: fake_cupy(patch, error=RuntimeError("cudaErrorDevicesUnavailable: all are busy or unavailable")),
        ("cannot use the CUDA device", "DevicesUnavailable", "end the other process that holds it"),
    ),
    "memory": (
        lambda patch: fake_cupy(patch, error=MemoryError("out of memory allocating 512 bytes")),
        ("no memory left", "512 bytes", "end what else runs"),
    ),
}


@pytest.mark.parametrize("missing", BROKEN)
def test_cupy_without_a_usable_gpu_says_what_is_missing(
    command: Command, trained: Path, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    prepare, fragments = BROKEN[missing]
    prepare(monkeypatch)
    before = contents(tmp_path)
    for arguments in ((*SMALL, "--out", tmp_path / "run"), ("--resume", part), ("--evaluate", trained / "best.h5")):
        command(*arguments, "--backend", "cupy").one_line(1, "--backend cupy", *fragments)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("missing", BROKEN)
def test_auto_takes_numpy_where_no_gpu_is_usable(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    BROKEN[missing][0](monkeypatch)
    assert namespace(make_config().backend) is np


def test_what_cupy_warns_of_when_imported_is_not_shown(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard error stays one line, or none; --debug shows it."""

    def noisy() -> Any:
        warnings.warn("CUDA path could not be detected", stacklevel=2)
        raise RuntimeError("CuPy found no CUDA device: this machine shows no NVIDIA GPU")

    monkeypatch.setattr(_namespaces, "_usable_cupy", noisy)
    command(*SMALL, "--backend", "cupy", "--out", tmp_path / "a").one_line(1, "no CUDA device")
    command(*SMALL, "--epochs", 1, "--out", tmp_path / "b").success()
    with pytest.warns(UserWarning, match="CUDA path"):
        command(*SMALL, "--backend", "cupy", "--debug", "--out", tmp_path / "c")
