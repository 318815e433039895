"""The operands of kernels, as named tuples.

Inside kernels operands travel as these tuples. Python hands a kernel plain tuples, and the kernel names them in its
first lines: Numba takes 2 us to find out the type of one NamedTuple, 0.2 us for a plain one, and a small convolution
takes 50 us.

An int that is an address, an offset, a step or a stride counts bytes. Other ints count elements unless they say so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

NDArray = np.ndarray[Any, Any]


class Factors(NamedTuple):
    """The matrix of a product and where it reads its terms: out[r] = sum over k < K of matrix[k, r] * x row k."""

    like: NDArray
    """The matrix: its dtype is that of all operands."""
    offsets: int
    """Address of the offset table: K int64, each the bytes from x to row k."""
    terms: int
    """Terms of a sum, K."""
    matrix: int
    """Address of the factors of the first row of results; those of one term are contiguous."""
    step: int
    """Bytes from the factors of one term to those of the next."""
    bias: int
    """Address of the bias of the first row of results; 0 where there is none."""


class InnerOperands(NamedTuple):
    """Rows of x and y whose inner products are taken line by line."""

    x: int
    """Address that the offset table and `starts` count from."""
    y_step: int
    """Bytes from one row of y to the next."""
    y_line: int
    """Bytes from one line of a row of y to the next."""
    n: int
    """Elements of a line, at least a vector."""
    starts: int
    """Address of a table: for each line the elements from x to where it begins."""
    lines: int
    """Number of lines."""


class Rows(NamedTuple):
    """Rows of channels in memory: a row of channel c begins c * step after that of the first channel.

    A `BoundProgram` holds the offsets of rows.
    """

    origin: int
    """Address that offsets count from, in the first channel."""
    step: int
    """Bytes from one channel to the next."""


class BoundProgram(NamedTuple):
    """A DFT as steps from rows to rows, for rows at given offsets. Tables of all steps are concatenated."""

    steps: NDArray
    """(steps, 4) int64: address of the codelet; whether it reads the source; whether it writes the target; where its
    rows begin in `elu_rows`."""
    reads: NDArray
    """int64: bytes to each row that is read, from the source or from the rows between steps."""
    reads_from: NDArray
    """(steps + 1,) int64: where the rows of each step begin in `reads`."""
    writes: NDArray
    """int64: bytes to each row that is written, from the target or from the rows between steps."""
    writes_from: NDArray
    """(steps + 1,) int64: where the rows of each step begin in `writes`."""
    elu_rows: NDArray
    """int64: bytes to the bias, or to the ELU's result, that codelets also read. Empty where they take no ELU."""
    sum_rows: NDArray
    """int64: bytes to the sums that codelets add the cotangents of the bias to. Empty where they do not."""


class SpectralWorkspace(NamedTuple):
    """A thread's memory while it multiplies spectra."""

    block: int
    """Positions worked on at a time; spectra stay in cache."""
    between: NDArray
    """(rows, width): rows between the steps of a transform."""
    x_spectrum: NDArray
    """(frequencies, planes, channels of a group, width): the spectrum of one polyphase component."""
    y_spectrum: NDArray
    """(frequencies, planes, out, width)."""
    offsets: NDArray
    """int64: bytes to rows of a spectrum, for each frequency."""


class AdjointWorkspace(NamedTuple):
    """A thread's further memory for the cotangents of filters and bias."""

    y_transposed: NDArray
    """(frequencies, width, planes * out and padding): the result's spectrum, so that sums do not cross lanes."""
    bias: NDArray
    """(rows, out) float64: sums of the cotangent over positions; empty where there is no ELU."""
    part: NDArray
    """(components * groups, frequencies, planes * channels, planes * out and padding): sums of products in the
    arrays' dtype; empty where filters are not wanted."""
    total: NDArray
    """Like `part` in float64, to which parts are added now and then; empty for few positions."""


