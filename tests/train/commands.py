"""What the tests of the command line and of runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.runs import Outcome
from train.data import Dataset, Images, channel_statistics

Command = Callable[..., Outcome]

Arrays = dict[str, Any]

KINDS = ("images", "labels")

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")


def small_images(few_images: Dataset, dtype: str) -> Images:
    mean, std = channel_statistics(few_images.train_images)
    return Images(few_images.test_images, few_images.test_labels, mean, std, dtype)


def made_up(shape: tuple[int, ...], classes: int = 10, train: int = 40, test: int = 12, seed: int = 0) -> Arrays:
    """Images whose brightness tells their class."""
    rng = np.random.default_rng(seed)
    arrays: Arrays = {}
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        levels = 255 * (labels + 0.5) / classes
        noise = rng.normal(0, 20, (count, *shape))
        arrays[f"x_{part}"] = np.clip(levels.reshape(-1, *(1,) * len(shape)) + noise, 0, 255).astype(np.uint8)
        arrays[f"y_{part}"] = labels.astype(np.uint8)
    return arrays


def arrays_of(data: Dataset) -> list[bytes]:
    """All images and labels of a data set."""
    return [np.asarray(getattr(data, f"{part}_{kind}")).tobytes() for part in ("train", "test") for kind in KINDS]
