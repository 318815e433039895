"""Two networks that Table 1 of arXiv:1703.04140 compares with, as their publications describe them.

| preset | publication | its parameters | trainable numbers here |
| --- | --- | --- | --- |
| `resnet20` | ResNet-20, arXiv:1512.03385, section 4.2, shortcuts A | 0.27M | 269,722; 268,346 without normalisation |
| `wrn-student` | WRN-16-1, the student of arXiv:1612.03928 | 0.17M | 175,066; 174,138 without normalisation |

What differs: they are trained here as the presets say, without teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from train.networks.architecture import ATTRIBUTES, MERGED_FILTERS, Architecture
from train.networks.hierarchical import NormalizationSettings
from train.networks.network import Network
from train.networks.plain import Table
from train.settings import MomentSettings

COMMON = {"batch_size": 128, "shift": 4}

Fill = Callable[[Table, int], None]


def _resnet20(table: Table, classes: int) -> None:
    """Nine blocks of two 3 x 3 convolutions, in three stages."""
    table.convolve(16)
    table.normalize()
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            before = table.name
            table.convolve(filters, stride=2 if stage and not block else 1)
            table.normalize()
            table.convolve(filters)
            table.normalize(before)
    table.whole("mean")
    table.dense(classes)


def _wrn_student(table: Table, classes: int) -> None:
    """Six blocks in three stages, normalised before each convolution; 1 x 1 filters skip where shapes change."""
    table.convolve(16)
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(2):
            before, stride = table.name, 2 if stage and not block else 1
            table.normalize()
            ready = table.name, table.shape
            table.convolve(filters, stride=stride)
            table.normalize()
            table.convolve(filters)
            summand = table.name
            if ready[1][-1] == filters:
                table.sum_with(before)
            else:
                table.go_back_to(ready)
                table.convolve(filters, 1, stride=stride)
                table.sum_with(summand)
    table.normalize()
    table.whole("mean")
    table.dense(classes)


def _build(fill: Fill, config: NormalizationSettings, size: tuple[int, int], classes: int, channels: int) -> Network:
    table = Table((*size, channels), config.dtype, config.epsilon)
    fill(table, classes)
    return Network(config, table.ended(), (*size, channels), classes)


def _entry(title: str, fill: Fill, preset: str, **recipe: Any) -> Architecture:
    return Architecture(
        title=title,
        build=partial(_build, fill),
        presets={preset: {**COMMON, **recipe}},
        sections=(NormalizationSettings, MomentSettings),
        lacks=frozenset({ATTRIBUTES, MERGED_FILTERS}),
    )


BASELINES = {
    "resnet20": _entry(
        "ResNet-20",
        _resnet20,
        "resnet20",
        epochs=164,  # 64,000 steps; the publication divides the rate after 32,000 and 48,000 of them
        learning_rate=0.1,
        step_epochs=82,
        weight_decay=1e-4,
    ),
    "wrn-student": _entry(
        "WRN-16-1",
        _wrn_student,
        "wrn-student",
        epochs=200,
        learning_rate=0.1,
        step_epochs=60,
        step_factor=5.0,
        nesterov=True,
        weight_decay=5e-4,
    ),
}
