"""Convolutions of tensors: `convolve`, and what PyTorch calls a convolution, along any number of axes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, TypeAlias

import torch
import torch.fx
from torch import Tensor

from hcnn_core._problem import MAX_AXES, require_choice
from hcnn_core.convolution import Role
from hcnn_core.torch._operators import FUNCTIONS, REGISTERED, inside_a_transform
from hcnn_core.typing import Axes, Boundaries, Methods

PaddingMode: TypeAlias = Literal["zeros", "circular", "reflect", "replicate"]

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
HALVES = (torch.float16, torch.bfloat16)
BOUNDARIES = {"zeros": "zero", "circular": "periodic", "reflect": "mirror", "replicate": "nearest"}
"""Padding modes as boundaries of `convolve`."""


def convolve(
    x: Tensor,
    w: Tensor,
    /,
    axes: Axes,
    *,
    boundary: Boundaries,
    sum_axes: Axes = (),
    stride: Axes = 1,
    method: Methods = "auto",
) -> Tensor:
    """`hcnn_core.convolve` of tensors, on the CPU or a GPU, with gradients of every order; errors are its own.

    Filters are flipped, which PyTorch's own convolutions do not do; `conv_nd` is what PyTorch calls a convolution. In
    memory new axes lie where the first summed axis was, so that channels stay in front of space. Inside
    `torch.autocast`, float16 and bfloat16 are computed in float32. RuntimeError if CuPy, which a GPU needs, cannot be
    used.
    """
    x, w = _operands("w", *map(_of_integers, (x, w)))
    return _convolve(x, w, x.shape, w.shape, axes, boundary, sum_axes, stride, method)


def conv_nd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Axes = 1,
    padding: Axes | str = 0,
    dilation: Axes = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    method: Methods = "auto",
) -> Tensor:
    r"""Return what `torch.nn.functional.conv3d` would along any number of axes from 1 to 6.

    Parameters
    ----------
    x : torch.Tensor, shape (N, C, \*space) or (C, \*space)
        Signals, float32, float64, complex64 or complex128.
    weight : torch.Tensor, shape (K, C / groups, \*kernel_size)
        Filters; they are not flipped.
    bias : torch.Tensor, shape (K,), optional
        Added to each channel of the result.
    stride, dilation : int or sequence of int, optional
        One for all axes or one per axis. A dilated filter is computed as a longer one with zeros between its taps, so
        its cost grows with its length.
    padding : int, sequence of int, "valid" or "same", optional
        How many samples are added at both ends of each axis; ``"same"`` is for stride 1 and keeps the lengths.
    groups : int, optional
        Parts of the channels that are convolved apart, one call for each.
    padding_mode : {"zeros", "circular", "reflect", "replicate"}, optional
        What the added samples hold, with PyTorch's names. Unlike there, circular padding may be longer than the axis.
    method : {"auto", "direct", "fft"} or sequence of them, optional
        As in `hcnn_core.convolve`.

    Returns
    -------
    torch.Tensor, shape (N, K, \*space) or (K, \*space)
        New memory in C order.

    Raises
    ------
    TypeError
        As `convolve`.
    ValueError
        If shapes or options do not fit; the message says what would.

    See Also
    --------
    ConvNd : The same as a module with its weight.
    """
    x, weight = _operands("weight", x, weight)
    m, groups = _axes_of(x, weight), _require_groups(groups)
    stride, dilation = entries("stride", stride, m), entries("dilation", dilation, m)
    taps = tuple(d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True))
    pads = _pads(padding, taps, stride)
    batched = x if x.ndim == m + 2 else x.unsqueeze(0)
    channels, filters = batched.shape[1], weight.shape[0]
    _require_channels(channels == weight.shape[1] * groups and filters % groups == 0, x, weight, groups, "K, C")
    _require_bias(bias, filters, x)
    require_choice("padding_mode", padding_mode, tuple(BOUNDARIES))

    boundary, skips, counts = [], [], []
    for axis, (n, s, r, pad) in enumerate(zip(batched.shape[2:], taps, stride, pads, strict=True), 2):
        left, right, skip, count = _placement(n, s, r, *pad)
        if count < 1:
            raise ValueError(
                f"axis {axis} of x has {n} samples, padded to {n + sum(pad)}; a filter of {s} does not fit"
            )
        if padding_mode != "zeros" and (left or right):
            batched, pad = _extended(batched, axis, *pad, padding_mode), (0, 0)
            left, right, skip, count = _placement(batched.shape[axis], s, r, *pad)
        batched = _padded(batched, axis, left, right)
        # where nothing is added, no result that is kept depends on the boundary, and periodic transforms are shorter
        boundary.append(BOUNDARIES[padding_mode] if any(pad) else "periodic")
        skips.append(skip)
        counts.append(count)

    w = _flipped(weight, dilation)  # (C / groups, *taps, K)
    axes = tuple(range(2, m + 2))
    results = [
        _convolve(part, of_part, part.shape, of_part.shape, axes, boundary, 1, stride, method).movedim(-1, 1)
        for part, of_part in zip(batched.chunk(groups, 1), w.chunk(groups, -1), strict=True)
    ]
    return _finished(results, skips, counts, bias, x.ndim == m + 2)


def conv_transpose_nd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Axes = 1,
    padding: Axes = 0,
    output_padding: Axes = 0,
    groups: int = 1,
    dilation: Axes = 1,
    *,
    method: Methods = "auto",
) -> Tensor:
    r"""Return what `torch.nn.functional.conv_transpose3d` would along any number of axes from 1 to 6.

    `weight` has shape (C, K / groups, \*kernel_size). stride, padding and dilation are those of the convolution
    `conv_nd` that this one is the transpose of. The result has ``(n - 1) * stride - 2 * padding + dilation *
    (kernel_size - 1) + output_padding + 1`` samples along an axis of n samples; `output_padding` is less than the
    stride or the dilation. All else as in `conv_nd`.
    """
    x, weight = _operands("weight", x, weight)
    m, groups = _axes_of(x, weight), _require_groups(groups)
    stride, dilation = entries("stride", stride, m), entries("dilation", dilation, m)
    padding, more = entries("padding", padding, m, 0), entries("output_padding", output_padding, m, 0)
    batched = x if x.ndim == m + 2 else x.unsqueeze(0)
    channels, filters = batched.shape[1], weight.shape[1]
    _require_channels(channels == weight.shape[0] and channels % groups == 0, x, weight, groups, "C, K")
    _require_bias(bias, filters * groups, x)

    boundary, lefts, lengths, wide = [], [], [], []
    rows = zip(batched.shape[2:], weight.shape[2:], stride, dilation, padding, more, strict=True)
    for axis, (n, k, r, d, pad, extra) in enumerate(rows, 2):
        if extra >= max(r, d):
            raise ValueError(f"output_padding is {extra}; it must be less than the stride or the dilation, {max(r, d)}")
        s = d * (k - 1) + 1
        length = (n - 1) * r - 2 * pad + s + extra
        if length < 1:
            raise ValueError(f"axis {axis} of the result would have {length} samples; use less padding")
        left, right, skip, _ = _placement(length, s, r, pad, pad, count=n)
        wide.append(left + length + right)
        batched = _padded(batched, axis, skip, -(-wide[-1] // r) - skip - n)
        boundary.append("zero" if pad else "periodic")
        lefts.append(left)
        lengths.append(length)

    w = _flipped(weight, dilation)  # (K / groups, *taps, C)
    axes = tuple(range(2, m + 2))
    shape = (batched.shape[0], filters, *wide)
    results = [
        _convolve(part.movedim(1, -1), of_part, shape, of_part.shape, axes, boundary, 1, stride, method, role="x")
        for part, of_part in zip(batched.chunk(groups, 1), w.chunk(groups, -1), strict=True)
    ]
    return _finished(results, lefts, lengths, bias, x.ndim == m + 2)


def _convolve(
    a: Tensor,
    b: Tensor,
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    axes: Axes,
    boundary: Any,
    sum_axes: Axes,
    stride: Any,
    method: Any,
    role: Role = "y",
) -> Tensor:
    """Return a derivative of the trilinear form: `convolve` by role "y", its vector-Jacobian products by "x", "w"."""
    if torch.jit.is_tracing():
        raise RuntimeError("torch.jit.trace cannot record this convolution; use torch.export.export or torch.compile")
    axes = _listed(axes)
    each = ("stride", stride), ("boundary", boundary), ("method", method)
    options = (_listed(sum_axes), *(_each(*option, len(axes)) for option in each))
    calls = FUNCTIONS if inside_a_transform() else REGISTERED
    return calls[role](a, b, list(x_shape), list(w_shape), axes, *options)


def _listed(value: Axes) -> list[int]:
    if not isinstance(value, Integral) and not hasattr(value, "__iter__"):
        raise TypeError(f"axes are {value!r}; give an integer or a sequence of them")
    return [int(value)] if isinstance(value, Integral) else [int(v) if isinstance(v, Integral) else v for v in value]


def _each(name: str, value: Any, count: int) -> list[Any]:
    """One entry per axis, from one for all or from a sequence."""
    if isinstance(value, Integral | str):
        return [value if isinstance(value, str) else int(value)] * count
    if not hasattr(value, "__iter__"):
        raise TypeError(f"{name} is {value!r}; give one for all axes, or one for each")
    return [int(entry) if isinstance(entry, Integral) else entry for entry in value]


def _of_integers(tensor: Any) -> Any:
    """Return a tensor of integers or bools in double precision, anything else as it is."""
    exact = isinstance(tensor, Tensor) and not (tensor.is_floating_point() or tensor.is_complex())
    return tensor.double() if exact else tensor


def _operands(name: str, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in one dtype, or TypeError."""
    for each, tensor in (("x", x), (name, w)):
        if isinstance(tensor, torch.fx.Proxy):
            raise TypeError("torch.fx traces a convolution as one call: take ConvNd, or torch.fx.wrap this function")
        if not isinstance(tensor, Tensor):
            kind = type(tensor)
            raise TypeError(
                f"{each} is a {kind.__module__}.{kind.__qualname__}; pass a tensor, torch.as_tensor({each})"
            )
        if tensor.layout is not torch.strided:
            raise TypeError(f"{each} has layout {tensor.layout}; pass {each}.to_dense()")
    if x.device != w.device:
        raise TypeError(f"x is on {x.device} and {name} on {w.device}: bring them to one device first")
    if x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type):
        x, w = (tensor.float() if tensor.dtype in HALVES else tensor for tensor in (x, w))
    for each, tensor in (("x", x), (name, w)):
        if tensor.dtype not in DTYPES:
            cure = " or compute inside torch.autocast" if tensor.dtype in HALVES else ""
            raise TypeError(
                f"{each} has dtype {tensor.dtype}; convert it to float32, float64, complex64 or complex128{cure}"
            )
    if x.dtype != w.dtype:
        if name == "weight":  # as PyTorch does: a step of training in another dtype is seldom meant
            raise TypeError(f"x has dtype {x.dtype} and weight {w.dtype}; convert one, as with x.to(weight.dtype)")
        dtype = torch.promote_types(x.dtype, w.dtype)
        x, w = x.to(dtype), w.to(dtype)
    return x, w


