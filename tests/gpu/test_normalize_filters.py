"""Normalised filters and their cotangents, by the library and by kernels, against what is written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autodiff import check_grads, vjp
from autodiff.primitives import _normalized_filters as normalize_filters
from autodiff.primitives import _normalized_filters_written_out as written_out
from hcnn_core import normalize_filters as plain
from hcnn_core import normalize_filters_vjp
from tests.core.oracle import eps, noise, wide
from tests.gpu.host import without_kernels

EPSILON = 1e-3


def operands(count: int, sizes: tuple[int, ...], dtype: str, *, negative: bool = False) -> list[Any]:
    """Filters, and the moments of some patches; a covariance that is not quite symmetric, or not positive."""
    taps = int(np.prod(sizes))
    rows = noise(0, (taps, 50), dtype)
    covariance = rows @ rows.T / 50 + noise(1, (taps, taps), dtype) / 1000
    covariance = np.ascontiguousarray(-covariance if negative else covariance)
    return [noise(2, (count, *sizes), dtype), noise(3, (taps,), dtype), covariance]


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("count", "sizes"), [(32, (3, 3)), (1, (2,)), (300, (3, 1)), (5, (4, 4))])
def test_values_and_cotangents(by: str, count: int, sizes: tuple[int, ...], dtype: str, negative: bool) -> None:
    given = operands(count, sizes, dtype, negative=negative)
    with without_kernels():
        exact, pullback = vjp(lambda *a: written_out(*a, epsilon=EPSILON), *(wide(a) for a in given))
    found = plain(*given, epsilon=EPSILON)
    g = noise(4, exact[0].shape, dtype), noise(5, exact[1].shape, dtype)
    cotangents = normalize_filters_vjp(*g, *given, epsilon=EPSILON)
    with without_kernels():
        expected = pullback(tuple(wide(a) for a in g))
    scale = 1 / EPSILON**1.5 if negative else 1e3
    for one, other in zip((*found, *cotangents), (*exact, *expected), strict=True):
        assert one.shape == other.shape and one.dtype == dtype
        assert np.abs(one - other).max() <= scale * eps(dtype) * max(1.0, np.abs(other).max())


def test_derivatives_of_every_order() -> None:
    given = operands(3, (2, 2), "float64")
    check_grads(lambda *a: normalize_filters(*a, epsilon=EPSILON)[0], order=2)(*given)
    check_grads(lambda *a: normalize_filters(*a, epsilon=EPSILON)[1], order=2)(*given)


def test_what_does_not_fit_is_refused() -> None:
    h, mean, covariance = operands(3, (2, 2), "float32")
    with pytest.raises(ValueError, match="mean and covariance have shapes"):
        plain(h, mean[:3], covariance, epsilon=EPSILON)
    for none in (h[:0], np.float32(1)):
        with pytest.raises(ValueError, match=r"h has shape .*; it is \(Q, \*kernel_size\), with a filter at least"):
            plain(none, mean, covariance, epsilon=EPSILON)
    with pytest.raises(ValueError, match="epsilon is nan; it must be finite and at least 0"):
        plain(h, mean, covariance, epsilon=float("nan"))
    with pytest.raises(ValueError, match="g_filters and g_means have shapes"):
        normalize_filters_vjp(h, mean, h, mean, covariance, epsilon=EPSILON)
    with pytest.raises(TypeError, match="complex"):
        plain(h.astype(complex), mean, covariance, epsilon=EPSILON)
