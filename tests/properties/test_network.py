"""Eq. (8) as a factorisation of filters; the order of a batch does not matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hcnn_core as hc
from hcnn_core.testing import assert_linear, assert_translation_covariant, rounding_bound
from tests.core.oracle import (
    BOUNDARIES,
    SEEDS,
    C,
    NDArray,
    eps,
    noise,
    norm,
    wide,
)
from tests.properties.derivatives import REAL, largest
from tests.properties.networks import KINDS, each_in_its_unit, small_network, stages, training_step
from train.config import make_config
from train.networks.hierarchical import merge_factors, name_of
from train.networks.registry import build

# Eq. (8): nine separable terms are every filter.


def factor(w: NDArray, count: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Factors h (Q, 3, 3) and g (Q, s1, s2, K) whose merged filter is w, or as near to w as Q < 9 terms come.

    Of w = U S V^T, as a matrix (9, s1 s2 K), h_q is a column of U and g_q a row of U^T w = S V^T, the leading ones.
    More than nine are U O and O^T U^T w for any O (9, Q) with O O^T = 1. Merging divides by sigma_q = |h_q|.
    """
    matrix = w.reshape(9, -1)
    u = np.linalg.svd(matrix)[0][:, : min(count, 9)]
    mix = np.linalg.qr(rng.standard_normal((count, 9)))[0].T.astype(w.dtype) if count > 9 else np.eye(count)
    h = (u @ mix).T
    g = np.linalg.norm(h, axis=1, keepdims=True) * (h @ matrix)
    return h.astype(w.dtype).reshape(-1, 3, 3), g.astype(w.dtype).reshape(-1, *w.shape[2:])


def merge(h: NDArray, g: NDArray, boundary: str = "zero") -> tuple[NDArray, NDArray]:
    """The merged filter and its offset for patches that need no normalisation: mean 0, covariance 1."""
    moments, bias = (np.zeros(9, h.dtype), np.eye(9, dtype=h.dtype)), np.zeros(g.shape[-1], h.dtype)
    w, offset = merge_factors(h, g, *moments, bias, lengths=(4, 8), stride=(2, 2), boundary=boundary, epsilon=0)
    return w, offset


FACTORED = 3 * C
"""How far merged factors may be from their filter, in eps |w|: C each for the decomposition, which is backward stable,
for its products, and for merging them. In double precision that is 1.3e-14, so 1e-12 leaves room for rounding alone."""


@st.composite
def filters(draw: st.DrawFn) -> NDArray:
    """Filters (3, 3, s1, s2, K), some of fewer than nine columns and so of a lower rank."""
    sizes = draw(st.tuples(st.integers(1, 7), st.integers(1, 11), st.integers(1, 3)))
    return noise(draw(SEEDS), (3, 3, *sizes), draw(st.sampled_from(REAL)))


@given(filters(), st.sampled_from([9, 10, 16, 32]), SEEDS)
def test_nine_terms_are_every_filter(w: NDArray, count: int, seed: int) -> None:
    h, g = factor(w, count, np.random.default_rng(seed))
    merged, offset = merge(h, g)
    assert h.shape[0] == g.shape[0] == count and merged.dtype == w.dtype and merged.shape == w.shape
    assert norm(wide(merged) - w) <= FACTORED * eps(w.dtype) * norm(w)
    assert FACTORED * eps("float64") < 1e-12
    assert not offset.any()


