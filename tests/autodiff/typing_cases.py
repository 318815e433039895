"""What a type checker sees of derivatives: mypy reads this file with the packages, and a test runs it."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np

from autodiff import (
    check_grads,
    checkpoint,
    elementwise_grad,
    grad,
    hessian_vector_product,
    jvp,
    value_and_grad,
    vjp,
)
from hcnn_core.typing import NumpyArray

Vector = NumpyArray[np.float64]
Weights = dict[str, Vector]


def product(w: Vector, x: Vector) -> Vector:
    return np.multiply(w, x)


def loss(w: Vector, x: Vector, power: int = 2) -> np.float64:
    return np.sum(product(w, x) ** power)


def loss_of_tree(weights: Weights) -> tuple[np.float64, str]:
    return np.sum(weights["w"]), "aux"


def untyped(w: Any) -> Any:
    return np.sum(w), "aux"


def square(x: float) -> float:
    return x**2


def norm(w: Vector) -> np.float64:
    return np.sum(w**2)


def check(w: Vector, x: Vector) -> None:
    """Call each transformation; mypy compares the types of its results."""
    assert_type(grad(loss)(w, x, power=3), Vector)
    assert_type(grad(loss, 1)(w, x), Any)
    assert_type(value_and_grad(loss)(w, x), tuple[np.float64, Vector])
    assert_type(grad(loss_of_tree, has_aux=True)({"w": w}), tuple[Weights, str])
    assert_type(value_and_grad(loss_of_tree, has_aux=True)({"w": w}), tuple[tuple[np.float64, str], Weights])
    slope = grad(square)
    assert_type(grad(slope)(2.0), float)
    assert_type(value_and_grad(untyped, has_aux=True)(w), Any)
    out, pull = vjp(product, w, x)
    assert_type(out, Vector)
    assert_type(pull(out), tuple[Vector, Vector])
    assert_type(vjp(loss, w, x)[0], np.float64)
    assert_type(jvp(product, (w, x), (w, x)), tuple[Vector, Vector])
    assert_type(checkpoint(product)(w, x), Vector)
    assert_type(elementwise_grad(product)(w, x), Vector)
    assert_type(hessian_vector_product(norm)(w, x), Vector)
    check_grads(product)(w, x)
    try:
        grad(loss)("w", x)  # type: ignore[arg-type]
    except TypeError:
        return
    raise AssertionError("text has no gradient")
