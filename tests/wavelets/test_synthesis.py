"""Moments as a distance, and L-BFGS on gradients of the tape."""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import check_grads
from tests.core.oracle import noise
from wavelets import (
    adam,
    harmonic_statistics,
    lbfgs,
    moment_distance,
    momentum,
    morlet_bank,
    randomize_phases,
    steerable_bank,
)

BANK = steerable_bank((16, 16), 2, 2)


def test_the_distance_is_that_of_the_scaled_moments() -> None:
    x, y = noise(0, (16, 16), "float64"), noise(1, (16, 16), "float64")
    distance, count = moment_distance(x, BANK, harmonics=(0, 2), lags=1)
    one, other = (harmonic_statistics(z, BANK, harmonics=(0, 2), lags=1) for z in (x, y))
    deviation = np.sqrt(np.diag(one["covariance"]).real)
    expected = (np.abs((one["mean"] - other["mean"]) / deviation) ** 2).sum()
    expected += (np.abs((one["covariance"] - other["covariance"]) / np.outer(deviation, deviation)) ** 2).sum()
    expected += (np.abs((one["lagged"] - other["lagged"]) / deviation**2) ** 2).sum()
    assert distance(y) == pytest.approx(expected, rel=1e-12)
    moments = [one["mean"], one["covariance"][np.triu_indices(1 + 2 * 2 * 2)], one["lagged"]]
    assert count == sum(m.size + np.count_nonzero(np.abs(m.imag) > 1e-15 * np.abs(m.real).max()) for m in moments)
    assert moment_distance(x, BANK, lags=0)[1] < moment_distance(x, BANK)[1]


def test_moments_of_coarse_scales_alone() -> None:
    """Rows of finer scales are left out, and no fine detail is seen."""
    x, y = noise(0, (16, 16), "float64"), noise(1, (16, 16), "float64")
    distance, count = moment_distance(x, BANK, harmonics=(0, 2), first=1)
    kept = [0, 5, 6, 7, 8]  # the low-pass row, then two orientations and two harmonics of scale 1
    one, other = (harmonic_statistics(z, BANK, harmonics=(0, 2)) for z in (x, y))
    deviation = np.sqrt(np.diag(one["covariance"]).real)[kept]
    pairs = {key: (one[key] - other[key])[..., kept] for key in one}
    pairs["covariance"] = pairs["covariance"][kept] / np.outer(deviation, deviation)
    pairs = {**pairs, "mean": pairs["mean"] / deviation, "lagged": pairs["lagged"] / deviation**2}
    assert distance(y) == pytest.approx(sum((np.abs(d) ** 2).sum() for d in pairs.values()), rel=1e-12)
    moments = [one["mean"][kept], one["covariance"][np.ix_(kept, kept)][np.triu_indices(5)], one["lagged"][..., kept]]
    assert count == sum(m.size + np.count_nonzero(np.abs(m.imag) > 1e-15 * np.abs(m.real).max()) for m in moments)
    check_grads(distance, order=1)(y)
    finest = (-1.0) ** np.arange(16)  # beyond the spectra of scale 1
    assert distance(x + finest) < 1e-20 < moment_distance(x, BANK, harmonics=(0, 2))[0](x + finest)


def test_translations_have_no_distance_but_random_phases_have() -> None:
    x = np.maximum(noise(2, (16, 16), "float64"), 0)
    distance, _ = moment_distance(x, BANK)
    assert distance(np.roll(x, (3, 5), (0, 1))) <= 1e-24
    assert distance(randomize_phases(x, np.random.default_rng(0))) > 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_descent_reaches_the_moments(dtype: str) -> None:
    x, start = noise(3, (16, 16), dtype), noise(4, (16, 16), dtype)
    distance, _ = moment_distance(x, BANK, harmonics=(0, 1), lags=0)
    y, value = lbfgs(distance, start, iterations=40)
    assert y.dtype == dtype and y.shape == x.shape
    assert value == pytest.approx(float(distance(y)), rel=1e-3)
    assert value < 1e-2 * distance(start)


