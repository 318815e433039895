"""Sizes for caches and threads, each with its unit and its measurement or reason; and how convolutions are planned."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

from hcnn_core.environment import is_on, require_valid, value

MOST_TERMS = 3
"""Most terms of a weighted sum of arrays, for which a kernel's argument has room."""

Units = dict[str, float]
"""Numbers of units of work, by the coefficient of `Costs` that prices them."""


@dataclass(frozen=True)
class Costs:
    """Seconds per unit of work of a convolution and its transpose, float32, on two cores.

    Fitted by ``python -m benchmarks.convolve_costs`` to 200 random problems on each of two Intel processors.
    benchmarks/results/convolve_costs.txt compares choices with the best ones.
    """

    plan: float = 6.7e-05
    """The fixed part of a call; SciPy's FFTs of one filter take as long again along each axis."""
    transform: float = 0.00021
    """Added to it where axes are transformed: of the signal, of the result, and of the filter."""
    library: float = 0.00033
    """Added to it where the transform is the library's FFT."""
    fft_pass: float = 2.6e-09
    """A sample in an FFT along all axes at once, per axis. Lengths with large prime factors cost more."""
    block_point: float = 5.4e-10
    """A point of the FFT of a block, times log2 of its length and two."""
    mac: float = 8.7e-12
    """A multiply-add in full register tiles."""
    gathered_mac: float = 9.4e-11
    """A multiply-add of im2col and the library's product."""
    dft_mac: float = 5.5e-11
    """A multiply-add of straight-line DFTs, or of DFT matrices with few columns."""
    copy: float = 1.2e-10
    """A sample copied."""
    transposed: float = 2e-09
    """A sample copied into an order in which another axis is last."""
    fft_point: float = 1.5e-09
    """A point of the library's FFT, times log2 of the length."""
    scattered: float = 3.3e-09
    """A sample added one by one."""
    gathered: float = 2e-09
    """A sample that im2col copies."""
    piece: float = 1.5e-06
    """A box of samples that im2col copies: one per tap, and one more where the tap crosses a periodic boundary."""
    slid_mac: float = 7.4e-15
    """On a GPU, a product of TensorFloat-32 where filters slide along attributes: counted, not measured."""
    instruction: float = 5.6e-14
    """On a GPU, an instruction of a thread: six tenths of what 132 multiprocessors issue at 1.75 GHz."""


