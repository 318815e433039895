"""The map P from an array to its patches and its use for moments, by im2col and matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Generic

import numpy as np

from hcnn_core._engines.generic.matmul import Matmul, by_slices, matmul
from hcnn_core._engines.taps import tap_pieces
from hcnn_core._problem import BOUNDARIES, normalize_axes, normalize_choice, normalize_integers
from hcnn_core._tuning import current
from hcnn_core.backend import AnyArray, Array, placement, wide_dtype


class Patches(Generic[AnyArray]):
    """The map P from arrays of one shape to their patches, and its transpose, block by block."""

    matmul: Matmul = staticmethod(matmul)

    def __init__(
        self, x: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], boundary: str | Sequence[str]
    ) -> None:
        axes = normalize_axes("axes", axes, x.ndim)
        if not axes:
            raise ValueError("axes names no axis; patches extend along at least one")
        if not math.prod(x.shape):
            raise ValueError(f"x has shape {x.shape}; an empty array has no moments")
        self.sizes = normalize_integers("kernel_size", kernel_size, len(axes), 1)
        self.periodic = tuple(b == "periodic" for b in normalize_choice("boundary", boundary, len(axes), BOUNDARIES))
        self.lengths = tuple(x.shape[a] for a in axes)
        self.count = math.prod(x.shape)
        self.taps = math.prod(self.sizes)
        # Axes inside the patch axes in memory stay there, so that taps are copied in long contiguous runs.
        strides = getattr(x, "strides", None) or tuple(range(x.ndim, 0, -1))
        inner = min(abs(strides[a]) for a in axes)
        rest = sorted((a for a in range(x.ndim) if a not in axes), key=lambda a: -abs(strides[a]))
        lead = [a for a in rest if abs(strides[a]) >= inner]
        trail = [a for a in rest if abs(strides[a]) < inner]
        if math.prod(x.shape[a] for a in trail) == 1:
            outer = self._outer([x.shape[a] for a in lead])
            lead, trail = lead[:outer], lead[outer:] + trail
        self.order = (*lead, *axes, *trail)
        self.shape = (math.prod(x.shape[a] for a in lead), *self.lengths, math.prod(x.shape[a] for a in trail))

    def _outer(self, samples: list[int]) -> int:
        """How many sample axes, of these lengths, stay outside the patch axes if all are outside in memory."""
        return len(samples)

    def arrange(self, xp: Any, x: AnyArray) -> AnyArray:
        """Reorder and reshape x to (samples, *patch axes, inner samples)."""
        arranged: Any = xp.reshape(xp.permute_dims(x, self.order), self.shape)
        if xp is np:
            arranged = np.ascontiguousarray(arranged)
        return arranged

    def gather(self, xp: Any, x: AnyArray, centre: AnyArray | float) -> AnyArray:
        """Patches (samples, T, positions) of an arranged x, extended by its boundary, minus `centre`."""
        patches = xp.empty((x.shape[0], self.taps, *x.shape[1:]), dtype=x.dtype, **placement(xp, x))
        for index, pieces, whole in self._pieces():
            if not whole:
                patches[:, index, ...] = -centre
            for to, source in pieces:
                patches[(slice(None), index, *to, ...)] = x[(slice(None), *source, ...)] - centre
        return xp.reshape(patches, (x.shape[0], self.taps, -1))

    def scatter_add(self, xp: Any, patches: AnyArray, x: AnyArray) -> None:
        """Transpose of `gather`: add patches (samples, T, positions) to the samples of x."""
        patches = xp.reshape(patches, (x.shape[0], self.taps, *x.shape[1:]))
        for index, pieces, _ in self._pieces():
            for to, source in pieces:
                x[(slice(None), *source, ...)] += patches[(slice(None), index, *to, ...)]

    def moments(self, xp: Any, x: AnyArray, y: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Mean patch of x, in double precision and in x's dtype, and the covariance of those of x and y.

        The arrays' own means are subtracted before sums of products, so that no digits cancel.
        """
        arranged = [self.arrange(xp, a) for a in ((x,) if x is y else (x, y))]
        centres, offsets = zip(*(self.centre(xp, a) for a in arranged), strict=True)
        total = self.gram(xp, arranged[0], arranged[-1], centres[0], centres[-1])  # (T, T)
        covariance = total / self.count - offsets[0][:, None] * offsets[-1][None, :]
        mean = offsets[0] + xp.astype(centres[0], offsets[0].dtype)
        return mean, xp.astype(mean, x.dtype), covariance

    def filter(
        self,
        xp: Any,
        constant: AnyArray,
        matrix: AnyArray,
        x: AnyArray,
        mean: AnyArray | None = None,
        addend: AnyArray | None = None,
        *,
        symmetric: bool = False,
    ) -> AnyArray:
        """P^T (constant + matrix (P x - mean)) / count + addend; the mean patch of x is computed if it is None.

        With `symmetric`, the matrix plus its transpose takes its place.
        """
        matrix = matrix + matrix.T if symmetric else matrix
        arranged = self.arrange(xp, x)
        if mean is None:
            centre, offset = self.centre(xp, arranged)
        else:  # the centre tap reads every sample once, so its mean is that of x
            middle = mean[int(np.ravel_multi_index([size // 2 for size in self.sizes], self.sizes))]
            centre = xp.astype(middle, x.dtype)
            offset = mean - xp.astype(centre, mean.dtype)
        matrix = xp.astype(matrix, x.dtype, copy=False) / self.count
        offset = xp.astype(constant, x.dtype, copy=False) / self.count - self.matmul(matrix, xp.astype(offset, x.dtype))
        result = self.spread(xp, arranged, centre, matrix, offset, None if addend is None else self.arrange(xp, addend))
        back = tuple(int(i) for i in np.argsort(self.order))
        return xp.permute_dims(xp.reshape(result, tuple(x.shape[a] for a in self.order)), back)

    def centre(self, xp: Any, x: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Mean of an arranged array, and its mean patch minus that mean, in double precision."""
        guess = xp.mean(x[:1, ...])  # subtracted first, so that a large mean costs no digits
        samples = self.shape[0] * self.shape[-1]
        total = self.position_sums(xp, x, guess) + samples * xp.astype(guess, wide_dtype(xp, x))
        centre = xp.astype(xp.sum(total) / self.count, x.dtype)
        return centre, self.tap_sums(xp, total, samples * xp.astype(centre, total.dtype)) / self.count

    def tap_sums(self, xp: Any, x: AnyArray, centre: AnyArray) -> AnyArray:
        """Sum (T,) over positions of the patches of one array (*patch axes) minus `centre`."""
        return xp.sum(self.gather(xp, x[None, ..., None], centre), axis=(0, 2))

    def position_sums(self, xp: Any, x: AnyArray, guess: AnyArray) -> AnyArray:
        """Sum over all samples of an arranged array minus `guess`: (*patch axes), in double precision."""
        sums: dict[int, AnyArray] = {}

        def block(samples: slice) -> None:
            sums[samples.start] = xp.sum(xp.sum(x[samples, ...] - guess, axis=-1), axis=0, dtype=wide_dtype(xp, x))

        self._each_block(xp, block, products=False)
        return in_order(sums)

    def gram(self, xp: Any, x: AnyArray, y: AnyArray, x_centre: AnyArray, y_centre: AnyArray) -> AnyArray:
        """Sum (T, T) of products of the centred patches of two arranged arrays, in double precision."""
        sums: dict[int, AnyArray] = {}

        def block(samples: slice) -> None:
            patches = self.gather(xp, x[samples, ...], x_centre)
            others = patches if x is y else self.gather(xp, y[samples, ...], y_centre)
            # (samples, T, positions) @ (samples, positions, T)
            products = xp.matmul(patches, xp.permute_dims(others, (0, 2, 1)))
            sums[samples.start] = xp.sum(products, axis=0, dtype=wide_dtype(xp, x))

        self._each_block(xp, block, products=True)
        return in_order(sums)

    def spread(
        self, xp: Any, x: AnyArray, centre: AnyArray, matrix: AnyArray, offset: AnyArray, addend: AnyArray | None = None
    ) -> AnyArray:
        """P^T (offset + matrix (P x - centre)) + addend, arranged."""
        result = xp.zeros(self.shape, dtype=x.dtype, **placement(xp, x))

        def block(samples: slice) -> None:
            # (T, T) @ (samples, T, positions)
            patches = xp.matmul(matrix, self.gather(xp, x[samples, ...], centre))
            self.scatter_add(xp, patches + offset[None, :, None], result[samples, ...])

        self._each_block(xp, block, products=True)
        return result if addend is None else addend + result

    def met(self) -> list[bool]:
        """Whether each tap reads a sample at some position, and not only zeros."""
        return [bool(pieces) for _, pieces, _ in self._pieces()]

    def _pieces(self) -> Any:
        spans = tuple((0, n) for n in self.lengths)
        return tap_pieces(self.lengths, spans, (1,) * len(spans), self.sizes, self.periodic)

    def _each_block(self, xp: Any, block: Callable[[slice], None], *, products: bool) -> None:
        """Call `block` on all samples, on several threads; `products` says that it calls matrix products."""
        size = max(1, current().gathered_elements // (self.taps * math.prod(self.shape[1:])))
        by_slices(xp, block, self.shape[0], size, self.count * self.taps, threaded=products)


def in_order(sums: dict[int, AnyArray]) -> AnyArray:
    """Return the sum of the blocks' sums in a fixed order, so that it does not depend on the threads."""
    total: Any = sum(sums[start] for start in sorted(sums))
    return total


make = Patches
