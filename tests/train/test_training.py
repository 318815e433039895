"""Runs: what they leave, progress, evaluation, limits."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import matplotlib.image
import numpy as np
import pytest
import tqdm

from tests.train.commands import Command, small_images
from tests.train.runs import (
    SMALL,
    TIMES,
    Outcome,
    assert_same_run,
    checkpoints,
    edited,
    in_steps,
    metrics,
    saved_state,
)
from train.config import make_config, read_toml
from train.data import Dataset, Images, channel_statistics
from train.data.progress import SILENT, progress_bar
from train.data.targets import r_squared
from train.evaluate import _confusion
from train.networks.registry import build
from train.recipes.tasks import TASKS, balanced_accuracy
from train.runs import checkpoint as checkpoint_files
from train.runs import training
from train.runs.plot import plot_learning_curve
from train.runs.run import Run, best_epoch, versions
from train.runs.training import Trainer, TrainingError, evaluate

# What a run leaves


def test_metrics_have_a_line_for_every_epoch_and_one_for_the_test(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 4]
    held_out = ("validation_loss", "validation_tempered_loss", "validation_accuracy")
    parts = ("train_loss", "train_accuracy", *held_out, "best")
    for line in lines[:-1]:
        first = line["epoch"] == 1  # whose first step, the slowest, does not count
        names = {"epoch", "task", "loss", "learning_rate", *parts, *TIMES}
        assert set(line) == names - (set() if first else {"first_step_seconds"})
        assert (line.pop("task"), line.pop("loss")) == ("classes", "cross-entropy")
        assert all(np.isfinite(value) for value in line.values())
        assert line["images_per_second"] == pytest.approx(32 / line["seconds"]) or first
        assert line["train_accuracy"] * 32 == round(line["train_accuracy"] * 32)
        assert line["validation_accuracy"] * 8 == round(line["validation_accuracy"] * 8)
    figures = {"test_loss", "test_accuracy", "test_accuracy_of_views", "test_balanced_accuracy"}
    assert set(lines[-1]) == {"epoch", "task", *figures, "seconds"}


def test_of_several_ranks_the_first_alone_writes(trained: Path, tmp_path: Path) -> None:
    """The fixture compares every file of its run."""
    checkpoint = checkpoint_files.load(trained / "best.h5")
    for run in (Run(trained, writes=False), Run(tmp_path / "new", writes=False)):
        with run.lock(make=True):
            run.create(lambda: pytest.fail("saved"), checkpoint.config, {})
            run.write_config(checkpoint.config, {})
            run.save(checkpoint, {}, best=True)
            run.append_metrics({"epoch": 5})
            run.forget_metrics_after(0)
    assert not (tmp_path / "new").exists()


def test_the_last_three_checkpoints_and_the_best_are_kept(trained: Path) -> None:
    assert checkpoints(trained) == ["best.h5", *(f"epoch000{n}-step000000.h5" for n in (2, 3, 4))]
    scores = [line["validation_accuracy"] for line in metrics(trained)[:-1]]
    with h5py.File(trained / "best.h5") as file:
        least = max(scores) - (max(scores) * (1 - max(scores)) / 8) ** 0.5  # a standard error below
        assert file.attrs["epoch"] == max(n for n, score in enumerate(scores, 1) if score >= least)
        assert file.attrs["best"] == max(scores)


def test_without_held_out_images_the_best_has_the_lowest_training_loss(command: Command, tmp_path: Path) -> None:
    arguments = (*SMALL, "--validation-size", 0, "--epochs", 3, "--schedule", "constant", "--seed", 3)
    out = command(*arguments, "--out", tmp_path / "run").success()
    assert "40 images" in out
    lines = metrics(tmp_path / "run")
    assert not any("validation_loss" in line for line in lines)
    losses = [line["train_loss"] for line in lines[:-1]]
    assert saved_state(tmp_path / "run" / "best.h5")["epoch"] == 1 + losses.index(min(losses))


def test_the_test_set_is_left_alone_where_it_may_not_be_read(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes are chosen so; the run is the same otherwise, and finished without it."""
    evaluated: list[int] = []

    def counted(*arguments: Any) -> Any:
        evaluated.append(len(arguments[-1].images))
        return evaluate(*arguments)

    for user in ("session", "report"):
        monkeypatch.setattr(f"train.runs.{user}.evaluate", counted)
    out = command(*SMALL, "--no-test", "--out", tmp_path / "run").success()
    assert 30 not in evaluated and "test:" not in out  # for the report, held-out images are read
    assert metrics(tmp_path / "run") == metrics(trained)[:-1]
    out = command("--resume", tmp_path / "run").success()
    assert "is finished: all 4 epochs are trained" in out and "test:" not in out and 30 not in evaluated


