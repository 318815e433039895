"""Kill, interrupt, damage and starve runs for a given time, and check what `docs/reliability.md` promises.

``python scripts/soak.py --minutes 10`` draws events at random, each on a run of a second, and prints how often each
ended in which way. After every event the run is resumed to its end and must equal, bit for bit, one that nothing
happened to. ``--events malformed flags --count 2000`` takes so many of these alone. ``--loop`` trains over and over in
one process instead, and watches its memory, files and threads.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import gc
import hashlib
import io
import math
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"HCNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a fork takes no threads along

from tests.train.runs import (
    SMALL,
    assert_same_run,
    assert_same_state,
    checkpoints,
    digest_of,
    metrics,
    saved_state,
)
from train import cifar, compare, data, evaluate, explore, export, plot, report, sweep, verify
from train.attributes import hubs, meaning, organisation
from train.config import Config
from train.data import DataError, Dataset, load_dataset
from train.data import cifar as archives
from train.data.download import fetch
from train.runs import checkpoint, session, trained
from train.runs.run import Run
from train.storage.files import COMMANDS_OF_TERMINALS

PATIENCE = 300.0
"""Seconds after which a command counts as hanging."""


class BrokenPromiseError(Exception):
    """A promise was broken."""


class Command:
    """A command line in a fork of this process, which has all of its modules."""

    patience = PATIENCE

    def __init__(
        self,
        arguments: Sequence[object],
        file_size: int | None = None,
        program: ModuleType = cifar,
        output: str = os.devnull,
        buffered: bool = True,
    ) -> None:
        self.arguments, self.program = [str(a) for a in arguments], program
        self.output, self.buffered = output, buffered
        self.said, end = os.pipe()  # which no limit on files cuts short
        self.pid = os.fork()
        if self.pid == 0:
            self._act(end, file_size)
        os.close(end)

    def _act(self, end: int, file_size: int | None) -> None:
        status = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(os.open(self.output, os.O_WRONLY), 1)
            os.dup2(end, 2)
            # as Python itself opens them
            raw = os.fdopen(1, "wb", -1 if self.buffered else 0, closefd=False)
            sys.stdout = io.TextIOWrapper(raw, write_through=not self.buffered)
            sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace")
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, resource.RLIM_INFINITY))
            try:
                status = self.program.main(self.arguments)
            except SystemExit as stop:
                status = int(stop.code or 0)
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def send(self, signum: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def finish(self) -> tuple[int, str]:
        """Exit status, negative for a signal, and standard error."""
        end = time.monotonic() + self.patience
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise BrokenPromiseError(f"{self.arguments} hangs")
            time.sleep(0.005)
        with open(self.said, errors="replace") as said:  # a slow machine makes commands say that they are at work
            return os.waitstatus_to_exitcode(status), "".join(line for line in said if ": still at work, " not in line)

    def require_line(self, status: int, text: str) -> None:
        """A command that fails says one line for users."""
        one = text.count("\n") == 1 and text.startswith(f"{self.program.__name__}: ") and "--debug" not in text
        if status > 0 and not one:
            raise BrokenPromiseError(f"{self.arguments} ended with {status} and said:\n{text}")
        if status < 0 or status == 99:
            raise BrokenPromiseError(f"{self.arguments} died: status {status}\n{text}")

    def answer(self) -> tuple[int, str]:
        """Exit status and standard error of a command that says one line if it fails."""
        status, text = self.finish()
        self.require_line(status, text)
        return status, text

    def succeed(self) -> None:
        """Wait for a command that neither fails nor says anything on standard error."""
        status, text = self.finish()
        if status or text:
            raise BrokenPromiseError(f"{self.arguments} ended with {status}: {text}")


def figures(said: str) -> str:
    """Return the figures of an evaluation and what follows, without what it says of the samples before."""
    return said[max(said.find("test: "), 0) :]


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans()
TYPES = st.sampled_from(["float32", "float64", "int64", "uint8", "complex64", "S3"])
VALUES = NUMBERS | st.text(max_size=20) | hnp.arrays(TYPES, hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))
"""Values that a place in an HDF5 file may hold instead of its own."""

NAMES = st.sampled_from([f.name for f in dataclasses.fields(Config)])
PLAUSIBLE = (
    st.integers(0, 9) | st.floats(0, 1) | st.booleans() | st.sampled_from(["periodic", "adamw", "sample", "none"])
)
ANYTHING = NUMBERS | st.text(max_size=8) | st.lists(NUMBERS, max_size=3)
SETTINGS = (
    st.dictionaries(NAMES, PLAUSIBLE | st.lists(st.integers(1, 9), max_size=3), min_size=1, max_size=3)
    | st.dictionaries(NAMES, PLAUSIBLE | ANYTHING, min_size=1, max_size=4)
    | st.dictionaries(NAMES | st.text(max_size=8), ANYTHING, min_size=1, max_size=4)
)
"""Values of a configuration file."""


FLAGS = st.dictionaries(
    st.sampled_from([f.name for f in dataclasses.fields(Config)]),
    st.sampled_from(["", "0", "-1", "1e308", "nan", "9" * 30, "x" * 500, "\udcff", "True", "a b", "../..", "0.5"])
    | st.text(st.characters(exclude_characters="\0"), max_size=8)
    | NUMBERS.map(str),
    min_size=1,
    max_size=3,
)
"""Values of flags."""

EVENTS = {
    **dict.fromkeys(("kill", "signals", "race", "disk"), 3),
    **dict.fromkeys(("output", "extension", "best", "export", "exploration", "trials", "removed"), 1),
    **dict.fromkeys(("flags", "settings", "safetensors"), 3),
    **dict.fromkeys(("downloads", "irregular", "names"), 1),
    "malformed": 12,
    "structures": 6,
}
"""Methods of `Soak`, and how often each is drawn."""


HOSTILE = st.text(
    st.sampled_from("\n\r\t\x1b\x07\x9b\u061c\u200e\u200f\u2028\u2029\u202e\u2066$\\{}_^%<>&,'\"-ab "), min_size=1
)
"""Names that terminals, formulas, tables and pages may take for more than names."""


def run_download(arguments: Sequence[str]) -> int:
    """Download a file; 1 if that fails."""
    url, destination, md5, size = arguments
    try:
        fetch(url, Path(destination), md5, size=int(size))
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class Soak:
    """Events on runs in a folder, compared with a reference run there."""

    def __init__(self, folder: Path, seed: int, patience: float = PATIENCE) -> None:
        Command.patience = patience
        self.folder, self.rng = folder, random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.pools = collections.defaultdict[st.SearchStrategy[Any], list[Any]](list)
        with contextlib.redirect_stdout(io.StringIO()):
            cifar.main([*map(str, SMALL), "--out", str(folder / "warm-up")])  # compiles, for all forks of this process
        self.reference, begin = folder / "reference", time.monotonic()
        status, text = Command((*SMALL, "--out", self.reference)).finish()
        if status:
            raise BrokenPromiseError(text)
        self.seconds = time.monotonic() - begin
        self.archive = _archive()

    def begin_or_resume(self, run: Path, file_size: int | None = None) -> Command:
        found = checkpoints(run) if run.is_dir() else []
        return Command(("--resume", run) if found else (*SMALL, "--out", run), file_size)

    def complete(self, run: Path) -> None:
        """Resume to the end; nothing may be lost, left over or different."""
        self.begin_or_resume(run).succeed()
        assert_same_run(run, self.reference)
        if left := [p.name for p in run.glob(".*")]:
            raise BrokenPromiseError(f"left over: {left}")
        kept = checkpoints(run)  # one in the middle of an epoch, where a signal came, may be among the last three
        if (
            kept[-1] != checkpoints(self.reference)[-1]
            or len(kept) != 4
            or not (run / "learning-curve.png").stat().st_size
        ):
            raise BrokenPromiseError(f"{sorted(p.name for p in run.iterdir())}")

    def drawn(self, strategy: st.SearchStrategy[Any]) -> Any:
        """A value of a strategy; Hypothesis tends to what breaks programs. To start it costs as much as many values."""
        pool = self.pools[strategy]
        if not pool:

            @seeded(self.rng.getrandbits(64))
            @settings(
                max_examples=100,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(strategy)
            def take(value: Any) -> None:
                pool.append(value)

            take()
            self.rng.shuffle(pool)
        return pool.pop()

    def moment(self, runs: float = 1.2) -> None:
        """Wait for some part of the time of a run, or of several."""
        time.sleep(self.rng.uniform(0, runs * self.seconds))

    def kill(self, run: Path) -> str:
        for _ in range(self.rng.randint(1, 3)):
            command = self.begin_or_resume(run)
            self.moment()
            command.send(signal.SIGKILL)
            status, text = command.finish()
            if status not in (0, -signal.SIGKILL) or text:
                raise BrokenPromiseError(f"killed, {status}: {text}")
        self.complete(run)
        return "resumed"

    def signals(self, run: Path) -> str:
        signum = self.rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        command = self.begin_or_resume(run)
        self.moment()
        command.send(signum)
        if self.rng.random() < 0.3:
            time.sleep(self.rng.uniform(0, 0.3 * self.seconds))
            command.send(signum)
        status, text = command.finish()
        if status not in (0, 128 + signum, -signum if signum != signal.SIGINT else 0):
            raise BrokenPromiseError(f"{signum.name}: status {status}: {text}")
        if status > 0:
            command.require_line(status, text)
            if "saved" not in text and "last good checkpoint" not in text and "whole" not in text:
                raise BrokenPromiseError(f"{signum.name}: {text}")
        self.complete(run)
        return {0: "too late", 128 + signum: "said and resumed"}.get(status, "ended at once and resumed")

    def race(self, run: Path) -> str:
        first = self.begin_or_resume(run)
        self.moment()
        first.send(signal.SIGKILL)
        first.finish()
        commands = [self.begin_or_resume(run) for _ in range(2)]
        ends = sorted(command.finish() for command in commands)
        for status, text in ends:
            if status and not (status == 1 and ("is in use by " in text or "holds a run already" in text)):
                raise BrokenPromiseError(f"of two processes: {ends}")
        if ends[0][0]:
            raise BrokenPromiseError(f"neither of two processes went on: {ends}")
        self.complete(run)
        return "one refused" if ends[1][0] else "one after the other"

    def disk(self, run: Path) -> str:
        status, text = self.begin_or_resume(run, file_size=int(10 ** self.rng.uniform(0, 5.5))).answer()
        if status not in (0, 1):
            raise BrokenPromiseError(f"full disk: {status}: {text}")
        self.complete(run)
        return "said and resumed" if status else "large enough"

    def output(self, run: Path) -> str:
        """A full disk loses the printed lines, with a buffer and without one, and nothing else."""
        command = Command((*SMALL, "--out", run), output="/dev/full", buffered=self.rng.random() < 0.5)
        status, text = command.answer()
        if status != 1 or "cannot write to standard output" not in text:
            raise BrokenPromiseError(f"full standard output: {status}: {text}")
        assert_same_run(run, self.reference)
        return "said"

    def extension(self, run: Path) -> str:
        """A finished run is extended, and killed meanwhile."""
        Command((*SMALL, "--schedule", "constant", "--out", run)).succeed()
        command = Command(("--resume", run, "--epochs", 5))
        self.moment(0.5)
        command.send(signal.SIGKILL)
        command.finish()
        Command(("--resume", run)).succeed()
        epochs = Run(run).recorded("epochs")
        if epochs not in (4, 5) or [line["epoch"] for line in metrics(run) if "train_loss" in line] != [
            *range(1, epochs + 1)
        ]:
            raise BrokenPromiseError(f"config.toml says {epochs} epochs, metrics.jsonl has {metrics(run)}")
        return f"{epochs} epochs"

    def best(self, run: Path) -> str:
        """The best checkpoint is damaged, or cut, when the run is finished or in progress."""
        shutil.copytree(self.reference, run)
        best = run / "best.h5"
        best.write_bytes(self.mutated(best.read_bytes()))
        for path in sorted(run.glob("epoch*.h5"))[self.rng.randint(1, 3) :]:
            path.unlink()
        Command(("--resume", run)).succeed()
        if best.exists():
            checkpoint.load(best)
        if checkpoint.load(sorted(run.glob("epoch*.h5"))[-1]).state.epoch != 4:
            raise BrokenPromiseError(f"not trained to the end: {checkpoints(run)}")
        return "whole" if best.exists() else "lost"

    def removed(self, run: Path) -> str:
        """Files of a run are removed; it goes on from what there is, and its last state is the same."""
        shutil.copytree(self.reference, run)
        for path in self.rng.sample(sorted(run.iterdir()), self.rng.randint(1, 4)):
            path.unlink() if path.is_file() else shutil.rmtree(path)
        kept = bool(checkpoints(run))
        status, _ = Command(("--resume", run)).answer()
        if kept:
            self.require_last_state(run)
        elif not status:
            raise BrokenPromiseError("resumed without any checkpoint")
        return "refused" if status else "resumed"

    def require_last_state(self, run: Path) -> None:
        """The last state of a run is that of the reference, but for the score of a best checkpoint that is lost."""
        found, expected = (saved_state(path.latest()[0]) for path in (Run(run), Run(self.reference)))
        differ = [
            n
            for n, a in expected.items()
            if n not in ("best", "best_error") and np.asarray(found.get(n)).tobytes() != np.asarray(a).tobytes()
        ]
        if differ or found.keys() != expected.keys():
            raise BrokenPromiseError(f"the last state differs in {differ}: {sorted(p.name for p in run.iterdir())}")

    def sweep_file(self, folder: Path) -> Path:
        """A sweep of one trial, as the reference run."""
        text = (self.reference / "config.toml").read_text(encoding="utf-8").partition("[versions]")[0]
        file = folder / "a.toml"
        file.write_text("[settings]\n" + text.replace("train_size = 0", "train_size = 40"), encoding="utf-8")
        return file

    def trials(self, run: Path) -> str:
        """A sweep is killed, hung up or interrupted; its trial ends with it, and goes on with the same command."""
        run.mkdir()
        signum = self.rng.choice([signal.SIGKILL, signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
        file = self.sweep_file(run)
        command = Command((file, "--out", run / "out"), program=sweep)
        time.sleep(self.rng.uniform(0, 10))  # for a process that imports all modules, and then trains
        command.send(signum)
        status, said = command.finish()
        if status not in (0, 128 + signum, -signum):
            raise BrokenPromiseError(f"sweep, {signum.name}: {status}: {said}")
        again = Command((file, "--out", run / "out"), program=sweep)
        status, said = again.finish()
        table = (run / "out" / "results.csv").read_text(encoding="utf-8")
        if status or said or ",finished," not in table:
            raise BrokenPromiseError(f"the same sweep after {signum.name}: {status}: {said}\n{table}")
        return f"{signum.name}, finished"

    def export(self, run: Path) -> str:
        """Killed while a network is exported: the file is whole or absent, and nothing else stays."""
        run.mkdir()
        target = run / self.rng.choice(["a.h5", "a.safetensors"])
        arguments = (self.reference / "best.h5", target)
        command = Command(arguments, program=export)
        time.sleep(self.rng.uniform(0, 0.1))
        command.send(signal.SIGKILL)
        command.finish()
        killed = not target.exists()
        if killed:
            Command(arguments, program=export).answer()
        if [path.name for path in run.iterdir()] != [target.name]:
            raise BrokenPromiseError(f"after an export: {list(run.iterdir())}")
        if target.suffix == ".h5":
            checkpoint.load(target)
        return "again" if killed else "too late"

    def exploration(self, run: Path) -> str:
        """Killed while a network is explored: the folder is whole or absent, and nothing else stays."""
        run.mkdir()
        places = ("--cache", run / "cache", "--out", run / "page")
        arguments = (self.reference / "best.h5", "--agreement", 20, "--images", 0, *places)
        command = Command(arguments, program=explore)
        self.moment(4)
        command.send(signal.SIGKILL)
        command.finish()
        killed = not (run / "page").exists()
        if killed:
            status, text = Command(arguments, program=explore).finish()
            if status:
                raise BrokenPromiseError(f"explored again: {status}: {text}")
        if left := [path.name for path in run.iterdir() if path.name not in ("page", "cache")]:
            raise BrokenPromiseError(f"after an exploration: {left}")
        return "again" if killed else "too late"

    def mutated(self, content: bytes) -> bytes:
        """Bytes changed, cut, doubled or inserted."""
        rng, changed = self.rng, bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            place = rng.randrange(len(changed) + 1)
            match rng.randrange(5):
                case 0:
                    changed[place : place + 1] = bytes([rng.randrange(256)])
                case 1:
                    del changed[place : place + rng.choice([1, 4, 100, len(changed)])]
                case 2:
                    changed[place:place] = rng.randbytes(rng.choice([1, 4, 100]))
                case 3:
                    changed[place:place] = changed[place : place + 50]
                case 4:
                    changed[place : place + 1] = (
                        bytes([changed[place] ^ 1 << rng.randrange(8)]) if place < len(changed) else b""
                    )
        return bytes(changed)

    def malformed(self, run: Path) -> str:
        run.mkdir()
        kind = self.rng.choice(["checkpoint", "run", "metrics", "config", "archive"])
        if kind in ("run", "metrics"):
            shutil.copytree(self.reference, run, dirs_exist_ok=True)
            for path in run.glob("epoch*.h5"):
                path.write_bytes(self.mutated(path.read_bytes())) if kind == "run" else None
            metrics = run / "metrics.jsonl"
            metrics.write_bytes(self.mutated(metrics.read_bytes())) if kind == "metrics" else None
            arguments: tuple[object, ...] = ("--resume", run)
        elif kind == "checkpoint":
            (run / "a.h5").write_bytes(self.mutated((self.reference / "best.h5").read_bytes()))
            arguments = ("--evaluate", run / "a.h5")
        elif kind == "config":
            text = (self.reference / "config.toml").read_bytes()
            (run / "a.toml").write_bytes(self.mutated(text))
            arguments = ("--describe", "--config", run / "a.toml")
        else:
            (run / archives.LAYOUTS["cifar10"].archive).write_bytes(self.mutated(self.archive))
            arguments = (*SMALL, "--dataset", "cifar10", "--data-dir", run, "--out", run / "run", "--epochs", 1)
        status, _ = Command(arguments).answer()
        if not status and kind == "checkpoint":
            assert_same_state(run / "a.h5", self.reference / "best.h5")
        if not status and kind in ("run", "metrics"):
            self.require_last_state(run)
        return f"{kind} {'refused' if status else 'read'}"

    def restructured(self, path: Path) -> None:
        """Delete, replace or rename some objects and attributes of an HDF5 file; it stays one."""
        with h5py.File(path, "r+") as file:
            signed = "digest" in file.attrs and self.rng.random() < 0.7  # else hardly anything but the digest is tried
            for _ in range(self.rng.choice([1, 1, 2, 5])):
                names: list[str] = []
                file.visit(names.append)
                holder = file[self.rng.choice(names)] if names and self.rng.random() < 0.7 else file
                where: Any = holder.attrs if self.rng.random() < 0.5 and len(holder.attrs) else file
                name = self.rng.choice(sorted(where.keys() if where is not file else names) or [""])
                with contextlib.suppress(KeyError, ValueError, TypeError, OSError, RuntimeError):  # what HDF5 refuses
                    value = self.drawn(VALUES)
                    if self.rng.random() < 0.3 and where is file:
                        file.move(name, f"{name}x")
                        continue
                    del where[name]
                    if self.rng.random() < 0.8:
                        where[name] = value
            if signed:
                with contextlib.suppress(AttributeError, KeyError, ValueError, TypeError, OSError, RuntimeError):
                    file.attrs["digest"] = digest_of(file)

    def structures(self, run: Path) -> str:
        """Files of the right format whose content Hypothesis draws."""
        run.mkdir()
        kind = self.rng.choice(["evaluated", "resumed", "verified"])
        if kind == "resumed":
            shutil.copytree(self.reference, run, dirs_exist_ok=True)
            for path in run.glob("*.h5"):
                self.restructured(path)
            return self.tried(kind, ("--resume", run))
        path = run / "a.h5"
        shutil.copy(self.reference / "best.h5", path)
        self.restructured(path)
        if kind == "evaluated":
            return self.tried(kind, ("--evaluate", path))
        few = ("--images", 1, "--max-examples", 1)
        return self.tried(kind, (path, *few, "--out", run / "out"), verify)

    def tried(self, kind: str, arguments: Sequence[object], program: ModuleType = cifar) -> str:
        """Call a command, which may refuse its input with a line."""
        command = Command(arguments, program=program)
        status, text = command.finish()
        if not (program is verify and status == 1 and not text):  # a network for which not all statements hold
            command.require_line(status, text)
        return f"{kind} {'refused' if status else 'read'}"

    def damaged(self, path: Path) -> None:
        """Restructure an HDF5 file, or change its bytes."""
        if self.rng.random() < 0.7:
            self.restructured(path)
        else:
            path.write_bytes(self.mutated(path.read_bytes()))

    def settings(self, run: Path) -> str:
        """A configuration file of settings that Hypothesis draws."""
        run.mkdir()
        lines = [
            f"{name!r} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
            for name, value in self.drawn(SETTINGS).items()
        ]
        (run / "a.toml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
        return self.tried("settings", ("--describe", "--config", run / "a.toml"))

    def safetensors(self, run: Path) -> str:
        """Networks of any content, exported; what comes out can be read, and is finite."""
        run.mkdir()
        shutil.copy(self.reference / "best.h5", run / "a.h5")
        self.damaged(run / "a.h5")
        outcome = self.tried("safetensors", (run / "a.h5", run / "a.safetensors"), export)
        if (run / "a.safetensors").exists():
            tensors = load_file(run / "a.safetensors")
            if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
                raise BrokenPromiseError("exported filters are not finite")
        return outcome

    def downloads(self, run: Path) -> str:
        """Processes that want one file at once; one of them may be killed."""
        site, target = run / "site.bin", run / "data" / "file.bin"
        run.mkdir()
        content = self.rng.randbytes(self.rng.choice([0, 1, 1 << 20, 5 << 20]))
        site.write_bytes(content)
        if begun := self.rng.random() < 0.3:
            target.parent.mkdir()
            part = self.mutated(content[: len(content) // 2] or b"?")
            target.with_name("file.bin.part").write_bytes(part)
        program: Any = types.SimpleNamespace(main=run_download, __name__="download")
        arguments = site.as_uri(), target, hashlib.md5(content).hexdigest(), len(content)
        commands = [Command(arguments, program=program) for _ in range(self.rng.randint(2, 4))]
        killed = self.rng.random() < 0.5
        if killed:
            time.sleep(self.rng.uniform(0, 0.05))
            commands[0].send(signal.SIGKILL)
        ends = [command.finish() for command in commands]
        # what a killed process has begun, or was there, may be no beginning of the file: that is said, and removed
        refused = [text for status, text in ends if status == 1 and "it is removed, try again" in text]
        if len(refused) > (begun or killed) or any(s not in (0, 1, -signal.SIGKILL) for s, _ in ends):
            raise BrokenPromiseError(f"downloads: {ends}")
        if Command(arguments, program=program).finish()[0] or target.read_bytes() != content:
            raise BrokenPromiseError(f"downloads: the file is not there after {ends}")
        if left := [path.name for path in target.parent.iterdir() if path != target]:
            raise BrokenPromiseError(f"downloads: left over: {left}")
        return f"{len(commands)} processes{', one killed' if killed else ''}"

    def irregular(self, run: Path) -> str:
        """A file of a run is a link, a pipe or a device; nothing outside is written, and nothing waits for ever."""
        shutil.copytree(self.reference, run)
        mine, absent = self.folder / f"{run.name}-mine", self.folder / f"{run.name}-absent"
        mine.write_text("mine")
        path = run / self.rng.choice([p.name for p in sorted(run.iterdir())] + [".lock"])
        path.unlink(missing_ok=True)
        kind = self.rng.choice(["link", "dangling link", "pipe", "device"])
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to({"link": mine, "dangling link": absent, "device": Path("/dev/zero")}[kind])
        program, *arguments = self.rng.choice([(cifar, "--resume", run), (plot, run), (report, run), (evaluate, run)])
        if program is cifar and self.rng.random() < 0.5:
            arguments += ["--epochs", 4]
        status, text = Command(arguments, program=program).answer()
        if mine.read_text() != "mine" or absent.exists():
            raise BrokenPromiseError(
                f"{program.__name__} with {path.name} as a {kind} writes outside: {status}: {text}"
            )
        mine.unlink()
        return f"{kind}, {'refused' if status else 'not needed'}"

    def names(self, run: Path) -> str:
        """Classes and runs whose names would be commands, formulas or more lines."""
        run.mkdir()
        said = run / "said"
        said.touch()
        if self.rng.random() < 0.5:
            kind, path, load = "classes", run / "a.h5", trained.load
            whole = checkpoint.load(self.reference / "best.h5")
            classes = tuple(f"{self.drawn(HOSTILE)}{n}" for n in range(len(whole.class_names)))
            checkpoint.save(path, dataclasses.replace(whole, class_names=classes), {})
            trained.load = lambda *given: dataclasses.replace(load(*given), class_names=classes)
            command = Command(("--evaluate", path), output=str(said))
            trained.load = load
        else:
            kind, name = "run", self.drawn(HOSTILE).strip("/.")[:60] or "x"
            shutil.copytree(self.reference, run / name)
            arguments = (run / name, self.reference, "--out", run / "page")
            command = Command(arguments, program=compare, output=str(said))
        status, text = command.answer()
        shown = said.read_text("utf-8", "replace") + text
        if COMMANDS_OF_TERMINALS.search(shown):
            raise BrokenPromiseError(f"names of {kind} come out as they are: {shown!r}")
        if kind == "classes" and figures(shown).count("\n") != self.lines_of_evaluation():
            raise BrokenPromiseError(f"names of classes make lines of their own: {shown}")
        return f"{kind}, {'refused' if status else 'shown'}"

    def lines_of_evaluation(self) -> int:
        """Lines that are said of a network, counted when they are first wanted."""
        said = self.folder / "evaluated"
        if not said.exists():
            said.touch()
            Command(("--evaluate", self.reference / "best.h5"), output=str(said)).finish()
        return figures(said.read_text("utf-8")).count("\n")

    def flags(self, run: Path) -> str:
        """Flags whose values are of no kind, or of one and absurd; Hypothesis draws them."""
        found = self.drawn(FLAGS)
        given = [part for name, value in found.items() for part in (f"--{name.replace('_', '-')}", value)]
        return self.tried("flags", (*SMALL, "--epochs", 1, *given, "--describe"))

    def run(self, seconds: float, names: Sequence[str], count: float) -> int:
        """Take events for some seconds, or a number of them, and count their outcomes."""
        events = [getattr(self, name) for name in names or [n for n, times in EVENTS.items() for _ in range(times)]]
        end, failures, number = time.monotonic() + seconds, 0, 0
        while time.monotonic() < end and number < count:
            number += 1
            event, run = self.rng.choice(events), self.folder / f"run{number}"
            try:
                outcome = event(run)
            except (AssertionError, BrokenPromiseError, checkpoint.CheckpointError) as error:
                failures += 1
                outcome = "BROKEN"
                print(f"event {number}, {event.__name__}: {type(error).__name__}: {error}", flush=True)
            self.counts[f"{event.__name__}: {outcome}"] += 1
            shutil.rmtree(run, ignore_errors=True)
        for name, count in sorted(self.counts.items()):
            print(f"{count:6}  {name}")
        print(f"{number:6}  events, {failures} promises broken")
        return int(failures > 0)


def _archive() -> bytes:
    """A small archive of CIFAR-10's form."""
    sample, layout = load_dataset("sample"), archives.LAYOUTS["cifar10"]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in layout.members:
            records = [
                bytes([label]) + image.transpose(2, 0, 1).tobytes()
                for image, label in zip(sample.train_images[:8], sample.train_labels[:8], strict=True)
            ]
            member = tarfile.TarInfo(f"{layout.folder}/{name}")
            member.size = sum(map(len, records))
            archive.addfile(member, io.BytesIO(b"".join(records)))
    return stream.getvalue()


