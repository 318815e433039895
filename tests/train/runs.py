"""Runs of a network small enough to be trained in a second, through the command line."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hcnn.__main__ import COMMANDS
from train import describe
from train.attributes import hubs, meaning, organisation
from train.data import Dataset
from train.runs import session, trained
from train.runs.compiling import COMPILING
from train.runs.training import Trainer

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    *("--preset", "sample", "--validation-size", "8", "--width", "4", "--factors", "4", "--depth", "5"),
    *("--strided-layers", "3", "4", "--batch-size", "8", "--epochs", "4", "--learning-rate", "0.02"),
)
"""Of 40 images 32 to train on, 4 steps an epoch."""

UNLIKE = ("seconds", "versions", "config", "digest")
"""Attributes in which checkpoints of equal runs differ."""

TIMES = ("seconds", "images_per_second", "evaluation_seconds", "first_step_seconds")


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, standard output and standard error."""

    status: int
    out: str
    err: str
    module: str = "train.cifar"

    def one_line(self, status: int, *fragments: str) -> str:
        """Check the status, and that one line on standard error holds every fragment; return the line."""
        assert self.status == status, self
        assert self.err.startswith(f"{self.module}: ") and self.err.endswith("\n") and self.err.count("\n") == 1, self
        assert [fragment for fragment in fragments if fragment not in self.err] == [], self
        return self.err

    def success(self) -> str:
        """Check that it succeeded and said nothing on standard error; return standard output."""
        assert (self.status, self.err) == (0, ""), self
        return self.out


def run_here(arguments: tuple[object, ...], dataset: Dataset | None) -> Outcome:
    """Run the command line in this process, on the given images, or on those that it names.

    Arguments that begin with a command of `hcnn` are that command's, all others those of training.
    """
    module, words = "train.cifar", [str(argument) for argument in arguments]
    if words and words[0] in COMMANDS:
        module = COMMANDS[words.pop(0)][0]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if dataset is not None:
            for user in (describe, session, trained):
                patch.setattr(user, "load", lambda name, reading, data_dir, **options: dataset)
        try:
            status = importlib.import_module(module).main(words)
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            status = stop.code
    return Outcome(status, out.getvalue(), without_notice(err.getvalue()), module)


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Let runs write neither a learning curve nor a report, which take nearly as long as training does."""
    patch.setattr("train.runs.plot.plot_learning_curve", lambda records, path, title: path.write_bytes(b"picture"))
    patch.setattr("train.runs.report.page", lambda *arguments: "report")


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
    """Run what is in the context without drawing."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


def run_plainly(arguments: tuple[object, ...], dataset: Dataset | None) -> Outcome:
    """As `run_here`, without pictures."""
    with without_pictures():
        return run_here(arguments, dataset)


def without_notice(err: str) -> str:
    """Standard error without the line that kernels are compiled, which is there where none were compiled before."""
    return "".join(line for line in err.splitlines(keepends=True) if COMPILING not in line)


def explore_here(dataset: Dataset | None, *arguments: object) -> Outcome:
    """Run the explorer in this process on the given images, or on those that it names, with few permutations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meaning, "PERMUTATIONS", 19)
        patch.setattr(hubs, "SAMPLES", 19)
        patch.setattr(organisation, "ORDERS", 19)
        return run_here(("explore", *arguments), dataset)


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start Python in a process of its own, as a terminal would: output buffered, Ctrl-C not ignored."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
    options["env"] = environment | options.get("env", {})
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits what is ignored
    try:
        return subprocess.Popen([sys.executable, *map(str, arguments)], text=True, **(pipes | options))
    finally:
        signal.signal(signal.SIGINT, before)


def finish(process: subprocess.Popen[str], text: str | None = None) -> Outcome:
    """Wait for a process, having sent it text; return what it left."""
    with process:
        out, err = process.communicate(text)
    return Outcome(process.returncode, out, without_notice(err))


WAITING = """
import sys
from train import cifar
from train.runs import plot
from train.runs.training import Trainer

take = Trainer._step

def announced(self, index):
    print("step", self.state.epoch + 1, self.state.step + 1, flush=True)
    sys.stdin.readline()
    return take(self, index)

