"""Morlet filters against their definition in space and against Kymatio's; Littlewood-Paley sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.core.oracle import eps
from wavelets import FilterBank, littlewood_paley, morlet_bank, steerable_bank


def gabor(shape: tuple[int, int], deviation: float, slant: float, theta: float, xi: float) -> np.ndarray[Any, Any]:
    """A Gaussian of sum 1 times a plane wave, sampled and summed over periods, by its formula in space."""
    total = np.zeros(shape, complex)
    for i in range(-8, 9):
        for k in range(-8, 9):
            u, v = np.mgrid[i * shape[0] : (i + 1) * shape[0], k * shape[1] : (k + 1) * shape[1]]
            along = u * math.cos(theta) + v * math.sin(theta)
            across = v * math.cos(theta) - u * math.sin(theta)
            total += np.exp(-(along**2 + (slant * across) ** 2) / (2 * deviation**2) + 1j * xi * along)
    return total * slant / (2 * math.pi * deviation**2)


@pytest.mark.parametrize(("shape", "scales", "angles"), [((16, 24), 2, 8), ((8, 8), 3, 3), ((12, 8), 1, 1)])
def test_filters_are_those_of_the_docstring(shape: tuple[int, int], scales: int, angles: int) -> None:
    bank = morlet_bank(shape, scales, angles)
    for j in range(scales):
        for k in range(angles):
            theta = (max(angles // 2 - 1, 0) - k) * math.pi / angles
            wave, envelope = (gabor(shape, 0.8 * 2**j, 4 / angles, theta, xi) for xi in (3 * math.pi / 4 / 2**j, 0.0))
            expected = np.fft.fft2(wave - wave.sum() / envelope.sum() * envelope)
            assert np.abs(bank.psi[j, k] - expected).max() <= 1e-13
            assert abs(bank.psi[j, k, 0, 0]) <= 1e-16
    assert np.abs(bank.phi - np.fft.fft2(gabor(shape, 0.8 * 2 ** (scales - 1), 1, 0, 0))).max() <= 1e-13


@pytest.mark.parametrize(("size", "scales", "angles"), [(32, 2, 8), (64, 3, 6), (16, 1, 4), (16, 2, 3), (32, 1, 5)])
def test_filters_are_kymatios(size: int, scales: int, angles: int) -> None:
    kymatio = pytest.importorskip("kymatio.scattering2d.filter_bank")
    theirs, bank = kymatio.filter_bank(size, size, scales, angles), morlet_bank((size, size), scales, angles)
    assert [(f["j"], f["theta"]) for f in theirs["psi"]] == [(j, k) for j in range(scales) for k in range(angles)]
    factor, bound = 3.1415 / math.pi, 10 * eps("float32")  # they have 3.1415 for pi, and single precision
    psi = np.array([f["levels"][0] for f in theirs["psi"]]).reshape(bank.psi.shape)
    assert np.abs(factor * psi - bank.psi).max() <= bound < np.abs(psi - bank.psi).max()
    assert np.abs(factor * theirs["phi"]["levels"][0] - bank.phi).max() <= bound


@pytest.mark.parametrize("shape", [32, (32,), (16, 32), (32, 16)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tight_filters_have_a_littlewood_paley_sum_of_one(shape: Any, dtype: str) -> None:
    bank, plain = (morlet_bank(shape, 3, 4, tight=tight, dtype=dtype) for tight in (True, False))
    assert bank.phi.dtype == bank.psi.dtype == dtype
    assert bank.angles == (4 if len(bank.shape) == 2 else 1)
    assert np.abs(littlewood_paley(bank) - 1).max() <= 20 * eps(dtype)
    assert np.abs(littlewood_paley(plain) - 1).max() > 0.1


def test_littlewood_paley_sum_is_its_definition() -> None:
    bank = morlet_bank((4, 8), 2, 3)
    for a in range(4):
        for b in range(8):
            halves = (bank.psi[:, :, a, b] ** 2 + bank.psi[:, :, -a % 4, -b % 8] ** 2).sum() / 2
            assert littlewood_paley(bank)[a, b] == pytest.approx(bank.phi[a, b] ** 2 + halves, rel=1e-14)


@pytest.mark.parametrize(("shape", "angles"), [(64, 1), ((32, 32), 4), ((32, 16), 3), ((16, 16), 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steerable_filters_are_tight_and_limited(shape: Any, angles: int, dtype: str) -> None:
    bank = steerable_bank(shape, 3, angles, dtype=dtype)
    assert bank.psi.dtype == bank.phi.dtype == dtype
    assert np.abs(littlewood_paley(bank) - 1).max() <= 20 * eps(dtype)
    assert not (bank.phi * bank.psi[1]).any()


@pytest.mark.parametrize(("shape", "angles"), [(64, 1), ((32, 32), 4), ((32, 64), 3), ((32, 32), 2), ((32, 32), 6)])
@pytest.mark.parametrize("scales", [1, 3])
def test_steerable_filters_of_every_scale_are_the_formula(shape: Any, angles: int, scales: int) -> None:
    bank = steerable_bank(shape, scales, angles)
    w = np.stack(np.meshgrid(*(2 * math.pi * np.fft.fftfreq(n) for n in bank.shape), indexing="ij"))
    inside = (w > -3.14).all(0) & w.any(0)  # the frequency pi is also -pi
    radius = np.sqrt((w**2).sum(0)).clip(1e-9)
    factors = []
    for j in range(scales):
        octave = np.log2(radius / (math.pi / math.sqrt(2) / 2**j))
        octave = np.minimum(octave, 0) if j == 0 else octave
        radial = np.where(abs(octave) < 1, np.cos(math.pi / 2 * octave), 0)
        for k in range(angles):
            theta = (max(angles // 2 - 1, 0) - k) * math.pi / angles
            along = (w.T @ np.array([math.cos(theta), math.sin(theta)])[: len(w)]).T / radius
            formula = radial * np.where(along > 1e-9, along, 0) ** (angles - 1) * (along > 1e-9)
            chosen = inside & (formula > 1e-3)
            assert np.abs(bank.psi[j, k][inside & (formula == 0)]).max() < 1e-9
            factors.append(bank.psi[j, k][chosen] / formula[chosen])
    found = np.concatenate(factors)
    assert np.abs(found / found[0] - 1).max() < 1e-12


@pytest.mark.parametrize("n", [98, 206])
def test_the_frequency_pi_is_found_at_lengths_that_round(n: int) -> None:
    """NumPy's `fftfreq` of these lengths is not -1/2 there."""
    assert np.fft.fftfreq(n)[n // 2] != -0.5
    bank = steerable_bank(n, 1)
    assert np.abs(littlewood_paley(bank) - 1).max() <= 1e-14
    assert bank.psi[0, 0, n // 2] == pytest.approx(1)


def test_a_bank_is_brought_to_the_precision_of_an_array() -> None:
    bank = morlet_bank((8, 8), 1)
    assert bank.like(np.zeros(3)) is bank
    assert bank.like(np.zeros(3, np.complex64)).psi.dtype == np.float32
    mixed = FilterBank(bank.phi.astype(np.float32), bank.psi)
    assert mixed.like(np.zeros(3, np.float32)).psi.dtype == np.float32
