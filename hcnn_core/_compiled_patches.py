"""Patch moments of NumPy arrays by compiled kernels: patches along two axes are never laid out in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from hcnn_core import _kernels as kernels
from hcnn_core._backend import Array
from hcnn_core._memory import empty
from hcnn_core._patches import Patches, in_order


class CompiledPatches(Patches):
    """Patches along two axes."""

    def position_sums(self, xp: Any, x: Array, guess: Array) -> Array:
        """Sums of an arranged array less a guess of its mean over all samples, in double precision."""
        sums: dict[int, Array] = {}

        def tile(part: slice) -> None:
            sums[part.start] = np.zeros(self.lengths)
            kernels.position_sums(x[part], guess, sums[part.start])

        self._each_tile(xp, tile, threaded=False)
        return in_order(sums)

    def gram(self, xp: Any, x: Array, y: Array, x_centre: Array, y_centre: Array) -> Array:
        """Sums of products (T, T) of the patches of two arranged arrays less their centres, in double precision."""
        more = [size - 1 for size in self.sizes]
        before = [size - 1 - size // 2 for size in self.sizes]
        sums: dict[int, Array] = {}

        def tile(part: slice) -> None:
            product = np.zeros((*self.sizes, *self.sizes))
            for index in range(part.start, part.stop):
                padded = kernels.pad(x[index], x_centre, *before, *more, *self.periodic)
                other = padded if x is y else kernels.pad(y[index], y_centre, *before, *more, *self.periodic)
                kernels.gram(padded, other, *self.sizes, self.shape[-1], x is y, product)
            sums[part.start] = product[::-1, ::-1, ::-1, ::-1].reshape(self.taps, self.taps)

        self._each_tile(xp, tile, threaded=False)
        return in_order(sums)

    def spread(self, xp: Any, x: Array, centre: Array, matrix: Array, offset: Array) -> Array:
        """P^T (offset + matrix P (x - centre)) of an arranged array, which zeros extend before its centre is taken."""
        result = empty(self.shape, x.dtype)
        around = [size - 1 for size in self.sizes]
        coefficients = np.ascontiguousarray(matrix.reshape(*self.sizes, *self.sizes))

        def tile(part: slice) -> None:
            for index in range(part.start, part.stop):
                padded = kernels.pad(x[index], centre, *around, *(2 * n for n in around), *self.periodic)
                kernels.spread(
                    padded, *self.sizes, *self.periodic, coefficients, offset.reshape(self.sizes), result[index]
                )

        self._each_tile(xp, tile, threaded=False)
        return result
