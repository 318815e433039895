"""What changes from epoch to epoch: the learning rate, the size of the images, and what averages keep (section 4.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.config import Config

__all__ = ["SCHEDULES", "averaged_part", "image_size", "learning_rate"]

SCHEDULES = ("step", "cosine", "one-cycle", "constant")


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step."""
    total = config.epochs * steps_per_epoch
    highest = config.learning_rate
    match config.schedule:
        case "step":
            return highest * config.step_factor ** -(step // (config.step_epochs * steps_per_epoch))
        case "cosine":
            return highest * (1 + math.cos(math.pi * step / total)) / 2
        case "one-cycle":
            rising = config.warmup * total
            done = step + 0.5  # the middle of the step, so that neither the first nor the last is lost
            return highest * (done / rising if done < rising else (total - done) / (total - rising))
    return highest


def image_size(config: Config, epoch: int, own: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of an epoch's training images."""
    sizes = config.image_sizes[-config.epochs :]
    if not sizes:
        return own
    side, short = sizes[min(epoch * len(sizes) // config.epochs, len(sizes) - 1)], min(own)
    rows, columns = ((2 * side * n + short) // (2 * short) for n in own)  # rounded
    return rows, columns


def averaged_part(config: Config, step: int) -> float:
    """Return the part of the averaged weights that a step keeps: at first less, so that the start is forgotten."""
    return min(config.average_decay, step / (step + 10))
