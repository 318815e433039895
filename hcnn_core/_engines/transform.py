"""The interface of transforms: linear maps between samples and spectra along the convolved axes.

A signal has the shape (samples, rest), where the transformed axes are flattened into one. Its spectrum has the shape
(F, A*P, rest). F is the number of folded frequencies: a stride adds A aliases up in each of them. P is the number of
planes: 2 where real and imaginary parts are separate real rows, 1 where numbers are complex. A convolution is then one
small matrix product per folded frequency. Each `*_transpose` is the exact linear transpose, without conjugation, of the
map above it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from hcnn_core._tuning import Units
from hcnn_core.backend import AnyArray, permute_dims, reshape


class Along(NamedTuple):
    """A convolved axis."""

    n: int
    """Samples."""
    size: int
    """Taps."""
    stride: int
    boundary: str


class Transform(Protocol[AnyArray]):
    """Linear maps between samples and spectra.

    `kernel` maps filters (taps, direct taps, channels, filters) to matrices (F, P * filters, direct taps * A * P *
    channels). The `shape` of its transpose is (direct taps, channels, filters). `units` is the work of all maps for
    these numbers of lines of the signal, of filters and of the result.
    """

    frequencies: int
    aliases: int
    planes: int
    makes_complex: bool
    """Whether spectra of real signals are arrays of complex numbers."""

    def analyze(self, xp: Any, x: AnyArray) -> AnyArray: ...
    def analyze_transpose(self, xp: Any, spectrum: AnyArray) -> AnyArray: ...
    def kernel(self, xp: Any, w: AnyArray) -> AnyArray: ...
    def kernel_transpose(self, xp: Any, spectrum: AnyArray, shape: tuple[int, int, int]) -> AnyArray: ...
    def synthesize(self, xp: Any, spectrum: AnyArray) -> AnyArray: ...
    def synthesize_transpose(self, xp: Any, y: AnyArray) -> AnyArray: ...
    def units(self, of_x: int, of_w: int, of_y: int) -> Units: ...


class Identity:
    """The transform along no axis: the spectrum is the signal."""

    frequencies = aliases = planes = 1
    makes_complex = False

    def analyze(self, xp: Any, x: AnyArray) -> AnyArray:
        return xp.reshape(x, (1, 1, -1))  # (F, A P, rest)

    def analyze_transpose(self, xp: Any, spectrum: AnyArray) -> AnyArray:
        return xp.reshape(spectrum, (1, -1))

    def kernel(self, xp: Any, w: AnyArray) -> AnyArray:
        _, taps, channels, out = w.shape
        # (1, T, C, K) -> (1, K, T C)
        return reshape(xp, permute_dims(xp, w, (0, 3, 1, 2)), (1, out, taps * channels))

    def kernel_transpose(self, xp: Any, spectrum: AnyArray, shape: tuple[int, int, int]) -> AnyArray:
        taps, channels, out = shape
        # (1, K, T C) -> (1, T, C, K)
        return xp.permute_dims(xp.reshape(spectrum, (1, out, taps, channels)), (0, 2, 3, 1))

    def synthesize(self, xp: Any, spectrum: AnyArray) -> AnyArray:
        return xp.reshape(spectrum, (1, -1))

    def synthesize_transpose(self, xp: Any, y: AnyArray) -> AnyArray:
        return xp.reshape(y, (1, 1, -1))

    def units(self, of_x: int, of_w: int, of_y: int) -> Units:
        return {}


def padded_length(n: int, size: int, stride: int, boundary: str) -> int:
    """DFT length: n for a periodic axis, or n and enough zeros that taps do not wrap around onto samples."""
    if boundary == "periodic":
        return n
    reach = n + min(size // 2, n - 1)
    return reach if n <= stride else -(-reach // stride) * stride  # with one result there is nothing to fold


def fast_length(n: int, size: int, boundary: str, real: bool) -> int:
    """FFT length: n for a periodic axis, or the next length from `padded_length` on that is fast."""
    return n if boundary == "periodic" else next_fast_length(padded_length(n, size, 1, boundary), PRIMES[real])


PRIMES = {False: (2, 3, 5, 7, 11), True: (2, 3, 5)}
"""Prime factors of the lengths that `scipy.fft.next_fast_len` returns for complex and for real transforms."""


@lru_cache(maxsize=1024)
def next_fast_length(n: int, primes: tuple[int, ...]) -> int:
    """Return the least length from n on that has these prime factors alone.

    The cost model needs it in every process, and importing SciPy takes 0.2 s.
    """
    lengths = [1]
    for prime in primes:
        for length in lengths:  # those that are appended are visited too
            if length < n:
                lengths.append(length * prime)
    return min(length for length in lengths if length >= n)


def roughness(n: int, primes: tuple[int, ...]) -> int:
    """Return the part of a length that has none of these prime factors, for which an FFT is slower."""
    for prime in primes:
        while n % prime == 0:
            n //= prime
    return n


def tap_positions(size: int) -> np.ndarray[Any, Any]:
    """Offsets of a filter's taps from its centre: t - size // 2, as in scipy.ndimage.convolve."""
    return np.arange(size) - size // 2
