"""Which axes are cheaper in the frequency domain: a model of seconds, its coefficients measured."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from hcnn_core._geometry import Geometry
from hcnn_core._real_dft import RealDFT, make_real_transform
from hcnn_core._taps import LEAST_IN_TILES, tiles_cover, tiles_pay
from hcnn_core._transforms import LibraryFFT, MatrixDFT, fast_length, make_transform

# Seconds per unit, float32, two cores, there and back: fitted by benchmarks.convolve_costs to 200 problems of at most
# 2^20 samples, when units were counted a little differently. What others give now, and what choices by these cost, says
# benchmarks/results/convolve_costs.txt.
SECONDS_PER_PLAN = 0.00015  # the fixed part of a call
SECONDS_PER_TRANSFORM = 0.00022  # what it has more: to the spectrum, from it, and the filter's
SECONDS_PER_LIBRARY = 0.00036  # and by the library's FFT
SECONDS_PER_CALL = 0.00016  # the fixed part of the FFT along all axes at once
SECONDS_PER_PASS = 4.4e-09  # of that FFT, per sample and axis, whatever the length but for large primes
SECONDS_PER_MAC = 1.2e-11  # of full tiles
SECONDS_PER_GATHERED_MAC = 1.6e-10
SECONDS_PER_DFT_MAC = 1e-10  # of straight lines, and matrices with few columns
SECONDS_PER_LONG_DFT_MAC = 1.8e-10  # of straight lines that registers do not hold
SECONDS_PER_COPY = 5.8e-10
SECONDS_PER_TRANSPOSED = 4.8e-09  # samples whose last axis comes to lie elsewhere
SECONDS_PER_FFT_POINT = 2.1e-09  # times log2 of the length
SECONDS_PER_SCATTERED = 6.5e-09  # one by one
SECONDS_PER_LINE = 5.1e-07  # of positions, and matrix
SECONDS_PER_GATHERED = 6.3e-09
SECONDS_PER_PIECE = 4.7e-06  # of what is gathered: each tap, on each side of a periodic boundary

ELSEWHERE = {
    "PLAN": 0, "TRANSFORM": 5e-5, "LIBRARY": 1.5e-4, "MAC": 2e-11, "GATHERED_MAC": 4e-11, "DFT_MAC": 4e-11,
    "COPY": 2e-10, "TRANSPOSED": 8e-10, "FFT_POINT": 2.6e-10, "SCATTERED": 0, "LINE": 6e-8, "GATHERED": 1.2e-9,
    "PIECE": 3e-6,
}  # fmt: skip
"""The same on other libraries than NumPy: by an older fit, since no GPU has been measured."""

IN_REGISTERS = 32
"""Samples of a straight line that registers hold."""

GRID = 256
"""Points of several axes whose DFTs by straight lines take twice as long each: few positions of all fit in cache."""

LINES, LONE_LINES = 4, 3.5
"""Lines that an FFT takes at a time, and how many times as long a sample of fewer takes."""

MIN_LINE, MIN_SUMS, MANY = 32, 128, 1 << 19
"""With so many positions along the innermost axis, and sums along it, of all filters, batch axes outside stay there.

