"""Spectra by the array library's FFT, one axis at a time: for axes too long for DFT matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hcnn_core._engines.transform import Along, fast_length
from hcnn_core._tuning import Units
from hcnn_core.backend import Array, DeviceTables, dtype_name, fft_namespace, joined, placement


class LibraryFFT:
    """DFT by the array library's FFT, one axis at a time. A stride drops samples after the inverse transform."""

    aliases = planes = 1
    makes_complex = True

    def __init__(self, axes: Sequence[Along], real: bool) -> None:
        self.lengths, self.kernel_size, _, self.boundary = zip(*axes, strict=True)
        self.real = real
        self.padded = tuple(fast_length(axis.n, axis.size, axis.boundary, real) for axis in axes)
        self.points = math.prod(self.padded)
        last = self.padded[-1] // 2 + 1 if real else self.padded[-1]
        self.spectrum_shape = (*self.padded[:-1], last)
        self.frequencies = math.prod(self.spectrum_shape)
        self.out_slices = tuple(slice(0, axis.n, axis.stride) for axis in axes)
        self.out_lengths = tuple(-(-axis.n // axis.stride) for axis in axes)
        self._placed = DeviceTables()

    def analyze(self, xp: Any, x: Array) -> Array:
        return self._flat(xp, self._forward(xp, xp.reshape(x, (*self.lengths, -1))))  # (F, 1, rest)

    def analyze_transpose(self, xp: Any, spectrum: Array) -> Array:
        # (F, rest) -> (*padded, rest) -> (*lengths, rest)
        x = self._forward_transpose(xp, spectrum)[(*(slice(0, n) for n in self.lengths), ...)]
        return xp.reshape(x, (math.prod(self.lengths), -1))

    def kernel(self, xp: Any, w: Array) -> Array:
        _, taps, channels, out = w.shape
        w = xp.reshape(w, (*self.kernel_size, -1))  # (*kernel_size, T C K) -> (*padded, T C K)
        for axis, (n, bound) in enumerate(zip(self.lengths, self.boundary, strict=True)):
            w = laid_on_circle(xp, w, axis, n, self.padded[axis], bound)
        spectrum = xp.reshape(self._forward(xp, w), (self.frequencies, taps * channels, out))
        return xp.permute_dims(spectrum, (0, 2, 1))  # (F, K, T C)

    def kernel_transpose(self, xp: Any, spectrum: Array, shape: tuple[int, int, int]) -> Array:
        taps, channels, out = shape
        # (F, K, T C) -> (F, T C K) -> (*padded, T C K) -> (*kernel_size, T C K)
        spectrum = xp.permute_dims(xp.reshape(spectrum, (self.frequencies, out, taps * channels)), (0, 2, 1))
        w = self._forward_transpose(xp, xp.reshape(spectrum, (self.frequencies, -1)))
        for axis, (n, size, bound) in enumerate(zip(self.lengths, self.kernel_size, self.boundary, strict=True)):
            w = taken_off_circle(xp, w, axis, n, size, bound)
        return xp.reshape(w, (-1, *shape))

    def synthesize(self, xp: Any, spectrum: Array) -> Array:
        fft = fft_namespace(xp)
        # (F, rest) -> (*padded, rest) -> (*out_lengths, rest)
        y = xp.reshape(spectrum, (*self.spectrum_shape, -1))
        last = len(self.padded) - 1
        for axis in range(last):
            y = fft.ifft(y, axis=axis)
        y = fft.irfft(y, n=self.padded[-1], axis=last) if self.real else fft.ifft(y, axis=last)
        return xp.reshape(y[(*self.out_slices, ...)], (math.prod(self.out_lengths), -1))

    def synthesize_transpose(self, xp: Any, y: Array) -> Array:
        fft = fft_namespace(xp)
        # (*out_lengths, rest) -> (*padded, rest) -> (F, 1, rest)
        y = xp.reshape(y, (*self.out_lengths, -1))
        full = xp.zeros((*self.padded, y.shape[-1]), dtype=y.dtype, **placement(xp, y))
        full[(*self.out_slices, ...)] = y
        if not self.real:
            for axis in range(len(self.padded)):
                full = fft.ifft(full, axis=axis)
            return self._flat(xp, full)
        spectrum = xp.conj(self._forward(xp, full)) * self._pair_weight(xp, y)
        return self._flat(xp, spectrum / self.points)

    def units(self, of_x: int, of_w: int, of_y: int) -> Units:
        """Points, times the logarithm of their number."""
        return {"library": 1, "fft_point": self.points * math.log2(max(2, self.points)) * (of_x + of_w + of_y)}

    def _forward(self, xp: Any, x: Array) -> Array:
        fft = fft_namespace(xp)
        last = len(self.padded) - 1
        x = fft.rfft(x, n=self.padded[-1], axis=last) if self.real else fft.fft(x, n=self.padded[-1], axis=last)
        for axis in range(last):
            x = fft.fft(x, n=self.padded[axis], axis=axis)
        return x

    def _forward_transpose(self, xp: Any, spectrum: Array) -> Array:
        fft = fft_namespace(xp)
        last = len(self.padded) - 1
        spectrum = xp.reshape(spectrum, (*self.spectrum_shape, -1))
        if not self.real:
            for axis in range(last + 1):
                spectrum = fft.fft(spectrum, axis=axis)
            return spectrum
        # irfft counts a frequency that stands for a conjugate pair twice; the transpose of rfft counts it once
        x = xp.conj(spectrum) / self._pair_weight(xp, xp.real(spectrum))
        for axis in range(last):
            x = fft.ifft(x, axis=axis)
        return fft.irfft(x, n=self.padded[-1], axis=last) * self.points

    def _pair_weight(self, xp: Any, like: Array) -> Array:
        """How many frequencies each one along the last axis stands for: 2, or 1 if it is its own conjugate."""
        f = np.arange(self.spectrum_shape[-1])
        alone = (f == 0) | (2 * f == self.padded[-1])
        dtype = dtype_name(like.dtype)
        return self._placed.beside(like, dtype, lambda: np.where(alone, 1.0, 2.0).astype(dtype)[:, None])

    def _flat(self, xp: Any, spectrum: Array) -> Array:
        return xp.reshape(spectrum, (self.frequencies, 1, -1))


def laid_on_circle(xp: Any, w: Array, axis: int, n: int, length: int, boundary: str) -> Array:
    """Place taps on a circle of `length` with the centre at 0; drop those that meet only the zeros around x."""
    size = w.shape[axis]
    first = -(size // 2)
    if boundary == "zero":
        low, high = max(0, -first - n + 1), min(size, n - first)
        w, first = part_of(w, axis, low, high), first + low
    if w.shape[axis] > length:
        w = joined([w, _zeros(xp, w, axis, -w.shape[axis] % length)], axis)
        w = xp.sum(xp.reshape(w, (*w.shape[:axis], -1, length, *w.shape[axis + 1 :])), axis=axis)  # over turns
    start, count = -first % length, w.shape[axis]
    gap = _zeros(xp, w, axis, length - count)
    return joined([part_of(w, axis, start, count), gap, part_of(w, axis, 0, start)], axis)


def taken_off_circle(xp: Any, w: Array, axis: int, n: int, size: int, boundary: str) -> Array:
    first, length = -(size // 2), w.shape[axis]
    low, high = (max(0, -first - n + 1), min(size, n - first)) if boundary == "zero" else (0, size)
    start = (first + low) % length
    turns, rest = divmod(start + high - low, length)
    taps = [part_of(w, axis, 0 if turn else start, length if turn < turns else rest) for turn in range(turns + 1)]
    return joined([_zeros(xp, w, axis, low), *taps, _zeros(xp, w, axis, size - high)], axis)


def part_of(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(*(slice(None),) * axis, slice(start, stop), ...)]


def _zeros(xp: Any, like: Array, axis: int, count: int) -> Array:
    """Return zeros in the shape of an array, but `count` of them along an axis."""
    return xp.zeros((*like.shape[:axis], count, *like.shape[axis + 1 :]), dtype=like.dtype, **placement(xp, like))
