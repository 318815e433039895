"""Products of filter matrices with the taps around every position: taps gathered beside each other, in any namespace.

Arrays are (entries, columns, *lengths, batch): an entry is a frequency, or one of the outer batch, with a filter matrix
(rows, taps * columns) of its own or the one that all share.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np

from hcnn_core._backend import Array, placement
from hcnn_core._parallel import parallel_for
from hcnn_core._products import product

Integers = np.ndarray[Any, np.dtype[np.int64]]

TILE = 1 << 19
"""Elements gathered at a time, so that the gathered taps stay in cache for the product that reads them."""

LEAST_IN_TILES = 16
"""Elements of a batch, or of a line, that fill the vectors of tiles."""

LEAST_TERMS = 72
"""Terms of a sum, taps of all channels, from which on tiles were faster where no axis is transformed."""


def tiles_cover(size: int, stride: int, count: int) -> bool:
    """Whether tiles of F(4, 3) cover an axis of so many results."""
    return size == 3 and stride == 1 and count % 4 == 0


def tiles_pay(terms: int, rows: int) -> bool:
    """Whether they do for a few rows of sums of so many terms, beside which samples and results take their time."""
    return terms >= LEAST_TERMS and rows > 1


@dataclass(frozen=True)
class Taps:
    """The directly convolved axes, and the batch that lies inside them in memory."""

    lengths: tuple[int, ...]
    out_lengths: tuple[int, ...]
    sizes: tuple[int, ...]
    stride: tuple[int, ...]
    periodic: tuple[bool, ...]
    batch: int
    tiled: bool = False
    """Whether taps may be multiplied tile by tile, which spreads rounding errors, NaN and infinity over a tile."""

    @cached_property
    def count(self) -> int:
        return math.prod(self.sizes)

    @cached_property
    def leading(self) -> int:
        """Output indices of the first axis, along which tiles are cut."""
        return self.out_lengths[0] if self.sizes else 1

    @cached_property
    def positions(self) -> int:
        """Output positions per index of the first axis."""
        return math.prod(self.out_lengths[1:]) * self.batch

    @cached_property
    def uneven(self) -> bool:
        """Whether strides along a periodic axis fall on other samples each time around."""
        return any(wrap and n % r for wrap, n, r in zip(self.periodic, self.lengths, self.stride, strict=True))


def untapped(count: int) -> Taps:
    """A batch as an axis with one tap."""
    return Taps((count,), (count,), (1,), (1,), (False,), 1)


def batch_as_axis(t: Taps) -> Taps:
    """The batch as one more axis, with one tap."""
    return Taps(
        (*t.lengths, t.batch), (*t.out_lengths, t.batch), (*t.sizes, 1), (*t.stride, 1), (*t.periodic, False), 1
    )


def samples_read(size: int, stride: int, begin: int, end: int) -> tuple[Integers, Integers]:
    """Samples (phases, indices) around outputs [begin, end) of an axis, and phase and index (2, size) of its taps.

    Output i meets tap t at sample stride * i + size // 2 - t: at e = stride * i + size - 1 - t of an axis extended by
    size - 1 - size // 2 samples before its first. What e leaves when divided by the stride is its phase: laid out by
    phases, neighbouring outputs read neighbouring samples.
    """
    phase, index = np.ogrid[: min(stride, size), begin : end + (size - 1) // stride]
    taps = np.stack(np.divmod(size - 1 - np.arange(size), stride)[::-1])
    return stride * index + phase - (size - 1 - size // 2), taps


def _taps_met(size: int, stride: int, phase: int) -> Integers:
    """Tap t takes sample s to output (s + t - size // 2) / stride: those for which that is an integer."""
    return np.arange((size // 2 - phase) % stride, size, stride)


def outputs_met(size: int, stride: int, phase: int) -> Integers:
    """The outputs, less a, that taps take samples phase + stride * a to."""
    return (_taps_met(size, stride, phase) - size // 2 + phase) // stride


def taps_that_meet(t: Taps, phases: tuple[int, ...]) -> Integers:
    """Flat indices of the taps that take samples of these phases to an output."""
    along = [_taps_met(size, r, phase) for size, r, phase in zip(t.sizes, t.stride, phases, strict=True)]
    return np.ravel_multi_index(np.ix_(*along), t.sizes).reshape(-1)


def extended(index: Integers, n: int, periodic: bool) -> Integers:
    """Samples at these indices of an extended axis; -1 stands for zero."""
    return index % n if periodic else np.where((index >= 0) & (index < n), index, -1)


class TapProducts(Protocol):
    """The linear map of each entry, its transpose, and the transpose in its matrix."""

    taps: Taps

    def __init__(self, taps: Taps) -> None: ...
    def apply(self, xp: Any, x: Array, filters: Array) -> Array: ...
    def apply_transpose(self, xp: Any, g: Array, filters: Array) -> Array: ...
    def correlate(self, xp: Any, g: Array, x: Array) -> Array: ...


class GatheredTaps:
    """Taps copied beside each other, tile by tile, and multiplied by the library's matrix product."""

    def __init__(self, taps: Taps) -> None:
        self.taps = taps

    def apply(self, xp: Any, x: Array, filters: Array) -> Array:
        count, rows = x.shape[0], filters.shape[1]
        y = xp.empty((count, rows, *self.taps.out_lengths, self.taps.batch), dtype=x.dtype, **placement(xp, x))
        filters = xp.broadcast_to(filters, (count, *filters.shape[1:]))

        def tile(part: slice, begin: int, end: int) -> None:
            product(
                xp, filters[part, ...], self._gather(xp, x[part, ...], begin, end), self._cut(xp, y, part, begin, end)
            )

        self._each_tile(xp, tile, count, x.shape[1], independent=True)
        return y

    def apply_transpose(self, xp: Any, g: Array, filters: Array) -> Array:
        count, columns = g.shape[0], filters.shape[2] // self.taps.count
        x = xp.zeros((count, columns, *self.taps.lengths, self.taps.batch), dtype=g.dtype, **placement(xp, g))
        filters = xp.broadcast_to(xp.permute_dims(filters, (0, 2, 1)), (count, filters.shape[2], filters.shape[1]))

        def tile(part: slice, begin: int, end: int) -> None:
            scattered = product(xp, filters[part, ...], self._cut(xp, g, part, begin, end))
            self._scatter_add(xp, scattered, x[part, ...], begin, end)

        self._each_tile(xp, tile, count, columns, independent=False)
        return x

    def correlate(self, xp: Any, g: Array, x: Array) -> Array:
        count, columns = x.shape[:2]
        shape = (count, self.taps.count * columns, g.shape[1])
        total = xp.zeros(shape, dtype=g.dtype, **placement(xp, g))

        def tile(part: slice, begin: int, end: int) -> None:
            cut = self._cut(xp, g, part, begin, end)
            # the taller operand first: OpenBLAS takes a third less time than for the transposed product
            total[part, ...] += product(xp, self._gather(xp, x[part, ...], begin, end), xp.permute_dims(cut, (0, 2, 1)))

        self._each_tile(xp, tile, count, columns, independent=False)
        return xp.permute_dims(total, (0, 2, 1))

    def _each_tile(
        self, xp: Any, tile: Callable[[slice, int, int], None], count: int, columns: int, *, independent: bool
    ) -> None:
        """Work through entries and leading output indices; threads share entries, or tiles if independent."""
        leading, per_index = self.taps.leading, self.taps.count * columns * self.taps.positions
        indices = min(leading, max(1, TILE // per_index))
        entries = max(1, min(count, TILE // (per_index * indices)))
        begins = range(0, leading, indices)
        elements = per_index * leading * count

        def work(first: int, last: int) -> None:
            for f in range(first, last, entries):
                for begin in begins:
                    tile(slice(f, min(last, f + entries)), begin, min(leading, begin + indices))

        def work_along(first: int, last: int) -> None:
            for begin in begins[first:last]:
                tile(slice(0, count), begin, min(leading, begin + indices))

        if xp is not np:
            work(0, count)
        elif count == 1 and independent:
            parallel_for(work_along, len(begins), elements, threaded=True)
        else:
            parallel_for(work, count, elements, threaded=True)

    def _cut(self, xp: Any, y: Array, part: slice, begin: int, end: int) -> Array:
        """Results of a tile as a view (entries, rows, positions)."""
        flat = xp.reshape(y[part, ...], (-1, y.shape[1], self.taps.leading * self.taps.positions))
        return flat[:, :, begin * self.taps.positions : end * self.taps.positions]

    def _gather(self, xp: Any, x: Array, begin: int, end: int) -> Array:
        """Taps around leading output indices [begin, end): (entries, taps * columns, positions)."""
        if not self.taps.sizes:
            return x
        count, columns = x.shape[:2]
        block = (count, self.taps.count, columns, end - begin, *self.taps.out_lengths[1:], self.taps.batch)
        gathered = xp.empty(block, dtype=x.dtype, **placement(xp, x))
        for index, pieces, whole in self._pieces(begin, end):
            if not whole:
                gathered[:, index, ...] = 0
            for to, source in pieces:
                gathered[(slice(None), index, slice(None), *to, ...)] = x[(slice(None), slice(None), *source, ...)]
        return xp.reshape(gathered, (count, block[1] * columns, math.prod(block[3:])))

    def _scatter_add(self, xp: Any, scattered: Array, x: Array, begin: int, end: int) -> None:
        """Transpose of `_gather` by copies: add every tap's share back to where it was read."""
        if not self.taps.sizes:
            x[...] = xp.reshape(scattered, x.shape)
            return
        block = (x.shape[0], -1, x.shape[1], end - begin, *self.taps.out_lengths[1:], self.taps.batch)
        scattered = xp.reshape(scattered, block)
        for index, pieces, _ in self._pieces(begin, end):
            for to, source in pieces:
                x[(slice(None), slice(None), *source, ...)] += scattered[(slice(None), index, slice(None), *to, ...)]

    def _pieces(self, begin: int, end: int) -> list[tuple[int, list[Any], bool]]:
        t = self.taps
        spans = ((begin, end), *((0, n) for n in t.out_lengths[1:]))
        return tap_pieces(t.lengths, spans, t.stride, t.sizes, t.periodic)


@lru_cache(maxsize=4096)
def tap_pieces(
    lengths: tuple[int, ...],
    spans: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    sizes: tuple[int, ...],
    periodic: tuple[bool, ...],
) -> list[tuple[int, list[Any], bool]]:
    """For each tap: the boxes to copy, (to, from), and whether they cover all output indices of the spans."""
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
