"""Convolution with all axes transformed, by one kernel that works on a block of positions at a time.

One polyphase component of one group of channels of x is transformed at once, so that its spectrum stays in the
second-level cache. For each frequency, a matrix product adds it to the result's spectrum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hcnn_core._engines.cpu.allocator import empty, zeros
from hcnn_core._engines.cpu.dft_program import Rows, programs_of, rows_of
from hcnn_core._engines.cpu.direct import evenly
from hcnn_core._engines.cpu.kernels import spectral as kernels
from hcnn_core._engines.cpu.kernels.gemm import MAX_TERMS
from hcnn_core._engines.cpu.kernels.operands import AdjointWorkspace, NDArray, SpectralWorkspace
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.plan import CpuPlan
from hcnn_core._engines.cpu.real_dft import RealDFT
from hcnn_core._engines.taps import Integers
from hcnn_core._threads import parallel_for, threads_for


class SpectralPlan(CpuPlan):
    """A plan without directly convolved axes."""

    transform: RealDFT

    def _transformed(self, x: NDArray, filters: NDArray, bias: NDArray | None) -> NDArray:
        """(rows, channels, positions) -> (rows, out, positions), by filters (frequencies, rows, terms)."""
        dtype, y = x.dtype, empty((self.y_rows, self.out, x.shape[2]), x.dtype)
        matrices = self.matrices(filters)
        of_bias = None if bias is None else rows_of(bias)
        bias = np.empty((0, 0), dtype) if bias is None else bias

        def work(begin: int, end: int) -> None:
            n, source, target = end - begin, Rows.of(x, begin), Rows.of(y, begin)
            workspace = Workspace(self, n, self.tuning.spectral_positions, dtype)
            analysis, _, synthesis, _ = self.bound(workspace, n, x=source.offsets, y=target.offsets, bias=of_bias)
            kernels.contract(
                n, analysis, self.steps_from, synthesis, source.operands, target.operands, workspace.operands,
                matrices, bias,
            )  # fmt: skip

        self._share_positions(work, x.shape[2])
        return y

    def _transformed_adjoints(
        self, g: Rows, x: NDArray | None, filters: NDArray | None, ans: Rows | None
    ) -> tuple[NDArray | None, NDArray | None, NDArray | None]:
        dtype, positions = g.array.dtype, self.products.taps.leading
        none = np.empty((0,) * 4, dtype)
        matrices = none if filters is None else self.matrices(filters, transposed=True)
        result = None if filters is None else empty((self.x_rows, self.channels, positions), dtype)
        unused = Rows(none, 0, ((self.x_rows,), (0,)), 0)
        parts = {}

        def work(begin: int, end: int) -> None:
            n, cotangent = end - begin, g.after(begin)
            source, target = (unused if a is None else Rows.of(a, begin) for a in (x, result))
            answers = cotangent if ans is None else ans.after(begin)
            workspace = Workspace(self, n, self.tuning.spectral_positions, dtype)
            adjoint, taken = workspace.adjoint(n, filters=x is not None, bias=ans is not None), cotangent.offsets
            of_ans = None if ans is None else (answers.offsets, rows_of(adjoint.bias))
            analysis, _, _, synthesis_transpose = self.bound(workspace, n, x=source.offsets, y=taken, ans=of_ans)
            analysis_transpose = self.bound(workspace, n, x=target.offsets, y=taken)[1]
            kernels.contract_adjoints(
                n, analysis, analysis_transpose, self.steps_from, synthesis_transpose, cotangent.operands,
                answers.operands, source.operands, target.operands, workspace.operands, tuple(adjoint), matrices,
            )  # fmt: skip
            parts[begin] = adjoint.total if adjoint.total.size else adjoint.part, adjoint.bias

        self._share_positions(work, positions)
        totals, sums = zip(*(parts[begin] for begin in sorted(parts)), strict=True)
        spectrum = None if x is None else self.filters_from(added(totals)).astype(dtype, copy=False)
        return result, spectrum, None if ans is None else sum(sums)

    @functools.cached_property
    def phases(self) -> list[tuple[Integers, int]]:
        """For each polyphase component its rows of samples, and the number of steps of its analysis."""
        return [(rows, len(steps)) for rows, steps, _ in self.transform.phases]

    @property
    def steps_from(self) -> Integers:
        """Where the steps of each polyphase component begin, and the last end."""
        return np.cumsum([0, *(steps for _, steps in self.phases)])

    @property
    def group(self) -> int:
        """Channels that are analyzed at once; it divides the number of channels."""
        of_channel = self.transform.frequencies * self.transform.planes * self.tuning.spectral_positions
        most, wanted = max(1, self.tuning.spectral_elements // of_channel), self.tuning.spectral_channels
        divisors = [n for n in range(1, min(most, self.channels) + 1) if self.channels % n == 0]
        return min(divisors, key=lambda n: max(n / wanted, wanted / n))

    @property
    def work(self) -> int:
        """Work of a position, in additions."""
        d = self.transform
        terms, rows = d.aliases * d.planes * self.channels, d.planes * self.out
        return d.frequencies * (4 * (terms + rows) + terms * rows // self.tuning.macs_per_addition)

    def bound(
        self,
        workspace: Workspace,
        n: int,
        *,
        x: Integers,
        y: Integers,
        bias: Integers | None = None,
        ans: tuple[Integers, Integers] | None = None,
    ) -> tuple[tuple[NDArray, ...], ...]:
        """Analysis, its transpose, synthesis, its transpose, for rows of x and y at these offsets.

        See `Program.bound` for the ELU that synthesis takes with a bias, and its transpose with `ans`.
        """
        step = workspace.between.strides[0]
        x_spectrum = _row_offsets(workspace.x_spectrum, len(self.phases))
        y_spectrum = _row_offsets(workspace.y_spectrum, 1)
        ends = ((x, x_spectrum), (x_spectrum, x), (y_spectrum, y), (y, y_spectrum))
        on_the_way: tuple[dict[str, Any], ...] = {}, {}, {"bias": bias}, {"ans": ans}
        each = zip(workspace.programs, ends, on_the_way, strict=True)
        return tuple(p.bound(*offsets, step, n, **elu) for p, offsets, elu in each)

    def matrices(self, filters: NDArray, *, transposed: bool = False) -> NDArray:
        """Return filters (frequencies, rows, terms) -> (components * groups, frequencies, terms, rows).

        Transposed, the result is (components * groups, frequencies, rows, terms).
        """
        f, rows, _ = filters.shape
        split = filters.reshape(f, rows, len(self.phases), self.transform.planes, -1, self.group)
        ordered = split.transpose((2, 4, 0, 1, 3, 5) if transposed else (2, 4, 0, 3, 5, 1))
        shape = (rows, -1) if transposed else (-1, rows)
        return np.ascontiguousarray(ordered).reshape(math.prod(ordered.shape[:2]), f, *shape)

    def filters_from(self, totals: NDArray) -> NDArray:
        """Transpose of `matrices`, whose rows are padded: filters (frequencies, rows, terms)."""
        f, rows = totals.shape[1], self.transform.planes * self.out
        split = totals[..., :rows].reshape(len(self.phases), -1, f, self.transform.planes, self.group, rows)
        return split.transpose(2, 5, 0, 3, 1, 4).reshape(f, rows, -1)

    def _share_positions(self, work: Callable[[int, int], None], count: int) -> None:
        """Call work(begin, end) for the positions of each thread."""
        elements = count * self.work
        share(work, evenly(count, min(count, threads_for(elements)), self.tuning.spectral_positions), elements)


class Workspace:
    """A thread's memory while it multiplies the spectra of n positions, a block at a time."""

    def __init__(self, plan: SpectralPlan, n: int, block: int, dtype: Any) -> None:
        d, lanes, n = plan.transform, VECTOR_BYTES // dtype.itemsize, min(n, block)
        self.plan, self.block, self.width, self.dtype = plan, block, -(-n // lanes) * lanes, dtype
        self.programs = programs_of(d, dtype)
        self.between = empty((max(1, *(p.between for p in self.programs)), self.width), dtype)
        terms, rows = (d.planes, plan.group), (d.planes, plan.out)

        def spectrum(*shape: int) -> NDArray:
            size = math.prod(shape) * self.width
            # an odd number of cache lines, or codelets would write to a single cache set
            step = size + (lanes if size // lanes % 2 == 0 else 0)
            # vectors read beyond n: what lies there must not be slow to add, as denormal numbers are
            make = empty if self.width == n else zeros
            return make((d.frequencies, step), dtype)[:, :size].reshape(-1, *shape, self.width)

        self.x_spectrum, self.y_spectrum = spectrum(*terms), spectrum(*rows)
        self.offsets = np.arange(max(math.prod(terms), math.prod(rows))) * (self.width * dtype.itemsize)

    @property
    def operands(self) -> tuple[Any, ...]:
        """The workspace as a plain tuple, for kernels."""
        return tuple(SpectralWorkspace(self.block, self.between, self.x_spectrum, self.y_spectrum, self.offsets))

    def adjoint(self, positions: int, *, filters: bool, bias: bool) -> AdjointWorkspace:
        """Return the further memory of adjoints. `filters` and `bias` say which cotangents are wanted."""
        plan, d, lanes = self.plan, self.plan.transform, VECTOR_BYTES // self.dtype.itemsize
        columns = -(-d.planes * plan.out // lanes) * lanes
        groups = len(plan.phases) * (plan.channels // plan.group)
        total = groups, d.frequencies, d.planes * plan.group, columns
        return AdjointWorkspace(
            y_transposed=empty((d.frequencies, self.width, columns), self.dtype),
            bias=np.zeros((plan.y_rows if bias else 0, plan.out)),
            part=zeros(total if filters else (0,) * 4, self.dtype),
            total=zeros(total if filters and positions > MAX_TERMS else (0,) * 4, float),
        )


def added(parts: Sequence[NDArray]) -> NDArray:
    """Return the sum of some arrays, in float64 if there are more than two. The first may be overwritten."""
    first, *rest = parts
    if len(rest) > 1:
        return sum(rest, first.astype(float))
    return np.add(first, rest[0], out=first) if rest else first


def share(work: Callable[[int, int], None], parts: list[tuple[int, int]], elements: int) -> None:
    """Call work(begin, end) for each part, on a thread each."""

    def each(first: int, last: int) -> None:
        for part in parts[first:last]:
            work(*part)

    parallel_for(each, len(parts), elements)


def _row_offsets(spectrum: NDArray, components: int) -> Integers:
    """Bytes to the first channel of each row of a spectrum (frequencies, planes, channels, .).

    Polyphase components use the same rows, one after the other.
    """
    f, a = (np.arange(n) * step for n, step in zip(spectrum.shape[:2], spectrum.strides[:2], strict=True))
    return np.tile(f[:, None] + a, components).reshape(-1)
