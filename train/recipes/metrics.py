"""Figures of a training step beside its loss, and their records for an epoch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from hcnn_core.backend import Array
from train.recipes.augmentations import Batch
from train.recipes.optimizers import Tree
from train.recipes.tasks import Task


class Metric(NamedTuple):
    """A figure of each step; checkpoints keep an unfinished epoch's, by name."""

    of_step: Callable[[Task, Array, Batch], Array] | None = None
    """The figure, an array without axes, from the task, outputs (N, L) and the batch."""
    of_gradients: Callable[[Tree, Tree], Array] | None = None
    """Or the figure from the whole batch's gradients, on every rank, and the optimiser's `direction` before it."""
    merge: Callable[[Any, Any], Any] = operator.add
    """Merge the figures of two steps, or those that `of_step` gives for two ranks' parts of one step."""
    of_epoch: Callable[[float, int], float] = operator.truediv
    """The record train_NAME, from the merged figure and the number of its images, or gradients."""
    is_score: bool = False
    """Whether only tasks whose score has its name record it."""


def metrics_of(task: Task) -> dict[str, Metric]:
    """Return the metrics that are for a task, by name."""
    return {name: metric for name, metric in METRICS.items() if not metric.is_score or task.score == name}


METRICS = {"accuracy": Metric(lambda task, logits, batch: task.right(logits, batch.labels), is_score=True)}
