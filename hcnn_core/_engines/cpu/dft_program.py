"""Transforms as programs for compiled kernels: each step maps some rows to others, by a codelet or by a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import CACHE_LINE, empty, offsets
from hcnn_core._engines.cpu.codelets import ELU, ELU_VJP, PLAIN, codelet, product
from hcnn_core._engines.cpu.kernels import dft as kernels
from hcnn_core._engines.cpu.kernels.operands import BoundProgram, NDArray
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.real_dft import RealDFT, Step
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.generic.dft_stages import Stage, stages_of
from hcnn_core._engines.taps import Integers
from hcnn_core._engines.transform import Transform

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
        """The same rows from a later position on."""
        return Rows(self.array, self.origin + positions * self.array.itemsize, self.layout, self.step)

    @property
    def offsets(self) -> Integers:
        return offsets_of(self.layout)

    @property
    def operands(self) -> tuple[int, Integers, int]:
        """As kernels take them; see `kernels.operands.Rows`."""
        return self.origin, self.offsets, self.step

    def fill_cache_lines(self, size: int, line_step: int) -> bool:
        """Whether lines of `size` bytes, `line_step` bytes apart, consist of whole vectors and whole cache lines."""
        strides = (stride for n, stride in zip(*self.layout, strict=True) if n > 1)
        return VECTOR_BYTES == CACHE_LINE and not any(
            value % CACHE_LINE for value in (self.origin, self.step, size, line_step, *strides)
        )


class Program:
    """Steps from rows of a source to rows of a target. Intermediate results lie in `between` rows of a workspace."""

    def __init__(
        self,
        ends: Iterable[tuple[bool, bool]],
        reads: list[Integers],
        writes: list[Integers],
        between: int,
        dtype: Any,
        codelets: list[tuple[int, int, bool, int, bool]] | None = None,
        matrices: list[NDArray] | None = None,
    ) -> None:
        self.between, self.dtype, self.codelets = between, np.dtype(dtype), codelets
        self.ends = np.asarray(list(ends), np.int64)
        self.reads_from, self.writes_from = (np.cumsum([0, *map(len, rows)]) for rows in (reads, writes))
        self.reads, self.writes = np.concatenate(reads), np.concatenate(writes)
        self.of_source, self.of_target = (
            np.repeat(flags, list(map(len, rows))).astype(bool)
            for flags, rows in zip(self.ends.T, (reads, writes), strict=True)
        )
        self.factors = np.empty(0, dtype)
        self._matrices = np.zeros(len(self.ends), np.int64)
        if matrices is not None:
            unique = {id(m): m for m in matrices}
            self.factors = np.concatenate([m.T.reshape(-1) for m in unique.values()])
            begin = dict(zip(unique, np.cumsum([0, *(m.size for m in unique.values())]), strict=False))
            self._matrices = np.asarray([begin[id(m)] for m in matrices])
        self._steps: dict[tuple[int, bool, bool], Integers] = {}

    @classmethod
    def of_codelets(cls, steps: list[Step], between: int, dtype: Any, *, backward: bool) -> Program:
        """A program of codelets: the steps, or their transposes in reverse order."""
        if backward:
            steps = steps[::-1]
        reads, writes = [np.asarray(s.reads) for s in steps], [np.asarray(s.writes) for s in steps]
        return cls(
            [(s.last, s.first) if backward else (s.first, s.last) for s in steps],
            *((writes, reads) if backward else (reads, writes)),
            between,
            dtype,
            codelets=[(s.length, s.count, s.is_complex, s.form, backward) for s in steps],
        )

    @classmethod
    def of_stages(cls, first: Stage, second: Stage, between: int, dtype: Any) -> Program:
        """A program of matrices: two stages, each with a step for each group of rows."""
        stages = [(s, group, s is first) for s in (first, second) for group in range(len(s.reads))]
        return cls(
            [(is_first, not is_first) for _, _, is_first in stages],
            [s.reads[g] + s.read_step * np.arange(s.matrix.shape[1]) for s, g, _ in stages],
            [s.writes[g] + s.write_step * np.arange(s.matrix.shape[0]) for s, g, _ in stages],
            between,
            dtype,
            matrices=[s.matrix for s, _, _ in stages],
        )

    @property
    def fuses(self) -> bool:
        """Whether codelets take an ELU or its derivative on the way."""
        return self.codelets is not None

    def bound(
        self,
        source: Integers,
        target: Integers,
        between_step: int,
        n: int,
        *,
        bias: Integers | None = None,
        ans: tuple[Integers, Integers] | None = None,
        nontemporal: bool = False,
    ) -> tuple[NDArray, ...]:
        """The program as kernels take it (`kernels.operands.BoundProgram`), for rows of n elements.

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
        nontemporal
            Whether codelets write the target by non-temporal stores.
        """
        tables = (
            np.where(ends, offsets.take(rows, mode="clip"), rows * between_step)
            for ends, offsets, rows in ((self.of_source, source, self.reads), (self.of_target, target, self.writes))
        )
        reads, writes = tables
        how, elu_rows, sum_rows = PLAIN, np.empty(0, np.int64), np.empty(0, np.int64)
        if self.fuses and bias is not None:
            how, elu_rows = ELU, bias.take(self.writes, mode="clip")
        elif self.fuses and ans is not None:
            how, elu_rows, sum_rows = ELU_VJP, *(offsets.take(self.reads, mode="clip") for offsets in ans)
        steps = self._compiled(how, nontemporal, n * self.dtype.itemsize < VECTOR_BYTES)
        return tuple(
            BoundProgram(steps, self.factors, reads, self.reads_from, writes, self.writes_from, elu_rows, sum_rows)
        )

    def _compiled(self, how: int, nontemporal: bool, one_by_one: bool) -> Integers:
        """`BoundProgram.steps`. Codelets of rows shorter than a vector work one by one."""
        if (how, nontemporal, one_by_one) not in self._steps:
            addresses = [0 if self.fuses else product(self.dtype)] * len(self.ends)
            for i, (length, count, is_complex, form, backward) in enumerate(self.codelets or ()):
                here = how if self.ends[i, int(how == ELU)] else PLAIN
                addresses[i] = codelet(
                    self.dtype,
                    length,
                    count,
                    is_complex=is_complex,
                    form=form,
                    backward=backward,
                    how=here,
                    nontemporal=nontemporal and bool(self.ends[i, 1]),
                    one_by_one=one_by_one,
                )
            first = (self.writes_from if how == ELU else self.reads_from)[:-1]
            self._steps[how, nontemporal, one_by_one] = np.column_stack((addresses, self.ends, self._matrices, first))
        return self._steps[how, nontemporal, one_by_one]

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
        nontemporal: bool = False,
    ) -> None:
        """Map n positions of the source to the target; see `kernels.dft.transform`, with `ans` `transform_vjp`.

        `lines` are (how many, positions from one to the next in the source, and in the target); with `ans` there is
        one. Where `nontemporal`, the target is written by non-temporal stores if its rows allow it.
        """
        size, rows = self.dtype.itemsize, len(source.offsets)
        lanes = VECTOR_BYTES // size
        block = max(2, kernels.BLOCK_ELEMENTS // (self.between + rows) // lanes) * lanes
        block = min(block, max(n, 1))
        between = empty((max(self.between, 1), block), self.dtype)
        if ans is not None and sums is not None:
            scaled = empty((0 if self.fuses else rows, block), self.dtype)
            taken = source.layout if self.fuses else first_axis(scaled)
            of_ans = ans.layout, first_axis(sums)
            program = _bound(self, taken, target.layout, block * size, min(n, lanes), None, of_ans, False)
            given = source.operands, ans.operands, target.operands
            kernels.transform_vjp(program, channels, n, *given, between, scaled, sums)
            return
        of_bias = None if bias is None else first_axis(bias)
        bias = np.empty((0, 0), self.dtype) if bias is None else bias
        nontemporal = nontemporal and target.fill_cache_lines(n * size, lines[2] * size)
        program = _bound(self, source.layout, target.layout, block * size, min(n, lanes), of_bias, None, nontemporal)
        kernels.transform(program, channels, n, lines, source.operands, target.operands, between, bias)


@lru_cache(maxsize=256)
def _bound(
    program: Program, source: RowLayout, target: RowLayout, step: int, n: int, bias: RowLayout | None,
    ans: tuple[RowLayout, RowLayout] | None, nontemporal: bool,
) -> tuple[NDArray, ...]:  # fmt: skip
    """`Program.bound`, for layouts. Of n it only matters whether it fills a vector, so callers cut it to one."""
    of_bias = None if bias is None else offsets_of(bias)
    of_ans = None if ans is None else (offsets_of(ans[0]), offsets_of(ans[1]))
    return program.bound(
        offsets_of(source), offsets_of(target), step, n, bias=of_bias, ans=of_ans, nontemporal=nontemporal
    )


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


def programs_of(transform: Transform, dtype: Any) -> tuple[Program, ...]:
    """Programs of a transform: analysis, its transpose, synthesis, its transpose."""
    key: Any = transform
    return _programs_of(key, np.dtype(dtype))


@lru_cache(maxsize=256)
def _programs_of(transform: Any, dtype: Any) -> tuple[Program, ...]:
    if isinstance(transform, MatrixDFT):
        return tuple(Program.of_stages(*stages, dtype) for stages in stages_of(transform, dtype))
    assert isinstance(transform, RealDFT)
    return tuple(
        Program.of_codelets(*steps, dtype, backward=backward)
        for steps, backward in (
            (transform.analysis, False),
            (transform.analysis, True),
            (transform.synthesis_transpose, True),
            (transform.synthesis_transpose, False),
        )
    )
