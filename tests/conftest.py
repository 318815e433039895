"""What every test shares: the Hypothesis profiles, and the mark of tests that need a GPU."""

from __future__ import annotations

import os
import warnings

import pytest
from hypothesis import HealthCheck, settings

from hcnn_core.backend import get_namespace

os.environ.setdefault("MPLBACKEND", "Agg")

# No test is timed: a first call compiles, and machines are shared.
settings.register_profile("dev", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile("intense", settings.get_profile("dev"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if lot := os.environ.get("HCNN_LOT"):  # "1/6": every sixth of the cases that are drawn, from the second on
        first, lots = map(int, lot.split("/"))
        drawn = [item for item in items if item.get_closest_marker("lot")]
        left = set(drawn).difference(drawn[first::lots])
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]
    # Of two processes that share the tests, one begins where most kernels are compiled, and the other finds them.
    items.sort(key=lambda item: item.path.parent.name in ("autodiff", "core"))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # what CuPy has to say of a missing toolkit is no failure
            get_namespace("cupy")
    except RuntimeError as error:
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason=str(error)))
