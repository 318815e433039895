"""Batch normalisation with one mean and variance per value of the last axis, alone or with rho after it.

Section 4.2 of arXiv:1703.04140 normalises between the factors of Eq. (8); the authors' code also normalises after them.
Statistics are taken over all axes but v_j. Translations along space and attributes do not change them, so
Proposition 3.1 still holds.
"""

from __future__ import annotations

import math
from typing import Any

from hcnn_core._engines.dispatch import engine
from hcnn_core._problem import normalize_axes
from hcnn_core.backend import array_namespace, require_real
from hcnn_core.shards import Shard
from hcnn_core.typing import AnyArray, Array

__all__ = ["batch_normalize", "batch_normalize_vjp", "normalize_elu", "normalize_elu_marginal", "normalize_elu_vjp"]


def normalize_elu(
    y: AnyArray, shift: Array, scale: Array, bias: Array, /, *, epsilon: float, shard: Shard | None = None
) -> tuple[AnyArray, Array, Array]:
    r"""Batch normalisation per value of the last axis, scale and bias, and the exponential linear unit of the result.

    .. math:: \rho\left(\gamma_k \frac{y + s - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + \beta_k\right)

    Mean and variance are those of y + s over all axes but the last one.

    Parameters
    ----------
    y : array, shape (..., K)
        float32 or float64, in any memory layout. It is fastest if the axes along which `shift` is constant are last in
        memory.
    shift : array
        Added to y first; its shape broadcasts to that of y.
    scale, bias : array, shape (K,)
        Learned gamma and beta. They and `shift` are converted to the dtype of y.
    epsilon : float
        Added to the variance.
    shard : Shard, optional
        The part of a batch that y is, where other processes have the rest: moments are those of the whole batch.

    Returns
    -------
    ans : array, shape (..., K)
        The result, in the dtype and memory layout of y.
    mean, variance : array, shape (K,)
        Mean and variance of y + s. The variance is divided by the number of elements.

    Raises
    ------
    TypeError
        If a dtype is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If y has no element, or shapes do not fit.

    Notes
    -----
    A mean far larger than the deviation costs digits, as it does y itself; the compiled kernels keep them.

    In evaluation, with running moments, this is an affine map and `elu`; the affine map can be merged into the filters
    before it. `normalize_elu_vjp` needs y but not the result.
    """
    ans, mean, variance, _ = normalized_and_moments(y, shift, scale, bias, epsilon=epsilon, shard=shard)
    return ans, mean, variance


