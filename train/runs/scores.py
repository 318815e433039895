"""Records of a test and lines about it: scores, calibration, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from train.config import Config
from train.recipes.tasks import Task, balanced_accuracy
from train.runs.calibration import calibration_error, tempered_loss
from train.runs.training import Result

NORMAL = 1.959964
"""Standard deviations of a normal distribution that hold 95 % of it."""


def figures(result: Result) -> dict[str, float]:
    """Return the record of a test."""
    scores = {"loss": result.loss, result.task.score: result.accuracy, **result.details}
    numbers = {f"test_{name}": value for name, value in scores.items() if math.isfinite(value)}
    if result.averaged is not None:
        numbers["test_accuracy_of_views"] = result.averaged
    counts = result.confusion.sum(axis=1)
    if len(set(counts.tolist())) > 1:
        numbers["test_balanced_accuracy"] = balanced_accuracy(result.confusion)[0]
    return numbers


def test_lines(
    task: Task, test: Mapping[str, Any], config: Config, images: str = "", names: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the lines about a test; `names` are those of labels or numbers."""
    number = {(False, True): "three", (True, False): "two"}.get((config.flip, config.shift > 0), "six")
    known = [word for word, on in (("shifts of a pixel", config.shift), ("mirrored", config.flip)) if on]
    first, *others = task.tested(test, f"{number} views ({', '.join(known)})", names)
    yield from (f"test: {line}" for line in (f"{first}{images}", *others))


def calibration_lines(result: Result, labels: np.ndarray[Any, Any]) -> Iterator[str]:
    """Yield how far a test's confidence is from its accuracy."""
    if len(labels) > 1 and result.task.softmax:
        loss, error = tempered_loss(result.logits, labels), calibration_error(result.logits, labels)
        yield (
            f"test: loss {loss:.4f} nats after one temperature, fitted on the other half of the images; "
            f"calibration error {100 * error:.1f} %"
        )


def part_right(right: int, count: int) -> str:
    """Return the part of images that is right, in words, with Wilson's interval; "" without images."""
    if not count:
        return ""
    square = NORMAL**2
    centre, half = right + square / 2, NORMAL * math.sqrt(right * (count - right) / count + square / 4)
    low, high = (100 * (centre + sign * half) / (count + square) for sign in (-1, 1))
    return f"{100 * right / count:5.1f} % ({low:.1f} to {high:.1f})"
