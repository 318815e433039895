"""What is counted of a training step beside its loss, and recorded of an epoch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from hcnn_core.backend import Array
from train.recipes.augmentations import Batch
from train.recipes.optimizers import Tree
from train.recipes.tasks import Task


class Metric(NamedTuple):
    """A number of each step's images; a checkpoint keeps what an epoch has so far, by name."""

    of_step: Callable[[Task, Array, Batch], Array] | None = None
    """The number, without axes, from the task, outputs (N, L) and the batch."""
    of_gradients: Callable[[Tree, Tree], Array] | None = None
    """Or from gradients of the whole batch, on every rank, and the optimiser's `direction` before the step."""
    merge: Callable[[Any, Any], Any] = operator.add
    """The number of two steps, or of two ranks' parts of one that `of_step` gives, from both."""
    of_epoch: Callable[[float, int], float] = operator.truediv
    """What is recorded as train_NAME, from the number of all steps, and how many images, or gradients, it is of."""
    is_score: bool = False
    """Whether it is for those tasks alone whose score has its name."""


def metrics_of(task: Task) -> dict[str, Metric]:
    """Return the metrics that are for a task, by name."""
    return {name: metric for name, metric in METRICS.items() if not metric.is_score or task.score == name}


METRICS = {"accuracy": Metric(lambda task, logits, batch: task.right(logits, batch.labels), is_score=True)}
