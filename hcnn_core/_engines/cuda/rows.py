"""The base of plans by CUDA kernels: arrays as rows of positions, and rows extended by their boundary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.cuda import launch as cuda
from hcnn_core._engines.cuda.sums import add_terms
from hcnn_core._engines.cuda.tables import tables_of
from hcnn_core._engines.generic.plan import Plan
from hcnn_core._engines.taps import Matrices, TapProducts, untapped
from hcnn_core._engines.transform import Transform
from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import Array, DeviceTables, dtype_name, empty

FEWEST_ROWS = 6
"""A product with fewer rows takes as long as one with eight: tiles have eight rows or more."""


def owned(view: Any) -> Array:
    """Return an array in place of a view of all of it, which need not be copied then."""
    if isinstance(view, np.ndarray) or not view.flags.c_contiguous:
        return view
    return type(view)(view.shape, view.dtype, view.data)


class RowsPlan(Plan[Array]):
    """A plan for real arrays on a GPU, whose kernels take rows of positions."""

    def __init__(
        self, arrangement: Arrangement, transform: Transform[Array], products: TapProducts[Array], tuning: Tuning
    ) -> None:
        super().__init__(arrangement, transform, products, tuning)
        t = products.taps
        self.taps = t if t.sizes else untapped(t.batch)
        self.tables = tables_of(self.taps)
        self._placed = DeviceTables()

    @staticmethod
    def units_of_products(products: TapProducts[Any], matrices: Matrices) -> Units:
        """Multiply-adds, and copies of extended arrays. Lines cost nothing: a kernel looks each position up."""
        m, t = matrices, products.taps
        macs = (max(m.rows, FEWEST_ROWS) * m.columns + m.rows * max(m.columns, FEWEST_ROWS)) / 2
        return {
            "mac": m.entries * t.count * t.results * macs,
            "copy": m.entries * (m.columns * t.samples * (t.count > 1) + m.rows * t.results * math.prod(t.stride)),
        }

    def _bias_of_rows(self, xp: Any, bias: Array) -> Array | None:
        """`per_row`, in one piece."""
        per_row = self.per_row(xp, bias)
        return None if per_row is None else xp.ascontiguousarray(per_row)

    def _with_marginal(self, xp: Any, y: Array, total: Array, axis: int) -> tuple[Array, Array]:
        """Return rows of a result, and of its sum over an axis, in the caller's order of axes."""
        shape, order = self.problem.y_shape, self.y_order
        kept_order = tuple(a - (a > axis) for a in order if a != axis)
        kept_shape = shape[:axis] + shape[axis + 1 :]
        return self.from_plan(xp, y, order, shape), self.from_plan(xp, total, kept_order, kept_shape)

    def _sample_rows(self, xp: Any, x: Array) -> Array:
        """Return samples as (rows, positions), in one piece."""
        shape = (self.outer * self.x_rows * self.channels, math.prod(self.taps.lengths) * self.taps.batch)
        return xp.ascontiguousarray(self._to_plan(xp, x, self.x_order, shape))

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
