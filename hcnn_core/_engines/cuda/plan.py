"""The three maps of a plan by CUDA kernels, on arrays whose rows are extended by their boundary once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.dft_stages import Stage, stages_of
from hcnn_core._engines.cuda.implicit import FROM_L2, PART, Implicit
from hcnn_core._engines.cuda.matmul import MOST_BLOCKS, SIDE, multiply_into
from hcnn_core._engines.cuda.summed import Summed
from hcnn_core._engines.cuda.sums import add_terms
from hcnn_core._engines.cuda.sums import summed as sum_over
from hcnn_core._engines.cuda.tables import Reading, extended_positions, tables_of
from hcnn_core._engines.generic import elementwise
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.generic.im2col import Im2col
from hcnn_core._engines.generic.plan import Plan
from hcnn_core._engines.taps import Integers, Matrices, TapProducts, untapped
from hcnn_core._engines.transform import Identity, Transform
from hcnn_core._tuning import DEFAULT, Tuning, Units
from hcnn_core.backend import Array, DeviceLimits, DeviceTables, dtype_name, empty, placement
from hcnn_core.precisions import passes

FEWEST_ROWS = 6
"""A product with fewer rows takes as long as with these: it is made in tiles of eight rows or more."""

LARGEST = DeviceLimits(227 << 10, 113 << 10, (9, 0))
"""Of the device whose blocks may have the most shared memory."""

BANDWIDTH, MULTIPLY_ADDS, FLOAT32 = 4.3e12, 1.35e14, 3.35e13
"""Bytes that an H200 copies in a second; products of TensorFloat-32 that it can issue by `mma.sync`, and of float32."""

SLOWER = 2.8
"""How much longer kernels that make and read spectra took there than what follows from these (gpu-h200/README.md)."""

MAPS = ("analysis", "analysis back", "synthesis", "back")
"""Names of a transform's maps: analysis, its transpose, synthesis, its transpose."""


@dataclass(frozen=True)
class Map:
    """Two stages as `map_rows` wants them."""

    factors: tuple[Array, Array]
    rows: Integers
    sizes: tuple[tuple[str, int], ...]
    shared: int


@lru_cache(maxsize=256)
def maps_of(transform: MatrixDFT, dtype: str, tuning: Tuning, limits: DeviceLimits) -> tuple[Map, ...]:
    """Analysis, its transpose, synthesis, its transpose; those of the narrowest tiles may ask for too much memory."""
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


def _owned(view: Any) -> Array:
    """Return a view of all of an array that nothing else has as an array of its own, which nobody need copy."""
    if isinstance(view, np.ndarray) or not view.flags.c_contiguous:
        return view
    return type(view)(view.shape, view.dtype, view.data)


