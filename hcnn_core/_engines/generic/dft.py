"""Spectra along short axes by DFT matrices; see `hcnn_core._engines.transform`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic

import numpy as np

from hcnn_core._engines.generic.matmul import Matmul, by_columns, matmul, product
from hcnn_core._engines.transform import Along, padded_length, tap_positions
from hcnn_core._tuning import Units
from hcnn_core.backend import AnyArray, Array, DeviceTables, dtype_name, empty


class _Axis(Along):
    """One transformed axis: the length of its DFT, and how a stride folds its frequencies."""

    @property
    def length(self) -> int:
        return padded_length(self.n, self.size, self.stride, self.boundary)

    @property
    def fold(self) -> int:
        return self.stride if self.length % self.stride == 0 else 1

    @property
    def folded(self) -> int:
        return self.length // self.fold

    @property
    def kept(self) -> int:
        return -(-self.n // self.stride)

    def tables(self) -> tuple[np.ndarray[Any, Any], ...]:
        """Exponentials of analysis and filter (folded, fold, samples or taps), and of synthesis (folded, 1, kept)."""
        f = (np.arange(self.folded)[:, None] + self.folded * np.arange(self.fold))[:, :, None]
        taps = tap_positions(self.size)
        reached = (self.boundary == "periodic") | (np.abs(taps) < self.n)
        return (
            _phases(-f * np.arange(self.n), self.length),
            _phases(-f * taps, self.length) * reached,
            _phases(f[:, :1] * np.arange(0, self.n, self.stride), self.length) / self.length,
        )


class ByTable(ABC, Generic[AnyArray]):
    """Spectra of filters by one matrix. Its rows are (F, P', A1, P, A2): they take plane P of an alias to plane P'."""

    frequencies: int
    planes: int
    makes_complex = False
    matmul: Matmul

    @property
    def contiguous(self) -> Callable[[AnyArray], AnyArray]:
        """Function of an array that is reshaped next: no change, or a copy that is faster than reshaping."""
        return lambda x: x

    @property
    @abstractmethod
    def _kernel_rows(self) -> tuple[int, ...]:
        """The sizes (F, P', A1, P, A2)."""

    @abstractmethod
    def _filter_table(self, like: AnyArray) -> AnyArray:
        """Return the matrix, (F P' A1 P A2, taps), in the dtype of `like`."""

    def kernel(self, xp: Any, w: AnyArray) -> AnyArray:
        size, taps, channels, out = w.shape
        # (F P' A1 P A2, size) @ (size, T C K)
        spectrum = self.matmul(self._filter_table(w), xp.reshape(w, (size, -1)))
        spectrum = xp.reshape(spectrum, (*self._kernel_rows, taps, channels, out))
        # (F, P', K, T, A1, P, A2, C)
        spectrum = self.contiguous(xp.permute_dims(spectrum, (0, 1, 7, 5, 2, 3, 4, 6)))
        return xp.reshape(spectrum, (self.frequencies, self.planes * out, -1))  # (F, P' K, T A1 P A2 C)

    def kernel_transpose(self, xp: Any, spectrum: AnyArray, shape: tuple[int, int, int]) -> AnyArray:
        taps, channels, out = shape
        f, p, a1, _, a2 = self._kernel_rows
        # (F, P', K, T, A1, P, A2, C) -> (F, P', A1, P, A2, T, C, K)
        rows = xp.permute_dims(xp.reshape(spectrum, (f, p, out, taps, a1, p, a2, channels)), (0, 1, 4, 5, 6, 3, 7, 2))
        rows, matrix = self.contiguous(rows), self._filter_table(spectrum)
        # (size, F P' A1 P A2) @ (F P' A1 P A2, T C K) -> (size, T, C, K)
        return xp.reshape(self.matmul(matrix.T, xp.reshape(rows, (matrix.shape[0], -1))), (-1, *shape))


class MatrixDFT(ByTable[Array]):
    """DFT by precomputed matrices, along the last axis and then along the others together.

    A stride folds the spectrum: y[stride * i] has the spectrum sum_a Y[f + a L / stride] / stride. Frequencies are
    therefore grouped by their folded f, and the sum over aliases a is part of the product with the filter. For real
    signals, half of the folded frequencies of the last axis are kept.

    Names in shape comments: 2 is the last axis, 1 the others together; F folded frequencies, A aliases, P planes, n
    samples read, o samples kept. Spectra are laid out (F2, F1, A1, P, A2, rest). In this order both matrix products
    read and write evenly spaced rows, so that no step copies memory.
    """

    def __init__(self, axes: Sequence[Along], real: bool, matmul: Matmul = matmul) -> None:
        self.planes, self.matmul = 2 if real else 1, matmul
        *self._others, self.last = (_Axis(*axis) for axis in axes)
        self.kept = self.last.folded // 2 + 1 if real else self.last.folded
        self.f1, self.a1, self.n1, self.o1 = (
            math.prod(getattr(axis, name) for axis in self._others) for name in ("folded", "fold", "n", "kept")
        )
        self.frequencies = self.kept * self.f1
        self.aliases = self.last.fold * self.a1
        rows2, rows1 = self.kept * self.last.fold * self.planes, self.f1 * self.a1 * self.planes
        self.analysis_macs = self.n1 * rows2 * (self.last.n + (rows1 if self._others else 0))
        self.synthesis_macs = self.o1 * self.kept * self.planes * (self.last.kept + self.f1 * self.planes)
        self.kernel_macs = rows1 * rows2 * math.prod(axis.size for axis in axes)
        self._placed = DeviceTables()

    def _tables(self) -> tuple[np.ndarray[Any, Any], ...]:
        """Matrices of analysis along 2 and 1, of synthesis along 1 and 2, and of filters."""
        jointly: tuple[np.ndarray[Any, Any], ...] = (np.ones((1, 1, 1), complex),) * 3
        for axis in self._others:
            jointly = tuple(map(_kronecker, jointly, axis.tables()))
        analysis1, kernel1, synthesis1 = jointly
        analysis2, kernel2, synthesis2 = (m[: self.kept] for m in self.last.tables())
        kernel = np.einsum("gbs,fat->gfabts", kernel2, kernel1)[:, :, None, :, None]  # (F2, F1, P', A1, P, A2, .)
        if self.planes == 2:
            f = np.arange(self.kept)
            alone = (f == 0) | (2 * f == self.last.folded)  # no conjugate partner, so they count once
            synthesis2 = synthesis2 * np.where(alone, 1, 2)[:, None, None]
            analysis1, synthesis1 = _as_real(analysis1), _as_real(synthesis1)  # (F1, A1, P', P, .)
            analysis2 = np.stack((analysis2.real, analysis2.imag), 2)  # (F2, A2, P, n2)
            synthesis2 = np.stack((synthesis2.real, -synthesis2.imag), 2)  # (F2, 1, P, o2)
            re, im = kernel.real, kernel.imag
            kernel = np.concatenate((np.concatenate((re, -im), 4), np.concatenate((im, re), 4)), 2)
        p = self.planes
        rows1, rows2 = self.f1 * self.a1 * p, self.kept * self.last.fold * p
        back1 = synthesis1.reshape(self.f1, p, p, self.o1).transpose(1, 3, 0, 2)  # (P', o1, F1, P)
        return (
            analysis2.reshape(rows2, self.last.n),
            analysis1.reshape(rows1, p * self.n1),
            back1.reshape(p * self.o1, self.f1 * p),
            synthesis2.reshape(self.kept * p, self.last.kept).T,
            kernel.reshape(rows1 * rows2, -1),
        )

    def matrices(self, like: Array) -> tuple[Array, ...]:
        """Return the tables in the dtype and on the device of `like`."""
        dtype = dtype_name(like.dtype)
        return self._placed.beside(like, dtype, lambda: tuple(np.ascontiguousarray(m, dtype) for m in self._tables()))

    def analyze(self, xp: Any, x: Array) -> Array:
        across, along = self.matrices(x)[:2]
        spectrum = self._there(xp, x, across, along, self.n1, self.last.fold)
        return xp.reshape(spectrum, (self.frequencies, self.aliases * self.planes, -1))

    def analyze_transpose(self, xp: Any, spectrum: Array) -> Array:
        across, along = self.matrices(spectrum)[:2]
        return self._back(xp, spectrum, across, along, self.n1, self.last.fold)

    def synthesize(self, xp: Any, spectrum: Array) -> Array:
        back1, back2 = self.matrices(spectrum)[2:4]
        return self._back(xp, spectrum, back2.T, back1.T, self.o1, 1)

    def synthesize_transpose(self, xp: Any, y: Array) -> Array:
        back1, back2 = self.matrices(y)[2:4]
        return xp.reshape(self._there(xp, y, back2.T, back1.T, self.o1, 1), (self.frequencies, self.planes, -1))

    def _there(self, xp: Any, x: Array, across: Array, along: Array, n1: int, fold: int) -> Array:
        """Apply one matrix along the last axis, and one along the others: (n1 n2, rest) -> (F2, F1 A1 P, A2, rest)."""
        x = xp.reshape(x, (n1, across.shape[1], -1))
        spectrum = empty(xp, (self.kept, along.shape[0], fold, x.shape[2]), x)

        def work(columns: slice) -> None:
            half = empty(xp, (across.shape[0], n1, columns.stop - columns.start), x)
            # (F2 A2 P, n2) @ (n1, n2, rest) -> (n1, F2 A2 P, rest)
            product(xp, across, x[:, :, columns], xp.permute_dims(half, (1, 0, 2)))
            half = xp.reshape(half, (self.kept, fold, along.shape[1], -1))  # (F2, A2, P n1, rest)
            # (F1 A1 P, P n1) @ (F2, A2, P n1, rest) -> (F2, A2, F1 A1 P, rest)
            product(xp, along, half, xp.permute_dims(spectrum[..., columns], (0, 2, 1, 3)))

        by_columns(xp, work, x.shape[2], across.shape[0] * n1)
        return spectrum

    def _back(self, xp: Any, spectrum: Array, across: Array, along: Array, n1: int, fold: int) -> Array:
        """Apply the transpose of `_there`."""
        spectrum = xp.reshape(spectrum, (self.kept, along.shape[0], fold, -1))
        x = empty(xp, (n1, across.shape[1], spectrum.shape[3]), spectrum)

        def work(columns: slice) -> None:
            half = empty(xp, (self.kept, fold, along.shape[1], columns.stop - columns.start), spectrum)
            # (P n1, F1 A1 P) @ (F2, A2, F1 A1 P, rest)
            product(xp, along.T, xp.permute_dims(spectrum[..., columns], (0, 2, 1, 3)), half)
            half = xp.reshape(half, (across.shape[0], n1, -1))  # (F2 A2 P, n1, rest)
            # (n2, F2 A2 P) @ (n1, F2 A2 P, rest) -> (n1, n2, rest)
            product(xp, across.T, xp.permute_dims(half, (1, 0, 2)), x[:, :, columns])

        by_columns(xp, work, spectrum.shape[3], across.shape[0] * n1)
        return xp.reshape(x, (n1 * across.shape[1], -1))

    def units(self, of_x: int, of_w: int, of_y: int) -> Units:
        """Multiply-adds, four for complex numbers, and the copies of spectra into the order of products."""
        macs = self.analysis_macs * of_x + self.kernel_macs * of_w + self.synthesis_macs * of_y
        entries = self.frequencies * self.aliases * self.planes
        return {"dft_mac": macs * (4 if self.planes == 1 else 1), "copy": entries * of_x, "scattered": entries * of_w}

    def _filter_table(self, like: Array) -> Array:
        return self.matrices(like)[4]

    @property
    def _kernel_rows(self) -> tuple[int, ...]:
        return self.frequencies, self.planes, self.a1, self.planes, self.last.fold


def _phases(numerator: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    """exp(2 pi i numerator / length); the integer numerator is reduced modulo the length first, which is exact."""
    return np.exp(2j * np.pi * (numerator % length) / length)


def _kronecker(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Kronecker product along each of three axes."""
    pairs: np.ndarray[Any, Any] = a[:, None, :, None, :, None] * b[None, :, None, :, None, :]
    return pairs.reshape([i * j for i, j in zip(a.shape, b.shape, strict=True)])


def _as_real(m: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Complex numbers as real 2 x 2 matrices that multiply by them, on new axes 2 and 3: (F, A, P', P, .)."""
    return np.stack((np.stack((m.real, -m.imag), 2), np.stack((m.imag, m.real), 2)), 2)
