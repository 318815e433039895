"""Compiled kernels on disk: code that calls an edited kernel of another file is compiled again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


class SmallPackage:
    """Two kernels in two files, beside a copy of `jit`, with a cache of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sources, self.said = folder, folder / "small", ""
        self.sources.mkdir()
        (self.sources / "__init__.py").touch()
        (self.sources / "caller.py").write_text(CALLER)
        shutil.copy(jit.__file__, self.sources)
        self.add(1)

    def add(self, added: int) -> None:
        """Edit the callee, and no other file."""
        (self.sources / "callee.py").write_text(CALLEE.format(added=added))

    def start(self, before: str = "", **environment: str) -> subprocess.Popen[str]:
        """A fresh interpreter that calls the caller, after some other lines."""
        # an edit within a second keeps size and time of a file, by which Python would take the old bytecode
        own = {"NUMBA_CACHE_DIR": str(self.folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        return subprocess.Popen(
            [sys.executable, "-c", before + RUN],
            cwd=self.folder,
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, before: str = "", **environment: str) -> tuple[int, ...]:
        """In a fresh interpreter: the caller's result for 1, its cache hits, its cache misses.

        Then 1 if Numba loaded its rules for compiling.
        """
        return self.result(self.start(before, **environment))

    def result(self, process: subprocess.Popen[str]) -> tuple[int, ...]:
        """What a started interpreter found."""
        output, self.said = process.communicate()
        assert process.returncode == 0, self.said
        return tuple(map(int, output.split()))

    def cached(self) -> list[Path]:
        """The files of compiled code."""
        return sorted((self.folder / "cache").rglob("*.nbc"))


@pytest.fixture
def package(tmp_path: Path) -> SmallPackage:
    return SmallPackage(tmp_path)


def test_an_edited_callee_is_compiled_into_its_caller(package: SmallPackage) -> None:
    assert package.run() == (20, 0, 1, 1)
    assert package.run() == (20, 1, 0, 0)
    package.add(2)
    assert package.run() == (30, 0, 1, 1)
    assert package.run() == (30, 1, 0, 0)


def test_a_damaged_file_is_compiled_again_and_replaced(package: SmallPackage) -> None:
    assert package.run() == (20, 0, 1, 1) and package.said == ""
    whole = package.cached()
    for path in whole:
        content = path.read_bytes()
        path.write_bytes(content[:-200] + bytes([content[-200] ^ 1]) + content[-199:])
    assert package.run() == (20, 0, 1, 1)
    assert len(package.said.splitlines()) == 1 and "is damaged" in package.said
    assert any(str(path) in package.said for path in whole)
    assert package.run() == (20, 1, 0, 0) and package.said == ""


@given(st.data())
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damaged_file_is_unpickled(tmp_path: Path, data: st.DataObject) -> None:
    files = jit._Files(str(tmp_path), "function", "stamp")
    files.save("float32", "code" * 100)
    path = Path(files._path("float32"))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        files.load("float32")
    files.save("float32", "code")
    assert files.load("float32") == "code"


def test_a_full_disk_ends_no_computation(package: SmallPackage) -> None:
    source = package.sources / "jit.py"
    limit = "import resource\n\nresource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n\n\nclass _Cache("
    source.write_text(source.read_text().replace("class _Cache(", limit))
    assert package.run() == (20, 0, 1, 1)
    assert package.said.count("\n") == 1 and "cannot keep compiled code, so each process compiles it" in package.said
    assert [path for path in (package.folder / "cache").rglob("*") if path.is_file()] == []


READ_ONLY = """
import errno, os, sys

def refuse(event, arguments):
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event in ("os.mkdir", "os.rename", "os.remove")) and "/own" not in str(arguments[0]):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), arguments[0])

sys.addaudithook(refuse)
"""


@pytest.mark.parametrize("own", [{}, {"NUMBA_CACHE_DIR": ""}], ids=["NUMBA_CACHE_DIR", "beside the sources"])
def test_what_lies_where_nothing_can_be_written_is_used(package: SmallPackage, own: dict[str, str]) -> None:
    assert package.run(**own) == (20, 0, 1, 1)
    before = {path: path.read_bytes() for path in package.folder.rglob("*.nbc")}
    assert package.run(READ_ONLY, XDG_CACHE_HOME="/proc/nowhere", **own) == (20, 1, 0, 0) and package.said == ""
    if own:
        next(iter(before)).parent.chmod(0o777)  # unless others may have written there
        home = {"XDG_CACHE_HOME": str(package.folder / "own"), **own}
        assert package.run(READ_ONLY, **home) == (20, 0, 1, 1)
        assert package.run(READ_ONLY, **home) == (20, 1, 0, 0) and package.said == ""  # from a folder of the user's
    assert {path: path.read_bytes() for path in before} == before


def test_code_of_another_processor_is_not_run(package: SmallPackage) -> None:
    other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert package.run() == (20, 0, 1, 1)
    assert package.run(**other) == (20, 0, 1, 1)
    assert package.run(**other) == package.run() == (20, 1, 0, 0)  # each finds its own
    assert package.said == ""


def test_two_versions_take_turns_on_one_cache(package: SmallPackage) -> None:
    """As two containers do that see the sources at one path: neither runs the other's code."""
    for added in (1, 2, 1):
        package.add(added)
        assert package.run() == (10 * (1 + added), 0, 1, 1) and package.said == ""


def test_three_processes_fill_an_empty_cache(package: SmallPackage) -> None:
    processes = [package.start() for _ in range(3)]
    for process in processes:
        assert package.result(process)[0] == 20 and package.said == ""
    assert package.run() == (20, 1, 0, 0) and package.said == ""
    assert {path.suffix for path in (package.folder / "cache").rglob("*") if path.is_file()} == {".nbc"}


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_others_may_write_to_holds_no_code_that_is_run(package: SmallPackage) -> None:
    assert package.run() == (20, 0, 1, 1)
    folder = package.cached()[0].parent
    folder.chmod(0o777)
    assert package.run() == (20, 0, 1, 1)  # neither that nor a new one
    assert package.said.count("\n") == 1 and f"{folder} is not used" in package.said and "chmod go-w" in package.said
    folder.chmod(0o755)
    assert package.run() == (20, 1, 0, 0) and package.said == ""


def test_who_may_write_to_compiled_code(tmp_path: Path) -> None:
    def of(mode: int, user: int = os.getuid(), group: int = os.getgid()) -> os.stat_result:
        return os.stat_result((mode, 0, 0, 1, user, group, 0, 0, 0, 0))

    def unsafe(folder: os.stat_result, source: os.stat_result) -> str:
        with mock.patch.object(os, "stat", {"folder": folder, "source": source}.__getitem__):
            return jit._unsafe.__wrapped__("folder", "source")

    me, other = os.getuid(), os.getuid() + 1
    group = os.getgid() + 1
    assert "another user" in unsafe(of(0o755, other), of(0o755))
    assert "every user" in unsafe(of(0o777), of(0o755))
    assert f"group number {group}" in unsafe(of(0o775, me, group), of(0o755, me, group))
    for folder, source in [
        (of(0o700), of(0o755)),
        (of(0o775), of(0o755)),  # a user's own group: many systems' default
        (of(0o775, me, group), of(0o775, me, group)),  # who shares the sources shares the code
        (of(0o777), of(0o777)),
        (of(0o755, other), of(0o755, other)),
    ]:
        assert unsafe(folder, source) == ""
