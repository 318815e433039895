"""A scattering transform before the first layer (S. Mallat's and E. Oyallon's hybrid networks)."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from hcnn_core.backend import Array, array_namespace, constant, to_numpy
from train.networks.layer import IMAGES, Layer, Weights
from wavelets import FilterBank, morlet_bank, scattering, scattering_paths

ANGLES = 8
"""Orientations of the wavelets."""

REFERENCES = 32
"""Gaussian images that coefficients are standardised by."""


def scattering_channels(scales: int, colours: int = 3) -> int:
    """Return how many coefficients there are at each place."""
    return colours * (1 + ANGLES * scales + ANGLES**2 * scales * (scales - 1) // 2)


class ScatteringLayer(Layer):
    """Standardised scattering coefficients of images (arXiv:1703.08961, section 3.1); nothing in it is learned.

    Coefficients of each path are standardised by their mean and deviation on Gaussian images whose power falls with the
    square of the frequency, as that of photographs does. At boundary "zero" images are mirrored, so that their ends are
    no edges.
    """

    name = label = "scattering"
    reads = (IMAGES,)

    def __init__(self, scales: int, image_shape: tuple[int, ...], boundary: str, dtype: str) -> None:
        rows, columns, channels = image_shape
        self.inputs = image_shape
        self.outputs = (rows // 2**scales, columns // 2**scales, scattering_channels(scales, channels))
        self.support = f"{2**scales} octaves"
        self.scales, self.boundary, self.dtype = scales, boundary, dtype
        self._stages: dict[int, _Stage] = {}  # by the side of the images

    def apply(self, weights: Weights, *inputs: Array) -> Array:
        """Return coefficients (N, n / 2^J, n / 2^J, C * P) of P paths, in the order of `wavelets.scattering_paths`."""
        (x,) = inputs
        size = int(x.shape[1])
        if size not in self._stages:
            self._stages[size] = _Stage(self.scales, size, self.boundary, self.dtype)
        return self._stages[size](x)


class _Stage:
    """The transform of images of one size, with its constants on the device of the images."""

    def __init__(self, scales: int, size: int, boundary: str, dtype: Any) -> None:
        self.boundary = "reflect" if boundary == "zero" else boundary
        self._bank = _bank(scales, size + 2 * 2**scales * (boundary == "zero")).like(np.zeros((), dtype))
        self._mean: Array
        self._scale: Array
        self._mean, self._scale = (a.astype(dtype) for a in _statistics(scales, size))

    def __call__(self, x: Array) -> Array:
        self._place(x)
        y = scattering(x, self._bank, (1, 2), boundary=self.boundary)
        y = (y - self._mean) * self._scale
        return np.reshape(y, (*y.shape[:3], -1))

    def _place(self, x: Array) -> None:
        """Keep the constants on the device of the images, so that they are moved once."""
        if type(x) is not type(self._mean):
            xp = array_namespace(x)
            self._bank = self._bank.like(x)
            self._mean, self._scale = (constant(xp, to_numpy(a), x.device) for a in (self._mean, self._scale))


@functools.lru_cache(maxsize=8)
def _bank(scales: int, size: int) -> FilterBank:
    return morlet_bank((size, size), scales, ANGLES)


@functools.lru_cache(maxsize=8)
def _statistics(scales: int, size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean and reciprocal deviation of the coefficients of each path on standardised Gaussian images."""
    bank = _bank(scales, size)
    frequencies = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    amplitude = np.divide(1, frequencies, out=np.zeros_like(frequencies), where=frequencies > 0)
    noise = np.random.default_rng(0).standard_normal((REFERENCES, size, size))
    images = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real
    y = scattering(images / math.sqrt((images**2).mean()), bank, (1, 2))
    assert y.shape[-1] == len(scattering_paths(bank))
    return y.mean((0, 1, 2)), 1 / y.std((0, 1, 2))
