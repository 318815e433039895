"""Merged factors and their cotangents, by the library and by kernels, against what is written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hcnn_core
from autodiff import check_grads, primitives, vjp
from autodiff.primitives import _merged_factors, _merged_factors_written_out
from hcnn_core import merge_factors, merge_factors_vjp
from tests.core.oracle import eps, noise, wide
from tests.gpu.host import without_kernels

EPSILON = 1e-3

CASES: list[tuple[int, tuple[int, ...], tuple[int, ...], int, dict[str, Any]]] = [
    (32, (3, 3), (7, 11), 16, {"lengths": (4, 8), "stride": (2, 2), "boundary": "zero"}),
    (32, (3, 3), (7, 11), 16, {"lengths": (4, 8), "stride": 2, "boundary": "periodic"}),
    (5, (3, 1), (5, 2), 3, {"lengths": (3, 7), "stride": (2, 3), "boundary": ("zero", "periodic")}),
    (200, (2,), (140,), 2, {"lengths": (160,), "stride": 1, "boundary": "zero"}),
]
"""Q, kernel sizes of h and g, K, and options; more factors, taps and places than a block has threads among them."""


def operands(count: int, space: tuple[int, ...], taps: tuple[int, ...], filters: int, dtype: str) -> list[Any]:
    size = int(np.prod(space))
    rows = noise(0, (size, 50), dtype)
    covariance = rows @ rows.T / 50 + noise(1, (size, size), dtype) / 1000
    return [
        noise(2, (count, *space), dtype),
        noise(3, (count, *taps, filters), dtype),
        noise(4, (size,), dtype),
        covariance,
        noise(5, (filters,), dtype),
    ]


def test_complex_arrays_go_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    h, g, mean, covariance, bias = (a.astype("complex128") for a in operands(5, (3, 1), (5, 2), 3, "float64"))
    options = {"lengths": (3, 7), "stride": (2, 3), "boundary": "zero", "epsilon": EPSILON}
    expected = primitives.merge_factors(h, g, mean, covariance, bias, **options)
    monkeypatch.setattr(primitives, "library_of", lambda _: "cupy")
    for one, other in zip(primitives.merge_factors(h, g, mean, covariance, bias, **options), expected, strict=True):
        assert one.dtype == "complex128" and np.array_equal(one, other)
    primitives.merge_factors(*(a.real for a in (h, g, mean, covariance, bias)), **options)
    with pytest.raises(TypeError, match="complex128"):  # what they would get
        hcnn_core.normalize_filters(h, mean, covariance, epsilon=EPSILON)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_cotangents(by: str, case: Any, dtype: str) -> None:
    *sizes, options = case
    options = {**options, "epsilon": EPSILON}
    given = operands(*sizes, dtype)
    with without_kernels():
        exact, pullback = vjp(lambda *a: _merged_factors_written_out(*a, **options), *(wide(a) for a in given))
    found = merge_factors(*given, **options)
    g = tuple(np.asfortranarray(noise(6 + i, a.shape, dtype)) for i, a in enumerate(exact))
    cotangents = merge_factors_vjp(*g, *given, **options)
    with without_kernels():
        expected = pullback(tuple(wide(a) for a in g))
    for one, other in zip((*found, *cotangents), (*exact, *expected), strict=True):
        assert one.shape == other.shape and one.dtype == dtype
        assert np.abs(one - other).max() <= 1e3 * eps(dtype) * np.abs(other).max()


def test_derivatives_of_every_order() -> None:
    options: dict[str, Any] = {"lengths": (2, 3), "stride": (1, 2), "boundary": "zero", "epsilon": EPSILON}
    given = operands(2, (2, 1), (3, 2), 2, "float64")
    for i in range(2):
        check_grads(lambda *a, i=i: _merged_factors(*a, **options)[i], order=2)(*given)


def test_what_does_not_fit_is_refused() -> None:
    h, g, mean, covariance, bias = operands(3, (2, 2), (3,), 2, "float32")
    options: dict[str, Any] = {"lengths": (4,), "stride": 1, "boundary": "zero", "epsilon": EPSILON}
    with pytest.raises(ValueError, match="mean and covariance have shapes"):
        merge_factors(h, g, mean[:3], covariance, bias, **options)
    with pytest.raises(ValueError, match=r"g has shape \(2, 3, 2\); it is \(Q, \*taps, K\), with Q = 3"):
        merge_factors(h, g[:2], mean, covariance, bias, **options)
    with pytest.raises(ValueError, match="and an axis of taps at least"):
        merge_factors(h, g[:, 0], mean, covariance, bias, **(options | {"lengths": ()}))
    with pytest.raises(ValueError, match=r"bias has shape \(3,\); g has 2 filters"):
        merge_factors(h, g, mean, covariance, np.zeros(3, "float32"), **options)
    for name, value, message in (
        ("lengths", (-4,), "lengths holds -4; give 1 or more"),
        ("lengths", (4.0,), "lengths holds 4.0; give integers"),
        ("lengths", (4, 4), "lengths"),
        ("epsilon", -1.0, "epsilon is -1.0; it must be finite and at least 0"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            merge_factors(h, g, mean, covariance, bias, **(options | {name: value}))
    with pytest.raises(ValueError, match="g_w and g_offset have shapes"):
        merge_factors_vjp(g, g, h, g, mean, covariance, bias, **options)
    with pytest.raises(TypeError, match="complex"):
        merge_factors(h.astype(complex), g, mean, covariance, bias, **options)
