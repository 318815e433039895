"""One configuration: every hyperparameter with its unit, the presets, TOML files, and what values are allowed."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import sys
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from hcnn_core.precisions import PRECISIONS
from train.data.augmentation import STANDARDS
from train.data.cifar import INFO
from train.data.dataset import LARGEST_IMAGE
from train.data.folder import is_folder, named_folder, sized
from train.data.readers import FILE
from train.data.reading import Reading, is_custom, what_would_do
from train.networks.architecture import ARCHITECTURES, ArchitectureSettings
from train.networks.baselines import DropoutSettings
from train.networks.hierarchical import HierarchicalSettings
from train.networks.presets import MADE_FOR
from train.networks.registry import PRESETS
from train.recipes.augmentations import (
    AUGMENTATIONS,
    AffineSettings,
    AlternationSettings,
    ColourSettings,
    CutoutSettings,
    MixupSettings,
    NoiseSettings,
    ResampleSettings,
)
from train.recipes.averages import AverageSettings
from train.recipes.losses import LOSSES, EntropySettings, TeacherSettings
from train.recipes.optimizers import OPTIMIZERS, NesterovSettings, OptimizerSettings, SquareSettings
from train.recipes.schedules import SCHEDULES, ScheduleSettings, StepSettings, WarmupSettings
from train.recipes.tasks import TASKS, PupilSettings, TaskSettings, takes
from train.settings import AUTO, ConfigError, RunSettings, Section, choices, meant, setting
from train.storage.files import open_regular, read_text

__all__ = ["PRESETS", "Config", "ConfigError", "make_config", "meant", "read_toml", "to_toml"]


class DataSettings(RunSettings):
    """The data set, its size and its parts."""

    preset: str = setting("hcnn", "what the other settings start from", choices=PRESETS.keys())
    dataset: str = setting(
        "cifar10",
        f"images to train on: {', '.join(INFO)}, a file {FILE}, a folder DIR, or MODULE:FUNCTION",
    )
    size: int = setting(
        0,
        "pixels a side of the pictures of a folder, also DIR/:64; 0 for their own, or 32 where they differ",
        low=0,
        high=LARGEST_IMAGE,
    )
    data_dir: str = setting("data", "folder that holds, or will hold, the data set")
    train_size: int = setting(0, "training images used, the first ones; 0 for all", low=0)
    validation_size: int = setting(
        -1,
        "training images held out, to choose recipes on; -1 for a tenth of data of your own, none of CIFAR's",
        low=-1,
    )
    standardize: str = setting(
        "channel",
        "how images are standardised: each channel over the training part, or over each sample by itself",
        choices=STANDARDS,
    )


class RecipeSettings(RunSettings):
    """Weights that a run begins with, and when it evaluates."""

    init_from: str = setting(
        "", "checkpoint, run or name of a network to begin with; weights that tell other classes apart are drawn"
    )
    validation_every: int = setting(1, "epochs between evaluations on held-out images; the last is evaluated", low=1)
    test: bool = setting(True, "read the test set, once, after the last epoch")


class BackendSettings(RunSettings):
    """Array library and precision."""

    backend: str = setting("auto", "array library", choices=("auto", "numpy", "cupy"))
    precision: str = setting(
        "float32", "of products on a GPU: TensorFloat-32 is faster and less exact", choices=PRECISIONS
    )


MAX_INT = 2**53
"""The largest whole number of a setting but the seed: float64 holds each up to it."""

REACH = {int: (MAX_INT, f"between {-MAX_INT} and {MAX_INT}"), float: (sys.float_info.max, "finite")}
"""For each type, the largest absolute value of a number, and how a message names the range."""

CHOICES: dict[str, Mapping[str, Any]] = {
    "architecture": ARCHITECTURES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "task": TASKS,
    "loss": LOSSES,
}
"""The tables of parts that a setting chooses from by name."""

RECIPE = CHOICES.keys() - {"architecture"}

IN_STEPS = "epochs", "batch_size"
"""Settings that follow from the number of one's own samples, where neither is given."""


