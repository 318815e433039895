"""Principal components: whitened, in order, and back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.oracle import noise
from wavelets import principal_components


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_components_are_white_and_the_largest(dtype: str) -> None:
    x = noise(0, (400, 6), dtype) * np.array([1, 5, 0.1, 2, 3, 0.5], dtype) @ noise(1, (6, 6), dtype) + 4
    mean, whiten, unwhiten = principal_components(x, 4)
    z = (x - mean) @ whiten
    bound = 1e4 * float(np.finfo(dtype).eps)
    assert z.dtype == whiten.dtype == unwhiten.dtype == dtype
    assert np.abs(np.cov(z.T) - np.eye(4)).max() < bound
    assert np.abs(unwhiten @ whiten - np.eye(4)).max() < bound
    # by Eckart and Young, no other four leave less
    singular = np.linalg.svd(x.astype(float) - x.mean(0, dtype=float), compute_uv=False)
    left = np.linalg.norm(z @ unwhiten + mean - x)
    assert left == pytest.approx(np.linalg.norm(singular[4:]), rel=1e-3)
    whole = principal_components(x, 6)
    assert np.abs((x - mean) @ whole.whiten @ whole.unwhiten + mean - x).max() < bound * np.abs(x).max()


def test_many_vectors_in_single_precision_keep_their_mean() -> None:
    x = np.full((400_000, 2), 100.3, np.float32)
    x[::2] += 1
    mean = principal_components(x, 1).mean
    assert mean.dtype == np.float32 and np.abs(mean - x.mean(0, dtype=float)).max() <= 1e-5


@pytest.mark.parametrize("factor", [2.0**-600, 2.0**600])
def test_sizes_do_not_matter(factor: float) -> None:
    x = noise(0, (50, 3), "float64")
    found, expected = principal_components(factor * x, 3), principal_components(x, 3)
    assert np.allclose(factor * found.whiten, expected.whiten) and np.allclose(
        found.unwhiten / factor, expected.unwhiten
    )
