"""Filters of one or two axes of attributes applied by tensor cores where they slide, without a transform."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.geometry import Gather, back_gathers, forward_gather, piece_of
from hcnn_core._engines.cuda.sums import add_terms
from hcnn_core._engines.taps import Integers
from hcnn_core._problem import Problem
from hcnn_core._tuning import current
from hcnn_core.backend import Array, DeviceLimits, DeviceTables, empty

THREADS = 256
WARPS = THREADS // cuda.LANES

TILES = {False: 4, True: 2}
"""Values of the first attribute whose sums, 16 results by 64 positions, a warp keeps, by `back`."""

TILES_OF_TAPS = 42
"""About how many tiles of 16 filters by eight taps a warp keeps."""

MOST_OFFSETS = 1 << 31

FROM_L2 = 0.23
"""Time to read a number from the L2 cache relative to a copy, at 6e12 bytes a second: counted."""

PART_SIZE = 64
"""Positions of a block, from which a warp makes a part of a row's moments."""


def _shared_of_taps(sizes: dict[str, int]) -> int:
    """Bytes of shared memory of `implicit_taps`: two chunks of positions, and in their place the sums of all warps."""
    results = sizes["RESULTS_1"] * sizes["RESULTS_2"] * 16
    rows = results + sizes["GROUP"] * sizes["SAMPLES_1"] * sizes["SAMPLES_2"]
    sums = WARPS * sizes["TAPS_1"] * -(-sizes["TAPS_2"] // 8) * 8 * 16
    return 4 * max(2 * rows * (sizes["POSITIONS"] + 4), sums)


class Implicit:
    """The products of one arrangement whose transformed axes are attributes, one or two, with one channel."""

    def __init__(self, arrangement: Arrangement) -> None:
        self.arrangement, self.problem, self.taps = arrangement, arrangement.problem, arrangement.taps
        g: Problem = self.problem
        one = (1, 1, 1, 1, False)
        axes = [
            (g.lengths[k], g.out_lengths[k], g.kernel_size[k], g.stride[k], g.boundary[k] == "periodic")
            for k in arrangement.spectral
        ]
        self.first, self.second = [one] * (2 - len(axes)) + axes
        self._placed = DeviceTables()

    @classmethod
    def supports(cls, a: Arrangement) -> bool:
        """Whether the kernel can make the products of an arrangement, on a device with enough shared memory."""
        g = a.problem
        along = [(g.lengths[k], g.kernel_size[k], g.stride[k], g.boundary[k]) for k in a.spectral]
        whole = all(wrap != "periodic" or (size <= n and n % r == 0) for n, size, r, wrap in along)
        sizes = (a.x_rows * a.taps.samples, a.y_rows * a.out * a.taps.results, a.taps.count * a.taps.results)
        return 1 <= len(along) <= 2 and a.channels == a.outer_size == 1 and whole and max(sizes) < MOST_OFFSETS

    def fits(self, limits: DeviceLimits) -> bool:
        """Whether a device can run the kernel, forward and back."""
        shared = (self._shared(self._sizes(back)) for back in (False, True))
        has_taps = self._sizes_of_taps(limits) is not None
        return limits.capability >= cuda.TENSOR_CAPABILITY and max(shared) <= limits.shared and has_taps

    def multiply_adds(self) -> float:
        """Multiply-adds of the convolution on tensor cores, with those that fill whole tiles."""
        a, (first, second) = self.arrangement, (self._met(self.first, 1), self._met(self.second, 8))
        return float(a.taps.count * a.taps.results * first * second * -(-a.out // 16) * 16)

    @staticmethod
    def _met(axis: tuple[int, int, int, int, bool], tile: int) -> int:
        """Return samples that the results along an axis meet, in whole tiles."""
        samples, results, taps, stride, wraps = axis
        if wraps:
            return results * -(-samples // tile) * tile if tile > 1 else results * taps
        last = np.arange(results) * stride + taps // 2
        low, high = np.maximum(last - taps + 1, 0) // tile, np.minimum(last, samples - 1) // tile
        return int(np.maximum(high - low + 1, 0).sum()) * tile

    def forward(
        self, x: Array, w: Array, y: Array, bias: Array | None = None, marginal: Array | None = None,
        parts: Array | None = None,
    ) -> None:  # fmt: skip
        """Write the result (rows, positions), or with a bias its ELU, and the sums of it over the first axis.

        `parts` (rows, parts, 2), in double precision, receives means of PART_SIZE positions each, before bias and ELU,
        and the sum of their squared deviations.
        """
        self._launch(x, w, y, bias, marginal, parts)

    def makes_marginal(self, axis: int) -> bool:
        """Whether a warp has all results along an axis of the result (see `forward`)."""
        a = self.arrangement
        return len(a.spectral) == 2 and a.y_order.index(axis) == 0 and self.first[1] <= TILES[False]

    def back(self, g: Array, w: Array, x: Array) -> None:
        """Write the cotangent of x (rows, positions), which holds zeros where no tap reads x."""
        if self._gathers(True):
            self._launch(g, w, x, back=True)

    def filters(self, xp: Any, g: Array, x: Array) -> Array:
        """Cotangent of the filters, by the taps of transformed axes, then of direct ones, (S, T, 1, K)."""
        sizes = self._sizes_of_taps(cuda.device_limits())
        assert sizes is not None
        batch, padded, gather = self.taps.batch, -(-self.arrangement.out // 16), self._gathers(False)[0]
        lines, taps = gather.count, gather.taps.size
        grid_y, chunks = -(-taps // sizes["GROUP"]), -(-lines * batch // sizes["POSITIONS"])
        blocks = max(1, min(chunks, current().device_blocks // (4 * grid_y * padded)))
        count = taps * self.first[2] * self.second[2] * self.arrangement.out
        parts, reads = empty(xp, (blocks, count), x), self._table(x, "reads", lambda: gather.whole()[0])
        numbers = map(np.int32, (taps, lines, batch, g.shape[1], x.shape[1]))
        arguments, sizes = (g, x, reads, parts, *numbers), sizes | {"PIECE": piece_of(batch, g, x)}
        grid = blocks, grid_y, padded
        cuda.launch("implicit_taps", "float32", sizes, grid, THREADS, arguments, _shared_of_taps(sizes))
        return xp.reshape(add_terms(xp, parts, (1, blocks, count)), (-1, taps, 1, self.arrangement.out))

    @cuda.kept
    def _sizes_of_taps(self, limits: DeviceLimits) -> dict[str, int] | None:
        """Choose sizes of `implicit_taps`: as many taps and positions at a time as registers and shared memory hold."""
        tiles = self.first[2] * -(-self.second[2] // 8)
        most = min(max(1, TILES_OF_TAPS // tiles), self.taps.count)
        for positions in (16, 8):
            for group in range(most, 0, -1):
                constants = {"IMPLICIT_TAPS": THREADS, "TENSOR_CORES": 1, "GROUP": group, "POSITIONS": positions}
                sizes = {**constants, **self._geometry()}
                if _shared_of_taps(sizes) <= limits.shared and group * tiles <= 1.25 * TILES_OF_TAPS:
                    return sizes
        return None

    @property
    def complete(self) -> bool:
        """Whether every sample is read by a tap."""
        return sum(gather.count for gather in self._gathers(True)) == math.prod(self.taps.lengths)

    @cuda.kept
    def _sizes(self, back: bool) -> dict[str, int]:
        tiles, others = TILES[back], self.first[1] * self.second[1] if back else self.first[0]
        down = WARPS
        while down > 1 and down // 2 >= self._groups(tiles, back=back) and 2 * WARPS // down <= others:
            down //= 2  # a group's warps share out what it sums
        sizes = {"IMPLICIT": THREADS, "TENSOR_CORES": 1, "BACK": int(back), "TILES": tiles, "SHARES": WARPS // down}
        return sizes | {"BESIDE": 2 if tiles < 4 else 1} | self._geometry()

    def _groups(self, tiles: int, *, back: bool) -> int:
        """Return the number of groups of rows of the result, one for each warp."""
        firsts = -(-self.first[0 if back else 1] // tiles)
        return firsts * (-(-self.second[0] // 16) if back else self.second[1] * -(-self.arrangement.out // 16))

    def _geometry(self) -> dict[str, int]:
        """Return the kernels' constants for the filters and both axes of attributes."""
        sizes = {"FILTERS": self.arrangement.out}
        for k, axis in ((1, self.first), (2, self.second)):
            names = "SAMPLES", "RESULTS", "TAPS", "STEP", "WRAP"
            sizes |= {f"{name}_{k}": int(n) for name, n in zip(names, axis, strict=True)}
        return sizes

    def _shared(self, sizes: dict[str, int]) -> int:
        """Bytes of shared memory: the filters, and two stages of 16 rows for each share; or the sums of these."""
        taps = max((gather.taps.size for gather in self._gathers(bool(sizes["BACK"]))), default=0)
        filters = taps * sizes["TAPS_1"] * (sizes["TAPS_2"] + 1) * -(-sizes["FILTERS"] // 16) * 16
        sums = WARPS // sizes["SHARES"] * sizes["TILES"] * 1024
        return 4 * max(filters + 16 * sizes["SHARES"] * (2 * PART_SIZE + 8), sums if sizes["SHARES"] > 1 else 0)

    @cuda.kept
    def _gathers(self, back: bool) -> list[Gather]:
        return list(back_gathers(self.taps)) if back else [forward_gather(self.taps)]

    def _launch(
        self, x: Array, w: Array, out: Array, bias: Array | None = None, marginal: Array | None = None,
        parts: Array | None = None, *, back: bool = False,
    ) -> None:  # fmt: skip
        batch, sizes, phases = self.taps.batch, self._sizes(back), self._gathers(back)
        sizes = sizes | {"PIECE": piece_of(batch, x, out, *(() if marginal is None else (marginal,)))}
        positions = max(gather.count for gather in phases) * batch
        rows = -(-self._groups(sizes["TILES"], back=back) // (WARPS // sizes["SHARES"]))
        table = self._table(x, ("phases", back), lambda: in_one(phases))
        numbers = map(np.int32, (batch, self.taps.count, x.shape[1], out.shape[1]))
        grid, shared = (-(-positions // PART_SIZE), rows, len(phases)), self._shared(sizes)
        arguments = x, w, table, bias, out, marginal, parts, *numbers
        cuda.launch("implicit", "float32", sizes, grid, THREADS, arguments, shared)

    def _table(self, like: Array, name: Any, values: Callable[[], Integers]) -> Array:
        return self._placed.beside(like, name, lambda: np.ascontiguousarray(values(), np.int32))


def in_one(phases: list[Gather]) -> Integers:
    """Return one table of all phases, as `implicit` reads it: counts of taps and lines, and where each begins."""
    heads, tables, at = [], [], 3 * len(phases)
    for gather in phases:
        reads, targets = gather.whole()
        heads += [gather.taps.size, targets.size, at]
        tables += [gather.taps, reads.ravel(), targets]
        at += gather.taps.size + reads.size + targets.size
    return np.concatenate([np.asarray(heads), *tables])
