"""The pytest fixtures `check_translation_covariant` and `check_translation_invariant` of hcnn_core.testing.

Installing the package registers them. They import Hypothesis when a test first uses one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

__all__ = ["check_translation_covariant", "check_translation_invariant"]

NAMES = {"hcnn", __name__}
"""Names under which pytest registers this plugin: by its entry point, and by ``-p`` or ``pytest_plugins``."""


@pytest.fixture(scope="session")
def check_translation_covariant() -> Callable[..., None]:
    """Find where an operator is not covariant: (op, shape, in_axes, out_axes, stride, boundary, *, dtypes, ..).

    This is hcnn_core.testing.check_translation_covariant(op, shape, in_axes, out_axes=None, stride=1,
    boundary='periodic', *, dtypes='float64', stages=1).
    """
    return _check("check_translation_covariant")


@pytest.fixture(scope="session")
def check_translation_invariant() -> Callable[..., None]:
    """Find where an operator is not invariant: (op, shape, in_axes, stride, boundary, *, dtypes, stages, ..).

    This is hcnn_core.testing.check_translation_invariant(op, shape, in_axes, stride=1, boundary='periodic', *,
    dtypes='float64', stages=1).
    """
    return _check("check_translation_invariant")


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Block a second registration under the other name, because pytest would raise an error."""
    if plugin is sys.modules[__name__]:
        for name in NAMES - {manager.get_name(plugin)}:
            manager.set_blocked(name)


def _check(name: str) -> Callable[..., None]:
    try:
        from hcnn_core.testing import strategies
    except ImportError as error:
        pytest.fail(str(error), pytrace=False)
    return getattr(strategies, name)
