"""Orthonormal wavelet bases: filters, orthogonality, vanishing moments, and the inverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autodiff import check_grads
from tests.core.oracle import C, eps, noise
from wavelets import daubechies_filter, dwt, idwt


@pytest.mark.parametrize("moments", range(1, 11))
def test_filters_are_orthonormal_and_have_vanishing_moments(moments: int) -> None:
    h = daubechies_filter(moments)
    assert h.shape == (2 * moments,)
    for shift in range(0, 2 * moments, 2):
        assert (h[shift:] * h[: len(h) - shift]).sum() == pytest.approx(float(shift == 0), abs=1e-13)
    g = h[::-1] * (-1) ** np.arange(len(h))
    scaled = np.arange(len(h)) / len(h)
    for power in range(moments):
        assert abs((g * scaled**power).sum()) < 1e-6
    assert abs((g * scaled**moments).sum()) > 1e-9  # and no more


def test_filters_are_those_that_daubechies_printed() -> None:
    root = np.sqrt(3)
    printed = np.array([1 + root, 3 + root, 3 - root, 1 - root]) / (4 * np.sqrt(2))
    assert np.abs(daubechies_filter(2) - printed).max() < 1e-15
    assert np.array_equal(daubechies_filter(1), np.full(2, np.sqrt(0.5)))


def test_the_haar_basis_is_means_and_differences() -> None:
    x = noise(0, (8, 8), "float64")
    low, high = dwt(x, 1, moments=1)
    a, b, c, d = x[::2, ::2], x[::2, 1::2], x[1::2, ::2], x[1::2, 1::2]
    assert np.abs(low - (a + b + c + d) / 2).max() < 1e-14
    for kind, expected in enumerate((b + d - a - c, c + d - a - b, a + d - b - c)):
        assert np.abs(high[..., kind] - expected / 2).max() < 1e-14


@pytest.mark.parametrize("moments", [1, 2, 4])
@pytest.mark.parametrize(
    ("shape", "axes", "levels"), [((3, 16, 8), (1, 2), 3), ((16, 2, 32), (-1, 0), 4), ((24, 2), 0, 3), ((4,), 0, 0)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_the_transform_is_orthogonal(moments: int, shape: Any, axes: Any, levels: int, dtype: str) -> None:
    x = noise(1, shape, dtype)
    coefficients = dwt(x, levels, axes, moments=moments)
    bound = C * eps(dtype) * np.linalg.norm(x) * (levels + 1)
    assert len(coefficients) == levels + 1 and all(c.dtype == dtype for c in coefficients)
    assert abs(np.sqrt(sum((np.abs(c) ** 2).sum() for c in coefficients)) - np.linalg.norm(x)) <= bound
    assert np.abs(idwt(coefficients, axes, moments=moments) - x).max() <= bound


def test_wavelets_do_not_see_polynomials() -> None:
    t = np.arange(64.0) / 64
    for moments, seen in ((2, 0.0), (1, 0.001)):
        inner = dwt(1 + 2 * t, 2, 0, moments=moments)[1][4:-4]
        assert (np.abs(inner).max() < 1e-13) == (seen == 0)


def test_kinds_are_in_the_order_of_the_docstring() -> None:
    """What varies along one axis alone is high-pass along that axis."""
    wave = (-1.0) ** np.arange(8)
    for x, kind in ((np.outer(np.ones(8), wave), 0), (np.outer(wave, np.ones(8)), 1), (np.outer(wave, wave), 2)):
        energies = np.sum(dwt(x, 1, (0, 1))[1] ** 2, axis=(0, 1))
        assert energies[kind] > 0.99 * np.sum(x**2)


def test_derivatives() -> None:
    check_grads(lambda x: dwt(x, 2, 0))(noise(2, (8, 2), "float64"))
    check_grads(lambda c: idwt(c, 0))(dwt(noise(3, (8, 2), "float64"), 2, 0))
