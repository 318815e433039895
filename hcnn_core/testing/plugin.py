"""pytest's fixtures `check_translation_covariant` and `check_translation_invariant`, from hcnn_core.testing.

An installation registers them. They import Hypothesis when a test first asks for one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

__all__ = ["check_translation_covariant", "check_translation_invariant"]

NAMES = {"hcnn", __name__}
"""What the plugin is registered as: the first by its entry point, the second by ``-p`` or ``pytest_plugins``."""


@pytest.fixture(scope="session")
def check_translation_covariant() -> Callable[..., None]:
    """`hcnn_core.testing.check_translation_covariant`: a search for what an operator is not covariant on."""
    return _check("check_translation_covariant")


@pytest.fixture(scope="session")
def check_translation_invariant() -> Callable[..., None]:
    """`hcnn_core.testing.check_translation_invariant`: a search for what an operator is not invariant on."""
    return _check("check_translation_invariant")


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """Make a second registration, under the other name, do nothing; pytest would raise an error."""
    if plugin is sys.modules[__name__]:
        for name in NAMES - {manager.get_name(plugin)}:
            manager.set_blocked(name)


def _check(name: str) -> Callable[..., None]:
    try:
        from hcnn_core.testing import strategies
    except ImportError as error:
        pytest.fail(str(error), pytrace=False)
    function: Callable[..., None] = getattr(strategies, name)
    return function