def _axes_of(x: Tensor, weight: Tensor) -> int:
    """Return the number of convolved axes, which the weight has besides two."""
    m = weight.ndim - 2
    if 0 in weight.shape[2:]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; a filter needs at least one tap along each axis")
    if not 1 <= m <= MAX_AXES:
        raise ValueError(
            f"weight has {weight.ndim} axes; it needs two for channels and between 1 and {MAX_AXES} kernel sizes"
        )
    if x.ndim not in (m + 1, m + 2):
        raise ValueError(
            f"x has {x.ndim} axes and weight {weight.ndim}; x must have as many, or one less where there is no batch"
        )
    return m


def entries(name: str, value: Axes, count: int, minimum: int = 1) -> tuple[int, ...]:
    """One integer per axis."""
    sequence = (value,) * count if isinstance(value, Integral) else value
    if isinstance(sequence, str) or not hasattr(sequence, "__iter__"):
        raise TypeError(f"{name} is {value!r}; give an integer, or one per axis")
    values = tuple(sequence)
    if wrong := [entry for entry in values if not isinstance(entry, Integral | torch.SymInt)]:
        raise TypeError(f"{name} holds {wrong[0]!r}; give integers")
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries for {count} axes; give one, or one per axis")
    if min(values, default=minimum) < minimum:
        raise ValueError(f"{name} is {value}; give {minimum} or more")
    return tuple(int(entry) if isinstance(entry, Integral) else entry for entry in values)


