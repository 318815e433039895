"""Checkpoints: one HDF5 file holds all that a run needs to go on, or a network to be evaluated.

Readable with h5py alone. Groups /parameters, /optimizer, /moments and, where weights are averaged, /average hold one
group per layer and one data set per array, /data the statistics that standardise images, /epoch the unfinished epoch's
order of images; attributes of the root hold the rest, composite ones as JSON. The attribute digest is the SHA-256 of
all the others and of every array: HDF5's own checksums leave out long strings, such as the configuration.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from train.config import Config, ConfigError, make_config, with_defaults
from train.data.dataset import DTYPES, LARGEST_IMAGE, MOST_AXES, Dataset, are_class_names
from train.data.reading import Reading
from train.data.targets import CLASSES, LABEL_KINDS, Targets
from train.recipes.tasks import Task, learned
from train.storage.files import write_atomically
from train.storage.hdf5 import DENSEST, LIBVER, open_hdf5, read_array, unreadable, write_array

SCHEMA = 3
"""Version of the file format."""
GROUPS = ("parameters", "optimizer", "moments", "average")
"""Trees of arrays, each a field of `State` and a group of the file; their depth is their own."""
LOUDEST = 0.9
"""Bound of mean plus deviation where all values lie from -1 to 1, but for square waves."""
LEAST_OF_GROUP = 64
"""Bytes of a file that a group takes, or a few less."""

Tree = dict[str, dict[str, Any]]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or used; the message is one line."""


class UnreadableError(CheckpointError):
    """A checkpoint that the system does not let this process read, so that nothing is known of its content."""


@dataclass
class State:
    """A run between two steps; arrays are NumPy's when saved or loaded."""

    parameters: Tree  # weights by layer and name
    optimizer: dict[str, Tree]  # what the optimiser keeps of each; empty in files of a network alone
    moments: Tree  # running moments by layer, see `train.networks.layer.Moments`
    generator: dict[str, Any]  # state of the random generator
    epoch: int = 0  # epochs completed
    step: int = 0  # steps taken in the epoch that has begun
    # image indices of the epoch that has begun; empty between epochs
    order: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    loss_sum: float = 0.0  # sum of the losses of the images seen in it, in nats
    metrics: dict[str, float] = field(default_factory=dict)  # of the images seen in it, by their names in `METRICS`
    seconds: float = 0.0  # time its steps took
    # highest score of a completed epoch: accuracy on held-out images, or minus the training loss
    best: float = float("-inf")
    # standard error of `best`; None: of a run from before it was kept, whose best.h5 is the first of the highest score
    best_error: float | None = 0.0
    average: Tree = field(default_factory=dict)  # running average of the weights; empty where none is wanted

    @property
    def evaluated(self) -> Tree:
        """The weights that are evaluated: their average, or where there is none themselves."""
        return self.average or self.parameters


@dataclass(frozen=True)
class Checkpoint:
    """A state with the configuration and the data's properties it belongs to."""

    state: State  # the run between two steps
    config: Config  # its settings
    class_names: tuple[str, ...]  # of the data set
    image_shape: tuple[int, ...]  # lengths of the axes of space of an image, and channels
    channel_mean: Any  # statistics that standardise images, in units of their values
    channel_std: Any
    # what the network reached; of those that ship with the package alone
    figures: dict[str, Any] = field(default_factory=dict)
    # checksum of the labels it was trained and validated on; of runs since they are kept
    labels: int | None = None
    values: str = "uint8"  # dtype of the images
    targets: Targets = CLASSES  # what the outputs stand for
    data: str = ""  # SHA-256 of the description of its samples; of runs since they have one
    range: tuple[float, float] | None = None  # of the values that it was trained on, which were no bytes; of runs since

    @property
    def task(self) -> Task:
        """The task of its network."""
        return learned(self.config, self.targets.kind)

    @property
    def outputs(self) -> int:
        """The number of its network's outputs."""
        return len(self.class_names) + self.task.beside

    def reading(self, config: Config) -> Reading:
        """Return how to read data for its network, with other settings than its own."""
        size = config.reading.size or self.image_size
        return Reading(len(size), self.targets.kind, size, values=self.values)

    @property
    def likely_range(self) -> tuple[float, float]:
        """The range of the values that it was trained on, or where none is on record what their moments suggest."""
        if self.range is not None:
            return self.range
        mean, std = self.channel_mean, self.channel_std
        if (np.abs(mean) + std).max() < LOUDEST:
            return -1.0, 1.0
        return float((mean - 2 * std).min()), float((mean + 2 * std).max())

    @property
    def image_size(self) -> tuple[int, ...]:
        """Lengths of the axes of space: rows and columns of an image."""
        return self.image_shape[:-1]

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.image_shape[-1]


