"""The (+) layer, two convolutions with an ELU between them, a block at a time: its Q copies never leave the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, zeros
from hcnn_core._engines.cpu.dft_program import Rows, rows_of
from hcnn_core._engines.cpu.direct import evenly, segments
from hcnn_core._engines.cpu.kernels import factored as kernels
from hcnn_core._engines.cpu.kernels.gemm import TILE_ROWS
from hcnn_core._engines.cpu.kernels.operands import Expansion, ExpansionCotangents, NDArray
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.spectral_plan import SpectralPlan, Workspace, added, share
from hcnn_core._engines.taps import extended
from hcnn_core._problem import Problem
from hcnn_core._threads import parallel_for, threads_for

LANES = VECTOR_BYTES // 4
"""float32 numbers of a vector; a multiple of the float64 numbers."""


class FactoredPlan:
    """`factored_layer` and its cotangents for one pair of problems."""

    def __init__(self, expansion: Problem, contraction: Problem, plan: SpectralPlan) -> None:
        self.expansion, self.plan = expansion, plan
        e = expansion
        batch = [a for a in range(len(e.x_shape)) if a not in (*e.axes, *contraction.axes)]
        self.order = (*plan.x_order[: len(contraction.axes)], *e.axes, *batch)
        self.inner = math.prod(e.x_shape[a] for a in batch)
        self.rows = plan.x_rows
        self.lines, samples = (
            extended(np.arange(-(s - 1 - s // 2), n + s // 2), n, boundary == "periodic")
            for n, s, boundary in zip(e.lengths, e.kernel_size, e.boundary, strict=True)
        )
        self.every, stride = e.stride
        phases = [samples[phase::stride] for phase in range(stride)]  # results read neighbouring samples of a phase
        longest = len(phases[0])
        self.samples = np.concatenate([np.pad(p, (0, longest - len(p)), constant_values=-1) for p in phases])
        self.segments = list(segments(self.samples, stride))
        # for each phase of a line, first the segment with all its samples: that one is written, the others are added
        length = e.lengths[1]
        all_of = {
            s: f for f, s, count in self.segments[::-1] if 0 <= s < stride and count == -(-(length - s) // stride)
        }
        self.folds = sorted((all_of.get(s) != f, f, s, count) for f, s, count in self.segments if s >= 0)
        self.line = len(self.samples) * self.inner
        self.n = e.out_lengths[1] * self.inner
        blocks = -(-self.n // plan.tuning.factored_positions)
        self.block = -(-self.n // (blocks * LANES)) * LANES
        rows, columns = (np.arange(s)[::-1] for s in e.kernel_size)
        places = (columns % stride * longest + columns // stride) * self.inner
        self.steps = (rows[:, None] * self.line + places).reshape(-1)
        taps = np.sort(self.steps)
        begin = np.append(True, np.diff(taps) > self.block)
        self.prefetched = np.stack((taps[begin], taps[np.append(begin[1:], True)]), axis=1)  # taps that overlap
        of_phases = [rows for rows, _ in plan.phases]
        self.x_rows, self.rows_from = np.concatenate(of_phases), np.cumsum([0, *map(len, of_phases)])
        self.longest = max(map(len, of_phases))

    @staticmethod
    def supports(positions: int) -> bool:
        """Whether lines of this many positions fill a vector."""
        return positions >= LANES

    def takes(self, bias: NDArray) -> bool:
        """Whether the bias is the same at all positions."""
        return self.plan.per_row(np, bias) is not None

    def forward(self, x: NDArray, h: NDArray, shift: NDArray, g: NDArray, bias: NDArray | None) -> NDArray:
        """As `hcnn_core.factored_layer`."""
        plan, dtype = self.plan, x.dtype
        per_row = np.empty((0, 0), dtype) if bias is None else np.ascontiguousarray(plan.per_row(np, bias))
        of_bias = None if bias is None else rows_of(per_row)
        padded, (taps, shifts) = self._extended(x), self._factors(h, shift)
        y = empty((plan.y_rows, plan.out, self.expansion.out_lengths[0] * self.n), dtype)
        matrices = plan.matrices(plan.filters(g))

        def work(begin: int, end: int) -> None:
            target, workspace = Rows.of(y), Workspace(plan, self.block, self.block, dtype)
            z = self._expanded(TILE_ROWS, dtype)
            analysis, _, synthesis, _ = plan.bound(
                workspace, self.block, x=self._offsets(z), y=target.offsets, bias=of_bias
            )
            kernels.factored(
                begin, end, self._operands(padded, taps, shifts, z), analysis, synthesis, target.operands,
                workspace.operands, matrices, per_row,
            )  # fmt: skip

        self._share(work)
        return plan.from_plan(np, y, plan.y_order, plan.problem.y_shape)

    def adjoints(
        self, cotangent: NDArray, ans: NDArray | None, x: NDArray, h: NDArray, shift: NDArray, g: NDArray
    ) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray | None]:
        """As `hcnn_core.factored.factored_adjoints`; `ans` is None if there is no bias.

        The cotangent of the bias may have to be summed over more axes.
        """
        plan, dtype = self.plan, x.dtype
        padded, (taps, shifts) = self._extended(x), self._factors(h, shift)
        matrices = plan.matrices(plan.filters(g), transposed=True)
        backwards = np.ascontiguousarray(taps.transpose(0, 2, 1))
        rows = plan.cotangent_rows(cotangent)
        answers = rows if ans is None else plan.answers(ans)
        parts = {}

        def work(begin: int, end: int) -> None:
            workspace = Workspace(plan, self.block, self.block, dtype)
            adjoint = workspace.adjoint(self.n * (end - begin), filters=True, bias=ans is not None)
            z, gz = (self._expanded(plan.group, dtype) for _ in range(2))
            lines = self.every * (end - begin - 1) + self.expansion.kernel_size[0]
            lanes = VECTOR_BYTES // dtype.itemsize
            of = ExpansionCotangents(
                z=gz,
                z_offsets=np.arange(len(gz)) * gz.strides[0],
                filters_transposed=backwards,
                x=zeros((self.rows, lines, self.line), dtype),
                x_starts=self.x_rows * (lines * self.line),
                filters_part=zeros((*taps.shape, lanes), dtype),
                filters=zeros((*taps.shape, lanes), float),
                shifts=np.zeros(shifts.shape),
            )
            of_ans = None if ans is None else (answers.offsets, rows_of(adjoint.bias))
            analysis, analysis_transpose, _, synthesis_transpose = plan.bound(
                workspace, self.block, x=self._offsets(z), y=rows.offsets, ans=of_ans
            )
            kernels.factored_adjoints(
                begin, end, self._operands(padded, taps, shifts, z), tuple(of), analysis, analysis_transpose,
                synthesis_transpose, rows.operands, answers.operands, workspace.operands, tuple(adjoint), matrices,
            )  # fmt: skip
            total = adjoint.total if adjoint.total.size else adjoint.part
            parts[begin] = total, adjoint.bias, of.shifts, of.filters.sum(axis=3), (begin, of.x)

        self._share(work)
        totals, sums, shift_sums, ghs, gxs = zip(*(parts[key] for key in sorted(parts)), strict=True)
        gh = sum(ghs[1:], ghs[0])  # (groups, T, channels), then (*kernel_size, Q)
        gh = gh.transpose(1, 0, 2).reshape(self.expansion.w_shape)
        return (
            self._folded(gxs),
            gh.astype(dtype, copy=False),
            sum(shift_sums[1:], shift_sums[0]).reshape(-1).astype(dtype, copy=False),
            plan.filters_of(np, plan.filters_from(added(totals)).astype(dtype, copy=False)),
            None if ans is None else plan.like_result(np, sum(sums[1:], sums[0])).astype(dtype, copy=False),
        )

    def _extended(self, x: NDArray) -> NDArray:
        """Return the signal extended by its boundary, (rows, lines, elements). A vector after its end may be read."""
        x = x.transpose(self.order).reshape(self.rows, *self.expansion.lengths, self.inner)
        shape = (self.rows, len(self.lines), len(self.samples), self.inner)
        size, lanes = math.prod(shape), VECTOR_BYTES // x.itemsize
        flat = empty((size + lanes,), x.dtype)
        flat[size:] = 0
        padded = flat[:size].reshape(shape)

        def work(begin: int, end: int) -> None:
            extended_x, of_x = padded[begin:end], x[begin:end]
            for to, line in enumerate(self.lines):
                if line < 0:
                    extended_x[:, to] = 0
                    continue
                for first, source, count in self.segments:
                    where = slice(first, first + count)
                    extended_x[:, to, where] = 0 if source < 0 else of_x[:, line, self._read(source, count)]

        parallel_for(work, self.rows, self.plan.tuning.additions_per_read * size)
        return padded.reshape(self.rows, len(self.lines), -1)

    def _operands(self, padded: NDArray, taps: NDArray, shifts: NDArray, z: NDArray) -> tuple[Any, ...]:
        """Return the expansion as kernels take it."""
        size, row = padded.itemsize, math.prod(padded.shape[1:])
        expansion = Expansion(
            x=padded.ctypes.data,
            n=self.n,
            starts=self.x_rows * row,
            rows_from=self.rows_from,
            steps_from=self.plan.steps_from,
            line_step=self.every * padded.strides[1],
            taps=self.steps * size,
            prefetched=self.prefetched * size,
            filters=taps,
            shifts=shifts,
            z=z,
        )
        return tuple(expansion)

    def _read(self, source: int, count: int) -> slice:
        """Return the slice of `count` samples of a line, a stride apart, from `source` on."""
        stride = self.expansion.stride[1]
        return slice(source, source + (count - 1) * stride + 1, stride)

    def _folded(self, parts: tuple[tuple[int, NDArray], ...]) -> NDArray:
        """Transpose of `_extended`: the cotangent of x from those of the lines that each thread read."""
        x = empty((self.rows, *self.expansion.lengths, self.inner), parts[0][1].dtype)

        def work(begin_row: int, end_row: int) -> None:
            of_x, written = x[begin_row:end_row], np.zeros(x.shape[1], bool)
            for begin, part in parts:
                part = part[begin_row:end_row].reshape(end_row - begin_row, -1, len(self.samples), self.inner)
                for offset in range(part.shape[1]):
                    line = self.lines[self.every * begin + offset]
                    if line < 0:
                        continue
                    for again, first, source, count in self.folds:
                        to, taken = of_x[:, line, self._read(source, count)], part[:, offset, first : first + count]
                        if again or written[line]:
                            to += taken
                        else:
                            to[...] = taken
                    written[line] = True
            of_x[:, ~written] = 0

        parallel_for(work, self.rows, self.plan.tuning.additions_per_read * x.size)
        shape = [self.expansion.x_shape[a] for a in self.order]
        return x.reshape(shape).transpose(np.argsort(self.order))

    def _factors(self, h: NDArray, shift: NDArray) -> tuple[NDArray, NDArray]:
        """Return filters (groups, taps, channels) and shifts (groups, channels)."""
        group = self.plan.group
        taps = h.reshape(len(self.steps), -1, group).transpose(1, 0, 2)  # (*kernel_size, Q) -> (groups, T, channels)
        return np.ascontiguousarray(taps), np.ascontiguousarray(shift.reshape(-1, group))

    def _expanded(self, channels: int, dtype: Any) -> NDArray:
        """Zeros for the responses of a group of first filters, (channels, rows, positions)."""
        return zeros((channels, self.longest, self.block), dtype)

    def _offsets(self, z: NDArray) -> NDArray:
        """Bytes of z to each row of x, among the rows of its polyphase component."""
        offsets = np.empty_like(self.x_rows)
        offsets[self.x_rows] = np.arange(self.rows) - np.repeat(self.rows_from[:-1], np.diff(self.rows_from))
        return offsets * z.strides[1]

    def _share(self, work: Callable[[int, int], None]) -> None:
        """Call work(begin, end) for the lines of results of each thread."""
        lines = self.expansion.out_lengths[0]
        elements = lines * self.n * self.plan.work
        share(work, evenly(lines, min(lines, threads_for(elements))), elements)
