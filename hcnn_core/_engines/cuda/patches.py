"""Patch moments of CuPy arrays by CUDA kernels: patches are never laid out in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.matmul import matmul
from hcnn_core._engines.generic.patches import Patches
from hcnn_core._engines.taps import Integers, extended
from hcnn_core.backend import Array, constant, device_of, dtype_name, empty, placement

THREADS = 128

PER_THREAD = 64
"""Positions whose products a thread adds up in the dtype of x, before sums go on in double precision."""


MOST_TAPS, MOST_POSITIONS = 9, 1 << 14
"""The products of a patch stay in registers; a table tells every position what it sums up."""


class CudaPatches(Patches):
    """Patches of few taps in images."""

    matmul = staticmethod(matmul)

    @classmethod
    def suits(cls, patches: Patches) -> bool:
        """Whether the kernels can carry out a map."""
        return patches.taps <= MOST_TAPS and math.prod(patches.lengths) <= MOST_POSITIONS

    def arrange(self, xp: Any, x: Array) -> Array:
        """(samples, *patch axes, inner samples), in one piece."""
        return xp.ascontiguousarray(super().arrange(xp, x))

    def position_sums(self, xp: Any, x: Array, guess: Array) -> Array:
        """Sums of an arranged array less a guess of its mean over all samples, in double precision."""
        return xp.sum(xp.sum(x - guess, axis=-1), axis=0, dtype=xp.float64)

    def tap_sums(self, xp: Any, x: Array, centre: Array) -> Array:
        """Sum of the patches (T,) of one array (*patch axes), which zeros extend, less `centre` at every position."""
        places = _tables(xp, x, self.lengths, self.sizes, self.periodic)[0]
        return xp.sum(xp.where(places < 0, 0.0, xp.reshape(x, (-1,))[places]) - centre, axis=1)

    def gram(self, xp: Any, x: Array, y: Array, x_centre: Array, y_centre: Array) -> Array:
        """Sums of products (T, T) of the patches of two arranged arrays less their centres, in double precision."""
        blocks = min(-(-self.count // (THREADS * PER_THREAD)), 1 << 16)
        parts = xp.empty((blocks, self.taps, self.taps), dtype=xp.float64, **placement(xp, x))
        places = _tables(xp, x, self.lengths, self.sizes, self.periodic)[0]
        self._launch(
            "gram",
            x,
            (blocks,),
            (x, y, xp.asarray(x_centre), xp.asarray(y_centre), places, parts),
            self.taps**2 * THREADS * x.itemsize,
        )
        return xp.sum(parts, axis=0)

    def spread(
        self, xp: Any, x: Array, centre: Array, matrix: Array, offset: Array, other: Array | None = None
    ) -> Array:
        """P^T (offset + matrix P (x - centre)) + other, arranged; zeros extend x before its centre is taken."""
        y = empty(xp, x.shape, x)
        _, sources, slots = _tables(xp, x, self.lengths, self.sizes, self.periodic)
        blocks = min(-(-self.shape[0] * self.shape[-1] // (4 * THREADS)), (1 << 16) - 1)
        arguments = (
            x,
            xp.asarray(centre),
            xp.ascontiguousarray(matrix),
            xp.ascontiguousarray(offset),
            sources,
            slots,
            y,
        )
        self._launch("spread", x, (math.prod(self.lengths), blocks), arguments)
        return y if other is None else other + y

    def _launch(
        self, name: str, x: Array, grid: tuple[int, ...], arguments: tuple[Array, ...], shared: int = 0
    ) -> None:
        blocks = 3 if x.itemsize == 4 else 1  # that fit beside each other; sums take twice the registers in float64
        sizes = {"TAPS": self.taps, "STEPS": _steps(self.sizes), "PATCH_THREADS": THREADS, "PATCH_BLOCKS": blocks}
        numbers = map(np.int32, (math.prod(self.lengths), self.shape[-1], self.shape[0]))
        cuda.launch(name, dtype_name(x.dtype), sizes, grid, THREADS, (*arguments, *numbers), shared)


def _steps(sizes: tuple[int, ...]) -> int:
    """How many positions the patches that hold a position can reach."""
    return math.prod(2 * size - 1 for size in sizes)


def _neighbours(lengths: tuple[int, ...], sizes: tuple[int, ...], periodic: tuple[bool, ...]) -> Integers:
    """What tap t of the patch around each position reads, (T, positions): a flat index, or -1 for a zero."""
    places: Any = np.zeros((1, 1), np.int64)
    for n, size, wrap in zip(lengths, sizes, periodic, strict=True):
        index = np.arange(n) - (np.arange(size)[:, None] - size // 2)
        place, index = places[:, None, :, None], extended(index, n, wrap)[None, :, None, :]
        places = np.where((place < 0) | (index < 0), -1, place * n + index).reshape(-1, places.shape[1] * n)
    return places  # type: ignore[no-any-return]


_placed: dict[Any, tuple[Array, ...]] = {}


def _tables(xp: Any, like: Array, *problem: Any) -> tuple[Array, ...]:
    """Places of taps, and sources and slots of `spread`, on the device of `like`, sent there once."""
    key = (xp.__name__, device_of(like), problem)
    if key not in _placed:
        tables = (np.ascontiguousarray(a, np.int32) for a in _spreading(*problem))
        _placed[key] = tuple(constant(xp, a, like.device) for a in tables)
    return _placed[key]


def _spreading(
    lengths: tuple[int, ...], sizes: tuple[int, ...], periodic: tuple[bool, ...]
) -> tuple[Integers, Integers, Integers]:
    """Places (T, positions); and what positions sum up: sources (positions, steps), slots (positions, T, T)."""
    places = _neighbours(lengths, sizes, periodic)
    taps, count = places.shape
    sources = np.full((count, _steps(sizes)), -2)
    slots = np.full((count, taps, taps), -1)
    for tap, row in enumerate(places):
        (patches,) = np.nonzero(row >= 0)
        slots[row[patches], tap] = places[:, patches].T  # the sources, for now
        slots[np.setdiff1d(np.arange(count), row), tap] = -3
    for position, reads in enumerate(slots):
        found, index = np.unique(reads[reads != -3], return_inverse=True)
        sources[position, : found.size] = found
        slots[position][reads != -3] = index
    return places, sources, np.where(slots == -3, -1, slots)
