"""Moments of spatial patches: all that Eq. (8)'s normalisation needs to know of the data.

A filter h gives at every position the number h . P, P being the patch around it. Over all positions its mean is
h . mean(P) and its variance h . cov(P) h, so batch normalisation of any number Q of filters costs one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hcnn_core._engines import planner
from hcnn_core.backend import Array, array_namespace, placement, require_real

if TYPE_CHECKING:
    from hcnn_core._engines.generic.patches import Patches

__all__ = ["patch_moments", "patch_moments_vjp"]


def patch_moments(
    x: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], *, boundary: str | Sequence[str]
) -> tuple[Array, Array]:
    """Mean and covariance of the patches around every position of x.

    Parameters
    ----------
    x : array
        float32 or float64, any shape; axes not named in `axes` index independent samples.
    axes : int or sequence of int
        The axes patches extend along (space).
    kernel_size : int or sequence of int
        Patch lengths, one for all axes or one per axis. T is their product.
    boundary : {"periodic", "zero"} or sequence of them
        How x is extended for patches that reach beyond its ends.

    Returns
    -------
    mean : array, shape (T,)
        Mean of ``x[u - (t - kernel_size // 2)]`` over all u and samples, taps t in C order, as `convolve` counts them.
    covariance : array, shape (T, T)
        Their covariance, divided by the number of positions (as batch normalisation does).

    Raises
    ------
    TypeError
        If the dtype is integer or complex.
    ValueError
        If x is empty, or axes, kernel_size and boundary do not fit.

    Notes
    -----
    For a filter h, flattened, ``h @ mean`` and ``h @ covariance @ h`` are mean and variance of
    ``convolve(x, h, axes, boundary=boundary)``: m_{j,q} and sigma_{j,q}^2 of section 4.2, arXiv:1703.04140.
    """
    return moments_and_mean(x, axes, kernel_size, boundary=boundary)[:2]


def patch_moments_vjp(
    g_mean: Array,
    g_covariance: Array,
    x: Array,
    axes: int | Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
) -> Array:
    """Cotangent of x in ``patch_moments(x, ...)``.

    Parameters
    ----------
    g_mean, g_covariance : array, shapes (T,) and (T, T)
        Cotangents of the two results.
    x : array
        The argument.
    axes, kernel_size, boundary
        As in `patch_moments`.

    Returns
    -------
    array
        Shape and dtype of x.

    Raises
    ------
    TypeError
        If a dtype is integer or complex.
    ValueError
        If the cotangents have not the shapes of the results, or an argument does not fit as in `patch_moments`.
    """
    xp = array_namespace(g_mean, g_covariance, x)
    x = require_real(xp, "x", x)
    g_mean, g_covariance = require_real(xp, "g_mean", g_mean), require_real(xp, "g_covariance", g_covariance)
    patches = planner.make_patches(xp, x, axes, kernel_size, boundary)
    shapes = (patches.taps,), (patches.taps, patches.taps)
    if (g_mean.shape, g_covariance.shape) != shapes:
        raise ValueError(
            f"g_mean and g_covariance have shapes {g_mean.shape} and {g_covariance.shape}; "
            f"mean and covariance have {shapes[0]} and {shapes[1]}"
        )
    return patches.filter(xp, g_mean, g_covariance + g_covariance.T, x)


def moments_and_mean(
    x: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], *, boundary: str | Sequence[str]
) -> tuple[Array, Array, Array]:
    """`patch_moments`, and the mean in double precision."""
    xp = array_namespace(x)
    x = require_real(xp, "x", x)
    mean, covariance = _moments(xp, x, x, planner.make_patches(xp, x, axes, kernel_size, boundary))
    return xp.astype(mean, x.dtype), covariance, mean


def patch_covariance(
    x: Array, y: Array, axes: int | Sequence[int], kernel_size: int | Sequence[int], *, boundary: str | Sequence[str]
) -> Array:
    """Cross-covariance (T, T) of the patches of two arrays of one shape; symmetric bilinear up to a transpose."""
    xp = array_namespace(x, y)
    return _moments(xp, x, y, planner.make_patches(xp, x, axes, kernel_size, boundary))[1]


def _moments(xp: Any, x: Array, y: Array, patches: Patches) -> tuple[Array, Array]:
    """Those of `Patches.moments`: of taps that only meet zeros, zero, not what rounding leaves of it."""
    mean, covariance = patches.moments(xp, x, y)
    if all(patches.met()):
        return mean, covariance
    met = xp.asarray(patches.met(), **placement(xp, x))
    mean = xp.where(met, mean, xp.zeros_like(mean))
    return mean, xp.where(met[:, None] & met, covariance, xp.zeros_like(covariance))


def patch_filter(
    constant: Array,
    matrix: Array,
    x: Array,
    axes: int | Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    boundary: str | Sequence[str],
    mean: Array | None = None,
    other: Array | None = None,
) -> Array:
    """Patches of x, centred, times a (T, T) matrix, plus a constant (T,), added back in place, over their number.

    Their mean in double precision may be given, and another array like x, which is added.
    """
    xp = array_namespace(constant, matrix, x)
    return planner.make_patches(xp, x, axes, kernel_size, boundary).filter(xp, constant, matrix, x, mean, other)
