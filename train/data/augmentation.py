"""Standardisation and augmentation of batches of images, signals and volumes, alike on NumPy and on CuPy.

The data set stays uint8 on the device, a quarter of its size in float32. A batch is made of it in
three steps: take the images of an index array, `standardise`, `augment`. That order makes the zeros
which a translation shifts in the mean colour, which is zero after standardisation.

Every random number comes from a NumPy `Generator` on the host, so both backends see the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hcnn_core import matmul
from hcnn_core.backend import Array, DeviceTables, array_namespace, constant, dtype_name, empty, placement

LEAST_DEVIATION = 16
"""Rounding errors of one; a channel whose deviation is no larger is constant."""

BLOCK, VALUES = 1000, 2**23
"""Images that are summed at once, and the most values in them."""


def channel_statistics(images: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each channel over all positions of all images, signals or volumes.

    Of integers both come from exact sums, rounded once to float64; the deviation is the population's.
    """
    count, channels = math.prod(images.shape[:-1]), images.shape[-1]
    if count == 0:
        raise ValueError(f"images have shape {images.shape}: no pixel to take a mean over")
    kind = np.float64 if images.dtype.kind == "f" else np.int64

    def summed(term: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
        size = max(1, min(BLOCK, VALUES // math.prod(images.shape[1:])))
        blocks = (np.asarray(images[begin : begin + size]) for begin in range(0, len(images), size))
        return sum((term(block.reshape(-1, channels)) for block in blocks), np.zeros(channels, kind))

    sums = summed(lambda x: np.einsum("nc->c", x, dtype=kind))
    if kind is np.float64:
        mean = sums / count
        with np.errstate(over="ignore", invalid="ignore"):
            return mean, np.sqrt(summed(lambda x: np.square(x - mean).sum(axis=0)) / count)
    squares = summed(lambda x: np.einsum("nc,nc->c", x, x, dtype=kind))
    # Python integers: count * square passes 2**63 on CIFAR-10.
    variances = [
        (count * square - total**2) / count**2 for total, square in zip(sums.tolist(), squares.tolist(), strict=True)
    ]
    return np.array([total / count for total in sums.tolist()]), np.sqrt(variances)


def value_range(images: Any) -> tuple[float, float] | None:
    """Return the least and the largest value of images, signals or volumes; None for bytes."""
    if images.dtype == np.uint8:
        return None
    blocks = (np.asarray(images[begin : begin + BLOCK]) for begin in range(0, len(images), BLOCK))
    lows, highs = zip(*((float(block.min()), float(block.max())) for block in blocks), strict=True)
    return min(lows), max(highs)


def other_pixels(trained: tuple[float, float], given: tuple[float, float] | None) -> str:
    """Return a line if pixels range to 1 on one side and to 255 on the other, else ""."""
    if given is None or min(trained[0], given[0]) < 0:
        return ""
    low, high = sorted((trained[1], given[1]))
    if not 0 < low <= 1 < FEW_PIXELS < high <= 255:
        return ""
    return f"pixels go up to {given[1]:.4g}, and up to {trained[1]:.4g} where it was trained; bring them to one unit"


FEW_PIXELS = 64
"""The lightest of pixels from 0 to 255 is above this."""

STANDARDS = ("channel", "sample")
"""How images are standardised: each channel over all training images, or over each image alone."""


def standardise(
    images: Array,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    dtype: DTypeLike = "float32",
    by: str = "channel",
) -> Array:
    """Return ``(images - mean) / std``, channel by channel; by "sample", each image's own moments then standardise it.

    A channel that is constant in an image is then zero.
    """
    xp = array_namespace(images)
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype is {name}; images become float32 or float64")
    if not np.all(np.asarray(std) > 0):
        raise ValueError(f"standard deviations are {np.asarray(std).tolist()}; every one must be positive")
    wide = "float64" if dtype_name(images.dtype) == "float64" else name  # before the mean is subtracted
    scaled = xp.astype(images, getattr(xp, wide))
    scaled -= _per_colour(mean, wide, images)
    scaled /= _per_colour(std, wide, images)
    if by == "sample":
        space = tuple(range(1, images.ndim - 1))
        centre = xp.mean(scaled, axis=space, keepdims=True)
        deviation = xp.std(scaled, axis=space, keepdims=True)
        varies = deviation > LEAST_DEVIATION * xp.finfo(scaled.dtype).eps * (1 + xp.abs(centre))
        scaled = (scaled - centre) / xp.where(varies, deviation, xp.inf)
    return xp.astype(scaled, getattr(xp, name), copy=False)


_placed = DeviceTables()


def _per_colour(values: Any, dtype: str, like: Array) -> Array:
    """Values on the device of `like`, sent there once."""
    placed: Array = _placed.beside(like, (*np.asarray(values).tolist(), dtype), lambda: np.asarray(values, dtype))
    return placed


def augment(images: Array, rng: np.random.Generator, *, max_shift: int, flip: bool) -> Array:
    """Return each image mirrored with probability 1/2, then translated at random with zero fill."""
    return move(images, *draw_sources(rng, images.shape, max_shift=max_shift, flip=flip), max_shift=max_shift)


def draw_sources(
    rng: np.random.Generator, shape: tuple[int, ...], *, max_shift: int, flip: bool | NDArray[np.bool_]
) -> tuple[NDArray[np.int64], ...]:
    """Draw the source of each position of augmented images along each axis of space; the last axis is mirrored."""
    count, *lengths, _ = shape
    if not 0 <= max_shift < min(lengths):
        sizes = "x".join(map(str, lengths))
        raise ValueError(f"max_shift is {max_shift}; images of {sizes} allow 0 to {min(lengths) - 1}")
    shifts = rng.integers(-max_shift, max_shift, size=(len(lengths), count, 1), endpoint=True)
    *sources, last = (np.arange(n) - shift for n, shift in zip(lengths, shifts, strict=True))
    if flip is not False:
        mirrored = rng.integers(2, size=(count, 1)) if flip is True else np.reshape(flip, (count, 1))
        last = np.where(mirrored, lengths[-1] - 1 - last, last)
    return *sources, last


def move(images: Array, *sources: Array, max_shift: int) -> Array:
    """Return images made of the given positions along each axis of others, zeros where these lie outside."""
    xp = array_namespace(images)
    count, *lengths, channels = images.shape
    where, longer = placement(xp, images), [n + 2 * max_shift for n in lengths]
    padded = xp.zeros((count, *longer, channels), dtype=images.dtype, **where)
    padded[(slice(None), *(slice(max_shift, max_shift + n) for n in lengths), slice(None))] = images
    place = xp.arange(count, **where)
    for axis, (source, n) in enumerate(zip(sources, longer, strict=True)):
        along = xp.reshape(xp.asarray(source) + max_shift, (count, *(1,) * axis, -1))
        place = place[..., None] * n + along  # (N, u1), (N, u1, u2), ..
    taken = xp.take(xp.reshape(padded, (-1, channels)), xp.reshape(place, (-1,)), axis=0)
    return xp.reshape(taken, images.shape)


def interpolate(images: Array, axis: int, first: Array, later: Array) -> Array:
    """Return images interpolated along an axis, between samples `first` (N, n) and the next, whose part is `later`."""
    xp = array_namespace(images)
    count, length = images.shape[0], images.shape[axis]
    lines = xp.moveaxis(images, axis, 1)
    rows = xp.reshape(lines, (count * length, -1))
    place = xp.arange(count, **placement(xp, images))[:, None] * length + xp.asarray(first)
    last = min(1, length - 1)
    one, other = (xp.take(rows, xp.reshape(place + step, (-1,)), axis=0) for step in (0, last))
    result = one + (other - one) * xp.reshape(xp.asarray(later), (-1, 1))
    return xp.moveaxis(xp.reshape(result, lines.shape), 1, axis)


def draw_holes(rng: np.random.Generator, shape: tuple[int, ...], side: int) -> tuple[NDArray[np.bool_], ...]:
    """Draw the hidden square of each image (cutout, arXiv:1708.04552), as its positions along each axis."""
    lengths = shape[1:-1]
    first = [rng.integers(length, size=(shape[0], 1)) - side // 2 for length in lengths]
    from_first = [np.arange(length) - begin for length, begin in zip(lengths, first, strict=True)]
    return tuple((n >= 0) & (n < side) for n in from_first)


def hide(images: Array, *chosen: Array) -> Array:
    """Return images with zeros where the chosen positions of all axes meet."""
    xp = array_namespace(images)
    hidden = xp.asarray(chosen[0])
    for axis, along in enumerate(chosen[1:], 1):
        hidden = hidden[..., None] & xp.reshape(xp.asarray(along), (images.shape[0], *(1,) * axis, -1))
    return images * xp.astype(~hidden, images.dtype)[..., None]


def recolour(images: Array, amounts: Array) -> Array:
    """Return images (N, H, W, C) with other brightness, contrast and saturation.

    The first of `amounts` (N, 3) is added. The others plus 1 are factors: of each pixel's difference from the image's
    mean, and of each colour's difference from the pixel's mean.
    """
    xp = array_namespace(images)
    amounts = xp.asarray(amounts)[:, :, None, None, None]
    brightness, contrast, saturation = amounts[:, 0], amounts[:, 1], amounts[:, 2]
    images = images + (images - xp.mean(images, axis=(1, 2, 3), keepdims=True)) * contrast + brightness
    return images + (images - xp.mean(images, axis=3, keepdims=True)) * saturation


VIEWS = ((0, True), (-1, False), (-1, True), (1, False), (1, True))
"""Each other view of an image: pixels moved along both axes, and whether it is mirrored."""


def views(images: Array, *, flip: bool = True, shift: int = 1) -> Iterator[Array]:
    """Yield other views of images, over which predictions are averaged: those that the augmentation can make."""
    xp = array_namespace(images)
    count, *lengths, _ = images.shape
    for step, mirrored in VIEWS:
        if (mirrored and not flip) or (step and not shift):
            continue
        *others, last = (np.arange(n) - step for n in lengths)
        chosen = [np.tile(a, (count, 1)) for a in (*others, last[::-1] if mirrored else last)]
        yield move(images, *(constant(xp, a, images.device) for a in chosen), max_shift=1)


def resize(images: Array, size: int | tuple[int, ...]) -> Array:
    """Return images of another size; each pixel is the mean over the area it covers."""
    count, *lengths, channels = images.shape
    sizes = (size,) * len(lengths) if isinstance(size, int) else size
    if tuple(lengths) == sizes:
        return images
    xp, resized = array_namespace(images), images
    for axis, (before, after) in enumerate(zip(lengths, sizes, strict=True), 1):
        # products of two matrices, the one kind that a CUDA graph can hold: each axis comes first in its turn
        order = list(range(images.ndim))
        order[0], order[axis] = axis, 0
        first = xp.permute_dims(resized, tuple(order))
        product = matmul(_areas_beside(images, before, after), xp.reshape(first, (before, -1)))
        resized = xp.reshape(product, (after, *first.shape[1:]))
    result = empty(xp, (count, *sizes, channels), images)
    result[...] = xp.permute_dims(resized, (*range(1, len(sizes) + 1), 0, len(sizes) + 1))
    return result


def _areas_beside(images: Array, before: int, after: int) -> Array:
    """`_areas` in the dtype and on the device of images."""
    dtype = dtype_name(images.dtype)
    areas: Array = _placed.beside(images, ("areas", before, after, dtype), lambda: _areas(before, after).astype(dtype))
    return areas


def _areas(before: int, after: int) -> NDArray[np.float64]:
    """Return the part of each pixel of one line (rows) that each pixel of another (columns) covers, at equal length."""
    pixels, edges = np.arange(before), np.linspace(0, before, after + 1)
    overlap = np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None])
    return np.asarray(np.maximum(overlap, 0) * after / before)
