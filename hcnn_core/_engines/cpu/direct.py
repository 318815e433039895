"""Direct convolution by indirect GEMM: filter matrices times the taps around every position, read where they lie."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu import register_tiles
from hcnn_core._engines.cpu.allocator import empty, zeros
from hcnn_core._engines.cpu.kernels import direct as kernels
from hcnn_core._engines.cpu.kernels.gemm import lines_at_once
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.transpose import contiguous
from hcnn_core._engines.generic.im2col import Im2col
from hcnn_core._engines.taps import (
    Integers,
    Matrices,
    Taps,
    batch_as_axis,
    extended,
    line_starts,
    offset_table,
    outputs_met,
    phases_met,
    samples_read,
    untapped,
)
from hcnn_core._threads import parallel_for, threads_for
from hcnn_core._tuning import Tuning, Units


@dataclass(frozen=True)
class Block:
    """Results that are made at once: some lines of n positions."""

    begin: int
    """First index of the axis that blocks are cut along."""
    end: int
    first: int
    """Position where the first line begins."""
    n: int
    lines: int = 1
    step: int = 0
    """Positions from one line to the next."""


class DirectProducts:
    """Products with the taps of a signal. Each entry is extended by its boundary once; sums stay in registers."""

    def __init__(self, taps: Taps, tuning: Tuning) -> None:
        self.taps, self.tuning = taps if taps.sizes else untapped(taps.batch), tuning

    def apply(self, xp: Any, x: NDArray, filters: NDArray, bias: NDArray | None = None) -> NDArray:
        """Multiply the taps of x by filters; with a bias (rows,), take the ELU of the sum.

        (entries, rows, taps * columns) @ (entries, taps * columns, positions) -> (entries, rows, positions)
        """
        t, matrices = self.taps, DirectProducts.pack(self, filters)
        y = empty((x.shape[0], filters.shape[1], *t.out_lengths, t.batch), dtype=x.dtype)
        flat, added = y.reshape(*y.shape[:2], -1), no_bias(x.dtype) if bias is None else bias

        def work(entries: slice, begin: int, end: int) -> None:
            first, factors = begin * t.positions, entries_of(matrices, entries)
            self._apply_between(flat[entries], first, x[entries], factors, begin, end, added)

        self._each_block(work, x, filters.shape[1], t.leading)
        return y

    def pack(self, filters: NDArray) -> NDArray:
        """Return filters as kernels read them: (entries, rows, taps * columns) -> (entries, columns * taps, rows)."""
        count, rows = filters.shape[:2]
        return _merged(filters.reshape(count, rows, self.taps.count, -1).transpose(0, 3, 2, 1))

    def blocks(self, count: int) -> list[Block]:
        """Cut the results into about `count` blocks."""
        size, bounds = self.taps.positions, evenly(self.taps.leading, min(self.taps.leading, count))
        return [Block(begin, end, first=begin * size, n=(end - begin) * size) for begin, end in bounds]

    def apply_block(self, out: NDArray, x: NDArray, matrices: NDArray, block: Block) -> None:
        """Write the results of a block to out (entries, rows, lines, positions)."""
        flat = out.reshape(*out.shape[:2], -1)
        self._apply_between(flat, 0, x, matrices, block.begin, block.end, no_bias(x.dtype))

    def _apply_between(
        self, out: NDArray, first: int, x: NDArray, matrices: NDArray, begin: int, end: int, bias: NDArray
    ) -> None:
        """Write the results for leading indices [begin, end) to out (entries, rows, positions), from `first` on."""
        table = taps_of_x(self.taps, x.shape[1], begin, end, x.itemsize)
        table.apply(out, first, x, matrices, bias)

    def pack_back(self, filters: NDArray) -> NDArray:
        """Return filters as `adjoints` reads them."""
        return filters

    def blank(self, count: int, columns: int, rows: int, dtype: Any) -> NDArray | None:
        """Zeros to which several calls of `adjoints` add the cotangent of filters; None if there is one call."""
        return None

    def unpack(self, cotangent: NDArray) -> NDArray:
        """Return the cotangent of filters (entries, rows, taps * columns), from what `adjoints` returns."""
        return cotangent

    def adjoints(
        self, g: NDArray, x: NDArray | None, filters: NDArray | None, onto: NDArray | None
    ) -> tuple[NDArray | None, NDArray | None]:
        """Cotangents of x, if filters are given, and of filters, if x is.

        Filters come from `pack_back`, and their cotangent goes to `unpack`. It is added to `onto`, from `blank`: here
        None, since one call makes all.
        """
        of_x = None if filters is None else self.apply_transpose(np, g, filters)
        return of_x, None if x is None else self.correlate(np, g, x)

    def apply_transpose(self, xp: Any, g: NDArray, filters: NDArray) -> NDArray:
        """Apply the transpose in x: each polyphase component of x is a product with the taps that reach it."""
        t, (count, rows) = self.taps, g.shape[:2]
        if t.uneven:
            return Im2col(t, self.tuning).apply_transpose(xp, g, filters)
        # of each phase: (entries, columns, rows * taps) @ (entries, rows * taps, positions)
        filters = np.reshape(filters, (-1, rows, t.count, filters.shape[2] // t.count))
        columns, phases = filters.shape[3], phases_met(t)
        met_by_all = all(r <= size for r, size in zip(t.stride, t.sizes, strict=True))
        x = (empty if met_by_all else zeros)((count, columns, *t.lengths, t.batch), dtype=g.dtype)
        flat = x.reshape(count, columns, -1)
        if math.prod(t.stride) > 1:
            met = [filters[:, :, taps].reshape(len(filters), -1, 1, columns) for _, taps in phases]
            filters = np.concatenate(met, axis=1)
        matrices = _merged(filters)

        def work(entries: slice, begin: int, end: int) -> None:
            table, components, targets = _taps_of_g(t, rows, begin, end, g.itemsize)
            factors = entries_of(matrices, entries)
            if math.prod(t.stride) == 1:
                table.apply(flat[entries], int(targets[0]), g[entries], factors, no_bias(g.dtype))
                return
            workspace = empty((columns, table.n * lines_at_once(g, table.n)), dtype=g.dtype)
            signal, taps = table.operands(g[entries])
            stride = t.stride[-1] * t.batch
            kernels.apply_strided(flat[entries], signal, taps, factors, components, targets, stride, workspace)

        self._each_block(work, g, columns, -(-t.lengths[0] // t.stride[0]))
        return x

    def correlate(self, xp: Any, g: NDArray, x: NDArray) -> NDArray:
        """Return the transpose of `apply` in the filters: inner products of the taps of x with g.

        (entries, columns * taps, positions) @ (entries, positions, rows), summed over blocks of positions
        """
        t, (count, columns), rows = self.taps, x.shape[:2], g.shape[1]
        if is_merged(t) and not np.isfinite(x).all():  # which zeros between lines of g would make NaN
            return Im2col(t, self.tuning).correlate(xp, g, x)
        flat = np.ascontiguousarray(g).reshape(count, rows, -1)
        bounds = self._bounds(x, self._elements(x, rows), t.leading)
        totals = zeros((len(bounds), count, columns * t.count, rows), x.dtype)

        def work(entries: slice, begin: int, end: int) -> None:
            total = totals[[first for first, _ in bounds].index(begin), entries]
            table, cotangent, first = taps_of_x(t, columns, begin, end, x.itemsize), flat[entries], begin * t.positions
            if table.merged:
                whole = zeros((len(cotangent), rows, len(table.starts) * table.n), x.dtype)
                results = table.results_of(whole)
                results[...] = cotangent[..., first : end * t.positions].reshape(results.shape)
                cotangent, first = whole, 0
            kernels.correlate(cotangent, first, *table.operands(x[entries]), total)

        self._each_block(work, x, rows, t.leading)
        total: NDArray = totals[0] if len(bounds) == 1 else totals.sum(axis=0)
        # (entries, columns * taps, rows) -> (entries, rows, taps * columns)
        return contiguous(total.reshape(count, columns, t.count, rows).transpose(0, 3, 2, 1)).reshape(count, rows, -1)

    def units(self, matrices: Matrices) -> Units:
        """Multiply-adds of full register tiles, and copies of the extended signal and of its cotangent."""
        m, t = matrices, self.taps
        line, phases = t.out_lengths[-1] * t.batch, math.prod(t.stride)
        lines = m.entries * t.results / line
        if is_merged(t):
            line, lines = t.out_lengths[-2] * (line + (t.sizes[-1] - 1) * t.batch), lines / t.out_lengths[-2]
        samples, results = m.entries * m.columns * t.samples, m.entries * m.rows * t.results
        result, of_x, of_w = self._sums_of_a_tap(m, line)
        units: Units = defaultdict(
            float,
            mac=lines * t.count * (result + (0 if t.uneven else of_x) + of_w),
            copy=samples * (t.count > 1) + results * phases,  # each phase of the cotangent of x reads the result once
        )
        if phases > 1:
            in_runs = m.of_spectra and t.batch >= register_tiles.LANES  # because the batch is innermost
            units["copy" if in_runs else "scattered"] += samples
        if t.uneven:  # no compiled kernel computes the transpose
            for name, number in Im2col(t, self.tuning).units(m).items():
                units[name] += number
        return units

    def _sums_of_a_tap(self, matrices: Matrices, line: int) -> tuple[float, float, float]:
        """Cost of one tap along a line: for the result, the cotangent of x, and that of w."""
        rows, columns, t = matrices.rows, matrices.columns, self.taps
        across = batch_as_axis(t) if len(t.sizes) == 1 and t.batch > 1 else t
        size = across.sizes[-2] if len(across.sizes) > 1 and across.stride[-2] == 1 else 0
        return (
            columns * register_tiles.sums(rows, line, size),
            rows * register_tiles.sums(columns, line, size),
            register_tiles.sums_of_products(columns, rows, line),
        )

    def _elements(self, source: NDArray, rows: int) -> int:
        """Count the work of products of `rows` rows, in additions. With fewer than 3, reading terms takes longer."""
        return int(source.size) * self.taps.count * max(rows, 3) // self.tuning.macs_per_addition

    def _bounds(self, source: NDArray, elements: int, leading: int) -> list[tuple[int, int]]:
        """Cut the leading axis into blocks: enough for each to fit the cache, and for all threads to have work."""
        count = source.shape[0]
        most, least = self.tuning.extended_elements, self.tuning.positions_per_part
        blocks = max(-(-source.size // (most * count)), -(-threads_for(elements) // count))
        if blocks == 1:
            return [(0, leading)]
        blocks = min(blocks, leading, max(1, leading * self.taps.batch * math.prod(source.shape[3:-1]) // least))
        return evenly(leading, blocks)

    def _each_block(self, work: Callable[[slice, int, int], None], source: NDArray, rows: int, leading: int) -> None:
        """Call work(entries, begin, end) for all entries and blocks, which threads share."""
        elements = self._elements(source, rows)
        # Python takes most of the time of a small product: avoid closures
        if threads_for(elements) == 1 and source.size <= self.tuning.extended_elements:
            work(slice(0, source.shape[0]), 0, leading)
            return
        bounds = self._bounds(source, elements, leading)
        if len(bounds) == 1:
            parallel_for(lambda first, last: work(slice(first, last), *bounds[0]), source.shape[0], elements)
            return

        def each(first: int, last: int) -> None:
            for task in range(first, last):
                entry, block = divmod(task, len(bounds))
                work(slice(entry, entry + 1), *bounds[block])

        parallel_for(each, source.shape[0] * len(bounds), elements)


def evenly(count: int, shares: int, step: int = 1) -> list[tuple[int, int]]:
    """Cut range(count) into shares of nearly equal length; at multiples of `step` if each share can have one."""
    step = step if count >= shares * step else 1
    steps = -(-count // step)
    return list(itertools.pairwise(min(count, steps * i // shares * step) for i in range(shares + 1)))


@dataclass(frozen=True)
class IndirectionTable:
    """Where the taps of some positions lie in an entry that is extended by its boundary.

    The fields are those of `kernels.operands.ExtendedSignal` and `OffsetTable`.
    """

    n: int
    source_line: int
    """Elements of a line of the signal."""
    lines: Integers
    segments: Integers
    starts: Integers
    offsets: Integers
    inner: int
    elements: int
    """Elements of a line of the extended signal."""
    neighbours: NeighbourTable | None = None
    merged: tuple[int, int] | None = None
    """Where two axes make one line (`is_merged`): lines of results, and elements of each; the rest is dropped."""

    def apply(self, out: NDArray, first: int, x: NDArray, matrices: NDArray, bias: NDArray) -> None:
        """Write products with matrices (entries, K, rows) to out (entries, rows, positions), from `first` on."""
        if self.merged:
            whole = empty((*out.shape[:2], len(self.starts) * self.n), out.dtype)
            kernels.apply(whole, 0, *self.operands(x), matrices, bias)
            results = self.results_of(whole)
            out[..., first : first + math.prod(results.shape[2:])].reshape(results.shape)[...] = results
            return
        t = self.neighbours
        if t is None or matrices.shape[2] > 1 or bias.size:
            together = len(self.starts) > 1 and lines_at_once.py_func(x, self.n) > 1
            apply = kernels.apply_together if together else kernels.apply
            apply(out, first, *self.operands(x), matrices, bias)
        else:
            factors = np.empty(t.order.size, x.dtype)
            kernels.apply_to_one(out, first, *t.table.operands(x), matrices, t.order, factors, t.across, t.size)

    def results_of(self, whole: NDArray) -> NDArray:
        """Return the results within merged lines, a view (entries, rows, merged lines, lines, elements)."""
        assert self.merged
        shape = (*whole.shape[:2], len(self.starts), *self.merged)
        strides = (*whole.strides[:2], self.n * whole.itemsize, self.elements * whole.itemsize, whole.itemsize)
        return np.lib.stride_tricks.as_strided(whole, shape, strides)

    def operands(self, x: NDArray) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """`ExtendedSignal` and `OffsetTable` for entries of x (entries, columns, *lengths, batch), as plain tuples."""
        x = (x if x.flags.c_contiguous else np.ascontiguousarray(x)).reshape(*x.shape[:2], -1, self.source_line)
        padded = empty((x.shape[1], len(self.lines), self.elements), dtype=x.dtype)
        return (x, padded, self.lines, self.segments, self.inner), (self.n, self.offsets, self.starts)


@dataclass(frozen=True)
class NeighbourTable:
    """A table for one row of results, where neighbouring lines of positions read the same lines of samples."""

    table: IndirectionTable
    """The taps by lines of samples, then the taps that only the next neighbours read."""
    order: Integers
    """Where these taps stand in the other table."""
    across: int
    """Lines of positions that are neighbours."""
    size: int
    """Lines of samples that each reads."""


@lru_cache(maxsize=1024)
def taps_of_x(t: Taps, columns: int, begin: int, end: int, itemsize: int) -> IndirectionTable:
    """Taps of x around output indices [begin, end) of the leading axis."""
    spans = [(begin, end), *((0, n) for n in t.out_lengths[1:])]
    sources, taps = [], []
    for n, size, r, wrap, span in zip(t.lengths, t.sizes, t.stride, t.periodic, spans, strict=True):
        index, phases_and_indices = samples_read(size, r, *span)
        sources.append(extended(index, n, wrap))
        taps.append(phases_and_indices)
    table = _indirection_table(t, t.lengths, columns, sources, taps, [stop - start for start, stop in spans], itemsize)
    if len(t.sizes) == 1 and t.batch > 1:
        neighbours = taps_of_x(batch_as_axis(t), columns, begin, end, itemsize).neighbours
        return replace(table, neighbours=neighbours)
    return table


@lru_cache(maxsize=1024)
def _taps_of_g(t: Taps, rows: int, begin: int, end: int, itemsize: int) -> tuple[IndirectionTable, Integers, Integers]:
    """Where the cotangents of samples phase + stride * a lie, a in [begin, end) along the leading axis.

    All polyphase components, one after the other. Second, for each (components + 1, 3): its first tap, its first line,
    the samples of a line. Third, the position of each line of samples in x.
    """
    spans = [(begin, end), *((0, -(-n // r)) for n, r in zip(t.lengths[1:], t.stride[1:], strict=True))]
    phases = [phase for phase, _ in phases_met(t)]
    axes = [_axis_of_g(t, k, *span, {phase[k] for phase in phases}) for k, span in enumerate(spans)]
    sources = [source for source, _ in axes]
    tables, targets = [], []
    for phase in phases:
        taps, samples = zip(*(components[p] for (_, components), p in zip(axes, phase, strict=True)), strict=True)
        counts = [len(along) for along in samples]
        table = _indirection_table(t, t.out_lengths, rows, sources, taps, counts, itemsize)
        if min(counts) == 0:
            table = replace(table, starts=table.starts[:0])
        targets.append(line_starts(t.lengths, t.batch, samples))
        tables.append(table)
    begins = np.cumsum([(0, 0), *((one.offsets.size, one.starts.size) for one in tables)], axis=0)
    components = np.column_stack((begins, [*(one.n // t.batch for one in tables), 0]))
    starts, offsets = (np.concatenate([getattr(one, name) for one in tables]) for name in ("starts", "offsets"))
    table = replace(tables[0], n=max(one.n for one in tables), starts=starts, offsets=offsets)
    if len(t.sizes) == 1 and t.batch > 1:
        table = replace(table, neighbours=_taps_of_g(batch_as_axis(t), rows, begin, end, itemsize)[0].neighbours)
    return table, components, np.concatenate(targets)


def _axis_of_g(
    t: Taps, axis: int, begin: int, end: int, phases: set[int]
) -> tuple[Integers, dict[int, tuple[Integers, Integers]]]:
    """Return the results (1, indices) that an extended axis consists of, and taps and samples by phase of the samples.

    The taps (2, taps) are places in the axis: the results that read the first sample, stride * begin + phase.
    """
    n, r = t.lengths[axis], t.stride[axis]
    met = {p: outputs_met(t.sizes[axis], r, p) for p in phases}
    low, high = min(int(outputs[0]) for outputs in met.values()), max(int(outputs[-1]) for outputs in met.values())
    source = extended(np.arange(begin + low, end + high), t.out_lengths[axis], t.periodic[axis])[None, :]
    return source, {
        p: (np.stack((np.zeros_like(outputs), outputs - low)), np.arange(p + r * begin, min(n, p + r * end), r))
        for p, outputs in met.items()
    }


def _indirection_table(
    t: Taps,
    lengths: Sequence[int],
    columns: int,
    sources: Sequence[Integers],
    taps: Sequence[Integers],
    counts: Sequence[int],
    itemsize: int,
) -> IndirectionTable:
    """Return the table for an extended entry, laid out as (columns, *phases, *indices, batch).

    Parameters
    ----------
    sources
        Per axis, the samples (phases, indices) that the extended axis consists of.
    taps
        Per axis, phase and index (2, taps) of the taps of the first position.
    counts
        Positions along each axis.
    """
    m = len(sources)
    shape = (*(s.shape[0] for s in sources), *(s.shape[1] for s in sources))
    lines = np.zeros(shape[:-1], np.int64)
    for k, source in enumerate(sources[:-1]):
        source = np.expand_dims(source, tuple(a for a in range(2 * m - 1) if a not in (k, m + k)))
        lines = np.where((lines < 0) | (source < 0), -1, lines * lengths[k] + source)
    cut: list[tuple[int, int, int]] = []
    ranges = []
    for samples in sources[-1]:
        first = len(cut)
        cut.extend(segments(samples))
        ranges.append((first, len(cut)))
    ranges_of_lines = np.broadcast_to(np.reshape(ranges, (*(1,) * (m - 1), -1, *(1,) * (m - 1), 2)), (*shape[:-1], 2))

    positions = [np.zeros(1, np.int64)] * m + [np.arange(n) for n in counts]
    of_lines, of_taps = offset_table(shape, t.batch, positions, [k[0] for k in taps] + [k[1] for k in taps])
    line = shape[-1] * t.batch
    table = ((np.arange(columns) * lines.size * line)[:, None] + of_taps).reshape(-1)
    indirection = IndirectionTable(
        n=counts[-1] * t.batch,
        source_line=lengths[-1] * t.batch,
        lines=np.ascontiguousarray(np.concatenate((lines[..., None], ranges_of_lines), axis=-1).reshape(-1, 3)),
        segments=np.asarray(cut),
        starts=of_lines,
        offsets=table * itemsize,
        inner=t.batch,
        elements=line,
    )
    if is_merged(t):
        n, merged = (counts[-2] - 1) * line + indirection.n, (counts[-2], indirection.n)
        return replace(indirection, n=n, starts=of_lines[:: counts[-2]].copy(), merged=merged)
    return replace(indirection, neighbours=_neighbour_table(t, indirection, columns, taps, counts, itemsize))


def is_merged(t: Taps) -> bool:
    """Whether the last two axes make one line, as the last alone would not fill a vector."""
    short = len(t.sizes) > 1 and t.out_lengths[-1] * t.batch < register_tiles.LANES
    return short and max(t.stride) == 1 and t.out_lengths[-2] * t.out_lengths[-1] * t.batch >= register_tiles.LANES


def _neighbour_table(
    t: Taps, table: IndirectionTable, columns: int, taps: Sequence[Integers], counts: Sequence[int], itemsize: int
) -> NeighbourTable | None:
    """Return the table for a row; None unless the last axis but one has enough neighbours, and lines two vectors."""
    sizes = [k.shape[1] for k in taps]
    if len(sizes) == 1 or t.stride[-2] > 1 or sizes[-2] < kernels.TILE_LINES - 1 or counts[-2] < kernels.TILE_LINES:
        return None
    if table.n * itemsize < 2 * VECTOR_BYTES:
        return None
    along = np.moveaxis(np.arange(table.offsets.size).reshape(columns, *sizes), -2, 0)
    order = along[np.argsort(taps[-2][1])].reshape(sizes[-2], -1)
    lines = np.arange(sizes[-2] + kernels.TILE_LINES - 1)[:, None]
    offsets = (table.offsets[order[0]] + lines * table.elements * itemsize).reshape(-1)
    return NeighbourTable(replace(table, offsets=offsets), order.reshape(-1), counts[-2], sizes[-2])


def segments(samples: Integers, step: int = 1) -> Iterator[tuple[int, int, int]]:
    """Cut a list of samples into segments (to, source, count): samples a step apart, or zeros (source -1)."""
    begin = 0
    for i in range(1, len(samples) + 1):
        if i < len(samples) and samples[i] == (samples[i - 1] + step if samples[i - 1] >= 0 else -1):
            continue
        yield begin, int(samples[begin]), i - begin
        begin = i


@lru_cache
def no_bias(dtype: Any) -> NDArray:
    """Return the empty array that stands for no bias."""
    return np.empty(0, dtype)


def entries_of(matrices: NDArray, entries: slice) -> NDArray:
    """Return the matrices of some entries, or the one matrix that all share."""
    return matrices if len(matrices) == 1 else matrices[entries]


def _merged(matrices: NDArray) -> NDArray:
    """Return filters (entries, columns, taps, rows) -> (entries, columns * taps, rows)."""
    return np.ascontiguousarray(matrices).reshape(len(matrices), -1, matrices.shape[3])
