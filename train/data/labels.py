"""How labels are understood: as classes, yes/no labels or numbers, and in which cases somebody must say it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.dataset import DataError, describe_array
from train.data.targets import KINDS

AUTO = "auto"


def is_one_hot(array: NDArray[Any]) -> bool:
    """Return whether each row of an array has a 1, and zeros else, not all in one column."""
    if array.ndim != 2 or array.shape[1] < 2 or len(array) < 2 or array.dtype.kind not in "biuf":
        return False
    places = array.argmax(axis=1)
    return bool(((array == 1).sum(axis=1) == 1).all() and (array != 0).sum() == len(array) and np.ptp(places) > 0)


def kind_of_labels(name: str, key: str, array: NDArray[Any], task: str = AUTO) -> tuple[str, list[str]]:
    """Return which of `KINDS` labels are, and the line that says it where it could be another.

    `task` decides. Without it integers (N,) or (N, 1) are classes; bools, or integers of several columns, yes/no
    labels; floats are numbers. DataError for one-hot labels, which may be classes or yes/no labels.
    """
    if task != AUTO:
        return task, []
    classes, labels, numbers = KINDS
    if is_one_hot(array):
        raise DataError(
            f"{name}: {key} is {describe_array(array)}, one-hot: each row has a single 1; give --task {classes} or its "
            f"argmax(axis=1) for classes, --task {labels} for yes/no labels"
        )
    if array.dtype.kind == "f":
        whole = array.size and np.isfinite(array).all() and (array == np.rint(array)).all() and not (array < 0).any()
        said = f"{name}: {key} is {array.dtype}, so its whole numbers are numbers to predict; --task {classes} takes "
        return numbers, [f"{said}them as classes"] if whole and array.size == len(array) else []
    several = array.ndim == 2 and array.shape[1] > 1
    if array.dtype.kind == "b" or (several and array.dtype.kind in "iu"):
        return labels, [f"{name}: {key} is {describe_array(array)}: taken as yes/no labels"]
    return classes, []


def labels_as(name: str, key: str, array: NDArray[Any], kind: str) -> NDArray[Any]:
    """Return labels as a `Dataset` has them: classes int64 (N,), yes/no labels bool (N, L), numbers float64 (N, T)."""
    classes, labels, _ = KINDS
    low, high = (array.min(), array.max()) if array.size and array.dtype.kind in "biuf" else (0, 0)
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        raise DataError(
            f"{name}: {key} is {describe_array(array)}; expected "
            "integers from 0 of shape (N,), yes/no labels (N, L), bool or 0 and 1, or numbers, floats (N,) or (N, T)"
        )
    if kind == labels:
        if not 0 <= low <= high <= 1 or (array != np.rint(array)).any():
            raise DataError(f"{name}: {key} holds {low} to {high}; give yes/no labels as 0 and 1")
        return array.reshape(len(array), -1).astype(np.bool_)
    if kind != classes:
        return array.reshape(len(array), -1).astype(np.float64)
    if is_one_hot(array):
        return array.argmax(axis=1).astype(np.int64)
    if array.size != len(array) or not np.isfinite(array).all() or (array != np.rint(array)).any():
        raise DataError(f"{name}: {key} is {describe_array(array)}; expected a whole number for each class, (N,)")
    if not 0 <= int(low) <= int(high) < 2**31:
        raise DataError(f"{name}: {key} holds {low} to {high}; number the classes from 0")
    return array.reshape(-1).astype(np.int64)
