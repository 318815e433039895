"""What a step minimises: a table of losses, and distances from a teacher's predictions and attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from autodiff import cross_entropy, log_softmax
from hcnn_core.backend import Array, array_namespace, dtype_name
from train.data import resize
from train.recipes.augmentations import Batch
from train.settings import RunSettings, Section, setting


class EntropySettings(RunSettings):
    """Settings of losses of classes."""

    label_smoothing: float = setting(0.0, "part of the target spread over all classes", low=0.0, high=0.999)
    class_weights: str = setting(
        "none", "weights of images: none, all alike; balanced, all classes alike", choices=("none", "balanced")
    )


class TeacherSettings(RunSettings):
    """Settings of distillation."""

    needs = "teacher"
    teacher_share: float = setting(0.9, "part of the loss that compares with the teacher", low=0.0, high=1.0)
    temperature: float = setting(4.0, "divisor of logits before they are compared", low=0.1, high=100.0)
    attention_transfer: float = setting(
        0.0, "weight of the distance between its attention maps and the teacher's (arXiv:1612.03928)", low=0.0, high=1e6
    )


class Loss(NamedTuple):
    """A distance of outputs from targets."""

    mean: Callable[[Any, Array, Batch], Array]
    """The mean over a batch, without axes, from settings, outputs (N, L) and the batch."""
    tasks: tuple[str, ...]
    """Names of the tasks that it is for."""
    sections: tuple[type[Section], ...] = ()
    """Its settings beside those of every run."""
    logits: bool = True
    """Whether the outputs it trains are logits, which have probabilities."""


def _cross_entropy(settings: EntropySettings, logits: Array, batch: Batch) -> Array:
    if batch.others is None and batch.counts is None:
        return cross_entropy(logits, batch.labels, label_smoothing=settings.label_smoothing)
    targets = class_targets(settings, batch, logits.shape[1])
    return -np.sum(targets * log_softmax(logits)) * (1 / logits.shape[0])


def _logistic(settings: RunSettings, logits: Array, batch: Batch) -> Array:
    return np.mean(_counted(np.logaddexp(0 * logits, logits) - logits * _mixed(batch), batch))


def _squared(settings: RunSettings, numbers: Array, batch: Batch) -> Array:
    return np.mean(_counted(np.square(numbers - _mixed(batch)), batch))


LOSSES = {
    "cross-entropy": Loss(_cross_entropy, ("classes",), (EntropySettings,)),
    "logistic": Loss(_logistic, ("labels",)),
    "squared": Loss(_squared, ("numbers",), logits=False),
}


def _mixed(batch: Batch, classes: int = 0) -> Array:
    """Return targets (N, L) as floats: one-hot for classes, and for mixed images between the targets of both."""
    xp = array_namespace(batch.labels)

    def spread(labels: Array) -> Array:
        return xp.astype(labels[:, None] == xp.arange(classes) if classes else labels, batch.images.dtype)

    one = spread(batch.labels)
    if batch.others is None or batch.weight is None:
        return one
    return (other := spread(batch.others)) + (one - other) * batch.weight[:, None]


def _counted(values: Array, batch: Batch) -> Any:
    """Return values (N, L), each row times the weight of its image."""
    return values if batch.counts is None else values * batch.counts[:, None]


def class_targets(settings: EntropySettings, batch: Batch, classes: int) -> Array:
    """Return the target probabilities of a batch, (N, classes), each row times the weight of its image."""
    targets, smoothing = _mixed(batch, classes), settings.label_smoothing
    return _counted((1 - smoothing) * targets + smoothing / classes if smoothing else targets, batch)


def with_teacher(settings: TeacherSettings, loss: Array, logits: Array, teacher: Array) -> Array:
    """Return a loss in which the teacher's logits have their share."""
    if not (part := settings.teacher_share):
        return loss
    return (1 - part) * loss + part * divergence(logits, teacher, settings.temperature)


def divergence(logits: Array, teacher: Array, temperature: float) -> Array:
    r"""Mean Kullback-Leibler divergence of softened predictions from a teacher's, times the temperature squared.

    That is :math:`T^2 \sum_c q_c \log (q_c / p_c)` with p and q the softmax of the logits and of the teacher's, both
    divided by T. Its gradient is that of the cross-entropy with soft targets in section 2 of arXiv:1503.02531, and it
    is 0 where both agree. The square keeps the gradient's size as T changes. Logits are (N, classes); the value is in
    nats, 0-dimensional.
    """
    log_p, log_q = log_softmax(logits / temperature), log_softmax(teacher / temperature)
    return np.sum(np.exp(log_q) * (log_q - log_p)) * (temperature**2 / teacher.shape[0])


def attention_distance(maps: Sequence[Array], teacher: Sequence[Array]) -> Array:
    r"""Mean over images of the squared distances between attention maps and a teacher's, summed over layers.

    That is :math:`\sum_j \| Q_j / \|Q_j\| - Q'_j / \|Q'_j\| \|^2`, equation (2) of arXiv:1612.03928 with the distance
    squared, as its authors' code has it; between 0 and 2 for each layer. Maps are (N, u1, ..), see `Network.with_maps`;
    a teacher's map is resized to the network's.
    """
    total: Any = 0
    for student, other in zip(maps, teacher, strict=True):
        attention, wanted = _normalised(student), _normalised(resize(other[..., None], student.shape[1:])[..., 0])
        total = total + np.sum(np.square(attention - wanted)) * (1 / student.shape[0])
    return total


def _normalised(maps: Array) -> Array:
    """Divide maps by their norms; a map of zeros stays zero."""
    tiny = np.finfo(dtype_name(maps.dtype)).tiny
    return maps / np.sqrt(np.sum(np.square(maps), axis=tuple(range(1, maps.ndim)), keepdims=True) + tiny)
