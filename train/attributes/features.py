"""Invariant attribute arrays (Eq. 9 of arXiv:1703.04140) of all images of a data set, in a file that is kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodiff import tree_map
from hcnn_core import convolve
from hcnn_core.backend import Array, array_namespace, to_numpy
from hcnn_core.typing import Boundary
from train.data import Dataset, standardise
from train.networks.hierarchical import HierarchicalLayer, hierarchy
from train.networks.layer import IMAGES, Moments, Parameters
from train.networks.network import Network
from train.runs.run import RunError, writing
from train.storage.files import made_whole, remove_partial_files
from train.storage.hdf5 import open_hdf5, unreadable
from train.verification.covariance import Subject

V_AXES = ("v_{j-1}", "v_{j-2}", "v_j")
"""Axes of x_j along which arrays can be translated."""

FIRST = 3
"""The first depth whose outputs have three attributes."""

BATCH = 100
"""Images in one forward pass."""

SCHEMA = 1


@dataclass(frozen=True)
class Model:
    """A network with its weights, as a function of the images' pixels."""

    network: Network  # the layers
    parameters: Parameters  # their weights
    moments: Moments  # running moments
    mean: Any  # statistics that standardise images, in units of a pixel value
    std: Any
    key: str  # names the weights: equal keys, equal weights

    @property
    def depths(self) -> range:
        """The depths j whose outputs have three attributes: 3 to J-1."""
        return range(FIRST, len(hierarchy(self.network)) + 1)

    def standardised(self, images: Array) -> Array:
        """Return images as the network takes them."""
        config = self.network.config
        return standardise(images, self.mean, self.std, config.dtype, config.standardize)

    def start(self, images: Array) -> Array:
        """Return the input of layer 1: standardised images, or the output of rows before it."""
        x, name = self.standardised(images), hierarchy(self.network)[0].reads[0]
        return x if name == IMAGES else self.network.output(name, self.parameters, x, self.moments)

    def outputs(self, images: Array) -> Iterator[tuple[HierarchicalLayer, Array]]:
        """Yield each layer with its output x_j, in evaluation mode."""
        for layer, x, _ in self.network.trace(self.parameters, self.standardised(images), self.moments):
            if isinstance(layer, HierarchicalLayer):
                yield layer, x

    def layer(self, j: int) -> Callable[[Array], Array]:
        """Return x_{j-1} -> x_j, in evaluation mode."""
        table = hierarchy(self.network)
        source, name = table[j - 2].name if j > 1 else table[0].reads[0], table[j - 1].name
        return lambda x: self.network.output(name, self.parameters, {source: x}, self.moments)

    def subject(self, images: Array) -> Subject:
        """Return what `train.verification.covariance` measures."""
        x = standardise(images, self.mean, self.std, "float64", self.network.config.standardize)
        return Subject.of(self.network, self.parameters, self.moments, x, dtype="float64", precision="float32")

    def untrained(self, images: Array, seed: int) -> Model:
        """Return the same layers with initial weights, and moments of some images."""
        xp = array_namespace(images)
        parameters = tree_map(xp.asarray, self.network.initialize(np.random.default_rng(seed)))
        _, moments = self.network(parameters, self.standardised(images))
        statistics = (np.asarray(a).tolist() for a in (self.mean, self.std))
        settings = json.dumps([vars(self.network.config), *statistics], sort_keys=True)
        return replace(self, parameters=parameters, moments=moments, key=f"untrained, seed {seed}: {settings}")


def boundary_of(model: Model) -> Boundary:
    """Return how a network extends its arrays along attributes."""
    return model.network.config.boundaries[1]


def invariant_array(x: Array, axis: str = "v_{j-1}", position: tuple[float, float] = (0.5, 0.5)) -> Array:
    """Return the invariant attribute array of Eq. (9): x_j at one position of space, summed over one attribute.

    Section 5.3 of arXiv:1703.04140.
    """
    if x.ndim != 6:
        raise ValueError(f"x has {x.ndim} axes; give the output of a layer from j = 3 on, which has 6")
    if axis not in V_AXES:
        raise ValueError(f"axis is {axis!r}; choose {', '.join(V_AXES)}")
    if not all(0 <= p < 1 for p in position):
        raise ValueError(f"position is {position}; give row and column from 0 up to, not including, 1")
    xp = array_namespace(x)
    row, column = (int(p * n) for p, n in zip(position, x.shape[1:3], strict=True))
    array = xp.sum(x[:, row, column, :, :, :], axis=2 if axis == "v_{j-2}" else 1)
    return xp.permute_dims(array, (0, 2, 1)) if axis == "v_j" else array


