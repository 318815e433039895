"""Two processes in one run, kills and signals at awkward moments, outputs that close: what is kept and said."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.runs import (
    SMALL,
    WAITING,
    Killed,
    Outcome,
    assert_same_run,
    assert_same_state,
    checkpoints,
    contents,
    finish,
    in_step,
    kill,
    killed,
    metrics,
    start,
    until_step,
)
from train.commands.command_line import Parser, run_command, say
from train.runs import checkpoint as checkpoint_files
from train.runs import run, session
from train.runs.run import Run, RunError
from train.storage import files as _files
from train.storage import lock as _lock

Command = Callable[..., Outcome]


def interrupt(*arguments: Any, **options: Any) -> Any:
    signal.raise_signal(signal.SIGINT)


# One process in a run


def test_a_second_process_is_told_which_one_has_the_run(command: Command, path: Path) -> None:
    """While it lives; its death by SIGKILL releases the run, and a run that has ended leaves no lock behind."""
    first = start("-c", WAITING, *SMALL, "--train-size", 40, "--no-test", "--out", path)
    until_step(first, 2, 2)
    before = contents(path)
    line = command("--resume", path).one_line(1, f"in use by process {first.pid} on {platform.node()}")
    assert str(path) in line and contents(path) == before
    first.kill()
    finish(first)
    second = start("-c", WAITING, "--resume", path)
    until_step(second, 3, 1)
    command("--resume", path).one_line(1, f"process {second.pid} on")
    assert finish(second, "\n" * 100).status == 0
    assert [line["epoch"] for line in metrics(path)] == [1, 2, 3, 4]
    assert not (path / ".lock").exists()


def test_a_lock_is_held_once_and_again_when_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    for _ in range(2):
        with _lock.locked(path):
            owner = f"process {os.getpid()} on {platform.node()}"
            with pytest.raises(_lock.HeldError, match=owner), _lock.locked(path):
                raise AssertionError
            assert path.read_text() == owner + "\n"
        assert not path.exists()
    path.write_text("process 1 on a host that crashed\n")
    with _lock.locked(path):
        assert path.read_text() == owner + "\n"


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "hard link", "directory", "pipe"])
def test_a_lock_that_is_no_file_of_its_own_is_refused_and_left_as_it_is(
    command: Command, copied: Path, tmp_path: Path, kind: str
) -> None:
    """What a link led to was written over by the name of the process."""
    lock, mine = copied / ".lock", tmp_path / "thesis.tex"
    if kind != "dangling link":
        mine.write_text("chapter 1")
    match kind:
        case "symbolic link" | "dangling link":
            lock.symlink_to(mine)
        case "hard link":
            lock.hardlink_to(mine)
        case "directory":
            lock.mkdir()
        case _:
            os.mkfifo(lock)
    before = contents(tmp_path)
    told = f"cannot write the run to {copied}: its .lock is a link, or no file; remove it"
    command("--resume", copied).one_line(1, told)
    assert contents(tmp_path) == before and os.path.lexists(lock)


def test_a_lock_on_a_file_that_its_owner_has_just_removed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock = tmp_path / ".lock", _lock.fcntl.flock
    removed: list[int] = []

    def late(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not removed:
            path.unlink()
            removed.append(descriptor)

    monkeypatch.setattr(_lock.fcntl, "flock", late)
    with _lock.locked(path):
        monkeypatch.undo()
        assert removed
        with pytest.raises(_lock.HeldError), _lock.locked(path):
            raise AssertionError


def test_a_lock_that_was_removed_by_hand_is_taken_again_unless_another_was_quicker(
    command: Command, trained: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes `.lock` for a stale file and removes it has two processes in one run."""
    with monkeypatch.context() as patch:
        in_step(patch, 2, 2, (path / ".lock").unlink)
        command(*SMALL, "--out", path).success()
    assert_same_run(path, trained)
    assert not (path / ".lock").exists()
    other, owner = tmp_path / "other", contextlib.ExitStack()

    def removed() -> None:
        (other / ".lock").unlink()
        owner.enter_context(_lock.locked(other / ".lock"))

    in_step(monkeypatch, 2, 2, removed)
    with owner:
        said = "is in use by process", "which goes on; this process ends"
        command(*SMALL, "--out", other).one_line(1, f"{other / '.lock'} was removed, and the run", *said)
        assert (other / ".lock").exists()  # the other's
        assert checkpoints(other) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]
        assert len(metrics(other)) == 1


