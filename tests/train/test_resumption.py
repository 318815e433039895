"""Runs that were stopped go on exactly, after every kind of stop."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.commands import Command, small_images
from tests.train.runs import (
    SMALL,
    Killed,
    assert_same_run,
    assert_same_state,
    checkpoints,
    contents,
    edited,
    in_step,
    in_steps,
    kill,
    killed,
    metrics,
    saved_state,
)
from train.config import make_config
from train.data import Dataset, Images
from train.networks.registry import build
from train.recipes.augmentations import first_mirrored
from train.runs import checkpoint as checkpoint_files
from train.runs import session, training
from train.runs.run import Run
from train.runs.training import Trainer, evaluate

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a run answers by saving its state."""


@contextlib.contextmanager
def listening_to_hangups() -> Iterator[None]:
    """Also where the tests were started by nohup, which has them ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


# Resumption


def resume_to_the_end(command: Command, run: Path, trained: Path) -> None:
    """Resume a run, which must then be the uninterrupted one."""
    command("--resume", run).success()
    assert_same_run(run, trained)


@pytest.mark.parametrize(("epoch", "step"), [(1, 2), (3, 1), (4, 4)])
def test_resume_after_a_kill_repeats_the_uninterrupted_run(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, step: int
) -> None:
    """Four epochs equal two, a kill, and two more."""
    with monkeypatch.context() as patch:
        in_step(patch, epoch, step, kill)
        killed(command, *SMALL, "--out", path)
    assert (path / "metrics.jsonl").exists() == (epoch > 1)
    assert epoch == 1 or [line["epoch"] for line in metrics(path)] == list(range(1, epoch))
    out = command("--resume", path).success()
    assert f"going on after epoch {epoch - 1}, step 0 of 4 epochs" in out
    assert_same_run(path, trained)


@pytest.mark.parametrize(
    ("signum", "epoch", "step"),
    [(signal.SIGINT, 1, 1), (signal.SIGTERM, 2, 3), (signal.SIGHUP, 2, 4), (signal.SIGTERM, 4, 4)],
)
def test_resume_after_a_signal_repeats_the_uninterrupted_run(
    command: Command,
    trained: Path,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signum: signal.Signals,
    epoch: int,
    step: int,
) -> None:
    handlers = [signal.getsignal(s) for s in SIGNALS]
    with monkeypatch.context() as patch, listening_to_hangups():
        in_step(patch, epoch, step, lambda: signal.raise_signal(signum))
        where = f"epoch {epoch}, step {step}" if step < 4 else f"the end of epoch {epoch}"
        command(*SMALL, "--out", path).one_line(
            128 + signum, signum.name, f"{where} of 4 epochs", "saved", f"--resume {path}"
        )
    assert [signal.getsignal(s) for s in SIGNALS] == handlers
    name = f"epoch{epoch - 1:04d}-step{step:06d}.h5" if step < 4 else f"epoch{epoch:04d}-step000000.h5"
    assert name in checkpoints(path)
    assert "test_accuracy" not in metrics(path)[-1] if epoch > 1 else not (path / "metrics.jsonl").exists()
    resume_to_the_end(command, path, trained)


def test_stopped_twice_and_killed_in_between(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, (epoch, step) in enumerate([(1, 3), (2, 2), (2, 3)]):
        with monkeypatch.context() as patch:
            in_step(patch, epoch, step, lambda: signal.raise_signal(signal.SIGINT))
            (command("--resume", path) if n else command(*SMALL, "--out", path)).one_line(
                130, f"epoch {epoch}, step {step}"
            )
    with monkeypatch.context() as patch:
        in_step(patch, 3, 2, kill)
        killed(command, "--resume", path)
    resume_to_the_end(command, path, trained)


def test_a_second_signal_acts_at_once(
    command: Command, trained: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        in_step(patch, 2, 2, twice)
        command(*SMALL, "--out", path).one_line(130, "stopped at once", str(path / "epoch0001-step000000.h5"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resume_to_the_end(command, path, trained)


@pytest.mark.parametrize("function", ["save", "best", "after"])
def test_a_kill_between_metrics_and_checkpoint_leaves_no_line_twice(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Killed before the third checkpoint, between it and the best, and after both."""
    run, save = tmp_path / "run", checkpoint_files.save

    def patched(path: Path, checkpoint: Any, versions: dict[str, str]) -> None:
        third = checkpoint.state.epoch == 3
        if third and function == "save":
            raise Killed
        save(path, checkpoint, versions)
        if third and (function == "best" or path.name != "best.h5"):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "save", patched)
        killed(command, *SMALL, "--out", run)
    assert [line["epoch"] for line in metrics(run)] == [1, 2, 3]
    resume_to_the_end(command, run, trained)


