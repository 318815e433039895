"""Derivatives of `autodiff.correlate`, first and second, and of its two VJPs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autodiff
import hcnn_core
from autodiff import check_grads, vjp
from tests.core.oracle import noise

OPTIONS: dict[str, Any] = {"axes": (1, 2), "boundary": ("zero", "periodic"), "sum_axes": 0, "stride": (2, 1)}
X, W = noise(0, (3, 6, 5), "float64"), noise(1, (3, 4, 7, 2), "float64")


@pytest.mark.parametrize("method", ["direct", "fft"])
def test_second_derivatives(method: str) -> None:
    check_grads(lambda x, w: autodiff.correlate(x, w, **OPTIONS, method=method))(X, W)


def test_second_derivatives_of_the_vjps() -> None:
    g = noise(2, hcnn_core.correlate(X, W, **OPTIONS).shape, "float64")
    check_grads(lambda g, w: autodiff.correlate_vjp_x(g, X.shape, w, **OPTIONS))(g, W)
    check_grads(lambda g, x: autodiff.correlate_vjp_w(g, x, W.shape, **OPTIONS))(g, X)


def test_pullback_is_the_two_vjps() -> None:
    y, pullback = vjp(lambda x, w: autodiff.correlate(x, w, **OPTIONS), X, W)
    g = noise(2, y.shape, "float64")
    g_x, g_w = pullback(g)
    assert np.array_equal(y, hcnn_core.correlate(X, W, **OPTIONS))
    assert np.array_equal(g_x, hcnn_core.correlate_vjp_x(g, X, W, **OPTIONS))
    assert np.array_equal(g_w, hcnn_core.correlate_vjp_w(g, X, W, **OPTIONS))
