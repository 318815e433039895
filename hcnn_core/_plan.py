"""How a convolution is carried out: some axes in the frequency domain, the taps of the others one by one.

Every array is brought to one order, transformed axes first and the batch last, where the operator is three maps

    x -> spectrum -> (for each folded frequency: filter matrix @ gathered taps) -> y

and its adjoints are the same three, transposed, in reverse. With no transformed axis this is direct convolution as a
matrix product; with all of them it is the FFT method; the network's layers take space directly and attributes by DFT.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._backend import Array, placement
from hcnn_core._costs import choose_methods
from hcnn_core._geometry import Geometry
from hcnn_core._parallel import parallel_for
from hcnn_core._products import product
from hcnn_core._transforms import Transform, make_transform

TILE = 1 << 19
"""Elements gathered at a time, so that the gathered taps stay in cache for the product that reads them."""

MIN_ROW = 256
"""Positions a row must hold for its own matrix product to be worth a call."""


MIN_INNER = 4
"""Samples that must lie inside the direct axes in memory for those outside to stay there."""

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Batch axes that lie outside all convolved axes in memory, and the others, each from the slowest to the fastest."""


def make_plan(geometry: Geometry, real: bool, like: Array) -> Plan:
    """The plan for a call; calls with the same shapes, options and memory layout share it."""
    return _cached_plan(geometry, real, _layout(geometry, like))


