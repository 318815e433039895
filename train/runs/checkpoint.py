"""Checkpoints: one HDF5 file holds all that a run needs to go on, or a network to be evaluated.

Readable with h5py alone. Groups /parameters, /velocity, /moments and, where weights are averaged, /average hold one
group per layer and one data set per array, /data the statistics that standardise images, /epoch the unfinished epoch's
order of images; attributes of the root hold the rest, composite ones as JSON.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from train.storage.files import write_atomically
from train.storage.hdf5 import LIBVER, read_array, write_array
from train.config import Config, ConfigError, make_config, with_defaults
from train.data.dataset import CHANNELS, LARGEST_IMAGE, Dataset, are_class_names

SCHEMA = 2
"""Of files that are written. Schema 1, which is read too, has the attribute image_size, pixels along each side of RGB
images, in the place of image_shape."""
GROUPS = ("parameters", "velocity", "moments", "average")

Tree = dict[str, dict[str, Any]]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or used; the message is one line."""


@dataclass
class State:
    """A run between two steps; arrays are NumPy's when saved or loaded."""

    parameters: Tree  # weights by layer and name, and what momentum keeps of each
    velocity: Tree
    moments: Tree  # running moments by layer, see `train.networks.network.Moments`
    generator: dict[str, Any]  # state of the random generator
    epoch: int = 0  # epochs completed
    step: int = 0  # steps taken in the epoch that has begun
    # image indices of the epoch that has begun; empty between epochs
    order: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    loss_sum: float = 0.0  # sum of the losses of the images seen in it, in nats
    correct: int = 0  # how many of them were classified right
    seconds: float = 0.0  # time its steps took
    # highest score of a completed epoch: accuracy on held-out images, or minus the training loss
    best: float = float("-inf")
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
    image_shape: tuple[int, int, int]  # rows, columns and channels of an image
    channel_mean: Any  # statistics that standardise images, in units of a pixel value
    channel_std: Any
    # what the network reached; of those that ship with the package alone
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        return self.image_shape[:2]

    @property
    def channels(self) -> int:
        """How many an image has."""
        return self.image_shape[2]


def save(path: Path, checkpoint: Checkpoint, versions: dict[str, str]) -> None:
    """Write a checkpoint so that the file at `path` is at every moment either whole or absent."""
    import h5py

    state = checkpoint.state
    try:
        # HDF5 reports a full disk at some later flush, or never: the file is made in memory and written by us.
        image = io.BytesIO()
        with h5py.File(image, "w", libver=LIBVER) as file:
            arrays = {f"{group}/{name}": a for group in GROUPS for name, a in _flatten(getattr(state, group))}
            arrays["epoch/order"] = state.order
            arrays["data/channel_mean"], arrays["data/channel_std"] = checkpoint.channel_mean, checkpoint.channel_std
            for name, array in arrays.items():
                write_array(file, name, array)
            file.attrs["schema"] = SCHEMA
            file.attrs["config"] = json.dumps(vars(checkpoint.config))
            file.attrs["versions"] = json.dumps(versions)
            file.attrs["class_names"] = json.dumps(checkpoint.class_names)
            file.attrs["image_shape"] = checkpoint.image_shape
            if checkpoint.figures:
                file.attrs["figures"] = json.dumps(checkpoint.figures)
            file.attrs["generator"] = json.dumps(state.generator)
            for name in ("epoch", "step", "loss_sum", "correct", "seconds", "best"):
                file.attrs[name] = getattr(state, name)
        write_atomically(path, image.getvalue())
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error.strerror or error}") from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint."""
    import h5py

    if path.is_dir():
        raise CheckpointError(f"{path} is a directory; name a checkpoint in it, such as {path / 'best.h5'}")
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        with h5py.File(path, "r") as file:
            schema = file.attrs.get("schema")
            if schema is None:
                raise CheckpointError(f"{path} is an HDF5 file, but not a checkpoint: it has no attribute 'schema'")
            if int(schema) not in (1, SCHEMA):
                raise CheckpointError(f"{path} has schema {schema}; this version reads schema 1 to {SCHEMA}")
            config = json.loads(file.attrs["config"])
            trees = {group: _read_tree(file[group]) if group in file else {} for group in GROUPS}
            checkpoint = Checkpoint(
                State(
                    parameters=trees["parameters"],
                    velocity=trees["velocity"],
                    moments=trees["moments"],
                    generator=json.loads(file.attrs["generator"]),
                    epoch=int(file.attrs["epoch"]),
                    step=int(file.attrs["step"]),
                    order=read_array(file["epoch/order"]),
                    loss_sum=float(file.attrs["loss_sum"]),
                    correct=int(file.attrs["correct"]),
                    seconds=float(file.attrs["seconds"]),
                    best=float(file.attrs["best"]),
                    average=trees["average"],
                ),
                make_config(config.pop("preset"), with_defaults(config)),
                tuple(json.loads(file.attrs["class_names"])),
                _image_shape(file.attrs),
                read_array(file["data/channel_mean"]),
                read_array(file["data/channel_std"]),
                json.loads(file.attrs.get("figures", "{}")),
            )
            for failing in _inconsistencies(checkpoint):
                raise CheckpointError(f"{path} is not a checkpoint that a run can have written: {failing}")
            return checkpoint
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a configuration this version does not know: {error}") from error
    except CheckpointError:
        raise
    except PermissionError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except Exception as error:  # h5py and what reads a damaged file fail in many ways
        raise CheckpointError(f"{path} is not a whole checkpoint: truncated, damaged or of another program") from error