def _pads(padding: Axes | str, taps: tuple[int, ...], stride: tuple[int, ...]) -> list[tuple[int, int]]:
    """How many samples are added before and after each axis."""
    if not isinstance(padding, str):
        return [(p, p) for p in entries("padding", padding, len(taps), 0)]
    if padding == "valid":
        return [(0, 0)] * len(taps)
    if padding == "same":
        if any(r != 1 for r in stride):
            raise ValueError(f"padding is 'same' and stride {stride}; 'same' is for stride 1")
        return [((s - 1) // 2, s // 2) for s in taps]
    raise ValueError(f"padding is {padding!r}; give 'valid', 'same' or numbers")


def _require_channels(fits: bool, x: Tensor, weight: Tensor, groups: int, order: str) -> None:
    if not fits:
        channels = x.shape[1 - (weight.ndim - x.ndim)]
        alone = "" if x.ndim == weight.ndim else f" ({x.ndim} axes are one sample without a batch, (C, *space))"
        raise ValueError(
            f"x has {channels} channels{alone} and weight shape {tuple(weight.shape)} with {groups} groups; "
            f"weight must be ({order} / groups, kernel sizes) with {order[0]} a multiple of groups"
        )


def _require_bias(bias: Tensor | None, filters: int, x: Tensor) -> None:
    if bias is None:
        return
    if not isinstance(bias, Tensor):
        raise TypeError(f"bias is a {type(bias).__qualname__}; pass a tensor, torch.as_tensor(bias)")
    if tuple(bias.shape) != (filters,):
        raise ValueError(f"bias has shape {tuple(bias.shape)}; it must be ({filters},), one for each filter")
    if torch.promote_types(bias.dtype, x.dtype) != x.dtype:
        raise TypeError(f"bias has dtype {bias.dtype} and the result {x.dtype}, which would lose digits: convert one")


def _require_groups(groups: int) -> int:
    if not isinstance(groups, Integral):
        raise TypeError(f"groups is {groups!r}; give an integer")
    if groups < 1:
        raise ValueError(f"groups is {groups}; give 1 or more")
    return int(groups)


def _placement(n: int, s: int, r: int, before: int, after: int, count: int | None = None) -> tuple[int, int, int, int]:
    """Return samples to add before and after an axis, results to skip, and results to keep.

    `hcnn_core.convolve` has the first sample at the centre of its first result. PyTorch has the first of s taps
    `before` samples earlier than the first sample. So that a result lies there, up to r - 1 samples may be missing.
    """
    if count is None:
        count = (n + before + after - s) // r + 1
    centre = s - 1 - s // 2
    left = before - centre if before >= centre else (before - centre) % r
    skip = (left + centre - before) // r
    right = max(0, (skip + count - 1) * r + 1 - left - n)
    return left, right, skip, count


def _padded(x: Tensor, axis: int, left: int, right: int) -> Tensor:
    """Return the tensor with zeros at both ends of an axis."""
    if left == 0 and right == 0:
        return x
    return torch.nn.functional.pad(x, (0, 0) * (x.ndim - 1 - axis) + (left, right))


def _extended(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Return the tensor with samples of its own at both ends of an axis."""
    if before == 0 and after == 0:
        return x
    n = x.shape[axis]
    if n == 0:
        raise ValueError(f"axis {axis} of x has no samples, which padding_mode {mode!r} could repeat")
    index = torch.arange(-before, n + after, device=x.device)
    if mode == "circular":
        index = index % n
    elif mode == "replicate":
        index = index.clamp(0, n - 1)
    else:  # reflect
        index = index % max(2 * n - 2, 1)
        index = torch.minimum(index, 2 * n - 2 - index)
    return x.index_select(axis, index)


def _flipped(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Turn filters (K, C, *kernel_size) into those of `hcnn_core.convolve`, (C, *taps, K), zeros between their taps."""
    for axis, d in enumerate(dilation, 2):
        if d > 1:
            spread = torch.nn.functional.pad(weight.unsqueeze(axis + 1), (0, 0) * (weight.ndim - axis - 1) + (0, d - 1))
            weight = spread.flatten(axis, axis + 1).narrow(axis, 0, d * (weight.shape[axis] - 1) + 1)
    return weight.flip(tuple(range(2, weight.ndim))).movedim(0, -1)


def _finished(results: list[Tensor], first: list[int], counts: list[int], bias: Tensor | None, batched: bool) -> Tensor:
    """Return the results of all groups as one, those that are kept, with their bias and in C order."""
    y = results[0] if len(results) == 1 else torch.cat(results, 1)
    for axis, (begin, count) in enumerate(zip(first, counts, strict=True), 2):
        if count != y.shape[axis]:
            y = y.narrow(axis, begin, count)
    if bias is not None:
        y = y + bias.to(y.dtype).reshape(-1, *(1,) * (y.ndim - 2))
    y = y.contiguous()
    return y if batched else y.squeeze(0)
