"""How a convolution is carried out: some axes in the frequency domain, the taps of the others one by one.

Every array is brought to one order, transformed axes first and the batch last, where the operator is three maps

    x -> spectrum -> (for each folded frequency: filter matrix @ gathered taps) -> y

and its adjoints are the same three, transposed, in reverse. With no transformed axis this is direct convolution as a
matrix product; with all of them it is the FFT method; the network's layers take space directly and attributes by DFT.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core import _costs
from hcnn_core._backend import Array, compiled_kernels, library_of, permute_dims, reshape
from hcnn_core._costs import at_once, choose_methods
from hcnn_core._fourier_plan import FourierPlan
from hcnn_core._geometry import Geometry
from hcnn_core._taps import GatheredTaps, TapProducts, Taps
from hcnn_core._transforms import LibraryFFT, Transform, make_transform
from hcnn_core.pointwise import elu, elu_vjp

MIN_INNER = 4
"""Samples inside the convolved axes in memory with which the batch axes outside stay there, or else `MIN_LINE`."""

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Batch axes that lie outside all convolved axes in memory, and the others, each from the slowest to the fastest."""


def make_plan(geometry: Geometry, real: bool, like: Array) -> Plan | FourierPlan:
    """The plan for a call; calls with the same shapes, options and memory layout share it."""
    return _plan_of(geometry, real, like.shape, getattr(like, "strides", None), library_of(like))


@lru_cache(maxsize=512)
def _plan_of(
    geometry: Geometry, real: bool, shape: tuple[int, ...], strides: tuple[int, ...] | None, library: str
) -> Plan | FourierPlan:
    return cached_plan(geometry, real, _layout(geometry, shape, strides), library)


@lru_cache(maxsize=512)
def cached_plan(geometry: Geometry, real: bool, layout: Layout, library: str) -> Plan | FourierPlan:
    methods = choose_methods(geometry, real, library)
    if at_once(geometry, methods, real, library):
        return FourierPlan(geometry, real)
    return plan_by(methods, geometry, real, layout, library)


def plan_by(methods: tuple[str, ...], geometry: Geometry, real: bool, layout: Layout, library: str) -> Plan:
    """The plan with these methods, one axis after another, by the best engine there is for the arrays."""
    plan = Plan(geometry, methods, real, layout)
    if not real or isinstance(plan.transform, LibraryFFT):
        return plan
    run = max(plan.products.taps.out_lengths, default=1) * plan.batch
    if library == "numpy" and run >= _costs.MIN_RUN and compiled_kernels(np):
        from hcnn_core._compiled_plan import CompiledPlan
        from hcnn_core._contracted_plan import ContractedPlan

        kind = ContractedPlan if plan.untapped and "fft" in plan.methods else CompiledPlan
        return kind(geometry, plan.methods, real, layout)
    if library == "cupy":
        from hcnn_core._cuda_plan import CudaPlan, SubsampledPlan

        if CudaPlan.suits(plan):
            return CudaPlan(geometry, plan.methods, real, layout)
        if plan.products.taps.uneven:
            return SubsampledPlan(geometry, plan.methods, real, layout)
    return plan


