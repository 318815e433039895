"""Three taps along the first axis by F(4, 3): four lines of positions by six products, in tiles that stay in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, zeros
from hcnn_core._engines.cpu.direct import Chunk, DirectProducts, entries_of, evenly, nothing, taps_of_x
from hcnn_core._engines.cpu.kernels import winograd as kernels
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.taps import LEAST_IN_TILES, Integers, Taps, extended, tiles_cover, tiles_pay
from hcnn_core._threads import STEP, parallel_for
from hcnn_core._tuning import Tuning
from hcnn_core.backend import Array


class WinogradProducts(DirectProducts):
    """Results and cotangents in tiles, for taps that these suit; the other axes are convolved within each product."""

    def __init__(self, taps: Taps, tuning: Tuning, after: int = 0) -> None:
        super().__init__(taps, tuning)
        self.after = after

    @staticmethod
    def suits(t: Taps) -> bool:
        """Whether tiles cover the first axis, and vectors the others."""
        several = len(t.sizes) > 1 and t.out_lengths[-1] * t.batch >= LEAST_IN_TILES
        return t.tiled and several and tiles_cover(t.sizes[0], t.stride[0], t.out_lengths[0])

    @cached_property
    def _within(self) -> Taps:
        """The other axes."""
        t = self.taps
        return Taps(t.lengths[1:], t.out_lengths[1:], t.sizes[1:], t.stride[1:], t.periodic[1:], t.batch)

    def pack(self, filters: Array) -> Array:
        """Factors of filters (entries, rows, taps * columns) as the kernels read them: (entries, 6, K, rows).

        K counts the taps along the other axes, those of one column after the other.
        """
        count, rows = filters.shape[:2]
        groups = self._groups(filters, rows)
        packed = empty((count, 6, groups.shape[1] * groups.shape[2], rows), filters.dtype)

        def work(i: int, j: int) -> None:  # of taps that lie in the order of the factors, which vectors take
            kernels.factors_of_tiles(np.ascontiguousarray(groups[i:j]), packed[i:j])

        parallel_for(work, count, packed.size)
        return packed

    def _groups(self, filters: Array, rows: int) -> Array:
        """Filters as (entries, columns, taps along the other axes, 3, rows); tiles read samples forwards."""
        split = filters.reshape(len(filters), rows, 3, self.taps.count // 3, -1)
        return split.transpose(0, 4, 3, 2, 1)[:, :, :, ::-1]

    def chunks(self, pieces: int) -> list[Chunk]:
        """Parts of the results, about so many: four lines each, or a part of them."""
        size, whole, tiles = self._within.positions, self.taps.positions, self.taps.leading // 4
        parts = evenly(self._within.leading, min(self._within.leading, -(-pieces // tiles)), self._aligned)
        return [
            Chunk(begin, end, first=4 * tile * whole + begin * size, n=(end - begin) * size, lines=4, apart=whole)
            for tile in range(tiles)
            for begin, end in parts
        ]

    @property
    def _aligned(self) -> int:
        """Indices of the second axis after which positions are as far in a line of the cache, in any dtype."""
        return STEP // math.gcd(STEP, self._within.positions)

    def apply(self, xp: Any, x: Array, filters: Array, bias: Array | None = None) -> Array:
        """Products with filters; with a bias (rows,), the ELU of their sum."""
        t = self.taps
        if not tiles_pay(filters.shape[2], filters.shape[1], self.tuning):
            return super().apply(xp, x, filters, bias)
        matrices = self.pack(filters)
        y = empty((x.shape[0], filters.shape[1], *t.out_lengths, t.batch), dtype=x.dtype)
        lines, added = y.reshape(*y.shape[:2], t.leading, -1), nothing(x.dtype) if bias is None else bias
        parts = self._parts(x.shape[1])

        def work(part: slice, first: int, last: int) -> None:
            out, factors = lines[part, :, 4 * first : 4 * last], entries_of(matrices, part)
            for begin, end in parts:
                self._apply_tiles(
                    out, begin * self._within.positions, x[part], factors, (first, last), begin, end, added
                )

        self._each_chunk(work, x, filters.shape[1], t.leading // 4)
        return y

    def apply_transpose(self, xp: Any, g: Array, filters: Array) -> Array:
        """That of taps which lie the other way round, where their middle is one of them."""
        t, (count, rows) = self.taps, filters.shape[:2]
        centred = all(size % 2 == 1 and r == 1 for size, r in zip(t.sizes, t.stride, strict=True))
        if not centred or not tiles_pay(rows * t.count, filters.shape[2] // t.count, self.tuning):
            return super().apply_transpose(xp, g, filters)
        back = filters.reshape(count, rows, t.count, -1).transpose(0, 3, 2, 1)[:, :, ::-1]
        return self.apply(xp, g, back.reshape(count, -1, t.count * rows))

    def apply_chunk(self, out: Array, x: Array, matrices: Array, chunk: Chunk) -> None:
        """Write the results of a chunk to out (entries, rows, lines, positions)."""
        tile = chunk.first // (4 * chunk.apart)
        self._apply_tiles(out, 0, x, matrices, (tile, tile + 1), chunk.begin, chunk.end, nothing(x.dtype))

    def _apply_tiles(
        self, out: Array, at: int, x: Array, matrices: Array, tiles: tuple[int, int], begin: int, end: int, bias: Array
    ) -> None:
        """Write the results of some tiles at indices [begin, end) of the second axis to out, from position `at` on."""
        columns = x.shape[1]
        (n, table, starts, runs), elements = reading_of(self._within, columns, begin, end, x.itemsize)
        count = max(1, min(tiles[1] - tiles[0], self.tuning.winograd_elements // (6 * columns * elements)))
        starts = (starts + np.arange(count)[:, None] * (columns * elements)).reshape(-1)
        room = empty((6, count, columns, elements), x.dtype)
        products = empty(
            (6, min(self.tuning.winograd_rows, out.shape[1]), min(self.tuning.winograd_positions, n * starts.size)),
            x.dtype,
        )
        x, six = self._by_lines(x), self._six[slice(*tiles)]
        missing, places = zeros((x.shape[3],), x.dtype), np.empty((2, 6), np.int64)
        kernels.apply_tiled(out, at, x, six, missing, n, table, starts, runs, places, room, products, matrices, bias)

    def _parts(self, columns: int) -> list[tuple[int, int]]:
        """Parts of the second axis that are worked on at once."""
        leading, pieces = self._within.leading, -(-6 * columns * self.taps.positions // self.tuning.winograd_elements)
        return evenly(leading, min(leading, pieces))

    def pack_back(self, filters: Array) -> Array:
        """Factors of filters as (entries, 6, taps in K of a column, rows, columns)."""
        packed = self.pack(filters)
        by_columns = packed.reshape(*packed.shape[:2], -1, self.taps.count // 3, packed.shape[3])
        return np.ascontiguousarray(by_columns.transpose(0, 1, 3, 4, 2))

    def unpack(self, cotangent: Array) -> Array:
        """The transpose of `pack`."""
        count, _, terms, rows = cotangent.shape
        filters = np.empty((count, rows, 3 * terms), cotangent.dtype)
        groups = self._groups(filters, rows)

        def work(i: int, j: int) -> None:
            taps = np.empty(groups[i:j].shape, cotangent.dtype)
            kernels.factors_transpose(cotangent[i:j], taps)
            groups[i:j] = taps

        parallel_for(work, count, cotangent.size)
        return filters

    def blank(self, count: int, columns: int, rows: int, dtype: Any) -> Array:
        return zeros((count, 6, columns * self.taps.count // 3, rows), dtype)

    def adjoints(
        self, g: Array, x: Array | None, filters: Array | None, onto: Array | None
    ) -> tuple[Array | None, Array | None]:
        """As of other products, from one pass over the tiles of g.

        That is of as many results as it has, from leading index `after` on.
        """
        t, (count, rows), dtype = self.taps, g.shape[:2], g.dtype
        if filters is not None:
            columns = filters.shape[4]
        elif x is not None:
            columns = x.shape[1]
        else:
            return None, None
        gx = empty((0 if filters is None else count, columns, *t.lengths, t.batch), dtype)
        total = np.empty((0,) * 4, dtype) if onto is None else onto
        matrices = np.empty((0,) * 5, dtype) if filters is None else filters
        g = g.reshape(count, rows, g.shape[2], -1)
        parts = self._parts(columns)

        def work(first: int, last: int) -> None:
            part = slice(first, last)
            for begin, end in parts:
                signal, packed = (gx if x is None else x)[part], entries_of(matrices, part)
                self._add_adjoints(g[part], signal, total[part], packed, gx[part], begin, end)

        parallel_for(work, count, g.size * t.count)
        return None if filters is None else gx, onto

    def _add_adjoints(self, g: Array, x: Array, total: Array, matrices: Array, gx: Array, begin: int, end: int) -> None:
        """What g makes at indices [begin, end) of the second axis."""
        reading, elements = reading_of(self._within, x.shape[1], begin, end, g.itemsize)
        x, gx, six, size = self._by_lines(x), self._by_lines(gx), self._six[: g.shape[2] // 4], self._within.positions
        cotangents = empty((6, g.shape[1], min(self.tuning.winograd_positions, (end - begin) * size)), g.dtype)
        tiles, sums = (empty((6, x.shape[1], elements), g.dtype) for _ in range(2))
        missing, places = zeros((2, x.shape[3]), g.dtype), np.empty((4, 6), np.int64)
        rows = np.arange(g.shape[1]) * cotangents.strides[1]
        kernels.adjoints_tiled(
            g, begin * size, x, six, missing, *reading, places, tiles, cotangents, rows, total, sums, matrices, gx,
            begin > 0,
        )  # fmt: skip

    @cached_property
    def _six(self) -> Integers:
        """Lines of the signal that each tile reads (tiles, 6), -1 where there is none."""
        t = self.taps
        index = self.after - 1 + 4 * np.arange(-(-t.lengths[0] // 4))[:, None] + np.arange(6)
        return extended(index, t.lengths[0], t.periodic[0])

    def _by_lines(self, x: Array) -> Array:
        """An array (entries, columns, *lengths, batch) as (entries, columns, lines, elements of one)."""
        return np.ascontiguousarray(x).reshape(*x.shape[:3], math.prod(x.shape[3:]))


@lru_cache(maxsize=1024)
def reading_of(
    t: Taps, columns: int, begin: int, end: int, itemsize: int
) -> tuple[tuple[int, Integers, Integers, Integers], int]:
    """`taps_of_x` as kernels want it: positions, table, starts, runs (where to, from where or -1, how many).

    With columns and the longest run at lines of the cache. Second, the elements of a column.
    """
    r, lanes = taps_of_x(t, columns, begin, end, itemsize), VECTOR_BYTES // itemsize
    runs = np.array(
        [
            (line * r.elements + to * r.inner, source * r.source_line + at * r.inner if min(source, at) >= 0 else -1, n)
            for line, (source, first, last) in enumerate(r.lines)
            for to, at, n in r.runs[first:last]
        ]
    ) * (1, 1, r.inner)
    lead = -runs[np.argmax(runs[:, 2]), 0] % lanes
    elements = -(-(lead + len(r.lines) * r.elements) // lanes) * lanes
    table = r.table.reshape(columns, -1)[:1] + np.arange(columns)[:, None] * (elements * itemsize)
    return (r.n, table.reshape(-1), r.starts + lead, runs + np.array((lead, 0, 0))), int(elements)


def products_for(taps: Taps, tuning: Tuning) -> DirectProducts:
    """Products with taps by compiled kernels."""
    return WinogradProducts(taps, tuning) if WinogradProducts.suits(taps) else DirectProducts(taps, tuning)


@dataclass(frozen=True)
class Section:
    """Results at leading indices [begin, end), and the products that make them of some lines of the signal alone."""

    begin: int
    end: int
    products: DirectProducts
    lines: Integers | None = None
    """Those lines; None for all."""


def sections(products: DirectProducts, elements: int) -> Iterator[Section]:
    """All results, in sections of about so many elements of a row where tiles can be had by lines, or in one."""
    t = products.taps
    step = max(elements // t.positions // 4, 1) * 4
    if not isinstance(products, WinogradProducts) or step + 2 > t.lengths[0]:
        yield Section(0, t.leading, products)
        return
    for begin in range(0, t.leading, step):
        end = min(begin + step, t.leading)
        lines = extended(np.arange(begin - 1, end + 1), t.lengths[0], t.periodic[0])
        after, lines = int(lines[0] >= 0), lines[lines >= 0]
        taps = replace(
            t,
            lengths=(len(lines), *t.lengths[1:]),
            out_lengths=(len(lines), *t.out_lengths[1:]),
            periodic=(False, *t.periodic[1:]),
        )
        yield Section(begin, end, WinogradProducts(taps, products.tuning, after), lines)
