"""Random processes: what is known of their moments, and the equation of the flow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.core.oracle import noise
from wavelets import decaying_vorticity, lognormal_cascade, multifractal_noise, random_warp, randomize_phases


@pytest.mark.parametrize("shape", [(32,), (33,), (8, 10), (9, 8)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_phases_keep_the_spectrum(shape: tuple[int, ...], dtype: str) -> None:
    x = noise(0, shape, dtype) + 3
    y = randomize_phases(x, np.random.default_rng(1))
    bound = 100 * float(np.finfo(dtype).eps) * np.linalg.norm(x)
    assert y.dtype == dtype and np.abs(y - x).max() > 0.1
    assert np.abs(np.abs(np.fft.fftn(y)) - np.abs(np.fft.fftn(x))).max() <= bound


def test_a_flow_obeys_the_equation() -> None:
    """Of two runs with one beginning, what changed in a short time is the right-hand side."""
    n, short = 128, 1e-3
    w = decaying_vorticity(n, np.random.default_rng(0), time=0.1, viscosity=4e-3, speed=4.0)
    later = decaying_vorticity(n, np.random.default_rng(0), time=0.1 + short, viscosity=4e-3, speed=4.0)
    k = np.fft.fftfreq(n, 1 / n)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    square = np.where(kx**2 + ky**2 > 0, kx**2 + ky**2, 1)
    stream = np.fft.ifft2(np.fft.fft2(w) / square).real

    def derivative(f: np.ndarray, axis: int) -> np.ndarray:
        h = 2 * math.pi / n
        near, far = (np.roll(f, -s, axis) - np.roll(f, s, axis) for s in (1, 2))
        return (8 * near - far) / (12 * h)

    laplacian = np.fft.ifft2(-(kx**2 + ky**2) * np.fft.fft2(w)).real
    transport = derivative(stream, 1) * derivative(w, 0) - derivative(stream, 0) * derivative(w, 1)
    expected = 4e-3 * laplacian - transport
    change = (later - w) / short
    assert np.linalg.norm(change - expected) < 0.02 * np.linalg.norm(expected)
    assert abs(w.mean()) < 1e-12


def test_an_inviscid_flow_keeps_its_enstrophy_and_viscosity_takes_it() -> None:
    """All flows have one beginning; 5,000 times less viscosity loses hundreds of times less."""
    options = {"n": 32, "time": 0.2, "speed": 4.0}
    slow, thick = (
        (decaying_vorticity(rng=np.random.default_rng(0), viscosity=nu, **options) ** 2).mean() for nu in (1e-6, 5e-3)
    )
    assert slow == pytest.approx(16, rel=1e-3)
    assert thick < 0.97 * slow


def test_weights_of_a_cascade_have_their_moments() -> None:
    rng, intermittency = np.random.default_rng(0), 0.1
    density = lognormal_cascade(16, intermittency, rng)
    assert density.shape == (2**16,) and density.min() > 0
    assert np.array_equal(lognormal_cascade(3, 0.0, rng), np.ones(8))
    # neighbours of one parent differ by one weight each: the log of their ratio has twice its variance
    ratio = np.log(density[::2] / density[1::2])
    assert ratio.var() == pytest.approx(2 * intermittency, rel=0.05)
    assert np.mean([lognormal_cascade(6, 0.2, rng).mean() for _ in range(4000)]) == pytest.approx(1, abs=0.03)


def test_a_multifractal_walk_has_its_covariances() -> None:
    intermittency, scale, n = 0.05, 64, 2**17
    x = multifractal_noise(n, intermittency, np.random.default_rng(1), scale=scale)
    assert (x**2).mean() == pytest.approx(1, rel=0.05)
    logs = np.log(np.abs(x))
    logs -= logs.mean()
    for lag in (1, 4, 16):  # those of the noise's logarithms vanish
        expected = intermittency * math.log(scale / (1 + lag))
        assert (logs * np.roll(logs, lag)).mean() == pytest.approx(expected, abs=0.02)
    assert abs((logs * np.roll(logs, 2 * scale)).mean()) < 0.02
    assert multifractal_noise(8, intermittency, np.random.default_rng(1)).shape == (8,)
    white = multifractal_noise(n, 0.0, np.random.default_rng(1))
    assert (white**4).mean() == pytest.approx(3, rel=0.05)


def test_leverage_is_felt_after_falls_and_not_before() -> None:
    for strength, sign in ((0.0, 0), (0.1, -1)):
        x = multifractal_noise(2**16, 0.02, np.random.default_rng(2), scale=256, leverage=strength)
        x /= x.std()
        after, before = ((np.roll(x, -shift) ** 2 * x).mean() for shift in (1, -1))
        assert abs(before) < 0.06
        assert (after < -0.1) if sign else abs(after) < 0.06


def test_a_warp_has_gradient_1_and_the_smoothness_asked_for() -> None:
    n, width = 64, 6.0
    tau = random_warp(n, width, np.random.default_rng(0))
    jacobians = np.empty((n, n, 2, 2))
    for i, j in np.ndindex(n, n):
        jacobians[i, j, :, 0] = tau[:, (i + 1) % n, j] - tau[:, i, j]
        jacobians[i, j, :, 1] = tau[:, i, (j + 1) % n] - tau[:, i, j]
    assert np.linalg.svd(jacobians, compute_uv=False).max() == pytest.approx(1)
    power = (np.abs(np.fft.fft2(tau)) ** 2).sum(0)
    k = 2 * np.pi * np.fft.fftfreq(n)
    spread = (power * k[:, None] ** 2).sum() / power.sum()  # of exp(-width^2 k^2) it is 1 / (2 width^2)
    assert spread == pytest.approx(1 / (2 * width**2), rel=0.3)
