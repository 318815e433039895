"""Three taps along the last axis by F(4, 3): 4 positions by 6 products, in tiles that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hcnn_core import _kernels as kernels
from hcnn_core._backend import Array
from hcnn_core._compiled_taps import CompiledTaps, entries_of, evenly, nothing, taps_of_x
from hcnn_core._memory import empty, zeros
from hcnn_core._parallel import parallel_for
from hcnn_core._taps import Integers, Taps, extended

TILES = 1 << 19
"""Elements of an entry of a cotangent that is worked on at once."""

LEAST = 3
"""Lines of a section for each that another reads too, whose spectra are made again."""

SPAN = 2
"""Lines of it whose tiles are multiplied at once: more make longer sums, fewer stay in a nearer cache."""


class TiledTaps(CompiledTaps):
    """As `CompiledTaps`, for taps that it suits."""

    def __init__(self, taps: Taps, after: int = 0) -> None:
        super().__init__(taps)
        self.after = after

    @staticmethod
    def suits(t: Taps) -> bool:
        """Whether tiles cover the last axis, and vectors the batch within it."""
        tiles = len(t.sizes) > 1 and t.sizes[-1] == 3 and t.stride[-1] == 1 and not t.out_lengths[-1] % 4
        return t.tiled and tiles and t.batch >= 16

    def pack(self, filters: Array) -> Array:
        """Factors of filters (entries, rows, taps * columns) as the kernels read them: (entries, 6, K, rows).

        K counts the taps along the other axes, those of one column after the other.
        """
        count, rows = filters.shape[:2]
        groups = self._groups(filters, rows)
        packed = empty((count, 6, groups.shape[1] * groups.shape[2], rows), filters.dtype)
        parallel_for(lambda i, j: kernels.factors_of_tiles(groups[i:j], packed[i:j]), count, packed.size)
        return packed

    def _groups(self, filters: Array, rows: int) -> Array:
        """Filters as (entries, columns, taps along the other axes, 3, rows); tiles read samples forwards."""
        split = filters.reshape(len(filters), rows, self.taps.count // 3, 3, -1)
        return split.transpose(0, 4, 2, 3, 1)[:, :, :, ::-1]

    def apply_chunk(
        self, out: Array, first: int, x: Array, matrices: Array, begin: int, end: int, bias: Array | None = None
    ) -> None:
        """Write the results for leading indices [begin, end) to out (entries, rows, positions), from `first` on."""
        reading = taps_of_x(self.taps, x.shape[1], begin, end, x.itemsize, tiled=True)
        room = reading.tiles(x.shape[1], x.dtype), empty((6, out.shape[1], reading.width), x.dtype)
        reading.call(kernels.apply_tiled, out, first, x, *room, matrices, nothing(x.dtype) if bias is None else bias)

    def adjoints(self, g: Array, x: Array | None, filters: Array | None) -> tuple[Array | None, Array | None]:
        """Cotangents of x, if filters are given, and of filters, if x is, from one pass over the tiles of g.

        That is of as many results as it has, from leading index `after` on.
        """
        t, (count, rows), dtype = self.taps, g.shape[:2], g.dtype
        if filters is not None:
            columns = filters.shape[2] // t.count
        elif x is not None:
            columns = x.shape[1]
        else:
            return None, None
        gx = empty((0 if filters is None else count, columns, *t.lengths, t.batch), dtype)
        total = zeros((0 if x is None else count, 6, columns * t.count // 3, rows), dtype)
        matrices = np.empty((0,) * 5, dtype) if filters is None else self._transposed(self.pack(filters))
        leading, g = g.shape[2], g.reshape(count, rows, -1)

        def work(first: int, last: int) -> None:
            part = slice(first, last)
            for begin, end in evenly(leading, min(leading, -(-g.shape[2] * rows // TILES))):
                signal, packed = (gx if x is None else x)[part], entries_of(matrices, part)
                self._add_adjoints(g[part], signal, total[part], packed, gx[part], begin, end)

        parallel_for(work, count, g.size * t.count)
        w = None
        if x is not None:
            w = np.empty((count, rows, t.count * columns), dtype)
            kernels.factors_transpose(total, self._groups(w, rows))
        return None if filters is None else gx, w

    def _add_adjoints(self, g: Array, x: Array, total: Array, matrices: Array, gx: Array, begin: int, end: int) -> None:
        """What g makes at leading indices [begin, end) of its own."""
        columns, dtype = x.shape[1], g.dtype
        reading = taps_of_x(self.taps, columns, self.after + begin, self.after + end, g.itemsize, tiled=True)
        tiles, sums = (reading.tiles(columns, dtype) for _ in range(2))
        cotangents = zeros((6, g.shape[1], min(SPAN, len(reading.starts)), reading.width), dtype)
        rows, six = np.arange(g.shape[1]) * cotangents.strides[1], empty((6 * reading.inner,), dtype)
        gx = gx.reshape(len(gx), columns, math.prod(self.taps.lengths[:-1]), reading.source_line)
        room = (tiles, cotangents, rows, total, sums, six)
        first = begin * self.taps.positions
        reading.call(kernels.adjoints_tiled, g, first, x, *room, matrices, gx, begin > 0)

    def _transposed(self, packed: Array) -> Array:
        """Packed filters as (entries, 6, taps in K of a column, rows, columns)."""
        count, _, _, rows = packed.shape
        by_columns = packed.reshape(count, 6, -1, self.taps.count // 3, rows)
        return np.ascontiguousarray(by_columns.transpose(0, 1, 3, 4, 2))


def compiled_taps(taps: Taps) -> CompiledTaps:
    """Products with taps by compiled kernels."""
    return TiledTaps(taps) if TiledTaps.suits(taps) else CompiledTaps(taps)


@dataclass(frozen=True)
class Section:
    """Results at leading indices [begin, end), and the products that make them of some lines of the signal alone."""

    begin: int
    end: int
    products: CompiledTaps
    lines: Integers | None = None
    """Those lines; None for all."""


def sections(products: CompiledTaps, elements: int) -> Iterator[Section]:
    """All results, in sections of at most so many elements of a row where tiles can be had by lines, or in one."""
    t = products.taps
    pieces = -(-t.leading // max(1, elements // t.positions))
    step = max(-(-t.leading // max(1, pieces)), LEAST * (t.sizes[0] - 1))
    by_lines = isinstance(products, TiledTaps) and step < t.leading and t.stride[0] == 1
    if not by_lines or step + t.sizes[0] - 1 > t.lengths[0]:
        yield Section(0, t.leading, products)
        return
    before, beyond = t.sizes[0] - 1 - t.sizes[0] // 2, t.sizes[0] // 2
    for begin in range(0, t.leading, step):
        end = min(begin + step, t.leading)
        lines = extended(np.arange(begin - before, end + beyond), t.lengths[0], t.periodic[0])
        after, lines = before - int(np.count_nonzero(lines[:before] < 0)), lines[lines >= 0]
        taps = replace(
            t,
            lengths=(len(lines), *t.lengths[1:]),
            out_lengths=(len(lines), *t.out_lengths[1:]),
            periodic=(False, *t.periodic[1:]),
        )
        yield Section(begin, end, TiledTaps(taps, after), lines)