def test_a_kill_between_the_best_and_the_checkpoint_loses_neither(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two files of a better epoch is written first."""
    arguments = (*SMALL, "--epochs", 2, "--validation-size", 0)
    command(*arguments, "--out", tmp_path / "whole").success()
    assert saved_state(tmp_path / "whole" / "best.h5")["epoch"] == 2
    run, save = tmp_path / "run", checkpoint_files.save

    def patched(path: Path, checkpoint: Any, versions: dict[str, str]) -> None:
        save(path, checkpoint, versions)
        if checkpoint.state.epoch == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "save", patched)
        killed(command, *arguments, "--out", run)
    command("--resume", run).success()
    for name in ("best.h5", "epoch0002-step000000.h5"):
        assert_same_state(run / name, tmp_path / "whole" / name)


@pytest.mark.parametrize("stop", [lambda: signal.raise_signal(signal.SIGINT), kill], ids=["interrupted", "killed"])
def test_a_stop_while_the_test_set_is_read_can_be_made_good(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]
) -> None:
    run, read = tmp_path / "run", evaluate

    def patched(network: Any, parameters: Any, moments: Any, data: Images, **options: Any) -> Any:
        if len(data.labels) == 30:
            stop()
        return read(network, parameters, moments, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(session, "evaluate", patched)
        if stop is kill:
            killed(command, *SMALL, "--out", run)
        else:
            command(*SMALL, "--out", run).one_line(130, "stopped at once", str(run / "epoch0004-step000000.h5"))
    assert [line["epoch"] for line in metrics(run)] == [1, 2, 3, 4]
    resume_to_the_end(command, run, trained)


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(command: Command, trained: Path, copied: Path) -> None:
    last = copied / "epoch0004-step000000.h5"
    last.write_bytes(last.read_bytes()[:-1])
    before = copied / "epoch0003-step000000.h5"
    shutil.copy(before, copied / "best.h5")  # as it was then
    out = command("--resume", copied).success()
    assert "after epoch 3, step 0" in out
    assert f"{last} is not a whole checkpoint: truncated, damaged or of another program; going on from {before}" in out
    assert_same_run(copied, trained)


def test_a_run_goes_on_from_its_best_where_all_later_ones_are_damaged(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    monkeypatch.setattr(training, "State", partial(checkpoint_files.State, best_error=None))  # a run of 46b3e9a1
    command(*SMALL, "--out", whole, "--epochs", 7).success()
    shutil.copytree(whole, run)
    best = checkpoint_files.load(run / "best.h5")
    later = sorted(run.glob("epoch*.h5"))
    assert len(later) == 3 and best.state.epoch < 5, "another seed"
    for path in later:
        path.write_bytes(path.read_bytes()[:-1])
    before = {path.name for path in run.iterdir()}
    assert command("--resume", run, "--data-dir", tmp_path / "nowhere", "--epochs", 1).status == 2
    assert {path.name for path in run.iterdir()} == before
    with monkeypatch.context() as patch:
        in_step(patch, best.state.epoch + 2, 2, lambda: signal.raise_signal(signal.SIGTERM))
        command("--resume", run).one_line(143, "saved", f"--resume {run}")
    assert f"{later[0].name}.damaged" in {path.name for path in run.iterdir()}
    out = command("--resume", run).success()
    assert f"going on after epoch {best.state.epoch + 1}, step 2" in out
    assert metrics(run) == metrics(whole)
    for name in ("best.h5", later[-1].name):
        assert_same_state(run / name, whole / name)


def test_a_line_of_metrics_cut_short_is_written_again(command: Command, trained: Path, copied: Path) -> None:
    (copied / "epoch0004-step000000.h5").unlink()
    lines = (copied / "metrics.jsonl").read_text("utf-8").splitlines()
    for cut in (lines[3][:40], lines[3]):  # also one that lacks nothing but the end of the line
        (copied / "metrics.jsonl").write_text("\n".join([*lines[:3], cut]), encoding="utf-8")
        shutil.copy(copied / "epoch0003-step000000.h5", copied / "best.h5")  # as it was then
        resume_to_the_end(command, copied, trained)
        (copied / "epoch0004-step000000.h5").unlink()


VARIANTS = (
    *("--nonlinear-factors", "--nesterov", "--label-smoothing", 0.1, "--schedule", "cosine", "--dtype", "float64"),
    *("--boundary", "periodic", "--head", "sum", "--reduction", "sum", "--batch-size", 7, "--seed", 5),
    *("--learning-rate", 0.001),
)


MIXED = (
    *("--mixup", 0.4, "--rotate", 0.5, "--shear", 0.4, "--zoom", 0.3, "--cutout", 5, "--batch-size", 7),
    *("--brightness", 0.2, "--contrast", 0.2, "--saturation", 0.2, "--optimizer", "adamw", "--activation", "gelu"),
)


LEVERS = (
    *("--normalization", "both", "--average-decay", 0.9, "--alternate-flips", "--image-sizes", 16, 24, 32),
    *("--moment-decay", 0.5),
)


@pytest.mark.parametrize(
    "settings",
    [(*VARIANTS, "--optimizer", "sgd"), (*VARIANTS, "--optimizer", "muon"), LEVERS, (*VARIANTS, *LEVERS), MIXED],
    ids=["sgd", "muon", "levers", "levers of the (+) network", "mixed"],
)
def test_resume_is_exact_for_the_other_settings_too(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[Any, ...]
) -> None:
    """The (+) network in float64, a short last batch, and every option that takes another path."""
    arguments = (*SMALL, *settings, "--epochs", 2)
    command(*arguments, "--out", tmp_path / "whole").success()
    with monkeypatch.context() as patch:
        in_step(patch, 2, 3, lambda: signal.raise_signal(signal.SIGTERM))
        command(*arguments, "--out", tmp_path / "run").one_line(143, "epoch 2, step 3")
    command("--resume", tmp_path / "run").success()
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    for name in ("epoch0002-step000000.h5", "best.h5"):
        assert_same_state(tmp_path / "run" / name, tmp_path / "whole" / name)


def test_averaged_weights_are_those_evaluated(command: Command, tmp_path: Path, few_images: Dataset) -> None:
    """The average follows its recursion, and the recorded accuracy is its own, not that of the last weights."""
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        in_steps(patch, lambda trainer: seen.append(trainer.state.parameters["layer03"]["g"].copy()))
        command(*SMALL, "--average-decay", 0.7, "--dtype", "float64", "--out", tmp_path / "run").success()
    state = checkpoint_files.load(tmp_path / "run" / "epoch0004-step000000.h5").state
    average = seen[0]  # the first step keeps nothing of the initial weights
    for taken, weights in enumerate(seen[1:], start=1):
        keep = min(0.7, taken / (taken + 10))
        average = keep * average + (1 - keep) * weights
    np.testing.assert_allclose(state.average["layer03"]["g"], average, rtol=0, atol=1e-14)
    assert np.abs(state.parameters["layer03"]["g"] - average).max() > 1e-3
    assert state.evaluated is state.average


def test_flips_alternate_and_sizes_grow(few_images: Dataset, tmp_path: Path) -> None:
    """Each image is mirrored in every other epoch, half of them in each; sizes share the epochs."""
    settings = {"alternate_flips": True, "image_sizes": (16, 24), "epochs": 4, "shift": 0, "width": 4, "depth": 5}
    images = small_images(few_images, "float32")

    def make_trainer(seed: int) -> Trainer:
        config = make_config("sample", settings | {"seed": seed})
        return Trainer(np, config, build(config), images, None, Run(tmp_path), {}, few_images.class_names)

    trainer = make_trainer(0)
    index, mirrored, sizes = np.random.default_rng(1).permutation(30), [], []
    for epoch in range(4):
        trainer.state.epoch = epoch
        inputs = trainer._inputs(index)
        mirrored.append(inputs["columns"][:, 0] == 31)
        sizes.append(trainer._image_size())
    assert sizes == [(16, 16), (16, 16), (24, 24), (24, 24)]
    assert 5 < mirrored[0].sum() < 25
    other = make_trainer(5)
    for own, found in ((trainer, mirrored[0]), (other, other._inputs(index)["columns"][:, 0] == 31)):
        assert np.array_equal(found, first_mirrored(own.config.seed, own.count)[index])
    firsts = [first_mirrored(seed, trainer.count) for seed in range(40)]
    assert abs(np.mean(firsts) - 0.5) < 5 * 0.5 / math.sqrt(np.size(firsts))
    for before, after in itertools.pairwise(mirrored):
        assert np.array_equal(before, ~after)


def test_a_rank_that_does_not_write_leaves_the_run_as_it_is(
    command: Command, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(part)
    monkeypatch.setattr(session.Session, "run", lambda self, path: Run(path, writes=False))
    command("--resume", part).success()
    assert contents(part) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("learning_rate = .*?(?= )", "learning_rate = 0.0123"),
        ("strided_layers = .*?(?=  )", "strided_layers = []"),
        ("flip = true", "flip = false"),
        ("optimizer = ", "optimiser = "),
    ],
)
def test_a_setting_edited_in_a_run_is_refused_and_stays(
    command: Command, trained: Path, copied: Path, old: str, new: str
) -> None:
    text, count = re.subn(f"(?m)^{old}", new, (copied / "config.toml").read_text("utf-8"))
    assert count == 1
    (copied / "config.toml").write_text(text, "utf-8")
    before, name = contents(copied), new.partition(" ")[0]
    for options in ((), ("--epochs", 5)):
        command("--resume", copied, *options).one_line(1, f"config.toml has {name} = ", "another run with --config")
    assert contents(copied) == before
    (copied / "config.toml").write_text(
        re.sub(r"(?m)^(dataset|data_dir) = .*$", "", (trained / "config.toml").read_text())
    )
    command("--resume", copied).success()  # of what may change nothing is asked


def test_comparison_of_runs_notices_a_difference(command: Command, tmp_path: Path) -> None:
    """Negative control: a run that forgets its momentum, or its generator, when it is resumed."""
    arguments = (*SMALL, "--average-decay", 0.9, "--moment-images", 0)
    trained = tmp_path / "trained"
    command(*arguments, "--out", trained).success()
    for change in ("optimizer", "generator", "moments", "average", "order"):
        run = tmp_path / change
        run.mkdir()
        shutil.copy(trained / "config.toml", run)
        checkpoint = run / f"epoch0002-step{int(change == 'order'):06}.h5"
        shutil.copy(trained / "epoch0002-step000000.h5", checkpoint)
        shutil.copy(trained / "metrics.jsonl", run)
        with edited(checkpoint) as file:
            if change == "generator":
                file.attrs["generator"] = json.dumps(np.random.default_rng(1).bit_generator.state)
            elif change == "order":
                file.attrs["step"] = 1
                del file["epoch/order"]
                file["epoch/order"] = np.arange(32)
            else:
                name = {"moments": "layer03/mean", "optimizer": "velocity/layer03/g"}.get(change, "layer03/g")
                array = file[change][name]
                array[...] = array[...] + 1
        command("--resume", run).success()
        with pytest.raises(AssertionError):
            assert_same_run(run, trained)
