"""One's own images: a folder, arrays in a file .npz, or what a function of one's own returns."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import DTYPES, KINDS, MOST_AXES, DataError, Dataset, are_class_names, describe_array
from train.data.folder import is_folder, load_folder
from train.data.labels import AUTO, kind_of_labels, labels_as
from train.storage.files import user_path

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""Names of the arrays of a data set: images and labels."""

OTHERS = {"x": ("x", "images", "data"), "y": ("y", "labels")}
ALIASES = {key: [key, *(f"{key[2:]}_{other}" for other in OTHERS[key[0]])] for key in ARRAYS}
"""Names that each may have, in small letters."""

MOST_COLOURS = 4
"""Channels of images that need not say what they are."""

UNNAMED = "unnamed"
"""What the images of a run are called that a program gave as arrays."""

HOOK = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""MODULE:FUNCTION."""


def is_function(name: str) -> bool:
    """Return whether a data set's name is that of a function, MODULE:FUNCTION."""
    return HOOK.fullmatch(name) is not None


def is_custom(name: str) -> bool:
    """Return whether a data set's name is a file .npz, a folder, a function, or that of images without a name."""
    return name.lower().endswith(".npz") or is_folder(name) or is_function(name) or name == UNNAMED


def has_axes(name: str) -> bool:
    """Return whether what a data set's name leads to may have other axes of space than those of images."""
    return name.lower().endswith(".npz") or is_function(name)


def load_custom(name: str, cache: Path, *, mapped: bool = False, axes: int = 0, task: str = AUTO) -> Dataset:
    """Load one's own images; what is decoded is kept in a folder; `axes` of space are the network's."""
    if name == UNNAMED:
        raise DataError(
            "a program gave these images, and nothing names them; name others with --dataset FILE.npz or DIR"
        )
    if is_folder(name):
        return load_folder(name, cache, mapped=mapped, task=task)
    return (_from_function if is_function(name) else _from_file)(name, axes, task)


def dataset_from_arrays(name: str, arrays: Mapping[str, Any], network_axes: int = 0, task: str = AUTO) -> Dataset:
    """Return a data set made of arrays, which may have other usual names; `task` says what the labels are.

    Where they leave open how many axes of space they have, the network says it.
    """
    known = {str(key).lower(): key for key in arrays}
    names = {key: next((known[other] for other in ALIASES[key] if other in known), None) for key in ARRAYS}
    if missing := [key for key, own in names.items() if own is None]:
        has = ", ".join(map(str, arrays)) or "none"
        text = f"{name}: no array {', '.join(missing)}; expected {', '.join(ARRAYS)}, it has {has}"
        if {"x", "y"} <= known.keys():
            text += (
                "; hold some out for the test: savez(FILE, x_train=X[n:], y_train=y[n:], x_test=X[:n], y_test=y[:n])"
            )
        raise DataError(text)
    raw = {key: arrays[own] for key, own in names.items() if own is not None}
    if masked := [key for key, array in raw.items() if np.ma.isMaskedArray(array)]:
        raise DataError(f"{name}: {masked[0]} has a mask, which nothing reads; {masked[0]}.filled(0) decides")
    of = {key: np.asarray(array) for key, array in raw.items()}
    axes = np.asarray(arrays.get("space_axes", 0))
    if axes.shape != () or axes.dtype.kind not in "iu" or axes not in range(MOST_AXES + 1):
        raise DataError(f"{name}: space_axes is {axes.tolist()!r}; give 1 for signals, 2 for images, 3 for volumes")
    x, notes = of["x_train"], []
    usual = 2 if x.ndim == 3 and x.dtype == np.uint8 else 0
    if not axes and _is_open(x) and x.ndim - network_axes in (1, 2) and network_axes != usual:
        axes, channels = np.asarray(network_axes), x.shape[-1] if x.ndim - network_axes == 2 else 1
        notes.append(
            f"{name}: x_train, {describe_array(x)}, is read as {KINDS[network_axes]} of {channels} channels, "
            f"since the network takes {KINDS[network_axes]}"
        )
    images = [_images(name, key, of[key], int(axes)) for key in ARRAYS[::2]]
    train, test = of["y_train"], of["y_test"]
    columns = [[length for length in labels.shape[1:] if length != 1] for labels in (train, test)]
    if (train.dtype.kind in "iu") != (test.dtype.kind in "iu") or columns[0] != columns[1]:
        both = f"{describe_array(train)} and {describe_array(test)}"
        raise DataError(f"{name}: y_train and y_test are {both}; give both of one kind, with as many columns")
    kind, said = kind_of_labels(name, "y_train", train, task)
    labels = [labels_as(name, key, of[key], kind) for key in ARRAYS[1::2]]
    notes += said
    if more := [str(key) for key in arrays if key not in names.values() and key not in ("class_names", "space_axes")]:
        notes.append(f"arrays of {name} that are not used: {', '.join(more)}")
    classes = _class_names(name, np.asarray(arrays["class_names"]) if "class_names" in arrays else None, labels[0])
    return Dataset(name, classes, images[0], labels[0], images[1], labels[1], tuple(notes))


