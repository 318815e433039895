"""Settings of a process before NumPy is loaded: threads, kernels of the BLAS, how the allocator keeps arrays."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS calls SkylakeX
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
KEEP = 2**31 - 1
LAUNCHERS = ("OMPI_COMM_WORLD_", "PMI_", "PMIX_", "MV2_COMM_WORLD_")
"""Prefixes of variables that launchers of MPI set; train.ranks then shares the processors among its ranks."""


def begin(module: str, name: str) -> None:
    """Prepare the process of a command's module, before it imports NumPy; `name` is its `__name__`."""
    if name == "__main__":
        leave_on_interrupt(module)
    prepare()


def prepare() -> None:
    """Give each thread its own matrix products and keep freed memory; variables that the user has set stay.

    Many small products run best on one BLAS thread each, several side by side (hcnn_core/_threads.py). OpenBLAS may
    not know a processor with AVX-512 (github.com/OpenMathLib/OpenBLAS/pull/6033) and then takes slower kernels.
    Arrays of 100 MB are made and freed many times a step: by default glibc returns each to the system, which then
    clears every page again. Where it keeps all of them, hcnn_core/_engines/cpu/allocator.py need keep none.
    """
    if "numpy" not in sys.modules:
        if not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & set(os.environ):
            if not any(name.startswith(LAUNCHERS) for name in os.environ):
                os.environ.setdefault("HCNN_NUM_THREADS", str(_processors()))
            os.environ["OPENBLAS_NUM_THREADS"] = "1"
        if _processor_flags() >= AVX512:
            os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (OSError, AttributeError):  # another C library
            return
        if mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEEP):
            os.environ.setdefault("HCNN_KEEP_MIB", "0")


def leave_on_interrupt(module: str) -> None:
    """Let Ctrl-C end the process with one line while modules are imported, where an exception could break them."""

    def leave(signum: int, frame: Any) -> None:
        os.write(2, f"{module}: interrupted before anything was to save\n".encode())
        os._exit(128 + signum)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, once modules are imported; where it is ignored (`nohup`), it stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor_flags(cpuinfo: str = "/proc/cpuinfo") -> set[str]:
    """Return the features of the first processor on Linux; nothing elsewhere."""
    try:
        with open(cpuinfo, encoding="ascii", errors="replace") as lines:
            return next((set(line.split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()
