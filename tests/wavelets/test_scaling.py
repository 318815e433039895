"""Moments by scale, their slopes, and the leverage correlation, by their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.oracle import noise
from wavelets import leverage, scaling_exponents, steerable_bank, structure_functions, wavelet_transform


@pytest.mark.parametrize("shape", [(16,), (8, 16)])
def test_structure_functions_are_means_of_powers(shape: tuple[int, ...]) -> None:
    x, bank = noise(0, (3, *shape), "float64"), steerable_bank(shape, 2, 2)
    z = wavelet_transform(x, bank, tuple(range(-len(shape), 0)))[1]
    found = structure_functions(x, bank, (0.5, 3))
    for j in range(2):
        for i, q in enumerate((0.5, 3)):
            assert found[j, i] == pytest.approx((np.abs(z[..., j, :]) ** q).mean(), rel=1e-12)


def test_exponents_are_slopes() -> None:
    moments = 2.0 ** (np.arange(6)[:, None] * np.array([0.5, 1.3]) + 2)
    moments[0] = 7  # what is not fitted does not count
    assert scaling_exponents(moments, 1, 5) == pytest.approx([0.5, 1.3], rel=1e-12)
    for first, last in ((0, 0), (3, 2), (-1, 3), (0, 6)):
        with pytest.raises(ValueError, match=f"scales {first} to {last} are no range of at least two among 0 to 5"):
            scaling_exponents(moments, first, last)
    with pytest.raises(ValueError, match="a moment is not positive"):
        scaling_exponents(np.zeros((3, 1)), 0, 2)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_process_with_a_power_spectrum_has_its_exponent(power: float) -> None:
    """Of |w|^-power: zeta(2) = power - 1, since a wavelet of scale 2^j has the bandwidth 2^-j."""
    n = 2**14
    w = np.maximum(np.abs(np.fft.fftfreq(n)), 1 / n)
    x = np.fft.ifft(np.fft.fft(np.random.default_rng(0).standard_normal((4, n))) * w ** (-power / 2)).real
    zeta = scaling_exponents(structure_functions(x, steerable_bank(n, 8), (1, 2)), 1, 6)
    assert zeta == pytest.approx([(power - 1) / 2, power - 1], abs=0.03)


def test_leverage_is_its_definition() -> None:
    x = np.exp(noise(1, (2, 12), "float64")) - 1
    found = leverage(x, 3)
    for lag in range(-3, 4):
        terms = [x[i, t + lag] ** 2 * x[i, t] for i in range(2) for t in range(12) if 0 <= t + lag < 12]
        assert found[lag + 3] == pytest.approx(np.mean(terms) / (x**2).mean() ** 1.5, rel=1e-12)
    assert np.allclose(leverage(x[:, ::-1], 3)[3], found[3])
    assert not np.allclose(leverage(x[:, ::-1], 3), found)
    assert np.array_equal(leverage(x, np.uint8(3)), found)


def test_single_precision_has_range_enough() -> None:
    """Powers of these numbers are 0 or infinite in single precision."""
    x, bank = noise(2, (3, 16), "float32"), steerable_bank(16, 2)
    for factor in (2.0**-60, 2.0**60):
        ratio = structure_functions(x * np.float32(factor), bank, (4,)) / structure_functions(x, bank, (4,))
        assert ratio == pytest.approx(factor**4, rel=1e-3)
        assert leverage(x * np.float32(factor), 2) == pytest.approx(leverage(x, 2), rel=1e-12)


def test_what_has_no_moments_is_refused() -> None:
    bank = steerable_bank(8, 1)
    with pytest.raises(ValueError, match=r"orders is \(0, 1\); give positive numbers"):
        structure_functions(np.zeros(8), bank, (0, 1))
    with pytest.raises(ValueError, match="lags is 8; it must be from 0 to 7"):
        leverage(np.zeros(8), 8)
    with pytest.raises(TypeError, match="x has dtype int64"):
        leverage(np.zeros(8, int), 1)
