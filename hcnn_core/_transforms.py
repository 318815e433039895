"""Spectra along convolved axes: by one matrix product where the axes are short, by FFT where they are long.

A transform carries a signal (its grid flattened into the leading axis) to a spectrum laid out `(F, A*P, rest)`:
F folded frequencies; A aliases that subsampling adds onto each of them; P planes, 2 where real and imaginary parts
are separate real rows, 1 where numbers are complex. A convolution then is one small matrix product per frequency.
Each `*_transpose` is the exact linear transpose (no conjugation) of the map above it.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from hcnn_core._backend import Array, constant, device_of, fft_namespace, placement
from hcnn_core._parallel import parallel_for

MATRIX_LIMIT = 512
"""Largest grid, in points, transformed by a matrix product; see benchmarks/convolve_costs.py."""


COLUMNS = 4096
"""Columns of a signal transformed at a time."""


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
        return xp.reshape(xp.permute_dims(w, (0, 3, 1, 2)), (1, out, taps * channels))

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
    return -(-(n + min(size // 2, n - 1)) // stride) * stride


def tap_positions(size: int) -> np.ndarray[Any, Any]:
    """Where the taps of a filter sit: t - size // 2, as scipy.ndimage.convolve has it."""
    return np.arange(size) - size // 2


class MatrixDFT:
    """DFT over all grid axes at once by precomputed matrices; subsampling folds the spectrum.

    Since y[stride * i] has the spectrum sum_a Y[f + a L / stride] / stride, frequencies are grouped by their folded
    f, and the sum over aliases a becomes part of the product with the filter. Real signals keep one frequency of each
    conjugate pair.
    """

    def __init__(
        self,
        lengths: tuple[int, ...],
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        boundary: tuple[str, ...],
        real: bool,
    ) -> None:
        self.planes = 2 if real else 1
        self._axes = tuple(zip(lengths, kernel_size, stride, boundary, strict=True))
        self._padded = tuple(padded_length(n, size, r, bound) for n, size, r, bound in self._axes)
        self._folds = tuple(r if length % r == 0 else 1 for r, length in zip(stride, self._padded, strict=True))
        grid = tuple(length // fold for length, fold in zip(self._padded, self._folds, strict=True))
        self._half = _half_spectrum(grid) if real else None
        self.frequencies = len(self._half[0]) if self._half else math.prod(grid)
        self.aliases = math.prod(self._folds)
        self._placed: dict[tuple[str, str, str], tuple[Array, ...]] = {}

    @cached_property
    def _tables(self) -> tuple[np.ndarray[Any, Any], ...]:
        """Matrices of analysis (F*A*P, n), of the filters (F*A*P, s) and, transposed, of synthesis (F*P, out)."""
        analysis = kernel = np.ones((1, 1, 1), complex)  # (F, A, samples)
        synthesis = np.ones((1, 1, 1), complex)  # (F, 1, samples)
        for (n, size, r, bound), length, fold in zip(self._axes, self._padded, self._folds, strict=True):
            folded = length // fold
            f = (np.arange(folded)[:, None] + folded * np.arange(fold))[:, :, None]
            taps = tap_positions(size)
            reached = (bound == "periodic") | (np.abs(taps) < n)
            analysis = _kronecker(analysis, _phases(-f * np.arange(n), length))
            kernel = _kronecker(kernel, _phases(-f * taps, length) * reached)
            synthesis = _kronecker(synthesis, _phases(f[:, :1] * np.arange(0, n, r), length) / length)
        tables = [analysis, kernel, synthesis]
        if self._half:
            keep, weight = self._half
            analysis, kernel, synthesis = (m[keep] for m in tables)
            synthesis = synthesis.conj() * weight[:, None, None]
            tables = [np.stack((m.real, m.imag), 2) for m in (analysis, kernel, synthesis)]
        return tuple(m.reshape(-1, m.shape[-1]) for m in tables)

    def _matrices(self, xp: Any, like: Array) -> tuple[Array, ...]:
        """The three tables in the dtype and on the device of `like`."""
        dtype = str(like.dtype).rpartition(".")[2]
        key = (xp.__name__, dtype, device_of(like))
        if key not in self._placed:
            self._placed[key] = tuple(constant(xp, m.astype(dtype), like) for m in self._tables)
        return self._placed[key]

    def analyze(self, xp: Any, x: Array) -> Array:
        spectrum = _apply(xp, self._matrices(xp, x)[0], x)  # (F*A*P, n) @ (n, rest)
        return xp.reshape(spectrum, (self.frequencies, self.aliases * self.planes, -1))

    def analyze_transpose(self, xp: Any, spectrum: Array) -> Array:
        matrix = self._matrices(xp, spectrum)[0]
        return _apply(xp, matrix.T, xp.reshape(spectrum, (matrix.shape[0], -1)))

    def kernel(self, xp: Any, w: Array) -> Array:
        size, taps, channels, out = w.shape
        f, a = self.frequencies, self.aliases
        spectrum = xp.matmul(self._matrices(xp, w)[1], xp.reshape(w, (size, -1)))
        spectrum = xp.reshape(spectrum, (f, a, self.planes, taps, channels, out))
        if self.planes == 1:
            return xp.reshape(xp.permute_dims(spectrum, (0, 5, 3, 1, 2, 4)), (f, out, -1))
        spectrum = xp.permute_dims(spectrum, (2, 0, 5, 3, 1, 4))  # (2, F, K, T, A, C)
        real, imag = spectrum[0, ...], spectrum[1, ...]
        block = xp.empty((f, 2, out, taps, a, 2, channels), dtype=w.dtype, **placement(xp, w))
        block[:, 0, :, :, :, 0, :] = real
        block[:, 0, :, :, :, 1, :] = -imag
        block[:, 1, :, :, :, 0, :] = imag
        block[:, 1, :, :, :, 1, :] = real
        return xp.reshape(block, (f, 2 * out, -1))

    def kernel_transpose(self, xp: Any, spectrum: Array, shape: tuple[int, int, int]) -> Array:
        taps, channels, out = shape
        f, a = self.frequencies, self.aliases
        if self.planes == 1:
            rows = xp.permute_dims(xp.reshape(spectrum, (f, out, taps, a, channels)), (0, 3, 2, 4, 1))
        else:
            block = xp.reshape(spectrum, (f, 2, out, taps, a, 2, channels))
            real = block[:, 0, :, :, :, 0, :] + block[:, 1, :, :, :, 1, :]
            imag = block[:, 1, :, :, :, 0, :] - block[:, 0, :, :, :, 1, :]
            rows = xp.permute_dims(xp.stack((real, imag)), (1, 4, 0, 3, 5, 2))  # (F, A, 2, T, C, K)
        matrix = self._matrices(xp, spectrum)[1]
        return xp.reshape(xp.matmul(matrix.T, xp.reshape(rows, (matrix.shape[0], -1))), (-1, *shape))

    def synthesize(self, xp: Any, spectrum: Array) -> Array:
        matrix = self._matrices(xp, spectrum)[2]
        return _apply(xp, matrix.T, xp.reshape(spectrum, (matrix.shape[0], -1)))

    def synthesize_transpose(self, xp: Any, y: Array) -> Array:
        spectrum = _apply(xp, self._matrices(xp, y)[2], y)
        return xp.reshape(spectrum, (self.frequencies, self.planes, -1))


class LibraryFFT:
    """DFT by the array library's FFT, one axis at a time; the result is subsampled after the inverse."""

    aliases = planes = 1

    def __init__(
        self,
        lengths: tuple[int, ...],
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        boundary: tuple[str, ...],
        real: bool,
    ) -> None:
        from scipy.fft import next_fast_len

        self.lengths, self.kernel_size, self.stride, self.boundary = lengths, kernel_size, stride, boundary
        self.real = real
        self.padded = tuple(
            n if bound == "periodic" else next_fast_len(padded_length(n, size, 1, bound), real)
            for n, size, bound in zip(lengths, kernel_size, boundary, strict=True)
        )
        self.points = math.prod(self.padded)
        last = self.padded[-1] // 2 + 1 if real else self.padded[-1]
        self.spectrum_shape = (*self.padded[:-1], last)
        self.frequencies = math.prod(self.spectrum_shape)
        self.out_slices = tuple(slice(0, n, r) for n, r in zip(lengths, stride, strict=True))
        self.out_lengths = tuple(len(range(*s.indices(n))) for s, n in zip(self.out_slices, lengths, strict=True))

    def analyze(self, xp: Any, x: Array) -> Array:
        return self._flat(xp, self._forward(xp, xp.reshape(x, (*self.lengths, -1))))

    def analyze_transpose(self, xp: Any, spectrum: Array) -> Array:
        x = self._forward_transpose(xp, spectrum)[(*(slice(0, n) for n in self.lengths), ...)]
        return xp.reshape(x, (math.prod(self.lengths), -1))

    def kernel(self, xp: Any, w: Array) -> Array:
        _, taps, channels, out = w.shape
        w = xp.reshape(w, (*self.kernel_size, -1))
        for axis, (n, bound) in enumerate(zip(self.lengths, self.boundary, strict=True)):
            w = _wrap(xp, w, axis, n, self.padded[axis], bound)
        spectrum = xp.reshape(self._forward(xp, w), (self.frequencies, taps * channels, out))
        return xp.permute_dims(spectrum, (0, 2, 1))

    def kernel_transpose(self, xp: Any, spectrum: Array, shape: tuple[int, int, int]) -> Array:
        taps, channels, out = shape
        spectrum = xp.permute_dims(xp.reshape(spectrum, (self.frequencies, out, taps * channels)), (0, 2, 1))
        w = self._forward_transpose(xp, xp.reshape(spectrum, (self.frequencies, -1)))
        for axis, (n, size, bound) in enumerate(zip(self.lengths, self.kernel_size, self.boundary, strict=True)):
            w = _wrap_transpose(xp, w, axis, n, size, bound)
        return xp.reshape(w, (-1, *shape))

    def synthesize(self, xp: Any, spectrum: Array) -> Array:
        fft = fft_namespace(xp)
        y = xp.reshape(spectrum, (*self.spectrum_shape, -1))
        last = len(self.padded) - 1
        for axis in range(last):
            y = fft.ifft(y, axis=axis)
        y = fft.irfft(y, n=self.padded[-1], axis=last) if self.real else fft.ifft(y, axis=last)
        return xp.reshape(y[(*self.out_slices, ...)], (math.prod(self.out_lengths), -1))

    def synthesize_transpose(self, xp: Any, y: Array) -> Array:
        fft = fft_namespace(xp)
        y = xp.reshape(y, (*self.out_lengths, -1))
        full = xp.zeros((*self.padded, y.shape[-1]), dtype=y.dtype, **placement(xp, y))
        full[(*self.out_slices, ...)] = y
        if not self.real:
            for axis in range(len(self.padded)):
                full = fft.ifft(full, axis=axis)
            return self._flat(xp, full)
        spectrum = xp.conj(self._forward(xp, full)) * self._pair_weight(xp, y)
        return self._flat(xp, spectrum / self.points)

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
        # irfft doubles the frequencies that stand for a conjugate pair, the transpose of rfft must not
        x = xp.conj(spectrum) / self._pair_weight(xp, xp.real(spectrum))
        for axis in range(last):
            x = fft.ifft(x, axis=axis)
        return fft.irfft(x, n=self.padded[-1], axis=last) * self.points

    def _pair_weight(self, xp: Any, like: Array) -> Array:
        f = np.arange(self.spectrum_shape[-1])
        alone = (f == 0) | (2 * f == self.padded[-1])
        weight = np.where(alone, 1.0, 2.0).astype(str(like.dtype).rpartition(".")[2])
        return constant(xp, weight[:, None], like)

    def _flat(self, xp: Any, spectrum: Array) -> Array:
        return xp.reshape(spectrum, (self.frequencies, 1, -1))


@lru_cache(maxsize=256)
def make_transform(
    lengths: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    boundary: tuple[str, ...],
    real: bool,
) -> Transform:
    """The transform for these axes: none, by matrices, or by FFT."""
    if not lengths:
        return Identity()
    kind = MatrixDFT if math.prod(lengths) <= MATRIX_LIMIT and math.prod(kernel_size) <= 4 * MATRIX_LIMIT else LibraryFFT
    return kind(lengths, kernel_size, stride, boundary, real)


def _apply(xp: Any, matrix: Array, x: Array) -> Array:
    """matrix @ x, the columns shared among threads."""
    if xp is not np:
        return xp.matmul(matrix, x)
    y = np.empty((matrix.shape[0], x.shape[1]), x.dtype)

    def work(first: int, last: int) -> None:
        for begin in range(first, last, COLUMNS):
            part = slice(begin, min(last, begin + COLUMNS))
            np.matmul(matrix, x[:, part], out=y[:, part])

    parallel_for(work, x.shape[1])
    return y


def _phases(numerator: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    """exp(2 pi i numerator / length), the argument reduced exactly first."""
    return np.exp(2j * np.pi * (numerator % length) / length)


def _kronecker(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Product over the pairs of entries, axis by axis."""
    product = a[:, None, :, None, :, None] * b[None, :, None, :, None, :]
    return product.reshape([i * j for i, j in zip(a.shape, b.shape, strict=True)])


def _half_spectrum(lengths: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Flat indices of one frequency of each conjugate pair, and how many of the pair there are."""
    grid = np.indices(lengths).reshape(len(lengths), -1)
    index = np.arange(grid.shape[1])
    mirror = np.ravel_multi_index(tuple(-grid % np.array(lengths)[:, None]), lengths)
    keep = index <= mirror
    return index[keep], np.where(index == mirror, 1.0, 2.0)[keep]


def _wrap(xp: Any, w: Array, axis: int, n: int, length: int, boundary: str) -> Array:
    """Lay taps out on a circle of `length`, tap size // 2 at 0; taps that cannot meet a zero-extended x are dropped."""
    size = w.shape[axis]
    first = -(size // 2)
    if boundary == "zero":
        low, high = max(0, -first - n + 1), min(size, n - first)
        w, first = _take(w, axis, low, high), first + low
    w = _pad_end(xp, w, axis, -w.shape[axis] % length)
    folded = xp.reshape(w, (*w.shape[:axis], -1, length, *w.shape[axis + 1 :]))
    return xp.roll(xp.sum(folded, axis=axis), first, axis=axis)


def _wrap_transpose(xp: Any, w: Array, axis: int, n: int, size: int, boundary: str) -> Array:
    first = -(size // 2)
    low, high = (max(0, -first - n + 1), min(size, n - first)) if boundary == "zero" else (0, size)
    w = xp.roll(w, -(first + low), axis=axis)
    repeats = -(-(high - low) // w.shape[axis])
    w = _take(xp.concat([w] * repeats, axis=axis), axis, 0, high - low)
    w = _pad_end(xp, w, axis, size - high)
    return xp.flip(_pad_end(xp, xp.flip(w, axis=axis), axis, low), axis=axis)


def _take(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(*(slice(None),) * axis, slice(start, stop), ...)]


def _pad_end(xp: Any, x: Array, axis: int, count: int) -> Array:
    """Append `count` zeros along an axis."""
    if count == 0:
        return x
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return xp.concat([x, xp.zeros(shape, dtype=x.dtype, **placement(xp, x))], axis=axis)
