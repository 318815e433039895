"""The three maps of a plan by compiled kernels. The spectrum of the result is made a block at a time."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from hcnn_core._engines.cpu import elementwise
from hcnn_core._engines.cpu.allocator import empty, is_contiguous
from hcnn_core._engines.cpu.dft_program import Rows, programs_of
from hcnn_core._engines.cpu.direct import DirectProducts, segments
from hcnn_core._engines.cpu.kernels.operands import NDArray
from hcnn_core._engines.cpu.real_dft import RealDFT
from hcnn_core._engines.cpu.transpose import contiguous
from hcnn_core._engines.cpu.winograd import LeadingBlock, leading_blocks
from hcnn_core._engines.generic.plan import Plan
from hcnn_core._engines.taps import Integers
from hcnn_core._engines.transform import Identity
from hcnn_core._threads import parallel_for, threads_for


class CpuPlan(Plan[NDArray]):
    """A plan for real NumPy arrays whose transform is a `RealDFT`, or none."""

    transform: Identity | RealDFT
    products: DirectProducts
    pointwise = elementwise

    @cached_property
    def _way_back(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of the result in the plan's order, and the order of axes that takes it to the caller's."""
        order = self.y_order
        return tuple(self.problem.y_shape[a] for a in order), tuple(sorted(range(len(order)), key=order.__getitem__))

    def forward(self, xp: Any, x: NDArray, w: NDArray, bias: NDArray | None = None) -> NDArray:
        """Convolve x with w; with a bias, the ELU of the sum."""
        per_row = None if bias is None else self.per_row(xp, bias)
        per_row = None if per_row is None else np.ascontiguousarray(per_row)
        filters = self.filters(w)
        if not isinstance(self.transform, Identity):
            y = self._transformed(self._channelled(x), filters, per_row)
        else:
            y = self.products.apply(xp, self._analyze(xp, x), filters, None if per_row is None else per_row[0])
        shape, back = self._way_back
        result = y.reshape(shape).transpose(back)
        return result if bias is None or per_row is not None else elementwise.elu(xp, result, bias)

    def adjoints(
        self, xp: Any, g: NDArray, x: NDArray | None, w: NDArray | None, ans: NDArray | None = None
    ) -> tuple[NDArray | None, NDArray | None, NDArray | None]:
        """As `Plan.adjoints`. With transformed axes, the third cotangent is summed over positions on the way."""
        if isinstance(self.transform, Identity):
            return super().adjoints(xp, g, x, w, ans)
        x_rows, spectrum, sums = self._transformed_adjoints(
            self.cotangent_rows(g),
            None if x is None else self._channelled(x),
            None if w is None else self.filters(w),
            None if ans is None else self.answers(ans),
        )
        return (
            None if x_rows is None else self.from_plan(xp, x_rows, self.x_order, self.problem.x_shape),
            None if spectrum is None else self.filters_of(xp, spectrum),
            None if sums is None else self.like_result(xp, sums),
        )

    def _transformed(self, x: NDArray, filters: NDArray, bias: NDArray | None) -> NDArray:
        """Products with filters and their synthesis, (rows, channels, positions) -> (rows, out, positions)."""
        synthesis = programs_of(self.transform, x.dtype)[2]
        t, matrices, (count, rows, _) = self.products.taps, self.products.pack(filters), filters.shape
        y = empty((self.y_rows, self.out, t.leading * t.positions), x.dtype)
        spectrum, per_index = self._spectrum(x), count * rows * t.positions
        elements = t.leading * per_index * (t.count + 4)  # products and synthesis
        most = self.tuning.spectrum_elements
        blocks = self.products.blocks(max(threads_for(elements), -(-t.leading * per_index // most)))

        def work(first: int, last: int) -> None:
            workspace = empty((max(b.n * b.lines for b in blocks[first:last]) * count * rows,), x.dtype)
            for b in blocks[first:last]:
                # (frequencies, rows, terms) @ (frequencies, terms, positions) -> (frequencies, rows, lines, positions)
                products = workspace[: b.n * b.lines * count * rows].reshape(count, rows, b.lines, b.n)
                self.products.apply_block(products, spectrum, matrices, b)
                spectra = products.reshape(-1, self.out, b.lines * b.n)
                synthesis.apply(spectra, 0, y, b.first, b.n, lines=(b.lines, b.n, b.step), bias=bias)

        parallel_for(work, len(blocks), elements)
        return y

    def _transformed_adjoints(
        self, g: Rows, x: NDArray | None, filters: NDArray | None, ans: Rows | None
    ) -> tuple[NDArray | None, NDArray | None, NDArray | None]:
        """Cotangents of x (rows, channels, positions) and of filter spectra, and sums of g (rows, out)."""
        d, t, dtype = self.transform, self.products.taps, g.array.dtype
        shape = d.frequencies, d.planes * self.out
        sums = np.zeros((0 if ans is None else self.y_rows, self.out))
        rows, columns = math.prod(shape), d.aliases * d.planes * self.channels
        held = self.tuning.cotangent_elements // rows if rows > self.y_rows * self.out else t.leading * t.positions
        blocks = list(leading_blocks(self.products, held))
        # what stays is allocated first: blocks allocate and free, which would fragment memory
        packed = None if filters is None else self.products.pack_back(filters)
        of_filters = None if x is None else self.products.blank(d.frequencies, columns, d.planes * self.out, dtype)
        result, written = None, np.zeros(t.lengths[0], bool)
        if filters is not None and blocks[0].lines is not None:
            result = empty((self.x_rows, self.channels, len(written) * self._line), dtype)
        for block in blocks:
            # (frequencies, planes * out, leading indices of the block, *other direct results, batch)
            cotangent = self._cotangent(g, ans, block, sums).reshape(*shape, -1, *t.out_lengths[1:], t.batch)
            signal = None if x is None else self._spectrum(x, block.lines)
            of_x, of_filters = block.products.adjoints(cotangent, signal, packed, of_filters)
            del cotangent, signal  # so that the samples can use their memory
            if result is not None and of_x is not None and block.lines is not None:
                self._add_samples(result, of_x, block.lines, written)
            elif of_x is not None:
                result = self._samples(of_x)
            del of_x  # so that the next block can use its memory
        spectra = None if of_filters is None else self.products.unpack(of_filters)
        return result, spectra, None if ans is None else sums

    def _cotangent(self, g: Rows, ans: Rows | None, block: LeadingBlock, sums: NDArray) -> NDArray:
        """Spectra of a block of g, (rows, out, positions) -> (frequencies * planes, out, positions of the block).

        With `ans`, the cotangents of the bias are added to sums (rows, out).
        """
        d, t, back = self.transform, self.products.taps, programs_of(self.transform, g.array.dtype)[3]
        first, n = block.begin * t.positions, (block.end - block.begin) * t.positions
        spectra = empty((d.frequencies * d.planes, self.out, n), g.array.dtype)
        parts = {}

        def work(begin: int, end: int) -> None:
            of_part = parts[begin] = np.zeros_like(sums)
            scaling: dict[str, Any] = {} if ans is None else {"ans": ans.after(first + begin), "sums": of_part}
            back(g.after(first + begin), Rows.of(spectra, begin), self.out, end - begin, **scaling)

        parallel_for(work, n, 4 * spectra.size)
        for begin in sorted(parts):
            sums += parts[begin]
        return spectra

    def _spectrum(self, x: NDArray, lines: Integers | None = None) -> NDArray:
        """Spectrum of x, or of some lines of it, with the directly convolved axes apart.

        (rows, channels, positions) -> (frequencies, aliases * planes * channels, *lengths, batch)
        """
        t, d = self.products.taps, self.transform
        rows, lengths = d.frequencies * d.aliases * d.planes, t.lengths
        if lines is not None:
            lengths = len(lines), *lengths[1:]
            spectrum = empty((rows, self.channels, len(lines) * self._line), x.dtype)
            self._map(0, x, spectrum, self._columns(lines))
        else:
            spectrum = self._mapped(0, x.reshape(self.x_rows, 1, -1), rows)
        return np.reshape(spectrum, (d.frequencies, -1, *lengths, t.batch))

    def _samples(self, spectrum: NDArray) -> NDArray:
        """Return the transpose of `_spectrum`: (frequencies, ..) -> (rows, channels * positions)."""
        d = self.transform
        return self._mapped(1, spectrum.reshape(d.frequencies * d.aliases * d.planes, 1, -1), self.x_rows)[:, 0]

    def _add_samples(self, x: NDArray, spectrum: NDArray, lines: Integers, written: NDArray) -> None:
        """Add the transpose of `_spectrum` of some lines to x (rows, channels, positions), or write new lines."""
        spectrum, again = spectrum.reshape(-1, self.channels, len(lines) * self._line), written[lines]
        for targets, added in ((np.where(again, -1, lines), False), (np.where(again, lines, -1), True)):
            columns = [(there, here, count) for here, there, count in self._columns(targets)]
            self._map(1, spectrum, x, columns, added=added)
        written[lines] = True

    def _columns(self, lines: Integers) -> list[tuple[int, int, int]]:
        """Segments of columns of these lines, without lines -1: first among these, first among all, number."""
        line = self._line
        return [(here * line, there * line, n * line) for here, there, n in segments(lines) if there >= 0]

    def _mapped(self, which: int, source: NDArray, rows: int) -> NDArray:
        """Apply one of the transform's programs to all columns of the source (rows, 1, columns)."""
        result = empty((rows, 1, source.shape[2]), source.dtype)
        self._map(which, source, result, [(0, 0, source.shape[2])])
        return result

    def _map(
        self, which: int, source: NDArray, target: NDArray, segments: list[tuple[int, int, int]], *, added: bool = False
    ) -> None:
        """Apply one of the transform's programs to a source (rows, channels, columns); write or add to the target.

        Segments of columns are (first in the target, first in the source, number).
        """
        program, channels = programs_of(self.transform, source.dtype)[which], source.shape[1]

        def work(begin: int, end: int) -> None:
            for to, first, count in segments:
                at, n = max(begin, 0), min(end, count)  # begin and end count from the start of this segment
                if at < n and added:
                    more = empty((target.shape[0], channels, n - at), target.dtype)
                    program.apply(source, first + at, more, 0, n - at)
                    target[:, :, to + at : to + n] += more
                elif at < n:
                    program.apply(source, first + at, target, to + at, n - at)
                begin, end = begin - count, end - count

        columns = sum(count for _, _, count in segments)
        parallel_for(work, columns, 4 * columns * channels * target.shape[0])

    @property
    def _line(self) -> int:
        """Positions of the signal per index of its first directly convolved axis."""
        return math.prod(self.products.taps.lengths[1:]) * self.products.taps.batch

    def _channelled(self, x: NDArray) -> NDArray:
        """Return the signal as (rows, channels, positions)."""
        return self._to_plan(np, x, self.x_order, (self.x_rows, self.channels, -1))

    def cotangent_rows(self, g: NDArray) -> Rows:
        """Return a cotangent of the result as rows in memory. Transformed axes may be broadcast (stride 0)."""
        g, split = g.transpose(self.y_order), len(self.y_order) - self.within - len(self.problem.out_shape)
        if not (is_contiguous(g, split, -self.within or None) and is_contiguous(g, len(self.y_order) - self.within)):
            g = contiguous(g)
        new = zip(self.problem.out_shape, g.strides[split : len(self.y_order) - self.within], strict=True)
        step = next((step for n, step in reversed(list(new)) if n > 1), 0)
        return Rows(g, g.ctypes.data, (g.shape[:split], g.strides[:split]), step)

    def answers(self, ans: NDArray) -> Rows:
        """Return a result as rows (rows, out, positions) in memory."""
        return Rows.of(self._to_plan(np, ans, self.y_order, (self.y_rows, self.out, -1)))

    def _analyze(self, xp: Any, x: NDArray) -> NDArray:
        """Return samples with the directly convolved axes apart, for plans without transformed axes."""
        t = self.products.taps
        return self._to_plan(xp, x, self.x_order, (self.outer, self.channels, *t.lengths, t.batch))

    @staticmethod
    def _to_plan(xp: Any, array: NDArray, order: tuple[int, ...], shape: tuple[int, ...]) -> NDArray:
        array = array.transpose(order)
        return (array if array.flags.c_contiguous else contiguous(array)).reshape(shape)

    @cached_property
    def _rows_first(self) -> tuple[int, ...]:
        """The order of a filter's axes with the new attributes before taps and channels."""
        new = len(self.problem.out_shape)
        return (*self.w_order[len(self.w_order) - new :], *self.w_order[: len(self.w_order) - new])

    def filters(self, w: NDArray) -> NDArray:
        """Spectra of filters, (frequencies, rows, taps * columns); without transformed axes the filters themselves."""
        if isinstance(self.transform, Identity):
            return w.transpose(self._rows_first).reshape(1, self.out, -1)
        return self.transform.kernel(np, self._to_plan(np, w, self.w_order, self.w_matrix))
