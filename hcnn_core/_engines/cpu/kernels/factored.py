"""The (+) layer: ELU between its two factors, whose Q copies stay in the cache."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.dft import run_elu, run_elu_vjp, run_steps
from hcnn_core._engines.cpu.kernels.elu import elu_vjp_run
from hcnn_core._engines.cpu.kernels.gemm import (
    RUN,
    TALL,
    add_and_clear,
    add_outer_products,
    block_bounds,
    combine_rows,
    correlate_rows,
    elu_rows,
    spread_rows,
)
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.spectral import add_group, transpose_rows
from hcnn_core._engines.cpu.kernels.vectors import INT32, VECTOR_BYTES, Array

ROWS = 4
"""Rows of samples of a layer of two factors whose cotangents are summed at once, from the nearest cache."""


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    """Ask for the line of the cache at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte, INT32, INT32, INT32])
        ask = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(ask, [builder.inttoptr(arguments[0], byte), INT32(0), INT32(3), INT32(1)])  # all levels, data
        return context.get_dummy_value()

    return types.void(types.int64), generate


@compiled(inline="always")
def _ask(like: Array, m: int, x: int, runs: Array) -> None:
    """Ask for what taps of m positions read; `runs` (runs, 2) are the first and last tap of some that overlap."""
    for run in range(runs.shape[0]):
        for at in range(x + runs[run, 0], x + runs[run, 1] + m * like.itemsize, 64):
            _prefetch(at)


@compiled()
def _expand(
    like: Array, m: int, x: int, rows: Array, table: Array, ahead: Array, h: Array, shift: Array, z: Array, kept: int,
    analysis: Any, begin_step: int, end_step: int, spectrum: Array, half: Array,
) -> None:  # fmt: skip
    """Write the spectra of the ELU of what filters h (taps, channels) make of m positions of some rows, plus shifts.

    z has room for (channels, rows, positions): if `kept`, for all, else for those that are analyzed before others are
    made. The next row of x is asked for by `ahead`, as rows are too short for a processor to foresee.
    """
    size, row = like.itemsize, spectrum.strides[2]
    for first in range(0, h.shape[1], TALL):
        last = min(first + TALL, h.shape[1])
        of_block, shifts, room = h[:, first:last], shift[first:last], z[kept * first :]
        for r in range(rows.size):
            if not first and r + 1 < rows.size:
                _ask(like, m, x + rows[r + 1] * size, ahead)
            elu_rows(like, room[0, r].ctypes.data, z.strides[0], m, x + rows[r] * size, table, of_block, shifts)
        for channel in range(first, last):
            source, to = room[channel - first].ctypes.data, spectrum.ctypes.data + channel * row
            run_steps(like, analysis, begin_step, end_step, source, to, half, m)


