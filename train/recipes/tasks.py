"""Tasks, what a network learns of each image: a table with the loss, the score and the words of each."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hcnn_core import log_softmax
from hcnn_core.backend import Array, array_namespace
from hcnn_core.loss import count_right
from train.data.targets import r_squared
from train.recipes.augmentations import Batch
from train.recipes.losses import LOSSES, EntropySettings
from train.settings import AUTO, RunSettings, Section, setting

Names = Sequence[str]
Host = NDArray[Any]


class PupilSettings(RunSettings):
    """Settings of networks that another teaches."""

    teacher: str = setting(
        "", "checkpoint, run or name of a network whose predictions are learned beside the labels (arXiv:1503.02531)"
    )


class Task:
    """The meaning of a network's outputs (N, L): logits of classes, one class an image, unless a subclass differs.

    Outputs, labels and what follows from them are arrays, those of `NDArray` on the host.
    """

    name: ClassVar = "classes"  # its key in `TASKS`
    takes: ClassVar = "classes"  # the labels that it learns, one of `train.data.targets.LABEL_KINDS`
    settings: Any = EntropySettings  # of that loss: defaults, or the run's
    beside: ClassVar = 0  # how many more outputs it has than there are names of classes, labels or numbers
    loss = "cross-entropy"  # a key of `LOSSES`, by which it is evaluated: its own, or the run's; see `learned`
    measure = "negative log-likelihood [nats]"  # what that is, and its unit
    score: ClassVar = "accuracy"  # its name in records; at most 1, and higher is better
    title: ClassVar = "accuracy"  # the score in words
    words: ClassVar = "{}"  # how a line names a score
    percent: ClassVar = True  # whether the score is shown as a percentage
    ranks: ClassVar = True  # whether the largest output is of the class that is predicted: views and the explorer ask
    each: ClassVar[dict[str, tuple[str, int, str]]] = {}  # titles, factors and formats of what records say of an output
    sections: ClassVar[tuple[type[Section], ...]] = (PupilSettings,)  # its settings beside those of every run

    @property
    def logits(self) -> bool:
        """Whether the outputs are logits, which have probabilities."""
        return LOSSES[self.loss].logits

    @property
    def softmax(self) -> bool:
        """Whether the softmax of the outputs is the probability of each class: teachers, calibration and pages ask."""
        return self.ranks and self.logits

    def loss_of(self, settings: TaskSettings) -> str:
        """Return the name of the loss that the settings choose, a key of `LOSSES`."""
        return self.loss if settings.loss == AUTO else settings.loss

    def evaluated(self, outputs: Array, labels: Array) -> Array:
        """Return the mean of its loss, every image with the same weight."""
        return LOSSES[self.loss].mean(self.settings, outputs, Batch(outputs, labels))

    def measured(self, outputs: Host, labels: Host, deviations: Any) -> tuple[float, dict[str, float]]:
        """Return the score, NaN where there is none, and other records; `deviations` are those of numbers."""
        return float(np.mean(self.chosen(outputs) == labels)), {}

    def chosen(self, outputs: Host) -> Host:
        """Return predictions in the form of labels: the class of each image, (N,)."""
        return outputs.argmax(axis=1)

    def standard_error(self, score: float, outputs: Host, labels: Host) -> float:
        """Return the standard error of a score over images."""
        return math.sqrt(max(score * (1 - score), 0) / len(labels))

    def named(self, labels: Host, names: Names) -> list[Any]:
        """Return labels by name: a name for each image, or a tuple of the names of several labels, or of numbers."""
        return [names[index] for index in labels]

    def confusion(self, outputs: Host, labels: Host) -> NDArray[np.int64]:
        """Return how many images of class i (row) are taken for class j (column); empty without classes."""
        counts = np.zeros((outputs.shape[1] - self.beside,) * 2, np.int64)
        np.add.at(counts, (labels, self.chosen(outputs)), 1)
        return counts

    def right(self, outputs: Array, labels: Array) -> Array:
        """Count the images predicted right; one with several labels counts by the part of them that is right."""
        return count_right(outputs, labels)

    def probabilities(self, outputs: Array) -> Array:
        """Return the probability of each class or label; TypeError where the outputs are no logits."""
        if not self.logits:
            raise TypeError(
                f"this network predicts {self.name}, which have no probabilities: the loss {self.loss!r} learns no "
                "logits; logits and predict return them"
            )
        return self._probabilities(outputs)

    def _probabilities(self, outputs: Array) -> Array:
        return array_namespace(outputs).exp(log_softmax(outputs))

    @property
    def _unit(self) -> str:
        return "nats" if self.logits else f"({self.loss})"

    def predicted(self, outputs: Host, names: Names) -> list[Any]:
        """Return the prediction for each image, by names."""
        return self.named(self.chosen(outputs), names)

    def columns(self, names: Names, top: int) -> Names:
        """Return the titles of `cells`."""
        if not self.logits:
            return ["class"]
        places = ["", *(f"_{place}" for place in range(2, min(top, len(names)) + 1))]
        return [f"{word}{place}" for place in places for word in ("class", "probability")]

    def cells(self, outputs: Host, names: Names, top: int) -> list[list[str]]:
        """Return a row of a table for each image: its most probable classes, or for other tasks all outputs."""
        if not self.logits:
            return [[name] for name in self.predicted(outputs, names)]
        ranked = [(row, np.argsort(-row, kind="stable")[:top]) for row in self.probabilities(outputs)]
        return [[cell for k in best for cell in (names[k], f"{row[k]:.6f}")] for row, best in ranked]

    def tested(self, test: Mapping[str, Any], views: str, names: Names) -> Iterator[str]:
        """Yield the lines about a test's record; `views` names, in words, those whose mean gives an accuracy."""
        yield f"accuracy {100 * test['test_accuracy']:.2f} %, loss {test['test_loss']:.4f} {self._unit}"
        if "test_accuracy_of_views" in test:
            yield f"accuracy {100 * test['test_accuracy_of_views']:.2f} % by the mean of {views}"
        if "test_balanced_accuracy" in test:
            yield f"balanced accuracy {100 * test['test_balanced_accuracy']:.2f} %, the mean over classes"

    def shown(self, score: float, *deviations: float) -> str:
        """Return a score with its unit, and its deviations over seeds if there are some."""
        scale, digits, unit = (100, ".2f", " %") if self.percent else (1, ".4f", "")
        return " ± ".join([f"{scale * score:{digits}}{unit}", *(f"{scale * value:{digits}}" for value in deviations)])

    def panels(self, records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
        """Return the panels of curves by record: the axis title, with losses of training, and the factor of values."""
        trained = dict.fromkeys(record.get("loss", self.loss) for record in records if "train_loss" in record)
        others = f"training: {', '.join(trained)};\nheld out and test: {self.measure}"
        measure = self.measure if trained.keys() <= {self.loss} else others
        shown = (f"{self.title} [%]", 100) if self.percent else (self.title.replace("R^2", "$R^2$"), 1)
        return {"loss": (measure, 1), self.score: shown}


def balanced_accuracy(confusion: NDArray[Any]) -> tuple[float, float]:
    """Return the mean over classes of the part of each that is right, and its standard error over images."""
    counts = confusion.sum(axis=1)
    right, counts = np.diag(confusion)[counts > 0] / counts[counts > 0], counts[counts > 0]
    return float(right.mean()), math.sqrt((right * (1 - right) / counts).sum()) / len(right)


class _Labels(Task):
    name, takes, loss, measure = "labels", "labels", "logistic", "cross-entropy of a label [nats]"
    title, words, ranks, sections = "labels right", "{} of the labels", False, ()
    each: ClassVar = {"right": ("right", 100, "{:.2f} %")}

    def chosen(self, outputs: Host) -> Host:
        return outputs > 0

    def named(self, labels: Host, names: Names) -> list[Any]:
        return [tuple(np.array(names)[row].tolist()) for row in labels]

    def measured(self, outputs: Host, labels: Host, deviations: Any) -> tuple[float, dict[str, float]]:
        right = self.chosen(outputs) == labels
        of_each = {f"right_{k}": float(part) for k, part in enumerate(right.mean(axis=0))}
        return float(right.mean()), {"all_right": float(right.all(axis=1).mean()), **of_each}

    def confusion(self, outputs: Host, labels: Host) -> NDArray[np.int64]:
        return np.zeros((0, 0), np.int64)

    def right(self, outputs: Array, labels: Array) -> Array:
        xp = array_namespace(outputs, labels)
        return xp.sum(xp.astype((outputs > 0) == labels, outputs.dtype)) / labels.shape[1]

    def _probabilities(self, outputs: Array) -> Array:
        xp = array_namespace(outputs)
        return xp.exp(-xp.logaddexp(0 * outputs, -outputs))

    def columns(self, names: Names, top: int) -> Names:
        return names

    def cells(self, outputs: Host, names: Names, top: int) -> list[list[str]]:
        values = self.probabilities(outputs) if self.logits else outputs
        return [[f"{value:.6g}" for value in row] for row in values]

    def tested(self, test: Mapping[str, Any], views: str, names: Names) -> Iterator[str]:
        yield f"{100 * test['test_accuracy']:.2f} % of the labels right, loss {test['test_loss']:.4f} {self._unit}"
        yield f"all labels right of {100 * test['test_all_right']:.2f} % of the images"
        for k, name in enumerate(names):
            yield f"{name}: {100 * test[f'test_right_{k}']:.2f} % right"


class _Numbers(_Labels):
    name, takes, loss, measure = "numbers", "numbers", "squared", "squared error [variances]"
    score, title = "r2", "mean R^2"
    words, percent = "R^2 {}", False
    each: ClassVar = {
        "error": ("root mean squared error [units of the data]", 1, "{:.4g}"),
        "r2": ("R\u00b2", 1, "{:.4f}"),
    }

    def measured(self, outputs: Host, labels: Host, deviations: Any) -> tuple[float, dict[str, float]]:
        fits = r_squared(outputs, labels)
        errors = np.sqrt(((outputs - labels) ** 2).mean(axis=0)) * (1.0 if deviations is None else deviations)
        details = {f"error_{k}": float(error) for k, error in enumerate(errors)}
        details |= {f"r2_{k}": float(value) for k, value in enumerate(fits) if np.isfinite(value)}
        return (float(np.nanmean(fits)) if np.isfinite(fits).any() else math.nan), details

    def standard_error(self, score: float, outputs: Host, labels: Host) -> float:
        fits, wanted = r_squared(outputs, labels), np.asarray(labels, np.float64)
        around, known = (wanted - wanted.mean(axis=0)) ** 2, np.isfinite(fits)
        # R^2 is 1 - missed / around, a ratio of means: to first order it varies as this mean does
        terms = ((outputs - wanted) ** 2 - (1 - fits) * around)[:, known] / around.mean(axis=0)[known]
        return float(terms.mean(axis=1).std(ddof=1)) / math.sqrt(len(wanted))

    def chosen(self, outputs: Host) -> Host:
        return outputs

    def named(self, labels: Host, names: Names) -> list[Any]:
        return [tuple(row) for row in labels.tolist()]

    def tested(self, test: Mapping[str, Any], views: str, names: Names) -> Iterator[str]:
        yield f"squared error {test['test_loss']:.4f}, in units of each number's variance"
        for k in range(sum(key.startswith("test_error_") for key in test)):
            fit = f"R^2 {test[f'test_r2_{k}']:.4f}" if f"test_r2_{k}" in test else "no R^2, since all are the same"
            name = names[k] if names else f"number {k}"
            yield f"{name}: root mean squared error {test[f'test_error_{k}']:.4g}, {fit}"


TASKS: dict[str, Task] = {task.name: task for task in (Task(), _Labels(), _Numbers())}


class TaskSettings(RunSettings):
    """Settings of the task and its loss."""

    task: str = setting(AUTO, "what the network learns of each image; auto: by the labels", choices=TASKS.keys())
    loss: str = setting(AUTO, "the loss to minimise; auto: the task's own", choices=LOSSES.keys())


def learned(settings: TaskSettings, kind: str) -> Task:
    """Return the task of the settings for labels of a kind, one of `train.data.targets.LABEL_KINDS`.

    Where the loss does not train logits, that loss evaluates too.
    """
    return _by(TASKS[kind if settings.task == AUTO else settings.task], settings.loss, settings)


def takes(settings: TaskSettings) -> str:
    """Return the kind of labels that the settings ask for, one of `train.data.targets.LABEL_KINDS`, or "auto"."""
    return TASKS[settings.task].takes if settings.task in TASKS else settings.task


def task_of(records: Sequence[Mapping[str, Any]]) -> Task:
    """Return the task that lines of metrics.jsonl name; older ones name none and have classes."""
    known = {name: value for record in records for name, value in record.items()}
    return _by(TASKS.get(known.get("task", ""), TASKS["classes"]), known.get("loss", AUTO))


def _by(task: Task, loss: str, settings: Any = EntropySettings) -> Task:
    if LOSSES.get(loss, LOSSES[task.loss]).logits == task.logits:
        return task
    task = copy.copy(task)
    task.loss, task.measure, task.settings = loss, loss, settings
    return task
