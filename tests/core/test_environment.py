"""Every environment variable that is read is listed once, checked at the first use, and documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hcnn_core import environment
from hcnn_core.environment import VARIABLES
from tests.test_house import PACKAGES, ROOT

PLAIN = {**{name: v for name, v in os.environ.items() if not name.startswith("HCNN_")}, "PYTHONPATH": str(ROOT)}
WRONG = {
    "HCNN_NUM_THREADS": ("two", "0", "-3", "2.5", "", "1e3", " 2"),
    "HCNN_KEEP_MIB": ("-1", "1.5", "", "much"),
    "HCNN_PLANNING": ("patient", "measured"),
    "HCNN_PATIENCE": ("0", "0.0", "inf", "-3", "", ".", "nan"),
    **dict.fromkeys(("HCNN_DETERMINISTIC", "HCNN_QUIET", "HCNN_CUDA_GRAPH", "HCNN_PARTIAL_DATA"), ("true", "2")),
}
RIGHT = {
    "HCNN_NUM_THREADS": ("1", "016"),
    "HCNN_KEEP_MIB": ("0", "256"),
    "HCNN_PLANNING": ("", "estimate", "measure"),
    "HCNN_PATIENCE": ("60", "0.5", "5.", ".5"),
    **dict.fromkeys(("HCNN_DETERMINISTIC", "HCNN_QUIET", "HCNN_CUDA_GRAPH", "HCNN_PARTIAL_DATA"), ("", "0", "1")),
}


def variables_of(source: str) -> set[str]:
    """Names of variables that a text of Python reads or sets by their whole name, of this distribution's."""
    return set(re.findall(r"[\"'](HCNN_[A-Z_]+)[\"']", source))


def test_every_variable_is_listed_and_read_and_documented() -> None:
    used = set[str]()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "environment.py":
                used |= variables_of(path.read_text("utf-8"))
    assert used == VARIABLES.keys() == WRONG.keys() == RIGHT.keys()
    assert variables_of("os.environ['HCNN_OTHER']") == {"HCNN_OTHER"}  # the control
    table = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for name, variable in VARIABLES.items():
        cells = name, variable.wanted, variable.default, variable.meaning
        assert f"| `{cells[0]}` | {cells[1]} | {cells[2]} | {cells[3]} |" in table


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_is_checked_whatever_reads_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in WRONG[name]:
        monkeypatch.setenv(name, given)
        with pytest.raises(ValueError, match=f"^{name} is {re.escape(repr(given))}; set it to ") as error:
            environment.require_valid.__wrapped__()
        assert VARIABLES[name].wanted in str(error.value)
    for given in RIGHT[name]:
        monkeypatch.setenv(name, given)
        environment.require_valid.__wrapped__()
        assert environment.value(name) == (given or VARIABLES[name].default)
    monkeypatch.delenv(name)
    assert environment.value(name) == VARIABLES[name].default


@pytest.mark.parametrize("name", ["HCNN_NUM_THREADS", "HCNN_QUIET", "HCNN_PATIENCE"])
@pytest.mark.parametrize(
    "code",
    [
        "import numpy, hcnn; hcnn.convolve(numpy.ones((8, 8)), numpy.ones((3, 3)), (0, 1), boundary='zero')",
        "import numpy, hcnn_core; hcnn_core.relu(numpy.ones(3))",
        "import numpy, autodiff; autodiff.grad(autodiff.translate)",
    ],
)
def test_the_first_use_checks_all(name: str, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**PLAIN, name: "wrong"},
        capture_output=True,
        text=True,
        cwd=Path(ROOT.anchor),
    )
    if "grad" in code:
        assert done.returncode == 0  # nothing is computed, and nothing is refused
    else:
        assert f"VariableError: {name} is 'wrong'; set it to " in done.stderr.splitlines()[-1]


def test_a_command_says_it_in_one_line() -> None:
    command = [sys.executable, "-m", "hcnn", "describe", "--preset", "sample"]
    done = subprocess.run(command, env={**PLAIN, "HCNN_QUIET": "yes"}, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hcnn describe: HCNN_QUIET is 'yes'; set it to 0 or 1\n"
