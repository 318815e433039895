"""The memory that a step needs, and the memory that is available."""

from __future__ import annotations

import bisect
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from hcnn_core.backend import worker_count
from train.config import Config
from train.data import DatasetInfo
from train.networks.network import Network
from train.networks.registry import build

PER_WEIGHT = 8
"""Copies of the trained numbers: weights, gradient and velocity, old and new; and the first draw."""

LIBRARIES = 192 * 2**20
"""Code that is compiled or loaded when training begins."""

RESERVED, RESERVED_PER_THREAD = 256 * 2**20, 136 * 2**20
"""Addresses that libraries and threads (stack and glibc's arena) reserve and never touch."""


def required_bytes(config: Config, data: DatasetInfo, batch_size: int, teacher: Network | None = None) -> int:
    """Estimate the peak of training's memory, beyond that of a process which has read its configuration."""
    table = build(config, data.image_shape[:-1], data.classes, data.image_shape[-1]).table
    elements = float(PER_WEIGHT * sum(la.trainable for la in table))
    elements += sum(la.retained(batch_size) for la in table) + max(la.workspace(batch_size) for la in table)
    if teacher is not None:  # two copies of its weights, and one layer at a time
        images = (math.prod(la.inputs) + math.prod(la.outputs) for la in teacher.table)
        elements += 2 * teacher.trainable + batch_size * max(images)
        elements += max(la.workspace(batch_size) for la in teacher.table)
        if config.attention_transfer:  # squares and cotangents of an output whose map is compared
            elements += 3 * batch_size * max(math.prod(la.outputs) for la in table)
    return LIBRARIES + data.nbytes + int(np.dtype(config.dtype).itemsize * elements)


def require_weights(config: Config, image_size: int | tuple[int, ...], classes: int, channels: int = 3) -> None:
    """Raise MemoryError if the weights alone of a network do not fit on the host, before one of them is made."""
    weights = build(config, image_size, classes, channels).trainable
    needed = PER_WEIGHT * weights * int(np.dtype(config.dtype).itemsize)
    available = available_bytes(np)
    if available is not None and needed > available:
        raise MemoryError(
            f"its {weights:,} weights need {needed / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free"
        )


def available_bytes(xp: Any) -> int | None:
    """Available memory: of the GPU, or of the host within its limits; None where it is unknown."""
    if xp is not np:
        free, _ = xp.cuda.runtime.memGetInfo()
        return int(free) + int(xp.get_default_memory_pool().free_bytes())
    limits = [_meminfo(), _control_group(), _address_space()]
    return min((n for n in limits if n is not None), default=None)


def batch_that_fits(config: Config, data: DatasetInfo, available: int, teacher: Network | None = None) -> int:
    """Return the largest batch whose estimated memory is available; 0 if none is."""
    sizes = range(1, 2**20)
    return bisect.bisect_right(sizes, available, key=lambda n: required_bytes(config, data, n, teacher))


def _meminfo() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _control_group(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the memory that a container may still use; cached files give way."""
    try:
        limit, used = ((root / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit == "max":
            return None
        stat = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - int(used) + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0)))
    except (OSError, ValueError):
        return None


def _address_space() -> int | None:
    """Return the memory that `ulimit -v` leaves."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None
    reserved = RESERVED + RESERVED_PER_THREAD * worker_count()
    return None if limit == resource.RLIM_INFINITY else max(0, limit - used - reserved)
