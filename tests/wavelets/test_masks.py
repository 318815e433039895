"""A masked array is refused: computing on would take what its mask hides. A matrix is an array as any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import wavelets as wv

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: wv.hard_threshold(x, 0.1),
        lambda x: wv.ista(x, np.eye(6), 0.1, iterations=1),
        lambda x: wv.learn_dictionary(x, np.eye(6), 0.1, passes=1),
        lambda x: wv.phase_harmonic(x + 0j, 2),
        lambda x: wv.principal_components(x, 1),
        lambda x: wv.randomize_phases(x, RNG),
        lambda x: wv.soft_threshold(x, 0.1),
        lambda x: wv.sparse_loss(x, np.ones((6, 6)), np.eye(6), 0.1),
        lambda x: wv.sparse_loss(np.ones((6, 6)), x, np.eye(6), 0.1),
    ],
)
def test_masked_arrays_are_refused(call: Any) -> None:
    x = 1 + RNG.random((6, 6))
    call(x)
    with pytest.raises(TypeError, match=r"expected an array without a mask, got numpy\.ma\.MaskedArray"):
        call(np.ma.masked_array(x, x > 1.9))


BANK = wv.morlet_bank((6, 6), 1, 2)
SIGNALS = RNG.standard_normal((6, 6)) @ (3 * np.eye(6) + 1j)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(
    "call",
    [
        lambda of: wv.hard_threshold(of(SIGNALS), 0.1),
        lambda of: wv.ista(of(SIGNALS), np.eye(6) + 0.5j, 0.1, iterations=3),
        lambda of: wv.ista(SIGNALS, of(np.eye(6) + 0.5j), 0.1, iterations=3),
        lambda of: wv.learn_dictionary(of(SIGNALS), np.eye(6), 0.1, passes=2)[0],
        lambda of: wv.learn_dictionary(SIGNALS, of(np.eye(6)), 0.1, passes=2)[0],
        lambda of: wv.littlewood_paley(wv.FilterBank(of(BANK.phi), BANK.psi)),
        lambda of: wv.phase_harmonic(of(SIGNALS), 2),
        lambda of: wv.soft_threshold(of(SIGNALS), 0.1),
        lambda of: wv.soft_threshold(SIGNALS, of(np.abs(SIGNALS) / 2)),
        lambda of: wv.sparse_loss(of(SIGNALS), np.ones((6, 6)), np.eye(6), 0.1),
        lambda of: wv.sparse_loss(SIGNALS, of(np.ones((6, 6))), np.eye(6), 0.1),
    ],
)
def test_a_matrix_is_an_array_as_any(call: Any) -> None:
    """Its * is a matrix product, and its sums keep their axes."""
    found, expected = call(np.asmatrix), call(np.asarray)
    assert not isinstance(found, np.matrix) and np.array_equal(found, expected)
