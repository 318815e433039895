"""DFTs as programs: steps from rows to rows, each a codelet's or by a matrix."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.elu import elu_run, elu_vjp_run
from hcnn_core._engines.cpu.kernels.gemm import block_bounds, combine_rows
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, Array

HALF = 1 << 17
"""Elements of the rows that a transform reads and of those between its steps, held in cache."""


@intrinsic
def _settle(typing: Any) -> Any:
    """Wait until other threads would read what was written past the caches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _call(
    typing: Any, address: Any, x: Any, x_rows: Any, y: Any, y_rows: Any, n: Any, other: Any, other_rows: Any, sums: Any,
    sum_rows: Any,
) -> Any:  # fmt: skip
    """Call a codelet."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.VoidType(), [INT64] * 9)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 10), generate


@compiled()
def _run_part(
    like: Array, program: Any, first: int, last: int, source: int, target: int, half: Array, n: int, other: int,
    sums: int,
) -> None:  # fmt: skip
    """Take some steps of a program on rows of n elements.

    A program is steps (address of a codelet or 0, whether it reads the source, whether it writes the target, where its
    factors begin, how many rows they make, where its others begin); factors; offsets of rows read, and where those of
    each step begin; of rows written, and where those begin; of what codelets read besides, from `other` on, and where
    they add sums. What does not come from the source or go to the target is held in `half`.
    """
    steps, factors, reads, read_from, writes, written_to, others, sum_rows = program
    for s in range(first, last):
        x = source if steps[s, 1] else half.ctypes.data
        y = target if steps[s, 2] else half.ctypes.data
        table, to = reads[read_from[s] : read_from[s + 1]], writes[written_to[s] : written_to[s + 1]]
        if steps[s, 0]:
            begin, size = steps[s, 5] * others.itemsize, n * like.itemsize
            other_rows, rows = others.ctypes.data + begin, sum_rows.ctypes.data + begin
            _call(steps[s, 0], x, table.ctypes.data, y, to.ctypes.data, size, other, other_rows, sums, rows)
        else:
            begin, count = steps[s, 3], steps[s, 4]
            matrix = factors[begin : begin + table.size * count].reshape(table.size, count)
            step = to[1] - to[0] if count > 1 else 0
            combine_rows(like, y + to[0], step, n, x, table, matrix)


@compiled()
def run_steps(like: Array, program: Any, first: int, last: int, source: int, target: int, half: Array, n: int) -> None:
    """`_run_part` without ELU."""
    _run_part(like, program, first, last, source, target, half, n, 0, 0)


@compiled()
def run_elu(
    like: Array, program: Any, source: int, target: int, half: Array, n: int, rows: Array, bias: Array, channel: int
) -> None:  # fmt: skip
    """Take all steps of a program; with a bias (rows, channels), to the ELU of the sum, in these rows."""
    other = bias.ctypes.data + channel * like.itemsize
    _run_part(like, program, 0, program[0].shape[0], source, target, half, n, other, 0)
    for row in range(0 if program[6].size else bias.shape[0]):
        elu_run(bias, target + rows[row], target + rows[row], n, bias[row, channel])


@compiled()
def run_elu_vjp(
    like: Array, program: Any, g: int, g_rows: Array, ans: int, ans_rows: Array, target: int, half: Array, n: int,
    scaled: Array, sums: Array, channel: int,
) -> None:  # fmt: skip
    """Take all steps of a program on a cotangent; with sums (rows, channels), first take it back through an ELU.

    Of that `ans` is the result, and what comes is added to sums. Unless codelets do it on the way, `scaled` holds it.
    """
    source = g
    if sums.size and not program[6].size:
        source = scaled.ctypes.data
        for row in range(sums.shape[0]):
            to = scaled[row].ctypes.data
            sums[row, channel] += elu_vjp_run(scaled, to, ans + ans_rows[row], g + g_rows[row], n)
    last, into = program[0].shape[0], sums.ctypes.data + channel * sums.itemsize
    _run_part(like, program, 0, last, source, target, half, n, ans, into)


@compiled()
def transform(
    like: Array, channels: int, n: int, lines: tuple[int, int, int], half: Array, program: Any,
    source: int, source_rows: Array, source_channel: int, target: int, target_rows: Array, target_channel: int,
    bias: Array, ans: int, ans_rows: Array, ans_channel: int, scaled: Array, sums: Array,
) -> None:  # fmt: skip
    """Map rows by a program, as many columns at a time as `half` has, so that what lies between steps stays in cache.

    Row r of channel c begins at source + source_rows[r] + c * source_channel. It may have several lines (how many, how
    many elements apart in the source, and in the target) of n columns. With a bias (rows, channels) the ELU of
    the sum is written. With sums (rows, channels), the source is multiplied by the derivative of an ELU whose result is
    at `ans` first, and added up there; see `run_elu_vjp`.
    """
    size, block = like.itemsize, half.shape[1]
    blocks = -(-n // block)
    for channel in range(channels):
        for part in range(lines[0] * blocks):
            line, b = divmod(part, blocks)
            begin, end = block_bounds(b, n, block, VECTOR_BYTES // size)
            m = end - begin
            taken = source + channel * source_channel + (line * lines[1] + begin) * size
            to = target + channel * target_channel + (line * lines[2] + begin) * size
            answers = ans + channel * ans_channel + begin * size
            if sums.size:
                run_elu_vjp(like, program, taken, source_rows, answers, ans_rows, to, half, m, scaled, sums, channel)
            else:
                run_elu(like, program, taken, to, half, m, target_rows, bias, channel)
    _settle()