class ExtendedSignal(NamedTuple):
    """A signal, and how its boundary extends it. Each polyphase component is extended by itself."""

    x: NDArray
    """(entries, columns, source lines, elements)."""
    padded: NDArray
    """(columns, lines, elements): workspace for one extended entry."""
    lines: NDArray
    """(lines, 3) int64: source line or -1 for zeros, first segment, end of segments."""
    segments: NDArray
    """(segments, 3) int64: target sample, source sample or -1 for zeros, number of samples."""
    inner: int
    """Elements of a sample of the last axis: the batch inside it."""


class OffsetTable(NamedTuple):
    """Where the taps of each line of positions lie in an extended entry."""

    n: int
    """Positions of a line."""
    offsets: NDArray
    """(K,) int64: bytes to each tap of a line's first position."""
    starts: NDArray
    """(lines,) int64: elements to the first tap of each line."""


class Tiling(NamedTuple):
    """A signal's lines that F(4, 3) reads: six for each tile of four lines of results."""

    six: NDArray
    """(tiles, 6) int64: lines of the signal, -1 for zeros."""
    n: int
    """Positions of a line within a tile."""
    offsets: NDArray
    """(K,) int64: bytes to each tap along the other axes, of all columns."""
    starts: NDArray
    """(lines,) int64: elements to the first tap of each line within a tile."""
    segments: NDArray
    """(segments, 3) int64: target element, source element or -1 for zeros, number of elements."""


class WinogradWorkspace(NamedTuple):
    """A thread's memory while it works on tiles of F(4, 3)."""

    missing: NDArray
    """(elements,) zeros in place of missing lines. For adjoints (2, elements): they write to the second row."""
    places: NDArray
    """(2, 6) int64, to adjoints (4, 6): addresses or offsets of lines that `linear` reads or writes."""
    inputs: NDArray
    """(6, tiles, columns, elements): transformed inputs, the terms of six products. To adjoints (6, columns,
    elements)."""
    outputs: NDArray
    """(6, some rows, some positions): the six products, or to adjoints their cotangents for all rows."""
    sums: NDArray
    """To adjoints (6, columns, elements): the cotangents of `inputs`. Else empty."""


class Expansion(NamedTuple):
    """The first factor of a (+) layer: ELU(filters x + shift), a group of filters at a time."""

    x: int
    """Address of the extended signal (rows, lines, elements)."""
    n: int
    """Positions of a line of results."""
    starts: NDArray
    """(rows,) int64: elements to each row of x, one polyphase component after the other."""
    rows_from: NDArray
    """(components + 1,) int64: where the rows of each polyphase component begin in `starts`."""
    steps_from: NDArray
    """(components + 1,) int64: where the steps of its analysis begin."""
    line_step: int
    """Bytes of x from one line of results to the next."""
    taps: NDArray
    """(taps,) int64: bytes to each tap of a position."""
    prefetched: NDArray
    """(ranges, 2) int64: first and last byte offset of taps that overlap, one range per prefetch loop."""
    filters: NDArray
    """(groups, taps, channels)."""
    shifts: NDArray
    """(groups, channels)."""
    z: NDArray
    """(channels, rows of a component, block): workspace for the ELU of the filters' responses."""


class ExpansionCotangents(NamedTuple):
    """Cotangents of an `Expansion`, and the operands they are computed with."""

    z: NDArray
    """Like `Expansion.z`: workspace for its cotangent."""
    z_offsets: NDArray
    """(channels,) int64: bytes to each channel of it."""
    filters_transposed: NDArray
    """(groups, channels, taps)."""
    x: NDArray
    """(rows, lines, elements): the lines of the extended signal that these lines of results read."""
    x_starts: NDArray
    """(rows,) int64: elements to each row of it, one polyphase component after the other."""
    filters_part: NDArray
    """(groups, taps, channels, lanes): sums over one line, in the arrays' dtype."""
    filters: NDArray
    """The same in float64: the total."""
    shifts: NDArray
    """(groups, channels) float64."""
