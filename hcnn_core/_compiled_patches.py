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

    def moments(self, xp: Any, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """As `Patches.moments`; of one array, sums of it and of its products are taken in one pass.

        They are taken about the mean of a sixteenth of all samples, which is never farther from that of all than
        sqrt(15) standard deviations: at most four bits cancel.
        """
        if x is not y:
            return super().moments(xp, x, y)
        arranged = self.arrange(xp, x)
        centre = arranged[:, ::4, ::4].mean(dtype=np.float64).astype(x.dtype)
        sums: dict[int, Array] = {}
        grams: dict[int, Array] = {}

        def tile(part: slice) -> None:
            sums[part.start], grams[part.start] = np.zeros(self.lengths), np.zeros((self.taps, self.taps))
            for index in range(part.start, part.stop):  # while it is in cache
                kernels.position_sums(arranged[index : index + 1], centre, sums[part.start])
                grams[part.start] += self._gram_of(arranged[index], centre)

        self._each_tile(xp, tile, threaded=False)
        of_centre = self.shape[0] * self.shape[-1] * float(centre)
        offset = self.tap_sums(xp, in_order(sums) + of_centre, of_centre) / self.count
        covariance = (in_order(grams) / self.count - offset[:, None] * offset).astype(x.dtype)
        mean = (offset + centre).astype(x.dtype)
        return mean, mean, covariance

    def gram(self, xp: Any, x: Array, y: Array, x_centre: Array, y_centre: Array) -> Array:
        """Sums of products (T, T) of the patches of two arranged arrays less their centres, in double precision."""
        sums: dict[int, Array] = {}

        def tile(part: slice) -> None:
            sums[part.start] = np.zeros((self.taps, self.taps))
            for index in range(part.start, part.stop):
                other = () if x is y else (y[index], y_centre)
                sums[part.start] += self._gram_of(x[index], x_centre, *other)

        self._each_tile(xp, tile, threaded=False)
        return in_order(sums)

    def _gram_of(self, x: Array, x_centre: Array, y: Array | None = None, y_centre: Array | None = None) -> Array:
        """The sum for one sample of each array, or of one of them with itself."""
        more = [size - 1 for size in self.sizes]
        before = [size - 1 - size // 2 for size in self.sizes]
        product = np.zeros((*self.sizes, *self.sizes))
        padded = kernels.pad(x, x_centre, *before, *more, *self.periodic)
        other = padded if y is None else kernels.pad(y, y_centre, *before, *more, *self.periodic)
        kernels.gram(padded, other, *self.sizes, self.shape[-1], y is None, product)
        return product[::-1, ::-1, ::-1, ::-1].reshape(self.taps, self.taps)

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
