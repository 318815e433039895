"""One trial of a sweep, in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from train.commands.process import LAUNCHERS
from train.config import Config, make_config, read_toml, resolved
from train.runs.checkpoint import Checkpoint
from train.runs.run import Run, RunError
from train.storage.files import open_regular
from train.storage.lock import HeldError, locked

FINISHED, OUT_OF_TIME, FAILED, STOPPED, WAITING = "finished", "out of time", "failed", "stopped", "waiting"
IN_USE = "in use by another process"

PATIENCE = 60.0
"""Seconds that a trial waits for another process with its run, such as one of a killed sweep that still saves."""

PLACE = str(Path(__file__).resolve().parents[2])
CHILD = f"""import sys
sys.path.append({PLACE!r})
from hcnn.train.commands.console import end_with_parent, run
end_with_parent()
sys.exit(run("train.cifar"))
"""
"""The command of a trial's process, with `-P`: modules of the working directory do not replace others."""

SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Signals that stop a sweep and its trials."""

_children: set[subprocess.Popen[bytes]] = set()
_stop = threading.Event()


def run_trial(folder: Path, number: int, minutes: float, deadline: float, threads: int) -> str:
    """Train one trial in a process of its own, from its last checkpoint where there is one."""
    run = Run(run_path(folder, number))
    patience = time.monotonic() + PATIENCE
    while (in_use := _is_in_use(run)) and time.monotonic() < patience and not _stop.wait(0.2):
        pass
    if time.time() >= deadline or _stop.is_set():
        return WAITING
    if in_use:
        return IN_USE
    file = run.path.with_suffix(".toml")
    config, checkpoint = of_file(file), _latest(run)
    if checkpoint is not None:  # what a run may change as it goes on does not make it another
        data = checkpoint.image_size, checkpoint.targets.kind, str(file)
        same = dataclasses.replace(checkpoint.config, data_dir=config.data_dir, backend=config.backend)
        if resolved(same, *data) != resolved(config, *data):
            raise RunError(f"{run.path} was trained with other settings than {file} gives; remove it")
    flags: list[str] = ["--config", str(file), "--out", str(run.path)]
    if run.checkpoint_paths():  # a function is called only if it is named
        flags = ["--resume", str(run.path), "--dataset", config.dataset]
    hours = minutes / 60 - _seconds_of_training(run, checkpoint) / 3600
    if hours <= 0:
        return OUT_OF_TIME
    status = _status(flags + (["--hours", repr(hours)] if hours < math.inf else []), threads, run.path)
    if -status in SIGNALS or status - 128 in SIGNALS:
        return STOPPED
    if status:
        return IN_USE if _is_in_use(run) else FAILED
    latest = _latest(run)
    return FINISHED if latest is not None and latest.state.epoch == latest.config.epochs else OUT_OF_TIME


def _status(flags: list[str], threads: int, run: Path) -> int:
    """Train in a process of its own, which `stop_trials` ends, and return its exit status."""
    # a worker that a launcher of MPI started is no reason for its trials to look for others
    environment = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    if threads and not {"HCNN_NUM_THREADS", "OMP_NUM_THREADS"} & environment.keys():
        environment |= {"HCNN_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    with (
        open(run.with_suffix(".log"), "ab", opener=open_regular) as output,
        subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, *flags],
            stdin=subprocess.PIPE,  # which ends with this process
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C comes to the sweep, which stops its trials
        ) as process,
    ):
        _children.add(process)
        try:
            if _stop.is_set():  # since it was started
                process.terminate()
            return process.wait()
        finally:
            _children.discard(process)


def _is_in_use(run: Run) -> bool:
    """Whether another process has the run's directory."""
    if not run.path.is_dir():
        return False
    try:
        with locked(run.path / ".lock"):
            return False
    except HeldError:
        return True
    except OSError:  # which the trial itself says more of
        return False


def _latest(run: Run) -> Checkpoint | None:
    """Return the latest whole checkpoint, or None."""
    with contextlib.suppress(RunError):
        return run.latest()[1]
    return None


def _seconds_of_training(run: Run, checkpoint: Checkpoint | None) -> float:
    """Seconds of all epochs, and of the one in which it was stopped."""
    spent: float = sum(record.get("seconds", 0.0) for record in records_of(run))
    return spent + checkpoint.state.seconds if checkpoint is not None and checkpoint.state.step else spent


def of_file(path: Path) -> Config:
    """Return the configuration in a trial's file."""
    settings = read_toml(path, regular=True)
    return make_config(settings.get("preset", "hcnn"), settings)


def records_of(run: Run) -> list[dict[str, Any]]:
    """Return the records of a trial's epochs; none before it begins. RunError if one is damaged."""
    records = [r for r in run.read_metrics() if "train_loss" in r] if run.metrics_path.is_file() else []
    for record in records:
        for name, value in record.items():
            if name.startswith(("seconds", "train_loss", "validation_")) and not isinstance(value, int | float):
                raise RunError(f"{run.metrics_path}: {name} of epoch {record['epoch']} is no number")
    return records


def run_path(folder: Path, number: int) -> Path:
    """Return the directory of a trial's run."""
    return folder / f"trial{number:04d}"


def stop_trials() -> None:
    """Let the trials of this process save and end, and no other begin."""
    _stop.set()
    for process in list(_children):
        with contextlib.suppress(OSError):
            process.terminate()


def allow_trials() -> None:
    """Let trials begin again."""
    _stop.clear()