def _from_file(path: str, axes: int, task: str) -> Dataset:
    if not os.path.isfile(file_path := user_path(path)):
        raise DataError(f"there is no file {path}; name one with --dataset FILE.npz")
    try:
        with open(file_path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            wanted = {"class_names", "space_axes", *(other for names in ALIASES.values() for other in names)}
            arrays = {key: file[key] if key.lower() in wanted else None for key in file.files}
    except MemoryError as error:
        raise DataError(f"{path}: {str(error) or 'it does not fit in memory'}; it is damaged or too large") from error
    except Exception as error:  # zipfile, zlib and NumPy fail in many ways on a damaged file
        reason = "an array of Python objects" if "allow_pickle" in str(error) else " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); make it with numpy.savez of arrays of numbers") from error
    return dataset_from_arrays(path, arrays, axes, task)


def _from_function(name: str, axes: int, task: str) -> Dataset:
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
        return dataset_from_arrays(name, result, axes, task)
    raise DataError(
        f"{name} returned a {type(result).__name__}; expected a mapping of {', '.join(ARRAYS)}, or a Dataset"
    )


def _is_open(array: NDArray[Any]) -> bool:
    """Whether the last axis of an array may be one of space or that of channels."""
    return array.ndim == 3 or (array.ndim == 4 and array.shape[3] > MOST_COLOURS)


def _images(name: str, key: str, array: NDArray[Any], axes: int) -> NDArray[Any]:
    """Images, signals or volumes with a channel axis; `axes` of space, 0 where nobody says how many."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in DTYPES or array.ndim not in range(2, MOST_AXES + 3) or 0 in array.shape:
        raise DataError(
            f"{name}: {key} is {describe_array(array)}; expected {' or '.join(DTYPES)} of shape (N, H, W, C) with "
            "channels C, or (N, H, W); signals (N, T, C) or (N, T); or volumes (N, D, H, W, C)"
        )
    grey = array.ndim == 3 and array.dtype == np.uint8
    if not axes and not grey and _is_open(array):
        one, other = KINDS[array.ndim - 2], KINDS[array.ndim - 1]
        raise DataError(
            f"{name}: {key} is {describe_array(array)}; say with an array space_axes whether these are {one} of "
            f"{array.shape[-1]} channels ({array.ndim - 2}) or {other} of one ({array.ndim - 1}), or with --preset "
            "signal or volume"
        )
    axes = axes or {2: 1, 3: 2, 4: 2, 5: 3}[array.ndim]
    if array.ndim - axes not in (1, 2):
        raise DataError(
            f"{name}: {key} is {describe_array(array)}, and space_axes is {axes}; expected {axes + 1} axes, or "
            f"{axes + 2} with channels"
        )
    return np.ascontiguousarray(array[..., None] if array.ndim == axes + 1 else array)


def _class_names(name: str, array: NDArray[Any] | None, labels: NDArray[Any]) -> tuple[str, ...]:
    """Names of the classes, labels or numbers: those given, or their places."""
    columns = labels.shape[1] if labels.ndim == 2 else 0
    if array is not None:
        names = tuple(array.tolist()) if array.ndim == 1 and array.dtype.kind == "U" else ()
        if are_class_names(names) and (len(names) == columns or (len(names) > 1 and not columns)):
            return names
        wanted = f"{columns} different strings, a name for each column of y_train"
        wanted = wanted if columns else "two or more different strings, a name per class"
        raise DataError(f"{name}: class_names is {describe_array(array)}; expected {wanted}")
    if columns:
        return tuple(map(str, range(columns)))
    highest = int(labels.max(initial=0))
    if not 0 < highest < labels.size or labels.min() > 0:
        raise DataError(
            f"{name}: y_train holds {labels.min() if labels.size else 0} to {highest} for {labels.size} images; number "
            "the classes 0, 1, 2, .., or give class_names"
        )
    return tuple(map(str, range(highest + 1)))