class Config(
    BackendSettings,
    MixupSettings,
    NoiseSettings,
    CutoutSettings,
    ColourSettings,
    ResampleSettings,
    AffineSettings,
    AlternationSettings,
    TeacherSettings,
    PupilSettings,
    EntropySettings,
    TaskSettings,
    AverageSettings,
    SquareSettings,
    NesterovSettings,
    OptimizerSettings,
    WarmupSettings,
    StepSettings,
    ScheduleSettings,
    RecipeSettings,
    DropoutSettings,
    HierarchicalSettings,
    ArchitectureSettings,
    DataSettings,
):
    """Everything that determines a run, apart from the data themselves.

    Equations and sections are those of arXiv:1703.04140. Every field's description is also its flag's.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check(f, getattr(self, f.name))
        if self.dataset not in INFO:
            object.__setattr__(self, "dataset", named_folder(self.dataset))
        dataset, size = sized(self.dataset) if is_folder(self.dataset) else (self.dataset, (0,))
        object.__setattr__(self, "dataset", dataset)
        object.__setattr__(self, "size", size[0] if size else self.size)
        if self.dataset not in INFO and not is_custom(self.dataset):
            raise ConfigError(f"dataset is {self.dataset!r}{meant(self.dataset, INFO)}; {what_would_do(self.dataset)}")
        if self.precision != "float32" != self.dtype:
            raise ConfigError(f"precision is {self.precision!r}, which is for dtype 'float32'; dtype is {self.dtype!r}")
        for name, reason in unused(vars(self)).items():
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise ConfigError(f"{name} is {value!r}, which {reason}")
        if AUTO not in (self.task, self.loss) and self.task not in LOSSES[self.loss].tasks:
            raise ConfigError(
                f"loss is {self.loss!r}, which is for {' or '.join(LOSSES[self.loss].tasks)}; the task is "
                f"{self.task}: leave it out"
            )
        OPTIMIZERS[self.optimizer].check(self)
        ARCHITECTURES[self.architecture].check(self)
        if self.image_sizes and self.image_shares:
            raise ConfigError(
                f"image_sizes is {self.image_sizes} and image_shares {self.image_shares}; give one of the two"
            )
        if self.moment_decay == 1:
            raise ConfigError("moment_decay is 1; running moments must learn from the data, so less than 1")

    @property
    def reading(self) -> Reading:
        """How these settings say to read data: the preset's axes, the task, and the size of pictures."""
        return Reading(MADE_FOR.get(self.preset, 0), takes(self), (self.size,) * 2 if self.size else ())

    def held_out(self, images: int) -> int:
        """Return the number of training images that are held out.

        Parameters
        ----------
        images : int
            Number of training images.

        Returns
        -------
        int
            `validation_size`, or if that is -1, a tenth of one's own images and none of a named data set's.
        """
        if self.validation_size >= 0:
            return self.validation_size
        return images // 10 if is_own(self.dataset) else 0


def with_dataset(config: Config, dataset: str) -> Config:
    """Return the settings for another data set; of one's own a tenth is held out in place of a preset's number."""
    of_preset = config.validation_size == PRESETS[config.preset].get("validation_size")
    count = -1 if of_preset and is_own(dataset) and not is_own(config.dataset) else config.validation_size
    return dataclasses.replace(config, dataset=dataset, validation_size=count)


def with_steps(config: Config, count: int, least: int = 8) -> Config:
    """Return the settings for few samples: 10 steps an epoch and 1,000 in all, or the preset's if these are more.

    Batches of `count` samples have at least `least`, or all. None has a single sample, whose moments say nothing.
    """
    steps = max(10, math.ceil(count / config.batch_size))
    size = max(least, math.ceil(count / steps))
    while size < count and count % size == 1:
        size += 1
    return dataclasses.replace(config, batch_size=size, epochs=max(config.epochs, math.ceil(1000 / steps)))


