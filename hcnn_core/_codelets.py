"""The straight lines of `_lines.py` as vector instructions, compiled when first asked for.

Numba keeps what it compiled until this file changes; a checksum of the lines' own makes it notice when they do.
"""

# mypy: disable-error-code="call-arg,no-untyped-call,untyped-decorator"

from __future__ import annotations

import inspect
import threading
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core import _lines
from hcnn_core._kernels import VECTOR_BYTES, on_disk
from hcnn_core._lines import Line, Terms, dft_line

LINES = zlib.crc32(inspect.getsource(_lines).encode())


def _emit(builder: Any, line: Line, vector: Any, load: Callable[[int], Any], store: Callable[[int, Any], None]) -> None:
    """Write a line's instructions: each number where it is first read, each output as soon as it is known."""
    lanes, scalar = vector.count, vector.element
    fma = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector] * 3),
        f"llvm.fma.v{lanes}f{32 if scalar == ir.FloatType() else 64}",
    )
    known: dict[int, Any] = {}

    def constant(c: float) -> Any:
        return ir.Constant(vector, [ir.Constant(scalar, c)] * lanes)

    def total(terms: Terms) -> Any:
        if not terms:
            return ir.Constant(vector, None)
        rank = {1.0: 0, -1.0: 2}
        (c, number), *others = sorted(terms, key=lambda term: rank.get(term[0], 1))
        value = known[number]
        if c == -1:
            value = builder.fneg(value)
        elif c != 1:
            value = builder.fmul(constant(c), value)
        for c, number in others:
            if c == 1:
                value = builder.fadd(value, known[number])
            elif c == -1:
                value = builder.fsub(value, known[number])
            else:
                value = builder.call(fma, [constant(c), known[number], value])
        return value

    def need(terms: Terms) -> None:
        stack = [number for _, number in reversed(terms)]
        while stack:
            number = stack[-1]
            if number in known:
                stack.pop()
            elif number < line.inputs:
                known[number] = load(number)
            else:
                inner = line.sums[number - line.inputs]
                missing = [k for _, k in reversed(inner) if k not in known]
                stack.extend(missing)
                if not missing:
                    known[number] = total(inner)

    for i, terms in enumerate(line.outputs):
        need(terms)
        store(i, total(terms))


@intrinsic(prefer_literal=True)
def _dft(
    typing: Any, lines: Any, size: Any, lanes: Any, length: Any, count: Any, is_complex: Any, form: Any, backward: Any,
    x: Any, x_rows: Any, y: Any, y_rows: Any, n: Any,
) -> Any:  # fmt: skip
    """Apply a line to rows of n bytes: row i begins at x + x_rows[i], and y + y_rows[i]."""
    literals = (lines, size, lanes, length, count, is_complex, form, backward)
    if not all(isinstance(value, types.IntegerLiteral) for value in literals):
        return None
    signature = types.void(*literals, *(types.int64,) * 5)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, item, width, length, count, is_complex, form, backward = (value.literal_value for value in literals)
        line = dft_line(length, count, bool(is_complex), form)
        line = line.transposed() if backward else line
        x, x_rows, y, y_rows, n = arguments[-5:]
        int64, vector = ir.IntType(64), ir.VectorType(ir.FloatType() if item == 4 else ir.DoubleType(), width)

        def rows(base: Any, table: Any, count: int) -> list[Any]:
            places = [builder.inttoptr(builder.add(table, int64(8 * i)), int64.as_pointer()) for i in range(count)]
            return [builder.add(base, builder.load(place, align=8)) for place in places]

        sources, targets = rows(x, x_rows, line.inputs), rows(y, y_rows, len(line.outputs))
        step = int64(width * item)
        with cgutils.for_range(builder, builder.sdiv(builder.add(n, int64(width * item - 1)), step)) as loop:
            last, here = builder.sub(n, step), builder.mul(loop.index, step)
            at = builder.select(builder.icmp_signed("<", here, last), here, last)

            def place(row: Any) -> Any:
                return builder.inttoptr(builder.add(row, at), vector.as_pointer())

            _emit(
                builder,
                line,
                vector,
                lambda i: builder.load(place(sources[i]), align=item),
                lambda i, value: builder.store(value, place(targets[i]), align=item),
            )
        return context.get_dummy_value()

    return signature, generate


_compiling = threading.Lock()


@cache
def _compiled(*key: int) -> Any:
    lines, size, lanes, length, count, is_complex, form, backward = key

    def codelet(x, x_rows, y, y_rows, n):  # type: ignore[no-untyped-def]
        _dft(lines, size, lanes, length, count, is_complex, form, backward, x, x_rows, y, y_rows, n)

    # of equal names, what two processes compiled and left on disk would be mistaken for each other in a third
    codelet.__name__ = codelet.__qualname__ = "_".join(("codelet", *map(str, key)))
    return on_disk(numba.cfunc, types.void(*(types.int64,) * 5))(codelet)


def codelet(
    dtype: Any, length: int, count: int, *, is_complex: bool, form: int, backward: bool, one_by_one: bool = False
) -> int:
    """Address of a compiled `dft_line`, or its transpose; it takes rows of a vector at least, or any one by one."""
    size = np.dtype(dtype).itemsize
    lanes = 1 if one_by_one else VECTOR_BYTES // size
    with _compiling:  # of two threads' the one not kept would be freed, and its address be used
        function = _compiled(LINES, size, lanes, length, count, int(is_complex), form, int(backward))
    address: int = function.address
    return address