So they do with fewer sums where samples are so many that copies of them leave the cache.
"""

MIN_RUN = 16
"""Positions along the longest direct axis, batch included, from which compiled products are worth it."""

TILED = 0.7
"""Part of the time that three taps take by products of F(4, 3)."""

LANES, LATENCY = 16, 4
"""Numbers in a vector, and cycles until one may be added to again; two are added to in a cycle, or two read."""

SHARED = 24
"""Lines that fill tiles together in the kernels, where they are shorter than as many vectors."""

LEAST_NEAR = 3
"""Lines of samples, at least, that each of some neighbouring ones of a single row reads for them to share samples."""

TILES = (8, (3, 1)), (2, (8, 4, 2, 1)), (1, (8, 4, 2, 1))
"""Rows of sums that are worked on at once, and vectors of each, as the kernels have them."""

FEWEST_ROWS = 1.8
"""Elsewhere: a product with fewer rows takes as long, since reading terms does."""

Units = dict[str, float]
"""How often each coefficient counts."""


@lru_cache(maxsize=512)
def choose_methods(geometry: Geometry, real: bool, library: str = "numpy") -> tuple[str, ...]:
    """Replace each "auto" by the method that makes the whole convolution cheapest."""
    options = [("direct", "fft") if method == "auto" else (method,) for method in geometry.method]

    def seconds(methods: tuple[str, ...]) -> float:
        if at_once(geometry, methods, real, library):
            return seconds_of(units_at_once(geometry, real))
        return estimate_seconds(geometry, methods, real, library)

    return min(itertools.product(*options), key=seconds)


def at_once(geometry: Geometry, methods: tuple[str, ...], real: bool, library: str = "numpy") -> bool:
    """Whether all axes are better transformed at once by FFT: one filter, and NumPy arrays."""
    one_filter = not geometry.sum_axes and not geometry.out_shape
    if library != "numpy" or not one_filter or "direct" in methods:
        return False
    return seconds_of(units_at_once(geometry, real)) < estimate_seconds(geometry, methods, real)


def seconds_of(units: Units, library: str = "numpy") -> float:
    """What these units take by the coefficients of this module."""
    if library != "numpy":
        return float(sum(ELSEWHERE[name] * count for name, count in units.items()))
    return float(sum(globals()[f"SECONDS_PER_{name}"] * count for name, count in units.items()))


def estimate_seconds(geometry: Geometry, methods: tuple[str, ...], real: bool, library: str = "numpy") -> float:
    """Predicted time of `convolve` and its transpose with one method per axis."""
    return seconds_of(units_of(geometry, methods, real, library), library)


def roughness(n: int) -> float:
    """How many times as long an FFT takes whose length has a large prime factor."""
    for p in (2, 3, 5, 7, 11):
        while n % p == 0:
            n //= p
    return min(max(1.0, n / 11), 8.0)


@lru_cache(maxsize=4096)
def sums(rows: int, n: int, size: int = 0) -> float:
    """What one term of `rows` rows of n sums takes, in multiply-adds of full tiles, which short lines share.

    Neighbours of a single row share what they read; the size is that of a filter across them, 0 if there are none.
    """
    if rows == 1 and size >= LEAST_NEAR and n >= 2 * LANES:
        return 2 * LANES * -(-n // (2 * LANES))
    cycles, lines = 0.0, lines_at_once(n)
    for tall, widths in TILES:
        vectors = lines * -(-n // LANES)
        for wide in widths:
            reads = 1.5 * wide + tall  # every other vector lies across two lines of the cache
            cycles += rows // tall * (vectors // wide) * max(tall * wide, reads, 2 * LATENCY) / 2
            vectors %= wide
        rows %= tall
    return 2 * LANES * cycles / lines


def may_tile(geometry: Geometry, methods: tuple[str, ...], batch: int) -> bool:
    """Whether three taps may be products of F(4, 3): beside spectra, with a batch, or where no method is asked for."""
    if "fft" in methods:
        return batch >= LEAST_IN_TILES
    return all(method == "auto" for method in geometry.method)


def long_lines(n: int, geometry: Geometry) -> bool:
    """Whether lines of n positions are worked on where they lie."""
    made = n * math.prod(geometry.out_shape)
    return n >= MIN_LINE and (made >= MIN_SUMS or math.prod(geometry.x_shape) >= MANY)


def lines_at_once(n: int) -> int:
    """How many lines of n results are worked on together."""
    return SHARED if LANES <= n < SHARED * LANES else 1


def sums_of_products(columns: int, rows: int, n: int) -> float:
    """What a line of n adds to the products of so many columns with rows takes, likewise."""
    tiles = rows // 4 + (1 if rows % 4 == 3 else 0.5 * (rows % 4))
    return 4 * tiles * columns * -(-n // LANES) * LANES


def units_at_once(geometry: Geometry, real: bool) -> Units:
    """What `convolve` with one filter does by FFT along all axes, one after the other."""
    g = geometry
    padded = tuple(
        fast_length(n, size, bound, real) for n, size, bound in zip(g.lengths, g.kernel_size, g.boundary, strict=True)
    )
    order = sorted(range(len(g.axes)), key=g.axes.__getitem__)
    grown = [padded[k] for k in order]
    points, batch = math.prod(padded), math.prod(g.x_shape[a] for a in g.batch_axes)

    def parts(lengths: Sequence[int]) -> list[int]:
        """Samples while each axis is transformed: those before it are as long as given, the others padded."""
        given = [lengths[k] for k in order]
        return [math.prod(given[:k]) * math.prod(grown[k:]) for k in range(len(order))]

    of_x, of_y, of_w = parts(g.lengths), parts(g.out_lengths), parts(list(map(min, g.kernel_size, padded)))
    units = {"CALL": 1.0, "PASS": 0.0, "COPY": 0.0}
    for n, length, x, y, w in zip((g.lengths[k] for k in order), grown, of_x, of_y, of_w, strict=True):
        lone = LONE_LINES if points * batch < LINES * length else 1
        units["PASS"] += lone * roughness(length) * (batch * (x + y) + w)
        units["COPY"] += (n != length) * 2 * batch * x
    return units


def units_of(geometry: Geometry, methods: tuple[str, ...], real: bool, library: str = "numpy") -> Units:
    """What `convolve` does with one method per axis."""
    g = geometry
    spectral = [k for k, method in enumerate(methods) if method == "fft"]
    direct = sorted((k for k, method in enumerate(methods) if method == "direct"), key=lambda k: g.axes[k])
    axes = (tuple(values[k] for k in spectral) for values in (g.lengths, g.kernel_size, g.stride, g.boundary))
    if library == "numpy":
        transform = make_real_transform(*axes, real, three_products=not direct)
    else:
        transform = make_transform(*axes, real)
    batch = math.prod(g.x_shape[a] for a in g.batch_axes)
    pixels_in = batch * math.prod(g.lengths[k] for k in direct)
    pixels_out = batch * math.prod(g.out_lengths[k] for k in direct)
    taps = math.prod(g.kernel_size[k] for k in direct)
    channels = math.prod(g.x_shape[a] for a in g.sum_axes)
    out = math.prod(g.out_shape)
    lines_in, lines_out, lines_kernel = channels * pixels_in, out * pixels_out, taps * channels * out
    f, p = transform.frequencies, transform.planes
    columns, rows = transform.aliases * p * channels, p * out

    units: Units = defaultdict(float, PLAN=1)
    if spectral:  # and x brought in the order that transforms want, as if from that of its axes
        units["TRANSFORM"] += 1
        order = (*(g.axes[k] for k in spectral), *g.sum_axes, *(g.axes[k] for k in direct), *g.batch_axes)
        wanted = [a for a in order if g.x_shape[a] > 1]
        given = sorted(wanted)
        if wanted[-1:] != given[-1:]:
            units["TRANSPOSED"] += math.prod(g.x_shape)
        elif wanted != given:
            units["COPY"] += math.prod(g.x_shape)
    longest = max((g.out_lengths[k] for k in direct), default=1) * batch
    short = longest < MIN_RUN and library != "cupy"
    pieces = math.prod(g.kernel_size[k] * (1 + (g.boundary[k] == "periodic")) for k in direct)
    if isinstance(transform, LibraryFFT) or not real or short:  # taps gathered
        macs = (4 if isinstance(transform, LibraryFFT) or not real else 1) * f * rows * taps * columns * pixels_out
        units["GATHERED_MAC"] += macs
        units["PIECE"] += pieces * bool(direct)
        units["GATHERED"] += f * taps * columns * pixels_out * (taps > 1)
        units["COPY"] += 2 * f * rows * pixels_out
    else:
        last = direct[-1] if direct else 0
        if direct and g.lengths[last] * batch < MIN_RUN:
            last = max(direct, key=lambda k: g.lengths[k])
        run = g.out_lengths[last] if direct else 1
        stays = not spectral and long_lines(run, g) and library == "numpy"
        run *= 1 if stays else batch
        if library == "numpy":  # there and back
            across = [k for k in direct if k != last] or [last] * (not stays and batch > 1)
            size = g.kernel_size[across[-1]] if across and g.stride[across[-1]] == 1 else 0
            of_y, of_x = columns * sums(rows, run, size), rows * sums(columns, run, size)
            of_w = sums_of_products(columns, rows, run)
            first = direct if spectral else direct[:1]  # beside spectra axes change places for tiles
            covered = any(tiles_cover(g.kernel_size[k], g.stride[k], g.out_lengths[k]) for k in first)
            if covered and len(direct) > 1 and may_tile(g, methods, batch) and run >= LEAST_IN_TILES:
                of_y *= TILED if spectral or tiles_pay(taps * columns, rows) else 1
                of_x *= TILED if spectral or tiles_pay(taps * rows, columns) else 1
                of_w *= TILED if spectral else 1
            products = f * taps * pixels_out / run * (of_y + of_x + of_w)
        else:
            products = f * taps * pixels_out * (max(rows, FEWEST_ROWS) * columns + rows * max(columns, FEWEST_ROWS)) / 2
        units["MAC"] += products
        phases = math.prod(g.stride[k] for k in direct)  # cotangents of x read the result once for each, and scatter
        in_runs = bool(spectral) and batch >= LANES and library == "numpy"  # the batch lies innermost
        units["COPY" if in_runs else "SCATTERED"] += f * columns * pixels_in * (phases > 1)
        units["COPY"] += f * (columns * pixels_in * (taps > 1) + rows * pixels_out * phases)
        units["LINE"] += f * pixels_out / run / (lines_at_once(run) if library == "numpy" else 1)
        uneven = any(g.boundary[k] == "periodic" and g.lengths[k] % g.stride[k] for k in direct)
        if uneven and library == "numpy":  # no engine transposes this
            units["PIECE"] += pieces
            units["COPY"] += f * taps * rows * pixels_out
    if isinstance(transform, MatrixDFT | RealDFT):
        macs = (
            transform.analysis_macs * lines_in
            + transform.kernel_macs * lines_kernel
            + transform.synthesis_macs * lines_out
        )
        spills = isinstance(transform, RealDFT) and any(axis.length > IN_REGISTERS for axis in transform.axes)
        grid = math.prod(axis.length for axis in transform.axes) if isinstance(transform, RealDFT) else 0
        units["LONG_DFT_MAC" if spills else "DFT_MAC"] += (1 if real else 4) * macs * (1 + grid / GRID)
        units["COPY"] += f * transform.aliases * p * lines_in
        units["SCATTERED" if library == "numpy" else "COPY"] += f * transform.aliases * p * lines_kernel
    elif isinstance(transform, LibraryFFT):
        units["LIBRARY"] += 1
        points = transform.points * math.log2(max(2, transform.points))
        units["FFT_POINT"] += points * (lines_in + lines_kernel + lines_out)
    return units
