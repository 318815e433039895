"""Batch normalisation after the filters along attributes, one mean and one variance for each value of v_j, with rho.

Section 4.2 of arXiv:1703.04140 normalises between the factors of Eq. (8); the authors' code also after them. Statistics
are taken over everything but v_j, so translations along space and attributes move them nowhere: Proposition 3.1 holds.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from hcnn_core._backend import Array, array_namespace, compiled_kernels, require_real
from hcnn_core._memory import empty, is_one_run, offsets
from hcnn_core._parallel import MEMORY, parallel_for
from hcnn_core.pointwise import BLOCK, elu, elu_vjp

__all__ = ["normalize_elu", "normalize_elu_vjp"]

RUN = 16
"""Elements that lie side by side, and have one mean, variance and shift, which are worth a call of a kernel."""


def normalize_elu(
    y: Array, shift: Array, scale: Array, bias: Array, /, *, epsilon: float
) -> tuple[Array, Array, Array]:
    r"""Batch normalisation per value of the last axis, scale and bias, and the exponential linear unit of the result.

    .. math:: \rho\left(\gamma_k \frac{y + s - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + \beta_k\right)

    Mean and variance are those of y + s over all axes but the last one.

    Parameters
    ----------
    y : array, shape (..., K)
        float32 or float64, in any memory layout; fastest where the axes that `shift` does not vary along lie last.
    shift : array
        Added to y first; its shape broadcasts to y's.
    scale, bias : array, shape (K,)
        Learned gamma and beta; these and `shift` take the dtype of y.
    epsilon : float
        Added to the variance.

    Returns
    -------
    ans : array, shape (..., K)
        The result, in dtype and memory layout of y.
    mean, variance : array, shape (K,)
        Of y + s; the variance is divided by the number of elements.

    Raises
    ------
    TypeError
        If a dtype is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If y has no element, or shapes do not fit.

    Notes
    -----
    With moments that are given, such as running ones, it is an affine map and `elu`, which folds into the filters
    before it. Only y, not the result, is needed by `normalize_elu_vjp`.
    """
    ans, mean, variance, _ = normalized_and_moments(y, shift, scale, bias, epsilon=epsilon)
    return ans, mean, variance


def normalize_elu_vjp(
    g: Array,
    g_mean: Array,
    g_variance: Array,
    y: Array,
    shift: Array,
    scale: Array,
    bias: Array,
    moments: Array,
    /,
    *,
    epsilon: float,
) -> tuple[Array, Array, Array, Array]:
    """Cotangents of y, shift, scale and bias in ``normalize_elu(y, shift, scale, bias, epsilon=epsilon)``.

    Parameters
    ----------
    g, g_mean, g_variance : array
        Cotangents of the three results, in their shapes and the dtype of y.
    y, shift, scale, bias
        The arguments.
    moments : array, shape (2, K)
        The mean and the variance found; those in double precision are more exact where the mean is large.
    epsilon : float
        The argument.

    Returns
    -------
    tuple of array
        In the shapes of y, shift, scale and bias.

    Raises
    ------
    TypeError
        If a dtype is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If shapes do not fit.
    """
    xp, y, shift, scale, bias = _arguments(y, shift, scale, bias)
    g = xp.astype(require_real(xp, "g", g), y.dtype, copy=False)
    if g.shape != y.shape:
        raise ValueError(f"g has shape {g.shape}; the result has {y.shape}")
    count = y.size // y.shape[-1]
    mean, variance = moments[0], moments[1]
    inverse = 1 / xp.sqrt(variance + epsilon)
    if (runs := _runs(xp, shift, y, g)) is not None:
        return _compiled_vjp(runs, g, g_mean, g_variance, y, shift, scale, bias, mean, inverse)
    axes = tuple(range(y.ndim - 1))
    inverse, mean = (xp.astype(a, y.dtype, copy=False) for a in (inverse, mean))
    deviation = y + shift - mean
    normal = deviation * inverse
    of_c = elu_vjp(g, elu(normal * scale + bias))
    of_bias, of_scale = (
        xp.astype(xp.sum(a, axis=axes, dtype=xp.float64), y.dtype, copy=False) for a in (of_c, of_c * normal)
    )
    slope = scale * inverse
    of_y = slope * (of_c - of_bias / count - normal * (of_scale / count))
    of_y = of_y + (g_mean + 2 * deviation * g_variance) / count
    return of_y, _summed_to(xp, of_y, shift.shape), of_scale, of_bias


def normalized_and_moments(
    y: Array, shift: Array, scale: Array, bias: Array, *, epsilon: float
) -> tuple[Array, Array, Array, Array]:
    """`normalize_elu`, and mean and variance in one array (2, K), in double precision."""
    xp, y, shift, scale, bias = _arguments(y, shift, scale, bias)
    if not math.isfinite(epsilon) or epsilon < 0:
        raise ValueError(f"epsilon is {epsilon}; it must be finite and at least 0")
    if (runs := _runs(xp, shift, y)) is not None:
        return _compiled_forward(runs, y, shift, scale, bias, epsilon)
    axes, count = tuple(range(y.ndim - 1)), y.size // y.shape[-1]
    z = y + shift
    exact = xp.sum(z, axis=axes, dtype=xp.float64) / count
    mean = xp.astype(exact, y.dtype)
    deviation = z - mean
    exact_variance = xp.sum(deviation * deviation, axis=axes, dtype=xp.float64) / count
    variance = xp.astype(exact_variance, y.dtype)
    ans = elu(deviation * (scale / xp.sqrt(variance + epsilon)) + bias)
    return ans, mean, variance, xp.stack([exact, exact_variance])


def _arguments(y: Array, shift: Array, scale: Array, bias: Array) -> tuple[Any, Array, Array, Array, Array]:
    xp = array_namespace(y, shift, scale, bias)
    y = require_real(xp, "y", y)
    if y.ndim == 0 or not y.size:
        raise ValueError(f"y has shape {y.shape}; mean and variance need an element, and a last axis")
    shift, scale, bias = (
        xp.astype(require_real(xp, name, array), y.dtype, copy=False)
        for name, array in (("shift", shift), ("scale", scale), ("bias", bias))
    )
    for name, array in (("scale", scale), ("bias", bias)):
        if array.shape != y.shape[-1:]:
            raise ValueError(f"{name} has shape {array.shape}; y, of shape {y.shape}, wants {y.shape[-1:]}")
    if shift.ndim > y.ndim or any(n not in (1, m) for n, m in zip(shift.shape[::-1], y.shape[::-1], strict=False)):
        raise ValueError(f"shift has shape {shift.shape}, which does not broadcast to {y.shape}")
    return xp, y, shift, scale, bias


class _Runs(NamedTuple):
    """How large arrays lie: runs of elements side by side, with one shift each and one value of the last axis."""

    kernels: Any
    order: tuple[int, ...]
    """Axes from the farthest apart to the nearest."""
    cut: int
    """How many of these tell runs apart."""
    length: int
    index: Array
    """The last axis's index of each run."""

    def addresses(self, array: Array) -> Array:
        array = array.transpose(self.order)
        return array.ctypes.data + offsets(array.shape[: self.cut], array.strides[: self.cut])

    def shifts(self, shift: Array, shape: tuple[int, ...]) -> Array:
        """The shift of each run, in double precision."""
        shift = np.broadcast_to(shift, shape).transpose(self.order)
        first = shift[(..., *(0,) * (shift.ndim - self.cut))]
        return np.asarray(first, np.float64).reshape(-1)

    @property
    def pieces(self) -> int:
        return len(self.index) * self.per_run

    @property
    def per_run(self) -> int:
        block: int = self.kernels.BLOCK
        return -(-self.length // block)

    def sum_by_index(self, values: Array, count: int) -> Array:
        return np.asarray(np.bincount(self.index, values, count))


def _runs(xp: Any, shift: Array, y: Array, *others: Array) -> _Runs | None:
    """How kernels may go through arrays of one shape; None where they may not, or would gain nothing."""
    if y.size < BLOCK or not compiled_kernels(xp) or not all(a.dtype.isnative for a in (y, *others)):
        return None
    from hcnn_core import _normalization_kernels as kernels

    order = tuple(sorted(range(y.ndim), key=lambda axis: -abs(y.strides[axis])))
    varying = [y.ndim - 1, *(y.ndim - 1 - a for a, n in enumerate(shift.shape[::-1]) if n > 1)]
    cut = 1 + max(order.index(axis) for axis in varying)
    arrays = [a.transpose(order) for a in (y, *others)]
    cut = next(c for c in range(cut, y.ndim + 1) if all(is_one_run(a, c) for a in arrays))
    length = math.prod(arrays[0].shape[cut:])
    if length < RUN:
        return None
    outer = arrays[0].shape[:cut]
    along = [1] * cut
    along[order.index(y.ndim - 1)] = y.shape[-1]
    index = np.broadcast_to(np.arange(y.shape[-1]).reshape(along), outer).reshape(-1)
    return _Runs(kernels, order, cut, length, index)


def _like(runs: _Runs, y: Array) -> Array:
    """An array for results, whose axes lie in y's order."""
    out = empty(tuple(y.shape[a] for a in runs.order), y.dtype)
    return out.transpose(np.argsort(runs.order))


def _compiled_forward(
    runs: _Runs, y: Array, shift: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, Array, Array, Array]:
    kernels, rows = runs.kernels, scale.size
    addresses, out = runs.addresses(y), _like(runs, y)
    found = np.empty((runs.pieces, 2))
    parallel_for(
        lambda first, last: kernels.moments(y, found, first, last, runs.length, addresses), runs.pieces, MEMORY * y.size
    )
    count = y.size // rows
    lengths = np.full(runs.per_run, kernels.BLOCK)
    lengths[-1] = runs.length - (runs.per_run - 1) * kernels.BLOCK
    lengths = np.tile(lengths, runs.index.size)
    pieces = runs._replace(index=np.repeat(runs.index, runs.per_run))
    shifts = runs.shifts(shift, y.shape)
    means = found[:, 0] + np.repeat(shifts, runs.per_run)
    mean = pieces.sum_by_index(means * lengths, rows) / count
    # Chan's formula: squares within pieces, and of the pieces' means
    squares = found[:, 1] + lengths * (means - mean[pieces.index]) ** 2
    variance = pieces.sum_by_index(squares, rows) / count
    numbers, _ = _numbers(runs, y, shifts, scale, bias, mean, 1 / np.sqrt(variance + epsilon))
    to = runs.addresses(out)
    parallel_for(
        lambda first, last: kernels.normalize(y, first, last, runs.length, to, addresses, numbers),
        runs.pieces,
        MEMORY * y.size,
    )
    return out, mean.astype(y.dtype), variance.astype(y.dtype), np.stack([mean, variance])


def _numbers(
    runs: _Runs, y: Array, shifts: Array, scale: Array, bias: Array, mean: Array, inverse: Array
) -> tuple[Array, Array]:
    """Center, slope and bias of each run, and what rounding of the center leaves, which the bias makes up for."""
    exact = mean[runs.index] - shifts
    center = exact.astype(y.dtype)
    left = exact - center
    slope = (scale * inverse)[runs.index]
    return np.stack([center, slope, bias[runs.index] - slope * left], axis=1).astype(y.dtype), left


def _compiled_vjp(
    runs: _Runs,
    g: Array,
    g_mean: Array,
    g_variance: Array,
    y: Array,
    shift: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    inverse: Array,
) -> tuple[Array, Array, Array, Array]:
    kernels, rows, n = runs.kernels, scale.size, runs.length
    x, of = runs.addresses(y), runs.addresses(g)
    mean, inverse, scale = (np.asarray(a, np.float64) for a in (mean, inverse, scale))
    numbers, left = _numbers(runs, y, runs.shifts(shift, y.shape), scale, bias, mean, inverse)
    found = np.empty((runs.pieces, 3))
    parallel_for(
        lambda first, last: kernels.cotangents(y, found, first, last, n, x, of, numbers), runs.pieces, MEMORY * y.size
    )
    sums, products, deviations = found.reshape(-1, runs.per_run, 3).sum(axis=1).T  # of each run
    products, deviations = products - left * sums, deviations - left * n
    of_bias, of_scale = runs.sum_by_index(sums, rows), inverse * runs.sum_by_index(products, rows)
    count = y.size // rows
    slope = scale * inverse
    constant = ((g_mean - slope * of_bias) / count)[runs.index]
    tilt = ((2 * g_variance - slope * inverse * of_scale) / count)[runs.index]
    numbers = np.column_stack([numbers, constant - tilt * left, tilt]).astype(y.dtype)
    out = _like(runs, y)
    to = runs.addresses(out)
    parallel_for(
        lambda first, last: kernels.adjoint(y, first, last, n, to, x, of, numbers), runs.pieces, MEMORY * y.size
    )
    # what the shift of a run receives is the sum of what its elements do
    of_shifts = slope[runs.index] * sums + n * constant + tilt * deviations
    shape = tuple(y.shape[a] if i < runs.cut else 1 for i, a in enumerate(runs.order))
    of_shift = _summed_to(np, of_shifts.reshape(shape).transpose(np.argsort(runs.order)), shift.shape)
    return out, *(a.astype(y.dtype) for a in (of_shift, of_scale, of_bias))


def _summed_to(xp: Any, g: Array, shape: tuple[int, ...]) -> Array:
    """A cotangent summed over the axes along which an argument of this shape was broadcast."""
    extra = g.ndim - len(shape)
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i] > 1))
    return xp.reshape(xp.sum(g, axis=axes, dtype=g.dtype) if axes else g, shape)
