"""Phase harmonics and rectified wavelets against their definitions, and the theorem that joins them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate

from autodiff import check_grads, grad
from tests.core.oracle import C, eps, noise
from wavelets import (
    from_rectified,
    harmonic_statistics,
    morlet_bank,
    phase_harmonic,
    rectified_transform,
    rectifier_coefficient,
    wavelet_transform,
)


@pytest.mark.parametrize("k", range(-3, 5))
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_harmonic_keeps_the_modulus_and_multiplies_the_phase(k: int, dtype: str) -> None:
    z = noise(0, (40,), dtype)
    z[7] = 0
    found = phase_harmonic(z, k)
    assert found.dtype == dtype and found[7] == 0
    assert np.abs(found - np.abs(z) * np.exp(1j * k * np.angle(z))).max() <= C * eps(dtype) * np.abs(z).max()


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_subnormal_numbers_have_a_phase(dtype: str) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    found = phase_harmonic(np.array([3j * tiny, -8 * tiny], dtype), 2)
    assert np.array_equal(found, np.array([-3 * tiny, 8 * tiny], dtype))


@pytest.mark.parametrize("k", range(-2, 4))
def test_derivatives_of_harmonics(k: int) -> None:
    check_grads(lambda z: phase_harmonic(z, k))(noise(1, (3, 4), "complex128"))
    at_zero = grad(lambda z: np.sum(np.real(phase_harmonic(z, k))))(np.zeros(2, complex))
    assert np.array_equal(at_zero, np.zeros(2))


@pytest.mark.parametrize("k", range(-3, 9))
def test_coefficients_of_the_rectifier_are_its_integrals(k: int) -> None:
    integral = integrate.quad(lambda a: max(math.cos(a), 0) * math.cos(k * a), -math.pi / 2, math.pi / 2)[0]
    assert rectifier_coefficient(k) == pytest.approx(integral / (2 * math.pi), abs=1e-14)
    assert rectifier_coefficient(np.int8(14 * k)) == rectifier_coefficient(14 * k)


@pytest.mark.parametrize("phases", [4, 5, 8, 16])
def test_the_transform_over_phases_gives_harmonics(phases: int) -> None:
    """The theorem of slide 11, for sampled phases: harmonics that differ by a multiple of their number add up."""
    x, bank = noise(2, (8, 8), "float64"), morlet_bank((8, 8), 1, 2)
    z = wavelet_transform(x, bank)[1]
    found = np.fft.fft(rectified_transform(x, bank, phases=phases)[1], axis=-1) / phases
    terms = 4000  # the rest, of which each is below 1 / (pi k^2), is below 2 / (pi phases^2 terms)
    u, turns = np.exp(1j * np.angle(z)), phases * np.arange(-terms, terms + 1)
    u_turned = np.exp(1j * np.angle(z)[..., None] * turns)
    for k in range(phases):
        # [z]^k = abs(z) u^k
        gamma = np.array([rectifier_coefficient(int(q)) for q in k + turns])
        expected = np.abs(z) * u**k * (u_turned @ gamma)
        assert np.abs(found[..., k] - expected).max() <= 2 / (math.pi * phases**2 * terms) * np.abs(z).max()


@pytest.mark.parametrize("phases", [4, 6, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rectified_coefficients_are_inverted_linearly(phases: int, dtype: str) -> None:
    x, bank = noise(3, (2, 16, 16), dtype), morlet_bank((16, 16), 2, 4, tight=True)
    low, high = rectified_transform(x, bank, phases=phases)
    assert high.shape == (2, 16, 16, 2, 4, phases) and high.dtype == dtype and high.min() == 0
    back = from_rectified(low, high, bank)
    assert back.dtype == dtype and np.abs(back - x).max() <= C * eps(dtype) * np.linalg.norm(x)


def test_without_half_of_the_phases_nothing_is_inverted() -> None:
    x, bank = noise(3, (16, 16), "float64"), morlet_bank((16, 16), 2, 4, tight=True)
    low, high = rectified_transform(x, bank, phases=4)
    high[..., 2:] = 0
    assert np.abs(from_rectified(low, high, bank) - x).max() > 0.1


@pytest.mark.parametrize("shape", [(8, 16), (16,)])
def test_statistics_are_means_and_covariances(shape: tuple[int, ...]) -> None:
    x, bank, harmonics = noise(4, shape, "float64"), morlet_bank(shape, 2, 3), (0, 1, 3)
    axes = tuple(range(len(shape)))
    low, high = wavelet_transform(x, bank, axes)
    rows, scales = [low.astype(complex)], [1]
    for j, k, q in itertools.product(range(2), range(bank.angles), harmonics):
        rows.append(np.abs(high[..., j, k]) * np.exp(1j * q * np.angle(high[..., j, k])))
        scales.append(j)
    found = harmonic_statistics(x, bank, harmonics=harmonics, lags=2)
    directions = [(1,)] if len(shape) == 1 else [(0, 1), (1, 0), (1, 1), (1, -1)]
    assert found["covariance"].shape == (len(rows),) * 2
    assert found["lagged"].shape == (2, len(directions), len(rows))
    bound = 1e-13
    for a, row in enumerate(rows):
        assert abs(found["mean"][a] - row.mean()) <= bound
        for b, other in enumerate(rows):
            covariance = ((row - row.mean()) * (other - other.mean()).conj()).mean()
            assert abs(found["covariance"][a, b] - covariance) <= bound
        for (i, lag), (d, direction) in itertools.product(enumerate((1, 2)), enumerate(directions)):
            moved = np.roll(row, tuple(lag * 2 ** scales[a] * s for s in direction), axes)
            lagged = ((row - row.mean()) * (moved - row.mean()).conj()).mean()
            assert abs(found["lagged"][i, d, a] - lagged) <= bound


def test_statistics_do_not_see_translations_but_mirror_images() -> None:
    """A negative control: the mirror image of noise has other statistics."""
    x, bank = noise(5, (16, 16), "float64"), morlet_bank((16, 16), 2, 4)

    def distance(y: np.ndarray[Any, Any]) -> float:
        one, other = harmonic_statistics(x, bank), harmonic_statistics(y, bank)
        return max(float(np.abs(one[key] - other[key]).max()) for key in one)

    assert distance(np.roll(x, (3, -5), (0, 1))) <= 1e-13
    assert distance(x[::-1]) > 1e-3


def test_derivatives_of_statistics() -> None:
    bank = morlet_bank((8, 8), 1, 2)
    check_grads(lambda x: harmonic_statistics(x, bank, lags=1), 1)(noise(6, (8, 8), "float64"))