def resolved(config: Config, lengths: tuple[int, ...], kind: str, name: str) -> Config:
    """Return the settings for a data set with labels of this kind: `task` and `loss` are no longer "auto".

    `shift` and `cutout` are scaled from pixels of images of side `made_for`, which becomes 0, to pixels of these
    images. At least one pixel is kept. With one or three axes of space nothing is scaled.
    """
    task = kind if config.task == AUTO else config.task
    if TASKS[task].takes != kind:
        raise ConfigError(f"task is {task!r}, which learns {TASKS[task].takes}; {name} has {kind}: leave it out")
    short, made_for = min(lengths), config.made_for
    scaled = {
        setting: max((2 * pixels * short + made_for) // (2 * made_for), 1)  # rounded
        for setting in in_pixels()
        if made_for and len(lengths) == 2 and (pixels := getattr(config, setting))
    }
    return dataclasses.replace(config, made_for=0, task=task, loss=TASKS[task].loss_of(config), **scaled)


def in_pixels() -> list[str]:
    """Return the settings in pixels, which are scaled with the size of the images."""
    return [name for part in AUGMENTATIONS.values() for name in part.pixels]


def sections() -> list[type[Section]]:
    """Return every section of settings, with sections of parts that were registered while the program runs."""
    known = [cls for cls in Config.__mro__ if issubclass(cls, Section) and cls not in (Config, Section)]
    known += [section for parts in CHOICES.values() for part in parts.values() for section in part.sections]
    known += [section for part in AUGMENTATIONS.values() for section in part.sections]
    return list(dict.fromkeys(reversed(known)))


_extended: dict[tuple[type[Section], ...], type[Config]] = {(): Config}


def _restored(values: dict[str, Any]) -> Config:
    """Return a pickled configuration, whose class no module has: it was made while the program ran."""
    return config_class()(**values)


def config_class() -> type[Config]:
    """Return the class of configurations: `Config`, with the sections of parts that were registered since."""
    more = tuple(section for section in sections() if not issubclass(Config, section))
    if more not in _extended:
        _extended[more] = type("Config", (*more, Config), {"__reduce__": lambda self: (_restored, (vars(self),))})
    return _extended[more]


def unused(settings: Mapping[str, Any], kinds: Collection[str] = CHOICES.keys()) -> dict[str, str]:
    """Return the settings that do nothing, since their part is not chosen, each with a reason.

    `settings` are those of a configuration, or values for one; `kinds` are the choices to look at.
    """
    reasons: dict[str, str] = {}
    for part in AUGMENTATIONS.values():
        if part.switches and not any(map(settings.get, part.switches)):
            others = {f.name for section in part.sections for f in section.added()} - {*part.switches}
            reasons |= dict.fromkeys(others, f"needs --{' or --'.join(part.switches)}")
    chosen = {kind: {settings[kind]} for kind in kinds}
    if chosen.get("loss") == {AUTO}:
        chosen["loss"] = {task.loss for name, task in TASKS.items() if settings["task"] in (AUTO, name)}
    for section in sections():
        names = [f.name for f in section.added()]
        if section.needs and not settings[section.needs]:
            needed = section.needs
            reason = f"needs a {needed}: name one with --{needed}" if needed == "teacher" else f"needs --{needed}"
            reasons |= dict.fromkeys(names, reason)
        for kind, possible in chosen.items():
            parts, one = CHOICES[kind], next(iter(possible), "")
            takers = [name for name, part in parts.items() if section in part.sections]
            if takers and one in parts and possible.isdisjoint(takers):  # other names are refused elsewhere
                alone = getattr(parts[one], "title", f"{kind} {one!r}")
                has_no = alone if len(possible) == 1 else "the task's own loss"
                reason = f"is for {kind} {' or '.join(map(repr, takers))}; {has_no} has no such setting: leave it out"
                reasons |= dict.fromkeys(names, reason)
    return reasons


def _parameters_section() -> str:
    """Return the fields of Config as numpydoc wants them."""
    lines = ["Parameters", "----------"]
    for f in dataclasses.fields(Config):
        text = f.metadata["help"]
        lines += [f"{f.name} : {f.type}, optional", f"    {text[0].upper()}{text[1:]}."]
    return "\n    ".join(lines)


Config.__doc__ = f"{Config.__doc__}\n    {_parameters_section()}\n    "


def make_config(preset: str = "hcnn", changes: Mapping[str, Any] | None = None) -> Config:
    """Return a preset with some settings changed.

    Parameters
    ----------
    preset : str
        A key of `PRESETS`.
    changes : mapping of str to value, optional
        Settings that differ.

    Returns
    -------
    Config
        The settings, checked.

    Raises
    ------
    ConfigError
        If the preset or a setting is unknown, or a value is of the wrong type or out of range.
    """
    changes = {name: v.item() if isinstance(v, np.generic) else v for name, v in (changes or {}).items()}
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}{meant(preset, PRESETS)}; choose {', '.join(PRESETS)}")
    if (other := changes.get("preset", preset)) != preset:
        raise ConfigError(f"preset is {other!r} among the settings that change {preset!r}; name one of the two")
    cls = config_class()
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    for name in changes:
        if name not in defaults:
            raise ConfigError(f"no setting is called {name!r}{meant(name, defaults)}")
    settings = _beside(preset, changes) | changes
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    idle = unused(defaults | values, RECIPE).keys() - changes.keys()  # of the preset's own recipe
    config = cls(**{name: value for name, value in values.items() if name not in idle})
    if changes.get("size") and not is_folder(config.dataset):
        raise ConfigError(f"size is {changes['size']}, which is for the pictures of a folder; leave it out")
    return config


