"""How a convolution is carried out: some axes in the frequency domain, the taps of the others one by one.

Every array is brought to one order, transformed axes first and the batch last, where the operator is three maps

    x -> spectrum -> (for each folded frequency: filter matrix @ gathered taps) -> y

and its adjoints are the same three, transposed, in reverse. With no transformed axis this is direct convolution as a
matrix product; with all of them it is the FFT method; the network's layers take space directly and attributes by DFT.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._backend import Array
from hcnn_core._costs import choose_methods
from hcnn_core._geometry import Geometry
from hcnn_core._taps import GatheredTaps, TapProducts, Taps, compiled_taps
from hcnn_core._transforms import LibraryFFT, Transform, make_transform

MIN_INNER = 4
"""Samples that must lie inside the direct axes in memory for those outside to stay there."""

MIN_RUN = 16
"""Positions along the last direct axis, batch included, from which compiled products are worth it."""

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Batch axes that lie outside all convolved axes in memory, and the others, each from the slowest to the fastest."""


def make_plan(geometry: Geometry, real: bool, like: Array) -> Plan:
    """The plan for a call; calls with the same shapes, options and memory layout share it."""
    return _cached_plan(geometry, real, _layout(geometry, like), isinstance(like, np.ndarray))


@lru_cache(maxsize=512)
def _cached_plan(geometry: Geometry, real: bool, layout: Layout, on_host: bool) -> Plan:
    return Plan(geometry, choose_methods(geometry, real), real, layout, on_host)


def _layout(geometry: Geometry, like: Array) -> Layout:
    """How the batch axes of x, or of the result, lie in memory."""
    strides = getattr(like, "strides", None)
    if strides is None:
        return (), geometry.batch_axes
    kept = range(len(geometry.x_shape)) if like.shape == geometry.x_shape else geometry.kept_axes
    stride = {axis: abs(strides[position]) for position, axis in enumerate(kept)}
    order = sorted(geometry.batch_axes, key=lambda axis: -stride[axis])
    outermost = max(stride[axis] for axis in geometry.axes)
    outer = tuple(axis for axis in order if stride[axis] > outermost)
    inner = tuple(axis for axis in order if axis not in outer)
    if math.prod(geometry.x_shape[axis] for axis in inner) < MIN_INNER:
        return (), tuple(order)
    return outer, inner


