"""Stochastic gradient descent with momentum and weight decay, and the courses of its learning rate (section 4.2)."""

from __future__ import annotations

import math

from hcnn_core._backend import Array
from train.config import Config

Tree = dict[str, dict[str, Array]]

DECAYED = ("w", "h", "g")
"""Weights that decay: filter coefficients, not biases and not the scale of the logits."""


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    config : Config
        Its schedule: "step" divides by `step_factor` every `step_epochs`; "cosine" falls to 0 along half a cosine;
        "one-cycle" rises linearly from 0 during the part `warmup` of all steps, then falls linearly to 0.
    step : int
        Steps taken before, from the start of training.
    steps_per_epoch : int
        Steps in an epoch.

    Returns
    -------
    float
        The rate.
    """
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


def descend(config: Config, rate: float, parameters: Tree, gradients: Tree, velocity: Tree) -> tuple[Tree, Tree]:
    """Return parameters and velocity after one step.

    The velocity is ``v = momentum v - rate (gradient + weight_decay w)``, as the authors' framework has it; the
    weights move by v, or with Nesterov's momentum by ``momentum v - rate (gradient + weight_decay w)``.

    Parameters
    ----------
    config : Config
        Momentum, its kind, and weight decay.
    rate : float
        Learning rate.
    parameters, gradients, velocity : dict of dict of array
        Of one structure; none is changed.

    Returns
    -------
    parameters, velocity : dict of dict of array
        After the step.
    """
    new: Tree = {}
    moved: Tree = {}
    for layer, weights in parameters.items():
        new[layer], moved[layer] = {}, {}
        for name, weight in weights.items():
            gradient = gradients[layer][name]
            if name in DECAYED:
                gradient = gradient + config.weight_decay * weight
            v = config.momentum * velocity[layer][name] - rate * gradient
            moved[layer][name] = v
            new[layer][name] = weight + (config.momentum * v - rate * gradient if config.nesterov else v)
    return new, moved
