"""The one function that loads any data, by its name and a `Reading`.

A name leads to CIFAR, to the embedded sample, to a folder, to a file of arrays, or to a function of one's own.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.cifar import INFO, load_cifar
from train.data.dataset import (
    DTYPES,
    MOST_AXES,
    MOST_COLOURS,
    UNITS,
    DataError,
    Dataset,
    HowRead,
    are_class_names,
    describe_array,
)
from train.data.download import Progress, show_progress
from train.data.folder import is_folder, load_folder, named_folder, sized
from train.data.labels import UNTOLD
from train.data.labels import Reading as Reading
from train.data.readers import FILE, is_data_file, reader_of
from train.data.targets import AUTO
from train.storage.files import user_path

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""Names of the arrays of a data set: images and labels."""

OTHERS = {"x": ("x", "images", "data"), "y": ("y", "labels")}
ALIASES = {key: [key, *(f"{key[2:]}_{other}" for other in OTHERS[key[0]])] for key in ARRAYS}
"""Other names of each array, in small letters."""

OPTIONAL = ("class_names", "space_axes")
"""Names of optional arrays."""

UNNAMED = "unnamed"
"""The name of data that a program gave as arrays."""

HOOK = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""MODULE:FUNCTION."""


def load(
    name: str | os.PathLike[str],
    reading: Reading = UNTOLD,
    data_dir: str | os.PathLike[str] = "data",
    *,
    download: bool = True,
    progress: Progress = show_progress,
    mapped: bool = False,
) -> Dataset:
    """Load a data set as `load_dataset` does, by a reading."""
    if not isinstance(name, str) or name not in INFO:
        name = named_folder(name)
    data_dir = user_path(data_dir)
    if name in INFO:
        return load_cifar(name, data_dir, download=download, progress=progress, mapped=mapped)
    if name == UNNAMED:
        raise DataError(
            f"a program gave these images, and nothing names them; name others with --dataset {FILE} or DIR"
        )
    if is_folder(name):
        name, size = sized(name)
        return load_folder(name, dataclasses.replace(reading, size=size or reading.size), data_dir, mapped=mapped)
    if is_function(name):
        return _from_function(name, reading)
    if is_data_file(name):
        return _from_file(name, reading)
    raise ValueError(f"dataset is {name!r}; {what_would_do(name)}")


def load_dataset(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] = "data",
    *,
    download: bool = True,
    progress: Progress = show_progress,
    mapped: bool = False,
    axes: int = 0,
    task: str = AUTO,
) -> Dataset:
    """Load a data set; CIFAR is downloaded first if it is not there.

    CIFAR is looked for in `data_dir` and its subfolders in its binary form, unpacked or as the official archive
    (``cifar-10-batches-bin``, ``cifar-10-binary.tar.gz``, ``cifar-100-binary``, ``cifar-100-binary.tar.gz``);
    `data_dir` may be that folder itself. Shorter files in the same format load too, and so does a folder whose files
    are each compressed as NAME.xz. CIFAR-100 is labelled by its fine labels.

    Parameters
    ----------
    name : str or path
        ``"cifar10"``, ``"cifar100"``, or ``"sample"``: 2,000 training and 500 test images of CIFAR-10 that come with
        the package. Or one's own images: a folder, a file of arrays, or ``"MODULE:FUNCTION"``, see `train.data.folder`
        and `train.data.readers`. A folder with one of the known names is ``"sample/"`` or a path.
    data_dir : path, optional
        The folder of CIFAR's files, or for the archive, and for the decoded pixels of pictures.
    download : bool, optional
        Whether to fetch the official archive when nothing is found.
    progress : callable, optional
        Called as ``progress(file, bytes done, bytes in all)`` during a download.
    mapped : bool, optional
        Whether images stay in their files until they are wanted, as `MappedImages`; files that are not whole binary
        ones in a folder are loaded all the same.
    axes : int, optional
        Axes of space that the network takes, for one's own arrays whose shape leaves them open.
    task : {"auto", "classes", "labels", "numbers"}, optional
        Kind of the labels of one's own images; by default their dtype and shape decide.

    Returns
    -------
    Dataset
        Its images and labels.

    Raises
    ------
    ValueError
        If `name` is none of these.
    DataError
        If the files are missing and cannot be downloaded, or are damaged, or hold something else.

    Notes
    -----
    Where the environment variable HCNN_PARTIAL_DATA is 1, files of the training set may be missing, but for one: for
    machines that the files reach one by one.
    """
    return load(name, Reading(axes, task), data_dir, download=download, progress=progress, mapped=mapped)


def what_would_do(name: str) -> str:
    """Return the kinds of data sets in words, or how to make a data set of a file."""
    arrays = ", ".join(f"{key}=.." for key in ARRAYS)
    cure = f"; numpy.savez('FILE.npz', {arrays}) makes such a file of arrays" if os.path.splitext(name)[1] else ""
    return f"choose {', '.join(INFO)}, a file {FILE}, a folder that there is, or MODULE:FUNCTION{cure}"


def is_function(name: str) -> bool:
    """Return whether a data set's name is that of a function, MODULE:FUNCTION."""
    return HOOK.fullmatch(name) is not None


