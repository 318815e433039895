"""The description of a machine in records, and the time and memory that some work takes there."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hcnn_core._threads import processors, worker_count
from train.runs.run import versions

ENVIRONMENT = (
    *("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE"),
    "HCNN_KEEP_MIB",
)


def describe_machine(torch: ModuleType | None = None) -> dict[str, Any]:
    """Processor, threads, versions, and what else the times depend on."""
    return {
        "processor": processor(),
        "processors": processors(),
        "load": os.getloadavg(),
        "threads": worker_count(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "versions": versions("numpy"),
        "blas": blas(),
        **(torch.describe() if torch else {}),
    }


def processor() -> str:
    """The processor's name; on Linux with its family and model, since virtual machines call different ones the same."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
    if "model name" not in said:
        return platform.processor()
    return ", ".join([said["model name"], *(f"{key} {said[key]}" for key in ("cpu family", "model") if key in said)])


def blas() -> str:
    """NumPy's BLAS and, where it can be asked, the kernels it chose for this processor."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{built['name']} {built['version']}; threadpoolctl would tell its kernels"
    for pool in threadpool_info():
        if pool["user_api"] == "blas" and "numpy" in pool["filepath"]:
            return f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}"
    return "unknown"


def seconds(run: Callable[[], Any], repetitions: int = 1) -> float:
    """Time of a call, the mean of some in a row."""
    began = time.perf_counter()
    for _ in range(repetitions):
        run()
    return (time.perf_counter() - began) / repetitions


def added_by(work: Callable[[], Any]) -> float:
    """MiB that some work adds at its peak to this process, which has done the same once."""
    work()  # compiles, and loads what is compiled
    gc.collect()
    # freed memory that is kept, or the work would fit in it and seem to need nothing
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # from now on the peak is counted anew
    except OSError as error:
        raise SystemExit(f"memory is measured on Linux, where a process may reset its peak: {error}") from None
    before = most_held()
    work()
    return most_held() - before


def most_held() -> float:
    """MiB, the peak of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
