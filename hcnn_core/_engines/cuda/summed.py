"""Convolutions with summed channels by tensor cores, on tiles of samples that lie in shared memory."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.geometry import Gather, back_gathers, forward_gather, piece_of
from hcnn_core._engines.cuda.implicit import FROM_L2, MOST_OFFSETS, TILES_OF_TAPS
from hcnn_core._engines.cuda.sums import add_terms
from hcnn_core._tuning import Units, current
from hcnn_core.backend import Array, DeviceLimits, DeviceTables, empty

EIGHT = 8
"""Elements of the batch, and channels, that a block takes at a time; places of a warp."""

TILES = 4, 3, 2, 1
"""Tiles of 16 rows whose sums a warp keeps."""

WARPS = 8, 4
"""Warps of a block, which has eight places for each."""

FEWEST_BLOCKS = 264
"""Two blocks for each multiprocessor of an H200. Where there are fewer large blocks, smaller ones are taken."""

MOST_TAPS = 81
"""Most taps whose filters fit."""

KernelSizes = tuple[dict[str, int], tuple[int, ...]]
"""A kernel's sizes, and the results of a tile along each axis."""


class Summed:
    """The products of an arrangement without a transform, in place of `apply` and `correlate` (see `TensorPlan`)."""

    def __init__(self, arrangement: Arrangement) -> None:
        self.arrangement, self.taps = arrangement, arrangement.taps
        self._placed = DeviceTables()

    @classmethod
    def supports(cls, a: Arrangement) -> bool:
        """Whether the kernels can make the products of an arrangement, on a device with enough shared memory."""
        t = a.taps
        sizes = (a.channels * t.samples, a.out * t.results, t.count * a.channels * a.out)
        alone = not a.spectral and a.outer_size == 1 and not t.uneven
        return alone and 0 < t.count <= MOST_TAPS and min(sizes) > 0 and max(sizes) < MOST_OFFSETS

    @cached_property
    def _gathers(self) -> dict[str, Gather]:
        """Which samples results read: forward, and back for each phase of x that meets taps."""
        back = {f"back {number}": gather for number, gather in enumerate(back_gathers(self.taps))}
        return {"forward": forward_gather(self.taps), **back}

    @cached_property
    def complete(self) -> bool:
        """Whether every sample is read by a tap."""
        counts = (gather.count for name, gather in self._gathers.items() if name != "forward")
        return sum(counts) == math.prod(self.taps.lengths)

    def makes_marginal(self, axis: int) -> bool:
        """Whether sums of the result along an axis are made on the way."""
        return False

    def fits(self, limits: DeviceLimits) -> bool:
        """Whether a device can run the kernels, forward and back."""
        if limits.capability < cuda.TENSOR_CAPABILITY or self._sizes_of_taps(limits) is None:
            return False
        return all(self._sizes(name, limits) for name in self._gathers)

    def units(self, limits: DeviceLimits) -> Units:
        """Products of whole tiles; what is read and written once, as half a copy each; the rest from the L2 cache."""
        a, products, read = self.arrangement, 0, 0
        for name, gather in self._gathers.items():
            choice = self._sizes(name, limits)
            assert choice is not None
            sizes, tile = choice
            channels, rows = -(-sizes["CHANNELS"] // EIGHT) * EIGHT, 16 * sizes["TILES"]
            blocks = math.prod(self._grid(gather, tile, sizes)) * channels
            products += blocks * sizes["PLACES"] * EIGHT * sizes["ALL_TAPS"] * rows
            read += blocks * (sizes["EXT"] * EIGHT + sizes["ALL_TAPS"] * rows)
        once = a.channels * self.taps.samples + a.out * self.taps.results
        return {"plan": 1, "slid_mac": 1.5 * products, "copy": 1.5 * (once + FROM_L2 * read)}

    def forward(
        self, x: Array, w: Array, y: Array, bias: Array | None = None, marginal: Array | None = None,
        parts: Array | None = None,
    ) -> None:  # fmt: skip
        """Write the result (rows, positions), or with a bias its ELU, by filters (1, taps, channels, filters)."""
        self._launch(x, w, y, "forward", bias)

    def back(self, g: Array, w: Array, x: Array) -> None:
        """Write the cotangent of x (rows, positions), which holds zeros where no tap reads x."""
        for name in list(self._gathers)[1:]:
            self._launch(g, w, x, name)

    def filters(self, xp: Any, g: Array, x: Array) -> Array:
        """Cotangent of the filters (1, taps, channels, filters)."""
        choice = self._sizes_of_taps(cuda.device_limits())
        assert choice is not None
        sizes, tile, shared = choice
        a, t, tables = self.arrangement, self.taps, self._tables(x, "forward", tile)[1:]
        tiles = self._gathers["forward"].tiles(tile)
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
    def _sizes(self, name: str, limits: DeviceLimits) -> KernelSizes | None:
        """Choose sizes of `summed` and its tile: the largest with enough blocks, or else the smallest."""
        a, choice, gather, back = self.arrangement, None, self._gathers[name], name != "forward"
        channels, results = (a.out, a.channels) if back else (a.channels, a.out)
        padded = {m: -(-results // (16 * m)) * m for m in TILES}
        for tiles in (m for m in padded if padded[m] == min(padded.values())):
            for warps in WARPS:
                tile = gather.tile(warps * EIGHT)
                sizes = {"SUMMED": warps * cuda.LANES, "TENSOR_CORES": 1, "BACK": int(back), "TILES": tiles}
                sizes |= {"PLACES": warps * EIGHT, "EXT": math.prod(gather.extents(tile)), "ALL_TAPS": gather.taps.size}
                sizes |= {"CHANNELS": channels, "RESULTS": results}
                if self._shared(sizes) > limits.shared:
                    continue
                choice = sizes, tile
                if math.prod(self._grid(gather, tile, sizes)) >= FEWEST_BLOCKS:
                    return choice
        return choice

    def _grid(self, gather: Gather, tile: tuple[int, ...], sizes: dict[str, int]) -> tuple[int, int]:
        return gather.tiles(tile) * -(-self.taps.batch // EIGHT), -(-sizes["RESULTS"] // (16 * sizes["TILES"]))

    @staticmethod
    def _shared(sizes: dict[str, int]) -> int:
        """Bytes of shared memory: two stages of filters and samples, beside tables."""
        filters = sizes["ALL_TAPS"] * EIGHT * (16 * sizes["TILES"] + 8)
        return 8 * (filters + EIGHT * _pitch(sizes["EXT"], 8)) + _of_tables(sizes)

    @cuda.kept
    def _sizes_of_taps(self, limits: DeviceLimits) -> tuple[dict[str, int], tuple[int, ...], int] | None:
        """Return the sizes of `summed_taps`, its tile, and bytes of shared memory."""
        a, t = self.arrangement, self.taps
        tiles = min(-(-a.out // 16), 4)
        threads, octets = 256, min(2, -(-a.channels // EIGHT))
        for places in (16, 8):
            tile = self._gathers["forward"].tile(places)
            sizes = {"SUMMED_TAPS": threads, "TENSOR_CORES": 1, "TILES": tiles, "OCTETS": octets, "PLACES": places}
            sizes |= {"GROUP": min(t.count, TILES_OF_TAPS // tiles), "ALL_TAPS": t.count}
            extent = math.prod(self._gathers["forward"].extents(tile))
            sizes |= {"EXT": extent, "CHANNELS": a.channels, "RESULTS": a.out}
            stages = 8 * (16 * tiles * _pitch(places, 4) + EIGHT * octets * _pitch(extent, 4))
            shared = max(stages, threads // cuda.LANES * 16 * tiles * EIGHT * 4)
            if shared + 4 * (places + sizes["GROUP"]) <= limits.shared:
                return sizes, tile, shared
        return None

    def _launch(self, x: Array, w: Array, out: Array, name: str, bias: Array | None = None) -> None:
        choice = self._sizes(name, cuda.device_limits())
        assert choice is not None
        sizes, tile = choice
        steps = (w.strides[2] // w.itemsize, w.strides[1] // w.itemsize)
        numbers = map(np.int32, (self.taps.batch, x.shape[1], out.shape[1], *steps))
        side_by_side = not sizes["BACK"] and not any(n % 4 for n in (sizes["RESULTS"], *steps))
        pieces = {"PIECE": piece_of(self.taps.batch, x), "W_PIECE": piece_of(0, w) if side_by_side else 1}
        arguments = x, w, *self._tables(x, name, tile), bias, out, *numbers
        grid, shared = self._grid(self._gathers[name], tile, sizes), self._shared(sizes) - _of_tables(sizes)
        cuda.launch("summed", "float32", sizes | pieces, grid, sizes["SUMMED"], arguments, shared)

    def _tables(self, like: Array, name: str, tile: tuple[int, ...]) -> Any:
        """Return the tables of a gather on the device, as `Gather.tables` has them."""
        make = lambda: tuple(np.ascontiguousarray(t, np.int32) for t in self._gathers[name].tables(tile))  # noqa: E731
        return self._placed.beside(like, (name, tile), make)


def _pitch(places: int, shift: int) -> int:
    """Numbers between rows of eight elements at these places: `pitch_of` in the kernels."""
    return -(-places * EIGHT // 32) * 32 + shift


def _of_tables(sizes: dict[str, int]) -> int:
    """Bytes of tables that `summed` has in shared memory."""
    return 4 * (sizes["EXT"] + 2 * sizes["ALL_TAPS"])
