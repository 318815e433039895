"""The three maps of a plan by compiled kernels: a chunk of positions at a time, so that spectra stay in cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hcnn_core import _costs
from hcnn_core import _kernels as kernels
from hcnn_core._backend import Array
from hcnn_core._codelets import codelet
from hcnn_core._compiled_taps import CompiledTaps, evenly
from hcnn_core._parallel import SERIAL, parallel_for, worker_count
from hcnn_core._plan import Plan
from hcnn_core._real_dft import RealDFT, Step, make_real_transform
from hcnn_core._stages import Stage, stages_of
from hcnn_core._taps import Integers, untapped
from hcnn_core._transforms import Identity, MatrixDFT
from hcnn_core.pointwise import elu, elu_vjp

CHUNK = 1 << 20
"""Elements of a result's spectrum held at a time, unless a single line of positions has more."""


STRIP = 96
"""Positions that tiles of sums divide without a rest."""


@dataclass(frozen=True)
class Rows:
    """Rows of samples in memory: an array whose row r of channel c begins at starts[r] + c * step (bytes)."""

    array: Array
    starts: Integers
    step: int

    @classmethod
    def of(cls, array: Array, first: int = 0) -> Rows:
        """Rows of an array (rows, channels, positions), from a position on."""
        starts = array.ctypes.data + np.arange(array.shape[0]) * array.strides[0] + first * array.itemsize
        return cls(array, starts, array.strides[1])

    def after(self, positions: int) -> Rows:
        """The same rows from a later position on."""
        return Rows(self.array, self.starts + positions * self.array.itemsize, self.step)


Spectral = MatrixDFT | RealDFT


class MatrixMap:
    """Two stages, one after the other, on all columns of some rows."""

    def __init__(self, first: Stage, second: Stage, half_rows: int) -> None:
        self.half_rows = half_rows
        self.arguments = (*first.arguments(), *second.arguments())

    def __call__(
        self,
        source: Rows,
        target: Rows,
        channels: int,
        n: int,
        *,
        bias: Array | None = None,
        ans: Rows | None = None,
        sums: Array | None = None,
    ) -> None:
        """Map n positions of the source; see `_kernels.transform` for the ELU on the way."""
        like, none = np.empty(0, target.array.dtype), np.empty((0, 0))
        origin = int(source.starts[0])
        kernels.transform(
            like, channels, n, origin, source.starts - origin, source.step,
            int(target.starts[0]), target.array.strides[0], target.step,
            *self.arguments, self.half_rows,
            none.astype(like.dtype) if bias is None else bias,
            0 if ans is None else int(ans.starts[0]), 0 if ans is None else ans.array.strides[0],
            0 if ans is None else ans.step,
            none if sums is None else sums,
        )  # fmt: skip


class CodeletMap:
    """Short DFTs of some rows, one after the other."""

    def __init__(self, steps: list[Step], half_rows: int, dtype: Any, *, backward: bool) -> None:
        self.half_rows, self.dtype, self.backward = half_rows, np.dtype(dtype), backward
        self.steps = steps[::-1] if backward else steps
        sides = [[step.reads for step in self.steps], [step.writes for step in self.steps]]
        self.tables = tuple(
            table
            for side in (sides[::-1] if backward else sides)
            for table in (np.asarray([row for rows in side for row in rows]), np.cumsum([0, *map(len, side)]))
        )
        self._addresses: dict[bool, Integers] = {}

    def __call__(
        self,
        source: Rows,
        target: Rows,
        channels: int,
        n: int,
        *,
        bias: Array | None = None,
        ans: Rows | None = None,
        sums: Array | None = None,
    ) -> None:
        """Map n positions of the source; see `_kernels.run_codelets` for the ELU on the way."""
        like, none = np.empty(0, target.array.dtype), np.empty((0, 0))
        origin = int(source.starts[0])
        kernels.run_codelets(
            like, channels, n, origin, source.starts - origin, source.step,
            int(target.starts[0]), target.array.strides[0], target.step,
            self._codelets(n * like.itemsize < kernels.VECTOR_BYTES), *self.tables, self.half_rows,
            none.astype(like.dtype) if bias is None else bias,
            0 if ans is None else int(ans.starts[0]), 0 if ans is None else ans.array.strides[0],
            0 if ans is None else ans.step,
            none if sums is None else sums,
        )  # fmt: skip

    def _codelets(self, one_by_one: bool) -> Integers:
        if one_by_one not in self._addresses:
            ends = [(s.last, s.first) if self.backward else (s.first, s.last) for s in self.steps]
            addresses = [
                codelet(
                    self.dtype, s.length, s.count, is_complex=s.is_complex, tripled=s.last, backward=self.backward,
                    one_by_one=one_by_one,
                )  # fmt: skip
                for s in self.steps
            ]
            self._addresses[one_by_one] = np.asarray([(a, *e) for a, e in zip(addresses, ends, strict=True)])
        return self._addresses[one_by_one]