def third_layer(w: NDArray, boundary: str, *, plus: bool, offset: float) -> Callable[[NDArray], NDArray]:
    """x_3 of x_2, (N, u, u, v1, v2) -> (N, u, u, v1', v2', K), with the factors of w and `offset` as its bias."""
    changes = {"depth": 4, "width": 4, "factors": 12, "attribute_kernel": w.shape[2:4], "dtype": "float64"}
    config = make_config("hcnn", {**changes, "boundary": boundary, "nonlinear_factors": plus, "epsilon": 0.0})
    network = build(config, image_size=6, classes=w.shape[-1])
    h, g = factor(w, config.factors, np.random.default_rng(0))
    parameters = {"layer03": {"h": h, "g": g, "bias": np.full(w.shape[-1], offset)}}
    plain = {"layer03": {"mean": np.zeros(9), "covariance": np.eye(9)}}
    return lambda x: next(network.trace(parameters, {name_of(2): x}, plain))[1]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_plain_layer_is_every_convolution_and_the_plus_layer_is_not(boundary: str) -> None:
    x, w = noise(30, (2, 6, 6, 2, 4), "float64"), noise(31, (3, 3, 3, 5, 4), "float64")
    expected = hc.convolve(x, w, (1, 2, 3, 4), boundary=boundary, stride=(1, 1, 2, 2))
    # rho keeps distances or shrinks them; one convolution with w, one with a filter that is not quite w
    bound = (2 * C + FACTORED) * eps("float64") * norm(x) * norm(w)
    plain, plus = (third_layer(w, boundary, plus=p, offset=0.0) for p in (False, True))
    assert largest(plain(x) - hc.elu(expected)) <= bound
    assert largest(plus(x) - hc.elu(expected)) > 0.1

    # above its kink rho is the identity, and the plain layer a convolution; (+) has another rho inside
    offset = 8 * norm(x) * norm(w)
    plain, plus = (third_layer(w, boundary, plus=p, offset=offset) for p in (False, True))
    assert_linear(lambda x: plain(x) - offset, x)
    with pytest.raises(AssertionError, match="op is not linear"):
        assert_linear(lambda x: plus(x) - offset, x)


# The order of a batch does not matter.

ORDER = np.array([2, 0, 3, 1])


def effect_of_order(
    step: Callable[[NDArray, NDArray], dict[str, Any]], x: NDArray, labels: NDArray, stages: int
) -> tuple[float, float]:
    """How far a step, its logits put back in order, is from the same on reordered images, and may be."""
    units = step(x, labels)
    reordered = step(x[ORDER], labels[ORDER])
    expected = {**units, "logits": units["logits"][ORDER]}
    error = largest(each_in_its_unit(units, reordered) - each_in_its_unit(units, expected))
    return error, rounding_bound(lambda x: each_in_its_unit(units, step(x, labels)), x, stages=stages)


@KINDS
def test_the_order_of_images_does_not_matter_in_training(settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(1), **settings)
    error, bound = effect_of_order(
        lambda x, labels: training_step(network, parameters, x, labels), x, labels, 2 * stages(network)
    )
    assert error <= bound


@KINDS
def test_the_order_of_images_does_not_matter_in_evaluation(settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(2), **settings)
    _, seen = network(parameters, noise(40, x.shape, "float64"))

    def logits(x: NDArray) -> NDArray:
        return np.asarray(network(parameters, x, seen)[0])

    error, bound = effect_of_order(lambda x, _: {"logits": logits(x)}, x, labels, stages(network))
    assert error <= bound
    assert_translation_covariant(logits, x, 0, stages=stages(network))  # from image to image


def test_what_depends_on_the_order_is_noticed() -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(3), boundary="zero")
    scale = np.linspace(0.99, 1.01, len(x)).reshape(-1, 1, 1, 1)

    def by_index(x: NDArray, labels: NDArray) -> dict[str, Any]:
        return training_step(network, parameters, x * scale, labels)

    def by_the_first(x: NDArray, labels: NDArray) -> dict[str, Any]:
        return {"logits": network(parameters, x, network(parameters, x[:1])[1])[0]}

    for step in (by_index, by_the_first):
        error, bound = effect_of_order(step, x, labels, 2 * stages(network))
        assert error > 1e-4 > 1e3 * bound
    with pytest.raises(AssertionError, match="op is not covariant to translations"):
        assert_translation_covariant(lambda x: by_the_first(x, labels)["logits"], x, 0, stages=stages(network))
