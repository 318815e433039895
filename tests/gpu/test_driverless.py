"""Training steps by CuPy itself, whose driver is replaced: they run, and all of a step can be recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.requirements import required

cupy = required("cupy")

ROOT = Path(__file__).parents[2]

STEPS: list[dict[str, Any]] = [
    {"preset": "hcnn"},
    {"preset": "hcnn", "boundary": "periodic", "precision": "tf32x3"},
    {"preset": "hcnn", "dtype": "float64", "depth": 6, "label_smoothing": 0.1, "head": "sum", "reduction": "sum"},
    {"preset": "hcnn", "dataset": "cifar100", "attribute_kernel": [11, 11]},
    {"preset": "hcnn-plus"},
    {"preset": "hcnn-fast"},
]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("settings", STEPS, ids=lambda s: ", ".join(map(str, s.values())))
def test_steps_are_recorded(settings: dict[str, Any]) -> None:
    done = python("-m", "tests.gpu.driverless", json.dumps(settings))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["recorded"] and not found["refused"]
    first, _, _, _, graphed, shorter, again = found["launches"]
    assert first > 100 and graphed == again == 0  # one launch of the graph is none of a kernel
    assert shorter > 100


CONTROL = """
import numpy as np
from tests.gpu.driverless import without_driver
cupy, driver = without_driver()
from hcnn_core.backend import record
x = cupy.zeros(3)
try:
    record(lambda: {work})
except Exception as error:
    print(type(error).__name__, error)
print(*driver.refused)
import os, sys
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ("x + x", "\n"),
        ("cupy.asarray(np.ones(3))", "host"),
        ("float(x[0])", "D2H"),
        ("cupy.cuda.Device().synchronize()", "deviceSynchronize"),
        ("cupy.concatenate([x] * 50)", "host"),
    ],
)
def test_what_cannot_be_recorded_is_noticed(work: str, expected: str) -> None:
    done = python("-c", CONTROL.format(work=work))
    assert expected in done.stdout, done.stdout + done.stderr
    assert done.stdout == "\n" or expected != "\n"
