"""What the tests of the command line and of runs share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.train.runs import Outcome
from train.data import Dataset, Images, channel_statistics

Command = Callable[..., Outcome]

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")


def part_of(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run after its second epoch."""
    path = tmp_path / "part"
    path.mkdir()
    for name in ("config.toml", "metrics.jsonl", "epoch0002-step000000.h5"):
        shutil.copy(trained / name, path)
    return path


def small_images(few_images: Dataset, dtype: str) -> Images:
    mean, std = channel_statistics(few_images.train_images)
    return Images(few_images.test_images, few_images.test_labels, mean, std, dtype)
