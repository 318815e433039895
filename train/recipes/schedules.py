"""The course of the learning rate and of the size of images over a run (section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from train.settings import RunSettings, Section, setting

LEAST_SIDE = 8
"""Pixels along the shorter side of the smallest training images that shares of it make."""


class StepSettings(RunSettings):
    """Settings of schedules that divide the learning rate."""

    step_epochs: int = setting(40, "epochs between the divisions of schedule step", low=1)
    step_factor: float = setting(10.0, "what schedule step divides by", low=1.0)
    warmup_steps: int = setting(0, "first steps of schedule step, in which the learning rate rises; 0: none", low=0)


class WarmupSettings(RunSettings):
    """Settings of schedules that rise first."""

    warmup: float = setting(0.2, "part of all steps in which the learning rate rises", low=0.0, high=1.0)


class Schedule(NamedTuple):
    """A course of the learning rate."""

    rate: Callable[[Any, int, int], float]
    """Part of the highest learning rate at a step, from settings, the step, from 0, and the steps of an epoch."""
    extensible: Callable[[Any, int], bool] = lambda settings, epochs: False
    """Whether the rates of the first epochs do not depend on the number of epochs, so that a run can be extended."""
    sections: tuple[type[Section], ...] = ()
    """Its settings beside those of every run."""


def _step(settings: StepSettings, step: int, steps_per_epoch: int) -> float:
    rising = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return float(rising * settings.step_factor ** -(step // (settings.step_epochs * steps_per_epoch)))


def _cosine(settings: RunSettings, step: int, steps_per_epoch: int) -> float:
    return (1 + math.cos(math.pi * step / (settings.epochs * steps_per_epoch))) / 2


def _one_cycle(settings: WarmupSettings, step: int, steps_per_epoch: int) -> float:
    total = settings.epochs * steps_per_epoch
    rising = settings.warmup * total
    done = step + 0.5  # the middle of the step, so that neither the first nor the last is lost
    return float(done / rising if done < rising else (total - done) / (total - rising))


def _constant(settings: RunSettings, step: int, steps_per_epoch: int) -> float:
    return 1.0


def _always(settings: RunSettings, epochs: int) -> bool:
    return True


SCHEDULES: dict[str, Schedule] = {
    "step": Schedule(_step, _always, (StepSettings,)),
    "cosine": Schedule(_cosine),
    "one-cycle": Schedule(_one_cycle, sections=(WarmupSettings,)),
    "constant": Schedule(_constant, _always),
}


class ScheduleSettings(RunSettings):
    """How the learning rate changes."""

    schedule: str = setting("step", "course of the learning rate", choices=SCHEDULES.keys())


def learning_rate(settings: ScheduleSettings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step."""
    return float(settings.learning_rate * SCHEDULES[settings.schedule].rate(settings, step, steps_per_epoch))


def image_size(settings: RunSettings, epoch: int, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths of the axes of space of an epoch's training images."""
    short = min(lengths)
    pixels = [max(int(share * short + 0.5), min(LEAST_SIDE, short)) for share in settings.image_shares]
    sizes = (settings.image_sizes or pixels)[-settings.epochs :]
    if not sizes:
        return lengths
    side = sizes[min(epoch * len(sizes) // settings.epochs, len(sizes) - 1)]
    return tuple((2 * side * n + short) // (2 * short) for n in lengths)  # rounded
