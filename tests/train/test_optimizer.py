"""Learning rates at the points that define them, and descent against a loop over scalars."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.config import Config, make_config
from train.networks.registry import build
from train.recipes.optimizers import OPTIMIZERS, Parameter, Progress, updated
from train.recipes.schedules import learning_rate
from train.runs.step import parameters_of

STEPS = 7  # an epoch
DECAYED = ("w", "h", "g")


def rates(**changes: Any) -> list[float]:
    """The learning rate of every step of a run."""
    config = make_config("hcnn", changes)
    return [learning_rate(config, step, STEPS) for step in range(config.epochs * STEPS)]


def test_step_schedule_of_the_paper() -> None:
    """0.25, divided by 10 every 40 epochs of 240."""
    found = rates()
    assert len(found) == 240 * STEPS
    for epoch in range(240):
        expected = 0.25 / 10 ** (epoch // 40)
        np.testing.assert_allclose(found[epoch * STEPS : (epoch + 1) * STEPS], expected, rtol=1e-15)
    assert found[40 * STEPS - 1] == 0.25 and found[40 * STEPS] == 0.025
    np.testing.assert_allclose(rates(warmup_steps=4)[:6], [0.0625, 0.125, 0.1875, 0.25, 0.25, 0.25], rtol=1e-15)


def test_step_schedule_falls_below_the_smallest_number_quietly() -> None:
    found = rates(epochs=400, step_epochs=1, learning_rate=1.0)
    assert found[-1] == 0 and found[300 * STEPS] == pytest.approx(1e-300)
    assert rates(epochs=3, step_epochs=1, step_factor=1e308, learning_rate=1.0)[-1] == 0


def test_cosine_schedule() -> None:
    found = rates(schedule="cosine", epochs=4, learning_rate=0.3)
    assert found[0] == 0.3
    assert found[2 * STEPS] == pytest.approx(0.15, rel=1e-15)
    assert found[STEPS] == pytest.approx(0.3 * (1 + math.sqrt(0.5)) / 2, rel=1e-15)
    assert 0 < found[-1] < 0.01 * 0.3
    assert found == sorted(found, reverse=True)
    for early, late in zip(found[1:], reversed(found), strict=False):  # half a period is odd about its middle
        assert early + late == pytest.approx(0.3, rel=1e-14)


@given(
    epochs=st.integers(1, 9),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5, 0.2]),
)
def test_one_cycle_is_two_straight_lines(epochs: int, steps: int, warmup: float) -> None:
    """Through 0, the highest rate at the end of the warm-up, and 0 at the end, read in the middle of each step."""
    config = make_config("hcnn", {"schedule": "one-cycle", "epochs": epochs, "warmup": warmup, "learning_rate": 0.3})
    total = epochs * steps
    found = [learning_rate(config, step, steps) for step in range(total)]
    middle = np.arange(total) + 0.5
    peak = warmup * total
    expected = np.where(
        middle < peak,
        np.interp(middle, [0, max(peak, 1e-300)], [0, 0.3]),
        np.interp(middle, [min(peak, math.nextafter(total, 0)), total], [0.3, 0]),
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.3 * 1e-12)
    assert min(found) > 0 and max(found) <= 0.3


def scalar_loop(
    config: Config, rate: float, w: float, v: float, gradients: list[float], *, decays: bool
) -> tuple[float, float]:
    """The same descent on one number, written out."""
    for gradient in gradients:
        total = gradient + (config.weight_decay * w if decays else 0)
        v = config.momentum * v - rate * total
        w += config.momentum * v - rate * total if config.nesterov else v
    return w, v


def kind(name: str) -> Any:
    return "filter" if name in DECAYED else name


def descend(config: Config, rate: float, weights: Any, gradients: Any, velocity: Any) -> tuple[Any, Any]:
    """Weights and velocity after a step of an optimiser that keeps no more than a velocity."""
    parameters = {
        la: {n: Parameter(a, kind(n), 1 if n == "h" else None) for n, a in arrays.items()}
        for la, arrays in weights.items()
    }
    weights, state = updated(config, Progress(rate, 1), parameters, gradients, {"velocity": velocity})
    assert OPTIMIZERS[config.optimizer].keeps == ("velocity",)
    assert state.keys() == {"velocity"}
    return weights, state["velocity"]


def tree(rng: np.random.Generator, dtype: str = "float64") -> dict[str, dict[str, Any]]:
    """Arrays of a network's names, a scalar among them."""
    shapes = {"layer01": {"w": (3, 2), "bias": (2,)}, "layer03": {"h": (2, 3), "g": (2, 2), "bias": (2,)}}
    arrays = {la: {n: rng.standard_normal(s).astype(dtype) for n, s in names.items()} for la, names in shapes.items()}
    return {**arrays, "head": {"scale": np.asarray(rng.standard_normal(), dtype)}}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.9, 0.0), (0.0, 0.01), (1.0, 0.5)])
