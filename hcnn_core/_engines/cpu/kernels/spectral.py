"""Convolution as products of spectra, some positions at a time."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from hcnn_core._engines.cpu.kernels.dft import run_elu, run_elu_vjp, run_steps
from hcnn_core._engines.cpu.kernels.gemm import (
    RUN,
    add_and_clear,
    add_outer_products,
    add_rows,
    block_bounds,
    combine_rows,
)
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.transpose import transpose_tile
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES, Array


@compiled()
def transpose_rows(like: Array, turned: Array, n: int, y: int, y_step: int, rows: int) -> None:
    """Write rows of y, n elements each, to `turned` (n and some, rows and some), transposed."""
    lanes, size = VECTOR_BYTES // like.itemsize, like.itemsize
    for k in range(0, turned.shape[1], lanes):
        for i in range(0, n, lanes):
            to = turned.ctypes.data + i * turned.strides[0] + k * size
            transpose_tile(like, to, turned.strides[0], y + k * y_step + i * size, y_step, rows - 1 - k)


@compiled()
def add_group(
    like: Array, width: int, spectrum: Array, block: Array, offsets: Array, matrices: Array, group: int
) -> None:  # fmt: skip
    """Write the products of a group's spectrum with its matrices to `block`, or add them to those of other groups."""
    row, terms = spectrum.strides[2], offsets[: matrices.shape[2]]
    for f in range(spectrum.shape[0]):
        x, y, matrix = spectrum[f].ctypes.data, block[f].ctypes.data, matrices[group, f]
        if group:
            add_rows(like, y, row, width, x, terms, matrix)
        else:
            combine_rows(like, y, row, width, x, terms, matrix)


@compiled()
def contract(
    like: Array, n: int, chunk: int, analysis: Any, steps_from: Array, synthesis: Any, half: Array,
    source: int, source_channel: int, target: int, target_rows: Array, target_channel: int,
    spectrum: Array, block: Array, offsets: Array, matrices: Array, bias: Array,
) -> None:  # fmt: skip
    """Analyze, multiply by a matrix for each frequency, and synthesize, `chunk` of n positions at a time.

    A phase of a group of channels is analyzed at once, by the steps from steps_from[p] on, into `spectrum`
    (frequencies, entries of a phase, channels of a group, positions), and added to `block` (frequencies, planes, out,
    positions) by matrices (phases * groups, frequencies, entries * channels, planes * out). Rows of either lie one
    after the other; those of the next frequency need not.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    phases, row = steps_from.size - 1, spectrum.strides[2]
    groups = matrices.shape[0] // phases
    for c in range(-(-n // chunk)):
        begin, end = block_bounds(c, n, chunk, lanes)
        m, width = end - begin, -(-(end - begin) // lanes) * lanes
        for p in range(phases):
            for group in range(groups):
                for channel in range(spectrum.shape[2]):
                    taken = source + (group * spectrum.shape[2] + channel) * source_channel + begin * size
                    to = spectrum.ctypes.data + channel * row
                    run_steps(like, analysis, steps_from[p], steps_from[p + 1], taken, to, half, m)
                add_group(like, width, spectrum, block, offsets, matrices, p * groups + group)
        for channel in range(block.shape[2]):
            to = target + channel * target_channel + begin * size
            run_elu(like, synthesis, block.ctypes.data + channel * row, to, half, m, target_rows, bias, channel)


@compiled()
def contract_adjoints(
    like: Array, n: int, chunk: int, back: Any, analysis: Any, analysis_back: Any, steps_from: Array, half: Array,
    g: int, g_rows: Array, g_channel: int, ans: int, ans_rows: Array, ans_channel: int, scaled: Array, sums: Array,
    source: int, source_channel: int, target: int, target_channel: int,
    spectrum: Array, block: Array, offsets: Array, turned: Array, matrices: Array, part: Array, totals: Array,
) -> None:  # fmt: skip
    """Cotangents of `contract`: of x to target, of filters added to totals.

    By matrices (phases * groups, frequencies, planes * out, entries * channels), to `part` (phases * groups,
    frequencies, entries * channels, planes * out and some); either may be empty. Totals, for more than RUN positions,
    are what parts are passed on to. `sums`, `ans` and g are as in `transform`.
    """
    size, lanes = like.itemsize, VECTOR_BYTES // like.itemsize
    frequencies, row = block.shape[0], block.strides[2]
    rows = block.shape[1] * block.shape[2]
    phases = steps_from.size - 1
    groups = max(matrices.shape[0], part.shape[0]) // phases
    for c in range(-(-n // chunk)):
        begin, end = block_bounds(c, n, chunk, lanes)
        m, width = end - begin, -(-(end - begin) // lanes) * lanes
        for channel in range(block.shape[2]):
            taken, answers = g + channel * g_channel + begin * size, ans + channel * ans_channel + begin * size
            to = block.ctypes.data + channel * row
            run_elu_vjp(like, back, taken, g_rows, answers, ans_rows, to, half, m, scaled, sums, channel)
        for f in range(frequencies if part.size else 0):
            transpose_rows(like, turned[f], m, block[f].ctypes.data, row, rows)
        for p in range(phases):
            first_back, last_back = steps_from[-1] - steps_from[p + 1], steps_from[-1] - steps_from[p]
            for group in range(groups):
                k, first = p * groups + group, group * spectrum.shape[2]
                if part.size:
                    for channel in range(spectrum.shape[2]):
                        taken = source + (first + channel) * source_channel + begin * size
                        to = spectrum.ctypes.data + channel * row
                        run_steps(like, analysis, steps_from[p], steps_from[p + 1], taken, to, half, m)
                    for f in range(frequencies):
                        add_outer_products(like, part[k, f], spectrum[f].ctypes.data, row, m, turned[f])
                if matrices.size:
                    for f in range(frequencies):
                        x, y = spectrum[f].ctypes.data, block[f].ctypes.data
                        combine_rows(like, x, row, width, y, offsets[:rows], matrices[k, f])
                    for channel in range(spectrum.shape[2]):
                        to = target + (first + channel) * target_channel + begin * size
                        taken = spectrum.ctypes.data + channel * row
                        run_steps(like, analysis_back, first_back, last_back, taken, to, half, m)
        if totals.size and ((c + 1) * chunk >= n or (c + 1) * chunk // RUN > c * chunk // RUN):
            add_and_clear(part, totals)
