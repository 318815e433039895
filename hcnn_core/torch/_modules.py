"""Convolutions as modules of PyTorch, with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch.fx
from torch import Tensor
from torch.nn import ConvTranspose3d
from torch.nn.modules.conv import _ConvNd

from hcnn_core._problem import MAX_AXES
from hcnn_core.torch._functional import PaddingMode, conv_nd, conv_transpose_nd, entries
from hcnn_core.typing import Axes, Methods

torch.fx.wrap("conv_nd")
torch.fx.wrap("conv_transpose_nd")


class ConvNd(_ConvNd):
    """`torch.nn.Conv3d` along any number of axes from 1 to 6.

    Its weight, bias, initialisation and state are those of PyTorch's modules: what `torch.nn.Conv3d` saves, a `ConvNd`
    with three kernel sizes loads.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the signal and of the result.
    kernel_size : sequence of int
        Length of the filters along each axis; their number is the number of axes.
    stride, padding, dilation, groups
        As `conv_nd` takes them.
    bias : bool, optional
        Whether a number is added to each channel of the result.
    padding_mode : {"zeros", "circular", "reflect", "replicate"}, optional
        As in `conv_nd`.
    device, dtype : optional
        Of the weights.
    method : {"auto", "direct", "fft"} or sequence of them, optional
        As in `hcnn_core.convolve`.

    Raises
    ------
    TypeError
        If the kernel size is one number.
    ValueError
        If the options do not fit; the message says what would.

    See Also
    --------
    conv_nd : The function, of a signal and a weight.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Axes = 1,
        padding: Axes | str = 0,
        dilation: Axes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        *,
        device: Any = None,
        dtype: Any = None,
        method: Methods = "auto",
    ) -> None:
        sizes = _kernel_size(kernel_size)
        steps, spread = entries("stride", stride, len(sizes)), entries("dilation", dilation, len(sizes))
        pads = padding if isinstance(padding, str) else entries("padding", padding, len(sizes), 0)
        apart = False, (0,) * len(sizes), groups, bias, padding_mode, device, dtype
        super().__init__(in_channels, out_channels, sizes, steps, pads, spread, *apart)
        self.method = method

    def forward(self, x: Tensor) -> Tensor:
        r"""Convolve a signal (N, C, \*space) or (C, \*space) as `conv_nd` does."""
        return conv_nd(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            padding_mode=self.padding_mode,
            method=self.method,
        )


class ConvTransposeNd(ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` along any number of axes from 1 to 6, with the options of `conv_transpose_nd`.

    It is a subclass for those who ask `isinstance` which axis of a weight is that of its filters, as spectral
    normalisation does. It shares nothing else. All else as in `ConvNd`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        stride: Axes = 1,
        padding: Axes = 0,
        output_padding: Axes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Axes = 1,
        *,
        device: Any = None,
        dtype: Any = None,
        method: Methods = "auto",
    ) -> None:
        sizes = _kernel_size(kernel_size)
        steps, spread = entries("stride", stride, len(sizes)), entries("dilation", dilation, len(sizes))
        pads, more = (
            entries("padding", padding, len(sizes), 0),
            entries("output_padding", output_padding, len(sizes), 0),
        )
        apart = True, more, groups, bias, "zeros", device, dtype
        _ConvNd.__init__(self, in_channels, out_channels, sizes, steps, pads, spread, *apart)
        self.method = method

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        r"""Convolve a signal (N, C, \*space) or (C, \*space) as `conv_transpose_nd` does.

        `output_size` gives the lengths of the result, as in `torch.nn.ConvTranspose3d`, in place of `output_padding`;
        ValueError, with the lengths it can have, if it cannot have these.
        """
        more = self.output_padding
        if output_size is not None:
            stride, padding, sizes, dilation = map(list, (self.stride, self.padding, self.kernel_size, self.dilation))
            more = tuple(self._output_padding(x, list(output_size), stride, padding, sizes, len(sizes), dilation))
        return conv_transpose_nd(
            x, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation, method=self.method
        )


def _kernel_size(value: Sequence[int]) -> tuple[int, ...]:
    if isinstance(value, Integral):
        raise TypeError(f"kernel_size is {value}; give one length per axis, such as {(int(value),) * 4} for four axes")
    sizes = tuple(value)
    if not 1 <= len(sizes) <= MAX_AXES:
        raise ValueError(f"kernel_size has {len(sizes)} entries; give between 1 and {MAX_AXES}, one per axis")
    return entries("kernel_size", sizes, len(sizes))
