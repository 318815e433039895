"""Which axes are cheaper in the frequency domain: a model of seconds, its coefficients measured."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

from hcnn_core._geometry import Geometry
from hcnn_core._transforms import LibraryFFT, MatrixDFT, make_transform, padded_length

# Seconds per unit on one core, float32: benchmarks/convolve_costs.py.
SECONDS_PER_MAC = 2e-11
SECONDS_PER_DFT_MAC = 4e-11  # of matrices with few columns
SECONDS_PER_COPY = 2e-10
SECONDS_PER_FFT_POINT = 2.6e-10  # times log2 of the length
SECONDS_PER_CALL = 4e-5  # of the FFT along all axes at once: its fixed part
SECONDS_PER_PASS = 1e-9  # of that FFT, per sample and axis, whatever the length
SECONDS_PER_TRANSPOSED = 8e-10
SECONDS_PER_LINE = 6e-8  # of positions, and matrix
SECONDS_PER_TRANSFORM = 5e-5  # its fixed part: to the spectrum, from it, and the filter's

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
            return estimate_seconds_at_once(geometry)
        return estimate_seconds(geometry, methods, real)

    return min(itertools.product(*options), key=seconds)


def at_once(geometry: Geometry, methods: tuple[str, ...], real: bool, library: str = "numpy") -> bool:
    """Whether all axes are better transformed at once by FFT: one filter, and NumPy arrays."""
    one_filter = not geometry.sum_axes and not geometry.out_shape
    if library != "numpy" or not one_filter or "direct" in methods:
        return False
    return estimate_seconds_at_once(geometry) < estimate_seconds(geometry, methods, real)


def estimate_seconds_at_once(geometry: Geometry) -> float:
    """Predicted time of `convolve` with one filter by FFT along all axes at once."""
    g = geometry
    points = math.prod(
        n if bound == "periodic" else padded_length(n, size, 1, bound)
        for n, size, bound in zip(g.lengths, g.kernel_size, g.boundary, strict=True)
    )
    arrays = 2 * math.prod(g.x_shape[a] for a in g.batch_axes) + 1
    return SECONDS_PER_CALL + SECONDS_PER_PASS * len(g.axes) * arrays * points


def estimate_seconds(geometry: Geometry, methods: tuple[str, ...], real: bool) -> float:
    """Predicted time of `convolve` with one method per axis, and in equal parts of its transpose, which shares it."""
    g = geometry
    spectral = [k for k, method in enumerate(methods) if method == "fft"]
    direct = sorted((k for k, method in enumerate(methods) if method == "direct"), key=lambda k: g.axes[k])
    transform = make_transform(
        *(tuple(values[k] for k in spectral) for values in (g.lengths, g.kernel_size, g.stride, g.boundary)), real
    )
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
    if isinstance(transform, LibraryFFT) or not real:  # taps gathered, complex products
        macs = 4 * f * rows * taps * columns * pixels_out
        copies = f * (taps * columns * pixels_out * (taps > 1) + rows * pixels_out)
        seconds += 2 * SECONDS_PER_MAC * macs + 2 * SECONDS_PER_COPY * copies
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
    if isinstance(transform, MatrixDFT):
        macs = (
            transform.analysis_macs * lines_in
            + transform.kernel_macs * lines_kernel
            + transform.synthesis_macs * lines_out
        )
        spectra = f * transform.aliases * p
        seconds += SECONDS_PER_DFT_MAC * (1 if real else 4) * macs
        seconds += SECONDS_PER_COPY * spectra * (lines_in + lines_kernel)
    elif isinstance(transform, LibraryFFT):
        points = transform.points * math.log2(max(2, transform.points))
        seconds += SECONDS_PER_FFT_POINT * points * (lines_in + lines_kernel + lines_out)
    return seconds
