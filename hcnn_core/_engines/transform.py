"""What a transform is: linear maps between samples and spectra along the convolved axes.

A transform carries a signal, its grid flattened into the leading axis, to a spectrum (F, A*P, rest): F folded
frequencies; A aliases that subsampling adds onto each of them; P planes, 2 where real and imaginary parts are separate
real rows, 1 where numbers are complex. A convolution then is one small matrix product per frequency. Each
`*_transpose` is the exact linear transpose (no conjugation) of the map above it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from hcnn_core.backend import Array, permute_dims, reshape


class Transform(Protocol):
    """Linear maps between samples and spectra; `shape` is (taps, channels in, channels out) of the filter."""

    frequencies: int
    aliases: int
    planes: int

    def analyze(self, xp: Any, x: Array) -> Array: ...
    def analyze_transpose(self, xp: Any, spectrum: Array) -> Array: ...
    def kernel(self, xp: Any, w: Array) -> Array: ...
    def kernel_transpose(self, xp: Any, spectrum: Array, shape: tuple[int, int, int]) -> Array: ...
    def synthesize(self, xp: Any, spectrum: Array) -> Array: ...
    def synthesize_transpose(self, xp: Any, y: Array) -> Array: ...


class Identity:
    """No transformed axis: samples are their own spectrum."""

    frequencies = aliases = planes = 1

    def analyze(self, xp: Any, x: Array) -> Array:
        return xp.reshape(x, (1, 1, -1))

    def analyze_transpose(self, xp: Any, spectrum: Array) -> Array:
        return xp.reshape(spectrum, (1, -1))

    def kernel(self, xp: Any, w: Array) -> Array:
        _, taps, channels, out = w.shape
        return reshape(xp, permute_dims(xp, w, (0, 3, 1, 2)), (1, out, taps * channels))

    def kernel_transpose(self, xp: Any, spectrum: Array, shape: tuple[int, int, int]) -> Array:
        taps, channels, out = shape
        return xp.permute_dims(xp.reshape(spectrum, (1, out, taps, channels)), (0, 2, 3, 1))

    def synthesize(self, xp: Any, spectrum: Array) -> Array:
        return xp.reshape(spectrum, (1, -1))

    def synthesize_transpose(self, xp: Any, y: Array) -> Array:
        return xp.reshape(y, (1, 1, -1))


def padded_length(n: int, size: int, stride: int, boundary: str) -> int:
    """DFT length in which a circular convolution is the wanted one: n, or enough zeros for the taps that can meet x."""
    if boundary == "periodic":
        return n
    reach = n + min(size // 2, n - 1)
    return reach if n <= stride else -(-reach // stride) * stride  # of a single kept sample there is nothing to fold


def fast_length(n: int, size: int, boundary: str, real: bool) -> int:
    """Length of an FFT: n, or enough zeros, and then some that make it fast."""
    from scipy.fft import next_fast_len

    return n if boundary == "periodic" else next_fast_len(padded_length(n, size, 1, boundary), real)


def tap_positions(size: int) -> np.ndarray[Any, Any]:
    """Where the taps of a filter sit: t - size // 2, as scipy.ndimage.convolve has it."""
    return np.arange(size) - size // 2
