"""Filters whose responses have variance 1, from the moments of the patches that they meet (Eq. 8)."""

from __future__ import annotations

import math

from hcnn_core._engines import planner
from hcnn_core.backend import Array, array_namespace, require_real

__all__ = ["normalize_filters", "normalize_filters_vjp"]


def normalize_filters(h: Array, mean: Array, covariance: Array, /, *, epsilon: float) -> tuple[Array, Array]:
    r"""Filters divided by the deviation of their responses, and the means of what they make then.

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
    _require_fitting(xp, h, mean, covariance)
    return planner.filters(h).normalize(xp, h, mean, covariance, epsilon)  # type: ignore[no-any-return]


def normalize_filters_vjp(
    g_filters: Array, g_means: Array, h: Array, mean: Array, covariance: Array, /, *, epsilon: float
) -> tuple[Array, Array, Array]:
    r"""Cotangents of h, mean and covariance in ``normalize_filters(h, mean, covariance, epsilon=epsilon)``.

    Parameters
    ----------
    g_filters, g_means : array, shapes (\*kernel_size, Q) and (Q,)
        Cotangents of the results.
    h, mean, covariance, epsilon
        As in `normalize_filters`.

    Returns
    -------
    tuple of array
        In the shapes of h, mean and covariance.

    Raises
    ------
    TypeError, ValueError
        As `normalize_filters`, and ValueError if the cotangents have not the shapes of the results.
    """
    xp = array_namespace(g_filters, g_means, h, mean, covariance)
    _require_fitting(xp, h, mean, covariance)
    if (g_filters.shape, g_means.shape) != ((*h.shape[1:], h.shape[0]), h.shape[:1]):
        raise ValueError(
            f"g_filters and g_means have shapes {g_filters.shape} and {g_means.shape}; "
            f"the results have {(*h.shape[1:], h.shape[0])} and {h.shape[:1]}"
        )
    found = planner.filters(h).normalize_vjp(xp, g_filters, g_means, h, mean, covariance, epsilon)
    return found  # type: ignore[no-any-return]


def _require_fitting(xp: object, h: Array, mean: Array, covariance: Array) -> None:
    for name, array in (("h", h), ("mean", mean), ("covariance", covariance)):
        require_real(xp, name, array)
    taps = math.prod(h.shape[1:])
    if (mean.shape, covariance.shape) != ((taps,), (taps, taps)):
        raise ValueError(
            f"mean and covariance have shapes {mean.shape} and {covariance.shape}; "
            f"filters of shape {h.shape} want {(taps,)} and {(taps, taps)}"
        )
