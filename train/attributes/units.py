"""Filters, and the images that excite a unit most: made by gradient ascent, or found in the training set.

J. Tanner, "Theories of Deep Learning", lecture 11. Images are parametrised as C. Olah, A. Mordvintsev and L. Schubert
do in "Feature Visualization" (Distill, 2017): by decorrelated colours and frequencies, moved at random at every step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autodiff import vjp
from hcnn_core.backend import Array, to_numpy
from train.attributes.features import Model
from train.networks.hierarchical import HierarchicalLayer, hierarchy, name_of

JITTER = 1
"""Pixels by which images are moved at random, along each axis; more is too much for units that see 9 x 9 pixels."""

START, STEP = 0.3, 0.1
"""Standard deviation of the first image before the sigmoid, and Adam's step."""


def first_filters(model: Model) -> np.ndarray[Any, Any]:
    """Return the filters of the first layer as colour images."""
    folded = model.network.merged(model.parameters, model.moments)["layer01"]["w"]
    w = to_numpy(folded).astype(np.float64)[:, ::-1, ::-1]  # (3, s, s, K); a convolution flips
    filters = np.moveaxis(w, (3, 0), (0, 3))
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    return np.asarray(0.5 + 0.5 * filters / np.where(largest > 0, largest, 1))


def attribute_filters(model: Model, j: int) -> np.ndarray[Any, Any]:
    """Return the merged filters of layer j along the attributes, at their central tap in space."""
    folded = model.network.merged(model.parameters, model.moments)[name_of(j)]
    if "g" in folded:
        g = to_numpy(folded["g"]).astype(np.float64)  # (Q, s1, s2, K)
        return np.moveaxis(np.sqrt((g**2).sum(axis=0)), -1, 0)
    w = to_numpy(folded["w"]).astype(np.float64)  # (s, s, s1, s2, K)
    return np.moveaxis(w[w.shape[0] // 2, w.shape[1] // 2], -1, 0)


def receptive_field(table: list[HierarchicalLayer], j: int) -> tuple[int, int]:
    """Return what one sample of x_j sees of an image."""
    size, step = 1, 1
    for layer in table[:j]:
        size += (layer.kernel_size[0] - 1 + 2 * layer.blurs) * step
        step *= layer.stride[0]
    return size, step


def patch_of(image: np.ndarray[Any, Any], table: list[HierarchicalLayer], j: int, position: tuple[float, float]) -> Any:
    """Return the part of an image that one sample of x_j sees, where that is not all of it."""
    size, step = receptive_field(table, j)
    half, slices = size // 2, []
    for p, n, length in zip(position, table[j - 1].outputs[:2], image.shape[:2], strict=True):
        centre = int(p * n) * step
        slices.append(slice(max(0, centre - half), min(length, centre + half + 1)))
    return image[tuple(slices)]


def maximise(
    model: Model,
    j: int,
    units: list[tuple[int, int]],
    images: np.ndarray[Any, Any],
    *,
    axis: str = "v_{j-1}",
    position: tuple[float, float] = (0.5, 0.5),
    steps: int = 96,
    rng: np.random.Generator,
    xp: Any = np,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Make images that excite units most, by gradient ascent through the network.

    A unit is an entry of the invariant array of Eq. (9). An image is the sigmoid of colours and frequencies that vary
    independently, with the colours' covariance of given images and amplitudes that fall as 1/f. It is moved by a few
    pixels at every step, so that what is found does not hang on single pixels.
    """
    table = hierarchy(model.network)
    layer, (rows, columns) = table[j - 1], model.network.image_shape[:2]
    colours = _colour_root(images)
    amplitudes = _amplitudes(rows, columns)
    cotangent = np.zeros((len(units), *layer.outputs), model.network.config.dtype)
    row, column = (int(p * n) for p, n in zip(position, layer.outputs[:2], strict=True))
    for index, (first, second) in enumerate(units):
        everything: Any = slice(None)
        place = {"v_{j-1}": (everything, first, second), "v_{j-2}": (first, everything, second)}
        cotangent[(index, row, column, *place.get(axis, (everything, second, first)))] = 1
    cotangent = xp.asarray(cotangent)

    def apply(x: Array) -> Array:
        return next(y for la, y, _ in model.network.trace(model.parameters, x, model.moments) if la.name == layer.name)

    def pixels(z: Any) -> Any:
        return 1 / (1 + np.exp(-(_filtered(z, amplitudes) @ colours)))  # colours is symmetric

    def activations(shown: Any) -> Any:
        x = apply(xp.asarray((255 * shown - model.mean) / model.std, dtype=model.network.config.dtype))
        return to_numpy(xp.sum(x * cotangent, axis=tuple(range(1, x.ndim)))).astype(np.float64)

    z = START * rng.standard_normal((len(units), rows, columns, 3))
    mean, square = np.zeros_like(z), np.zeros_like(z)
    activity = [activations(pixels(z))]
    for step in range(1, steps + 1):
        shift = tuple(int(s) for s in rng.integers(-JITTER, JITTER + 1, size=2))
        shown = pixels(z)
        x = np.roll((255 * shown - model.mean) / model.std, shift, axis=(1, 2))
        _, pull = vjp(apply, xp.asarray(x, dtype=model.network.config.dtype))
        gradient = np.roll(to_numpy(pull(cotangent)[0]).astype(np.float64), tuple(-s for s in shift), axis=(1, 2))
        gradient = _filtered((gradient * 255 / model.std * shown * (1 - shown)) @ colours, amplitudes)
        gradient /= np.sqrt((gradient**2).mean(axis=(1, 2, 3), keepdims=True)) + 1e-12
        mean += 0.1 * (gradient - mean)
        square += 0.01 * (gradient**2 - square)
        z += STEP * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    activity.append(activations(pixels(z)))
    return np.rint(255 * pixels(z)).astype(np.uint8), np.stack(activity)


def _colour_root(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Symmetric square root of the colours' covariance, of mean variance 1."""
    covariance = np.cov(images.reshape(-1, 3)[:: max(1, images.size // 3_000_000)].T.astype(np.float64))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T
    return np.asarray(root / math.sqrt(max(np.trace(covariance) / 3, 1e-12)))


def _amplitudes(rows: int, columns: int) -> np.ndarray[Any, Any]:
    """1/f on the grid of a DFT, of mean square 1."""
    radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None, :])
    amplitudes = 1 / np.maximum(radius, 1 / max(rows, columns))
    return np.asarray(amplitudes / np.sqrt((amplitudes**2).mean()))


def _filtered(z: np.ndarray[Any, Any], amplitudes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Frequencies (axes 1, 2) times amplitudes; its own transpose, since these are even."""
    return np.asarray(np.fft.ifft2(np.fft.fft2(z, axes=(1, 2)) * amplitudes[:, :, None], axes=(1, 2)).real)
