"""What a setting is: a field with its meaning, its default and the values it may take; and a section of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform

AUTO = "auto"
"""The value of a setting that follows from the data."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that says what would do."""


def setting(
    default: Any, help: str, *, choices: Collection[str] = (), low: float | None = None, high: float | None = None
) -> Any:
    """A field with its description and the values it may take, `low` and `high` included."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})


def choices(f: dataclasses.Field[Any]) -> list[str]:
    """Return the names that a setting takes, its default first; none where it takes any value."""
    return list(dict.fromkeys([str(f.default), *names])) if (names := f.metadata["choices"]) else []


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Section:
    """Settings that belong together: a network's or a recipe's part names the sections that it takes.

    A configuration is an instance of each of its sections. A setting of a part that is not chosen is refused.
    """

    needs: ClassVar[str] = ""
    """A setting without which these settings would do nothing; "" for sections that parts name."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)