def save(path: Path, checkpoint: Checkpoint, versions: dict[str, str]) -> None:
    """Write a checkpoint so that the file at `path` is at every moment either whole or absent."""
    import h5py

    state = checkpoint.state
    arrays = {f"{group}/{name}": a for group in GROUPS for name, a in flatten(getattr(state, group))}
    arrays["epoch/order"] = state.order
    arrays["data/channel_mean"], arrays["data/channel_std"] = checkpoint.channel_mean, checkpoint.channel_std
    if (targets := checkpoint.targets).mean is not None:
        arrays["data/target_mean"], arrays["data/target_std"] = targets.mean, targets.std
    attributes = {
        "schema": SCHEMA,
        "config": json.dumps(vars(checkpoint.config)),
        "versions": json.dumps(versions),
        "class_names": json.dumps(checkpoint.class_names),
        "image_shape": checkpoint.image_shape,
        "generator": json.dumps(state.generator),
        **({"figures": json.dumps(checkpoint.figures)} if checkpoint.figures else {}),
        **({"labels": checkpoint.labels} if checkpoint.labels is not None else {}),
        **({"targets": targets.kind} if targets.kind != "classes" else {}),
        **({"values": checkpoint.values} if checkpoint.values != "uint8" else {}),
        **({"data": checkpoint.data} if checkpoint.data else {}),
        **({"best_error": state.best_error} if state.best_error is not None else {}),
        **({"range": checkpoint.range} if checkpoint.range else {}),
        "metrics": json.dumps(state.metrics),
        **{name: getattr(state, name) for name in ("epoch", "step", "loss_sum", "seconds", "best")},
    }
    attributes["digest"] = _digest(attributes, arrays)
    try:
        # HDF5 reports a full disk at some later flush, or never: the file is made in memory and written by us.
        image = io.BytesIO()
        with h5py.File(image, "w", libver=LIBVER) as file:
            for name, array in arrays.items():
                write_array(file, name, array)
            file.attrs.update(attributes)
        write_atomically(path, image.getvalue())
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error.strerror or error}") from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; name a checkpoint in it, such as {path / 'best.h5'}")
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        with open(path, "rb") as stream:  # HDF5 does not say whether it is the disk or the file that fails
            while stream.read(2**20):
                pass
    except FileNotFoundError as error:  # since this moment
        raise CheckpointError(f"there is no checkpoint at {path}") from error
    except OSError as error:
        raise UnreadableError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    try:
        with open_hdf5(path) as file:
            attributes = dict(file.attrs)
            schema = attributes.get("schema")
            if schema is None:
                raise CheckpointError(f"{path} is an HDF5 file, but not a checkpoint: it has no attribute 'schema'")
            if int(schema) != SCHEMA:
                raise CheckpointError(f"{path} has schema {schema}; this version reads schema {SCHEMA}")
            trees = _read_tree(file, [DENSEST * file.id.get_filesize()])
            if attributes.pop("digest", None) != _digest(attributes, dict(flatten(trees))):
                raise CheckpointError(f"{path} is not a whole checkpoint: damaged or changed, since its digest differs")
            config = json.loads(attributes["config"])
            checkpoint = Checkpoint(
                State(
                    **{group: trees.get(group, {}) for group in GROUPS},
                    generator=json.loads(attributes["generator"]),
                    epoch=int(attributes["epoch"]),
                    step=int(attributes["step"]),
                    order=trees["epoch"]["order"],
                    loss_sum=float(attributes["loss_sum"]),
                    metrics=_metrics(attributes),
                    seconds=float(attributes["seconds"]),
                    best=float(attributes["best"]),
                    best_error=float(attributes["best_error"]) if "best_error" in attributes else None,
                ),
                make_config(config.pop("preset"), with_defaults(config)),
                tuple(json.loads(attributes["class_names"])),
                tuple(map(int, attributes["image_shape"])),
                trees["data"]["channel_mean"],
                trees["data"]["channel_std"],
                json.loads(attributes.get("figures", "{}")),
                int(attributes["labels"]) if "labels" in attributes else None,
                str(attributes.get("values", "uint8")),
                Targets(
                    str(attributes.get("targets", "classes")),
                    trees["data"].get("target_mean"),
                    trees["data"].get("target_std"),
                ),
                str(attributes.get("data", "")),
                _range(attributes.get("range")),
            )
            for failing in _inconsistencies(checkpoint):
                raise CheckpointError(f"{path} is not a checkpoint that a run can have written: {failing}")
            return checkpoint
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a configuration this version does not know: {error}") from error
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # h5py and what reads a damaged file fail in many ways
        if why := unreadable(error):
            raise UnreadableError(f"cannot read the checkpoint {path}: {why}") from error
        raise CheckpointError(f"{path} is not a whole checkpoint: truncated, damaged or of another program") from error


