"""Mean and covariance of spatial patches, which is all that the normalisation of Eq. (8) needs of the data.

A filter h has the value h . P at a position with the patch P around it. Over all positions its mean is h . mean(P) and
its variance h . cov(P) h. So these moments, taken once, give the batch normalisation of any number Q of filters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from hcnn_core._engines.dispatch import engine
from hcnn_core.backend import Array as EngineArray
from hcnn_core.backend import array_namespace, placement, require_real, require_shapes
from hcnn_core.shards import Shard
from hcnn_core.typing import AnyArray, Array, Axes, Boundaries, NumpyArray, Scalar

if TYPE_CHECKING:
    from hcnn_core._engines.generic.patches import Patches

__all__ = ["patch_moments", "patch_moments_vjp"]


@overload
def patch_moments(
    x: NumpyArray[Scalar], axes: Axes, kernel_size: Axes, *, boundary: Boundaries, shard: Shard | None = None
) -> tuple[NumpyArray[Scalar], NumpyArray[Scalar]]: ...
@overload
def patch_moments(
    x: Array, axes: Axes, kernel_size: Axes, *, boundary: Boundaries, shard: Shard | None = None
) -> tuple[Array, Array]: ...
def patch_moments(
    x: Array, axes: Axes, kernel_size: Axes, *, boundary: Boundaries, shard: Shard | None = None
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
    shard : Shard, optional
        The part of a batch that x is, where other processes have the rest: moments are those of the whole batch.

    Returns
    -------
    mean : array, shape (T,)
        Mean of ``x[u - (t - kernel_size // 2)]`` over all positions u and samples; taps t in C order, as in `convolve`.
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
    return moments_and_mean(x, axes, kernel_size, boundary=boundary, shard=shard)[:2]


def patch_moments_vjp(
    g_mean: Array,
    g_covariance: Array,
    x: AnyArray,
    axes: Axes,
    kernel_size: Axes,
    *,
    boundary: Boundaries,
    shard: Shard | None = None,
) -> AnyArray:
    """Return the cotangent of x in ``patch_moments(x, axes, kernel_size, ...)``.

    g_mean, of shape (T,), and g_covariance, (T, T), are the cotangents of the results, else ValueError. With a shard
    they are those of this process's loss. All else as in `patch_moments`.
    """
    xp = array_namespace(g_mean, g_covariance, x)
    signal: Any = require_real(xp, "x", x)
    g_mean, g_covariance = require_real(xp, "g_mean", g_mean), require_real(xp, "g_covariance", g_covariance)
    patches = _patches(signal, axes, kernel_size, boundary)
    shapes = (patches.taps,), (patches.taps, patches.taps)
    require_shapes({"g_mean": g_mean, "g_covariance": g_covariance}, shapes, "mean and covariance have")
    mean = None
    if shard is not None:
        mean = moments_and_mean(signal, axes, kernel_size, boundary=boundary, shard=shard)[2]
        g_mean, g_covariance = shard_cotangents(g_mean, g_covariance, shard)
    return patches.filter(xp, g_mean, g_covariance, signal, mean, symmetric=True)


def moments_and_mean(
    x: Array, axes: Axes, kernel_size: Axes, *, boundary: Boundaries, shard: Shard | None = None
) -> tuple[EngineArray, EngineArray, EngineArray]:
    """Return the results of `patch_moments`, and the mean in double precision."""
    xp = array_namespace(x)
    x = require_real(xp, "x", x)
    exact, mean, covariance = _moments(xp, x, x, _patches(x, axes, kernel_size, boundary))
    if shard is not None:
        means = shard.mean(exact, covariance + exact[:, None] * exact)
        exact = means[0, :]
        mean = xp.astype(exact, x.dtype)
        covariance = means[1:, :] - exact[:, None] * exact
    return mean, xp.astype(covariance, x.dtype, copy=False), exact


def _patches(x: EngineArray, *windows: Any) -> Patches[Any]:
    """Return the map from arrays like x to their patches, on the best engine for them."""
    return engine("patches", x, *windows).make(x, *windows)


def shard_cotangents(g_mean: EngineArray, g_covariance: EngineArray, shard: Shard) -> tuple[EngineArray, EngineArray]:
    """Cotangents of a shard's own moments from those of the whole batch's on every process."""
    xp = array_namespace(g_mean, g_covariance)
    total = xp.astype(shard.share * shard.sum(g_mean, g_covariance), g_mean.dtype)
    return total[0, :], total[1:, :]


def patch_covariance(
    x: EngineArray, y: EngineArray, axes: Axes, kernel_size: Axes, *, boundary: Boundaries
) -> EngineArray:
    """Cross-covariance (T, T) of the patches of two arrays of one shape; exchanging the arrays transposes it."""
    xp = array_namespace(x, y)
    covariance = _moments(xp, x, y, _patches(x, axes, kernel_size, boundary))[2]
    return xp.astype(covariance, x.dtype, copy=False)


def _moments(
    xp: Any, x: EngineArray, y: EngineArray, patches: Patches[Any]
) -> tuple[EngineArray, EngineArray, EngineArray]:
    """`Patches.moments`, with exact zeros for taps that read only zeros, instead of rounding errors."""
    moments = patches.moments(xp, x, y)
    if all(patches.met()):
        return moments
    met = xp.asarray(patches.met(), **placement(xp, x))
    exact, mean, covariance = (
        xp.where(where, a, xp.zeros_like(a)) for where, a in zip((met, met, met[:, None] & met), moments, strict=True)
    )
    return exact, mean, covariance


def patch_filter(
    constant: EngineArray,
    matrix: EngineArray,
    x: EngineArray,
    axes: Axes,
    kernel_size: Axes,
    *,
    boundary: Boundaries,
    mean: EngineArray | None = None,
    addend: EngineArray | None = None,
    symmetric: bool = False,
) -> EngineArray:
    """P^T (constant + matrix (P x - mean)) / count + addend, where P maps x to its patches and P^T adds patches up.

    `constant` is (T,) and `matrix` (T, T). `mean` is the mean patch in double precision; it is computed if it is None.
    `addend` is an array like x, or None for zero. With `symmetric`, the matrix plus its transpose takes its place.
    """
    xp = array_namespace(constant, matrix, x)
    return _patches(x, axes, kernel_size, boundary).filter(xp, constant, matrix, x, mean, addend, symmetric=symmetric)
