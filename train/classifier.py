"""Trained networks as functions of images: from a file, or trained here."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hcnn_core.backend import Array, array_namespace, dtype_name, to_numpy
from hcnn_core.environment import is_on
from train.config import Config, is_own, make_config, with_dataset
from train.data import UNNAMED, Dataset, has_axes, load_dataset, standardise
from train.data.dataset import DTYPES
from train.data.folder import is_folder, named_folder
from train.data.photographs import MODES, as_array, fitted
from train.extras import require_installed
from train.networks.architecture import Architecture
from train.networks.hierarchical import HierarchicalLayer, name_of
from train.networks.layer import Layer, Moments, Parameters
from train.networks.network import Network
from train.networks.presets import BY_AXES
from train.networks.registry import MERGED_FILTERS, architecture_of
from train.runs import compiling
from train.runs.checkpoint import Checkpoint
from train.runs.opened import Opened
from train.runs.session import Session
from train.runs.shipped import FOLDER, card, open_network, recorded
from train.runs.training import batches, restore

if TYPE_CHECKING:
    from train.data.photographs import Photograph

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
    ModuleNotFoundError
        If h5py is not installed.

    Warns
    -----
    UserWarning
        If a later checkpoint of the run is damaged.
    """
    require_installed("h5py")
    path, checkpoint, notices = open_network(name_or_path)
    for notice in notices:
        warnings.warn(f"{notice}; taking {path}", stacklevel=2)
    checkpoint = replace(checkpoint, figures=recorded(path, checkpoint))
    name, text = path.stem if path.parent == FOLDER else "", card(path)
    return Classifier(checkpoint, *restore(path, checkpoint, checkpoint.config, np), name=name, card=text)


def fit(
    config: Config | str | None = None,
    dataset: str | Path | Dataset | None = None,
    out: str | Path | None = None,
    *,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Classifier:
    """Train a network, with the files that `python -m train.cifar` writes.

    Parameters
    ----------
    config : Config or str, optional
        Every setting, or the name of a preset, which takes at least 1,000 steps on data of one's own; by default the
        preset for the data's axes of space.
    dataset : str, Path or Dataset, optional
        The training data: a name, a file of arrays, MODULE:FUNCTION, or images themselves. By default the `config`
        names them. A run of images themselves asks for them again when it is resumed.
    out : str or Path, optional
        Directory of the run; by default a new one below ``runs``.
    on_epoch : callable, optional
        Called with the record of each epoch, a dict as in metrics.jsonl, once its checkpoint is written.

    Returns
    -------
    Classifier
        The network after the last epoch, with averaged weights where they are averaged.

    Raises
    ------
    TypeError
        If `config` or `dataset` is none of these.
    ConfigError
        If a setting does not suit the images.
    DataError
        If the images are missing or damaged.
    CheckpointError
        If a network that it begins from, or that teaches it, cannot be read or is of other classes.
    RunError
        If `out` holds a run already, or cannot be written.
    TrainingError
        If the loss is not finite, or memory does not suffice.
    Interrupted
        After Ctrl-C or SIGTERM, the state having been saved; `resume` goes on.
    ModuleNotFoundError
        If a module of the extra `train` is missing.

    Warns
    -----
    UserWarning
        Of what is left out, missing or mirrored. Sizes and parts of the data are printed, unless HCNN_QUIET is 1.
    """
    require_installed()
    if not isinstance(dataset, str | Path | Dataset | None):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}; give a name, a path or a hcnn.train.Dataset; "
            "hcnn.HCNNClassifier().fit(X, y) takes arrays"
        )
    data = dataset if isinstance(dataset, Dataset) else None
    if config is None:
        data = data or (load_dataset(str(dataset)) if has_axes(str(dataset)) else None)
        own = is_own(_name_of(dataset)) if isinstance(dataset, str | Path) else data is not None
        config = BY_AXES[len(data.image_shape) - 1 if data else 2] if own else "hcnn"
    session = _session(on_epoch, data)
    session.free = isinstance(config, str)
    config = make_config(config) if isinstance(config, str) else config
    if not isinstance(config, Config):
        raise TypeError(f"config is a {type(config).__name__}; give a preset or a Config first, and images as dataset=")
    if dataset is not None:
        config = with_dataset(config, UNNAMED if isinstance(dataset, Dataset) else _name_of(dataset))
    with compiling.said("hcnn"):
        run = session.begin(lambda: config, None if out is None else Path(out))
    return load(run.path)