def is_custom(name: str) -> bool:
    """Return whether a data set's name is a file of arrays, a folder, a function, or that of images without a name."""
    return has_axes(name) or is_folder(name) or name == UNNAMED


def has_axes(name: str) -> bool:
    """Return whether the data of this name may have one or three axes of space."""
    return is_data_file(name) or is_function(name)


def dataset_from_arrays(name: str, arrays: Mapping[str, Any], reading: Reading = UNTOLD) -> Dataset:
    """Return a data set made of arrays, also by other usual names."""
    of, unused = _recognised(name, arrays)
    axes, notes = _space_axes(name, arrays.get("space_axes", 0), of["x_train"], reading.axes)
    images = [_images(name, key, of[key], axes) for key in ARRAYS[::2]]
    train, test = of["y_train"], of["y_test"]
    columns = [[length for length in labels.shape[1:] if length != 1] for labels in (train, test)]
    if (train.dtype.kind in "iu") != (test.dtype.kind in "iu") or columns[0] != columns[1]:
        both = f"{describe_array(train)} and {describe_array(test)}"
        raise DataError(f"{name}: y_train and y_test are {both}; give both of one kind, with as many columns")
    labels, task, said = reading.labels(name, {key: of[key] for key in ARRAYS[1::2]})
    notes += [*said, *([f"arrays of {name} that are not used: {', '.join(unused)}"] if unused else [])]
    names = _class_names(name, np.asarray(arrays["class_names"]) if "class_names" in arrays else None, labels[0])
    return Dataset(name, names, images[0], labels[0], images[1], labels[1], tuple(notes), task=task)


