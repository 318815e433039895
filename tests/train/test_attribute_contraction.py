"""Distances before and after layers, bounds of their gains, and probes: against dense matrices and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.train.test_attribute_features import random_model
from train.attributes.contraction import (
    PairDistances,
    _pairs,
    closest_classes,
    gains,
    median_interval,
    operator_norm,
    pair_distances,
    probe,
)
from train.attributes.features import Model
from train.config import make_config
from train.data import Dataset, channel_statistics
from train.networks.registry import build


def model_of(dataset: Dataset, **changes: Any) -> Model:
    settings = {"width": 4, "factors": 4, "depth": 5, "boundary": "periodic", "dtype": "float64"}
    network = build(make_config("sample", settings | changes), 8)
    images = dataset.train_images[:, :8, :8]
    return Model(network, {}, {}, *channel_statistics(images), "").untrained(images, 0)


def test_distances_of_pairs(few_images: Dataset) -> None:
    model = random_model(few_images)
    images, labels = few_images.train_images, few_images.train_labels
    found = pair_distances(model, images, labels, 60, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    for same, distances in ((True, found.within), (False, found.between)):
        one, other = _pairs(labels, same, 60, rng)
        assert ((labels[one] == labels[other]) == same).all() and (one != other).all()
        layers = [model.standardised(images), *(x for _, x in model.outputs(images))]
        assert distances.shape == (60, len(layers))
        for j, x in enumerate(layers):
            expected = [np.linalg.norm((x[a] - x[b]).astype(float)) for a, b in zip(one, other, strict=True)]
            assert np.allclose(distances[:, j], expected, rtol=1e-4)
    assert np.allclose(found.ratios[0], found.within[:, 1:] / found.within[:, :-1])


@pytest.mark.parametrize("many", [6, 20, 500])
def test_intervals_of_medians_hold_the_median(many: int) -> None:
    """Of a skewed distribution; its mean is another."""
    rng, runs = np.random.default_rng(0), 1000
    values = np.exp(rng.standard_normal((many, runs)))
    low, high = median_interval(values)
    assert np.isnan(median_interval(values[:5])).all()  # too few
    assert ((low <= 1) & (high >= 1)).sum() >= 932  # 1000 at 0.95: fewer have a probability below 0.005
    assert (high < np.exp(0.5)).sum() > (900 if many == 500 else -1)
    assert ((low <= 1.5) & (high >= 1.5)).sum() < (10 if many == 500 else 1001)  # a planted difference


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_separation_of_pairs(factor: float) -> None:
    """Distances between classes that are those within, and a tenth larger at the second depth."""
    rng = np.random.default_rng(0)
    within, between = rng.gamma(9, size=(2, 500, 2))
    between[:, 1] *= factor
    pairs = PairDistances(within, between)
    assert np.allclose(pairs.separation, between.mean(axis=0) / within.mean(axis=0))
    samples = pairs.separation_samples(rng)
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    assert (low < pairs.separation).all() and (pairs.separation < high).all()
    assert low[0] < 1 < high[0] and low[1] < factor < high[1] and (low[1] > 1) == (factor > 1)
    assert samples.std(axis=0) == pytest.approx(np.sqrt(2 / 500 / 9), rel=0.15)  # of a ratio of two such means


def test_operator_norm_is_the_largest_singular_value() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((7, 5))
    found, converged = operator_norm(
        lambda x: matrix @ x, lambda y: matrix.T @ y, rng.standard_normal(5), tolerance=1e-9
    )
    assert converged and found == pytest.approx(np.linalg.norm(matrix, 2))
    assert operator_norm(lambda x: 0 * x, lambda y: 0 * y, np.ones(3)) == (0, True)
    _, converged = operator_norm(lambda x: matrix @ x, lambda y: matrix.T @ y, np.ones(5), limit=2)
    assert not converged


def dense(operator: Any, shape: tuple[int, ...]) -> Any:
    """The matrix of a linear map of arrays without their first axis, whose length is that of a batch."""
    size = int(np.prod(shape))
    return operator(np.eye(size).reshape(-1, *shape)).reshape(size, -1).T


@pytest.mark.parametrize("changes", [{}, {"nonlinear_factors": True, "boundary": "zero"}, {"normalization": "both"}])
@pytest.mark.parametrize("activation", ["elu", "gelu"])
def test_gains_bound_the_lipschitz_constant(few_images: Dataset, changes: dict[str, Any], activation: str) -> None:
    model = model_of(few_images, **changes, activation=activation)
    slope = 1.0 if activation == "elu" else 1.129
    images = few_images.train_images[:2, :8, :8]
    found = list(gains(model, images, np.random.default_rng(0)))
    assert [gain.j for gain in found] == [1, 2, 3, 4]
    x = model.standardised(images)
    folded = model.network.merged(model.parameters, model.moments)
    for gain, (layer, after) in zip(found, model.outputs(images), strict=True):
        norms, shape = [], x.shape[1:]
        for stage in layer.linear_maps(folded[layer.name]):
            if np.prod(shape) <= 1200:
                norms.append(np.linalg.norm(dense(stage, shape), 2))
            shape = stage(np.zeros((1, *shape))).shape[1:]
        if len(norms) == (2 if layer.nonlinear else 1):
            norms = [slope * norm for norm in norms]
            assert np.prod(norms) * 0.95 <= gain.upper <= np.prod(norms) * (1 + 1e-5)
        assert 0 < gain.local <= gain.upper * 1.01
        # any two inputs: their distance is stretched by no more than the bound
        stretched = np.linalg.norm(after[0] - after[1]) / np.linalg.norm(x[0] - x[1])
        assert stretched <= gain.upper * 1.02
        x = after


@pytest.mark.parametrize("boundary", ["periodic", "zero", "attributes"])
def test_linear_maps_are_the_layers_without_rho(few_images: Dataset, boundary: str) -> None:
    model = model_of(few_images, boundary=boundary)
    folded = model.network.merged(model.parameters, model.moments)
    x = model.standardised(few_images.train_images[:2, :8, :8])
    for layer, after in model.outputs(few_images.train_images[:2, :8, :8]):
        (stage,) = layer.linear_maps(folded[layer.name])
        z = stage(x) + folded[layer.name]["bias"]
        assert np.allclose(np.where(z > 0, z, np.expm1(np.minimum(z, 0))), after)
        x = after


def test_probes() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 6))
    labels = rng.integers(3, size=400)
    features = 5 + centres[labels] + 0.3 * rng.standard_normal((400, 6))
    by_neighbour, linear = probe(features[:300], labels[:300], features[300:], labels[300:])
    assert by_neighbour > 0.9 and linear > 0.9
    shuffled = rng.permutation(labels)
    by_neighbour, linear = probe(features[:300], shuffled[:300], features[300:], shuffled[300:])
    assert by_neighbour < 0.5 and linear < 0.5


def test_leave_one_out_chooses_a_penalty() -> None:
    """Far more features than images: an unpenalised fit is useless."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=500)
    features = rng.standard_normal((500, 60))
    features[:, 0] += 2 * (2 * labels - 1)
    _, linear = probe(features[:70], labels[:70], features[70:], labels[70:])
    plain = np.linalg.lstsq(features[:70] - features[:70].mean(0), 2.0 * labels[:70] - 1, rcond=None)[0]
    unpenalised = (((features[70:] - features[:70].mean(0)) @ plain > 0) == labels[70:]).mean()
    assert linear > unpenalised + 0.05


def test_closest_images_of_different_classes() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((80, 3)), rng.integers(4, size=80)
    distance = closest_classes(features, labels, np.random.default_rng(1))
    best = min(
        float(np.linalg.norm(features[a] - features[b])) for a in range(80) for b in range(80) if labels[a] < labels[b]
    )
    mean = np.mean([np.linalg.norm(a - b) for a in features for b in features if a is not b])
    assert distance == pytest.approx(best / mean, rel=0.05)
    assert np.isnan(closest_classes(np.ones((4, 2)), np.asarray([0, 1, 0, 1]), rng))
