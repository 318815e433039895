"""A convolution of one long filter along longer axes, a block of results at a time: overlap-save."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.generic.fft import part_of
from hcnn_core._engines.generic.fft_plan import LINES, FFTPlan, cutting
from hcnn_core._engines.transform import next_fast_length
from hcnn_core._threads import parallel_for
from hcnn_core._tuning import Units
from hcnn_core.backend import Array, joined, permute_dims, placement, reshape

SHORTEST, CROWDED, LONGEST = 64, 1 << 14, 1 << 18
"""Points of the shortest blocks. Then two lengths at which four lines at once take twice as long: at multiples of the
first they share one set of the cache; above the second they do not fit it."""


class BlockPlan(FFTPlan):
    """A convolution and its adjoints by many short FFTs, whose points stay in cache.

    A block of results reads as many samples and size - 1 more, a halo of zeros or from around the circle.
    Blocks are taken in groups, and groups shared among threads. A cotangent of x is a convolution of that of the
    result with the filter flipped, so its blocks are read and written in the same way; that of w is added up over all
    blocks as a spectrum. Strides drop results.
    """

    def __init__(self, *operands: Any) -> None:
        super().__init__(*operands)
        self.halo, self.behind = [(s - 1) // 2 for s in self.sizes], [s // 2 for s in self.sizes]  # around a block
        self.alone = LINES * 2 if self.by_scipy and self.count == 1 and self.batch < LINES else 1
        """Blocks of a signal that take no longer than one: four at once, on each of two threads."""
        along = zip(self.lengths, self.sizes, strict=True)
        self.padded = [points_of(n, size, self.primes, self.alone) for n, size in along]
        # results of a block along each axis; taps wrap around the others
        self.steps = [n - size + 1 for n, size in zip(self.padded, self.sizes, strict=True)]
        self.counts = [self.batch, *(-(-n // step) for n, step in zip(self.lengths, self.steps, strict=True))]
        most = self.tuning.block_elements if self.by_scipy else self.tuning.device_spectrum_elements
        group = math.prod(self.padded)
        self.points = group * math.prod(self.counts)
        self.together: list[int] = []
        """Elements of the batch, and blocks along each axis, that are transformed together."""
        for count, least in zip(reversed(self.counts), [min(self.alone, LINES)] + [1] * self.count, strict=True):
            self.together.insert(0, min(count, max(1, most // group // least) * least))
            group *= self.together[0]

    @property
    def supports(self) -> bool:
        """Whether an axis is cut, and a block is long enough for a transform."""
        return max(self.counts[1:]) > 1 and math.prod(self.padded) >= SHORTEST

    def units(self) -> Units:
        """Count points of blocks, times the logarithm of their number in one and two; several axes are transposed."""
        points = sum(map(math.log2, self.padded), 2 * self.count) * self.points
        points *= -(-self.counts[-1] // self.alone) * self.alone / self.counts[-1]
        calls: Units = {"plan": 1 + self.count} if self.by_scipy else {"library": 1}
        return {**calls, "block_point": points, "transposed": (self.count - 1) * self.points}

    def _result(self, xp: Any, x: Array, w: Array) -> Array:
        y = self._sliding(xp, x, self._spectrum(xp, w), self.halo, [size - 1 for size in self.sizes])
        return y if max(self.strides) == 1 else xp.asarray(cutting(self.results)(y, range(self.count)), copy=True)

    def _cotangents(self, xp: Any, g: Array, x: Array | None, w: Array | None) -> tuple[Array | None, Array | None]:
        if max(self.strides) > 1:
            whole = xp.zeros((*g.shape[: -self.count], *self.lengths), dtype=g.dtype, **placement(xp, g))
            whole[(..., *self.results)] = g
            g = whole
        filters, begins = None if w is None else xp.conj(self._spectrum(xp, w)), [0] * self.count
        g_x = None if filters is None else self._sliding(xp, g, filters, self.behind, begins)
        return g_x, None if x is None else self._correlated(xp, g, x)

    def _spectrum(self, xp: Any, x: Array, begins: Sequence[int] | None = None) -> Array:
        """Transform blocks, with zeros behind what is there, or before."""
        first = x.ndim - self.count
        places = [slice(k, k + n) for k, n in zip(begins or [0] * self.count, x.shape[first:], strict=True)]
        return self._forth(xp, x, self._padding(xp, places))

    def _sliding(self, xp: Any, x: Array, w: Array, halo: Sequence[int], begins: Sequence[int]) -> Array:
        """Convolve blocks, with a halo before them, with a spectrum; results are the points from `begins` on."""
        y = xp.empty((self.batch, *self.lengths), dtype=x.dtype, **placement(xp, x))
        results = cutting([slice(k, k + step) for k, step in zip(begins, self.steps, strict=True)])
        order = (0, *itertools.chain(*((1 + k, 1 + k + self.count) for k in range(self.count))))
        flat = reshape(xp, x, y.shape)

        def work(groups: Sequence[tuple[range, ...]]) -> None:
            for group in groups:
                spectrum = self._spectrum(xp, self._blocks(xp, flat, group, halo))
                spectrum *= w
                part = permute_dims(xp, self._back(xp, spectrum, results), order)
                ends = [(r.start * step, r.stop * step) for r, step in zip(group, (1, *self.steps), strict=True)]
                target = y[tuple(slice(begin, min(end, n)) for (begin, end), n in zip(ends, y.shape, strict=True))]
                whole = reshape(xp, part, tuple(end - begin for begin, end in ends))
                target[...] = whole[tuple(map(slice, target.shape))]

        self._share(work)
        return reshape(xp, y, x.shape)

    def _correlated(self, xp: Any, g: Array, x: Array) -> Array:
        """Return the cotangent of w: with zeros before the cotangents of each block."""
        g, x = (reshape(xp, a, (self.batch, *self.lengths)) for a in (g, x))
        sums: dict[tuple[int, ...], Array] = {}

        def work(groups: Sequence[tuple[range, ...]]) -> None:
            total: Any = 0
            for group in groups:
                spectrum = xp.conj(self._spectrum(xp, self._blocks(xp, x, group, self.halo)))
                spectrum *= self._spectrum(xp, self._blocks(xp, g, group), [size - 1 for size in self.sizes])
                total = total + xp.sum(spectrum, axis=tuple(range(1 + self.count)))
            sums[tuple(r.start for r in groups[0])] = total

        self._share(work)
        first, *others = (sums[key] for key in sorted(sums))
        return self._back(xp, sum(others, first), cutting([slice(size) for size in self.sizes]))

    def _blocks(self, xp: Any, x: Array, group: tuple[range, ...], halo: Sequence[int] | None = None) -> Array:
        """Cut blocks (batch, *blocks, *points) of samples (batch, *lengths); without halo there are fewer points."""
        x = part_of(x, 0, group[0].start, group[0].stop)
        for k, (blocks, step) in enumerate(zip(group[1:], self.steps, strict=True)):
            axis, count = 1 + 2 * k, len(blocks)
            more, begin = int(halo is not None), blocks.start * step - (halo[k] if halo else 0)
            x = read(xp, x, axis, begin, begin + (count + more) * step, bool(more) and self.boundary[k] == "periodic")
            x = reshape(xp, x, (*x.shape[:axis], count + more, step, *x.shape[axis + 1 :]))
            if halo is not None:
                behind = part_of(part_of(x, axis, 1, count + 1), axis + 1, 0, self.sizes[k] - 1)
                x = joined([part_of(x, axis, 0, count), behind], axis + 1)
            x = permute_dims(xp, x, (*range(1 + k), axis, *range(1 + k, axis), *range(axis + 1, x.ndim)))
        return x

    def _share(self, work: Callable[[Sequence[tuple[range, ...]]], None]) -> None:
        """Call `work` for the groups of each thread."""
        along = zip(self.together, self.counts, strict=True)
        groups = list(itertools.product(*([range(i, min(i + n, m)) for i in range(0, m, n)] for n, m in along)))
        if self.by_scipy:
            elements = self.points * self.tuning.serial_elements // self.tuning.fft_threaded_samples
            parallel_for(lambda begin, end: work(groups[begin:end]), len(groups), elements)
        else:
            work(groups)


def read(xp: Any, x: Array, axis: int, low: int, high: int, periodic: bool) -> Array:
    """Read samples low to high of an axis that goes on beyond its ends: around the circle, or with zeros."""
    n = x.shape[axis]
    if low >= 0 and high <= n:
        return part_of(x, axis, low, high)
    if periodic:
        return xp.take(x, xp.asarray(np.arange(low, high) % n, **placement(xp, x)), axis=axis)
    whole = xp.zeros((*x.shape[:axis], high - low, *x.shape[axis + 1 :]), dtype=x.dtype, **placement(xp, x))
    part_of(whole, axis, max(-low, 0), min(high, n) - low)[...] = part_of(x, axis, max(low, 0), min(high, n))
    return whole


@lru_cache(maxsize=1024)
def points_of(n: int, size: int, primes: tuple[int, ...], alone: int) -> int:
    """Return the points of blocks that take the least time; results among them are at least as many as others."""

    def cost(points: int) -> float:
        slow = 2 if alone > 1 and (points % CROWDED == 0 or points > LONGEST) else 1
        return slow * -(-n // ((points - size + 1) * alone)) * points * (math.log2(points) + 2)

    counts = {-(-n // max(1, times * size // 4)) for times in range(4, 64)}
    return min((next_fast_length(max(-(-n // c), size - 1) + size - 1, primes) for c in sorted(counts)), key=cost)