class Plan:
    """A convolution and its two adjoints for one set of shapes, options and methods.

    Without transformed axes there is one frequency, and the outer batch axes take its place: each of their entries is
    worked on by itself, where it lies, all with the same filter.
    """

    def __init__(
        self, geometry: Geometry, methods: tuple[str, ...], real: bool, layout: Layout, on_host: bool = True
    ) -> None:
        self.geometry = geometry
        g = geometry
        count = range(len(g.axes))
        spectral = [k for k in count if methods[k] == "fft"]
        direct = sorted((k for k in count if methods[k] == "direct"), key=lambda k: g.axes[k])
        outer, inner = ((), (*layout[0], *layout[1])) if spectral else layout
        self.transform: Transform = make_transform(
            *(tuple(values[k] for k in spectral) for values in (g.lengths, g.kernel_size, g.stride, g.boundary)), real
        )
        self.outer = math.prod(g.x_shape[a] for a in outer)
        self.batch = math.prod(g.x_shape[a] for a in inner)
        self.channels = math.prod(g.x_shape[a] for a in g.sum_axes)
        self.out = math.prod(g.out_shape)
        self.products: TapProducts = self._choose_products(direct, real, on_host)

        first_axes = (*(g.axes[k] for k in spectral), *outer)
        last_axes = (*(g.axes[k] for k in direct), *inner)
        self.x_order = (*first_axes, *g.sum_axes, *last_axes)
        position = {a: i for i, a in enumerate(g.kept_axes)}
        new = range(len(position), len(position) + len(g.out_shape))
        self.y_order = (*(position[a] for a in first_axes), *new, *(position[a] for a in last_axes))
        self.x_rows = math.prod(g.lengths[k] for k in spectral)
        self.y_rows = math.prod(g.out_lengths[k] for k in spectral)
        first = len(g.sum_axes)
        taps = [first + k for k in (*spectral, *direct)]
        self.w_order = (*taps, *range(first), *range(first + len(g.axes), len(g.w_shape)))
        self.w_matrix = (-1, self.products.taps.count, self.channels, self.out)

    def _choose_products(self, direct: list[int], real: bool, on_host: bool) -> TapProducts:
        """The engine for the directly convolved axes, and their order, the way that engine likes it."""
        g = self.geometry
        longest = max((g.out_lengths[k] for k in direct), default=1)
        compiled = None
        if real and on_host and not isinstance(self.transform, LibraryFFT) and longest * self.batch >= MIN_RUN:
            compiled = compiled_taps()
        if compiled is None:  # tiles are cut along the first
            direct.sort(key=lambda k: -g.out_lengths[k])
        elif direct and g.out_lengths[direct[-1]] * self.batch < MIN_RUN:  # vectors run along the last
            direct.sort(key=lambda k: g.out_lengths[k])
        return (compiled or GatheredTaps)(
            Taps(
                tuple(g.lengths[k] for k in direct),
                tuple(g.out_lengths[k] for k in direct),
                tuple(g.kernel_size[k] for k in direct),
                tuple(g.stride[k] for k in direct),
                tuple(g.boundary[k] == "periodic" for k in direct),
                self.batch,
            )
        )

    def forward(self, xp: Any, x: Array, w: Array) -> Array:
        """Convolve x with w."""
        filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
        spectrum = self.products.apply(xp, self._analyze(xp, x), filters)
        y = self.transform.synthesize(xp, spectrum)
        return self._from_plan(xp, y, self.y_order, self.geometry.y_shape)

    def adjoints(self, xp: Any, g: Array, x: Array | None, w: Array | None) -> tuple[Array | None, Array | None]:
        """Cotangents of x (if w is given) and of w (if x is given) for the cotangent g of the result."""
        taps = self.products.taps
        cotangent = self.transform.synthesize_transpose(xp, self._to_plan(xp, g, self.y_order, (self.y_rows, -1)))
        cotangent = xp.reshape(cotangent, (self._count, -1, *taps.out_lengths, taps.batch))
        x_cotangent = w_cotangent = None
        if w is not None:
            filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
            spectrum = self.products.apply_transpose(xp, cotangent, filters)
            x_rows = self.transform.analyze_transpose(xp, spectrum)
            x_cotangent = self._from_plan(xp, x_rows, self.x_order, self.geometry.x_shape)
        if x is not None:
            spectrum = self.products.correlate(xp, cotangent, self._analyze(xp, x))
            if self.outer > 1:
                spectrum = xp.sum(spectrum, axis=0, keepdims=True)
            w_rows = self.transform.kernel_transpose(xp, spectrum, self.w_matrix[1:])
            w_cotangent = self._from_plan(xp, w_rows, self.w_order, self.geometry.w_shape)
        return x_cotangent, w_cotangent

    @property
    def _count(self) -> int:
        """Frequencies, or outer batch entries in their place."""
        return self.transform.frequencies * self.outer

    def _analyze(self, xp: Any, x: Array) -> Array:
        spectrum = self.transform.analyze(xp, self._to_plan(xp, x, self.x_order, (self.x_rows, -1)))
        return xp.reshape(spectrum, (self._count, -1, *self.products.taps.lengths, self.products.taps.batch))

    @staticmethod
    def _to_plan(xp: Any, array: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        return xp.reshape(xp.permute_dims(array, order), shape)

    @staticmethod
    def _from_plan(xp: Any, array: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        """A view in the caller's order of axes; memory keeps the plan's."""
        back = tuple(int(i) for i in np.argsort(order))
        return xp.permute_dims(xp.reshape(array, tuple(shape[a] for a in order)), back)
