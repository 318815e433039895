"""Steps of descent: bit for bit those of earlier versions, against loops over numbers, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcnn_core import adamw_update, muon_update_all, sgd_update_all
from hcnn_core import updates as module
from tests.core.oracle import SEEDS, NDArray, eps, noise

REAL = ("float32", "float64")
SHAPES = [(), (1,), (4,), (5, 3, 3), (40, 3, 3), (5, 7, 4), (3, 2, 4), (0, 4), (2, 0)]


def operands(count: int, shape: tuple[int, ...], dtype: str, seed: int = 0) -> list[NDArray]:
    """Arrays that must not be written to."""
    arrays = [noise(seed + k, shape, dtype) for k in range(count)]
    for array in arrays:
        array.flags.writeable = False
    return arrays


def sgd_update(*arrays: Any, weight_decay: float = 0.0, **options: Any) -> Any:
    """The step of one weight."""
    lists = sgd_update_all(*[[a] for a in arrays], **options, weight_decays=[weight_decay])
    return [one for (one,) in lists]


def muon_update(*arrays: Any, weight_decay: float = 0.0, row_axes: int | None = None, **options: Any) -> Any:
    lists = muon_update_all(*[[a] for a in arrays], **options, weight_decays=[weight_decay], row_axes=[row_axes])
    return [one for (one,) in lists]


def assert_equal(found: Any, expected: Any, dtype: str) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype and one.shape == np.shape(other)
        assert np.array_equal(one, other)


def earlier_sgd(
    rate: Any, weight: Any, gradient: Any, v: Any, *, momentum: float, nesterov: bool, weight_decay: float
) -> tuple[Any, Any]:
    """As train/optimizer.py computed it."""
    decay = weight_decay * weight if weight_decay else 0
    v = momentum * v - rate * (gradient + decay)
    step = momentum * v - rate * (gradient + decay) if nesterov else v
    return weight + step, v


def earlier_semi_orthogonal(name: str, array: Any) -> Any:
    matrix = np.reshape(array, (array.shape[0], -1) if name == "h" else (-1, *(array.shape[-1:] or (1,))))
    wide = matrix.shape[0] < matrix.shape[1]
    u = matrix.T if wide else matrix
    u = u / np.sqrt(np.sum(u * u) + 1e-30)
    for _ in range(5):
        gram = u.T @ u
        u = 3.4445 * u + u @ (2.0315 * (gram @ gram) - 4.7750 * gram)
    return np.reshape(u.T if wide else u, array.shape)


def earlier_muon(
    name: str, rate: Any, weight: Any, gradient: Any, v: Any, *, momentum: float, nesterov: bool, weight_decay: float
) -> tuple[Any, Any]:
    """As train/optimizer.py computed it: h has its first axis as rows, all others all axes but the last."""
    decay = weight_decay * weight if weight_decay else 0
    v = momentum * v + gradient
    ahead = momentum * v + gradient if nesterov else v
    return weight + -rate * (earlier_semi_orthogonal(name, ahead) + decay), v


RATES: list[Callable[[str], Any]] = [
    lambda dtype: 0.1,
    lambda dtype: np.float64(0.1),
    lambda dtype: np.asarray(0.1, dtype),
]


@pytest.mark.parametrize("rate", RATES, ids=["number", "number of NumPy", "array without axes"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.9, 0.0), (0.0, 0.01), (1.0, 0.5)])
@pytest.mark.parametrize("dtype", REAL)
def test_bits_are_those_of_earlier_versions(
    dtype: str, momentum: float, weight_decay: float, nesterov: bool, rate: Callable[[str], Any]
) -> None:
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    now = float(rate(dtype))
    for seed, shape in enumerate(SHAPES):
        given = operands(3, shape, dtype, seed)
        expected = earlier_sgd(now, *given, **options)
        assert_equal(sgd_update(*given, rate=rate(dtype), **options), expected, dtype)
        if 0 in shape:
            continue  # NumPy could not tell how many columns there were
        for name, rows in [("w", None), *([("h", 1)] if len(shape) > 1 else [])]:
            expected = earlier_muon(name, now, *given, **options)
            assert_equal(muon_update(*given, rate=rate(dtype), **options, row_axes=rows), expected, dtype)


def test_muon_of_an_array_without_elements_is_one() -> None:
    given = operands(3, (0, 4), "float32")
    assert_equal(muon_update(*given, rate=0.1, momentum=0.9), given[:2], "float32")


@pytest.mark.parametrize(("dtype", "factor"), [("float32", 1e20), ("float32", 1e36), ("float64", 1e200)])
def test_muon_of_large_gradients_moves_as_that_of_small_ones(dtype: str, factor: float) -> None:
    """Squares of such numbers overflow; the step does not depend on the gradient's size."""
    weight, gradient, _ = operands(3, (6, 4), dtype)
    velocity = np.zeros_like(weight)
    expected, _ = muon_update(weight, gradient, velocity, rate=0.1)
    found, kept = muon_update(weight, gradient * gradient.dtype.type(factor), velocity, rate=0.1)
    assert np.abs(found - expected).max() <= 64 * eps(dtype) and np.isfinite(kept).all()
    assert np.abs(found - weight).max() > 0.01


