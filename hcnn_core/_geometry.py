"""What one call of `convolve` asks for, validated once: which axes, how long, extended how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BOUNDARIES = ("periodic", "zero")
METHODS = ("auto", "direct", "fft")
MAX_AXES = 6


@dataclass(frozen=True)
class Geometry:
    """Shapes of a convolution; the tuples that describe convolved axes follow the order of `axes`."""

    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    axes: tuple[int, ...]
    sum_axes: tuple[int, ...]
    stride: tuple[int, ...]
    boundary: tuple[str, ...]
    method: tuple[str, ...]

    @property
    def batch_axes(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.x_shape)) if a not in self.axes and a not in self.sum_axes)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(self.x_shape[a] for a in self.axes)

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return self.w_shape[len(self.sum_axes) : len(self.sum_axes) + len(self.axes)]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the new attribute axes."""
        return self.w_shape[len(self.sum_axes) + len(self.axes) :]

    @property
    def out_lengths(self) -> tuple[int, ...]:
        return tuple(-(-n // r) for n, r in zip(self.lengths, self.stride, strict=True))

    @property
    def y_shape(self) -> tuple[int, ...]:
        length = dict(zip(self.axes, self.out_lengths, strict=True))
        kept = tuple(length.get(a, n) for a, n in enumerate(self.x_shape) if a not in self.sum_axes)
        return kept + self.out_shape

    @property
    def empty(self) -> bool:
        """Whether no product enters the sum: some operand or the result has no element."""
        return not (math.prod(self.x_shape) and math.prod(self.w_shape))


def make_geometry(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    axes: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
    sum_axes: int | Sequence[int],
    stride: int | Sequence[int],
    method: str | Sequence[str],
) -> Geometry:
    """Validate the arguments of `convolve` and return them in normal form."""
    x_shape, w_shape = tuple(x_shape), tuple(w_shape)
    axes = normalize_axes("axes", axes, len(x_shape))
    sum_axes = normalize_axes("sum_axes", sum_axes, len(x_shape))
    if not 1 <= len(axes) <= MAX_AXES:
        raise ValueError(f"axes names {len(axes)} axes; between 1 and {MAX_AXES} can be convolved")
    if both := sorted(set(axes) & set(sum_axes)):
        raise ValueError(f"axes and sum_axes both name {both}; an axis is either convolved or summed")
    if len(w_shape) < len(sum_axes) + len(axes):
        raise ValueError(
            f"w has shape {w_shape}; it needs {len(sum_axes)} summed and {len(axes)} convolved axes, "
            f"so at least {len(sum_axes) + len(axes)}"
        )
    summed = tuple(x_shape[a] for a in sum_axes)
    if w_shape[: len(sum_axes)] != summed:
        raise ValueError(f"w has shape {w_shape}; its leading axes must be {summed}, the lengths of x along sum_axes")
    return Geometry(
        x_shape,
        w_shape,
        axes,
        sum_axes,
        normalize_stride(stride, len(axes)),
        normalize_choice("boundary", boundary, len(axes), BOUNDARIES),
        normalize_choice("method", method, len(axes), METHODS),
    )


def normalize_axes(name: str, axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Axes as a tuple of distinct non-negative integers."""
    given = (axes,) if _is_integer(axes) else tuple(axes)  # type: ignore[arg-type]
    for a in given:
        if not _is_integer(a):
            raise TypeError(f"{name} holds {a!r}; axes are integers")
        if not -ndim <= a < ndim:
            raise ValueError(f"{name} names axis {a} of an array with {ndim} axes; use {-ndim} to {ndim - 1}")
    normal = tuple(int(a) % ndim for a in given)
    if len(set(normal)) < len(normal):
        raise ValueError(f"{name} is {given}; an axis is named twice")
    return normal


def normalize_stride(stride: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One stride per convolved axis."""
    given = (stride,) * count if _is_integer(stride) else tuple(stride)  # type: ignore[arg-type]
    if len(given) != count:
        raise ValueError(f"stride has {len(given)} entries for {count} convolved axes; give one, or one per axis")
    for r in given:
        if not _is_integer(r):
            raise TypeError(f"stride holds {r!r}; strides are integers")
        if r < 1:
            raise ValueError(f"stride holds {r}; strides are at least 1")
    return tuple(int(r) for r in given)


def normalize_choice(name: str, value: str | Sequence[str], count: int, choices: tuple[str, ...]) -> tuple[str, ...]:
    """One word per convolved axis, each among `choices`."""
    given = (value,) * count if isinstance(value, str) else tuple(value)
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} entries for {count} convolved axes; give one, or one per axis")
    for word in given:
        if word not in choices:
            raise ValueError(f"{name} is {word!r}; choose {' or '.join(map(repr, choices))}")
    return given


def _is_integer(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
