"""Hierarchical networks as modules of PyTorch made of ordinary convolutions, see `train.runs.dense`.

Nothing imports this module before PyTorch is asked for; it needs the extra ``torch``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.data.augmentation import LEAST
from train.networks.layer import Moments, Parameters
from train.networks.network import Network
from train.runs.checkpoint import Checkpoint
from train.runs.dense import Dense, DenseLayer, dense_head, dense_layers, require_dense

__all__ = ["ACTIVATIONS", "Convolutions"]

ACTIVATIONS = {"elu": nn.ELU, "gelu": lambda: nn.GELU("tanh")}
"""Modules, by the names of the setting `activation`."""


def _convolution(dense: Dense) -> nn.Sequential:
    """A correlation, after the samples that it wants beyond the ends."""
    axes = len(dense.stride)
    outputs, inputs, *size = dense.weight.shape
    kind = getattr(nn, f"Conv{axes}d")
    made = kind(inputs * dense.groups, outputs, size, dense.stride, groups=dense.groups, bias=dense.bias is not None)
    arrays = {"weight": dense.weight} | ({} if dense.bias is None else {"bias": dense.bias})
    made.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    pad = _Periodic(dense.pads) if dense.periodic else getattr(nn, f"ZeroPad{axes}d")(dense.pads * axes)
    return nn.Sequential(*([pad] if max(dense.pads) else []), made)


class _Periodic(nn.Module):
    """Samples of the other end before and after each axis of space, of which there may be fewer than are wanted."""

    def __init__(self, pads: tuple[int, int]) -> None:
        super().__init__()
        self.before, self.after = pads

    def forward(self, x: Tensor) -> Tensor:
        for axis, n in enumerate(x.shape[2:], 2):
            x = x.index_select(axis, torch.arange(-self.before, n + self.after, device=x.device) % n)
        return x


class _Layer(nn.Module):
    """A layer, from what all layers before it made."""

    def __init__(self, layer: DenseLayer, activation: str) -> None:
        super().__init__()
        self.parts, self.sums, self.back = layer.dense.parts, layer.reduction == "sum", layer.back
        self.blur = _convolution(layer.blur).requires_grad_(False) if layer.blur else nn.Identity()
        self.copies = _convolution(layer.copies) if layer.copies else None
        self.convolution = _convolution(layer.dense)
        self.activation = ACTIVATIONS[activation]()
        self.skip = _convolution(layer.skip).requires_grad_(False) if layer.skip else None

    def forward(self, made: list[Tensor]) -> Tensor:
        x = made[-1]
        if self.parts > 1:
            parts = x.unflatten(1, (self.parts, -1))
            x = parts.sum(1) if self.sums else parts.mean(1)
        x = self.blur(x)
        x = x if self.copies is None else self.activation(self.copies(x))
        x = self.activation(self.convolution(x))
        return x if self.skip is None else x + self.skip(made[-self.back])


class Convolutions(nn.Module):
    """A trained network as Conv1d, Conv2d or Conv3d layers, from tensors (N, C, *space) in the units of its data.

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
        If its layers are no such convolutions.
    """

    def __init__(self, checkpoint: Checkpoint, network: Network, parameters: Parameters, moments: Moments) -> None:
        super().__init__()
        require_dense(checkpoint, ACTIVATIONS, "PyTorch")
        self.by = checkpoint.config.standardize
        merged, axes = network.merged(parameters, moments), len(checkpoint.image_size)
        for name, values in (("mean", checkpoint.channel_mean), ("std", checkpoint.channel_std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(-1, *(1,) * axes))
        self.layers = nn.ModuleList(
            _Layer(layer, checkpoint.config.activation) for layer in dense_layers(network, merged)
        )
        head = dense_head(network, merged, checkpoint.targets)
        self.sums, self.head = head.sums, nn.Linear(*head.matrix.shape)
        self.head.load_state_dict({"weight": torch.tensor(head.matrix.T), "bias": torch.tensor(head.offset)})

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images, signals or volumes (N, C, *space)."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        if self.by == "sample":
            space = tuple(range(2, x.ndim))
            mean, deviation = x.mean(space, keepdim=True), x.std(space, correction=0, keepdim=True)
            varies = deviation > LEAST * torch.finfo(x.dtype).eps * (1 + mean.abs())
            x = torch.where(varies, (x - mean) / torch.where(varies, deviation, 1.0), 0.0)
        made = [x]
        for layer in self.layers:
            made.append(layer(made))
        whole = made[-1].flatten(2)
        return self.head(whole.sum(2) if self.sums else whole.mean(2))
