"""A convolution as three linear maps, on the arrays of any library.

All arrays are brought into one order of axes, transformed axes first and the batch last. There the operator is

    x -> spectrum -> (for each folded frequency: filter matrix @ taps) -> y

Its adjoints are the transposes of the three maps in reverse order. With no transformed axis this is a direct
convolution by matrix products; with all axes transformed it is the FFT method. The network's layers convolve space
directly and transform attributes.

Names in shape comments: F folded frequencies, A aliases, P planes, T direct taps, C channels, K filters. Without
transformed axes, F counts elements of the outer batch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Generic

from hcnn_core._engines.arrangement import Arrangement
from hcnn_core._engines.generic import elementwise
from hcnn_core._engines.taps import Matrices, TapProducts
from hcnn_core._engines.transform import Transform
from hcnn_core._tuning import Tuning, Units
from hcnn_core.backend import AnyArray, DeviceLimits, permute_dims, reshape


class Plan(Generic[AnyArray]):
    """A convolution and its two adjoints for one set of shapes, options and methods.

    Without transformed axes there is one frequency. Then elements of the outer batch take the place of frequencies:
    each is convolved where it lies in memory, and all have the same filter matrix.
    """

    pointwise: Any = elementwise
    """Module with `elu` and `elu_vjp` for the arrays of this plan."""

    def __init__(
        self, arrangement: Arrangement, transform: Transform[AnyArray], products: TapProducts[AnyArray], tuning: Tuning
    ) -> None:
        self.arrangement, self.transform, self.products, self.tuning = arrangement, transform, products, tuning
        self.problem = arrangement.problem
        self.outer, self.batch = arrangement.outer_size, arrangement.batch
        self.channels, self.out = arrangement.channels, arrangement.out
        self.x_order, self.y_order, self.w_order = arrangement.x_order, arrangement.y_order, arrangement.w_order
        self.x_rows, self.y_rows = arrangement.x_rows, arrangement.y_rows
        self.outside, self.within = len(arrangement.outer), len(arrangement.last_axes)
        self.w_matrix = (-1, products.taps.count, self.channels, self.out)

    @staticmethod
    def units_of_products(products: TapProducts[Any], matrices: Matrices) -> Units:
        """Units of work of a plan's products. Plans with kernels of their own override it."""
        return products.units(matrices)

    @classmethod
    def units_on_tensor_cores(cls, choice: Any, units: Units, limits: DeviceLimits) -> Units:
        """Return a choice's units on a device whose tensor cores may make products; here they make none."""
        return units

    def forward(self, xp: Any, x: AnyArray, w: AnyArray, bias: AnyArray | None = None) -> AnyArray:
        """Convolve x with w; if a bias is given, return the ELU of the convolution plus the bias."""
        filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
        # (F, P K, T A P C) applied to (F, A P C, *direct axes, batch) -> (F, P K, *direct results, batch)
        spectrum = self.products.apply(xp, self._analyze(xp, x), filters)
        y = self.transform.synthesize(xp, spectrum)  # (results of the transformed axes, rest)
        y = self.from_plan(xp, y, self.y_order, self.problem.y_shape)
        return y if bias is None else self.pointwise.elu(xp, y, bias)

    def forward_and_marginal(
        self, xp: Any, x: AnyArray, w: AnyArray, bias: AnyArray, axis: int
    ) -> tuple[AnyArray, AnyArray]:
        """Return the ELU of x convolved with w plus a bias, and its sum over an axis."""
        y = self.forward(xp, x, w, bias)
        return y, elementwise.marginal(xp, y, (axis,), "sum")

    def adjoints(
        self, xp: Any, g: AnyArray, x: AnyArray | None, w: AnyArray | None, ans: AnyArray | None = None
    ) -> tuple[AnyArray | None, AnyArray | None, AnyArray | None]:
        """Cotangents of x, if w is given, and of w, if x is given, for the cotangent g of the result.

        If `ans` is given, it is the result of an ELU after the convolution, and g its cotangent. The third array is
        then the cotangent of the ELU's argument, possibly summed already over some axes, which have length 1.
        """
        if ans is not None:
            g = self.pointwise.elu_vjp(xp, g, ans)
        taps = self.products.taps
        cotangent = self.transform.synthesize_transpose(xp, self._to_plan(xp, g, self.y_order, (self.y_rows, -1)))
        # (F, P, K * direct results * batch) -> (F, P K, *direct results, batch)
        cotangent = xp.reshape(cotangent, (self._count, -1, *taps.out_lengths, taps.batch))
        x_cotangent = w_cotangent = None
        if w is not None:
            filters = self.transform.kernel(xp, self._to_plan(xp, w, self.w_order, self.w_matrix))
            # (F, T A P C, P K) applied to (F, P K, *direct results, batch) -> (F, A P C, *direct axes, batch)
            spectrum = self.products.apply_transpose(xp, cotangent, filters)
            x_rows = self.transform.analyze_transpose(xp, spectrum)  # (samples of the transformed axes, rest)
            x_cotangent = self.from_plan(xp, x_rows, self.x_order, self.problem.x_shape)
        if x is not None:
            # (F, P K, positions) @ (F, positions, T A P C) -> (F, P K, T A P C)
            spectrum = self.products.correlate(xp, cotangent, self._analyze(xp, x))
            w_cotangent = self.filters_of(xp, spectrum)
        return x_cotangent, w_cotangent, None if ans is None else g

    def filters_of(self, xp: Any, spectrum: AnyArray) -> AnyArray:
        """Cotangent of w from the cotangents of all filter matrices: (frequencies, rows, taps * columns)."""
        if self.outer > 1:
            spectrum = xp.sum(spectrum, axis=0, keepdims=True)
        # (F, P K, T A P C) -> (taps of the transformed axes, T, C, K)
        w_rows = self.transform.kernel_transpose(xp, spectrum, self.w_matrix[1:])
        return self.from_plan(xp, w_rows, self.w_order, self.problem.w_shape)

    @property
    def _count(self) -> int:
        """Number of frequencies, or of outer batch elements in their place."""
        return self.transform.frequencies * self.outer

    def _analyze(self, xp: Any, x: AnyArray) -> AnyArray:
        """Spectrum of x, with the direct axes apart."""
        # (samples of the transformed axes, rest) -> (F, A P, rest) -> (F, A P C, *direct axes, batch)
        spectrum = self.transform.analyze(xp, self._to_plan(xp, x, self.x_order, (self.x_rows, -1)))
        return xp.reshape(spectrum, (self._count, -1, *self.products.taps.lengths, self.products.taps.batch))

    def per_row(self, xp: Any, bias: AnyArray) -> AnyArray | None:
        """Return the bias as (rows, out) if it is the same at all positions, else None."""
        y_shape = self.problem.y_shape
        bias = xp.permute_dims(xp.reshape(bias, (*(1,) * (len(y_shape) - bias.ndim), *bias.shape)), self.y_order)
        new = len(self.problem.out_shape)
        rows = len(self.y_order) - self.within - new - self.outside
        axes = (*range(rows), *range(rows + self.outside, rows + self.outside + new))
        if any(n > 1 for a, n in enumerate(bias.shape) if a not in axes):
            return None
        shape = tuple(y_shape[self.y_order[a]] for a in axes)
        bias = xp.broadcast_to(xp.reshape(bias, tuple(bias.shape[a] for a in axes)), shape)
        return xp.reshape(bias, (self.y_rows, self.out))

    def like_result(self, xp: Any, sums: AnyArray) -> AnyArray:
        """Return sums (rows, out) as an array with the axes of the result, of length 1 where they were summed."""
        back, shape = _way_back(self.y_order, self.problem.y_shape)
        ordered = xp.reshape(sums, (*shape[: len(shape) - self.within], *(1,) * self.within))
        return xp.permute_dims(ordered, back)

    @staticmethod
    def _to_plan(xp: Any, array: AnyArray, order: tuple[int, ...], shape: tuple[int, ...]) -> AnyArray:
        return reshape(xp, permute_dims(xp, array, order), shape)

    @staticmethod
    def from_plan(xp: Any, array: AnyArray, order: tuple[int, ...], shape: tuple[int, ...]) -> AnyArray:
        """Return a view in the caller's order of axes, of an array that lies in memory in the plan's order."""
        back, ordered = _way_back(order, shape)
        return permute_dims(xp, reshape(xp, array, ordered), back)


@lru_cache(maxsize=1024)
def _way_back(order: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the inverse of an order of axes, and a shape in that order."""
    return tuple(sorted(range(len(order)), key=order.__getitem__)), tuple(shape[a] for a in order)
