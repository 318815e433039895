"""The table of convolutions: conventions of its peers, what it refuses to time, and its command line; no timing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ALONE = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "jax"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled())  # None in sys.modules SciPy would take for a library
"""
RUN = "import runpy; runpy.run_module('benchmarks.convolve', run_name='__main__')"


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a fresh interpreter, which the benchmark prepares for its purposes."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def evaluate(code: str) -> Any:
    result = run(code)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


TINY = """
import json
from benchmarks import convolve as table
table.SAMPLE = 1e-9
machine, missing = table.load_peers()
Case = table.Case
cases = [
    Case((7,), (3,)), Case((8,), (4,), batch=2), Case((5,), (12,)), Case((5,), (13,), batch=2),
    Case((5, 6), (2, 3), dtype="float64"), Case((4, 5), (3, 8), channels=2, filters=3),
    Case((4, 3, 5), (2, 3, 1), batch=2, channels=2, filters=2), Case((3, 4, 5), (3, 3, 7), batch=2),
    Case((3, 2, 4, 3), (2, 3, 3, 4), batch=2, filters=2), Case((2, 3, 2, 3, 4), (3, 2, 1, 2, 3)),
    Case((5, 6), (4, 13), boundaries=table.EXTENDED), Case((7,), (3,), 2, 2, 3, boundaries=table.EXTENDED),
]
rows = [table.compare(case, boundary, 1, missing) for case in cases for boundary in case.boundaries]
"""


def test_peers_agree_on_every_kind_of_case() -> None:
    rows, missing = evaluate(TINY + "print(json.dumps([rows, missing]))")
    assert [row["disagrees"] for row in rows] == [{}] * 26
    for row in rows:
        extended = row["boundary"] not in ("periodic", "zero")
        one_filter = len(row["w"]) == len(row["axes"])
        assert ({"ndimage", "fftconvolve", "oaconvolve"} <= set(row["peers"])) == one_filter
        assert ("rfftn" in row["peers"]) == (one_filter and row["boundary"] == "periodic")
        assert ("jax" in row["peers"]) == ("jax" not in missing and not extended)
        sizes = row["w"][len(row["sum_axes"]) :]
        fits = all(size // 2 <= row["x"][axis] for axis, size in zip(row["axes"], sizes, strict=False))
        expressible = len(row["axes"]) <= 3 and not extended and (row["boundary"] == "zero" or fits)
        assert ("torch" in row["peers"]) == (expressible and "torch" not in missing)
        assert set(row["peers"]) | set(row["skipped"]) == {
            *("ndimage", "fftconvolve", "oaconvolve", "rfftn", "torch", "jax")
        }


LAYER = """
import json
import numpy as np
from benchmarks import convolve as table
table.SAMPLE = 1e-9
machine, missing = table.load_peers()
case = table.Case((6, 8), (3, 3), batch=2, channels=3, filters=5, boundaries=("zero",))
row = table.compare_layer(case, 2, missing)
problem = table.LayerProblem(case)
y, gx, gw = problem.found
wrong = [(np.roll(y, 1, 1), gx, gw), (y, -gx, gw), (y, gx, np.flip(gw, (1, 2))), (y, gx * np.nan, gw), (y, gx, gw[1:])]
print(json.dumps([row, problem.tolerance, [problem.error(some) for some in ((y, gx, gw), *wrong)]]))
"""


def test_a_layer_is_compared_in_its_result_and_both_gradients() -> None:
    row, tolerance, (right, *wrong) = evaluate(LAYER)
    assert right == 0 and not any(error <= 10 * tolerance for error in wrong)
    assert row["disagrees"] == {} and row["multiply-adds"] == 3 * 2 * 6 * 8 * 9 * 3 * 5
    assert len(row["ours"]["seconds"]) == 2
    if "torch" in row:
        assert row["ratio"] == row["ours"]["ms"] / row["torch"]["ms"]


ERRORS = """
import json
import numpy as np
from benchmarks.convolve import CASES, Problem
found = []
for case in (case for case in CASES if case.quick):
    for boundary, other in (("periodic", "zero"), ("zero", "periodic")):
        problem = Problem(case, boundary)
        first, y = len(problem.sum_axes), problem.y
        wrong = [np.roll(y, 1, axis - first) for axis in problem.axes]
        wrong += [Problem(case, other).y, y[:-1], y.astype(complex), y * np.nan]
        right = [y, problem.ours("fft").run()]
        problem.w = np.flip(problem.w, tuple(range(first, first + len(case.kernel))))
        wrong.append(problem.ours("auto").run())
        found.append([problem.tolerance, *([problem.error(a) for a in some] for some in (right, wrong))])
print(json.dumps(found))
"""


def test_what_is_moved_flipped_or_of_the_other_boundary_is_not_within_rounding_errors() -> None:
    for tolerance, right, wrong in evaluate(ALONE + ERRORS):
        assert max(right) <= tolerance
        assert not any(error <= 10 * tolerance for error in wrong)


def test_record_names_what_it_skips_and_its_ratios_are_those_of_its_times(tmp_path: Path) -> None:
    every_round = "from benchmarks import convolve; convolve.SLOW = float('inf'); raise SystemExit(convolve.main())"
    result = run(ALONE + every_round, "--rounds", "2", "--only", "kernel 16", "--out", str(tmp_path))
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "convolve.json").read_text("utf-8"))
    (row,) = record["rows"]
    assert row["skipped"] == {"torch": "not installed", "jax": "not installed"}
    assert set(row["peers"]) == {"ndimage", "fftconvolve", "oaconvolve", "rfftn"}
    assert [len(found["seconds"]) for found in (row["ours"], *row["peers"].values())] == [2, 2, 2, 2, 2]
    fastest = min(row["peers"].values(), key=lambda peer: peer["ms"])
    assert row["peers"][row["best"]] == fastest
    assert row["ratio"] == row["ours"]["ms"] / fastest["ms"]
    assert set(row["methods"]) == {"direct", "fft"}
    assert row["regret"] == row["ours"]["ms"] / min(found["ms"] for found in row["methods"].values())
    text = (tmp_path / "convolve.txt").read_text("utf-8")
    assert text.splitlines() == result.stdout.splitlines()[: len(text.splitlines())]
    assert "  torch: not installed (1 of 1)" in text
    assert f"slower than 1.1 times the best peer: {int(row['ratio'] > 1.1)} of 1 rows" in text
    assert "\nratio to scipy.ndimage: median " in text

    picture = (tmp_path / "convolve.png").read_bytes()
    assert int.from_bytes(picture[16:20], "big") == 1200
    (tmp_path / "convolve.png").unlink()
    assert run(ALONE + RUN, "--plot", str(tmp_path / "convolve.json")).returncode == 0
    assert (tmp_path / "convolve.png").read_bytes() == picture


