"""The table of convolutions: conventions of its peers, and results that it refuses to time; no timing."""

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
