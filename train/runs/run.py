"""A run directory: config.toml, metrics.jsonl, checkpoints, the learning curve. One process at a time writes there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import signal
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from train.config import Config, read_toml, to_toml
from train.recipes.tasks import task_of
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, CheckpointError, UnreadableError
from train.storage.files import make_folder, open_regular, read_text, remove_partial_files, write_atomically
from train.storage.lock import HeldError, locked

KEPT_CHECKPOINTS = 3
"""How many of the latest checkpoints are kept, besides the best."""

BEST = "best.h5"

CHANGEABLE = "backend", "data_dir", "dataset", "epochs"
"""Settings that a run may change as it goes on."""

DATA = "samples.json"
"""The description of a run's samples."""


class RunError(RuntimeError):
    """A run directory that cannot be made, written or continued; the message is one line."""


class TrainingError(RuntimeError):
    """Training that cannot go on; the message is one line."""


class Interrupted(RuntimeError):
    """Work stopped by a signal; the message is one line that says what is saved."""

    def __init__(self, message: str, signum: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def writing(what: object) -> Iterator[None]:
    """Raise RunError, which says what cannot be written and why, in place of OSError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {what}: {error.strerror or error}") from error


@contextlib.contextmanager
def held(folder: Path, what: object, *, make: bool = False) -> Iterator[Callable[[], None]]:
    """Keep every other process from writing to a folder, until the context is left or this process dies.

    Files that earlier processes left half written are removed first. Yields what raises HeldError if another process
    has the lock, which was removed by hand.
    """
    with contextlib.ExitStack() as stack:
        try:
            with writing(what):
                if make:
                    make_folder(folder, exist_ok=True)
                keep = stack.enter_context(locked(folder / ".lock"))
        except HeldError as error:
            raise RunError(
                f"{folder} is in use by {error}; wait for it or end it, or name another directory"
            ) from error
        remove_partial_files(folder)
        yield keep


def take_name(wanted: Path, what: object) -> Path:
    """Make a directory; if another process has taken the name, with -2, -3 and so on behind it."""
    for path in (wanted, *(wanted.with_name(f"{wanted.name}-{n}") for n in range(2, 1000))):
        with writing(what), contextlib.suppress(FileExistsError):
            make_folder(path)
            return path
    raise RunError(f"{wanted} and 998 more names are taken; name a directory with --out")


def versions(backend: str) -> dict[str, str]:
    """Return the versions of the packages and Python, the architecture, processor and system."""
    names = ["hcnn", "numpy", "scipy", "numba", "h5py"]
    names += ["cupy-cuda12x", "cupy-cuda13x"] if backend == "cupy" else []
    installed = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return {
        **installed,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "system": platform.platform(),
        "backend": backend,
    }


def _processor() -> str:
    """Return the processor's name, and how many of them this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{count} x {name or 'unknown'}"


class Run:
    """The files of one run."""

    resumable = True

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._keep_lock: Callable[[], None] = lambda: None

    def require_new(self) -> None:
        """Raise RunError if there is a file of a run in the directory, or it is no directory."""
        path = self.path
        if os.path.lexists(path) and not path.is_dir():
            raise RunError(f"--out {path} is a file; name a directory")
        resumable = f", or continue it with --resume {path}" if self.checkpoint_paths() else ""
        files = (self.config_path, self.metrics_path, self.picture_path, path / BEST)
        if resumable or any(file.exists() for file in files):
            raise RunError(f"--out {path} holds a run already; name another directory{resumable}")
        for file in (self.teacher_path, path / DATA):
            if file.exists():  # it may be a file of the user's, so it is not written over
                raise RunError(f"--out {path} holds {file.name} and no run; remove it or name another directory")

    @contextlib.contextmanager
    def lock(self, *, make: bool = False) -> Iterator[None]:
        """Keep every other process from writing to the run, see `held`."""
        if not self.writes:
            yield
            return
        before = self._keep_lock
        with held(self.path, self, make=make) as self._keep_lock:
            self._drop_old_checkpoints()
            try:
                yield
            finally:
                self._keep_lock = before

    def __str__(self) -> str:
        return f"the run to {self.path}"

    def require_lock(self) -> None:
        """Raise RunError if the lock was removed by hand and another process has it now."""
        try:
            with writing(self):
                self._keep_lock()
        except HeldError as error:
            raise RunError(
                f"{self.path / '.lock'} was removed, and the run is in use by {error}, which goes on; this process ends"
            ) from error

    def create(
        self,
        save: Callable[[], Path],
        config: Config,
        versions: dict[str, str],
        teacher: Checkpoint | None = None,
        data: str = "",
    ) -> None:
        """Write the files of a new run: its teacher, the state before the first step, its samples, its settings."""
        if not self.writes:
            return
        self.require_new()
        first: list[Path] = []
        try:
            if teacher is not None:
                first.append(self.teacher_path)
                checkpoints.save(self.teacher_path, teacher, versions)
            first.append(save())
            first.append(self.path / DATA)
            self.write_data(data)
            self.write_config(config, versions)
        except (CheckpointError, RunError) as error:
            with contextlib.suppress(OSError):
                for path in first:
                    path.unlink(missing_ok=True)
            if isinstance(error, RunError):
                raise
            raise RunError(f"cannot write {self}: {error}") from error

    def write_data(self, text: str) -> None:
        """Write the description of the samples."""
        self._write(self.path / DATA, text)

    def write_config(self, config: Config, versions: Mapping[str, str]) -> None:
        """Write config.toml."""
        self._write(self.config_path, to_toml(config, versions))

    def _write(self, path: Path, text: str) -> None:
        if self.writes:
            with writing(self):
                write_atomically(path, text.encode())

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

    @property
    def report_path(self) -> Path:
        """The page that shows the run."""
        return self.path / "report.html"

    @property
    def teacher_path(self) -> Path:
        """A copy of the teacher, if there is one, so that the run can go on wherever the teacher is then."""
        return self.path / "teacher.h5"

    def machine(self) -> dict[str, Any]:
        """Return the versions and machine that config.toml records."""
        return dict(self.recorded("versions") or {})

    def recorded(self, name: str) -> Any:
        """Return the value that config.toml records under a name, or None."""
        try:
            return tomllib.loads(read_text(self.config_path)).get(name)
        except (OSError, ValueError):
            return None

    def require_unedited(self, config: Config) -> None:
        """Raise RunError if a setting in config.toml was edited: the run goes on with the checkpoint's."""
        for name, value in read_toml(self.config_path, regular=True).items() if self.config_path.is_file() else ():
            given, own = tuple(value) if isinstance(value, list) else value, getattr(config, name, None)
            if name not in (*CHANGEABLE, "planning") and given != own:
                raise RunError(
                    f"{self.config_path} has {name} = {value!r}, and the run goes on with {own!r}: put that back, or "
                    f"begin another run with --config {self.config_path}"
                )

    def checkpoint_paths(self) -> list[Path]:
        """Return the checkpoints in the order they were made, without the best."""
        return sorted(self.path.glob("epoch????-step??????.h5"))

    def require_resumable(self) -> None:
        """Raise RunError if there is nothing in the directory to go on from."""
        if not (self.checkpoint_paths() or (self.path / BEST).is_file()):
            if self.config_path.is_file():
                raise RunError(f"{self.path} has no checkpoint; start the run anew in another directory")
            raise RunError(f"{self.path} holds no run to resume: it has no checkpoint")

    def latest(self) -> tuple[Path, Checkpoint, list[str]]:
        """Return the latest checkpoint that is whole, the best one included."""
        whole: list[tuple[Path, Checkpoint]] = []
        notices = []
        for paths in (reversed(self.checkpoint_paths()), [self.path / BEST]):
            for path in paths:
                if not path.is_file():
                    continue
                try:
                    checkpoint = checkpoints.load(path)
                except UnreadableError as error:  # the content may be whole
                    raise RunError(str(error)) from error
                except CheckpointError as error:
                    notices.append(str(error))
                    continue
                where = checkpoint.state.epoch, checkpoint.state.step
                if path.name in (BEST, _name(*where)):
                    whole.append((path, checkpoint))
                    break
                notices.append(f"{path} holds the state after epoch {where[0]}, step {where[1]}: its name is another's")
        if not whole:
            raise RunError(notices[0] if notices else f"{self.path} holds no run: it has no checkpoint")
        path, checkpoint = max(whole, key=lambda pair: (pair[1].state.epoch, pair[1].state.step))  # the first of equals
        return path, checkpoint, notices

    def set_aside_after(self, checkpoint: Checkpoint) -> list[Path]:
        """Rename later checkpoints, which are damaged: new ones will take their names."""
        name = _name(checkpoint.state.epoch, checkpoint.state.step)
        later = [p for p in self.checkpoint_paths() if p.name > name] if self.writes else []
        try:
            return [path.replace(path.with_name(path.name + ".damaged")) for path in later]
        except OSError as error:
            raise RunError(f"cannot rename {error.filename}: {error.strerror or error}") from error

    def mend_best(self, best: float) -> tuple[str, bool]:
        """Replace a damaged or missing best checkpoint by that of its epoch, if it is kept; set a damaged one aside.

        Returns a line that says so, and whether there is no best checkpoint any more.
        """
        path = self.path / BEST
        there = path.is_file()
        if not self.writes or (_loaded(path) if there else best == -math.inf):
            return "", False
        epoch = best_epoch(self.read_metrics() if self.metrics_path.is_file() else [], best)
        source = path if epoch is None else self.path / _name(epoch)
        aside = path.with_name(f"{BEST}.damaged")
        with writing(path):
            if there:
                path.replace(aside)
            if source.is_file() and _loaded(source):
                write_atomically(path, source.read_bytes())
                was = f"the damaged one is now {aside}" if there else "it was gone"
                return f"{path} is a copy of {source.name} again; {was}", False
        lost = f"damaged, and is now {aside}" if there else "gone"
        return f"{path} is {lost}", True

    def last_good(self) -> str:
        """Say which checkpoint there is to go on from."""
        paths = self.checkpoint_paths()
        return f"the last good checkpoint is {paths[-1]}" if paths else "no checkpoint was due before it"

    def save(self, checkpoint: Checkpoint, versions: dict[str, str], *, best: bool) -> Path:
        """Write a checkpoint, also as the best if it is, and drop those no longer kept."""
        path = self.path / _name(checkpoint.state.epoch, checkpoint.state.step)
        if not self.writes:
            return path
        self.require_lock()
        if best:  # first, since a run that goes on from `path` takes its best for saved
            checkpoints.save(self.path / BEST, checkpoint, versions)
        checkpoints.save(path, checkpoint, versions)
        self._drop_old_checkpoints()
        return path

    def _drop_old_checkpoints(self) -> None:
        for old in self.checkpoint_paths()[:-KEPT_CHECKPOINTS]:
            with contextlib.suppress(OSError):
                old.unlink()

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and flush it to the disk."""
        if not self.writes:
            return
        self.require_lock()
        path = self.metrics_path
        with writing(path), open(path, "a", encoding="utf-8", opener=open_regular) as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl; a last line cut short by a crash is left out."""
        if not self.metrics_path.is_file():
            raise RunError(f"{self.path} holds no run: it has no metrics.jsonl")
        records = []
        try:
            lines = read_text(self.metrics_path, errors="replace").splitlines()
        except OSError as error:
            raise RunError(f"cannot read {self.metrics_path}: {error.strerror or error}") from error
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                if number == len(lines):
                    break
                raise RunError(f"{self.metrics_path}, line {number}, is not JSON: {error}") from error
            if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
                raise RunError(f"{self.metrics_path}, line {number}, is not the record of an epoch")
            records.append(record)
        return records

    def test_figures(self, epoch: int) -> dict[str, float]:
        """Return the figures of a test after an epoch; nothing where the test set was not read then."""
        records = [record for record in self.read_metrics() if record["epoch"] == epoch]
        return {key: value for record in records for key, value in record.items() if key.startswith("test")}

    def test_record(self) -> dict[str, Any] | None:
        """Return the last record of a test in metrics.jsonl, if there is one."""
        records = self.read_metrics() if self.metrics_path.is_file() else []
        for record in reversed(records):
            score = "test_error_0" if "test_error_0" in record else "test_accuracy"
            names = {"test_loss", score, *(name for name in record if name.startswith("test"))}
            if all(isinstance(record.get(name), int | float) for name in names):
                return record
        return None

    def unrecorded(self, epoch: int) -> str:
        """Return a line that names the epochs, up to this one, that metrics.jsonl lacks; "" if it has all."""
        known = {r["epoch"] for r in self.read_metrics() if "train_loss" in r} if self.metrics_path.is_file() else set()
        lost = [number for number in range(1, epoch + 1) if number not in known]
        if not lost:
            return ""
        which = f"epoch {lost[0]}" if len(lost) == 1 else f"{len(lost)} epochs from {lost[0]} to {lost[-1]}"
        return f"{self.metrics_path} has lost the record of {which}; curve and report go on without"

    def forget_metrics_after(self, epoch: int) -> None:
        """Drop the records of epochs that will be trained again, after a stop between record and checkpoint."""
        if not (self.writes and self.metrics_path.is_file()):
            return
        records = [record for record in self.read_metrics() if record["epoch"] <= epoch]
        with writing(self.metrics_path):
            write_atomically(self.metrics_path, "".join(json.dumps(record) + "\n" for record in records).encode())


def best_epoch(records: Sequence[Mapping[str, Any]], best: float | None = None) -> int | None:
    """Return the last epoch that its record calls the best: its network is in best.h5.

    In older runs, whose records do not say so, it is the first epoch of the score `best`, by default of the highest.
    """
    if marked := [record["epoch"] for record in records if record.get("best")]:
        return int(marked[-1])
    scores: dict[int, Any] = {}
    for record in records:
        if isinstance(loss := record.get("train_loss"), int | float):
            scores[record["epoch"]] = record.get(f"validation_{task_of([record]).score}", -loss)
    wanted = max(scores.values(), default=None) if best is None else best
    return next((epoch for epoch, score in scores.items() if score == wanted), None)


def _name(epoch: int, step: int = 0) -> str:
    """File name of a checkpoint; names are in the order of the states."""
    return f"epoch{epoch:04d}-step{step:06d}.h5"


def _loaded(path: Path) -> Checkpoint | None:
    """Read a checkpoint; None where it is damaged."""
    try:
        return checkpoints.load(path)
    except UnreadableError as error:  # which says nothing of its content
        raise RunError(str(error)) from error
    except CheckpointError:
        return None