def test_a_run_says_what_it_does_and_what_came_out(first_run: tuple[Path, Outcome]) -> None:
    path, outcome = first_run
    lines = [line for line in outcome.success().splitlines() if not line.startswith("epoch ")]
    test = metrics(path)[-1]
    calibration = next(line for line in lines if "after one temperature" in line)
    assert re.fullmatch(r"test: loss \d\.\d{4} nats after .*; calibration error \d+\.\d %", calibration)
    left = [line for line in lines if re.fullmatch(r"about \d+ (s|min) left", line)]
    assert lines == [
        f"{path}: sample on 32 images of sample (8 held out, 30 for the test), 4 epochs of 4 steps, 16 in all, numpy, "
        "float32",
        *left[:1],
        f"test: accuracy {100 * test['test_accuracy']:.2f} %, loss {test['test_loss']:.4f} nats, 30 images",
        f"test: accuracy {100 * test['test_accuracy_of_views']:.2f} % by the mean of six views "
        "(shifts of a pixel, mirrored)",
        f"test: balanced accuracy {100 * test['test_balanced_accuracy']:.2f} %, the mean over classes",
        calibration,
        str(path / "learning-curve.png"),
        f"{path / 'best.h5'}: epoch {best_epoch(metrics(path))}, by 8 images; epoch0004-step000000.h5: epoch 4",
        f"{path / 'report.html'}: open it in a browser; hcnn.load({str(path)!r}) gives the network to Python",
    ]
    said = outcome.out.splitlines()
    assert len(left) == 1 and said.index(left[0]) < next(k for k, line in enumerate(said) if line[:6] == "epoch ")


def test_configuration_of_a_run_says_everything(trained: Path) -> None:
    text = (trained / "config.toml").read_text("utf-8")
    settings = read_toml(trained / "config.toml")
    config = make_config(settings.pop("preset"), settings)
    assert settings.keys() | {"preset"} == {f.name for f in dataclasses.fields(config)}
    assert (config.width, config.strided_layers, config.learning_rate) == (4, (3, 4), 0.02)
    versions = tomllib.loads(text)["versions"]
    assert {"numpy", "scipy", "numba", "h5py", "python", "machine", "backend"} <= versions.keys()
    assert (versions["numpy"], versions["backend"]) == (np.__version__, "numpy")


def test_a_run_records_how_many_processors_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert versions("numpy")["processor"].startswith("3 x ")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert versions("numpy")["processor"].startswith("7 x ")


def test_configuration_of_a_run_reproduces_it(command: Command, trained: Path, tmp_path: Path) -> None:
    command("--config", trained / "config.toml", "--out", tmp_path / "again").success()
    assert_same_run(tmp_path / "again", trained)
    command("--config", trained / "config.toml", "--seed", 1, "--out", tmp_path / "other").success()
    assert metrics(tmp_path / "other")[0]["train_loss"] != metrics(trained)[0]["train_loss"]


def pixels(path: Path) -> Any:
    return matplotlib.image.imread(path)


