"""What is done with a finished run: evaluated by its folder, extended, or taken as the beginning of another."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.commands import Command, made_up
from tests.train.runs import (
    SMALL,
    Outcome,
    assert_same_state,
    contents,
    interrupted_at_a_step,
    metrics,
    run_plainly,
    saved_state,
)
from train import load
from train.config import read_toml
from train.data import Dataset
from train.runs import checkpoint as checkpoints
from train.runs import session
from train.runs.run import Run
from train.runs.training import Trainer, summary

LAST = "epoch0004-step000000.h5"
CONSTANT = (*SMALL, "--schedule", "constant")


def test_a_folder_stands_for_its_latest_checkpoint(command: Command, trained: Path, few_images: Dataset) -> None:
    by_folder, by_file = command("--evaluate", trained).success(), command("--evaluate", trained / LAST).success()
    assert by_folder == f"{trained / LAST}: after epoch 4 of 4\n{by_file}"
    assert metrics(trained)[-1]["test_accuracy"] == pytest.approx(
        np.mean(load(trained).logits(few_images.test_images).argmax(axis=1) == few_images.test_labels)
    )


def test_a_folder_whose_latest_checkpoint_is_damaged(command: Command, copied: Path) -> None:
    (copied / LAST).write_bytes(b"damaged")
    before = contents(copied)
    lines = command("--evaluate", copied).success().splitlines()
    assert LAST in lines[0] and "not a whole checkpoint" in lines[0] and "; taking " in lines[0]
    assert lines[1].endswith(" of 4") and LAST not in lines[1]
    with pytest.warns(UserWarning, match="not a whole checkpoint"):
        load(copied)
    assert contents(copied) == before


# Extended


@pytest.mark.parametrize("schedule", [("constant",), ("step", "--step-epochs", "3")], ids=" ".join)
def test_an_extended_run_is_what_a_longer_one_would_have_been(
    command: Command, tmp_path: Path, schedule: tuple[str, ...]
) -> None:
    """Bit for bit, since neither schedule looks at the number of epochs."""
    longer, extended = tmp_path / "longer", tmp_path / "extended"
    command(*SMALL, "--schedule", *schedule, "--epochs", 5, "--out", longer).success()
    command(*SMALL, "--schedule", *schedule, "--epochs", 3, "--out", extended).success()
    said = command("--resume", extended, "--epochs", 5).success()
    assert "the test set was read after epoch 3; it is read again after epoch 5" in said
    for name in ("best.h5", "epoch0005-step000000.h5"):
        assert_same_state(extended / name, longer / name)
    assert [r for r in metrics(extended) if not (r["epoch"] == 3 and "test_loss" in r)] == metrics(longer)
    settings = [read_toml(path / "config.toml") for path in (extended, longer)]
    assert settings[0] == settings[1]
    assert "is finished: all 5 epochs are trained" in command("--resume", extended).success()
    assert f"accuracy {100 * metrics(longer)[-1]['test_accuracy']:.2f}" in command("--resume", extended).success()


def test_an_extension_that_is_cut_off_goes_on_without_the_flag(
    command: Command, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before its first step; and the test set is read when it is complete, though it was read before."""
    command(*CONSTANT, "--epochs", 2, "--out", path).success()
    command("--resume", path, "--epochs", 4, "--hours", 1e-9).success()
    assert Run(path).latest()[1].config.epochs == 4
    command("--resume", path, "--epochs", 4).success()
    records = metrics(path)
    assert [record["epoch"] for record in records] == [1, 2, 2, 3, 4, 4]
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "_train_and_test", lambda self, trainer, *rest: trainer.fit() and None)
        command("--resume", path, "--epochs", 5).success()  # stopped between its last epoch and the test
    assert "test_accuracy" not in metrics(path)[-1]
    assert "is finished" not in command("--resume", path).success()
    assert metrics(path)[-1]["epoch"] == 5 and "test_accuracy" in metrics(path)[-1]


