"""Every environment variable of this distribution: what it may be, what it means, and one check of all."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import NamedTuple


class Variable(NamedTuple):
    """A variable: a regular expression of its values, the same in words, its default, and its meaning."""

    pattern: str
    wanted: str
    default: str
    meaning: str


class VariableError(ValueError):
    """A variable has an invalid value."""


SWITCH = "[01]?", "0 or 1"
VARIABLES = {
    "HCNN_NUM_THREADS": Variable(
        "0*[1-9][0-9]{0,5}", "a number of threads, 1 or more", "", "threads; else OMP_NUM_THREADS, else all processors"
    ),
    "HCNN_KEEP_MIB": Variable(
        "[0-9]+", "how many MiB of freed memory to keep, 0 for none", "256", "memory kept for the next arrays"
    ),
    "HCNN_PLANNING": Variable("(estimate|measure)?", "'estimate' or 'measure'", "estimate", "how engines are chosen"),
    "HCNN_DETERMINISTIC": Variable(*SWITCH, "0", "1: estimates choose engines everywhere, so that bits repeat"),
    "HCNN_QUIET": Variable(*SWITCH, "0", "1: no line on kernels compiled, on work that lasts, on what hcnn.fit reads"),
    "HCNN_CUDA_GRAPH": Variable(*SWITCH, "1", "0: steps on a GPU are not recorded as a CUDA graph"),
    "HCNN_PARTIAL_DATA": Variable(*SWITCH, "0", "1: files of CIFAR's training set may be missing, but for one"),
    "HCNN_PATIENCE": Variable(
        r"(?=.*[1-9])([0-9]+\.?[0-9]*|\.[0-9]+)", "seconds, more than 0", "60", "how long a rank waits for another"
    ),
}


def value(name: str) -> str:
    """Return a variable's value, or its default; VariableError if it is invalid."""
    pattern, wanted, default, _ = VARIABLES[name]
    text = os.environ.get(name, default)
    if name in os.environ and not re.fullmatch(pattern, text):
        raise VariableError(f"{name} is {text!r}; set it to {wanted}")
    return text or default


def is_on(name: str) -> bool:
    """Whether a switch is on."""
    return value(name) == "1"


@lru_cache(maxsize=1)
def require_valid() -> None:
    """Raise VariableError if a variable is invalid; once, at the first use of the packages."""
    for name in VARIABLES:
        value(name)
