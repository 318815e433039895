"""Small networks, and what one training step gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autodiff
from autodiff import tree_leaves, value_and_grad
from tests.core.oracle import (
    NDArray,
)
from tests.properties.derivatives import largest
from train.config import make_config
from train.networks.hierarchical import hierarchy
from train.networks.network import Network
from train.networks.registry import build


def small_network(
    rng: np.random.Generator, dtype: str = "float64", **changes: Any
) -> tuple[Network, Any, NDArray, NDArray]:
    """A network of four layers, its weights, four images and their labels."""
    settings = {"depth": 5, "width": 4, "factors": 3, "attribute_kernel": (3, 5), "strided_layers": (4,)}
    network = build(make_config("hcnn", {**settings, "dtype": dtype, **changes}), image_size=6, classes=3)
    parameters = network.initialize(rng)
    for weights in parameters.values():
        if "bias" in weights:
            weights["bias"] += rng.standard_normal(weights["bias"].shape).astype(dtype)
    return network, parameters, rng.standard_normal((4, 6, 6, 3)).astype(dtype), np.array([0, 2, 1, 2])


def stages(network: Network) -> int:
    """Sums that follow one another: convolutions, moments, and the marginals of the head."""
    return sum(1 + bool(layer.factors) + layer.nonlinear for layer in hierarchy(network)) + 1


KINDS = pytest.mark.parametrize(
    "settings",
    [
        {"boundary": "zero"},
        {"boundary": "periodic", "head": "sum"},
        {"boundary": "zero", "nonlinear_factors": True},
        {"boundary": "periodic", "nonlinear_factors": True, "reduction": "sum"},
    ],
    ids=["plain, zero", "plain, periodic", "plus, zero", "plus, periodic"],
)


def each_in_its_unit(units: Any, results: Any) -> NDArray:
    """Arrays of many sizes as one vector: each divided by the largest element of its unit."""
    pairs = zip(tree_leaves(results), tree_leaves(units), strict=True)
    return np.concatenate([np.ravel(result) / (largest(unit) or 1.0) for result, unit in pairs])


def training_step(network: Network, parameters: Any, x: Any, labels: Any) -> dict[str, Any]:
    """What a batch, normalised by its own moments, gives."""

    def loss(parameters: Any) -> Any:
        logits, moments = network(parameters, x)
        return autodiff.cross_entropy(logits, labels), {"logits": logits, "moments": moments}

    (value, results), gradients = value_and_grad(loss, has_aux=True)(parameters)
    return {**results, "loss": value, "gradients": gradients}