def test_what_was_tested_is_not_the_weights_of_an_extension_that_is_cut_off(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is the test set read again before its time."""
    run, target = tmp_path / "run", tmp_path / "network.h5"
    command(*CONSTANT, "--validation-size", 0, "--epochs", 1, "--out", run).success()
    with interrupted_at_a_step():
        assert command("--resume", run, "--epochs", 2).status == 130
    latest = run / "epoch0001-step000001.h5"
    assert f"{latest}: after epoch 1 of 2 and step 1 of the next\n" in command("export", run, target).success()
    assert not checkpoints.load(target).figures
    command("export", run / "epoch0001-step000000.h5", tmp_path / "tested.h5").success()
    assert checkpoints.load(tmp_path / "tested.h5").figures["test_accuracy"] == metrics(run)[-1]["test_accuracy"]
    monkeypatch.setattr("train.runs.report.page", lambda *arguments: str(arguments[-2]))
    command("report", run).success()
    assert (run / "report.html").read_text("utf-8") == "None"  # images that it shows


@pytest.mark.parametrize(
    ("flags", "epochs", "fragments"),
    [
        (("--schedule", "cosine"), 8, ["--schedule cosine", "over all 2 epochs", "--init-from"]),
        (("--schedule", "one-cycle"), 8, ["--schedule one-cycle", "--init-from"]),
        (("--schedule", "constant", "--image-sizes", "16", "32"), 8, ["--image-sizes", "over all 2 epochs"]),
        (("--schedule", "constant"), 1, ["--epochs 1 is less than", "has trained: 2"]),
    ],
)
def test_what_cannot_be_extended(
    command: Command, path: Path, flags: tuple[str, ...], epochs: int, fragments: list[str]
) -> None:
    command(*SMALL, *flags, "--epochs", 2, "--out", path).success()
    before = contents(path)
    command("--resume", path, "--epochs", epochs).one_line(2, str(path), *fragments)
    assert contents(path) == before
    assert "is finished" in command("--resume", path, "--epochs", 2).success()  # what it has


def test_an_end_at_what_is_trained_is_recorded(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, end = tmp_path / "run", Trainer._end_epoch

    def stop(self: Trainer) -> None:
        end(self)
        if self.state.epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", stop)
        command(*CONSTANT, "--epochs", 9, "--no-test", "--out", run).one_line(143, "the end of epoch 2 of 9 epochs")
    command("--resume", run, "--epochs", 2).success()
    assert read_toml(run / "config.toml")["epochs"] == 2
    assert "is finished: all 2 epochs" in command("--resume", run).success()


# Another run's weights


def first_state(run: Path) -> dict[str, Any]:
    return saved_state(run / "epoch0000-step000000.h5")


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_run_begins_with_the_weights_of_another(command: Command, trained: Path, tmp_path: Path, form: str) -> None:
    run, source = tmp_path / "run", trained if form == "folder" else trained / LAST
    out = command(*SMALL, "--epochs", 1, "--init-from", source, "--out", run).success()
    assert f"weights of {trained / LAST}\n" in out and "drawn" not in out
    found, expected = first_state(run), saved_state(trained / LAST)
    arrays = [name for name in found if name.startswith(("parameters", "moments"))]
    assert len(arrays) > 10
    for name in arrays:
        assert np.array_equal(found[name], expected[name]), name
    assert found["epoch"] == 0 and not any(found[name].any() for name in found if name.startswith("optimizer"))
    fresh = tmp_path / "fresh"
    command(*SMALL, "--epochs", 1, "--out", fresh).success()
    assert found["generator"] == first_state(fresh)["generator"]  # order and augmentation are those of the seed
    assert metrics(run)[0]["train_loss"] < metrics(fresh)[0]["train_loss"]
    assert f'init_from = "{source}"' in (run / "config.toml").read_text()
    command("--resume", run).success()


def test_average_and_dtype_follow(command: Command, trained: Path, tmp_path: Path) -> None:
    flags = ("--epochs", 1, "--average-decay", 0.9, "--dtype", "float64", "--init-from", trained)
    command(*SMALL, *flags, "--out", tmp_path / "run").success()
    found, expected = first_state(tmp_path / "run"), saved_state(trained / LAST)
    for name in expected:
        if name.startswith("parameters"):
            assert found[name].dtype == np.float64 and np.array_equal(found[name], expected[name])
            assert np.array_equal(found[name], found[name.replace("parameters", "average")])


@pytest.mark.parametrize(
    ("flags", "drawn"),
    [(("--dataset",), "layer04, head"), (("--head", "dense"), "layer04, head"), (("--head", "sum"), "layer04")],
)
def test_what_tells_other_classes_apart_is_drawn(
    trained: Path, tmp_path: Path, few_images: Dataset, flags: tuple[str, ...], drawn: str
) -> None:
    run, images = tmp_path / "run", few_images
    if "--dataset" in flags:
        file = tmp_path / "other.npz"
        np.savez(file, **made_up((32, 32, 3), 3))
        flags, images = ("--dataset", str(file)), None
    out = run_plainly((*SMALL, *flags, "--epochs", 1, "--init-from", trained, "--out", run), images).success()
    assert f"drawn, since its head is another: {drawn}\n" in out
    found, expected = first_state(run), saved_state(trained / LAST)
    for name in found:
        if name.startswith(("parameters/layer01", "parameters/layer02", "parameters/layer03", "moments/layer03")):
            assert np.array_equal(found[name], expected[name]), name
    assert not np.array_equal(found["parameters/layer04/h"], expected["parameters/layer04/h"])


@pytest.mark.parametrize(
    ("flags", "status", "fragments"),
    [
        (("--width", 6), 1, ["is of another network", "layer01/bias is float32(4,)", "float32(6,)"]),
        (("--depth", 6), 1, ["is of another network", "layer04"]),
        (("--normalization", "both"), 1, ["is of another network", "scale is absent"]),
        (("--init-from", "nowhere"), 1, ["no checkpoint at nowhere", "hcnn-fast"]),
        (("--init-from", "."), 1, ["holds no run"]),
        (("--seed", 1), 1, ["--init-from", "was trained on", "of the 8 images that are held out", "--seed 0"]),
    ],
    ids=str,
)
def test_weights_that_do_not_do(
    command: Command,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[object, ...],
    status: int,
    fragments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(*SMALL, "--init-from", trained, *flags, "--out", tmp_path / "run")
    assert [f for f in fragments if f not in outcome.err] == [] and outcome.err.count("\n") == 1, outcome
    assert outcome.status == status and not (tmp_path / "run").exists()


# What a run says


LINE = (
    r"epoch (\d+)/4: loss (\d+\.\d{3}), accuracy (\d+\.\d) %, held out (\d+\.\d) %, (\d+) images/s"
    r"(?:, (\d+(?:\.\d)?) (s|min|h) left)?"
)


def test_a_line_for_every_epoch(first_run: tuple[Path, Outcome]) -> None:
    """On standard output, with what metrics.jsonl has."""
    path, outcome = first_run
    lines = [re.fullmatch(LINE, line) for line in outcome.success().splitlines() if line.startswith("epoch ")]
    assert len(lines) == 4 and all(lines)
    for line, record in zip(lines, metrics(path), strict=False):
        assert line
        epoch, loss, accuracy, held_out = map(float, line.groups()[:4])
        assert epoch == record["epoch"] and loss == pytest.approx(record["train_loss"], abs=5e-4)
        assert accuracy == pytest.approx(100 * record["train_accuracy"], abs=0.0501)
        assert held_out == pytest.approx(100 * record["validation_accuracy"], abs=0.0501)
        assert bool(line[7]) == (epoch < 4)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1, "1 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1.7 h"), (86400, "24.0 h")],
)
def test_how_a_time_is_said(seconds: float, said: str) -> None:
    record = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "images_per_second": 10.0}
    assert summary(record, 3, seconds) == f"epoch 1/3: loss 1.000, accuracy 50.0 %, 10 images/s, {said} left"