def normalize_elu_vjp(
    g: Array, g_mean: Array, g_variance: Array, y: Array, shift: Array, scale: Array, bias: Array, moments: Array,
    /, *, epsilon: float, shard: Shard | None = None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Return the cotangents of y, shift, scale and bias in ``normalize_elu(y, shift, scale, bias, epsilon=epsilon)``.

    g, g_mean and g_variance are the cotangents of the three results, in their shapes. `moments`, of shape (2, K), are
    the mean and the variance, in double precision if the mean may be large. With a shard the cotangents are those of
    the sum of the losses of all processes; `shift`, `scale` and `bias` get the share that comes from this process's
    loss and shard. All else, and errors, as in `normalize_elu`.
    """
    return _adjoint(g, g_mean, g_variance, y, shift, scale, bias, moments, epsilon, shard, "elu")[:4]


def normalized_and_moments(
    y: AnyArray, shift: Array, scale: Array, bias: Array, *, epsilon: float, shard: Shard | None = None,
    parts: Array | None = None,
) -> tuple[AnyArray, Array, Array, Array]:  # fmt: skip
    """Return the results of `normalize_elu`, and mean and variance in one array (2, K) in double precision.

    `parts` of y's moments are as `convolve_and_parts` returns them with y.
    """
    return _forward(y, shift, scale, bias, epsilon, shard, "elu", parts=parts)


def normalize_elu_marginal(
    y: Array, shift: Array, scale: Array, bias: Array, /, axis: int, *, epsilon: float, shard: Shard | None = None
) -> tuple[Array, Array, Array]:
    """Sum `normalize_elu` over an axis of y, on a GPU without the array that is summed.

    The sum is the marginal of Eq. (6). The first result is ``marginal(normalize_elu(y, shift, scale, bias,
    epsilon=epsilon)[0], axis)``. ValueError if y has no such axis, or it is the last one. All else as in
    `normalize_elu`; the cotangents are its own, from the cotangent of a marginal.
    """
    return normalized_marginal_and_moments(y, shift, scale, bias, axis, epsilon=epsilon, shard=shard)[:3]


def normalized_marginal_and_moments(
    y: Array, shift: Array, scale: Array, bias: Array, axis: int, *, epsilon: float, shard: Shard | None = None,
    parts: Array | None = None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Return the results of `normalize_elu_marginal`, and mean and variance as `normalized_and_moments` does."""
    y = _arguments(y, shift, scale, bias)[1]
    (axis,) = normalize_axes("axis", axis, y.ndim, 1)
    if axis == y.ndim - 1:
        raise ValueError(f"axis is the last one, {axis}, whose values are normalised one by one: take another")
    return _forward(y, shift, scale, bias, epsilon, shard, "elu", axis=axis, parts=parts)


def batch_normalize(
    y: AnyArray, scale: Array, bias: Array, /, *, epsilon: float, shard: Shard | None = None
) -> tuple[AnyArray, Array, Array]:
    r"""Batch normalisation per value of the last axis (arXiv:1502.03167), with a learned scale and bias.

    .. math:: \gamma_k \frac{y - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + \beta_k

    Mean and variance are those of y over all axes but the last one. All else as in `normalize_elu`, without a shift.

    Notes
    -----
    In evaluation, with running moments, this is ``(y - mean) * (scale / sqrt(variance + epsilon)) + bias``. PyTorch's
    running variance is divided by the number of elements less one, this one is not.
    """
    ans, mean, variance, _ = batch_normalized_and_moments(y, scale, bias, epsilon=epsilon, shard=shard)
    return ans, mean, variance


def batch_normalize_vjp(
    g: Array, g_mean: Array, g_variance: Array, y: Array, scale: Array, bias: Array, moments: Array,
    /, *, epsilon: float, shard: Shard | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return the cotangents of y, scale and bias in ``batch_normalize(y, scale, bias, epsilon=epsilon)``.

    As `normalize_elu_vjp`, without a shift.
    """
    of_y, _, of_scale, of_bias, _ = _adjoint(g, g_mean, g_variance, y, None, scale, bias, moments, epsilon, shard, "")
    return of_y, of_scale, of_bias


def batch_normalized_and_moments(
    y: AnyArray, scale: Array, bias: Array, *, epsilon: float, shard: Shard | None = None
) -> tuple[AnyArray, Array, Array, Array]:
    """Return the results of `batch_normalize`, and mean and variance in one array (2, K) in double precision."""
    return _forward(y, None, scale, bias, epsilon, shard, "")


def rectified_and_moments(
    y: Array, scale: Array, bias: Array, skipping: Array | None = None, *, epsilon: float, shard: Shard | None = None
) -> tuple[Array, Array, Array, Array]:
    """Return `relu` of the normalised y, to which `skipping`, an array like y, is added first, and the moments."""
    return _forward(y, None, scale, bias, epsilon, shard, "relu", skipping=skipping)


def rectified_vjp(
    g: Array, g_mean: Array, g_variance: Array, y: Array, scale: Array, bias: Array, *others: Array, ans: Array,
    epsilon: float, shard: Shard | None = None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """Return the cotangents of y, scale, bias and `skipping`; `ans` is the result, the moments are the last operand."""
    of_y, _, *more = _adjoint(g, g_mean, g_variance, y, None, scale, bias, others[-1], epsilon, shard, "relu", ans)
    return of_y, more[0], more[1], more[2]


def _forward(
    y: Array, shift: Array | None, scale: Array, bias: Array, epsilon: float, shard: Shard | None, rho: str, *,
    skipping: Array | None = None, axis: int | None = None, parts: Array | None = None,
) -> Any:  # fmt: skip
    xp, y, shift, scale, bias = _arguments(y, shift, scale, bias)
    normal = engine("normalization", y, shift)
    return normal.forward(xp, y, shift, scale, bias, require_epsilon(epsilon), shard, rho, skipping, axis, parts)


def _adjoint(
    g: Array, g_mean: Array, g_variance: Array, y: Array, shift: Array | None, scale: Array, bias: Array,
    moments: Array, epsilon: float, shard: Shard | None, rho: str, ans: Array | None = None,
) -> Any:  # fmt: skip
    xp, y, shift, scale, bias = _arguments(y, shift, scale, bias)
    g = xp.astype(require_real(xp, "g", g), y.dtype, copy=False)
    if g.shape != y.shape:
        raise ValueError(f"g has shape {g.shape}; the result has {y.shape}")
    epsilon = require_epsilon(epsilon)
    g_mean, g_variance = (
        xp.astype(_per_value(xp, name, array, y), y.dtype, copy=False)
        for name, array in (("g_mean", g_mean), ("g_variance", g_variance))
    )
    moments = _per_value(xp, "moments", moments, y, 2)
    return engine("normalization", y, shift).vjp(
        xp, g, g_mean, g_variance, y, shift, scale, bias, (moments, ans), epsilon, shard, rho
    )


def require_epsilon(epsilon: float) -> float:
    """Return epsilon as Python's float, since NumPy's make float32 float64; ValueError unless finite and at least 0."""
    if not math.isfinite(epsilon) or epsilon < 0:
        raise ValueError(f"epsilon is {epsilon}; it must be finite and at least 0")
    return float(epsilon)


def _per_value(xp: Any, name: str, array: Array, y: Array, *rows: int) -> Array:
    """Return a real array; ValueError unless it holds a number, or `rows` of them, for each value of y's last axis."""
    array, shape = require_real(xp, name, array), (*rows, y.shape[-1])
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; y, of shape {y.shape}, wants {shape}")
    return array


def _arguments(
    y: Array, shift: Array | None, scale: Array, bias: Array
) -> tuple[Any, Array, Array | None, Array, Array]:
    xp = array_namespace(y, scale, bias) if shift is None else array_namespace(y, shift, scale, bias)
    y = require_real(xp, "y", y)
    if y.ndim == 0 or not math.prod(y.shape):
        raise ValueError(f"y has shape {y.shape}; mean and variance need an element, and a last axis")
    scale, bias = (
        xp.astype(_per_value(xp, name, array, y), y.dtype, copy=False)
        for name, array in (("scale", scale), ("bias", bias))
    )
    if shift is None:
        return xp, y, shift, scale, bias
    shift = xp.astype(require_real(xp, "shift", shift), y.dtype, copy=False)
    if shift.ndim > y.ndim or any(n not in (1, m) for n, m in zip(shift.shape[::-1], y.shape[::-1], strict=False)):
        raise ValueError(f"shift has shape {shift.shape}, which does not broadcast to {y.shape}")
    return xp, y, shift, scale, bias