def mean_array(x: Array) -> Array:
    """Return the mean of x_j over space, summed over v_{j-2} where there are three attributes."""
    xp = array_namespace(x)
    means = xp.mean(x, axis=(1, 2))
    means = xp.sum(means, axis=1) if means.ndim == 4 else means
    return xp.reshape(means, (means.shape[0], -1))


def smooth(arrays: Array, width: int, boundary: Boundary) -> Array:
    """Average consecutive samples along the axis that is to be translated, as section 5.3 asks."""
    if width == 1:
        return arrays
    xp = array_namespace(arrays)
    means: Any = convolve(arrays, xp.full((width,), 1 / width, dtype=arrays.dtype), 1, boundary=boundary)
    return means


class Features:
    """Arrays of every image of a data set, read from a file depth by depth."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def arrays(self, part: str, j: int) -> np.ndarray[Any, Any]:
        """Return the invariant attribute arrays of depth j."""
        return self._read(f"{part}/array{j:02d}")

    def means(self, part: str, j: int) -> np.ndarray[Any, Any]:
        """Return the means over space of depth j."""
        return self._read(f"{part}/mean{j:02d}")

    def _read(self, name: str) -> np.ndarray[Any, Any]:
        try:
            with open_hdf5(self.path) as file:
                return np.asarray(file[name][...])
        except (OSError, KeyError) as error:
            if why := unreadable(error):
                raise RunError(f"cannot read the features in {self.path}: {why}") from error
            raise RunError(f"the features in {self.path} are damaged; remove the file and begin again") from error


def features(
    model: Model,
    dataset: Dataset,
    folder: Path,
    *,
    axis: str,
    position: tuple[float, float],
    xp: Any = np,
    progress: Callable[[int], None] = lambda images: None,
) -> Features:
    """Return the arrays of every image, computed unless a file has them.

    The file is beside others of its kind, and its name holds a digest of everything the arrays depend on. At every
    moment it is either whole or absent. One batch of images is in memory at a time.
    """
    key = {"schema": SCHEMA, "weights": model.key, "images": _digest(dataset), "axis": axis, "position": list(position)}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"features-{name}.h5"
    if _is_whole(path, key):
        progress(sum(len(images) for images in _images(dataset).values()))
        return Features(path)
    with writing(f"the features {path}"):
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
        with made_whole(path) as partial:
            _write(partial, key, model, dataset, xp, progress)
    return Features(path)


def _images(dataset: Dataset) -> dict[str, Any]:
    return {"train": dataset.train_images, "test": dataset.test_images}


def _digest(dataset: Dataset) -> str:
    """SHA-256 of all pixels."""
    digest = hashlib.sha256()
    for images in _images(dataset).values():
        digest.update(str(images.shape).encode())
        digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def _is_whole(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a file holds the arrays of its key; one that cannot be read is made again."""
    try:
        with open_hdf5(path) as file:
            return bool(file.attrs.get("key") == json.dumps(key))
    except OSError:
        return False


class _Stream(io.FileIO):
    """A file that keeps the first error of a write for later: HDF5 crashes if it sees one while it closes."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            done = 0
            while done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.error = self.error or error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


def _write(
    path: Path, key: Mapping[str, Any], model: Model, dataset: Dataset, xp: Any, progress: Callable[[int], None]
) -> None:
    """Compute and write everything, batch by batch; OSError if the disk does not take it."""
    import h5py

    axis, position = key["axis"], tuple(key["position"])
    with _Stream(path, "w+b") as stream:
        try:
            with h5py.File(stream, "w", libver="v110") as file:
                for part, images in _images(dataset).items():
                    for begin in range(0, len(images), BATCH):
                        end = min(begin + BATCH, len(images))
                        batch = xp.asarray(images[begin:end])
                        for name, arrays in _arrays(model, batch, axis, position):
                            where = f"{part}/{name}"
                            if begin == 0:
                                shape = (len(images), *arrays.shape[1:])
                                chunk = (min(BATCH, len(images)), *arrays.shape[1:])
                                file.create_dataset(where, shape, np.float32, chunks=chunk, fletcher32=True)
                            file[where][begin:end] = to_numpy(arrays)
                        if stream.error:
                            raise stream.error
                        progress(end - begin)
                file.attrs["key"] = json.dumps(key)
        except Exception:
            if stream.error:
                raise stream.error from None
            raise
        if stream.error:
            raise stream.error
        os.fsync(stream.fileno())


def _arrays(model: Model, images: Array, axis: str, position: tuple[float, float]) -> Iterator[tuple[str, Array]]:
    """Names and arrays of a batch of images."""
    yield "mean00", mean_array(model.start(images))
    for layer, x in model.outputs(images):
        yield f"mean{layer.j:02d}", mean_array(x)
        if layer.j >= FIRST:
            yield f"array{layer.j:02d}", invariant_array(x, axis, position)
