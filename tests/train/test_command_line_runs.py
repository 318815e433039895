"""The command line and run directories: --out, --resume, --evaluate, and plot."""

from __future__ import annotations

import json
import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.train.commands import Command, needs_proc
from tests.train.runs import (
    SMALL,
    Outcome,
    assert_same_run,
    checkpoints,
    contents,
    edited,
    metrics,
)
from train.data import Dataset
from train.runs import run, session
from train.runs.checkpoint import load, save

# --out


def test_out_with_a_run_in_it(command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before data are looked for, which may mean a download."""
    monkeypatch.setattr(session.Session, "load", None)
    command(*SMALL, "--out", trained).one_line(1, str(trained), "holds a run already", f"--resume {trained}")


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "best.h5", "learning-curve.png"])
def test_out_with_a_part_of_a_run_in_it(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    command(*SMALL, "--out", tmp_path).one_line(1, str(tmp_path), "holds a run already", "another directory")
    assert contents(tmp_path) == {name: b"mine"}


def test_out_of_two_runs_begun_at_once_goes_to_one(command: Command, tmp_path: Path, monkeypatch: Any) -> None:
    """The other run's configuration appears after this one has looked."""
    mkdir = Path.mkdir

    def late(self: Path, *arguments: Any, **options: Any) -> None:
        mkdir(self, *arguments, **options)
        (self / "config.toml").write_text("theirs")

    monkeypatch.setattr(Path, "mkdir", late)
    command(*SMALL, "--out", tmp_path / "run").one_line(1, "holds a run already")
    assert contents(tmp_path) == {"run/config.toml": b"theirs"}


def test_out_without_a_run_in_it_keeps_what_is_there(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    command(*SMALL, "--epochs", 1, "--out", tmp_path).success()
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "best.h5").exists()


def test_out_that_is_a_file_or_below_one(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    command(*SMALL, "--out", file).one_line(1, str(file), "is a file", "directory")
    command(*SMALL, "--out", file / "run").one_line(1, f"cannot write the run to {file / 'run'}", "Not a directory")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    command(*SMALL, "--out", tmp_path / "link").one_line(1, str(tmp_path / "link"), "name a directory")
    assert contents(tmp_path) == {"file": b"mine"}


def test_runs_that_begin_in_one_second_take_names_of_their_own(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second meets the first while it trains, the third when both are done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session.time, "strftime", lambda form: "now")
    fit = session.Session._fit

    def and_another(self: session.Session, *arguments: Any) -> None:
        monkeypatch.setattr(session.Session, "_fit", fit)
        assert "runs/sample-now-2: sample on 32 images" in command(*SMALL, "--epochs", 1).success()
        fit(self, *arguments)

    monkeypatch.setattr(session.Session, "_fit", and_another)
    assert "runs/sample-now: sample on 32 images" in command(*SMALL, "--epochs", 1).success()
    command(*SMALL, "--epochs", 1).success()
    assert sorted(path.name for path in Path("runs").iterdir()) == ["sample-now", "sample-now-2", "sample-now-3"]
    assert all(len(metrics(path)) == 2 for path in Path("runs").iterdir())


@needs_proc
def test_out_that_cannot_be_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/proc/run", "/proc/self"):
        command(*SMALL, "--out", path).one_line(1, f"cannot write the run to {path}: ")
    monkeypatch.chdir("/proc")
    command(*SMALL).one_line(1, "cannot write the run to runs/sample-")


def limit_file_size(size: int) -> int:
    """Let no file grow beyond a size, as a full disk would; return the limit before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    return soft


def test_out_on_a_full_disk(command: Command, tmp_path: Path) -> None:
    before = limit_file_size(100)
    try:
        outcome = command(*SMALL, "--out", tmp_path / "run")
    finally:
        limit_file_size(before)
    outcome.one_line(1, f"cannot write the run to {tmp_path / 'run'}", "File too large")
    assert contents(tmp_path) == {}
    command(*SMALL, "--epochs", 1, "--out", tmp_path / "run").success()


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, save = tmp_path / "run", run.Run.save

    def on_full_disk(self: run.Run, checkpoint: Any, *arguments: Any, **options: Any) -> Path:
        before = limit_file_size(10_000 if checkpoint.state.epoch == 3 else resource.RLIM_INFINITY)
        try:
            return save(self, checkpoint, *arguments, **options)
        finally:
            limit_file_size(before)

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "save", on_full_disk)
        command(*SMALL, "--out", path).one_line(1, "cannot write the checkpoint", str(path), "File too large")
    assert [name for name in checkpoints(path) if name != "best.h5"] == [
        f"epoch000{n}-step000000.h5" for n in (0, 1, 2)
    ]
    assert not list(path.glob(".*"))
    command("--resume", path).success()
    assert_same_run(path, trained)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_metrics_on_a_full_disk(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run, "open_regular", lambda path, flags: os.open("/dev/full", flags))
        command(*SMALL, "--out", tmp_path / "run").one_line(1, "cannot write", "metrics.jsonl", "No space left")


def test_a_picture_that_cannot_be_drawn_does_not_hide_the_result(
    drawing_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Run, "picture_path", tmp_path / "absent" / "a.png")
    outcome = drawing_command(*SMALL, "--epochs", 1, "--out", tmp_path / "run")
    outcome.one_line(1, "cannot draw", str(tmp_path / "absent" / "a.png"))
    assert "test: accuracy" in outcome.out
    assert "test_accuracy" in metrics(tmp_path / "run")[-1]


# --resume and plot


def test_resume_of_a_finished_run(drawing_command: Command, trained: Path, first_run: tuple[Path, Outcome]) -> None:
    """It says again what came out, and changes nothing."""
    lines = first_run[1].success().splitlines()
    lines = [line for line in lines if not line.startswith(("epoch ", "about ")) and "report.html: " not in line]
    lines = [line for line in lines if "after one temperature" not in line]  # which takes the logits
    out = drawing_command("--resume", trained).success().splitlines()
    assert out == [
        f"{trained} is finished: all 4 epochs are trained",
        lines[1].removesuffix(", 30 images"),
        *(line.replace(", by 8 images", "") for line in lines[2:]),
    ]


@pytest.mark.parametrize("action", ["--resume", "plot"])
def test_resume_and_plot_of_no_run(command: Command, tmp_path: Path, action: str) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path, tmp_path / "file"):
        command(action, path).one_line(1, str(path), "holds no run")
    assert contents(tmp_path) == {"file": b""}
    (tmp_path / "config.toml").touch()
    command("train", tmp_path).one_line(2, f"(did you mean --config {tmp_path}/config.toml?)")
    if action == "--resume":
        command(action, tmp_path).one_line(1, "has no checkpoint; start the run anew in another directory")


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", "1"),
        ("--no-flip",),
        ("--preset", "sample"),
        ("--config", "a.toml"),
        ("--out", "a"),
    ],
    ids=" ".join,
)
def test_resume_with_other_flags(command: Command, trained: Path, flags: tuple[str, ...]) -> None:
    command("--resume", trained, *flags).one_line(2, "--resume takes its settings from the run", f"remove {flags[0]}")


def test_resume_with_every_checkpoint_damaged(command: Command, part: Path) -> None:
    (part / "epoch0001-step000000.h5").write_bytes(b"")
    (part / "epoch0002-step000000.h5").write_bytes(b"not HDF5")
    before = contents(part)
    command("--resume", part).one_line(1, "epoch0002-step000000.h5", "not a whole checkpoint")
    assert contents(part) == before


@pytest.mark.parametrize("group", ["parameters", "optimizer/velocity", "moments"])
def test_resume_with_another_network_in_the_checkpoint(command: Command, part: Path, group: str) -> None:
    with edited(part / "epoch0002-step000000.h5") as file:
        name = "covariance" if group == "moments" else "g"
        del file[group]["layer03"][name]
        file[group]["layer03"][name] = np.zeros((4, 7, 11, 5), "f4")
    before = contents(part)
    command("--resume", part).one_line(1, str(part), "another network", *group.split("/"), f"layer03/{name}")
    assert contents(part) == before


@pytest.mark.parametrize("change", ["images", "labels", "checksum", "names"])
def test_resume_on_other_images(
    command: Command, part: Path, few_images: Dataset, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Or the same with another label, which the checksum of labels alone may tell, or other names of the classes."""
    changed = few_images.train_images[0, 0, 0] if change == "images" else few_images.train_labels
    if change in ("checksum", "names"):
        newest = part / "epoch0002-step000000.h5"
        checkpoint = load(newest)
        assert checkpoint.labels is not None
        other: dict[str, Any] = {"labels": checkpoint.labels ^ 1}
        if change == "names":
            other = {"class_names": checkpoint.class_names[::-1]}
        save(newest, replace(checkpoint, **other), {})
        changed = changed.copy()
    before = contents(part)
    changed[0] ^= 1
    try:
        command("--resume", part, "--data-dir", "elsewhere").one_line(1, "other images than elsewhere", "--data-dir")
    finally:
        changed[0] ^= 1
    assert contents(part) == before


def test_a_run_older_than_the_checksum_of_labels_goes_on(command: Command, trained: Path, part: Path) -> None:
    newest = part / "epoch0002-step000000.h5"
    checkpoint = load(newest)
    assert checkpoint.labels is not None
    save(newest, replace(checkpoint, labels=None), {})
    command("--resume", part).success()
    assert load(part / "epoch0003-step000000.h5").labels == checkpoint.labels
    assert metrics(part) == metrics(trained)


def test_resume_from_another_data_dir_and_backend(command: Command, trained: Path, part: Path) -> None:
    command("--resume", part, "--data-dir", "elsewhere", "--backend", "numpy").success()
    assert metrics(part) == metrics(trained)
    with h5py.File(part / "epoch0004-step000000.h5") as file:
        assert json.loads(file.attrs["config"])["data_dir"] == "elsewhere"


@pytest.mark.parametrize("action", ["--resume", "plot"])
@pytest.mark.parametrize(
    "bad", ["[" * 10**5, "9" * 5000, "{", "3", "null", '{"train_loss": 1}', '{"epoch": "one"}', "\udcff"]
)
def test_damaged_metrics(command: Command, part: Path, action: str, bad: str) -> None:
    with open(part / "metrics.jsonl", "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(bad + "\n" + '{"epoch": 5}\n')
    before = contents(part)
    command(action, part).one_line(1, str(part / "metrics.jsonl"), "line 6")
    assert contents(part) == before


@pytest.mark.parametrize("kept", [None, 0, 1, 2])
def test_epochs_whose_record_is_lost_are_named(command: Command, trained: Path, part: Path, kept: int | None) -> None:
    lines = (part / "metrics.jsonl").read_text().splitlines(True)
    if kept is None:
        (part / "metrics.jsonl").unlink()
    else:
        (part / "metrics.jsonl").write_text("".join(lines[2 - kept : 2]))
    lost = {2: "", 1: "epoch 1"}.get(kept or 0, "2 epochs from 1 to 2")
    out = command("--resume", part).success()
    line = f"{part / 'metrics.jsonl'} has lost the record of {lost}; curve and report go on without"
    assert [said for said in out.splitlines() if "has lost" in said] == ([line] if lost else [])
    assert metrics(part) == metrics(trained)[2 - (kept or 0) :]
    if lost:
        assert line in command("--resume", part).success()  # which is finished now


def test_plot_before_the_first_epoch_is_complete(drawing_command: Command, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train_lo')
    drawing_command("plot", tmp_path).one_line(1, "cannot draw", "no epoch is complete")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 1}\n{"epoch": 2, "train_accuracy": 1}\n')
    drawing_command("plot", tmp_path).success()
    (tmp_path / "learning-curve.png").unlink()
    (tmp_path / "metrics.jsonl").write_text(
        '{"epoch": 1, "train_loss": 1}\n{"epoch": 2, "train_loss": 1, "train_accuracy": 1}\n'
    )
    drawing_command("plot", tmp_path).one_line(1, "cannot draw", "train_accuracy")
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


# --evaluate
