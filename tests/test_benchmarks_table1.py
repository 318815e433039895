"""The table and picture of runs beside published figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import table1
from train.config import make_config, to_toml

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
    runs = [str(run_of(tmp_path / "a", "wrn-student", EPOCH, TEST)), str(run_of(tmp_path / "b", "lenet", EPOCH))]
    monkeypatch.setattr(sys, "argv", ["table1", *runs, "--out", str(tmp_path / "found.png")])
    assert table1.main() == 0
    lines = (tmp_path / "found.md").read_text("utf-8").splitlines()
    assert capsys.readouterr().out.splitlines()[:-1] == lines
    published = [line for line in lines if line.endswith("| published |")]
    assert len(published) == 7
    assert any(
        line.startswith("| WRN student | a | 175,066 |") and line.endswith("| 87.50 % | measured here |")
        for line in lines
    )
    assert "| LeNet-5 | b |" in lines[-1] and lines[-1].endswith("| measured here, on held-out images |")
    assert int.from_bytes((tmp_path / "found.png").read_bytes()[16:20], "big") == 9 * 120
