"""What is compiled is logged, and can be compiled ahead."""

from __future__ import annotations

import io
import logging
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
from hcnn_core._engines.cpu import compile_log

ROOT = Path(__file__).resolve().parents[2]

CALLS = """
import logging
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
logging.getLogger("hcnn_core").setLevel(logging.DEBUG)
import numba, numpy as np
from hcnn_core import convolve, elu, warmup
numba.njit(lambda x: x + 1)(1)
x, w = np.ones((2, 8, 8, 8, 16)), np.ones((3, 3, 7, 11, 2))
methods = ("direct", "direct", "fft", "fft")
convolve(x, w, (1, 2, 3, 4), boundary="periodic", stride=(1, 1, 2, 2), method=methods)
warmup.WORK = {"elu": lambda boundary, dtype: elu(np.ones(1 << 18, dtype))}
print(len(warmup._take(("elu", "zero", "float32"))))
"""


def run(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own that finds nothing compiled but what is in the cache."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


NOTICE = "hcnn: compiling kernels, once for this processor (hcnn warmup does it ahead, HCNN_QUIET=1 hides this)"

AT_ONCE = """
import sys
from hcnn_core._engines.cpu import compile_log
compile_log.SAID_AFTER = 0.0
import numpy as np
from hcnn_core import elu, elu_vjp
x = np.ones(1 << 18, np.float32)
elu_vjp(x, elu(x))
"""


def on_terminal(code: str, cache: Path, **variables: str) -> str:
    """What a process whose standard error is a terminal says there."""
    pty = pytest.importorskip("pty", reason="there are no terminals")
    ours, its = pty.openpty()
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), **variables}
    environment.pop("PYTEST_CURRENT_TEST", None)
    try:
        subprocess.run([sys.executable, "-c", f"{code}\nprint('done', file=sys.stderr)"], env=environment, stderr=its)
        said = ""
        while not said.endswith("done\r\n"):
            said += os.read(ours, 4096).decode()
        return said.removesuffix("done\r\n")
    finally:
        os.close(ours)
        os.close(its)


@pytest.mark.slow
def test_a_first_call_that_compiles_says_so_once_on_a_terminal(tmp_path: Path) -> None:
    assert on_terminal(AT_ONCE, tmp_path, HCNN_QUIET="1") == ""
    (empty := tmp_path / "empty").mkdir()
    assert on_terminal(AT_ONCE, empty) == f"{NOTICE}\r\n"
    assert on_terminal(AT_ONCE, empty) == ""  # nothing is left to compile


@pytest.mark.parametrize(
    ("stream", "variables", "is_wanted"),
    [
        (io.StringIO(), {}, True),  # as in a notebook or a log file
        (None, {}, False),
        (io.StringIO(), {"HCNN_QUIET": "1"}, False),
        (io.StringIO(), {"HCNN_QUIET": "0"}, True),
        (io.StringIO(), {"PYTEST_CURRENT_TEST": "a test that started this process"}, False),
    ],
)
def test_where_a_line_is_wanted(
    stream: io.StringIO | None, variables: dict[str, str], is_wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("HCNN_QUIET", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        if "PYTEST_CURRENT_TEST" not in variables:
            patch.delenv("PYTEST_CURRENT_TEST")
        assert not compile_log._is_wanted()  # since pytest is imported
        patch.delitem(sys.modules, "pytest")
        assert compile_log._is_wanted() == is_wanted
        patch.setattr(compile_log.logger, "level", logging.INFO)
        compile_log.logger.manager._clear_cache()  # type: ignore[attr-defined]
        assert not compile_log._is_wanted()  # who follows the log is told there
    compile_log.logger.manager._clear_cache()  # type: ignore[attr-defined]


def test_seconds_of_compiling_add_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compile_log, "_is_wanted", lambda: True)
    notice = compile_log._Notice()
    for _ in range(3):
        notice.begin()
        notice.end(0.3)
        notice.timer.join()
    assert not notice.said and notice.spent == pytest.approx(0.9)
    notice.begin()
    assert notice.timer.interval == pytest.approx(0.1) and notice.timer.daemon
    notice.timer.join()  # as long as this function compiles
    notice.end(5.0)
    notice.begin()
    assert notice.said and capsys.readouterr().err == f"{NOTICE}\n"


@pytest.mark.slow
def test_what_is_called_is_compiled_once_and_logged_with_its_time(tmp_path: Path) -> None:
    """And nothing else is. Lines of 16 positions go by `gemm_lines`, transforms by codelets; no adjoint is called."""
    done = run(CALLS, tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("hcnn_core ") and " compiled " in line]
    found = [re.fullmatch(r"hcnn_core (INFO|DEBUG) compiled (\w+\.\w+) in \d+\.\d s", line) for line in lines]
    names = {match[2]: match[1] for match in found if match}
    assert len(found) == len(lines) and all(found) and int(done.stdout) >= 1
    assert names.keys() >= {"direct.apply_together", "dft.transform", "gemm.gemm_lines"}  # the last by another
    assert any(name.startswith("elu.") and names[name] == "INFO" for name in names)
    assert not [name for name in names if "vjp" in name or "gemm_rows" in name]
    again = run(CALLS, tmp_path)
    assert "hcnn_core" not in again.stderr and int(again.stdout) == 0


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
    out, err = capsys.readouterr()
    lines = [line.split(":")[0] for line in err.splitlines()]
    assert out.startswith("0 functions were compiled in ") and lines == [f"part {n} of 20" for n in range(1, 21)]
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
