"""The wavelet transform against `convolve`, its inverse, and the norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autodiff import check_grads
from hcnn_core import convolve
from tests.core.oracle import C, eps, noise
from wavelets import inverse_wavelet_transform, morlet_bank, wavelet_transform


def in_space(x: np.ndarray[Any, Any], spectrum: np.ndarray[Any, Any], axes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """A periodic convolution with the filter of a spectrum, by the direct engine, which knows no FFT."""
    w = np.fft.fftshift(np.fft.ifftn(spectrum))  # tap n // 2 is the one that stays in place
    return convolve(x.astype(complex), w, axes, boundary="periodic", method="direct")


@pytest.mark.parametrize(
    ("x_shape", "axes", "shape"),
    [((2, 8, 12, 3), (1, 2), (8, 12)), ((8, 2, 12), (2, 0), (12, 8)), ((16, 3), -2, (16,)), ((8, 8), (-2, -1), (8, 8))],
)
def test_the_transform_convolves_with_each_filter(x_shape: tuple[int, ...], axes: Any, shape: tuple[int, ...]) -> None:
    x, bank = noise(0, x_shape, "float64"), morlet_bank(shape, 2, 3)
    low, high = wavelet_transform(x, bank, axes)
    where = tuple(a % x.ndim for a in ((axes,) if isinstance(axes, int) else axes))
    bound = C * eps("float64") * np.linalg.norm(x)
    assert low.dtype == x.dtype and high.shape == (*x.shape, 2, bank.angles)
    # convolve wants its axes and the filter's in one order
    assert np.abs(low - in_space(x, bank.phi, where)).max() <= bound
    for j in range(2):
        for k in range(bank.angles):
            assert np.abs(high[..., j, k] - in_space(x, bank.psi[j, k], where)).max() <= bound


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("axes", "shape"), [((1, 2), (16, 8)), ((2, 1), (8, 16)), (1, (16,))])
def test_a_tight_bank_preserves_the_norm_and_is_inverted(dtype: str, axes: Any, shape: tuple[int, ...]) -> None:
    x = noise(1, (2, 16, 8, 3), dtype)
    low, high = wavelet_transform(x, morlet_bank(shape, 2, 4, tight=True), axes)
    bound = C * eps(dtype) * np.linalg.norm(x)
    assert high.dtype == np.result_type(dtype, np.complex64)
    assert abs(np.hypot(np.linalg.norm(low), np.linalg.norm(high)) - np.linalg.norm(x)) <= bound
    back = inverse_wavelet_transform(low, high, morlet_bank(shape, 2, 4, tight=True), axes)
    assert back.dtype == x.dtype and np.abs(back - x).max() <= bound


def test_inverse_is_the_transpose() -> None:
    bank = morlet_bank((8, 12), 2, 3)
    x, low = noise(2, (8, 12), "float64"), noise(3, (8, 12), "float64")
    high = noise(4, (8, 12, 2, 3), "complex128")
    made = wavelet_transform(x, bank)
    there = (made[0] * low).sum() + np.real(made[1] * high.conj()).sum()
    back = (x * inverse_wavelet_transform(low, high, bank)).sum()
    assert abs(there - back) <= C * eps("float64") * np.linalg.norm(x) * np.hypot(*map(np.linalg.norm, (low, high)))


def test_derivatives() -> None:
    bank = morlet_bank((4, 8), 1, 2)
    x, low = noise(5, (4, 8), "float64"), noise(6, (4, 8), "float64")
    check_grads(lambda x: wavelet_transform(x, bank))(x)
    check_grads(lambda low, high: inverse_wavelet_transform(low, high, bank))(low, noise(7, (4, 8, 1, 2), "complex128"))
