"""Codelets: straight-line DFTs as vector instructions, compiled when first asked for.

Numba keeps compiled code until this file changes. A checksum of the sources that codelets are made of is part of their
key, so that they are compiled again when those change.
"""

# mypy: disable-error-code="attr-defined,call-arg,no-untyped-call,untyped-decorator"

from __future__ import annotations

import inspect
import threading
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hcnn_core._engines.cpu import straight_line
from hcnn_core._engines.cpu.kernels.jit import SOURCES, callback
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES, Vectors
from hcnn_core._engines.cpu.straight_line import StraightLine, Terms, dft_line

PLAIN, ELU, ELU_VJP = range(3)
"""Fused steps of a codelet: none; the ELU of its outputs; the derivative of an ELU times its inputs."""

SOURCE_CHECKSUM = zlib.crc32((inspect.getsource(straight_line) + SOURCES).encode())
"""Checksum of the code that writes straight-line DFTs, and of all kernels."""


def _emit(
    builder: Any, line: StraightLine, v: Vectors, load: Callable[[int], Any], store: Callable[[int, Any], None]
) -> None:
    """Write the instructions of straight-line code.

    Numbers are computed just before they are first read, and outputs as soon as possible. So few numbers are in
    registers at a time.
    """
    known: dict[int, Any] = {}

    def total(terms: Terms) -> Any:
        if not terms:
            return v.constant(0)
        rank = {1.0: 0, -1.0: 2}
        (c, number), *others = sorted(terms, key=lambda term: rank.get(term[0], 1))
        value = known[number]
        if c == -1:
            value = builder.fneg(value)
        elif c != 1:
            value = builder.fmul(v.constant(c), value)
        for c, number in others:
            if c == 1:
                value = builder.fadd(value, known[number])
            elif c == -1:
                value = builder.fsub(value, known[number])
            else:
                value = v.multiply_add(v.constant(c), known[number], value)
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
    typing: Any, key: Any, x: Any, x_rows: Any, y: Any, y_rows: Any, n: Any, other: Any, other_rows: Any, sums: Any,
    sum_rows: Any,
) -> Any:  # fmt: skip
    """Apply straight-line code to rows of n bytes: row i begins at x + x_rows[i], and y + y_rows[i].

    `key` is that of `_compiled`, a tuple of literals. Its `how` is PLAIN; ELU, of each output plus the bias at other +
    other_rows[i]; or ELU_VJP: each input is first multiplied by the derivative of the ELU whose result begins at other
    + other_rows[i], and the products are added to the float64 at sums + sum_rows[i].
    """
    if not all(isinstance(value, types.IntegerLiteral) for value in key):
        return None
    signature = types.void(key, *(types.int64,) * 9)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, item, width, length, count, is_complex, form, backward, how = (v.literal_value for v in key)
        line = dft_line(length, count, bool(is_complex), form)
        line = line.transposed() if backward else line
        x, x_rows, y, y_rows, n, other, other_rows, sums, sum_rows = arguments[-9:]
        v, int64 = Vectors(builder, types.float32 if item == 4 else types.float64, width), ir.IntType(64)

        def rows(base: Any, table: Any, count: int) -> list[Any]:
            places = [builder.inttoptr(builder.add(table, int64(8 * i)), int64.as_pointer()) for i in range(count)]
            return [builder.add(base, builder.load(place, align=8)) for place in places]

        sources, targets = rows(x, x_rows, line.inputs), rows(y, y_rows, len(line.outputs))
        others = rows(other, other_rows, {PLAIN: 0, ELU: len(targets), ELU_VJP: len(sources)}[how])
        biases = [v.repeat(place) for place in others] if how == ELU else []
        totals = v.sums(len(sources)) if how == ELU_VJP else []
        step = int64(width * item)
        with cgutils.for_range(builder, builder.sdiv(builder.add(n, int64(width * item - 1)), step)) as loop:
            last, here = builder.sub(n, step), builder.mul(loop.index, step)
            at = builder.select(builder.icmp_signed("<", here, last), here, last)
            unread = set(range(line.inputs))
            done = v.first_lanes(builder.sdiv(builder.sub(here, at), int64(item)))

            def load(i: int) -> Any:
                unread.discard(i)
                value = v.load(builder.add(sources[i], at))
                if how == ELU_VJP:
                    value = v.elu_vjp(v.load(builder.add(others[i], at)), value)
                    new = builder.select(done, v.constant(0), value)
                    builder.store(builder.fadd(builder.load(totals[i]), new), totals[i])
                return value

            def store(i: int, value: Any) -> None:
                value = v.elu(builder.fadd(value, biases[i])) if how == ELU else value
                builder.store(value, v.at(builder.add(targets[i], at), 0), align=item)

            _emit(builder, line, v, load, store)
            for i in sorted(unread) if how == ELU_VJP else ():  # inputs that no output reads count in the sums
                load(i)
        for place, total in zip(rows(sums, sum_rows, len(totals)), totals, strict=True):
            into = v.pointer(place, ir.DoubleType())
            addend = v.total(total)
            addend = addend if item == 8 else builder.fpext(addend, ir.DoubleType())
            builder.store(builder.fadd(builder.load(into), addend), into)
        return context.get_dummy_value()

    return signature, generate


_compiling = threading.Lock()


@cache
def _compiled(*key: int) -> Any:
    """Make a codelet of its key: checksum, bytes of a number, lanes, length, count, is_complex, form, backward, how."""
    a, b, c, d, e, f, g, h, i = key  # Numba takes numbers as literals, but not those in a tuple

    def codelet(x, x_rows, y, y_rows, n, other, other_rows, sums, sum_rows):  # type: ignore[no-untyped-def]
        _dft((a, b, c, d, e, f, g, h, i), x, x_rows, y, y_rows, n, other, other_rows, sums, sum_rows)

    # the cache on disk tells codelets apart by their names
    codelet.__name__ = codelet.__qualname__ = "_".join(("codelet", *map(str, key)))
    return callback(types.void(*(types.int64,) * 9))(codelet)


def codelet(dtype: Any, length: int, count: int, *kind: int, how: int = PLAIN, one_by_one: bool = False) -> int:
    """Address of a compiled `dft_line`, or of its transpose; `kind` is is_complex, form and backward.

    Rows must have at least a vector; `one_by_one` codelets take rows of any length.
    """
    size = np.dtype(dtype).itemsize
    lanes = 1 if one_by_one else VECTOR_BYTES // size
    with _compiling:  # else two threads may compile one codelet; the one not kept is freed though its address is used
        function = _compiled(SOURCE_CHECKSUM, size, lanes, length, count, *map(int, kind), how)
    return function.address
