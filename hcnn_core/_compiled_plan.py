"""The three maps of a plan by compiled kernels: a chunk of positions at a time, so that spectra stay in cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core import _costs
from hcnn_core import _kernels as kernels
from hcnn_core._backend import Array
from hcnn_core._compiled_taps import CompiledTaps, evenly
from hcnn_core._parallel import SERIAL, parallel_for, threads_for, worker_count
from hcnn_core._plan import Plan
from hcnn_core._programs import Program, Rows, Spectral, programs_of
from hcnn_core._real_dft import RealDFT, make_real_transform
from hcnn_core._transforms import Identity
from hcnn_core.pointwise import elu, elu_vjp

CHUNK = 1 << 20
"""Elements of a result's spectrum held at a time, unless a single line of positions has more."""


STRIP = 96
"""Positions that are contracted at a time; tiles of sums divide them without a rest."""

ROOM = 1 << 18
"""Elements of the spectrum of a group of channels there, so that it stays in cache."""


class CompiledPlan(Plan):
    """A plan for real NumPy arrays whose transform is by matrices, or none."""

    engine = CompiledTaps
    make_transform = staticmethod(make_real_transform)
    products: CompiledTaps

    def _ordered(self, direct: list[int]) -> list[int]:
        """The directly convolved axes in their order, unless vectors, which run along the last, need the longest."""
        lengths = self.geometry.out_lengths
        short = bool(direct) and lengths[direct[-1]] * self.batch < _costs.MIN_RUN
        return sorted(direct, key=lambda k: lengths[k]) if short else direct

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        per_row = None if bias is None else self.per_row(xp, bias)
        per_row = None if per_row is None else np.ascontiguousarray(per_row)
        filters = self.filters(w)
        if not isinstance(self.transform, Identity):
            y = (self._contracted if self.untapped else self._transformed)(
                self.transform, self._channelled(x), filters, per_row
            )
        else:
            y = self.products.apply(xp, self._analyze(xp, x), filters, None if per_row is None else per_row[0])
        result = self.from_plan(xp, y, self.y_order, self.geometry.y_shape)
        return result if bias is None or per_row is not None else elu(result, bias)

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is.

        With `ans`, the result of an ELU after the convolution, also that of its argument, summed over positions where
        that can be had on the way: an array that broadcasts to the result.
        """
        if isinstance(self.transform, Identity):
            g = g if ans is None else elu_vjp(g, ans)
            return (*super().adjoints(xp, g, x, w)[:2], None if ans is None else g)
        filters = None
        if w is not None:
            filters = self.filters(w)
        adjoints = self._contracted_adjoints if self.untapped else self._tapped_adjoints
        x_rows, spectrum, sums = adjoints(
            self.transform,
            self.cotangent_rows(g),
            None if x is None else self._channelled(x),
            filters,
            None if ans is None else self.answers(ans),
        )
        return (
            None if w is None else self.from_plan(xp, x_rows, self.x_order, self.geometry.x_shape),
            None if x is None else self.filters_of(xp, spectrum),
            None if ans is None else self.like_result(xp, sums),
        )

    def _transformed(self, transform: Spectral, x: Array, filters: Array, bias: Array | None) -> Array:
        """Results (rows, out, positions)."""
        synthesis = programs_of(transform, x.dtype)[2]
        t, matrices, (count, rows, _) = self.products.taps, self.products.pack(filters), filters.shape
        y = np.empty((self.y_rows, self.out, t.leading * t.positions), x.dtype)
        spectrum = self._spectrum(x)

        def work(chunks: list[tuple[int, int]], room: Callable[..., Array]) -> None:
            for begin, end in chunks:
                n, first = (end - begin) * t.positions, begin * t.positions
                block = room(0, count, rows, n)
                self.products.apply_chunk(block, 0, spectrum, matrices, begin, end)
                synthesis(Rows.of(block.reshape(-1, self.out, n)), Rows.of(y, first), self.out, n, bias=bias)

        self._share(work, x.dtype, (count, rows))
        return y

    def _tapped_adjoints(
        self, transform: Spectral, g: Rows, x: Array | None, filters: Array | None, ans: Array | None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x (rows, channels, positions) and of filter spectra, and sums of g (rows, out)."""
        back = programs_of(transform, g.array.dtype)[3]
        t, count, rows = self.products.taps, transform.frequencies, transform.planes * self.out
        cotangent = np.empty((count, rows, t.leading * t.positions), g.array.dtype)
        parts: dict[tuple[int, int], Any] = {}

        def work(chunks: list[tuple[int, int]], room: Callable[..., Array]) -> None:
            sums = None if ans is None else np.zeros((self.y_rows, self.out))
            for begin, end in chunks:
                n, first = (end - begin) * t.positions, begin * t.positions
                target = Rows.of(cotangent.reshape(-1, self.out, cotangent.shape[2]), first)
                back(g.after(first), target, self.out, n, ans=None if ans is None else Rows.of(ans, first), sums=sums)
            parts[chunks[0]] = sums

        self._share(work, cotangent.dtype, (count, rows))
        cotangent = cotangent.reshape(count, rows, *t.out_lengths, t.batch)
        x_rows = spectrum = None
        if filters is not None:
            x_rows = self._samples(self.products.apply_transpose(np, cotangent, filters))
        if x is not None:
            spectrum = self.products.correlate(np, cotangent, self._spectrum(x))
        return x_rows, spectrum, None if ans is None else sum(parts[key] for key in sorted(parts))

    def _contracted(self, transform: Spectral, x: Array, filters: Array, bias: Array | None) -> Array:
        """As `_transformed` without other taps: all from x to the result, some positions at a time."""
        programs, dtype = programs_of(transform, x.dtype), x.dtype
        y = np.empty((self.y_rows, self.out, x.shape[2]), dtype)
        bias = np.empty((0, 0), dtype) if bias is None else bias
        matrices = self.grouped(filters, (2, 0, 3, 4, 1))

        def work(begin: int, end: int) -> None:
            n, source, target = end - begin, Rows.of(x, begin), Rows.of(y, begin)
            spectrum, block = self.room(transform, n, dtype)
            analysis, synthesis = (
                program.bound(*offsets, STRIP * dtype.itemsize, n)
                for program, offsets in (
                    (programs[0], (source.offsets, row_offsets(spectrum))),
                    (programs[2], (row_offsets(block), target.offsets)),
                )
            )
            kernels.contract(
                block[0, 0, 0], n, STRIP, analysis, synthesis, half_of(programs, STRIP, dtype), source.origin, source.step,
                target.origin, target.offsets, target.step, spectrum, block, matrices, bias,
            )  # fmt: skip

        self._share_positions(work, x.shape[2], matrices.size)
        return y

    def _contracted_adjoints(
        self, transform: Spectral, g: Rows, x: Array | None, filters: Array | None, ans: Array | None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """As `_tapped_adjoints`, of `_contracted`."""
        dtype, positions = g.array.dtype, self.products.taps.leading
        programs, none = programs_of(transform, dtype), np.empty((0, 0, 0, 0), dtype)
        matrices = none if filters is None else self.grouped(filters, (2, 0, 1, 3, 4))
        result = None if filters is None else np.empty((self.x_rows, self.channels, positions), dtype)
        parts = {}

        def work(begin: int, end: int) -> None:
            n, cotangent = end - begin, g.after(begin)
            spectrum, block = self.room(transform, n, dtype)
            rows = block.shape[1] * block.shape[2]
            source, target = (None if a is None else Rows.of(a, begin) for a in (x, result))
            answers = cotangent if ans is None else Rows.of(ans, begin)
            sums = np.zeros((0 if ans is None else self.y_rows, self.out))
            scaled = np.empty((sums.shape[0], STRIP), dtype)
            vector = kernels.VECTOR_BYTES // dtype.itemsize
            turned = np.zeros((block.shape[3], -(-rows // vector) * vector), dtype)
            groups, terms = self.channels // spectrum.shape[2], spectrum.shape[1] * spectrum.shape[2]
            totals = none if x is None else np.zeros((groups, len(spectrum), terms, turned.shape[1]), dtype)
            taken = cotangent.offsets if ans is None else np.arange(self.y_rows) * scaled.strides[0]
            unused = np.zeros(self.x_rows, np.int64)
            back, analysis, analysis_back = (
                program.bound(*offsets, STRIP * dtype.itemsize, n)
                for program, offsets in (
                    (programs[3], (taken, row_offsets(block))),
                    (programs[0], (source.offsets if source else unused, row_offsets(spectrum))),
                    (programs[1], (row_offsets(spectrum), target.offsets if target else unused)),
                )
            )
            kernels.contract_adjoints(
                block[0, 0, 0], n, STRIP, back, analysis, analysis_back, half_of(programs, STRIP, dtype),
                cotangent.origin, cotangent.offsets, cotangent.step, answers.origin, answers.offsets, answers.step,
                scaled, sums, *((source.origin, source.step) if source else (0, 0)),
                *((target.origin, target.step) if target else (0, 0)), spectrum, block, turned, matrices, totals,
            )  # fmt: skip
            parts[begin] = totals[..., :rows], sums

        self._share_positions(work, positions, max(transform.frequencies * transform.aliases * self.channels, 1))
        totals, sums = zip(*(parts[key] for key in sorted(parts)), strict=True)
        spectrum = None
        if x is not None:
            spectrum = self.ungrouped(sum(totals))
        return result, spectrum, None if ans is None else sum(sums)

    def room(self, transform: Spectral, n: int, dtype: Any) -> tuple[Array, Array]:
        """Spectra of a group of channels, and of the result, at some positions: (frequencies, ., ., positions)."""
        aliases, lanes = transform.aliases * transform.planes, kernels.VECTOR_BYTES // dtype.itemsize
        width = -(-min(n, STRIP) // lanes) * lanes

        def room(*shape: int) -> Array:
            size = math.prod(shape)
            step = size
            if isinstance(transform, RealDFT):  # frequencies so far apart that codelets write to all sets of a cache
                step = (size // lanes + 1 - size // lanes % 2) * lanes
            return np.zeros((transform.frequencies, step), dtype)[:, :size].reshape(-1, *shape)

        return room(aliases, self.group(transform), width), room(transform.planes, self.out, width)

    def group(self, transform: Spectral) -> int:
        """Channels analyzed at once, a divisor of all."""
        each = transform.frequencies * transform.aliases * transform.planes * STRIP
        return max(d for d in range(1, self.channels + 1) if self.channels % d == 0 and (d == 1 or d * each <= ROOM))

    def grouped(self, filters: Array, order: tuple[int, ...]) -> Array:
        """Filters (frequencies, rows, aliases * channels) by groups of channels: axes (group, f, rows, alias, c)."""
        f, rows, _ = filters.shape
        group = self.group(self.transform)
        split = filters.reshape(f, rows, -1, self.channels // group, group).transpose(0, 1, 3, 2, 4)
        # axes of split: f, rows, group, alias, c
        split = split.transpose(order)
        shape = split.shape
        if order[-1] == 1:
            return np.ascontiguousarray(split).reshape(shape[0], shape[1], -1, rows)
        return np.ascontiguousarray(split).reshape(shape[0], shape[1], rows, -1)

    def ungrouped(self, total: Array) -> Array:
        """Filters (frequencies, rows, aliases * channels) from (groups, frequencies, aliases * channels, rows)."""
        groups, f, _, rows = total.shape
        split = total.reshape(groups, f, -1, self.channels // groups, rows).transpose(1, 4, 2, 0, 3)
        return split.reshape(f, rows, -1)

    def _share_positions(self, work: Callable[[int, int], None], count: int, elements: int) -> None:
        """Call work(begin, end) for the positions of each thread."""
        parts = evenly(count, min(count, threads_for(count * elements)), STRIP)
        parallel_for(lambda i, j: [work(*part) for part in parts[i:j]], len(parts), count * elements)

    def _share(self, work: Callable[..., None], dtype: Any, shape: tuple[int, ...]) -> None:
        """Call work(chunks, room) for the parts of the leading axis that each thread takes; room lends it arrays."""
        t = self.products.taps
        per_index = math.prod(shape) * t.positions
        pieces = max(worker_count() if t.leading * per_index > SERIAL else 1, -(-t.leading * per_index // CHUNK))
        chunks = evenly(t.leading, min(t.leading, pieces))

        def each(first: int, last: int) -> None:
            lent: dict[int, Array] = {}

            def room(key: int, *shape: int) -> Array:
                size = math.prod(shape)
                if key not in lent or lent[key].size < size:
                    lent[key] = np.empty(size, dtype)
                return lent[key][:size].reshape(shape)

            work(chunks[first:last], room)

        parallel_for(each, len(chunks), t.leading * per_index)

    def _spectrum(self, x: Array) -> Array:
        """Spectrum of x (rows, channels, positions), with the directly convolved axes apart."""
        t, d = self.products.taps, self.transform
        if isinstance(d, RealDFT):
            spectrum = self._mapped(0, x.reshape(self.x_rows, 1, -1), d.frequencies * d.aliases)
        else:
            spectrum = d.analyze(np, x.reshape(self.x_rows, -1))
        return np.reshape(spectrum, (d.frequencies, -1, *t.lengths, t.batch))

    def _samples(self, spectrum: Array) -> Array:
        """The transpose of `_spectrum`."""
        d = self.transform
        if isinstance(d, RealDFT):
            return self._mapped(1, spectrum.reshape(d.frequencies * d.aliases, 1, -1), self.x_rows)
        return d.analyze_transpose(np, spectrum)

    def _mapped(self, which: int, source: Array, rows: int) -> Array:
        """One of `programs_of` the transform, of all columns of the source (rows, 1, columns), as (rows, columns)."""
        result, apply = np.empty((rows, 1, source.shape[2]), source.dtype), programs_of(self.transform, source.dtype)[which]

        def work(begin: int, end: int) -> None:
            apply(Rows.of(source, begin), Rows.of(result, begin), 1, end - begin)

        parallel_for(work, source.shape[2], result.size)
        return result[:, 0]

    def _channelled(self, x: Array) -> Array:
        """The signal as (rows, channels, positions)."""
        ordered = np.ascontiguousarray(self._to_plan(np, x, self.x_order, (self.x_rows, -1)))
        return ordered.reshape(self.x_rows, self.channels, -1)

    def cotangent_rows(self, g: Array) -> Rows:
        """A cotangent of the result as rows in memory, where it may repeat itself along transformed axes."""
        g, split = g.transpose(self.y_order), len(self.y_order) - self.within - len(self.geometry.out_shape)
        if not (_is_one_run(g, split, -self.within or None) and _is_one_run(g, len(self.y_order) - self.within)):
            g = np.ascontiguousarray(g)
        ends = (np.arange(n) * step for n, step in zip(g.shape[:split], g.strides[:split], strict=True))
        starts = np.asarray(sum(np.ix_(*ends))).reshape(-1)
        new = zip(self.geometry.out_shape, g.strides[split : len(self.y_order) - self.within], strict=True)
        step = next((step for n, step in reversed(list(new)) if n > 1), 0)
        return Rows(g, g.ctypes.data + starts, step)

    def answers(self, ans: Array) -> Array:
        """A result as (rows, out, positions)."""
        ordered = np.ascontiguousarray(self._to_plan(np, ans, self.y_order, (self.y_rows, -1)))
        return ordered.reshape(self.y_rows, self.out, -1)

    def filters(self, w: Array) -> Array:
        """Spectra of filters, (frequencies, rows, taps * columns)."""
        return self.transform.kernel(np, self._to_plan(np, w, self.w_order, self.w_matrix))


def row_offsets(spectrum: Array) -> Any:
    """Where the first channel of each row of a spectrum (frequencies, aliases or planes, channels, .) begins."""
    f, a = (np.arange(n) * step for n, step in zip(spectrum.shape[:2], spectrum.strides[:2], strict=True))
    return (f[:, None] + a).reshape(-1)


def half_of(programs: tuple[Program, ...], n: int, dtype: Any) -> Array:
    """Room for what lies between the steps of any program, on rows of n elements."""
    return np.empty((max(1, *(p.between for p in programs)), n), dtype)


def _is_one_run(array: Array, begin: int, end: int | None = None) -> bool:
    """Whether some neighbouring axes lie in memory like one; the last ones, without gaps."""
    expected = array.itemsize if end is None else None
    for n, step in reversed(list(zip(array.shape[begin:end], array.strides[begin:end], strict=True))):
        if n > 1:
            if expected is not None and step != expected:
                return False
            expected = step * n
    return True