def test_a_file_system_without_locks_is_used_and_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_lock.fcntl, "flock", none)
    outcome = command(*SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert outcome.status == 0 and outcome.err.count("\n") == 1
    assert f"{tmp_path / 'run'} is not locked (No locks available)" in outcome.err
    (tmp_path / ".lock").write_text("process 1 on a host")
    with _lock.locked(tmp_path / ".lock"):  # which that process may hold
        assert (tmp_path / ".lock").read_text() == "process 1 on a host"


def test_two_writers_of_one_file_do_not_share_a_partial_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process writes in the middle of this one's writing; each version is whole."""
    path, fsync, others = tmp_path / "a.png", os.fsync, []

    def meanwhile(descriptor: int) -> None:
        if not others:
            others.append(os.getpid() + 1)
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: others[0])
                _files.write_atomically(path, b"theirs")
            assert path.read_bytes() == b"theirs"
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    _files.write_atomically(path, b"mine, and longer")
    assert others and contents(tmp_path) == {"a.png": b"mine, and longer"}


# What is said of an interruption


def fail(*arguments: Any) -> None:
    raise MemoryError


@pytest.mark.parametrize("drawing", [fail, interrupt])
def test_a_picture_that_fails_does_not_hide_why_training_stopped(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawing: Any
) -> None:
    in_step(monkeypatch, 2, 2, interrupt)
    monkeypatch.setattr("train.runs.plot.plot_learning_curve", drawing)
    command(*SMALL, "--out", tmp_path / "run").one_line(130, "stopped by SIGINT at epoch 2, step 2", "saved")