def test_a_picture_is_drawn(drawing_command: Command, trained: Path, tmp_path: Path) -> None:
    picture = pixels(trained / "learning-curve.png")
    assert min(picture.shape[:2]) > 300
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20  # not blank: lines, text, their edges
    shutil.copy(trained / "metrics.jsonl", tmp_path)
    out = drawing_command("plot", tmp_path).success()
    assert out.splitlines() == [str(tmp_path / "learning-curve.png")]
    assert pixels(tmp_path / "learning-curve.png").shape == picture.shape


@pytest.mark.parametrize("title", [r"runs/$\nothing$", "a_b^c$", "運行/é"])
def test_any_directory_name_can_be_a_title(tmp_path: Path, title: str) -> None:
    plot_learning_curve([{"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.5}], tmp_path / "a.png", title)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_metrics_are_on_the_disk_before_the_checkpoint_and_the_next_epoch(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen, save, synced, fsync = tmp_path / "run", [], Run.save, [], os.fsync

    def watched_save(self: Run, *arguments: Any, **options: Any) -> Path:
        path = run / "metrics.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []  # none before the first step
        assert not lines or synced[-1] == path.stat().st_ino
        seen.append([json.loads(line)["epoch"] for line in lines])
        return save(self, *arguments, **options)

    def watched_fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(Run, "save", watched_save)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    command(*SMALL, "--epochs", 2, "--out", run).success()
    assert seen == [[], [1], [1, 2]]


# Progress


class Terminal(io.StringIO):
    """Standard error that somebody watches."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(tqdm, "tqdm", functools.partial(tqdm.tqdm, mininterval=0, miniters=1))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(20, "epoch 3/8", initial=8) as bar:
        bar.set_postfix_str("loss 1.500", refresh=False)
        bar.update(8)
        bar.update(4)
    text = terminal.getvalue()
    assert "epoch 3/8" in text and "loss 1.500" in text and "img/s" in text
    assert "8/20" in text and "20/20" in text and "100%" in text


@pytest.mark.parametrize("stderr", [io.StringIO(), None, Terminal()], ids=["a file", "closed", "dumb"])
def test_progress_is_silent_where_nobody_watches(monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "dumb" if isinstance(stderr, Terminal) else "xterm")
    with progress_bar(20, "epoch 1/2") as bar:
        bar.set_postfix_str("loss 1.000", refresh=False)
        bar.update(8)
    assert stderr is None or stderr.getvalue() == ""


# Evaluation


def table(out: str) -> np.ndarray[Any, Any]:
    """The numbers of a printed confusion table."""
    rows = out.splitlines()[3:]
    return np.array([[int(n) for n in row.split()[1:11]] for row in rows])


def wilson(right: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's interval of 95 %: the parts p for which right / count is within z standard deviations of p."""
    roots = np.roots([1 + z * z / count, -2 * right / count - z * z / count, (right / count) ** 2])
    low, high = sorted(roots.real)
    return low, high


def test_evaluation_of_a_checkpoint_repeats_the_run(command: Command, trained: Path, few_images: Dataset) -> None:
    lines = command("--evaluate", trained / "epoch0004-step000000.h5").success().splitlines()
    test = metrics(trained)[-1]
    assert lines[0] == (
        f"test: accuracy {100 * test['test_accuracy']:.2f} %, loss {test['test_loss']:.4f} nats, 30 images"
    )
    assert lines[1].startswith(f"test: accuracy {100 * test['test_accuracy_of_views']:.2f} % by the mean of six views")
    assert "balanced accuracy" in lines[2] and "after one temperature" in lines[3]
    lines = lines[3:]
    assert lines[1] == "rows: true class; columns: predicted"
    assert lines[2].split("  right, ")[0].split() == [name[:4] for name in few_images.class_names]
    assert [line.split()[0] for line in lines[3:]] == list(few_images.class_names)
    confusion = table("\n".join(lines))
    assert confusion.shape == (10, 10)
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(few_images.test_labels, minlength=10))
    assert np.trace(confusion) / 30 == pytest.approx(test["test_accuracy"], abs=1e-12)
    shown = confusion[confusion.sum(axis=1) > 0]
    parts = np.array([row[k] for k, row in enumerate(confusion) if row.sum()]) / shown.sum(axis=1)
    assert parts.mean() == pytest.approx(test["test_balanced_accuracy"], abs=1e-12)
    for k, line in enumerate(lines[3:]):
        right, count = confusion[k, k], confusion[k].sum()
        low, high = wilson(right, count)
        assert line.endswith(f"{100 * right / count:5.1f} % ({100 * low:.1f} to {100 * high:.1f})"), line


def test_columns_of_classes_with_one_beginning_are_told_apart() -> None:
    result: Any = SimpleNamespace(confusion=np.eye(3, dtype=int))
    header = _confusion(result, ["control", "drug A", "drug B"]).splitlines()[1]
    assert header.split("  right, ")[0].split() == ["contro", "drug", "A", "drug", "B"]


def test_evaluation_reads_and_changes_nothing_but_the_checkpoint(
    command: Command, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "only.h5"
    shutil.copy(trained / "best.h5", path)
    before = path.read_bytes()
    command("--evaluate", path, "--backend", "numpy", "--dataset", "cifar10", "--batch-size", 30).success()
    assert [p.name for p in tmp_path.iterdir()] == ["only.h5"] and path.read_bytes() == before


def test_evaluation_uses_running_moments_so_that_images_do_not_mix(few_images: Dataset) -> None:
    """One image at a time gives what all at once give; with each batch's own moments it does not."""
    settings = {"width": 4, "factors": 4, "depth": 5, "dtype": "float64"}
    data = small_images(few_images, "float64")
    results = []
    for size in (1, 7, 100):
        network = build(make_config("sample", {**settings, "batch_size": size}))
        parameters = network.initialize(np.random.default_rng(1))
        moments = {
            la: {"mean": own["mean"] + 0.1, "covariance": 2 * own["covariance"]}
            for la, own in network.initial_moments().items()
        }
        results.append(evaluate(network, parameters, moments, data))
    for result in results[1:]:
        assert result.loss == pytest.approx(results[0].loss, rel=1e-11)
        np.testing.assert_array_equal(result.confusion, results[0].confusion)
    x, labels = data.take(slice(None))
    logits, _ = network(parameters, x, moments)
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(30), labels]
    assert results[0].loss == pytest.approx(losses.mean(), rel=1e-11)
    assert results[0].accuracy == np.mean(logits.argmax(1) == labels)
    own, _ = network(parameters, x)
    single, _ = network(parameters, x[:1])
    assert np.abs(own[:1] - single).max() > 1e-3 < np.abs(own - logits).max()


def test_every_epoch_shows_every_image_once_in_a_new_order(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def step(self: Trainer, index: Any) -> tuple[float, dict[str, float]]:
        seen.append(index)
        return 1.0, {"accuracy": 0.0}

    monkeypatch.setattr(Trainer, "_step", step)
    command(*SMALL, "--out", tmp_path / "run").success()
    epochs = np.concatenate(seen).reshape(4, 32)
    assert (np.sort(epochs, axis=1) == np.arange(32)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 4


def test_running_moments_follow_the_batches(few_images: Dataset, tmp_path: Path) -> None:
    """The average of all batches at first; once that forgets more slowly, m <- decay m + (1 - decay) of the batch's."""
    config = make_config(
        "sample",
        {"width": 4, "factors": 4, "depth": 5, "moment_decay": 0.75, "dtype": "float64", "shift": 0, "flip": False},
    )
    network = build(config)
    mean, std = channel_statistics(few_images.train_images)
    images = Images(few_images.train_images, few_images.train_labels, mean, std, "float64")
    trainer = Trainer(np, config, network, images, None, Run(tmp_path), {}, few_images.class_names)
    seen: list[Any] = []
    shares = np.zeros(0)
    for step, index in enumerate(np.arange(36).reshape(6, 6)):
        x, _ = images.take(index)
        seen.append({la.name: own for la, _, own in network.trace(trainer.state.parameters, x) if own})
        trainer.state.step = step
        trainer._step(index)
        shares = np.full(step + 1, 1 / (step + 1)) if step < 4 else np.append(0.75 * shares, 0.25)
        assert trainer.state.moments.keys() == seen[-1].keys() == {"layer03", "layer04"}
        for layer, found in trainer.state.moments.items():
            for name in ("mean", "covariance"):
                expected = sum(share * moments[layer][name] for share, moments in zip(shares, seen, strict=True))
                np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(("moment_images", "batches"), [(13, 3), (4, 1), (12, 2)])
def test_moments_of_evaluation_are_those_of_the_averaged_weights(
    few_images: Dataset, tmp_path: Path, moment_images: int, batches: int
) -> None:
    """Where a checkpoint is saved, moments are the mean of those of batches, by the weights that are evaluated."""
    changes = {"width": 4, "factors": 4, "depth": 5, "dtype": "float64", "average_decay": 0.9}
    changes |= {"moment_images": moment_images, "batch_size": 6, "normalization": "both", "learning_rate": 0.1}
    config = make_config("sample", changes)
    network = build(config)
    mean, std = channel_statistics(few_images.train_images)
    images = Images(few_images.train_images, few_images.train_labels, mean, std, "float64")
    trainer = Trainer(np, config, network, images, None, Run(tmp_path), {}, few_images.class_names)
    chosen = [int(i * len(images.labels) / moment_images) for i in range(moment_images)]  # spread over all

    def of(parameters: Any) -> Any:
        parts = [chosen[n::batches] for n in range(batches)]
        found = [(len(part) / moment_images, network(parameters, images.take(part)[0])[1]) for part in parts]
        names = [(la, name) for la, own in found[0][1].items() for name in own]
        return np.concatenate([sum(share * own[la][name] for share, own in found).ravel() for la, name in names])

    with trainer.run.lock(make=True):
        for stop in ("the end of an epoch", "a signal in the next"):
            if stop == "the end of an epoch":
                trainer._epoch(SILENT, [], lambda seconds: None)
            else:
                trainer._step(np.arange(6))
                trainer.state.step = 1
                trainer._saved_for(signal.SIGTERM)
            found = np.concatenate([a.ravel() for own in trainer.state.moments.values() for a in own.values()])
            np.testing.assert_allclose(found, of(trainer.state.average), rtol=1e-12, atol=1e-14)
            assert np.abs(found - of(trainer.state.parameters)).max() > 1e-3


def test_loss_that_is_not_finite_in_evaluation(few_images: Dataset) -> None:
    network = build(make_config("sample", {"width": 4, "factors": 4, "depth": 5}))
    parameters = network.initialize(np.random.default_rng(1))
    moments = network.initial_moments()
    moments["layer04"]["covariance"] *= np.nan
    with pytest.raises(TrainingError, match=r"the loss is nan in evaluation; first not finite: layer 4"):
        evaluate(network, parameters, moments, small_images(few_images, "float32"))


def test_training_learns(command: Command, tmp_path: Path) -> None:
    """A few images without augmentation are soon known by heart."""
    arguments = (*SMALL, "--validation-size", 0, "--shift", 0, "--no-flip", "--epochs", 15, "--learning-rate", 0.05)
    command(*arguments, "--train-size", 16, "--width", 6, "--out", tmp_path / "run").success()
    lines = metrics(tmp_path / "run")[:-1]
    assert lines[-1]["train_accuracy"] > 0.8 > 0.4 > lines[0]["train_accuracy"]
    assert lines[-1]["train_loss"] < 0.7 < 1.8 < lines[0]["train_loss"]


# Limits and intervals


def test_hours_end_a_run_after_an_epoch_and_it_goes_on_exactly(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that the steps advance: 100 s an epoch; two fit into 250 s, then one more, then all."""
    now = 0.0

    def advance(trainer: Trainer) -> None:
        nonlocal now
        now += 25

    in_steps(monkeypatch, advance)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "perf_counter", lambda: now)  # a real first step that compiles would shorten epochs
    out = command(*SMALL, "--out", path, "--hours", 250 / 3600).success()
    assert "stopped after epoch 2 of 4" in out and "about 3 min are left: " in out and f"--resume {path}" in out
    assert "stopped after epoch 3 of 4" in command("--resume", path, "--hours", 199 / 3600).success()
    assert "test: accuracy" in command("--resume", path, "--hours", 1).success()
    assert_same_run(path, trained)


def test_the_first_step_of_a_process_tells_nothing_of_later_epochs(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles for an hour; every other step takes a second."""
    now = 0.0

    def advance(trainer: Trainer) -> None:
        nonlocal now
        now += 1 if now else 3600

    in_steps(monkeypatch, advance)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    out = command(*SMALL, "--out", tmp_path / "run").success().splitlines()
    epochs = [line for line in out if line.startswith("epoch ")]
    assert [line.rpartition(", ")[2] for line in epochs[:3]] == ["12 s left", "8 s left", "4 s left"]


def test_nobody_knows_how_long_a_run_takes_before_its_first_epoch(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    out = command(*SMALL, "--out", tmp_path / "run", "--hours", 1e-9).success()
    assert "stopped after epoch 0 of 4, since no other fits into 1e-09 hours; continue with" in out


@pytest.mark.parametrize("step", [0.0, -3.0])
def test_by_a_clock_that_stands_still_or_runs_backwards_there_is_no_rate(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    ticks, run = itertools.count(1e9, step), tmp_path / "run"
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, lambda: next(ticks))
    command(*SMALL, "--epochs", 2, "--out", run).success()
    records = Run(run).read_metrics()
    assert [[value for key, value in record.items() if "second" in key] for record in records] == [[0.0] * 2] * 2 + [
        [0.0]
    ]
    assert "is finished" in command("--resume", run).success()


def test_what_an_epoch_has_done_already_is_not_left() -> None:
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(epoch=1, step=3),
        config=make_config("hcnn", {"epochs": 3}),
        steps_per_epoch=5,
        _own_size=lambda: (4, 6),
        _seconds_per_pixel=0.5,
    )
    assert Trainer.seconds_left(trainer) == 0.5 * 24 * (2 * 5 - 3)


def test_held_out_images_are_read_every_few_epochs_and_after_the_last(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save, best_after = tmp_path / "run", Run.save, dict[int, bool]()

    def watched(self: Run, checkpoint: Any, versions: Any, *, best: bool) -> Path:
        best_after[checkpoint.state.epoch] = best
        return save(self, checkpoint, versions, best=best)

    monkeypatch.setattr(Run, "save", watched)
    command(*SMALL, "--validation-every", 3, "--no-test", "--out", run).success()
    assert ["validation_accuracy" in record for record in metrics(run)] == [False, False, True, True]
    assert [best_after[epoch] for epoch in (0, 1, 2, 3)] == [False, False, False, True]
    third, fourth = (record["validation_accuracy"] for record in metrics(run)[2:])
    best = checkpoint_files.load(run / "best.h5").state.epoch
    highest = max(third, fourth)
    assert best == (4 if fourth >= highest - (highest * (1 - highest) / 8) ** 0.5 else 3)


def test_steps_are_counted_over_all_epochs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW divides by what its running means have seen since the run began."""
    seen, take = list[float](), Trainer._take

    def spying(self: Trainer, arrays: Any, inputs: Any) -> Any:
        seen.append(float(inputs["step"]))
        return take(self, arrays, inputs)

    monkeypatch.setattr(Trainer, "_take", spying)
    assert command(*SMALL, "--epochs", 2, "--optimizer", "adamw", "--no-test", "--out", tmp_path / "run").status == 0
    assert seen == list(range(1, 9))


@pytest.mark.parametrize(("before", "best"), [(False, [1, 2, 2, 4, 4]), (True, [1, 2, 2, 2, 2])])
def test_of_equal_scores_the_latest_is_the_best(
    command: Command, path: Path, monkeypatch: pytest.MonkeyPatch, before: bool, best: list[int]
) -> None:
    """Of 8 images, 5 right have the standard error 1.37 images; a run of 46b3e9a1 keeps the first of the highest."""
    scores, epochs = iter(np.array([4, 5, 3.62, 4, 2]) / 8), list[int]()

    def scored(*arguments: Any, **options: Any) -> training.Result:
        return dataclasses.replace(evaluate(*arguments, **options), accuracy=next(scores))

    monkeypatch.setattr(training, "evaluate", scored)
    command(*SMALL, "--epochs", 1, "--schedule", "constant", "--no-test", "--out", path).success()
    if before:  # as its checkpoints were
        for checkpoint in path.glob("*.h5"):
            with edited(checkpoint) as file:
                del file.attrs["best_error"]
        (path / "metrics.jsonl").write_text((path / "metrics.jsonl").read_text().replace(', "best": true', ""))
    for count in range(1, 6):
        said = command("--resume", path, "--epochs", count).success().splitlines()
        epochs.append(checkpoint_files.load(path / "best.h5").state.epoch)
        judge = ", by 8 images" * (count > 1)  # the first time nothing is left to train
        assert f"{path / 'best.h5'}: epoch {epochs[-1]}{judge}; epoch000{count}-step000000.h5: epoch {count}" in said
    assert epochs == best and best_epoch(metrics(path)) == best[-1]
    assert checkpoint_files.load(path / "best.h5").state.best == 5 / 8
    assert [record.get("best") for record in metrics(path)] == [None if before else e in best for e in range(1, 6)]


def test_standard_errors_are_those_of_means_over_images() -> None:
    rng = np.random.default_rng(0)
    wanted, outputs = rng.normal(size=(400, 2)), np.zeros((400, 2))
    outputs[:, 0] = wanted[:, 0] + rng.normal(size=400) / 3
    means = [r_squared(outputs[part], wanted[part]).mean() for part in rng.integers(0, 400, (2000, 400))]
    assert TASKS["numbers"].standard_error(0.0, outputs, wanted) == pytest.approx(np.std(means), rel=0.1)
    right = rng.random(400) < np.where(np.arange(400) < 40, 0.5, 0.9)
    labels = (np.arange(400) >= 40).astype(int)
    confusions = [
        TASKS["classes"].confusion(np.eye(2)[np.where(right, labels, 1 - labels)[part]], labels[part])
        for part in rng.integers(0, 400, (2000, 400))
    ]
    scores = [balanced_accuracy(confusion)[0] for confusion in confusions]
    whole = TASKS["classes"].confusion(np.eye(2)[np.where(right, labels, 1 - labels)], labels)
    assert balanced_accuracy(whole)[1] == pytest.approx(np.std(scores), rel=0.1)
    assert balanced_accuracy(whole)[0] == np.mean([right[:40].mean(), right[40:].mean()])
    assert TASKS["labels"].standard_error(0.9, outputs, wanted) == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "six views (shifts of a pixel, mirrored)"),
        (("--no-flip",), "three views (shifts of a pixel)"),
        (("--shift", "0"), "two views (mirrored)"),
        (("--no-flip", "--shift", "0"), ""),
    ],
)
def test_views_are_those_that_the_augmentation_allows(
    command: Command, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    """Where mirroring is wrong, a mean over mirrored images says something else than the network."""
    said = command(*SMALL, "--epochs", 1, *flags, "--out", tmp_path / "run").success()
    assert ("by the mean of" in said) == bool(words) and words in said
    assert ("test_accuracy_of_views" in metrics(tmp_path / "run")[-1]) == bool(words)