def resume(
    run: str | Path,
    dataset: str | Path | Dataset | None = None,
    *,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Classifier:
    """Continue a run from its latest checkpoint, bit for bit as if it had not stopped; see `fit`.

    Parameters
    ----------
    run : str or Path
        Its directory.
    dataset : str, Path or Dataset, optional
        Its images, where they are elsewhere now, or were given as a Dataset.
    on_epoch : callable, optional
        As `fit` takes it.

    Raises
    ------
    RunError
        If there is no run, or it is in use.
    CheckpointError
        If it was trained on other images.
    """
    require_installed()
    changes = {} if dataset is None or isinstance(dataset, Dataset) else {"dataset": _name_of(dataset)}
    with compiling.said("hcnn"):
        _session(on_epoch, dataset).go_on(Path(run), changes)
    return load(run)


def _session(on_epoch: Callable[[dict[str, Any]], None], dataset: Any) -> Session:
    """Return a session on a Dataset, or on data that a name leads to, which warns of what is lost."""
    session = Session(on_epoch=on_epoch, dataset=dataset if isinstance(dataset, Dataset) else None)
    session.warn = lambda line: warnings.warn(line, stacklevel=2)
    session.tell = lambda line: None if is_on("HCNN_QUIET") else print(line)
    return session


def _name_of(dataset: str | Path) -> str:
    """Return a data set's name; a path to a folder gets a slash behind it."""
    return dataset if isinstance(dataset, str) else named_folder(dataset)


class Classifier:
    """A trained network as a function of images of NumPy or CuPy, which it standardises itself.

    Parameters
    ----------
    checkpoint : Checkpoint
        The checkpoint of the network.
    network : Network
        Its layers.
    parameters, moments : dict
        Weights and running moments.
    name : str, optional
        Its name; by default its preset.
    card : str, optional
        Its model card, Markdown: inputs, data, recipe, accuracy by class, and what it is not for. A network that
        ships has one; for others it describes their inputs.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: Network,
        parameters: Parameters,
        moments: Moments,
        *,
        name: str = "",
        card: str = "",
    ) -> None:
        self.network, self.checkpoint = network, checkpoint
        self.name = name or checkpoint.config.preset
        self.card = card or f"# {self.name}\n\n{self.takes}\n"
        self._arrays = parameters, moments
        self._opened = Opened(network, parameters, moments)

    def __repr__(self) -> str:
        """Describe the network in one line."""
        task, has_filters = self.checkpoint.task, MERGED_FILTERS not in self._architecture.lacks
        test = self.figures.get(f"test_{task.score}")
        tested = "not tested" if test is None else f"{task.title} {task.shown(test)} on the test images"
        what = f"{self.network.counted:,} {'coefficients' if has_filters else 'parameters'}"
        return f"<Classifier {self.name}: {len(self.class_names)} {task.name}, {what}, {tested}>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, labels or numbers, in the order of the logits."""
        return self.checkpoint.class_names

    @property
    def takes(self) -> str:
        """Its inputs, images, signals or volumes, in words."""
        *lengths, channels = self.checkpoint.image_shape
        kind = ("Signals", "Images", "Volumes")[len(lengths) - 1]
        shape = ", ".join(map(str, lengths))
        alone = f" or (N, {shape})" if channels == 1 else ""
        if self._pixels:
            files = "; or photographs, as paths or images of Pillow" if len(lengths) == 2 and channels in MODES else ""
            values = f"uint8 from 0 to 255, or floats from 0 to 1{files}"
        else:
            values = f"numbers in the units of its training data, which were {self.checkpoint.values}"
        fits = ". Other sizes are centre-cropped and resized to the training size" if self._fits else ""
        return f"{kind} (N, {shape}, {channels}){alone}, or one alone: {values}{fits}."

    @property
    def photograph_shape(self) -> tuple[int, ...]:
        """Rows, columns and channels to which photographs are brought; () for a network that takes none."""
        takes = self._fits or is_folder(self.checkpoint.config.dataset)
        return self.checkpoint.image_shape if takes else ()

    @property
    def _pixels(self) -> bool:
        """Whether it was trained on bytes."""
        return self.checkpoint.values == "uint8"

    @property
    def _fits(self) -> bool:
        """Whether images of another size are brought to its own."""
        return self._pixels and len(self.checkpoint.image_shape) == 3

    @property
    def figures(self) -> dict[str, Any]:
        """Records of its training, such as the accuracy on the test set."""
        return self.checkpoint.figures

    @property
    def merged(self) -> Parameters:
        """Filters and biases of each layer, as `train.networks.network.Network.merged` returns them; NumPy arrays.

        TypeError for a network that is not hierarchical.
        """
        if MERGED_FILTERS in self._architecture.lacks:
            raise TypeError(f"{self._architecture.title} has no merged filters, a hierarchical network has")
        return self.network.merged(*self._arrays)

    @property
    def moments(self) -> Moments:
        """Running moments of each layer, see `train.networks.network.Moments`; NumPy arrays."""
        return self._arrays[1]

    def logits(self, images: Array | Photograph | Sequence[Photograph]) -> Array:
        """Return the logits of images, whose softmax is the probability of each class.

        For yes/no labels the sigmoid of a logit is the probability of a yes. A network of numbers returns the numbers,
        in the units of its training data.

        Parameters
        ----------
        images : array, shape (N, H, W, C) or (H, W, C), or photographs
            Arrays have as many channels as it was trained on, RGB for CIFAR: uint8 from 0 to 255, or floats from 0 to
            1. Grey ones may lack that axis. A photograph is the path of a file or an image of Pillow; several are a
            list. Other sizes are centre-cropped and resized to the training size. A network of signals or volumes, or
            of other numbers than bytes, takes arrays of its training data's size and units, (N, T, C) or (N, D, H, W,
            C). `takes` describes this for a network.

        Returns
        -------
        array, shape (N, C) or (C,)
            On the device of the images.

        Raises
        ------
        TypeError
            If the images are neither uint8 nor floats.
        ValueError
            If they have another shape, floats lie outside 0 to 1, or a photograph has not 8 bits for each value.
        OSError
            If a file cannot be read.
        """
        in_units = self.checkpoint.targets.in_units

        return self._each(images, lambda network, x: in_units(network(x), array_namespace(x)))

    def features(
        self,
        images: Array | Photograph | Sequence[Photograph],
        layer: int | str,
        reduce: Literal["attributes", "space"] | None = None,
    ) -> Array:
        """Return a layer's output for images, such as features for another classifier.

        Parameters
        ----------
        images : array or photographs
            As `logits` takes them.
        layer : int or str
            Number j of a hierarchical network's layer, or the name of any layer in the network's table.
        reduce : {"attributes", "space"}, optional
            The axes to take the mean over; by default none.

        Returns
        -------
        array, shape (N, u1, .., v_{j-2}, v_{j-1}, v_j)
            Without the axes that means are taken over, and without the first for one image; `axes` names them all.

        Raises
        ------
        KeyError
            If there is no such layer.
        ValueError
            If `reduce` is neither.
        TypeError, OSError
            As `logits`.
        """
        if reduce not in (None, "attributes", "space"):
            raise ValueError(f"reduce is {reduce!r}; choose 'attributes', 'space' or None")
        kinds, names = {None: "", "space": "u", "attributes": "vc"}, self.axes(layer)
        over = tuple(k for k, name in enumerate(names) if name[0] in kinds[reduce])
        wanted = self._layer(layer).name

        def made(network: Opened, x: Array) -> Array:
            y = network.output(wanted, x)
            return array_namespace(y).mean(y, axis=over) if over else y

        return self._each(images, made)

    def to_torch(self) -> Any:
        """Return the network as a torch.nn.Module of ordinary convolutions, with attributes as channels.

        Returns
        -------
        torch.nn.Module
            From tensors ``(N, C, *space)``, in the units of the training data (0 to 255 for bytes), to logits
            (N, classes), float32. Along attributes its filters are block-Toeplitz until it is trained further.

        Raises
        ------
        CheckpointError
            If the network has scattering, or is not hierarchical.
        ModuleNotFoundError
            If PyTorch is not installed.
        """
        require_installed("torch", extra="torch")
        from train.runs.torch_module import Convolutions

        return Convolutions(self.checkpoint, self.network, *self._arrays)

    def axes(self, layer: int | str) -> tuple[str, ...]:
        """Return the names of the axes of a layer's output.

        Parameters
        ----------
        layer : int or str
            As `features` takes it.

        Returns
        -------
        tuple of str
            ``"n"`` of the images, ``"u1"`` and so on of space, then ``"v3"`` and so on of attributes, or
            ``"channels"``.
        """
        source = self._layer(layer)
        count = len(self.checkpoint.image_size) if len(source.outputs) > 1 else 0
        last = ["channels"]
        if isinstance(source, HierarchicalLayer):
            last = [f"v{source.j - age}" for age in range(len(source.outputs) - count - 1, -1, -1)]
        return ("n", *(f"u{k + 1}" for k in range(count)), *last)

    def _layer(self, layer: int | str) -> Layer:
        name, known = name_of(layer) if isinstance(layer, int) else layer, [la.name for la in self.network.table]
        if name not in known:
            raise KeyError(f"no layer is called {name!r}; there are {', '.join(known)}")
        return self.network[name]

    def _each(self, images: Array | Photograph | Sequence[Photograph], function: Callable[..., Array]) -> Array:
        """Return a function of the opened network and standardised images, evaluated on some images at a time."""
        array = as_array(images, self.photograph_shape, self.checkpoint.values)
        xp = array_namespace(array)
        array, alone = self._samples(xp.asarray(array))
        floats = dtype_name(array.dtype).startswith("float")
        array = fitted(array, self.checkpoint.image_size) if self._fits else array
        array = array * 255 if floats and self._pixels else array
        checkpoint, config = self.checkpoint, self.network.config
        standards = checkpoint.channel_mean, checkpoint.channel_std, config.dtype, config.standardize
        parts = (standardise(array[part, ...], *standards) for part in batches(BATCH, array.shape[0]))
        whole = xp.concat([function(self._opened, x) for x in parts])
        return whole[0, ...] if alone else whole

    def _samples(self, array: Array) -> tuple[Array, bool]:
        """Return an array with axes of the batch and of channels, and whether it is of one sample; else raise."""
        *lengths, channels = self.checkpoint.image_shape
        axes, given = len(lengths), tuple(array.shape)
        if channels == 1 and array.ndim in (axes, axes + 1) and array.shape[-1] != 1:
            array = array[..., None]
        space = tuple(array.shape[-1 - axes : -1])
        fits = 0 not in space if self._fits else space == tuple(lengths)
        if array.ndim not in (axes + 1, axes + 2) or array.shape[-1] != channels or not fits:
            wanted = f"{'H, W' if self._fits else ', '.join(map(str, lengths))}, {channels}"
            rest = ", H and W at least 1" if self._fits else ""
            raise ValueError(f"images have shape {given}; give (N, {wanted}) or ({wanted}){rest}")
        alone = array.ndim == axes + 1
        xp, kind, most = array_namespace(array), dtype_name(array.dtype), sys.float_info.max
        floats = kind.startswith("float")
        low, high, wanted = (0.0, 1.0, "0 to 1") if self._pixels else (-most, most, "finite numbers")
        if floats and array.size and not (float(xp.min(array)) >= low and float(xp.max(array)) <= high):
            raise ValueError(f"floats from {float(xp.min(array)):.9g} to {float(xp.max(array)):.9g}; give {wanted}")
        if not floats and kind not in (DTYPES[:1] if self._pixels else DTYPES):
            wanted = "uint8 from 0 to 255, or floats from 0 to 1" if self._pixels else " or ".join(DTYPES)
            raise TypeError(f"images have dtype {kind}; give {wanted}")
        return array[None, ...] if alone else array, alone

    __call__ = logits

    def probabilities(self, images: Array | Photograph | Sequence[Photograph]) -> Array:
        """Return the network's probability of each class, the softmax of `logits`, which sums to 1.

        For yes/no labels it is the sigmoid, the probability of each. TypeError if the network predicts numbers.
        """
        return self.checkpoint.task.probabilities(self.logits(images))

    def predict(self, images: Array | Photograph | Sequence[Photograph]) -> list[Any]:
        """Return the names of the classes that images, as `logits` takes them, most probably belong to.

        For yes/no labels the result is a tuple of those with a probability above 1/2; for numbers a tuple of them, in
        the units of the training data.
        """
        return self.checkpoint.task.predicted(np.atleast_2d(to_numpy(self.logits(images))), self.class_names)

    @property
    def _architecture(self) -> Architecture:
        return architecture_of(self.network.config)
