"""Networks as modules of PyTorch, see `train.runs.dense`.

Nothing imports this module before PyTorch is asked for; it needs the extra ``torch``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from train.data.augmentation import LEAST_DEVIATION
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.runs.checkpoint import Checkpoint
from train.runs.dense import Activation, Convolve, Flatten, Linear, Operation, Pool, Reduce, Scale, Whole, dense_steps

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": lambda: nn.GELU("tanh"),
    "relu": nn.ReLU,
    "squash": lambda: _Function(lambda x: 1.7159 * torch.tanh(x * (2 / 3))),
    "maxout": lambda: _Function(lambda x: torch.maximum(*x.chunk(2, 1))),
}
"""Modules, by the names of activations."""


def _module(operation: Operation) -> nn.Module:
    """Return a step as a module of what it reads."""
    match operation:
        case Convolve():
            return _convolution(operation)
        case Activation(name):
            return ACTIVATIONS[name]()
        case Pool("max", taps, stride, padding):
            return nn.MaxPool2d(taps, stride, padding)
        case Pool(_, taps, stride, padding):
            return nn.AvgPool2d(taps, stride, padding, count_include_pad=False)
        case Linear(matrix, offset):
            linear = nn.Linear(*matrix.shape)
            linear.load_state_dict({"weight": torch.tensor(matrix.T), "bias": torch.tensor(offset)})
            return linear
        case Scale(factor, offset):
            return _Scale(factor, offset)
        case Reduce(kind, count):
            return _Function(lambda x: getattr(x.unflatten(1, (count, -1)), kind)(1))
        case Whole(kind):
            return _Function(lambda x: getattr(x.flatten(2), "amax" if kind == "max" else kind)(2))
        case Flatten():
            return _Function(lambda x: x.movedim(1, -1).flatten(1))
    return _Function(torch.add)


class _Function(nn.Module):
    """A function without weights."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Tensor:
        return self.function(*x)


class _Scale(nn.Module):
    """Each channel times a factor, plus an offset."""

    def __init__(self, factor: Any, offset: Any) -> None:
        super().__init__()
        self.factor, self.offset = nn.Parameter(torch.tensor(factor)), nn.Parameter(torch.tensor(offset))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.offset


def _convolution(filters: Convolve) -> nn.Sequential:
    """Return a correlation, after a module that adds its samples beyond the ends."""
    axes = len(filters.stride)
    outputs, inputs, *size = filters.weight.shape
    kind = getattr(nn, f"Conv{axes}d")
    options = {"groups": filters.groups, "bias": filters.bias is not None}
    convolution = kind(inputs * filters.groups, outputs, size, filters.stride, **options)
    arrays = {"weight": filters.weight} | ({} if filters.bias is None else {"bias": filters.bias})
    convolution.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    pad = _Periodic(filters.pads) if filters.periodic else getattr(nn, f"ZeroPad{axes}d")(filters.pads * axes)
    return nn.Sequential(*([pad] if max(filters.pads) else []), convolution).requires_grad_(filters.learned)


class _Periodic(nn.Module):
    """Samples of the other end before and after each axis of space, which may be shorter than these."""

    def __init__(self, pads: tuple[int, int]) -> None:
        super().__init__()
        self.before, self.after = pads

    def forward(self, x: Tensor) -> Tensor:
        for axis, n in enumerate(x.shape[2:], 2):
            x = x.index_select(axis, torch.arange(-self.before, n + self.after, device=x.device) % n)
        return x


class Convolutions(nn.Module):
    """A trained network of Conv1d, Conv2d or Conv3d, pooling and linear maps, from tensors (N, C, *space).

    Parameters
    ----------
    checkpoint : Checkpoint
        Whose network it is.
    network : Network
        Its layers.
    parameters, moments : dict
        Its weights and running moments, NumPy arrays.

    Raises
    ------
    CheckpointError
        If one of its layers is none of these.
    """

    def __init__(self, checkpoint: Checkpoint, network: Network, parameters: Parameters, moments: Moments) -> None:
        super().__init__()
        steps = dense_steps(checkpoint, network, parameters, moments, ACTIVATIONS, "PyTorch")
        self.by, axes = checkpoint.config.standardize, len(checkpoint.image_size)
        for name, values in (("mean", checkpoint.channel_mean), ("std", checkpoint.channel_std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(-1, *(1,) * axes))
        self.steps = nn.ModuleList(_module(operation) for operation, _ in steps)
        self.reads = [reads for _, reads in steps]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images, signals or volumes (N, C, *space)."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        if self.by == "sample":
            space = tuple(range(2, x.ndim))
            mean, deviation = x.mean(space, keepdim=True), x.std(space, correction=0, keepdim=True)
            varies = deviation > LEAST_DEVIATION * torch.finfo(x.dtype).eps * (1 + mean.abs())
            x = torch.where(varies, (x - mean) / torch.where(varies, deviation, 1.0), 0.0)
        outputs = [x]
        for step, reads in zip(self.steps, self.reads, strict=True):
            outputs.append(step(*(outputs[k] for k in reads)))
        return outputs[-1]
