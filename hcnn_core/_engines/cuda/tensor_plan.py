"""The three maps of a plan by tensor cores: filters are multiplied with samples without a transform."""

from __future__ import annotations

import math
from typing import Any

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.cuda.implicit import FROM_L2, PART_SIZE, Implicit
from hcnn_core._engines.cuda.matmul import MOST_BLOCKS
from hcnn_core._engines.cuda.rows import RowsPlan, owned
from hcnn_core._engines.cuda.summed import Summed
from hcnn_core._engines.cuda.sums import summed as sum_over
from hcnn_core._engines.cuda.tables import extended_positions
from hcnn_core._engines.generic import elementwise
from hcnn_core._engines.generic.dft import MatrixDFT
from hcnn_core._engines.taps import TapProducts, untapped
from hcnn_core._engines.transform import Transform
from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import Array, DeviceLimits, empty, placement

BANDWIDTH, MULTIPLY_ADDS, FLOAT32 = 4.3e12, 1.35e14, 3.35e13
"""Bytes that an H200 copies in a second; products of TensorFloat-32 that it can issue by `mma.sync`, and of float32."""

SLOWER = 2.8
"""How much longer kernels with spectra took on it than follows from these rates (gpu-h200/README.md)."""


def kernels_of(arrangement: Arrangement) -> Implicit | Summed | None:
    """Return what makes the products of an arrangement by tensor cores, if these can."""
    kinds = (Implicit, Summed) if arrangement.y_rows * arrangement.out <= MOST_BLOCKS else ()  # rows of `extend`
    return next((kind(arrangement) for kind in kinds if kind.supports(arrangement)), None)


def seconds_by_spectra(a: Arrangement, d: MatrixDFT) -> float:
    """Estimate the seconds of a convolution by spectra on an H200, from its bytes and products."""
    t = a.taps
    spectrum = d.frequencies * d.planes * d.aliases * extended_positions(t if t.sizes else untapped(t.batch))[0]
    products = d.frequencies * d.planes * a.out * t.results
    macs = products * d.planes * d.aliases * t.count
    moved = a.x_rows * t.samples + 2 * (spectrum + products) + a.y_rows * a.out * t.results
    return SLOWER * (4 * moved / BANDWIDTH + macs / FLOAT32)


