"""Winograd's F(4, 3) for three taps along the first axis: four lines of results by six products, in cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, zeros
from hcnn_core._engines.cpu.direct import Block, DirectProducts, entries_of, evenly, no_bias, taps_of_x
from hcnn_core._engines.cpu.kernels import winograd as kernels
from hcnn_core._engines.cpu.kernels.operands import NDArray, Tiling, WinogradWorkspace
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.taps import Integers, Matrices, Taps, extended, tiles_cover, tiles_pay
from hcnn_core._threads import STEP, parallel_for
from hcnn_core._tuning import Tuning

TILED = 0.7
"""Time of a 3-tap filter by F(4, 3), relative to direct products."""


class WinogradProducts(DirectProducts):
    """Results and cotangents by tiles of F(4, 3), which lie along the first axis.

    The other axes are convolved directly within each product.
    """

    def __init__(self, taps: Taps, tuning: Tuning, after: int = 0) -> None:
        """With `after`, `adjoints` takes a g that begins at this leading index."""
        super().__init__(taps, tuning)
        self.after = after

    @staticmethod
    def supports(t: Taps, tuning: Tuning) -> bool:
        """Whether tiles cover the first axis, and the others are long enough for vectors."""
        several = len(t.sizes) > 1 and t.out_lengths[-1] * t.batch >= tuning.winograd_line
        return t.tiled and several and tiles_cover(t.sizes[0], t.stride[0], t.out_lengths[0])

    @cached_property
    def _within(self) -> Taps:
        """The other axes."""
        t = self.taps
        return Taps(t.lengths[1:], t.out_lengths[1:], t.sizes[1:], t.stride[1:], t.periodic[1:], t.batch)

    def pack(self, filters: NDArray) -> NDArray:
        """Filter transform, as kernels read it: (entries, rows, taps * columns) -> (entries, 6, K, rows).

        K counts the taps along the other axes, column by column.
        """
        count, rows = filters.shape[:2]
        groups = self._groups(filters, rows)
        packed = empty((count, 6, groups.shape[1] * groups.shape[2], rows), filters.dtype)

        def work(i: int, j: int) -> None:  # a contiguous copy, for vectors
            kernels.transform_filters(np.ascontiguousarray(groups[i:j]), packed[i:j])

        parallel_for(work, count, packed.size)
        return packed

    def _groups(self, filters: NDArray, rows: int) -> NDArray:
        """Return filters as (entries, columns, taps along the other axes, 3, rows), reversed: tiles correlate."""
        split = filters.reshape(len(filters), rows, 3, self.taps.count // 3, -1)
        return split.transpose(0, 4, 3, 2, 1)[:, :, :, ::-1]

    def blocks(self, count: int) -> list[Block]:
        """Cut the results into about `count` blocks: the four lines of a tile, or some positions of these."""
        size, whole, tiles = self._within.positions, self.taps.positions, self.taps.leading // 4
        bounds = evenly(self._within.leading, min(self._within.leading, -(-count // tiles)), self._aligned)
        return [
            Block(begin, end, first=4 * tile * whole + begin * size, n=(end - begin) * size, lines=4, step=whole)
            for tile in range(tiles)
            for begin, end in bounds
        ]

    @property
    def _aligned(self) -> int:
        """Indices of the second axis whose positions fill whole cache lines, in any dtype."""
        return STEP // math.gcd(STEP, self._within.positions)

    def apply(self, xp: Any, x: NDArray, filters: NDArray, bias: NDArray | None = None) -> NDArray:
        """As `DirectProducts.apply`."""
        t = self.taps
        if not tiles_pay(filters.shape[2], filters.shape[1], self.tuning):
            return super().apply(xp, x, filters, bias)
        matrices = self.pack(filters)
        y = empty((x.shape[0], filters.shape[1], *t.out_lengths, t.batch), dtype=x.dtype)
        lines, added = y.reshape(*y.shape[:2], t.leading, -1), no_bias(x.dtype) if bias is None else bias
        bounds = self._block_bounds(x.shape[1])

        def work(entries: slice, first: int, last: int) -> None:
            out, factors = lines[entries, :, 4 * first : 4 * last], entries_of(matrices, entries)
            for begin, end in bounds:
                self._apply_tiles(
                    out, begin * self._within.positions, x[entries], factors, (first, last), begin, end, added
                )

        self._each_block(work, x, filters.shape[1], t.leading // 4)
        return y

    def apply_transpose(self, xp: Any, g: NDArray, filters: NDArray) -> NDArray:
        """As `apply` of the reversed taps, where they are centred."""
        t, (count, rows) = self.taps, filters.shape[:2]
        if not self._tiles_back(rows * t.count, filters.shape[2] // t.count):
            return super().apply_transpose(xp, g, filters)
        back = filters.reshape(count, rows, t.count, -1).transpose(0, 3, 2, 1)[:, :, ::-1]
        return self.apply(xp, g, back.reshape(count, -1, t.count * rows))

    def _tiles_back(self, terms: int, rows: int) -> bool:
        """Whether the transpose goes by tiles, with sums of `terms` terms in `rows` rows."""
        t = self.taps
        centred = all(size % 2 == 1 and r == 1 for size, r in zip(t.sizes, t.stride, strict=True))
        return centred and tiles_pay(terms, rows, self.tuning)

    def _sums_of_a_tap(self, matrices: Matrices, line: int) -> tuple[float, float, float]:
        """As `DirectProducts`, times `TILED` for maps by tiles: all three maps for spectra."""
        m, count = matrices, self.taps.count
        of_y, of_x, of_w = super()._sums_of_a_tap(m, line)
        return (
            of_y * (TILED if m.of_spectra or tiles_pay(count * m.columns, m.rows, self.tuning) else 1),
            of_x * (TILED if m.of_spectra or self._tiles_back(count * m.rows, m.columns) else 1),
            of_w * (TILED if m.of_spectra else 1),
        )

    def apply_block(self, out: NDArray, x: NDArray, matrices: NDArray, block: Block) -> None:
        """Write the results of a block to out (entries, rows, lines, positions)."""
        tile = block.first // (4 * block.step)
        self._apply_tiles(out, 0, x, matrices, (tile, tile + 1), block.begin, block.end, no_bias(x.dtype))

    def _apply_tiles(
        self,
        out: NDArray,
        at: int,
        x: NDArray,
        matrices: NDArray,
        tiles: tuple[int, int],
        begin: int,
        end: int,
        bias: NDArray,
    ) -> None:
        """Write the results of some tiles at indices [begin, end) of the second axis to out, from position `at` on."""
        columns = x.shape[1]
        (n, table, starts, segments), elements = line_table(self._within, columns, begin, end, x.itemsize)
        count = max(1, min(tiles[1] - tiles[0], self.tuning.winograd_elements // (6 * columns * elements)))
        starts = (starts + np.arange(count)[:, None] * (columns * elements)).reshape(-1)
        rows, positions = min(self.tuning.winograd_rows, out.shape[1]), self.tuning.winograd_positions
        x = self._by_lines(x)
        workspace = WinogradWorkspace(
            missing=zeros((x.shape[3],), x.dtype),
            places=np.empty((2, 6), np.int64),
            inputs=empty((6, count, columns, elements), x.dtype),
            outputs=empty((6, rows, min(positions, n * starts.size)), x.dtype),
            sums=no_bias(x.dtype),
        )
        tiling = Tiling(self._six[slice(*tiles)], n, table, starts, segments)
        kernels.apply_tiled(out, at, x, tuple(tiling), tuple(workspace), matrices, bias)

    def _block_bounds(self, columns: int) -> list[tuple[int, int]]:
        """Begin and end of the blocks of the second axis that are worked on at once."""
        leading, count = self._within.leading, -(-6 * columns * self.taps.positions // self.tuning.winograd_elements)
        return evenly(leading, min(leading, count))

    def pack_back(self, filters: NDArray) -> NDArray:
        """Filter transform for adjoints, (entries, 6, taps of a column, rows, columns)."""
        packed = self.pack(filters)
        # (entries, 6, columns * taps of a column, rows) -> (entries, 6, taps of a column, rows, columns)
        by_columns = packed.reshape(*packed.shape[:2], -1, self.taps.count // 3, packed.shape[3])
        return np.ascontiguousarray(by_columns.transpose(0, 1, 3, 4, 2))

    def unpack(self, cotangent: NDArray) -> NDArray:
        """Return the transpose of `pack`: (entries, 6, K, rows) -> (entries, rows, taps * columns)."""
        count, _, terms, rows = cotangent.shape
        filters = np.empty((count, rows, 3 * terms), cotangent.dtype)
        groups = self._groups(filters, rows)

        def work(i: int, j: int) -> None:
            taps = np.empty(groups[i:j].shape, cotangent.dtype)
            kernels.transform_filters_transpose(cotangent[i:j], taps)
            groups[i:j] = taps

        parallel_for(work, count, cotangent.size)
        return filters

    def blank(self, count: int, columns: int, rows: int, dtype: Any) -> NDArray:
        return zeros((count, 6, columns * self.taps.count // 3, rows), dtype)

    def adjoints(
        self, g: NDArray, x: NDArray | None, filters: NDArray | None, onto: NDArray | None
    ) -> tuple[NDArray | None, NDArray | None]:
        """As `DirectProducts.adjoints`, both in one pass over the tiles of g, which begins at leading index `after`."""
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
        bounds = self._block_bounds(columns)

        def work(first: int, last: int) -> None:
            entries = slice(first, last)
            for begin, end in bounds:
                signal, packed = (gx if x is None else x)[entries], entries_of(matrices, entries)
                self._add_adjoints(g[entries], signal, total[entries], packed, gx[entries], begin, end)

        parallel_for(work, count, g.size * t.count)
        return None if filters is None else gx, onto

    def _add_adjoints(
        self, g: NDArray, x: NDArray, total: NDArray, matrices: NDArray, gx: NDArray, begin: int, end: int
    ) -> None:
        """Add the cotangents that g makes at indices [begin, end) of the second axis."""
        table, elements = line_table(self._within, x.shape[1], begin, end, g.itemsize)
        x, gx, size = self._by_lines(x), self._by_lines(gx), self._within.positions
        workspace = WinogradWorkspace(
            missing=zeros((2, x.shape[3]), g.dtype),
            places=np.empty((4, 6), np.int64),
            inputs=empty((6, x.shape[1], elements), g.dtype),
            outputs=empty((6, g.shape[1], min(self.tuning.winograd_positions, (end - begin) * size)), g.dtype),
            sums=empty((6, x.shape[1], elements), g.dtype),
        )
        tiling = Tiling(self._six[: g.shape[2] // 4], *table)
        rows = np.arange(g.shape[1]) * workspace.outputs.strides[1]
        kernels.adjoints_tiled(
            g, begin * size, x, tuple(tiling), tuple(workspace), rows, total, matrices, gx, begin > 0
        )  # fmt: skip

    @cached_property
    def _six(self) -> Integers:
        """Lines of the signal that each tile reads (tiles, 6), -1 for zeros."""
        t = self.taps
        index = self.after - 1 + 4 * np.arange(-(-t.lengths[0] // 4))[:, None] + np.arange(6)
        return extended(index, t.lengths[0], t.periodic[0])

    def _by_lines(self, x: NDArray) -> NDArray:
        """(entries, columns, *lengths, batch) -> (entries, columns, lines, elements of a line)."""
        return np.ascontiguousarray(x).reshape(*x.shape[:3], math.prod(x.shape[3:]))


@lru_cache(maxsize=1024)
def line_table(
    t: Taps, columns: int, begin: int, end: int, itemsize: int
) -> tuple[tuple[int, Integers, Integers, Integers], int]:
    """`taps_of_x` as the last four fields of a `Tiling`, and second the elements of a column.

    Columns, and the longest segment, begin at cache lines.
    """
    r, lanes = taps_of_x(t, columns, begin, end, itemsize), VECTOR_BYTES // itemsize
    segments = np.array(
        [
            (line * r.elements + to * r.inner, source * r.source_line + at * r.inner if min(source, at) >= 0 else -1, n)
            for line, (source, first, last) in enumerate(r.lines)
            for to, at, n in r.segments[first:last]
        ]
    ) * (1, 1, r.inner)
    lead = -segments[np.argmax(segments[:, 2]), 0] % lanes
    elements = -(-(lead + len(r.lines) * r.elements) // lanes) * lanes
    table = r.offsets.reshape(columns, -1)[:1] + np.arange(columns)[:, None] * (elements * itemsize)
    return (r.n, table.reshape(-1), r.starts + lead, segments + np.array((lead, 0, 0))), int(elements)


def products_for(taps: Taps, tuning: Tuning) -> DirectProducts:
    """Return the products by compiled kernels that suit the taps."""
    return WinogradProducts(taps, tuning) if WinogradProducts.supports(taps, tuning) else DirectProducts(taps, tuning)


@dataclass(frozen=True)
class LeadingBlock:
    """Results at leading indices [begin, end), and the products that make them from some lines of the signal."""

    begin: int
    end: int
    products: DirectProducts
    lines: Integers | None = None
    """Those lines, in order; None for all lines."""


def leading_blocks(products: DirectProducts, elements: int) -> Iterator[LeadingBlock]:
    """Cut the results of F(4, 3) into blocks of about `elements` elements of a row; other products are one block."""
    t = products.taps
    step = max(elements // t.positions // 4, 1) * 4
    if not isinstance(products, WinogradProducts) or step + 2 > t.lengths[0]:
        yield LeadingBlock(0, t.leading, products)
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
        yield LeadingBlock(begin, end, WinogradProducts(taps, products.tuning, after), lines)
