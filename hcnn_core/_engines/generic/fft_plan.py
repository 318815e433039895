"""A convolution of one filter as a product of spectra along all its axes at once, by the array library's FFT."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from hcnn_core._engines.generic.fft import laid_on_circle, taken_off_circle
from hcnn_core._engines.transform import PRIMES, next_fast_length, padded_length, roughness
from hcnn_core._problem import Problem
from hcnn_core._threads import threads_for
from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import Array, fft_namespace, permute_dims, placement, reshape

TOGETHER, CUFFT_PRIMES, MOST_POINTS = 3, (2, 3, 5, 7), (1 << 31) - 1
"""Most axes of one plan of cuFFT, prime factors of the lengths for which it is fast, and most points it can count."""

LINES, LONE_LINES, FAR, FAR_LINES = 4, 3.5, 1 << 21, 1.5
"""SciPy's FFT is slower: with fewer lines than the first by the second, above the third, in points, by the fourth."""

AxisMap = Callable[[Array, Sequence[int]], Array]
"""A map along some of the convolved axes, which are the last ones."""


class FFTPlan:
    """A convolution with one filter and its two adjoints, batch axes first and convolved axes last.

    The last three convolved axes are transformed by one call, others one by one. SciPy transforms axis by axis, so that
    lines of zeros, and lines of which nothing is kept, are skipped. A transpose without conjugation multiplies by the
    spectrum at -f, which is conj(F conj z) for any z. Strides drop samples.
    """

    def __init__(
        self, problem: Problem, real: bool, tuning: Tuning, by_scipy: bool, elementwise: Callable[[Array], Any]
    ) -> None:
        """`elementwise` finds the module with `elu` and its derivative, which is not imported before it is needed."""
        g = self.problem = problem
        self.real, self.tuning, self.by_scipy, self.elementwise = real, tuning, by_scipy, elementwise
        count = self.count = len(g.axes)
        self.sorted = sorted(range(count), key=g.axes.__getitem__)  # convolved axes in the order of x
        self.kept = [k for k, a in enumerate(g.kept_axes) if a not in g.axes]
        self.kept += [g.kept_axes.index(g.axes[k]) for k in self.sorted]
        self.lengths, self.sizes, self.strides = (
            tuple(values[k] for k in self.sorted) for values in (g.lengths, g.kernel_size, g.stride)
        )
        self.boundary = tuple(g.boundary[k] for k in self.sorted)
        self.primes = PRIMES[real] if by_scipy else CUFFT_PRIMES
        self.padded: list[int] = []
        for k, (n, size, bound) in enumerate(zip(self.lengths, self.sizes, self.boundary, strict=True)):
            step = 2 if not by_scipy and real and k == count - 1 else 1  # cuFFT halves a real line of even length
            fast = step * next_fast_length(-(-padded_length(n, size, 1, bound) // step), self.primes)
            self.padded.append(n if bound == "periodic" else fast)
        self.samples = [slice(n) for n in self.lengths]  # where they lie on the points of each axis
        self.results = [slice(0, n, r) for n, r in zip(self.lengths, self.strides, strict=True)]
        self.batch = math.prod(g.x_shape[a] for a in g.batch_axes)
        self.points = self.batch * math.prod(self.padded)

    @property
    def supports(self) -> bool:
        """Whether cuFFT can count the points."""
        return self.by_scipy or self.points <= MOST_POINTS

    def units(self) -> Units:
        """Count samples read and written by each pass over memory, of the convolution and of both adjoints.

        A call of cuFFT along several axes takes a pass for each of them and one for zeros around samples. SciPy takes
        one along each axis, the last axis first, which begins as a plan does, and copies x into larger grids.
        """
        if not self.by_scipy:
            rests = (roughness(n, CUFFT_PRIMES) for n in self.padded)  # for which cuFFT takes several FFTs
            rough = math.prod(1.0 if rest == 1 else 1.5 if rest <= 127 else 4.0 for rest in rests)
            return {"library": 1, "fft_pass": 3 * (self.count * rough + 2) * (2 * self.points + math.prod(self.padded))}
        units: Units = {"plan": 1 + self.count, "fft_pass": 0, "copy": 0}
        for i, length in enumerate(self.padded):
            # the axes before this one are not padded yet
            of_x, of_y, of_w = (
                math.prod(map(min, shape[:i], self.padded)) * math.prod(self.padded[i:])
                for shape in (self.lengths, [len(range(n.stop)[n]) for n in self.results], self.sizes)
            )
            lone = (LONE_LINES if self.points < LINES * length else 1) * (FAR_LINES if self.points > FAR else 1)
            rough = min(max(1.0, roughness(length, PRIMES[False]) / 11), 8.0)
            units["fft_pass"] += lone * rough * (self.batch * (of_x + of_y) + of_w)
            units["copy"] += (self.lengths[i] != length) * 2 * self.batch * of_x
        return units

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        x = self._ordered(xp, x, [self.problem.x_shape[a] for a in self.problem.kept_axes])
        y = self._in_order(xp, self._result(xp, x, self._filter(xp, w)), self.problem.y_shape)
        return y if bias is None else self.elementwise(y).elu(xp, y, bias)

    def forward_and_marginal(self, xp: Any, x: Array, w: Array, bias: Array, axis: int) -> tuple[Array, Array]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis."""
        y = self.forward(xp, x, w, bias)
        return y, self.elementwise(y).marginal(xp, y, (axis,), "sum")

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Return cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        g = g if ans is None else self.elementwise(g).elu_vjp(xp, g, ans)
        shape = [self.problem.x_shape[a] for a in self.problem.kept_axes]
        x, w = (a if a is None or self.real else xp.conj(a) for a in (x, w))
        x_cotangent, w_cotangent = self._cotangents(
            xp,
            self._ordered(xp, g, self.problem.y_shape[: len(self.kept)]),
            None if x is None else self._ordered(xp, x, shape),
            None if w is None else self._filter(xp, w),
        )
        x_cotangent = None if x_cotangent is None else self._in_order(xp, x_cotangent, self.problem.x_shape)
        if w_cotangent is not None:
            order = tuple(np.argsort(self.sorted).tolist())
            w_cotangent = reshape(xp, permute_dims(xp, w_cotangent, order), self.problem.w_shape)
        return x_cotangent, w_cotangent, None if ans is None else g

    def _result(self, xp: Any, x: Array, w: Array) -> Array:
        """Return the result of samples and taps, whose axes are in order."""
        spectrum = self._forth(xp, x, self._padding(xp, self.samples))
        spectrum *= self._forth(xp, w, partial(self._circle, xp))
        y = self._back(xp, spectrum, cutting(self.results))
        return y if max(self.strides) == 1 else xp.asarray(y, copy=True)  # a view would keep all samples

    def _cotangents(self, xp: Any, g: Array, x: Array | None, w: Array | None) -> tuple[Array | None, Array | None]:
        """Return cotangents of samples and taps, from the conjugates of both."""
        spectrum = self._forth(xp, g, self._padding(xp, self.results))
        g_x = g_w = None
        if w is not None:
            products = spectrum * xp.conj(self._forth(xp, w, partial(self._circle, xp)))
            g_x = self._back(xp, products, cutting(self.samples))
        if x is not None:
            spectrum *= xp.conj(self._forth(xp, x, self._padding(xp, self.samples)))
            batch = tuple(range(spectrum.ndim - self.count))
            g_w = self._back(xp, xp.sum(spectrum, axis=batch) if batch else spectrum, partial(self._taps, xp))
        return g_x, g_w

    def _forth(self, xp: Any, x: Array, laid: AxisMap) -> Array:
        """Transform along the axes, laid on the points. CuPy would take real arrays in Fortran's order by axis."""
        fft, count, options = fft_namespace(xp), self.count, self._options
        if self.by_scipy:
            for k in reversed(range(count)):
                transform = fft.rfft if self.real and k == count - 1 else fft.fft
                x = transform(laid(x, (k,)), axis=k - count, overwrite_x=k < count - 1, **options)
            return x
        x = laid(x, range(count))
        x = reshape(xp, reshape(xp, x, (-1,)), x.shape)  # in C's order, without a copy where it is
        last = tuple(range(-min(TOGETHER, count), 0))
        x = (fft.rfftn if self.real else fft.fftn)(x, axes=last)
        for axis in range(-count, last[0]):
            x = fft.fft(x, axis=axis)
        return x

    def _back(self, xp: Any, spectrum: Array, cut: AxisMap) -> Array:
        """Transform back along the convolved axes and cut out some points. It overwrites the spectrum."""
        fft, count, options = fft_namespace(xp), self.count, self._options
        if self.by_scipy:
            for k, n in enumerate(self.padded):
                transform = fft.irfft if self.real and k == count - 1 else fft.ifft
                spectrum = cut(transform(spectrum, n, axis=k - count, overwrite_x=True, **options), (k,))
            return spectrum
        last = tuple(range(-min(TOGETHER, count), 0))
        for axis in range(-count, last[0]):
            spectrum = fft.ifft(spectrum, axis=axis)
        y = (fft.irfftn if self.real else fft.ifftn)(spectrum, s=tuple(self.padded[last[0] :]), axes=last)
        return cut(y, range(count))

    @property
    def _options(self) -> dict[str, int]:
        """Threads of SciPy."""
        return {"workers": threads_for()} if self.by_scipy and self.points >= self.tuning.fft_threaded_samples else {}

    def _circle(self, xp: Any, w: Array, axes: Sequence[int]) -> Array:
        """Place the taps around 0."""
        for k in axes:
            w = laid_on_circle(xp, w, k, self.lengths[k], self.padded[k], self.boundary[k])
        return w

    def _taps(self, xp: Any, w: Array, axes: Sequence[int]) -> Array:
        """Apply the transpose of `_circle`."""
        for k in axes:
            w = taken_off_circle(xp, w, k, self.lengths[k], self.sizes[k], self.boundary[k])
        return w

    def _padding(self, xp: Any, places: Sequence[slice]) -> AxisMap:
        """Lay samples at these places of the points, and zeros everywhere else."""

        def laid(x: Array, axes: Sequence[int]) -> Array:
            shape, where = list(x.shape), [slice(None)] * x.ndim
            for k in axes:
                shape[k - self.count], where[k - self.count] = self.padded[k], places[k]
            if tuple(shape) == x.shape:
                return x
            grid = xp.zeros(tuple(shape), dtype=x.dtype, **placement(xp, x))
            grid[tuple(where)] = x
            return grid

        return laid

    def _filter(self, xp: Any, w: Array) -> Array:
        """Return taps with their axes in order."""
        return permute_dims(xp, reshape(xp, w, self.problem.kernel_size), tuple(self.sorted))

    def _ordered(self, xp: Any, x: Array, shape: Sequence[int]) -> Array:
        """Return an array of a signal or result, of this shape but for axes of one, with batch axes first."""
        return permute_dims(xp, reshape(xp, x, tuple(shape)), tuple(self.kept))

    def _in_order(self, xp: Any, x: Array, shape: Sequence[int]) -> Array:
        """Apply the reverse of `_ordered`."""
        return reshape(xp, permute_dims(xp, x, tuple(np.argsort(self.kept).tolist())), tuple(shape))


def cutting(places: Sequence[slice]) -> AxisMap:
    """Take samples along some axes."""
    return lambda y, axes: y[(..., *(where if k in axes else slice(None) for k, where in enumerate(places)))]
