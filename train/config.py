"""One configuration: every hyperparameter with its unit, the presets, TOML files, and what values are allowed."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hcnn_core.precisions import PRECISIONS
from train.data.cifar import INFO
from train.data.custom import is_custom
from train.networks.hierarchical import HierarchicalSettings, NormalizationSettings
from train.networks.registry import ARCHITECTURES, DEFAULT, PRESETS
from train.recipes.optimizers import OPTIMIZERS
from train.recipes.schedules import SCHEDULES
from train.settings import ConfigError, setting

__all__ = ["PRESETS", "Config", "ConfigError", "make_config", "read_toml", "to_toml"]


@dataclass(frozen=True)
class DataSettings:
    """What is learned, from which images."""

    preset: str = setting("hcnn", "what the other settings start from", choices=PRESETS.keys())
    dataset: str = setting(
        "cifar10", "images to train on: cifar10, cifar100, sample, a file FILE.npz, or MODULE:FUNCTION"
    )
    data_dir: str = setting("data", "folder that holds, or will hold, the data set")
    train_size: int = setting(0, "training images used, the first ones; 0 for all", low=0)
    validation_size: int = setting(0, "training images held out, to choose recipes on", low=0)

    architecture: str = setting(DEFAULT, "kind of network, which has settings of its own", choices=ARCHITECTURES.keys())


@dataclass(frozen=True)
class RecipeSettings:
    """How weights are learned."""

    init_from: str = setting(
        "", "checkpoint, run or name of a network whose weights to begin with; what tells other classes apart is drawn"
    )
    epochs: int = setting(240, "passes over the training images", low=1, high=9999)
    batch_size: int = setting(50, "images a step", low=1)
    optimizer: str = setting("sgd", "how weights follow from gradients", choices=OPTIMIZERS.keys())
    schedule: str = setting("step", "course of the learning rate", choices=SCHEDULES)
    learning_rate: float = setting(0.25, "highest learning rate", low=0.0)
    step_epochs: int = setting(40, "epochs between the divisions of schedule step", low=1)
    step_factor: float = setting(10.0, "what schedule step divides by", low=1.0)
    warmup: float = setting(0.2, "part of all steps in which schedule one-cycle rises", low=0.0, high=1.0)
    momentum: float = setting(0.9, "part of the last update kept (adamw: of the running gradients)", low=0.0, high=1.0)
    nesterov: bool = setting(False, "Nesterov's momentum")
    square_decay: float = setting(
        0.999, "part of the running squares of gradients kept at each step of adamw", low=0.0, high=0.99999
    )
    weight_decay: float = setting(
        2e-4, "added to the gradient (muon, adamw: the direction) per unit of filter coefficient", low=0.0
    )
    average_decay: float = setting(
        0.0,
        "part of the averaged weights, which are evaluated, kept at each step; 0: no average",
        low=0.0,
        high=0.99999,
    )
    label_smoothing: float = setting(0.0, "part of the target spread over all classes", low=0.0, high=0.999)
    teacher: str = setting(
        "", "checkpoint, run or name of a network whose predictions are learned beside the labels (arXiv:1503.02531)"
    )
    teacher_share: float = setting(0.9, "part of the loss that compares with the teacher", low=0.0, high=1.0)
    temperature: float = setting(4.0, "what logits are divided by before they are compared", low=0.1, high=100.0)
    shift: int = setting(6, "largest random translation, pixels along each axis; less than an image has", low=0)
    cutout: int = setting(
        0, "side in pixels of the square of each training image that is hidden (arXiv:1708.04552); 0: none", low=0
    )
    flip: bool = setting(True, "mirror half of the training images")
    alternate_flips: bool = setting(
        False, "with flip: mirror each image every other epoch, rather than by chance (arXiv:2404.00498)"
    )
    image_sizes: tuple[int, ...] = setting(
        (),
        "pixels along the shorter side of training images, in equal parts of the epochs; none: their own size",
        low=8,
    )
    validation_every: int = setting(1, "epochs between evaluations on held-out images; the last is evaluated", low=1)
    seed: int = setting(0, "of initial weights, order and augmentation", low=0)
    test: bool = setting(True, "read the test set, once, after the last epoch")


@dataclass(frozen=True)
class BackendSettings:
    """What computes."""

    backend: str = setting("auto", "array library", choices=("auto", "numpy", "cupy"))
    dtype: str = setting("float32", "of weights and activations", choices=("float32", "float64"))
    precision: str = setting(
        "float32", "of products on a GPU: TensorFloat-32 is faster, three such products are closer", choices=PRECISIONS
    )


SECTIONS = {f.name: part for part in (HierarchicalSettings, NormalizationSettings) for f in dataclasses.fields(part)}
"""The settings that some architectures alone take, with the section that an architecture names."""


@dataclass(frozen=True)
class Config(BackendSettings, RecipeSettings, NormalizationSettings, HierarchicalSettings, DataSettings):
    """Everything that determines a run, apart from the data themselves.

    Equations and sections are those of arXiv:1703.04140. Every field's description is also its flag's.
    """

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check(f, getattr(self, f.name))
        if self.dataset not in INFO and not is_custom(self.dataset):
            raise ConfigError(
                f"dataset is {self.dataset!r}; choose {', '.join(INFO)}, a file FILE.npz, or MODULE:FUNCTION"
            )
        if self.precision != "float32" != self.dtype:
            raise ConfigError(f"precision is {self.precision!r}, which is for dtype 'float32'; dtype is {self.dtype!r}")
        architecture = ARCHITECTURES[self.architecture]
        for name, section in SECTIONS.items():
            if section not in self.sections and (value := getattr(self, name)) != getattr(Config, name):
                theirs = " or ".join(repr(kind) for kind, it in ARCHITECTURES.items() if section in it.sections)
                raise ConfigError(
                    f"{name} is {value!r}, which is for architecture {theirs}; {architecture.title} has no such "
                    "setting: leave it out"
                )
        for name in ("teacher_share", "temperature"):
            if not self.teacher and (value := getattr(self, name)) != getattr(Config, name):
                raise ConfigError(f"{name} is {value!r}, which needs a teacher: name one with --teacher")
        if self.optimizer == "adamw" and self.momentum == 1:
            raise ConfigError("momentum is 1; optimizer adamw takes less than 1")
        architecture.check(self)
        if self.moment_decay == 1:
            raise ConfigError("moment_decay is 1; running moments must learn from the data, so less than 1")

    @property
    def sections(self) -> tuple[type, ...]:
        """The dataclasses of settings that its architecture takes beside those of every run."""
        return ARCHITECTURES[self.architecture].sections


def _parameters_section() -> str:
    """The fields of Config as numpydoc wants them."""
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
    changes = dict(changes or {})
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"preset is {preset!r}; choose {', '.join(PRESETS)}")
    known = {f.name for f in dataclasses.fields(Config)}
    for key in changes:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ConfigError(f"no setting is called {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    settings: dict[str, Any] = {**PRESETS[preset], **changes, "preset": preset}
    if architecture := ARCHITECTURES.get(str(settings.get("architecture", Config.architecture))):
        settings = {**architecture.of_dataset.get(str(settings.get("dataset")), {}), **settings}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return Config(**values)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file; of a run's, which has a table [versions], all that there are."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    if settings.pop("versions", None) is not None:  # of a run
        settings = with_defaults(settings)
    return settings


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings, with the default of those that it does not name since they are newer than it."""
    return {f.name: f.default for f in dataclasses.fields(Config) if f.name != "preset"} | dict(settings)