class TensorPlan(RowsPlan):
    """A plan for float32 arrays on a GPU: filters slide along attributes, or channels are summed, by tensor cores."""

    def __init__(
        self, arrangement: Arrangement, transform: Transform[Array], products: TapProducts[Array], tuning: Tuning
    ) -> None:
        super().__init__(arrangement, transform, products, tuning)
        kernels = kernels_of(arrangement)
        assert kernels is not None
        self.kernels = kernels

    @classmethod
    def supports(cls, a: Arrangement, transform: Transform[Array], tuning: Tuning, limits: DeviceLimits) -> bool:
        """Whether tensor cores take less time by count than `CudaPlan`, on a device with these limits."""
        kernels = kernels_of(a)
        if kernels is None or not kernels.fits(limits):
            return False
        if isinstance(kernels, Summed):
            costs, others = tuning.other_costs, a.taps.count * a.taps.results * a.channels * a.out
            return kernels.units(limits)["slid_mac"] * SLOWER * costs.slid_mac < others * costs.mac
        assert isinstance(transform, MatrixDFT)
        return kernels.multiply_adds() / MULTIPLY_ADDS < seconds_by_spectra(a, transform)

    @classmethod
    def units_on_tensor_cores(cls, choice: Any, units: Units, limits: DeviceLimits) -> Units:
        """Units of products by tensor cores, and where filters slide, of reading samples for each tap of space.

        The first read of a sample comes from memory and counts as half a copy; other taps read from the L2 cache.
        """
        a, t, kernels = choice.arrangement, choice.arrangement.taps, kernels_of(choice.arrangement)
        if isinstance(kernels, Summed):
            return kernels.units(limits)
        assert kernels is not None
        moved = 1.5 * (a.x_rows * t.samples + a.y_rows * a.out * t.results)
        moved += FROM_L2 * t.count * t.results * (2 * a.x_rows + a.y_rows * a.out)
        return {"plan": 1, "slid_mac": 3 * kernels.multiply_adds(), "copy": moved}

    def forward(self, xp: Any, x: Array, w: Array, bias: Array | None = None) -> Array:
        """Convolve x with w; with a bias, the ELU of the sum."""
        per_row = None if bias is None else self._bias_of_rows(xp, bias)
        result = self.from_plan(xp, self._rows(xp, x, w, per_row), self.y_order, self.problem.y_shape)
        return result if bias is None or per_row is not None else elementwise.elu(xp, result, bias)

    def forward_and_parts(self, xp: Any, x: Array, w: Array) -> tuple[Array, Array | None]:
        """Return x convolved with w, and parts of its moments where filters slide (`Implicit.forward`), else None."""
        if isinstance(self.kernels, Summed):
            return self.forward(xp, x, w), None
        shape = self.y_rows * self.out, -(-math.prod(self.taps.out_lengths) * self.taps.batch // PART_SIZE), 2
        parts = xp.empty(shape, dtype=xp.float64, **placement(xp, x))
        y = self._rows(xp, x, w, None, parts=parts)
        return self.from_plan(xp, y, self.y_order, self.problem.y_shape), parts

    def forward_and_marginal(self, xp: Any, x: Array, w: Array, bias: Array, axis: int) -> tuple[Array, Array]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis.

        A warp adds up an axis of which it has all results, if the bias is the same at all positions.
        """
        per_row = self._bias_of_rows(xp, bias)
        if per_row is None or not self.kernels.makes_marginal(axis):
            y = self.forward(xp, x, w, bias)
            return y, sum_over(xp, y, (axis,))
        positions = math.prod(self.taps.out_lengths) * self.taps.batch
        total = empty(xp, (self.y_rows * self.out // self.problem.y_shape[axis], positions), x)
        return self._with_marginal(xp, self._rows(xp, x, w, per_row, total), total, axis)

    def adjoints(
        self, xp: Any, g: Array, x: Array | None, w: Array | None, ans: Array | None = None
    ) -> tuple[Array | None, Array | None, Array | None]:
        """Cotangents of x, if w is given, and of w, if x is; with `ans`, also that of the ELU's argument."""
        sums = x_cotangent = w_cotangent = None
        if ans is None:
            rows = self._result_rows(xp, g)
        else:
            rows, parts = self._extend(xp, self._result_rows(xp, g, spread=True), None, self._result_rows(xp, ans))
            assert parts is not None
            sums = self.like_result(xp, parts)
        if w is not None:
            shape = self.x_rows * self.channels, math.prod(self.taps.lengths) * self.taps.batch
            cotangent = empty(xp, shape, g)
            if not self.kernels.complete:
                cotangent[...] = 0
            self.kernels.back(rows, self._filters(xp, w), cotangent)
            x_cotangent = self.from_plan(xp, cotangent, self.x_order, self.problem.x_shape)
        if x is not None:
            by_taps = self.kernels.filters(xp, rows, self._sample_rows(xp, x))
            w_cotangent = owned(self.from_plan(xp, by_taps, self.w_order, self.problem.w_shape))
        return x_cotangent, w_cotangent, sums

    def _rows(
        self, xp: Any, x: Array, w: Array, bias: Array | None, total: Array | None = None, parts: Array | None = None
    ) -> Array:
        """Return the rows of the result; with a bias (rows, out), of its ELU. Write its sums to `total`, if given."""
        y = empty(xp, (self.y_rows * self.out, math.prod(self.taps.out_lengths) * self.taps.batch), x)
        self.kernels.forward(self._sample_rows(xp, x), self._filters(xp, w), y, bias, total, parts)
        return y

    def _filters(self, xp: Any, w: Array) -> Array:
        """Order filters by taps of transformed axes, then of direct ones, (S, T, C, K), as `merge` or w has them."""
        by_taps = self._to_plan(xp, w, self.w_order, self.w_matrix)
        in_place = isinstance(self.kernels, Summed) and by_taps.strides[-1] == by_taps.itemsize
        return by_taps if in_place else xp.ascontiguousarray(by_taps)
