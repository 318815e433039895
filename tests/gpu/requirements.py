"""What the checks of the CUDA path need without a GPU: skipped where it is missing, but not in CI."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

import pytest


def required(module: str) -> Any:
    """Import a module, or skip; where HCNN_CUDA_CHECKS is set, fail."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what CuPy has to say of a missing toolkit is no failure
            return importlib.import_module(module)
    except ImportError as error:
        missing(f"{module}: {error}")


def missing(what: str) -> None:
    """Skip for the lack of something, or fail where all checks are to run."""
    reason = f"checks of the CUDA kernels need the extra cuda-checks and g++ ({what})"
    if os.environ.get("HCNN_CUDA_CHECKS"):
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)
