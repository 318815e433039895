"""What the command lines set before NumPy is loaded."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from numpy._core._multiarray_umath import __cpu_features__

from tests.train.commands import needs_proc
from train.commands import process as _process

NAMES = ("HCNN_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "HCNN_KEEP_MIB")
KEPT = "0" if platform.libc_ver()[0] == "glibc" else None  # glibc is told to keep all
PREPARED = """
import sys
from train.commands import process as _process
if sys.argv[1] != "as it is":
    _process._processor_flags = lambda: {*sys.argv[1].split()}
if sys.argv[2:]:
    import numpy
_process.prepare()
import os
print([os.environ.get(name) for name in {names}])
"""


def prepared(flags: str, *loaded: str, **environment: str) -> str:
    """What a fresh interpreter has in its environment after `prepare`; `loaded` if NumPy was there before."""
    rest = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", PREPARED.replace("{names}", repr(NAMES)), flags, *loaded]
    done = subprocess.run(command, env=rest | environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("flags", "coretype"),
    [
        ("avx2 avx512f avx512cd avx512bw avx512dq avx512vl", "'SkylakeX'"),
        ("avx2 avx512f avx512cd", "None"),  # a processor with few of these instructions
        ("", "None"),  # one that Linux does not describe
    ],
)
def test_threads_and_kernels_of_the_blas(flags: str, coretype: str) -> None:
    count = _process._processors()
    assert prepared(flags) == f"['{count}', '1', None, {coretype}, {KEPT!r}]"
    found = prepared(flags, OPENBLAS_CORETYPE="Haswell", OMP_NUM_THREADS="3", HCNN_KEEP_MIB="9")
    assert found == "[None, None, '3', 'Haswell', '9']"
    assert prepared(flags, "numpy") == f"[None, None, None, None, {KEPT!r}]"


RESIDENT = """
import sys
from train.commands import process as _process
if sys.argv[1] == "prepared":
    _process.prepare()
import os
import numpy as np

def pages():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1])

before = pages()
array = np.ones(2**23)  # 64 MiB
held = pages() - before
del array
print((pages() - before) / held)
"""


@needs_proc
@pytest.mark.skipif(KEPT is None, reason="needs glibc")
def test_freed_arrays_stay_with_the_process() -> None:
    parts = {}
    for kind in ("prepared", "as Python does"):
        command = [sys.executable, "-c", RESIDENT, kind]
        parts[kind] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert parts["prepared"] > 0.9 and parts["as Python does"] < 0.1


def test_flags_of_the_processor(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert _process._processor_flags(str(path)) >= {"avx2", "avx512f"}
    path.write_bytes(b"model name\t: \xae\xff\nflags\t: avx512f\n")
    assert "avx512f" in _process._processor_flags(str(path))
    path.write_text("CPU part\t: 0xd40\nFeatures\t: asimd\n")
    assert not _process._processor_flags(str(path))
    assert not _process._processor_flags(str(tmp_path / "absent"))


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs /proc")
def test_flags_of_this_processor_are_those_numpy_finds() -> None:
    found = all(__cpu_features__.get(flag.upper()) for flag in _process.AVX512)
    assert ("'SkylakeX'" in prepared("as it is")) == found
