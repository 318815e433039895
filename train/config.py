"""One configuration: every hyperparameter with its unit, the presets, TOML files, and what values are allowed."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hcnn_core.precisions import PRECISIONS
from hcnn_core.typing import Boundary
from train.data.cifar import INFO
from train.data.custom import is_custom

__all__ = ["CIFAR100_KERNEL", "PRESETS", "Config", "ConfigError", "make_config", "read_toml", "to_toml"]


BEST: dict[str, Any] = {
    "normalization": "both",
    "moment_decay": 0.99,
    "strided_layers": (3, 7),
    "epochs": 60,
    "batch_size": 100,
    "image_sizes": (16, 20, 24, 28, 32),
    "optimizer": "muon",
    "schedule": "one-cycle",
    "learning_rate": 0.03,
    "warmup": 0.1,
    "nesterov": True,
    "weight_decay": 0.003,
    "average_decay": 0.999,
    "logit_scale": 10.0,
    "shift": 4,
    "alternate_flips": True,
}
"""Recipe of the network of most accuracy with at most 97,650 coefficients, K = 16."""

PRESETS: dict[str, dict[str, Any]] = {
    "hcnn": {},
    "hcnn-plus": {"nonlinear_factors": True},
    "released": {
        "nonlinear_factors": True,
        "normalization": "both",
        "moment_decay": 0.99,
        "strided_layers": (4, 8),
        "head": "dense",
        "epochs": 320,
        "learning_rate": 0.35,
        "step_factor": 2.0,
        "nesterov": True,
        "weight_decay": 6e-4,
        "shift": 4,
    },
    "hcnn-fast": {
        "width": 10,
        "normalization": "both",
        "strided_layers": (3, 6),
        "epochs": 50,
        "batch_size": 100,
        "image_sizes": (16, 24, 32),
        "optimizer": "muon",
        "schedule": "one-cycle",
        "learning_rate": 0.03,
        "nesterov": True,
        "weight_decay": 0.0,
        "average_decay": 0.999,
        "logit_scale": 10.0,
        "shift": 4,
        "alternate_flips": True,
    },
    "hcnn-best": BEST,
    "hcnn-periodic": {**BEST, "boundary": "attributes", "epochs": 35},
    "scattering": {
        "scattering": 2,
        "depth": 6,
        "width": 10,
        "normalization": "both",
        "strided_layers": (),
        "epochs": 30,
        "batch_size": 20,
        "optimizer": "muon",
        "schedule": "one-cycle",
        "learning_rate": 0.03,
        "nesterov": True,
        "weight_decay": 0.0,
        "logit_scale": 10.0,
        "shift": 4,
    },
    "lenet": {
        "architecture": "lenet",
        "epochs": 30,
        "schedule": "one-cycle",
        "learning_rate": 0.03,
        "shift": 2,
    },
    "short": {
        "epochs": 2,
        "schedule": "one-cycle",
        "learning_rate": 0.003,
        "logit_scale": 10.0,
        "shift": 2,
        "validation_size": 2000,
    },
    "sample": {
        "dataset": "sample",
        "width": 8,
        "factors": 16,
        "epochs": 5,
        "batch_size": 20,
        "schedule": "one-cycle",
        "learning_rate": 0.003,
        "logit_scale": 10.0,
        "shift": 2,
        "validation_size": 200,
    },
}
"""What each preset changes. `hcnn` and `hcnn-plus` are the paper's networks and its recipe (section 4.2).

`released` is the network of the authors' program: scale and bias after both normalisations, space subsampled at j = 4
and 8, means of 16 filters at layer 11 and a dense layer, 360,522 trainable numbers. What differs: filters are flipped,
as a convolution's are; strides begin at the first sample (theirs, at even lengths, at the second); the learning rate
halves every 40 epochs (theirs from epoch 240 on every 20).

`hcnn-fast` takes about 72 minutes of two processor cores, `hcnn-best` about four hours (docs/recipes.md).
`hcnn-periodic` is `hcnn-best` with periodic attributes and fewer epochs; train.explore moves along them.

