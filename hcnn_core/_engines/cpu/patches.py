"""Patch moments of NumPy arrays by compiled kernels. Patches along two axes are never copied to memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty
from hcnn_core._engines.cpu.kernels import patches as kernels
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.transpose import contiguous
from hcnn_core._engines.generic.patches import Patches, in_order
from hcnn_core._threads import parallel_for
from hcnn_core._tuning import current


def supports(x: NDArray, axes: Any, *windows: Any) -> bool:
    """Whether the kernels take patches along these axes."""
    return np.size(axes) == 2


class CpuPatches(Patches[NDArray]):
    """Patches along two axes. Each thread works on all its samples at once."""

    def _outer(self, samples: list[int]) -> int:
        """Count outer axes: fewer where inner ones make long lines, and threads still have samples to share."""
        line, longest = self.lengths[-1], current().patch_line_elements
        for outer in range(len(samples) - 1 if line < longest else 0, 0, -1):
            if line * math.prod(samples[outer:]) >= longest and math.prod(samples[:outer]) > 1:
                return outer
        return len(samples)

    def arrange(self, xp: Any, x: NDArray) -> NDArray:
        return contiguous(x.transpose(self.order)).reshape(self.shape)

    def position_sums(self, xp: Any, x: NDArray, guess: NDArray) -> NDArray:
        """Return sums over samples of an arranged array minus a guess of its mean, in float64."""
        sums: dict[int, NDArray] = {}

        def work(part: slice) -> None:
            sums[part.start] = np.zeros(self.lengths)
            kernels.position_sums(x[part], guess, sums[part.start])

        self._each_thread(work)
        return in_order(sums)

    def gram(self, xp: Any, x: NDArray, y: NDArray, x_centre: NDArray, y_centre: NDArray) -> NDArray:
        """Return sums of products (T, T) of the patches of two arranged arrays minus their centres, in float64."""
        sums: dict[int, NDArray] = {}

        def work(part: slice) -> None:
            product = np.zeros((*self.sizes, *self.sizes))
            before = tuple(size - 1 - size // 2 for size in self.sizes)
            kernels.grams(x[part], x_centre, y[part], y_centre, x is y, before, self.periodic, product)
            # (s1, s2, s1, s2), taps reversed -> (T, T)
            sums[part.start] = product[::-1, ::-1, ::-1, ::-1].reshape(self.taps, self.taps)

        self._each_thread(work)
        return in_order(sums)

    def spread(
        self, xp: Any, x: NDArray, centre: NDArray, matrix: NDArray, offset: NDArray, addend: NDArray | None = None
    ) -> NDArray:
        """P^T (offset + matrix P (x - centre)) + addend, arranged. Zeros extend x before its centre is subtracted."""
        result = empty(self.shape, x.dtype)
        coefficients = np.ascontiguousarray(matrix.reshape(*self.sizes, *self.sizes))
        offsets = offset.reshape(self.sizes)
        others = np.empty((0, *self.shape[1:]), x.dtype) if addend is None else addend

        def work(part: slice) -> None:
            kernels.spreads(x[part], centre, self.periodic, coefficients, offsets, others[part], result[part])

        self._each_thread(work)
        return result

    def _each_thread(self, work: Callable[[slice], None]) -> None:
        """Call work(samples) for the samples of each thread."""
        parallel_for(lambda first, last: work(slice(first, last)), self.shape[0], self.count * self.taps)


make = CpuPatches
