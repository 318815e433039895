"""One filter, of one channel in and one out, on a GPU: no rows to multiply, so each thread keeps samples instead."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.sums import add_terms
from hcnn_core._engines.generic import elementwise
from hcnn_core._engines.taps import outputs_met
from hcnn_core._problem import Problem
from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import Array, dtype_name, empty, permute_dims, placement, reshape

THREADS = 256
AT_ONCE = 12
"""Most taps whose samples a thread reads at once."""

RESULTS = (9, 7, 5, 3, 1)
"""Neighbouring results of a thread: odd numbers, so that the samples of a warp lie in different banks."""

LONG_STRIDE = 4
"""Above this stride results share few samples, so that a thread has one."""

SHARED = 48 << 10
"""Bytes of shared memory that every device gives a block."""

MOST_BLOCKS = (1 << 16) - 1
"""Most blocks along a grid's second axis: taps of the axes outside a tile."""

MOST_PLACES = 1 << 29
"""Length of an axis, and number of tiles, up to which places fit 32 bits."""


class Axis(NamedTuple):
    """An axis of a signal: tap k of result o reads sample stride * o + first + k."""

    samples: int
    results: int
    taps: int = 1
    stride: int = 1
    first: int = 0
    periodic: bool = False

    @property
    def is_batch(self) -> bool:
        return self.taps == self.stride == 1 and self.first == 0 and self.samples == self.results


AXIS = np.dtype([*((f"{name}_step", "i8") for name in "xyw"), *((name, "i4") for name in Axis._fields)], align=True)
"""The kernels' struct of an axis."""


