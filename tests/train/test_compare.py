"""Runs side by side: the table, the differences, the picture, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from tests.train.runs import metrics
from train.compare import main
from train.runs.plot import plot_runs


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> list[Path]:
    """Two copies of a run, of which the second has another width and seed and half of its epochs."""
    found = []
    for name in ("first", "second"):
        shutil.copytree(trained, tmp_path / name)
        found.append(tmp_path / name)
    text = (found[1] / "config.toml").read_text("utf-8")
    text = text.replace("width = 4 ", "width = 5 ").replace("seed = 0 ", "seed = 7 ")
    (found[1] / "config.toml").write_text(text, "utf-8")
    lines = (found[1] / "metrics.jsonl").read_text("utf-8").splitlines()
    (found[1] / "metrics.jsonl").write_text("\n".join(lines[:2]) + "\n", "utf-8")
    return found


def test_table_and_picture(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "both.png"
    assert main([*map(str, runs), "--out", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["run", "preset", "seed", "coefficients"]
    first, second = (line.split() for line in lines[1:3])
    records = metrics(runs[0])
    best = max(record["validation_accuracy"] for record in records[:-1])
    assert first[:3] == ["first", "sample", "0"] and first[4] == "4/4" and second[4] == "2/4" and second[2] == "7"
    assert first[-4:] == [
        f"{value:.2%}"
        for value in (
            records[3]["validation_accuracy"],
            best,
            records[-1]["test_accuracy"],
            records[-1]["test_accuracy_of_views"],
        )
    ]
    assert second[-1] == f"{max(r['validation_accuracy'] for r in records[:2]):.2%}"  # no test
    assert lines[4:] == ["first: width 4", "second: width 5", str(picture)]
    assert matplotlib.image.imread(picture).std() > 0.05


@pytest.mark.parametrize(("old", "new", "other"), [('", 3]', '", 4]', True), ('"train", "', '"held out", "', False)])
def test_runs_on_other_samples_are_told_apart(
    runs: list[Path], capsys: pytest.CaptureFixture[str], old: str, new: str, other: bool
) -> None:
    """Another label is another sample; what is held out may differ."""
    samples = (runs[1] / "samples.json").read_text("utf-8")
    assert old in samples
    (runs[1] / "samples.json").write_text(samples.replace(old, new, 1), "utf-8")
    assert main([*map(str, runs), "--out", str(runs[0] / "a.png")]) == 0
    assert ("second was trained or tested on other samples than first" in capsys.readouterr().out) == other


def test_a_test_of_an_earlier_epoch_is_not_shown(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    lines = (runs[0] / "metrics.jsonl").read_text("utf-8").splitlines()
    of_test = json.loads(lines[-1]) | {"epoch": 2}
    (runs[1] / "metrics.jsonl").write_text("\n".join([*lines[:2], json.dumps(of_test), lines[2]]) + "\n", "utf-8")
    assert main([*map(str, runs), "--out", str(runs[0] / "a.png")]) == 0
    tested, trained_on = capsys.readouterr().out.splitlines()[1:3]
    assert f"{of_test['test_accuracy']:.2%}" in tested.split()[-2]
    assert "3/4" in trained_on and len(trained_on.split()) == len(tested.split()) - 2


def test_one_run_differs_from_none(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trained), str(trained), "--out", str(tmp_path / "a.png")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_run_of_one_epoch_is_seen(tmp_path: Path) -> None:
    epoch = {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.25, "validation_loss": 1.5, "validation_accuracy": 0.5}
    plot_runs({"one": [epoch]}, tmp_path / "a.png")
    picture = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    blue = np.abs(picture - np.array([31, 119, 180]) / 255).max(axis=-1) < 0.1
    assert blue[:, : picture.shape[1] // 2].sum() > 20  # the left panel, which has no legend


def test_what_cannot_be_compared(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(tmp_path / "a.png")
    for damage, fragment in (
        (lambda run: shutil.rmtree(run), "holds no run: it has no config.toml"),
        (lambda run: (run / "metrics.jsonl").unlink(), "it has no metrics.jsonl"),
        (lambda run: (run / "metrics.jsonl").write_text(json.dumps({"epoch": 1}) + "\n"), "no learning curve to draw"),
        (lambda run: (run / "config.toml").write_text("width = -1"), "run/config.toml: width is -1"),
    ):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(trained, run)
        damage(run)
        assert main([str(run), "--out", picture]) in (1, 2)
        err = capsys.readouterr().err
        assert err.startswith("train.compare: ") and fragment in err and err.count("\n") == 1
        assert not Path(picture).exists()
