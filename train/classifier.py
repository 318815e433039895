"""Trained networks as functions of images: from a file, or trained here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from hcnn_core.backend import Array, array_namespace, dtype_name, to_numpy
from train.config import Config, make_config
from train.data import UNNAMED, Dataset, standardise
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.networks.registry import MERGED_FILTERS, architecture_of
from train.runs.checkpoint import Checkpoint
from train.runs.session import Session
from train.runs.shipped import open_network
from train.runs.training import restore

__all__ = ["Classifier", "fit", "load", "resume"]

BATCH = 100
"""Images classified at a time."""


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


def fit(
    config: Config | str = "hcnn",
    dataset: str | Path | Dataset | None = None,
    *,
    out: str | Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Classifier:
    """Train a network, with the files that `python -m train.cifar` writes.

    Parameters
    ----------
    config : Config or str, optional
        Every setting, or the name of a preset.
    dataset : str, Path or Dataset, optional
        What to train on: a name, a file .npz, MODULE:FUNCTION, or images themselves. By default what `config` names.
        A run of images themselves asks for them again when it is resumed.
    out : str or Path, optional
        Directory of the run; by default a new one below ``runs``.
    on_epoch : callable, optional
        Is given the record of each epoch, a dict as in metrics.jsonl, once its checkpoint is written.

    Returns
    -------
    Classifier
        The network after the last epoch, with averaged weights where they are averaged.

    Raises
    ------
    ConfigError
        If a setting does not suit the images.
    DataError
        If the images are missing or damaged.
    RunError
        If `out` holds a run already, or cannot be written.
    TrainingError
        If the loss is not finite, or memory does not suffice.
    Interrupted
        After Ctrl-C or SIGTERM, the state having been saved; `resume` goes on.
    """
    config = make_config(config) if isinstance(config, str) else config
    if dataset is not None:
        config = replace(config, dataset=UNNAMED if isinstance(dataset, Dataset) else str(dataset))
    session = Session(on_epoch=on_epoch, dataset=dataset if isinstance(dataset, Dataset) else None)
    return load(session.begin(lambda: config, None if out is None else Path(out)).path)


def resume(
    run: str | Path,
    dataset: str | Path | Dataset | None = None,
    *,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Classifier:
    """Continue a run from its latest checkpoint, so that every bit is as if it had not stopped.

    Parameters
    ----------
    run : str or Path
        Its directory.
    dataset : str, Path or Dataset, optional
        Its images, where they are elsewhere now, or were given as a Dataset.
    on_epoch : callable, optional
        As `fit` takes it.

    Returns
    -------
    Classifier
        The network after the last epoch.

    Raises
    ------
    RunError
        If there is no run, or it is in use.
    CheckpointError
        If it was trained on other images.
    ConfigError, DataError, TrainingError, Interrupted
        As `fit`.
    """
    given = {} if dataset is None or isinstance(dataset, Dataset) else {"dataset": str(dataset)}
    session = Session(on_epoch=on_epoch, dataset=dataset if isinstance(dataset, Dataset) else None)
    session.go_on(Path(run), given)
    return load(run)


class Classifier:
    """A trained network as a function of images of NumPy or CuPy, which it standardises itself.

    Parameters
    ----------
    checkpoint : Checkpoint
        Where it comes from.
    network : Network
        Its layers.
    parameters, moments : dict
        Weights and running moments.
    """

    def __init__(self, checkpoint: Checkpoint, network: Network, parameters: Parameters, moments: Moments) -> None:
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
        architecture = architecture_of(self.network.config)
        if MERGED_FILTERS in architecture.lacks:
            raise TypeError(f"{architecture.title} has no merged filters, a hierarchical network has")
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
