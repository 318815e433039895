"""What a setting is: a field with its meaning, its default and the values it may take."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

__all__ = ["ConfigError", "setting"]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that says what would do."""


def setting(
    default: Any, help: str, *, choices: Collection[str] = (), low: float | None = None, high: float | None = None
) -> Any:
    """A field with its description and the values it may take, `low` and `high` included."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})