def test_descent_equals_a_loop_over_scalars(nesterov: bool, momentum: float, weight_decay: float) -> None:
    config = make_config("hcnn", {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov})
    rng = np.random.default_rng(0)
    start, velocity = tree(rng), tree(rng)
    gradients = [tree(rng) for _ in range(5)]
    w, v = start, velocity
    for gradient in gradients:
        w, v = descend(config, 0.1, w, gradient, v)
    for layer, arrays in start.items():
        for name, array in arrays.items():
            for i in np.ndindex(array.shape):
                expected = scalar_loop(
                    config,
                    0.1,
                    float(array[i]),
                    float(velocity[layer][name][i]),
                    [float(gradient[layer][name][i]) for gradient in gradients],
                    decays=name in ("w", "h", "g"),
                )
                np.testing.assert_allclose((w[layer][name][i], v[layer][name][i]), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("decay_scales", [False, True])
def test_only_filters_decay_and_scales_where_that_is_set(decay_scales: bool) -> None:
    config = make_config("hcnn", {"weight_decay": 0.5, "momentum": 0.0, "decay_scales": decay_scales})
    decaying = ("w", "h", "g", "scale") if decay_scales else ("w", "h", "g")
    rng = np.random.default_rng(1)
    weights = tree(rng)
    zero = {la: {n: np.zeros_like(a) for n, a in arrays.items()} for la, arrays in weights.items()}
    moved, _ = descend(config, 0.25, weights, zero, zero)
    for layer, arrays in weights.items():
        for name, array in arrays.items():
            share = 1 - 0.25 * 0.5 if name in decaying else 1
            np.testing.assert_allclose(moved[layer][name], share * array, rtol=1e-15)


@pytest.mark.parametrize("preset", ["hcnn", "hcnn-plus", "released"])
def test_filters_scales_and_biases_of_the_network_are_told_apart(preset: str) -> None:
    """By their names, and nothing that the network has under no such name."""
    network = build(make_config(preset))
    found = parameters_of(network, network.initialize(np.random.default_rng(0)))
    parameters = [(name, p) for arrays in found.values() for name, p in arrays.items()]
    scales = {"scale", "h_scale"} if preset == "released" else {"scale"}
    assert {name for name, p in parameters if p.kind == "filter"} == set(DECAYED)
    assert {name for name, p in parameters if p.kind == "scale"} == scales
    assert {name.removeprefix("h_") for name, p in parameters if p.kind == "bias"} == {"bias"}
    assert {name for name, p in parameters if p.row_axes == 1} == {"h"}
    assert {p.row_axes for name, p in parameters if name != "h"} == {None}


def quintic(singular_values: Any) -> Any:
    """What five iterations of Muon's polynomial make of singular values."""
    for _ in range(5):
        s = singular_values
        singular_values = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return singular_values


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(5, 3, 3), (40, 3, 3)])
def test_muon_moves_along_the_singular_vectors_of_the_momentum(nesterov: bool, shape: tuple[int, ...]) -> None:
    """Against a singular value decomposition of each array, laid out by hand as the matrix of its linear map."""
    config = make_config("hcnn", {"optimizer": "muon", "nesterov": nesterov, "momentum": 0.75, "weight_decay": 0.01})
    rng = np.random.default_rng(3)
    q, s1, s2 = shape
    matrices = {"h": (q, s1 * s2), "g": (q * 7, 4), "w": (6, 4), "bias": (1, 4), "scale": (1, 1)}
    shapes = {"h": shape, "g": (q, 7, 4), "w": (3, 2, 4), "bias": (4,), "scale": ()}
    weights, gradients, velocity = (
        {"layer03": {name: rng.standard_normal(s) * 1e-3 for name, s in shapes.items()}} for _ in range(3)
    )
    found, moved = descend(config, 0.1, weights, gradients, velocity)
    for name, matrix in matrices.items():
        w, g, v = (np.asarray(tree["layer03"][name]) for tree in (weights, gradients, velocity))
        v = 0.75 * v + g
        u, s, vh = np.linalg.svd((0.75 * v + g if nesterov else v).reshape(matrix), full_matrices=False)
        expected = w - 0.1 * (
            ((u * quintic(s / np.linalg.norm(s))) @ vh).reshape(w.shape) + (0.01 * w if name in DECAYED else 0)
        )
        np.testing.assert_allclose(found["layer03"][name], expected, rtol=0, atol=1e-13)
        np.testing.assert_allclose(moved["layer03"][name], v, rtol=1e-14)
