"""Filters whose responses have variance 1, from the moments of the patches that they meet (Eq. 8)."""

from __future__ import annotations

import math
from typing import Any

from hcnn_core._engines.dispatch import engine
from hcnn_core._problem import BOUNDARIES, Problem, make_problem, normalize_choice, normalize_integers
from hcnn_core.backend import Array, array_namespace, require_real, require_shapes
from hcnn_core.normalization import require_epsilon
from hcnn_core.typing import Axes, Boundaries

__all__ = ["merge_factors", "merge_factors_vjp", "normalize_filters", "normalize_filters_vjp"]


def normalize_filters(h: Array, mean: Array, covariance: Array, /, *, epsilon: float) -> tuple[Array, Array]:
    r"""Divide filters by the standard deviation of their responses, and return the mean responses after that too.

    Parameters
    ----------
    h : array, shape (Q, \*kernel_size)
        Filters, float32 or float64; T is the product of the kernel's lengths.
    mean, covariance : array, shapes (T,) and (T, T)
        Moments of the patches, as `patch_moments` returns them, in the dtype of h.
    epsilon : float
        Added to the variances, which are at least 0.

    Returns
    -------
    filters : array, shape (\*kernel_size, Q)
        h_q / sigma_q, sigma_q^2 being h_q . C h_q + epsilon.
    means : array, shape (Q,)
        h_q . m / sigma_q.

    Raises
    ------
    TypeError
        If a dtype is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If shapes do not fit.

    Notes
    -----
    m_{j,q} / sigma_{j,q} and h_{j,q} / sigma_{j,q} of section 4.2, arXiv:1703.04140.
    """
    xp = array_namespace(h, mean, covariance)
    h, mean, covariance, epsilon = fitting(xp, h, mean, covariance, epsilon)
    return engine("filters", h).normalize(xp, h, mean, covariance, epsilon)


def normalize_filters_vjp(
    g_filters: Array, g_means: Array, h: Array, mean: Array, covariance: Array, /, *, epsilon: float
) -> tuple[Array, Array, Array]:
    r"""Return the cotangents of h, mean and covariance in ``normalize_filters(h, mean, covariance, epsilon=epsilon)``.

    g_filters, of shape (\*kernel_size, Q), and g_means, (Q,), are the cotangents of the results, else ValueError. All
    else as in `normalize_filters`.
    """
    xp = array_namespace(g_filters, g_means, h, mean, covariance)
    h, mean, covariance, epsilon = fitting(xp, h, mean, covariance, epsilon)
    g_filters, g_means = require_real(xp, "g_filters", g_filters), require_real(xp, "g_means", g_means)
    shapes = (*h.shape[1:], h.shape[0]), h.shape[:1]
    require_shapes({"g_filters": g_filters, "g_means": g_means}, shapes, "the results have")
    return engine("filters", h).normalize_vjp(xp, g_filters, g_means, h, mean, covariance, epsilon)


def merge_factors(
    h: Array,
    g: Array,
    mean: Array,
    covariance: Array,
    bias: Array,
    /,
    *,
    lengths: tuple[int, ...],
    stride: Axes,
    boundary: Boundaries,
    epsilon: float,
) -> tuple[Array, Array]:
    r"""Merge batch-normalised factors into one filter and a bias.

    The factors are those of Eq. (8).

    Parameters
    ----------
    h : array, shape (Q, \*space)
        Factors along space, float32 or float64; T is the product of the lengths `space`.
    g : array, shape (Q, \*taps, K)
        Factors along the attributes, in the dtype of h.
    mean, covariance : array, shapes (T,) and (T, T)
        Moments of the spatial patches of the layer's input, in the dtype of h.
    bias : array, shape (K,)
        Bias of the layer, in the dtype of h.
    lengths : tuple of int
        Lengths of the attribute axes.
    stride : int or sequence of int
        Stride of the convolution along the attribute axes.
    boundary : {"periodic", "zero"} or sequence of them
        How the attribute axes are extended.
    epsilon : float
        Added to the variances.

    Returns
    -------
    w : array, shape (\*space, \*taps, K)
        The sum over q of h_q g_q / sigma_q, of tensor rank at most T.
    offset : array, shape (\*ceil(lengths / stride), K)
        The bias minus the response of w to the mean patch. It is to be added to the convolution with w.

    Raises
    ------
    TypeError
        If a dtype is integer or complex, or arrays of two libraries are mixed.
    ValueError
        If shapes, lengths, stride and boundary do not fit.

    Notes
    -----
    Eq. (8) of arXiv:1703.04140. Its two convolutions are one, because nothing nonlinear stands between them.
    """
    xp = array_namespace(h, g, mean, covariance, bias)
    operands, problem, epsilon = merging(xp, h, g, mean, covariance, bias, lengths, stride, boundary, epsilon)
    w, offset = engine("filters", *operands[:2]).merge(xp, *operands, problem, epsilon)
    return w, xp.reshape(offset, problem.y_shape)


