"""Transforms as programs for compiled kernels: each step maps some rows to others by a codelet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, offsets
from hcnn_core._engines.cpu.codelets import ELU, ELU_VJP, PLAIN, codelet
from hcnn_core._engines.cpu.kernels import dft as kernels
from hcnn_core._engines.cpu.kernels.operands import BoundProgram, NDArray
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.real_dft import DFTStep, RealDFT
from hcnn_core._engines.taps import Integers
from hcnn_core._tuning import current

RowLayout = tuple[tuple[int, ...], tuple[int, ...]]
"""Shape and strides (bytes) of the axes that index rows."""


@dataclass(frozen=True)
class Rows:
    """Rows of samples in memory: row r of channel c begins at origin + offsets[r] + c * step (bytes)."""

    array: NDArray
    """The array that holds them."""
    origin: int
    layout: RowLayout
    step: int

    @classmethod
    def of(cls, array: NDArray, first: int = 0) -> Rows:
        """Rows of an array (rows, channels, positions), from a position on."""
        return cls(array, array.ctypes.data + first * array.itemsize, first_axis(array), array.strides[1])

    def after(self, positions: int) -> Rows:
        """Return the same rows from a later position on."""
        return Rows(self.array, self.origin + positions * self.array.itemsize, self.layout, self.step)

    @property
    def offsets(self) -> Integers:
        return offsets_of(self.layout)

    @property
    def operands(self) -> tuple[int, int]:
        """Origin and step, the tuple `kernels.operands.Rows`."""
        return self.origin, self.step


class Program:
    """Steps from rows of a source to rows of a target. Intermediate results lie in `between` rows of a workspace."""

    def __init__(self, steps: list[DFTStep], between: int, dtype: Any, *, backward: bool) -> None:
        """Take the steps, or their transposes in reverse order."""
        if backward:
            steps = steps[::-1]
        self.between, self.dtype = between, np.dtype(dtype)
        self.codelets = [(s.length, s.count, s.is_complex, s.form, backward) for s in steps]
        reads, writes = [np.asarray(s.reads) for s in steps], [np.asarray(s.writes) for s in steps]
        ends = [(s.first, s.last) for s in steps]
        if backward:
            reads, writes, ends = writes, reads, [end[::-1] for end in ends]
        self.ends = np.asarray(ends, np.int64)
        self.reads_from, self.writes_from = (np.cumsum([0, *map(len, rows)]) for rows in (reads, writes))
        self.reads, self.writes = np.concatenate(reads), np.concatenate(writes)
        self.of_source, self.of_target = (
            np.repeat(flags, list(map(len, rows))).astype(bool)
            for flags, rows in zip(self.ends.T, (reads, writes), strict=True)
        )
        self._steps: dict[tuple[int, bool], Integers] = {}

    def bound(
        self,
        source: Integers,
        target: Integers,
        between_step: int,
        n: int,
        *,
        bias: Integers | None = None,
        ans: tuple[Integers, Integers] | None = None,
    ) -> tuple[NDArray, ...]:
        """Return the program as kernels take it (`kernels.operands.BoundProgram`), for rows of n elements.

        Parameters
        ----------
        source, target
            Bytes to each row of the source and of the target.
        between_step
            Bytes from one row between steps to the next.
        bias
            For the ELU of the result: bytes to the bias of each row of the target.
        ans
            For the derivative of an ELU: bytes to its result, and to the sums, for each row of the source.
        """
        tables = (
            np.where(ends, offsets.take(rows, mode="clip"), rows * between_step)
            for ends, offsets, rows in ((self.of_source, source, self.reads), (self.of_target, target, self.writes))
        )
        reads, writes = tables
        how, elu_rows, sum_rows = PLAIN, np.empty(0, np.int64), np.empty(0, np.int64)
        if bias is not None:
            how, elu_rows = ELU, bias.take(self.writes, mode="clip")
        elif ans is not None:
            how, elu_rows, sum_rows = ELU_VJP, *(offsets.take(self.reads, mode="clip") for offsets in ans)
        steps = self._compiled(how, n * self.dtype.itemsize < VECTOR_BYTES)
        return tuple(BoundProgram(steps, reads, self.reads_from, writes, self.writes_from, elu_rows, sum_rows))

    def _compiled(self, how: int, one_by_one: bool) -> Integers:
        """`BoundProgram.steps`. Codelets of rows shorter than a vector work one by one."""
        if (how, one_by_one) not in self._steps:
            addresses = [0] * len(self.ends)
            for i, line in enumerate(self.codelets):
                here = how if self.ends[i, int(how == ELU)] else PLAIN
                addresses[i] = codelet(self.dtype, *line, how=here, one_by_one=one_by_one)
            first = (self.writes_from if how == ELU else self.reads_from)[:-1]
            self._steps[how, one_by_one] = np.column_stack((addresses, self.ends, first))
        return self._steps[how, one_by_one]

    def apply(self, source: NDArray, first: int, target: NDArray, to: int, n: int, **options: Any) -> None:
        """Call the program on n positions of arrays (rows, channels, positions), from `first` and `to` on."""
        self(Rows.of(source, first), Rows.of(target, to), source.shape[1], n, **options)

    def __call__(
        self,
        source: Rows,
        target: Rows,
        channels: int,
        n: int,
        *,
        lines: tuple[int, int, int] = (1, 0, 0),
        bias: NDArray | None = None,
        ans: Rows | None = None,
        sums: NDArray | None = None,
    ) -> None:
        """Map n positions of the source to the target; see `kernels.dft.transform`, with `ans` `transform_vjp`.

        `lines` are (how many, positions from one to the next in the source, and in the target); with `ans` there is
        one.
        """
        size, rows = self.dtype.itemsize, math.prod(source.layout[0])
        lanes = VECTOR_BYTES // size
        block = max(2, current().transform_elements // (self.between + rows) // lanes) * lanes
        block = min(block, max(n, 1))
        between = empty((max(self.between, 1), block), self.dtype)
        if ans is not None and sums is not None:
            of_ans = ans.layout, first_axis(sums)
            program = _bound(self, source.layout, target.layout, block * size, min(n, lanes), None, of_ans)
            operands = source.operands, ans.operands, target.operands
            kernels.transform_vjp(program, channels, n, *operands, between, sums)
            return
        of_bias = None if bias is None else first_axis(bias)
        bias = np.empty((0, 0), self.dtype) if bias is None else bias
        program = _bound(self, source.layout, target.layout, block * size, min(n, lanes), of_bias, None)
        kernels.transform(program, channels, n, lines, source.operands, target.operands, between, bias)


@lru_cache(maxsize=256)
def _bound(
    program: Program, source: RowLayout, target: RowLayout, step: int, n: int, bias: RowLayout | None,
    ans: tuple[RowLayout, RowLayout] | None,
) -> tuple[NDArray, ...]:  # fmt: skip
    """`Program.bound`, for layouts. It only matters whether n fills a vector, so callers cut n to one vector."""
    of_bias = None if bias is None else offsets_of(bias)
    of_ans = None if ans is None else (offsets_of(ans[0]), offsets_of(ans[1]))
    return program.bound(offsets_of(source), offsets_of(target), step, n, bias=of_bias, ans=of_ans)


@lru_cache(maxsize=256)
def offsets_of(layout: RowLayout) -> Integers:
    """Bytes from the first row to each row. Cached, since the same few layouts come back at every training step."""
    return offsets(*layout)


def first_axis(array: NDArray) -> RowLayout:
    """Layout of the rows along an array's first axis."""
    return array.shape[:1], array.strides[:1]


def rows_of(array: NDArray) -> Integers:
    """Bytes from the first row of an array to each row."""
    return offsets_of(first_axis(array))


@lru_cache(maxsize=256)
def programs_of(transform: RealDFT, dtype: Any) -> tuple[Program, ...]:
    """Programs of a transform: analysis, its transpose, synthesis, its transpose."""
    return tuple(
        Program(steps, between, dtype, backward=backward)
        for (steps, between), backward in (
            (transform.analysis, False),
            (transform.analysis, True),
            (transform.synthesis_transpose, True),
            (transform.synthesis_transpose, False),
        )
    )
