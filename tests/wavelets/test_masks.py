"""A masked array is refused: computing on would take what its mask hides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import wavelets as wv

RNG = np.random.default_rng(0)
LABELS = np.arange(6) % 2


@pytest.mark.parametrize(
    "call",
    [
        lambda x: wv.fit_gabor(x),
        lambda x: wv.hard_threshold(x, 0.1),
        lambda x: wv.ista(x, np.eye(6), 0.1, iterations=1),
        lambda x: wv.local_support_vectors(x, LABELS, 1),
        lambda x: wv.organize(x),
        lambda x: wv.principal_components(x, 1),
        lambda x: wv.randomize_phases(x, RNG),
        lambda x: wv.scaling_exponents(x, 0, 3),
        lambda x: wv.soft_threshold(x, 0.1),
        lambda x: wv.sparse_loss(x, np.ones((6, 6)), np.eye(6), 0.1),
    ],
)
def test_masked_arrays_are_refused(call: Any) -> None:
    x = 1 + RNG.random((6, 6))
    call(x)
    with pytest.raises(TypeError, match=r"expected an array without a mask, got numpy\.ma\.MaskedArray"):
        call(np.ma.masked_array(x, x > 1.9))
