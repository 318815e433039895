"""The three maps of a plan by CUDA kernels, on arrays whose rows are extended by their boundary once."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.dft_stages import Stage, stages_of
from hcnn_core._engines.cuda.matmul import MOST_BLOCKS, SIDE, multiply_into
from hcnn_core._engines.cuda.rows import RowsPlan, owned
from hcnn_core._engines.cuda.sums import summed as sum_over
from hcnn_core._engines.cuda.tables import Reading, extended_positions
from hcnn_core._engines.generic import elementwise
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.generic.im2col import Im2col
from hcnn_core._engines.generic.plan import Plan
from hcnn_core._engines.taps import Integers, TapProducts, untapped
from hcnn_core._engines.transform import Identity, Transform
from hcnn_core._tuning import DEFAULT, Tuning
from hcnn_core.backend import Array, DeviceLimits, dtype_name, empty, placement

LARGEST = DeviceLimits(227 << 10, 113 << 10, (9, 0))
"""The limits of the device with the most shared memory per block."""

MAPS = ("analysis", "analysis back", "synthesis", "back")
"""Names of a transform's maps: analysis, its transpose, synthesis, its transpose."""


@dataclass(frozen=True)
class Map:
    """Two stages, as operands of `map_rows`."""

    factors: tuple[Array, Array]
    rows: Integers
    sizes: tuple[tuple[str, int], ...]
    shared: int


@lru_cache(maxsize=256)
def maps_of(transform: MatrixDFT, dtype: str, tuning: Tuning, limits: DeviceLimits) -> tuple[Map, ...]:
    """Analysis, its transpose, synthesis, its transpose; even the narrowest tiles may need too much memory."""
    pairs = zip(MAPS, stages_of(transform, np.dtype(dtype)), strict=True)
    return tuple(_map(dtype, *stages, tuning, limits, summed=name == "back") for name, stages in pairs)


def needed_by(transform: MatrixDFT, dtype: str, tuning: Tuning, limits: DeviceLimits) -> int:
    """Bytes of shared memory of a block that a transform's maps need."""
    return max(m.shared for m in maps_of(transform, dtype, tuning, limits))


def _map(
    dtype: str, first: Stage, second: Stage, half_rows: int, tuning: Tuning, limits: DeviceLimits, *, summed: bool
) -> Map:
    """Make a map of two stages. With `summed`, the memory between them has room for a copy of the rows read."""
    rows = first.reads.size * first.matrix.shape[1]
    column = (rows + (max(rows, half_rows) if summed else half_rows)) * np.dtype(dtype).itemsize
    *wider, narrowest = cuda.MAP_TILES[dtype]
    width = next((width for width in wider if width * column <= limits.shared), narrowest)
    shared = width * column
    threads = tuning.device_map_threads * (1 if shared <= limits.paired else 2)
    sizes = {"MAP_TILE": width, "MAP_THREADS": threads, "MAP_TALL": cuda.MAP_TALL, "IN_ROWS": rows}
    for name, stage in (("FIRST", first), ("SECOND", second)):
        sizes |= {
            f"{name}_GROUPS": stage.reads.size,
            f"{name}_ROWS": stage.matrix.shape[0],
            f"{name}_DEPTH": stage.matrix.shape[1],
            f"{name}_READ_STEP": stage.read_step,
            f"{name}_WRITE_STEP": stage.write_step,
        }
    tables = np.concatenate([first.reads, first.writes, second.reads, second.writes])
    return Map((_padded(first.matrix), _padded(second.matrix)), tables, tuple(sizes.items()), shared)