def test_descent_solves_a_quadratic_problem() -> None:
    a, b = noise(5, (6, 4), "float64"), noise(6, (6,), "float64")
    y, value = lbfgs(lambda x: np.sum((a @ x - b) ** 2), np.zeros(4), iterations=100)
    expected, residual = np.linalg.lstsq(a, b)[:2]
    assert np.abs(y - expected).max() < 1e-4 and value == pytest.approx(residual[0], rel=1e-8)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_the_size_of_a_function_does_not_matter(size: float) -> None:
    y, _ = lbfgs(lambda x: size * np.sum((x - 1) ** 2), np.zeros(2), iterations=100)
    assert np.abs(y - 1).max() < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_is_its_algorithm(dtype: str) -> None:
    """The algorithm of arXiv:1412.6980, with a falling rate, written out for one number after the other."""
    start = {"a": noise(8, (3,), dtype), "b": [noise(9, (2, 2), dtype)]}
    batches = [noise(10 + i, (3,), dtype) for i in range(5)]

    def loss(p: dict, batch: np.ndarray) -> np.ndarray:
        return np.sum((p["a"] - batch) ** 2) + np.sum(p["b"][0] ** 4)

    found = adam(loss, start, batches, rate=0.1, decays=(0.8, 0.9))
    assert found["a"].dtype == found["b"][0].dtype == dtype
    a, m, v = start["a"].astype(float), np.zeros(3), np.zeros(3)
    for t, batch in enumerate(batches, 1):
        g = 2 * (a - batch)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        a = a - 0.1 * (1 - (t - 1) / 5) * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
    assert np.abs(found["a"] - a).max() <= 100 * np.finfo(dtype).eps
    assert loss(found, batches[0]) < loss(start, batches[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_momentum_is_its_recurrence(dtype: str) -> None:
    start = {"a": noise(8, (3,), dtype), "b": [noise(9, (2,), dtype)]}
    batches = [noise(10 + i, (3,), dtype) for i in range(4)]
    found = momentum(lambda p, batch: np.sum((p["a"] - batch) ** 2), start, batches, rate=0.2, keep=0.7)
    a, v = start["a"].astype(float), np.zeros(3)
    for t, batch in enumerate(batches):
        v = 0.7 * v - 0.2 * (1 - t / 4) * 2 * (a - batch)
        a = a + v
    assert found["a"].dtype == dtype and np.abs(found["a"] - a).max() <= 100 * np.finfo(dtype).eps
    assert np.array_equal(found["b"][0], start["b"][0])


def test_what_has_no_moments_is_refused() -> None:
    slow = np.cos(2 * np.pi * np.arange(16) / 16)[:, None] + np.zeros(16)  # the low-pass row alone is not constant
    variance = harmonic_statistics(slow, BANK)["covariance"].diagonal().real
    kept = [0, *range(1 + (len(variance) - 1) // BANK.scales, len(variance))]
    with pytest.raises(ValueError, match=f"row {min(kept, key=variance.__getitem__)} of the statistics of x is const"):
        moment_distance(slow, BANK, first=1)  # rows are counted in all the statistics


def test_rounding_errors_are_no_frequencies() -> None:
    """The wavelet coefficients of these arrays are not quite 0, and would not be those of their translations."""
    wave = np.cos(2 * np.pi * 5 * np.arange(24) / 24 + 0.3)[:, None] + np.zeros(40)
    for x, bank in ((np.full((12, 20), 0.1), morlet_bank((12, 20), 1, 3)), (wave, steerable_bank((24, 40), 2, 3))):
        assert (np.abs(np.diagonal(harmonic_statistics(x, bank)["covariance"])) > 0).all()
        with pytest.raises(ValueError, match="of the statistics of x is constant: x has no such frequencies"):
            moment_distance(x, bank)
