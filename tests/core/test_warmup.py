"""What is compiled is logged, and can be compiled ahead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

from hcnn_core import warmup

ROOT = Path(__file__).resolve().parents[2]

LOGGED = """
import logging
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
import numba, numpy as np
from hcnn_core import elu
elu(np.ones(1 << 18, np.float32))
numba.njit(lambda x: x + 1)(1)
"""

FORWARD = """
import logging
logging.basicConfig(level=logging.DEBUG, format="%(message)s")
import numpy as np
from hcnn_core import convolve
x, w = np.ones((2, 8, 8, 8, 16)), np.ones((3, 3, 7, 11, 2))
methods = ("direct", "direct", "fft", "fft")
convolve(x, w, (1, 2, 3, 4), boundary="periodic", stride=(1, 1, 2, 2), method=methods)
"""

COMPILED = """
import numpy as np
from hcnn_core import elu, warmup
warmup.WORK = {"elu": lambda boundary, dtype: elu(np.ones(1 << 18, dtype))}
print(len(warmup._take(("elu", "zero", "float32"))))
"""


def run(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own that finds nothing compiled but what is in the cache."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_what_is_compiled_is_logged_with_its_time(tmp_path: Path) -> None:
    """Once, with a line for each function that was called; not what other packages compile."""
    lines = [line for line in run(LOGGED, tmp_path).stderr.splitlines() if line.startswith("hcnn_core ")]
    assert lines and all(re.fullmatch(r"hcnn_core INFO compiled elu\.\w+ in \d+\.\d s", line) for line in lines)
    assert "hcnn_core" not in run(LOGGED, tmp_path).stderr


def test_a_convolution_compiles_only_what_it_calls(tmp_path: Path) -> None:
    """Lines of 16 positions go by `gemm_lines`, transforms by codelets. Nothing else is compiled, and no adjoint."""
    names = re.findall(r"compiled (\S+) in", run(FORWARD, tmp_path).stderr)
    assert {"direct.apply_together", "dft.transform", "gemm.gemm_lines"} <= set(names)
    assert not [name for name in names if "vjp" in name or "gemm_rows" in name]


def test_what_was_compiled_ahead_is_not_compiled_again(tmp_path: Path) -> None:
    assert int(run(COMPILED, tmp_path).stdout) >= 1
    assert int(run(COMPILED, tmp_path).stdout) == 0


def test_every_piece_of_the_work_is_taken_once_for_each_dtype(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: list[tuple[str, str, str]] = []
    work: dict[str, Any] = {
        name: lambda boundary, dtype, name=name: taken.append((name, boundary, dtype)) for name in warmup.WORK
    }
    monkeypatch.setattr(warmup, "WORK", work)
    monkeypatch.setattr(warmup, "ProcessPoolExecutor", lambda processes, context: ThreadPoolExecutor(processes))
    assert warmup.main(["--processes", "3"]) == 0
    assert capsys.readouterr().out.startswith("0 functions were compiled in ")
    assert len(taken) == len(set(taken)) == 4 * len(work)  # for each boundary and dtype
    taken.clear()
    assert warmup.main(["--dtype", "float64"]) == 0
    assert {dtype for *_, dtype in taken} == {"float64"} and {name for name, *_ in taken} == set(work)


@pytest.mark.parametrize("arguments", [["--processes", "0"], ["--processes", "two"], ["--dtype", "int32"]])
def test_a_wrong_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        warmup.main(arguments)
    assert stop.value.code == 2
    assert "_positive" not in capsys.readouterr().err


def test_without_kernels_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(warmup, "has_compiled_kernels", lambda: False)
    assert warmup.main([]) == 1
    assert "Numba is not installed" in capsys.readouterr().err
