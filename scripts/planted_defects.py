"""Plant defects one at a time, and see whether the tests nearest to them, or the pages of the gallery, notice.

``python scripts/planted_defects.py [PART ...]`` takes the defects of ``planted.toml`` whose file or words hold one of
the parts, ``page 08`` being words of those that a page must notice; all by default. Tests and pages run in a copy of
the repository. A test notices by failing; a page by an assertion that fails or, of a mistake in the page itself, by
what ``blind_pages.py`` sees of its test set. A page that another error ends makes a claim that it does not check. What
needs a framework that is not installed is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pages import pages

ROOT = Path(__file__).resolve().parents[1]
DEFECTS: list[dict[str, Any]] = tomllib.loads((ROOT / "scripts" / "planted.toml").read_text("utf-8"))["defect"]
ENVIRONMENT = {
    **{"MPLBACKEND": "Agg", "HCNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUPY_PYLOPS": "0"},
    **{"HYPOTHESIS_PROFILE": "ci", "HCNN_EXAMPLES": "small"},
}
SECONDS, CLOCK = 600, 3600
"""Seconds, of a processor and of the clock, after which tests are stopped."""

PRELOADED = ("numpy", "scipy.ndimage", "scipy.special", "scipy.fft", "numba", "h5py", "hypothesis", "matplotlib.pyplot")
"""Modules that tests import and nothing is planted in: loaded once, since each run of tests is a fork."""


def copy_tree(folder: Path) -> None:
    """Copy the repository, with compiled kernels, which are those of the copy as long as its files have their times."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = list(filter(None, files.split("\0")))
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for parent in {Path(name).parent / "__pycache__" for name in names if name.startswith("hcnn_core")}:
        if (ROOT / parent).is_dir():
            shutil.copytree(ROOT / parent, folder / parent)


def status_of(folder: Path, arguments: list[str], log: Path) -> int | None:
    """Exit status of pytest in a fork; None if it was stopped."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(SECONDS), resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        status = 1
        try:
            preloaded = "ignore::pytest.PytestAssertRewriteWarning"
            status = int(pytest.main(["-q", "--tb=line", "-p", "no:cacheprovider", "-W", preloaded, *arguments]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)
    end, done, status = time.monotonic() + CLOCK, 0, 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what its tests have started
    if not done:
        os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if not done or code == -signal.SIGXCPU else code


def by_tests(folder: Path, tests: dict[str, str]) -> tuple[bool, str]:
    """Whether a test failed in a copy, and which; else how many passed."""
    passed, log = 0, folder.parent / "log"
    for file, words in tests.items():
        status = status_of(folder, ["-x", "-rfE", "-k", words, file], log)
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        failed = [line.split()[1] for line in lines if line.startswith(("FAILED", "ERROR "))]
        if failed:
            return True, failed[0].rpartition("/")[2]
        if status:
            raise SystemExit(f"{file}, {words}: status {status}, {lines[-1:]}")
        passed += int(re.findall(r"(\d+) passed", lines[-1])[0])
    return False, f"{passed} tests passed"


def failure_of(folder: Path, *command: str) -> str:
    """The error that ends a program in a copy, in a line, and nothing if it ends well."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    said = done.stderr.strip().splitlines()
    errors = [line for line in said if re.match(r"[\w.]*(Error|Exception)\b", line)]  # more lines may follow
    return [f"status {done.returncode}", *said[-1:], *errors][-1] if done.returncode else ""


def by_page(folder: Path, page: str, file: str) -> tuple[bool, str]:
    """Whether an assertion of a page failed in a copy, or its test set was seen, and what the page said."""
    failure = failure_of(folder, page)
    if failure or not file.startswith("examples/"):
        return failure.startswith("AssertionError"), failure[:100]
    failure = failure_of(folder, "scripts/blind_pages.py", page.split("_")[2])
    return "LOOKS AT ITS TEST SET" in failure, failure[:100]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="of a defect's file or words; all by default")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th of these, from the i-th on")
    options = parser.parse_args()
    begin, step = map(int, options.part.split("/"))
    named = [(f"{d['file']} {d['what']}" + (f" page {d['page']}" if "page" in d else ""), d) for d in DEFECTS]
    wanted = [d for text, d in named if any(part in text for part in options.parts or [""])][begin::step]
    noticed = missed = 0
    os.environ |= ENVIRONMENT
    sys.dont_write_bytecode = True
    for name in PRELOADED:
        __import__(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / "tree"
        copy_tree(folder)
        pages(folder / "examples")
        os.environ["HCNN_EXAMPLES"] = "as they are"
        unplanted = cache(lambda page: failure_of(folder, page))
        for defect in wanted:
            line, page = f"{defect['file']}: {defect['what']}", ""
            if "page" in defect:
                (page,) = (str(path.relative_to(ROOT)) for path in ROOT.glob(f"examples/*/plot_{defect['page']}_*.py"))
                line, absent = f"page {defect['page']}: {line}", unplanted(page)
                if absent and not absent.startswith("ModuleNotFoundError"):
                    raise SystemExit(f"{page} fails without a defect: {absent}")
            else:
                framework = next((name for name in ("torch", "jax") if f"hcnn_core/{name}" in defect["file"]), "os")
                absent = "" if find_spec(framework) else f"{framework} is not installed"
            if absent:
                print(f"{line}: left out, {absent}", flush=True)
                continue
            path = folder / defect["file"]
            text = path.read_text("utf-8")
            assert text.count(defect["old"]) == 1, f"{defect['file']} does not have once: {defect['old']}"
            path.write_text(text.replace(defect["old"], defect["new"]), "utf-8")
            is_noticed, said = by_page(folder, page, defect["file"]) if page else by_tests(folder, defect["tests"])
            path.write_text(text, "utf-8")
            noticed, missed = noticed + is_noticed, missed + (not is_noticed)
            print(f"{line}: {'noticed by' if is_noticed else 'NOT NOTICED,'} {said}", flush=True)
    print(f"{noticed} of {noticed + missed} planted defects noticed")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