@compiled()
def factored(
    like: Array, begin_line: int, end_line: int, n: int, chunk: int,
    x: int, starts: Array, rows_from: Array, steps_from: Array, line_step: int, table: Array, ahead: Array, h: Array,
    shift: Array, z: Array,
    analysis: Any, synthesis: Any, half: Array, target: int, target_rows: Array, target_channel: int,
    spectrum: Array, block: Array, offsets: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """`contract` of channels that are made of x a group at a time: the ELU of filters h (groups, taps, channels).

    Rows of the extended x begin at `starts`, in elements; steps of the analysis from steps_from[p] on take those of
    phase p, from rows_from[p] on. Lines of x are `line_step` bytes apart, results of n positions a line follow each
    other. `ahead` is of `_ask`. Shifts are (groups, channels), z is room for (channels, rows of a phase, positions).
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    groups, row = h.shape[0], spectrum.strides[2]
    for line in range(begin_line, end_line):
        for c in range(-(-n // chunk)):
            begin, end = block_bounds(c, n, chunk, lanes)
            m, width = end - begin, -(-(end - begin) // lanes) * lanes
            taken = x + line * line_step + begin * size
            for p in range(rows_from.size - 1):
                rows = starts[rows_from[p] : rows_from[p + 1]]
                for group in range(groups):
                    _expand(
                        like, m, taken, rows, table, ahead, h[group], shift[group], z, 0,
                        analysis, steps_from[p], steps_from[p + 1], spectrum, half,
                    )  # fmt: skip
                    add_group(like, width, spectrum, block, offsets, matrices, p * groups + group)
            for channel in range(block.shape[2]):
                to = target + channel * target_channel + (line * n + begin) * size
                run_elu(like, synthesis, block.ctypes.data + channel * row, to, half, m, target_rows, bias, channel)


@compiled()
def factored_adjoints(
    like: Array, begin_line: int, end_line: int, n: int, chunk: int,
    x: int, starts: Array, rows_from: Array, steps_from: Array, line_step: int, table: Array, ahead: Array, h: Array,
    h_transposed: Array, shift: Array, z: Array, gz: Array, of_channels: Array,
    back: Any, analysis: Any, analysis_back: Any, half: Array,
    g: int, g_rows: Array, g_channel: int, ans: int, ans_rows: Array, ans_channel: int, scaled: Array, sums: Array,
    spectrum: Array, block: Array, offsets: Array, turned: Array, matrices: Array, part: Array, totals: Array,
    gx: Array, gx_starts: Array, gh_part: Array, gh: Array, shift_sums: Array,
) -> None:  # fmt: skip
    """Cotangents of `factored`, whose z is made again: added to totals as in `contract_adjoints`, gx, gh, shift_sums.

    gx holds the lines of the extended x that these lines read, its rows from `gx_starts` on, gh (groups, taps,
    channels, lanes) sums by lanes; each total has an equal part. `h_transposed` is (groups, channels, taps); z and gz
    are room for (channels, rows of a phase, positions).
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    frequencies, row = block.shape[0], block.strides[2]
    out, groups, channels = block.shape[1] * block.shape[2], h.shape[0], z.shape[0]
    for line in range(begin_line, end_line):
        for c in range(-(-n // chunk)):
            begin, end = block_bounds(c, n, chunk, lanes)
            m, width = end - begin, -(-(end - begin) // lanes) * lanes
            for channel in range(block.shape[2]):
                at = (line * n + begin) * size
                taken, answers = g + channel * g_channel + at, ans + channel * ans_channel + at
                to = block.ctypes.data + channel * row
                run_elu_vjp(like, back, taken, g_rows, answers, ans_rows, to, half, m, scaled, sums, channel)
            for f in range(frequencies):
                transpose_rows(like, turned[f], m, block[f].ctypes.data, row, out)
            taken = x + line * line_step + begin * size
            at, step = (line - begin_line) * (line_step // size) + begin, gz.strides[1]
            for p in range(rows_from.size - 1):
                rows = starts[rows_from[p] : rows_from[p + 1]]
                first_back, last_back = steps_from[-1] - steps_from[p + 1], steps_from[-1] - steps_from[p]
                for group in range(groups):
                    k = p * groups + group
                    _expand(
                        like, m, taken, rows, table, ahead, h[group], shift[group], z, 1,
                        analysis, steps_from[p], steps_from[p + 1], spectrum, half,
                    )  # fmt: skip
                    for f in range(frequencies):
                        a, b = spectrum[f].ctypes.data, block[f].ctypes.data
                        add_outer_products(like, part[k, f], a, row, m, turned[f])
                        combine_rows(like, a, row, width, b, offsets[:out], matrices[k, f])
                    for channel in range(channels):
                        source, to = spectrum.ctypes.data + channel * row, gz[channel].ctypes.data
                        run_steps(like, analysis_back, first_back, last_back, source, to, half, m)
                        if m < gz.shape[2]:
                            gz[channel, :, m:] = 0
                        answers, n_part = z[channel].ctypes.data, rows.size * gz.shape[2]
                        shift_sums[group, channel] += elu_vjp_run(like, to, answers, to, n_part)
                    for v in range(0, rows.size, ROWS):
                        cotangents, of_rows = gz[0, v].ctypes.data, rows[v : v + ROWS]
                        correlate_rows(gh_part[group], taken, table, cotangents, gz.strides[0], step, width, of_rows)
                        for i in range(of_rows.size):
                            to = gx.ctypes.data + (gx_starts[rows_from[p] + v + i] + at) * size
                            spread_rows(like, to, table, m, cotangents + i * step, of_channels, h_transposed[group])
            for group in range(groups):
                add_and_clear(gh_part[group], gh[group])
        if totals.size and (line == end_line - 1 or (line + 1) * n // RUN > line * n // RUN):
            add_and_clear(part, totals)