@lru_cache(maxsize=256)
def maps_of(transform: Spectral, dtype: Any) -> tuple[MatrixMap | CodeletMap, ...]:
    """Analysis, its transpose, synthesis, its transpose."""
    if isinstance(transform, MatrixDFT):
        return tuple(MatrixMap(*stages) for stages in stages_of(transform, dtype))
    return tuple(
        CodeletMap(*steps, dtype, backward=backward)
        for steps, backward in (
            (transform.analysis, False),
            (transform.analysis, True),
            (transform.synthesis_transpose, True),
            (transform.synthesis_transpose, False),
        )
    )


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
        per_row = None if bias is None else self._per_row(xp, bias)
        per_row = None if per_row is None else np.ascontiguousarray(per_row)
        filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
        if not isinstance(self.transform, Identity):
            y = self._transformed(self.transform, self._channelled(x), filters, per_row)
        else:
            y = self.products.apply(xp, self._analyze(xp, x), filters, None if per_row is None else per_row[0])
        result = self._from_plan(xp, y, self.y_order, self.geometry.y_shape)
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
            filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
        adjoints = self._untapped_adjoints if self.untapped else self._tapped_adjoints
        x_rows, spectrum, sums = adjoints(
            self.transform,
            self._cotangent(g),
            None if x is None else self._channelled(x),
            filters,
            None if ans is None else np.ascontiguousarray(self._to_plan(xp, ans, self.y_order, (self.y_rows, -1))),
        )
        return (
            None if w is None else self._from_plan(xp, x_rows, self.x_order, self.geometry.x_shape),
            None if x is None else self._filters_of(xp, spectrum),
            None if ans is None else self._like_result(xp, sums),
        )

    def _transformed(self, transform: Spectral, x: Array, filters: Array, bias: Array | None) -> Array:
        """Results (rows, out, positions)."""
        analysis, _, synthesis, _ = maps_of(transform, x.dtype)
        t, matrices, (count, rows, _) = self.products.taps, self.products.pack(filters), filters.shape
        y = np.empty((self.y_rows, self.out, t.leading * t.positions), x.dtype)
        spectrum = None if self.untapped else self._spectrum(x)

        def work(chunks: list[tuple[int, int]], room: Callable[..., Array]) -> None:
            for begin, end in chunks:
                n, first = (end - begin) * t.positions, begin * t.positions
                block = room(0, count, rows, n)
                if spectrum is None:
                    taken = room(1, count, filters.shape[2], n)
                    analysis(Rows.of(x, first), Rows.of(taken.reshape(-1, self.channels, n)), self.channels, n)
                    CompiledTaps(untapped(n)).apply_chunk(block, 0, taken, matrices, 0, n)
                else:
                    self.products.apply_chunk(block, 0, spectrum, matrices, begin, end)
                synthesis(Rows.of(block.reshape(-1, self.out, n)), Rows.of(y, first), self.out, n, bias=bias)

        self._share(work, x.dtype, filters.shape)
        return y

    def _tapped_adjoints(
        self, transform: Spectral, g: Rows, x: Array | None, filters: Array | None, ans: Array | None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x (rows, channels, positions) and of filter spectra, and sums of g (rows, out)."""
        back = maps_of(transform, g.array.dtype)[3]
        t, count, rows = self.products.taps, transform.frequencies, transform.planes * self.out
        cotangent = np.empty((count, rows, t.leading * t.positions), g.array.dtype)
        parts: dict[tuple[int, int], Any] = {}

        def work(chunks: list[tuple[int, int]], room: Callable[..., Array]) -> None:
            sums = None if ans is None else np.zeros((self.y_rows, self.out))
            for begin, end in chunks:
                n, first = (end - begin) * t.positions, begin * t.positions
                target = Rows.of(cotangent.reshape(-1, self.out, cotangent.shape[2]), first)
                back(g.after(first), target, self.out, n, ans=self._answers(ans, first), sums=sums)
            parts[chunks[0]] = sums

        self._share(work, cotangent.dtype, (count, rows, 0))
        cotangent = cotangent.reshape(count, rows, *t.out_lengths, t.batch)
        x_rows = spectrum = None
        if filters is not None:
            x_rows = self._samples(self.products.apply_transpose(np, cotangent, filters))
        if x is not None:
            spectrum = self.products.correlate(np, cotangent, self._spectrum(x))
        return x_rows, spectrum, None if ans is None else sum(parts[key] for key in sorted(parts))

    def _untapped_adjoints(
        self, transform: Spectral, g: Rows, x: Array | None, filters: Array | None, ans: Array | None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """As `_tapped_adjoints`, spectra and their cotangents a chunk at a time."""
        analysis, analysis_back, _, back = maps_of(transform, g.array.dtype)
        t, dtype = self.products.taps, g.array.dtype
        count, rows = transform.frequencies, transform.planes * self.out
        columns = transform.aliases * transform.planes * self.channels
        matrices = None if filters is None else np.ascontiguousarray(filters)
        result = None if filters is None else np.empty((self.x_rows, self.channels, t.leading), dtype)
        parts = {}

        def work(chunks: list[tuple[int, int]], room: Callable[..., Array]) -> None:
            sums = None if ans is None else np.zeros((self.y_rows, self.out))
            total = np.zeros(self.products.total_shape(count, columns, rows), dtype)
            for begin, end in chunks:
                n = end - begin
                products = CompiledTaps(untapped(n))
                block, other = room(0, count, rows, n), room(1, count, columns, n)
                spread = Rows.of(other.reshape(-1, self.channels, n))
                target = Rows.of(block.reshape(-1, self.out, n))
                back(g.after(begin), target, self.out, n, ans=self._answers(ans, begin), sums=sums)
                if x is not None:
                    analysis(Rows.of(x, begin), spread, self.channels, n)
                    products.correlate_chunk(total, block, 0, other, 0, n)
                if matrices is not None:
                    products.apply_chunk(other, 0, block, matrices, 0, n)
                    analysis_back(spread, Rows.of(result, begin), self.channels, n)
            parts[chunks[0]] = total, sums

        self._share(work, dtype, (count, rows, columns))
        totals, sums = zip(*(parts[key] for key in sorted(parts)), strict=True)
        spectrum = None if x is None else self.products.unpack(sum(totals))
        return result, spectrum, None if ans is None else sum(sums)

    def _share(self, work: Callable[..., None], dtype: Any, shape: tuple[int, ...]) -> None:
        """Call work(chunks, room) for the parts of the leading axis that each thread takes; room lends it arrays."""
        t = self.products.taps
        per_index = shape[0] * max(shape[1], shape[2] if self.untapped else 0) * t.positions
        pieces = max(worker_count() if t.leading * per_index > SERIAL else 1, -(-t.leading * per_index // CHUNK))
        chunks = evenly(t.leading, min(t.leading, pieces), STRIP if self.untapped else 1)

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
        """One of `maps_of` the transform, of all columns of the source (rows, 1, columns), as (rows, columns)."""
        result, apply = np.empty((rows, 1, source.shape[2]), source.dtype), maps_of(self.transform, source.dtype)[which]

        def work(begin: int, end: int) -> None:
            apply(Rows.of(source, begin), Rows.of(result, begin), 1, end - begin)

        parallel_for(work, source.shape[2], result.size)
        return result[:, 0]

    def _channelled(self, x: Array) -> Array:
        """The signal as (rows, channels, positions)."""
        ordered = np.ascontiguousarray(self._to_plan(np, x, self.x_order, (self.x_rows, -1)))
        return ordered.reshape(self.x_rows, self.channels, -1)

    def _cotangent(self, g: Array) -> Rows:
        """A cotangent of the result as rows in memory, where it may repeat itself along transformed axes."""
        g, split = g.transpose(self.y_order), len(self.y_order) - self.within - len(self.geometry.out_shape)
        if not (_is_one_run(g, split, -self.within or None) and _is_one_run(g, len(self.y_order) - self.within)):
            g = np.ascontiguousarray(g)
        ends = (np.arange(n) * step for n, step in zip(g.shape[:split], g.strides[:split], strict=True))
        starts = np.asarray(sum(np.ix_(*ends))).reshape(-1)
        new = zip(self.geometry.out_shape, g.strides[split : len(self.y_order) - self.within], strict=True)
        step = next((step for n, step in reversed(list(new)) if n > 1), 0)
        return Rows(g, g.ctypes.data + starts, step)

    def _answers(self, ans: Array | None, first: int) -> Rows | None:
        return None if ans is None else Rows.of(ans.reshape(self.y_rows, self.out, -1), first)


def _is_one_run(array: Array, begin: int, end: int | None = None) -> bool:
    """Whether some neighbouring axes lie in memory like one; the last ones, without gaps."""
    expected = array.itemsize if end is None else None
    for n, step in reversed(list(zip(array.shape[begin:end], array.strides[begin:end], strict=True))):
        if n > 1:
            if expected is not None and step != expected:
                return False
            expected = step * n
    return True
