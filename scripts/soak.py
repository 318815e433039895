"""Kill, interrupt, damage and starve runs for a given time, and check what `docs/reliability.md` promises.

``python scripts/soak.py --minutes 10`` draws events at random, each on a run of a second, and prints how often each
ended in which way. After every event the run is resumed to its end and must equal, bit for bit, one that nothing
happened to. ``--loop`` trains over and over in one process instead, and watches its memory, files and threads.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import gc
import io
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
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"HCNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a fork takes no threads along

from tests.train.runs import SMALL, assert_same_run, checkpoints
from train import cifar, verify
from train.config import Config
from train.data import cifar as archives
from train.data import load_dataset

PATIENCE = 300
"""Seconds after which a command is said to hang."""


class BrokenPromiseError(Exception):
    """What was promised did not happen."""


class Command:
    """A command line in a fork of this process, which has all of its modules."""

    def __init__(self, arguments: Sequence[object], file_size: int | None = None, program: ModuleType = cifar) -> None:
        self.arguments, self.program = [str(a) for a in arguments], program
        self.said, end = os.pipe()  # which no limit on files cuts short
        self.pid = os.fork()
        if self.pid == 0:
            self._act(end, file_size)
        os.close(end)

    def _act(self, end: int, file_size: int | None) -> None:
        status = 99
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(end, 2)
            # standard error as Python itself opens it
            sys.stdout = os.fdopen(1, "w", closefd=False)
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
        end = time.monotonic() + PATIENCE
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise BrokenPromiseError(f"{self.arguments} hangs")
            time.sleep(0.005)
        with open(self.said, errors="replace") as said:
            return os.waitstatus_to_exitcode(status), said.read()


def require_line(arguments: Sequence[str], status: int, text: str, program: ModuleType = cifar) -> None:
    """A command that fails says one line for users."""
    if status > 0 and (text.count("\n") != 1 or not text.startswith(f"{program.__name__}: ") or "--debug" in text):
        raise BrokenPromiseError(f"{arguments} ended with {status} and said:\n{text}")
    if status < 0 or status == 99:
        raise BrokenPromiseError(f"{arguments} died: status {status}\n{text}")


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans()
TYPES = st.sampled_from(["float32", "float64", "int64", "uint8", "complex64", "S3"])
VALUES = NUMBERS | st.text(max_size=20) | hnp.arrays(TYPES, hnp.array_shapes(min_dims=0, max_dims=4, max_side=4))
"""What a place in an HDF5 file may hold instead of what belongs there."""

SETTINGS = st.dictionaries(
    st.sampled_from([f.name for f in dataclasses.fields(Config)]) | st.text(max_size=8),
    NUMBERS | st.text(max_size=8) | st.lists(NUMBERS, max_size=3),
    min_size=1,
    max_size=4,
)
"""What a configuration file may say."""


def drawn(strategy: st.SearchStrategy[Any], rng: random.Random) -> Any:
    """A value of a strategy; Hypothesis tends to what breaks programs."""
    found: list[Any] = []

    @seeded(rng.getrandbits(64))
    @settings(
        max_examples=10, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def take(value: Any) -> None:
        found.append(value)

    take()
    return rng.choice(found)


class Soak:
    """Events on runs in a folder, compared with a reference run there."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
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
        command = self.begin_or_resume(run)
        status, text = command.finish()
        if status or text:
            raise BrokenPromiseError(f"{command.arguments} ended with {status}: {text}")
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

    def moment(self) -> None:
        time.sleep(self.rng.uniform(0, 1.2 * self.seconds))

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
            require_line(command.arguments, status, text)
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
        command = self.begin_or_resume(run, file_size=int(10 ** self.rng.uniform(0, 5.5)))
        status, text = command.finish()
        require_line(command.arguments, status, text)
        if status not in (0, 1):
            raise BrokenPromiseError(f"full disk: {status}: {text}")
        self.complete(run)
        return "said and resumed" if status else "large enough"

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
            (run / archives.LAYOUTS["cifar10"][0].archive).write_bytes(self.mutated(self.archive))
            arguments = (*SMALL, "--dataset", "cifar10", "--data-dir", run, "--out", run / "run", "--epochs", 1)
        command = Command(arguments)
        status, text = command.finish()
        require_line(command.arguments, status, text)
        return f"{kind} {'refused' if status else 'read'}"

    def restructured(self, path: Path) -> None:
        """Delete, replace or rename some objects and attributes of an HDF5 file; it stays one."""
        with h5py.File(path, "r+") as file:
            for _ in range(self.rng.choice([1, 1, 2, 5])):
                names: list[str] = []
                file.visit(names.append)
                holder = file[self.rng.choice(names)] if names and self.rng.random() < 0.7 else file
                where: Any = holder.attrs if self.rng.random() < 0.5 and len(holder.attrs) else file
                name = self.rng.choice(sorted(where.keys() if where is not file else names) or [""])
                with contextlib.suppress(KeyError, ValueError, TypeError, OSError, RuntimeError):  # what HDF5 refuses
                    value = drawn(VALUES, self.rng)
                    if self.rng.random() < 0.3 and where is file:
                        file.move(name, f"{name}x")
                        continue
                    del where[name]
                    if self.rng.random() < 0.8:
                        where[name] = value

    def structures(self, run: Path) -> str:
        """Files of the right format whose content Hypothesis draws."""
        run.mkdir()
        kind = self.rng.choice(["evaluated", "resumed", "verified", "replayed", "config"])
        program, path = cifar, run / "a.h5"
        if kind == "config":
            lines = [
                f"{name!r} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
                for name, value in drawn(SETTINGS, self.rng).items()
            ]
            path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
            arguments: tuple[object, ...] = ("--describe", "--config", path)
        elif kind == "resumed":
            shutil.copytree(self.reference, run, dirs_exist_ok=True)
            for checkpoint in run.glob("*.h5"):
                self.restructured(checkpoint)
            arguments = ("--resume", run)
        else:
            program = cifar if kind == "evaluated" else verify
            shutil.copy(self.counterexamples() if kind == "replayed" else self.reference / "best.h5", path)
            self.restructured(path)
            arguments = {
                "evaluated": ("--evaluate", path),
                "verified": ("--checkpoint", path, "--images", 1, "--max-examples", 1, "--out", run / "out"),
                "replayed": ("--replay", path),
            }[kind]
        command = Command(arguments, program=program)
        status, text = command.finish()
        if not (program is verify and status == 1 and not text):  # a network for which not all statements hold
            require_line(command.arguments, status, text, program)
        return f"{kind} {'refused' if status else 'read'}"

    def counterexamples(self) -> Path:
        """A file of verify, made when it is first wanted."""
        out = self.folder / "verified"
        if not out.exists():
            arguments = ("--checkpoint", self.reference / "best.h5", "--images", 1, "--max-examples", 1, "--out", out)
            Command(arguments, program=verify).finish()
        (found,) = out.glob("*.h5")
        return found

    def flags(self, run: Path) -> str:
        """Flags whose values are of no kind, or of one and absurd."""
        names = [f.name for f in dataclasses.fields(cifar.Config)]
        values = ["", "0", "-1", "1e308", "nan", "9" * 30, "x" * 500, "\udcff", "True", "a b", "../..", "0.5"]
        flag = f"--{self.rng.choice(names).replace('_', '-')}"
        arguments = (*SMALL, "--epochs", 1, flag, self.rng.choice(values), "--describe")
        command = Command(arguments)
        status, text = command.finish()
        require_line(command.arguments, status, text)
        return "refused" if status else "taken"

    def run(self, seconds: float) -> int:
        events: list[Callable[[Path], str]] = [self.kill, self.signals, self.race, self.disk]
        events += 6 * [self.malformed] + 3 * [self.structures] + 2 * [self.flags]
        end, failures, number = time.monotonic() + seconds, 0, 0
        while time.monotonic() < end:
            number += 1
            event, run = self.rng.choice(events), self.folder / f"run{number}"
            try:
                outcome = event(run)
            except (AssertionError, BrokenPromiseError) as error:
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
    sample, layout = load_dataset("sample"), archives.LAYOUTS["cifar10"][0]
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
    cifar.load_dataset = lambda name, folder: few if name == "sample" else load_dataset(name, folder, download=False)


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
        return Soak(Path(temporary), seed).run(60 * options.minutes)


if __name__ == "__main__":
    sys.exit(main())