def test_an_interruption_while_the_last_picture_is_drawn_says_that_all_else_is_saved(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("train.runs.plot.plot_learning_curve", interrupt)
        command(*SMALL, "--out", path).one_line(
            130, f"interrupted while {path / 'learning-curve.png'} was drawn", "all else", f"hcnn plot {path}"
        )
    assert_same_run(path, trained)
    command("--resume", path).success()
    assert (path / "learning-curve.png").exists()


def test_an_interruption_before_the_first_state_is_saved(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name, said in ((session.Session, "load", "interrupted"), (Run, "create", "nothing was saved")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupt)
            command(*SMALL, "--out", tmp_path / "run").one_line(130, said)
    command(*SMALL, "--epochs", 1, "--out", tmp_path / "run").success()


# Kills


def test_a_run_killed_at_its_last_picture_is_completed(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("train.runs.plot.plot_learning_curve", kill)
        killed(command, *SMALL, "--out", path)
    assert not (path / "learning-curve.png").exists()
    monkeypatch.setattr(session.Session, "load", None)  # the data are not needed for that
    out = command("--resume", path).success()
    assert "is finished" in out and "test: accuracy" in out and str(path / "best.h5") in out
    assert_same_run(path, trained)
    assert (path / "learning-curve.png").exists()


def dead() -> int:
    """The number of a process that has ended."""
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    return int(subprocess.run(command, capture_output=True, text=True).stdout)


def test_what_a_killed_process_left_half_written_goes_at_the_next_start(command: Command, copied: Path) -> None:
    left = [f".best.h5.{dead()}.partial", f".metrics.jsonl.{os.getpid()}.partial", ".config.toml.partial"]
    kept = [f".learning-curve.png.{os.getppid()}.partial", ".notes.partial.txt"]
    for name in (*left, *kept):
        (copied / name).touch()
    command("--resume", copied).success()
    assert sorted(p.name for p in copied.glob(".*")) == sorted(kept)


@pytest.mark.parametrize("suffix", ["h5", "safetensors"])
def test_what_an_export_that_was_killed_left_goes_at_the_next_one(
    command: Command, trained: Path, tmp_path: Path, suffix: str
) -> None:
    pid = dead()
    kept = [f".b.{suffix}.{pid}.partial", f".axh5.{pid}.partial", f".a.{suffix}.{os.getppid()}.partial"]
    for name in (*kept, f".a.{suffix}.{pid}.partial"):
        (tmp_path / name).touch()
    command("export", trained / "best.h5", tmp_path / f"a.{suffix}").success()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, f"a.{suffix}"])


@pytest.mark.parametrize("moment", ["before the checkpoint", "before the configuration"])
def test_a_run_killed_while_it_is_created_can_be_begun_again_or_resumed(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path, write = tmp_path / "run", _files.write_atomically

    def patched(target: Path, content: bytes) -> None:
        if (target.suffix == ".h5") == (moment == "before the checkpoint"):
            raise Killed
        write(target, content)

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_atomically", patched)
        patch.setattr(checkpoint_files, "write_atomically", patched)
        killed(command, *SMALL, "--out", path)
    if moment == "before the checkpoint":
        command("--resume", path).one_line(1, "holds no run to resume")
        command(*SMALL, "--out", path).success()
    else:
        command(*SMALL, "--out", path).one_line(1, "holds a run already", f"--resume {path}")
        command("--resume", path).success()
        assert (path / "config.toml").read_bytes() == (trained / "config.toml").read_bytes()
    assert_same_run(path, trained)


@pytest.mark.parametrize("others", [True, False], ids=["the newest", "the only one"])
def test_the_best_checkpoint_is_gone_on_from_where_it_is(
    command: Command, trained: Path, path: Path, others: bool
) -> None:
    path.mkdir()
    for name in ("config.toml", "metrics.jsonl"):
        shutil.copy(trained / name, path)
    shutil.copy(trained / "epoch0003-step000000.h5", path / "best.h5")
    if others:
        shutil.copy(trained / "epoch0002-step000000.h5", path)
    assert "going on after epoch 3, step 0" in command("--resume", path).success()
    assert_same_state(path / "epoch0003-step000000.h5", trained / "epoch0003-step000000.h5")
    assert_same_state(path / "epoch0004-step000000.h5", trained / "epoch0004-step000000.h5")
    assert metrics(path) == metrics(trained)


def test_a_kill_before_old_checkpoints_are_dropped_leaves_none_too_many(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        killed(command, *SMALL, "--out", path)
    assert len(checkpoints(path)) == 1 + 4
    with Run(path).lock():
        assert len(checkpoints(path)) == 1 + 3
    command("--resume", path).success()
    assert checkpoints(path) == checkpoints(trained)


def test_an_extension_killed_before_its_configuration_is_written_writes_it_later(
    command: Command, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(*SMALL, "--schedule", "constant", "--epochs", 1, "--out", path).success()
    before = (path / "config.toml").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_config", kill)
        killed(command, "--resume", path, "--epochs", 2)
    assert Run(path).recorded("epochs") == 1
    command("--resume", path).success()
    assert Run(path).recorded("epochs") == 2 and metrics(path)[-1]["epoch"] == 2
    (path / "config.toml").write_bytes(before)  # the same, of a run that is finished
    assert "is finished" in command("--resume", path).success()
    assert Run(path).recorded("epochs") == 2


# A best checkpoint that is damaged


def test_a_damaged_best_checkpoint_is_that_of_its_epoch_again(command: Command, trained: Path, copied: Path) -> None:
    """Of three that are kept, the third epoch's is made the one that had the best score."""
    records = [json.loads(line) for line in (copied / "metrics.jsonl").read_text().splitlines()]
    for record in records[:4]:
        record["best"] = record["epoch"] == 3
    (copied / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    best = copied / "best.h5"
    best.write_bytes(best.read_bytes()[:-1])
    out = command("--resume", copied).success()
    line = f"{best} is a copy of epoch0003-step000000.h5 again; the damaged one is now {best}.damaged"
    assert line in out.splitlines() and f"{best}: epoch 3; epoch0004-step000000.h5: epoch 4" in out.splitlines()
    assert best.read_bytes() == (trained / "epoch0003-step000000.h5").read_bytes()
    assert (copied / "best.h5.damaged").read_bytes() == (trained / "best.h5").read_bytes()[:-1]
    assert "is a copy of" not in command("--resume", copied).success()


def test_without_held_out_images_the_best_epoch_has_the_least_loss(trained: Path, copied: Path) -> None:
    losses = {1: 0.75, 2: 0.25, 3: 0.5}
    lines = (json.dumps({"epoch": epoch, "train_loss": loss}) + "\n" for epoch, loss in losses.items())
    (copied / "metrics.jsonl").write_text("".join(lines))
    for epoch in (2, 3):  # the score of an epoch is its loss, negated
        (copied / "best.h5").write_bytes(b"damaged")
        said, lost = Run(copied).mend_best(-losses[epoch])
        assert f"is a copy of epoch000{epoch}-step000000.h5 again" in said and not lost
        assert (copied / "best.h5").read_bytes() == (trained / f"epoch000{epoch}-step000000.h5").read_bytes()


@pytest.mark.parametrize("finished", [True, False])
def test_a_best_checkpoint_that_is_lost_is_not_advertised(command: Command, copied: Path, finished: bool) -> None:
    """Nor does its score keep later epochs from taking its place."""
    best = copied / "best.h5"
    best.write_bytes(b"damaged")
    records = (copied / "metrics.jsonl").read_text().replace("best", "other")
    # nobody knows whose it was
    (copied / "metrics.jsonl").write_text(records.replace("validation_accuracy", "unknown"))
    for checkpoint in copied.glob("epoch000[34]*.h5") if not finished else ():
        checkpoint.unlink()
    out = command("--resume", copied).success()
    hope = "; the best epoch from here on takes its place"
    assert f"{best} is damaged, and is now {best}.damaged{'' if finished else hope}" in out.splitlines()
    assert best.exists() != finished and (f"\n{best}: epoch" in out) != finished
    if not finished:
        assert checkpoint_files.load(best).state.epoch > 2


@pytest.mark.parametrize("kept", [True, False])
def test_a_best_checkpoint_that_has_gone_is_missed(command: Command, trained: Path, copied: Path, kept: bool) -> None:
    """As where the disk was full when a copy was to take a damaged one's place."""
    records = [json.loads(line) for line in (copied / "metrics.jsonl").read_text().splitlines()]
    for record in records[:4]:
        record |= {"best": kept and record["epoch"] == 3, "validation_accuracy": -1.0}
    (copied / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    best = copied / "best.h5"
    best.unlink()
    out = command("--resume", copied).success()
    if kept:
        assert f"{best} is a copy of epoch0003-step000000.h5 again; it was gone" in out.splitlines()
        assert best.read_bytes() == (trained / "epoch0003-step000000.h5").read_bytes()
        return
    assert f"{best} is gone" in out.splitlines() and not best.exists()
    (copied / "epoch0004-step000000.h5").unlink()
    line = f"{best} is gone; the best epoch from here on takes its place"
    assert line in command("--resume", copied).success().splitlines()
    assert checkpoint_files.load(best).state.epoch == 4


# Checkpoints that cannot be read, or have another's name


@pytest.mark.parametrize("name", ["epoch0004-step000000.h5", "best.h5"])
def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(
    command: Command, copied: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The run went on from an older one, and renamed it."""
    before, opened = contents(copied), open

    def failing(file: Any, *arguments: Any, **options: Any) -> Any:
        if Path(str(file)).name == name:
            raise OSError(errno.EIO, "Input/output error", file)
        return opened(file, *arguments, **options)

    monkeypatch.setattr(checkpoint_files, "open", failing, raising=False)
    for action in ("--resume", "--evaluate"):
        command(action, copied).one_line(1, f"cannot read the checkpoint {copied / name}: Input/output error")
    assert contents(copied) == before


def test_a_checkpoint_with_the_name_of_another_is_not_gone_on_from(
    command: Command, trained: Path, copied: Path
) -> None:
    """Whole checkpoints between its state and its name were called damaged."""
    shutil.copy(copied / "epoch0002-step000000.h5", copied / "epoch0003-step000002.h5")
    (copied / "epoch0004-step000000.h5").unlink()
    shutil.copy(copied / "epoch0003-step000000.h5", copied / "best.h5")  # as it was then
    out = command("--resume", copied).success()
    assert f"{copied / 'epoch0003-step000002.h5'} holds the state after epoch 2, step 0: its name is another's" in out
    assert "going on after epoch 3, step 0" in out
    for name in ("epoch0003-step000000.h5", "epoch0004-step000000.h5"):
        assert_same_state(copied / name, trained / name)


# Terminals and outputs


@pytest.mark.parametrize("arguments", [[], ["--help"]])
@pytest.mark.parametrize("output", ["closed", "full"])
def test_output_without_a_buffer_that_cannot_be_written_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: str, arguments: list[str]
) -> None:
    """PYTHONUNBUFFERED=1, usual in containers, keeps nothing for the last flush."""
    if output == "full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    reader, writer = os.pipe()
    os.close(reader)
    if output == "full":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    parser = Parser(prog="python -m train.cifar")
    with os.fdopen(writer, "wb", 0) as raw:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))
        assert run_command(parser, arguments, lambda options: say("a line") or 0, "") == 1
    said = capsys.readouterr().err
    full = "train.cifar: cannot write to standard output: No space left on device\n"
    assert said == (full if output == "full" else "")
    monkeypatch.undo()
    assert run_command(parser, [], lambda options: 0, "") == 0  # the next command has nothing to answer for


def test_a_hangup_that_nohup_ignores_is_ignored(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        in_step(monkeypatch, 2, 2, lambda: signal.raise_signal(signal.SIGHUP))
        command(*SMALL, "--out", tmp_path / "run").success()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert_same_run(tmp_path / "run", trained)


def test_a_full_standard_output_does_not_hide_why_a_run_stopped(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise RunError("cannot write to standard output: No space left on device")

    monkeypatch.setattr("train.commands.command_line._flush", full)
    in_step(monkeypatch, 1, 2, interrupt)
    command(*SMALL, "--out", tmp_path / "run").one_line(130, "stopped by SIGINT", "saved")
