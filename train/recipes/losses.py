"""What a step makes small: the cross-entropy with labels, and distances from a teacher's predictions and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autodiff import cross_entropy, log_softmax
from hcnn_core.backend import Array, array_namespace, dtype_name
from hcnn_core.loss import count_right
from train.data import resize
from train.recipes.augmentations import Batch
from train.settings import Section, setting

__all__ = ["attention_distance", "divergence", "loss_of", "loss_of_each", "right"]


@dataclass(frozen=True)
class LossSettings(Section):
    """Settings of losses."""

    label_smoothing: float = setting(0.0, "part of the target spread over all classes", low=0.0, high=0.999)
    class_weights: str = setting(
        "none", "what an image counts: all alike, or balanced, so that classes do", choices=("none", "balanced")
    )
    teacher: str = setting(
        "", "checkpoint, run or name of a network whose predictions are learned beside the labels (arXiv:1503.02531)"
    )


@dataclass(frozen=True)
class TeacherSettings(Section):
    """Settings of distillation."""

    needs = "teacher"
    teacher_share: float = setting(0.9, "part of the loss that compares with the teacher", low=0.0, high=1.0)
    temperature: float = setting(4.0, "what logits are divided by before they are compared", low=0.1, high=100.0)
    attention_transfer: float = setting(
        0.0, "weight of the distance between its attention maps and the teacher's (arXiv:1612.03928)", low=0.0, high=1e6
    )


def loss_of(settings: Any, logits: Array, batch: Batch, taught: Array | None = None) -> Array:
    """Return the mean loss of logits (N, classes) over a batch, in nats; `taught` is what a teacher makes of it."""
    loss: Array
    if batch.labels.ndim == 2:
        loss = loss_of_each(logits, batch.labels)
        if batch.others is not None and batch.weight is not None:
            whole, xp = (batch.labels, batch.others), array_namespace(batch.images)
            one, other = (xp.astype(labels, batch.images.dtype) for labels in whole)
            yes = dtype_name(batch.labels.dtype) == "bool"
            loss = loss_of_each(logits, other + (one - other) * batch.weight[:, None], yes=yes)
    elif batch.others is None and batch.class_weights is None:
        loss = cross_entropy(logits, batch.labels, label_smoothing=settings.label_smoothing)
    else:
        targets = _targets(batch, array_namespace(batch.images), logits.shape[1], settings.label_smoothing)
        loss = -np.sum(targets * log_softmax(logits)) * (1 / logits.shape[0])
    if taught is not None and settings.teacher_share:
        part = settings.teacher_share
        loss = (1 - part) * loss + part * divergence(logits, taught, settings.temperature)
    return loss


def loss_of_each(logits: Array, labels: Array, *, yes: bool = False) -> Array:
    """Return the loss of outputs (N, L), a mean over all: of yes/no labels in nats, of numbers the squared error.

    Labels are bools, or with `yes` the probabilities of a yes; other floats are numbers.
    """
    if yes or dtype_name(labels.dtype) == "bool":
        mean: Array = np.mean(np.logaddexp(0 * logits, logits) - logits * labels)
        return mean
    squares: Array = np.mean(np.square(logits - labels))
    return squares


def right(logits: Array, labels: Array) -> Array:
    """Return how many images are classified right: of yes/no labels parts of them, of numbers none."""
    if labels.ndim == 1:
        return count_right(logits, labels)
    xp = array_namespace(logits, labels)
    if dtype_name(labels.dtype) == "bool":
        return xp.sum(xp.astype((logits > 0) == labels, logits.dtype)) / labels.shape[1]
    return 0 * xp.sum(xp.argmax(logits, axis=1))


def _targets(batch: Batch, xp: Any, classes: int, smoothing: float) -> Array:
    """What a batch is compared with, (N, classes): of mixed images both labels, each row by the weight of its class."""
    known = [batch.labels] if batch.others is None else [batch.labels, batch.others]
    first, *second = (xp.astype(labels[:, None] == xp.arange(classes), batch.images.dtype) for labels in known)
    targets: Array = first
    if second and batch.weight is not None:
        targets = second[0] + (first - second[0]) * batch.weight[:, None]
    of_class = targets
    if smoothing:
        targets = (1 - smoothing) * targets + smoothing / classes
    if batch.class_weights is None:
        return targets
    return targets * xp.sum(of_class * batch.class_weights, axis=1)[:, None]


def divergence(logits: Array, taught: Array, temperature: float) -> Array:
    r"""Mean Kullback-Leibler divergence of softened predictions from a teacher's, times the temperature squared.

    That is :math:`T^2 \sum_c q_c \log (q_c / p_c)` with p and q the softmax of the logits and of the teacher's, both
    divided by T. Its gradient is that of the cross-entropy with soft targets in section 2 of arXiv:1503.02531, and it
    is 0 where both agree. The square keeps the gradient's size as T changes.

    Parameters
    ----------
    logits, taught : array, shape (N, classes)
        float32 or float64, of the network and of its teacher; the first may be traced.
    temperature : float
        T, more than 0.

    Returns
    -------
    array
        In nats, 0-dimensional.
    """
    found, wanted = log_softmax(logits / temperature), log_softmax(taught / temperature)
    mean: Array = np.sum(np.exp(wanted) * (wanted - found)) * (temperature**2 / taught.shape[0])
    return mean


def attention_distance(maps: Sequence[Array], taught: Sequence[Array]) -> Array:
    r"""Mean over images of the squared distances between attention maps and a teacher's, summed over layers.

    That is :math:`\sum_j \| Q_j / \|Q_j\| - Q'_j / \|Q'_j\| \|^2`, equation (2) of arXiv:1612.03928 with the distance
    squared, as its authors' code has it; between 0 and 2 for each layer. A teacher's map is resized to the network's.

    Parameters
    ----------
    maps, taught : sequence of array, shape (N, u1, ..)
        float32 or float64, of the network and of its teacher, see `Network.with_maps`; the first may be traced.

    Returns
    -------
    array
        0-dimensional.
    """
    total: Any = 0
    for own, other in zip(maps, taught, strict=True):
        found, wanted = _normalised(own), _normalised(resize(other[..., None], own.shape[1:])[..., 0])
        total = total + np.sum(np.square(found - wanted)) * (1 / own.shape[0])
    distance: Array = total
    return distance


def _normalised(maps: Array) -> Array:
    """Divide maps by their norms; one that is zero stays so."""
    tiny = np.finfo(dtype_name(maps.dtype)).tiny
    return maps / np.sqrt(np.sum(np.square(maps), axis=tuple(range(1, maps.ndim)), keepdims=True) + tiny)
