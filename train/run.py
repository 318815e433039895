"""A run directory: config.toml, metrics.jsonl, checkpoints, the learning curve. Nothing in it is ever overwritten."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from train import checkpoint as checkpoints
from train._files import write_atomically
from train.checkpoint import Checkpoint, CheckpointError
from train.config import Config, to_toml

KEPT = 3
"""How many of the latest checkpoints stay, besides the best."""

BEST = "best.h5"


class RunError(RuntimeError):
    """A run directory that cannot be made, written or continued; the message is one line."""


def versions(backend: str) -> dict[str, str]:
    """Return the versions of what computes a run: the packages, Python and the machine's architecture.

    Parameters
    ----------
    backend : str
        Name of the array namespace.

    Returns
    -------
    dict of str to str
        Versions by name.
    """
    names = ["hcnn", "numpy", "scipy", "numba", "h5py"] + (
        ["cupy-cuda12x", "cupy-cuda13x"] if backend == "cupy" else []
    )
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version(), "machine": platform.machine(), "backend": backend}


class Run:
    """The files of one run.

    Parameters
    ----------
    path : Path
        Its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def require_new(self) -> None:
        """Raise RunError if there is a file of a run in the directory, or it is no directory."""
        path = self.path
        if os.path.lexists(path) and not path.is_dir():
            raise RunError(f"--out {path} is a file; name a directory")
        resumable = f", or continue it with --resume {path}" if self.checkpoint_paths() else ""
        files = (self.config_path, self.metrics_path, self.picture_path, path / BEST)
        if resumable or any(file.exists() for file in files):
            raise RunError(f"--out {path} holds a run already; name another directory{resumable}")

    def create(self, config: Config, versions: Mapping[str, str]) -> None:
        """Make the directory of a new run, unless it is there without a run in it, and write the configuration.

        Parameters
        ----------
        config : Config
            What to write to config.toml.
        versions : mapping of str to str
            Recorded beside it.

        Raises
        ------
        RunError
            If there is a run already, or the directory cannot be made or written.
        """
        self.require_new()
        path = self.path
        text = to_toml(config, versions).encode()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.config_path.touch(exist_ok=False)  # of two runs begun at once, one gets it
        except FileExistsError as error:
            raise RunError(f"--out {path} holds a run already; name another directory") from error
        except OSError as error:
            raise RunError(f"cannot write the run to {path}: {error.strerror or error}") from error
        try:
            write_atomically(self.config_path, text)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.config_path.unlink()
            raise RunError(f"cannot write the run to {path}: {error.strerror or error}") from error

    @property
    def config_path(self) -> Path:
        """Every setting, in TOML."""
        return self.path / "config.toml"

    @property
    def metrics_path(self) -> Path:
        """One JSON record per line and epoch, and one of the test."""
        return self.path / "metrics.jsonl"

    @property
    def picture_path(self) -> Path:
        """The learning curve."""
        return self.path / "learning-curve.png"

    def checkpoint_paths(self) -> list[Path]:
        """Return the checkpoints in the order they were made, without the best.

        Returns
        -------
        list of Path
            Oldest first.
        """
        return sorted(self.path.glob("epoch????-step??????.h5"))

    def latest(self) -> Checkpoint:
        """Return the latest checkpoint that is whole.

        Returns
        -------
        Checkpoint
            The one to go on from.

        Raises
        ------
        RunError
            If there is no run, or none of its checkpoints can be read.
        """
        if not self.config_path.is_file():
            raise RunError(f"{self.path} holds no run to resume: it has no config.toml")
        paths = self.checkpoint_paths()
        if not paths:
            raise RunError(f"{self.path} has no checkpoint yet; start the run anew in another directory")
        failure: CheckpointError | None = None
        for path in reversed(paths):
            try:
                return checkpoints.load(path)
            except CheckpointError as error:
                failure = failure or error
        raise RunError(str(failure))

    def last_good(self) -> str:
        """Say which checkpoint there is to go on from.

        Returns
        -------
        str
            Part of a sentence.
        """
        paths = self.checkpoint_paths()
        return f"the last good checkpoint is {paths[-1]}" if paths else "no checkpoint was due before it"

    def save(self, checkpoint: Checkpoint, versions: dict[str, str], *, best: bool) -> Path:
        """Write a checkpoint, also as the best if it is, and drop those no longer kept.

        Parameters
        ----------
        checkpoint : Checkpoint
            What to write.
        versions : dict of str to str
            Recorded beside it.
        best : bool
            Whether no epoch before scored higher.

        Returns
        -------
        Path
            The file.
        """
        path = self.path / f"epoch{checkpoint.state.epoch:04d}-step{checkpoint.state.step:06d}.h5"
        if best:  # first, since a run that goes on from `path` takes its best for saved
            checkpoints.save(self.path / BEST, checkpoint, versions)
        checkpoints.save(path, checkpoint, versions)
        for old in self.checkpoint_paths()[:-KEPT]:
            with contextlib.suppress(OSError):
                old.unlink()
        return path

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and flush it to the disk.

        Parameters
        ----------
        record : mapping
            What JSON can hold.
        """
        try:
            with open(self.metrics_path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"cannot write {self.metrics_path}: {error.strerror or error}") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl; a last line cut short by a crash is left out.

        Returns
        -------
        list of dict
            In the order they were written.
        """
        if not self.metrics_path.is_file():
            raise RunError(f"{self.path} holds no run: it has no metrics.jsonl")
        records = []
        lines = self.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                if number == len(lines):
                    break
                raise RunError(f"{self.metrics_path}, line {number}, is not JSON: {error.msg}") from error
            if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
                raise RunError(f"{self.metrics_path}, line {number}, is not the record of an epoch")
            records.append(record)
        return records

    def test_figures(self, epoch: int) -> dict[str, float]:
        """Return what the test set said of the network after an epoch; nothing where it was not read then.

        Parameters
        ----------
        epoch : int
            The epochs it was trained for.

        Returns
        -------
        dict of str to float
            Those keys of the record that begin with "test".

        Raises
        ------
        RunError
            As `read_metrics`.
        """
        records = [record for record in self.read_metrics() if record["epoch"] == epoch]
        return {key: value for record in records for key, value in record.items() if key.startswith("test")}

    def forget_metrics_after(self, epoch: int) -> None:
        """Drop the records of epochs that will be trained again, after a stop between record and checkpoint.

        Parameters
        ----------
        epoch : int
            The last epoch whose record stays.
        """
        if not self.metrics_path.is_file():
            return
        kept = [record for record in self.read_metrics() if record["epoch"] <= epoch]
        try:
            write_atomically(self.metrics_path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        except OSError as error:
            raise RunError(f"cannot write {self.metrics_path}: {error.strerror or error}") from error
