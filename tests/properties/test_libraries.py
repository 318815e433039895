"""The tape and the network on arrays of every library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import autodiff
import hcnn_core as hc
from autodiff import tree_leaves, tree_map, vjp
from hcnn_core.backend import get_namespace
from hcnn_core.testing import rounding_bound
from tests.core.oracle import (
    NDArray,
    noise,
)
from tests.properties.derivatives import REAL, cases, direction, largest
from tests.properties.networks import KINDS, each_in_its_unit, small_network, stages, training_step
from tests.remote import Remote, put, take

# The tape and the network on arrays of every library.


@dataclass(frozen=True)
class Library:
    """An array library: how trees of arrays get there and back, and the type of its arrays."""

    put: Callable[[Any], Any]
    take: Callable[[Any], Any]
    kind: type


def on_gpu() -> Library:
    cupy = get_namespace("cupy")
    return Library(
        lambda tree: tree_map(cupy.asarray, tree),
        lambda tree: tree_map(cupy.asnumpy, tree),
        cupy.ndarray,
    )


@pytest.fixture(params=["stand-in", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request: pytest.FixtureRequest) -> Library:
    return Library(put, take, Remote) if request.param == "stand-in" else on_gpu()


def assert_same(library: Library, function: Callable[..., Any], x: NDArray, *others: Any, stages: int = 1) -> None:
    """The same values from the library as from NumPy, in the library's own arrays of the same dtypes and shapes."""
    expected, found = function(x, *others), function(library.put(x), *library.put(others))
    pairs: Any = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    for one, other in pairs:
        assert isinstance(one, library.kind) and (one.dtype, one.shape) == (other.dtype, np.shape(other))
    error = each_in_its_unit(expected, tree_map(lambda a, b: a - b, library.take(found), expected))
    bound = rounding_bound(lambda x: each_in_its_unit(expected, function(x, *others)), x, stages=stages)
    assert largest(error) <= bound


@pytest.mark.parametrize(("dtype", "name"), [(d, n) for d in ("float32", "complex64") for n in cases(d)])
def test_derivatives_in_every_library(library: Library, dtype: str, name: str) -> None:
    """Value, transposed derivative and derivative; what other tests hold for them on NumPy holds elsewhere."""
    case = cases(dtype)[name]

    def all_three(x: Any, others: Any, d: Any, g: Any) -> Any:
        y, pullback = vjp(lambda x: case.fun(*others[: case.argnum], x, *others[case.argnum :]), x)
        return [y, pullback(g)[0], vjp(lambda g: pullback(g)[0], g)[1](d)[0]]

    others = case.operands[: case.argnum] + case.operands[case.argnum + 1 :]
    assert_same(library, all_three, case.x, others, direction(case), noise(10, np.shape(case.at(case.x)), dtype))


@KINDS
@pytest.mark.parametrize("dtype", REAL)
def test_training_in_every_library(library: Library, dtype: str, settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(4), dtype, **settings)

    def step(x: Any, parameters: Any, labels: Any) -> Any:
        return training_step(network, parameters, x, labels)

    assert_same(library, step, x, parameters, labels, stages=2 * stages(network))


@KINDS
@pytest.mark.parametrize("dtype", REAL)
def test_evaluation_in_every_library(library: Library, dtype: str, settings: dict[str, Any]) -> None:
    network, parameters, x, labels = small_network(np.random.default_rng(5), dtype, **settings)
    _, seen = network(parameters, noise(50, x.shape, dtype))

    def evaluation(x: Any, parameters: Any, seen: Any, labels: Any) -> Any:
        logits, _ = network(parameters, x, seen)
        return [logits, hc.cross_entropy(logits, labels)]

    assert_same(library, evaluation, x, parameters, seen, labels, stages=stages(network))


def test_the_stand_in_refuses_what_cupy_refuses() -> None:
    x = put(np.ones((2, 3)))
    with pytest.raises(TypeError, match="implicit conversion"):
        np.asarray(x)
    with pytest.raises(TypeError, match="a NumPy array among arrays of another device"):
        np.concatenate([x, np.ones((2, 3))])
    with pytest.raises(TypeError, match="a NumPy array among arrays of another device"):
        autodiff.elu(x) * np.ones(3)
    with pytest.raises(TypeError, match="arrays of NumPy and tests in one call"):
        autodiff.convolve(x, np.ones(3), 1, boundary="zero")
