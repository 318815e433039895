"""A convolution whose axes are all transformed, by one kernel: spectra of some positions at a time stay in cache.

What a phase of a group of channels adds to the result's spectrum is a matrix product for each frequency; so little of
the spectrum of x is held at once that it stays in the second cache.
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
from hcnn_core._engines.cpu.kernels.gemm import RUN
from hcnn_core._engines.cpu.kernels.vectors import VECTOR_BYTES
from hcnn_core._engines.cpu.plan import CpuPlan
from hcnn_core._engines.cpu.real_dft import RealDFT
from hcnn_core._engines.taps import Integers
from hcnn_core._threads import PRODUCTS, parallel_for, threads_for
from hcnn_core.backend import Array


class SpectralPlan(CpuPlan):
    """A plan without directly convolved axes."""

    def _transformed(self, x: Array, filters: Array, bias: Array | None) -> Array:
        dtype, y = x.dtype, empty((self.y_rows, self.out, x.shape[2]), x.dtype)
        matrices = self.matrices(filters)
        of_bias = None if bias is None else rows_of(bias)
        bias = np.empty((0, 0), dtype) if bias is None else bias

        chunk = self.tuning.spectral_positions

        def work(begin: int, end: int) -> None:
            n, source, target = end - begin, Rows.of(x, begin), Rows.of(y, begin)
            room = Room(self, min(n, chunk), dtype)
            analysis, _, synthesis, _ = self.bound(room, n, x=source.offsets, y=target.offsets, bias=of_bias)
            kernels.contract(
                room.like, n, chunk, analysis, self.steps_from, synthesis, room.half, source.origin, source.step,
                target.origin, target.offsets, target.step, room.spectrum, room.block, room.offsets, matrices, bias,
            )  # fmt: skip

        self._share_positions(work, x.shape[2])
        return y

    def _transformed_adjoints(
        self, g: Rows, x: Array | None, filters: Array | None, ans: Rows | None
    ) -> tuple[Array | None, Array | None, Array | None]:
        dtype, positions = g.array.dtype, self.products.taps.leading
        none, no_totals = (np.empty((0,) * 4, kind) for kind in (dtype, float))
        matrices = none if filters is None else self.matrices(filters, transposed=True)
        result = None if filters is None else empty((self.x_rows, self.channels, positions), dtype)
        unused = Rows(none, 0, ((self.x_rows,), (0,)), 0)
        parts = {}

        chunk = self.tuning.spectral_positions

        def work(begin: int, end: int) -> None:
            n, cotangent = end - begin, g.after(begin)
            source, target = (unused if a is None else Rows.of(a, begin) for a in (x, result))
            answers = cotangent if ans is None else ans.after(begin)
            room = Room(self, min(n, chunk), dtype)
            sums = np.zeros((0 if ans is None else self.y_rows, self.out))
            taken, scaled = room.taken(cotangent, None if ans is None else len(sums))
            of_ans = None if ans is None else (answers.offsets, rows_of(sums))
            analysis, _, _, back = self.bound(room, n, x=source.offsets, y=taken, ans=of_ans)
            analysis_back = self.bound(room, n, x=target.offsets, y=taken)[1]
            part, totals = (none, no_totals) if x is None else room.totals(n)
            kernels.contract_adjoints(
                room.like, n, chunk, back, analysis, analysis_back, self.steps_from, room.half,
                cotangent.origin, cotangent.offsets, cotangent.step, answers.origin, answers.offsets, answers.step,
                scaled, sums, source.origin, source.step, target.origin, target.step,
                room.spectrum, room.block, room.offsets, room.turned, matrices, part, totals,
            )  # fmt: skip
            parts[begin] = totals if totals.size else part, sums

        self._share_positions(work, positions)
        totals, sums = zip(*(parts[begin] for begin in sorted(parts)), strict=True)
        spectrum = None if x is None else self.filters_from(added(totals)).astype(dtype, copy=False)
        return result, spectrum, None if ans is None else sum(sums)

    @functools.cached_property
    def phases(self) -> list[tuple[Integers, int]]:
        """Of each phase its rows of samples and how many steps of the analysis take them; matrices know no phases."""
        d = self.transform
        if isinstance(d, RealDFT):
            return [(rows, len(steps)) for rows, steps, _ in d.phases]
        return [(np.arange(self.x_rows), len(programs_of(d, np.float32)[0].ends))]

    @property
    def steps_from(self) -> Integers:
        """Where the steps of each phase begin."""
        return np.cumsum([0, *(steps for _, steps in self.phases)])

    @property
    def entries(self) -> int:
        """Rows of the spectrum of a phase, for each frequency."""
        return self.transform.aliases * self.transform.planes // len(self.phases)

    @property
    def group(self) -> int:
        """Channels analyzed at once, a divisor of all."""
        most = max(
            1,
            self.tuning.spectral_elements
            // (self.transform.frequencies * self.entries * self.tuning.spectral_positions),
        )
        wanted = self.tuning.spectral_channels
        divisors = [n for n in range(1, min(most, self.channels) + 1) if self.channels % n == 0]
        return min(divisors, key=lambda n: max(n / wanted, wanted / n))

    @property
    def work(self) -> int:
        """What a position takes, in elements that are added up."""
        d = self.transform
        terms, rows = d.aliases * d.planes * self.channels, d.planes * self.out
        return d.frequencies * (4 * (terms + rows) + terms * rows // PRODUCTS)

    def bound(
        self,
        room: Room,
        n: int,
        *,
        x: Integers,
        y: Integers,
        bias: Integers | None = None,
        ans: tuple[Integers, Integers] | None = None,
    ) -> tuple[tuple[Array, ...], ...]:
        """Analysis, its transpose, synthesis, its transpose: from rows of x at these offsets to those of y.

        See `Program.bound` for the ELU that synthesis takes with a bias, and its transpose with `ans`.
        """
        step = room.half.strides[0]
        spectrum, block = (_row_offsets(a, n) for a, n in ((room.spectrum, len(self.phases)), (room.block, 1)))
        ends = ((x, spectrum), (spectrum, x), (block, y), (y, block))
        on_the_way: tuple[dict[str, Any], ...] = {}, {}, {"bias": bias}, {"ans": ans}
        each = zip(room.programs, ends, on_the_way, strict=True)
        return tuple(p.bound(*offsets, step, n, **elu) for p, offsets, elu in each)

    def matrices(self, filters: Array, *, transposed: bool = False) -> Array:
        """Filters (frequencies, rows, terms) as (phases * groups, frequencies, terms, rows), or these exchanged."""
        f, rows, _ = filters.shape
        split = filters.reshape(f, rows, len(self.phases), self.entries, -1, self.group)
        ordered = split.transpose((2, 4, 0, 1, 3, 5) if transposed else (2, 4, 0, 3, 5, 1))
        shape = (rows, -1) if transposed else (-1, rows)
        return np.ascontiguousarray(ordered).reshape(math.prod(ordered.shape[:2]), f, *shape)

    def filters_from(self, totals: Array) -> Array:
        """Filters (frequencies, rows, terms) from (phases * groups, frequencies, terms, rows and some)."""
        f, rows = totals.shape[1], self.transform.planes * self.out
        split = totals[..., :rows].reshape(len(self.phases), -1, f, self.entries, self.group, rows)
        return split.transpose(2, 5, 0, 3, 1, 4).reshape(f, rows, -1)

    def _share_positions(self, work: Callable[[int, int], None], count: int) -> None:
        """Call work(begin, end) for the positions of each thread."""
        elements = count * self.work
        share(work, evenly(count, min(count, threads_for(elements)), self.tuning.spectral_positions), elements)


class Room:
    """What a thread holds while it contracts: spectra, and sums for their filters."""

    def __init__(self, plan: SpectralPlan, n: int, dtype: Any) -> None:
        d, lanes = plan.transform, VECTOR_BYTES // dtype.itemsize
        self.width = -(-n // lanes) * lanes
        self.like = np.empty(0, dtype)
        self.programs = programs_of(d, dtype)
        self.half = empty((max(1, *(p.between for p in self.programs)), self.width), dtype)
        terms, rows = (plan.entries, plan.group), (d.planes, plan.out)

        def spectrum(*shape: int) -> Array:
            size = math.prod(shape) * self.width
            step = size
            if isinstance(d, RealDFT):  # an odd number of lines of the cache, lest codelets write to one set of it
                step += lanes if size // lanes % 2 == 0 else 0
            make = empty if self.width == n else zeros  # what vectors read beyond n, lest it be slow to add
            return make((d.frequencies, step), dtype)[:, :size].reshape(-1, *shape, self.width)

        self.spectrum, self.block = spectrum(*terms), spectrum(*rows)
        self.offsets = np.arange(max(math.prod(terms), math.prod(rows))) * (self.width * dtype.itemsize)
        parts, columns = len(plan.phases) * (plan.channels // plan.group), -(-math.prod(rows) // lanes) * lanes
        self._turned = d.frequencies, self.width, columns
        self._totals = parts, d.frequencies, math.prod(terms), columns

    @functools.cached_property
    def turned(self) -> Array:
        """Where what spectra are multiplied by for the cotangents of filters lies transposed."""
        return empty(self._turned, self.like.dtype)

    def taken(self, cotangent: Rows, rows: int | None) -> tuple[Integers, Array]:
        """Where the transpose of synthesis reads rows of a cotangent, and room for these times an ELU's derivative."""
        separate = rows is not None and not self.programs[3].fuses
        scaled = empty((rows or 0 if separate else 0, self.width), self.like.dtype)
        return rows_of(scaled) if separate else cotangent.offsets, scaled

    def totals(self, positions: int) -> tuple[Array, Array]:
        """Zeros for the cotangents of filters: a part in the dtype of all, and, for many, the total in doubles."""
        many = positions > RUN
        return zeros(self._totals, self.like.dtype), zeros(self._totals if many else (0,) * 4, float)


def added(parts: Sequence[Array]) -> Array:
    """The sum of some arrays, which may be written to; of more than two in double precision."""
    first, *rest = parts
    if len(rest) > 1:
        return sum(rest, first.astype(float))
    return np.add(first, rest[0], out=first) if rest else first


def share(work: Callable[[int, int], None], parts: list[tuple[int, int]], elements: int) -> None:
    """Call work(begin, end) for parts, on a thread each."""

    def each(first: int, last: int) -> None:
        for part in parts[first:last]:
            work(*part)

    parallel_for(each, len(parts), elements)


def _row_offsets(spectrum: Array, phases: int) -> Integers:
    """Where the first channel of each row of a spectrum (frequencies, entries, channels, .) begins, for any phase."""
    f, a = (np.arange(n) * step for n, step in zip(spectrum.shape[:2], spectrum.strides[:2], strict=True))
    return np.tile(f[:, None] + a, phases).reshape(-1)
