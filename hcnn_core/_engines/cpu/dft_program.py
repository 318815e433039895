"""Transforms as programs for compiled kernels: steps from rows to rows, each a codelet's or by a matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import LINE, empty, offsets
from hcnn_core._engines.cpu.codelets import ELU, ELU_VJP, PLAIN, codelet
from hcnn_core._engines.cpu.kernels import dft as kernels
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.real_dft import RealDFT, Step
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.generic.dft_stages import Stage, stages_of
from hcnn_core._engines.taps import Integers
from hcnn_core._engines.transform import Transform
from hcnn_core.backend import Array

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Lengths of axes, and how many bytes apart their elements lie."""


@dataclass(frozen=True)
class Rows:
    """Rows of samples in memory: an array whose row r of channel c begins at origin + offsets[r] + c * step (bytes)."""

    array: Array
    origin: int
    layout: Layout
    step: int

    @classmethod
    def of(cls, array: Array, first: int = 0) -> Rows:
        """Rows of an array (rows, channels, positions), from a position on."""
        return cls(array, array.ctypes.data + first * array.itemsize, first_axis(array), array.strides[1])

    def after(self, positions: int) -> Rows:
        """The same rows from a later position on."""
        return Rows(self.array, self.origin + positions * self.array.itemsize, self.layout, self.step)

    @property
    def offsets(self) -> Integers:
        return offsets_of(self.layout)

    def fill_lines(self, size: int, apart: int) -> bool:
        """Whether so many bytes of rows, and of others so far `apart`, are whole vectors and lines of the cache."""
        strides = (stride for n, stride in zip(*self.layout, strict=True) if n > 1)
        return VECTOR_BYTES == LINE and not any(
            value % LINE for value in (self.origin, self.step, size, apart, *strides)
        )


