"""Run tests in a copy of the repository, in which something is planted."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PRELOADED = ("numpy", "scipy.ndimage", "scipy.special", "scipy.fft", "numba", "h5py", "hypothesis")
"""What tests import and nothing is planted in: loaded once, since each run of tests is a fork."""


def tested(folder: Path, arguments: Sequence[str], cpu: float, wall: float, log: Path) -> str:
    """Run tests in a fork: "survived", "killed", or "timeout" after seconds of a process or of the clock."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu), resource.RLIM_INFINITY))
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
            flags = ["-q", "--tb=line", "-p", "no:cacheprovider", "-W", preloaded]
            status = int(pytest.main([*flags, *arguments]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)
    end, done, status = time.monotonic() + wall, 0, 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # and what its tests have started
    if not done:
        os.waitpid(child, 0)
    if not done or os.waitstatus_to_exitcode(status) == -signal.SIGXCPU:
        return "timeout"
    return "killed" if status else "survived"


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
