"""Translations explain a group's action exactly where a layer is covariant to it, and not where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.attributes.symmetry import translation_explains

N = 16


def circle(rng: np.random.Generator, count: int = 200) -> Any:
    """Random functions on a circle, rotated out of sight, and the rotation."""
    rotation, _ = np.linalg.qr(rng.standard_normal((N, N)))
    return rng.standard_normal((count, N)) @ rotation.T, rotation


def acting(rotation: Any) -> Any:
    return lambda s, x: np.roll(x @ rotation, s, axis=1) @ rotation.T


@given(seed=st.integers(0, 1000), step=st.sampled_from([1, 3, 7, 15]), start=st.integers(0, N - 1))
def test_a_covariant_layer_is_found_with_its_step(seed: int, step: int, start: int) -> None:
    rng = np.random.default_rng(seed)
    x, rotation = circle(rng)
    order = (start + step * np.arange(N)) % N  # v_1 runs round the circle in steps

    def layer(x: Any) -> Any:
        return np.maximum((x @ rotation)[:, order], 0)

    found = translation_explains(layer, acting(rotation), x, elements=range(1, N), axis=1, rng=rng)
    assert np.allclose(found.shares, 1) and found.p == 0.01
    assert found.is_isomorphic(range(1, N), N)
    assert np.array_equal(found.shifts * step % N, np.arange(1, N))


def test_it_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, rotation = circle(rng, 40)
    h = rng.standard_normal((N, 3, 5))

    def layer(x: Any) -> Any:
        return np.tanh(np.tensordot(x, h, 1))  # v along the last axis but one

    found = translation_explains(layer, acting(rotation), x, elements=[2, 5], axis=-2, orders=3, rng=rng)
    for s, share, shift in zip([2, 5], found.shares, found.shifts, strict=True):
        moved = layer(acting(rotation)(s, x))
        left = [np.sum((moved - np.roll(layer(x), t, axis=1)) ** 2) for t in range(3)]
        assert shift == np.argmin(left)
        assert np.isclose(share, 1 - min(left) / np.sum((moved - moved.mean(axis=0)) ** 2))
    assert np.isclose(found.share, found.shares.mean())


@pytest.mark.parametrize("offset", [1e5, 1e9])
def test_what_all_arrays_have_in_common_does_not_matter(offset: float) -> None:
    h = np.random.default_rng(1).standard_normal((N, N, 3))

    def found(offset: float) -> Any:
        rng = np.random.default_rng(0)
        x, rotation = circle(rng, 50)
        layers = (lambda x: np.maximum(x @ rotation, 0) + offset, lambda x: np.tanh(np.tensordot(x, h, 1)) + offset)
        act = acting(rotation)
        return [translation_explains(f, act, x, elements=[1, 3, 7], axis=1, rng=rng) for f in layers]

    for far, near in zip(found(offset), found(0.0), strict=True):
        assert np.allclose(far.shares, near.shares, atol=1e-6) and np.array_equal(far.shifts, near.shifts)
        assert far.p == near.p


def test_layers_that_are_not_covariant() -> None:
    """In random order, with random filters, and invariant: more than in random orders in none of the three."""
    rng = np.random.default_rng(1)
    x, rotation = circle(rng)
    shuffled = np.array([0, 9, 4, 13, 2, 7, 15, 3, 10, 1, 12, 6, 14, 5, 11, 8])
    h = rng.standard_normal((N, N))
    layers = {
        "shuffled": lambda x: np.maximum((x @ rotation)[:, shuffled], 0),
        "random": lambda x: np.maximum(x @ h, 0),
        "invariant": lambda x: np.abs(np.fft.fft(x @ rotation)),
    }
    found = {
        name: translation_explains(layer, acting(rotation), x, elements=range(1, N), axis=1, rng=rng)
        for name, layer in layers.items()
    }
    assert all(f.p > 0.01 and not f.is_isomorphic(range(1, N), N) for f in found.values())
    assert found["shuffled"].share < 0.5
    assert np.isclose(found["invariant"].share, 1) and found["invariant"].p == 1
