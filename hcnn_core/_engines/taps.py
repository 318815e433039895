"""The directly convolved axes: the samples that each tap reads, and the results it contributes to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import AnyArray

Integers = np.ndarray[Any, np.dtype[np.int64]]


def tiles_cover(size: int, stride: int, count: int) -> bool:
    """Whether F(4, 3) applies to an axis of `count` results: 3 taps, stride 1, and whole tiles of 4 results."""
    return size == 3 and stride == 1 and count % 4 == 0


def tiles_pay(terms: int, rows: int, tuning: Tuning) -> bool:
    """Whether the products that F(4, 3) saves outweigh its transforms, for sums of `terms` terms in `rows` rows."""
    return terms >= tuning.winograd_terms and rows > 1


@dataclass(frozen=True)
class Taps:
    """The directly convolved axes, and the size of the batch inside them in memory."""

    lengths: tuple[int, ...]
    out_lengths: tuple[int, ...]
    sizes: tuple[int, ...]
    stride: tuple[int, ...]
    periodic: tuple[bool, ...]
    batch: int
    tiled: bool = False
    """Whether F(4, 3) may be used, which spreads rounding errors, NaN and infinity over a tile."""

    @cached_property
    def count(self) -> int:
        return math.prod(self.sizes)

    @cached_property
    def leading(self) -> int:
        """Number of output indices of the first axis, along which work is cut into blocks."""
        return self.out_lengths[0] if self.sizes else 1

    @cached_property
    def positions(self) -> int:
        """Number of output positions per index of the first axis."""
        return math.prod(self.out_lengths[1:]) * self.batch

    @cached_property
    def results(self) -> int:
        """Number of all output positions."""
        return self.leading * self.positions

    @cached_property
    def samples(self) -> int:
        """Number of samples of the signal."""
        return math.prod(self.lengths) * self.batch

    @cached_property
    def pieces(self) -> int:
        """Boxes of samples that im2col copies: one per tap, and one more where the tap crosses a periodic boundary."""
        return math.prod(size * (1 + wrap) for size, wrap in zip(self.sizes, self.periodic, strict=True))

    @cached_property
    def uneven(self) -> bool:
        """Whether a stride does not divide its periodic axis, so that each period it falls on other samples."""
        return any(wrap and n % r for wrap, n, r in zip(self.periodic, self.lengths, self.stride, strict=True))


def untapped(count: int) -> Taps:
    """Return a batch of `count` elements as an axis with one tap."""
    return Taps((count,), (count,), (1,), (1,), (False,), 1)


def batch_as_axis(t: Taps) -> Taps:
    """Return the same taps, with the batch as one more axis that has one tap."""
    return Taps(
        (*t.lengths, t.batch), (*t.out_lengths, t.batch), (*t.sizes, 1), (*t.stride, 1), (*t.periodic, False), 1
    )


def samples_read(size: int, stride: int, begin: int, end: int) -> tuple[Integers, Integers]:
    """List samples that outputs [begin, end) of an axis read, by polyphase component, and where each tap has its own.

    Tap t of output i reads sample stride * i + size // 2 - t. In an axis that is extended by size - 1 - size // 2
    samples before its first, that is sample e = stride * i + size - 1 - t. Its phase is e modulo the stride. Within one
    phase, neighbouring outputs read neighbouring samples. Returns the samples (phases, indices), and the phase and
    index of each tap (2, size).
    """
    phase, index = np.ogrid[: min(stride, size), begin : end + (size - 1) // stride]
    taps = np.stack(np.divmod(size - 1 - np.arange(size), stride)[::-1])
    return stride * index + phase - (size - 1 - size // 2), taps


def _taps_met(size: int, stride: int, phase: int) -> Integers:
    """Taps that use samples of this phase: tap t takes sample s to output (s + t - size // 2) / stride, an integer."""
    return np.arange((size // 2 - phase) % stride, size, stride)


def outputs_met(size: int, stride: int, phase: int) -> Integers:
    """Return outputs that sample phase + stride * a contributes to, relative to a, one per tap of `_taps_met`."""
    return (_taps_met(size, stride, phase) - size // 2 + phase) // stride


def _taps_that_meet(t: Taps, phases: tuple[int, ...]) -> Integers:
    """Flat indices of the taps that use samples of these phases."""
    along = [_taps_met(size, r, phase) for size, r, phase in zip(t.sizes, t.stride, phases, strict=True)]
    return np.ravel_multi_index(np.ix_(*along), t.sizes).reshape(-1)


@lru_cache(maxsize=1024)
def phases_met(t: Taps) -> list[tuple[tuple[int, ...], Integers]]:
    """Polyphase components of x, a phase along each axis, with the taps that take them to a result if there are any."""
    along = (range(min(r, n)) for r, n in zip(t.stride, t.lengths, strict=True))
    phases = [(phase, _taps_that_meet(t, phase)) for phase in itertools.product(*along)]
    return [(phase, taps) for phase, taps in phases if taps.size]


def extended(index: Integers, n: int, periodic: bool) -> Integers:
    """Return indices into an axis of length n for indices into its extension; -1 stands for a zero sample."""
    return index % n if periodic else np.where((index >= 0) & (index < n), index, -1)


def offset_table(
    shape: Sequence[int], batch: int, positions: Sequence[Integers], taps: Sequence[Integers], *, whole: bool = True
) -> tuple[Integers, Integers]:
    """Where lines of positions begin in an extended row, and how far from a position its taps lie, in elements.

    Parameters
    ----------
    shape
        The extended axes: the phases of each, then the indices of each. The batch lies inside them.
    positions, taps
        Indices of the positions and of the first position's taps, a list for each axis of the shape.
    whole
        Whether a line of positions goes along the last axis and the batch, or else along the batch alone.
    """
    m = len(shape) // 2
    # every tap has one phase and one index along an axis
    offsets = _places(shape, [*np.ix_(*taps[:m]), *np.ix_(*taps[m:])]) * batch
    return line_starts(shape, batch, positions, whole=whole), offsets


def line_starts(shape: Sequence[int], batch: int, positions: Sequence[Integers], *, whole: bool = True) -> Integers:
    """Where lines of positions begin in an array of this shape, in elements, as `offset_table` has them."""
    first = [*positions[:-1], positions[-1][:1]] if whole else positions
    return _places(shape, np.ix_(*first)) * batch


def _places(shape: Sequence[int], index: Sequence[Integers]) -> Integers:
    """Places in an array of this shape, negative ones before it, in the order of the broadcast indices."""
    places = np.zeros((), np.int64)
    for i, n in zip(index, shape, strict=True):
        places = places * n + i
    return places.reshape(-1)


class Matrices(NamedTuple):
    """The filter matrices of a plan, (rows, taps * columns) for each entry. Outer batch elements share one."""

    entries: int
    rows: int
    columns: int
    of_spectra: bool
    """Whether entries are frequencies; else they are elements of the outer batch."""
    are_complex: bool


class TapProducts(Protocol[AnyArray]):
    """Products of filters and taps, for each entry (a frequency or an outer batch element), and the two transposes.

    `units` is the work of all three with matrices of this size.
    """

    taps: Taps

    def apply(self, xp: Any, x: AnyArray, filters: AnyArray) -> AnyArray: ...
    def apply_transpose(self, xp: Any, g: AnyArray, filters: AnyArray) -> AnyArray: ...
    def correlate(self, xp: Any, g: AnyArray, x: AnyArray) -> AnyArray: ...
    def units(self, matrices: Matrices) -> Units: ...


@lru_cache(maxsize=4096)
def tap_pieces(
    lengths: tuple[int, ...],
    spans: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    sizes: tuple[int, ...],
    periodic: tuple[bool, ...],
) -> list[tuple[int, list[Any], bool]]:
    """For each tap: the boxes to copy as pairs (target, source), and whether they cover all outputs of the spans."""
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
    """Ranges of output indices i in `span` whose source stride * i - tap lies in one period, with those sources."""
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