Trainer._step = announced
plot.plot_learning_curve = lambda records, path, title: path.write_bytes(b"picture")
sys.exit(cifar.main())
"""
"""A training that waits for a line before each step."""


def until_step(process: subprocess.Popen[str], epoch: int, step: int) -> None:
    """Let a process of `WAITING` go on until it waits before a step."""
    assert process.stdin is not None and process.stdout is not None
    for line in process.stdout:
        if line == f"step {epoch} {step}\n":
            return
        if line.startswith("step"):
            process.stdin.write("\n")
            process.stdin.flush()
    raise AssertionError(finish(process))


class Killed(BaseException):
    """The process ends here, with no chance to save anything."""


def kill(*arguments: Any, **options: Any) -> Any:
    raise Killed


def killed(command: Callable[..., Outcome], *arguments: object) -> None:
    """Run a command that is killed."""
    with pytest.raises(Killed):
        command(*arguments)


def in_steps(patch: pytest.MonkeyPatch, action: Callable[[Trainer], Any]) -> None:
    """Do something at the end of each step of training."""
    take = Trainer._step

    def patched(self: Trainer, index: Any) -> Any:
        result = take(self, index)
        action(self)
        return result

    patch.setattr(Trainer, "_step", patched)


def is_at(trainer: Trainer, epoch: int, step: int) -> bool:
    """Return whether it takes a step, counted from 1."""
    return (trainer.state.epoch + 1, trainer.state.step + 1) == (epoch, step)


def in_step(patch: pytest.MonkeyPatch, epoch: int, step: int, action: Callable[[], Any]) -> None:
    """Do something at the end of one step of training, counted from 1."""
    in_steps(patch, lambda trainer: is_at(trainer, epoch, step) and action())


@contextlib.contextmanager
def interrupted_at_a_step() -> Iterator[None]:
    """Ctrl-C while a step is taken, which is the last one of each run here."""
    with pytest.MonkeyPatch.context() as patch:
        in_steps(patch, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
        yield


def contents(path: Path) -> dict[str, bytes]:
    """Every file below a directory, by name."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times."""
    lines = (path / "metrics.jsonl").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def checkpoints(path: Path) -> list[str]:
    """Names of the checkpoints in a run directory."""
    return sorted(p.name for p in path.glob("*.h5"))


def saved_state(path: Path) -> dict[str, Any]:
    """Every array and attribute of a checkpoint but times, versions and the digest of all, by name."""
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        found |= {name: value for name, value in file.attrs.items() if name not in UNLIKE}
    return found


def digest_of(file: Any) -> str:
    """SHA-256 of a line for each attribute and array, in the order of names, and its bytes; h5py and hashlib alone."""
    arrays: dict[str, Any] = {}
    file.visititems(lambda name, item: arrays.update({f"/{name}": item}) if isinstance(item, h5py.Dataset) else None)
    found = hashlib.sha256()
    for name, value in sorted({**{n: v for n, v in file.attrs.items() if n != "digest"}, **arrays}.items()):
        content = value.encode() if isinstance(value, str) else value[()].tobytes()
        kind = f"<U{max(len(value), 1)}" if isinstance(value, str) else value.dtype.str
        shape = () if isinstance(value, str) else value.shape
        found.update(f"{name} {kind} {shape} {len(content)}\n".encode() + content)
    return found.hexdigest()


@contextlib.contextmanager
def edited(path: Path) -> Iterator[Any]:
    """An open checkpoint to be changed; its digest is then that of its new content, so that it refuses no change."""
    with h5py.File(path, "r+") as file:
        yield file
        file.attrs["digest"] = digest_of(file)


def assert_same_state(found: Path, expected: Path) -> None:
    """Two checkpoints are equal bit for bit: parameters, momentum, moments, generator and counters."""
    have, want = saved_state(found), saved_state(expected)
    assert have.keys() == want.keys()
    for name, value in want.items():
        assert np.asarray(have[name]).dtype == np.asarray(value).dtype, name
        assert np.asarray(have[name]).tobytes() == np.asarray(value).tobytes(), name


def assert_same_run(found: Path, expected: Path) -> None:
    """Two runs have the same metrics, but for times, and the same last and best checkpoint."""
    assert metrics(found) == metrics(expected)
    for name in ("best.h5", "epoch0004-step000000.h5"):
        assert_same_state(found / name, expected / name)