def _layout(geometry: Geometry, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> Layout:
    """How the batch axes of x, or of the result, lie in memory."""
    if strides is None:
        return (), geometry.batch_axes
    kept = range(len(geometry.x_shape)) if shape == geometry.x_shape else geometry.kept_axes
    stride = {axis: abs(strides[position]) for position, axis in enumerate(kept)}
    order = sorted(geometry.batch_axes, key=lambda axis: -stride[axis])
    outermost, innermost = (choose(geometry.axes, key=stride.__getitem__) for choose in (max, min))
    outer = tuple(axis for axis in order if stride[axis] > stride[outermost])
    inner = tuple(axis for axis in order if axis not in outer)
    samples = math.prod(geometry.x_shape[axis] for axis in inner)
    line = samples * geometry.x_shape[innermost]
    if samples >= MIN_INNER or _costs.long_lines(line, geometry):
        return outer, inner
    return (), tuple(order)


class Plan:
    """A convolution and its two adjoints for one set of shapes, options and methods.

    Without transformed axes there is one frequency, and the outer batch axes take its place: each of their entries is
    worked on by itself, where it lies, all with the same filter.
    """

    engine: Callable[[Taps], TapProducts] = GatheredTaps
    make_transform: Callable[..., Transform] = staticmethod(make_transform)

    def __init__(self, geometry: Geometry, methods: tuple[str, ...], real: bool, layout: Layout) -> None:
        self.geometry, self.methods = geometry, methods
        g = geometry
        count = range(len(g.axes))
        spectral = [k for k in count if methods[k] == "fft"]
        direct = sorted((k for k in count if methods[k] == "direct"), key=lambda k: g.axes[k])
        outer, inner = ((), (*layout[0], *layout[1])) if spectral else layout
        self.transform: Transform = self.make_transform(
            *(tuple(values[k] for k in spectral) for values in (g.lengths, g.kernel_size, g.stride, g.boundary)), real
        )
        self.outer = math.prod(g.x_shape[a] for a in outer)
        self.batch = math.prod(g.x_shape[a] for a in inner)
        self.channels = math.prod(g.x_shape[a] for a in g.sum_axes)
        self.out = math.prod(g.out_shape)
        direct = self._ordered(direct)
        self.products: TapProducts = self.engine(
            Taps(
                lengths=tuple(g.lengths[k] for k in direct),
                out_lengths=tuple(g.out_lengths[k] for k in direct),
                sizes=tuple(g.kernel_size[k] for k in direct),
                stride=tuple(g.stride[k] for k in direct),
                periodic=tuple(g.boundary[k] == "periodic" for k in direct),
                batch=self.batch,
                tiled=_costs.may_tile(g, methods, self.batch),
            )
        )

        self.untapped, self.outside, self.within = not direct, len(outer), len(direct) + len(inner)

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

    def _ordered(self, direct: list[int]) -> list[int]:
        """The directly convolved axes, the longest first, since tiles are cut along it."""
        return sorted(direct, key=lambda k: -self.geometry.out_lengths[k])

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
        spectrum = self.products.apply(xp, self._analyze(xp, x), filters)
        y = self.transform.synthesize(xp, spectrum)
        y = self.from_plan(xp, y, self.y_order, self.geometry.y_shape)
        return y if bias is None else elu(y, bias)

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is, for the cotangent g of the result.

        With `ans`, the result of an ELU after the convolution, also that of its argument: an array that broadcasts to
        the result, possibly summed over some of its axes already.
        """
        if ans is not None:
            g = elu_vjp(g, ans)
        taps = self.products.taps
        cotangent = self.transform.synthesize_transpose(xp, self._to_plan(xp, g, self.y_order, (self.y_rows, -1)))
        cotangent = xp.reshape(cotangent, (self._count, -1, *taps.out_lengths, taps.batch))
        x_cotangent = w_cotangent = None
        if w is not None:
            filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
            spectrum = self.products.apply_transpose(xp, cotangent, filters)
            x_rows = self.transform.analyze_transpose(xp, spectrum)
            x_cotangent = self.from_plan(xp, x_rows, self.x_order, self.geometry.x_shape)
        if x is not None:
            spectrum = self.products.correlate(xp, cotangent, self._analyze(xp, x))
            w_cotangent = self.filters_of(xp, spectrum)
        return x_cotangent, w_cotangent, None if ans is None else g

    def filters_of(self, xp: Any, spectrum: Array) -> Array:
        """Cotangent of w from those of each entry's filter matrix."""
        if self.outer > 1:
            spectrum = xp.sum(spectrum, axis=0, keepdims=True)
        w_rows = self.transform.kernel_transpose(xp, spectrum, self.w_matrix[1:])
        return self.from_plan(xp, w_rows, self.w_order, self.geometry.w_shape)

    @property
    def _count(self) -> int:
        """Frequencies, or outer batch entries in their place."""
        return self.transform.frequencies * self.outer

    def _analyze(self, xp: Any, x: Array) -> Array:
        spectrum = self.transform.analyze(xp, self._to_plan(xp, x, self.x_order, (self.x_rows, -1)))
        return xp.reshape(spectrum, (self._count, -1, *self.products.taps.lengths, self.products.taps.batch))

    def per_row(self, xp: Any, bias: Array) -> Array | None:
        """The bias (rows, out), if it is the same at all positions."""
        y_shape = self.geometry.y_shape
        bias = xp.permute_dims(xp.reshape(bias, (*(1,) * (len(y_shape) - bias.ndim), *bias.shape)), self.y_order)
        new = len(self.geometry.out_shape)
        rows = len(self.y_order) - self.within - new - self.outside
        kept = (*range(rows), *range(rows + self.outside, rows + self.outside + new))
        if any(n > 1 for a, n in enumerate(bias.shape) if a not in kept):
            return None
        shape = tuple(y_shape[self.y_order[a]] for a in kept)
        bias = xp.broadcast_to(xp.reshape(bias, tuple(bias.shape[a] for a in kept)), shape)
        return xp.reshape(bias, (self.y_rows, self.out))

    def like_result(self, xp: Any, sums: Array) -> Array:
        """Sums (rows, out) with the axes of the result, of length 1 where they were summed."""
        back, shape = _way_back(self.y_order, self.geometry.y_shape)
        ordered = xp.reshape(sums, (*shape[: len(shape) - self.within], *(1,) * self.within))
        return xp.permute_dims(ordered, back)

    @staticmethod
    def _to_plan(xp: Any, array: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        return reshape(xp, permute_dims(xp, array, order), shape)

    @staticmethod
    def from_plan(xp: Any, array: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        """A view in the caller's order of axes; memory keeps the plan's."""
        back, ordered = _way_back(order, shape)
        return permute_dims(xp, reshape(xp, array, ordered), back)


@lru_cache(maxsize=1024)
def _way_back(order: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The inverse of an order of axes, and a shape in that order."""
    return tuple(sorted(range(len(order)), key=order.__getitem__)), tuple(shape[a] for a in order)
