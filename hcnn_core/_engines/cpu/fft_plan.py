"""A convolution of one filter as a product of spectra along all its axes at once, by SciPy's FFT."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import zeros
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.transform import PRIMES, fast_length, roughness, tap_positions
from hcnn_core._problem import Problem
from hcnn_core._threads import threads_for
from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import fft_namespace

LINES, LONE_LINES = 4, 3.5
"""An FFT transforms 4 lines at once. With fewer lines, a sample takes 3.5 times as long."""

Places = slice | NDArray
"""Where samples, results or taps lie on a padded axis, which is zero elsewhere."""


class FFTPlan:
    """A convolution with one filter and its two adjoints. No axis is moved.

    Axes are transformed one after the other. So lines of zeros, and lines of which nothing is kept, are skipped. A
    transpose without conjugation multiplies by the spectrum at -f, which is conj(F conj z) for any z.
    """

    def __init__(self, problem: Problem, real: bool, tuning: Tuning, elementwise: Callable[[NDArray], Any]) -> None:
        """`elementwise` finds the module with `elu` and its derivative, which is not imported before it is needed."""
        g = problem
        self.problem, self.real, self.elementwise = g, real, elementwise
        self.sorted = sorted(range(len(g.axes)), key=g.axes.__getitem__)  # convolved axes in the order of x
        self.axes, lengths, sizes, strides = (
            tuple(values[k] for k in self.sorted) for values in (g.axes, g.lengths, g.kernel_size, g.stride)
        )
        boundary = tuple(g.boundary[k] for k in self.sorted)
        self.padded = tuple(
            fast_length(n, size, bound, real) for n, size, bound in zip(lengths, sizes, boundary, strict=True)
        )
        samples = math.prod(self.padded) * math.prod(g.x_shape[a] for a in g.batch_axes)
        self.threaded, self.little = samples >= tuning.fft_threaded_samples, samples < tuning.fft_by_axis_samples
        self.strided = max(strides) > 1
        self.samples: list[Places] = [slice(0, n, 1) for n in lengths]
        self.results: list[Places] = [slice(0, n, r) for n, r in zip(lengths, strides, strict=True)]
        taps = [tap_positions(size) for size in sizes]
        reached = [
            np.flatnonzero((bound == "periodic") | (abs(t) < n))
            for t, n, bound in zip(taps, lengths, boundary, strict=True)
        ]
        self.reached = np.ix_(*reached)
        self.taps: list[Places] = [t[r] % length for t, r, length in zip(taps, reached, self.padded, strict=True)]

    def forward(self, xp: Any, x: NDArray, w: NDArray, bias: NDArray | None = None) -> NDArray:
        """Convolve x with w; with a bias, the ELU of the sum."""
        # the convolved axes of x become (*padded[:-1], padded[-1] // 2 + 1) for real x, (*padded,) for complex x
        products = self._spectrum(x, self.axes, self.samples)
        products *= self._of_filter(w)
        y = self._back(products, self.axes, self.results)
        y = np.ascontiguousarray(y) if self.strided else y  # a view would keep the whole array
        return y if bias is None else self.elementwise(y).elu(xp, y, bias)

    def forward_and_marginal(
        self, xp: Any, x: NDArray, w: NDArray, bias: NDArray, axis: int
    ) -> tuple[NDArray, NDArray]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis."""
        y = self.forward(xp, x, w, bias)
        return y, self.elementwise(y).marginal(xp, y, (axis,), "sum")

    def adjoints(
        self, xp: Any, g: NDArray, x: NDArray | None, w: NDArray | None, ans: NDArray | None = None
    ) -> tuple[NDArray | None, NDArray | None, NDArray | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        g = g if ans is None else self.elementwise(g).elu_vjp(xp, g, ans)
        spectrum = self._spectrum(g, self.axes, self.results)
        x_cotangent = w_cotangent = None
        if w is not None:
            products = spectrum * self._of_filter(w.conj()).conj()
            x_cotangent = self._back(products, self.axes, self.samples)
        if x is not None:
            products = spectrum * self._spectrum(x.conj(), self.axes, self.samples).conj()
            w_cotangent = self._taps_of(products.sum(axis=self.problem.batch_axes))
        return x_cotangent, w_cotangent, None if ans is None else g

    def units(self) -> Units:
        """Return samples in the pass along each axis, the last axis first, and copies of x into larger grids."""
        g, padded = self.problem, self.padded
        batch = math.prod(g.x_shape[a] for a in g.batch_axes)
        # of x, y and w
        shapes = [[values[k] for k in self.sorted] for values in (g.lengths, g.out_lengths, g.kernel_size)]
        units: Units = {"call": 1, "fft_pass": 0, "copy": 0}
        for i, length in enumerate(padded):
            # the axes before this one are not padded yet
            of_x, of_y, of_w = (math.prod(map(min, shape[:i], padded)) * math.prod(padded[i:]) for shape in shapes)
            lone = LONE_LINES if math.prod(padded) * batch < LINES * length else 1
            rough = min(max(1.0, roughness(length, PRIMES[False]) / 11), 8.0)
            units["fft_pass"] += lone * rough * (batch * (of_x + of_y) + of_w)
            units["copy"] += (shapes[0][i] != length) * 2 * batch * of_x
        return units

    def _of_filter(self, w: NDArray) -> NDArray:
        """Spectrum of the taps around 0 on the padded grid. It broadcasts to the spectrum of x."""
        taps, places = w.transpose(self.sorted)[self.reached], list(self.taps)
        for axis, length in enumerate(self.padded):
            if taps.shape[axis] > length:  # first, since this leaves fewer taps
                taps, places[axis] = _laid_out(taps, axis, length, places[axis]), slice(0, length, 1)
        spectrum = self._spectrum(taps, range(len(self.axes)), places)
        lengths = dict(zip(self.axes, spectrum.shape, strict=True))
        return spectrum.reshape([lengths.get(a, 1) for a in range(len(self.problem.x_shape))])

    def _taps_of(self, spectrum: NDArray) -> NDArray:
        """Return the transpose of `_of_filter`, without the conjugation."""
        taps = self._back(spectrum, range(len(self.axes)), self.taps)
        w = np.zeros([self.problem.kernel_size[k] for k in self.sorted], taps.dtype)
        w[self.reached] = taps
        return w.transpose(np.argsort(self.sorted))

    def _spectrum(self, x: NDArray, axes: Sequence[int], places: Sequence[Places]) -> NDArray:
        """DFT of x at these places of the padded grid, axis by axis, the last axis first."""
        fft, workers = fft_namespace(np), self._threads()
        if self._by_one_call(places):
            for axis, length, where in zip(axes, self.padded, places, strict=True):
                x = _laid_out(x, axis, length, where)
            transform = fft.rfftn if self.real else fft.fftn
            whole: NDArray = transform(x, axes=tuple(axes), workers=workers)
            return whole
        for axis, length, where in reversed(list(zip(axes, self.padded, places, strict=True))):
            x = _laid_out(x, axis, length, where)
            transform = fft.rfft if self.real and axis == axes[-1] else fft.fft
            x = transform(x, axis=axis, overwrite_x=axis != axes[-1], workers=workers)
        return x

    def _back(self, spectrum: NDArray, axes: Sequence[int], places: Sequence[Places]) -> NDArray:
        """Inverse DFT at these places of the padded grid. The spectrum is overwritten."""
        fft, workers = fft_namespace(np), self._threads()
        if self._by_one_call(places):
            transform = fft.irfftn if self.real else fft.ifftn
            spectrum = transform(spectrum, self.padded, tuple(axes), overwrite_x=True, workers=workers)
            for axis, where in zip(axes, places, strict=True):
                spectrum = spectrum[_along(axis, where)]
            return spectrum
        for axis, length, where in zip(axes, self.padded, places, strict=True):
            transform = fft.irfft if self.real and axis == axes[-1] else fft.ifft
            spectrum = transform(spectrum, length, axis, overwrite_x=True, workers=workers)[_along(axis, where)]
        return spectrum

    def _by_one_call(self, places: Sequence[Places]) -> bool:
        """Whether one call for all axes is as fast: for few samples, or where no line is skipped."""
        return len(self.axes) > 1 and (
            self.little or all(_is_whole(where, n) for where, n in zip(places, self.padded, strict=True))
        )

    def _threads(self) -> int:
        return threads_for() if self.threaded else 1


def _along(axis: int, places: Places) -> tuple[Any, ...]:
    return (*[slice(None)] * axis, places)


def _is_whole(places: Places, length: int) -> bool:
    return isinstance(places, slice) and places == slice(0, length, 1)


def _laid_out(x: NDArray, axis: int, length: int, places: Places) -> NDArray:
    """Values of x at these places of an axis of this length, and zeros. Taps that wrap around are added up."""
    if _is_whole(places, length):
        return x
    shape = *x.shape[:axis], length, *x.shape[axis + 1 :]
    grid = zeros(shape, x.dtype)
    if isinstance(places, slice):
        grid[_along(axis, places)] = x
        return grid
    for begin in range(0, len(places), length):
        turn = slice(begin, begin + length)
        if begin:
            grid[_along(axis, places[turn])] += x[_along(axis, turn)]
        else:
            grid[_along(axis, places[turn])] = x[_along(axis, turn)]
    return grid
