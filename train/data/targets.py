"""Targets of samples: a class, several yes/no labels, or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABEL_KINDS = {"classes": "int64", "labels": "bool", "numbers": "float64"}
"""Kinds of targets, with their dtypes in a `Dataset`."""

AUTO = "auto"
"""In place of a kind: the labels themselves decide."""


@dataclass(frozen=True)
class Targets:
    """The meaning of a network's outputs: logits of classes or of yes/no labels, or standardised numbers."""

    kind: str = "classes"  # one of `LABEL_KINDS`
    mean: Any = None  # of each number, (T,), over the training part, in units of the data
    std: Any = None

    @classmethod
    def of(cls, kind: str, labels: NDArray[Any], weights: NDArray[np.float64] | None = None) -> Targets:
        """Return the targets of a training part; a constant number has deviation 0, one too large no finite one."""
        if kind != "numbers":
            return cls(kind)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.average(labels, axis=0, weights=weights)
            std = np.sqrt(np.average((labels - mean) ** 2, axis=0, weights=weights))
        same = (labels == labels[:1]).all(axis=0)  # whose mean may be off by rounding
        return cls(kind, np.where(same, labels[0], mean), np.where(same, 0, np.where(std > 0, std, 1.0)))

    def taught(self, labels: NDArray[Any], dtype: str) -> NDArray[Any]:
        """Return labels for the loss: numbers are standardised."""
        if self.mean is None:
            return labels
        return ((labels - self.mean) / np.where(self.std > 0, self.std, 1.0)).astype(dtype)

    def in_units(self, outputs: Any, xp: Any = np) -> Any:
        """Return outputs (N, T) in units of the data, where they are numbers."""
        return outputs if self.mean is None else outputs * xp.asarray(self.std) + xp.asarray(self.mean)


CLASSES = Targets()


def r_squared(outputs: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """Return the coefficient of determination of each number, (T,); NaN where all targets are the same."""
    wanted = np.asarray(wanted, np.float64)
    spread = ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)
    spread = np.where((wanted == wanted[:1]).all(axis=0), 0, spread)  # its mean may be off by rounding
    missed = ((outputs - wanted) ** 2).sum(axis=0)
    return 1 - np.divide(missed, spread, out=np.full(len(spread), np.nan), where=spread > 0)