@lru_cache(maxsize=512)
def _cached_plan(geometry: Geometry, real: bool, layout: Layout) -> Plan:
    return Plan(geometry, choose_methods(geometry, real), real, layout)


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

    def __init__(self, geometry: Geometry, methods: tuple[str, ...], real: bool, layout: Layout) -> None:
        self.geometry = geometry
        g = geometry
        count = range(len(g.axes))
        spectral = [k for k in count if methods[k] == "fft"]
        # the longest directly convolved axis leads its group, since tiles are cut along it
        direct = sorted((k for k in count if methods[k] == "direct"), key=lambda k: -g.out_lengths[k])
        self.transform: Transform = make_transform(
            *(tuple(values[k] for k in spectral) for values in (g.lengths, g.kernel_size, g.stride, g.boundary)), real
        )
        self.taps = tuple(g.kernel_size[k] for k in direct)
        self.stride = tuple(g.stride[k] for k in direct)
        self.periodic = tuple(g.boundary[k] == "periodic" for k in direct)
        self.lengths = tuple(g.lengths[k] for k in direct)
        self.out_lengths = tuple(g.out_lengths[k] for k in direct)
        outer, inner = ((), (*layout[0], *layout[1])) if spectral else layout
        self.outer = math.prod(g.x_shape[a] for a in outer)
        self.batch = math.prod(g.x_shape[a] for a in inner)
        self.channels = math.prod(g.x_shape[a] for a in g.sum_axes)
        self.out = math.prod(g.out_shape)

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
        self.w_matrix = (-1, math.prod(self.taps), self.channels, self.out)

    def forward(self, xp: Any, x: Array, w: Array) -> Array:
        """Convolve x with w."""
        filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
        spectrum = self._mix(xp, self._analyze(xp, x), filters)
        y = self.transform.synthesize(xp, spectrum)
        return self._from_plan(xp, y, self.y_order, self.geometry.y_shape)

    def adjoints(self, xp: Any, g: Array, x: Array | None, w: Array | None) -> tuple[Array | None, Array | None]:
        """Cotangents of x (if w is given) and of w (if x is given) for the cotangent g of the result."""
        cotangent = self.transform.synthesize_transpose(xp, self._to_plan(xp, g, self.y_order, (self.y_rows, -1)))
        cotangent = xp.reshape(cotangent, (self._count, -1, *self.out_lengths, self.batch))
        x_cotangent = w_cotangent = None
        if w is not None:
            filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
            spectrum = self._mix_transpose(xp, cotangent, filters)
            x_rows = self.transform.analyze_transpose(xp, spectrum)
            x_cotangent = self._from_plan(xp, x_rows, self.x_order, self.geometry.x_shape)
        if x is not None:
            spectrum = self._correlate(xp, cotangent, self._analyze(xp, x))
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
        return xp.reshape(spectrum, (self._count, -1, *self.lengths, self.batch))

    @staticmethod
    def _to_plan(xp: Any, array: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        return xp.reshape(xp.permute_dims(array, order), shape)

    @staticmethod
    def _from_plan(xp: Any, array: Array, order: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        """A view in the caller's order of axes; memory keeps the plan's."""
        back = tuple(int(i) for i in np.argsort(order))
        return xp.permute_dims(xp.reshape(array, tuple(shape[a] for a in order)), back)

    def _mix(self, xp: Any, x: Array, filters: Array) -> Array:
        """Apply each frequency's filter matrix to the taps gathered around every output position."""
        rows = filters.shape[1]
        y = xp.empty((self._count, rows, *self.out_lengths, self.batch), dtype=x.dtype, **placement(xp, x))
        windowed = self._windowed(xp)
        if windowed:
            filters = self._flip_leading_taps(xp, filters)
        filters = self._for_each(xp, filters)

        def tile(part: slice, begin: int, end: int) -> None:
            gathered = self._gather(xp, x[part, ...], begin, end, windowed)
            out = self._by_row(xp, y[part, ...], begin, end, gathered.shape[1])
            product(xp, filters[part, None, ...], gathered, out)

        self._each_tile(xp, tile, x.shape[1], windowed, independent=True)
        return y

    def _mix_transpose(self, xp: Any, g: Array, filters: Array) -> Array:
        rows = g.shape[1]
        columns = filters.shape[2] // math.prod(self.taps)
        x = xp.zeros((self._count, columns, *self.lengths, self.batch), dtype=g.dtype, **placement(xp, g))
        windowed = self._windowed(xp)
        if windowed:  # (F, P*K, T1, T'*A*P*C) -> (F, T'*A*P*C, T1*P*K)
            filters = xp.reshape(filters, (*filters.shape[:2], self.taps[0], -1))
            filters = xp.reshape(xp.permute_dims(filters, (0, 3, 2, 1)), (filters.shape[0], -1, self.taps[0] * rows))
        else:
            filters = xp.permute_dims(filters, (0, 2, 1))
        filters = self._for_each(xp, filters)

        def tile(part: slice, begin: int, end: int) -> None:
            if windowed:
                around = self._rows_around(xp, g[part, ...], begin, end)
                self._scatter_add_rows(xp, product(xp, filters[part, None, ...], around), x[part, ...], begin, end)
            else:
                cut = self._by_row(xp, g[part, ...], begin, end, 1)
                self._scatter_add(xp, product(xp, filters[part, None, ...], cut), x[part, ...], begin, end)

        self._each_tile(xp, tile, columns, windowed, independent=windowed)
        return x

    def _correlate(self, xp: Any, g: Array, x: Array) -> Array:
        """Cotangent of the filter matrices: each frequency's outer product, summed over positions."""
        columns = x.shape[1]
        shape = (self._count, math.prod(self.taps) * columns, g.shape[1])
        total = xp.zeros(shape, dtype=g.dtype, **placement(xp, g))
        windowed = self._windowed(xp)

        def tile(part: slice, begin: int, end: int) -> None:
            gathered = self._gather(xp, x[part, ...], begin, end, windowed)
            cut = self._by_row(xp, g[part, ...], begin, end, gathered.shape[1])
            # the taller operand first: OpenBLAS takes a third less time than for the transposed product
            total[part, ...] += xp.sum(product(xp, gathered, xp.permute_dims(cut, (0, 1, 3, 2))), axis=1)

        self._each_tile(xp, tile, columns, windowed, independent=False)
        total = xp.permute_dims(total, (0, 2, 1))
        return self._flip_leading_taps(xp, total) if windowed else total

    def _for_each(self, xp: Any, filters: Array) -> Array:
        """The filter matrices, one per frequency, or the same for each outer batch entry."""
        return xp.broadcast_to(filters, (self._count, *filters.shape[1:]))

    def _each_tile(
        self, xp: Any, tile: Callable[[slice, int, int], None], columns: int, windowed: bool, *, independent: bool
    ) -> None:
        """Work through frequencies and leading output indices; threads share frequencies, or tiles if independent."""
        leading = self.out_lengths[0] if self.taps else 1
        per_index = math.prod(self.taps[windowed:]) * columns * self._row
        indices = max(1, TILE // per_index)
        if windowed:  # rows at the edges of tiles are gathered twice
            indices = max(indices, 8 * (self.taps[0] - 1))
        indices = min(indices, leading)
        frequencies = max(1, min(self._count, TILE // (per_index * indices)))
        begins = range(0, leading, indices)
        elements = per_index * leading * self._count

        def work(first: int, last: int) -> None:
            for f in range(first, last, frequencies):
                for begin in begins:
                    tile(slice(f, min(last, f + frequencies)), begin, min(leading, begin + indices))

        def work_along(first: int, last: int) -> None:
            for begin in begins[first:last]:
                tile(slice(0, self._count), begin, min(leading, begin + indices))

        if xp is not np:
            work(0, self._count)
        elif self._count == 1 and independent:
            parallel_for(work_along, len(begins), elements)
        else:
            parallel_for(work, self._count, elements)

    @property
    def _positions(self) -> int:
        return math.prod(self.out_lengths) * self.batch

    @property
    def _row(self) -> int:
        """Positions per index of the leading direct axis."""
        return math.prod(self.out_lengths[1:]) * self.batch

    def _windowed(self, xp: Any) -> bool:
        """Whether taps along the leading direct axis are overlapping views of rows, which only NumPy multiplies."""
        return bool(self.taps) and self.stride[0] == 1 and self._row >= MIN_ROW and xp is np

    def _flip_leading_taps(self, xp: Any, filters: Array) -> Array:
        split = xp.reshape(filters, (*filters.shape[:2], self.taps[0], -1))
        return xp.reshape(xp.flip(split, axis=2), filters.shape)

    def _by_row(self, xp: Any, y: Array, begin: int, end: int, rows: int) -> Array:
        """Results of a tile as a view (F, rows, P*K, positions per row), one row or one per leading index."""
        flat = xp.reshape(y, (*y.shape[:2], self._positions))[:, :, begin * self._row : end * self._row]
        split = (
            xp.lib.stride_tricks.as_strided(
                flat,
                (*flat.shape[:2], rows, flat.shape[2] // rows),
                (*flat.strides[:2], flat.strides[2] * flat.shape[2] // rows, flat.strides[2]),
            )
            if rows > 1
            else xp.expand_dims(flat, axis=2)
        )
        return xp.permute_dims(split, (0, 2, 1, 3))

    def _gather(self, xp: Any, x: Array, begin: int, end: int, windowed: bool) -> Array:
        """Taps around leading output indices [begin, end): (F, 1 or rows, T*A*P*C, positions)."""
        if not self.taps:
            return xp.expand_dims(x, axis=1)
        if windowed:
            return self._rows(xp, x, begin, end)
        count, columns = x.shape[:2]
        block = (count, math.prod(self.taps), columns, end - begin, *self.out_lengths[1:], self.batch)
        gathered = xp.empty(block, dtype=x.dtype, **placement(xp, x))
        for index, pieces, whole in self._tap_pieces(0, begin, end):
            if not whole:
                gathered[:, index, ...] = 0
            for to, source in pieces:
                gathered[(slice(None), index, slice(None), *to, ...)] = x[(slice(None), slice(None), *source, ...)]
        return xp.reshape(gathered, (count, 1, block[1] * columns, math.prod(block[3:])))

    def _scatter_add(self, xp: Any, scattered: Array, x: Array, begin: int, end: int) -> None:
        """Transpose of `_gather` by copies: add every tap's share back to where it was read."""
        if not self.taps:
            x[...] = xp.reshape(scattered, x.shape)
            return
        block = (x.shape[0], -1, x.shape[1], end - begin, *self.out_lengths[1:], self.batch)
        scattered = xp.reshape(scattered, block)
        for index, pieces, _ in self._tap_pieces(0, begin, end):
            for to, source in pieces:
                x[(slice(None), slice(None), *source, ...)] += scattered[(slice(None), index, slice(None), *to, ...)]

    def _rows(self, xp: Any, x: Array, begin: int, end: int) -> Array:
        """Windows (F, rows, T*A*P*C, positions per row) whose leading taps overlap in memory."""
        count, columns = x.shape[:2]
        size = self.taps[0]
        minor = math.prod(self.taps[1:])
        span = (begin, end + size - 1)
        rows = xp.empty((count, span[1] - begin, minor, columns, *self.out_lengths[1:], self.batch), dtype=x.dtype)
        leading = _segments(self.lengths[0], span, 1, size - 1 - size // 2, self.periodic[0])
        _clear_uncovered(rows, leading)
        for to, source in leading:
            lines = xp.moveaxis(x[:, :, source], 2, 1)
            for index, pieces, whole in self._tap_pieces(1, 0, None):
                if not whole:
                    rows[:, to, index] = 0
                for box, box_source in pieces:
                    rows[(slice(None), to, index, slice(None), *box)] = lines[(..., *box_source, slice(None))]
        return _windows(xp, rows, size, minor * columns)

    def _rows_around(self, xp: Any, g: Array, begin: int, end: int) -> Array:
        """Windows of cotangents (F, rows, T1*P*K, positions per row) for correlation along the leading axis."""
        count, columns = g.shape[:2]
        size = self.taps[0]
        span = (begin, end + size - 1)
        rows = xp.empty((count, span[1] - begin, columns, *self.out_lengths[1:], self.batch), dtype=g.dtype)
        leading = _segments(self.lengths[0], span, 1, size // 2, self.periodic[0])
        _clear_uncovered(rows, leading)
        for to, source in leading:
            rows[:, to] = xp.moveaxis(g[:, :, source], 2, 1)
        return _windows(xp, rows, size, columns)

    def _scatter_add_rows(self, xp: Any, scattered: Array, x: Array, begin: int, end: int) -> None:
        """Transpose of the copies along the other direct axes in `_rows`."""
        count, columns = x.shape[:2]
        split = xp.reshape(scattered, (count, end - begin, -1, columns, *self.out_lengths[1:], self.batch))
        target = xp.moveaxis(x[:, :, begin:end], 2, 1)  # (F, rows, A*P*C, ...)
        for index, pieces, _ in self._tap_pieces(1, 0, None):
            for box, box_source in pieces:
                target[(..., *box_source, slice(None))] += split[(slice(None), slice(None), index, slice(None), *box)]

    def _tap_pieces(self, first: int, begin: int, end: int | None) -> list[tuple[int, list[Any], bool]]:
        """For each tap along the direct axes from `first` on: boxes to copy, (to, from), and if they cover all."""
        spans = tuple((0, n) for n in self.out_lengths[first:])
        if end is not None:
            spans = ((begin, end), *spans[1:])
        return tap_pieces(self.lengths[first:], spans, self.stride[first:], self.taps[first:], self.periodic[first:])


@lru_cache(maxsize=4096)
def tap_pieces(
    lengths: tuple[int, ...],
    spans: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    sizes: tuple[int, ...],
    periodic: tuple[bool, ...],
) -> list[tuple[int, list[Any], bool]]:
    result = []
    for index, taps in enumerate(itertools.product(*map(range, sizes))):
        along = [
            _segments(n, span, r, t - size // 2, wrap)
            for n, span, r, t, size, wrap in zip(lengths, spans, strides, taps, sizes, periodic, strict=True)
        ]
        pieces: list[Any] = [tuple(zip(*box, strict=True)) or ((), ()) for box in itertools.product(*along)]
        covered = [sum(to.stop - to.start for to, _ in axis) for axis in along]
        result.append((index, pieces, covered == [stop - start for start, stop in spans]))
    return result


@lru_cache(maxsize=4096)
def _segments(n: int, span: tuple[int, int], stride: int, tap: int, periodic: bool) -> list[tuple[slice, slice]]:
    """Runs of output indices i in `span` whose source stride * i - tap lies in one period, with that source."""
    begin, end = span
    first, last = (stride * begin - tap) // n, (stride * (end - 1) - tap) // n
    segments = []
    for period in range(first, last + 1) if periodic else (0,):
        low = max(begin, -((-period * n - tap) // stride))
        high = min(end, -((-(period + 1) * n - tap) // stride))
        if low < high:
            source = stride * low - tap - period * n
            to = slice(low - begin, high - begin)
            segments.append((to, slice(source, source + stride * (high - low - 1) + 1, stride)))
    return segments


def _windows(xp: Any, rows: Array, size: int, columns: int) -> Array:
    """Overlapping windows of `size` rows, each a matrix (size * columns, positions), without a copy."""
    flat = xp.reshape(rows, (*rows.shape[:2], columns, -1))
    shape = (flat.shape[0], flat.shape[1] - size + 1, size * columns, flat.shape[3])
    return xp.lib.stride_tricks.as_strided(flat, shape, flat.strides)


def _clear_uncovered(rows: Array, segments: list[tuple[slice, slice]]) -> None:
    """Zero the rows before and after what the segments of a zero-extended axis will fill."""
    position = 0
    for to, _ in segments:
        rows[:, position : to.start] = 0
        position = to.stop
    rows[:, position:] = 0
