"""The samples that a convolution's results read along the axes that are not transformed, and the transpose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hcnn_core._engines.taps import Integers, Taps, extended, outputs_met, phases_met
from hcnn_core.backend import Array, address_of


@dataclass(frozen=True)
class Gather:
    """Results along the direct axes from samples: result `a` of an axis reads samples step * a + shifts by its taps."""

    taps: Integers
    steps: tuple[int, ...]
    shifts: tuple[Integers, ...]
    lengths: tuple[int, ...]
    periodic: tuple[bool, ...]
    results: tuple[Integers, ...]
    """Places of the results along each axis, of `out_lengths`."""
    out_lengths: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many results there are."""
        return math.prod(along.size for along in self.results)

    def whole(self) -> tuple[Integers, Integers]:
        """Return the sample each tap reads for each result (taps, results), -1 for a zero, and the results' places."""
        axes = zip(self.results, self.steps, self.shifts, self.lengths, self.periodic, strict=True)
        reads = [extended(np.arange(a.size) * step + s[:, None], n, wrap) for a, step, s, n, wrap in axes]
        return flat(reads, self.lengths), flat([along[None] for along in self.results], self.out_lengths)[0]

    def extents(self, tile: tuple[int, ...]) -> tuple[int, ...]:
        """Places that a tile of results reads along each axis, with those between."""
        along = zip(tile, self.steps, self.shifts, strict=True)
        return tuple((n - 1) * step + int(shift.max() - shift.min()) + 1 for n, step, shift in along)

    def tile(self, places: int) -> tuple[int, ...]:
        """Return the results of a tile along each axis, powers of two, so that it reads few places."""
        tile: tuple[int, ...] = (1,) * len(self.results)
        most = [1 << (along.size - 1).bit_length() for along in self.results]
        while math.prod(tile) < places:
            grown = [(*tile[:k], 2 * n, *tile[k + 1 :]) for k, n in enumerate(tile) if n < most[k]]
            grown = grown or [(*tile[:-1], 2 * tile[-1])]
            tile = min(grown, key=lambda t: math.prod(self.extents(t)))
        return tile

    def tiles(self, tile: tuple[int, ...]) -> int:
        """Return the number of tiles that have all results."""
        return math.prod(-(-along.size // n) for along, n in zip(self.results, tile, strict=True))

    def tables(self, tile: tuple[int, ...]) -> tuple[Integers, ...]:
        """Return the kernels' tables: taps, `reads` and `targets` of each tile, `starts` and `offsets` in a tile."""
        reads, targets, extents = [], [], self.extents(tile)
        starts = [np.arange(n) * step for n, step in zip(tile, self.steps, strict=True)]
        offsets = [shift - shift.min() for shift in self.shifts]
        for k, n in enumerate(tile):
            first = np.arange(0, self.results[k].size, n)[:, None]
            read = first * self.steps[k] + self.shifts[k].min() + np.arange(extents[k])
            reads.append(extended(read, self.lengths[k], self.periodic[k]))
            result = first + np.arange(n)
            last = self.results[k].size - 1
            targets.append(np.where(result > last, -1, self.results[k][np.minimum(result, last)]))
        places = flat(reads, self.lengths), flat(targets, self.out_lengths)
        return self.taps, *places, *(flat([along[None] for along in table], extents) for table in (starts, offsets))


def forward_gather(t: Taps) -> Gather:
    """Return the results of a convolution from x."""
    shifts = tuple(size // 2 - np.arange(size) for size in t.sizes)
    places = tuple(map(np.arange, t.out_lengths))
    return Gather(np.arange(t.count), t.stride, shifts, t.lengths, t.periodic, places, t.out_lengths)


def back_gathers(t: Taps) -> Iterator[Gather]:
    """Yield the cotangent of x from that of the result, for each phase of x that meets taps."""
    for phase, taps in phases_met(t):
        shifts = tuple(outputs_met(size, r, p) for size, r, p in zip(t.sizes, t.stride, phase, strict=True))
        places = tuple(np.arange(p, n, r) for p, n, r in zip(phase, t.lengths, t.stride, strict=True))
        yield Gather(taps, (1,) * len(places), shifts, t.out_lengths, t.periodic, places, t.lengths)


def flat(places: list[Integers], lengths: tuple[int, ...]) -> Integers:
    """From places along each axis (taps, positions), those of all taps and positions together; -1 stays."""
    flat: Any = np.zeros((1, 1), np.int64)
    for place, n in zip(places, lengths, strict=True):
        before, along = flat[:, None, :, None], place[None, :, None, :]
        flat = np.where((before < 0) | (along < 0), -1, before * n + along)
        flat = flat.reshape(flat.shape[0] * flat.shape[1], -1)
    return flat


def piece_of(batch: int, *arrays: Array) -> int:
    """Return how many neighbouring positions of rows are moved at once."""
    return 1 if batch % 4 or any(address_of(a) % 16 for a in arrays) else 4
