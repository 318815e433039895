"""A layer of two factors with a nonlinearity between them, a tile at a time: its Q copies never leave the cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, zeros
from hcnn_core._engines.cpu.dft_program import Rows, rows_of
from hcnn_core._engines.cpu.direct import evenly, stretches
from hcnn_core._engines.cpu.kernels import factored as kernels
from hcnn_core._engines.cpu.kernels.gemm import TALL
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.spectral_plan import Room, SpectralPlan, added, share
from hcnn_core._engines.taps import extended
from hcnn_core._problem import Problem
from hcnn_core._threads import MEMORY, parallel_for, threads_for
from hcnn_core.backend import Array

LANES = VECTOR_BYTES // 4
"""Numbers in a vector, or in two."""


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
        phases = [samples[phase::stride] for phase in range(stride)]  # taps of one phase are neighbours again
        longest = len(phases[0])
        self.samples = np.concatenate([np.pad(p, (0, longest - len(p)), constant_values=-1) for p in phases])
        self.runs = list(stretches(self.samples, stride))
        # of each phase of a line's samples the first run that has all of them, then the other runs
        length = e.lengths[1]
        all_of = {s: f for f, s, count in self.runs[::-1] if 0 <= s < stride and count == -(-(length - s) // stride)}
        self.folds = sorted((all_of.get(s) != f, f, s, count) for f, s, count in self.runs if s >= 0)
        self.line = len(self.samples) * self.inner
        self.n = e.out_lengths[1] * self.inner
        pieces = -(-self.n // plan.tuning.factored_positions)
        self.chunk = -(-self.n // (pieces * LANES)) * LANES
        rows, columns = (np.arange(s)[::-1] for s in e.kernel_size)
        places = (columns % stride * longest + columns // stride) * self.inner
        self.steps = (rows[:, None] * self.line + places).reshape(-1)
        taps = np.sort(self.steps)
        begin = np.append(True, np.diff(taps) > self.chunk)
        self.ahead = np.stack((taps[begin], taps[np.append(begin[1:], True)]), axis=1)  # of runs of taps that overlap
        of_phases = [rows for rows, _ in plan.phases]
        self.x_rows, self.rows_from = np.concatenate(of_phases), np.cumsum([0, *map(len, of_phases)])
        self.longest = max(map(len, of_phases))

    @staticmethod
    def suits(positions: int) -> bool:
        """Whether lines of so many positions fill a vector."""
        return positions >= LANES

    def takes(self, bias: Array) -> bool:
        """Whether the bias is the same at all positions."""
        return self.plan.per_row(np, bias) is not None

    def forward(self, x: Array, h: Array, shift: Array, g: Array, bias: Array) -> Array:
        """As `hcnn_core.factored_layer`."""
        plan, dtype, per_row = self.plan, x.dtype, np.ascontiguousarray(self.plan.per_row(np, bias))
        padded, (taps, shifts) = self._extended(x), self._factors(h, shift)
        y = empty((plan.y_rows, plan.out, self.expansion.out_lengths[0] * self.n), dtype)
        matrices = plan.matrices(plan.filters(g))

        def work(begin: int, end: int) -> None:
            target, room = Rows.of(y), Room(plan, self.chunk, dtype)
            z = self._expansion(room, TALL, self.longest)
            analysis, _, synthesis, _ = plan.bound(
                room, self.chunk, x=self._offsets(z), y=target.offsets, bias=rows_of(per_row)
            )
            kernels.factored(
                room.like, begin, end, self.n, self.chunk,
                *self._places(padded), taps, shifts, z,
                analysis, synthesis, room.half, target.origin, target.offsets, target.step,
                room.spectrum, room.block, room.offsets, matrices, per_row,
            )  # fmt: skip

        self._share(work)
        return plan.from_plan(np, y, plan.y_order, plan.problem.y_shape)

    def adjoints(
        self, cotangent: Array, ans: Array, x: Array, h: Array, shift: Array, g: Array
    ) -> tuple[Array, Array, Array, Array, Array]:
        """As `hcnn_core.factored.factored_adjoints`; the bias's may still be summed over axes of the result."""
        plan, dtype = self.plan, x.dtype
        padded, (taps, shifts) = self._extended(x), self._factors(h, shift)
        matrices = plan.matrices(plan.filters(g), transposed=True)
        backwards = np.ascontiguousarray(taps.transpose(0, 2, 1))
        rows, answers = plan.cotangent_rows(cotangent), plan.answers(ans)
        parts = {}

        def work(begin: int, end: int) -> None:
            room = Room(plan, self.chunk, dtype)
            z, gz = (self._expansion(room, plan.group, self.longest) for _ in range(2))
            part, totals = room.totals(self.n * (end - begin))
            sums, shift_sums = np.zeros((plan.y_rows, plan.out)), np.zeros(shifts.shape)
            taken, scaled = room.taken(rows, plan.y_rows)
            lines = self.every * (end - begin - 1) + self.expansion.kernel_size[0]
            gx = zeros((self.rows, lines, self.line), dtype)
            gh_part = zeros((*taps.shape, VECTOR_BYTES // dtype.itemsize), dtype)
            gh = zeros(gh_part.shape, float)
            analysis, analysis_back, _, back = plan.bound(
                room, self.chunk, x=self._offsets(z), y=taken, ans=(answers.offsets, rows_of(sums))
            )
            kernels.factored_adjoints(
                room.like, begin, end, self.n, self.chunk,
                *self._places(padded), taps, backwards, shifts, z,
                gz, np.arange(len(gz)) * gz.strides[0], back, analysis, analysis_back, room.half,
                rows.origin, rows.offsets, rows.step, answers.origin, answers.offsets, answers.step, scaled, sums,
                room.spectrum, room.block, room.offsets, room.turned, matrices, part, totals,
                gx, self.x_rows * (lines * self.line), gh_part, gh, shift_sums,
            )  # fmt: skip
            parts[begin] = totals if totals.size else part, sums, shift_sums, gh.sum(axis=3), (begin, gx)

        self._share(work)
        totals, sums, shift_sums, ghs, gxs = zip(*(parts[key] for key in sorted(parts)), strict=True)
        gh = sum(ghs).transpose(1, 0, 2).reshape(self.expansion.w_shape)
        return (
            self._folded(gxs),
            gh.astype(dtype, copy=False),
            sum(shift_sums).reshape(-1).astype(dtype, copy=False),
            plan.filters_of(np, plan.filters_from(added(totals)).astype(dtype, copy=False)),
            plan.like_result(np, sum(sums)).astype(dtype, copy=False),
        )

    def _extended(self, x: Array) -> Array:
        """The signal (rows, lines, elements) with what its boundary adds; some room after it may be read."""
        x = x.transpose(self.order).reshape(self.rows, *self.expansion.lengths, self.inner)
        shape = (self.rows, len(self.lines), len(self.samples), self.inner)
        size, lanes = math.prod(shape), VECTOR_BYTES // x.itemsize
        flat = empty((size + lanes,), x.dtype)
        flat[size:] = 0
        padded = flat[:size].reshape(shape)

        def work(begin: int, end: int) -> None:
            part, of_x = padded[begin:end], x[begin:end]
            for to, line in enumerate(self.lines):
                if line < 0:
                    part[:, to] = 0
                    continue
                for first, source, count in self.runs:
                    run = slice(first, first + count)
                    part[:, to, run] = 0 if source < 0 else of_x[:, line, self._read(source, count)]

        parallel_for(work, self.rows, MEMORY * size)
        return padded.reshape(self.rows, len(self.lines), -1)

    def _places(self, padded: Array) -> tuple[Any, ...]:
        """Where the extended signal lies, the rows of its phases, every line that is kept, its taps, and their runs."""
        size, row = padded.itemsize, math.prod(padded.shape[1:])
        rows, every = (self.x_rows * row, self.rows_from, self.plan.steps_from), self.every * padded.strides[1]
        return padded.ctypes.data, *rows, every, self.steps * size, self.ahead * size

    def _read(self, source: int, count: int) -> slice:
        """So many samples of a line, from one on."""
        stride = self.expansion.stride[1]
        return slice(source, source + (count - 1) * stride + 1, stride)

    def _folded(self, parts: tuple[tuple[int, Array], ...]) -> Array:
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

        parallel_for(work, self.rows, MEMORY * x.size)
        shape = [self.expansion.x_shape[a] for a in self.order]
        return x.reshape(shape).transpose(np.argsort(self.order))

    def _factors(self, h: Array, shift: Array) -> tuple[Array, Array]:
        """Filters (groups, taps, channels) and shifts (groups, channels)."""
        group = self.plan.group
        taps = h.reshape(len(self.steps), -1, group).transpose(1, 0, 2)
        return np.ascontiguousarray(taps), np.ascontiguousarray(shift.reshape(-1, group))

    def _expansion(self, room: Room, channels: int, rows: int) -> Array:
        """Room for what a group of first filters makes, (channels, rows, positions)."""
        return zeros((channels, rows, self.chunk), room.like.dtype)

    def _offsets(self, z: Array) -> Array:
        """Where the rows of x lie among those of their phase."""
        offsets = np.empty_like(self.x_rows)
        offsets[self.x_rows] = np.arange(self.rows) - np.repeat(self.rows_from[:-1], np.diff(self.rows_from))
        return offsets * z.strides[1]

    def _share(self, work: Callable[[int, int], None]) -> None:
        """Call work(begin, end) for the lines of each thread."""
        lines = self.expansion.out_lengths[0]
        elements = lines * self.n * self.plan.work
        share(work, evenly(lines, min(lines, threads_for(elements))), elements)
