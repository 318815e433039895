"""Roto-translation scattering: against its definition by loops, and invariance to quarter turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autodiff import check_grads
from tests.core.oracle import noise
from wavelets import FilterBank, morlet_bank, rototranslation_scattering, scattering


def paths_by_loops(x: Any, bank: FilterBank, angular: FilterBank) -> Any:
    """Means over space of all coefficients, every angle of a full turn and every sum written out."""
    turn = 2 * bank.angles

    def wavelet(j: int, m: int) -> Any:
        psi = np.fft.ifft2(bank.psi[j, m % bank.angles])
        return psi if m % turn < bank.angles else psi.conj()

    def filtered(y: Any, w: Any) -> Any:
        return np.fft.ifft2(np.fft.fft2(y) * np.fft.fft2(w))

    def mean_modulus(maps: list[Any], k: int) -> Any:
        taps = np.fft.ifft(angular.psi[k - 1, 0] if k else angular.phi)
        moved = [sum(taps[t] * maps[(m - t) % turn] for t in range(turn)) for m in range(turn)]
        return np.mean(np.abs(moved))

    first = [[np.abs(filtered(x, wavelet(j, m))) for m in range(turn)] for j in range(bank.scales)]
    smooth = [[np.fft.ifft2(np.fft.fft2(u) * bank.phi).real for u in of_scale] for of_scale in first]
    found = [x.mean(), *(np.mean(of_scale) for of_scale in first)]
    found += [mean_modulus(of_scale, k) for of_scale in smooth for k in range(1, angular.scales + 1)]
    for j in range(bank.scales):
        for other in range(j + 1, bank.scales):
            for beta in range(bank.angles):
                maps = [filtered(first[j][m], wavelet(other, m + beta)) for m in range(turn)]
                found += [mean_modulus(maps, k) for k in range(angular.scales + 1)]
    return np.array(found)


def test_equals_its_definition() -> None:
    """The low-pass filter sums to 1, but what is subsampled has the mean only if nothing aliases: here little does."""
    bank, angular = morlet_bank((16, 16), 2, 4), morlet_bank(8, 2, tight=True)
    x = noise(0, (16, 16), "float64")
    found = rototranslation_scattering(x, bank)
    assert found.shape == (4, 4, 1 + 2 + 2 * 2 + 4 * 3)
    wanted = paths_by_loops(x, bank, angular)
    shifted = [rototranslation_scattering(np.roll(x, shift, (0, 1)), bank) for shift in np.ndindex(4, 4)]
    assert np.allclose(np.mean(shifted, axis=(0, 1, 2)), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("angles", [2, 4, 6])
def test_a_quarter_turn_changes_nothing_and_other_coefficients_much(angles: int) -> None:
    bank, x = morlet_bank((16, 16), 2, angles), noise(0, (2, 16, 16), "float64")
    turned = np.roll(np.rot90(x, axes=(1, 2)), 1, axis=1)  # around a sample, so that samples of results are turned too

    def change(transform: Any) -> Any:
        one, other = (np.mean(transform(a, bank), axis=(1, 2)) for a in (x, turned))
        return np.abs(one - other).max() / np.abs(one).max()

    assert change(lambda a, bank: rototranslation_scattering(a, bank, angular_scales=1)) < 1e-13
    turned = np.rot90(x, axes=(1, 2))
    assert 1e-4 < change(lambda a, bank: rototranslation_scattering(a, bank, angular_scales=1)) < 0.1
    assert change(scattering) > 1e-3


def test_angular_wavelets_tell_one_orientation_from_two() -> None:
    bank = morlet_bank((32, 32), 2, 4)
    u, v = np.indices((32, 32)) * 2 * np.pi / 32
    bars, both = np.sqrt(2) * np.cos(8 * u), np.cos(8 * u) + np.cos(8 * v)
    one, other = (rototranslation_scattering(x, bank).mean((0, 1)) for x in (bars, both))
    assert np.abs(one - other)[3:7].max() > 0.2 * np.abs(one[3:7]).max()


def test_keeps_axes_and_dtype_and_can_be_differentiated() -> None:
    bank, x = morlet_bank((16, 8), 1, 2), noise(0, (16, 3, 8), "float32")
    found = rototranslation_scattering(x, bank, (0, 2))
    assert found.dtype == "float32" and found.shape == (8, 3, 4, 4)
    alone = rototranslation_scattering(x[:, 1].astype(float), bank)
    assert np.allclose(found[:, 1], alone, atol=1e-5)
    check_grads(lambda x: rototranslation_scattering(x, morlet_bank((8, 8), 2, 2)))(noise(0, (8, 8), "float64"))
