"""Bad input: the exit status, one line that names what was given and what would do, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hcnn_core import backend as _backend
from tests.train.runs import (
    ROOT,
    SMALL,
    Outcome,
    assert_same_run,
    checkpoints,
    contents,
    finish,
    metrics,
    saved_state,
    start,
)
from train import _memory, cifar, run, training
from train._command import namespace
from train.config import PRESETS, Config, make_config
from train.data import DataError, Dataset
from train.training import Trainer

Command = Callable[..., Outcome]

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")


# Flags


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--epoch", "3"], ["--epoch", "--help"]),
        (["train"], ["unrecognized arguments: train"]),
        (["two\nlines"], ["two lines"]),
        (["--preset", "huge"], ["--preset", "'huge'", "hcnn-plus", "sample"]),
        (["--preset", ""], ["--preset", "''"]),
        (["--preset"], ["--preset", "expected one argument"]),
        (["--dataset", "mnist"], ["--dataset", "'mnist'", "cifar100"]),
        (["--backend", "torch"], ["--backend", "'torch'", "cupy"]),
        (["--width", "eight"], ["--width", "invalid int value", "'eight'"]),
        (["--width", "8.5"], ["--width", "'8.5'"]),
        (["--width", "0"], ["width is 0", "at least 1"]),
        (["--width", "-8"], ["width is -8", "at least 1"]),
        (["--depth", "3"], ["depth is 3", "between 4 and 99"]),
        (["--epochs", "0"], ["epochs is 0", "between 1 and 9999"]),
        (["--learning-rate", "fast"], ["--learning-rate", "invalid float value", "'fast'"]),
        (["--learning-rate", "nan"], ["learning_rate is nan", "finite"]),
        (["--learning-rate", "1e999"], ["learning_rate is inf", "finite"]),
        (["--learning-rate", "-1"], ["learning_rate is -1.0", "at least 0"]),
        (["--attribute-kernel", "7"], ["--attribute-kernel", "expected 2 arguments"]),
        (["--attribute-kernel", "7", "0"], ["attribute_kernel is 0", "at least 1"]),
        (["--strided-layers", "0"], ["strided_layers is 0", "at least 1"]),
        (["--shift", "40"], ["shift is 40", "between 0 and 31"]),
        (["--flip", "yes"], ["unrecognized arguments: yes"]),
        (["--seed", "-1"], ["seed is -1", "at least 0"]),
        (["--preset", "sample", "--train-size", "41"], ["--train-size", "41", "1 to 40"]),
        (["--preset", "sample", "--train-size", "-1"], ["train_size is -1"]),
        (["--preset", "sample", "--validation-size", "40"], ["--validation-size", "40", "1 to 39"]),
        (["--describe", "--evaluate", "a.h5"], ["--describe", "--evaluate", "exclude"]),
        (["--resume", "a", "--plot", "a"], ["--resume", "--plot", "exclude"]),
        (["--out", ""], ["--out", "'' is no path"]),
        (["--out", "a\0b"], ["--out", "is no path"]),
        (["--resume", ""], ["--resume", "'' is no path"]),
        (["--data-dir", "\udcff"], ["data_dir is '\\udcff'", "not UTF-8"]),
        (["--describe", "--out", "a"], ["--describe", "remove --out"]),
        (["--plot", "a", "--epochs", "3"], ["--plot", "remove --epochs"]),
        (["--plot", "a", "--out", "b"], ["--plot", "remove --out"]),
        (["--evaluate", "a.h5", "--train-size", "5"], ["--evaluate", "remove --train-size"]),
    ],
    ids=" ".join,
)
def test_bad_flags(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], fragments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command(*arguments).one_line(2, *fragments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"widht = 8\n", ["'widht'", "did you mean 'width'"]),
        (b"width = 8.0\n", ["width is 8.0", "int"]),
        (b"width = true\n", ["width is True", "int"]),
        (b"preset = 'huge'\n", ["preset is 'huge'", "sample"]),
        (b"preset = ['hcnn']\n", ["preset is ['hcnn']", "sample"]),
        (b"preset = ''\n", ["preset is ''", "sample"]),
        (b"learning_rate = nan\n", ["learning_rate is nan", "finite"]),
        (b"learning_rate = 1" + b"0" * 400 + b"\n", ["learning_rate", "finite"]),
        (b"width = \n", ["bad.toml", "not valid TOML"]),
        (b"width = 8\nwidth = 9\n", ["bad.toml", "not valid TOML"]),
        (b"[training]\nwidth = 8\n", ["'training'"]),
        (b"\xff\xfe", ["bad.toml", "not UTF-8"]),
        (None, ["bad.toml", "No such file"]),
    ],
    ids=str,
)
def test_bad_configuration(command: Command, tmp_path: Path, content: bytes | None, fragments: list[str]) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    command("--config", path, "--out", tmp_path / "run").one_line(2, *fragments)
    assert not (tmp_path / "run").exists()


def test_flags_override_the_configuration_which_overrides_the_preset(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("preset = 'sample'\nwidth = 4\nfactors = 4\ndepth = 5\nepochs = 1\nbatch_size = 8\n")
    command("--config", path, "--factors", 3, "--validation-size", 8, "--out", tmp_path / "run").success()
    settings = (tmp_path / "run" / "config.toml").read_text("utf-8")
    found = dict(re.findall(r"^(\w+) = (.*?)  #", settings, re.MULTILINE))
    assert (found["preset"], found["width"], found["factors"], found["shift"]) == ('"sample"', "4", "3", "2")


def test_help_explains_every_setting_in_lines_that_fit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    out = command("--help").success()
    joined = " ".join(out.split())
    for name, value in vars(Config()).items():
        help = Config.__dataclass_fields__[name].metadata["help"]
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        assert f"--{name.replace('_', '-')}" in out
        assert " ".join(f"{help} [{shown}]".split()) in joined, name
    assert "--no-flip" in out and "Exit status" in out
    assert max(map(len, out.splitlines())) <= 100


# --describe


@pytest.mark.parametrize(
    ("preset", "dataset", "total"),
    [
        ("hcnn", "cifar10", "97,650"),
        ("hcnn-plus", "cifar10", "344,640"),
        ("hcnn", "cifar100", "250,308"),
        ("hcnn-plus", "cifar100", "887,424"),
    ],
)
def test_describe_totals(command: Command, preset: str, dataset: str, total: str) -> None:
    lines = command("--describe", "--preset", preset, "--dataset", dataset).success().splitlines()
    heads = lines[0].split()
    assert {"input", "support", "stride", "output", "parameters", "GMAC"} <= set(heads)
    rows = {line.split()[0]: line.split() for line in lines[1:14]}
    assert rows["all"][1] == total
    counted = [int(rows[str(j)][-3].replace(",", "")) for j in range(1, 12)]
    assert sum(counted) == int(total.replace(",", ""))


@pytest.mark.parametrize("preset", PRESETS)
def test_describe_needs_no_data_and_makes_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cifar, "available_bytes", lambda xp: 0)
    assert command("--describe", "--preset", preset, "--width", 10**6).success()
    assert list(tmp_path.iterdir()) == []


# --out


def test_out_with_a_run_in_it(command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before data are looked for, which may mean a download."""
    monkeypatch.setattr(cifar, "_dataset", None)
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


