"""Direct convolution: indirect products of filters with the taps of an extended signal, and their adjoints."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import itertools
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.elu import elu_run
from hcnn_core._engines.cpu.kernels.gemm import RUN, combine_some_lines, correlate_rows, lines_at_once
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.vectors import INT64, REGISTERS, VECTOR_BYTES, Array, Vectors, load_offset

NEAR, WIDE_OF_NEAR = (4, 4) if REGISTERS == 32 else (4, 2)


@intrinsic(prefer_literal=True)
def combine_neighbours(
    typing: Any, like: Any, rows: Any, vectors: Any, out: Any, out_stride: Any, x: Any, table: Any, matrix: Any,
    size: Any, others: Any,
) -> Any:  # fmt: skip
    """Write sum over k < size * others of matrix[k] * x[table[r * others + k] + i] to out[r, i], r < rows.

    As `combine`, for rows that read each other's terms, so that what is loaded serves all rows that read it. The size
    is rows - 1 or more.
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in (rows, vectors)):
        return None
    signature = types.void(like, rows, vectors, *(types.int64,) * 7)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, table, matrix, size, others = arguments[3:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        count, width = rows.literal_value, vectors.literal_value
        sums = [v.sums(width) for _ in range(count)]
        begins = [builder.mul(others, INT64(r)) for r in range(count)]  # where rows begin to read
        ends = [builder.add(builder.mul(others, size), begin) for begin in begins]
        bounds = [*begins, *ends]
        for section, (first, end) in enumerate(itertools.pairwise(bounds)):
            with cgutils.for_range(builder, end, start=first) as loop:
                source = builder.add(x, load_offset(builder, table, loop.index))
                terms = [v.load(source, i) for i in range(width)]
                for r in range(max(0, section + 1 - count), min(section + 1, count)):
                    step = builder.mul(builder.sub(loop.index, begins[r]), INT64(v.size))
                    factor = v.repeat(builder.add(matrix, step))
                    for variable, term in zip(sums[r], terms, strict=True):
                        v.accumulate(variable, factor, term)
        for r, row in enumerate(sums):
            target = builder.add(out, builder.mul(INT64(r), out_stride))
            for i, variable in enumerate(row):
                builder.store(builder.load(variable), v.at(target, i), align=v.size)
        return context.get_dummy_value()

    return signature, generate


@compiled()
def _extend(padded: Array, x: Array, lines: Array, runs: Array, inner: int) -> None:
    """Copy x (columns, source lines, elements) to padded (columns, lines, elements).

    `lines` holds (source line or -1, first run, end of runs), a run (to, source or -1, count) of the last axis, whose
    samples are `inner` elements each; -1 stands for zeros.
    """
    for column in range(padded.shape[0]):
        for line in range(padded.shape[1]):
            source, first, end = lines[line]
            for run in range(first, end):
                begin, size = runs[run, 0] * inner, runs[run, 2] * inner
                to = padded[column, line, begin : begin + size]
                if source < 0 or runs[run, 1] < 0:
                    to[:] = 0
                else:
                    taken = x[column, source, runs[run, 1] * inner : runs[run, 1] * inner + size]
                    for i in range(size):
                        to[i] = taken[i]


@compiled()
def apply(
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """Write to out (entries, rows, positions), from `first` on, the products of matrices with the taps of x.

    Line by line of n positions: the taps of line l begin at starts[l] + table[k], k < K. x is (entries, columns, source
    lines, elements), `padded` room for one extended entry; matrices are (entries or 1, K, rows). With a bias (rows,),
    the ELU of their sum is written.
    """
    together = lines_at_once(x, n)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for line in range(0, starts.size, together):
            of_lines = starts[line : line + together]
            begin, count = first + line * n, of_lines.size
            combine_some_lines(
                x, out[entry, 0, begin:].ctypes.data, out.strides[1], n, padded.ctypes.data, of_lines, table, matrix
            )
            for row in range(bias.size):
                at = out[entry, row, begin:].ctypes.data
                elu_run(x, at, at, n * count, bias[row])


@compiled(inline="always")
def _neighbours(
    wide: int, like: Array, out: int, out_stride: int, begin: int, end: int, x: int, table: Array, factors: Array,
    size: int, others: int,
) -> None:  # fmt: skip
    """Write NEAR lines of sums from begin to end in tiles, of which the last begins earlier and writes some again."""
    lanes, offsets, matrix = VECTOR_BYTES // like.itemsize, table.ctypes.data, factors.ctypes.data
    for i in range(begin, end, wide * lanes):
        at = min(i, end - wide * lanes) * like.itemsize
        combine_neighbours(like, NEAR, wide, out + at, out_stride, x + at, offsets, matrix, size, others)


@compiled()
def apply_to_one(
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, order: Array, factors: Array, across: int, size: int,
) -> None:  # fmt: skip
    """As `apply` where there is one row, NEAR lines at a time, which read the same samples.

    Of `across` neighbouring lines, NEAR or more, each reads what the one before it reads, less the first of `size`
    lines of samples, and one more. The table has NEAR - 1 lines more than one of them reads, line by line: the `order`
    in which factors of a matrix are copied to `factors`.
    """
    others, step, lanes = table.size // (size + NEAR - 1), n * x.itemsize, VECTOR_BYTES // x.itemsize
    whole = n - n % (WIDE_OF_NEAR * lanes)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        for k in range(order.size):
            factors[k] = matrices[min(entry, matrices.shape[0] - 1), order[k], 0]
        for begin in range(0, starts.size, across):
            for i in range(begin, begin + across, NEAR):
                line = min(i, begin + across - NEAR)
                to, source = (
                    out[entry, 0, first + line * n :].ctypes.data,
                    padded.ctypes.data + starts[line] * x.itemsize,
                )
                _neighbours(WIDE_OF_NEAR, x, to, step, 0, whole, source, table, factors, size, others)
                _neighbours(2, x, to, step, whole, n, source, table, factors, size, others)


@compiled()
def apply_apart(
    out: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, matrices: Array, phases: Array, targets: Array, apart: int, room: Array,
) -> None:  # fmt: skip
    """As `apply`, where the `inner` positions of a sample lie in `out`, and the next sample's `apart` from them.

    For each of some phases (first tap, first line, samples of a line), and one more where these end: line l begins at
    first + targets[l]. Sums are made in `room` (rows, n or more).
    """
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for phase in range(phases.shape[0] - 1):
            (tap, begin, samples), (last_tap, end, _) = phases[phase], phases[phase + 1]
            if begin == end:
                continue
            size = samples * inner
            together = min(lines_at_once(x, size), room.shape[1] // size)
            for line in range(begin, end, together):
                of_lines = starts[line : min(line + together, end)]
                combine_some_lines(
                    x, room.ctypes.data, room.strides[0], size, padded.ctypes.data, of_lines, table[tap:last_tap],
                    matrix[tap:last_tap],
                )  # fmt: skip
                for row in range(room.shape[0]):
                    for k in range(of_lines.size):
                        for sample in range(samples):
                            to = out[entry, row, first + targets[line + k] + sample * apart :]
                            made = room[row, k * size + sample * inner :]
                            for i in range(inner):
                                to[i] = made[i]


@compiled()
def correlate(
    g: Array, first: int, n: int, x: Array, table: Array, starts: Array, lines: Array, runs: Array, inner: int,
    padded: Array, total: Array,
) -> None:  # fmt: skip
    """Add to total (entries, K, rows) the inner products of the taps of x with g (entries, rows, positions).

    The other arguments are those of `apply`.
    """
    lone = n if n < VECTOR_BYTES // x.itemsize else 0
    taken, step = padded.reshape(-1), max(1, RUN // n)
    for entry in range(x.shape[0]):
        _extend(padded, x[entry], lines, runs, inner)
        for line in range(0, 0 if lone else starts.size, step):
            source, of_lines = padded.ctypes.data, starts[line : line + step]
            other = g[entry, 0, first + line * n :].ctypes.data
            correlate_rows(total[entry], source, table, other, g.strides[1], n * x.itemsize, n, of_lines)
        for line in range(starts.size if lone else 0):
            for i in range(n):
                for k in range(table.size):
                    term = taken[starts[line] + table[k] // x.itemsize + i]
                    for r in range(g.shape[1]):
                        total[entry, k, r] += term * g[entry, r, first + line * n + i]