def test_a_peer_that_disagrees_is_not_timed() -> None:
    wrong = "import scipy.ndimage\nscipy.ndimage.convolve = scipy.ndimage.correlate\n"
    result = run(ALONE + wrong + RUN, "--rounds", "1", "--only", "kernel 16")
    assert result.returncode == 1, result.stderr
    assert "  ndimage disagrees on 64 signals 512, kernel 16, periodic: it is off by " in result.stdout
    assert "ratio to scipy.ndimage:" not in result.stdout


ARGUMENTS = """
import contextlib, io, json, sys
from benchmarks.convolve import arguments
found = []
for given in {given!r}:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        sys.argv[1:] = given
        try:
            arguments()
        except SystemExit as end:
            found.append([end.code, said.getvalue().splitlines()[-1]])
print(json.dumps(found))
"""


def test_bad_arguments_give_one_line() -> None:
    messages = {
        ("--rounds", "0"): "--rounds is 0; give 1 or more",
        ("--only", "cube"): "--only is 'cube', which no case has in its name; ",
        ("--quick", "--only", "volume"): "--only is 'volume', which no case of --quick has in its name; ",
        ("--out", "README.md"): "--out is README.md, which cannot be a folder: ",
        ("--plot", "README.md"): "--plot is README.md; give a convolve.json that --out wrote",
        ("--plot", "none.json"): "--plot is none.json; give a convolve.json that --out wrote",
    }
    found = evaluate(ARGUMENTS.format(given=list(messages)))
    for (status, said), message in zip(found, messages.values(), strict=True):
        assert status == 2
        assert said.startswith(f"python -m benchmarks.convolve: error: {message}")