def few_images() -> None:
    """Let the command line read the first images of the sample, and real archives as they are."""
    sample = load_dataset("sample")
    few = dataclasses.replace(
        sample,
        **{f"train_{kind}": getattr(sample, f"train_{kind}")[:40] for kind in ("images", "labels")},
        **{f"test_{kind}": getattr(sample, f"test_{kind}")[:30] for kind in ("images", "labels")},
    )

    def load(name: str, *given: Any, **options: Any) -> Dataset:
        return few if name == "sample" else data.load(name, *given, **options, download=False)

    trained.load = session.load = load
    meaning.PERMUTATIONS = organisation.ORDERS = hubs.SAMPLES = 19


def held() -> dict[str, int]:
    """Resident pages, descriptors and threads of this process."""
    statm = Path("/proc/self/statm").read_text().split()
    return {
        "resident KiB": int(statm[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "Python threads": threading.active_count(),
    }


def loop(folder: Path, seconds: float) -> int:
    """Train short runs in this process; after the first quarter it may hold no more than 1 % more, and no file more."""
    begin, lines = time.monotonic(), list[dict[str, int]]()
    while time.monotonic() < begin + seconds:
        run = folder / "run"
        with contextlib.redirect_stdout(io.StringIO()):
            status = cifar.main([*map(str, SMALL), "--out", str(run)])
        if status:
            return status
        shutil.rmtree(run)
        gc.collect()
        lines.append({"seconds": round(time.monotonic() - begin), **held()})
    settled = lines[len(lines) // 4]
    for line in (lines[0], settled, lines[len(lines) // 2], lines[-1]):
        print(line)
    grown = lines[-1]["resident KiB"] / settled["resident KiB"] - 1
    kept = all(lines[-1][name] <= settled[name] for name in ("descriptors", "threads", "Python threads"))
    print(f"{len(lines)} runs; since a quarter of them resident memory grew by {100 * grown:.2f} %")
    return int(grown > 0.01 or not kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long events are drawn")
    parser.add_argument("--events", nargs="+", choices=EVENTS, default=[], help="which of them [all]")
    parser.add_argument("--count", type=int, help="take so many, however long it takes")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds after which a command hangs [300]")
    parser.add_argument("--seed", type=int, default=None, help="of the events [the time]")
    parser.add_argument(
        "--loop", action="store_true", help="train over and over in one process, and watch what it holds"
    )
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    few_images()
    with tempfile.TemporaryDirectory() as temporary:
        if options.loop:
            return loop(Path(temporary), 60 * options.minutes)
        print(f"seed {seed}", flush=True)
        seconds = math.inf if options.count else 60 * options.minutes
        return Soak(Path(temporary), seed, options.patience).run(seconds, options.events, options.count or math.inf)


if __name__ == "__main__":
    sys.exit(main())
