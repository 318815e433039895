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


@lru_cache(maxsize=512)
def make_plan(geometry: Geometry, real: bool) -> Plan:
    """The plan for a call; calls with the same shapes and options share it."""
    return Plan(geometry, choose_methods(geometry, real), real)


class Plan:
    """A convolution and its two adjoints for one set of shapes, options and methods."""

    def __init__(self, geometry: Geometry, methods: tuple[str, ...], real: bool) -> None:
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
        self.batch = math.prod(g.x_shape[a] for a in g.batch_axes)
        self.channels = math.prod(g.x_shape[a] for a in g.sum_axes)
        self.out = math.prod(g.out_shape)

        order = [g.axes[k] for k in spectral], [g.axes[k] for k in direct]
        self.x_order = (*order[0], *g.sum_axes, *order[1], *g.batch_axes)
        kept = [a for a in range(len(g.x_shape)) if a not in g.sum_axes]
        position = {a: i for i, a in enumerate(kept)}
        new = range(len(kept), len(kept) + len(g.out_shape))
        self.y_order = (
            *(position[a] for a in order[0]),
            *new,
            *(position[a] for a in (*order[1], *g.batch_axes)),
        )
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
        grid = self.y_order[: len(self.y_order) - len(self.geometry.out_shape) - len(self.lengths)]
        rows = math.prod(self.geometry.y_shape[a] for a in grid[: self._spectral_axes])
        cotangent = self.transform.synthesize_transpose(xp, self._to_plan(xp, g, self.y_order, (rows, -1)))
        cotangent = xp.reshape(cotangent, (*cotangent.shape[:1], -1, *self.out_lengths, self.batch))
        x_cotangent = w_cotangent = None
        if w is not None:
            filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
            spectrum = self._mix_transpose(xp, cotangent, filters)
            x_rows = self.transform.analyze_transpose(xp, spectrum)
            x_cotangent = self._from_plan(xp, x_rows, self.x_order, self.geometry.x_shape)
        if x is not None:
            spectrum = self._correlate(xp, cotangent, self._analyze(xp, x))
            w_rows = self.transform.kernel_transpose(xp, spectrum, self.w_matrix[1:])
            w_cotangent = self._from_plan(xp, w_rows, self.w_order, self.geometry.w_shape)
        return x_cotangent, w_cotangent

    @property
    def _spectral_axes(self) -> int:
        return len(self.geometry.axes) - len(self.lengths)

    def _analyze(self, xp: Any, x: Array) -> Array:
        rows = math.prod(self.geometry.x_shape[a] for a in self.x_order[: self._spectral_axes])
        spectrum = self.transform.analyze(xp, self._to_plan(xp, x, self.x_order, (rows, -1)))
        return xp.reshape(spectrum, (spectrum.shape[0], -1, *self.lengths, self.batch))

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
        count, rows = filters.shape[:2]
        if not self.taps:
            return product(xp, filters, x)
        y = xp.empty((count, rows, *self.out_lengths, self.batch), dtype=x.dtype, **placement(xp, x))
        windowed = self._windowed(xp)
        if windowed:
            filters = self._flip_leading_taps(xp, filters)

        def tile(part: slice, begin: int, end: int) -> None:
            gathered = self._gather_rows(xp, x[part, ...]) if windowed else self._gather(xp, x[part, ...], begin, end)
            out = self._by_row(xp, y[part, ...], begin, end, gathered.shape[1])
            product(xp, filters[part, None, ...], gathered, out)

        self._each_tile(xp, tile, x.shape[1], count, windowed)
        return y

    def _mix_transpose(self, xp: Any, g: Array, filters: Array) -> Array:
        count, rows = g.shape[:2]
        if not self.taps:
            return product(xp, xp.permute_dims(filters, (0, 2, 1)), g)
        columns = filters.shape[2] // math.prod(self.taps)
        x = xp.zeros((count, columns, *self.lengths, self.batch), dtype=g.dtype, **placement(xp, g))
        windowed = self._windowed(xp)
        if windowed:  # (F, P*K, T1, T'*A*P*C) -> (F, T'*A*P*C, T1*P*K)
            filters = xp.reshape(filters, (count, rows, self.taps[0], -1))
            filters = xp.reshape(xp.permute_dims(filters, (0, 3, 2, 1)), (count, -1, self.taps[0] * rows))
        else:
            filters = xp.permute_dims(filters, (0, 2, 1))

        def tile(part: slice, begin: int, end: int) -> None:
            if windowed:
                scattered = product(xp, filters[part, None, ...], self._rows_around(xp, g[part, ...]))
                self._scatter_add_rows(xp, scattered, x[part, ...])
            else:
                cut = self._by_row(xp, g[part, ...], begin, end, 1)
                self._scatter_add(xp, product(xp, filters[part, None, ...], cut), x[part, ...], begin, end)

        self._each_tile(xp, tile, columns, count, windowed)
        return x

    def _correlate(self, xp: Any, g: Array, x: Array) -> Array:
        """Cotangent of the filter matrices: each frequency's outer product, summed over positions."""
        count, rows = g.shape[:2]
        if not self.taps:
            return product(xp, g, xp.permute_dims(x, (0, 2, 1)))
        columns = x.shape[1]
        total = xp.zeros((count, rows, math.prod(self.taps) * columns), dtype=g.dtype, **placement(xp, g))
        windowed = self._windowed(xp)

        def tile(part: slice, begin: int, end: int) -> None:
            gathered = self._gather_rows(xp, x[part, ...]) if windowed else self._gather(xp, x[part, ...], begin, end)
            cut = self._by_row(xp, g[part, ...], begin, end, gathered.shape[1])
            total[part, ...] += xp.sum(product(xp, cut, xp.permute_dims(gathered, (0, 1, 3, 2))), axis=1)

        self._each_tile(xp, tile, columns, count, windowed)
        return self._flip_leading_taps(xp, total) if windowed else total

    def _each_tile(
        self, xp: Any, tile: Callable[[slice, int, int], None], columns: int, count: int, windowed: bool
    ) -> None:
        """Work through frequencies and leading output indices, threads taking different frequencies."""
        per_index = math.prod(self.taps[windowed:]) * columns * self._row
        indices = self.out_lengths[0] if windowed else max(1, min(self.out_lengths[0], TILE // per_index))
        frequencies = max(1, min(count, TILE // (per_index * indices)))

        def work(first: int, last: int) -> None:
            for f in range(first, last, frequencies):
                for begin in range(0, self.out_lengths[0], indices):
                    tile(slice(f, min(last, f + frequencies)), begin, min(self.out_lengths[0], begin + indices))

        if xp is np:
            parallel_for(work, count)
        else:
            work(0, count)

    @property
    def _positions(self) -> int:
        return math.prod(self.out_lengths) * self.batch

    @property
    def _row(self) -> int:
        """Positions per index of the leading direct axis."""
        return math.prod(self.out_lengths[1:]) * self.batch

    def _windowed(self, xp: Any) -> bool:
        """Whether taps along the leading direct axis are overlapping views of rows rather than copies."""
        return self.stride[0] == 1 and self._row >= MIN_ROW and hasattr(xp, "lib")

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

    def _gather_rows(self, xp: Any, x: Array) -> Array:
        """Windows (F, rows, T*A*P*C, positions per row) whose leading taps overlap in memory."""
        count, columns = x.shape[:2]
        size, n = self.taps[0], self.lengths[0]
        minor = math.prod(self.taps[1:])
        rows = xp.empty((count, n + size - 1, minor, columns, *self.out_lengths[1:], self.batch), dtype=x.dtype)
        leading = _segments(n, (0, n + size - 1), 1, size - 1 - size // 2, self.periodic[0])
        _clear_uncovered(rows, leading)
        for to, frm in leading:
            source = xp.moveaxis(x[:, :, frm], 2, 1)
            for index, pieces, whole in self._tap_pieces(1, 0, None):
                if not whole:
                    rows[:, to, index] = 0
                for box, box_from in pieces:
                    rows[(slice(None), to, index, slice(None), *box)] = source[(..., *box_from, slice(None))]
        return _windows(xp, rows, size, minor * columns)

    def _rows_around(self, xp: Any, g: Array) -> Array:
        """Windows of cotangents (F, rows, T1*P*K, positions per row) for correlation along the leading axis."""
        count, columns = g.shape[:2]
        size, n = self.taps[0], self.lengths[0]
        rows = xp.empty((count, n + size - 1, columns, *self.out_lengths[1:], self.batch), dtype=g.dtype)
        leading = _segments(n, (0, n + size - 1), 1, size // 2, self.periodic[0])
        _clear_uncovered(rows, leading)
        for to, frm in leading:
            rows[:, to] = xp.moveaxis(g[:, :, frm], 2, 1)
        return _windows(xp, rows, size, columns)

    def _scatter_add_rows(self, xp: Any, scattered: Array, x: Array) -> None:
        columns = x.shape[1]
        minor = math.prod(self.taps[1:])
        split = xp.reshape(scattered, (x.shape[0], self.lengths[0], minor, columns, *self.out_lengths[1:], self.batch))
        target = xp.moveaxis(x, 2, 1)  # (F, rows, A*P*C, ...)
        for index, pieces, _ in self._tap_pieces(1, 0, None):
            for box, box_from in pieces:
                target[(..., *box_from, slice(None))] += split[(slice(None), slice(None), index, slice(None), *box)]

    def _gather(self, xp: Any, x: Array, begin: int, end: int) -> Array:
        """Copies of the taps around leading output indices [begin, end): (F, 1, T*A*P*C, positions)."""
        count, columns = x.shape[:2]
        block = (count, math.prod(self.taps), columns, end - begin, *self.out_lengths[1:], self.batch)
        gathered = xp.empty(block, dtype=x.dtype, **placement(xp, x))
        for index, pieces, whole in self._tap_pieces(0, begin, end):
            if not whole:
                gathered[:, index, ...] = 0
            for to, frm in pieces:
                gathered[(slice(None), index, slice(None), *to, ...)] = x[(slice(None), slice(None), *frm, ...)]
        return xp.reshape(gathered, (count, 1, block[1] * columns, math.prod(block[3:])))

    def _scatter_add(self, xp: Any, scattered: Array, x: Array, begin: int, end: int) -> None:
        """Transpose of `_gather`: add every tap's share back to where it was read."""
        block = (x.shape[0], -1, x.shape[1], end - begin, *self.out_lengths[1:], self.batch)
        scattered = xp.reshape(scattered, block)
        for index, pieces, _ in self._tap_pieces(0, begin, end):
            for to, frm in pieces:
                x[(slice(None), slice(None), *frm, ...)] += scattered[(slice(None), index, slice(None), *to, ...)]

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