def to_toml(config: Config, versions: Mapping[str, str]) -> str:
    """Return a TOML text with every setting, its meaning beside it, and the versions in a table."""
    lines = []
    for f in dataclasses.fields(config):
        lines.append(f"{f.name} = {_toml_value(getattr(config, f.name))}  # {f.metadata['help']}")
    lines.append("\n[versions]")
    lines += [f"{name} = {_toml_value(version)}" for name, version in versions.items()]
    return "\n".join(lines) + "\n"


@functools.cache
def _type_hints() -> dict[str, Any]:
    return get_type_hints(Config)


def field_type(f: dataclasses.Field[Any]) -> tuple[type, int | None]:
    """Type of a setting's value, or of its elements, and how many there are: None for one, 0 for any number."""
    hint = _type_hints()[f.name]
    if arguments := get_args(hint):
        return arguments[0], 0 if Ellipsis in arguments else len(arguments)
    return hint, None


def _check(f: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError unless the value is one the setting may take."""
    kind, count = field_type(f)
    if count is not None and (not isinstance(value, tuple) or (count and len(value) != count)):
        raise ConfigError(f"{f.name} is {value!r}; give {count or 'any number of'} values of type {kind.__name__}")
    for item in value if count is not None else (value,):
        allowed: Any = (int, float) if kind is float else (kind,)
        if not isinstance(item, allowed) or (isinstance(item, bool) and kind is not bool):
            raise ConfigError(f"{f.name} is {item!r}; its type is {kind.__name__}")
        if kind is str and not _is_text(item):
            raise ConfigError(f"{f.name} is {item!r}, which is not UTF-8 and cannot be recorded; give it another name")
        if (choices := f.metadata["choices"]) and item not in choices:
            raise ConfigError(f"{f.name} is {item!r}; choose {', '.join(choices)}")
        low, high = f.metadata["low"], f.metadata["high"]
        if kind is float and not abs(item) <= sys.float_info.max:
            raise ConfigError(f"{f.name} is {item}; it must be finite")
        if (low is not None and item < low) or (high is not None and item > high):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise ConfigError(f"{f.name} is {item}; it must be {bounds}")


def _is_text(value: str) -> bool:
    """Whether a string has no bytes that a path had and UTF-8 has not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
