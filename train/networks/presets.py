"""Presets of the hierarchical network: the changes of each from the defaults, which are the paper's."""

from __future__ import annotations

from typing import Any

UNITS = {1: "signals", 2: "images", 3: "volumes"}
"""Names of data with one, two and three axes of space."""

BY_AXES = {1: "signal", 2: "hcnn-fast", 3: "volume"}
"""The preset for one's own data with one, two and three axes of space."""

MADE_FOR = {"signal": 1, "volume": 3}
"""Axes of space that a preset is for; the others are for images, and take any that their layers take."""

MUON: dict[str, Any] = {
    "normalization": "both",
    "batch_size": 100,
    "optimizer": "muon",
    "schedule": "one-cycle",
    "learning_rate": 0.03,
    "nesterov": True,
    "weight_decay": 0.0,
    "logit_scale": 10.0,
    "shift": 4,
}
"""Settings common to the recipes that train by Muon."""

RECIPE: dict[str, Any] = {
    **MUON,
    "moment_decay": 0.99,
    "image_shares": (1 / 2, 5 / 8, 3 / 4, 7 / 8, 1.0),
    "warmup": 0.1,
    "weight_decay": 0.003,
    "average_decay": 0.999,
    "alternate_flips": True,
}
"""Settings common to the recipes for K = 16."""

BEST: dict[str, Any] = {**RECIPE, "epochs": 120, "cutout": 8}
"""First part of the recipe of the most accurate network with at most 97,650 coefficients."""

END = {"schedule": "constant", "learning_rate": 0.006, "average_decay": 0.9998, "epochs": 20, "image_shares": (1.0,)}
"""Changes of its second part, which begins with the weights of the first (arXiv:1803.05407)."""

MEDIUM: dict[str, Any] = {**RECIPE, "strided_layers": (3, 7), "epochs": 60}
"""Recipe of four hours of two processor cores."""

SMALL: dict[str, Any] = {
    **MUON,
    "attribute_kernel": (5, 7),
    "width": 8,
    "depth": 8,
    "factors": 16,
    "learning_rate": 0.02,
    "weight_decay": 0.003,
    "average_decay": 0.99,
    "flip": False,
}
"""Settings common to the presets of signals and of volumes."""

SIGNAL: dict[str, Any] = {**SMALL, "strided_layers": (2, 3, 4, 5), "epochs": 100, "batch_size": 10, "shift": 0}
SIGNAL |= {"space_kernel": 9, "noise": 0.1, "resample": 0.1}
"""One axis of space; benchmarks/results/signals.md gives the reasons for nine taps, noise and resampled axes."""

VOLUME: dict[str, Any] = {**SMALL, "strided_layers": (1, 2, 4), "epochs": 20, "batch_size": 20, "shift": 2}
"""Three axes of space; benchmarks/results/volumes.md gives the reason why they are halved early."""

BRIEF: dict[str, Any] = {"epochs": 5, "schedule": "one-cycle", "learning_rate": 0.003, "logit_scale": 10.0, "shift": 2}
"""Settings common to recipes of a few epochs."""

HIERARCHICAL: dict[str, dict[str, Any]] = {
    "hcnn": {},
    "hcnn-plus": {"nonlinear_factors": True},
    "released": {
        "nonlinear_factors": True,
        "normalization": "both",
        "moment_decay": 0.99,
        "strided_layers": (4, 8),
        "head": "dense",
        "epochs": 320,
        "learning_rate": 0.35,
        "step_factor": 2.0,
        "nesterov": True,
        "weight_decay": 6e-4,
        "shift": 4,
    },
    "hcnn-fast": {
        **MUON,
        "width": 10,
        "strided_layers": (3, 6),
        "epochs": 50,
        "image_shares": (1 / 2, 3 / 4, 1.0),
        "average_decay": 0.999,
        "alternate_flips": True,
    },
    "hcnn-medium": MEDIUM,
    "hcnn-best": BEST,
    "hcnn-best-second-part": {name: value for name, value in (BEST | END).items() if name != "warmup"},
    "hcnn-periodic": {**MEDIUM, "boundary": "attributes", "epochs": 35},
    "scattering": {
        **MUON,
        "scattering": 2,
        "depth": 6,
        "width": 10,
        "strided_layers": (),
        "epochs": 30,
        "batch_size": 20,
    },
    "signal": SIGNAL,
    "volume": VOLUME,
    "short": {**BRIEF, "epochs": 2, "validation_size": 2000},
    "sample": {**BRIEF, "dataset": "sample", "width": 8, "factors": 16, "batch_size": 20, "validation_size": 200},
}
"""The changes of each preset. `hcnn` and `hcnn-plus` are the paper's networks and its recipe (section 4.2).

`released` is the network of the authors' program: scale and bias after both normalisations, space subsampled at j = 4
and 8, means of 16 filters at layer 11 and a dense layer, 360,522 trainable numbers. What differs: filters are flipped,
as a convolution's are; strides begin at the first sample (theirs, at even lengths, at the second); the learning rate
halves every 40 epochs (theirs from epoch 240 on every 20).

The mean over attributes makes all Q s1 s2 coefficients of a class act together in the last layer, so the steepest
curvature of the loss grows with them and with the square of the logits' scale: a scale of 10 wants learning rates near
0.003, the printed 0.25 a scale of 1 (benchmarks/results/recipes.md).
"""