OTHER_COSTS = Costs(
    plan=0, transform=1e-5, library=2e-4, fft_pass=4.2e-12, mac=2.9e-13, gathered_mac=1.5e-11,
    dft_mac=5.8e-13, copy=2.9e-12, transposed=1.2e-11, fft_point=3.5e-12, scattered=2.9e-12, gathered=2.4e-9,
    piece=3e-5, block_point=1e-11,
)  # fmt: skip
"""Costs for other libraries than NumPy: those of CuPy on one H200, in float32.

With 0.62 ms for what the host takes to launch a convolution and both transposes, they give eleven measured convolutions
by own kernels within 17 % (benchmarks/results/gpu-h200). That time is left out here: all choices have it, and a graph
has none. The costs of CuPy's functions follow from two convolutions, `fft_pass` from cupyx's by FFT; `instruction` and
`block_point` are counted, not measured."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """Sizes of the blocks and parts in which engines work. They change results by rounding errors at most.

    Register tiles, and blocks inside compiled kernels, are constants beside the kernels, whose code contains them.

    A plan keeps the tuning it was made with. Two tunings with equal values still count as different: plans are cached
    by the identity of the object, because hashing all values would take longer than a small convolution.
    """

    serial_elements: int = 1 << 22
    """Up to this many additions of elements in cache, one thread is faster than several, which must wake up first.
    Measured on virtual processors, where a wake-up takes about 0.1 ms."""

    additions_per_read: int = 4
    """Additions of elements in cache that take as long as reading one element from memory."""

    macs_per_addition: int = 14
    """Multiply-adds of compiled matrix products that take as long as one addition of elements in cache."""

    costs: Costs = Costs()
    """Costs on which the planner bases its choices for NumPy arrays."""

    other_costs: Costs = OTHER_COSTS
    """The same for arrays of other libraries."""

    matrix_macs: int = 128
    """Up to this many multiply-adds per sample, DFTs are computed by matrices or straight-line code; above, by FFT."""

    table_elements: int = 1 << 22
    """Most elements, per plane of the spectrum, of the matrix that transforms filters."""

    compiled_positions: int = 16
    """Compiled kernels are used from this many positions along the longest direct axis, batch included."""

    merged_macs: int = 1 << 20
    """Two short axes of one signal are made one line from this many multiply-adds on."""

    inner_elements: int = 4
    """If at least this many batch elements are contiguous inside the convolved axes, outer batch axes are not moved."""

    in_place_positions: int = 32
    """Nor are they moved where the innermost axis has at least this many positions, if one of the next two holds."""

    in_place_results: int = 128
    """First: a line has at least this many results, over all filters."""

    in_place_samples: int = 1 << 19
    """Second: the signal has at least this many samples, so that a copy of it would not fit the cache."""

    gathered_elements: int = 1 << 19
    """Elements of im2col that are copied at a time: 2 MB in float32, so that the product finds them in cache."""

    product_elements: int = 1 << 18
    """Elements of an intermediate product that are held at a time: 1 MB in float32, for the same reason."""

    spectrum_elements: int = 1 << 23
    """Elements of a result's spectrum that are held at a time. Blocks of whole lines do not fit the second-level cache,
    but shorter lines were slower, because they are written to memory in shorter runs (docs/tuning-notes.md)."""

    cotangent_elements: int = 16 << 20
    """Elements of a cotangent's spectrum that are held at a time, by all threads together. More would take more memory;
    with fewer, threads would wait for each other."""

    extended_elements: int = 1 << 19
    """Elements of a signal, extended by its boundary, above which it is cut into blocks that stay in cache."""

    positions_per_part: int = 256
    """Least number of positions in a thread's part of a direct convolution."""

    winograd_elements: int = 1 << 18
    """Elements of the input tiles of F(4, 3) that are worked on at once: 1 MB in float32."""

    winograd_positions: int = 1 << 10
    """Positions of a line in a block. Longer blocks mean longer inner loops; shorter ones stay in a faster cache."""

    winograd_rows: int = 8
    """Rows of results that are computed at once. Their stores overlap with the products of the next rows."""

    winograd_terms: int = 72
    """Where no axis is transformed, F(4, 3) is used from this many terms per sum (taps times channels); measured."""

    winograd_line: int = 16
    """Least number of elements in a batch or line for Winograd tiles, so that they fill vectors."""

    spectral_positions: int = 144
    """Positions whose spectra are multiplied at a time: a multiple of the three vectors of a register tile."""

    spectral_channels: int = 16
    """About this many channels are transformed at once: the rows of a tile of outer products."""

    spectral_elements: int = 1 << 22
    """Most elements of the spectrum of those channels."""

    factored_positions: int = 64
    """Positions of a (+) layer for which the Q intermediate signals, spectra and cotangents are held at a time."""

    expansion_elements: int = 1 << 25
    """Elements of the Q intermediate signals of a (+) layer that are held at a time on the path without compiled
    kernels: 128 MB in float32."""

    patch_line_elements: int = 256
    """Lines of this many positions are long enough for vectors; longer ones are no faster."""

    transpose_elements: int = 1 << 14
    """Smaller arrays are transposed by NumPy, which is as fast for them."""

    transpose_columns: int = 64
    """Consecutive elements of a transposed copy that share one table of offsets into the original."""

    elementwise_elements: int = 1 << 16
    """Elements in a block of a pointwise function, so that its successive operations find the block in cache."""

    biased_elements: int = 1 << 10
    """Compiled kernels add a bias and take the ELU where at least this many elements share the bias."""

    normalized_elements: int = 16
    """Compiled kernels normalise where at least this many elements side by side have one mean, variance and shift."""

    transform_elements: int = 1 << 17
    """Elements of the rows that a DFT reads and of the rows between its steps, so that they stay in cache together."""

    fft_threaded_samples: int = 1 << 18
    """SciPy's FFT uses threads from this many samples."""

    block_elements: int = 1 << 17
    """Points of the blocks of an FFT that are transformed together, so that they stay in cache."""

    aligned_bytes: int = 1 << 12
    """Smaller arrays begin anywhere: where makes no difference to their speed."""

    kept_bytes: int = 1 << 16
    """From this size on, an array's memory is kept for later ones. Of smaller ones, the C library keeps enough."""

    device_spectrum_elements: int = 48 << 20
    """On a GPU, elements of a result's spectrum that are made before they are transformed back. Fewer would stay in the
    L2 cache, but do not fill the card: with 3 << 20 a launch of `apply` keeps an H200 half busy
    (benchmarks/results/gpu-h200)."""

    device_blocks: int = 1024
    """On a GPU, blocks among which sums over all positions are shared out, at least where there are as many
    positions."""

    device_threads: int = 256
    """On a GPU, threads of a block that treats elements one by one: extensions, the loss, weighted sums."""

    device_update_blocks: int = 64
    """On a GPU, most blocks that share out one of many weighted sums."""

    device_filter_threads: int = 128
    """On a GPU, threads of a block for the moments of patches and for normalised filters."""

    device_sum_positions: int = 64
    """On a GPU, positions whose products of patches a thread adds up in the arrays' dtype, before sums go on in double
    precision."""

    device_map_threads: int = 256
    """On a GPU, threads of a block that transforms rows, where two such blocks fit a multiprocessor; twice as many
    where only one does."""

    device_product_macs: int = 1 << 26
    """On a GPU, up to this many multiply-adds, matrices are multiplied by our kernel; above, cuBLAS takes less time."""