`lenet` is LeNet-5 (LeCun et al., 1998) with a dense last layer, 61,150 trainable numbers on CIFAR-10. Its learning rate
was the best of three on held-out images of the sample (benchmarks/results/lenet/results.md); nothing else was varied.

The mean over attributes makes all Q s1 s2 coefficients of a class act together in the last layer, so the steepest
curvature of the loss grows with them and with the square of the logits' scale: a scale of 10 wants learning rates near
0.003, the printed 0.25 a scale of 1 (benchmarks/results/recipes.md).
"""


CIFAR100_KERNEL = (11, 11)
"""Taps along (v_{j-2}, v_{j-1}) on CIFAR-100 (section 4.2)."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line that says what would do."""


def _setting(
    default: Any, help: str, *, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None
) -> Any:
    """A field with its description and the values it may take, `low` and `high` included."""
    return field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, apart from the data themselves.

    Equations and sections are those of arXiv:1703.04140. Every field's description is also its flag's.
    """

    preset: str = _setting("hcnn", "what the other settings start from", choices=tuple(PRESETS))
    dataset: str = _setting(
        "cifar10", "images to train on: cifar10, cifar100, sample, a file FILE.npz, or MODULE:FUNCTION"
    )
    data_dir: str = _setting("data", "folder that holds, or will hold, the data set")
    train_size: int = _setting(0, "training images used, the first ones; 0 for all", low=0)
    validation_size: int = _setting(0, "training images held out, to choose recipes on", low=0)

    architecture: str = _setting(
        "hcnn",
        "kind of network: hierarchical, with the settings from scattering to moment_images, or LeNet-5 without them",
        choices=("hcnn", "lenet"),
    )
    scattering: int = _setting(
        0, "octaves of a scattering transform before layer 1, mirrored at boundary zero; 0: none", low=0, high=4
    )
    depth: int = _setting(12, "J, layers with the final sum (Eq. 7)", low=4, high=99)
    width: int = _setting(16, "K, values of each attribute v_j", low=1)
    factors: int = _setting(32, "Q, separable filters in the sum of Eq. (8)", low=1)
    space_kernel: int = _setting(3, "taps of each filter along each space axis u", low=1)
    attribute_kernel: tuple[int, int] = _setting(
        (7, 11), "taps along v_{j-2} and v_{j-1}; the last alone at j = 2", low=1
    )
    attribute_stride: int = _setting(2, "subsampling of v_{j-2} and v_{j-1} at each layer", low=1)
    strided_layers: tuple[int, ...] = _setting((5, 9), "layers j that subsample space by 2, where they exist", low=1)
    nonlinear_factors: bool = _setting(False, "the (+) network: rho between the two factors of Eq. (8)")
    boundary: str = _setting(
        "zero",
        "how arrays are extended beyond their ends; attributes: periodic along attributes, by zeros in space",
        choices=("zero", "periodic", "attributes"),
    )
    reduction: str = _setting("mean", "marginal over v_{j-3} (Eq. 6)", choices=("mean", "sum"))
    head: str = _setting(
        "mean",
        "final marginal (Eq. 7): the sum itself, or the mean by a learned scale; or K means and a dense layer",
        choices=("mean", "sum", "dense"),
    )
    logit_scale: float = _setting(1.0, "initial scale of the logits where head is mean", low=0.0)
    normalization: str = _setting(
        "factors",
        "what is normalised: what the first factors of Eq. (8) make, or what all filters make too",
        choices=("factors", "both"),
    )
    epsilon: float = _setting(1e-5, "added to the variances of Eq. (8)", low=0.0)
    moment_decay: float = _setting(0.9, "part of the running moments kept at each step", low=0.0, high=1.0)
    moment_images: int = _setting(
        1000,
        "training images whose moments, with the weights that are evaluated, replace the running ones after each "
        "epoch (arXiv:2105.07576); 0: none",
        low=0,
    )

    init_from: str = _setting(
        "", "checkpoint, run or name of a network whose weights to begin with; what tells other classes apart is drawn"
    )
    epochs: int = _setting(240, "passes over the training images", low=1, high=9999)
    batch_size: int = _setting(50, "images a step", low=1)
    optimizer: str = _setting("sgd", "how weights follow from gradients", choices=("sgd", "muon"))
    schedule: str = _setting("step", "course of the learning rate", choices=("step", "cosine", "one-cycle", "constant"))
    learning_rate: float = _setting(0.25, "highest learning rate", low=0.0)
    step_epochs: int = _setting(40, "epochs between the divisions of schedule step", low=1)
    step_factor: float = _setting(10.0, "what schedule step divides by", low=1.0)
    warmup: float = _setting(0.2, "part of all steps in which schedule one-cycle rises", low=0.0, high=1.0)
    momentum: float = _setting(0.9, "part of the last update kept", low=0.0, high=1.0)
    nesterov: bool = _setting(False, "Nesterov's momentum")
    weight_decay: float = _setting(
        2e-4, "added to the gradient (muon: the direction) per unit of filter coefficient", low=0.0
    )
    average_decay: float = _setting(
        0.0,
        "part of the averaged weights, which are evaluated, kept at each step; 0: no average",
        low=0.0,
        high=0.99999,
    )
    label_smoothing: float = _setting(0.0, "part of the target spread over all classes", low=0.0, high=0.999)
    shift: int = _setting(6, "largest random translation, pixels along each axis; less than an image has", low=0)
    cutout: int = _setting(
        0, "side in pixels of the square of each training image that is hidden (arXiv:1708.04552); 0: none", low=0
    )
    flip: bool = _setting(True, "mirror half of the training images")
    alternate_flips: bool = _setting(
        False, "with flip: mirror each image every other epoch, rather than by chance (arXiv:2404.00498)"
    )
    image_sizes: tuple[int, ...] = _setting(
        (),
        "pixels along the shorter side of training images, in equal parts of the epochs; none: their own size",
        low=8,
    )
    validation_every: int = _setting(1, "epochs between evaluations on held-out images; the last is evaluated", low=1)
    seed: int = _setting(0, "of initial weights, order and augmentation", low=0)
    test: bool = _setting(True, "read the test set, once, after the last epoch")

    backend: str = _setting("auto", "array library", choices=("auto", "numpy", "cupy"))
    dtype: str = _setting("float32", "of weights and activations", choices=("float32", "float64"))
    precision: str = _setting(
        "float32", "of products on a GPU: TensorFloat-32 is faster, three such products are closer", choices=PRECISIONS
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _check(f, getattr(self, f.name))
        if self.dataset not in INFO and not is_custom(self.dataset):
            raise ConfigError(
                f"dataset is {self.dataset!r}; choose {', '.join(INFO)}, a file FILE.npz, or MODULE:FUNCTION"
            )
        if self.precision != "float32" != self.dtype:
            raise ConfigError(f"precision is {self.precision!r}, which is for dtype 'float32'; dtype is {self.dtype!r}")
        if unfit := [n for n in self.image_sizes if n % 2**self.scattering or n <= 2**self.scattering]:
            raise ConfigError(
                f"image_sizes has {unfit[0]}; with scattering = {self.scattering} choose larger multiples of "
                f"{2**self.scattering}"
            )
        names = [f.name for f in dataclasses.fields(self)]
        of_hcnn = names[names.index("scattering") : names.index("moment_images") + 1]
        for name in of_hcnn if self.architecture == "lenet" else []:
            if getattr(self, name) != getattr(Config, name):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, which is for architecture 'hcnn'; LeNet-5 has no such "
                    "setting: leave it out"
                )
        if self.moment_decay == 1:
            raise ConfigError("moment_decay is 1; running moments must learn from the data, so less than 1")

    @property
    def boundaries(self) -> tuple[Boundary, Boundary]:
        """How arrays are extended in space, and along attributes."""
        return (
            "periodic" if self.boundary == "periodic" else "zero",
            "zero" if self.boundary == "zero" else "periodic",
        )


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
    if settings.get("dataset") == "cifar100" and settings.get("architecture") != "lenet":
        settings.setdefault("attribute_kernel", CIFAR100_KERNEL)
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