class Program:
    """Steps from rows of a source to rows of a target; what one leaves to another lies in rows `between`."""

    def __init__(
        self,
        ends: Iterable[tuple[bool, bool]],
        reads: list[Integers],
        writes: list[Integers],
        between: int,
        dtype: Any,
        codelets: list[tuple[int, int, bool, int, bool]] | None = None,
        matrices: list[Array] | None = None,
    ) -> None:
        self.between, self.dtype, self.codelets = between, np.dtype(dtype), codelets
        self.ends = np.asarray(list(ends), np.int64)
        self.read_from, self.written_to = (np.cumsum([0, *map(len, rows)]) for rows in (reads, writes))
        self.reads, self.writes = np.concatenate(reads), np.concatenate(writes)
        self.of_source, self.of_target = (
            np.repeat(flags, list(map(len, rows))).astype(bool)
            for flags, rows in zip(self.ends.T, (reads, writes), strict=True)
        )
        self.factors = np.empty(0, dtype)
        self._matrices = np.zeros((len(self.ends), 2), np.int64)
        if matrices is not None:
            unique = {id(m): m for m in matrices}
            self.factors = np.concatenate([m.T.reshape(-1) for m in unique.values()])
            begin = dict(zip(unique, np.cumsum([0, *(m.size for m in unique.values())]), strict=False))
            self._matrices = np.asarray([(begin[id(m)], m.shape[0]) for m in matrices])
        self._steps: dict[tuple[int, bool, bool], Integers] = {}

    @classmethod
    def of_codelets(cls, steps: list[Step], between: int, dtype: Any, *, backward: bool) -> Program:
        """The steps, or their transposes in reverse."""
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
        """Two stages, a step for each group of rows."""
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
        """Whether an ELU is taken on the way, where `bound` is told so, or its derivative."""
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
        past: bool = False,
    ) -> tuple[Array, ...]:
        """What kernels read, for rows of n elements that begin at these offsets; `between` they are so far apart.

        With an ELU, where the bias of each row of the target lies; with the derivative of one, where its result lies
        for each row of the source, and where sums go. `past`: codelets write the target past the caches.
        """
        tables = (
            np.where(ends, offsets.take(rows, mode="clip"), rows * between_step)
            for ends, offsets, rows in ((self.of_source, source, self.reads), (self.of_target, target, self.writes))
        )
        reads, writes = tables
        how, others, sums = PLAIN, np.empty(0, np.int64), np.empty(0, np.int64)
        if self.fuses and bias is not None:
            how, others = ELU, bias.take(self.writes, mode="clip")
        elif self.fuses and ans is not None:
            how, others, sums = ELU_VJP, *(offsets.take(self.reads, mode="clip") for offsets in ans)
        steps = self._compiled(how, past, n * self.dtype.itemsize < VECTOR_BYTES)
        return steps, self.factors, reads, self.read_from, writes, self.written_to, others, sums

    def _compiled(self, how: int, past: bool, one_by_one: bool) -> Integers:
        if (how, past, one_by_one) not in self._steps:
            addresses = [0] * len(self.ends)
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
                    past=past and bool(self.ends[i, 1]),
                    one_by_one=one_by_one,
                )
            first = (self.written_to if how == ELU else self.read_from)[:-1]
            self._steps[how, past, one_by_one] = np.column_stack((addresses, self.ends, self._matrices, first))
        return self._steps[how, past, one_by_one]

    def __call__(
        self,
        source: Rows,
        target: Rows,
        channels: int,
        n: int,
        *,
        lines: tuple[int, int, int] = (1, 0, 0),
        bias: Array | None = None,
        ans: Rows | None = None,
        sums: Array | None = None,
        past: bool = False,
    ) -> None:
        """Map n positions of the source; see `_kernels.transform` for the ELU on the way.

        Or of so many lines, that many positions apart in the source and in the target. This may be written `past` the
        caches, where that can be had.
        """
        like, size, rows = np.empty(0, self.dtype), self.dtype.itemsize, len(source.offsets)
        lanes = VECTOR_BYTES // size
        block = max(2, kernels.HALF // (self.between + rows) // lanes) * lanes
        block = min(block, max(n, 1))
        half = empty((max(self.between, 1), block), self.dtype)
        separate = sums is not None and not self.fuses
        of_bias = None if bias is None else first_axis(bias)
        of_ans = None if ans is None or sums is None else (ans.layout, first_axis(sums))
        bias = np.empty((0, 0), self.dtype) if bias is None else bias
        sums = np.empty((0, 0)) if sums is None else sums
        taken = ((rows,), (block * size,)) if separate else source.layout
        past = past and target.fill_lines(n * size, lines[2] * size)
        program = _bound(self, taken, target.layout, block * size, min(n, lanes), of_bias, of_ans, past)
        kernels.transform(
            like, channels, n, lines, half, program,
            source.origin, source.offsets, source.step, target.origin, target.offsets, target.step, bias,
            *((0, source.offsets, 0) if ans is None else (ans.origin, ans.offsets, ans.step)),
            empty((len(sums) if separate else 0, block), self.dtype), sums,
        )  # fmt: skip


@lru_cache(maxsize=256)
def _bound(
    program: Program, source: Layout, target: Layout, step: int, n: int, bias: Layout | None,
    ans: tuple[Layout, Layout] | None, past: bool,
) -> tuple[Array, ...]:  # fmt: skip
    """`Program.bound`, for layouts; of n it matters whether it is a vector."""
    of_bias = None if bias is None else offsets_of(bias)
    of_ans = None if ans is None else (offsets_of(ans[0]), offsets_of(ans[1]))
    return program.bound(offsets_of(source), offsets_of(target), step, n, bias=of_bias, ans=of_ans, past=past)


@lru_cache(maxsize=256)
def offsets_of(layout: Layout) -> Integers:
    """Where rows begin, from the first; the same few layouts come back at every step."""
    return offsets(*layout)


def first_axis(array: Array) -> Layout:
    """How the first axis of an array lies."""
    return array.shape[:1], array.strides[:1]


def rows_of(array: Array) -> Integers:
    """Where rows of an array begin, from the first."""
    return offsets_of(first_axis(array))


def programs_of(transform: Transform, dtype: Any) -> tuple[Program, ...]:
    """Analysis, its transpose, synthesis, its transpose."""
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
