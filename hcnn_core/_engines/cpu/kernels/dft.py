"""DFTs as programs: each step maps some rows to others by a codelet."""

# mypy: disable-error-code="attr-defined,call-arg,misc,no-any-return,no-untyped-call,untyped-decorator"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from hcnn_core._engines.cpu.kernels.gemm import block_bounds
from hcnn_core._engines.cpu.kernels.jit import compiled
from hcnn_core._engines.cpu.kernels.operands import BoundProgram, NDArray, Rows
from hcnn_core._engines.cpu.kernels.vectors import INT64, VECTOR_BYTES, address


@intrinsic
def _call(
    typing: Any, address: Any, x: Any, x_rows: Any, y: Any, y_rows: Any, n: Any, other: Any, other_rows: Any, sums: Any,
    sum_rows: Any,
) -> Any:  # fmt: skip
    """Call the codelet at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = ir.FunctionType(ir.VoidType(), [INT64] * 9)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 10), generate


@compiled()
def _execute(
    program: BoundProgram, first: int, last: int, source: int, target: int, between: NDArray, n: int, other: int,
    sums: int,
) -> None:  # fmt: skip
    """Take steps [first, last) of a program on rows of n elements.

    What one step leaves to another lies in `between`. Codelets that take an ELU read its bias or its result at `other`,
    and add to `sums`.
    """
    size = between.itemsize
    for s in range(first, last):
        x = source if program.steps[s, 1] else address(between)
        y = target if program.steps[s, 2] else address(between)
        table = program.reads[program.reads_from[s] : program.reads_from[s + 1]]
        to = program.writes[program.writes_from[s] : program.writes_from[s + 1]]
        begin = program.steps[s, 3] * program.elu_rows.itemsize
        other_rows, rows = address(program.elu_rows) + begin, address(program.sum_rows) + begin
        _call(program.steps[s, 0], x, address(table), y, address(to), n * size, other, other_rows, sums, rows)


@compiled()
def run_steps(
    program: BoundProgram, first: int, last: int, source: int, target: int, between: NDArray, n: int
) -> None:  # fmt: skip
    """Take some steps of a program, without ELU."""
    _execute(program, first, last, source, target, between, n, np.int64(0), np.int64(0))


@compiled()
def run_elu(
    program: BoundProgram, source: int, target: int, between: NDArray, n: int, bias: NDArray, channel: int
) -> None:
    """Take all steps of a program; with a bias (rows, channels), write the ELU of the sum."""
    _execute(
        program, np.int64(0), program.steps.shape[0], source, target, between, n,
        address(bias) + channel * bias.itemsize, np.int64(0),
    )  # fmt: skip


@compiled()
def run_elu_vjp(
    program: BoundProgram, g: Rows, ans: Rows, at: int, target: int, between: NDArray, n: int, sums: NDArray,
    channel: int,
) -> None:  # fmt: skip
    """Take all steps of a program on channel `channel` of a cotangent g, from `at` bytes on.

    With sums (rows, channels), g is the cotangent of an ELU whose result is `ans`: it is first multiplied by the ELU's
    derivative, and the products are added to the sums.
    """
    source, answers = g.origin + channel * g.step + at, ans.origin + channel * ans.step + at
    last, into = program.steps.shape[0], address(sums) + channel * sums.itemsize
    _execute(program, np.int64(0), last, source, target, between, n, answers, into)


@compiled()
def transform(
    program: Any, channels: int, n: int, lines: tuple[int, int, int], source: Any, target: Any, between: NDArray,
    bias: NDArray,
) -> None:  # fmt: skip
    """Map rows by a program, in blocks of as many columns as `between` (rows, columns) has.

    `program` is a `BoundProgram`; source and target are `Rows`. A row may have several lines of n columns: (how many,
    elements from one to the next in the source, and in the target). With a bias (rows, channels) the ELU of the sum is
    written.
    """
    program, source, target = BoundProgram(*program), Rows(*source), Rows(*target)
    size, block = between.itemsize, between.shape[1]
    blocks = -(-n // block)
    for channel in range(channels):
        for index in range(lines[0] * blocks):
            line, b = divmod(index, blocks)
            begin, end = block_bounds(b, n, block, VECTOR_BYTES // size)
            taken = source.origin + channel * source.step + (line * lines[1] + begin) * size
            to = target.origin + channel * target.step + (line * lines[2] + begin) * size
            run_elu(program, taken, to, between, end - begin, bias, channel)


@compiled()
def transform_vjp(
    program: Any, channels: int, n: int, source: Any, ans: Any, target: Any, between: NDArray, sums: NDArray
) -> None:
    """As `transform` of a cotangent times the derivative of the ELU whose result is `ans`; see `run_elu_vjp`."""
    program, source, ans, target = BoundProgram(*program), Rows(*source), Rows(*ans), Rows(*target)
    size, block = between.itemsize, between.shape[1]
    for channel in range(channels):
        for b in range(-(-n // block)):
            begin, end = block_bounds(b, n, block, VECTOR_BYTES // size)
            to = target.origin + channel * target.step + begin * size
            run_elu_vjp(program, source, ans, begin * size, to, between, end - begin, sums, channel)