DEFAULT = Tuning()

_current: ContextVar[Tuning] = ContextVar("tuning", default=DEFAULT)


current: Callable[[], Tuning] = _current.get
"""The tuning of the innermost `tuned` block, or the default."""


@contextmanager
def tuned(**sizes: Any) -> Iterator[Tuning]:
    """Use other sizes inside a ``with`` block, for tests and measurements."""
    tuning = replace(current(), **sizes)
    before = _current.set(tuning)
    try:
        yield tuning
    finally:
        _current.reset(before)


PLANNINGS = ("estimate", "measure")


class ChoiceFile:
    """The choices in a block's file, once it is read; another block of the same file reads it again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: dict[str, dict[str, float]] | None = None


Planning: TypeAlias = str | ChoiceFile

_planning: ContextVar[Planning | None] = ContextVar("planning", default=None)


@contextmanager
def planning(name: str, *, file: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Choose how `method="auto"` chooses, within a ``with`` block.

    With "measure", the first call of a convolution runs each way to compute it that a cost model does not find far too
    slow, on the arrays of the call, and keeps the fastest: for its result, and for its derivatives when they are first
    asked for. The estimate's way is left only for one that is faster by more than the noise of its runs. It takes a
    second or two, or some ten calls if a call takes longer, and compiles new kernels. This process keeps its choices,
    and so do later ones on this machine, by a text file in the user's cache folder (`wisdom`).

    Parameters
    ----------
    name : {"estimate", "measure"}
        ``"estimate"`` is the default, unless the environment variable ``HCNN_PLANNING`` says ``measure``. The model
        decides, and it decides alike in every process.
    file : str or path, optional
        With "measure": a text file that keeps the choices of the block. A later block takes its choices from the file,
        in any process and on any machine, so that bits repeat. Choices that the file lacks are looked up or measured,
        and added; several processes may do so at once.

    Yields
    ------
    None
        Nothing. The previous planning holds again after the block.

    Raises
    ------
    ValueError
        If the name is neither of the two, or if a file is given for "estimate". From a call within the block that has
        to choose, if the file holds anything else, is from a later version, or is damaged: it stays as it is.
    OSError
        From a call within the block that has to choose, if the file is not regular, or cannot be read or written.

    See Also
    --------
    convolve : Its ``method="measure"`` measures one call's convolution.
    wisdom : What was measured.
    explain : The choices of one convolution.

    Notes
    -----
    Values differ by rounding errors at most. With ``HCNN_DETERMINISTIC=1`` in the environment estimates decide
    everywhere, so that bits repeat from run to run.

    The block holds for its thread and its task. Threads that PyTorch or JAX start for themselves, as PyTorch does for
    gradients on a GPU, are outside: there ``method="measure"`` or ``HCNN_PLANNING`` reaches them.

    Examples
    --------
    >>> import numpy as np
    >>> from hcnn_core import convolve
    >>> with planning("estimate"):
    ...     y = convolve(np.ones(4), np.ones(3), 0, boundary="zero")
    """
    if name not in PLANNINGS:
        raise ValueError(f"planning is {name!r}; choose {' or '.join(map(repr, PLANNINGS))}")
    if file is not None and name != "measure":
        raise ValueError(f"file keeps what planning('measure') chooses; planning is {name!r}")
    before = _planning.set(name if file is None else ChoiceFile(os.path.abspath(os.path.expanduser(file))))
    try:
        yield
    finally:
        _planning.reset(before)


def current_planning() -> Planning:
    """Return the planning that applies here."""
    return _planning.get() or _default()


@lru_cache(maxsize=1)
def _default() -> str:
    require_valid()
    return value("HCNN_PLANNING")


@lru_cache(maxsize=1)
def is_deterministic() -> bool:
    """Whether HCNN_DETERMINISTIC asks for the same bits in every run."""
    return is_on("HCNN_DETERMINISTIC")
