"""The gate: stages bounded in time, resumed, reported; data that come in parts. No GPU is needed for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import gate
from benchmarks.gpu.gate import CIFAR10, Stage, collect, markdown, run

ROOT = Path(__file__).parents[2]

STAGES = """
import json, pathlib, sys, time
name, out = sys.argv[1], pathlib.Path(sys.argv[2])
if name == "slow":
    time.sleep(60)
if name == "wrong":
    sys.exit("not equal")
(out / f"{name}.json").write_text(json.dumps({"text": "As measured.", "table": [["what", "s"], ["a", 0.123456]]}))
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stages of their own, none of which needs a GPU."""
    (tmp_path / "own_stages.py").write_text(STAGES)
    monkeypatch.setattr(gate, "MODULE", "own_stages")
    return dict(os.environ, PYTHONPATH=str(tmp_path))


def test_a_stage_that_is_done_is_not_run_again(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(Stage("quick", 60), tmp_path, environment, 100).startswith("quick: done in")
    assert run(Stage("quick", 60), tmp_path, environment, 100) == "quick: done before"


def test_a_stage_is_stopped_in_time(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(Stage("slow", 10), tmp_path, environment, 100).startswith("slow: failed (stopped after 10 s)")
    assert not (tmp_path / "slow.json").exists()


def test_a_stage_that_fails_says_why(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(Stage("wrong", 60), tmp_path, environment, 100) == "wrong: failed (1): not equal"
    assert not (tmp_path / "wrong.json").exists()


def test_no_stage_begins_without_time(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run(Stage("quick", 60), tmp_path, environment, 5) == "quick: no time left; run again to go on"


def test_report(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "STAGES", (Stage("quick", 60), Stage("wrong", 60)))
    run(Stage("quick", 60), tmp_path, environment, 100)
    lines = markdown(tmp_path).splitlines()
    assert lines[2:10] == ["## quick", "", "As measured.", "", "| what | s |", "| --- | --- |", "| a | 0.1235 |", ""]
    assert lines[10:] == ["## wrong", "", "Not done."]


def test_data_come_in_parts(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    for part, names in enumerate((CIFAR10[:3], CIFAR10[3:])):
        folder = tmp_path / str(part) / "cifar-10-batches-bin"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
        collect([tmp_path / str(part)], keep)
        assert sorted(p.name for p in keep.iterdir()) == sorted(CIFAR10[: 3 + 3 * part])
    assert all((keep / name).read_text() == name for name in CIFAR10)


def test_every_stage_has_its_function() -> None:
    text = (ROOT / "benchmarks" / "gpu" / "stages.py").read_text("utf-8")
    assert all(f"def {s.name}(" in text or f"def {s.name}_stage(" in text for s in gate.STAGES)


def test_without_a_gpu_one_line_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.gate", str(tmp_path / "out")]
    hidden = dict(os.environ, CUDA_VISIBLE_DEVICES="-1")
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("no GPU, so nothing is run: CuPy") and done.stderr.count("\n") == 1
