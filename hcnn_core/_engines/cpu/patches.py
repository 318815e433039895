"""Patch moments of NumPy arrays by compiled kernels: patches along two axes are never laid out in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty
from hcnn_core._engines.cpu.kernels import patches as kernels
from hcnn_core._engines.cpu.transpose import contiguous
from hcnn_core._engines.generic.patches import Patches, in_order
from hcnn_core._threads import parallel_for
from hcnn_core._tuning import current
from hcnn_core.backend import Array


class CpuPatches(Patches):
    """Patches along two axes; each thread's samples are one piece of work."""

    def _outer(self, samples: list[int]) -> int:
        """Fewer where the others make lines of positions long, and leave threads something to share."""
        line, longest = self.lengths[-1], current().patch_line_elements
        for outer in range(len(samples) - 1 if line < longest else 0, 0, -1):
            if line * math.prod(samples[outer:]) >= longest and math.prod(samples[:outer]) > 1:
                return outer
        return len(samples)

    def arrange(self, xp: Any, x: Array) -> Array:
        return contiguous(x.transpose(self.order)).reshape(self.shape)

    def moments(self, xp: Any, x: Array, y: Array) -> tuple[Array, Array]:
        """As `Patches.moments`; of one array, sums of it and of its products are taken in one pass.

        They are taken about the mean of a sixteenth of all samples, which is never farther from that of all than
        sqrt(15) standard deviations: at most four bits cancel.
        """
        if x is not y:
            return super().moments(xp, x, y)
        arranged = self.arrange(xp, x)
        centre = arranged[::4, ::4].mean(dtype=np.float64).astype(x.dtype)
        sums: dict[int, Array] = {}
        grams: dict[int, Array] = {}

        def tile(part: slice) -> None:
            sums[part.start] = np.zeros(self.lengths)
            grams[part.start] = self._gram(arranged[part], centre, arranged[part], centre, True, sums[part.start])

        self._each_thread(tile)
        of_centre = self.shape[0] * self.shape[-1] * float(centre)
        offset = self.tap_sums(xp, in_order(sums) + of_centre, of_centre) / self.count
        covariance = (in_order(grams) / self.count - offset[:, None] * offset).astype(x.dtype)
        return offset + float(centre), covariance

    def position_sums(self, xp: Any, x: Array, guess: Array) -> Array:
        """Sums of an arranged array less a guess of its mean over all samples, in double precision."""
        sums: dict[int, Array] = {}

        def tile(part: slice) -> None:
            sums[part.start] = np.zeros(self.lengths)
            kernels.position_sums(x[part], guess, sums[part.start])

        self._each_thread(tile)
        return in_order(sums)

    def gram(self, xp: Any, x: Array, y: Array, x_centre: Array, y_centre: Array) -> Array:
        """Sums of products (T, T) of the patches of two arranged arrays less their centres, in double precision."""
        sums: dict[int, Array] = {}

        def tile(part: slice) -> None:
            sums[part.start] = self._gram(x[part], x_centre, y[part], y_centre, x is y, np.empty((0, 0)))

        self._each_thread(tile)
        return in_order(sums)

    def _gram(self, x: Array, x_centre: Array, y: Array, y_centre: Array, same: bool, sums: Array) -> Array:
        """That of some samples; their sums are added to `sums`, if it has room."""
        product = np.zeros((*self.sizes, *self.sizes))
        before = tuple(size - 1 - size // 2 for size in self.sizes)
        kernels.grams(x, x_centre, y, y_centre, same, before, self.periodic, sums, product)
        return product[::-1, ::-1, ::-1, ::-1].reshape(self.taps, self.taps)

    def spread(
        self, xp: Any, x: Array, centre: Array, matrix: Array, offset: Array, other: Array | None = None
    ) -> Array:
        """P^T (offset + matrix P (x - centre)) + other, arranged; zeros extend x before its centre is taken."""
        result = empty(self.shape, x.dtype)
        coefficients = np.ascontiguousarray(matrix.reshape(*self.sizes, *self.sizes))
        offsets = offset.reshape(self.sizes)
        others = np.empty((0, *self.shape[1:]), x.dtype) if other is None else other

        def tile(part: slice) -> None:
            kernels.spreads(x[part], centre, self.periodic, coefficients, offsets, others[part], result[part])

        self._each_thread(tile)
        return result

    def _each_thread(self, tile: Callable[[slice], None]) -> None:
        """Call tile(samples) for those of each thread."""
        parallel_for(lambda first, last: tile(slice(first, last)), self.shape[0], self.count * self.taps)
