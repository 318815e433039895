"""Derivatives of many outputs and of second order, against formulas and against each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from autodiff import (
    check_grads,
    elementwise_grad,
    grad,
    hessian,
    hessian_vector_product,
    jacobian,
    jvp,
)

RNG = np.random.default_rng(11)
X, A = RNG.standard_normal((3, 4)), RNG.standard_normal((2, 3))
EPS = float(np.finfo(np.float64).eps)


def loss(x: Any) -> Any:
    return np.sum(np.sin(x) * np.cumsum(x, axis=1)) + np.prod(x[0])


def test_jacobian_of_a_linear_map() -> None:
    j = jacobian(lambda x: A @ x)(X)
    assert j.shape == (2, 4, 3, 4)
    assert np.array_equal(j, np.einsum("ij,kl->ikjl", A, np.eye(4)))
    assert jacobian(lambda x: A @ x)(X.astype(np.float32)).dtype == np.float32


def test_jacobian_of_scalars_trees_and_nothing() -> None:
    assert jacobian(lambda x: x * x)(3.0) == 6
    assert np.array_equal(jacobian(np.sum)(X), np.ones_like(X))
    found = jacobian(lambda p: p["a"] * p["b"][0])({"a": X[0], "b": [X[1]]})
    assert np.array_equal(found["a"], np.diag(X[1]))
    assert np.array_equal(found["b"][0], np.diag(X[0]))
    assert jacobian(lambda x: x[:0])(X).shape == (0, 4, 3, 4)
    assert np.array_equal(jacobian(lambda x, y: x * y, argnum=1)(X[0], X[1]), np.diag(X[0]))


def test_jacobian_of_a_plain_number_is_zero() -> None:
    for number in (3.0, 2j):
        assert np.array_equal(jacobian(lambda x, c=number: c)(np.ones((2, 3))), np.zeros((2, 3)))


def test_jacobian_of_complex_outputs() -> None:
    assert np.array_equal(jacobian(lambda x: (1 + 2j) * x)(X[0]), (1 + 2j) * np.eye(4))
    z = X[0] + 1j * X[1]
    np.testing.assert_allclose(jacobian(lambda z: z**3)(z), np.diag(3 * z**2), rtol=8 * EPS)


def test_jacobians_are_differentiable() -> None:
    check_grads(jacobian(lambda x: np.prod(x, axis=1)))(X[:2])
    j = jacobian(jacobian(lambda x: x**3))(X[0])
    expected = np.zeros((4, 4, 4))
    expected[np.arange(4), np.arange(4), np.arange(4)] = 6 * X[0]
    np.testing.assert_allclose(j, expected, rtol=8 * EPS)


def test_hessian_is_symmetric_and_that_of_a_form() -> None:
    m = RNG.standard_normal((4, 4))
    np.testing.assert_allclose(hessian(lambda x: x @ m @ x)(X[0]), m + m.T, rtol=16 * EPS)
    h = hessian(loss)(X)
    assert h.shape == (3, 4, 3, 4)
    np.testing.assert_allclose(h, np.transpose(h, (2, 3, 0, 1)), rtol=0, atol=64 * EPS * np.abs(h).max())
    np.testing.assert_array_equal(h, jacobian(grad(loss))(X))


def test_hessian_vector_product() -> None:
    v = RNG.standard_normal(X.shape)
    expected = np.tensordot(hessian(loss)(X), v, 2)
    np.testing.assert_allclose(
        hessian_vector_product(loss)(X, v), expected, rtol=0, atol=64 * EPS * np.abs(expected).max()
    )
    found = hessian_vector_product(lambda s, p: s * np.sum(p["x"] ** 3), 1)(2.0, {"x": X}, {"x": v})
    np.testing.assert_allclose(found["x"], 12 * X * v, rtol=16 * EPS)
    check_grads(hessian_vector_product(loss))(X, v)


def test_jvp_is_the_jacobian_times_the_direction() -> None:
    v = RNG.standard_normal(X.shape)

    def f(x: Any) -> Any:
        return np.linalg.norm(x, axis=1), {"t": np.tanh(x)}

    out, tangent = jvp(f, (X,), (v,))
    np.testing.assert_array_equal(out[0], f(X)[0])
    np.testing.assert_allclose(tangent[0], np.tensordot(jacobian(lambda x: f(x)[0])(X), v, 2), rtol=64 * EPS)
    np.testing.assert_allclose(tangent[1]["t"], v * (1 - np.tanh(X) ** 2), rtol=64 * EPS)
    check_grads(lambda x, v: jvp(f, (x,), (v,))[1])(X, v)
    assert jvp(lambda x, y: x * y, (2.0, 3.0), (1.0, 10.0)) == (6.0, 23.0)
    assert jvp(lambda x: 3.0, (X,), (v,))[1] == 0


def test_elementwise_grad() -> None:
    np.testing.assert_array_equal(elementwise_grad(np.sin)(X), np.cos(X))
    np.testing.assert_allclose(elementwise_grad(elementwise_grad(np.sin))(X), -np.sin(X), rtol=4 * EPS)
    np.testing.assert_array_equal(elementwise_grad(lambda a, x: a * x, 1)(3.0, X), np.full_like(X, 3))
    z = X[0] + 1j * X[1]
    np.testing.assert_array_equal(elementwise_grad(np.sin)(z), np.cos(z))
