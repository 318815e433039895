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

from train.data.dataset import DTYPES, KINDS, MOST_AXES, DataError, Dataset, describe_array
from train.data.folder import is_folder, load_folder

__all__ = ["ARRAYS", "UNNAMED", "dataset_from_arrays", "has_axes", "is_custom", "is_function", "load_custom"]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
"""Names of the arrays of a data set: images and labels."""

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
    return name.endswith(".npz") or is_folder(name) or is_function(name) or name == UNNAMED


def has_axes(name: str) -> bool:
    """Return whether what a data set's name leads to may have other axes of space than those of images."""
    return name.endswith(".npz") or is_function(name)


def load_custom(name: str, kept: Path, axes: int = 0) -> Dataset:
    """Load one's own images; what is decoded is kept in a folder; `axes` of space are the network's."""
    if name == UNNAMED:
        raise DataError(
            "a program gave these images, and nothing names them; name others with --dataset FILE.npz or DIR"
        )
    if is_folder(name):
        return dataset_from_arrays(name, load_folder(name, kept))
    return _from_function(name, axes) if is_function(name) else _from_file(name, axes)


def dataset_from_arrays(name: str, arrays: Mapping[str, Any], network_axes: int = 0) -> Dataset:
    """Return a data set made of arrays; where they leave open how many axes of space they have, the network says it."""
    missing = [key for key in ARRAYS if key not in arrays]
    if missing:
        has = ", ".join(map(str, arrays)) or "none"
        raise DataError(f"{name}: no array {', '.join(missing)}; expected {', '.join(ARRAYS)}, it has {has}")
    if masked := [key for key in ARRAYS if np.ma.isMaskedArray(arrays[key])]:
        raise DataError(f"{name}: {masked[0]} has a mask, which nothing reads; {masked[0]}.filled(0) decides")
    axes = np.asarray(arrays.get("space_axes", 0))
    if axes.shape != () or axes.dtype.kind not in "iu" or axes not in range(MOST_AXES + 1):
        raise DataError(f"{name}: space_axes is {axes.tolist()!r}; give 1 for signals, 2 for images, 3 for volumes")
    notes, x = tuple(map(str, arrays.get("notes", ()))), np.asarray(arrays["x_train"])
    usual = 2 if x.ndim == 3 and x.dtype == np.uint8 else 0
    if not axes and _is_open(x) and x.ndim - network_axes in (1, 2) and network_axes != usual:
        axes, channels = np.asarray(network_axes), x.shape[-1] if x.ndim - network_axes == 2 else 1
        notes += (
            f"{name}: x_train, {describe_array(x)}, is read as {KINDS[network_axes]} of {channels} channels, "
            f"since the network takes {KINDS[network_axes]}",
        )
    images = [_images(name, key, np.asarray(arrays[key]), int(axes)) for key in ARRAYS[::2]]
    labels = [_labels(name, key, np.asarray(arrays[key])) for key in ARRAYS[1::2]]
    if labels[0].dtype != labels[1].dtype or labels[0].shape[1:] != labels[1].shape[1:]:
        found = " and ".join(describe_array(np.asarray(arrays[key])) for key in ARRAYS[1::2])
        raise DataError(f"{name}: y_train and y_test are {found}; give both of one kind, with as many columns")
    names = _class_names(name, np.asarray(arrays["class_names"]) if "class_names" in arrays else None, labels[0])
    return Dataset(name, names, images[0], labels[0], images[1], labels[1], notes)


def _from_file(path: str, axes: int) -> Dataset:
    if not os.path.isfile(path):
        raise DataError(f"there is no file {path}; name one with --dataset FILE.npz")
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in (*ARRAYS, "class_names", "space_axes") if key in file}
            others = {key: None for key in file.files if key not in arrays}
    except MemoryError as error:
        raise DataError(f"{path}: {str(error) or 'it does not fit in memory'}; it is damaged or too large") from error
    except Exception as error:  # zipfile, zlib and NumPy fail in many ways on a damaged file
        reason = "an array of Python objects" if "allow_pickle" in str(error) else " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); make it with numpy.savez of arrays of numbers") from error
    return dataset_from_arrays(path, others | arrays, axes)


def _from_function(name: str, axes: int) -> Dataset:
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # a console script does not search the working directory
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)()
    except MemoryError:
        raise
    except Exception as error:  # it is the user's
        raise DataError(f"{name} cannot be called: {type(error).__name__}: {error}; --debug shows where") from error
    if isinstance(found, Dataset):
        return dataclasses.replace(found, name=name)
    if isinstance(found, Mapping):
        return dataset_from_arrays(name, found, axes)
    raise DataError(
        f"{name} returned a {type(found).__name__}; expected a mapping of {', '.join(ARRAYS)}, or a Dataset"
    )


def _is_open(array: NDArray[Any]) -> bool:
    """Whether the last axis of an array may be one of space or that of channels."""
    return array.ndim == 3 or (array.ndim == 4 and array.shape[3] > MOST_COLOURS)


def _images(name: str, key: str, array: NDArray[Any], axes: int) -> NDArray[Any]:
    """Images, signals or volumes with a channel axis; `axes` of space, 0 where nobody says how many."""
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


def _labels(name: str, key: str, array: NDArray[Any]) -> NDArray[Any]:
    """Classes without a second axis; yes/no labels as bools, or numbers as floats, with one."""
    if array.dtype.kind == "f" and array.ndim in (1, 2):
        return array.reshape(len(array), -1).astype(np.float64)
    several = array.ndim == 2 and array.shape[1] > 1
    if (array.dtype.kind == "b" and array.ndim in (1, 2)) or (several and array.dtype.kind in "iu"):
        if array.size and not 0 <= int(array.min()) <= int(array.max()) <= 1:
            raise DataError(f"{name}: {key} holds {array.min()} to {array.max()}; give yes/no labels as 0 and 1")
        return array.reshape(len(array), -1).astype(np.bool_)
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
        raise DataError(
            f"{name}: {key} is {describe_array(array)}; expected "
            "integers from 0 of shape (N,), yes/no labels (N, L), bool or 0 and 1, or numbers, floats (N,) or (N, T)"
        )
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**31:
        raise DataError(f"{name}: {key} holds {array.min()} to {array.max()}; number the classes from 0")
    return array.reshape(-1).astype(np.int64)


def _class_names(name: str, given: NDArray[Any] | None, labels: NDArray[Any]) -> tuple[str, ...]:
    """Names of the classes, labels or numbers: those given, or their places."""
    several = labels.ndim == 2
    if given is not None:
        names = tuple(given.tolist()) if given.ndim == 1 and given.dtype.kind == "U" else ()
        if several and len(set(names)) == labels.shape[1] and "" not in names:
            return names
        if several:
            raise DataError(
                f"{name}: class_names is {describe_array(given)}; expected {labels.shape[1]} different strings, a name "
                "for each column of y_train"
            )
        if len(set(names)) < 2 or len(set(names)) != len(names) or "" in names:
            raise DataError(
                f"{name}: class_names is {describe_array(given)}; expected two or more different "
                "strings, a name per class"
            )
        return names
    if several:
        return tuple(map(str, range(labels.shape[1])))
    highest = int(labels.max(initial=0))
    if not 0 < highest < labels.size or labels.min() > 0:
        raise DataError(
            f"{name}: y_train holds {labels.min() if labels.size else 0} to {highest} for {labels.size} images; number "
            "the classes 0, 1, 2, .., or give class_names"
        )
    return tuple(map(str, range(highest + 1)))
