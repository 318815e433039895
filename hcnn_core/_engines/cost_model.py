"""Which axes are faster in the frequency domain: a model of run time with measured coefficients."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hcnn_core._engines.cpu.real_dft import RealDFT
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.generic.fft import LibraryFFT
from hcnn_core._engines.generic.matmul import Matmul, matmul
from hcnn_core._engines.taps import tiles_cover, tiles_pay
from hcnn_core._engines.transform import Identity, Transform, fast_length
from hcnn_core._problem import Problem
from hcnn_core._tuning import Tuning

IN_REGISTERS = 32
"""Most samples of a straight-line DFT that fit the registers."""

GRID = 256
"""A grid of this many points takes twice as long per point in straight-line DFTs, for few positions fit in cache."""

LINES, LONE_LINES = 4, 3.5
"""An FFT transforms 4 lines at once. With fewer lines, a sample takes 3.5 times as long."""

TILED = 0.7
"""Time of a 3-tap filter by F(4, 3), relative to direct products."""

LANES, LATENCY = 16, 4
"""Numbers in a vector, and cycles until the same vector can be added to again. A cycle has two additions or reads."""

SHARED = 24
"""Kernels fill register tiles with several lines where a line is shorter than this many vectors."""

LEAST_NEAR = 3
"""Neighbouring lines of a single row share the samples they read if each reads at least this many lines."""

TILES = (8, (3, 1)), (2, (8, 4, 2, 1)), (1, (8, 4, 2, 1))
"""Register tiles of the kernels: rows, and the numbers of vectors per row."""

FEWEST_ROWS = 1.8
"""With other libraries than NumPy, a product with fewer rows takes as long as with these, for it reads as much."""

Units = dict[str, float]
"""How many units of work each coefficient of `Costs` is multiplied by."""


GAIN = 0.9
"""Transforms are chosen if they promise this fraction of the time without them. Closer estimates may err either way."""


@lru_cache(maxsize=512)
def choose_methods(problem: Problem, real: bool, library: str, tuning: Tuning) -> tuple[str, ...]:
    """Replace each "auto" by the method that makes the whole convolution cheapest."""
    options = [("direct", "fft") if method == "auto" else (method,) for method in problem.method]

    def seconds(methods: tuple[str, ...]) -> float:
        if at_once(problem, methods, real, library, tuning):
            return seconds_of(units_at_once(problem, real), tuning)
        return estimate_seconds(problem, methods, real, library, tuning)

    first, *others = sorted(itertools.product(*options), key=seconds)
    plain = ("direct",) * len(options)
    return plain if plain in others and seconds(first) > GAIN * seconds(plain) else first


def at_once(problem: Problem, methods: tuple[str, ...], real: bool, library: str, tuning: Tuning) -> bool:
    """Whether one FFT along all axes is faster. It needs one filter and NumPy arrays."""
    one_filter = not problem.sum_axes and not problem.out_shape
    if library != "numpy" or not one_filter or "direct" in methods:
        return False
    by_axis = estimate_seconds(problem, methods, real, library, tuning)
    return seconds_of(units_at_once(problem, real), tuning) < by_axis


@lru_cache(maxsize=512)
def choose_transform(
    lengths: tuple[int, ...],
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    boundary: tuple[str, ...],
    real: bool,
    tuning: Tuning,
    *,
    straight_line: bool = False,
    three_products: bool = False,
    matmul: Matmul = matmul,
) -> Transform[Any]:
    """The transform along these axes: none, straight-line code if allowed, DFT matrices, or an FFT."""
    if not lengths:
        return Identity()
    matrices = MatrixDFT(lengths, kernel_size, stride, boundary, real, matmul)
    most_macs, most_elements = tuning.matrix_macs * math.prod(lengths), tuning.table_elements * matrices.planes
    if matrices.analysis_macs > most_macs or matrices.kernel_macs > most_elements:
        return LibraryFFT(lengths, kernel_size, stride, boundary, real)
    if straight_line and real:
        by_phases = RealDFT(lengths, kernel_size, stride, boundary, three_products)
        if all(axis.suits and axis.is_fast for axis in by_phases.axes):
            return by_phases
    return matrices


def seconds_of(units: Units, tuning: Tuning, library: str = "numpy") -> float:
    """Predicted seconds for these units of work, for arrays of a library."""
    costs = tuning.costs if library == "numpy" else tuning.other_costs
    return float(sum(getattr(costs, name) * count for name, count in units.items()))


def estimate_seconds(problem: Problem, methods: tuple[str, ...], real: bool, library: str, tuning: Tuning) -> float:
    """Predicted time of `convolve` and its transpose with one method per axis."""
    return seconds_of(units_of(problem, methods, real, library, tuning), tuning, library)


def roughness(n: int) -> float:
    """Factor by which an FFT is slower if its length has a large prime factor."""
    for p in (2, 3, 5, 7, 11):
        while n % p == 0:
            n //= p
    return min(max(1.0, n / 11), 8.0)


@lru_cache(maxsize=4096)
def sums(rows: int, n: int, size: int = 0) -> float:
    """Cost of adding one term to `rows` rows of n sums, in multiply-adds of full register tiles.

    Several short lines share a tile. Neighbouring lines of a single row share the samples they read; `size` is the
    length of the filter across those lines, 0 if there are none.
    """
    if rows == 1 and size >= LEAST_NEAR and n >= 2 * LANES:
        return 2 * LANES * -(-n // (2 * LANES))
    cycles, lines = 0.0, lines_at_once(n)
    for tall, widths in TILES:
        vectors = lines * -(-n // LANES)
        for wide in widths:
            reads = 1.5 * wide + tall  # every other vector crosses a cache line
            cycles += rows // tall * (vectors // wide) * max(tall * wide, reads, 2 * LATENCY) / 2
            vectors %= wide
        rows %= tall
    return 2 * LANES * cycles / lines


def may_tile(problem: Problem, methods: tuple[str, ...], batch: int, tuning: Tuning) -> bool:
    """Whether 3 taps may use F(4, 3): beside transformed axes with a large batch, or if all methods are "auto"."""
    if "fft" in methods:
        return batch >= tuning.winograd_line
    return all(method == "auto" for method in problem.method)


def long_lines(n: int, problem: Problem, tuning: Tuning) -> bool:
    """Whether lines of n positions are long enough to be convolved without moving batch axes inside."""
    made = n * math.prod(problem.out_shape)
    many = made >= tuning.in_place_results or math.prod(problem.x_shape) >= tuning.in_place_samples
    return n >= tuning.in_place_positions and many


def lines_at_once(n: int) -> int:
    """How many lines of n results share register tiles."""
    return SHARED if LANES <= n < SHARED * LANES else 1


def sums_of_products(columns: int, rows: int, n: int) -> float:
    """Cost of adding a line of n terms to each product of a column and a row, in multiply-adds of full tiles."""
    tiles = rows // 4 + (1 if rows % 4 == 3 else 0.5 * (rows % 4))
    return 4 * tiles * columns * -(-n // LANES) * LANES


def units_at_once(problem: Problem, real: bool) -> Units:
    """Units of work of `convolve` with one filter by one FFT along all axes."""
    g = problem
    padded = tuple(
        fast_length(n, size, bound, real) for n, size, bound in zip(g.lengths, g.kernel_size, g.boundary, strict=True)
    )
    order = sorted(range(len(g.axes)), key=g.axes.__getitem__)
    grown = [padded[k] for k in order]
    points, batch = math.prod(padded), math.prod(g.x_shape[a] for a in g.batch_axes)

    def samples(lengths: Sequence[int]) -> list[int]:
        """Number of samples while each axis is transformed: earlier axes are not yet padded, the others are."""
        given = [lengths[k] for k in order]
        return [math.prod(given[:k]) * math.prod(grown[k:]) for k in range(len(order))]

    of_x, of_y, of_w = samples(g.lengths), samples(g.out_lengths), samples(list(map(min, g.kernel_size, padded)))
    units = {"call": 1.0, "fft_pass": 0.0, "copy": 0.0}
    for n, length, x, y, w in zip((g.lengths[k] for k in order), grown, of_x, of_y, of_w, strict=True):
        lone = LONE_LINES if points * batch < LINES * length else 1
        units["fft_pass"] += lone * roughness(length) * (batch * (x + y) + w)
        units["copy"] += (n != length) * 2 * batch * x
    return units


def units_of(problem: Problem, methods: tuple[str, ...], real: bool, library: str, tuning: Tuning) -> Units:
    """Units of work of `convolve` and its transpose with one method per axis."""
    g = problem
    spectral = [k for k, method in enumerate(methods) if method == "fft"]
    direct = sorted((k for k, method in enumerate(methods) if method == "direct"), key=lambda k: g.axes[k])
    axes = (tuple(values[k] for k in spectral) for values in (g.lengths, g.kernel_size, g.stride, g.boundary))
    on_cpu = library == "numpy"
    transform = choose_transform(*axes, real, tuning, straight_line=on_cpu, three_products=on_cpu and not direct)
    batch = math.prod(g.x_shape[a] for a in g.batch_axes)
    pixels_in = batch * math.prod(g.lengths[k] for k in direct)
    pixels_out = batch * math.prod(g.out_lengths[k] for k in direct)
    taps = math.prod(g.kernel_size[k] for k in direct)
    channels = math.prod(g.x_shape[a] for a in g.sum_axes)
    out = math.prod(g.out_shape)
    lines_in, lines_out, lines_kernel = channels * pixels_in, out * pixels_out, taps * channels * out
    f, p = transform.frequencies, transform.planes
    columns, rows = transform.aliases * p * channels, p * out

    units: Units = defaultdict(float, plan=1)
    if spectral:
        _add_order(units, g, spectral, direct)
    longest = max((g.out_lengths[k] for k in direct), default=1) * batch
    short = longest < tuning.compiled_positions and library != "cupy"
    pieces = math.prod(g.kernel_size[k] * (1 + (g.boundary[k] == "periodic")) for k in direct)
    without_kernels = (LibraryFFT, MatrixDFT) if on_cpu else (LibraryFFT,)
    if isinstance(transform, without_kernels) or not real or short:  # by im2col
        macs = (4 if isinstance(transform, LibraryFFT) or not real else 1) * f * rows * taps * columns * pixels_out
        units["gathered_mac"] += macs
        units["piece"] += pieces * bool(direct)
        units["gathered"] += f * taps * columns * pixels_out * (taps > 1)
        units["copy"] += 2 * f * rows * pixels_out
    else:
        last = direct[-1] if direct else 0
        if direct and g.out_lengths[last] * batch < tuning.compiled_positions:
            last = sorted(direct, key=lambda k: g.out_lengths[k])[-1]  # the last of the longest, as in the planner
        line = g.out_lengths[last] if direct else 1
        stays = not spectral and long_lines(line, g, tuning) and on_cpu
        line *= 1 if stays else batch
        if on_cpu:
            across = [k for k in direct if k != last] or [last] * (not stays and batch > 1)
            size = g.kernel_size[across[-1]] if across and g.stride[across[-1]] == 1 else 0
            tiled = line >= tuning.winograd_line and _may_use_tiles(g, methods, direct, batch, tuning)
            terms = _sums_of_a_tap(columns, rows, line, size, taps, tiled, bool(spectral), tuning)
            products = f * taps * pixels_out / line * terms
        else:
            products = f * taps * pixels_out * (max(rows, FEWEST_ROWS) * columns + rows * max(columns, FEWEST_ROWS)) / 2
        units["mac"] += products
        phases = math.prod(
            g.stride[k] for k in direct
        )  # the cotangent of x is computed phase by phase, each reads the result once
        in_runs = bool(spectral) and batch >= LANES and on_cpu  # because the batch is innermost
        units["copy" if in_runs else "scattered"] += f * columns * pixels_in * (phases > 1)
        units["copy"] += f * (columns * pixels_in * (taps > 1) + rows * pixels_out * phases)
        units["line"] += f * pixels_out / line / (lines_at_once(line) if on_cpu else 1)
        uneven = any(g.boundary[k] == "periodic" and g.lengths[k] % g.stride[k] for k in direct)
        if uneven and on_cpu:  # no compiled kernel computes the transpose
            units["piece"] += pieces
            units["copy"] += f * taps * rows * pixels_out
    _add_transform(units, transform, real, on_cpu, (lines_in, lines_kernel, lines_out))
    return units


def _add_order(units: Units, problem: Problem, spectral: Sequence[int], direct: Sequence[int]) -> None:
    """Add the copy of x into the order of the transforms. It is assumed that x lies in the order of its axes."""
    g = problem
    units["transform"] += 1
    order = (*(g.axes[k] for k in spectral), *g.sum_axes, *(g.axes[k] for k in direct), *g.batch_axes)
    wanted = [a for a in order if g.x_shape[a] > 1]
    given = sorted(wanted)
    if wanted[-1:] != given[-1:]:
        units["transposed"] += math.prod(g.x_shape)
    elif wanted != given:
        units["copy"] += math.prod(g.x_shape)


def _may_use_tiles(
    problem: Problem, methods: tuple[str, ...], direct: Sequence[int], batch: int, tuning: Tuning
) -> bool:
    """Whether an axis suits F(4, 3). Beside transformed axes, the planner puts such an axis first."""
    g, first = problem, direct if "fft" in methods else direct[:1]
    covered = any(tiles_cover(g.kernel_size[k], g.stride[k], g.out_lengths[k]) for k in first)
    return covered and len(direct) > 1 and may_tile(g, methods, batch, tuning)


def _sums_of_a_tap(
    columns: int, rows: int, line: int, size: int, taps: int, tiled: bool, spectral: bool, tuning: Tuning
) -> float:
    """Cost of one tap along a line: for the result, the cotangent of x, and that of w. For `size` see `sums`."""
    of_y, of_x = columns * sums(rows, line, size), rows * sums(columns, line, size)
    of_w = sums_of_products(columns, rows, line)
    if tiled:
        of_y *= TILED if spectral or tiles_pay(taps * columns, rows, tuning) else 1
        of_x *= TILED if spectral or tiles_pay(taps * rows, columns, tuning) else 1
        of_w *= TILED if spectral else 1
    return of_y + of_x + of_w


def _add_transform(
    units: Units, transform: Transform[Any], real: bool, on_cpu: bool, lines: tuple[int, int, int]
) -> None:
    """Add the transforms of so many lines of the signal, of the filters and of the result."""
    of_x, of_w, of_y = lines
    if isinstance(transform, MatrixDFT | RealDFT):
        macs = transform.analysis_macs * of_x + transform.kernel_macs * of_w + transform.synthesis_macs * of_y
        axes = transform.axes if isinstance(transform, RealDFT) else []
        spills = any(axis.length > IN_REGISTERS for axis in axes)
        grid = math.prod(axis.length for axis in axes) if axes else 0
        units["long_dft_mac" if spills else "dft_mac"] += (1 if real else 4) * macs * (1 + grid / GRID)
        entries = transform.frequencies * transform.aliases * transform.planes
        units["copy"] += entries * of_x
        units["scattered" if on_cpu else "copy"] += entries * of_w
    elif isinstance(transform, LibraryFFT):
        units["library"] += 1
        points = transform.points * math.log2(max(2, transform.points))
        units["fft_point"] += points * sum(lines)
