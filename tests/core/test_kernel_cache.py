"""Compiled kernels on disk: code that calls an edited kernel of another file is compiled again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from hcnn_core._engines.cpu.kernels import jit

CALLEE = """
from small.jit import compiled

@compiled()
def callee(x):
    return x + {added}
"""
CALLER = """
from small.callee import callee
from small.jit import compiled

@compiled()
def caller(x):
    return 10 * callee(x)
"""
RUN = """
import sys
from small.caller import caller

result, stats, rules = caller(1), caller.stats, "numba.np.arraymath" in sys.modules
print(result, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), int(rules))
"""
STAMP = "files._source_stamp = (files._source_stamp, SOURCES)"


class SmallPackage:
    """Two kernels in two files, beside a copy of `jit`, with a cache of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sources = folder, folder / "small"
        self.sources.mkdir()
        (self.sources / "__init__.py").touch()
        (self.sources / "caller.py").write_text(CALLER)
        shutil.copy(jit.__file__, self.sources)
        self.add(1)

    def add(self, added: int) -> None:
        """Edit the callee, and no other file."""
        (self.sources / "callee.py").write_text(CALLEE.format(added=added))

    def forget_stamp(self) -> None:
        source = (self.sources / "jit.py").read_text()
        assert source.count(STAMP) == 1
        (self.sources / "jit.py").write_text(source.replace(STAMP, "pass"))

    def run(self) -> tuple[int, ...]:
        """In a fresh interpreter: the caller's result for 1, its cache hits, its cache misses.

        Then 1 if Numba loaded its rules for compiling.
        """
        # an edit within a second keeps size and time of a file, by which Python would take the old bytecode
        own = {"NUMBA_CACHE_DIR": str(self.folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
        result = subprocess.run(
            [sys.executable, "-c", RUN], cwd=self.folder, env={**os.environ, **own}, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return tuple(map(int, result.stdout.split()))


@pytest.fixture
def package(tmp_path: Path) -> SmallPackage:
    return SmallPackage(tmp_path)


def test_an_edited_callee_is_compiled_into_its_caller(package: SmallPackage) -> None:
    assert package.run() == (20, 0, 1, 1)
    assert package.run() == (20, 1, 0, 0)
    package.add(2)
    assert package.run() == (30, 0, 1, 1)
    assert package.run() == (30, 1, 0, 0)


def test_without_the_stamp_the_caller_keeps_the_old_callee(package: SmallPackage) -> None:
    package.forget_stamp()
    assert package.run() == (20, 0, 1, 1)
    package.add(2)
    assert package.run() == (20, 1, 0, 0)  # what the stamp prevents