def require_same_arrays(path: Path, found: Tree, expected: Tree, kind: str) -> None:
    """Raise CheckpointError unless two trees have the same names, shapes and dtypes."""
    have, want = dict(_flatten(found)), dict(_flatten(expected))
    for name in sorted(have.keys() | want.keys()):
        shapes = [f"{a[name].dtype}{a[name].shape}" if name in a else "absent" for a in (have, want)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path} is of another network: {kind} {name} is {shapes[0]}, this one wants {shapes[1]}"
            )


def require_finite(path: Path, tree: Tree, kind: str) -> None:
    """Raise CheckpointError if an array holds NaN or infinity."""
    for name, array in _flatten(tree):
        if not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {kind} {name} holds values that are not finite")


def require_same_classes(path: Path, checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Raise CheckpointError unless a network tells the classes of a data set apart, in their order."""
    for index, names in enumerate(zip(checkpoint.class_names, dataset.class_names, strict=False)):
        if names[0] != names[1]:
            raise CheckpointError(
                f"{path} calls class {index} {names[0]!r}, {dataset.name} calls it {names[1]!r}; give its classes the "
                "same names and numbers, or name the set it was trained on with --dataset"
            )


def _inconsistencies(checkpoint: Checkpoint) -> Iterator[str]:
    """What no run can have written, in words."""
    state, config, order = checkpoint.state, checkpoint.config, checkpoint.state.order
    if not 0 <= state.epoch <= config.epochs:
        yield f"epoch is {state.epoch} of {config.epochs}"
    if order.ndim != 1 or order.dtype.kind != "i" or not np.array_equal(np.sort(order), np.arange(order.size)):
        yield "epoch/order does not hold every image once"
    steps = math.ceil(order.size / config.batch_size)
    if not 0 <= state.step <= max(steps - 1, 0):
        yield f"step is {state.step} of {steps}"
    if order.size and not 0 <= state.correct <= min(state.step * config.batch_size, order.size):
        yield f"correct is {state.correct} after {state.step} steps"
    if not (math.isfinite(state.loss_sum) and math.isfinite(state.seconds) and state.seconds >= 0):
        yield f"loss_sum is {state.loss_sum}, seconds is {state.seconds}"
    if not state.best <= 1:  # an accuracy, minus a loss, or minus infinity; NaN is none
        yield f"best is {state.best}"
    if not are_class_names(checkpoint.class_names):
        yield "class_names is not a list of different names"
    if not all(1 <= n <= LARGEST_IMAGE for n in checkpoint.image_size) or checkpoint.channels not in CHANNELS:
        yield f"image_shape (image_size in schema 1) is {checkpoint.image_shape}"
    mean, std, shape = checkpoint.channel_mean, checkpoint.channel_std, (checkpoint.channels,)
    if not (
        mean.shape == std.shape == shape and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()
    ):
        yield "data/channel_mean and data/channel_std are not those of the channels of its images"
    try:
        np.random.default_rng(0).bit_generator.state = state.generator
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        yield "generator is not the state of one"


def _image_shape(attributes: Any) -> tuple[int, int, int]:
    """Rows, columns and channels, as either schema has them."""
    if int(attributes["schema"]) == 1:
        side = int(attributes["image_size"])
        return side, side, 3
    height, width, channels = map(int, attributes["image_shape"])
    return height, width, channels


def _flatten(tree: Tree) -> Iterator[tuple[str, Any]]:
    for layer, arrays in tree.items():
        for name, array in arrays.items():
            yield f"{layer}/{name}", array


def _read_tree(group: Any) -> Tree:
    return {layer: {name: read_array(data) for name, data in arrays.items()} for layer, arrays in group.items()}