@dataclass(frozen=True)
class Tiles:
    """How the last three axes are cut: the units of results along each; a unit is `results` of them along `axis`."""

    axes: tuple[Axis, ...]
    axis: int
    results: int
    units: tuple[int, ...]

    @cached_property
    def inner(self) -> tuple[Axis, ...]:
        return self.axes[-3:]

    @cached_property
    def size(self) -> tuple[int, ...]:
        return tuple(u * (self.results if d == self.axis else 1) for d, u in enumerate(self.units))

    @cached_property
    def read(self) -> tuple[int, ...]:
        """Samples that a tile reads along each axis."""
        return tuple((n - 1) * a.stride + a.taps for n, a in zip(self.size, self.inner, strict=True))

    @cached_property
    def count(self) -> int:
        """Number of tiles."""
        sizes = (*(1,) * (len(self.axes) - 3), *self.size)
        return math.prod(-(-a.results // n) for a, n in zip(self.axes, sizes, strict=True))

    @cached_property
    def at_once(self) -> int:
        """Taps whose samples a thread reads at once."""
        taps = self.inner[self.axis].taps
        return -(-taps // -(-taps // AT_ONCE))

    @cached_property
    def rows(self) -> int:
        """Groups of `at_once` taps, of all three axes."""
        taps = self.inner[self.axis].taps
        return math.prod(a.taps for a in self.inner) // taps * -(-taps // self.at_once)

    @cached_property
    def outer_taps(self) -> int:
        return math.prod(a.taps for a in self.axes[:-3])

    def pitches(self, last: int) -> tuple[int, ...]:
        """Elements from one sample to the next along each axis of a tile, whose last axis has room for `last`."""
        return _pitches((*self.read[:2], last))

    @cached_property
    def pitch(self) -> int:
        """Room along a tile's last axis for which the threads of a warp read from many banks."""
        units = [np.arange(32) // math.prod(self.units[d + 1 :]) % self.units[d] for d in range(3)]

        def conflicts(last: int) -> float:
            steps = zip(self.pitches(last), self.inner, range(3), strict=True)
            each = [pitch * a.stride * (self.results if d == self.axis else 1) for pitch, a, d in steps]
            places = np.unique(sum(u * step for u, step in zip(units, each, strict=True)))
            return (1.0 + np.bincount(places % 32).max()) * last  # memory counts too

        least = self.read[2]
        return min(range(least, least + 32), key=conflicts) if math.prod(self.read[:2]) > 1 else least

    @cached_property
    def beyond(self) -> int:
        """Samples behind a tile that a last group of taps reads and drops."""
        taps = self.inner[self.axis].taps
        return (-taps % self.at_once) * self.pitches(self.pitch)[self.axis]

    def packed(self, item: int) -> int:
        """Places that the factors of a group take, in whole packs of 16 bytes."""
        return -(-self.at_once * item // 16) * 16 // item

    def shared(self, item: int) -> int:
        """Bytes of shared memory of a block, for each of the kernels."""
        samples = math.prod(self.read[:2]) * self.pitch + self.beyond
        forward, back = self.rows * self.packed(item) + samples, math.prod(self.size) + samples
        return max(item * max(forward, back) + 4 * sum(self.read), item * THREADS * self.at_once)

    def instructions(self) -> float:
        """Instructions of all threads, about: to find samples and results, to read them for taps, and to multiply."""
        stride, each = self.inner[self.axis].stride, self.at_once
        window = min((self.results - 1) * stride + each, self.results * each)
        group = each * self.results + 1.5 * window + each / 2 + 12
        sample, result, fixed = 24 * -(-math.prod(self.read) // THREADS), 28 * -(-math.prod(self.size) // THREADS), 200
        return THREADS * self.count * (fixed + result + self.outer_taps * (sample + self.rows * group))


@lru_cache(maxsize=512)
def tiles_for(axes: tuple[Axis, ...], item: int) -> Tiles | None:
    """Return the tiles that take the fewest instructions, if any fit the shared memory of every device."""
    axes = (*(Axis(1, 1),) * (3 - len(axes)), *axes)
    inner = axes[-3:]
    most_taps = max(a.taps for a in inner)
    priced: list[tuple[float, Tiles]] = []
    for axis in (d for d, a in enumerate(inner) if a.taps == most_taps):
        for results in RESULTS if inner[axis].stride <= LONG_STRIDE else RESULTS[-1:]:
            needed = [-(-a.results // (results if d == axis else 1)) for d, a in enumerate(inner)]
            powers = [[1 << k for k in range(THREADS.bit_length()) if 1 << k < 2 * n] for n in needed]
            most = min(THREADS, math.prod(p[-1] for p in powers))
            for units in itertools.product(*powers):
                if most <= 2 * math.prod(units) <= 2 * THREADS:
                    tiles = Tiles(axes, axis, results, units)
                    about = item * (math.prod(tiles.read) + math.prod(tiles.size))
                    if about <= SHARED and tiles.count < MOST_PLACES:
                        crowded = max(1.0, 2 * about / SHARED)  # fewer blocks beside each other
                        priced.append((tiles.instructions() * crowded, tiles))
    priced.sort(key=lambda pair: pair[0])
    return next((tiles for _, tiles in priced if tiles.shared(item) <= SHARED), None)


class AxisSteps(NamedTuple):
    """An axis with the steps of x, y and w along it, in elements, and its place among those that are convolved."""

    along: Axis
    place: int | None
    x: int
    y: int
    w: int = 0

    def joined(self, other: AxisSteps) -> AxisSteps | None:
        """Both axes as one, if they are batches and lie in memory like one."""
        n, inner = self.along.samples * other.along.samples, other.along.samples
        like_one = (self.x, self.y) == (inner * other.x, inner * other.y) and n < MOST_PLACES
        both = self.along.is_batch and other.along.is_batch and like_one
        return AxisSteps(Axis(n, n), None, other.x, other.y) if both else None


def _joined(axes: Sequence[AxisSteps]) -> list[AxisSteps]:
    """Return the axes, neighbours as one where they can be."""
    groups: list[AxisSteps] = []
    for axis in axes:
        both = groups[-1].joined(axis) if groups else None
        groups[-1:] = [both] if both else [*groups[-1:], axis]
    return groups


@dataclass(frozen=True)
class Layout:
    """Tiles, a kernel's sizes, shared memory and table of axes, and the places of these in `axes`."""

    tiles: Tiles
    sizes: dict[str, int]
    shared: int
    table: Any
    places: tuple[int, ...]


@lru_cache(maxsize=512)
def _layout(axes: tuple[AxisSteps, ...], kernel: str, item: int) -> Layout:
    """Lay out axes in the order of memory; if no tiles fit these, in their own order, for which some fit."""
    ordered = sorted(axes, key=lambda axis: -abs(axis.x))
    for some in (_joined(ordered), _joined(axes), axes):
        tiles = tiles_for(tuple(axis.along for axis in some), item)
        if tiles is not None:
            break
    assert tiles is not None
    table = np.zeros((), np.dtype([("axis", AXIS, len(tiles.axes))], align=True))
    for entry, along in zip(table["axis"], tiles.axes, strict=True):
        for name in Axis._fields:
            entry[name] = getattr(along, name)
    for entry, axis in zip(table["axis"][len(tiles.axes) - len(some) :], some, strict=True):
        entry["x_step"], entry["y_step"], entry["w_step"] = axis.x, axis.y, axis.w
    places = tuple(axis.place for axis in some if axis.place is not None)
    return Layout(tiles, _sizes(tiles, kernel, item), tiles.shared(item), table[()], places)


def _sizes(tiles: Tiles, kernel: str, item: int) -> dict[str, int]:
    """Return the macros of a kernel of `single.cu`."""
    pitches, y_pitches = tiles.pitches(tiles.pitch), _pitches(tiles.size)
    taps = [a.taps for a in tiles.inner]
    sizes = {
        "SINGLE": THREADS, kernel: 1, "OUTER": len(tiles.axes) - 3, "BYTES": len(tiles.axes) * AXIS.itemsize,
        "RESULTS": tiles.results, "AT_ONCE": tiles.at_once, "PACKED": tiles.packed(item),
        "TAKEN": min(tiles.rows, THREADS), "PITCH": tiles.pitch, "BEYOND": tiles.beyond,
        "REG_Y_PITCH": y_pitches[tiles.axis], "REG_STRIDE": tiles.inner[tiles.axis].stride,
    }  # fmt: skip
    for name, d in zip(("REG", "P", "Q"), (tiles.axis, *(d for d in range(3) if d != tiles.axis)), strict=True):
        sizes |= {f"{name}_AXIS": d, f"{name}_TAPS": taps[d]}
        sizes |= {f"{name}_PITCH": pitches[d], f"{name}_TAP": _pitches(taps)[d]}
    for d in range(3):
        unit = tiles.results if d == tiles.axis else 1
        sizes |= {f"TILE_{d}": tiles.size[d], f"READ_{d}": tiles.read[d], f"UNITS_{d}": tiles.units[d]}
        sizes |= {f"X_STEP_{d}": unit * tiles.inner[d].stride * pitches[d], f"Y_STEP_{d}": unit * y_pitches[d]}
    return sizes


def _pitches(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements from one index to the next along each axis of an array of this shape."""
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


class SinglePlan:
    """A convolution of real arrays with one filter, and its two adjoints, of arrays as they lie in memory."""

    def __init__(self, problem: Problem, tuning: Tuning) -> None:
        self.problem, self.tuning = problem, tuning
        self.axes = problem.axes
        self.kept = [a for a in problem.kept_axes if problem.x_shape[a] > 1 or a in problem.axes]
        """Axes of x that are more than one sample, or convolved."""
        self.places = [problem.axes.index(a) if a in problem.axes else None for a in self.kept]
        self.along = [self._of_axis(a, k) for a, k in zip(self.kept, self.places, strict=True)]

    def _of_axis(self, axis: int, place: int | None) -> Axis:
        g, n = self.problem, self.problem.x_shape[axis]
        if place is None:
            return Axis(n, n)
        size = g.kernel_size[place]
        first, wraps = size // 2 - size + 1, g.boundary[place] == "periodic"
        return Axis(n, g.out_lengths[place], size, g.stride[place], first, wraps)

    @classmethod
    def supports(cls, problem: Problem, tuning: Tuning) -> bool:
        """Whether the kernels can convolve in either dtype, with the shared memory that every device has."""
        if max(*problem.x_shape, *problem.kernel_size) > MOST_PLACES:
            return False
        tiles = tiles_for(tuple(cls(problem, tuning).along), 8)
        return tiles is not None and tiles.outer_taps <= MOST_BLOCKS

    def units(self) -> Units:
        """Instructions, and samples read and written, of the convolution and of both adjoints."""
        tiles = tiles_for(tuple(self.along), 4)
        assert tiles is not None
        copied = math.prod(self.problem.x_shape) + math.prod(self.problem.y_shape)
        return {"plan": 1, "instruction": 3 * tiles.instructions(), "copy": 2 * copied}

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        x = reshape(xp, x, tuple(a.samples for a in self.along))
        y = self._made(xp, x, [a.results for a in self.along])
        flipped = (slice(None, None, -1),) * len(self.axes)
        self._convolve(x, y, reshape(xp, w, self.problem.kernel_size)[flipped], self.along)
        y = reshape(xp, y, self.problem.y_shape)
        return y if bias is None else elementwise.elu(xp, y, bias)

    def forward_and_marginal(self, xp: Any, x: Array, w: Array, bias: Array, axis: int) -> tuple[Array, Array]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis."""
        y = self.forward(xp, x, w, bias)
        return y, elementwise.marginal(xp, y, (axis,), "sum")

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        g = g if ans is None else elementwise.elu_vjp(xp, g, ans)
        inner = reshape(xp, g, tuple(a.results for a in self.along))
        x_cotangent = w_cotangent = None
        if w is not None:
            x_cotangent = self._cotangent_of_x(xp, inner, reshape(xp, w, self.problem.kernel_size))
        if x is not None:
            w_cotangent = self._cotangent_of_w(xp, inner, reshape(xp, x, tuple(a.samples for a in self.along)))
        return x_cotangent, w_cotangent, None if ans is None else g

    def _convolve(self, x: Array, y: Array, w: Array, along: Sequence[Axis]) -> None:
        """Write y; the axes of w are the convolved ones, and tap k of w is the k-th that reads a sample."""
        laid, arguments = _layout(self._steps(x, y, along, w), "SINGLE_FORWARD", x.itemsize), (x, w, y)
        grid = (laid.tiles.count,)
        cuda.launch("single", dtype_name(x.dtype), laid.sizes, grid, THREADS, (*arguments, laid.table), laid.shared)

    def _cotangent_of_x(self, xp: Any, g: Array, w: Array) -> Array:
        """One convolution for each phase of x: with the taps that take its samples to results."""
        stride = [1 if a.periodic and a.samples % a.stride else a.stride for a in self.along]
        if stride != [a.stride for a in self.along]:
            # The taps that meet a sample differ from period to period: zeros between the results instead.
            shape = [a.samples if r < a.stride else a.results for a, r in zip(self.along, stride, strict=True)]
            spread = xp.zeros(tuple(shape), dtype=g.dtype, **placement(xp, g))
            spread[tuple(slice(None, None, a.stride // r) for a, r in zip(self.along, stride, strict=True))] = g
            g = spread
        x = self._made(xp, g, [a.samples for a in self.along])
        if any(a.taps < min(r, a.samples) for a, r in zip(self.along, stride, strict=True)):
            x[...] = 0
        for phases in itertools.product(*(range(min(r, a.samples)) for a, r in zip(self.along, stride, strict=True))):
            samples, taps, axes = [], [slice(None)] * len(self.axes), []
            for a, r, n, phase, place in zip(self.along, stride, g.shape, phases, self.places, strict=True):
                meets = outputs_met(a.taps, r, phase)
                samples.append(slice(phase, None, r))
                if place is not None:
                    taps[place] = slice((a.taps // 2 - phase) % r, None, r)
                if meets.size:
                    count = -(-(a.samples - phase) // r)
                    axes.append(Axis(n, count, meets.size, 1, int(meets[0]), a.periodic))
            if len(axes) == len(self.along):
                self._convolve(g, x[tuple(samples)], w[tuple(taps)], axes)
        return reshape(xp, x, self.problem.x_shape)

    def _cotangent_of_w(self, xp: Any, g: Array, x: Array) -> Array:
        """Return sums over all results, each block's in a part of its own."""
        dtype, laid = dtype_name(g.dtype), _layout(self._steps(x, g, self.along), "SINGLE_TAPS", g.itemsize)
        tiles = laid.tiles
        layers = -(-tiles.rows // THREADS)
        blocks = max(1, min(tiles.count, self.tuning.device_blocks // (tiles.outer_taps * layers)))
        taps = tuple(self.problem.kernel_size[k] for k in laid.places)
        parts = empty(xp, (blocks, math.prod(taps)), g)
        cuda.launch(
            "single_taps", dtype, laid.sizes, (blocks, tiles.outer_taps, layers), THREADS,
            (x, g, parts, laid.table, np.int32(tiles.count)), laid.shared,
        )  # fmt: skip
        totals = reshape(xp, add_terms(xp, parts, (1, blocks, parts.shape[1])), taps)
        order = tuple(sorted(range(len(taps)), key=laid.places.__getitem__))
        return reshape(xp, permute_dims(xp, totals, order), self.problem.w_shape)

    def _steps(self, x: Array, y: Array, along: Sequence[Axis], w: Array | None = None) -> tuple[AxisSteps, ...]:
        """Return the axes with the steps of arrays along them."""
        steps = []
        for d, (a, place) in enumerate(zip(along, self.places, strict=True)):
            of_w = 0 if w is None or place is None else w.strides[place] // w.itemsize
            steps.append(AxisSteps(a, place, x.strides[d] // x.itemsize, y.strides[d] // y.itemsize, of_w))
        return tuple(steps)

    @staticmethod
    def _made(xp: Any, like: Array, shape: Sequence[int]) -> Array:
        """Return a new array of this shape, in the memory order of another."""
        order = sorted(range(len(shape)), key=lambda a: -abs(like.strides[a]))
        back = tuple(sorted(range(len(order)), key=order.__getitem__))
        return permute_dims(xp, empty(xp, tuple([shape[a] for a in order]), like), back)
