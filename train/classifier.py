"""Networks that ship with the package, by name, and any trained network as a function of images."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from hcnn_core.backend import Array, array_namespace, dtype_name, to_numpy
from train.data import standardise
from train.networks.network import Moments, Network, Parameters
from train.networks.registry import Trainable
from train.runs import checkpoint as checkpoints
from train.runs.checkpoint import Checkpoint, CheckpointError, State
from train.runs.run import Run, RunError
from train.runs.training import restore

__all__ = ["Classifier", "bare", "find", "load", "names", "open_network"]

FOLDER = Path(__file__).parent / "weights"

BATCH = 100
"""Images classified at a time."""


def names() -> list[str]:
    """Return the names of the networks that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.h5"))


def find(name_or_path: str | Path) -> Path:
    """Return the file of a network: the path itself if it exists, else the network that ships by this name."""
    path = Path(name_or_path)
    if not path.exists() and str(name_or_path) in names():
        return FOLDER / f"{name_or_path}.h5"
    if not path.exists() and not path.suffix:
        raise CheckpointError(f"there is no checkpoint at {path}; networks that ship: {', '.join(names()) or 'none'}")
    return path


def open_network(name_or_path: str | Path) -> tuple[Path, Checkpoint, list[str]]:
    """Return a network's checkpoint: of a run, the latest that is whole."""
    path = find(name_or_path)
    if not path.is_dir():
        return path, checkpoints.load(path), []
    try:
        return Run(path).latest()
    except RunError as error:
        raise CheckpointError(str(error)) from error


def bare(checkpoint: Checkpoint, figures: dict[str, Any]) -> Checkpoint:
    """Return a checkpoint of what evaluation needs alone: weights, or their average, running moments and statistics."""
    state = checkpoint.state
    parameters, moments = tree_map(lambda a: np.asarray(a, np.float32), (state.evaluated, state.moments))
    return replace(
        checkpoint,
        state=State(parameters, {}, moments, dict(np.random.default_rng(0).bit_generator.state), epoch=state.epoch),
        config=replace(checkpoint.config, dtype="float32", data_dir="data", init_from=""),
        figures=figures,
    )


def load(name_or_path: str | Path) -> Classifier:
    """Return a trained network.

    Parameters
    ----------
    name_or_path : str or Path
        The name of a network that ships with the package, a checkpoint, or the directory of a run, whose latest
        checkpoint is taken.

    Returns
    -------
    Classifier
        A function of images.

    Raises
    ------
    CheckpointError
        If there is no such network, or its file is damaged.

    Warns
    -----
    UserWarning
        If a later checkpoint of the run is damaged.
    """
    path, checkpoint, notices = open_network(name_or_path)
    for notice in notices:
        warnings.warn(f"{notice}; taking {path}", stacklevel=2)
    return Classifier(checkpoint, *restore(path, checkpoint, checkpoint.config, np))


class Classifier:
    """A trained network as a function of images of NumPy or CuPy, which it standardises itself.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where it comes from.
    network : Network or LeNet
        Its layers.
    parameters, moments : dict
        Weights and running moments.
    """

    def __init__(self, checkpoint: Checkpoint, network: Trainable, parameters: Parameters, moments: Moments) -> None:
        self.network, self.checkpoint = network, checkpoint
        self._arrays: dict[str, tuple[Parameters, Moments]] = {"numpy": (parameters, moments)}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.checkpoint.class_names

    @property
    def figures(self) -> dict[str, Any]:
        """What was recorded of the network when it was trained, such as its accuracy on the test set."""
        return self.checkpoint.figures

    @property
    def merged(self) -> Parameters:
        """Filters and biases of each layer, as `train.networks.network.Network.merged` returns them; NumPy arrays.

        A TypeError of any other network than a hierarchical one.
        """
        if not isinstance(self.network, Network):
            raise TypeError(f"{type(self.network).__name__} has no merged filters, a hierarchical network has")
        return self.network.merged(*self._arrays["numpy"])

    @property
    def moments(self) -> Moments:
        """Running moments of each layer, see `train.networks.network.Moments`; NumPy arrays."""
        return self._arrays["numpy"][1]

    def logits(self, images: Array) -> Array:
        """Return the logits of images, whose softmax is the probability of each class.

        Parameters
        ----------
        images : array, shape (N, H, W, C) or (H, W, C)
            Of as many channels as it was trained on, RGB for CIFAR: uint8 from 0 to 255, or floats from 0 to 1.

        Returns
        -------
        array, shape (N, C) or (C,)
            On the device of the images.

        Raises
        ------
        TypeError
            If the images are neither uint8 nor floats.
        ValueError
            If they have another shape, or floats lie outside 0 to 1.
        """
        xp = array_namespace(images)
        images = xp.asarray(images)
        channels = self.checkpoint.channels
        if images.ndim not in (3, 4) or images.shape[-1] != channels or 0 in images.shape[-3:]:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; give (N, H, W, {channels}) or (H, W, {channels}), H and W "
                "at least 1"
            )
        if images.ndim == 3:
            return self.logits(images[None, ...])[0, ...]
        kind = dtype_name(images.dtype)
        if kind.startswith("float"):
            if images.size and not (float(xp.min(images)) >= 0 and float(xp.max(images)) <= 1):
                raise ValueError(f"floats from {float(xp.min(images)):.9g} to {float(xp.max(images)):.9g}; give 0 to 1")
            images = images * 255
        elif kind != "uint8":
            raise TypeError(f"images have dtype {kind}; give uint8 from 0 to 255, or floats from 0 to 1")
        parameters, moments = self._placed(xp)
        found = []
        count = images.shape[0]
        for begin in range(0, count, BATCH):
            x = standardise(
                images[begin : min(begin + BATCH, count), ...],
                self.checkpoint.channel_mean,
                self.checkpoint.channel_std,
                self.network.config.dtype,
            )
            found.append(self.network(parameters, x, moments)[0])
        return xp.concat(found) if found else xp.zeros((0, self.network.classes), dtype=xp.float32)

    __call__ = logits

    def predict(self, images: Array) -> list[str]:
        """Return the names of the classes that images most probably belong to.

        Parameters
        ----------
        images : array, shape (N, H, W, C) or (H, W, C)
            As `logits` takes them.

        Returns
        -------
        list of str
            One name for each image.
        """
        logits = to_numpy(self.logits(images))
        return [self.class_names[index] for index in np.atleast_2d(logits).argmax(axis=1)]

    def _placed(self, xp: Any) -> tuple[Parameters, Moments]:
        """Weights and moments among arrays of a namespace."""
        if xp.__name__ not in self._arrays:
            self._arrays[xp.__name__] = tree_map(xp.asarray, self._arrays["numpy"])
        return self._arrays[xp.__name__]
