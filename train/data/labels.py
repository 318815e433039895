"""How to read data, as the user, a program or a checkpoint says, and the kind of labels that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import DataError, HowRead, describe_array
from train.data.targets import AUTO, LABEL_KINDS

TRAIN, HELD_OUT, TEST = "train", "held out", "test"
PART_WORDS = dict.fromkeys(("train", "training"), TRAIN) | dict.fromkeys(("test", "testing"), TEST)
PART_WORDS |= dict.fromkeys(("val", "valid", "validation", "dev"), HELD_OUT)
"""Parts by the names of folders, in small letters."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read data, as flags, arguments or a checkpoint say.

    Parameters
    ----------
    axes : int, optional
        Axes of space, 1 to 3, for arrays whose shape leaves them open; 0: the shape has to decide.
    task : {"auto", "classes", "labels", "numbers"}, optional
        Kind of labels; by default their dtype and shape decide.
    size : tuple of int, optional
        Pixels along each axis that the pictures of a folder are brought to; by default their own size, or 32 x 32 where
        they differ.
    parts : mapping of str to str, optional
        The part ("train", "held out" or "test") of a folder by its name in small letters.
    values : {"", "float32", "float64"}, optional
        Dtype that a folder's values are brought to where they are no bytes; by default one that keeps them.

    Raises
    ------
    ValueError
        If `task` is none of these.
    """

    axes: int = 0
    task: str = AUTO
    size: tuple[int, ...] = ()
    parts: Mapping[str, str] = dataclasses.field(default_factory=lambda: PART_WORDS, hash=False)
    values: str = ""

    def __post_init__(self) -> None:
        if self.task not in (AUTO, *LABEL_KINDS):
            raise ValueError(f"task is {self.task!r}; choose {', '.join((AUTO, *LABEL_KINDS))}")

    def labels(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> tuple[list[NDArray[Any]], str, list[str]]:
        """Return arrays of labels as a `Dataset` has them, their kind, of `LABEL_KINDS`, and lines that explain it.

        `task` decides. Without it the first array does: integers (N,) or (N, 1) are classes; bools, or integers of
        several columns, yes/no labels; floats are numbers. DataError for one-hot labels, which may be classes or yes/no
        labels.
        """
        kind, notes = self.task, list[str]()
        if kind == AUTO:
            kind, notes = _kind_of(name, *next(iter(arrays.items())))
        return [_labels_as(kind, f"{name}: {key}", array) for key, array in arrays.items()], kind, notes


UNTOLD = Reading()
"""The reading of data about which nothing is said."""


def is_one_hot(array: NDArray[Any]) -> bool:
    """Return whether each row of an array has a 1, and zeros else, not all in one column."""
    if array.ndim != 2 or array.shape[1] < 2 or len(array) < 2 or array.dtype.kind not in "biuf":
        return False
    places = array.argmax(axis=1)
    return bool(((array == 1).sum(axis=1) == 1).all() and (array != 0).sum() == len(array) and np.ptp(places) > 0)


def _kind_of(name: str, key: str, array: NDArray[Any]) -> tuple[str, list[str]]:
    """Return the kind of labels by dtype and shape, and a line if another kind is possible."""
    classes, labels, numbers = LABEL_KINDS
    if is_one_hot(array):
        raise DataError(
            f"{name}: {key} is {describe_array(array)}, one-hot: each row has a single 1; give --task {classes} (in "
            f"Python make_config(PRESET, {{'task': '{classes}'}})) or its argmax(axis=1) for classes, --task {labels} "
            "for yes/no labels"
        )
    if array.dtype.kind == "f":
        whole = array.size and np.isfinite(array).all() and (array == np.rint(array)).all() and not (array < 0).any()
        said = f"{name}: {key} is {array.dtype}, so its whole numbers are numbers to predict; --task {classes} takes "
        return numbers, [HowRead(f"{said}them as classes")] if whole and array.size == len(array) else []
    several = array.ndim == 2 and array.shape[1] > 1
    if array.dtype.kind == "b" or (several and array.dtype.kind in "iu"):
        return labels, [HowRead(f"{name}: {key} is {describe_array(array)}: taken as yes/no labels")]
    return classes, []


def _labels_as(kind: str, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Labels as a `Dataset` has them: classes int64 (N,), yes/no labels bool (N, L), numbers float64 (N, T)."""
    classes, labels, _ = LABEL_KINDS
    low, high = (array.min(), array.max()) if array.size and array.dtype.kind in "biuf" else (0, 0)
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise DataError(
            f"{name} is {describe_array(array)}; expected "
            "integers from 0 of shape (N,), yes/no labels (N, L), bool or 0 and 1, or numbers, floats (N,) or (N, T)"
        )
    if kind == labels:
        if not 0 <= low <= high <= 1 or (array != np.rint(array)).any():
            raise DataError(f"{name} holds {low} to {high}; give yes/no labels as 0 and 1")
        return array.reshape(len(array), -1).astype(np.bool_)
    if kind != classes:
        return array.reshape(len(array), -1).astype(np.float64)
    if is_one_hot(array):
        return array.argmax(axis=1).astype(np.int64)
    if array.size != len(array) or not np.isfinite(array).all() or (array != np.rint(array)).any():
        raise DataError(f"{name} is {describe_array(array)}; expected a whole number for each class, (N,)")
    if not 0 <= int(low) <= int(high) < 2**31:
        raise DataError(f"{name} holds {low} to {high}; number the classes from 0")
    return array.reshape(-1).astype(np.int64)