def _recognised(name: str, arrays: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return images and labels by their names in `ARRAYS`, and the names of arrays that are not read."""
    known = {str(key).lower(): key for key in arrays}
    names = {key: [known[alias] for alias in ALIASES[key] if alias in known] for key in ARRAYS}
    if missing := [key for key, aliases in names.items() if not aliases]:
        has = ", ".join(map(str, arrays)) or "none"
        split = "savez(FILE, x_train=X[n:], y_train=y[n:], x_test=X[:n], y_test=y[:n])"
        cure = f"; hold some out for the test: {split}" if {"x", "y"} <= known.keys() else ""
        raise DataError(f"{name}: no array {', '.join(missing)}; expected {', '.join(ARRAYS)}, it has {has}{cure}")
    of = {key: arrays[aliases[0]] for key, aliases in names.items()}
    if masked := [key for key, array in of.items() if np.ma.isMaskedArray(array)]:
        raise DataError(f"{name}: {masked[0]} has a mask, which nothing reads; {masked[0]}.filled(0) decides")
    read = {*OPTIONAL, *(aliases[0] for aliases in names.values())}
    return {key: np.asarray(array) for key, array in of.items()}, [str(key) for key in arrays if key not in read]


def _space_axes(name: str, count: Any, x: NDArray[Any], network_axes: int) -> tuple[int, list[str]]:
    """Return how many axes of space are given, or else left to the network, which is noted; 0: the shape says it."""
    axes = np.asarray(count)
    if axes.shape != () or axes.dtype.kind not in "iu" or axes not in range(MOST_AXES + 1):
        raise DataError(f"{name}: space_axes is {axes.tolist()!r}; give 1 for signals, 2 for images, 3 for volumes")
    usual = 2 if x.ndim == 3 and x.dtype == np.uint8 else 0
    if axes or not _is_open(x) or x.ndim - network_axes not in (1, 2) or network_axes == usual:
        return int(axes), []
    kind, channels = UNITS[network_axes], x.shape[-1] if x.ndim - network_axes == 2 else 1
    said = f"is read as {kind} of {channels} channels, since the network takes {kind}"
    return network_axes, [HowRead(f"{name}: x_train, {describe_array(x)}, {said}")]


def _from_file(path: str, reading: Reading) -> Dataset:
    if not os.path.isfile(file_path := user_path(path)):
        raise DataError(f"there is no file {path}; name one with --dataset {FILE}")
    known, reader = {*OPTIONAL, *itertools.chain(*ALIASES.values())}, reader_of(path)
    assert reader is not None
    try:
        with reader.open(file_path) as file:
            arrays = {key: file[key] if key.lower() in known else None for key in file}
    except MemoryError as error:
        raise DataError(f"{path}: {str(error) or 'it does not fit in memory'}; it is damaged or too large") from error
    except Exception as error:  # zipfile, zlib and NumPy fail in many ways on a damaged file
        reason = "an array of Python objects" if "allow_pickle" in str(error) else " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); make it with numpy.savez of arrays of numbers") from error
    return dataset_from_arrays(path, arrays, reading)


def _from_function(name: str, reading: Reading) -> Dataset:
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # a console script does not search the working directory
        sys.path.append(os.getcwd())
    try:
        result = getattr(importlib.import_module(module), function)()
    except MemoryError:
        raise
    except Exception as error:  # it is the user's
        raise DataError(f"{name} cannot be called: {type(error).__name__}: {error}; --debug shows where") from error
    if isinstance(result, Dataset):
        return dataclasses.replace(result, name=name)
    if isinstance(result, Mapping):
        return dataset_from_arrays(name, result, reading)
    raise DataError(
        f"{name} returned a {type(result).__name__}; expected a mapping of {', '.join(ARRAYS)}, or a Dataset"
    )


def _is_open(array: NDArray[Any]) -> bool:
    """Whether the last axis of an array may be one of space or that of channels."""
    return array.ndim == 3 or (array.ndim == 4 and array.shape[3] > MOST_COLOURS)


def _images(name: str, key: str, array: NDArray[Any], axes: int) -> NDArray[Any]:
    """Images, signals or volumes with a channel axis, and `axes` of space; 0: unknown."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    what = f"{name}: {key} is {describe_array(array)}"
    if array.dtype not in DTYPES or array.ndim not in range(2, MOST_AXES + 3) or 0 in array.shape:
        raise DataError(
            f"{what}; expected {' or '.join(DTYPES)} of shape (N, H, W, C) with channels C, or (N, H, W); signals "
            "(N, T, C) or (N, T); or volumes (N, D, H, W, C)"
        )
    if not axes and _is_open(array) and (array.ndim == 4 or array.dtype != np.uint8):
        ones, others = f"{UNITS[array.ndim - 2]} of {array.shape[-1]} channels", f"{UNITS[array.ndim - 1]} of one"
        raise DataError(
            f"{what}; say with an array space_axes whether these are {ones} ({array.ndim - 2}) or {others} "
            f"({array.ndim - 1}), or with --preset signal or volume"
        )
    axes = axes or {2: 1, 3: 2, 4: 2, 5: 3}[array.ndim]
    if array.ndim - axes not in (1, 2):
        raise DataError(f"{what}, and space_axes is {axes}; expected {axes + 1} axes, or {axes + 2} with channels")
    return np.ascontiguousarray(array[..., None] if array.ndim == axes + 1 else array)


def _class_names(name: str, array: NDArray[Any] | None, labels: NDArray[Any]) -> tuple[str, ...]:
    """Names of the classes, labels or numbers: given ones, or their numbers from 0."""
    columns = labels.shape[1] if labels.ndim == 2 else 0
    if array is not None:
        names = tuple(array.tolist()) if array.ndim == 1 and array.dtype.kind == "U" else ()
        if are_class_names(names) and (len(names) == columns or (len(names) > 1 and not columns)):
            return names
        many, of = (columns, "for each column of y_train") if columns else ("two or more", "per class")
        description = describe_array(array)
        raise DataError(f"{name}: class_names is {description}; expected {many} different strings, a name {of}")
    if columns:
        return tuple(map(str, range(columns)))
    highest = int(labels.max(initial=0))
    if not 0 < highest < labels.size or labels.min() > 0:
        raise DataError(
            f"{name}: y_train holds {labels.min() if labels.size else 0} to {highest} for {labels.size} images; number "
            "the classes 0, 1, 2, .., or give class_names"
        )
    return tuple(map(str, range(highest + 1)))
