"""A convolution of one filter as a product of spectra along all its axes at once, by the array library's FFT."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hcnn_core._engines.generic import elementwise
from hcnn_core._engines.generic.fft import laid_on_circle, taken_off_circle
from hcnn_core._engines.transform import next_fast_length, padded_length, roughness
from hcnn_core._problem import Problem
from hcnn_core._tuning import Units
from hcnn_core.backend import Array, fft_namespace, joined, permute_dims, placement, reshape

TOGETHER = 3
"""Axes that cuFFT transforms by one plan."""

PRIMES = (2, 3, 5, 7)
"""Prime factors of lengths that cuFFT is fast at."""

MOST_POINTS = (1 << 31) - 1
"""cuFFT's plans count them in 32 bits."""


class FFTPlan:
    """A convolution with one filter and its two adjoints, batch axes first and convolved axes last.

    The last three convolved axes are transformed by one call, others one by one. A transpose without conjugation
    multiplies by the spectrum at -f, which is conj(F conj z) for any z. A stride folds the spectrum along its axis,
    except the last one of real arrays, of whose spectrum half is there.
    """

    def __init__(self, problem: Problem, real: bool) -> None:
        g = self.problem = problem
        self.real = real
        self.axes = g.axes
        count = len(g.axes)
        self.sorted = sorted(range(count), key=g.axes.__getitem__)
        """Convolved axes in the order of x."""
        self.kept = [k for k, a in enumerate(g.kept_axes) if a not in g.axes]
        self.kept += [g.kept_axes.index(g.axes[k]) for k in self.sorted]
        self.lengths, self.results, self.sizes, self.strides = (
            tuple(values[k] for k in self.sorted) for values in (g.lengths, g.out_lengths, g.kernel_size, g.stride)
        )
        self.boundary = tuple(g.boundary[k] for k in self.sorted)
        self.folds = [r if not real or k < count - 1 else 1 for k, r in enumerate(self.strides)]
        """Aliases that are added up along each axis; the rest of its stride drops samples."""
        self.padded: list[int] = []
        for k, (n, size, bound) in enumerate(zip(self.lengths, self.sizes, self.boundary, strict=True)):
            if bound == "periodic":
                self.folds[k] = self.folds[k] if n % self.folds[k] == 0 else 1
                self.padded.append(n)
            else:
                step = math.lcm(self.folds[k], 2 if real and k == count - 1 else 1)
                self.padded.append(step * next_fast_length(-(-padded_length(n, size, 1, bound) // step), PRIMES))
        self.batch = math.prod(g.x_shape[a] for a in g.batch_axes)

    @classmethod
    def suits(cls, problem: Problem, real: bool) -> bool:
        """Whether cuFFT can count the points."""
        plan = cls(problem, real)
        return plan.batch * math.prod(plan.padded) <= MOST_POINTS

    def units(self) -> Units:
        """Return samples read and written by each pass over memory, of the convolution and of both adjoints.

        A call of cuFFT along several axes takes a pass for each of them and one for zeros around samples.
        """
        points, batch, count = math.prod(self.padded), self.batch, len(self.axes)
        rough = math.prod(price(n) for n in self.padded)
        spectra = (2 * batch + 1) * points
        return {"call": 1, "fft_pass": 3 * (count * rough + 2) * spectra}

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        products = self._spectrum_of_samples(xp, x) * self._spectrum_of_filter(xp, w)
        y = self._in_order(xp, self._results(xp, products), self.problem.y_shape)
        return y if bias is None else elementwise.elu(xp, y, bias)

    def forward_and_marginal(self, xp: Any, x: Array, w: Array, bias: Array, axis: int) -> tuple[Array, Array]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis."""
        y = self.forward(xp, x, w, bias)
        return y, elementwise.marginal(xp, y, (axis,), "sum")

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        g = g if ans is None else elementwise.elu_vjp(xp, g, ans)
        spectrum = self._spectrum_of_results(xp, g)
        x_cotangent = w_cotangent = None
        if w is not None:
            products = spectrum * xp.conj(self._spectrum_of_filter(xp, self._conjugate(xp, w)))
            samples = self._back(xp, products, self.padded)[(..., *(slice(0, n) for n in self.lengths))]
            x_cotangent = self._in_order(xp, samples, self.problem.x_shape)
        if x is not None:
            products = spectrum * xp.conj(self._spectrum_of_samples(xp, self._conjugate(xp, x)))
            batch = tuple(range(products.ndim - len(self.axes)))
            w_cotangent = self._taps(xp, xp.sum(products, axis=batch) if batch else products)
        return x_cotangent, w_cotangent, None if ans is None else g

    def _spectrum_of_samples(self, xp: Any, x: Array) -> Array:
        """Spectrum of x (*batch, *padded), with zeros behind the samples."""
        x = self._ordered(xp, x, [self.problem.x_shape[a] for a in self.problem.kept_axes])
        return self._forth(xp, self._padded(xp, x, self.padded, [1] * len(self.axes)))

    def _spectrum_of_results(self, xp: Any, g: Array) -> Array:
        """Spectrum of the cotangent with zeros between its samples: that of fewer points, repeated for each alias."""
        g = self._ordered(xp, g, self.problem.y_shape[: len(self.kept)])
        lengths = [n // fold for n, fold in zip(self.padded, self.folds, strict=True)]
        spectrum = self._forth(xp, self._padded(xp, g, lengths, self._dropped))
        for axis, fold in enumerate(self.folds, start=-len(self.axes)):
            if fold > 1:
                spectrum = joined([spectrum] * fold, axis)
        return spectrum

    def _results(self, xp: Any, spectrum: Array) -> Array:
        """Results from the spectrum at all points: aliases are added up, and samples dropped that no fold drops."""
        for axis, fold in enumerate(self.folds, start=spectrum.ndim - len(self.axes)):
            if fold > 1:
                n = spectrum.shape[axis]
                shape = (*spectrum.shape[:axis], fold, n // fold, *spectrum.shape[axis + 1 :])
                spectrum = xp.sum(xp.reshape(spectrum, shape), axis=axis) / fold
        lengths = [n // fold for n, fold in zip(self.padded, self.folds, strict=True)]
        y = self._back(xp, spectrum, lengths)
        return y[(..., *(slice(0, (n - 1) * r + 1, r) for n, r in zip(self.results, self._dropped, strict=True)))]

    @property
    def _dropped(self) -> list[int]:
        """The part of each stride that no fold takes."""
        return [r // fold for r, fold in zip(self.strides, self.folds, strict=True)]

    def _spectrum_of_filter(self, xp: Any, w: Array) -> Array:
        """Spectrum of the taps around 0 on the padded grid. It broadcasts to that of x."""
        w = permute_dims(xp, reshape(xp, w, self.problem.kernel_size), tuple(self.sorted))
        for axis, (n, length, bound) in enumerate(zip(self.lengths, self.padded, self.boundary, strict=True)):
            w = laid_on_circle(xp, w, axis, n, length, bound)
        return self._forth(xp, w)

    def _taps(self, xp: Any, spectrum: Array) -> Array:
        """Return the transpose of `_spectrum_of_filter`, without the conjugation."""
        w = self._back(xp, spectrum, self.padded)
        for axis, (n, size, bound) in enumerate(zip(self.lengths, self.sizes, self.boundary, strict=True)):
            w = taken_off_circle(xp, w, axis, n, size, bound)
        order = tuple(sorted(range(len(self.sorted)), key=self.sorted.__getitem__))
        return reshape(xp, permute_dims(xp, w, order), self.problem.w_shape)

    def _forth(self, xp: Any, x: Array) -> Array:
        """DFT along the convolved axes. CuPy would transform real arrays in Fortran's order axis by axis."""
        fft, count = fft_namespace(xp), len(self.axes)
        x = reshape(xp, reshape(xp, x, (-1,)), x.shape)  # in C's order, without a copy where it is
        last = tuple(range(-min(TOGETHER, count), 0))
        x = (fft.rfftn if self.real else fft.fftn)(x, axes=last)
        for axis in range(-count, last[0]):
            x = fft.fft(x, axis=axis)
        return x

    def _back(self, xp: Any, spectrum: Array, lengths: Sequence[int]) -> Array:
        """Inverse DFT along the convolved axes, of so many points."""
        fft, count = fft_namespace(xp), len(self.axes)
        last = tuple(range(-min(TOGETHER, count), 0))
        for axis in range(-count, last[0]):
            spectrum = fft.ifft(spectrum, axis=axis)
        lengths = tuple(lengths[axis] for axis in last)
        found: Array = (fft.irfftn if self.real else fft.ifftn)(spectrum, s=lengths, axes=last)
        return found

    def _padded(self, xp: Any, x: Array, lengths: Sequence[int], steps: Sequence[int]) -> Array:
        """Return samples on a grid, so many points apart, and zeros everywhere else."""
        first = x.ndim - len(self.axes)
        if list(x.shape[first:]) == list(lengths):
            return x
        grid = xp.zeros((*x.shape[:first], *lengths), dtype=x.dtype, **placement(xp, x))
        places = (slice(0, (n - 1) * r + 1, r) for n, r in zip(x.shape[first:], steps, strict=True))
        grid[(..., *places)] = x
        return grid

    def _conjugate(self, xp: Any, x: Array) -> Array:
        return x if self.real else xp.conj(x)

    def _ordered(self, xp: Any, x: Array, shape: Sequence[int]) -> Array:
        """Return an array of a signal or result, of this shape but for axes of one, with batch axes first."""
        return permute_dims(xp, reshape(xp, x, tuple(shape)), tuple(self.kept))

    def _in_order(self, xp: Any, x: Array, shape: Sequence[int]) -> Array:
        """Return the reverse of `_ordered`."""
        order = tuple(sorted(range(len(self.kept)), key=self.kept.__getitem__))
        return reshape(xp, permute_dims(xp, x, order), tuple(shape))


def price(n: int) -> float:
    """Return the factor by which cuFFT is slower for a length with other prime factors: it takes several FFTs."""
    rest = roughness(n, PRIMES)
    return 1.0 if rest == 1 else 1.5 if rest <= 127 else 4.0
