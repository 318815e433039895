"""Which axes are cheaper in the frequency domain: a model of seconds, its coefficients measured."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

from hcnn_core._geometry import Geometry
from hcnn_core._real_dft import RealDFT, make_real_transform
from hcnn_core._transforms import LibraryFFT, MatrixDFT, fast_length, make_transform

# Seconds per unit on one core, float32: benchmarks/convolve_costs.py.
SECONDS_PER_MAC = 2e-11
SECONDS_PER_DFT_MAC = 4e-11  # of matrices with few columns
LINE, OF_LONGER_LINES = 32, 3  # samples of a straight line that registers hold; how many times as long others take
SECONDS_PER_COPY = 2e-10
SECONDS_PER_FFT_POINT = 2.6e-10  # times log2 of the length
SECONDS_PER_TRANSPOSED = 8e-10
SECONDS_PER_LINE = 6e-8  # of positions, and matrix
SECONDS_PER_TRANSFORM = 5e-5  # its fixed part: to the spectrum, from it, and the filter's
SECONDS_PER_LIBRARY = 2e-4  # the same by FFT
SECONDS_PER_GATHERED = 1.2e-9
SECONDS_PER_PIECE = 3e-6  # of what is gathered: each tap, on each side of a periodic boundary
SECONDS_PER_CALL = 2e-5  # fixed part of the FFT along all axes at once
SECONDS_PER_PASS = 1.3e-9  # of that FFT, per sample and axis, whatever the length

LINES = 4
"""Lines that an FFT takes at a time; fewer cost as much as one by one."""

LONE_LINES = 3.5
"""How many times as long a sample of them takes then."""

MIN_RUN = 16
"""Positions along the longest direct axis, batch included, from which compiled products are worth it."""

TILED = 0.7
"""Part of the time that three taps take by products of F(4, 3)."""

FEWEST_ROWS = 1.8
"""A product with fewer rows takes as long, since reading terms does."""


@lru_cache(maxsize=512)
def choose_methods(geometry: Geometry, real: bool, library: str = "numpy") -> tuple[str, ...]:
    """Replace each "auto" by the method that makes the whole convolution cheapest."""
    options = [("direct", "fft") if method == "auto" else (method,) for method in geometry.method]

    def seconds(methods: tuple[str, ...]) -> float:
        if at_once(geometry, methods, real, library):
            return estimate_seconds_at_once(geometry, real)
        return estimate_seconds(geometry, methods, real, library)

    return min(itertools.product(*options), key=seconds)


def at_once(geometry: Geometry, methods: tuple[str, ...], real: bool, library: str = "numpy") -> bool:
    """Whether all axes are better transformed at once by FFT: one filter, and NumPy arrays."""
    one_filter = not geometry.sum_axes and not geometry.out_shape
    if library != "numpy" or not one_filter or "direct" in methods:
        return False
    return estimate_seconds_at_once(geometry, real) < estimate_seconds(geometry, methods, real)


def estimate_seconds_at_once(geometry: Geometry, real: bool) -> float:
    """Predicted time of `convolve` with one filter by FFT along all axes at once."""
    g = geometry
    padded = tuple(
        fast_length(n, size, bound, real) for n, size, bound in zip(g.lengths, g.kernel_size, g.boundary, strict=True)
    )
    points, batch = math.prod(padded), math.prod(g.x_shape[a] for a in g.batch_axes)
    passes = sum(LONE_LINES if points * batch < LINES * n else 1 for n in padded)
    per_point = SECONDS_PER_PASS * passes + SECONDS_PER_COPY * (padded != g.lengths)
    return SECONDS_PER_CALL + per_point * (2 * batch + 1) * points


def estimate_seconds(geometry: Geometry, methods: tuple[str, ...], real: bool, library: str = "numpy") -> float:
    """Predicted time of `convolve` with one method per axis, and in equal parts of its transpose, which shares it."""
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

    seconds = 0.0
    if spectral:  # and x brought in the order that transforms want
        seconds += SECONDS_PER_TRANSFORM + SECONDS_PER_TRANSPOSED * math.prod(g.x_shape)
    longest = max((g.out_lengths[k] for k in direct), default=1) * batch
    short = longest < MIN_RUN and library != "cupy"
    if isinstance(transform, LibraryFFT) or not real or short:  # taps gathered
        macs = (4 if isinstance(transform, LibraryFFT) or not real else 1) * f * rows * taps * columns * pixels_out
        pieces = math.prod(g.kernel_size[k] * (1 + (g.boundary[k] == "periodic")) for k in direct)
        seconds += SECONDS_PER_PIECE * pieces * bool(direct)
        gathered = f * taps * columns * pixels_out * (taps > 1)
        seconds += 2 * SECONDS_PER_MAC * macs + SECONDS_PER_GATHERED * gathered
        seconds += 2 * SECONDS_PER_COPY * f * rows * pixels_out
    else:
        run = batch * (g.out_lengths[direct[-1]] if direct else 1)
        products = f * taps * pixels_out * (max(rows, FEWEST_ROWS) * columns + rows * max(columns, FEWEST_ROWS)) / 2
        last = direct[-1] if direct else 0
        if spectral and len(direct) > 1 and batch >= 16 and g.kernel_size[last] == 3 and g.stride[last] == 1:
            products *= TILED
        seconds += SECONDS_PER_MAC * products
        phases = math.prod(g.stride[k] for k in direct)  # cotangents of x read the result once for each
        seconds += SECONDS_PER_COPY * f * (columns * pixels_in * (taps > 1) + rows * pixels_out * phases)
        seconds += SECONDS_PER_LINE * f * pixels_out / run
    if isinstance(transform, MatrixDFT | RealDFT):
        macs = (
            transform.analysis_macs * lines_in
            + transform.kernel_macs * lines_kernel
            + transform.synthesis_macs * lines_out
        )
        spectra = f * transform.aliases * p
        if isinstance(transform, RealDFT) and any(axis.length > LINE for axis in transform.axes):
            macs *= OF_LONGER_LINES
        seconds += SECONDS_PER_DFT_MAC * (1 if real else 4) * macs
        seconds += SECONDS_PER_COPY * spectra * (lines_in + lines_kernel)
    elif isinstance(transform, LibraryFFT):
        seconds += SECONDS_PER_LIBRARY - SECONDS_PER_TRANSFORM
        points = transform.points * math.log2(max(2, transform.points))
        seconds += SECONDS_PER_FFT_POINT * points * (lines_in + lines_kernel + lines_out)
    return seconds
