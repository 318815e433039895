"""im2col: copy the samples of all taps into a matrix, block by block, and multiply it by the filter matrix.

Arrays are (entries, columns, *lengths, batch). An entry is a frequency or an element of the outer batch. Its filter
matrix is (rows, taps * columns); outer batch elements share one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.generic.matmul import product
from hcnn_core._engines.taps import Matrices, Taps, tap_pieces
from hcnn_core._threads import parallel_for
from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import AnyArray, Array, placement


class Im2col:
    """Products of filters and taps by im2col and the library's matrix product, block by block."""

    def __init__(self, taps: Taps, tuning: Tuning) -> None:
        self.taps, self.tuning = taps, tuning

    def apply(self, xp: Any, x: AnyArray, filters: AnyArray) -> AnyArray:
        count, rows = x.shape[0], filters.shape[1]
        y = xp.empty((count, rows, *self.taps.out_lengths, self.taps.batch), dtype=x.dtype, **placement(xp, x))
        filters = xp.broadcast_to(filters, (count, *filters.shape[1:]))

        def block(entries: slice, begin: int, end: int) -> None:
            gathered = self._gather(xp, x[entries, ...], begin, end)
            # (entries, rows, taps * columns) @ (entries, taps * columns, positions)
            product(xp, filters[entries, ...], gathered, self._cut(xp, y, entries, begin, end))

        self._each_block(xp, block, count, x.shape[1], independent=True)
        return y

    def apply_transpose(self, xp: Any, g: AnyArray, filters: AnyArray) -> AnyArray:
        count, columns = g.shape[0], filters.shape[2] // self.taps.count
        x = xp.zeros((count, columns, *self.taps.lengths, self.taps.batch), dtype=g.dtype, **placement(xp, g))
        filters = xp.broadcast_to(xp.permute_dims(filters, (0, 2, 1)), (count, filters.shape[2], filters.shape[1]))

        def block(entries: slice, begin: int, end: int) -> None:
            # (entries, taps * columns, rows) @ (entries, rows, positions)
            scattered = product(xp, filters[entries, ...], self._cut(xp, g, entries, begin, end))
            self._scatter_add(xp, scattered, x[entries, ...], begin, end)

        self._each_block(xp, block, count, columns, independent=False)
        return x

    def correlate(self, xp: Any, g: AnyArray, x: AnyArray) -> AnyArray:
        count, columns = x.shape[:2]
        shape = (count, self.taps.count * columns, g.shape[1])
        total = xp.zeros(shape, dtype=g.dtype, **placement(xp, g))

        def block(entries: slice, begin: int, end: int) -> None:
            gathered = self._gather(xp, x[entries, ...], begin, end)
            cotangents = xp.permute_dims(self._cut(xp, g, entries, begin, end), (0, 2, 1))
            # (entries, taps * columns, positions) @ (entries, positions, rows)
            # With the taller operand first, OpenBLAS takes a third less time than for the transposed product.
            total[entries, ...] += product(xp, gathered, cotangents)

        self._each_block(xp, block, count, columns, independent=False)
        return xp.permute_dims(total, (0, 2, 1))  # (entries, rows, taps * columns)

    def units(self, matrices: Matrices) -> Units:
        """Multiply-adds, four for complex numbers, the samples that are gathered, and copies of the products."""
        m, t = matrices, self.taps
        gathered = m.entries * t.count * m.columns * t.results
        return {
            "gathered_mac": (4 if m.are_complex else 1) * m.rows * gathered,
            "gathered": gathered * (t.count > 1),
            "piece": t.pieces * bool(t.sizes),
            "copy": 2 * m.entries * m.rows * t.results,
        }

    def _each_block(
        self, xp: Any, block: Callable[[slice, int, int], None], count: int, columns: int, *, independent: bool
    ) -> None:
        """Call `block` on all entries and leading output indices. Threads share entries, or blocks if independent."""
        leading, per_index = self.taps.leading, self.taps.count * columns * self.taps.positions
        most = self.tuning.gathered_elements
        indices = min(leading, max(1, most // per_index))
        entries = max(1, min(count, most // (per_index * indices)))
        begins = range(0, leading, indices)
        elements = per_index * leading * count

        def work(first: int, last: int) -> None:
            for f in range(first, last, entries):
                for begin in begins:
                    block(slice(f, min(last, f + entries)), begin, min(leading, begin + indices))

        def work_along(first: int, last: int) -> None:
            for begin in begins[first:last]:
                block(slice(0, count), begin, min(leading, begin + indices))

        if xp is not np:
            work(0, count)
        elif count == 1 and independent:
            parallel_for(work_along, len(begins), elements, threaded=True)
        else:
            parallel_for(work, count, elements, threaded=True)

    def _cut(self, xp: Any, y: Array, entries: slice, begin: int, end: int) -> Array:
        """Return the elements of y that a block computes, as a view (entries, rows, positions)."""
        flat = xp.reshape(y[entries, ...], (-1, y.shape[1], self.taps.leading * self.taps.positions))
        return flat[:, :, begin * self.taps.positions : end * self.taps.positions]

    def _gather(self, xp: Any, x: Array, begin: int, end: int) -> Array:
        """Return the im2col matrix of leading output indices [begin, end): (entries, taps * columns, positions)."""
        if not self.taps.sizes:
            return x
        count, columns = x.shape[:2]
        # (entries, columns, *lengths, batch) -> (entries, taps, columns, *positions, batch)
        shape = (count, self.taps.count, columns, end - begin, *self.taps.out_lengths[1:], self.taps.batch)
        gathered = xp.empty(shape, dtype=x.dtype, **placement(xp, x))
        for index, pieces, whole in self._pieces(begin, end):
            if not whole:
                gathered[:, index, ...] = 0
            for to, source in pieces:
                gathered[(slice(None), index, slice(None), *to, ...)] = x[(slice(None), slice(None), *source, ...)]
        return xp.reshape(gathered, (count, shape[1] * columns, math.prod(shape[3:])))

    def _scatter_add(self, xp: Any, scattered: Array, x: Array, begin: int, end: int) -> None:
        """Transpose of `_gather`: add each element of the im2col matrix to the sample that it was copied from."""
        if not self.taps.sizes:
            x[...] = xp.reshape(scattered, x.shape)
            return
        shape = (x.shape[0], -1, x.shape[1], end - begin, *self.taps.out_lengths[1:], self.taps.batch)
        scattered = xp.reshape(scattered, shape)  # (entries, taps, columns, *positions, batch)
        for index, pieces, _ in self._pieces(begin, end):
            for to, source in pieces:
                x[(slice(None), slice(None), *source, ...)] += scattered[(slice(None), index, slice(None), *to, ...)]

    def _pieces(self, begin: int, end: int) -> list[tuple[int, list[Any], bool]]:
        t = self.taps
        spans = ((begin, end), *((0, n) for n in t.out_lengths[1:]))
        return tap_pieces(t.lengths, spans, t.stride, t.sizes, t.periodic)
