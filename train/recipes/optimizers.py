"""Stochastic gradient descent with momentum and weight decay, and the courses of its learning rate (section 4.2)."""

from __future__ import annotations

import math
from typing import Any

from hcnn_core.backend import Array, array_namespace, library_of
from hcnn_core.products import matmul
from hcnn_core.updates import Term, weighted_sums
from train.config import Config

Tree = dict[str, dict[str, Array]]

DECAYED = ("w", "h", "g")
"""Weights that decay: filter coefficients, not biases and not the scale of the logits."""

TINY = 1e-30
"""Added to the square of a gradient's norm, so that no gradient is no step."""


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


def descend(
    config: Config, rate: float | Array, parameters: Tree, gradients: Tree, velocity: Tree
) -> tuple[Tree, Tree]:
    """Return parameters and velocity after one step of stochastic gradient descent with momentum.

    The velocity of optimizer "sgd" is ``v = momentum v - rate (gradient + weight_decay w)``, as the authors' framework
    has it; the weights move by v, or with Nesterov's momentum by ``momentum v - rate (gradient + weight_decay w)``.

    Optimizer "muon" has ``v = momentum v + gradient``, and the weights move by ``-rate (U + weight_decay w)``, where U
    is close to the semi-orthogonal matrix nearest to v, or with Nesterov's momentum to ``momentum v + gradient``: the
    steepest descent among matrices of spectral norm 1 (arXiv:2409.20325). Every array is the matrix of a linear map:
    h from the taps of a patch to the factors, w and g from everything before the last axis to the filters.
    """
    if config.optimizer == "sgd" and library_of(rate) == "cupy":
        return _descend_at_once(config, rate, parameters, gradients, velocity)
    new: Tree = {}
    moved: Tree = {}
    for layer, weights in parameters.items():
        new[layer], moved[layer] = {}, {}
        for name, weight in weights.items():
            gradient, v = gradients[layer][name], velocity[layer][name]
            decay = config.weight_decay * weight if name in DECAYED else 0
            if config.optimizer == "muon":
                v = config.momentum * v + gradient
                ahead = config.momentum * v + gradient if config.nesterov else v
                step = -rate * (_semi_orthogonal(name, ahead) + decay)
            else:
                v = config.momentum * v - rate * (gradient + decay)
                step = config.momentum * v - rate * (gradient + decay) if config.nesterov else v
            moved[layer][name] = v
            new[layer][name] = weight + step
    return new, moved


def _descend_at_once(config: Config, rate: Any, parameters: Tree, gradients: Tree, velocity: Tree) -> tuple[Tree, Tree]:
    """The same by weighted sums of weights, velocities and gradients, for which a GPU wants few kernels."""
    names = [(layer, name) for layer, weights in parameters.items() for name in weights]
    sums: list[list[Term]] = []
    # what weights move by: the velocity, or what comes after it
    ahead = config.momentum if config.nesterov else 0.0
    for moves in (False, True):
        for layer, name in names:
            w, v, g = (tree[layer][name] for tree in (parameters, velocity, gradients))
            keep = config.momentum * (ahead if moves and config.nesterov else 1.0)
            taken = -(1.0 + ahead) if moves else -1.0
            decay = taken * config.weight_decay if name in DECAYED else 0.0
            sums.append([Term(v, keep), Term(g, 0.0, taken, rate), Term(w, 1.0 if moves else 0.0, decay, rate)])
    found = iter(weighted_sums(sums))
    moved, new = ({layer: {name: next(found) for name in parameters[layer]} for layer in parameters} for _ in range(2))
    return new, moved


def _semi_orthogonal(name: str, array: Array) -> Array:
    """All singular values of an array, as a matrix, brought near 1 (0.7 to 1.2) by Newton-Schulz iterations.

    The polynomial is that of https://kellerjordan.github.io/posts/muon: fast rather than exact.
    """
    xp = array_namespace(array)
    matrix = xp.reshape(array, (array.shape[0], -1) if name == "h" else (-1, *(array.shape[-1:] or (1,))))
    wide = matrix.shape[0] < matrix.shape[1]
    u = matrix.T if wide else matrix
    u = u / xp.sqrt(xp.sum(u * u) + TINY)
    for _ in range(5):
        gram = matmul(u.T, u)
        u = 3.4445 * u + matmul(u, 2.0315 * matmul(gram, gram) - 4.7750 * gram)
    return xp.reshape(u.T if wide else u, array.shape)
