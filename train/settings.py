"""Settings: fields with a meaning, a default and the values they may take; and sections of them."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform

AUTO = "auto"
"""Value of a setting that then follows from the data."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that says what would do."""


OFTEN = {"lr": "learning_rate", "--lr": "--learning-rate", "n_epochs": "epochs", "max_iter": "epochs"}
"""Names of settings in other programs."""


def meant(name: object, known: Collection[str]) -> str:
    """Return the known name that is most like another, as a question in brackets; "" if none is."""
    often = OFTEN.get(str(name))
    near = [often] if often in known else difflib.get_close_matches(str(name), known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def setting(
    default: Any, help: str, *, choices: Collection[str] = (), low: float | None = None, high: float | None = None
) -> Any:
    """Return a field with its description and the values it may take, `low` and `high` included."""
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

    @classmethod
    def added(cls) -> list[dataclasses.Field[Any]]:
        """Return the settings that the section adds to those of its bases."""
        return [f for f in dataclasses.fields(cls) if f.name in vars(cls)]


class RunSettings(Section):
    """Settings that every part may read: the length of training, the sizes of images, and the precision."""

    epochs: int = setting(240, "passes over the training images", low=1, high=9999)
    batch_size: int = setting(50, "images a step", low=1)
    learning_rate: float = setting(0.25, "highest learning rate", low=0.0)
    image_sizes: tuple[int, ...] = setting(
        (),
        "pixels along the shorter side of training images, in equal parts of the epochs; none: their own size",
        low=8,
    )
    image_shares: tuple[float, ...] = setting(
        (),
        "the same as parts of the shorter side of the images themselves, of which none is below 8 pixels; either these "
        "or image_sizes",
        low=0.01,
        high=1.0,
    )
    seed: int = setting(0, "of initial weights, order and augmentation", low=0)
    dtype: str = setting("float32", "of weights and activations", choices=("float32", "float64"))


class MomentSettings(RunSettings):
    """Settings of networks that keep running moments of batches."""

    moment_decay: float = setting(0.9, "part of the running moments kept at each step", low=0.0, high=1.0)
    moment_images: int = setting(
        1000,
        "training images whose moments (means over batches, with the weights that are evaluated) replace the running "
        "ones after each epoch (arXiv:2105.07576); 0: none",
        low=0,
    )
