"""grad, value_and_grad, vjp, checkpoint and check_grads on pytrees, and their errors."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest

from autodiff import (
    check_grads,
    checkpoint,
    defvjp,
    grad,
    primitive,
    tree_map,
    value_and_grad,
    vjp,
)
from tests.autodiff import typing_cases

EPS = np.finfo(np.float64).eps


class Layer(NamedTuple):
    w: Any
    b: Any


def parameters(dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(11)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    return {"layers": [Layer(normal(3, 4), normal(4)), (normal(4, 2), None)], "scale": normal()}


def network(p: Any, x: Any) -> Any:
    first, (w, _) = p["layers"]
    return p["scale"] * np.tanh(np.tanh(x @ first.w + first.b) @ w)


def loss(p: Any, x: Any, *, power: int = 2) -> Any:
    return np.mean(network(p, x) ** power)


INPUT = np.random.default_rng(12).standard_normal((5, 3))


def test_gradient_of_a_pytree() -> None:
    p = parameters()
    g = grad(loss)(p, INPUT)
    assert set(g) == {"layers", "scale"}
    assert type(g["layers"][0]) is Layer
    assert g["layers"][1][1] is None
    tree_map(lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), p, g)
    check_grads(loss, order=2)(p, INPUT)
    check_grads(network, order=2)(p, INPUT)


def test_several_arguments() -> None:
    p = parameters()
    gp, gx = grad(loss, (0, 1))(p, INPUT)
    tree_map(np.testing.assert_array_equal, gp, grad(loss, 0)(p, INPUT))
    np.testing.assert_array_equal(gx, grad(loss, 1)(p, INPUT))
    assert grad(lambda a, b: a * b, [1])(2.0, 3.0) == (2,)
    assert grad(lambda a, b: a * b, np.int64(1))(2.0, 3.0) == 2


def test_python_numbers() -> None:
    assert grad(lambda x: x * x)(3.0) == 6
    assert grad(lambda z: np.abs(z) ** 2)(1 + 2j) == 2 - 4j
    assert grad(lambda t: t[0] * t[1])((3.0, 4.0)) == (4, 3)


def test_no_dependence_is_a_zero_gradient() -> None:
    x = np.ones((2, 3), np.float32)
    for fun in (lambda x: 3.0, lambda x: np.float64(2), lambda x: np.floor(x).max()):
        g = grad(fun)(x)
        assert g.dtype == np.float32
        assert np.array_equal(g, np.zeros((2, 3)))
    g = grad(lambda p: np.sum(p["a"]))({"a": x, "b": x})
    assert np.array_equal(g["b"], np.zeros((2, 3)))


def test_auxiliary_output() -> None:
    def fun(x: Any) -> Any:
        return np.sum(x**2), {"mean": np.mean(x), "name": "run", "none": None}

    x = np.arange(3.0)
    (value, aux), g = value_and_grad(fun, has_aux=True)(x)
    assert value == 5
    assert type(aux["mean"]) is np.float64
    assert aux == {"mean": 1.0, "name": "run", "none": None}
    assert np.array_equal(g, 2 * x)
    g, aux = grad(fun, has_aux=True)(x)
    assert np.array_equal(g, 2 * x)
    assert aux["mean"] == 1
    # under another trace, what comes out is still traced by that one
    check_grads(lambda x: grad(fun, has_aux=True)(x)[1]["mean"] * grad(fun, has_aux=True)(x)[0])(x)


# vjp


def test_vjp_of_pytrees() -> None:
    def fun(p: Any, x: Any) -> Any:
        return {"y": p[0] * x, "constant": 3.0, "none": None, "deep": (np.sum(x), [p[1]])}

    p, x = (np.ones(3), np.array(2.0)), np.arange(3.0)
    out, pull = vjp(fun, p, x)
    assert tree_map(lambda a: type(a).__name__, out) == {
        "y": "ndarray",
        "constant": "float",
        "none": None,
        "deep": ("float64", ["ndarray"]),
    }
    w = {"y": np.array([1.0, 10.0, 100.0]), "constant": 5.0, "none": None, "deep": (2.0, [7])}
    for _ in range(2):
        (g0, g1), gx = pull(w)
        assert np.array_equal(g0, w["y"] * x)
        assert g1 == 7
        assert np.array_equal(gx, w["y"] + 2)


def test_vjp_is_the_transposed_jacobian() -> None:
    z = np.random.default_rng(3).standard_normal(4) + 1j
    a = np.random.default_rng(4).standard_normal((3, 4)) + 2j
    _, pull = vjp(lambda z: a @ z, z)
    np.testing.assert_allclose(pull(np.ones(3))[0], a.sum(0), rtol=8 * EPS)  # no conjugation


def test_cotangents_take_the_dtype_of_the_output() -> None:
    seen: list[Any] = []
    sine = primitive(np.sin)
    defvjp(sine, lambda ans, x: lambda g: (seen.append(g.dtype), g * np.cos(x))[1])
    _, pull = vjp(sine, np.zeros(3, np.float32))
    assert pull(np.ones(3))[0].dtype == np.float32
    assert pull(np.ones(3, int))[0].dtype == np.float32
    assert seen == [np.float32, np.float32]


# checkpoint


def counted() -> tuple[Any, list[int]]:
    calls: list[int] = []

    def block(p: Any, x: Any, *, gain: float = 1.0) -> Any:
        calls.append(1)
        h = np.tanh(x @ p["w"]) * gain
        return {"h": h, "stats": (np.mean(h), None, 3, np.argmax(np.asarray(1)))}

    return block, calls


def chained(block: Any) -> Any:
    def fun(p: Any, x: Any) -> Any:
        for _ in range(3):
            out = block(p, x, gain=0.5)
            x = out["h"] * out["stats"][0]
        return np.sum(x**2)

    return fun


def test_checkpoint_changes_neither_value_nor_gradient() -> None:
    p, x = {"w": np.random.default_rng(7).standard_normal((3, 3))}, INPUT
    block, calls = counted()
    expected = value_and_grad(chained(block), (0, 1))(p, x)
    calls.clear()
    value, gradients = value_and_grad(chained(checkpoint(block)), (0, 1))(p, x)
    assert len(calls) == 6  # three forward, three again backward
    assert value == expected[0]
    tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=64 * EPS), gradients, expected[1])


def test_checkpoint_is_differentiable_again() -> None:
    p, x = {"w": np.random.default_rng(7).standard_normal((3, 3))}, INPUT
    check_grads(chained(checkpoint(counted()[0])), order=3)(p, x)


def test_checkpoint_of_checkpoints() -> None:
    inner, calls = counted()
    block = checkpoint(checkpoint(inner))
    check_grads(chained(block))({"w": np.eye(3)}, INPUT)
    calls.clear()
    grad(chained(block))({"w": np.eye(3)}, INPUT)
    assert len(calls) == 9


def test_checkpoint_without_a_trace_just_calls() -> None:
    block, calls = counted()
    out = checkpoint(block)({"w": np.eye(3)}, INPUT, gain=2.0)
    assert len(calls) == 1
    assert out["stats"][2:] == (3, 0)
    assert checkpoint(block).__name__ == "block"


def test_checkpoint_of_unused_and_partly_used_outputs() -> None:
    block = checkpoint(lambda x: (np.sin(x), np.cos(x), np.floor(x)))
    x = np.arange(3.0) + 0.5
    np.testing.assert_allclose(grad(lambda x: np.sum(block(x)[0]))(x), np.cos(x), rtol=4 * EPS)
    assert np.array_equal(grad(lambda x: np.sum(block(x)[2]))(x), np.zeros(3))


def test_checkpoint_keeps_no_intermediate() -> None:
    alive: list[weakref.ref[Any]] = []
    in_between: list[int] = []

    @primitive
    def watched(x: Any) -> Any:
        ans = 2 * x
        alive.append(weakref.ref(ans))
        return ans

    defvjp(watched, lambda ans, x: lambda g: (2 + 0 * ans) * g)

    def block(x: Any) -> Any:
        for _ in range(4):
            x = watched(x)
        return np.sin(x)

    def loss(x: Any) -> Any:
        y = np.sum(block_in_use(x))
        in_between.append(sum(ref() is not None for ref in alive))
        return y

    gc.disable()
    try:
        for block_in_use in (block, checkpoint(block)):  # noqa: B007 - loss reads it
            alive.clear()
            grad(loss)(np.ones(3))
            assert sum(ref() is not None for ref in alive) == 0
    finally:
        gc.enable()
    assert in_between == [4, 0]


def test_a_closure_over_a_traced_value_is_an_error() -> None:
    message = "<lambda> uses a traced value from a closure, a keyword or a list: pass it as an argument"
    x = np.ones(3)
    for loss in (
        lambda x: np.sum(checkpoint(lambda y: y * x)(x)),
        lambda x: np.sum(checkpoint(lambda y: y * x)(np.ones(3))),
        lambda x: np.sum(checkpoint(lambda y, k: y * k["k"])(x, k={"k": x})),
        lambda x: grad(lambda y: np.sum(checkpoint(lambda z: z * x)(y)))(np.ones(3)).sum(),
    ):
        with pytest.raises(TypeError) as error:
            grad(loss)(x)
        assert str(error.value) == message
    with pytest.raises(TypeError, match="got a traced value as keyword 'k': pass it by position"):
        grad(lambda x: np.sum(checkpoint(lambda y, k: y * k)(x, k=x)))(x)


def keyword_changed(n: int) -> tuple[Any, float, str]:
    factor = np.full(n, 2.0)
    _, pull = vjp(lambda x: checkpoint(lambda y, *, b: y * b)(x, b=factor), np.ones(n))
    factor[:] = 9
    return pull, 2.0, "<lambda>"


def output_changed(n: int) -> tuple[Any, float, str]:
    out, pull = vjp(np.exp, np.zeros(n))
    out[:] = 0
    return pull, 1.0, "exp"


@pytest.mark.parametrize("n", [2, 20_000])
@pytest.mark.parametrize("changed", [keyword_changed, output_changed])
def test_keywords_of_a_checkpoint_and_outputs_are_kept_or_watched(changed: Any, n: int) -> None:
    pull, slope, name = changed(n)
    if n == 2:
        assert pull(np.ones(n))[0].tolist() == [slope, slope]
    else:
        with pytest.raises(ValueError, match=rf"shape \(20000,\) was changed after {name}"):
            pull(np.ones(n))


# check_grads


def wrong(order: int, k: int = 0) -> Any:
    """The k-th derivative of the sine, whose derivative of this order is wrong by 1e-2 of itself."""
    f = primitive(lambda x: np.sin(x + k * np.pi / 2))
    if k < 4:
        slope, factor = wrong(order, k + 1), 1 + 1e-2 * (k + 1 == order)
        defvjp(f, lambda ans, x: lambda g: g * slope(x) * factor)
    return f


def test_a_right_derivative_passes() -> None:
    check_grads(wrong(order=0), order=3)(INPUT)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_wrong_derivative_is_noticed(order: int) -> None:
    sine = wrong(order)
    if order > 1:
        check_grads(sine, order=order - 1)(INPUT)
    number = r"-?\d+\.?\d*(e-\d+)?"
    message = (
        rf"^order {order}, argument 1: the vjp gives {number}, central differences {number}: "
        rf"they differ by {number}, tolerance {number}$"
    )
    with pytest.raises(AssertionError, match=message) as error:
        check_grads(lambda x, y: x + sine(y), order=order)(INPUT, INPUT)
    exact, numeric, difference, tolerance = map(float, re.findall(r"-?\d+\.\d+(?:e-\d+)?", str(error.value)))
    assert abs(abs(exact - numeric) - difference) <= 1e-2 * difference
    assert difference > tolerance


@pytest.mark.parametrize("seed", range(20))
def test_wrong_derivatives_are_noticed_along_every_direction(seed: int) -> None:
    sine = primitive(np.sin)
    defvjp(sine, None)
    for factor in (0.0, 0.9999, 1.0001, -1.0):
        defvjp(sine, lambda ans, x, c=factor: lambda g: c * g * np.cos(x))
        with pytest.raises(AssertionError):
            check_grads(sine, rng=np.random.default_rng(seed))(INPUT)


def test_a_missing_conjugate_is_noticed() -> None:
    f = primitive(np.conj)
    defvjp(f, lambda ans, x: lambda g: g)
    with pytest.raises(AssertionError, match="order 1, argument 0"):
        check_grads(f)(INPUT + 1j)


def test_a_nan_is_noticed() -> None:
    f = primitive(np.sin)
    defvjp(f, lambda ans, x: lambda g: g * np.nan)
    with pytest.raises(AssertionError, match="the vjp gives nan"):
        check_grads(f)(INPUT)


def test_large_and_small_numbers() -> None:
    x = np.array([1e-6, 1.0, 1e6])
    check_grads(lambda x: x * x)(x)
    check_grads(lambda x: x + 1e9)(INPUT)
    square = primitive(np.square)
    defvjp(square, lambda ans, x: lambda g: g * 2.001 * x)
    with pytest.raises(AssertionError):
        check_grads(square)(x)


def test_what_a_type_checker_reads_can_be_run() -> None:
    typing_cases.check(np.array([1.0, 2.0]), np.array([0.5, 3.0]))
