"""Convolutions with summed channels by tensor cores, on tiles of samples that lie in shared memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.implicit import FROM_L2, MOST_OFFSETS, TILES_OF_TAPS, flat, piece_of
from hcnn_core._engines.cuda.sums import add_terms
from hcnn_core._engines.taps import Integers, Taps, extended, outputs_met, phases_met
from hcnn_core._tuning import Units, current
from hcnn_core.backend import Array, DeviceLimits, DeviceTables, empty

EIGHT = 8
"""Elements of the batch, and channels, that a block takes at a time; places of a warp."""

TILES = {1: (4, 3, 2, 1), 3: (2, 1)}
"""Rows of which a warp keeps the sums, 16 each, by `passes`."""

WARPS = 8, 4
"""Warps of a block, which has eight places for each."""

FEWEST_BLOCKS = 264
"""Blocks of which each multiprocessor of an H200 has two. Where large blocks are fewer, blocks are smaller."""

MOST_TAPS = 81
"""Of more taps, filters do not fit."""

Found = tuple[dict[str, int], tuple[int, ...]]
"""Sizes of a kernel, and the results of a tile along each axis."""


@dataclass(frozen=True)
class Way:
    """Results along the direct axes from samples: result `a` of an axis reads samples step * a + shifts by its taps."""

    taps: Integers
    steps: tuple[int, ...]
    shifts: tuple[Integers, ...]
    lengths: tuple[int, ...]
    periodic: tuple[bool, ...]
    results: tuple[Integers, ...]
    """Places of the results along each axis, of `out_lengths`."""
    out_lengths: tuple[int, ...]

    def extents(self, tile: tuple[int, ...]) -> tuple[int, ...]:
        """Places that a tile of results reads along each axis, with those between."""
        along = zip(tile, self.steps, self.shifts, strict=True)
        return tuple((n - 1) * step + int(shift.max() - shift.min()) + 1 for n, step, shift in along)

    def tile(self, places: int) -> tuple[int, ...]:
        """So many results, a power of two along each axis, that read few places."""
        tile: tuple[int, ...] = (1,) * len(self.results)
        most = [1 << (along.size - 1).bit_length() for along in self.results]
        while math.prod(tile) < places:
            grown = [(*tile[:k], 2 * n, *tile[k + 1 :]) for k, n in enumerate(tile) if n < most[k]]
            grown = grown or [(*tile[:-1], 2 * tile[-1])]
            tile = min(grown, key=lambda t: math.prod(self.extents(t)))
        return tile

    def tiles(self, tile: tuple[int, ...]) -> int:
        """How many tiles have all results."""
        return math.prod(-(-along.size // n) for along, n in zip(self.results, tile, strict=True))

    def tables(self, tile: tuple[int, ...]) -> tuple[Integers, ...]:
        """As the kernels want them: taps, `reads` and `targets` of each tile, `starts` and `offsets` in a tile."""
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


def forward_way(t: Taps) -> Way:
    """Return the results of a convolution from x."""
    shifts = tuple(size // 2 - np.arange(size) for size in t.sizes)
    places = tuple(map(np.arange, t.out_lengths))
    return Way(np.arange(t.count), t.stride, shifts, t.lengths, t.periodic, places, t.out_lengths)


def back_ways(t: Taps) -> Iterator[Way]:
    """Yield the cotangent of x from that of the result, for each phase of x that meets taps."""
    for phase, taps in phases_met(t):
        shifts = tuple(outputs_met(size, r, p) for size, r, p in zip(t.sizes, t.stride, phase, strict=True))
        places = tuple(np.arange(p, n, r) for p, n, r in zip(phase, t.lengths, t.stride, strict=True))
        yield Way(taps, (1,) * len(places), shifts, t.out_lengths, t.periodic, places, t.lengths)


class Summed:
    """The products of an arrangement without a transform, in place of `apply` and `correlate` (see `CudaPlan`)."""

    def __init__(self, arrangement: Arrangement) -> None:
        self.arrangement, self.taps = arrangement, arrangement.taps
        self._placed = DeviceTables()

    @classmethod
    def suits(cls, a: Arrangement) -> bool:
        """Whether the kernels can make the products of an arrangement, on a device with enough shared memory."""
        t = a.taps
        sizes = (a.channels * t.samples, a.out * t.results, t.count * a.channels * a.out)
        alone = not a.spectral and a.outer_size == 1 and not t.uneven
        return alone and 0 < t.count <= MOST_TAPS and min(sizes) > 0 and max(sizes) < MOST_OFFSETS

    @cached_property
    def _ways(self) -> dict[str, Way]:
        """The forward way, and a way back for each phase of x that meets taps."""
        back = {f"back {number}": way for number, way in enumerate(back_ways(self.taps))}
        return {"forward": forward_way(self.taps), **back}

    @cached_property
    def complete(self) -> bool:
        """Whether some tap reads each sample."""
        counts = (math.prod(k.size for k in way.results) for name, way in self._ways.items() if name != "forward")
        return sum(counts) == math.prod(self.taps.lengths)

    def makes_marginal(self, axis: int, passes: int) -> bool:
        """Whether sums of the result along an axis are made on the way."""
        return False

    def fits(self, passes: int, limits: DeviceLimits) -> bool:
        """Whether a device can run the kernels, forward and back."""
        if limits.capability < cuda.TENSOR_CAPABILITY or self._sizes_of_taps(passes, limits) is None:
            return False
        return all(self._sizes(name, passes, limits) for name in self._ways)

    def units(self, passes: int, limits: DeviceLimits) -> Units:
        """Products of whole tiles; what is read and written once, as half a copy each; the rest from the L2 cache."""
        a, products, read = self.arrangement, 0, 0
        for name, way in self._ways.items():
            choice = self._sizes(name, passes, limits)
            assert choice is not None
            sizes, tile = choice
            channels, rows = -(-sizes["CHANNELS"] // EIGHT) * EIGHT, 16 * sizes["TILES"]
            blocks = math.prod(self._grid(way, tile, sizes)) * channels
            products += blocks * sizes["PLACES"] * EIGHT * sizes["ALL_TAPS"] * rows
            read += blocks * (sizes["EXT"] * EIGHT + sizes["ALL_TAPS"] * rows)
        once = a.channels * self.taps.samples + a.out * self.taps.results
        return {"plan": 1, "slid_mac": 1.5 * passes * products, "copy": 1.5 * (once + FROM_L2 * read)}

    def forward(
        self, x: Array, w: Array, y: Array, passes: int, bias: Array | None = None, marginal: Array | None = None,
        parts: Array | None = None,
    ) -> None:  # fmt: skip
        """Write the result (rows, positions), or with a bias its ELU, by filters (1, taps, channels, filters)."""
        self._launch(x, w, y, "forward", passes, bias)

    def back(self, g: Array, w: Array, x: Array, passes: int) -> None:
        """Write the cotangent of x (rows, positions), which holds zeros where no tap reads x."""
        for name in list(self._ways)[1:]:
            self._launch(g, w, x, name, passes)

    def filters(self, xp: Any, g: Array, x: Array, passes: int) -> Array:
        """Cotangent of the filters (1, taps, channels, filters)."""
        choice = self._sizes_of_taps(passes, cuda.device_limits())
        assert choice is not None
        sizes, tile, shared = choice
        a, t, tables = self.arrangement, self.taps, self._tables(x, "forward", tile)[1:]
        tiles = self._ways["forward"].tiles(tile)
        across = -(-t.count // sizes["GROUP"]) * -(-a.channels // (EIGHT * sizes["OCTETS"]))
        down = -(-a.out // (16 * sizes["TILES"]))
        blocks = max(1, min(tiles * -(-t.batch // EIGHT), current().device_blocks // (across * down)))
        parts = empty(xp, (blocks, t.count * a.channels * a.out), x)
        numbers, sizes = (tiles, t.batch, g.shape[1], x.shape[1]), sizes | {"PIECE": piece_of(t.batch, g, x)}
        cuda.launch(
            "summed_taps", "float32", sizes, (blocks, across, down), sizes["SUMMED_TAPS"],
            (g, x, *tables, parts, *map(np.int32, numbers)), shared,
        )  # fmt: skip
        total = xp.reshape(add_terms(xp, parts, (1, blocks, parts.shape[1])), (1, a.channels, t.count, a.out))
        return xp.permute_dims(total, (0, 2, 1, 3))  # as they lie in w

    @cuda.kept
    def _sizes(self, name: str, passes: int, limits: DeviceLimits) -> Found | None:
        """Choose sizes of `summed` and its tile: the largest of which there are enough blocks, or else the smallest."""
        a, choice, way, back = self.arrangement, None, self._ways[name], name != "forward"
        channels, results = (a.out, a.channels) if back else (a.channels, a.out)
        padded = {m: -(-results // (16 * m)) * m for m in TILES[passes]}
        for tiles in (m for m in padded if padded[m] == min(padded.values())):
            for warps in WARPS:
                tile = way.tile(warps * EIGHT)
                sizes = {"SUMMED": warps * cuda.LANES, "PASSES": passes, "BACK": int(back), "TILES": tiles}
                sizes |= {"PLACES": warps * EIGHT, "EXT": math.prod(way.extents(tile)), "ALL_TAPS": way.taps.size}
                sizes |= {"CHANNELS": channels, "RESULTS": results}
                if self._shared(sizes) > limits.shared:
                    continue
                choice = sizes, tile
                if math.prod(self._grid(way, tile, sizes)) >= FEWEST_BLOCKS:
                    return choice
        return choice

    def _grid(self, way: Way, tile: tuple[int, ...], sizes: dict[str, int]) -> tuple[int, int]:
        return way.tiles(tile) * -(-self.taps.batch // EIGHT), -(-sizes["RESULTS"] // (16 * sizes["TILES"]))

    @staticmethod
    def _shared(sizes: dict[str, int]) -> int:
        """Bytes of shared memory: two stages of filters and samples, beside tables."""
        filters = sizes["ALL_TAPS"] * EIGHT * (16 * sizes["TILES"] + 8)
        return 8 * (filters + EIGHT * _pitch(sizes["EXT"], 8)) + _of_tables(sizes)

    @cuda.kept
    def _sizes_of_taps(self, passes: int, limits: DeviceLimits) -> tuple[dict[str, int], tuple[int, ...], int] | None:
        """Return the sizes of `summed_taps`, its tile, and bytes of shared memory."""
        a, t = self.arrangement, self.taps
        tiles = min(-(-a.out // 16), 4 if passes == 1 else 1)
        threads, octets = 256, min(2, -(-a.channels // EIGHT))
        for places in (16, 8):
            tile = self._ways["forward"].tile(places)
            sizes = {"SUMMED_TAPS": threads, "PASSES": passes, "TILES": tiles, "OCTETS": octets, "PLACES": places}
            sizes |= {"GROUP": min(t.count, TILES_OF_TAPS[passes] // tiles), "ALL_TAPS": t.count}
            extent = math.prod(self._ways["forward"].extents(tile))
            sizes |= {"EXT": extent, "CHANNELS": a.channels, "RESULTS": a.out}
            stages = 8 * (16 * tiles * _pitch(places, 4) + EIGHT * octets * _pitch(extent, 4))
            shared = max(stages, threads // cuda.LANES * 16 * tiles * EIGHT * 4)
            if shared + 4 * (places + sizes["GROUP"]) <= limits.shared:
                return sizes, tile, shared
        return None

    def _launch(self, x: Array, w: Array, out: Array, name: str, passes: int, bias: Array | None = None) -> None:
        choice = self._sizes(name, passes, cuda.device_limits())
        assert choice is not None
        sizes, tile = choice
        steps = (w.strides[2] // w.itemsize, w.strides[1] // w.itemsize)
        numbers = map(np.int32, (self.taps.batch, x.shape[1], out.shape[1], *steps))
        side_by_side = not sizes["BACK"] and not any(n % 4 for n in (sizes["RESULTS"], *steps))
        pieces = {"PIECE": piece_of(self.taps.batch, x), "W_PIECE": piece_of(0, w) if side_by_side else 1}
        arguments = x, w, *self._tables(x, name, tile), bias, out, *numbers
        grid, shared = self._grid(self._ways[name], tile, sizes), self._shared(sizes) - _of_tables(sizes)
        cuda.launch("summed", "float32", sizes | pieces, grid, sizes["SUMMED"], arguments, shared)

    def _tables(self, like: Array, name: str, tile: tuple[int, ...]) -> Any:
        """Return the tables of a way on the device, as `Way.tables` has them."""
        make = lambda: tuple(np.ascontiguousarray(t, np.int32) for t in self._ways[name].tables(tile))  # noqa: E731
        return self._placed.beside(like, (name, tile), make)


def _pitch(places: int, shift: int) -> int:
    """Numbers between rows of eight elements at so many places each: `pitch_of` in the kernels."""
    return -(-places * EIGHT // 32) * 32 + shift


def _of_tables(sizes: dict[str, int]) -> int:
    """Bytes of tables that `summed` has in shared memory."""
    return 4 * (sizes["EXT"] + 2 * sizes["ALL_TAPS"])
