"""Gabor functions fitted to filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.oracle import noise
from wavelets import fit_gabor


def gabor(n: int, center: tuple[float, float], widths: tuple[float, float], angle: float, phase: float) -> Any:
    """A wave of 1.2 radians a sample, written out."""
    u, v = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 2, indexing="ij")
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    along, across = np.einsum("ij,jkl->ikl", turn, np.stack([u - center[0], v - center[1]]))
    return 3 * np.exp(-((along / widths[0]) ** 2 + (across / widths[1]) ** 2) / 2) * np.cos(1.2 * along + phase)


@pytest.mark.parametrize(("angle", "phase"), [(0.0, 0.0), (0.5, 1.5), (2.0, -0.7), (2.9, 3.0)])
def test_a_gabor_function_is_found(angle: float, phase: float) -> None:
    f = gabor(11, (0.4, -0.7), (1.8, 2.6), angle, phase)
    fit, r2 = fit_gabor(f)
    assert r2 > 1 - 1e-9 and np.abs(fit - f).max() < 1e-3


def test_noise_is_explained_in_part() -> None:
    f = noise(0, (9, 9), "float64")
    fit, r2 = fit_gabor(f)
    assert 0.05 < r2 < 0.6
    assert r2 == pytest.approx(1 - ((fit - f) ** 2).sum() / (f**2).sum())
    assert fit_gabor(f, starts=5)[1] >= r2


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_the_size_of_a_filter_does_not_matter(factor: float) -> None:
    f = noise(0, (7, 7), "float64")
    fit, r2 = fit_gabor(factor * f)
    expected, same = fit_gabor(f)
    assert r2 == pytest.approx(same) and np.abs(fit / factor - expected).max() <= 1e-3


@pytest.mark.parametrize(
    "bad", [np.ones((3, 4)), np.ones(9), np.ones((2, 2)), np.zeros((3, 3)), np.full((3, 3), np.nan)]
)
def test_what_is_no_filter_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="give a square one of finite numbers that is not 0 everywhere"):
        fit_gabor(bad)
    with pytest.raises(ValueError, match="starts is 0; give at least 1"):
        fit_gabor(np.eye(3), starts=0)