def test_singular_values_of_a_muon_step_are_what_its_notes_say() -> None:
    rng = np.random.default_rng(0)
    (left, _), (right, _) = (np.linalg.qr(rng.standard_normal((12, 12))) for _ in range(2))
    parts = np.concatenate([np.geomspace(1.6e-3, 0.6, 8), np.geomspace(1e-5, 5e-4, 4)])
    parts = np.sort(parts)[::-1]
    gradient = 7.0 * (left * parts) @ right
    moved, _ = muon_update(np.zeros((12, 12)), gradient, np.zeros((12, 12)), rate=-1.0)
    found = np.diag(left.T @ moved @ right.T)  # in the order of the parts
    of_norm = parts / np.sqrt(np.sum(parts**2))
    large = of_norm >= 0.0015
    assert large.sum() == 8 and (found[large] > 0.68).all() and (found[large] < 1.21).all()
    assert (found[~large] < 486 * of_norm[~large]).all() and (found[~large] > 400 * of_norm[~large]).all()
    nearly_zero, _ = muon_update(np.zeros((12, 12)), 1e-20 * gradient, np.zeros((12, 12)), rate=-1.0)
    assert 0.06 < np.linalg.norm(nearly_zero, 2) / (486e-5 * np.linalg.norm(gradient, 2)) < 1


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("rate", [0.1, np.asarray(0.1)], ids=["number", "array"])
def test_what_goes_to_one_kernel_on_a_gpu_is_the_same_step(
    rate: Any, nesterov: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weighted sums of NumPy arrays stand for the kernel; their order of additions is another."""
    monkeypatch.setattr(module, "native", lambda name, like: True)
    monkeypatch.setattr(module, "_number", lambda name, number, like: number)  # else a number of NumPy's array
    weights, gradients, velocities = ([noise(k + n, s, "float64") for n, s in enumerate(SHAPES)] for k in (0, 20, 40))
    decays = [0.1 * (n % 2) for n in range(len(SHAPES))]
    options = {"rate": rate, "momentum": 0.9, "nesterov": nesterov}
    found = sgd_update_all(weights, gradients, velocities, **options, weight_decays=decays)
    for n, arrays in enumerate(zip(weights, gradients, velocities, strict=True)):
        expected = earlier_sgd(0.1, *arrays, momentum=0.9, nesterov=nesterov, weight_decay=decays[n])
        for one, other in zip((found[0][n], found[1][n]), expected, strict=True):
            assert one.shape == np.shape(other)
            assert np.abs(one - other).max(initial=0) <= 8 * eps("float64") * (1 + np.abs(other).max(initial=0))


def adam_of_numbers(
    w: float, gradients: list[float], *, rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float
) -> float:
    """Algorithm 2 of arXiv:1711.05101 on one number, its lambda times the rate, in the longest floats."""
    wide, m, v = np.longdouble(w), np.longdouble(0), np.longdouble(0)
    for t, g in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        seen = [1 - np.longdouble(beta) ** t for beta in betas]
        wide = wide - rate * (m / seen[0] / (np.sqrt(v / seen[1]) + epsilon) + weight_decay * wide)
    return float(wide)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.99), (0.8, 0.0)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("dtype", REAL)
def test_adamw_is_its_algorithm(dtype: str, weight_decay: float, betas: tuple[float, float]) -> None:
    """Five steps, told as numbers and as arrays without axes."""
    options: dict[str, Any] = {"betas": betas, "epsilon": 1e-8, "weight_decay": weight_decay}
    start, *gradients = operands(6, (3, 2), dtype)
    expected = [
        adam_of_numbers(float(start[i]), [float(g[i]) for g in gradients], rate=0.1, **options)
        for i in np.ndindex(start.shape)
    ]
    for of_device in (False, True):
        state: Any = (start, np.zeros_like(start), np.zeros_like(start))
        for t, gradient in enumerate(gradients, 1):
            rate, step = (np.asarray(0.1, dtype), np.asarray(t, dtype)) if of_device else (0.1, t)
            weight, *means = state
            state = adamw_update(weight, gradient, *means, rate=rate, step=step, **options)
        assert all(array.dtype == dtype for array in state)
        # every step is at most 0.1 / (1 - beta) and is off by some roundings of that
        assert np.abs(np.ravel(state[0]) - expected).max() <= 100 * eps(dtype)


def test_adamw_keeps_the_digits_of_its_first_steps_in_single_precision() -> None:
    """1 - 0.999 has five digits there, and the first step would be off by the other two."""
    weight, gradient = np.zeros(3, np.float32), np.array([1, -2, 1e-3], np.float32)
    step = np.ones((), np.float32)
    found, _, _ = adamw_update(weight, gradient, weight, weight, rate=1.0, step=step, epsilon=0)
    assert np.abs(found + np.sign(gradient)).max() <= 4 * eps("float32")
    lossy = 1 - np.float32(0.999) ** step
    assert abs(lossy / 1e-3 - 1) > 100 * eps("float32")
    assert abs(module._part_seen(0.999, step) / 1e-3 - 1) <= 4 * eps("float32")


@given(SEEDS, st.floats(0, 0.999), st.floats(0, 0.9999), st.integers(1, 10**6))
def test_the_first_steps_of_adamw_never_exceed_the_rate(seed: int, first: float, second: float, step: int) -> None:
    """Section 2.1 of arXiv:1412.6980: of a constant gradient, every step is the rate."""
    g = noise(seed, (4,), "float64")
    seen = [1 - beta**step if beta else 1.0 for beta in (first, second)]
    last = [1 - beta ** (step - 1) if step > 1 else 0.0 for beta in (first, second)]
    assert all(math.isfinite(x) and x > 0 for x in seen)
    zero = np.zeros(4)
    found, _, _ = adamw_update(
        zero, g, last[0] * g, last[1] * g * g, rate=0.1, step=step, betas=(first, second), epsilon=0.0
    )
    np.testing.assert_allclose(found, -0.1 * np.sign(g), rtol=1e-9)


def test_no_weights_at_all() -> None:
    assert sgd_update_all([], [], [], rate=0.1, weight_decays=[]) == ([], [])
