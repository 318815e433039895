"""Runs of equal times, and the table and picture of what they reach; no timing."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import train
from benchmarks import equal_time, table1
from train.config import make_config, to_toml
from train.runs import session
from train.runs.run import Run
from train.storage.lock import locked

EPOCH = {"epoch": 1, "train_loss": 1.0, "seconds": 90.0, "validation_accuracy": 0.5}
TEST = {"epoch": 1, "test_accuracy": 0.875}


def run_of(path: Path, preset: str, *records: dict[str, Any], **settings: Any) -> Path:
    """A run's folder as far as the table reads it."""
    path.mkdir()
    (path / "config.toml").write_text(to_toml(make_config(preset, settings), {}), encoding="utf-8")
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_row_has_what_the_run_reached_and_the_size_of_its_network(tmp_path: Path) -> None:
    row = table1.measured(run_of(tmp_path / "a", "resnet20", EPOCH, {**EPOCH, "epoch": 2}, {**TEST, "epoch": 2}))
    products = 9 * (32**2 * (3 * 16 + 6 * 16**2) + 16**2 * (16 * 32 + 5 * 32**2) + 8**2 * (32 * 64 + 5 * 64**2))
    assert row == ("ResNet-20", "a", 269_722, products + 640, 87.5, table1.TEST)
    held_out = table1.measured(run_of(tmp_path / "b", "hcnn-best", EPOCH, {**EPOCH, "validation_accuracy": 0.25}))
    assert held_out is not None
    assert held_out[:3] + held_out[4:] == ("HCNN", "b", 97_650, 25.0, table1.HELD_OUT)
    more = {**EPOCH, "epoch": TEST["epoch"] + 1, "validation_accuracy": 0.25}  # an extension, not tested yet
    extended = table1.measured(run_of(tmp_path / "f", "lenet", EPOCH, TEST, more))
    assert extended is not None and extended[4:] == (25.0, table1.HELD_OUT)
    plus = table1.measured(run_of(tmp_path / "c", "hcnn-plus", TEST))
    assert plus is not None and (plus.network, plus.coefficients) == ("HCNN (+)", 344_640)
    assert table1.measured(run_of(tmp_path / "d", "resnet20", EPOCH, TEST, dataset="sample")) is None
    assert table1.measured(run_of(tmp_path / "e", "resnet20")) is None


def test_published_figures_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run_of(tmp_path / "a", "nin", EPOCH, TEST)), str(run_of(tmp_path / "b", "lenet", EPOCH))]
    monkeypatch.setattr(sys, "argv", ["table1", *runs, "--out", str(tmp_path / "found.png")])
    assert table1.main() == 0
    lines = (tmp_path / "found.md").read_text("utf-8").splitlines()
    assert capsys.readouterr().out.splitlines()[:-1] == lines
    published = [line for line in lines if line.endswith("| published |")]
    assert len(published) == 7
    assert any(
        line.startswith("| NIN | a | 966,986 |") and line.endswith("| 87.50 % | measured here |") for line in lines
    )
    assert "| LeNet-5 | b |" in lines[-1] and lines[-1].endswith("| measured here, on held-out images |")
    assert int.from_bytes((tmp_path / "found.png").read_bytes()[16:20], "big") == 9 * 120


def test_epochs_fill_the_time() -> None:
    assert equal_time.epochs_that_fill(30, 49_000, 1000) == 36  # of 49 s each
    assert equal_time.epochs_that_fill(1, 49_000, 10) == 1


@pytest.mark.parametrize("name", equal_time.SETS)
def test_terms_are_equal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a preset says otherwise, as that of hcnn-medium does of the size of images."""
    options = type("Options", (), {"backend": "numpy", "data_dir": "d", "dataset": "cifar10", "validation_size": 7})
    found = [equal_time.settings(changes, options, epochs=3) for changes in equal_time.SETS[name].values()]  # type: ignore[arg-type]
    for config in found:
        assert {**equal_time.TERMS, "validation_size": 7}.items() <= vars(config).items()
    assert {config.test for config in found} == {name == "table1"}
    assert len(set(found)) == len(found) == 6


FEW = ("--dataset", "sample", "--train-size", "90", "--validation-size", "10")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks for an epoch, one of which cannot be built."""
    monkeypatch.setattr(session, "plot_learning_curve", lambda records, path, title: path.write_bytes(b"picture"))
    monkeypatch.setattr(session, "page", lambda *arguments: "report")
    networks = {"wrong": {"preset": "lenet", "depth": 5}, "lenet": {"preset": "lenet"}}
    monkeypatch.setitem(equal_time.SETS, "table1", networks)
    monkeypatch.setattr(equal_time, "BATCHES", 1)


@pytest.mark.usefixtures("brief")
def test_a_set_is_trained_once_and_goes_on_where_a_network_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["table1", "--minutes", "1e-6", "--seeds", "0", "1", *FEW, "--out", str(tmp_path)]
    assert equal_time.main(asked) == 1
    assert "wrong-0: depth is 5, which is for architecture 'hcnn'" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lenet-0", "lenet-1", "speed", "terms.json"]
    brief, whole = (Run(tmp_path / name).latest()[1].config for name in ("speed/lenet", "lenet-1"))
    assert (brief.epochs, brief.train_size, brief.seed) == (2, 10 + brief.batch_size, 0)
    assert (whole.epochs, whole.train_size, whole.seed) == (1, 90, 1)
    monkeypatch.setattr(train, "fit", None)
    monkeypatch.setattr(train, "resume", None)
    assert equal_time.main(asked) == 1  # which trains nothing again


@pytest.mark.usefixtures("brief")
def test_a_set_goes_on_by_the_same_command_and_by_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["table1", "--only", "lenet", *FEW, "--out", str(tmp_path), "--minutes"]
    begun = tmp_path / "speed" / "lenet" / "config.toml"
    begun.parent.mkdir(parents=True)
    begun.touch()  # of a measurement that was killed

    def stopped(*_: Any) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "stopped"

    with monkeypatch.context() as patch:
        patch.setattr(equal_time, "summary", stopped)
        assert equal_time.main([*asked, "1e-6"]) == 128 + signal.SIGTERM
    assert "SIGTERM at the end of epoch 1 of 1 epochs, saved; " in (said := capsys.readouterr().err)
    assert said.endswith(", or all with the same command again\n")
    path, checkpoint, _ = (run := Run(tmp_path / "lenet-0")).latest()
    assert not run.test_record()
    before = path.read_bytes()
    with locked(tmp_path / ".lock"):
        assert equal_time.main([*asked, "1e-6"]) == 1
    assert "is in use by process" in capsys.readouterr().err
    assert equal_time.main([*asked, "7"]) == 1
    assert "have --minutes 1e-06, not 7.0; " in capsys.readouterr().err
    assert equal_time.main([*asked, "1e-6"]) == 0
    test = run.test_record()
    assert path.read_bytes() == before and test and test["epoch"] == checkpoint.state.epoch == 1
