"""Batch normalisation per value of the last axis, with ELU, ReLU or none, and its adjoint, in any namespace."""

from __future__ import annotations

from typing import Any

from hcnn_core._engines.generic.elementwise import add, elu, elu_vjp, marginal, relu, relu_vjp
from hcnn_core.backend import AnyArray, Array, array_namespace, wide_dtype
from hcnn_core.shards import Shard

Results = tuple[Array, Array, Array, Array]
Adjoints = tuple[Array, Array | None, Array, Array, Array | None]


def forward(
    xp: Any, y: Array, shift: Array | None, scale: Array, bias: Array, epsilon: float, shard: Shard | None, rho: str,
    skipping: Array | None = None, axis: int | None = None, parts: Array | None = None,
) -> Results:  # fmt: skip
    """Normalise y + shift; return mean (K,), variance (K,), and both in double precision (2, K).

    With `rho` "elu", take the ELU of the result, with "relu" the ReLU of the result plus `skipping`, if given. With an
    axis, the sum over it takes the place of the first result. Parts of moments are for a GPU's kernels.
    """
    axes, count = tuple(range(y.ndim - 1)), y.size // y.shape[-1]
    z = y if shift is None else y + shift
    exact = xp.sum(z, axis=axes, dtype=wide_dtype(xp, z)) / count  # (..., K) -> (K,)
    mean = xp.astype(exact, y.dtype)
    deviation = z - mean
    exact_variance = xp.sum(deviation * deviation, axis=axes, dtype=exact.dtype) / count
    if shard is not None:
        exact, exact_variance = pooled(shard, exact, exact_variance)
        mean = xp.astype(exact, y.dtype)
        deviation = z - mean
    variance = xp.astype(exact_variance, y.dtype)
    ans = deviation * (scale / xp.sqrt(variance + epsilon)) + bias
    ans = elu(xp, ans) if rho == "elu" else rectified(xp, ans, skipping) if rho else ans
    total = ans if axis is None else marginal(xp, ans, (axis,), "sum")
    return total, mean, variance, xp.stack([exact, exact_variance])


def rectified(xp: Any, ans: Array, skipping: Array | None) -> Array:
    """Return the ReLU of an array, plus `skipping` if given."""
    return relu(xp, ans if skipping is None else add(ans, skipping))


def vjp(
    xp: Any, g: Array, g_mean: Array, g_variance: Array, y: Array, shift: Array | None, scale: Array, bias: Array,
    memory: tuple[Array, Array | None], epsilon: float, shard: Shard | None, rho: str,
) -> Adjoints:  # fmt: skip
    """Cotangents of y, shift, scale, bias and `skipping`, from those of the three results.

    `memory` is the last result of `forward`, and with a ReLU also the first.
    """
    moments, ans = memory
    g = g if ans is None else relu_vjp(xp, g, ans)
    count = y.size // y.shape[-1]
    mean, inverse = moments[0, :], 1 / xp.sqrt(moments[1, :] + epsilon)
    axes = tuple(range(y.ndim - 1))
    inverse, mean = (xp.astype(a, y.dtype, copy=False) for a in (inverse, mean))
    deviation = (y if shift is None else y + shift) - mean
    normal = deviation * inverse
    of_c = elu_vjp(xp, g, elu(xp, normal * scale + bias)) if rho == "elu" else g
    of_bias, of_scale = (
        xp.astype(xp.sum(a, axis=axes, dtype=wide_dtype(xp, y)), y.dtype, copy=False) for a in (of_c, of_c * normal)
    )
    slope = scale * inverse
    every_bias, every_scale = of_bias, of_scale  # those of the whole batch
    if shard is not None:
        every = xp.astype(shard.share * shard.sum(of_bias, of_scale, g_mean, g_variance), y.dtype)
        every_bias, every_scale, g_mean, g_variance = (every[i, :] for i in range(4))
    of_y = slope * (of_c - every_bias / count - normal * (every_scale / count))
    of_y = of_y + (g_mean + 2 * deviation * g_variance) / count
    return of_y, None if shift is None else summed_to(xp, of_y, shift.shape), of_scale, of_bias, of_c


def pooled(shard: Shard, mean: AnyArray, variance: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Mean and variance (K,) of the whole batch, from those of a shard."""
    xp = array_namespace(mean)
    means = shard.mean(mean, mean * mean, variance)
    between = means[1, :] - means[0, :] ** 2  # of the shards' means; rounding may leave less than nothing
    return means[0, :], means[2, :] + xp.where(between > 0, between, xp.zeros_like(between))


def summed_to(xp: Any, g: Array, shape: tuple[int, ...]) -> Array:
    """Return a cotangent summed over the axes along which an argument of this shape was broadcast."""
    axes = stretched(g.shape, shape)
    return xp.reshape(xp.sum(g, axis=axes, dtype=g.dtype) if axes else g, shape)


def stretched(broad: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of a shape along which an array of another one was broadcast, those of more than one element."""
    extra = len(broad) - len(shape)
    return tuple(a for a, n in enumerate(broad) if n > 1 and (a < extra or shape[a - extra] == 1))
