"""Products of filter matrices with the taps around every position: taps read where they lie, by compiled kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, zeros
from hcnn_core._engines.cpu.kernels import direct as kernels
from hcnn_core._engines.cpu.kernels.gemm import lines_at_once
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.generic.im2col import Im2col
from hcnn_core._engines.taps import (
    Integers,
    Taps,
    batch_as_axis,
    extended,
    outputs_met,
    samples_read,
    taps_that_meet,
    untapped,
)
from hcnn_core._threads import PRODUCTS, parallel_for, threads_for
from hcnn_core._tuning import Tuning
from hcnn_core.backend import Array


@dataclass(frozen=True)
class Chunk:
    """Results made at once: lines of n positions, `apart`, of which the first begins at position `first`."""

    begin: int
    end: int
    first: int
    n: int
    lines: int = 1
    apart: int = 0


class DirectProducts:
    """Each entry is extended by its boundary once; sums over taps and columns stay in registers."""

    def __init__(self, taps: Taps, tuning: Tuning) -> None:
        self.taps, self.tuning = taps if taps.sizes else untapped(taps.batch), tuning

    def apply(self, xp: Any, x: Array, filters: Array, bias: Array | None = None) -> Array:
        """Products with filters; with a bias (rows,), the ELU of their sum."""
        t, matrices = self.taps, DirectProducts.pack(self, filters)
        y = empty((x.shape[0], filters.shape[1], *t.out_lengths, t.batch), dtype=x.dtype)
        flat, added = y.reshape(*y.shape[:2], -1), nothing(x.dtype) if bias is None else bias

        def work(part: slice, begin: int, end: int) -> None:
            first, factors = begin * t.positions, entries_of(matrices, part)
            self._apply_part(flat[part], first, x[part], factors, begin, end, added)

        self._each_chunk(work, x, filters.shape[1], t.leading)
        return y

    def pack(self, filters: Array) -> Array:
        """Filters (entries, rows, taps * columns) as the kernels read them, (entries, columns * taps, rows)."""
        count, rows = filters.shape[:2]
        return _merged(filters.reshape(count, rows, self.taps.count, -1).transpose(0, 3, 2, 1))

    def chunks(self, pieces: int) -> list[Chunk]:
        """Parts of the results, about so many."""
        size, parts = self.taps.positions, evenly(self.taps.leading, min(self.taps.leading, pieces))
        return [Chunk(begin, end, first=begin * size, n=(end - begin) * size) for begin, end in parts]

    def apply_chunk(self, out: Array, x: Array, matrices: Array, chunk: Chunk) -> None:
        """Write the results of a chunk to out (entries, rows, lines, positions)."""
        flat = out.reshape(*out.shape[:2], -1)
        self._apply_part(flat, 0, x, matrices, chunk.begin, chunk.end, nothing(x.dtype))

    def _apply_part(self, out: Array, first: int, x: Array, matrices: Array, begin: int, end: int, bias: Array) -> None:
        """Write the results for leading indices [begin, end) to out (entries, rows, positions), from `first` on."""
        reading = taps_of_x(self.taps, x.shape[1], begin, end, x.itemsize)
        reading.apply(out, first, x, matrices, bias)

    def pack_back(self, filters: Array) -> Array:
        """Filters as `adjoints` reads them."""
        return filters

    def blank(self, count: int, columns: int, rows: int, dtype: Any) -> Array | None:
        """What the first of several `adjoints` adds the cotangent of filters to; nothing, where it is the only one."""
        return None

    def unpack(self, cotangent: Array) -> Array:
        """That of filters (entries, rows, taps * columns), from that which `adjoints` makes."""
        return cotangent

    def adjoints(
        self, g: Array, x: Array | None, filters: Array | None, onto: Array | None
    ) -> tuple[Array | None, Array | None]:
        """Cotangents of x, if filters are given, from `pack_back`, and of filters, if x is, for `unpack`.

        The latter is added to `onto`, from `blank`; here that is nothing, since one call makes all.
        """
        of_x = None if filters is None else self.apply_transpose(np, g, filters)
        return of_x, None if x is None else self.correlate(np, g, x)

    def apply_transpose(self, xp: Any, g: Array, filters: Array) -> Array:
        t, (count, rows) = self.taps, g.shape[:2]
        if t.uneven:
            return Im2col(t, self.tuning).apply_transpose(xp, g, filters)
        filters = np.reshape(filters, (-1, rows, t.count, filters.shape[2] // t.count))
        columns, phases = filters.shape[3], _phases_met(t)
        met_by_all = all(r <= size for r, size in zip(t.stride, t.sizes, strict=True))
        x = (empty if met_by_all else zeros)((count, columns, *t.lengths, t.batch), dtype=g.dtype)
        flat = x.reshape(count, columns, -1)
        matrices = np.concatenate([_merged(filters[:, :, taps]) for _, taps in phases], axis=1)

        def work(part: slice, begin: int, end: int) -> None:
            reading, of_phases, targets = _taps_of_g(t, rows, begin, end, g.itemsize)
            factors = entries_of(matrices, part)
            if math.prod(t.stride) == 1:
                reading.apply(flat[part], int(targets[0]), g[part], factors, nothing(g.dtype))
                return
            room = empty((columns, reading.n * lines_at_once(g, reading.n)), dtype=g.dtype)
            apart = t.stride[-1] * t.batch
            reading.call(kernels.apply_apart, flat[part], 0, g[part], factors, of_phases, targets, apart, room)

        self._each_chunk(work, g, columns, -(-t.lengths[0] // t.stride[0]))
        return x

    def correlate(self, xp: Any, g: Array, x: Array) -> Array:
        t, (count, columns), rows = self.taps, x.shape[:2], g.shape[1]
        flat = np.ascontiguousarray(g).reshape(count, rows, -1)
        chunks = self._chunks(x, self._elements(x, rows), t.leading)
        totals = zeros((len(chunks), count, columns * t.count, rows), x.dtype)

        def work(part: slice, begin: int, end: int) -> None:
            total = totals[[first for first, _ in chunks].index(begin), part]
            reading = taps_of_x(t, columns, begin, end, x.itemsize)
            reading.call(kernels.correlate, flat[part], begin * t.positions, x[part], total)

        self._each_chunk(work, x, rows, t.leading)
        total = totals[0] if len(chunks) == 1 else totals.sum(axis=0)
        return total.reshape(count, columns, t.count, rows).transpose(0, 3, 2, 1).reshape(count, rows, -1)

    def _elements(self, source: Array, rows: int) -> int:
        """The work of products with so many rows; of a few, reading the terms takes as long as those."""
        return int(source.size) * self.taps.count * max(rows, 3) // PRODUCTS

    def _chunks(self, source: Array, elements: int, leading: int) -> list[tuple[int, int]]:
        """Parts of the leading axis, as many as cache, or threads for so much work, ask for."""
        count = source.shape[0]
        most, least = self.tuning.extended_elements, self.tuning.positions_per_part
        pieces = max(-(-source.size // (most * count)), -(-threads_for(elements) // count))
        if pieces == 1:
            return [(0, leading)]
        pieces = min(pieces, leading, max(1, leading * self.taps.batch * math.prod(source.shape[3:-1]) // least))
        return evenly(leading, pieces)

    def _each_chunk(self, work: Callable[[slice, int, int], None], source: Array, rows: int, leading: int) -> None:
        """Call work(entries, begin, end) on all entries and chunks, which threads share."""
        elements = self._elements(source, rows)
        if (
            threads_for(elements) == 1 and source.size <= self.tuning.extended_elements
        ):  # short work, of which Python is most
            work(slice(0, source.shape[0]), 0, leading)
            return
        chunks = self._chunks(source, elements, leading)
        if len(chunks) == 1:
            parallel_for(lambda first, last: work(slice(first, last), *chunks[0]), source.shape[0], elements)
            return

        def each(first: int, last: int) -> None:
            for task in range(first, last):
                entry, chunk = divmod(task, len(chunks))
                work(slice(entry, entry + 1), *chunks[chunk])

        parallel_for(each, source.shape[0] * len(chunks), elements)


def evenly(count: int, pieces: int, step: int = 1) -> list[tuple[int, int]]:
    """Cut range(count) into parts of almost one length, at multiples of a step where they have as many."""
    step = step if count >= pieces * step else 1
    steps = -(-count // step)
    return list(itertools.pairwise(min(count, steps * i // pieces * step) for i in range(pieces + 1)))


@dataclass(frozen=True)
class Reading:
    """Where the taps of some positions lie in an entry extended by its boundary; see `_kernels`."""

    n: int
    source_line: int
    lines: Integers
    runs: Integers
    starts: Integers
    table: Integers
    inner: int
    elements: int
    near: Near | None = None

    def apply(self, out: Array, first: int, x: Array, matrices: Array, bias: Array) -> None:
        """Write to out (entries, rows, positions), from `first` on, products with matrices (entries, K, rows)."""
        near = self.near
        if near is None or matrices.shape[2] > 1 or bias.size:
            self.call(kernels.apply, out, first, x, matrices, bias)
        else:
            factors = np.empty(near.order.size, x.dtype)
            near.reading.call(
                kernels.apply_to_one, out, first, x, matrices, near.order, factors, near.across, near.size
            )

    def call(self, kernel: Callable[..., None], results: Array, first: int, x: Array, *others: Any) -> None:
        """Run a kernel on entries of x (entries, columns, *lengths, batch) and results (entries, rows, positions)."""
        x = (x if x.flags.c_contiguous else np.ascontiguousarray(x)).reshape(*x.shape[:2], -1, self.source_line)
        padded = empty((x.shape[1], len(self.lines), self.elements), dtype=x.dtype)
        tables = (self.table, self.starts, self.lines, self.runs)
        kernel(results, first, self.n, x, *tables, self.inner, padded, *others)


@dataclass(frozen=True)
class Near:
    """A reading for one row of sums, where neighbouring lines of positions read the same lines of samples.

    `across` lines at a time are neighbours, and each reads `size` lines of samples. The table goes through these one by
    one, then through those that only the next neighbours read; `order` says where its taps stand in the other table.
    """

    reading: Reading
    order: Integers
    across: int
    size: int


@lru_cache(maxsize=1024)
def taps_of_x(t: Taps, columns: int, begin: int, end: int, itemsize: int) -> Reading:
    """Taps of x around output indices [begin, end) of the leading axis."""
    spans = [(begin, end), *((0, n) for n in t.out_lengths[1:])]
    sources, taps = [], []
    for n, size, r, wrap, span in zip(t.lengths, t.sizes, t.stride, t.periodic, spans, strict=True):
        index, phases_and_indices = samples_read(size, r, *span)
        sources.append(extended(index, n, wrap))
        taps.append(phases_and_indices)
    reading = _read(t, t.lengths, columns, sources, taps, [stop - start for start, stop in spans], itemsize)
    if len(t.sizes) == 1 and t.batch > 1:
        return replace(reading, near=taps_of_x(batch_as_axis(t), columns, begin, end, itemsize).near)
    return reading


@lru_cache(maxsize=1024)
def _phases_met(t: Taps) -> list[tuple[tuple[int, ...], Integers]]:
    """Phases of samples, along all axes, with the taps that take these to a result, where there are some."""
    along = (range(min(r, n)) for r, n in zip(t.stride, t.lengths, strict=True))
    phases = [(phase, taps_that_meet(t, phase)) for phase in itertools.product(*along)]
    return [(phase, taps) for phase, taps in phases if taps.size]


@lru_cache(maxsize=1024)
def _taps_of_g(t: Taps, rows: int, begin: int, end: int, itemsize: int) -> tuple[Reading, Integers, Integers]:
    """Cotangents that reach samples phase + stride * a, a in [begin, end) along the leading axis, phase by phase.

    Second, where taps and lines of each phase begin, and the samples of a line; third, where lines of samples begin.
    """
    phases, axes = [phase for phase, _ in _phases_met(t)], list(zip(t.lengths, t.sizes, t.stride, strict=True))
    first, last = [begin, *(0 for _ in axes[1:])], [end, *(-(-n // r) for n, _, r in axes[1:])]
    met = [{p: outputs_met(size, r, p) for p in {phase[k] for phase in phases}} for k, (_, size, r) in enumerate(axes)]
    least = [min(int(meets[0]) for meets in along.values()) for along in met]
    most = [max(int(meets[-1]) for meets in along.values()) for along in met]
    sources = [
        extended(np.arange(a + low, b + high), n, wrap)[None, :]
        for a, b, low, high, n, wrap in zip(first, last, least, most, t.out_lengths, t.periodic, strict=True)
    ]
    readings, targets = [], []
    for phase in phases:
        taps, counts, samples = [], [], []
        for (n, _, r), p, along, low, a, b in zip(axes, phase, met, least, first, last, strict=True):
            taps.append(np.stack((np.zeros_like(along[p]), along[p] - low)))
            samples.append(np.arange(p + r * a, min(n, p + r * b), r))
            counts.append(len(samples[-1]))
        reading, lines = _read(t, t.out_lengths, rows, sources, taps, counts, itemsize), samples[:-1]
        if min(counts) == 0:
            reading = replace(reading, starts=reading.starts[:0])
        targets.append(np.ravel_multi_index(np.ix_(*lines, samples[-1][:1]), t.lengths).reshape(-1) * t.batch)
        readings.append(reading)
    begins = np.cumsum([(0, 0), *((r.table.size, r.starts.size) for r in readings)], axis=0)
    of_phases = np.column_stack((begins, [*(r.n // t.batch for r in readings), 0]))
    starts, table = (np.concatenate([getattr(r, name) for r in readings]) for name in ("starts", "table"))
    reading = replace(readings[0], n=max(r.n for r in readings), starts=starts, table=table)
    if len(t.sizes) == 1 and t.batch > 1:
        reading = replace(reading, near=_taps_of_g(batch_as_axis(t), rows, begin, end, itemsize)[0].near)
    return reading, of_phases, np.concatenate(targets)


def _read(
    t: Taps,
    lengths: Sequence[int],
    columns: int,
    sources: Sequence[Integers],
    taps: Sequence[Integers],
    counts: Sequence[int],
    itemsize: int,
) -> Reading:
    """Tables for an extended entry (columns, *phases, *indices, batch).

    Parameters
    ----------
    sources
        Per axis the samples (phases, indices) that the extended one consists of.
    taps
        Per axis phase and index (2, taps) of the taps of the first position.
    counts
        Positions along each axis.
    """
    m = len(sources)
    shape = (*(s.shape[0] for s in sources), *(s.shape[1] for s in sources))
    lines = np.zeros(shape[:-1], np.int64)
    for k, source in enumerate(sources[:-1]):
        source = np.expand_dims(source, [a for a in range(2 * m - 1) if a not in (k, m + k)])
        lines = np.where((lines < 0) | (source < 0), -1, lines * lengths[k] + source)
    runs: list[tuple[int, int, int]] = []
    ranges = []
    for samples in sources[-1]:
        first = len(runs)
        runs.extend(stretches(samples))
        ranges.append((first, len(runs)))
    ranges_of_lines = np.broadcast_to(np.reshape(ranges, (*(1,) * (m - 1), -1, *(1,) * (m - 1), 2)), (*shape[:-1], 2))

    def offsets(index: Sequence[Integers]) -> Integers:
        return np.ravel_multi_index(np.broadcast_arrays(*index), shape).reshape(-1) * t.batch

    of_taps = offsets([*np.ix_(*(k[0] for k in taps)), *np.ix_(*(k[1] for k in taps))])
    of_lines = offsets(
        [np.zeros(1, np.int64)] * m + [*np.ix_(*(np.arange(n) for n in counts[:-1]), np.zeros(1, np.int64))]
    )
    line = shape[-1] * t.batch
    table = ((np.arange(columns) * lines.size * line)[:, None] + of_taps).reshape(-1)
    reading = Reading(
        n=counts[-1] * t.batch,
        source_line=lengths[-1] * t.batch,
        lines=np.ascontiguousarray(np.concatenate((lines[..., None], ranges_of_lines), axis=-1).reshape(-1, 3)),
        runs=np.asarray(runs),
        starts=of_lines,
        table=table * itemsize,
        inner=t.batch,
        elements=line,
    )
    return replace(reading, near=_near(t, reading, columns, taps, counts, itemsize))


def _near(
    t: Taps, reading: Reading, columns: int, taps: Sequence[Integers], counts: Sequence[int], itemsize: int
) -> Near | None:
    """For one row, where positions have neighbours enough along the last axis but one, and lines fill vectors."""
    sizes = [k.shape[1] for k in taps]
    if len(sizes) == 1 or t.stride[-2] > 1 or sizes[-2] < kernels.NEAR - 1 or counts[-2] < kernels.NEAR:
        return None
    if reading.n * itemsize < 2 * VECTOR_BYTES:
        return None
    along = np.moveaxis(np.arange(reading.table.size).reshape(columns, *sizes), -2, 0)
    order = along[np.argsort(taps[-2][1])].reshape(sizes[-2], -1)
    lines = np.arange(sizes[-2] + kernels.NEAR - 1)[:, None]
    table = (reading.table[order[0]] + lines * reading.elements * itemsize).reshape(-1)
    return Near(replace(reading, table=table), order.reshape(-1), counts[-2], sizes[-2])


def stretches(samples: Integers, step: int = 1) -> Iterator[tuple[int, int, int]]:
    """(to, source, count) of stretches of samples a step apart, or of zeros (source -1)."""
    begin = 0
    for i in range(1, len(samples) + 1):
        if i < len(samples) and samples[i] == (samples[i - 1] + step if samples[i - 1] >= 0 else -1):
            continue
        yield begin, int(samples[begin]), i - begin
        begin = i


@lru_cache
def nothing(dtype: Any) -> Array:
    """What stands for no bias."""
    return np.empty(0, dtype)


def entries_of(matrices: Array, part: slice) -> Array:
    """The matrices of some entries, or the one that all share."""
    return matrices if len(matrices) == 1 else matrices[part]


def _merged(matrices: Array) -> Array:
    """Filters (entries, columns, taps, rows) with both in one axis."""
    return np.ascontiguousarray(matrices).reshape(len(matrices), -1, matrices.shape[3])
