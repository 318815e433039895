"""The networks that Table 1 of arXiv:1703.04140 compares with, as their publications describe them.

| preset | publication | its parameters | trainable numbers here |
| --- | --- | --- | --- |
| `resnet20` | ResNet-20, arXiv:1512.03385, section 4.2, shortcuts A | 0.27M | 269,722; 268,346 without normalisation |
| `all-cnn` | All-CNN-C, arXiv:1412.6806, Table 2 | 1.3M | 1,369,738 with biases |
| `nin` | Network in Network, arXiv:1312.4400, section 4 | 0.98M in Table 1 | 966,986 with biases |
| `wrn-student` | WRN-16-1, the student of arXiv:1612.03928 | 0.17M | 175,066; 174,138 without normalisation |
| `fitnet` | FitNet 4, arXiv:1412.6550, 19 layers with maxout | 2.5M | 2,548,602 with biases |

What differs: they are trained here as the presets say, without teachers or hints. `all-cnn` and `nin` have no ReLU
before the last mean, where a class whose map is 0 everywhere learns nothing. Pooling windows of `nin` begin one pixel
outside, where its authors' end there. `fitnet` begins with weights by arXiv:1511.06422. Two counts are not those
printed: All-CNN-C as its table describes it has 1.37 million with or without biases, and NIN 0.97 million.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hcnn_core.backend import Array
from train.networks.architecture import ATTRIBUTES, MERGED_FILTERS, Architecture
from train.networks.hierarchical import NormalizationSettings
from train.networks.layer import IMAGES, Parameters, State
from train.networks.network import Network
from train.networks.plain import Table
from train.settings import MomentSettings, RunSettings, Section, setting

NO_LAST_RELU = "What differs: no ReLU before the last mean, where the publication has one."


class DropoutSettings(RunSettings):
    """Settings of networks that leave values out in training."""

    dropout: float = setting(
        0.5,
        "part of the values between blocks that training leaves out; of All-CNN-C's images at most 0.2",
        low=0,
        high=0.9,
    )


Fill = Callable[[Table, int, Any], None]
"""Adds layers to a table, from the settings and the number of classes."""


def _resnet20(table: Table, classes: int, config: RunSettings) -> None:
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


def _all_cnn(table: Table, classes: int, config: DropoutSettings) -> None:
    """Convolutions alone; those with stride 2 stand for pooling."""
    table.dropout(min(0.2, config.dropout))
    for filters in (96, 192):
        for stride in (1, 1, 2):
            table.convolve(filters, stride=stride, bias=True)
            table.apply("relu")
        table.dropout(config.dropout)
    for taps in (3, 1):
        table.convolve(192, taps, bias=True, valid=True)
        table.apply("relu")
    table.convolve(classes, 1, bias=True)
    table.whole("mean")
    table.notes.append(NO_LAST_RELU)


def _nin(table: Table, classes: int, config: DropoutSettings) -> None:
    """Three convolutions, each with two layers of 1 x 1 filters behind it."""
    for taps, filters, pool in ((5, (192, 160, 96), "max"), (5, (192, 192, 192), "mean"), (3, (192, 192), "")):
        for index, count in enumerate(filters):
            table.convolve(count, 1 if index else taps, bias=True)
            table.apply("relu")
        if pool:
            table.pool(pool, 3, 2, padding=1)
            table.dropout(config.dropout)
    table.convolve(classes, 1, bias=True)
    table.whole("mean")
    table.notes.append(NO_LAST_RELU)


def _wrn_student(table: Table, classes: int, config: RunSettings) -> None:
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


def _fitnet(table: Table, classes: int, config: RunSettings) -> None:
    """Maxima of two maps after each of 17 convolutions and a dense layer."""
    for filters in ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6):
        for count in filters:
            table.convolve(2 * count, bias=True)
            table.apply("maxout")
        if filters[-1] < 128:
            table.pool("max", 2, 2)
    table.whole("max")
    table.dense(1000)
    table.apply("maxout")
    table.dense(classes)


def _unit_variance(network: Network, weights: Parameters, images: Array) -> None:
    """Make filters orthonormal, then scale them so that each layer's outputs have variance 1 (arXiv:1511.06422)."""
    state: State = {IMAGES: images}
    for layer in network.table:
        if layer.trainable:
            w = weights[layer.name]["w"]
            u, _, v = np.linalg.svd(np.reshape(w, (-1, w.shape[-1])), full_matrices=False)
            w[...] = np.reshape(u @ v, w.shape)
            w /= next(network.trace(weights, state))[1].std()
        state = {layer.name: next(network.trace(weights, state))[1]}


def _build(fill: Fill, config: Any, size: tuple[int, int], classes: int, channels: int) -> Network:
    table = Table((*size, channels), config.dtype, config.epsilon)
    fill(table, classes, config)
    return Network(config, table.ended(), (*size, channels), classes, table.notes)


def _entry(
    title: str,
    fill: Fill,
    preset: str,
    *sections: type[Section],
    begin: Callable[[Network, Parameters, Array], None] = Architecture.begin,
    **recipe: Any,
) -> Architecture:
    presets, lacks = {preset: {"batch_size": 128, "shift": 4, **recipe}}, frozenset({ATTRIBUTES, MERGED_FILTERS})
    return Architecture(title, partial(_build, fill), presets, sections, lacks, begin=begin)


# 164 epochs are 64,000 steps; the publication divides the rate after 32,000 and 48,000 of them
RESNET20: dict[str, Any] = {"epochs": 164, "learning_rate": 0.1, "step_epochs": 82, "weight_decay": 1e-4}
NIN: dict[str, Any] = {
    "epochs": 200,
    "learning_rate": 0.01,
    "step_epochs": 80,
    "weight_decay": 1e-4,
    "warmup_steps": 100,
}
ALL_CNN: dict[str, Any] = {**NIN, "epochs": 350, "step_epochs": 200, "weight_decay": 1e-3}
FITNET: dict[str, Any] = {**NIN, "learning_rate": 0.002}
WRN: dict[str, Any] = {"epochs": 200, "learning_rate": 0.1, "step_epochs": 60, "step_factor": 5.0, "nesterov": True}

BASELINES = {
    "resnet20": _entry("ResNet-20", _resnet20, "resnet20", NormalizationSettings, MomentSettings, **RESNET20),
    "all-cnn": _entry("All-CNN-C", _all_cnn, "all-cnn", DropoutSettings, **ALL_CNN),
    "nin": _entry("Network in Network", _nin, "nin", DropoutSettings, **NIN),
    "wrn-student": _entry(
        "WRN-16-1", _wrn_student, "wrn-student", NormalizationSettings, MomentSettings, **WRN, weight_decay=5e-4
    ),
    "fitnet": _entry("FitNet 4", _fitnet, "fitnet", begin=_unit_variance, **FITNET),
}