def _cuts(run: int, rows: int, elements: int) -> int:
    """In how many equal segments lines of `run` positions are cut; one of all rows has at most `elements`."""
    return next((n for n in range(1, run + 1) if run % n == 0 and run // n * rows <= elements), run)


def _padded(matrix: Array) -> Array:
    """Factors (K, rows), with zeros for the rows that a last tile lacks."""
    more = -matrix.shape[0] % cuda.MAP_TALL
    return np.ascontiguousarray(np.pad(matrix, ((0, more), (0, 0))).T)


class CudaPlan(RowsPlan):
    """A plan for real arrays on a GPU whose transform is by matrices, or none."""

    def __init__(
        self, arrangement: Arrangement, transform: Transform[Array], products: TapProducts[Array], tuning: Tuning
    ) -> None:
        super().__init__(arrangement, transform, products, tuning)
        self.maps = self.transform if isinstance(self.transform, MatrixDFT) else None

    @classmethod
    def supports(cls, arrangement: Arrangement, transform: Transform[Array]) -> bool:
        """Whether the kernels can carry out a plan, on a device with enough shared memory."""
        t = arrangement.taps
        if t.uneven or not isinstance(transform, MatrixDFT | Identity):
            return False
        if isinstance(transform, MatrixDFT) and needed_by(transform, "float32", DEFAULT, LARGEST) > LARGEST.shared:
            return False
        of_x, of_g = extended_positions(t if t.sizes else untapped(t.batch))
        entry = max(transform.aliases * arrangement.channels * of_x, arrangement.out * of_g)
        blocks = max(transform.frequencies, 1) * arrangement.outer_size * max(arrangement.channels, arrangement.out)
        columns = t.count * arrangement.channels * arrangement.out
        spectra = transform.planes**2 * transform.frequencies * transform.aliases * columns
        fits = columns <= SIDE * MOST_BLOCKS and blocks <= MOST_BLOCKS  # along a grid's second axis
        return fits and max(spectra, transform.planes * entry) < 1 << 31  # offsets

    def _fits(self, like: Array) -> bool:
        """Whether a block of the device has the shared memory that arrays like this one need; if not, say so."""
        if self.maps is None:
            return True
        dtype, limits = dtype_name(like.dtype), cuda.device_limits()
        needed = needed_by(self.maps, dtype, self.tuning, limits)
        if needed > limits.shared:
            warnings.warn(
                f"a DFT of this size in {dtype} needs {needed / 1024:.0f} KiB of shared memory, and a block of this "
                f"device has {limits.shared / 1024:.0f} KiB: taps are added up instead, which may be slower",
                RuntimeWarning,
                stacklevel=2,
            )
        return needed <= limits.shared

    @cached_property
    def _by_taps(self) -> Plan[Array]:
        """The same convolution without a transform."""
        a = self.arrangement
        count = range(len(a.problem.axes))
        order = tuple(sorted(count, key=lambda k: -a.problem.out_lengths[k]))
        methods = ("direct",) * len(count)
        direct = replace(a, methods=methods, spectral=(), direct=order, outer=(), inner=(*a.outer, *a.inner))
        supports = self.supports(direct, Identity())
        return (CudaPlan if supports else Plan)(direct, Identity(), Im2col(direct.taps, self.tuning), self.tuning)

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        if not self._fits(x):
            return self._by_taps.forward(xp, x, w, bias)
        per_row = None if bias is None else self._bias_of_rows(xp, bias)
        y = self._products(xp, self._spectrum(xp, x), self._matrices(xp, w), per_row)
        result = self.from_plan(xp, y, self.y_order, self.problem.y_shape)
        return result if bias is None or per_row is not None else elementwise.elu(xp, result, bias)

    def forward_and_marginal(self, xp: Any, x: Array, w: Array, bias: Array, axis: int) -> tuple[Array, Array]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis.

        Synthesis adds the sum up if the axis is transformed and the bias is the same at all positions.
        """
        if not self._fits(x):
            return self._by_taps.forward_and_marginal(xp, x, w, bias, axis)
        place, per_row = self.y_order.index(axis), self._bias_of_rows(xp, bias)
        if per_row is None or place >= len(self.arrangement.spectral):
            y = self.forward(xp, x, w, bias)
            return y, sum_over(xp, y, (axis,))
        shape, order = self.problem.y_shape, self.y_order
        summed = shape[axis], math.prod(shape[a] for a in order[place + 1 : len(self.arrangement.spectral)])
        positions = math.prod(self.taps.out_lengths) * self.taps.batch
        total = empty(xp, (self.y_rows // summed[0] * self.out, positions), x)
        y = self._products(xp, self._spectrum(xp, x), self._matrices(xp, w), per_row, (total, *summed))
        return self._with_marginal(xp, y, total, axis)

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        if not self._fits(g):
            return self._by_taps.adjoints(xp, g, x, w, ans)
        answers = None if ans is None else self._result_rows(xp, ans)
        if self.maps:
            rows, sums = self._map(xp, "back", self._result_rows(xp, g, spread=True), self.out, "g", answers)
        else:
            rows, sums = self._extend(xp, self._result_rows(xp, g), "g", answers)
        sums = None if sums is None else self.like_result(xp, sums)
        cotangent = xp.reshape(rows, (self._count, -1, self.tables.g.positions))
        x_cotangent = w_cotangent = None
        if w is not None:
            x_rows = self._cotangent_of_x(xp, cotangent, self._matrices_back(xp, w))
            x_cotangent = self.from_plan(xp, x_rows, self.x_order, self.problem.x_shape)
        if x is not None:
            w_cotangent = self._filters_of(xp, self._cotangent_of_filters(xp, cotangent, self._spectrum(xp, x)))
        return x_cotangent, w_cotangent, sums

    def _spectrum(self, xp: Any, x: Array) -> Array:
        """Spectrum of x, extended (entries, columns, positions)."""
        rows = self._sample_rows(xp, x)
        rows = self._map(xp, "analysis", rows, self.channels, "x")[0] if self.maps else self._extend(xp, rows, "x")[0]
        return xp.reshape(rows, (self._count, -1, self.tables.x.positions))

    def _matrices(self, xp: Any, w: Array) -> Array:
        """Return filters, or their spectra, (entries or 1, taps * columns, rows)."""
        if self.maps:
            filters = self._filter_spectra(xp, w, "filters")
            return xp.reshape(filters, (self._count, -1, self.maps.planes * self.out))
        matrix = (1, self.taps.count * self.channels, self.out)
        return xp.ascontiguousarray(self._to_plan(xp, w, self.w_order, matrix))

    def _matrices_back(self, xp: Any, w: Array) -> Array:
        """Return those of the transpose (entries or 1, taps * rows, columns), taps in the order of `_phase_taps`."""
        if self.maps:
            filters = self._filter_spectra(xp, w, "filters back")
            return xp.reshape(filters, (self._count, self.taps.count * self.maps.planes * self.out, -1))
        by_taps = xp.permute_dims(self._to_plan(xp, w, self.w_order, self.w_matrix), (0, 1, 3, 2))
        by_taps = by_taps[:, self._table(w, "taps", self._phase_taps), ...]
        return xp.reshape(xp.ascontiguousarray(by_taps), (1, -1, self.channels))

    def _filter_spectra(self, xp: Any, w: Array, order: str) -> Array:
        """Spectra of filters, in one of the orders of `_filter_places`."""
        d = self.maps
        assert d
        # (F P' A1 P A2, size) @ (size, T C K), written in the order
        matrix, rows = d.matrices(w)[4], self._to_plan(xp, w, self.w_order, self.w_matrix)
        spectra = empty(xp, (matrix.shape[0] * math.prod(self.w_matrix[1:]),), w)
        multiply_into(matrix, xp.reshape(rows, (matrix.shape[1], -1)), spectra, writes=self._filter_tables(w, order))
        return spectra

    def _filter_tables(self, like: Array, order: str) -> tuple[Array, Array]:
        """Where the products of rows (F, P', A1, P, A2) and columns (T, C, K) of a filter's spectra lie in an order.

        "filters" is (F, T, A1, P, A2, C, P', K), as `apply` wants them and `correlate` makes them, "filters back" is
        (F, T, P', K, A1, P, A2, C).
        """
        d, (taps, channels, out) = self.maps, self.w_matrix[1:]
        assert d
        f, p, a1, a2 = d.frequencies, d.planes, d.a1, d.last.fold

        def places() -> Integers:
            every: Integers = np.arange(f * p * a1 * p * a2 * taps * channels * out)
            if order == "filters":
                every = every.reshape(f, taps, a1, p, a2, channels, p, out).transpose(0, 6, 2, 3, 4, 1, 5, 7)
            else:
                every = every.reshape(f, taps, p, out, a1, p, a2, channels)[:, np.argsort(self._phase_taps)]
                every = every.transpose(0, 2, 4, 5, 6, 1, 7, 3)
            return every.reshape(f * p * a1 * p * a2, -1)

        return (
            self._table(like, (order, "rows"), lambda: places()[:, 0]),
            self._table(like, (order, "columns"), lambda: places()[0] - places()[0, 0]),
        )

    @cached_property
    def _phase_taps(self) -> Integers:
        """All taps, in the order of the phases of x that they meet; those that meet none come last."""
        met = np.concatenate([np.zeros(0, np.int64), *(phase.taps for phase in self.tables.phases)])
        return np.concatenate([met, np.setdiff1d(np.arange(self.taps.count), met)])

    def _products(
        self, xp: Any, x: Array, matrices: Array, bias: Array | None, marginal: tuple[Array, int, int] | None = None
    ) -> Array:
        """Return the result (rows, positions) of matrices (entries or 1, taps * columns, rows); with a bias, its ELU.

        With a transform, a marginal of it can be written too: its array (rows, positions), the number of rows in a sum,
        and how far apart they lie.
        """
        count, rows, reading = x.shape[0], matrices.shape[2], self.tables.forward
        offsets = self._offsets(x, "x taps", reading, x)
        positions = reading.lines.size * reading.run
        if not self.maps:
            sources = self._table(x, "x lines", reading.lines)
            targets = self._table(x, "y lines", lambda: np.arange(reading.lines.size) * reading.run)
            y = empty(xp, (count * rows, positions), x)
            self._apply(x, matrices, offsets, sources, targets, reading.run, y, bias)
            return y
        y = empty(xp, (self.y_rows * self.out, positions), x)
        # A segment of a line follows that of the line before, with which it shares most samples.
        elements = self.tuning.device_spectrum_elements
        cuts = _cuts(reading.run, count * rows, elements)
        run = reading.run // cuts
        step = max(1, elements // (count * rows * run)) if cuts == 1 else 1
        lines = reading.lines.size
        begins = lambda: np.add.outer(np.arange(cuts) * run, reading.lines).reshape(-1)  # noqa: E731
        sources = self._table(x, ("x lines", run), begins)
        targets = self._table(x, ("y lines", run), lambda: np.arange(step) * run)
        buffer = empty(xp, (count * rows * min(step, sources.size) * run,), x)
        for first in range(0, sources.size, step):
            last = min(sources.size, first + step)
            segment, line = divmod(first, lines)
            block = xp.reshape(buffer[: count * rows * (last - first) * run], (count * rows, -1))
            # (entries, rows, taps * columns) @ (entries, taps * columns, positions of the block)
            self._apply(x, matrices, offsets, sources[first:last], targets[: last - first], run, block)
            begin = line * reading.run + segment * run
            sums = None if marginal is None else (marginal[0][:, begin:], *marginal[1:])
            # (frequencies * planes * out, positions of the block) -> (rows * out, positions of the block)
            self._map(xp, "synthesis", block, self.out, None, bias=bias, out=y[:, begin:], marginal=sums)
        return y

    def _cotangent_of_x(self, xp: Any, g: Array, matrices: Array) -> Array:
        """Cotangent of x (rows, positions) from that of its products, extended, by `_matrices_back`."""
        (count, rows), columns, met = g.shape[:2], matrices.shape[2], 0
        size = math.prod(self.taps.lengths) * self.taps.batch
        x = empty(xp, (count * columns, size), g)
        if not self.tables.complete:
            x[...] = 0
        for index, phase in enumerate(self.tables.phases):
            # (entries, columns, taps of the phase * rows) @ (entries, taps of the phase * rows, positions of the phase)
            first, met = met, met + phase.taps.size * rows
            self._apply(
                g,
                matrices[:, first:met, :],
                self._offsets(g, ("g taps", index), phase.reading, g),
                self._table(g, ("g lines", index), phase.reading.lines),
                self._table(g, ("x targets", index), phase.targets),
                phase.reading.run,
                x,
            )
        return self._map(xp, "analysis back", x, self.channels, None)[0] if self.maps else x

    def _filters_of(self, xp: Any, matrices: Array) -> Array:
        """Cotangent of w from that of its matrices: (entries or 1, taps * columns, rows)."""
        if self.maps:
            table = self.maps.matrices(matrices)[4]
            # (size, F P' A1 P A2) @ (F P' A1 P A2, T C K) -> (size, T, C, K)
            rows = empty(xp, (table.shape[1], *self.w_matrix[1:]), matrices)
            multiply_into(table.T, matrices, rows, reads=self._filter_tables(matrices, "filters"))
        else:
            rows = matrices
        return owned(self.from_plan(xp, rows, self.w_order, self.problem.w_shape))

    def _cotangent_of_filters(self, xp: Any, g: Array, x: Array) -> Array:
        """Cotangent of the matrices (entries or 1, taps * columns, rows): one for each entry, or one for all."""
        (count, rows, _), columns, reading = g.shape, x.shape[1], self.tables.forward
        dtype = dtype_name(g.dtype)
        tiling, depth = cuda.TILING[dtype], columns * reading.offsets.size
        threads, positions = tiling["THREADS"], reading.lines.size * reading.run
        tiles = -(-rows // (4 * tiling["G_TALL"])) * -(-depth // (8 * tiling["X_TALL"]))
        parts = max(1, min(-(-positions // threads), -(-self.tuning.device_blocks // (tiles * count))))
        # of each block: (entries, taps * columns, positions) @ (entries, positions, rows)
        totals = empty(xp, (parts, count, depth, rows), g)
        cuda.launch(
            "correlate", dtype, cuda.product_sizes(dtype, rows), (parts, count, tiles), threads,
            (
                g, x, self._offsets(x, "x taps", reading, x),
                self._table(g, "g interior", self.tables.interior.lines),
                self._table(x, "x lines", reading.lines), totals,
                *map(np.int32, (rows, depth, positions, reading.run)),
                *map(np.int64, (rows * g.shape[2], g.shape[2], columns * x.shape[2])),
            ),
            cuda.shared_bytes_of_correlate(dtype),
        )  # fmt: skip
        one_each = count if self.maps else 1
        total = self._total(xp, xp.reshape(totals, (-1, one_each * depth * rows)))
        return xp.reshape(total, (one_each, depth, rows))

    def _apply(
        self, x: Array, matrices: Array, offsets: Array, sources: Array, targets: Array, run: int, out: Array,
        bias: Array | None = None,
    ) -> None:  # fmt: skip
        """Products of matrices (entries or 1, K, rows) with rows of x (entries, columns, .), to out (rows, .)."""
        dtype, count, (depth, rows) = dtype_name(x.dtype), x.shape[0], matrices.shape[1:]
        sizes = cuda.product_sizes(dtype, rows)
        positions = sources.size * run
        matrix_entry = matrices.strides[0] // matrices.itemsize if matrices.shape[0] > 1 else 0
        block = sizes["THREADS"] * sizes["TALL"] // sizes["ROW_TILE"] * sizes["WIDE"]
        cuda.launch(
            "apply", dtype, sizes, (-(-positions // block), count, -(-rows // sizes["ROW_TILE"])), sizes["THREADS"],
            (
                x, matrices, offsets, sources, targets, bias, out, *map(np.int32, (rows, depth, positions, run)),
                np.int64(math.prod(x.shape[1:])), np.int64(matrix_entry),
                np.int64(rows * out.shape[1]), np.int64(out.shape[1]),
            ),
        )  # fmt: skip

    def _map(
        self, xp: Any, name: str, x: Array, channels: int, extension: str | None, answers: Array | None = None,
        *, bias: Array | None = None, out: Array | None = None, marginal: tuple[Array | None, int, int] | None = None,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Apply one of MAPS to x (rows * channels, .).

        With answers, the results of an ELU, x is first multiplied by the ELU's derivative, and the sums of the products
        along rows are returned too. `out` and a marginal of it, as `_products` takes one, may be views of larger arrays
        whose rows have one length.
        """
        dtype = dtype_name(x.dtype)
        assert self.maps
        stages = maps_of(self.maps, dtype, self.tuning, cuda.device_limits())[MAPS.index(name)]
        sizes = dict(stages.sizes)
        places, batch, n = self._source(x, extension)
        if out is None:
            out = empty(xp, (sizes["SECOND_GROUPS"] * sizes["SECOND_ROWS"] * channels, n), x)
        tiles = -(-n // sizes["MAP_TILE"])
        sums = None if answers is None else empty(xp, (tiles, sizes["IN_ROWS"] * channels), x)
        total, summed, apart = marginal or (None, 1, 1)
        cuda.launch(
            "map_rows", dtype, sizes, (tiles, channels), sizes["MAP_THREADS"],
            (
                x, places, self._table(x, (name, 1), stages.factors[0]),
                self._table(x, (name, 2), stages.factors[1]),
                self._table(x, (name, "rows"), stages.rows), bias, answers, sums, out, total,
                *map(np.int32, (n, batch, x.shape[0] // channels, summed, apart)),
                np.int64(x.shape[1]), np.int64(out.strides[0] // out.itemsize),
            ),
            stages.shared,
        )  # fmt: skip
        return out, None if sums is None else self._total(xp, sums)

    def _offsets(self, like: Array, name: Any, reading: Reading, x: Array) -> Array:
        """Offsets of taps and columns in an entry of x (entries, columns, positions)."""
        places = lambda: np.add.outer(reading.offsets, np.arange(x.shape[1]) * x.shape[2]).reshape(-1)  # noqa: E731
        return self._table(like, (name, x.shape[1:]), places)


class SubsampledPlan(Plan[Array]):
    """A plan along periodic axes whose stride does not divide them: every sample is made, and some are kept.

    Along such an axis the taps that meet a sample differ from period to period, which the kernels' tables cannot say.
    """

    def __init__(
        self,
        arrangement: Arrangement,
        transform: Transform[Array],
        products: TapProducts[Array],
        tuning: Tuning,
        whole: Plan[Array],
    ) -> None:
        super().__init__(arrangement, transform, products, tuning)
        self.whole = whole
        stride = dict(zip(self.problem.axes, self.problem.stride, strict=True))
        strides = dict(zip(self.problem.axes, whole.problem.stride, strict=True))
        self.kept = (*(slice(None, None, stride.get(a, 1) // strides.get(a, 1)) for a in self.problem.kept_axes), ...)

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        y = self.whole.forward(xp, x, w)[self.kept]
        return y if bias is None else elementwise.elu(xp, y, bias)

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        g = g if ans is None else elementwise.elu_vjp(xp, g, ans)
        spread = xp.zeros(self.whole.problem.y_shape, dtype=g.dtype, **placement(xp, g))
        spread[self.kept] = g
        return (*self.whole.adjoints(xp, spread, x, w)[:2], None if ans is None else g)
