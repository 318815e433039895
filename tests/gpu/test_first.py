"""What to run first on a card: every part is begun, failures end none of the others, and rows say what was asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import values
from benchmarks.gpu.asked import rows
from hcnn_core._engines.cuda.tensor_plan import TensorPlan
from tests.gpu.host import python

ROOT = Path(__file__).parents[2]
PRINTED = """
== 91 s: benchmarks.gpu.peers steps
hcnn-best:tf32:100:32: 5.50 ms a step, a graph, 5.10 by replays alone
hcnn-best:float32:100:32: 14.30 ms a step, a graph
resnet20:tf32:128:32: RuntimeError: no memory
PyTorch hcnn-best:tf32:100:32: 12.30 ms a step
a layer: here float32 5.230, here tf32 0.850, PyTorch float32 8.400, PyTorch tf32 1.870
plane by 5: here float32 0.522, ndimage 0.364, fftconvolve 1.500
four axes: here float32 2.050, here tf32 1.900
hcnn-best:tf32:100:32: 5.20 ms of kernels in 244 launches
"""


def test_rows_say_what_was_asked_and_found() -> None:
    found = {row[0]: row[1:] for row in rows(PRINTED)}
    assert found["step of hcnn-best:tf32:100:32"] == ("8.0 ms", "5.50", "yes", "12.30")
    assert found["hcnn-best:tf32:100:32, by replays alone"] == ("8.0 ms", "5.10", "yes", "12.30")
    assert found["a layer, tf32, beside conv2d"] == ("1.3 times", "0.45", "yes", "")
    assert found["step of hcnn-best:float32:100:32"] == ("13.0 ms", "14.30", "no, 1.10 times", "")
    assert found["step of resnet20:tf32:128:32"] == ("2.0 ms", "not measured", "", "")
    assert found["a layer, tf32"] == ("1.6 ms", "0.85", "yes", "1.87")
    assert found["plane by 5, float32"] == ("1.1 times", "1.43", "no, 1.30 times", "0.364")
    assert found["launches of hcnn-best:tf32:100:32"] == ("230", "244", "no, 1.06 times", "")
    assert "four axes, float32" not in found  # nothing else was timed


def test_parts_that_fail_or_last_end_by_themselves(tmp_path: Path) -> None:
    stub = tmp_path / "python"
    stub.write_text(f"""#!/bin/sh
echo "$@" >> {tmp_path}/called
case "$1 $2" in
    "benchmarks.gpu.peers steps") echo "hcnn-best:tf32:100:32: 5.50 ms a step" ;;
    "benchmarks.gpu.peers convolutions") echo "plane by 5: here float32 0.5"; sleep 60 ;;
    "benchmarks.gpu.values "*) echo "values: 0 wrong" ;;
    benchmarks.gpu.asked*) exec {sys.executable} -m "$@" ;;
    *) exit 3 ;;
esac
""")
    stub.chmod(0o755)
    done = subprocess.run(
        ["bash", "benchmarks/gpu/first.sh", tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHON": str(stub), "ALL": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    called = (tmp_path / "called").read_text()
    for part in (
        "peers steps",
        "peers_torch",
        "peers convolutions",
        "peers profile",
        "values",
        "networks",
        "asked",
    ):
        assert f"benchmarks.gpu.{part}" in called, part
    assert called.splitlines()[-1].startswith("benchmarks.gpu.choices")
    assert "ended by itself, status 3" in done.stdout and "status 124" in done.stdout
    assert "| step of hcnn-best:tf32:100:32 | 8.0 ms | 5.50 | yes |  |" in (tmp_path / "out/asked.txt").read_text()
    assert called.count("peers_torch") == 8  # a process a row
    (tmp_path / "called").unlink()
    subprocess.run(
        ["bash", "benchmarks/gpu/first.sh", tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHON": str(stub), "ALL": "2"},
    )  # fmt: skip
    again = (tmp_path / "called").read_text()
    assert "peers steps hcnn-best:tf32:100:32" not in again and "peers steps hcnn-best:float32:100:32" in again
    assert "peers convolutions plane by 5\n" in again and "values card" in again and "values\n" not in again


@pytest.mark.parametrize("exactly", [pytest.param(False, marks=pytest.mark.slow), True])
def test_values_are_compared(
    kernels_on_host: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exactly: bool
) -> None:
    """Those of kernels on the processor differ by rounding; where that is too much, most are wrong."""
    if exactly:
        monkeypatch.setattr(values, "PROBLEMS", {})
        monkeypatch.setattr(values, "ROUNDING", {"float32": 1e-9})
    monkeypatch.setattr(TensorPlan, "supports", TensorPlan.supports)  # which is replaced, and put back
    monkeypatch.setattr(values, "card", lambda: None)
    monkeypatch.setattr(values, "usable_cupy", lambda: np)
    monkeypatch.setattr(sys, "argv", ["values"])
    with pytest.raises(SystemExit) as ended:
        values.main()
    *lines, last = capsys.readouterr().out.splitlines()
    wrong = sum(", WRONG" in line for line in lines)
    assert last == f"values: {wrong} wrong" and ended.value.code == (wrong > 0) == exactly
    assert {"gram", "spread", "normalize_rows", "row_sums_back", "add_terms"} <= set(kernels_on_host)
    assert exactly or {"implicit", "implicit_taps", "summed", "summed_taps", "single"} <= set(kernels_on_host)


@pytest.mark.parametrize("part", ["values", "values card", "peers steps hcnn:tf32:1:32", "peers convolutions"])
def test_without_a_card_one_line_says_so(part: str) -> None:
    module, *arguments = part.split()
    done = python("-m", f"benchmarks.gpu.{module}", *arguments)
    if done.returncode == 0:
        pytest.skip("there is a card")
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("no card can be used: CuPy ")