@needs_proc
def test_out_that_cannot_be_written(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/proc/run", "/proc/self"):
        command(*SMALL, "--out", path).one_line(1, f"cannot write the run to {path}: ")
    monkeypatch.chdir("/proc")
    command(*SMALL).one_line(1, "cannot write the run to runs/sample-")


@needs_proc
def test_only_the_run_directory_need_be_writable(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/proc")
    command(*SMALL, "--epochs", 1, "--out", tmp_path / "run").success()


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
        patch.setattr(run.Run, "metrics_path", Path("/dev/full"))
        patch.setattr(run.Run, "require_new", lambda self: None)
        command(*SMALL, "--out", tmp_path / "run").one_line(1, "cannot write /dev/full", "No space left")


def test_a_picture_that_cannot_be_drawn_does_not_hide_the_result(
    drawing_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Run, "picture_path", tmp_path / "absent" / "a.png")
    outcome = drawing_command(*SMALL, "--epochs", 1, "--out", tmp_path / "run")
    outcome.one_line(1, "cannot draw", str(tmp_path / "absent" / "a.png"))
    assert "test: accuracy" in outcome.out
    assert "test_accuracy" in metrics(tmp_path / "run")[-1]


# Data


def test_data_that_are_not_there(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What loading says is passed on, and no run directory is left."""

    def missing(config: Config) -> Dataset:
        raise DataError(f"no {config.dataset} in {config.data_dir}: put\nan archive there")

    monkeypatch.setattr(cifar, "_dataset", missing)
    outcome = command(*SMALL, "--data-dir", tmp_path / "data", "--out", tmp_path / "run")
    outcome.one_line(1, f"no sample in {tmp_path / 'data'}: put an archive there")
    assert list(tmp_path.iterdir()) == []


def denied(self: Path, *arguments: Any) -> Any:
    raise PermissionError(13, "Permission denied", str(self))


def test_what_the_system_refuses_is_said_in_a_sentence(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("a" * 280)
    for flag in ("--out", "--resume", "--plot", "--evaluate"):
        line = command(*SMALL[: 2 * (flag == "--out")], flag, long).one_line(1, "cannot use", "File name too long")
        assert "--debug" not in line
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", denied)
        command("--resume", tmp_path).one_line(1, f"cannot use {tmp_path / 'best.h5'}: Permission denied")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    command(*SMALL).one_line(1, "No such file or directory")
    monkeypatch.setattr(cifar, "_dataset", lambda config: Path().resolve())
    command(*SMALL, "--out", tmp_path / "run").one_line(1, "the working directory is gone")


def test_what_was_given_is_echoed_in_a_line_one_can_read(command: Command) -> None:
    for arguments in (["--width", "9" * 5000], ["--" + "z" * 5000], ["--preset", "a" * 10**5], ["a"] * 10**4):
        assert len(command(*arguments).one_line(2, "--help")) < 1100
    long = "/".join(["folder"] * 30)
    command("--resume", long).one_line(1, long)  # a path of usual length is shown whole


def test_a_directory_whose_name_is_not_utf8_has_a_curve(drawing_command: Command, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xffn")
    drawing_command(*SMALL, "--epochs", 1, "--out", path).success()
    assert (path / "learning-curve.png").stat().st_size > 1000
    outcome = finish(start("-m", "train.cifar", "--resume", path))
    assert "r\\udcffn/best.h5" in outcome.success()


# --resume and --plot


def test_resume_of_a_finished_run(drawing_command: Command, trained: Path, first_run: tuple[Path, Outcome]) -> None:
    """It says again what came out, and changes nothing."""
    lines = first_run[1].success().splitlines()
    out = drawing_command("--resume", trained).success().splitlines()
    assert out == [
        f"{trained} is finished: all 4 epochs are trained",
        lines[1].removesuffix(", 30 images"),
        *lines[2:],
    ]


@pytest.mark.parametrize("action", ["--resume", "--plot"])
def test_resume_and_plot_of_no_run(command: Command, tmp_path: Path, action: str) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path, tmp_path / "file"):
        command(action, path).one_line(1, str(path), "holds no run")
    assert contents(tmp_path) == {"file": b""}


@pytest.mark.parametrize(
    "flags",
    [
        ("--epochs", "9"),
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


def part_of(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run after its second epoch."""
    path = tmp_path / "part"
    path.mkdir()
    for name in ("config.toml", "metrics.jsonl", "epoch0002-step000000.h5"):
        shutil.copy(trained / name, path)
    return path


def test_resume_with_every_checkpoint_damaged(command: Command, trained: Path, tmp_path: Path) -> None:
    path = part_of(trained, tmp_path)
    (path / "epoch0001-step000000.h5").write_bytes(b"")
    (path / "epoch0002-step000000.h5").write_bytes(b"not HDF5")
    before = contents(path)
    command("--resume", path).one_line(1, "epoch0002-step000000.h5", "not a whole checkpoint")
    assert contents(path) == before


def test_resume_with_an_epoch_that_cannot_be_changes_nothing(command: Command, trained: Path, tmp_path: Path) -> None:
    """A negative one would have emptied metrics.jsonl."""
    path = part_of(trained, tmp_path)
    with h5py.File(path / "epoch0002-step000000.h5", "r+") as file:
        file.attrs["epoch"] = -1
    before = contents(path)
    command("--resume", path).one_line(1, "epoch0002-step000000.h5", "epoch is -1 of 4")
    assert contents(path) == before


def test_resume_with_another_network_in_the_checkpoint(command: Command, trained: Path, tmp_path: Path) -> None:
    for group in ("parameters", "velocity", "moments"):
        path = part_of(trained, tmp_path)
        with h5py.File(path / "epoch0002-step000000.h5", "r+") as file:
            name = "covariance" if group == "moments" else "g"
            del file[group]["layer03"][name]
            file[group]["layer03"][name] = np.zeros((4, 7, 11, 5), "f4")
        before = contents(path)
        command("--resume", path).one_line(1, str(path), "another network", group, f"layer03/{name}")
        assert contents(path) == before
        shutil.rmtree(path)


def test_resume_on_other_images(
    command: Command, trained: Path, tmp_path: Path, few_images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = part_of(trained, tmp_path)
    before = contents(path)
    few_images.train_images[0, 0, 0, 0] ^= 255
    try:
        command("--resume", path, "--data-dir", "elsewhere").one_line(1, "other images than elsewhere", "--data-dir")
    finally:
        few_images.train_images[0, 0, 0, 0] ^= 255
    assert contents(path) == before


def test_resume_from_another_data_dir_and_backend(command: Command, trained: Path, tmp_path: Path) -> None:
    path = part_of(trained, tmp_path)
    command("--resume", path, "--data-dir", "elsewhere", "--backend", "numpy").success()
    assert metrics(path) == metrics(trained)
    with h5py.File(path / "epoch0004-step000000.h5") as file:
        assert json.loads(file.attrs["config"])["data_dir"] == "elsewhere"


@pytest.mark.parametrize("action", ["--resume", "--plot"])
@pytest.mark.parametrize(
    "bad", ["[" * 10**5, "9" * 5000, "{", "3", "null", '{"train_loss": 1}', '{"epoch": "one"}', "\udcff"]
)
def test_damaged_metrics(command: Command, trained: Path, tmp_path: Path, action: str, bad: str) -> None:
    path = part_of(trained, tmp_path)
    with open(path / "metrics.jsonl", "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(bad + "\n" + '{"epoch": 5}\n')
    before = contents(path)
    command(action, path).one_line(1, str(path / "metrics.jsonl"), "line 6")
    assert contents(path) == before


def test_plot_before_the_first_epoch_is_complete(drawing_command: Command, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train_lo')
    drawing_command("--plot", tmp_path).one_line(1, "cannot draw", "no epoch is complete")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 1}\n{"epoch": 2, "train_accuracy": 1}\n')
    drawing_command("--plot", tmp_path).success()
    (tmp_path / "learning-curve.png").unlink()
    (tmp_path / "metrics.jsonl").write_text(
        '{"epoch": 1, "train_loss": 1}\n{"epoch": 2, "train_loss": 1, "train_accuracy": 1}\n'
    )
    drawing_command("--plot", tmp_path).one_line(1, "cannot draw", "train_accuracy")
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


# --evaluate


def test_evaluate_no_checkpoint(command: Command, trained: Path, tmp_path: Path) -> None:
    command("--evaluate", tmp_path / "absent.h5").one_line(1, "no checkpoint at", "absent.h5")
    command("--evaluate", trained).one_line(1, str(trained), "directory", str(trained / "best.h5"))
    command("--evaluate", trained / "config.toml").one_line(1, "config.toml", "not a whole checkpoint")
    for share in (0, 0.3, 0.9):
        whole = (trained / "best.h5").read_bytes()
        (tmp_path / "cut.h5").write_bytes(whole[: int(share * len(whole))])
        command("--evaluate", tmp_path / "cut.h5").one_line(1, "cut.h5", "truncated")


def test_evaluate_another_schema_or_network(command: Command, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    changes: list[tuple[Callable[[Any], Any], str]] = [
        (lambda file: file.attrs.__setitem__("schema", 99), "schema 99"),
        (lambda file: file["parameters"].__delitem__("layer03"), "parameters layer03/bias is absent"),
        (lambda file: file["moments"].__delitem__("layer03"), "moments layer03/covariance is absent"),
        (lambda file: file.__delitem__("moments"), "moments layer03/covariance is absent"),
        (lambda file: file["parameters/layer03"].move("g", "f"), "parameters layer03/f"),
    ]
    for change, fragment in changes:
        shutil.copy(trained / "best.h5", path)
        with h5py.File(path, "r+") as file:
            change(file)
        command("--evaluate", path).one_line(1, str(path), fragment)


def test_evaluate_on_a_data_set_of_other_classes(command: Command, trained: Path) -> None:
    command("--evaluate", trained / "best.h5", "--dataset", "cifar100").one_line(
        1, "10", "cifar100 has 100", "--dataset"
    )


def test_tensor_cores_are_a_gpus(command: Command, tmp_path: Path) -> None:
    arguments = ("--preset", "sample", "--backend", "numpy", "--precision", "tf32", "--out", tmp_path / "run")
    command(*arguments).one_line(2, "precision is 'tf32'", "--backend cupy")
    assert not (tmp_path / "run").exists()


# Memory


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(cifar, "available_bytes", lambda xp: size)


@pytest.mark.parametrize("preset", ["hcnn", "hcnn-plus"])
def test_too_large_a_batch_is_refused_with_the_largest_that_fits(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    size = 3 * 2**30
    free(monkeypatch, size)
    arguments = ("--preset", preset, "--dataset", "sample", "--batch-size", 5000, "--out", tmp_path / "run")
    line = command(*arguments).one_line(1, "a batch of 5000 needs about", "3.0 GiB are free", "would fit")
    fits = int(re.findall(r"--batch-size (\d+) would fit", line)[0])
    config = make_config(preset, {"dataset": "sample"})
    assert 1 <= fits < 5000
    assert _memory.required_bytes(config, 32, 10, fits) <= size < _memory.required_bytes(config, 32, 10, fits + 1)
    assert list(tmp_path.iterdir()) == []


def test_the_batch_that_fits_is_accepted(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("sample", {"width": 4, "factors": 4, "depth": 5, "strided_layers": (3, 4)})
    free(monkeypatch, _memory.required_bytes(config, 32, 10, 5))
    line = command(*SMALL, "--out", tmp_path / "run").one_line(1, "--batch-size 5 would fit")
    assert "a batch of 8 " in line
    command(*SMALL, "--epochs", 1, "--batch-size", 5, "--out", tmp_path / "run").success()


def test_a_network_of_which_no_image_fits(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2**30)
    for flags in (("--width", 10**6), ("--factors", 10**9)):
        outcome = command(*SMALL, *flags, "--out", tmp_path / "run")
        outcome.one_line(1, "not even one image fits", "--width", "--factors")
    assert list(tmp_path.iterdir()) == []


def test_resume_where_memory_is_short(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = part_of(trained, tmp_path)
    before = contents(path)
    free(monkeypatch, 2**20)
    command("--resume", path).one_line(1, "a batch of 8 needs", "are free")
    assert contents(path) == before


@pytest.mark.parametrize(("size", "advice"), [(8, "--batch-size 4 would fit"), (1, "not even one image fits")])
def test_memory_that_runs_out_in_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, advice: str
) -> None:
    """The estimate was wrong: half the batch then; the epochs that are complete stay."""

    def step(self: Trainer, index: Any) -> Any:
        if self.state.epoch == 1:
            raise MemoryError("Unable to allocate 3 GiB")
        return take(self, index)

    take = Trainer._step
    monkeypatch.setattr(Trainer, "_step", step)
    arguments = (*SMALL, "--train-size", 16, "--batch-size", size, "--out", tmp_path / "run")
    command(*arguments).one_line(1, f"not enough memory for a batch of {size}", advice)
    assert "epoch0001-step000000.h5" in checkpoints(tmp_path / "run")


def test_memory_that_runs_out_elsewhere(command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(cifar, "evaluate", out_of_memory)
    command("--evaluate", trained / "best.h5").one_line(1, "not enough memory", "--batch-size")


def test_memory_of_a_container(tmp_path: Path) -> None:
    def group(limit: str, used: int, cached: int) -> int | None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 1\n")
        return _memory._control_group(tmp_path)

    assert group("1000", 700, 99) == 1000 - 700 + 100
    assert group("max", 700, 99) is None
    assert _memory._control_group(tmp_path / "absent") is None
    (tmp_path / "memory.max").write_text("much")
    assert _memory._control_group(tmp_path) is None


LIMITED = """
import resource, sys
from train import cifar
from train._memory import available_bytes
import numpy as np

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 800 * 2**20, resource.RLIM_INFINITY))
assert available_bytes(np) < 800 * 2**20
sys.exit(cifar.main())
"""


@needs_proc
def test_address_space_that_is_limited(tmp_path: Path) -> None:
    """As by `ulimit -v`: refused before anything is made, and the batch that is said to fit does."""

    def train(size: str) -> Outcome:
        arguments = ("--preset", "sample", "--validation-size", 0, "--train-size", size, "--epochs", 1)
        environment = {"HCNN_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
        flags = (*arguments, "--backend", "numpy", "--batch-size", size, "--out", tmp_path / "run")
        return finish(start("-c", LIMITED, *flags, env=environment))

    line = train("2000").one_line(1, "a batch of 2000 needs about", "--batch-size", "would fit")
    assert not (tmp_path / "run").exists()
    (size,) = re.findall(r"--batch-size (\d+)", line)
    assert 1 <= int(size) < 100
    assert f"on {size} images" in train(size).success()


# What is not finite


def spoil(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int, layer: str, name: str) -> None:
    """Make a weight NaN at the end of one step, counted from 1."""
    take = Trainer._step

    def patched(self: Trainer, index: Any) -> Any:
        result = take(self, index)
        if (self.state.epoch + 1, self.state.step + 1) == (epoch, step):
            self.state.parameters[layer][name] = self.state.parameters[layer][name] * np.float32("nan")
        return result

    monkeypatch.setattr(Trainer, "_step", patched)


@pytest.mark.parametrize(
    ("layer", "name", "first"),
    [
        ("layer01", "w", "layer 1"),
        ("layer02", "w", "layer 2"),
        ("layer03", "h", "layer 3"),
        ("layer04", "g", "layer 4"),
    ],
)
def test_loss_that_is_not_finite(
    command: Command,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layer: str,
    name: str,
    first: str,
) -> None:
    path = tmp_path / "run"
    spoil(monkeypatch, 2, 3, layer, name)
    command(*SMALL, "--out", path).one_line(
        1, "the loss is nan at epoch 2, step 4", f"first not finite: {first};", str(path / "epoch0001-step000000.h5")
    )
    assert [line["epoch"] for line in metrics(path)] == [1]
    assert checkpoints(path) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]
    assert all(
        np.isfinite(value).all()
        for value in saved_state(path / "epoch0001-step000000.h5").values()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    )


def test_logits_that_are_not_finite(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 1, 1, "head", "scale")
    command(*SMALL, "--out", tmp_path / "run").one_line(
        1, "epoch 1, step 2", "first not finite: the logits", "epoch0000-step000000.h5"
    )


def test_weights_spoilt_by_the_last_step_of_an_epoch_are_not_saved(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    spoil(monkeypatch, 2, 4, "layer03", "h")
    command(*SMALL, "--out", path).one_line(
        1, "layer03/h is not finite at epoch 2, step 4", str(path / "epoch0001-step000000.h5")
    )
    assert checkpoints(path) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]


def test_weights_spoilt_by_the_step_that_a_signal_interrupts_are_not_saved(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    spoil(monkeypatch, 2, 2, "layer04", "bias")
    take = Trainer._step

    def interrupted(self: Trainer, index: Any) -> Any:
        if (self.state.epoch, self.state.step) == (1, 1):
            signal.raise_signal(signal.SIGTERM)
        return take(self, index)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    command(*SMALL, "--out", path).one_line(1, "layer04/bias is not finite at epoch 2, step 2")
    assert checkpoints(path) == ["best.h5", "epoch0000-step000000.h5", "epoch0001-step000000.h5"]


def test_validation_loss_that_is_not_finite(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = Trainer.moments.fget
    monkeypatch.setattr(
        Trainer,
        "moments",
        property(
            lambda self: {
                layer: own | {"mean": own["mean"] * (np.nan if self.state.epoch == 1 else 1)}
                for layer, own in moments(self).items()
            }
        ),
    )
    path = tmp_path / "run"
    command(*SMALL, "--out", path).one_line(
        1, "after epoch 2 the loss is nan in evaluation", "layer 3", str(path / "epoch0001-step000000.h5")
    )
    assert [line["epoch"] for line in metrics(path)] == [1]


def test_too_high_a_learning_rate_in_a_process_of_its_own(tmp_path: Path) -> None:
    """One line on standard error: what NumPy has to say of overflow does not come before it."""
    process = start("-m", "train.cifar", *SMALL, "--learning-rate", "1e30", "--out", tmp_path / "run")
    finish(process).one_line(1, "the loss is", "at epoch 1, step", "first not finite: layer", "lower --learning-rate")


# Backends


def fake_cupy(
    monkeypatch: pytest.MonkeyPatch, *, driver: int = 13000, devices: int = 1, error: Exception | None = None
) -> None:
    """A CuPy that finds less than it needs."""

    def version() -> int:
        if not driver:
            raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver\nversion is insufficient")
        return driver

    def zeros(n: int) -> Any:
        if error:
            raise error

    runtime = types.SimpleNamespace(
        driverGetVersion=version, runtimeGetVersion=lambda: 13020, getDeviceCount=lambda: devices
    )
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime), zeros=zeros, __name__="cupy")
    monkeypatch.setitem(sys.modules, "cupy", cupy)


BROKEN: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], tuple[str, ...]]] = {
    "wheel": (lambda patch: patch.setitem(sys.modules, "cupy", None), ("not installed", "cupy-cuda12x")),
    "driver": (lambda patch: fake_cupy(patch, driver=0), ("driver", "cudaErrorInsufficientDriver", "install")),
    "newer driver": (
        lambda patch: fake_cupy(patch, driver=12040),
        ("supports CUDA 12", "needs CUDA 13", "extra cuda12"),
    ),
    "device": (lambda patch: fake_cupy(patch, devices=0), ("no CUDA device", "GPU")),
    "kernel": (
        lambda patch: fake_cupy(patch, error=RuntimeError("cudaErrorNoKernelImageForDevice")),
        ("cannot use the CUDA device", "NoKernelImage"),
    ),
    "free device": (
        lambda patch: fake_cupy(patch, error=RuntimeError("cudaErrorDevicesUnavailable: all are busy or unavailable")),
        ("cannot use the CUDA device", "DevicesUnavailable", "end the other process that holds it"),
    ),
    "memory": (
        lambda patch: fake_cupy(patch, error=MemoryError("out of memory allocating 512 bytes")),
        ("no memory left", "512 bytes", "end what else runs"),
    ),
}


@pytest.mark.parametrize("missing", BROKEN)
def test_cupy_without_a_usable_gpu_says_what_is_missing(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    prepare, fragments = BROKEN[missing]
    prepare(monkeypatch)
    part = part_of(trained, tmp_path)
    before = contents(tmp_path)
    for arguments in (
        (*SMALL, "--out", tmp_path / "run"),
        ("--resume", part),
        ("--evaluate", trained / "best.h5"),
    ):
        command(*arguments, "--backend", "cupy").one_line(1, "--backend cupy", *fragments)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("missing", BROKEN)
def test_auto_takes_numpy_where_no_gpu_is_usable(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    BROKEN[missing][0](monkeypatch)
    assert namespace(make_config().backend) is np


def test_what_cupy_warns_of_when_imported_is_not_shown(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard error stays one line, or none; --debug shows it."""

    def noisy() -> Any:
        warnings.warn("CUDA path could not be detected", stacklevel=2)
        raise RuntimeError("CuPy found no CUDA device: this machine shows no NVIDIA GPU")

    monkeypatch.setattr(_backend, "_usable_cupy", noisy)
    command(*SMALL, "--backend", "cupy", "--out", tmp_path / "a").one_line(1, "no CUDA device")
    command(*SMALL, "--epochs", 1, "--out", tmp_path / "b").success()
    with pytest.warns(UserWarning, match="CUDA path"):
        command(*SMALL, "--backend", "cupy", "--debug", "--out", tmp_path / "c")


# Everything else


def test_debug_shows_the_traceback_before_the_same_line(command: Command, trained: Path, tmp_path: Path) -> None:
    for arguments, status in (
        (("--resume", trained, "--epochs", 3), 2),
        (("--evaluate", tmp_path / "absent.h5"), 1),
    ):
        plain, full = command(*arguments), command(*arguments, "--debug")
        line = plain.one_line(status)
        assert (full.status, full.out) == (status, plain.out)
        assert full.err.startswith("Traceback (most recent call last):") and full.err.endswith(line)
        assert "cifar.py" in full.err


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("of\nmine"), RuntimeError(), OSError(5, "I/O error"), KeyError("k")]
)
def test_an_error_nobody_thought_of(
    command: Command, trained: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(cifar, "evaluate", fail)
    command("--evaluate", trained / "best.h5").one_line(1, type(error).__name__, "--debug shows where")
    assert "Traceback" in command("--evaluate", trained / "best.h5", "--debug").err


def test_interrupted_while_data_are_loaded(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cifar, "_dataset", interrupt)
    command(*SMALL, "--out", tmp_path / "run").one_line(130, "interrupted")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_while_modules_are_imported(tmp_path: Path) -> None:
    """A module of NumPy's name waits in its place; Ctrl-C ends the process with one line and no traceback."""
    (tmp_path / "numpy.py").write_text("import sys\nprint('importing', flush=True)\nsys.stdin.readline()\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    process = start("-m", "train.cifar", "--describe", env={"PYTHONPATH": path})
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    outcome = finish(process, "\n" * 100)
    outcome.one_line(130, "interrupted", "before anything was to save")


@pytest.mark.parametrize("argument", ["--describe", "--help"])
def test_a_closed_pipe_is_no_failure_to_talk_about(argument: str) -> None:
    """As in `| head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        outcome = finish(start("-m", "train.cifar", argument, stdout=writer))
    finally:
        os.close(writer)
    assert (outcome.status, outcome.err) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_standard_output_on_a_full_disk() -> None:
    with open("/dev/full", "w") as full:
        outcome = finish(start("-m", "train.cifar", "--describe", stdout=full))
    Outcome(outcome.status, "", outcome.err).one_line(1, "standard output", "No space left")


def test_standard_error_that_is_closed(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "train.cifar", *SMALL, "--epochs", "1"]
    arguments += ["--train-size", "24", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *arguments]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "test: accuracy" in done.stdout


def test_a_first_line_is_there_before_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffered output would say nothing until the end."""
    said = []

    def fit(self: Trainer) -> None:
        said.append(sys.stdout.getvalue())  # type: ignore[attr-defined]
        raise training.TrainingError("enough")

    monkeypatch.setattr(Trainer, "fit", fit)
    command(*SMALL, "--out", tmp_path / "run").one_line(1, "enough")
    assert len(said) == 1 and said[0].startswith(f"{tmp_path / 'run'}: sample on 32 images")
