"""Sizes for caches and threads: each with its unit, and with the measurement or the reason behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Costs:
    """Seconds for each unit of work of a convolution there and back, float32, two cores.

    Fitted by ``python -m benchmarks.convolve_costs`` to 200 random problems of at most 2^20 samples. How far the
    choices by these costs are from the best ones is in benchmarks/results/convolve_costs.txt.
    """

    plan: float = 0.00015
    """The fixed part of a call."""
    transform: float = 0.00022
    """What it has more with a transform: to the spectrum, from it, and the filter's."""
    library: float = 0.00036
    """What it has more with the library's FFT."""
    call: float = 0.00016
    """The fixed part of the FFT along all axes at once."""
    fft_pass: float = 4.4e-09
    """Of that FFT, per sample and axis, whatever the length but for large primes."""
    mac: float = 1.2e-11
    """A multiply-add of full tiles."""
    gathered_mac: float = 1.6e-10
    """A multiply-add of im2col and the library's product."""
    dft_mac: float = 1e-10
    """A multiply-add of straight-line DFTs, or of DFT matrices with few columns."""
    long_dft_mac: float = 1.8e-10
    """A multiply-add of straight-line DFTs that registers do not hold."""
    copy: float = 5.8e-10
    """A sample copied."""
    transposed: float = 4.8e-09
    """A sample copied whose last axis comes to lie elsewhere."""
    fft_point: float = 2.1e-09
    """A point of the library's FFT, times log2 of the length."""
    scattered: float = 6.5e-09
    """A sample added one by one."""
    line: float = 5.1e-07
    """A line of positions for a matrix."""
    gathered: float = 6.3e-09
    """A sample that im2col copies."""
    piece: float = 4.7e-06
    """A piece that im2col copies: each tap, on each side of a periodic boundary."""


OTHER_COSTS = Costs(
    plan=0, transform=5e-5, library=1.5e-4, mac=2e-11, gathered_mac=4e-11, dft_mac=4e-11, copy=2e-10,
    transposed=8e-10, fft_point=2.6e-10, scattered=0, line=6e-8, gathered=1.2e-9, piece=3e-6,
)  # fmt: skip
"""The same for other libraries than NumPy, by an older fit on two cores: no GPU has been measured. With the costs of
NumPy's engines the strided layers of preset hcnn would take a third more multiply-adds there (benchmarks.gpu.trace)."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """How large the pieces are in which engines work; results differ by rounding at most.

    A plan keeps the tuning it was made with. Two objects are two tunings even where their values agree: plans are
    found again by the object, since hashing all values would take longer than a small convolution.
    """

    serial_elements: int = 1 << 22
    """Elements in cache, of an addition each, that one thread adds up before other threads have woken. Measured on
    virtual processors, where a wake-up takes about 0.1 ms."""

    costs: Costs = Costs()
    """What the planner's choices are based on, for NumPy arrays."""

    other_costs: Costs = OTHER_COSTS
    """And for arrays of other libraries."""

    matrix_macs: int = 128
    """Multiply-adds per sample up to which a DFT is by matrices or straight lines, and not by the library's FFT."""

    table_elements: int = 1 << 22
    """Elements, for each plane of the spectrum, of the matrix that transforms filters, at most."""

    compiled_positions: int = 16
    """Positions along the longest direct axis, batch included, from which on compiled kernels are worth their calls."""

    inner_elements: int = 4
    """Where at least this many batch elements are contiguous inside the convolved axes, outer batch axes stay put."""

    gathered_elements: int = 1 << 19
    """Elements of im2col that are copied at a time: 2 MB in float32, so that the product finds them in cache."""

    product_elements: int = 1 << 18
    """Elements of an intermediate product that are held at a time: 1 MB in float32, for the same reason."""

    spectrum_elements: int = 1 << 23
    """Elements of a result's spectrum that are held at a time. Whole lines leave the second-level cache, but shorter
    ones are written to memory in runs that take longer (docs/tuning-notes.md)."""

    nontemporal_bytes: int = 1 << 25
    """Bytes of a result from which on non-temporal stores write it: it would not stay in a cache until it is read."""

    cotangent_elements: int = 16 << 20
    """Elements of a cotangent's spectrum that are held at a time, by all threads together. More would take memory,
    fewer would have threads wait for each other."""

    extended_elements: int = 1 << 19
    """Elements of a signal, extended by its boundary, above which it is cut into blocks that stay in cache."""

    positions_per_part: int = 256
    """Positions that a block of a direct convolution has at least, for the sake of another thread."""

    winograd_elements: int = 1 << 18
    """Elements of the input tiles of F(4, 3) that are worked on at once: 1 MB in float32."""

    winograd_positions: int = 1 << 10
    """Positions of a line that are worked on at once. More make longer sums, fewer stay in a nearer cache."""

    winograd_rows: int = 8
    """Rows of results that are made at once: their stores overlap with the products of the next rows."""

    winograd_terms: int = 72
    """Terms of a sum, taps of all channels, from which on F(4, 3) was faster where no axis is transformed."""

    spectral_positions: int = 144
    """Positions whose spectra are multiplied at a time: a whole number of tiles of three vectors and of two."""

    spectral_channels: int = 16
    """Channels that are transformed at once, or about so many: the rows of a tile of outer products."""

    spectral_elements: int = 1 << 22
    """Elements of the spectrum of those channels at most."""

    factored_positions: int = 64
    """Positions of a (+) layer whose Q copies are held at a time, with their spectra and cotangents."""

    expansion_elements: int = 1 << 25
    """Elements of a (+) layer's Q copies that are held at a time where no kernel avoids them: 128 MB in float32."""

    patch_line_elements: int = 256
    """Elements of a line of positions that vectors gain nothing by making longer."""

    transpose_elements: int = 1 << 14
    """Elements of an array below which NumPy's own transpose takes no longer."""

    transpose_columns: int = 64
    """Neighbours in a transposed copy whose offsets in the original are listed together."""

    elementwise_elements: int = 1 << 16
    """Elements that pointwise functions take at a time, so that the steps of one block find it in cache."""

    fft_threaded_samples: int = 1 << 18
    """Samples from which on SciPy's FFT gains from threads."""

    fft_by_axis_samples: int = 1 << 14
    """Samples from which on an FFT for each axis, which leaves out lines of zeros, is faster than one call for all."""


DEFAULT = Tuning()

_current: ContextVar[Tuning] = ContextVar("tuning", default=DEFAULT)


def current() -> Tuning:
    """The tuning in force."""
    return _current.get()


@contextmanager
def tuned(**sizes: Any) -> Iterator[Tuning]:
    """Work with other sizes inside a ``with`` block: for tests and measurements."""
    tuning = replace(current(), **sizes)
    before = _current.set(tuning)
    try:
        yield tuning
    finally:
        _current.reset(before)