def require_same_arrays(path: Path, arrays: Tree, expected: Tree, kind: str) -> None:
    """Raise CheckpointError unless two trees have the same names, shapes and dtypes."""
    have, want = dict(flatten(arrays)), dict(flatten(expected))
    for name in sorted(have.keys() | want.keys()):
        shapes = [f"{a[name].dtype}{a[name].shape}" if name in a else "absent" for a in (have, want)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path} is of another network: {kind} {name} is {shapes[0]}, this one wants {shapes[1]}"
            )


def require_fits(path: Path, checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Raise CheckpointError unless a network takes the values of a data set, and has its classes in their order."""
    if (checkpoint.values == "uint8") != (dataset.train_images.dtype == np.uint8):
        raise CheckpointError(
            f"{path} takes values of {checkpoint.values}, those of {dataset.name} are {dataset.train_images.dtype}: "
            "give them as the network was trained on them"
        )
    for index, names in enumerate(zip(checkpoint.class_names, dataset.class_names, strict=False)):
        if names[0] != names[1]:
            raise CheckpointError(
                f"{path} calls class {index} {names[0]!r}, {dataset.name} calls it {names[1]!r}; give its classes the "
                "same names and numbers, or name the set it was trained on with --dataset"
            )


def _inconsistencies(checkpoint: Checkpoint) -> Iterator[str]:  # noqa: C901
    """Yield what no run can have written, in words."""
    state, config, order = checkpoint.state, checkpoint.config, checkpoint.state.order
    for kind in GROUPS:
        for name, array in flatten(getattr(state, kind)):
            if not np.isfinite(array).all():
                yield f"{kind} {name} holds values that are not finite"
    if not 0 <= state.epoch <= config.epochs:
        yield f"epoch is {state.epoch} of {config.epochs}"
    if order.ndim != 1 or order.dtype.kind != "i" or not np.array_equal(np.sort(order), np.arange(order.size)):
        yield "epoch/order does not hold every image once"
    steps = math.ceil(order.size / config.batch_size)
    if not 0 <= state.step <= max(steps - 1, 0):
        yield f"step is {state.step} of {steps}"
    right = state.metrics.get("accuracy", 0)
    if not all(map(math.isfinite, state.metrics.values())) or (
        order.size and not 0 <= right <= (1 + 1e-5) * min(state.step * config.batch_size, order.size)
    ):  # parts of labels are added up in single precision
        yield f"metrics are {state.metrics} after {state.step} steps"
    if not (0 <= state.loss_sum < math.inf and 0 <= state.seconds < math.inf):
        yield f"loss_sum is {state.loss_sum}, seconds is {state.seconds}"
    if not state.best <= 1:  # an accuracy, R^2, minus a loss, or minus infinity; NaN is none
        yield f"best is {state.best}"
    if not 0 <= (state.best_error or 0) < math.inf:
        yield f"best_error is {state.best_error}"
    if not are_class_names(checkpoint.class_names):
        yield "class_names is not a list of different names"
    shape, within = checkpoint.image_shape, range(2, MOST_AXES + 2)
    if len(shape) not in within or min(shape) < 1 or max(shape[:-1]) > LARGEST_IMAGE:
        yield f"image_shape is {checkpoint.image_shape}"
    if checkpoint.values not in DTYPES:
        yield f"values is {checkpoint.values!r}"
    kind, statistics = checkpoint.targets.kind, (checkpoint.targets.mean, checkpoint.targets.std)
    if kind not in LABEL_KINDS or any((array is None) == (kind == "numbers") for array in statistics):
        yield f"targets is {kind!r}, with or without data/target_mean and data/target_std"
    elif kind == "numbers" and not all(
        array.shape == (len(checkpoint.class_names),) and np.isfinite(array).all() for array in statistics
    ):
        yield "data/target_mean and data/target_std are not those of its numbers"
    mean, std = checkpoint.channel_mean, checkpoint.channel_std
    low, high = (0, 255) if checkpoint.values == "uint8" else (-sys.float_info.max, sys.float_info.max)
    same = mean.shape == std.shape == shape[-1:]
    if not (same and ((mean >= low) & (mean <= high) & (std > 0) & (std <= high)).all()):
        yield "data/channel_mean and data/channel_std are not those of the channels of its images"
    try:
        np.random.default_rng(0).bit_generator.state = state.generator
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        yield "generator is not the state of one"


def _metrics(attributes: Any) -> dict[str, float]:
    """Return the metrics; a file without them counts right images alone, as two networks that ship do."""
    if "metrics" not in attributes:
        return {"accuracy": float(attributes["correct"])}
    return {str(name): float(number) for name, number in json.loads(attributes["metrics"]).items()}


def _range(values: Any) -> tuple[float, float] | None:
    """Return the least and the largest value that are recorded; ValueError unless they are two finite numbers."""
    if values is None:
        return None
    low, high = map(float, values)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"range is {low} to {high}")
    return low, high


def flatten(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return names and arrays of a tree, as paths in the file."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{rest}", array) for rest, array in flatten(value))
        else:
            yield name, value


def _read_tree(group: Any, room: list[int]) -> dict[str, Any]:
    """Read the arrays of a group and of those in it; ValueError if together they take more bytes than there is room.

    In a file that no run has written, many names may lead to one array or group, and to a group from itself.
    """
    tree = {}
    for name, item in group.items():
        is_group = hasattr(item, "keys")
        room[0] -= LEAST_OF_GROUP * DENSEST if is_group else item.nbytes
        if room[0] < 0:
            raise ValueError(f"the arrays up to {item.name} are larger than their file")
        tree[name] = _read_tree(item, room) if is_group else read_array(item)
    return tree


def _digest(attributes: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    """SHA-256 of names, dtypes, shapes and values in the order of names; arrays have a slash before theirs."""
    digest = hashlib.sha256()
    for name, value in sorted({**attributes, **{f"/{name}": array for name, array in arrays.items()}}.items()):
        array = np.asarray(value)
        content = value.encode() if isinstance(value, str) else array.tobytes()
        digest.update(f"{name} {array.dtype.str} {array.shape} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
