"""A convolution of one filter as a product of spectra along all its axes at once, by SciPy's FFT."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hcnn_core._backend import Array, fft_namespace
from hcnn_core._geometry import Geometry
from hcnn_core._parallel import threads_for
from hcnn_core._transforms import fast_length, tap_positions
from hcnn_core.pointwise import elu, elu_vjp

THREADED = 1 << 18
"""Samples from which FFTs gain from threads."""


class FourierPlan:
    """A convolution and its two adjoints where x lies: no axis is moved.

    A transpose without conjugation is a product with the spectrum at -f, which for any z is conj(F conj z).
    """

    def __init__(self, geometry: Geometry, real: bool) -> None:
        g = geometry
        self.geometry, self.real = g, real
        self.sorted = sorted(range(len(g.axes)), key=g.axes.__getitem__)  # of convolved axes, as they come in x
        lengths, sizes, strides = (
            tuple(values[k] for k in self.sorted) for values in (g.lengths, g.kernel_size, g.stride)
        )
        boundary = tuple(g.boundary[k] for k in self.sorted)
        self.axes = tuple(g.axes[k] for k in self.sorted)
        self.padded = tuple(
            fast_length(n, size, bound, real) for n, size, bound in zip(lengths, sizes, boundary, strict=True)
        )
        self.threaded = math.prod(self.padded) * math.prod(g.x_shape[a] for a in g.batch_axes) >= THREADED
        self.strided = max(strides) > 1
        self.cropped = self._in_x(slice(0, n) for n in lengths)
        self.kept = self._in_x(slice(0, n, r) for n, r in zip(lengths, strides, strict=True))
        taps = [tap_positions(size) for size in sizes]
        reached = [
            np.flatnonzero((bound == "periodic") | (abs(t) < n))
            for t, n, bound in zip(taps, lengths, boundary, strict=True)
        ]
        self.reached = np.ix_(*reached)
        self.places = np.ix_(*(t[r] % length for t, r, length in zip(taps, reached, self.padded, strict=True)))
        self.overlap = any(len(r) > length for r, length in zip(reached, self.padded, strict=True))
        self.filter_shape = self._in_x(self.padded, (1,) * len(g.x_shape))

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        y = self._back(xp, self._spectrum(xp, x) * self._of_filter(xp, w))[self.kept]
        y = np.ascontiguousarray(y) if self.strided else y  # a view would keep what is left out
        return y if bias is None else elu(y, bias)

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        g = g if ans is None else elu_vjp(g, ans)
        full = xp.zeros(self._in_x(self.padded, g.shape), dtype=g.dtype)
        full[self.kept] = g
        spectrum = self._spectrum(xp, full)
        x_cotangent = w_cotangent = None
        if w is not None:
            x_cotangent = self._back(xp, spectrum * xp.conj(self._of_filter(xp, xp.conj(w))))[self.cropped]
        if x is not None:
            products = spectrum * xp.conj(self._spectrum(xp, xp.conj(x)))
            products = xp.sum(products, axis=self.geometry.batch_axes, keepdims=True)
            w_cotangent = self._taps_of(xp, self._back(xp, products))
        return x_cotangent, w_cotangent, None if ans is None else g

    def _of_filter(self, xp: Any, w: Array) -> Array:
        """Spectrum of the taps, laid out around 0 on the padded grid; it broadcasts to that of x."""
        grid = xp.zeros(self.padded, dtype=w.dtype)
        taps = xp.permute_dims(w, tuple(self.sorted))[self.reached]
        if self.overlap:
            np.add.at(grid, self.places, taps)
        else:
            grid[self.places] = taps
        return self._spectrum(xp, xp.reshape(grid, self.filter_shape))

    def _taps_of(self, xp: Any, grid: Array) -> Array:
        """The transpose of laying taps out."""
        sizes = tuple(self.geometry.kernel_size[k] for k in self.sorted)
        w = xp.zeros(sizes, dtype=grid.dtype)
        w[self.reached] = xp.reshape(grid, self.padded)[self.places]
        return xp.permute_dims(w, tuple(int(k) for k in np.argsort(self.sorted)))

    def _spectrum(self, xp: Any, x: Array) -> Array:
        fft = fft_namespace(xp)
        transform = fft.rfftn if self.real else fft.fftn
        return transform(x, self.padded, self.axes, workers=self._threads())

    def _back(self, xp: Any, spectrum: Array) -> Array:
        fft = fft_namespace(xp)
        transform = fft.irfftn if self.real else fft.ifftn
        return transform(spectrum, self.padded, self.axes, overwrite_x=True, workers=self._threads())

    def _threads(self) -> int:
        return threads_for() if self.threaded else 1

    def _in_x(self, values: Iterable[Any], others: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """One entry per axis of x: the given ones where it is convolved, elsewhere those of `others`, or everything."""
        ndim = len(self.geometry.x_shape)
        given, rest = dict(zip(self.axes, values, strict=True)), others or (slice(None),) * ndim
        return tuple(given.get(a, rest[a]) for a in range(ndim))
