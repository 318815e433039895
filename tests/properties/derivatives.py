"""Functions of arrays and the derivatives they must have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special

import autodiff
import hcnn_core as hc
from autodiff.primitives import convolve_and_parts, patch_covariance, patch_filter
from hcnn_core.marginals import REDUCTIONS
from hcnn_core.pooling import make_windows
from tests.core.oracle import (
    NDArray,
    noise,
    wide,
    windows,
)

REAL = ("float32", "float64")


def largest(array: NDArray) -> float:
    return float(np.abs(array).max())


@dataclass(frozen=True)
class Case:
    """A function of arrays, which of them to differentiate by, and the derivative along a direction in plain NumPy."""

    fun: Callable[..., Any]
    operands: tuple[NDArray, ...]
    argnum: int
    along: Callable[[NDArray], NDArray] | None = None
    """None where the function is linear in this argument, and so its own derivative."""

    @property
    def x(self) -> NDArray:
        return self.operands[self.argnum]

    def at(self, x: Any) -> Any:
        return self.fun(*self.operands[: self.argnum], x, *self.operands[self.argnum + 1 :])

    def tangent(self, d: NDArray) -> NDArray:
        return np.asarray(self.at(d) if self.along is None else self.along(d), self.x.dtype)


def multilinear(name: str, fun: Callable[..., Any], *operands: NDArray) -> dict[str, Case]:
    return {f"{name}, argument {i}": Case(fun, operands, i) for i in range(len(operands))}


def convolutions(dtype: str, *boundary: str) -> dict[str, Case]:
    x, w = noise(0, (2, 5, 6, 3), dtype), noise(1, (3, 2, 3, 2), dtype)
    axes = (2, 1)
    options: dict[str, Any] = {"sum_axes": 3, "boundary": boundary, "stride": (1, 2)}
    g = noise(2, hc.convolve(x, w, axes, **options).shape, dtype)
    correlations = {
        **multilinear("correlate", lambda x, w: autodiff.correlate(x, w, axes, **options), x, w),
        **multilinear("correlate_vjp_x", lambda g, w: autodiff.correlate_vjp_x(g, x.shape, w, axes, **options), g, w),
        **multilinear("correlate_vjp_w", lambda g, x: autodiff.correlate_vjp_w(g, x, w.shape, axes, **options), g, x),
    }
    return {
        **correlations,
        **multilinear("convolve", lambda x, w: autodiff.convolve(x, w, axes, **options), x, w),
        **multilinear("convolve_and_parts", lambda x, w: convolve_and_parts(x, w, axes, **options)[0], x, w),
        **multilinear("convolve_vjp_x", lambda g, w: autodiff.convolve_vjp_x(g, x.shape, w, axes, **options), g, w),
        **multilinear("convolve_vjp_w", lambda g, x: autodiff.convolve_vjp_w(g, x, w.shape, axes, **options), g, x),
    }


def permutations_and_sums(dtype: str) -> dict[str, Case]:
    x, y = noise(0, (4, 3, 5), dtype), noise(1, (3,), dtype)
    found = {}
    for boundary in ("zero", "periodic"), ("reflect", "nearest"), ("mirror", "zero"):
        moved: dict[str, Any] = {"shift": (1, -2), "axes": (0, 2), "boundary": boundary}
        for name, function in ("translate", autodiff.translate), ("translate_vjp", autodiff.translate_vjp):
            found |= multilinear(
                f"{name}, {boundary}",
                lambda x, f=function, o=moved: f(x, o["shift"], o["axes"], boundary=o["boundary"]),
                x,
            )
    for reduction in REDUCTIONS:
        option = {"reduction": reduction}
        found |= multilinear(f"marginal, {reduction}", lambda x, o=option: autodiff.marginal(x, (0, 2), **o), x)
        found |= multilinear(
            f"marginal_vjp, {reduction}", lambda g, o=option: autodiff.marginal_vjp(g, (4, 3, 5), (0, 2), **o), y
        )
    return found


def biased_elu(x: Any, bias: Any) -> Any:
    return autodiff.elu(x, bias=bias)


def rectified(x: Any, bias: Any) -> Any:
    return autodiff.relu(x, bias=bias)


def rectifiers(dtype: str) -> dict[str, Case]:
    x, bias, g = noise(0, (4, 3, 5), dtype), noise(1, (3, 1), dtype), noise(2, (4, 3, 5), dtype)
    c = x + bias
    slope = np.where(c > 0, 1, np.exp(c))
    biased, cotangent = (x, bias), (g, hc.elu(c))
    return {
        "elu": Case(autodiff.elu, (c,), 0, lambda d: slope * d),
        "elu, argument 0": Case(biased_elu, biased, 0, lambda d: slope * d),
        "elu, argument 1": Case(biased_elu, biased, 1, lambda d: slope * d),
        "elu_vjp, argument 0": Case(autodiff.elu_vjp, cotangent, 0, lambda d: slope * d),
        "elu_vjp, argument 1": Case(autodiff.elu_vjp, cotangent, 1, lambda d: g * (c < 0) * d),
        "relu": Case(autodiff.relu, (c,), 0, lambda d: (c > 0) * d),
        "relu, argument 0": Case(rectified, biased, 0, lambda d: (c > 0) * d),
        "relu, argument 1": Case(rectified, biased, 1, lambda d: (c > 0) * d),
        "relu_vjp, argument 0": Case(autodiff.relu_vjp, (g, hc.relu(c)), 0, lambda d: (c > 0) * d),
    }


def layers(dtype: str) -> dict[str, Case]:
    x, w, bias = noise(0, (2, 5, 6, 3), dtype), noise(1, (3, 2, 3, 2), dtype), noise(2, (2,), dtype)
    axes = (2, 1)
    options: dict[str, Any] = {"sum_axes": 3, "boundary": ("periodic", "zero"), "stride": (1, 2)}
    c = hc.convolve(wide(x), wide(w), axes, **options) + bias
    slope = np.where(c > 0, 1, np.exp(c))
    along = (
        lambda d: slope * hc.convolve(d, w, axes, **options),
        lambda d: slope * hc.convolve(x, d, axes, **options),
        lambda d: slope * d,
    )
    fun = functools.partial(autodiff.convolve_elu, axes=axes, **options)

    def with_marginal(*operands: Any) -> Any:
        found = autodiff.convolve_elu_marginal(*operands, axes, 1, **options)
        return np.concatenate([np.reshape(part, (-1,)) for part in found])

    def and_its_marginal(d: NDArray) -> NDArray:
        return np.concatenate([d.ravel(), d.sum(1).ravel()])

    marginals = (lambda d, f=f: and_its_marginal(np.broadcast_to(f(d), c.shape)) for f in along)
    return {
        **{f"convolve_elu, argument {i}": Case(fun, (x, w, bias), i, f) for i, f in enumerate(along)},
        **{
            f"convolve_elu_marginal, argument {i}": Case(with_marginal, (x, w, bias), i, f)
            for i, f in enumerate(marginals)
        },
    }


def factored_layers(dtype: str) -> dict[str, Case]:
    x, h, shift = noise(0, (2, 4, 17, 6, 5), dtype), noise(1, (3, 2, 3), dtype), noise(2, (3,), dtype)
    g, bias = noise(3, (3, 3, 4, 2), dtype), noise(4, (2,), dtype)
    boundary, stride = ("periodic", "zero", "zero", "periodic"), (1, 1, 2, 1)
    first: dict[str, Any] = {"axes": (1, 2), "boundary": boundary[:2]}
    second: dict[str, Any] = {"axes": (3, 4), "boundary": boundary[2:], "stride": stride[2:], "sum_axes": 5}
    inner = hc.convolve(wide(x), wide(h), **first) + shift
    z = hc.elu(inner)
    outer = hc.convolve(z, wide(g), **second) + bias
    slopes = [np.where(c > 0, 1, np.exp(c)) for c in (inner, outer)]

    def through(d: NDArray) -> NDArray:
        return slopes[1] * hc.convolve(slopes[0] * d, g, **second)

    along = (
        lambda d: through(hc.convolve(d, h, **first)),
        lambda d: through(hc.convolve(x, d, **first)),
        lambda d: through(np.broadcast_to(d, inner.shape)),
        lambda d: slopes[1] * hc.convolve(z, d, **second),
        lambda d: slopes[1] * d,
    )
    fun = functools.partial(autodiff.factored_layer, h_axes=(1, 2), g_axes=(3, 4), boundary=boundary, stride=stride)
    return {f"factored_layer, argument {i}": Case(fun, (x, h, shift, g, bias), i, f) for i, f in enumerate(along)}


def patches(x: NDArray, boundary: str) -> NDArray:
    """The 3 x 3 patches of x, (positions, 9): a tap alone, convolved with x, is x translated."""
    taps = np.eye(9).reshape(3, 3, 9)
    return np.reshape(hc.convolve(wide(x), taps, (1, 2), boundary=boundary, method="direct"), (-1, 9))


def moments(dtype: str, boundary: str) -> dict[str, Case]:
    x, y = noise(0, (3, 4, 5, 2), dtype), noise(1, (3, 4, 5, 2), dtype)
    c, m = noise(2, (9,), dtype), noise(3, (9, 9), dtype)
    options: dict[str, Any] = {"axes": (1, 2), "kernel_size": 3, "boundary": boundary}
    centred = patches(x, boundary) - patches(x, boundary).mean(0)

    def both(x: Any) -> Any:
        mean, covariance = autodiff.patch_moments(x, **options)
        return np.concatenate([mean, np.reshape(covariance, (-1,))])

    def both_along(d: NDArray) -> NDArray:
        rows = patches(d, boundary)
        half = rows.T @ centred / len(rows)
        return np.concatenate([rows.mean(0), (half + half.T).ravel()])

    def filtered(c: Any, m: Any, x: Any) -> Any:
        return patch_filter(c, m, x, **options)

    return {
        f"patch_moments, {boundary}": Case(both, (x,), 0, both_along),
        **multilinear(f"patch_covariance, {boundary}", lambda x, y: patch_covariance(x, y, **options), x, y),
        f"patch_filter, {boundary}, argument 0": Case(filtered, (c, m, x), 0, lambda d: filtered(d, 0 * m, x)),
        f"patch_filter, {boundary}, argument 1": Case(filtered, (c, m, x), 1, lambda d: filtered(0 * c, d, x)),
        f"patch_filter, {boundary}, argument 2": Case(filtered, (c, m, x), 2, lambda d: filtered(0 * c, m, d)),
    }


def filters(dtype: str) -> dict[str, Case]:
    h, mean, root = noise(0, (4, 3, 3), dtype), noise(1, (9,), dtype), noise(2, (9, 9), dtype)
    covariance, epsilon = root @ root.T, 0.1
    taps, wide_mean = wide(h).reshape(4, 9), wide(mean)
    sigma = np.sqrt(np.sum(taps @ wide(covariance) * taps, 1) + epsilon)[:, None]

    def both(*operands: Any) -> Any:
        found, means = autodiff.primitives._normalized_filters(*operands, epsilon=epsilon)
        return np.concatenate([np.reshape(found, (-1,)), means])

    def along(of_taps: NDArray, of_variance: NDArray, of_mean: NDArray) -> NDArray:
        of_normal = of_taps / sigma - taps * of_variance[:, None] / (2 * sigma**3)
        return np.concatenate([of_normal.T.ravel(), of_normal @ wide_mean + taps / sigma @ of_mean])

    def along_h(d: NDArray) -> NDArray:
        d = d.reshape(4, 9)
        return along(d, np.sum((d @ covariance) * taps + (taps @ covariance) * d, 1), 0 * wide_mean)

    derivatives = (
        along_h,
        lambda d: along(0 * taps, np.zeros(4), d),
        lambda d: along(0 * taps, np.sum(taps @ d * taps, 1), 0 * wide_mean),
    )
    operands = h, mean, covariance
    return {f"normalize_filters, argument {i}": Case(both, operands, i, f) for i, f in enumerate(derivatives)}


def merged_factors(dtype: str) -> dict[str, Case]:
    normalised = filters(dtype)
    h, mean, covariance = normalised["normalize_filters, argument 0"].operands
    g, bias = noise(3, (4, 2, 3, 5), dtype), noise(4, (5,), dtype)
    options: dict[str, Any] = {"boundary": ("zero", "periodic"), "stride": (1, 2)}

    def written_out(normal_and_means: NDArray, g: NDArray) -> NDArray:
        """Filters and minus their shift, of the normalised h and their responses to the mean: linear in both."""
        normal, means = normal_and_means[:36].reshape(9, 4), normal_and_means[36:]
        flat = g.reshape(4, -1)
        shift = hc.convolve(np.ones((4, 6)), (means @ flat).reshape(g.shape[1:]), (0, 1), **options)
        return np.concatenate([(normal @ flat).ravel(), -shift.ravel()])

    def both(h: Any, g: Any, mean: Any, covariance: Any, bias: Any) -> Any:
        found = autodiff.primitives._merged_factors(
            h, g, mean, covariance, bias, lengths=(4, 6), epsilon=0.1, **options
        )
        return np.concatenate([np.reshape(part, (-1,)) for part in found])

    def along(argument: int) -> Callable[[NDArray], NDArray]:
        case = normalised[f"normalize_filters, argument {argument}"]
        return lambda d: written_out(case.tangent(d), wide(g))

    point = wide(normalised["normalize_filters, argument 0"].at(h))
    derivatives = (
        along(0),
        lambda d: written_out(point, d),
        along(1),
        along(2),
        lambda d: np.concatenate([np.zeros(9 * 30), np.broadcast_to(d, (4, 3, 5)).ravel()]),
    )
    operands = h, g, mean, covariance, bias
    return {f"merge_factors, argument {i}": Case(both, operands, i, f) for i, f in enumerate(derivatives)}


def normalizations(dtype: str) -> dict[str, Case]:
    y, shift = noise(0, (3, 4, 2, 5), dtype), noise(1, (2, 1), dtype)
    scale, bias = 1 + noise(2, (5,), dtype) ** 2, noise(3, (5,), dtype)
    epsilon, everywhere = 0.1, (0, 1, 2)
    centred = wide(y) + shift - (wide(y) + shift).mean(everywhere)
    inverse = 1 / np.sqrt(centred.var(everywhere) + epsilon)
    normal = centred * inverse
    c = scale * normal + bias
    slope = np.where(c > 0, 1, np.exp(c))

    def all_results(*operands: Any) -> Any:
        ans, mean, variance = autodiff.normalize_elu(*operands, epsilon=epsilon)
        return np.concatenate([np.reshape(ans, (-1,)), mean, variance])

    def along_y(d: NDArray) -> NDArray:
        d = np.broadcast_to(d, y.shape)
        mean, variance = d.mean(everywhere), 2 * (centred * d).mean(everywhere)
        of_normal = (d - mean) * inverse - normal * inverse**2 * variance / 2
        return np.concatenate([(slope * scale * of_normal).ravel(), mean, variance])

    def along_c(d: NDArray) -> NDArray:
        return np.concatenate([(slope * d).ravel(), np.zeros(10)])

    along = (along_y, along_y, lambda d: along_c(normal * d), along_c)

    def without_elu(y: Any, scale: Any, bias: Any) -> Any:
        ans, mean, variance = autodiff.batch_normalize(y, scale, bias, epsilon=epsilon)
        return np.concatenate([np.reshape(ans, (-1,)), mean, variance])

    def without_slope(along: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
        return lambda d: along(d) / np.concatenate([slope.ravel(), np.ones(10)])

    skipping = noise(4, y.shape, dtype)
    step = np.concatenate([(c + skipping > 0).ravel(), np.ones(10)])

    def rectified_results(*operands: Any) -> Any:
        ans, mean, variance, _ = autodiff.primitives.rectified_and_moments(*operands, epsilon=epsilon)
        return np.concatenate([np.reshape(ans, (-1,)), mean, variance])

    def rectified(along: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
        return lambda d: step * without_slope(along)(d)

    def marginal_results(*operands: Any) -> Any:
        total, mean, variance = autodiff.normalize_elu_marginal(*operands, 0, epsilon=epsilon)
        return np.concatenate([np.reshape(total, (-1,)), mean, variance])

    def summed(along: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
        def of_marginal(d: NDArray) -> NDArray:
            whole = along(d)
            return np.concatenate([whole[:-10].reshape(y.shape).sum(axis=0).ravel(), whole[-10:]])

        return of_marginal

    four, three = (y, shift, scale, bias), (y + shift, scale, bias)
    return {
        **{
            f"rectified_and_moments, argument {i}": Case(rectified_results, (*three, skipping), i, rectified(f))
            for i, f in enumerate((along_y, *along[2:], along_c))
        },
        **{
            f"normalize_elu_marginal, argument {i}": Case(marginal_results, four, i, summed(f))
            for i, f in enumerate(along)
        },
        **{f"normalize_elu, argument {i}": Case(all_results, four, i, f) for i, f in enumerate(along)},
        **{
            f"batch_normalize, argument {i}": Case(without_elu, three, i, without_slope(f))
            for i, f in enumerate(along[1:])
        },
    }


POOLED = (2, 1), (2, 3), (2, 1), (1, 0)
"""Axes, lengths of windows, strides and padding."""


def poolings(dtype: str) -> dict[str, Case]:
    x, mixed = noise(0, (3, 5, 6, 2), dtype), {"stride": POOLED[2], "padding": POOLED[3]}
    g = noise(1, autodiff.mean_pool(x, *POOLED[:2], **mixed).shape, dtype)
    linear = {
        **multilinear("mean_pool", lambda x: autodiff.mean_pool(x, *POOLED[:2], **mixed), x),
        **multilinear("mean_pool_vjp", lambda g: autodiff.mean_pool_vjp(g, x.shape, *POOLED[:2], **mixed), g),
    }
    if dtype not in REAL:
        return linear
    first = windows(x, *POOLED, -np.inf).argmax(-1)[..., None]
    ((axis, window),) = make_windows(x.shape, 1, 3, 2, 1)
    taps = windows(x, (1,), (3,), (2,), (1,), -np.inf).argmax(-1).astype(np.uint8)
    along = noise(3, taps.shape, dtype)
    return linear | {
        "maxima_and_taps": Case(
            lambda x: autodiff.max_pool(x, *POOLED[:2], **mixed),
            (x,),
            0,
            lambda d: np.take_along_axis(windows(d, *POOLED, 0), first, -1)[..., 0],
        ),
        "picked_samples": Case(lambda x, t: autodiff.primitives._picked_samples(x, t, axis, window), (x, taps), 0),
        "picked_samples_vjp": Case(
            lambda g, t: autodiff.primitives._picked_samples_vjp(g, t, axis, window), (along, taps), 0
        ),
    }


def losses(dtype: str) -> dict[str, Case]:
    x, labels = noise(0, (4, 5), dtype), np.array([4, 0, 2, 2])
    p = scipy.special.softmax(wide(x), axis=-1)
    target = 0.9 * np.eye(5)[labels] + 0.1 / 5
    loss = functools.partial(autodiff.cross_entropy, label_smoothing=0.1)
    return {
        "log_softmax": Case(autodiff.log_softmax, (x,), 0, lambda d: d - np.sum(p * d, axis=-1, keepdims=True)),
        "cross_entropy_and_gradient": Case(
            lambda x, labels: autodiff.primitives._cross_entropy_at_once(x, labels, 0.1)[0],
            (x, labels),
            0,
            lambda d: np.sum((p - target) * d) / len(labels),
        ),
        "cross_entropy": Case(loss, (x, labels), 0, lambda d: np.sum((p - target) * d) / len(labels)),
    }


@functools.cache
def cases(dtype: str) -> dict[str, Case]:
    """Everything in autodiff.primitives, by each argument."""
    found = {**permutations_and_sums(dtype), **poolings(dtype)}
    for boundary in ("periodic", "zero"), ("reflect", "nearest"), ("zero", "mirror"):
        found |= {f"{name}, {boundary}": case for name, case in convolutions(dtype, *boundary).items()}
    if dtype in REAL:
        found |= {
            **rectifiers(dtype),
            **layers(dtype),
            **factored_layers(dtype),
            **moments(dtype, "zero"),
            **moments(dtype, "periodic"),
            **filters(dtype),
            **merged_factors(dtype),
            **normalizations(dtype),
            **losses(dtype),
        }
    return found


def direction(case: Case) -> NDArray:
    return noise(9, case.x.shape, str(case.x.dtype))
