"""Patch moments of CuPy arrays by CUDA kernels: patches are never laid out in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.geometry import flat
from hcnn_core._engines.generic.patches import Patches
from hcnn_core._engines.taps import Integers, extended
from hcnn_core._engines.transform import tap_positions
from hcnn_core._tuning import current
from hcnn_core.backend import Array, DeviceTables, address_of, dtype_name, empty, placement

MOST_TAPS, MOST_POSITIONS = 9, 1 << 14
"""The products of a patch stay in registers. A table lists for every position the samples that it sums."""


def supports(x: Array, axes: Any, kernel_size: Any, boundary: Any) -> bool:
    """Whether the kernels can carry out a map."""
    patches: Patches[Array] = Patches(x, axes, kernel_size, boundary)
    few = patches.taps <= MOST_TAPS and math.prod(patches.lengths) <= MOST_POSITIONS
    return few and patches.count < 1 << 31  # which the kernels count in 32 bits


class CudaPatches(Patches[Array]):
    """Patches of few taps in images."""

    def arrange(self, xp: Any, x: Array) -> Array:
        """Return (samples, *patch axes, inner samples), in one piece."""
        return xp.ascontiguousarray(super().arrange(xp, x))

    def moments(self, xp: Any, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Mean patch of x, in double precision and in x's dtype, and the covariance of those of x and y, in x's."""
        arranged = [self.arrange(xp, a) for a in ((x,) if x is y else (x, y))]
        same, piece = x is y, self._piece(*arranged) if x is y else 1
        sums = self.taps * (self.taps + 3) // 2 if same else self.taps * (self.taps + 2)
        threads = self._gram_threads(x, sums)
        blocks = min(-(-self.count // (threads * current().device_sum_positions)), (1 << 16) - 1)
        doubles = {"dtype": xp.float64, **placement(xp, x)}
        parts, mean = xp.empty((blocks, sums), **doubles), xp.empty((self.taps,), **doubles)
        centres, narrow, covariance = (empty(xp, shape, x) for shape in ((2,), (self.taps,), (self.taps, self.taps)))
        arguments = arranged[0], arranged[-1], self._tables(x)[0], parts, centres, *self._numbers
        shared = sums * threads * x.itemsize
        self._launch("gram", x, (blocks,), arguments, shared, same=same, threads=threads, piece=piece)
        results, numbers = (mean, narrow, covariance), (np.int32(blocks), np.float64(self.count))
        self._launch("covariance_of", x, (self.taps**2,), (parts, centres, *results, *numbers), same=same)
        return results

    def filter(
        self, xp: Any, constant: Array, matrix: Array, x: Array, mean: Array | None = None, addend: Array | None = None,
        *, symmetric: bool = False,
    ) -> Array:  # fmt: skip
        """P^T (constant + matrix (P x - mean P x)) / count + addend; the mean is taken where it is not given.

        With `symmetric`, the matrix plus its transpose takes its place.
        """
        arranged = self.arrange(xp, x)
        if mean is None:
            mean = self.moments(xp, x, x)[0]
        y = empty(xp, arranged.shape, x)
        _, *tables = self._tables(x)
        like_x = (xp.ascontiguousarray(xp.astype(a, x.dtype, copy=False)) for a in (matrix, constant))
        added = None if addend is None else self.arrange(xp, addend)
        piece = self._piece(arranged, *(() if added is None else (added,)))
        (tiles, tile), halo, pieces = tables[0].shape, tables[1].shape[1], self.shape[-1] // piece
        lines = -(-pieces // max(1, 2 * current().device_filter_threads // tile))  # chunks of a place's pieces
        sizes = {"TILE": tile, "HALO": halo, "WIDTH": -(-pieces // lines)}
        blocks = max(1, min(current().device_blocks // (2 * tiles), self.shape[0] * lines))
        arguments = arranged, mean, *like_x, *tables, added, y, *self._numbers, np.int32(symmetric)
        shared = halo * sizes["WIDTH"] * piece * x.itemsize
        self._launch("spread", x, (tiles, blocks), arguments, shared, piece=piece, more=sizes)
        back = tuple(int(i) for i in np.argsort(self.order))
        return xp.permute_dims(xp.reshape(y, tuple(x.shape[a] for a in self.order)), back)

    def _piece(self, *arrays: Array) -> int:
        """How many elements a thread takes at a time: 16 bytes where all arrays divide into such pieces, else one."""
        elements = 16 // arrays[0].itemsize
        whole = self.shape[-1] % elements == 0 and not any(address_of(a) % 16 for a in arrays)
        return elements if whole else 1

    @property
    def _numbers(self) -> tuple[np.int32, ...]:
        """Places, samples inside them, and samples outside, as the kernels take them."""
        return np.int32(math.prod(self.lengths)), np.int32(self.shape[-1]), np.int32(self.shape[0])

    def _gram_threads(self, x: Array, sums: int) -> int:
        """Threads of a block that finds the shared memory for its sums: in float64 on small devices, fewer."""
        threads, room = current().device_filter_threads, cuda.device_limits().shared
        while threads > cuda.LANES and (sums + 1) * threads * x.itemsize > room:  # and a number each for `near_mean`
            threads //= 2
        return threads

    def _tables(self, x: Array) -> tuple[Array, ...]:
        return _tables(x, self.lengths, self.sizes, self.periodic)

    def _launch(
        self, name: str, x: Array, grid: tuple[int, ...], arguments: tuple[Any, ...], shared: int = 0,
        *, same: bool = True, threads: int | None = None, piece: int = 1, more: dict[str, int] | None = None,
    ) -> None:  # fmt: skip
        middle = int(np.ravel_multi_index([size // 2 for size in self.sizes], self.sizes))
        sizes = {"TAPS": self.taps, "STEPS": _steps(self.sizes), "OWN": middle, "SAME": int(same), "PIECE": piece}
        threads = threads or current().device_filter_threads
        blocks = 3 if x.itemsize == 4 else 1  # that fit beside each other; sums take twice the registers in float64
        sizes |= {"PATCH_THREADS": threads, "PATCH_BLOCKS": blocks} | (more or {})
        cuda.launch(name, dtype_name(x.dtype), sizes, grid, threads, arguments, shared)


def _steps(sizes: tuple[int, ...]) -> int:
    """How many positions can share a patch with one position."""
    return math.prod(2 * size - 1 for size in sizes)


def _neighbours(lengths: tuple[int, ...], sizes: tuple[int, ...], periodic: tuple[bool, ...]) -> Integers:
    """Return what tap t of the patch around each position reads, (T, positions): a flat index, or -1 for a zero."""
    along = zip(lengths, sizes, periodic, strict=True)
    reads = [extended(np.arange(n) - tap_positions(size)[:, None], n, wrap) for n, size, wrap in along]
    return flat(reads, lengths)


_placed = DeviceTables()


def _tables(like: Array, *problem: Any) -> tuple[Array, ...]:
    """Places of taps, and the tables of `spread`, on the device of `like`."""
    return _placed.beside(like, problem, lambda: tuple(np.ascontiguousarray(a, np.int32) for a in _spreading(*problem)))


def _spreading(lengths: tuple[int, ...], sizes: tuple[int, ...], periodic: tuple[bool, ...]) -> tuple[Integers, ...]:
    """Places (T, positions), and `own`, `halo`, `sources` and `slots` as `spread` takes them."""
    places = _neighbours(lengths, sizes, periodic)
    taps, count = places.shape
    sources = np.full((count, _steps(sizes)), -2)
    slots = np.full((count, taps, taps), -1)
    for tap, row in enumerate(places):
        (patches,) = np.nonzero(row >= 0)
        slots[row[patches], tap] = places[:, patches].T  # the sources, for now
        slots[np.setdiff1d(np.arange(count), row), tap] = -3
    for position, reads in enumerate(slots):
        values, index = np.unique(reads[reads != -3], return_inverse=True)
        sources[position, : values.size] = values[::-1]  # zeros last
        slots[position][reads != -3] = values.size - 1 - index
    side = {1: 64, 2: 8, 3: 4}.get(len(lengths), 2)  # of a tile
    corner = np.indices(lengths).reshape(len(lengths), -1) // side
    tile_of = np.ravel_multi_index(tuple(corner), tuple(-(-n // side) for n in lengths))
    tiles = [np.flatnonzero(tile_of == t) for t in range(tile_of.max() + 1)]
    halos = [np.setdiff1d(sources[tile], (-2, -1)) for tile in tiles]
    for tile, halo in zip(tiles, halos, strict=True):
        sources[tile] = np.where(sources[tile] < 0, sources[tile], np.searchsorted(halo, sources[tile]))
    return places, _rows(tiles), _rows(halos), sources, np.where(slots == -3, -1, slots)


def _rows(lists: list[Integers]) -> Integers:
    """Return lists as rows, -1 behind the shorter ones."""
    most = max(map(len, lists))
    return np.stack([np.pad(row, (0, most - len(row)), constant_values=-1) for row in lists])


make = CudaPatches
