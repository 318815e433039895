"""What a command line sets before NumPy is loaded: threads, and how the allocator keeps large arrays."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
KEEP = 2**31 - 1


def prepare() -> None:
    """Give each thread its own matrix products and keep freed memory; what the user has set stays.

    Many small products run best on one BLAS thread each, several side by side (hcnn_core/_parallel.py). Arrays of
    100 MB are made and freed many times a step: by default glibc returns each to the system, which then clears
    every page again.
    """
    if "numpy" not in sys.modules and not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & set(os.environ):
        os.environ.setdefault("HCNN_NUM_THREADS", str(_processors()))
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (OSError, AttributeError):  # another C library
            return
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, KEEP)


def leave_on_interrupt(module: str) -> None:
    """Let Ctrl-C end the process with one line while modules are imported, whatever an exception would break there."""

    def leave(signum: int, frame: Any) -> None:
        os.write(2, f"{module}: interrupted before anything was to save\n".encode())
        os._exit(1)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