class CudaPlan(Plan[Array]):
    """A plan for real arrays on a GPU whose transform is by matrices, or none."""

    def __init__(
        self, arrangement: Arrangement, transform: Transform[Array], products: TapProducts[Array], tuning: Tuning
    ) -> None:
        super().__init__(arrangement, transform, products, tuning)
        t = products.taps
        self.taps = t if t.sizes else untapped(t.batch)
        self.tables = tables_of(self.taps)
        self.maps = self.transform if isinstance(self.transform, MatrixDFT) else None
        self._placed = DeviceTables()
        directly = next((kind for kind in (Implicit, Summed) if kind.suits(arrangement)), None)
        self._implicit = directly(arrangement) if directly else None
        """Products by tensor cores without a transform, where these take less time by count."""

    @classmethod
    def suits(cls, arrangement: Arrangement, transform: Transform[Array]) -> bool:
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

    @staticmethod
    def units_of_products(products: TapProducts[Any], matrices: Matrices) -> Units:
        """Multiply-adds, and copies of extended arrays. Lines cost nothing: a kernel looks each position up."""
        m, t = matrices, products.taps
        macs = (max(m.rows, FEWEST_ROWS) * m.columns + m.rows * max(m.columns, FEWEST_ROWS)) / 2
        return {
            "mac": m.entries * t.count * t.results * macs,
            "copy": m.entries * (m.columns * t.samples * (t.count > 1) + m.rows * t.results * math.prod(t.stride)),
        }

    @classmethod
    def units_on_tensor_cores(cls, choice: Any, units: Units, passes: int) -> Units:
        """Those of products by tensor cores, or where filters slide, of these and of what each tap of space reads.

        What is read once comes from memory, as half a copy is; for other taps, from the L2 cache.
        """
        a, t = choice.arrangement, choice.arrangement.taps
        if Implicit.suits(a) or Summed.suits(a):
            plan, limits = choice.make(), cuda.device_limits()
            if plan.slides(passes, limits):
                if isinstance(plan._implicit, Summed):
                    return plan._implicit.units(passes, limits)
                moved = 1.5 * (a.x_rows * t.samples + a.y_rows * a.out * t.results)
                moved += FROM_L2 * t.count * t.results * (2 * a.x_rows + a.y_rows * a.out)
                return {"plan": 1, "slid_mac": 3 * plan._implicit.multiply_adds() * passes, "copy": moved}
        return units

    @cuda.kept
    def slides(self, passes: int, limits: DeviceLimits) -> bool:
        """Whether products are made on tensor cores where samples lie: filters slide along attributes, or in space."""
        in_grid = self.y_rows * self.out <= MOST_BLOCKS  # rows of `extend`, for the cotangent of an ELU
        if not (passes and in_grid and self._implicit and self._implicit.fits(passes, limits)):
            return False
        if isinstance(self._implicit, Summed):
            costs, t = self.tuning.other_costs, self.taps
            others = t.count * t.results * self.channels * self.out
            cost = self._implicit.units(passes, limits)["slid_mac"] * SLOWER * costs.slid_mac
            return cost < others * costs.mac
        return self._implicit.multiply_adds() * passes / MULTIPLY_ADDS < self._seconds()

    def _by_tensor_cores(self, like: Array) -> int:
        """How many products of tensor cores make one of filters that slide along attributes; 0 if others make them."""
        if not (count := passes(dtype_name(like.dtype))):
            return 0
        if (has := (limits := cuda.device_limits()).capability) < cuda.TENSOR_CAPABILITY:
            raise RuntimeError(
                f"precisions 'tf32' and 'tf32x3' need a device of compute capability 8.0 or later; this one has "
                f"{has[0]}.{has[1]}: choose precision 'float32'"
            )
        return count if self.slides(count, limits) else 0

    def _seconds(self) -> float:
        """Return what a convolution by way of spectra takes on an H200, by what it moves and multiplies."""
        assert self.maps
        d, t = self.maps, self.taps
        spectrum = d.frequencies * d.planes * d.aliases * self.tables.x.positions
        products = d.frequencies * d.planes * self.out * t.results
        macs = products * d.planes * d.aliases * t.count
        moved = self.x_rows * t.samples + 2 * (spectrum + products) + self.y_rows * self.out * t.results
        return SLOWER * (4 * moved / BANDWIDTH + macs / FLOAT32)

    def _directly(
        self, xp: Any, x: Array, w: Array, count: int, bias: Array | None, axis: int | None = None,
        parts: Array | None = None,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Return the result without a transform, as rows; with a bias (rows, out), its ELU; its sum over an axis."""
        i, positions = self._implicit, math.prod(self.taps.out_lengths) * self.taps.batch
        assert i is not None
        y, total = empty(xp, (self.y_rows * self.out, positions), x), None
        if axis is not None:
            total = empty(xp, (y.shape[0] // self.problem.y_shape[axis], positions), x)
        i.forward(self._sample_rows(xp, x), self._slid(xp, w), y, count, bias, total, parts)
        return y, total

    def _slid(self, xp: Any, w: Array) -> Array:
        """Order filters by taps of transformed axes, then of direct ones, (S, T, C, K), as `merge` or w has them."""
        by_taps = self._to_plan(xp, w, self.w_order, self.w_matrix)
        in_place = isinstance(self._implicit, Summed) and by_taps.strides[-1] == by_taps.itemsize
        return by_taps if in_place else xp.ascontiguousarray(by_taps)

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
        suits = self.suits(direct, Identity())
        return (CudaPlan if suits else Plan)(direct, Identity(), Im2col(direct.taps, self.tuning), self.tuning)

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        count = self._by_tensor_cores(x)
        if not count and not self._fits(x):
            return self._by_taps.forward(xp, x, w, bias)
        per_row = None if bias is None else self._bias_of_rows(xp, bias)
        if count:
            y = self._directly(xp, x, w, count, per_row)[0]
        else:
            y = self._products(xp, self._spectrum(xp, x), self._matrices(xp, w), per_row)
        result = self.from_plan(xp, y, self.y_order, self.problem.y_shape)
        return result if bias is None or per_row is not None else elementwise.elu(xp, result, bias)

    def forward_and_parts(self, xp: Any, x: Array, w: Array) -> tuple[Array, Array | None]:
        """X convolved with w, and parts of its moments where filters slide (see `Implicit.forward`), else None."""
        if not (count := self._by_tensor_cores(x)) or isinstance(self._implicit, Summed):
            return self.forward(xp, x, w), None
        shape = self.y_rows * self.out, -(-math.prod(self.taps.out_lengths) * self.taps.batch // PART), 2
        parts = xp.empty(shape, dtype=xp.float64, **placement(xp, x))
        y = self._directly(xp, x, w, count, None, parts=parts)[0]
        return self.from_plan(xp, y, self.y_order, self.problem.y_shape), parts

    def forward_and_marginal(self, xp: Any, x: Array, w: Array, bias: Array, axis: int) -> tuple[Array, Array]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis.

        Synthesis adds the sum up if the axis is transformed and the bias is the same at all positions.
        """
        place, count = self.y_order.index(axis), self._by_tensor_cores(x)
        if not count and not self._fits(x):
            return self._by_taps.forward_and_marginal(xp, x, w, bias, axis)
        per_row = self._bias_of_rows(xp, bias)
        on_the_way = self._implicit.makes_marginal(axis, count) if count and self._implicit else True
        if per_row is None or place >= len(self.arrangement.spectral) or not on_the_way:
            y = self.forward(xp, x, w, bias)
            return y, sum_over(xp, y, (axis,))
        shape, order = self.problem.y_shape, self.y_order
        summed = shape[axis], math.prod(shape[a] for a in order[place + 1 : len(self.arrangement.spectral)])
        positions = math.prod(self.taps.out_lengths) * self.taps.batch
        if count:
            y, total = self._directly(xp, x, w, count, per_row, axis)
            assert total is not None
        else:
            total = empty(xp, (self.y_rows // summed[0] * self.out, positions), x)
            y = self._products(xp, self._spectrum(xp, x), self._matrices(xp, w), per_row, (total, *summed))
        kept_order = tuple(a - (a > axis) for a in order if a != axis)
        kept_shape = shape[:axis] + shape[axis + 1 :]
        return self.from_plan(xp, y, order, shape), self.from_plan(xp, total, kept_order, kept_shape)

    def _bias_of_rows(self, xp: Any, bias: Array) -> Array | None:
        """`per_row`, in one piece."""
        per_row = self.per_row(xp, bias)
        return None if per_row is None else xp.ascontiguousarray(per_row)

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        if count := self._by_tensor_cores(g):
            return self._adjoints_directly(xp, g, x, w, ans, count)
        if not self._fits(g):
            return self._by_taps.adjoints(xp, g, x, w, ans)
        sums = None
        if self.maps:
            answers = None if ans is None else self._result_rows(xp, ans)
            rows, sums = self._map(xp, "back", self._result_rows(xp, g, spread=True), self.out, "g", answers)
        else:
            answers = None if ans is None else self._result_rows(xp, ans)
            rows, sums = self._extend(xp, self._result_rows(xp, g), "g", answers)
        sums = None if sums is None else self.like_result(xp, sums)
        cotangent = xp.reshape(rows, (self._count, -1, self.tables.g.positions))
        x_cotangent = w_cotangent = None
        if w is not None:
            x_rows = self._cotangent_of_x(xp, cotangent, self._matrices_back(xp, w))
            x_cotangent = self.from_plan(xp, x_rows, self.x_order, self.problem.x_shape)
        if x is not None:
            w_cotangent = self._filters_of(xp, self._cotangent_of_filters(xp, cotangent, self._spectrum(xp, x)))
        return x_cotangent, w_cotangent, None if ans is None else sums

    def _adjoints_directly(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None, count: int
    ) -> tuple[Array | None, Array | None, Array | None]:
        """`adjoints` without a transform."""
        i, sums = self._implicit, None
        assert i is not None
        if ans is None:
            rows = self._result_rows(xp, g)
        else:
            rows, parts = self._extend(xp, self._result_rows(xp, g, spread=True), None, self._result_rows(xp, ans))
            assert parts is not None
            sums = self.like_result(xp, parts)
        x_cotangent = w_cotangent = None
        if w is not None:
            cotangent = empty(xp, (self.x_rows * self.channels, math.prod(self.taps.lengths) * self.taps.batch), g)
            if not i.complete:
                cotangent[...] = 0
            i.back(rows, self._slid(xp, w), cotangent, count)
            x_cotangent = self.from_plan(xp, cotangent, self.x_order, self.problem.x_shape)
        if x is not None:
            by_taps = i.filters(xp, rows, self._sample_rows(xp, x), count)
            w_cotangent = _owned(self.from_plan(xp, by_taps, self.w_order, self.problem.w_shape))
        return x_cotangent, w_cotangent, sums

    def _spectrum(self, xp: Any, x: Array) -> Array:
        """Spectrum of x, extended (entries, columns, positions)."""
        rows = self._sample_rows(xp, x)
        rows = self._map(xp, "analysis", rows, self.channels, "x")[0] if self.maps else self._extend(xp, rows, "x")[0]
        return xp.reshape(rows, (self._count, -1, self.tables.x.positions))

    def _sample_rows(self, xp: Any, x: Array) -> Array:
        """Return samples as (rows, positions), in one piece."""
        shape = (self.outer * self.x_rows * self.channels, math.prod(self.taps.lengths) * self.taps.batch)
        rows: Array = xp.ascontiguousarray(self._to_plan(xp, x, self.x_order, shape))
        return rows

    def _matrices(self, xp: Any, w: Array) -> Array:
        """Return filters, or their spectra, (entries or 1, taps * columns, rows)."""
        if self.maps:
            filters = self._filter_spectra(xp, w, "filters")
            return xp.reshape(filters, (self._count, -1, self.maps.planes * self.out))
        matrix = (1, self.taps.count * self.channels, self.out)
        return xp.ascontiguousarray(self._to_plan(xp, w, self.w_order, matrix))

    def _matrices_back(self, xp: Any, w: Array) -> Array:
        """Return the same as (entries or 1, taps * rows, columns), taps in the order of `_phase_taps`."""
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
        return _owned(self.from_plan(xp, rows, self.w_order, self.problem.w_shape))

    def _cotangent_of_filters(self, xp: Any, g: Array, x: Array) -> Array:
        """Cotangent of the matrices (entries or 1, taps * columns, rows), of which entries have one each or all one."""
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

    def _extend(
        self, xp: Any, x: Array, extension: str | None, answers: Array | None = None
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Rows (rows, .) extended by their boundary; with answers, as in `_map`, also the sums of the products.

        There may be more answers than rows: these are then repeated.
        """
        places, batch, n = self._source(x, extension)
        rows = x.shape[0] if answers is None else answers.shape[0]
        out = empty(xp, (rows, n), x)
        threads = self.tuning.device_threads
        blocks = -(-n // threads)
        sums = None if answers is None else empty(xp, (blocks, rows), x)
        cuda.launch(
            "extend", dtype_name(x.dtype), {"EXTEND": threads}, (blocks, rows), threads,
            (x, places, answers, sums, out, *map(np.int32, (n, batch, x.shape[0])), np.int64(x.shape[1])),
        )  # fmt: skip
        return out, None if sums is None else self._total(xp, sums)

    @staticmethod
    def _total(xp: Any, parts: Array) -> Array:
        """Return the sum of parts (parts, elements), rounded once."""
        count, elements = parts.shape
        return add_terms(xp, parts, (1, count, elements)) if count > 1 else parts[0, :]

    def _source(self, x: Array, extension: str | None) -> tuple[Array | None, int, int]:
        """Places, batch and number of extended positions; without an extension, those of x itself."""
        if extension is None:
            return None, 1, x.shape[1]
        table = getattr(self.tables, extension)
        return self._table(x, (extension, "places"), table.places), table.batch, table.positions

    def _offsets(self, like: Array, name: Any, reading: Reading, x: Array) -> Array:
        """Offsets of taps and columns in an entry of x (entries, columns, positions)."""
        places = lambda: np.add.outer(reading.offsets, np.arange(x.shape[1]) * x.shape[2]).reshape(-1)  # noqa: E731
        return self._table(like, (name, x.shape[1:]), places)

    def _table(self, like: Array, name: Any, values: Array | Callable[[], Array]) -> Array:
        """Return a table on the device of `like`; integers as the kernels read them."""

        def make() -> Array:
            table = values() if callable(values) else values
            return np.ascontiguousarray(table, np.int32) if table.dtype.kind == "i" else table

        return self._placed.beside(like, (name, like.dtype), make)

    def _result_rows(self, xp: Any, y: Array, *, spread: bool = False) -> Array:
        """Return an array like the result as (rows, positions).

        With `spread`, repeated rows are left out where stride 0 shows them, as in the cotangent of a marginal.
        """
        ordered = xp.permute_dims(y, self.y_order)
        rows = self.outer * self.y_rows * self.out
        for axis, n in enumerate(ordered.shape[: len(self.arrangement.spectral)] if spread else ()):
            if n > 1 and y.strides[self.y_order[axis]]:
                break
            ordered, rows = ordered[(*(slice(None),) * axis, slice(0, 1))], rows // n
        return xp.ascontiguousarray(xp.reshape(ordered, (rows, math.prod(self.taps.out_lengths) * self.taps.batch)))


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