def _beside(preset: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a preset and a data set give beside some changes."""
    settings: dict[str, Any] = {**PRESETS[preset], "preset": preset}
    if "image_sizes" in changes:
        settings["image_shares"] = ()
    if not changes.keys().isdisjoint(in_pixels()):
        settings["made_for"] = 0  # these are pixels of the images that there are
    chosen = {"dataset": Config.dataset, "architecture": Config.architecture} | settings | dict(changes)
    if is_own(str(chosen["dataset"])):
        settings.pop("validation_size", None)  # a number for the preset's own images
    if architecture := ARCHITECTURES.get(str(chosen["architecture"])):
        settings = {**architecture.of_dataset.get(str(chosen["dataset"]), {}), **settings}
    return settings


def read_toml(path: Path, *, regular: bool = False) -> dict[str, Any]:
    """Return the settings in a TOML file; the file of a run, which has a table [versions], gives all settings.

    With `regular`, as for files of the program, it may be no link, pipe or device.
    """
    text = toml_text(path, regular=regular)
    try:
        settings = parse_toml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if settings.pop("versions", None) is not None:  # of a run
        settings = with_defaults(settings)
    return settings


def toml_text(path: Path, *, regular: bool = False) -> str:
    """Return the text of a TOML file; with `regular` it may be no link, pipe or device."""
    try:
        return read_text(path, opener=open_regular if regular else None)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Read a TOML text; ConfigError, with a hint at quotes where a path of Windows is the likely cause."""
    hint = r"; in double quotes a backslash begins an escape: write a path in single quotes, as 'C:\tmp'"
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        escape = "scape" in str(error) or "hex value" in str(error)
        raise ConfigError(f"it is not valid TOML: {error}{hint * escape}") from error
    tables = [content, *(table for table in content.values() if isinstance(table, dict))]
    for name, value in (item for table in tables for item in table.items()):
        if isinstance(value, str) and not value.isprintable() and "\\" in text and not os.path.exists(value):
            raise ConfigError(f"{name} is {value!r}, with a control character{hint}")
    return content


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings, with defaults for settings that are newer than the run.

    Settings that earlier versions recorded without their part being chosen get defaults too. A run that does not name
    `made_for` counts in pixels of its own images. `planning`, which said how engines are chosen, is no longer a
    setting.
    """
    defaults = {f.name: f.default for f in dataclasses.fields(config_class()) if f.name != "preset"}
    complete = defaults | {"made_for": 0} | {name: value for name, value in settings.items() if name != "planning"}
    return complete | {name: defaults[name] for name in unused(complete, RECIPE)}


def to_toml(config: Config, versions: Mapping[str, str]) -> str:
    """Return a TOML text with every setting, its meaning beside it, and the versions in a table."""
    values = ((f, _toml_value(getattr(config, f.name))) for f in dataclasses.fields(config))
    lines = [f"{f.name} = {value}  # {f.metadata['help']}" for f, value in values]
    lines += ["\n[versions]", *(f"{name} = {_toml_value(version)}" for name, version in versions.items())]
    return "\n".join(lines) + "\n"


_type_hints = functools.cache(get_type_hints)


def field_type(f: dataclasses.Field[Any]) -> tuple[type, int | None]:
    """Type of a setting's value, or of its elements, and how many there are: None for one, 0 for any number."""
    hint = _type_hints(config_class())[f.name]  # type: ignore[arg-type]
    if arguments := get_args(hint):
        return arguments[0], 0 if Ellipsis in arguments else len(arguments)
    return hint, None


def _check(f: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError unless the value is one the setting may take."""
    kind, count = field_type(f)
    if count is not None and not (isinstance(value, tuple) and len(value) == (count or len(value))):
        raise ConfigError(f"{f.name} is {value!r}; give {count or 'any number of'} values of type {kind.__name__}")
    accepted: Any = (int, float) if kind is float else kind
    for item in (value,) if count is None else value:
        if isinstance(item, bool) != (kind is bool) or not isinstance(item, accepted):
            raise ConfigError(f"{f.name} is {item!r}; its type is {kind.__name__}")
        if kind is str:
            _check_text(f, item)
        elif kind in REACH:
            _check_number(f, item, *REACH[kind])


def _check_text(f: dataclasses.Field[Any], text: str) -> None:
    """Raise ConfigError unless a text can be recorded and is one of the setting's choices, if it has some."""
    if text.encode(errors="ignore").decode() != text:  # it has bytes that a path had and UTF-8 has not
        raise ConfigError(f"{f.name} is {text!r}, which is not UTF-8 and cannot be recorded; give it another name")
    if (names := choices(f)) and text not in names:
        raise ConfigError(f"{f.name} is {text!r}{meant(text, names)}; choose {', '.join(names)}")


def _check_number(f: dataclasses.Field[Any], number: float, most: float, reach: str) -> None:
    """Raise ConfigError unless a number is of a size that can be recorded and within the setting's bounds."""
    if f.name != "seed" and not abs(number) <= most:
        raise ConfigError(f"{f.name} is {number}; it must be {reach}")
    low, high = f.metadata["low"], f.metadata["high"]
    if (low is not None and number < low) or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ConfigError(f"{f.name} is {number}; it must be {bounds}")


def is_own(dataset: str) -> bool:
    """Whether images are the user's own."""
    return dataset not in INFO and is_custom(named_folder(dataset))


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
