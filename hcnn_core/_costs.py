"""Which axes are cheaper in the frequency domain: a model of seconds, its coefficients measured."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

from hcnn_core._geometry import Geometry
from hcnn_core._transforms import LibraryFFT, MatrixDFT, make_transform

# Seconds per unit on two cores, float32: benchmarks/convolve_costs.py.
SECONDS_PER_MAC = 2e-11
SECONDS_PER_COPY = 1.1e-10
SECONDS_PER_FFT_POINT = 1.3e-10  # times log2 of the length
SECONDS_PER_TAP = 2e-6  # and tile
SECONDS_PER_TRANSFORM = 5e-5  # its fixed part: to the spectrum, from it, and the filter's


@lru_cache(maxsize=512)
def choose_methods(geometry: Geometry, real: bool) -> tuple[str, ...]:
    """Replace each "auto" by the method that makes the whole convolution cheapest."""
    options = [("direct", "fft") if method == "auto" else (method,) for method in geometry.method]
    return min(itertools.product(*options), key=lambda methods: estimate_seconds(geometry, methods, real))


def estimate_seconds(geometry: Geometry, methods: tuple[str, ...], real: bool) -> float:
    """Predicted time of `convolve` with one method per axis."""
    g = geometry
    spectral = [k for k, method in enumerate(methods) if method == "fft"]
    direct = [k for k, method in enumerate(methods) if method == "direct"]
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
    columns = taps * transform.aliases * p * channels
    complex_cost = 4 if not real or isinstance(transform, LibraryFFT) else 1

    seconds = SECONDS_PER_MAC * complex_cost * f * p * out * columns * pixels_out
    seconds += SECONDS_PER_COPY * f * (columns * pixels_out * (taps > 1) + p * out * pixels_out)
    seconds += SECONDS_PER_TAP * taps * max(1, f * columns * pixels_out >> 19)
    seconds += SECONDS_PER_TRANSFORM * bool(spectral)
    if isinstance(transform, MatrixDFT):
        macs = (
            transform.analysis_macs * lines_in
            + transform.kernel_macs * lines_kernel
            + transform.synthesis_macs * lines_out
        )
        rows = f * transform.aliases * p
        seconds += SECONDS_PER_MAC * (1 if real else 4) * macs + SECONDS_PER_COPY * rows * (lines_in + lines_kernel)
    elif isinstance(transform, LibraryFFT):
        points = transform.points * math.log2(max(2, transform.points))
        seconds += SECONDS_PER_FFT_POINT * points * (lines_in + lines_kernel + lines_out)
    return seconds
