"""The networks that Table 1 of arXiv:1703.04140 compares with, as their publications describe them.

| preset | publication | its parameters | trainable numbers here |
| --- | --- | --- | --- |
| `resnet20` | ResNet-20, arXiv:1512.03385, section 4.2, shortcuts A | 0.27M | 269,722; 268,346 without normalisation |
| `all-cnn` | All-CNN-C, arXiv:1412.6806, Table 2 | 1.3M | 1,369,738 with biases |
| `nin` | Network in Network, arXiv:1312.4400, section 4 | 0.98M in Table 1 | 966,986 with biases |
| `wrn-student` | WRN-16-1, the student of arXiv:1612.03928 | 0.17M | 175,066; 174,138 without normalisation |
| `fitnet` | FitNet 4, arXiv:1412.6550, 19 layers with maxout | 2.5M | 2,548,602 with biases |

What differs: they are trained here as the presets say, without teachers or hints; pooling windows of `nin` begin one
pixel outside, where its authors' end there. Two counts are not those printed: All-CNN-C as its table describes it has
1.37 million with or without biases, and NIN 0.97 million.
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
    table.relu()
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(3):
            before = table.name
            table.convolve(filters, stride=2 if stage and not block else 1)
            table.normalize()
            table.relu()
            table.convolve(filters)
            table.normalize()
            table.sum_with(before)
            table.relu()
    table.whole("mean")
    table.dense(classes)


def _all_cnn(table: Table, classes: int) -> None:
    """Convolutions alone; those with stride 2 stand for pooling."""
    table.dropout(0.2)
    for filters in (96, 192):
        for stride in (1, 1, 2):
            table.convolve(filters, stride=stride, bias=True)
            table.relu()
        table.dropout(0.5)
    for filters, taps in ((192, 3), (192, 1), (classes, 1)):
        table.convolve(filters, taps, bias=True, valid=True)
        table.relu()
    table.whole("mean")


def _nin(table: Table, classes: int) -> None:
    """Three convolutions, each with two layers of 1 x 1 filters behind it."""
    blocks = ((5, (192, 160, 96), "max"), (5, (192, 192, 192), "mean"), (3, (192, 192, classes), ""))
    for taps, filters, pool in blocks:
        for index, count in enumerate(filters):
            table.convolve(count, 1 if index else taps, bias=True)
            table.relu()
        if pool:
            table.pool(pool, 3, 2, padding=1)
            table.dropout(0.5)
    table.whole("mean")


def _wrn_student(table: Table, classes: int) -> None:
    """Six blocks in three stages, normalised before each convolution; 1 x 1 filters skip where shapes change."""
    table.convolve(16)
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(2):
            before, stride = table.name, 2 if stage and not block else 1
            table.normalize()
            table.relu()
            ready = table.name, table.shape
            table.convolve(filters, stride=stride)
            table.normalize()
            table.relu()
            table.convolve(filters)
            made = table.name
            if ready[1][-1] == filters:
                table.sum_with(before)
            else:
                table.go_back_to(ready)
                table.convolve(filters, 1, stride=stride)
                table.sum_with(made)
    table.normalize()
    table.relu()
    table.whole("mean")
    table.dense(classes)


def _fitnet(table: Table, classes: int) -> None:
    """Maxima of two maps after each of 17 convolutions and a dense layer."""
    for filters in ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6):
        for count in filters:
            table.convolve(2 * count, bias=True, gain=1)  # the mean square of a maximum of two is that of one
            table.maxout(2)
        if filters[-1] < 128:
            table.pool("max", 2, 2)
    table.whole("max")
    table.dense(1000)
    table.maxout(2)
    table.dense(classes)


def _build(fill: Fill, config: NormalizationSettings, size: tuple[int, int], classes: int, channels: int) -> Network:
    table = Table((*size, channels), config.dtype, config.epsilon)
    fill(table, classes)
    return Network(config, table.ended(), (*size, channels), classes)


def _entry(title: str, fill: Fill, preset: str, normalizes: bool, **recipe: Any) -> Architecture:
    return Architecture(
        title=title,
        build=partial(_build, fill),
        presets={preset: {**COMMON, **recipe}},
        sections=(NormalizationSettings, MomentSettings) if normalizes else (),
        lacks=frozenset({ATTRIBUTES, MERGED_FILTERS}),
    )


BASELINES = {
    "resnet20": _entry(
        "ResNet-20",
        _resnet20,
        "resnet20",
        True,
        epochs=164,  # 64,000 steps; the publication divides the rate after 32,000 and 48,000 of them
        learning_rate=0.1,
        step_epochs=82,
        weight_decay=1e-4,
    ),
    "all-cnn": _entry(
        "All-CNN-C", _all_cnn, "all-cnn", False, epochs=350, learning_rate=0.01, step_epochs=200, weight_decay=1e-3
    ),
    "nin": _entry(
        "Network in Network", _nin, "nin", False, epochs=200, learning_rate=0.02, step_epochs=80, weight_decay=1e-4
    ),
    "wrn-student": _entry(
        "WRN-16-1",
        _wrn_student,
        "wrn-student",
        True,
        epochs=200,
        learning_rate=0.1,
        step_epochs=60,
        step_factor=5.0,
        nesterov=True,
        weight_decay=5e-4,
    ),
    "fitnet": _entry(
        "FitNet 4", _fitnet, "fitnet", False, epochs=200, learning_rate=0.005, step_epochs=80, weight_decay=1e-4
    ),
}
