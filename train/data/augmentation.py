"""Standardisation and augmentation of image batches, alike on NumPy and on CuPy.

The data set stays uint8 on the device, a quarter of its size in float32. A batch is made of it in
three steps: take the images of an index array, `standardise`, `augment`. That order makes the zeros
which a translation shifts in the mean colour, which is zero after standardisation.

Every random number comes from a NumPy `Generator` on the host, so both backends see the same batches.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hcnn_core._backend import Array, array_namespace


def channel_statistics(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each colour over all pixels of all images.

    Both come from exact integer sums, rounded once to float64; the deviation is the population's.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, H, W, C)
        The training images, on the host.

    Returns
    -------
    mean, std : ndarray of float64, shape (C,)
        In units of a pixel value, 0..255.

    Raises
    ------
    TypeError
        If the images are not uint8.
    ValueError
        If there is no pixel to take a mean over.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"images have dtype {images.dtype}; expected uint8 pixels, before standardisation")
    count = math.prod(images.shape[:3])
    if count == 0:
        raise ValueError(f"images have shape {images.shape}: no pixel to take a mean over")
    sums = np.einsum("nhwc->c", images, dtype=np.int64).tolist()
    squares = np.einsum("nhwc,nhwc->c", images, images, dtype=np.int64).tolist()
    # Python integers: count * square passes 2**63 on CIFAR-10.
    variances = [(count * square - total**2) / count**2 for total, square in zip(sums, squares, strict=True)]
    return np.array([total / count for total in sums]), np.sqrt(variances)


def standardise(
    images: Array, mean: NDArray[np.float64], std: NDArray[np.float64], dtype: DTypeLike = "float32"
) -> Array:
    """Return ``(images - mean) / std``, colour by colour.

    Parameters
    ----------
    images : array of uint8, shape (N, H, W, C)
        A batch, or a whole set, on any backend.
    mean, std : ndarray of float64, shape (C,)
        What `channel_statistics` said of the training images.
    dtype : {"float32", "float64"}
        Of the result.

    Returns
    -------
    array of `dtype`, shape (N, H, W, C)
        A new array on the backend of `images`.

    Raises
    ------
    TypeError
        If `dtype` is another one.
    ValueError
        If a standard deviation is not positive: that colour is constant.
    """
    xp = array_namespace(images)
    name = np.dtype(dtype).name
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype is {name}; images become float32 or float64")
    if not np.all(np.asarray(std) > 0):
        raise ValueError(f"standard deviations are {np.asarray(std).tolist()}; every one must be positive")
    real = getattr(xp, name)
    scaled = xp.astype(images, real)
    scaled -= xp.asarray(np.asarray(mean).tolist(), dtype=real)
    scaled /= xp.asarray(np.asarray(std).tolist(), dtype=real)
    return scaled


def augment(images: Array, rng: np.random.Generator, *, max_shift: int, flip: bool) -> Array:
    """Return each image mirrored with probability 1/2, then translated at random with zero fill.

    Parameters
    ----------
    images : floating array, shape (N, H, W, C)
        A standardised batch, so that the fill is the mean colour.
    rng : numpy.random.Generator
        Where the shifts and mirrors are drawn, on the host.
    max_shift : int
        Rows and columns move independently by -max_shift..max_shift pixels, each equally likely.
    flip : bool
        Whether to mirror left and right.

    Returns
    -------
    array, shape (N, H, W, C)
        A new array of the same dtype and backend.

    Raises
    ------
    ValueError
        If `max_shift` is negative, or could move an image out of sight.
    """
    xp = array_namespace(images)
    count, height, width, channels = images.shape
    if not 0 <= max_shift < min(height, width):
        raise ValueError(f"max_shift is {max_shift}; images of {height}x{width} allow 0 to {min(height, width) - 1}")
    down, right = rng.integers(-max_shift, max_shift, size=(2, count, 1), endpoint=True)
    rows = np.arange(height) - down  # (N, H): where each output row comes from
    columns = np.arange(width) - right  # (N, W)
    if flip:
        columns = np.where(rng.integers(2, size=(count, 1)), width - 1 - columns, columns)

    tall, wide = height + 2 * max_shift, width + 2 * max_shift
    padded = xp.zeros((count, tall, wide, channels), dtype=images.dtype)
    padded[:, max_shift : max_shift + height, max_shift : max_shift + width, :] = images
    rows = (rows + max_shift + tall * np.arange(count)[:, None]) * wide
    source = xp.asarray(rows)[:, :, None] + xp.asarray(columns + max_shift)[:, None, :]  # (N, H, W)
    taken = xp.take(xp.reshape(padded, (-1, channels)), xp.reshape(source, (-1,)), axis=0)
    return xp.reshape(taken, images.shape)