def merge_factors_vjp(
    g_w: Array, g_offset: Array, h: Array, g: Array, mean: Array, covariance: Array, bias: Array, /, *,
    lengths: tuple[int, ...], stride: Axes, boundary: Boundaries, epsilon: float,
) -> tuple[Array, Array, Array, Array, Array]:  # fmt: skip
    r"""Return the cotangents of the five arrays in ``merge_factors(h, g, mean, covariance, bias, ...)``.

    g_w and g_offset are the cotangents of the results, in their shapes, else ValueError. All else as in
    `merge_factors`.
    """
    xp = array_namespace(g_w, g_offset, h, g, mean, covariance, bias)
    (h, g, mean, covariance, _), problem, epsilon = merging(
        xp, h, g, mean, covariance, bias, lengths, stride, boundary, epsilon
    )
    g_w, g_offset = require_real(xp, "g_w", g_w), require_real(xp, "g_offset", g_offset)
    shapes = (*h.shape[1:], *g.shape[1:]), problem.y_shape
    require_shapes({"g_w": g_w, "g_offset": g_offset}, shapes, "the results have")
    g_offset = xp.reshape(g_offset, (math.prod(problem.y_shape[:-1]), g.shape[-1]))
    return engine("filters", h, g).merge_vjp(xp, g_w, g_offset, h, g, mean, covariance, problem, epsilon)


def merging(
    xp: Any, h: Array, g: Array, mean: Array, covariance: Array, bias: Array, lengths: tuple[int, ...], stride: Axes,
    boundary: Boundaries, epsilon: float, require: Any = require_real,
) -> tuple[tuple[Array, Array, Array, Array, Array], Problem, float]:  # fmt: skip
    """Return the arrays, the problem of the convolution with g, and epsilon; errors if arguments do not fit."""
    h, mean, covariance, epsilon = fitting(xp, h, mean, covariance, epsilon, require)
    g, bias = require(xp, "g", g), require(xp, "bias", bias)
    if g.ndim < 3 or g.shape[0] != h.shape[0]:
        raise ValueError(
            f"g has shape {g.shape}; it is (Q, *taps, K), with Q = {h.shape[0]} of h, and an axis of taps at least"
        )
    lengths = normalize_integers("lengths", lengths, g.ndim - 2, 1)
    if bias.shape != g.shape[-1:]:
        raise ValueError(f"bias has shape {bias.shape}; g has {g.shape[-1]} filters")
    axes, boundary = tuple(range(len(lengths))), normalize_choice("boundary", boundary, len(lengths), BOUNDARIES)
    problem = make_problem(lengths, g.shape[1:], axes, boundary=boundary, stride=stride, method="direct")
    return (h, g, mean, covariance, bias), problem, epsilon


def fitting(
    xp: Any, h: Array, mean: Array, covariance: Array, epsilon: float, require: Any = require_real
) -> tuple[Array, Array, Array, float]:
    """Return arrays, of dtypes that `require` lets pass, and epsilon; TypeError or ValueError if they do not fit."""
    epsilon = require_epsilon(epsilon)
    h, mean, covariance = (
        require(xp, name, array) for name, array in (("h", h), ("mean", mean), ("covariance", covariance))
    )
    if not h.ndim or not h.shape[0]:
        raise ValueError(f"h has shape {h.shape}; it is (Q, *kernel_size), with a filter at least")
    taps = math.prod(h.shape[1:])
    shapes, wanted = ((taps,), (taps, taps)), f"filters of shape {h.shape} want"
    require_shapes({"mean": mean, "covariance": covariance}, shapes, wanted)
    return h, mean, covariance, epsilon
