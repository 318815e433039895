"""Direct convolution: indirect GEMM of filters with the taps of an extended signal, and its adjoints."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

import itertools
from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.elu import elu_line
from hcnn_core._engines.cpu.kernels.gemm import (
    LINES_PER_BLOCK,
    MAX_TERMS,
    correlate_rows,
    gemm_block,
    gemm_lines,
    gemm_rows,
    lines_at_once,
)
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import ExtendedSignal, NDArray, OffsetTable
from hcnn_core._engines.cpu.kernels.vectors import INT64, REGISTERS, VECTOR_BYTES, Vectors, address, load_offset

# Lines and vectors of a tile of neighbouring lines.
TILE_LINES, TILE_LINES_VECTORS = (4, 4) if REGISTERS == 32 else (4, 2)


@intrinsic(prefer_literal=True)
def neighbours_tile(
    typing: Any, like: Any, lines: Any, vectors: Any, out: Any, out_stride: Any, x: Any, table: Any, matrix: Any,
    size: Any, shift: Any,
) -> Any:  # fmt: skip
    """Micro-kernel: out[r, i] = sum over k < size * shift of matrix[k] * x[table[r * shift + k] + i], r < lines.

    As `gemm_tile` for one row of a matrix and neighbouring lines, which read each other's terms: a term is loaded once
    for all lines that read it. `size` is lines - 1 or more.
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in (lines, vectors)):
        return None
    signature = types.void(like, lines, vectors, *(types.int64,) * 7)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, out_stride, x, table, matrix, size, shift = arguments[3:]
        v = Vectors(builder, like.dtype, 8 * VECTOR_BYTES // like.dtype.bitwidth)
        count, width = lines.literal_value, vectors.literal_value
        sums = [v.sums(width) for _ in range(count)]
        begins = [builder.mul(shift, INT64(r)) for r in range(count)]  # the first term of each line
        ends = [builder.add(builder.mul(shift, size), begin) for begin in begins]
        # between two bounds the same lines read every term
        for interval, (first, end) in enumerate(itertools.pairwise([*begins, *ends])):
            with cgutils.for_range(builder, end, start=first) as loop:
                source = builder.add(x, load_offset(builder, table, loop.index))
                terms = [v.load(source, i) for i in range(width)]
                for r in range(max(0, interval + 1 - count), min(interval + 1, count)):
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
def _extend(signal: ExtendedSignal, entry: int) -> None:
    """Copy an entry of x (columns, source lines, elements) to padded (columns, lines, elements)."""
    x, padded, segments, inner = signal.x[entry], signal.padded, signal.segments, signal.inner
    for column in range(padded.shape[0]):
        for line in range(padded.shape[1]):
            source, first, end = signal.lines[line]
            for k in range(first, end):
                begin, size = segments[k, 0] * inner, segments[k, 2] * inner
                to = padded[column, line, begin : begin + size]
                if source < 0 or segments[k, 1] < 0:
                    to[:] = 0
                else:
                    taken = x[column, source, segments[k, 1] * inner : segments[k, 1] * inner + size]
                    for i in range(size):
                        to[i] = taken[i]


@compiled(inline="always")
def _apply(
    together: int, out: NDArray, first: int, signal: Any, taps: Any, matrices: NDArray, bias: NDArray
) -> None:  # fmt: skip
    """As `apply`, for `together` lines at once. Numba compiles only the branch that this constant takes."""
    signal, taps = ExtendedSignal(*signal), OffsetTable(*taps)
    x, starts, n = signal.x, taps.starts, taps.n
    for entry in range(x.shape[0]):
        _extend(signal, entry)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for line in range(0, starts.size, together):
            some = starts[line : line + together]
            begin, source = first + line * n, address(signal.padded)
            # (rows, K) @ (K, lines * n)
            to, step = address(out[entry, 0, begin:]), out.strides[1]
            if together > 1:
                gemm_lines(to, step, n * x.itemsize, n, source, some, taps.offsets, matrix)
            else:
                gemm_rows(to, step, n, source + some[0] * x.itemsize, taps.offsets, matrix)
            for row in range(bias.size):
                at = address(out[entry, row, begin:])
                elu_line(x, at, at, n * some.size, bias[row])


@compiled()
def apply(out: NDArray, first: int, signal: Any, taps: Any, matrices: NDArray, bias: NDArray) -> None:
    """Write the products of matrices (entries or 1, K, rows) with the taps of x to out (entries, rows, positions).

    Results begin at position `first`; lines of results follow each other. With a bias (rows,), the ELU of the sum is
    written. signal is an `ExtendedSignal`, taps an `OffsetTable`.
    """
    _apply(1, out, first, signal, taps, matrices, bias)


@compiled()
def apply_together(out: NDArray, first: int, signal: Any, taps: Any, matrices: NDArray, bias: NDArray) -> None:
    """As `apply`, for lines that share tiles; see `lines_at_once`."""
    _apply(LINES_PER_BLOCK, out, first, signal, taps, matrices, bias)


@compiled(inline="always")
def _neighbours(
    vectors: int, like: NDArray, out: int, out_stride: int, begin: int, end: int, x: int, table: NDArray,
    factors: NDArray, size: int, shift: int,
) -> None:  # fmt: skip
    """Write positions [begin, end) of TILE_LINES lines. The last tile begins earlier and writes some again."""
    lanes, offsets, matrix = VECTOR_BYTES // like.itemsize, address(table), address(factors)
    for i in range(begin, end, vectors * lanes):
        at = min(i, end - vectors * lanes) * like.itemsize
        neighbours_tile(like, TILE_LINES, vectors, out + at, out_stride, x + at, offsets, matrix, size, shift)


@compiled()
def apply_to_one(
    out: NDArray, first: int, signal: Any, taps: Any, matrices: NDArray, order: NDArray, factors: NDArray, across: int,
    size: int,
) -> None:  # fmt: skip
    """As `apply` for a single row of the matrices: TILE_LINES lines at a time, which read the same samples.

    `across` lines, at least TILE_LINES, are neighbours: each reads `size` lines of samples, all but the first of those
    that the line before it reads, and one more. The offset table lists the taps by lines of samples, TILE_LINES - 1
    lines more than one line of results reads. `order` lists the taps of a matrix likewise; `factors` is a workspace for
    them.
    """
    signal, taps = ExtendedSignal(*signal), OffsetTable(*taps)
    x, table, starts, n = signal.x, taps.offsets, taps.starts, taps.n
    shift, step, lanes = table.size // (size + TILE_LINES - 1), n * x.itemsize, VECTOR_BYTES // x.itemsize
    whole = n - n % (TILE_LINES_VECTORS * lanes)
    for entry in range(x.shape[0]):
        _extend(signal, entry)
        for k in range(order.size):
            factors[k] = matrices[min(entry, matrices.shape[0] - 1), order[k], 0]
        for begin in range(0, starts.size, across):
            for i in range(begin, begin + across, TILE_LINES):
                line = min(i, begin + across - TILE_LINES)
                to = address(out[entry, 0, first + line * n :])
                source = address(signal.padded) + starts[line] * x.itemsize
                _neighbours(TILE_LINES_VECTORS, x, to, step, 0, whole, source, table, factors, size, shift)
                _neighbours(2, x, to, step, whole, n, source, table, factors, size, shift)


@compiled()
def apply_strided(
    out: NDArray, signal: Any, taps: Any, matrices: NDArray, components: NDArray, targets: NDArray, stride: int,
    workspace: NDArray,
) -> None:  # fmt: skip
    """As `apply`, one polyphase component of the results after the other: samples of a line lie `stride` apart in out.

    components (components + 1, 3) holds the first tap, the first line and the samples of a line of each; line l begins
    at position targets[l]. Products are made in `workspace` (rows, n or more) and then copied.
    """
    signal, taps = ExtendedSignal(*signal), OffsetTable(*taps)
    x, inner = signal.x, signal.inner
    for entry in range(x.shape[0]):
        _extend(signal, entry)
        matrix = matrices[min(entry, matrices.shape[0] - 1)]
        for component in range(components.shape[0] - 1):
            (tap, begin, samples), (last_tap, end, _) = components[component], components[component + 1]
            if begin == end:
                continue
            size = samples * inner
            together = min(lines_at_once(x, size), workspace.shape[1] // size)
            for line in range(begin, end, together):
                some = taps.starts[line : min(line + together, end)]
                # (rows, K of the component) @ (K, lines * size)
                gemm_block(
                    address(workspace), workspace.strides[0], size, address(signal.padded), some,
                    taps.offsets[tap:last_tap], matrix[tap:last_tap],
                )  # fmt: skip
                for row in range(workspace.shape[0]):
                    for k in range(some.size):
                        for sample in range(samples):
                            to = out[entry, row, targets[line + k] + sample * stride :]
                            source = workspace[row, k * size + sample * inner :]
                            for i in range(inner):
                                to[i] = source[i]


@compiled()
def correlate(g: NDArray, first: int, signal: Any, taps: Any, total: NDArray) -> None:
    """Add the inner products of the taps of x with g (entries, rows, positions), from `first` on, to total.

    total is (entries, K, rows). The other arguments are those of `apply`.
    """
    signal, taps = ExtendedSignal(*signal), OffsetTable(*taps)
    x, starts, offsets, n = signal.x, taps.starts, taps.offsets, taps.n
    shorter_than_a_vector = n < VECTOR_BYTES // x.itemsize
    padded, step = signal.padded.reshape(-1), max(1, MAX_TERMS // n)
    for entry in range(x.shape[0]):
        _extend(signal, entry)
        for line in range(0, 0 if shorter_than_a_vector else starts.size, step):
            source, some = address(signal.padded), starts[line : line + step]
            other = address(g[entry, 0, first + line * n :])
            # (K, lines * n) @ (lines * n, rows)
            correlate_rows(total[entry], source, offsets, other, g.strides[1], n * x.itemsize, n, some)
        for line in range(starts.size if shorter_than_a_vector else 0):
            for i in range(n):
                for k in range(offsets.size):
                    term = padded[starts[line] + offsets[k] // x.itemsize + i]
                    for r in range(g.shape[1]):
                        total[entry, k, r] += term * g[entry, r, first + line * n + i]
